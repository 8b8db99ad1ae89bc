//! IncrementalAlterConfigs, v0–v1 (KIP-339). Set, delete, append, subtract; each resource succeeds or fails by itself,
//! and what succeeds is one entry of the metadata log.

use std::convert::Infallible;
use std::sync::Arc;

use kafka_protocol::messages::incremental_alter_configs_request::{
    AlterConfigsResource, AlterableConfig,
};
use kafka_protocol::messages::incremental_alter_configs_response::AlterConfigsResourceResponse;
use kafka_protocol::messages::{IncrementalAlterConfigsRequest, IncrementalAlterConfigsResponse};
use kafka_protocol::protocol::StrBytes;
use replication::controller::{AlterConfigs, ConfigChange, ConfigOperation};

use crate::api::dispatch::{Refused, Reply, Request};
use crate::broker::Broker;
use crate::handlers::config_resource::{self, Alter, AskedChange, Refusal, named_twice};

impl AskedChange for AlterableConfig {
    fn name(&self) -> &str {
        &self.name
    }

    fn lacks_value(&self) -> bool {
        self.value.is_none()
            && ConfigOperation::from_id(self.config_operation) != Some(ConfigOperation::Delete)
    }
}

pub(crate) fn handle(broker: &Arc<Broker>, mut request: Request) -> Result<Reply, Refused> {
    let asked: IncrementalAlterConfigsRequest = request.decode()?;
    let twice = named_twice(asked.resources.iter().map(|it| (it.resource_type, &it.resource_name)));
    let own_id = broker.node_id();
    let checked: Vec<_> = asked
        .resources
        .iter()
        .map(|resource| {
            let named = (resource.resource_type, &resource.resource_name);
            let target = config_resource::target(
                Alter::Incremental,
                named,
                &resource.configs,
                &twice,
                own_id,
            )?;
            let changes: Option<Vec<ConfigChange>> = resource.configs.iter().map(change).collect();
            match changes {
                Some(changes) => Ok(target.map(|target| (target, changes))),
                None => {
                    Err(Refusal::invalid_request("there is no such operation on a configuration"))
                }
            }
        })
        .collect();
    let broker = Arc::clone(broker);
    request.serial(async move {
        let results = config_resource::alter(checked, |resources| {
            let change = AlterConfigs { resources, validate_only: asked.validate_only };
            broker.controller().submit(move |controller, _| {
                Ok::<_, Infallible>(controller.incremental_alter_configs(&change))
            })
        })
        .await;
        let responses = asked
            .resources
            .into_iter()
            .zip(results)
            .map(|(resource, result)| response(resource, result));
        IncrementalAlterConfigsResponse::default().with_responses(responses.collect())
    })
}

fn change(asked: &AlterableConfig) -> Option<ConfigChange> {
    Some(ConfigChange {
        name: Arc::from(&*asked.name),
        operation: ConfigOperation::from_id(asked.config_operation)?,
        value: asked.value.as_ref().map(|value| Arc::from(&**value)),
    })
}

fn response(
    resource: AlterConfigsResource,
    result: Result<(), Refusal>,
) -> AlterConfigsResourceResponse {
    let response = AlterConfigsResourceResponse::default()
        .with_resource_type(resource.resource_type)
        .with_resource_name(resource.resource_name)
        .with_error_message(None);
    match result {
        Ok(()) => response,
        Err(Refusal { code, message }) => response
            .with_error_code(code.code())
            .with_error_message(Some(StrBytes::from_string(message))),
    }
}
