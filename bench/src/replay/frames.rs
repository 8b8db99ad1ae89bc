//! Requests as bytes that are encoded once and patched, and the few fields that are looked at in their answers.
//!
//! Produce v7 and Fetch v11: the newest versions with the plain header that every measured broker, the null broker included,
//! speaks. Layouts: the protocol's message definitions.

use std::io;
use std::ops::Range;

use bytes::{Buf, BufMut};
use kafka_protocol::ResponseError;

const PRODUCE_VERSION: i16 = 7;
const FETCH_VERSION: i16 = 11;
const CLIENT_ID: &str = "highwater-replay";
/// Of every request: after the size, the API key and the version.
const CORRELATION_ID_AT: usize = 8;
/// Base offset, batch length, epoch, magic, CRC, attributes, last offset delta …
const BATCH_HEADER_BYTES: usize = 61;
const BATCH_LENGTH_AT: usize = 8;
const LAST_OFFSET_DELTA_AT: usize = 23;
/// What the length of a batch does not count: base offset and the length itself.
const BATCH_OVERHEAD_BYTES: usize = 12;

fn put_string(out: &mut Vec<u8>, text: &str) {
    out.put_i16(text.len() as i16);
    out.put_slice(text.as_bytes());
}

fn put_header(out: &mut Vec<u8>, api_key: i16, version: i16) {
    out.put_i32(0); // size, filled in at the end
    out.put_i16(api_key);
    out.put_i16(version);
    out.put_i32(0); // correlation id, patched
    put_string(out, CLIENT_ID);
}

fn put_size(out: &mut [u8]) {
    let size = (out.len() - 4) as u32;
    out[..4].copy_from_slice(&size.to_be_bytes());
}

fn patch_i32(frame: &mut [u8], at: usize, value: i32) {
    frame[at..at + 4].copy_from_slice(&value.to_be_bytes());
}

/// A Produce request with the same batch for one or several partitions.
#[derive(Clone, Debug)]
pub struct ProduceFrame {
    /// Size prefix included.
    pub bytes: Vec<u8>,
    partition_indexes_at: Vec<usize>,
}

impl ProduceFrame {
    /// The request without its correlation id and partitions.
    pub fn new(topic: &str, batch: &[u8], partitions: usize, acks: i16) -> ProduceFrame {
        let mut bytes = Vec::with_capacity(256 + partitions * (batch.len() + 8));
        put_header(&mut bytes, 0, PRODUCE_VERSION);
        bytes.put_i16(-1); // no transactional id
        bytes.put_i16(acks);
        bytes.put_i32(30_000); // timeout, ms
        bytes.put_i32(1); // topics
        put_string(&mut bytes, topic);
        bytes.put_i32(partitions as i32);
        let mut partition_indexes_at = Vec::with_capacity(partitions);
        for _ in 0..partitions {
            partition_indexes_at.push(bytes.len());
            bytes.put_i32(0);
            bytes.put_i32(batch.len() as i32);
            bytes.put_slice(batch);
        }
        put_size(&mut bytes);
        ProduceFrame { bytes, partition_indexes_at }
    }

    /// Makes `frame`, a copy of [`ProduceFrame::bytes`], the request of that id to the partitions from `first_partition`
    /// on, of so many in all, round and round.
    pub fn patch(
        &self,
        frame: &mut [u8],
        correlation_id: i32,
        first_partition: usize,
        partition_count: usize,
    ) {
        patch_i32(frame, CORRELATION_ID_AT, correlation_id);
        for (index, at) in self.partition_indexes_at.iter().enumerate() {
            patch_i32(frame, *at, ((first_partition + index) % partition_count) as i32);
        }
    }
}

/// A Fetch request of one partition, without a session.
#[derive(Clone, Debug)]
pub struct FetchFrame {
    /// Size prefix included.
    pub bytes: Vec<u8>,
    offset_at: usize,
}

impl FetchFrame {
    /// The request without its correlation id and offset.
    pub fn new(topic: &str, partition: i32, max_bytes: i32, max_wait_ms: i32) -> FetchFrame {
        let mut bytes = Vec::with_capacity(256);
        put_header(&mut bytes, 1, FETCH_VERSION);
        bytes.put_i32(-1); // a consumer
        bytes.put_i32(max_wait_ms);
        bytes.put_i32(1); // min bytes
        bytes.put_i32(max_bytes);
        bytes.put_i8(0); // read uncommitted
        bytes.put_i32(0); // no session
        bytes.put_i32(-1);
        bytes.put_i32(1); // topics
        put_string(&mut bytes, topic);
        bytes.put_i32(1); // partitions
        bytes.put_i32(partition);
        bytes.put_i32(-1); // current leader epoch: any
        let offset_at = bytes.len();
        bytes.put_i64(0); // fetch offset, patched
        bytes.put_i64(-1); // log start, of followers
        bytes.put_i32(max_bytes);
        bytes.put_i32(0); // forgotten topics
        put_string(&mut bytes, ""); // rack
        put_size(&mut bytes);
        FetchFrame { bytes, offset_at }
    }

