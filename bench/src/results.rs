//! The results of one run: a file of JSON lines, appended to as each row is measured, from which an interrupted run resumes.
//!
//! ```text
//! {"machine": {...}, "settings": {...}}                                     first line, once more for each resumption
//! {"row": "produce_1k", "broker": "kafka", "round": 1, "seconds": 3.9, "metrics": {"mb_s": 212.4, "broker_ns_per_byte": 3.1}}
//! {"row": "produce_1k", "broker": "kafka", "round": 2, "seconds": 0.1, "failure": "load: ..."}
//! ```

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::time::Duration;

use serde_json::{Map, Value, json};

use crate::broker::Kind;
use crate::failure::{Failure, io_failure};
use crate::rows::MACHINE;

/// What one row measured once: value by metric key.
pub type Metrics = Vec<(&'static str, f64)>;

/// A run, read back or growing.
pub struct Results {
    file: File,
    /// (row, broker, metric) → round → value.
    values: BTreeMap<(String, String, String), BTreeMap<u32, f64>>,
    /// (row, broker) → how long it took each time.
    seconds: BTreeMap<(String, String), Vec<f64>>,
    headers: Vec<Value>,
    failures: Vec<NotMeasured>,
}

impl Results {
    /// Opens `path` and reads what it holds; a torn last line is skipped, so its row is measured again.
    ///
    /// # Errors
    /// When the file can be neither read nor made.
    pub fn open(path: &Path) -> Result<Results, Failure> {
        let held = match fs::read_to_string(path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(io_failure(path.display().to_string())(error));
            }
            held => held.unwrap_or_default(),
        };
        let file = File::options().append(true).create(true).open(path);
        let mut results = Results {
            file: file.map_err(io_failure(path.display().to_string()))?,
            values: BTreeMap::new(),
            seconds: BTreeMap::new(),
            headers: Vec::new(),
            failures: Vec::new(),
        };
        for line in held.lines() {
            results.take_in(&serde_json::from_str(line).unwrap_or_default());
        }
        if !held.is_empty() && !held.ends_with('\n') {
            results.write(&json!({}))?; // ends the torn line
        }
        Ok(results)
    }

    fn take_in(&mut self, line: &Value) {
        let text = |key: &str| line[key].as_str().map(str::to_owned);
        let round = line["round"].as_u64().and_then(|round| u32::try_from(round).ok());
        let (Some(row), Some(broker), Some(round)) = (text("row"), text("broker"), round) else {
            if line["machine"].is_object() {
                self.headers.push(line.clone());
            }
            return;
        };
        if let Some(seconds) = line["seconds"].as_f64() {
            self.seconds.entry((row.clone(), broker.clone())).or_default().push(seconds);
        }
        if let Some(failure) = text("failure") {
            self.failures.push(NotMeasured { row, broker, round, why: failure });
            return;
        }
        for (metric, value) in line["metrics"].as_object().into_iter().flatten() {
            let key = (row.clone(), broker.clone(), metric.clone());
            let rounds = self.values.entry(key).or_default();
            rounds.extend(value.as_f64().map(|value| (round, value)));
        }
    }

    fn write(&mut self, line: &Value) -> Result<(), Failure> {
        self.file
            .write_all(format!("{line}\n").as_bytes())
            .map_err(io_failure("writing the results"))
    }

    /// Notes where and how the run is made.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn header(&mut self, machine: &Value, settings: &Value) -> Result<(), Failure> {
        let header = json!({ "machine": machine, "settings": settings });
        self.take_in(&header);
        self.write(&header)
    }

    /// What [`Results::header`] noted: once, and once more for each resumption.
    pub fn headers(&self) -> &[Value] {
        &self.headers
    }

    /// Notes what a row measured, or why it did not, and how long that took.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn record(
        &mut self,
        row: &str,
        broker: &str,
        round: u32,
        took: Duration,
        measured: &Result<Metrics, Failure>,
    ) -> Result<(), Failure> {
        let seconds = (took.as_secs_f64() * 1e3).round() / 1e3;
        let mut line = json!({ "row": row, "broker": broker, "round": round, "seconds": seconds });
        match measured {
            Ok(metrics) => {
                let metrics: Map<_, _> =
                    metrics.iter().map(|(key, value)| ((*key).to_owned(), json!(value))).collect();
                line["metrics"] = Value::Object(metrics);
            }
            Err(failure) => line["failure"] = json!(failure.to_string()),
        }
        self.take_in(&line);
        self.write(&line)
    }

    /// Whether the row has been measured in that round.
    pub fn has(&self, row: &str, broker: &str, round: u32) -> bool {
        self.values
            .iter()
            .any(|((r, b, _), rounds)| r == row && b == broker && rounds.contains_key(&round))
    }

    /// How long a row takes with a broker, in seconds, as far as it has been seen: with this one, else with others.
    pub fn typical_seconds(&self, row: &str, broker: &str) -> Option<f64> {
        let own = self.seconds.get(&(row.to_owned(), broker.to_owned()));
        let of_others = || {
            let of_row = self.seconds.iter().filter(|((of, _), _)| of == row);
            of_row.flat_map(|(_, seconds)| seconds.clone()).collect::<Vec<_>>()
        };
        let seen = own.cloned().unwrap_or_else(of_others);
        Spread::of(seen).map(|seconds| seconds.median)
    }

    /// The values of a metric by round.
    pub fn rounds(&self, row: &str, broker: &str, metric: &str) -> BTreeMap<u32, f64> {
        let key = (row.to_owned(), broker.to_owned(), metric.to_owned());
        self.values.get(&key).cloned().unwrap_or_default()
    }

    /// highwater's value over the other broker's, in each round that has both.
    pub fn ratios(&self, row: &str, metric: &str, broker: &str) -> Vec<f64> {
        let ours = self.rounds(row, Kind::Highwater.name(), metric);
        by_round(&ours, &self.rounds(row, broker, metric))
    }

    /// highwater's value over a figure of the machine, in each round that has both.
    pub fn ratios_to_machine(&self, row: &str, metric: &str, limit: &str) -> Vec<f64> {
        let ours = self.rounds(row, Kind::Highwater.name(), metric);
        by_round(&ours, &self.rounds(MACHINE, MACHINE, limit))
    }

    /// What went wrong, without what was measured later after all.
    pub fn failures(&self) -> Vec<&NotMeasured> {
        let not_yet = |f: &&NotMeasured| !self.has(&f.row, &f.broker, f.round);
        self.failures.iter().filter(not_yet).collect()
    }
}

