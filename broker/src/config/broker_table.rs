//! The broker configurations of Kafka 4.1 that we follow. Kafka's others are known by name in `absent`. Defaults
//! and ranges are Kafka's unless the line says otherwise.

use super::definition::{Allowed, ConfigDefinition, ConfigType, Unit};
use super::topic_table::{COMPRESSION_TYPES, TIMESTAMP_TYPES};

use Allowed::{AtLeast, Between, BetweenOr, ListOf, OneOf};
use ConfigType::{Boolean, Int, List, Long, String};
use Unit::{Bytes, Count, Hours, Milliseconds, Minutes};

const LONG_MAX: &str = "9223372036854775807";
const INT_MAX: &str = "2147483647";

const fn broker(
    name: &'static str,
    config_type: ConfigType,
    default: &'static str,
    documentation: &'static str,
) -> ConfigDefinition {
    ConfigDefinition::new(name, config_type, Some(default), documentation)
}

/// A configuration that is not set unless somebody sets it (Kafka's null).
const fn unset(
    name: &'static str,
    config_type: ConfigType,
    documentation: &'static str,
) -> ConfigDefinition {
    ConfigDefinition::new(name, config_type, None, documentation)
}

/// The table, in the order of the names.
#[rustfmt::skip] // one line, one configuration
pub const BROKER_CONFIGS: &[ConfigDefinition] = &[
    unset("advertised.listeners", String, "Addresses told to clients, `NAME://host:port,…`; a listener without one advertises the address its client dialled."),
    broker("auto.create.topics.enable", Boolean, "true", "Whether asking for the metadata of an unknown topic creates it."),
    // Kafka's default is -1, from before node.id; ours is the node's id.
    broker("broker.id", Int, "-1", "Old name of `node.id`."),
    unset("broker.rack", String, "Where this broker stands, for placing replicas apart and for reading from near ones."),
    broker("compression.gzip.level", Int, "-1", "Default of the topic configuration of the same name.").allow(BetweenOr(1, 9, -1)).dynamic(),
    broker("compression.lz4.level", Int, "9", "Default of the topic configuration of the same name.").allow(Between(1, 17)).dynamic(),
    broker("compression.type", String, "producer", "Default of the topic configuration of the same name.").allow(OneOf(COMPRESSION_TYPES)).dynamic(),
    broker("compression.zstd.level", Int, "3", "Default of the topic configuration of the same name.").allow(Between(-131_072, 22)).dynamic(),
    broker("connections.max.idle.ms", Long, "600000", "Idle time after which a client's connection is closed; negative is never.").unit(Milliseconds),
    unset("controller.listener.names", String, "Which of the listeners belong to the controller."),
    broker("controller.quorum.bootstrap.servers", List, "", "Addresses by which the metadata quorum is found, `host:port,…`."),
    broker("controller.quorum.voters", List, "", "Members of the metadata quorum, `id@host:port,…`."),
    broker("default.replication.factor", Int, "1", "Replicas of a topic created without a number of them.").allow(Between(1, 32_767)).unit(Count),
    broker("delete.topic.enable", Boolean, "true", "Whether topics may be deleted."),
    broker("fetch.max.bytes", Int, "57671680", "Most bytes of records in one answer to a fetch, whatever the client allows.").allow(AtLeast(1024)).unit(Bytes),
    unset("inter.broker.listener.name", String, "The listener used between brokers."),
    broker("listener.security.protocol.map", String, "SASL_SSL:SASL_SSL,PLAINTEXT:PLAINTEXT,SSL:SSL,SASL_PLAINTEXT:SASL_PLAINTEXT", "Security protocol of each listener name, `NAME:PROTOCOL,…`."),
    // Kafka listens on all interfaces by default; we only on this machine's own.
    broker("listeners", String, "PLAINTEXT://127.0.0.1:9092", "Addresses to listen on, `NAME://host:port,…`; an empty host is all interfaces, port 0 a free one."),
    broker("log.cleanup.policy", List, "delete", "Default of the topic configuration `cleanup.policy`.").allow(ListOf(&["compact", "delete"])).dynamic().absent("compaction"),
    // Kafka's default is kafka-logs in the temporary directory.
    broker("log.dir", String, "./highwater-data", "Where the data lies, if `log.dirs` is not set."),
    unset("log.dirs", String, "Where the data lies; one directory."),
    broker("log.flush.interval.messages", Long, LONG_MAX, "Default of the topic configuration `flush.messages`.").allow(AtLeast(1)).unit(Count).dynamic(),
    unset("log.flush.interval.ms", Long, "Default of the topic configuration `flush.ms`.").allow(AtLeast(0)).unit(Milliseconds).dynamic(),
    broker("log.flush.offset.checkpoint.interval.ms", Int, "60000", "How often recovery points, log start offsets and high watermarks are written down.").allow(AtLeast(1)).unit(Milliseconds),
    broker("log.flush.scheduler.interval.ms", Long, LONG_MAX, "Default of `log.flush.interval.ms`; what is due is flushed when it is due, whatever this says.").unit(Milliseconds),
    broker("log.flush.start.offset.checkpoint.interval.ms", Int, "60000", "Likewise; the shorter of the two counts for all.").allow(AtLeast(1)).unit(Milliseconds),
    broker("log.index.interval.bytes", Int, "4096", "Default of the topic configuration `index.interval.bytes`.").allow(AtLeast(0)).unit(Bytes).dynamic(),
    broker("log.index.size.max.bytes", Int, "10485760", "Default of the topic configuration `segment.index.bytes`.").allow(AtLeast(4)).unit(Bytes).dynamic(),
    broker("log.initial.task.delay.ms", Long, "30000", "Wait before the first retention pass.").allow(AtLeast(0)).unit(Milliseconds).internal(),
    broker("log.message.timestamp.after.max.ms", Long, "3600000", "Default of the topic configuration `message.timestamp.after.max.ms`.").allow(AtLeast(0)).unit(Milliseconds).dynamic(),
    broker("log.message.timestamp.before.max.ms", Long, LONG_MAX, "Default of the topic configuration `message.timestamp.before.max.ms`.").allow(AtLeast(0)).unit(Milliseconds).dynamic(),
    broker("log.message.timestamp.type", String, "CreateTime", "Default of the topic configuration `message.timestamp.type`.").allow(OneOf(TIMESTAMP_TYPES)).dynamic(),
    broker("log.preallocate", Boolean, "false", "Default of the topic configuration `preallocate`.").dynamic().absent("preallocation of segment files"),
    broker("log.retention.bytes", Long, "-1", "Default of the topic configuration `retention.bytes`.").unit(Bytes).dynamic(),
    broker("log.retention.check.interval.ms", Long, "300000", "How often old segments are looked for.").allow(AtLeast(1)).unit(Milliseconds),
    broker("log.retention.hours", Int, "168", "Default of `retention.ms`, in hours, if neither milliseconds nor minutes are set.").allow(BetweenOr(1, i64::MAX, -1)).unit(Hours),
    unset("log.retention.minutes", Int, "Default of `retention.ms`, in minutes, if milliseconds are not set.").allow(BetweenOr(1, i64::MAX, -1)).unit(Minutes),
    unset("log.retention.ms", Long, "Default of the topic configuration `retention.ms`.").allow(BetweenOr(1, i64::MAX, -1)).unit(Milliseconds).dynamic(),
    broker("log.roll.hours", Int, "168", "Default of `segment.ms`, in hours, if milliseconds are not set.").allow(AtLeast(1)).unit(Hours),
    broker("log.roll.jitter.hours", Int, "0", "Default of `segment.jitter.ms`, in hours, if milliseconds are not set.").allow(AtLeast(0)).unit(Hours),
    unset("log.roll.jitter.ms", Long, "Default of the topic configuration `segment.jitter.ms`.").allow(AtLeast(0)).unit(Milliseconds).dynamic(),
    unset("log.roll.ms", Long, "Default of the topic configuration `segment.ms`.").allow(AtLeast(1)).unit(Milliseconds).dynamic(),
    broker("log.segment.bytes", Int, "1073741824", "Default of the topic configuration `segment.bytes`.").allow(AtLeast(1_048_576)).unit(Bytes).dynamic(),
    broker("log.segment.delete.delay.ms", Long, "60000", "Default of the topic configuration `file.delete.delay.ms`.").allow(AtLeast(0)).unit(Milliseconds).dynamic(),
    broker("max.connections", Int, INT_MAX, "Most client connections at a time; further ones are closed at once.").allow(AtLeast(0)).unit(Count),
    broker("max.incremental.fetch.session.cache.slots", Int, "1000", "Most fetch sessions kept at a time; together they take at most 128 MiB, about 400,000 partitions.").allow(AtLeast(0)).unit(Count),
    broker("max.request.partition.size.limit", Int, "2000", "Most partitions in one answer to DescribeTopicPartitions.").allow(AtLeast(1)).unit(Count),
    broker("message.max.bytes", Int, "1048588", "Default of the topic configuration `max.message.bytes`.").allow(AtLeast(0)).unit(Bytes).dynamic(),
    broker("metadata.log.max.record.bytes.between.snapshots", Long, "20971520", "Bytes of metadata after which a snapshot is written.").allow(AtLeast(1)).unit(Bytes),
    broker("min.insync.replicas", Int, "1", "Default of the topic configuration of the same name; the cluster remembers it from its first start.").allow(AtLeast(1)).unit(Count).dynamic(),
    // Kafka has no default; one broker alone needs no thought.
    broker("node.id", Int, "1", "This node's number in the cluster.").allow(AtLeast(0)),
    broker("num.partitions", Int, "1", "Partitions of a topic created without a number of them.").allow(AtLeast(1)).unit(Count),
    broker("num.recovery.threads.per.data.dir", Int, "2", "Threads that read logs again after an unclean stop.").allow(AtLeast(1)).unit(Count),
    broker("process.roles", List, "broker,controller", "What this process is.").allow(ListOf(&["broker", "controller"])),
    broker("producer.id.expiration.check.interval.ms", Int, "600000", "How often idle producers are looked for.").allow(AtLeast(1)).unit(Milliseconds).internal(),
    broker("producer.id.expiration.ms", Int, "86400000", "Idle time after which a producer's sequence numbers are forgotten.").allow(AtLeast(1)).unit(Milliseconds).dynamic(),
    // Kafka's default is -1, no limit.
    broker("queued.max.request.bytes", Long, "134217728", "Most bytes held for all connections together: requests that have come in and answers that wait to be written, record bytes in files not counted; 0 or less is no limit. Each connection may hold 64 KiB beside it, and one request at a time is let in past it (`socket.request.max.bytes`). At the limit the sockets of large requests are not read, that one request is given up if nothing of it comes for a second or it takes ten, and clients are cut off whose answers have waited longest to be read.").unit(Bytes),
    broker("security.inter.broker.protocol", String, "PLAINTEXT", "Security protocol between brokers.").allow(OneOf(&["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"])),
    broker("socket.request.max.bytes", Int, "104857600", "Largest request accepted.").allow(AtLeast(1)).unit(Bytes),
    broker("unclean.leader.election.enable", Boolean, "false", "Default of the topic configuration of the same name.").dynamic(),
];
