//! What highwater aims at, and whether a run has met it.

use crate::broker::Kind;
use crate::results::{Results, Spread};

/// A limit for highwater's figure. Medians are compared; ratios are medians of the rounds' ratios.
#[derive(Clone, Copy, Debug)]
pub enum Target {
    /// No more than this.
    AtMost(f64),
    /// No more than `times` another figure of highwater's and `plus`, in the metric's unit.
    AtMostOf {
        /// Of which row; `None` is the same.
        row: Option<&'static str>,
        /// Which metric of it.
        metric: &'static str,
        /// How many times.
        times: f64,
        /// And so much more.
        plus: f64,
    },
    /// No more than so many times the other broker's figure.
    AtMostTimes(f64, Kind),
    /// No less than so many times the other broker's figure.
    AtLeastTimes(f64, Kind),
    /// No more than so many times a figure of the machine itself, in the same round.
    AtMostOfMachine(f64, &'static str),
}

/// How a target came out.
#[derive(Clone, Debug, PartialEq)]
pub struct Verdict {
    /// The target in words, with the limit that this run set where another figure decides it.
    pub aim: String,
    /// `None` where this run did not measure what is needed.
    pub is_met: Option<bool>,
}

impl std::fmt::Display for Verdict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.aim)?;
        f.write_str(match self.is_met {
            Some(true) => ": met",
            Some(false) => ": missed",
            None => "",
        })
    }
}

impl Target {
    /// What `results` say of this target for a metric of a row.
    pub fn judge(self, results: &Results, row: &str, metric: &str) -> Verdict {
        let ours = |row: &str, metric: &str| {
            let rounds = results.rounds(row, Kind::Highwater.name(), metric);
            Spread::of(rounds.into_values()).map(|spread| spread.median)
        };
        let own = ours(row, metric);
        let at_most = |limit: Option<f64>, aim: String| {
            let is_met = own.zip(limit).map(|(own, limit)| own <= limit);
            Verdict { aim, is_met }
        };
        match self {
            Target::AtMost(limit) => at_most(Some(limit), format!("≤ {limit}")),
            Target::AtMostOf { row: other_row, metric: other, times, plus } => {
                let limit = ours(other_row.unwrap_or(row), other).map(|other| times * other + plus);
                let of = other_row.map_or(other.to_owned(), |row| format!("{row}'s {other}"));
                let mut aim = format!("≤ {times} × {of}");
                if plus != 0.0 {
                    aim += &format!(" + {plus}");
                }
                if let Some(limit) = limit {
                    aim += &format!(" = {limit:.2}");
                }
                at_most(limit, aim)
            }
            Target::AtMostTimes(times, kind) => {
                let ratio = ratio(results, row, metric, kind);
                let aim = format!("≤ {} of {}", share(times), kind.name());
                Verdict { aim, is_met: ratio.map(|ratio| ratio <= times) }
            }
            Target::AtLeastTimes(times, kind) => {
                let ratio = ratio(results, row, metric, kind);
                let aim = format!("≥ {} of {}", share(times), kind.name());
                Verdict { aim, is_met: ratio.map(|ratio| ratio >= times) }
            }
            Target::AtMostOfMachine(times, limit) => {
                let ratio = Spread::of(results.ratios_to_machine(row, metric, limit));
                let ratio = ratio.map(|ratio| ratio.median);
                let mut aim = format!("≤ {times} × {limit}");
                if let Some(ratio) = ratio {
                    aim += &format!(" (is {ratio:.2} ×)");
                }
                Verdict { aim, is_met: ratio.map(|ratio| ratio <= times) }
            }
        }
    }
}

fn ratio(results: &Results, row: &str, metric: &str, kind: Kind) -> Option<f64> {
    Spread::of(results.ratios(row, metric, kind.name())).map(|spread| spread.median)
}

/// 0.9 is "90 %"; 1.8 is "1.8 ×"; 0.01 is "1/100".
fn share(times: f64) -> String {
    if times >= 1.0 {
        format!("{times} ×")
    } else if times > 0.5 {
        format!("{:.0} %", times * 100.0)
    } else {
        format!("1/{:.0}", 1.0 / times)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_target_is_judged_by_medians_and_by_ratios_within_rounds() {
        let path = std::env::temp_dir().join(format!("target-{}.jsonl", std::process::id()));
        let mut results = Results::open(&path).expect("a new file");
        // The machine slows down threefold in the second round: only ratios within a round are fair.
        for (round, slower) in [(1, 1.0), (2, 3.0), (3, 3.0)] {
            let mut note = |broker, value: f64| {
                let metrics = vec![("ms", value * slower), ("raw", slower)];
                results
                    .record("row", broker, round, Duration::ZERO, &Ok(metrics))
                    .expect("written");
            };
            note("highwater", 2.0);
            note("kafka", 8.0);
        }
        let judge = |target: Target| target.judge(&results, "row", "ms").is_met;
        assert_eq!(judge(Target::AtMost(6.0)), Some(true));
        assert_eq!(judge(Target::AtMost(5.9)), Some(false));
        assert_eq!(judge(Target::AtMostTimes(0.25, Kind::Kafka)), Some(true));
        assert_eq!(judge(Target::AtMostTimes(0.24, Kind::Kafka)), Some(false));
        assert_eq!(judge(Target::AtLeastTimes(0.26, Kind::Kafka)), Some(false));
        assert_eq!(judge(Target::AtMostTimes(0.25, Kind::Null)), None);
        let of_raw = |plus| Target::AtMostOf { row: None, metric: "raw", times: 1.0, plus };
        assert_eq!(judge(of_raw(3.0)), Some(true));
        assert_eq!(judge(of_raw(2.9)), Some(false));
        std::fs::remove_file(&path).expect("ours");
    }
}
