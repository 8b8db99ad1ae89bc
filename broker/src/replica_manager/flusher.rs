//! Group commit for topics that flush each message: one thread fsyncs partitions that are owed a flush. What is
//! appended while an fsync runs is covered by the next one, so one fsync acknowledges all that was appended before it
//! began (DESIGN D7). Partitions of one group are synced at the same time, because the file system's journal commits for all
//! who wait: each still has its own fsync and its own answer, and its waiters are woken by that alone.

use super::ReplicaManager;
use super::partition::Partition;
use super::ready_set::Moved;
use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, Weak};
use storage::flush::in_parallel;

#[derive(Debug, Default)]
struct Owed {
    partitions: BTreeMap<super::PartitionKey, Arc<Partition>>,
    is_closed: bool,
}

/// Partitions that are owed a flush.
#[derive(Debug, Default)]
pub struct Flusher {
    owed: Arc<(Mutex<Owed>, Condvar)>,
}

impl Flusher {
    /// Owes `partition` a flush. Cheap; never blocks on the disk.
    pub fn request(&self, partition: Arc<Partition>) {
        let (owed, changed) = &*self.owed;
        owed.lock().expect("no panic is survived").partitions.insert(partition.key(), partition);
        changed.notify_one();
    }

    /// Ends the thread once nothing is owed.
    pub fn close(&self) {
        let (owed, changed) = &*self.owed;
        owed.lock().expect("no panic is survived").is_closed = true;
        changed.notify_all();
    }

    /// Flushes until [`Self::close`]; the body of the flusher thread.
    pub(super) fn run(&self, replica_manager: &Weak<ReplicaManager>) {
        let (owed, changed) = &*self.owed;
        loop {
            let batch = {
                let mut owed = owed.lock().expect("no panic is survived");
                while owed.partitions.is_empty() && !owed.is_closed {
                    owed = changed.wait(owed).expect("no panic is survived");
                }
                std::mem::take(&mut owed.partitions)
            };
            if batch.is_empty() {
                return;
            }
            let Some(replica_manager) = replica_manager.upgrade() else { return };
            let group: Vec<Arc<Partition>> = batch.into_values().collect();
            let threads = replica_manager.logs.dir().fs().sync_threads();
            in_parallel(threads, &group, |partition| flush(&replica_manager, partition));
        }
    }
}

impl ReplicaManager {
    /// Flushes what is owed a flush now, on this thread: for those who run without the flusher's.
    pub fn flush_owed(&self) {
        let owed = {
            let (owed, _) = &*self.flusher.owed;
            std::mem::take(&mut owed.lock().expect("no panic is survived").partitions)
        };
        for partition in owed.into_values() {
            flush(self, &partition);
        }
    }
}

fn flush(replica_manager: &ReplicaManager, partition: &Partition) {
    if let Err(error) = partition.flush(replica_manager.clock().now()) {
        // The directory's listener ends the broker; what waits is answered with an error.
        tracing::error!(%partition, %error, "flush failed");
    }
    replica_manager.wake(partition, Moved::Forward);
}
