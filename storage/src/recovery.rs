//! Opening a log's directory (`LogLoader.java`, `LogSegment.recover`): what is there, what of it is whole,
//! and what follows from it.
//!
//! After a clean stop the ends are known and only checked. After an unclean one:
//! 1. left-overs go (files being deleted, temporary ones, indexes without a log);
//! 2. segments below the recovery point are taken as they are, their indexes checked and rebuilt if they
//!    are wrong or missing; the log must be whole there, or the partition stays offline, untouched;
//! 3. from the recovery point on every batch is read, its CRC checked, the indexes built anew; at the first
//!    bad one the log is cut, whatever follows;
//! 4. leader epochs and producer state are rebuilt: from what was synced with the recovery point, and the
//!    batches past it;
//! 5. a log that ends before its log start is emptied and begins there.

mod directory;
pub(crate) mod producers;
mod report;
#[cfg(test)]
mod tests;
mod walk;

use std::collections::BTreeMap;
use std::io;

pub use report::{Cut, RecoveryReport};
pub(crate) use walk::first_and_largest;

use crate::checkpoint::{CheckpointError, LEADER_EPOCH_FILE, read_epochs};
use crate::leader_epoch::LeaderEpochCache;
use crate::log::{Loaded, LogConfig, LogError};
use crate::log_dir::DiskError;
use crate::offset::Offset;
use crate::segment::{Place, read_index};
use crate::segments::Segments;
use crate::timestamp::Timestamp;
use crate::topic_partition::TopicPartition;
use crate::transaction_index;

/// What is known about a log before its directory is read.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Known {
    /// It was stopped cleanly with these ends.
    CleanStop { log_start: Offset, log_end: Offset },
    /// It was not; these stand in the checkpoints, zero where nothing does.
    Checkpoints { recovery_point: Offset, log_start: Offset },
}

/// A log as its directory has it.
#[derive(Debug)]
pub(crate) struct Recovered {
    pub(crate) loaded: Loaded,
    pub(crate) log_start: Offset,
    pub(crate) log_end: Offset,
    pub(crate) recovery_point: Offset,
    /// Bytes of batches past the recovery point.
    pub(crate) unflushed_bytes: u64,
    pub(crate) report: RecoveryReport,
}

/// Why a directory's content is no log; becomes [`LogError::Damaged`] with the partition's name.
#[derive(Debug)]
pub(crate) enum LoadError {
    Disk(DiskError),
    Damaged(String),
}

impl From<DiskError> for LoadError {
    fn from(error: DiskError) -> LoadError {
        LoadError::Disk(error)
    }
}

/// Reads a log's directory, and repairs what may be repaired.
///
/// # Errors
/// If the disk fails; or if the log is damaged below what was synced: nothing is changed then but
/// left-overs removed.
pub(crate) fn load(
    place: Place<'_>,
    topic_partition: &TopicPartition,
    config: &LogConfig,
    known: Known,
    now: Timestamp,
) -> Result<Recovered, LogError> {
    load_inner(place, topic_partition, config, known, now).map_err(|error| match error {
        LoadError::Disk(error) => error.into(),
        LoadError::Damaged(reason) => {
            LogError::Damaged { topic_partition: topic_partition.clone(), reason: reason.into() }
        }
    })
}

