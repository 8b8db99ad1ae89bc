//! Threads that wait for the disk so that a runtime worker, and all its connections, need not: cold logs, cold pages,
//! lookups by time.

use tokio::sync::Semaphore;

/// So many wait at once, in the whole process; the others queue.
const MAX_DISK_READERS: usize = 4;

static DISK_READERS: Semaphore = Semaphore::const_new(MAX_DISK_READERS);

/// Runs `work`, which may wait for the disk, on a thread for that. It is carried out even if the caller gives up. `None` when
/// the runtime is ending.
pub(crate) async fn run<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    let permit = DISK_READERS.acquire().await.ok()?;
    let work = move || {
        let result = work();
        drop(permit);
        result
    };
    tokio::task::spawn_blocking(work).await.ok()
}
