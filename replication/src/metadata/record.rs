//! The records of the metadata log and of its snapshots, and their bytes. **On disk: never change what a
//! type and version mean; add a version, a tag or a type.**
//!
//! A Raft entry's data (and a snapshot's) is one list of records, applied all or not at all:
//!
//! | bytes | what |
//! |---|---|
//! | 1 | version of this table: 1 |
//! | uvarint | number of records |
//! | each record | uvarint: bytes that follow of this record |
//! | | uvarint: type · uvarint: version |
//! | | the fields of that type and version, below |
//! | | uvarint: number of tagged fields; each, with tags strictly ascending: uvarint tag · uvarint size · bytes |
//!
//! Numbers are big-endian. `uvarint`: 7 bits a byte, least significant first, at most 32 bits, in the fewest
//! bytes. `string`: uvarint bytes, then UTF-8. `uuid`: 16 bytes. `bool`: one byte, 0 or 1. `[x]`: uvarint
//! count, then each. `x?`: a `bool`, then x if it is 1. `broker?`: an i32, -1 for none.
//!
//! Types have Kafka's number where they mean what Kafka's record of that number means; our own will start
//! at 200.
//!
//! | type | version 0 |
//! |---|---|
//! | 0 RegisterBroker | i32 broker · i64 broker epoch (-1: the index of this entry; set in snapshots) · uuid incarnation · uuid directory · bool fenced · bool in controlled shutdown · string? rack · [string name · string host · u16 port · u8 security protocol] listeners · [string name · i16 min · i16 max] features, names strictly ascending |
//! | 1 UnregisterBroker | i32 broker · i64 broker epoch |
//! | 2 Topic | uuid topic · string name |
//! | 3 Partition | uuid topic · i32 partition · [i32 broker · uuid directory] replicas · [i32] ISR · [i32] ELR · broker? last known leader · [i32] removing · [i32] adding · broker? leader · i32 leader epoch · i32 partition epoch · u8 recovery state |
//! | 4 Config | resource · string name · string? value (none: delete) |
//! | 5 PartitionChange | uuid topic · i32 partition; what changes is tagged: 0 [i32] ISR · 1 broker? leader · 2 [i32 · uuid] replicas · 3 [i32] removing · 4 [i32] adding · 5 u8 recovery state · 6 [i32] ELR · 7 broker? last known leader |
//! | 9 RemoveTopic | uuid topic |
//! | 12 FeatureLevel | string name · i16 level (0: not finalized) |
//! | 15 ProducerIds | i32 broker · i64 broker epoch · i64 next producer id |
//! | 17 BrokerRegistrationChange | i32 broker · i64 broker epoch; tagged: 0 bool fenced · 1 bool in controlled shutdown |
//!
//! `resource`: a byte with Kafka's resource type, then 2 topic: uuid · 4 broker: `broker?`, none being the
//! cluster-wide default. Unknown tags are skipped: what must not be skipped gets a new version. An unknown
//! type or a newer version is an error that names it, and the node must not start (exit 2).

mod decode;
mod encode;
#[cfg(test)]
pub(crate) mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use storage::producer_state::ProducerId;
use storage::topic_partition::TopicId;

use crate::identity::{BrokerEpoch, BrokerId, DirectoryId, IncarnationId};
use crate::metadata::broker_registration::{BrokerListener, FeatureRange};
use crate::metadata::partition_registration::{
    LeaderRecoveryState, PartitionRegistration, Replica,
};

pub use decode::{MetadataDecodeError, decode_records};
pub use encode::encode_records;

/// Version of the list's own layout.
const LIST_VERSION: u8 = 1;

/// One change of the metadata.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MetadataRecord {
    /// A broker's process takes its seat, replacing an earlier one of the same id.
    RegisterBroker(RegisterBrokerRecord),
    /// A broker's registration goes.
    UnregisterBroker {
        /// The broker.
        broker_id: BrokerId,
        /// Its epoch.
        broker_epoch: BrokerEpoch,
    },
    /// A topic, still without partitions.
    Topic {
        /// Never used again, even for the same name.
        topic_id: TopicId,
        /// Unique among the topics that exist.
        name: Arc<str>,
    },
    /// A topic's next partition: numbers come in order, from 0.
    Partition(PartitionRecord),
    /// A configuration set, or deleted.
    Config {
        /// Whose.
        resource: ConfigResource,
        /// Kafka's name of it.
        name: Arc<str>,
        /// `None` deletes it.
        value: Option<Arc<str>>,
    },
    /// Some fields of a partition.
    PartitionChange(PartitionChangeRecord),
    /// A topic goes, with its partitions and configurations.
    RemoveTopic {
        /// The topic.
        topic_id: TopicId,
    },
    /// A feature is finalized.
    FeatureLevel {
        /// The feature.
        name: Arc<str>,
        /// 0: no longer finalized.
        level: i16,
    },
    /// Producer ids below this one are given out.
    ProducerIds {
        /// Who asked.
        broker_id: BrokerId,
        /// Its epoch.
        broker_epoch: BrokerEpoch,
        /// First id of the next block.
        next_producer_id: ProducerId,
    },
    /// A broker is fenced, unfenced, or begins its controlled shutdown.
    BrokerRegistrationChange(BrokerRegistrationChangeRecord),
}

