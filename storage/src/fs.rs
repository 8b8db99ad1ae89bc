//! The seam between this crate and the disk: every file operation of the log goes through [`Fs`] and
//! [`FsFile`], so that the same code runs on the real disk ([`real::RealFs`]) and on one that forgets
//! what was not synced, tears writes and fails on demand ([`simulated::SimulatedFs`]).
//!
//! What the seam promises is what POSIX promises, and no more:
//! - written bytes survive a killed process at once, a power cut only after [`FsFile::sync_data`];
//! - a created, renamed or removed name survives a power cut only after [`Fs::sync_dir`] of its directory;
//! - [`Fs::rename`] replaces the target atomically.
//!
//! Operations are positional; nobody has a cursor, so one handle serves readers and the writer at a time.

mod page_cache;
pub mod real;
pub mod simulated;

use std::fmt::Debug;
use std::io::{self, IoSlice};
use std::os::fd::BorrowedFd;
use std::path::Path;
use std::sync::Arc;

use rustix::io::Errno;

use crate::index_file::MappedBytes;
use crate::timestamp::Timestamp;

/// How [`Fs::open`] treats a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenMode {
    /// Only to read; it must exist.
    Read,
    /// To read and write; it must exist.
    Write,
    /// To read and write; created empty if absent.
    Create,
    /// To read and write, empty: created if absent, cut to nothing if present.
    Truncate,
}

/// One name in a directory.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct DirEntry {
    /// The name, without the directory. Names that are not UTF-8 are shown with replacement characters;
    /// none of ours is such.
    pub name: String,
    /// Whether the name is a directory's.
    pub is_dir: bool,
}

/// What a file or directory is like now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Metadata {
    /// Bytes in the file; meaningless for a directory.
    pub size_bytes: u64,
    /// Wall clock of the last change.
    pub modified: Timestamp,
    /// Whether it is a directory.
    pub is_dir: bool,
}

