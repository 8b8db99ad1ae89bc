//! Reading: planned from memory under the log's lock, carried out without it.
//!
//! An answer starts with the batch that holds the wanted offset, and ends before the first batch that
//! reaches past the upper bound (high watermark, last stable offset). One read of files stays in one segment; who follows
//! the end of a log of small batches is served from the tail cache.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;

use super::file_slice::FileSlice;
use super::{Log, LogError};
use crate::fs::FsFile;
use crate::log_dir::names::segment_file_name;
use crate::log_dir::{DiskError, FileKey, FileKind, LogDir};
use crate::offset::Offset;
use crate::offset_index::OffsetIndex;
use crate::record_batch::{BatchError, BatchHeader, HEADER_SIZE_BYTES};
use crate::segment::scan::{LOOKUP_CHUNK_BYTES, Scanned, Scanner};
use crate::segment::{Place, Segment, open_even_if_deleted};
use crate::tail_cache::CachedBatch;
use crate::timestamp::Timestamp;
use crate::transaction_index::{AbortedTransaction, collect_aborted};

/// An answer that starts with a batch of this size ends with a whole one.
const LARGE_BATCH_BYTES: usize = 64 << 10;
/// Batches looked at to find out where to end such an answer; past them it is cut anywhere.
const MAX_BATCHES_TO_CUT_AFTER: usize = 16;
/// Who has no more than this ahead follows the log's end.
const NEAR_END_BYTES: u32 = 1 << 20;

/// Why nothing could be read.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ReadError {
    /// Below the log start, or past the log end.
    #[error("offset {requested} is not within [{log_start}, {log_end}]")]
    OffsetOutOfRange {
        /// What was asked for.
        requested: Offset,
        /// The log start offset.
        log_start: Offset,
        /// The log end offset.
        log_end: Offset,
    },
    /// The log was cut or its files removed since the plan was made: plan again.
    #[error("the log changed while it was read")]
    Superseded,
    /// It would have had to wait for the disk, and was not to.
    #[error("what is to be read is not in memory")]
    NotInMemory,
    /// What is on the disk is not what was written.
    #[error("{path:?} is damaged at byte {position}: {source}")]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// Where.
        position: u64,
        /// What is wrong.
        source: BatchError,
    },
    /// The log cannot be used now, or at all.
    #[error(transparent)]
    Log(#[from] LogError),
}

impl From<DiskError> for ReadError {
    fn from(error: DiskError) -> ReadError {
        ReadError::Log(error.into())
    }
}

/// Record bytes of an answer.
#[derive(Clone, Debug)]
pub enum RecordSlice {
    /// In memory.
    Memory(Bytes),
    /// In a file.
    File(FileSlice),
}

/// What a read found.
#[derive(Clone, Debug, Default)]
pub struct FetchedRecords {
    /// The bytes, in order. From a file the last batch may be cut at the limit, unless the first one is large.
    pub slices: Vec<RecordSlice>,
    /// Their size.
    pub size_bytes: usize,
    /// More may be visible behind them: a limit ended them, though they be none, or the end of a segment.
    pub is_cut: bool,
}

/// A segment as it was when a plan was made.
#[derive(Clone, Debug)]
pub(super) struct PlannedSegment {
    key: u64,
    pub(super) base_offset: Offset,
    pub(super) next_offset: Offset,
    size_bytes: u32,
    file: Option<Arc<dyn FsFile>>,
    /// Positions to look from for the wanted offset and the upper bound; `None`: ask the mapped index.
    start: Option<u32>,
    end: Option<u32>,
}

/// A read, planned.
#[derive(Clone, Debug)]
pub struct ReadPlan {
    from: Offset,
    upper_bound: Offset,
    shared: Shared,
    pub(super) source: Source,
}

