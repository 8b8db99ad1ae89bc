//! Tests of a whole log on the simulated disk.

mod descriptors;
mod tail;

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;

use super::*;
use crate::compression::Compression;
use crate::flush::FlushScope;
use crate::fs::simulated::{Crash, Fault, Operation, SimulatedFs};
use crate::leader_epoch::LeaderEpoch;
use crate::log_dir::MetaProperties;
use crate::log_validator::{AppendOrigin, ValidatedBatch};
use crate::producer_state::{ProducerEpoch, ProducerId};
use crate::record_batch::{BatchHeader, HEADER_SIZE_BYTES, RecordBatchBuilder, batches};

pub(crate) const NOW: Timestamp = Timestamp::ZERO;
pub(crate) const EPOCH: LeaderEpoch = LeaderEpoch::ZERO;

pub(crate) fn offset(value: u64) -> Offset {
    Offset::ZERO.plus(value)
}

pub(crate) fn time(value: i64) -> Timestamp {
    Timestamp::new(value).unwrap()
}

pub(crate) fn open_dir(fs: &SimulatedFs) -> Arc<LogDir> {
    let meta =
        MetaProperties { node_id: 1, cluster_id: None, directory_id: TopicId::from_bytes([7; 16]) };
    let dir = LogDir::open(Arc::new(fs.clone()), Path::new("/data"), &meta).unwrap();
    dir.load_checkpoints().unwrap();
    dir
}

pub(crate) fn small_segments() -> LogConfig {
    LogConfig { segment_bytes: 1000, index_interval_bytes: 100, ..LogConfig::default() }
}

pub(crate) fn partition() -> TopicPartition {
    TopicPartition::new("orders", 3)
}

pub(crate) fn new_log(dir: &Arc<LogDir>, config: LogConfig) -> Log {
    Log::absent(dir.clone(), TopicId::from_bytes([1; 16]), partition(), Arc::new(config))
}

pub(crate) fn recover(
    dir: &Arc<LogDir>,
    config: LogConfig,
) -> Result<(Log, RecoveryReport), LogError> {
    let checkpoints = dir.checkpointed(&partition());
    Log::recover(
        dir.clone(),
        TopicId::from_bytes([1; 16]),
        partition(),
        Arc::new(config),
        checkpoints,
        NOW,
    )
}

/// A batch of one record of this size; `tag` is in its first bytes.
pub(crate) fn batch(tag: u64, value_size: usize, timestamp: i64) -> ValidatedBatch {
    let mut value = vec![b'x'; value_size.max(8)];
    value[..8].copy_from_slice(&tag.to_be_bytes());
    let builder =
        RecordBatchBuilder::new().record(Timestamp::new(timestamp), None, Some(&value), &[]);
    validated(builder)
}

pub(crate) fn idempotent(id: i64, epoch: i16, sequence: i32, count: u64) -> ValidatedBatch {
    let producer = ProducerId::new(id).unwrap();
    let epoch = ProducerEpoch::new(epoch).unwrap();
    let mut builder = RecordBatchBuilder::new().producer(producer, epoch, Some(sequence));
    for _ in 0..count {
        builder = builder.record(Timestamp::new(5), None, Some(b"value"), &[]);
    }
    validated(builder)
}

fn validated(builder: RecordBatchBuilder) -> ValidatedBatch {
    let bytes = Bytes::from(builder.build().unwrap());
    let header = BatchHeader::parse(&bytes).unwrap();
    ValidatedBatch { header, body: bytes.slice(HEADER_SIZE_BYTES..), log_append_time: None }
}

pub(crate) fn append(log: &mut Log, batch: ValidatedBatch) -> LogAppendInfo {
    log.append_as_leader(batch, AppendOrigin::Client, EPOCH, NOW).unwrap()
}

/// All batches from `from` to the log end, read plan by plan.
pub(crate) fn read_all(log: &mut Log, from: Offset) -> Vec<(Offset, Vec<u8>)> {
    let mut found = Vec::new();
    let mut next = from;
    let end = log.offsets().log_end;
    while next < end {
        let fetched = log.read_plan(next, end, NOW).unwrap().execute(300, true).unwrap();
        let bytes = fetched.read().unwrap();
        assert!(!bytes.is_empty(), "nothing at {next} though the log ends at {end}");
        for batch in batches(&bytes) {
            let Ok(batch) = batch else { break };
            batch.verify_crc().unwrap();
            assert!(batch.last_offset() >= next, "the answer starts with the batch that holds it");
            next = batch.next_offset();
            found.push((batch.base_offset(), batch.bytes().to_vec()));
        }
    }
    found
}

