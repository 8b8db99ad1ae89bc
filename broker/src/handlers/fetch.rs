//! Fetch, v4–v18. v5 log start · v7 sessions (KIP-227) · v9 leader epoch (KIP-320) · v11 rack (KIP-392)
//! · v12 flexible, diverging epoch (KIP-595) · v13 topic ids (KIP-516) · v15 replica state (KIP-903)
//! · v16 current leader (KIP-951) · v17 directory id · v18 high watermark of the replica.
//! Limit: consumers to the high watermark, with read_committed to the last stable offset (kafka-facts §6).
//!
//! A fetch reads at once; when there is too little it waits in the purgatory and then reads everything again.

mod response;

use crate::api::dispatch::{Refused, Reply, Request};
use crate::broker::Broker;
use crate::fetch_session::{
    FetchContext, FetchPosition, PartitionKey as SessionKey, SessionAnswer, TopicKey,
};
use crate::network::response::Response;
use crate::replica_manager::PartitionKey;
use crate::replica_manager::read::{
    FetchIsolation, FetchLimits, PartitionRead, ReadError, ReadRequest,
};
use bytes::Bytes;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::fetch_request::FetchPartition;
use kafka_protocol::messages::fetch_response::{FetchableTopicResponse, PartitionData};
use kafka_protocol::messages::{FetchRequest, FetchResponse};
use std::sync::Arc;
use std::time::Duration;
use storage::instant::Instant;
use storage::topic_partition::TopicId;

const FIRST_WITH_SESSIONS: i16 = 7;
const FIRST_WITH_TOPIC_IDS: i16 = 13;
const FIRST_WITH_REPLICA_STATE: i16 = 15;

pub(crate) fn handle(broker: &Arc<Broker>, mut request: Request) -> Result<Reply, Refused> {
    let asked: FetchRequest = request.decode()?;
    let version = request.api_version;
    let Some(isolation) = FetchIsolation::from_wire(asked.isolation_level) else {
        return unknown_isolation(&request, asked);
    };
    let replica_id = match version {
        FIRST_WITH_REPLICA_STATE.. => asked.replica_state.replica_id.0,
        _ => asked.replica_id.0,
    };
    let bytes = |asked: i32| usize::try_from(asked).unwrap_or(0);
    let max_bytes = bytes(asked.max_bytes).min(broker.config().fetch_max_bytes);
    // Nobody can wait for more than may be answered.
    let limits = FetchLimits { max_bytes, min_bytes: bytes(asked.min_bytes).min(max_bytes) };
    let is_limit_negative = asked.max_bytes < 0;
    let max_wait = Duration::from_millis(u64::try_from(asked.max_wait_ms).unwrap_or(0));
    let context = match open_session(broker, version, asked) {
        Ok(context) => context,
        Err(error) => return top_level(&request, error),
    };
    let fetch = Fetch {
        broker: Arc::clone(broker),
        requests: resolve(broker, &context, replica_id, is_limit_negative),
        request,
        context,
        isolation,
        limits,
        deadline: broker.clock().now().plus(max_wait),
    };
    let reads = fetch.read();
    if max_wait.is_zero() || fetch.is_enough(&reads) {
        return Ok(Reply::Now(fetch.answer(reads)?));
    }
    Ok(Reply::Serial(Box::pin(fetch.wait(reads))))
}

/// An error for the whole request, without partitions.
fn top_level(request: &Request, error: ResponseError) -> Result<Reply, Refused> {
    let response = FetchResponse::default();
    request.reply(&if request.api_version >= FIRST_WITH_SESSIONS {
        response.with_error_code(error.code())
    } else {
        response
    })
}

/// What Kafka answers an isolation level that does not exist: UNKNOWN_SERVER_ERROR, up to v12 for each partition too.
fn unknown_isolation(request: &Request, asked: FetchRequest) -> Result<Reply, Refused> {
    let error = ResponseError::UnknownServerError;
    if request.api_version >= FIRST_WITH_TOPIC_IDS {
        return top_level(request, error);
    }
    let refused = |partition: FetchPartition| {
        PartitionData::default()
            .with_partition_index(partition.partition)
            .with_error_code(error.code())
            .with_high_watermark(-1)
            .with_aborted_transactions(Some(Vec::new()))
            .with_records(Some(Bytes::new()))
    };
    let topics = asked.topics.into_iter().map(|topic| {
        FetchableTopicResponse::default()
            .with_topic(topic.topic)
            .with_partitions(topic.partitions.into_iter().map(refused).collect())
    });
    let response = FetchResponse::default().with_responses(topics.collect());
    request.reply(&if request.api_version >= FIRST_WITH_SESSIONS {
        response.with_error_code(error.code())
    } else {
        response
    })
}

