//! Buffers of large frames, used again: on many machines the first touch of a page costs more than all else that is done
//! with its bytes. What is kept is bounded; what is above goes back to the operating system.

use bytes::Bytes;
use std::sync::{Arc, Mutex, MutexGuard};

/// Unused buffers kept, all together.
const MAX_KEPT_BYTES: usize = 8 * 1024 * 1024;
/// A larger buffer is not kept.
const MAX_BUFFER_BYTES: usize = 4 * 1024 * 1024;
/// A smaller buffer is not kept: the allocator is good at them.
const MIN_BUFFER_BYTES: usize = 64 * 1024;
/// Capacities are multiples of it, so that frames of about one size share buffers.
const CAPACITY_STEP_BYTES: usize = 64 * 1024;

/// Unused buffers, the last used at the end.
#[derive(Debug, Default)]
pub struct BufferPool {
    free: Mutex<Free>,
}

#[derive(Debug, Default)]
struct Free {
    buffers: Vec<Vec<u8>>,
    kept_bytes: usize,
}

impl BufferPool {
    /// An empty buffer with a capacity of `size_bytes` or more, but less than twice that, and a step.
    pub fn take(&self, size_bytes: usize) -> Vec<u8> {
        if size_bytes < MIN_BUFFER_BYTES {
            return Vec::with_capacity(size_bytes);
        }
        let rounded = size_bytes.next_multiple_of(CAPACITY_STEP_BYTES);
        let most = rounded.saturating_mul(2);
        let mut free = self.lock();
        let fits = |buffer: &Vec<u8>| (size_bytes..most).contains(&buffer.capacity());
        if let Some(at) = free.buffers.iter().rposition(fits) {
            let buffer = free.buffers.remove(at);
            free.kept_bytes -= buffer.capacity();
            return buffer;
        }
        drop(free);
        Vec::with_capacity(rounded)
    }

    /// The content as shared bytes, whose memory comes back here with the last of them.
    pub fn freeze(self: &Arc<Self>, buffer: Vec<u8>) -> Bytes {
        if Self::is_kept(buffer.capacity()) {
            Bytes::from_owner(Pooled { buffer, pool: Arc::clone(self) })
        } else {
            Bytes::from(buffer)
        }
    }

    /// Takes back a buffer that nobody uses.
    pub fn give_back(&self, mut buffer: Vec<u8>) {
        let capacity = buffer.capacity();
        if !Self::is_kept(capacity) {
            return;
        }
        let mut free = self.lock();
        if free.kept_bytes + capacity <= MAX_KEPT_BYTES {
            buffer.clear();
            free.kept_bytes += capacity;
            free.buffers.push(buffer);
        }
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
        self.pool.give_back(std::mem::take(&mut self.buffer));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1024 * 1024;

    #[test]
    fn a_buffer_comes_back_when_the_last_slice_of_it_is_dropped() {
        let pool = Arc::new(BufferPool::default());
        let mut buffer = pool.take(MIB);
        buffer.extend_from_slice(&[7; 100]);
        let address = buffer.as_ptr();
        let bytes = pool.freeze(buffer);
        let slice = bytes.slice(10..20);
        drop(bytes);
        assert_eq!(pool.lock().kept_bytes, 0);
        assert_eq!(&slice[..], &[7; 10]);
        drop(slice);
        let again = pool.take(MIB - 5);
        assert_eq!((again.as_ptr(), again.len()), (address, 0));
        assert_eq!(pool.lock().kept_bytes, 0);
    }

    #[test]
    fn what_is_kept_is_bounded_and_no_small_frame_gets_a_large_buffer() {
        let pool = BufferPool::default();
        for size in [1000, 5 * MIB, 4 * MIB, 3 * MIB, 2 * MIB] {
            pool.give_back(Vec::with_capacity(size));
        }
        assert_eq!(pool.lock().kept_bytes, 7 * MIB);
        assert!(pool.take(MIB).capacity() < 2 * MIB);
        assert_eq!(pool.lock().buffers.len(), 2);
    }
}
