//! Real cores on real log stores, on simulated disks and a seeded network, in one thread.

use std::collections::BTreeMap;
use std::path::Path;

use proptest::prelude::*;
use storage::fs::Fs;
use storage::fs::simulated::{Crash, SimulatedFs};
use storage::timestamp::Timestamp;

use super::log_store::{LogStore, LogStoreConfig, OpenedLog};
use super::membership::{Bootstrap, BootstrapAction, NodeIdentity, VoterList};
use super::*;
use crate::identity::{BrokerId, DirectoryId};

const NOW: Timestamp = Timestamp::ZERO;
const SMALL: LogStoreConfig = LogStoreConfig { segment_bytes: 700 };
const DIR: &str = "/data/__cluster_metadata-0";

fn disk() -> SimulatedFs {
    let fs = SimulatedFs::new();
    fs.create_dir(Path::new("/data")).unwrap();
    fs.sync_everything();
    fs
}

fn identity(node_id: i32) -> NodeIdentity {
    NodeIdentity {
        node_id: BrokerId::new(node_id).unwrap(),
        directory_id: DirectoryId::from_bytes([node_id as u8; 16]),
    }
}

fn raft_id(node_id: i32) -> RaftId {
    identity(node_id).raft_id()
}

/// What every node of the group starts from; the single node's through the membership machine.
fn bootstrap_snapshot(size: i32) -> QuorumSnapshot {
    if size == 1 {
        let identity = identity(0);
        let list =
            VoterList { voters: [(identity.node_id, String::new())].into(), cluster_id: None };
        let mut bootstrap = Bootstrap::new(identity, list, 0).unwrap();
        match bootstrap.poll_action() {
            Some(BootstrapAction::Start(snapshot)) => return snapshot,
            other => panic!("{other:?}"),
        }
    }
    QuorumSnapshot {
        index: codec::BOOTSTRAP_INDEX,
        term: codec::BOOTSTRAP_TERM,
        members: Members { voters: (0..size).map(raft_id).collect(), learners: [].into() },
        cluster_id: ClusterId::new("a-cluster").unwrap(),
        data: Bytes::new(),
    }
}

/// The state machine: the proposals applied, in order. Its snapshot is the list.
type Applied = Vec<(u64, Bytes)>;

fn to_image(applied: &Applied) -> Bytes {
    let mut image = Vec::new();
    for (index, data) in applied {
        image.extend_from_slice(&index.to_be_bytes());
        image.extend_from_slice(&(data.len() as u32).to_be_bytes());
        image.extend_from_slice(data);
    }
    image.into()
}

fn from_image(mut image: &[u8]) -> Applied {
    let mut applied = Vec::new();
    while !image.is_empty() {
        let (index, rest) = image.split_first_chunk::<8>().unwrap();
        let (length, rest) = rest.split_first_chunk::<4>().unwrap();
        let (data, rest) = rest.split_at(u32::from_be_bytes(*length) as usize);
        applied.push((u64::from_be_bytes(*index), Bytes::copy_from_slice(data)));
        image = rest;
    }
    applied
}

struct Running {
    quorum: Quorum,
    store: LogStore,
    applied: Applied,
    applied_index: u64,
    persists: VecDeque<Persist>,
    active_term: Option<u64>,
}

impl Running {
    /// Everything from the disk on; `None` if the disk stops it.
    fn start(fs: &SimulatedFs, node_id: i32, size: i32, seed: u64) -> Option<Running> {
        let opened = LogStore::open(Arc::new(fs.clone()), Path::new(DIR), SMALL).ok()?;
        let (mut store, state) = match opened {
            OpenedLog::Empty(empty) => {
                let snapshot = bootstrap_snapshot(size);
                (empty.start(&snapshot, NOW).ok()?, QuorumState::bootstrapped(snapshot))
            }
            OpenedLog::Found { store, state, .. } => (*store, state),
        };
        if size > 1 {
            store.sync().ok()?;
        }
        let applied = from_image(&state.snapshot.data);
        let applied_index = state.snapshot.index;
        let config = QuorumConfig {
            election_ticks_of_term: Some(Arc::new(move |term| {
                10 + (seed.wrapping_add(term * 7 + node_id as u64 * 3) % 10) as usize
            })),
            ..QuorumConfig::default()
        };
        let quorum = Quorum::new(raft_id(node_id), config, state).unwrap();
        let persists = VecDeque::new();
        Some(Running { quorum, store, applied, applied_index, persists, active_term: None })
    }

