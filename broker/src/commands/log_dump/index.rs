//! Entries of `.index`, `.timeindex` and `.txnindex` files.

use std::io::Write;

use storage::offset_index::{self, OffsetIndex};
use storage::time_index::{self, TimeIndex};
use storage::transaction_index;

use super::{CommandError, FileKind, Line, LogFile, Output};

/// Prints the file; how many problems there were.
pub(super) fn dump(file: &LogFile<'_>, out: &mut Output<impl Write>) -> Result<u64, CommandError> {
    let bytes = file.read()?;
    let bytes = used(&bytes, file.kind);
    let entry_size = entry_size(file.kind);
    let mut problems = 0;
    match file.kind {
        FileKind::TimeIndex => {
            let index = TimeIndex::new(file.base_offset, bytes);
            for at in 0..index.len() {
                out.line(match index.entry(at) {
                    Some(entry) => Line::new("entry")
                        .field("timestamp", entry.timestamp.value())
                        .field("offset", entry.offset.value()),
                    None => impossible(at * entry_size, &mut problems),
                })?;
            }
        }
        FileKind::TransactionIndex => match transaction_index::decode(bytes) {
            Ok(entries) => {
                for entry in entries {
                    out.line(
                        Line::new("aborted")
                            .field("producer_id", entry.producer_id.value())
                            .field("first_offset", entry.first_offset.value())
                            .field("last_offset", entry.last_offset.value())
                            .field("last_stable_offset", entry.last_stable_offset.value()),
                    )?;
                }
            }
            Err(error) => {
                out.line(Line::problem(0, error))?;
                return Ok(1);
            }
        },
        FileKind::OffsetIndex | FileKind::Batches | FileKind::ProducerSnapshot => {
            let index = OffsetIndex::new(file.base_offset, bytes);
            for at in 0..index.len() {
                out.line(match index.entry(at) {
                    Some(entry) => Line::new("entry")
                        .field("offset", entry.offset.value())
                        .field("position", entry.position),
                    None => impossible(at * entry_size, &mut problems),
                })?;
            }
        }
    }
    let whole = bytes.len() / entry_size * entry_size;
    if whole < bytes.len() {
        out.line(Line::problem(whole as u64, "the last entry is cut short"))?;
        problems += 1;
    }
    Ok(problems)
}

fn impossible(at: usize, problems: &mut u64) -> Line {
    *problems += 1;
    Line::problem(at as u64, "the entry is out of range")
}

fn entry_size(kind: FileKind) -> usize {
    match kind {
        FileKind::TimeIndex => time_index::ENTRY_SIZE_BYTES,
        FileKind::TransactionIndex => transaction_index::ENTRY_SIZE_BYTES,
        FileKind::OffsetIndex | FileKind::Batches | FileKind::ProducerSnapshot => {
            offset_index::ENTRY_SIZE_BYTES
        }
    }
}

/// Without the zeros at the end: Kafka lays out the indexes of its active segments in advance.
pub(super) fn used(bytes: &[u8], kind: FileKind) -> &[u8] {
    let end = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    let end = end.next_multiple_of(entry_size(kind)).min(bytes.len());
    if kind == FileKind::TransactionIndex { bytes } else { &bytes[..end] }
}
