//! Creating topics that a Metadata request (`auto.create.topics.enable`) or `--topic` names, with the default
//! replication factor.

use crate::api::error_code::ToErrorCode;
use crate::broker::Broker;
use crate::quorum::SubmitError;
use kafka_protocol::ResponseError;
use replication::controller::{CreateTopicError, CreateTopics, NewTopic};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Creates the topics, with the default partition count where none is given; returns, after commit and apply, those that could not be, with what to answer. One that
/// somebody else created meanwhile counts as created.
pub async fn create(
    broker: &Broker,
    wanted: BTreeMap<String, Option<i32>>,
) -> Vec<(String, ResponseError)> {
    let topics = wanted
        .iter()
        .map(|(name, partitions)| NewTopic {
            name: Arc::from(name.as_str()),
            partition_count: *partitions,
            replication_factor: None,
            assignments: Vec::new(),
            configs: Vec::new(),
        })
        .collect();
    let request = CreateTopics { topics, validate_only: false };
    let submitted = broker
        .controller()
        .submit(move |controller, context| controller.create_topics(context, &request));
    match submitted.await {
        Ok(created) => created
            .into_iter()
            .filter_map(|(name, result)| match result {
                Ok(_) | Err(CreateTopicError::AlreadyExists { .. }) => None,
                Err(error) => Some((name.to_string(), error.to_error_code())),
            })
            .collect(),
        Err(SubmitError::Refused(too_many)) => {
            let error = too_many.to_error_code();
            wanted.into_keys().map(|name| (name, error)).collect()
        }
        // The client asks again.
        Err(SubmitError::Unavailable(_)) => {
            wanted.into_keys().map(|name| (name, ResponseError::UnknownTopicOrPartition)).collect()
        }
    }
}
