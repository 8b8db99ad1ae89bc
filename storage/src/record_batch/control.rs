//! What control batches say (`ControlRecordType.java`, `EndTransactionMarker.java`).
//!
//! Key: i16 version (0), i16 type. Value of a transaction marker: i16 version (0), i32 coordinator epoch.
//! Later versions may add fields behind these.

use super::RecordBatch;

/// The type in a control record's key. Readers skip types they do not know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ControlRecordType {
    /// The transaction is aborted.
    Abort,
    /// The transaction is committed.
    Commit,
    /// Another type, with its number.
    Other(i16),
}

impl ControlRecordType {
    /// The type in this key; `None` if the key is too short or its version negative.
    pub fn parse_key(key: &[u8]) -> Option<ControlRecordType> {
        let (version, kind) = key.first_chunk::<4>()?.split_at(2);
        if i16::from_be_bytes([version[0], version[1]]) < 0 {
            return None;
        }
        Some(match i16::from_be_bytes([kind[0], kind[1]]) {
            0 => ControlRecordType::Abort,
            1 => ControlRecordType::Commit,
            other => ControlRecordType::Other(other),
        })
    }

    /// Its number.
    pub const fn id(self) -> i16 {
        match self {
            ControlRecordType::Abort => 0,
            ControlRecordType::Commit => 1,
            ControlRecordType::Other(id) => id,
        }
    }
}

/// How a transaction ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EndTransactionMarker {
    /// Committed, else aborted.
    pub is_commit: bool,
    /// Epoch of the transaction coordinator that decided it; -1 where an admin aborted it (KIP-664).
    pub coordinator_epoch: i32,
}

impl EndTransactionMarker {
    /// Key and value of the control record.
    pub fn to_key_and_value(&self) -> ([u8; 4], [u8; 6]) {
        let kind =
            if self.is_commit { ControlRecordType::Commit } else { ControlRecordType::Abort };
        let mut key = [0; 4];
        key[2..].copy_from_slice(&kind.id().to_be_bytes());
        let mut value = [0; 6];
        value[2..].copy_from_slice(&self.coordinator_epoch.to_be_bytes());
        (key, value)
    }

    /// The marker in a control batch; `None` if the batch is none, is compressed, is emptied by
    /// compaction, or holds another control record.
    pub fn in_batch(batch: &RecordBatch<'_>) -> Option<EndTransactionMarker> {
        if !batch.is_control() {
            return None;
        }
        let record = batch.uncompressed_records()?.next()?.ok()?;
        let is_commit = match ControlRecordType::parse_key(record.key?)? {
            ControlRecordType::Commit => true,
            ControlRecordType::Abort => false,
            ControlRecordType::Other(_) => return None,
        };
        let value = record.value?.first_chunk::<6>()?;
        if i16::from_be_bytes([value[0], value[1]]) < 0 {
            return None;
        }
        let coordinator_epoch = i32::from_be_bytes([value[2], value[3], value[4], value[5]]);
        Some(EndTransactionMarker { is_commit, coordinator_epoch })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::producer_state::{ProducerEpoch, ProducerId};
    use crate::record_batch::{BatchProducer, RecordBatchBuilder};
    use crate::timestamp::Timestamp;

    #[test]
    fn a_marker_reads_back_from_its_batch() {
        for is_commit in [true, false] {
            let marker = EndTransactionMarker { is_commit, coordinator_epoch: 17 };
            let (id, epoch) = (ProducerId::new(9).unwrap(), ProducerEpoch::new(3).unwrap());
            let bytes =
                RecordBatchBuilder::end_transaction_marker(id, epoch, marker, Timestamp::ZERO)
                    .build()
                    .unwrap();
            let (batch, _) = RecordBatch::parse(&bytes).unwrap();
            assert!(batch.is_control() && batch.is_transactional());
            assert_eq!(batch.producer(), Some(BatchProducer { id, epoch, sequences: None }));
            assert_eq!(EndTransactionMarker::in_batch(&batch), Some(marker));
        }
    }

    #[test]
    fn other_control_records_and_short_keys_are_no_markers() {
        let control = |key: &[u8], value: &[u8]| {
            let bytes =
                RecordBatchBuilder::new().control().record(None, Some(key), Some(value), &[]);
            let bytes = bytes.build().unwrap();
            EndTransactionMarker::in_batch(&RecordBatch::parse(&bytes).unwrap().0)
        };
        assert_eq!(control(&[0, 0, 0, 2], &[0; 6]), None, "leader change");
        assert_eq!(control(&[0, 0, 0], &[0; 6]), None);
        assert_eq!(control(&[0, 0, 0, 1], &[0; 5]), None);
        assert!(control(&[0, 0, 0, 1], &[0; 7]).is_some(), "a later version may be longer");
    }
}
