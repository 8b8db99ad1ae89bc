//! One session: its partitions, where each is read from and what was last said of it.
//!
//! Invariants
//! - A partition stands in one slot, and `topics` names the slots that are taken. `slots` and the [`ReadySet`] count alike.
//! - All partitions of a topic share one copy of its name, which is no part of a frame.
//! - A partition that is not ready was read at its end, without an error, and answered so; the shell has it marked in the
//!   session's [`ReadySet`] when it moves.

use super::{
    FetchPosition, FetchView, FetchedPartition, INITIAL_EPOCH, PartitionKey, PartitionOutcome,
    TopicKey, next_epoch,
};
use crate::replica_manager::ready_set::ReadySet;
use std::collections::BTreeMap;
use std::sync::Arc;
use storage::instant::Instant;

/// What a partition takes at most: its slot here and in the ready set, both in vectors that double, its entry below its topic,
/// and the mark that the partition keeps of who watches it.
const PARTITION_BYTES: usize = 320;
/// What a topic takes at most besides its partitions: the longest name and two map entries.
const TOPIC_BYTES: usize = 640;

/// What a session of these partitions takes at most: less where those of a topic do not stand together.
pub(super) fn size_bytes_at_most(partitions: &[FetchedPartition]) -> usize {
    let topics = partitions.chunk_by(|one, next| one.key.topic == next.key.topic).count();
    partitions.len() * PARTITION_BYTES + topics * TOPIC_BYTES
}

#[derive(Debug)]
struct CachedPartition {
    key: PartitionKey,
    order: u64,
    position: FetchPosition,
    high_watermark: i64,
    log_start_offset: i64,
}

#[derive(Debug)]
struct CachedTopic {
    /// As in the map: a copy of it costs a count, not a name.
    key: TopicKey,
    /// The slots of its partitions.
    slots: BTreeMap<i32, u32>,
}

#[derive(Debug)]
pub(super) struct Session {
    pub(super) next_epoch: i32,
    pub(super) uses_topic_ids: bool,
    pub(super) created: Instant,
    pub(super) last_used: Instant,
    pub(super) ready: Arc<ReadySet>,
    pub(super) view: Option<FetchView>,
    next_order: u64,
    topics: BTreeMap<TopicKey, CachedTopic>,
    slots: Vec<Option<CachedPartition>>,
    free_slots: Vec<u32>,
}

impl Session {
    /// Just opened, with nothing in it.
    pub(super) fn new(uses_topic_ids: bool, now: Instant) -> Session {
        Session {
            next_epoch: next_epoch(INITIAL_EPOCH),
            uses_topic_ids,
            created: now,
            last_used: now,
            ready: Arc::default(),
            view: None,
            next_order: 0,
            topics: BTreeMap::new(),
            slots: Vec::new(),
            free_slots: Vec::new(),
        }
    }

    /// Partitions in it.
    pub(super) fn len(&self) -> usize {
        self.slots.len() - self.free_slots.len()
    }

    /// Bytes that it keeps, never less than it does. Slots that were given up count: they stay until they are used again.
    pub(super) fn size_bytes(&self) -> usize {
        self.slots.len() * PARTITION_BYTES + self.topics.len() * TOPIC_BYTES
    }

    pub(super) fn is_empty(&self) -> bool {
        self.topics.is_empty()
    }

