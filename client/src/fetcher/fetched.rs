//! What one answer brought for one partition.

use std::sync::Arc;

use kafka_protocol::messages::fetch_response::PartitionData;

use super::aborted::AbortedFilter;
use crate::error::ClientError;
use crate::record::{BatchReader, Record, RecordBatch, RecordError};

/// Batches of one partition, CRC checked and still packed; control batches and aborted transactions are left out where
/// the reader must not see them.
#[derive(Clone, Debug)]
pub struct FetchedPartition {
    /// Its topic.
    pub topic: Arc<str>,
    /// Its number.
    pub partition: i32,
    /// The first offset that is not visible yet.
    pub high_watermark: i64,
    /// The first offset that read_committed does not see yet; `None` where the broker does not tell.
    pub last_stable_offset: Option<i64>,
    /// The first offset that is still there; `None` where the broker does not tell.
    pub log_start_offset: Option<i64>,
    from_offset: i64,
    next_offset: i64,
    batches: Vec<RecordBatch>,
    /// What ended the reading early.
    error: Option<RecordError>,
    max_batch_size_bytes: usize,
}

impl FetchedPartition {
    pub(super) fn read(
        (topic, partition): &(Arc<str>, i32),
        from_offset: i64,
        data: PartitionData,
        read_committed: bool,
        max_batch_size_bytes: usize,
    ) -> FetchedPartition {
        let aborted = data.aborted_transactions.unwrap_or_default();
        let mut filter =
            AbortedFilter::new(aborted.iter().map(|a| (a.producer_id.0, a.first_offset)));
        let mut fetched = FetchedPartition {
            topic: topic.clone(),
            partition: *partition,
            high_watermark: data.high_watermark,
            last_stable_offset: (data.last_stable_offset >= 0).then_some(data.last_stable_offset),
            log_start_offset: (data.log_start_offset >= 0).then_some(data.log_start_offset),
            from_offset,
            next_offset: from_offset,
            batches: Vec::new(),
            error: None,
            max_batch_size_bytes,
        };
        for batch in BatchReader::new(data.records.unwrap_or_default()) {
            let batch = match batch {
                Ok(batch) => batch,
                Err(error) => {
                    fetched.error = Some(error);
                    break;
                }
            };
            let is_aborted = read_committed && filter.is_aborted(&batch);
            // The broker's index is coarse: it may begin with batches that end before the position.
            if batch.next_offset() <= fetched.next_offset {
                continue;
            }
            fetched.next_offset = batch.next_offset();
            if !is_aborted && !batch.is_control {
                fetched.batches.push(batch);
            }
        }
        fetched
    }

    /// The first offset after these batches: where the fetcher goes on.
    pub fn next_offset(&self) -> i64 {
        self.next_offset
    }

    /// The batches that have records to see; the first one may begin before the position.
    pub fn batches(&self) -> &[RecordBatch] {
        &self.batches
    }

    /// The records from the position on, in order, unpacked batch by batch. An error ends them.
    pub fn records(&self) -> impl Iterator<Item = Result<Record, ClientError>> {
        let batches = self.batches.iter().map(Ok).chain(self.error.iter().map(Err));
        let records =
            batches.flat_map(|batch| -> Box<dyn Iterator<Item = Result<Record, RecordError>>> {
                match batch.map(|batch| batch.records(self.max_batch_size_bytes)) {
                    Ok(Ok(records)) => Box::new(records),
                    Ok(Err(error)) => Box::new(std::iter::once(Err(error))),
                    Err(error) => Box::new(std::iter::once(Err(error.clone()))),
                }
            });
        let mut is_ended = false;
        records
            .filter(|record| {
                record.as_ref().map_or(true, |record| record.offset >= self.from_offset)
            })
            .map_while(move |record| {
                let was_ended = std::mem::replace(&mut is_ended, record.is_err());
                (!was_ended).then_some(record)
            })
            .map(|record| {
                record.map_err(|error| ClientError::Record { subject: self.subject(), error })
            })
    }

    fn subject(&self) -> String {
        format!("{}-{} from offset {}", self.topic, self.partition, self.from_offset)
    }
}
