//! What happens between a start and a crash.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use broker::fetch_session::FetchPosition;
use broker::replica_manager::PartitionKey;
use broker::replica_manager::append::{AppendRequest, AppendResult};
use broker::replica_manager::read::{FetchIsolation, FetchLimits, ReadRequest};
use replication::controller::{CreateTopics, NewTopic, TopicRef};
use replication::partition::acks::RequiredAcks;
use storage::log_manager::Task;
use storage::offset::Offset;

use super::Simulation;
use super::history::{Sent, Written};
use super::metadata::SubmitError;
use super::producers::{MAX_IN_FLIGHT, Producer};

/// A produce that is not answered yet.
pub(super) struct Waiting {
    key: PartitionKey,
    number: u64,
    answer: Pin<Box<dyn Future<Output = Vec<AppendResult>>>>,
}

/// Most topics at a time.
const MAX_TOPICS: usize = 4;
/// Long enough for some, too short for those that wait across a leap in time.
const PRODUCE_TIMEOUT: Duration = Duration::from_secs(30);

impl Simulation {
    /// One event, and the checks after it.
    pub(super) fn event(&mut self) -> Result<(), String> {
        self.time.advance(Duration::from_millis(1 + self.random.below(20)));
        self.fs.set_now(self.node().clock().wall());
        if !self.is_armed && self.random.chance(4) {
            self.arm();
        }
        match self.random.below(100) {
            _ if self.history.partitions.is_empty() => self.create_topic()?,
            0..=2 => self.create_topic()?,
            3 => self.delete_topic()?,
            4..=44 => self.produce()?,
            45..=54 => self.retry()?,
            55..=67 => self.flush()?,
            68..=75 => self.background()?,
            76..=85 => self.read()?,
            86..=88 => self.delete_records()?,
            89..=90 => self.new_producer()?,
            91 => self.snapshot_metadata()?,
            92 => return self.end_by_chance(),
            _ => self.poll_waiting()?,
        }
        self.after_event()
    }

    /// At the end of a run: everything is answered, read and compared once more.
    pub(super) fn last_checks(&mut self) -> Result<(), String> {
        self.crash()?;
        self.flush()?;
        self.poll_waiting()?;
        self.after_event()?;
        let now = self.node().clock().wall();
        for (id, log) in self.node().replicas.logs().logs() {
            let key = PartitionKey { topic_id: id.0, partition: id.1 };
            let Some(history) = self.history.partitions.get(&key) else { continue };
            let checked = history.check_log(&mut log.lock().expect("nothing panicked"), now);
            if !self.node().is_failed() {
                checked?;
            }
        }
        Ok(())
    }

    fn arm(&mut self) {
        self.is_armed = true;
        if self.random.chance(50) {
            let changes = self.random.below(30);
            self.trace.note(&format!("the disk stops after {changes} changes"));
            self.fs.stop_after_changes(changes);
        } else {
            let bytes = self.random.below(3000);
            self.trace.note(&format!("the disk stops after {bytes} bytes"));
            self.fs.stop_after_bytes(bytes);
        }
    }

    fn end_by_chance(&mut self) -> Result<(), String> {
        match self.random.below(3) {
            0 if !self.is_armed => self.stop_cleanly(),
            _ => self.crash(),
        }
    }

    fn after_event(&mut self) -> Result<(), String> {
        self.observe()?;
        if self.node().is_failed() {
            if !self.is_armed {
                return Err("the directory is offline, and nothing failed".to_owned());
            }
            return self.crash();
        }
        if self.is_armed && self.random.chance(8) {
            return self.crash();
        }
        Ok(())
    }

    fn observe(&mut self) -> Result<(), String> {
        for partition in self.node().replicas.partitions() {
            let snapshot = partition.snapshot();
            if let Some(history) = self.history.partitions.get_mut(&partition.key()) {
                let log_start = history.log_start;
                history.observe(&snapshot)?;
                self.summary.log_start_moves += u64::from(history.log_start > log_start);
            }
        }
        Ok(())
    }

    fn pick_partition(&mut self) -> PartitionKey {
        let place = self.random.pick(self.history.partitions.len());
        *self.history.partitions.keys().nth(place).expect("there are so many")
    }

    fn submitted<T>(
        &mut self,
        what: &str,
        result: Result<T, SubmitError>,
    ) -> Result<Option<T>, String> {
        match result {
            Ok(done) => Ok(Some(done)),
            Err(SubmitError::Failed(error)) if self.is_armed => {
                self.trace.note(&format!("{what} fails: {error}"));
                Ok(None)
            }
            Err(SubmitError::Failed(error) | SubmitError::Refused(error)) => {
                Err(format!("{what}: {error}"))
            }
        }
    }

