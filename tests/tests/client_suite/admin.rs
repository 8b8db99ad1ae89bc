//! Topics, configs, offsets, the cluster.

use client::ResponseError;
use client::admin::{
    ConfigOperation, ConfigResource, ConfigSource, IsolationLevel, NewTopic, OffsetSpec,
};
use client::producer::{ProducerConfig, ProducerRecord};

use crate::{Fixture, eventually};

#[tokio::test]
#[ignore = "needs a broker"]
async fn the_cluster_names_its_brokers_and_its_controller() {
    let fixture = Fixture::without_topic("cluster").await;
    let described = fixture.admin.describe_cluster().await.expect("described");
    assert_eq!(described.cluster_id.map(|id| id.len()), Some(22));
    let controller = described.controller.expect("a controller");
    assert!(
        described.brokers.iter().any(|broker| broker.address.id == controller && !broker.is_fenced)
    );
    let metadata = fixture.cluster.metadata(Some(&[])).await.expect("metadata");
    assert!(metadata.topics.is_empty(), "an empty list asks for no topics");
    assert!(metadata.brokers.iter().any(|broker| broker.id == controller));
}

#[tokio::test]
#[ignore = "needs a broker"]
async fn a_topic_is_created_once_listed_and_deleted() {
    let fixture = Fixture::new("topic", 3, &[]).await;
    let name = fixture.topic.as_str();
    let topic = fixture.cluster.topic(name).await.expect("there");
    assert_eq!(topic.partitions.len(), 3);
    assert!(topic.topic_id.is_some());
    let all = fixture.cluster.metadata(None).await.expect("metadata");
    assert!(all.topics.iter().any(|topic| topic.name == name));

    let again = NewTopic { name: name.to_owned(), partitions: Some(1), ..NewTopic::default() };
    let error = fixture.admin.create_topic(&again, false).await.expect_err("it exists");
    assert_eq!(error.kafka_error(), Some(ResponseError::TopicAlreadyExists));

    fixture.admin.delete_topic(name).await.expect("deleted");
    let error = fixture.admin.delete_topic(name).await.expect_err("it is gone");
    assert_eq!(error.kafka_error(), Some(ResponseError::UnknownTopicOrPartition));
    eventually("the topic is gone from Metadata", async || {
        fixture.cluster.forget_topic(name);
        match fixture.cluster.topic(name).await {
            Err(error) if error.kafka_error() == Some(ResponseError::UnknownTopicOrPartition) => {
                Ok(())
            }
            other => Err(format!("{other:?}")),
        }
    })
    .await;

    // Another topic of that name has another id.
    let created = fixture.admin.create_topic(&again, false).await.expect("created anew");
    assert_ne!(created.topic_id, topic.topic_id);
    assert_eq!(created.partitions, Some(1));
}

#[tokio::test]
#[ignore = "needs a broker"]
async fn bad_topics_are_refused_by_name() {
    let fixture = Fixture::without_topic("bad").await;
    let refused = async |topic: NewTopic| {
        fixture
            .admin
            .create_topic(&topic, true)
            .await
            .expect_err("refused")
            .kafka_error()
            .expect("by the broker")
    };
    let named =
        |name: &str| NewTopic { name: name.to_owned(), partitions: Some(1), ..NewTopic::default() };
    assert_eq!(refused(named("a/b")).await, ResponseError::InvalidTopicException);
    let factor = NewTopic { replication_factor: Some(99), ..named(&fixture.topic) };
    assert_eq!(refused(factor).await, ResponseError::InvalidReplicationFactor);
    let config = [("retention.ms".to_owned(), "soon".to_owned())];
    let config = NewTopic { configs: config.into(), ..named(&fixture.topic) };
    assert_eq!(refused(config).await, ResponseError::InvalidConfig);
    // Checked only: a good one is not made either.
    fixture.admin.create_topic(&named(&fixture.topic), true).await.expect("it would work");
    assert!(fixture.cluster.topic(&fixture.topic).await.is_err());
}

