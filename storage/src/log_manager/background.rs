//! Work in the background: what is due, and doing it.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::path::PathBuf;
use std::time::Duration;

use super::{LogId, LogManager, LogManagerConfig, SharedLog, lock};
use crate::flush::{FlushScope, in_parallel};
use crate::fs::remove_dir_all;
use crate::instant::Instant;
use crate::log::{LogError, OffsetSnapshot};
use crate::log_dir::DiskError;
use crate::log_dir::names::DELETED_FILE_SUFFIX;
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
    /// Rename the directory of a deleted log once more: the disk was full.
    SetAside(SetAside),
}

/// A deleted log's directory that is to be renamed, and then removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetAside {
    pub(super) from: PathBuf,
    pub(super) to: PathBuf,
    /// How long it stays, in milliseconds.
    pub(super) delay_ms: u64,
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
    dirty: DirtyLogs,
    removals: BinaryHeap<Reverse<(Instant, PathBuf)>>,
    /// Offered when idle files are closed.
    set_aside: Vec<SetAside>,
    /// Logs that may have memory to give back.
    warm: BTreeSet<LogId>,
}

/// Logs that are to be flushed some time. They are not asked before something happens to them: each says when it
/// becomes dirty or begins a segment ([`crate::log_dir::LogDir::note_dirty`]).
#[derive(Debug, Default)]
struct DirtyLogs {
    /// Until when `flush.ms` lets each of them be.
    deadlines: BTreeMap<LogId, Option<Instant>>,
    by_deadline: BTreeSet<(Instant, LogId)>,
    /// Those of which a flush was offered: whether it did what it should is asked once more.
    offered: BTreeSet<LogId>,
    ask_offered: Option<Instant>,
}

/// How long after offering a flush the log is asked whether it needs another one: the first failed on a full disk, or
/// more was appended meanwhile.
const ASK_AGAIN: Duration = Duration::from_secs(1);

impl DirtyLogs {
    fn insert(&mut self, id: LogId, deadline: Option<Instant>) {
        self.remove(id);
        self.deadlines.insert(id, deadline);
        self.by_deadline.extend(deadline.map(|deadline| (deadline, id)));
    }

    fn remove(&mut self, id: LogId) {
        if let Some(Some(deadline)) = self.deadlines.remove(&id) {
            self.by_deadline.remove(&(deadline, id));
        }
    }

    /// The logs to ask at `at` beside those that spoke up.
    fn take_due(&mut self, at: Instant) -> BTreeSet<LogId> {
        let mut due = match self.ask_offered.is_some_and(|ask| ask <= at) {
            true => {
                self.ask_offered = None;
                std::mem::take(&mut self.offered)
            }
            false => BTreeSet::new(),
        };
        let late = self.by_deadline.iter().take_while(|(deadline, _)| *deadline <= at);
        due.extend(late.map(|(_, id)| *id));
        due
    }

    fn note_offered(&mut self, id: LogId, at: Instant) {
        self.offered.insert(id);
        self.ask_offered.get_or_insert(at.plus(ASK_AGAIN));
    }

