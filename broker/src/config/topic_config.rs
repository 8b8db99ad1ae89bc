//! The effective configuration of one topic, typed.

use replication::metadata::ConfigMap;
use storage::compression::Compression;
use storage::log::LogConfig;
use storage::log_validator::{AppendOrigin, TopicCompression, ValidationConfig};
use storage::record_batch::TimestampType;

use super::definition::{ConfigDefinition, Support};
use super::resolve::ConfigLayers;
use super::table::ConfigTable;
use super::value::{ConfigValue, InvalidValue};

/// The effective configuration of one topic. Times are in milliseconds; a limit that is off is `None`.
#[derive(Clone, Debug, PartialEq)]
pub struct TopicConfig {
    /// `compression.type`, with the level that goes with it.
    pub compression: TopicCompression,
    /// `file.delete.delay.ms`.
    pub file_delete_delay_ms: u64,
    /// `flush.messages`: 1 or more.
    pub flush_messages: u64,
    /// `flush.ms`; `None` if it is off (Kafka's largest long).
    pub flush_ms: Option<u64>,
    /// `index.interval.bytes`.
    pub index_interval_bytes: u32,
    /// `max.message.bytes`: of one batch with its whole header.
    pub max_message_bytes: u32,
    /// `message.timestamp.after.max.ms`.
    pub message_timestamp_after_max_ms: i64,
    /// `message.timestamp.before.max.ms`.
    pub message_timestamp_before_max_ms: i64,
    /// `message.timestamp.type`.
    pub message_timestamp_type: TimestampType,
    /// `min.insync.replicas`, as configured: the effective value is at most the number of replicas.
    pub min_insync_replicas: u32,
    /// The broker's `producer.id.expiration.ms`, which may change at run time too.
    pub producer_id_expiration_ms: i64,
    /// `retention.bytes`, of a partition; `None` is no limit.
    pub retention_bytes: Option<u64>,
    /// `retention.ms`; `None` is no limit.
    pub retention_ms: Option<i64>,
    /// `segment.bytes`.
    pub segment_bytes: u32,
    /// `segment.index.bytes`.
    pub segment_index_bytes: u32,
    /// `segment.jitter.ms`.
    pub segment_jitter_ms: i64,
    /// `segment.ms`: 1 or more.
    pub segment_ms: i64,
    /// `unclean.leader.election.enable`.
    pub unclean_leader_election_enable: bool,
}

impl TopicConfig {
    /// The configuration of a topic with these settings of its own, on a broker with these layers.
    pub fn resolve(topic: &ConfigMap, layers: ConfigLayers<'_>) -> TopicConfig {
        let value = |name| layers.topic_value(ConfigTable::TOPIC.known(name), topic);
        let integer = |name| match value(name) {
            ConfigValue::Integer(number) => number,
            other => unreachable!("{name} is a number in the table, not {other:?}"),
        };
        // Ranges in the table make these conversions exact; a broker value outside (which the table of
        // broker configurations allows in a few places) is clipped.
        let unsigned = |name| u64::try_from(integer(name)).unwrap_or(0);
        let bytes = |name| u32::try_from(integer(name)).unwrap_or(0);
        let level = |name| i32::try_from(integer(name)).ok();
        let boolean = |name| value(name) == ConfigValue::Boolean(true);
        let word = |name| match value(name) {
            ConfigValue::String(word) => word,
            other => unreachable!("{name} is text in the table, not {other:?}"),
        };
        let off_at_max = |number: u64| (number < i64::MAX.unsigned_abs()).then_some(number);
        // -1 is the codec's own default, for gzip only: Zstandard has negative levels.
        let gzip_level = level("compression.gzip.level").filter(|level| *level != -1);
        TopicConfig {
            compression: match word("compression.type").as_str() {
                "uncompressed" => TopicCompression::To(Compression::None, None),
                "gzip" => TopicCompression::To(Compression::Gzip, gzip_level),
                "snappy" => TopicCompression::To(Compression::Snappy, None),
                "lz4" => TopicCompression::To(Compression::Lz4, level("compression.lz4.level")),
                "zstd" => TopicCompression::To(Compression::Zstd, level("compression.zstd.level")),
                _ => TopicCompression::Producer,
            },
            file_delete_delay_ms: unsigned("file.delete.delay.ms"),
            flush_messages: unsigned("flush.messages").max(1),
            flush_ms: off_at_max(unsigned("flush.ms")),
            index_interval_bytes: bytes("index.interval.bytes"),
            max_message_bytes: bytes("max.message.bytes"),
            message_timestamp_after_max_ms: integer("message.timestamp.after.max.ms"),
            message_timestamp_before_max_ms: integer("message.timestamp.before.max.ms"),
            message_timestamp_type: match word("message.timestamp.type").as_str() {
                "LogAppendTime" => TimestampType::LogAppendTime,
                _ => TimestampType::CreateTime,
            },
            min_insync_replicas: u32::try_from(integer("min.insync.replicas")).unwrap_or(1),
            producer_id_expiration_ms: producer_id_expiration_ms(layers),
            retention_bytes: u64::try_from(integer("retention.bytes")).ok(),
            retention_ms: Some(integer("retention.ms")).filter(|limit| *limit >= 0),
            segment_bytes: bytes("segment.bytes"),
            segment_index_bytes: bytes("segment.index.bytes"),
            segment_jitter_ms: integer("segment.jitter.ms").max(0),
            segment_ms: integer("segment.ms").max(1),
            unclean_leader_election_enable: boolean("unclean.leader.election.enable"),
        }
    }

