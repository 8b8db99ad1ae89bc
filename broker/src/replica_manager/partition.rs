//! One partition as its broker hosts it: the replication state and the log under one short lock, and the snapshot that
//! readers and waiters look at without it (DESIGN D6). The log has a lock of its own, for the background work of its
//! manager; it is always taken second.
//!
//! Invariants
//! - Role, leader epoch, append and truncation change under the one lock, and the snapshot is published before the lock
//!   is dropped, so snapshots are published in the order of the changes.
//! - The high watermark never passes the durable end: the flushed end where `flush.messages=1`, the log end elsewhere
//!   (DESIGN D7).

use super::PartitionKey;
use super::append::{Appended, ProduceError};
use super::loading::Loading;
use super::read::{FetchIsolation, ListedOffset, OffsetSpec, ReadError};
use super::ready_set::Watchers;
use crate::config::TopicConfig;
use crate::fetch_session::FetchPosition;
use replication::partition::acks::{AwaitedAppend, LeaderSnapshot, RequiredAcks};
use replication::partition::leader::{
    Leader, LeaderAction, LeaderConfig, LeaderLog, LeaderMetadata,
};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, RwLock};
use std::time::Duration;
use storage::flush::FlushScope;
use storage::instant::Instant;
use storage::leader_epoch::{EpochEndOffset, LeaderEpoch};
use storage::log::{
    Log, LogConfig, LogError, OffsetSnapshot, ReadError as LogReadError, ReadPlan, TimestampLookup,
};
use storage::log_dir::DiskError;
use storage::log_manager::SharedLog;
use storage::log_validator::{AppendOrigin, ValidatedBatch, ValidationConfig};
use storage::offset::Offset;
use storage::producer_state::ProducerEntry;
use storage::timestamp::Timestamp;

/// What is published of a partition. Copied out, never held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartitionSnapshot {
    /// How this broker leads; `None` when it does not.
    pub leader: Option<LeaderSnapshot>,
    /// Log start, high watermark, last stable and log end, read together.
    pub offsets: OffsetSnapshot,
    /// Bytes ever made visible by this process; only differences mean anything.
    pub visible_bytes: u64,
    /// The log directory failed while records waited for its fsync.
    pub is_offline: bool,
}

impl PartitionSnapshot {
    /// The epoch under which this broker leads.
    pub fn leader_epoch(&self) -> Option<LeaderEpoch> {
        self.leader.map(|leader| leader.leader_epoch)
    }
}

/// Now, in both of the shell's clocks.
#[derive(Debug, Clone, Copy)]
pub struct Now {
    /// For deadlines.
    pub at: Instant,
    /// For records.
    pub wall: Timestamp,
}

/// What an append under the lock came to.
#[derive(Debug, Clone, Copy)]
pub struct AppendOutcome {
    /// For the answer.
    pub appended: Appended,
    /// What it must still wait for; `None` for acks=0.
    pub awaited: Option<AwaitedAppend>,
    /// A flush is owed.
    pub needs_flush: bool,
    /// What waits for an acknowledgement may have it now: the high watermark moved, or the end that the leader counts.
    pub acknowledges: bool,
}

/// What a fetch may read of this partition, decided under the lock.
#[derive(Debug)]
pub struct PlannedRead {
    /// Published when it was decided.
    pub snapshot: PartitionSnapshot,
    /// What to read; `None` when there is nothing below the bound.
    pub records: Option<ReadPlan>,
    /// Where the reader's log and ours part.
    pub diverging_epoch: Option<EpochEndOffset>,
}

