//! Tests of a whole log directory on the simulated disk.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use super::*;
use crate::flush::FlushScope;
use crate::fs::simulated::{Crash, Fault, Operation, SimulatedFs};
use crate::fs::{Fs, OpenMode};
use crate::log::ReadError;
use crate::log::tests::{EPOCH, NOW, append, batch, idempotent, offset, read_all, time};
use crate::log_dir::MetaProperties;
use crate::log_validator::AppendOrigin;
use crate::offset::Offset;

mod crashes;
mod model;

pub(super) fn topic(id: u8) -> TopicId {
    TopicId::from_bytes([id; 16])
}

pub(super) fn small() -> LogConfig {
    LogConfig { segment_bytes: 1000, index_interval_bytes: 100, ..LogConfig::default() }
}

/// Topics `t1` … by id, as the metadata has them.
pub(super) fn open(
    fs: &SimulatedFs,
    topics: &[u8],
    config: &LogConfig,
    at: Instant,
) -> Result<(LogManager, StartReport), String> {
    let meta =
        MetaProperties { node_id: 1, cluster_id: None, directory_id: TopicId::from_bytes([7; 16]) };
    let dir = LogDir::open(Arc::new(fs.clone()), Path::new("/data"), &meta)
        .map_err(|error| error.to_string())?;
    let config = Arc::new(config.clone());
    let known = |id: TopicId, partition: i32| {
        let topic = topics.iter().find(|topic| id == self::topic(**topic))?;
        let topic_partition = TopicPartition::new(format!("t{topic}"), partition);
        Some(KnownPartition { topic_partition, config: config.clone() })
    };
    let settings = LogManagerConfig { recovery_threads: 1, ..LogManagerConfig::default() };
    LogManager::open(dir, settings, &known, NOW, at).map_err(|error| error.to_string())
}

pub(super) fn log_of(manager: &LogManager, id: u8, config: &LogConfig) -> SharedLog {
    let name = TopicPartition::new(format!("t{id}"), 0);
    manager.get_or_create(topic(id), &name, Arc::new(config.clone())).unwrap()
}

fn values(log: &SharedLog) -> Vec<(Offset, Vec<u8>)> {
    let mut log = lock(log);
    let start = log.offsets().log_start;
    read_all(&mut log, start)
}

#[test]
fn a_clean_stop_is_opened_without_reading_a_log() {
    let fs = SimulatedFs::new();
    let (manager, report) = open(&fs, &[], &small(), Instant::ZERO).unwrap();
    assert!(!report.clean);
    for id in 1..4 {
        let log = log_of(&manager, id, &small());
        for tag in 0..20 {
            append(&mut lock(&log), batch(tag, 60, 1));
        }
        lock(&log).update_high_watermark(offset(15));
    }
    let before: Vec<_> = (1..4).map(|id| values(&log_of(&manager, id, &small()))).collect();
    manager.close(Some(9), NOW).unwrap();
    drop(manager);
    fs.crash(Crash::PowerLosingUnsynced);
    for _ in 0..2 {
        let (manager, report) = open(&fs, &[1, 2, 3], &small(), Instant::ZERO).unwrap();
        assert!(report.clean);
        assert_eq!((report.broker_epoch, report.cold), (Some(9), 3));
        assert_eq!(fs.open_files(), 0);
        let log = log_of(&manager, 2, &small());
        assert_eq!(lock(&log).offsets().high_watermark, offset(15));
        assert_eq!(lock(&log).offsets().log_end, offset(20));
        let changes = fs.changes();
        let found: Vec<_> = (1..4).map(|id| values(&log_of(&manager, id, &small()))).collect();
        assert_eq!(found, before);
        // Read only: idle, they are as they were before; and retention does not read them.
        assert!(!lock(&log).is_cold());
        for _ in 0..3 {
            run_all(&manager, Instant::ZERO);
            manager.run(Task::CloseIdleFiles, NOW);
        }
        manager.run(Task::Retention, NOW);
        for (_, log) in manager.logs() {
            assert!(lock(&log).is_cold());
        }
        assert_eq!(fs.open_files(), 0);
        let again: Vec<_> = (1..4).map(|id| values(&log_of(&manager, id, &small()))).collect();
        assert_eq!(again, before);
        manager.close(Some(9), NOW).unwrap();
        assert!(fs.changes() - changes < 20, "logs that did not change cost nothing to close");
        drop((manager, log));
        fs.crash(Crash::PowerLosingUnsynced);
    }
}

