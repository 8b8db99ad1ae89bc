//! What changed between two images.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use storage::topic_partition::TopicId;

use crate::identity::BrokerId;
use crate::metadata::image::{MetadataImage, TopicImage};

/// What one or more applied entries changed. Names what to look at in the new image; everything is in
/// order, so a run replays exactly.
///
/// A topic that was both created and deleted on the way is in neither set. Partitions of created and of
/// deleted topics are not listed one by one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MetadataDelta {
    /// Topics that exist only now.
    pub topics_created: BTreeSet<TopicId>,
    /// Topics that existed, as they last were.
    pub topics_deleted: BTreeMap<TopicId, Arc<TopicImage>>,
    /// Partitions added to or changed in topics that existed before and still do.
    pub partitions_changed: BTreeSet<(TopicId, i32)>,
    /// Topics that existed before, whose own configuration changed.
    pub topic_configs_changed: BTreeSet<TopicId>,
    /// Names of cluster-wide default configurations that changed.
    pub cluster_configs_changed: BTreeSet<Arc<str>>,
    /// Brokers whose own dynamic configuration changed.
    pub broker_configs_changed: BTreeSet<BrokerId>,
    /// Brokers registered, unregistered, fenced, unfenced or leaving. Whatever else changed with them in
    /// the same entry (their ISR seats and leaderships) is listed under its own partition.
    pub brokers_changed: BTreeSet<BrokerId>,
    /// Finalized features changed.
    pub features_changed: bool,
    /// Producer ids were given out.
    pub producer_ids_changed: bool,
}

impl MetadataDelta {
    /// Whether nothing changed but the position in the log.
    pub fn is_empty(&self) -> bool {
        *self == MetadataDelta::default()
    }

    /// This delta followed by `later`, as one.
    #[must_use]
    pub fn then(mut self, later: MetadataDelta) -> MetadataDelta {
        for topic_id in later.topics_created {
            self.topics_created.insert(topic_id);
        }
        for (topic_id, last) in later.topics_deleted {
            self.note_deleted(topic_id, last);
        }
        let created = &self.topics_created;
        let old = |topic_id: &TopicId| !created.contains(topic_id);
        self.partitions_changed
            .extend(later.partitions_changed.into_iter().filter(|(t, _)| old(t)));
        self.topic_configs_changed.extend(later.topic_configs_changed.into_iter().filter(old));
        self.cluster_configs_changed.extend(later.cluster_configs_changed);
        self.broker_configs_changed.extend(later.broker_configs_changed);
        self.brokers_changed.extend(later.brokers_changed);
        self.features_changed |= later.features_changed;
        self.producer_ids_changed |= later.producer_ids_changed;
        self
    }

    /// The difference of two images, for a snapshot that replaced the log: everything that differs, found by
    /// comparison. `to` must be later than `from` in the same cluster's log.
    pub fn between(from: &MetadataImage, to: &MetadataImage) -> MetadataDelta {
        let mut delta = MetadataDelta::default();
        for (topic_id, topic) in from.topics() {
            match to.topic(topic_id) {
                None => {
                    delta.topics_deleted.insert(topic_id, Arc::clone(topic));
                }
                Some(now) if !Arc::ptr_eq(topic, now) => {
                    if topic.configs != now.configs {
                        delta.topic_configs_changed.insert(topic_id);
                    }
                    for (partition, registration) in now.partitions() {
                        if topic.partition(partition) != Some(registration) {
                            delta.partitions_changed.insert((topic_id, partition));
                        }
                    }
                }
                Some(_) => {}
            }
        }
        let ids = to.topics().map(|(topic_id, _)| topic_id);
        delta.topics_created = ids.filter(|&topic_id| from.topic(topic_id).is_none()).collect();
        let names = from.cluster_configs().keys().chain(to.cluster_configs().keys());
        delta.cluster_configs_changed = names
            .filter(|&name| from.cluster_configs().get(name) != to.cluster_configs().get(name))
            .cloned()
            .collect();
        let configured = from.configured_brokers().chain(to.configured_brokers());
        delta.broker_configs_changed =
            configured.filter(|&id| from.broker_configs(id) != to.broker_configs(id)).collect();
        let brokers = from.brokers().chain(to.brokers()).map(|broker| broker.broker_id);
        delta.brokers_changed = brokers.filter(|&id| from.broker(id) != to.broker(id)).collect();
        delta.features_changed = from.features() != to.features();
        delta.producer_ids_changed = from.next_producer_id() != to.next_producer_id();
        delta
    }

    /// Notes that a topic is gone.
    pub(super) fn note_deleted(&mut self, topic_id: TopicId, last: Arc<TopicImage>) {
        self.partitions_changed = std::mem::take(&mut self.partitions_changed)
            .into_iter()
            .filter(|(t, _)| *t != topic_id)
            .collect();
        self.topic_configs_changed.remove(&topic_id);
        if !self.topics_created.remove(&topic_id) {
            self.topics_deleted.insert(topic_id, last);
        }
    }
}
