//! Produce, v3–v13 (0–2 are only advertised). v5 log start · v7 zstd (KIP-110) · v8 record errors (KIP-467)
//! · v9 flexible · v10 current leader (KIP-951) · v13 topic ids (KIP-516). Checks in the order of kafka-facts §4.1.
//!
//! Each partition stands alone: one partition's error never fails another. The record bytes are never copied: a
//! validated batch aliases the frame.

use crate::api::dispatch::{Refused, Reply, Request};
use crate::api::error_code::ToErrorCode;
use crate::broker::{Broker, is_internal_topic};
use crate::network::response::Response;
use crate::replica_manager::PartitionKey;
use crate::replica_manager::append::{AppendRequest, Appended, ProduceError};
use kafka_protocol::ResponseError;
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::produce_response::{
    BatchIndexAndErrorMessage, LeaderIdAndEpoch, NodeEndpoint, PartitionProduceResponse,
    TopicProduceResponse,
};
use kafka_protocol::messages::{BrokerId, ProduceRequest, ProduceResponse, TopicName};
use kafka_protocol::protocol::StrBytes;
use replication::partition::acks::RequiredAcks;
use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;
use storage::topic_partition::TopicId;
use uuid::Uuid;

const FIRST_WITH_ZSTD: i16 = 7;
const FIRST_WITH_RECORD_ERRORS: i16 = 8;
const FIRST_WITH_CURRENT_LEADER: i16 = 10;
const FIRST_WITH_TOPIC_IDS: i16 = 13;

/// The client id by which Kafka's own admin tools may write them all the same.
const ADMIN_CLIENT_ID: &str = "__admin_client";

pub(crate) fn handle(broker: &Arc<Broker>, mut request: Request) -> Result<Reply, Refused> {
    let asked: ProduceRequest = request.decode()?;
    let acks = match asked.acks {
        0 => Some(None),
        1 => Some(Some(RequiredAcks::Leader)),
        -1 => Some(Some(RequiredAcks::All)),
        _ => None,
    };
    let timeout = Duration::from_millis(u64::try_from(asked.timeout_ms).unwrap_or(0));
    let is_transactional = asked.transactional_id.is_some()
        || asked.topic_data.iter().flat_map(|topic| &topic.partition_data).any(claims_transaction);

    let mut answer = Answer { topics: Vec::new(), version: request.api_version };
    let mut appends = Vec::new();
    for topic in merged(asked.topic_data) {
        let resolved = resolve(broker, request.api_version, &topic.name, topic.topic_id);
        let mut partitions = Vec::with_capacity(topic.partition_data.len());
        for data in topic.partition_data {
            let place = (answer.topics.len(), partitions.len());
            let index = data.index;
            let outcome = if is_transactional {
                Err(ProduceError::TransactionsUnavailable)
            } else {
                match &resolved {
                    Ok(name) => {
                        admit(broker, &request, acks.is_some(), place, name, data).map(|append| {
                            appends.push(append);
                        })
                    }
                    Err(error) => Err(error.clone()),
                }
            };
            partitions.push((index, outcome.err().map(Err)));
        }
        let resolved = resolved.ok();
        let (name, topic_id) = (topic.name, topic.topic_id);
        answer.topics.push(TopicAnswer { name, topic_id, resolved, partitions });
    }

    // An invalid acks was answered for every partition that got this far, so nothing is left to append.
    let Some(acks) = acks else {
        return request.reply(&answer.into_response(broker, &request));
    };
    let waiting = broker.replica_manager().append(appends, acks, timeout);
    if acks.is_none() {
        answer.fill(waiting.into_now());
        return match answer.first_error() {
            Some(error) => Err(Refused::UnacknowledgedProduce(error)),
            None => Ok(Reply::Nothing),
        };
    }
    match waiting.try_now() {
        Ok(results) => {
            answer.fill(results);
            request.reply(&answer.into_response(broker, &request))
        }
        Err(waiting) => {
            let broker = Arc::clone(broker);
            answer.detach();
            // It waits from now on, whenever its future is polled.
            let results = waiting.wait();
            Ok(Reply::Waiting(Box::pin(async move {
                answer.fill(results.await);
                let response = answer.into_response(&broker, &request);
                request.answer_or_close(&response) as Option<Response>
            })))
        }
    }
}

