//! Looking up offsets by time (`UnifiedLog.fetchOffsetByTimestamp`): planned under the log's lock, carried
//! out without it, because it may have to decompress a batch.

use super::read::{PlannedSegment, ReadError, Shared};
use super::{Log, LogError};
use crate::leader_epoch::{LeaderEpoch, LeaderEpochCache};
use crate::log_dir::{DiskError, FileKind};
use crate::log_validator::MAX_DECOMPRESSED_BATCH_BYTES;
use crate::offset::Offset;
use crate::record::{RecordSummary, walk_records_while};
use crate::record_batch::{BatchHeader, RecordBatch, TimestampType};
use crate::time_index::TimeIndex;
use crate::timestamp::Timestamp;

/// A record found by its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimestampAndOffset {
    /// Its timestamp.
    pub timestamp: Timestamp,
    /// Its offset.
    pub offset: Offset,
    /// The leader epoch it was written in.
    pub leader_epoch: Option<LeaderEpoch>,
}

#[derive(Clone, Debug)]
struct Candidate {
    segment: PlannedSegment,
    largest: Timestamp,
}

/// A lookup by time, over the records in `[log start, upper bound)`.
#[derive(Clone, Debug)]
pub struct TimestampLookup {
    shared: Shared,
    candidates: Vec<Candidate>,
    log_start: Offset,
    upper_bound: Offset,
    epochs: LeaderEpochCache,
}

impl Log {
    /// Prepares a lookup by time below `upper_bound` (high watermark or last stable offset). Under the
    /// caller's lock.
    ///
    /// # Errors
    /// If the log cannot be used.
    pub fn timestamp_lookup(
        &mut self,
        upper_bound: Offset,
        now: Timestamp,
    ) -> Result<TimestampLookup, LogError> {
        let shared = Shared::of(self);
        let log_start = self.log_start;
        let loaded = self.load(now)?;
        if let Some(active) = loaded.segments.last_mut() {
            // The lookup reads the index files. On a full disk they are only sparser.
            match active.write_indexes(shared.place(), false) {
                Err(error @ DiskError::Offline { .. }) => return Err(error.into()),
                _ => shared.dir.files().forget_maps(active.key()),
            }
        }
        let candidate = |segment: &crate::segment::Segment| {
            let largest = segment.times().largest?.timestamp;
            let segment = PlannedSegment::of(segment, log_start, upper_bound);
            Some(Candidate { segment, largest })
        };
        let candidates = loaded.segments.iter().filter_map(candidate).collect();
        Ok(TimestampLookup {
            shared,
            candidates,
            log_start,
            upper_bound,
            epochs: loaded.epochs.clone(),
        })
    }
}

impl TimestampLookup {
    /// The first record at or after `target`; `None` if there is none. Blocks on the disk.
    ///
    /// # Errors
    /// As [`super::ReadPlan::execute`].
    pub fn first_at_or_after(
        &self,
        target: Timestamp,
    ) -> Result<Option<TimestampAndOffset>, ReadError> {
        for candidate in &self.candidates {
            if candidate.largest < target || candidate.segment.next_offset <= self.log_start {
                continue;
            }
            let found = self.search(&candidate.segment, target, |timestamp| timestamp >= target)?;
            if found.is_some() {
                return Ok(found);
            }
        }
        Ok(None)
    }

    /// The first record with the largest timestamp; `None` in an empty log, and where no record has a
    /// timestamp. Blocks on the disk.
    ///
    /// # Errors
    /// As [`super::ReadPlan::execute`].
    pub fn max(&self) -> Result<Option<TimestampAndOffset>, ReadError> {
        // The largest of a segment may lie outside of what may be seen: then the batches decide.
        let mut best: Option<TimestampAndOffset> = None;
        for candidate in &self.candidates {
            if best.is_some_and(|best| candidate.largest <= best.timestamp)
                || candidate.segment.next_offset <= self.log_start
            {
                continue;
            }
            let whole = candidate.segment.base_offset >= self.log_start
                && candidate.segment.next_offset <= self.upper_bound;
            let floor = if whole {
                candidate.largest
            } else {
                match self.largest_visible(&candidate.segment)? {
                    Some(largest) => largest,
                    None => continue,
                }
            };
            if best.is_some_and(|best| floor <= best.timestamp) {
                continue;
            }
            let found = self.search(&candidate.segment, floor, |timestamp| timestamp >= floor)?;
            best = found.or(best);
        }
        Ok(best)
    }

