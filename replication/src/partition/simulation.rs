//! One partition on three brokers: the real controller, leaders and followers, each broker on an image of its
//! own age, in one seeded thread. Brokers are killed, cut off, restarted, wiped of what was not fsynced; the
//! minimum ISR moves up and down. After every step, what was ever visible must be in the log of every member
//! of the ISR and of the ELR; after a heal the partition must be whole again.
//!
//! Eight thousand runs of 800 steps found no loss when this was written; before, they found a proposal that was
//! sent again with a member's *new* broker epoch, and a follower stuck on an epoch without records.
//!
//! Requests are instant and metadata entries commit at once: lost quorums are the quorum's own simulation.

use std::collections::VecDeque;
use std::time::Duration;

use proptest::prelude::*;
use storage::instant::Instant;
use storage::leader_epoch::{LeaderEpoch, LeaderEpochCache};
use storage::offset::Offset;
use storage::topic_partition::TopicId;

use super::acks::RequiredAcks;
use super::epoch_truncation::{
    FetchCheck, OutOfRangeStep, check_current_leader_epoch, check_last_fetched_epoch,
    resolve_out_of_range,
};
use super::follower::{FetchAnswer, FetchStep, Follower};
use super::leader::{
    FollowerFetch, IsrProposal, Leader, LeaderAction, LeaderConfig, LeaderLog, LeaderMetadata,
    ProposalOutcome,
};
use crate::controller::testing::{TestCluster, broker};
use crate::controller::{AlterPartition, AlterPartitionEntry, ConfigTarget};
use crate::identity::{BrokerEpoch, BrokerId};
use crate::metadata::{LeaderRecoveryState, MIN_INSYNC_REPLICAS, MetadataImage};

/// Mistakes that the checks must find.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Planted {
    Nothing,
    /// Truncate to the high watermark on becoming a follower, not by epoch.
    TruncateToHighWatermark,
    /// Take the ISR from the controller's answer, beside an older min ISR.
    IsrFromAnswer,
    /// Call every stop a clean one.
    UncleanStopCalledClean,
}

type Entry = (LeaderEpoch, u64);

enum Role {
    None,
    Leader(Box<Leader>),
    Follower(Follower),
}

struct Broker {
    id: BrokerId,
    /// Its registration, while its process runs.
    epoch: Option<BrokerEpoch>,
    stopped_cleanly: bool,
    /// Index into the images: how far it has applied the metadata.
    seen: usize,
    log: Vec<Entry>,
    epochs: LeaderEpochCache,
    /// What a power cut leaves of the log.
    flushed: usize,
    /// What a restart finds of the high watermark.
    checkpoint: Offset,
    role: Role,
    proposals: VecDeque<IsrProposal>,
}

struct Sim {
    cluster: TestCluster,
    topic_id: TopicId,
    images: Vec<MetadataImage>,
    brokers: Vec<Broker>,
    /// Everything that any leader ever showed.
    visible: Vec<Entry>,
    next_value: u64,
    random: u64,
    power_cuts: bool,
    planted: Planted,
}

const CONFIG: LeaderConfig = LeaderConfig {
    replica_lag_max: Duration::from_secs(1),
    proposal_backoff: Duration::from_millis(50),
    flushes_each_message: false,
};

fn offset(length: usize) -> Offset {
    Offset::new(length as i64).unwrap()
}

impl Sim {
    fn new(seed: u64, power_cuts: bool, planted: Planted) -> Sim {
        let mut cluster = TestCluster::with(|config| config.min_insync_replicas = 2);
        for id in [1, 2, 3] {
            cluster.start(id, false);
        }
        let topic_id = cluster.create("t", &[1, 2, 3], &[]);
        let image = cluster.image().clone();
        let brokers = [1, 2, 3].map(|id| Broker {
            id: broker(id),
            epoch: image.broker(broker(id)).map(|b| b.broker_epoch),
            stopped_cleanly: false,
            seen: 0,
            log: Vec::new(),
            epochs: LeaderEpochCache::new(),
            flushed: 0,
            checkpoint: Offset::ZERO,
            role: Role::None,
            proposals: VecDeque::new(),
        });
        let mut sim = Sim {
            cluster,
            topic_id,
            images: vec![image],
            brokers: brokers.into(),
            visible: Vec::new(),
            next_value: 0,
            random: seed | 1,
            power_cuts,
            planted,
        };
        for place in 0..3 {
            sim.take_role(place);
        }
        sim
    }

