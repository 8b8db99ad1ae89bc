//! Every version that both sides speak, one by one, not only the highest.

use client::Connection;
use client::record::{BatchBuilder, BatchReader, Compression};
use client::versions::client_versions;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::{
    ApiKey, ApiVersionsRequest, BrokerId, DescribeClusterRequest, FetchRequest,
    InitProducerIdRequest, ListOffsetsRequest, MetadataRequest, ProduceRequest, TopicName,
};
use kafka_protocol::protocol::StrBytes;

use crate::Fixture;

/// What both sides speak, lowest first; never nothing.
fn common(connection: &Connection, api: ApiKey) -> Vec<i16> {
    let ours = client_versions(api).expect("we speak it");
    let theirs =
        connection.versions().range(api).unwrap_or_else(|| panic!("the broker lacks {api:?}"));
    let both = theirs.intersect(&ours);
    assert!(!both.is_empty(), "{api:?}: {ours} and {theirs}");
    (both.min..=both.max).collect()
}

fn name(topic: &str) -> TopicName {
    TopicName(StrBytes::from_string(topic.to_owned()))
}

#[tokio::test]
#[ignore = "needs a broker"]
async fn records_go_in_and_out_in_every_version() {
    let fixture = Fixture::new("versions", 1, &[]).await;
    let leader = fixture.cluster.await_leader(&fixture.topic, 0).await.expect("a leader");
    let connection = fixture.cluster.broker(leader.broker_id).await.expect("it answers");
    let topic_id = leader.topic_id.expect("brokers of today have ids").to_wire();

    let mut stored = 0;
    for version in common(&connection, ApiKey::Produce) {
        let mut builder = BatchBuilder::new();
        builder.push(1_700_000_000_000, None, Some(b"value"), &[]).expect("small");
        let batch = builder.build(Compression::None, None).expect("small");
        let data = PartitionProduceData::default().with_index(0).with_records(Some(batch));
        let topic = TopicProduceData::default()
            .with_name(name(&fixture.topic))
            .with_partition_data(vec![data]);
        let request = ProduceRequest::default()
            .with_transactional_id(None)
            .with_acks(-1)
            .with_timeout_ms(10_000)
            .with_topic_data(vec![topic]);
        let response = connection.call_version(version, &request).await.expect("an answer");
        let partition = &response.responses[0].partition_responses[0];
        assert_eq!(
            (partition.error_code, partition.base_offset),
            (0, stored),
            "Produce v{version}"
        );
        stored += 1;
    }

    for version in common(&connection, ApiKey::Fetch) {
        let asked = FetchPartition::default()
            .with_partition(0)
            .with_current_leader_epoch(-1)
            .with_fetch_offset(1)
            .with_partition_max_bytes(1 << 20);
        let topic = FetchTopic::default().with_partitions(vec![asked]);
        let topic = match version {
            ..13 => topic.with_topic(name(&fixture.topic)),
            13.. => topic.with_topic_id(topic_id),
        };
        let mut request = FetchRequest::default()
            .with_max_wait_ms(100)
            .with_min_bytes(1)
            .with_topics(vec![topic]);
        if version <= 14 {
            request = request.with_replica_id(BrokerId(-1));
        }
        let mut response = connection.call_version(version, &request).await.expect("an answer");
        let partition = response.responses.remove(0).partitions.remove(0);
        assert_eq!(
            (partition.error_code, partition.high_watermark),
            (0, stored),
            "Fetch v{version}"
        );
        let batches: Vec<_> = BatchReader::new(partition.records.expect("never null"))
            .map(|batch| batch.expect("whole").base_offset)
            .collect();
        assert_eq!(batches, (1..stored).collect::<Vec<_>>(), "Fetch v{version}");
    }

    for version in common(&connection, ApiKey::ListOffsets) {
        let asked = ListOffsetsPartition::default()
            .with_partition_index(0)
            .with_current_leader_epoch(-1)
            .with_timestamp(-1);
        let topic = ListOffsetsTopic::default()
            .with_name(name(&fixture.topic))
            .with_partitions(vec![asked]);
        let request =
            ListOffsetsRequest::default().with_replica_id(BrokerId(-1)).with_topics(vec![topic]);
        let response = connection.call_version(version, &request).await.expect("an answer");
        let partition = &response.topics[0].partitions[0];
        assert_eq!((partition.error_code, partition.offset), (0, stored), "ListOffsets v{version}");
    }
}

#[tokio::test]
#[ignore = "needs a broker"]
async fn the_cluster_is_described_in_every_version() {
    let fixture = Fixture::new("described", 2, &[]).await;
    let connection = fixture.cluster.any_broker().await.expect("it answers");
    for version in common(&connection, ApiKey::Metadata) {
        let topic = MetadataRequestTopic::default().with_name(Some(name(&fixture.topic)));
        let request = MetadataRequest::default().with_topics(Some(vec![topic]));
        let response = connection.call_version(version, &request).await.expect("an answer");
        let topic = &response.topics[0];
        assert_eq!((topic.error_code, topic.partitions.len()), (0, 2), "Metadata v{version}");
        assert!(response.controller_id.0 >= 0, "Metadata v{version}");
        assert_eq!(topic.topic_id.is_nil(), version < 10, "Metadata v{version}");
    }
    for version in common(&connection, ApiKey::ApiVersions) {
        let request = ApiVersionsRequest::default()
            .with_client_software_name(StrBytes::from_static_str("test"))
            .with_client_software_version(StrBytes::from_static_str("1"));
        let response = connection.call_version(version, &request).await.expect("an answer");
        assert_eq!(response.error_code, 0, "ApiVersions v{version}");
        assert!(response.api_keys.len() > 5, "ApiVersions v{version}");
    }
    for version in common(&connection, ApiKey::DescribeCluster) {
        let response = connection
            .call_version(version, &DescribeClusterRequest::default())
            .await
            .expect("an answer");
        assert_eq!(response.error_code, 0, "DescribeCluster v{version}");
        assert!(!response.brokers.is_empty(), "DescribeCluster v{version}");
    }
    let mut ids = Vec::new();
    for version in common(&connection, ApiKey::InitProducerId) {
        let mut request = InitProducerIdRequest::default()
            .with_transactional_id(None)
            .with_transaction_timeout_ms(1);
        if version >= 3 {
            request = request.with_producer_id((-1).into()).with_producer_epoch(-1);
        }
        let response = connection.call_version(version, &request).await.expect("an answer");
        assert_eq!(
            (response.error_code, response.producer_epoch),
            (0, 0),
            "InitProducerId v{version}"
        );
        ids.push(response.producer_id.0);
    }
    ids.sort_unstable();
    assert!(ids.is_sorted_by(|a, b| a < b), "an id was given twice: {ids:?}");
}
