//! The task of one partition: collects records into batches, sends them in order, sends them again in order.
//!
//! Invariants: `in_flight`, then `waiting`, then `open` hold the records in the order in which they were handed over. A
//! batch gets its producer id and sequence number when it is first sent and keeps them, unless it was certainly not
//! stored and a batch before it was given up. Without idempotence a batch that is sent again may come after those that
//! were under way behind it, as with Kafka's own clients.

mod batch;

use std::collections::VecDeque;
use std::sync::Arc;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::{ProduceRequest, ProduceResponse, TopicName};
use kafka_protocol::protocol::StrBytes;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until};

use super::{Acks, Identity, MAX_IN_FLIGHT, ProducerConfig, Queued, init_producer_id};
use crate::cluster::Cluster;
use crate::connection::Answer;
use crate::error::{ClientError, ConnectionError, KafkaError};
use crate::record::{Compression, ProducerStamp};
use crate::retry::{Backoff, is_retriable};
use batch::Batch;

/// The first Produce version that may carry zstd (KIP-110).
const ZSTD_MIN_VERSION: i16 = 7;

pub(super) struct PartitionWriter {
    cluster: Cluster,
    config: ProducerConfig,
    topic: Arc<str>,
    partition: i32,
    /// Of an idempotent producer.
    sequence: Option<Sequence>,
    open: Option<Batch>,
    /// Closed and not under way.
    waiting: VecDeque<Batch>,
    /// Under way, in the order in which they were sent, which is the order of the answers.
    in_flight: VecDeque<(Batch, Answer<ProduceRequest>)>,
    backoff: Backoff,
    /// Why the last try failed, for the message of a timeout.
    last_error: Option<String>,
}

/// What the next batch is stamped with.
struct Sequence {
    identity: Identity,
    next: i32,
    /// The broker has stored a batch under this identity. Until then the first batch goes alone: a broker takes any
    /// sequence number from a producer that it does not know, so that one behind a first batch that failed would be
    /// stored, and the first one be out of order for ever.
    is_established: bool,
    /// A batch under this identity was given up: the sequence has a gap that will never close.
    is_spent: bool,
}

/// What became of one try of a batch.
enum Outcome {
    Stored {
        base_offset: Option<i64>,
        log_append_time: Option<i64>,
    },
    /// Send it again. `is_unknown`: it may be stored all the same.
    Again {
        error: ClientError,
        is_unknown: bool,
    },
    Refused(ClientError),
}

impl PartitionWriter {
    pub(super) fn new(
        cluster: Cluster,
        config: ProducerConfig,
        identity: Option<Identity>,
        topic: Arc<str>,
        partition: i32,
    ) -> PartitionWriter {
        let backoff = cluster.config().retry_backoff;
        PartitionWriter {
            cluster,
            config,
            topic,
            partition,
            sequence: identity.map(|identity| Sequence {
                identity,
                next: 0,
                is_established: false,
                is_spent: false,
            }),
            open: None,
            waiting: VecDeque::new(),
            in_flight: VecDeque::new(),
            backoff,
            last_error: None,
        }
    }

    /// Until every handle is gone and every batch has met its fate.
    pub(super) async fn run(mut self, mut queue: mpsc::Receiver<Queued>) {
        let mut is_ended = false;
        loop {
            self.send_waiting().await;
            if is_ended
                && self.open.is_none()
                && self.waiting.is_empty()
                && self.in_flight.is_empty()
            {
                return;
            }
            // Only while it could be sent: till then it may as well grow.
            let linger_end = self
                .open
                .as_ref()
                .filter(|_| self.waiting.is_empty() && self.in_flight.len() < MAX_IN_FLIGHT)
                .map(|open| open.opened() + self.config.linger);
            tokio::select! {
                answer = front_answer(&mut self.in_flight), if !self.in_flight.is_empty() => {
                    self.handle_answer(answer).await;
                }
                queued = queue.recv(), if !is_ended && self.waiting.is_empty() => match queued {
                    None => {
                        is_ended = true;
                        self.close_open();
                    }
                    Some(queued) => {
                        self.collect(queued);
                        while self.waiting.is_empty() && let Ok(queued) = queue.try_recv() {
                            self.collect(queued);
                        }
                    }
                },
                () = sleep_until(linger_end.unwrap_or_else(Instant::now)), if linger_end.is_some() => {
                    self.close_open();
                }
            }
        }
    }

