//! What every handler may ask of this broker.

use crate::clock::Clock;
use crate::config::{BrokerConfig, Listener};
use crate::fetch_session::FetchSessions;
use crate::handlers::metadata::answers::MetadataAnswers;
use crate::network::connection::ConnectionContext;
use crate::producer_ids::ProducerIds;
use crate::quorum::ControllerHandle;
use crate::replica_manager::partition::Partition;
use crate::replica_manager::read::ReadError;
use crate::replica_manager::{NotHosted, PartitionKey, ReplicaManager};
use arc_swap::{ArcSwap, Guard};
use kafka_protocol::protocol::StrBytes;
use replication::identity::BrokerId;
use replication::metadata::{BrokerRegistration, MetadataImage};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};

/// Topics that only brokers write (`Topic.INTERNAL_TOPICS`).
pub const INTERNAL_TOPICS: [&str; 3] =
    ["__consumer_offsets", "__transaction_state", "__share_group_state"];

/// Whether a topic is one of [`INTERNAL_TOPICS`].
pub fn is_internal_topic(name: &str) -> bool {
    INTERNAL_TOPICS.contains(&name)
}

/// A listener that is open.
#[derive(Debug, Clone)]
pub struct BoundListener {
    /// As configured.
    pub listener: Listener,
    /// The port it has, which is not the configured one where that was 0.
    pub port: u16,
}

/// A broker's address as one client must see it.
#[derive(Debug, Clone)]
pub struct NodeEndpoint {
    /// The broker.
    pub id: i32,
    /// Host.
    pub host: StrBytes,
    /// Port.
    pub port: i32,
    /// Rack.
    pub rack: Option<StrBytes>,
    /// It is registered but not serving.
    pub is_fenced: bool,
}

/// This broker.
#[derive(Debug)]
pub struct Broker {
    /// What it was told at its start.
    pub(crate) config: Arc<BrokerConfig>,
    pub(crate) clock: Clock,
    pub(crate) node_id: BrokerId,
    pub(crate) listeners: Vec<BoundListener>,
    pub(crate) image: Arc<ArcSwap<MetadataImage>>,
    pub(crate) controller: ControllerHandle,
    pub(crate) replica_manager: Arc<ReplicaManager>,
    pub(crate) fetch_sessions: Mutex<FetchSessions>,
    pub(crate) producer_ids: ProducerIds,
    pub(crate) metadata_answers: MetadataAnswers,
}

impl Broker {
    /// What it was told at its start.
    pub fn config(&self) -> &BrokerConfig {
        &self.config
    }

    /// The shell's clock.
    pub fn clock(&self) -> Clock {
        self.clock
    }

    /// `node.id`.
    pub fn node_id(&self) -> BrokerId {
        self.node_id
    }

    /// Where the data is.
    pub fn data_dir(&self) -> &Path {
        &self.config.data_dir
    }

    /// The metadata as last applied here.
    pub fn image(&self) -> Guard<Arc<MetadataImage>> {
        self.image.load()
    }

    /// The way to the controller.
    pub fn controller(&self) -> &ControllerHandle {
        &self.controller
    }

    /// The partitions.
    pub fn replica_manager(&self) -> &Arc<ReplicaManager> {
        &self.replica_manager
    }

    /// The fetch sessions; held for as long as one request needs.
    pub fn fetch_sessions(&self) -> MutexGuard<'_, FetchSessions> {
        self.fetch_sessions.lock().expect("no panic is survived")
    }

    /// Answers to Metadata requests that were encoded before.
    pub(crate) fn metadata_answers(&self) -> &MetadataAnswers {
        &self.metadata_answers
    }

    /// Ids for idempotent producers.
    pub fn producer_ids(&self) -> &ProducerIds {
        &self.producer_ids
    }

    /// A positive number nobody can guess: a fetch session's id.
    pub fn random_positive_i32(&self) -> i32 {
        rand::random_range(1..=i32::MAX)
    }

    /// The partition, if this broker leads it.
    ///
    /// # Errors
    /// Unknown, or led elsewhere.
    pub fn leader_of(&self, topic: &str, partition: i32) -> Result<Arc<Partition>, ReadError> {
        let image = self.image();
        let topic = image.topic_by_name(topic).ok_or(ReadError::UnknownTopicOrPartition)?;
        let registration = topic.partition(partition).ok_or(ReadError::UnknownTopicOrPartition)?;
        let not_leader = ReadError::NotLeader {
            current_leader: registration.leader.map(|leader| (leader, registration.leader_epoch)),
        };
        let key = PartitionKey { topic_id: topic.topic_id, partition };
        let partition = match self.replica_manager.partition(&key) {
            Ok(partition) => partition,
            Err(NotHosted::Elsewhere) => return Err(not_leader),
            Err(error @ NotHosted::Offline(_)) => return Err(error.into()),
        };
        if partition.snapshot().leader.is_none() {
            return Err(not_leader);
        }
        Ok(partition)
    }

    /// Brokers that serve, as the client of `connection` must see them; the one that answers always among them, although
    /// it is fenced while it stops. A client told of no broker at all may drop its last one: librdkafka 2.16 then has
    /// nobody left to ask and stands still until it bootstraps anew, minutes later.
    pub fn live_endpoints(
        &self,
        image: &MetadataImage,
        connection: &ConnectionContext,
    ) -> Vec<NodeEndpoint> {
        self.endpoints(image, connection, |broker| {
            broker.is_active() || broker.broker_id == self.node_id
        })
    }

    /// Every registered broker, fenced ones too.
    pub fn all_endpoints(&self, connection: &ConnectionContext) -> Vec<NodeEndpoint> {
        self.endpoints(&self.image(), connection, |_| true)
    }

    /// The named brokers that serve.
    pub fn node_endpoints(&self, connection: &ConnectionContext, ids: &[i32]) -> Vec<NodeEndpoint> {
        self.endpoints(&self.image(), connection, |broker| ids.contains(&broker.broker_id.value()))
    }

    /// A peer that lacks the listener the client came in on is left out: the client could not reach it.
    fn endpoints(
        &self,
        image: &MetadataImage,
        connection: &ConnectionContext,
        is_wanted: impl Fn(&BrokerRegistration) -> bool,
    ) -> Vec<NodeEndpoint> {
        image
            .brokers()
            .filter(|broker| is_wanted(broker))
            .filter_map(|broker| {
                let (host, port) = if broker.broker_id == self.node_id {
                    let bound = self
                        .listeners
                        .iter()
                        .find(|bound| *bound.listener.name == *connection.listener)?;
                    let told = bound.listener.advertise(bound.port, connection.local.ip());
                    (told.host, told.port)
                } else {
                    let listener = broker.listener(&connection.listener)?;
                    (listener.host.to_string(), listener.port)
                };
                Some(NodeEndpoint {
                    id: broker.broker_id.value(),
                    host: StrBytes::from_string(host),
                    port: port.into(),
                    rack: broker.rack.as_ref().map(|rack| StrBytes::from_string(rack.to_string())),
                    is_fenced: broker.is_fenced,
                })
            })
            .collect()
    }

    /// Total and usable bytes of the disk that holds the data; −1 where the system does not say.
    pub fn disk_space_bytes(&self) -> (i64, i64) {
        match rustix::fs::statvfs(self.data_dir()) {
            Ok(space) => {
                ((space.f_blocks * space.f_frsize) as i64, (space.f_bavail * space.f_frsize) as i64)
            }
            Err(_) => (-1, -1),
        }
    }
}
