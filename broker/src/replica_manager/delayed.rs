//! The shell around a purgatory: completes by key, expires by one task, forgets what its client no longer waits for.

use crate::clock::Clock;
use crate::purgatory::{EntryId, Purgatory};
use crate::replica_manager::PartitionKey;
use std::sync::{Arc, Mutex, MutexGuard};
use storage::instant::Instant;
use tokio::sync::Notify;

/// An operation that waits for partitions.
pub trait DelayedOperation: Send + 'static {
    /// Whether nothing is left to wait for, judged by published snapshots alone: it runs under the purgatory's lock
    /// and must take no partition's.
    fn is_complete(&mut self) -> bool;

    /// Tells the one who waits. Runs once, after the operation has left the purgatory.
    fn finish(self, is_expired: bool);
}

/// Operations of one kind that wait.
#[derive(Debug)]
pub struct DelayedOperations<T> {
    purgatory: Mutex<Purgatory<PartitionKey, T>>,
    sooner: Notify,
    clock: Clock,
}

impl<T: DelayedOperation> DelayedOperations<T> {
    /// Nothing waits yet.
    pub fn new(clock: Clock) -> DelayedOperations<T> {
        DelayedOperations { purgatory: Mutex::default(), sooner: Notify::new(), clock }
    }

    /// Watches `keys`, then checks again, because a key may have moved since the caller's own check.
    /// Dropping the guard forgets the operation without finishing it.
    pub fn watch(
        self: &Arc<Self>,
        keys: Vec<PartitionKey>,
        deadline: Instant,
        operation: T,
    ) -> DelayedGuard<T> {
        let (id, done) = {
            let mut purgatory = self.lock();
            let was_first = purgatory.poll_timeout();
            let id = purgatory.watch(keys, deadline, operation);
            if was_first.is_none_or(|first| deadline < first) {
                self.sooner.notify_one();
            }
            (id, purgatory.take_one_if(id, T::is_complete))
        };
        if let Some(operation) = done {
            operation.finish(false);
        }
        DelayedGuard { operations: Arc::clone(self), id }
    }

    /// A key has moved: finishes what is done by that.
    pub fn complete(&self, key: &PartitionKey) {
        let done = self.lock().take_if(key, T::is_complete);
        for operation in done {
            operation.finish(false);
        }
    }

    /// Expires operations at their deadlines; runs as one task for as long as the broker does.
    pub async fn expire(self: Arc<Self>) {
        loop {
            let next = self.lock().poll_timeout();
            let sooner = self.sooner.notified();
            match next {
                None => sooner.await,
                Some(deadline) => {
                    tokio::select! {
                        () = sooner => continue,
                        () = tokio::time::sleep_until(self.clock.to_tokio(deadline)) => {}
                    }
                    self.expire_due();
                }
            }
        }
    }

    /// Expires the operations whose deadline has come.
    pub fn expire_due(&self) {
        let expired = self.lock().take_expired(self.clock.now());
        for operation in expired {
            operation.finish(true);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Purgatory<PartitionKey, T>> {
        self.purgatory.lock().expect("a panic aborts the process, so no lock is poisoned")
    }
}

/// Keeps an operation waiting while it lives.
#[derive(Debug)]
pub struct DelayedGuard<T: DelayedOperation> {
    operations: Arc<DelayedOperations<T>>,
    id: EntryId,
}

impl<T: DelayedOperation> Drop for DelayedGuard<T> {
    fn drop(&mut self) {
        drop(self.operations.lock().remove(self.id));
    }
}
