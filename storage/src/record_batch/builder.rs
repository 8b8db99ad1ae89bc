//! Builds one whole batch: for the metadata log, markers, our client, and tests. What clients send is never
//! rebuilt with it (DESIGN D5).

use super::header::{BatchHeader, HEADER_SIZE_BYTES, LOG_OVERHEAD_BYTES, MAGIC, attribute, field};
use super::{BatchError, EndTransactionMarker};
use crate::compression::{Compression, CompressionError, compress};
use crate::leader_epoch::LeaderEpoch;
use crate::offset::Offset;
use crate::producer_state::{ProducerEpoch, ProducerId};
use crate::record::varint::{size_i32, size_i64, write_i32, write_i64};
use crate::timestamp::Timestamp;

/// Why a batch could not be built.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// A record or the batch is larger than its length field can say, or ends past the greatest offset.
    #[error(transparent)]
    Batch(#[from] BatchError),
    /// A record, key, value or header of 2 GiB or more.
    #[error("record {index} is larger than 2^31 - 1 bytes")]
    RecordTooLarge {
        /// Number of the record, from 0.
        index: i32,
    },
    /// The codec failed.
    #[error("cannot compress")]
    Compression(#[from] CompressionError),
}

/// Builds one batch. Records get the offset deltas 0, 1, 2, … unless [`RecordBatchBuilder::record_at`] says
/// otherwise. The batch's base timestamp is the first record's.
#[derive(Clone, Debug)]
pub struct RecordBatchBuilder {
    base_offset: Offset,
    leader_epoch: Option<LeaderEpoch>,
    compression: Compression,
    level: Option<i32>,
    log_append_time: Option<Timestamp>,
    producer: Option<(ProducerId, ProducerEpoch, Option<i32>)>,
    is_transactional: bool,
    is_control: bool,
    base_timestamp: Option<i64>,
    max_timestamp: Option<Timestamp>,
    record_count: i32,
    last_offset_delta: i32,
    block: Vec<u8>,
    failed: Option<i32>,
}

impl Default for RecordBatchBuilder {
    fn default() -> RecordBatchBuilder {
        RecordBatchBuilder::new()
    }
}

impl RecordBatchBuilder {
    /// An empty batch at offset 0, not compressed, CreateTime, without producer and leader epoch.
    pub fn new() -> RecordBatchBuilder {
        RecordBatchBuilder {
            base_offset: Offset::ZERO,
            leader_epoch: None,
            compression: Compression::None,
            level: None,
            log_append_time: None,
            producer: None,
            is_transactional: false,
            is_control: false,
            base_timestamp: None,
            max_timestamp: None,
            record_count: 0,
            last_offset_delta: 0,
            block: Vec::new(),
            failed: None,
        }
    }

    /// A marker that ends `producer`'s transaction: a transactional control batch of one record.
    pub fn end_transaction_marker(
        producer: ProducerId,
        epoch: ProducerEpoch,
        marker: EndTransactionMarker,
        now: Timestamp,
    ) -> RecordBatchBuilder {
        let (key, value) = marker.to_key_and_value();
        RecordBatchBuilder::new().producer(producer, epoch, None).transactional().control().record(
            Some(now),
            Some(&key),
            Some(&value),
            &[],
        )
    }

    /// The first record's offset.
    #[must_use]
    pub fn base_offset(mut self, base_offset: Offset) -> Self {
        self.base_offset = base_offset;
        self
    }

    /// The epoch of the leader that appends it.
    #[must_use]
    pub fn leader_epoch(mut self, epoch: LeaderEpoch) -> Self {
        self.leader_epoch = Some(epoch);
        self
    }

    /// The codec and its level (`None`: the codec's default).
    #[must_use]
    pub fn compression(mut self, compression: Compression, level: Option<i32>) -> Self {
        self.compression = compression;
        self.level = level;
        self
    }

    /// Makes it a LogAppendTime batch, appended at `now`.
    #[must_use]
    pub fn log_append_time(mut self, now: Timestamp) -> Self {
        self.log_append_time = Some(now);
        self
    }

    /// The producer; `base_sequence` is `None` in markers only.
    ///
    /// # Panics
    /// If the sequence is negative.
    #[must_use]
    pub fn producer(
        mut self,
        id: ProducerId,
        epoch: ProducerEpoch,
        base_sequence: Option<i32>,
    ) -> Self {
        assert!(base_sequence.is_none_or(|sequence| sequence >= 0), "sequences are not negative");
        self.producer = Some((id, epoch, base_sequence));
        self
    }

    /// Makes it part of a transaction.
    #[must_use]
    pub fn transactional(mut self) -> Self {
        self.is_transactional = true;
        self
    }

    /// Makes it a control batch.
    #[must_use]
    pub fn control(mut self) -> Self {
        self.is_control = true;
        self
    }

    /// Adds a record behind the last one.
    #[must_use]
    pub fn record(
        mut self,
        timestamp: Option<Timestamp>,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: &[(&[u8], Option<&[u8]>)],
    ) -> Self {
        self.push(timestamp, key, value, headers);
        self
    }

    /// As [`RecordBatchBuilder::record`], for loops.
    pub fn push(
        &mut self,
        timestamp: Option<Timestamp>,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: &[(&[u8], Option<&[u8]>)],
    ) {
        let delta = if self.record_count == 0 { 0 } else { self.last_offset_delta.wrapping_add(1) };
        self.push_at(delta, timestamp, key, value, headers);
    }

    /// Adds a record with this offset delta: compacted batches have gaps, and tests want wrong ones.
    #[must_use]
    pub fn record_at(
        mut self,
        offset_delta: i32,
        timestamp: Option<Timestamp>,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: &[(&[u8], Option<&[u8]>)],
    ) -> Self {
        self.push_at(offset_delta, timestamp, key, value, headers);
        self
    }

    /// Overrides the last offset delta: compaction keeps it when the last records go.
    #[must_use]
    pub fn last_offset_delta(mut self, last_offset_delta: i32) -> Self {
        self.last_offset_delta = last_offset_delta;
        self
    }

    /// How many records it has.
    pub fn record_count(&self) -> i32 {
        self.record_count
    }

    /// Size of the records so far, not compressed, with the header.
    pub fn estimated_size_bytes(&self) -> usize {
        HEADER_SIZE_BYTES + self.block.len()
    }

    fn push_at(
        &mut self,
        offset_delta: i32,
        timestamp: Option<Timestamp>,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: &[(&[u8], Option<&[u8]>)],
    ) {
        let milliseconds = Timestamp::to_wire(timestamp);
        let base = *self.base_timestamp.get_or_insert(milliseconds);
        let timestamp_delta = milliseconds - base; // both >= -1
        let written =
            write_record(timestamp_delta, offset_delta, key, value, headers, &mut self.block);
        if written.is_none() {
            self.failed.get_or_insert(self.record_count);
        }
        self.max_timestamp = self.max_timestamp.max(timestamp);
        self.last_offset_delta = offset_delta;
        self.record_count = self.record_count.saturating_add(1);
    }

    /// The batch's bytes.
    ///
    /// # Errors
    /// If something is larger than its length field can say, the batch would end past the greatest offset,
    /// or the codec fails.
    pub fn build(self) -> Result<Vec<u8>, BuildError> {
        if let Some(index) = self.failed {
            return Err(BuildError::RecordTooLarge { index });
        }
        let body = match self.compression {
            Compression::None => self.block,
            codec => compress(codec, self.level, &self.block)?,
        };
        let length = i32::try_from(body.len() + HEADER_SIZE_BYTES - LOG_OVERHEAD_BYTES)
            .map_err(|_| BatchError::TooLarge { body_size_bytes: body.len() })?;
        let (max_timestamp, append_time_bit) = match self.log_append_time {
            Some(now) => (Some(now), attribute::LOG_APPEND_TIME),
            None => (self.max_timestamp, 0),
        };
        let attributes = i16::from(self.compression.id())
            | append_time_bit
            | if self.is_transactional { attribute::TRANSACTIONAL } else { 0 }
            | if self.is_control { attribute::CONTROL } else { 0 };
        let (id, epoch, sequence) = match self.producer {
            Some((id, epoch, sequence)) => (id.value(), epoch.value(), sequence.unwrap_or(-1)),
            None => (-1, -1, -1),
        };

        let mut header = [0; HEADER_SIZE_BYTES];
        let mut put = |at: usize, value: &[u8]| {
            header[at..at + value.len()].copy_from_slice(value);
        };
        put(field::BASE_OFFSET, &self.base_offset.value().to_be_bytes());
        put(field::BATCH_LENGTH, &length.to_be_bytes());
        let leader_epoch = LeaderEpoch::to_wire(self.leader_epoch);
        put(field::PARTITION_LEADER_EPOCH, &leader_epoch.to_be_bytes());
        put(field::MAGIC, &MAGIC.to_be_bytes());
        put(field::ATTRIBUTES, &attributes.to_be_bytes());
        put(field::LAST_OFFSET_DELTA, &self.last_offset_delta.to_be_bytes());
        put(field::BASE_TIMESTAMP, &self.base_timestamp.unwrap_or(-1).to_be_bytes());
        put(field::MAX_TIMESTAMP, &Timestamp::to_wire(max_timestamp).to_be_bytes());
        put(field::PRODUCER_ID, &id.to_be_bytes());
        put(field::PRODUCER_EPOCH, &epoch.to_be_bytes());
        put(field::BASE_SEQUENCE, &sequence.to_be_bytes());
        put(field::RECORD_COUNT, &self.record_count.to_be_bytes());

        let mut header = BatchHeader::parse(&header)?;
        header.recompute_crc(&body);
        let mut batch = Vec::with_capacity(header.batch_size_bytes());
        batch.extend_from_slice(header.as_bytes());
        batch.extend_from_slice(&body);
        Ok(batch)
    }
}

/// Appends one record; `None`, with nothing usable written, if a length does not fit 31 bits.
fn write_record(
    timestamp_delta: i64,
    offset_delta: i32,
    key: Option<&[u8]>,
    value: Option<&[u8]>,
    headers: &[(&[u8], Option<&[u8]>)],
    out: &mut Vec<u8>,
) -> Option<()> {
    let mut size = 1 + size_i64(timestamp_delta) + size_i32(offset_delta);
    size += nullable_size(key)? + nullable_size(value)?;
    size += size_i32(i32::try_from(headers.len()).ok()?);
    for (key, value) in headers {
        size += nullable_size(Some(key))? + nullable_size(*value)?;
    }
    write_i32(i32::try_from(size).ok()?, out);
    out.push(0);
    write_i64(timestamp_delta, out);
    write_i32(offset_delta, out);
    write_nullable(key, out);
    write_nullable(value, out);
    write_i64(headers.len() as i64, out);
    for (key, value) in headers {
        write_nullable(Some(key), out);
        write_nullable(*value, out);
    }
    Some(())
}

fn nullable_size(bytes: Option<&[u8]>) -> Option<usize> {
    match bytes {
        None => Some(size_i32(-1)),
        Some(bytes) => Some(size_i32(i32::try_from(bytes.len()).ok()?) + bytes.len()),
    }
}

/// The size was checked to fit 31 bits.
fn write_nullable(bytes: Option<&[u8]>, out: &mut Vec<u8>) {
    match bytes {
        None => write_i64(-1, out),
        Some(bytes) => {
            write_i64(bytes.len() as i64, out);
            out.extend_from_slice(bytes);
        }
    }
}
