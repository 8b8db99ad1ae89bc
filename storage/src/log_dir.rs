//! One log directory: its lock, its identity, its offline latch, and the open files of all its logs.
//!
//! A directory is ours if it holds a `meta.properties` with our format version, or nothing at all
//! (`lost+found` and what a first start that was cut short leaves aside). Anything else is refused
//! untouched. The first file that a start creates is `.lock`, the second `meta.properties`, synced before it
//! gets its name; that name, and the directory's own, are synced before anything in the directory counts (by whom, says
//! [`LogDir::open`]). A directory cut off at any step can be started again.

mod checkpoints;
mod clean_stop;
mod file_cache;
mod meta_properties;
pub(crate) mod names;
mod sparing_fs;
mod work;

use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

pub(crate) use checkpoints::CheckpointKind;
use checkpoints::Checkpoints;
pub use clean_stop::{CleanStop, StoppedLog};
pub(crate) use file_cache::{CachedFile, FileCache, FileKey, FileKind, HeldFile};
pub use meta_properties::{FORMAT_VERSION, MetaProperties, MetaPropertiesError};
pub use names::{DirName, parse_dir_name};
use sparing_fs::SparingFs;
use work::Work;

use crate::checkpoint::CheckpointError;
use crate::flush::SharedSync;
use crate::fs::{
    DirEntry, Fs, FsFile, FsLock, OpenMode, SyncTarget, is_disk_full, is_too_many_open_files,
    read_file,
};
use crate::log::LogError;
use crate::tail_cache::TailCache;

const LOCK_FILE: &str = ".lock";
const META_PROPERTIES_FILE: &str = "meta.properties";
/// No `meta.properties` of ours or of Kafka's is larger.
const META_PROPERTIES_MAX_BYTES: u64 = 64 << 10;

/// What the disk did to an operation.
#[derive(Clone, Debug, thiserror::Error)]
pub enum DiskError {
    /// The disk, or our share of it, is full. Nothing else is wrong: what was asked for did not happen.
    #[error("no space left for {path:?}")]
    Full {
        /// The file that would have grown.
        path: PathBuf,
    },
    /// The process, or the system, has no descriptor left, even after files that nobody needs were closed. Nothing is wrong with
    /// the disk: what was asked for did not happen.
    #[error("too many open files to open {path:?}")]
    TooManyOpenFiles {
        /// The file or directory.
        path: PathBuf,
    },
    /// An earlier or this very error took the directory offline, for good (DESIGN D7).
    #[error("log directory {dir:?} is offline: {cause}")]
    Offline {
        /// The directory.
        dir: PathBuf,
        /// The first error.
        cause: Arc<str>,
    },
}

/// Why a directory cannot be opened. All of them leave it untouched.
#[derive(Debug, thiserror::Error)]
pub enum OpenDirError {
    /// Another process, or another broker in this one, has it.
    #[error("log directory {dir:?} is locked: another broker is using it")]
    Locked {
        /// The directory.
        dir: PathBuf,
    },
    /// There is something in it that is not ours.
    #[error(
        "log directory {dir:?} holds {found:?} but no meta.properties of highwater: \
         choose an empty directory"
    )]
    NotOurs {
        /// The directory.
        dir: PathBuf,
        /// One of the names in it.
        found: String,
    },
    /// Its `meta.properties` is not usable.
    #[error("{path:?}: {source}")]
    MetaProperties {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: MetaPropertiesError,
    },
    /// It belongs to another node.
    #[error("log directory {dir:?} belongs to node {found}, this is node {expected}")]
    OtherNode {
        /// The directory.
        dir: PathBuf,
        /// `node.id` in its `meta.properties`.
        found: i32,
        /// This node's.
        expected: i32,
    },
    /// The disk's answer.
    #[error("log directory {path:?}: {source}")]
    Io {
        /// The directory or file.
        path: PathBuf,
        /// The error.
        source: io::Error,
    },
}

/// Memory for batches just appended, of all logs that are followed at their end.
const TAIL_CACHE_BYTES: usize = 8 << 20;

type OfflineListener = Box<dyn Fn(&DiskError) + Send + Sync>;

/// One log directory, locked. Shared by all its logs.
pub struct LogDir {
    fs: Arc<dyn Fs>,
    path: PathBuf,
    meta: MetaProperties,
    offline: OnceLock<Arc<str>>,
    listener: OnceLock<OfflineListener>,
    files: Arc<FileCache>,
    tails: TailCache,
    next_segment_key: AtomicU64,
    checkpoints: Checkpoints,
    work: Work,
    names: SharedSync,
    _lock: Box<dyn FsLock>,
}