fn tags(log: &mut Log) -> Vec<u64> {
    let start = log.offsets().log_start;
    let tag = |(_, bytes): (Offset, Vec<u8>)| {
        let (batch, _) = crate::record_batch::RecordBatch::parse(&bytes).unwrap();
        let record = batch.uncompressed_records().unwrap().next().unwrap().unwrap();
        u64::from_be_bytes(*record.value.unwrap().first_chunk().unwrap())
    };
    read_all(log, start).into_iter().map(tag).collect()
}

#[test]
fn nothing_is_on_the_disk_before_the_first_append() {
    let fs = SimulatedFs::new();
    let dir = open_dir(&fs);
    let before = fs.files();
    let mut log = new_log(&dir, LogConfig::default());
    log.assign_epoch_start(EPOCH);
    assert_eq!(log.latest_epoch(NOW).unwrap(), Some(EPOCH));
    assert!(log.read_plan(offset(0), offset(0), NOW).unwrap().is_empty());
    assert!(log.flush_ticket(FlushScope::Everything).unwrap().is_none());
    assert_eq!(fs.files(), before);
    append(&mut log, batch(1, 10, 5));
    let names: Vec<_> = fs.read_dir_names("/data/orders-3").into_iter().collect();
    assert_eq!(names, ["00000000000000000000.log", "partition.metadata"]);
}

#[test]
fn what_is_appended_is_read_from_every_offset_across_segments() {
    let fs = SimulatedFs::new();
    let dir = open_dir(&fs);
    let mut log = new_log(&dir, small_segments());
    for tag in 0..50 {
        let info = append(&mut log, batch(tag, 60, tag as i64));
        assert_eq!(info.base_offset, offset(tag));
    }
    assert!(log.loaded().unwrap().segments.len() > 3);
    assert_eq!(tags(&mut log), (0..50).collect::<Vec<_>>());
    for from in 0..50 {
        let fetched =
            log.read_plan(offset(from), offset(50), NOW).unwrap().execute(1, true).unwrap();
        let bytes = fetched.read().unwrap();
        let found: Vec<_> = batches(&bytes).map(|batch| batch.unwrap().base_offset()).collect();
        assert_eq!(found, [offset(from)]);
    }
    assert!(matches!(
        log.read_plan(offset(51), offset(60), NOW),
        Err(ReadError::OffsetOutOfRange { .. })
    ));
}

#[test]
fn nothing_at_or_past_the_upper_bound_is_read() {
    let fs = SimulatedFs::new();
    let dir = open_dir(&fs);
    let mut log = new_log(&dir, small_segments());
    for tag in 0..30 {
        append(&mut log, batch(tag, 60, 0));
    }
    for bound in 0..=30 {
        for from in 0..=30 {
            let plan = log.read_plan(offset(from), offset(bound), NOW).unwrap();
            let bytes = plan.execute(usize::MAX, true).unwrap().read().unwrap();
            let found: Vec<_> = batches(&bytes).map(|batch| batch.unwrap().base_offset()).collect();
            assert_eq!(found.is_empty(), from >= bound, "[{from}, {bound})");
            assert!(found.iter().all(|at| (offset(from)..offset(bound)).contains(at)));
        }
    }
}

#[test]
fn a_first_batch_that_does_not_fit_is_whole_or_absent() {
    let fs = SimulatedFs::new();
    let dir = open_dir(&fs);
    let mut log = new_log(&dir, small_segments());
    append(&mut log, batch(1, 100, 0));
    append(&mut log, batch(2, 100, 0));
    let plan = log.read_plan(offset(0), offset(2), NOW).unwrap();
    assert_eq!(plan.clone().execute(10, false).unwrap().size_bytes, 0);
    let one = plan.clone().execute(10, true).unwrap().size_bytes;
    assert!(one > 100);
    assert_eq!(plan.clone().execute(one + 5, false).unwrap().size_bytes, one + 5);
    assert_eq!(plan.execute(10_000, false).unwrap().size_bytes, one * 2);
}

#[test]
fn a_retry_is_answered_with_its_first_offsets_and_not_stored() {
    let fs = SimulatedFs::new();
    let dir = open_dir(&fs);
    let mut log = new_log(&dir, small_segments());
    append(&mut log, batch(0, 10, 0));
    for sequence in 0..6 {
        append(&mut log, idempotent(9, 0, sequence * 2, 2));
    }
    let info = append(&mut log, idempotent(9, 0, 4, 2));
    assert!(info.duplicate);
    assert_eq!((info.base_offset, info.last_offset), (offset(5), offset(6)));
    assert_eq!(log.offsets().log_end, offset(13));
    let error =
        log.append_as_leader(idempotent(9, 0, 0, 2), AppendOrigin::Client, EPOCH, NOW).unwrap_err();
    assert!(matches!(error, AppendError::Producer(_)), "{error}");
}

