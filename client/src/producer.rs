//! Writing records. Each partition that is written to has one task, which collects batches, keeps up to
//! [`MAX_IN_FLIGHT`] of them under way, and sends them again in their order.
//!
//! Idempotent (KIP-98): every batch carries a producer id and a sequence number, so that one sent twice is stored once.
//! A batch whose fate is unknown when its delivery timeout passes is reported as failed, and so are those sent after it;
//! what follows goes under a new producer id, because a gap in the sequence would never close.

mod partition_writer;
pub mod partitioner;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use kafka_protocol::messages::{InitProducerIdRequest, ProducerId};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use crate::cluster::Cluster;
use crate::error::{ClientError, KafkaError};
use crate::record::{BatchBuilder, Compression, Header};
use partition_writer::PartitionWriter;
use partitioner::{StickyPartition, partition_for_key};

/// Batches of one partition under way at once. A broker remembers as many to recognise repetitions.
pub const MAX_IN_FLIGHT: usize = 5;

/// Records that may wait in front of one partition's task; their bytes are bounded apart.
const QUEUED_RECORDS: usize = 4096;

/// When a broker may say that a record is stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Acks {
    /// It says nothing: records may be lost without anybody knowing.
    None,
    /// When the leader has it.
    Leader,
    /// When all in-sync replicas have it.
    #[default]
    All,
}

/// How to write.
#[derive(Clone, Copy, Debug)]
pub struct ProducerConfig {
    /// What counts as stored.
    pub acks: Acks,
    /// Of every batch.
    pub compression: Compression,
    /// Stored once even if sent twice; works with [`Acks::All`] only and is ignored otherwise.
    pub is_idempotent: bool,
    /// A batch is closed at this size, before compression. A larger record has a batch of its own.
    pub batch_size_bytes: usize,
    /// How long a batch waits for more records while it could be sent.
    pub linger: Duration,
    /// From the record's way into a batch to its acknowledgement, all tries together.
    pub delivery_timeout: Duration,
    /// Records not acknowledged yet; at most 4 GiB.
    pub buffer_memory_bytes: u32,
}

impl Default for ProducerConfig {
    fn default() -> Self {
        ProducerConfig {
            acks: Acks::All,
            compression: Compression::None,
            is_idempotent: true,
            batch_size_bytes: 128 << 10,
            linger: Duration::ZERO,
            delivery_timeout: Duration::from_secs(120),
            buffer_memory_bytes: 32 << 20,
        }
    }
}

/// A record to write.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProducerRecord {
    /// Where to.
    pub topic: Arc<str>,
    /// `None` lets the key decide, or chance if there is none.
    pub partition: Option<i32>,
    /// Null is not empty.
    pub key: Option<Bytes>,
    /// Null is a tombstone.
    pub value: Option<Bytes>,
    /// In their order.
    pub headers: Vec<Header>,
    /// Milliseconds since 1970; `None` for now.
    pub timestamp: Option<i64>,
}

/// Where a record was stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordMetadata {
    /// The partition.
    pub partition: i32,
    /// `None` where nobody tells: without acks, and for a repetition that the broker does not remember well.
    pub offset: Option<i64>,
    /// The broker's, where it sets timestamps, otherwise the record's own.
    pub timestamp: i64,
}

/// The fate of one record. Dropping it does not take the record back.
#[derive(Debug)]
#[must_use = "nobody else learns whether the record was stored"]
pub struct Delivery {
    receiver: oneshot::Receiver<Result<RecordMetadata, ClientError>>,
}

impl Delivery {
    /// Waits until the record is acknowledged or given up.
    ///
    /// # Errors
    /// Why it was given up.
    pub async fn get(self) -> Result<RecordMetadata, ClientError> {
        let gone = || ClientError::ProducerFailed { reason: "its task ended".to_owned() };
        self.receiver.await.unwrap_or_else(|_| Err(gone()))
    }
}

/// A record on its way through a partition's task. Dropping it gives back its share of the buffer.
#[derive(Debug)]
struct Queued {
    record: ProducerRecord,
    timestamp: i64,
    delivery: oneshot::Sender<Result<RecordMetadata, ClientError>>,
    permit: OwnedSemaphorePermit,
}

/// Producer id and epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Identity {
    producer_id: i64,
    producer_epoch: i16,
}

/// Writes records; clones share batches. After the last one is dropped what was sent is still written.
#[derive(Clone, Debug)]
pub struct Producer {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    cluster: Cluster,
    config: ProducerConfig,
    identity: Option<Identity>,
    buffer: Arc<Semaphore>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    writers: HashMap<Arc<str>, HashMap<i32, mpsc::Sender<Queued>>>,
    sticky: HashMap<Arc<str>, StickyPartition>,
}

