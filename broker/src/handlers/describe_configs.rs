//! DescribeConfigs, v1–v4. v1 source and synonyms (KIP-226) · v3 type and documentation (KIP-569). Keys null or empty
//! ask for all (trap 24). Topics, this broker, and the cluster's defaults (a broker with an empty name); there are no
//! loggers, groups or client metrics to be configured, so those have nothing to show.

use std::collections::BTreeSet;
use std::sync::Arc;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::describe_configs_response::{
    DescribeConfigsResourceResult, DescribeConfigsResult, DescribeConfigsSynonym,
};
use kafka_protocol::messages::{DescribeConfigsRequest, DescribeConfigsResponse};
use kafka_protocol::protocol::StrBytes;
use replication::controller::check_topic_name;
use replication::metadata::MetadataImage;

use crate::api::dispatch::{Refused, Reply, Request};
use crate::broker::Broker;
use crate::config::{
    BrokerConfig, ConfigFilter, ConfigLayers, DescribedConfig, describe_broker,
    describe_cluster_default, describe_topic,
};
use crate::handlers::config_resource::{ConfigResourceType, Refusal};

const FIRST_WITH_TYPE_AND_DOCUMENTATION: i16 = 3;

pub(crate) fn handle(broker: &Arc<Broker>, mut request: Request) -> Result<Reply, Refused> {
    let asked: DescribeConfigsRequest = request.decode()?;
    let response = answer(&asked, request.api_version, broker.config(), &broker.image());
    request.reply(&response)
}

fn answer(
    asked: &DescribeConfigsRequest,
    version: i16,
    config: &BrokerConfig,
    image: &MetadataImage,
) -> DescribeConfigsResponse {
    let types: Option<Vec<ConfigResourceType>> =
        asked.resources.iter().map(|it| ConfigResourceType::from_id(it.resource_type)).collect();
    let describe = |resource: &DescribeConfigsResource| match &types {
        // Kafka throws on a type it does not know, and so refuses the whole request.
        None => Err(Refusal::invalid_request("a resource is of a type that does not exist")),
        Some(_) => describe_resource(resource, config, image),
    };
    let encode = |described: &DescribedConfig| encode(described, asked, version);
    // One named twice is answered once: a small request must not ask for an answer without bounds.
    let mut seen = BTreeSet::new();
    let named = asked.resources.iter().filter(|resource| seen.insert(identity(resource)));
    let results = named.map(|resource| {
        let result = DescribeConfigsResult::default()
            .with_resource_type(resource.resource_type)
            .with_resource_name(resource.resource_name.clone());
        match describe(resource) {
            // Kafka's message is empty here, not null.
            Ok(described) => result.with_configs(described.iter().map(encode).collect()),
            Err(Refusal { code, message }) => result
                .with_error_code(code.code())
                .with_error_message(Some(StrBytes::from_string(message))),
        }
    });
    DescribeConfigsResponse::default().with_results(results.collect())
}

/// The resource that is meant: brokers are named by numbers, which can be written in many ways.
fn identity(resource: &DescribeConfigsResource) -> (i8, Result<i32, &str>) {
    let name: &str = &resource.resource_name;
    match ConfigResourceType::from_id(resource.resource_type) {
        Some(ConfigResourceType::Broker) => {
            (resource.resource_type, name.parse().map_err(|_| name))
        }
        _ => (resource.resource_type, Err(name)),
    }
}

fn describe_resource(
    resource: &DescribeConfigsResource,
    config: &BrokerConfig,
    image: &MetadataImage,
) -> Result<Vec<DescribedConfig>, Refusal> {
    let keys: Option<Vec<String>> = resource
        .configuration_keys
        .as_ref()
        .map(|keys| keys.iter().map(ToString::to_string).collect());
    let filter = ConfigFilter::new(keys.as_deref());
    let layers = ConfigLayers::new(config, image);
    let name: &str = &resource.resource_name;
    let own_id = config.node_id.value();
    match ConfigResourceType::from_id(resource.resource_type) {
        Some(ConfigResourceType::Topic) => {
            check_topic_name(name).map_err(|error| Refusal {
                code: ResponseError::InvalidTopicException,
                message: error.to_string(),
            })?;
            let unknown =
                || Refusal { code: ResponseError::UnknownTopicOrPartition, message: String::new() };
            let topic = image.topic_by_name(name).ok_or_else(unknown)?;
            Ok(describe_topic(&topic.configs, layers, filter))
        }
        Some(ConfigResourceType::Broker) if name.is_empty() => {
            Ok(describe_cluster_default(image.cluster_configs(), filter))
        }
        Some(ConfigResourceType::Broker) => match name.parse::<i32>() {
            Ok(id) if id == own_id => Ok(describe_broker(layers, filter)),
            Ok(id) => Err(Refusal::invalid_request(format!(
                "Unexpected broker id, expected {own_id} or empty string, but received {id}"
            ))),
            Err(_) => Err(Refusal::invalid_request(format!(
                "Broker id must be an integer, but it is: {name}"
            ))),
        },
        Some(ConfigResourceType::BrokerLogger) => match name.parse::<i32>() {
            Ok(id) if id == own_id => Ok(Vec::new()),
            Ok(id) => Err(Refusal::invalid_request(format!(
                "Unexpected broker id, expected {own_id} but received {id}"
            ))),
            Err(_) if name.is_empty() => {
                Err(Refusal::invalid_request("Broker id must not be empty"))
            }
            Err(_) => Err(Refusal::invalid_request(format!(
                "Broker id must be an integer, but it is: {name}"
            ))),
        },
        Some(ConfigResourceType::Group) if name.is_empty() => {
            Err(Refusal::invalid_request("Group name must not be empty"))
        }
        Some(ConfigResourceType::ClientMetrics) if name.is_empty() => {
            Err(Refusal::invalid_request("Client metrics subscription name must not be empty"))
        }
        Some(ConfigResourceType::Group | ConfigResourceType::ClientMetrics) => Ok(Vec::new()),
        None => Err(Refusal::invalid_request("there is no such type of resource")),
    }
}