#[test]
fn all_five_batches_of_a_producer_are_known_after_any_restart() {
    for (crash, clean) in
        [(Crash::Process, false), (Crash::Process, true), (Crash::PowerLosingUnsynced, true)]
    {
        let fs = SimulatedFs::new();
        let dir = open_dir(&fs);
        let mut log = new_log(&dir, small_segments());
        for sequence in 0..40 {
            append(&mut log, idempotent(9, 0, sequence, 1));
            append(&mut log, batch(1, 40, 0));
        }
        let stopped = log.close_if(clean);
        drop((log, dir));
        fs.crash(crash);
        let dir = open_dir(&fs);
        let mut log = match &stopped {
            Some(stopped) => Log::cold(dir.clone(), stopped, Arc::new(small_segments())),
            None => recover(&dir, small_segments()).unwrap().0,
        };
        for sequence in 35..40 {
            let info = append(&mut log, idempotent(9, 0, sequence, 1));
            assert!(info.duplicate, "sequence {sequence} after {crash:?}, clean: {clean}");
            assert_eq!(info.base_offset, offset(sequence as u64 * 2));
        }
        assert!(!append(&mut log, idempotent(9, 0, 40, 1)).duplicate);
    }
}

#[test]
fn a_cold_log_reads_nothing_until_it_is_used() {
    let fs = SimulatedFs::new();
    let dir = open_dir(&fs);
    let mut log = new_log(&dir, small_segments());
    for tag in 0..20 {
        append(&mut log, batch(tag, 60, tag as i64));
    }
    log.update_high_watermark(offset(20));
    let stopped = log.close_if(true).unwrap();
    let offsets = log.offsets();
    drop((log, dir));
    fs.crash(Crash::PowerLosingUnsynced);
    let dir = open_dir(&fs);
    fs.inject(Fault {
        operation: Operation::Open,
        path_contains: "orders".into(),
        skip: 0,
        times: 1,
        error: std::io::ErrorKind::Other,
    });
    let log = Log::cold(dir, &stopped, Arc::new(small_segments()));
    assert_eq!(log.offsets(), offsets);
    drop(log);
    fs.crash(Crash::Process);
    let dir = open_dir(&fs);
    let mut log = Log::cold(dir, &stopped, Arc::new(small_segments()));
    assert_eq!(tags(&mut log), (0..20).collect::<Vec<_>>());
    append(&mut log, batch(20, 60, 20));
    assert_eq!(tags(&mut log), (0..21).collect::<Vec<_>>());
}

#[test]
fn a_full_disk_refuses_the_append_and_nothing_else() {
    let fs = SimulatedFs::new();
    let dir = open_dir(&fs);
    let mut log = new_log(&dir, small_segments());
    for tag in 0..30 {
        if tag % 3 == 0 {
            let fault = |operation| Fault {
                operation,
                path_contains: "orders".into(),
                skip: tag / 3 % 2,
                times: 1,
                error: std::io::ErrorKind::StorageFull,
            };
            fs.inject(fault(Operation::Write));
        }
        // Whichever write it was: after some tries all is well.
        while let Err(error) =
            log.append_as_leader(batch(tag, 60, 0), AppendOrigin::Client, EPOCH, NOW)
        {
            assert!(matches!(error, AppendError::Log(LogError::Disk(DiskError::Full { .. }))));
        }
    }
    assert_eq!(tags(&mut log), (0..30).collect::<Vec<_>>());
    drop((log, dir));
    fs.crash(Crash::Process);
    let (mut log, report) = recover(&open_dir(&fs), small_segments()).unwrap();
    assert_eq!(report.bytes_cut(), 0, "{report}");
    assert_eq!(tags(&mut log), (0..30).collect::<Vec<_>>());
}

#[test]
fn any_other_write_error_takes_the_directory_offline() {
    let fs = SimulatedFs::new();
    let dir = open_dir(&fs);
    let mut log = new_log(&dir, small_segments());
    append(&mut log, batch(0, 60, 0));
    fs.inject(Fault {
        operation: Operation::Write,
        path_contains: String::new(),
        skip: 0,
        times: 1,
        error: std::io::ErrorKind::Other,
    });
    for _ in 0..2 {
        let error =
            log.append_as_leader(batch(1, 60, 0), AppendOrigin::Client, EPOCH, NOW).unwrap_err();
        assert!(matches!(error, AppendError::Log(LogError::Disk(DiskError::Offline { .. }))));
    }
    assert!(log.flush_ticket(FlushScope::Records).is_err());
}