#[test]
fn directories_are_matched_by_topic_id_not_by_name() {
    let fs = SimulatedFs::new();
    let (manager, _) = open(&fs, &[], &small(), Instant::ZERO).unwrap();
    let log = log_of(&manager, 1, &small());
    append(&mut lock(&log), batch(0, 60, 0));
    drop((manager, log));
    fs.crash(Crash::Process);
    // The topic `t1` was deleted and created again meanwhile: another id, the same name.
    let meta =
        MetaProperties { node_id: 1, cluster_id: None, directory_id: TopicId::from_bytes([7; 16]) };
    let dir = LogDir::open(Arc::new(fs.clone()), Path::new("/data"), &meta).unwrap();
    let known = |id: TopicId, partition| {
        (id == topic(9)).then(|| KnownPartition {
            topic_partition: TopicPartition::new("t1", partition),
            config: Arc::new(small()),
        })
    };
    let (manager, report) =
        LogManager::open(dir, LogManagerConfig::default(), &known, NOW, Instant::ZERO).unwrap();
    assert_eq!(report.strays.len(), 1);
    assert!(manager.logs().is_empty());
    let name = TopicPartition::new("t1", 0);
    let log = manager.get_or_create(topic(9), &name, Arc::new(small())).unwrap();
    assert_eq!(append(&mut lock(&log), batch(0, 60, 0)).base_offset, offset(0));
}

#[test]
fn a_deleted_topics_directory_is_renamed_now_and_removed_later() {
    let fs = SimulatedFs::new();
    let (manager, _) = open(&fs, &[], &small(), Instant::ZERO).unwrap();
    let log = log_of(&manager, 1, &small());
    append(&mut lock(&log), batch(0, 60, 0));
    let plan = lock(&log).read_plan(offset(0), offset(1), NOW).unwrap();
    manager.delete(topic(1), 0).unwrap();
    assert!(manager.get(topic(1), 0).is_none());
    assert!(lock(&log).read_plan(offset(0), offset(1), NOW).is_err());
    let error =
        lock(&log).append_as_leader(batch(1, 60, 0), AppendOrigin::Client, EPOCH, NOW).unwrap_err();
    assert!(error.to_string().contains("deleted"), "{error}");
    // A read that had begun must plan again: the names may be another topic's by now.
    assert!(matches!(plan.execute(100, true), Err(ReadError::Superseded)));
    // A topic of the same name begins at once, and the old one's removal does not touch it.
    let name = TopicPartition::new("t1", 0);
    let again = manager.get_or_create(topic(2), &name, Arc::new(small())).unwrap();
    append(&mut lock(&again), batch(7, 60, 0));
    let directories = || {
        let names = fs.read_dir_names("/data");
        names.into_iter().filter(|name| name.starts_with("t1-0")).collect::<Vec<_>>()
    };
    assert_eq!(directories().len(), 2);
    let at = Instant::ZERO.plus(Duration::from_secs(10));
    assert_eq!(run_all(&manager, at), 0);
    assert_eq!(directories().len(), 2);
    let later = at.plus(Duration::from_secs(61));
    assert!(manager.next_due() <= later);
    run_all(&manager, later);
    assert_eq!(directories(), ["t1-0"]);
    assert_eq!(values(&again).len(), 1);
}

#[test]
fn a_deletion_that_meets_a_full_disk_is_tried_again_and_then_its_name_is_free() {
    let fs = SimulatedFs::new();
    let (manager, _) = open(&fs, &[], &small(), Instant::ZERO).unwrap();
    append(&mut lock(&log_of(&manager, 1, &small())), batch(0, 60, 0));
    fs.inject(Fault {
        operation: Operation::Rename,
        path_contains: "t1-0".into(),
        skip: 0,
        times: 2,
        error: std::io::ErrorKind::StorageFull,
    });
    assert!(matches!(manager.delete(topic(1), 0), Err(DiskError::Full { .. })));
    let name = TopicPartition::new("t1", 0);
    let again = manager.get_or_create(topic(2), &name, Arc::new(small())).unwrap();
    let append_to_it =
        || lock(&again).append_as_leader(batch(7, 60, 0), AppendOrigin::Client, EPOCH, NOW);
    append_to_it().expect_err("the name is taken");
    let round = |round: u64| Instant::ZERO.plus(Duration::from_secs(31 * round));
    let tasks = manager.due(round(1));
    let errors = tasks.into_iter().flat_map(|task| manager.run(task, NOW).errors).count();
    assert_eq!(errors, 1);
    append_to_it().expect_err("it is taken still");
    run_all(&manager, round(2));
    append_to_it().unwrap();
    run_all(&manager, round(3));
    run_all(&manager, round(10));
    let names = fs.read_dir_names("/data");
    assert_eq!(names.iter().filter(|name| name.starts_with("t1-0")).count(), 1);
    assert_eq!(values(&again).len(), 1);
}

