//! Frames: a four-byte big-endian size, then that many bytes (kafka-facts §1.4).
//!
//! A read takes what has come, up to [`READ_AHEAD_BYTES`], into memory that all connections of a thread share; the whole
//! frames in it are copied out together. A connection has memory of its own only for whole frames that are not handled
//! yet, and for a frame that has begun to arrive: that is read into its buffer directly, which is reserved in steps, so
//! that a peer that claims 100 MiB and sends nothing costs neither memory nor much address space.

use super::buffer_pool::{BufferPool, FrameBuffer};
use bytes::{Buf, BufMut, Bytes};
use std::cell::RefCell;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncReadExt, ReadBuf};

/// Bytes read at once while no large frame is under way.
pub const READ_AHEAD_BYTES: usize = 32 * 1024;
/// Memory reserved for a frame before its bytes come; a larger frame's buffer doubles as they do.
const FIRST_RESERVE_BYTES: usize = 2 * 1024 * 1024;
const PREFIX_BYTES: usize = 4;

thread_local! {
    static READ_AHEAD: RefCell<Vec<u8>> = RefCell::new(vec![0; READ_AHEAD_BYTES]);
}

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
#[derive(Debug)]
pub struct FrameReader {
    limit_bytes: usize,
    pool: Arc<BufferPool>,
    /// Whole frames with their prefixes.
    whole: Bytes,
    /// A whole frame without its prefix; comes before `whole`, which is then empty.
    large: Option<Bytes>,
    /// A prefix that has not come in whole, and how much of it has.
    prefix: ([u8; PREFIX_BYTES], usize),
    under_way: Option<UnderWay>,
    /// What follows the whole frames is no frame.
    bad_size: Option<i32>,
}

/// A frame that has begun to arrive.
#[derive(Debug)]
struct UnderWay {
    buffer: FrameBuffer,
    size_bytes: usize,
}

impl FrameReader {
    /// Frames of at most `limit_bytes`; buffers come from `pool`.
    pub fn new(limit_bytes: usize, pool: Arc<BufferPool>) -> FrameReader {
        FrameReader {
            limit_bytes,
            pool,
            whole: Bytes::new(),
            large: None,
            prefix: ([0; PREFIX_BYTES], 0),
            under_way: None,
            bad_size: None,
        }
    }

    /// The next frame that has come in whole, without its prefix.
    ///
    /// # Errors
    /// What follows is no frame; the connection must be closed.
    pub fn next_frame(&mut self) -> Result<Option<Bytes>, FrameReadError> {
        if let Some(frame) = self.large.take() {
            return Ok(Some(frame));
        }
        if self.whole.is_empty() {
            return match self.bad_size {
                Some(size) => Err(FrameReadError::Size { size, limit: self.limit_bytes }),
                None => Ok(None),
            };
        }
        let size_bytes = self.whole.get_u32() as usize;
        Ok(Some(self.whole.split_to(size_bytes)))
    }

    /// Whether there is nothing to hand out, and more may be read.
    pub fn is_drained(&self) -> bool {
        self.whole.is_empty() && self.large.is_none() && self.bad_size.is_none()
    }

    /// Bytes that have come in and were not handed out.
    pub fn held_bytes(&self) -> usize {
        let arriving = self.under_way.as_ref().map_or(0, |frame| frame.buffer.bytes.len());
        self.whole.len() + self.large.as_ref().map_or(0, Bytes::len) + arriving
    }

    /// Whether a frame has begun to arrive and has not come in whole.
    pub fn is_under_way(&self) -> bool {
        self.under_way.is_some()
    }

    /// The most that one [`Self::poll_read`] may add to what is held.
    pub fn wanted_bytes(&self) -> usize {
        match &self.under_way {
            Some(frame) => frame.size_bytes - frame.buffer.bytes.len(),
            None => READ_AHEAD_BYTES,
        }
    }

