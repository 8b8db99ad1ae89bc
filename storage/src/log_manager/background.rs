//! Work in the background: what is due, and doing it.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::path::PathBuf;
use std::time::Duration;

use super::{LogId, LogManager, LogManagerConfig, SharedLog, lock};
use crate::flush::FlushScope;
use crate::fs::remove_dir_all;
use crate::instant::Instant;
use crate::log::{LogError, OffsetSnapshot};
use crate::log_dir::DiskError;
use crate::timestamp::Timestamp;

/// A piece of work in the background. Each may block on the disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Task {
    /// Sync a log, so that its recovery point moves.
    Flush(LogId),
    /// Delete segments that time, size or the log start let go, in all logs.
    Retention,
    /// Write the checkpoints of the log directory.
    Checkpoint,
    /// Forget producers that have been silent for long.
    ExpireProducers,
    /// Close files that were not used of late, and give back the memory of logs that were not.
    CloseIdleFiles,
    /// Remove a file or directory that was renamed for it.
    Remove(PathBuf),
}

/// What came of a [`Task`].
#[derive(Debug, Default)]
pub struct TaskOutcome {
    /// Logs of which an offset may have moved: publish them.
    pub moved: Vec<(LogId, OffsetSnapshot)>,
    /// What went wrong. A full disk is tried again when the task is due again; any other disk error has
    /// taken the directory offline.
    pub errors: Vec<LogError>,
}

/// When what is due.
#[derive(Debug)]
pub(super) struct Schedule {
    retention: Instant,
    checkpoint: Instant,
    expire_producers: Instant,
    close_idle: Instant,
    /// Dirty logs, and until when `flush.ms` lets them be.
    dirty: BTreeMap<LogId, Option<Instant>>,
    removals: BinaryHeap<Reverse<(Instant, PathBuf)>>,
    /// Logs that were dirty since files were closed last: their memory is given back when they are not.
    warm: BTreeMap<LogId, u64>,
}

fn ms(value: u64) -> Duration {
    Duration::from_millis(value)
}

impl Schedule {
    pub(super) fn new(config: &LogManagerConfig, at: Instant) -> Schedule {
        let start = at.plus(ms(config.initial_task_delay_ms));
        Schedule {
            retention: start,
            checkpoint: at.plus(ms(config.checkpoint_interval_ms)),
            expire_producers: at.plus(ms(config.producer_expiration_check_interval_ms)),
            close_idle: at.plus(ms(config.idle_file_ms)),
            dirty: BTreeMap::new(),
            removals: BinaryHeap::new(),
            warm: BTreeMap::new(),
        }
    }

    /// What recovery kept is synced soon.
    pub(super) fn flush_soon(&mut self, id: LogId, at: Instant) {
        self.dirty.insert(id, Some(at));
    }

    pub(super) fn next_due(&self) -> Instant {
        let timers = [self.retention, self.checkpoint, self.expire_producers, self.close_idle];
        let flushes = self.dirty.values().flatten().copied();
        let removals = self.removals.peek().map(|Reverse((due, _))| *due);
        timers.into_iter().chain(flushes).chain(removals).min().expect("there are timers")
    }
}

/// Whether a timer has run out; it is wound up again then.
fn take(timer: &mut Instant, interval_ms: u64, at: Instant) -> bool {
    let due = *timer <= at;
    if due {
        *timer = at.plus(ms(interval_ms.max(1)));
    }
    due
}

impl LogManager {
    /// What is due at `at`. Each is to be run once; asking again does not offer it again, but for flushes of
    /// logs that are still dirty.
    pub fn due(&self, at: Instant) -> Vec<Task> {
        let noted = self.dir.take_work();
        let mut tasks = Vec::new();
        let dirty: Vec<(LogId, SharedLog)> = {
            let mut state = self.state();
            for doomed in noted.doomed {
                let due = at.plus(ms(doomed.delay_ms));
                state.schedule.removals.push(Reverse((due, doomed.path)));
            }
            let logs = &state.logs;
            let known = noted.dirty.into_iter().chain(state.schedule.dirty.keys().copied());
            known.filter_map(|id| Some((id, logs.get(&id)?.clone()))).collect()
        };

        // Looked at without the manager's lock.
        let mut facts = Vec::new();
        for (id, log) in dirty {
            let log = lock(&log);
            facts.push((id, log.unflushed_bytes(), log.wants_flush(), log.config().flush_ms));
        }
        let mut state = self.state();
        let schedule = &mut state.schedule;
        let known = std::mem::take(&mut schedule.dirty);
        facts.sort();
        facts.dedup();
        // The fullest first, until half of what is allowed is left.
        let mut unflushed = self.dir.unflushed_bytes();
        let mut by_size = facts.clone();
        by_size.sort_by_key(|(_, bytes, ..)| Reverse(*bytes));
        let mut too_much = Vec::new();
        if unflushed > self.config.max_unflushed_bytes / 4 * 3 {
            for (id, bytes, ..) in by_size {
                if unflushed <= self.config.max_unflushed_bytes / 2 {
                    break;
                }
                unflushed = unflushed.saturating_sub(bytes);
                too_much.push(id);
            }
        }
        for (id, bytes, wants_flush, flush_ms) in facts {
            if bytes == 0 && !wants_flush {
                continue; // flushed since
            }
            let deadline = match known.get(&id) {
                Some(Some(deadline)) => Some(*deadline),
                _ => flush_ms.map(|flush_ms| at.plus(ms(flush_ms))),
            };
            let is_due = deadline.is_some_and(|deadline| deadline <= at);
            if wants_flush || is_due || too_much.contains(&id) {
                tasks.push(Task::Flush(id));
                // Offered; what is appended meanwhile makes it dirty again.
                let again = deadline.and(flush_ms).map(|flush_ms| at.plus(ms(flush_ms.max(1))));
                schedule.dirty.insert(id, again);
            } else {
                schedule.dirty.insert(id, deadline);
            }
            schedule.warm.entry(id).or_insert(u64::MAX);
        }
        while let Some(Reverse((due, _))) = schedule.removals.peek()
            && *due <= at
        {
            let Some(Reverse((_, path))) = schedule.removals.pop() else { break };
            tasks.push(Task::Remove(path));
        }
        if take(&mut schedule.checkpoint, self.config.checkpoint_interval_ms, at) {
            tasks.push(Task::Checkpoint);
        }
        if take(&mut schedule.retention, self.config.retention_check_interval_ms, at) {
            tasks.push(Task::Retention);
        }
        let expiry_ms = self.config.producer_expiration_check_interval_ms;
        if take(&mut schedule.expire_producers, expiry_ms, at) {
            tasks.push(Task::ExpireProducers);
        }
        if take(&mut schedule.close_idle, self.config.idle_file_ms, at) {
            tasks.push(Task::CloseIdleFiles);
        }
        tasks
    }

