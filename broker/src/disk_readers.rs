//! Threads that wait for the disk so that a runtime worker, and all its connections, need not: cold logs, cold pages,
//! lookups by time.

use tokio::sync::{Semaphore, SemaphorePermit};

/// So many wait at once, in the whole process; the others queue.
pub(crate) const MAX_DISK_READERS: usize = 4;

static DISK_READERS: Semaphore = Semaphore::const_new(MAX_DISK_READERS);

/// The right to one of the threads.
pub(crate) type Permit = SemaphorePermit<'static>;

/// Queues for a thread. `None` when the runtime is ending.
pub(crate) async fn permit() -> Option<Permit> {
    DISK_READERS.acquire().await.ok()
}

/// Runs `work`, which may wait for the disk, on a thread for that. It is carried out even if the caller gives up. `None` when
/// the runtime is ending.
pub(crate) async fn run<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    run_permitted(permit().await?, work).await
}

/// As [`run`], by one who has queued already.
pub(crate) async fn run_permitted<T: Send + 'static>(
    permit: Permit,
    work: impl FnOnce() -> T + Send + 'static,
) -> Option<T> {
    let work = move || {
        let result = work();
        drop(permit);
        result
    };
    tokio::task::spawn_blocking(work).await.ok()
}
