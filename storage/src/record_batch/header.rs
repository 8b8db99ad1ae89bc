//! The 61-byte header, owned: what is read and patched without touching the records behind it.

use super::{BatchError, BatchProducer, BatchSequences, TimestampType};
use crate::compression::Compression;
use crate::crc32c::{crc32c, crc32c_of_both};
use crate::leader_epoch::LeaderEpoch;
use crate::offset::Offset;
use crate::producer_state::{ProducerEpoch, ProducerId, increment_sequence};
use crate::timestamp::Timestamp;

/// Size of the header; the records follow it.
pub const HEADER_SIZE_BYTES: usize = 61;
/// Base offset and batch length, which the length does not count.
pub const LOG_OVERHEAD_BYTES: usize = 12;
/// The one format we store.
pub const MAGIC: i8 = 2;

/// Where the fields stand, see the table in [`crate::record_batch`].
pub(crate) mod field {
    pub const BASE_OFFSET: usize = 0;
    pub const BATCH_LENGTH: usize = 8;
    pub const PARTITION_LEADER_EPOCH: usize = 12;
    pub const MAGIC: usize = 16;
    pub const CRC: usize = 17;
    pub const ATTRIBUTES: usize = 21;
    pub const LAST_OFFSET_DELTA: usize = 23;
    pub const BASE_TIMESTAMP: usize = 27;
    pub const MAX_TIMESTAMP: usize = 35;
    pub const PRODUCER_ID: usize = 43;
    pub const PRODUCER_EPOCH: usize = 51;
    pub const BASE_SEQUENCE: usize = 53;
    pub const RECORD_COUNT: usize = 57;
    /// In the attributes.
    pub const CONTROL_BIT: i16 = super::attribute::CONTROL;
}

/// Bits of the attributes.
pub(crate) mod attribute {
    pub const COMPRESSION_MASK: i16 = 0x07;
    pub const LOG_APPEND_TIME: i16 = 0x08;
    pub const TRANSACTIONAL: i16 = 0x10;
    pub const CONTROL: i16 = 0x20;
    pub const DELETE_HORIZON: i16 = 0x40;
}

/// A batch's header, owned and range-checked.
///
/// Invariant, checked by [`BatchHeader::parse`] and kept by the setters: magic 2; batch length ≥ 49; base
/// offset ≥ 0 and the offset after the last one fits; last offset delta and record count ≥ 0; a known
/// codec; a producer id ≥ 0 comes with an epoch ≥ 0. So the accessors cannot fail.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct BatchHeader {
    bytes: [u8; HEADER_SIZE_BYTES],
}

impl BatchHeader {
    /// The header at the start of `bytes`, of which no more than the first 61 are looked at. The CRC is not.
    ///
    /// # Errors
    /// If fewer than 61 bytes are given or a field is out of its range.
    pub fn parse(bytes: &[u8]) -> Result<BatchHeader, BatchError> {
        let Some(first) = bytes.first_chunk::<HEADER_SIZE_BYTES>() else {
            return Err(BatchError::Truncated {
                needed_bytes: HEADER_SIZE_BYTES,
                available_bytes: bytes.len(),
            });
        };
        let header = BatchHeader { bytes: *first };
        header.check()?;
        Ok(header)
    }

    fn check(&self) -> Result<(), BatchError> {
        let length = self.i32_at(field::BATCH_LENGTH);
        if length < (HEADER_SIZE_BYTES - LOG_OVERHEAD_BYTES) as i32 {
            return Err(BatchError::InvalidLength { length });
        }
        if self.magic() != MAGIC {
            return Err(BatchError::UnsupportedMagic { magic: self.magic() });
        }
        let base_offset = self.i64_at(field::BASE_OFFSET);
        if base_offset < 0 {
            return Err(BatchError::InvalidBaseOffset { base_offset });
        }
        let delta = self.last_offset_delta();
        if delta < 0 || base_offset.checked_add(i64::from(delta) + 1).is_none() {
            return Err(BatchError::InvalidLastOffsetDelta { last_offset_delta: delta });
        }
        if self.record_count() < 0 {
            return Err(BatchError::InvalidRecordCount { record_count: self.record_count() });
        }
        let codec = (self.attributes() & attribute::COMPRESSION_MASK) as u8;
        if Compression::from_id(codec).is_none() {
            return Err(BatchError::UnknownCompression { codec });
        }
        let epoch = self.i16_at(field::PRODUCER_EPOCH);
        if self.i64_at(field::PRODUCER_ID) >= 0 && epoch < 0 {
            return Err(BatchError::InvalidProducerEpoch { epoch });
        }
        Ok(())
    }

    /// The 61 bytes.
    pub fn as_bytes(&self) -> &[u8; HEADER_SIZE_BYTES] {
        &self.bytes
    }

    /// Offset of the first record (which compaction may have removed).
    pub fn base_offset(&self) -> Offset {
        Offset::new(self.i64_at(field::BASE_OFFSET)).expect("checked by parse: base offset >= 0")
    }

