//! The memory that all connections hold together: request bytes that have come in, requests that wait for their answers,
//! and answers that wait to be written. Pure: no clock, no socket; wakers are only carried.
//!
//! Each connection may hold [`UNCOUNTED_BYTES`] freely, so that small requests never come here. What it holds beyond is
//! counted against `capacity_bytes` (`queued.max.request.bytes`):
//!
//! - **Receiving asks first**, and a refusal is backpressure: the socket is not read. An account may grow while it holds
//!   no more than what stays free, so that the last account to come always finds room: `n` accounts that take all they can
//!   get leave about `capacity / (n + 1)` free.
//! - **One account at a time is the finisher**: whoever was refused first may take what its frame needs from a reserve of
//!   one largest frame (`socket.request.max.bytes`), until it gives bytes back.
//! - **Answers do not ask**, since the work is done. If they pass the capacity, the accounts are evicted whose answers
//!   have waited longest to be read.
//!
//! Invariants
//! - Counted bytes are at most the capacity, plus the reserve, plus one answer for each thread that makes them.
//! - No deadlock: while anybody is refused somebody is the finisher, and the finisher is never refused. Its frame
//!   completes, or its connection is closed at a deadline; both give bytes back, which makes the next one the finisher.

use std::collections::{BTreeMap, VecDeque};
use std::task::Waker;

/// What one connection may hold without being counted.
pub const UNCOUNTED_BYTES: usize = 64 * 1024;

/// Names an account; never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AccountId(u64);

#[derive(Debug, Default)]
struct Account {
    /// Taken from the capacity.
    pooled_bytes: usize,
    /// Taken from the reserve; only the finisher's is not zero.
    reserved_bytes: usize,
    /// It was refused, and waits in `askers` to hold this much.
    asks_bytes: Option<usize>,
    /// Since when its answers wait: its key in `backlogs`.
    backlog: Option<u64>,
    is_evicted: bool,
    waker: Option<Waker>,
}

impl Account {
    fn counted_bytes(&self) -> usize {
        self.pooled_bytes + self.reserved_bytes
    }
}

/// How an account stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// What it may hold, counted bytes.
    pub granted_bytes: usize,
    /// It holds the right to finish: its frame must come in soon.
    pub is_finisher: bool,
    /// Its connection must be closed.
    pub is_evicted: bool,
}

/// The accounts of all connections that hold more than [`UNCOUNTED_BYTES`].
#[derive(Debug)]
pub struct MemoryBudget {
    /// `None` is without a limit.
    capacity_bytes: Option<usize>,
    used_bytes: usize,
    /// Of `used_bytes`, what evicted accounts will give back.
    evicting_bytes: usize,
    accounts: BTreeMap<AccountId, Account>,
    askers: VecDeque<AccountId>,
    finisher: Option<AccountId>,
    /// Oldest first.
    backlogs: BTreeMap<u64, AccountId>,
    next_number: u64,
}

impl MemoryBudget {
    /// An empty budget; `None` counts without ever refusing.
    pub fn new(capacity_bytes: Option<usize>) -> MemoryBudget {
        MemoryBudget {
            capacity_bytes,
            used_bytes: 0,
            evicting_bytes: 0,
            accounts: BTreeMap::new(),
            askers: VecDeque::new(),
            finisher: None,
            backlogs: BTreeMap::new(),
            next_number: 0,
        }
    }

    /// An account that holds nothing.
    pub fn open(&mut self) -> AccountId {
        let id = AccountId(self.number());
        self.accounts.insert(id, Account::default());
        id
    }

    /// Asks to hold `counted_bytes` in all. A refused account is remembered, and `waker` woken once it was granted.
    pub fn ask(&mut self, id: AccountId, counted_bytes: usize, waker: &Waker) -> Standing {
        let is_finisher = self.finisher == Some(id);
        let account = self.accounts.get_mut(&id).expect("an account is closed once");
        let more = counted_bytes.saturating_sub(account.counted_bytes());
        if more == 0 {
            return self.standing(id);
        }
        if is_finisher {
            account.reserved_bytes += more;
        } else if fits(self.capacity_bytes, self.used_bytes, account.pooled_bytes, more) {
            self.take(id, more);
        } else {
            account.waker = Some(waker.clone());
            if account.asks_bytes.replace(counted_bytes).is_none() {
                self.askers.push_back(id);
            }
            // Of nobody else's news: had there been no finisher, nobody else would ask.
            drop(self.next_finisher());
        }
        self.standing(id)
    }

