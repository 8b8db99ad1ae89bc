//! Records onto an image: the same code on the active controller, on standbys and on brokers.

use std::sync::Arc;

use imbl::OrdMap;
use storage::topic_partition::TopicId;

use crate::identity::{BrokerEpoch, BrokerId};
use crate::metadata::MIN_INSYNC_REPLICAS;
use crate::metadata::broker_registration::BrokerRegistration;
use crate::metadata::delta::MetadataDelta;
use crate::metadata::image::{
    ConfigMap, LogPosition, MetadataImage, TopicImage, parse_min_insync_replicas,
};
use crate::metadata::partition_registration::PartitionRegistration;
use crate::metadata::record::{
    BrokerRegistrationChangeRecord, ConfigResource, MetadataRecord, PartitionChangeRecord,
    PartitionRecord, RegisterBrokerRecord,
};

/// A record that does not fit the image. It was decided against this very image, so either the log is
/// damaged or a controller has a bug; the node must stop rather than go on with another image than its peers.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("metadata entry {index}, record {record}: {what}")]
pub struct ReplayError {
    /// The entry's index.
    pub index: u64,
    /// The record's place in it, from 0.
    pub record: usize,
    /// What is wrong.
    pub what: String,
}

impl MetadataImage {
    /// The image after the entry at (`index`, `term`) with these records (none for the entry that opens a
    /// term), and what it changed.
    ///
    /// # Errors
    /// A record that does not fit. The image is as before.
    pub fn apply(
        &self,
        index: u64,
        term: u64,
        records: &[MetadataRecord],
    ) -> Result<(MetadataImage, MetadataDelta), ReplayError> {
        let mut replay = Replay {
            image: MetadataImage { position: LogPosition { index, term }, ..self.clone() },
            delta: MetadataDelta::default(),
        };
        for (number, record) in records.iter().enumerate() {
            replay.record(record).map_err(|what| ReplayError { index, record: number, what })?;
        }
        Ok((replay.image, replay.delta))
    }
}

struct Replay {
    image: MetadataImage,
    delta: MetadataDelta,
}

impl Replay {
    fn record(&mut self, record: &MetadataRecord) -> Result<(), String> {
        match record {
            MetadataRecord::RegisterBroker(record) => self.register_broker(record),
            MetadataRecord::UnregisterBroker { broker_id, broker_epoch } => {
                self.broker(*broker_id, *broker_epoch)?;
                self.image.brokers.remove(broker_id);
                self.delta.brokers_changed.insert(*broker_id);
                Ok(())
            }
            MetadataRecord::Topic { topic_id, name } => self.topic(*topic_id, name),
            MetadataRecord::Partition(record) => self.partition(record),
            MetadataRecord::Config { resource, name, value } => {
                self.config(*resource, name, value.as_ref())
            }
            MetadataRecord::PartitionChange(record) => self.partition_change(record),
            MetadataRecord::RemoveTopic { topic_id } => self.remove_topic(*topic_id),
            MetadataRecord::FeatureLevel { name, level } => {
                match level {
                    0 => self.image.features.remove(name),
                    _ => self.image.features.insert(Arc::clone(name), *level),
                };
                self.delta.features_changed = true;
                Ok(())
            }
            MetadataRecord::ProducerIds { next_producer_id, .. } => {
                if *next_producer_id < self.image.next_producer_id {
                    let (from, to) = (self.image.next_producer_id, next_producer_id);
                    return Err(format!("producer ids go back from {from} to {to}"));
                }
                self.image.next_producer_id = *next_producer_id;
                self.delta.producer_ids_changed = true;
                Ok(())
            }
            MetadataRecord::BrokerRegistrationChange(record) => self.registration_change(record),
        }
    }

    fn register_broker(&mut self, record: &RegisterBrokerRecord) -> Result<(), String> {
        let index = self.image.position.index;
        let broker_epoch = record.broker_epoch.unwrap_or(BrokerEpoch::from_index(index));
        if broker_epoch.index() > index {
            let broker_id = record.broker_id;
            return Err(format!("broker {broker_id} has epoch {broker_epoch} from the future"));
        }
        let registration = BrokerRegistration {
            broker_id: record.broker_id,
            broker_epoch,
            incarnation_id: record.incarnation_id,
            directory_id: record.directory_id,
            is_fenced: record.is_fenced,
            is_in_controlled_shutdown: record.is_in_controlled_shutdown,
            rack: record.rack.clone(),
            listeners: record.listeners.clone(),
            features: record.features.clone(),
        };
        self.image.brokers.insert(record.broker_id, Arc::new(registration));
        self.delta.brokers_changed.insert(record.broker_id);
        Ok(())
    }

    fn broker(
        &mut self,
        broker_id: BrokerId,
        broker_epoch: BrokerEpoch,
    ) -> Result<&mut BrokerRegistration, String> {
        let broker = self.image.brokers.get_mut(&broker_id);
        let broker = broker.ok_or_else(|| format!("broker {broker_id} is not registered"))?;
        if broker.broker_epoch != broker_epoch {
            let current = broker.broker_epoch;
            return Err(format!("broker {broker_id} has epoch {current}, not {broker_epoch}"));
        }
        Ok(Arc::make_mut(broker))
    }

