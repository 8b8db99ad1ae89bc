//! The gate in front of every decoder: a table-driven walk of a request's or a response's bytes.
//!
//! `kafka-protocol`'s decoders reserve memory from the counts they read (`Vec::with_capacity`), so that a Produce body of 12
//! bytes asks for 400 GB and the process aborts. Nothing reaches a decoder before this walk has passed it, neither what a client
//! asks nor what a broker answers. The walk follows the schema of the version ([`schema_table`], generated from Kafka's own
//! schemas) and proves:
//! - every string, byte block, array and tagged field lies inside the frame, and every count has the bytes for its elements;
//! - nulls stand only where the version allows them, text is UTF-8 and at most 32,767 bytes, varints end within five bytes;
//! - tagged fields of a known number have the version and the size that they claim; unknown ones are bounded and skipped;
//! - the decoded structs take at most [`decoded_size_limit`] bytes, records and text not counted, because those stay views of the frame.
//!
//! What it passes, the crate decodes; what it refuses was not legal, or was so only in name (millions of empty names). It
//! allocates nothing, and steps over record bytes without reading them: a Produce frame costs the walk of its topic and
//! partition list.
//!
//! Bytes after the body are left alone, as Kafka leaves them.

pub mod arbitrary;
mod header;
#[rustfmt::skip] // generated
mod schema_table;
mod walk;

pub use header::RequestHeaderView;
use schema_table::APIS;
use walk::Walk;

/// Why a frame was refused. Positions are bytes from the start of the slice that was checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// No such request; Kafka closes the connection.
    #[error("api key {api_key} is not known")]
    UnknownApi {
        /// As on the wire.
        api_key: i16,
    },
    /// A request we know in a version we do not. ApiVersions alone has an answer to this (KIP-511).
    #[error("{name} (api key {api_key}) has no version {api_version}: {min}-{max} can be read")]
    UnsupportedVersion {
        /// Kafka's name of the request.
        name: &'static str,
        /// As on the wire.
        api_key: i16,
        /// As on the wire.
        api_version: i16,
        /// Lowest version with a schema.
        min: i16,
        /// Highest version with a schema.
        max: i16,
    },
    /// A field runs past the end.
    #[error("byte {position}: {needed} bytes claimed, {remaining} left")]
    Truncated {
        /// Where the field's content starts.
        position: usize,
        /// How many bytes it claims.
        needed: usize,
        /// How many there are.
        remaining: usize,
    },
    /// More elements than the rest of the frame could hold, each at its smallest.
    #[error("byte {position}: {count} elements claimed, {remaining} bytes left")]
    TooManyElements {
        /// Where the first element starts.
        position: usize,
        /// How many are claimed.
        count: usize,
        /// How many bytes are left for them.
        remaining: usize,
    },
    /// Null where the version has no null, or a length below -1.
    #[error("byte {position}: null or negative length where neither is allowed")]
    NullNotAllowed {
        /// Where the length stands.
        position: usize,
    },
    /// A compact string that could not stand in a version with plain ones: those have at most 32,767 bytes.
    #[error("byte {position}: a string of {length} bytes")]
    StringTooLong {
        /// Where the text starts.
        position: usize,
        /// How many bytes it claims.
        length: usize,
    },
    /// A presence byte that is neither 1 nor negative.
    #[error("byte {position}: a struct is marked neither present nor null")]
    PresenceUnclear {
        /// Where the byte stands.
        position: usize,
    },
    /// A varint that goes on after five bytes.
    #[error("byte {position}: varint longer than 5 bytes")]
    VarintTooLong {
        /// Where it starts.
        position: usize,
    },
    /// Text that is not UTF-8.
    #[error("byte {position}: text is not UTF-8")]
    NotUtf8 {
        /// Where the text starts.
        position: usize,
    },
    /// A tagged field that this API has, in a version that lacks it.
    #[error("byte {position}: tag {tag} does not belong to this version")]
    TagNotInVersion {
        /// Where the field's content starts.
        position: usize,
        /// Its number.
        tag: u32,
    },
    /// A known tagged field whose content is not as long as its size says.
    #[error("byte {position}: tag {tag} claims {claimed} bytes and takes {taken}")]
    TagSizeWrong {
        /// Where the field's content starts.
        position: usize,
        /// Its number.
        tag: u32,
        /// The size before it.
        claimed: usize,
        /// The size by its schema.
        taken: usize,
    },
    /// Legal piece by piece, and far larger decoded than the frame justifies.
    #[error("byte {position}: decoded it would take more than {limit} bytes")]
    DecodedTooLarge {
        /// How far the walk came.
        position: usize,
        /// [`decoded_size_limit`] of the frame.
        limit: usize,
    },
}