/// Why records could not be deleted.
#[derive(Debug, thiserror::Error)]
pub enum DeleteRecordsError {
    /// Only the broker writes and deletes these.
    #[error("records of an internal topic cannot be deleted")]
    InternalTopic,
    /// Beyond the high watermark.
    #[error("offset {offset} is not between the log start offset and the high watermark")]
    OutOfRange {
        /// In the request.
        offset: i64,
    },
    /// Not ours.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The disk.
    #[error(transparent)]
    Log(#[from] LogError),
}

/// `replica.lag.time.max.ms`, Kafka's default; a single replica has nobody who could lag.
const REPLICA_LAG_MAX: Duration = Duration::from_secs(30);
/// Pause before an ISR proposal that found no controller is sent again.
const PROPOSAL_BACKOFF: Duration = Duration::from_millis(500);

/// Everything that changes together.
#[derive(Debug)]
struct PartitionState {
    log: SharedLog,
    leader: Option<Leader>,
    flushes_each_message: bool,
    /// Ends of batches appended but not yet visible, with the bytes appended up to them.
    invisible: VecDeque<(Offset, u64)>,
    appended_bytes: u64,
    visible_bytes: u64,
    is_offline: bool,
}

/// A partition that this broker hosts.
#[derive(Debug)]
pub struct Partition {
    key: PartitionKey,
    topic: Arc<str>,
    state: Mutex<PartitionState>,
    published: Mutex<PartitionSnapshot>,
    validation: RwLock<Arc<ValidationConfig>>,
    watchers: Watchers,
    loading: Loading,
}

impl Partition {
    /// Hosts `log`, leading nothing yet.
    pub fn new(
        key: PartitionKey,
        topic: Arc<str>,
        log: SharedLog,
        config: &TopicConfig,
    ) -> Partition {
        let validation = RwLock::new(Arc::new(config.validation_config()));
        let flushes_each_message = config.flush_messages <= 1;
        let state = PartitionState {
            log,
            leader: None,
            flushes_each_message,
            invisible: VecDeque::new(),
            appended_bytes: 0,
            visible_bytes: 0,
            is_offline: false,
        };
        let offsets = state.log.lock().expect("no panic is survived").offsets();
        let published = Mutex::new(state.snapshot(offsets));
        let (watchers, loading) = Default::default();
        Partition { key, topic, state: Mutex::new(state), published, validation, watchers, loading }
    }

    /// Its topic id and index.
    pub fn key(&self) -> PartitionKey {
        self.key
    }

    /// Its topic's name.
    pub fn topic(&self) -> &Arc<str> {
        &self.topic
    }

    /// Its index.
    pub fn index(&self) -> i32 {
        self.key.partition
    }

    /// The fetches that are told when it moves.
    pub fn watchers(&self) -> &Watchers {
        &self.watchers
    }

    /// What was published last.
    pub fn snapshot(&self) -> PartitionSnapshot {
        *self.published.lock().expect("no panic is survived")
    }

    /// What records are checked against; taken before the lock.
    pub fn validation_config(&self) -> Arc<ValidationConfig> {
        Arc::clone(&self.validation.read().expect("no panic is survived"))
    }

    fn lock(&self) -> MutexGuard<'_, PartitionState> {
        self.state.lock().expect("no panic is survived")
    }

    /// Changes the state and the log, and publishes what came of it before the locks are dropped.
    fn change<T>(&self, change: impl FnOnce(&mut PartitionState, &mut Log) -> T) -> T {
        let mut state = self.lock();
        let shared = Arc::clone(&state.log);
        let mut log = shared.lock().expect("no panic is survived");
        let result = change(&mut state, &mut log);
        *self.published.lock().expect("no panic is survived") = state.snapshot(log.offsets());
        result
    }

    /// As [`Partition::change`], where `change` may read the log's directory: nobody who must not wait comes to stand behind it.
    fn change_loaded<T>(&self, change: impl FnOnce(&mut PartitionState, &mut Log) -> T) -> T {
        let is_cold = self.change(|_, log| log.is_cold());
        let _loading = is_cold.then(|| self.loading.begin());
        self.change(change)
    }