/// Where a plan reads from.
#[derive(Clone, Debug)]
pub(super) enum Source {
    /// What is wanted is not below the upper bound.
    Nowhere,
    /// The batches from the one that holds `from` to below the upper bound.
    Memory(Vec<CachedBatch>),
    /// The segment that holds `from`, and the next one in case `from` is in a gap at its end.
    Segments(Vec<PlannedSegment>),
}

/// What a plan needs of the log besides segments.
#[derive(Clone, Debug)]
pub(super) struct Shared {
    pub(super) dir: Arc<LogDir>,
    pub(super) path: Arc<Path>,
    /// The log's count of truncations, and what it was when the plan was made. A truncated log may have
    /// other segments under the same names.
    truncations: Arc<AtomicU64>,
    planned_at: u64,
    /// Whether the disk may be waited for.
    waits: bool,
}

impl Shared {
    pub(super) fn of(log: &Log) -> Shared {
        Shared {
            dir: log.dir.clone(),
            path: log.path.clone(),
            truncations: log.truncations.clone(),
            planned_at: log.truncations.load(Ordering::Acquire),
            waits: true,
        }
    }

    /// # Errors
    /// If the log was truncated since the plan was made.
    fn check_current(&self) -> Result<(), ReadError> {
        match self.truncations.load(Ordering::Acquire) == self.planned_at {
            true => Ok(()),
            false => Err(ReadError::Superseded),
        }
    }

    /// What a reader is told of an error while reading.
    fn judge_read(&self, path: &Path, error: std::io::Error) -> ReadError {
        if !self.waits && error.kind() == std::io::ErrorKind::WouldBlock {
            return ReadError::NotInMemory;
        }
        match self.dir.judge::<()>("read", path, Err(error)) {
            Err(error) => error.into(),
            Ok(()) => unreachable!("an error was judged"),
        }
    }

    pub(super) fn place(&self) -> Place<'_> {
        Place { dir: &self.dir, path: &self.path }
    }
}

impl Log {
    /// Plans to read from `from` to below `upper_bound`. `from` at or past the upper bound, up to the log
    /// end, is no error: it finds nothing. Under the caller's lock; reads no disk once the log is loaded.
    ///
    /// # Errors
    /// [`ReadError::OffsetOutOfRange`], or the log cannot be used.
    pub fn read_plan(
        &mut self,
        from: Offset,
        upper_bound: Offset,
        now: Timestamp,
    ) -> Result<ReadPlan, ReadError> {
        if from < self.log_start || from > self.log_end {
            return Err(ReadError::OffsetOutOfRange {
                requested: from,
                log_start: self.log_start,
                log_end: self.log_end,
            });
        }
        self.dir.check_online()?;
        let source = self.source(from, upper_bound, now)?;
        Ok(ReadPlan { from, upper_bound, shared: Shared::of(self), source })
    }

    fn source(
        &mut self,
        from: Offset,
        upper_bound: Offset,
        now: Timestamp,
    ) -> Result<Source, LogError> {
        if from >= self.log_end || from >= upper_bound {
            self.note_follower();
            return Ok(Source::Nowhere);
        }
        if self.is_followed
            && let Some(batches) = self.dir.tails().read(self.tail, from, upper_bound)
        {
            return Ok(Source::Memory(batches));
        }
        let loaded = self.load(now)?;
        let first = loaded.segments.holding(from);
        let segments: Vec<_> = loaded
            .segments
            .iter()
            .skip(first.unwrap_or(usize::MAX))
            .take(2)
            .map(|segment| PlannedSegment::of(segment, from, upper_bound))
            .collect();
        if segments.len() == 1 && segments[0].bytes_ahead() <= NEAR_END_BYTES {
            self.note_follower();
        }
        Ok(Source::Segments(segments))
    }

    /// A reader has come to the log's end, or near it: small batches appended from now on are kept in memory.
    pub fn note_follower(&mut self) {
        if self.is_followed {
            self.dir.tails().note_reader(self.tail);
        }
        self.is_followed = true;
    }

