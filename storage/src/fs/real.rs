//! The real disk.

use std::fs::{File, OpenOptions};
use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::UNIX_EPOCH;

use rustix::fs::{FlockOperation, fcntl_lock, flock};
use rustix::io::{Errno, ReadWriteFlags};

use super::{DirEntry, Fs, FsFile, FsLock, Metadata, OpenMode, SyncTarget, page_cache};
use crate::flush::in_parallel;
use crate::index_file::{self, MappedBytes};
use crate::timestamp::Timestamp;

/// The file system of this machine.
#[derive(Clone, Copy, Debug)]
pub struct RealFs {
    /// False only for directories that are removed when the broker ends: syncing them protects nothing.
    syncs: bool,
}

impl RealFs {
    /// A disk whose syncs are real.
    pub const fn new() -> RealFs {
        RealFs { syncs: true }
    }

    /// A disk whose syncs do nothing, for `--ephemeral`: its directory does not outlive the process.
    pub const fn without_sync() -> RealFs {
        RealFs { syncs: false }
    }
}

impl Default for RealFs {
    fn default() -> Self {
        RealFs::new()
    }
}

impl Fs for RealFs {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn FsFile>> {
        let mut options = OpenOptions::new();
        options.read(true);
        match mode {
            OpenMode::Read => {}
            OpenMode::Write => _ = options.write(true),
            OpenMode::Create => _ = options.write(true).create(true).truncate(false),
            OpenMode::Truncate => _ = options.write(true).create(true).truncate(true),
        }
        let file = options.open(path)?;
        Ok(Arc::new(RealFile { file, syncs: self.syncs, reads_cached: AtomicBool::new(true) }))
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        std::fs::create_dir(path)
    }

    fn read_dir(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        let mut entries = Vec::new();
        for entry in std::fs::read_dir(path)? {
            let entry = entry?;
            entries.push(DirEntry {
                name: entry.file_name().to_string_lossy().into_owned(),
                is_dir: entry.file_type()?.is_dir(),
            });
        }
        entries.sort();
        Ok(entries)
    }