    /// Takes in what an image says of a partition that this broker leads: a new leader epoch starts at the log end, the
    /// same one only learns. Writes nothing: directory and files appear at the first append.
    pub fn lead(&self, metadata: LeaderMetadata, at: Instant) {
        self.change(|state, log| {
            match &mut state.leader {
                Some(leader) if leader.leader_epoch() == metadata.leader_epoch => {
                    leader.handle_metadata(&metadata, at);
                }
                _ => {
                    let offsets = log.offsets();
                    log.assign_epoch_start(metadata.leader_epoch);
                    let config = LeaderConfig {
                        replica_lag_max: REPLICA_LAG_MAX,
                        proposal_backoff: PROPOSAL_BACKOFF,
                        flushes_each_message: state.flushes_each_message,
                    };
                    let leader_log = LeaderLog {
                        high_watermark: offsets.high_watermark,
                        log_end: offsets.log_end,
                        flushed_end: offsets.flushed_end,
                    };
                    state.leader = Some(Leader::new(metadata, leader_log, config, at));
                }
            }
            state.take_actions(log);
        });
    }

    /// Stops leading; waiting produces and fetches see it in the snapshot.
    pub fn resign(&self) {
        self.change(|state, _| state.leader = None);
    }

    /// Takes a new configuration; it holds from the next append on.
    pub fn set_config(&self, config: &TopicConfig, log_config: Arc<LogConfig>, at: Instant) {
        *self.validation.write().expect("no panic is survived") =
            Arc::new(config.validation_config());
        self.change(|state, log| {
            state.flushes_each_message = log_config.flushes_each_message();
            log.set_config(log_config);
            if let Some(leader) = &mut state.leader {
                leader.handle_flush_config(state.flushes_each_message, at);
            }
            state.take_actions(log);
        });
    }

    /// Appends one validated batch as the leader (rows 10 to 12, 24 and 25 of kafka-facts §4.1).
    ///
    /// # Errors
    /// [`ProduceError`]; nothing was written then.
    pub fn append_as_leader(
        &self,
        batch: ValidatedBatch,
        acks: Option<RequiredAcks>,
        now: Now,
    ) -> Result<AppendOutcome, ProduceError> {
        self.change(|state, log| state.append_as_leader(log, batch, acks, now))
    }

    /// What a reader at `position` may read. Waits for the disk only if it `waits`.
    ///
    /// # Errors
    /// Not led here, wrong epoch, offset out of range; not in memory, where it was not to wait.
    pub fn plan_read(
        &self,
        position: &FetchPosition,
        isolation: FetchIsolation,
        waits: bool,
        now: Timestamp,
    ) -> Result<PlannedRead, ReadError> {
        let plan = |state: &mut PartitionState, log: &mut Log| {
            state.check_leader_epoch(position.current_leader_epoch)?;
            let snapshot = state.snapshot(log.offsets());
            // A cold log is asked for its ends only, as long as nothing else is wanted.
            let needs_disk = !waits && log.is_cold();
            if needs_disk && LeaderEpoch::new(position.last_fetched_epoch).is_some() {
                return Err(ReadError::Log(LogReadError::NotInMemory));
            }
            let diverging_epoch = diverging_epoch(log, position, now)?;
            if diverging_epoch.is_some() {
                return Ok(PlannedRead { snapshot, records: None, diverging_epoch });
            }
            let out_of_range = ReadError::OutOfRange { offset: position.fetch_offset };
            let from = Offset::new(position.fetch_offset).ok_or(out_of_range.clone())?;
            if from < snapshot.offsets.log_start || from > snapshot.offsets.log_end {
                return Err(out_of_range);
            }
            let upper_bound = isolation.upper_bound(&snapshot.offsets);
            let records = if from < upper_bound {
                if needs_disk {
                    return Err(ReadError::Log(LogReadError::NotInMemory));
                }
                let plan = log.read_plan(from, upper_bound, now).map_err(ReadError::from_log)?;
                Some(if waits { plan } else { plan.in_memory() })
            } else {
                log.note_follower();
                None
            };
            Ok(PlannedRead { snapshot, records, diverging_epoch: None })
        };
        if waits {
            return self.change_loaded(plan);
        }
        if self.loading.is_under_way() {
            return Err(ReadError::Log(LogReadError::NotInMemory));
        }
        self.change(plan)
    }

