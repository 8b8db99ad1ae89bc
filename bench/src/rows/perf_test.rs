//! Kafka's own producer tool with its own defaults, so that somebody who has run it on Kafka recognises the figures. The tool makes
//! each record's random bytes while it sends, and its JVM is a cold one: it measures itself more than a broker.

use std::process::Command;

use crate::broker::{Broker, Kind};
use crate::failure::{Failure, io_failure};
use crate::results::Metrics;
use crate::rows::{BROKER_NS, Context, MB_S, Measure, Metric, Row, Size, metric, with_topic};

const RECORD_SIZE: u64 = 1024;
const AVERAGE: Metric = metric("avg_latency_ms", "its average latency, ms", 1);
const P99: Metric = metric("tool_p99_ms", "its 99th, ms", 0);

pub const ROWS: &[Row] = &[Row {
    name: "perf_test",
    what: "kafka-producer-perf-test, 1 KiB records, acks=all, its defaults otherwise (idempotent, 16 KiB batches)",
    measure: Measure::Loaded(perf_test),
    metrics: &[MB_S, AVERAGE, P99, BROKER_NS],
    brokers: &Kind::ALL,
    most_rounds: &[],
}];

/// The settings that are not the tool's defaults.
pub const SETTINGS: &[&str] = &["acks=all"];

fn perf_test(context: &Context, broker: &Broker) -> Result<Metrics, Failure> {
    let records: u64 = match context.size {
        Size::Full => 200_000,
        Size::Smoke => 1000,
    };
    with_topic(broker, "perf_test", 1, |topic| {
        let before = broker.process.cpu()?;
        let output = Command::new(&context.programs.apache_kafka)
            .args(["tool", "org.apache.kafka.tools.ProducerPerformance", "--topic", topic])
            .args(["--num-records", &records.to_string()])
            .args(["--record-size", &RECORD_SIZE.to_string(), "--throughput", "-1"])
            .args(["--producer-props", &format!("bootstrap.servers={}", broker.bootstrap())])
            .args(SETTINGS)
            .output()
            .map_err(io_failure("starting kafka-producer-perf-test"))?;
        let broker_cpu = broker.process.cpu()?.saturating_sub(before);
        let text = String::from_utf8_lossy(&output.stdout);
        let Some(summary) = summary(&text).filter(|summary| summary.records == records) else {
            let words = String::from_utf8_lossy(&output.stderr);
            return Err(Failure::Load(format!("{}: {text}{words}", output.status)));
        };
        let bytes = (records * RECORD_SIZE) as f64;
        Ok(vec![
            (MB_S.key, summary.records_s * RECORD_SIZE as f64 / 1e6),
            (AVERAGE.key, summary.average_ms),
            (P99.key, summary.p99_ms),
            (BROKER_NS.key, broker_cpu.as_secs_f64() * 1e9 / bytes),
        ])
    })
}

/// What the tool says at its end.
#[derive(Debug, PartialEq)]
struct Summary {
    records: u64,
    records_s: f64,
    average_ms: f64,
    p99_ms: f64,
}

/// From its last line; lines before it are of the time so far and name no percentile.
fn summary(text: &str) -> Option<Summary> {
    let line = text.lines().rev().find(|line| line.contains(" 99.9th"))?;
    let before = |what: &str| {
        let words: Vec<_> = line.split(what).next()?.split([' ', '(', ',']).collect();
        words.iter().rev().find(|word| !word.is_empty()).copied()
    };
    Some(Summary {
        records: before(" records sent")?.parse().ok()?,
        records_s: before(" records/sec")?.parse().ok()?,
        average_ms: before(" ms avg latency")?.parse().ok()?,
        p99_ms: before(" ms 99th")?.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tools_last_line_is_understood() {
        let text = "236101 records sent, 47220.2 records/sec (46.11 MB/sec), 453.4 ms avg latency, 874.0 ms max latency.\n\
            300000 records sent, 52733.3 records/sec (51.50 MB/sec), 435.13 ms avg latency, 874.00 ms max latency, 410 ms 50th, \
            780 ms 95th, 853 ms 99th, 871 ms 99.9th.\n";
        let expected =
            Summary { records: 300_000, records_s: 52733.3, average_ms: 435.13, p99_ms: 853.0 };
        assert_eq!(summary(text), Some(expected));
        assert_eq!(summary("Exception in thread \"main\"\n"), None);
    }
}
