//! Finding a definition by name.

use super::broker_table::BROKER_CONFIGS;
use super::definition::ConfigDefinition;
use super::topic_table::TOPIC_CONFIGS;

/// A list of definitions in the order of their names.
#[derive(Clone, Copy, Debug)]
pub struct ConfigTable(&'static [ConfigDefinition]);

impl ConfigTable {
    /// The topic configurations.
    pub const TOPIC: ConfigTable = ConfigTable(TOPIC_CONFIGS);
    /// The broker configurations that we follow.
    pub const BROKER: ConfigTable = ConfigTable(BROKER_CONFIGS);

    /// The definition of that name.
    pub fn get(self, name: &str) -> Option<&'static ConfigDefinition> {
        let index = self.0.binary_search_by(|definition| definition.name.cmp(name)).ok()?;
        Some(&self.0[index])
    }

    /// All definitions, in the order of their names.
    pub fn iter(self) -> impl Iterator<Item = &'static ConfigDefinition> {
        self.0.iter()
    }

    /// The definition of a name that our own code spells.
    ///
    /// # Panics
    /// If the name is not in the table.
    pub(super) fn known(self, name: &str) -> &'static ConfigDefinition {
        match self.get(name) {
            Some(definition) => definition,
            None => panic!("{name} is not in the configuration table"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::super::absent::{ABSENT, REFUSED};
    use super::super::definition::{Allowed, ConfigType};
    use super::*;

    const TABLES: [ConfigTable; 2] = [ConfigTable::TOPIC, ConfigTable::BROKER];

    #[test]
    fn names_stand_in_order_so_that_a_search_finds_them() {
        for table in TABLES {
            assert!(table.0.is_sorted_by(|a, b| a.name < b.name));
            assert!(table.iter().all(|definition| table.get(definition.name).is_some()));
            assert!(table.get("no.such.name").is_none());
        }
    }

    #[test]
    fn every_default_is_a_value_that_its_own_line_allows() {
        for definition in TABLES.into_iter().flat_map(ConfigTable::iter) {
            if let Some(default) = definition.default {
                definition.parse(default).unwrap();
            }
        }
    }

    #[test]
    fn every_check_is_one_that_its_type_can_fail() {
        for definition in TABLES.into_iter().flat_map(ConfigTable::iter) {
            let types: &[ConfigType] = match definition.allowed {
                Allowed::Any => continue,
                Allowed::AtLeast(_) | Allowed::Between(..) | Allowed::BetweenOr(..) => {
                    &[ConfigType::Short, ConfigType::Int, ConfigType::Long]
                }
                Allowed::Fraction => &[ConfigType::Double],
                Allowed::OneOf(_) => &[ConfigType::String],
                Allowed::ListOf(_) | Allowed::ThrottledReplicas => &[ConfigType::List],
            };
            assert!(types.contains(&definition.config_type), "{}", definition.name);
        }
    }

    #[test]
    fn a_topic_configuration_and_its_brokers_name_agree_on_the_default() {
        for topic in ConfigTable::TOPIC.iter() {
            let broker = topic.synonym.and_then(|name| ConfigTable::BROKER.get(name));
            if let Some(default) = broker.and_then(|broker| broker.default) {
                assert_eq!(Some(default), topic.default, "{}", topic.name);
            }
        }
    }

    #[test]
    fn a_name_is_followed_or_refused_or_without_effect_and_never_two_of_them() {
        let absent = ABSENT.iter().flat_map(|feature| feature.configs).copied();
        let refused = REFUSED.iter().map(|refused| refused.name);
        let followed = ConfigTable::BROKER.iter().map(|definition| definition.name);
        let mut seen = BTreeSet::new();
        for name in followed.chain(refused).chain(absent) {
            assert!(seen.insert(name), "{name} stands there twice");
        }
        // Kafka 4.1 answers DescribeConfigs of a broker with 316 names; two of ours are internal there.
        assert_eq!(seen.len(), 318);
    }
}
