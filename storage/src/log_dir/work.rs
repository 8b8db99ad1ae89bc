//! What the logs of a directory leave for the background: which of them are dirty, which files are to be
//! removed. Logs write it down under their own lock; [`crate::log_manager`] takes it.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, OnceLock};

use super::LogDir;
use crate::topic_partition::TopicId;

/// A file or directory that was renamed to be removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Doomed {
    pub(crate) path: PathBuf,
    pub(crate) delay_ms: u64,
}

#[derive(Default)]
pub(crate) struct Work {
    noted: Mutex<Noted>,
    waker: OnceLock<Box<dyn Fn() + Send + Sync>>,
}

#[derive(Debug, Default)]
pub(crate) struct Noted {
    pub(crate) dirty: BTreeSet<(TopicId, i32)>,
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

    pub(crate) fn doom(&self, paths: impl IntoIterator<Item = PathBuf>, delay_ms: u64) {
        self.noted().doomed.extend(paths.into_iter().map(|path| Doomed { path, delay_ms }));
        self.wake();
    }

    /// Takes all that was noted.
    pub(crate) fn take_work(&self) -> Noted {
        std::mem::take(&mut *self.noted())
    }
}
