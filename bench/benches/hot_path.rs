//! Micro benches of what every produced or fetched byte passes: `cargo bench -p highwater-bench`, or with a name after `--`.
//! Each is the code that the broker runs, without sockets and tasks; compare runs on one quiet machine only.

use std::path::Path;
use std::sync::Arc;

use broker::network::response::{Response, ResponseBuilder};
use bytes::Bytes;
use client::frame_check::{RequestHeaderView, check_request};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use highwater_bench::wire::{self, topic_name};
use kafka_protocol::messages::fetch_response::{FetchableTopicResponse, PartitionData};
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::{ApiKey, ProduceRequest};
use kafka_protocol::protocol::Encodable;
use storage::crc32c::crc32c;
use storage::fs::real::RealFs;
use storage::leader_epoch::LeaderEpoch;
use storage::log::{Log, LogConfig};
use storage::log_dir::{LogDir, MetaProperties};
use storage::log_validator::{AppendOrigin, ValidationConfig, validate};
use storage::offset::Offset;
use storage::offset_index::OffsetIndexBuilder;
use storage::record_batch::RecordBatch;
use storage::timestamp::Timestamp;
use storage::topic_partition::{TopicId, TopicPartition};

/// Records of a batch and bytes of each value: 1 KiB, 64 KiB and the most that a topic allows by default, about.
const BATCHES: [(i32, usize); 3] = [(1, 1024), (64, 1000), (1000, 1030)];
/// A log is emptied when it holds this much, so that pages are used again.
const LOG_SIZE_BYTES: u64 = 256 << 20;
const PRODUCE_VERSION: i16 = 11;
const FETCH_VERSION: i16 = 11;
const NOW: Timestamp = Timestamp::ZERO;

criterion_group!(hot_path, batch_check, validation, append, index_lookup, fetch, frame_check);
criterion_main!(hot_path);

/// The header, then the checksum over all that follows it; the checksum alone beside it.
fn batch_check(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("header_and_crc");
    for (records, value_size) in BATCHES {
        let batch = wire::batch(records, value_size);
        group.throughput(Throughput::Bytes(batch.len() as u64));
        group.bench_function(BenchmarkId::new("check", batch.len()), |bencher| {
            bencher.iter(|| {
                let (batch, _) = RecordBatch::parse(&batch).expect("a batch");
                batch.verify_crc().expect("its checksum");
                batch.header().next_offset()
            });
        });
        group.bench_function(BenchmarkId::new("crc_alone", batch.len()), |bencher| {
            bencher.iter(|| crc32c(&batch));
        });
    }
}

/// All that a producer's batch is checked for, records included.
fn validation(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("validate");
    let config = ValidationConfig { after_max_ms: i64::MAX, ..ValidationConfig::default() };
    for (records, value_size) in BATCHES {
        let batch = wire::batch(records, value_size);
        group.throughput(Throughput::Bytes(batch.len() as u64));
        group.bench_function(BenchmarkId::from_parameter(batch.len()), |bencher| {
            bencher.iter(|| validate(&batch, &config, NOW).expect("valid"));
        });
    }
}

/// A validated batch into a log on a real file system; not synced.
fn append(criterion: &mut Criterion) {
    let directory = directory();
    let dir = log_dir(directory.path());
    let mut group = criterion.benchmark_group("append");
    for (number, (records, value_size)) in BATCHES.into_iter().enumerate() {
        let batch = validated(&wire::batch(records, value_size));
        let mut log = log(&dir, number as i32);
        group.throughput(Throughput::Bytes(batch.header.batch_size_bytes() as u64));
        let name = BenchmarkId::from_parameter(batch.header.batch_size_bytes());
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                if log.size_bytes() > LOG_SIZE_BYTES {
                    log.truncate_to(Offset::ZERO, NOW).expect("emptied");
                }
                append_one(&mut log, batch.clone());
            });
        });
        log.truncate_to(Offset::ZERO, NOW).expect("emptied");
    }
}

/// The offset index of a full segment: a GiB with an entry for each 4 KiB.
fn index_lookup(criterion: &mut Criterion) {
    const ENTRIES: u64 = 256 << 10;
    const RECORDS_OF_AN_ENTRY: u64 = 40;
    let base = Offset::ZERO.plus(1 << 40);
    let mut index = OffsetIndexBuilder::new();
    for entry in 1..=ENTRIES {
        index.append(base, base.plus(entry * RECORDS_OF_AN_ENTRY), (entry * 4096) as u32);
    }
    let view = index.view(base);
    let mut random = 1_u64;
    criterion.bench_function("index_lookup", |bencher| {
        bencher.iter(|| {
            // Somewhere else each time, as catching-up readers are: a multiplicative generator, of which the high bits are good.
            random = random.wrapping_mul(6_364_136_223_846_793_005);
            view.lookup(base.plus((random >> 32) % (ENTRIES * RECORDS_OF_AN_ENTRY)))
        });
    });
}

