//! ListOffsets, v1–v10. v2 isolation level · v4 leader epoch (KIP-320) · v6 flexible · v7 max timestamp (KIP-734)
//! · v8 earliest local, v9 latest tiered (KIP-405) · v10 timeout. Special timestamps: kafka-facts §6.5.

use crate::api::dispatch::{Refused, Reply, Request};
use crate::api::error_code::ToErrorCode;
use crate::broker::Broker;
use crate::disk_readers;
use crate::replica_manager::read::{FetchIsolation, ListedOffset, OffsetSpec, ReadError};
use kafka_protocol::ResponseError;
use kafka_protocol::messages::list_offsets_request::ListOffsetsPartition;
use kafka_protocol::messages::list_offsets_response::{
    ListOffsetsPartitionResponse, ListOffsetsTopicResponse,
};
use kafka_protocol::messages::{ListOffsetsRequest, ListOffsetsResponse, TopicName};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use storage::timestamp::Timestamp;

const FIRST_WITH_LEADER_EPOCH: i16 = 4;

type Listed = Result<Option<ListedOffset>, ResponseError>;

pub(crate) fn handle(broker: &Arc<Broker>, mut request: Request) -> Result<Reply, Refused> {
    let asked: ListOffsetsRequest = request.decode()?;
    let version = request.api_version;
    let mut asked_for = asked
        .topics
        .iter()
        .flat_map(|topic| topic.partitions.iter().map(|partition| (&topic.name, partition)));
    if asked_for.any(|(topic, partition)| needs_disk(broker, version, topic, partition)) {
        let broker = Arc::clone(broker);
        return Ok(Reply::Serial(Box::pin(async move {
            let response = offsets_from_disk(&broker, version, &asked).await?;
            request.answer_or_close(&response)
        })));
    }
    let list = |isolation, topic: &TopicName, partition: &ListOffsetsPartition| {
        list(broker, version, isolation, topic, partition)
    };
    request.reply(&offsets(version, &asked, list))
}

/// Whether it reads indexes and batches, or the directory of a cold log.
fn needs_disk(
    broker: &Broker,
    version: i16,
    topic: &TopicName,
    partition: &ListOffsetsPartition,
) -> bool {
    let Some(spec) = spec(version, partition.timestamp) else { return false };
    let partition = broker.leader_of(topic, partition.partition_index);
    partition.is_ok_and(|partition| partition.list_offset_needs_disk(spec))
}

/// Each partition queues for a thread on its own, so that one request of many does not keep the others waiting, and none is
/// looked up for a connection that has ended. `None` when the runtime is ending.
async fn offsets_from_disk(
    broker: &Arc<Broker>,
    version: i16,
    asked: &ListOffsetsRequest,
) -> Option<ListOffsetsResponse> {
    let mut wanted = Vec::new();
    offsets(version, asked, |isolation, topic, partition| {
        wanted.push((isolation, topic.clone(), partition.clone()));
        Ok(None)
    });
    let mut found = VecDeque::with_capacity(wanted.len());
    for (isolation, topic, partition) in wanted {
        let needs_disk = needs_disk(broker, version, &topic, &partition);
        let broker = Arc::clone(broker);
        let list = move || list(&broker, version, isolation, &topic, &partition);
        found.push_back(if needs_disk { disk_readers::run_lookup(list).await? } else { list() });
    }
    let next = |_, _: &TopicName, _: &ListOffsetsPartition| {
        found.pop_front().expect("it was asked for above, in the same order")
    };
    Some(offsets(version, asked, next))
}

/// The answer, with what `list` says of each partition that is to be looked up, in order.
fn offsets(
    version: i16,
    asked: &ListOffsetsRequest,
    mut list: impl FnMut(FetchIsolation, &TopicName, &ListOffsetsPartition) -> Listed,
) -> ListOffsetsResponse {
    // A partition named twice is an invalid request, answered once.
    let mut times = times_named(asked.topics.iter().map(|topic| {
        (&topic.name, topic.partitions.iter().map(|partition| partition.partition_index))
    }));
    let isolation = FetchIsolation::from_wire(asked.isolation_level);
    let mut topics = Vec::with_capacity(asked.topics.len());
    for topic in &asked.topics {
        let mut times = times.get_mut(&topic.name);
        let mut partitions = Vec::with_capacity(topic.partitions.len());
        for partition in &topic.partitions {
            let index = partition.partition_index;
            let times = times.as_mut().and_then(|times| times.get_mut(&index));
            let result = match (times, isolation) {
                (Some(0), _) => continue,
                (Some(times), _) if *times > 1 => {
                    *times = 0;
                    Err(ResponseError::InvalidRequest)
                }
                (_, None) => Err(ResponseError::UnknownServerError),
                (_, Some(isolation)) => list(isolation, &topic.name, partition),
            };
            partitions.push(response(version, index, result));
        }
        if !partitions.is_empty() {
            topics.push(
                ListOffsetsTopicResponse::default()
                    .with_name(topic.name.clone())
                    .with_partitions(partitions),
            );
        }
    }
    ListOffsetsResponse::default().with_topics(topics)
}

