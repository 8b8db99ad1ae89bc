//! One partition's log: batches in segments, with what follows from them — leader epochs, producer state,
//! aborted transactions (`UnifiedLog.scala`, `LocalLog.java`).
//!
//! The caller serialises `&mut`. Calls are short and do not fsync, but for truncation, which is rare and
//! must be safe before anything is appended after it. What may take long is handed out as data and run
//! without the caller's lock: reads ([`ReadPlan`]), lookups by time ([`TimestampLookup`]) and flushes
//! ([`crate::flush::FlushTicket`]).
//!
//! A log may be *absent*: it has no directory before its first append, so that becoming leader of ten
//! thousand partitions writes nothing. And it may be *cold*: after a clean stop its ends are known, and
//! nothing of its directory is read before it is used. A log that was only read since goes back to cold when it is idle.
//!
//! Invariant: a cold log's directory is as a clean stop left it, so loading it again makes what was dropped.

mod append;
mod config;
mod epochs;
mod file_slice;
mod flushing;
mod loaded;
mod lookup;
mod offsets;
mod read;
mod retain;
#[cfg(test)]
pub(crate) mod tests;
mod truncate;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

pub use append::{AppendError, LogAppendInfo, StoredBatch};
pub use config::LogConfig;
pub use file_slice::FileSlice;
pub(crate) use loaded::{Loaded, snapshot_path};
pub use lookup::{TimestampAndOffset, TimestampLookup};
pub use offsets::{CheckpointedOffsets, OffsetSnapshot};
pub use read::{FetchedRecords, ReadError, ReadPlan, RecordSlice};

use crate::flush::FlushProgress;
use crate::leader_epoch::EpochEntry;
use crate::log_dir::{DiskError, LogDir};
use crate::offset::Offset;
use crate::producer_state::ProducerEntry;
use crate::recovery::{self, Known, RecoveryReport};
use crate::retention::OldestSegment;
use crate::segment::Place;
use crate::timestamp::Timestamp;
use crate::topic_partition::{TopicId, TopicPartition};

/// Why a log cannot be used.
#[derive(Clone, Debug, thiserror::Error)]
pub enum LogError {
    /// The disk is full or offline.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// What is on the disk is not the log that was written. This partition is offline, others are not.
    #[error("log {topic_partition} is damaged and stays offline: {reason}")]
    Damaged {
        /// Whose log.
        topic_partition: TopicPartition,
        /// What is wrong, and where.
        reason: Arc<str>,
    },
    /// Its topic was deleted.
    #[error("log {topic_partition} was deleted")]
    Deleted {
        /// Whose log.
        topic_partition: TopicPartition,
    },
}

#[derive(Debug)]
enum Content {
    /// No directory yet.
    Absent,
    /// Cleanly stopped and not changed since; what retention needs to know of it, if that is known.
    Cold(Option<OldestSegment>),
    Loaded(Box<Loaded>),
    Damaged(Arc<str>),
    Deleted,
}

/// One partition's log.
#[derive(Debug)]
pub struct Log {
    dir: Arc<LogDir>,
    path: Arc<Path>,
    topic_id: TopicId,
    topic_partition: TopicPartition,
    config: Arc<LogConfig>,
    content: Content,
    log_start: Offset,
    high_watermark: Offset,
    log_end: Offset,
    first_unstable: Option<Offset>,
    progress: FlushProgress,
    /// Bytes past the recovery point, as counted in the log directory too.
    unflushed_bytes: u64,
    size_bytes: u64,
    /// Names it in the tail cache.
    tail: u64,
    /// Whether readers follow its end, so that small batches are kept in memory for them.
    is_followed: bool,
    /// How often the log was cut or deleted, for reads that are carried out without the lock.
    truncations: Arc<AtomicU64>,
    /// Whether anything changed since a clean stop.
    is_changed: bool,
    /// An epoch whose leader began, not yet in the epoch cache because that is not loaded.
    pending_epoch: Option<EpochEntry>,
    /// Whether the manager knows that it has memory to give back.
    is_warm: bool,
    /// Whether it was used since the manager looked last.
    is_used: bool,
}

