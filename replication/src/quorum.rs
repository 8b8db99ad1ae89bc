//! The metadata quorum: one node of the Raft group whose log holds the cluster's metadata. Sans-I/O around
//! `raft::RawNode`: no clock (ticks are handed in), no disk, no socket.
//!
//! ```text
//!   propose ──▶ Quorum ──▶ Persist ──▶ log_store (append, fsync) ──▶ handle_persisted ──▶ Commit ──▶ image, controller
//!   messages ──▶      └──▶ Send (a leader's, at once)     └──▶ Persist's own messages, once its bytes are down
//! ```
//!
//! The shell drains [`Quorum::poll_action`] after every call and obeys in order. It may persist on another thread:
//! actions that follow a `Persist` need not wait for it, but `Persist`s complete in order, and a `Persist`'s messages
//! leave only after it.
//!
//! - [`membership`] decides how an empty node comes by its first snapshot;
//! - [`codec`] says what log and snapshots look like;
//! - [`log_store`] keeps them on disk.

pub mod codec;
pub mod log_store;
mod log_view;
pub mod membership;
mod message_check;
mod raft_id;
mod raft_logger;

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use raft::eraftpb::{Entry, EntryType, MessageType};
use raft::{RawNode, SnapshotStatus, StateRole};

pub use codec::{HardState, LogEntry, Members, QuorumSnapshot};
pub use message_check::MessageError;
pub use raft_id::RaftId;

use crate::identity::ClusterId;
use codec::MAX_ENTRY_DATA_BYTES;
use log_view::LogView;

/// What travels between the peers of the group.
pub type RaftMessage = raft::eraftpb::Message;

/// Election timeout of a term, in ticks: a simulator's seeded draw.
pub type ElectionTicks = Arc<dyn Fn(u64) -> usize + Send + Sync>;

/// Settings of one node's Raft.
#[derive(Clone)]
pub struct QuorumConfig {
    /// Ticks without a leader before a follower campaigns; Raft draws from `election_ticks..2 * election_ticks`.
    pub election_ticks: usize,
    /// Ticks between a leader's heartbeats. Less than `election_ticks`.
    pub heartbeat_ticks: usize,
    /// Proposed bytes that may wait for commit; more is refused.
    pub max_uncommitted_bytes: u64,
    /// In simulation: replaces what `raft` draws from the thread's entropy (DESIGN D8). Answers within
    /// `election_ticks..2 * election_ticks`.
    pub election_ticks_of_term: Option<ElectionTicks>,
}

impl Default for QuorumConfig {
    fn default() -> Self {
        QuorumConfig {
            election_ticks: 10,
            heartbeat_ticks: 2,
            max_uncommitted_bytes: 64 * 1024 * 1024,
            election_ticks_of_term: None,
        }
    }
}

/// What the log store found and the core starts from. Invariant: the entries are contiguous and begin right behind the
/// snapshot; `snapshot.index <= hard_state.commit <= last index`; terms do not fall.
#[derive(Clone, Debug)]
pub struct QuorumState {
    /// The latest snapshot.
    pub snapshot: QuorumSnapshot,
    /// The latest hard state.
    pub hard_state: HardState,
    /// Entries behind the snapshot.
    pub entries: Vec<LogEntry>,
}

impl QuorumState {
    /// A group that is nothing but its first snapshot yet.
    pub fn bootstrapped(snapshot: QuorumSnapshot) -> QuorumState {
        let hard_state = HardState { term: snapshot.term, vote: 0, commit: snapshot.index };
        QuorumState { snapshot, hard_state, entries: Vec::new() }
    }
}

/// Bytes to make durable, in this order: snapshot, entries with the hard state.
#[derive(Debug)]
pub struct Persist {
    /// What [`Quorum::handle_persisted`] wants to hear.
    pub number: u64,
    /// Replaces the log before `entries` are written.
    pub snapshot: Option<QuorumSnapshot>,
    /// Belongs into every batch.
    pub hard_state: HardState,
    /// New entries, contiguous; the first replaces what stands at its index and behind.
    pub entries: Vec<LogEntry>,
    /// False when nothing here needs the disk and only the order of `messages` matters.
    pub must_sync: bool,
    /// To send once all of the above is durable.
    pub messages: Vec<RaftMessage>,
}

