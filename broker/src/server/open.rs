//! Opening everything a broker stands on: sockets, the log directory, the metadata, the logs.

use super::ServeError;
use crate::broker::{BoundListener, Broker};
use crate::broker_lifecycle::new_incarnation_id;
use crate::clock::Clock;
use crate::config::{BrokerConfig, ConfigLayers, Listener, TableValidator, TopicConfig};
use crate::fetch_session::FetchSessions;
use crate::handlers::metadata::answers::MetadataAnswers;
use crate::network::listener;
use crate::producer_ids::ProducerIds;
use crate::quorum::{MetadataQuorumConfig, OpenQuorum, RunningQuorum};
use crate::replica_manager::ReplicaManager;
use crate::replica_manager::apply_delta::RoleApplier;
use replication::controller::{RegisterBroker, supported_features};
use replication::identity::{BrokerEpoch, ClusterId, DirectoryId};
use replication::metadata::{BrokerListener, MetadataImage, SecurityProtocol};
use replication::quorum::log_store::{LogStoreConfig, METADATA_LOG_DIR};
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::Path;
use std::sync::{Arc, Mutex};
use storage::fs::Fs;
use storage::fs::real::RealFs;
use storage::log_dir::{DirName, LogDir, MetaProperties, OpenDirError, parse_dir_name};
use storage::log_manager::{KnownPartition, LogManager, StartReport};
use storage::topic_partition::{TopicId, TopicPartition};
use tokio::net::TcpListener;
use tokio::sync::watch;

/// A broker that has not registered yet.
pub(super) struct Opened {
    pub(super) broker: Arc<Broker>,
    pub(super) quorum: RunningQuorum,
    /// Holds the directory's lock.
    pub(super) dir: Arc<LogDir>,
    pub(super) registration: RegisterBroker,
}

/// Binds every listener.
pub(super) fn bind(config: &BrokerConfig) -> Result<Vec<(BoundListener, TcpListener)>, ServeError> {
    config.listeners.iter().map(bind_one).collect()
}

fn bind_one(listener: &Listener) -> Result<(BoundListener, TcpListener), ServeError> {
    let told = |error: &dyn std::fmt::Display| {
        ServeError::Configuration(format!("cannot listen on {}: {error}", listener.bind))
    };
    let address = address(listener).map_err(|error| told(&error))?;
    let socket = listener::bind(address).map_err(|error| match error.kind() {
        std::io::ErrorKind::AddrInUse => ServeError::Configuration(format!(
            "port {port} of {host} is taken by another process (`ss -ltnp 'sport = :{port}'` names it); stop that one, or choose another port with --listen {host}:PORT, 0 for a free one",
            port = address.port(),
            host = address.ip(),
        )),
        _ => told(&error),
    })?;
    let port = socket.local_addr().map_err(|error| told(&error))?.port();
    Ok((BoundListener { listener: listener.clone(), port }, socket))
}

/// An empty host is every interface, of IPv6 and IPv4 where the system has both.
fn address(listener: &Listener) -> std::io::Result<SocketAddr> {
    let host = match listener.bind.host.as_str() {
        "" => "::",
        host => host,
    };
    let found = (host, listener.bind.port).to_socket_addrs()?.next();
    found.ok_or_else(|| std::io::Error::other("the name has no address"))
}