fn open_session(
    broker: &Broker,
    version: i16,
    asked: FetchRequest,
) -> Result<FetchContext, ResponseError> {
    let uses_topic_ids = version >= FIRST_WITH_TOPIC_IDS;
    let key = |name, id| if uses_topic_ids { TopicKey::Id(id) } else { TopicKey::Name(name) };
    let mut partitions = Vec::new();
    for topic in asked.topics {
        let topic_key = key(topic.topic, topic.topic_id);
        for partition in topic.partitions {
            let position = FetchPosition {
                fetch_offset: partition.fetch_offset,
                current_leader_epoch: partition.current_leader_epoch,
                last_fetched_epoch: partition.last_fetched_epoch,
                log_start_offset: partition.log_start_offset,
                max_bytes: partition.partition_max_bytes,
            };
            let topic = topic_key.clone();
            partitions.push((SessionKey { topic, partition: partition.partition }, position));
        }
    }
    let mut forgotten = Vec::new();
    for topic in asked.forgotten_topics_data {
        let topic_key = key(topic.topic, topic.topic_id);
        for partition in topic.partitions {
            forgotten.push(SessionKey { topic: topic_key.clone(), partition });
        }
    }
    // Versions before sessions say (0, -1) by the crate's defaults.
    let session = (asked.session_id, asked.session_epoch);
    broker
        .fetch_sessions()
        .begin(session, uses_topic_ids, partitions, &forgotten, broker.clock().now())
        .map_err(|error| crate::api::error_code::ToErrorCode::to_error_code(&error))
}

/// Finds each partition's topic id, once: a fetch that waits keeps reading the same topics.
fn resolve(
    broker: &Broker,
    context: &FetchContext,
    replica_id: i32,
    is_limit_negative: bool,
) -> Vec<ReadRequest> {
    let image = broker.image();
    context
        .partitions
        .iter()
        .map(|(key, position)| {
            let topic = match &key.topic {
                TopicKey::Name(name) => {
                    image.topic_by_name(name).ok_or(ReadError::UnknownTopicOrPartition)
                }
                TopicKey::Id(id) => image
                    .topic(TopicId::from_bytes(*id.as_bytes()))
                    .ok_or(ReadError::UnknownTopicId),
            };
            let partition = topic.and_then(|topic| {
                topic
                    .partition(key.partition)
                    .map(|_| PartitionKey { topic_id: topic.topic_id, partition: key.partition })
                    .ok_or(ReadError::UnknownTopicOrPartition)
            });
            let partition = partition.and_then(|key| {
                if is_limit_negative { Err(ReadError::NegativeLimit) } else { Ok(key) }
            });
            ReadRequest { partition, position: *position, replica_id }
        })
        .collect()
}

/// One fetch under way.
struct Fetch {
    broker: Arc<Broker>,
    request: Request,
    context: FetchContext,
    requests: Vec<ReadRequest>,
    isolation: FetchIsolation,
    limits: FetchLimits,
    deadline: Instant,
}

impl Fetch {
    fn read(&self) -> Vec<PartitionRead> {
        self.broker.replica_manager().read(&self.requests, self.isolation, self.limits)
    }

    /// Whether there is nothing to wait for.
    fn is_enough(&self, reads: &[PartitionRead]) -> bool {
        let bytes: usize = reads.iter().map(PartitionRead::len_bytes).sum();
        reads.is_empty()
            || bytes >= self.limits.min_bytes
            || reads.iter().any(|read| read.error.is_some() || read.diverging_epoch.is_some())
    }

    async fn wait(self, mut reads: Vec<PartitionRead>) -> Option<Response> {
        while !self.is_enough(&reads) {
            let replica_manager = self.broker.replica_manager();
            let is_expired = replica_manager
                .wait_for_more(&self.requests, &reads, self.isolation, self.limits, self.deadline)
                .await;
            reads = self.read();
            if is_expired {
                break;
            }
        }
        self.answer(reads)
            .inspect_err(|error| tracing::error!(%error, "closing the connection"))
            .ok()
    }

    fn answer(
        &self,
        reads: Vec<PartitionRead>,
    ) -> Result<Response, crate::network::response::EncodeError> {
        let outcomes: Vec<_> = reads.iter().map(PartitionRead::outcome).collect();
        let answer: SessionAnswer = self.broker.fetch_sessions().finish(
            &self.context,
            &outcomes,
            self.broker.clock().now(),
            || self.broker.random_positive_i32(),
        );
        response::encode(&self.broker, &self.request, &self.context, reads, &answer)
    }
}
