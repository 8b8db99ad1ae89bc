//! Topics: create, delete, more partitions.

use std::collections::BTreeMap;

use kafka_protocol::messages::create_partitions_request::CreatePartitionsTopic;
use kafka_protocol::messages::create_topics_request::{
    CreatableReplicaAssignment, CreatableTopic, CreatableTopicConfig,
};
use kafka_protocol::messages::delete_topics_request::DeleteTopicState;
use kafka_protocol::messages::{
    BrokerId, CreatePartitionsRequest, CreateTopicsRequest, DeleteTopicsRequest, TopicName,
};
use kafka_protocol::protocol::StrBytes;

use super::Admin;
use crate::cluster::TopicId;
use crate::error::{ClientError, KafkaError};

/// A topic to create.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NewTopic {
    /// Its name.
    pub name: String,
    /// `None` for the broker's default (brokers since 2.4).
    pub partitions: Option<i32>,
    /// `None` for the broker's default.
    pub replication_factor: Option<i16>,
    /// Brokers of each partition, from partition 0 on; replaces the two above if not empty.
    pub assignments: Vec<Vec<i32>>,
    /// Configs that differ from the defaults.
    pub configs: BTreeMap<String, String>,
}

/// What was created.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreatedTopic {
    /// None from brokers before 2.8.
    pub topic_id: Option<TopicId>,
    /// None where the broker does not tell.
    pub partitions: Option<i32>,
    /// None where the broker does not tell.
    pub replication_factor: Option<i16>,
}

impl Admin {
    /// Creates a topic; with `validate_only` only checks whether that would work.
    ///
    /// # Errors
    /// [`ClientError::Kafka`] as the broker answers, TOPIC_ALREADY_EXISTS for one. After a lost connection the
    /// request is sent again, so that this error may mean that the first one did work.
    pub async fn create_topic(
        &self,
        topic: &NewTopic,
        validate_only: bool,
    ) -> Result<CreatedTopic, ClientError> {
        let subject = format!("topic {}", topic.name);
        let request = |_version: i16| {
            let configs = topic.configs.iter().map(|(name, value)| {
                CreatableTopicConfig::default().with_name(text(name)).with_value(Some(text(value)))
            });
            let assignments = topic.assignments.iter().zip(0..).map(|(brokers, partition)| {
                CreatableReplicaAssignment::default()
                    .with_partition_index(partition)
                    .with_broker_ids(brokers.iter().copied().map(BrokerId).collect())
            });
            let assigned = !topic.assignments.is_empty();
            let creatable = CreatableTopic::default()
                .with_name(TopicName(text(&topic.name)))
                .with_num_partitions(topic.partitions.filter(|_| !assigned).unwrap_or(-1))
                .with_replication_factor(
                    topic.replication_factor.filter(|_| !assigned).unwrap_or(-1),
                )
                .with_assignments(assignments.collect())
                .with_configs(configs.collect());
            CreateTopicsRequest::default()
                .with_topics(vec![creatable])
                .with_timeout_ms(self.request_timeout_ms())
                .with_validate_only(validate_only)
        };
        let created = self
            .on_controller(&subject, request, |response| {
                let result =
                    response.topics.into_iter().find(|result| result.name.as_str() == topic.name);
                let result = result.ok_or_else(|| incomplete(&subject))?;
                KafkaError::check(result.error_code, result.error_message.as_deref())
                    .map_err(|e| ClientError::kafka(&subject, e))?;
                Ok(CreatedTopic {
                    topic_id: TopicId::from_wire(result.topic_id),
                    partitions: (result.num_partitions > 0).then_some(result.num_partitions),
                    replication_factor: (result.replication_factor > 0)
                        .then_some(result.replication_factor),
                })
            })
            .await;
        self.cluster.forget_topic(&topic.name);
        created
    }

    /// Deletes a topic with all its records.
    ///
    /// # Errors
    /// [`ClientError::Kafka`] as the broker answers; UNKNOWN_TOPIC_OR_PARTITION at once, without trying again.
    pub async fn delete_topic(&self, name: &str) -> Result<(), ClientError> {
        let subject = format!("topic {name}");
        let request = |version: i16| {
            let request = DeleteTopicsRequest::default().with_timeout_ms(self.request_timeout_ms());
            let name = TopicName(text(name));
            match version {
                ..6 => request.with_topic_names(vec![name]),
                6.. => request.with_topics(vec![DeleteTopicState::default().with_name(Some(name))]),
            }
        };
        let deleted = self
            .on_controller(&subject, request, |response| {
                let named = |n: &Option<TopicName>| n.as_ref().is_some_and(|n| n.as_str() == name);
                let result = response.responses.into_iter().find(|result| named(&result.name));
                let result = result.ok_or_else(|| incomplete(&subject))?;
                // Inside the value: retriable for a reader, final for who deletes.
                Ok(KafkaError::check(result.error_code, result.error_message.as_deref()))
            })
            .await?;
        self.cluster.forget_topic(name);
        deleted.map_err(|e| ClientError::kafka(subject, e))
    }

    /// Adds partitions up to `total`.
    ///
    /// # Errors
    /// [`ClientError::Kafka`] as the broker answers, INVALID_PARTITIONS if there are as many already.
    pub async fn create_partitions(
        &self,
        topic: &str,
        total: i32,
        validate_only: bool,
    ) -> Result<(), ClientError> {
        let subject = format!("topic {topic}");
        let request = |_version: i16| {
            let named = CreatePartitionsTopic::default()
                .with_name(TopicName(text(topic)))
                .with_count(total);
            CreatePartitionsRequest::default()
                .with_topics(vec![named.with_assignments(None)])
                .with_timeout_ms(self.request_timeout_ms())
                .with_validate_only(validate_only)
        };
        let result = self
            .on_controller(&subject, request, |response| {
                let result =
                    response.results.into_iter().find(|result| result.name.as_str() == topic);
                let result = result.ok_or_else(|| incomplete(&subject))?;
                Ok(KafkaError::check(result.error_code, result.error_message.as_deref()))
            })
            .await?;
        self.cluster.forget_topic(topic);
        result.map_err(|e| ClientError::kafka(subject, e))
    }
}

pub(super) fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

pub(super) fn incomplete(subject: &str) -> ClientError {
    ClientError::AnswerIncomplete { address: "the broker".to_owned(), subject: subject.to_owned() }
}
