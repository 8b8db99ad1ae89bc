//! DescribeTopicPartitions, v0 (KIP-966): topics in the order of their names, page by page. An empty list asks for
//! all. A page ends at the limit, and the cursor names the first partition of the next one. A cursor that is not among
//! the topics asked for, or before their first partition, is INVALID_REQUEST for each of them.

use crate::api::dispatch::{Refused, Reply, Request};
use crate::authorized_operations;
use crate::broker::Broker;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::describe_topic_partitions_response::{
    Cursor, DescribeTopicPartitionsResponsePartition, DescribeTopicPartitionsResponseTopic,
};
use kafka_protocol::messages::{
    BrokerId, DescribeTopicPartitionsRequest, DescribeTopicPartitionsResponse, TopicName,
};
use kafka_protocol::protocol::StrBytes;
use replication::metadata::image::MetadataImage;
use replication::metadata::partition_registration::PartitionRegistration;
use std::collections::BTreeSet;
use std::sync::Arc;
use uuid::Uuid;

pub(crate) fn handle(broker: &Arc<Broker>, mut request: Request) -> Result<Reply, Refused> {
    let asked: DescribeTopicPartitionsRequest = request.decode()?;
    let image = broker.image();
    let wants_all = asked.topics.is_empty();
    let mut names: BTreeSet<String> = if wants_all {
        image.topics_by_name().map(|topic| topic.name.to_string()).collect()
    } else {
        asked.topics.iter().map(|topic| topic.name.to_string()).collect()
    };
    let mut first_partition = 0;
    if let Some(cursor) = &asked.cursor {
        let is_among_asked = wants_all || names.contains(cursor.topic_name.as_str());
        if cursor.partition_index < 0 || !is_among_asked {
            let topics = names.iter().map(|name| {
                DescribeTopicPartitionsResponseTopic::default()
                    .with_error_code(ResponseError::InvalidRequest.code())
                    .with_name(Some(TopicName(StrBytes::from_string(name.clone()))))
            });
            let topics = topics.collect();
            return request.reply(&DescribeTopicPartitionsResponse::default().with_topics(topics));
        }
        names.retain(|name| name.as_str() >= cursor.topic_name.as_str());
        if names.first().is_some_and(|first| **first == **cursor.topic_name) {
            first_partition = cursor.partition_index;
        }
    }
    let asked_limit = usize::try_from(asked.response_partition_limit).unwrap_or(0).max(1);
    let mut room = asked_limit.min(broker.config().max_request_partition_size_limit);

    let mut topics = Vec::new();
    let mut next_cursor = None;
    for name in names {
        if room == 0 {
            next_cursor = Some(cursor(&name, 0));
            break;
        }
        let Some(topic) = image.topic_by_name(&name) else {
            topics.push(unknown(&name));
            continue;
        };
        let from = std::mem::take(&mut first_partition);
        let page: Vec<_> =
            topic.partitions().skip_while(|(index, _)| *index < from).take(room + 1).collect();
        let shown = page.len().min(room);
        let partitions =
            page[..shown].iter().map(|(index, found)| partition(&image, *index, found)).collect();
        room -= shown;
        topics.push(
            DescribeTopicPartitionsResponseTopic::default()
                .with_name(Some(TopicName(StrBytes::from_string(name.clone()))))
                .with_topic_id(Uuid::from_bytes(*topic.topic_id.as_bytes()))
                .with_is_internal(crate::broker::is_internal_topic(&name))
                .with_partitions(partitions)
                .with_topic_authorized_operations(authorized_operations::TOPIC),
        );
        if let Some((index, _)) = page.get(shown) {
            next_cursor = Some(cursor(&name, *index));
            break;
        }
    }
    request.reply(
        &DescribeTopicPartitionsResponse::default()
            .with_topics(topics)
            .with_next_cursor(next_cursor),
    )
}

fn cursor(topic: &str, partition: i32) -> Cursor {
    Cursor::default()
        .with_topic_name(TopicName(StrBytes::from_string(topic.to_string())))
        .with_partition_index(partition)
}

fn unknown(name: &str) -> DescribeTopicPartitionsResponseTopic {
    let error = match replication::controller::check_topic_name(name) {
        Ok(()) => ResponseError::UnknownTopicOrPartition,
        Err(_) => ResponseError::InvalidTopicException,
    };
    DescribeTopicPartitionsResponseTopic::default()
        .with_error_code(error.code())
        .with_name(Some(TopicName(StrBytes::from_string(name.to_string()))))
        .with_is_internal(crate::broker::is_internal_topic(name))
        .with_topic_authorized_operations(authorized_operations::TOPIC)
}

fn partition(
    image: &MetadataImage,
    index: i32,
    partition: &PartitionRegistration,
) -> DescribeTopicPartitionsResponsePartition {
    let wire = |id: replication::identity::BrokerId| BrokerId(id.value());
    let wires = |ids: &[replication::identity::BrokerId]| ids.iter().copied().map(wire).collect();
    let offline = partition.replica_ids().filter(|id| !image.is_active(*id));
    let (error, leader) = match partition.leader {
        Some(leader) => (0, leader.value()),
        None => (ResponseError::LeaderNotAvailable.code(), -1),
    };
    DescribeTopicPartitionsResponsePartition::default()
        .with_error_code(error)
        .with_partition_index(index)
        .with_leader_id(BrokerId(leader))
        .with_leader_epoch(partition.leader_epoch.value())
        .with_replica_nodes(partition.replica_ids().map(wire).collect())
        .with_isr_nodes(wires(&partition.isr))
        .with_eligible_leader_replicas(Some(wires(&partition.elr)))
        .with_last_known_elr(Some(wires(partition.last_known_leader.as_slice())))
        .with_offline_replicas(offline.map(wire).collect())
}