#[test]
fn a_clean_stop_leaves_no_deleted_segment_that_no_start_would_find() {
    let fs = SimulatedFs::new();
    let config = LogConfig { retention_bytes: Some(1000), ..small() };
    let (manager, _) = open(&fs, &[], &config, Instant::ZERO).unwrap();
    let log = log_of(&manager, 1, &config);
    for tag in 0..40 {
        append(&mut lock(&log), batch(tag, 60, 1));
    }
    lock(&log).update_high_watermark(offset(40));
    manager.run(Task::Retention, NOW);
    let deleted = || {
        let names = fs.read_dir_names("/data/t1-0");
        names.into_iter().filter(|name| name.ends_with(".deleted")).count()
    };
    assert!(deleted() > 2);
    manager.close(None, NOW).unwrap();
    assert_eq!(deleted(), 0);
}

#[test]
fn what_recovery_kept_is_synced_soon_though_nobody_uses_it() {
    let fs = SimulatedFs::new();
    let (manager, _) = open(&fs, &[], &small(), Instant::ZERO).unwrap();
    append(&mut lock(&log_of(&manager, 1, &small())), batch(0, 60, 0));
    drop(manager);
    fs.crash(Crash::Process);
    let (manager, report) = open(&fs, &[1], &small(), Instant::ZERO).unwrap();
    assert_eq!(report.recovered.len(), 1);
    run_all(&manager, Instant::ZERO);
    assert_eq!(lock(&log_of(&manager, 1, &small())).offsets().recovery_point, offset(1));
}

#[test]
fn what_began_before_a_topic_was_deleted_does_not_touch_the_next_one_of_its_name() {
    for is_created_again in [false, true] {
        let fs = SimulatedFs::new();
        let (manager, _) = open(&fs, &[], &small(), Instant::ZERO).unwrap();
        let log = log_of(&manager, 1, &small());
        append(&mut lock(&log), batch(0, 60, 0));
        let tickets = [FlushScope::Records, FlushScope::Everything]
            .map(|scope| lock(&log).flush_ticket(scope).unwrap().unwrap());
        lock(&log).release_memory().unwrap(); // so that the read opens its file by name
        let plan = lock(&log).read_plan(offset(0), offset(1), NOW).unwrap();
        manager.delete(topic(1), 0).unwrap();
        let name = TopicPartition::new("t1", 0);
        let again = manager.get_or_create(topic(2), &name, Arc::new(small())).unwrap();
        if is_created_again {
            append(&mut lock(&again), batch(7, 60, 0));
        }
        let before = fs.files();
        for ticket in tickets {
            let outcome = ticket.run();
            lock(&log).flush_completed(outcome).unwrap();
        }
        assert!(matches!(plan.execute(100, true), Err(ReadError::Superseded)));
        assert_eq!(fs.files(), before);
        manager.dir().check_online().unwrap();
        append(&mut lock(&again), batch(8, 60, 0));
        lock(&again).flush().unwrap();
    }
}

/// Runs all that is due. Returns how many removals there were.
pub(super) fn run_all(manager: &LogManager, at: Instant) -> usize {
    let tasks = manager.due(at);
    let removals = tasks.iter().filter(|task| matches!(task, Task::Remove(_))).count();
    for task in tasks {
        let outcome = manager.run(task, NOW);
        assert!(outcome.errors.is_empty(), "{:?}", outcome.errors);
    }
    removals
}

