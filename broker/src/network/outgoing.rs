//! Answers on their way out of one connection: what is ready together leaves together. Memory chunks go out as they are,
//! large pieces of files by `sendfile`, small ones through a buffer of the worker thread.
//!
//! Invariants
//! - No file bytes are held while a socket is waited for: what it did not take is read again. So slow readers cost no
//!   memory, however many there are; only where a file cannot be sent by the system, one that met a cold page holds
//!   up to [`cold::COLD_STEP_BYTES`].
//! - A worker reads only what is in the page cache, of files that are open; disk readers send or read the rest ([`cold`]).
//! - While one of them sends, nobody else writes to that socket.

mod cold;

use super::response::{Chunk, Response};
use bytes::{Buf, Bytes};
use cold::{Cold, ColdStep};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use std::cell::RefCell;
use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::os::fd::BorrowedFd;
use std::task::{Context, Poll, ready};
use storage::fs::FsFile;
use storage::log::FileSlice;
use tokio::io::Interest;
use tokio::net::TcpStream;

/// Bytes of files taken to the socket by one write at most. One write of a MiB wakes a reader less often than four of a quarter
/// do, and on a virtual machine waking is the dearer part.
const STEP_BYTES: usize = 1 << 20;
/// What is tried again after a socket took less than a step.
const MIN_STEP_BYTES: usize = 64 << 10;
/// For less than that, a call of its own costs more than the copy.
const SEND_FILE_FROM_BYTES: usize = 64 << 10;
/// How far apart the bytes are by which it is seen what is in memory.
const PROBE_BYTES: usize = 64 << 10;
/// Of `send`: more follows at once. A number of Linux's, the same on all of its processors.
const MSG_MORE: i32 = 0x8000;
/// Bytes written before the other tasks of the thread have a turn.
const TURN_BYTES: usize = 2 << 20;
/// Pieces of one vectored write.
const MAX_PIECES: usize = 64;

