//! For the tests of this module: a replica manager on a simulated disk that leads one partition, and a record for it.

use super::append::{AppendRequest, Appends};
use super::partition::Partition;
use super::{PartitionKey, ReplicaManager};
use crate::clock::Clock;
use crate::config::{ConfigLayers, TopicConfig};
use bytes::Bytes;
use replication::identity::{BrokerId, PartitionEpoch};
use replication::metadata::LeaderRecoveryState;
use replication::partition::acks::RequiredAcks;
use replication::partition::leader::{LeaderMetadata, ReplicaMetadata};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use storage::fs::Fs;
use storage::leader_epoch::LeaderEpoch;
use storage::log_dir::{LogDir, MetaProperties};
use storage::log_manager::{KnownPartition, LogManager, LogManagerConfig};
use storage::record_batch::RecordBatchBuilder;
use storage::timestamp::Timestamp;
use storage::topic_partition::{TopicId, TopicPartition};

/// Starts on what `fs` holds and leads partition 0 of topic `t` with these replicas, of which only the first, ourselves, is
/// there. The topic's own `settings` are by Kafka's names.
pub(super) fn led(
    fs: impl Fs + 'static,
    clock: Clock,
    replicas: &[i32],
    settings: &[(&str, &str)],
) -> (Arc<ReplicaManager>, Arc<Partition>) {
    let directory_id = TopicId::from_bytes([7; 16]);
    let meta = MetaProperties { node_id: 1, cluster_id: None, directory_id };
    let dir = LogDir::open(Arc::new(fs), Path::new("/data"), &meta).unwrap();
    let own = settings.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect();
    let (cluster, statics) = Default::default();
    let layers = ConfigLayers { broker: None, cluster: &cluster, statics: &statics };
    let config = TopicConfig::resolve(&own, layers);
    let known = |_, partition| {
        let topic_partition = TopicPartition::new("t", partition);
        Some(KnownPartition { topic_partition, config: Arc::new(config.log_config()) })
    };
    let now = clock.now();
    let (logs, _) =
        LogManager::open(dir, LogManagerConfig::default(), &known, clock.wall(), now).unwrap();
    let manager = Arc::new(ReplicaManager::new(clock, logs));
    let key = PartitionKey { topic_id: TopicId::from_bytes([1; 16]), partition: 0 };
    let partition = manager.host(key, &Arc::from("t"), &config).unwrap();
    let ids: Vec<_> = replicas.iter().map(|id| BrokerId::new(*id).unwrap()).collect();
    let replica = |broker_id| ReplicaMetadata { broker_id, broker_epoch: None, is_eligible: true };
    let metadata = LeaderMetadata {
        broker_id: ids[0],
        leader_epoch: LeaderEpoch::ZERO,
        partition_epoch: PartitionEpoch::ZERO,
        isr: ids.clone(),
        effective_min_isr: 1,
        recovery_state: LeaderRecoveryState::Recovered,
        replicas: ids.into_iter().map(replica).collect(),
    };
    partition.lead(metadata, now);
    (manager, partition)
}

/// A batch of one record.
pub(super) fn one_record() -> Bytes {
    let builder = RecordBatchBuilder::new().record(Timestamp::new(1), None, Some(b"value"), &[]);
    builder.build().unwrap().into()
}

/// Appends it with acks=all.
pub(super) fn append_one_record(manager: &Arc<ReplicaManager>, partition: &Partition) -> Appends {
    let (place, key, records) = ((0, 0), partition.key(), one_record());
    let request = AppendRequest { place, key, current_leader: None, records };
    manager.append(vec![request], Some(RequiredAcks::All), Duration::from_secs(30))
}
