//! The metadata log on disk: `__cluster_metadata-0`, append-only, fsynced before a vote or an ack (DESIGN D2, D7).
//!
//! ```text
//! __cluster_metadata-0/
//!   00000000000000000000.log                    segments, named by the offset (number) of their first batch
//!   00000000000000000001-0000000001.checkpoint  the snapshot, named by Raft index and term
//!   *.checkpoint.tmp                            a snapshot that was never finished; removed at open
//! ```
//! The bytes are [`super::codec`]'s. A conflict truncates nothing: an entry replaces all earlier ones with an index ≥ its
//! own, so no vote is lost with it. Segments wholly below the snapshot go. At open a torn tail is cut
//! ([`recovery`]); what was kept counts only once it is fsynced again, because a killed process may have left it in the
//! page cache.
//!
//! This is a log of a few MiB that is read once, from front to back, at start: it has no index files, and
//! `storage::log::Log` (leader epochs, producers, concurrent readers) is more than it needs.
//!
//! After the first failed write or fsync of the log nothing more is written: every later call fails
//! ([`LogStoreError::Failed`]), and the process must end (exit 4).

mod batch_file;
mod recovery;
mod snapshot_file;
#[cfg(test)]
mod tests;

use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use storage::fs::{Fs, FsFile, OpenMode, SyncTarget};
use storage::timestamp::Timestamp;

use super::codec::{HardState, LogBody, LogEntry, LogPayload, QuorumDecodeError, QuorumSnapshot};
use super::{Persist, QuorumState};

/// The directory's name, in the log directory. Not a topic partition that a client could name.
pub const METADATA_LOG_DIR: &str = "__cluster_metadata-0";

/// Settings of the log on disk.
#[derive(Clone, Copy, Debug)]
pub struct LogStoreConfig {
    /// A segment that has reached this many bytes is followed by another (`metadata.log.segment.bytes`).
    pub segment_bytes: u64,
}

impl Default for LogStoreConfig {
    fn default() -> Self {
        LogStoreConfig { segment_bytes: 1024 * 1024 * 1024 }
    }
}

/// Why the metadata log cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum LogStoreError {
    /// The disk refused.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file or directory.
        path: PathBuf,
        /// What the disk said.
        source: io::Error,
    },
    /// Bytes that were fsynced are not there any more: not a torn tail.
    #[error("{} is damaged at byte {position}: {reason}", path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// Where in it.
        position: u64,
        /// What is wrong.
        reason: String,
    },
    /// A whole batch that says what this program does not understand; see [`QuorumDecodeError::is_newer`].
    #[error("{} at byte {position}: {source}", path.display())]
    Payload {
        /// The file.
        path: PathBuf,
        /// Where in it.
        position: u64,
        /// What is wrong.
        source: QuorumDecodeError,
    },
    /// Without its snapshot a log means nothing.
    #[error("{} has a metadata log and no snapshot (.checkpoint) for it to continue", dir.display())]
    SnapshotMissing {
        /// The directory.
        dir: PathBuf,
    },
    /// The log does not continue its snapshot.
    #[error("{} lacks the entries between index {after} and index {first}", dir.display())]
    EntriesMissing {
        /// The directory.
        dir: PathBuf,
        /// The last index before the hole.
        after: u64,
        /// The first one behind it.
        first: u64,
    },
    /// An earlier write or fsync failed; nothing is known of what the disk kept.
    #[error("the metadata log is offline since an earlier I/O error")]
    Failed,
}

impl LogStoreError {
    /// Whether a newer highwater wrote these files: exit 2, not 4.
    pub fn is_newer(&self) -> bool {
        matches!(self, LogStoreError::Payload { source, .. } if source.is_newer())
    }

    /// Whether the disk, or our share of it, is full.
    pub fn is_disk_full(&self) -> bool {
        matches!(self, LogStoreError::Io { source, .. } if storage::fs::is_disk_full(source))
    }
}

fn parent_of(dir: &Path) -> &Path {
    dir.parent().unwrap_or(Path::new("/"))
}

fn io_error<'a>(
    action: &'static str,
    path: &'a Path,
) -> impl FnOnce(io::Error) -> LogStoreError + 'a {
    move |source| LogStoreError::Io { action, path: path.to_owned(), source }
}

