//! What is known of one producer (`ProducerStateEntry.java`).

use super::{ProducerEpoch, ProducerId};
use crate::offset::Offset;
use crate::record_batch::{BatchHeader, BatchProducer, BatchSequences};
use crate::timestamp::Timestamp;

/// Batches remembered for each producer: clients send at most five before an answer.
pub const MAX_CACHED_BATCHES: usize = 5;

/// What a retry is recognised by, and answered with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchMetadata {
    /// Sequence number of its last record.
    pub last_sequence: i32,
    /// Offset of its last record, inclusive.
    pub last_offset: Offset,
    /// Last offset less base offset; also last sequence less first.
    pub offset_delta: i32,
    /// Its greatest timestamp: the time of the append where the topic has LogAppendTime.
    pub timestamp: Option<Timestamp>,
}

impl BatchMetadata {
    pub(super) fn of(header: &BatchHeader, last_sequence: i32) -> BatchMetadata {
        BatchMetadata {
            last_sequence,
            last_offset: header.last_offset(),
            offset_delta: header.last_offset_delta(),
            timestamp: header.max_timestamp(),
        }
    }

    /// Sequence number of its first record.
    pub fn first_sequence(&self) -> i32 {
        // Backwards past 0 comes 2^31 - 1.
        self.last_sequence.wrapping_sub(self.offset_delta) & i32::MAX
    }

    /// Offset of its first record.
    pub fn base_offset(&self) -> Offset {
        Offset::new(self.last_offset.value() - i64::from(self.offset_delta))
            .expect("checked where it enters: a batch's delta is at most its last offset")
    }

    fn has(&self, sequences: BatchSequences) -> bool {
        self.first_sequence() == sequences.first && self.last_sequence == sequences.last
    }
}

/// One producer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProducerEntry {
    pub(super) producer_id: ProducerId,
    pub(super) epoch: ProducerEpoch,
    /// Its last batches of this epoch, oldest first; at most [`MAX_CACHED_BATCHES`].
    pub(super) batches: Vec<BatchMetadata>,
    pub(super) last_timestamp: Option<Timestamp>,
    pub(super) coordinator_epoch: Option<i32>,
    pub(super) current_txn_first_offset: Option<Offset>,
}

impl ProducerEntry {
    pub(super) fn new(producer_id: ProducerId, epoch: ProducerEpoch) -> ProducerEntry {
        ProducerEntry {
            producer_id,
            epoch,
            batches: Vec::new(),
            last_timestamp: None,
            coordinator_epoch: None,
            current_txn_first_offset: None,
        }
    }

    /// The producer.
    pub fn producer_id(&self) -> ProducerId {
        self.producer_id
    }

    /// Its latest epoch.
    pub fn epoch(&self) -> ProducerEpoch {
        self.epoch
    }

    /// Its last batches of this epoch, oldest first.
    pub fn batches(&self) -> &[BatchMetadata] {
        &self.batches
    }

    /// Its last sequence number; `None` if nothing of this epoch but a marker was written.
    pub fn last_sequence(&self) -> Option<i32> {
        self.batches.last().map(|batch| batch.last_sequence)
    }

    /// Timestamp of its last batch or marker.
    pub fn last_timestamp(&self) -> Option<Timestamp> {
        self.last_timestamp
    }

    /// Epoch of the coordinator that wrote its last marker.
    pub fn coordinator_epoch(&self) -> Option<i32> {
        self.coordinator_epoch
    }

    /// First offset of its open transaction.
    pub fn current_txn_first_offset(&self) -> Option<Offset> {
        self.current_txn_first_offset
    }

    /// The remembered batch with exactly these sequence numbers.
    pub(super) fn find_duplicate(
        &self,
        epoch: ProducerEpoch,
        sequences: BatchSequences,
    ) -> Option<&BatchMetadata> {
        let same_epoch = epoch == self.epoch;
        self.batches.iter().filter(|_| same_epoch).find(|batch| batch.has(sequences))
    }

    /// Another epoch starts its sequences anew.
    pub(super) fn set_epoch(&mut self, epoch: ProducerEpoch) {
        if epoch != self.epoch {
            self.epoch = epoch;
            self.batches.clear();
        }
    }

    pub(super) fn add_batch(&mut self, header: &BatchHeader, producer: BatchProducer) {
        self.set_epoch(producer.epoch);
        if let Some(sequences) = producer.sequences {
            if self.batches.len() == MAX_CACHED_BATCHES {
                self.batches.remove(0);
            }
            self.batches.push(BatchMetadata::of(header, sequences.last));
        }
        self.last_timestamp = header.max_timestamp();
    }

    pub(super) fn is_expired(&self, now: Timestamp, expiration_ms: i64) -> bool {
        let last = Timestamp::to_wire(self.last_timestamp);
        // Both fit: now >= 0 and last >= -1.
        self.current_txn_first_offset.is_none() && now.value().saturating_sub(last) >= expiration_ms
    }
}
