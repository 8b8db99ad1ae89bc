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

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use super::*;

    fn dynamic(settings: &[(&str, &str)]) -> ConfigMap {
        settings.iter().map(|(name, value)| (Arc::from(*name), Arc::from(*value))).collect()
    }

    fn statics(settings: &[(&str, &str)]) -> BTreeMap<String, String> {
        settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    /// `value source name=value:source …`, as short as a test can read.
    fn shown(described: &[DescribedConfig]) -> Vec<String> {
        let one = |config: &DescribedConfig| {
            let synonyms = config.synonyms.iter().map(|synonym| {
                format!(" {}={}:{}", synonym.name, synonym.value, synonym.source.id())
            });
            let value = config.value.as_deref().unwrap_or("null");
            format!("{value} {}{}", config.source.id(), synonyms.collect::<String>())
        };
        described.iter().map(one).collect()
    }

    fn topic(name: &str, own: &[(&str, &str)], layers: ConfigLayers<'_>) -> String {
        let keys = [name.to_owned()];
        shown(&describe_topic(&dynamic(own), layers, ConfigFilter::new(Some(&keys)))).remove(0)
    }

    fn broker(name: &str, layers: ConfigLayers<'_>) -> String {
        let keys = [name.to_owned()];
        shown(&describe_broker(layers, ConfigFilter::new(Some(&keys)))).remove(0)
    }

    /// What Kafka 4.1 answered for the same settings, here and in the tests below.
    #[test]
    fn without_settings_a_topic_shows_the_defaults_of_the_broker() {
        let (cluster, none) = (dynamic(&[("min.insync.replicas", "1")]), statics(&[]));
        let layers = ConfigLayers { broker: None, cluster: &cluster, statics: &none };
        for (name, expected) in [
            ("cleanup.policy", "delete 5 log.cleanup.policy=delete:5"),
            ("retention.ms", "604800000 5"),
            ("segment.ms", "604800000 5"),
            ("flush.ms", "9223372036854775807 5"),
            ("min.insync.replicas", "1 3 min.insync.replicas=1:3 min.insync.replicas=1:5"),
            ("min.cleanable.dirty.ratio", "0.5 5 log.cleaner.min.cleanable.ratio=0.5:5"),
            ("remote.storage.enable", "false 5"),
            ("follower.replication.throttled.replicas", " 5"),
        ] {
            assert_eq!(topic(name, &[], layers), expected, "{name}");
        }
    }

    #[test]
    fn a_static_setting_in_hours_counts_and_is_no_synonym_of_milliseconds() {
        let cluster = dynamic(&[]);
        let given = statics(&[
            ("log.retention.hours", "24"),
            ("log.retention.minutes", "60"),
            ("log.roll.hours", "5"),
            ("log.roll.jitter.ms", "7"),
            ("log.flush.scheduler.interval.ms", "77"),
            ("log.segment.bytes", "2000000"),
        ]);
        let layers = ConfigLayers { broker: None, cluster: &cluster, statics: &given };
        for (name, expected) in [
            ("retention.ms", "3600000 5"),
            ("segment.ms", "18000000 5"),
            ("segment.jitter.ms", "7 4 log.roll.jitter.ms=7:4 log.roll.jitter.hours=0:5"),
            ("flush.ms", "77 5"),
            (
                "segment.bytes",
                "2000000 4 log.segment.bytes=2000000:4 log.segment.bytes=1073741824:5",
            ),
        ] {
            assert_eq!(topic(name, &[], layers), expected, "{name}");
        }
        for (name, expected) in [
            ("log.retention.ms", "null 5"),
            (
                "log.retention.minutes",
                "60 4 log.retention.minutes=60:4 log.retention.hours=24:4 log.retention.hours=168:5",
            ),
            ("log.retention.hours", "24 4 log.retention.hours=24:4 log.retention.hours=168:5"),
            ("log.flush.interval.ms", "null 5"),
        ] {
            assert_eq!(broker(name, layers), expected, "{name}");
        }
    }

    #[test]
    fn a_topics_own_setting_wins_over_the_brokers_over_the_clusters() {
        let cluster = dynamic(&[("log.retention.ms", "7000"), ("message.max.bytes", "3000000")]);
        let own = dynamic(&[("log.retention.ms", "5000")]);
        let none = statics(&[]);
        let layers = ConfigLayers { broker: Some(&own), cluster: &cluster, statics: &none };
        let broker_part =
            "log.retention.ms=5000:2 log.retention.ms=7000:3 log.retention.hours=168:5";
        assert_eq!(topic("retention.ms", &[], layers), format!("5000 2 {broker_part}"));
        assert_eq!(
            topic("retention.ms", &[("retention.ms", " 1 ")], layers),
            format!("1 1 retention.ms=1:1 {broker_part}")
        );
        assert_eq!(
            broker("message.max.bytes", layers),
            "3000000 3 message.max.bytes=3000000:3 message.max.bytes=1048588:5"
        );
        assert_eq!(
            shown(&describe_cluster_default(&cluster, ConfigFilter::new(None))),
            ["7000 3 log.retention.ms=7000:3", "3000000 3 message.max.bytes=3000000:3"]
        );
    }

    #[test]
    fn all_are_shown_for_no_list_and_for_an_empty_one_and_unknown_names_are_left_out() {
        let (cluster, none) = (dynamic(&[]), statics(&[]));
        let layers = ConfigLayers { broker: None, cluster: &cluster, statics: &none };
        let count = |keys: Option<&[String]>| {
            describe_topic(&cluster, layers, ConfigFilter::new(keys)).len()
        };
        assert_eq!((count(None), count(Some(&[]))), (33, 33));
        let keys = ["retention.ms", "no.such", "retention.ms"].map(str::to_owned);
        assert_eq!(count(Some(&keys)), 1);
    }
}
