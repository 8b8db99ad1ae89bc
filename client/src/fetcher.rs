//! Reading partitions from their leaders, without a group: the caller says which, and from where.
//!
//! Every leader has one request under way, also while the caller works on the last answer. Requests have no session
//! (KIP-227): a client of ours reads few partitions. A position moves when an answer is handed out, by whole batches.

mod aborted;
mod fetched;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::fetch_response::PartitionData;
use kafka_protocol::messages::{BrokerId, FetchRequest, FetchResponse, TopicName};
use kafka_protocol::protocol::StrBytes;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};

use crate::admin::{Admin, IsolationLevel, OffsetSpec};
use crate::cluster::{Cluster, TopicId};
use crate::connection::Connection;
use crate::error::{ClientError, ConnectionError, KafkaError};
use crate::retry::{Backoff, is_retriable};
pub use fetched::FetchedPartition;

/// The first Fetch version that names topics by id only (KIP-516).
const TOPIC_ID_MIN_VERSION: i16 = 13;
const LEADER_EPOCH_MIN_VERSION: i16 = 9;

/// Where to go on when the position is outside the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OffsetReset {
    /// Nowhere: [`Fetcher::poll`] fails with OFFSET_OUT_OF_RANGE.
    #[default]
    None,
    /// At the log start offset.
    Earliest,
    /// At the end.
    Latest,
}

/// How to read.
#[derive(Clone, Copy, Debug)]
pub struct FetcherConfig {
    /// What is seen.
    pub isolation: IsolationLevel,
    /// How long a leader may wait for `min_bytes`.
    pub max_wait: Duration,
    /// An answer waits for so many bytes.
    pub min_bytes: i32,
    /// Of one answer; one batch more if it is larger.
    pub max_bytes: i32,
    /// Of one partition in an answer; one batch more if it is larger.
    pub partition_max_bytes: i32,
    /// A compressed batch may unpack to so many.
    pub max_batch_size_bytes: usize,
    /// When the position is outside the log.
    pub offset_reset: OffsetReset,
}

impl Default for FetcherConfig {
    fn default() -> Self {
        FetcherConfig {
            isolation: IsolationLevel::ReadUncommitted,
            max_wait: Duration::from_millis(500),
            min_bytes: 1,
            max_bytes: 50 << 20,
            partition_max_bytes: 1 << 20,
            max_batch_size_bytes: 256 << 20,
            offset_reset: OffsetReset::None,
        }
    }
}

type Key = (Arc<str>, i32);

#[derive(Debug)]
struct Assigned {
    position: i64,
    /// Which leader's request under way asks for it.
    asked: Option<i32>,
    not_before: Instant,
    backoff: Backoff,
    /// Since when every try has failed.
    failing_since: Option<Instant>,
    /// The position is outside the log: ask where to go on first.
    needs_reset: bool,
}

/// A request's answer, brought back by its task.
#[derive(Debug)]
struct Answered {
    broker_id: i32,
    asked: Vec<(Key, i64, Option<TopicId>)>,
    result: Result<FetchResponse, ConnectionError>,
}

/// Reads the partitions it was assigned.
#[derive(Debug)]
pub struct Fetcher {
    cluster: Cluster,
    config: FetcherConfig,
    assigned: BTreeMap<Key, Assigned>,
    connections: BTreeMap<i32, Connection>,
    answers: mpsc::UnboundedReceiver<Answered>,
    /// Bounded: one answer a leader.
    answer_sender: mpsc::UnboundedSender<Answered>,
    /// Answers handed out: requests start with another partition each time, since only the first one in an answer is
    /// sure of a whole batch.
    round: usize,
    /// Positions have moved past these; they are handed out with the next return of [`Fetcher::poll`].
    ready: Vec<FetchedPartition>,
    /// Came along with partitions that were fine; the next call fails with it.
    deferred: Option<ClientError>,
}

impl Fetcher {
    /// Without partitions.
    pub fn new(cluster: &Cluster, config: FetcherConfig) -> Fetcher {
        let (answer_sender, answers) = mpsc::unbounded_channel();
        Fetcher {
            cluster: cluster.clone(),
            config,
            assigned: BTreeMap::new(),
            connections: BTreeMap::new(),
            answers,
            answer_sender,
            round: 0,
            ready: Vec::new(),
            deferred: None,
        }
    }

