//! The node: everything a broker stands on but sockets and threads, in the order in which the server opens it.

use std::path::Path;
use std::sync::Arc;

use broker::clock::{Clock, SimulatedTime};
use broker::config::{BrokerConfig, ConfigLayers, TopicConfig};
use broker::quorum::MetadataListener;
use broker::replica_manager::ReplicaManager;
use broker::replica_manager::apply_delta::RoleApplier;
use replication::controller::{DecisionContext, RegisterBroker, supported_features};
use replication::identity::{BrokerEpoch, BrokerId, ClusterId, DirectoryId, IncarnationId};
use replication::metadata::{BrokerListener, MetadataDelta, MetadataImage, SecurityProtocol};
use storage::fs::Fs;
use storage::fs::simulated::SimulatedFs;
use storage::log_dir::{LogDir, MetaProperties};
use storage::log_manager::{KnownPartition, LogManager, StartReport};
use storage::topic_partition::{TopicId, TopicPartition};

use super::metadata::{Committed, Metadata, Opening, SubmitError};
use super::random::Random;

/// Who this node said it is: decided once.
#[derive(Debug, Default)]
pub(super) struct Identity {
    known: Option<(TopicId, String)>,
}

impl Identity {
    fn check(&mut self, meta: &MetaProperties) -> Result<(), String> {
        let told = (meta.directory_id, meta.cluster_id.clone().unwrap_or_default());
        match &self.known {
            Some(known) if *known != told => {
                Err(format!("the node was {known:?} and is {told:?} now"))
            }
            _ => {
                self.known = Some(told);
                Ok(())
            }
        }
    }
}

/// Why a node does not run.
#[derive(Debug)]
pub(super) enum StartError {
    /// The disk failed, which is right only when it was told to.
    Failed(String),
    /// It must not have come to this.
    Violation(String),
}

pub(super) struct Node {
    pub(super) dir: Arc<LogDir>,
    pub(super) metadata: Metadata,
    pub(super) replicas: Arc<ReplicaManager>,
    pub(super) report: StartReport,
    pub(super) broker_epoch: BrokerEpoch,
    applier: RoleApplier,
    clock: Clock,
}

/// What a node starts with.
pub(super) struct Start<'a> {
    pub(super) fs: &'a SimulatedFs,
    pub(super) time: &'static SimulatedTime,
    pub(super) config: &'a Arc<BrokerConfig>,
    pub(super) random: &'a mut Random,
    pub(super) identity: &'a mut Identity,
    /// What the image may be before this process changes it; anything where nothing was committed.
    pub(super) check_image: &'a dyn Fn(&MetadataImage) -> Result<(), String>,
}

