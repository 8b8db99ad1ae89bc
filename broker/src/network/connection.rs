//! One connection, one task: reads frames, has them handled, writes the answers in the order of the requests.
//!
//! A request is handled before the next one is, with one exception (DESIGN D6): a Produce that waits for its
//! acknowledgement does not stop the next request; its answer keeps its place in the queue. Answers that are ready
//! together leave together.
//!
//! What a connection may hold (see [`memory_budget`](super::memory_budget) for all of them together):
//! - frames that wait for their answers: [`MAX_WAITING_REQUESTS`], and [`MAX_WAITING_BYTES`] before the last of them;
//! - no request is handled while [`MAX_UNWRITTEN_BYTES`] of answers wait to be written, or for their turn, so at most those
//!   and one more answer;
//! - what comes in meanwhile is read only up to one read-ahead, to notice a peer that leaves.

#[cfg(test)]
mod tests;
mod watch;

use super::buffer_pool::BufferPool;
use super::frame::{FrameReadError, FrameReader, READ_AHEAD_BYTES};
use super::log_limit::LogLimit;
use super::memory_account::{Holding, MemoryAccount, SharedBudget};
use super::memory_budget::Backlog;
use super::outgoing::Outgoing;
use super::response::Response;
use crate::api::dispatch::{Dispatcher, LaterResponse, Refused, Reply};
use bytes::Bytes;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use tokio::net::TcpStream;
use tokio::sync;
use watch::{Stop, Tick, Watchdog};

/// Requests of one connection whose answers may wait at once.
pub const MAX_WAITING_REQUESTS: usize = 64;
/// Bytes of request frames of one connection that may wait for answers before another is read.
pub const MAX_WAITING_BYTES: usize = 128 * 1024 * 1024;
/// Bytes of answers of one connection that may wait to be written, or for their turn, before another request is handled.
pub const MAX_UNWRITTEN_BYTES: usize = 64 * 1024;
/// Bytes of a large frame that are asked for at once.
const RECEIVE_STEP_BYTES: usize = 256 * 1024;
/// Requests handled before the other tasks of the thread have a turn.
const TURN_REQUESTS: usize = 64;

/// What a handler must know of the connection that its request came in on.
#[derive(Debug, Clone)]
pub struct ConnectionContext {
    /// Who is asking.
    pub peer: SocketAddr,
    /// The address that the client dialled; what we advertise where nothing else is said (trap 1).
    pub local: SocketAddr,
    /// Name of the listener, as in `listeners`.
    pub listener: Arc<str>,
}

/// Limits of a connection, from the configuration.
#[derive(Debug, Clone, Copy)]
pub struct ConnectionLimits {
    /// `socket.request.max.bytes`.
    pub request_max_bytes: usize,
    /// `connections.max.idle.ms`; `None` keeps idle connections.
    pub max_idle: Option<Duration>,
    /// `queued.max.request.bytes`; `None` is without a limit.
    pub queued_max_bytes: Option<usize>,
}

/// Takes a frame to its handler; an error closes the connection.
type Dispatch = dyn Fn(&ConnectionContext, Bytes) -> Result<Reply, Refused> + Send + Sync;

/// What the connections of all listeners share.
pub struct SharedByConnections {
    limits: ConnectionLimits,
    dispatch: Box<Dispatch>,
    budget: Arc<SharedBudget>,
    buffers: Arc<BufferPool>,
    refusals: Mutex<LogLimit>,
}

impl SharedByConnections {
    /// For connections within `limits`, whose frames go to `dispatcher`.
    pub fn new(limits: ConnectionLimits, dispatcher: Dispatcher) -> SharedByConnections {
        let dispatch = move |context: &_, frame| dispatcher.dispatch(context, frame);
        SharedByConnections::with_dispatch(limits, Box::new(dispatch))
    }

    fn with_dispatch(limits: ConnectionLimits, dispatch: Box<Dispatch>) -> SharedByConnections {
        SharedByConnections {
            limits,
            dispatch,
            budget: Arc::new(SharedBudget::new(limits.queued_max_bytes)),
            buffers: Arc::default(),
            refusals: Mutex::new(LogLimit::new(Instant::now())),
        }
    }

    /// Whether a line about one more refused connection may be written, and how many were left out before it.
    pub(super) fn admit_line(&self) -> Option<u64> {
        let mut refusals = self.refusals.lock().expect("a panic aborts, so no lock is poisoned");
        refusals.admit(Instant::now())
    }
}