    /// Reads once, at most `room_bytes`, which is more than 0. `false` is a clean end of the stream.
    /// Only to be called while [`Self::is_drained`]. Cancel-safe.
    ///
    /// # Errors
    /// [`FrameReadError::Torn`] and [`FrameReadError::Io`]; the connection must be closed.
    pub fn poll_read<R: AsyncRead + Unpin>(
        &mut self,
        context: &mut Context<'_>,
        stream: &mut R,
        room_bytes: usize,
    ) -> Poll<Result<bool, FrameReadError>> {
        debug_assert!(self.is_drained() && room_bytes > 0);
        let read = match &mut self.under_way {
            Some(frame) => {
                let size_bytes = ready!(frame.poll_read(context, stream, room_bytes))?;
                if frame.buffer.bytes.len() == frame.size_bytes {
                    let whole = self.under_way.take().expect("it was just read into");
                    self.large = Some(self.pool.freeze(whole.buffer));
                }
                size_bytes
            }
            None => ready!(self.poll_read_ahead(context, stream, room_bytes))?,
        };
        let is_at_boundary = self.under_way.is_none() && self.prefix.1 == 0;
        match read {
            0 if is_at_boundary => Poll::Ready(Ok(false)),
            0 => Poll::Ready(Err(FrameReadError::Torn)),
            _ => Poll::Ready(Ok(true)),
        }
    }

    fn poll_read_ahead<R: AsyncRead + Unpin>(
        &mut self,
        context: &mut Context<'_>,
        stream: &mut R,
        room_bytes: usize,
    ) -> Poll<io::Result<usize>> {
        READ_AHEAD.with_borrow_mut(|memory| {
            let (prefix, had) = self.prefix;
            memory[..had].copy_from_slice(&prefix[..had]);
            let end = READ_AHEAD_BYTES.min(had + room_bytes);
            let mut buffer = ReadBuf::new(&mut memory[had..end]);
            ready!(pin!(stream).poll_read(context, &mut buffer))?;
            let read = buffer.filled().len();
            if read > 0 {
                self.cut(&memory[..had + read]);
            }
            Poll::Ready(Ok(read))
        })
    }

    /// Takes in bytes that begin at a frame's prefix.
    fn cut(&mut self, bytes: &[u8]) {
        let mut rest = bytes;
        self.prefix.1 = 0;
        while let Some((prefix, after)) = rest.split_first_chunk::<PREFIX_BYTES>() {
            let size = i32::from_be_bytes(*prefix);
            let size_bytes = usize::try_from(size).ok().filter(|&size| size <= self.limit_bytes);
            let Some(size_bytes) = size_bytes else {
                self.bad_size = Some(size);
                break;
            };
            if after.len() < size_bytes {
                let mut buffer = self.pool.take(size_bytes.min(FIRST_RESERVE_BYTES));
                buffer.bytes.extend_from_slice(after);
                self.under_way = Some(UnderWay { buffer, size_bytes });
                break;
            }
            rest = &after[size_bytes..];
        }
        self.whole = Bytes::copy_from_slice(&bytes[..bytes.len() - rest.len()]);
        if self.under_way.is_none() && self.bad_size.is_none() {
            self.prefix.0[..rest.len()].copy_from_slice(rest);
            self.prefix.1 = rest.len();
        }
    }
}

impl Drop for FrameReader {
    fn drop(&mut self) {
        if let Some(frame) = self.under_way.take() {
            self.pool.give_back(frame.buffer);
        }
    }
}

impl UnderWay {
    fn poll_read<R: AsyncRead + Unpin>(
        &mut self,
        context: &mut Context<'_>,
        stream: &mut R,
        room_bytes: usize,
    ) -> Poll<io::Result<usize>> {
        let buffer = &mut self.buffer.bytes;
        let missing = self.size_bytes - buffer.len();
        if buffer.len() == buffer.capacity() {
            // Large blocks are moved by the allocator without a copy, where the system can.
            buffer.reserve_exact(missing.min(buffer.len()));
        }
        let spare = buffer.capacity() - buffer.len();
        let step = missing.min(room_bytes).min(spare);
        pin!(stream.read_buf(&mut buffer.limit(step))).poll(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::pin::Pin;

    /// A peer whose bytes come in pieces of a given size.
    struct Pieces<'a>(&'a [u8], usize);

    impl AsyncRead for Pieces<'_> {
        fn poll_read(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            buffer: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            let step = self.1.min(self.0.len()).min(buffer.remaining());
            let (piece, rest) = self.0.split_at(step);
            buffer.put_slice(piece);
            self.0 = rest;
            Poll::Ready(Ok(()))
        }
    }

