//! Leader side of one partition: what followers hold, who is in sync, how far the log is visible (kafka-facts
//! 5.1–5.3, 5.7; Kafka's `Partition`).
//!
//! The ISR is the metadata's: an accepted proposal stays *pending*, and its members count, until the image that
//! holds it arrives. Taking it from the controller's answer instead would hold a new ISR against an old min
//! ISR: with `min.insync.replicas` just raised, the leader could then move the high watermark with an ISR that
//! the controller already counts as too small, and whose leavers it keeps eligible.

mod replica;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use storage::instant::Instant;
use storage::leader_epoch::LeaderEpoch;
use storage::offset::Offset;
use storage::topic_partition::TopicId;

use self::replica::Replica;
use super::acks::LeaderSnapshot;
use super::high_watermark::leader_high_watermark;
use super::isr::Isr;
use crate::controller::AlterPartitionError;
use crate::identity::{BrokerEpoch, BrokerId, PartitionEpoch};
use crate::metadata::{LeaderRecoveryState, MetadataImage};

/// What one image says of a partition to its leader.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaderMetadata {
    /// The leader: this broker.
    pub broker_id: BrokerId,
    /// Its epoch.
    pub leader_epoch: LeaderEpoch,
    /// The partition's epoch.
    pub partition_epoch: PartitionEpoch,
    /// The ISR.
    pub isr: Vec<BrokerId>,
    /// min(`min.insync.replicas`, replicas).
    pub effective_min_isr: usize,
    /// Whether the partition is marked as recovering from an unclean election.
    pub recovery_state: LeaderRecoveryState,
    /// All replicas, the leader's too.
    pub replicas: Vec<ReplicaMetadata>,
}

/// What an image says of one replica's broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplicaMetadata {
    /// The broker.
    pub broker_id: BrokerId,
    /// Its registration; `None` if it has none.
    pub broker_epoch: Option<BrokerEpoch>,
    /// Whether it may be in the ISR: unfenced, not leaving, on its recorded directory.
    pub is_eligible: bool,
}

impl LeaderMetadata {
    /// What `image` says to `broker_id` of a partition; `None` if that broker does not lead it.
    pub fn from_image(
        image: &MetadataImage,
        topic_id: TopicId,
        partition: i32,
        broker_id: BrokerId,
    ) -> Option<LeaderMetadata> {
        let topic = image.topic(topic_id)?;
        let partition = topic.partition(partition)?;
        if partition.leader != Some(broker_id) {
            return None;
        }
        let replica = |replica: &crate::metadata::Replica| {
            let broker = image.broker(replica.broker);
            ReplicaMetadata {
                broker_id: replica.broker,
                broker_epoch: broker.map(|broker| broker.broker_epoch),
                is_eligible: broker
                    .is_some_and(|b| b.is_active() && b.directory_id == replica.directory),
            }
        };
        Some(LeaderMetadata {
            broker_id,
            leader_epoch: partition.leader_epoch,
            partition_epoch: partition.partition_epoch,
            isr: partition.isr.clone(),
            effective_min_isr: image.effective_min_isr(topic, partition.replicas.len()),
            recovery_state: partition.recovery_state,
            replicas: partition.replicas.iter().map(replica).collect(),
        })
    }
}

/// Settings of a leader.
#[derive(Clone, Copy, Debug)]
pub struct LeaderConfig {
    /// `replica.lag.time.max.ms`: a follower that was not at the end for so long leaves the ISR.
    pub replica_lag_max: Duration,
    /// How long to wait before a proposal that found no controller is sent again.
    pub proposal_backoff: Duration,
    /// `flush.messages` is 1: the end that counts is the fsynced one (DESIGN D7).
    pub flushes_each_message: bool,
}

/// The log as it is when the leadership begins.
#[derive(Clone, Copy, Debug)]
pub struct LeaderLog {
    /// The high watermark that this broker knows; may lag behind the one that consumers saw.
    pub high_watermark: Offset,
    /// Log end offset: the new epoch starts here.
    pub log_end: Offset,
    /// What of it is fsynced.
    pub flushed_end: Offset,
}

