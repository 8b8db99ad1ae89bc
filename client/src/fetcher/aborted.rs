//! Which batches a read_committed reader does not see (KIP-98). Pure.
//!
//! With the records comes a list of aborted transactions: producer id and first offset. From there on the producer's
//! transactional batches are void, up to its abort marker.

use std::collections::BTreeSet;

use crate::record::{ControlRecord, RecordBatch};

/// Follows one answer's batches, in order.
#[derive(Clone, Debug)]
pub(super) struct AbortedFilter {
    /// (first offset, producer id), the latest first.
    ahead: Vec<(i64, i64)>,
    open: BTreeSet<i64>,
}

impl AbortedFilter {
    /// `aborted` are (producer id, first offset) as the broker sent them.
    pub(super) fn new(aborted: impl Iterator<Item = (i64, i64)>) -> AbortedFilter {
        let mut ahead: Vec<(i64, i64)> =
            aborted.map(|(producer_id, first)| (first, producer_id)).collect();
        ahead.sort_unstable_by(|a, b| b.cmp(a));
        AbortedFilter { ahead, open: BTreeSet::new() }
    }

    /// Whether the next batch belongs to an aborted transaction.
    pub(super) fn is_aborted(&mut self, batch: &RecordBatch) -> bool {
        while self.ahead.last().is_some_and(|(first, _)| *first <= batch.last_offset()) {
            self.open.extend(self.ahead.pop().map(|(_, producer_id)| producer_id));
        }
        let Some(producer_id) = batch.producer_id else { return false };
        if is_abort_marker(batch) {
            self.open.remove(&producer_id);
            return false;
        }
        batch.is_transactional && self.open.contains(&producer_id)
    }
}

fn is_abort_marker(batch: &RecordBatch) -> bool {
    const MARKER_SIZE_BYTES: usize = 1024; // it has 22; room for tags of later versions
    if !batch.is_control {
        return false;
    }
    let Ok(mut records) = batch.records(MARKER_SIZE_BYTES) else { return false };
    let marker =
        records.next().and_then(Result::ok).and_then(|record| ControlRecord::from_record(&record));
    marker == Some(ControlRecord::Abort)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{BatchBuilder, BatchReader, Compression, ProducerStamp};

    const TRANSACTIONAL: u8 = 1 << 4;
    const CONTROL: u8 = 1 << 5;

    fn batch(offset: i64, producer_id: i64, attributes: u8, key: &[u8]) -> RecordBatch {
        let mut builder = BatchBuilder::new();
        builder.push(0, Some(key), None, &[]).expect("small");
        let stamp = ProducerStamp { producer_id, producer_epoch: 0, base_sequence: 0 };
        let mut bytes = builder.build(Compression::None, Some(stamp)).expect("small").to_vec();
        bytes[..8].copy_from_slice(&offset.to_be_bytes());
        bytes[22] |= attributes;
        let crc = crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, &bytes[21..]) as u32;
        bytes[17..21].copy_from_slice(&crc.to_be_bytes());
        BatchReader::new(bytes.into()).next().expect("one").expect("whole")
    }

    fn data(offset: i64, producer_id: i64) -> RecordBatch {
        batch(offset, producer_id, TRANSACTIONAL, b"k")
    }

    fn marker(offset: i64, producer_id: i64, kind: u8) -> RecordBatch {
        batch(offset, producer_id, TRANSACTIONAL | CONTROL, &[0, 0, 0, kind])
    }

    #[test]
    fn batches_of_an_aborted_transaction_are_void_until_its_marker() {
        let mut filter = AbortedFilter::new([(7, 2)].into_iter());
        let (abort, commit) = (0, 1);
        let void: Vec<bool> = [
            data(0, 7), // committed earlier
            marker(1, 7, commit),
            data(2, 7),
            data(3, 8), // another producer
            data(4, 7),
            marker(5, 7, abort),
            data(6, 7), // its next transaction
        ]
        .iter()
        .map(|batch| filter.is_aborted(batch))
        .collect();
        assert_eq!(void, [false, false, true, false, true, false, false]);
    }

    #[test]
    fn a_batch_without_a_transaction_is_seen_even_from_that_producer() {
        let mut filter = AbortedFilter::new([(7, 0)].into_iter());
        assert!(!filter.is_aborted(&batch(0, 7, 0, b"k")));
    }

    #[test]
    fn transactions_may_come_in_any_order_and_several_of_one_producer() {
        let mut filter = AbortedFilter::new([(7, 4), (7, 0), (8, 1)].into_iter());
        let batches = [data(0, 7), data(1, 8), marker(2, 7, 0), data(3, 8), data(4, 7)];
        let void: Vec<bool> = batches.iter().map(|batch| filter.is_aborted(batch)).collect();
        assert_eq!(void, [true, true, false, true, true]);
    }
}
