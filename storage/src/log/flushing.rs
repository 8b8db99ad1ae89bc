//! Flushing: writing tickets, taking outcomes back, and closing.

use super::{Content, Log, LogError, OffsetSnapshot};
use crate::checkpoint::{PARTITION_METADATA_FILE, encode_epochs};
use crate::flush::{FlushOutcome, FlushScope, FlushTicket};
use crate::fs::OpenMode;
use crate::log_dir::{DiskError, StoppedLog};
use crate::segment::Place;
use crate::timestamp::Timestamp;

use super::loaded::snapshot_path;

/// A flush of everything takes a producer snapshot when this much was appended since the last one, so that
/// an unclean start reads no more headers than that below the recovery point.
const SNAPSHOT_INTERVAL_BYTES: u64 = 64 << 20;

impl Log {
    /// What has to be synced so that everything up to the log end is safe; `None` if it is already.
    /// Under the caller's lock; run the ticket outside of it, and do run it: from now on its files may be closed by
    /// everybody else. Several may be under way at a time.
    ///
    /// # Errors
    /// If files cannot be opened or indexes not written out.
    pub fn flush_ticket(&mut self, scope: FlushScope) -> Result<Option<FlushTicket>, DiskError> {
        self.dir.check_online()?;
        let (dir, path) = (self.dir.clone(), self.path.clone());
        let place = Place { dir: &dir, path: &path };
        let (log_end, progress, unflushed_bytes) =
            (self.log_end, self.progress, self.unflushed_bytes);
        let Some(loaded) = self.loaded_mut() else { return Ok(None) };
        if !loaded.is_created {
            return Ok(None);
        }
        let everything = scope == FlushScope::Everything;
        let from = if everything { progress.recovery_point() } else { progress.flushed_end() };
        let names_dirty = loaded.names_synced < loaded.names_version;
        let epochs_dirty = loaded.epochs_synced < loaded.epochs_version;
        let indexes_dirty =
            || loaded.segments.iter().any(crate::segment::Segment::has_dirty_index_files);
        let dirty = from < log_end
            || names_dirty
            || loaded.is_new
            || loaded.segments.iter().any(crate::segment::Segment::is_log_file_unsynced)
            || everything && (epochs_dirty || indexes_dirty());
        if !dirty {
            return Ok(None);
        }
        let mut files = Vec::new();
        if everything {
            if loaded.bytes_since_snapshot >= SNAPSHOT_INTERVAL_BYTES {
                let snapshot = loaded.producers.to_snapshot();
                loaded.write_snapshot(place, log_end, &snapshot)?;
            }
            loaded.write_missing_aborted(place)?;
            if let Some(active) = loaded.segments.last_mut() {
                active.write_indexes(place, false)?;
            }
        }
        for segment in loaded.segments.iter_mut() {
            let has_records = segment.next_offset() > from;
            // A file may wait for a sync without a record that does: the last append to it met a full disk, or was cut off.
            if has_records || segment.is_log_file_unsynced() {
                let log_path = place.file(segment.base_offset(), "log");
                files.push((log_path, segment.log_file(place)?));
            }
            if !everything || !has_records && !segment.has_dirty_index_files() {
                continue;
            }
            for extension in crate::segment::INDEX_EXTENSIONS {
                let path = place.file(segment.base_offset(), extension);
                match dir.fs().open(&path, OpenMode::Write) {
                    Ok(file) => {
                        // An index file that is empty was never anything else: it has a name, and no content to sync.
                        if dir.judge("read", &path, file.size_bytes())? > 0 {
                            files.push((path, file));
                        }
                    }
                    Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                    Err(error) => return dir.judge("open", &path, Err(error)),
                }
            }
        }
        if everything {
            for offset in loaded.unsynced_snapshots.keys() {
                let path = snapshot_path(place, *offset);
                match dir.fs().open(&path, OpenMode::Write) {
                    Ok(file) => files.push((path, file)),
                    Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                    Err(error) => return dir.judge("open", &path, Err(error)),
                }
            }
        }
        if loaded.is_new {
            let path = path.join(PARTITION_METADATA_FILE);
            let file = dir.judge("open", &path, dir.fs().open(&path, OpenMode::Write))?;
            files.push((path, file));
        }
        // Only now that there is a ticket: an error above leaves everything to the next one.
        for segment in loaded.segments.iter_mut() {
            segment.log_file_is_covered();
            if everything {
                segment.index_files_are_covered();
            }
        }
        let epochs = (everything && epochs_dirty)
            .then(|| (loaded.epochs_version, encode_epochs(loaded.epochs.entries())));
        Ok(Some(FlushTicket {
            epoch_file: loaded.epoch_file.clone(),
            names_version: loaded.names_version,
            names_dirty,
            is_new: loaded.is_new,
            dir: self.dir.clone(),
            log_path: self.path.clone(),
            scope,
            end: log_end,
            truncations: progress.truncations(),
            files,
            epochs,
            unflushed_bytes,
        }))
    }

