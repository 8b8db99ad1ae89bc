//! A cluster as a client sees it: an address to begin with, the brokers' metadata, a connection to each broker.
//!
//! Metadata is asked for when it is needed and kept until somebody finds it stale ([`Cluster::forget_topic`]); there is no
//! background task. A newer answer never takes a partition back to an older leader epoch of the same topic id (KIP-320).

mod metadata;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::{MetadataRequest, TopicName};
use kafka_protocol::protocol::StrBytes;
use tokio::time::Instant;

use crate::connection::{Connection, ConnectionConfig};
use crate::error::{ClientError, ConnectionError, KafkaError};
use crate::retry::{Backoff, is_retriable};
pub use metadata::{BrokerAddress, ClusterMetadata, PartitionMetadata, TopicId, TopicMetadata};

/// How to reach a cluster.
#[derive(Clone, Debug)]
pub struct ClusterConfig {
    /// `host:port` of any brokers of it, tried in order.
    pub bootstrap: Vec<String>,
    /// For every connection.
    pub connection: ConnectionConfig,
    /// How long an operation is tried again before it fails with [`ClientError::TimedOut`].
    pub api_timeout: Duration,
    /// Between two tries, of a producer and a fetcher too; its first wait is Kafka's `retry.backoff.ms`.
    pub retry_backoff: Backoff,
    /// Whether asking for a topic may create it, where the broker is so configured.
    pub allow_auto_topic_creation: bool,
}

impl ClusterConfig {
    /// Defaults: Kafka's `default.api.timeout.ms` of 60 s, no topics created in passing.
    pub fn new(bootstrap: impl IntoIterator<Item = impl Into<String>>) -> ClusterConfig {
        ClusterConfig {
            bootstrap: bootstrap.into_iter().map(Into::into).collect(),
            connection: ConnectionConfig::default(),
            api_timeout: Duration::from_secs(60),
            retry_backoff: Backoff::default(),
            allow_auto_topic_creation: false,
        }
    }
}

/// A handle; clones share connections and metadata.
#[derive(Clone, Debug)]
pub struct Cluster {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    config: ClusterConfig,
    cache: Mutex<Cache>,
}

#[derive(Debug, Default)]
struct Cache {
    brokers: BTreeMap<i32, BrokerAddress>,
    controller: Option<i32>,
    topics: HashMap<String, CachedTopic>,
    connections: HashMap<i32, Connection>,
    /// A connection to a bootstrap address, whose broker id is not known.
    bootstrap: Option<Connection>,
}

/// A stale topic stays, so that the answer that replaces it cannot turn its epochs back.
#[derive(Debug)]
struct CachedTopic {
    metadata: TopicMetadata,
    is_stale: bool,
}

/// Who leads a partition, as far as the last metadata knew.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leader {
    /// Its broker.
    pub broker_id: i32,
    /// Its epoch; `None` from brokers that do not tell.
    pub leader_epoch: Option<i32>,
    /// The topic's id; `None` from brokers that have none.
    pub topic_id: Option<TopicId>,
}

impl Cluster {
    /// Connects to the first bootstrap address that answers.
    ///
    /// # Errors
    /// [`ClientError::NoBroker`] with the reason for each address; tries each once.
    pub async fn connect(config: ClusterConfig) -> Result<Cluster, ClientError> {
        let cluster = Cluster { shared: Arc::new(Shared { config, cache: Mutex::default() }) };
        cluster.any_broker().await?;
        Ok(cluster)
    }

    /// What it was made with.
    pub fn config(&self) -> &ClusterConfig {
        &self.shared.config
    }

    /// Asks a broker for the brokers and the given topics, `None` for all topics. Topics that do not exist come back with
    /// their error inside. Tries known brokers and bootstrap addresses once each.
    ///
    /// # Errors
    /// Nobody answers, or the answer is an error as a whole.
    pub async fn metadata(&self, topics: Option<&[&str]>) -> Result<ClusterMetadata, ClientError> {
        let request = MetadataRequest::default().with_topics(
            topics.map(|names| names.iter().map(|name| topic_by_name(name)).collect()),
        );
        let connection = self.any_broker().await?;
        let version = connection.version_of::<MetadataRequest>()?;
        // Versions before 4 have no such field and always allow it.
        let allow_creation = self.shared.config.allow_auto_topic_creation && topics.is_some();
        let request = request.with_allow_auto_topic_creation(allow_creation || version < 4);
        let response = connection.call_version(version, &request).await?;
        if let Some(error) = KafkaError::from_code(response.error_code, None) {
            return Err(ClientError::kafka("Metadata", error));
        }
        let metadata = ClusterMetadata::from_response(response);
        self.cache().learn(&metadata);
        Ok(metadata)
    }

