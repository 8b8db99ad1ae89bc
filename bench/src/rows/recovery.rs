//! A broker killed with records in the page cache that it has not flushed, and its next start: how long until it serves, and
//! whether every acknowledged record is there.

use std::time::{Duration, Instant};

use bytes::Buf;
use crc_fast::CrcAlgorithm;

use crate::broker::{Broker, Data, Kind};
use crate::failure::{Failure, io_failure};
use crate::results::Metrics;
use crate::rows::{Context, Measure, Row, Size, aimed, information, metric};
use crate::target::Target;
use crate::wire::{self, Wire};

const TOPIC: &str = "recovery";
/// Half a GiB each, less than a segment, so that none of it was flushed because a segment was full.
const PARTITIONS: i32 = 4;
const RECORD_BYTES: usize = 1024;
const RECORDS_OF_A_BATCH: i32 = 1000;
const BATCHES: i64 = 2048;
const BATCHES_IN_SMOKE: i64 = 8;
const READ_BYTES: i32 = 16 << 20;
const BATCH_HEADER_BYTES: usize = 61;

pub const ROWS: &[Row] = &[Row {
    name: "recovery",
    what: "start after kill -9 with 2 GiB in 4 partitions unflushed but in the page cache; every record is read afterwards",
    measure: Measure::Apart(recovery),
    metrics: &[
        aimed(metric("ready_ms", "spawn to ready, ms", 0), &[Target::AtMost(1000.0)]),
        aimed(metric("first_ack_ms", "spawn to first ack, ms", 0), &[Target::AtMost(1000.0)]),
        metric("cpu_ms", "CPU until then, ms", 0),
        metric("peak_rss_mib", "most resident memory until then, MiB", 1),
        information(metric("records", "records read after it", 0)),
    ],
    brokers: &[Kind::Highwater, Kind::Kafka],
    most_rounds: &[(Kind::Highwater, 3), (Kind::Kafka, 1)],
}];

fn recovery(context: &Context, kind: Kind) -> Result<Metrics, Failure> {
    let batches = if context.size == Size::Full { BATCHES } else { BATCHES_IN_SMOKE };
    let batch = wire::batch(RECORDS_OF_A_BATCH, RECORD_BYTES);
    let asking = |what: &str| io_failure(format!("{what}, {}", kind.name()));
    let milliseconds = |time: Duration| time.as_secs_f64() * 1e3;

    let broker = Broker::start(&context.programs, kind, Data::EmptyDirectory, &context.scratch)?;
    let mut wire = broker.connect()?;
    wire.create_topic(TOPIC, PARTITIONS).map_err(asking("creating the topic"))?;
    for number in 0..batches {
        let partition = (number % i64::from(PARTITIONS)) as i32;
        wire.produce_to_each(TOPIC, partition..partition + 1, &batch)
            .map_err(asking("producing"))?;
    }
    broker.kill()?;

    let broker = Broker::start(&context.programs, kind, Data::LeftBehind, &context.scratch)?;
    let readied = Instant::now();
    let mut wire = broker.connect()?;
    wire.produce(TOPIC, &batch).map_err(asking("the first record after the crash"))?;
    let first_ack = broker.ready + readied.elapsed();
    let (cpu, memory) = (broker.process.cpu()?, broker.process.memory()?);

    let expected = (batches + 1) * i64::from(RECORDS_OF_A_BATCH);
    let mut records = 0;
    for partition in 0..PARTITIONS {
        records +=
            count_records(&mut wire, partition).map_err(asking("reading after the crash"))?;
    }
    if records != expected {
        let what = format!("acknowledged {expected} records and has {records} after a kill");
        return Err(Failure::Broker { broker: kind.name(), what });
    }
    let ready = milliseconds(broker.ready);
    broker.stop()?;
    Ok(vec![
        ("ready_ms", ready),
        ("first_ack_ms", milliseconds(first_ack)),
        ("cpu_ms", milliseconds(cpu)),
        ("peak_rss_mib", memory.peak as f64 / super::footprint::MIB),
        ("records", records as f64),
    ])
}

/// Reads a partition from its start and counts, checking each batch's CRC and that no offset is missing.
fn count_records(wire: &mut Wire, partition: i32) -> std::io::Result<i64> {
    let mut next = 0;
    loop {
        let (records, high_watermark) = wire.fetch(TOPIC, partition, next, READ_BYTES)?;
        let before = next;
        next = walk(&records, next)?;
        if next >= high_watermark {
            return Ok(next);
        }
        if next == before {
            return Err(std::io::Error::other(format!(
                "nothing at offset {next} of partition {partition}, which ends at {high_watermark}"
            )));
        }
    }
}

/// Walks whole batches that follow each other from offset `next`; returns the offset after the last.
fn walk(mut records: &[u8], mut next: i64) -> std::io::Result<i64> {
    while records.len() >= BATCH_HEADER_BYTES {
        let base_offset = (&records[..8]).get_i64();
        let size = 12 + (&records[8..12]).get_u32() as usize;
        if records.len() < size {
            break;
        }
        let (batch, rest) = records.split_at(size);
        let crc = (&batch[17..21]).get_u32();
        let is_sound = crc_fast::checksum(CrcAlgorithm::Crc32Iscsi, &batch[21..]) as u32 == crc;
        if base_offset != next || !is_sound {
            return Err(std::io::Error::other(format!(
                "the batch at offset {base_offset} follows offset {next}, CRC sound: {is_sound}"
            )));
        }
        next += i64::from((&batch[23..27]).get_i32()) + 1;
        records = rest;
    }
    Ok(next)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch_at(base_offset: i64) -> Vec<u8> {
        let mut bytes = wire::batch(3, 10).to_vec();
        bytes[..8].copy_from_slice(&base_offset.to_be_bytes());
        bytes
    }

    #[test]
    fn a_missing_batch_or_a_flipped_bit_is_seen_and_a_cut_one_is_not_counted() {
        let both = [batch_at(0), batch_at(3)].concat();
        assert_eq!(walk(&both, 0).expect("sound"), 6);
        assert_eq!(walk(&both[..both.len() - 1], 0).expect("cut"), 3);
        assert_eq!(walk(&[], 7).expect("empty"), 7);
        let gap = [batch_at(0), batch_at(6)].concat();
        assert!(walk(&gap, 0).is_err());
        let mut flipped = both;
        *flipped.last_mut().expect("bytes") ^= 1;
        assert!(walk(&flipped, 0).is_err());
    }
}
