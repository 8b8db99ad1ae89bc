//! Writing until the broker is gone, and reading all of it back. Nothing is sent twice but by the ledger's own decision.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use client::admin::{Admin, IsolationLevel, OffsetSpec};
use client::cluster::{Cluster, ClusterConfig};
use client::connection::{Answer, Connection, ConnectionConfig};
use client::fetcher::{Fetcher, FetcherConfig, OffsetReset};
use client::record::{BatchBuilder, Compression, ProducerStamp};
use kafka_protocol::ResponseError;
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::{InitProducerIdRequest, ProduceRequest, TopicName};
use kafka_protocol::protocol::StrBytes;
use rand::RngExt;
use rand::rngs::StdRng;

use super::ledger::{Found, Ledger, Value};

/// The last version that names topics by name.
const PRODUCE_VERSION: i16 = 12;
const READ_LIMIT: Duration = Duration::from_secs(10);
/// What one writer writes while one broker lives: without a sync before each answer a fast broker would fill the disk.
const MAX_WRITTEN_BYTES: usize = 12 << 20;

/// How far the end has come.
#[derive(Debug, Default)]
pub struct Ending {
    has_begun: AtomicBool,
    power_goes: AtomicBool,
}

impl Ending {
    /// The broker is about to be stopped or cut off: what it says from then on may be an error.
    pub fn begin(&self) {
        self.has_begun.store(true, Ordering::SeqCst);
    }

    /// The power is about to go: what the broker says from then on is not known to be true. An fsync under way while the
    /// file system is shut down may answer 0 although the aborted journal commit took its data: seen once in 60 rounds of a
    /// program that only writes and fdatasyncs. No real power cut lets a process answer after it.
    pub fn cut_power(&self) {
        self.power_goes.store(true, Ordering::SeqCst);
    }

    /// Whether [`Self::begin`] was called.
    pub fn has_begun(&self) -> bool {
        self.has_begun.load(Ordering::SeqCst)
    }

    /// Whether [`Self::cut_power`] was called.
    pub fn power_goes(&self) -> bool {
        self.power_goes.load(Ordering::SeqCst)
    }
}

/// A connection with short limits and no second tries.
///
/// # Errors
/// The broker does not answer.
pub async fn connect(address: &str) -> Result<Connection, String> {
    let config = ConnectionConfig { client_id: "power-cut".to_owned(), ..Default::default() };
    Connection::open(address, &config).await.map_err(|error| error.to_string())
}

/// Writes batches of random sizes until the connection ends, or until `enough` batches.
///
/// # Errors
/// The broker answered something that it may not; after the cut it may.
pub async fn write(
    address: &str,
    ledger: &mut Ledger,
    enough: usize,
    mut random: StdRng,
    ending: &Ending,
) -> Result<(), String> {
    let whose = format!("{}-{}", ledger.topic, ledger.partition);
    match write_until_gone(address, ledger, enough, &mut random, ending).await {
        Ok(()) => Ok(()),
        // The connection may end a moment before the flag is seen, never the other way round.
        Err(_) if ending.has_begun() => Ok(()),
        Err(reason) => Err(format!("{whose}: {reason}")),
    }
}

async fn write_until_gone(
    address: &str,
    ledger: &mut Ledger,
    enough: usize,
    random: &mut StdRng,
    ending: &Ending,
) -> Result<(), String> {
    let connection = connect(address).await?;
    let stamp = match ledger.producer {
        Some(producer) => producer,
        None => {
            let producer = init_producer_id(&connection).await?;
            if ending.power_goes() {
                return Ok(());
            }
            ledger.set_producer(producer.0, producer.1);
            producer
        }
    };
    let depth = random.random_range(1..=5);
    let largest_record = [60, 400, 4000, 60_000][random.random_range(0..4)];
    let mut answers: VecDeque<Answer<ProduceRequest>> = VecDeque::new();
    // What the last broker did not answer goes first: it is stored already, or it is now.
    let again: Vec<Bytes> = ledger.unanswered().map(|batch| batch.batch.clone()).collect();
    for batch in again {
        answers.push_back(produce(&connection, ledger, batch).await?);
    }
    let mut left = enough;
    let mut written_bytes = 0;
    loop {
        while answers.len() < depth && left > 0 {
            left -= 1;
            let (batch, count) = make_batch(ledger, stamp, largest_record, random);
            written_bytes += batch.len();
            if written_bytes > MAX_WRITTEN_BYTES {
                left = 0;
            }
            let answer = produce(&connection, ledger, batch.clone()).await;
            // Noted even if the connection just ended: it may have left.
            ledger.send(count, batch);
            answers.push_back(answer?);
        }
        let Some(answer) = answers.pop_front() else { return Ok(()) };
        let answer = answer.get().await.map_err(|error| error.to_string())?;
        if ending.power_goes() {
            return Ok(());
        }
        let answer = answer.responses.first().and_then(|t| t.partition_responses.first());
        let answer = answer.ok_or("Produce was answered for no partition")?;
        match ResponseError::try_from_code(answer.error_code) {
            None => ledger.acknowledge(answer.base_offset).map_err(|error| error.to_string())?,
            Some(error) => {
                return Err(format!("Produce was answered {error}: {:?}", answer.error_message));
            }
        }
    }
}

