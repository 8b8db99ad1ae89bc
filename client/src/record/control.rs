//! Control records: where a transaction ended. Key: int16 version, int16 type; value: int16 version, int32 coordinator epoch.

use bytes::{Buf, Bytes};

use super::Record;

/// What a control record says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ControlRecord {
    /// The producer's open transaction was aborted.
    Abort,
    /// The producer's open transaction was committed.
    Commit,
    /// One of the quorum's, or one that is not known yet: readers skip it.
    Other(i16),
}

impl ControlRecord {
    /// Reads the key of a record of a control batch; `None` if it is too short to have a type.
    pub fn from_record(record: &Record) -> Option<ControlRecord> {
        let mut key: Bytes = record.key.clone()?;
        let _version = key.try_get_i16().ok()?;
        Some(match key.try_get_i16().ok()? {
            0 => ControlRecord::Abort,
            1 => ControlRecord::Commit,
            other => ControlRecord::Other(other),
        })
    }
}