#[test]
fn an_earlier_topics_checkpoints_are_not_believed_of_a_new_one() {
    let fs = SimulatedFs::new();
    let (manager, _) = open(&fs, &[], &small(), Instant::ZERO).unwrap();
    let log = log_of(&manager, 1, &small());
    for tag in 0..30 {
        append(&mut lock(&log), batch(tag, 60, 0));
    }
    lock(&log).update_high_watermark(offset(30));
    lock(&log).delete_records(offset(25), NOW).unwrap();
    lock(&log).flush().unwrap();
    manager.write_checkpoints().unwrap();
    manager.delete(topic(1), 0).unwrap();
    let name = TopicPartition::new("t1", 0);
    let again = manager.get_or_create(topic(2), &name, Arc::new(small())).unwrap();
    append(&mut lock(&again), batch(7, 60, 0));
    let before = values(&again);
    drop((manager, log, again));
    fs.crash(Crash::Process);
    let meta =
        MetaProperties { node_id: 1, cluster_id: None, directory_id: TopicId::from_bytes([7; 16]) };
    let dir = LogDir::open(Arc::new(fs.clone()), Path::new("/data"), &meta).unwrap();
    let known = |id: TopicId, _| {
        (id == topic(2))
            .then(|| KnownPartition { topic_partition: name.clone(), config: Arc::new(small()) })
    };
    let (manager, report) =
        LogManager::open(dir, LogManagerConfig::default(), &known, NOW, Instant::ZERO).unwrap();
    assert!(report.offline.is_empty(), "{report:?}");
    let log = manager.get(topic(2), 0).unwrap();
    assert_eq!(values(&log), before);
    assert_eq!(lock(&log).offsets().log_start, offset(0));
    assert_eq!(lock(&log).offsets().high_watermark, offset(0));
}

#[test]
fn damage_to_one_log_leaves_the_others_alone() {
    let fs = SimulatedFs::new();
    let (manager, _) = open(&fs, &[], &small(), Instant::ZERO).unwrap();
    for id in 1..3 {
        let log = log_of(&manager, id, &small());
        for tag in 0..5 {
            append(&mut lock(&log), batch(tag, 60, 0));
        }
        lock(&log).flush().unwrap();
    }
    manager.write_checkpoints().unwrap();
    drop(manager);
    fs.crash(Crash::Process);
    let path = Path::new("/data/t1-0/00000000000000000000.log");
    fs.open(path, OpenMode::Write).unwrap().set_size(100).unwrap();
    let (manager, report) = open(&fs, &[1, 2], &small(), Instant::ZERO).unwrap();
    assert_eq!(report.offline.len(), 1);
    assert!(report.offline[0].reason.contains("recovery point"), "{report:?}");
    let name = TopicPartition::new("t1", 0);
    let error = manager.get_or_create(topic(1), &name, Arc::new(small())).unwrap_err();
    assert!(matches!(error, LogError::Damaged { .. }));
    assert_eq!(values(&manager.get(topic(2), 0).unwrap()).len(), 5);
    run_all(&manager, Instant::ZERO.plus(Duration::from_secs(1000)));
    assert!(manager.close(None, NOW).is_err(), "the next start is not a clean one");
    assert!(manager.dir().offline_error().is_none());
}

#[test]
fn recovery_points_follow_so_that_little_is_read_again() {
    let fs = SimulatedFs::new();
    let (mut manager, _) = open(&fs, &[], &small(), Instant::ZERO).unwrap();
    manager.config.max_unflushed_bytes = 4000;
    let wakes = Arc::new(Mutex::new(0));
    let counter = wakes.clone();
    manager.dir().set_work_listener(move || *counter.lock().unwrap() += 1);
    let mut at = Instant::ZERO;
    for tag in 0..200 {
        let log = log_of(&manager, (tag % 3 + 1) as u8, &small());
        append(&mut lock(&log), batch(tag, 60, 1));
        at = at.plus(Duration::from_millis(1));
        run_all(&manager, at);
        assert!(manager.dir().unflushed_bytes() <= 4000);
    }
    assert!(*wakes.lock().unwrap() > 0);
    manager.write_checkpoints().unwrap();
    drop(manager);
    fs.crash(Crash::Process);
    let (_, report) = open(&fs, &[1, 2, 3], &small(), Instant::ZERO).unwrap();
    let read: u64 = report.recovered.iter().map(|report| report.bytes_read).sum();
    assert!(read <= 4000 + 3 * 300, "{report:?}");
}

#[test]
fn flush_ms_bounds_how_long_a_record_is_not_synced() {
    let config = LogConfig { flush_ms: Some(50), ..small() };
    let fs = SimulatedFs::new();
    let (manager, _) = open(&fs, &[], &config, Instant::ZERO).unwrap();
    let log = log_of(&manager, 1, &config);
    let at = |ms| Instant::ZERO.plus(Duration::from_millis(ms));
    append(&mut lock(&log), batch(0, 60, 0));
    run_all(&manager, at(10));
    assert_eq!(lock(&log).offsets().flushed_end, offset(0));
    assert_eq!(manager.next_due(), at(60));
    run_all(&manager, at(60));
    assert_eq!(lock(&log).offsets().flushed_end, offset(1));
}

