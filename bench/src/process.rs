//! A process as the system accounts for it: processor time, memory, start and end.

use std::fs;
use std::process::{Child, ExitStatus};
use std::thread::sleep;
use std::time::{Duration, Instant};

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

    /// Processor time of all its threads, dead ones included, and of nobody else. In ticks of 10 ms, so for loads of a second and more.
    ///
    /// # Errors
    /// When the process is gone.
    pub fn cpu(&self) -> Result<Duration, Failure> {
        Ok(CpuReading::of(self.id())?.of_all_threads)
    }

    /// Processor time of the threads that live now, in nanoseconds: for idle processes, whose threads stay.
    ///
    /// # Errors
    /// When the process is gone.
    pub fn cpu_of_living_threads(&self) -> Result<Duration, Failure> {
        Ok(CpuReading::of(self.id())?.of_living_threads)
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

/// Processor time of a process at a moment. The system says it twice: exactly, for threads that live; in ticks, for all.
#[derive(Clone, Copy, Debug)]
pub struct CpuReading {
    of_all_threads: Duration,
    of_living_threads: Duration,
}

/// How far ticks may differ from the truth over an interval: one at each end.
const TICKS_ERROR: Duration = Duration::from_millis(20);

impl CpuReading {
    /// Now, of the process of that id.
    ///
    /// # Errors
    /// When there is none.
    pub fn of(process: u32) -> Result<CpuReading, Failure> {
        let of_living_threads = cpu_of_living_threads(process)?;
        Ok(CpuReading { of_all_threads: cpu_of_all_threads(process)?, of_living_threads })
    }

    /// Used since an earlier reading of the same process: exact where no thread ended meanwhile, else good to a tick or two.
    pub fn since(self, earlier: CpuReading) -> Duration {
        let in_ticks = self.of_all_threads.saturating_sub(earlier.of_all_threads);
        let exact = self.of_living_threads.saturating_sub(earlier.of_living_threads);
        if exact.abs_diff(in_ticks) <= TICKS_ERROR { exact } else { in_ticks }
    }
}

fn cpu_of_all_threads(process: u32) -> Result<Duration, Failure> {
    let path = format!("/proc/{process}/stat");
    let stat = fs::read_to_string(&path).map_err(io_failure(&path))?;
    // The second field is a name that may hold anything; what follows its closing bracket does not.
    let mut fields = stat.rsplit(')').next().unwrap_or("").split_whitespace();
    let mut ticks = || fields.next().and_then(|field| field.parse::<u64>().ok());
    let user = (0..12).map(|_| ticks()).last().flatten();
    let (Some(user), Some(system)) = (user, ticks()) else {
        return Err(Failure::Usage(format!("{path}: not understood: {stat}")));
    };
    Ok(Duration::from_secs_f64(
        (user + system) as f64 / rustix::param::clock_ticks_per_second() as f64,
    ))
}

fn cpu_of_living_threads(process: u32) -> Result<Duration, Failure> {
    let tasks = format!("/proc/{process}/task");
    let mut total = Duration::ZERO;
    for task in fs::read_dir(&tasks).map_err(io_failure(&tasks))? {
        let path = task.map_err(io_failure(&tasks))?.path().join("schedstat");
        // A thread may end between the listing and the reading.
        let Ok(schedstat) = fs::read_to_string(path) else {
            continue;
        };
        let on_cpu = schedstat.split_whitespace().next();
        total += Duration::from_nanos(on_cpu.and_then(|ns| ns.parse().ok()).unwrap_or(0));
    }
    Ok(total)
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
        assert!(process.cpu_of_living_threads().expect("alive") > Duration::ZERO);
        let memory = process.memory().expect("alive");
        assert!(memory.resident > 0 && memory.peak >= memory.resident);
        assert_eq!(process.threads(), 1);
        assert!(process.descriptors().all >= 2);
        let (_, status) = process.stop(Duration::from_secs(10)).expect("it stops");
        assert!(!status.success());
    }
}
