//! The leader epochs of a log: what a new leader begins, and what fetches and their truncation ask.

use super::{Log, LogError};
use crate::leader_epoch::{EpochEndOffset, EpochEntry, LeaderEpoch, LeaderEpochCache};
use crate::offset::Offset;
use crate::timestamp::Timestamp;

impl Log {
    /// Becoming leader: `epoch` starts at the log end. Writes nothing; the epoch reaches the disk with the
    /// first batch in it.
    pub fn assign_epoch_start(&mut self, epoch: LeaderEpoch) {
        let start_offset = self.log_end;
        match self.loaded_mut() {
            Some(loaded) => loaded.assign_epoch(epoch, start_offset),
            None => self.pending_epoch = Some(EpochEntry { epoch, start_offset }),
        }
    }

    fn epochs(&mut self, now: Timestamp) -> Result<&LeaderEpochCache, LogError> {
        Ok(&self.load(now)?.epochs)
    }

    /// Where `epoch` ended here; see [`LeaderEpochCache::end_offset_for`].
    ///
    /// # Errors
    /// If the log cannot be read.
    pub fn end_offset_for_epoch(
        &mut self,
        epoch: LeaderEpoch,
        now: Timestamp,
    ) -> Result<Option<EpochEndOffset>, LogError> {
        let log_end = self.log_end;
        Ok(self.epochs(now)?.end_offset_for(epoch, log_end))
    }

    /// The epoch in which `offset` was, or would be, written. Reads the directory of a cold log, unless
    /// [`Log::knows_epoch_for`] it.
    ///
    /// # Errors
    /// If the log cannot be read.
    pub fn epoch_for_offset(
        &mut self,
        offset: Offset,
        now: Timestamp,
    ) -> Result<Option<LeaderEpoch>, LogError> {
        match self.pending_epoch {
            Some(pending) if self.is_cold() && pending.start_offset <= offset => {
                Ok(Some(pending.epoch))
            }
            _ => Ok(self.epochs(now)?.epoch_for_offset(offset)),
        }
    }

    /// Whether the epoch of `offset` can be told without reading the directory: the log is in use, or the offset is past what
    /// is in it, as all of an empty one is.
    pub fn knows_epoch_for(&self, offset: Offset) -> bool {
        !self.is_cold() || self.pending_epoch.is_some_and(|pending| pending.start_offset <= offset)
    }

    /// The latest epoch here.
    ///
    /// # Errors
    /// If the log cannot be read.
    pub fn latest_epoch(&mut self, now: Timestamp) -> Result<Option<LeaderEpoch>, LogError> {
        Ok(self.epochs(now)?.latest())
    }

    /// All epochs, oldest first.
    ///
    /// # Errors
    /// If the log cannot be read.
    pub fn leader_epochs(&mut self, now: Timestamp) -> Result<Vec<EpochEntry>, LogError> {
        Ok(self.epochs(now)?.entries().to_vec())
    }

    pub(super) fn take_pending_epoch(&mut self) {
        if let Some(entry) = self.pending_epoch.take()
            && let Some(loaded) = self.loaded_mut()
        {
            loaded.assign_epoch(entry.epoch, entry.start_offset);
        }
    }
}
