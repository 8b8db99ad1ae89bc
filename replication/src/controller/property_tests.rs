//! Any sequence of requests keeps what must hold of every image and every step; the checks stand in
//! [`TestCluster::commit`].

use proptest::prelude::*;

use super::testing::{TestCluster, broker};
use super::*;
use crate::identity::DirectoryId;
use crate::metadata::MIN_INSYNC_REPLICAS;

#[derive(Clone, Debug)]
enum Request {
    Register { id: i32, clean: bool, wiped: bool, at_once: bool },
    Heartbeat { id: i32, wants_fence: bool, wants_shut_down: bool },
    Silence(Vec<i32>),
    Unregister(i32),
    Create { name: usize, partitions: i32, factor: i16 },
    Grow { name: usize, count: i32 },
    Delete(usize),
    Isr { name: usize, partition: i32, isr: Vec<i32>, recovering: bool },
    Config { name: Option<usize>, key: usize, value: Option<u8> },
    Replace { name: Option<usize>, min_isr: Option<u8> },
    ProducerIds(i32),
}

const NAMES: [&str; 4] = ["a", "b.c", "b_c", "d"];
const KEYS: [&str; 3] = [MIN_INSYNC_REPLICAS, "unclean.leader.election.enable", "list.of.things"];

fn arb_request() -> impl Strategy<Value = Request> {
    let id = 1i32..5;
    let name = 0..NAMES.len();
    let any_name = proptest::option::of(0..NAMES.len());
    let ids = || proptest::sample::subsequence(vec![1, 2, 3, 4], 0..=4);
    prop_oneof![
        3 => (id.clone(), any::<bool>(), proptest::bool::weighted(0.2), any::<bool>())
            .prop_map(|(id, clean, wiped, at_once)| Request::Register { id, clean, wiped, at_once }),
        6 => (id.clone(), proptest::bool::weighted(0.1), proptest::bool::weighted(0.2)).prop_map(
            |(id, wants_fence, wants_shut_down)| Request::Heartbeat { id, wants_fence, wants_shut_down }
        ),
        2 => ids().prop_map(Request::Silence),
        1 => id.clone().prop_map(Request::Unregister),
        3 => (name.clone(), -1i32..4, -1i16..5)
            .prop_map(|(name, partitions, factor)| Request::Create { name, partitions, factor }),
        1 => (name.clone(), 0i32..6).prop_map(|(name, count)| Request::Grow { name, count }),
        1 => name.clone().prop_map(Request::Delete),
        6 => (name, 0i32..3, ids(), proptest::bool::weighted(0.1)).prop_map(
            |(name, partition, isr, recovering)| Request::Isr { name, partition, isr, recovering }
        ),
        2 => (any_name.clone(), 0..KEYS.len(), proptest::option::of(0u8..5))
            .prop_map(|(name, key, value)| Request::Config { name, key, value }),
        1 => (any_name, proptest::option::of(0u8..5))
            .prop_map(|(name, min_isr)| Request::Replace { name, min_isr }),
        1 => id.prop_map(Request::ProducerIds),
    ]
}

fn target(name: Option<usize>) -> ConfigTarget {
    name.map_or(ConfigTarget::Cluster, |name| ConfigTarget::Topic(NAMES[name].into()))
}