async fn init_producer_id(connection: &Connection) -> Result<(i64, i16), String> {
    let request = InitProducerIdRequest::default().with_transactional_id(None);
    let answer = connection.call(&request).await.map_err(|error| error.to_string())?;
    match ResponseError::try_from_code(answer.error_code) {
        None => Ok((answer.producer_id.0, answer.producer_epoch)),
        Some(error) => Err(format!("InitProducerId was answered {error}")),
    }
}

async fn produce(
    connection: &Connection,
    ledger: &Ledger,
    batch: Bytes,
) -> Result<Answer<ProduceRequest>, String> {
    let partition =
        PartitionProduceData::default().with_index(ledger.partition).with_records(Some(batch));
    let topic = TopicProduceData::default()
        .with_name(TopicName(StrBytes::from_string(ledger.topic.clone())))
        .with_partition_data(vec![partition]);
    let request = ProduceRequest::default()
        .with_acks(-1)
        .with_timeout_ms(30_000)
        .with_topic_data(vec![topic]);
    let started = connection.start(PRODUCE_VERSION, &request, Duration::ZERO).await;
    started.map_err(|error| error.to_string())
}

fn make_batch(
    ledger: &Ledger,
    (producer_id, producer_epoch): (i64, i16),
    largest_record: usize,
    random: &mut StdRng,
) -> (Bytes, i64) {
    let (base_offset, base_sequence) = ledger.next();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("it is later than 1970");
    let count = random.random_range(1..=12);
    let mut builder = BatchBuilder::new();
    for offset in base_offset..base_offset + count {
        let value = ledger.value(offset).to_bytes(random.random_range(0..=largest_record));
        builder
            .push(now.as_millis() as i64, None, Some(&value), &[])
            .expect("a few small records fit into a batch");
    }
    let compression = match random.random_range(0..3) {
        0 => Compression::ALL[random.random_range(0..Compression::ALL.len())],
        _ => Compression::None,
    };
    let stamp = ProducerStamp { producer_id, producer_epoch, base_sequence };
    let batch = builder.build(compression, Some(stamp)).expect("small records compress");
    (batch, count)
}

/// Reads partitions from their start to their end.
///
/// # Errors
/// The broker does not let us.
pub async fn read(address: &str, ledgers: &[&Ledger]) -> Result<Vec<Found>, String> {
    let mut config = ClusterConfig::new([address]);
    config.api_timeout = READ_LIMIT;
    let told = |error: client::error::ClientError| error.to_string();
    let cluster = Cluster::connect(config).await.map_err(told)?;
    let admin = Admin::new(&cluster);
    let config = FetcherConfig {
        max_wait: Duration::from_millis(50),
        // Retention does not wait for readers.
        offset_reset: OffsetReset::Earliest,
        ..Default::default()
    };
    let mut fetcher = Fetcher::new(&cluster, config);
    let mut all = Vec::new();
    for ledger in ledgers {
        let mut ends = [0; 2];
        for (end, spec) in ends.iter_mut().zip([OffsetSpec::Earliest, OffsetSpec::Latest]) {
            *end = admin
                .list_offset(&ledger.topic, ledger.partition, spec, IsolationLevel::ReadUncommitted)
                .await
                .map_err(told)?
                .ok_or("ListOffsets has no such offset")?
                .offset;
        }
        let [log_start, end] = ends;
        fetcher.assign(&ledger.topic, ledger.partition, log_start);
        all.push(Found { log_start, end, records: Vec::new() });
    }
    let deadline = tokio::time::Instant::now() + READ_LIMIT;
    loop {
        for (ledger, found) in ledgers.iter().zip(&all) {
            if fetcher.position(&ledger.topic, ledger.partition).is_some_and(|at| at >= found.end) {
                fetcher.unassign(&ledger.topic, ledger.partition);
            }
        }
        let left = ledgers
            .iter()
            .position(|ledger| fetcher.position(&ledger.topic, ledger.partition).is_some());
        let Some(left) = left else { return Ok(all) };
        if tokio::time::Instant::now() > deadline {
            let (ledger, found) = (ledgers[left], &all[left]);
            let at = fetcher.position(&ledger.topic, ledger.partition);
            return Err(format!(
                "{}-{}: reading stopped at {at:?} before the high watermark {}",
                ledger.topic, ledger.partition, found.end
            ));
        }
        for fetched in fetcher.poll(READ_LIMIT).await.map_err(told)? {
            let (of, found) = ledgers
                .iter()
                .zip(&mut all)
                .find(|(of, _)| *of.topic == *fetched.topic && of.partition == fetched.partition)
                .ok_or("an answer for a partition nobody asked for")?;
            for record in fetched.records() {
                let record = record.map_err(told)?;
                let value = record.value.as_deref().and_then(Value::from_bytes);
                let next = found.records.last().map_or(found.log_start, |(offset, _)| offset + 1);
                if of.is_retained && record.offset > next {
                    found.log_start = record.offset;
                    found.records.clear();
                }
                found.records.push((record.offset, value));
            }
        }
    }
}
