//! CreatePartitions, v0–v3 (KIP-195). The count is the new total; a topic only grows. Answered after commit and apply.

use crate::api::dispatch::{Refused, Reply, Request};
use crate::api::error_code::ToErrorCode;
use crate::broker::Broker;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::create_partitions_request::CreatePartitionsTopic;
use kafka_protocol::messages::create_partitions_response::CreatePartitionsTopicResult;
use kafka_protocol::messages::{CreatePartitionsRequest, CreatePartitionsResponse, TopicName};
use kafka_protocol::protocol::StrBytes;
use replication::controller::{CreatePartitions, NewPartitions};
use std::sync::Arc;

pub(crate) fn handle(broker: &Arc<Broker>, mut request: Request) -> Result<Reply, Refused> {
    let asked: CreatePartitionsRequest = request.decode()?;
    let broker = Arc::clone(broker);
    request.serial(async move {
        let names: Vec<TopicName> = asked.topics.iter().map(|topic| topic.name.clone()).collect();
        let all = |error: ResponseError, message: String| {
            names.iter().map(|name| result(name, error.code(), Some(message.clone()))).collect()
        };
        if asked.timeout_ms <= 0 && !asked.validate_only {
            let error = ResponseError::RequestTimedOut;
            let results = all(error, error.to_string());
            return CreatePartitionsResponse::default().with_results(results);
        }
        let grow = CreatePartitions {
            topics: asked.topics.into_iter().map(new_partitions).collect(),
            validate_only: asked.validate_only,
        };
        let submitted = broker
            .controller()
            .submit(move |controller, context| controller.create_partitions(context, &grow));
        let results = match submitted.await {
            Ok(grown) => grown
                .into_iter()
                .map(|(name, outcome)| {
                    let name = TopicName(StrBytes::from_string(name.to_string()));
                    match outcome {
                        Ok(()) => result(&name, 0, None),
                        Err(error) => {
                            result(&name, error.to_error_code().code(), Some(error.to_string()))
                        }
                    }
                })
                .collect(),
            Err(error) => all(error.to_error_code(), error.to_string()),
        };
        CreatePartitionsResponse::default().with_results(results)
    })
}

fn new_partitions(asked: CreatePartitionsTopic) -> NewPartitions {
    NewPartitions {
        name: Arc::from(asked.name.as_str()),
        count: asked.count,
        assignments: asked.assignments.map(|assignments| {
            let brokers = assignments.into_iter().map(|assignment| {
                assignment.broker_ids.into_iter().map(|broker| broker.0).collect()
            });
            brokers.collect()
        }),
    }
}

fn result(name: &TopicName, code: i16, message: Option<String>) -> CreatePartitionsTopicResult {
    CreatePartitionsTopicResult::default()
        .with_name(name.clone())
        .with_error_code(code)
        .with_error_message(message.map(StrBytes::from_string))
}
