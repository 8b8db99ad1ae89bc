//! The small batches just appended to logs that someone reads at their end, in memory: who follows the end of such a log is
//! served without touching its file.
//!
//! Invariants
//! - What is cached of a log is a run of batches that ends at the log end, byte by byte as in the file. Everything here
//!   happens under that log's lock: an append adds after its write succeeded, a truncation or deletion forgets all, a
//!   move of the log start what lies below it; an append that does not begin where the run ends begins another run.
//! - All buffers together, those that answers still hold included, are at most the limit. Batches are copied into buffers
//!   of their own size, because one that aliased its request would hold the whole frame; large buffers are used again,
//!   because fresh memory costs more than a copy.
//! - Who goes first is the batch that was appended first, of all logs.
//! - A log that nobody reads at its end costs nothing: its appends do not come here.
//! - Large batches are not kept: the system sends them out of the page cache, where they just came to lie, for half of what
//!   copying them here and out again costs.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;

use crate::log::StoredBatch;
use crate::offset::Offset;

/// Buffers from here on are kept for the next batch.
const REUSED_BUFFER_BYTES: usize = 32 << 10;
/// A batch from here on is left to the file.
const LEFT_TO_FILE_BYTES: usize = 64 << 10;
/// What a cached batch takes besides its bytes: entries, owner and allocator.
const OVERHEAD_BYTES: usize = 192;
/// Batches of one answer; who is further behind the end reads from the file, many at once.
const MAX_BATCHES_OF_READ: usize = 60;

/// Of one log directory.
#[derive(Debug)]
pub(crate) struct TailCache {
    buffers: Arc<Buffers>,
    runs: Mutex<Runs>,
}

#[derive(Debug, Default)]
struct Runs {
    next_sequence: u64,
    by_log: HashMap<u64, Run>,
    /// The first batch of each run, and whose it is.
    oldest: BTreeMap<u64, u64>,
}

#[derive(Debug)]
struct Run {
    batches: VecDeque<CachedBatch>,
    end: Offset,
    /// Bytes appended since the last read: past a part of the limit nobody follows any more.
    unread_bytes: usize,
}

/// A batch in memory.
#[derive(Clone, Debug)]
pub(crate) struct CachedBatch {
    sequence: u64,
    base_offset: Offset,
    pub(crate) last_offset: Offset,
    pub(crate) bytes: Bytes,
}

impl TailCache {
    pub(crate) fn new(limit_bytes: usize) -> TailCache {
        let held = Mutex::new(Held { bytes: 0, free: Vec::new() });
        TailCache { buffers: Arc::new(Buffers { limit_bytes, held }), runs: Mutex::default() }
    }

    fn runs(&self) -> MutexGuard<'_, Runs> {
        self.runs.lock().expect("nothing panics while it holds the tail cache")
    }

    /// What was just appended to `log`, which ended at `previous_end` before. Returns whether it is still kept, since
    /// somebody follows; if not, the log is to be forgotten until a reader reaches its end again.
    pub(crate) fn append(&self, log: u64, previous_end: Offset, stored: &[StoredBatch]) -> bool {
        if stored.iter().any(|batch| batch.header.batch_size_bytes() >= LEFT_TO_FILE_BYTES) {
            self.forget(log);
            return false;
        }
        let limit_bytes = self.buffers.limit_bytes;
        let is_followed = {
            let mut runs = self.runs();
            let size: usize = stored.iter().map(|batch| batch.header.batch_size_bytes()).sum();
            if runs.by_log.get(&log).is_some_and(|run| run.end != previous_end) {
                runs.forget(log);
            }
            let run = runs.by_log.entry(log).or_insert_with(|| Run::new(previous_end));
            run.unread_bytes += size;
            let is_followed = run.unread_bytes <= limit_bytes / 2;
            if !is_followed {
                runs.forget(log);
            }
            is_followed
        };
        for batch in stored {
            if !is_followed || !self.push(log, batch) {
                self.runs().forget(log);
                return is_followed;
            }
        }
        true
    }

    /// Whether there was room, after older batches have gone.
    fn push(&self, log: u64, batch: &StoredBatch) -> bool {
        let size = batch.header.batch_size_bytes();
        let mut buffer = loop {
            match self.buffers.take(size) {
                Some(buffer) => break buffer,
                None if !self.runs().forget_oldest() => return false,
                None => {}
            }
        };
        buffer.extend_from_slice(batch.header.as_bytes());
        buffer.extend_from_slice(&batch.body);
        let owner = OwnedBuffer { buffer, buffers: self.buffers.clone() };
        let (base_offset, last_offset) = (batch.header.base_offset(), batch.header.last_offset());
        let mut runs = self.runs();
        let sequence = runs.next_sequence;
        runs.next_sequence += 1;
        let bytes = Bytes::from_owner(owner);
        let run = runs.by_log.entry(log).or_insert_with(|| Run::new(last_offset.next()));
        run.end = last_offset.next();
        run.batches.push_back(CachedBatch { sequence, base_offset, last_offset, bytes });
        if run.batches.len() == 1 {
            runs.oldest.insert(sequence, log);
        }
        true
    }

    /// The batches of `log` from the one that holds `from` to the last one that lies below `upper_bound`, if all of them
    /// are here and they are few. Empty if the first one reaches to `upper_bound`.
    pub(crate) fn read(
        &self,
        log: u64,
        from: Offset,
        upper_bound: Offset,
    ) -> Option<Vec<CachedBatch>> {
        let mut runs = self.runs();
        let run = runs.by_log.get_mut(&log)?;
        if run.batches.front().is_none_or(|first| first.base_offset > from) {
            return None;
        }
        let first = run.batches.partition_point(|batch| batch.last_offset < from);
        if first == run.batches.len() {
            return None;
        }
        let mut found = Vec::new();
        for batch in run.batches.iter().skip(first) {
            if batch.last_offset >= upper_bound {
                break;
            }
            if found.len() == MAX_BATCHES_OF_READ {
                return None;
            }
            found.push(batch.clone());
        }
        run.unread_bytes = 0;
        Some(found)
    }

    /// A reader waits at the end of `log`.
    pub(crate) fn note_reader(&self, log: u64) {
        if let Some(run) = self.runs().by_log.get_mut(&log) {
            run.unread_bytes = 0;
        }
    }

    /// Nothing of `log` may be served any more.
    pub(crate) fn forget(&self, log: u64) {
        self.runs().forget(log);
    }

    /// Drops the batches of `log` that lie wholly below `log_start`.
    pub(crate) fn forget_before(&self, log: u64, log_start: Offset) {
        let mut runs = self.runs();
        while let Some(run) = runs.by_log.get(&log)
            && run.batches.front().is_some_and(|batch| batch.last_offset < log_start)
        {
            runs.forget_first(log);
        }
    }

    #[cfg(test)]
    fn held_bytes(&self) -> usize {
        self.buffers.held().bytes
    }
}