/// What [`Fs::sync_together`] syncs.
#[derive(Clone, Copy, Debug)]
pub enum SyncTarget<'a> {
    /// As [`FsFile::sync_data`].
    Data(&'a dyn FsFile),
    /// As [`Fs::sync_dir`].
    Names(&'a Path),
}

/// One machine's disk. Blocking.
pub trait Fs: Debug + Send + Sync {
    /// Opens a file.
    ///
    /// # Errors
    /// `NotFound` where the mode wants an existing file; else what the disk says.
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn FsFile>>;

    /// Creates one directory; its parent exists.
    ///
    /// # Errors
    /// `AlreadyExists`, `NotFound` for the parent; else what the disk says.
    fn create_dir(&self, path: &Path) -> io::Result<()>;

    /// The names in a directory, sorted.
    ///
    /// # Errors
    /// `NotFound`; else what the disk says.
    fn read_dir(&self, path: &Path) -> io::Result<Vec<DirEntry>>;

    /// Size, time and kind of a file or directory.
    ///
    /// # Errors
    /// `NotFound`; else what the disk says.
    fn metadata(&self, path: &Path) -> io::Result<Metadata>;

    /// Gives a file or directory another name, in place of the file that has it. Both names are in
    /// directories that exist.
    ///
    /// # Errors
    /// What the disk says.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file's name; open handles stay good.
    ///
    /// # Errors
    /// `NotFound`; else what the disk says.
    fn remove_file(&self, path: &Path) -> io::Result<()>;

    /// Removes an empty directory.
    ///
    /// # Errors
    /// `NotFound`, `DirectoryNotEmpty`; else what the disk says.
    fn remove_dir(&self, path: &Path) -> io::Result<()>;

    /// Makes the names in a directory survive a power cut.
    ///
    /// # Errors
    /// After an error nothing is known of what was kept: take the disk offline, never ask again.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;

    /// Syncs several things that need no order among themselves: they may reach the disk in any, or at the same time. One
    /// answer each, in the order of the targets; all are tried.
    fn sync_together(&self, targets: &[SyncTarget<'_>]) -> Vec<io::Result<()>> {
        targets.iter().map(|target| self.sync(target)).collect()
    }

    /// How many syncs are worth running at a time, each on a thread of its own.
    fn sync_threads(&self) -> usize {
        1
    }

    /// One of them.
    ///
    /// # Errors
    /// As [`FsFile::sync_data`] and [`Fs::sync_dir`].
    fn sync(&self, target: &SyncTarget<'_>) -> io::Result<()> {
        match target {
            SyncTarget::Data(file) => file.sync_data(),
            SyncTarget::Names(path) => self.sync_dir(path),
        }
    }

    /// Takes the exclusive lock of a file, creating it if absent; released by dropping the answer, or by
    /// the end of the process however it ends.
    ///
    /// # Errors
    /// `WouldBlock` if someone else holds it.
    fn lock(&self, path: &Path) -> io::Result<Box<dyn FsLock>>;
}

/// A held lock.
pub trait FsLock: Debug + Send + Sync {}

/// An open file. Blocking.
pub trait FsFile: Debug + Send + Sync {
    /// Bytes in the file.
    ///
    /// # Errors
    /// What the disk says.
    fn size_bytes(&self) -> io::Result<u64>;

    /// Reads up to `buffer.len()` bytes from `position`; fewer only at the end of the file.
    ///
    /// # Errors
    /// What the disk says.
    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize>;

    /// Reads from `position` what is in memory, without waiting for the disk: up to `buffer.len()` bytes, fewer at the
    /// end of the file and before a page that is not there. A disk that cannot tell waits.
    ///
    /// # Errors
    /// `WouldBlock` if the first byte is not in memory; else what the disk says.
    fn read_cached_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        self.read_at(buffer, position)
    }

    /// Whether all of these bytes are in memory or on their way there, as far as the system can tell at once; false where it
    /// cannot.
    fn is_cached(&self, position: u64, size_bytes: usize) -> bool {
        let _ = (position, size_bytes);
        false
    }

    /// Writes all of `parts`, one after the other, from `position`. With an error any part of it may
    /// have been written.
    ///
    /// # Errors
    /// `StorageFull` and `QuotaExceeded` for a full disk; else what the disk says.
    fn write_at(&self, parts: &mut [IoSlice<'_>], position: u64) -> io::Result<()>;

    /// Cuts the file, or extends it with zeroes.
    ///
    /// # Errors
    /// What the disk says.
    fn set_size(&self, size_bytes: u64) -> io::Result<()>;

    /// Makes what was written and the size survive a power cut (fdatasync).
    ///
    /// # Errors
    /// After an error nothing is known of what was kept: take the disk offline, never ask again.
    fn sync_data(&self) -> io::Result<()>;

    /// The content now, to read without copying where the disk can. Only for files that are no longer
    /// cut: see [`crate::index_file`].
    ///
    /// # Errors
    /// What the disk says.
    fn map(&self) -> io::Result<MappedBytes>;

    /// The descriptor, for `sendfile` and the like; the simulated disk has none.
    fn descriptor(&self) -> Option<BorrowedFd<'_>>;

    /// Reads exactly `buffer.len()` bytes from `position`.
    ///
    /// # Errors
    /// `UnexpectedEof` if the file ends before; else what the disk says.
    fn read_exact_at(&self, buffer: &mut [u8], position: u64) -> io::Result<()> {
        if self.read_at(buffer, position)? == buffer.len() {
            return Ok(());
        }
        Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the file ends inside what was asked for"))
    }
}

/// Whether an error says that the disk, or our share of it, is full. Everything else a write can answer
/// takes the log directory offline (DESIGN D7).
pub fn is_disk_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// Whether an error says that the process, or the system, has no more descriptors. It is not the disk's word: nothing was
/// opened, so nothing was done, and what was written before is as it was.
pub fn is_too_many_open_files(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::MFILE | Errno::NFILE))
}

/// The whole content of a file.
///
/// # Errors
/// `NotFound`; `FileTooLarge` if it is larger than `max_bytes`; else what the disk says.
pub fn read_file(fs: &dyn Fs, path: &Path, max_bytes: u64) -> io::Result<Vec<u8>> {
    let file = fs.open(path, OpenMode::Read)?;
    let size = file.size_bytes()?;
    if size > max_bytes {
        return Err(io::Error::new(
            io::ErrorKind::FileTooLarge,
            format!("{} has {size} bytes, at most {max_bytes} make sense", path.display()),
        ));
    }
    let mut content = vec![0; usize::try_from(size).expect("it was bounded")];
    let read = file.read_at(&mut content, 0)?;
    content.truncate(read);
    Ok(content)
}

/// Removes a directory with all that is in it, files of directories first. Not atomic: who must not see
/// half of it renames it first.
///
/// # Errors
/// What the disk says; a directory that is not there is none.
pub fn remove_dir_all(fs: &dyn Fs, path: &Path) -> io::Result<()> {
    let entries = match fs.read_dir(path) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    for entry in entries {
        let child = path.join(&entry.name);
        if entry.is_dir { remove_dir_all(fs, &child)? } else { fs.remove_file(&child)? }
    }
    fs.remove_dir(path)
}
