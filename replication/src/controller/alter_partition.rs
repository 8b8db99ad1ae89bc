//! A leader proposes another ISR (KIP-497, KIP-903; kafka-facts 5.7, Kafka's `ReplicationControlManager`).

use std::collections::BTreeSet;

use storage::leader_epoch::LeaderEpoch;
use storage::topic_partition::TopicId;

use super::leader_election::PartitionEvent;
use super::{Controller, ControllerResult, StaleBrokerEpoch};
use crate::identity::{BrokerEpoch, BrokerId, PartitionEpoch};
use crate::metadata::{LeaderRecoveryState, MetadataRecord, PartitionRegistration};

/// ISR changes that one leader proposes.
#[derive(Clone, Debug)]
pub struct AlterPartition {
    /// The leader.
    pub broker_id: BrokerId,
    /// Its epoch.
    pub broker_epoch: BrokerEpoch,
    /// One entry a partition.
    pub partitions: Vec<AlterPartitionEntry>,
}

/// One partition's proposal: a compare-and-set on both epochs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AlterPartitionEntry {
    /// The topic.
    pub topic_id: TopicId,
    /// The partition's number.
    pub partition: i32,
    /// The epoch under which the sender leads.
    pub leader_epoch: LeaderEpoch,
    /// The partition epoch that it builds on.
    pub partition_epoch: PartitionEpoch,
    /// The ISR that it proposes, with the broker epoch under which it knows each member; `None` (old
    /// senders) is not checked.
    pub new_isr: Vec<(BrokerId, Option<BrokerEpoch>)>,
    /// Whether it has recovered from an unclean election.
    pub recovery_state: LeaderRecoveryState,
}

/// A partition as it is after the change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AlteredPartition {
    /// The leader.
    pub leader: Option<BrokerId>,
    /// Its epoch.
    pub leader_epoch: LeaderEpoch,
    /// The ISR.
    pub isr: Vec<BrokerId>,
    /// Whether the leader still recovers.
    pub recovery_state: LeaderRecoveryState,
    /// The epoch to build on next.
    pub partition_epoch: PartitionEpoch,
}

/// Why a partition stays as it is. Each has its own reaction: see
/// kafka-facts 5.7.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AlterPartitionError {
    /// No such topic (UNKNOWN_TOPIC_ID).
    #[error("there is no topic {topic_id}")]
    UnknownTopicId {
        /// The id.
        topic_id: TopicId,
    },
    /// No such partition (UNKNOWN_TOPIC_OR_PARTITION).
    #[error("topic {topic_id} has no partition {partition}")]
    UnknownPartition {
        /// The topic.
        topic_id: TopicId,
        /// The partition.
        partition: i32,
    },
    /// The sender knows later epochs than we do (NOT_CONTROLLER).
    #[error("the leader is ahead of this controller, so another one must be active")]
    NotController,
    /// The sender's leadership is over (FENCED_LEADER_EPOCH).
    #[error("leader epoch {found} is over, the current one is {current}")]
    FencedLeaderEpoch {
        /// What was sent.
        found: LeaderEpoch,
        /// What is current.
        current: LeaderEpoch,
    },
    /// The proposal makes no sense (INVALID_REQUEST).
    #[error("{0}")]
    InvalidRequest(&'static str),
    /// The proposal builds on an old state (INVALID_UPDATE_VERSION).
    #[error("partition epoch {found} is over, the current one is {current}")]
    InvalidUpdateVersion {
        /// What was sent.
        found: PartitionEpoch,
        /// What is current.
        current: PartitionEpoch,
    },
    /// A member may not join (INELIGIBLE_REPLICA).
    #[error("broker {broker_id} cannot be in the ISR: {reason}")]
    IneligibleReplica {
        /// The member.
        broker_id: BrokerId,
        /// Why not.
        reason: &'static str,
    },
}

/// One partition's answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AlterPartitionResult {
    /// The topic.
    pub topic_id: TopicId,
    /// The partition's number.
    pub partition: i32,
    /// The partition after the change, or why there was none.
    pub result: Result<AlteredPartition, AlterPartitionError>,
}

