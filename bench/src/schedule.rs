//! The order of a run: round by round, each broker in turn, the first one another each round, so that a machine that grows
//! faster or slower meanwhile favours nobody. What the results hold already is not measured again.

use crate::broker::{Broker, Data, Kind};
use crate::failure::Failure;
use crate::machine::{self, bare_sender};
use crate::replay::latencies::Latencies;
use crate::results::{Metrics, Results};
use crate::rows::{Context, MACHINE, Measure, Row, warm_up};

/// Raw ones at the start of each round.
const FDATASYNCS: usize = 500;

/// Runs `rows` for `brokers`, `rounds` times. Rows that fail are noted, and the next is tried.
///
/// # Errors
/// When the results cannot be written or the machine cannot be measured.
pub fn run(
    context: &Context,
    rows: &[&Row],
    brokers: &[Kind],
    rounds: u32,
    results: &mut Results,
) -> Result<(), Failure> {
    for round in 1..=rounds {
        if !results.has(MACHINE, MACHINE, round) {
            let measured = machine_metrics(context);
            results.record(MACHINE, MACHINE, round, &measured)?;
        }
        let mut in_turn = brokers.to_vec();
        in_turn.rotate_left((round as usize - 1) % brokers.len().max(1));
        for kind in in_turn {
            let due: Vec<_> = rows
                .iter()
                .filter(|row| row.is_due(kind, round))
                .filter(|row| !results.has(row.name, kind.name(), round))
                .copied()
                .collect();
            one_broker(context, kind, &due, round, results)?;
        }
    }
    Ok(())
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

/// All of a round's rows for one broker: those that start it themselves, then one start for the others.
fn one_broker(
    context: &Context,
    kind: Kind,
    due: &[&Row],
    round: u32,
    results: &mut Results,
) -> Result<(), Failure> {
    let mut note = |row: &Row, measured: Result<Metrics, Failure>| {
        match &measured {
            Ok(metrics) => eprintln!("round {round}, {}, {}: {metrics:.3?}", kind.name(), row.name),
            Err(failure) => eprintln!("round {round}, {}, {}: {failure}", kind.name(), row.name),
        }
        results.record(row.name, kind.name(), round, &measured)
    };
    for row in due {
        if let Measure::Apart(measure) = row.measure {
            note(row, measure(context, kind))?;
        }
    }
    let is_apart = |row: &&&Row| matches!(row.measure, Measure::Apart(_));
    let Some(first) = due.iter().find(|row| !is_apart(row)) else {
        return Ok(());
    };
    let started = Broker::start(&context.programs, kind, Data::EmptyDirectory, &context.scratch)
        .and_then(|broker| warm_up(context, &broker).map(|()| broker));
    let mut broker = match started {
        Ok(broker) => Some(broker),
        Err(failure) => return note(first, Err(failure)),
    };
    for row in due {
        match (row.measure, &broker) {
            (Measure::Loaded(measure), Some(broker)) => note(row, measure(context, broker))?,
            (Measure::Last(measure), Some(_)) => {
                let ending = broker.take().expect("it was there a line ago");
                note(row, measure(context, ending))?;
            }
            _ => {}
        }
    }
    broker.map_or(Ok(()), |broker| broker.stop().map(|_| ()))
}
