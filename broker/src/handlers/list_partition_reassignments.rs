//! ListPartitionReassignments, v0 (KIP-455). One broker has nowhere to move a replica, so none is under way.

use crate::api::dispatch::{Refused, Reply, Request};
use crate::broker::Broker;
use kafka_protocol::messages::{
    ListPartitionReassignmentsRequest, ListPartitionReassignmentsResponse,
};
use std::sync::Arc;

pub(crate) fn handle(_: &Arc<Broker>, mut request: Request) -> Result<Reply, Refused> {
    request.decode::<ListPartitionReassignmentsRequest>()?;
    request.reply(&ListPartitionReassignmentsResponse::default().with_error_message(None))
}