/// A follower's fetch, already checked against our leader epoch and epoch cache, and not diverging.
#[derive(Clone, Copy, Debug)]
pub struct FollowerFetch {
    /// The follower.
    pub broker_id: BrokerId,
    /// Its registration; `None` (-1, Fetch before v15) is not checked.
    pub broker_epoch: Option<BrokerEpoch>,
    /// It holds every record before this.
    pub fetch_offset: Offset,
    /// Where its log starts.
    pub log_start: Offset,
}

/// Why a follower's fetch does not count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FollowerFetchError {
    /// It has no replica here (UNKNOWN_LEADER_EPOCH if the fetch names an epoch, as its metadata may be newer
    /// than ours; else NOT_LEADER_OR_FOLLOWER).
    #[error("broker {broker_id} holds no replica of this partition")]
    NotAReplica {
        /// The broker.
        broker_id: BrokerId,
    },
    /// It has registered again since (NOT_LEADER_OR_FOLLOWER, KIP-903).
    #[error("broker {broker_id} fetches under epoch {found}, it is registered under {current}")]
    StaleBrokerEpoch {
        /// The broker.
        broker_id: BrokerId,
        /// The fetch's.
        found: BrokerEpoch,
        /// Our image's.
        current: BrokerEpoch,
    },
    /// It claims more than there is (OFFSET_OUT_OF_RANGE).
    #[error("fetch offset {requested} is past the log end offset {log_end}")]
    OffsetOutOfRange {
        /// The fetch offset.
        requested: Offset,
        /// Our log end.
        log_end: Offset,
    },
}

/// What the shell must do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LeaderAction {
    /// Publish the new high watermark to the log and wake who waits for it.
    AdvanceHighWatermark(Offset),
    /// Send this to the controller and come back with [`Leader::handle_proposal_outcome`].
    ProposeIsr(IsrProposal),
}

/// An ISR that the leader proposes: one entry of an AlterPartition request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IsrProposal {
    /// Under which epoch it leads.
    pub leader_epoch: LeaderEpoch,
    /// The state that it builds on.
    pub partition_epoch: PartitionEpoch,
    /// The members, each with the registration under which the leader knows it.
    pub new_isr: Vec<(BrokerId, Option<BrokerEpoch>)>,
}

/// What became of a proposal (kafka-facts 5.7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProposalOutcome {
    /// It stands in the metadata log: its image is under way.
    Accepted,
    /// It can never be accepted, though an earlier copy of it may have been: wait for the metadata.
    Superseded,
    /// It was refused and never happens.
    Ineligible,
    /// Nobody decided: try again.
    Undecided,
}

impl From<&AlterPartitionError> for ProposalOutcome {
    fn from(error: &AlterPartitionError) -> ProposalOutcome {
        match error {
            AlterPartitionError::UnknownTopicId { .. }
            | AlterPartitionError::UnknownPartition { .. }
            | AlterPartitionError::FencedLeaderEpoch { .. }
            | AlterPartitionError::InvalidRequest(_)
            | AlterPartitionError::InvalidUpdateVersion { .. } => ProposalOutcome::Superseded,
            AlterPartitionError::IneligibleReplica { .. } => ProposalOutcome::Ineligible,
            AlterPartitionError::NotController => ProposalOutcome::Undecided,
        }
    }
}

/// Leader side of one partition, for one leader epoch. Sans-I/O: no clock, no disk, no socket.
///
/// Invariant: high watermark <= own counted end, unless the log was found shorter at the start; it never
/// goes back within the epoch.
#[derive(Debug)]
pub struct Leader {
    broker_id: BrokerId,
    config: LeaderConfig,
    leader_epoch: LeaderEpoch,
    partition_epoch: PartitionEpoch,
    epoch_start: Offset,
    /// From the metadata image, as the ISR is.
    effective_min_isr: usize,
    recovery_state: LeaderRecoveryState,
    high_watermark: Offset,
    log_end: Offset,
    flushed_end: Offset,
    isr: Isr,
    /// Every replica but ours; ordered, so that a run replays exactly.
    followers: BTreeMap<BrokerId, Replica>,
    /// Our own registration.
    broker_epoch: Option<BrokerEpoch>,
    /// When the ISR is next looked at for those who lag; `None` while it is ours alone.
    next_shrink_check: Option<Instant>,
    /// The change under way, word for word as it was proposed: a member that has registered again since must
    /// not get in on what its earlier process held.
    proposal: Option<IsrProposal>,
    /// When a proposal that nobody decided is sent again.
    retry_proposal_at: Option<Instant>,
    actions: VecDeque<LeaderAction>,
}

