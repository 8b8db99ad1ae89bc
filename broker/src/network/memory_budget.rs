//! The memory that all connections hold together: request bytes that have come in, requests that wait for their answers,
//! and answers that wait to be written. Pure: no clock, no socket; wakers are only carried.
//!
//! Each connection may hold [`UNCOUNTED_BYTES`] freely, so that small requests never come here. What it holds beyond is
//! counted against `capacity_bytes` (`queued.max.request.bytes`):
//!
//! - **Receiving asks first**, and a refusal is backpressure: the socket is not read. An account may grow while it holds
//!   no more than what stays free, so that the last account to come always finds room: `n` accounts that take all they can
//!   get leave about `capacity / (n + 1)` free.
//! - **One account at a time has the turn**: whoever was refused first may take what its frame needs from a reserve of
//!   one largest frame (`socket.request.max.bytes`) and one read-ahead. When the frame has come in, or nothing is received
//!   any more, what it took counts against the capacity like everything else and the turn ends; if there is no room for that
//!   yet, the turn lasts until there is.
//! - **Answers do not ask**, since the work is done. If they pass the capacity, the accounts are evicted whose answers
//!   have waited longest to be read.
//!
//! Invariants
//! - Counted bytes are at most the capacity, plus the reserve, plus one answer for each thread that makes them.
//! - No deadlock: while anybody is refused somebody has the turn, and is not refused in it but after its frame. Then
//!   either there comes room or, as others wait, its connection is closed at a deadline.
//! - Nobody is starved: a turn is for one frame, and has a deadline while others wait.
//! - Nobody is hurried for nothing: while no other asks there is no deadline, and who has the turn is not refused, so a
//!   connection alone may take as long as it likes for one frame of the largest size.

#[cfg(test)]
mod tests;

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
    /// Taken from the reserve; not zero only in the turn.
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
    /// The number of its turn, if it has that now. Never reused.
    pub turn: Option<u64>,
    /// Others were refused, and wait.
    pub others_wait: bool,
    /// Its connection must be closed.
    pub is_evicted: bool,
}

/// Answers that wait to be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backlog {
    /// There are none.
    None,
    /// None of them moved.
    Unread,
    /// The peer has read some of them since the last word.
    BeingRead,
}

/// The right to take from the reserve.
#[derive(Debug)]
struct Turn {
    id: AccountId,
    number: u64,
    stage: Stage,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Its frame comes in.
    Receiving,
    /// Its frame is not read now.
    Paused,
    /// Its frame has come in. The next one is for another turn.
    Done,
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
    /// Somebody's while there are `askers`.
    turn: Option<Turn>,
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
            turn: None,
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

    /// Asks to hold `counted_bytes` in all. A refused account is remembered, and `waker` woken once it was granted. One that
    /// is evicted is neither granted nor remembered.
    pub fn ask(&mut self, id: AccountId, counted_bytes: usize, waker: &Waker) -> Standing {
        let account = self.accounts.get_mut(&id).expect("an account is closed once");
        let more = counted_bytes.saturating_sub(account.counted_bytes());
        let pooled = account.pooled_bytes;
        let turn = self.turn.as_mut().filter(|turn| turn.id == id && turn.stage != Stage::Done);
        if account.is_evicted {
            // It ends as soon as it looks.
        } else if let Some(turn) = turn {
            turn.stage = Stage::Receiving;
            account.reserved_bytes += more;
        } else if fits(self.capacity_bytes, self.used_bytes, pooled, more) {
            self.withdraw(id);
            self.take(id, more);
        } else {
            account.waker = Some(waker.clone());
            if account.asks_bytes.replace(counted_bytes).is_none() {
                self.askers.push_back(id);
            }
            // Of nobody else's news: without a turn, nobody else asks.
            drop(self.next_turn());
        }
        self.standing(id)
    }

    /// Says that a frame has come in whole: if it was the turn's, the turn is over. Returns whom to wake.
    #[must_use = "whoever waits for memory must be woken"]
    pub fn finish(&mut self, id: AccountId) -> Option<Waker> {
        if let Some(turn) = &mut self.turn
            && turn.id == id
        {
            turn.stage = Stage::Done;
        }
        self.pass_on()
    }

    /// Says what the account really holds, more or less than it was granted, which answers are part of it that wait to be
    /// written, and whether it receives; if not, what it asked for is forgotten. Returns whom to wake: those who
    /// may go on, and those who were evicted (`waker` among them).
    #[must_use = "whoever waits for memory must be woken"]
    pub fn settle(
        &mut self,
        id: AccountId,
        counted_bytes: usize,
        backlog: Backlog,
        is_receiving: bool,
        waker: &Waker,
    ) -> Vec<Waker> {
        self.set_backlog(id, backlog, waker);
        if !is_receiving {
            self.withdraw(id);
        }
        if let Some(turn) = &mut self.turn
            && turn.id == id
            && turn.stage != Stage::Done
        {
            turn.stage = if is_receiving { Stage::Receiving } else { Stage::Paused };
        }
        let had = self.accounts[&id].counted_bytes();
        let mut woken = if counted_bytes > had {
            self.take(id, counted_bytes - had);
            self.evict()
        } else {
            self.give_back(id, had - counted_bytes)
        };
        woken.extend(self.pass_on());
        woken
    }