    /// Takes the core's actions; persists wait in their queue, messages go out.
    fn drain(&mut self, network: &mut Vec<RaftMessage>) {
        while let Some(action) = self.quorum.poll_action() {
            match action {
                QuorumAction::Persist(persist) => self.persists.push_back(persist),
                QuorumAction::Send(messages) => network.extend(messages),
                QuorumAction::Restore(snapshot) => {
                    self.applied = from_image(&snapshot.data);
                    self.applied_index = snapshot.index;
                }
                QuorumAction::Commit(entry) => {
                    assert_eq!(entry.index, self.applied_index + 1);
                    self.applied_index = entry.index;
                    if !entry.data.is_empty() {
                        self.applied.push((entry.index, entry.data));
                    }
                }
                QuorumAction::Activated { term } => self.active_term = Some(term),
                QuorumAction::Deactivated { term } => {
                    assert_eq!(self.active_term, Some(term));
                    self.active_term = None;
                }
                QuorumAction::LeaderChanged(_) => {}
            }
        }
        assert_eq!(self.quorum.is_active(), self.active_term.is_some());
    }

    /// Persist, then send, then tell the core. False when the disk failed.
    fn persist_one(&mut self, network: &mut Vec<RaftMessage>) -> bool {
        let Some(persist) = self.persists.pop_front() else { return true };
        if self.store.persist(&persist, NOW).is_err() {
            return false;
        }
        let number = persist.number;
        network.extend(persist.messages);
        self.quorum.handle_persisted(number);
        self.drain(network);
        true
    }

    fn snapshot(&mut self) -> bool {
        let Some(snapshot) = self.quorum.snapshot_at(self.applied_index, to_image(&self.applied))
        else {
            return true;
        };
        // What is snapshotted was durable here or on a majority; the log's own writes come first.
        if !self.persists.is_empty() || self.store.write_snapshot(&snapshot, NOW).is_err() {
            return !self.store.is_failed();
        }
        self.quorum.handle_snapshot_written(&snapshot);
        true
    }
}

#[test]
fn a_group_of_one_decides_after_one_write_and_needs_no_tick() {
    let fs = disk();
    let mut network = Vec::new();
    let mut node = Running::start(&fs, 0, 1, 0).unwrap();
    assert_eq!(
        node.quorum.propose(Bytes::from_static(b"too early")),
        Err(ProposeError::NotActive { leader: None })
    );
    node.drain(&mut network);
    assert_eq!((node.persists.len(), node.active_term), (1, None));
    assert!(node.persist_one(&mut network));
    assert_eq!(node.active_term, Some(2));

    let first = node.quorum.propose(Bytes::from_static(b"first")).unwrap();
    let second = node.quorum.propose(Bytes::from_static(b"second")).unwrap();
    assert_eq!((first.index, second.index), (3, 4));
    node.drain(&mut network);
    assert_eq!(node.persists.len(), 1, "one write for both");
    assert!(node.applied.is_empty(), "nothing is decided before it is durable");
    assert!(node.persist_one(&mut network));
    assert_eq!(node.applied.iter().map(|(index, _)| *index).collect::<Vec<_>>(), [3, 4]);
    assert!(network.is_empty() && node.persists.is_empty());
}

