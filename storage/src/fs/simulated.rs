//! A disk in memory for tests and simulation. It forgets what was not synced, tears writes, and fails
//! when told to; everything random comes from the seed handed in, so a run replays exactly.
//!
//! It is as unhelpful as POSIX allows, and a bit more than ext4 is:
//! - After a power cut a file has what was synced, and of the writes since then a seeded choice of
//!   pieces: a piece may be torn at any byte, and a file may have its new size with zeroes in the holes.
//! - Names (creates, renames, removals) of a directory survive only up to its last sync, and of the
//!   later ones a seeded first part. Syncing a file does not save its name.
//! - A crash ends the process: every handle and lock from before it answers errors from then on.

mod disk;
mod faults;

use std::io::{self, IoSlice};
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use super::{DirEntry, Fs, FsFile, FsLock, Metadata, OpenMode, SyncTarget};
use crate::index_file::MappedBytes;
use crate::timestamp::Timestamp;

use disk::{Disk, Inode};
use faults::Faults;
pub use faults::{Fault, Operation};

/// How a crash treats what was not synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Crash {
    /// The process was killed: the page cache, so all that was written, is kept.
    Process,
    /// The power went: only what was synced is kept.
    PowerLosingUnsynced,
    /// The power went in the middle of writing back: what was synced is kept, and of the rest what the
    /// seed chooses.
    PowerKeepingSome {
        /// Chooses what was written back.
        seed: u64,
    },
}

/// A disk in memory. Clones are the same disk.
#[derive(Clone, Debug)]
pub struct SimulatedFs {
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
struct State {
    disk: Disk,
    faults: Faults,
    /// Grows with each crash; handles of an earlier life are dead.
    life: u64,
    locks: Vec<PathBuf>,
    now: Timestamp,
    max_open_files: usize,
}

impl Default for SimulatedFs {
    fn default() -> Self {
        SimulatedFs::new()
    }
}

impl SimulatedFs {
    /// An empty disk: only the root directory `/`.
    pub fn new() -> SimulatedFs {
        let state = State {
            disk: Disk::new(),
            faults: Faults::default(),
            life: 0,
            locks: Vec::new(),
            now: Timestamp::ZERO,
            max_open_files: usize::MAX,
        };
        SimulatedFs { state: Arc::new(Mutex::new(state)) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no thread panics while it holds the simulated disk")
    }

    /// Sets the clock that files' times are taken from.
    pub fn set_now(&self, now: Timestamp) {
        self.state().now = now;
    }

    /// Ends the process, and with a power cut what the disk forgets. Faults that were asked for are
    /// dropped; the disk can be opened again at once.
    pub fn crash(&self, crash: Crash) {
        let mut state = self.state();
        state.life += 1;
        state.locks.clear();
        state.faults = Faults::default();
        state.max_open_files = usize::MAX;
        state.disk.forget_writers();
        match crash {
            Crash::Process => {}
            Crash::PowerLosingUnsynced => state.disk.power_cut(None),
            Crash::PowerKeepingSome { seed } => state.disk.power_cut(Some(seed)),
        }
    }

    /// Adds a fault; see [`Fault`].
    pub fn inject(&self, fault: Fault) {
        self.state().faults.add(fault);
    }

    /// From the `bytes`th written byte on nothing happens any more: that write is cut there, it and
    /// everything later is an error, until [`SimulatedFs::crash`].
    pub fn stop_after_bytes(&self, bytes: u64) {
        self.state().faults.stop_after_bytes = Some(bytes);
    }

    /// The next `operations` changes (writes, syncs, names) happen, nothing after them, until
    /// [`SimulatedFs::crash`].
    pub fn stop_after_changes(&self, operations: u64) {
        self.state().faults.stop_after_changes = Some(operations);
    }

    /// Changes (writes, syncs, names) asked for since the disk was made.
    pub fn changes(&self) -> u64 {
        self.state().disk.changes
    }

    /// Syncs, of files and directories, asked for since the disk was made.
    pub fn syncs(&self) -> u64 {
        self.state().disk.syncs
    }

    /// Bytes written to files since the disk was made.
    pub fn written_bytes(&self) -> u64 {
        self.state().disk.written_bytes
    }

    /// Open handles now: idle partitions should have none.
    pub fn open_files(&self) -> usize {
        self.state().disk.open_handles()
    }

    /// From now on the process has so many descriptors for files: opening one more, or a directory, is an error (`EMFILE`).
    pub fn limit_open_files(&self, max_open_files: usize) {
        self.state().max_open_files = max_open_files;
    }

    /// The system fails to write back what was not synced of the files whose paths contain a text: it is lost. The next
    /// sync says so where the file is open now; where it is not, nobody will ever be told.
    pub fn fail_write_back(&self, path_contains: &str) {
        self.state().disk.fail_write_back(path_contains);
    }

    /// Files that were written to since the last crash, not synced since, and that nobody has open: should their write-back
    /// fail, nobody is told.
    pub fn dirty_and_closed(&self) -> Vec<PathBuf> {
        self.state().disk.dirty_and_closed()
    }

    /// Another disk with what is on this one now, synced and not, without faults, handles and locks.
    pub fn fork(&self) -> SimulatedFs {
        let state = self.state();
        let forked = State {
            disk: state.disk.fork(),
            faults: Faults::default(),
            life: 0,
            locks: Vec::new(),
            now: state.now,
            max_open_files: usize::MAX,
        };
        SimulatedFs { state: Arc::new(Mutex::new(forked)) }
    }

    /// Everything written so far counts as synced.
    pub fn sync_everything(&self) {
        self.state().disk.sync_everything();
    }

    /// Every file with its content, sorted by path: to compare disks in tests.
    pub fn files(&self) -> Vec<(PathBuf, Vec<u8>)> {
        self.state().disk.files()
    }
}

impl Fs for SimulatedFs {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn FsFile>> {
        let mut state = self.state();
        let now = state.now;
        let exists = state.disk.lookup(path).is_ok();
        let operation = match mode {
            OpenMode::Truncate => Operation::Create,
            OpenMode::Create if !exists => Operation::Create,
            _ => Operation::Open,
        };
        state.check_descriptors()?;
        state.check(operation, path)?;
        let inode = state.disk.open(path, mode, now)?;
        let handle = SimulatedFile {
            fs: self.clone(),
            inode: inode.clone(),
            path: path.to_path_buf(),
            life: state.life,
            is_writable: mode != OpenMode::Read,
        };
        Ok(Arc::new(handle))
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.check(Operation::CreateDir, path)?;
        let now = state.now;
        state.disk.create_dir(path, now)
    }

