//! FindCoordinator, v0–v6. v1 key type · v4 batches (KIP-699) · v6 share groups.
//!
//! There are no coordinators yet. The API is advertised because librdkafka switches LZ4 on by it; it answers 30 for
//! groups and 53 for transactional ids, which no client retries, with a message that says why.

use crate::api::dispatch::{Refused, Reply, Request};
use crate::broker::Broker;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::find_coordinator_response::Coordinator;
use kafka_protocol::messages::{BrokerId, FindCoordinatorRequest, FindCoordinatorResponse};
use kafka_protocol::protocol::StrBytes;
use std::sync::Arc;

const FIRST_BATCHED: i16 = 4;
const KEY_TYPE_TRANSACTION: i8 = 1;

pub(crate) fn handle(_: &Arc<Broker>, mut request: Request) -> Result<Reply, Refused> {
    let asked: FindCoordinatorRequest = request.decode()?;
    let (error, message) = match asked.key_type {
        KEY_TYPE_TRANSACTION => (
            ResponseError::TransactionalIdAuthorizationFailed,
            "this version of highwater has no transactions yet; use an idempotent producer",
        ),
        0 => (
            ResponseError::GroupAuthorizationFailed,
            "this version of highwater has no consumer groups yet; assign partitions instead of subscribing",
        ),
        _ => (ResponseError::InvalidRequest, "unknown coordinator type"),
    };
    let message = Some(StrBytes::from_static_str(message));
    let response = FindCoordinatorResponse::default();
    if request.api_version < FIRST_BATCHED {
        return request.reply(
            &response
                .with_error_code(error.code())
                .with_error_message(message)
                .with_node_id(BrokerId(-1))
                .with_port(-1),
        );
    }
    let coordinators = asked
        .coordinator_keys
        .into_iter()
        .map(|key| {
            Coordinator::default()
                .with_key(key)
                .with_node_id(BrokerId(-1))
                .with_port(-1)
                .with_error_code(error.code())
                .with_error_message(message.clone())
        })
        .collect();
    request.reply(&response.with_coordinators(coordinators))
}
