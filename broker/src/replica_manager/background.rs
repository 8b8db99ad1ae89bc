//! The threads on which disk work that may block runs: the flusher, and the log manager's retention, recovery points,
//! checkpoints and deletions. What is due is decided by the manager; this only waits and runs.

use super::ready_set::Moved;
use super::{PartitionKey, ReplicaManager};
use std::sync::{Arc, Condvar, Mutex, Weak};
use std::thread::{self, JoinHandle};
use std::time::Duration;
use storage::log_manager::Task;

/// Pause after being woken, so that ten thousand logs that become dirty one after the other are looked at in a few rounds.
/// None of this work is urgent: a flush that somebody waits for is the flusher's.
const GATHER: Duration = Duration::from_millis(50);

/// What the log manager's thread is told, and how it is woken.
#[derive(Debug, Default)]
struct Signals {
    state: Mutex<SignalState>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct SignalState {
    is_stopped: bool,
    has_work: bool,
}

impl Signals {
    fn change(&self, change: impl FnOnce(&mut SignalState)) {
        change(&mut self.state.lock().expect("no panic is survived"));
        self.changed.notify_all();
    }

    fn is_stopped(&self) -> bool {
        self.state.lock().expect("no panic is survived").is_stopped
    }

    /// Sleeps until stopped, or until `until` holds, at most for so long. Returns whether it was stopped.
    fn sleep(&self, at_most: Duration, until: impl Fn(&SignalState) -> bool) -> bool {
        let state = self.state.lock().expect("no panic is survived");
        let (mut state, _) = self
            .changed
            .wait_timeout_while(state, at_most, |state| !state.is_stopped && !until(state))
            .expect("no panic is survived");
        if until(&state) {
            state.has_work = false;
        }
        state.is_stopped
    }
}

/// The running threads. Dropping it leaves them running; [`Self::stop`] ends and joins them.
#[derive(Debug)]
pub struct BackgroundThreads {
    replica_manager: Arc<ReplicaManager>,
    signals: Arc<Signals>,
    threads: Vec<JoinHandle<()>>,
}

impl BackgroundThreads {
    /// Starts them.
    ///
    /// # Errors
    /// The system gives no thread.
    pub fn start(replica_manager: &Arc<ReplicaManager>) -> std::io::Result<BackgroundThreads> {
        let signals = Arc::new(Signals::default());
        let woken = Arc::downgrade(&signals);
        replica_manager.logs().dir().set_work_listener(move || {
            if let Some(signals) = woken.upgrade() {
                signals.change(|state| state.has_work = true);
            }
        });
        let weak = Arc::downgrade(replica_manager);
        let flusher = {
            let owner = Arc::clone(replica_manager);
            let weak = Weak::clone(&weak);
            thread::Builder::new().name("flusher".into()).spawn(move || owner.flusher.run(&weak))?
        };
        let log_manager = {
            let signals = Arc::clone(&signals);
            let owner = Arc::clone(replica_manager);
            thread::Builder::new()
                .name("log-manager".into())
                .spawn(move || owner.run_tasks(&signals))?
        };
        Ok(BackgroundThreads {
            replica_manager: Arc::clone(replica_manager),
            signals,
            threads: vec![flusher, log_manager],
        })
    }

    /// Ends them after what they are doing.
    pub fn stop(self) {
        self.signals.change(|state| state.is_stopped = true);
        self.replica_manager.flusher.close();
        for thread in self.threads {
            thread.join().expect("no panic is survived");
        }
    }
}

impl ReplicaManager {
    fn run_tasks(&self, signals: &Signals) {
        loop {
            let at = self.clock.now();
            for task in self.logs.due(at) {
                if signals.is_stopped() {
                    return; // what remains is the clean stop's, or the next start's
                }
                self.run_task(task);
            }
            let sleep = self.logs.next_due().saturating_since(self.clock.now());
            if signals.sleep(sleep, |state| state.has_work) || signals.sleep(GATHER, |_| false) {
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