fn perform(cluster: &mut TestCluster, request: Request) {
    match request {
        Request::Register { id, clean, wiped, at_once } => {
            let mut request = cluster.registration(id, clean);
            request.unfence_at_once = at_once;
            if wiped {
                request.directory_id = DirectoryId::from_bytes(*request.incarnation_id.as_bytes());
            } else if let Some(old) = cluster.image().broker(broker(id)) {
                request.directory_id = old.directory_id;
            }
            let _ = cluster.register_with(&request);
        }
        Request::Heartbeat { id, wants_fence, wants_shut_down } => {
            if cluster.image().broker(broker(id)).is_some() {
                let heartbeat = cluster.heartbeat(id);
                cluster.beat(BrokerHeartbeat { wants_fence, wants_shut_down, ..heartbeat });
            }
        }
        Request::Silence(ids) => cluster.fence(&ids),
        Request::Unregister(id) => {
            if let Ok(decided) = cluster.controller.unregister_broker(broker(id)) {
                cluster.commit(decided);
            }
        }
        Request::Create { name, partitions, factor } => {
            let topic = NewTopic {
                name: NAMES[name].into(),
                partition_count: Some(partitions),
                replication_factor: Some(factor),
                assignments: Vec::new(),
                configs: Vec::new(),
            };
            cluster.create_with(vec![topic]);
        }
        Request::Grow { name, count } => {
            let topics = vec![NewPartitions { name: NAMES[name].into(), count, assignments: None }];
            let context = cluster.context();
            let request = CreatePartitions { topics, validate_only: false };
            let decided = cluster.controller.create_partitions(&context, &request).unwrap();
            cluster.commit(decided);
        }
        Request::Delete(name) => {
            let decided = cluster.controller.delete_topics(&[TopicRef::Name(NAMES[name].into())]);
            cluster.commit(decided);
        }
        Request::Isr { name, partition, isr, recovering } => {
            let Some(topic) = cluster.image().topic_by_name(NAMES[name]).cloned() else { return };
            let Some(current) = topic.partition(partition) else { return };
            let Some(leader) = current.leader else { return };
            let entry = AlterPartitionEntry {
                topic_id: topic.topic_id,
                partition,
                leader_epoch: current.leader_epoch,
                partition_epoch: current.partition_epoch,
                new_isr: isr.into_iter().map(|id| (broker(id), None)).collect(),
                recovery_state: match recovering {
                    true => crate::metadata::LeaderRecoveryState::Recovering,
                    false => crate::metadata::LeaderRecoveryState::Recovered,
                },
            };
            let broker_epoch = cluster.image().broker(leader).unwrap().broker_epoch;
            let request =
                AlterPartition { broker_id: leader, broker_epoch, partitions: vec![entry] };
            let decided = cluster.controller.alter_partition(&request).unwrap();
            let after = cluster.commit(decided).remove(0).result;
            if let Ok(after) = after {
                let now = cluster.image().partition(topic.topic_id, partition).unwrap();
                assert_eq!((&after.isr, after.partition_epoch), (&now.isr, now.partition_epoch));
            }
        }
        Request::Config { name, key, value } => {
            let value: Option<Arc<str>> = value.map(|value| match key {
                1 => (value > 2).to_string().into(),
                _ => value.to_string().into(),
            });
            let operation = match (&value, key) {
                (None, _) => ConfigOperation::Delete,
                (Some(_), 2) => ConfigOperation::Append,
                (Some(_), _) => ConfigOperation::Set,
            };
            let change = ConfigChange { name: KEYS[key].into(), operation, value };
            let request = AlterConfigs {
                resources: vec![(target(name), vec![change])],
                validate_only: false,
            };
            let decided = cluster.controller.incremental_alter_configs(&request);
            cluster.commit(decided);
        }
        Request::Replace { name, min_isr } => {
            let configs = min_isr.map(|value| ConfigReplacement {
                name: MIN_INSYNC_REPLICAS.into(),
                value: Some(value.to_string().into()),
            });
            let resources = vec![(target(name), configs.into_iter().collect())];
            let request = AlterConfigs { resources, validate_only: false };
            let decided = cluster.controller.alter_configs(&request);
            cluster.commit(decided);
        }
        Request::ProducerIds(id) => {
            let epoch = cluster.image().broker(broker(id)).map(|broker| broker.broker_epoch);
            let Some(epoch) = epoch else { return };
            let decided = cluster.controller.allocate_producer_ids(broker(id), epoch).unwrap();
            cluster.commit(decided);
        }
    }
}

/// ELR members are only where the ISR is below the min ISR, or the min ISR was raised after they left.
fn check_eligible(cluster: &TestCluster) {
    for (_, topic) in cluster.image().topics() {
        for (number, partition) in topic.partitions() {
            let min_isr = cluster.image().effective_min_isr(topic, partition.replicas.len());
            let is_small = partition.isr.len() < min_isr;
            assert!(is_small || partition.elr.is_empty(), "{}-{number}: {partition:?}", topic.name);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn any_sequence_of_requests_keeps_the_invariants(
        requests in proptest::collection::vec(arb_request(), 1..60), min_isr in 1i32..4
    ) {
        let mut cluster = TestCluster::with(|config| config.min_insync_replicas = min_isr);
        let mut deltas = MetadataDelta::default();
        let start = cluster.image().clone();
        for request in requests {
            let before = cluster.image().clone();
            perform(&mut cluster, request);
            check_eligible(&cluster);
            deltas = deltas.then(MetadataDelta::between(&before, cluster.image()));
        }
        // Deltas put together name at least what a comparison finds, and no other topics.
        let between = MetadataDelta::between(&start, cluster.image());
        prop_assert_eq!(&deltas.topics_created, &between.topics_created);
        prop_assert_eq!(&deltas.topics_deleted, &between.topics_deleted);
        prop_assert!(deltas.brokers_changed.is_superset(&between.brokers_changed));
        prop_assert!(deltas.cluster_configs_changed.is_superset(&between.cluster_configs_changed));
    }
}