    /// One topic's metadata, from the cache if it is there.
    ///
    /// # Errors
    /// [`ClientError::Kafka`] as the broker answered for the topic; not tried again.
    pub async fn topic(&self, name: &str) -> Result<TopicMetadata, ClientError> {
        if let Some(topic) = self.cache().fresh(name) {
            return Ok(topic);
        }
        let metadata = self.metadata(Some(&[name])).await?;
        let answer = metadata.topics.into_iter().find(|topic| topic.name == name);
        if let Some(error) = answer.and_then(|topic| topic.error) {
            return Err(ClientError::kafka(format!("topic {name}"), error));
        }
        // What the cache made of the answer: it may know better.
        self.cache().fresh(name).ok_or_else(|| ClientError::AnswerIncomplete {
            address: "the cluster".to_owned(),
            subject: format!("topic {name}"),
        })
    }

    /// How many partitions a topic has; asks only if the topic is not known.
    ///
    /// # Errors
    /// As [`Cluster::topic`]; LEADER_NOT_AVAILABLE if it has none yet.
    pub async fn partition_count(&self, topic: &str) -> Result<usize, ClientError> {
        let known =
            self.cache().topics.get(topic).map_or(0, |cached| cached.metadata.partitions.len());
        match known {
            0 => match self.topic(topic).await?.partitions.len() {
                0 => {
                    self.forget_topic(topic);
                    let error =
                        KafkaError { error: ResponseError::LeaderNotAvailable, message: None };
                    Err(ClientError::kafka(format!("topic {topic}"), error))
                }
                count => Ok(count),
            },
            known => Ok(known),
        }
    }

    /// The leader of a partition, from the cache if it is there.
    ///
    /// # Errors
    /// As [`Cluster::topic`]; LEADER_NOT_AVAILABLE and UNKNOWN_TOPIC_OR_PARTITION as from a broker.
    pub async fn leader(&self, topic: &str, partition: i32) -> Result<Leader, ClientError> {
        let metadata = self.topic(topic).await?;
        let found = metadata.partition(partition).ok_or(ResponseError::UnknownTopicOrPartition);
        let leader = found.and_then(|p| match p.leader {
            Some(broker_id) => {
                Ok(Leader { broker_id, leader_epoch: p.leader_epoch, topic_id: metadata.topic_id })
            }
            None => Err(ResponseError::LeaderNotAvailable),
        });
        leader.map_err(|error| {
            self.forget_topic(topic);
            ClientError::kafka(
                format!("partition {topic}-{partition}"),
                KafkaError { error, message: None },
            )
        })
    }

    /// The next question about this topic asks a broker.
    pub fn forget_topic(&self, topic: &str) {
        if let Some(known) = self.cache().topics.get_mut(topic) {
            known.is_stale = true;
        }
    }

    /// A broker named by the last metadata or ISR; the connection is shared, so long polls do not belong on it.
    ///
    /// # Errors
    /// BROKER_NOT_AVAILABLE if the metadata does not name it, otherwise why it cannot be reached.
    pub async fn broker(&self, broker_id: i32) -> Result<Connection, ClientError> {
        let known =
            self.cache().connections.get(&broker_id).filter(|c| c.closed().is_none()).cloned();
        if let Some(connection) = known {
            return Ok(connection);
        }
        let connection = self.dial(broker_id).await?;
        self.cache().connections.insert(broker_id, connection.clone());
        Ok(connection)
    }

    /// A connection of one's own to a broker: for long polls, and for requests whose order matters.
    ///
    /// # Errors
    /// As [`Cluster::broker`].
    pub async fn dial(&self, broker_id: i32) -> Result<Connection, ClientError> {
        let address = self.cache().brokers.get(&broker_id).map(BrokerAddress::to_string);
        let Some(address) = address else {
            let error = KafkaError { error: ResponseError::BrokerNotAvailable, message: None };
            return Err(ClientError::kafka(format!("broker {broker_id}"), error));
        };
        Ok(Connection::open(&address, &self.shared.config.connection).await?)
    }

    /// Any broker that answers: an open connection, else a known broker, else a bootstrap address.
    ///
    /// # Errors
    /// [`ClientError::NoBroker`].
    pub async fn any_broker(&self) -> Result<Connection, ClientError> {
        let (open, known) = {
            let cache = self.cache();
            let open = cache
                .connections
                .values()
                .chain(&cache.bootstrap)
                .find(|c| c.closed().is_none())
                .cloned();
            let known: Vec<String> = cache.brokers.values().map(BrokerAddress::to_string).collect();
            (open, known)
        };
        if let Some(connection) = open {
            return Ok(connection);
        }
        let bootstrap = &self.shared.config.bootstrap;
        let known = known.into_iter().filter(|address| !bootstrap.contains(address));
        let mut tried: Vec<ConnectionError> = Vec::new();
        for address in known.chain(bootstrap.iter().cloned()) {
            match Connection::open(&address, &self.shared.config.connection).await {
                Ok(connection) => {
                    self.cache().bootstrap = Some(connection.clone());
                    return Ok(connection);
                }
                Err(error) => tried.push(error),
            }
        }
        Err(if tried.is_empty() {
            ClientError::NoBootstrap
        } else {
            ClientError::NoBroker { tried }
        })
    }

