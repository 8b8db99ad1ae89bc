//! A crash at every operation of what creates, rolls, cuts, deletes and checkpoints: the directory starts.

use super::*;

type Step = fn(&LogManager) -> Result<(), String>;

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

fn add(manager: &LogManager, id: u8, tags: std::ops::Range<u64>) -> Result<(), String> {
    let name = TopicPartition::new(format!("t{id}"), 0);
    let log = manager.get_or_create(topic(id), &name, Arc::new(small())).map_err(text)?;
    for tag in tags {
        let batch = batch(tag, 60, tag as i64);
        lock(&log).append_as_leader(batch, AppendOrigin::Client, EPOCH, NOW).map_err(text)?;
    }
    Ok(())
}

fn with_log<R>(
    manager: &LogManager,
    id: u8,
    change: impl FnOnce(&mut Log) -> Result<R, LogError>,
) -> Result<(), String> {
    let log = manager.get(topic(id), 0).ok_or("no such log")?;
    change(&mut lock(&log)).map(|_| ()).map_err(text)
}

/// Each goes on where the one before it ended.
const STEPS: &[(&str, Step)] = &[
    ("first append", |manager| add(manager, 1, 0..1)),
    ("appends and rolls", |manager| add(manager, 1, 1..30)),
    ("flush", |manager| with_log(manager, 1, |log| Ok(log.flush()?))),
    ("checkpoint", |manager| manager.write_checkpoints().map_err(text)),
    ("truncation", |manager| {
        with_log(manager, 1, |log| {
            log.truncate_to(offset(12), NOW)?;
            Ok(())
        })
    }),
    ("appends after the truncation", |manager| {
        with_log(manager, 1, |log| {
            log.assign_epoch_start(EPOCH.next());
            Ok(())
        })?;
        let log = manager.get(topic(1), 0).ok_or("no such log")?;
        for tag in 100..120 {
            let batch = batch(tag, 60, 3);
            lock(&log)
                .append_as_leader(batch, AppendOrigin::Client, EPOCH.next(), NOW)
                .map_err(text)?;
        }
        Ok(())
    }),
    ("second log", |manager| add(manager, 2, 0..12)),
    ("retention", |manager| {
        with_log(manager, 1, |log| {
            log.set_config(Arc::new(LogConfig { retention_bytes: Some(1500), ..small() }));
            log.update_high_watermark(offset(40));
            log.delete_old_segments(NOW)
        })
    }),
    ("delete records", |manager| with_log(manager, 1, |log| log.delete_records(offset(30), NOW))),
    ("second checkpoint", |manager| manager.write_checkpoints().map_err(text)),
    ("topic deletion", |manager| manager.delete(topic(2), 0).map_err(text)),
    ("full truncation", |manager| {
        with_log(manager, 1, |log| log.truncate_fully_and_start_at(offset(70), NOW))
    }),
    ("an append far away", |manager| add(manager, 1, 200..203)),
    ("clean stop", |manager| manager.close(Some(1), NOW).map_err(text)),
];

/// Runs the steps; stops at the first that fails, and says which.
fn run(fs: &SimulatedFs) -> Result<(), String> {
    let (manager, _) = open(fs, &[1, 2], &small(), Instant::ZERO)?;
    for (name, step) in STEPS {
        step(&manager).map_err(|error| format!("{name}: {error}"))?;
    }
    Ok(())
}

#[test]
fn a_crash_at_any_operation_leaves_a_directory_that_starts() {
    let total = {
        let fs = SimulatedFs::new();
        run(&fs).unwrap();
        fs.changes()
    };
    let mut reached = std::collections::BTreeSet::new();
    for stop in 0..=total {
        let seeds = [0, 1, 2].map(|seed| Crash::PowerKeepingSome { seed: seed * 1000 + stop });
        for crash in [Crash::Process, Crash::PowerLosingUnsynced].into_iter().chain(seeds) {
            let fs = SimulatedFs::new();
            fs.stop_after_changes(stop);
            let failure = run(&fs).err().unwrap_or_default();
            reached.insert(failure.split(':').next().unwrap_or_default().to_owned());
            fs.crash(crash);
            let context = format!("stopped at change {stop} ({failure}), then {crash:?}");
            let (manager, report) = open(&fs, &[1, 2], &small(), Instant::ZERO)
                .unwrap_or_else(|error| panic!("{context}: {error}"));
            assert!(report.offline.is_empty(), "{context}: {report:?}");
            if crash == Crash::Process {
                assert!(report.strays.is_empty(), "{context}: {report:?}");
            }
            // Every log reads whole, and goes on.
            for id in [1, 2] {
                let log = log_of(&manager, id, &small());
                let found = values(&log);
                let offsets = lock(&log).offsets();
                assert!(found.last().is_none_or(|(at, _)| *at < offsets.log_end), "{context}");
                append(&mut lock(&log), batch(999, 60, 0));
                assert_eq!(values(&log).len(), found.len() + 1, "{context}");
            }
            run_all(&manager, Instant::ZERO.plus(Duration::from_secs(1000)));
            manager.close(None, NOW).unwrap_or_else(|error| panic!("{context}: {error}"));
            drop(manager);
            fs.crash(Crash::PowerLosingUnsynced);
            let (manager, report) = open(&fs, &[1, 2], &small(), Instant::ZERO).unwrap();
            assert!(report.clean && report.offline.is_empty(), "{context}: {report:?}");
            for id in [1, 2] {
                assert!(!values(&log_of(&manager, id, &small())).is_empty(), "{context}");
            }
        }
    }
    for (name, _) in STEPS {
        assert!(
            reached.contains(*name) || *name == "delete records",
            "{name} was never cut: {reached:?}"
        );
    }
}
