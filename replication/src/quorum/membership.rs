//! How a node with an empty log comes by its first snapshot, so that one list of voters never makes two clusters.
//! Pure: it asks, answers and decides; sockets and disk are the shell's.
//!
//! Every listed voter asks every other one. In one *round* of its own, a node must hear from **all** of them
//! 1. "I am empty, my list is yours" and which directory it runs on; and then
//! 2. "I have heard the same directories from all as you have".
//!
//! Then it starts the group from a snapshot that names these directories: each node makes the same one. Whatever
//! contradicts what a round has collected (a voter came back on another directory) begins the round anew. If a voter has a
//! log already, that one decides: who is named in it starts from the same snapshot, anyone else joins it as a stranger.
//!
//! Why two nodes B and C never start different groups that both name them. Say B starts S1 and C starts S2. Within B's last
//! round, C confirmed S1; so C left S1 for S2 later, in a new round, and in that one B confirmed S2, later still. But B had
//! S1 to the end of a round that began before C's confirmation. Answers count only in the round that asked for them, and a
//! round's number is drawn anew at every start, so no stale answer breaks this. The cluster id is derived from the
//! directories, so groups that differ do not take each other's votes.
//!
//! A list of one is the same procedure with nobody to ask.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;

use super::codec::{BOOTSTRAP_INDEX, BOOTSTRAP_TERM, Members, QuorumSnapshot};
use super::raft_id::RaftId;
use crate::identity::{BrokerId, ClusterId, DirectoryId};

/// A node and its disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeIdentity {
    /// `node.id`.
    pub node_id: BrokerId,
    /// `directory.id` of the log directory.
    pub directory_id: DirectoryId,
}

impl NodeIdentity {
    /// Who it is in the group.
    pub fn raft_id(&self) -> RaftId {
        RaftId::new(self.node_id, &self.directory_id)
    }
}

/// What every voter must have been told alike: `controller.quorum.voters` and, where given, the cluster id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VoterList {
    /// `host:port` by node id, as configured.
    pub voters: BTreeMap<BrokerId, String>,
    /// A cluster id that the operator chose. Without one it is derived from the voters' directories.
    pub cluster_id: Option<ClusterId>,
}

/// "Who are you, and what have you?"
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ask {
    /// Who asks.
    pub from: NodeIdentity,
    /// The asker's round; the answer carries it back.
    pub round: u64,
}

/// The answer to an [`Ask`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Who asked.
    pub to: NodeIdentity,
    /// In which of its rounds.
    pub round: u64,
    /// Who answers.
    pub from: NodeIdentity,
    /// What it has.
    pub state: NodeState,
}

/// What a node has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NodeState {
    /// No log.
    Empty {
        /// Its list.
        list: VoterList,
        /// Directories of all listed voters, once its current round has heard from each of them.
        heard: Option<BTreeSet<NodeIdentity>>,
    },
    /// A log: the list no longer decides anything.
    HasLog {
        /// Of which cluster.
        cluster_id: ClusterId,
        /// Its members.
        members: Members,
        /// Whether its snapshot still is the bootstrap one, so that a voter named in it may start from the same.
        at_bootstrap: bool,
    },
}

/// What an empty node must do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BootstrapAction {
    /// Send this to the listed voter; may be lost.
    Ask {
        /// Its node id.
        to: BrokerId,
        /// What to send.
        ask: Ask,
    },
    /// Make this snapshot durable, then call [`Bootstrap::handle_started`] and start Raft from it. Nothing else follows.
    Start(QuorumSnapshot),
    /// Join this cluster as a stranger, with a snapshot from its leader. Nothing else follows.
    Join {
        /// The cluster.
        cluster_id: ClusterId,
        /// Who told.
        through: BrokerId,
    },
}

/// Why this list of voters cannot make a cluster.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BootstrapError {
    /// An empty node that is not in its own list has nothing to vote for.
    #[error("node {node_id} is not among the listed voters {listed:?}")]
    NotListed {
        /// This node.
        node_id: BrokerId,
        /// The list.
        listed: Vec<BrokerId>,
    },
    /// More voters than the design allows, or none.
    #[error("controller.quorum.voters lists {listed:?}: 1 to {MAX_VOTERS} voters are possible")]
    List {
        /// The list.
        listed: Vec<BrokerId>,
    },
}

/// The most voters of a group (DESIGN D2).
pub const MAX_VOTERS: usize = 5;

