//! Group commit: one fsync acknowledges everything that was appended before it began (DESIGN D7).
//!
//! Under the log's lock a [`FlushTicket`] is written: which files have to be synced so that everything up
//! to the log end is safe. It is run outside the lock, and its [`FlushOutcome`] taken back under it. The
//! ticket carries the log's truncation count: if the log was cut in between, what was synced may not be
//! what is there now, and the outcome proves nothing.
//!
//! There are two ends. The *flushed end* is what acks wait for: the records below it, and the names of
//! their files, are synced. The *recovery point* lags behind it: everything an unclean start needs in order
//! not to read what lies below is synced too, that is indexes, leader epochs, producer state. So an ack
//! costs one fsync, not four.

mod shared_sync;

use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use crate::checkpoint::{LEADER_EPOCH_FILE, write_renamed};
use crate::fs::FsFile;
use crate::log_dir::{DiskError, LogDir};
use crate::offset::Offset;
pub(crate) use shared_sync::SharedSync;

/// How much a flush makes safe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FlushScope {
    /// The records: what an ack waits for.
    Records,
    /// All that belongs to them, so that the recovery point moves.
    Everything,
}

/// How far a log is synced. Pure.
///
/// Invariant: `recovery_point <= flushed_end <=` log end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlushProgress {
    flushed_end: Offset,
    recovery_point: Offset,
    truncations: u64,
}

impl FlushProgress {
    /// Everything below `synced_end` is synced.
    pub fn new(synced_end: Offset) -> FlushProgress {
        FlushProgress { flushed_end: synced_end, recovery_point: synced_end, truncations: 0 }
    }

    /// The end of the synced records, exclusive.
    pub fn flushed_end(&self) -> Offset {
        self.flushed_end
    }

    /// The end of what an unclean start need not read, exclusive.
    pub fn recovery_point(&self) -> Offset {
        self.recovery_point
    }

    /// How often the log was cut.
    pub fn truncations(&self) -> u64 {
        self.truncations
    }

    /// The log was cut at `log_end`.
    pub fn handle_truncation(&mut self, log_end: Offset) {
        self.flushed_end = self.flushed_end.min(log_end);
        self.recovery_point = self.recovery_point.min(log_end);
        self.truncations += 1;
    }

    /// A flush that began when the log ended at `end` and had been cut `truncations` times is done.
    pub fn handle_flushed(&mut self, scope: FlushScope, end: Offset, truncations: u64) {
        if truncations != self.truncations {
            return; // what was synced is not what is there now
        }
        self.flushed_end = self.flushed_end.max(end);
        if scope == FlushScope::Everything {
            self.recovery_point = self.recovery_point.max(end);
        }
    }
}

/// What tickets do by name in a log's directory, outside the log's lock: they write its
/// `leader-epoch-checkpoint`, where an older content never replaces a newer one, and sync the names. Once
/// the log is deleted its directory has another name, and the old one may be that of another topic's log.
#[derive(Debug, Default)]
pub(crate) struct EpochFile {
    state: Mutex<EpochFileState>,
    /// Held from an fsync to the end of judging it: the system reports a write-back error once for each open file, and two
    /// tickets share it. Whoever comes second must find the directory offline.
    syncing: Mutex<()>,
}

#[derive(Debug, Default)]
struct EpochFileState {
    written_version: u64,
    is_deleted: bool,
}

impl EpochFile {
    fn lock(&self) -> MutexGuard<'_, EpochFileState> {
        self.state.lock().expect("nothing panics while it writes")
    }

    /// Before the log's directory is renamed: waits for who is in it, and keeps everybody out from now on.
    pub(crate) fn mark_deleted(&self) {
        self.lock().is_deleted = true;
    }
}

/// What is to be synced.
#[derive(Debug)]
pub struct FlushTicket {
    pub(crate) dir: Arc<LogDir>,
    pub(crate) log_path: Arc<std::path::Path>,
    pub(crate) scope: FlushScope,
    pub(crate) end: Offset,
    pub(crate) truncations: u64,
    pub(crate) files: Vec<(PathBuf, Arc<dyn FsFile>)>,
    /// Version and content of the leader epochs, if they are not in their file.
    pub(crate) epochs: Option<(u64, String)>,
    pub(crate) epoch_file: Arc<EpochFile>,
    /// Version of the log's directory.
    pub(crate) names_version: u64,
    /// Whether names in it are not synced.
    pub(crate) names_dirty: bool,
    /// Whether the directory's own name is not synced.
    pub(crate) is_new: bool,
    pub(crate) unflushed_bytes: u64,
}

/// What came of a [`FlushTicket`].
#[derive(Debug)]
pub struct FlushOutcome {
    pub(crate) result: Result<(), DiskError>,
    pub(crate) scope: FlushScope,
    pub(crate) end: Offset,
    pub(crate) truncations: u64,
    pub(crate) epochs_version: Option<u64>,
    pub(crate) names_version: u64,
    pub(crate) is_new: bool,
    pub(crate) unflushed_bytes: u64,
}