    fn create_topic(&mut self) -> Result<(), String> {
        let image = self.node().metadata.image();
        if image.topics().len() >= MAX_TOPICS {
            return Ok(());
        }
        // Names come again.
        let free: Vec<String> = (0..MAX_TOPICS)
            .map(|number| format!("t{number}"))
            .filter(|name| image.topic_by_name(name).is_none())
            .collect();
        let name: Arc<str> = free[self.random.pick(free.len())].as_str().into();
        let mut configs = vec![("segment.index.bytes", 24 + 8 * self.random.below(4))];
        configs.push(("index.interval.bytes", 100 + self.random.below(200)));
        if self.random.chance(50) {
            configs.push(("flush.messages", 1));
        }
        if self.random.chance(60) {
            configs.push(("retention.bytes", 500 + self.random.below(3000)));
        }
        if self.random.chance(30) {
            configs.push(("segment.ms", 50 + self.random.below(1000)));
        }
        let line = format!("create {name} {configs:?}");
        self.trace.note(&line);
        let configs = configs
            .into_iter()
            .map(|(name, value)| (name.into(), Some(value.to_string().into())))
            .collect();
        let request = CreateTopics {
            topics: vec![NewTopic {
                name: Arc::clone(&name),
                partition_count: Some(1 + self.random.below(2) as i32),
                replication_factor: Some(1),
                assignments: Vec::new(),
                configs,
            }],
            validate_only: false,
        };
        let seed = self.random.seed();
        let node = self.node.as_mut().expect("between events the node runs");
        let result = node.submit(seed, |controller, context| {
            controller.create_topics(context, &request).map_err(|error| error.to_string())
        });
        let Some(created) = self.submitted("create", result)? else { return Ok(()) };
        if let Some((_, Err(error))) = created.response.first() {
            return Err(format!("{name} is not created: {error}"));
        }
        let topic = self.node().metadata.image().topic_by_name(&name).cloned();
        let topic = topic.ok_or_else(|| format!("{name} is created and not there"))?;
        self.host(&topic);
        for key in super::restart::keys_of(&topic) {
            let hosted = self.node().replicas.partition(&key);
            let Ok(partition) = hosted else {
                if self.node().is_failed() {
                    return Ok(());
                }
                return Err(format!("{name} is created and not hosted"));
            };
            let epoch = partition.snapshot().leader_epoch().map_or(-1, |epoch| epoch.value());
            if let Some(history) = self.history.partitions.get_mut(&key) {
                history.leader_epoch = epoch;
            }
        }
        Ok(())
    }

    fn delete_topic(&mut self) -> Result<(), String> {
        let key = self.pick_partition();
        let topic_id = key.topic_id;
        self.trace.note(&format!("delete {topic_id}"));
        let seed = self.random.seed();
        let node = self.node.as_mut().expect("between events the node runs");
        let result = node
            .submit(seed, |controller, _| Ok(controller.delete_topics(&[TopicRef::Id(topic_id)])));
        if self.submitted("delete", result)?.is_none() {
            return Ok(());
        }
        if self.node().replicas.partition(&key).is_ok() {
            return Err(format!("{key:?} is deleted and still hosted"));
        }
        self.history.partitions.retain(|key, _| key.topic_id != topic_id);
        self.producers.idempotent.retain(|producer| producer.key.topic_id != topic_id);
        // Who waits for it is told that it is gone.
        self.poll_waiting()
    }

    fn new_producer(&mut self) -> Result<(), String> {
        let key = self.pick_partition();
        if let Some(id) = self.producer_id()? {
            self.trace.note(&format!("producer {id} of {key:?}"));
            let producer = Producer { key, id, next_sequence: 0, unacknowledged: Vec::new() };
            self.producers.idempotent.push(producer);
        }
        Ok(())
    }

    fn producer_id(&mut self) -> Result<Option<i64>, String> {
        if self.producers.ids.0 == self.producers.ids.1 {
            let seed = self.random.seed();
            let node = self.node.as_mut().expect("between events the node runs");
            let (node_id, broker_epoch) = (node.node_id(), node.broker_epoch);
            let result = node.submit(seed, |controller, _| {
                let block = controller.allocate_producer_ids(node_id, broker_epoch);
                block.map_err(|error| error.to_string())
            });
            let Some(given) = self.submitted("producer ids", result)? else { return Ok(None) };
            let (first, size) = (given.response.first.value(), given.response.size);
            if first < self.history.next_producer_id {
                return Err(format!("producer id {first} is given a second time"));
            }
            self.history.next_producer_id = first + size;
            // Few of a block, so that blocks are asked for often.
            self.producers.ids = (first, first + 3);
        }
        let id = self.producers.ids.0;
        self.producers.ids.0 += 1;
        Ok(Some(id))
    }

