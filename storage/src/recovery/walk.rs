//! Reading the segments of a log: trusting what was synced, checking what was not.

use super::directory::{Files, LogFile};
use super::producers::ProducerBatches;
use super::{Cut, LoadError, RecoveryReport, directory};
use crate::leader_epoch::LeaderEpochCache;
use crate::log::LogConfig;
use crate::log_dir::DiskError;
use crate::offset::Offset;
use crate::offset_index::{self, OffsetIndex};
use crate::record_batch::{BatchError, BatchHeader, EndTransactionMarker};
use crate::segment::scan::{LOOKUP_CHUNK_BYTES, Scanned, Scanner, WALK_CHUNK_BYTES};
use crate::segment::{Place, Segment, SegmentTimes, read_index};
use crate::segments::Segments;
use crate::time_index::{self, TimeIndex, TimestampOffset};
use crate::timestamp::Timestamp;

/// The segments, and what was learnt from reading them.
#[derive(Debug)]
pub(super) struct Walked {
    pub(super) segments: Segments,
    /// Bytes that were read because they lie past the recovery point.
    pub(super) unflushed_bytes: u64,
    /// The producers' batches that were met on the way, so that they need not be read again for the producer state.
    pub(super) producer_batches: Option<ProducerBatches>,
}

/// Opens the segments of a log that was stopped cleanly at `log_end`. Only the last one's tail is read.
pub(super) fn open_clean(
    place: Place<'_>,
    files: &Files,
    log_end: Offset,
    config: &LogConfig,
    report: &mut RecoveryReport,
) -> Result<Walked, LoadError> {
    let mut segments = Segments::new();
    let bases: Vec<Offset> = files.logs.keys().copied().collect();
    for (at, base_offset) in bases.iter().enumerate() {
        let file = &files.logs[base_offset];
        let next = bases.get(at + 1).copied().unwrap_or(log_end);
        let segment = trusted(place, files, *base_offset, next, file, config, report)?;
        segments.push(segment);
    }
    if let Some(last) = segments.last_mut() {
        read_first(place, last)?;
        check_end(place, last, log_end)?;
        last.activate(place)?;
    }
    Ok(Walked { segments, unflushed_bytes: 0, producer_batches: None })
}

/// The batches after the last index entry lead exactly to the log end.
fn check_end(place: Place<'_>, last: &mut Segment, log_end: Offset) -> Result<(), LoadError> {
    let base_offset = last.base_offset();
    let size = u64::from(last.size_bytes());
    let index = read_index(place, base_offset, "index")?.unwrap_or_default();
    let start = OffsetIndex::new(base_offset, &index).last().map_or(0, |entry| entry.position);
    let file = last.log_file(place)?;
    let path = place.file(base_offset, "log");
    let mut scanner = Scanner::new(&*file, u64::from(start), size, LOOKUP_CHUNK_BYTES);
    let mut end = base_offset;
    loop {
        match place.dir.judge("read", &path, scanner.next_header())? {
            Scanned::Batch(_, header) => end = header.next_offset(),
            Scanned::End => break,
            Scanned::Bad(position, error) => {
                return Err(LoadError::Damaged(format!(
                    "{} byte {position} after a clean stop: {error}",
                    path.display()
                )));
            }
        }
    }
    if end == log_end {
        return Ok(());
    }
    Err(LoadError::Damaged(format!(
        "it was stopped cleanly at offset {log_end}, but {} ends at {end}",
        path.display()
    )))
}