#[test]
fn lowering_flush_ms_holds_for_what_is_dirty_already() {
    let hours = LogConfig { flush_ms: Some(3_600_000), ..small() };
    let fs = SimulatedFs::new();
    let (manager, _) = open(&fs, &[], &hours, Instant::ZERO).unwrap();
    let log = log_of(&manager, 1, &hours);
    let at = |ms| Instant::ZERO.plus(Duration::from_millis(ms));
    append(&mut lock(&log), batch(0, 60, 0));
    run_all(&manager, at(10));
    lock(&log).set_config(Arc::new(LogConfig { flush_ms: Some(50), ..small() }));
    run_all(&manager, at(20));
    assert_eq!(manager.next_due(), at(70));
    run_all(&manager, at(70));
    assert_eq!(lock(&log).offsets().flushed_end, offset(1));
}

#[test]
fn an_idle_partition_keeps_no_file_open_and_wants_no_work() {
    let fs = SimulatedFs::new();
    let (manager, _) = open(&fs, &[], &small(), Instant::ZERO).unwrap();
    for id in 1..50 {
        append(&mut lock(&log_of(&manager, id, &small())), batch(0, 60, 0));
    }
    assert!(fs.open_files() >= 49);
    let mut at = Instant::ZERO;
    for _ in 0..4 {
        at = at.plus(Duration::from_secs(31));
        run_all(&manager, at);
    }
    assert_eq!(fs.open_files(), 0);
    for id in 1..50 {
        let log = log_of(&manager, id, &small());
        lock(&log).flush().unwrap();
    }
    run_all(&manager, at.plus(Duration::from_secs(400)));
    let changes = fs.changes();
    run_all(&manager, at.plus(Duration::from_secs(800)));
    assert_eq!(fs.changes(), changes, "nothing changed, nothing is written");
}

#[test]
fn a_write_back_that_fails_behind_an_idle_log_is_not_missed() {
    for idle_rounds in 0..4 {
        let fs = SimulatedFs::new();
        let (manager, _) = open(&fs, &[], &small(), Instant::ZERO).unwrap();
        let log = log_of(&manager, 1, &small());
        append(&mut lock(&log), batch(0, 60, 0));
        let reads_only = lock(&log).read_plan(offset(0), offset(1), NOW).unwrap();
        for round in 0..idle_rounds {
            run_all(&manager, Instant::ZERO.plus(Duration::from_secs(31 * (round + 1))));
        }
        assert!(reads_only.execute(100, true).is_ok());
        let is_closed = fs.open_files() == 0;
        assert_eq!(is_closed, idle_rounds >= 2, "after {idle_rounds} rounds");
        fs.fail_write_back(".log");
        let flushed = lock(&log).flush();
        match is_closed {
            true => assert_eq!(values(&log).len(), 1, "flushed before it was closed"),
            false => assert!(flushed.is_err(), "who has it open is told"),
        }
    }
}

#[test]
fn a_log_that_falls_idle_on_a_full_disk_is_flushed_when_there_is_room() {
    let fs = SimulatedFs::new();
    let (manager, _) = open(&fs, &[], &small(), Instant::ZERO).unwrap();
    let log = log_of(&manager, 1, &small());
    append(&mut lock(&log), batch(0, 60, 0));
    let idle = |round: u64| {
        let tasks = manager.due(Instant::ZERO.plus(Duration::from_secs(31 * round)));
        assert!(tasks.contains(&Task::CloseIdleFiles));
        manager.run(Task::CloseIdleFiles, NOW)
    };
    assert!(idle(1).errors.is_empty());
    fs.inject(Fault {
        operation: Operation::Write,
        path_contains: "leader-epoch".into(),
        skip: 0,
        times: 1,
        error: std::io::ErrorKind::StorageFull,
    });
    assert_eq!(idle(2).errors.len(), 1);
    assert_eq!(lock(&log).offsets().recovery_point, offset(0));
    let outcome = idle(3);
    assert_eq!(outcome.moved.len(), 1, "to be published");
    assert_eq!(lock(&log).offsets().recovery_point, offset(1));
    assert!(idle(4).moved.is_empty(), "once");
    assert_eq!(fs.open_files(), 0);
}

