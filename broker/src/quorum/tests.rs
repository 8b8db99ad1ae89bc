//! The driver with real controllers: on a real directory, and on a disk that fails when told to.

use std::convert::Infallible;
use std::sync::Mutex;
use std::time::Duration;

use replication::controller::{
    ControllerResult, CreateTopics, CreatedTopic, NewTopic, RegisterBroker, supported_features,
};
use replication::metadata::{BrokerListener, SecurityProtocol};
use storage::fs::real::RealFs;
use storage::fs::simulated::{Crash, Fault, Operation, SimulatedFs};

use super::*;
use crate::broker_lifecycle::{BrokerLifecycle, ControlledShutdown, new_incarnation_id};
use crate::config::TableValidator;

const NO_LIMIT: Duration = Duration::from_secs(60);

fn node() -> BrokerId {
    BrokerId::new(1).unwrap()
}

fn config() -> MetadataQuorumConfig {
    MetadataQuorumConfig {
        node_id: node(),
        directory_id: DirectoryId::from_bytes([7; 16]),
        cluster_id: None,
        log_store: LogStoreConfig::default(),
        max_bytes_between_snapshots: 20 * 1024 * 1024,
        controller: ControllerConfig {
            default_partitions: 1,
            default_replication_factor: 1,
            min_insync_replicas: 1,
            unclean_leader_election_enable: false,
            session_timeout: Duration::from_secs(9),
        },
        validator: Arc::new(TableValidator),
    }
}

fn registration(image: &MetadataImage) -> RegisterBroker {
    RegisterBroker {
        cluster_id: image.cluster_id().clone(),
        broker_id: node(),
        incarnation_id: new_incarnation_id(),
        directory_id: DirectoryId::from_bytes([7; 16]),
        previous_broker_epoch: None,
        rack: None,
        listeners: vec![BrokerListener {
            name: "PLAINTEXT".into(),
            host: "127.0.0.1".into(),
            port: 9092,
            protocol: SecurityProtocol::Plaintext,
        }],
        features: supported_features(),
        unfence_at_once: true,
    }
}

/// What a listener was told.
type Heard = Arc<Mutex<Vec<(MetadataImage, MetadataDelta)>>>;

fn listener() -> (Heard, impl MetadataListener + 'static) {
    let heard = Heard::default();
    let told = Arc::clone(&heard);
    let listener = move |image: &MetadataImage, delta: &MetadataDelta| {
        told.lock().unwrap().push((image.clone(), delta.clone()));
    };
    (heard, listener)
}

struct Node {
    controller: ControllerHandle,
    image: Arc<ArcSwap<MetadataImage>>,
    heard: Heard,
    running: RunningQuorum,
    lifecycle: BrokerLifecycle,
}

async fn start(fs: Arc<dyn Fs>, dir: &Path, config: MetadataQuorumConfig) -> Node {
    let open = OpenQuorum::open(fs, dir, config).unwrap();
    let (controller, image) = (open.controller(), open.image());
    let (heard, listener) = listener();
    let running = open.start(listener).unwrap();
    let request = registration(&image.load());
    let lifecycle =
        BrokerLifecycle::start(controller.clone(), Arc::clone(&image), request).await.unwrap();
    Node { controller, image, heard, running, lifecycle }
}

async fn create_topic(
    controller: &ControllerHandle,
    name: &str,
) -> Result<CreatedTopic, SubmitError<String>> {
    let topic = NewTopic {
        name: name.into(),
        partition_count: Some(3),
        replication_factor: None,
        assignments: vec![],
        configs: vec![("retention.ms".into(), Some("1000".into()))],
    };
    let request = CreateTopics { topics: vec![topic], validate_only: false };
    let decide = move |controller: &_, context: &_| {
        replication::controller::Controller::create_topics(controller, context, &request)
            .map_err(|error| error.to_string())
    };
    let mut created = controller.submit(decide).await?;
    created.remove(0).1.map_err(|error| SubmitError::Refused(error.to_string()))
}

