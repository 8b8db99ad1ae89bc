//! Every error row of CreateTopics, CreatePartitions and DeleteTopics.

use std::sync::Arc;

use storage::topic_partition::TopicId;

use super::*;
use crate::controller::testing::{TestCluster, broker, brokers};
use crate::controller::{ConfigRejection, InvalidTopicName, PlacementError};

fn topic(name: &str) -> NewTopic {
    NewTopic {
        name: name.into(),
        partition_count: None,
        replication_factor: None,
        assignments: Vec::new(),
        configs: Vec::new(),
    }
}

fn assigned(name: &str, assignments: &[(i32, &[i32])]) -> NewTopic {
    let assignments = assignments
        .iter()
        .map(|&(partition, ids)| ManualAssignment { partition, brokers: ids.to_vec() })
        .collect();
    NewTopic { assignments, ..topic(name) }
}

/// Brokers 1 and 2 active, 3 fenced.
fn cluster() -> TestCluster {
    let mut cluster = TestCluster::new();
    cluster.start(1, false);
    cluster.start(2, false);
    cluster.register(3, false);
    cluster
}

fn create_error(cluster: &mut TestCluster, topic: NewTopic) -> CreateTopicError {
    let before = cluster.image().clone();
    let error = cluster.create_with(vec![topic]).remove(0).unwrap_err();
    assert_eq!(cluster.image(), &before, "a refused topic leaves no trace");
    error
}

#[test]
fn what_is_left_out_comes_from_the_defaults() {
    let mut cluster = cluster();
    let created = cluster.create_with(vec![topic("t")]).remove(0).unwrap();
    assert_eq!((created.partition_count, created.replication_factor), (2, 1));
    let image = cluster.image().topic_by_name("t").unwrap();
    assert_eq!(image.topic_id, created.topic_id);
    assert_eq!(image.partition_count(), 2);
    let leaders: Vec<_> = image.partitions().map(|(_, p)| p.leader.unwrap()).collect();
    assert_ne!(leaders[0], leaders[1], "leaders take turns");
}

#[test]
fn ids_are_fresh_version_4_uuids_that_no_command_line_takes_for_an_option() {
    let mut cluster = cluster();
    let names: Vec<NewTopic> = (0..300).map(|n| topic(&n.to_string())).collect();
    let created = cluster.create_with(names);
    let ids: std::collections::BTreeSet<TopicId> =
        created.iter().map(|topic| topic.as_ref().unwrap().topic_id).collect();
    assert_eq!(ids.len(), 300);
    for id in ids {
        assert_eq!(id.as_bytes()[6] >> 4, 4);
        assert!(!id.to_string().starts_with('-'));
    }
}

#[test]
fn a_recreated_topic_has_another_id() {
    let mut cluster = cluster();
    let first = cluster.create("t", &[1], &[]);
    let decided = cluster.controller.delete_topics(&[TopicRef::Name("t".into())]);
    cluster.commit(decided);
    assert_ne!(cluster.create("t", &[1], &[]), first);
}

#[test]
fn validate_only_answers_and_writes_nothing() {
    let mut cluster = cluster();
    let context = cluster.context();
    let request = CreateTopics { topics: vec![topic("t"), topic("")], validate_only: true };
    let decided = cluster.controller.create_topics(&context, &request).unwrap();
    assert_eq!(decided.records, []);
    assert!(decided.response[0].1.is_ok() && decided.response[1].1.is_err());
}

#[test]
fn bad_names_are_refused() {
    let mut cluster = cluster();
    let empty = create_error(&mut cluster, topic(""));
    assert_eq!(empty, InvalidTopicName::Empty.into());
    let own = create_error(&mut cluster, topic("__cluster_metadata"));
    assert_eq!(own, CreateTopicError::ClusterMetadata);
    let topic_id = cluster.create("a.b", &[1], &[]);
    let taken = create_error(&mut cluster, topic("a.b"));
    assert_eq!(taken, CreateTopicError::AlreadyExists { topic_id });
    let collides = create_error(&mut cluster, topic("a_b"));
    assert_eq!(collides, InvalidTopicName::Collision { existing: "a.b".to_owned() }.into());
}

