//! One connection, one task: reads frames, has them handled, writes the answers in the order of the requests.
//!
//! A request is handled before the next one is read, with one exception (DESIGN D6): a Produce that waits for its
//! acknowledgement does not stop the next request; its answer keeps its place in the queue. At most
//! [`MAX_WAITING_REQUESTS`] requests and [`MAX_WAITING_BYTES`] of their frames wait that way.

use super::frame::FrameReader;
use super::response::Response;
use super::response_writer::write;
use crate::api::dispatch::{Dispatcher, Reply};
use bytes::Bytes;
use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::sync::watch;

/// Requests of one connection whose answers may wait at once.
pub const MAX_WAITING_REQUESTS: usize = 64;
/// Bytes of request frames of one connection that may wait for answers at once.
pub const MAX_WAITING_BYTES: usize = 128 * 1024 * 1024;

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
}

/// A later answer, and what it holds back.
struct Waiting {
    reply: Pin<Box<dyn Future<Output = Option<Response>> + Send>>,
    frame_bytes: usize,
}

/// Serves one connection until its peer leaves, it errs, or `shutdown` turns true.
/// One log line says who was cut off and why; a peer that closes is not news.
pub async fn serve(
    mut stream: TcpStream,
    context: ConnectionContext,
    limits: ConnectionLimits,
    dispatcher: Arc<Dispatcher>,
    mut shutdown: watch::Receiver<bool>,
) {
    let stop_draining = shutdown.clone();
    let mut reader = FrameReader::default();
    let mut waiting: VecDeque<Waiting> = VecDeque::new();
    let mut waiting_bytes = 0;
    let ended = loop {
        let nothing_waits = waiting.is_empty();
        let may_read = waiting.len() < MAX_WAITING_REQUESTS && waiting_bytes < MAX_WAITING_BYTES;
        tokio::select! {
            biased;
            // First, or a peer that never pauses would keep the broker from stopping.
            () = stopped(&mut shutdown) => break Ok(()),
            // Answers leave in order: only the first is looked at.
            answer = first(&mut waiting), if !nothing_waits => {
                let done = waiting.pop_front().expect("guarded by the branch");
                waiting_bytes -= done.frame_bytes;
                match answer {
                    Some(response) => if let Err(error) = write(&stream, response).await {
                        break Err(Ended::Io(error));
                    },
                    None => break Err(Ended::Unanswerable),
                }
            }
            frame = next_frame(&mut stream, &mut reader, &limits, nothing_waits), if may_read => {
                let frame = match frame {
                    Ok(Some(frame)) => frame,
                    Ok(None) => break Ok(()),
                    Err(error) => break Err(error),
                };
                let frame_bytes = frame.len();
                match dispatcher.dispatch(&context, frame) {
                    Ok(Reply::Now(response)) if nothing_waits => {
                        if let Err(error) = write(&stream, response).await {
                            break Err(Ended::Io(error));
                        }
                    }
                    Ok(Reply::Now(response)) => {
                        let reply = Box::pin(std::future::ready(Some(response)));
                        waiting.push_back(Waiting { reply, frame_bytes });
                        waiting_bytes += frame_bytes;
                    }
                    Ok(Reply::Nothing) => {}
                    Ok(Reply::Waiting(reply)) => {
                        waiting.push_back(Waiting { reply, frame_bytes });
                        waiting_bytes += frame_bytes;
                    }
                    Ok(Reply::Serial(reply)) => {
                        // Everything before it leaves first; nothing after it starts until it is answered.
                        waiting.push_back(Waiting { reply, frame_bytes });
                        if let Err(error) = drain(&mut stream, &mut waiting, stop_draining.clone()).await {
                            break Err(error);
                        }
                        waiting_bytes = 0;
                    }
                    Err(refused) => {
                        // What was accepted before it is still answered.
                        let _ = drain(&mut stream, &mut waiting, stop_draining.clone()).await;
                        break Err(Ended::Refused(refused.to_string()));
                    }
                }
            }
        }
    };
    if let Err(ended) = ended {
        ended.log(&context);
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
    Shutdown,
}

impl Ended {
    fn log(&self, context: &ConnectionContext) {
        let (peer, listener) = (context.peer, &*context.listener);
        match self {
            Ended::Refused(why) => {
                tracing::warn!(%peer, listener, %why, "closed a connection");
            }
            Ended::Io(error) => tracing::debug!(%peer, listener, %error, "connection failed"),
            Ended::Unanswerable => {
                tracing::warn!(%peer, listener, "closed a connection whose answer cannot be encoded");
            }
            Ended::Idle => tracing::debug!(%peer, listener, "closed an idle connection"),
            Ended::Shutdown => tracing::debug!(%peer, listener, "closed for shutdown"),
        }
    }
}

/// Until the broker stops. An error means that the one who would say so is gone, which is the same.
pub(super) async fn stopped(shutdown: &mut watch::Receiver<bool>) {
    let _ = shutdown.wait_for(|stop| *stop).await;
}

async fn first(waiting: &mut VecDeque<Waiting>) -> Option<Response> {
    match waiting.front_mut() {
        Some(front) => front.reply.as_mut().await,
        None => std::future::pending().await,
    }
}

async fn drain(
    stream: &mut TcpStream,
    waiting: &mut VecDeque<Waiting>,
    mut shutdown: watch::Receiver<bool>,
) -> Result<(), Ended> {
    while let Some(mut next) = waiting.pop_front() {
        let answer = tokio::select! {
            answer = next.reply.as_mut() => answer,
            () = stopped(&mut shutdown) => return Err(Ended::Shutdown),
        };
        let response = answer.ok_or(Ended::Unanswerable)?;
        write(stream, response).await.map_err(Ended::Io)?;
    }
    Ok(())
}

/// The next frame. An idle connection (nothing buffered, nothing waiting) holds no buffer and is closed after
/// `connections.max.idle.ms`.
async fn next_frame(
    stream: &mut TcpStream,
    reader: &mut FrameReader,
    limits: &ConnectionLimits,
    nothing_waits: bool,
) -> Result<Option<Bytes>, Ended> {
    let read = async {
        if reader.release_if_idle() {
            stream.readable().await.map_err(Ended::Io)?;
        }
        reader.read(stream, limits.request_max_bytes).await.map_err(|error| match error {
            super::frame::FrameReadError::Io(error) => Ended::Io(error),
            other => Ended::Refused(other.to_string()),
        })
    };
    match limits.max_idle {
        Some(max_idle) if nothing_waits => {
            tokio::time::timeout(max_idle, read).await.unwrap_or(Err(Ended::Idle))
        }
        _ => read.await,
    }
}
