//! Configs of topics and brokers: read with their sources, change one by one (KIP-339).

use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::incremental_alter_configs_request::{
    AlterConfigsResource, AlterableConfig,
};
use kafka_protocol::messages::{DescribeConfigsRequest, IncrementalAlterConfigsRequest};

use super::Admin;
use super::topics::{incomplete, text};
use crate::connection::Connection;
use crate::error::{ClientError, KafkaError};

/// Whose configs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConfigResource {
    /// A topic's.
    Topic(String),
    /// A broker's, static and dynamic: only it can answer.
    Broker(i32),
    /// The dynamic defaults of all brokers.
    ClusterDefault,
}

/// Where a value comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConfigSource {
    /// Set on the topic.
    Topic,
    /// Set on the broker while it runs.
    DynamicBroker,
    /// Set for all brokers while they run.
    DynamicDefaultBroker,
    /// From the broker's start: file, environment, flags.
    StaticBroker,
    /// Nobody set it.
    Default,
    /// A code that this crate has no name for.
    Other(i8),
}

/// One config with its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigEntry {
    /// Kafka's name.
    pub name: String,
    /// None if it has none, or if it is a secret.
    pub value: Option<String>,
    /// Where the value comes from.
    pub source: ConfigSource,
    /// Cannot be changed while the broker runs.
    pub is_read_only: bool,
    /// A secret: brokers never tell it.
    pub is_sensitive: bool,
}

/// One change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConfigOperation {
    /// Sets a value.
    Set(String),
    /// Back to the default.
    Delete,
    /// Adds items to a list.
    Append(String),
    /// Takes items out of a list.
    Subtract(String),
}

impl Admin {
    /// Every config of a resource, by name.
    ///
    /// # Errors
    /// [`ClientError::Kafka`] as the broker answers.
    pub async fn describe_configs(
        &self,
        resource: &ConfigResource,
    ) -> Result<Vec<ConfigEntry>, ClientError> {
        let (resource_type, name) = resource.on_wire();
        let asked = DescribeConfigsResource::default()
            .with_resource_type(resource_type)
            .with_resource_name(text(&name))
            .with_configuration_keys(None);
        let request = DescribeConfigsRequest::default().with_resources(vec![asked]);
        let subject = resource.subject();
        let response = self.on_resource(resource).await?.call(&request).await?;
        let result = response.results.into_iter().next().ok_or_else(|| incomplete(&subject))?;
        KafkaError::check(result.error_code, result.error_message.as_deref())
            .map_err(|e| ClientError::kafka(subject, e))?;
        let mut entries: Vec<ConfigEntry> = result
            .configs
            .into_iter()
            .map(|config| ConfigEntry {
                name: config.name.to_string(),
                value: config.value.map(|value| value.to_string()),
                source: ConfigSource::from_wire(config.config_source),
                is_read_only: config.read_only,
                is_sensitive: config.is_sensitive,
            })
            .collect();
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(entries)
    }

    /// Changes configs; all of them or none.
    ///
    /// # Errors
    /// [`ClientError::Kafka`] as the broker answers, INVALID_CONFIG for a value that is not allowed.
    pub async fn alter_configs(
        &self,
        resource: &ConfigResource,
        changes: &[(String, ConfigOperation)],
        validate_only: bool,
    ) -> Result<(), ClientError> {
        let (resource_type, resource_name) = resource.on_wire();
        let configs = changes.iter().map(|(name, operation)| {
            let (code, value) = match operation {
                ConfigOperation::Set(value) => (0, Some(value)),
                ConfigOperation::Delete => (1, None),
                ConfigOperation::Append(value) => (2, Some(value)),
                ConfigOperation::Subtract(value) => (3, Some(value)),
            };
            AlterableConfig::default()
                .with_name(text(name))
                .with_config_operation(code)
                .with_value(value.map(|value| text(value)))
        });
        let altered = AlterConfigsResource::default()
            .with_resource_type(resource_type)
            .with_resource_name(text(&resource_name))
            .with_configs(configs.collect());
        let request = IncrementalAlterConfigsRequest::default()
            .with_resources(vec![altered])
            .with_validate_only(validate_only);
        let subject = resource.subject();
        let response = self.on_resource(resource).await?.call(&request).await?;
        let result = response.responses.into_iter().next().ok_or_else(|| incomplete(&subject))?;
        KafkaError::check(result.error_code, result.error_message.as_deref())
            .map_err(|e| ClientError::kafka(subject, e))
    }

    async fn on_resource(&self, resource: &ConfigResource) -> Result<Connection, ClientError> {
        match resource {
            ConfigResource::Broker(id) => {
                self.cluster.metadata(Some(&[])).await?;
                self.cluster.broker(*id).await
            }
            ConfigResource::Topic(_) | ConfigResource::ClusterDefault => {
                self.cluster.any_broker().await
            }
        }
    }
}

impl ConfigResource {
    fn on_wire(&self) -> (i8, String) {
        const TOPIC: i8 = 2;
        const BROKER: i8 = 4;
        match self {
            ConfigResource::Topic(name) => (TOPIC, name.clone()),
            ConfigResource::Broker(id) => (BROKER, id.to_string()),
            ConfigResource::ClusterDefault => (BROKER, String::new()),
        }
    }

    fn subject(&self) -> String {
        match self {
            ConfigResource::Topic(name) => format!("topic {name}"),
            ConfigResource::Broker(id) => format!("broker {id}"),
            ConfigResource::ClusterDefault => "the brokers' defaults".to_owned(),
        }
    }
}

impl ConfigSource {
    fn from_wire(code: i8) -> ConfigSource {
        match code {
            1 => ConfigSource::Topic,
            2 => ConfigSource::DynamicBroker,
            3 => ConfigSource::DynamicDefaultBroker,
            4 => ConfigSource::StaticBroker,
            5 => ConfigSource::Default,
            other => ConfigSource::Other(other),
        }
    }
}
