//! What one log knows of its idempotent and transactional producers: a pure fold of the log's batches
//! (`ProducerStateManager.java`, `ProducerAppendInfo.java`; KIP-98, KIP-360).
//!
//! The leader asks [`ProducerStateManager::check`] before it appends; leader, follower and recovery call
//! [`ProducerStateManager::update`] with every batch that is in the log, in order. A snapshot
//! ([`ProducerStateManager::to_snapshot`]) saves reading the log from its start; as Kafka's file holds only
//! the last batch of each producer, [`WindowRefill`] then fetches the other four from the batch headers
//! before it (DESIGN D7), so that a restart forgets nothing.
//!
//! Invariant: the state is the same whether the whole log was folded or a snapshot was taken on the way.

mod check;
mod producer_entry;
mod producer_id;
mod snapshot;
#[cfg(test)]
mod tests;
mod window_refill;

use std::collections::BTreeMap;

pub use check::{ProducerStateError, SequenceCheck};
pub use producer_entry::{BatchMetadata, MAX_CACHED_BATCHES, ProducerEntry};
pub use producer_id::{ProducerEpoch, ProducerId, increment_sequence};
pub use snapshot::{SNAPSHOT_VERSION, SnapshotError};
pub use window_refill::WindowRefill;

use crate::offset::Offset;
use crate::record_batch::{BatchHeader, EndTransactionMarker};
use crate::timestamp::Timestamp;
use crate::transaction_index::AbortedTransaction;

/// The producers of one log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProducerStateManager {
    producers: BTreeMap<ProducerId, ProducerEntry>,
    /// Open transactions by their first offset. Invariant: one for each entry with a
    /// `current_txn_first_offset`, and no other.
    ongoing: BTreeMap<Offset, ProducerId>,
    /// Ended transactions by their first offset, with the offset of the marker, which is not yet below the
    /// high watermark: until it is, another leader could still end them otherwise.
    unreplicated: BTreeMap<Offset, Offset>,
}

impl ProducerStateManager {
    /// No producer known.
    pub fn new() -> ProducerStateManager {
        ProducerStateManager::default()
    }

    /// Takes note of a batch that is in the log (or is about to be: then [`ProducerStateManager::check`]
    /// came first). Batches come in the order of their offsets. `marker` is what a control batch says
    /// ([`EndTransactionMarker::in_batch`]), `None` for all others.
    ///
    /// Returns what the transaction index must get: the transaction that this batch aborted, if it wrote
    /// data here.
    pub fn update(
        &mut self,
        header: &BatchHeader,
        marker: Option<EndTransactionMarker>,
    ) -> Option<AbortedTransaction> {
        let producer = header.producer()?;
        if header.is_control() {
            return self.end_transaction(header, marker?);
        }
        let entry = self
            .producers
            .entry(producer.id)
            .or_insert_with(|| ProducerEntry::new(producer.id, producer.epoch));
        entry.add_batch(header, producer);
        if header.is_transactional() && entry.current_txn_first_offset.is_none() {
            entry.current_txn_first_offset = Some(header.base_offset());
            self.ongoing.insert(header.base_offset(), producer.id);
        }
        None
    }

    fn end_transaction(
        &mut self,
        header: &BatchHeader,
        marker: EndTransactionMarker,
    ) -> Option<AbortedTransaction> {
        let producer = header.producer()?;
        let entry = self
            .producers
            .entry(producer.id)
            .or_insert_with(|| ProducerEntry::new(producer.id, producer.epoch));
        entry.set_epoch(producer.epoch);
        entry.coordinator_epoch = Some(marker.coordinator_epoch).filter(|epoch| *epoch >= 0);
        entry.last_timestamp = header.max_timestamp();
        let first_offset = entry.current_txn_first_offset.take()?;
        self.ongoing.remove(&first_offset);
        let last_offset = header.last_offset();
        self.unreplicated.insert(first_offset, last_offset);
        // Kafka's rule: what is still open bounds it, else the marker itself.
        let still_open = self.ongoing.keys().next();
        let last_stable_offset = still_open.copied().unwrap_or(last_offset.next());
        (!marker.is_commit).then_some(AbortedTransaction {
            producer_id: producer.id,
            first_offset,
            last_offset,
            last_stable_offset,
        })
    }

    /// First offset of the earliest transaction that is open, or ended by a marker at or past the last high
    /// watermark told. The last stable offset is this or the high watermark, whichever is smaller; where
    /// the log start has moved past it, the log start.
    pub fn first_unstable_offset(&self) -> Option<Offset> {
        let ongoing = self.ongoing.keys().next();
        let unreplicated = self.unreplicated.keys().next();
        ongoing.into_iter().chain(unreplicated).min().copied()
    }

    /// Transactions whose markers lie below the high watermark are decided for good.
    pub fn handle_high_watermark(&mut self, high_watermark: Offset) {
        self.unreplicated.retain(|_, marker_offset| *marker_offset >= high_watermark);
    }

    /// Forgets producers without an open transaction that have been silent for `expiration_ms`
    /// (`producer.id.expiration.ms`). Forgetting never fences: any sequence is accepted afterwards.
    pub fn expire(&mut self, now: Timestamp, expiration_ms: i64) {
        self.producers.retain(|_, entry| !entry.is_expired(now, expiration_ms));
    }

    /// Forgets everything: before the log is read again, or when it is emptied.
    pub fn clear(&mut self) {
        *self = ProducerStateManager::new();
    }

    /// All producers, by id.
    pub fn producers(&self) -> impl ExactSizeIterator<Item = &ProducerEntry> {
        self.producers.values()
    }

    /// One producer.
    pub fn producer(&self, id: ProducerId) -> Option<&ProducerEntry> {
        self.producers.get(&id)
    }

    /// Whether no producer is known: then no snapshot is worth refilling.
    pub fn is_empty(&self) -> bool {
        self.producers.is_empty()
    }
}
