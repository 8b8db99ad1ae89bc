//! Which segments may go (`UnifiedLog.deleteOldSegments`). Pure.
//!
//! Only whole segments, oldest first, each only if all of it lies below the high watermark; the pass stops
//! at the first that must stay. First those wholly below the log start offset, then by size, then by time.

use crate::offset::Offset;
use crate::timestamp::Timestamp;

/// What retention looks at in a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentFacts {
    /// First offset after it.
    pub next_offset: Offset,
    /// Its size.
    pub size_bytes: u64,
    /// The largest timestamp of its records, else the time its file was last changed.
    pub largest_timestamp: Timestamp,
}

/// What retention must know of a log whose segments are not in memory: a pass stops at the first segment that must stay,
/// so the oldest one decides whether any may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OldestSegment {
    /// It.
    pub facts: SegmentFacts,
    /// Whether it is the only one.
    pub is_last: bool,
}

impl OldestSegment {
    /// Whether [`deletable_segments`] would let any segment go of a log of `size_bytes` that begins with this one.
    pub fn may_go(
        &self,
        size_bytes: u64,
        log_start: Offset,
        high_watermark: Offset,
        limits: RetentionLimits,
        now: Timestamp,
    ) -> bool {
        // All others as one, which by itself would stay.
        let others = SegmentFacts {
            next_offset: Offset::MAX,
            size_bytes: size_bytes.saturating_sub(self.facts.size_bytes),
            largest_timestamp: now,
        };
        let both = [self.facts, others];
        let segments = if self.is_last { &both[..1] } else { &both[..] };
        deletable_segments(segments, log_start, high_watermark, limits, now) > 0
    }
}

/// What a topic wants kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetentionLimits {
    /// `retention.ms`; `None` for no limit.
    pub retention_ms: Option<i64>,
    /// `retention.bytes`; `None` for no limit.
    pub retention_bytes: Option<u64>,
}

/// How many of the first segments may go. All of them only if none is empty at the end: then the caller
/// rolls a new one first.
pub fn deletable_segments(
    segments: &[SegmentFacts],
    log_start: Offset,
    high_watermark: Offset,
    limits: RetentionLimits,
    now: Timestamp,
) -> usize {
    let mut bound = high_watermark;
    // Planted bug 25: retention deletes above the high watermark.
    if plants_bug_25() {
        bound = Offset::MAX;
    }
    let last = segments.len().saturating_sub(1);
    let may_go = |at: usize| {
        let segment = &segments[at];
        // An empty last segment is where the next append goes.
        segment.next_offset <= bound && !(at == last && segment.size_bytes == 0)
    };
    let mut gone = 0;
    let breached = |at: usize| segments[at].next_offset <= log_start && at != last;
    while gone < segments.len() && may_go(gone) && breached(gone) {
        gone += 1;
    }
    if let Some(retention_bytes) = limits.retention_bytes {
        let total: u64 = segments[gone..].iter().map(|segment| segment.size_bytes).sum();
        let mut surplus = total.saturating_sub(retention_bytes);
        while gone < segments.len() && may_go(gone) && surplus >= segments[gone].size_bytes {
            // Nothing above the limit: nothing to do, and an empty segment would go for nothing.
            if surplus == 0 {
                break;
            }
            surplus -= segments[gone].size_bytes;
            gone += 1;
        }
    }
    if let Some(retention_ms) = limits.retention_ms {
        let expired = |at: usize| now.millis_since(segments[at].largest_timestamp) > retention_ms;
        while gone < segments.len() && may_go(gone) && expired(gone) {
            gone += 1;
        }
    }
    gone
}

