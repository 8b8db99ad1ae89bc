//! What is measured: each row a function with a name, the metrics it yields, and what is aimed at.

mod footprint;
mod start;
mod throughput;

use std::path::PathBuf;

use crate::broker::{Broker, Kind, Programs};
use crate::failure::Failure;
use crate::results::Metrics;

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
    /// What highwater aims at.
    pub target: Option<Target>,
}

/// What is aimed at.
#[derive(Clone, Copy, Debug)]
pub enum Target {
    /// No more than this.
    AtMost(f64),
    /// No more than this many milliseconds and so many raw fdatasync p50, which the row itself measures.
    AtMostMsAndFdatasyncs(f64, f64),
}

impl Target {
    /// The limit, where one raw fdatasync takes `fdatasync_ms`.
    pub fn limit(self, fdatasync_ms: f64) -> f64 {
        match self {
            Target::AtMost(limit) => limit,
            Target::AtMostMsAndFdatasyncs(ms, fdatasyncs) => ms + fdatasyncs * fdatasync_ms,
        }
    }
}

const fn metric(key: &'static str, title: &'static str, decimals: usize) -> Metric {
    Metric { key, title, decimals, target: None }
}

const fn aimed(metric: Metric, target: Target) -> Metric {
    Metric { target: Some(target), ..metric }
}

const MB_S: Metric = metric("mb_s", "MB/s", 0);
const BROKER_NS: Metric = metric("broker_ns_per_byte", "broker CPU, ns per byte", 2);
const CLIENT_NS: Metric = metric("client_ns_per_byte", "client CPU, ns per byte", 2);
const READY: Metric = metric("ready_ms", "spawn to ready, ms", 1);
const FIRST_ACK: Metric = metric("first_ack_ms", "spawn to first ack, ms", 1);
/// Measured between the starts, by which a start's target is reckoned.
pub const RAW_FDATASYNC: Metric = metric("fdatasync_p50_ms", "raw fdatasync p50 meanwhile, ms", 2);
const STOP: Metric = metric("stop_ms", "stop, ms", 1);

/// All rows, in the order in which they run and are shown.
pub const ROWS: &[Row] = &[
    Row {
        name: "start",
        what: "an empty directory: ready, first acknowledged record (topic by CreateTopics), stop with that record dirty",
        measure: Measure::Apart(start::on_an_empty_directory),
        metrics: &[aimed(READY, Target::AtMostMsAndFdatasyncs(5.0, 5.0)), FIRST_ACK, STOP],
        brokers: &Kind::ALL,
    },
    Row {
        name: "start_ephemeral",
        what: "the same with --ephemeral, which never waits for a disk",
        measure: Measure::Apart(start::ephemeral),
        metrics: &[aimed(READY, Target::AtMost(10.0)), FIRST_ACK, STOP],
        brokers: &[Kind::Highwater],
    },
    Row {
        name: "idle",
        what: "a broker that nobody talks to: memory, processor time, threads, stop with nothing dirty",
        measure: Measure::Apart(footprint::idle),
        metrics: &[
            aimed(metric("rss_mib", "resident memory, MiB", 1), Target::AtMost(16.0)),
            aimed(metric("cpu_percent", "CPU, % of a core", 3), Target::AtMost(0.1)),
            metric("threads", "threads", 0),
            aimed(STOP, Target::AtMost(100.0)),
        ],
        brokers: &Kind::ALL,
    },
    Row {
        name: "produce_1k",
        what: "librdkafka produces 1 KiB messages, acks=all, one partition",
        measure: Measure::Loaded(throughput::produce_1k),
        metrics: &[MB_S, aimed(BROKER_NS, Target::AtMost(1.5)), CLIENT_NS],
        brokers: &Kind::ALL,
    },
    Row {
        name: "consume_1k",
        what: "librdkafka reads them from the start, all in the page cache",
        measure: Measure::Loaded(throughput::consume_1k),
        metrics: &[MB_S, BROKER_NS, CLIENT_NS],
        brokers: &Kind::ALL,
    },
    Row {
        name: "produce_100",
        what: "librdkafka produces 100 byte messages, acks=all, one partition",
        measure: Measure::Loaded(throughput::produce_100),
        metrics: &[MB_S, BROKER_NS, CLIENT_NS],
        brokers: &Kind::ALL,
    },
    Row {
        name: "consume_100",
        what: "librdkafka reads them from the start, all in the page cache",
        measure: Measure::Loaded(throughput::consume_100),
        metrics: &[MB_S, BROKER_NS, CLIENT_NS],
        brokers: &Kind::ALL,
    },
    Row {
        name: "after_load",
        what: "the broker after the rows that load it: memory, stop",
        measure: Measure::Last(footprint::after_load),
        metrics: &[
            metric("rss_mib", "resident memory, MiB", 1),
            metric("peak_rss_mib", "most resident memory, MiB", 1),
            STOP,
        ],
        brokers: &Kind::ALL,
    },
];

/// The row of the machine itself, measured at the start of each round.
pub const MACHINE: &str = "machine";
/// Its metrics.
pub const MACHINE_METRICS: &[Metric] = &[
    metric("page_first_touch_us", "page_first_touch, µs", 2),
    metric("append_ns_per_byte", "append of 1 MiB pieces to a new file, CPU, ns per byte", 2),
];