    /// The broker that takes admin requests: the one that Metadata calls the controller, asked for afresh if unknown.
    ///
    /// # Errors
    /// As [`Cluster::broker`]; NOT_CONTROLLER if nobody is named.
    pub async fn controller(&self) -> Result<Connection, ClientError> {
        let known = self.cache().controller;
        let controller = match known {
            Some(id) => Some(id),
            None => self.metadata(Some(&[])).await?.controller,
        };
        let Some(id) = controller else {
            let error = KafkaError {
                error: ResponseError::NotController,
                message: Some("no broker is named as the controller".to_owned()),
            };
            return Err(ClientError::kafka("controller", error));
        };
        let connection = self.broker(id).await;
        if connection.is_err() {
            self.forget_controller();
        }
        connection
    }

    /// The next admin request asks who the controller is.
    pub fn forget_controller(&self) {
        self.cache().controller = None;
    }

    /// Tries `operation` until it succeeds, fails for good, or the API timeout has passed; waits in between.
    ///
    /// # Errors
    /// The first error that is not retriable; [`ClientError::TimedOut`] with the last one that was.
    pub async fn retrying<T, F>(
        &self,
        subject: &str,
        mut operation: impl FnMut() -> F,
    ) -> Result<T, ClientError>
    where
        F: Future<Output = Result<T, ClientError>>,
    {
        let started = Instant::now();
        let limit = self.shared.config.api_timeout;
        let mut backoff = self.shared.config.retry_backoff;
        loop {
            let error = match operation().await {
                Ok(value) => return Ok(value),
                Err(error) if !error.is_retriable() => return Err(error),
                Err(error) => error,
            };
            let wait = backoff.next(rand::random());
            if started.elapsed() + wait >= limit {
                return Err(ClientError::TimedOut {
                    subject: subject.to_owned(),
                    after: limit,
                    last: Some(error.to_string()),
                });
            }
            tracing::debug!(subject, %error, wait_ms = wait.as_millis(), "trying again");
            tokio::time::sleep(wait).await;
        }
    }

    /// Like [`Cluster::leader`], and waits for topics and leaders that do not exist yet.
    ///
    /// # Errors
    /// As [`Cluster::retrying`].
    pub async fn await_leader(&self, topic: &str, partition: i32) -> Result<Leader, ClientError> {
        self.retrying(&format!("leader of {topic}-{partition}"), || async {
            self.leader(topic, partition).await
        })
        .await
    }

    fn cache(&self) -> MutexGuard<'_, Cache> {
        // Every change under the lock is a single insert or removal: whole, whoever panicked.
        self.shared.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Cache {
    fn learn(&mut self, metadata: &ClusterMetadata) {
        self.controller = metadata.controller;
        // A broker that moved gets a new connection.
        let old = std::mem::replace(
            &mut self.brokers,
            metadata.brokers.iter().map(|b| (b.id, b.clone())).collect(),
        );
        let brokers = &self.brokers;
        self.connections.retain(|id, connection| {
            connection.closed().is_none() && brokers.get(id) == old.get(id)
        });
        for topic in &metadata.topics {
            match (&topic.error, self.topics.get_mut(&topic.name)) {
                (Some(error), Some(known)) => {
                    known.is_stale = true;
                    if !is_retriable(error.error) {
                        self.topics.remove(&topic.name);
                    }
                }
                (Some(_), None) => {}
                (None, Some(known)) => {
                    known.metadata.merge(topic);
                    known.is_stale = false;
                }
                (None, None) => {
                    let cached = CachedTopic { metadata: topic.clone(), is_stale: false };
                    self.topics.insert(topic.name.clone(), cached);
                }
            }
        }
    }

    fn fresh(&self, topic: &str) -> Option<TopicMetadata> {
        self.topics
            .get(topic)
            .filter(|cached| !cached.is_stale)
            .map(|cached| cached.metadata.clone())
    }
}

fn topic_by_name(name: &str) -> MetadataRequestTopic {
    MetadataRequestTopic::default()
        .with_name(Some(TopicName(StrBytes::from_string(name.to_owned()))))
}
