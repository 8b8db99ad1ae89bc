//! Files of record batches with one record each: what segments and snapshots are made of.

use std::io;
use std::sync::Arc;

use storage::fs::FsFile;
use storage::leader_epoch::LeaderEpoch;
use storage::offset::Offset;
use storage::record_batch::{BatchError, HEADER_SIZE_BYTES, RecordBatch, RecordBatchBuilder};
use storage::timestamp::Timestamp;

use crate::quorum::codec::MAX_ENTRY_DATA_BYTES;

/// No batch of ours is larger: the largest entry, its payload's fields and the batch around it.
pub(super) const MAX_BATCH_BYTES: usize = MAX_ENTRY_DATA_BYTES + 4096;

/// Bytes read at once.
const READ_BYTES: usize = 256 * 1024;

/// `00000000000000000042.log`.
pub(super) fn segment_name(base_offset: u64) -> String {
    format!("{base_offset:020}.log")
}

/// The base offset that a segment is named by; `None` for any other file.
pub(super) fn parse_segment_name(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(".log")?;
    (digits.len() == 20 && digits.bytes().all(|byte| byte.is_ascii_digit()))
        .then(|| digits.parse().ok())?
}

/// Appends one batch with one record.
pub(super) fn push_batch(out: &mut Vec<u8>, offset: u64, term: u64, value: &[u8], now: Timestamp) {
    let offset = i64::try_from(offset).ok().and_then(Offset::new);
    let epoch = LeaderEpoch::new(i32::try_from(term).unwrap_or(i32::MAX));
    let batch = RecordBatchBuilder::new()
        .base_offset(offset.expect("a log does not outgrow 63 bits"))
        .leader_epoch(epoch.expect("a term is not negative"))
        .record(Some(now), None, Some(value), &[])
        .build()
        .expect("payloads are bounded by MAX_ENTRY_DATA_BYTES and nothing is compressed");
    out.extend_from_slice(&batch);
}

/// One batch that was read and is whole.
#[derive(Debug)]
pub(super) struct ReadBatch {
    /// Its offset.
    pub(super) offset: u64,
    /// Where it begins in the file.
    pub(super) position: u64,
    /// Its record's value.
    pub(super) value: Vec<u8>,
}

/// Why the bytes at a position are no batch of ours.
#[derive(Debug)]
pub(super) enum ReadBatchError {
    Io(io::Error),
    Invalid { position: u64, reason: String },
}

/// Reads a file's batches from front to back.
pub(super) struct BatchReader {
    file: Arc<dyn FsFile>,
    size_bytes: u64,
    /// Where the next batch begins.
    position: u64,
    /// The file's bytes from `position` on, as many as were read.
    buffer: Vec<u8>,
    consumed: usize,
}

impl BatchReader {
    pub(super) fn new(file: Arc<dyn FsFile>, position: u64) -> io::Result<BatchReader> {
        let size_bytes = file.size_bytes()?;
        Ok(BatchReader { file, size_bytes, position, buffer: Vec::new(), consumed: 0 })
    }

    pub(super) fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// The next batch; `None` at the end of the file. After an error, ask no more.
    pub(super) fn next_batch(&mut self) -> Result<Option<ReadBatch>, ReadBatchError> {
        if self.position >= self.size_bytes {
            return Ok(None);
        }
        let mut wanted = HEADER_SIZE_BYTES;
        loop {
            self.fill(wanted).map_err(ReadBatchError::Io)?;
            match RecordBatch::parse(&self.buffer[self.consumed..]) {
                Ok((batch, size)) => {
                    let value = value_of(&batch).map_err(|reason| self.invalid(reason))?;
                    let read = ReadBatch {
                        offset: batch.base_offset().value().cast_unsigned(), // an Offset is not negative
                        position: self.position,
                        value,
                    };
                    self.consumed += size;
                    self.position += size as u64;
                    return Ok(Some(read));
                }
                Err(BatchError::Truncated { needed_bytes, available_bytes })
                    if needed_bytes > wanted =>
                {
                    if needed_bytes > MAX_BATCH_BYTES {
                        return Err(self.invalid(format!("a batch of {needed_bytes} bytes")));
                    }
                    if self.size_bytes - self.position < needed_bytes as u64 {
                        return Err(self.invalid(format!(
                            "the file ends inside a batch of {needed_bytes} bytes, after {available_bytes}"
                        )));
                    }
                    wanted = needed_bytes;
                }
                Err(error) => return Err(self.invalid(error.to_string())),
            }
        }
    }

    fn invalid(&self, reason: String) -> ReadBatchError {
        ReadBatchError::Invalid { position: self.position, reason }
    }

    /// Has `wanted` bytes from `position` on in the buffer, or all there are.
    fn fill(&mut self, wanted: usize) -> io::Result<()> {
        if self.buffer.len() - self.consumed >= wanted {
            return Ok(());
        }
        self.buffer.drain(..self.consumed);
        self.consumed = 0;
        let have = self.buffer.len();
        let rest = self.size_bytes.saturating_sub(self.position + have as u64);
        let more = usize::try_from(rest).unwrap_or(usize::MAX).min(READ_BYTES.max(wanted - have));
        self.buffer.resize(have + more, 0);
        let read = self.file.read_at(&mut self.buffer[have..], self.position + have as u64)?;
        self.buffer.truncate(have + read);
        Ok(())
    }
}

fn value_of(batch: &RecordBatch<'_>) -> Result<Vec<u8>, String> {
    batch.verify_crc().map_err(|error| error.to_string())?;
    let mut records = batch.uncompressed_records().ok_or("it is compressed, ours never are")?;
    match (records.next(), records.next()) {
        (Some(Ok(record)), None) => Ok(record.value.ok_or("its record has no value")?.to_vec()),
        _ => Err("it has not exactly one record".to_owned()),
    }
}
