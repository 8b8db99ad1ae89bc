//! The order of a run: round by round, each broker in turn, the first one another each round, so that a machine that grows
//! faster or slower meanwhile favours nobody. What the results hold already is not measured again.

use std::collections::VecDeque;
use std::time::Instant;

use crate::broker::{Broker, Data, Kind};
use crate::failure::Failure;
use crate::machine::{self, bare_sender};
use crate::replay::latencies::Latencies;
use crate::results::{Metrics, Results};
use crate::rows::{Context, MACHINE, Measure, Row, warm_up};

/// Raw ones at the start of each round.
const FDATASYNCS: usize = 300;

/// Rows of a broker that has never been timed are taken to last so long.
const TYPICAL_ROW_SECONDS: f64 = 5.0;
/// As a row in the results: the start of the broker that serves the loaded rows, and its warm-up.
const WARM_UP: &str = "warm_up";
/// A broker that cannot be started so often is not measured in that round.
const MOST_FAILED_STARTS: u32 = 2;

/// A broker's turn in a round, and the rows that it has not been measured for yet.
struct Turn<'a> {
    round: u32,
    kind: Kind,
    due: Vec<&'a Row>,
}

/// Runs `rows` for `brokers`, `rounds` times, and says on stderr how it gets on. Rows that fail are noted, and the next is tried.
///
/// # Errors
/// When the results cannot be written.
pub fn run(
    context: &Context,
    rows: &[&Row],
    brokers: &[Kind],
    rounds: u32,
    results: &mut Results,
) -> Result<(), Failure> {
    let mut turns = VecDeque::new();
    for round in 1..=rounds {
        let mut in_turn = brokers.to_vec();
        in_turn.rotate_left((round as usize - 1) % brokers.len().max(1));
        for kind in in_turn {
            let is_due =
                |row: &&&Row| row.is_due(kind, round) && !results.has(row.name, kind.name(), round);
            let due = rows.iter().filter(is_due).copied().collect();
            turns.push_back(Turn { round, kind, due });
        }
    }
    while let Some(turn) = turns.pop_front() {
        let later: f64 = turns.iter().map(|turn| seconds_of(turn, results)).sum();
        if !results.has(MACHINE, MACHINE, turn.round) {
            let began = Instant::now();
            let measured = machine_metrics(context);
            if let Err(failure) = &measured {
                eprintln!("the machine itself: {failure}");
            }
            results.record(MACHINE, MACHINE, turn.round, began.elapsed(), &measured)?;
        }
        Progress { context, rounds, turn, later, results }.take_turn()?;
    }
    Ok(())
}

/// How long a turn will take, from what has been seen.
fn seconds_of(turn: &Turn<'_>, results: &Results) -> f64 {
    let of = |name| results.typical_seconds(name, turn.kind.name());
    let rows: f64 = turn.due.iter().map(|row| of(row.name).unwrap_or(TYPICAL_ROW_SECONDS)).sum();
    let warm_up = of(WARM_UP).unwrap_or(TYPICAL_ROW_SECONDS);
    rows + if turn.due.iter().all(|row| is_apart(row)) { 0.0 } else { warm_up }
}

fn is_apart(row: &Row) -> bool {
    matches!(row.measure, Measure::Apart(_))
}

fn machine_metrics(context: &Context) -> Result<Metrics, Failure> {
    let first_touch = machine::page_first_touch().as_secs_f64() * 1e6;
    let mut fdatasync = Latencies::default();
    fdatasync.extend(machine::raw_fdatasync(&context.scratch, FDATASYNCS)?);
    let [p50, p99] = fdatasync.percentiles([500, 990]).map(|time| time.as_secs_f64() * 1e3);
    let append = machine::append_to_new_file(&context.scratch)?;
    let sender = bare_sender::measure(&context.scratch)?;
    Ok(vec![
        ("page_first_touch_us", first_touch),
        ("append_ns_per_byte", append),
        ("fdatasync_p50_ms", p50),
        ("fdatasync_p99_ms", p99),
        ("sender_memory_ns", sender.memory.sender),
        ("both_memory_ns", sender.memory.both),
        ("sender_warm_ns", sender.warm.least()),
        ("sender_warm_pread_ns", sender.warm.pread_and_write.sender),
        ("both_warm_pread_ns", sender.warm.pread_and_write.both),
        ("sender_warm_sendfile_ns", sender.warm.sendfile.sender),
        ("both_warm_sendfile_ns", sender.warm.sendfile.both),
        ("sender_cold_ns", sender.cold.least()),
        ("sender_cold_pread_ns", sender.cold.pread_and_write.sender),
        ("both_cold_pread_ns", sender.cold.pread_and_write.both),
        ("sender_cold_sendfile_ns", sender.cold.sendfile.sender),
        ("both_cold_sendfile_ns", sender.cold.sendfile.both),
    ])
}

