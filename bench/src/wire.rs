//! A blocking client of one connection, in versions that every measured broker speaks: topics, and the first record that is
//! acknowledged. Its own cost is some tens of microseconds, which no larger client of ours could promise.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::ops::Range;
use std::time::{Duration, Instant};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use crc_fast::CrcAlgorithm;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::{
    CreateTopicsRequest, DeleteTopicsRequest, FetchRequest, MetadataRequest, ProduceRequest,
    RequestHeader, TopicName,
};
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, Request, StrBytes};

const CREATE_TOPICS_VERSION: i16 = 4;
const DELETE_TOPICS_VERSION: i16 = 3;
const PRODUCE_VERSION: i16 = 8;
/// Of [`fetch_request`].
pub const FETCH_VERSION: i16 = 11;
/// Of [`metadata_request`].
pub const METADATA_VERSION: i16 = 5;
const FETCH_WAIT: Duration = Duration::from_secs(1);
/// What a broker is given to create a topic, or to accept a record.
const ANSWER_LIMIT: Duration = Duration::from_secs(30);
const MAX_ANSWER_BYTES: usize = 64 << 20;

/// One connection. An error leaves it unusable.
pub struct Wire {
    stream: TcpStream,
    next_correlation_id: i32,
}

impl Wire {
    /// Connects to a broker on loopback.
    ///
    /// # Errors
    /// When nobody listens.
    pub fn connect(port: u16) -> io::Result<Wire> {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(ANSWER_LIMIT))?;
        Ok(Wire { stream, next_correlation_id: 0 })
    }

    /// Sends a request and waits for its answer.
    ///
    /// # Errors
    /// When the connection ends, the answer takes too long or is not understood.
    pub fn call<R: Request>(&mut self, request: &R, version: i16) -> io::Result<R::Response> {
        self.next_correlation_id += 1;
        self.stream.write_all(&frame(request, version, self.next_correlation_id)?)?;

        let mut size = [0; 4];
        self.stream.read_exact(&mut size)?;
        let size = u32::from_be_bytes(size) as usize;
        if size > MAX_ANSWER_BYTES {
            return Err(invalid(format!("an answer of {size} bytes")));
        }
        let mut answer = vec![0; size];
        self.stream.read_exact(&mut answer)?;
        let mut answer = Bytes::from(answer);
        if answer.len() < 4 || answer.get_i32() != self.next_correlation_id {
            return Err(invalid("the answer to another request"));
        }
        if R::Response::header_version(version) > 0 {
            return Err(invalid("a flexible version, which this client does not speak"));
        }
        R::Response::decode(&mut answer, version).map_err(invalid)
    }

    /// Creates a topic with one replica of each partition.
    ///
    /// # Errors
    /// As [`Wire::call`], and when the broker refuses.
    pub fn create_topic(&mut self, name: &str, partitions: i32) -> io::Result<()> {
        self.create_topic_with(name, partitions, &[])
    }

    /// The same with settings of its own, by name and value.
    ///
    /// # Errors
    /// As [`Wire::create_topic`].
    pub fn create_topic_with(
        &mut self,
        name: &str,
        partitions: i32,
        settings: &[(&str, &str)],
    ) -> io::Result<()> {
        let string = |text: &str| StrBytes::from_string(text.to_owned());
        let configs = settings.iter().map(|(name, value)| {
            CreatableTopicConfig::default().with_name(string(name)).with_value(Some(string(value)))
        });
        let request = CreateTopicsRequest::default()
            .with_timeout_ms(ANSWER_LIMIT.as_millis() as i32)
            .with_topics(vec![
                CreatableTopic::default()
                    .with_name(topic_name(name))
                    .with_num_partitions(partitions)
                    .with_replication_factor(1)
                    .with_configs(configs.collect()),
            ]);
        let answer = self.call(&request, CREATE_TOPICS_VERSION)?;
        match answer.topics.first() {
            Some(topic) if topic.error_code == 0 => Ok(()),
            topic => Err(refused("CreateTopics", topic.map(|topic| topic.error_code))),
        }
    }

    /// Deletes a topic. Its files go when the broker sees fit.
    ///
    /// # Errors
    /// As [`Wire::call`], and when the broker refuses.
    pub fn delete_topic(&mut self, name: &str) -> io::Result<()> {
        let request = DeleteTopicsRequest::default()
            .with_timeout_ms(ANSWER_LIMIT.as_millis() as i32)
            .with_topic_names(vec![topic_name(name)]);
        let answer = self.call(&request, DELETE_TOPICS_VERSION)?;
        match answer.responses.first() {
            Some(topic) if topic.error_code == 0 => Ok(()),
            topic => Err(refused("DeleteTopics", topic.map(|topic| topic.error_code))),
        }
    }

    /// Produces one batch to partition 0 with acks=all; a broker that does not lead the partition yet is asked again at once.
    /// Returns the batch's base offset.
    ///
    /// # Errors
    /// As [`Wire::call`], when the broker refuses, or does not lead after half a minute.
    pub fn produce(&mut self, topic: &str, batch: &Bytes) -> io::Result<i64> {
        self.produce_to_each(topic, 0..1, batch)
    }

    /// The same batch to each of these partitions, in one request; those that have no leader yet are tried again.
    /// Returns the base offset in one of them.
    ///
    /// # Errors
    /// As [`Wire::produce`].
    pub fn produce_to_each(
        &mut self,
        topic: &str,
        partitions: Range<i32>,
        batch: &Bytes,
    ) -> io::Result<i64> {
        let mut due: Vec<i32> = partitions.collect();
        let mut base_offset = 0;
        let began = Instant::now();
        while !due.is_empty() {
            let to_one = |index: &i32| {
                PartitionProduceData::default().with_index(*index).with_records(Some(batch.clone()))
            };
            let request = ProduceRequest::default()
                .with_acks(-1)
                .with_timeout_ms(ANSWER_LIMIT.as_millis() as i32)
                .with_topic_data(vec![
                    TopicProduceData::default()
                        .with_name(topic_name(topic))
                        .with_partition_data(due.iter().map(to_one).collect()),
                ]);
            let answer = self.call(&request, PRODUCE_VERSION)?;
            let answered = answer.responses.first().map(|topic| &topic.partition_responses);
            if answered.map_or(0, Vec::len) != due.len() {
                return Err(refused("Produce", None));
            }
            due.clear();
            for partition in answered.into_iter().flatten() {
                match partition.error_code {
                    0 => base_offset = partition.base_offset,
                    code if is_not_yet(code) && began.elapsed() < ANSWER_LIMIT => {
                        due.push(partition.index);
                    }
                    code => return Err(refused("Produce", Some(code))),
                }
            }
        }
        Ok(base_offset)
    }

    /// Reads from partition `partition` of `topic` from `offset`, waiting up to a second for a first byte. Returns the record
    /// bytes, of which the last batch may be cut, and the high watermark.
    ///
    /// # Errors
    /// As [`Wire::call`], and when the broker refuses.
    pub fn fetch(
        &mut self,
        topic: &str,
        partition: i32,
        offset: i64,
        max_bytes: i32,
    ) -> io::Result<(Bytes, i64)> {
        let request = fetch_request(topic, partition, offset, max_bytes);
        let answer = self.call(&request, FETCH_VERSION)?;
        match answer.responses.first().and_then(|topic| topic.partitions.first()) {
            Some(found) if found.error_code == 0 => {
                Ok((found.records.clone().unwrap_or_default(), found.high_watermark))
            }
            found => Err(refused("Fetch", found.map(|found| found.error_code))),
        }
    }

    /// How many partitions of these topics have a leader, by one Metadata request.
    ///
    /// # Errors
    /// As [`Wire::call`].
    pub fn led_partitions(&mut self, topics: &[&str]) -> io::Result<usize> {
        let answer = self.call(&metadata_request(topics), METADATA_VERSION)?;
        let partitions = answer.topics.iter().flat_map(|topic| &topic.partitions);
        Ok(partitions.filter(|partition| partition.leader_id.0 >= 0).count())
    }
}

