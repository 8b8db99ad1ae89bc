//! One node's real cores on a simulated disk and clock, in one thread that is driven by a seed: crashed at any step,
//! started again, and checked after every event against what it said before (DESIGN D8).
//!
//! ```text
//!   seed ─▶ events ─▶ node: LogDir, LogManager, quorum, controller, RoleApplier, ReplicaManager ─▶ SimulatedFs
//!              └────▶ history: what was sent, written, acknowledged, shown ◀── checks after every event
//! ```
//! Nothing of the broker's logic is copied here. What is replaced: sockets, threads and tasks (the events call what they
//! would call), the clock, the disk, and entropy. The quorum's driver is replaced by a loop without a thread
//! ([`metadata`]), because it draws its own entropy.
//!
//! The same seed makes the same run, operation by operation.

mod events;
mod history;
mod metadata;
mod node;
mod producers;
mod random;
mod restart;
mod trace;

use std::sync::Arc;

use broker::clock::SimulatedTime;
use broker::config::{BrokerConfig, ServeFlags, load};
use storage::fs::simulated::SimulatedFs;

use history::History;
use node::{Identity, Node};
use producers::Producers;
use random::Random;
use trace::Trace;

/// Where the simulated broker keeps its data.
const DATA_DIR: &str = "/data";
/// Events of one run.
const EVENTS: u32 = 220;

/// What a run did, when it found nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    /// Digest of all that happened: equal runs have equal ones.
    pub digest: u64,
    /// Batches written.
    pub batches: u64,
    /// Batches acknowledged.
    pub acknowledged: u64,
    /// Retries that were answered with the offsets of the first time.
    pub duplicates: u64,
    /// Times the process was killed or the power went.
    pub crashes: u64,
    /// Crashes in the middle of what the disk was asked to do.
    pub crashes_inside: u64,
    /// Clean stops.
    pub clean_stops: u64,
    /// Segments that retention or DeleteRecords let go.
    pub log_start_moves: u64,
}

/// Bugs that can be planted, by their number in the list of planted bugs, and the failpoint of each.
pub const PLANTED: [(u32, &str); 5] = [
    (2, "bug-2-ack-before-fsync"),
    (7, "bug-7-duplicate-window-lost-on-restart"),
    (8, "bug-8-duplicate-window-lost-on-roll"),
    (24, "bug-24-recovery-keeps-torn-batch"),
    (25, "bug-25-retention-above-high-watermark"),
];

/// Everything of one run.
struct Simulation {
    random: Random,
    trace: Trace,
    fs: SimulatedFs,
    time: &'static SimulatedTime,
    config: Arc<BrokerConfig>,
    identity: Identity,
    history: History,
    producers: Producers,
    /// Produces that wait for their acknowledgement; with the process they go.
    waiting: Vec<events::Waiting>,
    node: Option<Node>,
    /// The disk stops by itself before long; nothing that fails is held against the node until it is started again.
    is_armed: bool,
    summary: Summary,
}

/// Runs one seed.
///
/// # Errors
/// What is wrong, in words.
pub fn run(seed: u64, verbose: bool) -> Result<Summary, String> {
    let mut simulation = Simulation::new(seed, verbose)?;
    simulation.first_start()?;
    for _ in 0..EVENTS {
        simulation.event()?;
    }
    simulation.last_checks()?;
    simulation.summary.digest = simulation.trace.digest();
    Ok(simulation.summary)
}

impl Simulation {
    fn new(seed: u64, verbose: bool) -> Result<Simulation, String> {
        // One small allocation a run, never given back: the clock is handed around by copy.
        let time: &'static SimulatedTime = Box::leak(Box::default());
        Ok(Simulation {
            random: Random::new(seed),
            trace: Trace::new(verbose),
            fs: SimulatedFs::new(),
            time,
            config: Arc::new(broker_config()?),
            identity: Identity::default(),
            history: History::default(),
            producers: Producers::default(),
            waiting: Vec::new(),
            node: None,
            is_armed: false,
            summary: Summary {
                digest: 0,
                batches: 0,
                acknowledged: 0,
                duplicates: 0,
                crashes: 0,
                crashes_inside: 0,
                clean_stops: 0,
                log_start_moves: 0,
            },
        })
    }

    fn node(&self) -> &Node {
        self.node.as_ref().expect("between events the node runs")
    }
}

fn broker_config() -> Result<BrokerConfig, String> {
    let set = ["num.recovery.threads.per.data.dir=1", "log.initial.task.delay.ms=1000"];
    let flags = ServeFlags {
        set: set.map(str::to_owned).to_vec(),
        listen: vec!["127.0.0.1:9092".to_owned()],
        data_dir: Some(DATA_DIR.into()),
        ..ServeFlags::default()
    };
    Ok(load(&flags, []).map_err(|error| error.to_string())?.config)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_makes_the_same_run() {
        for seed in 0..4 {
            assert_eq!(run(seed, false), run(seed, false), "seed {seed}");
        }
        assert_ne!(run(0, false).unwrap().digest, run(1, false).unwrap().digest);
    }

    #[test]
    fn runs_find_nothing_and_do_something() {
        let runs: Vec<Summary> = (0..8).map(|seed| run(seed, false).unwrap()).collect();
        let sum = |of: fn(&Summary) -> u64| runs.iter().map(of).sum::<u64>();
        assert!(sum(|run| run.acknowledged) > 0);
        assert!(sum(|run| run.duplicates) > 0);
        assert!(sum(|run| run.crashes_inside) > 0);
        assert!(sum(|run| run.log_start_moves) > 0);
    }
}
