//! DeleteRecords, v0–v2. Moves the log start offset; −1 means the high watermark. The answer's low watermark is the
//! lowest log start of all replicas, which here is the leader's own.

use crate::api::dispatch::{Refused, Reply, Request};
use crate::api::error_code::ToErrorCode;
use crate::broker::Broker;
use crate::replica_manager::partition::DeleteRecordsError;
use kafka_protocol::messages::delete_records_request::DeleteRecordsPartition;
use kafka_protocol::messages::delete_records_response::{
    DeleteRecordsPartitionResult, DeleteRecordsTopicResult,
};
use kafka_protocol::messages::{DeleteRecordsRequest, DeleteRecordsResponse, TopicName};
use std::sync::Arc;
use storage::offset::Offset;

/// Asks for everything below the high watermark.
const HIGH_WATERMARK: i64 = -1;

pub(crate) fn handle(broker: &Arc<Broker>, mut request: Request) -> Result<Reply, Refused> {
    let asked: DeleteRecordsRequest = request.decode()?;
    let topics = asked
        .topics
        .into_iter()
        .map(|topic| {
            let partitions = topic
                .partitions
                .iter()
                .map(|partition| {
                    let result = DeleteRecordsPartitionResult::default()
                        .with_partition_index(partition.partition_index);
                    match delete(broker, &topic.name, partition) {
                        Ok(log_start) => result.with_low_watermark(log_start.value()),
                        Err(error) => result
                            .with_low_watermark(-1)
                            .with_error_code(error.to_error_code().code()),
                    }
                })
                .collect();
            DeleteRecordsTopicResult::default().with_name(topic.name).with_partitions(partitions)
        })
        .collect();
    request.reply(&DeleteRecordsResponse::default().with_topics(topics))
}

fn delete(
    broker: &Broker,
    topic: &TopicName,
    asked: &DeleteRecordsPartition,
) -> Result<Offset, DeleteRecordsError> {
    if crate::broker::is_internal_topic(topic) {
        return Err(DeleteRecordsError::InternalTopic);
    }
    let before = match asked.offset {
        HIGH_WATERMARK => None,
        offset => Some(Offset::new(offset).ok_or(DeleteRecordsError::OutOfRange { offset })?),
    };
    broker
        .replica_manager()
        .delete_records(&*broker.leader_of(topic, asked.partition_index)?, before)
}
