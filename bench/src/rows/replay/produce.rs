//! Produce requests of four shapes: large, small, each synced before its answer, and over many partitions.

use std::time::Duration;

use super::{
    Cores, LARGE_BATCH_BYTES, P50, P99, RECORD_BYTES, REQUESTS_S, TIME_LIMIT, measured, mib,
    milliseconds, ns_per_byte, us_per_request, warm_up_share, with_topic,
};
use crate::broker::{Broker, Kind};
use crate::failure::{Failure, io_failure};
use crate::machine::{self, recycle_pages};
use crate::replay::latencies::Latencies;
use crate::replay::produce::{Generator, Load, Outcome};
use crate::results::Metrics;
use crate::rows::{
    BROKER_NS, CLIENT_NS, Context, MB_S, Measure, Row, Size, aimed, best_of, metric,
};
use crate::target::Target;
use crate::wire;

/// 64 KiB, as of producers that batch well over several partitions.
const MIDDLE_BATCH_BYTES: usize = 64 << 10;
/// Of 128 MiB each.
const PASSES_OF_1M: u32 = 5;
/// Raw ones before and after the row, each.
const FDATASYNCS: usize = 300;

pub const ROWS: &[Row] = &[
    Row {
        name: "replay_produce_1m",
        what: "replay: 1 MiB batches, acks=all, 1 connection with 4 in flight; the broker on one core; best of 5 passes of 128 MiB",
        measure: Measure::Loaded(produce_1m),
        metrics: &[
            aimed(BROKER_NS, &[Target::AtMost(0.8), Target::AtMostTimes(1.0 / 3.0, Kind::Kafka)]),
            MB_S,
            CLIENT_NS,
            P50,
            P99,
        ],
        brokers: &Kind::WITH_NULL_MEMORY,
        most_rounds: &[],
    },
    Row {
        name: "replay_small",
        what: "replay: 1 record of 1 KiB a request, acks=all, 16 connections with 8 in flight; the broker on one core",
        measure: Measure::Loaded(small),
        metrics: &[
            aimed(
                metric("broker_us_per_request", "broker CPU, µs per request", 2),
                &[Target::AtMost(10.0), Target::AtMostTimes(0.25, Kind::Kafka)],
            ),
            aimed(REQUESTS_S, &[Target::AtLeastTimes(1.0, Kind::Kafka)]),
            metric("client_us_per_request", "client CPU, µs per request", 2),
            P50,
            P99,
        ],
        brokers: &Kind::WITH_NULL_MEMORY,
        most_rounds: &[],
    },
    Row {
        name: "replay_fsync",
        what: "replay: flush.messages=1, 1 record of 1 KiB a request, acks=all, one partition, 64 connections with 1 in flight; both on all cores",
        measure: Measure::Loaded(fsync),
        metrics: &[
            aimed(REQUESTS_S, &[Target::AtLeastTimes(10.0, Kind::Kafka)]),
            P50,
            aimed(
                P99,
                &[Target::AtMostOf { row: None, metric: "raw_p99_ms", times: 2.0, plus: 0.5 }],
            ),
            metric("raw_p99_ms", "raw fdatasync p99, the lesser of before and after, ms", 2),
            metric("broker_us_per_request", "broker CPU, µs per request", 2),
        ],
        // The null broker syncs nothing.
        brokers: &[Kind::Highwater, Kind::Kafka],
        most_rounds: &[],
    },
    Row {
        name: "replay_partitions",
        what: "replay: 64 KiB batches, acks=all, over 10 and over 1,000 partitions in turn, 4 connections with 4 in flight",
        measure: Measure::Loaded(partitions),
        metrics: &[
            metric("broker_ns_per_byte_10", "broker CPU, ns per byte, 10 partitions", 2),
            metric("broker_ns_per_byte_1000", "the same, 1,000 partitions", 2),
            aimed(metric("ratio", "1,000 to 10", 2), &[Target::AtMost(1.5)]),
        ],
        brokers: &Kind::ALL,
        most_rounds: &[],
    },
];

/// One record of 1 KiB, until something else is said.
fn load_of(topic: &str) -> Load {
    Load {
        topic: topic.to_owned(),
        partitions: 1,
        partitions_per_request: 1,
        batch: wire::batch(1, RECORD_BYTES),
        acks: -1,
        connections: 1,
        in_flight: 1,
        requests: 0,
        time_limit: TIME_LIMIT,
        rate: None,
    }
}

/// So many bytes of batches; at least a request for each partition.
fn of_bytes(load: Load, bytes: u64) -> Load {
    let requests = (bytes / load.batch.len() as u64).max(load.partitions as u64);
    Load { requests, ..load }
}

/// A part of the load to warm up, then the whole of it beside the broker's accounting, on so many bytes of recycled
/// pages. The topic is there.
fn warm_and_measure(
    context: &Context,
    broker: &Broker,
    load: &Load,
    recycled_bytes: u64,
    cores: Cores,
) -> Result<(Outcome, Duration), Failure> {
    let connect = |load: Load| {
        Generator::connect(broker.port, load).map_err(io_failure("connecting the generator"))
    };
    let warm_up = |load: Load| connect(load)?.run().map_err(io_failure("warming up"));
    // What is made at the first batch of a partition is made here; with Kafka that is an fsync each.
    let requests = load.partitions as u64;
    warm_up(Load { requests, time_limit: Duration::MAX, ..load.clone() })?;
    let requests = (load.requests as f64 * warm_up_share(broker.kind)) as u64;
    warm_up(Load { requests, ..load.clone() })?;
    let mut generator = connect(load.clone())?;
    recycle_pages(&context.scratch, recycled_bytes)?;
    measured(broker, cores, || generator.run())
}

