//! A snapshot's data: the shortest list of records that adds up to an image (DESIGN D2).
//!
//! The file around it (position, members, cluster id, CRC) is the quorum's.

use std::sync::Arc;

use bytes::Bytes;

use crate::identity::ClusterId;
use crate::identity::{BrokerEpoch, BrokerId};
use crate::metadata::image::{LogPosition, MetadataImage};
use crate::metadata::record::{
    ConfigResource, MetadataDecodeError, MetadataRecord, PartitionRecord, RegisterBrokerRecord,
    decode_records, encode_records,
};
use crate::metadata::replay::ReplayError;

/// Why a snapshot's data does not yield an image.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SnapshotError {
    /// It is no list of records, or a later release's.
    #[error(transparent)]
    Decode(#[from] MetadataDecodeError),
    /// The records contradict each other.
    #[error(transparent)]
    Replay(#[from] ReplayError),
}

impl MetadataImage {
    /// The records that make this image out of an empty one, applied as one entry at its position. The same
    /// image always gives the same records.
    pub fn to_records(&self) -> Vec<MetadataRecord> {
        let mut records = Vec::new();
        for (name, level) in &self.features {
            records.push(MetadataRecord::FeatureLevel { name: Arc::clone(name), level: *level });
        }
        for broker in self.brokers() {
            records.push(MetadataRecord::RegisterBroker(RegisterBrokerRecord {
                broker_id: broker.broker_id,
                broker_epoch: Some(broker.broker_epoch),
                incarnation_id: broker.incarnation_id,
                directory_id: broker.directory_id,
                is_fenced: broker.is_fenced,
                is_in_controlled_shutdown: broker.is_in_controlled_shutdown,
                rack: broker.rack.clone(),
                listeners: broker.listeners.clone(),
                features: broker.features.clone(),
            }));
        }
        let mut config = |resource, name: &Arc<str>, value: &Arc<str>| {
            let (name, value) = (Arc::clone(name), Some(Arc::clone(value)));
            records.push(MetadataRecord::Config { resource, name, value });
        };
        for (name, value) in &self.cluster_configs {
            config(ConfigResource::Cluster, name, value);
        }
        for (broker_id, configs) in &self.broker_configs {
            for (name, value) in configs {
                config(ConfigResource::Broker(*broker_id), name, value);
            }
        }
        for (topic_id, topic) in self.topics() {
            records.push(MetadataRecord::Topic { topic_id, name: Arc::clone(&topic.name) });
            for (name, value) in &topic.configs {
                records.push(MetadataRecord::Config {
                    resource: ConfigResource::Topic(topic_id),
                    name: Arc::clone(name),
                    value: Some(Arc::clone(value)),
                });
            }
            for (partition, registration) in topic.partitions() {
                records.push(MetadataRecord::Partition(PartitionRecord {
                    topic_id,
                    partition,
                    registration: registration.clone(),
                }));
            }
        }
        // Who asked last is history; the next id is what counts.
        if self.next_producer_id.value() > 0 {
            records.push(MetadataRecord::ProducerIds {
                broker_id: BrokerId::new(0).expect("zero is a broker id"),
                broker_epoch: BrokerEpoch::from_index(0),
                next_producer_id: self.next_producer_id,
            });
        }
        records
    }

    /// A snapshot's data, for [`MetadataImage::decode_snapshot`].
    pub fn encode_snapshot(&self) -> Bytes {
        encode_records(&self.to_records())
    }

    /// The image of a snapshot taken at `position`. No data at all is the bootstrap snapshot's: the image is
    /// empty but for the cluster id and the position.
    ///
    /// # Errors
    /// See [`SnapshotError`]; [`MetadataDecodeError::is_from_a_later_release`] tells the two kinds apart.
    pub fn decode_snapshot(
        cluster_id: ClusterId,
        position: LogPosition,
        data: &[u8],
    ) -> Result<MetadataImage, SnapshotError> {
        let records = if data.is_empty() { Vec::new() } else { decode_records(data)? };
        let empty = MetadataImage::empty(cluster_id);
        Ok(empty.apply(position.index, position.term, &records)?.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bootstrap_snapshot_is_an_empty_image_at_its_position() {
        let cluster_id = ClusterId::new("c").unwrap();
        let position = LogPosition { index: 1, term: 1 };
        let image = MetadataImage::decode_snapshot(cluster_id.clone(), position, &[]).unwrap();
        assert_eq!(image.position(), position);
        assert_eq!(image.cluster_id(), &cluster_id);
        assert_eq!(image.to_records(), []);
    }

    #[test]
    fn records_that_contradict_each_other_are_no_snapshot() {
        let cluster_id = ClusterId::new("c").unwrap();
        let topic_id = storage::topic_partition::TopicId::from_bytes([1; 16]);
        let topic = MetadataRecord::Topic { topic_id, name: "t".into() };
        let data = encode_records(&[topic.clone(), topic]);
        let error = MetadataImage::decode_snapshot(cluster_id, LogPosition::default(), &data);
        assert!(
            matches!(error, Err(SnapshotError::Replay(ReplayError { record: 1, .. }))),
            "{error:?}"
        );
    }
}
