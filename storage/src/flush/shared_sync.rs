//! Syncs of one thing that many ask for: one at a time, and one serves all who asked before it began.
//!
//! The system reports a failed write-back once for each open file, and a directory is opened anew for each sync: of two at the
//! same time one may see the error of what the other waits for, and the other succeed. So nobody is told of success who could
//! not also have been told of the failure: syncs exclude each other until their outcome is judged, and a failure must be
//! remembered by the judge (the offline latch) before the next one begins.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct SharedSync {
    /// How often a sync was asked for.
    asked: AtomicU64,
    /// How many of them, the first ones, are served; held while a sync runs and is judged.
    served: Mutex<u64>,
}

impl SharedSync {
    /// Returns once what was changed before the call is synced, by `sync` or by another's that began later than the call.
    /// `check` says whether an earlier one failed.
    ///
    /// # Errors
    /// Those of `check` and `sync`.
    pub(crate) fn run<E>(
        &self,
        check: impl Fn() -> Result<(), E>,
        sync: impl FnOnce() -> Result<(), E>,
    ) -> Result<(), E> {
        let ticket = self.asked.fetch_add(1, Ordering::AcqRel) + 1;
        let mut served = self.served.lock().expect("nothing panics while it syncs");
        check()?;
        if *served >= ticket {
            return Ok(());
        }
        // Who has asked by now made its changes before that.
        let asked = self.asked.load(Ordering::Acquire);
        sync()?;
        *served = asked;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicBool;
    use std::thread;

    /// One sync is under way when `others` more are asked for. Returns how many syncs there were, and who was told of success:
    /// the first one, and how many of the others.
    fn ask_during_a_sync(others: u64, first_fails: bool) -> (u64, bool, usize) {
        let (shared, syncs, failed) =
            (SharedSync::default(), AtomicU64::new(0), AtomicBool::new(false));
        let check = || if failed.load(Ordering::SeqCst) { Err(()) } else { Ok(()) };
        let sync = || {
            let is_first = syncs.fetch_add(1, Ordering::SeqCst) == 0;
            while is_first && shared.asked.load(Ordering::SeqCst) <= others {
                thread::yield_now();
            }
            failed.store(is_first && first_fails, Ordering::SeqCst);
            check()
        };
        let (first, others) = thread::scope(|scope| {
            let first = scope.spawn(|| shared.run(check, sync).is_ok());
            while syncs.load(Ordering::SeqCst) == 0 {
                thread::yield_now();
            }
            let others: Vec<_> =
                (0..others).map(|_| scope.spawn(|| shared.run(check, sync).is_ok())).collect();
            let others = others.into_iter().filter_map(|other| other.join().ok());
            (first.join().expect("it does not panic"), others.filter(|is_ok| *is_ok).count())
        });
        (syncs.into_inner(), first, others)
    }

    #[test]
    fn all_who_ask_while_a_sync_runs_share_the_next_one() {
        assert_eq!(ask_during_a_sync(0, false), (1, true, 0));
        assert_eq!(ask_during_a_sync(5, false), (2, true, 5));
    }

    #[test]
    fn after_a_failure_nobody_is_told_of_success() {
        assert_eq!(ask_during_a_sync(5, true), (1, false, 0));
    }

    #[test]
    fn what_changes_after_a_sync_is_synced_anew() {
        let (shared, syncs) = (SharedSync::default(), AtomicU64::new(0));
        for expected in 1..4 {
            let sync = || {
                syncs.fetch_add(1, Ordering::SeqCst);
                Ok::<(), ()>(())
            };
            shared.run(|| Ok(()), sync).unwrap();
            assert_eq!(syncs.load(Ordering::SeqCst), expected);
        }
    }
}