    /// The aborted transactions that a read_committed reader of `[from, upper)` must know. May hold some
    /// that lie past the range.
    ///
    /// # Errors
    /// If the log cannot be read.
    pub fn aborted_transactions(
        &mut self,
        from: Offset,
        upper: Offset,
        now: Timestamp,
    ) -> Result<Vec<AbortedTransaction>, ReadError> {
        let loaded = self.load(now)?;
        let mut found = Vec::new();
        if loaded.aborted.is_empty() {
            return Ok(found);
        }
        let first = loaded.segments.holding(from);
        for segment in loaded.segments.iter().skip(first.unwrap_or(usize::MAX)) {
            let entries = loaded.aborted.get(&segment.base_offset());
            if let Some(entries) = entries
                && collect_aborted(entries, from, upper, &mut found)
            {
                break;
            }
        }
        Ok(found)
    }
}

impl PlannedSegment {
    pub(super) fn of(segment: &Segment, from: Offset, upper_bound: Offset) -> PlannedSegment {
        // A bound past the segment is its end, and needs no looking for.
        let bounded = upper_bound < segment.next_offset();
        PlannedSegment {
            key: segment.key(),
            base_offset: segment.base_offset(),
            next_offset: segment.next_offset(),
            size_bytes: segment.size_bytes(),
            file: segment.open_log_file(),
            start: segment.lookup_in_memory(from),
            end: match bounded {
                true => segment.lookup_in_memory(upper_bound),
                false => Some(segment.size_bytes()),
            },
        }
    }

    /// About how many bytes lie behind the wanted offset; all, if that is not known.
    fn bytes_ahead(&self) -> u32 {
        self.size_bytes - self.start.unwrap_or(0).min(self.size_bytes)
    }

    pub(super) fn size_bytes(&self) -> u64 {
        u64::from(self.size_bytes)
    }

    pub(super) fn log_path(&self, shared: &Shared) -> PathBuf {
        shared.path.join(segment_file_name(self.base_offset, "log"))
    }

    pub(super) fn open(&self, shared: &Shared) -> Result<Arc<dyn FsFile>, ReadError> {
        if let Some(file) = &self.file {
            return Ok(file.clone());
        }
        let path = self.log_path(shared);
        let key = FileKey { segment: self.key, kind: FileKind::Log };
        if !shared.waits {
            // A name is looked for on the disk.
            return shared.dir.files().open_file(key).ok_or(ReadError::NotInMemory);
        }
        let open = || open_even_if_deleted(shared.place(), &path);
        match shared.dir.files().file(key, open) {
            Ok((file, _)) => {
                // The count moves before names do, so this is the segment that was planned.
                if let Err(superseded) = shared.check_current() {
                    shared.dir.files().forget(self.key);
                    return Err(superseded);
                }
                Ok(file)
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                Err(ReadError::Superseded)
            }
            Err(error) => Ok(shared.dir.judge("open", &path, Err(error))?),
        }
    }

    pub(super) fn map(
        &self,
        shared: &Shared,
        kind: FileKind,
    ) -> Result<Option<Arc<crate::index_file::MappedBytes>>, ReadError> {
        if !shared.waits {
            let key = FileKey { segment: self.key, kind };
            return shared.dir.files().open_map(key).map(Some).ok_or(ReadError::NotInMemory);
        }
        Ok(Segment::map_index(shared.place(), self.key, self.base_offset, kind)?)
    }

    /// Where to start looking for an offset in a sealed segment. Without its index, at the start.
    pub(super) fn lookup(&self, shared: &Shared, target: Offset) -> Result<u64, ReadError> {
        let map = self.map(shared, FileKind::OffsetIndex)?;
        let position =
            map.map_or(0, |map| OffsetIndex::new(self.base_offset, &map).lookup(target).position);
        Ok(u64::from(position.min(self.size_bytes)))
    }