    /// Offset of the last record, inclusive (which compaction may have removed).
    pub fn last_offset(&self) -> Offset {
        self.base_offset().plus(self.last_offset_delta() as u64)
    }

    /// First offset after the batch.
    pub fn next_offset(&self) -> Offset {
        self.last_offset().next()
    }

    /// Size of the whole batch, header included.
    pub fn batch_size_bytes(&self) -> usize {
        self.i32_at(field::BATCH_LENGTH) as usize + LOG_OVERHEAD_BYTES
    }

    /// Size of what follows the header.
    pub fn body_size_bytes(&self) -> usize {
        self.batch_size_bytes() - HEADER_SIZE_BYTES
    }

    /// The epoch of the leader that appended the batch; `None` as producers send it.
    pub fn partition_leader_epoch(&self) -> Option<LeaderEpoch> {
        LeaderEpoch::new(self.i32_at(field::PARTITION_LEADER_EPOCH))
    }

    /// The format, always 2.
    pub fn magic(&self) -> i8 {
        self.bytes[field::MAGIC] as i8
    }

    /// The stored CRC-32C of everything from the attributes to the end of the batch.
    pub fn crc(&self) -> u32 {
        self.i32_at(field::CRC) as u32
    }

    /// All attribute bits.
    pub fn attributes(&self) -> i16 {
        self.i16_at(field::ATTRIBUTES)
    }

    /// The codec of the records block.
    pub fn compression(&self) -> Compression {
        Compression::from_id((self.attributes() & attribute::COMPRESSION_MASK) as u8)
            .expect("checked by parse: a known codec")
    }

    /// Who set the timestamps.
    pub fn timestamp_type(&self) -> TimestampType {
        if self.has(attribute::LOG_APPEND_TIME) {
            TimestampType::LogAppendTime
        } else {
            TimestampType::CreateTime
        }
    }

    /// Whether the batch is part of a transaction.
    pub fn is_transactional(&self) -> bool {
        self.has(attribute::TRANSACTIONAL)
    }

    /// Whether the batch holds a marker and not data.
    pub fn is_control(&self) -> bool {
        self.has(attribute::CONTROL)
    }

    /// When the tombstones and markers in it may go (KIP-534), if compaction has set it. The base
    /// timestamp's field holds it.
    pub fn delete_horizon(&self) -> Option<Timestamp> {
        if self.has(attribute::DELETE_HORIZON) {
            Timestamp::new(self.base_timestamp())
        } else {
            None
        }
    }

    /// Last offset minus base offset, never negative. Also last sequence minus base sequence.
    pub fn last_offset_delta(&self) -> i32 {
        self.i32_at(field::LAST_OFFSET_DELTA)
    }

    /// What the records' timestamp deltas are relative to, in milliseconds; any number.
    pub fn base_timestamp(&self) -> i64 {
        self.i64_at(field::BASE_TIMESTAMP)
    }

    /// The greatest timestamp of the records, or the time of the append if the type is LogAppendTime.
    pub fn max_timestamp(&self) -> Option<Timestamp> {
        Timestamp::new(self.i64_at(field::MAX_TIMESTAMP))
    }

    /// The effective timestamp of a record with this delta.
    pub fn record_timestamp(&self, timestamp_delta: i64) -> Option<Timestamp> {
        match self.timestamp_type() {
            TimestampType::LogAppendTime => self.max_timestamp(),
            // Wraps as Java's does, so that we and a client see the same.
            TimestampType::CreateTime => {
                Timestamp::new(self.base_timestamp().wrapping_add(timestamp_delta))
            }
        }
    }

    /// The idempotent or transactional producer, or the transaction a marker ends.
    pub fn producer(&self) -> Option<BatchProducer> {
        let id = ProducerId::new(self.i64_at(field::PRODUCER_ID))?;
        let epoch = ProducerEpoch::new(self.i16_at(field::PRODUCER_EPOCH))
            .expect("checked by parse: a producer has an epoch");
        let first = self.i32_at(field::BASE_SEQUENCE);
        let sequences = (first >= 0).then(|| BatchSequences {
            first,
            last: increment_sequence(first, self.last_offset_delta()),
        });
        Some(BatchProducer { id, epoch, sequences })
    }

    /// How many records the batch says it holds, never negative. Zero is legal in a compacted log.
    pub fn record_count(&self) -> i32 {
        self.i32_at(field::RECORD_COUNT)
    }

    /// Moves the batch. The CRC does not cover it.
    ///
    /// # Panics
    /// If the batch would end past `i64::MAX`.
    pub fn set_base_offset(&mut self, base_offset: Offset) {
        let end = base_offset.checked_plus(self.last_offset_delta() as u64 + 1);
        assert!(end.is_some(), "a batch at {base_offset} ends past the greatest offset");
        self.put(field::BASE_OFFSET, &base_offset.value().to_be_bytes());
    }

