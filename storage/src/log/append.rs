//! Appending, as leader and as follower.

use std::io::IoSlice;

use bytes::Bytes;

use super::{Log, LogError};
use crate::checkpoint::{
    PARTITION_METADATA_FILE, encode_partition_metadata, read_partition_metadata,
};
use crate::fs::OpenMode;
use crate::leader_epoch::LeaderEpoch;
use crate::log_dir::DiskError;
use crate::log_validator::{AppendOrigin, ValidatedBatch};
use crate::offset::Offset;
use crate::producer_state::{ProducerStateError, SequenceCheck};
use crate::record_batch::{
    BatchError, BatchHeader, EndTransactionMarker, HEADER_SIZE_BYTES, RecordBatch, batches,
};
use crate::segment::{Place, Segment, SegmentLimits};
use crate::timestamp::Timestamp;

/// Why nothing was appended.
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    /// The log cannot be used now, or at all.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The producer's batch does not follow from its last ones.
    #[error(transparent)]
    Producer(#[from] ProducerStateError),
    /// A batch larger than a segment may get.
    #[error("batch of {batch_bytes} bytes, segments hold at most {segment_bytes}")]
    LargerThanSegment {
        /// The batch's size.
        batch_bytes: usize,
        /// `segment.bytes`.
        segment_bytes: u32,
    },
    /// A leader's bytes are no batches, or damaged.
    #[error("byte {position} of the leader's answer: {source}")]
    Corrupt {
        /// Byte position of the batch in what was to be appended.
        position: usize,
        /// What is wrong with it.
        source: BatchError,
    },
    /// A leader's batch that lies before the log end.
    #[error("batch at offset {found}, the log ends at {log_end}")]
    OffsetOutOfOrder {
        /// Its base offset.
        found: Offset,
        /// The end of the log.
        log_end: Offset,
    },
    /// No offsets are left.
    #[error("the log at {log_end} has no offsets left")]
    OffsetsExhausted {
        /// The end of the log.
        log_end: Offset,
    },
}

impl From<DiskError> for AppendError {
    fn from(error: DiskError) -> AppendError {
        AppendError::Log(error.into())
    }
}

/// A batch as it was written: header with offset and epoch, and the body.
#[derive(Clone, Debug)]
pub struct StoredBatch {
    /// Its first 61 bytes.
    pub header: BatchHeader,
    /// Everything after them; aliases what was handed in.
    pub body: Bytes,
}

/// What came of an append.
#[derive(Clone, Debug)]
pub struct LogAppendInfo {
    /// Offset of the first record.
    pub base_offset: Offset,
    /// Offset of the last record, inclusive.
    pub last_offset: Offset,
    /// The time of the append where the topic has LogAppendTime.
    pub log_append_time: Option<Timestamp>,
    /// The log start offset.
    pub log_start_offset: Offset,
    /// Whether this was a retry: the offsets are those of the first time, and nothing was appended.
    pub duplicate: bool,
    /// Bytes written.
    pub bytes: usize,
    /// Whether a new segment was begun: the old one is to be flushed in the background.
    pub rolled: bool,
    /// Whether `flush.messages` wants a flush now.
    pub flush_needed: bool,
    /// What was written, for the tail cache.
    pub stored: Vec<StoredBatch>,
}

