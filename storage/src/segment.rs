//! One segment of a log: a `.log` file of batches and its two sparse indexes (`LogSegment.java`).
//!
//! The last segment of a log is *active*: it is appended to, and its indexes are held in memory and
//! written out when they are needed on disk (a flush, a roll, memory wanted back). All others are
//! *sealed*: nothing of them changes any more, and their indexes are mapped when they are looked at.
//!
//! The size is kept in memory and is what counts: bytes in the file past it are what a failed append left.

pub(crate) mod scan;

use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::fs::{FsFile, OpenMode};
use crate::index_file;
use crate::log_dir::{
    CachedFile, DiskError, FileKey, FileKind, LogDir, names::DELETED_FILE_SUFFIX,
    names::segment_file_name,
};
use crate::offset::Offset;
use crate::offset_index::{self, OffsetIndex, OffsetIndexBuilder, OffsetPosition};
use crate::record_batch::BatchHeader;
use crate::retention::SegmentFacts;
use crate::time_index::{self, TimeIndex, TimeIndexBuilder, TimestampOffset};
use crate::timestamp::Timestamp;

/// Extensions of the files of a segment that can be rebuilt from its `.log`.
pub(crate) const INDEX_EXTENSIONS: [&str; 3] = ["index", "timeindex", "txnindex"];

/// A log's directory and the log directory it is in: where a segment's files are.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place<'a> {
    pub(crate) dir: &'a LogDir,
    pub(crate) path: &'a Path,
}

impl Place<'_> {
    pub(crate) fn file(&self, base_offset: Offset, extension: &str) -> PathBuf {
        self.path.join(segment_file_name(base_offset, extension))
    }
}

/// The indexes of the active segment.
#[derive(Debug, Default)]
struct ActiveIndexes {
    offset: OffsetIndexBuilder,
    time: TimeIndexBuilder,
    /// How many bytes of each are in its file already.
    offset_written: usize,
    time_written: usize,
    /// Whether the files hold something else, left by an earlier life: they must be replaced even by
    /// nothing, or loading them later would bring it back.
    files_are_stale: bool,
}

/// What a segment's indexes and batches tell about when it was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SegmentTimes {
    /// The greatest timestamp of its first batch, for rolling by age.
    pub(crate) first: Option<Timestamp>,
    /// The largest timestamp, and the last offset of the first batch that has it.
    pub(crate) largest: Option<TimestampOffset>,
    /// Wall clock at its creation, or of its file when it was opened.
    pub(crate) created: Timestamp,
    /// Wall clock of its last append, or of its file when it was opened.
    pub(crate) modified: Timestamp,
}

/// One segment.
///
/// Invariant: `base_offset <= next_offset`; every batch in `[0, size_bytes)` of the file lies within
/// `[base_offset, next_offset)`.
#[derive(Debug)]
pub(crate) struct Segment {
    key: u64,
    base_offset: Offset,
    next_offset: Offset,
    size_bytes: u32,
    times: SegmentTimes,
    bytes_since_index_entry: u32,
    indexes: Option<Box<ActiveIndexes>>,
    /// Whether an index file was written since the last flush that covered it. The recovery point does not tell: sealing
    /// writes a last entry behind a flush that already covered every record.
    index_files_dirty: bool,
    file: Option<CachedFile>,
}

/// How full a segment may get.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SegmentLimits {
    /// `segment.bytes`.
    pub(crate) segment_bytes: u32,
    /// `segment.ms` less its jitter.
    pub(crate) segment_ms: i64,
    /// `segment.index.bytes`.
    pub(crate) index_bytes: usize,
}

