//! Producer state of a log on the disk: the newest snapshot that can be believed, the five-batch windows
//! from the headers before it, and the batches after it.

use crate::log::Loaded;
use crate::log_dir::{DiskError, FileKind};
use crate::offset::Offset;
use crate::offset_index::OffsetIndex;
use crate::producer_state::ProducerStateManager;
use crate::record_batch::{BatchHeader, EndTransactionMarker, RecordBatch};
use crate::segment::scan::{Scanned, Scanner, WALK_CHUNK_BYTES};
use crate::segment::{Place, Segment};
use crate::timestamp::Timestamp;

/// The search for the last five batches of each producer reads at most this far back from the snapshot. A
/// producer whose fifth batch back is further away has had its answer long since.
const REFILL_MAX_BYTES: u64 = 64 << 20;
/// How much of a segment is looked at in one step back.
const REFILL_STEP_BYTES: u64 = 1 << 20;
/// No snapshot of ours is larger: a million producers.
const SNAPSHOT_MAX_BYTES: u64 = 64 << 20;

/// Producers' batches that a walk keeps for the producer state: 2 GiB of batches of 16 KiB, in 16 MiB. With more of them
/// the headers are read once more.
const MAX_PRODUCER_BATCHES: usize = if cfg!(test) { 8 } else { 128 << 10 };

/// What a walk to the end of the log met of producers.
#[derive(Debug)]
pub(crate) struct ProducerBatches {
    /// Where the walk began: all batches from here to the log end were seen.
    from: Offset,
    /// By the base offset of their segments; `None` once there were too many.
    batches: Option<Vec<(Offset, BatchHeader, Option<EndTransactionMarker>)>>,
    max_batches: usize,
}

impl ProducerBatches {
    /// Of a walk whose first batch is at `from`.
    pub(super) fn from(from: Offset) -> ProducerBatches {
        let batches = Some(Vec::new());
        ProducerBatches { from, batches, max_batches: MAX_PRODUCER_BATCHES }
    }

    /// The next batch of the walk, in the segment at `segment`.
    pub(super) fn add(
        &mut self,
        segment: Offset,
        header: &BatchHeader,
        marker: Option<EndTransactionMarker>,
    ) {
        if header.producer().is_none() {
            return;
        }
        match &mut self.batches {
            Some(batches) if batches.len() < self.max_batches => {
                batches.push((segment, *header, marker));
            }
            batches => *batches = None,
        }
    }
}

/// The state at `log_end`, from the newest snapshot at or below `trusted`. Ended transactions that were
/// aborted past the snapshot are noted in `loaded` where it lacks them. `seen` is what a walk met that went to the log end.
#[allow(clippy::too_many_arguments)]
pub(crate) fn rebuild(
    place: Place<'_>,
    loaded: &mut Loaded,
    log_start: Offset,
    log_end: Offset,
    trusted: Offset,
    now: Timestamp,
    expiration_ms: i64,
    seen: Option<ProducerBatches>,
) -> Result<ProducerStateManager, DiskError> {
    // What DeleteRecords hid is still there to learn from.
    let first = loaded.segments.first().map_or(log_start, |first| first.base_offset());
    let mut from = first;
    let mut state = ProducerStateManager::new();
    while let Some(offset) = loaded.snapshots.range(..=trusted.min(log_end)).next_back().copied() {
        // The batches between it and the first segment are gone, and with them a producer's last sequence: one that
        // is known too early is refused, one that is not known may go on (as in Kafka's `truncateAndReload`).
        if offset < first {
            loaded.remove_snapshot(place, offset)?;
            continue;
        }
        let path = crate::log::snapshot_path(place, offset);
        let read = crate::fs::read_file(&**place.dir.fs(), &path, SNAPSHOT_MAX_BYTES);
        let parsed = read.map_err(|error| error.to_string()).and_then(|bytes| {
            ProducerStateManager::from_snapshot(&bytes, offset, now, expiration_ms)
                .map_err(|error| error.to_string())
        });
        match parsed {
            Ok(found) => {
                state = found;
                from = offset;
                refill(place, loaded, &mut state, first, offset)?;
                break;
            }
            Err(reason) => {
                tracing::warn!(path = %path.display(), reason, "producer snapshot is unusable, removed");
                loaded.remove_snapshot(place, offset)?;
            }
        }
    }
    replay(place, loaded, &mut state, from, seen)?;
    state.expire(now, expiration_ms);
    Ok(state)
}

