//! What a broker takes when nobody talks to it, before and after work, and how it ends.

use std::thread::sleep;
use std::time::{Duration, Instant};

use kafka_protocol::messages::ApiVersionsRequest;

use crate::broker::{Broker, Data, Kind};
use crate::failure::{Failure, io_failure};
use crate::load::{self, Direction, Load};
use crate::process::Process;
use crate::results::Metrics;
use crate::rows::{Context, Measure, Metric, Row, STOP, Size, aimed, metric};
use crate::target::Target;
use crate::wire::{METADATA_VERSION, Wire, metadata_request};

pub(super) const MIB: f64 = (1 << 20) as f64;
const RSS: Metric = metric("rss_mib", "resident memory, MiB", 1);
const PEAK_RSS: Metric = metric("peak_rss_mib", "most resident memory, MiB", 1);
const CPU: Metric = metric("cpu_percent", "CPU, % of a core", 3);

pub const IDLE: &[Row] = &[
    Row {
        name: "idle",
        what: "a broker that nobody talks to: memory, processor time, threads, stop with nothing dirty",
        measure: Measure::Apart(idle),
        metrics: &[
            aimed(RSS, &[Target::AtMost(16.0)]),
            aimed(CPU, &[Target::AtMost(0.1)]),
            metric("threads", "threads", 0),
            aimed(STOP, &[Target::AtMost(100.0)]),
        ],
        brokers: &Kind::ALL,
        most_rounds: &[],
    },
    Row {
        name: "idle_connections",
        what: "1,000 connections that have asked for versions and metadata and then say nothing",
        measure: Measure::Apart(idle_connections),
        metrics: &[
            aimed(
                metric("kib_per_connection", "resident memory each, KiB", 2),
                &[Target::AtMost(8.0)],
            ),
            aimed(CPU, &[Target::AtMost(0.5)]),
            aimed(STOP, &[Target::AtMost(100.0)]),
        ],
        brokers: &Kind::ALL,
        most_rounds: &[(Kind::Kafka, 3)],
    },
];

pub const AFTER_LOAD: &[Row] = &[
    Row {
        name: "after_load",
        what: "the broker after the rows that load it: memory, stop",
        measure: Measure::Last(after_load),
        metrics: &[RSS, PEAK_RSS, STOP],
        brokers: &Kind::ALL,
        most_rounds: &[],
    },
    Row {
        name: "after_2_gib",
        what: "a broker of its own after librdkafka has sent and read 2 GiB of 1 KiB messages: memory two seconds later",
        measure: Measure::Apart(after_2_gib),
        metrics: &[aimed(RSS, &[Target::AtMost(48.0)]), PEAK_RSS],
        brokers: &Kind::ALL,
        most_rounds: &[(Kind::Kafka, 1), (Kind::Null, 2)],
    },
];

/// How long a broker is left alone before it is looked at, and for how long it is looked at.
pub(super) fn settle_and_look(size: Size) -> (Duration, Duration) {
    match size {
        Size::Full => (Duration::from_secs(2), Duration::from_secs(6)),
        Size::Smoke => (Duration::from_millis(100), Duration::from_millis(400)),
    }
}

/// Processor time in percent of a core while nothing is asked of the broker for so long.
///
/// The passing of time is what is measured here; there is nothing to wait for.
pub(super) fn idle_cpu_percent(process: &Process, look: Duration) -> Result<f64, Failure> {
    let before = process.cpu()?;
    let began = Instant::now();
    sleep(look);
    let used = process.cpu()?.saturating_sub(before);
    Ok(used.as_secs_f64() / began.elapsed().as_secs_f64() * 100.0)
}

/// Starts one, lets it settle, and looks at it for some seconds.
fn idle(context: &Context, kind: Kind) -> Result<Metrics, Failure> {
    let (settle, look) = settle_and_look(context.size);
    let broker = Broker::start(&context.programs, kind, Data::EmptyDirectory, &context.scratch)?;
    sleep(settle);
    let cpu_percent = idle_cpu_percent(&broker.process, look)?;
    let resident = broker.process.memory()?.resident as f64 / MIB;
    let threads = broker.process.threads() as f64;
    let stop = broker.stop()?;
    Ok(vec![
        (RSS.key, resident),
        (CPU.key, cpu_percent),
        ("threads", threads),
        (STOP.key, stop.as_secs_f64() * 1e3),
    ])
}

/// The same beside many connections that do nothing any more.
fn idle_connections(context: &Context, kind: Kind) -> Result<Metrics, Failure> {
    let (settle, look) = settle_and_look(context.size);
    let count = if context.size == Size::Full { 1000 } else { 50 };
    let broker = Broker::start(&context.programs, kind, Data::EmptyDirectory, &context.scratch)?;
    // What the first few need once and for all is not theirs.
    let open = |count: usize| -> std::io::Result<Vec<Wire>> {
        (0..count).map(|_| introduced(broker.port)).collect()
    };
    let opening = || io_failure(format!("idle connections to {}", kind.name()));
    let mut connections = open(10).map_err(opening())?;
    sleep(settle);
    let before = broker.process.memory()?.resident as f64;
    connections.extend(open(count).map_err(opening())?);
    sleep(settle);
    let cpu_percent = idle_cpu_percent(&broker.process, look)?;
    let grown = broker.process.memory()?.resident as f64 - before;
    let stop = broker.stop()?;
    drop(connections);
    Ok(vec![
        ("kib_per_connection", grown / 1024.0 / count as f64),
        (CPU.key, cpu_percent),
        (STOP.key, stop.as_secs_f64() * 1e3),
    ])
}

/// A connection after what every client asks first.
fn introduced(port: u16) -> std::io::Result<Wire> {
    let mut wire = Wire::connect(port)?;
    wire.call(&ApiVersionsRequest::default(), 0)?;
    wire.call(&metadata_request(&[]), METADATA_VERSION)?;
    Ok(wire)
}

/// The broker that has served the loaded rows.
fn after_load(_context: &Context, broker: Broker) -> Result<Metrics, Failure> {
    let memory = broker.process.memory()?;
    let stop = broker.stop()?;
    Ok(vec![
        (RSS.key, memory.resident as f64 / MIB),
        (PEAK_RSS.key, memory.peak as f64 / MIB),
        (STOP.key, stop.as_secs_f64() * 1e3),
    ])
}

/// In four topics, one after the other, so that there is half a GiB on the disk at a time.
fn after_2_gib(context: &Context, kind: Kind) -> Result<Metrics, Failure> {
    const TOPICS: u32 = 4;
    let (settle, _) = settle_and_look(context.size);
    let messages = if context.size == Size::Full { 512 << 10 } else { 4 << 10 };
    let load = Load { message_size: 1024, warm_up_messages: 0, messages };
    let broker = Broker::start(&context.programs, kind, Data::EmptyDirectory, &context.scratch)?;
    for number in 0..TOPICS {
        let topic = format!("after_2_gib_{number}");
        let refused = || io_failure(format!("{topic} at {}", kind.name()));
        broker.connect()?.create_topic(&topic, 1).map_err(refused())?;
        load::run(&context.programs, &broker, Direction::Produce, &topic, load, &[])?;
        load::run(&context.programs, &broker, Direction::Consume, &topic, load, &[])?;
        broker.connect()?.delete_topic(&topic).map_err(refused())?;
        broker.await_deletion();
    }
    sleep(settle);
    let memory = broker.process.memory()?;
    broker.stop()?;
    Ok(vec![(RSS.key, memory.resident as f64 / MIB), (PEAK_RSS.key, memory.peak as f64 / MIB)])
}
