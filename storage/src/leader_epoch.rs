//! Leader epochs of one log: which leader wrote which range (KIP-101, KIP-279; `LeaderEpochFileCache.java`).
//!
//! The cache is pure; its text file is written by [`crate::checkpoint`].

use std::fmt;

use crate::offset::Offset;

/// Counts the leaderships of one partition; strictly grows. Never negative: -1 on the wire is `None`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LeaderEpoch(i32);

impl LeaderEpoch {
    /// The epoch of a partition's first leader.
    pub const ZERO: LeaderEpoch = LeaderEpoch(0);

    /// An epoch from a number off the wire or the disk; `None` if it is negative.
    pub const fn new(value: i32) -> Option<LeaderEpoch> {
        if value < 0 { None } else { Some(LeaderEpoch(value)) }
    }

    /// The number, never negative.
    pub const fn value(self) -> i32 {
        self.0
    }

    /// What stands on the wire and the disk: -1 for `None`.
    pub const fn to_wire(epoch: Option<LeaderEpoch>) -> i32 {
        match epoch {
            Some(epoch) => epoch.0,
            None => -1,
        }
    }

    /// The epoch of the next leadership.
    ///
    /// # Panics
    /// At `i32::MAX`, which 2^31 elections would be needed to reach.
    #[must_use]
    pub fn next(self) -> LeaderEpoch {
        LeaderEpoch(self.0.checked_add(1).expect("fewer than 2^31 elections"))
    }
}

impl fmt::Display for LeaderEpoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One epoch and the first offset written (or to be written) in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EpochEntry {
    /// The epoch.
    pub epoch: LeaderEpoch,
    /// First offset of the epoch.
    pub start_offset: Offset,
}

/// Answer to "where did this epoch end?": the greatest known epoch not above the one asked for (or the one
/// asked for, if all known ones are greater) and the first offset after it, exclusive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EpochEndOffset {
    /// The epoch that the answer is about.
    pub epoch: LeaderEpoch,
    /// First offset that is not of that epoch or an earlier one.
    pub end_offset: Offset,
}

/// The epochs of one log, oldest first.
///
/// Invariant: epochs and start offsets both strictly increase from entry to entry.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LeaderEpochCache {
    entries: Vec<EpochEntry>,
}

impl LeaderEpochCache {
    /// No epoch known.
    pub fn new() -> LeaderEpochCache {
        LeaderEpochCache::default()
    }

    /// The cache that assigning these entries in order yields. Entries that contradict later ones go, so
    /// whatever a file holds, the invariant does.
    pub fn from_entries(entries: impl IntoIterator<Item = EpochEntry>) -> LeaderEpochCache {
        let mut cache = LeaderEpochCache::new();
        for entry in entries {
            cache.assign(entry.epoch, entry.start_offset);
        }
        cache
    }

    /// All entries, oldest first.
    pub fn entries(&self) -> &[EpochEntry] {
        &self.entries
    }

    /// The latest epoch.
    pub fn latest(&self) -> Option<LeaderEpoch> {
        self.latest_entry().map(|entry| entry.epoch)
    }

    /// The latest epoch and its start.
    pub fn latest_entry(&self) -> Option<EpochEntry> {
        self.entries.last().copied()
    }

    /// The earliest epoch and its start.
    pub fn earliest_entry(&self) -> Option<EpochEntry> {
        self.entries.first().copied()
    }

    /// Notes that `epoch` starts at `start_offset`. Entries of the same or later epochs, or at or past that
    /// offset, are dropped: they were never committed. Returns whether anything changed (then the
    /// checkpoint must be written).
    pub fn assign(&mut self, epoch: LeaderEpoch, start_offset: Offset) -> bool {
        if let Some(latest) = self.latest_entry()
            && latest.epoch == epoch
            && latest.start_offset <= start_offset
        {
            return false;
        }
        while self
            .entries
            .last()
            .is_some_and(|e| e.epoch >= epoch || e.start_offset >= start_offset)
        {
            self.entries.pop();
        }
        self.entries.push(EpochEntry { epoch, start_offset });
        true
    }