/// Serves one connection until its peer leaves, it errs, or `shutdown` turns true.
/// One log line says who was cut off and why; a peer that closes is not news.
pub async fn serve(
    stream: TcpStream,
    context: ConnectionContext,
    shared: Arc<SharedByConnections>,
    shutdown: sync::watch::Receiver<bool>,
) {
    let mut watched = shutdown.clone();
    let stopped = pin!(stopped(&mut watched));
    let mut stop = Stop::new(shutdown, stopped);
    let sleep = pin!(tokio::time::sleep(Duration::ZERO));
    let mut watchdog = Watchdog::new(sleep, shared.limits.max_idle);
    let mut connection = Connection::new(stream, context, shared);
    let ended = poll_fn(|task| {
        if stop.poll(task) {
            return connection.poll_stop(task);
        }
        let polled = connection.poll(task);
        if polled.is_ready() {
            return polled;
        }
        connection.poll_watchdog(task, &mut watchdog)
    });
    if let Err(ended) = ended.await {
        ended.log(&connection.context, &connection.shared);
    }
}

/// An answer in its place.
enum Waiting {
    Ready(Response),
    Later(LaterResponse),
}

struct Connection {
    stream: TcpStream,
    context: ConnectionContext,
    shared: Arc<SharedByConnections>,
    reader: FrameReader,
    /// Answers to come, each with what it holds: one that is ready its own bytes in memory, another its request's frame.
    waiting: VecDeque<(Waiting, usize)>,
    waiting_bytes: usize,
    /// Of `waiting_bytes`, what answers hold that are ready.
    ready_bytes: usize,
    /// The last of `waiting` must be answered before another request is handled.
    is_serial: bool,
    outgoing: Outgoing,
    memory: MemoryAccount,
    /// What was accepted is still answered.
    refused: Option<Ended>,
    is_input_ended: bool,
    /// Bytes went in or out since the watchdog last looked.
    has_moved: bool,
    /// Bytes came in since it last looked at a frame that others wait for.
    has_received: bool,
    /// Some of an answer went out since the memory was settled.
    has_written: bool,
    /// A frame that was under way came in whole since then.
    has_come_in: bool,
}

impl Connection {
    fn new(
        stream: TcpStream,
        context: ConnectionContext,
        shared: Arc<SharedByConnections>,
    ) -> Connection {
        Connection {
            stream,
            context,
            reader: FrameReader::new(shared.limits.request_max_bytes, Arc::clone(&shared.buffers)),
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            ready_bytes: 0,
            is_serial: false,
            outgoing: Outgoing::new(),
            memory: MemoryAccount::new(Arc::clone(&shared.budget)),
            refused: None,
            is_input_ended: false,
            has_moved: false,
            has_received: false,
            has_written: false,
            has_come_in: false,
            shared,
        }
    }

    /// Does all that can be done now.
    fn poll(&mut self, task: &mut Context<'_>) -> Poll<Result<(), Ended>> {
        if self.memory.standing().is_some_and(|standing| standing.is_evicted) {
            return Poll::Ready(Err(Ended::Evicted));
        }
        let mut handled = 0;
        loop {
            let mut has_more = self.collect_answers(task)?;
            has_more |= self.handle_frames(&mut handled)?;
            if !self.outgoing.is_empty() && self.poll_write(task)?.is_ready() {
                has_more = true; // what waited for room may go on
            }
            if self.outgoing.is_empty() {
                if self.is_input_ended {
                    return Poll::Ready(Ok(()));
                }
                if self.waiting.is_empty()
                    && let Some(refused) = self.refused.take()
                {
                    return Poll::Ready(Err(refused));
                }
            }
            has_more |= self.poll_read(task)?.is_ready();
            if handled >= TURN_REQUESTS {
                task.waker().wake_by_ref();
                break;
            }
            if !has_more {
                break;
            }
        }
        let has_written = std::mem::take(&mut self.has_written);
        let backlog = match self.outgoing.is_empty() {
            true => Backlog::None,
            false if has_written => Backlog::BeingRead,
            false => Backlog::Unread,
        };
        let holding = Holding {
            bytes: self.held_bytes(),
            backlog,
            is_receiving: self.is_receiving(),
            has_come_in: std::mem::take(&mut self.has_come_in),
        };
        self.memory.settle(holding, task);
        Poll::Pending
    }

    /// Writes what was being written, and ends. The listener cuts off a peer that takes too long to read it.
    fn poll_stop(&mut self, task: &mut Context<'_>) -> Poll<Result<(), Ended>> {
        match self.poll_write(task) {
            Ok(Poll::Pending) => Poll::Pending,
            _ => Poll::Ready(Err(Ended::Shutdown)),
        }
    }

    fn held_bytes(&self) -> usize {
        self.reader.held_bytes() + self.waiting_bytes + self.outgoing.memory_bytes()
    }