/// See [`MetadataRecord::RegisterBroker`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegisterBrokerRecord {
    /// The broker.
    pub broker_id: BrokerId,
    /// `None`: the index of this entry. Snapshots name it.
    pub broker_epoch: Option<BrokerEpoch>,
    /// Its process.
    pub incarnation_id: IncarnationId,
    /// Its log directory.
    pub directory_id: DirectoryId,
    /// Whether it starts fenced.
    pub is_fenced: bool,
    /// Whether it is leaving; only in snapshots.
    pub is_in_controlled_shutdown: bool,
    /// `broker.rack`.
    pub rack: Option<Arc<str>>,
    /// Advertised addresses.
    pub listeners: Vec<BrokerListener>,
    /// Features that it can run.
    pub features: BTreeMap<Arc<str>, FeatureRange>,
}

/// See [`MetadataRecord::Partition`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionRecord {
    /// The topic.
    pub topic_id: TopicId,
    /// The partition's number, from 0.
    pub partition: i32,
    /// All of it.
    pub registration: PartitionRegistration,
}

/// See [`MetadataRecord::PartitionChange`]. `None` leaves a field as it is. The partition epoch moves by one
/// with every such record; the leader epoch with those whose `leader` is `Some`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionChangeRecord {
    /// The topic.
    pub topic_id: TopicId,
    /// The partition's number.
    pub partition: i32,
    /// New ISR.
    pub isr: Option<Vec<BrokerId>>,
    /// New leader (`Some(None)`: none), or the same one in a new epoch.
    pub leader: Option<Option<BrokerId>>,
    /// New replicas with their directories.
    pub replicas: Option<Vec<Replica>>,
    /// New set of replicas being removed.
    pub removing: Option<Vec<BrokerId>>,
    /// New set of replicas being added.
    pub adding: Option<Vec<BrokerId>>,
    /// New recovery state.
    pub recovery_state: Option<LeaderRecoveryState>,
    /// New eligible leader replicas.
    pub elr: Option<Vec<BrokerId>>,
    /// New last known leader (`Some(None)`: none).
    pub last_known_leader: Option<Option<BrokerId>>,
}

impl PartitionChangeRecord {
    /// A record that changes nothing yet.
    pub fn new(topic_id: TopicId, partition: i32) -> PartitionChangeRecord {
        PartitionChangeRecord {
            topic_id,
            partition,
            isr: None,
            leader: None,
            replicas: None,
            removing: None,
            adding: None,
            recovery_state: None,
            elr: None,
            last_known_leader: None,
        }
    }

    /// Whether no field is set: such a record is not worth writing.
    pub fn is_empty(&self) -> bool {
        *self == PartitionChangeRecord::new(self.topic_id, self.partition)
    }
}

/// See [`MetadataRecord::BrokerRegistrationChange`]. `None` leaves a field as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BrokerRegistrationChangeRecord {
    /// The broker.
    pub broker_id: BrokerId,
    /// Its epoch.
    pub broker_epoch: BrokerEpoch,
    /// Fence or unfence.
    pub is_fenced: Option<bool>,
    /// Begin or end a controlled shutdown.
    pub is_in_controlled_shutdown: Option<bool>,
}

/// Whose configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ConfigResource {
    /// One topic's. By id, so that it cannot be taken for a later topic's of the same name.
    Topic(TopicId),
    /// One broker's.
    Broker(BrokerId),
    /// The default of all brokers (Kafka: broker resource with an empty name).
    Cluster,
}

impl fmt::Display for ConfigResource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ConfigResource::Topic(id) => write!(f, "topic {id}"),
            ConfigResource::Broker(id) => write!(f, "broker {id}"),
            ConfigResource::Cluster => f.write_str("the cluster"),
        }
    }
}
