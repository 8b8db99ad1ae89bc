//! Metadata, v0–v13. v1 rack, controller · v4 allow_auto_topic_creation · v8 authorized operations (KIP-430)
//! · v10 topic ids in the answer · v12 topics by id · v13 top-level error (KIP-1102).
//!
//! v0: an empty list asks for all topics; from v1 null does, and an empty list asks for none. A topic that is
//! auto-created is answered with its partitions, after commit and apply, where Kafka answers an error first.

pub mod answers;

use crate::api::dispatch::{Refused, Reply, Request};
use crate::authorized_operations::{self, NOT_REQUESTED};
use crate::auto_topic_creation;
use crate::broker::Broker;
use crate::network::response::{Chunk, EncodeError, ResponseBuilder};
use answers::Asked;
use bytes::{Bytes, BytesMut};
use kafka_protocol::ResponseError;
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::metadata_response::{
    MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use kafka_protocol::messages::{BrokerId, MetadataRequest, MetadataResponse, TopicName};
use kafka_protocol::protocol::{Encodable, StrBytes};
use replication::metadata::image::{MetadataImage, TopicImage};
use replication::metadata::partition_registration::PartitionRegistration;
use std::collections::BTreeSet;
use std::sync::Arc;
use storage::topic_partition::TopicId;
use uuid::Uuid;

const FIRST_WITH_NULL_FOR_ALL: i16 = 1;
const FIRST_WITH_AUTO_CREATION_FLAG: i16 = 4;
const FIRST_WITH_TOPICS_BY_ID: i16 = 12;

pub(crate) fn handle(broker: &Arc<Broker>, mut request: Request) -> Result<Reply, Refused> {
    let image = Arc::clone(&broker.image());
    let key = Asked {
        api_version: request.api_version,
        body: request.body().clone(),
        listener: Arc::clone(&request.connection.listener),
        local: request.connection.local.ip(),
    };
    if let Some(body) = broker.metadata_answers().get(image.position(), &key) {
        return Ok(reply_encoded(&request, body)?);
    }
    let asked: MetadataRequest = request.decode()?;
    if let Some(topics) = asked.topics.as_ref().filter(|topics| {
        request.api_version < FIRST_WITH_TOPICS_BY_ID
            && topics.iter().any(|topic| topic.name.is_none() || !topic.topic_id.is_nil())
    }) {
        return request.reply(&topics_by_id_too_early(topics));
    }
    let missing = topics_to_create(broker, &image, &request, &asked);
    if missing.is_empty() {
        let response = answer(broker, &image, &request, &asked, &[]);
        let body = encode(&request, &response)?;
        broker.metadata_answers().keep(image.position(), key, body.clone());
        return Ok(reply_encoded(&request, body)?);
    }
    let broker = Arc::clone(broker);
    Ok(Reply::Serial(Box::pin(async move {
        let failed = auto_topic_creation::create(
            &broker,
            missing.into_iter().map(|name| (name, None)).collect(),
        )
        .await;
        let response = answer(&broker, &broker.image(), &request, &asked, &failed);
        request.answer_or_close(&response)
    })))
}

fn encode(request: &Request, response: &MetadataResponse) -> Result<Bytes, EncodeError> {
    let mut body = BytesMut::new();
    let version = request.api_version;
    EncodeError::check(request.api_key, version, response.encode(&mut body, version))?;
    Ok(body.freeze())
}

fn reply_encoded(request: &Request, body: Bytes) -> Result<Reply, EncodeError> {
    let Request { api_key, api_version, correlation_id, .. } = *request;
    let mut builder = ResponseBuilder::new(api_key, api_version, correlation_id)?;
    builder.records(Chunk::Memory(body));
    Ok(Reply::Now(builder.finish()?))
}

/// v10 and v11 have the fields for topics by id and do not serve them: an error for the whole request.
fn topics_by_id_too_early(topics: &[MetadataRequestTopic]) -> MetadataResponse {
    let topics = topics.iter().map(|topic| {
        MetadataResponseTopic::default()
            .with_error_code(ResponseError::InvalidRequest.code())
            .with_name(Some(topic.name.clone().unwrap_or_default()))
            .with_topic_id(topic.topic_id)
            .with_topic_authorized_operations(NOT_REQUESTED)
    });
    MetadataResponse::default().with_controller_id(BrokerId(-1)).with_topics(topics.collect())
}

/// Names that are asked for, do not exist, and may be created.
fn topics_to_create(
    broker: &Broker,
    image: &MetadataImage,
    request: &Request,
    asked: &MetadataRequest,
) -> BTreeSet<String> {
    let is_allowed =
        request.api_version < FIRST_WITH_AUTO_CREATION_FLAG || asked.allow_auto_topic_creation;
    if !is_allowed || !broker.config().auto_create_topics_enable {
        return BTreeSet::new();
    }
    asked
        .topics
        .iter()
        .flatten()
        .filter_map(|topic| topic.name.as_ref())
        .filter(|name| image.topic_by_name(name).is_none())
        .map(|name| name.to_string())
        .collect()
}

/// Depends on nothing but the image, the request, its listener and the address that it dialled; see [`answers`].
fn answer(
    broker: &Broker,
    image: &MetadataImage,
    request: &Request,
    asked: &MetadataRequest,
    failed: &[(String, ResponseError)],
) -> MetadataResponse {
    let version = request.api_version;
    let brokers = broker
        .live_endpoints(image, &request.connection)
        .into_iter()
        .map(|node| {
            MetadataResponseBroker::default()
                .with_node_id(BrokerId(node.id))
                .with_host(node.host)
                .with_port(node.port)
                .with_rack(node.rack)
        })
        .collect();
    let wants_operations = asked.include_topic_authorized_operations;
    let view = TopicView { image, version, wants_operations };
    let topics = match &asked.topics {
        None => image.topics_by_name().map(|topic| view.topic(topic)).collect(),
        Some(named) if named.is_empty() && version < FIRST_WITH_NULL_FOR_ALL => {
            image.topics_by_name().map(|topic| view.topic(topic)).collect()
        }
        Some(named) => {
            // One named twice is answered once.
            let mut seen = BTreeSet::new();
            let named = named.iter().filter(|topic| seen.insert((&topic.name, topic.topic_id)));
            named.map(|topic| view.named(topic, failed)).collect()
        }
    };
    let response = MetadataResponse::default()
        .with_brokers(brokers)
        .with_cluster_id(Some(StrBytes::from_string(image.cluster_id().to_string())))
        .with_controller_id(BrokerId(broker.node_id().value()))
        .with_topics(topics);
    if asked.include_cluster_authorized_operations {
        response.with_cluster_authorized_operations(authorized_operations::CLUSTER)
    } else {
        response
    }
}

/// How topics look in this request's version.
struct TopicView<'a> {
    image: &'a MetadataImage,
    version: i16,
    wants_operations: bool,
}

