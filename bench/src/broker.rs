//! The measured brokers: how each is started with equal settings, when it counts as ready, how it stops.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::failure::{Failure, io_failure};
use crate::process::Process;
use crate::replay::page_cache;
use crate::wire::{METADATA_VERSION, Wire, metadata_request};

/// From spawn to ready; a Java broker on a loaded machine takes its time.
const READY_LIMIT: Duration = Duration::from_secs(120);
/// Ten thousand files synced one by one on a slow disk take their time too.
const STOP_LIMIT: Duration = Duration::from_secs(300);
/// How often a broker without a ready line is asked whether it is ready.
const READY_POLL: Duration = Duration::from_millis(2);
/// Deleted topics leave the disk soon, so that the next row writes to recycled pages. Equal for all.
const DELETE_DELAY_MS: u32 = 500;

/// Which broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Ours.
    Highwater,
    /// The ceiling: CRC and append, nothing else.
    Null,
    /// The ceiling without a disk: CRC and nothing else. It stores nothing, so nothing can be read from it.
    NullMemory,
    /// Apache Kafka.
    Kafka,
}

impl Kind {
    /// All that store what they are sent, in the order of the table's columns.
    pub const ALL: [Kind; 3] = [Kind::Highwater, Kind::Null, Kind::Kafka];

    /// With the one that does not, for rows that only produce; it is information, nothing is aimed at by it.
    pub const WITH_NULL_MEMORY: [Kind; 4] =
        [Kind::Highwater, Kind::Null, Kind::NullMemory, Kind::Kafka];

    /// As the command line and the results call it.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Highwater => "highwater",
            Kind::Null => "null",
            Kind::NullMemory => "null_memory",
            Kind::Kafka => "kafka",
        }
    }

    /// The broker of that name.
    pub fn named(name: &str) -> Option<Kind> {
        Kind::WITH_NULL_MEMORY.into_iter().find(|kind| kind.name() == name)
    }

    /// Whether it must run hot before its figures mean anything.
    pub fn compiles_while_running(self) -> bool {
        self == Kind::Kafka
    }
}

/// Where the programs are.
#[derive(Clone, Debug)]
pub struct Programs {
    /// `highwater`.
    pub highwater: PathBuf,
    /// `null_broker`.
    pub null_broker: PathBuf,
    /// The script that starts Apache Kafka.
    pub apache_kafka: PathBuf,
    /// `rdkafka_load`.
    pub rdkafka_load: PathBuf,
    /// `rdkafka_latency`.
    pub rdkafka_latency: PathBuf,
}

/// A broker that is ready.
pub struct Broker {
    /// Which.
    pub kind: Kind,
    /// Its process.
    pub process: Process,
    /// Where it listens, on loopback.
    pub port: u16,
    /// From spawn until its ready line was read; for Kafka, until it answered Metadata with itself.
    pub ready: Duration,
    data: PathBuf,
}

/// Where a broker keeps its data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Data {
    /// An empty directory below the given one.
    EmptyDirectory,
    /// That directory as the last broker of this kind left it.
    LeftBehind,
    /// A directory of its own choice that it removes, without any fsync. Only highwater has it.
    Ephemeral,
}

impl Broker {
    /// Starts a broker and waits until it is ready.
    ///
    /// # Errors
    /// When it cannot be started, ends, or is not ready in time; its log is named.
    pub fn start(
        programs: &Programs,
        kind: Kind,
        data: Data,
        scratch: &Path,
    ) -> Result<Broker, Failure> {
        let directory = scratch.join(kind.name());
        if data != Data::LeftBehind {
            remove(&directory)?;
        }
        fs::create_dir_all(scratch).map_err(io_failure(format!("{}", scratch.display())))?;
        let log_path = scratch.join(format!("{}.log", kind.name()));
        let log = fs::File::create(&log_path).map_err(io_failure("the broker's log"))?;
        let delete_delay = format!("log.segment.delete.delay.ms={DELETE_DELAY_MS}");
        let mut command;
        let mut port = 0;
        match kind {
            Kind::Highwater => {
                command = Command::new(&programs.highwater);
                match data {
                    Data::EmptyDirectory | Data::LeftBehind => {
                        command.arg("--data-dir").arg(&directory)
                    }
                    Data::Ephemeral => command.arg("--ephemeral"),
                };
                command.args(["--listen", "127.0.0.1:0", "--set", &delete_delay]);
            }
            Kind::Null | Kind::NullMemory => {
                command = Command::new(&programs.null_broker);
                command.arg(&directory);
                if kind == Kind::NullMemory {
                    command.arg("--discard");
                }
            }
            Kind::Kafka => {
                port = two_free_ports()?;
                command = Command::new(&programs.apache_kafka);
                command.args(["start", "--port", &port.to_string()]);
                command.args(["--set", &delete_delay, "--data-dir"]);
                command.arg(&directory);
            }
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log);
        let spawned = Instant::now();
        let mut child = command.spawn().map_err(io_failure(format!("starting {command:?}")))?;
        let stdout = child.stdout.take().expect("stdout was asked to be a pipe");
        let process = Process::new(child);
        let mut broker = Broker { kind, process, port, ready: Duration::ZERO, data: directory };
        let see_log = |what: String| Failure::Broker {
            broker: kind.name(),
            what: format!("{what}; see {}", log_path.display()),
        };
        if kind == Kind::Kafka {
            std::thread::spawn(move || for _line in BufReader::new(stdout).lines() {});
            broker.await_metadata(spawned).map_err(see_log)?;
            broker.ready = spawned.elapsed();
        } else {
            // A broker that hangs here is ended by whoever runs this; all of ours print a line or end.
            let mut line = String::new();
            let mut stdout = BufReader::new(stdout);
            stdout.read_line(&mut line).map_err(io_failure("the broker's stdout"))?;
            broker.ready = spawned.elapsed();
            broker.port = ready_port(&line)
                .ok_or_else(|| see_log(format!("printed no ready line but {line:?}")))?;
            std::thread::spawn(move || for _line in stdout.lines() {});
        }
        Ok(broker)
    }

