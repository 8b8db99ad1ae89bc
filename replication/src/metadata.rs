//! The cluster's metadata: a log of [`record`]s, the immutable [`image`] they add up to, the [`delta`] one
//! step makes, and the [`snapshot`] that replaces a prefix of the log (DESIGN D2).
//!
//! One Raft entry is one atomic list of records. Every node applies the same entries in the same order and
//! gets the same image; only the active controller writes new ones (`crate::controller`).

pub mod broker_registration;
pub mod delta;
pub mod image;
pub mod partition_registration;
pub mod record;
mod replay;
pub mod snapshot;

pub use broker_registration::{BrokerListener, BrokerRegistration, FeatureRange, SecurityProtocol};
pub use delta::MetadataDelta;
pub use image::{ConfigMap, LogPosition, MetadataImage, TopicImage};
pub use partition_registration::{LeaderRecoveryState, PartitionRegistration, Replica};
pub use record::{
    ConfigResource, MetadataDecodeError, MetadataRecord, decode_records, encode_records,
};
pub use replay::ReplayError;

/// The topic and cluster configuration that decides over acknowledgement, so replication reads it itself.
pub const MIN_INSYNC_REPLICAS: &str = "min.insync.replicas";
/// The topic and cluster configuration that allows electing a replica that may lack records.
pub const UNCLEAN_LEADER_ELECTION_ENABLE: &str = "unclean.leader.election.enable";
