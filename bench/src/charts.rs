//! Pictures of a run, as SVG: horizontal bars of the medians with a line from the least to the greatest round, a colour a broker.
//! Each row has a scale of its own, so that its brokers can be compared whether it is about gigabytes or about kilobytes.

use std::fmt::Write as _;

use crate::broker::Kind;
use crate::results::{Results, Spread};
use crate::rows::Row;

/// One picture: a file's name without its ending, what it shows, and the metrics, a panel each.
struct Picture {
    file: &'static str,
    title: &'static str,
    panels: &'static [(&'static str, &'static str)],
}

/// A panel shows every row that has its metric.
const PICTURES: &[Picture] = &[
    Picture {
        file: "throughput",
        title: "Throughput (longer is better)",
        panels: &[("mb_s", "MB/s"), ("requests_s", "requests/s")],
    },
    Picture {
        file: "cpu",
        title: "The broker's processor time (shorter is better)",
        panels: &[
            ("broker_ns_per_byte", "ns per byte"),
            ("broker_us_per_request", "µs per request"),
            ("cpu_percent", "% of a core while nobody talks"),
        ],
    },
    Picture {
        file: "latency",
        title: "Latency (shorter is better)",
        panels: &[("p50_ms", "p50, ms"), ("p99_ms", "p99, ms"), ("p999_ms", "p99.9, ms")],
    },
    Picture {
        file: "start",
        title: "Start, stop and memory (shorter is better)",
        panels: &[
            ("ready_ms", "spawn to ready, ms"),
            ("first_ack_ms", "spawn to the first acknowledged record, ms"),
            ("stop_ms", "stop, ms"),
            ("rss_mib", "resident memory, MiB"),
        ],
    },
];

const WIDTH: f64 = 960.0;
const MARGIN: f64 = 16.0;
const LABEL_WIDTH: f64 = 190.0;
/// At the right end, for the figures.
const VALUE_WIDTH: f64 = 150.0;
const BARS_WIDTH: f64 = WIDTH - 2.0 * MARGIN - LABEL_WIDTH - VALUE_WIDTH;
const BAR_HEIGHT: f64 = 11.0;
const BAR_STEP: f64 = 14.0;
const ROW_GAP: f64 = 8.0;
const PANEL_GAP: f64 = 46.0;

/// The pictures that `results` have figures for: file name and contents.
pub fn pictures(results: &Results, rows: &[&Row]) -> Vec<(String, String)> {
    let drawn = PICTURES.iter().filter_map(|picture| {
        let panels = picture.panels.iter().map(|(key, title)| (*title, bars(results, rows, key)));
        let panels: Vec<_> = panels.filter(|(_, groups)| !groups.is_empty()).collect();
        let file = format!("{}.svg", picture.file);
        (!panels.is_empty()).then(|| (file, draw(picture.title, &panels)))
    });
    drawn.collect()
}

/// What a row's bars show.
struct Group {
    row: &'static str,
    decimals: usize,
    bars: Vec<(Kind, Spread)>,
}

impl Group {
    /// Of the greatest figure of the row, 0 to 1.
    fn share(&self, value: f64) -> f64 {
        let greatest = self.bars.iter().map(|(_, spread)| spread.greatest).fold(0.0, f64::max);
        if greatest > 0.0 { (value / greatest).clamp(0.0, 1.0) } else { 0.0 }
    }
}

fn bars(results: &Results, rows: &[&Row], key: &str) -> Vec<Group> {
    let group = |row: &&Row| {
        let metric = row.metrics.iter().find(|metric| metric.key == key)?;
        let bar = |kind: Kind| {
            let spread = Spread::of(results.rounds(row.name, kind.name(), key).into_values())?;
            Some((kind, spread))
        };
        let bars: Vec<_> = Kind::WITH_NULL_MEMORY.into_iter().filter_map(bar).collect();
        (!bars.is_empty()).then_some(Group { row: row.name, decimals: metric.decimals, bars })
    };
    rows.iter().filter_map(group).collect()
}

