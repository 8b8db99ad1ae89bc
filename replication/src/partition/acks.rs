//! When a produce is acknowledged (kafka-facts 5.4, KIP-966; DESIGN D6).

use storage::leader_epoch::LeaderEpoch;
use storage::offset::Offset;

/// What a leader publishes for those who wait; taken under the partition's lock, read without it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaderSnapshot {
    /// The leadership that it speaks of.
    pub leader_epoch: LeaderEpoch,
    /// First offset of the epoch. Until the high watermark has reached it, the leader does not know what is
    /// committed: ListOffsets answers OFFSET_NOT_AVAILABLE for the latest offset (KIP-207).
    pub epoch_start: Offset,
    /// First offset not yet visible.
    pub high_watermark: Offset,
    /// End of what the leader itself holds for certain: its log end, or where the topic flushes each message
    /// its fsynced end (DESIGN D7).
    pub counted_end: Offset,
    /// Members of the committed ISR.
    pub isr_size: usize,
    /// Members of the maximal ISR.
    pub maximal_isr_size: usize,
    /// What either must count.
    pub effective_min_isr: usize,
}

/// Whose word a producer waits for. With acks=0 there is nothing to wait for, nor to answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequiredAcks {
    /// acks=1: the leader's.
    Leader,
    /// acks=all (-1): the whole ISR's.
    All,
}

/// The append is refused, nothing is written (NOT_ENOUGH_REPLICAS).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the in-sync replicas are {isr_size}, acks=all needs {effective_min_isr}")]
pub struct NotEnoughReplicas {
    /// Members of the committed ISR.
    pub isr_size: usize,
    /// min(`min.insync.replicas`, replicas).
    pub effective_min_isr: usize,
}

/// Why an appended batch is not acknowledged; it may yet be replicated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AckError {
    /// The leadership under which it was appended is over, so it may be cut (NOT_LEADER_OR_FOLLOWER).
    #[error("the leader epoch {appended_in} of the append is over")]
    NotLeader {
        /// The epoch of the append.
        appended_in: LeaderEpoch,
    },
    /// It is replicated to all in-sync replicas, but they are too few (NOT_ENOUGH_REPLICAS_AFTER_APPEND).
    #[error(
        "appended, but the in-sync replicas are {maximal_isr_size}, acks=all needs {effective_min_isr}"
    )]
    NotEnoughReplicasAfterAppend {
        /// Members of the maximal ISR.
        maximal_isr_size: usize,
        /// min(`min.insync.replicas`, replicas).
        effective_min_isr: usize,
    },
}

/// How an append stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AckState {
    /// Ask again when the high watermark, the leader's end or its role has moved.
    Waiting,
    /// As promised.
    Acknowledged,
    /// It will not be.
    Failed(AckError),
}

/// An append that waits for its acknowledgement. It holds the leader epoch that it was made in and succeeds
/// only under that one: in a later epoch its offset may hold another record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AwaitedAppend {
    /// The epoch of the append.
    pub leader_epoch: LeaderEpoch,
    /// The offset after the last record appended.
    pub required: Offset,
    /// Whose word it waits for.
    pub acks: RequiredAcks,
}

impl RequiredAcks {
    /// Whether an append may begin.
    ///
    /// # Errors
    /// The committed ISR is too small for acks=all.
    pub fn admit(self, leader: &LeaderSnapshot) -> Result<(), NotEnoughReplicas> {
        let LeaderSnapshot { isr_size, effective_min_isr, .. } = *leader;
        if self == RequiredAcks::All && isr_size < effective_min_isr {
            return Err(NotEnoughReplicas { isr_size, effective_min_isr });
        }
        Ok(())
    }
}

impl AwaitedAppend {
    /// How it stands; `leader` is `None` once this broker does not lead any more, or has no such partition.
    pub fn state(&self, leader: Option<&LeaderSnapshot>) -> AckState {
        let leader = match leader {
            Some(leader) if leader.leader_epoch == self.leader_epoch => leader,
            _ => return AckState::Failed(AckError::NotLeader { appended_in: self.leader_epoch }),
        };
        match self.acks {
            RequiredAcks::Leader if leader.counted_end >= self.required => AckState::Acknowledged,
            RequiredAcks::All if leader.high_watermark >= self.required => {
                let LeaderSnapshot { maximal_isr_size, effective_min_isr, .. } = *leader;
                if maximal_isr_size >= effective_min_isr {
                    return AckState::Acknowledged;
                }
                AckState::Failed(AckError::NotEnoughReplicasAfterAppend {
                    maximal_isr_size,
                    effective_min_isr,
                })
            }
            RequiredAcks::Leader | RequiredAcks::All => AckState::Waiting,
        }
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

    fn leader() -> LeaderSnapshot {
        LeaderSnapshot {
            leader_epoch: epoch(3),
            epoch_start: offset(0),
            high_watermark: offset(10),
            counted_end: offset(12),
            isr_size: 2,
            maximal_isr_size: 2,
            effective_min_isr: 2,
        }
    }

    fn append(acks: RequiredAcks, required: i64) -> AwaitedAppend {
        AwaitedAppend { leader_epoch: epoch(3), required: offset(required), acks }
    }

    #[test]
    fn acks_all_is_refused_before_the_append_while_the_isr_is_too_small() {
        let small = LeaderSnapshot { isr_size: 1, ..leader() };
        let error = NotEnoughReplicas { isr_size: 1, effective_min_isr: 2 };
        assert_eq!(RequiredAcks::All.admit(&small), Err(error));
        assert_eq!(RequiredAcks::Leader.admit(&small), Ok(()));
        assert_eq!(RequiredAcks::All.admit(&leader()), Ok(()));
    }

    #[test]
    fn acks_all_waits_for_the_high_watermark_to_pass_the_last_record() {
        assert_eq!(append(RequiredAcks::All, 11).state(Some(&leader())), AckState::Waiting);
        assert_eq!(append(RequiredAcks::All, 10).state(Some(&leader())), AckState::Acknowledged);
    }

    #[test]
    fn acks_1_waits_for_what_the_leader_counts_as_its_own() {
        assert_eq!(append(RequiredAcks::Leader, 12).state(Some(&leader())), AckState::Acknowledged);
        assert_eq!(append(RequiredAcks::Leader, 13).state(Some(&leader())), AckState::Waiting);
    }

    #[test]
    fn an_isr_that_shrank_below_the_minimum_meanwhile_is_told_to_the_producer() {
        let small = LeaderSnapshot { maximal_isr_size: 1, isr_size: 1, ..leader() };
        let error =
            AckError::NotEnoughReplicasAfterAppend { maximal_isr_size: 1, effective_min_isr: 2 };
        assert_eq!(append(RequiredAcks::All, 10).state(Some(&small)), AckState::Failed(error));
        assert_eq!(append(RequiredAcks::All, 11).state(Some(&small)), AckState::Waiting);
    }

    #[test]
    fn under_a_later_epoch_or_another_leader_nothing_is_acknowledged() {
        let later = LeaderSnapshot { leader_epoch: epoch(4), ..leader() };
        let failed = AckState::Failed(AckError::NotLeader { appended_in: epoch(3) });
        for acks in [RequiredAcks::All, RequiredAcks::Leader] {
            assert_eq!(append(acks, 1).state(Some(&later)), failed);
            assert_eq!(append(acks, 1).state(None), failed);
        }
    }
}