impl Leader {
    /// Begins a leadership. The high watermark moves at once if the ISR is this broker alone.
    pub fn new(
        metadata: LeaderMetadata,
        log: LeaderLog,
        config: LeaderConfig,
        now: Instant,
    ) -> Leader {
        let mut leader = Leader {
            broker_id: metadata.broker_id,
            config,
            leader_epoch: metadata.leader_epoch,
            partition_epoch: metadata.partition_epoch,
            epoch_start: log.log_end,
            effective_min_isr: metadata.effective_min_isr,
            recovery_state: metadata.recovery_state,
            high_watermark: log.high_watermark.min(log.log_end),
            log_end: log.log_end,
            flushed_end: log.flushed_end.min(log.log_end),
            isr: Isr::new(metadata.isr.clone()),
            followers: BTreeMap::new(),
            broker_epoch: None,
            next_shrink_check: None,
            proposal: None,
            retry_proposal_at: None,
            actions: VecDeque::new(),
        };
        leader.take_metadata(&metadata, now);
        leader.maybe_advance_high_watermark(now);
        leader
    }

    /// The epoch of this leadership.
    pub fn leader_epoch(&self) -> LeaderEpoch {
        self.leader_epoch
    }

    /// The partition epoch of the image that it goes by.
    pub fn partition_epoch(&self) -> PartitionEpoch {
        self.partition_epoch
    }

    /// First offset not yet visible.
    pub fn high_watermark(&self) -> Offset {
        self.high_watermark
    }

    /// End of what this broker itself holds for certain.
    pub fn counted_end(&self) -> Offset {
        fail::fail_point!("bug-2-ack-before-fsync", |_| self.log_end);
        if self.config.flushes_each_message { self.flushed_end } else { self.log_end }
    }

    /// The ISR.
    pub fn isr(&self) -> &Isr {
        &self.isr
    }

    /// What those who wait for acknowledgement must know.
    pub fn snapshot(&self) -> LeaderSnapshot {
        LeaderSnapshot {
            leader_epoch: self.leader_epoch,
            epoch_start: self.epoch_start,
            high_watermark: self.high_watermark,
            counted_end: self.counted_end(),
            isr_size: self.isr.committed().len(),
            maximal_isr_size: self.isr.maximal_size(),
            effective_min_isr: self.effective_min_isr,
        }
    }

    /// Smallest log start offset of all replicas whose broker is alive; what DeleteRecords waits for. A follower
    /// not heard from yet counts as 0.
    pub fn low_watermark(&self, own_log_start: Offset) -> Offset {
        let alive = self.followers.values().filter(|replica| replica.is_eligible);
        alive.map(|replica| replica.log_start).min().unwrap_or(own_log_start).min(own_log_start)
    }

    /// Whether a follower is at the log end or was within the allowed lag.
    pub fn is_caught_up(&self, broker_id: BrokerId, now: Instant) -> bool {
        let replica = self.followers.get(&broker_id);
        replica.is_some_and(|r| r.is_caught_up(self.log_end, now, self.config.replica_lag_max))
    }

    /// The log now ends at `log_end`.
    ///
    /// # Panics
    /// If that is before the end known: a leader never truncates.
    pub fn handle_append(&mut self, log_end: Offset, now: Instant) {
        assert!(log_end >= self.log_end, "a leader's log went from {} to {log_end}", self.log_end);
        self.log_end = log_end;
        self.maybe_advance_high_watermark(now);
    }