    /// Kafka prints no ready line: it is ready when it answers Metadata and knows a broker, itself.
    fn await_metadata(&mut self, spawned: Instant) -> Result<(), String> {
        let none = metadata_request(&[]);
        loop {
            let answer = Wire::connect(self.port).and_then(|mut w| w.call(&none, METADATA_VERSION));
            if answer.is_ok_and(|answer| !answer.brokers.is_empty()) {
                return Ok(());
            }
            if let Some(status) = self.process.ended() {
                return Err(format!("ended while starting: {status}"));
            }
            if spawned.elapsed() > READY_LIMIT {
                return Err(format!("not ready after {READY_LIMIT:?}"));
            }
            sleep(READY_POLL);
        }
    }

    /// A connection to it.
    ///
    /// # Errors
    /// When it does not listen.
    pub fn connect(&self) -> Result<Wire, Failure> {
        Wire::connect(self.port).map_err(io_failure(format!("connecting to {}", self.kind.name())))
    }

    /// `host:port`, for clients.
    pub fn bootstrap(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Stops it by SIGTERM, removes its data, and returns how long it took to end.
    ///
    /// # Errors
    /// When it does not end, or ends with a failure.
    pub fn stop(self) -> Result<Duration, Failure> {
        let data = self.data.clone();
        let took = self.stop_and_leave()?;
        remove(&data)?;
        Ok(took)
    }

    /// Stops it by SIGTERM and leaves its data for [`Data::LeftBehind`]. Returns how long it took to end.
    ///
    /// # Errors
    /// When it does not end, or ends with a failure.
    pub fn stop_and_leave(mut self) -> Result<Duration, Failure> {
        let (took, status) = self.process.stop(STOP_LIMIT)?;
        // A JVM that ends by SIGTERM after an orderly shutdown exits with 143; the null broker just dies of it.
        if self.kind == Kind::Highwater && !status.success() {
            return Err(Failure::Broker {
                broker: self.kind.name(),
                what: format!("stopped with {status}"),
            });
        }
        Ok(took)
    }

    /// Ends it by SIGKILL, as a crash of the process would, and leaves its data for [`Data::LeftBehind`].
    ///
    /// # Errors
    /// When the system refuses.
    pub fn kill(mut self) -> Result<(), Failure> {
        self.process.kill()
    }

    /// Brings a topic's files to the disk and out of the page cache. What the broker keeps in its own memory stays there.
    ///
    /// # Errors
    /// When the files cannot be synced.
    pub fn drop_from_page_cache(&self, topic: &str) -> Result<(), Failure> {
        page_cache::drop_topic(&self.data, topic).map(|_| ())
    }

    /// Waits until its deleted topics have left the disk.
    pub fn await_deletion(&self) {
        let deadline = Instant::now() + Duration::from_millis(u64::from(DELETE_DELAY_MS) * 20);
        // Indexes and metadata stay; records of a row do not.
        while size_of(&self.data) > 64 << 20 && Instant::now() < deadline {
            sleep(Duration::from_millis(50));
        }
    }
}

fn remove(directory: &Path) -> Result<(), Failure> {
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(io_failure(format!("removing {}", directory.display()))(error))
        }
        _ => Ok(()),
    }
}

/// Bytes that the files below `directory` take on the disk.
fn size_of(directory: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let files = files_below(directory).into_iter();
    files.filter_map(|file| file.metadata().ok()).map(|metadata| metadata.blocks() * 512).sum()
}

/// Every file below `directory`; what goes meanwhile is left out.
fn files_below(directory: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => files.extend(files_below(&entry.path())),
            Ok(_) => files.push(entry.path()),
            Err(_) => {}
        }
    }
    files
}

/// The port in `highwater ready: node 1, 127.0.0.1:9092, 12 ms`, or in a line that is nothing else.
fn ready_port(line: &str) -> Option<u16> {
    let address = line.split(", ").find(|part| part.contains(':') && !part.contains("ready"));
    let port = address.map_or(line, |address| address.rsplit(':').next().unwrap_or(""));
    port.trim().parse().ok()
}

/// A free port whose next one is free too: Kafka's script puts the controller there.
fn two_free_ports() -> Result<u16, Failure> {
    for _ in 0..100 {
        let one = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(io_failure("a port"))?;
        let port = one.local_addr().map_err(io_failure("a port"))?.port();
        if port < u16::MAX && TcpListener::bind((Ipv4Addr::LOCALHOST, port + 1)).is_ok() {
            return Ok(port);
        }
    }
    Err(Failure::Usage("no two free ports side by side".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_port_is_read_from_both_ready_lines() {
        let line = "highwater ready: node 1, 127.0.0.1:40123, 12 ms\n";
        assert_eq!(ready_port(line), Some(40123));
        assert_eq!(ready_port("40124\n"), Some(40124));
        assert_eq!(ready_port(""), None);
        assert_eq!(ready_port("error: no such flag\n"), None);
    }
}
