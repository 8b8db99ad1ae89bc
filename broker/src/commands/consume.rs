//! `highwater consume TOPIC`: records of a topic to stdout, without a group.

mod format;
mod start;

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, ValueEnum};
use client::admin::{Admin, IsolationLevel, OffsetSpec};
use client::fetcher::{FetchedPartition, Fetcher, FetcherConfig, OffsetReset};
use client::{Cluster, ResponseError};

use super::{ClientOptions, CommandError};
use format::{RecordFormat, RecordLine};
use start::Start;

/// How long to wait for an answer before looking around; nothing depends on it.
const POLL: Duration = Duration::from_secs(60);

/// `highwater consume`
#[derive(Clone, Debug, Args)]
pub struct ConsumeArgs {
    /// The topic
    topic: String,
    /// Where to begin: beginning, end, an OFFSET, -N for the last N of each partition, or @MILLIS for a time since 1970
    #[arg(long, value_name = "WHERE", default_value = "beginning", allow_hyphen_values = true)]
    from: Start,
    /// Only this partition; may be given several times
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(0..))]
    partition: Vec<i32>,
    /// Stop after so many records
    #[arg(long, short = 'n', value_name = "N")]
    max_messages: Option<u64>,
    /// Stop at what was the end when it started
    #[arg(long, visible_alias = "once")]
    exit_at_end: bool,
    /// How to print a record: %t topic, %p partition, %o offset, %T timestamp, %k key, %v value, %h headers, %% percent;
    /// \n, \t, \r, \0 and \\ as in C
    #[arg(long, value_name = "FORMAT", default_value = r"%v\n", conflicts_with = "json")]
    format: RecordFormat,
    /// Whether to wait for transactions and leave out aborted ones
    #[arg(long, value_enum, default_value_t = IsolationArg::ReadUncommitted)]
    isolation: IsolationArg,
    #[command(flatten)]
    client: ClientOptions,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
enum IsolationArg {
    ReadUncommitted,
    ReadCommitted,
}

impl ConsumeArgs {
    pub(super) async fn run(self) -> Result<ExitCode, CommandError> {
        let cluster = self.client.connect().await?;
        let isolation = match self.isolation {
            IsolationArg::ReadUncommitted => IsolationLevel::ReadUncommitted,
            IsolationArg::ReadCommitted => IsolationLevel::ReadCommitted,
        };
        // Records that retention takes away under our eyes are no reason to stop.
        let config = FetcherConfig {
            isolation,
            offset_reset: OffsetReset::Earliest,
            ..FetcherConfig::default()
        };
        let mut fetcher = Fetcher::new(&cluster, config);
        let admin = Admin::new(&cluster);
        let mut ends = BTreeMap::new();
        for partition in self.partitions(&cluster).await? {
            let start = self.from.offset(&admin, &self.topic, partition, isolation).await?;
            if self.exit_at_end {
                let end = admin
                    .list_offset(&self.topic, partition, OffsetSpec::Latest, isolation)
                    .await?;
                let end = end.map_or(0, |end| end.offset);
                if start >= end {
                    continue;
                }
                ends.insert(partition, end);
            }
            fetcher.assign(&self.topic, partition, start);
        }
        let mut left = self.max_messages.unwrap_or(u64::MAX);
        while left > 0 && !(self.exit_at_end && ends.is_empty()) {
            let fetched = fetcher.poll(POLL).await.map_err(|error| self.explain(error))?;
            for partition in fetched {
                let end = ends.get(&partition.partition).copied();
                self.print(&partition, end.unwrap_or(i64::MAX), &mut left)?;
                if end.is_some_and(|end| partition.next_offset() >= end) {
                    ends.remove(&partition.partition);
                    fetcher.unassign(&self.topic, partition.partition);
                }
            }
        }
        Ok(ExitCode::SUCCESS)
    }

    async fn partitions(&self, cluster: &Cluster) -> Result<Vec<i32>, CommandError> {
        let topic = cluster.topic(&self.topic).await?;
        let all: Vec<i32> = topic.partitions.iter().map(|partition| partition.partition).collect();
        if self.partition.is_empty() {
            return Ok(all);
        }
        for partition in &self.partition {
            if !all.contains(partition) {
                let message = format!(
                    "topic {} has no partition {partition}: it has {}",
                    self.topic,
                    all.len()
                );
                return Err(CommandError::Failed(message));
            }
        }
        Ok(self.partition.clone())
    }

    /// Prints what is before `end`, at most `left` records.
    fn print(
        &self,
        partition: &FetchedPartition,
        end: i64,
        left: &mut u64,
    ) -> Result<(), CommandError> {
        let mut out = io::BufWriter::new(io::stdout().lock());
        for record in partition.records() {
            let record = record?;
            if record.offset >= end || *left == 0 {
                break;
            }
            let line = RecordLine {
                topic: &partition.topic,
                partition: partition.partition,
                record: &record,
            };
            let written = if self.client.json {
                line.write_json(&mut out)
            } else {
                self.format.write(&line, &mut out)
            };
            written.map_err(CommandError::stdout)?;
            *left -= 1;
        }
        out.flush().map_err(CommandError::stdout)
    }

    fn explain(&self, error: client::ClientError) -> CommandError {
        match error.kafka_error() {
            Some(ResponseError::UnknownTopicOrPartition | ResponseError::UnknownTopicId) => {
                CommandError::with_hint(
                    error,
                    format!("topic {} was deleted, or is being created", self.topic),
                )
            }
            _ => error.into(),
        }
    }
}
