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
