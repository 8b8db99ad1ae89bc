//! Which of the partitions that a fetch is interested in have moved: what makes an incremental fetch cost what has
//! changed, and a waiting fetch wake once.
//!
//! A partition keeps a short list of those who watch it ([`Watchers`]); whoever moves it marks it in their sets. Nobody
//! misses a move: a slot is cleared before its partition is read, a partition is published before it is marked, so a
//! move that the reader did not see marks the slot again.

use super::delayed::DelayedOperation;
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use tokio::sync::Notify;

/// The slots, by number, that have to be looked at.
#[derive(Debug, Default)]
pub struct ReadySet {
    state: Mutex<State>,
    enough: Notify,
}

#[derive(Debug, Default)]
struct State {
    slots: Vec<Slot>,
    queue: Vec<u32>,
    /// Became visible in the slots that are queued.
    bytes: u64,
    /// Something other than bytes has moved.
    is_urgent: bool,
    /// Bytes that the waiting fetch waits for.
    wanted_bytes: Option<u64>,
    /// The waiting fetch has waited for as long as it may.
    is_expired: bool,
}

#[derive(Debug, Default, Clone)]
struct Slot {
    is_queued: bool,
    visible_bytes: u64,
    /// How often the slot was given up: who watched for an earlier one means another partition.
    generation: u64,
}

/// What a mover says of a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moved {
    /// Records were appended or became visible.
    Forward,
    /// Anything else: role, epoch, log start, configuration.
    Otherwise,
}

impl ReadySet {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("a panic aborts the process, so no lock is poisoned")
    }

    /// The slot is to be looked at, whether its partition has moved or not.
    pub fn queue(&self, slot: u32) {
        let mut state = self.state();
        state.queue(slot);
        state.is_urgent = true;
        self.notify(state);
    }

    fn notify(&self, mut state: MutexGuard<'_, State>) {
        if state.is_enough() {
            state.wanted_bytes = None;
            drop(state);
            self.enough.notify_one();
        }
    }

    /// The slots to look at, which are not queued any more.
    pub fn take(&self) -> Vec<u32> {
        let mut state = self.state();
        let queue = std::mem::take(&mut state.queue);
        for &slot in &queue {
            state.slots[slot as usize].is_queued = false;
        }
        state.bytes = 0;
        state.is_urgent = false;
        queue
    }

    /// The slot's partition is not in the set any more: whoever still marks it for that one is not heard.
    pub fn retire(&self, slot: u32) {
        let mut state = self.state();
        if let Some(slot) = state.slots.get_mut(slot as usize) {
            slot.generation += 1;
            slot.visible_bytes = 0;
        }
    }

    /// A fetch begins to wait: that an earlier one of the session expired is nothing to it.
    pub fn begin_wait(&self) {
        self.state().is_expired = false;
    }

    /// Waits until so many bytes became visible since [`Self::take`], or anything else has moved, or the wait
    /// expires ([`ExpiringWait`]); `true` in the last case.
    pub async fn wait(&self, wanted_bytes: u64) -> bool {
        loop {
            let enough = self.enough.notified();
            {
                let mut state = self.state();
                state.wanted_bytes = Some(wanted_bytes.max(1));
                if state.is_enough() {
                    state.wanted_bytes = None;
                    return std::mem::take(&mut state.is_expired);
                }
            }
            enough.await;
        }
    }

    /// Whether the slot is still that of the one who watched it.
    fn mark(&self, slot: u32, generation: u64, moved: Moved, visible_bytes: u64) -> bool {
        let mut state = self.state();
        if state.slots[slot as usize].generation != generation {
            return false;
        }
        state.queue(slot);
        let entry = &mut state.slots[slot as usize];
        let before = entry.visible_bytes;
        entry.visible_bytes = before.max(visible_bytes);
        state.bytes += visible_bytes.saturating_sub(before);
        state.is_urgent |= moved == Moved::Otherwise;
        self.notify(state);
        true
    }
}

impl State {
    fn queue(&mut self, slot: u32) {
        let index = slot as usize;
        if index >= self.slots.len() {
            self.slots.resize(index + 1, Slot::default());
        }
        if !std::mem::replace(&mut self.slots[index].is_queued, true) {
            self.queue.push(slot);
        }
    }

    fn is_enough(&self) -> bool {
        self.wanted_bytes
            .is_some_and(|wanted| self.is_expired || self.is_urgent || self.bytes >= wanted)
    }
}

/// Ends a fetch's wait at its deadline: all of them share one timer, for arming one anew wakes the runtime's driver.
#[derive(Debug)]
pub struct ExpiringWait(pub Arc<ReadySet>);

impl DelayedOperation for ExpiringWait {
    fn is_complete(&mut self) -> bool {
        false
    }

    fn finish(self, _is_expired: bool) {
        let mut state = self.0.state();
        state.is_expired = true;
        self.0.notify(state);
    }
}

/// Who watches one partition. No memory while nobody does.
#[derive(Debug, Default)]
pub struct Watchers {
    watching: Mutex<Vec<Watcher>>,
}

#[derive(Debug)]
struct Watcher {
    set: Weak<ReadySet>,
    slot: u32,
    generation: u64,
}

