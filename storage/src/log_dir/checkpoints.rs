//! The three offset checkpoints of a log directory, and what keeps them from speaking of another log than
//! the one that is there: a recovery point is lowered on the disk before anything is appended after a
//! truncation, and a new log begins only when no checkpoint speaks of an earlier one of its name.

use std::collections::BTreeMap;
use std::sync::Mutex;

use super::{DiskError, LogDir};
use crate::checkpoint::{
    HIGH_WATERMARK_FILE, LOG_START_FILE, RECOVERY_POINT_FILE, encode_offsets, read_offsets,
};
use crate::log::CheckpointedOffsets;
use crate::offset::Offset;
use crate::topic_partition::TopicPartition;

type Offsets = BTreeMap<TopicPartition, Offset>;

/// What the checkpoint files hold.
#[derive(Debug, Default)]
pub(crate) struct Checkpoints {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    recovery_points: Offsets,
    log_starts: Offsets,
    high_watermarks: Offsets,
    /// Grows when an entry is lowered or forgotten: what was gathered before must not be written after.
    generation: u64,
}

/// One of the three files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CheckpointKind {
    RecoveryPoint,
    LogStart,
    HighWatermark,
}

impl CheckpointKind {
    pub(crate) const ALL: [CheckpointKind; 3] =
        [CheckpointKind::RecoveryPoint, CheckpointKind::LogStart, CheckpointKind::HighWatermark];

    fn file_name(self) -> &'static str {
        match self {
            CheckpointKind::RecoveryPoint => RECOVERY_POINT_FILE,
            CheckpointKind::LogStart => LOG_START_FILE,
            CheckpointKind::HighWatermark => HIGH_WATERMARK_FILE,
        }
    }
}

impl State {
    fn offsets(&mut self, kind: CheckpointKind) -> &mut Offsets {
        match kind {
            CheckpointKind::RecoveryPoint => &mut self.recovery_points,
            CheckpointKind::LogStart => &mut self.log_starts,
            CheckpointKind::HighWatermark => &mut self.high_watermarks,
        }
    }
}

impl LogDir {
    /// Reads the checkpoints; missing ones are empty.
    ///
    /// # Errors
    /// A malformed one takes the directory offline.
    pub(crate) fn load_checkpoints(&self) -> Result<(), DiskError> {
        for kind in CheckpointKind::ALL {
            let path = self.path().join(kind.file_name());
            let offsets = self.read_checkpoint(&path, read_offsets)?;
            *self.checkpoint_state().offsets(kind) = offsets;
        }
        Ok(())
    }

    fn checkpoint_state(&self) -> std::sync::MutexGuard<'_, State> {
        self.checkpoints().state.lock().expect("nothing panics while it holds the checkpoints")
    }

    /// What the checkpoints say about a partition; zero where nothing.
    pub(crate) fn checkpointed(&self, partition: &TopicPartition) -> CheckpointedOffsets {
        let state = self.checkpoint_state();
        let of = |offsets: &Offsets| offsets.get(partition).copied().unwrap_or_default();
        CheckpointedOffsets {
            recovery_point: of(&state.recovery_points),
            log_start: of(&state.log_starts),
            high_watermark: of(&state.high_watermarks),
        }
    }

    /// To hand to [`LogDir::checkpoint`]; take it before gathering the offsets.
    pub(crate) fn checkpoint_generation(&self) -> u64 {
        self.checkpoint_state().generation
    }

    /// Writes a checkpoint, if it differs from what is there. Returns whether what was gathered still
    /// counted: if an entry was lowered or forgotten since, nothing is written.
    ///
    /// # Errors
    /// If the disk fails or is full; the old one is then still there.
    pub(crate) fn checkpoint(
        &self,
        kind: CheckpointKind,
        offsets: Offsets,
        generation: u64,
    ) -> Result<bool, DiskError> {
        let mut state = self.checkpoint_state();
        if state.generation != generation {
            return Ok(false);
        }
        if *state.offsets(kind) != offsets {
            self.write_offsets(kind, &offsets)?;
            *state.offsets(kind) = offsets;
        }
        Ok(true)
    }

    /// Lowers a recovery point on the disk before the log is cut there. Does nothing if it is not above.
    ///
    /// # Errors
    /// If the disk fails or is full; the log must not be cut then.
    pub(crate) fn lower_recovery_point(
        &self,
        partition: &TopicPartition,
        offset: Offset,
    ) -> Result<(), DiskError> {
        let mut state = self.checkpoint_state();
        state.generation += 1;
        if state.recovery_points.get(partition).is_none_or(|point| *point <= offset) {
            return Ok(());
        }
        let mut lowered = state.recovery_points.clone();
        lowered.insert(partition.clone(), offset);
        self.write_offsets(CheckpointKind::RecoveryPoint, &lowered)?;
        state.recovery_points = lowered;
        Ok(())
    }

    /// Removes what any checkpoint on the disk says about a partition: a new log of that name begins.
    ///
    /// # Errors
    /// If the disk fails or is full; the log must not begin then.
    pub(crate) fn forget_checkpoints(&self, partition: &TopicPartition) -> Result<(), DiskError> {
        let mut state = self.checkpoint_state();
        state.generation += 1;
        for kind in CheckpointKind::ALL {
            if !state.offsets(kind).contains_key(partition) {
                continue;
            }
            let mut rest = state.offsets(kind).clone();
            rest.remove(partition);
            self.write_offsets(kind, &rest)?;
            *state.offsets(kind) = rest;
        }
        Ok(())
    }

    fn write_offsets(&self, kind: CheckpointKind, offsets: &Offsets) -> Result<(), DiskError> {
        let path = self.path().join(kind.file_name());
        let entries = offsets.iter().map(|(partition, offset)| (partition, *offset));
        self.write_checkpoint(&path, &encode_offsets(entries))
    }
}
