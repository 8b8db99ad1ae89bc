//! Flow 2, the middle of it: reading partitions for a fetch, and waiting for more.
//!
//! Consumers read below the high watermark, with read_committed below the last stable offset. The log's lock is held
//! for a look at memory only; files are read after it is dropped.

use super::partition::{PartitionSnapshot, PlannedRead};
use super::ready_set::ReadySet;
use super::{NotHosted, PartitionKey, ReplicaManager};
use crate::api::error_code::ToErrorCode;
use crate::fetch_session::{FetchPosition, PartitionOutcome};
use kafka_protocol::ResponseError;
use replication::identity::BrokerId;
use std::sync::Arc;
use storage::leader_epoch::{EpochEndOffset, LeaderEpoch};
use storage::log::{FetchedRecords, OffsetSnapshot, ReadError as LogReadError};
use storage::offset::Offset;
use storage::timestamp::Timestamp;

/// How often a read is planned anew because a truncation or deletion has overtaken it. More than that, and a file is gone
/// that nobody here has deleted.
const MAX_PLANS: u32 = 16;

/// How far a consumer may read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FetchIsolation {
    /// read_uncommitted.
    HighWatermark,
    /// read_committed.
    LastStable,
}

impl FetchIsolation {
    /// 0 or 1 on the wire.
    pub fn from_wire(level: i8) -> Option<FetchIsolation> {
        match level {
            0 => Some(FetchIsolation::HighWatermark),
            1 => Some(FetchIsolation::LastStable),
            _ => None,
        }
    }

    /// The first offset that must not be shown.
    pub fn upper_bound(self, offsets: &OffsetSnapshot) -> Offset {
        match self {
            FetchIsolation::HighWatermark => offsets.high_watermark,
            FetchIsolation::LastStable => offsets.last_stable,
        }
    }
}

/// Limits of one fetch, over all its partitions.
#[derive(Debug, Clone, Copy)]
pub struct FetchLimits {
    /// Most bytes to answer; the first batch found may exceed it.
    pub max_bytes: usize,
    /// Fewest bytes to answer without waiting.
    pub min_bytes: usize,
}

/// One partition to read.
#[derive(Debug, Clone)]
pub struct ReadRequest {
    /// Which, or why it is not known.
    pub partition: Result<PartitionKey, ReadError>,
    /// From where.
    pub position: FetchPosition,
    /// −1 for consumers.
    pub replica_id: i32,
}

/// What a lookup of an offset asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OffsetSpec {
    /// The log start offset.
    Earliest,
    /// The high watermark, or the last stable offset.
    Latest,
    /// The record with the largest timestamp.
    MaxTimestamp,
    /// The last offset in tiered storage, which there is none of.
    LatestTiered,
    /// The first record at or after a time.
    Timestamp(Timestamp),
}

/// What a lookup found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ListedOffset {
    /// Of the record, where a record was asked for.
    pub timestamp: Option<Timestamp>,
    /// The offset.
    pub offset: Offset,
    /// Epoch of that offset.
    pub leader_epoch: Option<LeaderEpoch>,
}

/// Why a partition cannot be read.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ReadError {
    /// Not in the metadata.
    #[error("this server does not host this topic-partition")]
    UnknownTopicOrPartition,
    /// Not in the metadata.
    #[error("this server does not host this topic id")]
    UnknownTopicId,
    /// Led elsewhere, or by nobody.
    #[error("this broker does not lead the partition")]
    NotLeader {
        /// Who does, as far as we know.
        current_leader: Option<(BrokerId, LeaderEpoch)>,
    },
    /// The reader believes in an older leader.
    #[error("leader epoch {asked} is older than the current one, {current}")]
    FencedLeaderEpoch {
        /// In the request.
        asked: i32,
        /// Ours.
        current: LeaderEpoch,
    },
    /// The reader knows a newer leader than we do.
    #[error("leader epoch {asked} is newer than any known here")]
    UnknownLeaderEpoch {
        /// In the request.
        asked: i32,
    },
    /// Below the log start offset or above the log end offset.
    #[error("offset {offset} is outside the log")]
    OutOfRange {
        /// In the request.
        offset: i64,
    },
    /// −1 bytes, or a version without that timestamp: Kafka answers UNKNOWN_SERVER_ERROR and UNSUPPORTED_VERSION.
    #[error("a byte limit below zero")]
    NegativeLimit,
    /// A new leader does not know yet what was committed (KIP-207).
    #[error("the leader does not know the latest offset yet")]
    OffsetNotAvailable,
    /// A special timestamp that this version does not know.
    #[error("unknown special timestamp")]
    UnsupportedTimestamp,
    /// The log could not be read.
    #[error(transparent)]
    Log(LogReadError),
}

