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
