//! Reading batches and their records. Everything is a view of the answer, or of the unpacked block; nothing is reserved
//! from a count.

use bytes::{Buf, Bytes};

use super::{BATCH_HEADER_SIZE_BYTES, Compression, Header, Headers, Record, RecordError, varint};

/// Base offset and length.
const PREFIX_SIZE_BYTES: usize = 12;
const CRC_START: usize = 21;
const MAGIC: i8 = 2;
/// Length, attributes, two deltas, key, value, header count: a byte each.
const MIN_RECORD_SIZE_BYTES: usize = 7;

/// One batch whose CRC was found right; its records are still packed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordBatch {
    /// Offset of its first record as it was produced; compaction may have taken that one away.
    pub base_offset: i64,
    /// Epoch of the leader that appended it; `None` before a broker has.
    pub partition_leader_epoch: Option<i32>,
    /// How its records are packed.
    pub compression: Compression,
    /// Timestamps were set by the broker: all records bear the largest.
    pub is_log_append_time: bool,
    /// Part of a transaction.
    pub is_transactional: bool,
    /// Holds control records, which no application sees.
    pub is_control: bool,
    /// From the base offset to the last one.
    pub last_offset_delta: i32,
    /// Timestamps of the records count from here.
    pub base_timestamp: i64,
    /// The largest timestamp, -1 for none.
    pub max_timestamp: i64,
    /// Of an idempotent producer.
    pub producer_id: Option<i64>,
    /// Its epoch, -1 without a producer id.
    pub producer_epoch: i16,
    /// Sequence number of the first record, -1 for none.
    pub base_sequence: i32,
    record_count: i32,
    block: Bytes,
}

impl RecordBatch {
    /// The first offset after the batch: where to fetch on.
    pub fn next_offset(&self) -> i64 {
        self.last_offset().saturating_add(1)
    }

    /// The last offset that the batch spans.
    pub fn last_offset(&self) -> i64 {
        self.base_offset.saturating_add(i64::from(self.last_offset_delta))
    }

    /// As the header says.
    pub fn record_count(&self) -> i32 {
        self.record_count
    }

    /// Unpacks the records, to at most `max_size_bytes`, and reads them one by one.
    ///
    /// # Errors
    /// A block that does not unpack or is too large; records that are wrong come as an error in their place.
    pub fn records(&self, max_size_bytes: usize) -> Result<Records, RecordError> {
        let block = match self.compression {
            Compression::None => self.block.clone(),
            packed => packed.decompress(&self.block, max_size_bytes)?.into(),
        };
        if self.record_count as usize > block.len() / MIN_RECORD_SIZE_BYTES {
            return Err(RecordError::RecordInvalid {
                reason: "more records than the batch has bytes for",
            });
        }
        Ok(Records {
            base_offset: self.base_offset,
            last_offset_delta: self.last_offset_delta,
            base_timestamp: self.base_timestamp,
            log_append_time: self.is_log_append_time.then_some(self.max_timestamp),
            left: self.record_count,
            block,
        })
    }
}

/// Cuts the record bytes of an answer into batches. The last one may be cut short by the broker (KIP-74); it is dropped.
#[derive(Clone, Debug)]
pub struct BatchReader {
    bytes: Bytes,
}

impl BatchReader {
    /// Over the record bytes of one partition.
    pub fn new(bytes: Bytes) -> BatchReader {
        BatchReader { bytes }
    }

    fn read(&mut self) -> Result<Option<RecordBatch>, RecordError> {
        let Some(prefix) = self.bytes.first_chunk::<PREFIX_SIZE_BYTES>() else { return Ok(None) };
        let base_offset = (&prefix[..8]).get_i64();
        let length = (&prefix[8..]).get_i32();
        // Old messages have their magic at the same place, and are shorter.
        if let Some(magic) = self.bytes.get(16).map(|byte| *byte as i8)
            && magic != MAGIC
        {
            return Err(RecordError::MagicUnsupported { magic });
        }
        let size = usize::try_from(length)
            .ok()
            .map(|length| length + PREFIX_SIZE_BYTES)
            .filter(|size| *size >= BATCH_HEADER_SIZE_BYTES)
            .ok_or(RecordError::LengthInvalid { length })?;
        if self.bytes.len() < size {
            return Ok(None);
        }
        let batch = self.bytes.split_to(size);
        let invalid = |reason| RecordError::HeaderInvalid { base_offset, reason };
        let crc = (&batch[17..CRC_START]).get_u32();
        if crc != super::builder::crc32c(&batch[CRC_START..]) {
            return Err(RecordError::CrcMismatch { base_offset });
        }
        let mut header = &batch[12..16];
        let partition_leader_epoch = header.get_i32();
        let mut header = &batch[CRC_START..BATCH_HEADER_SIZE_BYTES];
        let attributes = header.get_i16();
        let last_offset_delta = header.get_i32();
        let base_timestamp = header.get_i64();
        let max_timestamp = header.get_i64();
        let producer_id = header.get_i64();
        let producer_epoch = header.get_i16();
        let base_sequence = header.get_i32();
        let record_count = header.get_i32();
        if base_offset < 0
            || last_offset_delta < 0
            || base_offset.checked_add(last_offset_delta.into()).is_none()
        {
            return Err(invalid("its offsets are negative or overflow"));
        }
        if record_count < 0 {
            return Err(invalid("its record count is negative"));
        }
        Ok(Some(RecordBatch {
            base_offset,
            partition_leader_epoch: (partition_leader_epoch >= 0).then_some(partition_leader_epoch),
            compression: Compression::from_attributes(attributes)?,
            is_log_append_time: attributes & 1 << 3 != 0,
            is_transactional: attributes & 1 << 4 != 0,
            is_control: attributes & 1 << 5 != 0,
            last_offset_delta,
            base_timestamp,
            max_timestamp,
            producer_id: (producer_id >= 0).then_some(producer_id),
            producer_epoch,
            base_sequence,
            record_count,
            block: batch.slice(BATCH_HEADER_SIZE_BYTES..),
        }))
    }
}

