//! `highwater produce TOPIC`: a record for each line of stdin.

mod input;

use std::collections::VecDeque;
use std::io::{self, BufRead, IsTerminal};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use clap::{Args, ValueEnum};
use client::ClientError;
use client::producer::{Acks, Delivery, Producer, ProducerConfig};
use client::record::{Compression, Header};
use serde::Serialize;
use tokio::sync::mpsc;

use super::output::{key_value, print_json};
use super::{ClientOptions, CommandError};
use client::Cluster;
use input::{InputFormat, LineParser};

/// Records whose acknowledgement nobody has looked at yet.
const MAX_UNCHECKED: usize = 16 << 10;
/// Lines read ahead of the producer.
const LINES_AHEAD: usize = 1024;

/// `highwater produce`
#[derive(Clone, Debug, Args)]
pub struct ProduceArgs {
    /// The topic; created if the broker allows that
    topic: String,
    /// What a line of stdin is
    #[arg(long, value_enum, default_value_t = InputFormat::Lines)]
    format: InputFormat,
    /// Splits each line into a key and a value, at its first place
    #[arg(long, value_name = "TEXT")]
    key_separator: Option<String>,
    /// A header for every record; may be given several times, also with one key
    #[arg(long, value_name = "KEY=VALUE", value_parser = key_value)]
    header: Vec<(String, String)>,
    /// Writes to this partition, whatever the keys
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(0..))]
    partition: Option<i32>,
    /// When a record counts as stored
    #[arg(long, value_enum, default_value_t = AcksArg::All)]
    acks: AcksArg,
    /// none, gzip, snappy, lz4 or zstd
    #[arg(long, value_name = "CODEC", default_value = "none")]
    compression: Compression,
    /// Lets a record that is sent again be stored twice; implied by other acks than all
    #[arg(long)]
    no_idempotence: bool,
    #[command(flatten)]
    client: ClientOptions,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum AcksArg {
    /// When all in-sync replicas have it
    All,
    /// When the leader has it
    #[value(name = "1")]
    Leader,
    /// Nobody says
    #[value(name = "0")]
    None,
}

#[derive(Serialize)]
struct ProducedJson<'a> {
    topic: &'a str,
    partition: i32,
    offset: Option<i64>,
    timestamp: i64,
}

impl ProduceArgs {
    pub(super) async fn run(self) -> Result<ExitCode, CommandError> {
        let mut config = self.client.cluster_config();
        config.allow_auto_topic_creation = true;
        // A topic that the broker does not create by itself should be reported soon.
        config.api_timeout = Duration::from_secs(5);
        let cluster = Cluster::connect(config).await?;
        let producer = Producer::new(&cluster, self.producer_config()).await?;
        let parser = LineParser {
            format: self.format,
            topic: Arc::from(self.topic.as_str()),
            partition: self.partition,
            key_separator: self.key_separator.clone().map(String::into_bytes),
            headers: self
                .header
                .iter()
                .map(|(key, value)| Header { key: text(key), value: Some(text(value)) })
                .collect(),
        };
        let mut written = Written {
            topic: &self.topic,
            is_json: self.client.json,
            count: 0,
            unchecked: VecDeque::new(),
        };
        let result = written.write(&producer, &parser).await;
        let records = if written.count == 1 { "record" } else { "records" };
        eprintln!("produced {} {records} to {}", written.count, self.topic);
        result?;
        Ok(ExitCode::SUCCESS)
    }

    fn producer_config(&self) -> ProducerConfig {
        ProducerConfig {
            acks: match self.acks {
                AcksArg::All => Acks::All,
                AcksArg::Leader => Acks::Leader,
                AcksArg::None => Acks::None,
            },
            compression: self.compression,
            is_idempotent: !self.no_idempotence,
            // Lines of a file come faster than batches leave.
            linger: Duration::from_millis(2),
            delivery_timeout: Duration::from_secs(30),
            ..ProducerConfig::default()
        }
    }
}

struct Written<'a> {
    topic: &'a str,
    is_json: bool,
    /// Acknowledged, or sent where nobody acknowledges.
    count: u64,
    unchecked: VecDeque<Delivery>,
}

impl Written<'_> {
    async fn write(
        &mut self,
        producer: &Producer,
        parser: &LineParser,
    ) -> Result<(), CommandError> {
        let mut lines = read_lines();
        let mut number = 0u64;
        while let Some(line) = lines.recv().await {
            let line =
                line.map_err(|source| CommandError::Io { what: "stdin".to_owned(), source })?;
            number += 1;
            let record = match parser.parse(&line) {
                Ok(record) => record,
                Err(reason) => {
                    // What came before it was fine.
                    self.check(0).await?;
                    return Err(CommandError::Usage(format!("line {number}: {reason}")));
                }
            };
            match producer.send(record).await {
                Ok(delivery) => self.unchecked.push_back(delivery),
                Err(error) => {
                    self.check(0).await?;
                    return Err(self.explain(error));
                }
            }
            self.check(if lines.is_empty() { 0 } else { MAX_UNCHECKED }).await?;
        }
        self.check(0).await
    }

    /// Looks at acknowledgements until at most `left` are missing.
    async fn check(&mut self, left: usize) -> Result<(), CommandError> {
        while self.unchecked.len() > left
            && let Some(delivery) = self.unchecked.pop_front()
        {
            let metadata = delivery.get().await.map_err(|error| self.explain(error))?;
            self.count += 1;
            if self.is_json {
                print_json(&ProducedJson {
                    topic: self.topic,
                    partition: metadata.partition,
                    offset: metadata.offset,
                    timestamp: metadata.timestamp,
                })?;
            }
        }
        Ok(())
    }

    fn explain(&self, error: ClientError) -> CommandError {
        match &error {
            ClientError::TimedOut { .. } => CommandError::with_hint(
                error,
                format!("if there is no such topic: `highwater topic create {}`", self.topic),
            ),
            _ => error.into(),
        }
    }
}

/// A thread of its own reads, because reading a terminal or a pipe blocks.
fn read_lines() -> mpsc::Receiver<io::Result<Vec<u8>>> {
    let (sender, receiver) = mpsc::channel(LINES_AHEAD);
    if io::stdin().is_terminal() {
        eprintln!("a record a line; Ctrl-D ends");
    }
    std::thread::spawn(move || {
        let mut stdin = io::stdin().lock();
        loop {
            let mut line = Vec::new();
            let read = stdin.read_until(b'\n', &mut line);
            if line.last() == Some(&b'\n') {
                line.pop();
            }
            let item = match read {
                Ok(0) => return,
                Ok(_) => Ok(line),
                Err(error) => Err(error),
            };
            let is_last = item.is_err();
            if sender.blocking_send(item).is_err() || is_last {
                return;
            }
        }
    });
    receiver
}

fn text(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}