impl Segment {
    /// A new, empty, active segment, with its `.log` file.
    pub(crate) fn create(
        place: Place<'_>,
        base_offset: Offset,
        now: Timestamp,
    ) -> Result<Segment, DiskError> {
        let path = place.file(base_offset, "log");
        let key = FileKey { segment: place.dir.new_segment_key(), kind: FileKind::Log };
        let open = || place.dir.fs().open(&path, OpenMode::Truncate);
        let (_, file) = place.dir.judge("create", &path, place.dir.files().file(key, open))?;
        let times = SegmentTimes { first: None, largest: None, created: now, modified: now };
        Ok(Segment {
            key: key.segment,
            base_offset,
            next_offset: base_offset,
            size_bytes: 0,
            times,
            bytes_since_index_entry: 0,
            indexes: Some(Box::default()),
            index_files_dirty: false,
            file: Some(file),
        })
    }

    /// A segment that is on the disk, sealed.
    pub(crate) fn existing(
        place: Place<'_>,
        base_offset: Offset,
        next_offset: Offset,
        size_bytes: u32,
        times: SegmentTimes,
    ) -> Segment {
        Segment {
            key: place.dir.new_segment_key(),
            base_offset,
            next_offset,
            size_bytes,
            times,
            bytes_since_index_entry: 0,
            indexes: None,
            index_files_dirty: false,
            file: None,
        }
    }

    pub(crate) fn base_offset(&self) -> Offset {
        self.base_offset
    }

    /// First offset after its last batch; the base offset if it is empty.
    pub(crate) fn next_offset(&self) -> Offset {
        self.next_offset
    }

    pub(crate) fn size_bytes(&self) -> u32 {
        self.size_bytes
    }

    pub(crate) fn times(&self) -> &SegmentTimes {
        &self.times
    }

    /// For retention: the largest timestamp of its records, else when its file last changed.
    pub(crate) fn largest_timestamp_or_modified(&self) -> Timestamp {
        self.times.largest.map_or(self.times.modified, |largest| largest.timestamp)
    }

    pub(crate) fn key(&self) -> u64 {
        self.key
    }

    /// What retention looks at.
    pub(crate) fn facts(&self) -> SegmentFacts {
        SegmentFacts {
            next_offset: self.next_offset,
            size_bytes: u64::from(self.size_bytes),
            largest_timestamp: self.largest_timestamp_or_modified(),
        }
    }

    /// Whether a batch must go to a new segment instead (`LogSegment.shouldRoll`).
    pub(crate) fn should_roll(
        &self,
        incoming: &BatchHeader,
        incoming_bytes: usize,
        limits: &SegmentLimits,
        now: Timestamp,
    ) -> bool {
        if self.lies_too_far(incoming.last_offset()) {
            return true;
        }
        if self.size_bytes == 0 {
            return false; // a roll would make the same segment again
        }
        let full = self.size_bytes as usize + incoming_bytes > limits.segment_bytes as usize;
        let age_ms = match (self.times.first, incoming.max_timestamp()) {
            (Some(first), Some(incoming)) => incoming.millis_since(first),
            _ => now.millis_since(self.times.created),
        };
        let index_full = self.indexes.as_ref().is_some_and(|indexes| {
            let offset_entries = limits.index_bytes / offset_index::ENTRY_SIZE_BYTES;
            let time_entries = limits.index_bytes / time_index::ENTRY_SIZE_BYTES;
            indexes.offset.view(self.base_offset).len() >= offset_entries
                // Its last slot is for the entry written when the segment is sealed.
                || indexes.time.view(self.base_offset).len() + 1 >= time_entries
        });
        full || age_ms > limits.segment_ms || index_full
    }

    /// Whether an offset is too far from the base for the indexes' relative offsets (31 bits, as Kafka
    /// reads them).
    fn lies_too_far(&self, offset: Offset) -> bool {
        offset.delta_from(self.base_offset).is_none_or(|delta| delta > i32::MAX as u64)
    }

