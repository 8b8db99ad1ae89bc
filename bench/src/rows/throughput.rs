//! librdkafka at full speed, one client of each kind. The client takes most of the two cores that such runs usually have, so the
//! broker's own processor time per byte says more about it than the rate does.

use crate::broker::{Broker, Kind};
use crate::failure::Failure;
use crate::load::{self, Direction, Load, Outcome};
use crate::machine::recycle_pages;
use crate::results::Metrics;
use crate::rows::{
    BROKER_NS, CLIENT_NS, Context, MB_S, Measure, Metric, Row, Size, aimed, best_of, information,
    metric, with_topic,
};
use crate::target::Target;

const PRODUCED: &[Metric] = &[MB_S, BROKER_NS, CLIENT_NS];
const CONSUMED: &[Metric] = PRODUCED;
const DISK_SHARE: Metric =
    information(metric("disk_percent", "read from the disk, % of the bytes", 0));

const fn row(
    name: &'static str,
    what: &'static str,
    metrics: &'static [Metric],
    measure: fn(&Context, &Broker) -> Result<Metrics, Failure>,
) -> Row {
    let measure = Measure::Loaded(measure);
    Row { name, what, measure, metrics, brokers: &Kind::ALL, most_rounds: &[] }
}

pub const PRODUCE: &[Row] = &[
    row(
        "produce_1k",
        "librdkafka produces 1 KiB messages, acks=all, one partition; best of 3 passes of 256 MiB",
        &[
            aimed(
                MB_S,
                &[Target::AtLeastTimes(0.9, Kind::Null), Target::AtLeastTimes(1.8, Kind::Kafka)],
            ),
            BROKER_NS,
            CLIENT_NS,
        ],
        |context, broker| produce_often(context, broker, ONE_KIB),
    ),
    row(
        "produce_100",
        "librdkafka produces 100 byte messages, acks=all, one partition; best of 3 passes of 128 MiB",
        &[
            aimed(
                MB_S,
                &[Target::AtLeastTimes(0.9, Kind::Null), Target::AtLeastTimes(1.2, Kind::Kafka)],
            ),
            BROKER_NS,
            CLIENT_NS,
        ],
        |context, broker| produce_often(context, broker, HUNDRED_BYTES),
    ),
    row("produce_1k_acks1", "1 KiB, acks=1, one partition", PRODUCED, |context, broker| {
        produce(context, broker, Shape { acks: "1", ..ONE_KIB })
    }),
    row("produce_100_acks1", "100 bytes, acks=1, one partition", PRODUCED, |context, broker| {
        produce(context, broker, Shape { acks: "1", ..HUNDRED_BYTES })
    }),
    row("produce_1k_6p", "1 KiB, acks=all, 6 partitions in turn", PRODUCED, |context, broker| {
        produce(context, broker, Shape { partitions: 6, ..ONE_KIB })
    }),
    row(
        "produce_100_6p",
        "100 bytes, acks=all, 6 partitions in turn",
        PRODUCED,
        |context, broker| produce(context, broker, Shape { partitions: 6, ..HUNDRED_BYTES }),
    ),
    row(
        "produce_1k_100p",
        "1 KiB, acks=all, 100 partitions in turn",
        PRODUCED,
        |context, broker| produce(context, broker, Shape { partitions: 100, mib: 256, ..ONE_KIB }),
    ),
    row(
        "produce_100_100p",
        "100 bytes, acks=all, 100 partitions in turn",
        PRODUCED,
        |context, broker| {
            produce(context, broker, Shape { partitions: 100, mib: 96, ..HUNDRED_BYTES })
        },
    ),
    row("produce_1k_gzip", "1 KiB of text, gzip", PRODUCED, |context, broker| {
        produce(context, broker, Shape { compression: "gzip", mib: 64, ..ONE_KIB })
    }),
    row("produce_1k_snappy", "1 KiB of text, snappy", PRODUCED, |context, broker| {
        produce(context, broker, Shape { compression: "snappy", ..ONE_KIB })
    }),
    row("produce_1k_lz4", "1 KiB of text, lz4", PRODUCED, |context, broker| {
        produce(context, broker, Shape { compression: "lz4", ..ONE_KIB })
    }),
    row("produce_1k_zstd", "1 KiB of text, zstd", PRODUCED, |context, broker| {
        produce(context, broker, Shape { compression: "zstd", mib: 256, ..ONE_KIB })
    }),
];

