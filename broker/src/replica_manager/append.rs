//! Flow 1, the middle of it: a produce request's partitions are appended one by one, and those that must wait for
//! their acknowledgement wait together in the purgatory.
//!
//! Invariant: an append is answered without error only after [`AwaitedAppend::state`] said so, under the leader epoch
//! that appended it.

use super::delayed::{DelayedGuard, DelayedOperation};
use super::partition::{AppendOutcome, Partition};
use super::{NotHosted, PartitionKey, ReplicaManager};
use bytes::Bytes;
use replication::identity::BrokerId;
use replication::partition::acks::{
    AckError, AckState, AwaitedAppend, NotEnoughReplicas, RequiredAcks,
};
use std::sync::Arc;
use std::time::Duration;
use storage::leader_epoch::LeaderEpoch;
use storage::log::AppendError;
use storage::log_validator::{InvalidRecord, ValidationError, validate};
use storage::offset::Offset;
use storage::timestamp::Timestamp;
use tokio::sync::oneshot;

/// Where in its request (topic, partition) an append stands.
pub type Place = (usize, usize);

/// One partition's records.
#[derive(Debug)]
pub struct AppendRequest {
    /// Echoed in the result.
    pub place: Place,
    /// Where to.
    pub key: PartitionKey,
    /// What metadata says of its leader; told to a client that came to the wrong broker.
    pub current_leader: Option<(BrokerId, LeaderEpoch)>,
    /// As they came.
    pub records: Bytes,
}

/// What a successful append is answered with. For a duplicate: the offsets of the original.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Appended {
    /// First offset.
    pub base_offset: Offset,
    /// Set for LogAppendTime topics.
    pub log_append_time: Option<Timestamp>,
    /// Of the log.
    pub log_start_offset: Offset,
}

