//! DescribeUserScramCredentials, v0 (KIP-554). There are no users: all of them is an empty list, a named one is
//! RESOURCE_NOT_FOUND (91), and one named twice DUPLICATE_RESOURCE (92).

use crate::api::dispatch::{Refused, Reply, Request};
use crate::broker::Broker;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::describe_user_scram_credentials_response::DescribeUserScramCredentialsResult;
use kafka_protocol::messages::{
    DescribeUserScramCredentialsRequest, DescribeUserScramCredentialsResponse,
};
use kafka_protocol::protocol::StrBytes;
use std::collections::BTreeMap;
use std::sync::Arc;

pub(crate) fn handle(_: &Arc<Broker>, mut request: Request) -> Result<Reply, Refused> {
    let asked: DescribeUserScramCredentialsRequest = request.decode()?;
    let mut times: BTreeMap<StrBytes, usize> = BTreeMap::new();
    for user in asked.users.into_iter().flatten() {
        *times.entry(user.name).or_default() += 1;
    }
    let results = times
        .into_iter()
        .map(|(user, times)| {
            let (error, message) = if times > 1 {
                let message = format!(
                    "Cannot describe SCRAM credentials for the same user twice in a single request: {user}"
                );
                (ResponseError::DuplicateResource, message)
            } else {
                let message =
                    format!("Attempt to describe a user credential that does not exist: {user}");
                (ResponseError::ResourceNotFound, message)
            };
            DescribeUserScramCredentialsResult::default()
                .with_user(user)
                .with_error_code(error.code())
                .with_error_message(Some(StrBytes::from_string(message)))
        })
        .collect();
    request.reply(
        &DescribeUserScramCredentialsResponse::default()
            .with_error_message(Some(StrBytes::default()))
            .with_results(results),
    )
}