    fn collect(&mut self, queued: Queued) {
        let limit = self.config.batch_size_bytes;
        if self.open.as_ref().is_some_and(|open| !open.has_room(&queued, limit)) {
            self.close_open();
        }
        let subject = || format!("{}-{}", self.topic, self.partition);
        let open = self.open.get_or_insert_with(Batch::new);
        open.push(queued, subject);
        if open.is_full(limit) {
            self.close_open();
        }
    }

    fn close_open(&mut self) {
        self.waiting.extend(self.open.take().filter(|open| !open.is_empty()));
    }

    async fn send_waiting(&mut self) {
        while self.in_flight.len() < MAX_IN_FLIGHT
            && let Some(next) = self.waiting.front()
        {
            // A retry goes alone. Else batches behind it would be stored while it is not settled, until the broker's
            // window of five has forgotten it and takes it for a gap.
            let is_retry_in_flight =
                self.in_flight.front().is_some_and(|(first, _)| first.is_retry());
            let is_new = self.sequence.as_ref().is_some_and(|sequence| !sequence.is_established);
            if is_retry_in_flight || (next.is_retry() || is_new) && !self.in_flight.is_empty() {
                return;
            }
            let Some(mut batch) = self.waiting.pop_front() else { return };
            if batch.opened().elapsed() > self.config.delivery_timeout {
                let error = ClientError::TimedOut {
                    subject: self.subject(),
                    after: self.config.delivery_timeout,
                    last: self.last_error.clone(),
                };
                self.settle_behind_in_flight(batch, Outcome::Refused(error)).await;
                continue;
            }
            let stamp = match self.stamp_for(&batch).await {
                Ok(stamp) => stamp,
                Err(error) => {
                    self.settle_behind_in_flight(batch, Outcome::Refused(error)).await;
                    continue;
                }
            };
            match self.send(&mut batch, stamp).await {
                Ok(Some(answer)) => self.in_flight.push_back((batch, answer)),
                Ok(None) => batch.succeed(self.partition, None, None),
                Err(error) if error.is_retriable() => {
                    // It never left, so that its fate is what it was before.
                    let again = Outcome::Again { error, is_unknown: false };
                    self.settle_behind_in_flight(batch, again).await;
                }
                Err(error) => self.settle_behind_in_flight(batch, Outcome::Refused(error)).await,
            }
        }
    }

    /// What the batch had, else the next one in sequence.
    async fn stamp_for(&mut self, batch: &Batch) -> Result<Option<ProducerStamp>, ClientError> {
        let Some(sequence) = &mut self.sequence else { return Ok(None) };
        if let Some(stamp) = batch.stamp() {
            return Ok(Some(stamp));
        }
        if sequence.is_spent {
            let identity = init_producer_id(&self.cluster).await?;
            *sequence = Sequence { identity, next: 0, is_established: false, is_spent: false };
        }
        Ok(Some(ProducerStamp {
            producer_id: sequence.identity.producer_id,
            producer_epoch: sequence.identity.producer_epoch,
            base_sequence: sequence.next,
        }))
    }