impl Producer {
    /// Asks for a producer id if the producer is idempotent.
    ///
    /// # Errors
    /// The broker gives none.
    pub async fn new(cluster: &Cluster, config: ProducerConfig) -> Result<Producer, ClientError> {
        let is_idempotent = config.is_idempotent && config.acks == Acks::All;
        let identity = if is_idempotent { Some(init_producer_id(cluster).await?) } else { None };
        Ok(Producer {
            shared: Arc::new(Shared {
                cluster: cluster.clone(),
                config,
                identity,
                buffer: Arc::new(Semaphore::new(config.buffer_memory_bytes as usize)),
                state: Mutex::default(),
            }),
        })
    }

    /// Hands a record over; waits while the buffer is full or the topic is not known yet. Records of one partition are
    /// stored in the order in which these calls were made.
    ///
    /// # Errors
    /// The topic or partition does not exist. What happens later comes with the [`Delivery`].
    pub async fn send(&self, record: ProducerRecord) -> Result<Delivery, ClientError> {
        let topic = record.topic.clone();
        let cluster = &self.shared.cluster;
        let count = match cluster.partition_count(&topic).await {
            Ok(count) => count,
            Err(error) if !error.is_retriable() => return Err(error),
            Err(_) => {
                let subject = format!("partitions of topic {topic}");
                cluster.retrying(&subject, || cluster.partition_count(&topic)).await?
            }
        };
        let size = BatchBuilder::record_size_bound_bytes(
            record.key.as_deref(),
            record.value.as_deref(),
            &record.headers,
        );
        let partition = self.choose_partition(&record, size, count)?;
        let share =
            u32::try_from(size).unwrap_or(u32::MAX).min(self.shared.config.buffer_memory_bytes);
        let permit = self.shared.buffer.clone().acquire_many_owned(share).await;
        let permit = permit.expect("the buffer's semaphore is never closed");
        let (sender, receiver) = oneshot::channel();
        let timestamp = record.timestamp.unwrap_or_else(now_ms);
        let queued = Queued { record, timestamp, delivery: sender, permit };
        let writer = self.writer(&topic, partition);
        if writer.send(queued).await.is_err() {
            return Err(ClientError::ProducerFailed { reason: "its task ended".to_owned() });
        }
        Ok(Delivery { receiver })
    }

    /// Waits until every record handed over so far is acknowledged or given up; their [`Delivery`] says which.
    pub async fn flush(&self) {
        let all = self.shared.buffer.acquire_many(self.shared.config.buffer_memory_bytes).await;
        drop(all.expect("the buffer's semaphore is never closed"));
    }

    fn choose_partition(
        &self,
        record: &ProducerRecord,
        size: usize,
        count: usize,
    ) -> Result<i32, ClientError> {
        match (record.partition, &record.key) {
            (Some(partition), _) if usize::try_from(partition).is_ok_and(|p| p < count) => {
                Ok(partition)
            }
            (Some(partition), _) => {
                let subject = format!("partition {}-{partition}", record.topic);
                let error = KafkaError {
                    error: kafka_protocol::ResponseError::UnknownTopicOrPartition,
                    message: Some(format!("the topic has partitions 0 to {}", count - 1)),
                };
                Err(ClientError::kafka(subject, error))
            }
            (None, Some(key)) => Ok(partition_for_key(key, count)),
            (None, None) => {
                let mut state = self.shared.state.lock().unwrap_or_else(PoisonError::into_inner);
                let sticky = state.sticky.entry(record.topic.clone()).or_default();
                Ok(sticky.next(size, self.shared.config.batch_size_bytes, count, rand::random()))
            }
        }
    }

    fn writer(&self, topic: &Arc<str>, partition: i32) -> mpsc::Sender<Queued> {
        let mut state = self.shared.state.lock().unwrap_or_else(PoisonError::into_inner);
        let writers = state.writers.entry(topic.clone()).or_default();
        let start = || {
            let (sender, queue) = mpsc::channel(QUEUED_RECORDS);
            let shared = &self.shared;
            let writer = PartitionWriter::new(
                shared.cluster.clone(),
                shared.config,
                shared.identity,
                topic.clone(),
                partition,
            );
            tokio::spawn(writer.run(queue));
            sender
        };
        writers.entry(partition).or_insert_with(start).clone()
    }
}

async fn init_producer_id(cluster: &Cluster) -> Result<Identity, ClientError> {
    let request = InitProducerIdRequest::default()
        .with_transactional_id(None)
        .with_transaction_timeout_ms(i32::MAX) // means nothing without a transactional id
        .with_producer_id(ProducerId(-1))
        .with_producer_epoch(-1);
    cluster
        .retrying("a producer id", || async {
            let connection = cluster.any_broker().await?;
            let response = connection.call(&request).await?;
            KafkaError::check(response.error_code, None)
                .map_err(|error| ClientError::kafka("InitProducerId", error))?;
            let (producer_id, producer_epoch) = (response.producer_id.0, response.producer_epoch);
            if producer_id < 0 || producer_epoch < 0 {
                let address = connection.address().to_owned();
                return Err(ClientError::AnswerIncomplete {
                    address,
                    subject: "a producer id".to_owned(),
                });
            }
            Ok(Identity { producer_id, producer_epoch })
        })
        .await
}

fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
