//! Frames off the wire: an int32 size, then so many bytes.

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};

/// Bytes reserved on a size's word alone; past it, no more than have already come.
const TRUSTED_RESERVE_BYTES: usize = 1 << 20;
const READ_BYTES: usize = 16 << 10;
/// The shortest answer: its correlation id.
const MIN_FRAME_BYTES: usize = 4;

#[derive(Debug, thiserror::Error)]
pub(super) enum FrameError {
    #[error("the connection ended{}", if *.within_frame { " in the middle of an answer" } else { "" })]
    Ended { within_frame: bool },
    #[error(transparent)]
    Io(#[from] std::io::Error),
    #[error("an answer of {size} bytes; at most {max} are read")]
    Size { size: i32, max: usize },
}

/// Cuts a stream into frames.
pub(super) struct FrameReader<S> {
    stream: S,
    buffer: BytesMut,
    max_frame_size_bytes: usize,
}

impl<S: AsyncRead + Unpin> FrameReader<S> {
    pub(super) fn new(stream: S, max_frame_size_bytes: usize) -> Self {
        FrameReader { stream, buffer: BytesMut::new(), max_frame_size_bytes }
    }

    /// The next frame without its size. Cancel-safe: what was read stays in the buffer.
    pub(super) async fn next(&mut self) -> Result<Bytes, FrameError> {
        loop {
            if let Some(frame) = self.take_frame()? {
                return Ok(frame);
            }
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                return Err(FrameError::Ended { within_frame: !self.buffer.is_empty() });
            }
        }
    }

    /// A whole frame out of the buffer; otherwise room for more of it.
    fn take_frame(&mut self) -> Result<Option<Bytes>, FrameError> {
        let Some(size) = self.buffer.first_chunk().copied().map(i32::from_be_bytes) else {
            self.buffer.reserve(READ_BYTES);
            return Ok(None);
        };
        let max = self.max_frame_size_bytes;
        let frame_size = usize::try_from(size)
            .ok()
            .filter(|size| (MIN_FRAME_BYTES..=max).contains(size))
            .ok_or(FrameError::Size { size, max })?;
        let missing = (4 + frame_size).saturating_sub(self.buffer.len());
        if missing > 0 {
            self.buffer.reserve(missing.min(TRUSTED_RESERVE_BYTES.max(self.buffer.len())));
            return Ok(None);
        }
        self.buffer.advance(4);
        Ok(Some(self.buffer.split_to(frame_size).freeze()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    async fn frames(bytes: &[u8]) -> (Vec<Bytes>, FrameError) {
        let mut reader = FrameReader::new(bytes, 1 << 20);
        let mut frames = Vec::new();
        loop {
            match reader.next().await {
                Ok(frame) => frames.push(frame),
                Err(error) => return (frames, error),
            }
        }
    }

    fn block_on<F: Future>(future: F) -> F::Output {
        tokio::runtime::Builder::new_current_thread().build().expect("a runtime").block_on(future)
    }

    proptest! {
        #[test]
        fn frames_come_out_as_they_went_in(
            bodies in prop::collection::vec(prop::collection::vec(any::<u8>(), 4..40_000), 0..5),
            cut in any::<prop::sample::Index>(),
        ) {
            let mut wire = Vec::new();
            for body in &bodies {
                wire.extend((body.len() as i32).to_be_bytes());
                wire.extend(body);
            }
            let (read, end) = block_on(frames(&wire));
            prop_assert_eq!(&read, &bodies);
            prop_assert!(matches!(end, FrameError::Ended { within_frame: false }), "{}", end);

            let cut = cut.index(wire.len() + 1);
            let (read, _) = block_on(frames(&wire[..cut]));
            prop_assert!(read.len() <= bodies.len() && read == bodies[..read.len()]);
        }
    }

    #[test]
    fn sizes_that_no_answer_has_are_refused() {
        for size in [-1, 0, 3, (1 << 20) + 1, i32::MAX, i32::from_be_bytes(*b"HTTP")] {
            let (read, end) = block_on(frames(&size.to_be_bytes()));
            assert!(read.is_empty() && matches!(end, FrameError::Size { .. }), "{size}: {end}");
        }
    }

    #[test]
    fn a_claimed_size_alone_reserves_no_more_than_a_mebibyte() {
        let mut reader = FrameReader::new(&b""[..], usize::MAX);
        reader.buffer.extend(i32::MAX.to_be_bytes());
        assert!(reader.take_frame().expect("legal").is_none());
        assert!(reader.buffer.capacity() < 2 * TRUSTED_RESERVE_BYTES);
    }
}