#[test]
fn entries_that_are_too_large_or_too_many_are_refused_and_change_nothing() {
    let fs = disk();
    let mut node = Running::start(&fs, 0, 1, 0).unwrap();
    node.drain(&mut Vec::new());
    node.persist_one(&mut Vec::new());
    let last = node.quorum.last_index();
    let large = Bytes::from(vec![0; MAX_ENTRY_DATA_BYTES + 1]);
    assert!(matches!(node.quorum.propose(large), Err(ProposeError::TooLarge { .. })));
    let most = Bytes::from(vec![0; MAX_ENTRY_DATA_BYTES]);
    let taken = (0..20).take_while(|_| node.quorum.propose(most.clone()).is_ok()).count();
    assert_eq!(taken, 8, "64 MiB may wait");
    assert_eq!(node.quorum.propose(most), Err(ProposeError::TooManyUncommitted));
    assert_eq!(node.quorum.last_index(), last + 8);
}

#[test]
fn a_directory_that_belongs_to_another_node_is_refused() {
    let state = QuorumState::bootstrapped(bootstrap_snapshot(1));
    let stranger = RaftId::new(identity(0).node_id, &DirectoryId::from_bytes([99; 16]));
    let error = Quorum::new(stranger, QuorumConfig::default(), state).unwrap_err();
    assert!(matches!(error, QuorumError::NotAMember { .. }));
}

/// Proposals, snapshots and restarts of a group of one, stopped at each operation of the disk in turn.
#[test]
fn a_group_of_one_crashed_at_every_step_keeps_every_committed_entry() {
    let crashes = [Crash::Process, Crash::PowerLosingUnsynced, Crash::PowerKeepingSome { seed: 1 }];
    let mut stops = 0;
    for crash in crashes {
        for stop_after in 0.. {
            let fs = disk();
            fs.stop_after_changes(stop_after);
            let mut committed = Applied::new();
            let mut term = 0;
            let finished = workload(&fs, &mut committed, &mut term);
            fs.crash(crash);
            let mut node = Running::start(&fs, 0, 1, 0).expect("a crash never refuses the start");
            node.drain(&mut Vec::new());
            assert!(node.persist_one(&mut Vec::new()));
            assert!(
                node.applied.starts_with(&committed),
                "stopped after {stop_after} changes, {crash:?}"
            );
            assert!(node.active_term.unwrap() > term, "a term is never led twice");
            // And what the restart found is itself durable now.
            fs.crash(Crash::PowerLosingUnsynced);
            let found = node.applied;
            let mut again = Running::start(&fs, 0, 1, 0).unwrap();
            again.drain(&mut Vec::new());
            assert!(again.persist_one(&mut Vec::new()));
            assert_eq!(again.applied, found);
            stops += 1;
            if finished {
                break;
            }
        }
    }
    assert!(stops > 150, "only {stops} stops were tried");
}

/// False if the disk stopped it.
fn workload(fs: &SimulatedFs, committed: &mut Applied, term: &mut u64) -> bool {
    for round in 0..3 {
        let Some(mut node) = Running::start(fs, 0, 1, 0) else { return false };
        let mut network = Vec::new();
        node.drain(&mut network);
        if !node.persist_one(&mut network) {
            return false;
        }
        *term = node.active_term.unwrap();
        for change in 0..6 {
            for part in 0..1 + change % 2 {
                let data = format!("round {round} change {change} part {part}");
                node.quorum.propose(data.into()).unwrap();
            }
            node.drain(&mut network);
            if !node.persist_one(&mut network) {
                return false;
            }
            committed.clone_from(&node.applied);
            if change == 4 && !node.snapshot() {
                return false;
            }
        }
    }
    true
}

#[derive(Clone, Copy, Debug)]
enum Event {
    Tick(u8),
    Deliver(u16),
    Lose(u16),
    Duplicate(u16),
    Persist(u8),
    Propose(u8),
    Snapshot(u8),
    Crash(u8, u64),
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        10 => any::<u8>().prop_map(Event::Tick),
        20 => any::<u16>().prop_map(Event::Deliver),
        1 => any::<u16>().prop_map(Event::Lose),
        1 => any::<u16>().prop_map(Event::Duplicate),
        12 => any::<u8>().prop_map(Event::Persist),
        3 => any::<u8>().prop_map(Event::Propose),
        1 => any::<u8>().prop_map(Event::Snapshot),
        1 => (any::<u8>(), any::<u64>()).prop_map(|(node, seed)| Event::Crash(node, seed)),
    ]
}

