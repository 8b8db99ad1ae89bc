//! Several nodes that begin at once, on a network that loses, repeats and reorders, with disks that are replaced.

use proptest::prelude::*;

use super::*;

fn node(node_id: i32) -> BrokerId {
    BrokerId::new(node_id).unwrap()
}

fn identity(node_id: i32, directory: u8) -> NodeIdentity {
    NodeIdentity { node_id: node(node_id), directory_id: DirectoryId::from_bytes([directory; 16]) }
}

fn list_of(node_ids: impl IntoIterator<Item = i32>) -> VoterList {
    let voters = node_ids.into_iter().map(|id| (node(id), format!("host{id}:9093"))).collect();
    VoterList { voters, cluster_id: None }
}

/// Everything a bootstrapping node wants to do now.
fn actions(node: &mut Bootstrap) -> Vec<BootstrapAction> {
    std::iter::from_fn(|| node.poll_action()).collect()
}

#[test]
fn a_list_of_one_starts_at_once_and_asks_nobody() {
    let mut node = Bootstrap::new(identity(1, 7), list_of([1]), 0).unwrap();
    let [BootstrapAction::Start(snapshot)] = &actions(&mut node)[..] else {
        panic!("not one start")
    };
    assert_eq!((snapshot.index, snapshot.term), (BOOTSTRAP_INDEX, BOOTSTRAP_TERM));
    assert_eq!(snapshot.members.voters, [identity(1, 7).raft_id()].into());
    assert_eq!(snapshot.cluster_id.as_str().len(), 22);
}

#[test]
fn the_operator_s_cluster_id_wins_over_the_derived_one() {
    let list = VoterList { cluster_id: ClusterId::new("mine"), ..list_of([1]) };
    let mut node = Bootstrap::new(identity(1, 7), list, 0).unwrap();
    let [BootstrapAction::Start(snapshot)] = &actions(&mut node)[..] else {
        panic!("not one start")
    };
    assert_eq!(snapshot.cluster_id.as_str(), "mine");
}

#[test]
fn an_impossible_list_is_refused() {
    let me = identity(1, 7);
    assert!(matches!(
        Bootstrap::new(me, list_of([2, 3]), 0),
        Err(BootstrapError::NotListed { .. })
    ));
    assert!(matches!(Bootstrap::new(me, list_of([]), 0), Err(BootstrapError::List { .. })));
    assert!(matches!(Bootstrap::new(me, list_of(0..6), 0), Err(BootstrapError::List { .. })));
}

/// Lets two nodes talk until neither has anything to say.
fn talk(first: &mut Bootstrap, second: &mut Bootstrap) -> [Vec<BootstrapAction>; 2] {
    let mut decisions = [Vec::new(), Vec::new()];
    for _ in 0..10 {
        let nodes = [&mut *first, &mut *second];
        for asker in 0..2 {
            for action in actions(nodes[asker]) {
                match action {
                    BootstrapAction::Ask { ask, .. } => {
                        if let Some(answer) = nodes[1 - asker].handle_ask(&ask) {
                            nodes[asker].handle_answer(&answer);
                        }
                    }
                    decision => decisions[asker].push(decision),
                }
            }
            nodes[asker].handle_retry();
        }
    }
    decisions
}

#[test]
fn voters_with_different_lists_do_not_start_and_say_who_differs() {
    let mut first = Bootstrap::new(identity(1, 1), list_of([1, 2]), 0).unwrap();
    let mut second = Bootstrap::new(identity(2, 2), list_of([1, 2, 3]), 0).unwrap();
    assert_eq!(talk(&mut first, &mut second), [vec![], vec![]]);
    assert_eq!(first.differing(), &[node(2)].into());
}