/// The cluster id of a group that begins with these directories: 22 characters, as Kafka's.
pub fn derived_cluster_id(voters: &BTreeSet<NodeIdentity>) -> ClusterId {
    // Directory ids are random; an odd multiplier and a rotation keep different sets apart.
    let mixed = voters.iter().fold(0u128, |mixed, voter| {
        let mixed = (mixed ^ voter.node_id.value() as u128)
            .wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
        (mixed.rotate_left(61) ^ u128::from_be_bytes(*voter.directory_id.as_bytes()))
            .wrapping_mul(0xda94_2042_e4dd_58b5_2d35_8dcc_aa6c_78a5)
    });
    ClusterId::from_uuid(mixed.to_be_bytes())
}

#[derive(Debug)]
struct Heard {
    identity: NodeIdentity,
    /// The set that it said it has heard, if it had.
    confirms: Option<BTreeSet<NodeIdentity>>,
}

#[derive(Debug)]
enum Phase {
    /// No log, collecting.
    Empty,
    /// Decided, not yet on disk: silent, for it can say neither "empty" nor "I have a log".
    Decided,
    HasLog {
        cluster_id: ClusterId,
        members: Members,
        at_bootstrap: bool,
    },
}

/// One node's part in making or finding its cluster; afterwards it answers those that are still looking.
#[derive(Debug)]
pub struct Bootstrap {
    me: NodeIdentity,
    list: VoterList,
    round: u64,
    /// By node id, in this round; never ours.
    heard: BTreeMap<BrokerId, Heard>,
    phase: Phase,
    /// Voters whose list differs from ours: nothing can be decided until it is mended.
    differing: BTreeSet<BrokerId>,
    actions: VecDeque<BootstrapAction>,
}

impl Bootstrap {
    /// An empty node. `first_round` comes from the machine's entropy, so that no answer to an earlier life counts.
    ///
    /// # Errors
    /// [`BootstrapError`] if the list can make no cluster with this node in it.
    pub fn new(
        me: NodeIdentity,
        list: VoterList,
        first_round: u64,
    ) -> Result<Bootstrap, BootstrapError> {
        let listed: Vec<BrokerId> = list.voters.keys().copied().collect();
        if !(1..=MAX_VOTERS).contains(&listed.len()) {
            return Err(BootstrapError::List { listed });
        }
        if !list.voters.contains_key(&me.node_id) {
            return Err(BootstrapError::NotListed { node_id: me.node_id, listed });
        }
        let mut bootstrap = Bootstrap {
            me,
            list,
            round: first_round,
            heard: BTreeMap::new(),
            phase: Phase::Empty,
            differing: BTreeSet::new(),
            actions: VecDeque::new(),
        };
        bootstrap.ask_all();
        bootstrap.maybe_start();
        Ok(bootstrap)
    }

    /// A node that has a log: it only answers.
    pub fn with_log(
        me: NodeIdentity,
        list: VoterList,
        cluster_id: ClusterId,
        members: Members,
        at_bootstrap: bool,
    ) -> Bootstrap {
        Bootstrap {
            me,
            list,
            round: 0,
            heard: BTreeMap::new(),
            phase: Phase::HasLog { cluster_id, members, at_bootstrap },
            differing: BTreeSet::new(),
            actions: VecDeque::new(),
        }
    }

    /// Voters that were told another list than this node, to warn about.
    pub fn differing(&self) -> &BTreeSet<BrokerId> {
        &self.differing
    }

