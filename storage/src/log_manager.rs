//! All logs of a log directory (`LogManager.scala`): opening them at start, creating and deleting them, and
//! the work in the background.
//!
//! Background work is offered as data: [`LogManager::due`] says what is due, [`LogManager::run`] does one
//! piece of it. The broker does so on threads of its own, the simulator between two events. Nothing is due
//! for an idle log, and no time is read here: it is handed in.
//!
//! A log is shared as `Arc<Mutex<Log>>`. Whoever has a lock of its own around a partition takes that one
//! first. No method here keeps its own lock while it takes a log's.

mod background;
mod start;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

pub use background::{SetAside, Task, TaskOutcome};
pub use start::{OfflineLog, StartReport};

use crate::flush::in_parallel;
use crate::instant::Instant;
use crate::log::{Log, LogConfig, LogError};
use crate::log_dir::names::{DELETE_SUFFIX, set_aside_name};
use crate::log_dir::{CheckpointKind, DiskError, LogDir};
use crate::timestamp::Timestamp;
use crate::topic_partition::{TopicId, TopicPartition};

/// A log and the lock that serialises its users.
pub type SharedLog = Arc<Mutex<Log>>;

/// A partition, by its topic's id.
pub type LogId = (TopicId, i32);

/// Settings of the broker that its logs follow; the defaults are Kafka's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogManagerConfig {
    /// `num.recovery.threads.per.data.dir`. With 1 the caller's thread does it.
    pub recovery_threads: usize,
    /// `log.retention.check.interval.ms`.
    pub retention_check_interval_ms: u64,
    /// `log.flush.offset.checkpoint.interval.ms`; start offsets are written at the same time.
    pub checkpoint_interval_ms: u64,
    /// `producer.id.expiration.check.interval.ms`.
    pub producer_expiration_check_interval_ms: u64,
    /// `log.initial.task.delay.ms`.
    pub initial_task_delay_ms: u64,
    /// At most this much of the directory's data lies past the recovery points.
    pub max_unflushed_bytes: u64,
    /// Files that were not used for this long are closed.
    pub idle_file_ms: u64,
}

impl Default for LogManagerConfig {
    fn default() -> LogManagerConfig {
        LogManagerConfig {
            recovery_threads: 2,
            retention_check_interval_ms: 300_000,
            checkpoint_interval_ms: 60_000,
            producer_expiration_check_interval_ms: 600_000,
            initial_task_delay_ms: 30_000,
            max_unflushed_bytes: 2 << 30,
            idle_file_ms: 30_000,
        }
    }
}

/// What the metadata knows about a partition that should be here.
#[derive(Clone, Debug)]
pub struct KnownPartition {
    /// Its name.
    pub topic_partition: TopicPartition,
    /// Its topic's settings.
    pub config: Arc<LogConfig>,
}

/// All logs of a log directory. Every method takes `&self`; any thread may call.
#[derive(Debug)]
pub struct LogManager {
    dir: Arc<LogDir>,
    config: LogManagerConfig,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    logs: BTreeMap<LogId, SharedLog>,
    schedule: background::Schedule,
}

