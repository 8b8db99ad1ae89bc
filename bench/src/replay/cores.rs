//! The broker on one core and the generator on another, so that neither takes the other's time and the broker's figure is that
//! of one core. What was before comes back when the value is dropped.

use std::fs;
use std::io;

use rustix::process::Pid;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use crate::failure::{Failure, io_failure};

/// While it lives, all threads of a process run on one core, and the calling thread and those it starts on another.
pub struct Apart {
    process: u32,
    process_before: CpuSet,
    thread_before: CpuSet,
}

impl Apart {
    /// Sets both apart; None where the calling thread may use one core only. Threads that the process starts meanwhile
    /// follow those that start them.
    ///
    /// # Errors
    /// When the process is gone or belongs to somebody else.
    pub fn set(process: u32) -> Result<Option<Apart>, Failure> {
        let thread_before = sched_getaffinity(None).map_err(failed)?;
        let process_before = sched_getaffinity(pid(process)).map_err(failed)?;
        let Some((brokers, ours)) = pair()? else {
            return Ok(None);
        };
        let apart = Apart { process, process_before, thread_before };
        set_threads_of(process, &only(brokers))?;
        sched_setaffinity(None, &only(ours)).map_err(failed)?;
        Ok(Some(apart))
    }
}

impl Drop for Apart {
    fn drop(&mut self) {
        // A process that has ended needs nothing; our own thread may always have back what it had.
        let _ = set_threads_of(self.process, &self.process_before);
        let _ = sched_setaffinity(None, &self.thread_before);
    }
}

/// The cores of a broker and of a generator: the first two that the calling thread may use. None where there is one.
///
/// # Errors
/// When the system does not say.
pub fn pair() -> Result<Option<(usize, usize)>, Failure> {
    let may_use = sched_getaffinity(None).map_err(failed)?;
    let mut cores = (0..CpuSet::MAX_CPU).filter(|core| may_use.is_set(*core));
    Ok(cores.next().zip(cores.next()))
}

/// The calling thread on this core only, for good.
///
/// # Errors
/// When it may not.
pub fn stay_on(core: usize) -> Result<(), Failure> {
    sched_setaffinity(None, &only(core)).map_err(failed)
}

fn failed(error: rustix::io::Errno) -> Failure {
    io_failure("the cores of a thread")(error.into())
}

fn pid(id: u32) -> Option<Pid> {
    Pid::from_raw(id.cast_signed())
}

fn only(core: usize) -> CpuSet {
    let mut set = CpuSet::new();
    set.set(core);
    set
}

fn set_threads_of(process: u32, set: &CpuSet) -> Result<(), Failure> {
    let tasks = format!("/proc/{process}/task");
    // Twice: a thread that was started during the first pass by one that it had not reached is met by the second.
    for _ in 0..2 {
        for task in fs::read_dir(&tasks).map_err(io_failure(&tasks))? {
            let name = task.map_err(io_failure(&tasks))?.file_name();
            let Some(id) = name.to_str().and_then(|name| name.parse().ok()) else {
                continue;
            };
            match sched_setaffinity(pid(id), set) {
                // It has ended since the listing.
                Err(rustix::io::Errno::SRCH) | Ok(()) => {}
                Err(error) => return Err(io_failure(&tasks)(io::Error::from(error))),
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn a_process_and_this_thread_share_no_core_while_apart_and_are_as_before_after() {
        let mut child = Command::new("cat").stdin(Stdio::piped()).spawn().expect("cat is there");
        let cores_of = |id| sched_getaffinity(id).expect("alive");
        let (child_before, ours_before) = (cores_of(pid(child.id())), cores_of(None));
        let apart = Apart::set(child.id()).expect("our own child");
        if apart.is_some() {
            let (child, ours) = (cores_of(pid(child.id())), cores_of(None));
            assert_eq!((child.count(), ours.count()), (1, 1));
            assert_ne!(child, ours);
        }
        drop(apart);
        assert_eq!((cores_of(pid(child.id())), cores_of(None)), (child_before, ours_before));
        drop(child.stdin.take());
        child.wait().expect("it ends with its input");
    }
}
