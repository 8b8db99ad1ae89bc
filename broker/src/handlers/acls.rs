//! DescribeAcls, CreateAcls and DeleteAcls, v1–v3. There is no authorizer, so everything is allowed and each of them
//! answers SECURITY_DISABLED (54), as Kafka does without one.

use crate::api::dispatch::{Refused, Reply, Request};
use crate::broker::Broker;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::create_acls_response::AclCreationResult;
use kafka_protocol::messages::delete_acls_response::DeleteAclsFilterResult;
use kafka_protocol::messages::{
    CreateAclsRequest, CreateAclsResponse, DeleteAclsRequest, DeleteAclsResponse,
    DescribeAclsRequest, DescribeAclsResponse,
};
use kafka_protocol::protocol::StrBytes;
use std::sync::Arc;

const CODE: i16 = ResponseError::SecurityDisabled.code();

fn message() -> Option<StrBytes> {
    Some(StrBytes::from_static_str("No Authorizer is configured."))
}

pub(crate) fn describe(_: &Arc<Broker>, mut request: Request) -> Result<Reply, Refused> {
    request.decode::<DescribeAclsRequest>()?;
    request
        .reply(&DescribeAclsResponse::default().with_error_code(CODE).with_error_message(message()))
}

pub(crate) fn create(_: &Arc<Broker>, mut request: Request) -> Result<Reply, Refused> {
    let asked: CreateAclsRequest = request.decode()?;
    let result = AclCreationResult::default().with_error_code(CODE).with_error_message(message());
    request.reply(&CreateAclsResponse::default().with_results(vec![result; asked.creations.len()]))
}

pub(crate) fn delete(_: &Arc<Broker>, mut request: Request) -> Result<Reply, Refused> {
    let asked: DeleteAclsRequest = request.decode()?;
    let result =
        DeleteAclsFilterResult::default().with_error_code(CODE).with_error_message(message());
    request.reply(
        &DeleteAclsResponse::default().with_filter_results(vec![result; asked.filters.len()]),
    )
}
