//! The commands of `highwater` that are clients of a broker, any Kafka-protocol broker, and `log dump`, which reads files.
//!
//! Output is a table for a person or, with `--json`, JSON for a program, on stdout; everything else goes to stderr.
//! Errors say what to do next. Exit codes: 0 done, 1 the broker or the network said no, 2 the command line is wrong.

mod cluster;
mod consume;
mod log_dump;
mod output;
mod produce;
mod topic;
mod wait;

use std::io;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Subcommand};
use client::{ClientError, Cluster, ClusterConfig, ResponseError};

/// What a client command asks a broker to do.
#[derive(Clone, Debug, Subcommand)]
pub enum ClientCommand {
    /// Create, list, describe and delete topics
    #[command(subcommand)]
    Topic(topic::TopicCommand),
    /// Write records: a line of stdin each
    Produce(produce::ProduceArgs),
    /// Print the records of a topic
    Consume(consume::ConsumeArgs),
    /// Look at the cluster
    #[command(subcommand)]
    Cluster(cluster::ClusterCommand),
    /// Look into the files of a partition
    #[command(subcommand)]
    Log(log_dump::LogCommand),
    /// Wait until something holds, for scripts
    #[command(subcommand)]
    Wait(wait::WaitCommand),
}

impl ClientCommand {
    /// Runs the command. Needs a tokio runtime; one thread is enough.
    ///
    /// # Errors
    /// What stopped it; [`CommandError::report`] prints it and gives the exit code.
    pub async fn run(self) -> Result<ExitCode, CommandError> {
        match self {
            ClientCommand::Topic(command) => command.run().await,
            ClientCommand::Produce(args) => args.run().await,
            ClientCommand::Consume(args) => args.run().await,
            ClientCommand::Cluster(command) => command.run().await,
            ClientCommand::Log(command) => command.run(),
            ClientCommand::Wait(command) => command.run().await,
        }
    }
}

/// Which broker, and how to print: the same for every client command.
#[derive(Clone, Debug, Args)]
pub struct ClientOptions {
    /// Brokers to begin with; one of the cluster is enough
    #[arg(long, value_name = "HOST:PORT", value_delimiter = ',', default_value = "127.0.0.1:9092")]
    pub bootstrap: Vec<String>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

impl ClientOptions {
    fn cluster_config(&self) -> ClusterConfig {
        // A person waits at the other end: less patience than a service has.
        let mut config = ClusterConfig::new(&self.bootstrap);
        config.connection.connect_timeout = Duration::from_secs(5);
        config.connection.request_timeout = Duration::from_secs(15);
        config.api_timeout = Duration::from_secs(20);
        config
    }

    async fn connect(&self) -> Result<Cluster, CommandError> {
        Ok(Cluster::connect(self.cluster_config()).await?)
    }
}

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// The broker, or the way to it.
    #[error("{error}{}", hint.as_ref().map(|hint| format!("\n  {hint}")).unwrap_or_default())]
    Client {
        /// What went wrong.
        error: ClientError,
        /// What to do about it.
        hint: Option<String>,
    },
    /// The command line asks for something that makes no sense.
    #[error("{0}")]
    Usage(String),
    /// Reading input, writing output.
    #[error("{what}: {source}")]
    Io {
        /// Which input or output.
        what: String,
        /// What the system said.
        source: io::Error,
    },
    /// Who read our output has seen enough: no error, only the end.
    #[error("stdout was closed")]
    OutputClosed,
    /// It was done, and the result is bad; the message says how.
    #[error("{0}")]
    Failed(String),
}

impl CommandError {
    /// Prints the error to stderr, and gives the exit code for it.
    pub fn report(&self) -> ExitCode {
        match self {
            CommandError::OutputClosed => ExitCode::SUCCESS,
            CommandError::Usage(_) => {
                eprintln!("highwater: {self}");
                ExitCode::from(2)
            }
            CommandError::Client { .. } | CommandError::Io { .. } | CommandError::Failed(_) => {
                eprintln!("highwater: {self}");
                ExitCode::FAILURE
            }
        }
    }

    fn stdout(source: io::Error) -> CommandError {
        match source.kind() {
            io::ErrorKind::BrokenPipe => CommandError::OutputClosed,
            _ => CommandError::Io { what: "stdout".to_owned(), source },
        }
    }

    /// A client's error with a hint for this one case.
    fn with_hint(error: ClientError, hint: impl Into<String>) -> CommandError {
        CommandError::Client { error, hint: Some(hint.into()) }
    }
}

impl From<ClientError> for CommandError {
    fn from(error: ClientError) -> Self {
        let hint = match &error {
            ClientError::NoBroker { tried } if tried.iter().all(|error| error.is_refused()) => Some(
                "nothing listens there: start a broker with `highwater`, or name another with --bootstrap HOST:PORT"
                    .to_owned(),
            ),
            ClientError::NoBroker { .. } | ClientError::NoBootstrap => {
                Some("name a broker that can be reached with --bootstrap HOST:PORT".to_owned())
            }
            ClientError::Connection(error) if error.is_retriable() => Some(
                "that is the address which the broker advertises; if it is wrong, see advertised.listeners".to_owned(),
            ),
            _ => match error.kafka_error() {
                Some(ResponseError::UnknownTopicOrPartition) => {
                    Some("see `highwater topic list`; make one with `highwater topic create NAME`".to_owned())
                }
                Some(ResponseError::TopicAlreadyExists) => Some("--if-not-exists accepts that".to_owned()),
                _ => None,
            },
        };
        CommandError::Client { error, hint }
    }
}
