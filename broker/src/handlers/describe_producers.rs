//! DescribeProducers, v0 (KIP-664): the idempotent producers that a partition's leader remembers.

use crate::api::dispatch::{Refused, Reply, Request};
use crate::api::error_code::ToErrorCode;
use crate::broker::Broker;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::describe_producers_response::{
    PartitionResponse, ProducerState, TopicResponse,
};
use kafka_protocol::messages::{
    DescribeProducersRequest, DescribeProducersResponse, ProducerId, TopicName,
};
use kafka_protocol::protocol::StrBytes;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use storage::producer_state::ProducerEntry;
use storage::timestamp::Timestamp;

pub(crate) fn handle(broker: &Arc<Broker>, mut request: Request) -> Result<Reply, Refused> {
    let asked: DescribeProducersRequest = request.decode()?;
    // One named twice is answered once: a small request must not ask for an answer without bounds.
    let mut seen: BTreeMap<TopicName, BTreeSet<i32>> = BTreeMap::new();
    let topics = asked
        .topics
        .into_iter()
        .map(|topic| {
            // A name may be long and have many partitions: it is looked at once.
            let seen = seen.entry(topic.name.clone()).or_default();
            let invalid = replication::controller::check_topic_name(&topic.name)
                .err()
                .map(|error| StrBytes::from_string(error.to_string()));
            let partitions = topic
                .partition_indexes
                .iter()
                .filter(|index| seen.insert(**index))
                .map(|&index| {
                    let response = PartitionResponse::default()
                        .with_partition_index(index)
                        .with_error_message(None);
                    if let Some(message) = &invalid {
                        return response
                            .with_error_code(ResponseError::InvalidTopicException.code())
                            .with_error_message(Some(message.clone()));
                    }
                    let producers = broker
                        .leader_of(&topic.name, index)
                        .and_then(|partition| partition.active_producers(broker.clock().wall()));
                    match producers {
                        Ok(producers) => {
                            response.with_active_producers(producers.iter().map(producer).collect())
                        }
                        Err(error) => {
                            let code = error.to_error_code();
                            response
                                .with_error_code(code.code())
                                .with_error_message(Some(StrBytes::from_string(error.to_string())))
                        }
                    }
                })
                .collect();
            TopicResponse::default().with_name(topic.name).with_partitions(partitions)
        })
        .collect();
    request.reply(&DescribeProducersResponse::default().with_topics(topics))
}

fn producer(entry: &ProducerEntry) -> ProducerState {
    ProducerState::default()
        .with_producer_id(ProducerId(entry.producer_id().value()))
        .with_producer_epoch(entry.epoch().value().into())
        .with_last_sequence(entry.last_sequence().unwrap_or(-1))
        .with_last_timestamp(Timestamp::to_wire(entry.last_timestamp()))
        .with_coordinator_epoch(entry.coordinator_epoch().unwrap_or(-1))
        .with_current_txn_start_offset(
            entry.current_txn_first_offset().map_or(-1, |offset| offset.value()),
        )
}