    fn produce(&mut self) -> Result<(), String> {
        // Bursts: several batches before the next flush.
        for _ in 0..=self.random.below(3) {
            let now = self.node().clock().wall();
            let idempotent: Vec<usize> = (0..self.producers.idempotent.len())
                .filter(|place| {
                    self.producers.idempotent[*place].unacknowledged.len() < MAX_IN_FLIGHT
                })
                .collect();
            let of = match idempotent.len() {
                0 => None,
                _ if self.random.chance(25) => None,
                count => Some(idempotent[self.random.pick(count)]),
            };
            let key = match of {
                Some(place) => self.producers.idempotent[place].key,
                None => self.pick_partition(),
            };
            let acks = match self.random.below(10) {
                0 if of.is_none() => None,
                1..=3 => Some(RequiredAcks::Leader),
                _ => Some(RequiredAcks::All),
            };
            let sent = self.producers.batch(of, now, &mut self.random);
            self.send(key, sent, acks)?;
            if self.node().is_failed() {
                break;
            }
        }
        Ok(())
    }

    /// Sends a batch and checks what came of it.
    pub(super) fn send(
        &mut self,
        key: PartitionKey,
        sent: Sent,
        acks: Option<RequiredAcks>,
    ) -> Result<(), String> {
        let node = self.node.as_ref().expect("between events the node runs");
        let Ok(partition) = node.replicas.partition(&key) else { return Ok(()) };
        let before = partition.snapshot().offsets.log_end.value();
        let request =
            AppendRequest { place: (0, 0), key, current_leader: None, records: sent.bytes.clone() };
        let appends = node.replicas.append(vec![request], acks, PRODUCE_TIMEOUT);
        let after = partition.snapshot().offsets.log_end.value();
        let history = self.history.partitions.get_mut(&key).expect("hosted");
        let name = history.name.clone();
        let number = sent.number;
        let original = history.find(number).map(|written| written.base);
        let line =
            format!("send {number} {:?} {acks:?} to {name}: {before} to {after}", sent.producer);
        self.trace.note(&line);
        match (after - before, original) {
            (0, _) => {}
            (_, Some(base)) => {
                return Err(format!("{name}: batch {number} is at {base} and again at {before}"));
            }
            (grown, None) if grown == sent.count => {
                history.log_end = after;
                let written = Written { base: before, sent: sent.clone(), is_acknowledged: false };
                history.written.push(written);
                self.summary.batches += 1;
            }
            (grown, None) => {
                let count = sent.count;
                return Err(format!("{name}: {count} records move the log end by {grown}"));
            }
        }
        let is_new = original.is_none();
        let in_window = sent.producer.is_some_and(|(id, _)| {
            history.window(id).iter().any(|written| written.sent.number == number)
        });
        if acks.is_none() {
            let failed = appends.into_now().into_iter().any(|(_, result)| result.is_err());
            if failed || after == before {
                return self.append_failed(key, sent, "acks=0 is not written");
            }
            return Ok(());
        }
        match appends.try_now() {
            Ok(results) => {
                for (_, result) in results {
                    match result {
                        Ok(appended) => {
                            let base = appended.base_offset.value();
                            if after == before && !is_new {
                                self.summary.duplicates += 1;
                            }
                            self.acknowledged(key, number, base)?;
                        }
                        Err(error) if is_new || in_window => {
                            return self.append_failed(key, sent, &error.to_string());
                        }
                        Err(_) => {}
                    }
                }
            }
            Err(appends) => {
                let answer = Box::pin(appends.wait());
                self.waiting.push(Waiting { key, number, answer });
            }
        }
        Ok(())
    }

    fn append_failed(&mut self, key: PartitionKey, sent: Sent, error: &str) -> Result<(), String> {
        let history = self.history.partitions.get_mut(&key).expect("hosted");
        let number = sent.number;
        if !self.is_armed {
            return Err(format!("{}: batch {number} is refused: {error}", history.name));
        }
        self.trace.note(&format!("batch {number}: {error}"));
        if history.find(number).is_none() && history.in_doubt.is_none() {
            history.in_doubt = Some(sent);
        }
        Ok(())
    }

