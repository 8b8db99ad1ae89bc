//! Walking over the batches of a `.log` file: headers only, or whole batches with their CRC.

use std::io;

use crate::fs::FsFile;
use crate::record_batch::{BatchError, BatchHeader, HEADER_SIZE_BYTES, RecordBatch};

/// Read at once when a few headers are looked for: an index interval, and some.
pub(crate) const LOOKUP_CHUNK_BYTES: usize = 8 << 10;
/// Read at once when all of a file is walked over.
pub(crate) const WALK_CHUNK_BYTES: usize = 256 << 10;
/// Where batches are larger than this, a walk over headers reads these only: a call costs less than reading on would.
const SPARSE_BATCH_BYTES: usize = 8 << 10;

/// What stands at a position.
#[derive(Debug)]
pub(crate) enum Scanned<T> {
    /// A batch, and where it starts.
    Batch(u64, T),
    /// The end of what was to be scanned.
    End,
    /// No batch.
    Bad(u64, BatchError),
}

/// Walks forward from a position.
#[derive(Debug)]
pub(crate) struct Scanner<'a> {
    file: &'a dyn FsFile,
    position: u64,
    end: u64,
    chunk_bytes: usize,
    buffer: Vec<u8>,
    buffer_start: u64,
    waits: bool,
    /// Size of the last batch.
    last_batch_bytes: usize,
}

