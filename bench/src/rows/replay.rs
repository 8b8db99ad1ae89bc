//! The replay generator on a running broker: the broker on one core, the generator on another, and the broker's own processor
//! time by byte and by request, which says what the broker costs where rates say what the pair of them does. Where it is the
//! time of an answer that counts, both have all cores.

mod fetch;
mod produce;

use std::io;
use std::time::Duration;

use crate::broker::{Broker, Kind};
use crate::failure::{Failure, io_failure};
use crate::process::CpuReading;
use crate::replay::cores::Apart;
use crate::replay::fetch::log_ends;
use crate::rows::{Context, Metric, Size, metric};

pub use fetch::ROWS as FETCH;
pub use produce::ROWS as PRODUCE;

const MIB: u64 = 1 << 20;
/// A batch that brokers take by default is at most this large (`message.max.bytes` is 12 bytes more).
const LARGE_BATCH_BYTES: usize = 1 << 20;
const RECORD_BYTES: usize = 1024;
/// No load of a row goes on for longer; one that is slower stops with what it has done.
const TIME_LIMIT: Duration = Duration::from_secs(4);

const REQUESTS_S: Metric = metric("requests_s", "requests/s", 0);
const P50: Metric = metric("p50_ms", "p50, ms", 2);
const P99: Metric = metric("p99_ms", "p99, ms", 2);

/// `full`, or little where figures do not matter.
fn mib(context: &Context, full: u64) -> u64 {
    match context.size {
        Size::Full => full * MIB,
        Size::Smoke => 8 * MIB,
    }
}

/// How much of a load goes before it unmeasured: a broker that compiles while it runs needs as much again.
fn warm_up_share(kind: Kind) -> f64 {
    if kind.compiles_while_running() { 1.0 } else { 0.125 }
}

/// With a fresh topic that the broker leads, and that has left the disk when this returns.
fn with_topic<T>(
    broker: &Broker,
    topic: &str,
    partitions: usize,
    settings: &[(&str, &str)],
    work: impl FnOnce() -> Result<T, Failure>,
) -> Result<T, Failure> {
    let mut wire = broker.connect()?;
    wire.create_topic_with(topic, partitions as i32, settings)
        .and_then(|()| log_ends(&mut wire, topic, partitions))
        .map_err(io_failure(format!("creating {topic}")))?;
    let measured = work();
    // A connection that has been idle for long may have been closed.
    broker.connect()?.delete_topic(topic).map_err(io_failure(format!("deleting {topic}")))?;
    broker.await_deletion();
    measured
}

/// Where broker and generator run meanwhile.
#[derive(Clone, Copy)]
enum Cores {
    /// The broker on one, the generator on another.
    Apart,
    /// Both on all.
    All,
}

/// The broker's processor time in `work`, which holds its connections open by what it returns.
fn measured<T>(
    broker: &Broker,
    cores: Cores,
    work: impl FnOnce() -> io::Result<T>,
) -> Result<(T, Duration), Failure> {
    let id = broker.process.id();
    let _apart = match cores {
        Cores::Apart => Apart::set(id)?,
        Cores::All => None,
    };
    let before = CpuReading::of(id)?;
    let done = work().map_err(io_failure(format!("load on {}", broker.kind.name())))?;
    Ok((done, CpuReading::of(id)?.since(before)))
}

fn ns_per_byte(cpu: Duration, bytes: u64) -> f64 {
    cpu.as_secs_f64() * 1e9 / bytes as f64
}

fn us_per_request(cpu: Duration, requests: u64) -> f64 {
    cpu.as_secs_f64() * 1e6 / requests as f64
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