    /// The log is fsynced up to `flushed_end`, exclusive. Late news of an earlier fsync changes nothing.
    pub fn handle_flushed(&mut self, flushed_end: Offset, now: Instant) {
        self.flushed_end = self.flushed_end.max(flushed_end.min(self.log_end));
        self.maybe_advance_high_watermark(now);
    }

    /// The topic's `flush.messages` changed.
    pub fn handle_flush_config(&mut self, flushes_each_message: bool, now: Instant) {
        self.config.flushes_each_message = flushes_each_message;
        self.maybe_advance_high_watermark(now);
    }

    /// Takes a fetch for what it says: the follower holds every record before the fetch offset. May move the
    /// high watermark and propose that it joins the ISR.
    ///
    /// # Errors
    /// A fetch that does not count, and must not be served.
    pub fn handle_follower_fetch(
        &mut self,
        fetch: &FollowerFetch,
        now: Instant,
    ) -> Result<(), FollowerFetchError> {
        let (broker_id, log_end) = (fetch.broker_id, self.log_end);
        let replica = self.followers.get_mut(&broker_id);
        let replica = replica.ok_or(FollowerFetchError::NotAReplica { broker_id })?;
        if let (Some(found), Some(current)) = (fetch.broker_epoch, replica.broker_epoch)
            && found < current
        {
            return Err(FollowerFetchError::StaleBrokerEpoch { broker_id, found, current });
        }
        if fetch.fetch_offset > log_end {
            let requested = fetch.fetch_offset;
            return Err(FollowerFetchError::OffsetOutOfRange { requested, log_end });
        }
        replica.note_fetch(fetch, log_end, now);
        self.maybe_propose_expand(broker_id);
        self.maybe_advance_high_watermark(now);
        Ok(())
    }

    /// Another image of the same leader epoch.
    ///
    /// # Panics
    /// If the epoch is another, or the partition's epoch went back: then the shell mixed up images.
    pub fn handle_metadata(&mut self, metadata: &LeaderMetadata, now: Instant) {
        let (known, new) = (self.leader_epoch, metadata.leader_epoch);
        assert_eq!(known, new, "a leader lives for one leader epoch");
        let (known, new) = (self.partition_epoch, metadata.partition_epoch);
        assert!(new >= known, "partition epoch went from {known} to {new}");
        if new > known {
            self.partition_epoch = new;
            self.isr = Isr::new(metadata.isr.clone()); // whatever was pending is decided now
            self.proposal = None;
            self.retry_proposal_at = None;
        }
        self.effective_min_isr = metadata.effective_min_isr;
        self.recovery_state = metadata.recovery_state;
        self.take_metadata(metadata, now);
        self.maybe_advance_high_watermark(now);
    }

    /// What became of the proposal under way. `partition_epoch` is the one that it was built on: the outcome of
    /// an older proposal changes nothing.
    pub fn handle_proposal_outcome(
        &mut self,
        partition_epoch: PartitionEpoch,
        outcome: ProposalOutcome,
        now: Instant,
    ) {
        if partition_epoch != self.partition_epoch || !self.isr.is_pending() {
            return;
        }
        match outcome {
            ProposalOutcome::Accepted | ProposalOutcome::Superseded => {}
            ProposalOutcome::Ineligible => {
                self.isr.roll_back();
                self.proposal = None;
                self.maybe_advance_high_watermark(now);
            }
            ProposalOutcome::Undecided => {
                self.retry_proposal_at = Some(now.plus(self.config.proposal_backoff));
            }
        }
    }