    /// Writes batches at the end, in one vectored write, and indexes them. `parts` are the bytes of
    /// `headers`' batches, in order.
    ///
    /// # Errors
    /// On a full disk nothing was appended, and the file was cut back. Any other error took the directory
    /// offline.
    pub(crate) fn append(
        &mut self,
        place: Place<'_>,
        headers: &[BatchHeader],
        parts: &mut [IoSlice<'_>],
        index_interval_bytes: u32,
        now: Timestamp,
    ) -> Result<(), DiskError> {
        let file = self.log_file(place)?;
        if let Some(cached) = &self.file {
            cached.note_unsynced();
        }
        let position = u64::from(self.size_bytes);
        let written = file.write_at(parts, position);
        if written.is_err() {
            let path = place.file(self.base_offset, "log");
            // What was written of it is cut off, so that the next append and a crash find a whole log.
            place.dir.judge("write", &path, written).or_else(|error| match error {
                DiskError::Full { .. } | DiskError::TooManyOpenFiles { .. } => {
                    place.dir.judge("truncate", &path, file.set_size(position))?;
                    // No flush would sync it, if nothing is appended any more.
                    place.dir.judge_sync(&path, file.sync_data())?;
                    Err(error)
                }
                DiskError::Offline { .. } => Err(error),
            })?;
        }
        for header in headers {
            self.note(header, index_interval_bytes);
        }
        self.times.modified = now;
        Ok(())
    }

    /// Takes a batch into account that stands in the file at `size_bytes`.
    ///
    /// # Panics
    /// If the segment is sealed, or the batch does not follow the last one.
    pub(crate) fn note(&mut self, header: &BatchHeader, index_interval_bytes: u32) {
        let batch_bytes =
            u32::try_from(header.batch_size_bytes()).expect("a batch's size fits 31 bits");
        assert!(
            header.base_offset() >= self.next_offset,
            "a batch at {} after the offset {}",
            header.base_offset(),
            self.next_offset
        );
        if self.size_bytes == 0 {
            self.times.first = header.max_timestamp();
        }
        if let Some(timestamp) = header.max_timestamp()
            && self.times.largest.is_none_or(|largest| timestamp > largest.timestamp)
        {
            self.times.largest = Some(TimestampOffset { timestamp, offset: header.last_offset() });
        }
        let indexes = self.indexes.as_mut().expect("batches are added to active segments only");
        if self.bytes_since_index_entry > index_interval_bytes {
            indexes.offset.append(self.base_offset, header.last_offset(), self.size_bytes);
            if let Some(largest) = self.times.largest {
                indexes.time.maybe_append(self.base_offset, largest);
            }
            self.bytes_since_index_entry = 0;
        }
        self.bytes_since_index_entry = self.bytes_since_index_entry.saturating_add(batch_bytes);
        self.size_bytes = self
            .size_bytes
            .checked_add(batch_bytes)
            .expect("a segment is rolled before its positions overflow");
        self.next_offset = header.next_offset();
    }

    /// The `.log` file.
    pub(crate) fn log_file(&mut self, place: Place<'_>) -> Result<Arc<dyn FsFile>, DiskError> {
        if let Some(file) = self.file.as_ref().and_then(CachedFile::get) {
            return Ok(file);
        }
        let path = place.file(self.base_offset, "log");
        let key = FileKey { segment: self.key, kind: FileKind::Log };
        let open = || place.dir.fs().open(&path, OpenMode::Write);
        let (file, cached) = place.dir.judge("open", &path, place.dir.files().file(key, open))?;
        self.file = Some(cached);
        Ok(file)
    }

    /// The next flush covers what was appended to the `.log` file so far; should it fail, the directory is offline.
    pub(crate) fn log_file_is_covered(&self) {
        if let Some(cached) = &self.file {
            cached.note_covered();
        }
    }

    /// Whether the `.log` file was written to since a sync of it began.
    pub(crate) fn is_log_file_unsynced(&self) -> bool {
        self.file.as_ref().is_some_and(CachedFile::is_unsynced)
    }

    /// The `.log` file if it is open.
    pub(crate) fn open_log_file(&self) -> Option<Arc<dyn FsFile>> {
        self.file.as_ref()?.get()
    }

    /// Where to start looking for an offset; `None` if the segment is sealed, or its indexes not loaded.
    pub(crate) fn lookup_in_memory(&self, target: Offset) -> Option<u32> {
        let indexes = self.indexes.as_ref()?;
        Some(indexes.offset.view(self.base_offset).lookup(target).position)
    }

    /// Makes it active, going on from what its index files hold.
    pub(crate) fn activate(&mut self, place: Place<'_>) -> Result<(), DiskError> {
        if self.indexes.is_some() {
            return Ok(());
        }
        let offset_bytes = read_index(place, self.base_offset, "index")?.unwrap_or_default();
        let time_bytes = read_index(place, self.base_offset, "timeindex")?.unwrap_or_default();
        let offset_index = OffsetIndex::new(self.base_offset, &offset_bytes);
        let time_view = TimeIndex::new(self.base_offset, &time_bytes);
        let offset_entries =
            offset_index.sound_prefix(self.next_offset, u64::from(self.size_bytes));
        let time_entries = time_view.sound_prefix(self.next_offset);
        self.bytes_since_index_entry = match offset_entries.checked_sub(1) {
            Some(last) => offset_index
                .entry(last)
                .map_or(0, |last| self.size_bytes.saturating_sub(last.position)),
            None => self.size_bytes,
        };
        // Files that hold more than sound entries are rewritten from the start.
        let written = |sound: usize, size: usize| if sound == size { size } else { 0 };
        let offset = OffsetIndexBuilder::from_bytes(&offset_bytes, offset_entries);
        let time = TimeIndexBuilder::from_bytes(&time_bytes, time_entries);
        let offset_written = written(offset.bytes().len(), offset_bytes.len());
        let time_written = written(time.bytes().len(), time_bytes.len());
        self.renew_key(place);
        let files_are_stale =
            offset_written < offset_bytes.len() || time_written < time_bytes.len();
        self.indexes = Some(Box::new(ActiveIndexes {
            offset,
            time,
            offset_written,
            time_written,
            files_are_stale,
        }));
        Ok(())
    }

    /// What was opened or mapped under the old key is not found any more. A file that waits for a sync stays open.
    fn renew_key(&mut self, place: Place<'_>) {
        let unsynced = self.file.take().filter(CachedFile::is_unsynced);
        let unsynced = unsynced.and_then(|cached| cached.get());
        place.dir.files().forget(self.key);
        self.key = place.dir.new_segment_key();
        let key = FileKey { segment: self.key, kind: FileKind::Log };
        if let Some(file) = unsynced
            && let Ok((_, cached)) = place.dir.files().file(key, || Ok(file))
        {
            cached.note_unsynced();
            self.file = Some(cached);
        }
    }

    /// Makes it active with empty indexes, before its batches are walked over and noted.
    pub(crate) fn start_rebuild(&mut self, place: Place<'_>, times: SegmentTimes) {
        self.renew_key(place);
        self.next_offset = self.base_offset;
        self.size_bytes = 0;
        self.bytes_since_index_entry = 0;
        self.times = SegmentTimes { first: None, largest: None, ..times };
        self.indexes =
            Some(Box::new(ActiveIndexes { files_are_stale: true, ..Default::default() }));
    }

    /// Goes on with a rebuild at the batch of the offset index entry `last`, the last of the first
    /// `offset_entries` that are believed, without walking over what lies before it.
    pub(crate) fn resume_rebuild(
        &mut self,
        offset_bytes: &[u8],
        offset_entries: usize,
        time_bytes: &[u8],
        last: OffsetPosition,
        times: SegmentTimes,
    ) {
        let time_entries = time_bytes.len() / time_index::ENTRY_SIZE_BYTES;
        self.indexes = Some(Box::new(ActiveIndexes {
            offset: OffsetIndexBuilder::from_bytes(offset_bytes, offset_entries),
            time: TimeIndexBuilder::from_bytes(time_bytes, time_entries),
            offset_written: 0,
            time_written: 0,
            files_are_stale: true,
        }));
        self.times = times;
        self.size_bytes = last.position;
        self.bytes_since_index_entry = 0;
    }

    /// Planted bug 24 alone: takes what is in the file for batches, up to `size_bytes`.
    #[cfg(feature = "failpoints")]
    pub(crate) fn count_torn_batch(&mut self, size_bytes: u32) {
        self.size_bytes = size_bytes;
        self.next_offset = self.next_offset.next();
    }

    /// The offset index in memory.
    pub(crate) fn index_in_memory(&self) -> Option<OffsetIndex<'_>> {
        Some(self.indexes.as_ref()?.offset.view(self.base_offset))
    }

