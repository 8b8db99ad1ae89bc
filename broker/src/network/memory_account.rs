//! One connection's share of the [`MemoryBudget`]: remembers what was granted, so that the budget's lock is taken only
//! when that changes by much.

use super::memory_budget::{AccountId, Backlog, MemoryBudget, Standing, UNCOUNTED_BYTES};
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
    /// It had the turn when it last spoke with the budget.
    has_turn: bool,
}

/// What a connection holds at the end of a poll.
#[derive(Debug, Clone, Copy)]
pub struct Holding {
    /// In all.
    pub bytes: usize,
    /// Which answers are part of it.
    pub backlog: Backlog,
    /// A frame is under way or to begin, and is read as soon as there is memory; then what was granted is kept for it.
    pub is_receiving: bool,
    /// Another frame came in whole since the last time: what was granted for that one is not kept.
    pub has_come_in: bool,
}

impl MemoryAccount {
    /// Holds nothing yet.
    pub fn new(budget: Arc<SharedBudget>) -> MemoryAccount {
        MemoryAccount {
            budget,
            id: None,
            granted_bytes: 0,
            has_backlog: false,
            is_refused: false,
            has_turn: false,
        }
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
            let standing = budget.ask(id, target, context.waker());
            (self.granted_bytes, self.has_turn) = (standing.granted_bytes, standing.turn.is_some());
            if standing.granted_bytes < target && held_bytes < UNCOUNTED_BYTES + self.granted_bytes
            {
                // What there is comes first; nobody may wait for more without knowing it.
                budget.withdraw(id);
            }
        }
        let room = (self.granted_bytes + UNCOUNTED_BYTES).saturating_sub(held_bytes);
        self.is_refused = room == 0;
        room.min(wanted_bytes)
    }

    /// Whether it was refused and waits for its turn.
    pub fn is_refused(&self) -> bool {
        self.is_refused
    }

    /// Says, before anything more is received, that a frame has come in whole.
    pub fn finish_frame(&mut self) {
        if let Some(id) = self.id
            && std::mem::take(&mut self.has_turn)
        {
            let mut budget = self.budget.lock();
            let woken = budget.finish(id);
            self.has_turn = budget.standing(id).turn.is_some();
            drop(budget);
            woken.into_iter().for_each(Waker::wake);
        }
    }

    /// Says what is held now.
    pub fn settle(&mut self, holding: Holding, context: &Context<'_>) {
        let Holding { bytes, backlog, is_receiving, has_come_in } = holding;
        let mut counted = bytes.saturating_sub(UNCOUNTED_BYTES);
        if self.id.is_none() && counted == 0 {
            return;
        }
        // What it was refused and does not want any more is not waited for.
        let withdraws = self.is_refused && !is_receiving;
        self.is_refused &= is_receiving;
        let keeps_grant = self.is_refused || is_receiving && !has_come_in;
        let has_backlog = backlog != Backlog::None;
        let is_told = counted <= self.granted_bytes
            && has_backlog == self.has_backlog
            && backlog != Backlog::BeingRead
            && !withdraws
            && !self.has_turn;
        let is_near = counted > 0 && self.granted_bytes.saturating_sub(counted) <= SLACK_BYTES;
        if is_told && (keeps_grant || is_near) {
            return;
        }
        let mut budget = self.budget.lock();
        let woken = match self.id {
            Some(id) if counted == 0 && !keeps_grant => {
                (self.id, self.granted_bytes) = (None, 0);
                (self.has_backlog, self.has_turn) = (false, false);
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
                let woken = budget.settle(id, counted, backlog, is_receiving, context.waker());
                self.has_turn = budget.standing(id).turn.is_some();
                woken
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

#[cfg(test)]
mod tests {
    use super::*;

    const FRAME_BYTES: usize = 1 << 20;

    fn holding(bytes: usize, is_receiving: bool) -> Holding {
        Holding { bytes, backlog: Backlog::None, is_receiving, has_come_in: false }
    }

    #[test]
    fn who_pipelines_without_a_pause_gives_the_turn_to_the_next_after_each_frame() {
        let budget = Arc::new(SharedBudget::new(Some(FRAME_BYTES)));
        let [mut fast, mut other] = [(); 2].map(|()| MemoryAccount::new(Arc::clone(&budget)));
        let task = Context::from_waker(Waker::noop());
        assert_eq!(fast.room(0, FRAME_BYTES, &task), FRAME_BYTES);
        assert_eq!(other.room(UNCOUNTED_BYTES, FRAME_BYTES, &task), 0);
        other.settle(holding(UNCOUNTED_BYTES, true), &task);
        // The frame is answered, and the next one has begun to arrive when the poll ends.
        fast.finish_frame();
        let next = UNCOUNTED_BYTES + 1000;
        fast.settle(Holding { has_come_in: true, ..holding(next, true) }, &task);
        assert_eq!(other.room(UNCOUNTED_BYTES, FRAME_BYTES, &task), FRAME_BYTES);
        let standing = fast.standing().unwrap();
        assert_eq!((standing.granted_bytes, standing.turn), (1000, None));
    }

    #[test]
    fn a_frame_that_waits_for_its_answer_does_not_keep_the_turn_however_near_its_grant() {
        let budget = Arc::new(SharedBudget::new(Some(FRAME_BYTES)));
        let [mut waits, mut other] = [(); 2].map(|()| MemoryAccount::new(Arc::clone(&budget)));
        let task = Context::from_waker(Waker::noop());
        assert_eq!(waits.room(0, FRAME_BYTES, &task), FRAME_BYTES);
        assert_eq!(other.room(UNCOUNTED_BYTES, FRAME_BYTES, &task), 0);
        waits.finish_frame();
        waits.settle(Holding { has_come_in: true, ..holding(FRAME_BYTES, false) }, &task);
        assert_eq!(other.room(UNCOUNTED_BYTES, FRAME_BYTES, &task), FRAME_BYTES);
    }

    #[test]
    fn who_does_not_read_its_frame_does_not_keep_the_turn_however_near_its_grant() {
        let budget = Arc::new(SharedBudget::new(Some(FRAME_BYTES)));
        let [mut pauses, mut other] = [(); 2].map(|()| MemoryAccount::new(Arc::clone(&budget)));
        let task = Context::from_waker(Waker::noop());
        assert_eq!(pauses.room(0, FRAME_BYTES, &task), FRAME_BYTES);
        assert_eq!(other.room(UNCOUNTED_BYTES, FRAME_BYTES, &task), 0);
        pauses.settle(holding(FRAME_BYTES, false), &task);
        assert_eq!(other.room(UNCOUNTED_BYTES, FRAME_BYTES, &task), FRAME_BYTES);
    }

    #[test]
    fn who_has_some_room_left_is_not_waiting_for_more() {
        let budget = Arc::new(SharedBudget::new(Some(FRAME_BYTES)));
        let [mut turn, mut some] = [(); 2].map(|()| MemoryAccount::new(Arc::clone(&budget)));
        let task = Context::from_waker(Waker::noop());
        assert_eq!(turn.room(0, FRAME_BYTES, &task), FRAME_BYTES);
        assert_eq!(some.room(UNCOUNTED_BYTES, 100_000, &task), 100_000);
        assert_eq!(some.room(UNCOUNTED_BYTES + 1, FRAME_BYTES, &task), 99_999);
        assert!(!some.is_refused() && !turn.standing().unwrap().others_wait);
    }

    #[test]
    fn who_was_refused_and_wants_nothing_any_more_is_passed_over() {
        let budget = Arc::new(SharedBudget::new(Some(FRAME_BYTES)));
        let [mut one, mut two, mut three] =
            [(); 3].map(|()| MemoryAccount::new(Arc::clone(&budget)));
        let task = Context::from_waker(Waker::noop());
        for account in [&mut one, &mut two, &mut three] {
            account.room(UNCOUNTED_BYTES, FRAME_BYTES, &task);
        }
        two.settle(holding(UNCOUNTED_BYTES, false), &task);
        drop(one);
        assert_eq!(three.room(UNCOUNTED_BYTES, FRAME_BYTES, &task), FRAME_BYTES);
        assert!(three.standing().is_some_and(|standing| !standing.others_wait));
    }
}