    async fn send(
        &mut self,
        batch: &mut Batch,
        stamp: Option<ProducerStamp>,
    ) -> Result<Option<Answer<ProduceRequest>>, ClientError> {
        let is_first_try = batch.stamp().is_none();
        let bytes = batch
            .bytes(self.config.compression, stamp)
            .map_err(|error| ClientError::Record { subject: self.subject(), error })?;
        if is_first_try && let Some(sequence) = &mut self.sequence {
            sequence.next = sequence_after(sequence.next, batch.record_count());
        }
        let leader = self.cluster.leader(&self.topic, self.partition).await?;
        let connection = self.cluster.broker(leader.broker_id).await?;
        let version = connection.version_of::<ProduceRequest>()?;
        if self.config.compression == Compression::Zstd && version < ZSTD_MIN_VERSION {
            let error = KafkaError {
                error: ResponseError::UnsupportedCompressionType,
                message: Some("the broker is older than zstd in Kafka".to_owned()),
            };
            return Err(ClientError::kafka(self.subject(), error));
        }
        let acks = match self.config.acks {
            Acks::None => 0,
            Acks::Leader => 1,
            Acks::All => -1,
        };
        let wait = self.cluster.config().connection.request_timeout;
        let data =
            PartitionProduceData::default().with_index(self.partition).with_records(Some(bytes));
        let topic = TopicProduceData::default()
            .with_name(TopicName(StrBytes::from_string(self.topic.to_string())))
            .with_partition_data(vec![data]);
        let request = ProduceRequest::default()
            .with_transactional_id(None)
            .with_acks(acks)
            .with_timeout_ms(i32::try_from(wait.as_millis()).unwrap_or(i32::MAX))
            .with_topic_data(vec![topic]);
        if self.config.acks == Acks::None {
            connection.send_unanswered(version, &request).await?;
            return Ok(None);
        }
        // The broker may use up its whole wait before it says that the followers did not follow.
        Ok(Some(connection.start(version, &request, wait).await?))
    }

    async fn handle_answer(&mut self, answer: Result<ProduceResponse, ConnectionError>) {
        let (batch, _) = self.in_flight.pop_front().expect("its answer was awaited");
        match self.outcome(answer, false) {
            Outcome::Stored { base_offset, log_append_time } => {
                self.backoff.reset();
                self.stored(batch, base_offset, log_append_time);
            }
            failed => {
                let mut tries = vec![(batch, failed)];
                tries.extend(self.drain_in_flight(true).await);
                self.settle(tries).await;
            }
        }
    }

    fn stored(&mut self, batch: Batch, base_offset: Option<i64>, log_append_time: Option<i64>) {
        if let (Some(sequence), Some(stamp)) = (&mut self.sequence, batch.stamp()) {
            sequence.is_established |= sequence.identity.producer_id == stamp.producer_id;
        }
        batch.succeed(self.partition, base_offset, log_append_time);
    }

    /// A batch failed that is the next after those under way: they come first.
    async fn settle_behind_in_flight(&mut self, batch: Batch, outcome: Outcome) {
        let mut tries = self.drain_in_flight(false).await;
        tries.push((batch, outcome));
        self.settle(tries).await;
    }

    /// Waits for the answers to all that is under way, in order.
    async fn drain_in_flight(&mut self, mut is_after_failure: bool) -> Vec<(Batch, Outcome)> {
        let mut tries = Vec::new();
        while let Some((batch, mut answer)) = self.in_flight.pop_front() {
            let outcome = self.outcome(answer.wait().await, is_after_failure);
            is_after_failure |= !matches!(outcome, Outcome::Stored { .. });
            tries.push((batch, outcome));
        }
        tries
    }

    /// Deals with tries of neighbouring batches, nothing else being under way; then waits, if any is to be sent again.
    async fn settle(&mut self, tries: Vec<(Batch, Outcome)>) {
        let mut kept = VecDeque::new();
        let mut gap: Option<ClientError> = None;
        let mut retried: Option<ClientError> = None;
        for (mut batch, outcome) in tries {
            match outcome {
                Outcome::Stored { base_offset, log_append_time } => {
                    self.stored(batch, base_offset, log_append_time);
                }
                Outcome::Again { error, is_unknown } => {
                    batch.mark_tried(is_unknown);
                    kept.extend(behind_gap(batch, gap.as_ref()));
                    retried.get_or_insert(error);
                }
                Outcome::Refused(error) => {
                    if batch.stamp().is_some() {
                        gap.get_or_insert_with(|| error.clone());
                    }
                    batch.fail(&error);
                }
            }
        }
        kept.extend(self.waiting.drain(..).filter_map(|batch| behind_gap(batch, gap.as_ref())));
        self.waiting = kept;
        if gap.is_some()
            && let Some(sequence) = &mut self.sequence
        {
            sequence.is_spent = true;
        }
        if let Some(error) = retried {
            tracing::debug!(topic = &*self.topic, partition = self.partition, %error, "sending again");
            self.last_error = Some(error.to_string());
            // Whatever it was, another leader is a likely reason or a likely way out.
            self.cluster.forget_topic(&self.topic);
            sleep(self.backoff.next(rand::random())).await;
        }
    }

