//! The Fetch answer: fields by the crate's encoders, record bytes as separate chunks, never copied (DESIGN D5).
//!
//! The crate encodes a partition with its records inside. We encode each level with an empty array (or empty records)
//! and put the real length in its place: for v4–v11 it is the last four bytes, from v12 one byte before the tagged
//! fields, which are a single zero byte there (a partition's tagged fields go with empty records only). The tagged
//! fields follow the elements.

use crate::api::dispatch::Request;
use crate::broker::Broker;
use crate::fetch_session::{FetchContext, SessionAnswer, TopicKey};
use crate::network::response::{EncodeError, Response, ResponseBuilder};
use crate::replica_manager::read::PartitionRead;
use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::messages::fetch_response::{
    AbortedTransaction, EpochEndOffset, FetchableTopicResponse, LeaderIdAndEpoch, NodeEndpoint,
    PartitionData,
};
use kafka_protocol::messages::{BrokerId, FetchResponse, ProducerId};
use kafka_protocol::protocol::Encodable;

const FIRST_WITH_SESSIONS: i16 = 7;
const FIRST_FLEXIBLE: i16 = 12;
const FIRST_WITH_CURRENT_LEADER: i16 = 16;

pub(super) fn encode(
    broker: &Broker,
    request: &Request,
    context: &FetchContext,
    reads: Vec<PartitionRead>,
    answer: &SessionAnswer,
) -> Result<Response, EncodeError> {
    let version = request.api_version;
    let included: Vec<(&TopicKey, i32, PartitionRead)> = context
        .partitions
        .iter()
        .zip(reads)
        .zip(&answer.is_included)
        .filter(|(_, is_included)| **is_included)
        .map(|((fetched, read), _)| (&fetched.key.topic, fetched.key.partition, read))
        .collect();
    // Consecutive partitions of one topic stand together, as Kafka groups them.
    let topics: Vec<_> = included.chunk_by(|one, next| one.0 == next.0).map(<[_]>::len).collect();

    let mut leaders = Vec::new();
    let mut builder = ResponseBuilder::new(request.api_key, version, request.correlation_id)?;
    builder.fields(|buffer| response_head(buffer, version, answer.session_id, topics.len()))?;
    let mut included = included.into_iter();
    for partitions in topics {
        for index in 0..partitions {
            let (topic, partition, read) =
                included.next().expect("the groups cover what is included");
            builder.fields(|buffer| {
                if index == 0 {
                    topic_head(buffer, version, topic, partitions)?;
                }
                partition_fields(buffer, version, partition, &read, &mut leaders)
            })?;
            for slice in read.records.slices {
                builder.records(slice.into());
            }
            if version >= FIRST_FLEXIBLE && read.records.size_bytes > 0 {
                builder.fields(no_tagged_fields)?;
            }
        }
        if version >= FIRST_FLEXIBLE {
            builder.fields(no_tagged_fields)?;
        }
    }
    if version >= FIRST_FLEXIBLE {
        builder.fields(|buffer| node_endpoints(buffer, version, broker, request, &leaders))?;
    }
    builder.finish()
}

type Encoded = Result<(), String>;

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

fn no_tagged_fields(buffer: &mut BytesMut) -> Encoded {
    buffer.put_u8(0);
    Ok(())
}

/// Replaces what the crate wrote for an empty array, and for the tagged fields behind it, by the length of an array
/// whose elements follow.
fn put_array_len_instead(buffer: &mut BytesMut, version: i16, len: usize) {
    if version >= FIRST_FLEXIBLE {
        assert!(buffer.ends_with(&[1, 0]), "an empty array and no tagged field");
        buffer.truncate(buffer.len() - 2);
        put_unsigned_varint(buffer, len as u32 + 1);
    } else {
        assert!(buffer.ends_with(&[0; 4]), "an empty array");
        buffer.truncate(buffer.len() - 4);
        buffer.put_i32(len as i32);
    }
}