/// From offsets to the pieces of an answer: planning and carrying out the reads, the fields around the record bytes. The record
/// bytes themselves are not read here.
fn fetch(criterion: &mut Criterion) {
    let directory = directory();
    let dir = log_dir(directory.path());
    let mut group = criterion.benchmark_group("fetch_assembly");
    for partitions in [1, 100] {
        let mut logs: Vec<Log> = (0..partitions).map(|number| log(&dir, number)).collect();
        let batch = validated(&wire::batch(64, 1000));
        for log in &mut logs {
            (0..64).for_each(|_| append_one(log, batch.clone()));
        }
        group.throughput(Throughput::Elements(partitions as u64));
        group.bench_function(BenchmarkId::new("partitions", partitions), |bencher| {
            bencher.iter(|| fetch_answer(&mut logs));
        });
    }
}

fn fetch_answer(logs: &mut [Log]) -> Response {
    let mut answer = ResponseBuilder::new(ApiKey::Fetch, FETCH_VERSION, 1).expect("a header");
    let topic = FetchableTopicResponse::default().with_topic(topic_name("bench"));
    answer.fields(|buffer| topic.encode(buffer, FETCH_VERSION)).expect("a topic");
    for (number, log) in logs.iter_mut().enumerate() {
        let end = log.offsets().log_end;
        let plan = log.read_plan(Offset::ZERO.plus(64 * 32 + 7), end, NOW).expect("in range");
        let found = plan.execute(1 << 20, true).expect("there");
        let fields = PartitionData::default()
            .with_partition_index(number as i32)
            .with_high_watermark(end.value())
            .with_records(Some(Bytes::new()));
        answer.fields(|buffer| fields.encode(buffer, FETCH_VERSION)).expect("a partition");
        for slice in found.slices {
            answer.records(slice.into());
        }
    }
    answer.finish().expect("not too large")
}

/// The gate in front of the decoder: a Produce request of one batch, and one of a small batch to each of 100 partitions.
fn frame_check(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("frame_check");
    for (partitions, batch) in [(1, wire::batch(1000, 1030)), (100, wire::batch(1, 1000))] {
        let to_one = |index| {
            PartitionProduceData::default().with_index(index).with_records(Some(batch.clone()))
        };
        let topic = TopicProduceData::default()
            .with_name(topic_name("bench"))
            .with_partition_data((0..partitions).map(to_one).collect());
        let request = ProduceRequest::default().with_acks(-1).with_topic_data(vec![topic]);
        let frame = wire::frame(&request, PRODUCE_VERSION, 1).expect("a request").slice(4..);
        group.throughput(Throughput::Elements(partitions as u64));
        group.bench_function(BenchmarkId::new("produce_partitions", partitions), |bencher| {
            bencher.iter(|| {
                let header = RequestHeaderView::parse(&frame).expect("a header");
                let body = &frame[header.body_offset..];
                check_request(header.api_key, header.api_version, body).expect("sound");
            });
        });
    }
}

/// Below the target directory, so on the file system that a checkout is on.
fn directory() -> tempfile::TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory")
}

fn log_dir(path: &Path) -> Arc<LogDir> {
    let directory_id = TopicId::from_bytes([7; 16]);
    let meta = MetaProperties { node_id: 1, cluster_id: None, directory_id };
    LogDir::open(Arc::new(RealFs::without_sync()), path, &meta).expect("a new directory")
}

fn log(dir: &Arc<LogDir>, partition: i32) -> Log {
    let id = TopicId::from_bytes([1; 16]);
    let name = TopicPartition::new("bench", partition);
    Log::absent(dir.clone(), id, name, Arc::new(LogConfig::default()))
}

fn validated(batch: &Bytes) -> storage::log_validator::ValidatedBatch {
    let config = ValidationConfig { after_max_ms: i64::MAX, ..ValidationConfig::default() };
    validate(batch, &config, NOW).expect("valid")
}

fn append_one(log: &mut Log, batch: storage::log_validator::ValidatedBatch) {
    log.append_as_leader(batch, AppendOrigin::Client, LeaderEpoch::ZERO, NOW).expect("appended");
}