fn colour(kind: Kind) -> &'static str {
    match kind {
        Kind::Highwater => "#1f6fb4",
        Kind::Kafka => "#d9822b",
        Kind::Null => "#8f979e",
        Kind::NullMemory => "#cdd2d6",
    }
}

fn draw(title: &str, panels: &[(&str, Vec<Group>)]) -> String {
    let mut out = String::new();
    let mut y = 30.0;
    text(&mut out, (MARGIN, y), "start", "15px", title);
    text(
        &mut out,
        (MARGIN, y + 18.0),
        "start",
        "11px",
        "medians, and the range of the rounds; each row on a scale of its own",
    );
    let mut legend_x = WIDTH - MARGIN - 430.0;
    for kind in Kind::WITH_NULL_MEMORY {
        rectangle(&mut out, (legend_x, y - 10.0), (12.0, 12.0), colour(kind));
        text(&mut out, (legend_x + 18.0, y), "start", "12px", kind.name());
        legend_x += 110.0;
    }
    for (title, groups) in panels {
        y += PANEL_GAP;
        text(&mut out, (MARGIN, y), "start", "13px", title);
        y += 12.0;
        for group in groups {
            let x = MARGIN + LABEL_WIDTH;
            let middle = y + (group.bars.len() as f64 * BAR_STEP) / 2.0 + 3.0;
            text(&mut out, (x - 8.0, middle), "end", "12px", group.row);
            for (kind, spread) in &group.bars {
                let place = |value| x + group.share(value) * BARS_WIDTH;
                rectangle(&mut out, (x, y), (place(spread.median) - x, BAR_HEIGHT), colour(*kind));
                let (from, to) = (place(spread.least), place(spread.greatest));
                let height = y + BAR_HEIGHT / 2.0;
                if to > from {
                    let _ = writeln!(
                        out,
                        r##"<path d="M{from:.1} {height:.1}H{to:.1}" stroke="#333" stroke-width="1.2"/>"##
                    );
                }
                let end = (to.max(place(spread.median)) + 5.0, y + BAR_HEIGHT - 1.5);
                let value = format!("{:.*}", group.decimals, spread.median);
                text(&mut out, end, "start", "11px", &value);
                y += BAR_STEP;
            }
            y += ROW_GAP;
        }
    }
    let height = y + MARGIN;
    format!(
        r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:.0}" width="{WIDTH}" height="{height:.0}" font-family="sans-serif" fill="#222">
<rect width="100%" height="100%" fill="#fff"/>
{out}</svg>
"##
    )
}

fn rectangle(out: &mut String, (x, y): (f64, f64), (width, height): (f64, f64), fill: &str) {
    let _ = writeln!(
        out,
        r#"<rect x="{x:.1}" y="{y:.1}" width="{width:.1}" height="{height:.1}" fill="{fill}"/>"#
    );
}

fn text(out: &mut String, (x, y): (f64, f64), anchor: &str, size: &str, words: &str) {
    let words = words.replace('&', "&amp;").replace('<', "&lt;");
    let _ = writeln!(
        out,
        r#"<text x="{x:.1}" y="{y:.1}" text-anchor="{anchor}" font-size="{size}">{words}</text>"#
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(values: &[f64]) -> Group {
        let spread = |median: &f64| Spread { median: *median, least: *median, greatest: *median };
        let bars = values.iter().map(|value| (Kind::Highwater, spread(value))).collect();
        Group { row: "a<b", decimals: 1, bars }
    }

    #[test]
    fn the_greatest_figure_of_a_row_is_as_long_as_bars_are() {
        let row = group(&[1.0, 4.0]);
        assert_eq!((row.share(1.0), row.share(4.0)), (0.25, 1.0));
        assert_eq!(group(&[0.0]).share(0.0), 0.0);
    }

    #[test]
    fn a_picture_is_well_formed_and_shows_every_figure() {
        let svg = draw("t", &[("ms", vec![group(&[1.25, 300.0])])]);
        assert!(svg.contains(">1.2<") && svg.contains(">300.0<") && svg.contains("a&lt;b"));
        assert_eq!(svg.matches("<text").count(), svg.matches("</text>").count());
        assert!(svg.ends_with("</svg>\n"));
    }
}
