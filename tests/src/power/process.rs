//! The broker under test: the real binary, by the contract of its command line.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::sync::oneshot;
use tokio::time::timeout;

/// Recovery of a few MiB takes milliseconds; a loaded machine may take its time.
const START_LIMIT: Duration = Duration::from_secs(20);
const STOP_LIMIT: Duration = Duration::from_secs(20);

/// How to start it.
#[derive(Clone, Debug)]
pub struct Launch {
    /// The binary.
    pub highwater: PathBuf,
    /// `--data-dir`.
    pub data_dir: PathBuf,
    /// Where its stderr goes, appended.
    pub log: PathBuf,
    /// `--set` for each.
    pub settings: Vec<String>,
    /// For a binary with failpoints, in the syntax of the `fail` crate.
    pub failpoints: Option<String>,
}

/// A running broker; killed when dropped.
#[derive(Debug)]
pub struct Broker {
    child: Child,
    ready_line: Option<oneshot::Receiver<io::Result<String>>>,
}

impl Broker {
    /// Starts it and does not wait.
    ///
    /// # Errors
    /// There is no such binary.
    pub fn start(launch: &Launch) -> io::Result<Broker> {
        let log = OpenOptions::new().create(true).append(true).open(&launch.log)?;
        let mut command = Command::new(&launch.highwater);
        command.args(["--listen", "127.0.0.1:0", "--data-dir"]).arg(&launch.data_dir);
        for setting in &launch.settings {
            command.args(["--set", setting]);
        }
        if let Some(failpoints) = &launch.failpoints {
            command.env("FAILPOINTS", failpoints);
        }
        let mut child =
            command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log).spawn().map_err(
                |error| {
                    io::Error::new(error.kind(), format!("{}: {error}", launch.highwater.display()))
                },
            )?;
        let stdout = child.stdout.take().expect("it was asked for");
        let (sender, ready_line) = oneshot::channel();
        std::thread::spawn(move || {
            let mut line = String::new();
            // Who was cut before the line no longer listens.
            let _ = sender.send(BufReader::new(stdout).read_line(&mut line).map(|_| line));
        });
        Ok(Broker { child, ready_line: Some(ready_line) })
    }

    /// Waits for the ready line; the address in it.
    ///
    /// # Errors
    /// It ended before, or takes too long.
    pub async fn ready(&mut self) -> Result<String, String> {
        let line = self.ready_line.take().expect("asked once a start");
        let line = match timeout(START_LIMIT, line).await {
            Ok(Ok(Ok(line))) => line,
            Ok(_) => return Err("its stdout is gone".to_owned()),
            Err(_) => return Err(format!("not ready after {START_LIMIT:?}")),
        };
        // highwater ready: node 1, 127.0.0.1:9092, 12 ms
        match line.split(", ").nth(1) {
            Some(address) if line.starts_with("highwater ready") => Ok(address.to_owned()),
            _ => Err(format!("it ended before it was ready: {:?} {line:?}", self.child.wait())),
        }
    }

    fn signal(&self, signal: Signal) -> io::Result<()> {
        let pid = Pid::from_child(&self.child);
        Ok(kill_process(pid, signal)?)
    }

    /// Holds it where it is, all threads, those included that were in a call of the system's.
    ///
    /// # Errors
    /// It is gone.
    pub async fn freeze(&self) -> io::Result<()> {
        self.signal(Signal::STOP)?;
        while !self.is_frozen()? {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        Ok(())
    }

    fn is_frozen(&self) -> io::Result<bool> {
        for task in std::fs::read_dir(format!("/proc/{}/task", self.child.id()))? {
            // pid (name) state …, where the name may have any character. A thread may have ended meanwhile.
            let stat = std::fs::read_to_string(task?.path().join("stat")).unwrap_or_default();
            let state = stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
            if state.is_some_and(|state| !"TZX".contains(state)) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Whether it ended by itself, and how.
    ///
    /// # Errors
    /// Of the system.
    pub fn ended(&mut self) -> io::Result<Option<ExitStatus>> {
        self.child.try_wait()
    }

    /// kill -9, and waits for its end.
    ///
    /// # Errors
    /// Of the system.
    pub fn kill(mut self) -> io::Result<ExitStatus> {
        // Refused only if it has ended already.
        let _ = self.child.kill();
        self.child.wait()
    }

    /// SIGTERM, and waits for its end.
    ///
    /// # Errors
    /// It does not end in time, or not with exit code 0.
    pub async fn stop(mut self) -> Result<(), String> {
        self.signal(Signal::TERM).map_err(|error| error.to_string())?;
        let ended = tokio::task::spawn_blocking(move || self.child.wait());
        match timeout(STOP_LIMIT, ended).await {
            Ok(Ok(Ok(status))) if status.success() => Ok(()),
            Ok(outcome) => Err(format!("SIGTERM ended it with {outcome:?}")),
            Err(_) => Err(format!("not stopped {STOP_LIMIT:?} after SIGTERM")),
        }
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The last lines of a broker's log, for a report.
pub fn last_lines(log: &std::path::Path, count: usize) -> String {
    let Ok(file) = File::open(log) else { return String::new() };
    let lines: Vec<String> = BufReader::new(file).lines().map_while(Result::ok).collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}
