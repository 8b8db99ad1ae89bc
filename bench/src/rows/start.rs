//! Start: from the spawn of the process to the line that says it is ready, and to the first record that is acknowledged.

use std::time::{Duration, Instant};

use crate::broker::{Broker, Data, Kind};
use crate::failure::{Failure, io_failure};
use crate::machine;
use crate::results::{Metrics, Spread};
use crate::rows::{Context, Measure, Metric, Row, STOP, Size, aimed, information, metric};
use crate::target::Target;
use crate::wire;

const TOPIC: &str = "first";
const RECORD_BYTES: usize = 1024;
/// Raw ones before each start: the disk's mood changes within a row.
const FDATASYNCS: usize = 8;

const READY: Metric = metric("ready_ms", "spawn to ready, ms", 1);
const FIRST_ACK: Metric = metric("first_ack_ms", "spawn to first ack, ms", 1);
/// Measured between the starts, by which a start's target is reckoned.
const RAW_FDATASYNC: Metric =
    information(metric("fdatasync_p50_ms", "raw fdatasync p50 meanwhile, ms", 2));
const FIVE_MS_AND_THREE_FDATASYNCS: Target =
    Target::AtMostOf { row: None, metric: RAW_FDATASYNC.key, times: 3.0, plus: 5.0 };

pub const ROWS: &[Row] = &[
    Row {
        name: "start",
        what: "an empty directory: ready, first acknowledged record (topic by CreateTopics), stop with that record dirty",
        measure: Measure::Apart(on_an_empty_directory),
        metrics: &[
            aimed(READY, &[FIVE_MS_AND_THREE_FDATASYNCS]),
            aimed(FIRST_ACK, &[Target::AtMostTimes(0.01, Kind::Kafka)]),
            STOP,
            RAW_FDATASYNC,
        ],
        brokers: &Kind::ALL,
        most_rounds: &[],
    },
    Row {
        name: "start_ephemeral",
        what: "the same with --ephemeral, which never waits for a disk",
        measure: Measure::Apart(ephemeral),
        metrics: &[aimed(READY, &[Target::AtMost(8.0)]), FIRST_ACK, STOP],
        brokers: &[Kind::Highwater],
        most_rounds: &[],
    },
];

/// On an empty directory, with the fsyncs that a new directory needs.
fn on_an_empty_directory(context: &Context, kind: Kind) -> Result<Metrics, Failure> {
    starts(context, kind, Data::EmptyDirectory)
}

/// `--ephemeral`.
fn ephemeral(context: &Context, kind: Kind) -> Result<Metrics, Failure> {
    starts(context, kind, Data::Ephemeral)
}

fn starts(context: &Context, kind: Kind, data: Data) -> Result<Metrics, Failure> {
    let times = match (context.size, kind) {
        (Size::Full, Kind::Highwater | Kind::Null | Kind::NullMemory) => 7,
        (Size::Full, Kind::Kafka) | (Size::Smoke, _) => 1,
    };
    let mut ready = Vec::new();
    let mut first_ack = Vec::new();
    let mut stop = Vec::new();
    let milliseconds = |time: Duration| time.as_secs_f64() * 1e3;
    let mut fdatasync = Vec::new();
    for _ in 0..times {
        let raw = machine::raw_fdatasync(&context.scratch, FDATASYNCS)?;
        fdatasync.extend(raw.into_iter().map(milliseconds));
        let batch = wire::batch(1, RECORD_BYTES);
        let broker = Broker::start(&context.programs, kind, data, &context.scratch)?;
        let readied = Instant::now();
        let acknowledge = || {
            let mut wire = wire::Wire::connect(broker.port)?;
            wire.create_topic(TOPIC, 1)?;
            wire.produce(TOPIC, &batch)
        };
        acknowledge().map_err(io_failure(format!("first record, {}", kind.name())))?;
        first_ack.push(milliseconds(broker.ready + readied.elapsed()));
        ready.push(milliseconds(broker.ready));
        stop.push(milliseconds(broker.stop()?));
    }
    let median = |values: Vec<f64>| Spread::of(values).map_or(f64::NAN, |spread| spread.median);
    Ok(vec![
        ("ready_ms", median(ready)),
        ("first_ack_ms", median(first_ack)),
        ("stop_ms", median(stop)),
        (RAW_FDATASYNC.key, median(fdatasync)),
    ])
}
