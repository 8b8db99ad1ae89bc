//! The budget alone, by example and against what must hold whatever happens.

use super::*;
use proptest::prelude::*;

fn noop() -> &'static Waker {
    Waker::noop()
}

#[test]
fn an_account_may_hold_as_much_as_it_leaves_free() {
    let mut budget = MemoryBudget::new(Some(100));
    let (one, two) = (budget.open(), budget.open());
    assert_eq!(budget.ask(one, 50, noop()).granted_bytes, 50);
    assert_eq!(budget.ask(two, 25, noop()).granted_bytes, 25);
    let refused = budget.ask(two, 26, noop());
    assert!(refused.turn.is_some(), "nobody else waits, so it takes from the reserve");
    assert_eq!(refused.granted_bytes, 26);
}

#[test]
fn who_was_refused_first_finishes_first_and_the_next_one_after_it_gave_back() {
    let mut budget = MemoryBudget::new(Some(10));
    let [one, two, three] = [(); 3].map(|()| budget.open());
    for id in [one, two, three] {
        budget.ask(id, 100, noop());
    }
    let turns =
        |budget: &MemoryBudget| [one, two, three].map(|id| budget.standing(id).turn.is_some());
    assert_eq!(turns(&budget), [true, false, false]);
    assert_eq!(budget.ask(one, 1000, noop()).granted_bytes, 1000);
    drop(budget.settle(one, 0, Backlog::None, false, noop()));
    assert_eq!(turns(&budget), [false, true, false]);
    assert_eq!(budget.standing(two).granted_bytes, 100);
    drop(budget.close(two));
    assert!(budget.standing(one).turn.is_none() && budget.standing(three).turn.is_some());
}

#[test]
fn answers_past_the_capacity_evict_whose_answers_have_waited_longest() {
    let mut budget = MemoryBudget::new(Some(100));
    let [old, new, receiving, newest] = [(); 4].map(|()| budget.open());
    budget.ask(receiving, 30, noop());
    assert!(budget.settle(old, 40, Backlog::Unread, false, noop()).is_empty());
    assert!(budget.settle(new, 30, Backlog::Unread, false, noop()).is_empty());
    assert_eq!(budget.settle(newest, 20, Backlog::Unread, false, noop()).len(), 1);
    let evicted = [old, new, receiving, newest].map(|id| budget.standing(id).is_evicted);
    assert_eq!(evicted, [true, false, false, false]);
    drop(budget.close(old));
    assert!(
        budget.settle(new, 40, Backlog::Unread, false, noop()).is_empty(),
        "there is room again"
    );
}

#[test]
fn who_is_evicted_is_granted_nothing_more_and_all_that_it_held_comes_back() {
    let mut budget = MemoryBudget::new(Some(100));
    let [asking, large, receiving, newest] = [(); 4].map(|()| budget.open());
    drop(budget.settle(asking, 10, Backlog::Unread, false, noop()));
    drop(budget.settle(large, 90, Backlog::Unread, false, noop()));
    assert!(budget.ask(receiving, 10, noop()).turn.is_some());
    assert_eq!(budget.ask(asking, 20, noop()).granted_bytes, 10);
    assert_eq!(budget.settle(newest, 95, Backlog::Unread, false, noop()).len(), 2);
    assert!(budget.standing(asking).is_evicted && budget.standing(large).is_evicted);
    for id in [large, receiving, newest] {
        drop(budget.close(id));
        assert_eq!(budget.standing(asking).granted_bytes, 10);
    }
    drop(budget.close(asking));
    assert_eq!((budget.used_bytes, budget.evicting_bytes), (0, 0));
}

#[test]
fn without_a_capacity_nobody_is_refused_or_evicted() {
    let mut budget = MemoryBudget::new(None);
    let id = budget.open();
    assert_eq!(budget.ask(id, usize::MAX / 2, noop()).granted_bytes, usize::MAX / 2);
    assert!(budget.settle(id, usize::MAX / 2 + 1, Backlog::Unread, false, noop()).is_empty());
    assert!(!budget.standing(id).is_evicted);
}

#[test]
fn the_turn_passes_when_its_frame_has_come_in_though_that_waits_for_its_answer() {
    let mut budget = MemoryBudget::new(Some(100));
    let (one, two) = (budget.open(), budget.open());
    assert!(budget.ask(one, 80, noop()).turn.is_some());
    assert_eq!(budget.ask(two, 90, noop()).granted_bytes, 0);
    assert!(budget.finish(one).is_some());
    assert_eq!(budget.standing(one).granted_bytes, 80, "of the capacity now");
    assert_eq!(budget.standing(two).granted_bytes, 90, "of the reserve");
    assert_eq!(budget.used_bytes, 80);
}

