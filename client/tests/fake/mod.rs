//! A broker of one topic `t` with one partition, in this process: it checks sequence numbers as Kafka does, and fails on
//! purpose, one planned fault a Produce request.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::{BufMut, Bytes, BytesMut};
use client::ResponseError;
use client::record::{BatchReader, RecordBatch};
use kafka_protocol::messages::api_versions_response::ApiVersion;
use kafka_protocol::messages::metadata_response::{
    MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use kafka_protocol::messages::produce_response::{PartitionProduceResponse, TopicProduceResponse};
use kafka_protocol::messages::{
    ApiKey, ApiVersionsResponse, BrokerId, InitProducerIdResponse, MetadataResponse,
    ProduceRequest, ProduceResponse, ProducerId, RequestHeader, ResponseHeader, TopicName,
};
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, StrBytes};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// What happens to one Produce request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    None,
    CloseBeforeAppend,
    CloseAfterAppend,
    ErrorBeforeAppend(ResponseError),
    ErrorAfterAppend(ResponseError),
}

/// See the module. Ends with the runtime.
pub struct FakeBroker {
    port: u16,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    faults: VecDeque<Fault>,
    log: Vec<u32>,
    producers: HashMap<i64, VecDeque<Stored>>,
    producer_ids: i64,
    refusals: usize,
    unknowns: usize,
}

/// One batch in a producer's window of five.
struct Stored {
    first_sequence: i32,
    last_sequence: i32,
    base_offset: i64,
}

impl FakeBroker {
    pub async fn start(faults: Vec<Fault>) -> FakeBroker {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("bound").port();
        let state = Arc::new(Mutex::new(State { faults: faults.into(), ..State::default() }));
        let served = state.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, port, served.clone()));
            }
        });
        FakeBroker { port, state }
    }

    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// The records, each a number, in the order of the log.
    pub fn log(&self) -> Vec<u32> {
        self.lock().log.clone()
    }

    /// No more faults.
    pub fn heal(&self) {
        self.lock().faults.clear();
    }

    /// Errors that do not pass, as planned faults, so far.
    pub fn refusals(&self) -> usize {
        self.lock().refusals
    }

    /// Requests so far whose fate the client could not know.
    pub fn unknowns(&self) -> usize {
        self.lock().unknowns
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no test panics under it")
    }
}

async fn serve(mut stream: TcpStream, port: u16, state: Arc<Mutex<State>>) {
    while let Ok(size) = stream.read_u32().await {
        let mut frame = vec![0; size as usize];
        stream.read_exact(&mut frame).await.expect("the client sends whole frames");
        let mut frame = Bytes::from(frame);
        let key = i16::from_be_bytes([frame[0], frame[1]]);
        let version = i16::from_be_bytes([frame[2], frame[3]]);
        let api = ApiKey::try_from(key).expect("a request of Kafka's");
        let header = RequestHeader::decode(&mut frame, api.request_header_version(version))
            .expect("a header");
        let id = header.correlation_id;
        let answer = match api {
            ApiKey::ApiVersions => encode(id, version, &api_versions()),
            ApiKey::Metadata => encode(id, version, &metadata(port)),
            ApiKey::InitProducerId => encode(id, version, &init_producer_id(&state)),
            ApiKey::Produce => {
                let request = ProduceRequest::decode(&mut frame, version).expect("a body");
                match produce(&request, &mut state.lock().expect("no test panics under it")) {
                    Some(response) => encode(id, version, &response),
                    None => return,
                }
            }
            other => panic!("the client should not ask for {other:?}"),
        };
        if stream.write_all(&answer).await.is_err() {
            return;
        }
    }
}

fn encode<R: Encodable + HeaderVersion>(correlation_id: i32, version: i16, response: &R) -> Bytes {
    let mut body = BytesMut::new();
    let header = ResponseHeader::default().with_correlation_id(correlation_id);
    header.encode(&mut body, R::header_version(version)).expect("a header");
    response.encode(&mut body, version).expect("a body");
    let mut frame = BytesMut::new();
    frame.put_u32(body.len() as u32);
    frame.put(body);
    frame.freeze()
}

