//! The flags of `highwater serve`.

use std::path::PathBuf;

use super::broker_config::TopicToCreate;
use super::error::ConfigError;

/// The flags of `highwater serve`.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct ServeFlags {
    /// Kafka's server.properties
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// One setting by Kafka's name, over the file and the environment
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// Where the data lies [default: ./highwater-data]
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Address for clients, or NAME://HOST:PORT; port 0 is a free one [default: 127.0.0.1:9092]
    #[arg(long, value_name = "HOST:PORT")]
    pub listen: Vec<String>,
    /// This node's number in the cluster [default: 1]
    #[arg(long, value_name = "N")]
    pub node_id: Option<i32>,
    /// Keep the data in a fresh temporary directory, removed at exit
    #[arg(long, conflicts_with = "data_dir")]
    pub ephemeral: bool,
    /// Create this topic before the ready line
    #[arg(long, value_name = "NAME[:PARTITIONS]")]
    pub topic: Vec<String>,
    /// Write ports and ids to this file when ready, as JSON
    #[arg(long, value_name = "FILE")]
    pub ready_file: Option<PathBuf>,
    /// Stop when standard input ends, so when the parent process dies
    #[arg(long)]
    pub exit_with_stdin: bool,
}

/// Splits `--set KEY=VALUE`; the value may hold further `=`.
pub(super) fn parse_set(text: &str) -> Result<(String, String), ConfigError> {
    match text.split_once('=') {
        Some((key, value)) if !key.trim().is_empty() => {
            Ok((key.trim().to_owned(), value.to_owned()))
        }
        _ => Err(ConfigError::Flag {
            flag: "--set",
            value: text.to_owned(),
            reason: "KEY=VALUE is what it takes, such as --set log.segment.bytes=16777216"
                .to_owned(),
        }),
    }
}

/// Splits `--topic NAME[:PARTITIONS]`. A topic's name holds no colon.
pub(super) fn parse_topic(text: &str) -> Result<TopicToCreate, ConfigError> {
    let refuse = |reason: &str| ConfigError::Flag {
        flag: "--topic",
        value: text.to_owned(),
        reason: reason.to_owned(),
    };
    let (name, partitions) = match text.split_once(':') {
        None => (text, None),
        Some((name, count)) => match count.parse::<i32>() {
            Ok(count) if count >= 1 => (name, Some(count)),
            _ => return Err(refuse("the number of partitions must be at least 1")),
        },
    };
    if name.is_empty() {
        return Err(refuse("NAME[:PARTITIONS] is what it takes, such as --topic orders:3"));
    }
    Ok(TopicToCreate { name: name.to_owned(), partitions })
}
