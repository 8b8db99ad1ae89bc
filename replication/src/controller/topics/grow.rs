//! CreatePartitions: a topic gets more partitions.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::assignment::new_partition;
use super::{AssignmentError, TooManyPartitions, check_total};
use crate::controller::placement::Placer;
use crate::controller::random::Random;
use crate::controller::{Controller, ControllerResult, DecisionContext, PlacementError};
use crate::metadata::MetadataRecord;
use crate::metadata::record::PartitionRecord;

/// Topics to grow.
#[derive(Clone, Debug)]
pub struct CreatePartitions {
    /// The topics, as asked for.
    pub topics: Vec<NewPartitions>,
    /// Only say what would happen.
    pub validate_only: bool,
}

/// One topic to grow.
#[derive(Clone, Debug)]
pub struct NewPartitions {
    /// Its name.
    pub name: Arc<str>,
    /// How many partitions it shall have in all.
    pub count: i32,
    /// Replicas of each new partition, chosen by the caller; `None`: the controller chooses.
    pub assignments: Option<Vec<Vec<i32>>>,
}

/// Why one topic does not grow.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CreatePartitionsError {
    /// The request names it twice (INVALID_REQUEST).
    #[error("the request names the topic more than once")]
    DuplicateInRequest,
    /// No such topic (UNKNOWN_TOPIC_OR_PARTITION).
    #[error("there is no such topic")]
    UnknownTopic,
    /// It has as many already, or more (INVALID_PARTITIONS).
    #[error("the topic has {current} partition(s); {requested} is no increase")]
    NoIncrease {
        /// How many it has.
        current: i32,
        /// How many it shall have.
        requested: i32,
    },
    /// Chosen replicas are refused (INVALID_REPLICA_ASSIGNMENT).
    #[error(transparent)]
    Assignment(#[from] AssignmentError),
    /// Not enough brokers (INVALID_REPLICATION_FACTOR).
    #[error(transparent)]
    Placement(#[from] PlacementError),
}

type Grown = Vec<(Arc<str>, Result<(), CreatePartitionsError>)>;

impl Controller {
    /// Decides each topic by itself; all new partitions go into one entry. The response has one answer a name,
    /// in the order in which names first occur.
    ///
    /// # Errors
    /// The request is too large as a whole.
    pub fn create_partitions(
        &self,
        context: &DecisionContext,
        request: &CreatePartitions,
    ) -> Result<ControllerResult<Grown>, TooManyPartitions> {
        check_total(request.topics.iter().map(|topic| self.added_partitions(topic)))?;
        let mut random = Random::new(context.seed);
        let placer = Placer::new(&self.image);
        let mut once = BTreeSet::new();
        let twice: BTreeSet<&str> =
            request.topics.iter().map(|t| &*t.name).filter(|&name| !once.insert(name)).collect();
        let mut answered = BTreeSet::new();
        let mut records = Vec::new();
        let mut response = Vec::new();
        for topic in request.topics.iter().filter(|topic| answered.insert(&*topic.name)) {
            let start = random.next_u64();
            let result = match twice.contains(&*topic.name) {
                true => Err(CreatePartitionsError::DuplicateInRequest),
                false => self.grow_one(topic, start, &placer, &mut records),
            };
            response.push((Arc::clone(&topic.name), result));
        }
        if request.validate_only {
            records.clear();
        }
        Ok(ControllerResult { records, response })
    }

    fn added_partitions(&self, topic: &NewPartitions) -> u64 {
        let current = self.image.topic_by_name(&topic.name).map(|t| t.partition_count());
        let added = current.map_or(0, |current| i64::from(topic.count) - i64::from(current));
        u64::try_from(added).unwrap_or(0) // no increase is that topic's own error
    }

    fn grow_one(
        &self,
        request: &NewPartitions,
        start: u64,
        placer: &Placer,
        records: &mut Vec<MetadataRecord>,
    ) -> Result<(), CreatePartitionsError> {
        let topic = self.image.topic_by_name(&request.name);
        let topic = topic.ok_or(CreatePartitionsError::UnknownTopic)?;
        let current = topic.partition_count();
        if request.count <= current {
            let requested = request.count;
            return Err(CreatePartitionsError::NoIncrease { current, requested });
        }
        let added = usize::try_from(request.count - current).expect("more than there are");
        // As many as the first partition has; each topic has one.
        let replicas = topic.partition(0).map_or(1, |partition| partition.replicas.len());
        let assigned = match &request.assignments {
            None => placer.place(start, added, replicas)?,
            Some(assignments) => {
                if assignments.len() != added {
                    let (expected, found) = (added, assignments.len());
                    return Err(AssignmentError::WrongCount { expected, found }.into());
                }
                let checked = (current..).zip(assignments).map(|(number, brokers)| {
                    self.check_assignment(number, brokers, Some(replicas))
                });
                checked.collect::<Result<_, _>>()?
            }
        };
        for (partition, brokers) in (current..).zip(&assigned) {
            let (topic_id, registration) = (topic.topic_id, new_partition(&self.image, brokers));
            records.push(MetadataRecord::Partition(PartitionRecord {
                topic_id,
                partition,
                registration,
            }));
        }
        Ok(())
    }
}
