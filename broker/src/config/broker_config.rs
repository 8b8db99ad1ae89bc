//! What the broker was told at its start, checked and typed. It never changes; what may change at run time is
//! asked for through [`super::resolve::ConfigLayers`].

use std::path::{Path, PathBuf};
use std::time::Duration;

use replication::controller::ControllerConfig;
use replication::identity::BrokerId;
use storage::log_manager::LogManagerConfig;

use super::error::ConfigError;
use super::flags::{self, ServeFlags};
use super::listener::Listener;
use super::listeners::Listeners;
use super::load::{ConfigWarning, Settings};
use super::quorum::QuorumSettings;
use super::resolve::StaticConfigMap;
use super::table::ConfigTable;
use super::value::{ConfigValue, split_list};

/// `broker.session.timeout.ms`, Kafka's default. Alone in its cluster a broker is never silent to itself.
const BROKER_SESSION_TIMEOUT: Duration = Duration::from_secs(9);

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
    /// `node.id`.
    pub node_id: BrokerId,
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
    /// `connections.max.idle.ms`; `None` is never.
    pub connections_max_idle: Option<Duration>,
    /// `queued.max.request.bytes`; `None` is no limit.
    pub queued_max_request_bytes: Option<usize>,
    /// `max.connections`.
    pub max_connections: usize,
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
    /// `log.flush.offset.checkpoint.interval.ms`.
    pub log_flush_offset_checkpoint_interval: Duration,
    /// `log.flush.start.offset.checkpoint.interval.ms`.
    pub log_flush_start_offset_checkpoint_interval: Duration,
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
    pub statics: StaticConfigMap,
}

impl BrokerConfig {
    /// Takes `directory` for the data: for `--ephemeral`, once the temporary directory exists.
    pub fn with_data_dir(mut self, directory: &Path) -> BrokerConfig {
        self.data_dir = directory.to_owned();
        self.statics.insert("log.dirs".to_owned(), directory.display().to_string());
        self
    }

    /// What the controller is told at its start.
    pub fn controller_config(&self) -> ControllerConfig {
        let given = Given(&self.statics);
        ControllerConfig {
            default_partitions: self.num_partitions,
            default_replication_factor: self.default_replication_factor,
            min_insync_replicas: self.min_insync_replicas,
            unclean_leader_election_enable: given.is_true("unclean.leader.election.enable"),
            session_timeout: BROKER_SESSION_TIMEOUT,
        }
    }

    /// What the log manager is told at its start.
    pub fn log_manager_config(&self) -> LogManagerConfig {
        let milliseconds = |it: Duration| u64::try_from(it.as_millis()).unwrap_or(u64::MAX);
        let checkpoint_interval = self
            .log_flush_offset_checkpoint_interval
            .min(self.log_flush_start_offset_checkpoint_interval);
        LogManagerConfig {
            recovery_threads: self.num_recovery_threads_per_data_dir,
            retention_check_interval_ms: milliseconds(self.log_retention_check_interval),
            checkpoint_interval_ms: milliseconds(checkpoint_interval),
            producer_expiration_check_interval_ms: milliseconds(
                self.producer_id_expiration_check_interval,
            ),
            initial_task_delay_ms: milliseconds(self.log_initial_task_delay),
            ..LogManagerConfig::default()
        }
    }

    /// From settings that are each valid by themselves.
    pub(super) fn build(
        settings: &Settings,
        flags: &ServeFlags,
        warnings: &mut Vec<ConfigWarning>,
    ) -> Result<BrokerConfig, ConfigError> {
        let mut statics: StaticConfigMap = settings
            .iter()
            .filter(|(name, _)| ConfigTable::BROKER.get(name).is_some())
            .map(|(name, (value, _))| (name.clone(), value.trim().to_owned()))
            .collect();
        let node_id = node_id(&mut statics)?;
        let given = Given(&statics);

        let listeners = Listeners::from_settings(&given)?;
        QuorumSettings {
            node_id,
            process_roles: split_list(&given.text("process.roles").unwrap_or_default()),
            voters: &given.text("controller.quorum.voters").unwrap_or_default(),
            bootstrap_servers: &given
                .text("controller.quorum.bootstrap.servers")
                .unwrap_or_default(),
            controller_endpoints: listeners.controller_endpoints(),
            own_hosts: listeners.own_hosts(),
        }
        .check_alone()?;
        for unopened in &listeners.controller {
            warnings.push(ConfigWarning::ControllerListenerNotOpened {
                listener: format!("{}://{}", unopened.name, unopened.endpoint),
            });
        }
        let topics = flags.topic.iter().map(|text| flags::parse_topic(text));

        Ok(BrokerConfig {
            node_id,
            broker_rack: given.text("broker.rack").filter(|rack| !rack.is_empty()),
            inter_broker_listener_name: listeners.inter_broker_listener_name,
            listeners: listeners.client,
            data_dir: data_dir(&given)?,
            ephemeral: flags.ephemeral,
            num_partitions: given.number("num.partitions"),
            default_replication_factor: given.number("default.replication.factor"),
            auto_create_topics_enable: given.is_true("auto.create.topics.enable"),
            delete_topic_enable: given.is_true("delete.topic.enable"),
            socket_request_max_bytes: given.number("socket.request.max.bytes"),
            connections_max_idle: given.limit("connections.max.idle.ms"),
            queued_max_request_bytes: given.bytes_limit("queued.max.request.bytes"),
            max_connections: given.number("max.connections"),
            fetch_max_bytes: given.number("fetch.max.bytes"),
            max_incremental_fetch_session_cache_slots: given
                .number("max.incremental.fetch.session.cache.slots"),
            max_request_partition_size_limit: given.number("max.request.partition.size.limit"),
            log_initial_task_delay: given.duration("log.initial.task.delay.ms"),
            log_retention_check_interval: given.duration("log.retention.check.interval.ms"),
            log_flush_offset_checkpoint_interval: given
                .duration("log.flush.offset.checkpoint.interval.ms"),
            log_flush_start_offset_checkpoint_interval: given
                .duration("log.flush.start.offset.checkpoint.interval.ms"),
            num_recovery_threads_per_data_dir: given.number("num.recovery.threads.per.data.dir"),
            producer_id_expiration: given.duration("producer.id.expiration.ms"),
            producer_id_expiration_check_interval: given
                .duration("producer.id.expiration.check.interval.ms"),
            metadata_log_max_record_bytes_between_snapshots: given
                .number("metadata.log.max.record.bytes.between.snapshots"),
            min_insync_replicas: given.number("min.insync.replicas"),
            topics: topics.collect::<Result<_, _>>()?,
            ready_file: flags.ready_file.clone(),
            exit_with_stdin: flags.exit_with_stdin,
            statics,
        })
    }
}