/// Checks one request body: `body` starts after the request header. See the module for what `Ok` promises.
///
/// # Errors
/// The first thing found wrong. The caller closes the connection, except for ApiVersions in an unknown version.
pub fn check_request(api_key: i16, api_version: i16, body: &[u8]) -> Result<(), FrameError> {
    let api = api(api_key).ok_or(FrameError::UnknownApi { api_key })?;
    let shape =
        api.body(api.requests, api_version).ok_or_else(|| api.unsupported(api_key, api_version))?;
    Walk::new(body).shape(shape)
}

/// Checks one response body: `body` starts after the response header ([`response_header_size`]).
///
/// # Errors
/// The first thing found wrong. The caller closes the connection.
pub fn check_response(api_key: i16, api_version: i16, body: &[u8]) -> Result<(), FrameError> {
    let api = api(api_key).ok_or(FrameError::UnknownApi { api_key })?;
    let shape = api
        .body(api.responses, api_version)
        .ok_or_else(|| api.unsupported(api_key, api_version))?;
    Walk::new(body).shape(shape)
}

/// Bytes of the header of a response: the correlation id and, in flexible versions, tagged fields (none is defined yet).
/// ApiVersions is answered without them in every version, so that any client can read it (KIP-511).
///
/// # Errors
/// No such API, or bytes that are no header.
pub fn response_header_size(
    api_key: i16,
    api_version: i16,
    frame: &[u8],
) -> Result<usize, FrameError> {
    let api = api(api_key).ok_or(FrameError::UnknownApi { api_key })?;
    let mut walk = Walk::new(frame);
    walk.i32()?;
    if api_version >= api.flexible_from && api_key != API_VERSIONS {
        walk.tags(&[])?;
    }
    Ok(walk.position())
}

/// Most bytes that the structs decoded from a frame may take: 1 MiB and 16 for each byte of the frame, never over 256 MiB.
///
/// Real requests need 2–12 for each byte. An empty name costs one byte on the wire and about 100 decoded, so without a
/// limit a frame of 100 MiB would justify 10 GiB.
pub fn decoded_size_limit(frame_size_bytes: usize) -> usize {
    const BASE: usize = 1 << 20;
    const PER_FRAME_BYTE: usize = 16;
    const MAX: usize = 256 << 20;
    frame_size_bytes.saturating_mul(PER_FRAME_BYTE).saturating_add(BASE).min(MAX)
}

/// Lowest and highest version of a request that has a schema here (and a type in the crate), both inclusive; what is
/// *served* is for `api::versions` to say.
pub fn schema_versions(api_key: i16) -> Option<(i16, i16)> {
    api(api_key).map(|api| (api.min_version, api.max_version))
}

fn api(api_key: i16) -> Option<&'static Api> {
    APIS.get(usize::try_from(api_key).ok()?)?.as_ref()
}

/// `ApiVersions`: its request's header must be readable in versions that do not exist yet, its response's in all.
const API_VERSIONS: i16 = 18;

/// One API: its bodies from `min_version` on.
struct Api {
    name: &'static str,
    min_version: i16,
    max_version: i16,
    /// First version with tagged fields and compact lengths; `i16::MAX` if there is none.
    flexible_from: i16,
    requests: &'static [&'static Shape],
    responses: &'static [&'static Shape],
}

impl Api {
    fn body(&self, bodies: &[&'static Shape], version: i16) -> Option<&'static Shape> {
        let index = usize::try_from(version.checked_sub(self.min_version)?).ok()?;
        bodies.get(index).copied()
    }

    fn unsupported(&self, api_key: i16, api_version: i16) -> FrameError {
        FrameError::UnsupportedVersion {
            name: self.name,
            api_key,
            api_version,
            min: self.min_version,
            max: self.max_version,
        }
    }
}

/// What stands on the wire for one struct, or one array element, in one version.
struct Shape {
    /// Bytes of the smallest legal encoding; at least 1 where it is an array's element.
    min_size: usize,
    /// Bytes that the crate's struct takes in memory, without what its pointers reach.
    decoded_size: usize,
    ops: &'static [Op],
}

/// One step of the walk. Plain lengths are int16 (strings) or int32; compact ones are varints of length + 1, 0 for null.
enum Op {
    /// So many bytes of numbers, flags and uuids.
    Fixed(usize),
    String,
    NullableString,
    CompactString,
    CompactNullableString,
    /// Bytes or records: stepped over.
    Bytes,
    NullableBytes,
    CompactBytes,
    CompactNullableBytes,
    Array(&'static Shape),
    NullableArray(&'static Shape),
    CompactArray(&'static Shape),
    CompactNullableArray(&'static Shape),
    /// A presence byte, then the struct.
    NullableStruct(&'static Shape),
    /// The tagged fields that end a struct: those of the schema, by number; `None` is known in other versions only.
    Tags(&'static [(u32, Option<&'static Shape>)]),
}

#[cfg(test)]
mod tests;