/// One entry a topic and one a partition, the last one where there are more; topics without partitions fall away. As
/// Kafka does it, and nobody sends it: requests that are in order already, nearly all, are given back as they are.
fn merged(topics: Vec<TopicProduceData>) -> Vec<TopicProduceData> {
    let is_ascending = |topic: &TopicProduceData| {
        !topic.partition_data.is_empty()
            && topic.partition_data.is_sorted_by(|one, next| one.index < next.index)
    };
    if topics.len() == 1 && is_ascending(&topics[0]) {
        return topics;
    }
    let mut places: HashMap<(TopicName, Uuid), usize> = HashMap::with_capacity(topics.len());
    let mut merged: Vec<TopicProduceData> = Vec::with_capacity(topics.len());
    for mut topic in topics {
        match places.entry((topic.name.clone(), topic.topic_id)) {
            Entry::Vacant(place) => {
                place.insert(merged.len());
                merged.push(topic);
            }
            Entry::Occupied(place) => {
                merged[*place.get()].partition_data.append(&mut topic.partition_data);
            }
        }
    }
    for topic in &mut merged {
        if !is_ascending(topic) {
            let data = std::mem::take(&mut topic.partition_data);
            let last: BTreeMap<i32, _> = data.into_iter().map(|data| (data.index, data)).collect();
            topic.partition_data = last.into_values().collect();
        }
    }
    merged.retain(|topic| !topic.partition_data.is_empty());
    merged
}

/// Whether a batch has the transactional bit: attributes, bytes 21 and 22 of a batch, bit 4.
fn claims_transaction(data: &PartitionProduceData) -> bool {
    const ATTRIBUTES_LOW_BYTE: usize = 22;
    const TRANSACTIONAL: u8 = 1 << 4;
    const MAGIC_BYTE: usize = 16;
    data.records.as_ref().is_some_and(|records| {
        records.get(MAGIC_BYTE) == Some(&2)
            && records.get(ATTRIBUTES_LOW_BYTE).is_some_and(|byte| byte & TRANSACTIONAL != 0)
    })
}

/// The topic's name, whichever way the request names it.
fn resolve(
    broker: &Broker,
    version: i16,
    name: &TopicName,
    topic_id: Uuid,
) -> Result<Arc<str>, ProduceError> {
    if version < FIRST_WITH_TOPIC_IDS {
        return Ok(Arc::from(name.as_str()));
    }
    let id = TopicId::from_bytes(*topic_id.as_bytes());
    broker.image().topic(id).map(|topic| topic.name.clone()).ok_or(ProduceError::UnknownTopicId)
}

/// Rows 1 to 9 of kafka-facts §4.1 for one partition.
fn admit(
    broker: &Broker,
    request: &Request,
    is_acks_valid: bool,
    place: (usize, usize),
    name: &Arc<str>,
    data: PartitionProduceData,
) -> Result<AppendRequest, ProduceError> {
    let image = broker.image();
    let topic = image.topic_by_name(name).ok_or(ProduceError::UnknownTopicOrPartition)?;
    let partition = topic.partition(data.index).ok_or(ProduceError::UnknownTopicOrPartition)?;
    let records = data.records.ok_or(ProduceError::NoRecords)?;
    if request.api_version < FIRST_WITH_ZSTD && claims_zstd(&records) {
        return Err(ProduceError::UnsupportedCompression);
    }
    if !is_acks_valid {
        return Err(ProduceError::InvalidRequiredAcks);
    }
    if is_internal_topic(name) && request.client_id.as_deref() != Some(ADMIN_CLIENT_ID) {
        return Err(ProduceError::InternalTopic);
    }
    let current_leader = partition.leader.map(|leader| (leader, partition.leader_epoch));
    let key = PartitionKey { topic_id: topic.topic_id, partition: data.index };
    Ok(AppendRequest { place, key, current_leader, records })
}

/// Whether a batch says that it is compressed by zstd (codec 4 in the three low bits of its attributes).
fn claims_zstd(records: &[u8]) -> bool {
    records.get(16) == Some(&2) && records.get(22).is_some_and(|byte| byte & 7 == 4)
}

type Outcome = Result<Appended, ProduceError>;

/// The answer in the grouping of the request.
struct Answer {
    topics: Vec<TopicAnswer>,
    version: i16,
}

struct TopicAnswer {
    name: TopicName,
    topic_id: Uuid,
    resolved: Option<Arc<str>>,
    partitions: Vec<(i32, Option<Outcome>)>,
}