    /// Gives back everything. Returns whom to wake.
    #[must_use = "whoever waits for memory must be woken"]
    pub fn close(&mut self, id: AccountId) -> Vec<Waker> {
        self.withdraw(id);
        self.set_backlog(id, Backlog::None, Waker::noop());
        self.turn.take_if(|turn| turn.id == id);
        let mut woken = self.give_back(id, self.accounts[&id].counted_bytes());
        self.accounts.remove(&id);
        woken.extend(self.pass_on());
        woken
    }

    /// How the account stands now.
    pub fn standing(&self, id: AccountId) -> Standing {
        let account = &self.accounts[&id];
        Standing {
            granted_bytes: account.counted_bytes(),
            turn: self.turn.as_ref().filter(|turn| turn.id == id).map(|turn| turn.number),
            others_wait: self.askers.len() > usize::from(account.asks_bytes.is_some()),
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

    /// What the account asked for and was refused is forgotten.
    pub fn withdraw(&mut self, id: AccountId) {
        let account = self.accounts.get_mut(&id).expect("an account is closed once");
        if account.asks_bytes.take().is_some() {
            self.askers.retain(|asker| *asker != id);
        }
    }

    fn set_backlog(&mut self, id: AccountId, backlog: Backlog, waker: &Waker) {
        let number = self.number();
        let account = self.accounts.get_mut(&id).expect("an account is closed once");
        if backlog != Backlog::Unread
            && let Some(since) = account.backlog.take()
        {
            self.backlogs.remove(&since);
        }
        if backlog != Backlog::None {
            account.waker = Some(waker.clone());
            if account.backlog.is_none() && !account.is_evicted {
                account.backlog = Some(number);
                self.backlogs.insert(number, id);
            }
        }
    }

    /// Marks accounts with a backlog, oldest first, until what they will give back is enough. They get nothing more.
    fn evict(&mut self) -> Vec<Waker> {
        let Some(capacity) = self.capacity_bytes else { return Vec::new() };
        let mut woken = Vec::new();
        while self.used_bytes - self.evicting_bytes > capacity {
            // Only the turn's account may hold nothing of the capacity.
            let mut oldest = self.backlogs.iter();
            let oldest = oldest.find(|(_, id)| self.accounts[id].pooled_bytes > 0);
            let Some((since, id)) = oldest.map(|(since, id)| (*since, *id)) else { break };
            self.backlogs.remove(&since);
            self.withdraw(id);
            let account = self.accounts.get_mut(&id).expect("backlogs name only open accounts");
            account.backlog = None;
            account.is_evicted = true;
            self.evicting_bytes += account.pooled_bytes;
            woken.extend(account.waker.clone());
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
        self.grant()
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

    /// Ends a turn in which nothing is received, if there is room for what was taken from the reserve; gives it to the next.
    fn pass_on(&mut self) -> Option<Waker> {
        if let Some(Turn { id, stage: Stage::Paused | Stage::Done, .. }) = self.turn {
            let account = self.accounts.get_mut(&id).expect("the turn is an open account's");
            let reserved = account.reserved_bytes;
            let has_room = |capacity| self.used_bytes.saturating_add(reserved) <= capacity;
            if reserved == 0 || self.capacity_bytes.is_none_or(has_room) {
                account.reserved_bytes = 0;
                self.take(id, reserved);
                self.turn = None;
            }
        }
        self.next_turn()
    }

    fn next_turn(&mut self) -> Option<Waker> {
        if self.turn.is_some() {
            return None;
        }
        let id = self.askers.pop_front()?;
        self.turn = Some(Turn { id, number: self.number(), stage: Stage::Receiving });
        let account = self.accounts.get_mut(&id).expect("askers are open accounts");
        let asked = account.asks_bytes.take().expect("askers ask");
        account.reserved_bytes += asked.saturating_sub(account.counted_bytes());
        account.waker.clone()
    }
}

/// Whether an account of `pooled` bytes may take `more`: it then holds no more than what stays free.
fn fits(capacity: Option<usize>, used: usize, pooled: usize, more: usize) -> bool {
    let Some(capacity) = capacity else { return true };
    more == 0 || pooled.saturating_add(more) <= capacity.saturating_sub(used).saturating_sub(more)
}
