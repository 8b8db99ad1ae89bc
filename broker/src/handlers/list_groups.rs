//! ListGroups, v0–v5. v4 states filter · v5 types filter. There are no groups yet, so none match.

use crate::api::dispatch::{Refused, Reply, Request};
use crate::broker::Broker;
use kafka_protocol::messages::{ListGroupsRequest, ListGroupsResponse};
use std::sync::Arc;

pub(crate) fn handle(_: &Arc<Broker>, mut request: Request) -> Result<Reply, Refused> {
    request.decode::<ListGroupsRequest>()?;
    request.reply(&ListGroupsResponse::default())
}
