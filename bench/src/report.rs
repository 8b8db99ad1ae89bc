//! `docs/performance.md` and its pictures, made from a results file. What no generator can know, the reasons for what was missed
//! above all, is written by hand in a file of notes and put where it belongs:
//!
//! ```text
//! ## summary        shown before the tables
//! ## produce_1k     shown after the table that has the row
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::broker::Kind;
use crate::charts;
use crate::failure::{Failure, io_failure};
use crate::results::{NotMeasured, Results, Spread};
use crate::rows::{self, MACHINE, MACHINE_METRICS, Metric, Row};
use crate::table;

const REPORT: &str = "docs/performance.md";
const NOTES: &str = "docs/performance-notes.md";
const PICTURES: &str = "bench/results";
const SUMMARY: &str = "summary";

/// Writes the report and its pictures. Returns what its author should know: targets that are missed without a word about why,
/// notes on rows that are not there.
///
/// # Errors
/// When the results or the notes cannot be read, or a file cannot be written.
pub fn write(results_path: &Path) -> Result<Vec<String>, Failure> {
    if !results_path.exists() {
        return Err(Failure::Usage(format!("no results {}", results_path.display())));
    }
    let results = Results::open(results_path)?;
    let notes = match fs::read_to_string(NOTES) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(io_failure(NOTES)(error));
        }
        notes => Notes::parse(&notes.unwrap_or_default()),
    };
    let measured: Vec<_> = rows::all().filter(|row| is_measured(&results, row)).collect();
    let pictures = charts::pictures(&results, &measured);
    for (file, picture) in &pictures {
        let path = Path::new(PICTURES).join(file);
        fs::write(&path, picture).map_err(io_failure(path.display().to_string()))?;
    }
    let files: Vec<_> = pictures.iter().map(|(file, _)| file.as_str()).collect();
    let name = results_path.display().to_string();
    let report = markdown(&results, &notes, &files, &name);
    fs::write(REPORT, report).map_err(io_failure(REPORT))?;
    Ok(notes.complaints(&results))
}

fn is_measured(results: &Results, row: &Row) -> bool {
    row.metrics.iter().any(|metric| {
        Kind::WITH_NULL_MEMORY
            .iter()
            .any(|kind| !results.rounds(row.name, kind.name(), metric.key).is_empty())
    })
}

/// Hand-written words by row.
struct Notes(BTreeMap<String, String>);

impl Notes {
    fn parse(text: &str) -> Notes {
        let mut notes: BTreeMap<String, String> = BTreeMap::new();
        let mut about = None;
        for line in text.lines() {
            if let Some(heading) = line.strip_prefix("## ") {
                about = Some(heading.trim().to_owned());
            } else if let Some(about) = &about {
                let note = notes.entry(about.clone()).or_default();
                note.push_str(line);
                note.push('\n');
            }
        }
        notes.retain(|_, note| !note.trim().is_empty());
        Notes(notes)
    }

    fn about(&self, what: &str) -> Option<&str> {
        self.0.get(what).map(|note| note.trim())
    }

    fn complaints(&self, results: &Results) -> Vec<String> {
        let known: BTreeSet<_> = rows::all().map(|row| row.name).chain([SUMMARY]).collect();
        let unknown = self.0.keys().filter(|about| !known.contains(about.as_str()));
        let unknown = unknown.map(|about| format!("{NOTES}: no row {about}"));
        let unexplained = judged(results).into_iter().filter(|judged| {
            judged.verdict.is_met == Some(false) && self.about(judged.row.name).is_none()
        });
        let unexplained: BTreeSet<_> = unexplained
            .map(|judged| format!("{NOTES}: {} misses a target, say why", judged.row.name))
            .collect();
        unknown.chain(unexplained).collect()
    }
}

/// One target of one figure, and how it came out.
struct Judged {
    row: &'static Row,
    metric: &'static Metric,
    verdict: crate::target::Verdict,
}

fn judged(results: &Results) -> Vec<Judged> {
    let mut all = Vec::new();
    for row in rows::all() {
        for metric in row.metrics {
            for target in metric.targets {
                let verdict = target.judge(results, row.name, metric.key);
                all.push(Judged { row, metric, verdict });
            }
        }
    }
    all
}

fn markdown(results: &Results, notes: &Notes, pictures: &[&str], source: &str) -> String {
    let mut out = format!(
        "# Performance of one broker\n\n\
         highwater, Apache Kafka and a null broker (the least a broker can do: protocol, CRC, append) in one run on one machine, \
         clients and broker sharing its cores over loopback. How it is measured: [bench/README.md](../bench/README.md). This \
         page is made by `bench/run --report {source}`; words about single rows are kept in [performance-notes.md](performance-notes.md).\n\n"
    );
    if let Some(note) = notes.about(SUMMARY) {
        let _ = writeln!(out, "{note}\n");
    }
    targets(&mut out, results);
    worse_than_kafka(&mut out, results);
    for picture in pictures {
        let _ = writeln!(out, "![{picture}](../{PICTURES}/{picture})\n");
    }
    for (title, rows) in rows::GROUPS {
        let rows: Vec<_> = rows.iter().filter(|row| is_measured(results, row)).collect();
        if rows.is_empty() {
            continue;
        }
        let _ =
            writeln!(out, "## {title}\n\n{}\n", table::of(results, &rows, &Kind::WITH_NULL_MEMORY));
        for row in &rows {
            let _ = writeln!(out, "- `{}`: {}", row.name, row.what);
        }
        out.push('\n');
        for row in &rows {
            if let Some(note) = notes.about(row.name) {
                let _ = writeln!(out, "**{}**: {note}\n", row.name);
            }
        }
    }
    let _ = writeln!(out, "{}\n", table::LEGEND);
    not_measured(&mut out, results);
    circumstances(&mut out, results);
    out
}

