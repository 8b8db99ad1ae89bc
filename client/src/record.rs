//! Records and record batches (magic 2) as a client sees them; a codec of our own, because the protocol crate's loses
//! duplicate header keys and the timestamp type, and reserves memory from counts on the wire.
//!
//! | offset | size | field |
//! |---|---|---|
//! | 0 | 8 | base offset |
//! | 8 | 4 | batch length: the bytes after this field |
//! | 12 | 4 | partition leader epoch |
//! | 16 | 1 | magic, 2 |
//! | 17 | 4 | CRC-32C of everything from byte 21 |
//! | 21 | 2 | attributes: 0–2 compression, 3 log append time, 4 transactional, 5 control |
//! | 23 | 4 | last offset delta |
//! | 27 | 8 | base timestamp |
//! | 35 | 8 | max timestamp |
//! | 43 | 8 | producer id, -1 for none |
//! | 51 | 2 | producer epoch |
//! | 53 | 4 | base sequence |
//! | 57 | 4 | record count |
//! | 61 | … | records, compressed as one block |
//!
//! Record: varint length, int8 attributes, varlong timestamp delta, varint offset delta, varint-length key and value
//! (-1 null), varint header count, per header a varint-length key and value (value -1 null). Varints are zig-zag.

mod batch;
mod builder;
mod compression;
mod control;
mod varint;

use bytes::Bytes;

pub use batch::{BatchReader, RecordBatch, Records};
pub(crate) use builder::restamp;
pub use builder::{BatchBuilder, ProducerStamp};
pub use compression::Compression;
pub use control::ControlRecord;

/// Bytes of a batch before its records.
pub const BATCH_HEADER_SIZE_BYTES: usize = 61;

/// A record as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Its place in the partition.
    pub offset: i64,
    /// Milliseconds since 1970; `None` if the producer gave none.
    pub timestamp: Option<i64>,
    /// Null is not empty.
    pub key: Option<Bytes>,
    /// Null is a tombstone.
    pub value: Option<Bytes>,
    /// In their order; keys may repeat.
    pub headers: Headers,
}

/// A record's headers, still encoded; proven well-formed when they were read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Headers {
    count: usize,
    encoded: Bytes,
}

/// One header. Kafka writes keys as UTF-8; some clients do not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// Its name.
    pub key: Bytes,
    /// Null is not empty.
    pub value: Option<Bytes>,
}

impl Headers {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// In their order.
    pub fn iter(&self) -> impl Iterator<Item = Header> + use<> {
        let mut encoded = self.encoded.clone();
        (0..self.count).map(move |_| {
            batch::read_header(&mut encoded)
                .expect("Headers are only made of bytes that were read once")
        })
    }
}

/// Why bytes are no record batch, or records make none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// Of the time before Kafka 0.11; brokers since 4.0 convert or refuse them.
    #[error("message format {magic} (before Kafka 0.11) cannot be read")]
    MagicUnsupported {
        /// As on the wire.
        magic: i8,
    },
    /// A batch whose length has no room for its header.
    #[error("a batch of {length} bytes is shorter than its header")]
    LengthInvalid {
        /// The length field.
        length: i32,
    },
    /// Bytes were changed on the way or on disk.
    #[error("the batch at offset {base_offset} fails its CRC-32C")]
    CrcMismatch {
        /// Where it says it begins.
        base_offset: i64,
    },
    /// The header contradicts itself.
    #[error("the batch at offset {base_offset} is corrupt: {reason}")]
    HeaderInvalid {
        /// Where it says it begins.
        base_offset: i64,
        /// How.
        reason: &'static str,
    },
    /// A record that ends outside its batch, or a length that makes no sense.
    #[error("a record is corrupt: {reason}")]
    RecordInvalid {
        /// How.
        reason: &'static str,
    },
    /// Compression 5, 6 or 7.
    #[error("compression {id} is not known")]
    CompressionUnknown {
        /// As on the wire.
        id: u8,
    },
    /// The block does not decompress.
    #[error("{compression} data is corrupt: {reason}")]
    CompressionInvalid {
        /// Which codec.
        compression: Compression,
        /// What it said.
        reason: String,
    },
    /// More than anybody wants to unpack at once.
    #[error("the block decompresses to more than {limit} bytes")]
    DecompressedTooLarge {
        /// The limit.
        limit: usize,
    },
    /// What a batch's 32-bit length, or a record's, cannot say.
    #[error("a record or batch of more than 2 GiB")]
    TooLarge,
}
