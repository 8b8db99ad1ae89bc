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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compression::{Compression, decompress};
    use crate::leader_epoch::LeaderEpoch;
    use crate::offset::Offset;
    use crate::timestamp::Timestamp;
    use proptest::prelude::*;

    fn timestamp(value: i64) -> Option<Timestamp> {
        Timestamp::new(value)
    }

    fn simple() -> Vec<u8> {
        let builder = RecordBatchBuilder::new()
            .record(timestamp(1000), Some(b"a"), Some(b"1"), &[])
            .record(timestamp(900), None, None, &[]);
        builder.build().unwrap()
    }

    fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
        bytes[at..at + value.len()].copy_from_slice(value);
    }

    #[test]
    fn a_batch_has_kafkas_bytes() {
        let builder = RecordBatchBuilder::new()
            .base_offset(Offset::new(7).unwrap())
            .leader_epoch(LeaderEpoch::new(3).unwrap())
            .producer(ProducerId::new(11).unwrap(), ProducerEpoch::new(2).unwrap(), Some(40))
            .transactional()
            .record(timestamp(1000), Some(b"k"), Some(b"v"), &[]);
        let bytes = builder.build().unwrap();
        let mut expected = Vec::new();
        expected.extend(7i64.to_be_bytes());
        expected.extend(58i32.to_be_bytes()); // 49 + 9
        expected.extend(3i32.to_be_bytes());
        expected.push(2);
        expected.extend(bytes[17..21].to_vec()); // the CRC, checked below
        expected.extend(0x10i16.to_be_bytes());
        expected.extend(0i32.to_be_bytes());
        expected.extend(1000i64.to_be_bytes());
        expected.extend(1000i64.to_be_bytes());
        expected.extend(11i64.to_be_bytes());
        expected.extend(2i16.to_be_bytes());
        expected.extend(40i32.to_be_bytes());
        expected.extend(1i32.to_be_bytes());
        expected.extend([16, 0, 0, 0, 2, b'k', 2, b'v', 0]);
        assert_eq!(bytes, expected);
        let crc = u32::from_be_bytes([bytes[17], bytes[18], bytes[19], bytes[20]]);
        assert_eq!(crc, crate::crc32c::crc32c(&bytes[21..]));
    }

    #[test]
    fn sequences_and_maximum_timestamp_are_seen() {
        let producer = (ProducerId::new(1).unwrap(), ProducerEpoch::ZERO);
        let mut builder =
            RecordBatchBuilder::new().producer(producer.0, producer.1, Some(i32::MAX));
        for time in [5, 9, 7] {
            builder.push(timestamp(time), None, Some(b"x"), &[]);
        }
        let bytes = builder.build().unwrap();
        let (batch, _) = RecordBatch::parse(&bytes).unwrap();
        assert_eq!(batch.max_timestamp(), timestamp(9));
        let sequences = batch.producer().unwrap().sequences;
        assert_eq!(sequences, Some(BatchSequences { first: i32::MAX, last: 1 }));
        assert_eq!(batch.next_offset(), Offset::new(3).unwrap());
    }

    #[test]
    fn patching_offset_and_epoch_leaves_the_crc_alone() {
        let mut bytes = simple();
        let mut header = BatchHeader::parse(&bytes).unwrap();
        header.set_base_offset(Offset::new(1 << 40).unwrap());
        header.set_partition_leader_epoch(LeaderEpoch::new(9).unwrap());
        put(&mut bytes, 0, header.as_bytes());
        let (batch, _) = RecordBatch::parse(&bytes).unwrap();
        assert_eq!(batch.verify_crc(), Ok(()));
        assert_eq!(batch.last_offset(), Offset::new((1 << 40) + 1).unwrap());
        assert_eq!(batch.partition_leader_epoch(), LeaderEpoch::new(9));
    }

    #[test]
    fn patching_the_timestamp_needs_a_new_crc() {
        let mut bytes = simple();
        let mut header = BatchHeader::parse(&bytes).unwrap();
        header.set_max_timestamp(timestamp(5000), TimestampType::LogAppendTime);
        let body = &bytes[HEADER_SIZE_BYTES..];
        assert!(matches!(header.verify_crc(body), Err(BatchError::WrongCrc { .. })));
        header.recompute_crc(body);
        assert_eq!(header.verify_crc(body), Ok(()));
        put(&mut bytes, 0, header.as_bytes());
        let (batch, _) = RecordBatch::parse(&bytes).unwrap();
        assert_eq!(batch.verify_crc(), Ok(()));
        assert_eq!(batch.timestamp_type(), TimestampType::LogAppendTime);
        assert_eq!(batch.record_timestamp(-100), timestamp(5000), "one time for all records");
    }

    #[test]
    fn fields_out_of_range_are_refused_by_name() {
        let with = |at: usize, value: &[u8]| {
            let mut bytes = simple();
            put(&mut bytes, at, value);
            RecordBatch::parse(&bytes).map(|_| ()).unwrap_err()
        };
        let length = 48;
        assert_eq!(with(8, &48i32.to_be_bytes()), BatchError::InvalidLength { length });
        assert!(matches!(with(8, &i32::MAX.to_be_bytes()), BatchError::Truncated { .. }));
        assert_eq!(with(16, &[1]), BatchError::UnsupportedMagic { magic: 1 });
        let base_offset = -1i64;
        let invalid = BatchError::InvalidBaseOffset { base_offset };
        assert_eq!(with(0, &base_offset.to_be_bytes()), invalid);
        let last_offset_delta = 1;
        let past_the_end = BatchError::InvalidLastOffsetDelta { last_offset_delta };
        assert_eq!(with(0, &(i64::MAX - 1).to_be_bytes()), past_the_end);
        let last_offset_delta = -1;
        let negative = BatchError::InvalidLastOffsetDelta { last_offset_delta };
        assert_eq!(with(23, &last_offset_delta.to_be_bytes()), negative);
        let record_count = -2;
        let negative = BatchError::InvalidRecordCount { record_count };
        assert_eq!(with(57, &record_count.to_be_bytes()), negative);
        assert_eq!(with(22, &[5]), BatchError::UnknownCompression { codec: 5 });
        assert_eq!(with(43, &[0; 8]), BatchError::InvalidProducerEpoch { epoch: -1 });
    }

    #[test]
    fn batches_end_with_the_bytes_or_at_the_torn_tail() {
        let one = simple();
        let mut bytes = one.repeat(3);
        assert_eq!(batches(&bytes).count(), 3);
        bytes.truncate(one.len() * 3 - 1);
        let mut all = batches(&bytes);
        assert!(all.next().unwrap().is_ok());
        assert!(all.next().unwrap().is_ok());
        assert_eq!(all.position(), one.len() * 2);
        let needed_bytes = one.len();
        let torn = BatchError::Truncated { needed_bytes, available_bytes: needed_bytes - 1 };
        assert_eq!(all.next().unwrap().unwrap_err(), torn);
        assert_eq!(all.position(), one.len() * 2);
        assert!(all.next().is_none());
    }

    #[test]
    fn an_empty_batch_keeps_its_offsets() {
        let builder = RecordBatchBuilder::new().last_offset_delta(9);
        let bytes = builder.base_offset(Offset::new(20).unwrap()).build().unwrap();
        let (batch, _) = RecordBatch::parse(&bytes).unwrap();
        assert_eq!((batch.record_count(), batch.last_offset().value()), (0, 29));
    }

    proptest! {
        #[test]
        fn what_is_built_is_seen(
            base in 0i64..1 << 50, epoch in prop::option::of(0i32..), codec in 0u8..5,
            times in prop::collection::vec(prop::option::of(0i64..1 << 45), 1..30),
            producer in prop::option::of((0i64.., 0i16.., 0i32..)),
            transactional: bool, control: bool, append_time in prop::option::of(0i64..1 << 45),
        ) {
            let codec = Compression::from_id(codec).unwrap();
            let mut builder = RecordBatchBuilder::new()
                .base_offset(Offset::new(base).unwrap())
                .compression(codec, None);
            if let Some(epoch) = epoch { builder = builder.leader_epoch(LeaderEpoch::new(epoch).unwrap()); }
            let producer = producer.map(|(id, epoch, first)| {
                let delta = times.len() as i32 - 1;
                let last = crate::producer_state::increment_sequence(first, delta);
                let sequences = Some(BatchSequences { first, last });
                BatchProducer { id: ProducerId::new(id).unwrap(), epoch: ProducerEpoch::new(epoch).unwrap(), sequences }
            });
            if let Some(BatchProducer { id, epoch, sequences }) = producer {
                builder = builder.producer(id, epoch, sequences.map(|s| s.first));
            }
            if transactional { builder = builder.transactional(); }
            if control { builder = builder.control(); }
            if let Some(time) = append_time { builder = builder.log_append_time(timestamp(time).unwrap()); }
            for time in &times { builder.push(time.and_then(timestamp), Some(b"k"), None, &[]); }
            let bytes = builder.build().unwrap();

            let (batch, size) = RecordBatch::parse(&bytes).unwrap();
            prop_assert_eq!(size, bytes.len());
            prop_assert_eq!(batch.verify_crc(), Ok(()));
            prop_assert_eq!(batch.base_offset().value(), base);
            prop_assert_eq!(batch.next_offset().value(), base + times.len() as i64);
            prop_assert_eq!(batch.partition_leader_epoch(), epoch.and_then(LeaderEpoch::new));
            prop_assert_eq!(batch.compression(), codec);
            prop_assert_eq!(batch.producer(), producer);
            prop_assert_eq!((batch.is_transactional(), batch.is_control()), (transactional, control));
            let greatest = times.iter().flatten().max().copied();
            prop_assert_eq!(batch.max_timestamp(), append_time.or(greatest).and_then(timestamp));
            let block = decompress(codec, batch.records_block(), 1 << 20).unwrap();
            let seen: Vec<_> = records(&block, batch.record_count())
                .map(|record| batch.record_timestamp(record.unwrap().timestamp_delta))
                .collect();
            let expected: Vec<_> = times.iter().map(|time| append_time.or(*time).and_then(timestamp)).collect();
            prop_assert_eq!(seen, expected);
        }

        /// Any damage outside the three fields the CRC leaves out is noticed.
        #[test]
        fn a_flipped_bit_is_noticed(at in any::<prop::sample::Index>(), bit in 0u8..8) {
            let mut bytes = simple();
            let at = 16 + at.index(bytes.len() - 16);
            bytes[at] ^= 1 << bit;
            let noticed = match RecordBatch::parse(&bytes) {
                Ok((batch, _)) => batch.verify_crc().is_err(),
                Err(_) => true,
            };
            prop_assert!(noticed);
        }

        #[test]
        fn any_bytes_are_a_batch_or_refused(
            mut bytes in prop::collection::vec(any::<u8>(), 0..200),
            length in 40i32..220,
        ) {
            if bytes.len() > 16 {
                put(&mut bytes, 8, &length.to_be_bytes());
                bytes[16] = 2;
                bytes[0] &= 0x7f;
            }
            for batch in batches(&bytes).flatten() {
                let _ = (batch.next_offset(), batch.producer(), batch.max_timestamp(), batch.verify_crc());
                let _ = (batch.delete_horizon(), EndTransactionMarker::in_batch(&batch), batch.header());
                prop_assert!(batch.bytes().len() == batch.batch_size_bytes());
                let _ = format!("{batch:?}");
            }
        }
    }
}