    /// The largest timestamp of the records in a segment that may be seen.
    fn largest_visible(&self, segment: &PlannedSegment) -> Result<Option<Timestamp>, ReadError> {
        let file = segment.open(&self.shared)?;
        let start = segment.lookup(&self.shared, self.log_start)?;
        let mut largest = None;
        let mut partly: Option<(u64, BatchHeader)> = None;
        let mut position = start;
        while let Some((at, header)) = segment.find(&self.shared, &*file, position, |_| true)? {
            position = at + header.batch_size_bytes() as u64;
            if header.last_offset() < self.log_start {
                continue;
            }
            if header.base_offset() >= self.upper_bound {
                break;
            }
            if header.base_offset() < self.log_start {
                partly = Some((at, header));
            } else {
                largest = largest.max(header.max_timestamp());
            }
        }
        if let Some((at, header)) = partly {
            self.walk_records(segment, &*file, at, &header, |timestamp, _| {
                largest = largest.max(Some(timestamp));
                false
            })?;
        }
        Ok(largest)
    }

    /// The first visible record of a segment whose timestamp `matches`, none of which is below `target`.
    fn search(
        &self,
        segment: &PlannedSegment,
        target: Timestamp,
        matches: impl Fn(Timestamp) -> bool,
    ) -> Result<Option<TimestampAndOffset>, ReadError> {
        let file = segment.open(&self.shared)?;
        let older = segment
            .map(&self.shared, FileKind::TimeIndex)?
            .and_then(|map| TimeIndex::new(segment.base_offset, &map).last_before(target));
        // Nothing up to that entry is young enough.
        let from =
            older.map_or(segment.base_offset, |entry| entry.offset.next()).max(self.log_start);
        let mut position = segment.lookup(&self.shared, from)?;
        loop {
            let may_match = |header: &BatchHeader| {
                header.last_offset() >= from && header.max_timestamp() >= Some(target)
            };
            let found = segment.find(&self.shared, &*file, position, may_match)?;
            let Some((at, header)) = found else { return Ok(None) };
            if header.base_offset() >= self.upper_bound {
                return Ok(None);
            }
            let mut result = None;
            self.walk_records(segment, &*file, at, &header, |timestamp, offset| {
                let hit = matches(timestamp);
                if hit {
                    result = Some((timestamp, offset));
                }
                hit
            })?;
            if let Some((timestamp, offset)) = result {
                let leader_epoch = self.epochs.epoch_for_offset(offset);
                return Ok(Some(TimestampAndOffset { timestamp, offset, leader_epoch }));
            }
            position = at + header.batch_size_bytes() as u64;
        }
    }

    /// Shows the visible records of a batch with a timestamp, until `stop` says so.
    fn walk_records(
        &self,
        segment: &PlannedSegment,
        file: &dyn crate::fs::FsFile,
        at: u64,
        header: &BatchHeader,
        mut stop: impl FnMut(Timestamp, Offset) -> bool,
    ) -> Result<(), ReadError> {
        let visible = |offset: Offset| offset >= self.log_start && offset < self.upper_bound;
        if header.timestamp_type() == TimestampType::LogAppendTime {
            // One timestamp for all: the first visible offset has it.
            let first = header.base_offset().max(self.log_start);
            if let Some(timestamp) = header.max_timestamp()
                && visible(first)
            {
                stop(timestamp, first);
            }
            return Ok(());
        }
        let path = segment.log_path(&self.shared);
        let mut bytes = vec![0; header.batch_size_bytes()];
        match file.read_exact_at(&mut bytes, at) {
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
                return Err(ReadError::Superseded);
            }
            outcome => self.shared.dir.judge("read", &path, outcome)?,
        }
        let corrupt = |source| ReadError::Corrupt { path: path.clone(), position: at, source };
        let (batch, _) = RecordBatch::parse(&bytes).map_err(corrupt)?;
        batch.verify_crc().map_err(corrupt)?;
        let see = |record: RecordSummary| {
            let delta = u64::try_from(record.offset_delta).unwrap_or(0);
            let Some(offset) = batch.base_offset().checked_plus(delta) else { return false };
            let Some(timestamp) = batch.record_timestamp(record.timestamp_delta) else {
                return true;
            };
            !(visible(offset) && stop(timestamp, offset))
        };
        // Decompressed as it is walked over: four such lookups at a time would hold a GiB. Its CRC is right, so it was accepted
        // as it is: what cannot be read has no timestamps.
        let (codec, count) = (batch.compression(), batch.record_count());
        let limit = MAX_DECOMPRESSED_BATCH_BYTES;
        let _ = walk_records_while(codec, batch.records_block(), count, limit, see);
        Ok(())
    }
}
