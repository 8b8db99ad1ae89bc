//! What is in memory of a log that is in use.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, IoSlice};
use std::path::PathBuf;
use std::sync::Arc;

use crate::flush::EpochFile;
use crate::fs::OpenMode;
use crate::index_file;
use crate::leader_epoch::{LeaderEpoch, LeaderEpochCache};
use crate::log_dir::DiskError;
use crate::log_dir::names::segment_file_name;
use crate::offset::Offset;
use crate::producer_state::ProducerStateManager;
use crate::segment::Place;
use crate::segments::Segments;
use crate::transaction_index::AbortedTransaction;

/// What is in memory of a log that is in use.
#[derive(Debug)]
pub(crate) struct Loaded {
    pub(crate) segments: Segments,
    pub(crate) epochs: LeaderEpochCache,
    /// Grows with each change of `epochs`.
    pub(crate) epochs_version: u64,
    /// The version that is in the file, synced.
    pub(crate) epochs_synced: u64,
    pub(crate) epoch_file: Arc<EpochFile>,
    pub(crate) producers: ProducerStateManager,
    /// Aborted transactions by the base offset of the segment with their marker.
    pub(crate) aborted: BTreeMap<Offset, Vec<AbortedTransaction>>,
    /// Segments whose transaction index lacks entries on the disk.
    pub(crate) unwritten_aborted: BTreeSet<Offset>,
    /// Offsets of the producer snapshots on the disk.
    pub(crate) snapshots: BTreeSet<Offset>,
    /// Of them, those that may not be synced: as of which [`Self::names_version`] each was written.
    pub(crate) unsynced_snapshots: BTreeMap<Offset, u64>,
    /// Bytes appended since the newest snapshot.
    pub(crate) bytes_since_snapshot: u64,
    /// Grows when a file is created, renamed or removed in the directory.
    pub(crate) names_version: u64,
    /// The version that is synced.
    pub(crate) names_synced: u64,
    /// Whether the directory exists.
    pub(crate) is_created: bool,
    /// Whether the directory's own name, or its `partition.metadata`, may not be synced.
    pub(crate) is_new: bool,
}

impl Loaded {
    /// Of a log without a directory.
    pub(crate) fn absent() -> Loaded {
        Loaded {
            segments: Segments::new(),
            epochs: LeaderEpochCache::new(),
            epochs_version: 0,
            epochs_synced: 0,
            epoch_file: Arc::default(),
            producers: ProducerStateManager::new(),
            aborted: BTreeMap::new(),
            unwritten_aborted: BTreeSet::new(),
            snapshots: BTreeSet::new(),
            unsynced_snapshots: BTreeMap::new(),
            bytes_since_snapshot: 0,
            names_version: 0,
            names_synced: 0,
            is_created: false,
            is_new: false,
        }
    }

    pub(crate) fn assign_epoch(&mut self, epoch: LeaderEpoch, start_offset: Offset) {
        if self.epochs.assign(epoch, start_offset) {
            self.epochs_version += 1;
        }
    }

    /// Whether loading it again would make the same, but for an epoch that began at the log end.
    pub(crate) fn is_as_a_clean_stop_left_it(&self) -> bool {
        self.is_created
            && !self.is_new
            && self.names_synced == self.names_version
            && self.unsynced_snapshots.is_empty()
            && self.unwritten_aborted.is_empty()
            && !self.segments.iter().any(|segment| segment.has_dirty_index_files())
    }

    /// Names in the directory changed.
    pub(crate) fn note_names(&mut self) {
        self.names_version += 1;
    }

    /// Writes the producer state, which covers everything before `offset`, without syncing it.
    pub(crate) fn write_snapshot(
        &mut self,
        place: Place<'_>,
        offset: Offset,
        bytes: &[u8],
    ) -> Result<(), DiskError> {
        let path = snapshot_path(place, offset);
        let fs = place.dir.fs();
        let write = || {
            let file = fs.open(&path, OpenMode::Truncate)?;
            file.write_at(&mut [IoSlice::new(bytes)], 0)
        };
        place.dir.judge("write", &path, write())?;
        self.note_names();
        self.snapshots.insert(offset);
        self.unsynced_snapshots.insert(offset, self.names_version);
        self.bytes_since_snapshot = 0;
        Ok(())
    }

    pub(crate) fn remove_snapshot(
        &mut self,
        place: Place<'_>,
        offset: Offset,
    ) -> Result<(), DiskError> {
        let path = snapshot_path(place, offset);
        match place.dir.fs().remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return place.dir.judge("remove", &path, Err(error));
            }
            _ => {}
        }
        self.note_names();
        self.snapshots.remove(&offset);
        self.unsynced_snapshots.remove(&offset);
        Ok(())
    }

    /// Removes the snapshots that no start would use: all but those at a segment's base, the newest one at
    /// or below the recovery point, and what lies past it.
    pub(crate) fn prune_snapshots(
        &mut self,
        place: Place<'_>,
        recovery_point: Offset,
    ) -> Result<(), DiskError> {
        let newest_safe = self.snapshots.range(..=recovery_point).next_back().copied();
        let bases: BTreeSet<Offset> = self.segments.iter().map(|s| s.base_offset()).collect();
        let useless: Vec<Offset> = self
            .snapshots
            .range(..=recovery_point)
            .filter(|offset| Some(**offset) != newest_safe && !bases.contains(offset))
            .copied()
            .collect();
        useless.into_iter().try_for_each(|offset| self.remove_snapshot(place, offset))
    }

    /// Notes an aborted transaction, whose marker went to the active segment. It reaches the disk with the
    /// next flush of everything.
    pub(crate) fn add_aborted(&mut self, aborted: AbortedTransaction) {
        let Some(active) = self.segments.last() else { return };
        let base_offset = active.base_offset();
        self.aborted.entry(base_offset).or_default().push(aborted);
        self.unwritten_aborted.insert(base_offset);
    }

    /// Writes the transaction indexes that lack entries, whole: there are few.
    pub(crate) fn write_missing_aborted(&mut self, place: Place<'_>) -> Result<(), DiskError> {
        while let Some(base_offset) = self.unwritten_aborted.first().copied() {
            let mut bytes = Vec::new();
            for aborted in self.aborted.get(&base_offset).into_iter().flatten() {
                bytes.extend_from_slice(&aborted.to_bytes());
            }
            let path = place.file(base_offset, "txnindex");
            let replaced = index_file::replace(&**place.dir.fs(), &path, &bytes);
            place.dir.judge("write", &path, replaced)?;
            self.note_names();
            self.unwritten_aborted.remove(&base_offset);
        }
        Ok(())
    }
}

pub(crate) fn snapshot_path(place: Place<'_>, offset: Offset) -> PathBuf {
    place.path.join(segment_file_name(offset, "snapshot"))
}