/// Seven bits a byte, low ones first, the high bit saying that more follow.
fn put_unsigned_varint(buffer: &mut BytesMut, mut value: u32) {
    while value >= 0x80 {
        buffer.put_u8(value as u8 | 0x80);
        value >>= 7;
    }
    buffer.put_u8(value as u8);
}

fn response_head(buffer: &mut BytesMut, version: i16, session_id: i32, topics: usize) -> Encoded {
    let session_id = if version >= FIRST_WITH_SESSIONS { session_id } else { 0 };
    FetchResponse::default().with_session_id(session_id).encode(buffer, version).map_err(text)?;
    put_array_len_instead(buffer, version, topics);
    Ok(())
}

fn topic_head(buffer: &mut BytesMut, version: i16, topic: &TopicKey, partitions: usize) -> Encoded {
    let head = FetchableTopicResponse::default();
    let head = match topic {
        TopicKey::Id(id) => head.with_topic_id(*id),
        TopicKey::Name(name) => head.with_topic(name.clone()),
    };
    head.encode(buffer, version).map_err(text)?;
    put_array_len_instead(buffer, version, partitions);
    Ok(())
}

/// Everything of a partition up to its records; for empty records also what follows them.
fn partition_fields(
    buffer: &mut BytesMut,
    version: i16,
    partition: i32,
    read: &PartitionRead,
    leaders: &mut Vec<i32>,
) -> Encoded {
    let aborted = read.aborted_transactions.as_ref().map(|aborted| {
        let entry = |(producer_id, first_offset): &(i64, i64)| {
            AbortedTransaction::default()
                .with_producer_id(ProducerId(*producer_id))
                .with_first_offset(*first_offset)
        };
        aborted.iter().map(entry).collect()
    });
    let mut data = PartitionData::default()
        .with_partition_index(partition)
        .with_error_code(read.error_code(version))
        .with_high_watermark(read.high_watermark)
        .with_last_stable_offset(read.last_stable_offset)
        .with_aborted_transactions(aborted)
        .with_preferred_read_replica(BrokerId(-1))
        // Empty, never null: null crashes librdkafka (KAFKA-18646).
        .with_records(Some(Bytes::new()));
    if version >= 5 {
        data = data.with_log_start_offset(read.log_start_offset);
    }
    if version >= FIRST_FLEXIBLE
        && let Some(diverging) = read.diverging_epoch
    {
        data = data.with_diverging_epoch(
            EpochEndOffset::default()
                .with_epoch(diverging.epoch.value())
                .with_end_offset(diverging.end_offset.value()),
        );
    }
    if version >= FIRST_WITH_CURRENT_LEADER
        && let Some((leader, epoch)) = read.current_leader()
    {
        leaders.push(leader);
        data = data.with_current_leader(
            LeaderIdAndEpoch::default().with_leader_id(BrokerId(leader)).with_leader_epoch(epoch),
        );
    }
    data.encode(buffer, version).map_err(text)?;
    // The length of bytes is written like that of an array.
    if read.records.size_bytes > 0 {
        put_array_len_instead(buffer, version, read.records.size_bytes);
    }
    Ok(())
}

fn node_endpoints(
    buffer: &mut BytesMut,
    version: i16,
    broker: &Broker,
    request: &Request,
    leaders: &[i32],
) -> Encoded {
    if version < FIRST_WITH_CURRENT_LEADER || leaders.is_empty() {
        return no_tagged_fields(buffer);
    }
    let endpoints: Vec<NodeEndpoint> = broker
        .node_endpoints(&request.connection, leaders)
        .into_iter()
        .map(|node| {
            NodeEndpoint::default()
                .with_node_id(BrokerId(node.id))
                .with_host(node.host)
                .with_port(node.port)
                .with_rack(node.rack)
        })
        .collect();
    let mut whole = BytesMut::new();
    FetchResponse::default()
        .with_node_endpoints(endpoints)
        .encode(&mut whole, version)
        .map_err(text)?;
    // Throttle time, error code, session id and an empty array of topics stand before the tagged fields.
    buffer.put_slice(&whole[4 + 2 + 4 + 1..]);
    Ok(())
}