impl Controller {
    /// Decides each proposal by itself; all that are accepted go into one entry.
    ///
    /// # Errors
    /// The sender must register again.
    pub fn alter_partition(
        &self,
        request: &AlterPartition,
    ) -> Result<ControllerResult<Vec<AlterPartitionResult>>, StaleBrokerEpoch> {
        self.check_broker_epoch(request.broker_id, request.broker_epoch)?;
        let mut records = Vec::new();
        let mut response = Vec::with_capacity(request.partitions.len());
        let mut seen = BTreeSet::new();
        for entry in &request.partitions {
            let is_first = seen.insert((entry.topic_id, entry.partition));
            let result = match is_first {
                true => self.alter_one(request.broker_id, entry, &mut records),
                false => Err(AlterPartitionError::InvalidRequest("the partition is named twice")),
            };
            let AlterPartitionEntry { topic_id, partition, .. } = *entry;
            response.push(AlterPartitionResult { topic_id, partition, result });
        }
        Ok(ControllerResult { records, response })
    }

    fn alter_one(
        &self,
        sender: BrokerId,
        entry: &AlterPartitionEntry,
        records: &mut Vec<MetadataRecord>,
    ) -> Result<AlteredPartition, AlterPartitionError> {
        let (topic_id, number) = (entry.topic_id, entry.partition);
        let topic = self.image.topic(topic_id);
        let topic = topic.ok_or(AlterPartitionError::UnknownTopicId { topic_id })?;
        let partition = topic.partition(number);
        let partition = partition
            .ok_or(AlterPartitionError::UnknownPartition { topic_id, partition: number })?;
        check_epochs(sender, entry, partition)?;
        let isr = self.check_isr(sender, entry, partition)?;

        let event = PartitionEvent {
            isr: Some(isr),
            recovery_state: Some(entry.recovery_state),
            ..PartitionEvent::default()
        };
        let default = self.config.unclean_leader_election_enable;
        let rules = super::leader_election::ElectionRules {
            effective_min_isr: self.image.effective_min_isr(topic, partition.replicas.len()),
            active_directory: &|id| self.active_directory(id),
            allows_unclean: self.image.allows_unclean_election(topic, default),
        };
        let change = super::leader_election::settle(topic_id, number, partition, &event, &rules);
        let after = match change {
            None => partition.clone(), // it is so already: a proposal sent twice
            Some(change) => {
                let after =
                    partition.merge(&change).map_err(AlterPartitionError::InvalidRequest)?;
                records.push(MetadataRecord::PartitionChange(change));
                after
            }
        };
        Ok(AlteredPartition {
            leader: after.leader,
            leader_epoch: after.leader_epoch,
            isr: after.isr,
            recovery_state: after.recovery_state,
            partition_epoch: after.partition_epoch,
        })
    }

    /// The proposed ISR's members, if they may be in it.
    fn check_isr(
        &self,
        sender: BrokerId,
        entry: &AlterPartitionEntry,
        partition: &PartitionRegistration,
    ) -> Result<Vec<BrokerId>, AlterPartitionError> {
        let invalid = |what| Err(AlterPartitionError::InvalidRequest(what));
        let isr: BTreeSet<BrokerId> = entry.new_isr.iter().map(|&(id, _)| id).collect();
        if isr.len() < entry.new_isr.len() || !isr.iter().all(|&id| partition.has_replica(id)) {
            return invalid("the ISR is not a set of replicas");
        }
        if !isr.contains(&sender) {
            return invalid("the ISR lacks the leader");
        }
        if entry.recovery_state == LeaderRecoveryState::Recovering {
            if isr.len() > 1 {
                return invalid("the ISR has other members while the leader recovers");
            }
            if partition.recovery_state == LeaderRecoveryState::Recovered {
                return invalid("a leader that has recovered cannot be recovering");
            }
        }
        for &(broker_id, broker_epoch) in &entry.new_isr {
            let ineligible = |reason| AlterPartitionError::IneligibleReplica { broker_id, reason };
            let broker = self.image.broker(broker_id);
            let broker = broker.ok_or_else(|| ineligible("it is not registered"))?;
            if broker.is_fenced {
                return Err(ineligible("it is fenced"));
            }
            if broker.is_in_controlled_shutdown {
                return Err(ineligible("it is shutting down"));
            }
            if broker_epoch.is_some_and(|epoch| epoch != broker.broker_epoch) {
                return Err(ineligible("it has registered again since"));
            }
            if partition.directory_of(broker_id) != Some(broker.directory_id) {
                return Err(ineligible("its replica is on another directory"));
            }
        }
        Ok(isr.into_iter().collect())
    }
}