    fn read_all(
        bytes: &[u8],
        piece: usize,
        limit: usize,
        room: usize,
    ) -> (Vec<Bytes>, Option<FrameReadError>) {
        let mut reader = FrameReader::new(limit, Arc::default());
        let mut stream = Pieces(bytes, piece);
        let mut context = Context::from_waker(std::task::Waker::noop());
        let mut frames = Vec::new();
        loop {
            match reader.next_frame() {
                Ok(Some(frame)) => {
                    frames.push(frame);
                    continue;
                }
                Ok(None) => {}
                Err(error) => return (frames, Some(error)),
            }
            let before = reader.held_bytes();
            match reader.poll_read(&mut context, &mut stream, room) {
                Poll::Ready(Ok(true)) => {
                    assert!(
                        reader.held_bytes() <= before + room + PREFIX_BYTES,
                        "more than there was room for"
                    );
                }
                Poll::Ready(Ok(false)) => return (frames, None),
                Poll::Ready(Err(error)) => return (frames, Some(error)),
                Poll::Pending => unreachable!("the peer never makes us wait"),
            }
        }
    }

    #[test]
    fn frames_that_arrive_together_are_told_apart() {
        let (frames, error) = read_all(b"\0\0\0\x02ab\0\0\0\0\0\0\0\x01c", 100, 16, 100);
        assert!(error.is_none());
        assert_eq!(frames, [&b"ab"[..], b"", b"c"]);
    }

    #[test]
    fn a_size_outside_the_limit_ends_the_stream_after_the_frames_before_it() {
        for prefix in [i32::MAX, -1, 17] {
            let bytes = [&b"\0\0\0\x01a"[..], &prefix.to_be_bytes()].concat();
            let (frames, error) = read_all(&bytes, 100, 16, 100);
            assert_eq!(frames, [&b"a"[..]]);
            assert!(matches!(error, Some(FrameReadError::Size { size, .. }) if size == prefix));
        }
    }

    #[test]
    fn an_end_inside_a_frame_or_its_prefix_is_not_a_clean_end() {
        for torn in [&b"\0\0\0\x03ab"[..], b"\0\0", b"\0\0\0\x03"] {
            let (frames, error) = read_all(torn, 100, 16, 100);
            assert!(frames.is_empty());
            assert!(matches!(error, Some(FrameReadError::Torn)), "{torn:?}");
        }
    }

    #[test]
    fn a_large_frame_that_is_only_claimed_takes_little_memory() {
        let mut reader = FrameReader::new(100 << 20, Arc::default());
        let claim = (100i32 << 20).to_be_bytes();
        let mut context = Context::from_waker(std::task::Waker::noop());
        let mut stream = Pieces(&claim, 4);
        assert!(matches!(reader.poll_read(&mut context, &mut stream, 100), Poll::Ready(Ok(true))));
        assert!(reader.is_under_way() && reader.held_bytes() == 0);
        let reserved = reader.under_way.as_ref().unwrap().buffer.bytes.capacity();
        assert!(reserved <= FIRST_RESERVE_BYTES, "{reserved}");
    }

    #[test]
    fn a_frame_larger_than_its_first_buffer_comes_in_whole() {
        let size = FIRST_RESERVE_BYTES * 2 + 77;
        let bytes: Vec<u8> =
            (size as u32).to_be_bytes().into_iter().chain((0..size).map(|at| at as u8)).collect();
        let (frames, error) = read_all(&bytes, 300_000, size, 1 << 20);
        assert!(error.is_none());
        assert!(frames.len() == 1 && frames[0] == bytes[4..]);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        /// However the bytes are cut up, and however little room there is, the same frames come out.
        #[test]
        fn frames_survive_any_cut(
            sizes in prop::collection::vec(prop_oneof![0usize..200, 30_000usize..70_000], 0..6),
            piece in prop_oneof![1usize..9, 1000usize..100_000],
            room in prop_oneof![1usize..9, 1000usize..300_000],
        ) {
            let mut bytes = Vec::new();
            for (number, size) in sizes.iter().enumerate() {
                bytes.put_u32(*size as u32);
                bytes.extend((0..*size).map(|at| (at * 7 + number) as u8));
            }
            let (frames, error) = read_all(&bytes, piece, 4 << 20, room);
            prop_assert!(error.is_none());
            prop_assert_eq!(frames.len(), sizes.len());
            for (number, (frame, size)) in frames.iter().zip(&sizes).enumerate() {
                prop_assert_eq!(frame.len(), *size);
                prop_assert!(frame.iter().enumerate().all(|(at, &byte)| byte == (at * 7 + number) as u8));
            }
        }
    }
}
