//! ListTransactions, v0–v2. v1 duration filter · v2 transactional id pattern (KIP-1152). There are no transactions
//! yet, so none match; state names that Kafka does not know are named in the answer.

use crate::api::dispatch::{Refused, Reply, Request};
use crate::broker::Broker;
use kafka_protocol::messages::{ListTransactionsRequest, ListTransactionsResponse};
use std::sync::Arc;

/// States of a transaction, as Kafka's tools write them (`TransactionState.scala`).
const STATES: [&str; 8] = [
    "Empty",
    "Ongoing",
    "PrepareCommit",
    "PrepareAbort",
    "CompleteCommit",
    "CompleteAbort",
    "Dead",
    "PrepareEpochFence",
];

pub(crate) fn handle(_: &Arc<Broker>, mut request: Request) -> Result<Reply, Refused> {
    let asked: ListTransactionsRequest = request.decode()?;
    let unknown =
        asked.state_filters.into_iter().filter(|state| !STATES.contains(&&**state)).collect();
    request.reply(&ListTransactionsResponse::default().with_unknown_state_filters(unknown))
}