impl FlushTicket {
    /// Syncs. Blocks on the disk; call it without the log's lock.
    pub fn run(self) -> FlushOutcome {
        let result = self.sync();
        FlushOutcome {
            result,
            scope: self.scope,
            end: self.end,
            truncations: self.truncations,
            epochs_version: self.epochs.map(|(version, _)| version),
            names_version: self.names_version,
            is_new: self.is_new,
            unflushed_bytes: self.unflushed_bytes,
        }
    }

    fn sync(&self) -> Result<(), DiskError> {
        // After a failed fsync no other is believed.
        self.dir.check_online()?;
        for (path, file) in &self.files {
            let _judged = self.epoch_file.syncing.lock().expect("nothing panics while it syncs");
            self.dir.judge_sync(path, file.sync_data())?;
        }
        if self.names_dirty || self.epochs.is_some() {
            self.sync_names()?;
        }
        if self.is_new {
            self.dir.sync_names()?;
        }
        self.dir.check_online()
    }

    fn sync_names(&self) -> Result<(), DiskError> {
        let mut state = self.epoch_file.lock();
        if state.is_deleted {
            return Ok(()); // nobody waits for it any more
        }
        if let Some((version, text)) = &self.epochs
            && *version > state.written_version
        {
            let path = self.log_path.join(LEADER_EPOCH_FILE);
            let outcome = write_renamed(&**self.dir.fs(), &path, text.as_bytes());
            self.dir.judge("write", &path, outcome)?;
            state.written_version = *version;
        }
        self.dir.judge_sync(&self.log_path, self.dir.fs().sync_dir(&self.log_path))
    }
}

/// Does `work` for each item, by up to `threads` threads that live only for it, this one among them. Results are in the order
/// of the items. Where the system gives no thread, those that there are do it all.
///
/// For work that waits for the disk: syncs that run at the same time share a commit of the file system's journal, each still
/// with its own answer. See [`crate::fs::Fs::sync_threads`].
pub fn in_parallel<T: Sync, R: Send>(
    threads: usize,
    items: &[T],
    work: impl Fn(&T) -> R + Sync,
) -> Vec<R> {
    let next = AtomicUsize::new(0);
    let claim = || {
        let at = next.fetch_add(1, Ordering::Relaxed);
        items.get(at).map(|item| (at, work(item)))
    };
    let helpers = threads.min(items.len()).saturating_sub(1);
    let mut done: Vec<(usize, R)> = std::thread::scope(|scope| {
        let helpers: Vec<_> = (0..helpers)
            .map_while(|_| {
                let work = || std::iter::from_fn(claim).collect::<Vec<_>>();
                std::thread::Builder::new().name("sync".into()).spawn_scoped(scope, work).ok()
            })
            .collect();
        let mut done: Vec<_> = std::iter::from_fn(claim).collect();
        for helper in helpers {
            match helper.join() {
                Ok(more) => done.extend(more),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        done
    });
    done.sort_unstable_by_key(|(at, _)| *at);
    done.into_iter().map(|(_, result)| result).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Barrier;

    #[test]
    fn work_done_in_parallel_is_done_once_each_and_answered_in_order() {
        let items: Vec<usize> = (0..100).collect();
        for threads in [0, 1, 3, 200] {
            let doubled: Vec<usize> = items.iter().map(|item| item * 2).collect();
            assert_eq!(in_parallel(threads, &items, |item| item * 2), doubled);
        }
        assert!(in_parallel(4, &[] as &[()], |()| ()).is_empty());
    }

    #[test]
    fn as_many_syncs_as_there_are_threads_run_at_a_time() {
        let all_there = Barrier::new(4);
        in_parallel(4, &[(); 8], |()| all_there.wait());
    }

    fn offset(value: u64) -> Offset {
        Offset::ZERO.plus(value)
    }

    #[test]
    fn a_flush_moves_the_ends_its_scope_is_about() {
        let mut progress = FlushProgress::new(offset(10));
        progress.handle_flushed(FlushScope::Records, offset(20), 0);
        assert_eq!((progress.flushed_end(), progress.recovery_point()), (offset(20), offset(10)));
        progress.handle_flushed(FlushScope::Everything, offset(15), 0);
        assert_eq!((progress.flushed_end(), progress.recovery_point()), (offset(20), offset(15)));
    }

    #[test]
    fn a_flush_begun_before_a_truncation_proves_nothing() {
        let mut progress = FlushProgress::new(offset(10));
        progress.handle_truncation(offset(5));
        assert_eq!((progress.flushed_end(), progress.recovery_point()), (offset(5), offset(5)));
        progress.handle_flushed(FlushScope::Everything, offset(20), 0);
        assert_eq!(progress.flushed_end(), offset(5));
        progress.handle_flushed(FlushScope::Everything, offset(7), 1);
        assert_eq!(progress.flushed_end(), offset(7));
    }
}
