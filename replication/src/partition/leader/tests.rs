//! The leader against a naive twin that keeps every fact and computes the high watermark from scratch; and
//! each rule by itself.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

fn id(id: i32) -> BrokerId {
    BrokerId::new(id).unwrap()
}

fn offset(value: i64) -> Offset {
    Offset::new(value).unwrap()
}

fn broker_epoch(value: i64) -> BrokerEpoch {
    BrokerEpoch::new(value).unwrap()
}

fn at(millis: u64) -> Instant {
    Instant::ZERO.plus(Duration::from_millis(millis))
}

const LAG_MS: u64 = 1000;

fn config() -> LeaderConfig {
    LeaderConfig {
        replica_lag_max: Duration::from_millis(LAG_MS),
        proposal_backoff: Duration::from_millis(50),
        flushes_each_message: false,
    }
}

/// Broker 1 leads; all three are registered under epoch 10 × id.
fn metadata(isr: &[i32], min_isr: usize, partition_epoch: i32) -> LeaderMetadata {
    LeaderMetadata {
        broker_id: id(1),
        leader_epoch: LeaderEpoch::new(5).unwrap(),
        partition_epoch: PartitionEpoch::new(partition_epoch).unwrap(),
        isr: isr.iter().map(|&member| id(member)).collect(),
        effective_min_isr: min_isr,
        recovery_state: LeaderRecoveryState::Recovered,
        replicas: [1, 2, 3]
            .map(|member| ReplicaMetadata {
                broker_id: id(member),
                broker_epoch: Some(broker_epoch(10 * i64::from(member))),
                is_eligible: true,
            })
            .to_vec(),
    }
}

fn log(high_watermark: i64, log_end: i64) -> LeaderLog {
    LeaderLog {
        high_watermark: offset(high_watermark),
        log_end: offset(log_end),
        flushed_end: offset(log_end),
    }
}

fn fetch(follower: i32, fetch_offset: i64) -> FollowerFetch {
    FollowerFetch {
        broker_id: id(follower),
        broker_epoch: Some(broker_epoch(10 * i64::from(follower))),
        fetch_offset: offset(fetch_offset),
        log_start: Offset::ZERO,
    }
}

fn actions(leader: &mut Leader) -> Vec<LeaderAction> {
    std::iter::from_fn(|| leader.poll_action()).collect()
}

fn proposed(actions: &[LeaderAction]) -> Option<Vec<i32>> {
    actions.iter().find_map(|action| match action {
        LeaderAction::ProposeIsr(proposal) => {
            Some(proposal.new_isr.iter().map(|(member, _)| member.value()).collect())
        }
        LeaderAction::AdvanceHighWatermark(_) => None,
    })
}

#[test]
fn a_leader_alone_shows_its_whole_log_at_once_and_depends_on_no_time() {
    let mut alone = metadata(&[1], 1, 0);
    alone.replicas.truncate(1);
    let mut leader = Leader::new(alone, log(3, 7), config(), at(0));
    assert_eq!(actions(&mut leader), [LeaderAction::AdvanceHighWatermark(offset(7))]);
    assert_eq!(leader.poll_timeout(), None);
    leader.handle_append(offset(9), at(1));
    assert_eq!(actions(&mut leader), [LeaderAction::AdvanceHighWatermark(offset(9))]);
}

#[test]
fn where_each_message_is_flushed_only_the_fsynced_end_counts() {
    let mut alone = metadata(&[1], 1, 0);
    alone.replicas.truncate(1);
    let config = LeaderConfig { flushes_each_message: true, ..config() };
    let log = LeaderLog { flushed_end: offset(4), ..log(3, 7) };
    let mut leader = Leader::new(alone, log, config, at(0));
    assert_eq!(leader.snapshot().counted_end, offset(4));
    leader.handle_append(offset(9), at(1));
    assert_eq!(leader.high_watermark(), offset(4));
    leader.handle_flushed(offset(8), at(2));
    assert_eq!((leader.high_watermark(), leader.snapshot().counted_end), (offset(8), offset(8)));
    leader.handle_flushed(offset(6), at(3));
    assert_eq!(leader.high_watermark(), offset(8), "late news changes nothing");
    leader.handle_flush_config(false, at(4));
    assert_eq!(leader.high_watermark(), offset(9));
    leader.handle_flush_config(true, at(5));
    assert_eq!(leader.high_watermark(), offset(9), "what is visible stays visible");
}