    /// xorshift64*.
    fn random(&mut self, below: usize) -> usize {
        self.random ^= self.random >> 12;
        self.random ^= self.random << 25;
        self.random ^= self.random >> 27;
        (self.random.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % below
    }

    fn now(&self) -> Instant {
        self.cluster.now
    }

    /// After the controller decided: everyone will come to see it.
    fn publish(&mut self) {
        let image = self.cluster.image().clone();
        if self.images.last() != Some(&image) {
            // The controller's registration and election come in one image.
            self.images.push(image);
        }
        let partition = self.cluster.partition(self.topic_id);
        if let Some(leader) = partition.leader
            && partition.recovery_state == LeaderRecoveryState::Recovering
            && self.power_cuts
        {
            // An election that is known to be unclean: what the leader lacks is lost, and was promised to
            // nobody who looked at the settings.
            let log = &self.brokers.iter().find(|b| b.id == leader).unwrap().log;
            let same = log.iter().zip(&self.visible).take_while(|(a, b)| a == b).count();
            self.visible.truncate(same);
        }
    }

    fn step(&mut self) {
        self.cluster.now = self.now().plus(Duration::from_millis(self.random(40) as u64));
        let place = self.random(3);
        match self.random(400) {
            0..80 => self.produce(place),
            80..220 => self.fetch(place),
            220..310 => self.apply_metadata(place, 2),
            310..360 => self.propose(place),
            360..370 => self.tick(place),
            370..372 => self.stop(place),
            372..374 => self.session_end(place),
            374..380 => self.restart(place),
            380..393 => self.heartbeat(place),
            393..394 => self.controlled_shutdown(place),
            394..396 => self.change_min_isr(),
            396..399 => self.checkpoint(place),
            _ => self.cluster.now = self.now().plus(Duration::from_millis(700)),
        }
        self.drain();
        self.check();
    }

    fn produce(&mut self, place: usize) {
        let now = self.now();
        let value = self.next_value;
        let broker = &mut self.brokers[place];
        let Role::Leader(leader) = &mut broker.role else { return };
        if RequiredAcks::All.admit(&leader.snapshot()).is_err() && !value.is_multiple_of(4) {
            return; // some producers send with acks=1
        }
        self.next_value += 1;
        broker.log.push((leader.leader_epoch(), value));
        leader.handle_append(offset(broker.log.len()), now);
    }

    /// Follower `place` fetches from whom it believes to lead.
    fn fetch(&mut self, place: usize) {
        let now = self.now();
        let batch = 1 + self.random(4);
        let Role::Follower(follower) = &self.brokers[place].role else { return };
        let Some(asked) = follower.next_fetch(&self.brokers[place].epochs) else { return };
        let leader_id = follower.leader().unwrap();
        let target = self.brokers.iter().position(|b| b.id == leader_id).unwrap();
        let [target, own] = self.brokers.get_disjoint_mut([target, place]).unwrap();
        let (Role::Leader(leader), Role::Follower(follower)) = (&mut target.role, &mut own.role)
        else {
            return;
        };
        if check_current_leader_epoch(leader.leader_epoch(), Some(asked.leader_epoch)).is_err() {
            return;
        }
        let log_end = offset(target.log.len());
        let check = check_last_fetched_epoch(
            &target.epochs,
            log_end,
            asked.fetch_offset,
            asked.last_fetched_epoch,
        );
        let fetch = FollowerFetch {
            broker_id: own.id,
            broker_epoch: own.epoch,
            fetch_offset: asked.fetch_offset,
            log_start: Offset::ZERO,
        };
        let mut records = Vec::new();
        let mut answer = FetchAnswer { high_watermark: None, log_start: None, diverging: None };
        match check {
            Ok(FetchCheck::Agrees) => match leader.handle_follower_fetch(&fetch, now) {
                Ok(()) => {
                    let from = asked.fetch_offset.value() as usize;
                    records = target.log.iter().copied().skip(from).take(batch).collect();
                    answer.high_watermark = Some(leader.high_watermark());
                }
                Err(super::leader::FollowerFetchError::OffsetOutOfRange { .. }) => {
                    let end = offset(own.log.len());
                    if let OutOfRangeStep::TruncateTo(to) =
                        resolve_out_of_range(end, Offset::ZERO, log_end)
                    {
                        own.truncate(to);
                    }
                    return;
                }
                Err(_) => return,
            },
            Ok(FetchCheck::Diverges(end)) => answer.diverging = Some(end),
            Err(_) => return,
        }
        match follower.handle_fetch_answer(&asked, &answer, &own.epochs) {
            FetchStep::Append { .. } => {
                for record in records {
                    own.epochs.assign(record.0, offset(own.log.len()));
                    own.log.push(record);
                }
                follower.handle_appended(offset(own.log.len()));
            }
            FetchStep::Truncate(to) => own.truncate(to),
            FetchStep::Ignore | FetchStep::Nonsense => {
                panic!("an instant answer fits: {asked:?} {answer:?}")
            }
        }
    }

    /// Broker `place` applies up to `count` more entries.
    fn apply_metadata(&mut self, place: usize, count: usize) {
        if self.brokers[place].epoch.is_none() {
            return;
        }
        for _ in 0..count {
            if self.brokers[place].seen + 1 < self.images.len() {
                self.brokers[place].seen += 1;
                self.take_role(place);
                self.drain_one(place);
            }
        }
    }

    fn take_role(&mut self, place: usize) {
        let now = self.cluster.now;
        let image = &self.images[self.brokers[place].seen];
        let own = &mut self.brokers[place];
        // No role before its own registration.
        if image.broker(own.id).map(|b| b.broker_epoch) != own.epoch {
            return;
        }
        let partition = image.partition(self.topic_id, 0).unwrap();
        let known = match &own.role {
            Role::None => None,
            Role::Leader(leader) => Some(leader.leader_epoch()),
            Role::Follower(follower) => Some(follower.leader_epoch()),
        };
        let metadata = LeaderMetadata::from_image(image, self.topic_id, 0, own.id);
        let log_end = offset(own.log.len());
        match (&mut own.role, metadata) {
            (Role::Leader(leader), Some(metadata)) if known == Some(metadata.leader_epoch) => {
                if self.planted == Planted::IsrFromAnswer
                    && metadata.partition_epoch < leader.partition_epoch()
                {
                    return;
                }
                leader.handle_metadata(&metadata, now);
            }
            (role, Some(metadata)) => {
                let high_watermark = role.high_watermark().unwrap_or(own.checkpoint);
                own.epochs.assign(metadata.leader_epoch, log_end);
                own.proposals.clear();
                let log = LeaderLog { high_watermark, log_end, flushed_end: log_end };
                own.role = Role::Leader(Box::new(Leader::new(metadata, log, CONFIG, now)));
            }
            (_, None) if known == Some(partition.leader_epoch) => {}
            (role, None) => {
                let high_watermark = role.high_watermark().unwrap_or(own.checkpoint);
                own.proposals.clear();
                let mut log_end = log_end;
                if self.planted == Planted::TruncateToHighWatermark {
                    own.truncate(high_watermark);
                    log_end = offset(own.log.len());
                }
                own.role = Role::Follower(Follower::new(
                    partition.leader,
                    partition.leader_epoch,
                    log_end,
                    log_end,
                    high_watermark,
                    false,
                ));
            }
        }
    }

    /// The oldest proposal of `place` reaches the controller, or does not, or its answer is lost.
    fn propose(&mut self, place: usize) {
        let now = self.now();
        let fate = self.random(10);
        let own = &mut self.brokers[place];
        let (Some(proposal), Some(broker_epoch)) = (own.proposals.pop_front(), own.epoch) else {
            return;
        };
        let mut outcome = ProposalOutcome::Undecided;
        let mut answered = None;
        if fate > 0 {
            let request = AlterPartition {
                broker_id: own.id,
                broker_epoch,
                partitions: vec![AlterPartitionEntry {
                    topic_id: self.topic_id,
                    partition: 0,
                    leader_epoch: proposal.leader_epoch,
                    partition_epoch: proposal.partition_epoch,
                    new_isr: proposal.new_isr.clone(),
                    recovery_state: LeaderRecoveryState::Recovered,
                }],
            };
            if let Ok(decided) = self.cluster.controller.alter_partition(&request) {
                let result = self.cluster.commit(decided).remove(0).result;
                self.publish();
                outcome = match &result {
                    _ if fate == 1 => ProposalOutcome::Undecided, // the answer is lost
                    Ok(_) => ProposalOutcome::Accepted,
                    Err(error) => ProposalOutcome::from(error),
                };
                answered = result.ok();
            }
        }
        let image = &self.images[self.brokers[place].seen];
        let metadata = LeaderMetadata::from_image(image, self.topic_id, 0, self.brokers[place].id);
        let Role::Leader(leader) = &mut self.brokers[place].role else { return };
        leader.handle_proposal_outcome(proposal.partition_epoch, outcome, now);
        if self.planted == Planted::IsrFromAnswer
            && let (Some(answered), Some(mut metadata)) = (answered, metadata)
            && metadata.leader_epoch == answered.leader_epoch
        {
            metadata.isr = answered.isr;
            metadata.partition_epoch = answered.partition_epoch;
            leader.handle_metadata(&metadata, now);
        }
    }

    fn tick(&mut self, place: usize) {
        let now = self.now();
        if let Role::Leader(leader) = &mut self.brokers[place].role
            && leader.poll_timeout().is_some_and(|at| at <= now)
        {
            leader.handle_timeout(now);
        }
    }

    fn stop(&mut self, place: usize) {
        let cut = self.power_cuts && self.random(2) == 0;
        let own = &mut self.brokers[place];
        own.epoch = None;
        own.stopped_cleanly = false;
        own.role = Role::None;
        own.proposals.clear();
        if cut {
            own.truncate(offset(own.flushed));
        }
    }

    /// The controller has not heard of a dead broker for a whole session, or wrongly believes so.
    fn session_end(&mut self, place: usize) {
        let id = self.brokers[place].id;
        let Some(registration) = self.cluster.image().broker(id) else { return };
        let epoch = registration.broker_epoch;
        if self.brokers[place].epoch.is_some() && self.random(4) > 0 {
            return;
        }
        let decided = self.cluster.controller.fence_broker(id, epoch).unwrap();
        self.cluster.commit(decided);
        self.publish();
    }

    fn restart(&mut self, place: usize) {
        if self.brokers[place].epoch.is_some() {
            return;
        }
        let clean =
            self.brokers[place].stopped_cleanly || self.planted == Planted::UncleanStopCalledClean;
        let id = self.brokers[place].id.value();
        let epoch = self.cluster.register(id, clean);
        let own = &mut self.brokers[place];
        own.epoch = Some(epoch);
        own.flushed = own.log.len(); // recovery fsyncs what it keeps
        self.publish();
    }

    fn heartbeat(&mut self, place: usize) {
        let (Some(epoch), seen) = (self.brokers[place].epoch, self.brokers[place].seen) else {
            return;
        };
        let mut heartbeat = self.cluster.heartbeat(self.brokers[place].id.value());
        if heartbeat.broker_epoch != epoch {
            return;
        }
        heartbeat.metadata_index = self.images[seen].position().index;
        self.cluster.beat(heartbeat);
        self.publish();
    }

    fn controlled_shutdown(&mut self, place: usize) {
        let id = self.brokers[place].id;
        if self.brokers[place].epoch.is_none() || !self.cluster.image().is_active(id) {
            return;
        }
        self.cluster.shut_down(id.value());
        self.publish();
        self.stop_cleanly(place);
    }

    fn stop_cleanly(&mut self, place: usize) {
        let own = &mut self.brokers[place];
        own.flushed = own.log.len();
        own.checkpoint = own.role.high_watermark().unwrap_or(own.checkpoint);
        own.epoch = None;
        own.stopped_cleanly = true;
        own.role = Role::None;
        own.proposals.clear();
    }

    fn change_min_isr(&mut self) {
        let value = (1 + self.random(3)).to_string();
        self.cluster.set_config(ConfigTarget::Cluster, MIN_INSYNC_REPLICAS, &value);
        self.publish();
    }

    fn checkpoint(&mut self, place: usize) {
        let own = &mut self.brokers[place];
        own.checkpoint = own.role.high_watermark().unwrap_or(own.checkpoint);
        own.flushed = own.log.len();
    }

    fn drain(&mut self) {
        for place in 0..3 {
            self.drain_one(place);
        }
    }

    fn drain_one(&mut self, place: usize) {
        let own = &mut self.brokers[place];
        let Role::Leader(leader) = &mut own.role else { return };
        while let Some(action) = leader.poll_action() {
            match action {
                LeaderAction::ProposeIsr(proposal) => own.proposals.push_back(proposal),
                LeaderAction::AdvanceHighWatermark(to) => {
                    let shown = &own.log[..to.value() as usize];
                    let both = shown.len().min(self.visible.len());
                    assert_eq!(shown[..both], self.visible[..both], "what was visible has changed");
                    self.visible.extend_from_slice(&shown[both..]);
                }
            }
        }
    }

    fn check(&self) {
        let partition = self.cluster.partition(self.topic_id);
        for own in &self.brokers {
            let is_seated = partition.isr.contains(&own.id) || partition.elr.contains(&own.id);
            // A dead process may have lost its seat in truth; it cannot use it before it registers.
            let is_dead = own.epoch.is_none() && !own.stopped_cleanly;
            if is_seated && !(is_dead && self.power_cuts) {
                let held = own.log.len().min(self.visible.len());
                assert_eq!(own.log[..held], self.visible[..held], "{} parts from it", own.id);
                assert!(
                    held == self.visible.len(),
                    "{} lacks visible records: {partition:?}",
                    own.id
                );
            }
        }
    }

    /// Everything works from now on.
    fn heal(&mut self) {
        for _ in 0..60 {
            self.cluster.now = self.now().plus(Duration::from_millis(100));
            for place in 0..3 {
                self.restart(place);
                self.apply_metadata(place, self.images.len());
                self.heartbeat(place);
                self.fetch(place);
                self.tick(place);
                while !self.brokers[place].proposals.is_empty() {
                    self.propose(place);
                    self.drain();
                }
                self.drain();
                self.check();
            }
            // Long logs are fetched a few records a time.
            for _ in 0..30 {
                for place in 0..3 {
                    self.fetch(place);
                    self.drain();
                }
            }
        }
        let partition = self.cluster.partition(self.topic_id);
        if self.power_cuts && partition.leader.is_none() {
            return; // nobody may lead what was lost
        }
        assert_eq!(partition.isr.len(), 3, "after a heal all are in sync: {partition:?}");
        for own in &self.brokers {
            assert_eq!(
                own.log.len(),
                self.visible.len(),
                "after a heal all is visible on {}: {partition:?} {:?}",
                own.id,
                self.leaders()
            );
        }
    }

    fn leaders(&self) -> Vec<(BrokerId, super::acks::LeaderSnapshot, super::isr::Isr)> {
        let leader = |own: &Broker| match &own.role {
            Role::Leader(leader) => Some((own.id, leader.snapshot(), leader.isr().clone())),
            Role::Follower(_) | Role::None => None,
        };
        self.brokers.iter().filter_map(leader).collect()
    }

    fn run(seed: u64, steps: usize, power_cuts: bool, planted: Planted) -> usize {
        let mut sim = Sim::new(seed, power_cuts, planted);
        for _ in 0..steps {
            sim.step();
        }
        if planted == Planted::Nothing {
            sim.heal();
        }
        sim.visible.len()
    }
}

impl Role {
    fn high_watermark(&self) -> Option<Offset> {
        match self {
            Role::None => None,
            Role::Leader(leader) => Some(leader.high_watermark()),
            Role::Follower(follower) => Some(follower.high_watermark()),
        }
    }
}

impl Broker {
    fn truncate(&mut self, to: Offset) {
        let length = (to.value() as usize).min(self.log.len());
        self.log.truncate(length);
        self.flushed = self.flushed.min(length);
        self.epochs.truncate_from_end(offset(length));
        self.checkpoint = self.checkpoint.min(offset(length));
        if let Role::Follower(follower) = &mut self.role {
            follower.handle_truncated(offset(length));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn nothing_visible_is_lost_while_processes_are_killed(seed: u64) {
        Sim::run(seed, 600, false, Planted::Nothing);
    }

    #[test]
    fn nothing_visible_is_lost_to_power_cuts_but_in_elections_that_say_so(seed: u64) {
        Sim::run(seed, 600, true, Planted::Nothing);
    }
}

#[test]
fn the_simulation_makes_records_visible() {
    let visible: usize =
        (0..20).map(|seed| Sim::run(seed * 7919 + 1, 1000, false, Planted::Nothing)).sum();
    assert!(visible > 400, "only {visible} records in 20 runs");
}

#[test]
fn planted_bugs_are_caught() {
    for planted in
        [Planted::TruncateToHighWatermark, Planted::IsrFromAnswer, Planted::UncleanStopCalledClean]
    {
        let caught = (0..3_000u64).find(|seed| {
            let run = move || Sim::run(seed * 6151 + 11, 600, true, planted);
            std::panic::catch_unwind(run).is_err()
        });
        assert!(caught.is_some(), "{planted:?} was not caught");
    }
}