#[test]
fn a_failed_fsync_is_never_asked_again() {
    let fs = SimulatedFs::new();
    let dir = open_dir(&fs);
    let mut log = new_log(&dir, LogConfig { flush_messages: 1, ..small_segments() });
    assert!(append(&mut log, batch(0, 60, 0)).flush_needed);
    fs.inject(Fault {
        operation: Operation::Sync,
        path_contains: String::new(),
        skip: 0,
        times: 1,
        error: std::io::ErrorKind::StorageFull,
    });
    let ticket = log.flush_ticket(FlushScope::Records).unwrap().unwrap();
    let second = log.flush_ticket(FlushScope::Records).unwrap().unwrap();
    assert!(log.flush_completed(ticket.run()).is_err());
    assert!(log.flush_completed(second.run()).is_err(), "not even by a ticket written before");
    assert_eq!(log.offsets().durable_end, offset(0));
}

#[test]
fn one_flush_covers_what_was_appended_before_it_began() {
    let fs = SimulatedFs::new();
    let dir = open_dir(&fs);
    let mut log = new_log(&dir, LogConfig { flush_messages: 1, ..small_segments() });
    for tag in 0..30 {
        append(&mut log, batch(tag, 60, 0));
    }
    let ticket = log.flush_ticket(FlushScope::Records).unwrap().unwrap();
    append(&mut log, batch(30, 60, 0));
    let offsets = log.flush_completed(ticket.run()).unwrap();
    assert_eq!(offsets.flushed_end, offset(30));
    assert_eq!(offsets.durable_end, offset(30));
    assert_eq!(offsets.recovery_point, offset(0));
    drop((log, dir));
    fs.crash(Crash::PowerLosingUnsynced);
    let (mut log, _) = recover(&open_dir(&fs), small_segments()).unwrap();
    assert_eq!(tags(&mut log)[..30], (0..30).collect::<Vec<_>>());
}

#[test]
fn a_snapshot_that_a_roll_writes_at_the_end_of_a_running_flush_is_synced_by_the_next() {
    let fs = SimulatedFs::new();
    let dir = open_dir(&fs);
    let mut log = new_log(&dir, small_segments());
    append(&mut log, batch(0, 60, 0));
    let mut end = 1;
    let snapshot = loop {
        let ticket = log.flush_ticket(FlushScope::Everything).unwrap().unwrap();
        append(&mut log, batch(end, 60, 0));
        log.flush_completed(ticket.run()).unwrap();
        let snapshot = format!("/data/orders-3/{end:020}.snapshot");
        end += 1;
        if crate::fs::Fs::metadata(&fs, Path::new(&snapshot)).is_ok() {
            break snapshot;
        }
    };
    log.flush().unwrap();
    fs.crash(Crash::PowerLosingUnsynced);
    assert!(crate::fs::Fs::metadata(&fs, Path::new(&snapshot)).unwrap().size_bytes > 0);
}

#[test]
fn a_truncated_log_goes_on_where_it_was_cut() {
    for cut in 0..40 {
        let fs = SimulatedFs::new();
        let dir = open_dir(&fs);
        let mut log = new_log(&dir, small_segments());
        for tag in 0..40 {
            append(&mut log, batch(tag, 60, tag as i64));
        }
        log.flush().unwrap();
        log.truncate_to(offset(cut), NOW).unwrap();
        assert_eq!(log.offsets().log_end, offset(cut));
        assert!(log.offsets().recovery_point <= offset(cut));
        assert_eq!(tags(&mut log), (0..cut).collect::<Vec<_>>());
        for tag in 100..110 {
            let epoch = EPOCH.next();
            log.append_as_leader(batch(tag, 60, 7), AppendOrigin::Client, epoch, NOW).unwrap();
        }
        let expected: Vec<_> = (0..cut).chain(100..110).collect();
        assert_eq!(tags(&mut log), expected);
        drop((log, dir));
        fs.crash(Crash::Process);
        let (mut log, report) = recover(&open_dir(&fs), small_segments()).unwrap();
        assert_eq!(tags(&mut log), expected, "{report}");
        assert_eq!(log.latest_epoch(NOW).unwrap(), Some(EPOCH.next()));
    }
}