    /// The first batch from `position` on that `matches`, and where it starts. `None` at the end.
    pub(super) fn find(
        &self,
        shared: &Shared,
        file: &dyn FsFile,
        position: u64,
        mut matches: impl FnMut(&BatchHeader) -> bool,
    ) -> Result<Option<(u64, BatchHeader)>, ReadError> {
        let scanner = Scanner::new(file, position, self.size_bytes(), LOOKUP_CHUNK_BYTES);
        let mut scanner = scanner.waiting(shared.waits);
        loop {
            let path = || self.log_path(shared);
            let scanned = match scanner.next_header() {
                Ok(scanned) => scanned,
                Err(error) => return Err(shared.judge_read(&path(), error)),
            };
            match scanned {
                Scanned::Batch(position, header) if matches(&header) => {
                    return Ok(Some((position, header)));
                }
                Scanned::Batch(..) => {}
                Scanned::End => return Ok(None),
                Scanned::Bad(position, source) => {
                    shared.check_current()?;
                    return Err(ReadError::Corrupt { path: path(), position, source });
                }
            }
        }
    }
}

impl ReadPlan {
    /// The same plan, carried out only as far as no disk has to be waited for: else the answer is
    /// [`ReadError::NotInMemory`].
    pub fn in_memory(mut self) -> ReadPlan {
        self.shared.waits = false;
        self
    }

    /// Whether it can only find nothing: the wanted offset is not below the upper bound.
    pub fn is_empty(&self) -> bool {
        match &self.source {
            Source::Nowhere => true,
            Source::Memory(_) => false,
            Source::Segments(segments) => segments.is_empty(),
        }
    }

    /// Reads the indexes and headers that are needed, not the records. At most `max_bytes`; with
    /// `min_one_batch` the first batch is whole even if it is larger, without it a first batch that does
    /// not fit yields nothing. Blocks on the disk if the pages are not in memory.
    ///
    /// # Errors
    /// [`ReadError::Superseded`] if the log was changed meanwhile; [`ReadError::NotInMemory`] where it was not to wait;
    /// or the disk fails.
    pub fn execute(
        self,
        max_bytes: usize,
        min_one_batch: bool,
    ) -> Result<FetchedRecords, ReadError> {
        let segments = match &self.source {
            Source::Nowhere => return Ok(FetchedRecords::default()),
            Source::Memory(batches) => {
                self.shared.check_current()?;
                return Ok(from_memory(batches, max_bytes, min_one_batch));
            }
            Source::Segments(segments) => segments,
        };
        for (at, segment) in segments.iter().enumerate() {
            let file = segment.open(&self.shared)?;
            let start = match segment.start {
                Some(start) => u64::from(start),
                None => segment.lookup(&self.shared, self.from)?,
            };
            let holds = |header: &BatchHeader| header.last_offset() >= self.from;
            let Some((start, first)) = segment.find(&self.shared, &*file, start, holds)? else {
                continue; // a gap at the end of this segment
            };
            if first.last_offset() >= self.upper_bound {
                return Ok(FetchedRecords::default());
            }
            let end = self.find_end(segment, &*file, start)?;
            let whole = usize::try_from(end - start).unwrap_or(usize::MAX);
            let first_size = first.batch_size_bytes();
            let allowed = if min_one_batch { max_bytes.max(first_size) } else { max_bytes };
            if first_size > allowed {
                return Ok(FetchedRecords { is_cut: true, ..FetchedRecords::default() });
            }
            let size_bytes = match whole <= allowed {
                true => whole,
                false => self.cut(segment, &*file, (start, end), first_size, allowed)?,
            };
            self.shared.check_current()?;
            let slice = self.slice(segment, file, start, size_bytes);
            let is_cut = size_bytes < whole || at + 1 < segments.len();
            return Ok(FetchedRecords {
                slices: vec![RecordSlice::File(slice)],
                size_bytes,
                is_cut,
            });
        }
        Ok(FetchedRecords::default())
    }

