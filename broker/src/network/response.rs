//! An answer on its way out: small fields in memory, record bytes as slices that are never copied into it (DESIGN D5).

use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::messages::{ApiKey, ResponseHeader};
use kafka_protocol::protocol::{Encodable, HeaderVersion};
use storage::log::{FileSlice, RecordSlice};

/// A piece of an answer.
#[derive(Debug)]
pub enum Chunk {
    /// Bytes in memory.
    Memory(Bytes),
    /// Bytes still in a segment file.
    File(FileSlice),
}

impl Chunk {
    /// Length in bytes.
    pub fn size_bytes(&self) -> usize {
        match self {
            Chunk::Memory(bytes) => bytes.len(),
            Chunk::File(slice) => slice.size_bytes,
        }
    }
}

impl From<RecordSlice> for Chunk {
    fn from(slice: RecordSlice) -> Chunk {
        match slice {
            RecordSlice::Memory(bytes) => Chunk::Memory(bytes),
            RecordSlice::File(slice) => Chunk::File(slice),
        }
    }
}

/// One whole answer, size prefix included.
#[derive(Debug)]
pub struct Response {
    chunks: Vec<Chunk>,
}

/// An answer could not be written in the version asked for: a bug of ours, so the connection is closed and it is said.
#[derive(Debug, thiserror::Error)]
#[error("answer to {api_key:?} v{api_version} cannot be encoded: {reason}")]
pub struct EncodeError {
    api_key: ApiKey,
    api_version: i16,
    reason: String,
}

impl EncodeError {
    /// The crate's error, with the answer it is about.
    ///
    /// # Errors
    /// If there is one.
    pub fn check<E: std::fmt::Display>(
        api_key: ApiKey,
        api_version: i16,
        outcome: Result<(), E>,
    ) -> Result<(), EncodeError> {
        let told = |error: E| EncodeError { api_key, api_version, reason: error.to_string() };
        outcome.map_err(told)
    }
}

impl Response {
    /// Encodes an answer that holds no record bytes.
    ///
    /// # Errors
    /// [`EncodeError`] when a field is set that this version does not carry.
    pub fn encode<R: Encodable + HeaderVersion>(
        api_key: ApiKey,
        api_version: i16,
        correlation_id: i32,
        body: &R,
    ) -> Result<Response, EncodeError> {
        let mut builder = ResponseBuilder::new(api_key, api_version, correlation_id)?;
        builder.fields(|buffer| body.encode(buffer, api_version))?;
        builder.finish()
    }

    /// Pieces that are an answer already, size prefix included.
    #[cfg(test)]
    pub(super) fn from_chunks(chunks: Vec<Chunk>) -> Response {
        Response { chunks }
    }

    /// Bytes of it that are in memory.
    pub fn memory_bytes(&self) -> usize {
        let in_memory = self.chunks.iter().filter(|chunk| matches!(chunk, Chunk::Memory(_)));
        in_memory.map(Chunk::size_bytes).sum()
    }

    /// The pieces, in order.
    pub fn into_chunks(self) -> Vec<Chunk> {
        self.chunks
    }
}

/// Builds an answer piece by piece; only Fetch needs more than [`Response::encode`].
#[derive(Debug)]
pub struct ResponseBuilder {
    api_key: ApiKey,
    api_version: i16,
    chunks: Vec<Chunk>,
    fields: BytesMut,
}

impl ResponseBuilder {
    /// Starts with the size prefix (filled in by [`Self::finish`]) and the response header.
    ///
    /// # Errors
    /// Never for an advertised API; the crate's encoder is fallible.
    pub fn new(
        api_key: ApiKey,
        api_version: i16,
        correlation_id: i32,
    ) -> Result<ResponseBuilder, EncodeError> {
        let mut builder =
            ResponseBuilder { api_key, api_version, chunks: Vec::new(), fields: BytesMut::new() };
        builder.fields.put_i32(0);
        let header_version = api_key.response_header_version(api_version);
        let header = ResponseHeader::default().with_correlation_id(correlation_id);
        builder.fields(|buffer| header.encode(buffer, header_version))?;
        Ok(builder)
    }

    /// Appends encoded fields.
    ///
    /// # Errors
    /// What the crate's encoder refuses.
    pub fn fields<E: std::fmt::Display>(
        &mut self,
        write: impl FnOnce(&mut BytesMut) -> Result<(), E>,
    ) -> Result<(), EncodeError> {
        EncodeError::check(self.api_key, self.api_version, write(&mut self.fields))
    }

    /// Appends bytes that are ready, of records mostly, without copying them.
    pub fn records(&mut self, chunk: Chunk) {
        if !self.fields.is_empty() {
            self.chunks.push(Chunk::Memory(self.fields.split().freeze()));
        }
        self.chunks.push(chunk);
    }

    /// Fills in the size prefix.
    ///
    /// # Errors
    /// When the answer is larger than its size prefix can say; nobody could read it.
    pub fn finish(mut self) -> Result<Response, EncodeError> {
        if !self.fields.is_empty() {
            self.chunks.push(Chunk::Memory(self.fields.freeze()));
        }
        let total: usize = self.chunks.iter().map(Chunk::size_bytes).sum();
        let size = i32::try_from(total - 4).map_err(|_| EncodeError {
            api_key: self.api_key,
            api_version: self.api_version,
            reason: format!("{total} bytes are more than a frame can have"),
        })?;
        let Some(Chunk::Memory(first)) = self.chunks.first_mut() else {
            unreachable!("the header is always the first chunk")
        };
        let mut head = BytesMut::from(std::mem::take(first));
        head[..4].copy_from_slice(&size.to_be_bytes());
        *first = head.freeze();
        Ok(Response { chunks: self.chunks })
    }
}