#[test]
fn a_follower_takes_gaps_but_nothing_twice() {
    let fs = SimulatedFs::new();
    let dir = open_dir(&fs);
    let mut leader = new_log(&dir, small_segments());
    for tag in 0..20 {
        append(&mut leader, batch(tag, 60, 0));
    }
    let all = read_all(&mut leader, offset(0));
    let mut follower = Log::absent(
        dir.clone(),
        TopicId::from_bytes([2; 16]),
        TopicPartition::new("copy", 0),
        Arc::new(small_segments()),
    );
    let bytes = |range: &[(Offset, Vec<u8>)]| {
        Bytes::from(range.iter().flat_map(|(_, bytes)| bytes.clone()).collect::<Vec<_>>())
    };
    follower.append_as_follower(bytes(&all[5..8]), NOW).unwrap();
    assert_eq!(follower.offsets().log_start, offset(5));
    let error = follower.append_as_follower(bytes(&all[7..9]), NOW).unwrap_err();
    assert!(matches!(error, AppendError::OffsetOutOfOrder { .. }));
    follower.append_as_follower(bytes(&all[10..20]), NOW).unwrap();
    let read = read_all(&mut follower, offset(8));
    assert_eq!(read, all[10..20], "8 is in the gap: the next batch after it");
    let mut damaged = bytes(&all[19..20]).to_vec();
    damaged[3] = 1; // base offset far away, not in the CRC
    let last = damaged.len() - 1;
    damaged[last] ^= 1;
    let error = follower.append_as_follower(damaged.into(), NOW).unwrap_err();
    assert!(matches!(error, AppendError::Corrupt { position: 0, .. }));
}

#[test]
fn timestamps_are_found_as_a_scan_finds_them() {
    let stamps: [i64; 24] =
        [5, 3, 9, 9, 1, 20, 2, 20, 21, 4, 4, 50, 6, 7, 8, 50, 51, 0, 3, 60, 2, 2, 61, 10];
    let fs = SimulatedFs::new();
    let dir = open_dir(&fs);
    let mut log = new_log(&dir, small_segments());
    for (tag, stamp) in stamps.iter().enumerate() {
        append(&mut log, batch(tag as u64, 60, *stamp));
    }
    for start in [0, 7, 23] {
        log.update_high_watermark(offset(24));
        log.delete_records(offset(start), NOW).unwrap();
        for upper in [0, 1, 5, 12, 24] {
            let visible = || {
                stamps
                    .iter()
                    .enumerate()
                    .filter(move |(at, _)| (start..upper).contains(&(*at as u64)))
            };
            let lookup = log.timestamp_lookup(offset(upper), NOW).unwrap();
            for target in 0..65 {
                let scanned = visible().find(|(_, stamp)| **stamp >= target);
                let found = lookup.first_at_or_after(time(target)).unwrap();
                assert_eq!(
                    found.map(|found| (found.offset.value(), found.timestamp.value())),
                    scanned.map(|(at, stamp)| (at as i64, *stamp)),
                    "at or after {target} in [{start}, {upper})"
                );
            }
            let largest = visible().map(|(_, stamp)| *stamp).max();
            let scanned = visible().find(|(_, stamp)| Some(**stamp) == largest);
            assert_eq!(
                lookup.max().unwrap().map(|found| (found.offset.value(), found.timestamp.value())),
                scanned.map(|(at, stamp)| (at as i64, *stamp)),
                "the largest in [{start}, {upper})"
            );
        }
    }
}

#[test]
fn retention_moves_the_log_start_and_renames_the_files() {
    let fs = SimulatedFs::new();
    let dir = open_dir(&fs);
    let config = LogConfig { retention_ms: Some(100), ..small_segments() };
    let mut log = new_log(&dir, config);
    for tag in 0..40 {
        append(&mut log, batch(tag, 60, 10 * tag as i64));
    }
    log.update_high_watermark(offset(40));
    assert_eq!(log.delete_old_segments(time(100)).unwrap(), 0);
    let gone = log.delete_old_segments(time(300)).unwrap();
    assert!(gone > 0);
    let start = log.offsets().log_start;
    assert!(start > offset(0) && start <= offset(20));
    assert_eq!(tags(&mut log), (start.value() as u64..40).collect::<Vec<_>>());
    let deleted =
        fs.read_dir_names("/data/orders-3").into_iter().filter(|n| n.ends_with(".deleted")).count();
    assert!(deleted >= gone);
    // Everything expires: an empty segment is left, and appends go on.
    log.delete_old_segments(time(100_000)).unwrap();
    assert_eq!(log.offsets().log_start, offset(40));
    assert_eq!(log.delete_old_segments(time(200_000)).unwrap(), 0);
    append(&mut log, batch(40, 60, 0));
    assert_eq!(tags(&mut log), [40]);
    drop((log, dir));
    fs.crash(Crash::Process);
    let (mut log, _) = recover(&open_dir(&fs), small_segments()).unwrap();
    assert_eq!(log.offsets().log_start, offset(40));
    assert_eq!(tags(&mut log), [40]);
}

