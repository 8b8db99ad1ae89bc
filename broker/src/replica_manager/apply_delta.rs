//! Flow 4, its end: what committed metadata makes of this broker's partitions.
//!
//! Invariant (DESIGN D1): no role is taken from metadata before this process's own registration record. What an
//! earlier process of this broker led is in the image until that record fences it.

use super::partition::Partition;
use super::ready_set::Moved;
use super::{PartitionKey, ReplicaManager};
use crate::config::{BrokerConfig, ConfigLayers, TopicConfig};
use crate::quorum::MetadataListener;
use replication::identity::{BrokerId, IncarnationId};
use replication::metadata::{MetadataDelta, MetadataImage, PartitionRegistration, TopicImage};
use replication::partition::leader::LeaderMetadata;
use std::sync::Arc;
use storage::topic_partition::{TopicId, TopicPartition};

/// Applies images to the replica manager, in their order.
#[derive(Debug)]
pub struct RoleApplier {
    config: Arc<BrokerConfig>,
    node_id: BrokerId,
    incarnation_id: IncarnationId,
    replica_manager: Arc<ReplicaManager>,
    has_registered: bool,
}

impl RoleApplier {
    /// Takes no role before the registration of `incarnation_id`, this process, is applied.
    pub fn new(
        config: Arc<BrokerConfig>,
        node_id: BrokerId,
        incarnation_id: IncarnationId,
        replica_manager: Arc<ReplicaManager>,
    ) -> RoleApplier {
        RoleApplier { config, node_id, incarnation_id, replica_manager, has_registered: false }
    }
}

impl MetadataListener for RoleApplier {
    /// Makes leaders, resigns, deletes, reconfigures. Runs on the thread that applies metadata; opens no log files.
    fn apply(&mut self, image: &MetadataImage, delta: &MetadataDelta) {
        if self.has_registered {
            self.apply_delta(image, delta);
            return;
        }
        let own = image.broker(self.node_id);
        if own.is_some_and(|own| own.incarnation_id == self.incarnation_id) {
            self.has_registered = true;
            let empty = MetadataImage::empty(image.cluster_id().clone());
            self.apply_delta(image, &MetadataDelta::between(&empty, image));
        }
    }
}

impl RoleApplier {
    fn apply_delta(&self, image: &MetadataImage, delta: &MetadataDelta) {
        for (topic_id, topic) in &delta.topics_deleted {
            for (index, _) in topic.partitions() {
                self.replica_manager.delete(PartitionKey { topic_id: *topic_id, partition: index });
            }
        }
        let all_configs_changed = !delta.cluster_configs_changed.is_empty()
            || delta.broker_configs_changed.contains(&self.node_id);
        if all_configs_changed {
            for (topic_id, topic) in image.topics() {
                self.reconfigure(image, topic_id, topic);
            }
        } else {
            for topic_id in &delta.topic_configs_changed {
                if let Some(topic) = image.topic(*topic_id) {
                    self.reconfigure(image, *topic_id, topic);
                }
            }
        }
        for topic_id in &delta.topics_created {
            let Some(topic) = image.topic(*topic_id) else { continue };
            let config = self.topic_config(image, topic);
            for (index, registration) in topic.partitions() {
                self.take_role(image, topic, index, registration, &config);
            }
        }
        let mut of_topic: Option<(TopicId, TopicConfig)> = None;
        for (topic_id, index) in &delta.partitions_changed {
            let Some(topic) = image.topic(*topic_id) else { continue };
            let Some(registration) = topic.partition(*index) else { continue };
            // Partitions of one topic stand together, so its configuration is resolved once.
            if of_topic.as_ref().is_none_or(|(of, _)| of != topic_id) {
                of_topic = Some((*topic_id, self.topic_config(image, topic)));
            }
            let (_, config) = of_topic.as_ref().expect("set above");
            self.take_role(image, topic, *index, registration, config);
        }
    }

    fn take_role(
        &self,
        image: &MetadataImage,
        topic: &TopicImage,
        index: i32,
        registration: &PartitionRegistration,
        config: &TopicConfig,
    ) {
        let key = PartitionKey { topic_id: topic.topic_id, partition: index };
        if registration.leader != Some(self.node_id) {
            if let Ok(partition) = self.replica_manager.partition(&key) {
                partition.resign();
                self.replica_manager.wake(&partition, Moved::Otherwise);
            }
            return;
        }
        let hosted = self.replica_manager.host(key, &topic.name, config);
        let partition: Arc<Partition> = match hosted {
            Ok(partition) => partition,
            Err(error) => {
                let topic_partition = TopicPartition::new(Arc::clone(&topic.name), index);
                tracing::error!(%topic_partition, %error, "partition is offline");
                return;
            }
        };
        let metadata = LeaderMetadata::from_image(image, topic.topic_id, index, self.node_id)
            .expect("the image says that this broker leads");
        partition.lead(metadata, self.replica_manager.clock().now());
        self.replica_manager.wake(&partition, Moved::Otherwise);
    }

    fn reconfigure(&self, image: &MetadataImage, topic_id: TopicId, topic: &TopicImage) {
        let config = self.topic_config(image, topic);
        let at = self.replica_manager.clock().now();
        for (index, _) in topic.partitions() {
            let key = PartitionKey { topic_id, partition: index };
            let Ok(partition) = self.replica_manager.partition(&key) else { continue };
            partition.set_config(&config, Arc::new(config.log_config()), at);
            // min.insync.replicas may be among what changed.
            let metadata = LeaderMetadata::from_image(image, topic_id, index, self.node_id);
            if let Some(metadata) = metadata {
                partition.lead(metadata, at);
            }
            self.replica_manager.wake(&partition, Moved::Otherwise);
        }
    }

    fn topic_config(&self, image: &MetadataImage, topic: &TopicImage) -> TopicConfig {
        TopicConfig::resolve(&topic.configs, ConfigLayers::new(&self.config, image))
    }
}