    fn metadata(&self, path: &Path) -> io::Result<Metadata> {
        let metadata = std::fs::metadata(path)?;
        let age = metadata.modified()?.duration_since(UNIX_EPOCH).unwrap_or_default();
        Ok(Metadata {
            size_bytes: metadata.len(),
            modified: Timestamp::ZERO
                .saturating_add_millis(i64::try_from(age.as_millis()).unwrap_or(i64::MAX)),
            is_dir: metadata.is_dir(),
        })
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        std::fs::rename(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_file(path)
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_dir(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        if self.syncs { File::open(path)?.sync_all() } else { Ok(()) }
    }

    fn sync_together(&self, targets: &[SyncTarget<'_>]) -> Vec<io::Result<()>> {
        if !self.syncs {
            return targets.iter().map(|_| Ok(())).collect();
        }
        in_parallel(self.sync_threads(), targets, |target| self.sync(target))
    }

    /// A file system with a journal puts what waits at the same time into one commit. 200 files with 1 KiB each on ext4, beside
    /// other work: one after the other 850–1,560 ms, by 4 threads 7–110, by 16 threads 15–35, by 64 threads 5–18, which is too little
    /// more for the threads. Not `syncfs`: it flushes what is not ours, and tells of a failed write-back once per file system, not
    /// per file.
    fn sync_threads(&self) -> usize {
        if self.syncs { 16 } else { 1 }
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn FsLock>> {
        let file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        // Two kinds: flock sees a second broker in this process too; the fcntl lock is the one Java
        // takes, so that Kafka itself and we keep off each other's directories.
        flock(&file, FlockOperation::NonBlockingLockExclusive)?;
        match fcntl_lock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Box::new(RealLock { _file: file })),
            Err(Errno::ACCESS | Errno::AGAIN) => Err(io::ErrorKind::WouldBlock.into()),
            Err(error) => Err(error.into()),
        }
    }
}

#[derive(Debug)]
struct RealLock {
    _file: File,
}

impl FsLock for RealLock {}

#[derive(Debug)]
struct RealFile {
    file: File,
    syncs: bool,
    /// Until its file system says that it cannot read without waiting (`RWF_NOWAIT`).
    reads_cached: AtomicBool,
}

impl FsFile for RealFile {
    fn size_bytes(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        let mut read = 0;
        while read < buffer.len() {
            match self.file.read_at(&mut buffer[read..], position + read as u64) {
                Ok(0) => break,
                Ok(count) => read += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(read)
    }

    fn read_cached_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        while self.reads_cached.load(Ordering::Relaxed) {
            let parts = &mut [IoSliceMut::new(buffer)];
            match rustix::io::preadv2(&self.file, parts, position, ReadWriteFlags::NOWAIT) {
                Ok(count) => return Ok(count),
                Err(Errno::INTR) => {}
                Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => {
                    self.reads_cached.store(false, Ordering::Relaxed);
                }
                Err(error) => return Err(error.into()),
            }
        }
        self.read_at(buffer, position)
    }

    fn is_cached(&self, position: u64, size_bytes: usize) -> bool {
        page_cache::is_cached(&self.file, position, size_bytes)
    }

    fn write_at(&self, parts: &mut [IoSlice<'_>], position: u64) -> io::Result<()> {
        let mut rest = parts;
        let mut position = position;
        IoSlice::advance_slices(&mut rest, 0); // drops empty parts at the front
        while !rest.is_empty() {
            match rustix::io::pwritev(&self.file, rest, position) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => {
                    position += count as u64;
                    IoSlice::advance_slices(&mut rest, count);
                }
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn set_size(&self, size_bytes: u64) -> io::Result<()> {
        self.file.set_len(size_bytes)
    }

    fn sync_data(&self) -> io::Result<()> {
        if self.syncs { self.file.sync_data() } else { Ok(()) }
    }

    fn map(&self) -> io::Result<MappedBytes> {
        index_file::map(&self.file)
    }

    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        Some(self.file.as_fd())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs::read_file;

    #[test]
    fn parts_land_one_after_the_other_at_their_position() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        let fs = RealFs::new();
        let file = fs.open(&path, OpenMode::Create).unwrap();
        let mut parts = [IoSlice::new(b""), IoSlice::new(b"abc"), IoSlice::new(b"de")];
        file.write_at(&mut parts, 2).unwrap();
        assert_eq!(read_file(&fs, &path, 100).unwrap(), b"\0\0abcde");
        assert_eq!(read_file(&fs, &path, 3).unwrap_err().kind(), io::ErrorKind::FileTooLarge);
        assert_eq!(&*file.map().unwrap(), b"\0\0abcde");
    }

    #[test]
    fn what_was_just_written_is_read_without_the_disk_and_nothing_at_the_end() {
        let dir = tempfile::tempdir().unwrap();
        let file = RealFs::new().open(&dir.path().join("f"), OpenMode::Create).unwrap();
        file.write_at(&mut [IoSlice::new(b"abcde")], 0).unwrap();
        let mut buffer = [0; 4];
        assert_eq!(file.read_cached_at(&mut buffer, 3).unwrap(), 2);
        assert_eq!(&buffer[..2], b"de");
        assert_eq!(file.read_cached_at(&mut buffer, 5).unwrap(), 0);
    }

    #[test]
    fn syncing_together_answers_for_each_in_its_place() {
        let dir = tempfile::tempdir().unwrap();
        let fs = RealFs::new();
        let file = fs.open(&dir.path().join("f"), OpenMode::Create).unwrap();
        let gone = dir.path().join("gone");
        let targets = [
            SyncTarget::Names(&gone),
            SyncTarget::Data(&*file),
            SyncTarget::Names(dir.path()),
            SyncTarget::Names(&gone),
        ];
        let is_ok = |fs: RealFs| -> Vec<bool> {
            fs.sync_together(&targets).iter().map(Result::is_ok).collect()
        };
        assert_eq!(is_ok(fs), [false, true, true, false]);
        assert_eq!(is_ok(RealFs::without_sync()), [true; 4]);
        assert!(fs.sync_together(&[]).is_empty());
    }

    #[test]
    fn a_second_lock_is_refused_until_the_first_is_dropped() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(".lock");
        let fs = RealFs::new();
        let first = fs.lock(&path).unwrap();
        assert_eq!(fs.lock(&path).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        drop(first);
        fs.lock(&path).unwrap();
    }

    #[test]
    fn names_come_sorted_with_their_kind() {
        let dir = tempfile::tempdir().unwrap();
        let fs = RealFs::new();
        fs.create_dir(&dir.path().join("b")).unwrap();
        fs.open(&dir.path().join("a"), OpenMode::Truncate).unwrap();
        let names = fs.read_dir(dir.path()).unwrap();
        assert_eq!(
            names,
            [
                DirEntry { name: "a".into(), is_dir: false },
                DirEntry { name: "b".into(), is_dir: true }
            ]
        );
        crate::fs::remove_dir_all(&fs, dir.path()).unwrap();
        assert!(fs.metadata(dir.path()).is_err());
    }
}