impl Log {
    /// Appends one batch as the partition's leader in `leader_epoch`: checks its sequence numbers, gives it
    /// the offsets at the log end, and writes it with one vectored write. Not synced; see
    /// [`LogAppendInfo::flush_needed`].
    ///
    /// # Errors
    /// Nothing was appended then.
    pub fn append_as_leader(
        &mut self,
        batch: ValidatedBatch,
        origin: AppendOrigin,
        leader_epoch: LeaderEpoch,
        now: Timestamp,
    ) -> Result<LogAppendInfo, AppendError> {
        self.dir.check_online()?;
        let base_offset = self.log_end;
        let mut header = batch.header;
        let marker = header.is_control().then(|| marker_of(&header, &batch.body)).flatten();
        let check = self.load(now)?.producers.check(&header, marker, origin)?;
        if let SequenceCheck::Duplicate { base_offset, last_offset, timestamp } = check {
            return Ok(LogAppendInfo {
                base_offset,
                last_offset,
                log_append_time: batch.log_append_time.and(timestamp),
                log_start_offset: self.log_start,
                duplicate: true,
                bytes: 0,
                rolled: false,
                flush_needed: false,
                stored: Vec::new(),
            });
        }
        if header.batch_size_bytes() > self.config.segment_bytes as usize {
            return Err(AppendError::LargerThanSegment {
                batch_bytes: header.batch_size_bytes(),
                segment_bytes: self.config.segment_bytes,
            });
        }
        if base_offset.checked_plus(header.last_offset_delta() as u64 + 1).is_none() {
            return Err(AppendError::OffsetsExhausted { log_end: base_offset });
        }
        header.set_base_offset(base_offset);
        header.set_partition_leader_epoch(leader_epoch);
        let mut parts = [IoSlice::new(header.as_bytes()), IoSlice::new(&batch.body)];
        let rolled = self.write(&[header], &[marker], &mut parts, now)?;
        let stored = vec![StoredBatch { header, body: batch.body }];
        self.note_written(base_offset, &stored);
        Ok(self.append_info(stored, batch.log_append_time, rolled))
    }

    /// Appends batches that another leader wrote, with the offsets and epochs they have. They may leave
    /// gaps, but do not go back. They are checked first, then written in pieces that fit segments.
    ///
    /// # Errors
    /// Nothing was appended then; only where the disk failed or is full, a first part may have been, which
    /// the log end tells.
    pub fn append_as_follower(
        &mut self,
        bytes: Bytes,
        now: Timestamp,
    ) -> Result<LogAppendInfo, AppendError> {
        self.dir.check_online()?;
        let mut stored = Vec::new();
        let mut markers = Vec::new();
        let mut next_offset = self.log_end;
        let mut walk = batches(&bytes);
        loop {
            let position = walk.position();
            let corrupt = |source| AppendError::Corrupt { position, source };
            let Some(batch) = walk.next() else { break };
            let batch = batch.map_err(corrupt)?;
            batch.verify_crc().map_err(corrupt)?;
            if batch.base_offset() < next_offset {
                let found = batch.base_offset();
                return Err(AppendError::OffsetOutOfOrder { found, log_end: next_offset });
            }
            next_offset = batch.next_offset();
            markers.push(EndTransactionMarker::in_batch(&batch));
            let body = bytes.slice(position + HEADER_SIZE_BYTES..walk.position());
            stored.push(StoredBatch { header: *batch.header(), body });
        }
        if stored.is_empty() {
            let log_end = self.log_end;
            return Ok(LogAppendInfo {
                base_offset: log_end,
                last_offset: log_end,
                log_append_time: None,
                log_start_offset: self.log_start,
                duplicate: false,
                bytes: 0,
                rolled: false,
                flush_needed: false,
                stored,
            });
        }
        self.load(now)?;
        let previous_end = self.log_end;
        let headers: Vec<BatchHeader> = stored.iter().map(|batch| batch.header).collect();
        let was_empty = self.loaded().is_some_and(|loaded| loaded.segments.len() == 0);
        if was_empty && self.log_end == self.log_start {
            // An empty log follows its leader's log start: the log begins with this batch.
            self.log_start = headers[0].base_offset().max(self.log_start);
            self.high_watermark = self.high_watermark.max(self.log_start);
        }
        let mut rolled = false;
        let (mut first, mut position) = (0, 0);
        while first < headers.len() {
            // A batch that is larger than a segment here has one of its own: the leader took it.
            let (mut end, mut size) = (first + 1, headers[first].batch_size_bytes());
            while let Some(next) = headers.get(end)
                && size + next.batch_size_bytes() <= self.config.segment_bytes as usize
            {
                size += next.batch_size_bytes();
                end += 1;
            }
            let mut part = [IoSlice::new(&bytes[position..position + size])];
            rolled |= self.write(&headers[first..end], &markers[first..end], &mut part, now)?;
            (first, position) = (end, position + size);
        }
        self.note_written(previous_end, &stored);
        Ok(self.append_info(stored, None, rolled))
    }

