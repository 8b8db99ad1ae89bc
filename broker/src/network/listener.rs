//! Accepts connections on one address and gives each a task.

use super::connection::{self, ConnectionContext, SharedByConnections};
use rustix::net::sockopt::{set_tcp_congestion, tcp_congestion};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

/// Connections that wait for `accept`, per listener.
const BACKLOG: u32 = 1024;
/// Pause after a failed accept (too many open files), so that the loop does not spin.
const ACCEPT_RETRY: Duration = Duration::from_millis(50);

/// The congestion control of every Linux, which every process may take.
const UNPACED: &str = "reno";

/// Binds an address. Port 0 takes a free one.
///
/// # Errors
/// Of the operating system: address taken, not ours, no permission.
pub fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    // A broker that was killed must be able to come back on its port at once.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Keeps BBR, if the system is set to it, from the connections that will come. Returns its name, which peers elsewhere are to
/// have again: a peer with our own address is on this machine, where nothing can be congested. BBR paces all the same, and its
/// timers made a MiB sent by `sendfile` three to four times as dear. Once a connection has had it, it is paced for good;
/// that is why the listener is changed.
fn stop_pacing(listener: &TcpListener) -> Option<String> {
    let paced = tcp_congestion(listener).ok().filter(|name| name.starts_with("bbr"))?;
    set_tcp_congestion(listener, UNPACED).ok()?;
    Some(paced)
}

/// How long a stopping listener waits for answers on their way out. A peer that does not read would hold it up for ever.
const STOP_GRACE: Duration = Duration::from_secs(1);

/// Accepts until `shutdown` turns true, then waits for its connections to notice, and cuts off those that do not.
/// When it returns, no request is being handled any more.
pub async fn run(
    listener: TcpListener,
    name: Arc<str>,
    shared: Arc<SharedByConnections>,
    connections: Arc<Semaphore>,
    mut shutdown: watch::Receiver<bool>,
) {
    let paced = stop_pacing(&listener);
    let mut tasks = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = tasks.join_next(), if !tasks.is_empty() => continue,
            () = connection::stopped(&mut shutdown) => break,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                if let Some(left_out) = shared.admit_line() {
                    tracing::warn!(listener = &*name, %error, left_out, "accept failed");
                }
                tokio::time::sleep(ACCEPT_RETRY).await;
                continue;
            }
        };
        let Ok(permit) = Arc::clone(&connections).try_acquire_owned() else {
            if let Some(left_out) = shared.admit_line() {
                tracing::warn!(listener = &*name, %peer, left_out, "refused a connection: max.connections, or the process's limit of open files, is reached");
            }
            continue;
        };
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%peer, %error, "connection gone before it was served");
            continue;
        }
        let Ok(local) = stream.local_addr() else { continue };
        if let Some(paced) = &paced
            && peer.ip() != local.ip()
        {
            let _ = set_tcp_congestion(&stream, paced);
        }
        let context = ConnectionContext { peer, local, listener: Arc::clone(&name) };
        let shared = Arc::clone(&shared);
        let shutdown = shutdown.clone();
        tasks.spawn(async move {
            connection::serve(stream, context, shared, shutdown).await;
            drop(permit);
        });
    }
    let all_end = async { while tasks.join_next().await.is_some() {} };
    if tokio::time::timeout(STOP_GRACE, all_end).await.is_err() {
        tracing::debug!(listener = &*name, connections = tasks.len(), "cut off what did not end");
        tasks.shutdown().await;
    }
}
