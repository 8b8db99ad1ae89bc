//! Writing an answer to its socket: memory chunks as they are, file chunks through a buffer of the worker thread.
//!
//! Invariants
//! - No file bytes are held while a socket is waited for: what it did not take is read again. So slow readers cost no
//!   memory, however many there are; only one that met a cold page holds up to [`COLD_STEP_BYTES`].
//! - A worker reads only what is in the page cache; the rest is read by [`MAX_COLD_READERS`] threads at once, at most.

use super::response::{Chunk, Response};
use std::cell::RefCell;
use std::io::{self, IoSlice};
use storage::log::FileSlice;
use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;

/// Bytes taken to the socket by one write at most. One write of a MiB wakes a reader less often than four of a quarter do, and on
/// a virtual machine waking is the dearer part.
const STEP_BYTES: usize = 1 << 20;
/// What is tried again after a socket took less than a step.
const MIN_STEP_BYTES: usize = 64 << 10;
/// Bytes of a cold file that a connection holds until its socket takes them.
const COLD_STEP_BYTES: usize = 64 << 10;
/// Bytes of a cold file brought into the page cache at once.
const COLD_AHEAD_BYTES: usize = 1 << 20;
/// Threads that wait for the disk for the sake of answers.
const MAX_COLD_READERS: usize = 4;
/// Pieces of one vectored write.
const MAX_PIECES: usize = 64;

static COLD_READERS: Semaphore = Semaphore::const_new(MAX_COLD_READERS);