    /// Aborted transactions that overlap `[from, upper)`, as (producer id, first offset). May name too many: a
    /// consumer drops only what it meets.
    ///
    /// # Errors
    /// The disk.
    pub fn aborted_transactions(
        &self,
        from: Offset,
        upper: Offset,
        now: Timestamp,
    ) -> Result<Vec<(i64, i64)>, ReadError> {
        let aborted = self.change(|_, log| log.aborted_transactions(from, upper, now));
        Ok(aborted
            .map_err(ReadError::from_log)?
            .into_iter()
            .map(|aborted| (aborted.producer_id.value(), aborted.first_offset.value()))
            .collect())
    }

    /// Checks the epoch a request believes in; −1 is not checked.
    ///
    /// # Errors
    /// Not led here, or another epoch.
    pub fn check_leader_epoch(&self, asked: i32) -> Result<(), ReadError> {
        self.lock().check_leader_epoch(asked).map(|_| ())
    }

    /// The same for ListOffsets and OffsetForLeaderEpoch, where only −1 stands for "do not check" and any other negative
    /// epoch is an old one.
    ///
    /// # Errors
    /// As [`Partition::check_leader_epoch`].
    pub fn check_leader_epoch_or_none(&self, asked: i32) -> Result<(), ReadError> {
        let current = self.lock().check_leader_epoch(asked)?;
        if asked < -1 { Err(ReadError::FencedLeaderEpoch { asked, current }) } else { Ok(()) }
    }

    /// The last epoch at or below `epoch` and its end, as OffsetForLeaderEpoch answers it.
    ///
    /// # Errors
    /// The disk.
    pub fn end_offset_for_epoch(
        &self,
        epoch: LeaderEpoch,
        now: Timestamp,
    ) -> Result<Option<EpochEndOffset>, ReadError> {
        self.change_loaded(|_, log| log.end_offset_for_epoch(epoch, now))
            .map_err(ReadError::from_log)
    }

    /// Whether looking an offset up may have to wait for the disk.
    pub fn list_offset_needs_disk(&self, spec: OffsetSpec) -> bool {
        match spec {
            _ if self.loading.is_under_way() => true,
            OffsetSpec::MaxTimestamp | OffsetSpec::Timestamp(_) => true,
            // The epoch that belongs to the log start is in a cold log's directory.
            OffsetSpec::Earliest => {
                self.change(|_, log| !log.knows_epoch_for(log.offsets().log_start))
            }
            OffsetSpec::Latest | OffsetSpec::LatestTiered => false,
        }
    }

    /// Looks an offset up.
    ///
    /// # Errors
    /// Not led here, or the disk.
    pub fn list_offset(
        &self,
        spec: OffsetSpec,
        isolation: FetchIsolation,
        now: Timestamp,
    ) -> Result<Option<ListedOffset>, ReadError> {
        let (lookup, target) = {
            let looked = self.change_loaded(|state, log| -> Result<_, ReadError> {
                let current_epoch = state.check_leader_epoch(-1)?;
                let offsets = log.offsets();
                let upper_bound = isolation.upper_bound(&offsets);
                let at = |offset, leader_epoch| {
                    Ok(Looked::Found(ListedOffset { timestamp: None, offset, leader_epoch }))
                };
                let lookup = match spec {
                    OffsetSpec::Earliest => {
                        let offset = offsets.log_start;
                        let epoch =
                            log.epoch_for_offset(offset, now).map_err(ReadError::from_log)?;
                        return at(offset, epoch);
                    }
                    OffsetSpec::Latest if state.knows_what_is_committed() => {
                        return at(upper_bound, Some(current_epoch));
                    }
                    OffsetSpec::Latest => return Err(ReadError::OffsetNotAvailable),
                    OffsetSpec::LatestTiered => return Ok(Looked::Nothing),
                    OffsetSpec::MaxTimestamp => (upper_bound, None),
                    OffsetSpec::Timestamp(target) => (upper_bound, Some(target)),
                };
                let (upper_bound, target) = lookup;
                let lookup = log.timestamp_lookup(upper_bound, now).map_err(ReadError::from_log)?;
                Ok(Looked::ByTime(lookup, target))
            });
            match looked? {
                Looked::Found(found) => return Ok(Some(found)),
                Looked::Nothing => return Ok(None),
                Looked::ByTime(lookup, target) => (lookup, target),
            }
        };
        // Reads the disk, so it is done without the lock.
        let found = match target {
            None => lookup.max(),
            Some(target) => lookup.first_at_or_after(target),
        };
        Ok(found.map_err(ReadError::from_log)?.map(|found| ListedOffset {
            timestamp: Some(found.timestamp),
            offset: found.offset,
            leader_epoch: found.leader_epoch,
        }))
    }

