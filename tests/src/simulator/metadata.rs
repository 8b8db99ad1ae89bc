//! The metadata quorum without its thread: the same core, log and controller, driven by the simulator's events.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;

use broker::config::{BrokerConfig, TableValidator};
use replication::controller::{Controller, ControllerResult, DecisionContext};
use replication::identity::{BrokerId, ClusterId, DirectoryId};
use replication::metadata::{
    LogPosition, MetadataDelta, MetadataImage, decode_records, encode_records,
};
use replication::quorum::log_store::{LogStore, LogStoreConfig, METADATA_LOG_DIR, OpenedLog};
use replication::quorum::membership::{Bootstrap, BootstrapAction, NodeIdentity, VoterList};
use replication::quorum::{LogEntry, Quorum, QuorumAction, QuorumConfig, QuorumState};
use storage::fs::Fs;
use storage::instant::Instant;
use storage::timestamp::Timestamp;

/// Why nothing came of a request.
#[derive(Debug)]
pub(super) enum SubmitError {
    /// The controller said no.
    Refused(String),
    /// The disk failed: the change is in doubt.
    Failed(String),
}

/// A change that is committed.
pub(super) struct Committed<T> {
    pub(super) response: T,
    pub(super) index: u64,
    pub(super) delta: MetadataDelta,
}

/// What opens it.
pub(super) struct Opening<'a> {
    pub(super) fs: Arc<dyn Fs>,
    pub(super) node_id: BrokerId,
    pub(super) directory_id: DirectoryId,
    pub(super) cluster_id: Option<ClusterId>,
    pub(super) config: &'a BrokerConfig,
    pub(super) first_round: u64,
    pub(super) now: Instant,
}

pub(super) struct Metadata {
    quorum: Quorum,
    store: LogStore,
    /// All that is committed.
    image: MetadataImage,
    controller: Option<Controller>,
    /// Ours, not committed yet: position and what the image will be.
    undecided: VecDeque<(LogPosition, MetadataImage)>,
    controller_config: replication::controller::ControllerConfig,
}

impl Metadata {
    /// Opens the log of a log directory, or begins one, and commits all that it holds.
    pub(super) fn open(opening: Opening<'_>) -> Result<Metadata, String> {
        let Opening { fs, node_id, directory_id, cluster_id, config, first_round, now } = opening;
        let text = |error: &dyn std::error::Error| error.to_string();
        let identity = NodeIdentity { node_id, directory_id };
        let dir = Path::new(super::DATA_DIR).join(METADATA_LOG_DIR);
        // Small segments, so that they roll and go.
        let settings = LogStoreConfig { segment_bytes: 4096 };
        let opened = LogStore::open(fs, &dir, settings).map_err(|error| text(&error))?;
        let (store, state) = match opened {
            OpenedLog::Found { store, state, .. } => (*store, state),
            OpenedLog::Empty(empty) => {
                let list = VoterList { voters: [(node_id, String::new())].into(), cluster_id };
                let action = Bootstrap::new(identity, list, first_round)
                    .map_err(|error| text(&error))?
                    .poll_action();
                let Some(BootstrapAction::Start(snapshot)) = action else {
                    return Err("a group of one does not start".to_owned());
                };
                let store =
                    empty.start(&snapshot, Timestamp::ZERO).map_err(|error| text(&error))?;
                (store, QuorumState::bootstrapped(snapshot))
            }
        };
        let snapshot = &state.snapshot;
        let position = LogPosition { index: snapshot.index, term: snapshot.term };
        let image =
            MetadataImage::decode_snapshot(snapshot.cluster_id.clone(), position, &snapshot.data)
                .map_err(|error| text(&error))?;
        let settings = QuorumConfig {
            election_ticks_of_term: Some(Arc::new(|_| 10)),
            ..QuorumConfig::default()
        };
        let quorum =
            Quorum::new(identity.raft_id(), settings, state).map_err(|error| text(&error))?;
        let mut metadata = Metadata {
            quorum,
            store,
            image,
            controller: None,
            undecided: VecDeque::new(),
            controller_config: config.controller_config(),
        };
        metadata.settle(now)?;
        Ok(metadata)
    }

