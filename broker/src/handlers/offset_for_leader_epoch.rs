//! OffsetForLeaderEpoch, v2–v4. v2 current leader epoch (KIP-320) · v3 replica id · v4 flexible.
//! An epoch that is not known is answered with end offset −1 and epoch −1, without an error.

use crate::api::dispatch::{Refused, Reply, Request};
use crate::api::error_code::ToErrorCode;
use crate::broker::Broker;
use crate::replica_manager::read::ReadError;
use kafka_protocol::messages::offset_for_leader_epoch_request::OffsetForLeaderPartition;
use kafka_protocol::messages::offset_for_leader_epoch_response::{
    EpochEndOffset, OffsetForLeaderTopicResult,
};
use kafka_protocol::messages::{
    OffsetForLeaderEpochRequest, OffsetForLeaderEpochResponse, TopicName,
};
use std::sync::Arc;
use storage::leader_epoch::LeaderEpoch;

pub(crate) fn handle(broker: &Arc<Broker>, mut request: Request) -> Result<Reply, Refused> {
    let asked: OffsetForLeaderEpochRequest = request.decode()?;
    let topics = asked
        .topics
        .into_iter()
        .map(|topic| {
            let partitions = topic
                .partitions
                .iter()
                .map(|partition| {
                    let result = EpochEndOffset::default().with_partition(partition.partition);
                    match end_offset(broker, &topic.topic, partition) {
                        Ok(Some((epoch, end))) => {
                            result.with_leader_epoch(epoch).with_end_offset(end)
                        }
                        Ok(None) => result,
                        Err(error) => result.with_error_code(error.to_error_code().code()),
                    }
                })
                .collect();
            OffsetForLeaderTopicResult::default()
                .with_topic(topic.topic)
                .with_partitions(partitions)
        })
        .collect();
    request.reply(&OffsetForLeaderEpochResponse::default().with_topics(topics))
}

fn end_offset(
    broker: &Broker,
    topic: &TopicName,
    asked: &OffsetForLeaderPartition,
) -> Result<Option<(i32, i64)>, ReadError> {
    let partition = broker.leader_of(topic, asked.partition)?;
    partition.check_leader_epoch_or_none(asked.current_leader_epoch)?;
    let Some(epoch) = LeaderEpoch::new(asked.leader_epoch) else { return Ok(None) };
    let end = partition.end_offset_for_epoch(epoch, broker.clock().wall())?;
    Ok(end.map(|end| (end.epoch.value(), end.end_offset.value())))
}