    /// Answers leave in order: only the first is looked at. Returns whether any was ready.
    fn collect_answers(&mut self, task: &mut Context<'_>) -> Result<bool, Ended> {
        let mut has_any = false;
        while self.outgoing.size_bytes() < MAX_UNWRITTEN_BYTES
            && let Some((first, _)) = self.waiting.front_mut()
        {
            let later = match first {
                Waiting::Ready(_) => None,
                Waiting::Later(later) => match later.as_mut().poll(task) {
                    Poll::Pending => break,
                    Poll::Ready(Some(response)) => Some(response),
                    Poll::Ready(None) => return Err(Ended::Unanswerable),
                },
            };
            let (first, held_bytes) = self.waiting.pop_front().expect("it was just looked at");
            self.waiting_bytes -= held_bytes;
            if let Waiting::Ready(response) = first {
                self.ready_bytes -= held_bytes;
                self.outgoing.push(response);
            }
            if let Some(response) = later {
                self.outgoing.push(response);
            }
            has_any = true;
        }
        if self.waiting.is_empty() {
            self.is_serial = false;
        }
        Ok(has_any)
    }

    fn may_handle(&self) -> bool {
        !self.is_serial
            && self.refused.is_none()
            && self.waiting.len() < MAX_WAITING_REQUESTS
            && self.waiting_bytes < MAX_WAITING_BYTES
            && self.outgoing.size_bytes() + self.ready_bytes < MAX_UNWRITTEN_BYTES
    }

    fn may_read(&self) -> bool {
        !self.is_input_ended && self.refused.is_none() && self.reader.is_drained()
    }

    /// Whether it is the peer's turn: of a frame that is under way, or for which memory is asked, more is read as soon as
    /// it comes and there is memory.
    fn is_receiving(&self) -> bool {
        let is_wanted = self.reader.is_under_way() || self.memory.is_refused();
        self.may_read() && self.may_handle() && is_wanted
    }

    /// Returns whether something came that must be polled.
    fn handle_frames(&mut self, handled: &mut usize) -> Result<bool, Ended> {
        let mut has_later = false;
        while *handled < TURN_REQUESTS && self.may_handle() {
            let frame = match self.reader.next_frame() {
                Ok(Some(frame)) => frame,
                Ok(None) => break,
                Err(error) => {
                    self.refused = Some(Ended::Refused(error.to_string()));
                    break;
                }
            };
            *handled += 1;
            let frame_bytes = frame.len();
            let waiting = match (self.shared.dispatch)(&self.context, frame) {
                Ok(Reply::Now(response)) if self.waiting.is_empty() => {
                    self.outgoing.push(response);
                    continue;
                }
                Ok(Reply::Now(response)) => Waiting::Ready(response),
                Ok(Reply::Nothing) => continue,
                Ok(Reply::Waiting(later)) => Waiting::Later(later),
                Ok(Reply::Serial(later)) => {
                    // Everything before it leaves first; nothing after it starts until it is answered.
                    self.is_serial = true;
                    Waiting::Later(later)
                }
                Err(refused) => {
                    self.refused = Some(Ended::Refused(refused.to_string()));
                    break;
                }
            };
            has_later |= self.waiting.is_empty();
            let held_bytes = match &waiting {
                Waiting::Ready(response) => response.memory_bytes(),
                Waiting::Later(_) => frame_bytes,
            };
            if matches!(waiting, Waiting::Ready(_)) {
                self.ready_bytes += held_bytes;
            }
            self.waiting.push_back((waiting, held_bytes));
            self.waiting_bytes += held_bytes;
        }
        Ok(has_later)
    }

    fn poll_write(&mut self, task: &mut Context<'_>) -> Result<Poll<()>, Ended> {
        let before = self.outgoing.size_bytes();
        let polled = self.outgoing.poll_write(task, &self.stream);
        let has_written = self.outgoing.size_bytes() < before;
        self.has_moved |= has_written;
        self.has_written |= has_written;
        match polled {
            Poll::Ready(Ok(())) => Ok(Poll::Ready(())),
            Poll::Ready(Err(error)) => Err(Ended::Io(error)),
            Poll::Pending => Ok(Poll::Pending),
        }
    }