impl From<NotHosted> for ReadError {
    fn from(error: NotHosted) -> ReadError {
        match error {
            NotHosted::Elsewhere => ReadError::NotLeader { current_leader: None },
            NotHosted::Offline(error) => ReadError::from_log(error),
        }
    }
}

impl ReadError {
    /// Keeps the log's words.
    pub fn from_log(error: impl Into<LogReadError>) -> ReadError {
        ReadError::Log(error.into())
    }
}

/// What was read of one partition.
#[derive(Debug)]
pub struct PartitionRead {
    /// Then everything else is empty or −1.
    pub error: Option<ReadError>,
    /// −1 on error.
    pub high_watermark: i64,
    /// −1 on error.
    pub last_stable_offset: i64,
    /// −1 on error.
    pub log_start_offset: i64,
    /// (producer id, first offset); `None` for read_uncommitted.
    pub aborted_transactions: Option<Vec<(i64, i64)>>,
    /// Where the reader's log and ours part (KIP-595); then there are no records.
    pub diverging_epoch: Option<EpochEndOffset>,
    /// Record bytes, as stored.
    pub records: FetchedRecords,
    /// Nothing lay below the reader's bound: until the partition moves, or is read from elsewhere, this stays so.
    pub is_at_end: bool,
    /// What was published when it was read; `None` on error.
    pub seen: Option<PartitionSnapshot>,
}

impl PartitionRead {
    fn failed(error: ReadError) -> PartitionRead {
        // Kafka: an empty list where the partition is unknown, null where reading failed (kafka-facts §6.4).
        let is_unknown =
            matches!(error, ReadError::UnknownTopicOrPartition | ReadError::UnknownTopicId);
        PartitionRead {
            error: Some(error),
            high_watermark: -1,
            last_stable_offset: -1,
            log_start_offset: -1,
            aborted_transactions: is_unknown.then(Vec::new),
            diverging_epoch: None,
            records: FetchedRecords::default(),
            is_at_end: false,
            seen: None,
        }
    }

    /// Record bytes.
    pub fn len_bytes(&self) -> usize {
        self.records.size_bytes
    }

    /// It would have had to wait for the disk, and was not to: nobody may be answered so.
    pub fn needs_disk(&self) -> bool {
        matches!(self.error, Some(ReadError::Log(LogReadError::NotInMemory)))
    }

    /// What a fetch session must know of it.
    pub fn outcome(&self) -> PartitionOutcome {
        PartitionOutcome {
            high_watermark: self.high_watermark,
            log_start_offset: self.log_start_offset,
            has_records: self.records.size_bytes > 0,
            is_error: self.error.is_some(),
            redirects: self.diverging_epoch.is_some(),
            is_at_end: self.is_at_end,
        }
    }

    /// The error as this version of Fetch may say it.
    pub fn error_code(&self, version: i16) -> i16 {
        let Some(error) = &self.error else { return 0 };
        match error.to_error_code() {
            // Before v6 a client did not know that code.
            ResponseError::KafkaStorageError if version <= 5 => {
                ResponseError::NotLeaderOrFollower.code()
            }
            code => code.code(),
        }
    }