    /// Takes back what came of a ticket. Returns the offsets as they are now; publish them.
    ///
    /// # Errors
    /// The ticket's error. On a full disk (an epoch checkpoint that could not be written) the records are
    /// not counted as flushed either: flush again.
    pub fn flush_completed(&mut self, outcome: FlushOutcome) -> Result<OffsetSnapshot, DiskError> {
        outcome.result?;
        let same_log = outcome.truncations == self.progress.truncations();
        self.progress.handle_flushed(outcome.scope, outcome.end, outcome.truncations);
        if same_log && outcome.scope == FlushScope::Everything {
            self.sub_unflushed(outcome.unflushed_bytes);
        }
        let recovery_point = self.progress.recovery_point();
        self.dir.note_offsets_moved();
        let (dir, path) = (self.dir.clone(), self.path.clone());
        if let Some(loaded) = self.loaded_mut() {
            loaded.names_synced = loaded.names_synced.max(outcome.names_version);
            if let Some(version) = outcome.epochs_version {
                loaded.epochs_synced = loaded.epochs_synced.max(version);
            }
            if outcome.is_new {
                loaded.is_new = false;
            }
            if same_log && outcome.scope == FlushScope::Everything {
                // A roll may have written one at the ticket's very end meanwhile, even one of an earlier name.
                loaded.unsynced_snapshots.retain(|_, written| *written > outcome.names_version);
                loaded.prune_snapshots(Place { dir: &dir, path: &path }, recovery_point)?;
            }
        }
        Ok(self.offsets())
    }

    /// Syncs everything up to the log end. Blocks on the disk.
    ///
    /// # Errors
    /// If the disk fails or is full.
    pub fn flush(&mut self) -> Result<OffsetSnapshot, DiskError> {
        match self.flush_ticket(FlushScope::Everything)? {
            Some(ticket) => self.flush_completed(ticket.run()),
            None => Ok(self.offsets()),
        }
    }

    /// A clean stop: seals the indexes, leaves the producers' state at the log end, syncs everything. What
    /// it returns belongs into the list of the clean stop; `None` if the log has no directory.
    ///
    /// # Errors
    /// If the disk fails, or the log is damaged: the stop is not a clean one then.
    pub fn close(&mut self, now: Timestamp) -> Result<Option<StoppedLog>, LogError> {
        match &self.content {
            Content::Absent | Content::Deleted => return Ok(None),
            Content::Cold(_) => return Ok(Some(self.stopped())),
            // Nothing to do, and ten thousand such logs must not cost an fsync each. Reading it may have rebuilt an index.
            Content::Loaded(loaded) if !self.is_changed && loaded.is_as_a_clean_stop_left_it() => {
                return Ok(Some(self.stopped()));
            }
            Content::Damaged(_) | Content::Loaded(_) => {}
        }
        let (dir, path) = (self.dir.clone(), self.path.clone());
        let place = Place { dir: &dir, path: &path };
        let log_end = self.log_end;
        let loaded = self.load(now)?;
        if !loaded.is_created {
            return Ok(None);
        }
        if let Some(active) = loaded.segments.last_mut() {
            active.activate(place)?;
            active.seal(place)?;
            loaded.note_names();
        }
        // A clean stop without a snapshot at the log end says: no producer. One that is there may be older
        // than an expiry since; rewriting it costs little.
        if !loaded.producers.is_empty() {
            let snapshot = loaded.producers.to_snapshot();
            loaded.write_snapshot(place, log_end, &snapshot)?;
        } else if loaded.snapshots.contains(&log_end) {
            loaded.remove_snapshot(place, log_end)?;
        }
        self.flush()?;
        if self.progress.recovery_point() < log_end {
            // The names were all that was dirty, or the flush was cut short by a full disk.
            return Err(DiskError::Full { path: path.to_path_buf() }.into());
        }
        self.is_changed = false;
        Ok(Some(self.stopped()))
    }

    fn stopped(&self) -> StoppedLog {
        StoppedLog {
            topic_id: self.topic_id,
            topic_partition: self.topic_partition.clone(),
            log_start: self.log_start,
            high_watermark: self.high_watermark,
            log_end: self.log_end,
            size_bytes: self.size_bytes,
            oldest: self.oldest_segment(),
        }
    }
}
