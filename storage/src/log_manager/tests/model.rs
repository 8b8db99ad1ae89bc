//! Random operations on one log against a naive model of it: a list of batches and three numbers.

use proptest::prelude::*;

use super::*;
use crate::flush::FlushScope;
use crate::leader_epoch::LeaderEpoch;
use crate::log::OffsetSnapshot;
use crate::producer_state::ProducerEntry;
use crate::record_batch::RecordBatch;

#[derive(Clone, Debug)]
enum Op {
    Append { size: usize, timestamp: i64 },
    AppendIdempotent { producer: i64 },
    Flush(bool),
    Roll,
    Truncate(prop::sample::Index),
    DeleteRecords(prop::sample::Index),
    Retention { bytes: u64 },
    Checkpoint,
    Background,
    Release,
    Idle,
    Crash(Option<u64>),
    CleanStop,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        8 => (8usize..200, 0i64..50).prop_map(|(size, timestamp)| Op::Append { size, timestamp }),
        8 => (0i64..4).prop_map(|producer| Op::AppendIdempotent { producer }),
        3 => any::<bool>().prop_map(Op::Flush),
        2 => Just(Op::Roll),
        1 => any::<prop::sample::Index>().prop_map(Op::Truncate),
        1 => any::<prop::sample::Index>().prop_map(Op::DeleteRecords),
        1 => (0u64..4000).prop_map(|bytes| Op::Retention { bytes }),
        1 => Just(Op::Checkpoint),
        1 => Just(Op::Background),
        1 => Just(Op::Release),
        2 => Just(Op::Idle),
        2 => prop::option::of(any::<u64>()).prop_map(Op::Crash),
        1 => Just(Op::CleanStop),
    ]
}

struct Run {
    fs: SimulatedFs,
    config: LogConfig,
    manager: Option<LogManager>,
    at: Instant,
    /// The batches, whole, by offset; also those below the log start, which a crash may show again.
    batches: BTreeMap<Offset, Vec<u8>>,
    log_start: Offset,
    log_end: Offset,
    /// Below it everything must survive a power cut.
    flushed_end: Offset,
    sequences: BTreeMap<i64, i32>,
    epoch: LeaderEpoch,
    tag: u64,
}

impl Run {
    fn new(config: LogConfig) -> Run {
        let fs = SimulatedFs::new();
        let (manager, _) = open(&fs, &[1], &config, Instant::ZERO).unwrap();
        Run {
            fs,
            config,
            manager: Some(manager),
            at: Instant::ZERO,
            batches: BTreeMap::new(),
            log_start: Offset::ZERO,
            log_end: Offset::ZERO,
            flushed_end: Offset::ZERO,
            sequences: BTreeMap::new(),
            epoch: LeaderEpoch::ZERO,
            tag: 0,
        }
    }

    fn manager(&self) -> &LogManager {
        self.manager.as_ref().unwrap()
    }

    fn log(&self) -> SharedLog {
        log_of(self.manager(), 1, &self.config)
    }

    fn append(&mut self, batch: crate::log_validator::ValidatedBatch) {
        let log = self.log();
        let info =
            lock(&log).append_as_leader(batch, AppendOrigin::Client, self.epoch, NOW).unwrap();
        assert!(!info.duplicate);
        assert_eq!(info.base_offset, self.log_end);
        let stored = &info.stored[0];
        let bytes = [stored.header.as_bytes().as_slice(), &stored.body].concat();
        self.batches.insert(info.base_offset, bytes);
        self.log_end = info.last_offset.next();
        let all = self.log_end;
        lock(&log).update_high_watermark(all);
    }

    /// An offset in the log by a random number, at a batch's start.
    fn pick(&self, index: &prop::sample::Index) -> Offset {
        let starts: Vec<Offset> =
            self.batches.range(self.log_start..).map(|(at, _)| *at).chain([self.log_end]).collect();
        *index.get(&starts)
    }