fn plants_bug_25() -> bool {
    fail::fail_point!("bug-25-retention-above-high-watermark", |_| true);
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn facts(next_offset: u64, size_bytes: u64, largest: i64) -> SegmentFacts {
        SegmentFacts {
            next_offset: Offset::ZERO.plus(next_offset),
            size_bytes,
            largest_timestamp: Timestamp::new(largest).unwrap(),
        }
    }

    const KEEP: RetentionLimits = RetentionLimits { retention_ms: None, retention_bytes: None };

    fn gone(
        segments: &[SegmentFacts],
        log_start: u64,
        high_watermark: u64,
        limits: RetentionLimits,
    ) -> usize {
        let now = Timestamp::new(1000).unwrap();
        let (log_start, high_watermark) =
            (Offset::ZERO.plus(log_start), Offset::ZERO.plus(high_watermark));
        deletable_segments(segments, log_start, high_watermark, limits, now)
    }

    proptest! {
        /// The oldest segment tells whether any goes.
        #[test]
        fn the_oldest_segment_decides(
            sizes in prop::collection::vec((1u64..10, 0u64..200, 0i64..1000), 1..6),
            log_start in 0u64..40,
            visible in 0u64..20,
            retention_ms in prop::option::of(0i64..1000),
            retention_bytes in prop::option::of(0u64..600),
        ) {
            let mut next = 0;
            let segments: Vec<SegmentFacts> = sizes
                .iter()
                .map(|(records, size, largest)| {
                    next += records;
                    facts(next, *size, *largest)
                })
                .collect();
            let limits = RetentionLimits { retention_ms, retention_bytes };
            let now = Timestamp::new(1000).unwrap();
            let log_start = Offset::ZERO.plus(log_start.min(next));
            let high_watermark = Offset::ZERO.plus(visible.min(next)).max(log_start);
            let total = segments.iter().map(|segment| segment.size_bytes).sum();
            let oldest = OldestSegment { facts: segments[0], is_last: segments.len() == 1 };
            prop_assert_eq!(
                oldest.may_go(total, log_start, high_watermark, limits, now),
                deletable_segments(&segments, log_start, high_watermark, limits, now) > 0
            );
        }
    }

    #[test]
    fn without_limits_only_what_lies_below_the_log_start_goes() {
        let segments = [facts(10, 100, 0), facts(20, 100, 0), facts(30, 100, 0)];
        assert_eq!(gone(&segments, 0, 30, KEEP), 0);
        assert_eq!(gone(&segments, 19, 30, KEEP), 1);
        assert_eq!(gone(&segments, 20, 30, KEEP), 2);
        assert_eq!(gone(&segments, 30, 30, KEEP), 2, "the active segment is not breached away");
    }

    #[test]
    fn size_deletes_only_what_leaves_the_limit_behind() {
        let segments = [facts(10, 100, 0), facts(20, 100, 0), facts(30, 50, 0)];
        let by_size = |bytes| RetentionLimits { retention_bytes: Some(bytes), ..KEEP };
        assert_eq!(gone(&segments, 0, 30, by_size(250)), 0);
        assert_eq!(gone(&segments, 0, 30, by_size(151)), 0);
        assert_eq!(gone(&segments, 0, 30, by_size(150)), 1);
        assert_eq!(gone(&segments, 0, 30, by_size(0)), 3);
        assert_eq!(gone(&segments, 0, 19, by_size(0)), 1, "nothing above the high watermark");
    }

    #[test]
    fn time_stops_at_the_first_young_segment() {
        let segments = [facts(10, 100, 1), facts(20, 100, 950), facts(30, 50, 1)];
        let by_time = |ms| RetentionLimits { retention_ms: Some(ms), ..KEEP };
        assert_eq!(gone(&segments, 0, 30, by_time(100)), 1);
        assert_eq!(gone(&segments, 0, 30, by_time(999)), 0, "999 ms old is not older than 999 ms");
        assert_eq!(gone(&segments, 0, 30, by_time(10)), 3);
        let future = [facts(10, 100, 5000)];
        assert_eq!(gone(&future, 0, 10, by_time(0)), 0);
    }

    proptest! {
        /// Whatever the limits: nothing above the high watermark, and never an empty last segment.
        #[test]
        fn nothing_above_the_high_watermark_ever_goes(
            sizes in prop::collection::vec((0u64..20, 0u64..100, 0i64..2000), 0..8),
            high_watermark in 0u64..100,
            log_start in 0u64..100,
            retention_ms in prop::option::of(0i64..2000),
            retention_bytes in prop::option::of(0u64..500),
        ) {
            let mut end = 0;
            let segments: Vec<_> = sizes.iter().map(|(count, size, largest)| {
                end += count;
                facts(end, *size, *largest)
            }).collect();
            let limits = RetentionLimits { retention_ms, retention_bytes };
            let gone = gone(&segments, log_start, high_watermark, limits);
            for segment in &segments[..gone] {
                prop_assert!(segment.next_offset <= Offset::ZERO.plus(high_watermark));
            }
            if gone == segments.len() && gone > 0 {
                prop_assert!(segments[gone - 1].size_bytes > 0);
            }
        }
    }
}