    /// Who leads, for a client that must look elsewhere (KIP-951).
    pub fn current_leader(&self) -> Option<(i32, i32)> {
        match &self.error {
            Some(ReadError::NotLeader { current_leader: Some((leader, epoch)) }) => {
                Some((leader.value(), epoch.value()))
            }
            _ => None,
        }
    }
}

impl ReplicaManager {
    /// Reads the partitions in order under the limits of kafka-facts §6.2: the first that has anything returns at least
    /// one whole batch. What is not in memory is waited for, or answered by [`PartitionRead::needs_disk`].
    pub fn read<'a>(
        &self,
        requests: impl IntoIterator<Item = &'a ReadRequest>,
        isolation: FetchIsolation,
        limits: FetchLimits,
        waits: bool,
    ) -> Vec<PartitionRead> {
        let mut room_bytes = limits.max_bytes;
        let mut needs_one_batch = true;
        requests
            .into_iter()
            .map(|request| {
                let read = self
                    .read_one(request, isolation, (room_bytes, needs_one_batch), waits)
                    .unwrap_or_else(PartitionRead::failed);
                room_bytes = room_bytes.saturating_sub(read.len_bytes());
                needs_one_batch &= read.len_bytes() == 0;
                read
            })
            .collect()
    }

    fn read_one(
        &self,
        request: &ReadRequest,
        isolation: FetchIsolation,
        (room_bytes, needs_one_batch): (usize, bool),
        waits: bool,
    ) -> Result<PartitionRead, ReadError> {
        let key = request.partition.clone()?;
        let position = request.position;
        let partition = self.partition(&key)?;
        if request.replica_id >= 0 {
            // No follower is assigned to us: a broker of its own has no other replicas.
            return Err(if position.current_leader_epoch >= 0 {
                ReadError::UnknownLeaderEpoch { asked: position.current_leader_epoch }
            } else {
                ReadError::NotLeader { current_leader: None }
            });
        }
        let limit = usize::try_from(position.max_bytes).map_err(|_| ReadError::NegativeLimit)?;
        let now = self.clock().wall();
        let mut plans_left = MAX_PLANS;
        loop {
            plans_left -= 1;
            let PlannedRead { snapshot, records: plan, diverging_epoch } =
                partition.plan_read(&position, isolation, waits, now)?;
            let is_at_end = plan.is_none() && diverging_epoch.is_none();
            let mut records = FetchedRecords::default();
            let mut aborted = Vec::new();
            if let Some(plan) = plan
                && (room_bytes > 0 || needs_one_batch)
            {
                records = match plan.execute(limit.min(room_bytes), needs_one_batch) {
                    Ok(records) => records,
                    // A truncation or deletion has overtaken the plan.
                    Err(LogReadError::Superseded) if plans_left > 0 => continue,
                    Err(error) => return Err(ReadError::from_log(error)),
                };
                if isolation == FetchIsolation::LastStable {
                    let from = Offset::new(position.fetch_offset).unwrap_or(Offset::ZERO);
                    aborted =
                        partition.aborted_transactions(from, snapshot.offsets.last_stable, now)?;
                }
            }
            return Ok(PartitionRead {
                error: None,
                high_watermark: snapshot.offsets.high_watermark.value(),
                last_stable_offset: snapshot.offsets.last_stable.value(),
                log_start_offset: snapshot.offsets.log_start.value(),
                aborted_transactions: (isolation == FetchIsolation::LastStable).then_some(aborted),
                diverging_epoch,
                records,
                is_at_end,
                seen: Some(snapshot),
            });
        }
    }

    /// Has the partition marked in `set` whenever it moves, if it is here. Returns what is published of it now.
    pub fn watch(
        &self,
        key: &PartitionKey,
        set: &Arc<ReadySet>,
        slot: u32,
    ) -> Option<PartitionSnapshot> {
        let partition = self.partition(key).ok()?;
        partition.watchers().watch(set, slot, partition.snapshot().visible_bytes);
        // Again: what was published in between was not marked.
        Some(partition.snapshot())
    }
}
