//! Follower side of one partition: where to fetch, what an answer means, how far the log is visible
//! (kafka-facts 5.3, 5.5; Kafka's `AbstractFetcherThread`).
//!
//! A fetch carries the leader epoch and the epoch of the last record; the leader serves it only where the two
//! logs agree. So a follower truncates when it is told that they part, and never on becoming one.

use storage::leader_epoch::{EpochEndOffset, LeaderEpoch, LeaderEpochCache};
use storage::offset::Offset;

use super::epoch_truncation::truncation_offset;
use super::high_watermark::follower_high_watermark;
use crate::identity::BrokerId;

/// What a follower asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FetchPosition {
    /// It holds every record before this.
    pub fetch_offset: Offset,
    /// The leadership that it follows.
    pub leader_epoch: LeaderEpoch,
    /// Epoch of its last record; `None` while the log knows none.
    pub last_fetched_epoch: Option<LeaderEpoch>,
}

/// A leader's answer without error; the records stay with the shell.
#[derive(Clone, Copy, Debug)]
pub struct FetchAnswer {
    /// The leader's high watermark; `None` if it does not say.
    pub high_watermark: Option<Offset>,
    /// Where the leader's log starts; `None` if it does not say.
    pub log_start: Option<Offset>,
    /// Where the logs part. Then there are no records, and the high watermark does not count.
    pub diverging: Option<EpochEndOffset>,
}

/// What to do with an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FetchStep {
    /// The follower has moved on since it asked: drop the answer.
    Ignore,
    /// Cut the log to this end, call [`Follower::handle_truncated`], fetch again.
    Truncate(Offset),
    /// Append the records if there are any, call [`Follower::handle_appended`], and let the log start follow
    /// the leader's.
    Append {
        /// Where the log shall start at the earliest.
        log_start: Option<Offset>,
    },
    /// The leader says that the logs part where they cannot: it is wrong. Back off.
    Nonsense,
}

/// Follower side of one partition, for one leader epoch. Sans-I/O.
pub struct Follower {
    leader: Option<BrokerId>,
    leader_epoch: LeaderEpoch,
    log_end: Offset,
    flushed_end: Offset,
    flushes_each_message: bool,
    high_watermark: Offset,
    /// The leader's, from its last answer.
    leader_high_watermark: Offset,
}

impl Follower {
    /// Begins to follow. `leader` is `None` while the partition has none: then nothing is fetched.
    pub fn new(
        leader: Option<BrokerId>,
        leader_epoch: LeaderEpoch,
        log_end: Offset,
        flushed_end: Offset,
        high_watermark: Offset,
        flushes_each_message: bool,
    ) -> Follower {
        Follower {
            leader,
            leader_epoch,
            log_end,
            flushed_end: flushed_end.min(log_end),
            flushes_each_message,
            high_watermark: high_watermark.min(log_end),
            leader_high_watermark: Offset::ZERO,
        }
    }

    /// Whom it follows.
    pub fn leader(&self) -> Option<BrokerId> {
        self.leader
    }

    /// The leadership that it follows.
    pub fn leader_epoch(&self) -> LeaderEpoch {
        self.leader_epoch
    }

    /// First offset not yet visible here.
    pub fn high_watermark(&self) -> Offset {
        self.high_watermark
    }

    /// What to fetch next; `None` while there is no leader, or while what was appended must first be fsynced
    /// (see [`Follower::wants_flush`]): its fetch offset is a promise.
    pub fn next_fetch(&self, epochs: &LeaderEpochCache) -> Option<FetchPosition> {
        if self.leader.is_none() || self.wants_flush() {
            return None;
        }
        Some(self.position(epochs))
    }

    /// Whether the log must be fsynced before the next fetch.
    pub fn wants_flush(&self) -> bool {
        self.flushes_each_message && self.flushed_end < self.log_end
    }

    fn position(&self, epochs: &LeaderEpochCache) -> FetchPosition {
        FetchPosition {
            fetch_offset: self.log_end,
            leader_epoch: self.leader_epoch,
            last_fetched_epoch: epochs.latest(),
        }
    }

    /// Decides what an answer to `asked` means now.
    pub fn handle_fetch_answer(
        &mut self,
        asked: &FetchPosition,
        answer: &FetchAnswer,
        epochs: &LeaderEpochCache,
    ) -> FetchStep {
        if self.leader.is_none() || *asked != self.position(epochs) {
            return FetchStep::Ignore;
        }
        if let Some(diverging) = answer.diverging {
            let offset = truncation_offset(epochs, self.log_end, diverging);
            // Every truncation shortens the log, so the search for the common end terminates.
            return match offset < self.log_end {
                true => FetchStep::Truncate(offset),
                false => FetchStep::Nonsense,
            };
        }
        self.leader_high_watermark = answer.high_watermark.unwrap_or(Offset::ZERO);
        FetchStep::Append { log_start: answer.log_start }
    }

    /// The log now ends at `log_end`; the last answer's high watermark counts as far as that.
    pub fn handle_appended(&mut self, log_end: Offset) {
        self.log_end = log_end;
        self.maybe_advance_high_watermark();
    }

    /// The log is fsynced up to `flushed_end`, exclusive.
    pub fn handle_flushed(&mut self, flushed_end: Offset) {
        self.flushed_end = self.flushed_end.max(flushed_end.min(self.log_end));
        self.maybe_advance_high_watermark();
    }

    /// The topic's `flush.messages` changed.
    pub fn handle_flush_config(&mut self, flushes_each_message: bool) {
        self.flushes_each_message = flushes_each_message;
    }

    /// The log was cut to (or restarted at) `log_end`. Cutting below the high watermark loses what was
    /// visible: only an unclean election brings that about.
    pub fn handle_truncated(&mut self, log_end: Offset) {
        self.log_end = log_end;
        self.flushed_end = self.flushed_end.min(log_end);
        self.high_watermark = self.high_watermark.min(log_end);
        self.leader_high_watermark = Offset::ZERO;
    }

    fn maybe_advance_high_watermark(&mut self) {
        let own_end = if self.flushes_each_message { self.flushed_end } else { self.log_end };
        self.high_watermark =
            follower_high_watermark(self.high_watermark, self.leader_high_watermark, own_end);
    }
}