#[test]
fn a_turn_that_does_not_fit_yet_passes_when_somebody_gives_back_and_is_for_one_frame_meanwhile() {
    let mut budget = MemoryBudget::new(Some(100));
    let [holds, one, two] = [(); 3].map(|()| budget.open());
    budget.ask(holds, 50, noop());
    assert!(budget.ask(one, 80, noop()).turn.is_some());
    budget.ask(two, 90, noop());
    assert!(budget.finish(one).is_none());
    let next_frame = budget.ask(one, 160, noop());
    assert_eq!((next_frame.granted_bytes, next_frame.turn.is_some()), (80, true));
    assert!(next_frame.others_wait, "so it has a deadline");
    assert!(budget.close(holds).len() == 1 && budget.standing(two).turn.is_some());
    assert_eq!(budget.standing(one).granted_bytes, 80);
}

#[test]
fn who_does_not_receive_any_more_gets_no_turn_and_does_not_keep_one() {
    let mut budget = MemoryBudget::new(Some(100));
    let [one, two, three] = [(); 3].map(|()| budget.open());
    for id in [one, two, three] {
        budget.ask(id, 90, noop());
    }
    assert!(budget.settle(two, 0, Backlog::None, false, noop()).is_empty());
    assert!(budget.standing(one).others_wait, "three still waits");
    assert_eq!(budget.settle(one, 90, Backlog::None, false, noop()).len(), 1);
    assert!(budget.standing(three).turn.is_some() && !budget.standing(three).others_wait);
}

#[test]
fn a_paused_turn_goes_on_with_its_frame_where_it_could_not_pass() {
    let mut budget = MemoryBudget::new(Some(10));
    let id = budget.open();
    let first = budget.ask(id, 50, noop());
    drop(budget.settle(id, 50, Backlog::None, false, noop()));
    let again = budget.ask(id, 60, noop());
    assert_eq!((again.granted_bytes, again.turn), (60, first.turn));
}

#[test]
fn who_asks_for_what_it_has_is_not_refused_however_little_is_free() {
    let mut budget = MemoryBudget::new(Some(100));
    let (one, two) = (budget.open(), budget.open());
    budget.ask(one, 50, noop());
    drop(budget.settle(two, 40, Backlog::None, false, noop()));
    let standing = budget.ask(one, 45, noop());
    assert_eq!((standing.granted_bytes, standing.turn), (50, None));
}

#[test]
fn who_reads_its_answers_is_evicted_after_who_does_not() {
    let mut budget = MemoryBudget::new(Some(100));
    let [reads, silent, newest] = [(); 3].map(|()| budget.open());
    drop(budget.settle(reads, 50, Backlog::Unread, false, noop()));
    drop(budget.settle(silent, 50, Backlog::Unread, false, noop()));
    drop(budget.settle(reads, 50, Backlog::BeingRead, false, noop()));
    drop(budget.settle(newest, 10, Backlog::Unread, false, noop()));
    assert!(budget.standing(silent).is_evicted && !budget.standing(reads).is_evicted);
}

/// Something that happens to one of a few accounts.
#[derive(Debug, Clone)]
enum Event {
    Ask(usize),
    Settle(usize, Backlog, bool),
    Finish,
    Reopen,
}

fn events() -> impl Strategy<Value = Vec<(usize, Event)>> {
    let backlog = prop::sample::select(vec![Backlog::None, Backlog::Unread, Backlog::BeingRead]);
    let event = prop_oneof![
        4 => (0usize..80).prop_map(Event::Ask),
        4 => (0usize..80, backlog, any::<bool>()).prop_map(|(bytes, backlog, is_receiving)| {
            Event::Settle(bytes, backlog, is_receiving)
        }),
        1 => Just(Event::Finish),
        1 => Just(Event::Reopen),
    ];
    prop::collection::vec((0usize..5, event), 1..200)
}

fn check(budget: &MemoryBudget) {
    let sum = |bytes: fn(&Account) -> usize| budget.accounts.values().map(bytes).sum::<usize>();
    assert_eq!(budget.used_bytes, sum(|account| account.pooled_bytes));
    let evicting = sum(|account| if account.is_evicted { account.pooled_bytes } else { 0 });
    assert_eq!(budget.evicting_bytes, evicting);
    assert!(budget.turn.is_some() || budget.askers.is_empty(), "refused, and nobody's turn");
    let mut asking = 0;
    for (id, account) in &budget.accounts {
        let turn = budget.turn.as_ref().filter(|turn| turn.id == *id);
        assert!(account.reserved_bytes == 0 || turn.is_some());
        asking += usize::from(account.asks_bytes.is_some());
        let is_done = turn.is_none_or(|turn| turn.stage == Stage::Done);
        assert!(account.asks_bytes.is_none() || is_done && !account.is_evicted);
        assert_eq!(account.asks_bytes.is_some(), budget.askers.contains(id));
        let listed = account.backlog.map(|since| budget.backlogs[&since]);
        assert!(listed.is_none_or(|listed| listed == *id));
    }
    assert_eq!(asking, budget.askers.len());
    let backlogs = budget.accounts.values().filter(|account| account.backlog.is_some());
    assert_eq!(backlogs.count(), budget.backlogs.len());
}