#[tokio::test]
async fn what_was_answered_is_there_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let fs: Arc<dyn Fs> = Arc::new(RealFs::new());
    let node = start(Arc::clone(&fs), dir.path(), config()).await;
    let topic = create_topic(&node.controller, "orders").await.unwrap();
    let seen = node.image.load_full();
    assert_eq!(seen.topic_by_name("orders").unwrap().topic_id, topic.topic_id);
    let taken = create_topic(&node.controller, "orders").await.unwrap_err();
    assert!(matches!(taken, SubmitError::Refused(_)), "{taken:?}");
    node.running.stop();
    assert!(matches!(
        create_topic(&node.controller, "late").await,
        Err(SubmitError::Unavailable(ControllerUnavailable::Stopped))
    ));

    let open = OpenQuorum::open(fs, dir.path(), config()).unwrap();
    let found = open.image().load_full();
    assert_eq!(found.topic_by_name("orders"), seen.topic_by_name("orders"));
    assert_eq!(found.broker(node_id_of(&seen)), seen.broker(node_id_of(&seen)));
    assert_eq!(found.cluster_id(), seen.cluster_id());
    // Apart from the position, which the new term's empty entry has moved, they are one.
    assert_eq!(found.to_records(), seen.to_records());
    let (heard, listener) = listener();
    let running = open.start(listener).unwrap();
    let (image, delta) = heard.lock().unwrap()[0].clone();
    assert_eq!(image, *found);
    assert!(delta.topics_created.contains(&topic.topic_id), "the first call has all there is");
    running.stop();
}

fn node_id_of(image: &MetadataImage) -> BrokerId {
    image.brokers().next().unwrap().broker_id
}

#[tokio::test]
async fn the_listener_has_heard_it_before_the_asker_does_and_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let node = start(Arc::new(RealFs::without_sync()), dir.path(), config()).await;
    let askers: Vec<_> = (0..20)
        .map(|number| {
            let (controller, heard) = (node.controller.clone(), Arc::clone(&node.heard));
            tokio::spawn(async move {
                let topic = create_topic(&controller, &format!("topic-{number}")).await.unwrap();
                let heard = heard.lock().unwrap();
                assert!(
                    heard.iter().any(|(_, delta)| delta.topics_created.contains(&topic.topic_id))
                );
            })
        })
        .collect();
    for asker in askers {
        asker.await.unwrap();
    }
    let heard = node.heard.lock().unwrap();
    assert!(heard.is_sorted_by_key(|(image, _)| image.position().index));
    for pair in heard.windows(2) {
        assert_eq!(MetadataDelta::between(&pair[0].0, &pair[1].0), pair[1].1);
    }
    assert_eq!(heard.last().unwrap().0, **node.image.load());
}

#[tokio::test]
async fn a_decision_without_records_answers_too() {
    let dir = tempfile::tempdir().unwrap();
    let node = start(Arc::new(RealFs::without_sync()), dir.path(), config()).await;
    let before = node.image.load().position();
    let decide = |controller: &replication::controller::Controller, _: &_| {
        let response = controller.image().brokers().count();
        Ok::<_, Infallible>(ControllerResult { records: vec![], response })
    };
    assert_eq!(node.controller.submit(decide).await, Ok(1));
    assert_eq!(node.image.load().position(), before, "nothing was written for it");
}

#[tokio::test]
async fn a_broker_registers_in_one_entry_and_leaves_in_another() {
    let dir = tempfile::tempdir().unwrap();
    let fs: Arc<dyn Fs> = Arc::new(RealFs::without_sync());
    let node = start(Arc::clone(&fs), dir.path(), config()).await;
    let image = node.image.load_full();
    let broker = image.broker(self::node()).unwrap();
    assert!(broker.is_active());
    assert_eq!(broker.broker_epoch, node.lifecycle.broker_epoch());
    assert_eq!(image.position().index, 3, "snapshot at 1, the term's entry, the registration");
    create_topic(&node.controller, "orders").await.unwrap();
    assert_eq!(node.lifecycle.controlled_shutdown(NO_LIMIT).await, ControlledShutdown::Done);
    assert!(!node.image.load().is_active(self::node()));
    node.running.stop();

    let again = start(fs, dir.path(), config()).await;
    assert!(again.lifecycle.broker_epoch() > node.lifecycle.broker_epoch());
    let image = again.image.load_full();
    let (_, partition) = image.topic_by_name("orders").unwrap().partitions().next().unwrap();
    assert_eq!(partition.leader, Some(self::node()), "it leads again");
}

#[tokio::test]
async fn a_broker_that_must_prove_itself_is_unfenced_by_its_heartbeat() {
    let dir = tempfile::tempdir().unwrap();
    let open = OpenQuorum::open(Arc::new(RealFs::without_sync()), dir.path(), config()).unwrap();
    let (controller, image) = (open.controller(), open.image());
    let _running = open.start(listener().1).unwrap();
    let request = RegisterBroker { unfence_at_once: false, ..registration(&image.load()) };
    BrokerLifecycle::start(controller, Arc::clone(&image), request).await.unwrap();
    assert!(image.load().is_active(node()));
}

