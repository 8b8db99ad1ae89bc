//! A controller whose every decision is checked: the bytes of its records read back, replaying them keeps the
//! invariants, snapshots round-trip, deltas name what changed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use storage::instant::Instant;
use storage::topic_partition::TopicId;

use super::*;
use crate::identity::{BrokerEpoch, BrokerId, ClusterId, DirectoryId, IncarnationId};
use crate::metadata::{
    BrokerListener, ConfigMap, LogPosition, MetadataImage, PartitionRegistration, SecurityProtocol,
    decode_records, encode_records,
};

pub(crate) fn broker(id: i32) -> BrokerId {
    BrokerId::new(id).unwrap()
}

pub(crate) fn brokers(ids: &[i32]) -> Vec<BrokerId> {
    ids.iter().map(|&id| broker(id)).collect()
}

/// Accepts what is not called `bad…`; `list…` are lists.
pub(crate) struct TestTable;

impl ConfigValidator for TestTable {
    fn list_default(&self, _: ConfigScope, name: &str) -> Option<String> {
        name.starts_with("list").then(|| "x".to_owned())
    }

    fn validate(
        &self,
        _: ConfigScope,
        _: &ConfigMap,
        after: &ConfigMap,
    ) -> Result<(), ConfigRejection> {
        match after.keys().find(|name| name.starts_with("bad")) {
            Some(name) => Err(ConfigRejection::InvalidConfig(format!("unknown: {name}"))),
            None => Ok(()),
        }
    }
}

pub(crate) struct TestCluster {
    pub(crate) controller: Controller,
    pub(crate) now: Instant,
    index: u64,
    seed: u64,
}

pub(crate) const SESSION: Duration = Duration::from_secs(9);

impl TestCluster {
    pub(crate) fn new() -> TestCluster {
        TestCluster::with(|_| {})
    }

    pub(crate) fn with(change: impl Fn(&mut ControllerConfig)) -> TestCluster {
        let mut config = ControllerConfig {
            default_partitions: 2,
            default_replication_factor: 1,
            min_insync_replicas: 1,
            unclean_leader_election_enable: false,
            session_timeout: SESSION,
        };
        change(&mut config);
        let now = Instant::from_nanos(1_000);
        let image = MetadataImage::empty(ClusterId::new("test").unwrap());
        let position = LogPosition { index: 1, term: 1 };
        let image = image.apply(position.index, position.term, &[]).unwrap().0;
        let controller = Controller::new(config, Arc::new(TestTable), image, now);
        TestCluster { controller, now, index: 1, seed: 0 }
    }

    pub(crate) fn context(&mut self) -> DecisionContext {
        self.seed += 1;
        DecisionContext { now: self.now, seed: [self.seed, 7, 7, 7] }
    }

    pub(crate) fn image(&self) -> &MetadataImage {
        self.controller.image()
    }

    /// Replays a decision as the next entry, and checks all that must hold of any.
    pub(crate) fn commit<T>(&mut self, decided: ControllerResult<T>) -> T {
        let records = decode_records(&encode_records(&decided.records)).unwrap();
        assert_eq!(records, decided.records);
        if records.is_empty() {
            return decided.response;
        }
        self.index += 1;
        let before = self.controller.image().clone();
        let (after, again) = before.apply(self.index, 1, &records).unwrap();
        let delta = self.controller.replay(self.index, 1, &records).unwrap();
        assert_eq!(self.controller.image(), &after, "applying is deterministic");
        assert_eq!(delta, again);
        let between = MetadataDelta::between(&before, &after);
        assert_eq!(delta, between, "no record is written that changes nothing");
        check_image(&after);
        check_step(&before, &after);
        let cluster_id = after.cluster_id().clone();
        let data = after.encode_snapshot();
        let restored = MetadataImage::decode_snapshot(cluster_id, after.position(), &data).unwrap();
        assert_eq!(restored, after, "a snapshot holds the whole image");
        decided.response
    }