/// Walks over the headers from `from` on, up to those that were `seen`.
fn replay(
    place: Place<'_>,
    loaded: &mut Loaded,
    state: &mut ProducerStateManager,
    from: Offset,
    seen: Option<ProducerBatches>,
) -> Result<(), DiskError> {
    let mut aborted = Vec::new();
    let (seen_from, seen) = match seen {
        Some(ProducerBatches { from, batches: Some(batches), .. }) => (from, batches),
        _ => (Offset::MAX, Vec::new()),
    };
    for segment in loaded.segments.iter_mut() {
        if segment.next_offset() <= from || segment.size_bytes() == 0 {
            continue;
        }
        if segment.base_offset() >= seen_from {
            break;
        }
        let base_offset = segment.base_offset();
        let position = position_of(place, segment, from)?;
        let file = segment.log_file(place)?;
        let path = place.file(base_offset, "log");
        let size = u64::from(segment.size_bytes());
        let mut scanner = Scanner::new(&*file, position, size, WALK_CHUNK_BYTES);
        while let Scanned::Batch(at, header) =
            place.dir.judge("read", &path, scanner.next_header())?
        {
            if header.base_offset() >= seen_from {
                break;
            }
            if header.base_offset() < from || header.producer().is_none() {
                continue;
            }
            let marker = match header.is_control() {
                true => {
                    let mut bytes = vec![0; header.batch_size_bytes()];
                    place.dir.judge("read", &path, file.read_exact_at(&mut bytes, at))?;
                    RecordBatch::parse(&bytes)
                        .ok()
                        .and_then(|(batch, _)| EndTransactionMarker::in_batch(&batch))
                }
                false => None,
            };
            if let Some(entry) = state.update(&header, marker) {
                aborted.push((base_offset, entry));
            }
        }
    }
    for (base_offset, header, marker) in seen {
        if header.base_offset() < from {
            continue;
        }
        if let Some(entry) = state.update(&header, marker) {
            aborted.push((base_offset, entry));
        }
    }
    for (base_offset, entry) in aborted {
        let entries = loaded.aborted.entry(base_offset).or_default();
        if entries.last().is_none_or(|last| last.last_offset < entry.last_offset) {
            entries.push(entry);
            loaded.unwritten_aborted.insert(base_offset);
        }
    }
    Ok(())
}

/// Where to start looking for an offset.
fn position_of(place: Place<'_>, segment: &Segment, target: Offset) -> Result<u64, DiskError> {
    if target <= segment.base_offset() {
        return Ok(0);
    }
    if let Some(position) = segment.lookup_in_memory(target) {
        return Ok(u64::from(position));
    }
    let map =
        Segment::map_index(place, segment.key(), segment.base_offset(), FileKind::OffsetIndex)?;
    let position =
        map.map_or(0, |map| OffsetIndex::new(segment.base_offset(), &map).lookup(target).position);
    Ok(u64::from(position.min(segment.size_bytes())))
}

/// Finds the last five batches of each producer in a snapshot taken at `snapshot_offset`.
fn refill(
    place: Place<'_>,
    loaded: &mut Loaded,
    state: &mut ProducerStateManager,
    log_start: Offset,
    snapshot_offset: Offset,
) -> Result<(), DiskError> {
    let mut refill = state.start_window_refill(log_start);
    let mut budget = REFILL_MAX_BYTES;
    while let Some(below) = refill.wanted_below() {
        let below = below.min(snapshot_offset);
        let Some(at) = loaded
            .segments
            .iter()
            .rposition(|segment| segment.base_offset() < below && segment.size_bytes() > 0)
        else {
            break;
        };
        let segment = loaded.segments.get_mut(at).expect("found just now");
        let base_offset = segment.base_offset();
        let (start, stop) = step_back(place, segment, below)?;
        let file = segment.log_file(place)?;
        let path = place.file(base_offset, "log");
        let mut scanner = Scanner::new(&*file, start, stop, WALK_CHUNK_BYTES);
        let mut headers: Vec<BatchHeader> = Vec::new();
        while let Scanned::Batch(_, header) =
            place.dir.judge("read", &path, scanner.next_header())?
        {
            if header.base_offset() >= below {
                break;
            }
            headers.push(header);
        }
        let from = match headers.first() {
            Some(first) if start > 0 => first.base_offset(),
            _ => base_offset,
        };
        refill.add_part(from.min(below), &headers);
        let read = scanner.position() - start;
        if read >= budget || from >= below {
            break;
        }
        budget -= read;
    }
    state.finish_window_refill(refill);
    Ok(())
}

/// The part of a segment to look at for what lies below `below`: at least a step, from an index entry on.
fn step_back(place: Place<'_>, segment: &Segment, below: Offset) -> Result<(u64, u64), DiskError> {
    let size = u64::from(segment.size_bytes());
    let end =
        if below >= segment.next_offset() { size } else { position_of(place, segment, below)? };
    if end <= REFILL_STEP_BYTES {
        return Ok((0, size));
    }
    let wanted = end - REFILL_STEP_BYTES;
    let earlier = |index: OffsetIndex<'_>| {
        let mut low = 0;
        let mut high = index.len();
        while low < high {
            let middle = low.midpoint(high);
            match index.entry(middle) {
                Some(entry) if u64::from(entry.position) <= wanted => low = middle + 1,
                _ => high = middle,
            }
        }
        low.checked_sub(1)
            .and_then(|at| index.entry(at))
            .map_or(0, |entry| u64::from(entry.position))
    };
    if let Some(index) = segment.index_in_memory() {
        return Ok((earlier(index), size));
    }
    let map =
        Segment::map_index(place, segment.key(), segment.base_offset(), FileKind::OffsetIndex)?;
    Ok((map.map_or(0, |map| earlier(OffsetIndex::new(segment.base_offset(), &map))), size))
}