/// As in Kafka, which looks at existing topics only.
#[test]
fn topics_of_one_request_do_not_collide_with_each_other() {
    let mut cluster = cluster();
    let results = cluster.create_with(vec![topic("x_y"), topic("x.y")]);
    assert!(results.iter().all(Result::is_ok), "{results:?}");
}

#[test]
fn a_name_twice_in_a_request_is_answered_once_and_not_created() {
    let mut cluster = cluster();
    let results = cluster.create_with(vec![topic("t"), topic("u"), topic("t")]);
    assert_eq!(results.len(), 2);
    assert_eq!(results[0], Err(CreateTopicError::DuplicateInRequest));
    assert!(results[1].is_ok());
    assert!(cluster.image().topic_by_name("t").is_none());
}

#[test]
fn counts_that_make_no_sense_are_refused() {
    let mut cluster = cluster();
    for count in [0, -2, i32::MIN] {
        let new = NewTopic { partition_count: Some(count), ..topic("t") };
        let error = create_error(&mut cluster, new);
        assert_eq!(error, CreateTopicError::InvalidPartitionCount(count));
    }
    for factor in [0, -2] {
        let new = NewTopic { replication_factor: Some(factor), ..topic("t") };
        let error = create_error(&mut cluster, new);
        assert_eq!(error, CreateTopicError::InvalidReplicationFactor(factor));
    }
    let new = NewTopic { replication_factor: Some(4), ..topic("t") };
    let error = PlacementError::TooFewBrokers { wanted: 4, registered: 3 };
    assert_eq!(create_error(&mut cluster, new), error.into());
}

#[test]
fn a_fenced_broker_holds_a_replica_only_if_it_must_and_never_leads() {
    let mut cluster = cluster();
    let new = NewTopic { replication_factor: Some(3), partition_count: Some(6), ..topic("t") };
    cluster.create_with(vec![new]).remove(0).unwrap();
    for (_, partition) in cluster.image().topic_by_name("t").unwrap().partitions() {
        assert_eq!(partition.replicas.len(), 3);
        assert_ne!(partition.leader, Some(broker(3)));
        assert_eq!(partition.isr.len(), 2);
    }
}

#[test]
fn chosen_replicas_are_taken_as_they_are() {
    let mut cluster = cluster();
    let new = assigned("t", &[(1, &[2, 3]), (0, &[3, 1])]);
    let created = cluster.create_with(vec![new]).remove(0).unwrap();
    assert_eq!((created.partition_count, created.replication_factor), (2, 2));
    let partition = cluster.partition(created.topic_id);
    assert_eq!(partition.replica_ids().collect::<Vec<_>>(), brokers(&[3, 1]));
    assert_eq!((partition.leader, partition.isr), (Some(broker(1)), brokers(&[1])));
}

#[test]
fn chosen_replicas_that_make_no_sense_are_refused() {
    let mut cluster = cluster();
    type Row = (&'static [(i32, &'static [i32])], AssignmentError);
    let rows: [Row; 8] = [
        (&[(0, &[])], AssignmentError::Empty { partition: 0 }),
        (&[(0, &[1, 1])], AssignmentError::DuplicateBroker { partition: 0, broker: 1 }),
        (&[(0, &[9])], AssignmentError::UnknownBroker { partition: 0, broker: 9 }),
        (&[(0, &[-1])], AssignmentError::UnknownBroker { partition: 0, broker: -1 }),
        (&[(0, &[3])], AssignmentError::AllFenced { partition: 0 }),
        (&[(0, &[1]), (0, &[1])], AssignmentError::DuplicatePartition { partition: 0 }),
        (&[(0, &[1]), (2, &[1])], AssignmentError::NotConsecutive),
        (
            &[(0, &[1]), (1, &[1, 2])],
            AssignmentError::UnevenReplication { partition: 1, found: 2, expected: 1 },
        ),
    ];
    for (assignments, error) in rows {
        assert_eq!(create_error(&mut cluster, assigned("t", assignments)), error.into());
    }
    for counts in [(Some(1), None), (None, Some(1))] {
        let (partition_count, replication_factor) = counts;
        let new = NewTopic { partition_count, replication_factor, ..assigned("t", &[(0, &[1])]) };
        assert_eq!(create_error(&mut cluster, new), CreateTopicError::CountsWithAssignment);
    }
}