    /// Makes it the request of that id from that offset on.
    pub fn patch(&mut self, correlation_id: i32, offset: i64) {
        patch_i32(&mut self.bytes, CORRELATION_ID_AT, correlation_id);
        self.bytes[self.offset_at..self.offset_at + 8].copy_from_slice(&offset.to_be_bytes());
    }
}

/// Checks that `answer` (without its size) belongs to the Produce request of that id, and that as many partitions as asked were
/// taken.
///
/// # Errors
/// When it does not, one was refused, or it cannot be read.
pub fn check_produced(answer: &[u8], correlation_id: i32, partitions: usize) -> io::Result<()> {
    let mut answer = Reader(answer);
    answer.correlation_id(correlation_id)?;
    let mut taken = 0;
    for _ in 0..answer.i32()? {
        answer.skip_string()?;
        for _ in 0..answer.i32()? {
            answer.i32()?; // index
            answer.error_code("Produce")?;
            answer.skip(24)?; // base offset, append time, log start
            taken += 1;
        }
    }
    if taken != partitions {
        return Err(invalid(format!("{taken} of {partitions} partitions were answered")));
    }
    Ok(())
}

/// What a Fetch answer said of its only partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetched {
    /// The first offset that consumers may not read yet.
    pub high_watermark: i64,
    /// Where the record bytes are in the answer.
    pub records: Range<usize>,
    /// The offset after the last whole batch; None if there is no whole batch.
    pub next_offset: Option<i64>,
}

/// Reads `answer` (without its size) to the Fetch request of that id.
///
/// # Errors
/// When it belongs to another, the broker refused, or it cannot be read.
pub fn read_fetched(answer: &[u8], correlation_id: i32) -> io::Result<Fetched> {
    let mut rest = Reader(answer);
    rest.correlation_id(correlation_id)?;
    rest.skip(4)?; // throttle time
    rest.error_code("Fetch")?;
    rest.skip(4)?; // session
    if rest.i32()? == 0 {
        let records = answer.len()..answer.len();
        return Ok(Fetched { high_watermark: -1, records, next_offset: None });
    }
    rest.skip_string()?;
    if rest.i32()? != 1 {
        return Err(invalid("one partition was asked for"));
    }
    rest.skip(4)?; // index
    rest.error_code("Fetch")?;
    let high_watermark = rest.i64()?;
    rest.skip(16)?; // last stable offset, log start
    let aborted = usize::try_from(rest.i32()?).unwrap_or(0);
    rest.skip(aborted.saturating_mul(16))?;
    rest.skip(4)?; // preferred replica
    let size = usize::try_from(rest.i32()?).unwrap_or(0);
    let start = answer.len() - rest.0.len();
    rest.skip(size)?;
    let records = start..start + size;
    let next_offset = offset_after(&answer[records.clone()])?;
    Ok(Fetched { high_watermark, records, next_offset })
}

/// The offset after the last whole batch of `records`, which may end within a batch.
fn offset_after(mut records: &[u8]) -> io::Result<Option<i64>> {
    let mut next_offset = None;
    while records.len() >= BATCH_HEADER_BYTES {
        let length = (&records[BATCH_LENGTH_AT..]).get_i32();
        let size = usize::try_from(length).map_or(0, |length| length + BATCH_OVERHEAD_BYTES);
        if size < BATCH_HEADER_BYTES {
            return Err(invalid(format!("a batch of length {length}")));
        }
        if size > records.len() {
            break;
        }
        let base_offset = (&records[..]).get_i64();
        let last_offset_delta = (&records[LAST_OFFSET_DELTA_AT..]).get_i32();
        next_offset = Some(base_offset + i64::from(last_offset_delta) + 1);
        records = &records[size..];
    }
    Ok(next_offset)
}

/// How many offsets a batch takes.
pub fn records_of(batch: &[u8]) -> u32 {
    (&batch[LAST_OFFSET_DELTA_AT..]).get_u32() + 1
}

/// What is left of an answer.
struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn skip(&mut self, size: usize) -> io::Result<()> {
        self.0 = self.0.get(size..).ok_or_else(|| invalid("a short answer"))?;
        Ok(())
    }

    fn i16(&mut self) -> io::Result<i16> {
        self.0.try_get_i16().map_err(invalid)
    }

    fn i32(&mut self) -> io::Result<i32> {
        self.0.try_get_i32().map_err(invalid)
    }

    fn i64(&mut self) -> io::Result<i64> {
        self.0.try_get_i64().map_err(invalid)
    }

    fn skip_string(&mut self) -> io::Result<()> {
        let size = usize::try_from(self.i16()?).unwrap_or(0);
        self.skip(size)
    }

    fn correlation_id(&mut self, expected: i32) -> io::Result<()> {
        match self.i32()? {
            found if found == expected => Ok(()),
            found => Err(invalid(format!("answer {found} where {expected} was due"))),
        }
    }

    fn error_code(&mut self, request: &str) -> io::Result<()> {
        match ResponseError::try_from_code(self.i16()?) {
            None => Ok(()),
            Some(error) => Err(io::Error::other(format!("{request} was refused: {error}"))),
        }
    }
}