struct Group {
    size: i32,
    seed: u64,
    disks: Vec<SimulatedFs>,
    nodes: Vec<Running>,
    network: Vec<RaftMessage>,
    proposed: u64,
    /// By index: what some node applied there.
    decided: BTreeMap<u64, Bytes>,
    /// By term: who was active in it.
    actives: BTreeMap<u64, usize>,
}

impl Group {
    fn new(size: i32, seed: u64) -> Group {
        let disks: Vec<_> = (0..size).map(|_| disk()).collect();
        let nodes =
            disks.iter().zip(0..).map(|(fs, id)| Running::start(fs, id, size, seed).unwrap());
        let nodes = nodes.collect();
        let (network, decided, actives) = (vec![], BTreeMap::new(), BTreeMap::new());
        Group { size, seed, disks, nodes, network, proposed: 0, decided, actives }
    }

    fn handle(&mut self, event: Event) {
        let at = |choice: u8| usize::from(choice) % self.size as usize;
        let message = |choice: u16| usize::from(choice) % self.network.len().max(1);
        match event {
            Event::Tick(choice) => self.nodes[at(choice)].quorum.tick(),
            Event::Persist(choice) => {
                let at = at(choice);
                assert!(self.nodes[at].persist_one(&mut self.network));
            }
            Event::Deliver(choice) if !self.network.is_empty() => {
                let message = self.network.swap_remove(message(choice));
                self.deliver(message);
            }
            Event::Duplicate(choice) if !self.network.is_empty() => {
                self.deliver(self.network[message(choice)].clone());
            }
            Event::Lose(choice) if !self.network.is_empty() => {
                let message = self.network.swap_remove(message(choice));
                self.report_snapshot(&message, false);
            }
            Event::Deliver(_) | Event::Duplicate(_) | Event::Lose(_) => {}
            Event::Propose(choice) => {
                self.proposed += 1;
                let data = format!("proposal {}", self.proposed);
                _ = self.nodes[at(choice)].quorum.propose(data.into());
            }
            Event::Snapshot(choice) => _ = self.nodes[at(choice)].snapshot(),
            Event::Crash(choice, seed) => {
                let at = at(choice);
                self.disks[at].crash(match seed % 3 {
                    0 => Crash::Process,
                    1 => Crash::PowerLosingUnsynced,
                    _ => Crash::PowerKeepingSome { seed },
                });
                self.nodes[at] =
                    Running::start(&self.disks[at], at as i32, self.size, self.seed).unwrap();
            }
        }
        for node in &mut self.nodes {
            node.drain(&mut self.network);
        }
        self.check();
    }

    fn report_snapshot(&mut self, message: &RaftMessage, arrived: bool) {
        if message.get_msg_type() == raft::eraftpb::MessageType::MsgSnapshot {
            let from = RaftId::from_value(message.from).unwrap().node_id().value() as usize;
            let to = RaftId::from_value(message.to).unwrap();
            self.nodes[from].quorum.handle_snapshot_sent(to, arrived);
        }
    }

    fn deliver(&mut self, message: RaftMessage) {
        self.report_snapshot(&message, true);
        let to = RaftId::from_value(message.to).unwrap().node_id().value() as usize;
        self.nodes[to].quorum.handle_message(message).expect("sound peers send sound messages");
    }

    fn check(&mut self) {
        for (at, node) in self.nodes.iter().enumerate() {
            if let Some(term) = node.active_term {
                assert_eq!(
                    *self.actives.entry(term).or_insert(at),
                    at,
                    "two leaders in term {term}"
                );
            }
            for (index, data) in &node.applied {
                let decided = self.decided.entry(*index).or_insert_with(|| data.clone());
                assert_eq!(decided, data, "index {index} was decided twice");
            }
            // Whatever was decided anywhere up to here is here.
            let here = self.decided.range(..=node.applied_index).count();
            assert_eq!(node.applied.len(), here, "node {at} misses an entry");
        }
    }