/// `node.id`, or its old name `broker.id`; afterwards both say it, as in Kafka.
fn node_id(statics: &mut StaticConfigMap) -> Result<BrokerId, ConfigError> {
    let given = Given(statics);
    let (node_id, broker_id_given) = (given.set_number("node.id"), given.set_number("broker.id"));
    let conflict = |key, value: i32, reason: &str| {
        Err(ConfigError::Conflict { key, value: value.to_string(), reason: reason.to_owned() })
    };
    let id = match (node_id, broker_id_given) {
        (Some(node), Some(broker)) if node != broker => {
            return conflict("broker.id", broker, "it must be what node.id is");
        }
        (Some(id), _) | (None, Some(id)) => id,
        (None, None) => given.number("node.id"),
    };
    let Some(broker_id) = BrokerId::new(id) else {
        return conflict("broker.id", id, "it must be at least 0");
    };
    if node_id.or(broker_id_given).is_some() {
        for name in ["node.id", "broker.id"] {
            statics.insert(name.to_owned(), id.to_string());
        }
    }
    Ok(broker_id)
}

fn data_dir(given: &Given<'_>) -> Result<PathBuf, ConfigError> {
    let key = if given.text("log.dirs").is_some() { "log.dirs" } else { "log.dir" };
    let value = given.text(key).unwrap_or_default();
    let conflict = |reason: String| ConfigError::Conflict { key, value: value.clone(), reason };
    if value.contains(',') {
        return Err(conflict("one directory is what it takes, not a list of them".to_owned()));
    }
    if value.is_empty() {
        return Err(conflict("it must name a directory".to_owned()));
    }
    std::path::absolute(&value).map_err(|error| conflict(error.to_string()))
}

/// The settings given at the start over the defaults; each is valid by the table.
pub(super) struct Given<'a>(pub(super) &'a StaticConfigMap);

impl Given<'_> {
    /// The value as text; `None` where nothing is set and the table has no default.
    pub(super) fn text(&self, name: &str) -> Option<String> {
        let definition = ConfigTable::BROKER.known(name);
        self.0.get(name).cloned().or_else(|| definition.default.map(str::to_owned))
    }

    fn integer(&self, name: &str) -> i64 {
        let text = self.text(name).expect("a number in the table has a default");
        match ConfigTable::BROKER.known(name).parse(&text) {
            Ok(ConfigValue::Integer(number)) => number,
            other => unreachable!("{name}={text} was checked to be a number, now {other:?}"),
        }
    }

    /// The number, clipped to the type that is asked for.
    fn number<T: TryFrom<i64> + Bounded>(&self, name: &str) -> T {
        let number = self.integer(name);
        T::try_from(number).unwrap_or(if number < 0 { T::LEAST } else { T::MOST })
    }

    /// A number of bytes of which 0 and less are no limit.
    fn bytes_limit(&self, name: &str) -> Option<usize> {
        Some(self.number(name)).filter(|&bytes| bytes > 0)
    }

    fn set_number(&self, name: &str) -> Option<i32> {
        self.0.contains_key(name).then(|| self.number(name))
    }

    fn is_true(&self, name: &str) -> bool {
        let text = self.text(name).unwrap_or_default();
        ConfigTable::BROKER.known(name).parse(&text) == Ok(ConfigValue::Boolean(true))
    }

    fn duration(&self, name: &str) -> Duration {
        Duration::from_millis(self.number(name))
    }

    /// Milliseconds after which something happens; negative, or Kafka's largest long, is never.
    fn limit(&self, name: &str) -> Option<Duration> {
        let milliseconds = self.integer(name);
        let is_never = milliseconds == i64::MAX;
        u64::try_from(milliseconds).ok().filter(|_| !is_never).map(Duration::from_millis)
    }
}

/// The ends of an integer type, to clip to.
trait Bounded {
    const LEAST: Self;
    const MOST: Self;
}

macro_rules! bounded {
    ($($integer:ty),*) => {
        $(impl Bounded for $integer {
            const LEAST: Self = <$integer>::MIN;
            const MOST: Self = <$integer>::MAX;
        })*
    };
}
bounded!(i16, i32, u32, u64, usize);
