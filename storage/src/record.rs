//! Records inside an uncompressed block (`DefaultRecord.java`). Views: nothing is copied or reserved.
//!
//! One record; varints are zig-zag, a length of -1 is null:
//!
//! | field | type |
//! |---|---|
//! | length of what follows | varint |
//! | attributes, unused | i8 |
//! | timestamp delta | varlong |
//! | offset delta | varint |
//! | key length, key | varint, bytes |
//! | value length, value | varint, bytes; null is a tombstone |
//! | header count | varint |
//! | each header: key length (never null), UTF-8 key, value length, value | |
//!
//! Header keys may repeat and their order matters.

mod stream;
pub(crate) mod varint;

pub(crate) use stream::walk_records_while;
pub use stream::{RecordSummary, WalkError, walk_records};
use varint::{read_i32, read_i64};

/// Why a block does not hold the records its batch announces.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// The block, or a record's own length, ends within a field.
    #[error("record {index} ends within a field, or a length in it is out of range")]
    Malformed {
        /// Number of the record in its batch, from 0.
        index: i32,
    },
    /// A record is longer than its fields.
    #[error("record {index} has {surplus_bytes} bytes after its last field")]
    SurplusInRecord {
        /// Number of the record in its batch, from 0.
        index: i32,
        /// How many.
        surplus_bytes: usize,
    },
    /// Bytes follow the last record the batch announces.
    #[error("bytes follow the last of {count} records")]
    TrailingBytes {
        /// The batch's record count.
        count: i32,
    },
}

/// One record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// Unused, 0.
    pub attributes: i8,
    /// Milliseconds after the batch's base timestamp; see `BatchHeader::record_timestamp`.
    pub timestamp_delta: i64,
    /// Its offset less the batch's base offset.
    pub offset_delta: i32,
    /// The key; an empty one is not a null one.
    pub key: Option<&'a [u8]>,
    /// The value; `None` is a tombstone on a compacted topic.
    pub value: Option<&'a [u8]>,
    /// The headers.
    pub headers: RecordHeaders<'a>,
}

/// One header of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordHeader<'a> {
    /// Its key. Kafka's clients write UTF-8; nothing checks it.
    pub key: &'a [u8],
    /// Its value.
    pub value: Option<&'a [u8]>,
}

/// The headers of a record, in order: an iterator over bytes already checked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RecordHeaders<'a> {
    count: usize,
    bytes: &'a [u8],
}

impl<'a> Iterator for RecordHeaders<'a> {
    type Item = RecordHeader<'a>;

    fn next(&mut self) -> Option<RecordHeader<'a>> {
        self.count = self.count.checked_sub(1)?;
        let header = read_header(&mut self.bytes);
        Some(header.expect("walked once, by Record::parse"))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.count, Some(self.count))
    }
}

impl ExactSizeIterator for RecordHeaders<'_> {}

impl<'a> Record<'a> {
    /// The record at the front of `rest`, which then starts behind it. `index` is for the error.
    #[inline]
    fn parse(rest: &mut &'a [u8], index: i32) -> Result<Record<'a>, RecordError> {
        let malformed = RecordError::Malformed { index };
        let mut bytes = Self::take_whole(rest).ok_or(malformed)?;
        let record = Self::parse_fields(&mut bytes).ok_or(malformed)?;
        if bytes.is_empty() {
            Ok(record)
        } else {
            Err(RecordError::SurplusInRecord { index, surplus_bytes: bytes.len() })
        }
    }

    #[inline]
    fn take_whole(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
        let length = usize::try_from(read_i32(rest)?).ok()?;
        take(rest, length)
    }

    #[inline]
    fn parse_fields(bytes: &mut &'a [u8]) -> Option<Record<'a>> {
        let attributes = take(bytes, 1)?[0] as i8;
        let timestamp_delta = read_i64(bytes)?;
        let offset_delta = read_i32(bytes)?;
        let key = read_nullable(bytes)?;
        let value = read_nullable(bytes)?;
        let count = usize::try_from(read_i32(bytes)?).ok()?;
        let all = *bytes;
        for _ in 0..count {
            // Each header takes two bytes at least, so a false count ends with the record's bytes.
            read_header(bytes)?;
        }
        let headers = RecordHeaders { count, bytes: &all[..all.len() - bytes.len()] };
        Some(Record { attributes, timestamp_delta, offset_delta, key, value, headers })
    }
}

#[inline]
fn take<'a>(bytes: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (taken, rest) = bytes.split_at_checked(length)?;
    *bytes = rest;
    Some(taken)
}

/// Kafka reads any negative length as null; so do we.
#[inline]
fn read_nullable<'a>(bytes: &mut &'a [u8]) -> Option<Option<&'a [u8]>> {
    match usize::try_from(read_i32(bytes)?) {
        Ok(length) => take(bytes, length).map(Some),
        Err(_) => Some(None),
    }
}