#[test]
fn configurations_are_stored_or_refused_with_the_topic() {
    let mut cluster = cluster();
    let id = cluster.create("t", &[1], &[("retention.ms", "5"), ("min.insync.replicas", "3")]);
    let configs = &cluster.image().topic(id).unwrap().configs;
    assert_eq!(configs.get("retention.ms").map(|value| &**value), Some("5"));
    let image = cluster.image();
    assert_eq!(image.effective_min_isr(image.topic(id).unwrap(), 1), 1, "capped by the replicas");
    let rows: [(&str, Option<&str>); 4] = [
        ("bad.name", Some("1")),
        ("retention.ms", None),
        ("min.insync.replicas", Some("0")),
        ("min.insync.replicas", Some("many")),
    ];
    for (name, value) in rows {
        let configs = vec![(Arc::from(name), value.map(Arc::from))];
        let error = create_error(&mut cluster, NewTopic { configs, ..topic("u") });
        assert!(
            matches!(error, CreateTopicError::Config(ConfigRejection::InvalidConfig(_))),
            "{error}"
        );
    }
}

#[test]
fn a_request_creates_ten_thousand_partitions_and_no_more() {
    let mut cluster = cluster();
    let sized = |name: &str, count| NewTopic { partition_count: Some(count), ..topic(name) };
    let context = cluster.context();
    let request = |topics| CreateTopics { topics, validate_only: true };
    let fits = request(vec![sized("a", 9_999), sized("b", 1), sized("c", -5)]);
    assert!(cluster.controller.create_topics(&context, &fits).is_ok());
    let one_more = request(vec![sized("a", 9_999), topic("b")]);
    let error = cluster.controller.create_topics(&context, &one_more).unwrap_err();
    assert_eq!(error, TooManyPartitions { requested: 10_001 });
    let huge = request(vec![sized("a", i32::MAX), sized("b", i32::MAX)]);
    assert!(cluster.controller.create_topics(&context, &huge).is_err());
    let topic_id = cluster.create("t", &[1], &[]);
    let grow = CreatePartitions { topics: vec![grown("t", 10_002, None)], validate_only: true };
    let error = cluster.controller.create_partitions(&context, &grow).unwrap_err();
    assert_eq!(error, TooManyPartitions { requested: 10_001 });
    assert!(cluster.image().topic(topic_id).is_some());
}

fn grown(name: &str, count: i32, assignments: Option<Vec<Vec<i32>>>) -> NewPartitions {
    NewPartitions { name: name.into(), count, assignments }
}

fn grow(
    cluster: &mut TestCluster,
    topics: Vec<NewPartitions>,
) -> Vec<Result<(), CreatePartitionsError>> {
    let context = cluster.context();
    let request = CreatePartitions { topics, validate_only: false };
    let decided = cluster.controller.create_partitions(&context, &request).unwrap();
    cluster.commit(decided).into_iter().map(|(_, result)| result).collect()
}