    /// Reads a partition from `offset` on; moves the position if it is assigned already.
    pub fn assign(&mut self, topic: &str, partition: i32, offset: i64) {
        let asked =
            self.assigned.get(&(Arc::from(topic), partition)).and_then(|assigned| assigned.asked);
        let assigned = Assigned {
            position: offset,
            asked,
            not_before: Instant::now(),
            backoff: self.cluster.config().retry_backoff,
            failing_since: None,
            needs_reset: false,
        };
        self.assigned.insert((Arc::from(topic), partition), assigned);
    }

    /// Reads a partition no more.
    pub fn unassign(&mut self, topic: &str, partition: i32) {
        self.assigned.remove(&(Arc::from(topic), partition));
    }

    /// The next offset that is asked for; `None` if the partition is not assigned.
    pub fn position(&self, topic: &str, partition: i32) -> Option<i64> {
        self.assigned.get(&(Arc::from(topic), partition)).map(|assigned| assigned.position)
    }

    /// The next answer: partitions with new batches or with nothing new, or no partition at all when `timeout` is over.
    /// Safe to drop at any time: nothing is lost.
    ///
    /// # Errors
    /// A partition fails for good, or for longer than the cluster's API timeout; the others go on with the next call.
    pub async fn poll(&mut self, timeout: Duration) -> Result<Vec<FetchedPartition>, ClientError> {
        if let Some(error) = self.deferred.take() {
            return Err(error);
        }
        let deadline = Instant::now() + timeout;
        loop {
            // Also with an answer in hand: the next one is on its way while the caller is busy.
            let sent = self.send_fetches().await;
            if !self.ready.is_empty() {
                self.round = self.round.wrapping_add(1);
                self.deferred = self.deferred.take().or(sent.err());
                return Ok(std::mem::take(&mut self.ready));
            }
            if let Some(error) = self.deferred.take() {
                return Err(error);
            }
            let until = sent?.map_or(deadline, |next_try| next_try.min(deadline));
            match timeout_at(until, self.answers.recv()).await {
                Ok(Some(answered)) => self.handle_answer(answered),
                Ok(None) => unreachable!("we hold a sender"),
                Err(_) if Instant::now() >= deadline => return Ok(Vec::new()),
                Err(_) => {}
            }
        }
    }

    /// A request to every leader that has none; when to look again for those that have to wait.
    async fn send_fetches(&mut self) -> Result<Option<Instant>, ClientError> {
        self.reset_positions().await?;
        let now = Instant::now();
        let mut due: Vec<(Key, i64)> = Vec::new();
        for (key, assigned) in &self.assigned {
            if assigned.asked.is_none() && !assigned.needs_reset && assigned.not_before <= now {
                due.push((key.clone(), assigned.position));
            }
        }
        if due.is_empty() {
            return Ok(self.next_try(now));
        }
        let start = self.round % due.len();
        due.rotate_left(start);
        type Asked = Vec<(Key, i64, Option<i32>, Option<TopicId>)>;
        let mut by_leader: BTreeMap<i32, Asked> = BTreeMap::new();
        for (key, position) in due {
            match self.cluster.leader(&key.0, key.1).await {
                Ok(leader) => by_leader.entry(leader.broker_id).or_default().push((
                    key,
                    position,
                    leader.leader_epoch,
                    leader.topic_id,
                )),
                Err(error) => self.failed(&key, error)?,
            }
        }
        for (broker_id, partitions) in by_leader {
            // One at a time: its answer frees the others of this leader too.
            if self.assigned.values().any(|assigned| assigned.asked == Some(broker_id)) {
                continue;
            }
            if let Err(error) = self.send_fetch(broker_id, &partitions).await {
                self.connections.remove(&broker_id);
                for (key, ..) in &partitions {
                    self.failed(key, error.clone())?;
                }
            }
        }
        Ok(self.next_try(now))
    }