/// What a directory held.
#[derive(Debug)]
pub enum OpenedLog {
    /// No group has begun here: make one, or find one ([`super::membership`]).
    Empty(EmptyLog),
    /// A group's log.
    Found {
        /// To append to. Boxed only for its size.
        store: Box<LogStore>,
        /// To start Raft from.
        state: QuorumState,
        /// Bytes of the last segment that a crash left torn and that were cut.
        cut_bytes: u64,
    },
}

/// A directory without a log.
#[derive(Debug)]
pub struct EmptyLog {
    fs: Arc<dyn Fs>,
    dir: PathBuf,
    config: LogStoreConfig,
    dir_exists: bool,
}

impl EmptyLog {
    /// Begins the log with its first snapshot, in a directory whose own name is durable then, and all the names beside it
    /// that were there before. The snapshot's becomes so with the first [`LogStore::persist`] or [`LogStore::sync`]: until
    /// then nobody may be told of it.
    ///
    /// # Errors
    /// What the disk says; the directory still counts as empty then.
    pub fn start(
        self,
        snapshot: &QuorumSnapshot,
        now: Timestamp,
    ) -> Result<LogStore, LogStoreError> {
        if !self.dir_exists {
            self.fs.create_dir(&self.dir).map_err(io_error("create", &self.dir))?;
        }
        snapshot_file::write(&*self.fs, &self.dir, snapshot, now, &[parent_of(&self.dir)])?;
        Ok(LogStore {
            fs: self.fs,
            dir: self.dir,
            config: self.config,
            segments: Vec::new(),
            active: None,
            next_offset: 0,
            durable_end: 0,
            hard_state: QuorumState::bootstrapped(snapshot.clone()).hard_state,
            snapshot: (snapshot.index, snapshot.term),
            needs_restart: false,
            unsynced_names: true,
            unsynced_parent: false,
            unsynced_tail: false,
            holds_back: false,
            failed: false,
        })
    }
}

/// One segment, from the outside.
#[derive(Clone, Debug)]
struct Segment {
    base_offset: u64,
    size_bytes: u64,
    /// Greatest index of an entry in it that may still count; 0 without one.
    max_index: u64,
}

/// The log, opened to append. Blocking; one owner.
#[derive(Debug)]
pub struct LogStore {
    fs: Arc<dyn Fs>,
    dir: PathBuf,
    config: LogStoreConfig,
    /// Oldest first; the last one is appended to.
    segments: Vec<Segment>,
    /// The last segment's file; opened at the first append.
    active: Option<Arc<dyn FsFile>>,
    /// Offset of the next batch.
    next_offset: u64,
    /// Invariant: every batch below it is fsynced, and `durable_end <= next_offset`.
    durable_end: u64,
    hard_state: HardState,
    /// Index and term.
    snapshot: (u64, u64),
    /// The snapshot does not stand in the log: the next batch says that what is before it is void.
    needs_restart: bool,
    /// Names in the directory that a power cut may take.
    unsynced_names: bool,
    /// As above, for the directory's own name.
    unsynced_parent: bool,
    /// Recovery kept batches of the last segment that may only be in the page cache.
    unsynced_tail: bool,
    /// The next batch is only written; the one after it syncs both.
    holds_back: bool,
    failed: bool,
}

impl LogStore {
    /// Reads the log under `dir` (`<log.dir>/__cluster_metadata-0`, which need not exist), cuts a torn tail.
    ///
    /// # Errors
    /// [`LogStoreError`]; nothing was changed but unfinished files removed.
    pub fn open(
        fs: Arc<dyn Fs>,
        dir: &Path,
        config: LogStoreConfig,
    ) -> Result<OpenedLog, LogStoreError> {
        recovery::open(fs, dir, config)
    }

    /// Index of the latest snapshot.
    pub fn snapshot_index(&self) -> u64 {
        self.snapshot.0
    }

    /// The latest hard state on disk.
    pub fn hard_state(&self) -> HardState {
        self.hard_state
    }

    /// Makes all of `persist` durable. Its messages may leave then, not before.
    ///
    /// # Errors
    /// After any error the node must stop: nothing is known of what the disk kept.
    pub fn persist(&mut self, persist: &Persist, now: Timestamp) -> Result<(), LogStoreError> {
        if self.failed {
            return Err(LogStoreError::Failed);
        }
        let result = self.try_persist(persist, now);
        self.failed = result.is_err();
        result
    }