    /// Does what time alone brings about. Call it when [`Leader::poll_timeout`] has come; earlier is harmless.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.retry_proposal_at.is_some_and(|at| now >= at) {
            self.retry_proposal_at = None;
            self.actions.extend(self.proposal.clone().map(LeaderAction::ProposeIsr));
        }
        if self.next_shrink_check.is_some_and(|at| now >= at) {
            self.next_shrink_check = Some(now.plus(self.config.replica_lag_max / 2));
            self.maybe_propose_shrink(now);
        }
        self.maybe_advance_high_watermark(now); // who lagged too long outside the ISR holds it no more
    }

    /// When to call [`Leader::handle_timeout`]; `None`: nothing depends on time.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.next_shrink_check.into_iter().chain(self.retry_proposal_at).min()
    }

    /// What the shell must do next, in this order. Drain it after every `handle_*`, and after `new`.
    pub fn poll_action(&mut self) -> Option<LeaderAction> {
        self.actions.pop_front()
    }

    fn take_metadata(&mut self, metadata: &LeaderMetadata, now: Instant) {
        let others = metadata.replicas.iter().filter(|replica| replica.broker_id != self.broker_id);
        let known = std::mem::take(&mut self.followers);
        self.followers = others
            .map(|replica| {
                let in_isr = metadata.isr.contains(&replica.broker_id);
                let known = known.get(&replica.broker_id);
                (replica.broker_id, Replica::with_metadata(known, replica, in_isr, now))
            })
            .collect();
        let own = metadata.replicas.iter().find(|replica| replica.broker_id == self.broker_id);
        self.broker_epoch = own.and_then(|replica| replica.broker_epoch);
        // A follower outside the ISR may hold the high watermark for a while, too.
        self.next_shrink_check = match self.followers.is_empty() {
            true => None,
            false => {
                Some(self.next_shrink_check.unwrap_or(now.plus(self.config.replica_lag_max / 2)))
            }
        };
    }

    fn maybe_propose_expand(&mut self, broker_id: BrokerId) {
        let replica = &self.followers[&broker_id];
        let joins = !self.isr.is_pending()
            && !self.isr.committed().contains(&broker_id)
            && replica.may_join_isr()
            && replica
                .log_end
                .is_some_and(|end| end >= self.high_watermark && end >= self.epoch_start);
        if joins {
            self.isr.propose_expand(broker_id);
            self.propose();
        }
    }

    fn maybe_propose_shrink(&mut self, now: Instant) {
        if self.isr.is_pending() {
            return;
        }
        let followers = self.isr.committed().iter().copied().filter(|&id| id != self.broker_id);
        let lagging: Vec<BrokerId> = followers.filter(|&id| !self.is_caught_up(id, now)).collect();
        if !lagging.is_empty() {
            self.isr.propose_shrink(&lagging);
            self.propose();
        }
    }

    /// Sends the change that has just begun.
    fn propose(&mut self) {
        let members = self.isr.proposed().expect("called when a change begins");
        let epoch_of = |id: BrokerId| match id == self.broker_id {
            true => self.broker_epoch,
            false => self.followers.get(&id).and_then(|replica| replica.broker_epoch),
        };
        let proposal = IsrProposal {
            leader_epoch: self.leader_epoch,
            partition_epoch: self.partition_epoch,
            new_isr: members.into_iter().map(|id| (id, epoch_of(id))).collect(),
        };
        self.proposal = Some(proposal.clone());
        self.actions.push_back(LeaderAction::ProposeIsr(proposal));
    }

    fn maybe_advance_high_watermark(&mut self, now: Instant) {
        let (log_end, lag_max) = (self.log_end, self.config.replica_lag_max);
        let own = self.counted_end();
        // Of a member not heard from we know that it held what was committed when it was last counted.
        let follower_end = |id: BrokerId| {
            let replica = self.followers.get(&id);
            replica.and_then(|replica| replica.log_end).unwrap_or(self.high_watermark)
        };
        let members = self.isr.maximal().filter(|&id| id != self.broker_id).map(follower_end);
        // One that is about to join is waited for, or it would never catch up with a busy leader.
        let joining = self.followers.values().filter(|replica| {
            replica.may_join_isr() && replica.is_caught_up(log_end, now, lag_max)
        });
        let ends = [own].into_iter().chain(members).chain(joining.filter_map(|r| r.log_end));
        let advanced = leader_high_watermark(
            self.high_watermark,
            self.isr.committed().len(),
            self.effective_min_isr,
            ends,
        );
        if let Some(high_watermark) = advanced {
            self.high_watermark = high_watermark;
            self.actions.push_back(LeaderAction::AdvanceHighWatermark(high_watermark));
        }
    }
}