    /// Another run of broker `id` on directory `id`; `clean`: its last run stopped cleanly.
    pub(crate) fn registration(&mut self, id: i32, clean: bool) -> RegisterBroker {
        self.seed += 1;
        let previous = self.image().broker(broker(id)).map(|broker| broker.broker_epoch);
        RegisterBroker {
            cluster_id: self.image().cluster_id().clone(),
            broker_id: broker(id),
            incarnation_id: IncarnationId::from_bytes([self.seed as u8; 16]),
            directory_id: DirectoryId::from_bytes([id as u8; 16]),
            previous_broker_epoch: previous.filter(|_| clean),
            rack: None,
            listeners: vec![BrokerListener {
                name: "PLAINTEXT".into(),
                host: "localhost".into(),
                port: 9092,
                protocol: SecurityProtocol::Plaintext,
            }],
            features: supported_features(),
            unfence_at_once: false,
        }
    }

    pub(crate) fn register(&mut self, id: i32, clean: bool) -> BrokerEpoch {
        let request = self.registration(id, clean);
        self.register_with(&request).unwrap()
    }

    pub(crate) fn register_with(
        &mut self,
        request: &RegisterBroker,
    ) -> Result<BrokerEpoch, RegisterBrokerError> {
        let context = self.context();
        let decided = self.controller.register_broker(&context, request)?;
        self.controller.note_contact(request.broker_id, 0, self.now);
        let response = self.commit(decided);
        Ok(response.broker_epoch_at(self.index))
    }

    pub(crate) fn heartbeat(&self, id: i32) -> BrokerHeartbeat {
        let broker = self.image().broker(broker(id)).unwrap();
        BrokerHeartbeat {
            broker_id: broker.broker_id,
            broker_epoch: broker.broker_epoch,
            metadata_index: self.index,
            wants_fence: false,
            wants_shut_down: false,
        }
    }

    pub(crate) fn beat(&mut self, heartbeat: BrokerHeartbeat) -> BrokerHeartbeatResponse {
        self.controller.note_contact(heartbeat.broker_id, heartbeat.metadata_index, self.now);
        let decided = self.controller.broker_heartbeat(&heartbeat).unwrap();
        self.commit(decided)
    }

    pub(crate) fn unfence(&mut self, id: i32) {
        let heartbeat = self.heartbeat(id);
        assert!(!self.beat(heartbeat).is_fenced);
    }

    /// Registers and unfences.
    pub(crate) fn start(&mut self, id: i32, clean: bool) {
        self.register(id, clean);
        self.unfence(id);
    }

    /// Its process is seen dead.
    pub(crate) fn fence(&mut self, ids: &[i32]) {
        // All at once, as when their sessions end together.
        self.now = self.now.plus(SESSION);
        for broker in self.image().clone().brokers() {
            if !ids.contains(&broker.broker_id.value()) {
                self.controller.note_contact(broker.broker_id, 0, self.now);
            }
        }
        let context = self.context();
        let decided = self.controller.expire_sessions(&context);
        self.commit(decided);
    }

    pub(crate) fn shut_down(&mut self, id: i32) -> bool {
        let heartbeat = BrokerHeartbeat { wants_shut_down: true, ..self.heartbeat(id) };
        self.beat(heartbeat).should_shut_down
    }

    /// Creates a topic with one partition on these brokers.
    pub(crate) fn create(
        &mut self,
        name: &str,
        replicas: &[i32],
        configs: &[(&str, &str)],
    ) -> TopicId {
        let assignment = ManualAssignment { partition: 0, brokers: replicas.to_vec() };
        let configs = configs.iter().map(|&(name, value)| (name.into(), Some(value.into())));
        let topic = NewTopic {
            name: name.into(),
            partition_count: None,
            replication_factor: None,
            assignments: vec![assignment],
            configs: configs.collect(),
        };
        self.create_with(vec![topic]).remove(0).unwrap().topic_id
    }

    pub(crate) fn create_with(
        &mut self,
        topics: Vec<NewTopic>,
    ) -> Vec<Result<CreatedTopic, CreateTopicError>> {
        let context = self.context();
        let request = CreateTopics { topics, validate_only: false };
        let decided = self.controller.create_topics(&context, &request).unwrap();
        self.commit(decided).into_iter().map(|(_, result)| result).collect()
    }

