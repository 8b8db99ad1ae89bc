//! Which value counts: topic over dynamic broker over dynamic cluster default over static over built in, with
//! Kafka's names for one thing in several units (`log.retention.ms`, `.minutes`, `.hours`) followed in order at
//! each level.

use std::collections::BTreeMap;

use replication::metadata::{ConfigMap, MetadataImage};

use super::broker_config::BrokerConfig;
use super::definition::{ConfigDefinition, ConfigSource};
use super::table::ConfigTable;
use super::value::ConfigValue;

/// Broker settings by name, as text, given at the start.
pub type StaticConfigMap = BTreeMap<String, String>;

/// All that bears on the value of a configuration, the topic's own settings apart.
#[derive(Clone, Copy, Debug)]
pub struct ConfigLayers<'a> {
    /// Set at run time on this broker.
    pub broker: Option<&'a ConfigMap>,
    /// Set at run time for all brokers.
    pub cluster: &'a ConfigMap,
    /// Given at the start.
    pub statics: &'a StaticConfigMap,
}

/// One of the values that bear on a configuration, under the name and at the level where it was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigSynonym {
    /// The name it was given under.
    pub name: &'static str,
    /// The value as given, in that name's unit.
    pub value: String,
    /// The level.
    pub source: ConfigSource,
}

/// A broker configuration that says the same in another unit.
#[derive(Clone, Copy, Debug)]
struct Alternative {
    name: &'static str,
    /// One of its units in those of the first name.
    multiplier: i64,
}

const MINUTE: i64 = 60_000;
const HOUR: i64 = 3_600_000;

const RETENTION: &[Alternative] = &[
    Alternative { name: "log.retention.ms", multiplier: 1 },
    Alternative { name: "log.retention.minutes", multiplier: MINUTE },
    Alternative { name: "log.retention.hours", multiplier: HOUR },
];
const ROLL: &[Alternative] = &[
    Alternative { name: "log.roll.ms", multiplier: 1 },
    Alternative { name: "log.roll.hours", multiplier: HOUR },
];
const ROLL_JITTER: &[Alternative] = &[
    Alternative { name: "log.roll.jitter.ms", multiplier: 1 },
    Alternative { name: "log.roll.jitter.hours", multiplier: HOUR },
];
const FLUSH: &[Alternative] = &[
    Alternative { name: "log.flush.interval.ms", multiplier: 1 },
    Alternative { name: "log.flush.scheduler.interval.ms", multiplier: 1 },
];

/// The names that say what `name` says, the first one winning (`DynamicBrokerConfig.brokerConfigSynonyms`).
fn alternatives(name: &'static str) -> Vec<Alternative> {
    match name {
        "log.retention.ms" | "log.retention.minutes" | "log.retention.hours" => RETENTION.to_vec(),
        "log.roll.ms" | "log.roll.hours" => ROLL.to_vec(),
        "log.roll.jitter.ms" | "log.roll.jitter.hours" => ROLL_JITTER.to_vec(),
        "log.flush.interval.ms" => FLUSH.to_vec(),
        _ => vec![Alternative { name, multiplier: 1 }],
    }
}

/// The levels above the built-in defaults, most specific first.
const LEVELS: [ConfigSource; 3] =
    [ConfigSource::DynamicBroker, ConfigSource::DynamicDefaultBroker, ConfigSource::StaticBroker];

impl<'a> ConfigLayers<'a> {
    /// What bears on this broker's configuration now.
    pub fn new(config: &'a BrokerConfig, image: &'a MetadataImage) -> Self {
        ConfigLayers {
            broker: image.broker_configs(config.node_id),
            cluster: image.cluster_configs(),
            statics: &config.statics,
        }
    }

    /// What one level itself says.
    fn at(&self, level: ConfigSource, name: &str) -> Option<&'a str> {
        match level {
            ConfigSource::DynamicBroker => self.broker?.get(name).map(AsRef::as_ref),
            ConfigSource::DynamicDefaultBroker => self.cluster.get(name).map(AsRef::as_ref),
            ConfigSource::StaticBroker => self.statics.get(name).map(String::as_str),
            ConfigSource::Topic | ConfigSource::Default => None,
        }
    }

    /// The value of a broker configuration itself, in its own unit; `None` where nothing is set (Kafka's null).
    /// The other names for the same thing are not followed: Kafka shows `log.retention.ms` as null beside
    /// `log.retention.hours=168`.
    ///
    /// A dynamic value that does not parse (written by another version) is passed over.
    pub fn broker_value(&self, definition: &'static ConfigDefinition) -> Option<ConfigValue> {
        let given = LEVELS.into_iter().filter_map(|level| self.at(level, definition.name));
        given.chain(definition.default).find_map(|value| definition.parse(value).ok())
    }

    /// All values that bear on a broker configuration, most specific first, from the first one under its own
    /// name on: nothing if it is set nowhere, whatever its other names say.
    pub fn broker_synonyms(&self, name: &'static str) -> Vec<ConfigSynonym> {
        let alternatives = alternatives(name);
        let mut synonyms = Vec::new();
        for source in LEVELS {
            for alternative in &alternatives {
                if let Some(value) = self.at(source, alternative.name) {
                    let value = value.to_owned();
                    synonyms.push(ConfigSynonym { name: alternative.name, value, source });
                }
            }
        }
        for alternative in &alternatives {
            let definition = ConfigTable::BROKER.get(alternative.name);
            if let Some(value) = definition.and_then(|definition| definition.default) {
                let (value, source) = (value.to_owned(), ConfigSource::Default);
                synonyms.push(ConfigSynonym { name: alternative.name, value, source });
            }
        }
        let own = synonyms.iter().position(|synonym| synonym.name == name);
        own.map_or_else(Vec::new, |own| synonyms.split_off(own))
    }

    /// The value of a topic configuration where the topic sets nothing.
    pub fn topic_default(&self, definition: &'static ConfigDefinition) -> ConfigValue {
        let alternatives = definition.synonym.map(alternatives).unwrap_or_default();
        let alternatives = || {
            alternatives.iter().filter_map(|alternative| {
                Some((alternative, ConfigTable::BROKER.get(alternative.name)?))
            })
        };
        for level in LEVELS {
            for (alternative, broker) in alternatives() {
                let given = self.at(level, alternative.name);
                if let Some(Ok(value)) = given.map(|value| broker.parse(value)) {
                    return in_first_unit(value, alternative.multiplier);
                }
            }
        }
        for (alternative, broker) in alternatives() {
            if let Some(Ok(value)) = broker.default.map(|value| broker.parse(value)) {
                return in_first_unit(value, alternative.multiplier);
            }
        }
        let default = definition.default.expect("every topic configuration has a default");
        definition.parse(default).expect("a default in the table is valid")
    }

    /// The value that counts for a topic with these settings of its own.
    pub fn topic_value(
        &self,
        definition: &'static ConfigDefinition,
        topic: &ConfigMap,
    ) -> ConfigValue {
        match topic.get(definition.name).map(|value| definition.parse(value)) {
            Some(Ok(value)) => value,
            _ => self.topic_default(definition),
        }
    }
}

/// Hours to milliseconds and the like. Negative stays -1, "no limit", as in Kafka.
fn in_first_unit(value: ConfigValue, multiplier: i64) -> ConfigValue {
    match value {
        ConfigValue::Integer(number) if multiplier != 1 && number < 0 => ConfigValue::Integer(-1),
        ConfigValue::Integer(number) => ConfigValue::Integer(number.saturating_mul(multiplier)),
        other => other,
    }
}