    fn outcome(
        &self,
        answer: Result<ProduceResponse, ConnectionError>,
        is_after_failure: bool,
    ) -> Outcome {
        let response = match answer {
            Ok(response) => response,
            Err(error) if error.is_retriable() => {
                return Outcome::Again { error: error.into(), is_unknown: true };
            }
            Err(error) => return Outcome::Refused(error.into()),
        };
        let partition = response
            .responses
            .iter()
            .filter(|topic| topic.name.as_str() == &*self.topic)
            .flat_map(|topic| &topic.partition_responses)
            .find(|partition| partition.index == self.partition);
        let Some(partition) = partition else {
            let address = "the leader".to_owned();
            let error = ClientError::AnswerIncomplete { address, subject: self.subject() };
            return Outcome::Again { error, is_unknown: true };
        };
        let message = partition.error_message.as_deref();
        let Some(error) = KafkaError::from_code(partition.error_code, message) else {
            let time = partition.log_append_time_ms;
            return Outcome::Stored {
                base_offset: (partition.base_offset >= 0).then_some(partition.base_offset),
                log_append_time: (time >= 0).then_some(time),
            };
        };
        let code = error.error;
        let error = ClientError::kafka(self.subject(), error);
        match code {
            // Stored by an earlier try that the broker remembers only vaguely.
            ResponseError::DuplicateSequenceNumber => {
                Outcome::Stored { base_offset: None, log_append_time: None }
            }
            // The batch before it is missing, and will be sent again or given up.
            ResponseError::OutOfOrderSequenceNumber if is_after_failure => {
                Outcome::Again { error, is_unknown: false }
            }
            // The broker gave up waiting for its followers, after the append.
            ResponseError::RequestTimedOut | ResponseError::NotEnoughReplicasAfterAppend => {
                Outcome::Again { error, is_unknown: true }
            }
            code if is_retriable(code) => Outcome::Again { error, is_unknown: false },
            _ => Outcome::Refused(error),
        }
    }

    fn subject(&self) -> String {
        format!("{}-{}", self.topic, self.partition)
    }
}

/// A batch behind one that was given up: its own sequence number leads nowhere now. If it may be stored already, nobody
/// can send it again without risking it twice; otherwise it takes another number.
fn behind_gap(mut batch: Batch, gap: Option<&ClientError>) -> Option<Batch> {
    match gap {
        None => Some(batch),
        Some(error) if batch.is_unknown() && batch.stamp().is_some() => {
            batch.fail(error);
            None
        }
        Some(_) => {
            batch.unstamp();
            Some(batch)
        }
    }
}

/// Sequence numbers go from 2^31 - 1 to 0.
fn sequence_after(sequence: i32, count: i32) -> i32 {
    sequence.wrapping_add(count) & i32::MAX
}

async fn front_answer(
    in_flight: &mut VecDeque<(Batch, Answer<ProduceRequest>)>,
) -> Result<ProduceResponse, ConnectionError> {
    let (_, answer) = in_flight.front_mut().expect("only asked while something is under way");
    answer.wait().await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sequence_numbers_wrap_to_zero_and_are_never_negative() {
        assert_eq!(sequence_after(0, 5), 5);
        assert_eq!(sequence_after(i32::MAX, 1), 0);
        assert_eq!(sequence_after(i32::MAX - 1, 5), 3);
    }
}