impl std::fmt::Debug for LogDir {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LogDir").field("path", &self.path).field("offline", &self.offline).finish()
    }
}

impl LogDir {
    /// Opens, and if need be creates, a log directory, and takes its lock. `new` is the identity that a
    /// directory gets which has none yet; of one that has, the node id must be the same.
    ///
    /// Of a new directory its own name and what `meta.properties` says are durable then, but not that file's name: who makes
    /// the first thing in the directory that counts syncs the directory first. A log does so with its first flush, the
    /// metadata log before it has its own first name.
    ///
    /// # Errors
    /// See [`OpenDirError`].
    pub fn open(
        fs: Arc<dyn Fs>,
        path: &Path,
        new: &MetaProperties,
    ) -> Result<Arc<LogDir>, OpenDirError> {
        let io = |path: &Path| {
            let path = path.to_path_buf();
            move |source| OpenDirError::Io { path, source }
        };
        let is_created = match read_meta_properties(&*fs, path)? {
            None => create_dir_all(&*fs, path).map_err(io(path))?,
            Some(_) => false,
        };
        refuse_foreign(&*fs, path)?;
        let lock_path = path.join(LOCK_FILE);
        let lock = fs.lock(&lock_path).map_err(|error| match error.kind() {
            io::ErrorKind::WouldBlock => OpenDirError::Locked { dir: path.to_path_buf() },
            _ => io(&lock_path)(error),
        })?;
        let meta = match read_meta_properties(&*fs, path)? {
            Some(meta) => meta,
            None => {
                let meta_path = path.join(META_PROPERTIES_FILE);
                write_meta_properties(&*fs, path, new, is_created).map_err(io(&meta_path))?;
                new.clone()
            }
        };
        if meta.node_id != new.node_id {
            return Err(OpenDirError::OtherNode {
                dir: path.to_path_buf(),
                found: meta.node_id,
                expected: new.node_id,
            });
        }
        let files = Arc::new(FileCache::new());
        Ok(Arc::new(LogDir {
            fs: Arc::new(SparingFs::new(fs, files.clone())),
            path: path.to_path_buf(),
            meta,
            offline: OnceLock::new(),
            listener: OnceLock::new(),
            files,
            tails: TailCache::new(TAIL_CACHE_BYTES),
            next_segment_key: AtomicU64::new(0),
            checkpoints: Checkpoints::default(),
            work: Work::default(),
            names: SharedSync::default(),
            _lock: lock,
        }))
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The disk it is on, as all who work in this directory should use it: it closes cached files where descriptors run out.
    pub fn fs(&self) -> &Arc<dyn Fs> {
        &self.fs
    }

    /// Its identity, as in its `meta.properties`.
    pub fn meta_properties(&self) -> &MetaProperties {
        &self.meta
    }

    /// Called once, in the thread that met it, with the error that takes the directory offline. Only the
    /// first listener is kept.
    pub fn set_offline_listener(&self, listener: impl Fn(&DiskError) + Send + Sync + 'static) {
        let _ = self.listener.set(Box::new(listener));
    }

    /// The error that took the directory offline, if one did.
    pub fn offline_error(&self) -> Option<DiskError> {
        let cause = self.offline.get()?.clone();
        Some(DiskError::Offline { dir: self.path.clone(), cause })
    }

    /// # Errors
    /// If the directory is offline.
    pub fn check_online(&self) -> Result<(), DiskError> {
        match self.offline_error() {
            None => Ok(()),
            Some(error) => Err(error),
        }
    }

    /// Judges what the disk answered to `doing` (“write”, “fsync”, …) at `path`: a full disk, and that there are no
    /// descriptors, is passed on, anything else takes the directory offline.
    pub(crate) fn judge<T>(
        &self,
        doing: &str,
        path: &Path,
        outcome: io::Result<T>,
    ) -> Result<T, DiskError> {
        match outcome {
            Ok(value) => Ok(value),
            Err(error) if is_disk_full(&error) => Err(DiskError::Full { path: path.to_path_buf() }),
            Err(error) if is_too_many_open_files(&error) => {
                Err(DiskError::TooManyOpenFiles { path: path.to_path_buf() })
            }
            Err(error) => Err(self.take_offline(doing, path, &error)),
        }
    }

    /// As [`LogDir::judge`] for syncs: after a failed one nothing is known, so even a full disk takes the
    /// directory offline. Only where a directory could not be opened no sync has begun, which it says as no sync can: what
    /// was to be synced still is.
    pub(crate) fn judge_sync<T>(
        &self,
        path: &Path,
        outcome: io::Result<T>,
    ) -> Result<T, DiskError> {
        outcome.map_err(|error| match is_too_many_open_files(&error) {
            true => DiskError::TooManyOpenFiles { path: path.to_path_buf() },
            false => self.take_offline("fsync", path, &error),
        })
    }

    /// For steps of a change that memory and disk would disagree about if it stopped here: then even that there are no
    /// descriptors takes the directory offline.
    pub(crate) fn judge_half_done<T>(
        &self,
        doing: &str,
        outcome: Result<T, LogError>,
    ) -> Result<T, LogError> {
        match outcome {
            Err(LogError::Disk(error @ DiskError::TooManyOpenFiles { .. })) => {
                Err(self.take_offline(doing, &self.path, &error).into())
            }
            outcome => outcome,
        }
    }

    /// Syncs the names in this directory, together with whoever asks for it at the same time.
    ///
    /// # Errors
    /// If that fails, or the directory is offline.
    pub(crate) fn sync_names(&self) -> Result<(), DiskError> {
        let sync = || self.judge_sync(&self.path, self.fs.sync_dir(&self.path));
        self.names.run(|| self.check_online(), sync)
    }

    /// Takes the directory offline because of what is described, and says so.
    pub(crate) fn take_offline(
        &self,
        doing: &str,
        path: &Path,
        error: &dyn std::fmt::Display,
    ) -> DiskError {
        let mut first = false;
        let cause = self.offline.get_or_init(|| {
            first = true;
            format!("{doing} of {}: {error}", path.display()).into()
        });
        let offline = DiskError::Offline { dir: self.path.clone(), cause: cause.clone() };
        if first {
            tracing::error!(dir = %self.path.display(), cause = %cause, "log directory goes offline");
            if let Some(listener) = self.listener.get() {
                listener(&offline);
            }
        }
        offline
    }

    /// A key for a segment's files, or a log's tail, in their caches; no two are the same.
    pub(crate) fn new_segment_key(&self) -> u64 {
        self.next_segment_key.fetch_add(1, Ordering::Relaxed)
    }

    fn checkpoints(&self) -> &Checkpoints {
        &self.checkpoints
    }

    fn work(&self) -> &Work {
        &self.work
    }

    /// What was just appended to its logs.
    pub(crate) fn tails(&self) -> &TailCache {
        &self.tails
    }

    pub(crate) fn files(&self) -> &FileCache {
        &self.files
    }

    /// How many log files may be open at once; answers on their way out may keep half as many open beside. Partitions that are
    /// in use beyond that open theirs again and again.
    pub fn set_max_open_files(&self, max_open_files: usize) {
        self.files.set_max_open_files(max_open_files);
    }

    /// Closes files that were not used since the last call.
    pub fn close_idle_files(&self) {
        self.files.close_idle();
    }
}

fn parent_of(path: &Path) -> &Path {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    parent.unwrap_or(Path::new("."))
}

/// Creates what is missing of `path`. Returns whether it created `path` itself, whose name is then for the caller to sync,
/// and that of the directory it is in: an earlier start may have been cut off before it had synced either, but had synced
/// the names above them before it made these two.
fn create_dir_all(fs: &dyn Fs, path: &Path) -> io::Result<bool> {
    let is_there = |path: &Path| match fs.metadata(path) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    };
    if is_there(path)? {
        return Ok(false);
    }
    let parent = parent_of(path);
    if !is_there(parent)? {
        create_dir_all(fs, parent)?;
        sync_with_names_above(fs, None, parent, true)?;
    }
    match fs.create_dir(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(true),
    }
}