    fn next_due(&self) -> Option<Instant> {
        let first = self.by_deadline.first().map(|(deadline, _)| *deadline);
        first.into_iter().chain(self.ask_offered).min()
    }
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
            dirty: DirtyLogs::default(),
            removals: BinaryHeap::new(),
            set_aside: Vec::new(),
            warm: BTreeSet::new(),
        }
    }

    /// What recovery kept is synced soon.
    pub(super) fn flush_soon(&mut self, id: LogId, at: Instant) {
        self.dirty.insert(id, Some(at));
    }

    /// A deleted log's directory could not be renamed.
    pub(super) fn set_aside_later(&mut self, set_aside: SetAside) {
        self.set_aside.push(set_aside);
    }

    /// The log was deleted.
    pub(super) fn forget(&mut self, id: LogId) {
        self.dirty.remove(id);
        self.warm.remove(&id);
    }

    pub(super) fn next_due(&self) -> Instant {
        let timers = [self.retention, self.checkpoint, self.expire_producers, self.close_idle];
        let flushes = self.dirty.next_due();
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
    /// logs that still need one a second later. Costs as much as happened since it was last asked, not as there are logs.
    pub fn due(&self, at: Instant) -> Vec<Task> {
        let noted = self.dir.take_work();
        let mut tasks = Vec::new();
        let limit = self.config.max_unflushed_bytes / 4 * 3;
        self.dir.wake_at_unflushed_bytes(limit);
        let dirty: Vec<(LogId, SharedLog)> = {
            let mut state = self.state();
            for doomed in noted.doomed {
                let due = at.plus(ms(doomed.delay_ms));
                state.schedule.removals.push(Reverse((due, doomed.path)));
            }
            state.schedule.warm.extend(noted.in_use);
            let mut to_ask = noted.dirty;
            to_ask.extend(state.schedule.dirty.take_due(at));
            if self.dir.unflushed_bytes() > limit {
                to_ask.extend(state.schedule.dirty.deadlines.keys());
            }
            let mut found = Vec::new();
            for id in to_ask {
                match state.logs.get(&id).cloned() {
                    Some(log) => found.push((id, log)),
                    None => state.schedule.dirty.remove(id), // deleted since
                }
            }
            found
        };

        // Looked at without the manager's lock.
        let mut facts = Vec::new();
        for (id, log) in dirty {
            let log = lock(&log);
            facts.push((id, log.unflushed_bytes(), log.wants_flush(), log.config().flush_ms));
        }
        let mut state = self.state();
        let schedule = &mut state.schedule;
        // The fullest first, until half of what is allowed is left.
        let mut unflushed = self.dir.unflushed_bytes();
        let mut by_size = facts.clone();
        by_size.sort_by_key(|(_, bytes, ..)| Reverse(*bytes));
        let mut too_much = Vec::new();
        if unflushed > limit {
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
                schedule.dirty.remove(id); // flushed since
                continue;
            }
            // `flush.ms` may have been lowered since it became dirty; without one a log that was recovered is due nevertheless.
            let latest = flush_ms.map(|flush_ms| at.plus(ms(flush_ms)));
            let deadline = match schedule.dirty.deadlines.get(&id) {
                Some(Some(deadline)) => {
                    Some(latest.map_or(*deadline, |latest| latest.min(*deadline)))
                }
                _ => latest,
            };
            let is_due = deadline.is_some_and(|deadline| deadline <= at);
            if wants_flush || is_due || too_much.contains(&id) {
                tasks.push(Task::Flush(id));
                // Offered; what is appended meanwhile makes it dirty again.
                let again = deadline.and(flush_ms).map(|flush_ms| at.plus(ms(flush_ms.max(1))));
                schedule.dirty.insert(id, again);
                schedule.dirty.note_offered(id, at);
            } else {
                schedule.dirty.insert(id, deadline);
            }
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
            tasks.extend(schedule.set_aside.drain(..).map(Task::SetAside));
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
                    let before = log.offsets();
                    // Some may have gone before an error.
                    let deleted = log.delete_old_segments(now);
                    if log.offsets() != before {
                        outcome.moved.push((id, log.offsets()));
                    }
                    outcome.errors.extend(deleted.err());
                }
            }
            Task::Checkpoint => {
                // Where acks sync the records, the rest costs little now.
                let dirty: Vec<LogId> =
                    self.state().schedule.dirty.deadlines.keys().copied().collect();
                for id in dirty {
                    let Some(log) = self.get(id.0, id.1) else { continue };
                    let offsets = lock(&log).offsets();
                    if offsets.flushed_end > offsets.recovery_point {
                        self.flush(id, &mut outcome);
                    }
                }
                if self.dir.take_offsets_moved()
                    && let Err(error) = self.write_checkpoints()
                {
                    self.dir.note_offsets_moved();
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
            Task::SetAside(set_aside) => {
                outcome.errors.extend(self.set_aside(set_aside).err().map(LogError::from));
            }
        }
        outcome
    }

    /// Gives the directory of a deleted log its other name. On a full disk that is tried again later.
    pub(super) fn set_aside(&self, set_aside: SetAside) -> Result<(), DiskError> {
        let SetAside { from, to, delay_ms } = &set_aside;
        let renamed = self.dir.judge("rename", from, self.dir.fs().rename(from, to));
        match &renamed {
            Ok(()) => self.dir.doom([to.clone()], *delay_ms),
            Err(_) => self.state().schedule.set_aside_later(set_aside),
        }
        renamed
    }

    /// Syncs everything of one log.
    fn flush(&self, id: LogId, outcome: &mut TaskOutcome) {
        let Some(log) = self.get(id.0, id.1) else { return };
        match flush(&log) {
            Ok(None) => {}
            Ok(Some(offsets)) => outcome.moved.push((id, offsets)),
            Err(error) => outcome.errors.push(error.into()),
        }
    }

    /// Closes files that were not used since the last time, and gives back what logs hold in memory that were not
    /// either.
    ///
    /// Before its file is closed an idle log is flushed (see [`crate::log_dir`]'s file cache for why), once for each time it
    /// falls idle. On a full disk it stays as it is until the next time.
    fn close_idle(&self, outcome: &mut TaskOutcome) {
        let warm = std::mem::take(&mut self.state().schedule.warm);
        let mut still_warm = BTreeSet::new();
        let mut idle = Vec::new();
        for id in warm {
            let Some(log) = self.get(id.0, id.1) else { continue };
            if lock(&log).take_used() {
                still_warm.insert(id);
            } else {
                idle.push((id, log));
            }
        }
        // Each with its ticket's handful of files open, not all at once.
        let released = in_parallel(self.dir.fs().sync_threads(), &idle, |(_, log)| {
            let flushed = flush(log)?;
            let mut log = lock(log);
            let is_used = log.take_used();
            if !is_used {
                log.release_memory()?;
            }
            Ok((flushed, is_used))
        });
        for ((id, _), released) in idle.into_iter().zip(released) {
            match released {
                Ok((flushed, is_used)) => {
                    outcome.moved.extend(flushed.map(|offsets| (id, offsets)));
                    if is_used {
                        still_warm.insert(id);
                    }
                }
                Err(error) => {
                    still_warm.insert(id);
                    let error: DiskError = error;
                    outcome.errors.push(error.into());
                }
            }
        }
        self.state().schedule.warm.append(&mut still_warm);
        self.dir.close_idle_files();
    }

    /// Removes files before their time, at a clean stop: the next start looks into no directory of a log. Whole directories
    /// tell by their names what is to become of them.
    pub(super) fn remove_doomed_files(&self) -> Result<(), DiskError> {
        let noted = self.dir.take_work().doomed.into_iter().map(|doomed| doomed.path);
        let waiting: Vec<_> = self.state().schedule.removals.drain().collect();
        let doomed = noted.chain(waiting.into_iter().map(|Reverse((_, path))| path));
        for path in doomed.filter(|path| path.to_string_lossy().ends_with(DELETED_FILE_SUFFIX)) {
            self.remove(&path)?;
        }
        Ok(())
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

/// Syncs everything of a log, without its lock. `None` if there was nothing to sync.
fn flush(log: &SharedLog) -> Result<Option<OffsetSnapshot>, DiskError> {
    let Some(ticket) = lock(log).flush_ticket(FlushScope::Everything)? else { return Ok(None) };
    let flushed = ticket.run();
    lock(log).flush_completed(flushed).map(Some)
}
