//! `--verify`: is the file sound, and does an index say what its log says.

use std::io::Write;

use storage::offset::Offset;
use storage::offset_index::{self, OffsetIndex};
use storage::record_batch::RecordBatch;
use storage::time_index::{self, TimeIndex};
use storage::timestamp::Timestamp;
use storage::transaction_index;

use super::index::used;
use super::scan::{BatchScan, Scanned, check};
use super::{CommandError, FileKind, Line, LogFile, Output, snapshot};

/// Prints every problem, then one line about the file; how many problems there were.
pub(super) fn verify(
    file: &LogFile<'_>,
    out: &mut Output<impl Write>,
) -> Result<u64, CommandError> {
    let mut problems: Vec<(u64, String)> = Vec::new();
    let summary = match file.kind {
        FileKind::Batches => verify_batches(file, &mut problems)?,
        FileKind::OffsetIndex => verify_offset_index(file, &mut problems)?,
        FileKind::TimeIndex => verify_time_index(file, &mut problems)?,
        FileKind::TransactionIndex => {
            let entries = transaction_index::decode(&file.read()?);
            let count = entries.as_ref().map_or(0, Vec::len);
            problems.extend(entries.err().map(|error| (0, error.to_string())));
            Line::new("verified").field("entries", count)
        }
        FileKind::ProducerSnapshot => {
            let state = snapshot::read(file)?;
            let count = state.as_ref().map_or(0, |state| state.producers().len());
            problems.extend(state.err().map(|error| (0, error)));
            Line::new("verified").field("producers", count)
        }
    };
    for (position, what) in &problems {
        let path = file.path.display().to_string();
        out.line(Line::problem(*position, what).field("path", path))?;
    }
    let count = problems.len() as u64;
    let result = if count == 0 { "sound" } else { "BAD" };
    out.line(summary.field("path", file.path.display().to_string()).field("result", result))?;
    Ok(count)
}

fn verify_batches(
    file: &LogFile<'_>,
    problems: &mut Vec<(u64, String)>,
) -> Result<Line, CommandError> {
    let mut scan = BatchScan::open(file.path).map_err(|e| file.error(e))?;
    let (mut batches, mut records) = (0u64, 0u64);
    let mut next_offset = file.base_offset;
    while let Some((position, scanned)) = scan.next().map_err(|e| file.error(e))? {
        let bytes = match scanned {
            Scanned::Batch(bytes) => bytes,
            Scanned::Bad(error) => {
                let left = scan.bytes_from(position);
                problems.push((position, format!("{left} bytes hold no whole batch: {error}")));
                break;
            }
        };
        let (batch, _) =
            RecordBatch::parse(&bytes).expect("the scan parsed its header, and it is whole");
        match check(&batch) {
            Ok(count) => records += count,
            Err(error) => problems.push((position, error)),
        }
        if batch.base_offset() < next_offset {
            let (base, expected) = (batch.base_offset().value(), next_offset.value());
            problems
                .push((position, format!("base offset {base} where at least {expected} was due")));
        }
        next_offset = batch.next_offset();
        batches += 1;
    }
    Ok(Line::new("verified")
        .field("batches", batches)
        .field("records", records)
        .field("next_offset", next_offset.value()))
}

/// Where a batch of the log begins and ends.
struct Extent {
    position: u64,
    last_offset: Offset,
    max_timestamp: Option<Timestamp>,
}

/// The batches of the `.log` beside an index; none if it is not there. What is wrong with it is for its own verification.
fn log_beside(file: &LogFile<'_>) -> Result<Option<Vec<Extent>>, CommandError> {
    let path = file.path.with_file_name(format!("{:020}.log", file.base_offset.value()));
    if !path.exists() {
        return Ok(None);
    }
    let error = |source| CommandError::Io { what: path.display().to_string(), source };
    let mut scan = BatchScan::open(&path).map_err(error)?;
    let mut extents = Vec::new();
    while let Some((position, scanned)) = scan.next().map_err(error)? {
        let Scanned::Batch(bytes) = scanned else { break };
        let (batch, _) =
            RecordBatch::parse(&bytes).expect("the scan parsed its header, and it is whole");
        let (last_offset, max_timestamp) = (batch.last_offset(), batch.max_timestamp());
        extents.push(Extent { position, last_offset, max_timestamp });
    }
    Ok(Some(extents))
}

fn verify_offset_index(
    file: &LogFile<'_>,
    problems: &mut Vec<(u64, String)>,
) -> Result<Line, CommandError> {
    let bytes = file.read()?;
    let bytes = used(&bytes, file.kind);
    let index = OffsetIndex::new(file.base_offset, bytes);
    let sound = index.sound_prefix(Offset::MAX, u64::MAX);
    let end = sound * offset_index::ENTRY_SIZE_BYTES;
    if end < bytes.len() {
        problems.push((end as u64, "the entry does not follow from the one before it".to_owned()));
    }
    let log = log_beside(file)?;
    for (at, entry) in (0..sound).filter_map(|at| Some((at, index.entry(at)?))) {
        let Some(extents) = &log else { break };
        let starts =
            extents.binary_search_by_key(&u64::from(entry.position), |extent| extent.position);
        let ends = extents.binary_search_by_key(&entry.offset, |extent| extent.last_offset);
        // One append may hold several batches: the entry has the first one's position, the last one's offset.
        if !matches!((starts, ends), (Ok(start), Ok(end)) if start <= end) {
            let (offset, position) = (entry.offset.value(), entry.position);
            let what = format!(
                "no batches of the log begin at byte {position} and end at offset {offset}"
            );
            problems.push(((at * offset_index::ENTRY_SIZE_BYTES) as u64, what));
        }
    }
    Ok(Line::new("verified").field("entries", sound).field("log", log.is_some()))
}

fn verify_time_index(
    file: &LogFile<'_>,
    problems: &mut Vec<(u64, String)>,
) -> Result<Line, CommandError> {
    let bytes = file.read()?;
    let bytes = used(&bytes, file.kind);
    let index = TimeIndex::new(file.base_offset, bytes);
    let sound = index.sound_prefix(Offset::MAX);
    let end = sound * time_index::ENTRY_SIZE_BYTES;
    if end < bytes.len() {
        problems.push((end as u64, "the entry does not follow from the one before it".to_owned()));
    }
    let log = log_beside(file)?;
    let mut largest: Option<Timestamp> = None;
    let mut extents = log.iter().flatten().peekable();
    for (at, entry) in (0..sound).filter_map(|at| Some((at, index.entry(at)?))) {
        while let Some(extent) = extents.next_if(|extent| extent.last_offset <= entry.offset) {
            largest = largest.max(extent.max_timestamp);
        }
        // A lookup begins behind the last entry that is too old: nothing before it may be younger.
        if largest.is_some_and(|largest| largest > entry.timestamp) {
            let (offset, timestamp) = (entry.offset.value(), entry.timestamp.value());
            let what =
                format!("the log has younger records than {timestamp} up to offset {offset}");
            problems.push(((at * time_index::ENTRY_SIZE_BYTES) as u64, what));
        }
    }
    Ok(Line::new("verified").field("entries", sound).field("log", log.is_some()))
}