    fn append_info(
        &self,
        stored: Vec<StoredBatch>,
        log_append_time: Option<Timestamp>,
        rolled: bool,
    ) -> LogAppendInfo {
        let (first, last) = (&stored[0].header, &stored[stored.len() - 1].header);
        let unflushed = self.log_end.delta_from(self.progress.flushed_end()).unwrap_or(0);
        LogAppendInfo {
            base_offset: first.base_offset(),
            last_offset: last.last_offset(),
            log_append_time,
            log_start_offset: self.log_start,
            duplicate: false,
            bytes: stored.iter().map(|batch| batch.header.batch_size_bytes()).sum(),
            rolled,
            flush_needed: unflushed >= self.config.flush_messages,
            stored,
        }
    }

    fn limits(&self) -> SegmentLimits {
        SegmentLimits {
            segment_bytes: self.config.segment_bytes,
            segment_ms: (self.config.segment_ms - self.config.segment_jitter_ms).max(0),
            index_bytes: self.config.segment_index_bytes as usize,
        }
    }

    /// Writes batches that fit the log end. Returns whether a new segment was begun.
    fn write(
        &mut self,
        headers: &[BatchHeader],
        markers: &[Option<EndTransactionMarker>],
        parts: &mut [IoSlice<'_>],
        now: Timestamp,
    ) -> Result<bool, AppendError> {
        let size: usize = headers.iter().map(|header| header.batch_size_bytes()).sum();
        self.is_changed = true;
        self.create_directory(now)?;
        let rolled = self.make_room(headers, size, now)?;
        let (dir, path) = (self.dir.clone(), self.path.clone());
        let place = Place { dir: &dir, path: &path };
        let interval = self.config.index_interval_bytes;
        let loaded = self.load(now)?;
        let active = loaded.segments.last_mut().expect("make_room made one");
        active.append(place, headers, parts, interval, now)?;
        fail::fail_point!("log-after-append");
        loaded.bytes_since_snapshot += size as u64;
        for (header, marker) in headers.iter().zip(markers) {
            if let Some(epoch) = header.partition_leader_epoch() {
                loaded.assign_epoch(epoch, header.base_offset());
            }
            if let Some(aborted) = loaded.producers.update(header, *marker) {
                loaded.add_aborted(aborted);
            }
        }
        self.log_end = headers[headers.len() - 1].next_offset();
        self.size_bytes += size as u64;
        self.add_unflushed(size as u64);
        self.refresh_first_unstable();
        Ok(rolled)
    }

    /// Makes the directory of a log that has none. `partition.metadata` is written before the first batch,
    /// so after a killed process a directory without it holds none.
    fn create_directory(&mut self, now: Timestamp) -> Result<(), AppendError> {
        if self.load(now)?.is_created {
            return Ok(());
        }
        // What checkpoints say about an earlier topic of this name must not be believed of this one.
        self.dir.forget_checkpoints(&self.topic_partition)?;
        let fs = self.dir.fs();
        match fs.create_dir(&self.path) {
            // An earlier try that met a full disk may have made it; another topic's must not be there.
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
                let path = self.path.join(PARTITION_METADATA_FILE);
                if let Ok(Some(other)) = read_partition_metadata(&**fs, &path)
                    && other != self.topic_id
                {
                    return Err(AppendError::Log(LogError::Damaged {
                        topic_partition: self.topic_partition.clone(),
                        reason: format!("its directory is that of topic id {other}").into(),
                    }));
                }
            }
            outcome => self.dir.judge("create", &self.path, outcome)?,
        }
        let path = self.path.join(PARTITION_METADATA_FILE);
        let text = encode_partition_metadata(self.topic_id);
        let write = || {
            let file = fs.open(&path, OpenMode::Truncate)?;
            file.write_at(&mut [IoSlice::new(text.as_bytes())], 0)
        };
        self.dir.judge("write", &path, write())?;
        fail::fail_point!("log-after-create-directory");
        let loaded = self.load(now)?;
        loaded.is_created = true;
        loaded.is_new = true;
        loaded.note_names();
        self.dir.note_offsets_moved();
        Ok(())
    }