fn by_round(ours: &BTreeMap<u32, f64>, theirs: &BTreeMap<u32, f64>) -> Vec<f64> {
    let ratio = |(round, ours): (&u32, &f64)| theirs.get(round).map(|theirs| ours / theirs);
    ours.iter().filter_map(ratio).filter(|ratio| ratio.is_finite()).collect()
}

/// A row that failed.
#[derive(Clone, Debug)]
pub struct NotMeasured {
    /// Which row.
    pub row: String,
    /// Of which broker.
    pub broker: String,
    /// In which round.
    pub round: u32,
    /// What went wrong.
    pub why: String,
}

/// Median and range of some values.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    /// The middle one, or the mean of the two.
    pub median: f64,
    /// The least.
    pub least: f64,
    /// The greatest.
    pub greatest: f64,
}

impl Spread {
    /// Of no values there is none.
    pub fn of(values: impl IntoIterator<Item = f64>) -> Option<Spread> {
        let mut values: Vec<_> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        let (&least, &greatest) = (values.first()?, values.last()?);
        let middle = values.len() / 2;
        let median = if values.len().is_multiple_of(2) {
            f64::midpoint(values[middle - 1], values[middle])
        } else {
            values[middle]
        };
        Some(Spread { median, least, greatest })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_resumes_after_a_torn_line_and_a_failure_measured_later_is_forgotten() {
        let path = std::env::temp_dir().join(format!("results-{}.jsonl", std::process::id()));
        let failed = Err(Failure::Usage("no".to_owned()));
        {
            let mut results = Results::open(&path).expect("a new file");
            results
                .record("idle", "null", 1, Duration::from_secs(1), &Ok(vec![("rss_mib", 2.0)]))
                .expect("written");
            results.record("idle", "null", 2, Duration::from_secs(2), &failed).expect("written");
            results.record("idle", "kafka", 1, Duration::from_secs(1), &failed).expect("written");
            results.file.write_all(b"{\"row\":\"idle\",\"bro").expect("written");
        }
        {
            let mut results = Results::open(&path).expect("read back");
            assert!(results.has("idle", "null", 1) && !results.has("idle", "null", 2));
            results
                .record("idle", "null", 2, Duration::from_secs(2), &Ok(vec![("rss_mib", 3.0)]))
                .expect("written");
        }
        let results = Results::open(&path).expect("read back");
        assert_eq!(results.typical_seconds("idle", "null"), Some(2.0));
        assert_eq!(results.typical_seconds("idle", "highwater"), Some(1.5), "of all others");
        assert_eq!(results.typical_seconds("start", "null"), None);
        let rounds = results.rounds("idle", "null", "rss_mib");
        assert_eq!(rounds, BTreeMap::from([(1, 2.0), (2, 3.0)]));
        let failures = results.failures();
        assert_eq!(failures.len(), 1, "{failures:?}");
        assert_eq!(failures[0].broker, "kafka");
        fs::remove_file(&path).expect("ours");
    }

    #[test]
    fn the_median_of_an_even_count_lies_between_the_middle_two() {
        let spread = Spread::of([4.0, 1.0, 2.0, 9.0]).expect("values");
        assert_eq!((spread.least, spread.median, spread.greatest), (1.0, 3.0, 9.0));
        assert_eq!(Spread::of([]), None);
    }
}
