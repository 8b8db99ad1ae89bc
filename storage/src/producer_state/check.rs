//! Whether the leader may append a producer's batch (kafka-facts: idempotence; `ProducerAppendInfo.java`).

use super::{BatchMetadata, ProducerEntry, ProducerEpoch, ProducerId, ProducerStateManager};
use crate::log_validator::AppendOrigin;
use crate::offset::Offset;
use crate::record_batch::{BatchHeader, BatchProducer, EndTransactionMarker};
use crate::timestamp::Timestamp;

/// A batch that may be appended, or already was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SequenceCheck {
    /// Append it.
    New,
    /// A retry of a batch in the log: answer with these, append nothing.
    Duplicate {
        /// Offset of its first record.
        base_offset: Offset,
        /// Offset of its last record, inclusive.
        last_offset: Offset,
        /// Its greatest timestamp: the time of the append where the topic has LogAppendTime.
        timestamp: Option<Timestamp>,
    },
}

/// Why a producer's batch is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProducerStateError {
    /// A later incarnation of the producer has written here (INVALID_PRODUCER_EPOCH).
    #[error("producer {producer_id} has epoch {current}, the batch {found}")]
    InvalidProducerEpoch {
        /// The producer.
        producer_id: ProducerId,
        /// The batch's epoch.
        found: ProducerEpoch,
        /// The latest one known.
        current: ProducerEpoch,
    },
    /// A batch before it is missing, or it is an old one again (OUT_OF_ORDER_SEQUENCE_NUMBER).
    #[error("producer {producer_id}, epoch {epoch}: sequence {found} came, expected is {expected}")]
    OutOfOrderSequence {
        /// The producer.
        producer_id: ProducerId,
        /// The batch's epoch.
        epoch: ProducerEpoch,
        /// The batch's first sequence number.
        found: i32,
        /// The one that should come.
        expected: i32,
    },
    /// Data outside a transaction while one is open here (INVALID_TXN_STATE).
    #[error("producer {producer_id} writes outside its transaction open since offset {open_since}")]
    InvalidTransactionState {
        /// The producer.
        producer_id: ProducerId,
        /// First offset of the open transaction.
        open_since: Offset,
    },
    /// A marker of an older transaction coordinator (TRANSACTION_COORDINATOR_FENCED).
    #[error("producer {producer_id}: coordinator epoch {found} is older than {current}")]
    CoordinatorFenced {
        /// The producer.
        producer_id: ProducerId,
        /// The marker's coordinator epoch.
        found: i32,
        /// The latest one known.
        current: i32,
    },
}

impl ProducerStateManager {
    /// Whether the leader may append this batch; changes nothing. Batches without producer are always new.
    /// `marker` is what a control batch says, as for [`ProducerStateManager::update`].
    ///
    /// # Errors
    /// As the variants say; nothing may be appended then.
    pub fn check(
        &self,
        header: &BatchHeader,
        marker: Option<EndTransactionMarker>,
        origin: AppendOrigin,
    ) -> Result<SequenceCheck, ProducerStateError> {
        let Some(producer) = header.producer() else { return Ok(SequenceCheck::New) };
        if origin == AppendOrigin::Replication {
            return Ok(SequenceCheck::New); // the leader has checked
        }
        // Unknown (new, expired, or its records deleted): any sequence will do (KIP-360).
        let Some(entry) = self.producer(producer.id) else { return Ok(SequenceCheck::New) };

        if origin == AppendOrigin::Client
            && let Some(sequences) = producer.sequences
            && let Some(duplicate) = entry.find_duplicate(producer.epoch, sequences)
        {
            return Ok(SequenceCheck::duplicate_of(duplicate));
        }
        if producer.epoch < entry.epoch {
            return Err(ProducerStateError::InvalidProducerEpoch {
                producer_id: producer.id,
                found: producer.epoch,
                current: entry.epoch,
            });
        }
        if header.is_control() {
            return check_coordinator(entry, marker);
        }
        if origin == AppendOrigin::Client {
            check_sequence(entry, producer)?;
        }
        match entry.current_txn_first_offset {
            Some(open_since) if !header.is_transactional() => {
                Err(ProducerStateError::InvalidTransactionState {
                    producer_id: producer.id,
                    open_since,
                })
            }
            _ => Ok(SequenceCheck::New),
        }
    }
}

impl SequenceCheck {
    fn duplicate_of(batch: &BatchMetadata) -> SequenceCheck {
        SequenceCheck::Duplicate {
            base_offset: batch.base_offset(),
            last_offset: batch.last_offset,
            timestamp: batch.timestamp,
        }
    }
}

fn check_sequence(
    entry: &ProducerEntry,
    producer: BatchProducer,
) -> Result<(), ProducerStateError> {
    let Some(sequences) = producer.sequences else { return Ok(()) }; // the validator refused it
    // A new epoch starts at 0; so does one of which only a marker is known.
    let same_epoch = producer.epoch == entry.epoch;
    let last_sequence = if same_epoch { entry.last_sequence() } else { None };
    let expected = last_sequence.map_or(0, |last| super::increment_sequence(last, 1));
    if sequences.first == expected {
        return Ok(());
    }
    Err(ProducerStateError::OutOfOrderSequence {
        producer_id: producer.id,
        epoch: producer.epoch,
        found: sequences.first,
        expected,
    })
}

fn check_coordinator(
    entry: &ProducerEntry,
    marker: Option<EndTransactionMarker>,
) -> Result<SequenceCheck, ProducerStateError> {
    if let (Some(marker), Some(current)) = (marker, entry.coordinator_epoch)
        && marker.coordinator_epoch < current
    {
        return Err(ProducerStateError::CoordinatorFenced {
            producer_id: entry.producer_id,
            found: marker.coordinator_epoch,
            current,
        });
    }
    Ok(SequenceCheck::New)
}
