//! Batches and records of a `.log` file.

use std::io::Write;

use replication::metadata::record::decode_records;
use replication::quorum::codec::{LogBody, LogPayload};
use serde_json::{Value, json};
use storage::record::{Record, records};
use storage::record_batch::{ControlRecordType, RecordBatch, TimestampType};
use storage::timestamp::Timestamp;

use super::scan::{BatchScan, Scanned, unpack};
use super::{CommandError, Line, LogFile, Output};

/// Prints the file; how many problems there were.
pub(super) fn dump(
    file: &LogFile<'_>,
    with_records: bool,
    out: &mut Output<impl Write>,
) -> Result<u64, CommandError> {
    let mut scan = BatchScan::open(file.path).map_err(|e| file.error(e))?;
    let mut problems = 0;
    while let Some((position, scanned)) = scan.next().map_err(|e| file.error(e))? {
        let bytes = match scanned {
            Scanned::Batch(bytes) => bytes,
            Scanned::Bad(error) => {
                let left = scan.bytes_from(position);
                out.line(Line::problem(
                    position,
                    format!("{left} bytes hold no whole batch: {error}"),
                ))?;
                return Ok(problems + 1);
            }
        };
        let (batch, _) =
            RecordBatch::parse(&bytes).expect("the scan parsed its header, and it is whole");
        let crc = batch.verify_crc();
        out.line(batch_line(&batch, position, crc.is_ok()))?;
        if let Err(error) = crc {
            out.line(Line::problem(position, error))?;
            problems += 1;
        } else if with_records {
            problems += dump_records(file, &batch, position, out)?;
        }
    }
    Ok(problems)
}

fn batch_line(batch: &RecordBatch<'_>, position: u64, is_crc_right: bool) -> Line {
    let time = match batch.timestamp_type() {
        TimestampType::CreateTime => "create_time",
        TimestampType::LogAppendTime => "log_append_time",
    };
    let mut line = Line::new("batch")
        .field("offset", batch.base_offset().value())
        .field("last_offset", batch.last_offset().value())
        .field("records", batch.record_count())
        .field("position", position)
        .field("size", batch.batch_size_bytes())
        .field("compression", batch.compression().name())
        .field(time, Timestamp::to_wire(batch.max_timestamp()))
        .field("leader_epoch", batch.partition_leader_epoch().map(|epoch| epoch.value()));
    if let Some(producer) = batch.producer() {
        line = line
            .field("producer_id", producer.id.value())
            .field("producer_epoch", producer.epoch.value());
        if let Some(sequences) = producer.sequences {
            line = line
                .field("first_sequence", sequences.first)
                .field("last_sequence", sequences.last);
        }
    }
    line.flag("transactional", batch.is_transactional())
        .flag("control", batch.is_control())
        .field("crc", if is_crc_right { "right" } else { "WRONG" })
}

fn dump_records(
    file: &LogFile<'_>,
    batch: &RecordBatch<'_>,
    position: u64,
    out: &mut Output<impl Write>,
) -> Result<u64, CommandError> {
    let block = match unpack(batch) {
        Ok(block) => block,
        Err(error) => {
            out.line(Line::problem(position, error))?;
            return Ok(1);
        }
    };
    for record in records(&block, batch.record_count()) {
        match record {
            Ok(record) => out.line(record_line(file, batch, &record))?,
            Err(error) => {
                out.line(Line::problem(position, error))?;
                return Ok(1);
            }
        }
    }
    Ok(0)
}

fn record_line(file: &LogFile<'_>, batch: &RecordBatch<'_>, record: &Record<'_>) -> Line {
    let line = Line::new("record")
        .field("offset", batch.base_offset().value().saturating_add(record.offset_delta.into()))
        .field("timestamp", Timestamp::to_wire(batch.record_timestamp(record.timestamp_delta)));
    if batch.is_control() {
        let kind = record.key.and_then(ControlRecordType::parse_key);
        return line
            .field("control", kind.map_or("unknown".to_owned(), |kind| format!("{kind:?}")));
    }
    if file.is_metadata_log()
        && let Some(metadata) = record.value.and_then(metadata)
    {
        return line.field("metadata", metadata);
    }
    let headers: Vec<Value> = record
        .headers
        .map(|header| {
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            json!([text(header.key), header.value.map(text)])
        })
        .collect();
    let line = line.bytes("key", record.key).bytes("value", record.value);
    if headers.is_empty() { line } else { line.field("headers", headers) }
}

/// The quorum's payload, in the words of its types; `None` if it is none, as in Kafka's own metadata log.
fn metadata(value: &[u8]) -> Option<String> {
    let payload = LogPayload::decode(value).ok()?;
    let LogBody::Entry(entry) = &payload.body else { return Some(format!("{payload:?}")) };
    let head = format!("index {} term {}", entry.index, entry.term);
    Some(match decode_records(&entry.data) {
        _ if entry.data.is_empty() => format!("{head} a new leader's first entry"),
        Ok(records) => format!("{head} {records:?}"),
        Err(error) => format!("{head} {error}"),
    })
}
