//! DescribeClientQuotas, v0–v1 (KIP-546). Nobody can set a quota, so none match; a filter that makes no sense is refused as
//! Kafka refuses it.

use crate::api::dispatch::{Refused, Reply, Request};
use crate::broker::Broker;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::describe_client_quotas_request::ComponentData;
use kafka_protocol::messages::{DescribeClientQuotasRequest, DescribeClientQuotasResponse};
use kafka_protocol::protocol::StrBytes;
use std::sync::Arc;

const EXACT: i8 = 0;
const DEFAULT: i8 = 1;
const ANY: i8 = 2;

pub(crate) fn handle(_: &Arc<Broker>, mut request: Request) -> Result<Reply, Refused> {
    let asked: DescribeClientQuotasRequest = request.decode()?;
    let response = DescribeClientQuotasResponse::default();
    request.reply(&match check(&asked.components) {
        Ok(()) => {
            response.with_error_message(Some(StrBytes::default())).with_entries(Some(Vec::new()))
        }
        Err((error, message)) => response
            .with_error_code(error.code())
            .with_error_message(Some(StrBytes::from_string(message)))
            .with_entries(None),
    })
}

fn check(components: &[ComponentData]) -> Result<(), (ResponseError, String)> {
    let invalid = |message: String| Err((ResponseError::InvalidRequest, message));
    for (index, component) in components.iter().enumerate() {
        let entity = &component.entity_type;
        if components[..index].iter().any(|other| other.entity_type == *entity) {
            return invalid(format!("entity type {entity:?} stands twice in the filter"));
        }
        match (component.match_type, component._match.is_some()) {
            (EXACT, true) | (DEFAULT | ANY, false) => {}
            (EXACT, false) => return invalid("an exact match needs a name".into()),
            (DEFAULT | ANY, true) => {
                return invalid("only an exact match takes a name".into());
            }
            (other, _) => return invalid(format!("match type {other} does not exist")),
        }
        match entity.as_str() {
            "user" | "client-id" => {}
            "ip" if components.len() == 1 => {}
            "ip" => return invalid("ip goes with no other entity type".into()),
            "" => return invalid("an empty entity type".into()),
            other => {
                let message = format!("entity type {other:?} does not exist");
                return Err((ResponseError::UnsupportedVersion, message));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn component(entity: &str, match_type: i8, name: Option<&str>) -> ComponentData {
        ComponentData::default()
            .with_entity_type(StrBytes::from_string(entity.into()))
            .with_match_type(match_type)
            .with_match(name.map(|name| StrBytes::from_string(name.into())))
    }

    fn code(components: &[ComponentData]) -> i16 {
        check(components).err().map_or(0, |(error, _)| error.code())
    }

    #[test]
    fn a_filter_that_makes_no_sense_is_refused() {
        assert_eq!(code(&[]), 0);
        assert_eq!(
            code(&[component("user", EXACT, Some("x")), component("client-id", ANY, None)]),
            0
        );
        assert_eq!(code(&[component("ip", DEFAULT, None)]), 0);
        assert_eq!(code(&[component("user", EXACT, None)]), 42);
        assert_eq!(code(&[component("user", ANY, Some("x"))]), 42);
        assert_eq!(code(&[component("user", 9, None)]), 42);
        assert_eq!(code(&[component("user", ANY, None), component("user", ANY, None)]), 42);
        assert_eq!(code(&[component("ip", ANY, None), component("user", ANY, None)]), 42);
        assert_eq!(code(&[component("", ANY, None)]), 42);
        assert_eq!(code(&[component("planet", ANY, None)]), 35);
    }
}