/// Ends at the first error: what follows it cannot be told apart.
impl Iterator for BatchReader {
    type Item = Result<RecordBatch, RecordError>;

    fn next(&mut self) -> Option<Self::Item> {
        let batch = self.read().transpose();
        if !matches!(batch, Some(Ok(_))) {
            self.bytes.clear();
        }
        batch
    }
}

/// The records of one batch.
#[derive(Clone, Debug)]
pub struct Records {
    base_offset: i64,
    last_offset_delta: i32,
    base_timestamp: i64,
    log_append_time: Option<i64>,
    left: i32,
    block: Bytes,
}

impl Records {
    fn read(&mut self) -> Result<Record, RecordError> {
        let size = varint::get_i32(&mut self.block)?;
        let size = usize::try_from(size)
            .ok()
            .filter(|size| *size <= self.block.len())
            .ok_or(RecordError::RecordInvalid { reason: "it ends outside its batch" })?;
        let mut body = self.block.split_to(size);
        let _attributes =
            body.try_get_i8().map_err(|_| RecordError::RecordInvalid { reason: "it is empty" })?;
        let timestamp_delta = varint::get(&mut body)?;
        let offset_delta = varint::get_i32(&mut body)?;
        if !(0..=self.last_offset_delta).contains(&offset_delta) {
            return Err(RecordError::RecordInvalid { reason: "its offset lies outside its batch" });
        }
        let key = nullable(&mut body)?;
        let value = nullable(&mut body)?;
        let headers = read_headers(&mut body)?;
        if !body.is_empty() {
            return Err(RecordError::RecordInvalid { reason: "bytes follow its last header" });
        }
        let timestamp = match self.log_append_time {
            Some(timestamp) => timestamp,
            None => self.base_timestamp.wrapping_add(timestamp_delta),
        };
        Ok(Record {
            // In range: the batch's last offset does not overflow.
            offset: self.base_offset + i64::from(offset_delta),
            timestamp: (timestamp >= 0).then_some(timestamp),
            key,
            value,
            headers,
        })
    }
}

/// Ends at the first error.
impl Iterator for Records {
    type Item = Result<Record, RecordError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.left == 0 {
            return None;
        }
        let record = self.read();
        self.left = if record.is_ok() { self.left - 1 } else { 0 };
        Some(record)
    }
}

fn read_headers(body: &mut Bytes) -> Result<Headers, RecordError> {
    let count = varint::get_i32(body)?;
    let count = usize::try_from(count)
        .map_err(|_| RecordError::RecordInvalid { reason: "its header count is negative" })?;
    let encoded = body.clone();
    for _ in 0..count {
        read_header(body)?;
    }
    let size = encoded.len() - body.len();
    Ok(Headers { count, encoded: encoded.slice(..size) })
}

pub(super) fn read_header(bytes: &mut Bytes) -> Result<Header, RecordError> {
    let key =
        nullable(bytes)?.ok_or(RecordError::RecordInvalid { reason: "a header has no key" })?;
    Ok(Header { key, value: nullable(bytes)? })
}

fn nullable(bytes: &mut Bytes) -> Result<Option<Bytes>, RecordError> {
    match varint::get_i32(bytes)? {
        -1 => Ok(None),
        length => match usize::try_from(length) {
            Ok(length) if length <= bytes.len() => Ok(Some(bytes.split_to(length))),
            _ => Err(RecordError::RecordInvalid { reason: "a field ends outside its record" }),
        },
    }
}
