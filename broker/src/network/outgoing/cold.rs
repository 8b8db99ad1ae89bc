//! Bytes of an answer that are not in memory: a disk reader sends them to the socket, or reads them where the system cannot
//! send such a file.

use crate::disk_readers::{self, Permit};
use rustix::io::Errno;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use storage::fs::FsFile;
use storage::log::FileSlice;
use tokio::net::TcpStream;

/// Bytes of a cold file that a connection holds until its socket takes them, where the system cannot send them.
pub(super) const COLD_STEP_BYTES: usize = 64 << 10;
/// Bytes of a cold file sent or brought into the page cache at once.
const COLD_AHEAD_BYTES: usize = 1 << 20;

/// Bytes that are not in memory, on their way.
pub(super) enum Cold {
    /// They wait for a disk reader, and hold nothing meanwhile: no descriptor either, of which the process has few.
    Queued(FileSlice, Pin<Box<dyn Future<Output = Option<Permit>> + Send>>),
    /// It sends or reads them, with a descriptor of its own for the socket.
    Step(Pin<Box<dyn Future<Output = io::Result<ColdStep>> + Send>>),
}

/// What became of bytes that were not in memory.
pub(super) enum ColdStep {
    /// So many went out; fewer than were tried if the socket had no more room.
    Sent { sent: usize, tried: usize },
    /// They were read, to be written.
    Read(Vec<u8>),
}

impl Cold {
    /// The first bytes of `slice` are to be sent, or read.
    pub(super) fn queue(slice: FileSlice) -> Cold {
        Cold::Queued(slice, Box::pin(disk_readers::permit()))
    }

    /// Ready when it is done, which is once.
    ///
    /// # Errors
    /// What the file or the socket says; `Interrupted` when the runtime is ending.
    pub(super) fn poll(
        &mut self,
        context: &mut Context<'_>,
        stream: &TcpStream,
    ) -> Poll<io::Result<ColdStep>> {
        if let Cold::Queued(slice, permit) = self {
            let permit = ready!(permit.as_mut().poll(context));
            let permit = permit.ok_or(io::ErrorKind::Interrupted)?;
            let socket = stream.as_fd().try_clone_to_owned()?;
            *self = Cold::Step(Box::pin(send_or_read(permit, slice.clone(), socket)));
        }
        match self {
            Cold::Step(step) => step.as_mut().poll(context),
            Cold::Queued(..) => unreachable!("it has its permit"),
        }
    }
}

/// Sends the first bytes of a slice to a socket that does not block, or reads them.
async fn send_or_read(permit: Permit, slice: FileSlice, socket: OwnedFd) -> io::Result<ColdStep> {
    let step = disk_readers::run_permitted(permit, move || {
        let file = slice.open()?;
        let sent = file.descriptor().and_then(|descriptor| send(&slice, descriptor, &socket));
        sent.unwrap_or_else(|| read(&slice, &*file))
    });
    step.await.unwrap_or(Err(io::ErrorKind::Interrupted.into()))
}

/// `None` where the system cannot send such a file.
fn send(slice: &FileSlice, file: BorrowedFd<'_>, socket: &OwnedFd) -> Option<io::Result<ColdStep>> {
    let tried = slice.size_bytes.min(COLD_AHEAD_BYTES);
    loop {
        let mut position = slice.position;
        return Some(match rustix::fs::sendfile(socket, file, Some(&mut position), tried) {
            Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(sent) => Ok(ColdStep::Sent { sent, tried }),
            Err(Errno::AGAIN) => Ok(ColdStep::Sent { sent: 0, tried }),
            Err(Errno::INTR) => continue,
            Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => return None,
            Err(error) => Err(error.into()),
        });
    }
}

/// Reads the first bytes, and has those behind them read into the page cache.
fn read(slice: &FileSlice, file: &dyn FsFile) -> io::Result<ColdStep> {
    let mut bytes = vec![0; slice.size_bytes.min(COLD_AHEAD_BYTES)];
    file.read_exact_at(&mut bytes, slice.position)?;
    bytes.truncate(COLD_STEP_BYTES);
    bytes.shrink_to_fit();
    Ok(ColdStep::Read(bytes))
}