#[tokio::test]
#[ignore = "needs a broker"]
async fn partitions_can_be_added_and_not_taken_away() {
    let fixture = Fixture::new("partitions", 1, &[]).await;
    fixture.admin.create_partitions(&fixture.topic, 3, false).await.expect("added");
    fixture.cluster.await_leader(&fixture.topic, 2).await.expect("a leader");
    let error = fixture.admin.create_partitions(&fixture.topic, 2, false).await.expect_err("fewer");
    assert_eq!(error.kafka_error(), Some(ResponseError::InvalidPartitions));
}

#[tokio::test]
#[ignore = "needs a broker"]
async fn configs_are_set_and_go_back_to_their_defaults() {
    let fixture = Fixture::new("configs", 1, &[("retention.ms", "12345")]).await;
    let resource = ConfigResource::Topic(fixture.topic.clone());
    let value = async |name: &str| {
        let configs = fixture.admin.describe_configs(&resource).await.expect("described");
        let config =
            configs.into_iter().find(|config| config.name == name).expect("a known config");
        (config.value.expect("not a secret"), config.source)
    };
    assert_eq!(value("retention.ms").await, ("12345".to_owned(), ConfigSource::Topic));
    let (default, source) = value("max.message.bytes").await;
    assert_ne!(source, ConfigSource::Topic);

    let set = |name: &str, value: &str| (name.to_owned(), ConfigOperation::Set(value.to_owned()));
    let changes =
        [set("max.message.bytes", "5000"), ("retention.ms".to_owned(), ConfigOperation::Delete)];
    fixture.admin.alter_configs(&resource, &changes, false).await.expect("altered");
    // Kafka answers before every broker, itself included, has applied it.
    eventually("the new value", async || {
        let found = (value("max.message.bytes").await, value("retention.ms").await.1);
        let expected = ("5000".to_owned(), ConfigSource::Topic);
        if found.0 == expected && found.1 != ConfigSource::Topic {
            Ok(())
        } else {
            Err(format!("{found:?}"))
        }
    })
    .await;

    let back = [("max.message.bytes".to_owned(), ConfigOperation::Delete)];
    fixture.admin.alter_configs(&resource, &back, false).await.expect("altered");
    eventually("the default", async || {
        let found = value("max.message.bytes").await;
        if found == (default.clone(), source) { Ok(()) } else { Err(format!("{found:?}")) }
    })
    .await;

    let bad = [set("retention.ms", "soon")];
    let error = fixture.admin.alter_configs(&resource, &bad, false).await.expect_err("no number");
    assert_eq!(error.kafka_error(), Some(ResponseError::InvalidConfig));
}

#[tokio::test]
#[ignore = "needs a broker"]
async fn offsets_are_found_by_time() {
    let fixture = Fixture::new("offsets", 1, &[]).await;
    let record = |timestamp: i64| ProducerRecord {
        timestamp: Some(timestamp),
        ..fixture.record(&timestamp.to_string())
    };
    let base = 1_700_000_000_000;
    let records = [base, base + 100, base + 50, base + 200].map(record);
    // A batch each, so that the time index has something to find.
    for record in records {
        fixture.produce(ProducerConfig::default(), [record]).await.expect("stored");
    }
    let find = async |spec| {
        let listed = fixture
            .admin
            .list_offset(&fixture.topic, 0, spec, IsolationLevel::ReadUncommitted)
            .await;
        listed.expect("an answer").map(|listed| (listed.offset, listed.timestamp))
    };
    assert_eq!(find(OffsetSpec::Earliest).await, Some((0, None)));
    assert_eq!(find(OffsetSpec::Latest).await, Some((4, None)));
    assert_eq!(find(OffsetSpec::MaxTimestamp).await, Some((3, Some(base + 200))));
    assert_eq!(find(OffsetSpec::Timestamp(0)).await, Some((0, Some(base))));
    assert_eq!(find(OffsetSpec::Timestamp(base + 60)).await, Some((1, Some(base + 100))));
    assert_eq!(find(OffsetSpec::Timestamp(base + 101)).await, Some((3, Some(base + 200))));
    assert_eq!(find(OffsetSpec::Timestamp(base + 201)).await, None);
}
