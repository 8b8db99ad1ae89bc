//! The metadata quorum's shell (DESIGN D2, flow 4): disk, thread, clock and entropy around the pure core.
//!
//! ```text
//!   handlers, lifecycle ── submit(decide) ──▶ driver thread: decide, propose, replay ── write, fsync ──▶ commit
//!                       ◀── answer ── published image ◀── MetadataListener::apply ◀── apply ◀────────────┘
//! ```
//!
//! Order of a start: [`OpenQuorum::open`] reads the log and, being alone, leads it, so that its image is all that was ever
//! committed; who needs the image to come up (the log manager) takes it; [`OpenQuorum::start`] hands the whole of it to the
//! listener and starts the thread. Decisions submitted before wait.
//!
//! For now the group is this node alone: it needs no tick, so its thread sleeps until somebody submits, and it writes its log
//! itself. With peers come ticks, the transport, and a second thread that persists (the core is made for that).

mod controller_handle;
mod driver;
#[cfg(test)]
mod tests;

use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc;
use std::thread::JoinHandle;

use arc_swap::ArcSwap;
use replication::controller::{ConfigValidator, ControllerConfig};
use replication::identity::{BrokerId, ClusterId, DirectoryId};
use replication::metadata::snapshot::SnapshotError;
use replication::metadata::{
    LogPosition, MetadataDecodeError, MetadataDelta, MetadataImage, ReplayError,
};
use replication::quorum::log_store::{
    LogStore, LogStoreConfig, LogStoreError, METADATA_LOG_DIR, OpenedLog,
};
use replication::quorum::membership::{
    Bootstrap, BootstrapAction, BootstrapError, NodeIdentity, VoterList,
};
use replication::quorum::{Quorum, QuorumConfig, QuorumError, QuorumState};
use storage::fs::Fs;
use tokio::sync::oneshot;

pub use controller_handle::{ControllerHandle, ControllerUnavailable, SubmitError};

use controller_handle::Event;
use driver::{Driver, wall_clock};

/// Who must know of each change of the metadata.
pub trait MetadataListener: Send {
    /// Makes `image` true here; `delta` is what changed since the last call. Called in order, on the quorum's own thread;
    /// nothing is answered to anybody, and no reader sees the image, before it returns. It must not wait for a decision.
    ///
    /// The first call has the whole image as its delta, with what an earlier life of this broker led: no role may be taken
    /// from it before this process's own registration is in it (DESIGN D1).
    fn apply(&mut self, image: &MetadataImage, delta: &MetadataDelta);
}

impl<F: FnMut(&MetadataImage, &MetadataDelta) + Send> MetadataListener for F {
    fn apply(&mut self, image: &MetadataImage, delta: &MetadataDelta) {
        self(image, delta);
    }
}

/// What the quorum of one node must be told.
pub struct MetadataQuorumConfig {
    /// `node.id`.
    pub node_id: BrokerId,
    /// `directory.id` of the log directory.
    pub directory_id: DirectoryId,
    /// The cluster id that the operator or `meta.properties` names. Without one a new cluster draws its own.
    pub cluster_id: Option<ClusterId>,
    /// The log on disk.
    pub log_store: LogStoreConfig,
    /// `metadata.log.max.record.bytes.between.snapshots`.
    pub max_bytes_between_snapshots: u64,
    /// The controller's settings.
    pub controller: ControllerConfig,
    /// Who knows which configurations are possible.
    pub validator: Arc<dyn ConfigValidator>,
}