    /// A part of the file for an answer, which may wait for its reader for long.
    fn slice(
        &self,
        segment: &PlannedSegment,
        file: Arc<dyn FsFile>,
        position: u64,
        size_bytes: usize,
    ) -> FileSlice {
        match self.shared.dir.files().hold(&file) {
            Some(held) => FileSlice::held(held, position, size_bytes),
            None => {
                let segment = PlannedSegment { file: None, ..segment.clone() };
                let shared = self.shared.clone();
                let open = move || segment.open(&shared).map_err(std::io::Error::other);
                FileSlice::reopened(Arc::downgrade(&file), open, position, size_bytes)
            }
        }
    }

    /// How many of the bytes in `[start, end)` are read where only `allowed` may be, which the first batch fits in.
    /// Among large batches the last whole one ends them: a reader cannot use a part of one, and the part may be
    /// most of the answer.
    fn cut(
        &self,
        segment: &PlannedSegment,
        file: &dyn FsFile,
        (start, end): (u64, u64),
        first_size: usize,
        allowed: usize,
    ) -> Result<usize, ReadError> {
        if first_size < LARGE_BATCH_BYTES {
            return Ok(allowed);
        }
        let mut whole = first_size;
        let scanner = Scanner::new(file, start + first_size as u64, end, HEADER_SIZE_BYTES);
        let mut scanner = scanner.waiting(self.shared.waits);
        for _ in 0..MAX_BATCHES_TO_CUT_AFTER {
            if allowed - whole < HEADER_SIZE_BYTES {
                return Ok(whole);
            }
            match scanner.next_header() {
                Ok(Scanned::Batch(_, header)) if whole + header.batch_size_bytes() <= allowed => {
                    whole += header.batch_size_bytes();
                }
                Ok(Scanned::Batch(..)) => return Ok(whole),
                // What is damaged is said when a read starts with it.
                Ok(_) => break,
                Err(error) => {
                    return Err(self.shared.judge_read(&segment.log_path(&self.shared), error));
                }
            }
        }
        Ok(allowed)
    }

    /// Where the first batch starts that reaches to the upper bound, or the segment ends.
    fn find_end(
        &self,
        segment: &PlannedSegment,
        file: &dyn FsFile,
        start: u64,
    ) -> Result<u64, ReadError> {
        if self.upper_bound >= segment.next_offset {
            return Ok(segment.size_bytes());
        }
        let from = match segment.end {
            Some(end) => u64::from(end),
            None => segment.lookup(&self.shared, self.upper_bound)?,
        };
        let reaches = |header: &BatchHeader| header.last_offset() >= self.upper_bound;
        let found = segment.find(&self.shared, file, from.max(start), reaches)?;
        Ok(found.map_or(segment.size_bytes(), |(position, _)| position))
    }
}

/// As many whole batches as are allowed.
fn from_memory(batches: &[CachedBatch], max_bytes: usize, min_one_batch: bool) -> FetchedRecords {
    let mut records = FetchedRecords::default();
    for batch in batches {
        let size = batch.bytes.len();
        let is_wanted_anyway = min_one_batch && records.slices.is_empty();
        if records.size_bytes + size > max_bytes && !is_wanted_anyway {
            records.is_cut = true;
            break;
        }
        records.slices.push(RecordSlice::Memory(batch.bytes.clone()));
        records.size_bytes += size;
    }
    records
}

impl FetchedRecords {
    /// All bytes in one piece, for those who need it so: tests, conversions, small answers.
    ///
    /// # Errors
    /// What the disk says.
    pub fn read(&self) -> std::io::Result<Vec<u8>> {
        let mut bytes = Vec::with_capacity(self.size_bytes);
        for slice in &self.slices {
            match slice {
                RecordSlice::Memory(memory) => bytes.extend_from_slice(memory),
                RecordSlice::File(file) => bytes.extend_from_slice(&file.read()?),
            }
        }
        Ok(bytes)
    }
}
