//! ApiVersions, v0–v4. v3 flexible, software name and version (KIP-511) · v4 hides no feature with minimum 0.
//! The answer's header is always v0. An unknown version gets a v0 body with error 35 and our own range.

use crate::api::dispatch::{Refused, Reply, Request};
use crate::api::versions::APIS;
use crate::broker::Broker;
use crate::network::response::ResponseBuilder;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::api_versions_response::{
    ApiVersion, FinalizedFeatureKey, SupportedFeatureKey,
};
use kafka_protocol::messages::{ApiKey, ApiVersionsRequest, ApiVersionsResponse};
use kafka_protocol::protocol::{Encodable, StrBytes};
use replication::controller::supported_features;
use std::sync::Arc;

/// First version whose request names the client's software.
const FIRST_WITH_SOFTWARE_NAME: i16 = 3;
/// First version that may be shown features whose minimum is 0 (KAFKA-17492).
const FIRST_WITH_MINIMUM_ZERO: i16 = 4;

pub(crate) fn handle(broker: &Arc<Broker>, mut request: Request) -> Result<Reply, Refused> {
    let asked: ApiVersionsRequest = request.decode()?;
    let is_named = request.api_version < FIRST_WITH_SOFTWARE_NAME
        || [&asked.client_software_name, &asked.client_software_version]
            .into_iter()
            .all(|name| is_software_name(name));
    if !is_named {
        let code = ResponseError::InvalidRequest.code();
        return request.reply(&ApiVersionsResponse::default().with_error_code(code));
    }
    let image = broker.image();
    let supported = supported_features()
        .into_iter()
        .filter(|(_, range)| range.min > 0 || request.api_version >= FIRST_WITH_MINIMUM_ZERO)
        .map(|(name, range)| {
            SupportedFeatureKey::default()
                .with_name(StrBytes::from_string(name.to_string()))
                .with_min_version(range.min)
                .with_max_version(range.max)
        })
        .collect();
    let finalized = image
        .features()
        .iter()
        .filter(|(_, level)| **level > 0)
        .map(|(name, level)| {
            FinalizedFeatureKey::default()
                .with_name(StrBytes::from_string(name.to_string()))
                .with_min_version_level(*level)
                .with_max_version_level(*level)
        })
        .collect();
    request.reply(
        &ApiVersionsResponse::default()
            .with_api_keys(api_keys())
            .with_supported_features(supported)
            .with_finalized_features(finalized)
            .with_finalized_features_epoch(image.position().index as i64),
    )
}

/// The answer to a version we do not know: the client learns our range and asks again.
pub(crate) fn unsupported_version(request: Request) -> Result<Reply, Refused> {
    let response = ApiVersionsResponse::default()
        .with_error_code(ResponseError::UnsupportedVersion.code())
        .with_api_keys(
            api_keys()
                .into_iter()
                .filter(|api| api.api_key == ApiKey::ApiVersions as i16)
                .collect(),
        );
    let mut builder = ResponseBuilder::new(ApiKey::ApiVersions, 0, request.correlation_id)?;
    builder.fields(|buffer| response.encode(buffer, 0))?;
    Ok(Reply::Now(builder.finish()?))
}

fn api_keys() -> Vec<ApiVersion> {
    let mut keys: Vec<ApiVersion> = APIS
        .iter()
        .map(|api| {
            ApiVersion::default()
                .with_api_key(api.key as i16)
                .with_min_version(api.min_version)
                .with_max_version(api.max_version)
        })
        .collect();
    keys.sort_by_key(|api| api.api_key);
    keys
}

/// Letters, digits, dots and dashes, with a letter or digit at both ends (`ApiVersionsRequest.isValid`).
fn is_software_name(name: &str) -> bool {
    let is_alphanumeric = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    let bytes = name.as_bytes();
    is_alphanumeric(bytes.first())
        && is_alphanumeric(bytes.last())
        && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn software_names_are_kafkas() {
        for good in ["librdkafka", "2.11.0", "apache-kafka-java", "a"] {
            assert!(is_software_name(good), "{good}");
        }
        for bad in ["", "-a", "a.", "a b", "ä"] {
            assert!(!is_software_name(bad), "{bad}");
        }
    }
}
