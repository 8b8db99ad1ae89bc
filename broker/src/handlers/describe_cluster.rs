//! DescribeCluster, v0–v2 (KIP-700). v1 endpoint type (KIP-919) · v2 fenced brokers (KIP-1073).

use crate::api::dispatch::{Refused, Reply, Request};
use crate::authorized_operations;
use crate::broker::Broker;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::describe_cluster_response::DescribeClusterBroker;
use kafka_protocol::messages::{BrokerId, DescribeClusterRequest, DescribeClusterResponse};
use kafka_protocol::protocol::StrBytes;
use std::sync::Arc;

const ENDPOINT_BROKERS: i8 = 1;
const ENDPOINT_CONTROLLERS: i8 = 2;

pub(crate) fn handle(broker: &Arc<Broker>, mut request: Request) -> Result<Reply, Refused> {
    let asked: DescribeClusterRequest = request.decode()?;
    let response = DescribeClusterResponse::default().with_error_message(None);
    let refused = match asked.endpoint_type {
        ENDPOINT_BROKERS => None,
        ENDPOINT_CONTROLLERS => Some((
            ResponseError::MismatchedEndpointType,
            "The request was sent to an endpoint of type BROKER, but we wanted an endpoint of type CONTROLLER",
        )),
        _ => Some((ResponseError::UnsupportedEndpointType, "Unsupported endpoint type")),
    };
    if let Some((error, message)) = refused {
        return request.reply(
            &response
                .with_error_code(error.code())
                .with_error_message(Some(StrBytes::from_static_str(message)))
                .with_controller_id(BrokerId(-1)),
        );
    }
    let image = broker.image();
    let nodes = if asked.include_fenced_brokers {
        broker.all_endpoints(&request.connection)
    } else {
        broker.live_endpoints(&broker.image(), &request.connection)
    };
    let brokers = nodes
        .into_iter()
        .map(|node| {
            DescribeClusterBroker::default()
                .with_broker_id(BrokerId(node.id))
                .with_host(node.host)
                .with_port(node.port)
                .with_rack(node.rack)
                .with_is_fenced(node.is_fenced)
        })
        .collect();
    let response = response
        .with_endpoint_type(ENDPOINT_BROKERS)
        .with_cluster_id(StrBytes::from_string(image.cluster_id().to_string()))
        .with_controller_id(BrokerId(broker.node_id().value()))
        .with_brokers(brokers);
    request.reply(&if asked.include_cluster_authorized_operations {
        response.with_cluster_authorized_operations(authorized_operations::CLUSTER)
    } else {
        response
    })
}
