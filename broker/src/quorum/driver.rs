//! The thread that owns the quorum's core, its log, the controller and the committed image.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::mpsc;
use std::time;

use arc_swap::ArcSwap;
use replication::controller::{ConfigValidator, Controller, ControllerConfig, DecisionContext};
use replication::metadata::{
    LogPosition, MetadataDelta, MetadataImage, decode_records, encode_records,
};
use replication::quorum::log_store::LogStore;
use replication::quorum::{LogEntry, Quorum, QuorumAction};
use storage::instant::Instant;
use storage::timestamp::Timestamp;

use super::controller_handle::{Answer, ControllerUnavailable, Event, Submission};
use super::{MetadataListener, MetadataQuorumConfig, QuorumFailure};

/// For the log's dump only; nothing is decided by it. 1970 if the clock is before it.
pub(super) fn wall_clock() -> Timestamp {
    let since = time::SystemTime::now().duration_since(time::UNIX_EPOCH).unwrap_or_default();
    let milliseconds = i64::try_from(since.as_millis()).unwrap_or(i64::MAX);
    Timestamp::new(milliseconds).unwrap_or(Timestamp::ZERO)
}

/// Decisions that share one write and one fsync at most.
const MAX_DECISIONS_PER_WRITE: usize = 256;

/// A decision of ours that is proposed and not committed yet.
struct Undecided {
    position: LogPosition,
    /// The image after it, so that nothing is applied twice.
    image: MetadataImage,
    delta: MetadataDelta,
}

/// Somebody who waits until all up to `index` is committed and applied.
struct Waiting {
    index: u64,
    answer: Answer,
}

pub(super) struct Driver {
    quorum: Quorum,
    store: LogStore,
    /// All that is committed, and nothing else.
    image: MetadataImage,
    /// What readers see: `image` as of the listener's last call.
    published: Arc<ArcSwap<MetadataImage>>,
    /// What `image` has that the listener has not seen.
    unpublished: MetadataDelta,
    /// Only while this node is active.
    controller: Option<Controller>,
    controller_config: ControllerConfig,
    validator: Arc<dyn ConfigValidator>,
    /// In order of their positions.
    undecided: VecDeque<Undecided>,
    /// In order of their indexes.
    waiting: VecDeque<Waiting>,
    max_bytes_between_snapshots: u64,
    /// Bytes of log since the last snapshot at which the next one is tried.
    snapshot_at_bytes: u64,
    started: time::Instant,
}

impl std::fmt::Debug for Driver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Driver")
            .field("quorum", &self.quorum)
            .field("position", &self.image.position())
            .finish_non_exhaustive()
    }
}

impl Driver {
    /// `image` is the snapshot's that `quorum` starts from.
    pub(super) fn new(
        quorum: Quorum,
        store: LogStore,
        image: MetadataImage,
        config: &MetadataQuorumConfig,
    ) -> Driver {
        Driver {
            quorum,
            store,
            published: Arc::new(ArcSwap::from_pointee(image.clone())),
            unpublished: MetadataDelta::default(),
            image,
            controller: None,
            controller_config: config.controller.clone(),
            validator: Arc::clone(&config.validator),
            undecided: VecDeque::new(),
            waiting: VecDeque::new(),
            max_bytes_between_snapshots: config.max_bytes_between_snapshots,
            snapshot_at_bytes: config.max_bytes_between_snapshots,
            started: time::Instant::now(),
        }
    }

    pub(super) fn published(&self) -> Arc<ArcSwap<MetadataImage>> {
        Arc::clone(&self.published)
    }

    /// Decides until it is told to stop or nobody can ask any more. Sleeps while there is nothing to do.
    pub(super) fn run(
        mut self,
        events: &mpsc::Receiver<Event>,
        listener: &mut dyn MetadataListener,
    ) -> Result<(), QuorumFailure> {
        while let Ok(first) = events.recv() {
            // Whoever asked while the last write was under way shares the next one.
            let others = std::iter::from_fn(|| events.try_recv().ok());
            let mut stops = false;
            for event in std::iter::once(first).chain(others).take(MAX_DECISIONS_PER_WRITE) {
                match event {
                    Event::Submitted(submission) => self.decide(submission)?,
                    Event::Stop => {
                        stops = true;
                        break;
                    }
                }
            }
            self.settle(listener)?;
            self.snapshot_if_due()?;
            if stops {
                break;
            }
        }
        Ok(())
    }

    fn now(&self) -> Instant {
        Instant::ZERO.plus(self.started.elapsed())
    }

