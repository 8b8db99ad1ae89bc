//! The broker from its start to its stop.
//!
//! ```text
//! bind ─▶ log dir ─▶ quorum: snapshot, log ─▶ logs ─▶ register ─▶ take roles ─▶ accept ─▶ ready
//! stop:  controlled shutdown ─▶ close connections ─▶ flush and close the logs ─▶ clean-shutdown file
//! ```
//! Addresses are bound first, so that a taken port is said before anything is written. Nothing is accepted before the
//! broker is unfenced and has applied its own registration.

mod open;
mod open_files;
mod ready;

use std::future::Future;
use std::sync::Arc;
use std::time::Instant;

use storage::log::LogError;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use crate::api::dispatch::Dispatcher;
use crate::auto_topic_creation;
use crate::broker::{BoundListener, Broker};
use crate::broker_lifecycle::{BrokerLifecycle, CONTROLLED_SHUTDOWN_TIMEOUT, LifecycleError};
use crate::config::{BrokerConfig, TopicToCreate};
use crate::network::connection::{ConnectionLimits, SharedByConnections};
use crate::network::listener;
use crate::quorum::{QuorumFailure, RunningQuorum};
use crate::replica_manager::background::BackgroundThreads;

/// Why a broker does not start, or stops by itself. The text says what to do.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The configuration, the command line or what it points to: a taken port, a directory that is not ours.
    #[error("{0}")]
    Configuration(String),
    /// The cluster does not let this process in: fenced, or its id is taken.
    #[error("{0}")]
    Fenced(String),
    /// The disk failed, or says that it did.
    #[error("{0}")]
    Disk(String),
}

impl ServeError {
    /// The exit code: 2, 3 and 4 in this order.
    pub fn exit_code(&self) -> u8 {
        match self {
            ServeError::Configuration(_) => 2,
            ServeError::Fenced(_) => 3,
            ServeError::Disk(_) => 4,
        }
    }

    fn with_exit_code(code: u8, reason: String) -> ServeError {
        match code {
            3 => ServeError::Fenced(reason),
            4 => ServeError::Disk(reason),
            _ => ServeError::Configuration(reason),
        }
    }
}

impl From<QuorumFailure> for ServeError {
    fn from(failure: QuorumFailure) -> ServeError {
        ServeError::with_exit_code(failure.exit_code(), failure.to_string())
    }
}

impl From<LifecycleError> for ServeError {
    fn from(error: LifecycleError) -> ServeError {
        ServeError::with_exit_code(error.exit_code(), error.to_string())
    }
}

impl From<LogError> for ServeError {
    fn from(error: LogError) -> ServeError {
        ServeError::Disk(error.to_string())
    }
}

/// Runs a broker until `shutdown` resolves and everything is flushed and closed. `started` is when the process began;
/// the ready line counts from there.
///
/// # Errors
/// What keeps it from starting, or stopped it. After a disk error nothing says that the stop was clean, so the next
/// start reads what it must.
pub async fn run(
    config: BrokerConfig,
    started: Instant,
    shutdown: impl Future<Output = ()> + Send,
) -> Result<(), ServeError> {
    let sockets = open::bind(&config)?;
    let (disk_failed, mut disk_failure) = watch::channel(None);
    let listeners: Vec<BoundListener> = sockets.iter().map(|(bound, _)| bound.clone()).collect();
    let opened = open::open(config, listeners, disk_failed)?;
    let open::Opened { broker, mut quorum, dir, registration } = opened;
    let open_files = open_files::share_out();
    dir.set_max_open_files(open_files.cached_by_logs);
    let lifecycle = BrokerLifecycle::start(
        broker.controller().clone(),
        Arc::clone(&broker.image),
        registration,
    )
    .await?;
    let background = BackgroundThreads::start(broker.replica_manager())
        .map_err(|error| ServeError::Configuration(format!("no threads: {error}")))?;
    create_topics(&broker).await?;

    let (stop, stopping) = watch::channel(false);
    let mut tasks = JoinSet::new();
    tasks.spawn(until_stopped(
        Arc::clone(broker.replica_manager().delayed_produces()).expire(),
        stopping.clone(),
    ));
    tasks.spawn(until_stopped(
        Arc::clone(broker.replica_manager().delayed_fetches()).expire(),
        stopping.clone(),
    ));
    let limits = ConnectionLimits {
        request_max_bytes: broker.config().socket_request_max_bytes,
        max_idle: broker.config().connections_max_idle,
        queued_max_bytes: broker.config().queued_max_request_bytes,
    };
    let dispatcher = Dispatcher::new(Arc::clone(&broker));
    let shared = Arc::new(SharedByConnections::new(limits, dispatcher));
    let max_connections = broker.config().max_connections.min(open_files.connections);
    let max_connections = max_connections.min(Semaphore::MAX_PERMITS);
    let connections = Arc::new(Semaphore::new(max_connections));
    for (bound, socket) in sockets {
        tasks.spawn(listener::run(
            socket,
            Arc::from(bound.listener.name.as_str()),
            Arc::clone(&shared),
            Arc::clone(&connections),
            stopping.clone(),
        ));
    }
    ready::announce(&broker, started)?;

    let stopped_by = tokio::select! {
        () = shutdown => Ok(()),
        failure = quorum.failed() => Err(ServeError::from(failure)),
        failed = disk_failure.wait_for(Option::is_some) => {
            let error = failed.ok().and_then(|error| error.clone());
            Err(ServeError::Disk(error.unwrap_or_else(|| "the log directory is offline".into())))
        }
    };
    if stopped_by.is_ok() {
        lifecycle.controlled_shutdown(CONTROLLED_SHUTDOWN_TIMEOUT).await;
    }
    stop.send_replace(true);
    while tasks.join_next().await.is_some() {}
    background.stop();
    quorum_stop(quorum);
    stopped_by?;
    let broker_epoch = Some(lifecycle.broker_epoch().value());
    broker.replica_manager().logs().close(broker_epoch, broker.clock().wall())?;
    tracing::info!("stopped");
    Ok(())
}

/// Blocks for as long as one write of the metadata log takes.
fn quorum_stop(quorum: RunningQuorum) {
    quorum.stop();
}

async fn until_stopped(work: impl Future<Output = ()>, mut stopping: watch::Receiver<bool>) {
    tokio::select! {
        () = work => {}
        _ = stopping.wait_for(|stop| *stop) => {}
    }
}

/// `--topic`: those that exist already are left as they are.
async fn create_topics(broker: &Broker) -> Result<(), ServeError> {
    let topics = &broker.config().topics;
    if topics.is_empty() {
        return Ok(());
    }
    let wanted =
        topics.iter().map(|TopicToCreate { name, partitions }| (name.clone(), *partitions));
    let failed = auto_topic_creation::create(broker, wanted.collect()).await;
    match failed.first() {
        None => Ok(()),
        Some((name, error)) => {
            Err(ServeError::Configuration(format!("--topic {name} cannot be created: {error}")))
        }
    }
}
