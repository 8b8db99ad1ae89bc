//! The least a broker can do, as a ceiling beside the measured ones: it speaks the protocol correctly to real clients,
//! checks each batch's CRC, patches its base offset, appends it to the partition's file, and serves it from there with one
//! read and one write. One blocking thread a connection, one lock a partition, nothing else: no durability, no
//! configuration, no check of what a hostile client sends.
//!
//! `null_broker DIR [--discard]` prints its port. Topics are made by CreateTopics, each partition a file in `DIR`, and removed
//! by DeleteTopics at once. With `--discard` batches are checked and counted but stored nowhere: nothing can be fetched.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, IoSlice, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, RwLock};
use std::time::{Duration, Instant};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use crc_fast::CrcAlgorithm;
use highwater_bench::machine::stop_pacing;
use kafka_protocol::messages::api_versions_response::ApiVersion;
use kafka_protocol::messages::create_topics_response::CreatableTopicResult;
use kafka_protocol::messages::delete_topics_response::DeletableTopicResult;
use kafka_protocol::messages::list_offsets_response::{
    ListOffsetsPartitionResponse, ListOffsetsTopicResponse,
};
use kafka_protocol::messages::metadata_response::{
    MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use kafka_protocol::messages::produce_response::{PartitionProduceResponse, TopicProduceResponse};
use kafka_protocol::messages::{
    ApiKey, ApiVersionsResponse, BrokerId, CreateTopicsRequest, CreateTopicsResponse,
    DeleteTopicsRequest, DeleteTopicsResponse, FetchRequest, InitProducerIdResponse,
    ListOffsetsRequest, ListOffsetsResponse, MetadataRequest, MetadataResponse, ProduceRequest,
    ProduceResponse, ProducerId, RequestHeader, TopicName,
};
use kafka_protocol::protocol::{Decodable, Encodable, StrBytes};

/// What is spoken; none of these versions is a flexible one, so every answer has the plain header. Two are only said to be: librdkafka
/// compresses with gzip, snappy and lz4 only for a broker that offers Produce v0, and with lz4 only for one that has coordinators.
const SUPPORTED: [(ApiKey, i16, i16); 9] = [
    (ApiKey::Produce, 0, 8),
    (ApiKey::FindCoordinator, 0, 1),
    (ApiKey::InitProducerId, 0, 1),
    (ApiKey::Fetch, 4, 11),
    (ApiKey::ListOffsets, 1, 5),
    (ApiKey::Metadata, 1, 8),
    (ApiKey::ApiVersions, 0, 3),
    (ApiKey::CreateTopics, 2, 4),
    (ApiKey::DeleteTopics, 1, 3),
];
const UNKNOWN_TOPIC_OR_PARTITION: i16 = 3;
const UNSUPPORTED_VERSION: i16 = 35;
const BATCH_HEADER_BYTES: usize = 61;

/// One partition: where each batch begins, and the file that holds them.
struct Partition {
    file: File,
    path: PathBuf,
    /// Nothing is written, nothing is there to read.
    discards: bool,
    log: Mutex<Log>,
    grew: Condvar,
}

#[derive(Default)]
struct Log {
    /// (offset after the batch, file position after the batch), ascending in both.
    ends: Vec<(i64, u64)>,
}

impl Log {
    fn end(&self) -> (i64, u64) {
        self.ends.last().copied().unwrap_or((0, 0))
    }
}

type Topic = Arc<Vec<Partition>>;

struct Broker {
    directory: PathBuf,
    discards: bool,
    port: i32,
    topics: RwLock<HashMap<String, Topic>>,
}

fn main() -> io::Result<()> {
    let directory =
        PathBuf::from(std::env::args().nth(1).ok_or_else(|| invalid("usage: null_broker DIR"))?);
    let discards = std::env::args().nth(2).is_some_and(|flag| flag == "--discard");
    std::fs::create_dir_all(&directory)?;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    stop_pacing(&listener)?;
    let port = listener.local_addr()?.port();
    println!("{port}");
    io::stdout().flush()?;
    let broker =
        Arc::new(Broker { directory, discards, port: i32::from(port), topics: RwLock::default() });
    for stream in listener.incoming() {
        let stream = stream?;
        stream.set_nodelay(true)?;
        let broker = broker.clone();
        std::thread::spawn(move || match serve(&broker, stream) {
            Err(error) if error.kind() != io::ErrorKind::UnexpectedEof => {
                eprintln!("null_broker: connection: {error}");
            }
            _ => {}
        });
    }
    Ok(())
}

fn invalid(error: impl ToString) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error.to_string())
}