/// A bare connection to loopback whose receive buffer has about so many bytes, which must be said before it is connected.
///
/// # Errors
/// When nobody listens.
pub fn connect_with_receive_buffer(port: u16, size_bytes: usize) -> io::Result<TcpStream> {
    use rustix::net::{AddressFamily, SocketType, connect, ipproto, socket, sockopt};
    let socket = socket(AddressFamily::INET, SocketType::STREAM, Some(ipproto::TCP))?;
    sockopt::set_socket_recv_buffer_size(&socket, size_bytes)?;
    connect(&socket, &SocketAddr::from((Ipv4Addr::LOCALHOST, port)))?;
    Ok(TcpStream::from(socket))
}

/// A request as it goes over the wire, size prefix included.
///
/// # Errors
/// When it sets what this version lacks.
pub fn frame<R: Request>(request: &R, version: i16, correlation_id: i32) -> io::Result<Bytes> {
    let mut out = BytesMut::new();
    out.put_i32(0);
    RequestHeader::default()
        .with_request_api_key(R::KEY)
        .with_request_api_version(version)
        .with_correlation_id(correlation_id)
        .with_client_id(Some(StrBytes::from_static_str("highwater-bench")))
        .encode(&mut out, R::header_version(version))
        .map_err(invalid)?;
    request.encode(&mut out, version).map_err(invalid)?;
    let size = (out.len() - 4) as u32;
    out[..4].copy_from_slice(&size.to_be_bytes());
    Ok(out.freeze())
}

