//! CreateTopics, and topics created on demand.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use storage::topic_partition::TopicId;

use super::assignment::new_partition;
use super::{AssignmentError, TooManyPartitions, check_total};
use crate::controller::placement::Placer;
use crate::controller::random::Random;
use crate::controller::topic_name::{CLUSTER_METADATA_TOPIC, check_topic_name, collision_key};
use crate::controller::{
    ConfigRejection, ConfigScope, Controller, ControllerResult, DecisionContext, InvalidTopicName,
    PlacementError,
};
use crate::identity::BrokerId;
use crate::metadata::record::PartitionRecord;
use crate::metadata::{ConfigMap, ConfigResource, MetadataRecord};

/// Topics to create.
#[derive(Clone, Debug)]
pub struct CreateTopics {
    /// The topics, as asked for.
    pub topics: Vec<NewTopic>,
    /// Only say what would happen.
    pub validate_only: bool,
}

/// One topic to create.
#[derive(Clone, Debug)]
pub struct NewTopic {
    /// Its name.
    pub name: Arc<str>,
    /// How many partitions; `None` (-1): the default, or as many as are assigned.
    pub partition_count: Option<i32>,
    /// How many replicas of each; `None` (-1): the default, or as many as are assigned.
    pub replication_factor: Option<i16>,
    /// Replicas chosen by the caller; empty: the controller chooses.
    pub assignments: Vec<ManualAssignment>,
    /// Configurations. A `None` is refused.
    pub configs: Vec<(Arc<str>, Option<Arc<str>>)>,
}

/// One partition's chosen replicas.
#[derive(Clone, Debug)]
pub struct ManualAssignment {
    /// The partition's number.
    pub partition: i32,
    /// Its brokers, the preferred leader first, as the caller wrote them.
    pub brokers: Vec<i32>,
}

/// A created topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreatedTopic {
    /// Its id; with `validate_only` one that nobody will have.
    pub topic_id: TopicId,
    /// How many partitions it has.
    pub partition_count: i32,
    /// How many replicas each has.
    pub replication_factor: i16,
    /// Its own configuration.
    pub configs: ConfigMap,
}