/// A segment wholly below what was synced: taken as it is, its indexes checked.
fn trusted(
    place: Place<'_>,
    files: &Files,
    base_offset: Offset,
    next_offset: Offset,
    file: &LogFile,
    config: &LogConfig,
    report: &mut RecoveryReport,
) -> Result<Segment, LoadError> {
    let path = place.file(base_offset, "log");
    let size_bytes = size_of(place, base_offset, file)?;
    let indexes = read_tails(place, files, base_offset, next_offset, u64::from(size_bytes))?;
    let Some(largest) = indexes else {
        // Wrong or missing: every batch is read, and has to be right.
        report.rebuilt_indexes.push(base_offset);
        let mut segment = Segment::existing(place, base_offset, base_offset, 0, file.times());
        segment.start_rebuild(place, file.times());
        let log = segment.log_file(place)?;
        let mut scanner = Scanner::new(&*log, 0, u64::from(size_bytes), WALK_CHUNK_BYTES);
        let bad = note_all(place, &mut segment, &mut scanner, config, report, |_, _| true)?;
        if let Some((position, reason)) = bad {
            return Err(LoadError::Damaged(format!(
                "{} byte {position}, below the recovery point: {reason}",
                path.display()
            )));
        }
        if segment.next_offset() > next_offset {
            return Err(LoadError::Damaged(format!(
                "{} reaches to offset {}, past {next_offset}",
                path.display(),
                segment.next_offset()
            )));
        }
        segment.seal(place)?;
        return Ok(segment);
    };
    let mut segment = Segment::existing(place, base_offset, next_offset, size_bytes, file.times());
    segment.set_times(None, largest);
    Ok(segment)
}

/// The first batch of a segment: its format, and its timestamp, which a roll by age starts from.
fn read_first(place: Place<'_>, segment: &mut Segment) -> Result<(), LoadError> {
    let first = first_header(place, segment)?;
    refuse_old_format(place, segment, first.as_ref().err().copied())?;
    let largest = segment.times().largest;
    segment.set_times(first.ok().flatten().and_then(|first| first.max_timestamp()), largest);
    Ok(())
}

fn size_of(place: Place<'_>, base_offset: Offset, file: &LogFile) -> Result<u32, LoadError> {
    u32::try_from(file.size_bytes).ok().filter(|size| i32::try_from(*size).is_ok()).ok_or_else(
        || {
            LoadError::Damaged(format!(
                "{} has {} bytes, more than a segment can",
                place.file(base_offset, "log").display(),
                file.size_bytes
            ))
        },
    )
}

/// The last time index entry of a segment both of whose indexes pass; `None` if one does not.
#[allow(clippy::type_complexity)]
fn read_tails(
    place: Place<'_>,
    files: &Files,
    base_offset: Offset,
    next_offset: Offset,
    size_bytes: u64,
) -> Result<Option<Option<TimestampOffset>>, DiskError> {
    if !files.has(base_offset, "index") || !files.has(base_offset, "timeindex") {
        return Ok(None);
    }
    let offset_size = offset_index::ENTRY_SIZE_BYTES;
    let time_size = time_index::ENTRY_SIZE_BYTES;
    let offsets = read_ends(place, &place.file(base_offset, "index"), offset_size)?;
    let times = read_ends(place, &place.file(base_offset, "timeindex"), time_size)?;
    let times_end = TimeIndex::new(base_offset, &times).last();
    let sound = offset_index::sanity_check(base_offset, &offsets, next_offset, size_bytes).is_ok()
        && time_index::sanity_check(base_offset, &times, next_offset).is_ok()
        && (size_bytes == 0 || time_index::may_end_sealed(base_offset, times_end));
    Ok(sound.then_some(times_end))
}

/// First and last entry of an index file, and what is over at its end: all that a check looks at, however
/// large the file.
fn read_ends(
    place: Place<'_>,
    path: &std::path::Path,
    entry_size: usize,
) -> Result<Vec<u8>, DiskError> {
    let read = || {
        let file = place.dir.fs().open(path, crate::fs::OpenMode::Read)?;
        let size = file.size_bytes()?;
        let tail_size = entry_size as u64 + size % entry_size as u64;
        let tail_at = size.saturating_sub(tail_size);
        let mut ends = vec![0; entry_size.min(usize::try_from(tail_at).unwrap_or(entry_size))];
        file.read_exact_at(&mut ends, 0)?;
        let mut tail = vec![0; usize::try_from(size - tail_at).expect("two entries at most")];
        file.read_exact_at(&mut tail, tail_at)?;
        ends.extend_from_slice(&tail);
        Ok(ends)
    };
    place.dir.judge("read", path, read())
}

type FirstHeader = Result<Option<BatchHeader>, BatchError>;

fn first_header(place: Place<'_>, segment: &mut Segment) -> Result<FirstHeader, DiskError> {
    let size = u64::from(segment.size_bytes());
    let file = segment.log_file(place)?;
    let path = place.file(segment.base_offset(), "log");
    let mut scanner = Scanner::new(&*file, 0, size, 64);
    Ok(match place.dir.judge("read", &path, scanner.next_header())? {
        Scanned::Batch(_, header) => Ok(Some(header)),
        Scanned::End => Ok(None),
        Scanned::Bad(_, error) => Err(error),
    })
}