impl Log {
    /// A log without a directory: empty, from offset 0. Touches no disk.
    pub fn absent(
        dir: Arc<LogDir>,
        topic_id: TopicId,
        topic_partition: TopicPartition,
        config: Arc<LogConfig>,
    ) -> Log {
        let path = dir.path().join(topic_partition.to_string()).into();
        let tail = dir.new_segment_key();
        Log {
            dir,
            path,
            topic_id,
            topic_partition,
            config,
            content: Content::Absent,
            log_start: Offset::ZERO,
            high_watermark: Offset::ZERO,
            log_end: Offset::ZERO,
            first_unstable: None,
            progress: FlushProgress::new(Offset::ZERO),
            unflushed_bytes: 0,
            size_bytes: 0,
            tail,
            is_followed: false,
            truncations: Arc::default(),
            is_changed: false,
            pending_epoch: None,
            is_warm: false,
            is_used: false,
        }
    }

    /// A log as a clean stop left it. Its directory is read on first use. Touches no disk.
    pub fn cold(
        dir: Arc<LogDir>,
        stopped: &crate::log_dir::StoppedLog,
        config: Arc<LogConfig>,
    ) -> Log {
        let partition = stopped.topic_partition.clone();
        let mut log = Log::absent(dir, stopped.topic_id, partition, config);
        log.content = Content::Cold(stopped.oldest);
        log.log_start = stopped.log_start;
        log.high_watermark = stopped.high_watermark;
        log.log_end = stopped.log_end;
        log.progress = FlushProgress::new(stopped.log_end);
        log.size_bytes = stopped.size_bytes;
        log
    }

    /// A log after an unclean stop: reads what lies past the recovery point, cuts a torn tail, rebuilds what
    /// follows from the batches. Where the topic flushes each message, what is kept is synced before this
    /// returns.
    ///
    /// # Errors
    /// [`LogError::Damaged`] if what is below the recovery point is not whole: nothing was changed then.
    pub fn recover(
        dir: Arc<LogDir>,
        topic_id: TopicId,
        topic_partition: TopicPartition,
        config: Arc<LogConfig>,
        checkpoints: CheckpointedOffsets,
        now: Timestamp,
    ) -> Result<(Log, RecoveryReport), LogError> {
        let mut log = Log::absent(dir, topic_id, topic_partition, config);
        let known = Known::Checkpoints {
            recovery_point: checkpoints.recovery_point,
            log_start: checkpoints.log_start,
        };
        let report = log.read_directory(known, now)?;
        log.high_watermark = checkpoints.high_watermark.clamp(log.log_start, log.log_end);
        log.is_changed = true;
        // Its last segment's index is in memory, and its files are open.
        log.note_use();
        log.refresh_first_unstable();
        if log.config.flushes_each_message() {
            log.flush()?;
        }
        Ok((log, report))
    }

    /// A log that cannot be used, and why.
    pub(crate) fn damaged(
        dir: Arc<LogDir>,
        topic_id: TopicId,
        topic_partition: TopicPartition,
        config: Arc<LogConfig>,
        reason: Arc<str>,
    ) -> Log {
        let mut log = Log::absent(dir, topic_id, topic_partition, config);
        log.content = Content::Damaged(reason);
        log
    }

    fn read_directory(&mut self, known: Known, now: Timestamp) -> Result<RecoveryReport, LogError> {
        let place = Place { dir: &self.dir, path: &self.path };
        let recovered = recovery::load(place, &self.topic_partition, &self.config, known, now)?;
        self.log_start = recovered.log_start;
        self.log_end = recovered.log_end;
        self.high_watermark = self.high_watermark.clamp(self.log_start, self.log_end);
        self.progress = FlushProgress::new(recovered.recovery_point);
        self.size_bytes = recovered.loaded.segments.size_bytes();
        self.add_unflushed(recovered.unflushed_bytes);
        self.content = Content::Loaded(Box::new(recovered.loaded));
        self.refresh_first_unstable();
        Ok(recovered.report)
    }

    /// The content, read from the disk if it was not yet.
    fn load(&mut self, now: Timestamp) -> Result<&mut Loaded, LogError> {
        self.note_use();
        match &self.content {
            Content::Loaded(_) => {}
            Content::Absent => {
                self.content = Content::Loaded(Box::new(Loaded::absent()));
                self.take_pending_epoch();
            }
            Content::Cold(_) => {
                self.dir.check_online()?;
                let known = Known::CleanStop { log_start: self.log_start, log_end: self.log_end };
                if let Err(error) = self.read_directory(known, now) {
                    if let LogError::Damaged { reason, .. } = &error {
                        tracing::error!(
                            topic_partition = %self.topic_partition,
                            reason = %reason,
                            "log is damaged: partition offline"
                        );
                        self.content = Content::Damaged(reason.clone());
                    }
                    return Err(error);
                }
                self.take_pending_epoch();
            }
            Content::Damaged(reason) => {
                return Err(LogError::Damaged {
                    topic_partition: self.topic_partition.clone(),
                    reason: reason.clone(),
                });
            }
            Content::Deleted => {
                return Err(LogError::Deleted { topic_partition: self.topic_partition.clone() });
            }
        }
        match &mut self.content {
            Content::Loaded(loaded) => Ok(loaded),
            _ => unreachable!("loaded just now"),
        }
    }

