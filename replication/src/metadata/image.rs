//! The cluster's metadata at one position of its log: immutable, cheap to clone, shared in structure with
//! the images before and after it.

use std::sync::Arc;

use imbl::OrdMap;
use storage::producer_state::ProducerId;
use storage::topic_partition::TopicId;

use crate::identity::{BrokerId, ClusterId};
use crate::metadata::broker_registration::BrokerRegistration;
use crate::metadata::partition_registration::PartitionRegistration;
use crate::metadata::record::ConfigResource;
use crate::metadata::{MIN_INSYNC_REPLICAS, UNCLEAN_LEADER_ELECTION_ENABLE};

/// Configurations by name, in order.
pub type ConfigMap = OrdMap<Arc<str>, Arc<str>>;

/// A position in the metadata log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct LogPosition {
    /// Index of the last entry applied.
    pub index: u64,
    /// Its term.
    pub term: u64,
}

/// One topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicImage {
    /// Never used again, even for the same name.
    pub topic_id: TopicId,
    /// Unique among the topics that exist.
    pub name: Arc<str>,
    /// The topic's own configuration; what is not in it falls back to the cluster's.
    pub configs: ConfigMap,
    /// A partition's number is its position. One flat list: topics have few partitions, and each list is
    /// copied at most once per applied entry.
    pub(super) partitions: Vec<Arc<PartitionRegistration>>,
}

impl TopicImage {
    /// How many partitions it has; their numbers are 0 up to this, exclusive.
    pub fn partition_count(&self) -> i32 {
        i32::try_from(self.partitions.len()).expect("partitions were added under i32 numbers")
    }

    /// One partition.
    pub fn partition(&self, partition: i32) -> Option<&PartitionRegistration> {
        self.partitions.get(usize::try_from(partition).ok()?).map(|registration| &**registration)
    }

    /// All partitions in order of their numbers.
    pub fn partitions(&self) -> impl ExactSizeIterator<Item = (i32, &PartitionRegistration)> {
        // Counted in i32, because adding one checks that its number fits.
        self.partitions.iter().enumerate().map(|(number, p)| (number as i32, &**p))
    }
}

/// The metadata. Iterates in the order of its keys, always.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetadataImage {
    pub(super) cluster_id: ClusterId,
    pub(super) position: LogPosition,
    pub(super) brokers: OrdMap<BrokerId, Arc<BrokerRegistration>>,
    pub(super) topics: OrdMap<TopicId, Arc<TopicImage>>,
    /// Same topics as `topics`.
    pub(super) topic_ids: OrdMap<Arc<str>, TopicId>,
    pub(super) cluster_configs: ConfigMap,
    /// No broker with an empty map.
    pub(super) broker_configs: OrdMap<BrokerId, ConfigMap>,
    pub(super) features: OrdMap<Arc<str>, i16>,
    pub(super) next_producer_id: ProducerId,
}

impl MetadataImage {
    /// The metadata of a cluster in which nothing has happened yet.
    pub fn empty(cluster_id: ClusterId) -> MetadataImage {
        MetadataImage {
            cluster_id,
            position: LogPosition::default(),
            brokers: OrdMap::new(),
            topics: OrdMap::new(),
            topic_ids: OrdMap::new(),
            cluster_configs: ConfigMap::new(),
            broker_configs: OrdMap::new(),
            features: OrdMap::new(),
            next_producer_id: ProducerId::new(0).expect("zero is a producer id"),
        }
    }

    /// The cluster's id.
    pub fn cluster_id(&self) -> &ClusterId {
        &self.cluster_id
    }

    /// The last entry applied.
    pub fn position(&self) -> LogPosition {
        self.position
    }

    /// One broker, fenced or not.
    pub fn broker(&self, broker_id: BrokerId) -> Option<&BrokerRegistration> {
        self.brokers.get(&broker_id).map(|broker| &**broker)
    }

    /// All registered brokers, fenced ones too, in order of their ids.
    pub fn brokers(&self) -> impl Iterator<Item = &BrokerRegistration> {
        self.brokers.values().map(|broker| &**broker)
    }

