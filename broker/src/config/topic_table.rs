//! Every topic configuration of Kafka 4.1 (`TopicConfig.java`, `LogConfig.java`), all of them dynamic. Those of
//! features that are not there are listed too, since clients expect to see them, and accept their default only.

use super::definition::{Allowed, ConfigDefinition, ConfigType, Unit};

use Allowed::{AtLeast, Between, BetweenOr, Fraction, ListOf, OneOf, ThrottledReplicas};
use ConfigType::{Boolean, Double, Int, List, Long, String};
use Unit::{Bytes, Count, Milliseconds};

const CLEANER: &str = "compaction";
const PREALLOCATION: &str = "preallocation of segment files";
const TIERED_STORAGE: &str = "tiered storage";
const THROTTLES: &str = "replication throttling";
const LONG_MAX: &str = "9223372036854775807";

/// Words of `compression.type`; the order is Kafka's, which repeats it in its error message.
pub(super) const COMPRESSION_TYPES: &[&str] =
    &["uncompressed", "zstd", "lz4", "snappy", "gzip", "producer"];
/// Words of `message.timestamp.type`.
pub(super) const TIMESTAMP_TYPES: &[&str] = &["CreateTime", "LogAppendTime"];

const fn topic(
    name: &'static str,
    config_type: ConfigType,
    default: &'static str,
    documentation: &'static str,
) -> ConfigDefinition {
    ConfigDefinition::new(name, config_type, Some(default), documentation).dynamic()
}

