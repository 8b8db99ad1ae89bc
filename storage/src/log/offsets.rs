//! The offsets of a log, and the high watermark, which others move.

use super::Log;
use crate::offset::Offset;

/// The offsets of a log that readers need, taken together.
///
/// Invariant: `log_start <= last_stable <= high_watermark <= log_end` and
/// `recovery_point <= flushed_end <= log_end`. The two groups are independent: durability here and
/// replication elsewhere are separate promises.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OffsetSnapshot {
    /// First offset that may be read.
    pub log_start: Offset,
    /// First offset that consumers may not yet see.
    pub high_watermark: Offset,
    /// First offset that read_committed consumers may not yet see.
    pub last_stable: Offset,
    /// First offset that is not written.
    pub log_end: Offset,
    /// First offset whose record an fsync does not cover yet.
    pub flushed_end: Offset,
    /// First offset that an unclean start would read.
    pub recovery_point: Offset,
    /// The end that counts for acks, for the leader's share of the high watermark and for a follower's next
    /// fetch: `flushed_end` where each message is flushed, else `log_end`.
    pub durable_end: Offset,
}

/// Offsets of one log from the checkpoints of its log directory; zero where there is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CheckpointedOffsets {
    /// `recovery-point-offset-checkpoint`.
    pub recovery_point: Offset,
    /// `log-start-offset-checkpoint`.
    pub log_start: Offset,
    /// `replication-offset-checkpoint`.
    pub high_watermark: Offset,
}

impl Log {
    /// All its offsets, at one moment.
    pub fn offsets(&self) -> OffsetSnapshot {
        let flushed_end = self.progress.flushed_end();
        let waits = self.config.flushes_each_message() && !plants_bug_2();
        let last_stable = match self.first_unstable {
            Some(first) => first.min(self.high_watermark).max(self.log_start),
            None => self.high_watermark,
        };
        OffsetSnapshot {
            log_start: self.log_start,
            high_watermark: self.high_watermark,
            last_stable,
            log_end: self.log_end,
            flushed_end,
            recovery_point: self.progress.recovery_point(),
            durable_end: if waits { flushed_end } else { self.log_end },
        }
    }

    /// Moves the high watermark, kept within the log. Returns whether it moved. It may go back: followers
    /// learn theirs from the leader, and after an election it can be lower for a while.
    pub fn update_high_watermark(&mut self, high_watermark: Offset) -> bool {
        let bounded = high_watermark.clamp(self.log_start, self.log_end);
        if bounded == self.high_watermark {
            return false;
        }
        self.high_watermark = bounded;
        self.dir.note_offsets_moved();
        self.refresh_first_unstable();
        true
    }
}

/// Planted bug 2: an ack does not wait for the fsync that `flush.messages=1` promises.
fn plants_bug_2() -> bool {
    fail::fail_point!("bug-2-ack-before-fsync", |_| true);
    false
}