/// What the shell must do next.
#[derive(Debug)]
pub enum QuorumAction {
    /// Write and fsync, then send its messages, then call [`Quorum::handle_persisted`].
    Persist(Persist),
    /// Send at once; may be lost.
    Send(Vec<RaftMessage>),
    /// The state machine starts over from this snapshot of the leader's.
    Restore(QuorumSnapshot),
    /// This entry is committed: apply it. In order, each once. `data` is empty for a leader's first entry.
    Commit(LogEntry),
    /// From here on this node decides: it leads, and it has applied the first entry of its own term. Every `Commit`
    /// before it was delivered.
    Activated {
        /// Its term.
        term: u64,
    },
    /// It no longer decides: forget what is not committed. Proposals of `term` may commit yet, or never.
    Deactivated {
        /// The term that is over for it.
        term: u64,
    },
    /// The known leader changed; `None` while there is none.
    LeaderChanged(Option<RaftId>),
}

/// Where a proposal stands in the log, unless another leader's entry takes the place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Proposed {
    /// Its index.
    pub index: u64,
    /// The term it was proposed in.
    pub term: u64,
}

/// Why a proposal was not taken. Nothing was appended.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// Only the active controller proposes; Raft forwards nothing.
    #[error("this node is not the active controller")]
    NotActive {
        /// Who might be.
        leader: Option<RaftId>,
    },
    /// The entry is too large to store.
    #[error(
        "a metadata change of {bytes} bytes exceeds the {MAX_ENTRY_DATA_BYTES} bytes that one entry may have"
    )]
    TooLarge {
        /// Its size.
        bytes: usize,
    },
    /// Too much waits for commit already.
    #[error("too many metadata changes wait to be committed")]
    TooManyUncommitted,
}

/// Why a node could not start from what its disk holds.
#[derive(Debug, thiserror::Error)]
pub enum QuorumError {
    /// The log says that this directory is another node's.
    #[error(
        "the metadata log belongs to {members:?}, and this is {id}: node.id or the directory was changed"
    )]
    NotAMember {
        /// This node.
        id: RaftId,
        /// The voters of the log.
        members: Vec<RaftId>,
    },
    /// `raft` refuses its configuration.
    #[error("the quorum's settings are not possible: {0}")]
    Config(#[from] raft::Error),
}

/// One node of the group.
pub struct Quorum {
    id: RaftId,
    election_ticks_of_term: Option<ElectionTicks>,
    node: RawNode<LogView>,
    actions: VecDeque<QuorumAction>,
    /// Number of the latest `Persist` handed out and not answered; 0 for none.
    outstanding: u64,
    /// Readies without bytes that came after it: they count as persisted as soon as it does.
    latest_ready: u64,
    /// A received snapshot that is not durable yet: number of its `Persist`, and its index. Until then Raft has not applied
    /// what its log no longer has, and would stumble over that if it campaigned.
    restoring: Option<(u64, u64)>,
    /// Term of our leadership, from winning it to losing it.
    leading: Option<u64>,
    is_active: bool,
    leader: Option<RaftId>,
    /// Last committed index handed out.
    applied_index: u64,
    /// Bytes of entry data handed out as committed since the latest snapshot.
    bytes_since_snapshot: u64,
}

impl std::fmt::Debug for Quorum {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Quorum")
            .field("id", &self.id)
            .field("term", &self.node.raft.term)
            .field("role", &self.node.raft.state)
            .field("last_index", &self.last_index())
            .field("applied_index", &self.applied_index)
            .finish_non_exhaustive()
    }
}

impl Quorum {
    /// A node that continues from `state`. The only voter of a group campaigns at once: nobody else could.
    ///
    /// # Errors
    /// [`QuorumError::NotAMember`] if the group does not know `id`.
    pub fn new(
        id: RaftId,
        config: QuorumConfig,
        state: QuorumState,
    ) -> Result<Quorum, QuorumError> {
        if !state.snapshot.members.contains(id) {
            let members = state.snapshot.members.voters.iter().copied().collect();
            return Err(QuorumError::NotAMember { id, members });
        }
        let is_only_member =
            state.snapshot.members.voters.len() == 1 && state.snapshot.members.learners.is_empty();
        let snapshot_index = state.snapshot.index;
        let raft_config = raft::Config {
            id: id.value(),
            election_tick: config.election_ticks,
            heartbeat_tick: config.heartbeat_ticks,
            applied: snapshot_index,
            max_size_per_msg: 1024 * 1024,
            max_inflight_msgs: 64,
            check_quorum: true,
            pre_vote: true,
            max_uncommitted_size: config.max_uncommitted_bytes,
            ..raft::Config::default()
        };
        let view = LogView::new(state.snapshot, state.hard_state, state.entries, !is_only_member);
        let mut node = RawNode::new(&raft_config, view, &raft_logger::raft_logger())?;
        if is_only_member {
            node.campaign()?;
        }
        let mut quorum = Quorum {
            id,
            election_ticks_of_term: config.election_ticks_of_term,
            node,
            actions: VecDeque::new(),
            outstanding: 0,
            latest_ready: 0,
            restoring: None,
            leading: None,
            is_active: false,
            leader: None,
            applied_index: snapshot_index,
            bytes_since_snapshot: 0,
        };
        quorum.redraw_election_ticks();
        Ok(quorum)
    }