#[tokio::test]
async fn the_log_is_snapshotted_by_bytes_and_goes_on_from_there() {
    let dir = tempfile::tempdir().unwrap();
    let fs: Arc<dyn Fs> = Arc::new(RealFs::without_sync());
    let small = || MetadataQuorumConfig { max_bytes_between_snapshots: 500, ..config() };
    let node = start(Arc::clone(&fs), dir.path(), small()).await;
    for number in 0..30 {
        create_topic(&node.controller, &format!("topic-{number}")).await.unwrap();
    }
    let seen = node.image.load_full();
    node.running.stop();
    let mut names: Vec<_> = std::fs::read_dir(dir.path().join(METADATA_LOG_DIR))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(names.len(), 2, "one snapshot and the segment behind it: {names:?}");
    let open = OpenQuorum::open(fs, dir.path(), small()).unwrap();
    assert_eq!(open.image().load().to_records(), seen.to_records());
}

fn simulated() -> SimulatedFs {
    let fs = SimulatedFs::new();
    fs.create_dir(Path::new("/data")).unwrap();
    fs.sync_everything();
    fs
}

#[tokio::test]
async fn a_failed_fsync_stops_the_quorum_and_answers_nobody_falsely() {
    let fs = simulated();
    let mut node = start(Arc::new(fs.clone()), Path::new("/data"), config()).await;
    fs.inject(Fault {
        operation: Operation::Sync,
        path_contains: ".log".to_owned(),
        skip: 0,
        times: 1,
        error: std::io::ErrorKind::Other,
    });
    assert_eq!(
        create_topic(&node.controller, "orders").await.unwrap_err(),
        SubmitError::Unavailable(ControllerUnavailable::Stopped)
    );
    let failure = node.running.failed().await;
    assert_eq!(failure.exit_code(), 4, "{failure}");
    assert!(node.image.load().topic_by_name("orders").is_none());
}

#[tokio::test]
async fn a_power_cut_takes_nothing_that_was_answered() {
    let dir = Path::new("/data");
    for stop_after in 0..60 {
        let fs = simulated();
        fs.stop_after_changes(stop_after);
        let mut answered = Vec::new();
        if let Ok(open) = OpenQuorum::open(Arc::new(fs.clone()), dir, config()) {
            let (controller, image) = (open.controller(), open.image());
            let _running = open.start(listener().1).unwrap();
            let request = registration(&image.load());
            if BrokerLifecycle::start(controller.clone(), image, request).await.is_ok() {
                for number in 0..10 {
                    let Ok(topic) = create_topic(&controller, &format!("topic-{number}")).await
                    else {
                        break;
                    };
                    answered.push(topic.topic_id);
                }
            }
        }
        fs.crash(Crash::PowerKeepingSome { seed: stop_after });
        let node = start(Arc::new(fs), dir, config()).await;
        let image = node.image.load();
        for topic_id in answered {
            assert!(image.topic(topic_id).is_some(), "stopped after {stop_after} changes");
        }
    }
}

#[test]
fn another_node_s_or_another_cluster_s_directory_is_refused_with_exit_code_3() {
    let fs = simulated();
    let dir = Path::new("/data");
    drop(OpenQuorum::open(Arc::new(fs.clone()), dir, config()).unwrap());
    let other_directory =
        MetadataQuorumConfig { directory_id: DirectoryId::from_bytes([8; 16]), ..config() };
    let other_node = MetadataQuorumConfig { node_id: BrokerId::new(2).unwrap(), ..config() };
    let other_cluster = MetadataQuorumConfig { cluster_id: ClusterId::new("another"), ..config() };
    for config in [other_directory, other_node, other_cluster] {
        let failure = OpenQuorum::open(Arc::new(fs.clone()), dir, config).unwrap_err();
        assert_eq!(failure.exit_code(), 3, "{failure}");
    }
}

#[test]
fn the_operator_s_cluster_id_is_taken_and_kept() {
    let fs = simulated();
    let mine = || MetadataQuorumConfig { cluster_id: ClusterId::new("mine"), ..config() };
    let open = OpenQuorum::open(Arc::new(fs.clone()), Path::new("/data"), mine()).unwrap();
    assert_eq!(open.image().load().cluster_id().as_str(), "mine");
    let open = OpenQuorum::open(Arc::new(fs.clone()), Path::new("/data"), config()).unwrap();
    assert_eq!(open.image().load().cluster_id().as_str(), "mine");
}

#[test]
fn a_full_disk_at_the_first_start_leaves_a_directory_that_starts_later() {
    for skip in 0..3 {
        let fs = simulated();
        fs.inject(Fault {
            operation: Operation::Write,
            path_contains: String::new(),
            skip,
            times: 1,
            error: std::io::ErrorKind::StorageFull,
        });
        let failure = OpenQuorum::open(Arc::new(fs.clone()), Path::new("/data"), config());
        assert_eq!(failure.unwrap_err().exit_code(), 4);
        OpenQuorum::open(Arc::new(fs), Path::new("/data"), config()).unwrap();
    }
}
