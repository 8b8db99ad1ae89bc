//! Versions: what we speak of each API, and the choice between that and what a broker speaks. Pure.

use std::collections::BTreeMap;

use kafka_protocol::messages::{ApiKey, ApiVersionsResponse};
use kafka_protocol::protocol::VersionRange;

/// The versions whose every field this crate handles, both ends inclusive; `None` for APIs it does not use.
///
/// Fetch ends at 16: 17 differs only for followers. Produce ends at 12: 13 names topics by id only, which buys a client
/// that names topics nothing. InitProducerId ends at 5: 6 is unstable in Kafka 4.1.
pub fn client_versions(api: ApiKey) -> Option<VersionRange> {
    let (min, max) = match api {
        ApiKey::Produce => (3, 12),
        ApiKey::Fetch => (4, 16),
        ApiKey::ListOffsets => (1, 10),
        ApiKey::Metadata => (1, 13),
        ApiKey::ApiVersions => (0, 4),
        ApiKey::CreateTopics => (2, 7),
        ApiKey::DeleteTopics => (1, 6),
        ApiKey::DeleteRecords => (0, 2),
        ApiKey::InitProducerId => (0, 5),
        ApiKey::CreatePartitions => (0, 3),
        ApiKey::DescribeConfigs => (1, 4),
        ApiKey::IncrementalAlterConfigs => (0, 1),
        ApiKey::DescribeCluster => (0, 2),
        _ => return None,
    };
    Some(VersionRange { min, max })
}

/// What one broker said about itself in ApiVersions.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct BrokerVersions {
    ranges: BTreeMap<i16, VersionRange>,
    features: Vec<Feature>,
    finalized_features_epoch: Option<i64>,
}

/// One feature of a cluster (KIP-584).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Feature {
    /// For example `metadata.version`.
    pub name: String,
    /// Levels that this broker can run at, both inclusive.
    pub supported: (i16, i16),
    /// The level in force; 0 if the cluster has not turned it on.
    pub finalized_level: i16,
}

impl BrokerVersions {
    /// Reads the answer. Ranges that are upside down count as not spoken.
    pub fn from_response(response: &ApiVersionsResponse) -> BrokerVersions {
        let ranges = response
            .api_keys
            .iter()
            .filter(|api| 0 <= api.min_version && api.min_version <= api.max_version)
            .map(|api| (api.api_key, VersionRange { min: api.min_version, max: api.max_version }))
            .collect();
        let finalized: BTreeMap<&str, i16> = response
            .finalized_features
            .iter()
            .map(|feature| (feature.name.as_str(), feature.max_version_level))
            .collect();
        let mut features: Vec<Feature> = response
            .supported_features
            .iter()
            .map(|feature| Feature {
                name: feature.name.to_string(),
                supported: (feature.min_version, feature.max_version),
                finalized_level: finalized.get(feature.name.as_str()).copied().unwrap_or(0),
            })
            .collect();
        features.sort_by(|a, b| a.name.cmp(&b.name));
        let epoch = response.finalized_features_epoch;
        BrokerVersions { ranges, features, finalized_features_epoch: (epoch >= 0).then_some(epoch) }
    }

    /// What the broker speaks of an API.
    pub fn range(&self, api: ApiKey) -> Option<VersionRange> {
        self.ranges.get(&(api as i16)).copied()
    }

    /// Every range, by API key, ascending.
    pub fn ranges(&self) -> impl Iterator<Item = (i16, VersionRange)> {
        self.ranges.iter().map(|(key, range)| (*key, *range))
    }

    /// The features, by name.
    pub fn features(&self) -> &[Feature] {
        &self.features
    }

    /// Which version of the cluster's feature levels this broker has applied; none before the first.
    pub fn finalized_features_epoch(&self) -> Option<i64> {
        self.finalized_features_epoch
    }

    /// The highest version that both sides speak; `None` if there is none.
    pub fn choose(&self, api: ApiKey, ours: VersionRange) -> Option<i16> {
        let both = self.range(api)?.intersect(&ours);
        (!both.is_empty()).then_some(both.max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kafka_protocol::messages::api_versions_response::ApiVersion;

    fn broker(min: i16, max: i16) -> BrokerVersions {
        let api = ApiVersion::default()
            .with_api_key(ApiKey::Fetch as i16)
            .with_min_version(min)
            .with_max_version(max);
        BrokerVersions::from_response(&ApiVersionsResponse::default().with_api_keys(vec![api]))
    }

    #[test]
    fn the_highest_version_of_both_is_chosen() {
        let ours = VersionRange { min: 4, max: 16 };
        assert_eq!(broker(0, 11).choose(ApiKey::Fetch, ours), Some(11));
        assert_eq!(broker(4, 99).choose(ApiKey::Fetch, ours), Some(16));
        assert_eq!(broker(17, 18).choose(ApiKey::Fetch, ours), None);
        assert_eq!(broker(0, 11).choose(ApiKey::Produce, ours), None);
    }

    #[test]
    fn a_range_that_is_upside_down_counts_as_not_spoken() {
        assert_eq!(broker(5, 4).range(ApiKey::Fetch), None);
        assert_eq!(broker(-1, 4).range(ApiKey::Fetch), None);
    }

    #[test]
    fn no_version_is_claimed_that_the_codec_lacks() {
        for api in ApiKey::iter() {
            if let Some(ours) = client_versions(api) {
                let codec = api.valid_versions();
                assert!(codec.min <= ours.min && ours.max <= codec.max, "{api:?} {ours}");
            }
        }
    }
}