#[test]
fn retention_that_meets_a_full_disk_half_way_tells_how_far_it_came() {
    let fs = SimulatedFs::new();
    let dir = open_dir(&fs);
    let config = LogConfig { retention_ms: Some(100), ..small_segments() };
    let mut log = new_log(&dir, config);
    for tag in 0..40 {
        append(&mut log, batch(tag, 60, 10 * tag as i64));
    }
    log.update_high_watermark(offset(40));
    let bases: Vec<Offset> =
        log.loaded().unwrap().segments.iter().map(|segment| segment.base_offset()).collect();
    fs.inject(Fault {
        operation: Operation::Rename,
        path_contains: ".log".into(),
        skip: 2,
        times: 1,
        error: std::io::ErrorKind::StorageFull,
    });
    log.delete_old_segments(time(450)).unwrap_err();
    assert_eq!(log.offsets().log_start, bases[2]);
    assert_eq!(log.size_bytes(), log.loaded().unwrap().segments.size_bytes());
    assert_eq!(tags(&mut log), (bases[2].value() as u64..40).collect::<Vec<_>>());
    assert!(log.delete_old_segments(time(450)).unwrap() > 0);
    assert!(log.offsets().log_start > bases[2]);
    assert!(dir.offline_error().is_none());
}

#[test]
fn an_idle_log_gives_back_its_memory_and_its_file() {
    let fs = SimulatedFs::new();
    let dir = open_dir(&fs);
    let mut log = new_log(&dir, small_segments());
    for tag in 0..15 {
        append(&mut log, batch(tag, 60, tag as i64));
    }
    log.release_memory().unwrap();
    dir.close_idle_files();
    dir.close_idle_files();
    assert_eq!(fs.open_files(), 3, "they wait for a sync");
    assert!(fs.dirty_and_closed().iter().all(|path| path.extension().unwrap() != "log"));
    log.flush().unwrap();
    log.release_memory().unwrap();
    dir.close_idle_files();
    dir.close_idle_files();
    assert_eq!(fs.open_files(), 0);
    assert_eq!(tags(&mut log), (0..15).collect::<Vec<_>>());
    for tag in 15..40 {
        append(&mut log, batch(tag, 60, tag as i64));
        log.release_memory().unwrap();
    }
    assert_eq!(tags(&mut log), (0..40).collect::<Vec<_>>());
    let lookup = log.timestamp_lookup(offset(40), NOW).unwrap();
    assert_eq!(lookup.first_at_or_after(time(33)).unwrap().unwrap().offset, offset(33));
}

impl Log {
    pub(crate) fn has_index_in_memory(&self) -> bool {
        let active = self.loaded().and_then(|loaded| loaded.segments.last());
        active.is_some_and(|active| active.index_in_memory().is_some())
    }

    fn close_if(&mut self, clean: bool) -> Option<crate::log_dir::StoppedLog> {
        clean.then(|| self.close(NOW).unwrap().unwrap())
    }
}

impl SimulatedFs {
    pub(crate) fn read_dir_names(&self, path: &str) -> Vec<String> {
        use crate::fs::Fs;
        self.read_dir(Path::new(path)).unwrap().into_iter().map(|entry| entry.name).collect()
    }
}

/// The last entry of a time index is written when its segment is sealed, also behind a flush that covered every record:
/// lost in a power cut, retention would take the segment for one of 1970.
#[test]
fn what_sealing_writes_is_synced_by_the_next_flush_and_by_a_clean_stop() {
    let partition_files = |fs: &SimulatedFs| -> Vec<_> {
        fs.files().into_iter().filter(|(path, _)| path.starts_with("/data/orders-3")).collect()
    };
    for rolls in [false, true] {
        let fs = SimulatedFs::new();
        let dir = open_dir(&fs);
        let mut log = new_log(&dir, LogConfig::default());
        append(&mut log, batch(1, 50, 1_000));
        log.flush().unwrap();
        if rolls {
            log.roll(NOW).unwrap();
            log.flush().unwrap();
        } else {
            log.close(NOW).unwrap();
        }
        let before = partition_files(&fs);
        let times =
            before.iter().find(|(path, _)| path.ends_with("00000000000000000000.timeindex"));
        assert_eq!(times.map(|(_, bytes)| bytes.len()), Some(12), "one entry");
        drop((log, dir));
        fs.crash(Crash::PowerLosingUnsynced);
        assert_eq!(partition_files(&fs), before, "rolls: {rolls}");
    }
}

