//! DescribeClientQuotas, v0–v1 (KIP-546). Nobody can set a quota, so none match.

use crate::api::dispatch::{Refused, Reply, Request};
use crate::broker::Broker;
use kafka_protocol::messages::{DescribeClientQuotasRequest, DescribeClientQuotasResponse};
use std::sync::Arc;

pub(crate) fn handle(_: &Arc<Broker>, mut request: Request) -> Result<Reply, Refused> {
    request.decode::<DescribeClientQuotasRequest>()?;
    request.reply(
        &DescribeClientQuotasResponse::default()
            .with_error_message(None)
            .with_entries(Some(Vec::new())),
    )
}
