//! Fetch requests: from the page cache, from the disk, and at the end of a log that grows. The measure of each is a bare sender
//! on the same machine in the same round (`machine::bare_sender`).

use std::time::Duration;

use super::{
    Cores, LARGE_BATCH_BYTES, RECORD_BYTES, TIME_LIMIT, measured, mib, ns_per_byte, warm_up_share,
    with_topic,
};
use crate::broker::{Broker, Kind};
use crate::failure::{Failure, io_failure};
use crate::machine::recycle_pages;
use crate::replay::fetch::{Load, Outcome, Readers, ends_after, log_ends};
use crate::replay::produce;
use crate::results::Metrics;
use crate::rows::{
    BROKER_NS, CLIENT_NS, Context, MB_S, Measure, Row, Size, aimed, best_of, metric,
};
use crate::target::Target;
use crate::wire;

const MAX_WAIT: Duration = Duration::from_millis(500);
const TAIL_BATCHES_S: f64 = 50.0;
/// Each reads everything, so that what producing costs beside, which is subtracted, weighs little.
const TAIL_READERS: usize = 16;
/// How often what is in a file is read, of which the least counts, as of the bare sender: between one and the next the reader is woken
/// once or ten times for an answer of a MiB, which is the kernel's doing, and on a virtual machine waking costs more than sending.
const WARM_PASSES: u32 = 5;
const COLD_PASSES: u32 = 3;
/// Of what was fetched cold: less, and the page cache was not dropped.
const LEAST_FROM_DISK: f64 = 0.5;

const CHEAPER_THAN_KAFKA: Target = Target::AtMostTimes(1.0, Kind::Kafka);

pub const ROWS: &[Row] = &[
    Row {
        name: "replay_fetch_warm",
        what: "replay: 1 connection reads from the start by 1 MiB, all in the page cache; the broker on one core; best of 5 passes",
        measure: Measure::Loaded(warm),
        metrics: &[
            aimed(BROKER_NS, &[Target::AtMostOfMachine(1.3, "sender_warm_ns"), CHEAPER_THAN_KAFKA]),
            MB_S,
            CLIENT_NS,
        ],
        brokers: &Kind::ALL,
        most_rounds: &[],
    },
    Row {
        name: "replay_fetch_cold",
        what: "replay: the same with nothing in the page cache; best of 3 passes",
        measure: Measure::Loaded(cold),
        metrics: &[
            aimed(BROKER_NS, &[Target::AtMostOfMachine(1.3, "sender_cold_ns"), CHEAPER_THAN_KAFKA]),
            MB_S,
            metric("from_disk", "share read from the disk", 2),
        ],
        brokers: &Kind::ALL,
        most_rounds: &[],
    },
    Row {
        name: "replay_fetch_tail",
        what: "replay: 16 connections read the end of a log as 50 batches of 1 MiB a second come; CPU without what producing alone takes",
        measure: Measure::Loaded(tail),
        metrics: &[
            aimed(
                BROKER_NS,
                &[Target::AtMostOfMachine(1.3, "sender_memory_ns"), CHEAPER_THAN_KAFKA],
            ),
            metric("produce_ns_per_byte", "producing alone, ns per produced byte", 2),
            CLIENT_NS,
        ],
        brokers: &Kind::ALL,
        most_rounds: &[],
    },
];

fn batches_of(topic: &str, bytes: u64) -> produce::Load {
    let batch = wire::batch_of_bytes(LARGE_BATCH_BYTES, RECORD_BYTES);
    produce::Load {
        topic: topic.to_owned(),
        partitions: 1,
        partitions_per_request: 1,
        acks: -1,
        connections: 1,
        in_flight: 4,
        requests: bytes / batch.len() as u64,
        time_limit: TIME_LIMIT,
        rate: None,
        batch,
    }
}

fn generator(broker: &Broker, load: produce::Load) -> Result<produce::Generator, Failure> {
    produce::Generator::connect(broker.port, load).map_err(io_failure("connecting the generator"))
}

fn readers(
    broker: &Broker,
    topic: &str,
    connections: usize,
    times: u32,
) -> Result<Readers, Failure> {
    let load = Load {
        topic: topic.to_owned(),
        partitions: 1,
        connections,
        max_bytes: LARGE_BATCH_BYTES as i32,
        max_wait: MAX_WAIT,
        times,
    };
    Readers::connect(broker.port, load).map_err(io_failure("connecting the readers"))
}