fn api_versions() -> ApiVersionsResponse {
    let spoken = [ApiKey::ApiVersions, ApiKey::Metadata, ApiKey::InitProducerId, ApiKey::Produce];
    let ranges = spoken.map(|api| {
        let range = api.valid_versions();
        ApiVersion::default()
            .with_api_key(api as i16)
            .with_min_version(range.min)
            .with_max_version(range.max)
    });
    ApiVersionsResponse::default().with_api_keys(ranges.to_vec())
}

fn metadata(port: u16) -> MetadataResponse {
    let broker = MetadataResponseBroker::default()
        .with_node_id(BrokerId(1))
        .with_host(StrBytes::from_static_str("127.0.0.1"))
        .with_port(i32::from(port));
    let partition =
        MetadataResponsePartition::default().with_leader_id(BrokerId(1)).with_leader_epoch(0);
    let topic = MetadataResponseTopic::default()
        .with_name(Some(TopicName(StrBytes::from_static_str("t"))))
        .with_partitions(vec![partition]);
    MetadataResponse::default().with_brokers(vec![broker]).with_topics(vec![topic])
}

fn init_producer_id(state: &Mutex<State>) -> InitProducerIdResponse {
    let mut state = state.lock().expect("no test panics under it");
    state.producer_ids += 1;
    InitProducerIdResponse::default()
        .with_producer_id(ProducerId(state.producer_ids))
        .with_producer_epoch(0)
}

/// `None` closes the connection.
fn produce(request: &ProduceRequest, state: &mut State) -> Option<ProduceResponse> {
    let records = request.topic_data[0].partition_data[0].records.clone().expect("records");
    let batch = BatchReader::new(records).next().expect("a batch").expect("whole");
    let fault = state.faults.pop_front().unwrap_or(Fault::None);
    let (code, base_offset) = match fault {
        Fault::None => match append(&batch, state) {
            Ok(base_offset) => (0, base_offset),
            Err(error) => (error.code(), -1),
        },
        Fault::CloseBeforeAppend => {
            state.unknowns += 1;
            return None;
        }
        Fault::CloseAfterAppend => {
            state.unknowns += 1;
            let _ = append(&batch, state);
            return None;
        }
        Fault::ErrorBeforeAppend(error) => {
            state.refusals += usize::from(!error.is_retriable());
            (error.code(), -1)
        }
        Fault::ErrorAfterAppend(error) => match append(&batch, state) {
            Ok(_) => {
                state.unknowns += 1;
                (error.code(), -1)
            }
            Err(refused) => (refused.code(), -1),
        },
    };
    let partition =
        PartitionProduceResponse::default().with_error_code(code).with_base_offset(base_offset);
    let topic = TopicProduceResponse::default()
        .with_name(TopicName(StrBytes::from_static_str("t")))
        .with_partition_responses(vec![partition]);
    Some(ProduceResponse::default().with_responses(vec![topic]))
}

fn append(batch: &RecordBatch, state: &mut State) -> Result<i64, ResponseError> {
    let base_offset = state.log.len() as i64;
    if let Some(producer_id) = batch.producer_id {
        let window = state.producers.entry(producer_id).or_default();
        let first_sequence = batch.base_sequence;
        let last_sequence = first_sequence + batch.last_offset_delta;
        let is_same =
            |s: &&Stored| (s.first_sequence, s.last_sequence) == (first_sequence, last_sequence);
        if let Some(stored) = window.iter().find(is_same) {
            return Ok(stored.base_offset);
        }
        // As Kafka since KIP-360: an unknown producer may begin anywhere.
        if window.back().is_some_and(|last| first_sequence != last.last_sequence + 1) {
            return Err(ResponseError::OutOfOrderSequenceNumber);
        }
        window.push_back(Stored { first_sequence, last_sequence, base_offset });
        if window.len() > 5 {
            window.pop_front();
        }
    }
    for record in batch.records(1 << 20).expect("plain") {
        let value = record.expect("whole").value.expect("a value");
        let number = std::str::from_utf8(&value).expect("digits").parse().expect("a number");
        state.log.push(number);
    }
    Ok(base_offset)
}
