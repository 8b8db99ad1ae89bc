//! How long a message takes through librdkafka from its producer to its consumer, at a rate that is kept whatever the broker does.

use crate::broker::{Broker, Kind};
use crate::failure::Failure;
use crate::load::{CONSUMER, Client, PROMPT_PRODUCER, number};
use crate::results::Metrics;
use crate::rows::{
    Context, Measure, Metric, Row, Size, aimed, information, metric, throughput, with_topic,
};
use crate::target::Target;

const MESSAGE_SIZE: usize = 1024;
const SECONDS: f64 = 4.0;
/// At half of the peak a second is a quarter of a GiB and more.
const SECONDS_AT_HALF_PEAK: f64 = 2.0;
/// Of the measured seconds, before them.
const WARM_UP_SHARE: f64 = 0.25;

const P50: Metric = metric("p50_ms", "p50, ms", 3);
const P99: Metric = metric("p99_ms", "p99, ms", 3);
const P999: Metric = metric("p999_ms", "p99.9, ms", 3);
/// What half of the peak was.
const RATE: Metric = information(metric("messages_s", "messages/s", 0));
/// What the client added itself: a sender that comes late sends the messages that are due together.
const LATE: Metric = information(metric("sender_late_ms", "sender late by at most, ms", 2));

pub const ROWS: &[Row] = &[
    Row {
        name: "latency_1000",
        what: "1 KiB through librdkafka, producer to consumer, at 1,000 messages/s, linger 0",
        measure: Measure::Loaded(|context, broker| latency(context, broker, 1000.0, SECONDS)),
        metrics: &[
            aimed(P50, &[Target::AtMost(0.15)]),
            aimed(P99, &[Target::AtMost(0.6), Target::AtMostTimes(0.2, Kind::Kafka)]),
            aimed(P999, &[Target::AtMost(3.0)]),
            LATE,
        ],
        brokers: &Kind::ALL,
        most_rounds: &[],
    },
    Row {
        name: "latency_half_peak",
        what: "the same at half of the rate at which this broker takes them",
        measure: Measure::Loaded(at_half_peak),
        metrics: &[RATE, P50, P99, P999, LATE],
        brokers: &Kind::ALL,
        most_rounds: &[],
    },
];

fn at_half_peak(context: &Context, broker: &Broker) -> Result<Metrics, Failure> {
    let peak = throughput::peak(context, broker)?;
    let rate = peak * 1e6 / MESSAGE_SIZE as f64 / 2.0;
    let mut metrics = latency(context, broker, rate, SECONDS_AT_HALF_PEAK)?;
    metrics.push((RATE.key, rate));
    Ok(metrics)
}

fn latency(
    context: &Context,
    broker: &Broker,
    rate: f64,
    seconds: f64,
) -> Result<Metrics, Failure> {
    let seconds = match context.size {
        Size::Full => seconds,
        Size::Smoke => 0.2,
    };
    let messages = (rate * seconds).ceil();
    with_topic(broker, "latency", 1, |topic| {
        let mut arguments = vec![broker.bootstrap(), topic.to_owned()];
        arguments.extend([MESSAGE_SIZE.to_string(), format!("{rate:.1}")]);
        arguments.extend([(messages * WARM_UP_SHARE).ceil(), messages].map(|n| n.to_string()));
        arguments.extend(PROMPT_PRODUCER.iter().map(|setting| format!("produce:{setting}")));
        arguments.extend(CONSUMER.iter().map(|setting| format!("consume:{setting}")));
        let mut client = Client::start(&context.programs.rdkafka_latency, &arguments)?;
        client.go();
        let figures = client.figures()?;
        Ok(vec![
            (P50.key, number(&figures, "p50_ms")?),
            (P99.key, number(&figures, "p99_ms")?),
            (P999.key, number(&figures, "p999_ms")?),
            (LATE.key, number(&figures, "late_ms")?),
        ])
    })
}
