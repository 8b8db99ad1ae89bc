//! The disk as the logs of a directory see it: where the process has no descriptor left, files that are open only because they
//! may be needed again are closed, and it is tried once more.

use std::io;
use std::path::Path;
use std::sync::Arc;

use super::FileCache;
use crate::fs::{
    DirEntry, Fs, FsFile, FsLock, Metadata, OpenMode, SyncTarget, is_too_many_open_files,
};

#[derive(Debug)]
pub(super) struct SparingFs {
    fs: Arc<dyn Fs>,
    files: Arc<FileCache>,
}

impl SparingFs {
    pub(super) fn new(fs: Arc<dyn Fs>, files: Arc<FileCache>) -> SparingFs {
        SparingFs { fs, files }
    }

    /// `ask`, and again if there was no descriptor for it.
    fn try_twice<T>(&self, ask: impl Fn() -> io::Result<T>) -> io::Result<T> {
        match ask() {
            Err(error) if is_too_many_open_files(&error) => {
                self.files.close_half();
                ask()
            }
            outcome => outcome,
        }
    }
}

impl Fs for SparingFs {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn FsFile>> {
        self.try_twice(|| self.fs.open(path, mode))
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        self.fs.create_dir(path)
    }

    fn read_dir(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        self.try_twice(|| self.fs.read_dir(path))
    }

    fn metadata(&self, path: &Path) -> io::Result<Metadata> {
        self.fs.metadata(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.fs.rename(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.fs.remove_file(path)
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        self.fs.remove_dir(path)
    }

    /// Tried again only if the directory could not be opened: a sync that failed is never asked again.
    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.try_twice(|| self.fs.sync_dir(path))
    }

    fn sync_together(&self, targets: &[SyncTarget<'_>]) -> Vec<io::Result<()>> {
        let mut outcomes = self.fs.sync_together(targets);
        for (outcome, target) in outcomes.iter_mut().zip(targets) {
            if let SyncTarget::Names(path) = target
                && outcome.as_ref().is_err_and(is_too_many_open_files)
            {
                self.files.close_half();
                *outcome = self.fs.sync_dir(path);
            }
        }
        outcomes
    }

    fn sync_threads(&self) -> usize {
        self.fs.sync_threads()
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn FsLock>> {
        self.fs.lock(path)
    }
}

#[cfg(test)]
mod tests {
    use super::super::{FileKey, FileKind};
    use super::*;
    use crate::fs::simulated::SimulatedFs;

    #[test]
    fn where_descriptors_run_out_cached_files_make_room() {
        let simulated = SimulatedFs::new();
        let files = Arc::new(FileCache::new());
        let fs = SparingFs::new(Arc::new(simulated.clone()), files.clone());
        let open = || fs.open(Path::new("/f"), OpenMode::Create);
        let cached: Vec<_> = (0..10)
            .map(|segment| files.file(FileKey { segment, kind: FileKind::Log }, open).unwrap().1)
            .collect();
        cached[0].note_unsynced();
        simulated.limit_open_files(10);
        fs.sync_dir(Path::new("/")).unwrap();
        assert!(simulated.open_files() <= 6, "{}", simulated.open_files());
        assert!(cached[0].get().is_some(), "it waits for a sync");
        simulated.limit_open_files(simulated.open_files());
        let names = [SyncTarget::Names(Path::new("/"))];
        assert!(fs.sync_together(&names)[0].is_ok());
        let held: Vec<_> = std::iter::from_fn(|| open().ok()).collect();
        assert!(!held.is_empty() && is_too_many_open_files(&open().unwrap_err()));
    }
}