fn serve(broker: &Broker, mut stream: TcpStream) -> io::Result<()> {
    // Both are reused: a large allocation for each request would be mapped and touched anew each time.
    let mut frame_buffer = BytesMut::new();
    let mut records = Vec::new();
    loop {
        let mut size = [0; 4];
        stream.read_exact(&mut size)?;
        let size = u32::from_be_bytes(size) as usize;
        frame_buffer.resize(size, 0);
        stream.read_exact(&mut frame_buffer)?;
        let mut frame = frame_buffer.split().freeze();
        let whole = frame.clone();
        let key = ApiKey::try_from((&frame[..]).get_i16()).map_err(|()| invalid("api key"))?;
        let version = (&frame[2..]).get_i16();
        let header = RequestHeader::decode(&mut frame, key.request_header_version(version))
            .map_err(invalid)?;
        let mut out = BytesMut::with_capacity(1024);
        out.put_i32(0);
        out.put_i32(header.correlation_id);
        let mut records_size_bytes = 0;
        let answered = match key {
            ApiKey::ApiVersions => api_versions(&mut out, version).map(|()| true)?,
            ApiKey::Metadata => broker.metadata(&mut out, frame, version).map(|()| true)?,
            ApiKey::CreateTopics => broker.create(&mut out, frame, version).map(|()| true)?,
            ApiKey::DeleteTopics => broker.delete(&mut out, frame, version).map(|()| true)?,
            ApiKey::InitProducerId => init_producer_id(&mut out, version).map(|()| true)?,
            ApiKey::ListOffsets => broker.list_offsets(&mut out, frame, version).map(|()| true)?,
            ApiKey::Produce => broker.produce(&mut out, frame, version)?,
            ApiKey::Fetch => {
                records_size_bytes = broker.fetch(&mut out, frame, version, &mut records)?;
                true
            }
            _ => return Err(invalid("unsupported api")),
        };
        if answered {
            let total = out.len() - 4 + records_size_bytes;
            out[..4].copy_from_slice(&(total as u32).to_be_bytes());
            write_both(&mut stream, &out, &records[..records_size_bytes])?;
        }
        // All that pointed into the frame is gone, so its memory comes back.
        frame_buffer = whole.try_into_mut().unwrap_or_else(|_| BytesMut::with_capacity(size));
        frame_buffer.clear();
    }
}

fn write_both(stream: &mut TcpStream, head: &[u8], records: &[u8]) -> io::Result<()> {
    let mut slices = [IoSlice::new(head), IoSlice::new(records)];
    let mut rest = &mut slices[..];
    while !rest.is_empty() {
        let written = stream.write_vectored(rest)?;
        IoSlice::advance_slices(&mut rest, written);
    }
    Ok(())
}

fn api_versions(out: &mut BytesMut, version: i16) -> io::Result<()> {
    let keys = SUPPORTED
        .iter()
        .map(|(key, min, max)| {
            ApiVersion::default()
                .with_api_key(*key as i16)
                .with_min_version(*min)
                .with_max_version(*max)
        })
        .collect();
    let response = ApiVersionsResponse::default().with_api_keys(keys);
    let (response, version) = if version > 3 {
        (response.with_error_code(UNSUPPORTED_VERSION), 0)
    } else {
        (response, version)
    };
    response.encode(out, version).map_err(invalid)
}

