//! What is measured: each row a function with a name, the metrics it yields, and what is aimed at.

mod bad_clients;
mod footprint;
mod latency;
mod partitions;
mod perf_test;
mod recovery;
mod replay;
mod start;
mod throughput;

use std::path::PathBuf;

use crate::broker::{Broker, Kind, Programs};
use crate::failure::{Failure, io_failure};
use crate::results::Metrics;
use crate::target::Target;

pub use perf_test::SETTINGS as PERF_TEST_SETTINGS;
pub use throughput::warm_up;

/// What every row needs.
pub struct Context {
    /// Where the programs are.
    pub programs: Programs,
    /// Below it each broker has its data, on the file system that is measured.
    pub scratch: PathBuf,
    /// How much is sent and how long is waited.
    pub size: Size,
}

/// How much work a row does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Size {
    /// Enough for a figure: at most a GiB of records on the disk at a time.
    Full,
    /// Enough to see that the row runs.
    Smoke,
}

/// A row of the table.
pub struct Row {
    /// As the command line calls it.
    pub name: &'static str,
    /// For `--list`.
    pub what: &'static str,
    /// How it is measured.
    pub measure: Measure,
    /// What it yields.
    pub metrics: &'static [Metric],
    /// Which brokers have it.
    pub brokers: &'static [Kind],
    /// Brokers for which it is so slow that fewer rounds must do: at most so many. Usually empty.
    pub most_rounds: &'static [(Kind, u32)],
}

impl Row {
    /// Whether `kind` takes its turn in `round`, counted from 1.
    pub fn is_due(&self, kind: Kind, round: u32) -> bool {
        let most = self.most_rounds.iter().find(|(limited, _)| *limited == kind);
        self.brokers.contains(&kind) && most.is_none_or(|(_, most)| round <= *most)
    }
}

/// How a row is measured.
#[derive(Clone, Copy)]
pub enum Measure {
    /// Starts and stops brokers itself.
    Apart(fn(&Context, Kind) -> Result<Metrics, Failure>),
    /// On a running, warmed-up broker, with topics of its own that it deletes.
    Loaded(fn(&Context, &Broker) -> Result<Metrics, Failure>),
    /// The end of a broker that served the loaded rows.
    Last(fn(&Context, Broker) -> Result<Metrics, Failure>),
}

/// A figure of a row.
pub struct Metric {
    /// In the results.
    pub key: &'static str,
    /// In the table.
    pub title: &'static str,
    /// Decimals in the table.
    pub decimals: usize,
    /// What highwater aims at; usually nothing.
    pub targets: &'static [Target],
    /// It tells of the run or of the client and makes no broker better than another.
    pub is_information: bool,
}

impl Metric {
    /// Whether more is better: of rates. Of times, sizes and counts, less is.
    pub fn is_rate(&self) -> bool {
        self.title.contains("/s")
    }
}

const fn metric(key: &'static str, title: &'static str, decimals: usize) -> Metric {
    Metric { key, title, decimals, targets: &[], is_information: false }
}

const fn aimed(metric: Metric, targets: &'static [Target]) -> Metric {
    Metric { targets, ..metric }
}

const fn information(metric: Metric) -> Metric {
    Metric { is_information: true, ..metric }
}

const MB_S: Metric = metric("mb_s", "MB/s", 0);
const BROKER_NS: Metric = metric("broker_ns_per_byte", "broker CPU, ns per byte", 2);
const CLIENT_NS: Metric = information(metric("client_ns_per_byte", "client CPU, ns per byte", 2));
const STOP: Metric = metric("stop_ms", "stop, ms", 1);

