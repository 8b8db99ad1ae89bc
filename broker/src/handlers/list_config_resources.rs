//! ListConfigResources, v0–v1 (KIP-1142; v0 was ListClientMetricsResources). v0 asks for client metrics resources,
//! of which there are none; v1 names types, none of them meaning all that exist.

use crate::api::dispatch::{Refused, Reply, Request};
use crate::broker::Broker;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::list_config_resources_response::ConfigResource;
use kafka_protocol::messages::{ListConfigResourcesRequest, ListConfigResourcesResponse};
use kafka_protocol::protocol::StrBytes;
use std::sync::Arc;

const TOPIC: i8 = 2;
const BROKER: i8 = 4;
const BROKER_LOGGER: i8 = 8;
const CLIENT_METRICS: i8 = 16;
const GROUP: i8 = 32;
const FIRST_WITH_TYPES: i16 = 1;

pub(crate) fn handle(broker: &Arc<Broker>, mut request: Request) -> Result<Reply, Refused> {
    let asked: ListConfigResourcesRequest = request.decode()?;
    let types = match asked.resource_types {
        _ if request.api_version < FIRST_WITH_TYPES => vec![CLIENT_METRICS],
        types if types.is_empty() => vec![TOPIC, BROKER, BROKER_LOGGER, CLIENT_METRICS, GROUP],
        types => types,
    };
    let known = [TOPIC, BROKER, BROKER_LOGGER, CLIENT_METRICS, GROUP];
    if types.iter().any(|kind| !known.contains(kind)) {
        let code = ResponseError::UnsupportedVersion.code();
        return request.reply(&ListConfigResourcesResponse::default().with_error_code(code));
    }
    let image = broker.image();
    let mut resources = Vec::new();
    let mut add = |kind: i8, name: String| {
        resources.push(
            ConfigResource::default()
                .with_resource_type(kind)
                .with_resource_name(StrBytes::from_string(name)),
        );
    };
    for kind in types {
        match kind {
            TOPIC => image.topics_by_name().for_each(|topic| add(TOPIC, topic.name.to_string())),
            BROKER | BROKER_LOGGER => {
                for node in broker.live_endpoints(&broker.image(), &request.connection) {
                    add(kind, node.id.to_string());
                }
            }
            // Nobody can make one of these yet.
            _ => {}
        }
    }
    request.reply(&ListConfigResourcesResponse::default().with_config_resources(resources))
}