    /// Does one piece of work. Blocks on the disk, without a lock wherever that may take long.
    pub fn run(&self, task: Task, now: Timestamp) -> TaskOutcome {
        let mut outcome = TaskOutcome::default();
        if let Some(error) = self.dir.offline_error() {
            outcome.errors.push(error.into());
            return outcome;
        }
        match task {
            Task::Flush(id) => self.flush(id, &mut outcome),
            Task::Retention => {
                for (id, log) in self.logs() {
                    let mut log = lock(&log);
                    if log.damage().is_some() {
                        continue;
                    }
                    match log.delete_old_segments(now) {
                        Ok(0) => {}
                        Ok(_) => outcome.moved.push((id, log.offsets())),
                        Err(error) => outcome.errors.push(error),
                    }
                }
            }
            Task::Checkpoint => {
                // Where acks sync the records, the rest costs little now.
                let dirty: Vec<LogId> = self.state().schedule.dirty.keys().copied().collect();
                for id in dirty {
                    let Some(log) = self.get(id.0, id.1) else { continue };
                    let offsets = lock(&log).offsets();
                    if offsets.flushed_end > offsets.recovery_point {
                        self.flush(id, &mut outcome);
                    }
                }
                if let Err(error) = self.write_checkpoints() {
                    outcome.errors.push(error.into());
                }
            }
            Task::ExpireProducers => {
                for (_, log) in self.logs() {
                    lock(&log).expire_producers(now);
                }
            }
            Task::CloseIdleFiles => self.close_idle(&mut outcome),
            Task::Remove(path) => {
                if let Err(error) = self.remove(&path) {
                    outcome.errors.push(error.into());
                }
            }
        }
        outcome
    }

    /// Syncs everything of one log.
    fn flush(&self, id: LogId, outcome: &mut TaskOutcome) {
        let Some(log) = self.get(id.0, id.1) else { return };
        let ticket = lock(&log).flush_ticket(FlushScope::Everything);
        let flushed = match ticket {
            Ok(None) => return,
            Ok(Some(ticket)) => {
                let result = ticket.run();
                lock(&log).flush_completed(result)
            }
            Err(error) => Err(error),
        };
        match flushed {
            Ok(offsets) => outcome.moved.push((id, offsets)),
            Err(error) => outcome.errors.push(error.into()),
        }
    }

    /// Closes files that were not used since the last time, and releases logs whose end has not moved
    /// since.
    fn close_idle(&self, outcome: &mut TaskOutcome) {
        let warm = std::mem::take(&mut self.state().schedule.warm);
        let mut still_warm = BTreeMap::new();
        for (id, last_end) in warm {
            let Some(log) = self.get(id.0, id.1) else { continue };
            let mut log = lock(&log);
            let end = log.offsets().log_end.value() as u64;
            if end != last_end {
                still_warm.insert(id, end);
            } else if let Err(error) = log.release_memory() {
                outcome.errors.push(error.into());
            }
        }
        let mut state = self.state();
        for (id, end) in still_warm {
            state.schedule.warm.entry(id).or_insert(end);
        }
        drop(state);
        self.dir.close_idle_files();
    }

    fn remove(&self, path: &std::path::Path) -> Result<(), DiskError> {
        let fs = self.dir.fs();
        let is_dir = match fs.metadata(path) {
            Ok(metadata) => metadata.is_dir,
            // Its directory may have gone before it.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return self.dir.judge("remove", path, Err(error)),
        };
        let removed = match is_dir {
            true => remove_dir_all(&**fs, path),
            false => fs.remove_file(path),
        };
        match removed {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
            outcome => self.dir.judge("remove", path, outcome),
        }
    }
}