    /// The last time index entry in memory.
    pub(crate) fn last_time_entry(&self) -> Option<TimestampOffset> {
        self.indexes.as_ref()?.time.view(self.base_offset).last()
    }

    /// Appends what the index files lack to them. With `last_timestamp` also the final entry of the time
    /// index.
    ///
    /// # Errors
    /// On a full disk the files may hold a part; the next call goes on from what was whole.
    pub(crate) fn write_indexes(
        &mut self,
        place: Place<'_>,
        last_timestamp: bool,
    ) -> Result<(), DiskError> {
        let Some(indexes) = &mut self.indexes else { return Ok(()) };
        if last_timestamp && let Some(largest) = self.times.largest {
            indexes.time.maybe_append(self.base_offset, largest);
        }
        let indexes = &mut **indexes;
        for (extension, bytes, written) in [
            ("index", indexes.offset.bytes(), &mut indexes.offset_written),
            ("timeindex", indexes.time.bytes(), &mut indexes.time_written),
        ] {
            // An empty index gets its file when the segment is sealed, so that a missing one is missed.
            let wanted = last_timestamp || indexes.files_are_stale;
            if *written < bytes.len() || wanted && bytes.is_empty() {
                self.index_files_dirty = true;
                write_rest(place, &place.file(self.base_offset, extension), bytes, written)?;
            }
        }
        indexes.files_are_stale = false;
        Ok(())
    }