fn load_inner(
    place: Place<'_>,
    topic_partition: &TopicPartition,
    config: &LogConfig,
    known: Known,
    now: Timestamp,
) -> Result<Recovered, LoadError> {
    let mut report = RecoveryReport::new(topic_partition.clone());
    let files = directory::read(place)?;
    let epoch_path = place.path.join(LEADER_EPOCH_FILE);
    let mut epochs = match read_epochs(&**place.dir.fs(), &epoch_path) {
        Ok(entries) => LeaderEpochCache::from_entries(entries),
        Err(CheckpointError::Io(error)) if error.kind() != io::ErrorKind::FileTooLarge => {
            place.dir.judge("read", &epoch_path, Err(error))?
        }
        // The partition's alone: the epochs below the recovery point are nowhere else.
        Err(error) => {
            return Err(LoadError::Damaged(format!("{}: {error}", epoch_path.display())));
        }
    };

    let (log_start, trusted_end) = match known {
        Known::CleanStop { log_start, log_end } => (log_start, log_end),
        Known::Checkpoints { recovery_point, log_start } => (log_start, recovery_point),
    };
    let is_clean = matches!(known, Known::CleanStop { .. });
    if !is_clean {
        epochs.truncate_from_end(trusted_end);
    }
    let walked = match is_clean {
        true => walk::open_clean(place, &files, trusted_end, config, &mut report)?,
        false => walk::recover(place, &files, trusted_end, config, &mut epochs, &mut report)?,
    };

    let mut loaded = Loaded::absent();
    loaded.is_created = true;
    loaded.snapshots = files.snapshots.clone();
    loaded.segments = walked.segments;
    let mut log_end = loaded.segments.last().map_or(log_start, |last| last.next_offset());
    let mut log_start = match loaded.segments.first() {
        Some(first) => first.base_offset().max(log_start),
        None => log_start,
    };
    if log_end < log_start {
        // All that is left lies before what DeleteRecords left over.
        while let Some(segment) = loaded.segments.pop() {
            report.add_cut(Cut {
                segment: segment.base_offset(),
                position: 0,
                bytes: u64::from(segment.size_bytes()),
                reason: format!("it ends before the log start offset {log_start}"),
            });
            segment.mark_deleted(place)?;
        }
        log_end = log_start;
    }
    if log_end < trusted_end || is_clean && log_end > trusted_end {
        return Err(LoadError::Damaged(format!(
            "it was synced up to offset {trusted_end}, but ends at {log_end}"
        )));
    }
    if loaded.segments.len() == 0 {
        // An empty log begins where its checkpoint says.
        log_start = log_end;
    }
    let recovery_point = trusted_end;

    let before = epochs.clone();
    epochs.truncate_from_end(log_end);
    epochs.truncate_from_start(log_start);
    // What the walk changed is not in the file either; a clean stop's file is as it should be.
    loaded.epochs_version = u64::from(!is_clean || before != epochs);
    loaded.epochs = epochs;

    if !is_clean {
        // Snapshots past the recovery point may be of a history that was cut since.
        let untrusted: Vec<Offset> =
            loaded.snapshots.iter().copied().filter(|offset| *offset > recovery_point).collect();
        for offset in untrusted {
            loaded.remove_snapshot(place, offset)?;
        }
    }
    let loaded_is_empty = loaded.segments.len() == 0;
    loaded.aborted = read_aborted(place, &loaded.segments, &files, recovery_point);
    let expiration_ms = config.producer_id_expiration_ms;
    let producers = match is_clean {
        // A clean stop leaves a snapshot at the log end, unless there is no producer.
        true if !loaded.snapshots.contains(&log_end) => Default::default(),
        _ => producers::rebuild(
            place,
            &mut loaded,
            log_start,
            log_end,
            recovery_point,
            now,
            expiration_ms,
            // Of a log that was emptied they are none.
            walked.producer_batches.filter(|_| !loaded_is_empty),
        )?,
    };
    loaded.producers = producers;
    if is_clean && !report.rebuilt_indexes.is_empty() {
        loaded.note_names();
    }
    if !is_clean {
        // Names, epochs and indexes are synced with the next flush of everything.
        loaded.note_names();
        loaded.is_new = true;
    }
    report.log_start = log_start;
    report.log_end = log_end;
    Ok(Recovered {
        loaded,
        log_start,
        log_end,
        recovery_point,
        unflushed_bytes: walked.unflushed_bytes,
        report,
    })
}

/// The transaction indexes below the recovery point; what lies past it comes from the batches.
fn read_aborted(
    place: Place<'_>,
    segments: &Segments,
    files: &directory::Files,
    recovery_point: Offset,
) -> BTreeMap<Offset, Vec<transaction_index::AbortedTransaction>> {
    let mut aborted = BTreeMap::new();
    for segment in segments.iter() {
        let base_offset = segment.base_offset();
        if !files.has(base_offset, "txnindex") {
            continue;
        }
        let Ok(Some(bytes)) = read_index(place, base_offset, "txnindex") else { continue };
        let mut entries = transaction_index::decode(&bytes).unwrap_or_default();
        entries.retain(|entry| entry.last_offset < recovery_point);
        if !entries.is_empty() {
            aborted.insert(base_offset, entries);
        }
    }
    aborted
}