    fn try_persist(&mut self, persist: &Persist, now: Timestamp) -> Result<(), LogStoreError> {
        if let Some(snapshot) = &persist.snapshot {
            snapshot_file::write(&*self.fs, &self.dir, snapshot, now, &[])?;
            self.sync_names()?;
            self.snapshot = (snapshot.index, snapshot.term);
            self.needs_restart = true;
        }
        if persist.must_sync || self.needs_restart {
            self.append(persist.hard_state, &persist.entries, now)?;
        }
        if persist.snapshot.is_some() {
            self.remove_covered()?;
        }
        Ok(())
    }

    /// The next [`LogStore::persist`] only writes; what comes after it syncs both. For the opening entry of a group of one
    /// that has just begun: nobody knows of that group before it has registered its broker, which is the second write. A
    /// power cut between the two leaves less of a bootstrap, or none, and none of it was promised to anybody.
    ///
    /// # Panics
    /// If something is durable already.
    pub fn hold_back_first(&mut self) {
        assert_eq!(self.durable_end, 0, "only what begins a log may wait");
        self.holds_back = true;
    }

    /// Makes durable what [`LogStore::open`] kept and [`EmptyLog::start`] made. A group of several calls it before its first
    /// answer to a peer; a group of one need not, its first `persist` does it.
    ///
    /// # Errors
    /// As [`LogStore::persist`].
    pub fn sync(&mut self) -> Result<(), LogStoreError> {
        if self.failed {
            return Err(LogStoreError::Failed);
        }
        let result = self.sync_tail().and_then(|()| self.sync_names());
        self.failed = result.is_err();
        result
    }

    /// Makes a snapshot of our own durable, in place of the older one, and removes the segments wholly below it.
    ///
    /// # Errors
    /// A full disk ([`LogStoreError::is_disk_full`]) costs nothing as long as [`LogStore::is_failed`] is false: the older
    /// snapshot stays, try again later. After any other error the node must stop.
    pub fn write_snapshot(
        &mut self,
        snapshot: &QuorumSnapshot,
        now: Timestamp,
    ) -> Result<(), LogStoreError> {
        if self.failed {
            return Err(LogStoreError::Failed);
        }
        assert!(
            snapshot.index >= self.snapshot.0,
            "a snapshot at {} behind the one at {}",
            snapshot.index,
            self.snapshot.0
        );
        if let Err(error) = snapshot_file::write(&*self.fs, &self.dir, snapshot, now, &[]) {
            self.failed = !error.is_disk_full();
            return Err(error);
        }
        let result = self.finish_snapshot(snapshot, now);
        self.failed = result.is_err();
        result
    }

    fn finish_snapshot(
        &mut self,
        snapshot: &QuorumSnapshot,
        now: Timestamp,
    ) -> Result<(), LogStoreError> {
        fail::fail_point!("metadata-log-after-snapshot-rename");
        self.unsynced_names = true;
        self.sync_names()?;
        self.snapshot = (snapshot.index, snapshot.term);
        if self.segments.last().is_some_and(|active| active.size_bytes > 0) {
            // The hard state moves on into a new segment, so that the old ones can go.
            self.roll()?;
            self.append(self.hard_state, &[], now)?;
        }
        self.remove_covered()
    }

    /// Whether an earlier error has taken the log offline.
    pub fn is_failed(&self) -> bool {
        self.failed
    }

