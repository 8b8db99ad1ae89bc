//! Dynamic configurations of topics, of single brokers and of all brokers (trap 24, kafka-facts 2.1; Kafka's
//! `ConfigurationControlManager`).
//!
//! What names and values there are is the broker's table; it comes in as a [`ConfigValidator`]. Here stand the
//! rules of the requests, and those of `min.insync.replicas`, on which acknowledgement hangs.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::leader_election::PartitionEvent;
use super::{Controller, ControllerResult};
use crate::identity::BrokerId;
use crate::metadata::image::parse_min_insync_replicas;
use crate::metadata::{ConfigMap, ConfigResource, MIN_INSYNC_REPLICAS, MetadataRecord, TopicImage};

/// Which table a name stands in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ConfigScope {
    /// A topic's configurations.
    Topic,
    /// One broker's.
    Broker,
    /// The default of all brokers.
    Cluster,
}

/// The broker's table of configurations. Pure: the same question always has the same answer.
pub trait ConfigValidator: Send + Sync {
    /// What a list has where nothing is set, its members joined by commas; `None` if `name` is not a list.
    fn list_default(&self, scope: ConfigScope, name: &str) -> Option<String>;

    /// Whether a resource may have `after` instead of `before`. `before` was accepted once, though perhaps by
    /// an earlier release.
    ///
    /// # Errors
    /// What to tell the caller.
    fn validate(
        &self,
        scope: ConfigScope,
        before: &ConfigMap,
        after: &ConfigMap,
    ) -> Result<(), ConfigRejection>;
}

/// Why a configuration is refused. The text is for the caller.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigRejection {
    /// INVALID_CONFIG.
    #[error("{0}")]
    InvalidConfig(String),
    /// INVALID_REQUEST.
    #[error("{0}")]
    InvalidRequest(String),
}

/// Whose configuration a request means.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ConfigTarget {
    /// A topic.
    Topic(Arc<str>),
    /// A broker.
    Broker(BrokerId),
    /// All brokers: the broker resource with an empty name.
    Cluster,
}

/// What to do with one configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConfigOperation {
    /// 0: set it.
    Set,
    /// 1: back to the default.
    Delete,
    /// 2: add members to a list.
    Append,
    /// 3: take members from a list.
    Subtract,
}

impl ConfigOperation {
    /// The operation with Kafka's number `id`; an unknown one is INVALID_REQUEST for its resource.
    pub const fn from_id(id: i8) -> Option<ConfigOperation> {
        match id {
            0 => Some(ConfigOperation::Set),
            1 => Some(ConfigOperation::Delete),
            2 => Some(ConfigOperation::Append),
            3 => Some(ConfigOperation::Subtract),
            _ => None,
        }
    }
}

/// One step of an incremental change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigChange {
    /// The configuration.
    pub name: Arc<str>,
    /// What to do.
    pub operation: ConfigOperation,
    /// With what; ignored by `Delete`, wanted by all others.
    pub value: Option<Arc<str>>,
}

/// The whole set of a resource, in place of what it has (the legacy request).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigReplacement {
    /// The configuration.
    pub name: Arc<str>,
    /// Its value; `None` is refused.
    pub value: Option<Arc<str>>,
}

/// Resources to change; `C` is [`ConfigChange`] or [`ConfigReplacement`].
#[derive(Clone, Debug)]
pub struct AlterConfigs<C> {
    /// Each resource with its changes, as asked for.
    pub resources: Vec<(ConfigTarget, Vec<C>)>,
    /// Only say what would happen.
    pub validate_only: bool,
}

