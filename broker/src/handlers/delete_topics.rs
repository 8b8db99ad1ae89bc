//! DeleteTopics, v1–v6. v5 error message · v6 by name or id (KIP-516). Answered after commit and apply; the files go
//! in the background, and a topic of the same name may be created at once.

use crate::api::dispatch::{Refused, Reply, Request};
use crate::api::error_code::ToErrorCode;
use crate::broker::Broker;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::delete_topics_request::DeleteTopicState;
use kafka_protocol::messages::delete_topics_response::DeletableTopicResult;
use kafka_protocol::messages::{DeleteTopicsRequest, DeleteTopicsResponse, TopicName};
use kafka_protocol::protocol::StrBytes;
use replication::controller::{DeleteTopicError, DeletedTopic, TopicRef};
use std::sync::Arc;
use storage::topic_partition::TopicId;
use uuid::Uuid;

const FIRST_WITH_IDS: i16 = 6;

pub(crate) fn handle(broker: &Arc<Broker>, mut request: Request) -> Result<Reply, Refused> {
    let asked: DeleteTopicsRequest = request.decode()?;
    let topics: Vec<DeleteTopicState> = if request.api_version < FIRST_WITH_IDS {
        let by_name = |name| DeleteTopicState::default().with_name(Some(name));
        asked.topic_names.into_iter().map(by_name).collect()
    } else {
        asked.topics
    };
    let version = request.api_version;
    let broker = Arc::clone(broker);
    request.serial(async move {
        let responses = delete(&broker, version, topics, asked.timeout_ms).await;
        DeleteTopicsResponse::default().with_responses(responses)
    })
}

async fn delete(
    broker: &Broker,
    version: i16,
    topics: Vec<DeleteTopicState>,
    timeout_ms: i32,
) -> Vec<DeletableTopicResult> {
    if !broker.config().delete_topic_enable {
        // What old clients know for it (`DeleteTopicsRequest`): an invalid request before v3.
        let error = if version < 3 {
            ResponseError::InvalidRequest
        } else {
            ResponseError::TopicDeletionDisabled
        };
        return topics.into_iter().map(|topic| failed(topic, error, None)).collect();
    }
    if timeout_ms <= 0 {
        let error = ResponseError::RequestTimedOut;
        return topics.into_iter().map(|topic| failed(topic, error, None)).collect();
    }
    let mut responses = Vec::new();
    let mut wanted = Vec::new();
    for topic in topics {
        let is_named = topic.name.is_some();
        match (&topic.name, topic.topic_id.is_nil()) {
            (Some(name), true) => wanted.push(TopicRef::Name(Arc::from(name.as_str()))),
            (None, false) => {
                wanted.push(TopicRef::Id(TopicId::from_bytes(*topic.topic_id.as_bytes())));
            }
            _ => {
                let message = if is_named {
                    "You may not specify both topic name and topic id."
                } else {
                    "Neither topic name nor id were specified."
                };
                let message = Some(message.to_string());
                responses.push(failed(topic, ResponseError::InvalidRequest, message));
            }
        }
    }
    let submitted = wanted.clone();
    let deleted = broker
        .controller()
        .submit(move |controller, _| {
            Ok::<_, std::convert::Infallible>(controller.delete_topics(&submitted))
        })
        .await;
    match deleted {
        Ok(deleted) => {
            responses.extend(deleted.into_iter().map(|(topic, result)| answer(topic, result)));
        }
        Err(error) => {
            let code = error.to_error_code();
            let message = error.to_string();
            responses.extend(
                wanted.into_iter().map(|topic| failed(state(topic), code, Some(message.clone()))),
            );
        }
    }
    responses
}

fn topic_name(name: &str) -> TopicName {
    TopicName(StrBytes::from_string(name.to_string()))
}

fn state(topic: TopicRef) -> DeleteTopicState {
    match topic {
        TopicRef::Name(name) => DeleteTopicState::default().with_name(Some(topic_name(&name))),
        TopicRef::Id(id) => {
            DeleteTopicState::default().with_topic_id(Uuid::from_bytes(*id.as_bytes()))
        }
    }
}

fn failed(
    topic: DeleteTopicState,
    error: ResponseError,
    message: Option<String>,
) -> DeletableTopicResult {
    let message = message.unwrap_or_else(|| error.to_string());
    DeletableTopicResult::default()
        .with_name(topic.name)
        .with_topic_id(topic.topic_id)
        .with_error_code(error.code())
        .with_error_message(Some(StrBytes::from_string(message)))
}

fn answer(topic: TopicRef, result: Result<DeletedTopic, DeleteTopicError>) -> DeletableTopicResult {
    match result {
        Ok(deleted) => DeletableTopicResult::default()
            .with_name(Some(topic_name(&deleted.name)))
            .with_topic_id(Uuid::from_bytes(*deleted.topic_id.as_bytes()))
            .with_error_message(None),
        Err(error) => {
            let mut topic = state(topic);
            if let DeleteTopicError::ByNameAndId { topic_id } = &error {
                topic.topic_id = Uuid::from_bytes(*topic_id.as_bytes());
            }
            failed(topic, error.to_error_code(), Some(error.to_string()))
        }
    }
}
