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

/// Lookups of offsets at once: each may decompress a large batch, and those who send must not queue behind them.
const MAX_LOOKUPS: usize = 2;

static LOOKUPS: Semaphore = Semaphore::const_new(MAX_LOOKUPS);

/// As [`run`], for the lookup of one partition's offset. These have threads of their own.
pub(crate) async fn run_lookup<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Option<T> {
    run_permitted(LOOKUPS.acquire().await.ok()?, work).await
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::task::Poll;

    #[tokio::test]
    async fn lookups_leave_the_threads_of_those_who_send() {
        let all = LOOKUPS.acquire_many(MAX_LOOKUPS as u32).await.unwrap();
        let mut lookup = Box::pin(run_lookup(|| 1));
        assert!(
            std::future::poll_fn(|task| Poll::Ready(lookup.as_mut().poll(task))).await.is_pending()
        );
        assert_eq!(run(|| 2).await, Some(2));
        drop(all);
        assert_eq!(lookup.await, Some(1));
    }
}
