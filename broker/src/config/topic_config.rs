//! The effective configuration of one topic, typed.

use std::time::Duration;

use super::definition::{ConfigDefinition, Support};
use super::resolve::{ConfigLayers, ConfigMap};
use super::table::ConfigTable;
use super::value::{ConfigValue, InvalidValue};

/// Who sets a record's timestamp.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimestampType {
    /// The producer.
    CreateTime,
    /// The broker, at append.
    LogAppendTime,
}

/// The codec of stored batches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CompressionType {
    /// The one the batch arrived with.
    Producer,
    /// None.
    Uncompressed,
    /// gzip.
    Gzip,
    /// Snappy.
    Snappy,
    /// LZ4.
    Lz4,
    /// Zstandard.
    Zstd,
}

/// The effective configuration of one topic. Times are in milliseconds; a limit that is off is `None`.
#[derive(Clone, Debug, PartialEq)]
pub struct TopicConfig {
    /// `compression.type`.
    pub compression_type: CompressionType,
    /// `compression.gzip.level`; -1 is the codec's own default.
    pub compression_gzip_level: i32,
    /// `compression.lz4.level`.
    pub compression_lz4_level: i32,
    /// `compression.zstd.level`.
    pub compression_zstd_level: i32,
    /// `file.delete.delay.ms`.
    pub file_delete_delay: Duration,
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
    /// `retention.bytes`, of a partition; `None` is no limit.
    pub retention_bytes: Option<u64>,
    /// `retention.ms`; `None` is no limit.
    pub retention_ms: Option<u64>,
    /// `segment.bytes`.
    pub segment_bytes: u32,
    /// `segment.index.bytes`.
    pub segment_index_bytes: u32,
    /// `segment.jitter.ms`.
    pub segment_jitter_ms: u64,
    /// `segment.ms`: 1 or more.
    pub segment_ms: u64,
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
        let level = |name| i32::try_from(integer(name)).unwrap_or(-1);
        let boolean = |name| value(name) == ConfigValue::Boolean(true);
        let word = |name| match value(name) {
            ConfigValue::String(word) => word,
            other => unreachable!("{name} is text in the table, not {other:?}"),
        };
        let off_at_max = |number: u64| (number < i64::MAX.unsigned_abs()).then_some(number);
        TopicConfig {
            compression_type: CompressionType::from_word(&word("compression.type")),
            compression_gzip_level: level("compression.gzip.level"),
            compression_lz4_level: level("compression.lz4.level"),
            compression_zstd_level: level("compression.zstd.level"),
            file_delete_delay: Duration::from_millis(unsigned("file.delete.delay.ms")),
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
            retention_bytes: u64::try_from(integer("retention.bytes")).ok(),
            retention_ms: u64::try_from(integer("retention.ms")).ok(),
            segment_bytes: bytes("segment.bytes"),
            segment_index_bytes: bytes("segment.index.bytes"),
            segment_jitter_ms: unsigned("segment.jitter.ms"),
            segment_ms: unsigned("segment.ms").max(1),
            unclean_leader_election_enable: boolean("unclean.leader.election.enable"),
        }
    }
}

impl CompressionType {
    fn from_word(word: &str) -> CompressionType {
        match word {
            "uncompressed" => CompressionType::Uncompressed,
            "gzip" => CompressionType::Gzip,
            "snappy" => CompressionType::Snappy,
            "lz4" => CompressionType::Lz4,
            "zstd" => CompressionType::Zstd,
            _ => CompressionType::Producer,
        }
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