    /// Listed voters that this round has not heard from.
    pub fn missing(&self) -> impl Iterator<Item = BrokerId> + '_ {
        self.others().filter(|node_id| !self.heard.contains_key(node_id))
    }

    /// Time to ask again: the network may have lost something.
    pub fn handle_retry(&mut self) {
        if matches!(self.phase, Phase::Empty) {
            self.ask_all();
        }
    }

    /// Somebody asks. `None`: say nothing, he will ask again.
    pub fn handle_ask(&mut self, ask: &Ask) -> Option<Answer> {
        if ask.from == self.me || ask.from.node_id == self.me.node_id {
            return None; // our own echo, or a second process with our node.id: not to be helped
        }
        let state = match &self.phase {
            Phase::Decided => return None,
            Phase::HasLog { cluster_id, members, at_bootstrap } => NodeState::HasLog {
                cluster_id: cluster_id.clone(),
                members: members.clone(),
                at_bootstrap: *at_bootstrap,
            },
            Phase::Empty => {
                self.note_contradiction(ask.from);
                NodeState::Empty { list: self.list.clone(), heard: self.all_heard() }
            }
        };
        Some(Answer { to: ask.from, round: ask.round, from: self.me, state })
    }

    /// An answer came.
    pub fn handle_answer(&mut self, answer: &Answer) {
        let expected = matches!(self.phase, Phase::Empty)
            && answer.to == self.me
            && answer.round == self.round
            && answer.from.node_id != self.me.node_id
            && self.list.voters.contains_key(&answer.from.node_id);
        if !expected {
            return;
        }
        match &answer.state {
            NodeState::HasLog { cluster_id, members, at_bootstrap } => {
                self.phase = Phase::Decided;
                self.actions.clear();
                let is_named = members.voters.contains(&self.me.raft_id());
                self.actions.push_back(match is_named && *at_bootstrap {
                    true => BootstrapAction::Start(bootstrap_snapshot(
                        members.clone(),
                        cluster_id.clone(),
                    )),
                    false => BootstrapAction::Join {
                        cluster_id: cluster_id.clone(),
                        through: answer.from.node_id,
                    },
                });
            }
            NodeState::Empty { list, heard } => {
                if self.note_contradiction(answer.from) {
                    return;
                }
                if *list != self.list {
                    self.differing.insert(answer.from.node_id);
                    self.heard.remove(&answer.from.node_id);
                    return;
                }
                self.differing.remove(&answer.from.node_id);
                let was_missing = self.heard.len() < self.list.voters.len() - 1;
                self.heard.insert(
                    answer.from.node_id,
                    Heard { identity: answer.from, confirms: heard.clone() },
                );
                self.maybe_start();
                if was_missing && self.all_heard().is_some() && matches!(self.phase, Phase::Empty) {
                    self.ask_all(); // the last one was heard: now for the confirmations
                }
            }
        }
    }

    /// The snapshot of [`BootstrapAction::Start`] is durable.
    pub fn handle_started(&mut self, snapshot: &QuorumSnapshot) {
        self.phase = Phase::HasLog {
            cluster_id: snapshot.cluster_id.clone(),
            members: snapshot.members.clone(),
            at_bootstrap: snapshot.index == BOOTSTRAP_INDEX,
        };
    }

    /// The next thing to do.
    pub fn poll_action(&mut self) -> Option<BootstrapAction> {
        self.actions.pop_front()
    }

    fn others(&self) -> impl Iterator<Item = BrokerId> + '_ {
        self.list.voters.keys().copied().filter(|node_id| *node_id != self.me.node_id)
    }

    fn ask_all(&mut self) {
        let ask = Ask { from: self.me, round: self.round };
        let asks: Vec<_> =
            self.others().map(|to| BootstrapAction::Ask { to, ask: ask.clone() }).collect();
        self.actions = asks.into(); // older asks that nobody fetched say nothing more
    }

    /// A known voter on another directory than this round heard of: nothing of the round holds any more.
    fn note_contradiction(&mut self, identity: NodeIdentity) -> bool {
        let contradicts =
            self.heard.get(&identity.node_id).is_some_and(|heard| heard.identity != identity);
        if contradicts {
            self.round = self.round.wrapping_add(1);
            self.heard.clear();
            self.ask_all();
        }
        contradicts
    }

    fn all_heard(&self) -> Option<BTreeSet<NodeIdentity>> {
        (self.heard.len() == self.list.voters.len() - 1)
            .then(|| self.heard.values().map(|heard| heard.identity).chain([self.me]).collect())
    }

    fn maybe_start(&mut self) {
        let Some(all) = self.all_heard() else { return };
        if !self.heard.values().all(|heard| heard.confirms.as_ref() == Some(&all)) {
            return;
        }
        let voters = all.iter().map(NodeIdentity::raft_id).collect();
        let cluster_id = self.list.cluster_id.clone().unwrap_or_else(|| derived_cluster_id(&all));
        self.phase = Phase::Decided;
        self.actions.clear();
        let members = Members { voters, learners: BTreeSet::new() };
        self.actions.push_back(BootstrapAction::Start(bootstrap_snapshot(members, cluster_id)));
    }
}

/// The snapshot that every voter of a new group starts from.
fn bootstrap_snapshot(members: Members, cluster_id: ClusterId) -> QuorumSnapshot {
    QuorumSnapshot {
        index: BOOTSTRAP_INDEX,
        term: BOOTSTRAP_TERM,
        members,
        cluster_id,
        data: Bytes::new(),
    }
}

#[cfg(test)]
mod tests;
