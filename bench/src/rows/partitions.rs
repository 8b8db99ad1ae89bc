//! Ten thousand partitions that hold a record each and are left alone, and a start with them after a clean stop.

use std::thread::sleep;
use std::time::{Duration, Instant};

use super::footprint::{idle_cpu_percent, settle_and_look};
use crate::broker::{Broker, Data, Kind};
use crate::failure::{Failure, io_failure};
use crate::results::Metrics;
use crate::rows::{Context, Measure, Row, STOP, Size, aimed, metric};
use crate::target::Target;
use crate::wire::{self, Wire};

const TOPICS: [&str; 5] = ["parts_0", "parts_1", "parts_2", "parts_3", "parts_4"];
const PARTITIONS_OF_A_TOPIC: i32 = 2000;
const PARTITIONS_OF_A_TOPIC_IN_SMOKE: i32 = 4;
/// Partitions that one Produce request fills.
const FILLED_AT_ONCE: i32 = 500;
const RECORD_BYTES: usize = 100;
/// A broker that closes files which nobody uses is given this long to do so; one that never does is looked at sooner.
const CLOSING_LIMIT: Duration = Duration::from_secs(70);
const CLOSING_POLL: Duration = Duration::from_millis(250);
/// Open files that are nobody's partition: sockets, the metadata log, checkpoints.
const OTHER_FILES: usize = 16;

pub const ROWS: &[Row] = &[Row {
    name: "partitions",
    what: "10,000 idle partitions (5 topics of 2,000) that hold a record each, and a start with them after a clean stop",
    measure: Measure::Apart(partitions),
    metrics: &[
        metric("create_ms", "creating them, ms", 0),
        metric("fill_ms", "a record to each, ms", 0),
        metric("fresh_bytes_each", "resident memory each, just filled, bytes", 0),
        aimed(
            metric("bytes_each", "resident memory each, idle, bytes", 0),
            &[Target::AtMost(4096.0)],
        ),
        aimed(
            metric("open_files", "files open for them, idle", 0),
            &[Target::AtMost(OTHER_FILES as f64)],
        ),
        metric("settle_s", "until those were closed, s", 0),
        aimed(metric("cpu_percent", "CPU, idle, % of a core", 3), &[Target::AtMost(0.1)]),
        STOP,
        aimed(
            metric("ready_ms", "start with them: spawn to ready, ms", 0),
            &[Target::AtMost(500.0)],
        ),
        aimed(
            metric("metadata_ms", "spawn to Metadata of all of them, ms", 0),
            &[Target::AtMost(500.0)],
        ),
        aimed(
            metric("first_ack_ms", "spawn to first ack after that, ms", 0),
            &[Target::AtMost(500.0)],
        ),
        metric("restarted_bytes_each", "resident memory each after that start, bytes", 0),
    ],
    brokers: &[Kind::Highwater, Kind::Kafka],
    most_rounds: &[(Kind::Highwater, 3), (Kind::Kafka, 1)],
}];

fn partitions(context: &Context, kind: Kind) -> Result<Metrics, Failure> {
    let of_a_topic = match context.size {
        Size::Full => PARTITIONS_OF_A_TOPIC,
        Size::Smoke => PARTITIONS_OF_A_TOPIC_IN_SMOKE,
    };
    let count = of_a_topic as usize * TOPICS.len();
    let (settle, look) = settle_and_look(context.size);
    let milliseconds = |time: Duration| time.as_secs_f64() * 1e3;
    let asking = |what: &str| io_failure(format!("{what}, {}", kind.name()));

    let broker = Broker::start(&context.programs, kind, Data::EmptyDirectory, &context.scratch)?;
    sleep(settle);
    let without = broker.process.memory()?.resident as f64;
    let files_without = broker.process.descriptors().all;
    let each = |broker: &Broker| -> Result<f64, Failure> {
        Ok((broker.process.memory()?.resident as f64 - without) / count as f64)
    };

    let mut wire = broker.connect()?;
    let began = Instant::now();
    for topic in TOPICS {
        wire.create_topic(topic, of_a_topic).map_err(asking("creating partitions"))?;
    }
    let created = began.elapsed();
    let began = Instant::now();
    let batch = wire::batch(1, RECORD_BYTES);
    for topic in TOPICS {
        fill(&mut wire, topic, of_a_topic, &batch).map_err(asking("filling partitions"))?;
    }
    let filled = began.elapsed();
    drop(wire);
    let fresh_bytes_each = each(&broker)?;
    let began = Instant::now();
    let open_files = || broker.process.descriptors().all.saturating_sub(files_without);
    let closes_idle_files = kind == Kind::Highwater && context.size == Size::Full;
    sleep(settle);
    while closes_idle_files && open_files() > OTHER_FILES && began.elapsed() < CLOSING_LIMIT {
        sleep(CLOSING_POLL);
    }
    let settled = began.elapsed();
    let cpu_percent = idle_cpu_percent(&broker.process, look)?;
    let (bytes_each, open_files) = (each(&broker)?, open_files() as f64);
    let stop = broker.stop_and_leave()?;

    let broker = Broker::start(&context.programs, kind, Data::LeftBehind, &context.scratch)?;
    let readied = Instant::now();
    let since_spawn = || milliseconds(broker.ready + readied.elapsed());
    let mut wire = broker.connect()?;
    while wire.led_partitions(&TOPICS).map_err(asking("Metadata"))? < count {
        if readied.elapsed() > CLOSING_LIMIT {
            let what = format!("does not lead its {count} partitions after a restart");
            return Err(Failure::Broker { broker: kind.name(), what });
        }
    }
    let metadata_ms = since_spawn();
    let base_offset =
        wire.produce(TOPICS[TOPICS.len() - 1], &batch).map_err(asking("the first record"))?;
    let first_ack_ms = since_spawn();
    if base_offset < 1 {
        let what = format!("lost a record in a clean stop: the next one has offset {base_offset}");
        return Err(Failure::Broker { broker: kind.name(), what });
    }
    let ready_ms = milliseconds(broker.ready);
    sleep(settle);
    let restarted_bytes_each = each(&broker)?;
    broker.stop()?;
    Ok(vec![
        ("create_ms", milliseconds(created)),
        ("fill_ms", milliseconds(filled)),
        ("fresh_bytes_each", fresh_bytes_each),
        ("bytes_each", bytes_each),
        ("open_files", open_files),
        ("settle_s", settled.as_secs_f64()),
        ("cpu_percent", cpu_percent),
        (STOP.key, milliseconds(stop)),
        ("ready_ms", ready_ms),
        ("metadata_ms", metadata_ms),
        ("first_ack_ms", first_ack_ms),
        ("restarted_bytes_each", restarted_bytes_each),
    ])
}

fn fill(wire: &mut Wire, topic: &str, count: i32, batch: &bytes::Bytes) -> std::io::Result<()> {
    for first in (0..count).step_by(FILLED_AT_ONCE as usize) {
        wire.produce_to_each(topic, first..count.min(first + FILLED_AT_ONCE), batch)?;
    }
    Ok(())
}
