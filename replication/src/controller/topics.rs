//! Topics are created, grown and deleted (kafka-facts 5.10, traps 8 and 23; Kafka's
//! `ReplicationControlManager`).

mod assignment;
mod create;
mod delete;
mod grow;
#[cfg(test)]
mod tests;

pub use assignment::AssignmentError;
pub use create::{CreateTopicError, CreateTopics, CreatedTopic, ManualAssignment, NewTopic};
pub use delete::{DeleteTopicError, DeletedTopic, TopicRef};
pub use grow::{CreatePartitions, CreatePartitionsError, NewPartitions};

/// How many partitions one request may create.
pub const MAX_PARTITIONS_PER_REQUEST: u64 = 10_000;

/// The whole request is refused (POLICY_VIOLATION, for each of its topics).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the request creates {requested} partitions, at most {MAX_PARTITIONS_PER_REQUEST} are allowed"
)]
pub struct TooManyPartitions {
    /// How many it would create.
    pub requested: u64,
}

fn check_total(partitions: impl Iterator<Item = u64>) -> Result<(), TooManyPartitions> {
    // Counts are below 2^31 and there are fewer topics than bytes in a frame.
    let requested = partitions.fold(0, u64::saturating_add);
    match requested <= MAX_PARTITIONS_PER_REQUEST {
        true => Ok(()),
        false => Err(TooManyPartitions { requested }),
    }
}