pub const CONSUME: &[Row] = &[
    row(
        "consume_1k_warm",
        "librdkafka reads 1 KiB messages from the start, all in the page cache; best of 3 passes",
        &[aimed(MB_S, &[Target::AtLeastTimes(0.85, Kind::Null)]), BROKER_NS, CLIENT_NS],
        |context, broker| consume(context, broker, ONE_KIB, Cache::Warm),
    ),
    row(
        "consume_100_warm",
        "100 byte messages from the start, all in the page cache; best of 3 passes",
        CONSUMED,
        |context, broker| consume(context, broker, HUNDRED_BYTES, Cache::Warm),
    ),
    row(
        "consume_1k_cold",
        "1 KiB messages from the start, on the disk and dropped from the page cache; best of 3 passes",
        &[MB_S, BROKER_NS, CLIENT_NS, DISK_SHARE],
        |context, broker| consume(context, broker, ONE_KIB, Cache::Cold),
    ),
    row(
        "consume_100_cold",
        "100 byte messages from the start, on the disk and dropped from the page cache; best of 3 passes",
        &[MB_S, BROKER_NS, CLIENT_NS, DISK_SHARE],
        |context, broker| consume(context, broker, HUNDRED_BYTES, Cache::Cold),
    ),
    row(
        "consume_1k_tail",
        "1 KiB messages as a second librdkafka produces them, best of 3 passes; the consumer's CPU, the broker's for both",
        &[aimed(MB_S, &[Target::AtLeastTimes(0.85, Kind::Null)]), BROKER_NS, CLIENT_NS],
        |context, broker| {
            let shape = Shape { mib: ONE_KIB.mib / 2, ..ONE_KIB };
            best_of(context, PASSES, &MB_S, || tail(context, broker, shape))
        },
    ),
    row(
        "consume_100_tail",
        "100 byte messages as a second librdkafka produces them",
        CONSUMED,
        |context, broker| tail(context, broker, HUNDRED_BYTES),
    ),
];

/// Of the rows that write and have a target, and of those that read.
const PASSES: u32 = 3;

/// What a producer sends.
#[derive(Clone, Copy)]
struct Shape {
    message_size: usize,
    /// Values in all, in MiB; as much as takes every broker some seconds at most, and never more than a GiB.
    mib: u64,
    partitions: i32,
    acks: &'static str,
    compression: &'static str,
}

const ONE_KIB: Shape =
    Shape { message_size: 1024, mib: 512, partitions: 1, acks: "all", compression: "none" };
const HUNDRED_BYTES: Shape = Shape { message_size: 100, mib: 256, ..ONE_KIB };

impl Shape {
    fn load(self, context: &Context) -> Load {
        let (mib, warm_up_messages) = match context.size {
            // A sixteenth, so that a row which sends little warms up with little.
            Size::Full => (self.mib, (self.mib << 16) / self.message_size as u64),
            Size::Smoke => (2, 1000),
        };
        let messages = (mib << 20) / self.message_size as u64;
        Load { message_size: self.message_size, warm_up_messages, messages }
    }

    fn settings(self) -> Vec<String> {
        vec![format!("acks={}", self.acks), format!("compression.codec={}", self.compression)]
    }
}

/// Where the records are when a consumer asks for them.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Cache {
    /// Written a moment ago.
    Warm,
    /// On the disk only, but for what the broker itself keeps.
    Cold,
}

/// Best of some passes, on recycled pages: the rows that have a target.
fn produce_often(context: &Context, broker: &Broker, shape: Shape) -> Result<Metrics, Failure> {
    let shape = Shape { mib: shape.mib / 2, ..shape };
    best_of(context, PASSES, &MB_S, || produce(context, broker, shape))
}