impl Answer {
    fn fill(&mut self, results: Vec<((usize, usize), Outcome)>) {
        for ((topic, partition), outcome) in results {
            self.topics[topic].partitions[partition].1 = Some(outcome);
        }
    }

    /// Copies the names out of the frame: up to 32 KiB came together with it, and all of that would be kept for them while the
    /// answer waits.
    fn detach(&mut self) {
        for topic in &mut self.topics {
            topic.name = TopicName(StrBytes::from_string(topic.name.to_string()));
        }
    }

    fn first_error(&self) -> Option<String> {
        self.topics
            .iter()
            .flat_map(|topic| &topic.partitions)
            .find_map(|(_, outcome)| outcome.as_ref()?.as_ref().err().map(ToString::to_string))
    }

    fn into_response(self, broker: &Broker, request: &Request) -> ProduceResponse {
        let version = self.version;
        let mut leaders = Vec::new();
        let responses = self
            .topics
            .into_iter()
            .map(|topic| {
                let partitions = topic
                    .partitions
                    .into_iter()
                    .map(|(index, outcome)| {
                        let outcome = outcome.expect("every partition was answered or appended");
                        let mut response =
                            partition_response(version, index, &outcome, &mut leaders);
                        if outcome.is_err_and(|error| error.tells_log_start())
                            && let Some(name) = &topic.resolved
                            && let Ok(partition) = broker.leader_of(name, index)
                        {
                            let log_start = partition.snapshot().offsets.log_start;
                            response = response.with_log_start_offset(log_start.value());
                        }
                        response
                    })
                    .collect();
                TopicProduceResponse::default()
                    .with_name(topic.name)
                    .with_topic_id(topic.topic_id)
                    .with_partition_responses(partitions)
            })
            .collect();
        let response = ProduceResponse::default().with_responses(responses);
        if leaders.is_empty() {
            return response;
        }
        let endpoints = broker
            .node_endpoints(&request.connection, &leaders)
            .into_iter()
            .map(|node| {
                NodeEndpoint::default()
                    .with_node_id(BrokerId(node.id))
                    .with_host(node.host)
                    .with_port(node.port)
                    .with_rack(node.rack)
            })
            .collect();
        response.with_node_endpoints(endpoints)
    }
}

fn partition_response(
    version: i16,
    index: i32,
    outcome: &Outcome,
    leaders: &mut Vec<i32>,
) -> PartitionProduceResponse {
    let response = PartitionProduceResponse::default().with_index(index);
    let error = match outcome {
        Ok(appended) => {
            return response
                .with_base_offset(appended.base_offset.value())
                .with_log_append_time_ms(appended.log_append_time.map_or(-1, |time| time.value()))
                .with_log_start_offset(appended.log_start_offset.value());
        }
        Err(error) => error,
    };
    let code: ResponseError = error.to_error_code();
    let mut response = response
        .with_error_code(code.code())
        .with_base_offset(-1)
        .with_log_append_time_ms(-1)
        .with_log_start_offset(-1);
    if version >= FIRST_WITH_RECORD_ERRORS {
        let records = error.record_errors().iter().map(|record| {
            BatchIndexAndErrorMessage::default()
                .with_batch_index(record.batch_index)
                .with_batch_index_error_message(Some(StrBytes::from_string(record.message.clone())))
        });
        response = response
            .with_record_errors(records.collect())
            .with_error_message(error.client_message().map(StrBytes::from_string));
    }
    if version >= FIRST_WITH_CURRENT_LEADER
        && let ProduceError::NotLeader { current_leader: Some((leader, epoch)) } = error
    {
        leaders.push(leader.value());
        response = response.with_current_leader(
            LeaderIdAndEpoch::default()
                .with_leader_id(BrokerId(leader.value()))
                .with_leader_epoch(epoch.value()),
        );
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    #[test]
    fn an_answer_that_waits_does_not_keep_what_came_with_its_request() {
        let frame = Bytes::from(b"orders and all that came behind it".to_vec());
        let name = TopicName(StrBytes::from_utf8(frame.slice(..6)).expect("letters"));
        let topic =
            TopicAnswer { name, topic_id: Uuid::nil(), resolved: None, partitions: Vec::new() };
        let mut answer = Answer { topics: vec![topic], version: 9 };
        assert!(!frame.is_unique());
        answer.detach();
        assert!(frame.is_unique());
        assert_eq!(answer.topics[0].name.as_str(), "orders");
    }
}
