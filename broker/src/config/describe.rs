//! What DescribeConfigs answers about one topic, this broker, or the cluster's defaults, as Kafka's
//! `ConfigHelper` does: effective values, where each comes from, and every value that bears on it.

use replication::metadata::ConfigMap;

use super::definition::{Change, ConfigDefinition, ConfigSource, ConfigType};
use super::resolve::{ConfigLayers, ConfigSynonym};
use super::table::ConfigTable;

/// One line of an answer to DescribeConfigs. Nothing in the tables is secret, so none is marked sensitive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DescribedConfig {
    /// The configuration's name.
    pub name: &'static str,
    /// Its effective value; `None` where nothing is set.
    pub value: Option<String>,
    /// Whether AlterConfigs refuses it.
    pub is_read_only: bool,
    /// Where the value comes from.
    pub source: ConfigSource,
    /// Every value that bears on it, most specific first.
    pub synonyms: Vec<ConfigSynonym>,
    /// Its type.
    pub config_type: ConfigType,
    /// One sentence.
    pub documentation: &'static str,
}

/// Which configurations are asked for: all if there is no list or an empty one (trap 24). Unknown names are
/// left out of the answer without an error, as in Kafka.
#[derive(Clone, Copy, Debug)]
pub struct ConfigFilter<'a>(Option<&'a [String]>);

impl<'a> ConfigFilter<'a> {
    /// From the `configuration_keys` of a request.
    pub fn new(keys: Option<&'a [String]>) -> Self {
        ConfigFilter(keys.filter(|keys| !keys.is_empty()))
    }

    fn is_asked(&self, definition: &ConfigDefinition) -> bool {
        !definition.is_internal
            && self.0.is_none_or(|keys| keys.iter().any(|key| key == definition.name))
    }
}

/// All configurations of a topic with these settings of its own.
pub fn describe_topic(
    topic: &ConfigMap,
    layers: ConfigLayers<'_>,
    filter: ConfigFilter<'_>,
) -> Vec<DescribedConfig> {
    let asked = ConfigTable::TOPIC.iter().filter(|definition| filter.is_asked(definition));
    asked
        .map(|definition| {
            let value = layers.topic_value(definition, topic).to_string();
            let mut synonyms = match definition.synonym {
                None => Vec::new(),
                // A broker's name for something that is not there: it has its default only.
                Some(name) if ConfigTable::BROKER.get(name).is_none() => {
                    let value = definition.default.unwrap_or_default().to_owned();
                    vec![ConfigSynonym { name, value, source: ConfigSource::Default }]
                }
                Some(name) => layers.broker_synonyms(name),
            };
            if topic.contains_key(definition.name) {
                let (name, value, source) = (definition.name, value.clone(), ConfigSource::Topic);
                synonyms.insert(0, ConfigSynonym { name, value, source });
            }
            described(definition, Some(value), synonyms)
        })
        .collect()
}

/// All configurations of this broker.
pub fn describe_broker(layers: ConfigLayers<'_>, filter: ConfigFilter<'_>) -> Vec<DescribedConfig> {
    let asked = ConfigTable::BROKER.iter().filter(|definition| filter.is_asked(definition));
    asked
        .map(|definition| {
            let value = layers.broker_value(definition).map(|value| value.to_string());
            described(definition, value, layers.broker_synonyms(definition.name))
        })
        .collect()
}

/// What is set for all brokers at run time: the broker resource with the empty name.
pub fn describe_cluster_default(
    cluster: &ConfigMap,
    filter: ConfigFilter<'_>,
) -> Vec<DescribedConfig> {
    let asked = ConfigTable::BROKER.iter().filter(|definition| filter.is_asked(definition));
    asked
        .filter_map(|definition| {
            let value = cluster.get(definition.name)?.to_string();
            let source = ConfigSource::DynamicDefaultBroker;
            let synonym = ConfigSynonym { name: definition.name, value: value.clone(), source };
            Some(described(definition, Some(value), vec![synonym]))
        })
        .collect()
}

fn described(
    definition: &'static ConfigDefinition,
    value: Option<String>,
    synonyms: Vec<ConfigSynonym>,
) -> DescribedConfig {
    DescribedConfig {
        name: definition.name,
        value,
        is_read_only: definition.change == Change::ReadOnly,
        source: synonyms.first().map_or(ConfigSource::Default, |synonym| synonym.source),
        synonyms,
        config_type: definition.config_type,
        documentation: definition.documentation,
    }
}