fn produce_1m(context: &Context, broker: &Broker) -> Result<Metrics, Failure> {
    let topic = "replay_1m";
    let batch = wire::batch_of_bytes(LARGE_BATCH_BYTES, RECORD_BYTES);
    let bytes = mib(context, 128);
    let load = of_bytes(Load { batch, in_flight: 4, ..load_of(topic) }, bytes);
    best_of(context, PASSES_OF_1M, &BROKER_NS, || {
        let (outcome, cpu) = with_topic(broker, topic, 1, &[], || {
            warm_and_measure(context, broker, &load, bytes, Cores::Apart)
        })?;
        let [p50, p99] = outcome.latencies.percentiles([500, 990]).map(milliseconds);
        Ok(vec![
            (BROKER_NS.key, ns_per_byte(cpu, outcome.bytes)),
            (MB_S.key, outcome.bytes as f64 / 1e6 / outcome.elapsed.as_secs_f64()),
            (CLIENT_NS.key, ns_per_byte(outcome.own_cpu, outcome.bytes)),
            (P50.key, p50),
            (P99.key, p99),
        ])
    })
}

fn small(context: &Context, broker: &Broker) -> Result<Metrics, Failure> {
    let topic = "replay_small";
    let load = Load { connections: 16, in_flight: 8, ..load_of(topic) };
    let bytes = mib(context, 400);
    let load = of_bytes(load, bytes);
    let (outcome, cpu) = with_topic(broker, topic, 1, &[], || {
        warm_and_measure(context, broker, &load, bytes, Cores::Apart)
    })?;
    let [p50, p99] = outcome.latencies.percentiles([500, 990]).map(milliseconds);
    Ok(vec![
        ("broker_us_per_request", us_per_request(cpu, outcome.requests)),
        (REQUESTS_S.key, outcome.requests as f64 / outcome.elapsed.as_secs_f64()),
        ("client_us_per_request", us_per_request(outcome.own_cpu, outcome.requests)),
        (P50.key, p50),
        (P99.key, p99),
    ])
}

fn fsync(context: &Context, broker: &Broker) -> Result<Metrics, Failure> {
    let topic = "replay_fsync";
    let (fdatasyncs, seconds) = match context.size {
        Size::Full => (FDATASYNCS, 3),
        Size::Smoke => (20, 1),
    };
    let load = Load { connections: 64, time_limit: Duration::from_secs(seconds), ..load_of(topic) };
    // As many as the time allows, of at most 256 MiB.
    let load = of_bytes(load, mib(context, 256));
    let raw_p99 = || {
        let mut raw = Latencies::default();
        raw.extend(machine::raw_fdatasync(&context.scratch, fdatasyncs)?);
        let [p99] = raw.percentiles([990]).map(milliseconds);
        Ok::<_, Failure>(p99)
    };
    // A file system that discards what was freed syncs ten times as long meanwhile, and who wrote most would be compared with the
    // slowest disk: so the second time is before the topic is deleted, and the lesser of both counts.
    let raw_before = raw_p99()?;
    let ((outcome, cpu), raw_after) =
        with_topic(broker, topic, 1, &[("flush.messages", "1")], || {
            Ok((warm_and_measure(context, broker, &load, 0, Cores::All)?, raw_p99()?))
        })?;
    let [p50, p99] = outcome.latencies.percentiles([500, 990]).map(milliseconds);
    let raw_p99 = raw_before.min(raw_after);
    Ok(vec![
        (REQUESTS_S.key, outcome.requests as f64 / outcome.elapsed.as_secs_f64()),
        (P50.key, p50),
        (P99.key, p99),
        ("raw_p99_ms", raw_p99),
        ("broker_us_per_request", us_per_request(cpu, outcome.requests)),
    ])
}

fn partitions(context: &Context, broker: &Broker) -> Result<Metrics, Failure> {
    let over = |topic: &str, partitions: usize| {
        let batch = wire::batch_of_bytes(MIDDLE_BATCH_BYTES, RECORD_BYTES);
        let load = Load { batch, partitions, connections: 4, in_flight: 4, ..load_of(topic) };
        let bytes = mib(context, 256);
        let load = of_bytes(load, bytes);
        let (outcome, cpu) = with_topic(broker, topic, partitions, &[], || {
            warm_and_measure(context, broker, &load, bytes, Cores::Apart)
        })?;
        Ok(ns_per_byte(cpu, outcome.bytes))
    };
    let many = match context.size {
        Size::Full => 1000,
        Size::Smoke => 50,
    };
    let of_few = over("replay_few", 10)?;
    let of_many = over("replay_many", many)?;
    Ok(vec![
        ("broker_ns_per_byte_10", of_few),
        ("broker_ns_per_byte_1000", of_many),
        ("ratio", of_many / of_few),
    ])
}