    /// Reads once, if anything may be read. Ready if anything came.
    fn poll_read(&mut self, task: &mut Context<'_>) -> Result<Poll<()>, Ended> {
        if !self.may_read() {
            return Ok(Poll::Pending);
        }
        if !self.may_handle() && self.reader.held_bytes() >= READ_AHEAD_BYTES {
            return Ok(Poll::Pending);
        }
        let held = self.held_bytes();
        let wanted = self.reader.wanted_bytes().min(RECEIVE_STEP_BYTES);
        if !self.memory.has_room(held, wanted) {
            // Nothing is asked for before there is something to receive.
            match self.stream.poll_read_ready(task) {
                Poll::Pending => return Ok(Poll::Pending),
                Poll::Ready(Err(error)) => return Err(Ended::Io(error)),
                Poll::Ready(Ok(())) => {}
            }
            // Others may need that memory, and what it was for could not be handled.
            if !self.may_handle() {
                return Ok(Poll::Pending);
            }
        }
        let room = self.memory.room(held, wanted, task);
        if room == 0 {
            return Ok(Poll::Pending);
        }
        let was_under_way = self.reader.is_under_way();
        match self.reader.poll_read(task, &mut self.stream, room) {
            Poll::Pending => return Ok(Poll::Pending),
            Poll::Ready(Ok(true)) => {
                (self.has_moved, self.has_received) = (true, true);
                if was_under_way && !self.reader.is_under_way() {
                    self.has_come_in = true;
                    self.memory.finish_frame();
                }
            }
            Poll::Ready(Ok(false)) => self.is_input_ended = true,
            Poll::Ready(Err(FrameReadError::Io(error))) => return Err(Ended::Io(error)),
            Poll::Ready(Err(error)) => {
                self.is_input_ended = true;
                return Err(Ended::Refused(error.to_string()));
            }
        }
        Ok(Poll::Ready(()))
    }

    /// Notices what nobody else does: a peer that moves nothing, one that left behind unread requests, and a frame for
    /// which others wait.
    fn poll_watchdog(
        &mut self,
        task: &mut Context<'_>,
        watchdog: &mut Watchdog<'_>,
    ) -> Poll<Result<(), Ended>> {
        let standing = self.memory.standing();
        watchdog.set_turn(standing.and_then(|standing| standing.turn));
        let others_wait = standing.is_some_and(|standing| standing.others_wait);
        while let Poll::Ready(tick) = watchdog.poll_tick(task) {
            if tick == Tick::Turn {
                // What we did not read did not come too slowly.
                let has_received = std::mem::take(&mut self.has_received) || !self.is_receiving();
                if watchdog.is_too_slow(others_wait, has_received) {
                    return Poll::Ready(Err(Ended::TooSlow));
                }
                continue;
            }
            // An answer that we owe is ours to wait for, and so is memory.
            let is_refused = self.memory.is_refused();
            let is_ours = is_refused || !self.waiting.is_empty() && self.outgoing.is_empty();
            let has_moved = std::mem::take(&mut self.has_moved) || is_ours;
            if watchdog.is_idle(has_moved) {
                return Poll::Ready(Err(Ended::Idle));
            }
            if is_ours
                && (is_refused || !self.reader.is_drained())
                && watch::is_hung_up(&self.stream)
            {
                return Poll::Ready(Ok(()));
            }
        }
        Poll::Pending
    }
}

/// Why a connection was ended by us.
enum Ended {
    Io(io::Error),
    /// The peer sent what has no error answer.
    Refused(String),
    /// An answer could not be encoded; that was said already.
    Unanswerable,
    Idle,
    /// Answers that nobody reads fill `queued.max.request.bytes`, and these have waited longest.
    Evicted,
    /// Others waited for the memory of a frame that did not come in.
    TooSlow,
    Shutdown,
}

impl Ended {
    fn log(&self, context: &ConnectionContext, shared: &SharedByConnections) {
        let (peer, listener) = (context.peer, &*context.listener);
        let why = match self {
            Ended::Refused(why) => why.as_str(),
            Ended::Evicted => {
                "its answers have waited longest to be read, and queued.max.request.bytes are held"
            }
            Ended::TooSlow => {
                "its request came in too slowly while queued.max.request.bytes were held"
            }
            Ended::Io(error) => {
                return tracing::debug!(%peer, listener, %error, "connection failed");
            }
            Ended::Unanswerable => "its answer cannot be encoded",
            Ended::Idle => return tracing::debug!(%peer, listener, "closed an idle connection"),
            Ended::Shutdown => return tracing::debug!(%peer, listener, "closed for shutdown"),
        };
        match shared.admit_line() {
            Some(0) => tracing::warn!(%peer, listener, why, "closed a connection"),
            Some(left_out) => tracing::warn!(
                %peer, listener, why, left_out, "closed a connection; lines like this were left out"
            ),
            None => tracing::debug!(%peer, listener, why, "closed a connection"),
        }
    }
}

/// Until the broker stops. An error means that the one who would say so is gone, which is the same.
pub(super) async fn stopped(shutdown: &mut sync::watch::Receiver<bool>) {
    let _ = shutdown.wait_for(|stop| *stop).await;
}