/// How often each partition is named. Names are compared once a topic of the request, not once a partition.
fn times_named<K: Ord>(
    topics: impl Iterator<Item = (K, impl Iterator<Item = i32>)>,
) -> BTreeMap<K, BTreeMap<i32, usize>> {
    let mut times: BTreeMap<K, BTreeMap<i32, usize>> = BTreeMap::new();
    for (topic, partitions) in topics {
        let times = times.entry(topic).or_default();
        for partition in partitions {
            *times.entry(partition).or_default() += 1;
        }
    }
    times
}

fn list(
    broker: &Broker,
    version: i16,
    isolation: FetchIsolation,
    topic: &TopicName,
    asked: &ListOffsetsPartition,
) -> Listed {
    let read = || -> Result<Option<ListedOffset>, ReadError> {
        let partition = broker.leader_of(topic, asked.partition_index)?;
        partition.check_leader_epoch_or_none(asked.current_leader_epoch)?;
        let spec = spec(version, asked.timestamp).ok_or(ReadError::UnsupportedTimestamp)?;
        partition.list_offset(spec, isolation, broker.clock().wall())
    };
    read().map_err(|error| error.to_error_code())
}

/// What a timestamp on the wire asks for, if this version knows it.
fn spec(version: i16, timestamp: i64) -> Option<OffsetSpec> {
    Some(match timestamp {
        -1 => OffsetSpec::Latest,
        -2 => OffsetSpec::Earliest,
        -3 if version >= 7 => OffsetSpec::MaxTimestamp,
        // Without tiering, everything is local.
        -4 if version >= 8 => OffsetSpec::Earliest,
        -5 if version >= 9 => OffsetSpec::LatestTiered,
        _ => OffsetSpec::Timestamp(Timestamp::new(timestamp)?),
    })
}

fn response(
    version: i16,
    index: i32,
    result: Result<Option<ListedOffset>, ResponseError>,
) -> ListOffsetsPartitionResponse {
    let response = ListOffsetsPartitionResponse::default().with_partition_index(index);
    match result {
        Ok(Some(found)) => {
            let response = response
                .with_timestamp(Timestamp::to_wire(found.timestamp))
                .with_offset(found.offset.value());
            match found.leader_epoch {
                Some(epoch) if version >= FIRST_WITH_LEADER_EPOCH => {
                    response.with_leader_epoch(epoch.value())
                }
                _ => response,
            }
        }
        Ok(None) => response,
        Err(error) => response.with_error_code(error.code()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kafka_protocol::messages::list_offsets_request::ListOffsetsTopic;
    use kafka_protocol::protocol::StrBytes;
    use storage::offset::Offset;

    #[test]
    fn a_partition_is_counted_in_all_places_that_name_its_topic() {
        let topics = [("a", vec![0, 1, 1]), ("b", vec![0]), ("a", vec![1, 2])];
        let times = times_named(topics.into_iter().map(|(name, at)| (name, at.into_iter())));
        assert_eq!(times["a"], BTreeMap::from([(0, 1), (1, 3), (2, 1)]));
        assert_eq!(times["b"], BTreeMap::from([(0, 1)]));
    }

    #[test]
    fn what_is_looked_up_in_order_is_answered_in_its_place() {
        let topic = |name: &str, partitions: &[i32]| {
            let partition = |index: &i32| {
                ListOffsetsPartition::default().with_partition_index(*index).with_timestamp(5)
            };
            ListOffsetsTopic::default()
                .with_name(TopicName(StrBytes::from_string(name.to_owned())))
                .with_partitions(partitions.iter().map(partition).collect())
        };
        let topics = vec![topic("a", &[3, 1, 1]), topic("b", &[0]), topic("a", &[2, 3])];
        let asked = ListOffsetsRequest::default().with_topics(topics);
        let mut looked_up = Vec::new();
        let answer = offsets(7, &asked, |_, topic, partition| {
            looked_up.push((topic.to_string(), partition.partition_index));
            let offset = Offset::new(10 * looked_up.len() as i64).unwrap();
            Ok(Some(ListedOffset { timestamp: None, offset, leader_epoch: None }))
        });
        assert_eq!(looked_up, [("b".to_owned(), 0), ("a".to_owned(), 2)]);
        let answered: Vec<_> = answer
            .topics
            .iter()
            .flat_map(|topic| {
                let name = topic.name.to_string();
                topic
                    .partitions
                    .iter()
                    .map(move |one| (name.clone(), one.partition_index, one.offset))
            })
            .collect();
        let wanted = [("a", 3, -1), ("a", 1, -1), ("b", 0, 10), ("a", 2, 20)];
        assert_eq!(
            answered,
            wanted.map(|(topic, index, offset)| (topic.to_owned(), index, offset))
        );
    }

    #[test]
    fn special_timestamps_exist_from_their_version_on() {
        assert_eq!(spec(6, -3), None);
        assert_eq!(spec(7, -3), Some(OffsetSpec::MaxTimestamp));
        assert_eq!(spec(7, -4), None);
        assert_eq!(spec(10, -6), None);
        assert_eq!(spec(1, 0), Some(OffsetSpec::Timestamp(Timestamp::ZERO)));
    }
}
