//! Metadata as values of ours: -1 and the zero id become `None`, errors become [`KafkaError`].

use std::fmt;

use kafka_protocol::messages::MetadataResponse;
use kafka_protocol::messages::metadata_response::{
    MetadataResponsePartition, MetadataResponseTopic,
};
use uuid::Uuid;

use crate::error::KafkaError;

/// A topic's id. Shown as Kafka does: 22 characters of URL-safe base64.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TopicId(Uuid);

impl TopicId {
    /// `None` for the zero id, which means "no id" on the wire.
    pub fn from_wire(id: Uuid) -> Option<TopicId> {
        (!id.is_nil()).then_some(TopicId(id))
    }

    /// For a request.
    pub fn to_wire(self) -> Uuid {
        self.0
    }
}

impl fmt::Display for TopicId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const ALPHABET: &[u8; 64] =
            b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
        let bits = self.0.as_u128();
        // 21 groups of six bits, and the last two bits with four zeros after them.
        let groups = (0..21).map(|group| bits >> (122 - 6 * group)).chain([bits << 4]);
        groups
            .map(|group| char::from(ALPHABET[(group & 63) as usize]))
            .try_for_each(|c| write!(f, "{c}"))
    }
}

impl fmt::Debug for TopicId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Where a broker listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BrokerAddress {
    /// Its node id.
    pub id: i32,
    /// As advertised to us.
    pub host: String,
    /// As advertised; 1–65535 if the broker is sane.
    pub port: i32,
    /// Its rack, if it has one.
    pub rack: Option<String>,
}

impl fmt::Display for BrokerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

/// One answer to Metadata.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterMetadata {
    /// None from brokers before 0.10.1.
    pub cluster_id: Option<String>,
    /// The broker that takes admin requests.
    pub controller: Option<i32>,
    /// By id.
    pub brokers: Vec<BrokerAddress>,
    /// By name.
    pub topics: Vec<TopicMetadata>,
}

/// One topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicMetadata {
    /// Its name; empty where a broker hides it.
    pub name: String,
    /// None from brokers before 2.8.
    pub topic_id: Option<TopicId>,
    /// One of Kafka's own.
    pub is_internal: bool,
    /// Why the rest is missing.
    pub error: Option<KafkaError>,
    /// By number. A partition may be missing while the topic is being created.
    pub partitions: Vec<PartitionMetadata>,
}

/// One partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionMetadata {
    /// Its number.
    pub partition: i32,
    /// LEADER_NOT_AVAILABLE and its like.
    pub error: Option<KafkaError>,
    /// None while there is no leader.
    pub leader: Option<i32>,
    /// None from brokers before 2.1.
    pub leader_epoch: Option<i32>,
    /// Assigned brokers, the preferred leader first.
    pub replicas: Vec<i32>,
    /// In sync.
    pub isr: Vec<i32>,
    /// Assigned and not running.
    pub offline_replicas: Vec<i32>,
}

impl ClusterMetadata {
    pub(super) fn from_response(response: MetadataResponse) -> ClusterMetadata {
        let mut brokers: Vec<BrokerAddress> = response
            .brokers
            .into_iter()
            .map(|broker| BrokerAddress {
                id: broker.node_id.0,
                host: broker.host.to_string(),
                port: broker.port,
                rack: broker.rack.map(|rack| rack.to_string()),
            })
            .collect();
        brokers.sort_by_key(|broker| broker.id);
        let mut topics: Vec<TopicMetadata> =
            response.topics.into_iter().map(TopicMetadata::from_response).collect();
        topics.sort_by(|a, b| a.name.cmp(&b.name));
        ClusterMetadata {
            cluster_id: response.cluster_id.map(|id| id.to_string()),
            controller: not_negative(response.controller_id.0),
            brokers,
            topics,
        }
    }
}