    /// Takes a partition in, or its new position. Returns its slot.
    pub(super) fn upsert(&mut self, key: &PartitionKey, position: FetchPosition) -> u32 {
        if !self.topics.contains_key(&key.topic) {
            let topic = key.topic.detached();
            let cached = CachedTopic { key: topic.clone(), slots: BTreeMap::new() };
            self.topics.insert(topic, cached);
        }
        let topic = self.topics.get_mut(&key.topic).expect("it was put there where it lacked");
        if let Some(&slot) = topic.slots.get(&key.partition) {
            if let Some(known) = &mut self.slots[slot as usize] {
                known.position = position;
            }
            self.ready.queue(slot);
            return slot;
        }
        let order = self.next_order;
        self.next_order += 1;
        let slot = self.free_slots.pop().unwrap_or_else(|| {
            self.slots.push(None);
            u32::try_from(self.slots.len() - 1).expect("a frame cannot name so many partitions")
        });
        topic.slots.insert(key.partition, slot);
        let key = PartitionKey { topic: topic.key.clone(), partition: key.partition };
        let cached =
            CachedPartition { key, order, position, high_watermark: -1, log_start_offset: -1 };
        self.slots[slot as usize] = Some(cached);
        self.ready.queue(slot);
        slot
    }

    /// `partitions` ascend. Takes as long as there are partitions in the session, however many are named.
    pub(super) fn forget(&mut self, topic: &TopicKey, partitions: &[i32]) {
        let Some(cached) = self.topics.get_mut(topic) else { return };
        let gone: Vec<i32> = if partitions.len() <= cached.slots.len() {
            partitions.to_vec()
        } else {
            let is_named = |partition: &&i32| partitions.binary_search(partition).is_ok();
            cached.slots.keys().filter(is_named).copied().collect()
        };
        for slot in gone.iter().filter_map(|partition| cached.slots.remove(partition)) {
            self.slots[slot as usize] = None;
            self.ready.retire(slot);
            self.free_slots.push(slot);
        }
        if cached.slots.is_empty() {
            self.topics.remove(topic);
        }
    }

    pub(super) fn queue_all(&self) {
        for (slot, cached) in (0..).zip(&self.slots) {
            if cached.is_some() {
                self.ready.queue(slot);
            }
        }
    }

    /// The ready partitions, in their order; they are not ready any more.
    pub(super) fn take_ready(&self) -> Vec<FetchedPartition> {
        let fetched = |slot: u32| {
            // A slot may have been marked just before its partition was forgotten.
            let cached = self.slots.get(slot as usize)?.as_ref()?;
            let CachedPartition { key, order, position, .. } = cached;
            Some(FetchedPartition { key: key.clone(), position: *position, slot, order: *order })
        };
        let mut ready: Vec<_> = self.ready.take().into_iter().filter_map(fetched).collect();
        ready.sort_unstable_by_key(FetchedPartition::order);
        ready
    }

    /// Remembers what is answered for the partition that stood in `slot`; whether an incremental answer must name it.
    pub(super) fn note(
        &mut self,
        key: &PartitionKey,
        slot: u32,
        outcome: &PartitionOutcome,
    ) -> bool {
        let cached = self.slots.get_mut(slot as usize).and_then(Option::as_mut);
        let Some(cached) = cached.filter(|cached| cached.key == *key) else { return true };
        let moved = cached.high_watermark != outcome.high_watermark
            || cached.log_start_offset != outcome.log_start_offset;
        let is_included = outcome.has_records || outcome.is_error || outcome.redirects || moved;
        cached.log_start_offset = outcome.log_start_offset;
        // A partition in error is named again, and once more when it has recovered.
        cached.high_watermark = if outcome.is_error { -1 } else { outcome.high_watermark };
        if outcome.has_records {
            // Fairness: who was served goes to the end.
            cached.order = self.next_order;
            self.next_order += 1;
        }
        is_included
    }

    #[cfg(test)]
    pub(super) fn count_slots(&self) -> usize {
        self.slots.len()
    }

    /// Where each name that is kept lies.
    #[cfg(test)]
    pub(super) fn name_addresses(&self) -> std::collections::BTreeSet<*const u8> {
        let keys = self.slots.iter().flatten().map(|cached| &cached.key.topic);
        let kept = self.topics.iter().flat_map(|(key, topic)| [key, &topic.key]);
        let address = |key: &TopicKey| match key {
            TopicKey::Name(name) => Some(name.as_ptr()),
            TopicKey::Id(_) => None,
        };
        keys.chain(kept).filter_map(address).collect()
    }
}