impl TopicView<'_> {
    fn named(
        &self,
        asked: &MetadataRequestTopic,
        failed: &[(String, ResponseError)],
    ) -> MetadataResponseTopic {
        let id = asked.topic_id;
        if asked.name.is_none() || !id.is_nil() {
            return self.by_id(id);
        }
        let name = asked.name.clone().unwrap_or_default();
        if let Some(topic) = self.image.topic_by_name(&name) {
            return self.topic(topic);
        }
        let error = failed
            .iter()
            .find(|(failed_name, _)| **failed_name == **name)
            .map(|(_, error)| *error)
            .unwrap_or_else(|| match replication::controller::check_topic_name(&name) {
                Ok(()) => ResponseError::UnknownTopicOrPartition,
                Err(_) => ResponseError::InvalidTopicException,
            });
        self.error(Some(name), Uuid::nil(), error)
    }

    fn by_id(&self, id: Uuid) -> MetadataResponseTopic {
        match self.image.topic(TopicId::from_bytes(*id.as_bytes())) {
            Some(topic) => self.topic(topic),
            None => self.error(None, id, ResponseError::UnknownTopicId),
        }
    }

    fn error(
        &self,
        name: Option<TopicName>,
        id: Uuid,
        error: ResponseError,
    ) -> MetadataResponseTopic {
        // Null names exist from v12 on.
        let name = if self.version < FIRST_WITH_TOPICS_BY_ID {
            Some(name.unwrap_or_default())
        } else {
            name
        };
        let is_internal = name.as_ref().is_some_and(|name| crate::broker::is_internal_topic(name));
        // Without an authorizer everything may be done to a topic that is not there, too.
        let operations = match &name {
            Some(_) if self.wants_operations => authorized_operations::TOPIC,
            _ => NOT_REQUESTED,
        };
        MetadataResponseTopic::default()
            .with_error_code(error.code())
            .with_name(name)
            .with_topic_id(id)
            .with_is_internal(is_internal)
            .with_topic_authorized_operations(operations)
    }

    fn topic(&self, topic: &TopicImage) -> MetadataResponseTopic {
        let partitions =
            topic.partitions().map(|(index, partition)| self.partition(index, partition)).collect();
        let operations =
            if self.wants_operations { authorized_operations::TOPIC } else { NOT_REQUESTED };
        MetadataResponseTopic::default()
            .with_name(Some(TopicName(StrBytes::from_string(topic.name.to_string()))))
            .with_topic_id(Uuid::from_bytes(*topic.topic_id.as_bytes()))
            .with_is_internal(crate::broker::is_internal_topic(&topic.name))
            .with_partitions(partitions)
            .with_topic_authorized_operations(operations)
    }

    fn partition(
        &self,
        index: i32,
        partition: &PartitionRegistration,
    ) -> MetadataResponsePartition {
        let wire = |id: replication::identity::BrokerId| BrokerId(id.value());
        // A partition without a leader stays in the list, with its real epoch (trap 11).
        let (error, leader) = match partition.leader {
            Some(leader) => (0, leader.value()),
            None => (ResponseError::LeaderNotAvailable.code(), -1),
        };
        let offline = partition.replica_ids().filter(|id| !self.image.is_active(*id));
        let mut response = MetadataResponsePartition::default()
            .with_error_code(error)
            .with_partition_index(index)
            .with_leader_id(BrokerId(leader))
            .with_replica_nodes(partition.replica_ids().map(wire).collect())
            .with_isr_nodes(partition.isr.iter().copied().map(wire).collect());
        if self.version >= 5 {
            response = response.with_offline_replicas(offline.map(wire).collect());
        }
        if self.version >= 7 {
            response = response.with_leader_epoch(partition.leader_epoch.value());
        }
        response
    }
}