/// The rows by the sections of the report, in the order in which they run and are shown.
pub const GROUPS: &[(&str, &[Row])] = &[
    ("Start", start::ROWS),
    ("Idle", footprint::IDLE),
    ("10,000 partitions", partitions::ROWS),
    ("Recovery", recovery::ROWS),
    ("Bad clients", bad_clients::ROWS),
    ("Produce", throughput::PRODUCE),
    ("Consume", throughput::CONSUME),
    ("Replay: produce", replay::PRODUCE),
    ("Replay: fetch", replay::FETCH),
    ("End to end", latency::ROWS),
    ("Kafka's own tool", perf_test::ROWS),
    ("After load", footprint::AFTER_LOAD),
];

/// All rows, in the order in which they run and are shown.
pub fn all() -> impl Iterator<Item = &'static Row> {
    GROUPS.iter().flat_map(|(_, rows)| rows.iter())
}

/// Whether it needs Java and Kafka's jars, whichever broker it measures.
pub fn needs_java(row: &Row) -> bool {
    perf_test::ROWS.iter().any(|perf_test| perf_test.name == row.name)
}

/// Gives `work` the name of a fresh topic, which has left the disk when this returns.
fn with_topic(
    broker: &Broker,
    name: &str,
    partitions: i32,
    work: impl FnOnce(&str) -> Result<Metrics, Failure>,
) -> Result<Metrics, Failure> {
    let creating = broker.connect()?.create_topic(name, partitions);
    creating.map_err(io_failure(format!("creating {name}")))?;
    let measured = work(name);
    // A connection that has been idle for long may have been closed; topics come and go by one each.
    let deleting = broker.connect()?.delete_topic(name);
    deleting.map_err(io_failure(format!("deleting {name}")))?;
    broker.await_deletion();
    measured
}

/// Measures several times and keeps the pass whose figure `key` is best: the least, or for rates the greatest. What a virtual
/// machine adds to a pass, by pages that its host takes away or by waking a reader more often, is only ever added. Equal for all
/// brokers.
fn best_of(
    context: &Context,
    passes: u32,
    figure: &Metric,
    mut measure: impl FnMut() -> Result<Metrics, Failure>,
) -> Result<Metrics, Failure> {
    let passes = if context.size == Size::Smoke { 1 } else { passes };
    let is_rate = figure.key == MB_S.key;
    let score = |metrics: &Metrics| {
        let value = metrics.iter().find(|(key, _)| *key == figure.key).map_or(f64::NAN, |m| m.1);
        if is_rate { -value } else { value }
    };
    let mut best = measure()?;
    for _ in 1..passes {
        let next = measure()?;
        if score(&next) < score(&best) {
            best = next;
        }
    }
    Ok(best)
}

/// The row of the machine itself, measured at the start of each round.
pub const MACHINE: &str = "machine";
/// Its metrics.
pub const MACHINE_METRICS: &[Metric] = &[
    metric("page_first_touch_us", "page_first_touch, µs", 2),
    metric("append_ns_per_byte", "append of 1 MiB pieces to a new file, CPU, ns per byte", 2),
    metric("fdatasync_p50_ms", "fdatasync after an append of 1 KiB, p50, ms", 2),
    metric("fdatasync_p99_ms", "the same, p99, ms", 2),
    metric("sender_memory_ns", "bare sender of 1 MiB answers from memory, CPU, ns per byte", 3),
    metric("both_memory_ns", "    with its receiver", 3),
    metric("sender_warm_ns", "bare sender from the page cache, the cheaper way", 3),
    metric("sender_warm_pread_ns", "    by pread and write", 3),
    metric("both_warm_pread_ns", "    with its receiver", 3),
    metric("sender_warm_sendfile_ns", "    by sendfile", 3),
    metric("both_warm_sendfile_ns", "    with its receiver", 3),
    metric("sender_cold_ns", "bare sender from the disk, the cheaper way", 3),
    metric("sender_cold_pread_ns", "    by pread and write", 3),
    metric("both_cold_pread_ns", "    with its receiver", 3),
    metric("sender_cold_sendfile_ns", "    by sendfile", 3),
    metric("both_cold_sendfile_ns", "    with its receiver", 3),
];