    fn append(
        &mut self,
        hard_state: HardState,
        entries: &[LogEntry],
        now: Timestamp,
    ) -> Result<(), LogStoreError> {
        let mut bodies: Vec<LogBody> = entries.iter().cloned().map(LogBody::Entry).collect();
        if self.needs_restart {
            bodies.insert(0, LogBody::Restart);
            self.segments.iter_mut().for_each(|segment| segment.max_index = 0);
            if self.segments.last().is_some_and(|active| active.size_bytes > 0) {
                self.roll()?;
            }
        } else if bodies.is_empty() {
            bodies.push(LogBody::HardStateOnly);
        }
        if self.segments.last().is_some_and(|active| active.size_bytes >= self.config.segment_bytes)
        {
            self.roll()?;
        }
        let durable_end = self.durable_end;
        let mut bytes = Vec::new();
        let mut offset = self.next_offset;
        let mut max_index = 0;
        for body in bodies {
            let mut hard_state = hard_state;
            if let LogBody::Entry(entry) = &body {
                // A tear may keep this batch and lose the next: it must not say that the next is committed.
                hard_state.commit = hard_state.commit.min(entry.index);
                max_index = max_index.max(entry.index);
            } else if !entries.is_empty() {
                hard_state.commit = hard_state.commit.min(entries[0].index - 1);
            }
            let payload = LogPayload { hard_state, durable_end, body };
            batch_file::push_batch(&mut bytes, offset, hard_state.term, &payload.encode(), now);
            offset += 1;
        }

        let file = self.active_file()?;
        let active = self.segments.last_mut().expect("active_file opened one");
        let path = self.dir.join(batch_file::segment_name(active.base_offset));
        file.write_at(&mut [IoSlice::new(&bytes)], active.size_bytes)
            .map_err(io_error("append to", &path))?;
        active.size_bytes += bytes.len() as u64;
        active.max_index = active.max_index.max(max_index);
        fail::fail_point!("metadata-log-after-write");
        self.next_offset = offset;
        if std::mem::take(&mut self.holds_back) {
            self.unsynced_tail = true;
        } else {
            self.sync_with_names(Some((&*file, &path)))?;
            fail::fail_point!("metadata-log-after-fsync");
            self.unsynced_tail = false; // the same file
            self.durable_end = offset;
        }
        self.hard_state = hard_state;
        self.needs_restart = false;
        Ok(())
    }

    fn active_file(&mut self) -> Result<Arc<dyn FsFile>, LogStoreError> {
        if let Some(file) = &self.active {
            return Ok(Arc::clone(file));
        }
        if self.segments.is_empty() {
            self.segments.push(Segment {
                base_offset: self.next_offset,
                size_bytes: 0,
                max_index: 0,
            });
        }
        let active = self.segments.last().expect("one was just made");
        let path = self.dir.join(batch_file::segment_name(active.base_offset));
        if active.size_bytes == 0 {
            self.unsynced_names = true;
        }
        let file = self.fs.open(&path, OpenMode::Create).map_err(io_error("open", &path))?;
        self.active = Some(Arc::clone(&file));
        Ok(file)
    }

    /// The next append begins a new segment. Everything before it is durable first, so that only the last segment can be
    /// torn.
    fn roll(&mut self) -> Result<(), LogStoreError> {
        self.sync_tail()?;
        self.active = None;
        self.segments.push(Segment { base_offset: self.next_offset, size_bytes: 0, max_index: 0 });
        Ok(())
    }

    fn sync_tail(&mut self) -> Result<(), LogStoreError> {
        if self.unsynced_tail {
            let file = self.active_file()?;
            file.sync_data().map_err(io_error("fsync the metadata log in", &self.dir))?;
            self.durable_end = self.next_offset;
            self.unsynced_tail = false;
        }
        Ok(())
    }

    fn sync_names(&mut self) -> Result<(), LogStoreError> {
        self.sync_with_names(None)
    }

    /// Syncs a file, and the names that are not yet; all at once, for a record counts only after the last of them.
    fn sync_with_names(&mut self, file: Option<(&dyn FsFile, &Path)>) -> Result<(), LogStoreError> {
        let parent = parent_of(&self.dir);
        let names = self.unsynced_names.then_some(&*self.dir);
        let names = names.into_iter().chain(self.unsynced_parent.then_some(parent));
        let targets = names.map(|name| (SyncTarget::Names(name), name));
        let targets = targets.chain(file.map(|(file, path)| (SyncTarget::Data(file), path)));
        let (targets, paths): (Vec<_>, Vec<_>) = targets.unzip();
        for (outcome, path) in self.fs.sync_together(&targets).into_iter().zip(paths) {
            outcome.map_err(io_error("fsync", path))?;
        }
        self.unsynced_names = false;
        self.unsynced_parent = false;
        Ok(())
    }

    /// Removes segments wholly below the snapshot, oldest first and each for good before the next, so that a power cut
    /// leaves no hole; then older snapshots.
    fn remove_covered(&mut self) -> Result<(), LogStoreError> {
        while self.segments.len() > 1 && self.segments[0].max_index <= self.snapshot.0 {
            let path = self.dir.join(batch_file::segment_name(self.segments[0].base_offset));
            self.fs.remove_file(&path).map_err(io_error("remove", &path))?;
            self.fs.sync_dir(&self.dir).map_err(io_error("fsync", &self.dir))?;
            self.segments.remove(0);
        }
        snapshot_file::remove_others(&*self.fs, &self.dir, self.snapshot)
    }
}
