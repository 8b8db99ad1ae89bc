//! What the logs of a directory leave for the background: which of them are dirty or hold memory, which files are to be
//! removed, whether a checkpoint would differ. Logs write it down under their own lock; [`crate::log_manager`] takes it,
//! so that nobody has to look at logs to which nothing happened.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock};

use super::LogDir;
use crate::topic_partition::TopicId;

/// A file or directory that was renamed to be removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Doomed {
    pub(crate) path: PathBuf,
    pub(crate) delay_ms: u64,
}

pub(crate) struct Work {
    noted: Mutex<Noted>,
    /// Whether an offset moved that a checkpoint holds.
    offsets_moved: AtomicBool,
    unflushed_bytes: AtomicU64,
    /// The background is woken when the unflushed bytes rise past this.
    wake_at_unflushed_bytes: AtomicU64,
    waker: OnceLock<Box<dyn Fn() + Send + Sync>>,
}

impl Default for Work {
    fn default() -> Work {
        Work {
            noted: Mutex::default(),
            offsets_moved: AtomicBool::new(true),
            unflushed_bytes: AtomicU64::new(0),
            wake_at_unflushed_bytes: AtomicU64::new(u64::MAX),
            waker: OnceLock::new(),
        }
    }
}

#[derive(Debug, Default)]
pub(crate) struct Noted {
    /// Logs that became dirty, or of which the time to flush them may have changed.
    pub(crate) dirty: BTreeSet<(TopicId, i32)>,
    /// Logs that were loaded, or brought more of themselves into memory.
    pub(crate) in_use: BTreeSet<(TopicId, i32)>,
    pub(crate) doomed: Vec<Doomed>,
}

impl LogDir {
    fn noted(&self) -> MutexGuard<'_, Noted> {
        self.work().noted.lock().expect("nothing panics while it holds the work list")
    }

    /// Called, in any thread and maybe under a log's lock, when background work has turned up and there was
    /// none before: then ask [`crate::log_manager::LogManager::due`] soon. It must not block, and only the
    /// first one set is kept.
    pub fn set_work_listener(&self, wake: impl Fn() + Send + Sync + 'static) {
        let _ = self.work().waker.set(Box::new(wake));
    }

    pub(crate) fn wake(&self) {
        if let Some(wake) = self.work().waker.get() {
            wake();
        }
    }

    pub(crate) fn note_dirty(&self, topic_id: TopicId, partition: i32) {
        let mut noted = self.noted();
        let was_idle = noted.dirty.is_empty() && noted.doomed.is_empty();
        noted.dirty.insert((topic_id, partition));
        drop(noted);
        if was_idle {
            self.wake();
        }
    }

    /// Without waking anybody: memory is not given back at once.
    pub(crate) fn note_in_use(&self, topic_id: TopicId, partition: i32) {
        self.noted().in_use.insert((topic_id, partition));
    }

    /// A checkpoint that is written now may differ from the last one.
    pub(crate) fn note_offsets_moved(&self) {
        if !self.work().offsets_moved.load(Ordering::Relaxed) {
            self.work().offsets_moved.store(true, Ordering::Release);
        }
    }

    /// Whether offsets moved since this was last asked.
    pub(crate) fn take_offsets_moved(&self) -> bool {
        self.work().offsets_moved.swap(false, Ordering::AcqRel)
    }

    /// Bytes appended to any log here since they were last flushed: what an unclean start would read.
    pub fn unflushed_bytes(&self) -> u64 {
        self.work().unflushed_bytes.load(Ordering::Relaxed)
    }

    /// From now on the background is woken when the unflushed bytes rise past `limit_bytes`.
    pub(crate) fn wake_at_unflushed_bytes(&self, limit_bytes: u64) {
        self.work().wake_at_unflushed_bytes.store(limit_bytes, Ordering::Relaxed);
    }

    pub(crate) fn add_unflushed(&self, bytes: u64) {
        let before = self.work().unflushed_bytes.fetch_add(bytes, Ordering::Relaxed);
        let limit = self.work().wake_at_unflushed_bytes.load(Ordering::Relaxed);
        if before <= limit && before + bytes > limit {
            self.wake();
        }
    }

    pub(crate) fn sub_unflushed(&self, bytes: u64) {
        self.work().unflushed_bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    pub(crate) fn doom(&self, paths: impl IntoIterator<Item = PathBuf>, delay_ms: u64) {
        self.noted().doomed.extend(paths.into_iter().map(|path| Doomed { path, delay_ms }));
        self.wake();
    }

    /// Takes all that was noted.
    pub(crate) fn take_work(&self) -> Noted {
        std::mem::take(&mut *self.noted())
    }
}