    pub(crate) fn partition(&self, topic_id: TopicId) -> PartitionRegistration {
        self.image().partition(topic_id, 0).unwrap().clone()
    }

    /// The leader proposes this ISR.
    pub(crate) fn alter_isr(
        &mut self,
        topic_id: TopicId,
        isr: &[i32],
    ) -> Result<AlteredPartition, AlterPartitionError> {
        let request = self.isr_request(topic_id, isr);
        let decided = self.controller.alter_partition(&request).unwrap();
        self.commit(decided).remove(0).result
    }

    pub(crate) fn isr_request(&self, topic_id: TopicId, isr: &[i32]) -> AlterPartition {
        let partition = self.partition(topic_id);
        let leader = partition.leader.unwrap();
        AlterPartition {
            broker_id: leader,
            broker_epoch: self.image().broker(leader).unwrap().broker_epoch,
            partitions: vec![AlterPartitionEntry {
                topic_id,
                partition: 0,
                leader_epoch: partition.leader_epoch,
                partition_epoch: partition.partition_epoch,
                new_isr: isr.iter().map(|&id| (broker(id), None)).collect(),
                recovery_state: crate::metadata::LeaderRecoveryState::Recovered,
            }],
        }
    }

    pub(crate) fn set_config(&mut self, target: ConfigTarget, name: &str, value: &str) {
        let change = ConfigChange {
            name: name.into(),
            operation: ConfigOperation::Set,
            value: Some(value.into()),
        };
        let resources = vec![(target, vec![change])];
        let request = AlterConfigs { resources, validate_only: false };
        let decided = self.controller.incremental_alter_configs(&request);
        self.commit(decided).remove(0).1.unwrap();
    }
}

fn check_image(image: &MetadataImage) {
    let mut names = BTreeSet::new();
    for (topic_id, topic) in image.topics() {
        assert!(names.insert(topic.name.clone()), "two topics are called {}", topic.name);
        assert_eq!(image.topic_by_name(&topic.name).map(|t| t.topic_id), Some(topic_id));
        for (number, partition) in topic.partitions() {
            let place = format!("{}-{number}: {partition:?}", topic.name);
            assert_eq!(partition.check(), Ok(()), "{place}");
            assert!(partition.isr.iter().all(|&id| image.is_active(id)), "inactive in ISR {place}");
            for replica in &partition.replicas {
                let is_seated = partition.isr.contains(&replica.broker)
                    || partition.elr.contains(&replica.broker)
                    || partition.last_known_leader == Some(replica.broker);
                if let Some(broker) = image.broker(replica.broker) {
                    let same = broker.directory_id == replica.directory;
                    assert!(same || !is_seated, "seat on another directory {place}");
                }
            }
        }
    }
    assert_eq!(image.topics_by_name().count(), names.len());
}

fn check_step(before: &MetadataImage, after: &MetadataImage) {
    for (topic_id, topic) in after.topics() {
        let Some(earlier) = before.topic(topic_id) else { continue };
        for (number, partition) in topic.partitions() {
            let Some(old) = earlier.partition(number) else { continue };
            assert!(partition.leader_epoch >= old.leader_epoch);
            assert!(partition.partition_epoch >= old.partition_epoch);
            assert!(old == partition || partition.partition_epoch > old.partition_epoch);
            if partition.leader != old.leader {
                assert!(partition.leader_epoch > old.leader_epoch, "two leaders in one epoch");
            }
            // A broker that registered again leads only in a new epoch.
            if let Some(leader) = partition.leader
                && before.broker(leader).map(|b| b.broker_epoch)
                    != after.broker(leader).map(|b| b.broker_epoch)
            {
                assert!(partition.leader_epoch > old.leader_epoch, "led on after a restart");
            }
        }
    }
    let epochs = |image: &MetadataImage| -> BTreeMap<BrokerId, BrokerEpoch> {
        image.brokers().map(|broker| (broker.broker_id, broker.broker_epoch)).collect()
    };
    let old = epochs(before);
    for (id, epoch) in epochs(after) {
        assert!(old.get(&id).is_none_or(|&old| epoch >= old), "broker epoch of {id} went back");
    }
    assert!(after.next_producer_id() >= before.next_producer_id());
}
