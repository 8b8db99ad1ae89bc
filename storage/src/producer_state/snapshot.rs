//! `N.snapshot`: the producers as of offset N, exclusive, in Kafka's file format (`ProducerSnapshot.json`).
//!
//! Big-endian: i16 version (1), u32 CRC-32C of everything after it, i32 count, then for each producer
//! 46 bytes:
//!
//! | at | size | field |
//! |---|---|---|
//! | 0 | 8 | producer id |
//! | 8 | 2 | producer epoch |
//! | 10 | 4 | last sequence, -1 none |
//! | 14 | 8 | last offset, -1 none |
//! | 22 | 4 | offset delta of the last batch |
//! | 26 | 8 | last timestamp, -1 none |
//! | 34 | 4 | coordinator epoch, -1 none |
//! | 38 | 8 | first offset of the open transaction, -1 none |

use super::{BatchMetadata, ProducerEntry, ProducerEpoch, ProducerId, ProducerStateManager};
use crate::crc32c::crc32c;
use crate::offset::Offset;
use crate::timestamp::Timestamp;

/// The version we write and read.
pub const SNAPSHOT_VERSION: i16 = 1;
const HEAD_BYTES: usize = 10;
const ENTRY_BYTES: usize = 46;

/// Why bytes are no snapshot: delete the file and take the next older one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SnapshotError {
    /// Not as long as it says.
    #[error("{size_bytes} bytes do not hold the producers announced")]
    WrongSize {
        /// Its size.
        size_bytes: usize,
    },
    /// Another version.
    #[error("snapshot has version {version}, known is 1")]
    UnknownVersion {
        /// What it says.
        version: i16,
    },
    /// The bytes are not those that were written.
    #[error("snapshot fails its CRC-32C")]
    WrongCrc,
    /// A number out of its range, or a producer twice.
    #[error("entry {entry} of the snapshot is impossible")]
    OutOfRange {
        /// Number of the entry, from 0.
        entry: usize,
    },
}

impl ProducerStateManager {
    /// The bytes of a snapshot as of now: the log's end is the N of its name.
    pub fn to_snapshot(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEAD_BYTES + self.producers.len() * ENTRY_BYTES);
        bytes.extend_from_slice(&SNAPSHOT_VERSION.to_be_bytes());
        bytes.extend_from_slice(&[0; 4]);
        let count = i32::try_from(self.producers.len()).expect("2^31 producers need 500 GB");
        bytes.extend_from_slice(&count.to_be_bytes());
        for entry in self.producers.values() {
            write_entry(entry, &mut bytes);
        }
        let crc = crc32c(&bytes[6..]);
        bytes[2..6].copy_from_slice(&crc.to_be_bytes());
        bytes
    }

    /// The snapshot to write as a segment is rolled.
    pub fn snapshot_at_roll(&mut self) -> Vec<u8> {
        // Planted bug 8: the roll starts with a state of its own.
        fail::fail_point!("bug-8-duplicate-window-lost-on-roll", |_| {
            self.clear();
            self.to_snapshot()
        });
        self.to_snapshot()
    }

    /// The state in a snapshot taken at `snapshot_offset` (the N of its name), without the producers that
    /// have expired by `now`. Each has its last batch only: see [`super::WindowRefill`].
    ///
    /// # Errors
    /// If any of it is not as it was written.
    pub fn from_snapshot(
        bytes: &[u8],
        snapshot_offset: Offset,
        now: Timestamp,
        expiration_ms: i64,
    ) -> Result<ProducerStateManager, SnapshotError> {
        // Planted bug 7: a restart starts with no producer.
        fail::fail_point!("bug-7-duplicate-window-lost-on-restart", |_| {
            Ok(ProducerStateManager::new())
        });
        let wrong_size = SnapshotError::WrongSize { size_bytes: bytes.len() };
        let (version, rest) = bytes.split_first_chunk::<2>().ok_or(wrong_size)?;
        let version = i16::from_be_bytes(*version);
        if version != SNAPSHOT_VERSION {
            return Err(SnapshotError::UnknownVersion { version });
        }
        let (crc, summed) = rest.split_first_chunk::<4>().ok_or(wrong_size)?;
        if u32::from_be_bytes(*crc) != crc32c(summed) {
            return Err(SnapshotError::WrongCrc);
        }
        let (count, entries) = summed.split_first_chunk::<4>().ok_or(wrong_size)?;
        let (entries, rest) = entries.as_chunks::<ENTRY_BYTES>();
        let announced = usize::try_from(i32::from_be_bytes(*count)).map_err(|_| wrong_size)?;
        if announced != entries.len() || !rest.is_empty() {
            return Err(wrong_size);
        }

        let mut state = ProducerStateManager::new();
        for (number, bytes) in entries.iter().enumerate() {
            let out_of_range = SnapshotError::OutOfRange { entry: number };
            let entry = read_entry(bytes, snapshot_offset).ok_or(out_of_range)?;
            if entry.is_expired(now, expiration_ms) {
                continue;
            }
            if let Some(first_offset) = entry.current_txn_first_offset
                && state.ongoing.insert(first_offset, entry.producer_id).is_some()
            {
                return Err(out_of_range);
            }
            if state.producers.insert(entry.producer_id, entry).is_some() {
                return Err(out_of_range);
            }
        }
        Ok(state)
    }
}

