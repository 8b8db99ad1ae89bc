//! Crashes, clean stops, and what must be there after them.

use std::sync::Arc;

use broker::replica_manager::PartitionKey;
use replication::metadata::TopicImage;
use storage::fs::simulated::Crash;
use storage::offset::Offset;

use super::Simulation;
use super::history::{History, PartitionHistory, Written};
use super::node::{Node, Start, StartError};

/// How a life ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Clean,
    Killed,
    PowerCut,
}

impl Simulation {
    /// From an empty disk, crashed at any step until it runs.
    pub(super) fn first_start(&mut self) -> Result<(), String> {
        self.is_armed = self.random.chance(70);
        if self.is_armed {
            let changes = self.random.below(24);
            self.trace.note(&format!("first start, the disk stops after {changes} changes"));
            self.fs.stop_after_changes(changes);
        }
        if let Some(node) = self.try_start()? {
            self.node = Some(node);
            return self.take_over(End::Killed);
        }
        let crash = self.choose_crash();
        self.fs.crash(crash);
        self.start_again(if crash == Crash::Process { End::Killed } else { End::PowerCut })
    }

    /// Ends the process in one of the ways and starts it again.
    pub(super) fn crash(&mut self) -> Result<(), String> {
        self.summary.crashes += 1;
        self.summary.crashes_inside += u64::from(self.is_armed);
        let crash = self.choose_crash();
        self.trace.note(&format!("crash: {crash:?}"));
        self.end_life();
        self.fs.crash(crash);
        self.start_again(if crash == Crash::Process { End::Killed } else { End::PowerCut })
    }

    /// Stops as SIGTERM does, and starts again, perhaps after a power cut.
    pub(super) fn stop_cleanly(&mut self) -> Result<(), String> {
        self.summary.clean_stops += 1;
        self.trace.note("clean stop");
        self.forget_waiting();
        let node = self.node();
        let broker_epoch = Some(node.broker_epoch.value());
        let closed = node.replicas.logs().close(broker_epoch, node.clock().wall());
        closed.map_err(|error| format!("a clean stop fails: {error}"))?;
        self.end_life();
        let crash =
            if self.random.chance(50) { Crash::Process } else { Crash::PowerLosingUnsynced };
        self.fs.crash(crash);
        self.start_again(End::Clean)
    }

    fn choose_crash(&mut self) -> Crash {
        match self.random.below(4) {
            0 | 1 => Crash::Process,
            2 => Crash::PowerLosingUnsynced,
            _ => Crash::PowerKeepingSome { seed: self.random.next() },
        }
    }

    fn end_life(&mut self) {
        self.forget_waiting();
        if let Some(node) = self.node.take() {
            self.history.image = Some(node.metadata.image().clone());
            self.history.image_in_doubt = node.metadata.image_in_doubt().cloned();
        }
    }

    fn try_start(&mut self) -> Result<Option<Node>, String> {
        self.fs.set_now(broker::clock::Clock::simulated(self.time).wall());
        let history: &History = &self.history;
        let check_image = |image: &_| history.check_image(image);
        let started = Node::start(Start {
            fs: &self.fs,
            time: self.time,
            config: &self.config,
            random: &mut self.random,
            identity: &mut self.identity,
            check_image: &check_image,
        });
        match started {
            Ok(node) => Ok(Some(node)),
            Err(StartError::Failed(error)) if self.is_armed => {
                self.trace.note(&format!("the start fails: {error}"));
                // What this start proposed may be on the disk; only a registration.
                self.history.image = None;
                Ok(None)
            }
            Err(StartError::Failed(error)) => Err(format!("the node does not start: {error}")),
            Err(StartError::Violation(error)) => Err(error),
        }
    }

    /// Starts after a crash; some starts are crashed themselves.
    fn start_again(&mut self, mut end: End) -> Result<(), String> {
        loop {
            self.is_armed = end != End::Clean && self.random.chance(20);
            if self.is_armed {
                let changes = self.random.below(40);
                self.trace.note(&format!("start, the disk stops after {changes} changes"));
                self.fs.stop_after_changes(changes);
            }
            if let Some(node) = self.try_start()? {
                self.node = Some(node);
                return self.take_over(end);
            }
            let crash = self.choose_crash();
            self.trace.note(&format!("crash in the start: {crash:?}"));
            self.summary.crashes += 1;
            self.summary.crashes_inside += 1;
            if crash != Crash::Process {
                end = End::PowerCut;
            }
            self.fs.crash(crash);
        }
    }