    /// When the first of those that wait may try again.
    fn next_try(&self, now: Instant) -> Option<Instant> {
        let waiting = self.assigned.values().filter(|assigned| assigned.asked.is_none());
        waiting.map(|assigned| assigned.not_before).filter(|t| *t > now).min()
    }

    /// Finds new positions for those that lie outside the log.
    async fn reset_positions(&mut self) -> Result<(), ClientError> {
        let spec = match self.config.offset_reset {
            OffsetReset::None => return Ok(()),
            OffsetReset::Earliest => OffsetSpec::Earliest,
            OffsetReset::Latest => OffsetSpec::Latest,
        };
        let lost = self.assigned.iter().filter(|(_, assigned)| assigned.needs_reset);
        let lost: Vec<Key> = lost.map(|(key, _)| key.clone()).collect();
        for key in lost {
            let admin = Admin::new(&self.cluster);
            let listed = admin.list_offset(&key.0, key.1, spec, self.config.isolation).await?;
            self.assign(&key.0, key.1, listed.map_or(0, |listed| listed.offset));
        }
        Ok(())
    }

    async fn send_fetch(
        &mut self,
        broker_id: i32,
        partitions: &[(Key, i64, Option<i32>, Option<TopicId>)],
    ) -> Result<(), ClientError> {
        // A long poll would hold up everybody else's answers on a shared connection.
        let connection = match self.connections.get(&broker_id).filter(|c| c.closed().is_none()) {
            Some(connection) => connection.clone(),
            None => {
                let connection = self.cluster.dial(broker_id).await?;
                self.connections.insert(broker_id, connection.clone());
                connection
            }
        };
        let mut version = connection.version_of::<FetchRequest>()?;
        if partitions.iter().any(|(.., topic_id)| topic_id.is_none()) {
            version = version.min(TOPIC_ID_MIN_VERSION - 1);
        }
        let mut topics: Vec<FetchTopic> = Vec::new();
        for ((topic, partition), position, leader_epoch, topic_id) in partitions {
            let asked = FetchPartition::default()
                .with_partition(*partition)
                .with_current_leader_epoch(
                    leader_epoch.filter(|_| version >= LEADER_EPOCH_MIN_VERSION).unwrap_or(-1),
                )
                .with_fetch_offset(*position)
                .with_partition_max_bytes(self.config.partition_max_bytes);
            let is_same = |last: &&mut FetchTopic| match version {
                TOPIC_ID_MIN_VERSION.. => Some(last.topic_id) == topic_id.map(TopicId::to_wire),
                _ => last.topic.as_str() == &**topic,
            };
            match topics.last_mut().filter(is_same) {
                Some(last) => last.partitions.push(asked),
                None => {
                    let named = FetchTopic::default().with_partitions(vec![asked]);
                    topics.push(match version {
                        TOPIC_ID_MIN_VERSION.. => {
                            named.with_topic_id(topic_id.map(TopicId::to_wire).unwrap_or_default())
                        }
                        _ => named.with_topic(TopicName(StrBytes::from_string(topic.to_string()))),
                    });
                }
            }
        }
        let max_wait_ms = i32::try_from(self.config.max_wait.as_millis()).unwrap_or(i32::MAX);
        let mut request = FetchRequest::default()
            .with_max_wait_ms(max_wait_ms)
            .with_min_bytes(self.config.min_bytes)
            .with_max_bytes(self.config.max_bytes)
            .with_isolation_level(self.config.isolation.on_wire())
            .with_topics(topics);
        if version <= 14 {
            request = request.with_replica_id(BrokerId(-1));
        }
        let answer = connection.start(version, &request, self.config.max_wait).await?;
        let mut asked = Vec::with_capacity(partitions.len());
        for (key, position, _, topic_id) in partitions {
            if let Some(assigned) = self.assigned.get_mut(key) {
                assigned.asked = Some(broker_id);
            }
            let by_id = topic_id.filter(|_| version >= TOPIC_ID_MIN_VERSION);
            asked.push((key.clone(), *position, by_id));
        }
        let sender = self.answer_sender.clone();
        tokio::spawn(async move {
            let result = answer.get().await;
            // Nobody listens once the fetcher is gone.
            let _ = sender.send(Answered { broker_id, asked, result });
        });
        Ok(())
    }