fn write_entry(entry: &ProducerEntry, bytes: &mut Vec<u8>) {
    let last = entry.batches.last();
    bytes.extend_from_slice(&entry.producer_id.value().to_be_bytes());
    bytes.extend_from_slice(&entry.epoch.value().to_be_bytes());
    bytes.extend_from_slice(&last.map_or(-1, |batch| batch.last_sequence).to_be_bytes());
    bytes.extend_from_slice(&last.map_or(-1, |batch| batch.last_offset.value()).to_be_bytes());
    bytes.extend_from_slice(&last.map_or(0, |batch| batch.offset_delta).to_be_bytes());
    bytes.extend_from_slice(&Timestamp::to_wire(entry.last_timestamp).to_be_bytes());
    bytes.extend_from_slice(&entry.coordinator_epoch.unwrap_or(-1).to_be_bytes());
    let first = entry.current_txn_first_offset.map_or(-1, Offset::value);
    bytes.extend_from_slice(&first.to_be_bytes());
}

fn read_entry(bytes: &[u8; ENTRY_BYTES], snapshot_offset: Offset) -> Option<ProducerEntry> {
    let i32_at = |at: usize| bytes[at..].first_chunk().map(|value| i32::from_be_bytes(*value));
    let i64_at = |at: usize| bytes[at..].first_chunk().map(|value| i64::from_be_bytes(*value));
    let epoch = i16::from_be_bytes([bytes[8], bytes[9]]);
    let mut entry = ProducerEntry::new(ProducerId::new(i64_at(0)?)?, ProducerEpoch::new(epoch)?);
    let (last_sequence, offset_delta) = (i32_at(10)?, i32_at(22)?);
    entry.last_timestamp = Timestamp::new(i64_at(26)?);
    entry.coordinator_epoch = Some(i32_at(34)?).filter(|epoch| *epoch >= 0);
    entry.current_txn_first_offset = Offset::new(i64_at(38)?);
    if let Some(last_offset) = Offset::new(i64_at(14)?) {
        let is_possible = last_sequence >= 0
            && offset_delta >= 0
            && i64::from(offset_delta) <= last_offset.value()
            && last_offset < snapshot_offset;
        if !is_possible {
            return None;
        }
        let timestamp = entry.last_timestamp;
        entry.batches.push(BatchMetadata { last_sequence, last_offset, offset_delta, timestamp });
    }
    if entry.current_txn_first_offset.is_some_and(|first| first >= snapshot_offset) {
        return None;
    }
    Some(entry)
}