/// Syncs `file`, the name of `dir` and that of the directory it is in.
fn sync_with_names_above(
    fs: &dyn Fs,
    file: Option<&dyn FsFile>,
    dir: &Path,
    is_dir_created: bool,
) -> io::Result<()> {
    let parent = parent_of(dir);
    let above = SyncTarget::Names(parent_of(parent));
    let targets = [SyncTarget::Names(parent), above].into_iter();
    let targets: Vec<_> = targets.chain(file.map(SyncTarget::Data)).collect();
    let mut synced = fs.sync_together(&targets).into_iter();
    let (own_name, _above) = (synced.next(), synced.next());
    // Where the directories above are not ours to open, they were not made by us either.
    if is_dir_created {
        own_name.transpose()?;
    }
    synced.collect()
}

/// Writes the first `meta.properties` of a directory: its content and the directory's own name are synced before the file
/// has its name, which is not.
fn write_meta_properties(
    fs: &dyn Fs,
    dir: &Path,
    meta: &MetaProperties,
    is_dir_created: bool,
) -> io::Result<()> {
    let path = dir.join(META_PROPERTIES_FILE);
    let temporary = path.with_extension("properties.tmp");
    let file = fs.open(&temporary, OpenMode::Truncate)?;
    file.write_at(&mut [IoSlice::new(meta.to_text().as_bytes())], 0)?;
    sync_with_names_above(fs, Some(&*file), dir, is_dir_created)?;
    fs.rename(&temporary, &path)
}