#[test]
fn a_log_decides_over_the_list() {
    let members = |ids: &[NodeIdentity]| Members {
        voters: ids.iter().map(|id| id.raft_id()).collect(),
        learners: BTreeSet::new(),
    };
    let cases = [
        // Named in a log that has not gone on: the same snapshot.
        (members(&[identity(1, 1), identity(2, 2)]), true, true),
        // Named, but the log's snapshot is a later one: only its leader can give it.
        (members(&[identity(1, 1), identity(2, 2)]), false, false),
        // The log knows this node on another disk.
        (members(&[identity(1, 9), identity(2, 2)]), true, false),
    ];
    for (members, at_bootstrap, starts) in cases {
        let mut node = Bootstrap::new(identity(1, 1), list_of([1, 2]), 0).unwrap();
        let mut old = Bootstrap::with_log(
            identity(2, 2),
            list_of([2]),
            ClusterId::new("old").unwrap(),
            members.clone(),
            at_bootstrap,
        );
        let [decisions, _] = talk(&mut node, &mut old);
        match &decisions[..] {
            [BootstrapAction::Start(snapshot)] => {
                assert!(starts);
                assert_eq!((&snapshot.members, snapshot.cluster_id.as_str()), (&members, "old"));
            }
            [BootstrapAction::Join { cluster_id, through }] => {
                assert!(!starts);
                assert_eq!((cluster_id.as_str(), through.value()), ("old", 2));
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn different_directories_make_different_clusters() {
    let ids = |third: u8| [identity(1, 1), identity(2, 2), identity(3, third)].into();
    assert_ne!(derived_cluster_id(&ids(3)), derived_cluster_id(&ids(4)));
    assert_eq!(derived_cluster_id(&ids(3)), derived_cluster_id(&ids(3)));
}

#[derive(Clone, Debug)]
enum Message {
    Ask { to: BrokerId, ask: Ask },
    Answer(Answer),
}

/// What the seeded scheduler may do next; numbers choose among what there is.
#[derive(Clone, Copy, Debug)]
enum Event {
    Deliver(u16),
    Duplicate(u16),
    Lose(u16),
    Retry(u8),
    /// What a node decided becomes durable.
    Persist(u8),
    Restart(u8),
    /// The disk is replaced by an empty one; the old one is gone for good.
    Replace(u8),
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        12 => any::<u16>().prop_map(Event::Deliver),
        2 => any::<u16>().prop_map(Event::Duplicate),
        1 => any::<u16>().prop_map(Event::Lose),
        2 => any::<u8>().prop_map(Event::Retry),
        2 => any::<u8>().prop_map(Event::Persist),
        1 => any::<u8>().prop_map(Event::Restart),
        1 => any::<u8>().prop_map(Event::Replace),
    ]
}

struct Node {
    identity: NodeIdentity,
    bootstrap: Bootstrap,
    decided: Option<BootstrapAction>,
    /// What its disk holds.
    durable: Option<QuorumSnapshot>,
}

struct Cluster {
    list: VoterList,
    nodes: Vec<Node>,
    network: Vec<Message>,
    next_directory: u8,
    next_round: u64,
}

impl Cluster {
    fn new(size: i32) -> Cluster {
        let mut cluster = Cluster {
            list: list_of(0..size),
            nodes: vec![],
            network: vec![],
            next_directory: 0,
            next_round: 0,
        };
        for node_id in 0..size {
            let identity = cluster.new_identity(node_id);
            let bootstrap = Bootstrap::new(identity, cluster.list.clone(), 0).unwrap();
            cluster.nodes.push(Node { identity, bootstrap, decided: None, durable: None });
        }
        cluster.collect();
        cluster
    }

    fn new_identity(&mut self, node_id: i32) -> NodeIdentity {
        self.next_directory += 1;
        identity(node_id, self.next_directory)
    }

    fn start(&mut self, at: usize) {
        // Stands for a draw that does not repeat.
        self.next_round += 1000;
        let node = &mut self.nodes[at];
        node.decided = None;
        node.bootstrap = match &node.durable {
            None => Bootstrap::new(node.identity, self.list.clone(), self.next_round).unwrap(),
            Some(snapshot) => {
                let (cluster_id, members) = (snapshot.cluster_id.clone(), snapshot.members.clone());
                Bootstrap::with_log(node.identity, self.list.clone(), cluster_id, members, true)
            }
        };
    }

    fn collect(&mut self) {
        for node in &mut self.nodes {
            for action in actions(&mut node.bootstrap) {
                match action {
                    BootstrapAction::Ask { to, ask } => self.network.push(Message::Ask { to, ask }),
                    decision => node.decided = Some(decision),
                }
            }
        }
    }

    fn deliver(&mut self, message: Message) {
        match message {
            Message::Ask { to, ask } => {
                let answer = self.nodes[to.value() as usize].bootstrap.handle_ask(&ask);
                self.network.extend(answer.map(Message::Answer));
            }
            Message::Answer(answer) => {
                self.nodes[answer.to.node_id.value() as usize].bootstrap.handle_answer(&answer);
            }
        }
    }

    fn persist(&mut self, at: usize) {
        let node = &mut self.nodes[at];
        if let Some(BootstrapAction::Start(snapshot)) = &node.decided {
            node.bootstrap.handle_started(snapshot);
            node.durable = Some(snapshot.clone());
            node.decided = None;
        }
    }

    fn handle(&mut self, event: Event) {
        let size = self.nodes.len();
        let pick = |choice: u16, network: &Vec<Message>| {
            (!network.is_empty()).then(|| usize::from(choice) % network.len())
        };
        match event {
            Event::Deliver(choice) => {
                if let Some(at) = pick(choice, &self.network) {
                    let message = self.network.swap_remove(at);
                    self.deliver(message);
                }
            }
            Event::Duplicate(choice) => {
                if let Some(at) = pick(choice, &self.network) {
                    self.deliver(self.network[at].clone());
                }
            }
            Event::Lose(choice) => {
                if let Some(at) = pick(choice, &self.network) {
                    self.network.swap_remove(at);
                }
            }
            Event::Retry(choice) => self.nodes[usize::from(choice) % size].bootstrap.handle_retry(),
            Event::Persist(choice) => self.persist(usize::from(choice) % size),
            Event::Restart(choice) => self.start(usize::from(choice) % size),
            Event::Replace(choice) => {
                let at = usize::from(choice) % size;
                self.nodes[at].durable = None;
                self.nodes[at].identity = self.new_identity(at as i32);
                self.start(at);
            }
        }
        self.collect();
        self.network.truncate(200);
    }

    /// Every group of which some node has made a snapshot, with the voters of it whose disks say so too.
    fn groups(&self) -> Vec<(QuorumSnapshot, usize)> {
        let mut groups: Vec<(QuorumSnapshot, usize)> = Vec::new();
        for node in &self.nodes {
            let decided = match &node.decided {
                Some(BootstrapAction::Start(snapshot)) => Some(snapshot),
                _ => None,
            };
            let Some(snapshot) = node.durable.as_ref().or(decided) else { continue };
            assert!(snapshot.members.voters.contains(&node.identity.raft_id()));
            match groups.iter_mut().find(|(group, _)| group == snapshot) {
                Some((_, count)) => *count += 1,
                None => groups.push((snapshot.clone(), 1)),
            }
        }
        groups
    }

    fn check(&self) {
        let groups = self.groups();
        let quorums =
            groups.iter().filter(|(group, count)| *count > group.members.voters.len() / 2);
        assert!(quorums.count() <= 1, "two quorums: {groups:?}");
        // Two groups never both name two living directories that are in different ones.
        for (at, first) in self.nodes.iter().enumerate() {
            for second in &self.nodes[at + 1..] {
                let (Some(a), Some(b)) = (&first.durable, &second.durable) else { continue };
                let names_both = |snapshot: &QuorumSnapshot| {
                    [first, second]
                        .iter()
                        .all(|node| snapshot.members.voters.contains(&node.identity.raft_id()))
                };
                assert!(a == b || !names_both(a) || !names_both(b), "{a:?} and {b:?}");
            }
        }
        for (at, (first, _)) in groups.iter().enumerate() {
            for (second, _) in &groups[at + 1..] {
                assert_ne!(
                    first.cluster_id, second.cluster_id,
                    "groups that would take each other's votes"
                );
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, ..ProptestConfig::default() })]

    /// Whatever the network and the disks do, one list of voters never makes two quorums.
    #[test]
    fn one_list_never_makes_two_quorums(
        size in prop_oneof![Just(1), Just(2), Just(3), Just(5)],
        events in prop::collection::vec(event(), 0..300),
    ) {
        let mut cluster = Cluster::new(size);
        for event in events {
            cluster.handle(event);
            cluster.check();
        }
    }

    /// On a network that loses and reorders, but with disks that stay, all of them find one group.
    #[test]
    fn voters_that_keep_their_disks_find_one_group(
        size in prop_oneof![Just(1), Just(2), Just(3), Just(5)],
        events in prop::collection::vec(event(), 0..200),
    ) {
        let mut cluster = Cluster::new(size);
        for event in events.into_iter().filter(|event| !matches!(event, Event::Replace(_))) {
            cluster.handle(event);
            cluster.check();
        }
        for _ in 0..10 {
            for at in 0..size as usize {
                cluster.nodes[at].bootstrap.handle_retry();
                cluster.collect();
                while let Some(message) = cluster.network.pop() {
                    cluster.deliver(message);
                    cluster.collect();
                }
                cluster.persist(at);
            }
        }
        let groups = cluster.groups();
        prop_assert_eq!(groups.len(), 1, "{:?}", groups);
        prop_assert_eq!(groups[0].1, size as usize);
    }
}