    /// Fills `ready`, and `deferred` with the first error.
    fn handle_answer(&mut self, answered: Answered) {
        let Answered { broker_id, asked, result } = answered;
        for (key, ..) in &asked {
            if let Some(assigned) = self.assigned.get_mut(key) {
                assigned.asked = None;
            }
        }
        let result = result.map_err(ClientError::from).and_then(|response| {
            match KafkaError::from_code(response.error_code, None) {
                Some(error) => Err(ClientError::kafka("Fetch", error)),
                None => Ok(response),
            }
        });
        if result.is_err() {
            self.connections.remove(&broker_id);
        }
        let mut result = result;
        for (key, position, topic_id) in asked {
            // Moved or given back in the meantime: what was asked is of no use.
            if self.assigned.get(&key).is_none_or(|assigned| assigned.position != position) {
                continue;
            }
            let handled = match &mut result {
                Ok(response) => match take_partition(response, &key, topic_id) {
                    Some(data) => self.handle_partition(&key, position, data),
                    None => {
                        let address = format!("broker {broker_id}");
                        let subject = format!("{}-{}", key.0, key.1);
                        self.failed(&key, ClientError::AnswerIncomplete { address, subject })
                    }
                },
                Err(error) => self.failed(&key, error.clone()),
            };
            if let Err(error) = handled {
                self.deferred.get_or_insert(error);
            }
        }
    }

    fn handle_partition(
        &mut self,
        key: &Key,
        position: i64,
        data: PartitionData,
    ) -> Result<(), ClientError> {
        let Some(assigned) = self.assigned.get_mut(key) else { return Ok(()) };
        if let Some(error) = KafkaError::from_code(data.error_code, None) {
            if error.error == ResponseError::OffsetOutOfRange
                && self.config.offset_reset != OffsetReset::None
            {
                assigned.needs_reset = true;
                return Ok(());
            }
            let subject = format!("{}-{} at offset {position}", key.0, key.1);
            return self.failed(key, ClientError::kafka(subject, error));
        }
        let read_committed = self.config.isolation == IsolationLevel::ReadCommitted;
        let limit = self.config.max_batch_size_bytes;
        let fetched = FetchedPartition::read(key, position, data, read_committed, limit);
        assigned.position = fetched.next_offset();
        assigned.failing_since = None;
        assigned.backoff.reset();
        self.ready.push(fetched);
        Ok(())
    }

    /// A try for one partition failed: later again with fresh metadata, or never.
    fn failed(&mut self, key: &Key, error: ClientError) -> Result<(), ClientError> {
        self.cluster.forget_topic(&key.0);
        let is_retriable = match error.kafka_error() {
            // The broker restarts and has not told the others where it listens.
            Some(code) => is_retriable(code) || code == ResponseError::BrokerNotAvailable,
            None => error.is_retriable(),
        };
        let Some(assigned) = self.assigned.get_mut(key) else { return Ok(()) };
        let now = Instant::now();
        assigned.not_before = now + assigned.backoff.next(rand::random());
        if !is_retriable {
            return Err(error);
        }
        let limit = self.cluster.config().api_timeout;
        let since = *assigned.failing_since.get_or_insert(now);
        if now - since >= limit {
            assigned.failing_since = None;
            let subject = format!("{}-{}", key.0, key.1);
            return Err(ClientError::TimedOut {
                subject,
                after: limit,
                last: Some(error.to_string()),
            });
        }
        tracing::debug!(topic = &*key.0, partition = key.1, %error, "fetching again");
        Ok(())
    }
}

fn take_partition(
    response: &mut FetchResponse,
    key: &Key,
    topic_id: Option<TopicId>,
) -> Option<PartitionData> {
    let topics = response.responses.iter_mut().filter(|topic| match topic_id {
        Some(id) => topic.topic_id == id.to_wire(),
        None => topic.topic.as_str() == &*key.0,
    });
    for topic in topics {
        let index = topic.partitions.iter().position(|data| data.partition_index == key.1);
        if let Some(index) = index {
            return Some(topic.partitions.swap_remove(index));
        }
    }
    None
}
