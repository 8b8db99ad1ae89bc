//! Cutting the end off a log: a follower whose leader wrote something else there.

use std::sync::atomic::Ordering;

use super::{Log, LogError};
use crate::flush::FlushScope;
use crate::log_dir::DiskError;
use crate::offset::Offset;
use crate::producer_state::ProducerStateManager;
use crate::recovery::{self, first_and_largest};
use crate::segment::scan::{LOOKUP_CHUNK_BYTES, Scanned, Scanner};
use crate::segment::{Place, Segment};
use crate::timestamp::Timestamp;

impl Log {
    /// Removes everything at and past `offset`. A batch that holds it goes whole, so the log may end before
    /// it. Durable when this returns: what is appended next can not be mixed up with what was there.
    ///
    /// The steps, each safe to be the last: lower the recovery point on the disk; rename later segments
    /// away, last first, and sync the names; cut the file and sync it.
    ///
    /// # Errors
    /// If the disk fails, or is full: then nothing was cut.
    pub fn truncate_to(&mut self, offset: Offset, now: Timestamp) -> Result<(), LogError> {
        if offset >= self.log_end {
            return Ok(());
        }
        if offset <= self.log_start {
            return self.truncate_fully_and_start_at(offset, now);
        }
        self.dir.check_online()?;
        self.is_changed = true;
        self.truncations.fetch_add(1, Ordering::AcqRel);
        self.forget_tail();
        self.load(now)?;
        self.dir.lower_recovery_point(&self.topic_partition, offset)?;
        fail::fail_point!("log-truncate-after-lowering");
        let cut = self.cut_at(offset, now);
        self.dir.judge_half_done("truncate", cut)
    }

    /// Once it has begun, what is in memory is true only if it comes to its end.
    fn cut_at(&mut self, offset: Offset, now: Timestamp) -> Result<(), LogError> {
        let (dir, path) = (self.dir.clone(), self.path.clone());
        let place = Place { dir: &dir, path: &path };
        let delay_ms = self.config.file_delete_delay_ms;
        let expiration_ms = self.config.producer_id_expiration_ms;
        let log_start = self.log_start;
        let topic_partition = self.topic_partition.clone();
        let loaded = self.load(now)?;

        let mut renamed = Vec::new();
        while let Some(last) = loaded.segments.last()
            && last.base_offset() >= offset
        {
            renamed.extend(last.mark_deleted(place)?);
            loaded.aborted.remove(&last.base_offset());
            loaded.unwritten_aborted.remove(&last.base_offset());
            loaded.segments.pop();
        }
        while let Some(last) = loaded.snapshots.last().copied()
            && last > offset
        {
            loaded.remove_snapshot(place, last)?;
        }
        loaded.note_names();
        dir.judge_sync(place.path, dir.fs().sync_dir(place.path))?;
        fail::fail_point!("log-truncate-after-rename");

        let mut log_end = offset;
        if let Some(last) = loaded.segments.last_mut() {
            if last.next_offset() > offset {
                log_end = cut_segment(place, last, offset)?;
            }
            last.activate(place)?;
            let base_offset = last.base_offset();
            if let Some(aborted) = loaded.aborted.get_mut(&base_offset) {
                aborted.retain(|entry| entry.last_offset < log_end);
                loaded.unwritten_aborted.insert(base_offset);
            }
        }
        if log_end < offset {
            dir.lower_recovery_point(&topic_partition, log_end)?;
        }
        if loaded.epochs.truncate_from_end(log_end) {
            loaded.epochs_version += 1;
        }
        let producers = recovery::producers::rebuild(
            place,
            loaded,
            log_start,
            log_end,
            log_end,
            now,
            expiration_ms,
            None,
        )?;
        loaded.producers = producers;
        self.dir.doom(renamed, delay_ms);
        self.after_truncation(log_end);
        Ok(())
    }