    fn acknowledged(&mut self, key: PartitionKey, number: u64, base: i64) -> Result<(), String> {
        self.observe()?;
        let Some(history) = self.history.partitions.get_mut(&key) else {
            return Err(format!("batch {number} of a deleted topic is acknowledged"));
        };
        history.acknowledge(number, base)?;
        self.producers.acknowledged(number);
        self.summary.acknowledged += 1;
        self.trace.note(&format!("acknowledged {number} at {base}"));
        Ok(())
    }

    /// Sends one of a producer's last five batches again.
    fn retry(&mut self) -> Result<(), String> {
        if self.producers.idempotent.is_empty() {
            return Ok(());
        }
        let place = self.random.pick(self.producers.idempotent.len());
        let (key, id) = {
            let producer = &self.producers.idempotent[place];
            (producer.key, producer.id)
        };
        let window: Vec<Sent> = match self.history.partitions.get(&key) {
            Some(history) => history.window(id).iter().map(|one| one.sent.clone()).collect(),
            None => return Ok(()),
        };
        if window.is_empty() {
            return Ok(());
        }
        let sent = window[self.random.pick(window.len())].clone();
        self.send(key, sent, Some(RequiredAcks::All))
    }

    fn flush(&mut self) -> Result<(), String> {
        self.trace.note("flush");
        self.node().replicas.flush_owed();
        self.observe()?;
        self.poll_waiting()
    }

    /// Time passes, and the work in the background is done one by one.
    fn background(&mut self) -> Result<(), String> {
        let seconds = match self.random.below(3) {
            0 => 400,
            1 => 61,
            _ => 1 + self.random.below(10),
        };
        self.time.advance(Duration::from_secs(seconds));
        let node = self.node();
        self.fs.set_now(node.clock().wall());
        node.replicas.delayed_produces().expire_due();
        // Sometimes the manager's thread runs before the flusher's.
        if self.random.chance(60) {
            self.flush()?;
        }
        let mut tasks = self.node().replicas.logs().due(self.node().clock().now());
        // Each of them alone must be safe, in any order.
        if self.random.chance(30) {
            tasks.sort_by_key(|task| *task != Task::Retention);
        }
        for task in tasks {
            self.observe()?;
            let before: Vec<(PartitionKey, i64)> = self
                .history
                .partitions
                .iter()
                .map(|(key, history)| (*key, history.high_watermark))
                .collect();
            self.trace.note(&format!("{task:?}"));
            if task == Task::Retention {
                for history in self.history.partitions.values_mut() {
                    history.deleting = history.high_watermark;
                }
            }
            self.node().replicas.run_task(task.clone());
            for (key, high_watermark) in before {
                let Ok(partition) = self.node().replicas.partition(&key) else { continue };
                let log_start = partition.snapshot().offsets.log_start.value();
                if log_start > high_watermark {
                    return Err(format!(
                        "{partition}: {task:?} moves the log start to {log_start}, above the high watermark {high_watermark}"
                    ));
                }
            }
            self.observe()?;
            if !self.node().is_failed() {
                for history in self.history.partitions.values_mut() {
                    history.deleting = 0;
                }
            }
        }
        self.poll_waiting()
    }

    fn read(&mut self) -> Result<(), String> {
        let key = self.pick_partition();
        let history = self.history.partitions.get(&key).expect("picked");
        let (log_start, high_watermark) = (history.log_start, history.high_watermark);
        let room = (high_watermark - log_start) as u64 + 1;
        let from = log_start + self.random.below(room) as i64;
        let max_bytes = 100 + self.random.below(4000);
        let request = ReadRequest {
            partition: Ok(key),
            position: FetchPosition {
                fetch_offset: from,
                current_leader_epoch: history.leader_epoch,
                last_fetched_epoch: -1,
                log_start_offset: -1,
                max_bytes: max_bytes as i32,
            },
            replica_id: -1,
        };
        let limits = FetchLimits { max_bytes: max_bytes as usize, min_bytes: 1 };
        let isolation = match self.random.below(2) {
            0 => FetchIsolation::HighWatermark,
            _ => FetchIsolation::LastStable,
        };
        let reads = self.node().replicas.read(&[request], isolation, limits, true);
        let history = self.history.partitions.get_mut(&key).expect("picked");
        let name = history.name.clone();
        for read in reads {
            let bytes = match (read.error, read.records.read()) {
                (None, Ok(bytes)) => bytes,
                _ if self.is_armed => return Ok(()),
                (Some(error), _) => return Err(format!("{name}: read at {from}: {error}")),
                (_, Err(error)) => return Err(format!("{name}: read at {from}: {error}")),
            };
            let end = history.check_read(from, &bytes)?;
            if end > high_watermark {
                return Err(format!(
                    "{name}: offset {end} is read above the high watermark {high_watermark}"
                ));
            }
            if end == from && from < high_watermark && !self.is_armed {
                return Err(format!("{name}: nothing is read at {from}, below {high_watermark}"));
            }
            history.shown = history.shown.max(end);
            self.trace.note(&format!("read {name} from {from} to {end}"));
        }
        Ok(())
    }