#[test]
fn an_index_that_a_read_after_a_clean_stop_rebuilt_is_synced_by_the_next_clean_stop() {
    let fs = SimulatedFs::new();
    let dir = open_dir(&fs);
    let mut log = new_log(&dir, small_segments());
    for tag in 0..30 {
        append(&mut log, batch(tag, 60, tag as i64));
    }
    let mut stopped = log.close(NOW).unwrap().unwrap();
    drop((log, dir));
    let index = Path::new("/data/orders-3/00000000000000000000.index");
    let content = |fs: &SimulatedFs| {
        let found = fs.files().into_iter().find(|(path, _)| path == index);
        found.map(|(_, bytes)| bytes)
    };
    let before = content(&fs).unwrap();
    crate::fs::Fs::remove_file(&fs, index).unwrap();
    fs.sync_everything();
    for is_rebuilt in [true, false] {
        let dir = open_dir(&fs);
        let mut log = Log::cold(dir.clone(), &stopped, Arc::new(small_segments()));
        assert_eq!(tags(&mut log).len(), 30);
        let changes = fs.changes();
        stopped = log.close(NOW).unwrap().unwrap();
        assert_eq!(fs.changes() > changes, is_rebuilt, "only what is not synced costs something");
        drop((log, dir));
        fs.crash(Crash::PowerLosingUnsynced);
        assert_eq!(content(&fs).as_ref(), Some(&before));
    }
}

#[test]
fn a_log_may_be_deleted_while_it_is_flushed() {
    let fs = SimulatedFs::new();
    let dir = open_dir(&fs);
    let mut log = new_log(&dir, LogConfig::default());
    append(&mut log, batch(1, 50, 0));
    let ticket = log.flush_ticket(FlushScope::Everything).unwrap().unwrap();
    let path = log.mark_deleted().unwrap();
    crate::fs::Fs::rename(&fs, &path, Path::new("/data/orders-3.1-delete")).unwrap();
    log.flush_completed(ticket.run()).unwrap();
    assert!(dir.offline_error().is_none());
}

/// What a full disk took and gave back is synced at once, but for the file cache it waits until a flush has seen to it.
#[test]
fn a_file_whose_only_append_met_a_full_disk_is_closed_after_the_next_flush() {
    let fs = SimulatedFs::new();
    let dir = open_dir(&fs);
    let mut log = new_log(&dir, LogConfig::default());
    append(&mut log, batch(0, 50, 0));
    log.flush().unwrap();
    fs.inject(Fault {
        operation: Operation::Write,
        path_contains: ".log".into(),
        skip: 0,
        times: 1,
        error: std::io::ErrorKind::StorageFull,
    });
    log.append_as_leader(batch(1, 50, 0), AppendOrigin::Client, EPOCH, NOW).unwrap_err();
    log.flush().unwrap();
    dir.close_idle_files();
    dir.close_idle_files();
    assert_eq!(fs.open_files(), 0);
}

/// A reader must not leave a handle behind that the next append cannot write through.
#[test]
fn a_log_whose_file_was_closed_takes_an_append_after_a_read() {
    let fs = SimulatedFs::new();
    let dir = open_dir(&fs);
    let mut log = new_log(&dir, LogConfig::default());
    append(&mut log, batch(1, 50, 0));
    log.flush().unwrap();
    dir.close_idle_files();
    dir.close_idle_files();
    assert_eq!(fs.open_files(), 0);
    assert_eq!(tags(&mut log), [1]);
    append(&mut log, batch(2, 50, 0));
    assert_eq!(tags(&mut log), [1, 2]);
}

#[test]
fn a_cold_log_tells_the_epoch_of_what_is_to_be_written_without_being_read() {
    for records in [0, 5] {
        let fs = SimulatedFs::new();
        let dir = open_dir(&fs);
        let mut log = new_log(&dir, small_segments());
        for tag in 0..5 {
            append(&mut log, batch(tag, 60, 0));
        }
        log.update_high_watermark(log.log_end);
        log.delete_records(offset(5 - records), NOW).unwrap();
        let stopped = log.close(NOW).unwrap().unwrap();
        drop((log, dir));
        let mut log = Log::cold(open_dir(&fs), &stopped, Arc::new(small_segments()));
        let log_start = log.offsets().log_start;
        assert!(!log.knows_epoch_for(log_start));
        log.assign_epoch_start(EPOCH.next());
        assert_eq!(log.knows_epoch_for(log_start), records == 0);
        let epoch = log.epoch_for_offset(log_start, NOW).unwrap();
        assert_eq!(log.is_cold(), records == 0);
        assert!(log.knows_epoch_for(log_start));
        // The same as when it is read.
        assert_eq!(epoch, Some(if records == 0 { EPOCH.next() } else { EPOCH }));
        log.leader_epochs(NOW).unwrap();
        assert_eq!(log.epoch_for_offset(log_start, NOW).unwrap(), epoch);
    }
}

