//! Who leads a partition, and who stays eligible (Kafka's `PartitionChangeBuilder`, KIP-966, DESIGN D1).
//!
//! Every change of an ISR, a registration or a min ISR goes through [`settle`], so the rules stand here once:
//! - The leader stays while it is in the ISR and active. Else the first active member of the ISR in assignment
//!   order leads; else, the ISR being empty, the first active eligible leader replica, alone in the ISR.
//! - Eligible leader replicas: what leaves an ISR that is then below the effective min ISR. The high
//!   watermark cannot move before the ISR is back at min ISR, so they lack nothing that was visible; at that
//!   moment all are dropped. A member that stopped uncleanly, or whose directory is gone, is none.
//! - Only when ISR **and** ELR are empty sets (not merely offline) the last known leader is elected: it led when
//!   the ISR emptied, so it has all that was acknowledged, unless its machine lost unflushed data. It counts as
//!   unclean. So a lone replica survives its own kill -9, and none overtakes one that is only down.
//! - Then, where the topic allows it, any active replica: unclean.

use std::collections::BTreeSet;

use storage::topic_partition::TopicId;

use super::Controller;
use crate::identity::{BrokerId, DirectoryId};
use crate::metadata::record::PartitionChangeRecord;
use crate::metadata::{
    LeaderRecoveryState, MetadataRecord, PartitionRegistration, Replica, TopicImage,
};

/// What happens to one partition.
#[derive(Default)]
pub(super) struct PartitionEvent {
    /// The new ISR; `None`: as it is. Inactive members leave in any case.
    pub isr: Option<Vec<BrokerId>>,
    /// A broker that may have lost what it had not flushed: out of ISR and ELR, though it may be elected as
    /// the last known leader.
    pub stopped_uncleanly: Option<BrokerId>,
    /// A broker whose log directory may be another than the recorded one: then it has no seat at all.
    pub directory: Option<(BrokerId, DirectoryId)>,
    /// The leader says whether it has recovered.
    pub recovery_state: Option<LeaderRecoveryState>,
}

/// What the election must know.
pub(super) struct ElectionRules<'a> {
    /// min(configured, replicas).
    pub effective_min_isr: usize,
    /// The directory of a broker that is unfenced and not leaving.
    pub active_directory: &'a dyn Fn(BrokerId) -> Option<DirectoryId>,
    /// `unclean.leader.election.enable`.
    pub allows_unclean: bool,
}

/// The change that `event` makes to a partition; `None` if it makes none.
pub(super) fn settle(
    topic_id: TopicId,
    partition: i32,
    before: &PartitionRegistration,
    event: &PartitionEvent,
    rules: &ElectionRules<'_>,
) -> Option<PartitionChangeRecord> {
    let mut replicas = before.replicas.clone();
    let mut directory_lost = None;
    if let Some((broker, directory)) = event.directory
        && let Some(replica) = replicas.iter_mut().find(|replica| replica.broker == broker)
        && replica.directory != directory
    {
        replica.directory = directory;
        directory_lost = Some(broker);
    }
    let members = |is_member: &dyn Fn(BrokerId) -> bool| -> Vec<BrokerId> {
        replicas.iter().map(|replica| replica.broker).filter(|&id| is_member(id)).collect()
    };
    let is_lost = |id: BrokerId| directory_lost == Some(id);
    let is_unclean = |id: BrokerId| is_lost(id) || event.stopped_uncleanly == Some(id);
    let is_candidate =
        |replica: &Replica| (rules.active_directory)(replica.broker) == Some(replica.directory);
    let candidates: BTreeSet<BrokerId> =
        replicas.iter().filter(|replica| is_candidate(replica)).map(|r| r.broker).collect();

    let wanted = event.isr.as_ref().unwrap_or(&before.isr);
    let mut isr =
        members(&|id| wanted.contains(&id) && candidates.contains(&id) && !is_unclean(id));
    // Whatever stood in either set and is not in the new ISR; dropped below if the ISR suffices.
    let mut elr = members(&|id| {
        (before.isr.contains(&id) || before.elr.contains(&id))
            && !isr.contains(&id)
            && !is_unclean(id)
    });
    if isr.len() >= rules.effective_min_isr {
        elr.clear();
    }
    let mut last_known_leader = match before.isr.is_empty() {
        true => before.last_known_leader,
        false => before.leader, // all members leave in this change, or the field is cleared below
    };
    last_known_leader = last_known_leader.filter(|&id| !is_lost(id));

    let keeps_leader = before.leader.filter(|leader| isr.contains(leader));
    let mut elected_uncleanly = false;
    let leader = keeps_leader.or_else(|| {
        if let Some(&first) = isr.first() {
            return Some(first); // every member is a candidate
        }
        let first = elr.iter().copied().find(|id| candidates.contains(id)).or_else(|| {
            elected_uncleanly = true;
            let last = last_known_leader.filter(|id| elr.is_empty() && candidates.contains(id));
            last.or_else(|| {
                let mut active = members(&|id| rules.allows_unclean && candidates.contains(&id));
                // One whose directory is new holds nothing; it comes last.
                active.sort_by_key(|&id| is_lost(id));
                active.first().copied()
            })
        });
        isr.extend(first);
        elr.retain(|&id| Some(id) != first);
        if isr.len() >= rules.effective_min_isr {
            elr.clear();
        }
        first
    });
    if !isr.is_empty() {
        last_known_leader = None;
    }
    let recovery_state = match (leader, elected_uncleanly) {
        (Some(_), true) => LeaderRecoveryState::Recovering,
        _ => event.recovery_state.unwrap_or(before.recovery_state),
    };

    let mut change = PartitionChangeRecord::new(topic_id, partition);
    // Re-elected after losing its seat, it leads in a new epoch, although it is the same broker.
    change.leader =
        (keeps_leader.is_none() && (leader, before.leader) != (None, None)).then_some(leader);
    change.isr = (isr != before.isr).then_some(isr);
    change.elr = (elr != before.elr).then_some(elr);
    change.last_known_leader =
        (last_known_leader != before.last_known_leader).then_some(last_known_leader);
    change.replicas = (replicas != before.replicas).then_some(replicas);
    change.recovery_state = (recovery_state != before.recovery_state).then_some(recovery_state);
    (!change.is_empty()).then_some(change)
}