    /// Sees to it that the last segment can take `headers`. Returns whether a new one was begun in place of
    /// an older one.
    fn make_room(
        &mut self,
        headers: &[BatchHeader],
        size: usize,
        now: Timestamp,
    ) -> Result<bool, AppendError> {
        let (dir, path) = (self.dir.clone(), self.path.clone());
        let place = Place { dir: &dir, path: &path };
        let limits = self.limits();
        let delay_ms = self.config.file_delete_delay_ms;
        let (first, last) = (headers[0], headers[headers.len() - 1]);
        // The batch with the youngest timestamp and the greatest offset decides.
        let mut probe = last;
        let youngest = headers.iter().filter_map(BatchHeader::max_timestamp).max();
        probe.set_max_timestamp(youngest, last.timestamp_type());
        let loaded = self.load(now)?;
        if let Some(active) = loaded.segments.last_mut() {
            active.activate(place)?;
            if !active.should_roll(&probe, size, &limits, now) {
                return Ok(false);
            }
            if active.size_bytes() == 0 {
                // Empty, and its base is too far away: another one takes its place.
                let renamed = active.mark_deleted(place)?;
                dir.doom(renamed, delay_ms);
                loaded.segments.pop();
                loaded.note_names();
                let segment = Segment::create(place, first.base_offset(), now)?;
                loaded.segments.push(segment);
                return Ok(false);
            }
            // Where the last one ends, even if the batch begins later: so that a start can tell a lost tail
            // from a gap. Only offsets that would not fit the new one's index begin it themselves.
            let end = active.next_offset();
            let fits = last.last_offset().delta_from(end).is_some_and(|d| d <= i32::MAX as u64);
            self.roll_at(if fits { end } else { first.base_offset() }, now)?;
            return Ok(true);
        }
        // The first segment is named by the log's first offset, or the batch's where that is further.
        let segment = Segment::create(place, first.base_offset(), now)?;
        loaded.note_names();
        loaded.segments.push(segment);
        Ok(false)
    }

    /// Seals the active segment and begins another at `base_offset`.
    pub(super) fn roll_at(&mut self, base_offset: Offset, now: Timestamp) -> Result<(), LogError> {
        let (dir, path) = (self.dir.clone(), self.path.clone());
        let place = Place { dir: &dir, path: &path };
        self.is_changed = true;
        let loaded = self.load(now)?;
        let Some(active) = loaded.segments.last_mut() else { return Ok(()) };
        active.activate(place)?;
        active.seal(place)?;
        fail::fail_point!("log-roll-after-seal");
        let snapshot = loaded.producers.snapshot_at_roll();
        loaded.write_snapshot(place, base_offset, &snapshot)?;
        fail::fail_point!("log-roll-after-snapshot");
        let segment = Segment::create(place, base_offset, now)?;
        loaded.segments.push(segment);
        loaded.note_names();
        // The sealed one is to be flushed.
        self.dir.note_dirty(self.topic_id, self.topic_partition.partition);
        Ok(())
    }
}

fn marker_of(header: &BatchHeader, body: &Bytes) -> Option<EndTransactionMarker> {
    let bytes = [header.as_bytes().as_slice(), body].concat();
    let (batch, _) = RecordBatch::parse(&bytes).ok()?;
    EndTransactionMarker::in_batch(&batch)
}