/// Why one topic is not created.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CreateTopicError {
    /// The request names it twice (INVALID_REQUEST).
    #[error("the request names the topic more than once")]
    DuplicateInRequest,
    /// The metadata log is no topic (INVALID_REQUEST).
    #[error("{CLUSTER_METADATA_TOPIC} cannot be created")]
    ClusterMetadata,
    /// No such name is allowed (INVALID_TOPIC_EXCEPTION).
    #[error(transparent)]
    InvalidName(#[from] InvalidTopicName),
    /// It exists (TOPIC_ALREADY_EXISTS).
    #[error("topic already exists")]
    AlreadyExists {
        /// Its id.
        topic_id: TopicId,
    },
    /// A configuration is refused (see [`ConfigRejection`]).
    #[error(transparent)]
    Config(#[from] ConfigRejection),
    /// Counts beside chosen replicas (INVALID_REQUEST).
    #[error("replicas are assigned, so partition count and replication factor must both be -1")]
    CountsWithAssignment,
    /// Chosen replicas are refused (INVALID_REPLICA_ASSIGNMENT).
    #[error(transparent)]
    Assignment(#[from] AssignmentError),
    /// No such number of replicas (INVALID_REPLICATION_FACTOR).
    #[error("replication factor must be at least 1, or -1 for the default; it is {0}")]
    InvalidReplicationFactor(i16),
    /// No such number of partitions (INVALID_PARTITIONS).
    #[error("the number of partitions must be at least 1, or -1 for the default; it is {0}")]
    InvalidPartitionCount(i32),
    /// Not enough brokers (INVALID_REPLICATION_FACTOR).
    #[error(transparent)]
    Placement(#[from] PlacementError),
}

type Created = Vec<(Arc<str>, Result<CreatedTopic, CreateTopicError>)>;

impl Controller {
    /// Decides each topic by itself; all that are created go into one entry. The response has one answer a
    /// name, in the order in which names first occur.
    ///
    /// # Errors
    /// The request is too large as a whole.
    pub fn create_topics(
        &self,
        context: &DecisionContext,
        request: &CreateTopics,
    ) -> Result<ControllerResult<Created>, TooManyPartitions> {
        check_total(request.topics.iter().map(|topic| self.wanted_partitions(topic)))?;
        let mut random = Random::new(context.seed);
        let placer = Placer::new(&self.image);
        let mut names = NewNames::new(self, request);
        let mut ids = BTreeSet::new();
        let mut records = Vec::new();
        let mut response = Vec::new();
        for topic in &request.topics {
            if !names.is_first(&topic.name) {
                continue;
            }
            let topic_id = loop {
                let id = TopicId::from_bytes(random.next_uuid());
                // Kafka's ids do not begin with a dash either: command lines would take it for an option.
                if self.image.topic(id).is_none()
                    && !id.to_string().starts_with('-')
                    && ids.insert(id)
                {
                    break id;
                }
            };
            let start = random.next_u64();
            let result = names
                .check(&topic.name)
                .and_then(|()| self.create_one(topic, topic_id, start, &placer, &mut records));
            response.push((Arc::clone(&topic.name), result));
        }
        if request.validate_only {
            records.clear();
        }
        Ok(ControllerResult { records, response })
    }

    fn wanted_partitions(&self, topic: &NewTopic) -> u64 {
        if !topic.assignments.is_empty() {
            return topic.assignments.len() as u64;
        }
        let count = topic.partition_count.unwrap_or(self.config.default_partitions);
        u64::try_from(count).unwrap_or(0) // a negative count is that topic's own error
    }

    fn create_one(
        &self,
        topic: &NewTopic,
        topic_id: TopicId,
        start: u64,
        placer: &Placer,
        records: &mut Vec<MetadataRecord>,
    ) -> Result<CreatedTopic, CreateTopicError> {
        let configs = self.new_topic_configs(topic)?;
        let assigned = match topic.assignments.is_empty() {
            false => self.assigned_replicas(topic)?,
            true => self.placed_replicas(topic, start, placer)?,
        };
        let created = CreatedTopic {
            topic_id,
            partition_count: i32::try_from(assigned.len()).expect("bounded by the request's limit"),
            replication_factor: i16::try_from(assigned[0].len()).unwrap_or(i16::MAX),
            configs,
        };
        records.push(MetadataRecord::Topic { topic_id, name: Arc::clone(&topic.name) });
        for (name, value) in &created.configs {
            records.push(MetadataRecord::Config {
                resource: ConfigResource::Topic(topic_id),
                name: Arc::clone(name),
                value: Some(Arc::clone(value)),
            });
        }
        for (partition, brokers) in (0..).zip(&assigned) {
            let registration = new_partition(&self.image, brokers);
            records.push(MetadataRecord::Partition(PartitionRecord {
                topic_id,
                partition,
                registration,
            }));
        }
        Ok(created)
    }

    fn new_topic_configs(&self, topic: &NewTopic) -> Result<ConfigMap, ConfigRejection> {
        let mut configs = ConfigMap::new();
        for (name, value) in &topic.configs {
            let Some(value) = value else {
                return Err(ConfigRejection::InvalidConfig(format!("{name} has no value")));
            };
            configs.insert(Arc::clone(name), Arc::clone(value));
        }
        self.check_configs(ConfigScope::Topic, &ConfigMap::new(), &configs)?;
        Ok(configs)
    }

    /// One list of replicas a partition, at least one.
    fn assigned_replicas(&self, topic: &NewTopic) -> Result<Vec<Vec<BrokerId>>, CreateTopicError> {
        if topic.partition_count.is_some() || topic.replication_factor.is_some() {
            return Err(CreateTopicError::CountsWithAssignment);
        }
        let mut assigned: BTreeMap<i32, Vec<BrokerId>> = BTreeMap::new();
        let mut replication_factor = None;
        for ManualAssignment { partition, brokers } in &topic.assignments {
            if assigned.contains_key(partition) {
                return Err(AssignmentError::DuplicatePartition { partition: *partition }.into());
            }
            let replicas = self.check_assignment(*partition, brokers, replication_factor)?;
            replication_factor = Some(replicas.len());
            assigned.insert(*partition, replicas);
        }
        if !(0..).zip(assigned.keys()).all(|(expected, &found)| expected == found) {
            return Err(AssignmentError::NotConsecutive.into());
        }
        Ok(assigned.into_values().collect())
    }

    /// One list of replicas a partition, at least one.
    fn placed_replicas(
        &self,
        topic: &NewTopic,
        start: u64,
        placer: &Placer,
    ) -> Result<Vec<Vec<BrokerId>>, CreateTopicError> {
        let factor = topic.replication_factor.unwrap_or(self.config.default_replication_factor);
        let replicas = usize::try_from(factor).ok().filter(|&replicas| replicas > 0);
        let replicas = replicas.ok_or(CreateTopicError::InvalidReplicationFactor(factor))?;
        let count = topic.partition_count.unwrap_or(self.config.default_partitions);
        let partitions = usize::try_from(count).ok().filter(|&partitions| partitions > 0);
        let partitions = partitions.ok_or(CreateTopicError::InvalidPartitionCount(count))?;
        Ok(placer.place(start, partitions, replicas)?)
    }
}

/// Which names the request may take.
struct NewNames<'a> {
    controller: &'a Controller,
    twice: BTreeSet<&'a str>,
    answered: BTreeSet<&'a str>,
    /// Names that exist, by their collision key.
    collisions: BTreeMap<String, String>,
}

impl<'a> NewNames<'a> {
    fn new(controller: &'a Controller, request: &'a CreateTopics) -> NewNames<'a> {
        let mut once = BTreeSet::new();
        let twice = request.topics.iter().filter(|topic| !once.insert(&*topic.name));
        let twice = twice.map(|topic| &*topic.name).collect();
        let mut collisions = BTreeMap::new();
        if request.topics.iter().any(|topic| collision_key(&topic.name).is_some()) {
            let existing = controller.image.topics_by_name().map(|topic| &*topic.name);
            collisions.extend(existing.filter_map(|n| Some((collision_key(n)?, n.to_owned()))));
        }
        NewNames { controller, twice, answered: BTreeSet::new(), collisions }
    }

    fn is_first(&mut self, name: &'a str) -> bool {
        self.answered.insert(name)
    }

    fn check(&self, name: &str) -> Result<(), CreateTopicError> {
        if self.twice.contains(name) {
            return Err(CreateTopicError::DuplicateInRequest);
        }
        if name == CLUSTER_METADATA_TOPIC {
            return Err(CreateTopicError::ClusterMetadata);
        }
        check_topic_name(name)?;
        if let Some(topic) = self.controller.image.topic_by_name(name) {
            return Err(CreateTopicError::AlreadyExists { topic_id: topic.topic_id });
        }
        match collision_key(name).and_then(|key| self.collisions.get(&key)) {
            Some(existing) => {
                Err(InvalidTopicName::Collision { existing: existing.clone() }.into())
            }
            None => Ok(()),
        }
    }
}