    fn after_truncation(&mut self, log_end: Offset) {
        self.log_end = log_end;
        self.dir.note_offsets_moved();
        self.size_bytes = self.loaded().map_or(0, |loaded| loaded.segments.size_bytes());
        self.progress.handle_truncation(log_end);
        self.high_watermark = self.high_watermark.clamp(self.log_start, log_end);
        if self.progress.recovery_point() >= log_end {
            self.sub_unflushed(u64::MAX);
        } else {
            self.sub_unflushed(self.unflushed_bytes.saturating_sub(self.size_bytes));
        }
        self.refresh_first_unstable();
    }

    /// Removes everything; the log is empty and starts at `offset`.
    ///
    /// # Errors
    /// If the disk fails, or is full.
    pub fn truncate_fully_and_start_at(
        &mut self,
        offset: Offset,
        now: Timestamp,
    ) -> Result<(), LogError> {
        self.dir.check_online()?;
        self.is_changed = true;
        self.truncations.fetch_add(1, Ordering::AcqRel);
        self.forget_tail();
        self.load(now)?;
        // In the middle of it there may be no segment at all.
        self.dir.lower_recovery_point(&self.topic_partition, Offset::ZERO)?;
        let cut = self.remove_all_and_start_at(offset, now);
        self.dir.judge_half_done("truncate", cut)
    }

    /// As [`Log::cut_at`].
    fn remove_all_and_start_at(&mut self, offset: Offset, now: Timestamp) -> Result<(), LogError> {
        let (dir, path) = (self.dir.clone(), self.path.clone());
        let place = Place { dir: &dir, path: &path };
        let delay_ms = self.config.file_delete_delay_ms;
        let loaded = self.load(now)?;
        let mut renamed = Vec::new();
        while let Some(last) = loaded.segments.last() {
            renamed.extend(last.mark_deleted(place)?);
            loaded.segments.pop();
        }
        while let Some(last) = loaded.snapshots.last().copied() {
            loaded.remove_snapshot(place, last)?;
        }
        if loaded.is_created {
            // An empty segment says where the log goes on.
            loaded.segments.push(Segment::create(place, offset, now)?);
            loaded.note_names();
            dir.judge_sync(place.path, dir.fs().sync_dir(place.path))?;
        }
        loaded.aborted.clear();
        loaded.unwritten_aborted.clear();
        loaded.producers = ProducerStateManager::new();
        if !loaded.epochs.entries().is_empty() {
            loaded.epochs.clear();
            loaded.epochs_version += 1;
        }
        self.dir.doom(renamed, delay_ms);
        self.log_start = offset;
        self.high_watermark = offset;
        self.after_truncation(offset);
        let created = self.loaded().is_some_and(|loaded| loaded.is_created);
        if created {
            // Its directory may be new: where the log goes on must survive a power cut too.
            self.flush()?;
        } else {
            let truncations = self.progress.truncations();
            self.progress.handle_flushed(FlushScope::Everything, offset, truncations);
        }
        Ok(())
    }
}

/// Cuts a segment at the batch that holds `offset`. Returns where the log ends then.
fn cut_segment(
    place: Place<'_>,
    segment: &mut Segment,
    offset: Offset,
) -> Result<Offset, DiskError> {
    segment.activate(place)?;
    let file = segment.log_file(place)?;
    let start = segment.lookup_in_memory(offset).unwrap_or(0);
    let size = u64::from(segment.size_bytes());
    let path = place.file(segment.base_offset(), "log");
    let mut scanner = Scanner::new(&*file, u64::from(start), size, LOOKUP_CHUNK_BYTES);
    let (position, log_end) = loop {
        match place.dir.judge("read", &path, scanner.next_header())? {
            Scanned::Batch(position, header) if header.last_offset() >= offset => {
                break (position, header.base_offset().min(offset));
            }
            Scanned::Batch(..) => {}
            Scanned::End | Scanned::Bad(..) => break (scanner.position(), offset),
        }
    };
    let position = u32::try_from(position).expect("positions in a segment fit 32 bits");
    segment.truncate(place, log_end, position)?;
    let (first, largest) = first_and_largest(place, segment)?;
    segment.set_times(first, largest);
    place.dir.judge_sync(&path, file.sync_data())?;
    Ok(log_end)
}