    /// Stamps the epoch of the leader that appends the batch. The CRC does not cover it.
    pub fn set_partition_leader_epoch(&mut self, epoch: LeaderEpoch) {
        self.put(field::PARTITION_LEADER_EPOCH, &epoch.value().to_be_bytes());
    }

    /// Sets the greatest timestamp and who set it. [`BatchHeader::recompute_crc`] must follow.
    pub fn set_max_timestamp(&mut self, max: Option<Timestamp>, timestamp_type: TimestampType) {
        self.put(field::MAX_TIMESTAMP, &Timestamp::to_wire(max).to_be_bytes());
        let rest = self.attributes() & !attribute::LOG_APPEND_TIME;
        let bit = match timestamp_type {
            TimestampType::CreateTime => 0,
            TimestampType::LogAppendTime => attribute::LOG_APPEND_TIME,
        };
        self.put(field::ATTRIBUTES, &(rest | bit).to_be_bytes());
    }

    /// Says that a body of this size in this codec follows. [`BatchHeader::recompute_crc`] must follow.
    ///
    /// # Errors
    /// If the batch would be larger than its length field can say.
    pub fn set_body(
        &mut self,
        compression: Compression,
        body_size_bytes: usize,
    ) -> Result<(), BatchError> {
        let length = body_size_bytes + (HEADER_SIZE_BYTES - LOG_OVERHEAD_BYTES);
        let length = i32::try_from(length).map_err(|_| BatchError::TooLarge { body_size_bytes })?;
        self.put(field::BATCH_LENGTH, &length.to_be_bytes());
        let rest = self.attributes() & !attribute::COMPRESSION_MASK;
        self.put(field::ATTRIBUTES, &(rest | i16::from(compression.id())).to_be_bytes());
        Ok(())
    }

    /// Makes the CRC right for this header with `body` behind it.
    ///
    /// # Panics
    /// If `body` has not the size that the header says.
    pub fn recompute_crc(&mut self, body: &[u8]) {
        assert_eq!(body.len(), self.body_size_bytes(), "the body the header speaks of");
        let crc = crc32c_of_both(&self.bytes[field::ATTRIBUTES..], body);
        self.put(field::CRC, &crc.to_be_bytes());
    }

    /// Checks the CRC of this header with `body` behind it.
    ///
    /// # Errors
    /// If the stored CRC is another one.
    pub fn verify_crc(&self, body: &[u8]) -> Result<(), BatchError> {
        let computed = crc32c_of_both(&self.bytes[field::ATTRIBUTES..], body);
        self.compare_crc(computed)
    }

    /// Checks the CRC over the whole batch in one piece, which is faster.
    pub(super) fn verify_crc_of_whole(&self, batch: &[u8]) -> Result<(), BatchError> {
        self.compare_crc(crc32c(&batch[field::ATTRIBUTES..]))
    }

    fn compare_crc(&self, computed: u32) -> Result<(), BatchError> {
        let stored = self.crc();
        if stored == computed { Ok(()) } else { Err(BatchError::WrongCrc { stored, computed }) }
    }

    fn has(&self, bit: i16) -> bool {
        self.attributes() & bit != 0
    }

    fn put(&mut self, at: usize, value: &[u8]) {
        self.bytes[at..at + value.len()].copy_from_slice(value);
    }

    fn i16_at(&self, at: usize) -> i16 {
        i16::from_be_bytes([self.bytes[at], self.bytes[at + 1]])
    }

    fn i32_at(&self, at: usize) -> i32 {
        i32_at(&self.bytes, at)
    }

    fn i64_at(&self, at: usize) -> i64 {
        i64_at(&self.bytes, at)
    }
}

impl std::fmt::Debug for BatchHeader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BatchHeader")
            .field("base_offset", &self.base_offset())
            .field("last_offset", &self.last_offset())
            .field("batch_size_bytes", &self.batch_size_bytes())
            .field("partition_leader_epoch", &self.partition_leader_epoch())
            .field("crc", &self.crc())
            .field("compression", &self.compression())
            .field("timestamp_type", &self.timestamp_type())
            .field("is_transactional", &self.is_transactional())
            .field("is_control", &self.is_control())
            .field("base_timestamp", &self.base_timestamp())
            .field("max_timestamp", &self.max_timestamp())
            .field("producer", &self.producer())
            .field("record_count", &self.record_count())
            .finish()
    }
}

/// The four bytes at `at`; the caller knows they are there.
pub(crate) fn i32_at(header: &[u8; HEADER_SIZE_BYTES], at: usize) -> i32 {
    i32::from_be_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]])
}

/// The eight bytes at `at`; the caller knows they are there.
pub(crate) fn i64_at(header: &[u8; HEADER_SIZE_BYTES], at: usize) -> i64 {
    let mut value = [0; 8];
    value.copy_from_slice(&header[at..at + 8]);
    i64::from_be_bytes(value)
}