#[test]
fn a_new_leader_shows_nothing_new_before_its_isr_has_fetched() {
    let mut leader = Leader::new(metadata(&[1, 2, 3], 2, 0), log(3, 7), config(), at(0));
    assert_eq!(actions(&mut leader), []);
    leader.handle_follower_fetch(&fetch(2, 7), at(1)).unwrap();
    assert_eq!(leader.high_watermark(), offset(3));
    leader.handle_follower_fetch(&fetch(3, 5), at(2)).unwrap();
    assert_eq!(actions(&mut leader), [LeaderAction::AdvanceHighWatermark(offset(5))]);
}

#[test]
fn below_min_isr_the_high_watermark_stays() {
    let mut leader = Leader::new(metadata(&[1], 2, 0), log(3, 7), config(), at(0));
    leader.handle_append(offset(9), at(1));
    assert_eq!(leader.high_watermark(), offset(3));
    leader.handle_metadata(&metadata(&[1], 1, 0), at(2));
    assert_eq!(leader.high_watermark(), offset(9), "the min ISR was lowered");
}

#[test]
fn a_follower_that_has_caught_up_is_proposed_and_holds_the_high_watermark_back() {
    let mut leader = Leader::new(metadata(&[1], 1, 4), log(7, 7), config(), at(0));
    leader.handle_follower_fetch(&fetch(2, 6), at(1)).unwrap();
    assert_eq!(proposed(&actions(&mut leader)), None, "below the start of the epoch");
    leader.handle_follower_fetch(&fetch(2, 7), at(2)).unwrap();
    let proposal = IsrProposal {
        leader_epoch: leader.leader_epoch(),
        partition_epoch: PartitionEpoch::new(4).unwrap(),
        new_isr: vec![(id(1), Some(broker_epoch(10))), (id(2), Some(broker_epoch(20)))],
    };
    assert_eq!(actions(&mut leader), [LeaderAction::ProposeIsr(proposal)]);
    leader.handle_append(offset(9), at(3));
    assert_eq!(leader.high_watermark(), offset(7), "2 may be in the ISR by now");
    leader.handle_follower_fetch(&fetch(3, 9), at(4)).unwrap();
    assert_eq!(proposed(&actions(&mut leader)), None, "one change at a time");
}

#[test]
fn an_accepted_proposal_counts_when_its_image_arrives() {
    let mut leader = Leader::new(metadata(&[1], 1, 0), log(7, 7), config(), at(0));
    leader.handle_follower_fetch(&fetch(2, 7), at(1)).unwrap();
    let epoch = PartitionEpoch::ZERO;
    leader.handle_proposal_outcome(epoch, ProposalOutcome::Accepted, at(2));
    assert_eq!(leader.snapshot().isr_size, 1);
    assert_eq!(leader.snapshot().maximal_isr_size, 2);
    leader.handle_metadata(&metadata(&[1, 2], 1, 1), at(3));
    assert_eq!(leader.snapshot().isr_size, 2);
    assert!(!leader.isr().is_pending());
}

