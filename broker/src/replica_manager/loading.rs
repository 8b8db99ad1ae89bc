//! Whether a log is being read from its directory, which is done under its partition's lock and may take as long as the disk
//! likes: who must not wait looks here before it asks for the lock.

use std::sync::atomic::{AtomicUsize, Ordering};

/// Of one partition.
#[derive(Debug, Default)]
pub(super) struct Loading {
    threads: AtomicUsize,
}

/// One who may be loading.
#[derive(Debug)]
pub(super) struct LoadingGuard<'a>(&'a Loading);

impl Loading {
    /// Before the lock is taken: whoever asks for it later than this is told.
    pub(super) fn begin(&self) -> LoadingGuard<'_> {
        self.threads.fetch_add(1, Ordering::AcqRel);
        LoadingGuard(self)
    }

    /// Whether the partition's lock may be held for long.
    pub(super) fn is_under_way(&self) -> bool {
        self.threads.load(Ordering::Acquire) > 0
    }
}

impl Drop for LoadingGuard<'_> {
    fn drop(&mut self) {
        self.0.threads.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{append_one_record, led};
    use crate::clock::Clock;
    use crate::fetch_session::FetchPosition;
    use crate::replica_manager::partition::Partition;
    use crate::replica_manager::read::{FetchIsolation, OffsetSpec, ReadError};
    use std::io;
    use std::path::Path;
    use std::sync::{Arc, Mutex, mpsc};
    use std::thread;
    use std::time::Duration;
    use storage::fs::simulated::SimulatedFs;
    use storage::fs::{DirEntry, Fs, FsFile, FsLock, Metadata, OpenMode};
    use storage::log::ReadError as LogReadError;
    use storage::timestamp::Timestamp;

    type Hook = Box<dyn FnOnce() + Send>;

    /// A disk that does something else first when a directory is listed.
    #[derive(Clone)]
    struct Slow(SimulatedFs, Arc<Mutex<Option<Hook>>>);

    impl std::fmt::Debug for Slow {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            self.0.fmt(f)
        }
    }

    impl Fs for Slow {
        fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn FsFile>> {
            self.0.open(path, mode)
        }
        fn create_dir(&self, path: &Path) -> io::Result<()> {
            self.0.create_dir(path)
        }
        fn read_dir(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
            let hook = self.1.lock().unwrap().take();
            hook.into_iter().for_each(|hook| hook());
            self.0.read_dir(path)
        }
        fn metadata(&self, path: &Path) -> io::Result<Metadata> {
            self.0.metadata(path)
        }
        fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
            self.0.rename(from, to)
        }
        fn remove_file(&self, path: &Path) -> io::Result<()> {
            self.0.remove_file(path)
        }
        fn remove_dir(&self, path: &Path) -> io::Result<()> {
            self.0.remove_dir(path)
        }
        fn sync_dir(&self, path: &Path) -> io::Result<()> {
            self.0.sync_dir(path)
        }
        fn lock(&self, path: &Path) -> io::Result<Box<dyn FsLock>> {
            self.0.lock(path)
        }
    }

    fn plan(partition: &Partition, waits: bool) -> Result<(), ReadError> {
        let position = FetchPosition {
            fetch_offset: 0,
            current_leader_epoch: -1,
            last_fetched_epoch: -1,
            log_start_offset: -1,
            max_bytes: 1000,
        };
        let isolation = FetchIsolation::HighWatermark;
        partition.plan_read(&position, isolation, waits, Timestamp::ZERO).map(|_| ())
    }

    #[test]
    fn who_must_not_wait_does_not_stand_at_the_lock_while_another_loads_the_log() {
        let fs = Slow(SimulatedFs::new(), Arc::default());
        let (manager, partition) = led(fs.clone(), Clock::start(), &[1], &[]);
        drop(append_one_record(&manager, &partition));
        plan(&partition, false).expect("the log is in memory");
        manager.logs().close(None, Timestamp::ZERO).unwrap();
        drop((manager, partition));

        let (_manager, partition) = led(fs.clone(), Clock::start(), &[1], &[]);
        let is_not_in_memory =
            |planned| matches!(planned, Err(ReadError::Log(LogReadError::NotInMemory)));
        assert!(is_not_in_memory(plan(&partition, false)), "it is cold");
        let (told, hears) = mpsc::channel();
        let worker = Arc::clone(&partition);
        let hook: Hook = Box::new(move || {
            // Its answer, or none in time.
            let (answers, answered) = mpsc::channel();
            thread::spawn(move || {
                let planned = plan(&worker, false);
                let needs_disk = worker.list_offset_needs_disk(OffsetSpec::Latest);
                let _ = answers.send((planned, needs_disk));
            });
            let _ = told.send(answered.recv_timeout(Duration::from_secs(10)).ok());
        });
        *fs.1.lock().unwrap() = Some(hook);
        plan(&partition, true).unwrap();
        let answered = hears.recv().expect("the directory was read");
        let (planned, needs_disk) = answered.expect("the worker did not wait for the load");
        assert!(is_not_in_memory(planned) && needs_disk);
        plan(&partition, false).expect("it is loaded now");
        assert!(!partition.list_offset_needs_disk(OffsetSpec::Latest));
    }
}