    fn note_use(&mut self) {
        self.is_used = true;
        if !self.is_warm {
            self.is_warm = true;
            self.dir.note_in_use(self.topic_id, self.topic_partition.partition);
        }
    }

    /// Whether it was used since this was last asked.
    pub(crate) fn take_used(&mut self) -> bool {
        std::mem::take(&mut self.is_used)
    }

    fn loaded(&self) -> Option<&Loaded> {
        match &self.content {
            Content::Loaded(loaded) => Some(loaded),
            _ => None,
        }
    }

    fn loaded_mut(&mut self) -> Option<&mut Loaded> {
        match &mut self.content {
            Content::Loaded(loaded) => Some(loaded),
            _ => None,
        }
    }

    fn refresh_first_unstable(&mut self) {
        let high_watermark = self.high_watermark;
        let Some(loaded) = self.loaded_mut() else { return };
        loaded.producers.handle_high_watermark(high_watermark);
        self.first_unstable =
            self.loaded().and_then(|loaded| loaded.producers.first_unstable_offset());
    }

    /// Keeps small batches that were just written in memory, if somebody follows the log's end.
    fn note_written(&mut self, previous_end: Offset, stored: &[StoredBatch]) {
        if self.is_followed {
            self.is_followed = self.dir.tails().append(self.tail, previous_end, stored);
        }
    }

    /// Before anything is cut: nothing is served from memory that the file may lose.
    fn forget_tail(&mut self) {
        if self.is_followed {
            self.is_followed = false;
            self.dir.tails().forget(self.tail);
        }
    }

    fn add_unflushed(&mut self, bytes: u64) {
        if bytes == 0 {
            return;
        }
        self.dir.add_unflushed(bytes);
        if self.unflushed_bytes == 0 {
            self.dir.note_dirty(self.topic_id, self.topic_partition.partition);
        }
        self.unflushed_bytes += bytes;
    }

    fn sub_unflushed(&mut self, bytes: u64) {
        let bytes = bytes.min(self.unflushed_bytes);
        self.dir.sub_unflushed(bytes);
        self.unflushed_bytes -= bytes;
    }

    /// Its topic's id.
    pub fn topic_id(&self) -> TopicId {
        self.topic_id
    }

    /// Its name.
    pub fn topic_partition(&self) -> &TopicPartition {
        &self.topic_partition
    }

    /// Its directory, which an absent log has not made yet.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its settings.
    pub fn config(&self) -> &Arc<LogConfig> {
        &self.config
    }

    /// Changes the settings from now on.
    pub fn set_config(&mut self, config: Arc<LogConfig>) {
        if self.unflushed_bytes > 0 && config.flush_ms != self.config.flush_ms {
            self.dir.note_dirty(self.topic_id, self.topic_partition.partition);
        }
        self.config = config;
    }

    /// Whether there are sealed segments past the recovery point, which are to be flushed in the background.
    pub(crate) fn wants_flush(&self) -> bool {
        let recovery_point = self.progress.recovery_point();
        self.loaded().is_some_and(|loaded| {
            let sealed = loaded.segments.len().saturating_sub(1);
            loaded
                .segments
                .iter()
                .take(sealed)
                .any(|segment| segment.next_offset() > recovery_point)
        })
    }

    /// The log start, where the segments do not say it. A first segment that was never synced may be gone after a power cut, and
    /// what it says with it; one whose predecessors' names are not known to have gone may have them back.
    pub(crate) fn log_start_to_checkpoint(&self) -> Option<Offset> {
        let is_said = self.loaded().is_some_and(|loaded| {
            let base_offset = loaded.segments.first().map(|first| first.base_offset());
            base_offset == Some(self.log_start) && loaded.names_synced == loaded.names_version
        });
        let is_said = is_said && self.progress.recovery_point() > self.log_start;
        (!is_said && self.log_start > Offset::ZERO).then_some(self.log_start)
    }

