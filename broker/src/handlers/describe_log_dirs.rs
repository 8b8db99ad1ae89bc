//! DescribeLogDirs, v1–v4 (KIP-113). v3 top-level error · v4 total and usable bytes (KIP-827).
//! Topics null asks for all. Sizes are of what is on disk; the lag is log end minus high watermark, never negative.

use crate::api::dispatch::{Refused, Reply, Request};
use crate::broker::Broker;
use kafka_protocol::messages::describe_log_dirs_response::{
    DescribeLogDirsPartition, DescribeLogDirsResult, DescribeLogDirsTopic,
};
use kafka_protocol::messages::{DescribeLogDirsRequest, DescribeLogDirsResponse, TopicName};
use kafka_protocol::protocol::StrBytes;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

const FIRST_WITH_SPACE: i16 = 4;

pub(crate) fn handle(broker: &Arc<Broker>, mut request: Request) -> Result<Reply, Refused> {
    let asked: DescribeLogDirsRequest = request.decode()?;
    // By topic first: a name is compared once, however many partitions are named with it.
    let wanted = asked.topics.map(|topics| {
        let mut wanted: BTreeMap<TopicName, BTreeSet<i32>> = BTreeMap::new();
        for topic in topics {
            wanted.entry(topic.topic).or_default().extend(topic.partitions);
        }
        wanted
    });
    let is_wanted = |name: &TopicName, index: i32| match &wanted {
        Some(wanted) => wanted.get(name).is_some_and(|partitions| partitions.contains(&index)),
        None => true,
    };
    let mut topics: BTreeMap<TopicName, Vec<DescribeLogDirsPartition>> = BTreeMap::new();
    for partition in broker.replica_manager().partitions() {
        let name = TopicName(StrBytes::from_string(partition.topic().to_string()));
        let index = partition.index();
        if !is_wanted(&name, index) {
            continue;
        }
        let (size_bytes, lag) = partition.size_and_lag();
        topics.entry(name).or_default().push(
            DescribeLogDirsPartition::default()
                .with_partition_index(index)
                .with_partition_size(size_bytes as i64)
                .with_offset_lag(lag as i64),
        );
    }
    let mut result = DescribeLogDirsResult::default()
        .with_log_dir(StrBytes::from_string(broker.data_dir().display().to_string()))
        .with_topics(
            topics
                .into_iter()
                .map(|(name, partitions)| {
                    DescribeLogDirsTopic::default().with_name(name).with_partitions(partitions)
                })
                .collect(),
        );
    if request.api_version >= FIRST_WITH_SPACE {
        let (total, usable) = broker.disk_space_bytes();
        result = result.with_total_bytes(total).with_usable_bytes(usable);
    }
    request.reply(&DescribeLogDirsResponse::default().with_results(vec![result]))
}