    /// Moves the log start offset to `before`, or to the high watermark. Returns the new log start offset.
    ///
    /// # Errors
    /// Not led here, beyond the high watermark, or the disk.
    pub fn delete_records(
        &self,
        before: Option<Offset>,
        now: Timestamp,
    ) -> Result<Offset, DeleteRecordsError> {
        self.change(|state, log| {
            state.check_leader_epoch(-1)?;
            let high_watermark = log.offsets().high_watermark;
            let before = before.unwrap_or(high_watermark);
            if before > high_watermark {
                return Err(DeleteRecordsError::OutOfRange { offset: before.value() });
            }
            log.delete_records(before, now)?;
            Ok(log.offsets().log_start)
        })
    }

    /// The producers that the log remembers.
    ///
    /// # Errors
    /// The disk.
    pub fn active_producers(&self, now: Timestamp) -> Result<Vec<ProducerEntry>, ReadError> {
        self.change(|_, log| log.producers(now)).map_err(ReadError::from_log)
    }

    /// Bytes on disk, and records between high watermark and log end.
    pub fn size_and_lag(&self) -> (u64, u64) {
        self.change(|_, log| {
            let offsets = log.offsets();
            let lag = offsets.log_end.delta_from(offsets.high_watermark).unwrap_or(0);
            (log.size_bytes(), lag)
        })
    }

    /// Runs one flush of records: the ticket is taken and the outcome noted under the lock, the fsync is not.
    ///
    /// # Errors
    /// The log directory is offline from now on; or there was no descriptor for what is to be synced, which the next flush
    /// makes good.
    pub fn flush(&self, at: Instant) -> Result<(), DiskError> {
        let ticket = self.change(|state, log| {
            let ticket = log.flush_ticket(FlushScope::Records)?;
            if ticket.is_none() {
                // The log's manager was first, and tells of it only when it is done with all its logs.
                state.note_offsets(log, at);
            }
            Ok::<_, DiskError>(ticket)
        })?;
        let Some(ticket) = ticket else { return Ok(()) };
        let outcome = ticket.run();
        self.change(|state, log| {
            let completed = log.flush_completed(outcome).map(|_| ());
            state.is_offline |= matches!(completed, Err(DiskError::Offline { .. }));
            state.note_offsets(log, at);
            completed
        })
    }

    /// The log's manager has moved offsets in the background: takes them in.
    pub fn note_log_moved(&self, at: Instant) {
        self.change(|state, log| state.note_offsets(log, at));
    }
}

/// What looking an offset up under the lock came to.
enum Looked {
    Found(ListedOffset),
    Nothing,
    ByTime(TimestampLookup, Option<Timestamp>),
}

impl std::fmt::Display for Partition {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}-{}", self.topic, self.key.partition)
    }
}

impl PartitionState {
    fn snapshot(&self, offsets: OffsetSnapshot) -> PartitionSnapshot {
        PartitionSnapshot {
            leader: self.leader.as_ref().map(Leader::snapshot),
            offsets,
            visible_bytes: self.visible_bytes,
            is_offline: self.is_offline,
        }
    }

