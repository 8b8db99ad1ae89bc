//! `highwater topic create|list|describe|delete`.

use std::collections::BTreeMap;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use client::ResponseError;
use client::admin::{Admin, ConfigResource, ConfigSource, IsolationLevel, NewTopic, OffsetSpec};
use client::cluster::{PartitionMetadata, TopicMetadata};
use client::error::{ClientError, ConnectionError, KafkaError};
use serde::Serialize;

use super::output::{ids, key_value, or_dash, print, print_json, table};
use super::{ClientOptions, CommandError};

/// `highwater topic …`
#[derive(Clone, Debug, Subcommand)]
pub enum TopicCommand {
    /// Create a topic
    Create(CreateArgs),
    /// List the topics
    List(ListArgs),
    /// Show partitions, leaders, replicas, offsets and configs
    Describe(DescribeArgs),
    /// Delete topics with all their records
    Delete(DeleteArgs),
}

/// `highwater topic create`
#[derive(Clone, Debug, Args)]
pub struct CreateArgs {
    /// Its name: letters, digits, dot, underscore and dash
    name: String,
    /// How many partitions [default: the broker's num.partitions]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(1..))]
    partitions: Option<i32>,
    /// How many replicas of each partition [default: the broker's default.replication.factor]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i16).range(1..))]
    replication_factor: Option<i16>,
    /// A topic config, for example retention.ms=60000; may be given several times
    #[arg(long, value_name = "KEY=VALUE", value_parser = key_value)]
    config: Vec<(String, String)>,
    /// Succeed if the topic is there already, whatever its shape
    #[arg(long)]
    if_not_exists: bool,
    #[command(flatten)]
    client: ClientOptions,
}

/// `highwater topic list`
#[derive(Clone, Debug, Args)]
pub struct ListArgs {
    /// Kafka's own topics too
    #[arg(long)]
    internal: bool,
    #[command(flatten)]
    client: ClientOptions,
}

/// `highwater topic describe`
#[derive(Clone, Debug, Args)]
pub struct DescribeArgs {
    /// Which topics
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
    /// Every config, not only those that were set
    #[arg(long)]
    all_configs: bool,
    #[command(flatten)]
    client: ClientOptions,
}

/// `highwater topic delete`
#[derive(Clone, Debug, Args)]
pub struct DeleteArgs {
    /// Which topics
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
    /// Succeed if a topic is not there
    #[arg(long)]
    if_exists: bool,
    #[command(flatten)]
    client: ClientOptions,
}

#[derive(Serialize)]
struct CreatedJson<'a> {
    name: &'a str,
    created: bool,
    topic_id: Option<String>,
    partitions: Option<i32>,
    replication_factor: Option<i16>,
}

#[derive(Serialize)]
struct ListedJson {
    name: String,
    topic_id: Option<String>,
    partitions: usize,
    replication_factor: usize,
    internal: bool,
}

#[derive(Serialize)]
struct TopicJson {
    name: String,
    topic_id: Option<String>,
    internal: bool,
    partitions: Vec<PartitionJson>,
    configs: BTreeMap<String, Option<String>>,
}

#[derive(Serialize)]
struct PartitionJson {
    partition: i32,
    leader: Option<i32>,
    leader_epoch: Option<i32>,
    replicas: Vec<i32>,
    isr: Vec<i32>,
    offline_replicas: Vec<i32>,
    start_offset: Option<i64>,
    end_offset: Option<i64>,
    error: Option<String>,
}

#[derive(Serialize)]
struct DeletedJson<'a> {
    name: &'a str,
    deleted: bool,
}

impl TopicCommand {
    pub(super) async fn run(self) -> Result<ExitCode, CommandError> {
        match self {
            TopicCommand::Create(args) => args.run().await,
            TopicCommand::List(args) => args.run().await,
            TopicCommand::Describe(args) => args.run().await,
            TopicCommand::Delete(args) => args.run().await,
        }
    }
}