impl Controller {
    /// Settles every partition for which `event` names something, as if `active_directory` were the brokers'
    /// registrations. In the order of topic ids and partitions.
    pub(super) fn settle_partitions(
        &self,
        event: impl Fn(&PartitionRegistration) -> Option<PartitionEvent>,
        active_directory: impl Fn(BrokerId) -> Option<DirectoryId>,
    ) -> Vec<MetadataRecord> {
        let mut records = Vec::new();
        for (_, topic) in self.image.topics() {
            let min_isr = self.image.min_insync_replicas(topic);
            self.settle_topic(topic, min_isr, &event, &active_directory, &mut records);
        }
        records
    }

    /// Settles one topic's partitions under `min_isr`, before it is capped by the number of replicas.
    pub(super) fn settle_topic(
        &self,
        topic: &TopicImage,
        min_isr: usize,
        event: &dyn Fn(&PartitionRegistration) -> Option<PartitionEvent>,
        active_directory: &dyn Fn(BrokerId) -> Option<DirectoryId>,
        records: &mut Vec<MetadataRecord>,
    ) {
        let default = self.config.unclean_leader_election_enable;
        let allows_unclean = self.image.allows_unclean_election(topic, default);
        for (number, partition) in topic.partitions() {
            let Some(event) = event(partition) else { continue };
            let effective_min_isr = min_isr.min(partition.replicas.len());
            let rules = ElectionRules { effective_min_isr, active_directory, allows_unclean };
            let change = settle(topic.topic_id, number, partition, &event, &rules);
            records.extend(change.map(MetadataRecord::PartitionChange));
        }
    }