#[test]
fn each_outcome_of_a_proposal_has_its_own_reaction() {
    let pending = || {
        let mut leader = Leader::new(metadata(&[1], 1, 0), log(7, 7), config(), at(0));
        leader.handle_follower_fetch(&fetch(2, 7), at(1)).unwrap();
        leader.handle_append(offset(9), at(1));
        actions(&mut leader);
        leader
    };
    let epoch = PartitionEpoch::ZERO;

    let mut leader = pending();
    leader.handle_proposal_outcome(epoch, ProposalOutcome::Superseded, at(2));
    assert!(leader.isr().is_pending(), "an earlier copy may have been accepted");

    let mut leader = pending();
    let other = PartitionEpoch::new(9).unwrap();
    leader.handle_proposal_outcome(other, ProposalOutcome::Ineligible, at(2));
    assert!(leader.isr().is_pending(), "that was another proposal");
    leader.handle_proposal_outcome(epoch, ProposalOutcome::Ineligible, at(2));
    assert!(!leader.isr().is_pending());

    let mut leader = pending();
    leader.handle_proposal_outcome(epoch, ProposalOutcome::Undecided, at(2));
    leader.handle_timeout(at(51));
    assert_eq!(proposed(&actions(&mut leader)), None, "not yet");
    assert_eq!(leader.poll_timeout(), Some(at(52)));
    leader.handle_timeout(at(52));
    assert_eq!(proposed(&actions(&mut leader)), Some(vec![1, 2]));
}

#[test]
fn a_proposal_is_sent_again_word_for_word() {
    let mut leader = Leader::new(metadata(&[1], 1, 0), log(7, 7), config(), at(0));
    leader.handle_follower_fetch(&fetch(2, 7), at(1)).unwrap();
    let first = actions(&mut leader);
    let mut restarted = metadata(&[1], 1, 0);
    restarted.replicas[1].broker_epoch = Some(broker_epoch(99));
    leader.handle_metadata(&restarted, at(2));
    leader.handle_proposal_outcome(PartitionEpoch::ZERO, ProposalOutcome::Undecided, at(2));
    leader.handle_timeout(at(60));
    assert_eq!(actions(&mut leader), first, "the new process has not caught up with anything");
}

#[test]
fn who_lags_is_proposed_to_leave_and_counts_until_the_image_says_so() {
    let mut leader = Leader::new(metadata(&[1, 2, 3], 1, 0), log(0, 0), config(), at(0));
    leader.handle_append(offset(5), at(10));
    leader.handle_follower_fetch(&fetch(2, 5), at(900)).unwrap();
    leader.handle_follower_fetch(&fetch(3, 3), at(900)).unwrap();
    assert_eq!(leader.high_watermark(), offset(3));
    assert_eq!(leader.poll_timeout(), Some(at(LAG_MS / 2)));
    leader.handle_timeout(at(1000));
    assert_eq!(proposed(&actions(&mut leader)), None, "exactly the allowed lag");
    leader.handle_timeout(at(1500));
    assert_eq!(proposed(&actions(&mut leader)), Some(vec![1, 2]));
    leader.handle_append(offset(6), at(1501));
    leader.handle_follower_fetch(&fetch(2, 6), at(1502)).unwrap();
    assert_eq!(leader.high_watermark(), offset(3), "3 is still in the ISR for all we know");
    leader.handle_metadata(&metadata(&[1, 2], 1, 1), at(1503));
    assert_eq!(leader.high_watermark(), offset(6));
}

#[test]
fn a_follower_always_one_batch_behind_stays_in_sync() {
    let mut leader = Leader::new(metadata(&[1, 2], 1, 0), log(0, 0), config(), at(0));
    for round in 1..50 {
        let now = at(round * 100);
        leader.handle_append(offset(10 * round as i64), now);
        // It has what there was at its fetch before, never what there is now.
        leader.handle_follower_fetch(&fetch(2, 10 * (round as i64 - 1)), now).unwrap();
        leader.handle_timeout(now);
    }
    assert_eq!(proposed(&actions(&mut leader)), None);
}

