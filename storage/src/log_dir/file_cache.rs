//! The open files of a log directory: a bounded number, whoever needs them.
//!
//! The cache holds files; users hold them weakly and mark them used ([`CachedFile`]), so that appending
//! does not come here, idle partitions have no file open, and ten thousand busy ones do not exhaust the
//! process's descriptors. A file that is closed while someone reads it stays open until they are done;
//! answers, whose reader may never be done, keep a bounded number open ([`FileCache::hold`]).
//!
//! Invariant: a `.log` file that was written to is not closed before a sync of it has begun, unless as many such files are
//! open as may be. The system tells of a failed write-back whoever has the file open; if nobody has, whoever opens it next,
//! but only as long as it remembers the file at all. An fsync of a file that was closed and opened anew may succeed
//! though its pages are lost.

use std::collections::HashMap;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, Weak};

use crate::fs::FsFile;
use crate::index_file::MappedBytes;

/// Files kept open at most, until the process says how many it can spare ([`FileCache::set_max_open_files`]).
const DEFAULT_MAX_OPEN_FILES: usize = 512;
/// Mappings of sealed indexes kept at most. They hold no descriptor, but the system bounds them too (Linux: 65,530).
const MAX_MAPPINGS: usize = 512;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum FileKind {
    Log,
    OffsetIndex,
    TimeIndex,
}

/// A file of a segment. The segment's key is never used again, so a file that was opened just before its
/// segment was deleted cannot be taken for that of a later segment with the same name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct FileKey {
    pub(crate) segment: u64,
    pub(crate) kind: FileKind,
}

/// What the users of a file tell the cache.
#[derive(Debug, Default)]
struct Usage {
    /// Since the cache looked last.
    is_used: AtomicBool,
    /// Written to, and no sync begun since.
    is_unsynced: AtomicBool,
}

impl Usage {
    fn is_unsynced(&self) -> bool {
        self.is_unsynced.load(Ordering::Relaxed)
    }
}

#[derive(Debug)]
struct Entry<T: ?Sized> {
    value: Arc<T>,
    usage: Arc<Usage>,
}

#[derive(Debug)]
struct Shelf<T: ?Sized> {
    entries: HashMap<FileKey, Entry<T>>,
    max_entries: usize,
}

impl<T: ?Sized> Shelf<T> {
    fn new(max_entries: usize) -> Shelf<T> {
        Shelf { entries: HashMap::new(), max_entries }
    }

    fn get(&self, key: &FileKey) -> Option<(Arc<T>, Arc<Usage>)> {
        let entry = self.entries.get(key)?;
        entry.usage.is_used.store(true, Ordering::Relaxed);
        Some((entry.value.clone(), entry.usage.clone()))
    }

    fn insert(&mut self, key: FileKey, value: Arc<T>) -> Arc<Usage> {
        if self.entries.len() >= self.max_entries {
            self.close_idle();
        }
        // All of them are in use: drop half, whichever; they are opened again when needed. Those that wait for a sync only if
        // there are no others: to sync them here would make an append wait for the disk.
        for spares_unsynced in [true, false] {
            if self.entries.len() < self.max_entries {
                break;
            }
            let mut keep = false;
            self.entries.retain(|_, entry| {
                keep = !keep;
                keep || spares_unsynced && entry.usage.is_unsynced()
            });
        }
        let usage = Arc::new(Usage::default());
        usage.is_used.store(true, Ordering::Relaxed);
        self.entries.insert(key, Entry { value, usage: usage.clone() });
        usage
    }

    /// Drops every second one that waits for no sync.
    fn close_half(&mut self) {
        let mut keep = false;
        self.entries.retain(|_, entry| {
            keep = !keep;
            keep || entry.usage.is_unsynced()
        });
    }

    /// Drops what was not used since the last time and waits for no sync.
    fn close_idle(&mut self) {
        self.entries.retain(|_, entry| {
            entry.usage.is_used.swap(false, Ordering::Relaxed) || entry.usage.is_unsynced()
        });
    }
}

#[derive(Debug)]
struct Shelves {
    files: Shelf<dyn FsFile>,
    maps: Shelf<MappedBytes>,
}

#[derive(Debug)]
pub(crate) struct FileCache {
    shelves: Mutex<Shelves>,
    held: Arc<Held>,
}

/// How many answers keep a file open, in the cache or no more.
#[derive(Debug)]
struct Held {
    count: AtomicUsize,
    max_count: AtomicUsize,
}

/// A file that stays open for an answer.
#[derive(Debug)]
pub(crate) struct HeldFile {
    file: Arc<dyn FsFile>,
    held: Option<Arc<Held>>,
}

impl HeldFile {
    /// Of no cache.
    pub(crate) fn uncounted(file: Arc<dyn FsFile>) -> HeldFile {
        HeldFile { file, held: None }
    }

