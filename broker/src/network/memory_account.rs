//! One connection's share of the [`MemoryBudget`]: remembers what was granted, so that the budget's lock is taken only
//! when that changes by much.

use super::memory_budget::{AccountId, MemoryBudget, Standing, UNCOUNTED_BYTES};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Waker};

/// What a connection may hold more or less than it was granted before it says so.
const SLACK_BYTES: usize = 256 * 1024;

/// The budget that all connections share.
#[derive(Debug)]
pub struct SharedBudget(Mutex<MemoryBudget>);

impl SharedBudget {
    /// `queued.max.request.bytes`; `None` is without a limit.
    pub fn new(capacity_bytes: Option<usize>) -> SharedBudget {
        SharedBudget(Mutex::new(MemoryBudget::new(capacity_bytes)))
    }

    fn lock(&self) -> MutexGuard<'_, MemoryBudget> {
        self.0.lock().expect("a panic aborts the process, so no lock is poisoned")
    }
}

/// What one connection holds. Dropping it gives everything back.
#[derive(Debug)]
pub struct MemoryAccount {
    budget: Arc<SharedBudget>,
    /// `None` until it holds more than [`UNCOUNTED_BYTES`].
    id: Option<AccountId>,
    granted_bytes: usize,
    has_backlog: bool,
    /// The last `room` was none: it waits for its turn.
    is_refused: bool,
}

impl MemoryAccount {
    /// Holds nothing yet.
    pub fn new(budget: Arc<SharedBudget>) -> MemoryAccount {
        MemoryAccount { budget, id: None, granted_bytes: 0, has_backlog: false, is_refused: false }
    }

    /// Whether `room` would answer at once: nothing needs to be asked for.
    pub fn has_room(&self, held_bytes: usize, wanted_bytes: usize) -> bool {
        held_bytes + wanted_bytes <= UNCOUNTED_BYTES + self.granted_bytes
    }

    /// How many bytes, at most `wanted_bytes`, may be received by a connection that holds `held_bytes`. To be asked only
    /// when there is something to receive. With 0 its task is woken when there is more.
    pub fn room(&mut self, held_bytes: usize, wanted_bytes: usize, context: &Context<'_>) -> usize {
        if !self.has_room(held_bytes, wanted_bytes) {
            let target = (held_bytes + wanted_bytes).saturating_sub(UNCOUNTED_BYTES);
            let mut budget = self.budget.lock();
            let id = *self.id.get_or_insert_with(|| budget.open());
            self.granted_bytes = budget.ask(id, target, context.waker()).granted_bytes;
        }
        let room = (self.granted_bytes + UNCOUNTED_BYTES).saturating_sub(held_bytes);
        self.is_refused = room == 0;
        room.min(wanted_bytes)
    }

    /// Says what is held now, whether answers are part of it that the peer has not read, and whether a frame is under way:
    /// then what was granted for it is kept.
    pub fn settle(
        &mut self,
        held_bytes: usize,
        has_backlog: bool,
        is_receiving: bool,
        context: &Context<'_>,
    ) {
        let mut counted = held_bytes.saturating_sub(UNCOUNTED_BYTES);
        if self.id.is_none() && counted == 0 {
            return;
        }
        let keeps_grant = is_receiving || self.is_refused;
        let is_granted = counted <= self.granted_bytes;
        if is_granted && has_backlog == self.has_backlog {
            let is_near = counted > 0 && self.granted_bytes - counted <= SLACK_BYTES;
            if keeps_grant || is_near {
                return;
            }
        }
        let mut budget = self.budget.lock();
        let woken = match self.id {
            Some(id) if counted == 0 && !keeps_grant => {
                (self.id, self.granted_bytes, self.has_backlog) = (None, 0, false);
                budget.close(id)
            }
            id => {
                let id = id.unwrap_or_else(|| budget.open());
                if keeps_grant {
                    // It may have been granted more while this task slept.
                    counted = counted.max(budget.standing(id).granted_bytes);
                }
                (self.id, self.granted_bytes) = (Some(id), counted);
                self.has_backlog = has_backlog;
                budget.settle(id, counted, has_backlog, context.waker())
            }
        };
        drop(budget);
        woken.into_iter().for_each(Waker::wake);
    }

    /// How it stands, if it is counted at all.
    pub fn standing(&self) -> Option<Standing> {
        self.id.map(|id| self.budget.lock().standing(id))
    }
}

impl Drop for MemoryAccount {
    fn drop(&mut self) {
        if let Some(id) = self.id {
            let woken = self.budget.lock().close(id);
            woken.into_iter().for_each(Waker::wake);
        }
    }
}