impl Run {
    fn new(end: Offset) -> Run {
        Run { batches: VecDeque::new(), end, unread_bytes: 0 }
    }
}

impl Runs {
    fn forget(&mut self, log: u64) {
        if let Some(run) = self.by_log.remove(&log)
            && let Some(first) = run.batches.front()
        {
            self.oldest.remove(&first.sequence);
        }
    }

    /// Drops the first batch of a log; a run keeps no memory when it has no batch.
    fn forget_first(&mut self, log: u64) {
        let Some(run) = self.by_log.get_mut(&log) else { return };
        if let Some(first) = run.batches.pop_front() {
            self.oldest.remove(&first.sequence);
        }
        match run.batches.front() {
            Some(next) => _ = self.oldest.insert(next.sequence, log),
            None => run.batches = VecDeque::new(),
        }
    }

    fn forget_oldest(&mut self) -> bool {
        let Some((_, &log)) = self.oldest.first_key_value() else { return false };
        self.forget_first(log);
        true
    }
}

/// The memory of the cache: a buffer is counted from when it is made until it is given back to the allocator.
#[derive(Debug)]
struct Buffers {
    limit_bytes: usize,
    held: Mutex<Held>,
}

#[derive(Debug)]
struct Held {
    bytes: usize,
    free: Vec<Vec<u8>>,
}

impl Buffers {
    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().expect("nothing panics while it holds the buffers")
    }

    /// An empty buffer for `size` bytes; `None` if others must go first.
    fn take(&self, size: usize) -> Option<Vec<u8>> {
        let mut held = self.held();
        let fits = |free: &Vec<u8>| (size..=size.saturating_mul(2)).contains(&free.capacity());
        if let Some(index) = held.free.iter().position(fits) {
            return Some(held.free.swap_remove(index));
        }
        while held.bytes + size + OVERHEAD_BYTES > self.limit_bytes {
            let other = held.free.pop()?;
            held.bytes -= other.capacity() + OVERHEAD_BYTES;
        }
        let buffer = Vec::with_capacity(size);
        held.bytes += buffer.capacity() + OVERHEAD_BYTES;
        Some(buffer)
    }
}

/// A buffer that goes back when nobody holds it any more.
#[derive(Debug)]
struct OwnedBuffer {
    buffer: Vec<u8>,
    buffers: Arc<Buffers>,
}

impl AsRef<[u8]> for OwnedBuffer {
    fn as_ref(&self) -> &[u8] {
        &self.buffer
    }
}

