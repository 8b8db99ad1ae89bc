//! The table: medians with their range, the ratio to each other broker by rounds, targets met and missed.

use std::fmt::Write as _;

use comfy_table::presets::ASCII_MARKDOWN;
use comfy_table::{CellAlignment, Table};

use crate::broker::Kind;
use crate::results::{NotMeasured, Results, Spread};
use crate::rows::{MACHINE, MACHINE_METRICS, Metric, Row};
use crate::target::Target;

/// Said under every table.
pub const LEGEND: &str = "Medians of the rounds (least – greatest); a ratio is the median of the rounds' ratios; MB is 10^6 bytes of values.";

/// Everything that `results` holds of `rows`, the machine, and what failed.
pub fn render(results: &Results, rows: &[&Row], brokers: &[Kind]) -> String {
    let mut out = String::new();
    for metric in MACHINE_METRICS {
        let values = spread(results, MACHINE, MACHINE, metric.key);
        let _ = writeln!(out, "{}: {}", metric.title, format_spread(values, metric.decimals));
    }
    let _ = writeln!(out, "{}\n{LEGEND}", of(results, rows, brokers));
    for failed in results.failures() {
        let NotMeasured { row, broker, round, why } = failed;
        let _ = writeln!(out, "not measured: {row}, {broker}, round {round}: {why}");
    }
    out
}

/// The table of `rows`, as Markdown: a column for each of `brokers` that has a figure of one of them.
pub fn of(results: &Results, rows: &[&Row], brokers: &[Kind]) -> String {
    let has_figures = |kind: &&Kind| {
        let keys = |row: &&Row| row.metrics.iter().map(|m| (row.name, m.key)).collect::<Vec<_>>();
        let mut figures = rows.iter().flat_map(keys);
        figures.any(|(row, key)| !results.rounds(row, kind.name(), key).is_empty())
    };
    let brokers: Vec<_> = brokers.iter().filter(has_figures).copied().collect();
    let others: Vec<_> = brokers.iter().copied().filter(has_ratio).collect();
    let mut table = Table::new();
    table.load_style(ASCII_MARKDOWN);
    let mut header = vec!["row".to_owned(), "figure".to_owned()];
    header.extend(brokers.iter().map(|kind| kind.name().to_owned()));
    header.extend(others.iter().map(|kind| format!("highwater : {}", kind.name())));
    header.push("target".to_owned());
    table.set_header(header);
    for row in rows {
        for (index, metric) in row.metrics.iter().enumerate() {
            let name = if index == 0 { row.name } else { "" };
            let mut cells = vec![name.to_owned(), metric.title.to_owned()];
            for kind in &brokers {
                let values = spread(results, row.name, kind.name(), metric.key);
                cells.push(format_spread(values, metric.decimals));
            }
            for other in &others {
                let ratios = results.ratios(row.name, metric.key, other.name());
                cells.push(format_spread(Spread::of(ratios), 2));
            }
            let judge = |target: &Target| target.judge(results, row.name, metric.key).to_string();
            cells.push(metric.targets.iter().map(judge).collect::<Vec<_>>().join("; "));
            table.add_row(cells);
        }
    }
    for index in 2..table.column_count() {
        let column = table.column_mut(index);
        column.expect("the index is below the count").set_cell_alignment(CellAlignment::Right);
    }
    table.to_string()
}

/// A broker's median of a figure, as the table shows it.
pub fn median(results: &Results, row: &str, kind: Kind, metric: &Metric) -> String {
    let spread = spread(results, row, kind.name(), metric.key);
    spread.map_or("–".to_owned(), |spread| format!("{:.*}", metric.decimals, spread.median))
}

/// Of a broker that stores nothing only the figures are shown.
fn has_ratio(kind: &Kind) -> bool {
    !matches!(kind, Kind::Highwater | Kind::NullMemory)
}

fn spread(results: &Results, row: &str, broker: &str, metric: &str) -> Option<Spread> {
    Spread::of(results.rounds(row, broker, metric).into_values())
}

/// A median and, in brackets, its range.
pub fn format_spread(spread: Option<Spread>, decimals: usize) -> String {
    spread.map_or("–".to_owned(), |s| {
        if s.least == s.greatest {
            format!("{:.decimals$}", s.median)
        } else {
            format!("{:.decimals$} ({:.decimals$} – {:.decimals$})", s.median, s.least, s.greatest)
        }
    })
}
