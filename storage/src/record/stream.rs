//! Walks the records of a block as it is decompressed, in constant memory: keys and values are skipped, so
//! a small batch that decompresses to gigabytes costs the time its limit allows and no memory.

use std::io::{self, BufRead};

use super::{Record, RecordError, varint};
use crate::compression::{Compression, CompressionError, Decompressor};

/// What the broker looks at in a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordSummary {
    /// Milliseconds after the batch's base timestamp; see `BatchHeader::record_timestamp`.
    pub timestamp_delta: i64,
    /// Its offset less the batch's base offset.
    pub offset_delta: i32,
    /// Whether its key is not null.
    pub has_key: bool,
}

/// Why a compressed block does not hold the records its batch announces.
#[derive(Debug, thiserror::Error)]
pub enum WalkError {
    /// The codec failed, or the block yields more than allowed.
    #[error(transparent)]
    Compression(#[from] CompressionError),
    /// It decompresses, but not to these records.
    #[error(transparent)]
    Record(#[from] RecordError),
}

/// Calls `see` with each of the `count` records in `block`, in order. At most `max_output_bytes` are
/// decompressed; an uncompressed block is only read.
///
/// # Errors
/// If the block is corrupt, yields more than allowed, ends early, or goes on after the last record. `see`
/// may have been called for records before the fault.
pub fn walk_records(
    codec: Compression,
    block: &[u8],
    count: i32,
    max_output_bytes: usize,
    mut see: impl FnMut(RecordSummary),
) -> Result<(), WalkError> {
    if codec == Compression::None {
        for record in super::records(block, count) {
            see(RecordSummary::of(&record?));
        }
        return Ok(());
    }
    let mut stream = Stream { reader: Decompressor::new(codec, block, max_output_bytes)? };
    for index in 0..count {
        see(stream.next_record(index)?);
    }
    if stream.chunk()?.is_empty() {
        Ok(())
    } else {
        Err(RecordError::TrailingBytes { count }.into())
    }
}

/// Calls `see` with the records in `block`, in order, until it returns false. No more is decompressed than that needs.
///
/// # Errors
/// As [`walk_records`], for faults before that record.
pub(crate) fn walk_records_while(
    codec: Compression,
    block: &[u8],
    count: i32,
    max_output_bytes: usize,
    mut see: impl FnMut(RecordSummary) -> bool,
) -> Result<(), WalkError> {
    if codec == Compression::None {
        for record in super::records(block, count) {
            if !see(RecordSummary::of(&record?)) {
                break;
            }
        }
        return Ok(());
    }
    let mut stream = Stream { reader: Decompressor::new(codec, block, max_output_bytes)? };
    for index in 0..count {
        if !see(stream.next_record(index)?) {
            break;
        }
    }
    Ok(())
}

impl RecordSummary {
    #[inline]
    fn of(record: &Record<'_>) -> RecordSummary {
        RecordSummary {
            timestamp_delta: record.timestamp_delta,
            offset_delta: record.offset_delta,
            has_key: record.key.is_some(),
        }
    }
}

struct Stream<'a> {
    reader: Decompressor<'a>,
}

impl Stream<'_> {
    /// The bytes at hand; empty at the end.
    fn chunk(&mut self) -> Result<&[u8], CompressionError> {
        // The second call is free: the chunk is there. (One call cannot both lend it and map the error.)
        if let Err(error) = fill(&mut self.reader) {
            return Err(self.reader.error(error));
        }
        match self.reader.fill_buf() {
            Ok(chunk) => Ok(chunk),
            Err(_) => Ok(&[]),
        }
    }

    fn next_record(&mut self, index: i32) -> Result<RecordSummary, WalkError> {
        let chunk = self.chunk()?;
        let mut rest = chunk;
        if let Some(length) = varint::read_i32(&mut rest)
            && usize::try_from(length).is_ok_and(|length| length <= rest.len())
        {
            // Whole in this chunk, as nearly all are.
            let mut rest = chunk;
            let summary = RecordSummary::of(&Record::parse(&mut rest, index)?);
            let consumed = chunk.len() - rest.len();
            self.reader.consume(consumed);
            return Ok(summary);
        }
        self.next_record_across_chunks(index)
    }

    fn next_record_across_chunks(&mut self, index: i32) -> Result<RecordSummary, WalkError> {
        let malformed = RecordError::Malformed { index };
        // The length is at most five bytes, which its own varint says.
        let mut length = Fields { stream: self, index, remaining_bytes: varint::MAX_I32_BYTES };
        let length = usize::try_from(length.i32()?).map_err(|_| malformed)?;
        let mut fields = Fields { stream: self, index, remaining_bytes: length };
        fields.skip(1)?;
        let timestamp_delta = fields.i64()?;
        let offset_delta = fields.i32()?;
        let has_key = fields.skip_nullable()?;
        fields.skip_nullable()?;
        let header_count = fields.i32()?;
        if header_count < 0 {
            return Err(malformed.into());
        }
        for _ in 0..header_count {
            if !fields.skip_nullable()? {
                return Err(malformed.into()); // a header's key is never null
            }
            fields.skip_nullable()?;
        }
        match fields.remaining_bytes {
            0 => Ok(RecordSummary { timestamp_delta, offset_delta, has_key }),
            surplus_bytes => Err(RecordError::SurplusInRecord { index, surplus_bytes }.into()),
        }
    }
}

fn fill(reader: &mut Decompressor<'_>) -> io::Result<()> {
    loop {
        match reader.fill_buf() {
            Ok(_) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// The fields of one record, byte by byte; never past its length.
struct Fields<'s, 'a> {
    stream: &'s mut Stream<'a>,
    index: i32,
    remaining_bytes: usize,
}

impl Fields<'_, '_> {
    fn skip(&mut self, mut count: usize) -> Result<(), WalkError> {
        let malformed = RecordError::Malformed { index: self.index };
        self.remaining_bytes = self.remaining_bytes.checked_sub(count).ok_or(malformed)?;
        while count > 0 {
            let available = self.stream.chunk()?.len();
            if available == 0 {
                return Err(malformed.into());
            }
            let skipped = available.min(count);
            self.stream.reader.consume(skipped);
            count -= skipped;
        }
        Ok(())
    }

    /// Collects the bytes of a varint, which `read` then reads.
    fn varint<T>(
        &mut self,
        max_bytes: usize,
        read: impl Fn(&mut &[u8]) -> Option<T>,
    ) -> Result<T, WalkError> {
        let malformed = RecordError::Malformed { index: self.index };
        let mut bytes = [0; varint::MAX_I64_BYTES];
        for at in 0..max_bytes {
            bytes[at] = *self.stream.chunk()?.first().ok_or(malformed)?;
            self.skip(1)?;
            if bytes[at] < 0x80 {
                return Ok(read(&mut &bytes[..=at]).ok_or(malformed)?);
            }
        }
        Err(malformed.into())
    }

    fn i32(&mut self) -> Result<i32, WalkError> {
        self.varint(varint::MAX_I32_BYTES, varint::read_i32)
    }

    fn i64(&mut self) -> Result<i64, WalkError> {
        self.varint(varint::MAX_I64_BYTES, varint::read_i64)
    }

    /// Skips bytes with their length; whether they were not null.
    fn skip_nullable(&mut self) -> Result<bool, WalkError> {
        match usize::try_from(self.i32()?) {
            Ok(length) => self.skip(length).map(|()| true),
            Err(_) => Ok(false),
        }
    }
}