/// Opens the directory, the metadata and the logs, and starts the quorum's thread.
pub(super) fn open(
    config: BrokerConfig,
    listeners: Vec<BoundListener>,
    disk_failed: watch::Sender<Option<String>>,
) -> Result<Opened, ServeError> {
    let clock = Clock::start();
    let config = Arc::new(config);
    let node_id = config.node_id;
    let fs: Arc<dyn Fs> =
        if config.ephemeral { Arc::new(RealFs::without_sync()) } else { Arc::new(RealFs::new()) };
    let dir = open_dir(&config, &fs)?;
    dir.set_offline_listener(move |error| {
        disk_failed.send_replace(Some(error.to_string()));
    });
    check_metadata_log(&fs, dir.path())?;
    let meta = dir.meta_properties();
    let directory_id = DirectoryId::from_bytes(*meta.directory_id.as_bytes());
    let quorum = OpenQuorum::open(
        Arc::clone(dir.fs()),
        dir.path(),
        MetadataQuorumConfig {
            node_id,
            directory_id,
            cluster_id: meta.cluster_id.as_deref().and_then(ClusterId::new),
            log_store: LogStoreConfig::default(),
            max_bytes_between_snapshots: config.metadata_log_max_record_bytes_between_snapshots,
            controller: config.controller_config(),
            validator: Arc::new(TableValidator),
        },
    )?;
    let image = quorum.image();
    let (logs, report) = open_logs(&config, &dir, &image.load(), clock)?;
    tell(&report);
    let replica_manager = Arc::new(ReplicaManager::new(clock, logs));
    let incarnation_id = new_incarnation_id();
    let controller = quorum.controller();
    let applier = RoleApplier::new(
        Arc::clone(&config),
        node_id,
        incarnation_id,
        Arc::clone(&replica_manager),
    );
    let quorum = quorum
        .start(applier)
        .map_err(|error| ServeError::Configuration(format!("no thread for the quorum: {error}")))?;
    let registration = RegisterBroker {
        cluster_id: image.load().cluster_id().clone(),
        broker_id: node_id,
        incarnation_id,
        directory_id,
        previous_broker_epoch: report.broker_epoch.and_then(BrokerEpoch::new),
        rack: config.broker_rack.as_deref().map(Arc::from),
        listeners: listeners.iter().map(registered).collect(),
        features: supported_features(),
        unfence_at_once: true,
    };
    let broker = Arc::new(Broker {
        clock,
        node_id,
        listeners,
        image,
        controller,
        replica_manager,
        fetch_sessions: Mutex::new(FetchSessions::new(
            config.max_incremental_fetch_session_cache_slots,
        )),
        producer_ids: ProducerIds::new(node_id),
        metadata_answers: MetadataAnswers::default(),
        config,
    });
    Ok(Opened { broker, quorum, dir, registration })
}

fn open_dir(config: &BrokerConfig, fs: &Arc<dyn Fs>) -> Result<Arc<LogDir>, ServeError> {
    let new = MetaProperties {
        node_id: config.node_id.value(),
        cluster_id: Some(ClusterId::from_uuid(rand::random()).to_string()),
        directory_id: TopicId::from_bytes(rand::random()),
    };
    LogDir::open(Arc::clone(fs), &config.data_dir, &new).map_err(|error| match error {
        OpenDirError::Io { .. } => ServeError::Disk(error.to_string()),
        _ => ServeError::Configuration(error.to_string()),
    })
}

/// Partitions without a metadata log: it was deleted, or the directory copied without it. Going on would begin a new
/// cluster and set every partition aside. A first start that was cut short has no partitions yet.
fn check_metadata_log(fs: &Arc<dyn Fs>, path: &Path) -> Result<(), ServeError> {
    let entries = match fs.read_dir(path) {
        Ok(entries) => entries,
        Err(error) => return Err(ServeError::Disk(format!("{}: {error}", path.display()))),
    };
    if entries.iter().any(|entry| entry.name == METADATA_LOG_DIR) {
        return Ok(());
    }
    match entries.iter().find(|entry| matches!(parse_dir_name(&entry.name), DirName::Partition(_)))
    {
        None => Ok(()),
        Some(partition) => Err(ServeError::Configuration(format!(
            "{} holds partitions ({:?}, …) but no {METADATA_LOG_DIR}, which says what they are: bring it back, or choose an empty directory with --data-dir",
            path.display(),
            partition.name,
        ))),
    }
}

fn open_logs(
    config: &Arc<BrokerConfig>,
    dir: &Arc<LogDir>,
    image: &MetadataImage,
    clock: Clock,
) -> Result<(LogManager, StartReport), ServeError> {
    let layers = ConfigLayers::new(config, image);
    let known = |topic_id: TopicId, partition: i32| {
        let topic = image.topic(topic_id)?;
        topic.partition(partition)?;
        let config = TopicConfig::resolve(&topic.configs, layers);
        Some(KnownPartition {
            topic_partition: TopicPartition::new(Arc::clone(&topic.name), partition),
            config: Arc::new(config.log_config()),
        })
    };
    LogManager::open(
        Arc::clone(dir),
        config.log_manager_config(),
        &known,
        clock.wall(),
        clock.now(),
    )
    .map_err(|error| ServeError::Disk(error.to_string()))
}

/// Says what recovery did, one line a partition that was not as it had been left.
fn tell(report: &StartReport) {
    for recovered in &report.recovered {
        tracing::info!("{recovered}");
    }
    for log in &report.offline {
        tracing::error!(topic_partition = %log.topic_partition, reason = %log.reason, "partition is offline");
    }
    for stray in &report.strays {
        tracing::warn!(directory = %stray, "no topic has this partition: set aside as -stray");
    }
}

fn registered(bound: &BoundListener) -> BrokerListener {
    let told = bound.listener.advertise_here(bound.port);
    BrokerListener {
        name: Arc::from(bound.listener.name.as_str()),
        host: Arc::from(told.host),
        port: told.port,
        protocol: SecurityProtocol::Plaintext,
    }
}
