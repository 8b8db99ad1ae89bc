//! `highwater wait ready`: for scripts that start a broker and then use it.

use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Subcommand};
use client::retry::Backoff;
use client::{ClientError, Cluster};
use serde::Serialize;
use tokio::time::Instant;

use super::output::{print, print_json};
use super::{ClientOptions, CommandError};

/// `highwater wait …`
#[derive(Clone, Debug, Subcommand)]
pub enum WaitCommand {
    /// Wait until a broker answers and the cluster has a controller
    Ready(ReadyArgs),
}

/// `highwater wait ready`
#[derive(Clone, Debug, Args)]
pub struct ReadyArgs {
    #[command(flatten)]
    client: ClientOptions,
    /// Give up after so many seconds, with exit code 1
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    timeout: u64,
}

#[derive(Serialize)]
struct ReadyJson {
    ready: bool,
    cluster_id: Option<String>,
    controller: i32,
    brokers: usize,
    waited_ms: u128,
}

impl WaitCommand {
    pub(super) async fn run(self) -> Result<ExitCode, CommandError> {
        match self {
            WaitCommand::Ready(args) => args.run().await,
        }
    }
}

impl ReadyArgs {
    async fn run(self) -> Result<ExitCode, CommandError> {
        let started = Instant::now();
        let limit = Duration::from_secs(self.timeout);
        // Local brokers are ready in milliseconds: look often at first.
        let mut backoff = Backoff::new(Duration::from_millis(10), Duration::from_millis(250));
        loop {
            let left = limit.saturating_sub(started.elapsed());
            let error = match tokio::time::timeout(left, self.look()).await {
                Ok(Ok((cluster_id, controller, brokers))) => {
                    return self.ready(ReadyJson {
                        ready: true,
                        cluster_id,
                        controller,
                        brokers,
                        waited_ms: started.elapsed().as_millis(),
                    });
                }
                Ok(Err(error)) => error.to_string(),
                Err(_) => "no answer".to_owned(),
            };
            let wait = backoff.next(rand::random());
            if started.elapsed() + wait >= limit {
                return Err(CommandError::Failed(format!(
                    "not ready after {} s: {error}",
                    self.timeout
                )));
            }
            tokio::time::sleep(wait).await;
        }
    }

    async fn look(&self) -> Result<(Option<String>, i32, usize), ClientError> {
        let cluster = Cluster::connect(self.client.cluster_config()).await?;
        let metadata = cluster.metadata(Some(&[])).await?;
        // Named is not enough: a client's next request goes to the address that it advertises.
        let controller = cluster.controller().await?;
        tracing::debug!(controller = controller.address(), "ready");
        let id = metadata.controller.unwrap_or(-1);
        Ok((metadata.cluster_id, id, metadata.brokers.len()))
    }

    fn ready(&self, ready: ReadyJson) -> Result<ExitCode, CommandError> {
        if self.client.json {
            print_json(&ready)?;
        } else {
            let brokers = if ready.brokers == 1 { "broker" } else { "brokers" };
            print(&format!(
                "ready: {} {brokers}, controller {}\n",
                ready.brokers, ready.controller
            ))?;
        }
        Ok(ExitCode::SUCCESS)
    }
}