/// Refuses a directory that has no format key of ours and is not empty either.
fn refuse_foreign(fs: &dyn Fs, path: &Path) -> Result<(), OpenDirError> {
    if read_meta_properties(fs, path)?.is_some() {
        return Ok(());
    }
    let entries = fs
        .read_dir(path)
        .map_err(|source| OpenDirError::Io { path: path.to_path_buf(), source })?;
    // What our own first start can leave behind, cut off before `meta.properties` had its name; or where the power went, and
    // the file system kept a later name but not that one: then the metadata log's directory with nothing finished in it.
    let is_unfinished = |name: &str| name.ends_with(".tmp");
    let of_a_first_start = |entry: &DirEntry| {
        entry.name == "lost+found"
            || entry.name == LOCK_FILE
            || entry.name.strip_suffix(".tmp") == Some(META_PROPERTIES_FILE)
            || entry.name == names::METADATA_LOG_DIR
                && fs
                    .read_dir(&path.join(&entry.name))
                    .is_ok_and(|inside| inside.iter().all(|inside| is_unfinished(&inside.name)))
    };
    match entries.into_iter().find(|entry| !of_a_first_start(entry)) {
        None => Ok(()),
        Some(entry) => Err(OpenDirError::NotOurs { dir: path.to_path_buf(), found: entry.name }),
    }
}

fn read_meta_properties(fs: &dyn Fs, dir: &Path) -> Result<Option<MetaProperties>, OpenDirError> {
    let path = dir.join(META_PROPERTIES_FILE);
    let bytes = match read_file(fs, &path, META_PROPERTIES_MAX_BYTES) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(OpenDirError::Io { path, source }),
    };
    match MetaProperties::parse(&bytes) {
        Ok(meta) => Ok(Some(meta)),
        Err(MetaPropertiesError::NoFormatVersion) => Err(OpenDirError::NotOurs {
            dir: dir.to_path_buf(),
            found: META_PROPERTIES_FILE.to_owned(),
        }),
        Err(source) => Err(OpenDirError::MetaProperties { path, source }),
    }
}