impl Drop for OwnedBuffer {
    fn drop(&mut self) {
        let mut buffer = std::mem::take(&mut self.buffer);
        let mut held = self.buffers.held();
        if buffer.capacity() >= REUSED_BUFFER_BYTES {
            buffer.clear();
            held.free.push(buffer);
        } else {
            held.bytes -= buffer.capacity() + OVERHEAD_BYTES;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record_batch::{BatchHeader, HEADER_SIZE_BYTES, RecordBatchBuilder};
    use proptest::prelude::*;

    const LIMIT_BYTES: usize = 300_000;

    fn batch(base_offset: u64, size: usize) -> StoredBatch {
        let bytes = RecordBatchBuilder::new()
            .base_offset(Offset::ZERO.plus(base_offset))
            .record(None, None, Some(&vec![base_offset as u8; size]), &[])
            .build()
            .unwrap();
        let header = BatchHeader::parse(&bytes).unwrap();
        StoredBatch { header, body: Bytes::from(bytes).slice(HEADER_SIZE_BYTES..) }
    }

    fn bytes_of(batch: &StoredBatch) -> Vec<u8> {
        [batch.header.as_bytes().as_slice(), &batch.body].concat()
    }

    proptest! {
        /// Some readers keep what they were given, some read, some do not: the bytes are right, and all memory stays below
        /// the limit.
        #[test]
        fn memory_stays_below_the_limit_and_batches_are_those_appended(
            steps in prop::collection::vec(
                (0u64..4, 0usize..3, 0usize..100, any::<bool>(), 0u64..10),
                0..200,
            ),
        ) {
            let cache = TailCache::new(LIMIT_BYTES);
            let mut logs = vec![Vec::<StoredBatch>::new(); 4];
            let mut kept = VecDeque::new();
            for (log, scale, size, keeps, back) in steps {
                let appended = &mut logs[log as usize];
                let end = appended.len() as u64;
                let stored = batch(end, size * [1, 100, 1500][scale]);
                cache.append(log, Offset::ZERO.plus(end), std::slice::from_ref(&stored));
                appended.push(stored);
                prop_assert!(cache.held_bytes() <= LIMIT_BYTES);
                let from = end.saturating_sub(back);
                let bound = Offset::ZERO.plus(end + 1);
                if let Some(found) = cache.read(log, Offset::ZERO.plus(from), bound) {
                    let wanted: Vec<_> = appended[from as usize..].iter().map(bytes_of).collect();
                    prop_assert_eq!(found.iter().map(|one| one.bytes.to_vec()).collect::<Vec<_>>(), wanted);
                    if keeps {
                        kept.push_back(found);
                    }
                }
                if kept.len() > 5 {
                    kept.pop_front();
                }
                let counted = cache.runs().by_log.values().filter(|run| !run.batches.is_empty()).count();
                prop_assert_eq!(cache.runs().oldest.len(), counted);
            }
            drop(kept);
            for log in 0..4 {
                cache.forget(log);
            }
            let free: usize = cache.buffers.held().free.iter().map(|free| free.capacity() + OVERHEAD_BYTES).sum();
            prop_assert_eq!(cache.held_bytes(), free, "all that is not free was given back");
        }
    }

    #[test]
    fn the_batch_that_was_appended_first_of_all_logs_goes_first() {
        let cache = TailCache::new(100_000);
        let at = |offset: u64| Offset::ZERO.plus(offset);
        for (log, offset) in [(1, 0), (2, 0), (1, 1)] {
            cache.append(log, at(offset), &[batch(offset, 30_000)]);
            cache.note_reader(log);
        }
        cache.append(2, at(1), &[batch(1, 30_000)]);
        assert!(cache.read(1, at(0), at(2)).is_none());
        assert_eq!(cache.read(1, at(1), at(2)).unwrap().len(), 1);
        assert_eq!(cache.read(2, at(0), at(2)).unwrap().len(), 2);
    }

    #[test]
    fn an_append_that_does_not_follow_begins_another_run() {
        let cache = TailCache::new(100_000);
        let at = |offset: u64| Offset::ZERO.plus(offset);
        cache.append(1, at(0), &[batch(0, 10)]);
        cache.append(1, at(2), &[batch(2, 10)]);
        assert!(cache.read(1, at(0), at(3)).is_none());
        assert_eq!(cache.read(1, at(2), at(3)).unwrap().len(), 1);
    }

    #[test]
    fn a_large_batch_is_left_to_the_file_and_those_behind_it_are_kept_again() {
        let cache = TailCache::new(LIMIT_BYTES);
        let at = |offset: u64| Offset::ZERO.plus(offset);
        assert!(cache.append(1, at(0), &[batch(0, 10)]));
        assert!(!cache.append(1, at(1), &[batch(1, 10), batch(2, LEFT_TO_FILE_BYTES)]));
        assert!(cache.read(1, at(0), at(3)).is_none());
        assert!(cache.append(1, at(3), &[batch(3, 10)]));
        assert!(cache.read(1, at(2), at(4)).is_none());
        assert_eq!(cache.read(1, at(3), at(4)).unwrap().len(), 1);
        assert!(cache.held_bytes() < LEFT_TO_FILE_BYTES);
    }
}