fn encode(
    described: &DescribedConfig,
    asked: &DescribeConfigsRequest,
    version: i16,
) -> DescribeConfigsResourceResult {
    let mut synonyms = Vec::new();
    if asked.include_synonyms {
        synonyms.extend(described.synonyms.iter().map(|synonym| {
            DescribeConfigsSynonym::default()
                .with_name(StrBytes::from_static_str(synonym.name))
                .with_value(Some(StrBytes::from_string(synonym.value.clone())))
                .with_source(synonym.source.id())
        }));
    }
    let result = DescribeConfigsResourceResult::default()
        .with_name(StrBytes::from_static_str(described.name))
        .with_value(described.value.clone().map(StrBytes::from_string))
        .with_read_only(described.is_read_only)
        .with_config_source(described.source.id())
        .with_is_sensitive(false)
        .with_synonyms(synonyms);
    if version < FIRST_WITH_TYPE_AND_DOCUMENTATION {
        return result;
    }
    let documentation =
        asked.include_documentation.then(|| StrBytes::from_static_str(described.documentation));
    result.with_config_type(described.config_type.id()).with_documentation(documentation)
}

#[cfg(test)]
mod tests {
    use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
    use kafka_protocol::protocol::Encodable;

    use super::*;
    use crate::config::{ServeFlags, load};
    use replication::identity::ClusterId;

    const TOPIC: i8 = 2;
    const BROKER: i8 = 4;

    fn asked(resources: &[(i8, &str, Option<&[&str]>)]) -> DescribeConfigsRequest {
        let resources = resources.iter().map(|(kind, name, keys)| {
            let keys = keys.map(|keys| {
                keys.iter().map(|key| StrBytes::from_string((*key).to_owned())).collect()
            });
            DescribeConfigsResource::default()
                .with_resource_type(*kind)
                .with_resource_name(StrBytes::from_string((*name).to_owned()))
                .with_configuration_keys(keys)
        });
        DescribeConfigsRequest::default()
            .with_resources(resources.collect())
            .with_include_synonyms(true)
    }

    fn results(request: &DescribeConfigsRequest, version: i16) -> Vec<DescribeConfigsResult> {
        let config =
            load(&ServeFlags { node_id: Some(1), ..ServeFlags::default() }, []).unwrap().config;
        let image = MetadataImage::empty(ClusterId::new("test").unwrap());
        let response = answer(request, version, &config, &image);
        // What a version lacks may not be set, or the answer cannot be sent.
        response.encode(&mut bytes::BytesMut::new(), version).unwrap();
        response.results
    }

    /// Codes and texts as Kafka 4.1 answers them.
    #[test]
    fn what_cannot_be_described_is_answered_with_kafkas_codes() {
        for (kind, name, code) in [
            (TOPIC, "nosuch", 3),
            (TOPIC, "bad/name", 17),
            (TOPIC, "", 17),
            (BROKER, "2", 42),
            (BROKER, "x", 42),
            (8, "", 42),
            (8, "2", 42),
            (16, "", 42),
            (32, "", 42),
        ] {
            let result = results(&asked(&[(kind, name, None)]), 4).remove(0);
            assert_eq!(result.error_code, code, "{kind} {name:?}");
            assert!(result.configs.is_empty());
        }
    }

    #[test]
    fn a_resource_that_is_named_many_times_is_answered_once() {
        let names = ["1", "01", "+1", "1", "2", "x", "x"];
        let request = asked(&names.map(|name| (BROKER, name, None)));
        let results = results(&request, 4);
        let answered: Vec<&str> = results.iter().map(|result| &*result.resource_name).collect();
        assert_eq!(answered, ["1", "2", "x"]);
    }

    #[test]
    fn one_unknown_type_refuses_the_whole_request() {
        let request = asked(&[(BROKER, "1", None), (99, "x", None)]);
        assert!(results(&request, 4).iter().all(|result| result.error_code == 42));
    }

    #[test]
    fn this_broker_shows_what_it_was_told_in_every_version() {
        let request = asked(&[(BROKER, "1", Some(&["node.id", "num.partitions", "no.such"]))]);
        for version in 1..=4 {
            let result = results(&request, version).remove(0);
            assert_eq!((result.error_code, result.error_message.as_deref()), (0, Some("")));
            let [node_id, num_partitions] = result.configs.as_slice() else {
                panic!("two were asked for: {:?}", result.configs)
            };
            assert_eq!(node_id.value.as_deref(), Some("1"));
            assert_eq!((node_id.config_source, node_id.read_only), (4, true));
            assert_eq!((num_partitions.config_source, num_partitions.synonyms.len()), (5, 1));
            assert_eq!(node_id.config_type, if version < 3 { 0 } else { 3 });
        }
    }

    #[test]
    fn documentation_and_synonyms_come_only_when_asked_for() {
        let one = |synonyms, documentation| {
            let request = asked(&[(BROKER, "1", Some(&["num.partitions"]))])
                .with_include_synonyms(synonyms)
                .with_include_documentation(documentation);
            results(&request, 4).remove(0).configs.remove(0)
        };
        assert!(one(false, false).documentation.is_none() && one(false, false).synonyms.is_empty());
        assert!(one(true, true).documentation.is_some() && !one(true, true).synonyms.is_empty());
    }
}
