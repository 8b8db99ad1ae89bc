//! InitProducerId, v0–v5. v3 producer id and epoch to be bumped (KIP-360) · v4 new error codes · v5 (KIP-890).
//!
//! Without a transactional id any broker answers from its block of ids (KIP-98): a new id at epoch 0. With one: 53,
//! until transactions exist.

use crate::api::dispatch::{Refused, Reply, Request};
use crate::api::error_code::ToErrorCode;
use crate::broker::Broker;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::{InitProducerIdRequest, InitProducerIdResponse, ProducerId};
use std::sync::Arc;

pub(crate) fn handle(broker: &Arc<Broker>, mut request: Request) -> Result<Reply, Refused> {
    let asked: InitProducerIdRequest = request.decode()?;
    let failed = |error: ResponseError| {
        InitProducerIdResponse::default()
            .with_error_code(error.code())
            .with_producer_id(ProducerId(-1))
            .with_producer_epoch(-1)
    };
    if let Some(id) = &asked.transactional_id {
        let error = if id.is_empty() {
            ResponseError::InvalidRequest
        } else {
            ResponseError::TransactionalIdAuthorizationFailed
        };
        return request.reply(&failed(error));
    }
    // Half a producer identity is no identity (`KafkaApis.handleInitProducerIdRequest`).
    if (asked.producer_id.0 == -1) != (asked.producer_epoch == -1) {
        return request.reply(&failed(ResponseError::InvalidRequest));
    }
    if let Some(id) = broker.producer_ids().next_in_block() {
        return request.reply(&granted(id));
    }
    let broker = Arc::clone(broker);
    request.serial(async move {
        let own = broker.image().broker(broker.node_id()).map(|own| own.broker_epoch);
        let Some(broker_epoch) = own else {
            return failed(ResponseError::CoordinatorLoadInProgress);
        };
        match broker.producer_ids().next(broker.controller(), broker_epoch).await {
            Ok(id) => granted(id),
            Err(error) => failed(error.to_error_code()),
        }
    })
}

fn granted(id: storage::producer_state::ProducerId) -> InitProducerIdResponse {
    InitProducerIdResponse::default()
        .with_producer_id(ProducerId(id.value()))
        .with_producer_epoch(0)
}