/// Why one partition's records were refused (kafka-facts §4.1).
#[derive(Debug, Clone, thiserror::Error)]
pub enum ProduceError {
    /// Row 2: transactions do not exist yet.
    #[error("this version of highwater has no transactions yet; use an idempotent producer")]
    TransactionsUnavailable,
    /// Row 4.
    #[error("this server does not host this topic-partition")]
    UnknownTopicOrPartition,
    /// Row 4, from v13.
    #[error("this server does not host this topic id")]
    UnknownTopicId,
    /// Row 5.
    #[error("a produce request without records")]
    NoRecords,
    /// Row 6.
    #[error("zstd needs Produce v7 or later")]
    UnsupportedCompression,
    /// Row 1.
    #[error("acks must be -1, 0 or 1")]
    InvalidRequiredAcks,
    /// Row 9.
    #[error("internal topics are written by the broker only")]
    InternalTopic,
    /// Row 10.
    #[error("this broker does not lead the partition")]
    NotLeader {
        /// Who does, as far as we know.
        current_leader: Option<(BrokerId, LeaderEpoch)>,
    },
    /// Row 12: nothing was written.
    #[error(transparent)]
    NotEnoughReplicas(#[from] NotEnoughReplicas),
    /// Row 26, or the leadership is over: written, but not acknowledged.
    #[error(transparent)]
    NotAcknowledged(#[from] AckError),
    /// Written, but the disk failed before it was flushed.
    #[error("the log directory failed before the records were flushed")]
    DiskFailed,
    /// Row 27.
    #[error("not acknowledged in time")]
    TimedOut,
    /// Rows 5 and 13 to 23.
    #[error(transparent)]
    Invalid(#[from] Arc<ValidationError>),
    /// Rows 11, 24 and 25.
    #[error(transparent)]
    Append(#[from] Arc<AppendError>),
}

impl ProduceError {
    /// What Produce v8 and later tell of single records.
    pub fn record_errors(&self) -> &[InvalidRecord] {
        match self {
            ProduceError::Invalid(error) => error.invalid_records(),
            _ => &[],
        }
    }

    /// Whether the answer carries the log start offset all the same: for what Kafka finds once it works on the log, but not for
    /// batches that are damaged or too large.
    pub fn tells_log_start(&self) -> bool {
        match self {
            ProduceError::Append(error) => matches!(**error, AppendError::Producer(_)),
            ProduceError::Invalid(error) => match **error {
                ValidationError::NoBatch { .. }
                | ValidationError::MoreThanOneBatch
                | ValidationError::OldMagic { .. }
                | ValidationError::UnknownMagic { .. }
                | ValidationError::ImpossibleLength { .. }
                | ValidationError::TooLarge { .. }
                | ValidationError::ConvertedTooLarge { .. }
                | ValidationError::DecompressedTooLarge { .. }
                | ValidationError::WrongCrc { .. } => false,
                ValidationError::NonZeroBaseOffset { .. }
                | ValidationError::WrongCounts { .. }
                | ValidationError::ControlBatch
                | ValidationError::IncompleteProducer { .. }
                | ValidationError::UnknownCompression { .. }
                | ValidationError::Compression(_)
                | ValidationError::Records(_)
                | ValidationError::WrongOffsetDelta { .. }
                | ValidationError::InvalidRecords { .. }
                | ValidationError::InvalidTimestamps { .. } => true,
            },
            _ => false,
        }
    }

    /// What Produce v8 and later tell in words: of bad records only, as Kafka does.
    pub fn client_message(&self) -> Option<String> {
        match self {
            ProduceError::Invalid(_)
            | ProduceError::NoRecords
            | ProduceError::TransactionsUnavailable => Some(self.to_string()),
            _ => None,
        }
    }
}

/// An append that may have to wait.
#[derive(Debug)]
struct Waiting {
    place: Place,
    partition: Arc<Partition>,
    appended: Appended,
    awaited: AwaitedAppend,
    verdict: Option<Result<(), ProduceError>>,
}

impl Waiting {
    fn decide(&mut self) -> bool {
        if self.verdict.is_none() {
            let snapshot = self.partition.snapshot();
            self.verdict = match self.awaited.state(snapshot.leader.as_ref()) {
                AckState::Acknowledged => Some(Ok(())),
                AckState::Failed(error) => Some(Err(error.into())),
                AckState::Waiting => snapshot.is_offline.then_some(Err(ProduceError::DiskFailed)),
            };
        }
        self.verdict.is_some()
    }

    fn into_result(self) -> AppendResult {
        let verdict = self.verdict.unwrap_or(Err(ProduceError::TimedOut));
        (self.place, verdict.map(|()| self.appended))
    }
}

/// What became of one partition's records.
pub type AppendResult = (Place, Result<Appended, ProduceError>);

/// A produce request's appends: some answered, some waiting.
#[must_use = "an append must be answered"]
pub struct Appends {
    replica_manager: Arc<ReplicaManager>,
    done: Vec<AppendResult>,
    waiting: Vec<Waiting>,
    timeout: Duration,
}

impl Appends {
    /// The results, if nothing waits.
    pub fn try_now(mut self) -> Result<Vec<AppendResult>, Appends> {
        if self.waiting.iter_mut().all(Waiting::decide) { Ok(self.into_now()) } else { Err(self) }
    }

    /// The results as they stand: for acks=0, where nobody waits.
    pub fn into_now(self) -> Vec<AppendResult> {
        let mut done = self.done;
        done.extend(self.waiting.into_iter().map(Waiting::into_result));
        done
    }

    /// The results once every partition is decided, or the deadline has passed. The wait begins here and not when the
    /// future is first polled: of requests that follow each other on a connection only the first is, but all of
    /// them wait.
    pub fn wait(self) -> impl Future<Output = Vec<AppendResult>> + Send {
        let Appends { replica_manager, mut done, waiting, timeout } = self;
        let keys = waiting.iter().map(|waiting| waiting.partition.key()).collect();
        let deadline = replica_manager.clock().now().plus(timeout);
        let (sender, receiver) = oneshot::channel();
        let operation = DelayedProduce { waiting, sender };
        let guard: DelayedGuard<_> =
            replica_manager.delayed_produces().watch(keys, deadline, operation);
        async move {
            let _guard = guard;
            let decided = receiver.await.expect("an operation is finished before it is dropped");
            done.extend(decided.into_iter().map(Waiting::into_result));
            done
        }
    }
}

/// A produce that waits for its acknowledgement.
#[derive(Debug)]
pub struct DelayedProduce {
    waiting: Vec<Waiting>,
    sender: oneshot::Sender<Vec<Waiting>>,
}

impl DelayedOperation for DelayedProduce {
    fn is_complete(&mut self) -> bool {
        // Each of them is asked, so that one that is decided stays decided.
        let undecided = self.waiting.iter_mut().filter_map(|one| (!one.decide()).then_some(()));
        undecided.count() == 0
    }

    fn finish(self, _is_expired: bool) {
        // The connection may be gone; then nobody wants to know.
        let _ = self.sender.send(self.waiting);
    }
}

impl ReplicaManager {
    /// Appends each partition's records to its log, in order; `acks` is `None` for acks=0. What must wait for its
    /// acknowledgement does so in the result.
    pub fn append(
        self: &Arc<Self>,
        requests: Vec<AppendRequest>,
        acks: Option<RequiredAcks>,
        timeout: Duration,
    ) -> Appends {
        let mut appends = Appends {
            replica_manager: Arc::clone(self),
            done: Vec::new(),
            waiting: Vec::new(),
            timeout,
        };
        for request in requests {
            let place = request.place;
            match self.append_one(request, acks) {
                Ok((partition, AppendOutcome { appended, awaited, .. })) => match awaited {
                    None => appends.done.push((place, Ok(appended))),
                    Some(awaited) => {
                        let verdict = None;
                        let waiting = Waiting { place, partition, appended, awaited, verdict };
                        appends.waiting.push(waiting);
                    }
                },
                Err(error) => appends.done.push((place, Err(error))),
            }
        }
        appends
    }

    fn append_one(
        &self,
        request: AppendRequest,
        acks: Option<RequiredAcks>,
    ) -> Result<(Arc<Partition>, AppendOutcome), ProduceError> {
        let partition = self.partition(&request.key).map_err(|error| match error {
            NotHosted::Elsewhere => {
                ProduceError::NotLeader { current_leader: request.current_leader }
            }
            NotHosted::Offline(error) => ProduceError::Append(Arc::new(error.into())),
        })?;
        let now = self.now();
        // The costly part, walking the records, is done before the lock is taken.
        let config = partition.validation_config();
        let batch = validate(&request.records, &config, now.wall).map_err(Arc::new)?;
        let outcome = partition.append_as_leader(batch, acks, now)?;
        self.after_append(&partition, &outcome);
        Ok((partition, outcome))
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{append_one_record, led, one_record};
    use super::*;
    use crate::clock::{Clock, SimulatedTime};
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};
    use storage::fs::simulated::SimulatedFs;
    use storage::log_manager::Task;

    /// Leads a partition whose other replica never fetches.
    fn led_alone(clock: Clock) -> (Arc<ReplicaManager>, Arc<Partition>) {
        led(SimulatedFs::new(), clock, &[1, 2], &[])
    }

    /// Leads a partition without other replicas.
    fn led_by_one(settings: &[(&str, &str)]) -> (Arc<ReplicaManager>, Arc<Partition>) {
        led(SimulatedFs::new(), Clock::start(), &[1], settings)
    }

    fn appends(manager: &Arc<ReplicaManager>, partition: &Arc<Partition>) -> Appends {
        let base_offset = Offset::ZERO;
        let appended =
            Appended { base_offset, log_append_time: None, log_start_offset: base_offset };
        let awaited = AwaitedAppend {
            leader_epoch: LeaderEpoch::ZERO,
            required: Offset::new(1).unwrap(),
            acks: RequiredAcks::All,
        };
        let partition = Arc::clone(partition);
        Appends {
            replica_manager: Arc::clone(manager),
            done: Vec::new(),
            waiting: vec![Waiting { place: (0, 0), partition, appended, awaited, verdict: None }],
            timeout: Duration::from_secs(30),
        }
    }

    #[test]
    fn what_the_log_manager_has_synced_is_acknowledged_when_the_flusher_comes_though_the_manager_is_not_done()
     {
        let (manager, partition) = led_by_one(&[("flush.messages", "1")]);
        let appends = append_one_record(&manager, &partition);
        let mut wait = pin!(appends.try_now().expect_err("nothing is synced").wait());
        let mut task = Context::from_waker(Waker::noop());
        assert!(wait.as_mut().poll(&mut task).is_pending());
        let id = (partition.key().topic_id, partition.key().partition);
        let outcome = manager.logs().run(Task::Flush(id), manager.clock().wall());
        assert!(outcome.errors.is_empty() && outcome.moved.len() == 1);
        manager.flush_owed();
        let Poll::Ready(results) = wait.as_mut().poll(&mut task) else { panic!("it is durable") };
        assert!(matches!(results[..], [(_, Ok(_))]));
    }

    #[test]
    fn an_append_that_moves_nothing_that_is_counted_looks_at_nobody_who_waits() {
        for (flush_messages, acknowledges) in [("1", false), ("2", true)] {
            let config = [("flush.messages", flush_messages)];
            let (manager, partition) = led_by_one(&config);
            let now = manager.now();
            let batch = validate(&one_record(), &partition.validation_config(), now.wall).unwrap();
            let outcome = partition.append_as_leader(batch, Some(RequiredAcks::All), now).unwrap();
            assert_eq!(outcome.acknowledges, acknowledges, "flush.messages={flush_messages}");
        }
    }

    #[test]
    fn a_produce_is_timed_from_its_own_arrival_and_not_from_the_answer_to_the_one_before() {
        let time: &'static SimulatedTime = Box::leak(Box::default());
        let (manager, partition) = led_alone(Clock::simulated(time));
        let appends = appends(&manager, &partition);
        assert!(!appends.waiting.is_empty());
        let mut wait = pin!(appends.try_now().expect_err("nothing is replicated").wait());
        time.advance(Duration::from_secs(31));
        manager.delayed_produces().expire_due();
        let mut task = Context::from_waker(Waker::noop());
        let Poll::Ready(results) = wait.as_mut().poll(&mut task) else { panic!("not in time") };
        assert!(matches!(results[..], [(_, Err(ProduceError::TimedOut))]));
    }

    #[test]
    fn a_produce_that_is_acknowledged_stays_so_though_its_future_was_not_polled_before_a_resignation()
     {
        let (manager, partition) = led_alone(Clock::start());
        let mut appends = appends(&manager, &partition);
        appends.waiting[0].awaited.required = Offset::ZERO;
        let mut wait = pin!(appends.wait());
        partition.resign();
        let mut task = Context::from_waker(Waker::noop());
        let Poll::Ready(results) = wait.as_mut().poll(&mut task) else { panic!("it was decided") };
        assert!(matches!(results[..], [(_, Ok(_))]));
    }
}