    /// The directory of `broker_id`, if it is active.
    pub(super) fn active_directory(&self, broker_id: BrokerId) -> Option<DirectoryId> {
        let broker = self.image.broker(broker_id)?;
        broker.is_active().then_some(broker.directory_id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controller::ConfigTarget;
    use crate::controller::testing::{TestCluster, broker, brokers};
    use crate::metadata::MIN_INSYNC_REPLICAS;

    fn three() -> (TestCluster, TopicId) {
        let mut cluster = TestCluster::new();
        for id in [1, 2, 3] {
            cluster.start(id, false);
        }
        let topic_id = cluster.create("t", &[1, 2, 3], &[(MIN_INSYNC_REPLICAS, "2")]);
        (cluster, topic_id)
    }

    #[test]
    fn who_leaves_while_the_isr_suffices_is_not_eligible_and_who_leaves_later_is() {
        let (mut cluster, topic_id) = three();
        cluster.fence(&[2]);
        let partition = cluster.partition(topic_id);
        assert_eq!((partition.isr, partition.elr), (brokers(&[1, 3]), vec![]));
        cluster.fence(&[2, 3]);
        let partition = cluster.partition(topic_id);
        assert_eq!((partition.isr, partition.elr), (brokers(&[1]), brokers(&[3])));
        cluster.fence(&[1, 2, 3]);
        let partition = cluster.partition(topic_id);
        assert_eq!((partition.leader, &*partition.isr), (None, &[][..]));
        assert_eq!(
            (partition.elr, partition.last_known_leader),
            (brokers(&[1, 3]), Some(broker(1)))
        );
    }

    #[test]
    fn an_eligible_replica_leads_cleanly_and_a_back_at_min_isr_ends_eligibility() {
        let (mut cluster, topic_id) = three();
        cluster.fence(&[1, 2, 3]);
        assert_eq!(cluster.partition(topic_id).elr, brokers(&[1, 2, 3]));
        cluster.start(2, true);
        let partition = cluster.partition(topic_id);
        assert_eq!((partition.leader, partition.last_known_leader), (Some(broker(2)), None));
        assert_eq!((partition.isr, partition.elr), (brokers(&[2]), brokers(&[1, 3])));
        assert_eq!(partition.recovery_state, LeaderRecoveryState::Recovered);
        cluster.start(3, true);
        cluster.alter_isr(topic_id, &[2, 3]).unwrap();
        let partition = cluster.partition(topic_id);
        assert_eq!((partition.isr, partition.elr), (brokers(&[2, 3]), vec![]));
    }

    #[test]
    fn the_last_known_leader_waits_for_an_eligible_replica_that_is_only_down() {
        let (mut cluster, topic_id) = three();
        cluster.fence(&[3]);
        cluster.fence(&[1, 2, 3]); // 1 led when 1 and 2 left together
        cluster.start(1, false); // unclean: no longer eligible, yet it led last
        let partition = cluster.partition(topic_id);
        assert_eq!((partition.leader, partition.elr), (None, brokers(&[2])));
        assert_eq!(partition.last_known_leader, Some(broker(1)));
        cluster.start(2, false); // unclean as well: now nobody is eligible
        let partition = cluster.partition(topic_id);
        assert_eq!((partition.leader, partition.isr), (Some(broker(1)), brokers(&[1])));
        assert_eq!(partition.recovery_state, LeaderRecoveryState::Recovering);
    }

    #[test]
    fn a_stale_replica_does_not_overtake_the_last_known_leader() {
        let (mut cluster, topic_id) = three();
        cluster.fence(&[3]);
        cluster.fence(&[1, 2, 3]);
        for id in [3, 2] {
            cluster.start(id, false);
            assert_eq!(cluster.partition(topic_id).leader, None, "{id} may lack records");
        }
        cluster.start(1, false);
        assert_eq!(cluster.partition(topic_id).leader, Some(broker(1)));
    }

    #[test]
    fn an_unclean_election_takes_any_active_replica_where_the_topic_allows_it() {
        let (mut cluster, topic_id) = three();
        cluster.fence(&[3]);
        cluster.fence(&[1, 2, 3]);
        cluster.set_config(
            ConfigTarget::Topic("t".into()),
            "unclean.leader.election.enable",
            "true",
        );
        cluster.start(3, true);
        let partition = cluster.partition(topic_id);
        assert_eq!((partition.leader, partition.isr), (Some(broker(3)), brokers(&[3])));
        assert_eq!(partition.recovery_state, LeaderRecoveryState::Recovering);
        cluster.alter_isr(topic_id, &[3]).unwrap();
        assert_eq!(cluster.partition(topic_id).recovery_state, LeaderRecoveryState::Recovered);
    }

    #[test]
    fn a_leader_that_stays_keeps_its_epoch() {
        let (mut cluster, topic_id) = three();
        let before = cluster.partition(topic_id);
        cluster.alter_isr(topic_id, &[1, 3]).unwrap();
        let after = cluster.partition(topic_id);
        assert_eq!(after.leader_epoch, before.leader_epoch);
        assert_eq!(Some(after.partition_epoch), before.partition_epoch.checked_next());
    }

    #[test]
    fn lowering_the_min_isr_ends_eligibility_in_the_same_entry() {
        for target in [ConfigTarget::Topic("t".into()), ConfigTarget::Cluster] {
            let mut cluster = TestCluster::with(|config| config.min_insync_replicas = 2);
            for id in [1, 2, 3] {
                cluster.start(id, false);
            }
            let topic_id = cluster.create("t", &[1, 2, 3], &[]);
            cluster.alter_isr(topic_id, &[1]).unwrap();
            assert_eq!(cluster.partition(topic_id).elr, brokers(&[2, 3]));
            let index = cluster.image().position().index;
            cluster.set_config(target, MIN_INSYNC_REPLICAS, "1");
            assert_eq!(cluster.image().position().index, index + 1);
            assert_eq!(cluster.partition(topic_id).elr, vec![]);
        }
    }

    #[test]
    fn a_lower_min_isr_that_still_exceeds_the_isr_keeps_the_eligible_replicas() {
        let mut cluster = TestCluster::with(|config| config.min_insync_replicas = 3);
        for id in [1, 2, 3] {
            cluster.start(id, false);
        }
        let topic_id = cluster.create("t", &[1, 2, 3], &[]);
        cluster.alter_isr(topic_id, &[1]).unwrap();
        cluster.set_config(ConfigTarget::Cluster, MIN_INSYNC_REPLICAS, "2");
        assert_eq!(
            cluster.partition(topic_id).elr,
            brokers(&[2, 3]),
            "the high watermark still waits"
        );
        cluster.fence(&[1, 2, 3]);
        cluster.set_config(ConfigTarget::Cluster, MIN_INSYNC_REPLICAS, "1");
        assert_eq!(
            cluster.partition(topic_id).elr,
            brokers(&[1, 2, 3]),
            "nobody leads: nothing moves"
        );
    }
}