    /// Whether index files have to be synced even if no record has.
    pub(crate) fn has_dirty_index_files(&self) -> bool {
        self.index_files_dirty
    }

    /// The next flush covers the index files; should it fail, the directory is offline.
    pub(crate) fn index_files_are_covered(&mut self) {
        self.index_files_dirty = false;
    }

    /// Seals it: the indexes are complete in their files and no longer in memory.
    pub(crate) fn seal(&mut self, place: Place<'_>) -> Result<(), DiskError> {
        self.write_indexes(place, true)?;
        self.indexes = None;
        place.dir.files().forget_maps(self.key);
        Ok(())
    }

    /// Gives back the memory of the indexes without sealing; [`Segment::activate`] loads them again. Closes the file, unless it
    /// waits for a sync.
    pub(crate) fn release(&mut self, place: Place<'_>) -> Result<(), DiskError> {
        self.write_indexes(place, false)?;
        self.indexes = None;
        place.dir.files().forget_maps(self.key);
        if !self.is_log_file_unsynced() {
            self.file = None;
            place.dir.files().forget(self.key);
        }
        Ok(())
    }

    /// The mapped offset index of a sealed segment; `None` if the file is gone.
    pub(crate) fn map_index(
        place: Place<'_>,
        key: u64,
        base_offset: Offset,
        kind: FileKind,
    ) -> Result<Option<Arc<index_file::MappedBytes>>, DiskError> {
        let extension = match kind {
            FileKind::OffsetIndex => "index",
            FileKind::TimeIndex => "timeindex",
            FileKind::Log => unreachable!("only indexes are mapped"),
        };
        let path = place.file(base_offset, extension);
        // Not under the name of a deleted file: that may be an earlier segment's.
        let map = || place.dir.fs().open(&path, OpenMode::Read)?.map();
        match place.dir.files().map(FileKey { segment: key, kind }, map) {
            Ok(map) => Ok(Some(map)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => place.dir.judge("map", &path, Err(error)),
        }
    }

    /// Cuts the segment at `offset`, where a batch starts at `position` (or the file ends), and makes it
    /// active. `first` and `largest` are what the remaining batches have.
    pub(crate) fn truncate(
        &mut self,
        place: Place<'_>,
        offset: Offset,
        position: u32,
    ) -> Result<(), DiskError> {
        self.activate(place)?;
        let path = place.file(self.base_offset, "log");
        let file = self.log_file(place)?;
        place.dir.judge("truncate", &path, file.set_size(u64::from(position)))?;
        let base_offset = self.base_offset;
        let indexes = self.indexes.as_mut().expect("activated above");
        indexes.offset.truncate(base_offset, offset);
        indexes.time.truncate(base_offset, offset);
        for (extension, bytes, written) in [
            ("index", indexes.offset.bytes(), &mut indexes.offset_written),
            ("timeindex", indexes.time.bytes(), &mut indexes.time_written),
        ] {
            if *written > bytes.len() {
                // It may be mapped by a reader: replaced, never cut.
                let path = place.file(base_offset, extension);
                place.dir.judge(
                    "write",
                    &path,
                    index_file::replace(&**place.dir.fs(), &path, bytes),
                )?;
                *written = bytes.len();
            }
        }
        let last = indexes.offset.view(base_offset).last();
        self.bytes_since_index_entry =
            position - last.map_or(0, |last| last.position.min(position));
        self.next_offset = offset;
        self.size_bytes = position;
        Ok(())
    }

    /// After a cut: what the remaining batches have.
    pub(crate) fn set_times(&mut self, first: Option<Timestamp>, largest: Option<TimestampOffset>) {
        self.times.first = first;
        self.times.largest = largest;
    }

    /// Renames its files so that they are removed later; readers that have them open go on.
    pub(crate) fn mark_deleted(&self, place: Place<'_>) -> Result<Vec<PathBuf>, DiskError> {
        place.dir.files().forget(self.key);
        let mut renamed = Vec::new();
        // The log last: indexes without a log are removed by a start, a log without indexes is a segment.
        for extension in INDEX_EXTENSIONS.iter().chain(&["log"]) {
            let from = place.file(self.base_offset, extension);
            let to = deleted_name(&from);
            match place.dir.fs().rename(&from, &to) {
                Ok(()) => renamed.push(to),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return place.dir.judge("rename", &from, Err(error)),
            }
        }
        Ok(renamed)
    }
}

pub(crate) fn deleted_name(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(DELETED_FILE_SUFFIX);
    name.into()
}

/// Opens a file to read under its name, or the one it has while it waits to be removed. To write as well: the handle goes to
/// the file cache, where the next append finds it.
pub(crate) fn open_even_if_deleted(place: Place<'_>, path: &Path) -> io::Result<Arc<dyn FsFile>> {
    match place.dir.fs().open(path, OpenMode::Write) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            place.dir.fs().open(&deleted_name(path), OpenMode::Write)
        }
        outcome => outcome,
    }
}

