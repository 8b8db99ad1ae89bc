//! Fetch, v4–v18. v5 log start · v7 sessions (KIP-227) · v9 leader epoch (KIP-320) · v11 rack (KIP-392)
//! · v12 flexible, diverging epoch (KIP-595) · v13 topic ids (KIP-516) · v15 replica state (KIP-903)
//! · v16 current leader (KIP-951) · v17 directory id · v18 high watermark of the replica.
//! Limit: consumers to the high watermark, with read_committed to the last stable offset (kafka-facts §6).
//!
//! A fetch reads at once; when there is too little it waits until its partitions together may have enough, or one of them has
//! changed otherwise, and reads again those that have moved.

mod response;

use crate::api::dispatch::{Refused, Reply, Request};
use crate::broker::Broker;
use crate::disk_readers;
use crate::fetch_session::{
    FetchContext, FetchPosition, FetchView, FetchedPartition, Forgotten,
    PartitionKey as SessionKey, SessionAnswer, TopicKey, last_of_each,
};
use crate::network::response::Response;
use crate::replica_manager::PartitionKey;
use crate::replica_manager::read::{
    FetchIsolation, FetchLimits, PartitionRead, ReadError, ReadRequest,
};
use crate::replica_manager::ready_set::{ExpiringWait, ReadySet};
use bytes::Bytes;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::fetch_request::FetchPartition;
use kafka_protocol::messages::fetch_response::{FetchableTopicResponse, PartitionData};
use kafka_protocol::messages::{FetchRequest, FetchResponse};
use std::collections::HashMap;
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
    let view = FetchView {
        metadata: broker.image().position(),
        isolation_level: asked.isolation_level,
        replica_id,
    };
    let context = match open_session(broker, version, asked, view) {
        Ok(context) => context,
        Err(error) => return top_level(&request, error),
    };
    let mut fetch = Fetch {
        broker: Arc::clone(broker),
        request,
        context,
        partitions: Vec::new(),
        isolation,
        limits,
        replica_id,
        is_limit_negative,
        deadline: broker.clock().now().plus(max_wait),
    };
    let partitions = std::mem::take(&mut fetch.context.partitions);
    fetch.add(partitions);
    if !fetch.read(false) {
        return Ok(Reply::Serial(Box::pin(fetch.read_from_disk_and_wait())));
    }
    if max_wait.is_zero() || fetch.is_enough() {
        return Ok(Reply::Now(fetch.answer()?));
    }
    Ok(Reply::Serial(Box::pin(fetch.wait())))
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
    view: FetchView,
) -> Result<FetchContext, ResponseError> {
    let uses_topic_ids = version >= FIRST_WITH_TOPIC_IDS;
    let key = |name, id| if uses_topic_ids { TopicKey::Id(id) } else { TopicKey::Name(name) };
    let position = |partition: FetchPartition| {
        let position = FetchPosition {
            fetch_offset: partition.fetch_offset,
            current_leader_epoch: partition.current_leader_epoch,
            last_fetched_epoch: partition.last_fetched_epoch,
            log_start_offset: partition.log_start_offset,
            max_bytes: partition.partition_max_bytes,
        };
        (partition.partition, position)
    };
    let topics = asked.topics.into_iter().map(|topic| {
        let partitions = topic.partitions.into_iter().map(position).collect();
        (key(topic.topic, topic.topic_id), partitions)
    });
    let partitions = last_of_each(topics.collect());
    let named = |(topic, partition, position)| (SessionKey { topic, partition }, position);
    let partitions = partitions.into_iter().map(named).collect();
    let forgotten = asked
        .forgotten_topics_data
        .into_iter()
        .map(|topic| (key(topic.topic, topic.topic_id), topic.partitions));
    let forgotten = Forgotten::new(forgotten);
    // Versions before sessions say (0, -1) by the crate's defaults.
    let session = (asked.session_id, asked.session_epoch);
    broker
        .fetch_sessions()
        .begin(session, uses_topic_ids, partitions, &forgotten, view, broker.clock().now())
        .map_err(|error| crate::api::error_code::ToErrorCode::to_error_code(&error))
}

/// One partition of a fetch under way.
struct Fetching {
    partition: FetchedPartition,
    request: ReadRequest,
    /// What was read; `None` when it is to be read again, because it has moved.
    read: Option<PartitionRead>,
}