#[test]
fn a_cold_log_takes_an_append_after_a_read() {
    let fs = SimulatedFs::new();
    let dir = open_dir(&fs);
    let mut log = new_log(&dir, small_segments());
    for tag in 0..15 {
        append(&mut log, batch(tag, 60, tag as i64));
    }
    let stopped = log.close(NOW).unwrap().unwrap();
    drop((log, dir));
    let dir = open_dir(&fs);
    let mut log = Log::cold(dir, &stopped, Arc::new(small_segments()));
    assert_eq!(tags(&mut log), (0..15).collect::<Vec<_>>());
    append(&mut log, batch(15, 60, 15));
    assert_eq!(tags(&mut log), (0..16).collect::<Vec<_>>());
}

#[test]
fn an_idle_log_is_small() {
    // Of an idle partition: this, its name twice, and a segment. The next issue wants 4 KiB in all.
    assert!(size_of::<Log>() + size_of::<Loaded>() <= 1024);
}

#[test]
fn a_read_planned_before_a_truncation_never_sees_what_came_after() {
    for close_files in [false, true] {
        let fs = SimulatedFs::new();
        let dir = open_dir(&fs);
        let mut log = new_log(&dir, small_segments());
        for tag in 0..5 {
            append(&mut log, batch(tag, 60, 0));
        }
        if close_files {
            log.flush().unwrap();
            log.release_memory().unwrap();
            dir.close_idle_files();
            dir.close_idle_files();
        }
        let plan = log.read_plan(offset(0), offset(5), NOW).unwrap();
        log.truncate_fully_and_start_at(offset(0), NOW).unwrap();
        append(&mut log, batch(9, 200, 0));
        assert!(matches!(plan.execute(1000, true), Err(ReadError::Superseded)));
        assert_eq!(tags(&mut log), [9]);
    }
}

/// A power cut may bring the names of deleted segments back until their directory is synced; what was deleted must stay so.
#[test]
fn the_log_start_is_checkpointed_until_the_deleted_segments_names_have_gone_for_good() {
    let dir = open_dir(&SimulatedFs::new());
    let mut log = new_log(&dir, small_segments());
    for tag in 0..30 {
        append(&mut log, batch(tag, 60, 0));
    }
    log.flush().unwrap();
    log.update_high_watermark(log.log_end);
    let start = log.loaded().unwrap().segments.iter().nth(1).unwrap().base_offset();
    log.delete_records(start, NOW).unwrap();
    assert_eq!(log.log_start_to_checkpoint(), Some(start), "a segment below it is there");
    assert_eq!(log.delete_old_segments(NOW).unwrap(), 1);
    assert_eq!(log.log_start_to_checkpoint(), Some(start), "and may come back");
    log.flush().unwrap();
    assert_eq!(log.log_start_to_checkpoint(), None);
}

#[test]
fn a_lookup_by_time_decompresses_no_further_than_to_the_record_it_finds() {
    let mut builder = RecordBatchBuilder::new().compression(Compression::Gzip, None);
    for at in 0..100 {
        builder = builder.record(Timestamp::new(at), None, Some(&[b'x'; 1000]), &[]);
    }
    let mut bytes = builder.build().unwrap();
    // The end of its block is wrong, which only who comes to it can know.
    *bytes.last_mut().unwrap() ^= 1;
    let crc = crate::crc32c::crc32c(&bytes[21..]);
    bytes[17..21].copy_from_slice(&crc.to_be_bytes());
    let bytes = Bytes::from(bytes);
    let header = BatchHeader::parse(&bytes).unwrap();
    let body = bytes.slice(HEADER_SIZE_BYTES..);
    let dir = open_dir(&SimulatedFs::new());
    let mut log = new_log(&dir, LogConfig::default());
    append(&mut log, ValidatedBatch { header, body, log_append_time: None });
    let lookup = log.timestamp_lookup(offset(100), NOW).unwrap();
    assert_eq!(lookup.first_at_or_after(time(7)).unwrap().unwrap().offset, offset(7));
}