/// Why the metadata quorum does not open, or has stopped. The broker must stop too.
#[derive(Debug, thiserror::Error)]
pub enum QuorumFailure {
    /// The log cannot be read or written.
    #[error(transparent)]
    Log(#[from] LogStoreError),
    /// The voters' list makes no cluster.
    #[error(transparent)]
    Bootstrap(#[from] BootstrapError),
    /// The log belongs to another node or directory.
    #[error(transparent)]
    Member(#[from] QuorumError),
    /// The log belongs to another cluster.
    #[error(
        "the metadata log is of cluster {found}, and this node is told that it is in {expected}"
    )]
    OtherCluster {
        /// The log's.
        found: ClusterId,
        /// The configured one, or `meta.properties`'.
        expected: ClusterId,
    },
    /// The log has other members, or its snapshot must come from somebody else: there is no transport yet.
    #[error("the metadata log has several members; this release runs a quorum of one node only")]
    SeveralMembers,
    /// A committed entry that cannot be understood.
    #[error("metadata entry {index}: {source}")]
    Entry {
        /// Its index.
        index: u64,
        /// What is wrong.
        source: MetadataDecodeError,
    },
    /// A snapshot that cannot be understood.
    #[error("metadata snapshot: {0}")]
    Snapshot(#[from] SnapshotError),
    /// A committed entry that does not fit what came before it.
    #[error(transparent)]
    Replay(#[from] ReplayError),
}

impl QuorumFailure {
    /// The process's exit code (DESIGN §5): 2 for a setting, and for what a newer release wrote; 3 for an id that is not this
    /// node's; 4 for the disk.
    pub fn exit_code(&self) -> u8 {
        match self {
            QuorumFailure::Log(error) if error.is_newer() => 2,
            QuorumFailure::Entry { source, .. }
            | QuorumFailure::Snapshot(SnapshotError::Decode(source))
                if source.is_from_a_later_release() =>
            {
                2
            }
            QuorumFailure::Bootstrap(_) | QuorumFailure::SeveralMembers => 2,
            QuorumFailure::Member(_) | QuorumFailure::OtherCluster { .. } => 3,
            QuorumFailure::Log(_)
            | QuorumFailure::Entry { .. }
            | QuorumFailure::Snapshot(_)
            | QuorumFailure::Replay(_) => 4,
        }
    }
}

/// A quorum whose log is read and led, and of which nobody knows yet.
pub struct OpenQuorum {
    driver: Driver,
    events: mpsc::Receiver<Event>,
    handle: ControllerHandle,
}

impl std::fmt::Debug for OpenQuorum {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OpenQuorum").field("driver", &self.driver).finish_non_exhaustive()
    }
}

impl OpenQuorum {
    /// Opens the metadata log in `log_dir`, or begins a cluster there, and leads it. Blocks on the disk: reads the log, writes
    /// and fsyncs one entry; a new cluster writes and fsyncs its first snapshot, and fsyncs that entry with the next.
    ///
    /// # Errors
    /// See [`QuorumFailure`]; the broker must not start.
    pub fn open(
        fs: Arc<dyn Fs>,
        log_dir: &Path,
        config: MetadataQuorumConfig,
    ) -> Result<OpenQuorum, QuorumFailure> {
        let identity = NodeIdentity { node_id: config.node_id, directory_id: config.directory_id };
        let dir = log_dir.join(METADATA_LOG_DIR);
        let (store, state) = match LogStore::open(fs, &dir, config.log_store)? {
            // Synced at once: what is done with the logs now goes by it, and a killed process may have left it in the page
            // cache alone.
            OpenedLog::Found { store, state, .. } => (*store, state),
            OpenedLog::Empty(empty) => {
                let snapshot = Self::first_snapshot(identity, config.cluster_id.clone())?;
                tracing::info!(cluster_id = %snapshot.cluster_id, "beginning a new cluster");
                let mut store = empty.start(&snapshot, wall_clock())?;
                store.hold_back_first(); // until the broker registers; no log goes by an empty image
                (store, QuorumState::bootstrapped(snapshot))
            }
        };
        let found = &state.snapshot.cluster_id;
        if let Some(expected) = config.cluster_id.as_ref().filter(|expected| *expected != found) {
            let (found, expected) = (found.clone(), expected.clone());
            return Err(QuorumFailure::OtherCluster { found, expected });
        }
        let position = LogPosition { index: state.snapshot.index, term: state.snapshot.term };
        let image = MetadataImage::decode_snapshot(found.clone(), position, &state.snapshot.data)?;
        let quorum = Quorum::new(identity.raft_id(), QuorumConfig::default(), state)?;
        if !quorum.is_only_member() {
            return Err(QuorumFailure::SeveralMembers);
        }

        let (sender, events) = mpsc::channel();
        let mut driver = Driver::new(quorum, store, image, &config);
        driver.settle(&mut |_: &MetadataImage, _: &MetadataDelta| {})?;
        let handle = ControllerHandle::new(sender, config.node_id);
        Ok(OpenQuorum { driver, events, handle })
    }

    /// A list of one voter, by the same road as any other (DESIGN D2): there is nobody to ask.
    fn first_snapshot(
        identity: NodeIdentity,
        cluster_id: Option<ClusterId>,
    ) -> Result<replication::quorum::QuorumSnapshot, QuorumFailure> {
        let list = VoterList { voters: [(identity.node_id, String::new())].into(), cluster_id };
        match Bootstrap::new(identity, list, rand::random())?.poll_action() {
            Some(BootstrapAction::Start(snapshot)) => Ok(snapshot),
            Some(BootstrapAction::Ask { .. } | BootstrapAction::Join { .. }) | None => {
                Err(QuorumFailure::SeveralMembers)
            }
        }
    }

    /// The metadata as applied on this node: always the latest image that the listener has taken.
    pub fn image(&self) -> Arc<ArcSwap<MetadataImage>> {
        self.driver.published()
    }

    /// The way to the controller; what is submitted waits for [`OpenQuorum::start`].
    pub fn controller(&self) -> ControllerHandle {
        self.handle.clone()
    }

    /// Gives the listener everything there is, on this thread, and goes on on a thread of its own.
    ///
    /// # Errors
    /// The system gives no thread.
    pub fn start(
        self,
        mut listener: impl MetadataListener + 'static,
    ) -> std::io::Result<RunningQuorum> {
        let OpenQuorum { driver, events, handle } = self;
        let image = driver.published().load_full();
        let empty = MetadataImage::empty(image.cluster_id().clone());
        listener.apply(&image, &MetadataDelta::between(&empty, &image));
        let (fail, failed) = oneshot::channel();
        let thread = std::thread::Builder::new().name("quorum".to_owned()).spawn(move || {
            if let Err(failure) = driver.run(&events, &mut listener) {
                // Nobody listens any more when the broker is stopping.
                let _ = fail.send(failure);
            }
        })?;
        Ok(RunningQuorum { handle, thread: Some(thread), failed })
    }
}

/// The running quorum. Dropping it stops it, without waiting.
#[derive(Debug)]
pub struct RunningQuorum {
    handle: ControllerHandle,
    thread: Option<JoinHandle<()>>,
    failed: oneshot::Receiver<QuorumFailure>,
}

impl RunningQuorum {
    /// Resolves when the quorum has failed, and the broker must stop with [`QuorumFailure::exit_code`]; never otherwise.
    pub async fn failed(&mut self) -> QuorumFailure {
        match (&mut self.failed).await {
            Ok(failure) => failure,
            Err(_) => std::future::pending().await,
        }
    }

    /// Stops the thread after what was submitted before, and waits for it. Everything answered is durable already. Blocks for
    /// as long as one write of the log takes.
    pub fn stop(mut self) {
        self.handle.stop();
        if let Some(thread) = self.thread.take() {
            // It has no way to panic but a bug, which has been printed already.
            let _ = thread.join();
        }
    }
}

impl Drop for RunningQuorum {
    fn drop(&mut self) {
        self.handle.stop();
    }
}