#[test]
fn strangers_stale_processes_and_impossible_offsets_do_not_count() {
    let mut leader = Leader::new(metadata(&[1, 2], 1, 0), log(0, 5), config(), at(0));
    let error = leader.handle_follower_fetch(&fetch(9, 0), at(1)).unwrap_err();
    assert_eq!(error, FollowerFetchError::NotAReplica { broker_id: id(9) });
    let stale = FollowerFetch { broker_epoch: Some(broker_epoch(19)), ..fetch(2, 5) };
    let (broker_id, found, current) = (id(2), broker_epoch(19), broker_epoch(20));
    let error = leader.handle_follower_fetch(&stale, at(1)).unwrap_err();
    assert_eq!(error, FollowerFetchError::StaleBrokerEpoch { broker_id, found, current });
    let error = leader.handle_follower_fetch(&fetch(2, 6), at(1)).unwrap_err();
    let (requested, log_end) = (offset(6), offset(5));
    assert_eq!(error, FollowerFetchError::OffsetOutOfRange { requested, log_end });
    assert_eq!(leader.high_watermark(), Offset::ZERO);
}

#[test]
fn who_may_not_join_is_not_proposed() {
    let mut fenced = metadata(&[1], 1, 0);
    fenced.replicas[1].is_eligible = false;
    let mut leader = Leader::new(fenced, log(0, 5), config(), at(0));
    leader.handle_follower_fetch(&fetch(2, 5), at(1)).unwrap();
    let newer = FollowerFetch { broker_epoch: Some(broker_epoch(31)), ..fetch(3, 5) };
    leader.handle_follower_fetch(&newer, at(1)).unwrap();
    assert_eq!(
        proposed(&actions(&mut leader)),
        None,
        "fenced, or of a process that our image lacks"
    );
    leader.handle_metadata(&metadata(&[1], 1, 0), at(2));
    leader.handle_follower_fetch(&fetch(2, 5), at(3)).unwrap();
    assert_eq!(proposed(&actions(&mut leader)), Some(vec![1, 2]));
}

#[test]
fn delete_records_waits_for_every_live_replica() {
    let mut leader = Leader::new(metadata(&[1, 2, 3], 1, 0), log(5, 5), config(), at(0));
    assert_eq!(leader.low_watermark(offset(4)), Offset::ZERO);
    for follower in [2, 3] {
        let fetch = FollowerFetch { log_start: offset(i64::from(follower)), ..fetch(follower, 5) };
        leader.handle_follower_fetch(&fetch, at(1)).unwrap();
    }
    assert_eq!(leader.low_watermark(offset(4)), offset(2));
    let mut without_2 = metadata(&[1, 3], 1, 1);
    without_2.replicas[1].is_eligible = false;
    leader.handle_metadata(&without_2, at(2));
    assert_eq!(leader.low_watermark(offset(4)), offset(3));
}

#[derive(Clone, Debug)]
enum Event {
    Append(i64),
    Fetch(i32, i64),
    Isr(Vec<i32>, usize),
    Outcome(u8),
    Time(u64),
}

fn arb_event() -> impl Strategy<Value = Event> {
    prop_oneof![
        (1i64..5).prop_map(Event::Append),
        (2i32..4, 0i64..4).prop_map(|(follower, behind)| Event::Fetch(follower, behind)),
        (proptest::sample::subsequence(vec![2, 3], 0..=2), 1usize..4)
            .prop_map(|(isr, min)| Event::Isr([vec![1], isr].concat(), min)),
        (0u8..4).prop_map(Event::Outcome),
        (1u64..700).prop_map(Event::Time),
    ]
}

/// Keeps every fact; knows no incremental state but the high watermark itself.
struct Twin {
    now: u64,
    log_end: i64,
    high_watermark: i64,
    isr: BTreeSet<i32>,
    min_isr: usize,
    proposal: Option<BTreeSet<i32>>,
    /// (time, follower, offset, log end then)
    fetches: Vec<(u64, i32, i64, i64)>,
}

impl Twin {
    fn end(&self, follower: i32) -> Option<i64> {
        self.fetches.iter().rev().find(|fetch| fetch.1 == follower).map(|fetch| fetch.2)
    }