    /// How the log of a partition is kept. Draws the partition's part of `segment.jitter.ms`.
    pub fn log_config(&self) -> LogConfig {
        let jitter = match self.segment_jitter_ms {
            0 => 0,
            most => rand::random_range(0..=most.min(self.segment_ms)),
        };
        LogConfig {
            segment_bytes: self.segment_bytes,
            segment_ms: self.segment_ms,
            segment_jitter_ms: jitter,
            segment_index_bytes: self.segment_index_bytes,
            index_interval_bytes: self.index_interval_bytes,
            retention_ms: self.retention_ms,
            retention_bytes: self.retention_bytes,
            flush_messages: self.flush_messages,
            flush_ms: self.flush_ms,
            file_delete_delay_ms: self.file_delete_delay_ms,
            producer_id_expiration_ms: self.producer_id_expiration_ms,
        }
    }

    /// What a client's batches are checked against.
    pub fn validation_config(&self) -> ValidationConfig {
        ValidationConfig {
            max_message_bytes: self.max_message_bytes as usize,
            timestamp_type: self.message_timestamp_type,
            before_max_ms: self.message_timestamp_before_max_ms,
            after_max_ms: self.message_timestamp_after_max_ms,
            compression: self.compression,
            compacted: false,
            origin: AppendOrigin::Client,
        }
    }
}

fn producer_id_expiration_ms(layers: ConfigLayers<'_>) -> i64 {
    let definition = ConfigTable::BROKER.known("producer.id.expiration.ms");
    match layers.broker_value(definition) {
        Some(ConfigValue::Integer(milliseconds)) => milliseconds,
        other => unreachable!("{} has a default number, not {other:?}", definition.name),
    }
}

/// Why a topic configuration is refused; INVALID_CONFIG on the wire, with this text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TopicConfigError {
    /// No topic configuration has this name.
    #[error("Unknown topic config name: {0}")]
    UnknownName(String),
    /// Not of its type or not allowed.
    #[error(transparent)]
    InvalidValue(#[from] InvalidValue),
    /// Allowed by Kafka; the feature is not there.
    #[error(
        "{name}={value}: {feature} is not in this version of highwater; only the default ({default}) is accepted"
    )]
    AbsentFeature {
        /// The configuration's name.
        name: &'static str,
        /// The value asked for.
        value: String,
        /// What is absent.
        feature: &'static str,
        /// The value that is accepted.
        default: &'static str,
    },
}

/// Checks one setting of a topic, for CreateTopics and the Alter requests.
///
/// # Errors
/// An unknown name, a value that is not allowed, or a feature that is not there.
pub fn validate_topic_config(name: &str, value: &str) -> Result<(), TopicConfigError> {
    let definition = ConfigTable::TOPIC
        .get(name)
        .ok_or_else(|| TopicConfigError::UnknownName(name.to_owned()))?;
    let parsed = definition.parse(value)?;
    match absent_feature(definition, &parsed) {
        None => Ok(()),
        Some((feature, default)) => Err(TopicConfigError::AbsentFeature {
            name: definition.name,
            value: value.to_owned(),
            feature,
            default,
        }),
    }
}