    /// Says what the account really holds, more or less than it was granted, and whether answers are part of it that wait
    /// to be written. Returns whom to wake: those who may go on, and those who were evicted (`waker` among them).
    #[must_use = "whoever waits for memory must be woken"]
    pub fn settle(
        &mut self,
        id: AccountId,
        counted_bytes: usize,
        has_backlog: bool,
        waker: &Waker,
    ) -> Vec<Waker> {
        self.set_backlog(id, has_backlog, waker);
        let account = self.accounts.get_mut(&id).expect("an account is closed once");
        let had = account.counted_bytes();
        if counted_bytes > had {
            self.take(id, counted_bytes - had);
            return self.evict();
        }
        self.give_back(id, had - counted_bytes)
    }

    /// Gives back everything. Returns whom to wake.
    #[must_use = "whoever waits for memory must be woken"]
    pub fn close(&mut self, id: AccountId) -> Vec<Waker> {
        let account = self.accounts.get_mut(&id).expect("an account is closed once");
        let held = account.counted_bytes();
        if account.asks_bytes.take().is_some() {
            self.askers.retain(|asker| *asker != id);
        }
        if let Some(backlog) = account.backlog.take() {
            self.backlogs.remove(&backlog);
        }
        let mut woken = self.give_back(id, held);
        self.accounts.remove(&id);
        if self.finisher == Some(id) {
            self.finisher = None;
            woken.extend(self.next_finisher());
        }
        woken
    }

    /// How the account stands now.
    pub fn standing(&self, id: AccountId) -> Standing {
        let account = &self.accounts[&id];
        Standing {
            granted_bytes: account.counted_bytes(),
            is_finisher: self.finisher == Some(id),
            is_evicted: account.is_evicted,
        }
    }

    fn number(&mut self) -> u64 {
        self.next_number += 1;
        self.next_number
    }

    fn take(&mut self, id: AccountId, bytes: usize) {
        let account = self.accounts.get_mut(&id).expect("an account is closed once");
        account.pooled_bytes += bytes;
        self.used_bytes += bytes;
        if account.is_evicted {
            self.evicting_bytes += bytes;
        }
    }

    fn set_backlog(&mut self, id: AccountId, has_backlog: bool, waker: &Waker) {
        let number = self.number();
        let account = self.accounts.get_mut(&id).expect("an account is closed once");
        match (has_backlog, account.backlog) {
            (true, None) => {
                account.backlog = Some(number);
                self.backlogs.insert(number, id);
            }
            (false, Some(backlog)) => {
                account.backlog = None;
                self.backlogs.remove(&backlog);
            }
            _ => {}
        }
        if has_backlog {
            account.waker = Some(waker.clone());
        }
    }

    /// Marks accounts with a backlog, oldest first, until what they will give back is enough. They get nothing more.
    fn evict(&mut self) -> Vec<Waker> {
        let Some(capacity) = self.capacity_bytes else { return Vec::new() };
        let mut woken = Vec::new();
        while self.used_bytes - self.evicting_bytes > capacity {
            let Some((_, id)) = self.backlogs.pop_first() else { break };
            let account = self.accounts.get_mut(&id).expect("backlogs name only open accounts");
            account.backlog = None;
            if !account.is_evicted {
                account.is_evicted = true;
                self.evicting_bytes += account.pooled_bytes;
                woken.extend(account.waker.clone());
                if account.asks_bytes.take().is_some() {
                    self.askers.retain(|asker| *asker != id);
                }
            }
        }
        woken
    }