/// Formats before 2 are refused, where a torn batch would be cut: such a log was whole once.
fn refuse_old_format(
    place: Place<'_>,
    segment: &mut Segment,
    error: Option<BatchError>,
) -> Result<(), LoadError> {
    if error.is_none() {
        return Ok(());
    }
    let file = segment.log_file(place)?;
    let path = place.file(segment.base_offset(), "log");
    // offset i64, size i32, CRC-32 u32 of what follows it, magic i8, …
    let mut head = [0; 17];
    let read = place.dir.judge("read", &path, file.read_at(&mut head, 0))?;
    let [_, _, _, _, _, _, _, _, s0, s1, s2, s3, c0, c1, c2, c3, magic] = head;
    if read < head.len() || magic > 1 {
        return Ok(());
    }
    let size = u32::from_be_bytes([s0, s1, s2, s3]);
    let file_size = place.dir.judge("read", &path, file.size_bytes())?;
    if !(14..1 << 30).contains(&size) || u64::from(size) + 12 > file_size {
        return Ok(());
    }
    let mut message = vec![0; size as usize - 4];
    place.dir.judge("read", &path, file.read_at(&mut message, 16))?;
    let crc = crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32IsoHdlc, &message) as u32;
    if crc != u32::from_be_bytes([c0, c1, c2, c3]) {
        return Ok(());
    }
    Err(LoadError::Damaged(format!(
        "{} is in message format {magic}; only format 2 can be read",
        path.display()
    )))
}

/// Opens the segments of a log that was not stopped cleanly: all past `recovery_point` is read, and cut at
/// the first bad batch.
pub(super) fn recover(
    place: Place<'_>,
    files: &Files,
    recovery_point: Offset,
    config: &LogConfig,
    epochs: &mut LeaderEpochCache,
    report: &mut RecoveryReport,
) -> Result<Walked, LoadError> {
    let mut segments = Segments::new();
    let mut unflushed_bytes = 0;
    let mut producer_batches = None;
    let bases: Vec<Offset> = files.logs.keys().copied().collect();
    for (at, base_offset) in bases.iter().copied().enumerate() {
        let file = &files.logs[&base_offset];
        let next = bases.get(at + 1).copied();
        if let Some(next) = next
            && next <= recovery_point
        {
            let mut segment = trusted(place, files, base_offset, next, file, config, report)?;
            read_first(place, &mut segment)?;
            segments.push(segment);
            continue;
        }
        // Segments begin where the one before ends: otherwise that one's tail was lost, though this one was
        // written back.
        let previous_end = segments.last().map_or(base_offset, |last| last.next_offset());
        let misplaced = (previous_end != base_offset)
            .then(|| (0, format!("it does not begin at {previous_end}, where the log ends")));
        let mut segment = Segment::existing(place, base_offset, base_offset, 0, file.times());
        let size_bytes = size_of(place, base_offset, file)?;
        let start = start_at(place, files, &mut segment, recovery_point, file, size_bytes)?;
        report.segments_read += 1;
        let log = segment.log_file(place)?;
        let mut scanner = Scanner::new(&*log, start, u64::from(size_bytes), WALK_CHUNK_BYTES);
        let mut accept = |header: &BatchHeader, marker: Option<EndTransactionMarker>| {
            if header.next_offset() > recovery_point {
                unflushed_bytes += header.batch_size_bytes() as u64;
            }
            let epoch = header.partition_leader_epoch();
            // Of a log that was cut, older batches may have come back behind newer ones.
            if epoch.is_some() && epoch < epochs.latest() && header.base_offset() >= recovery_point
            {
                return false;
            }
            if let Some(epoch) = epoch
                && epochs.latest().is_none_or(|latest| epoch > latest)
            {
                epochs.assign(epoch, header.base_offset());
            }
            producer_batches
                .get_or_insert_with(|| ProducerBatches::from(header.base_offset()))
                .add(base_offset, header, marker);
            true
        };
        let bad = match misplaced {
            Some(misplaced) => Some(misplaced),
            None => note_all(place, &mut segment, &mut scanner, config, report, &mut accept)?,
        };
        let Some((position, reason)) = bad else {
            segments.push(segment);
            if next.is_some() {
                // The last one stays active.
                segments.last_mut().expect("pushed just now").seal(place)?;
            }
            continue;
        };
        if position == 0 {
            let mut whole =
                Segment::existing(place, base_offset, base_offset, size_bytes, file.times());
            let first = first_header(place, &mut whole)?;
            refuse_old_format(place, &mut whole, first.err())?;
        }
        if segment.next_offset().max(previous_end) < recovery_point {
            return Err(LoadError::Damaged(format!(
                "{} byte {position}, below the recovery point {recovery_point}: {reason}",
                place.file(base_offset, "log").display()
            )));
        }
        cut(place, files, &bases[at + 1..], &mut segment, position, size_bytes, reason, report)?;
        if previous_end == base_offset {
            segments.push(segment);
        } else {
            // It is not where the log ends. Gone for good before anything is appended to the one before
            // it: if its name came back, that one would seem to end here.
            remove_segment(place, base_offset)?;
            place.dir.judge_sync(place.path, place.dir.fs().sync_dir(place.path))?;
        }
        break;
    }
    if let Some(last) = segments.last_mut() {
        last.activate(place)?;
    }
    Ok(Walked { segments, unflushed_bytes, producer_batches })
}