impl CreateArgs {
    async fn run(self) -> Result<ExitCode, CommandError> {
        let cluster = self.client.connect().await?;
        let topic = NewTopic {
            name: self.name,
            partitions: self.partitions,
            replication_factor: self.replication_factor,
            assignments: Vec::new(),
            configs: self.config.into_iter().collect(),
        };
        let created = match Admin::new(&cluster).create_topic(&topic, false).await {
            Ok(created) => Some(created),
            Err(e)
                if self.if_not_exists
                    && e.kafka_error() == Some(ResponseError::TopicAlreadyExists) =>
            {
                None
            }
            Err(error) => return Err(error.into()),
        };
        if self.client.json {
            print_json(&CreatedJson {
                name: &topic.name,
                created: created.is_some(),
                topic_id: created.as_ref().and_then(|c| c.topic_id).map(|id| id.to_string()),
                partitions: created.as_ref().and_then(|c| c.partitions),
                replication_factor: created.as_ref().and_then(|c| c.replication_factor),
            })?;
            return Ok(ExitCode::SUCCESS);
        }
        let name = &topic.name;
        let text = match created {
            None => format!("topic {name} exists already\n"),
            Some(created) => match (created.partitions, created.replication_factor) {
                (Some(partitions), Some(factor)) => {
                    format!(
                        "created topic {name}: partitions {partitions}, replication factor {factor}\n"
                    )
                }
                _ => format!("created topic {name}\n"),
            },
        };
        print(&text)?;
        Ok(ExitCode::SUCCESS)
    }
}

