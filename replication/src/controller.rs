//! The controller: decides changes of the metadata, as a pure function of the image, the request, the time
//! and a seed (STYLE §2, decide then replay).
//!
//! One active controller exists, on the leader of the metadata quorum. Its shell, for every request:
//! 1. calls a decide method, which changes nothing and returns records and a response;
//! 2. proposes the records as one entry (none: nothing to propose) and calls [`Controller::replay`] with the
//!    entry's index at once, so that the next decision sees them;
//! 3. answers with the response once the entry is committed. With an empty list the response may rest on
//!    records that are not committed yet: it waits for everything replayed so far.
//!
//! A node makes a [`Controller`] from its committed image when it becomes active and drops it when it no longer
//! is: with it go the records that were never committed.

mod alter_partition;
mod cluster;
mod configs;
mod features;
mod leader_election;
mod placement;
mod producer_ids;
#[cfg(test)]
mod property_tests;
mod random;
mod sessions;
#[cfg(test)]
pub(crate) mod testing;
mod topic_name;
mod topics;

use std::sync::Arc;
use std::time::Duration;

use storage::instant::Instant;

use crate::metadata::{MetadataDelta, MetadataImage, MetadataRecord, ReplayError};

pub use alter_partition::{
    AlterPartition, AlterPartitionEntry, AlterPartitionError, AlterPartitionResult,
    AlteredPartition,
};
pub use cluster::{
    BrokerHeartbeat, BrokerHeartbeatResponse, BrokerRegistered, RegisterBroker,
    RegisterBrokerError, StaleBrokerEpoch, UnregisterBrokerError,
};
pub use configs::{
    AlterConfigError, AlterConfigs, AlteredResource, ConfigChange, ConfigOperation,
    ConfigRejection, ConfigReplacement, ConfigScope, ConfigTarget, ConfigValidator,
};
pub use features::supported_features;
pub use placement::PlacementError;
pub use producer_ids::{AllocateProducerIdsError, PRODUCER_ID_BLOCK_SIZE, ProducerIdBlock};
pub use topic_name::{InvalidTopicName, MAX_TOPIC_NAME_BYTES, check_topic_name};
pub use topics::{
    AssignmentError, CreatePartitions, CreatePartitionsError, CreateTopicError, CreateTopics,
    CreatedTopic, DeleteTopicError, DeletedTopic, MAX_PARTITIONS_PER_REQUEST, ManualAssignment,
    NewPartitions, NewTopic, TooManyPartitions, TopicRef,
};

/// Settings of the controller. They are this node's static ones: what the whole cluster must agree on is in the
/// metadata.
#[derive(Clone, Debug)]
pub struct ControllerConfig {
    /// `num.partitions`: partitions of a topic that does not say.
    pub default_partitions: i32,
    /// `default.replication.factor`: replicas of a topic that does not say.
    pub default_replication_factor: i16,
    /// `min.insync.replicas`: becomes the cluster's default record with the first registration, and then
    /// plays no part any more (DESIGN D1).
    pub min_insync_replicas: i32,
    /// `unclean.leader.election.enable`, where neither topic nor cluster say.
    pub unclean_leader_election_enable: bool,
    /// `broker.session.timeout.ms`: how long a broker may be silent.
    pub session_timeout: Duration,
}

/// What a decision may depend on beside image and request.
#[derive(Clone, Copy, Debug)]
pub struct DecisionContext {
    /// Now.
    pub now: Instant,
    /// Fresh entropy for each request: topic ids and the start of the placement come from it.
    pub seed: [u64; 4],
}

/// A decision. Nothing has happened before `records` are committed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub struct ControllerResult<T> {
    /// One atomic list; empty if nothing is to change.
    pub records: Vec<MetadataRecord>,
    /// For the asker, at commit.
    pub response: T,
}

impl<T> ControllerResult<T> {
    fn unchanged(response: T) -> ControllerResult<T> {
        ControllerResult { records: Vec::new(), response }
    }
}

/// The active controller.
pub struct Controller {
    config: ControllerConfig,
    validator: Arc<dyn ConfigValidator>,
    /// Committed, plus what was decided since.
    image: MetadataImage,
    sessions: sessions::Sessions,
}

impl Controller {
    /// The controller of a node that has just become active, with the image of all that is committed, the
    /// empty entry of its own term included. The sessions of all brokers begin anew.
    pub fn new(
        config: ControllerConfig,
        validator: Arc<dyn ConfigValidator>,
        committed: MetadataImage,
        now: Instant,
    ) -> Controller {
        let sessions = sessions::Sessions::new(config.session_timeout, now);
        Controller { config, validator, image: committed, sessions }
    }

    /// The image that the next decision sees: the committed one and all that was decided since.
    pub fn image(&self) -> &MetadataImage {
        &self.image
    }

    /// Applies records just proposed as the entry at (`index`, `term`). The image and delta are the ones the
    /// entry will yield when it is committed.
    ///
    /// # Errors
    /// Records that do not fit the image: a bug of ours, and the entry is already proposed. Stop.
    pub fn replay(
        &mut self,
        index: u64,
        term: u64,
        records: &[MetadataRecord],
    ) -> Result<MetadataDelta, ReplayError> {
        let (image, delta) = self.image.apply(index, term, records)?;
        self.sessions.handle_replayed(index, records);
        self.image = image;
        Ok(delta)
    }
}
