//! What is wrong with a batch, one variant for each thing a client must be told.

use crate::compression::{Compression, CompressionError};
use crate::record::RecordError;
use crate::record_batch::BatchError;

/// Records listed in an error; a batch can hold more bad ones than an answer should name.
pub const MAX_INVALID_RECORDS: usize = 1000;

/// One record that fails its batch (KIP-467: `record_errors` of Produce v8 and later).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidRecord {
    /// Number of the record in its batch, from 0.
    pub batch_index: i32,
    /// Why, for a person.
    pub message: String,
}

/// Why a batch is refused. The Kafka error is named in parentheses; the broker maps it.
#[derive(Debug, thiserror::Error)]
pub enum ValidationError {
    /// No bytes, or not one whole batch in them (INVALID_RECORD).
    #[error("no complete record batch in {available_bytes} bytes")]
    NoBatch {
        /// How many there are.
        available_bytes: usize,
    },
    /// A second whole batch follows the first (INVALID_RECORD).
    #[error("more than one record batch")]
    MoreThanOneBatch,
    /// A format that Kafka no longer writes (INVALID_RECORD).
    #[error("magic {magic} is no longer accepted, only 2 is")]
    OldMagic {
        /// 0 or 1.
        magic: i8,
    },
    /// A format that never was (CORRUPT_MESSAGE).
    #[error("magic {magic} does not exist")]
    UnknownMagic {
        /// The magic byte.
        magic: i8,
    },
    /// A length that leaves no room for the header (CORRUPT_MESSAGE).
    #[error("batch length {length} is too small")]
    ImpossibleLength {
        /// The length field.
        length: i32,
    },
    /// The producer sets offsets (INVALID_RECORD).
    #[error("base offset is {base_offset}, a producer's is 0")]
    NonZeroBaseOffset {
        /// The base offset field.
        base_offset: i64,
    },
    /// Larger than `max.message.bytes` (MESSAGE_TOO_LARGE).
    #[error("batch of {size_bytes} bytes, max.message.bytes is {max_message_bytes}")]
    TooLarge {
        /// Its size with the header.
        size_bytes: usize,
        /// The topic's limit.
        max_message_bytes: usize,
    },
    /// Larger than `max.message.bytes` in the topic's codec (MESSAGE_TOO_LARGE).
    #[error("batch converted to {} exceeds max.message.bytes {max_message_bytes}", codec.name())]
    ConvertedTooLarge {
        /// The topic's codec.
        codec: Compression,
        /// The topic's limit.
        max_message_bytes: usize,
    },
    /// The bytes are not those that were sent (CORRUPT_MESSAGE).
    #[error("CRC-32C is {computed:#010x}, the batch says {stored:#010x}")]
    WrongCrc {
        /// What the batch says.
        stored: u32,
        /// What its bytes yield.
        computed: u32,
    },
    /// No records, or more or fewer than its offsets (INVALID_RECORD).
    #[error("{record_count} records do not fit a last offset delta of {last_offset_delta}")]
    WrongCounts {
        /// The record count field.
        record_count: i32,
        /// The last offset delta field.
        last_offset_delta: i32,
    },
    /// Clients write no control batches (INVALID_RECORD).
    #[error("clients may not write control batches")]
    ControlBatch,
    /// A producer id without sequence or epoch (INVALID_RECORD).
    #[error("producer id without {missing}")]
    IncompleteProducer {
        /// "sequence" or "epoch".
        missing: &'static str,
    },
    /// Codecs 5 to 7 do not exist (UNKNOWN_SERVER_ERROR, as Kafka says).
    #[error("compression codec {codec} does not exist")]
    UnknownCompression {
        /// The lowest three attribute bits.
        codec: u8,
    },
    /// The records do not decompress (UNKNOWN_SERVER_ERROR, as Kafka says).
    #[error(transparent)]
    Compression(CompressionError),
    /// The records decompress to more than [`super::MAX_DECOMPRESSED_BATCH_BYTES`] (MESSAGE_TOO_LARGE).
    #[error("records decompress to more than {max_bytes} bytes")]
    DecompressedTooLarge {
        /// The limit.
        max_bytes: usize,
    },
    /// Not the records the header announces (INVALID_RECORD).
    #[error(transparent)]
    Records(#[from] RecordError),
    /// The deltas are not 0, 1, 2, … (INVALID_RECORD).
    #[error("record {batch_index} has offset delta {offset_delta}")]
    WrongOffsetDelta {
        /// Number of the record in its batch, from 0.
        batch_index: i32,
        /// What it says.
        offset_delta: i32,
    },
    /// Records without a key on a compacted topic (INVALID_RECORD).
    #[error("one or more records have been rejected: {}", .records[0].message)]
    InvalidRecords {
        /// Which; at least one, at most [`MAX_INVALID_RECORDS`].
        records: Vec<InvalidRecord>,
    },
    /// At least one timestamp out of range, or a LogAppendTime bit from a producer (INVALID_TIMESTAMP). The
    /// list may hold records with other faults too.
    #[error("one or more records have been rejected due to invalid timestamp")]
    InvalidTimestamps {
        /// Which; at least one, at most [`MAX_INVALID_RECORDS`].
        records: Vec<InvalidRecord>,
    },
}

impl ValidationError {
    /// The records to name in the answer; none unless single records are at fault.
    pub fn invalid_records(&self) -> &[InvalidRecord] {
        match self {
            ValidationError::InvalidRecords { records }
            | ValidationError::InvalidTimestamps { records } => records,
            _ => &[],
        }
    }
}

impl From<CompressionError> for ValidationError {
    fn from(error: CompressionError) -> ValidationError {
        match error {
            CompressionError::OutputTooLarge { max_output_bytes, .. } => {
                ValidationError::DecompressedTooLarge { max_bytes: max_output_bytes }
            }
            other => ValidationError::Compression(other),
        }
    }
}

impl From<BatchError> for ValidationError {
    fn from(error: BatchError) -> ValidationError {
        match error {
            BatchError::Truncated { available_bytes, .. } => {
                ValidationError::NoBatch { available_bytes }
            }
            BatchError::InvalidLength { length } => ValidationError::ImpossibleLength { length },
            BatchError::UnsupportedMagic { magic: magic @ (0 | 1) } => {
                ValidationError::OldMagic { magic }
            }
            BatchError::UnsupportedMagic { magic } => ValidationError::UnknownMagic { magic },
            BatchError::InvalidBaseOffset { base_offset } => {
                ValidationError::NonZeroBaseOffset { base_offset }
            }
            BatchError::InvalidLastOffsetDelta { last_offset_delta } => {
                ValidationError::WrongCounts { record_count: 0, last_offset_delta }
            }
            BatchError::InvalidRecordCount { record_count } => {
                ValidationError::WrongCounts { record_count, last_offset_delta: 0 }
            }
            BatchError::UnknownCompression { codec } => {
                ValidationError::UnknownCompression { codec }
            }
            BatchError::InvalidProducerEpoch { .. } => {
                ValidationError::IncompleteProducer { missing: "epoch" }
            }
            BatchError::WrongCrc { stored, computed } => {
                ValidationError::WrongCrc { stored, computed }
            }
            BatchError::TooLarge { body_size_bytes } => ValidationError::TooLarge {
                size_bytes: body_size_bytes,
                max_message_bytes: i32::MAX as usize,
            },
        }
    }
}
