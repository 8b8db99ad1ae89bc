//! librdkafka at full speed, one client and one partition. The client takes most of the two cores that such runs usually
//! have, so the broker's own processor time per byte says more about it than the rate does.

use crate::broker::{Broker, Kind};
use crate::failure::{Failure, io_failure};
use crate::load::{self, Direction, Load, Outcome};
use crate::results::Metrics;
use crate::rows::{BROKER_NS, CLIENT_NS, Context, MB_S, Measure, Row, Size, aimed};
use crate::target::Target;

const WARM_UP_ROUNDS: u32 = 1;
/// Kafka's figures halve from the first to the third run of a process.
const WARM_UP_ROUNDS_OF_A_JVM: u32 = 3;

pub const ROWS: &[Row] = &[
    Row {
        name: "produce_1k",
        what: "librdkafka produces 1 KiB messages, acks=all, one partition",
        measure: Measure::Loaded(produce_1k),
        metrics: &[
            aimed(
                MB_S,
                &[Target::AtLeastTimes(0.9, Kind::Null), Target::AtLeastTimes(1.8, Kind::Kafka)],
            ),
            BROKER_NS,
            CLIENT_NS,
        ],
        brokers: &Kind::ALL,
        most_rounds: &[],
    },
    Row {
        name: "consume_1k",
        what: "librdkafka reads them from the start, all in the page cache",
        measure: Measure::Loaded(consume_1k),
        metrics: &[aimed(MB_S, &[Target::AtLeastTimes(0.85, Kind::Null)]), BROKER_NS, CLIENT_NS],
        brokers: &Kind::ALL,
        most_rounds: &[],
    },
    Row {
        name: "produce_100",
        what: "librdkafka produces 100 byte messages, acks=all, one partition",
        measure: Measure::Loaded(produce_100),
        metrics: &[
            aimed(
                MB_S,
                &[Target::AtLeastTimes(0.9, Kind::Null), Target::AtLeastTimes(1.2, Kind::Kafka)],
            ),
            BROKER_NS,
            CLIENT_NS,
        ],
        brokers: &Kind::ALL,
        most_rounds: &[],
    },
    Row {
        name: "consume_100",
        what: "librdkafka reads them from the start, all in the page cache",
        measure: Measure::Loaded(consume_100),
        metrics: &[MB_S, BROKER_NS, CLIENT_NS],
        brokers: &Kind::ALL,
        most_rounds: &[],
    },
];

fn load_of(context: &Context, message_size: usize) -> Load {
    let (bytes, warm_up_messages) = match context.size {
        Size::Full => (if message_size < 1024 { 256 << 20 } else { 512 << 20 }, 100_000),
        Size::Smoke => (8 << 20, 1000),
    };
    Load { message_size, warm_up_messages, messages: bytes / message_size as u64 }
}

/// Produce, 1 KiB.
fn produce_1k(context: &Context, broker: &Broker) -> Result<Metrics, Failure> {
    produce(context, broker, "produce_1k", load_of(context, 1024))
}

/// Produce, 100 bytes.
fn produce_100(context: &Context, broker: &Broker) -> Result<Metrics, Failure> {
    produce(context, broker, "produce_100", load_of(context, 100))
}

/// Consume, 1 KiB.
fn consume_1k(context: &Context, broker: &Broker) -> Result<Metrics, Failure> {
    consume(context, broker, "consume_1k", load_of(context, 1024))
}

/// Consume, 100 bytes.
fn consume_100(context: &Context, broker: &Broker) -> Result<Metrics, Failure> {
    consume(context, broker, "consume_100", load_of(context, 100))
}

/// The same work, not measured: so that code that compiles while it runs is hot, and pages and connections have been used.
///
/// # Errors
/// As the rows.
pub fn warm_up(context: &Context, broker: &Broker) -> Result<(), Failure> {
    let rounds = match context.size {
        Size::Full if broker.kind.compiles_while_running() => WARM_UP_ROUNDS_OF_A_JVM,
        Size::Full => WARM_UP_ROUNDS,
        Size::Smoke => 0,
    };
    for _ in 0..rounds {
        consume(context, broker, "warm_1k", load_of(context, 1024))?;
        consume(context, broker, "warm_100", load_of(context, 100))?;
    }
    Ok(())
}

fn produce(
    context: &Context,
    broker: &Broker,
    topic: &str,
    load: Load,
) -> Result<Metrics, Failure> {
    with_topic(broker, topic, || {
        let outcome = load::run(&context.programs, broker, Direction::Produce, topic, load)?;
        Ok(metrics(load, outcome))
    })
}

/// Fills a topic of its own first, so that the row can run alone.
fn consume(
    context: &Context,
    broker: &Broker,
    topic: &str,
    load: Load,
) -> Result<Metrics, Failure> {
    with_topic(broker, topic, || {
        load::run(&context.programs, broker, Direction::Produce, topic, load)?;
        let whole =
            Load { warm_up_messages: 0, messages: load.warm_up_messages + load.messages, ..load };
        let outcome = load::run(&context.programs, broker, Direction::Consume, topic, whole)?;
        Ok(metrics(whole, outcome))
    })
}

/// With a fresh topic of one partition, which has left the disk when this returns.
fn with_topic(
    broker: &Broker,
    topic: &str,
    work: impl FnOnce() -> Result<Metrics, Failure>,
) -> Result<Metrics, Failure> {
    let mut wire = broker.connect()?;
    wire.create_topic(topic, 1).map_err(io_failure(format!("creating {topic}")))?;
    let measured = work();
    // A connection that has been idle for long may have been closed; topics come and go by one each.
    broker.connect()?.delete_topic(topic).map_err(io_failure(format!("deleting {topic}")))?;
    broker.await_deletion();
    measured
}

fn metrics(load: Load, outcome: Outcome) -> Metrics {
    let bytes = load.bytes() as f64;
    vec![
        ("mb_s", bytes / 1e6 / outcome.elapsed.as_secs_f64()),
        ("broker_ns_per_byte", outcome.broker_cpu.as_secs_f64() * 1e9 / bytes),
        ("client_ns_per_byte", outcome.client_cpu.as_secs_f64() * 1e9 / bytes),
    ]
}