    /// Everything works from now on, and time passes.
    fn heal(&mut self) {
        for _ in 0..100 {
            for choice in 0..self.size as u8 {
                self.handle(Event::Tick(choice));
                while !self.nodes[usize::from(choice)].persists.is_empty() {
                    self.handle(Event::Persist(choice));
                }
            }
            for _ in 0..200 {
                if self.network.is_empty() {
                    break;
                }
                let message = self.network.remove(0);
                self.deliver(message);
                for choice in 0..self.size as u8 {
                    self.handle(Event::Persist(choice));
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    /// Several cores whose disks persist late and tear, on a network that loses, repeats and reorders: one
    /// active controller a term, one decision an index, nothing committed is lost; healed, they go on.
    #[test]
    fn a_group_of_three_keeps_what_it_committed(
        seed: u64,
        events in prop::collection::vec(event(), 0..800),
    ) {
        let mut group = Group::new(3, seed);
        for event in events {
            group.handle(event);
        }
        group.heal();
        let before = group.decided.len();
        for choice in 0..3 {
            group.handle(Event::Propose(choice));
        }
        group.heal();
        prop_assert_eq!(group.decided.len(), before + 1, "the one active controller's proposal");
        let ends: Vec<_> = group.nodes.iter().map(|node| node.applied_index).collect();
        prop_assert!(ends.iter().all(|end| *end == ends[0]), "{:?}", ends);
    }
}

#[test]
fn a_peer_s_absurd_messages_are_refused_and_panic_nothing() {
    use raft::eraftpb::{Entry, EntryType, MessageType, Snapshot};
    let mut group = Group::new(3, 7);
    group.heal();
    for choice in 0..3 {
        group.handle(Event::Propose(choice));
    }
    group.heal();
    let follower = (0..3).find(|at| group.nodes[*at].active_term.is_none()).unwrap();
    let peer = (0..3).find(|at| group.nodes[*at].active_term.is_some()).unwrap();
    let term = group.nodes[follower].quorum.term();
    let message = |kind: MessageType| {
        let mut message = RaftMessage::default();
        message.set_msg_type(kind);
        message.set_from(raft_id(peer as i32).value());
        message.set_to(raft_id(follower as i32).value());
        message.set_term(term);
        message
    };
    let mut absurd = Vec::new();
    for kind in [
        MessageType::MsgHup,
        MessageType::MsgBeat,
        MessageType::MsgPropose,
        MessageType::MsgReadIndex,
        MessageType::MsgSnapshot,
        MessageType::MsgTransferLeader,
        MessageType::MsgUnreachable,
    ] {
        absurd.push(message(kind));
    }
    let mut heartbeat = message(MessageType::MsgHeartbeat);
    heartbeat.set_commit(u64::MAX);
    absurd.push(heartbeat);
    let mut from_nobody = message(MessageType::MsgHeartbeat);
    from_nobody.set_from(3);
    absurd.push(from_nobody);
    let mut append = message(MessageType::MsgAppend);
    append.set_index(1);
    append.set_log_term(1);
    let mut entry = Entry::default();
    (entry.index, entry.term) = (2, 1);
    append.set_entries(vec![entry.clone()].into());
    absurd.push(append.clone());
    (entry.index, entry.term) = (u64::MAX, term);
    append.set_entries(vec![entry.clone()].into());
    absurd.push(append.clone());
    (entry.index, entry.term) = (2, 2);
    entry.set_entry_type(EntryType::EntryConfChangeV2);
    append.set_entries(vec![entry].into());
    absurd.push(append);
    let mut snapshot = message(MessageType::MsgSnapshot);
    let mut garbage = Snapshot::default();
    garbage.set_data(Bytes::from_static(&[0, 0, 0, 1, 9]));
    garbage.mut_metadata().set_index(100);
    snapshot.set_snapshot(garbage);
    absurd.push(snapshot);

    for message in absurd {
        let name = format!("{message:?}");
        assert!(group.nodes[follower].quorum.handle_message(message).is_err(), "{name}");
    }
    group.heal();
}
