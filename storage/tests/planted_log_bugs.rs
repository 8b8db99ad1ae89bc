//! Bugs planted on purpose (DESIGN D13), to see that what the tests look at would show them. Each test runs
//! the same checks twice: they pass, and fail with the bug.
#![cfg(feature = "failpoints")]
#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use fail::FailScenario;
use storage::flush::FlushScope;
use storage::fs::simulated::{Crash, SimulatedFs};
use storage::instant::Instant;
use storage::leader_epoch::LeaderEpoch;
use storage::log::LogConfig;
use storage::log_dir::{LogDir, MetaProperties};
use storage::log_manager::{KnownPartition, LogManager, LogManagerConfig, SharedLog};
use storage::log_validator::{AppendOrigin, ValidationConfig, validate};
use storage::offset::Offset;
use storage::producer_state::{ProducerEpoch, ProducerId};
use storage::record_batch::{RecordBatchBuilder, batches};
use storage::timestamp::Timestamp;
use storage::topic_partition::{TopicId, TopicPartition};

const NOW: Timestamp = Timestamp::ZERO;

fn config() -> Arc<LogConfig> {
    Arc::new(LogConfig { segment_bytes: 600, flush_messages: 1, ..LogConfig::default() })
}

fn open(fs: &SimulatedFs) -> (LogManager, SharedLog) {
    let id = TopicId::from_bytes([1; 16]);
    let meta =
        MetaProperties { node_id: 1, cluster_id: None, directory_id: TopicId::from_bytes([7; 16]) };
    let dir = LogDir::open(Arc::new(fs.clone()), Path::new("/data"), &meta).unwrap();
    let name = TopicPartition::new("t", 0);
    let known = |_: TopicId, _: i32| {
        Some(KnownPartition { topic_partition: TopicPartition::new("t", 0), config: config() })
    };
    let (manager, _) =
        LogManager::open(dir, LogManagerConfig::default(), &known, NOW, Instant::ZERO).unwrap();
    let log = manager.get_or_create(id, &name, config()).unwrap();
    (manager, log)
}

fn append(log: &SharedLog, sequence: i32) -> bool {
    let (id, epoch) = (ProducerId::new(4).unwrap(), ProducerEpoch::new(0).unwrap());
    let batch = RecordBatchBuilder::new()
        .producer(id, epoch, Some(sequence))
        .record(Some(NOW), None, Some(&[7; 100]), &[])
        .build()
        .unwrap();
    let config = ValidationConfig { after_max_ms: i64::MAX, ..ValidationConfig::default() };
    let batch = validate(&Bytes::from(batch), &config, NOW).unwrap();
    let mut log = log.lock().unwrap();
    let info = log.append_as_leader(batch, AppendOrigin::Client, LeaderEpoch::ZERO, NOW);
    info.is_ok_and(|info| !info.duplicate)
}

/// Whether every batch up to the log end can be read and is whole.
fn reads_whole(log: &SharedLog) -> bool {
    let mut log = log.lock().unwrap();
    let (mut next, end) = (log.offsets().log_start, log.offsets().log_end);
    while next < end {
        let Ok(found) = log.read_plan(next, end, NOW).unwrap().execute(1, true) else {
            return false;
        };
        let bytes = found.read().unwrap();
        match batches(&bytes).next() {
            Some(Ok(batch)) if batch.verify_crc().is_ok() => next = batch.next_offset(),
            _ => return false,
        }
    }
    true
}

fn passes_only_without(bug: &str, check: impl Fn() -> bool) {
    let scenario = FailScenario::setup();
    assert!(check(), "without the bug");
    fail::cfg(bug, "return").unwrap();
    assert!(!check(), "{bug} is not seen");
    scenario.teardown();
}

#[test]
fn an_ack_before_the_fsync_is_seen_in_a_power_cut() {
    passes_only_without("bug-2-ack-before-fsync", || {
        let fs = SimulatedFs::new();
        let (manager, log) = open(&fs);
        append(&log, 0);
        let ticket = log.lock().unwrap().flush_ticket(FlushScope::Records).unwrap().unwrap();
        append(&log, 1);
        let acknowledged = log.lock().unwrap().flush_completed(ticket.run()).unwrap().durable_end;
        append(&log, 2);
        let acknowledged = acknowledged.max(log.lock().unwrap().offsets().durable_end);
        drop((manager, log));
        fs.crash(Crash::PowerLosingUnsynced);
        let (_manager, log) = open(&fs);
        let end = log.lock().unwrap().offsets().log_end;
        end >= acknowledged
    });
}

#[test]
fn a_window_lost_on_restart_is_seen_by_a_retry() {
    passes_only_without("bug-7-duplicate-window-lost-on-restart", || {
        let fs = SimulatedFs::new();
        let (manager, log) = open(&fs);
        for sequence in 0..3 {
            append(&log, sequence);
        }
        drop(log);
        manager.close(None, NOW).unwrap();
        drop(manager);
        fs.crash(Crash::Process);
        let (_manager, log) = open(&fs);
        !append(&log, 2)
    });
}

#[test]
fn a_window_lost_on_a_roll_is_seen_by_a_retry() {
    passes_only_without("bug-8-duplicate-window-lost-on-roll", || {
        let fs = SimulatedFs::new();
        let (_manager, log) = open(&fs);
        for sequence in 0..3 {
            append(&log, sequence);
        }
        log.lock().unwrap().roll(NOW).unwrap();
        !append(&log, 2)
    });
}

#[test]
fn a_torn_batch_that_recovery_keeps_is_seen_by_reading() {
    passes_only_without("bug-24-recovery-keeps-torn-batch", || {
        let fs = SimulatedFs::new();
        let (manager, log) = open(&fs);
        append(&log, 0);
        fs.stop_after_bytes(100);
        assert!(!append(&log, 1));
        drop((manager, log));
        fs.crash(Crash::Process);
        let (_manager, log) = open(&fs);
        reads_whole(&log)
    });
}

#[test]
fn retention_above_the_high_watermark_is_seen_in_the_log_start() {
    passes_only_without("bug-25-retention-above-high-watermark", || {
        let fs = SimulatedFs::new();
        let (_manager, log) = open(&fs);
        for sequence in 0..12 {
            append(&log, sequence);
        }
        let mut log = log.lock().unwrap();
        let high_watermark = Offset::ZERO.plus(2);
        log.update_high_watermark(high_watermark);
        let hungry = LogConfig { retention_bytes: Some(0), ..(*config()).clone() };
        log.set_config(Arc::new(hungry));
        log.delete_old_segments(NOW).unwrap();
        log.offsets().log_start <= high_watermark
    });
}