    fn delete_records(&mut self) -> Result<(), String> {
        let key = self.pick_partition();
        let history = self.history.partitions.get(&key).expect("picked");
        let (log_start, high_watermark) = (history.log_start, history.high_watermark);
        let name = history.name.clone();
        let before = log_start + self.random.below((high_watermark - log_start) as u64 + 1) as i64;
        self.trace.note(&format!("delete records of {name} before {before}"));
        let Ok(partition) = self.node().replicas.partition(&key) else { return Ok(()) };
        match self.node().replicas.delete_records(&partition, Offset::new(before)) {
            Ok(moved) if moved.value() == before => Ok(()),
            Ok(moved) => Err(format!("{name}: deleted before {before}, the log starts at {moved}")),
            Err(_) if self.is_armed => Ok(()),
            Err(error) => Err(format!("{name}: delete records before {before}: {error}")),
        }
    }

    fn snapshot_metadata(&mut self) -> Result<(), String> {
        self.trace.note("metadata snapshot");
        let node = self.node.as_mut().expect("between events the node runs");
        match node.metadata.write_snapshot() {
            Err(error) if !self.is_armed => Err(format!("metadata snapshot: {error}")),
            _ => Ok(()),
        }
    }

    pub(super) fn poll_waiting(&mut self) -> Result<(), String> {
        let mut context = Context::from_waker(Waker::noop());
        for mut waiting in std::mem::take(&mut self.waiting) {
            let results = match waiting.answer.as_mut().poll(&mut context) {
                Poll::Pending => {
                    self.waiting.push(waiting);
                    continue;
                }
                Poll::Ready(results) => results,
            };
            for (_, result) in results {
                match result {
                    Ok(appended) => {
                        let base = appended.base_offset.value();
                        self.acknowledged(waiting.key, waiting.number, base)?;
                    }
                    Err(error) => {
                        self.trace.note(&format!("batch {}: {error}", waiting.number));
                    }
                }
            }
        }
        Ok(())
    }

    pub(super) fn forget_waiting(&mut self) {
        self.waiting.clear();
    }

    /// Producers come back: they send again, in order, what was not acknowledged.
    pub(super) fn resume_producers(&mut self) -> Result<(), String> {
        self.producers.ids = (0, 0);
        for place in 0..self.producers.idempotent.len() {
            let producer = &self.producers.idempotent[place];
            let (key, id) = (producer.key, producer.id);
            let Some(history) = self.history.partitions.get(&key) else { continue };
            // A power cut may have taken what was acknowledged: then this producer cannot go on.
            let of_it = |one: &&Written| one.sent.producer.is_some_and(|(of, _)| of == id);
            let last = history.written.iter().rev().find(of_it);
            let next = last.map_or(0, |one| {
                one.sent.producer.map_or(0, |(_, first)| first) + one.sent.count as i32
            });
            let again: Vec<Sent> = producer.unacknowledged.clone();
            let follows = again.iter().all(|sent| {
                let (_, first) = sent.producer.expect("an idempotent producer's");
                first <= next
                    || again
                        .iter()
                        .any(|one| one.producer.is_some_and(|(_, f)| f + one.count as i32 == first))
            });
            let first_missing = again
                .iter()
                .find(|sent| history.find(sent.number).is_none())
                .map_or(producer.next_sequence, |sent| sent.producer.map_or(0, |(_, first)| first));
            if !follows || first_missing != next {
                self.producers.idempotent[place].unacknowledged.clear();
                let Some(id) = self.producer_id()? else { return Ok(()) };
                let producer = &mut self.producers.idempotent[place];
                producer.id = id;
                producer.next_sequence = 0;
                continue;
            }
            for sent in again {
                self.send(key, sent, Some(RequiredAcks::All))?;
                if self.node().is_failed() {
                    return Ok(());
                }
            }
        }
        Ok(())
    }
}