fn produce(context: &Context, broker: &Broker, shape: Shape) -> Result<Metrics, Failure> {
    let load = shape.load(context);
    with_topic(broker, "produced", shape.partitions, |topic| {
        recycle_pages(&context.scratch, load.bytes())?;
        let programs = &context.programs;
        let outcome =
            load::run(programs, broker, Direction::Produce, topic, load, &shape.settings())?;
        Ok(metrics(load, outcome))
    })
}

/// Fills a topic of its own first, so that the row can run alone.
fn consume(
    context: &Context,
    broker: &Broker,
    shape: Shape,
    cache: Cache,
) -> Result<Metrics, Failure> {
    let load = shape.load(context);
    let programs = &context.programs;
    with_topic(broker, "consumed", 1, |topic| {
        load::run(programs, broker, Direction::Produce, topic, load, &shape.settings())?;
        best_of(context, PASSES, &MB_S, || {
            if cache == Cache::Cold {
                broker.drop_from_page_cache(topic)?;
            }
            let read_before = broker.process.read_from_disk()?;
            let outcome = load::run(programs, broker, Direction::Consume, topic, load.all(), &[])?;
            let mut metrics = metrics(load.all(), outcome);
            if cache == Cache::Cold {
                let read = broker.process.read_from_disk()? - read_before;
                metrics.push((DISK_SHARE.key, read as f64 * 100.0 / load.all().bytes() as f64));
            }
            Ok(metrics)
        })
    })
}

/// The consumer waits at the end of an empty topic when the producer begins.
fn tail(context: &Context, broker: &Broker, shape: Shape) -> Result<Metrics, Failure> {
    let load = Load { warm_up_messages: 0, ..shape.load(context) };
    let programs = &context.programs;
    with_topic(broker, "followed", 1, |topic| {
        recycle_pages(&context.scratch, load.bytes())?;
        let mut consumer = load::start(programs, broker, Direction::Follow, topic, load, &[])?;
        let mut producer =
            load::start(programs, broker, Direction::Produce, topic, load, &shape.settings())?;
        let before = broker.process.cpu()?;
        consumer.go();
        producer.go();
        let figures = consumer.figures();
        let broker_cpu = broker.process.cpu()?.saturating_sub(before);
        producer.figures()?; // a producer that failed is the reason for a consumer that waited in vain
        Ok(metrics(load, Outcome::of(&figures?, broker_cpu)?))
    })
}

/// The same work, not measured: so that code that compiles while it runs is hot, and pages and connections have been used.
///
/// # Errors
/// As the rows.
pub fn warm_up(context: &Context, broker: &Broker) -> Result<(), Failure> {
    let rounds = match context.size {
        // Kafka's figures halve from the first to the third run of a process.
        Size::Full if broker.kind.compiles_while_running() => 3,
        Size::Full => 1,
        Size::Smoke => 0,
    };
    for _ in 0..rounds {
        if broker.kind == Kind::NullMemory {
            produce(context, broker, ONE_KIB)?;
            continue; // there is nothing to read
        }
        consume(context, broker, ONE_KIB, Cache::Warm)?;
        consume(context, broker, HUNDRED_BYTES, Cache::Warm)?;
    }
    Ok(())
}

/// The rate in MB/s at which the broker takes 1 KiB messages, measured shortly.
///
/// # Errors
/// As the rows.
pub fn peak(context: &Context, broker: &Broker) -> Result<f64, Failure> {
    let shape = Shape { mib: 192, ..ONE_KIB };
    let measured = produce(context, broker, shape)?;
    let rate = measured.iter().find(|(key, _)| *key == MB_S.key);
    Ok(rate.map_or(0.0, |(_, rate)| *rate))
}

fn metrics(load: Load, outcome: Outcome) -> Metrics {
    let bytes = load.bytes() as f64;
    vec![
        (MB_S.key, bytes / 1e6 / outcome.elapsed.as_secs_f64()),
        (BROKER_NS.key, outcome.broker_cpu.as_secs_f64() * 1e9 / bytes),
        (CLIENT_NS.key, outcome.client_cpu.as_secs_f64() * 1e9 / bytes),
    ]
}
