//! CreateTopics, v2–v7. v4 default counts (KIP-464) · v5 counts and configs in the answer (KIP-525) · v7 topic id.
//! Answered after commit and apply, so that a Produce right after it finds the leader (trap 23).

use crate::api::dispatch::{Refused, Reply, Request};
use crate::api::error_code::ToErrorCode;
use crate::broker::Broker;
use crate::config::{ConfigFilter, ConfigLayers, describe_topic};
use kafka_protocol::ResponseError;
use kafka_protocol::messages::create_topics_request::CreatableTopic;
use kafka_protocol::messages::create_topics_response::{
    CreatableTopicConfigs, CreatableTopicResult,
};
use kafka_protocol::messages::{CreateTopicsRequest, CreateTopicsResponse, TopicName};
use kafka_protocol::protocol::StrBytes;
use replication::controller::{
    CreateTopicError, CreateTopics, CreatedTopic, ManualAssignment, NewTopic,
};
use std::sync::Arc;
use uuid::Uuid;

const FIRST_WITH_COUNTS: i16 = 5;

pub(crate) fn handle(broker: &Arc<Broker>, mut request: Request) -> Result<Reply, Refused> {
    let asked: CreateTopicsRequest = request.decode()?;
    let version = request.api_version;
    let broker = Arc::clone(broker);
    request.serial(async move {
        let names: Vec<TopicName> = asked.topics.iter().map(|topic| topic.name.clone()).collect();
        if asked.timeout_ms <= 0 && !asked.validate_only {
            return all_failed(&names, ResponseError::RequestTimedOut, None);
        }
        let create = CreateTopics {
            topics: asked.topics.into_iter().map(new_topic).collect(),
            validate_only: asked.validate_only,
        };
        let submitted = broker
            .controller()
            .submit(move |controller, context| controller.create_topics(context, &create));
        match submitted.await {
            Ok(created) => CreateTopicsResponse::default().with_topics(
                created
                    .into_iter()
                    .map(|(name, result)| answer(&broker, version, &name, result))
                    .collect(),
            ),
            Err(error) => all_failed(&names, error.to_error_code(), Some(error.to_string())),
        }
    })
}

fn new_topic(asked: CreatableTopic) -> NewTopic {
    let text = |text: &StrBytes| Arc::from(text.as_str());
    NewTopic {
        name: Arc::from(asked.name.as_str()),
        partition_count: (asked.num_partitions != -1).then_some(asked.num_partitions),
        replication_factor: (asked.replication_factor != -1).then_some(asked.replication_factor),
        assignments: asked
            .assignments
            .into_iter()
            .map(|assignment| ManualAssignment {
                partition: assignment.partition_index,
                brokers: assignment.broker_ids.into_iter().map(|id| id.0).collect(),
            })
            .collect(),
        configs: asked
            .configs
            .iter()
            .map(|config| (text(&config.name), config.value.as_ref().map(text)))
            .collect(),
    }
}

fn topic_name(name: &str) -> TopicName {
    TopicName(StrBytes::from_string(name.to_string()))
}

fn failed(name: TopicName, error: ResponseError, message: Option<String>) -> CreatableTopicResult {
    let message = message.unwrap_or_else(|| error.to_string());
    CreatableTopicResult::default()
        .with_name(name)
        .with_error_code(error.code())
        .with_error_message(Some(StrBytes::from_string(message)))
        .with_num_partitions(-1)
        .with_replication_factor(-1)
        .with_configs(Some(Vec::new()))
}

/// One answer a name, as for a request that was looked at.
fn all_failed(
    names: &[TopicName],
    error: ResponseError,
    message: Option<String>,
) -> CreateTopicsResponse {
    let mut topics: Vec<CreatableTopicResult> = Vec::with_capacity(names.len());
    for name in names {
        if topics.iter().all(|topic| topic.name != *name) {
            topics.push(failed(name.clone(), error, message.clone()));
        }
    }
    CreateTopicsResponse::default().with_topics(topics)
}

fn answer(
    broker: &Broker,
    version: i16,
    name: &str,
    result: Result<CreatedTopic, CreateTopicError>,
) -> CreatableTopicResult {
    let created = match result {
        Ok(created) => created,
        Err(error) => {
            return failed(topic_name(name), error.to_error_code(), Some(error.to_string()));
        }
    };
    let result = CreatableTopicResult::default()
        .with_name(topic_name(name))
        .with_topic_id(Uuid::from_bytes(*created.topic_id.as_bytes()))
        .with_error_message(None);
    if version < FIRST_WITH_COUNTS {
        return result;
    }
    let image = broker.image();
    let layers = ConfigLayers::new(broker.config(), &image);
    let configs = describe_topic(&created.configs, layers, ConfigFilter::new(None))
        .into_iter()
        .map(|config| {
            CreatableTopicConfigs::default()
                .with_name(StrBytes::from_static_str(config.name))
                .with_value(config.value.map(StrBytes::from_string))
                .with_read_only(config.is_read_only)
                .with_config_source(config.source.id())
        })
        .collect();
    result
        .with_num_partitions(created.partition_count)
        .with_replication_factor(created.replication_factor)
        .with_configs(Some(configs))
}
