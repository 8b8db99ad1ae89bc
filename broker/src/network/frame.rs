//! Frames: a four-byte big-endian size, then that many bytes (kafka-facts §1.4).
//!
//! A connection holds a buffer only while a frame is arriving. Memory for a large frame is reserved at once but
//! touched only as its bytes come in, so a peer that claims 100 MiB and sends nothing costs address space, not memory.

use bytes::{Buf, Bytes, BytesMut};
use std::io;
use tokio::io::{AsyncRead, AsyncReadExt};

/// Bytes read at once while no large frame is under way.
const READ_AHEAD_BYTES: usize = 8 * 1024;

/// Why no further frame can be read from this peer.
#[derive(Debug, thiserror::Error)]
pub enum FrameReadError {
    /// The size prefix is negative or above `socket.request.max.bytes`.
    #[error("frame of {size} bytes; this listener allows 0 to {limit} (socket.request.max.bytes)")]
    Size {
        /// What the prefix said.
        size: i32,
        /// The limit in force, bytes.
        limit: usize,
    },
    /// The connection ended inside a frame.
    #[error("connection ended inside a frame")]
    Torn,
    /// The socket failed.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Cuts a byte stream into frames.
#[derive(Debug, Default)]
pub struct FrameReader {
    buffer: BytesMut,
}

impl FrameReader {
    /// The next whole frame without its size prefix, or `None` at a clean end of the stream.
    /// Cancel-safe: bytes already read stay in the buffer.
    ///
    /// # Errors
    /// [`FrameReadError`]; the stream is then no longer at a frame boundary and must be closed.
    pub async fn read<R: AsyncRead + Unpin>(
        &mut self,
        stream: &mut R,
        limit_bytes: usize,
    ) -> Result<Option<Bytes>, FrameReadError> {
        loop {
            if let Some(frame) = self.take_frame(limit_bytes)? {
                return Ok(Some(frame));
            }
            if stream.read_buf(&mut self.buffer).await? == 0 {
                return if self.buffer.is_empty() { Ok(None) } else { Err(FrameReadError::Torn) };
            }
        }
    }

    /// Whether no byte of a next frame has arrived; the buffer's memory is then given back.
    pub fn release_if_idle(&mut self) -> bool {
        let is_idle = self.buffer.is_empty();
        if is_idle {
            self.buffer = BytesMut::new();
        }
        is_idle
    }

    /// Bytes that have arrived and belong to no frame handed out yet.
    pub fn buffered_bytes(&self) -> usize {
        self.buffer.len()
    }

    fn take_frame(&mut self, limit_bytes: usize) -> Result<Option<Bytes>, FrameReadError> {
        let Some(prefix) = self.buffer.first_chunk::<4>() else {
            self.buffer.reserve(READ_AHEAD_BYTES);
            return Ok(None);
        };
        let size = i32::from_be_bytes(*prefix);
        let size_bytes = usize::try_from(size).ok().filter(|&size| size <= limit_bytes);
        let Some(size_bytes) = size_bytes else {
            return Err(FrameReadError::Size { size, limit: limit_bytes });
        };
        let have = self.buffer.len() - 4;
        if have < size_bytes {
            self.buffer.reserve((size_bytes - have).max(READ_AHEAD_BYTES.min(size_bytes)));
            return Ok(None);
        }
        self.buffer.advance(4);
        Ok(Some(self.buffer.split_to(size_bytes).freeze()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn read_all(mut bytes: &[u8], limit: usize) -> (Vec<Bytes>, Option<FrameReadError>) {
        let mut reader = FrameReader::default();
        let mut frames = Vec::new();
        loop {
            match reader.read(&mut bytes, limit).await {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => return (frames, None),
                Err(error) => return (frames, Some(error)),
            }
        }
    }

    #[tokio::test]
    async fn frames_that_arrive_together_are_told_apart() {
        let (frames, error) = read_all(b"\0\0\0\x02ab\0\0\0\0\0\0\0\x01c", 16).await;
        assert!(error.is_none());
        assert_eq!(frames, [&b"ab"[..], b"", b"c"]);
    }

    #[tokio::test]
    async fn a_size_outside_the_limit_ends_the_stream_without_reserving_it() {
        for prefix in [i32::MAX, -1, 17] {
            let (frames, error) = read_all(&prefix.to_be_bytes(), 16).await;
            assert!(frames.is_empty());
            assert!(matches!(error, Some(FrameReadError::Size { size, .. }) if size == prefix));
        }
    }

    #[tokio::test]
    async fn an_end_inside_a_frame_is_not_a_clean_end() {
        let (frames, error) = read_all(b"\0\0\0\x03ab", 16).await;
        assert!(frames.is_empty());
        assert!(matches!(error, Some(FrameReadError::Torn)));
    }
}