/// Why one resource stays as it is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AlterConfigError {
    /// The request names it twice (INVALID_REQUEST).
    #[error("the request names the resource more than once")]
    DuplicateResource,
    /// It is changed twice in one resource (INVALID_REQUEST).
    #[error("{0} is named more than once")]
    DuplicateName(Arc<str>),
    /// Only Delete goes without a value (INVALID_REQUEST).
    #[error("{0} has no value")]
    NullValue(Arc<str>),
    /// Append and Subtract are for lists (INVALID_CONFIG).
    #[error("{0} is not a list: it can be set or deleted, not appended to or subtracted from")]
    NotAList(Arc<str>),
    /// No such topic (UNKNOWN_TOPIC_OR_PARTITION).
    #[error("there is no such topic")]
    UnknownTopic,
    /// No such broker (BROKER_ID_NOT_REGISTERED).
    #[error("broker {0} is not registered")]
    UnknownBroker(BrokerId),
    /// A name or a value is refused.
    #[error(transparent)]
    Rejected(#[from] ConfigRejection),
}

/// One resource's answer.
pub type AlteredResource = (ConfigTarget, Result<(), AlterConfigError>);

impl Controller {
    /// IncrementalAlterConfigs: changes what is named and leaves the rest. One answer a resource, in the order
    /// in which they first occur; all changes go into one entry.
    pub fn incremental_alter_configs(
        &self,
        request: &AlterConfigs<ConfigChange>,
    ) -> ControllerResult<Vec<AlteredResource>> {
        self.alter_configs_with(request, |scope, before, changes| {
            self.changed_configs(scope, before, changes)
        })
    }

    /// The legacy AlterConfigs: what is not named goes back to its default, so the cluster's set must name the
    /// min ISR, which has none to go back to. One answer a resource, in the order in which they first occur;
    /// all changes go into one entry.
    pub fn alter_configs(
        &self,
        request: &AlterConfigs<ConfigReplacement>,
    ) -> ControllerResult<Vec<AlteredResource>> {
        self.alter_configs_with(request, |_, _, changes| replaced_configs(changes))
    }

    fn alter_configs_with<C>(
        &self,
        request: &AlterConfigs<C>,
        change: impl Fn(ConfigScope, &ConfigMap, &[C]) -> Result<ConfigMap, AlterConfigError>,
    ) -> ControllerResult<Vec<AlteredResource>> {
        let mut once = BTreeSet::new();
        let targets = request.resources.iter().map(|(target, _)| target);
        let twice: BTreeSet<_> = targets.filter(|&target| !once.insert(target)).collect();
        let mut answered = BTreeSet::new();
        let mut records = Vec::new();
        let mut new_min_isr = NewMinIsr::default();
        let mut response = Vec::new();
        for (target, changes) in request.resources.iter().filter(|(t, _)| answered.insert(t)) {
            let result = match twice.contains(target) {
                true => Err(AlterConfigError::DuplicateResource),
                false => self.find_resource(target).and_then(|(scope, resource)| {
                    let none = ConfigMap::new();
                    let before = self.image.configs(resource).unwrap_or(&none);
                    let after = change(scope, before, changes)?;
                    self.check_configs(scope, before, &after)?;
                    records.extend(config_records(resource, before, &after));
                    new_min_isr.note(resource, before, &after);
                    Ok(())
                }),
            };
            response.push((target.clone(), result));
        }
        self.settle_new_min_isr(&new_min_isr, &mut records);
        if request.validate_only {
            records.clear();
        }
        ControllerResult { records, response }
    }

    fn find_resource(
        &self,
        target: &ConfigTarget,
    ) -> Result<(ConfigScope, ConfigResource), AlterConfigError> {
        match target {
            ConfigTarget::Topic(name) => {
                let topic = self.image.topic_by_name(name).ok_or(AlterConfigError::UnknownTopic)?;
                Ok((ConfigScope::Topic, ConfigResource::Topic(topic.topic_id)))
            }
            ConfigTarget::Broker(id) => match self.image.broker(*id) {
                Some(_) => Ok((ConfigScope::Broker, ConfigResource::Broker(*id))),
                None => Err(AlterConfigError::UnknownBroker(*id)),
            },
            ConfigTarget::Cluster => Ok((ConfigScope::Cluster, ConfigResource::Cluster)),
        }
    }