impl Fetching {
    fn must_be_read(&self) -> bool {
        // The bytes found before may not be what an answer under the same limits holds now.
        self.read.as_ref().is_none_or(|read| !read.is_at_end)
    }
}

/// One fetch under way.
struct Fetch {
    broker: Arc<Broker>,
    request: Request,
    /// Its partitions are in `partitions` until the answer.
    context: FetchContext,
    /// In the order in which they are read.
    partitions: Vec<Fetching>,
    isolation: FetchIsolation,
    limits: FetchLimits,
    replica_id: i32,
    is_limit_negative: bool,
    deadline: Instant,
}

impl Fetch {
    /// Takes partitions in: finds each topic's id, once, for a fetch that waits keeps reading the same topics; and has them
    /// marked when they move, if there is a session to mark them in.
    fn add(&mut self, partitions: Vec<FetchedPartition>) {
        let broker = Arc::clone(&self.broker);
        let image = broker.image();
        for partition in partitions {
            let key = &partition.key;
            let topic = match &key.topic {
                TopicKey::Name(name) => {
                    image.topic_by_name(name).ok_or(ReadError::UnknownTopicOrPartition)
                }
                TopicKey::Id(id) => image
                    .topic(TopicId::from_bytes(*id.as_bytes()))
                    .ok_or(ReadError::UnknownTopicId),
            };
            let found = topic.and_then(|topic| {
                topic
                    .partition(key.partition)
                    .map(|_| PartitionKey { topic_id: topic.topic_id, partition: key.partition })
                    .ok_or(ReadError::UnknownTopicOrPartition)
            });
            let found = found.and_then(|key| {
                if self.is_limit_negative { Err(ReadError::NegativeLimit) } else { Ok(key) }
            });
            if let (Some(ready), Ok(key)) = (self.context.ready(), &found) {
                broker.replica_manager().watch(key, ready, partition.slot);
            }
            let position = partition.position;
            let request = ReadRequest { partition: found, position, replica_id: self.replica_id };
            self.partitions.push(Fetching { partition, request, read: None });
        }
    }

    /// Reads what was not read yet, has moved, or had more than nothing. `false` if a part of it would have had to wait for the
    /// disk, and this was not to.
    fn read(&mut self, waits: bool) -> bool {
        let due = self.partitions.iter().filter(|one| one.must_be_read());
        let requests = due.map(|one| &one.request);
        let reads =
            self.broker.replica_manager().read(requests, self.isolation, self.limits, waits);
        let due = self.partitions.iter_mut().filter(|one| one.must_be_read());
        for (one, read) in due.zip(reads) {
            one.read = Some(read);
        }
        !self.reads().any(PartitionRead::needs_disk)
    }

    /// The same on a thread that may wait; `None` when the broker stops.
    async fn read_from_disk(mut self) -> Option<Fetch> {
        let read = move || {
            self.read(true);
            self
        };
        disk_readers::run(read).await
    }

    async fn read_from_disk_and_wait(self) -> Option<Response> {
        let mut fetch = self.read_from_disk().await?;
        if fetch.is_enough() { fetch.answer_or_close() } else { fetch.wait().await }
    }

    fn reads(&self) -> impl Iterator<Item = &PartitionRead> {
        self.partitions.iter().filter_map(|one| one.read.as_ref())
    }

    fn len_bytes(&self) -> usize {
        self.reads().map(PartitionRead::len_bytes).sum()
    }

    /// Whether there is nothing to wait for.
    fn is_enough(&self) -> bool {
        let fetches_nothing = self.partitions.is_empty() && self.context.ready().is_none();
        fetches_nothing || is_enough(self.reads(), self.limits.min_bytes)
    }

    async fn wait(mut self) -> Option<Response> {
        let ready = match self.context.ready() {
            Some(ready) => Arc::clone(ready),
            None => self.watch(),
        };
        ready.begin_wait();
        let delayed = Arc::clone(self.broker.replica_manager().delayed_fetches());
        let waiting = ExpiringWait(Arc::clone(&ready));
        let _guard = delayed.watch(Vec::new(), self.deadline, waiting);
        let mut is_expired = false;
        self.take_moved(&ready);
        loop {
            if !self.read(false) {
                self = self.read_from_disk().await?;
            }
            if is_expired || self.is_enough() {
                break;
            }
            let wanted = self.limits.min_bytes.saturating_sub(self.len_bytes());
            is_expired = ready.wait(wanted as u64).await;
            if !self.take_moved(&ready) {
                break;
            }
        }
        self.answer_or_close()
    }

