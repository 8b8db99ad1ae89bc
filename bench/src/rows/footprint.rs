//! What a broker takes when nobody talks to it, before and after work, and how it ends.

use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::broker::{Broker, Data, Kind};
use crate::failure::Failure;
use crate::results::Metrics;
use crate::rows::{Context, Measure, Row, STOP, Size, aimed, metric};
use crate::target::Target;

const MIB: f64 = (1 << 20) as f64;

pub const IDLE: &[Row] = &[Row {
    name: "idle",
    what: "a broker that nobody talks to: memory, processor time, threads, stop with nothing dirty",
    measure: Measure::Apart(idle),
    metrics: &[
        aimed(metric("rss_mib", "resident memory, MiB", 1), &[Target::AtMost(16.0)]),
        aimed(metric("cpu_percent", "CPU, % of a core", 3), &[Target::AtMost(0.1)]),
        metric("threads", "threads", 0),
        aimed(STOP, &[Target::AtMost(100.0)]),
    ],
    brokers: &Kind::ALL,
    most_rounds: &[],
}];

pub const AFTER_LOAD: &[Row] = &[Row {
    name: "after_load",
    what: "the broker after the rows that load it: memory, stop",
    measure: Measure::Last(after_load),
    metrics: &[
        metric("rss_mib", "resident memory, MiB", 1),
        metric("peak_rss_mib", "most resident memory, MiB", 1),
        STOP,
    ],
    brokers: &Kind::ALL,
    most_rounds: &[],
}];

/// Starts one, lets it settle, and looks at it for some seconds.
fn idle(context: &Context, kind: Kind) -> Result<Metrics, Failure> {
    let (settle, look) = match context.size {
        Size::Full => (Duration::from_secs(2), Duration::from_secs(6)),
        Size::Smoke => (Duration::from_millis(100), Duration::from_millis(400)),
    };
    let broker = Broker::start(&context.programs, kind, Data::EmptyDirectory, &context.scratch)?;
    // The passing of time is what is measured here; there is nothing to wait for.
    sleep(settle);
    let before = broker.process.cpu()?;
    let began = Instant::now();
    sleep(look);
    let used = broker.process.cpu()?.saturating_sub(before);
    let share = used.as_secs_f64() / began.elapsed().as_secs_f64();
    let resident = broker.process.memory()?.resident as f64 / MIB;
    let threads = broker.process.threads() as f64;
    let stop = broker.stop()?;
    Ok(vec![
        ("rss_mib", resident),
        ("cpu_percent", share * 100.0),
        ("threads", threads),
        ("stop_ms", stop.as_secs_f64() * 1e3),
    ])
}

/// The broker that has served the loaded rows.
fn after_load(_context: &Context, broker: Broker) -> Result<Metrics, Failure> {
    let memory = broker.process.memory()?;
    let stop = broker.stop()?;
    Ok(vec![
        ("rss_mib", memory.resident as f64 / MIB),
        ("peak_rss_mib", memory.peak as f64 / MIB),
        ("stop_ms", stop.as_secs_f64() * 1e3),
    ])
}