/// An idempotent producer's id; nobody looks at its sequences.
fn init_producer_id(out: &mut BytesMut, version: i16) -> io::Result<()> {
    InitProducerIdResponse::default()
        .with_producer_id(ProducerId(1))
        .with_producer_epoch(0)
        .encode(out, version)
        .map_err(invalid)
}

impl Broker {
    fn topic(&self, name: &str) -> Option<Topic> {
        let topics = self.topics.read().expect("no thread panics with the lock");
        topics.get(name).cloned()
    }

    fn metadata(&self, out: &mut BytesMut, mut frame: Bytes, version: i16) -> io::Result<()> {
        let request = MetadataRequest::decode(&mut frame, version).map_err(invalid)?;
        let describe = |name: TopicName| {
            let response = MetadataResponseTopic::default();
            match self.topic(&name) {
                None => response.with_error_code(UNKNOWN_TOPIC_OR_PARTITION).with_name(Some(name)),
                Some(partitions) => response.with_name(Some(name)).with_partitions(
                    (0..partitions.len())
                        .map(|index| {
                            MetadataResponsePartition::default()
                                .with_partition_index(index as i32)
                                .with_leader_id(BrokerId(1))
                                .with_replica_nodes(vec![BrokerId(1)])
                                .with_isr_nodes(vec![BrokerId(1)])
                        })
                        .collect(),
                ),
            }
        };
        let topics = request
            .topics
            .unwrap_or_default()
            .into_iter()
            .filter_map(|topic| topic.name)
            .map(describe)
            .collect();
        MetadataResponse::default()
            .with_brokers(vec![
                MetadataResponseBroker::default()
                    .with_node_id(BrokerId(1))
                    .with_host(StrBytes::from_static_str("127.0.0.1"))
                    .with_port(self.port),
            ])
            .with_controller_id(BrokerId(1))
            .with_topics(topics)
            .encode(out, version)
            .map_err(invalid)
    }

    fn create(&self, out: &mut BytesMut, mut frame: Bytes, version: i16) -> io::Result<()> {
        let request = CreateTopicsRequest::decode(&mut frame, version).map_err(invalid)?;
        let mut results = Vec::new();
        for topic in request.topics {
            let name = topic.name.to_string();
            let mut partitions = Vec::new();
            for index in 0..topic.num_partitions.max(1) {
                let path = self.directory.join(format!("{name}-{index}"));
                partitions.push(Partition {
                    file: File::options()
                        .create(true)
                        .truncate(true)
                        .read(true)
                        .write(true)
                        .open(&path)?,
                    path,
                    discards: self.discards,
                    log: Mutex::default(),
                    grew: Condvar::new(),
                });
            }
            let mut topics = self.topics.write().expect("no thread panics with the lock");
            topics.insert(name, Arc::new(partitions));
            results.push(CreatableTopicResult::default().with_name(topic.name));
        }
        CreateTopicsResponse::default().with_topics(results).encode(out, version).map_err(invalid)
    }

    fn delete(&self, out: &mut BytesMut, mut frame: Bytes, version: i16) -> io::Result<()> {
        let request = DeleteTopicsRequest::decode(&mut frame, version).map_err(invalid)?;
        let mut results = Vec::new();
        for name in request.topic_names {
            let removed = self
                .topics
                .write()
                .expect("no thread panics with the lock")
                .remove(&name.to_string());
            for partition in removed.iter().flat_map(|topic| topic.iter()) {
                std::fs::remove_file(&partition.path)?;
            }
            results.push(DeletableTopicResult::default().with_name(Some(name)));
        }
        DeleteTopicsResponse::default()
            .with_responses(results)
            .encode(out, version)
            .map_err(invalid)
    }

