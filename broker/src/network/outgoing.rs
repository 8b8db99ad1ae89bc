//! Answers on their way out of one connection: what is ready together leaves together. Memory chunks go out as they are,
//! file chunks through a buffer of the worker thread.
//!
//! Invariants
//! - No file bytes are held while a socket is waited for: what it did not take is read again. So slow readers cost no
//!   memory, however many there are; only one that met a cold page holds up to [`COLD_STEP_BYTES`].
//! - A worker reads only what is in the page cache; the rest is read by `disk_readers`.

use super::response::{Chunk, Response};
use crate::disk_readers;
use bytes::{Buf, Bytes};
use std::cell::RefCell;
use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use storage::log::FileSlice;
use tokio::io::Interest;
use tokio::net::TcpStream;

/// Bytes of files taken to the socket by one write at most. One write of a MiB wakes a reader less often than four of a quarter
/// do, and on a virtual machine waking is the dearer part.
const STEP_BYTES: usize = 1 << 20;
/// What is tried again after a socket took less than a step.
const MIN_STEP_BYTES: usize = 64 << 10;
/// Bytes written before the other tasks of the thread have a turn.
const TURN_BYTES: usize = 2 << 20;
/// Bytes of a cold file that a connection holds until its socket takes them.
const COLD_STEP_BYTES: usize = 64 << 10;
/// Bytes of a cold file brought into the page cache at once.
const COLD_AHEAD_BYTES: usize = 1 << 20;
/// Pieces of one vectored write.
const MAX_PIECES: usize = 64;