/// Removes later segments, last first, then cuts this one: a crash in between leaves no gap.
#[allow(clippy::too_many_arguments)]
fn cut(
    place: Place<'_>,
    files: &Files,
    later: &[Offset],
    segment: &mut Segment,
    position: u64,
    size_bytes: u32,
    reason: String,
    report: &mut RecoveryReport,
) -> Result<(), DiskError> {
    // Planted bug 24: the torn batch stays in the file, and counts.
    if keeps_torn_batch(segment, size_bytes) {
        return Ok(());
    }
    report.add_cut(Cut {
        segment: segment.base_offset(),
        position,
        bytes: u64::from(size_bytes) - position,
        reason,
    });
    for base_offset in later.iter().rev().copied() {
        report.add_cut(Cut {
            segment: base_offset,
            position: 0,
            bytes: files.logs[&base_offset].size_bytes,
            reason: "it follows a cut".to_owned(),
        });
        remove_segment(place, base_offset)?;
    }
    if !later.is_empty() {
        place.dir.judge_sync(place.path, place.dir.fs().sync_dir(place.path))?;
    }
    let path = place.file(segment.base_offset(), "log");
    let file = segment.log_file(place)?;
    place.dir.judge("truncate", &path, file.set_size(position))?;
    // Synced now: if nothing follows it no flush will, and after a clean stop it must not come back.
    place.dir.judge_sync(&path, file.sync_data())
}

fn remove_segment(place: Place<'_>, base_offset: Offset) -> Result<(), DiskError> {
    let mut extensions = crate::segment::INDEX_EXTENSIONS.iter().chain(&["log"]);
    extensions
        .try_for_each(|extension| directory::remove(place, &place.file(base_offset, extension)))
}

fn keeps_torn_batch(segment: &mut Segment, size_bytes: u32) -> bool {
    fail::fail_point!("bug-24-recovery-keeps-torn-batch", |_| {
        segment.count_torn_batch(size_bytes);
        true
    });
    let _ = (segment, size_bytes);
    false
}