impl Node {
    pub(super) fn start(start: Start<'_>) -> Result<Node, StartError> {
        let Start { fs, time, config, random, identity, check_image } = start;
        let failed = |error: &dyn std::fmt::Display| StartError::Failed(error.to_string());
        let clock = Clock::simulated(time);
        let node_id = config.node_id;
        let fs: Arc<dyn Fs> = Arc::new(fs.clone());
        let new = MetaProperties {
            node_id: node_id.value(),
            cluster_id: Some(ClusterId::from_uuid(random.id()).to_string()),
            directory_id: TopicId::from_bytes(random.id()),
        };
        let dir = LogDir::open(Arc::clone(&fs), Path::new(super::DATA_DIR), &new)
            .map_err(|error| failed(&error))?;
        let meta = dir.meta_properties().clone();
        let directory_id = DirectoryId::from_bytes(*meta.directory_id.as_bytes());
        let metadata = Metadata::open(Opening {
            fs,
            node_id,
            directory_id,
            cluster_id: meta.cluster_id.as_deref().and_then(ClusterId::new),
            config,
            first_round: random.next(),
            now: clock.now(),
        })
        .map_err(|error| failed(&error))?;
        // Decided from here on: the metadata log is synced, and with its name that of `meta.properties`. A start that is
        // cut before has told nobody who it is.
        identity.check(&meta).map_err(StartError::Violation)?;
        let cluster_id = metadata.image().cluster_id().clone();
        if Some(cluster_id.as_str()) != meta.cluster_id.as_deref() {
            let text = format!("the metadata is of {cluster_id}, the directory of {meta:?}");
            return Err(StartError::Violation(text));
        }
        check_image(metadata.image()).map_err(StartError::Violation)?;

        let layers = ConfigLayers::new(config, metadata.image());
        let known = |topic_id: TopicId, partition: i32| {
            let topic = metadata.image().topic(topic_id)?;
            topic.partition(partition)?;
            Some(KnownPartition {
                topic_partition: TopicPartition::new(Arc::clone(&topic.name), partition),
                config: Arc::new(TopicConfig::resolve(&topic.configs, layers).log_config()),
            })
        };
        let settings = config.log_manager_config();
        let (logs, report) =
            LogManager::open(Arc::clone(&dir), settings, &known, clock.wall(), clock.now())
                .map_err(|error| failed(&error))?;
        let replicas = Arc::new(ReplicaManager::new(clock, logs));
        let incarnation_id = IncarnationId::from_bytes(random.id());
        let mut applier =
            RoleApplier::new(Arc::clone(config), node_id, incarnation_id, Arc::clone(&replicas));
        let empty = MetadataImage::empty(cluster_id.clone());
        applier.apply(metadata.image(), &MetadataDelta::between(&empty, metadata.image()));
        if let Some(partition) = replicas.partitions().first() {
            let text = format!("{partition} has a role before this process has registered");
            return Err(StartError::Violation(text));
        }

        let request = RegisterBroker {
            cluster_id,
            broker_id: node_id,
            incarnation_id,
            directory_id,
            previous_broker_epoch: report.broker_epoch.and_then(BrokerEpoch::new),
            rack: None,
            listeners: vec![BrokerListener {
                name: "PLAINTEXT".into(),
                host: "127.0.0.1".into(),
                port: 9092,
                protocol: SecurityProtocol::Plaintext,
            }],
            features: supported_features(),
            unfence_at_once: true,
        };
        let broker_epoch = BrokerEpoch::from_index(0);
        let mut node = Node { dir, metadata, replicas, report, broker_epoch, applier, clock };
        let seed = random.seed();
        let registered = node.submit(seed, move |controller, context| {
            controller.note_contact(request.broker_id, 0, context.now);
            controller.register_broker(context, &request).map_err(|error| error.to_string())
        });
        match registered {
            Ok(Committed { response, index, .. }) => {
                node.broker_epoch = response.broker_epoch_at(index);
                if response.is_fenced {
                    return Err(StartError::Violation("registered, and fenced".to_owned()));
                }
                Ok(node)
            }
            Err(SubmitError::Refused(error)) => {
                Err(StartError::Violation(format!("the registration is refused: {error}")))
            }
            Err(SubmitError::Failed(error)) => Err(StartError::Failed(error)),
        }
    }

    /// A change of the metadata, and what it makes of this broker's partitions.
    pub(super) fn submit<T>(
        &mut self,
        seed: [u64; 4],
        decide: impl FnOnce(
            &mut replication::controller::Controller,
            &DecisionContext,
        ) -> Result<replication::controller::ControllerResult<T>, String>,
    ) -> Result<Committed<T>, SubmitError> {
        let context = DecisionContext { now: self.clock.now(), seed };
        let committed = self.metadata.submit(&context, decide)?;
        self.applier.apply(self.metadata.image(), &committed.delta);
        Ok(committed)
    }

    pub(super) fn clock(&self) -> Clock {
        self.clock
    }

    /// Whether the process ends by itself now: its disk has failed.
    pub(super) fn is_failed(&self) -> bool {
        self.dir.offline_error().is_some() || self.metadata.is_failed()
    }

    pub(super) fn node_id(&self) -> BrokerId {
        BrokerId::new(1).expect("a node id")
    }
}