impl<'a> Scanner<'a> {
    /// A walk over `[position, end)` of a file.
    pub(crate) fn new(
        file: &'a dyn FsFile,
        position: u64,
        end: u64,
        chunk_bytes: usize,
    ) -> Scanner<'a> {
        Scanner {
            file,
            position,
            end,
            chunk_bytes,
            buffer: Vec::new(),
            buffer_start: position,
            waits: true,
            last_batch_bytes: 0,
        }
    }

    /// Answers `WouldBlock` rather than wait for the disk, if it does not `wait`.
    pub(crate) fn waiting(mut self, waits: bool) -> Scanner<'a> {
        self.waits = waits;
        self
    }

    /// Where the next batch starts.
    pub(crate) fn position(&self) -> u64 {
        self.position
    }

    /// The next batch's header; the batch lies whole before the end.
    pub(crate) fn next_header(&mut self) -> io::Result<Scanned<BatchHeader>> {
        let is_sparse = self.last_batch_bytes > SPARSE_BATCH_BYTES;
        self.header(if is_sparse { HEADER_SIZE_BYTES } else { self.chunk_bytes })
    }

    fn header(&mut self, chunk_bytes: usize) -> io::Result<Scanned<BatchHeader>> {
        if self.position >= self.end {
            return Ok(Scanned::End);
        }
        let start = self.position;
        let parsed = BatchHeader::parse(self.fill(HEADER_SIZE_BYTES, chunk_bytes)?);
        Ok(match parsed.and_then(|header| self.fits(start, header)) {
            Ok(header) => {
                self.last_batch_bytes = header.batch_size_bytes();
                self.position += header.batch_size_bytes() as u64;
                Scanned::Batch(start, header)
            }
            Err(error) => Scanned::Bad(start, error),
        })
    }

    /// The next batch, whole, its CRC checked, to `look` at.
    pub(crate) fn next_batch<R>(
        &mut self,
        look: impl FnOnce(RecordBatch<'_>) -> R,
    ) -> io::Result<Scanned<R>> {
        let header = match self.header(self.chunk_bytes)? {
            Scanned::Batch(_, header) => header,
            Scanned::End => return Ok(Scanned::End),
            Scanned::Bad(at, error) => return Ok(Scanned::Bad(at, error)),
        };
        // The header may have been all that was read: go back and have all of it.
        let start = self.position - header.batch_size_bytes() as u64;
        self.position = start;
        let parsed = RecordBatch::parse(self.fill(header.batch_size_bytes(), self.chunk_bytes)?);
        let checked = parsed.and_then(|(batch, _)| batch.verify_crc().map(|()| batch));
        match checked {
            Ok(batch) => {
                let result = look(batch);
                self.position += header.batch_size_bytes() as u64;
                Ok(Scanned::Batch(start, result))
            }
            Err(error) => Ok(Scanned::Bad(start, error)),
        }
    }

    fn fits(&self, start: u64, header: BatchHeader) -> Result<BatchHeader, BatchError> {
        let available = self.end - start;
        if header.batch_size_bytes() as u64 <= available {
            return Ok(header);
        }
        Err(BatchError::Truncated {
            needed_bytes: header.batch_size_bytes(),
            available_bytes: usize::try_from(available).unwrap_or(usize::MAX),
        })
    }

    /// At least `wanted` bytes from the position on, or all there are before the end.
    /// Reads `chunk_bytes` at a time, and nothing twice.
    fn fill(&mut self, wanted: usize, chunk_bytes: usize) -> io::Result<&[u8]> {
        let left = usize::try_from(self.end - self.position).unwrap_or(usize::MAX);
        let wanted = wanted.min(left);
        let skipped = usize::try_from(self.position - self.buffer_start).unwrap_or(usize::MAX);
        if self.buffer.len().saturating_sub(skipped) < wanted {
            let size = wanted.max(chunk_bytes).min(left);
            let had = self.buffer.len().saturating_sub(skipped);
            let rest = self.buffer.len() - had..;
            self.buffer.copy_within(rest, 0);
            self.buffer.resize(size, 0);
            self.buffer_start = self.position;
            let (rest, rest_at) = (&mut self.buffer[had..], self.position + had as u64);
            let read = match self.waits {
                true => self.file.read_at(rest, rest_at),
                false => match self.file.read_cached_at(rest, rest_at) {
                    Ok(read) if had + read < wanted => Err(io::ErrorKind::WouldBlock.into()),
                    outcome => outcome,
                },
            };
            // What was not read does not stand there as zeroes, should someone ask again.
            self.buffer.truncate(had + read.as_ref().copied().unwrap_or(0));
            read?;
        }
        let skipped = usize::try_from(self.position - self.buffer_start).unwrap_or(usize::MAX);
        Ok(&self.buffer[skipped.min(self.buffer.len())..])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs::simulated::SimulatedFs;
    use crate::fs::{Fs, OpenMode};
    use crate::offset::Offset;
    use crate::record_batch::RecordBatchBuilder;
    use proptest::prelude::*;
    use std::io::IoSlice;
    use std::path::Path;

    fn file(bytes: &[u8]) -> std::sync::Arc<dyn FsFile> {
        let file = SimulatedFs::new().open(Path::new("/f"), OpenMode::Create).unwrap();
        file.write_at(&mut [IoSlice::new(bytes)], 0).unwrap();
        file
    }

    fn batch(base_offset: u64, value_size: usize) -> Vec<u8> {
        RecordBatchBuilder::new()
            .base_offset(Offset::ZERO.plus(base_offset))
            .record(None, None, Some(&vec![1; value_size]), &[])
            .build()
            .unwrap()
            .to_vec()
    }

    proptest! {
        /// Small and large batches, cut anywhere: headers and whole batches are found up to the cut,
        /// whatever the chunk.
        #[test]
        fn every_whole_batch_before_the_cut_is_found(
            sizes in prop::collection::vec(0usize..400, 0..12),
            cut in any::<prop::sample::Index>(),
            chunk in 1usize..500,
        ) {
            let batches: Vec<_> = sizes.iter().enumerate().map(|(at, size)| batch(at as u64, *size)).collect();
            let all = batches.concat();
            let cut = cut.index(all.len() + 1);
            let file = file(&all);
            let mut whole = 0;
            let mut end = 0;
            for batch in &batches {
                if end + batch.len() <= cut {
                    whole += 1;
                    end += batch.len();
                } else {
                    break;
                }
            }
            for headers_only in [true, false] {
                let mut scanner = Scanner::new(&*file, 0, cut as u64, chunk);
                let mut found = 0;
                loop {
                    let scanned = if headers_only {
                        scanner.next_header().unwrap()
                    } else {
                        scanner.next_batch(|batch| *batch.header()).unwrap()
                    };
                    match scanned {
                        Scanned::Batch(_, header) => {
                            prop_assert_eq!(header.base_offset(), Offset::ZERO.plus(found));
                            found += 1;
                        }
                        Scanned::End => {
                            prop_assert_eq!(cut, end);
                            break;
                        }
                        Scanned::Bad(at, error) => {
                            prop_assert_eq!(at, end as u64);
                            let is_cut = matches!(error, BatchError::Truncated { .. });
                            prop_assert!(is_cut, "{error}");
                            break;
                        }
                    }
                }
                prop_assert_eq!(found, whole);
                prop_assert_eq!(scanner.position(), end as u64);
            }
        }
    }

    /// Of this file the first 100 bytes are in memory.
    #[derive(Debug)]
    struct Cold(std::sync::Arc<dyn FsFile>);

    impl FsFile for Cold {
        fn size_bytes(&self) -> io::Result<u64> {
            self.0.size_bytes()
        }
        fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
            self.0.read_at(buffer, position)
        }
        fn read_cached_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
            let warm = usize::try_from(100u64.saturating_sub(position)).unwrap();
            if warm == 0 {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            let size = buffer.len().min(warm);
            self.0.read_at(&mut buffer[..size], position)
        }
        fn write_at(&self, parts: &mut [IoSlice<'_>], position: u64) -> io::Result<()> {
            self.0.write_at(parts, position)
        }
        fn set_size(&self, size_bytes: u64) -> io::Result<()> {
            self.0.set_size(size_bytes)
        }
        fn sync_data(&self) -> io::Result<()> {
            self.0.sync_data()
        }
        fn map(&self) -> io::Result<crate::index_file::MappedBytes> {
            self.0.map()
        }
        fn descriptor(&self) -> Option<std::os::fd::BorrowedFd<'_>> {
            None
        }
    }

    #[test]
    fn a_header_that_is_partly_on_the_disk_is_waited_for_or_not_but_is_never_damage() {
        let bytes = [batch(0, 0), batch(1, 0)].concat();
        let second = batch(0, 0).len() as u64;
        assert!(second < 100 && second + HEADER_SIZE_BYTES as u64 > 100);
        let file = Cold(file(&bytes));
        for waits in [true, false] {
            let mut scanner = Scanner::new(&file, 0, bytes.len() as u64, 1000).waiting(waits);
            assert!(matches!(scanner.next_header().unwrap(), Scanned::Batch(0, _)));
            match scanner.next_header() {
                Ok(Scanned::Batch(position, _)) => assert!(waits && position == second),
                other => assert!(!waits && other.unwrap_err().kind() == io::ErrorKind::WouldBlock),
            }
        }
    }

    #[test]
    fn a_flipped_bit_in_the_records_is_found_by_the_crc_only() {
        let mut bytes = batch(0, 100);
        let last = bytes.len() - 1;
        bytes[last] ^= 1;
        let file = file(&bytes);
        let mut scanner = Scanner::new(&*file, 0, bytes.len() as u64, 64);
        assert!(matches!(scanner.next_header().unwrap(), Scanned::Batch(0, _)));
        let mut scanner = Scanner::new(&*file, 0, bytes.len() as u64, 64);
        let scanned = scanner.next_batch(|_| ()).unwrap();
        assert!(matches!(scanned, Scanned::Bad(0, BatchError::WrongCrc { .. })));
    }
}