    pub(super) fn image(&self) -> &MetadataImage {
        &self.image
    }

    /// The image with what was proposed and perhaps not written.
    pub(super) fn image_in_doubt(&self) -> Option<&MetadataImage> {
        self.undecided.back().map(|(_, image)| image)
    }

    pub(super) fn is_failed(&self) -> bool {
        self.store.is_failed()
    }

    /// Decides, writes and commits one change.
    pub(super) fn submit<T>(
        &mut self,
        context: &DecisionContext,
        decide: impl FnOnce(&mut Controller, &DecisionContext) -> Result<ControllerResult<T>, String>,
    ) -> Result<Committed<T>, SubmitError> {
        let failed = |error: &dyn std::error::Error| SubmitError::Failed(error.to_string());
        let Some(controller) = &mut self.controller else {
            return Err(SubmitError::Failed("this node is not the active controller".to_owned()));
        };
        let ControllerResult { records, response } =
            decide(controller, context).map_err(SubmitError::Refused)?;
        if records.is_empty() {
            let index = self.image.position().index;
            return Ok(Committed { response, index, delta: MetadataDelta::default() });
        }
        let proposed =
            self.quorum.propose(encode_records(&records)).map_err(|error| failed(&error))?;
        controller
            .replay(proposed.index, proposed.term, &records)
            .map_err(|error| failed(&error))?;
        let position = LogPosition { index: proposed.index, term: proposed.term };
        self.undecided.push_back((position, controller.image().clone()));
        let before = self.image.clone();
        self.settle(context.now).map_err(SubmitError::Failed)?;
        let delta = MetadataDelta::between(&before, &self.image);
        Ok(Committed { response, index: proposed.index, delta })
    }

    /// Writes a snapshot of what is committed.
    pub(super) fn write_snapshot(&mut self) -> Result<(), String> {
        let index = self.image.position().index;
        let snapshot = self.quorum.snapshot_at(index, self.image.encode_snapshot());
        let Some(snapshot) = snapshot else { return Ok(()) };
        self.store.write_snapshot(&snapshot, Timestamp::ZERO).map_err(|error| error.to_string())?;
        self.quorum.handle_snapshot_written(&snapshot);
        Ok(())
    }

    fn settle(&mut self, now: Instant) -> Result<(), String> {
        while let Some(action) = self.quorum.poll_action() {
            match action {
                QuorumAction::Persist(persist) => {
                    self.store
                        .persist(&persist, Timestamp::ZERO)
                        .map_err(|error| error.to_string())?;
                    self.quorum.handle_persisted(persist.number);
                }
                QuorumAction::Commit(entry) => self.apply(&entry)?,
                QuorumAction::Activated { .. } => {
                    self.controller = Some(Controller::new(
                        self.controller_config.clone(),
                        Arc::new(TableValidator),
                        self.image.clone(),
                        now,
                    ));
                }
                QuorumAction::Deactivated { .. } => self.controller = None,
                QuorumAction::Restore(_) => return Err("nobody sends snapshots here".to_owned()),
                QuorumAction::Send(_) | QuorumAction::LeaderChanged(_) => {}
            }
        }
        Ok(())
    }

    /// What is replayed from the bytes must be what was decided.
    fn apply(&mut self, entry: &LogEntry) -> Result<(), String> {
        let records = match &entry.data {
            data if data.is_empty() => Vec::new(),
            data => decode_records(data).map_err(|error| error.to_string())?,
        };
        let (image, _) = self
            .image
            .apply(entry.index, entry.term, &records)
            .map_err(|error| error.to_string())?;
        if let Some((_, own)) = self.undecided.pop_front()
            && own != image
        {
            return Err(format!("entry {} replays to another image than decided", entry.index));
        }
        self.image = image;
        Ok(())
    }
}