impl TopicMetadata {
    fn from_response(topic: MetadataResponseTopic) -> TopicMetadata {
        let mut partitions: Vec<PartitionMetadata> =
            topic.partitions.into_iter().map(PartitionMetadata::from_response).collect();
        partitions.sort_by_key(|partition| partition.partition);
        TopicMetadata {
            name: topic.name.map(|name| name.to_string()).unwrap_or_default(),
            topic_id: TopicId::from_wire(topic.topic_id),
            is_internal: topic.is_internal,
            error: KafkaError::from_code(topic.error_code, None),
            partitions,
        }
    }

    /// The partition of that number.
    pub fn partition(&self, partition: i32) -> Option<&PartitionMetadata> {
        let index = self.partitions.binary_search_by_key(&partition, |p| p.partition).ok()?;
        self.partitions.get(index)
    }

    /// Takes over a newer answer, but for partitions whose leader epoch it would turn back: the broker that answered had
    /// not heard of the newer leader yet. A new topic id starts from scratch.
    pub(super) fn merge(&mut self, newer: &TopicMetadata) {
        let older = std::mem::replace(self, newer.clone());
        if older.topic_id != self.topic_id {
            return;
        }
        for partition in &mut self.partitions {
            if let Some(known) = older.partition(partition.partition)
                && let (Some(known_epoch), Some(epoch)) =
                    (known.leader_epoch, partition.leader_epoch)
                && epoch < known_epoch
            {
                *partition = known.clone();
            }
        }
    }
}

impl PartitionMetadata {
    fn from_response(partition: MetadataResponsePartition) -> PartitionMetadata {
        let ids =
            |ids: Vec<kafka_protocol::messages::BrokerId>| ids.into_iter().map(|id| id.0).collect();
        PartitionMetadata {
            partition: partition.partition_index,
            error: KafkaError::from_code(partition.error_code, None),
            leader: not_negative(partition.leader_id.0),
            leader_epoch: not_negative(partition.leader_epoch),
            replicas: ids(partition.replica_nodes),
            isr: ids(partition.isr_nodes),
            offline_replicas: ids(partition.offline_replicas),
        }
    }
}

fn not_negative(id: i32) -> Option<i32> {
    (id >= 0).then_some(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn topic(id: u128, leader: i32, epoch: i32) -> TopicMetadata {
        let partition = MetadataResponsePartition::default()
            .with_leader_id(leader.into())
            .with_leader_epoch(epoch);
        TopicMetadata::from_response(
            MetadataResponseTopic::default()
                .with_topic_id(Uuid::from_u128(id))
                .with_partitions(vec![partition]),
        )
    }

    #[test]
    fn an_answer_with_an_older_epoch_does_not_bring_the_old_leader_back() {
        let mut known = topic(7, 2, 5);
        known.merge(&topic(7, 1, 4));
        assert_eq!(known.partitions[0].leader, Some(2));
        known.merge(&topic(7, 3, 6));
        assert_eq!(known.partitions[0].leader, Some(3));
    }

    #[test]
    fn a_topic_created_anew_starts_its_epochs_again() {
        let mut known = topic(7, 2, 5);
        known.merge(&topic(8, 1, 0));
        assert_eq!(known.partitions[0].leader, Some(1));
    }

    #[test]
    fn topic_ids_are_written_as_kafka_writes_them() {
        let show = |id: u128| TopicId::from_wire(Uuid::from_u128(id)).map(|id| id.to_string());
        assert_eq!(show(0), None);
        assert_eq!(show(1).as_deref(), Some("AAAAAAAAAAAAAAAAAAAAAQ"));
        assert_eq!(show(u128::MAX).as_deref(), Some("_____________________w"));
    }

    #[test]
    fn an_address_of_version_6_stands_in_brackets() {
        let broker = |host: &str| {
            BrokerAddress { id: 1, host: host.to_owned(), port: 9092, rack: None }.to_string()
        };
        assert_eq!(broker("::1"), "[::1]:9092");
        assert_eq!(broker("localhost"), "localhost:9092");
    }
}
