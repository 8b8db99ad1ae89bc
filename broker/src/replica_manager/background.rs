//! The threads on which disk work that may block runs: the flusher, and the log manager's retention, recovery points,
//! checkpoints and deletions. What is due is decided by the manager; this only waits and runs.

use super::ready_set::Moved;
use super::{PartitionKey, ReplicaManager};
use std::sync::{Arc, Condvar, Mutex, Weak};
use std::thread::{self, JoinHandle};
use std::time::Duration;
use storage::log_manager::Task;

/// Longest sleep between two looks at what is due: a new topic may have brought earlier work.
const MAX_SLEEP: Duration = Duration::from_secs(1);

/// The running threads. Dropping it leaves them running; [`Self::stop`] ends and joins them.
#[derive(Debug)]
pub struct BackgroundThreads {
    replica_manager: Arc<ReplicaManager>,
    stop: Arc<(Mutex<bool>, Condvar)>,
    threads: Vec<JoinHandle<()>>,
}

impl BackgroundThreads {
    /// Starts them.
    ///
    /// # Errors
    /// The system gives no thread.
    pub fn start(replica_manager: &Arc<ReplicaManager>) -> std::io::Result<BackgroundThreads> {
        let stop = Arc::new((Mutex::new(false), Condvar::new()));
        let weak = Arc::downgrade(replica_manager);
        let flusher = {
            let owner = Arc::clone(replica_manager);
            let weak = Weak::clone(&weak);
            thread::Builder::new().name("flusher".into()).spawn(move || owner.flusher.run(&weak))?
        };
        let log_manager = {
            let stop = Arc::clone(&stop);
            let owner = Arc::clone(replica_manager);
            thread::Builder::new()
                .name("log-manager".into())
                .spawn(move || owner.run_tasks(&stop))?
        };
        Ok(BackgroundThreads {
            replica_manager: Arc::clone(replica_manager),
            stop,
            threads: vec![flusher, log_manager],
        })
    }

    /// Ends them after what they are doing.
    pub fn stop(self) {
        let (stop, changed) = &*self.stop;
        *stop.lock().expect("no panic is survived") = true;
        changed.notify_all();
        self.replica_manager.flusher.close();
        for thread in self.threads {
            thread.join().expect("no panic is survived");
        }
    }
}

impl ReplicaManager {
    fn run_tasks(&self, stop: &(Mutex<bool>, Condvar)) {
        let (stop, changed) = stop;
        loop {
            let at = self.clock.now();
            for task in self.logs.due(at) {
                self.run_task(task);
            }
            let sleep = self.logs.next_due().saturating_since(self.clock.now()).min(MAX_SLEEP);
            let is_stopped = stop.lock().expect("no panic is survived");
            let (is_stopped, _) = changed
                .wait_timeout_while(is_stopped, sleep, |is_stopped| !*is_stopped)
                .expect("no panic is survived");
            if *is_stopped {
                return;
            }
        }
    }

    /// Does one piece of the log manager's work and takes in what it moved. May block on the disk.
    pub fn run_task(&self, task: Task) {
        let outcome = self.logs.run(task, self.clock.wall());
        for error in outcome.errors {
            tracing::error!(%error, "background work failed");
        }
        for ((topic_id, partition), _) in outcome.moved {
            let key = PartitionKey { topic_id, partition };
            if let Ok(partition) = self.partition(&key) {
                partition.note_log_moved(self.clock.now());
                self.wake(&partition, Moved::Otherwise);
            }
        }
    }
}
