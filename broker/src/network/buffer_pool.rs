//! Buffers of large frames, used again: on many machines the first touch of a page costs more than all else that is done
//! with its bytes. What is kept is bounded; what is above goes back to the operating system.
//!
//! Invariant: a used buffer is resident before a frame has come into it, and a connection counts only bytes that came. So
//! used buffers are lent to frames under way up to [`MAX_LENT_BYTES`]; beyond that a frame gets memory that nobody has
//! touched, which becomes resident as its bytes come. Peers that claim frames and send nothing cost no more than that.

use bytes::Bytes;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard};

/// Unused buffers kept, all together.
const MAX_KEPT_BYTES: usize = 8 * 1024 * 1024;
/// A larger buffer is not kept.
const MAX_BUFFER_BYTES: usize = 4 * 1024 * 1024;
/// A smaller buffer is not kept: the allocator is good at them.
const MIN_BUFFER_BYTES: usize = 64 * 1024;
/// Used buffers of frames that have not come in whole, all together.
const MAX_LENT_BYTES: usize = 16 * 1024 * 1024;
/// Into so many capacities each doubling is divided, so that frames of about one size share buffers.
const CAPACITIES_A_DOUBLING: usize = 4;

/// Unused buffers.
#[derive(Debug, Default)]
pub struct BufferPool {
    free: Mutex<Free>,
}

#[derive(Debug, Default)]
struct Free {
    /// The last used at the end; the first go when there is no room.
    buffers: VecDeque<Vec<u8>>,
    kept_bytes: usize,
    lent_bytes: usize,
}

/// The buffer of a frame under way. To be given back by [`BufferPool::freeze`] or [`BufferPool::give_back`].
#[derive(Debug)]
pub struct FrameBuffer {
    /// What came in.
    pub bytes: Vec<u8>,
    /// Of [`Free::lent_bytes`]: 0 if it was never used.
    lent_bytes: usize,
}

impl BufferPool {
    /// An empty buffer with a capacity of `size_bytes` or more, but at most twice that: with a closer fit, frames of changing
    /// sizes find none that was used.
    pub fn take(&self, size_bytes: usize) -> FrameBuffer {
        if size_bytes >= MIN_BUFFER_BYTES
            && let Some(bytes) = self.lend(size_bytes)
        {
            return FrameBuffer { lent_bytes: bytes.capacity(), bytes };
        }
        let doubling = 1 << size_bytes.max(1).ilog2();
        let step = usize::max(1, doubling / CAPACITIES_A_DOUBLING);
        FrameBuffer { bytes: Vec::with_capacity(size_bytes.next_multiple_of(step)), lent_bytes: 0 }
    }

    fn lend(&self, size_bytes: usize) -> Option<Vec<u8>> {
        let mut free = self.lock();
        let fits = size_bytes..=2 * size_bytes;
        let at = free.buffers.iter().rposition(|buffer| fits.contains(&buffer.capacity()))?;
        let capacity = free.buffers[at].capacity();
        if free.lent_bytes + capacity > MAX_LENT_BYTES {
            return None;
        }
        free.kept_bytes -= capacity;
        free.lent_bytes += capacity;
        free.buffers.remove(at)
    }

    /// A frame that has come in whole, as shared bytes, whose memory comes back here with the last of them.
    pub fn freeze(self: &Arc<Self>, frame: FrameBuffer) -> Bytes {
        self.lock().lent_bytes -= frame.lent_bytes;
        let buffer = frame.bytes;
        if Self::is_kept(buffer.capacity()) {
            Bytes::from_owner(Pooled { buffer, pool: Arc::clone(self) })
        } else {
            Bytes::from(buffer)
        }
    }

    /// Takes back the buffer of a frame that never came in whole.
    pub fn give_back(&self, frame: FrameBuffer) {
        self.lock().lent_bytes -= frame.lent_bytes;
        self.keep(frame.bytes);
    }

    fn keep(&self, mut buffer: Vec<u8>) {
        let capacity = buffer.capacity();
        if !Self::is_kept(capacity) {
            return;
        }
        buffer.clear();
        let mut free = self.lock();
        while free.kept_bytes + capacity > MAX_KEPT_BYTES
            && let Some(oldest) = free.buffers.pop_front()
        {
            free.kept_bytes -= oldest.capacity();
        }
        free.kept_bytes += capacity;
        free.buffers.push_back(buffer);
    }

    fn is_kept(capacity: usize) -> bool {
        (MIN_BUFFER_BYTES..=MAX_BUFFER_BYTES).contains(&capacity)
    }

    fn lock(&self) -> MutexGuard<'_, Free> {
        self.free.lock().expect("a panic aborts the process, so no lock is poisoned")
    }
}

struct Pooled {
    buffer: Vec<u8>,
    pool: Arc<BufferPool>,
}

impl AsRef<[u8]> for Pooled {
    fn as_ref(&self) -> &[u8] {
        &self.buffer
    }
}

impl Drop for Pooled {
    fn drop(&mut self) {
        self.pool.keep(std::mem::take(&mut self.buffer));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1024 * 1024;

    #[test]
    fn a_buffer_comes_back_when_the_last_slice_of_it_is_dropped() {
        let pool = Arc::new(BufferPool::default());
        let mut frame = pool.take(MIB);
        frame.bytes.extend_from_slice(&[7; 100]);
        let address = frame.bytes.as_ptr();
        let bytes = pool.freeze(frame);
        let slice = bytes.slice(10..20);
        drop(bytes);
        assert_eq!(pool.lock().kept_bytes, 0);
        assert_eq!(&slice[..], &[7; 10]);
        drop(slice);
        let again = pool.take(MIB - 5);
        assert_eq!((again.bytes.as_ptr(), again.bytes.len()), (address, 0));
        assert_eq!(pool.lock().kept_bytes, 0);
    }

    #[test]
    fn what_is_kept_is_bounded_and_what_was_used_last_stays() {
        let pool = BufferPool::default();
        for size in [1000, 5 * MIB, 4 * MIB, 3 * MIB, 2 * MIB] {
            pool.keep(Vec::with_capacity(size));
        }
        assert_eq!(pool.lock().kept_bytes, 5 * MIB);
        assert!(pool.take(MIB / 2).bytes.capacity() < MIB);
        assert_eq!(pool.take(MIB + 5).bytes.capacity(), 2 * MIB);
        assert_eq!(pool.lock().buffers.len(), 1);
    }

    #[test]
    fn no_frame_gets_a_buffer_that_is_more_than_twice_as_large() {
        let pool = BufferPool::default();
        for size in (MIN_BUFFER_BYTES..MAX_BUFFER_BYTES).step_by(1237) {
            let frame = pool.take(size);
            let capacity = frame.bytes.capacity();
            assert!((size..=2 * size).contains(&capacity), "{size}: {capacity}");
            pool.give_back(frame);
        }
        assert_eq!(pool.lock().lent_bytes, 0);
    }

    #[test]
    fn frames_that_are_claimed_and_never_come_hold_little_of_what_others_have_used() {
        let pool = Arc::new(BufferPool::default());
        let mut claims = Vec::new();
        for _ in 0..100 {
            let mut whole = pool.take(2 * MIB);
            whole.bytes.push(1);
            drop(pool.freeze(whole)); // somebody else's frame, whose buffer comes back
            claims.push(pool.take(2 * MIB));
        }
        let lent: usize = claims.iter().map(|claim| claim.lent_bytes).sum();
        assert_eq!(lent, MAX_LENT_BYTES);
        claims.into_iter().for_each(|claim| pool.give_back(claim));
        assert_eq!(pool.lock().lent_bytes, 0);
    }
}