    /// Where `epoch` ended, given the log end offset. `None` if it is later than all known ones or nothing
    /// is known: then the caller cannot say (offset -1, epoch -1 on the wire).
    pub fn end_offset_for(&self, epoch: LeaderEpoch, log_end: Offset) -> Option<EpochEndOffset> {
        let latest = self.latest_entry()?;
        if epoch > latest.epoch {
            return None;
        }
        if epoch == latest.epoch {
            return Some(EpochEndOffset { epoch, end_offset: log_end });
        }
        // First entry of a later epoch; it exists, because `latest` is one.
        let later = self.entries.partition_point(|entry| entry.epoch <= epoch);
        let end_offset = self.entries[later].start_offset;
        let epoch = match later {
            0 => epoch, // asked about a time before our first epoch (KIP-279)
            _ => self.entries[later - 1].epoch,
        };
        Some(EpochEndOffset { epoch, end_offset })
    }

    /// The epoch in which `offset` was (or would be) written; `None` before the first known epoch.
    pub fn epoch_for_offset(&self, offset: Offset) -> Option<LeaderEpoch> {
        let after = self.entries.partition_point(|entry| entry.start_offset <= offset);
        Some(self.entries[after.checked_sub(1)?].epoch)
    }

    /// The greatest known epoch below `epoch`.
    pub fn previous_epoch(&self, epoch: LeaderEpoch) -> Option<LeaderEpoch> {
        let at = self.entries.partition_point(|entry| entry.epoch < epoch);
        Some(self.entries[at.checked_sub(1)?].epoch)
    }

    /// Drops entries that start at or past `end_offset`, the new log end. Returns whether anything changed.
    pub fn truncate_from_end(&mut self, end_offset: Offset) -> bool {
        let keep = self.entries.partition_point(|entry| entry.start_offset < end_offset);
        let changed = keep < self.entries.len();
        self.entries.truncate(keep);
        changed
    }