#[inline]
fn read_header<'a>(bytes: &mut &'a [u8]) -> Option<RecordHeader<'a>> {
    let key_length = usize::try_from(read_i32(bytes)?).ok()?;
    let key = take(bytes, key_length)?;
    let value = read_nullable(bytes)?;
    Some(RecordHeader { key, value })
}

/// The `count` records in `block`, which is not compressed. Strict: yields an error, and then ends, if the
/// block ends early or bytes follow the last record.
pub fn records(block: &[u8], count: i32) -> Records<'_> {
    Records { rest: block, count, next_index: 0, finished: false }
}

/// See [`records`].
#[derive(Clone, Debug)]
pub struct Records<'a> {
    rest: &'a [u8],
    count: i32,
    next_index: i32,
    finished: bool,
}

impl<'a> Iterator for Records<'a> {
    type Item = Result<Record<'a>, RecordError>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if self.finished {
            return None;
        }
        if self.next_index >= self.count {
            self.finished = true;
            let trailing = !self.rest.is_empty();
            return trailing.then_some(Err(RecordError::TrailingBytes { count: self.count }));
        }
        let record = Record::parse(&mut self.rest, self.next_index);
        self.next_index += 1;
        self.finished = record.is_err();
        Some(record)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compression::{Compression, compress};
    use crate::record_batch::{RecordBatch, RecordBatchBuilder};
    use crate::timestamp::Timestamp;
    use proptest::prelude::*;

    type OwnedHeaders = Vec<(Vec<u8>, Option<Vec<u8>>)>;
    type OwnedRecord = (i64, Option<Vec<u8>>, Option<Vec<u8>>, OwnedHeaders);

    fn arb_records() -> impl Strategy<Value = Vec<OwnedRecord>> {
        let bytes = || prop::collection::vec(any::<u8>(), 0..40);
        let headers = prop::collection::vec((bytes(), prop::option::of(bytes())), 0..4);
        prop::collection::vec(
            (0i64..i64::MAX, prop::option::of(bytes()), prop::option::of(bytes()), headers),
            0..20,
        )
    }

    fn batch_of(records: &[OwnedRecord], codec: Compression) -> Vec<u8> {
        let mut builder = RecordBatchBuilder::new().compression(codec, None);
        for (timestamp, key, value, headers) in records {
            let headers: Vec<_> =
                headers.iter().map(|(key, value)| (&key[..], value.as_deref())).collect();
            builder.push(Timestamp::new(*timestamp), key.as_deref(), value.as_deref(), &headers);
        }
        builder.build().unwrap()
    }

    fn fields(batch: &RecordBatch<'_>) -> Vec<OwnedRecord> {
        let to_owned = |record: Record<'_>| {
            let timestamp = batch.record_timestamp(record.timestamp_delta);
            let headers = record
                .headers
                .map(|header| (header.key.to_vec(), header.value.map(<[u8]>::to_vec)))
                .collect();
            let (key, value) = (record.key.map(<[u8]>::to_vec), record.value.map(<[u8]>::to_vec));
            (Timestamp::to_wire(timestamp), key, value, headers)
        };
        batch.uncompressed_records().unwrap().map(|record| to_owned(record.unwrap())).collect()
    }

    /// Length 9, attributes 0, timestamp delta 0, offset delta 0, key "k", value null, 1 header "h"=null.
    const RECORD: [u8; 11] = [20, 0, 0, 0, 2, b'k', 1, 2, 2, b'h', 1];

    #[test]
    fn a_record_has_kafkas_bytes() {
        let batch =
            RecordBatchBuilder::new().record(Timestamp::new(5), Some(b"k"), None, &[(b"h", None)]);
        let bytes = batch.build().unwrap();
        let (batch, _) = RecordBatch::parse(&bytes).unwrap();
        assert_eq!(batch.records_block(), RECORD);
    }

    #[test]
    fn the_count_is_strict() {
        fn all(block: &[u8], count: i32) -> Vec<Result<Record<'_>, RecordError>> {
            records(block, count).collect()
        }
        assert!(all(&RECORD, 1)[0].is_ok());
        assert_eq!(all(&RECORD, 1).len(), 1);
        assert_eq!(all(&RECORD, 0), [Err(RecordError::TrailingBytes { count: 0 })]);
        assert_eq!(all(&RECORD, 2)[1], Err(RecordError::Malformed { index: 1 }));
        assert_eq!(all(&RECORD, 2).len(), 2, "it ends after the error");
    }

    #[test]
    fn a_record_longer_or_shorter_than_its_fields_is_refused() {
        let mut longer = RECORD.to_vec();
        longer[0] += 2;
        longer.push(0);
        let error = RecordError::SurplusInRecord { index: 0, surplus_bytes: 1 };
        assert_eq!(records(&longer, 1).next(), Some(Err(error)));
        let mut shorter = RECORD.to_vec();
        shorter[0] -= 2;
        assert_eq!(
            records(&shorter, 1).next(),
            Some(Err(RecordError::Malformed { index: 0 })),
            "its header's value lies outside"
        );
    }

    #[test]
    fn null_and_false_header_keys_and_counts_are_refused() {
        for (at, byte) in [(8, 1), (7, 1), (7, 254), (4, 254), (0, 1)] {
            let mut bad = RECORD;
            bad[at] = byte;
            let first = records(&bad, 1).next().unwrap();
            assert!(first.is_err(), "byte {at} = {byte}: {first:?}");
        }
    }

    proptest! {
        #[test]
        fn records_read_back_with_their_duplicate_headers_and_nulls(records in arb_records()) {
            let bytes = batch_of(&records, Compression::None);
            let (batch, size) = RecordBatch::parse(&bytes).unwrap();
            prop_assert_eq!(size, bytes.len());
            prop_assert_eq!(fields(&batch), records);
        }

        /// The walk over a compressed block sees what the views see, in every codec.
        #[test]
        fn walking_equals_reading(records in arb_records(), large in 0usize..200_000) {
            let mut records = records;
            if let Some((_, key, ..)) = records.last_mut() {
                *key = Some(vec![1; large]); // past the decompressor's chunk
            }
            let bytes = batch_of(&records, Compression::None);
            let (batch, _) = RecordBatch::parse(&bytes).unwrap();
            let expected: Vec<_> = batch.uncompressed_records().unwrap().map(|record| {
                let Record { timestamp_delta, offset_delta, key, .. } = record.unwrap();
                RecordSummary { timestamp_delta, offset_delta, has_key: key.is_some() }
            }).collect();
            let (block, count) = (batch.records_block(), batch.record_count());
            for codec in Compression::ALL {
                let compressed = match codec {
                    Compression::None => block.to_vec(),
                    codec => compress(codec, None, block).unwrap(),
                };
                let mut seen = Vec::new();
                walk_records(codec, &compressed, count, 1 << 20, |record| seen.push(record)).unwrap();
                prop_assert_eq!(&seen, &expected);
                for wrong in [count + 1, count - 1].into_iter().filter(|wrong| *wrong >= 0) {
                    let walked = walk_records(codec, &compressed, wrong, 1 << 20, |_| {});
                    prop_assert!(matches!(walked, Err(WalkError::Record(_))), "{:?}", walked);
                }
            }
        }

        /// The fast way and the way across chunks agree on hostile records too.
        #[test]
        fn damaged_records_are_refused_alike_in_and_out_of_a_codec(
            records in arb_records(),
            at in any::<prop::sample::Index>(),
            byte in any::<u8>(),
        ) {
            let mut bytes = batch_of(&records, Compression::None);
            let (batch, _) = RecordBatch::parse(&bytes).unwrap();
            let count = batch.record_count();
            let mut block = bytes.split_off(crate::record_batch::HEADER_SIZE_BYTES);
            if !block.is_empty() {
                let at = at.index(block.len());
                block[at] = byte;
            }
            let mut plain = Vec::new();
            let plain_result = walk_records(Compression::None, &block, count, 1 << 20, |r| plain.push(r));
            let packed = compress(Compression::Snappy, None, &block).unwrap();
            let mut walked = Vec::new();
            let walked_result = walk_records(Compression::Snappy, &packed, count, 1 << 20, |r| walked.push(r));
            prop_assert_eq!(plain, walked);
            prop_assert_eq!(plain_result.is_ok(), walked_result.is_ok());
        }

        #[test]
        fn any_bytes_are_records_or_refused(
            block in prop::collection::vec(any::<u8>(), 0..300),
            count in any::<i32>(),
        ) {
            for record in records(&block, count).flatten() {
                record.headers.for_each(drop);
            }
        }
    }
}