/// Frames of one connection.
#[derive(Debug, Clone)]
struct Sender {
    /// They follow each other without a pause.
    frames: usize,
    frame_bytes: usize,
    /// It stops sending here in its first frame, if that is less.
    stalls_at: usize,
    step: usize,
    /// Its frames wait for their answers, which come when nothing else happens.
    waits: bool,
}

impl Sender {
    fn is_stalled(&self) -> bool {
        self.stalls_at < self.frame_bytes
    }
}

fn senders() -> impl Strategy<Value = Vec<Sender>> {
    let sender = (1usize..4, 1usize..200, any::<Option<u8>>(), 1usize..40, any::<bool>());
    let sender = sender.prop_map(|(frames, frame_bytes, stall, step, waits)| {
        let stalls_at = stall.map_or(frame_bytes, |at| usize::from(at) % frame_bytes);
        Sender { frames, frame_bytes, stalls_at, step, waits }
    });
    prop::collection::vec(sender, 1..40)
}

/// A connection with such frames.
struct Open {
    id: AccountId,
    sender: Sender,
    received: usize,
    /// Of whole frames that wait.
    waiting: usize,
}

proptest! {
    #[test]
    fn the_books_are_right_whatever_happens(events in events(), capacity in 0usize..300) {
        let mut budget = MemoryBudget::new(Some(capacity));
        let mut ids = [(); 5].map(|()| budget.open());
        for (at, event) in events {
            let id = ids[at];
            match event {
                Event::Ask(bytes) => {
                    let standing = budget.ask(id, bytes, noop());
                    let is_known = budget.askers.contains(&id) || standing.is_evicted;
                    prop_assert!(standing.granted_bytes >= bytes || is_known);
                }
                Event::Settle(bytes, backlog, is_receiving) => {
                    drop(budget.settle(id, bytes, backlog, is_receiving, noop()));
                }
                Event::Finish => drop(budget.finish(id)),
                Event::Reopen => {
                    drop(budget.close(id));
                    ids[at] = budget.open();
                }
            }
            check(&budget);
        }
        for id in ids {
            drop(budget.close(id));
            check(&budget);
        }
        prop_assert_eq!((budget.used_bytes, budget.evicting_bytes), (0, 0));
    }

    /// Whoever keeps sending gets its frames through, whatever others claim and leave unsent, and what is held never
    /// passes the capacity and one frame.
    #[test]
    fn every_frame_that_is_sent_whole_arrives(senders in senders(), capacity in 0usize..400, order in any::<u64>()) {
        let mut budget = MemoryBudget::new(Some(capacity));
        let largest = senders.iter().map(|sender| sender.frame_bytes).max().unwrap_or(0);
        let mut open: Vec<Open> = senders
            .into_iter()
            .map(|sender| Open { id: budget.open(), sender, received: 0, waiting: 0 })
            .collect();
        let mut seed = order;
        let mut quiet = 0;
        while open.iter().any(|one| !one.sender.is_stalled()) {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let at = (seed >> 33) as usize % open.len();
            let one = &mut open[at];
            let wanted = if one.sender.frames == 0 { 0 } else {
                one.sender.stalls_at.min(one.received + one.sender.step)
            };
            quiet += 1;
            if wanted > one.received {
                let granted = budget.ask(one.id, one.waiting + wanted, noop()).granted_bytes;
                let now = granted.saturating_sub(one.waiting).min(wanted);
                if now > one.received {
                    (one.received, quiet) = (now, 0);
                }
                if one.received == one.sender.frame_bytes {
                    drop(budget.finish(one.id));
                    one.sender.frames -= 1;
                    if one.sender.waits {
                        one.waiting += one.received;
                    }
                    one.received = 0;
                    let is_receiving = one.sender.frames > 0;
                    drop(budget.settle(one.id, one.waiting, Backlog::None, is_receiving, noop()));
                }
            }
            let held: usize = open.iter().map(|one| one.received + one.waiting).sum();
            prop_assert!(held <= capacity + largest, "{held} bytes are held");
            let one = &open[at];
            if one.sender.frames == 0 && one.waiting == 0 {
                drop(budget.close(one.id));
                open.swap_remove(at);
            } else if quiet > 50 * open.len() {
                quiet = 0;
                check(&budget);
                if let Some(waits) = open.iter_mut().find(|one| one.waiting > 0) {
                    // Its answers come; a frame may be under way behind them.
                    waits.waiting = 0;
                    let is_receiving = waits.sender.frames > 0;
                    drop(budget.settle(waits.id, waits.received, Backlog::None, is_receiving, noop()));
                    continue;
                }
                // Nobody moved for long: only because the turn's sender stopped sending. The deadline closes it.
                let stuck = open.iter().position(|one| budget.standing(one.id).turn.is_some());
                let stuck = stuck.expect("while anybody waits there is a turn");
                prop_assert!(open[stuck].sender.is_stalled());
                drop(budget.close(open[stuck].id));
                open.swap_remove(stuck);
            }
        }
        for one in open {
            drop(budget.close(one.id));
        }
        prop_assert_eq!(budget.used_bytes, 0);
        prop_assert!(budget.turn.is_none() && budget.askers.is_empty());
    }
}
