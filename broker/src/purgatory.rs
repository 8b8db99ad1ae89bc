//! The purgatory: operations that wait for a key to move, each with a deadline. Pure: no clock, no waking.
//!
//! Invariants
//! - An entry leaves exactly once: completed by a key, or expired.
//! - A shell registers by *check, watch, check again*: a key that moved before the watch is seen by the second check,
//!   one that moves after it finds the entry (DESIGN D6).
//! - Moving a watermark only queues keys; [`Purgatory::take_if`] runs after the partition's lock is dropped.

use std::collections::{BTreeMap, BTreeSet};
use storage::instant::Instant;

/// Names an entry; never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EntryId(u64);

#[derive(Debug)]
struct Entry<K, T> {
    keys: Vec<K>,
    deadline: Instant,
    operation: T,
}

/// Waiting operations of type `T`, watched by keys `K`.
#[derive(Debug)]
pub struct Purgatory<K, T> {
    next_id: u64,
    entries: BTreeMap<EntryId, Entry<K, T>>,
    watchers: BTreeMap<K, BTreeSet<EntryId>>,
    deadlines: BTreeSet<(Instant, EntryId)>,
}

impl<K, T> Default for Purgatory<K, T> {
    fn default() -> Self {
        Purgatory {
            next_id: 0,
            entries: BTreeMap::new(),
            watchers: BTreeMap::new(),
            deadlines: BTreeSet::new(),
        }
    }
}

impl<K: Ord + Clone, T> Purgatory<K, T> {
    /// Watches `keys` until one of them completes the operation, or `deadline`.
    pub fn watch(&mut self, keys: Vec<K>, deadline: Instant, operation: T) -> EntryId {
        let id = EntryId(self.next_id);
        self.next_id += 1;
        for key in &keys {
            self.watchers.entry(key.clone()).or_default().insert(id);
        }
        self.deadlines.insert((deadline, id));
        self.entries.insert(id, Entry { keys, deadline, operation });
        id
    }

    /// Takes out every operation that watches `key` and that `is_complete` says is done, oldest first.
    pub fn take_if(&mut self, key: &K, mut is_complete: impl FnMut(&mut T) -> bool) -> Vec<T> {
        let Some(watchers) = self.watchers.get(key) else { return Vec::new() };
        let watchers: Vec<EntryId> = watchers.iter().copied().collect();
        watchers
            .into_iter()
            .filter(|id| {
                let entry = self.entries.get_mut(id).expect("watchers name only entries that wait");
                is_complete(&mut entry.operation)
            })
            .collect::<Vec<_>>()
            .into_iter()
            .filter_map(|id| self.remove(id))
            .collect()
    }

    /// Takes one operation out if it still waits and `is_complete` says it is done: the second check of registering.
    pub fn take_one_if(
        &mut self,
        id: EntryId,
        is_complete: impl FnOnce(&mut T) -> bool,
    ) -> Option<T> {
        let entry = self.entries.get_mut(&id)?;
        if is_complete(&mut entry.operation) { self.remove(id) } else { None }
    }

    /// Takes one operation out, if it still waits.
    pub fn remove(&mut self, id: EntryId) -> Option<T> {
        let entry = self.entries.remove(&id)?;
        self.deadlines.remove(&(entry.deadline, id));
        for key in &entry.keys {
            if let Some(watchers) = self.watchers.get_mut(key) {
                watchers.remove(&id);
                if watchers.is_empty() {
                    self.watchers.remove(key);
                }
            }
        }
        Some(entry.operation)
    }

    /// Takes out every operation whose deadline is at or before `now`, earliest first.
    pub fn take_expired(&mut self, now: Instant) -> Vec<T> {
        let mut expired = Vec::new();
        while let Some(&(deadline, id)) = self.deadlines.first() {
            if deadline > now {
                break;
            }
            expired.extend(self.remove(id));
        }
        expired
    }

    /// When [`Self::take_expired`] must be called next.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.deadlines.first().map(|&(deadline, _)| deadline)
    }

    /// Whether anything watches `key`.
    pub fn is_watched(&self, key: &K) -> bool {
        self.watchers.contains_key(key)
    }

    /// Operations that wait.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(nanos: u64) -> Instant {
        Instant::from_nanos(nanos)
    }

    #[test]
    fn an_operation_leaves_exactly_once_whichever_of_its_keys_moves() {
        let mut purgatory = Purgatory::default();
        purgatory.watch(vec!['a', 'b'], at(10), "op");
        assert_eq!(purgatory.take_if(&'b', |_| true), ["op"]);
        assert!(purgatory.take_if(&'a', |_| true).is_empty());
        assert!(purgatory.take_expired(at(11)).is_empty());
        assert!(!purgatory.is_watched(&'a') && purgatory.poll_timeout().is_none());
    }

    #[test]
    fn a_key_completes_only_what_is_done() {
        let mut purgatory = Purgatory::default();
        for needed in [3, 5, 4] {
            purgatory.watch(vec![()], at(10), needed);
        }
        assert_eq!(purgatory.take_if(&(), |needed| *needed <= 4), [3, 4]);
        assert_eq!(purgatory.len(), 1);
    }

    #[test]
    fn deadlines_expire_in_their_order_and_not_before() {
        let mut purgatory = Purgatory::default();
        for deadline in [30, 10, 20] {
            purgatory.watch(vec![()], at(deadline), deadline);
        }
        assert_eq!(purgatory.poll_timeout(), Some(at(10)));
        assert_eq!(purgatory.take_expired(at(20)), [10, 20]);
        assert_eq!(purgatory.poll_timeout(), Some(at(30)));
    }
}