    fn read_dir(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        let mut state = self.state();
        state.check_descriptors()?;
        state.check(Operation::Open, path)?;
        state.disk.read_dir(path)
    }

    fn metadata(&self, path: &Path) -> io::Result<Metadata> {
        let mut state = self.state();
        state.check(Operation::Open, path)?;
        state.disk.metadata(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.check(Operation::Rename, from)?;
        state.disk.rename(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.check(Operation::Remove, path)?;
        state.disk.remove(path, false)
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.check(Operation::Remove, path)?;
        state.disk.remove(path, true)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.check_descriptors()?;
        state.check(Operation::SyncDir, path)?;
        state.disk.sync_dir(path)
    }

    /// In their order or against it, so that nobody comes to rely on one.
    fn sync_together(&self, targets: &[SyncTarget<'_>]) -> Vec<io::Result<()>> {
        let is_backward = self.changes() % 2 == 1;
        let one_after_another = |targets: &mut dyn Iterator<Item = &SyncTarget<'_>>| {
            targets.map(|target| self.sync(target)).collect::<Vec<_>>()
        };
        if !is_backward {
            return one_after_another(&mut targets.iter());
        }
        let mut outcomes = one_after_another(&mut targets.iter().rev());
        outcomes.reverse();
        outcomes
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn FsLock>> {
        let mut state = self.state();
        state.check(Operation::Create, path)?;
        if state.locks.iter().any(|held| held == path) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let now = state.now;
        state.disk.open(path, OpenMode::Create, now)?;
        state.locks.push(path.to_path_buf());
        let life = state.life;
        Ok(Box::new(SimulatedLock { fs: self.clone(), path: path.to_path_buf(), life }))
    }
}

impl State {
    /// Whether there is a descriptor for one more file or directory.
    fn check_descriptors(&mut self) -> io::Result<()> {
        if self.max_open_files < usize::MAX && self.disk.open_handles() >= self.max_open_files {
            return Err(rustix::io::Errno::MFILE.into());
        }
        Ok(())
    }

    /// Counts the operation and fails it if it is to fail.
    fn check(&mut self, operation: Operation, path: &Path) -> io::Result<()> {
        if operation.is_change() {
            self.disk.changes += 1;
        }
        if matches!(operation, Operation::Sync | Operation::SyncDir) {
            self.disk.syncs += 1;
        }
        self.faults.check(operation, path)
    }
}

#[derive(Debug)]
struct SimulatedLock {
    fs: SimulatedFs,
    path: PathBuf,
    life: u64,
}

impl FsLock for SimulatedLock {}

impl Drop for SimulatedLock {
    fn drop(&mut self) {
        let mut state = self.fs.state();
        if state.life == self.life {
            state.locks.retain(|held| *held != self.path);
        }
    }
}

#[derive(Debug)]
struct SimulatedFile {
    fs: SimulatedFs,
    inode: Arc<Inode>,
    path: PathBuf,
    life: u64,
    is_writable: bool,
}

impl SimulatedFile {
    fn state(&self, operation: Operation) -> io::Result<MutexGuard<'_, State>> {
        let is_change = matches!(operation, Operation::Write | Operation::SetSize);
        if is_change && !self.is_writable {
            return Err(rustix::io::Errno::BADF.into());
        }
        let mut state = self.fs.state();
        if state.life != self.life {
            return Err(io::Error::other("this handle is from before the crash"));
        }
        state.check(operation, &self.path)?;
        Ok(state)
    }
}

impl FsFile for SimulatedFile {
    fn size_bytes(&self) -> io::Result<u64> {
        let state = self.state(Operation::Open)?;
        Ok(state.disk.content(&self.inode).len() as u64)
    }

    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        let state = self.state(Operation::Read)?;
        let content = state.disk.content(&self.inode);
        let start = usize::try_from(position).unwrap_or(usize::MAX).min(content.len());
        let count = buffer.len().min(content.len() - start);
        buffer[..count].copy_from_slice(&content[start..start + count]);
        Ok(count)
    }

    fn write_at(&self, parts: &mut [IoSlice<'_>], position: u64) -> io::Result<()> {
        let mut bytes = Vec::new();
        for part in parts.iter() {
            bytes.extend_from_slice(part);
        }
        let outcome = self.state(Operation::Write);
        let mut state = match outcome {
            Ok(state) => state,
            Err(error) if is_partial(&error) => {
                // A full disk takes what still fits.
                let mut state = self.fs.state();
                let now = state.now;
                state.disk.write(&self.inode, position, &bytes[..bytes.len() / 2], now);
                return Err(error);
            }
            Err(error) => return Err(error),
        };
        let now = state.now;
        let allowed = state.faults.take_bytes(bytes.len());
        state.disk.write(&self.inode, position, &bytes[..allowed], now);
        if allowed < bytes.len() { Err(faults::stopped()) } else { Ok(()) }
    }

    fn set_size(&self, size_bytes: u64) -> io::Result<()> {
        let mut state = self.state(Operation::SetSize)?;
        let now = state.now;
        state.disk.set_size(&self.inode, size_bytes, now);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut state = self.state(Operation::Sync)?;
        match state.disk.sync(&self.inode) {
            true => Err(io::Error::other("an earlier write-back had failed")),
            false => Ok(()),
        }
    }

    fn map(&self) -> io::Result<MappedBytes> {
        let state = self.state(Operation::Read)?;
        Ok(MappedBytes::owned(state.disk.content(&self.inode).to_vec()))
    }

    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        None
    }
}

fn is_partial(error: &io::Error) -> bool {
    super::is_disk_full(error)
}

#[cfg(test)]
mod tests;