/// Reads a checkpoint of this directory. A malformed one, or a disk that fails, takes the directory offline.
pub(crate) fn judge_checkpoint<T>(
    dir: &LogDir,
    path: &Path,
    outcome: Result<T, CheckpointError>,
) -> Result<T, DiskError> {
    outcome.map_err(|error| dir.take_offline("read", path, &error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs::simulated::{Crash, SimulatedFs};
    use crate::fs::{OpenMode, real::RealFs};

    fn identity(node_id: i32) -> MetaProperties {
        MetaProperties {
            node_id,
            cluster_id: Some("cluster".into()),
            directory_id: crate::topic_partition::TopicId::from_bytes([7; 16]),
        }
    }

    fn open(fs: &SimulatedFs, node_id: i32) -> Result<Arc<LogDir>, OpenDirError> {
        LogDir::open(Arc::new(fs.clone()), Path::new("/a/data"), &identity(node_id))
    }

    #[test]
    fn a_directory_keeps_its_first_identity() {
        let fs = SimulatedFs::new();
        drop(open(&fs, 1).unwrap());
        let mut other = identity(1);
        other.directory_id = crate::topic_partition::TopicId::from_bytes([8; 16]);
        let dir = LogDir::open(Arc::new(fs.clone()), Path::new("/a/data"), &other).unwrap();
        assert_eq!(*dir.meta_properties(), identity(1));
        assert!(matches!(open(&fs, 1), Err(OpenDirError::Locked { .. })));
        drop(dir);
        assert!(matches!(open(&fs, 2), Err(OpenDirError::OtherNode { found: 1, expected: 2, .. })));
    }

    #[test]
    fn a_directory_of_someone_else_is_refused_untouched() {
        for name in ["x", "meta.properties"] {
            let fs = SimulatedFs::new();
            fs.create_dir(Path::new("/a")).unwrap();
            fs.create_dir(Path::new("/a/data")).unwrap();
            fs.open(&Path::new("/a/data").join(name), OpenMode::Create).unwrap();
            let before = fs.files();
            assert!(
                matches!(open(&fs, 1), Err(OpenDirError::NotOurs { found, .. }) if found == name)
            );
            assert_eq!(fs.files(), before);
        }
    }

    #[test]
    fn the_freshly_formatted_file_system_of_a_volume_is_empty() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("lost+found")).unwrap();
        LogDir::open(Arc::new(RealFs::new()), dir.path(), &identity(1)).unwrap();
    }

    #[test]
    fn a_metadata_log_that_was_never_begun_does_not_make_the_directory_foreign() {
        for (name, is_begun) in [("1.checkpoint.tmp", false), ("0.log", true)] {
            let fs = SimulatedFs::new();
            create_dir_all(&fs, Path::new("/a/data")).unwrap();
            let metadata = Path::new("/a/data").join(names::METADATA_LOG_DIR);
            fs.create_dir(&metadata).unwrap();
            fs.open(&metadata.join(name), OpenMode::Create).unwrap();
            let opened = open(&fs, 1);
            assert_eq!(matches!(opened, Err(OpenDirError::NotOurs { .. })), is_begun, "{opened:?}");
            assert_eq!(opened.is_ok(), !is_begun);
        }
    }

    #[test]
    fn a_first_start_that_is_cut_at_any_step_can_be_repeated() {
        for crash in [Crash::Process, Crash::PowerLosingUnsynced] {
            for stop in 0..12 {
                let fs = SimulatedFs::new();
                fs.stop_after_changes(stop);
                let _ = open(&fs, 1);
                fs.crash(crash);
                open(&fs, 1).unwrap_or_else(|error| panic!("{crash:?} at {stop}: {error}"));
            }
        }
        for seed in 0..200 {
            let fs = SimulatedFs::new();
            fs.stop_after_changes(seed % 12);
            let _ = open(&fs, 1);
            fs.crash(Crash::PowerKeepingSome { seed });
            open(&fs, 1).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        }
    }

    #[test]
    fn a_directory_that_opened_survives_a_power_cut_however_often_earlier_starts_were_killed() {
        for (first, second) in (0..12).flat_map(|first| (0..12).map(move |second| (first, second)))
        {
            let fs = SimulatedFs::new();
            for stop in [first, second] {
                fs.stop_after_changes(stop);
                let _ = open(&fs, 1);
                fs.crash(Crash::Process);
            }
            drop(open(&fs, 1).unwrap());
            // As the metadata log does, which is made here next and before anything counts.
            fs.sync_dir(Path::new("/a/data")).unwrap();
            fs.crash(Crash::PowerLosingUnsynced);
            let meta = read_meta_properties(&fs, Path::new("/a/data")).unwrap();
            assert_eq!(meta, Some(identity(1)), "killed at {first} and {second}");
        }
    }

    #[test]
    fn a_first_error_other_than_a_full_disk_is_remembered() {
        let fs = SimulatedFs::new();
        let dir = open(&fs, 1).unwrap();
        let path = Path::new("/a/data/f");
        let full = io::Error::from(io::ErrorKind::StorageFull);
        let outcome: Result<(), DiskError> = dir.judge("write", path, Err(full));
        assert!(matches!(outcome, Err(DiskError::Full { .. })));
        dir.check_online().unwrap();
        let seen = Arc::new(std::sync::Mutex::new(0));
        let counter = seen.clone();
        dir.set_offline_listener(move |_| *counter.lock().unwrap() += 1);
        for text in ["first", "second"] {
            let outcome: Result<(), DiskError> =
                dir.judge("write", path, Err(io::Error::other(text)));
            assert!(outcome.unwrap_err().to_string().contains("first"));
        }
        assert!(dir.check_online().is_err());
        assert_eq!(*seen.lock().unwrap(), 1);
    }
}