    fn decide(&mut self, submission: Box<dyn Submission>) -> Result<(), QuorumFailure> {
        let context = DecisionContext { now: self.now(), seed: rand::random() };
        let Some(controller) = &mut self.controller else {
            let leader = self.quorum.leader().map(|leader| leader.node_id());
            submission.refuse(ControllerUnavailable::NotActive { leader });
            return Ok(());
        };
        if let Some(contact) = submission.contact() {
            controller.note_contact(contact.broker_id, contact.metadata_index, context.now);
        }
        let (records, answer) = submission.decide(controller, &context);
        if records.is_empty() {
            self.wait_for(self.quorum.last_index(), answer);
            return Ok(());
        }
        let proposed = match self.quorum.propose(encode_records(&records)) {
            Ok(proposed) => proposed,
            Err(error) => {
                answer(Err(ControllerUnavailable::of(error)));
                return Ok(());
            }
        };
        let delta = controller.replay(proposed.index, proposed.term, &records)?;
        self.undecided.push_back(Undecided {
            position: LogPosition { index: proposed.index, term: proposed.term },
            image: controller.image().clone(),
            delta,
        });
        self.wait_for(proposed.index, answer);
        Ok(())
    }

    fn wait_for(&mut self, index: u64, answer: Answer) {
        if index <= self.published.load().position().index {
            answer(Ok(index));
        } else {
            self.waiting.push_back(Waiting { index, answer });
        }
    }

    /// Does all that the core asks for, until it asks for nothing more; then tells listener, readers and askers, in this order.
    pub(super) fn settle(
        &mut self,
        listener: &mut dyn MetadataListener,
    ) -> Result<(), QuorumFailure> {
        while let Some(action) = self.quorum.poll_action() {
            match action {
                QuorumAction::Persist(persist) => {
                    self.store.persist(&persist, wall_clock())?;
                    assert!(persist.messages.is_empty(), "a group of one has nobody to write to");
                    self.quorum.handle_persisted(persist.number);
                }
                QuorumAction::Commit(entry) => self.apply(&entry)?,
                QuorumAction::Restore(snapshot) => {
                    let position = LogPosition { index: snapshot.index, term: snapshot.term };
                    let image = MetadataImage::decode_snapshot(
                        snapshot.cluster_id,
                        position,
                        &snapshot.data,
                    )?;
                    self.take(image.clone(), MetadataDelta::between(&self.image, &image));
                }
                QuorumAction::Activated { term } => {
                    tracing::info!(term, "this node is the active controller");
                    self.controller = Some(Controller::new(
                        self.controller_config.clone(),
                        Arc::clone(&self.validator),
                        self.image.clone(),
                        self.now(),
                    ));
                }
                QuorumAction::Deactivated { term } => {
                    tracing::info!(term, "this node is no longer the active controller");
                    self.controller = None;
                    self.undecided.clear();
                    for waiting in self.waiting.drain(..) {
                        (waiting.answer)(Err(ControllerUnavailable::LostLeadership));
                    }
                }
                QuorumAction::Send(messages) => {
                    assert!(messages.is_empty(), "a group of one has nobody to write to");
                }
                QuorumAction::LeaderChanged(_) => {}
            }
        }
        self.publish(listener);
        Ok(())
    }

    fn apply(&mut self, entry: &LogEntry) -> Result<(), QuorumFailure> {
        let position = LogPosition { index: entry.index, term: entry.term };
        if let Some(own) = self.undecided.pop_front_if(|own| own.position == position) {
            self.take(own.image, own.delta);
            return Ok(());
        }
        assert!(self.undecided.is_empty(), "while this node is active, only it proposes");
        let records = match &entry.data {
            data if data.is_empty() => Vec::new(),
            data => decode_records(data)
                .map_err(|source| QuorumFailure::Entry { index: entry.index, source })?,
        };
        let (image, delta) = self.image.apply(entry.index, entry.term, &records)?;
        self.take(image, delta);
        Ok(())
    }

    fn take(&mut self, image: MetadataImage, delta: MetadataDelta) {
        self.image = image;
        self.unpublished = std::mem::take(&mut self.unpublished).then(delta);
    }

    fn publish(&mut self, listener: &mut dyn MetadataListener) {
        let index = self.image.position().index;
        if index > self.published.load().position().index {
            listener.apply(&self.image, &std::mem::take(&mut self.unpublished));
            self.published.store(Arc::new(self.image.clone()));
        }
        while let Some(waiting) = self.waiting.pop_front_if(|waiting| waiting.index <= index) {
            (waiting.answer)(Ok(waiting.index));
        }
    }

    /// A full disk keeps the old snapshot and tries again when the log has grown some more (DESIGN D7).
    fn snapshot_if_due(&mut self) -> Result<(), QuorumFailure> {
        let bytes = self.quorum.bytes_since_snapshot();
        if bytes < self.snapshot_at_bytes {
            return Ok(());
        }
        let index = self.image.position().index;
        let Some(snapshot) = self.quorum.snapshot_at(index, self.image.encode_snapshot()) else {
            return Ok(());
        };
        match self.store.write_snapshot(&snapshot, wall_clock()) {
            Ok(()) => {
                tracing::info!(index, bytes, "metadata snapshot written");
                self.quorum.handle_snapshot_written(&snapshot);
                self.snapshot_at_bytes = self.max_bytes_between_snapshots;
            }
            Err(error) if !self.store.is_failed() => {
                tracing::warn!(%error, "no metadata snapshot for now");
                self.snapshot_at_bytes = bytes + self.max_bytes_between_snapshots / 4 + 1;
            }
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }
}
