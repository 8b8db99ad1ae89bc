//! DeleteRecords, v0–v2. Moves the log start offset; −1 means the high watermark. The answer's low watermark is the
//! lowest log start of all replicas, which here is the leader's own. A partition named twice is done once, to the offset
//! named last, and a topic without partitions is not answered, as in Kafka.

use crate::api::dispatch::{Refused, Reply, Request};
use crate::api::error_code::ToErrorCode;
use crate::broker::Broker;
use crate::replica_manager::partition::DeleteRecordsError;
use kafka_protocol::messages::delete_records_response::{
    DeleteRecordsPartitionResult, DeleteRecordsTopicResult,
};
use kafka_protocol::messages::{DeleteRecordsRequest, DeleteRecordsResponse, TopicName};
use std::collections::BTreeMap;
use std::sync::Arc;
use storage::offset::Offset;

/// Asks for everything below the high watermark.
const HIGH_WATERMARK: i64 = -1;

pub(crate) fn handle(broker: &Arc<Broker>, mut request: Request) -> Result<Reply, Refused> {
    let asked: DeleteRecordsRequest = request.decode()?;
    let mut wanted: BTreeMap<TopicName, BTreeMap<i32, i64>> = BTreeMap::new();
    for topic in asked.topics {
        for partition in topic.partitions {
            let partitions = wanted.entry(topic.name.clone()).or_default();
            partitions.insert(partition.partition_index, partition.offset);
        }
    }
    let topics = wanted
        .into_iter()
        .map(|(name, partitions)| {
            let partitions = partitions
                .into_iter()
                .map(|(index, offset)| {
                    let result =
                        DeleteRecordsPartitionResult::default().with_partition_index(index);
                    match delete(broker, &name, index, offset) {
                        Ok(log_start) => result.with_low_watermark(log_start.value()),
                        Err(error) => result
                            .with_low_watermark(-1)
                            .with_error_code(error.to_error_code().code()),
                    }
                })
                .collect();
            DeleteRecordsTopicResult::default().with_name(name).with_partitions(partitions)
        })
        .collect();
    request.reply(&DeleteRecordsResponse::default().with_topics(topics))
}

fn delete(
    broker: &Broker,
    topic: &TopicName,
    partition: i32,
    offset: i64,
) -> Result<Offset, DeleteRecordsError> {
    if crate::broker::is_internal_topic(topic) {
        return Err(DeleteRecordsError::InternalTopic);
    }
    let before = match offset {
        HIGH_WATERMARK => None,
        offset => Some(Offset::new(offset).ok_or(DeleteRecordsError::OutOfRange { offset })?),
    };
    broker.replica_manager().delete_records(&*broker.leader_of(topic, partition)?, before)
}