    fn list_offsets(&self, out: &mut BytesMut, mut frame: Bytes, version: i16) -> io::Result<()> {
        let request = ListOffsetsRequest::decode(&mut frame, version).map_err(invalid)?;
        let mut topics = Vec::new();
        for asked in request.topics {
            let topic = self.topic(&asked.name);
            let partitions = asked
                .partitions
                .iter()
                .map(|partition| {
                    let answer = ListOffsetsPartitionResponse::default()
                        .with_partition_index(partition.partition_index);
                    let found = topic
                        .as_ref()
                        .and_then(|topic| topic.get(partition.partition_index as usize));
                    match (found, partition.timestamp) {
                        (None, _) => answer.with_error_code(UNKNOWN_TOPIC_OR_PARTITION),
                        (Some(_), -2) => answer.with_offset(0),
                        (Some(found), _) => answer.with_offset(lock(&found.log).end().0),
                    }
                })
                .collect();
            topics.push(
                ListOffsetsTopicResponse::default()
                    .with_name(asked.name)
                    .with_partitions(partitions),
            );
        }
        ListOffsetsResponse::default().with_topics(topics).encode(out, version).map_err(invalid)
    }

    /// Returns whether the client expects an answer.
    fn produce(&self, out: &mut BytesMut, mut frame: Bytes, version: i16) -> io::Result<bool> {
        let request = ProduceRequest::decode(&mut frame, version).map_err(invalid)?;
        let mut responses = Vec::new();
        for data in request.topic_data {
            let topic = self.topic(&data.name);
            let mut partitions = Vec::new();
            for partition in data.partition_data {
                let answer = PartitionProduceResponse::default().with_index(partition.index);
                let found = topic.as_ref().and_then(|topic| topic.get(partition.index as usize));
                partitions.push(match found {
                    None => answer.with_error_code(UNKNOWN_TOPIC_OR_PARTITION),
                    Some(found) => answer
                        .with_base_offset(found.append(&partition.records.unwrap_or_default())?),
                });
            }
            responses.push(
                TopicProduceResponse::default()
                    .with_name(data.name)
                    .with_partition_responses(partitions),
            );
        }
        if request.acks == 0 {
            return Ok(false);
        }
        ProduceResponse::default()
            .with_responses(responses)
            .encode(out, version)
            .map_err(invalid)?;
        Ok(true)
    }

    /// Writes the answer's head to `out` and the record bytes that follow it to the start of `records`; returns how many.
    /// Serves the first partition that has data, so that the records end the frame.
    fn fetch(
        &self,
        out: &mut BytesMut,
        mut frame: Bytes,
        version: i16,
        records: &mut Vec<u8>,
    ) -> io::Result<usize> {
        let request = FetchRequest::decode(&mut frame, version).map_err(invalid)?;
        let deadline = Instant::now() + Duration::from_millis(request.max_wait_ms.max(0) as u64);
        let mut wanted = Vec::new();
        for asked in &request.topics {
            let topic = self.topic(&asked.topic);
            for partition in &asked.partitions {
                wanted.push((&asked.topic, partition, topic.clone()));
            }
        }
        for (name, partition, topic) in &wanted {
            let index = partition.partition;
            let Some(found) = topic.as_ref().and_then(|t| t.get(index as usize)) else {
                fetch_head(out, version, Some((name, index)), UNKNOWN_TOPIC_OR_PARTITION, 0, 0);
                return Ok(0);
            };
            // Long polling is for a request of one partition, which is all that the rows ask for.
            let wait_until = (wanted.len() == 1).then_some(deadline);
            let (high_watermark, size) = found.read(
                partition.fetch_offset,
                partition.partition_max_bytes as usize,
                wait_until,
                records,
            )?;
            if size > 0 || wanted.len() == 1 {
                fetch_head(out, version, Some((name, index)), 0, high_watermark, size);
                return Ok(size);
            }
        }
        std::thread::sleep(deadline.saturating_duration_since(Instant::now()));
        fetch_head(out, version, None, 0, 0, 0);
        Ok(0)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().expect("no thread panics with the lock")
}

impl Partition {
    /// Appends one batch and returns its base offset.
    fn append(&self, batch: &Bytes) -> io::Result<i64> {
        if batch.len() < BATCH_HEADER_BYTES {
            return Err(invalid("short batch"));
        }
        let crc = crc_fast::checksum(CrcAlgorithm::Crc32Iscsi, &batch[21..]) as u32;
        if crc != (&batch[17..21]).get_u32() {
            return Err(invalid("batch crc"));
        }
        let records = i64::from((&batch[23..27]).get_i32()) + 1;
        let mut log = lock(&self.log);
        let (base_offset, position) = log.end();
        if self.discards {
            log.ends.clear();
            log.ends.push((base_offset + records, 0));
            return Ok(base_offset);
        }
        let offset_bytes = base_offset.to_be_bytes();
        let mut slices = [IoSlice::new(&offset_bytes), IoSlice::new(&batch[8..])];
        let mut rest = &mut slices[..];
        while !rest.is_empty() {
            let written = (&self.file).write_vectored(rest)?;
            IoSlice::advance_slices(&mut rest, written);
        }
        log.ends.push((base_offset + records, position + batch.len() as u64));
        drop(log);
        self.grew.notify_all();
        Ok(base_offset)
    }