    /// −1 is not checked. Returns our epoch.
    fn check_leader_epoch(&self, asked: i32) -> Result<LeaderEpoch, ReadError> {
        let Some(leader) = &self.leader else {
            return Err(ReadError::NotLeader { current_leader: None });
        };
        let current = leader.leader_epoch();
        match asked {
            ..0 => Ok(current),
            asked if asked < current.value() => {
                Err(ReadError::FencedLeaderEpoch { asked, current })
            }
            asked if asked > current.value() => Err(ReadError::UnknownLeaderEpoch { asked }),
            _ => Ok(current),
        }
    }

    /// KIP-207: a new leader's high watermark may lag behind what was shown until it reaches the epoch's start.
    fn knows_what_is_committed(&self) -> bool {
        self.leader.as_ref().is_some_and(|leader| {
            let snapshot = leader.snapshot();
            snapshot.high_watermark >= snapshot.epoch_start
        })
    }

    fn append_as_leader(
        &mut self,
        log: &mut Log,
        batch: ValidatedBatch,
        acks: Option<RequiredAcks>,
        now: Now,
    ) -> Result<AppendOutcome, ProduceError> {
        let Some(leader) = &mut self.leader else {
            return Err(ProduceError::NotLeader { current_leader: None });
        };
        let before = leader.snapshot();
        if let Some(acks) = acks {
            acks.admit(&before)?;
        }
        let leader_epoch = leader.leader_epoch();
        let info = log
            .append_as_leader(batch, AppendOrigin::Client, leader_epoch, now.wall)
            .map_err(Arc::new)?;
        let required = info.last_offset.next();
        if !info.duplicate {
            self.appended_bytes += info.bytes as u64;
            self.invisible.push_back((required, self.appended_bytes));
        }
        self.note_offsets(log, now.at);
        let after = self.leader.as_ref().map(Leader::snapshot);
        Ok(AppendOutcome {
            appended: Appended {
                base_offset: info.base_offset,
                log_append_time: info.log_append_time,
                log_start_offset: info.log_start_offset,
            },
            awaited: acks.map(|acks| AwaitedAppend { leader_epoch, required, acks }),
            needs_flush: info.flush_needed || log.offsets().durable_end < required,
            acknowledges: after.is_none_or(|after| {
                after.high_watermark > before.high_watermark
                    || after.counted_end > before.counted_end
            }),
        })
    }

    /// The log's ends may have moved: the leader may move the high watermark.
    fn note_offsets(&mut self, log: &mut Log, at: Instant) {
        let offsets = log.offsets();
        if let Some(leader) = &mut self.leader {
            leader.handle_append(offsets.log_end, at);
            leader.handle_flushed(offsets.flushed_end, at);
        }
        self.take_actions(log);
    }

    fn take_actions(&mut self, log: &mut Log) {
        let Some(leader) = &mut self.leader else { return };
        while let Some(action) = leader.poll_action() {
            match action {
                LeaderAction::AdvanceHighWatermark(high_watermark) => {
                    log.update_high_watermark(high_watermark);
                    while let Some(&(end, bytes)) = self.invisible.front()
                        && end <= high_watermark
                    {
                        self.visible_bytes = bytes;
                        self.invisible.pop_front();
                    }
                }
                // A single replica has nobody to add or remove.
                LeaderAction::ProposeIsr(_) => {}
            }
        }
    }
}

/// KIP-595: a reader whose last epoch we do not know, or that ended earlier here, must truncate.
fn diverging_epoch(
    log: &mut Log,
    position: &FetchPosition,
    now: Timestamp,
) -> Result<Option<EpochEndOffset>, ReadError> {
    let Some(last_fetched) = LeaderEpoch::new(position.last_fetched_epoch) else {
        return Ok(None);
    };
    let out_of_range = ReadError::OutOfRange { offset: position.fetch_offset };
    let end = log
        .end_offset_for_epoch(last_fetched, now)
        .map_err(ReadError::from_log)?
        .ok_or(out_of_range)?;
    let parts = end.epoch < last_fetched || end.end_offset.value() < position.fetch_offset;
    Ok(parts.then_some(end))
}
