//! The tables as the controller asks them: may a topic, a broker, or all brokers be configured so?

use replication::controller::{ConfigRejection, ConfigScope, ConfigValidator};
use replication::metadata::ConfigMap;

use super::definition::{Change, ConfigDefinition, ConfigType};
use super::table::ConfigTable;
use super::topic_config::{TopicConfigError, absent_feature, validate_topic_config};

/// Checks dynamic configurations against the tables. Only what changes is checked: a value that an earlier
/// release accepted does not stand in the way of another's change.
#[derive(Clone, Copy, Debug)]
pub struct TableValidator;

impl ConfigValidator for TableValidator {
    fn list_default(&self, scope: ConfigScope, name: &str) -> Option<String> {
        let definition = table(scope).get(name)?;
        let is_list = definition.config_type == ConfigType::List;
        is_list.then(|| definition.default.unwrap_or_default().to_owned())
    }

    fn validate(
        &self,
        scope: ConfigScope,
        before: &ConfigMap,
        after: &ConfigMap,
    ) -> Result<(), ConfigRejection> {
        let changed = || {
            let is_changed =
                |name: &str, value: &str| before.get(name).map(AsRef::as_ref) != Some(value);
            after
                .iter()
                .map(|(name, value)| (&**name, &**value))
                .filter(move |(name, value)| is_changed(name, value))
        };
        match scope {
            ConfigScope::Topic => validate_topic(changed()),
            ConfigScope::Broker | ConfigScope::Cluster => {
                let read_only: Vec<&str> = changed()
                    .map(|(name, _)| name)
                    .filter(|name| definition(name).is_some_and(is_read_only))
                    .collect();
                if !read_only.is_empty() {
                    return Err(ConfigRejection::InvalidRequest(format!(
                        "Cannot update these configs dynamically: Set({})",
                        read_only.join(", ")
                    )));
                }
                changed().try_for_each(|(name, value)| validate_broker(name, value))
            }
        }
    }
}

fn table(scope: ConfigScope) -> ConfigTable {
    match scope {
        ConfigScope::Topic => ConfigTable::TOPIC,
        ConfigScope::Broker | ConfigScope::Cluster => ConfigTable::BROKER,
    }
}

fn definition(name: &str) -> Option<&'static ConfigDefinition> {
    ConfigTable::BROKER.get(name)
}

fn is_read_only(definition: &ConfigDefinition) -> bool {
    definition.change == Change::ReadOnly
}

/// Unknown names first, whatever the values of the others: Kafka's order.
fn validate_topic<'a>(
    changed: impl Iterator<Item = (&'a str, &'a str)> + Clone,
) -> Result<(), ConfigRejection> {
    let invalid = |error: TopicConfigError| ConfigRejection::InvalidConfig(error.to_string());
    let is_unknown = |name: &str| ConfigTable::TOPIC.get(name).is_none();
    if let Some((name, _)) = changed.clone().find(|(name, _)| is_unknown(name)) {
        return Err(invalid(TopicConfigError::UnknownName(name.to_owned())));
    }
    changed
        .map(|(name, value)| validate_topic_config(name, value))
        .try_for_each(|it| it.map_err(invalid))
}

/// Kafka accepts any name here and follows none that it does not know. We accept none that we do not follow.
fn validate_broker(name: &str, value: &str) -> Result<(), ConfigRejection> {
    let Some(definition) = definition(name) else {
        return Err(ConfigRejection::InvalidConfig(format!(
            "{name} is no setting of a broker that this version of highwater follows"
        )));
    };
    // Kafka answers INVALID_REQUEST for a broker where it answers INVALID_CONFIG for a topic.
    let parsed = definition
        .parse(value)
        .map_err(|invalid| ConfigRejection::InvalidRequest(invalid.to_string()))?;
    match absent_feature(definition, &parsed) {
        None => Ok(()),
        Some((feature, default)) => Err(ConfigRejection::InvalidConfig(
            TopicConfigError::AbsentFeature {
                name: definition.name,
                value: value.to_owned(),
                feature,
                default,
            }
            .to_string(),
        )),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn map(settings: &[(&str, &str)]) -> ConfigMap {
        settings.iter().map(|(name, value)| (Arc::from(*name), Arc::from(*value))).collect()
    }

    fn refusal(scope: ConfigScope, after: &[(&str, &str)]) -> ConfigRejection {
        TableValidator.validate(scope, &map(&[]), &map(after)).unwrap_err()
    }

    #[test]
    fn a_bad_value_is_an_invalid_config_of_a_topic_and_an_invalid_request_of_a_broker() {
        assert_eq!(
            refusal(ConfigScope::Topic, &[("retention.ms", "zz")]),
            ConfigRejection::InvalidConfig(
                "Invalid value zz for configuration retention.ms: Not a number of type LONG"
                    .to_owned()
            )
        );
        assert_eq!(
            refusal(ConfigScope::Broker, &[("log.retention.ms", "zz")]),
            ConfigRejection::InvalidRequest(
                "Invalid value zz for configuration log.retention.ms: Not a number of type LONG"
                    .to_owned()
            )
        );
    }

    #[test]
    fn an_unknown_name_of_a_topic_is_said_before_a_bad_value() {
        let said = refusal(ConfigScope::Topic, &[("retention.ms", "zz"), ("zz", "1")]);
        assert_eq!(
            said,
            ConfigRejection::InvalidConfig("Unknown topic config name: zz".to_owned())
        );
    }

    #[test]
    fn what_changes_only_by_a_restart_is_named() {
        for scope in [ConfigScope::Broker, ConfigScope::Cluster] {
            let said = refusal(scope, &[("node.id", "3"), ("num.partitions", "5")]);
            let text = "Cannot update these configs dynamically: Set(node.id, num.partitions)";
            assert_eq!(said, ConfigRejection::InvalidRequest(text.to_owned()));
        }
    }

    #[test]
    fn a_broker_setting_that_is_not_followed_is_refused() {
        for name in ["no.such", "num.io.threads", "log.cleaner.threads", "retention.ms"] {
            let said = refusal(ConfigScope::Cluster, &[(name, "1")]);
            assert!(matches!(said, ConfigRejection::InvalidConfig(_)), "{name}: {said}");
        }
        let said = refusal(ConfigScope::Broker, &[("log.cleanup.policy", "compact")]);
        assert!(said.to_string().contains("compaction"), "{said}");
    }

    #[test]
    fn what_stays_as_it_was_is_not_checked_again() {
        let before = map(&[("from.an.earlier.release", "1"), ("retention.ms", "-7")]);
        let after = before.update(Arc::from("retention.bytes"), Arc::from("5"));
        assert_eq!(TableValidator.validate(ConfigScope::Topic, &before, &after), Ok(()));
        let without = map(&[]);
        assert_eq!(TableValidator.validate(ConfigScope::Topic, &before, &without), Ok(()));
    }

    #[test]
    fn only_lists_have_a_default_to_append_to() {
        let default = |scope, name| TableValidator.list_default(scope, name);
        assert_eq!(default(ConfigScope::Topic, "cleanup.policy").as_deref(), Some("delete"));
        assert_eq!(
            default(ConfigScope::Topic, "leader.replication.throttled.replicas").as_deref(),
            Some("")
        );
        assert_eq!(default(ConfigScope::Broker, "log.cleanup.policy").as_deref(), Some("delete"));
        assert_eq!(default(ConfigScope::Topic, "retention.ms"), None);
        assert_eq!(default(ConfigScope::Topic, "no.such"), None);
    }
}