/// Makes a segment ready for a walk from the recovery point on: with the index entries that were synced
/// with it, at the batch of the last of them. Without such entries the walk starts at the front.
fn start_at(
    place: Place<'_>,
    files: &Files,
    segment: &mut Segment,
    recovery_point: Offset,
    file: &LogFile,
    size_bytes: u32,
) -> Result<u64, LoadError> {
    let base_offset = segment.base_offset();
    segment.start_rebuild(place, file.times());
    let usable = recovery_point > base_offset
        && files.has(base_offset, "index")
        && files.has(base_offset, "timeindex");
    if !usable {
        return Ok(0);
    }
    let offsets = read_index(place, base_offset, "index")?.unwrap_or_default();
    let times = read_index(place, base_offset, "timeindex")?.unwrap_or_default();
    let index = OffsetIndex::new(base_offset, &offsets);
    let sound = index.sound_prefix(recovery_point, u64::from(size_bytes));
    let Some(last) = sound.checked_sub(1).and_then(|at| index.entry(at)) else { return Ok(0) };
    // The batch must be where the entry says.
    let log = segment.log_file(place)?;
    let path = place.file(base_offset, "log");
    let mut scanner = Scanner::new(&*log, u64::from(last.position), u64::from(size_bytes), 64);
    let first = first_header(
        place,
        &mut Segment::existing(place, base_offset, base_offset, size_bytes, file.times()),
    )?;
    let (Scanned::Batch(_, header), Ok(Some(first))) =
        (place.dir.judge("read", &path, scanner.next_header())?, first)
    else {
        return Ok(0);
    };
    if header.last_offset() != last.offset {
        return Ok(0);
    }
    let time_view = TimeIndex::new(base_offset, &times);
    let time_entries = time_view.sound_prefix(last.offset.next());
    let times = SegmentTimes {
        first: first.max_timestamp(),
        largest: time_entries.checked_sub(1).and_then(|at| time_view.entry(at)),
        ..file.times()
    };
    segment.resume_rebuild(&offsets, sound, time_view.prefix_bytes(time_entries), last, times);
    Ok(u64::from(last.position))
}

/// Notes all batches of a scan in a segment, CRCs checked. Where one is bad, or `accept` refuses it, its
/// position and why. `accept` sees what a batch says of a transaction's end, too.
fn note_all(
    place: Place<'_>,
    segment: &mut Segment,
    scanner: &mut Scanner<'_>,
    config: &LogConfig,
    report: &mut RecoveryReport,
    mut accept: impl FnMut(&BatchHeader, Option<EndTransactionMarker>) -> bool,
) -> Result<Option<(u64, String)>, DiskError> {
    let path = place.file(segment.base_offset(), "log");
    loop {
        let scanned =
            scanner.next_batch(|batch| (*batch.header(), EndTransactionMarker::in_batch(&batch)));
        match place.dir.judge("read", &path, scanned)? {
            Scanned::Batch(position, (header, marker)) => {
                if header.base_offset() < segment.next_offset() {
                    let reason =
                        format!("offset {} after {}", header.base_offset(), segment.next_offset());
                    return Ok(Some((position, reason)));
                }
                let relative = header.last_offset().delta_from(segment.base_offset());
                if relative.is_none_or(|relative| relative > i32::MAX as u64) {
                    return Ok(Some((position, format!("offset {}", header.last_offset()))));
                }
                if !accept(&header, marker) {
                    let reason = "a leader epoch older than the one before it".to_owned();
                    return Ok(Some((position, reason)));
                }
                segment.note(&header, config.index_interval_bytes);
                report.bytes_read += header.batch_size_bytes() as u64;
            }
            Scanned::End => return Ok(None),
            Scanned::Bad(position, error) => return Ok(Some((position, error.to_string()))),
        }
    }
}

/// The first batch's timestamp, and the largest of all, of a segment that was cut: from the time index that
/// is left and the batches after its last entry.
pub(crate) fn first_and_largest(
    place: Place<'_>,
    segment: &mut Segment,
) -> Result<(Option<Timestamp>, Option<TimestampOffset>), DiskError> {
    let first = first_header(place, segment)?.ok().flatten();
    let mut largest = segment.last_time_entry();
    let from = largest.map_or(segment.base_offset(), |entry| entry.offset.next());
    let position = segment.lookup_in_memory(from).unwrap_or(0);
    let file = segment.log_file(place)?;
    let path = place.file(segment.base_offset(), "log");
    let size = u64::from(segment.size_bytes());
    let mut scanner = Scanner::new(&*file, u64::from(position), size, WALK_CHUNK_BYTES);
    while let Scanned::Batch(_, header) = place.dir.judge("read", &path, scanner.next_header())? {
        if let Some(timestamp) = header.max_timestamp()
            && largest.is_none_or(|largest| timestamp > largest.timestamp)
        {
            largest = Some(TimestampOffset { timestamp, offset: header.last_offset() });
        }
    }
    Ok((first.and_then(|first| first.max_timestamp()), largest))
}