    /// Whether `broker_id` is registered, unfenced and not leaving.
    pub fn is_active(&self, broker_id: BrokerId) -> bool {
        self.broker(broker_id).is_some_and(BrokerRegistration::is_active)
    }

    /// One topic, by id.
    pub fn topic(&self, topic_id: TopicId) -> Option<&Arc<TopicImage>> {
        self.topics.get(&topic_id)
    }

    /// One topic, by name.
    pub fn topic_by_name(&self, name: &str) -> Option<&Arc<TopicImage>> {
        self.topics.get(self.topic_ids.get(name)?)
    }

    /// All topics in order of their ids.
    pub fn topics(&self) -> impl ExactSizeIterator<Item = (TopicId, &Arc<TopicImage>)> {
        self.topics.iter().map(|(topic_id, topic)| (*topic_id, topic))
    }

    /// All topics in order of their names.
    pub fn topics_by_name(&self) -> impl Iterator<Item = &Arc<TopicImage>> {
        self.topic_ids.values().filter_map(|topic_id| self.topics.get(topic_id))
    }

    /// One partition.
    pub fn partition(&self, topic_id: TopicId, partition: i32) -> Option<&PartitionRegistration> {
        self.topic(topic_id)?.partition(partition)
    }

    /// The cluster-wide default configuration.
    pub fn cluster_configs(&self) -> &ConfigMap {
        &self.cluster_configs
    }

    /// One broker's own dynamic configuration, if it has any.
    pub fn broker_configs(&self, broker_id: BrokerId) -> Option<&ConfigMap> {
        self.broker_configs.get(&broker_id)
    }

    /// Brokers with a dynamic configuration of their own.
    pub fn configured_brokers(&self) -> impl Iterator<Item = BrokerId> {
        self.broker_configs.keys().copied()
    }

    /// What is configured for `resource` itself; `None` where nothing is, or where there is no such topic.
    pub fn configs(&self, resource: ConfigResource) -> Option<&ConfigMap> {
        match resource {
            ConfigResource::Topic(topic_id) => self.topic(topic_id).map(|topic| &topic.configs),
            ConfigResource::Broker(broker_id) => self.broker_configs(broker_id),
            ConfigResource::Cluster => Some(&self.cluster_configs),
        }
    }

    /// Finalized features and their levels, by name; none has level 0.
    pub fn features(&self) -> &OrdMap<Arc<str>, i16> {
        &self.features
    }

    /// First producer id that was never given out.
    pub fn next_producer_id(&self) -> ProducerId {
        self.next_producer_id
    }

    /// `min.insync.replicas` for `topic`: its own, or the cluster's default. The static configuration of a
    /// node plays no part once the log has the default, which is from the first registration on (DESIGN D1).
    pub fn min_insync_replicas(&self, topic: &TopicImage) -> usize {
        let own = topic.configs.get(MIN_INSYNC_REPLICAS);
        own.or_else(|| self.cluster_configs.get(MIN_INSYNC_REPLICAS))
            .and_then(|value| parse_min_insync_replicas(value))
            .unwrap_or(1)
    }

    /// What the ISR must count for acks=all and for the high watermark to move:
    /// min(configured, replicas). Leader and controller both take it from here, and only from here.
    pub fn effective_min_isr(&self, topic: &TopicImage, replicas: usize) -> usize {
        self.min_insync_replicas(topic).min(replicas)
    }

    /// Whether `topic` prefers availability to its records: its own setting, the cluster's, or `default`.
    pub fn allows_unclean_election(&self, topic: &TopicImage, default: bool) -> bool {
        let own = topic.configs.get(UNCLEAN_LEADER_ELECTION_ENABLE);
        own.or_else(|| self.cluster_configs.get(UNCLEAN_LEADER_ELECTION_ENABLE))
            .map_or(default, |value| value.trim().eq_ignore_ascii_case("true"))
    }
}

/// The number in a `min.insync.replicas`: an i32 of at least 1.
pub(crate) fn parse_min_insync_replicas(value: &str) -> Option<usize> {
    let number: i32 = value.trim().parse().ok()?;
    usize::try_from(number).ok().filter(|&number| number >= 1)
}
