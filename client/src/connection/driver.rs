//! The task behind a connection: writes queued requests, reads answers, matches them.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use bytes::{Buf, Bytes};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{Notify, mpsc, oneshot};

use super::frame::{FrameError, FrameReader};
use crate::error::ConnectionError;

/// A request on its way out. Without `answer` the broker sends none.
#[derive(Debug)]
pub(super) struct Outgoing {
    pub(super) frame: Bytes,
    pub(super) correlation_id: i32,
    pub(super) answer: Option<oneshot::Sender<Bytes>>,
}

/// A request that was written and has not been answered.
#[derive(Debug)]
struct Pending {
    correlation_id: i32,
    answer: oneshot::Sender<Bytes>,
}

/// What the task shares with the handles.
#[derive(Debug)]
pub(super) struct State {
    address: String,
    /// Set once, by whoever fails first.
    closed: OnceLock<ConnectionError>,
    close: Notify,
    /// In the order in which they were written, which is the order of the answers.
    pending: Mutex<VecDeque<Pending>>,
}

impl State {
    pub(super) fn new(address: &str) -> State {
        State {
            address: address.to_owned(),
            closed: OnceLock::new(),
            close: Notify::new(),
            pending: Mutex::new(VecDeque::new()),
        }
    }

    pub(super) fn address(&self) -> &str {
        &self.address
    }

    pub(super) fn closed(&self) -> Option<ConnectionError> {
        self.closed.get().cloned()
    }

    pub(super) fn closed_or_default(&self) -> ConnectionError {
        self.closed().unwrap_or_else(|| ConnectionError::Closed { address: self.address.clone() })
    }

    /// Closes the connection; the first reason stands.
    pub(super) fn close(&self, reason: ConnectionError) {
        let _ = self.closed.set(reason);
        self.close.notify_one();
    }

    fn pending(&self) -> MutexGuard<'_, VecDeque<Pending>> {
        // Pushing and popping leave the queue whole, whoever panicked in between.
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn broke(&self, source: std::io::Error) -> ConnectionError {
        ConnectionError::Broke { address: self.address.clone(), source: Arc::new(source) }
    }

    fn invalid(&self, reason: String) -> ConnectionError {
        ConnectionError::AnswerInvalid { address: self.address.clone(), reason }
    }
}

/// Runs until the connection fails, or every handle is gone and every awaited answer is in.
pub(super) async fn drive(
    stream: TcpStream,
    queue: mpsc::Receiver<Outgoing>,
    state: Arc<State>,
    max_answer_size_bytes: usize,
) {
    let (read, write) = stream.into_split();
    let mut reader = FrameReader::new(read, max_answer_size_bytes);
    let reason = tokio::select! {
        error = read_answers(&mut reader, &state) => error,
        written = write_requests(write, queue, &state) => match written {
            Err(error) => error,
            // No handle is left, so nothing more is asked: only what was asked already is still read. The write half
            // lives on till then, because some brokers drop the answers of a client that has half closed.
            Ok(_write) => tokio::select! {
                error = drain_answers(&mut reader, &state) => error,
                () = state.close.notified() => state.closed_or_default(),
            },
        },
        () = state.close.notified() => state.closed_or_default(),
    };
    // First the reason, then the dropped senders: whoever wakes up finds it.
    state.close(reason);
    state.pending().clear();
}

async fn write_requests(
    mut write: OwnedWriteHalf,
    mut queue: mpsc::Receiver<Outgoing>,
    state: &State,
) -> Result<OwnedWriteHalf, ConnectionError> {
    while let Some(Outgoing { mut frame, correlation_id, answer }) = queue.recv().await {
        if let Some(answer) = answer {
            // Before the write: the answer may be here before `write_all` returns.
            state.pending().push_back(Pending { correlation_id, answer });
        }
        write.write_all_buf(&mut frame).await.map_err(|e| state.broke(e))?;
    }
    Ok(write)
}

async fn read_answers(reader: &mut FrameReader<OwnedReadHalf>, state: &State) -> ConnectionError {
    loop {
        if let Err(error) = read_answer(reader, state).await {
            return error;
        }
    }
}

async fn drain_answers(reader: &mut FrameReader<OwnedReadHalf>, state: &State) -> ConnectionError {
    while state.pending().iter().any(|pending| !pending.answer.is_closed()) {
        if let Err(error) = read_answer(reader, state).await {
            return error;
        }
    }
    ConnectionError::Closed { address: state.address.clone() }
}

async fn read_answer(
    reader: &mut FrameReader<OwnedReadHalf>,
    state: &State,
) -> Result<(), ConnectionError> {
    let frame = reader.next().await.map_err(|error| match error {
        FrameError::Ended { within_frame: false } => {
            ConnectionError::Closed { address: state.address.clone() }
        }
        FrameError::Ended { within_frame: true } => {
            state.broke(std::io::Error::new(std::io::ErrorKind::UnexpectedEof, error.to_string()))
        }
        FrameError::Io(source) => state.broke(source),
        FrameError::Size { .. } => state.invalid(error.to_string()),
    })?;
    let correlation_id = frame.as_ref().get_i32(); // a frame has four bytes at least
    let Some(pending) = state.pending().pop_front() else {
        return Err(state.invalid(format!("an answer {correlation_id} to no request")));
    };
    if pending.correlation_id != correlation_id {
        let reason = format!("answer {correlation_id} where {} was due", pending.correlation_id);
        return Err(state.invalid(reason));
    }
    // Who asked may have given up waiting.
    let _ = pending.answer.send(frame);
    Ok(())
}