    fn changed_configs(
        &self,
        scope: ConfigScope,
        before: &ConfigMap,
        changes: &[ConfigChange],
    ) -> Result<ConfigMap, AlterConfigError> {
        check_names(changes.iter().map(|change| &change.name))?;
        let mut after = before.clone();
        for ConfigChange { name, operation, value } in changes {
            let value = value.as_ref().ok_or_else(|| AlterConfigError::NullValue(Arc::clone(name)));
            match operation {
                ConfigOperation::Set => {
                    after.insert(Arc::clone(name), Arc::clone(value?));
                }
                ConfigOperation::Delete => {
                    after.remove(name);
                }
                ConfigOperation::Append | ConfigOperation::Subtract => {
                    let operands = members(value?);
                    let default = self.validator.list_default(scope, name);
                    let default =
                        default.ok_or_else(|| AlterConfigError::NotAList(Arc::clone(name)))?;
                    let mut list = members(before.get(name).map_or(&*default, |value| value));
                    if *operation == ConfigOperation::Append {
                        for operand in operands {
                            if !list.contains(&operand) {
                                list.push(operand);
                            }
                        }
                    } else {
                        list.retain(|member| !operands.contains(member));
                    }
                    after.insert(Arc::clone(name), list.join(",").into());
                }
            }
        }
        Ok(after)
    }

    /// Whether a resource may have `after`: the rules of min ISR, then the broker's table.
    pub(super) fn check_configs(
        &self,
        scope: ConfigScope,
        before: &ConfigMap,
        after: &ConfigMap,
    ) -> Result<(), ConfigRejection> {
        let invalid = |text: String| Err(ConfigRejection::InvalidConfig(text));
        match (scope, after.get(MIN_INSYNC_REPLICAS)) {
            (ConfigScope::Broker, Some(_)) => {
                return invalid(format!(
                    "{MIN_INSYNC_REPLICAS} is not a single broker's: set it for the topic or for the cluster"
                ));
            }
            (ConfigScope::Cluster, None) if before.contains_key(MIN_INSYNC_REPLICAS) => {
                return invalid(format!(
                    "the cluster's {MIN_INSYNC_REPLICAS} can be changed, but not deleted"
                ));
            }
            (_, Some(value)) if parse_min_insync_replicas(value).is_none() => {
                return invalid(format!(
                    "{MIN_INSYNC_REPLICAS} is a number of at least 1, not {value:?}"
                ));
            }
            _ => {}
        }
        self.validator.validate(scope, before, after)
    }

    /// A min ISR that no longer exceeds an ISR lets its high watermark move on, so those left behind are no
    /// longer eligible to lead: the ELR goes in the same entry as the change. Where the ISR is still too small,
    /// or empty, the high watermark stays and the ELR with it.
    fn settle_new_min_isr(&self, new: &NewMinIsr, records: &mut Vec<MetadataRecord>) {
        if new.cluster.is_none() && new.topics.is_empty() {
            return;
        }
        let before = |topic: &TopicImage| self.image.min_insync_replicas(topic);
        for (topic_id, topic) in self.image.topics() {
            let own = match new.topics.get(&ConfigResource::Topic(topic_id)) {
                Some(own) => *own,
                None => topic
                    .configs
                    .get(MIN_INSYNC_REPLICAS)
                    .and_then(|v| parse_min_insync_replicas(v)),
            };
            let cluster = || {
                let value = self.image.cluster_configs().get(MIN_INSYNC_REPLICAS);
                new.cluster.or_else(|| value.and_then(|value| parse_min_insync_replicas(value)))
            };
            let min_isr = own.or_else(cluster).unwrap_or(1);
            if min_isr >= before(topic) {
                continue;
            }
            let event = |_: &_| Some(PartitionEvent::default());
            self.settle_topic(topic, min_isr, &event, &|id| self.active_directory(id), records);
        }
    }
}