    fn give_back(&mut self, id: AccountId, bytes: usize) -> Vec<Waker> {
        if bytes == 0 {
            return Vec::new();
        }
        let account = self.accounts.get_mut(&id).expect("an account is closed once");
        // The reserve first: it is what others wait for.
        let of_reserve = bytes.min(account.reserved_bytes);
        account.reserved_bytes -= of_reserve;
        account.pooled_bytes -= bytes - of_reserve;
        self.used_bytes -= bytes - of_reserve;
        if account.is_evicted {
            self.evicting_bytes -= bytes - of_reserve;
        }
        if self.finisher == Some(id) && account.reserved_bytes == 0 {
            self.finisher = None;
        }
        let mut woken = self.grant();
        woken.extend(self.next_finisher());
        woken
    }

    /// Grants what fits, in the order of asking, passing over those that do not.
    fn grant(&mut self) -> Vec<Waker> {
        let mut woken = Vec::new();
        let (capacity, used, accounts) =
            (self.capacity_bytes, &mut self.used_bytes, &mut self.accounts);
        self.askers.retain(|id| {
            let account = accounts.get_mut(id).expect("askers are open accounts");
            let asked = account.asks_bytes.expect("askers ask");
            let more = asked.saturating_sub(account.counted_bytes());
            let is_granted = fits(capacity, *used, account.pooled_bytes, more);
            if is_granted {
                account.asks_bytes = None;
                account.pooled_bytes += more;
                *used += more;
                woken.extend(account.waker.clone());
            }
            !is_granted
        });
        woken
    }

    fn next_finisher(&mut self) -> Option<Waker> {
        if self.finisher.is_some() {
            return None;
        }
        let id = self.askers.pop_front()?;
        let account = self.accounts.get_mut(&id).expect("askers are open accounts");
        let asked = account.asks_bytes.take().expect("askers ask");
        account.reserved_bytes += asked.saturating_sub(account.counted_bytes());
        self.finisher = Some(id);
        account.waker.clone()
    }
}

/// Whether an account of `pooled` bytes may take `more`: it then holds no more than what stays free.
fn fits(capacity: Option<usize>, used: usize, pooled: usize, more: usize) -> bool {
    let Some(capacity) = capacity else { return true };
    pooled.saturating_add(more) <= capacity.saturating_sub(used).saturating_sub(more)
}