#[test]
fn a_clean_stop_syncs_of_a_log_that_fell_idle_before_what_it_writes_itself() {
    let fs = SimulatedFs::new();
    let (manager, _) = open(&fs, &[], &small(), Instant::ZERO).unwrap();
    let log = log_of(&manager, 1, &small());
    append(&mut lock(&log), batch(0, 60, 5));
    for round in 0..3 {
        run_all(&manager, Instant::ZERO.plus(Duration::from_secs(31 * round)));
    }
    assert_eq!(lock(&log).offsets().recovery_point, offset(1));
    let syncs = fs.syncs();
    lock(&log).close(NOW).unwrap();
    assert_eq!(fs.syncs() - syncs, 2, "the last entry of the time index, and the names");
}

#[test]
fn a_recovered_log_that_nobody_uses_gives_its_index_back() {
    let fs = SimulatedFs::new();
    let (manager, _) = open(&fs, &[], &small(), Instant::ZERO).unwrap();
    append(&mut lock(&log_of(&manager, 1, &small())), batch(0, 60, 0));
    drop(manager);
    fs.crash(Crash::Process);
    let (manager, _) = open(&fs, &[1], &small(), Instant::ZERO).unwrap();
    let log = manager.get(topic(1), 0).unwrap();
    assert!(lock(&log).has_index_in_memory());
    for _ in 0..2 {
        manager.due(Instant::ZERO); // takes note of what is in use
        manager.run(Task::CloseIdleFiles, NOW);
    }
    assert!(!lock(&log).has_index_in_memory());
    assert_eq!(values(&log).len(), 1);
}

#[test]
fn a_second_manager_on_the_same_directory_is_refused() {
    let fs = SimulatedFs::new();
    let (_manager, _) = open(&fs, &[], &small(), Instant::ZERO).unwrap();
    let error = open(&fs, &[], &small(), Instant::ZERO).unwrap_err();
    assert!(error.contains("locked"), "{error}");
}

#[test]
fn the_same_directory_is_recovered_the_same_with_one_thread_or_four() {
    let fs = SimulatedFs::new();
    let (manager, _) = open(&fs, &[], &small(), Instant::ZERO).unwrap();
    let topics: Vec<u8> = (1..30).collect();
    for id in &topics {
        for tag in 0..u64::from(*id) {
            append(&mut lock(&log_of(&manager, *id, &small())), batch(tag, 60, 0));
        }
    }
    drop(manager);
    fs.crash(Crash::Process);
    let mut reports = Vec::new();
    for threads in [1, 4] {
        let fs = fs.fork();
        let meta = MetaProperties {
            node_id: 1,
            cluster_id: None,
            directory_id: TopicId::from_bytes([7; 16]),
        };
        let dir = LogDir::open(Arc::new(fs.clone()), Path::new("/data"), &meta).unwrap();
        let known = |id: TopicId, partition| {
            let topic_partition = TopicPartition::new(format!("t{}", id.as_bytes()[0]), partition);
            Some(KnownPartition { topic_partition, config: Arc::new(small()) })
        };
        let config = LogManagerConfig { recovery_threads: threads, ..Default::default() };
        let (manager, report) = LogManager::open(dir, config, &known, NOW, Instant::ZERO).unwrap();
        let ends: BTreeMap<_, _> =
            manager.logs().into_iter().map(|(id, log)| (id, lock(&log).offsets())).collect();
        reports.push((format!("{:?}", report.recovered), ends));
    }
    assert_eq!(reports[0], reports[1]);
    assert_eq!(reports[0].1.len(), topics.len());
}

#[test]
fn a_producer_survives_expiry_only_if_it_is_young() {
    let config = LogConfig { producer_id_expiration_ms: 1000, ..small() };
    let fs = SimulatedFs::new();
    let (manager, _) = open(&fs, &[], &config, Instant::ZERO).unwrap();
    let log = log_of(&manager, 1, &config);
    append(&mut lock(&log), idempotent(1, 0, 0, 1));
    manager.run(Task::ExpireProducers, time(1000));
    assert_eq!(lock(&log).producers(NOW).unwrap().len(), 1);
    manager.run(Task::ExpireProducers, time(2000));
    assert_eq!(lock(&log).producers(NOW).unwrap().len(), 0);
}