#[test]
fn a_topic_grows_with_the_replication_factor_that_it_has() {
    let mut cluster = cluster();
    let topic_id = cluster.create("t", &[1, 2], &[]);
    assert_eq!(grow(&mut cluster, vec![grown("t", 3, None)]), [Ok(())]);
    assert_eq!(grow(&mut cluster, vec![grown("t", 4, Some(vec![vec![2, 3]]))]), [Ok(())]);
    let topic = cluster.image().topic(topic_id).unwrap();
    assert_eq!(topic.partition_count(), 4);
    assert!(topic.partitions().all(|(_, p)| p.replicas.len() == 2));
    assert_eq!(topic.partition(3).unwrap().isr, brokers(&[2]));
}

#[test]
fn growth_that_makes_no_sense_is_refused() {
    let mut cluster = cluster();
    cluster.create("t", &[1], &[]);
    let rows: [(NewPartitions, CreatePartitionsError); 7] = [
        (grown("u", 2, None), CreatePartitionsError::UnknownTopic),
        (grown("t", 1, None), CreatePartitionsError::NoIncrease { current: 1, requested: 1 }),
        (grown("t", -1, None), CreatePartitionsError::NoIncrease { current: 1, requested: -1 }),
        (
            grown("t", 3, Some(vec![vec![1]])),
            AssignmentError::WrongCount { expected: 2, found: 1 }.into(),
        ),
        (
            grown("t", 2, Some(vec![vec![1, 2]])),
            AssignmentError::UnevenReplication { partition: 1, found: 2, expected: 1 }.into(),
        ),
        (
            grown("t", 2, Some(vec![vec![9]])),
            AssignmentError::UnknownBroker { partition: 1, broker: 9 }.into(),
        ),
        (grown("t", 2, Some(vec![vec![3]])), AssignmentError::AllFenced { partition: 1 }.into()),
    ];
    for (request, error) in rows {
        assert_eq!(grow(&mut cluster, vec![request]), [Err(error)]);
    }
    let twice = grow(&mut cluster, vec![grown("t", 2, None), grown("t", 3, None)]);
    assert_eq!(twice, [Err(CreatePartitionsError::DuplicateInRequest)]);
    assert_eq!(cluster.image().topic_by_name("t").unwrap().partition_count(), 1);
}

#[test]
fn topics_are_deleted_by_name_or_id_with_all_that_is_theirs() {
    let mut cluster = cluster();
    let a = cluster.create("a", &[1], &[("retention.ms", "5")]);
    let b = cluster.create("b", &[1], &[]);
    let (by_name, by_id) = (TopicRef::Name("a".into()), TopicRef::Id(b));
    let decided = cluster.controller.delete_topics(&[by_name.clone(), by_id.clone()]);
    let response = cluster.commit(decided);
    let deleted = |topic_id, name: &str| Ok(DeletedTopic { topic_id, name: name.into() });
    assert_eq!(response, [(by_name, deleted(a, "a")), (by_id, deleted(b, "b"))]);
    assert_eq!(cluster.image().topics().len(), 0);
}

#[test]
fn what_is_not_there_or_named_twice_is_not_deleted() {
    let mut cluster = cluster();
    let id = cluster.create("a", &[1], &[]);
    let unknown = TopicId::from_bytes([9; 16]);
    let refs = [TopicRef::Name("x".into()), TopicRef::Id(unknown), TopicRef::Id(unknown)];
    let response = cluster.controller.delete_topics(&refs).response;
    assert_eq!(response[0].1, Err(DeleteTopicError::UnknownTopic));
    assert_eq!(response[1].1, Err(DeleteTopicError::DuplicateInRequest));
    let only = cluster.controller.delete_topics(&[TopicRef::Id(unknown)]).response;
    assert_eq!(only[0].1, Err(DeleteTopicError::UnknownTopicId));
    let both = cluster.controller.delete_topics(&[TopicRef::Name("a".into()), TopicRef::Id(id)]);
    assert_eq!(both.records, []);
    let error = Err(DeleteTopicError::ByNameAndId { topic_id: id });
    assert_eq!(both.response, [(TopicRef::Name("a".into()), error)]);
}