    fn apply(&mut self, op: &Op) {
        let log = self.log();
        match op {
            Op::Append { size, timestamp } => {
                self.tag += 1;
                self.append(batch(self.tag, *size, *timestamp));
            }
            Op::AppendIdempotent { producer } => {
                let sequence = self.sequences.entry(*producer).or_insert(0);
                let batch = idempotent(*producer, 0, *sequence, 2);
                *sequence += 2;
                self.append(batch);
            }
            Op::Flush(everything) => {
                let scope = if *everything { FlushScope::Everything } else { FlushScope::Records };
                let ticket = lock(&log).flush_ticket(scope).unwrap();
                if let Some(ticket) = ticket {
                    lock(&log).flush_completed(ticket.run()).unwrap();
                }
                self.flushed_end = self.log_end;
            }
            Op::Roll => _ = lock(&log).roll(NOW).unwrap(),
            Op::Truncate(index) => {
                let to = self.pick(index);
                lock(&log).truncate_to(to, NOW).unwrap();
                self.batches.retain(|at, _| *at < to);
                self.log_end = to;
                self.flushed_end = self.flushed_end.min(to);
                // Another leader goes on, and the producers from where the log is.
                self.epoch = self.epoch.next();
                self.resume_producers();
            }
            Op::DeleteRecords(index) => {
                let before = self.pick(index);
                lock(&log).delete_records(before, NOW).unwrap();
                self.log_start = self.log_start.max(before);
            }
            Op::Retention { bytes } => {
                let config = LogConfig { retention_bytes: Some(*bytes), ..self.config.clone() };
                lock(&log).set_config(Arc::new(config));
                lock(&log).delete_old_segments(NOW).unwrap();
                let log_start = lock(&log).offsets().log_start;
                assert!(log_start >= self.log_start && log_start <= self.log_end);
                self.log_start = log_start;
            }
            Op::Checkpoint => self.manager().write_checkpoints().unwrap(),
            Op::Background => {
                self.at = self.at.plus(Duration::from_secs(400));
                run_all(self.manager(), self.at);
                let log_start = lock(&log).offsets().log_start;
                assert!(log_start >= self.log_start && log_start <= self.log_end);
                self.log_start = log_start;
            }
            Op::Release => lock(&log).release_memory().unwrap(),
            Op::Idle => self.idle(),
            Op::Crash(seed) => {
                let crash = match seed {
                    None => Crash::Process,
                    Some(seed) if seed % 2 == 0 => Crash::PowerLosingUnsynced,
                    Some(seed) => Crash::PowerKeepingSome { seed: *seed },
                };
                drop(log);
                self.restart(crash, false);
            }
            Op::CleanStop => {
                drop(log);
                self.manager().close(None, NOW).unwrap();
                self.flushed_end = self.log_end;
                self.restart(Crash::PowerLosingUnsynced, true);
            }
        }
    }

    /// Whatever an idle log drops, it answers as before.
    fn idle(&mut self) {
        let all = |log: &mut Log| {
            let log_end = log.offsets().log_end;
            (
                log.offsets(),
                log.size_bytes(),
                log.unflushed_bytes(),
                log.leader_epochs(NOW).unwrap(),
                log.producers(NOW).unwrap(),
                log.aborted_transactions(Offset::ZERO, log_end, NOW).unwrap(),
            )
        };
        let log = self.log();
        run_all(self.manager(), self.at);
        let before = all(&mut lock(&log));
        for _ in 0..3 {
            run_all(self.manager(), self.at); // takes note of what is in use
            self.manager().run(Task::CloseIdleFiles, NOW);
        }
        assert_eq!(self.fs.open_files(), 0);
        // But that it was flushed.
        let all_flushed = OffsetSnapshot {
            flushed_end: self.log_end,
            recovery_point: self.log_end,
            durable_end: self.log_end,
            ..before.0
        };
        self.flushed_end = self.log_end;
        let before = (all_flushed, before.1, 0, before.3, before.4, before.5);
        let quiet = |log: &Log| (log.offsets(), log.size_bytes(), log.unflushed_bytes());
        let quiet = quiet(&lock(&log));
        assert_eq!(quiet, (before.0, before.1, before.2));
        assert_eq!(all(&mut lock(&log)), before);
    }

    fn resume_producers(&mut self) {
        let log = self.log();
        let producers = lock(&log).producers(NOW).unwrap();
        self.sequences = producers
            .iter()
            .map(|entry| {
                let next = entry.last_sequence().map_or(0, |last| last + 1);
                (entry.producer_id().value(), next)
            })
            .collect();
    }

