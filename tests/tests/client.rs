//! The client against a running broker, any that speaks Kafka's protocol:
//!
//! ```sh
//! BOOTSTRAP=127.0.0.1:9092 cargo test -p highwater-tests --test client -- --ignored
//! ```
//!
//! Every test has topics of its own, so that they run side by side and again.

mod client_suite {
    pub mod admin;
    pub mod fetch;
    pub mod produce;
    pub mod transactions;
    pub mod versions;
}

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use client::admin::{Admin, IsolationLevel, NewTopic, OffsetSpec};
use client::fetcher::{Fetcher, FetcherConfig};
use client::producer::{Producer, ProducerConfig, ProducerRecord, RecordMetadata};
use client::record::Record;
use client::{ClientError, Cluster, ClusterConfig};

/// A broker and a topic of one's own.
pub struct Fixture {
    pub cluster: Cluster,
    pub admin: Admin,
    pub topic: String,
}

impl Fixture {
    /// With a new topic.
    pub async fn new(name: &str, partitions: i32, configs: &[(&str, &str)]) -> Fixture {
        let fixture = Fixture::without_topic(name).await;
        let topic = NewTopic {
            name: fixture.topic.clone(),
            partitions: Some(partitions),
            replication_factor: Some(1),
            configs: configs.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect(),
            ..NewTopic::default()
        };
        fixture.admin.create_topic(&topic, false).await.expect("created");
        // Kafka names leaders in Metadata before they serve.
        for partition in 0..partitions {
            let admin = &fixture.admin;
            let end = admin.list_offset(
                &fixture.topic,
                partition,
                OffsetSpec::Latest,
                IsolationLevel::default(),
            );
            end.await.expect("a leader that serves");
        }
        fixture
    }

    pub async fn without_topic(name: &str) -> Fixture {
        static COUNTER: AtomicU32 = AtomicU32::new(0);
        let bootstrap = std::env::var("BOOTSTRAP").expect("BOOTSTRAP=HOST:PORT of a broker");
        let mut config = ClusterConfig::new([bootstrap]);
        config.api_timeout = Duration::from_secs(30);
        let cluster = Cluster::connect(config).await.expect("a broker at BOOTSTRAP");
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970");
        let unique = COUNTER.fetch_add(1, Ordering::Relaxed);
        let topic = format!("client-{name}-{}-{unique}", now.as_millis());
        Fixture { admin: Admin::new(&cluster), cluster, topic }
    }

    pub async fn producer(&self, config: ProducerConfig) -> Producer {
        Producer::new(&self.cluster, config).await.expect("a producer")
    }

    /// A record for partition 0.
    pub fn record(&self, value: &str) -> ProducerRecord {
        ProducerRecord {
            topic: self.topic.as_str().into(),
            partition: Some(0),
            value: Some(Bytes::copy_from_slice(value.as_bytes())),
            ..ProducerRecord::default()
        }
    }

    /// Produces and waits for all; the first error wins.
    pub async fn produce(
        &self,
        config: ProducerConfig,
        records: impl IntoIterator<Item = ProducerRecord>,
    ) -> Result<Vec<RecordMetadata>, ClientError> {
        let producer = self.producer(config).await;
        let mut deliveries = Vec::new();
        for record in records {
            deliveries.push(producer.send(record).await?);
        }
        let mut stored = Vec::new();
        for delivery in deliveries {
            stored.push(delivery.get().await?);
        }
        Ok(stored)
    }

    /// Reads so many records of a partition.
    pub async fn read(
        &self,
        config: FetcherConfig,
        partition: i32,
        from: i64,
        count: usize,
    ) -> Vec<Record> {
        let mut fetcher = Fetcher::new(&self.cluster, config);
        fetcher.assign(&self.topic, partition, from);
        let mut records = Vec::new();
        while records.len() < count {
            let fetched = fetcher.poll(Duration::from_secs(30)).await.expect("an answer");
            assert!(
                !fetched.is_empty(),
                "nothing within 30 s; {} of {count} records",
                records.len()
            );
            for partition in fetched {
                for record in partition.records() {
                    records.push(record.expect("a whole record"));
                }
            }
        }
        records
    }
}

/// The values as text.
pub fn values(records: &[Record]) -> Vec<String> {
    let text = |record: &Record| {
        record.value.as_deref().map(String::from_utf8_lossy).map(|t| t.into_owned())
    };
    records.iter().map(|record| text(record).unwrap_or_else(|| "null".to_owned())).collect()
}

/// Waits for a condition that holds soon, at most 30 s; prints what it saw last.
pub async fn eventually(what: &str, mut condition: impl AsyncFnMut() -> Result<(), String>) {
    let started = Instant::now();
    while let Err(seen) = condition().await {
        assert!(
            started.elapsed() < Duration::from_secs(30),
            "not within 30 s: {what}; last seen: {seen}"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