#[cfg(test)]
mod tests {
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
        assert!(refused.is_finisher, "nobody else waits, so it takes from the reserve");
        assert_eq!(refused.granted_bytes, 26);
    }

    #[test]
    fn who_was_refused_first_finishes_first_and_the_next_one_after_it_gave_back() {
        let mut budget = MemoryBudget::new(Some(10));
        let [one, two, three] = [(); 3].map(|()| budget.open());
        for id in [one, two, three] {
            budget.ask(id, 100, noop());
        }
        let finishers =
            |budget: &MemoryBudget| [one, two, three].map(|id| budget.standing(id).is_finisher);
        assert_eq!(finishers(&budget), [true, false, false]);
        assert_eq!(budget.ask(one, 1000, noop()).granted_bytes, 1000);
        drop(budget.settle(one, 0, false, noop()));
        assert_eq!(finishers(&budget), [false, true, false]);
        assert_eq!(budget.standing(two).granted_bytes, 100);
        drop(budget.close(two));
        assert!(!budget.standing(one).is_finisher && budget.standing(three).is_finisher);
    }

    #[test]
    fn answers_past_the_capacity_evict_whose_answers_have_waited_longest() {
        let mut budget = MemoryBudget::new(Some(100));
        let [old, new, receiving, newest] = [(); 4].map(|()| budget.open());
        budget.ask(receiving, 30, noop());
        assert!(budget.settle(old, 40, true, noop()).is_empty());
        assert!(budget.settle(new, 30, true, noop()).is_empty());
        assert_eq!(budget.settle(newest, 20, true, noop()).len(), 1);
        let evicted = [old, new, receiving, newest].map(|id| budget.standing(id).is_evicted);
        assert_eq!(evicted, [true, false, false, false]);
        drop(budget.close(old));
        assert!(budget.settle(new, 40, true, noop()).is_empty(), "there is room again");
    }

    #[test]
    fn who_is_evicted_is_granted_nothing_more_and_all_that_it_held_comes_back() {
        let mut budget = MemoryBudget::new(Some(100));
        let [asking, large, finisher, newest] = [(); 4].map(|()| budget.open());
        drop(budget.settle(asking, 10, true, noop()));
        drop(budget.settle(large, 90, true, noop()));
        assert!(budget.ask(finisher, 10, noop()).is_finisher);
        assert_eq!(budget.ask(asking, 20, noop()).granted_bytes, 10);
        assert_eq!(budget.settle(newest, 95, true, noop()).len(), 2);
        assert!(budget.standing(asking).is_evicted && budget.standing(large).is_evicted);
        for id in [large, finisher, newest] {
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
        assert!(budget.settle(id, usize::MAX / 2 + 1, true, noop()).is_empty());
        assert!(!budget.standing(id).is_evicted);
    }

    /// A frame on its way in.
    #[derive(Debug, Clone)]
    struct Sender {
        frame_bytes: usize,
        /// It stops sending here.
        stalls_at: usize,
        step: usize,
    }

    fn senders() -> impl Strategy<Value = Vec<Sender>> {
        let sender = (1usize..200, any::<Option<u8>>(), 1usize..40).prop_map(
            |(frame_bytes, stall, step)| {
                let stalls_at = stall.map_or(frame_bytes, |at| usize::from(at) % frame_bytes);
                Sender { frame_bytes, stalls_at, step }
            },
        );
        prop::collection::vec(sender, 1..40)
    }

    proptest! {
        /// Whoever keeps sending gets its frame through, whatever others claim and leave unsent, and what is held never
        /// passes the capacity and one frame.
        #[test]
        fn every_frame_that_is_sent_whole_arrives(senders in senders(), capacity in 0usize..400, order in any::<u64>()) {
            let mut budget = MemoryBudget::new(Some(capacity));
            let mut open: Vec<(AccountId, Sender, usize)> =
                senders.into_iter().map(|sender| (budget.open(), sender, 0)).collect();
            let largest = open.iter().map(|(_, sender, _)| sender.frame_bytes).max().unwrap_or(0);
            let mut seed = order;
            let mut unfinished = open.iter().filter(|(_, sender, _)| sender.stalls_at == sender.frame_bytes).count();
            let mut quiet = 0;
            while unfinished > 0 {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                let at = (seed >> 33) as usize % open.len();
                let (id, sender, received) = &mut open[at];
                let id = *id;
                let wanted = sender.stalls_at.min(*received + sender.step);
                if wanted > *received {
                    let granted = budget.ask(id, wanted, noop()).granted_bytes;
                    let now = granted.min(wanted);
                    quiet = if now > *received { 0 } else { quiet + 1 };
                    *received = now;
                } else {
                    quiet += 1;
                }
                let held: usize = open.iter().map(|(_, _, received)| received).sum();
                prop_assert!(held <= capacity + largest, "{held} bytes are held");
                if open[at].1.frame_bytes == open[at].2 {
                    drop(budget.close(id));
                    open.swap_remove(at);
                    unfinished -= 1;
                } else if quiet > 50 * open.len() {
                    // Nobody moved for long: only because the finisher stopped sending. The deadline closes it.
                    let stuck = open.iter().position(|(id, ..)| budget.standing(*id).is_finisher);
                    let stuck = stuck.expect("while anybody waits there is a finisher");
                    prop_assert!(open[stuck].1.stalls_at < open[stuck].1.frame_bytes);
                    drop(budget.close(open[stuck].0));
                    open.swap_remove(stuck);
                    quiet = 0;
                }
            }
            for (id, ..) in open {
                drop(budget.close(id));
            }
            prop_assert_eq!(budget.used_bytes, 0);
            prop_assert!(budget.finisher.is_none() && budget.askers.is_empty());
        }
    }
}