/// Met and missed, in short; the tables say it again with their figures.
fn targets(out: &mut String, results: &Results) {
    let judged = judged(results);
    let count = |is_met| judged.iter().filter(|judged| judged.verdict.is_met == is_met).count();
    let (met, missed, unknown) = (count(Some(true)), count(Some(false)), count(None));
    let _ = writeln!(out, "## Targets\n\n{met} met, {missed} missed, {unknown} not measured.\n");
    for judged in judged.iter().filter(|judged| judged.verdict.is_met == Some(false)) {
        let Judged { row, metric, verdict } = judged;
        let ours = table::median(results, row.name, Kind::Highwater, metric);
        let _ = writeln!(
            out,
            "- **missed** `{}`, {}: {ours}, aimed at {}",
            row.name, metric.title, verdict.aim
        );
    }
    if missed > 0 {
        out.push('\n');
    }
}

/// The rows we lose, whether or not anything was aimed at.
fn worse_than_kafka(out: &mut String, results: &Results) {
    let mut lost = String::new();
    for row in rows::all() {
        for metric in row.metrics.iter().filter(|metric| !metric.is_information) {
            let ratio = Spread::of(results.ratios(row.name, metric.key, Kind::Kafka.name()));
            let is_lost = |ratio: &Spread| {
                if metric.is_rate() { ratio.median < 1.0 } else { ratio.median > 1.0 }
            };
            if let Some(ratio) = ratio.filter(is_lost) {
                let [ours, theirs] = [Kind::Highwater, Kind::Kafka]
                    .map(|kind| table::median(results, row.name, kind, metric));
                let _ = writeln!(
                    lost,
                    "- `{}`, {}: {ours} against {theirs} ({:.2} ×)",
                    row.name, metric.title, ratio.median
                );
            }
        }
    }
    if lost.is_empty() {
        lost = "Nothing that was measured.\n".to_owned();
    }
    let _ = writeln!(out, "## Where Kafka is better\n\n{lost}");
}

fn not_measured(out: &mut String, results: &Results) {
    let failures = results.failures();
    if failures.is_empty() {
        return;
    }
    out.push_str("## Not measured\n\n");
    for NotMeasured { row, broker, round, why } in failures {
        let _ = writeln!(out, "- {row}, {broker}, round {round}: {}", why.replace('\n', " "));
    }
    out.push('\n');
}

/// The machine, what it can do at all, and every setting of the run.
fn circumstances(out: &mut String, results: &Results) {
    out.push_str("## Machine and settings\n\n| what the machine does at best | |\n|---|---|\n");
    for metric in MACHINE_METRICS {
        let rounds = results.rounds(MACHINE, MACHINE, metric.key);
        let spread = table::format_spread(Spread::of(rounds.into_values()), metric.decimals);
        let _ = writeln!(out, "| {} | {spread} |", metric.title);
    }
    out.push_str("\n| | |\n|---|---|\n");
    let headers = results.headers();
    let Some(first) = headers.first() else {
        return;
    };
    for part in ["machine", "settings"] {
        for (key, value) in first[part].as_object().into_iter().flatten() {
            let _ = writeln!(out, "| {} | {} |", key.replace('_', " "), plain(value));
        }
    }
    if headers.len() > 1 {
        let _ = writeln!(
            out,
            "\nThe run was interrupted and gone on with {} times.",
            headers.len() - 1
        );
    }
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.replace('\n', "; "),
        Value::Array(values) => values.iter().map(plain).collect::<Vec<_>>().join(" "),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_missed_target_is_named_with_its_note_and_one_without_a_note_is_complained_of() {
        let path = std::env::temp_dir().join(format!("report-{}.jsonl", std::process::id()));
        let mut results = Results::open(&path).expect("a new file");
        let mut note = |broker, metrics| {
            results.record("idle", broker, 1, Duration::ZERO, &Ok(metrics)).expect("written");
        };
        note("highwater", vec![("rss_mib", 99.0), ("cpu_percent", 0.01), ("threads", 3.0)]);
        note("kafka", vec![("rss_mib", 375.0), ("cpu_percent", 0.001), ("threads", 80.0)]);
        let notes =
            Notes::parse("words before any heading\n## idle\nToo much of it.\n## nothing\nx\n");
        let report = markdown(&results, &notes, &["cpu.svg"], "run.jsonl");
        std::fs::remove_file(&path).expect("ours");
        assert!(report.contains("- **missed** `idle`, resident memory, MiB: 99.0, aimed at ≤ 16"));
        assert!(report.contains("**idle**: Too much of it."), "{report}");
        assert!(report.contains("- `idle`, CPU, % of a core: 0.010 against 0.001 (10.00 ×)"));
        assert!(!report.contains("words before"));
        assert_eq!(notes.complaints(&results), [format!("{NOTES}: no row nothing")]);
        let silent = Notes::parse("");
        assert_eq!(
            silent.complaints(&results),
            [format!("{NOTES}: idle misses a target, say why")]
        );
    }
}