thread_local! {
    /// Grows to [`STEP_BYTES`] on threads that have written so much at once.
    static STEP: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

type ColdRead = Pin<Box<dyn Future<Output = io::Result<Vec<u8>>> + Send>>;

/// Answers in their order, the first of them perhaps written in part.
pub(super) struct Outgoing {
    /// None is empty.
    chunks: VecDeque<Chunk>,
    size_bytes: usize,
    memory_bytes: usize,
    /// File bytes to try at once: less for a socket that takes less.
    step_bytes: usize,
    /// Reads the start of the first chunk, which is a file's.
    cold_read: Option<ColdRead>,
}

impl Outgoing {
    /// Nothing to write.
    pub(super) fn new() -> Outgoing {
        Outgoing {
            chunks: VecDeque::new(),
            size_bytes: 0,
            memory_bytes: 0,
            step_bytes: STEP_BYTES,
            cold_read: None,
        }
    }

    /// Queues an answer.
    pub(super) fn push(&mut self, response: Response) {
        for chunk in response.into_chunks() {
            self.push_chunk(chunk);
        }
    }

    fn push_chunk(&mut self, chunk: Chunk) {
        let size_bytes = chunk.size_bytes();
        if size_bytes == 0 {
            return;
        }
        self.size_bytes += size_bytes;
        if matches!(chunk, Chunk::Memory(_)) {
            self.memory_bytes += size_bytes;
        }
        self.chunks.push_back(chunk);
    }

    /// Whether everything was written.
    pub(super) fn is_empty(&self) -> bool {
        self.chunks.is_empty()
    }

    /// Bytes to be written.
    pub(super) fn size_bytes(&self) -> usize {
        self.size_bytes
    }

    /// Bytes of them that are in memory.
    pub(super) fn memory_bytes(&self) -> usize {
        self.memory_bytes
    }

    /// Writes what the socket takes. Ready when everything was written.
    ///
    /// # Errors
    /// What the socket or a file says; then part of an answer may have been written, and the connection must be closed.
    pub(super) fn poll_write(
        &mut self,
        context: &mut Context<'_>,
        stream: &TcpStream,
    ) -> Poll<io::Result<()>> {
        let enough = self.size_bytes.saturating_sub(TURN_BYTES);
        let socket = socket2::SockRef::from(stream);
        while !self.is_empty() {
            if self.size_bytes < enough {
                context.waker().wake_by_ref();
                return Poll::Pending;
            }
            ready!(self.poll_cold_read(context))?;
            ready!(stream.poll_write_ready(context))?;
            let send = |pieces: &[IoSlice<'_>]| socket.send_vectored(pieces);
            // That a socket which took less than all has no more room is said within, which saves the call to find it out.
            match stream.try_io(Interest::WRITABLE, || self.write_step(send)) {
                Ok(Step::Wrote) => {}
                Ok(Step::Cold(slice)) => self.cold_read = Some(Box::pin(read_cold(slice))),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        Poll::Ready(Ok(()))
    }

    fn poll_cold_read(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some(cold_read) = &mut self.cold_read else { return Poll::Ready(Ok(())) };
        let bytes = ready!(cold_read.as_mut().poll(context));
        self.cold_read = None;
        self.warm(bytes?);
        Poll::Ready(Ok(()))
    }

    /// Puts bytes in the place of those of the file at the front.
    fn warm(&mut self, bytes: Vec<u8>) {
        let Some(Chunk::File(slice)) = self.chunks.front_mut() else {
            unreachable!("nothing is written while the first chunk is read")
        };
        skip(slice, bytes.len());
        if slice.size_bytes == 0 {
            self.chunks.pop_front();
        }
        self.memory_bytes += bytes.len();
        self.chunks.push_front(Chunk::Memory(Bytes::from(bytes)));
    }

    fn advance(&mut self, mut count: usize) {
        self.size_bytes -= count;
        while count > 0 {
            let chunk = self.chunks.front_mut().expect("no more was written than there is");
            let step = count.min(chunk.size_bytes());
            match chunk {
                Chunk::Memory(bytes) => {
                    self.memory_bytes -= step;
                    bytes.advance(step);
                }
                Chunk::File(slice) => skip(slice, step),
            }
            if chunk.size_bytes() == 0 {
                self.chunks.pop_front();
            }
            count -= step;
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
            for chunk in self.chunks.iter().take(MAX_PIECES) {
                let size = match chunk {
                    Chunk::Memory(bytes) => {
                        pieces[count] = IoSlice::new(bytes);
                        bytes.len()
                    }
                    Chunk::File(slice) => {
                        let wanted = slice.size_bytes.min(room.len());
                        let (part, behind) = std::mem::take(&mut room).split_at_mut(wanted);
                        room = behind;
                        let read = match slice.file.read_cached_at(part, slice.position) {
                            Ok(0) if wanted > 0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                            Ok(read) => read,
                            Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
                            Err(error) => return Err(error),
                        };
                        if read == 0 && wanted > 0 && total == 0 {
                            return Ok(Step::Cold(slice.clone()));
                        }
                        pieces[count] = IoSlice::new(&part[..read]);
                        read
                    }
                };
                count += 1;
                total += size;
                if size < chunk.size_bytes() {
                    break;
                }
            }
            let sent = taken(send(&pieces[..count])?)?;
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
        for chunk in self.chunks.iter().take(MAX_PIECES) {
            if matches!(chunk, Chunk::File(_)) {
                bytes += chunk.size_bytes();
            }
            if bytes >= self.step_bytes {
                return self.step_bytes;
            }
        }
        bytes
    }
}

/// What a step came to.
enum Step {
    /// Everything that was tried went out.
    Wrote,
    /// The next bytes are not in memory: the rest of their slice.
    Cold(FileSlice),
}

fn skip(slice: &mut FileSlice, bytes: usize) {
    slice.position += bytes as u64;
    slice.size_bytes -= bytes;
}

fn taken(count: usize) -> io::Result<usize> {
    if count == 0 { Err(io::ErrorKind::WriteZero.into()) } else { Ok(count) }
}

/// Reads the first bytes of a slice from the disk, and has those behind them read into the page cache.
async fn read_cold(slice: FileSlice) -> io::Result<Vec<u8>> {
    let read = disk_readers::run(move || {
        let mut bytes = vec![0; slice.size_bytes.min(COLD_AHEAD_BYTES)];
        slice.file.read_exact_at(&mut bytes, slice.position)?;
        bytes.truncate(COLD_STEP_BYTES);
        bytes.shrink_to_fit();
        Ok(bytes)
    });
    read.await.unwrap_or(Err(io::ErrorKind::Interrupted.into()))
}

#[cfg(test)]
mod tests {
    use super::*;
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
            let mut outgoing = Outgoing::new();
            chunks.into_iter().for_each(|chunk| outgoing.push_chunk(chunk));
            prop_assert_eq!(outgoing.size_bytes(), wanted.len());
            let mut out = Vec::new();
            let mut takes = takes.iter().cycle();
            while !outgoing.is_empty() {
                let mut room = *takes.next().unwrap();
                let before = out.len();
                let step = outgoing.write_step(|pieces| {
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
                        outgoing.warm(bytes);
                    }
                    Err(error) => prop_assert_eq!(error.kind(), io::ErrorKind::WouldBlock),
                }
            }
            prop_assert_eq!(out, wanted);
            prop_assert_eq!((outgoing.size_bytes(), outgoing.memory_bytes()), (0, 0));
        }
    }

    #[test]
    fn a_file_that_ends_inside_its_slice_ends_the_answer() {
        let slice = FileSlice { file: file_with(b"abc"), position: 1, size_bytes: 5 };
        let mut outgoing = Outgoing::new();
        outgoing.push_chunk(Chunk::File(slice));
        assert!(matches!(outgoing.write_step(|pieces| Ok(pieces[0].len())), Ok(Step::Wrote)));
        let error = outgoing.write_step(|_| Ok(1)).err().unwrap();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }
}
