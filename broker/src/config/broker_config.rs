//! What the broker was told at its start, checked and typed. It never changes; what may change at run time is
//! asked for through [`super::resolve::ConfigLayers`].

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::listener::Listener;
use super::resolve::ConfigMap;

/// A topic to create before the broker says that it is ready (`--topic NAME:PARTITIONS`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicToCreate {
    /// Its name; checked by CreateTopics like any other.
    pub name: String,
    /// How many partitions; `None` is `num.partitions`.
    pub partitions: Option<i32>,
}

/// What the broker was told at its start. Every value is in its range; sizes are in bytes.
#[derive(Clone, Debug)]
pub struct BrokerConfig {
    /// `node.id`: 0 or more.
    pub node_id: i32,
    /// `broker.rack`.
    pub broker_rack: Option<String>,
    /// Where clients connect: at least one, names unique; controller listeners are not among them.
    pub listeners: Vec<Listener>,
    /// `inter.broker.listener.name`: one of the listeners' names.
    pub inter_broker_listener_name: String,
    /// `log.dirs` or `--data-dir`, absolute; with `ephemeral` the directory that is removed at exit.
    pub data_dir: PathBuf,
    /// `--ephemeral`: nothing needs to survive this process, so nothing needs an fsync.
    pub ephemeral: bool,
    /// `num.partitions`: 1 or more.
    pub num_partitions: i32,
    /// `default.replication.factor`.
    pub default_replication_factor: i16,
    /// `auto.create.topics.enable`.
    pub auto_create_topics_enable: bool,
    /// `delete.topic.enable`.
    pub delete_topic_enable: bool,
    /// `socket.request.max.bytes`: the largest frame.
    pub socket_request_max_bytes: usize,
    /// `socket.send.buffer.bytes`; `None` leaves it to the system.
    pub socket_send_buffer_bytes: Option<usize>,
    /// `socket.receive.buffer.bytes`; `None` leaves it to the system.
    pub socket_receive_buffer_bytes: Option<usize>,
    /// `socket.listen.backlog.size`.
    pub socket_listen_backlog_size: u32,
    /// `connections.max.idle.ms`; `None` is never.
    pub connections_max_idle: Option<Duration>,
    /// `max.connections` as given at the start (it may change at run time).
    pub max_connections: usize,
    /// `max.connections.per.ip` as given at the start (it may change at run time).
    pub max_connections_per_ip: usize,
    /// `fetch.max.bytes`: most bytes of records in one answer.
    pub fetch_max_bytes: usize,
    /// `max.incremental.fetch.session.cache.slots`.
    pub max_incremental_fetch_session_cache_slots: usize,
    /// `max.request.partition.size.limit`: most partitions in one answer to DescribeTopicPartitions.
    pub max_request_partition_size_limit: usize,
    /// `log.initial.task.delay.ms`: wait before the first retention pass.
    pub log_initial_task_delay: Duration,
    /// `log.retention.check.interval.ms`.
    pub log_retention_check_interval: Duration,
    /// `log.flush.scheduler.interval.ms`; `None` is never.
    pub log_flush_scheduler_interval: Option<Duration>,
    /// `log.flush.offset.checkpoint.interval.ms`.
    pub log_flush_offset_checkpoint_interval: Duration,
    /// `log.flush.start.offset.checkpoint.interval.ms`.
    pub log_flush_start_offset_checkpoint_interval: Duration,
    /// `replica.high.watermark.checkpoint.interval.ms`.
    pub replica_high_watermark_checkpoint_interval: Duration,
    /// `num.recovery.threads.per.data.dir`: 1 or more.
    pub num_recovery_threads_per_data_dir: usize,
    /// `producer.id.expiration.ms` as given at the start (it may change at run time).
    pub producer_id_expiration: Duration,
    /// `producer.id.expiration.check.interval.ms`.
    pub producer_id_expiration_check_interval: Duration,
    /// `metadata.log.max.record.bytes.between.snapshots`.
    pub metadata_log_max_record_bytes_between_snapshots: u64,
    /// `min.insync.replicas` as given at the start: becomes the cluster's default at its first start.
    pub min_insync_replicas: i32,
    /// `--topic`: created before the ready line.
    pub topics: Vec<TopicToCreate>,
    /// `--ready-file`.
    pub ready_file: Option<PathBuf>,
    /// `--exit-with-stdin`.
    pub exit_with_stdin: bool,
    /// Every broker configuration given at the start, by Kafka's name.
    pub statics: ConfigMap,
}

impl BrokerConfig {
    /// Takes `directory` for the data: for `--ephemeral`, once the temporary directory exists.
    pub fn with_data_dir(mut self, directory: &Path) -> BrokerConfig {
        self.data_dir = directory.to_owned();
        self.statics.insert("log.dirs".to_owned(), directory.display().to_string());
        self
    }
}
