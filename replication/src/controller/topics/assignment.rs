//! Replicas that the caller has chosen, and replicas as they are recorded.

use std::collections::BTreeSet;

use crate::controller::Controller;
use crate::identity::{BrokerId, DirectoryId};
use crate::metadata::{MetadataImage, PartitionRegistration, Replica};

/// Why chosen replicas are refused (INVALID_REPLICA_ASSIGNMENT).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AssignmentError {
    /// A partition without replicas.
    #[error("partition {partition} is assigned no replica")]
    Empty {
        /// The partition.
        partition: i32,
    },
    /// One broker twice.
    #[error("partition {partition} is assigned broker {broker} more than once")]
    DuplicateBroker {
        /// The partition.
        partition: i32,
        /// The broker.
        broker: i32,
    },
    /// A broker that there is not.
    #[error("partition {partition} is assigned broker {broker}, but no such broker is registered")]
    UnknownBroker {
        /// The partition.
        partition: i32,
        /// The broker.
        broker: i32,
    },
    /// Partitions with different numbers of replicas.
    #[error("partition {partition} is assigned {found} replica(s), the others have {expected}")]
    UnevenReplication {
        /// The partition.
        partition: i32,
        /// Its replicas.
        found: usize,
        /// The others'.
        expected: usize,
    },
    /// None of a partition's brokers could lead.
    #[error("all brokers assigned to partition {partition} are fenced or shutting down")]
    AllFenced {
        /// The partition.
        partition: i32,
    },
    /// One partition twice.
    #[error("partition {partition} is assigned more than once")]
    DuplicatePartition {
        /// The partition.
        partition: i32,
    },
    /// Not 0, 1, 2, ….
    #[error("the assigned partitions are not numbered 0, 1, 2 and so on")]
    NotConsecutive,
    /// As many assignments as new partitions are needed.
    #[error("{expected} new partition(s), but {found} assignment(s)")]
    WrongCount {
        /// New partitions.
        expected: usize,
        /// Assignments.
        found: usize,
    },
}

impl Controller {
    /// The brokers of one chosen assignment. `replication_factor` is what the other partitions have.
    pub(super) fn check_assignment(
        &self,
        partition: i32,
        brokers: &[i32],
        replication_factor: Option<usize>,
    ) -> Result<Vec<BrokerId>, AssignmentError> {
        if brokers.is_empty() {
            return Err(AssignmentError::Empty { partition });
        }
        let mut replicas = Vec::new();
        let mut seen = BTreeSet::new();
        for &broker in brokers {
            if !seen.insert(broker) {
                return Err(AssignmentError::DuplicateBroker { partition, broker });
            }
            let id = BrokerId::new(broker).filter(|&id| self.image.broker(id).is_some());
            replicas.push(id.ok_or(AssignmentError::UnknownBroker { partition, broker })?);
        }
        if let Some(expected) = replication_factor
            && expected != replicas.len()
        {
            let found = replicas.len();
            return Err(AssignmentError::UnevenReplication { partition, found, expected });
        }
        if !replicas.iter().any(|&id| self.image.is_active(id)) {
            return Err(AssignmentError::AllFenced { partition });
        }
        Ok(replicas)
    }
}

/// A new partition on these brokers: the active ones are in sync, the first of them leads.
pub(super) fn new_partition(image: &MetadataImage, brokers: &[BrokerId]) -> PartitionRegistration {
    // Zero for a broker that went away since: it comes back with another, and then has no seat here.
    let directory_of = |id| image.broker(id).map(|broker| broker.directory_id);
    let nowhere = DirectoryId::from_bytes([0; 16]);
    let replicas = brokers
        .iter()
        .map(|&broker| Replica { broker, directory: directory_of(broker).unwrap_or(nowhere) });
    let isr = brokers.iter().copied().filter(|&id| image.is_active(id)).collect();
    PartitionRegistration::new(replicas.collect(), isr)
}
