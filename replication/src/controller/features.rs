//! Features (KIP-584): what this release can run, what a new cluster finalizes.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Controller;
use crate::metadata::{ConfigResource, FeatureRange, MIN_INSYNC_REPLICAS, MetadataRecord};

/// Name, lowest and highest level, and the level that a new cluster finalizes.
///
/// Only what is there. `group.version` and `transaction.version` come with groups and transactions;
/// `metadata.version` names the schemas of Kafka's own metadata records, and ours are others.
const FEATURES: [(&str, FeatureRange, i16); 1] =
    [("eligible.leader.replicas.version", FeatureRange { min: 0, max: 1 }, 1)];

/// What a broker of this release registers, and shows as supported in ApiVersions.
pub fn supported_features() -> BTreeMap<Arc<str>, FeatureRange> {
    FEATURES.iter().map(|(name, range, _)| (Arc::from(*name), *range)).collect()
}

impl Controller {
    /// The cluster's first records, which come in the entry of its first registration: finalized features, and
    /// the default min ISR. Not in the bootstrap snapshot, which every voter must make alike while their
    /// static configurations may differ. Empty once they are there.
    pub(super) fn first_records(&self) -> Vec<MetadataRecord> {
        // The min ISR is never deleted again, so it tells.
        if self.image.cluster_configs().contains_key(MIN_INSYNC_REPLICAS) {
            return Vec::new();
        }
        let features = FEATURES.iter().map(|(name, _, level)| MetadataRecord::FeatureLevel {
            name: Arc::from(*name),
            level: *level,
        });
        let min_isr = self.config.min_insync_replicas.max(1);
        let config = MetadataRecord::Config {
            resource: ConfigResource::Cluster,
            name: MIN_INSYNC_REPLICAS.into(),
            value: Some(min_isr.to_string().into()),
        };
        features.chain([config]).collect()
    }
}
