//! `highwater cluster describe`.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use client::admin::Admin;
use serde::Serialize;

use super::output::{or_dash, print, print_json, table};
use super::{ClientOptions, CommandError};

/// `highwater cluster …`
#[derive(Clone, Debug, Subcommand)]
pub enum ClusterCommand {
    /// Show the cluster id, the brokers, the controller and the feature levels
    Describe(DescribeArgs),
}

/// `highwater cluster describe`
#[derive(Clone, Debug, Args)]
pub struct DescribeArgs {
    #[command(flatten)]
    client: ClientOptions,
}

#[derive(Serialize)]
struct ClusterJson {
    cluster_id: Option<String>,
    controller: Option<i32>,
    brokers: Vec<BrokerJson>,
    features: Vec<FeatureJson>,
}

#[derive(Serialize)]
struct BrokerJson {
    id: i32,
    host: String,
    port: i32,
    rack: Option<String>,
    fenced: bool,
}

#[derive(Serialize)]
struct FeatureJson {
    name: String,
    level: i16,
    min_level: i16,
    max_level: i16,
}

impl ClusterCommand {
    pub(super) async fn run(self) -> Result<ExitCode, CommandError> {
        match self {
            ClusterCommand::Describe(args) => args.run().await,
        }
    }
}

impl DescribeArgs {
    async fn run(self) -> Result<ExitCode, CommandError> {
        let cluster = self.client.connect().await?;
        let described = Admin::new(&cluster).describe_cluster().await?;
        if self.client.json {
            print_json(&ClusterJson {
                cluster_id: described.cluster_id,
                controller: described.controller,
                brokers: described
                    .brokers
                    .into_iter()
                    .map(|broker| BrokerJson {
                        id: broker.address.id,
                        host: broker.address.host,
                        port: broker.address.port,
                        rack: broker.address.rack,
                        fenced: broker.is_fenced,
                    })
                    .collect(),
                features: described
                    .features
                    .into_iter()
                    .map(|feature| FeatureJson {
                        name: feature.name,
                        level: feature.finalized_level,
                        min_level: feature.supported.0,
                        max_level: feature.supported.1,
                    })
                    .collect(),
            })?;
            return Ok(ExitCode::SUCCESS);
        }
        let mut text = format!("cluster {}\n\n", or_dash(described.cluster_id));
        let brokers = described.brokers.iter().map(|broker| {
            let mut roles = Vec::new();
            if described.controller == Some(broker.address.id) {
                roles.push("controller");
            }
            if broker.is_fenced {
                roles.push("fenced");
            }
            [
                broker.address.id.to_string(),
                broker.address.to_string(),
                or_dash(broker.address.rack.as_ref()),
                roles.join(", "),
            ]
        });
        text += &table(["BROKER", "ADDRESS", "RACK", "NOTE"], brokers.collect());
        if !described.features.is_empty() {
            let features = described.features.iter().map(|feature| {
                let (min, max) = feature.supported;
                [feature.name.clone(), feature.finalized_level.to_string(), format!("{min}-{max}")]
            });
            text += "\n";
            text += &table(["FEATURE", "LEVEL", "SUPPORTED"], features.collect());
        }
        print(&text)?;
        Ok(ExitCode::SUCCESS)
    }
}
