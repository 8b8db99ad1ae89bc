//! What a leader knows of one follower (Kafka's `Replica`).

use std::time::Duration;

use storage::instant::Instant;
use storage::offset::Offset;

use super::{FollowerFetch, ReplicaMetadata};
use crate::identity::BrokerEpoch;

#[derive(Debug)]
pub(super) struct Replica {
    /// It holds every record before this; `None` until it has fetched in this leader epoch.
    pub(super) log_end: Option<Offset>,
    /// Where its log starts; 0 until it has said.
    pub(super) log_start: Offset,
    /// Its registration in our image.
    pub(super) broker_epoch: Option<BrokerEpoch>,
    /// The registration under which it fetched last; `None` if it does not say.
    fetched_under: Option<BrokerEpoch>,
    /// Whether our image lets it into the ISR.
    pub(super) is_eligible: bool,
    /// When it was last at the log end, as far as fetches can tell.
    last_caught_up: Option<Instant>,
    /// Time of its last fetch, and our log end then.
    last_fetch: Option<(Instant, Offset)>,
}

impl Replica {
    /// The follower after another image. A member of the ISR that is new to us is given the time of one lag to
    /// show itself; what is known of another stays.
    pub(super) fn with_metadata(
        known: Option<&Replica>,
        metadata: &ReplicaMetadata,
        is_in_isr: bool,
        now: Instant,
    ) -> Replica {
        // What an earlier process of the broker held says nothing about this one.
        let known = known.filter(|known| {
            known.broker_epoch == metadata.broker_epoch
                || known.fetched_under == metadata.broker_epoch
        });
        let last_caught_up = match known {
            Some(known) => known.last_caught_up,
            None => is_in_isr.then_some(now),
        };
        Replica {
            log_end: known.and_then(|known| known.log_end),
            log_start: known.map_or(Offset::ZERO, |known| known.log_start),
            broker_epoch: metadata.broker_epoch,
            fetched_under: known.and_then(|known| known.fetched_under),
            is_eligible: metadata.is_eligible,
            last_caught_up,
            last_fetch: known.and_then(|known| known.last_fetch),
        }
    }

    /// Notes a fetch made while our log ended at `log_end`.
    pub(super) fn note_fetch(&mut self, fetch: &FollowerFetch, log_end: Offset, now: Instant) {
        let caught_up = match self.last_fetch {
            _ if fetch.fetch_offset >= log_end => Some(now),
            // It has all that there was when it asked before: it was at the end at that time.
            Some((then, end_then)) if fetch.fetch_offset >= end_then => Some(then),
            _ => None,
        };
        self.last_caught_up = self.last_caught_up.max(caught_up);
        self.last_fetch = Some((now, log_end));
        self.log_end = Some(fetch.fetch_offset);
        self.log_start = fetch.log_start;
        self.fetched_under = fetch.broker_epoch;
    }

    /// At the log end, or there within the last `lag_max`.
    pub(super) fn is_caught_up(&self, log_end: Offset, now: Instant, lag_max: Duration) -> bool {
        self.log_end == Some(log_end)
            || self.last_caught_up.is_some_and(|then| now.saturating_since(then) <= lag_max)
    }

    /// Whether our image lets this very process into the ISR (KIP-903).
    pub(super) fn may_join_isr(&self) -> bool {
        self.is_eligible
            && (self.fetched_under.is_none() || self.fetched_under == self.broker_epoch)
    }
}
