//! A process as the system accounts for it: processor time, memory, start and end.

use std::fs;
use std::process::{Child, ExitStatus};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::time::ClockId;
use rustix::process::{Pid, Signal, kill_process};

use crate::failure::{Failure, io_failure};

/// How often an ending process is looked at; the resolution of stop times.
const EXIT_POLL: Duration = Duration::from_micros(200);

/// A child that does not outlive this value.
pub struct Process {
    child: Child,
}

impl Process {
    /// Takes care of a child that has just been spawned.
    pub fn new(child: Child) -> Process {
        Process { child }
    }

    /// The process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Processor time of all its threads so far, dead ones included, and of nobody else: by its clock, whose unit is the
    /// nanosecond. (`/proc` tells the same in ticks of 10 ms, which a broker that serves a GiB uses a dozen of.)
    ///
    /// # Errors
    /// When the process is gone.
    pub fn cpu(&self) -> Result<Duration, Failure> {
        CpuReading::of(self.id()).map(|reading| reading.0)
    }

    /// Resident memory in bytes: now and the most there has been.
    ///
    /// # Errors
    /// When the process is gone.
    pub fn memory(&self) -> Result<Memory, Failure> {
        let path = format!("/proc/{}/status", self.id());
        let status = fs::read_to_string(&path).map_err(io_failure(&path))?;
        let bytes = |key: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(key));
            let kib = line.and_then(|rest| rest.trim_end_matches("kB").trim().parse::<u64>().ok());
            kib.map_or(0, |kib| kib * 1024)
        };
        Ok(Memory { resident: bytes("VmRSS:"), peak: bytes("VmHWM:") })
    }

    /// Bytes that it has had read from a disk so far; what the page cache held is not among them.
    ///
    /// # Errors
    /// When the process is gone.
    pub fn read_from_disk(&self) -> Result<u64, Failure> {
        read_from_disk(self.id())
    }

    /// How many threads it has.
    pub fn threads(&self) -> usize {
        fs::read_dir(format!("/proc/{}/task", self.id())).map_or(0, Iterator::count)
    }

    /// How many files and sockets it has open, and how many of them are sockets.
    pub fn descriptors(&self) -> Descriptors {
        let links = fs::read_dir(format!("/proc/{}/fd", self.id())).into_iter().flatten().flatten();
        let mut found = Descriptors::default();
        for link in links {
            found.all += 1;
            // One that was closed since the listing counts as a file: the error of one is no matter.
            let target = fs::read_link(link.path()).unwrap_or_default();
            found.sockets += usize::from(target.to_string_lossy().starts_with("socket:"));
        }
        found
    }

    /// Whether it has ended already, and how.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Ends it at once (SIGKILL) and waits until it is gone.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn kill(&mut self) -> Result<(), Failure> {
        let killed = self.child.kill().and_then(|()| self.child.wait());
        killed.map(|_| ()).map_err(io_failure(format!("killing process {}", self.id())))
    }

    /// Asks it to stop (SIGTERM) and waits for its end. Returns the time between the two.
    ///
    /// # Errors
    /// When it has not ended after `limit`.
    pub fn stop(&mut self, limit: Duration) -> Result<(Duration, ExitStatus), Failure> {
        let pid = Pid::from_child(&self.child);
        let asked = Instant::now();
        kill_process(pid, Signal::TERM)
            .map_err(|error| io_failure(format!("stopping process {}", self.id()))(error.into()))?;
        loop {
            if let Some(status) = self.ended() {
                return Ok((asked.elapsed(), status));
            }
            if asked.elapsed() > limit {
                let what = format!("process {} still runs {limit:?} after SIGTERM", self.id());
                return Err(Failure::Usage(what));
            }
            sleep(EXIT_POLL);
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.ended().is_none() {
            // It is ours and nobody waits for its answer any more.
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// Processor time of a process at a moment: of all its threads so far, dead ones included.
#[derive(Clone, Copy, Debug)]
pub struct CpuReading(Duration);

impl CpuReading {
    /// Now, of the process of that id.
    ///
    /// # Errors
    /// When there is none.
    pub fn of(process: u32) -> Result<CpuReading, Failure> {
        let clock = ClockId::pid_cpu_clock_id(nix::unistd::Pid::from_raw(process.cast_signed()));
        let used = clock.and_then(|clock| clock.now());
        let used =
            used.map_err(|error| io_failure(format!("CPU of process {process}"))(error.into()))?;
        Ok(CpuReading(Duration::new(used.tv_sec().unsigned_abs(), used.tv_nsec() as u32)))
    }

    /// Used since an earlier reading of the same process.
    pub fn since(self, earlier: CpuReading) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

/// As [`Process::read_from_disk`], of any process.
///
/// # Errors
/// When there is none.
pub fn read_from_disk(process: u32) -> Result<u64, Failure> {
    let path = format!("/proc/{process}/io");
    let io = fs::read_to_string(&path).map_err(io_failure(&path))?;
    let bytes = io.lines().find_map(|line| line.strip_prefix("read_bytes:")?.trim().parse().ok());
    bytes.ok_or_else(|| Failure::Usage(format!("{path}: not understood: {io}")))
}

/// Processor time of the calling thread, in nanoseconds.
pub fn own_thread_cpu() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(now.tv_sec.unsigned_abs(), now.tv_nsec as u32)
}

/// Open descriptors of a process.
#[derive(Clone, Copy, Debug, Default)]
pub struct Descriptors {
    /// Of any kind.
    pub all: usize,
    /// Sockets among them.
    pub sockets: usize,
}

/// Resident memory, in bytes.
#[derive(Clone, Copy, Debug)]
pub struct Memory {
    /// Now.
    pub resident: u64,
    /// The most since the start.
    pub peak: u64,
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn a_process_that_computed_has_used_processor_time_and_memory() {
        // `read` keeps the shell alive after its loop until stdin closes.
        let child = Command::new("bash")
            .args(["-c", "for ((i = 0; i < 200000; i++)); do :; done; echo; read"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("bash is there");
        let mut process = Process::new(child);
        let mut line = [0];
        let stdout = process.child.stdout.as_mut().expect("piped");
        std::io::Read::read_exact(stdout, &mut line).expect("the loop ends");
        assert!(process.cpu().expect("alive") > Duration::ZERO);
        let memory = process.memory().expect("alive");
        assert!(memory.resident > 0 && memory.peak >= memory.resident);
        assert_eq!(process.threads(), 1);
        assert!(process.descriptors().all >= 2);
        let (_, status) = process.stop(Duration::from_secs(10)).expect("it stops");
        assert!(!status.success());
    }
}
