//! Record batch v2 (`DefaultRecordBatch.java`): the unit that is sent, stored and replicated, as it came.
//!
//! Big-endian. A batch is never re-encoded (DESIGN D5): the leader patches its header only.
//!
//! | at | size | field | notes |
//! |---|---|---|---|
//! | 0 | 8 | base offset | not in the CRC; set by the leader |
//! | 8 | 4 | batch length | of what follows it; batch size = length + 12; not in the CRC |
//! | 12 | 4 | partition leader epoch | not in the CRC; set by the leader; -1 from producers |
//! | 16 | 1 | magic = 2 | not in the CRC |
//! | 17 | 4 | CRC-32C | of bytes 21 to the end |
//! | 21 | 2 | attributes | 0–2 codec, 3 LogAppendTime, 4 transactional, 5 control, 6 delete horizon |
//! | 23 | 4 | last offset delta | survives compaction |
//! | 27 | 8 | base timestamp | or the delete horizon |
//! | 35 | 8 | max timestamp | |
//! | 43 | 8 | producer id | -1 none |
//! | 51 | 2 | producer epoch | -1 none |
//! | 53 | 4 | base sequence | -1 none |
//! | 57 | 4 | record count | |
//! | 61 | … | records, compressed as one block | see [`crate::record`] |

mod builder;
mod control;
mod header;

use std::ops::Deref;

pub use builder::{BuildError, RecordBatchBuilder};
pub use control::{ControlRecordType, EndTransactionMarker};
pub(crate) use header::field;
pub use header::{BatchHeader, HEADER_SIZE_BYTES, LOG_OVERHEAD_BYTES, MAGIC};

use crate::producer_state::{ProducerEpoch, ProducerId};
use crate::record::{Records, records};

/// Who sets the timestamps of a batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TimestampType {
    /// The producer, record by record.
    #[default]
    CreateTime,
    /// The leader, one for the whole batch, as it appends.
    LogAppendTime,
}

/// The producer fields of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchProducer {
    /// Its id.
    pub id: ProducerId,
    /// Its epoch.
    pub epoch: ProducerEpoch,
    /// The sequence numbers of its records; `None` in markers.
    pub sequences: Option<BatchSequences>,
}

/// First and last sequence number of a batch, both inclusive, never negative. They wrap after 2^31 - 1, so
/// `last` may be the smaller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchSequences {
    /// Sequence number of the first record.
    pub first: i32,
    /// Sequence number of the last record.
    pub last: i32,
}

/// Why bytes are no batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BatchError {
    /// The bytes end before the header or the batch does. In a file: a torn tail, or a read that was cut.
    #[error("batch needs {needed_bytes} bytes, there are {available_bytes}")]
    Truncated {
        /// What the batch needs.
        needed_bytes: usize,
        /// What there is.
        available_bytes: usize,
    },
    /// A batch length that leaves no room for the header.
    #[error("batch length {length} is smaller than a header")]
    InvalidLength {
        /// The length field.
        length: i32,
    },
    /// Not format 2.
    #[error("magic {magic}, only 2 is supported")]
    UnsupportedMagic {
        /// The magic byte.
        magic: i8,
    },
    /// A negative base offset.
    #[error("base offset {base_offset} is negative")]
    InvalidBaseOffset {
        /// The base offset field.
        base_offset: i64,
    },
    /// A negative delta, or one that leads past the greatest offset.
    #[error("last offset delta {last_offset_delta} is out of range")]
    InvalidLastOffsetDelta {
        /// The field.
        last_offset_delta: i32,
    },
    /// A negative count.
    #[error("record count {record_count} is negative")]
    InvalidRecordCount {
        /// The field.
        record_count: i32,
    },
    /// Codecs 5 to 7 do not exist.
    #[error("compression codec {codec} does not exist")]
    UnknownCompression {
        /// The lowest three attribute bits.
        codec: u8,
    },
    /// A producer id without an epoch.
    #[error("producer epoch {epoch} is negative")]
    InvalidProducerEpoch {
        /// The field.
        epoch: i16,
    },
    /// The bytes are not those that were written.
    #[error("CRC-32C is {computed:#010x}, the batch says {stored:#010x}")]
    WrongCrc {
        /// What the batch says.
        stored: u32,
        /// What its bytes yield.
        computed: u32,
    },
    /// More than the length field can say.
    #[error("a body of {body_size_bytes} bytes does not fit a batch")]
    TooLarge {
        /// Size of what should follow the header.
        body_size_bytes: usize,
    },
}

/// A view over the bytes of exactly one batch, whose header is range-checked. The CRC is checked by
/// [`RecordBatch::verify_crc`] only. All accessors of [`BatchHeader`] are at hand by `Deref`.
#[derive(Clone, Copy)]
pub struct RecordBatch<'a> {
    header: BatchHeader,
    bytes: &'a [u8],
}

impl<'a> RecordBatch<'a> {
    /// The batch at the start of `bytes`, and its size in bytes.
    ///
    /// # Errors
    /// [`BatchError::Truncated`] if `bytes` ends before the batch does; otherwise the field out of range.
    pub fn parse(bytes: &'a [u8]) -> Result<(RecordBatch<'a>, usize), BatchError> {
        let header = BatchHeader::parse(bytes)?;
        let needed_bytes = header.batch_size_bytes();
        let Some(bytes) = bytes.get(..needed_bytes) else {
            return Err(BatchError::Truncated { needed_bytes, available_bytes: bytes.len() });
        };
        Ok((RecordBatch { header, bytes }, needed_bytes))
    }

    /// The header, copied.
    pub fn header(&self) -> &BatchHeader {
        &self.header
    }

    /// All bytes of the batch.
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// What follows the header: the records, in the batch's codec.
    pub fn records_block(&self) -> &'a [u8] {
        &self.bytes[HEADER_SIZE_BYTES..]
    }

    /// Checks the CRC.
    ///
    /// # Errors
    /// [`BatchError::WrongCrc`].
    pub fn verify_crc(&self) -> Result<(), BatchError> {
        self.header.verify_crc_of_whole(self.bytes)
    }

    /// The records, if the batch is not compressed. Otherwise decompress [`RecordBatch::records_block`]
    /// (bounded) and walk it with [`crate::record::records`].
    pub fn uncompressed_records(&self) -> Option<Records<'a>> {
        (self.compression() == crate::compression::Compression::None)
            .then(|| records(self.records_block(), self.record_count()))
    }
}

impl Deref for RecordBatch<'_> {
    type Target = BatchHeader;

    fn deref(&self) -> &BatchHeader {
        &self.header
    }
}

impl std::fmt::Debug for RecordBatch<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.header.fmt(f)
    }
}

/// The batches that lie end to end in `bytes`. Stops after the first error; bytes that end within a batch
/// are [`BatchError::Truncated`].
pub fn batches(bytes: &[u8]) -> Batches<'_> {
    Batches { rest: bytes, position: 0 }
}

/// See [`batches`].
#[derive(Clone, Debug)]
pub struct Batches<'a> {
    rest: &'a [u8],
    position: usize,
}

impl Batches<'_> {
    /// Byte position, in the slice given to [`batches`], of the next batch, or of the one in error.
    pub fn position(&self) -> usize {
        self.position
    }
}

impl<'a> Iterator for Batches<'a> {
    type Item = Result<RecordBatch<'a>, BatchError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        match RecordBatch::parse(self.rest) {
            Ok((batch, size)) => {
                self.rest = &self.rest[size..];
                self.position += size;
                Some(Ok(batch))
            }
            Err(error) => {
                self.rest = &[];
                Some(Err(error))
            }
        }
    }
}