    /// This node.
    pub fn id(&self) -> RaftId {
        self.id
    }

    /// The cluster that the group is.
    pub fn cluster_id(&self) -> &ClusterId {
        self.node.store().cluster_id()
    }

    /// Members as of the latest snapshot; they do not change yet.
    pub fn members(&self) -> &Members {
        self.node.store().members()
    }

    /// Whether this node is the whole group, so that there is nobody to tick for.
    pub fn is_only_member(&self) -> bool {
        self.members().voters.len() == 1 && self.members().learners.is_empty()
    }

    /// The latest term seen.
    pub fn term(&self) -> u64 {
        self.node.raft.term
    }

    /// The leader as far as known.
    pub fn leader(&self) -> Option<RaftId> {
        self.leader
    }

    /// Whether this node may decide: between [`QuorumAction::Activated`] and [`QuorumAction::Deactivated`].
    pub fn is_active(&self) -> bool {
        self.is_active
    }

    /// The end of the log, inclusive, durable or not.
    pub fn last_index(&self) -> u64 {
        self.node.raft.raft_log.last_index()
    }

    /// The last index handed out as committed, inclusive.
    pub fn applied_index(&self) -> u64 {
        self.applied_index
    }

    /// Bytes of entries handed out as committed since the latest snapshot: what a snapshot now would save at a start.
    pub fn bytes_since_snapshot(&self) -> u64 {
        self.bytes_since_snapshot
    }

    /// One tick of the group's clock has passed.
    pub fn tick(&mut self) {
        if self.restoring.is_none() {
            self.node.tick();
            self.redraw_election_ticks();
        }
    }

    /// `raft` may have drawn anew in the call before.
    fn redraw_election_ticks(&mut self) {
        if let Some(ticks_of) = &self.election_ticks_of_term {
            let ticks = ticks_of(self.node.raft.term);
            self.node.raft.set_randomized_election_timeout(ticks);
        }
    }

    /// Asks to be leader without waiting for the timeout.
    pub fn campaign(&mut self) {
        if self.restoring.is_none() {
            // The only error is a storage error, and the view has none.
            let _ = self.node.campaign();
            self.redraw_election_ticks();
        }
    }

    /// Appends one entry of encoded metadata records. It is decided only when its `Commit` comes.
    ///
    /// # Errors
    /// See [`ProposeError`].
    pub fn propose(&mut self, data: Bytes) -> Result<Proposed, ProposeError> {
        if !self.is_active
            || self.node.raft.state != StateRole::Leader
            || self.leading != Some(self.term())
        {
            return Err(ProposeError::NotActive { leader: self.leader });
        }
        if data.len() > MAX_ENTRY_DATA_BYTES {
            return Err(ProposeError::TooLarge { bytes: data.len() });
        }
        assert!(!data.is_empty(), "an empty entry opens a term, no command is one");
        let mut entry = Entry::default();
        entry.set_data(data);
        let mut message = RaftMessage::default();
        message.set_msg_type(MessageType::MsgPropose);
        message.set_from(self.id.value());
        message.set_entries(vec![entry].into());
        self.node.raft.step(message).map_err(|_| ProposeError::TooManyUncommitted)?;
        Ok(Proposed { index: self.last_index(), term: self.term() })
    }

    /// A peer's message.
    ///
    /// # Errors
    /// A message that no sound peer sends; it changed nothing.
    pub fn handle_message(&mut self, message: RaftMessage) -> Result<(), MessageError> {
        message_check::check(&self.node, self.id, &message)?;
        if self.restoring.is_some() && message.get_msg_type() == MessageType::MsgTimeoutNow {
            return Ok(()); // it asks us to campaign
        }
        // What is left are messages of members that left or of no use now: Raft drops them.
        let _ = self.node.step(message);
        self.redraw_election_ticks();
        Ok(())
    }

    /// A message to `peer` could not be sent: send it less until it answers.
    pub fn handle_unreachable(&mut self, peer: RaftId) {
        self.node.report_unreachable(peer.value());
    }

    /// A message to `peer` that carried a snapshot has been taken over by it, or was lost. Raft sends `peer` nothing more
    /// until it hears one or the other, so the transport must say so for each.
    pub fn handle_snapshot_sent(&mut self, peer: RaftId, arrived: bool) {
        let status = if arrived { SnapshotStatus::Finish } else { SnapshotStatus::Failure };
        self.node.report_snapshot(peer.value(), status);
    }