/// The bytes of an index file; `None` without one.
pub(crate) fn read_index(
    place: Place<'_>,
    base_offset: Offset,
    extension: &str,
) -> Result<Option<Vec<u8>>, DiskError> {
    /// Far above what `segment.index.bytes` may be set to in sense.
    const MAX_INDEX_BYTES: u64 = 1 << 30;
    let path = place.file(base_offset, extension);
    match crate::fs::read_file(&**place.dir.fs(), &path, MAX_INDEX_BYTES) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => place.dir.judge("read", &path, Err(error)),
    }
}

/// Appends `bytes[*written..]` to an index file; from the start, in a new file.
fn write_rest(
    place: Place<'_>,
    path: &Path,
    bytes: &[u8],
    written: &mut usize,
) -> Result<(), DiskError> {
    let fs = place.dir.fs();
    if *written == 0 {
        // What an earlier life left there goes; never cut, for a reader may have it mapped.
        match fs.remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return place.dir.judge("remove", path, Err(error));
            }
            _ => {}
        }
    }
    let file = place.dir.judge("open", path, fs.open(path, OpenMode::Create))?;
    let rest = IoSlice::new(&bytes[*written..]);
    place.dir.judge("write", path, file.write_at(&mut [rest], *written as u64))?;
    *written = bytes.len();
    Ok(())
}