/// `min.insync.replicas` as one request leaves them.
#[derive(Default)]
struct NewMinIsr {
    cluster: Option<usize>,
    /// Topics whose own value changes; `None`: it is deleted.
    topics: BTreeMap<ConfigResource, Option<usize>>,
}

impl NewMinIsr {
    fn note(&mut self, resource: ConfigResource, before: &ConfigMap, after: &ConfigMap) {
        let value = after.get(MIN_INSYNC_REPLICAS);
        if before.get(MIN_INSYNC_REPLICAS) == value {
            return;
        }
        let min_isr = value.and_then(|value| parse_min_insync_replicas(value));
        match resource {
            ConfigResource::Topic(_) => {
                self.topics.insert(resource, min_isr);
            }
            ConfigResource::Cluster => self.cluster = min_isr,
            ConfigResource::Broker(_) => {} // refused before
        }
    }
}

fn replaced_configs(changes: &[ConfigReplacement]) -> Result<ConfigMap, AlterConfigError> {
    check_names(changes.iter().map(|change| &change.name))?;
    let mut after = ConfigMap::new();
    for ConfigReplacement { name, value } in changes {
        let value = value.as_ref().ok_or_else(|| AlterConfigError::NullValue(Arc::clone(name)))?;
        after.insert(Arc::clone(name), Arc::clone(value));
    }
    Ok(after)
}

fn check_names<'a>(names: impl Iterator<Item = &'a Arc<str>>) -> Result<(), AlterConfigError> {
    let mut seen = BTreeSet::new();
    for name in names {
        if !seen.insert(name) {
            return Err(AlterConfigError::DuplicateName(Arc::clone(name)));
        }
    }
    Ok(())
}

fn config_records(
    resource: ConfigResource,
    before: &ConfigMap,
    after: &ConfigMap,
) -> Vec<MetadataRecord> {
    let names: BTreeSet<&Arc<str>> = before.keys().chain(after.keys()).collect();
    let changed = names.into_iter().filter(|&name| before.get(name) != after.get(name));
    changed
        .map(|name| MetadataRecord::Config {
            resource,
            name: Arc::clone(name),
            value: after.get(name).cloned(),
        })
        .collect()
}

