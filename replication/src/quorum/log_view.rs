//! The Raft log as `raft` reads it: every entry since the latest snapshot, in memory.
//!
//! It runs ahead of the disk: `raft` reads entries here that the log store has yet to make durable (async ready), and
//! counts them only once it was told that they are.

use std::collections::VecDeque;

use bytes::Bytes;
use raft::eraftpb::{ConfState, Entry, HardState as RaftHardState, Snapshot};
use raft::{GetEntriesContext, RaftState, Storage, StorageError};

use crate::identity::ClusterId;

use super::codec::{HardState, LogEntry, Members, QuorumSnapshot};

/// Entries in `(snapshot index, last index]`, contiguous, and what the snapshot says of itself.
#[derive(Debug)]
pub(super) struct LogView {
    hard_state: HardState,
    snapshot_index: u64,
    snapshot_term: u64,
    members: Members,
    cluster_id: ClusterId,
    /// The snapshot's image, for followers that are too far behind. `None` where there is nobody to send it to.
    snapshot_data: Option<Bytes>,
    entries: VecDeque<Entry>,
}

impl LogView {
    /// The state that a disk gave back. `entries` are contiguous and begin right behind the snapshot.
    pub(super) fn new(
        snapshot: QuorumSnapshot,
        hard_state: HardState,
        entries: Vec<LogEntry>,
        keeps_snapshot: bool,
    ) -> LogView {
        LogView {
            hard_state,
            snapshot_index: snapshot.index,
            snapshot_term: snapshot.term,
            members: snapshot.members,
            cluster_id: snapshot.cluster_id,
            snapshot_data: keeps_snapshot.then_some(snapshot.data),
            entries: entries.into_iter().map(to_raft).collect(),
        }
    }

    pub(super) fn hard_state(&self) -> HardState {
        self.hard_state
    }

    pub(super) fn set_hard_state(&mut self, hard_state: &RaftHardState) {
        self.hard_state =
            HardState { term: hard_state.term, vote: hard_state.vote, commit: hard_state.commit };
    }

    pub(super) fn members(&self) -> &Members {
        &self.members
    }

    pub(super) fn cluster_id(&self) -> &ClusterId {
        &self.cluster_id
    }

    pub(super) fn snapshot_index(&self) -> u64 {
        self.snapshot_index
    }

    fn last(&self) -> u64 {
        self.snapshot_index + self.entries.len() as u64
    }

    /// The term at `index`, `None` outside `[snapshot index, last index]`.
    pub(super) fn term_at(&self, index: u64) -> Option<u64> {
        match index.checked_sub(self.snapshot_index)? {
            0 => Some(self.snapshot_term),
            distance => Some(self.entries.get(usize::try_from(distance - 1).ok()?)?.term),
        }
    }

    /// Takes new entries; the first one replaces what stood at its index and behind.
    pub(super) fn append(&mut self, entries: &[Entry]) {
        let Some(first) = entries.first() else { return };
        assert!(
            (self.snapshot_index + 1..=self.last() + 1).contains(&first.index),
            "entries from {} do not continue the log of {}..={}",
            first.index,
            self.snapshot_index + 1,
            self.last()
        );
        self.entries.truncate((first.index - self.snapshot_index - 1) as usize);
        self.entries.extend(entries.iter().cloned());
    }

    /// A snapshot from the leader replaces everything.
    pub(super) fn restore(&mut self, snapshot: QuorumSnapshot) {
        self.entries.clear();
        self.snapshot_index = snapshot.index;
        self.snapshot_term = snapshot.term;
        self.members = snapshot.members;
        self.cluster_id = snapshot.cluster_id;
        self.snapshot_data = Some(snapshot.data);
    }

    /// Our own snapshot up to `index` is on disk: forget what lies below.
    pub(super) fn compact(&mut self, index: u64, data: Bytes) {
        let Some(term) = self.term_at(index) else { return };
        self.entries.drain(..(index - self.snapshot_index) as usize);
        // A deque that once held much would keep it for good.
        self.entries.shrink_to(2 * self.entries.len());
        self.snapshot_index = index;
        self.snapshot_term = term;
        if self.snapshot_data.is_some() {
            self.snapshot_data = Some(data);
        }
    }
}

impl Storage for LogView {
    fn initial_state(&self) -> raft::Result<RaftState> {
        let mut hard_state = RaftHardState::default();
        hard_state.set_term(self.hard_state.term);
        hard_state.set_vote(self.hard_state.vote);
        hard_state.set_commit(self.hard_state.commit);
        Ok(RaftState::new(hard_state, conf_state(&self.members)))
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        _context: GetEntriesContext,
    ) -> raft::Result<Vec<Entry>> {
        if low <= self.snapshot_index {
            return Err(raft::Error::Store(StorageError::Compacted));
        }
        assert!(
            high <= self.last() + 1,
            "entries up to {high} of a log that ends at {}",
            self.last()
        );
        let range =
            (low - self.snapshot_index - 1) as usize..(high - self.snapshot_index - 1) as usize;
        let mut entries: Vec<Entry> = self.entries.range(range).cloned().collect();
        raft::util::limit_size(&mut entries, max_size.into());
        Ok(entries)
    }

    fn term(&self, index: u64) -> raft::Result<u64> {
        self.term_at(index).ok_or(raft::Error::Store(if index < self.snapshot_index {
            StorageError::Compacted
        } else {
            StorageError::Unavailable
        }))
    }

    fn first_index(&self) -> raft::Result<u64> {
        Ok(self.snapshot_index + 1)
    }

    fn last_index(&self) -> raft::Result<u64> {
        Ok(self.last())
    }

    fn snapshot(&self, request_index: u64, _to: u64) -> raft::Result<Snapshot> {
        match &self.snapshot_data {
            Some(data) if self.snapshot_index >= request_index => {
                Ok(to_raft_snapshot(&QuorumSnapshot {
                    index: self.snapshot_index,
                    term: self.snapshot_term,
                    members: self.members.clone(),
                    cluster_id: self.cluster_id.clone(),
                    data: data.clone(),
                }))
            }
            _ => Err(raft::Error::Store(StorageError::SnapshotTemporarilyUnavailable)),
        }
    }
}

/// `raft`'s own shape of the members.
pub(super) fn conf_state(members: &Members) -> ConfState {
    let values = |ids: &std::collections::BTreeSet<_>| {
        ids.iter().map(|id: &super::RaftId| id.value()).collect::<Vec<_>>()
    };
    ConfState::from((values(&members.voters), values(&members.learners)))
}

fn to_raft(entry: LogEntry) -> Entry {
    let mut raft_entry = Entry::default();
    raft_entry.set_index(entry.index);
    raft_entry.set_term(entry.term);
    raft_entry.set_data(entry.data);
    raft_entry
}

pub(super) fn from_raft(entry: &Entry) -> LogEntry {
    LogEntry { index: entry.index, term: entry.term, data: entry.data.clone() }
}

/// A snapshot inside a Raft message: the record values that a file would hold, each behind its length.
pub(super) fn to_raft_snapshot(snapshot: &QuorumSnapshot) -> Snapshot {
    let mut raft_snapshot = Snapshot::default();
    let metadata = raft_snapshot.mut_metadata();
    metadata.set_index(snapshot.index);
    metadata.set_term(snapshot.term);
    metadata.set_conf_state(conf_state(&snapshot.members));
    raft_snapshot.set_data(snapshot.encode_contiguous());
    raft_snapshot
}