    pub(crate) fn file(&self) -> &Arc<dyn FsFile> {
        &self.file
    }
}

impl Drop for HeldFile {
    fn drop(&mut self) {
        if let Some(held) = &self.held {
            held.count.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// A file as its user keeps it.
#[derive(Clone, Debug)]
pub(crate) struct CachedFile {
    file: Weak<dyn FsFile>,
    usage: Arc<Usage>,
}

impl CachedFile {
    /// The file, if it is still open.
    pub(crate) fn get(&self) -> Option<Arc<dyn FsFile>> {
        let file = self.file.upgrade()?;
        self.usage.is_used.store(true, Ordering::Relaxed);
        Some(file)
    }

    /// Keeps it open until a sync of it begins. Under the log's lock, before it is written to.
    pub(crate) fn note_unsynced(&self) {
        self.usage.is_unsynced.store(true, Ordering::Relaxed);
    }

    /// What was written to it so far will be synced by someone who holds it. Under the log's lock.
    pub(crate) fn note_covered(&self) {
        self.usage.is_unsynced.store(false, Ordering::Relaxed);
    }

    /// Whether it was written to and no sync begun since.
    pub(crate) fn is_unsynced(&self) -> bool {
        self.usage.is_unsynced()
    }
}

impl FileCache {
    pub(crate) fn new() -> FileCache {
        let shelves =
            Shelves { files: Shelf::new(DEFAULT_MAX_OPEN_FILES), maps: Shelf::new(MAX_MAPPINGS) };
        let held = Held {
            count: AtomicUsize::new(0),
            max_count: AtomicUsize::new(DEFAULT_MAX_OPEN_FILES / 2),
        };
        FileCache { shelves: Mutex::new(shelves), held: Arc::new(held) }
    }

    /// From the next file on. What is open beyond it is closed as it falls idle. Answers may keep half as many open beside.
    pub(crate) fn set_max_open_files(&self, max_open_files: usize) {
        self.shelves().files.max_entries = max_open_files.max(1);
        self.held.max_count.store(max_open_files / 2, Ordering::Relaxed);
    }

    /// Keeps a file open for an answer. `None` if as many are kept so as may be: a reader that does not take its answer has it
    /// for minutes, and an answer is of as many files as it has partitions.
    pub(crate) fn hold(&self, file: &Arc<dyn FsFile>) -> Option<HeldFile> {
        let max_count = self.held.max_count.load(Ordering::Relaxed);
        if self.held.count.fetch_add(1, Ordering::Relaxed) >= max_count {
            self.held.count.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        Some(HeldFile { file: file.clone(), held: Some(self.held.clone()) })
    }

    fn shelves(&self) -> MutexGuard<'_, Shelves> {
        self.shelves.lock().expect("nothing panics while it holds the file cache")
    }

    /// The file if it is open.
    pub(crate) fn open_file(&self, key: FileKey) -> Option<Arc<dyn FsFile>> {
        self.shelves().files.get(&key).map(|(file, _)| file)
    }

    /// The mapping of a sealed index if there is one.
    pub(crate) fn open_map(&self, key: FileKey) -> Option<Arc<MappedBytes>> {
        self.shelves().maps.get(&key).map(|(map, _)| map)
    }

    /// The file, opened by `open` if it is not.
    pub(crate) fn file(
        &self,
        key: FileKey,
        open: impl FnOnce() -> io::Result<Arc<dyn FsFile>>,
    ) -> io::Result<(Arc<dyn FsFile>, CachedFile)> {
        if let Some((file, usage)) = self.shelves().files.get(&key) {
            let cached = CachedFile { file: Arc::downgrade(&file), usage };
            return Ok((file, cached));
        }
        // Opened outside the lock; two may open it at the same time, the first one stays: it may wait for a sync already.
        let opened = open()?;
        let mut shelves = self.shelves();
        let (file, usage) = match shelves.files.get(&key) {
            Some(there) => there,
            None => (opened.clone(), shelves.files.insert(key, opened)),
        };
        Ok((file.clone(), CachedFile { file: Arc::downgrade(&file), usage }))
    }

    /// The mapping of a sealed index, made by `map` if there is none.
    pub(crate) fn map(
        &self,
        key: FileKey,
        map: impl FnOnce() -> io::Result<MappedBytes>,
    ) -> io::Result<Arc<MappedBytes>> {
        if let Some((map, _)) = self.shelves().maps.get(&key) {
            return Ok(map);
        }
        let map = Arc::new(map()?);
        self.shelves().maps.insert(key, map.clone());
        Ok(map)
    }

    /// Forgets the mappings of a segment whose indexes have grown.
    pub(crate) fn forget_maps(&self, segment: u64) {
        let mut shelves = self.shelves();
        for kind in [FileKind::OffsetIndex, FileKind::TimeIndex] {
            shelves.maps.entries.remove(&FileKey { segment, kind });
        }
    }

    /// Forgets a segment's files: it was deleted, cut, or its indexes replaced.
    pub(crate) fn forget(&self, segment: u64) {
        let mut shelves = self.shelves();
        for kind in [FileKind::Log, FileKind::OffsetIndex, FileKind::TimeIndex] {
            let key = FileKey { segment, kind };
            shelves.files.entries.remove(&key);
            shelves.maps.entries.remove(&key);
        }
    }

    /// Gives descriptors back because there are no more: of the files that wait for no sync, those that were not used since
    /// the last look and half of the others.
    pub(crate) fn close_half(&self) {
        let mut shelves = self.shelves();
        shelves.files.close_idle();
        shelves.files.close_half();
    }

    /// Closes what was not used since the last call and waits for no sync.
    pub(crate) fn close_idle(&self) {
        let mut shelves = self.shelves();
        shelves.files.close_idle();
        shelves.maps.close_idle();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs::simulated::SimulatedFs;
    use crate::fs::{Fs, OpenMode};
    use std::path::Path;

    fn key(segment: u64) -> FileKey {
        FileKey { segment, kind: FileKind::Log }
    }

    #[test]
    fn a_file_is_open_while_it_is_used_and_closed_when_idle() {
        let fs = SimulatedFs::new();
        let cache = FileCache::new();
        let open = || fs.open(Path::new("/f"), OpenMode::Create);
        let (file, cached) = cache.file(key(1), open).unwrap();
        drop(file);
        cache.close_idle();
        assert!(cached.get().is_some(), "used just now");
        cache.close_idle();
        cache.close_idle();
        assert!(cached.get().is_none());
        assert_eq!(fs.open_files(), 0);
    }

    #[test]
    fn a_reader_keeps_a_forgotten_file_open() {
        let fs = SimulatedFs::new();
        let cache = FileCache::new();
        let (file, cached) =
            cache.file(key(1), || fs.open(Path::new("/f"), OpenMode::Create)).unwrap();
        cache.forget(1);
        assert!(cached.get().is_some(), "someone holds it");
        assert_eq!(file.size_bytes().unwrap(), 0);
        drop(file);
        assert!(cached.get().is_none());
    }

    #[test]
    fn ten_thousand_files_are_never_open_at_once() {
        let fs = SimulatedFs::new();
        let cache = FileCache::new();
        for segment in 0..2000 {
            cache.file(key(segment), || fs.open(Path::new("/f"), OpenMode::Create)).unwrap();
            assert!(cache.shelves().files.entries.len() <= DEFAULT_MAX_OPEN_FILES);
        }
        assert!(fs.open_files() <= DEFAULT_MAX_OPEN_FILES);
    }

    #[test]
    fn as_many_files_stay_open_as_the_process_can_spare() {
        let fs = SimulatedFs::new();
        let cache = FileCache::new();
        cache.set_max_open_files(1000);
        let open = || fs.open(Path::new("/f"), OpenMode::Create);
        let users: Vec<_> = (0..1000).map(|n| cache.file(key(n), open).unwrap().1).collect();
        assert!(users.iter().all(|user| user.get().is_some()), "in use and within the bound");
        cache.file(key(1000), open).unwrap();
        assert!(fs.open_files() <= 501);
    }

    #[test]
    fn a_file_that_waits_for_a_sync_is_closed_only_where_there_is_no_other() {
        let fs = SimulatedFs::new();
        let cache = FileCache::new();
        cache.set_max_open_files(10);
        let open = || fs.open(Path::new("/f"), OpenMode::Create);
        let users: Vec<_> = (0..10).map(|n| cache.file(key(n), open).unwrap().1).collect();
        users[..5].iter().for_each(CachedFile::note_unsynced);
        cache.file(key(10), open).unwrap();
        assert!(users[..5].iter().all(|user| user.get().is_some()), "others made room");
        for _ in 0..3 {
            cache.close_idle();
        }
        assert!(users.iter().all(|user| user.get().is_some() == user.is_unsynced()));
        users[..5].iter().for_each(CachedFile::note_covered);
        (0..3).for_each(|_| cache.close_idle());
        assert_eq!(fs.open_files(), 0);
        for n in 20..40 {
            cache.file(key(n), open).unwrap().1.note_unsynced();
        }
        assert!(fs.open_files() <= 10, "{}", fs.open_files());
    }

    #[test]
    fn of_two_that_open_a_file_at_the_same_time_the_first_one_keeps_it_open() {
        let fs = SimulatedFs::new();
        let cache = FileCache::new();
        let open = || fs.open(Path::new("/f"), OpenMode::Create);
        let mut first = None;
        let second = cache.file(key(1), || {
            let user = cache.file(key(1), open)?.1;
            user.note_unsynced();
            first = Some(user);
            open()
        });
        drop(second);
        assert!(first.unwrap().get().is_some());
        assert_eq!(fs.open_files(), 1);
    }
}