/// The table, in the order of the names.
#[rustfmt::skip] // one line, one sentence
pub const TOPIC_CONFIGS: &[ConfigDefinition] = &[
    topic("cleanup.policy", List, "delete", "What happens to old segments: `delete` drops them by age and size.")
        .allow(ListOf(&["compact", "delete"]))
        .synonym("log.cleanup.policy")
        .absent(CLEANER),
    topic("compression.gzip.level", Int, "-1", "Level used when the broker compresses with gzip; -1 is gzip's own default.")
        .allow(BetweenOr(1, 9, -1))
        .synonym("compression.gzip.level"),
    topic("compression.lz4.level", Int, "9", "Level used when the broker compresses with LZ4.")
        .allow(Between(1, 17))
        .synonym("compression.lz4.level"),
    topic("compression.type", String, "producer", "The codec batches are stored with; `producer` keeps the one they arrive with.")
        .allow(OneOf(COMPRESSION_TYPES))
        .synonym("compression.type"),
    topic("compression.zstd.level", Int, "3", "Level used when the broker compresses with Zstandard.")
        .allow(Between(-131_072, 22))
        .synonym("compression.zstd.level"),
    topic("delete.retention.ms", Long, "86400000", "How long deletion markers of a compacted topic are kept.")
        .allow(AtLeast(0))
        .unit(Milliseconds)
        .synonym("log.cleaner.delete.retention.ms")
        .absent(CLEANER),
    topic("file.delete.delay.ms", Long, "60000", "How long a deleted segment's files stay on disk, renamed, before they are removed.")
        .allow(AtLeast(0))
        .unit(Milliseconds)
        .synonym("log.segment.delete.delay.ms"),
    topic("flush.messages", Long, LONG_MAX, "Records after which a partition is forced to disk; with 1 an acknowledgement waits for it.")
        .allow(AtLeast(1))
        .unit(Count)
        .synonym("log.flush.interval.messages"),
    topic("flush.ms", Long, LONG_MAX, "Longest time a record stays unforced to disk.")
        .allow(AtLeast(0))
        .unit(Milliseconds)
        .synonym("log.flush.interval.ms"),
    topic("follower.replication.throttled.replicas", List, "", "Replicas whose fetching is throttled.")
        .allow(ThrottledReplicas)
        .absent(THROTTLES),
    topic("index.interval.bytes", Int, "4096", "Bytes of records between two entries of the offset index.")
        .allow(AtLeast(0))
        .unit(Bytes)
        .synonym("log.index.interval.bytes"),
    topic("leader.replication.throttled.replicas", List, "", "Replicas whose serving is throttled.")
        .allow(ThrottledReplicas)
        .absent(THROTTLES),
    topic("local.retention.bytes", Long, "-2", "Size kept on the local disk; -2 follows `retention.bytes`.")
        .allow(AtLeast(-2))
        .unit(Bytes)
        .synonym("log.local.retention.bytes")
        .absent(TIERED_STORAGE),
    topic("local.retention.ms", Long, "-2", "Age kept on the local disk; -2 follows `retention.ms`.")
        .allow(AtLeast(-2))
        .unit(Milliseconds)
        .synonym("log.local.retention.ms")
        .absent(TIERED_STORAGE),
    topic("max.compaction.lag.ms", Long, LONG_MAX, "Age at which a record must have been looked at by compaction.")
        .allow(AtLeast(1))
        .unit(Milliseconds)
        .synonym("log.cleaner.max.compaction.lag.ms")
        .absent(CLEANER),
    topic("max.message.bytes", Int, "1048588", "Largest record batch accepted, after compression and with its header.")
        .allow(AtLeast(0))
        .unit(Bytes)
        .synonym("message.max.bytes"),
    topic("message.timestamp.after.max.ms", Long, "3600000", "How far a record's timestamp may lie ahead of the broker's clock.")
        .allow(AtLeast(0))
        .unit(Milliseconds)
        .synonym("log.message.timestamp.after.max.ms"),
    topic("message.timestamp.before.max.ms", Long, LONG_MAX, "How far a record's timestamp may lie behind the broker's clock.")
        .allow(AtLeast(0))
        .unit(Milliseconds)
        .synonym("log.message.timestamp.before.max.ms"),
    topic("message.timestamp.type", String, "CreateTime", "Whether a record keeps the producer's timestamp or gets the broker's at append.")
        .allow(OneOf(TIMESTAMP_TYPES))
        .synonym("log.message.timestamp.type"),
    topic("min.cleanable.dirty.ratio", Double, "0.5", "Part of a log that must be uncompacted before it is compacted again.")
        .allow(Fraction)
        .synonym("log.cleaner.min.cleanable.ratio")
        .absent(CLEANER),
    topic("min.compaction.lag.ms", Long, "0", "Age below which a record is not compacted.")
        .allow(AtLeast(0))
        .unit(Milliseconds)
        .synonym("log.cleaner.min.compaction.lag.ms")
        .absent(CLEANER),
    topic("min.insync.replicas", Int, "1", "In-sync replicas needed for acks=all and for the high watermark to move.")
        .allow(AtLeast(1))
        .unit(Count)
        .synonym("min.insync.replicas"),
    topic("preallocate", Boolean, "false", "Whether a new segment's file gets its full size at once.")
        .synonym("log.preallocate")
        .absent(PREALLOCATION),
    topic("remote.log.copy.disable", Boolean, "false", "Whether segments are no longer copied to remote storage.")
        .absent(TIERED_STORAGE),
    topic("remote.log.delete.on.disable", Boolean, "false", "Whether remote segments are deleted when remote storage is turned off.")
        .absent(TIERED_STORAGE),
    topic("remote.storage.enable", Boolean, "false", "Whether segments are copied to remote storage.")
        .absent(TIERED_STORAGE),
    topic("retention.bytes", Long, "-1", "Size of a partition above which its oldest segments are deleted; -1 is no limit.")
        .unit(Bytes)
        .synonym("log.retention.bytes"),
    topic("retention.ms", Long, "604800000", "Age of its newest record above which a segment is deleted; -1 is no limit.")
        .allow(AtLeast(-1))
        .unit(Milliseconds)
        .synonym("log.retention.ms"),
    topic("segment.bytes", Int, "1073741824", "Size at which a new segment file is begun.")
        .allow(AtLeast(1_048_576))
        .unit(Bytes)
        .synonym("log.segment.bytes"),
    topic("segment.index.bytes", Int, "10485760", "Largest size of a segment's offset index and of its time index.")
        .allow(AtLeast(4))
        .unit(Bytes)
        .synonym("log.index.size.max.bytes"),
    topic("segment.jitter.ms", Long, "0", "Random time, up to this, taken off `segment.ms` so that segments do not all roll at once.")
        .allow(AtLeast(0))
        .unit(Milliseconds)
        .synonym("log.roll.jitter.ms"),
    topic("segment.ms", Long, "604800000", "Age at which a new segment file is begun even if the old one is not full.")
        .allow(AtLeast(1))
        .unit(Milliseconds)
        .synonym("log.roll.ms"),
    topic("unclean.leader.election.enable", Boolean, "false", "Whether a replica that lacks records may become leader when no other is left.")
        .synonym("unclean.leader.election.enable"),
];