fn check_epochs(
    sender: BrokerId,
    entry: &AlterPartitionEntry,
    partition: &PartitionRegistration,
) -> Result<(), AlterPartitionError> {
    if entry.leader_epoch > partition.leader_epoch
        || entry.partition_epoch > partition.partition_epoch
    {
        return Err(AlterPartitionError::NotController);
    }
    if entry.leader_epoch < partition.leader_epoch {
        let (found, current) = (entry.leader_epoch, partition.leader_epoch);
        return Err(AlterPartitionError::FencedLeaderEpoch { found, current });
    }
    if partition.leader != Some(sender) {
        return Err(AlterPartitionError::InvalidRequest("the sender is not the leader"));
    }
    if entry.partition_epoch < partition.partition_epoch {
        let (found, current) = (entry.partition_epoch, partition.partition_epoch);
        return Err(AlterPartitionError::InvalidUpdateVersion { found, current });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controller::testing::{TestCluster, broker, brokers};

    fn cluster() -> (TestCluster, TopicId) {
        let mut cluster = TestCluster::new();
        for id in [1, 2, 3] {
            cluster.start(id, false);
        }
        let topic_id = cluster.create("t", &[1, 2, 3], &[]);
        (cluster, topic_id)
    }

    /// The error of a proposal of ISR {1, 2} with this changed.
    fn error(
        cluster: &TestCluster,
        topic_id: TopicId,
        change: impl Fn(&mut AlterPartition),
    ) -> AlterPartitionError {
        let mut request = cluster.isr_request(topic_id, &[1, 2]);
        change(&mut request);
        let mut decided = cluster.controller.alter_partition(&request).unwrap();
        assert_eq!(decided.records, []);
        decided.response.remove(0).result.unwrap_err()
    }

    #[test]
    fn an_accepted_isr_is_answered_as_it_will_stand() {
        let (mut cluster, topic_id) = cluster();
        let answer = cluster.alter_isr(topic_id, &[2, 1]).unwrap();
        let partition = cluster.partition(topic_id);
        assert_eq!(answer.isr, brokers(&[1, 2]), "in assignment order");
        assert_eq!(answer.partition_epoch, partition.partition_epoch);
        assert_eq!(
            (answer.leader, answer.leader_epoch),
            (partition.leader, partition.leader_epoch)
        );
    }

    #[test]
    fn an_isr_that_stands_already_changes_nothing() {
        let (cluster, topic_id) = cluster();
        let request = cluster.isr_request(topic_id, &[1, 2, 3]);
        let decided = cluster.controller.alter_partition(&request).unwrap();
        assert_eq!(decided.records, []);
        assert!(decided.response[0].result.is_ok());
    }

    #[test]
    fn a_stale_broker_epoch_refuses_the_whole_request() {
        let (mut cluster, topic_id) = cluster();
        let stale = cluster.isr_request(topic_id, &[1]);
        cluster.register(1, true);
        let error = cluster.controller.alter_partition(&stale).unwrap_err();
        assert_eq!((error.broker_id, error.found), (broker(1), stale.broker_epoch));
    }

    #[test]
    fn unknown_topics_and_partitions_are_told_apart() {
        let (cluster, topic_id) = cluster();
        let other = TopicId::from_bytes([9; 16]);
        let unknown = error(&cluster, topic_id, |r| r.partitions[0].topic_id = other);
        assert_eq!(unknown, AlterPartitionError::UnknownTopicId { topic_id: other });
        let unknown = error(&cluster, topic_id, |r| r.partitions[0].partition = 1);
        assert_eq!(unknown, AlterPartitionError::UnknownPartition { topic_id, partition: 1 });
    }

    #[test]
    fn epochs_decide_before_anything_else() {
        let (mut cluster, topic_id) = cluster();
        let first = cluster.partition(topic_id);
        cluster.fence(&[1]); // 2 leads, epoch 1
        let current = cluster.partition(topic_id);
        let later = error(&cluster, topic_id, |r| {
            r.partitions[0].leader_epoch = current.leader_epoch.next();
        });
        assert_eq!(later, AlterPartitionError::NotController);
        let later = error(&cluster, topic_id, |r| {
            r.partitions[0].partition_epoch = current.partition_epoch.checked_next().unwrap();
        });
        assert_eq!(later, AlterPartitionError::NotController);
        let old = error(&cluster, topic_id, |r| r.partitions[0].leader_epoch = first.leader_epoch);
        let (found, current_epoch) = (first.leader_epoch, current.leader_epoch);
        assert_eq!(old, AlterPartitionError::FencedLeaderEpoch { found, current: current_epoch });
        let old =
            error(&cluster, topic_id, |r| r.partitions[0].partition_epoch = first.partition_epoch);
        let (found, current) = (first.partition_epoch, current.partition_epoch);
        assert_eq!(old, AlterPartitionError::InvalidUpdateVersion { found, current });
    }

    #[test]
    fn proposals_that_make_no_sense_are_refused() {
        let (cluster, topic_id) = cluster();
        let invalid = |change: &dyn Fn(&mut AlterPartition)| match error(&cluster, topic_id, change)
        {
            AlterPartitionError::InvalidRequest(what) => what,
            other => panic!("{other}"),
        };
        let not_leader = invalid(&|r| {
            r.broker_id = broker(2);
            r.broker_epoch = cluster.image().broker(broker(2)).unwrap().broker_epoch;
        });
        assert_eq!(not_leader, "the sender is not the leader");
        let isr = |ids: &'static [i32]| {
            move |r: &mut AlterPartition| {
                r.partitions[0].new_isr = ids.iter().map(|&id| (broker(id), None)).collect();
            }
        };
        assert_eq!(invalid(&isr(&[2, 3])), "the ISR lacks the leader");
        assert_eq!(invalid(&isr(&[])), "the ISR lacks the leader");
        assert_eq!(invalid(&isr(&[1, 9])), "the ISR is not a set of replicas");
        assert_eq!(invalid(&isr(&[1, 1])), "the ISR is not a set of replicas");
        let recovering = |ids: &'static [i32]| {
            move |r: &mut AlterPartition| {
                isr(ids)(r);
                r.partitions[0].recovery_state = LeaderRecoveryState::Recovering;
            }
        };
        assert!(invalid(&recovering(&[1, 2])).contains("other members"));
        assert!(invalid(&recovering(&[1])).contains("has recovered"));
    }

    #[test]
    fn a_partition_named_twice_is_decided_once() {
        let (cluster, topic_id) = cluster();
        let mut request = cluster.isr_request(topic_id, &[1, 2]);
        request.partitions.push(request.partitions[0].clone());
        let decided = cluster.controller.alter_partition(&request).unwrap();
        assert_eq!(decided.records.len(), 1);
        assert!(decided.response[0].result.is_ok() && decided.response[1].result.is_err());
    }

    #[test]
    fn members_that_may_not_join_are_named() {
        let (mut cluster, topic_id) = cluster();
        let reason = |cluster: &TestCluster, epoch| {
            let change = |r: &mut AlterPartition| {
                r.partitions[0].new_isr = vec![(broker(1), None), (broker(3), epoch)];
            };
            match error(cluster, topic_id, change) {
                AlterPartitionError::IneligibleReplica { broker_id, reason } => {
                    assert_eq!(broker_id, broker(3));
                    reason
                }
                other => panic!("{other}"),
            }
        };
        let old = cluster.image().broker(broker(3)).unwrap().broker_epoch;
        cluster.shut_down(3);
        assert_eq!(reason(&cluster, None), "it is shutting down");
        cluster.register(3, true);
        assert_eq!(reason(&cluster, None), "it is fenced");
        cluster.unfence(3);
        assert_eq!(reason(&cluster, Some(old)), "it has registered again since");
        let decided = cluster.controller.unregister_broker(broker(3)).unwrap();
        cluster.commit(decided);
        assert_eq!(reason(&cluster, None), "it is not registered");
    }
}