/// The feature a value asks for that is not there, and the default which alone is accepted.
pub(super) fn absent_feature(
    definition: &ConfigDefinition,
    parsed: &ConfigValue,
) -> Option<(&'static str, &'static str)> {
    let Support::DefaultOnly(feature) = definition.support else { return None };
    let default = definition.default.unwrap_or_default();
    (definition.parse(default).as_ref() != Ok(parsed)).then_some((feature, default))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;

    fn resolve(own: &[(&str, &str)], statics: &[(&str, &str)]) -> TopicConfig {
        let own: ConfigMap =
            own.iter().map(|(name, value)| (Arc::from(*name), Arc::from(*value))).collect();
        let statics: BTreeMap<String, String> =
            statics.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let cluster = ConfigMap::new();
        TopicConfig::resolve(
            &own,
            ConfigLayers { broker: None, cluster: &cluster, statics: &statics },
        )
    }

    #[test]
    fn without_settings_a_topic_has_kafkas_defaults() {
        let config = resolve(&[], &[]);
        assert_eq!(config.validation_config(), ValidationConfig::default());
        assert_eq!(config.log_config(), LogConfig::default());
        assert_eq!(config.retention_ms, Some(7 * 24 * 3_600_000));
        assert_eq!((config.retention_bytes, config.flush_ms), (None, None));
        assert_eq!(config.flush_messages, i64::MAX.unsigned_abs());
        assert_eq!((config.segment_bytes, config.segment_index_bytes), (1 << 30, 10 << 20));
    }

    #[test]
    fn minus_one_is_no_limit_in_any_unit() {
        assert_eq!(resolve(&[("retention.ms", "-1")], &[]).retention_ms, None);
        assert_eq!(resolve(&[], &[("log.retention.hours", "-1")]).retention_ms, None);
        let hours = resolve(&[], &[("log.retention.hours", "2147483647")]).retention_ms;
        assert_eq!(hours, Some(2_147_483_647 * 3_600_000));
    }

    #[test]
    fn compression_takes_the_level_of_its_own_codec() {
        let of = |settings: &[(&str, &str)]| resolve(settings, &[]).compression;
        assert_eq!(
            of(&[("compression.type", "gzip")]),
            TopicCompression::To(Compression::Gzip, None)
        );
        assert_eq!(
            of(&[("compression.type", "zstd"), ("compression.zstd.level", "-1")]),
            TopicCompression::To(Compression::Zstd, Some(-1))
        );
        assert_eq!(
            of(&[("compression.type", "lz4")]),
            TopicCompression::To(Compression::Lz4, Some(9))
        );
        assert_eq!(
            of(&[("compression.type", "uncompressed")]),
            TopicCompression::To(Compression::None, None)
        );
    }

    #[test]
    fn jitter_is_drawn_within_its_bound() {
        let config = resolve(&[("segment.jitter.ms", "5"), ("segment.ms", "3")], &[]);
        for _ in 0..100 {
            assert!((0..=3).contains(&config.log_config().segment_jitter_ms));
        }
    }

    #[test]
    fn a_value_from_another_version_falls_back_to_the_next_level() {
        let config = resolve(&[("segment.bytes", "12")], &[("log.segment.bytes", "2000000")]);
        assert_eq!(config.segment_bytes, 2_000_000);
    }

    #[test]
    fn what_is_not_there_accepts_its_default_in_any_spelling_and_nothing_else() {
        for (name, value) in [
            ("cleanup.policy", "delete"),
            ("cleanup.policy", " delete "),
            ("min.cleanable.dirty.ratio", "0.50"),
            ("remote.storage.enable", "False"),
            ("leader.replication.throttled.replicas", ""),
            ("max.compaction.lag.ms", "9223372036854775807"),
        ] {
            assert_eq!(validate_topic_config(name, value), Ok(()), "{name}={value}");
        }
        for (name, value) in [
            ("cleanup.policy", "compact"),
            ("cleanup.policy", "compact,delete"),
            ("cleanup.policy", ""),
            ("delete.retention.ms", "1"),
            ("remote.storage.enable", "true"),
            ("local.retention.ms", "5"),
            ("leader.replication.throttled.replicas", "*"),
            ("preallocate", "true"),
        ] {
            let error = validate_topic_config(name, value).unwrap_err();
            assert!(
                matches!(error, TopicConfigError::AbsentFeature { .. }),
                "{name}={value}: {error}"
            );
        }
    }

    #[test]
    fn unknown_names_and_those_that_kafka_4_dropped_are_refused() {
        for name in ["no.such", "", "message.format.version", "message.downconversion.enable"] {
            let error = validate_topic_config(name, "1").unwrap_err();
            assert_eq!(error.to_string(), format!("Unknown topic config name: {name}"));
        }
    }

    proptest! {
        /// Whatever the metadata log holds, resolving it gives a configuration and never a panic.
        #[test]
        fn any_text_resolves(name in 0..ConfigTable::TOPIC.iter().count(), value in "\\PC{0,24}|-?[0-9]{1,20}") {
            let name = ConfigTable::TOPIC.iter().nth(name).unwrap().name;
            let config = resolve(&[(name, &value)], &[]);
            prop_assert!(config.segment_bytes >= 1 << 20 && config.segment_ms >= 1);
        }
    }
}