thread_local! {
    /// Grows to [`STEP_BYTES`] on threads that have written so much at once.
    static STEP: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Writes one answer.
///
/// # Errors
/// What the socket or a file says; then part of the answer may have been written, and the connection must be closed.
pub(super) async fn write(stream: &TcpStream, response: Response) -> io::Result<()> {
    let mut rest =
        Rest { chunks: response.into_chunks(), first: 0, done: 0, step_bytes: STEP_BYTES };
    while !rest.is_empty() {
        let socket = socket2::SockRef::from(stream);
        let send = |pieces: &[IoSlice<'_>]| socket.send_vectored(pieces);
        match stream.async_io(Interest::WRITABLE, || rest.write_step(send)).await? {
            Step::Wrote => {
                if !rest.is_empty() {
                    // A long answer is not to hold up the worker's other connections.
                    tokio::task::yield_now().await;
                }
            }
            Step::Cold(slice) => {
                let bytes = read_cold(slice).await?;
                let mut left = &bytes[..];
                while !left.is_empty() {
                    let sent = stream
                        .async_io(Interest::WRITABLE, || socket2::SockRef::from(stream).send(left));
                    left = &left[taken(sent.await?)?..];
                }
                rest.advance(bytes.len());
            }
        }
    }
    Ok(())
}

/// Reads the first bytes of a slice from the disk, and has those behind them read into the page cache.
async fn read_cold(slice: FileSlice) -> io::Result<Vec<u8>> {
    let _permit = COLD_READERS.acquire().await.expect("never closed");
    let read = tokio::task::spawn_blocking(move || {
        let mut bytes = vec![0; slice.size_bytes.min(COLD_AHEAD_BYTES)];
        slice.file.read_exact_at(&mut bytes, slice.position)?;
        bytes.truncate(COLD_STEP_BYTES);
        bytes.shrink_to_fit();
        Ok(bytes)
    });
    read.await.map_err(io::Error::other)?
}

fn taken(count: usize) -> io::Result<usize> {
    if count == 0 { Err(io::ErrorKind::WriteZero.into()) } else { Ok(count) }
}

/// What a step came to.
enum Step {
    /// Everything that was tried went out.
    Wrote,
    /// The next bytes are not in memory: the rest of their slice.
    Cold(FileSlice),
}

/// What is still to be written of an answer.
struct Rest {
    chunks: Vec<Chunk>,
    /// The chunk that comes next, and how many of its bytes are out.
    first: usize,
    done: usize,
    /// File bytes to try at once: less for a socket that takes less.
    step_bytes: usize,
}

impl Rest {
    fn is_empty(&self) -> bool {
        self.first == self.chunks.len()
    }

    fn advance(&mut self, mut count: usize) {
        while let Some(chunk) = self.chunks.get(self.first) {
            let left = chunk.size_bytes() - self.done;
            if count < left {
                self.done += count;
                return;
            }
            count -= left;
            self.first += 1;
            self.done = 0;
        }
    }

    /// Writes once. `WouldBlock` when the socket has no room left, even if it took something.
    fn write_step(
        &mut self,
        send: impl FnOnce(&[IoSlice<'_>]) -> io::Result<usize>,
    ) -> io::Result<Step> {
        STEP.with_borrow_mut(|buffer| {
            let file_bytes = self.file_bytes_ahead();
            if buffer.len() < file_bytes {
                buffer.resize(file_bytes, 0);
            }
            let mut room = &mut buffer[..file_bytes];
            let mut pieces = [IoSlice::new(&[]); MAX_PIECES];
            let (mut count, mut total) = (0, 0);
            let mut done = self.done;
            for chunk in &self.chunks[self.first..] {
                if count == MAX_PIECES {
                    break;
                }
                let left = chunk.size_bytes() - done;
                let size = match chunk {
                    Chunk::Memory(bytes) => {
                        pieces[count] = IoSlice::new(&bytes[done..]);
                        left
                    }
                    Chunk::File(slice) => {
                        let wanted = left.min(room.len());
                        let (part, behind) = std::mem::take(&mut room).split_at_mut(wanted);
                        room = behind;
                        let position = slice.position + done as u64;
                        let read = match slice.file.read_cached_at(part, position) {
                            Ok(0) if wanted > 0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                            Ok(read) => read,
                            Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
                            Err(error) => return Err(error),
                        };
                        if read == 0 && wanted > 0 && total == 0 {
                            let file = slice.file.clone();
                            return Ok(Step::Cold(FileSlice { file, position, size_bytes: left }));
                        }
                        pieces[count] = IoSlice::new(&part[..read]);
                        read
                    }
                };
                count += 1;
                total += size;
                done = 0;
                if size < left {
                    break;
                }
            }
            let sent = if total == 0 { 0 } else { taken(send(&pieces[..count])?)? };
            self.advance(sent);
            if sent < total {
                self.step_bytes = (2 * sent).clamp(MIN_STEP_BYTES, STEP_BYTES);
                return Err(io::ErrorKind::WouldBlock.into());
            }
            self.step_bytes = (2 * self.step_bytes).min(STEP_BYTES);
            Ok(Step::Wrote)
        })
    }

    /// File bytes that the next step may take, which is what the buffer must hold.
    fn file_bytes_ahead(&self) -> usize {
        let mut bytes = 0;
        let mut done = self.done;
        for chunk in self.chunks[self.first..].iter().take(MAX_PIECES) {
            if matches!(chunk, Chunk::File(_)) {
                bytes += chunk.size_bytes() - done;
            }
            done = 0;
            if bytes >= self.step_bytes {
                return self.step_bytes;
            }
        }
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use proptest::prelude::*;
    use std::path::Path;
    use std::sync::Arc;
    use storage::fs::simulated::SimulatedFs;
    use storage::fs::{Fs, FsFile, OpenMode};

    /// A file of which reads without the disk see only every second byte range of 50.
    #[derive(Debug)]
    struct HalfCold(Arc<dyn FsFile>);

    impl FsFile for HalfCold {
        fn size_bytes(&self) -> io::Result<u64> {
            self.0.size_bytes()
        }
        fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
            self.0.read_at(buffer, position)
        }
        fn read_cached_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
            if (position / 50) % 2 == 1 {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            let warm = (50 - position % 50) as usize;
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
        fn map(&self) -> io::Result<storage::index_file::MappedBytes> {
            self.0.map()
        }
        fn descriptor(&self) -> Option<std::os::fd::BorrowedFd<'_>> {
            None
        }
    }

    fn file_with(content: &[u8]) -> Arc<dyn FsFile> {
        let file = SimulatedFs::new().open(Path::new("/f"), OpenMode::Create).unwrap();
        file.write_at(&mut [IoSlice::new(content)], 0).unwrap();
        file
    }

    proptest! {
        /// Whatever a socket takes at once and whatever is cold, the bytes go out once and in order.
        #[test]
        fn an_answer_goes_out_whole_however_little_the_socket_takes(
            parts in prop::collection::vec((any::<bool>(), 0usize..300), 0..100),
            takes in prop::collection::vec(1usize..400, 1..20),
            is_half_cold in any::<bool>(),
        ) {
            let content: Vec<u8> = (0..1000u32).map(|at| at as u8 ^ (at >> 8) as u8).collect();
            let mut file = file_with(&content);
            if is_half_cold {
                file = Arc::new(HalfCold(file));
            }
            let mut wanted = Vec::new();
            let mut chunks = Vec::new();
            for (at, (is_file, size)) in parts.iter().enumerate() {
                let position = at * 7;
                wanted.extend_from_slice(&content[position..position + size]);
                chunks.push(if *is_file {
                    let file = file.clone();
                    Chunk::File(FileSlice { file, position: position as u64, size_bytes: *size })
                } else {
                    Chunk::Memory(Bytes::copy_from_slice(&content[position..position + size]))
                });
            }
            let mut rest = Rest { chunks, first: 0, done: 0, step_bytes: STEP_BYTES };
            let mut out = Vec::new();
            let mut takes = takes.iter().cycle();
            while !rest.is_empty() {
                let mut room = *takes.next().unwrap();
                let before = out.len();
                let step = rest.write_step(|pieces| {
                    for piece in pieces {
                        let taken = piece.len().min(room);
                        out.extend_from_slice(&piece[..taken]);
                        room -= taken;
                    }
                    Ok(out.len() - before)
                });
                match step {
                    Ok(Step::Wrote) => {}
                    Ok(Step::Cold(slice)) => {
                        prop_assert!(is_half_cold && out.len() == before);
                        let bytes = slice.read().unwrap();
                        rest.advance(bytes.len());
                        out.extend(bytes);
                    }
                    Err(error) => prop_assert_eq!(error.kind(), io::ErrorKind::WouldBlock),
                }
            }
            prop_assert_eq!(out, wanted);
        }
    }

    #[test]
    fn a_file_that_ends_inside_its_slice_ends_the_answer() {
        let slice = FileSlice { file: file_with(b"abc"), position: 1, size_bytes: 5 };
        let chunks = vec![Chunk::File(slice)];
        let mut rest = Rest { chunks, first: 0, done: 0, step_bytes: STEP_BYTES };
        assert!(matches!(rest.write_step(|pieces| Ok(pieces[0].len())), Ok(Step::Wrote)));
        let error = rest.write_step(|_| Ok(1)).err().unwrap();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }
}