/// The members of a list as it is written; an empty text has none.
fn members(list: &str) -> Vec<String> {
    list.split(',').map(str::trim).filter(|m| !m.is_empty()).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controller::testing::{TestCluster, broker};

    fn change(name: &str, operation: ConfigOperation, value: Option<&str>) -> ConfigChange {
        ConfigChange { name: name.into(), operation, value: value.map(Arc::from) }
    }

    fn cluster() -> TestCluster {
        let mut cluster = TestCluster::new();
        cluster.start(1, false);
        cluster.create("t", &[1], &[("a", "1")]);
        cluster
    }

    fn topic() -> ConfigTarget {
        ConfigTarget::Topic("t".into())
    }

    fn alter(
        cluster: &mut TestCluster,
        target: ConfigTarget,
        changes: Vec<ConfigChange>,
    ) -> Result<(), AlterConfigError> {
        let request = AlterConfigs { resources: vec![(target, changes)], validate_only: false };
        let decided = cluster.controller.incremental_alter_configs(&request);
        cluster.commit(decided).remove(0).1
    }

    fn replace(
        cluster: &mut TestCluster,
        target: ConfigTarget,
        configs: &[(&str, Option<&str>)],
    ) -> Result<(), AlterConfigError> {
        let configs = configs.iter().map(|&(name, value)| ConfigReplacement {
            name: name.into(),
            value: value.map(Arc::from),
        });
        let request =
            AlterConfigs { resources: vec![(target, configs.collect())], validate_only: false };
        let decided = cluster.controller.alter_configs(&request);
        cluster.commit(decided).remove(0).1
    }

    fn shown(configs: &ConfigMap) -> Vec<(&str, &str)> {
        configs.iter().map(|(name, value)| (&**name, &**value)).collect()
    }

    fn topic_configs(cluster: &TestCluster) -> Vec<(&str, &str)> {
        shown(&cluster.image().topic_by_name("t").unwrap().configs)
    }

    #[test]
    fn an_incremental_change_leaves_the_rest() {
        let mut cluster = cluster();
        alter(&mut cluster, topic(), vec![change("b", ConfigOperation::Set, Some("2"))]).unwrap();
        assert_eq!(topic_configs(&cluster), [("a", "1"), ("b", "2")]);
        alter(&mut cluster, topic(), vec![change("a", ConfigOperation::Delete, Some("ignored"))])
            .unwrap();
        assert_eq!(topic_configs(&cluster), [("b", "2")]);
        alter(&mut cluster, topic(), vec![change("never set", ConfigOperation::Delete, None)])
            .unwrap();
    }

    #[test]
    fn a_legacy_change_replaces_the_whole_set() {
        let mut cluster = cluster();
        replace(&mut cluster, topic(), &[("b", Some("2"))]).unwrap();
        assert_eq!(topic_configs(&cluster), [("b", "2")]);
        replace(&mut cluster, topic(), &[]).unwrap();
        assert_eq!(topic_configs(&cluster), []);
        let error = replace(&mut cluster, topic(), &[("b", None)]);
        assert_eq!(error, Err(AlterConfigError::NullValue("b".into())));
        let error = replace(&mut cluster, topic(), &[("b", Some("1")), ("b", Some("2"))]);
        assert_eq!(error, Err(AlterConfigError::DuplicateName("b".into())));
    }

    #[test]
    fn members_are_appended_to_a_list_and_subtracted_from_it() {
        let mut cluster = cluster();
        let mut step = |operation, value| {
            alter(&mut cluster, topic(), vec![change("list", operation, Some(value))]).unwrap();
            let configs = &cluster.image().topic_by_name("t").unwrap().configs;
            configs.get("list").unwrap().to_string()
        };
        assert_eq!(step(ConfigOperation::Append, "y, z"), "x,y,z", "to the default");
        assert_eq!(step(ConfigOperation::Append, "z,w"), "x,y,z,w", "each once");
        assert_eq!(step(ConfigOperation::Subtract, "x,z,none"), "y,w");
        assert_eq!(step(ConfigOperation::Subtract, "y,w"), "");
        assert_eq!(step(ConfigOperation::Append, "v"), "v", "an empty list is not the default");
    }

    #[test]
    fn only_lists_are_appended_to() {
        let mut cluster = cluster();
        for operation in [ConfigOperation::Append, ConfigOperation::Subtract] {
            let error = alter(&mut cluster, topic(), vec![change("a", operation, Some("1"))]);
            assert_eq!(error, Err(AlterConfigError::NotAList("a".into())));
        }
    }

    #[test]
    fn what_contradicts_itself_is_refused() {
        let mut cluster = cluster();
        let set = |value| change("a", ConfigOperation::Set, value);
        let error = alter(&mut cluster, topic(), vec![set(Some("1")), set(Some("2"))]);
        assert_eq!(error, Err(AlterConfigError::DuplicateName("a".into())));
        for operation in [ConfigOperation::Set, ConfigOperation::Append, ConfigOperation::Subtract]
        {
            let error = alter(&mut cluster, topic(), vec![change("list", operation, None)]);
            assert_eq!(error, Err(AlterConfigError::NullValue("list".into())));
        }
        let resources = vec![(topic(), vec![set(Some("3"))]), (topic(), Vec::new())];
        let request = AlterConfigs { resources, validate_only: false };
        let decided = cluster.controller.incremental_alter_configs(&request);
        assert_eq!(decided.response, [(topic(), Err(AlterConfigError::DuplicateResource))]);
        assert_eq!(decided.records, []);
    }

    #[test]
    fn resources_that_are_not_there_are_refused() {
        let mut cluster = cluster();
        let set = vec![change("a", ConfigOperation::Set, Some("1"))];
        let error = alter(&mut cluster, ConfigTarget::Topic("u".into()), set.clone());
        assert_eq!(error, Err(AlterConfigError::UnknownTopic));
        let error = alter(&mut cluster, ConfigTarget::Broker(broker(9)), set);
        assert_eq!(error, Err(AlterConfigError::UnknownBroker(broker(9))));
    }

    #[test]
    fn one_bad_resource_does_not_stop_another() {
        let mut cluster = cluster();
        let good = (topic(), vec![change("b", ConfigOperation::Set, Some("2"))]);
        let bad = (ConfigTarget::Cluster, vec![change("bad", ConfigOperation::Set, Some("2"))]);
        let request = AlterConfigs { resources: vec![bad, good], validate_only: false };
        let decided = cluster.controller.incremental_alter_configs(&request);
        let response = cluster.commit(decided);
        assert!(matches!(response[0].1, Err(AlterConfigError::Rejected(_))));
        assert_eq!(response[1].1, Ok(()));
        assert_eq!(topic_configs(&cluster), [("a", "1"), ("b", "2")]);
    }

    #[test]
    fn validate_only_writes_nothing() {
        let cluster = cluster();
        let resources = vec![(topic(), vec![change("b", ConfigOperation::Set, Some("2"))])];
        let request = AlterConfigs { resources, validate_only: true };
        let decided = cluster.controller.incremental_alter_configs(&request);
        assert_eq!((decided.records, decided.response), (Vec::new(), vec![(topic(), Ok(()))]));
    }

    #[test]
    fn a_brokers_own_configurations_are_its_own() {
        let mut cluster = cluster();
        let target = ConfigTarget::Broker(broker(1));
        alter(&mut cluster, target.clone(), vec![change("c", ConfigOperation::Set, Some("1"))])
            .unwrap();
        assert_eq!(shown(cluster.image().broker_configs(broker(1)).unwrap()), [("c", "1")]);
        alter(&mut cluster, target, vec![change("c", ConfigOperation::Delete, None)]).unwrap();
        assert_eq!(cluster.image().broker_configs(broker(1)), None);
    }

    #[test]
    fn the_clusters_min_isr_can_be_changed_and_not_removed_nor_set_for_one_broker() {
        let mut cluster = cluster();
        let set = |value| vec![change(MIN_INSYNC_REPLICAS, ConfigOperation::Set, Some(value))];
        let rejected = |result| {
            matches!(result, Err(AlterConfigError::Rejected(ConfigRejection::InvalidConfig(_))))
        };
        alter(&mut cluster, ConfigTarget::Cluster, set("2")).unwrap();
        assert!(rejected(alter(&mut cluster, ConfigTarget::Broker(broker(1)), set("2"))));
        assert!(rejected(alter(&mut cluster, ConfigTarget::Cluster, set("0"))));
        let delete = vec![change(MIN_INSYNC_REPLICAS, ConfigOperation::Delete, None)];
        assert!(rejected(alter(&mut cluster, ConfigTarget::Cluster, delete.clone())));
        let without = replace(&mut cluster, ConfigTarget::Cluster, &[("other", Some("1"))]);
        assert!(rejected(without), "a whole set without it would delete it");
        let kept = [(MIN_INSYNC_REPLICAS, "2"), ("other", "1")];
        let whole = kept.map(|(name, value)| (name, Some(value)));
        replace(&mut cluster, ConfigTarget::Cluster, &whole).unwrap();
        assert_eq!(shown(cluster.image().cluster_configs()), kept);
        alter(&mut cluster, topic(), set("3")).unwrap();
        assert_eq!(
            alter(&mut cluster, topic(), delete),
            Ok(()),
            "a topic goes back to the cluster's"
        );
    }
}