    fn restart(&mut self, crash: Crash, clean: bool) {
        let before = lock(&self.log()).offsets();
        let producers = lock(&self.log()).producers(NOW).unwrap();
        self.manager = None;
        self.fs.crash(crash);
        let (manager, report) = open(&self.fs, &[1], &self.config, self.at).unwrap();
        assert!(report.offline.is_empty(), "{report:?}");
        self.manager = Some(manager);
        let log = self.log();
        let offsets = lock(&log).offsets();
        if crash == Crash::Process || clean {
            assert_eq!(offsets.log_end, self.log_end, "nothing written is lost");
        }
        if clean {
            assert!(report.clean);
            assert_eq!(
                (offsets.log_start, offsets.high_watermark, offsets.flushed_end),
                (before.log_start, before.high_watermark, before.log_end)
            );
            // Windows may have lost batches that retention took; each producer's last one is there.
            let last = |entries: Vec<ProducerEntry>| -> Vec<_> {
                let last = |e: &ProducerEntry| (e.producer_id(), e.epoch(), e.last_sequence());
                entries.iter().map(last).collect()
            };
            assert_eq!(last(lock(&log).producers(NOW).unwrap()), last(producers));
        }
        assert!(offsets.log_end >= self.flushed_end, "{offsets:?}, flushed {}", self.flushed_end);
        assert!(offsets.log_end <= self.log_end);
        // The log start may go back to what was on the disk, never forward past what it was.
        assert!(offsets.log_start <= self.log_start.max(offsets.log_end), "{offsets:?}");
        self.log_start = offsets.log_start;
        self.log_end = offsets.log_end;
        self.flushed_end = self.flushed_end.min(self.log_end).max(offsets.flushed_end);
        let log_end = self.log_end;
        self.batches.retain(|at, _| *at < log_end);
        self.epoch = self.epoch.next();
        self.check_producers(crash);
        self.resume_producers();
        let all = self.log_end;
        lock(&self.log()).update_high_watermark(all);
    }

    /// Producer state is the fold of the log: the last five batches of each producer that are in the log
    /// are known, in order.
    fn check_producers(&self, crash: Crash) {
        let mut fold: BTreeMap<i64, Vec<(i32, Offset)>> = BTreeMap::new();
        for (at, bytes) in self.batches.range(self.log_start..) {
            let (batch, _) = RecordBatch::parse(bytes).unwrap();
            let Some(producer) = batch.producer() else { continue };
            let window = fold.entry(producer.id.value()).or_default();
            window.push((producer.sequences.unwrap().last, *at));
            if window.len() > 5 {
                window.remove(0);
            }
        }
        let log = self.log();
        let known = lock(&log).producers(NOW).unwrap();
        for (id, window) in fold {
            let entry = known.iter().find(|entry| entry.producer_id().value() == id);
            let entry =
                entry.unwrap_or_else(|| panic!("producer {id} is forgotten after {crash:?}"));
            let batches: Vec<_> = entry
                .batches()
                .iter()
                .map(|batch| (batch.last_sequence, batch.base_offset()))
                .collect();
            assert!(
                batches.ends_with(&window),
                "{id} after {crash:?}: {batches:?}, log {window:?}"
            );
        }
    }

    fn check(&self) {
        let log = self.log();
        let offsets = lock(&log).offsets();
        let unwatched = self.fs.dirty_and_closed();
        let is_log = |path: &std::path::PathBuf| path.extension().is_some_and(|it| it == "log");
        assert!(!unwatched.iter().any(is_log), "a failed write-back is missed: {unwatched:?}");
        assert_eq!((offsets.log_start, offsets.log_end), (self.log_start, self.log_end));
        assert!(offsets.recovery_point <= offsets.flushed_end);
        assert!(offsets.flushed_end <= offsets.log_end);
        assert!(offsets.log_start <= offsets.last_stable);
        let expected: Vec<_> = self
            .batches
            .iter()
            .filter(|(_, bytes)| {
                let (batch, _) = RecordBatch::parse(bytes).unwrap();
                batch.next_offset() > self.log_start
            })
            .map(|(at, bytes)| (*at, bytes.clone()))
            .collect();
        assert_eq!(values(&log), expected);
    }
}

/// More by `PROPTEST_CASES`; a failure prints the operations, shrunk.
const CASES: u32 = 200;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(std::env::var("PROPTEST_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(CASES)))]

    #[test]
    fn any_operations_leave_the_log_that_the_model_has(
        ops in prop::collection::vec(op(), 1..60),
        flush_each in any::<bool>(),
    ) {
        let flush_messages = if flush_each { 1 } else { u64::MAX };
        let mut run = Run::new(LogConfig { flush_messages, ..small() });
        for op in &ops {
            run.apply(op);
            run.check();
        }
    }
}