    /// `Persist` `number`, and every one before it, is durable.
    pub fn handle_persisted(&mut self, number: u64) {
        assert!(
            number <= self.outstanding,
            "{number} was never handed out; the latest is {}",
            self.outstanding
        );
        if number == self.outstanding {
            self.outstanding = 0;
            self.node.on_persist_ready(self.latest_ready);
        } else {
            self.node.on_persist_ready(number);
        }
        if let Some((_, index)) = self.restoring.take_if(|(persist, _)| *persist <= number) {
            self.node.advance_apply_to(index);
        }
    }

    /// What a snapshot of the image at `index` must say beside its data; hand it to the log store. `None` unless
    /// `index` is handed out as committed and not below the latest snapshot.
    pub fn snapshot_at(&self, index: u64, data: Bytes) -> Option<QuorumSnapshot> {
        if index > self.applied_index {
            return None;
        }
        Some(QuorumSnapshot {
            index,
            term: self.node.store().term_at(index)?,
            members: self.members().clone(),
            cluster_id: self.cluster_id().clone(),
            data,
        })
    }

    /// That snapshot is durable: the entries below it leave memory.
    pub fn handle_snapshot_written(&mut self, snapshot: &QuorumSnapshot) {
        if snapshot.index > self.node.store().snapshot_index() {
            self.node.mut_store().compact(snapshot.index, snapshot.data.clone());
            self.bytes_since_snapshot = 0;
        }
    }

    /// The next thing to do; `None` until something happens.
    pub fn poll_action(&mut self) -> Option<QuorumAction> {
        while self.actions.is_empty() && self.node.has_ready() {
            self.handle_ready();
        }
        self.actions.pop_front()
    }

    fn handle_ready(&mut self) {
        let mut ready = self.node.ready();
        self.note_role();

        let from_leader = ready.take_messages();
        if !from_leader.is_empty() {
            self.actions.push_back(QuorumAction::Send(from_leader));
        }

        let mut snapshot = None;
        if !ready.snapshot().is_empty() {
            // `message_check` decoded it once already before Raft saw it.
            let received = QuorumSnapshot::decode_contiguous(&ready.snapshot().data)
                .expect("a checked snapshot");
            self.node.mut_store().restore(received.clone());
            self.applied_index = received.index;
            self.bytes_since_snapshot = 0;
            self.actions.push_back(QuorumAction::Restore(received.clone()));
            self.restoring = Some((ready.number(), received.index));
            snapshot = Some(received);
        }
        self.node.mut_store().append(ready.entries());
        if let Some(hard_state) = ready.hs() {
            self.node.mut_store().set_hard_state(hard_state);
        }

        let committed = ready.take_committed_entries();
        let number = ready.number();
        let persist = Persist {
            number,
            snapshot,
            hard_state: self.node.store().hard_state(),
            entries: ready.entries().iter().map(log_view::from_raft).collect(),
            must_sync: ready.must_sync(),
            messages: ready.take_persisted_messages(),
        };
        self.node.advance_append_async(ready);
        self.latest_ready = number;
        if persist.must_sync || (self.outstanding != 0 && !persist.messages.is_empty()) {
            self.outstanding = number;
            self.actions.push_back(QuorumAction::Persist(persist));
        } else {
            // Only the commit index moved: it rides in the next batch.
            if !persist.messages.is_empty() {
                self.actions.push_back(QuorumAction::Send(persist.messages));
            }
            if self.outstanding == 0 {
                self.node.on_persist_ready(number);
            }
        }
        self.hand_out(&committed);
    }

    fn hand_out(&mut self, committed: &[Entry]) {
        for entry in committed {
            assert_eq!(entry.index, self.applied_index + 1, "committed entries come in order");
            assert_eq!(entry.get_entry_type(), EntryType::EntryNormal, "members do not change yet");
            self.applied_index = entry.index;
            self.bytes_since_snapshot += entry.data.len() as u64;
            self.actions.push_back(QuorumAction::Commit(log_view::from_raft(entry)));
            if !self.is_active && self.leading == Some(entry.term) {
                self.is_active = true;
                self.actions.push_back(QuorumAction::Activated { term: entry.term });
            }
        }
        if let Some(last) = committed.last() {
            self.node.advance_apply_to(last.index);
        }
    }

    fn note_role(&mut self) {
        let leading = (self.node.raft.state == StateRole::Leader).then_some(self.node.raft.term);
        if leading != self.leading {
            if let Some(term) = self.leading.filter(|_| self.is_active) {
                self.actions.push_back(QuorumAction::Deactivated { term });
            }
            self.is_active = false;
            self.leading = leading;
        }
        let leader = RaftId::from_value(self.node.raft.leader_id);
        if leader != self.leader {
            self.leader = leader;
            self.actions.push_back(QuorumAction::LeaderChanged(leader));
        }
    }
}

#[cfg(test)]
mod tests;
