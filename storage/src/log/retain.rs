//! Moving the log start: DeleteRecords, retention, and rolling by hand.

use super::{Content, Log, LogError};
use crate::log_dir::DiskError;
use crate::offset::Offset;
use crate::retention::{RetentionLimits, SegmentFacts, deletable_segments};
use crate::segment::{Place, Segment};
use crate::timestamp::Timestamp;

impl Log {
    /// Moves the log start up to `before`, kept at or below the high watermark. Whole segments below it go
    /// with the next retention. Returns whether it moved. On the disk it is with the next checkpoint.
    ///
    /// # Errors
    /// If the log cannot be read.
    pub fn delete_records(&mut self, before: Offset, now: Timestamp) -> Result<bool, LogError> {
        let before = before.min(self.high_watermark);
        if before <= self.log_start {
            return Ok(false);
        }
        self.load(now)?;
        self.move_log_start(before);
        Ok(true)
    }

    /// The leader's log start moved: a follower's moves with it, at most to its own end.
    ///
    /// # Errors
    /// If the log cannot be read.
    pub fn follow_log_start(
        &mut self,
        log_start: Offset,
        now: Timestamp,
    ) -> Result<bool, LogError> {
        let log_start = log_start.min(self.log_end);
        if log_start <= self.log_start {
            return Ok(false);
        }
        self.load(now)?;
        self.high_watermark = self.high_watermark.max(log_start);
        self.move_log_start(log_start);
        Ok(true)
    }

    fn move_log_start(&mut self, log_start: Offset) {
        self.is_changed = true;
        self.log_start = log_start;
        if self.is_followed {
            self.dir.tails().forget_before(self.tail, log_start);
        }
        self.dir.note_offsets_moved();
        if let Some(loaded) = self.loaded_mut()
            && loaded.epochs.truncate_from_start(log_start)
        {
            loaded.epochs_version += 1;
        }
        self.refresh_first_unstable();
    }

    /// Deletes the oldest segments that time, size or the log start let go, never above the high watermark.
    /// Their files are renamed now and removed after `file.delete.delay.ms`. Returns how many went.
    ///
    /// # Errors
    /// If the disk fails or is full.
    pub fn delete_old_segments(&mut self, now: Timestamp) -> Result<usize, LogError> {
        if self.log_end == self.log_start && self.size_bytes == 0 {
            return Ok(0);
        }
        self.dir.check_online()?;
        let limits = RetentionLimits {
            retention_ms: self.config.retention_ms,
            retention_bytes: self.config.retention_bytes,
        };
        let (log_start, high_watermark, log_end) =
            (self.log_start, self.high_watermark, self.log_end);
        if let Content::Cold(Some(oldest)) = &self.content
            && !oldest.may_go(self.size_bytes, log_start, high_watermark, limits, now)
        {
            return Ok(0); // without reading ten thousand idle logs every five minutes
        }
        let was_used = self.is_used;
        let loaded = self.load(now)?;
        let facts: Vec<SegmentFacts> = loaded.segments.iter().map(Segment::facts).collect();
        self.is_used = was_used; // this look at it is no reason to keep it in memory
        let count = deletable_segments(&facts, log_start, high_watermark, limits, now);
        if count == 0 {
            return Ok(0);
        }
        if count == facts.len() {
            // The active one goes too: appends need another.
            self.roll_at(log_end, now)?;
        }
        self.delete_first_segments(count, now)?;
        Ok(count)
    }

    /// # Errors
    /// If the disk fails or is full. What has gone by then has gone: the log start and the size say so.
    fn delete_first_segments(&mut self, count: usize, now: Timestamp) -> Result<(), LogError> {
        let (dir, path) = (self.dir.clone(), self.path.clone());
        let place = Place { dir: &dir, path: &path };
        let recovery_point = self.progress.recovery_point();
        self.is_changed = true;
        self.load(now)?;
        // Oldest first: whatever a crash leaves is the log from a later start.
        let deleted = (0..count).try_for_each(|_| self.delete_first_segment());
        let loaded = self.load(now)?;
        let pruned = deleted.and_then(|()| loaded.prune_snapshots(place, recovery_point));
        let first = loaded.segments.first().map(|segment| segment.base_offset());
        self.size_bytes = loaded.segments.size_bytes();
        if let Some(first) = first
            && first > self.log_start
        {
            // Below the high watermark unless a bug was planted; the offsets stay in order even then.
            self.high_watermark = self.high_watermark.max(first);
            self.move_log_start(first);
        }
        self.dir.note_dirty(self.topic_id, self.topic_partition.partition);
        Ok(pruned?)
    }

    /// Does nothing if that fails, but what was renamed of its files: the next try goes on from there.
    fn delete_first_segment(&mut self) -> Result<(), DiskError> {
        let (dir, path) = (self.dir.clone(), self.path.clone());
        let place = Place { dir: &dir, path: &path };
        let delay_ms = self.config.file_delete_delay_ms;
        let Some(loaded) = self.loaded_mut() else { return Ok(()) };
        let Some(first) = loaded.segments.first() else { return Ok(()) };
        let renamed = first.mark_deleted(place)?;
        let base_offset = first.base_offset();
        loaded.segments.remove_first();
        loaded.aborted.remove(&base_offset);
        loaded.unwritten_aborted.remove(&base_offset);
        loaded.note_names();
        dir.doom(renamed, delay_ms);
        fail::fail_point!("log-retention-after-rename");
        Ok(())
    }

    /// Begins a new segment at the log end, unless the active one is empty.
    ///
    /// # Errors
    /// If the disk fails or is full.
    pub fn roll(&mut self, now: Timestamp) -> Result<bool, LogError> {
        self.dir.check_online()?;
        let log_end = self.log_end;
        let loaded = self.load(now)?;
        if loaded.segments.last().is_none_or(|active| active.size_bytes() == 0) {
            return Ok(false);
        }
        self.roll_at(log_end, now)?;
        Ok(true)
    }
}