fn invalid(error: impl ToString) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error.to_string())
}

#[cfg(test)]
mod tests {
    use bytes::{Bytes, BytesMut};
    use kafka_protocol::messages::fetch_response::{FetchableTopicResponse, PartitionData};
    use kafka_protocol::messages::produce_response::{
        PartitionProduceResponse, TopicProduceResponse,
    };
    use kafka_protocol::messages::{
        FetchRequest, FetchResponse, ProduceRequest, ProduceResponse, RequestHeader,
    };
    use kafka_protocol::protocol::{Decodable, Encodable};

    use super::*;
    use crate::wire;

    fn header_of(frame: &mut Bytes) -> RequestHeader {
        assert_eq!(frame.get_i32() as usize, frame.len());
        RequestHeader::decode(frame, 1).expect("a header")
    }

    #[test]
    fn a_produce_frame_is_read_by_the_protocol_crate_as_it_was_patched() {
        let batch = wire::batch(2, 100);
        let template = ProduceFrame::new("topic", &batch, 3, -1);
        let mut frame = template.bytes.clone();
        template.patch(&mut frame, 77, 4, 5);
        let mut frame = Bytes::from(frame);
        let header = header_of(&mut frame);
        assert_eq!((header.request_api_key, header.request_api_version), (0, PRODUCE_VERSION));
        assert_eq!(header.correlation_id, 77);
        let request = ProduceRequest::decode(&mut frame, PRODUCE_VERSION).expect("a request");
        assert_eq!((request.acks, frame.len()), (-1, 0));
        let partitions = &request.topic_data[0].partition_data;
        assert_eq!(partitions.iter().map(|p| p.index).collect::<Vec<_>>(), [4, 0, 1]);
        assert!(partitions.iter().all(|p| p.records.as_ref() == Some(&batch)));
    }

    #[test]
    fn a_fetch_frame_is_read_by_the_protocol_crate_as_it_was_patched() {
        let mut template = FetchFrame::new("topic", 7, 1 << 20, 500);
        template.patch(78, 1 << 40);
        let mut frame = Bytes::from(template.bytes);
        assert_eq!(header_of(&mut frame).correlation_id, 78);
        let request = FetchRequest::decode(&mut frame, FETCH_VERSION).expect("a request");
        assert_eq!((request.max_wait_ms, frame.len()), (500, 0));
        let partition = &request.topics[0].partitions[0];
        assert_eq!((partition.partition, partition.fetch_offset), (7, 1 << 40));
    }

    fn produced(code: i16) -> Vec<u8> {
        let partition = PartitionProduceResponse::default().with_error_code(code);
        let topic = TopicProduceResponse::default().with_partition_responses(vec![partition]);
        let mut out = BytesMut::new();
        out.put_i32(9);
        ProduceResponse::default()
            .with_responses(vec![topic])
            .encode(&mut out, PRODUCE_VERSION)
            .expect("encoded");
        out.to_vec()
    }

    #[test]
    fn a_produce_answer_counts_only_if_every_partition_was_taken_by_the_request_asked() {
        assert!(check_produced(&produced(0), 9, 1).is_ok());
        assert!(check_produced(&produced(0), 8, 1).is_err());
        assert!(check_produced(&produced(0), 9, 2).is_err());
        let refused = check_produced(&produced(3), 9, 1).expect_err("refused");
        assert!(refused.to_string().contains("UnknownTopicOrPartition"), "{refused}");
        let whole = produced(0);
        for size in 0..whole.len() - 4 {
            assert!(check_produced(&whole[..size], 9, 1).is_err(), "cut to {size}");
        }
    }

    fn fetched(records: Bytes) -> Vec<u8> {
        let partition =
            PartitionData::default().with_high_watermark(50).with_records(Some(records));
        let topic = FetchableTopicResponse::default().with_partitions(vec![partition]);
        let mut out = BytesMut::new();
        out.put_i32(9);
        FetchResponse::default()
            .with_responses(vec![topic])
            .encode(&mut out, FETCH_VERSION)
            .expect("encoded");
        out.to_vec()
    }

    #[test]
    fn the_next_fetch_follows_the_last_whole_batch() {
        let batch = wire::batch(3, 100);
        let two = [&batch[..], &batch[..], &batch[..70]].concat();
        let answer = fetched(Bytes::from(two.clone()));
        let fetched_two = read_fetched(&answer, 9).expect("read");
        assert_eq!((fetched_two.high_watermark, fetched_two.next_offset), (50, Some(3)));
        assert_eq!(answer[fetched_two.records], two);
        let none = read_fetched(&fetched(Bytes::new()), 9).expect("read");
        assert_eq!((none.records.len(), none.next_offset), (0, None));
    }
}
