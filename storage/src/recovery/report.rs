//! What opening a log did, to be logged and shown.

use std::fmt;

use crate::offset::Offset;
use crate::topic_partition::TopicPartition;

/// Bytes that were cut off.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cut {
    /// Base offset of the segment.
    pub segment: Offset,
    /// First byte that went.
    pub position: u64,
    /// How many bytes went.
    pub bytes: u64,
    /// Why.
    pub reason: String,
}

/// What opening a log did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecoveryReport {
    /// Whose log.
    pub topic_partition: TopicPartition,
    /// The log start offset.
    pub log_start: Offset,
    /// The log end offset.
    pub log_end: Offset,
    /// Segments of which batches were read.
    pub segments_read: usize,
    /// Bytes of whole batches read.
    pub bytes_read: u64,
    /// What was cut off.
    pub cuts: Vec<Cut>,
    /// Segments below the recovery point whose indexes were rebuilt.
    pub rebuilt_indexes: Vec<Offset>,
}

impl RecoveryReport {
    pub(super) fn new(topic_partition: TopicPartition) -> RecoveryReport {
        RecoveryReport {
            topic_partition,
            log_start: Offset::ZERO,
            log_end: Offset::ZERO,
            segments_read: 0,
            bytes_read: 0,
            cuts: Vec::new(),
            rebuilt_indexes: Vec::new(),
        }
    }

    pub(super) fn add_cut(&mut self, cut: Cut) {
        self.cuts.push(cut);
    }

    /// Bytes cut off in all.
    pub fn bytes_cut(&self) -> u64 {
        self.cuts.iter().map(|cut| cut.bytes).sum()
    }
}

impl fmt::Display for RecoveryReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}: [{}, {}), read {} bytes in {} segments",
            self.topic_partition, self.log_start, self.log_end, self.bytes_read, self.segments_read
        )?;
        for cut in &self.cuts {
            write!(
                f,
                "; cut {} bytes off segment {} at byte {}: {}",
                cut.bytes, cut.segment, cut.position, cut.reason
            )?;
        }
        for segment in &self.rebuilt_indexes {
            write!(f, "; rebuilt the indexes of segment {segment}")?;
        }
        Ok(())
    }
}