/// One turn, and what is known about the rest of the run.
struct Progress<'a> {
    context: &'a Context,
    rounds: u32,
    turn: Turn<'a>,
    /// Seconds that the turns after this one will take.
    later: f64,
    results: &'a mut Results,
}

impl Progress<'_> {
    /// First the rows that start brokers themselves, then one start for those that load it, last what ends it.
    fn take_turn(mut self) -> Result<(), Failure> {
        let mut due = std::mem::take(&mut self.turn.due);
        due.sort_by_key(|row| match row.measure {
            Measure::Apart(_) => 0,
            Measure::Loaded(_) => 1,
            Measure::Last(_) => 2,
        });
        let mut broker = None;
        let mut failed_starts = 0;
        while !due.is_empty() {
            let row = due.remove(0);
            self.turn.due.clone_from(&due);
            let began = Instant::now();
            if let Measure::Apart(measure) = row.measure {
                let measured = measure(self.context, self.turn.kind);
                self.note(row, began, &measured)?;
                continue;
            }
            let running = match broker.take() {
                Some(running) => running,
                None if failed_starts == MOST_FAILED_STARTS => {
                    let (kind, round) = (self.turn.kind.name(), self.turn.round);
                    eprintln!(
                        "round {round}, {kind}: does not start; {} and the rest are left out",
                        row.name
                    );
                    return Ok(());
                }
                None => match self.start() {
                    Ok(running) => running,
                    Err(failure) => {
                        failed_starts += 1;
                        self.note(row, began, &Err(failure))?;
                        continue;
                    }
                },
            };
            let began = Instant::now();
            match row.measure {
                Measure::Apart(_) => {}
                Measure::Last(measure) => {
                    let measured = measure(self.context, running);
                    self.note(row, began, &measured)?;
                }
                Measure::Loaded(measure) => {
                    let measured = measure(self.context, &running);
                    self.note(row, began, &measured)?;
                    // After a failure nobody knows what it still holds: the next row gets another one.
                    if measured.is_ok() {
                        broker = Some(running);
                    } else {
                        self.stop(running);
                    }
                }
            }
        }
        if let Some(running) = broker {
            self.stop(running);
        }
        Ok(())
    }

    fn start(&mut self) -> Result<Broker, Failure> {
        let Context { programs, scratch, .. } = self.context;
        let began = Instant::now();
        let broker = Broker::start(programs, self.turn.kind, Data::EmptyDirectory, scratch)?;
        warm_up(self.context, &broker)?;
        let (name, round) = (self.turn.kind.name(), self.turn.round);
        self.results.record(WARM_UP, name, round, began.elapsed(), &Ok(Vec::new()))?;
        Ok(broker)
    }

    fn stop(&self, broker: Broker) {
        if let Err(failure) = broker.stop() {
            eprintln!("round {}, {}: {failure}", self.turn.round, self.turn.kind.name());
        }
    }

    fn note(
        &mut self,
        row: &Row,
        began: Instant,
        measured: &Result<Metrics, Failure>,
    ) -> Result<(), Failure> {
        let took = began.elapsed();
        let (kind, round) = (self.turn.kind.name(), self.turn.round);
        self.results.record(row.name, kind, round, took, measured)?;
        let words = match measured {
            Err(failure) => failure.to_string(),
            Ok(metrics) => {
                let shown = row.metrics.iter().filter_map(|metric| {
                    let (_, value) = metrics.iter().find(|(key, _)| *key == metric.key)?;
                    Some(format!("{} {value:.*}", metric.title, metric.decimals))
                });
                shown.collect::<Vec<_>>().join(" · ")
            }
        };
        let left = self.later + seconds_of(&self.turn, self.results);
        eprintln!(
            "round {round} of {}, {kind}, {}: {words} ({:.1} s; about {:.0} min left)",
            self.rounds,
            row.name,
            took.as_secs_f64(),
            left / 60.0
        );
        Ok(())
    }
}