    /// Reads whole batches from the one that holds `offset`, at least one and otherwise at most `max_bytes`, to the start of
    /// `records`, which only grows; waits for one until `wait_until`. Returns the log end and the size read.
    fn read(
        &self,
        offset: i64,
        max_bytes: usize,
        wait_until: Option<Instant>,
        records: &mut Vec<u8>,
    ) -> io::Result<(i64, usize)> {
        let mut log = lock(&self.log);
        while log.end().0 <= offset {
            let left = wait_until
                .map_or(Duration::ZERO, |until| until.saturating_duration_since(Instant::now()));
            if left.is_zero() {
                return Ok((log.end().0, 0));
            }
            log = self.grew.wait_timeout(log, left).expect("no thread panics with the lock").0;
        }
        if self.discards {
            return Ok((log.end().0, 0));
        }
        let first = log.ends.partition_point(|(end, _)| *end <= offset);
        let from = first.checked_sub(1).map_or(0, |before| log.ends[before].1);
        let fits = log.ends[first..].partition_point(|(_, to)| to - from <= max_bytes as u64);
        let to = log.ends[first + fits.max(1) - 1].1;
        let log_end = log.end().0;
        drop(log);
        let size = (to - from) as usize;
        if records.len() < size {
            records.resize(size, 0);
        }
        self.file.read_exact_at(&mut records[..size], from)?;
        Ok((log_end, size))
    }
}

/// A Fetch answer (v4 to v11) with at most one partition, up to its record bytes.
fn fetch_head(
    out: &mut BytesMut,
    version: i16,
    partition: Option<(&StrBytes, i32)>,
    error_code: i16,
    high_watermark: i64,
    records_size_bytes: usize,
) {
    out.put_i32(0); // throttle time
    if version >= 7 {
        out.put_i16(0); // error
        out.put_i32(0); // no session
    }
    let Some((topic, index)) = partition else {
        out.put_i32(0);
        return;
    };
    out.put_i32(1);
    out.put_i16(topic.len() as i16);
    out.put_slice(topic.as_bytes());
    out.put_i32(1);
    out.put_i32(index);
    out.put_i16(error_code);
    out.put_i64(high_watermark);
    out.put_i64(high_watermark); // last stable offset
    if version >= 5 {
        out.put_i64(0); // log start
    }
    out.put_i32(-1); // no aborted transactions
    if version >= 11 {
        out.put_i32(-1); // no preferred replica
    }
    out.put_i32(records_size_bytes as i32);
}