    /// The latest time at which a fetch proves that the follower had everything there was.
    fn caught_up_at(&self, follower: i32, in_first_isr: bool) -> Option<u64> {
        let mut latest = in_first_isr.then_some(0);
        let mut before: Option<(u64, i64)> = None;
        for &(time, _, at, end) in self.fetches.iter().filter(|fetch| fetch.1 == follower) {
            if at >= end {
                latest = latest.max(Some(time));
            } else if let Some((then, _)) = before.filter(|&(_, end_then)| at >= end_then) {
                latest = latest.max(Some(then));
            }
            before = Some((time, end));
        }
        latest
    }

    fn advance(&mut self) {
        if self.isr.len() < self.min_isr {
            return;
        }
        let mut counted: BTreeSet<i32> = self.isr.clone();
        counted.extend(self.proposal.iter().flatten());
        let mut ends = vec![self.log_end];
        for follower in [2, 3] {
            let end = self.end(follower);
            if counted.contains(&follower) {
                ends.push(end.unwrap_or(self.high_watermark));
            } else if let Some(end) = end {
                let fresh =
                    self.caught_up_at(follower, true).is_some_and(|t| self.now - t <= LAG_MS);
                if fresh || end == self.log_end {
                    ends.push(end);
                }
            }
        }
        let candidate = ends.into_iter().min().unwrap();
        self.high_watermark = self.high_watermark.max(candidate);
    }
}

proptest! {
    #[test]
    fn the_high_watermark_is_what_a_naive_twin_computes(
        events in proptest::collection::vec(arb_event(), 1..80)
    ) {
        let mut partition_epoch = 0;
        let mut leader = Leader::new(metadata(&[1, 2, 3], 2, 0), log(0, 0), config(), at(0));
        let mut twin = Twin {
            now: 0,
            log_end: 0,
            high_watermark: 0,
            isr: BTreeSet::from([1, 2, 3]),
            min_isr: 2,
            proposal: None,
            fetches: Vec::new(),
        };
        for event in events {
            let now = at(twin.now);
            match event {
                Event::Append(count) => {
                    twin.log_end += count;
                    leader.handle_append(offset(twin.log_end), now);
                }
                Event::Fetch(follower, behind) => {
                    let fetch_offset = (twin.log_end - behind).max(0);
                    twin.fetches.push((twin.now, follower, fetch_offset, twin.log_end));
                    leader.handle_follower_fetch(&fetch(follower, fetch_offset), now).unwrap();
                }
                Event::Isr(isr, min_isr) => {
                    partition_epoch += 1;
                    leader.handle_metadata(&metadata(&isr, min_isr, partition_epoch), now);
                    twin.isr = isr.into_iter().collect();
                    (twin.min_isr, twin.proposal) = (min_isr, None);
                }
                Event::Outcome(outcome) => {
                    let outcome = match outcome {
                        0 => ProposalOutcome::Accepted,
                        1 => ProposalOutcome::Superseded,
                        2 => ProposalOutcome::Undecided,
                        _ => {
                            twin.proposal = None;
                            ProposalOutcome::Ineligible
                        }
                    };
                    let epoch = PartitionEpoch::new(partition_epoch).unwrap();
                    leader.handle_proposal_outcome(epoch, outcome, now);
                }
                Event::Time(millis) => {
                    twin.now += millis;
                    leader.handle_timeout(at(twin.now));
                }
            }
            if let Some(isr) = proposed(&actions(&mut leader)) {
                twin.proposal = Some(isr.into_iter().collect());
            }
            twin.advance();
            prop_assert_eq!(leader.high_watermark().value(), twin.high_watermark);
            prop_assert_eq!(leader.isr().committed().len(), twin.isr.len());
            let maximal: BTreeSet<i32> =
                twin.isr.iter().chain(twin.proposal.iter().flatten()).copied().collect();
            prop_assert_eq!(leader.snapshot().maximal_isr_size, maximal.len());
        }
    }
}