    fn answer_or_close(&mut self) -> Option<Response> {
        self.answer().inspect_err(|error| tracing::error!(%error, "closing the connection")).ok()
    }

    /// Has the partitions marked in a set of this fetch's own, those at once that have moved since they were read.
    fn watch(&self) -> Arc<ReadySet> {
        let ready = Arc::default();
        for one in &self.partitions {
            let Ok(key) = &one.request.partition else { continue };
            let now = self.broker.replica_manager().watch(key, &ready, one.partition.slot);
            if now != one.read.as_ref().and_then(|read| read.seen) {
                ready.queue(one.partition.slot);
            }
        }
        ready
    }

    /// Lets go of what was read of partitions that have moved since. `false` when the session is gone.
    fn take_moved(&mut self, ready: &ReadySet) -> bool {
        if self.context.ready().is_none() {
            for slot in ready.take() {
                self.partitions[slot as usize].read = None;
            }
            return true;
        }
        let moved = self.broker.fetch_sessions().take_ready(&self.context);
        let Some(mut moved) = moved else { return false };
        if moved.is_empty() {
            return true;
        }
        let mut known: HashMap<u32, &mut Fetching> =
            self.partitions.iter_mut().map(|one| (one.partition.slot, one)).collect();
        moved.retain(|partition| match known.get_mut(&partition.slot) {
            Some(known) if known.partition.key == partition.key => {
                known.read = None;
                false
            }
            _ => true,
        });
        self.add(moved);
        self.partitions.sort_by_key(|one| one.partition.order());
        true
    }

    fn answer(&mut self) -> Result<Response, crate::network::response::EncodeError> {
        let mut reads = Vec::with_capacity(self.partitions.len());
        for one in std::mem::take(&mut self.partitions) {
            self.context.partitions.push(one.partition);
            reads.push(one.read.expect("the answer comes after a read"));
        }
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

/// Whether what was read is to be answered at once.
fn is_enough<'a>(reads: impl Iterator<Item = &'a PartitionRead>, min_bytes: usize) -> bool {
    let (mut size_bytes, mut is_cut) = (0, false);
    for read in reads {
        if read.error.is_some() || read.diverging_epoch.is_some() {
            return true;
        }
        size_bytes += read.len_bytes();
        is_cut |= read.records.is_cut;
    }
    // What is there and was not given, because only whole batches are or a segment ended, would be waited for in vain: not
    // even the whole of it need be given, as long as the client gets something to go on with.
    size_bytes >= min_bytes || (is_cut && size_bytes > 0)
}

impl Drop for Fetch {
    /// A fetch that is given up has answered nothing: what it took from its session is ready again.
    fn drop(&mut self) {
        if let Some(ready) = self.context.ready() {
            for one in &self.partitions {
                ready.queue(one.partition.slot);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use storage::log::FetchedRecords;

    fn read(size_bytes: usize, is_cut: bool) -> PartitionRead {
        PartitionRead {
            error: None,
            high_watermark: 5,
            last_stable_offset: 5,
            log_start_offset: 0,
            aborted_transactions: None,
            diverging_epoch: None,
            records: FetchedRecords { slices: Vec::new(), size_bytes, is_cut },
            is_at_end: false,
            seen: None,
        }
    }

    #[test]
    fn a_fetch_does_not_wait_for_what_is_there_and_does_not_fit() {
        assert!(!is_enough([read(100, false), read(0, false)].iter(), 101));
        assert!(is_enough([read(100, false), read(1, false)].iter(), 101));
        assert!(is_enough([read(100, true), read(0, false)].iter(), 101));
        assert!(is_enough([read(100, false), read(0, true)].iter(), 101), "another one's batch");
        assert!(!is_enough([read(0, true)].iter(), 101), "an empty answer helps nobody on");
    }

    #[test]
    fn an_error_is_answered_at_once() {
        let error = Some(ReadError::UnknownTopicId);
        assert!(is_enough([PartitionRead { error, ..read(0, false) }].iter(), 101));
    }
}