impl LogManager {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nothing panics while it holds the manager's lock")
    }

    /// The log directory.
    pub fn dir(&self) -> &Arc<LogDir> {
        &self.dir
    }

    /// The log of a partition, if there is one.
    pub fn get(&self, topic_id: TopicId, partition: i32) -> Option<SharedLog> {
        self.state().logs.get(&(topic_id, partition)).cloned()
    }

    /// The log of a partition; an absent one, without a directory, if there was none.
    ///
    /// # Errors
    /// If the directory is offline, or this log is damaged.
    pub fn get_or_create(
        &self,
        topic_id: TopicId,
        topic_partition: &TopicPartition,
        config: Arc<LogConfig>,
    ) -> Result<SharedLog, LogError> {
        self.dir.check_online()?;
        let id = (topic_id, topic_partition.partition);
        let log = self.state().logs.get(&id).cloned();
        if let Some(log) = log {
            return match lock(&log).damage() {
                Some(damage) => Err(damage),
                None => Ok(log.clone()),
            };
        }
        let new = Log::absent(self.dir.clone(), topic_id, topic_partition.clone(), config);
        let new = Arc::new(Mutex::new(new));
        Ok(self.state().logs.entry(id).or_insert(new).clone())
    }

    /// All logs, by topic id and partition.
    pub fn logs(&self) -> Vec<(LogId, SharedLog)> {
        self.state().logs.iter().map(|(id, log)| (*id, log.clone())).collect()
    }

    /// Deletes a log, because its topic was: nothing can be read or written any more, its directory gets
    /// another name now and is removed after `file.delete.delay.ms`. A log that is not there is none.
    ///
    /// # Errors
    /// If the disk fails. If it is full, the name is tried again in the background; until then a log of the same name cannot
    /// begin.
    pub fn delete(&self, topic_id: TopicId, partition: i32) -> Result<(), DiskError> {
        let log = {
            let mut state = self.state();
            state.schedule.forget((topic_id, partition));
            state.logs.remove(&(topic_id, partition))
        };
        let Some(log) = log else { return Ok(()) };
        let mut log = lock(&log);
        let delay_ms = log.config().file_delete_delay_ms;
        let topic_partition = log.topic_partition().clone();
        let Some(path) = log.mark_deleted() else { return Ok(()) };
        drop(log);
        // A topic's id never comes again, so this name is taken once.
        let unique = u128::from_be_bytes(*topic_id.as_bytes());
        let to = self.dir.path().join(set_aside_name(&topic_partition, unique, DELETE_SUFFIX));
        self.set_aside(SetAside { from: path, to, delay_ms })
    }

    /// Stops cleanly: every log is flushed and its state left on the disk, then the checkpoints are written,
    /// and last the traces of a clean stop. Nothing may be appended any more. If a log is damaged, the
    /// others are still closed, but the next start is an unclean one.
    ///
    /// # Errors
    /// If the disk fails or is full, or a log is damaged.
    pub fn close(&self, broker_epoch: Option<i64>, now: Timestamp) -> Result<(), LogError> {
        let mut stopped = Vec::new();
        let mut result = Ok(());
        let logs = self.logs();
        for closed in
            in_parallel(self.dir.fs().sync_threads(), &logs, |(_, log)| lock(log).close(now))
        {
            match closed {
                Ok(log) => stopped.extend(log),
                Err(error) => result = result.and(Err(error)),
            }
        }
        self.write_checkpoints()?;
        result?;
        self.remove_doomed_files()?;
        Ok(self.dir.leave_clean_stop(broker_epoch, &stopped)?)
    }

    /// Writes log starts, recovery points and high watermarks, where they have changed.
    ///
    /// # Errors
    /// If the disk fails or is full; the old ones are then still there.
    pub fn write_checkpoints(&self) -> Result<(), DiskError> {
        // Another try if a log was cut, or began, in between; that is rare, and the next round comes.
        for _ in 0..3 {
            let generation = self.dir.checkpoint_generation();
            let mut offsets = [BTreeMap::new(), BTreeMap::new(), BTreeMap::new()];
            for (_, log) in self.logs() {
                let log = lock(&log);
                if !log.is_on_disk() {
                    continue;
                }
                let name = log.topic_partition().clone();
                if log.damage().is_some() {
                    // What was known of it stays.
                    let known = self.dir.checkpointed(&name);
                    offsets[0].insert(name.clone(), known.log_start);
                    offsets[1].insert(name.clone(), known.recovery_point);
                    offsets[2].insert(name, known.high_watermark);
                    continue;
                }
                if let Some(log_start) = log.log_start_to_checkpoint() {
                    offsets[0].insert(name.clone(), log_start);
                }
                offsets[1].insert(name.clone(), log.offsets().recovery_point);
                offsets[2].insert(name, log.offsets().high_watermark);
            }
            let [log_starts, recovery_points, high_watermarks] = offsets;
            // Log starts first: an empty log that begins further on must not be found to end before its
            // recovery point.
            let written = self.dir.checkpoint(CheckpointKind::LogStart, log_starts, generation)?
                && self.dir.checkpoint(
                    CheckpointKind::RecoveryPoint,
                    recovery_points,
                    generation,
                )?
                && self.dir.checkpoint(
                    CheckpointKind::HighWatermark,
                    high_watermarks,
                    generation,
                )?;
            if written {
                break;
            }
        }
        Ok(())
    }

    /// When to ask [`LogManager::due`] next, unless the listener of [`LogDir::set_work_listener`] is called before.
    pub fn next_due(&self) -> Instant {
        self.state().schedule.next_due()
    }
}

/// Locks a log.
///
/// # Panics
/// If a thread panicked while it held the lock: its log may be half changed.
pub(crate) fn lock(log: &SharedLog) -> MutexGuard<'_, Log> {
    log.lock().expect("a panic under a log's lock stops the broker")
}
