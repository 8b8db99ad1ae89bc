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
    /// Cut the log **and its leader epochs** to this end, call [`Follower::handle_truncated`], fetch again. The
    /// end may be the log's own: then only an epoch without records goes.
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
            // A leadership in which nothing was written leaves an epoch that starts at the log end: cutting
            // there drops it, though no record goes. Every truncation drops a record or an epoch, so the
            // search for the common end terminates.
            let drops_epoch = epochs.latest_entry().is_some_and(|last| last.start_offset >= offset);
            return match offset < self.log_end || drops_epoch {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn epoch(value: i32) -> LeaderEpoch {
        LeaderEpoch::new(value).unwrap()
    }

    fn offset(value: i64) -> Offset {
        Offset::new(value).unwrap()
    }

    fn epochs(entries: &[(i32, i64)]) -> LeaderEpochCache {
        let mut cache = LeaderEpochCache::new();
        for &(number, start) in entries {
            cache.assign(epoch(number), offset(start));
        }
        cache
    }

    fn follower(log_end: i64, flushes_each_message: bool) -> Follower {
        let leader = BrokerId::new(1);
        let end = offset(log_end);
        Follower::new(leader, epoch(7), end, end, offset(2), flushes_each_message)
    }

    fn answer(high_watermark: i64) -> FetchAnswer {
        let (high_watermark, log_start) = (Offset::new(high_watermark), Offset::new(0));
        FetchAnswer { high_watermark, log_start, diverging: None }
    }

    #[test]
    fn it_shows_what_the_leader_shows_as_far_as_its_own_log_goes() {
        let (mut own, epochs) = (follower(5, false), epochs(&[(3, 0)]));
        let asked = own.next_fetch(&epochs).unwrap();
        assert_eq!(asked.last_fetched_epoch, Some(epoch(3)));
        own.handle_fetch_answer(&asked, &answer(9), &epochs);
        own.handle_appended(offset(7));
        assert_eq!(own.high_watermark(), offset(7));
        let asked = own.next_fetch(&epochs).unwrap();
        own.handle_fetch_answer(&asked, &answer(6), &epochs);
        own.handle_appended(offset(7));
        assert_eq!(own.high_watermark(), offset(7), "a new leader may not know yet");
    }

    #[test]
    fn an_answer_to_what_is_past_is_dropped() {
        let (mut own, epochs) = (follower(5, false), epochs(&[(3, 0)]));
        let asked = own.next_fetch(&epochs).unwrap();
        own.handle_appended(offset(6));
        assert_eq!(own.handle_fetch_answer(&asked, &answer(9), &epochs), FetchStep::Ignore);
        assert_eq!(own.high_watermark(), offset(2));
        let mut leaderless = Follower::new(None, epoch(7), offset(5), offset(5), offset(2), false);
        assert_eq!(leaderless.next_fetch(&epochs), None);
        assert_eq!(leaderless.handle_fetch_answer(&asked, &answer(9), &epochs), FetchStep::Ignore);
    }

    #[test]
    fn where_each_message_is_flushed_it_fetches_only_past_what_is_fsynced() {
        let (mut own, epochs) = (follower(5, true), epochs(&[(3, 0)]));
        let asked = own.next_fetch(&epochs).unwrap();
        own.handle_fetch_answer(&asked, &answer(9), &epochs);
        own.handle_appended(offset(7));
        assert_eq!((own.next_fetch(&epochs), own.wants_flush()), (None, true));
        assert_eq!(own.high_watermark(), offset(5));
        own.handle_flushed(offset(7));
        assert_eq!(own.next_fetch(&epochs).unwrap().fetch_offset, offset(7));
        assert_eq!(own.high_watermark(), offset(7));
    }

    #[test]
    fn diverging_logs_are_cut_by_epoch_and_the_high_watermark_follows() {
        let (mut own, epochs) = (follower(10, false), epochs(&[(3, 0), (5, 6)]));
        let asked = own.next_fetch(&epochs).unwrap();
        let end = EpochEndOffset { epoch: epoch(3), end_offset: offset(8) };
        let diverging = FetchAnswer { diverging: Some(end), ..answer(9) };
        assert_eq!(
            own.handle_fetch_answer(&asked, &diverging, &epochs),
            FetchStep::Truncate(offset(6))
        );
        own.handle_truncated(offset(1));
        assert_eq!(own.high_watermark(), offset(1));
        own.handle_appended(offset(4));
        assert_eq!(own.high_watermark(), offset(1), "the diverging answer's does not count");
    }

    #[test]
    fn an_epoch_without_records_is_dropped_though_the_log_stays_as_long() {
        let (mut own, mut epochs) = (follower(5, false), epochs(&[(3, 0), (6, 5)]));
        let asked = own.next_fetch(&epochs).unwrap();
        let end = EpochEndOffset { epoch: epoch(3), end_offset: offset(5) };
        let diverging = FetchAnswer { diverging: Some(end), ..answer(9) };
        assert_eq!(
            own.handle_fetch_answer(&asked, &diverging, &epochs),
            FetchStep::Truncate(offset(5))
        );
        epochs.truncate_from_end(offset(5));
        own.handle_truncated(offset(5));
        assert_eq!(own.next_fetch(&epochs).unwrap().last_fetched_epoch, Some(epoch(3)));
    }

    #[test]
    fn a_leader_that_diverges_past_our_end_talks_nonsense() {
        let (mut own, epochs) = (follower(5, false), epochs(&[(3, 0)]));
        let asked = own.next_fetch(&epochs).unwrap();
        let end = EpochEndOffset { epoch: epoch(3), end_offset: offset(9) };
        let diverging = FetchAnswer { diverging: Some(end), ..answer(9) };
        assert_eq!(own.handle_fetch_answer(&asked, &diverging, &epochs), FetchStep::Nonsense);
    }
}
