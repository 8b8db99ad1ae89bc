//! The batches of a file, one at a time: no more of it is in memory than one batch.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::Path;

use storage::compression::{Compression, decompress};
use storage::record::records;
use storage::record_batch::{BatchError, BatchHeader, HEADER_SIZE_BYTES, RecordBatch};

/// A batch may unpack to so much here; brokers accept far less.
const MAX_UNPACKED_BYTES: usize = 1 << 30;

/// Reads a file batch by batch.
pub(super) struct BatchScan {
    file: BufReader<File>,
    position: u64,
    size_bytes: u64,
}

/// What stands at a position.
pub(super) enum Scanned {
    /// A whole batch whose header is in range.
    Batch(Vec<u8>),
    /// Not a batch, or not all of one: nothing behind it can be told apart.
    Bad(BatchError),
}

impl BatchScan {
    pub(super) fn open(path: &Path) -> io::Result<BatchScan> {
        let file = File::open(path)?;
        let size_bytes = file.metadata()?.len();
        Ok(BatchScan { file: BufReader::new(file), position: 0, size_bytes })
    }

    /// Position and content of the next batch; `None` at the end, and after a bad one.
    pub(super) fn next(&mut self) -> io::Result<Option<(u64, Scanned)>> {
        let position = self.position;
        let left = self.size_bytes.saturating_sub(position);
        if left == 0 {
            return Ok(None);
        }
        let mut bytes = Vec::new();
        self.file.by_ref().take(HEADER_SIZE_BYTES as u64).read_to_end(&mut bytes)?;
        let size = match BatchHeader::parse(&bytes) {
            Ok(header) => header.batch_size_bytes(),
            Err(error) => {
                self.position = self.size_bytes;
                return Ok(Some((position, Scanned::Bad(error))));
            }
        };
        let body = size - HEADER_SIZE_BYTES; // `parse` refuses shorter ones
        // Memory grows with what is really there.
        self.file.by_ref().take(body as u64).read_to_end(&mut bytes)?;
        if bytes.len() < size {
            self.position = self.size_bytes;
            let error = BatchError::Truncated { needed_bytes: size, available_bytes: bytes.len() };
            return Ok(Some((position, Scanned::Bad(error))));
        }
        self.position += size as u64;
        Ok(Some((position, Scanned::Batch(bytes))))
    }

    /// Bytes from `position` to the end.
    pub(super) fn bytes_from(&self, position: u64) -> u64 {
        self.size_bytes.saturating_sub(position)
    }
}

/// The records of a batch, unpacked; walk them with [`records`].
pub(super) fn unpack(batch: &RecordBatch<'_>) -> Result<Vec<u8>, String> {
    match batch.compression() {
        Compression::None => Ok(batch.records_block().to_vec()),
        codec => {
            decompress(codec, batch.records_block(), MAX_UNPACKED_BYTES).map_err(|e| e.to_string())
        }
    }
}

/// Checks CRC, records and their offsets; how many records there are.
pub(super) fn check(batch: &RecordBatch<'_>) -> Result<u64, String> {
    batch.verify_crc().map_err(|e| e.to_string())?;
    let block = unpack(batch)?;
    let mut count = 0;
    let mut previous = -1;
    for record in records(&block, batch.record_count()) {
        let record = record.map_err(|e| e.to_string())?;
        if record.offset_delta <= previous || record.offset_delta > batch.last_offset_delta() {
            return Err(format!(
                "record {count} has offset delta {}, after {previous}",
                record.offset_delta
            ));
        }
        previous = record.offset_delta;
        count += 1;
    }
    Ok(count)
}