thread_local! {
    /// Grows to [`STEP_BYTES`] on threads that have written so much at once.
    static STEP: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Answers in their order, the first of them perhaps written in part.
pub(super) struct Outgoing {
    /// None is empty.
    chunks: VecDeque<Chunk>,
    size_bytes: usize,
    memory_bytes: usize,
    /// File bytes to try at once: less for a socket that takes less.
    step_bytes: usize,
    /// From so many bytes on a piece of a file is sent by the system instead of being read and written; `None` once a file
    /// system has refused that.
    send_file_from_bytes: Option<usize>,
    /// Sends or reads the start of the first chunk, which is a file's.
    cold: Option<Cold>,
}

impl Outgoing {
    /// Nothing to write.
    pub(super) fn new() -> Outgoing {
        Outgoing {
            chunks: VecDeque::new(),
            size_bytes: 0,
            memory_bytes: 0,
            step_bytes: STEP_BYTES,
            send_file_from_bytes: Some(SEND_FILE_FROM_BYTES),
            cold: None,
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
        while !self.is_empty() {
            if self.size_bytes < enough {
                context.waker().wake_by_ref();
                return Poll::Pending;
            }
            ready!(self.poll_cold(context, stream))?;
            if self.is_empty() {
                break;
            }
            ready!(stream.poll_write_ready(context))?;
            // That a socket which took less than all has no more room is said within, which saves the call to find it out.
            match stream.try_io(Interest::WRITABLE, || self.write_step(stream)) {
                Ok(Step::Wrote) => {}
                Ok(Step::Cold(slice)) => {
                    self.cold = Some(Cold::queue(slice));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        Poll::Ready(Ok(()))
    }

    fn poll_cold(&mut self, context: &mut Context<'_>, stream: &TcpStream) -> Poll<io::Result<()>> {
        let Some(cold) = &mut self.cold else { return Poll::Ready(Ok(())) };
        let step = ready!(cold.poll(context, stream));
        self.cold = None;
        match step? {
            ColdStep::Read(bytes) => self.warm(bytes),
            ColdStep::Sent { sent, tried } => {
                self.advance(sent);
                if sent < tried {
                    // The runtime does not know yet that the socket is full. It is asked within `try_io`, so that room made
                    // meanwhile is not missed.
                    let _ = stream.try_io(Interest::WRITABLE, || check_writable(stream));
                }
            }
        }
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

    /// The descriptor of a slice's file, if the slice is to be sent by the system.
    fn sendable<'a>(&self, slice: &FileSlice, file: &'a dyn FsFile) -> Option<BorrowedFd<'a>> {
        self.send_file_from_bytes
            .filter(|from_bytes| slice.size_bytes >= *from_bytes)
            .and_then(|_| file.descriptor())
    }

    /// Writes once: a large piece of a file by the system, what comes before it in one call. `WouldBlock` when the socket
    /// has no room left, even if it took something.
    fn write_step(&mut self, socket: &impl Socket) -> io::Result<Step> {
        if let Some(Chunk::File(slice)) = self.chunks.front() {
            let Some(file) = slice.open_file() else { return Ok(Step::Cold(slice.clone())) };
            if let Some(descriptor) = self.sendable(slice, &*file) {
                let tried = cached_bytes_ahead(slice, &*file)?;
                if tried == 0 {
                    return Ok(Step::Cold(slice.clone()));
                }
                match socket.send_file(descriptor, slice.position, tried) {
                    Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                    // Less than was tried need not mean a full socket; the next call says so.
                    Ok(sent) => self.advance(sent),
                    Err(Errno::INTR) => {}
                    Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {
                        self.send_file_from_bytes = None;
                    }
                    Err(error) => return Err(error.into()),
                }
                return Ok(Step::Wrote);
            }
        }
        STEP.with_borrow_mut(|buffer| self.write_pieces(socket, buffer))
    }

    fn write_pieces(&mut self, socket: &impl Socket, buffer: &mut Vec<u8>) -> io::Result<Step> {
        let file_bytes = self.file_bytes_ahead();
        if buffer.len() < file_bytes {
            buffer.resize(file_bytes, 0);
        }
        let mut room = &mut buffer[..file_bytes];
        let mut pieces = [IoSlice::new(&[]); MAX_PIECES];
        let (mut count, mut total) = (0, 0);
        let mut more_follows = false;
        for chunk in self.chunks.iter().take(MAX_PIECES) {
            let size = match chunk {
                Chunk::Memory(bytes) => {
                    pieces[count] = IoSlice::new(bytes);
                    bytes.len()
                }
                Chunk::File(slice) => {
                    let Some(file) = slice.open_file() else {
                        if total == 0 {
                            return Ok(Step::Cold(slice.clone()));
                        }
                        break;
                    };
                    if self.sendable(slice, &*file).is_some() {
                        more_follows = true;
                        break;
                    }
                    let wanted = slice.size_bytes.min(room.len());
                    let (part, behind) = std::mem::take(&mut room).split_at_mut(wanted);
                    room = behind;
                    let read = match file.read_cached_at(part, slice.position) {
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
        if total == 0 {
            return Ok(Step::Wrote); // the first file was opened just now, and there is no room for its bytes yet
        }
        let sent = taken(socket.send(&pieces[..count], more_follows)?)?;
        self.advance(sent);
        if sent < total {
            self.step_bytes = (2 * sent).clamp(MIN_STEP_BYTES, STEP_BYTES);
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.step_bytes = (2 * self.step_bytes).min(STEP_BYTES);
        Ok(Step::Wrote)
    }

    /// File bytes that the next step may read, which is what the buffer must hold.
    fn file_bytes_ahead(&self) -> usize {
        let mut bytes = 0;
        for chunk in self.chunks.iter().take(MAX_PIECES) {
            if let Chunk::File(slice) = chunk {
                match slice.open_file() {
                    Some(file) if self.sendable(slice, &*file).is_none() => {
                        bytes += slice.size_bytes;
                    }
                    _ => break,
                }
            }
            if bytes >= self.step_bytes {
                return self.step_bytes;
            }
        }
        bytes
    }
}

/// What answers are written to; it does not block.
trait Socket {
    /// `more_follows` at once, so that the system may wait to fill its packets.
    fn send(&self, pieces: &[IoSlice<'_>], more_follows: bool) -> io::Result<usize>;

    /// Sends `size_bytes` of a file from `position` on; 0 at its end.
    fn send_file(
        &self,
        file: BorrowedFd<'_>,
        position: u64,
        size_bytes: usize,
    ) -> Result<usize, Errno>;
}

impl Socket for TcpStream {
    fn send(&self, pieces: &[IoSlice<'_>], more_follows: bool) -> io::Result<usize> {
        let flags = if more_follows { MSG_MORE } else { 0 };
        socket2::SockRef::from(self).send_vectored_with_flags(pieces, flags)
    }

    fn send_file(
        &self,
        file: BorrowedFd<'_>,
        mut position: u64,
        size_bytes: usize,
    ) -> Result<usize, Errno> {
        rustix::fs::sendfile(self, file, Some(&mut position), size_bytes)
    }
}

/// About how many of the first bytes of a slice are in memory, at most [`STEP_BYTES`]. One byte in each run of pages is asked
/// for, by which the page cache comes and goes; where the system says that all pages are there, only the first and the last,
/// because it counts those that are still being read. What went unseen makes a worker wait for one read; nothing worse.
fn cached_bytes_ahead(slice: &FileSlice, file: &dyn FsFile) -> io::Result<usize> {
    let size_bytes = slice.size_bytes.min(STEP_BYTES);
    let probe_bytes =
        if file.is_cached(slice.position, size_bytes) { size_bytes } else { PROBE_BYTES };
    let mut ahead = 0;
    let mut at = 0;
    while ahead < size_bytes {
        match file.read_cached_at(&mut [0], slice.position + at as u64) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            Err(error) => return Err(error),
        }
        // What is behind the last byte asked for is sent only if the end of the slice is there too.
        ahead = if at + 1 == size_bytes { size_bytes } else { at };
        at = (at + probe_bytes).min(size_bytes - 1);
    }
    Ok(ahead)
}

/// What a step came to.
enum Step {
    /// Everything that was tried went out.
    Wrote,
    /// The next bytes are not in memory, or their file not open: the rest of their slice.
    Cold(FileSlice),
}

fn skip(slice: &mut FileSlice, bytes: usize) {
    slice.position += bytes as u64;
    slice.size_bytes -= bytes;
}

fn taken(count: usize) -> io::Result<usize> {
    if count == 0 { Err(io::ErrorKind::WriteZero.into()) } else { Ok(count) }
}

/// `WouldBlock` when the socket has no room.
fn check_writable(stream: &TcpStream) -> io::Result<()> {
    let mut sockets = [PollFd::new(stream, PollFlags::OUT)];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    match rustix::event::poll(&mut sockets, Some(&now)) {
        Ok(0) => Err(io::ErrorKind::WouldBlock.into()),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk_readers;
    use proptest::prelude::*;
    use std::path::Path;
    use std::sync::Arc;
    use storage::fs::real::RealFs;
    use storage::fs::simulated::SimulatedFs;
    use storage::fs::{Fs, OpenMode};
    use tokio::io::AsyncReadExt;
    use tokio::net::TcpListener;

    /// A file of which reads without the disk see only the even ones of its ranges of so many bytes.
    #[derive(Debug)]
    struct HalfCold(Arc<dyn FsFile>, u64);

    impl FsFile for HalfCold {
        fn size_bytes(&self) -> io::Result<u64> {
            self.0.size_bytes()
        }
        fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
            self.0.read_at(buffer, position)
        }
        fn read_cached_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
            if (position / self.1) % 2 == 1 {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            let warm = (self.1 - position % self.1) as usize;
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
        fn descriptor(&self) -> Option<BorrowedFd<'_>> {
            self.0.descriptor()
        }
    }

    fn file_with(content: &[u8]) -> Arc<dyn FsFile> {
        let file = SimulatedFs::new().open(Path::new("/f"), OpenMode::Create).unwrap();
        file.write_at(&mut [IoSlice::new(content)], 0).unwrap();
        file
    }

    /// Opens such a file anew each time; in a real directory one that the system can send.
    fn opener_with(
        content: &[u8],
        real_dir: Option<&Path>,
    ) -> Arc<dyn Fn() -> Arc<dyn FsFile> + Send + Sync> {
        let (fs, path): (Arc<dyn Fs>, _) = match real_dir {
            Some(dir) => (Arc::new(RealFs::new()), dir.join("f")),
            None => (Arc::new(SimulatedFs::new()), Path::new("/f").to_path_buf()),
        };
        let file = fs.open(&path, OpenMode::Create).unwrap();
        file.write_at(&mut [IoSlice::new(content)], 0).unwrap();
        Arc::new(move || fs.open(&path, OpenMode::Read).unwrap())
    }

    fn half_cold_if(is_half_cold: bool, file: Arc<dyn FsFile>) -> Arc<dyn FsFile> {
        if is_half_cold { Arc::new(HalfCold(file, 50)) } else { file }
    }

    /// One that the system can send.
    fn real_file_with(content: &[u8]) -> Arc<dyn FsFile> {
        let dir = tempfile::tempdir().unwrap();
        let file = RealFs::new().open(&dir.path().join("f"), OpenMode::Create).unwrap();
        file.write_at(&mut [IoSlice::new(content)], 0).unwrap();
        file
    }

    /// Takes at most `room` bytes a call.
    struct Taking {
        room: usize,
        out: RefCell<Vec<u8>>,
        refuses_files: bool,
    }

    impl Socket for Taking {
        fn send(&self, pieces: &[IoSlice<'_>], _more_follows: bool) -> io::Result<usize> {
            let all: Vec<u8> = pieces.iter().flat_map(|piece| piece.iter().copied()).collect();
            let taken = all.len().min(self.room);
            self.out.borrow_mut().extend_from_slice(&all[..taken]);
            Ok(taken)
        }

        fn send_file(
            &self,
            file: BorrowedFd<'_>,
            position: u64,
            size_bytes: usize,
        ) -> Result<usize, Errno> {
            if self.refuses_files {
                return Err(Errno::INVAL);
            }
            let mut bytes = vec![0; size_bytes.min(self.room)];
            let read = rustix::io::pread(file, &mut bytes, position)?;
            self.out.borrow_mut().extend_from_slice(&bytes[..read]);
            Ok(read)
        }
    }

    proptest! {
        /// Whatever a socket takes at once and whatever is cold, the bytes go out once and in order.
        #[test]
        fn an_answer_goes_out_whole_however_little_the_socket_takes(
            parts in prop::collection::vec((any::<bool>(), 0usize..300), 0..100),
            takes in prop::collection::vec(1usize..400, 1..20),
            is_half_cold in any::<bool>(),
            send_file_from_bytes in prop::option::of(1usize..200),
            refuses_files in any::<bool>(),
            is_closed in any::<bool>(),
        ) {
            let content: Vec<u8> = (0..1000u32).map(|at| at as u8 ^ (at >> 8) as u8).collect();
            let real_dir = tempfile::tempdir().unwrap();
            let opener = opener_with(&content, send_file_from_bytes.map(|_| real_dir.path()));
            let file = half_cold_if(is_half_cold, opener());
            let mut wanted = Vec::new();
            let mut chunks = Vec::new();
            for (at, (is_file, size)) in parts.iter().enumerate() {
                let position = at * 7;
                wanted.extend_from_slice(&content[position..position + size]);
                chunks.push(if *is_file {
                    let file = file.clone();
                    let position = position as u64;
                    // Each time anew, and closed in between.
                    let (closed, is_half_cold) = (opener.clone(), is_half_cold);
                    let open = move || Ok(half_cold_if(is_half_cold, closed()));
                    Chunk::File(match is_closed {
                        true => FileSlice::reopened(Arc::downgrade(&opener()), open, position, *size),
                        false => FileSlice::of_file(file, position, *size),
                    })
                } else {
                    Chunk::Memory(Bytes::copy_from_slice(&content[position..position + size]))
                });
            }
            let mut outgoing = Outgoing::new();
            outgoing.send_file_from_bytes = send_file_from_bytes;
            chunks.into_iter().for_each(|chunk| outgoing.push_chunk(chunk));
            prop_assert_eq!(outgoing.size_bytes(), wanted.len());
            let mut socket = Taking { room: 0, out: RefCell::default(), refuses_files };
            let mut takes = takes.iter().cycle();
            while !outgoing.is_empty() {
                socket.room = *takes.next().unwrap();
                let before = socket.out.borrow().len();
                let step = outgoing.write_step(&socket);
                match step {
                    Ok(Step::Wrote) => {}
                    Ok(Step::Cold(slice)) => {
                        prop_assert!((is_half_cold || is_closed) && socket.out.borrow().len() == before);
                        let bytes = slice.read().unwrap();
                        outgoing.warm(bytes);
                    }
                    Err(error) => prop_assert_eq!(error.kind(), io::ErrorKind::WouldBlock),
                }
            }
            prop_assert_eq!(socket.out.into_inner(), wanted);
            prop_assert_eq!((outgoing.size_bytes(), outgoing.memory_bytes()), (0, 0));
        }
    }

    #[test]
    fn a_file_that_ends_inside_its_slice_ends_the_answer() {
        let slice = FileSlice::of_file(file_with(b"abc"), 1, 5);
        let mut outgoing = Outgoing::new();
        outgoing.push_chunk(Chunk::File(slice));
        let socket = Taking { room: 100, out: RefCell::default(), refuses_files: false };
        assert!(matches!(outgoing.write_step(&socket), Ok(Step::Wrote)));
        let error = outgoing.write_step(&socket).err().unwrap();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn a_file_that_the_system_was_to_send_and_that_ends_too_soon_ends_the_answer() {
        let file = real_file_with(&[7; 100]);
        let mut outgoing = Outgoing::new();
        outgoing.send_file_from_bytes = Some(1);
        outgoing.push_chunk(Chunk::File(FileSlice::of_file(file, 50, 60)));
        let socket = Taking { room: 100, out: RefCell::default(), refuses_files: false };
        let failed = loop {
            match outgoing.write_step(&socket) {
                Ok(Step::Cold(slice)) => break slice.read().err(),
                Ok(Step::Wrote) => {}
                Err(error) => break Some(error),
            }
        };
        assert_eq!(failed.unwrap().kind(), io::ErrorKind::UnexpectedEof);
    }

    #[tokio::test]
    async fn while_an_answer_queues_for_the_disk_it_holds_no_descriptor() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let writer = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (mut reader, _) = listener.accept().await.unwrap();
        let mut outgoing = Outgoing::new();
        let file = Arc::new(HalfCold(real_file_with(&[7; 100_000]), 10_000));
        outgoing.push_chunk(Chunk::File(FileSlice::of_file(file, 0, 100_000)));
        let mut permits = Vec::new();
        for _ in 0..disk_readers::MAX_DISK_READERS {
            permits.push(disk_readers::permit().await.unwrap());
        }
        std::future::poll_fn(|context| {
            assert!(outgoing.poll_write(context, &writer).is_pending());
            // Until it is seen that the socket may be written to.
            if outgoing.cold.is_some() { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
        assert!(matches!(outgoing.cold, Some(Cold::Queued(..))));
        drop(permits);
        std::future::poll_fn(|context| outgoing.poll_write(context, &writer)).await.unwrap();
        drop(writer);
        let mut read = Vec::new();
        reader.read_to_end(&mut read).await.unwrap();
        assert!(read == [7; 100_000]);
    }

    /// Everything, over a real socket whose reader is slow; the file's pages are cold to the workers by turns.
    async fn over_a_socket(file: Arc<dyn FsFile>, content: &[u8]) -> Vec<u8> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let writer = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (mut reader, _) = listener.accept().await.unwrap();
        let mut outgoing = Outgoing::new();
        for position in [0, content.len() / 2] {
            outgoing.push_chunk(Chunk::Memory(Bytes::from_static(b"head")));
            let size_bytes = content.len() / 2;
            let slice = FileSlice::of_file(file.clone(), position as u64, size_bytes);
            outgoing.push_chunk(Chunk::File(slice));
        }
        let writing = tokio::spawn(async move {
            std::future::poll_fn(|context| outgoing.poll_write(context, &writer)).await
        });
        let mut read = Vec::new();
        let mut step = vec![0; 100_000];
        loop {
            let count = reader.read(&mut step).await.unwrap();
            if count == 0 {
                break;
            }
            read.extend_from_slice(&step[..count]);
            tokio::task::yield_now().await;
        }
        writing.await.unwrap().unwrap();
        read
    }

    #[tokio::test]
    async fn large_pieces_of_a_file_arrive_whole_whether_in_memory_or_not() {
        let content: Vec<u8> = (0..8_000_000u32).map(|at| (at ^ (at >> 8)) as u8).collect();
        let half = content.len() / 2;
        let wanted = [b"head", &content[..half], b"head", &content[half..]].concat();
        let file = real_file_with(&content);
        assert!(over_a_socket(file.clone(), &content).await == wanted, "in memory");
        assert!(
            over_a_socket(Arc::new(HalfCold(file, 300_000)), &content).await == wanted,
            "on disk"
        );
        let file = file_with(&content);
        assert!(
            over_a_socket(Arc::new(HalfCold(file, 300_000)), &content).await == wanted,
            "on no real disk"
        );
    }
}