/// One reader from the start to the end, so many times, beside the broker's accounting.
fn read_all(broker: &Broker, topic: &str, times: u32) -> Result<(Outcome, Duration), Failure> {
    let ends = log_ends(&mut broker.connect()?, topic, 1).map_err(io_failure("the log's end"))?;
    let readers = readers(broker, topic, 1, times)?;
    let ((outcome, _connections), cpu) = measured(broker, Cores::Apart, || {
        let mut running = readers.start(|_| ends[0])?;
        Ok((running.finish()?, running))
    })?;
    Ok((outcome, cpu))
}

fn metrics(outcome: &Outcome, cpu: Duration) -> Metrics {
    vec![
        (BROKER_NS.key, ns_per_byte(cpu, outcome.bytes)),
        (MB_S.key, outcome.bytes as f64 / 1e6 / outcome.elapsed.as_secs_f64()),
        (CLIENT_NS.key, ns_per_byte(outcome.own_cpu, outcome.bytes)),
    ]
}

fn warm(context: &Context, broker: &Broker) -> Result<Metrics, Failure> {
    let topic = "replay_warm";
    with_topic(broker, topic, 1, &[], || {
        let load = batches_of(topic, mib(context, 512));
        generator(broker, load)?.run().map_err(io_failure("filling the topic"))?;
        read_all(broker, topic, if broker.kind.compiles_while_running() { 2 } else { 1 })?;
        best_of(context, WARM_PASSES, &BROKER_NS, || {
            let (outcome, cpu) = read_all(broker, topic, 1)?;
            Ok(metrics(&outcome, cpu))
        })
    })
}

fn cold(context: &Context, broker: &Broker) -> Result<Metrics, Failure> {
    let topic = "replay_cold";
    with_topic(broker, topic, 1, &[], || {
        let load = batches_of(topic, mib(context, 256));
        generator(broker, load)?.run().map_err(io_failure("filling the topic"))?;
        // Once unmeasured: what is read ahead takes larger pieces of memory than what was written, and those are recycled too.
        broker.drop_from_page_cache(topic)?;
        read_all(broker, topic, 1)?;
        best_of(context, COLD_PASSES, &BROKER_NS, || {
            broker.drop_from_page_cache(topic)?;
            let from_disk_before = broker.process.read_from_disk()?;
            let (outcome, cpu) = read_all(broker, topic, 1)?;
            let from_disk = broker.process.read_from_disk()?.saturating_sub(from_disk_before);
            let from_disk = from_disk as f64 / outcome.bytes as f64;
            // What a broker holds in its own memory may be all of a small topic.
            if from_disk < LEAST_FROM_DISK && context.size == Size::Full {
                return Err(Failure::Usage(format!("only {from_disk:.2} came from the disk")));
            }
            let mut metrics = metrics(&outcome, cpu);
            metrics.push(("from_disk", from_disk));
            Ok(metrics)
        })
    })
}

fn tail(context: &Context, broker: &Broker) -> Result<Metrics, Failure> {
    let topic = "replay_tail";
    let paced = |bytes| produce::Load {
        rate: Some(TAIL_BATCHES_S),
        time_limit: Duration::MAX,
        ..batches_of(topic, bytes)
    };
    let bytes = mib(context, 128);
    let load = paced(bytes);
    let warm_up = paced((load.requests as f64 * warm_up_share(broker.kind)) as u64 * (1 << 20));
    let with_readers = |load: &produce::Load| {
        let mut generator = generator(broker, load.clone())?;
        let readers = readers(broker, topic, TAIL_READERS, 1)?;
        let ends = ends_after(load);
        recycle_pages(&context.scratch, bytes)?;
        measured(broker, Cores::Apart, || {
            let mut running = readers.start(|_| ends[0])?;
            generator.run()?;
            Ok((running.finish()?, running))
        })
    };
    if warm_up.requests > 0 {
        with_topic(broker, topic, 1, &[], || with_readers(&warm_up))?;
    }
    let (produced, alone) = with_topic(broker, topic, 1, &[], || {
        let mut generator = generator(broker, load.clone())?;
        recycle_pages(&context.scratch, bytes)?;
        measured(broker, Cores::Apart, || generator.run())
    })?;
    let ((outcome, _connections), both) =
        with_topic(broker, topic, 1, &[], || with_readers(&load))?;
    Ok(vec![
        (BROKER_NS.key, ns_per_byte(both.saturating_sub(alone), outcome.bytes)),
        ("produce_ns_per_byte", ns_per_byte(alone, produced.bytes)),
        (CLIENT_NS.key, ns_per_byte(outcome.own_cpu, outcome.bytes)),
    ])
}