impl Watchers {
    /// Marks `slot` of `set` from now on whenever the partition moves; a set watches a partition in one slot.
    /// `visible_bytes` as published before.
    pub fn watch(&self, set: &Arc<ReadySet>, slot: u32, visible_bytes: u64) {
        let generation = {
            let mut state = set.state();
            let index = slot as usize;
            if index >= state.slots.len() {
                state.slots.resize(index + 1, Slot::default());
            }
            state.slots[index].visible_bytes = visible_bytes;
            state.slots[index].generation
        };
        let mut watching = self.watching();
        let mut is_known = false;
        watching.retain_mut(|watcher| {
            if std::ptr::eq(watcher.set.as_ptr(), Arc::as_ptr(set)) {
                (watcher.slot, watcher.generation) = (slot, generation);
                is_known = true;
            }
            watcher.set.strong_count() > 0
        });
        if !is_known {
            watching.push(Watcher { set: Arc::downgrade(set), slot, generation });
        }
    }

    /// The partition has moved, and was published.
    pub fn mark(&self, moved: Moved, visible_bytes: u64) {
        let mut watching = self.watching();
        if watching.is_empty() {
            return;
        }
        watching.retain(|watcher| {
            let set = watcher.set.upgrade();
            set.is_some_and(|set| set.mark(watcher.slot, watcher.generation, moved, visible_bytes))
        });
        if watching.is_empty() {
            *watching = Vec::new();
        }
    }

    fn watching(&self) -> MutexGuard<'_, Vec<Watcher>> {
        self.watching.lock().expect("a panic aborts the process, so no lock is poisoned")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    fn is_ready(future: &mut std::pin::Pin<&mut impl Future<Output = bool>>) -> bool {
        future.as_mut().poll(&mut Context::from_waker(Waker::noop())) == Poll::Ready(false)
    }

    #[test]
    fn a_slot_is_queued_once_until_it_is_taken() {
        let set = Arc::new(ReadySet::default());
        let partition = Watchers::default();
        partition.watch(&set, 3, 0);
        partition.watch(&set, 3, 0);
        partition.mark(Moved::Forward, 10);
        partition.mark(Moved::Forward, 20);
        assert_eq!(set.take(), [3]);
        assert!(set.take().is_empty());
        partition.mark(Moved::Forward, 30);
        assert_eq!(set.take(), [3]);
    }

    #[test]
    fn a_fetch_wakes_when_its_partitions_together_have_enough() {
        let set = Arc::new(ReadySet::default());
        let partitions = [Watchers::default(), Watchers::default()];
        for (slot, partition) in (0..).zip(&partitions) {
            partition.watch(&set, slot, 100);
        }
        let mut wait = pin!(set.wait(50));
        assert!(!is_ready(&mut wait));
        partitions[0].mark(Moved::Forward, 149);
        assert!(!is_ready(&mut wait), "49 bytes are too few");
        partitions[1].mark(Moved::Forward, 101);
        assert!(is_ready(&mut wait));
        assert_eq!(set.take(), [0, 1]);
    }

    #[test]
    fn a_move_before_the_wait_or_of_another_kind_is_enough() {
        let set = Arc::new(ReadySet::default());
        let partition = Watchers::default();
        partition.watch(&set, 0, 0);
        partition.mark(Moved::Forward, 5);
        assert!(is_ready(&mut pin!(set.wait(5))));
        set.take();
        let mut wait = pin!(set.wait(5));
        assert!(!is_ready(&mut wait));
        partition.mark(Moved::Otherwise, 5);
        assert!(is_ready(&mut wait));
    }

    #[test]
    fn a_partition_that_left_its_slot_does_not_speak_for_the_next_one() {
        let set = Arc::new(ReadySet::default());
        let [left, came] = [Watchers::default(), Watchers::default()];
        left.watch(&set, 0, 1000);
        set.retire(0);
        came.watch(&set, 0, 10);
        let mut wait = pin!(set.wait(5));
        assert!(!is_ready(&mut wait));
        left.mark(Moved::Forward, 5000);
        assert!(!is_ready(&mut wait), "nobody asked for that one any more");
        assert!(left.watching().is_empty());
        came.mark(Moved::Forward, 15);
        assert!(is_ready(&mut wait));
    }

    #[test]
    fn a_wait_that_expires_says_so_once() {
        let set = Arc::new(ReadySet::default());
        let mut wait = pin!(set.wait(5));
        assert!(!is_ready(&mut wait));
        ExpiringWait(Arc::clone(&set)).finish(true);
        let poll = wait.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        assert_eq!(poll, Poll::Ready(true));
        assert!(pin!(set.wait(5)).poll(&mut Context::from_waker(Waker::noop())).is_pending());
    }

    #[test]
    fn a_set_that_is_gone_is_forgotten() {
        let partition = Watchers::default();
        for _ in 0..3 {
            partition.watch(&Arc::new(ReadySet::default()), 0, 0);
        }
        assert!(partition.watching().len() <= 1);
        partition.mark(Moved::Forward, 1);
        assert!(partition.watching().is_empty());
    }
}