    fn registration_change(
        &mut self,
        record: &BrokerRegistrationChangeRecord,
    ) -> Result<(), String> {
        let broker = self.broker(record.broker_id, record.broker_epoch)?;
        broker.is_fenced = record.is_fenced.unwrap_or(broker.is_fenced);
        broker.is_in_controlled_shutdown =
            record.is_in_controlled_shutdown.unwrap_or(broker.is_in_controlled_shutdown);
        self.delta.brokers_changed.insert(record.broker_id);
        Ok(())
    }

    fn topic(&mut self, topic_id: TopicId, name: &Arc<str>) -> Result<(), String> {
        if self.image.topics.contains_key(&topic_id) {
            return Err(format!("topic id {topic_id} is taken"));
        }
        if let Some(other) = self.image.topic_ids.insert(Arc::clone(name), topic_id) {
            return Err(format!("topic name {name:?} is taken by {other}"));
        }
        let topic = TopicImage {
            topic_id,
            name: Arc::clone(name),
            configs: ConfigMap::new(),
            partitions: Vec::new(),
        };
        self.image.topics.insert(topic_id, Arc::new(topic));
        self.delta.topics_created.insert(topic_id);
        Ok(())
    }

    fn topic_mut(&mut self, topic_id: TopicId) -> Result<&mut TopicImage, String> {
        let topic = self.image.topics.get_mut(&topic_id);
        topic.map(Arc::make_mut).ok_or_else(|| format!("there is no topic {topic_id}"))
    }

    fn partition(&mut self, record: &PartitionRecord) -> Result<(), String> {
        let (topic_id, partition) = (record.topic_id, record.partition);
        let problem = |what: &str| format!("partition {partition} of topic {topic_id}: {what}");
        record.registration.check().map_err(problem)?;
        let topic = self.topic_mut(topic_id)?;
        let next = topic.partitions.len();
        if i32::try_from(next) != Ok(partition) {
            return Err(problem(&format!("the next one is {next}")));
        }
        topic.partitions.push(Arc::new(record.registration.clone()));
        self.note_partition(topic_id, partition);
        Ok(())
    }

    fn partition_change(&mut self, record: &PartitionChangeRecord) -> Result<(), String> {
        let (topic_id, partition) = (record.topic_id, record.partition);
        let problem = |what: &str| format!("partition {partition} of topic {topic_id}: {what}");
        let topic = self.topic_mut(topic_id)?;
        let place = usize::try_from(partition).ok().and_then(|p| topic.partitions.get_mut(p));
        let place = place.ok_or_else(|| problem("it does not exist"))?;
        *place = Arc::new(PartitionRegistration::merge(place, record).map_err(problem)?);
        self.note_partition(topic_id, partition);
        Ok(())
    }

    fn note_partition(&mut self, topic_id: TopicId, partition: i32) {
        if !self.delta.topics_created.contains(&topic_id) {
            self.delta.partitions_changed.insert((topic_id, partition));
        }
    }

    fn remove_topic(&mut self, topic_id: TopicId) -> Result<(), String> {
        let topic = self.image.topics.remove(&topic_id);
        let topic = topic.ok_or_else(|| format!("there is no topic {topic_id}"))?;
        self.image.topic_ids.remove(&topic.name);
        self.delta.note_deleted(topic_id, topic);
        Ok(())
    }

    fn config(
        &mut self,
        resource: ConfigResource,
        name: &Arc<str>,
        value: Option<&Arc<str>>,
    ) -> Result<(), String> {
        // Acknowledgement hangs on it: better no broker than one that guesses.
        if &**name == MIN_INSYNC_REPLICAS
            && let Some(value) = value
            && parse_min_insync_replicas(value).is_none()
        {
            return Err(format!("{MIN_INSYNC_REPLICAS}={value} for {resource}"));
        }
        match resource {
            ConfigResource::Topic(topic_id) => {
                set(&mut self.topic_mut(topic_id)?.configs, name, value);
                if !self.delta.topics_created.contains(&topic_id) {
                    self.delta.topic_configs_changed.insert(topic_id);
                }
            }
            ConfigResource::Broker(broker_id) => {
                let mut configs =
                    self.image.broker_configs.get(&broker_id).cloned().unwrap_or_default();
                set(&mut configs, name, value);
                if configs.is_empty() {
                    self.image.broker_configs.remove(&broker_id);
                } else {
                    self.image.broker_configs.insert(broker_id, configs);
                }
                self.delta.broker_configs_changed.insert(broker_id);
            }
            ConfigResource::Cluster => {
                set(&mut self.image.cluster_configs, name, value);
                self.delta.cluster_configs_changed.insert(Arc::clone(name));
            }
        }
        Ok(())
    }
}

fn set(configs: &mut OrdMap<Arc<str>, Arc<str>>, name: &Arc<str>, value: Option<&Arc<str>>) {
    match value {
        Some(value) => configs.insert(Arc::clone(name), Arc::clone(value)),
        None => configs.remove(name),
    };
}