    /// Compares what a start found with what was there, and takes it over.
    fn take_over(&mut self, end: End) -> Result<(), String> {
        let node = self.node.as_ref().expect("it has just started");
        if let Some(offline) = node.report.offline.first()
            && !self.is_armed
        {
            return Err(format!("offline after {end:?}: {offline:?}"));
        }
        if end == End::Clean && !node.report.clean {
            return Err("a clean stop is not taken for one".to_owned());
        }
        let image = node.metadata.image();
        let topics: Vec<Arc<TopicImage>> = image.topics().map(|(_, topic)| topic.clone()).collect();
        let keys: Vec<PartitionKey> = topics.iter().flat_map(|topic| keys_of(topic)).collect();
        self.history.partitions.retain(|key, _| keys.contains(key));
        let history = &self.history;
        self.producers.idempotent.retain(|producer| history.partitions.contains_key(&producer.key));
        for topic in &topics {
            self.host(topic);
        }
        let now = self.node().clock().wall();
        for key in keys {
            let node = self.node.as_ref().expect("it has just started");
            let Ok(partition) = node.replicas.partition(&key) else {
                if self.is_armed && node.is_failed() {
                    continue;
                }
                return Err(format!("{key:?} is in the metadata and not hosted"));
            };
            let snapshot = partition.snapshot();
            let history = self.history.partitions.get_mut(&key).expect("hosted");
            let epoch = snapshot.leader_epoch().map_or(-1, |epoch| epoch.value());
            if epoch <= history.leader_epoch {
                let before = history.leader_epoch;
                return Err(format!("{}: epoch {epoch} after {before}", history.name));
            }
            history.leader_epoch = epoch;
            history.take_over(end, snapshot.offsets)?;
            let log = node.replicas.logs().get(key.topic_id, key.partition);
            let Some(log) = log else { continue };
            // After a clean stop logs stay unread until they are used.
            if end != End::Clean || self.random.chance(50) {
                let mut log = log.lock().expect("nothing panicked");
                let checked = history.check_log(&mut log, now);
                if !(self.is_armed && node.is_failed()) {
                    checked?;
                }
            }
            let line = format!("{} starts at {:?}", history.name, snapshot.offsets);
            self.trace.note(&line);
        }
        if self.is_armed && self.node().is_failed() {
            return self.crash();
        }
        self.resume_producers()?;
        if self.is_armed && self.node().is_failed() {
            return self.crash();
        }
        Ok(())
    }

    /// Notes the partitions of a topic.
    pub(super) fn host(&mut self, topic: &TopicImage) {
        let flushes = topic.configs.get("flush.messages").is_some_and(|value| &**value == "1");
        for key in keys_of(topic) {
            let name = format!("{}-{}", topic.name, key.partition);
            let new = || PartitionHistory::new(name, flushes);
            self.history.partitions.entry(key).or_insert_with(new);
        }
    }
}

/// The partitions of a topic.
pub(super) fn keys_of(topic: &TopicImage) -> impl Iterator<Item = PartitionKey> {
    let topic_id = topic.topic_id;
    topic.partitions().map(move |(partition, _)| PartitionKey { topic_id, partition })
}

impl PartitionHistory {
    /// What a start may find of this partition, by how the last life ended.
    fn take_over(&mut self, end: End, offsets: storage::log::OffsetSnapshot) -> Result<(), String> {
        let found_end = offsets.log_end.value();
        let log_start = offsets.log_start.value();
        // The append that the crash cut off may have been whole.
        if let Some(sent) = self.in_doubt.take()
            && found_end == self.log_end + sent.count
        {
            self.written.push(Written { base: self.log_end, sent, is_acknowledged: false });
            self.log_end = found_end;
        }
        let is_boundary = |offset: i64| {
            let mut batches = self.written.iter();
            offset == 0 || batches.any(|one| one.base == offset || one.end() == offset)
        };
        let promised = self.written.iter().rev().find(|one| one.is_acknowledged);
        let promised = promised.map_or(0, Written::end);
        let keeps_all = end != End::PowerCut;
        let wrong = if found_end > self.log_end {
            Some("the log ends above all that was written")
        } else if keeps_all && found_end < self.log_end {
            Some("what was written is gone without a power cut")
        } else if found_end < self.flushed_end {
            Some("what was synced is gone")
        } else if self.flushes && found_end < promised {
            Some("what was acknowledged is gone, and the topic flushes each message")
        } else if self.flushes && found_end < self.shown {
            Some("what was shown to a reader is gone")
        } else if log_start > self.log_start.max(self.deleting) {
            Some("the log start has moved without anybody asking")
        } else if end == End::Clean && log_start != self.log_start {
            Some("a clean stop forgets the log start")
        } else if log_start != found_end && !is_boundary(found_end) {
            Some("the log is cut inside a batch")
        } else if offsets.high_watermark.value() < self.shown.min(found_end) {
            Some("the high watermark is below what a reader has seen")
        } else if offsets.high_watermark != offsets.log_end {
            Some("alone, a leader has committed all that it recovered")
        } else if offsets.flushed_end < Offset::new(promised).unwrap_or(Offset::ZERO)
            && self.flushes
        {
            Some("what recovery kept is not synced, though the topic flushes each message")
        } else {
            None
        };
        if let Some(wrong) = wrong {
            return Err(format!(
                "{}: after {end:?}: {wrong}: {offsets:?}; before: log start {}, log end {}, synced {}, acknowledged {promised}, shown {}",
                self.name, self.log_start, self.log_end, self.flushed_end, self.shown
            ));
        }
        self.written.retain(|one| one.base < found_end);
        self.log_start = log_start;
        self.deleting = 0;
        self.log_end = found_end;
        self.high_watermark = offsets.high_watermark.value();
        self.flushed_end = offsets.flushed_end.value();
        self.shown = self.shown.min(found_end);
        Ok(())
    }
}