/// The request of [`Wire::fetch`], in [`FETCH_VERSION`].
pub fn fetch_request(topic: &str, partition: i32, offset: i64, max_bytes: i32) -> FetchRequest {
    FetchRequest::default()
        .with_max_wait_ms(FETCH_WAIT.as_millis() as i32)
        .with_min_bytes(1)
        .with_max_bytes(max_bytes)
        .with_session_id(0)
        .with_session_epoch(-1)
        .with_topics(vec![FetchTopic::default().with_topic(topic_name(topic)).with_partitions(
            vec![
                FetchPartition::default()
                    .with_partition(partition)
                    .with_fetch_offset(offset)
                    .with_partition_max_bytes(max_bytes),
            ],
        )])
}

/// A request for these topics, none of them to be created, in [`METADATA_VERSION`].
pub fn metadata_request(topics: &[&str]) -> MetadataRequest {
    let topic = |name: &&str| MetadataRequestTopic::default().with_name(Some(topic_name(name)));
    MetadataRequest::default()
        .with_topics(Some(topics.iter().map(topic).collect()))
        .with_allow_auto_topic_creation(false)
}

/// Whether a broker that has just created or loaded a partition may say so.
fn is_not_yet(code: i16) -> bool {
    code == ResponseError::UnknownTopicOrPartition.code()
        || code == ResponseError::NotLeaderOrFollower.code()
}

/// As the protocol crate wants it.
pub fn topic_name(name: &str) -> TopicName {
    TopicName(StrBytes::from_string(name.to_owned()))
}

fn invalid(error: impl ToString) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error.to_string())
}

fn refused(request: &str, code: Option<i16>) -> io::Error {
    let code = code.map_or("no result".to_owned(), |code| {
        ResponseError::try_from_code(code)
            .map_or(format!("error {code}"), |error| error.to_string())
    });
    io::Error::other(format!("{request} was refused: {code}"))
}

/// A batch (magic 2, uncompressed) of equal records of `value_size` bytes, as a producer sends it.
pub fn batch(records: i32, value_size: usize) -> Bytes {
    let mut body = BytesMut::new();
    for offset_delta in 0..records {
        let mut record = BytesMut::new();
        record.put_i8(0); // attributes
        put_varint(&mut record, 0); // timestamp delta
        put_varint(&mut record, i64::from(offset_delta));
        put_varint(&mut record, -1); // no key
        put_varint(&mut record, value_size as i64);
        record.put_bytes(b'x', value_size);
        put_varint(&mut record, 0); // headers
        put_varint(&mut body, record.len() as i64);
        body.put(record);
    }
    let mut after_crc = BytesMut::new();
    after_crc.put_i16(0); // attributes
    after_crc.put_i32(records - 1);
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let timestamp = now.map_or(0, |now| now.as_millis() as i64);
    after_crc.put_i64(timestamp);
    after_crc.put_i64(timestamp);
    after_crc.put_i64(-1); // producer id
    after_crc.put_i16(-1);
    after_crc.put_i32(-1);
    after_crc.put_i32(records);
    after_crc.put(body);
    let mut batch = BytesMut::new();
    batch.put_i64(0);
    batch.put_i32(after_crc.len() as i32 + 9); // after this field: epoch, magic, CRC
    batch.put_i32(-1);
    batch.put_i8(2);
    batch.put_u32(crc_fast::checksum(CrcAlgorithm::Crc32Iscsi, &after_crc) as u32);
    batch.put(after_crc);
    batch.freeze()
}

/// The largest batch of such records that takes at most `size` bytes, its header included; one record if none fits.
pub fn batch_of_bytes(size: usize, value_size: usize) -> Bytes {
    let mut records = (size / (value_size + 7)).max(1) as i32;
    loop {
        let batch = batch(records, value_size);
        if batch.len() <= size || records == 1 {
            return batch;
        }
        // A record takes a few bytes more than was guessed; what is too much says how many do not fit.
        records -= ((batch.len() - size) / (value_size + 16)).max(1) as i32;
        records = records.max(1);
    }
}

fn put_varint(out: &mut BytesMut, value: i64) {
    let mut zigzag = ((value << 1) ^ (value >> 63)) as u64;
    while zigzag >= 0x80 {
        out.put_u8(zigzag as u8 | 0x80);
        zigzag >>= 7;
    }
    out.put_u8(zigzag as u8);
}

#[cfg(test)]
mod tests {
    use kafka_protocol::records::RecordBatchDecoder;

    use super::*;

    #[test]
    fn a_batch_of_a_size_is_less_than_a_record_below_it() {
        let size = 1 << 20;
        for value_size in [1, 100, 1024] {
            let batch = batch_of_bytes(size, value_size);
            assert!(batch.len() <= size && batch.len() + value_size + 16 > size, "{value_size}");
        }
        assert_eq!(batch_of_bytes(10, 100), batch(1, 100));
    }

    #[test]
    fn a_batch_of_ours_is_read_by_the_protocol_crate() {
        let mut bytes = batch(3, 100);
        let records = RecordBatchDecoder::decode(&mut bytes).expect("a valid batch");
        assert_eq!(records.records.len(), 3);
        let value = records.records[2].value.as_ref().expect("a value");
        assert_eq!(value.len(), 100);
    }
}