impl ListArgs {
    async fn run(self) -> Result<ExitCode, CommandError> {
        let cluster = self.client.connect().await?;
        let topics = cluster.metadata(None).await?.topics;
        let listed: Vec<ListedJson> = topics
            .into_iter()
            .filter(|topic| self.internal || !topic.is_internal)
            .map(|topic| ListedJson {
                topic_id: topic.topic_id.map(|id| id.to_string()),
                partitions: topic.partitions.len(),
                replication_factor: topic.partitions.first().map_or(0, |p| p.replicas.len()),
                internal: topic.is_internal,
                name: topic.name,
            })
            .collect();
        if self.client.json {
            print_json(&listed)?;
        } else if listed.is_empty() {
            eprintln!("no topics yet: `highwater topic create NAME` makes one");
        } else {
            let rows = listed.into_iter().map(|topic| {
                let counts = (topic.partitions.to_string(), topic.replication_factor.to_string());
                [topic.name, counts.0, counts.1, or_dash(topic.topic_id)]
            });
            print(&table(["TOPIC", "PARTITIONS", "REPLICAS", "ID"], rows.collect()))?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

impl DescribeArgs {
    async fn run(self) -> Result<ExitCode, CommandError> {
        let cluster = self.client.connect().await?;
        let admin = Admin::new(&cluster);
        let mut described = Vec::new();
        for name in &self.names {
            let topic = cluster.topic(name).await?;
            described.push(self.describe(&admin, topic).await?);
        }
        if self.client.json {
            print_json(&described)?;
            return Ok(ExitCode::SUCCESS);
        }
        let texts: Vec<String> = described.iter().map(TopicJson::to_text).collect();
        print(&texts.join("\n"))?;
        Ok(ExitCode::SUCCESS)
    }

    async fn describe(
        &self,
        admin: &Admin,
        topic: TopicMetadata,
    ) -> Result<TopicJson, CommandError> {
        let configs = match admin.describe_configs(&ConfigResource::Topic(topic.name.clone())).await
        {
            Ok(configs) => configs,
            // Not allowed to see them, or the broker has no such request: the rest is worth showing.
            Err(error)
                if error.kafka_error().is_some()
                    || matches!(
                        error,
                        ClientError::Connection(ConnectionError::UnsupportedVersion { .. })
                    ) =>
            {
                eprintln!("highwater: configs are missing: {error}");
                Vec::new()
            }
            Err(error) => return Err(error.into()),
        };
        let configs = configs
            .into_iter()
            .filter(|config| self.all_configs || config.source == ConfigSource::Topic)
            .map(|config| (config.name, config.value))
            .collect();
        let mut partitions = Vec::new();
        for partition in topic.partitions {
            partitions.push(describe_partition(admin, &topic.name, partition).await?);
        }
        Ok(TopicJson {
            name: topic.name,
            topic_id: topic.topic_id.map(|id| id.to_string()),
            internal: topic.is_internal,
            partitions,
            configs,
        })
    }
}

async fn describe_partition(
    admin: &Admin,
    topic: &str,
    partition: PartitionMetadata,
) -> Result<PartitionJson, CommandError> {
    let mut error = partition.error;
    let mut offsets = [None, None];
    if error.is_none() && partition.leader.is_some() {
        for (offset, spec) in offsets.iter_mut().zip([OffsetSpec::Earliest, OffsetSpec::Latest]) {
            let listed = admin
                .try_list_offset(topic, partition.partition, spec, IsolationLevel::ReadUncommitted)
                .await;
            match listed {
                Ok(listed) => *offset = listed.map(|listed| listed.offset),
                Err(ClientError::Kafka { error: refused, .. }) => error = Some(refused),
                Err(failed) => return Err(failed.into()),
            }
        }
    }
    Ok(PartitionJson {
        partition: partition.partition,
        leader: partition.leader,
        leader_epoch: partition.leader_epoch,
        replicas: partition.replicas,
        isr: partition.isr,
        offline_replicas: partition.offline_replicas,
        start_offset: offsets[0],
        end_offset: offsets[1],
        error: error.as_ref().map(KafkaError::name),
    })
}

impl TopicJson {
    fn to_text(&self) -> String {
        let mut text = format!("topic {}, id {}", self.name, or_dash(self.topic_id.as_ref()));
        if self.internal {
            text += ", internal";
        }
        text += "\n";
        for (name, value) in &self.configs {
            text += &format!("  {name}={}\n", value.as_deref().unwrap_or(""));
        }
        let rows = self.partitions.iter().map(|p| {
            [
                p.partition.to_string(),
                or_dash(p.leader),
                or_dash(p.leader_epoch),
                ids(&p.replicas),
                ids(&p.isr),
                or_dash(p.start_offset),
                or_dash(p.end_offset),
                p.note(),
            ]
        });
        let header = ["PARTITION", "LEADER", "EPOCH", "REPLICAS", "ISR", "START", "END", "NOTE"];
        text + "\n" + &table(header, rows.collect())
    }
}

impl PartitionJson {
    fn note(&self) -> String {
        let offline = (!self.offline_replicas.is_empty())
            .then(|| format!("offline: {}", ids(&self.offline_replicas)));
        self.error.iter().cloned().chain(offline).collect::<Vec<_>>().join(", ")
    }
}

impl DeleteArgs {
    async fn run(self) -> Result<ExitCode, CommandError> {
        let cluster = self.client.connect().await?;
        let admin = Admin::new(&cluster);
        let mut deleted = Vec::new();
        for name in &self.names {
            let is_deleted = match admin.delete_topic(name).await {
                Ok(()) => true,
                Err(e)
                    if self.if_exists
                        && e.kafka_error() == Some(ResponseError::UnknownTopicOrPartition) =>
                {
                    false
                }
                Err(e) if e.kafka_error() == Some(ResponseError::UnknownTopicOrPartition) => {
                    return Err(CommandError::with_hint(
                        e,
                        "--if-exists accepts that; see `highwater topic list`",
                    ));
                }
                Err(error) => return Err(error.into()),
            };
            if !self.client.json {
                let text = if is_deleted { "deleted topic" } else { "there is no topic" };
                print(&format!("{text} {name}\n"))?;
            }
            deleted.push(DeletedJson { name, deleted: is_deleted });
        }
        if self.client.json {
            print_json(&deleted)?;
        }
        Ok(ExitCode::SUCCESS)
    }
}