    /// Drops what lies before `start_offset`, the new log start; the epoch that holds it now starts there.
    /// Returns whether anything changed.
    pub fn truncate_from_start(&mut self, start_offset: Offset) -> bool {
        let after = self.entries.partition_point(|entry| entry.start_offset <= start_offset);
        let Some(holder) = after.checked_sub(1) else { return false };
        let changed = holder > 0 || self.entries[holder].start_offset != start_offset;
        self.entries[holder].start_offset = start_offset;
        self.entries.drain(..holder);
        changed
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.entries.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn epoch(value: i32) -> LeaderEpoch {
        LeaderEpoch::new(value).unwrap()
    }

    fn offset(value: i64) -> Offset {
        Offset::new(value).unwrap()
    }

    fn cache(entries: &[(i32, i64)]) -> LeaderEpochCache {
        LeaderEpochCache::from_entries(
            entries.iter().map(|&(e, o)| EpochEntry { epoch: epoch(e), start_offset: offset(o) }),
        )
    }

    fn listed(cache: &LeaderEpochCache) -> Vec<(i32, i64)> {
        cache.entries().iter().map(|e| (e.epoch.value(), e.start_offset.value())).collect()
    }

    #[test]
    fn assigning_the_latest_epoch_again_changes_nothing() {
        let mut cache = cache(&[(1, 0), (4, 10)]);
        assert!(!cache.assign(epoch(4), offset(10)));
        assert!(!cache.assign(epoch(4), offset(25)));
        assert_eq!(listed(&cache), [(1, 0), (4, 10)]);
    }

    #[test]
    fn assigning_drops_what_was_never_committed() {
        let mut at_same_offset = cache(&[(1, 0), (4, 10)]);
        assert!(at_same_offset.assign(epoch(5), offset(10)));
        assert_eq!(listed(&at_same_offset), [(1, 0), (5, 10)], "epoch 4 wrote nothing");
        let mut lower_start = cache(&[(1, 0), (4, 10)]);
        assert!(lower_start.assign(epoch(4), offset(7)));
        assert_eq!(listed(&lower_start), [(1, 0), (4, 7)]);
        let mut lower_epoch = cache(&[(1, 0), (4, 10)]);
        assert!(lower_epoch.assign(epoch(3), offset(20)));
        assert_eq!(listed(&lower_epoch), [(1, 0), (3, 20)]);
    }

    #[test]
    fn the_end_of_an_epoch_is_the_start_of_the_next_known_one() {
        let cache = cache(&[(2, 5), (4, 10), (7, 30)]);
        let end = |e| {
            cache
                .end_offset_for(epoch(e), offset(44))
                .map(|answer| (answer.epoch.value(), answer.end_offset.value()))
        };
        assert_eq!(end(7), Some((7, 44)), "the latest ends at the log end");
        assert_eq!(end(8), None, "a later epoch is unknown");
        assert_eq!(end(2), Some((2, 10)));
        assert_eq!(end(3), Some((2, 10)), "unknown between: the greatest epoch below it");
        assert_eq!(end(6), Some((4, 30)));
        assert_eq!(end(1), Some((1, 5)), "before all: our first start");
        assert_eq!(LeaderEpochCache::new().end_offset_for(epoch(0), offset(3)), None);
    }

    #[test]
    fn an_offset_belongs_to_the_last_epoch_started_at_or_before_it() {
        let cache = cache(&[(2, 5), (4, 10)]);
        assert_eq!(cache.epoch_for_offset(offset(4)), None);
        assert_eq!(cache.epoch_for_offset(offset(5)), Some(epoch(2)));
        assert_eq!(cache.epoch_for_offset(offset(9)), Some(epoch(2)));
        assert_eq!(cache.epoch_for_offset(offset(1000)), Some(epoch(4)));
    }

    #[test]
    fn the_epoch_that_holds_the_new_log_start_starts_there() {
        let mut moved = cache(&[(2, 5), (4, 10), (7, 30)]);
        assert!(moved.truncate_from_start(offset(12)));
        assert_eq!(listed(&moved), [(4, 12), (7, 30)]);
        assert!(!moved.truncate_from_start(offset(12)));
        assert!(!moved.truncate_from_start(offset(3)), "nothing lies before");
        assert!(moved.truncate_from_start(offset(30)));
        assert_eq!(listed(&moved), [(7, 30)]);
    }

    #[test]
    fn entries_at_the_new_log_end_go() {
        let mut cut = cache(&[(2, 5), (4, 10), (7, 30)]);
        assert!(cut.truncate_from_end(offset(30)));
        assert_eq!(listed(&cut), [(2, 5), (4, 10)]);
        assert!(!cut.truncate_from_end(offset(11)));
    }

    proptest! {
        /// Whatever is assigned and truncated, epochs and offsets both strictly increase, and the answer
        /// to `end_offset_for` is what a scan finds.
        #[test]
        fn the_cache_stays_ordered_and_answers_like_a_scan(
            steps in prop::collection::vec((0u8..4, 0i32..12, 0i64..40), 0..40),
            asked in 0i32..14,
        ) {
            let mut cache = LeaderEpochCache::new();
            for (kind, e, o) in steps {
                match kind {
                    0 | 1 => cache.assign(epoch(e), offset(o)),
                    2 => cache.truncate_from_end(offset(o)),
                    _ => cache.truncate_from_start(offset(o)),
                };
                for pair in cache.entries().windows(2) {
                    prop_assert!(pair[0].epoch < pair[1].epoch);
                    prop_assert!(pair[0].start_offset < pair[1].start_offset);
                }
            }
            let log_end = offset(100);
            let latest = cache.latest();
            let expected = if latest.is_none() || Some(epoch(asked)) > latest {
                None
            } else {
                let end = cache.entries().iter().find(|e| e.epoch > epoch(asked));
                let holder = cache.entries().iter().rev().find(|e| e.epoch <= epoch(asked));
                Some(EpochEndOffset {
                    epoch: holder.map_or(epoch(asked), |e| e.epoch),
                    end_offset: end.map_or(log_end, |e| e.start_offset),
                })
            };
            prop_assert_eq!(cache.end_offset_for(epoch(asked), log_end), expected);
        }
    }
}