    /// Whether it has a directory.
    pub fn is_on_disk(&self) -> bool {
        match &self.content {
            Content::Absent | Content::Deleted => false,
            Content::Cold(_) | Content::Damaged(_) => true,
            Content::Loaded(loaded) => loaded.is_created,
        }
    }

    /// Whether its first use has to read its directory.
    pub fn is_cold(&self) -> bool {
        matches!(self.content, Content::Cold(_))
    }

    /// Why it cannot be used, if it cannot.
    pub fn damage(&self) -> Option<LogError> {
        match &self.content {
            Content::Damaged(reason) => Some(LogError::Damaged {
                topic_partition: self.topic_partition.clone(),
                reason: reason.clone(),
            }),
            _ => None,
        }
    }

    /// Bytes in its `.log` files.
    pub fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// Bytes appended past the recovery point: what an unclean start would read.
    pub fn unflushed_bytes(&self) -> u64 {
        self.unflushed_bytes
    }

    /// The producers that wrote here, by id, without those that have expired.
    ///
    /// # Errors
    /// If the log cannot be read.
    pub fn producers(&mut self, now: Timestamp) -> Result<Vec<ProducerEntry>, LogError> {
        Ok(self.load(now)?.producers.producers().cloned().collect())
    }

    /// Forgets producers that have been silent for `producer.id.expiration.ms`.
    pub fn expire_producers(&mut self, now: Timestamp) {
        let expiration_ms = self.config.producer_id_expiration_ms;
        if let Some(loaded) = self.loaded_mut() {
            loaded.producers.expire(now, expiration_ms);
        }
    }

    /// The oldest segment, for retention.
    fn oldest_segment(&self) -> Option<OldestSegment> {
        match &self.content {
            Content::Cold(oldest) => *oldest,
            Content::Loaded(loaded) => {
                let is_last = loaded.segments.len() == 1;
                loaded.segments.first().map(|first| OldestSegment { facts: first.facts(), is_last })
            }
            Content::Absent | Content::Damaged(_) | Content::Deleted => None,
        }
    }

    /// Drops what is in memory of a log that a clean stop left and nobody changed since; it is read again when needed.
    fn cool(&mut self) {
        let log_end = self.log_end;
        if self.is_changed || self.unflushed_bytes > 0 || self.progress.recovery_point() < log_end {
            return;
        }
        let oldest = self.oldest_segment();
        let Some(loaded) = self.loaded_mut() else { return };
        // A ticket under way may still write the epochs by way of this.
        let is_shared = Arc::strong_count(&loaded.epoch_file) > 1;
        if is_shared || !loaded.is_as_a_clean_stop_left_it() {
            return;
        }
        // An epoch that began since is not in its file before its first batch is.
        let pending = loaded.epochs.entries().last().filter(|last| last.start_offset == log_end);
        let pending = pending.copied();
        let keys: Vec<u64> = loaded.segments.iter().map(|segment| segment.key()).collect();
        for key in keys {
            self.dir.files().forget(key);
        }
        self.pending_epoch = pending;
        self.content = Content::Cold(oldest);
    }

    /// Gives back the memory of the active segment's index and its file, and of a log that was only read since a clean
    /// stop all of it; they are read again when needed.
    ///
    /// # Errors
    /// If the index could not be written out.
    pub fn release_memory(&mut self) -> Result<(), DiskError> {
        self.is_warm = false;
        let (dir, path) = (self.dir.clone(), self.path.clone());
        let place = Place { dir: &dir, path: &path };
        let Some(loaded) = self.loaded_mut() else { return Ok(()) };
        if let Some(active) = loaded.segments.last_mut() {
            active.release(place)?;
        }
        self.cool();
        Ok(())
    }

    /// Its topic is deleted: nothing can be read or written any more. Returns the directory, if there is
    /// one, for [`crate::log_manager`] to rename and remove.
    pub(crate) fn mark_deleted(&mut self) -> Option<PathBuf> {
        let path = self.is_on_disk().then(|| self.path.to_path_buf());
        // Before the directory's name may become that of another topic's log: what was planned to be read or
        // synced here must not be done there.
        self.truncations.fetch_add(1, Ordering::AcqRel);
        self.forget_tail();
        if let Some(loaded) = self.loaded() {
            loaded.epoch_file.mark_deleted();
            for segment in loaded.segments.iter() {
                self.dir.files().forget(segment.key());
            }
        }
        self.sub_unflushed(u64::MAX);
        self.dir.note_offsets_moved();
        self.content = Content::Deleted;
        path
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        self.forget_tail();
        self.sub_unflushed(u64::MAX);
    }
}
