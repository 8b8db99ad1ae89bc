//! The partitions that this broker hosts, and what is done with them: append, read, flush, delete, change roles.
//!
//! Whatever moves a partition's offsets calls [`ReplicaManager::wake`] after the partition's lock is dropped.

pub mod append;
pub mod apply_delta;
pub mod background;
pub mod delayed;
pub mod flusher;
mod loading;
pub mod partition;
pub mod read;
pub mod ready_set;
#[cfg(test)]
mod testing;

use crate::clock::Clock;
use crate::config::TopicConfig;
use append::DelayedProduce;
use delayed::DelayedOperations;
use flusher::Flusher;
use partition::{AppendOutcome, DeleteRecordsError, Now, Partition};
use ready_set::{ExpiringWait, Moved};
use std::collections::BTreeMap;
use std::sync::{Arc, RwLock};
use storage::log::LogError;
use storage::log_manager::LogManager;
use storage::offset::Offset;
use storage::topic_partition::{TopicId, TopicPartition};

/// Names a partition for as long as its topic lives; a topic that is created again has another id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PartitionKey {
    /// Its topic.
    pub topic_id: TopicId,
    /// Its index.
    pub partition: i32,
}

/// Why a partition is not to be had here.
#[derive(Debug, Clone, thiserror::Error)]
pub enum NotHosted {
    /// This broker has no role for it.
    #[error("this broker does not host the partition")]
    Elsewhere,
    /// It should be here, but its log is damaged or the directory offline.
    #[error(transparent)]
    Offline(LogError),
}

/// Hosts partitions.
#[derive(Debug)]
pub struct ReplicaManager {
    clock: Clock,
    partitions: RwLock<BTreeMap<PartitionKey, Result<Arc<Partition>, NotHosted>>>,
    logs: LogManager,
    produces: Arc<DelayedOperations<DelayedProduce>>,
    fetches: Arc<DelayedOperations<ExpiringWait>>,
    flusher: Flusher,
}

impl ReplicaManager {
    /// Hosts nothing yet.
    pub fn new(clock: Clock, logs: LogManager) -> ReplicaManager {
        ReplicaManager {
            clock,
            partitions: RwLock::default(),
            logs,
            produces: Arc::new(DelayedOperations::new(clock)),
            fetches: Arc::new(DelayedOperations::new(clock)),
            flusher: Flusher::default(),
        }
    }

    /// The shell's clock.
    pub fn clock(&self) -> Clock {
        self.clock
    }

    /// Now.
    pub fn now(&self) -> Now {
        Now { at: self.clock.now(), wall: self.clock.wall() }
    }

    /// A hosted partition.
    ///
    /// # Errors
    /// [`NotHosted`].
    pub fn partition(&self, key: &PartitionKey) -> Result<Arc<Partition>, NotHosted> {
        let hosted = self.partitions.read().expect("no panic is survived").get(key).cloned();
        hosted.unwrap_or(Err(NotHosted::Elsewhere))
    }

    /// Every hosted partition, by topic id and index.
    pub fn partitions(&self) -> Vec<Arc<Partition>> {
        let partitions = self.partitions.read().expect("no panic is survived");
        partitions.values().filter_map(|hosted| hosted.clone().ok()).collect()
    }

    /// Produces that wait for their acknowledgement.
    pub fn delayed_produces(&self) -> &Arc<DelayedOperations<DelayedProduce>> {
        &self.produces
    }

    /// Fetches that wait for bytes: no partition is watched here, only their deadlines.
    pub fn delayed_fetches(&self) -> &Arc<DelayedOperations<ExpiringWait>> {
        &self.fetches
    }

    /// Completes what waited for this partition, after the move was published. Call it with no partition's lock held.
    pub fn wake(&self, partition: &Partition, moved: Moved) {
        self.produces.complete(&partition.key());
        Self::wake_fetches(partition, moved);
    }

    fn wake_fetches(partition: &Partition, moved: Moved) {
        partition.watchers().mark(moved, partition.snapshot().visible_bytes);
    }

    fn after_append(&self, partition: &Arc<Partition>, outcome: &AppendOutcome) {
        if outcome.needs_flush {
            self.flusher.request(Arc::clone(partition));
        }
        // Else each append before an fsync would look at all that wait for it.
        if outcome.acknowledges {
            self.produces.complete(&partition.key());
        }
        Self::wake_fetches(partition, Moved::Forward);
    }

    /// Moves a partition's log start offset; see [`Partition::delete_records`].
    ///
    /// # Errors
    /// As there.
    pub fn delete_records(
        &self,
        partition: &Partition,
        before: Option<Offset>,
    ) -> Result<Offset, DeleteRecordsError> {
        let log_start = partition.delete_records(before, self.clock.wall())?;
        self.wake(partition, Moved::Otherwise);
        Ok(log_start)
    }

    /// The partition, hosted from now on. Opens no file: a log is read on first use.
    ///
    /// # Errors
    /// Its log is offline.
    pub fn host(
        &self,
        key: PartitionKey,
        topic: &Arc<str>,
        config: &TopicConfig,
    ) -> Result<Arc<Partition>, LogError> {
        if let Ok(partition) = self.partition(&key) {
            return Ok(partition);
        }
        let topic_partition = TopicPartition::new(Arc::clone(topic), key.partition);
        let log_config = Arc::new(config.log_config());
        let log = self.logs.get_or_create(key.topic_id, &topic_partition, log_config);
        let hosted = log.map(|log| Arc::new(Partition::new(key, Arc::clone(topic), log, config)));
        let entry = hosted.clone().map_err(NotHosted::Offline);
        self.partitions.write().expect("no panic is survived").insert(key, entry);
        hosted
    }

    /// Stops hosting a partition whose topic was deleted; its files go in the background.
    pub fn delete(&self, key: PartitionKey) {
        let hosted = self.partitions.write().expect("no panic is survived").remove(&key);
        if let Some(Ok(partition)) = hosted {
            partition.resign();
            self.wake(&partition, Moved::Otherwise);
        }
        if let Err(error) = self.logs.delete(key.topic_id, key.partition) {
            // On a full disk it is tried again; else the directory is offline now, and its listener ends the broker.
            tracing::error!(topic_id = %key.topic_id, partition = key.partition, %error, "not deleted yet");
        }
    }

    /// The logs beneath.
    pub fn logs(&self) -> &LogManager {
        &self.logs
    }
}
