//! The request header, read where it stands: v1 or, for flexible versions, v2 (tagged fields at its end).
//!
//! | bytes | field |
//! |---|---|
//! | 2, 2, 4 | api key, api version, correlation id |
//! | 2 + n | client id, int16 length, negative for null; never compact, so that any broker can read it |
//! | v2: … | tagged fields; none is defined yet |

use super::walk::Walk;
use super::{API_VERSIONS, FrameError, api};

/// A request's header as a view of its frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestHeaderView<'a> {
    /// Which request.
    pub api_key: i16,
    /// In which version.
    pub api_version: i16,
    /// Echoed in the answer.
    pub correlation_id: i32,
    /// What the client calls itself, up to the first byte that is not UTF-8; none if null.
    pub client_id: Option<&'a str>,
    /// First byte after the header, from the start of the frame.
    pub body_offset: usize,
}

impl<'a> RequestHeaderView<'a> {
    /// Reads the header of `frame`, which starts after the frame's 4-byte size. It succeeds for versions without a schema
    /// too (the header's own version follows from the schema, and is 2 for an ApiVersions newer than ours, as in Kafka), so
    /// that the caller can say which request it refuses.
    ///
    /// # Errors
    /// An api key without a request, or bytes that are no header.
    pub fn parse(frame: &'a [u8]) -> Result<RequestHeaderView<'a>, FrameError> {
        let mut walk = Walk::new(frame);
        let api_key = walk.i16()?;
        let api_version = walk.i16()?;
        let correlation_id = walk.i32()?;
        let api = api(api_key).ok_or(FrameError::UnknownApi { api_key })?;
        let client_id = walk.client_id()?;
        let newer_api_versions =
            api_key == API_VERSIONS && !(api.min_version..=api.max_version).contains(&api_version);
        if api_version >= api.flexible_from || newer_api_versions {
            walk.tags(&[])?;
        }
        Ok(RequestHeaderView {
            api_key,
            api_version,
            correlation_id,
            client_id,
            body_offset: walk.position(),
        })
    }
}
