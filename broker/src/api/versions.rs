//! The API table: the single source for ApiVersions, dispatch and `docs/api-support.md` (DESIGN D11).
//!
//! Minimum: what the `kafka-protocol` crate can decode, never higher, because old clients test exact low versions.
//! Maximum: what Apache Kafka 4.1 advertises on a client listener (kafka-facts §1.3), where it is implemented.
//! An API that is not here is not advertised, and a request for it closes the connection, as Kafka does.

use crate::api::dispatch::Handler;
use crate::handlers;
use kafka_protocol::messages::ApiKey;

/// One advertised API.
pub struct Api {
    /// Kafka's key.
    pub key: ApiKey,
    /// First version advertised, inclusive.
    pub min_version: i16,
    /// Last version advertised, inclusive.
    pub max_version: i16,
    /// First version that is really served. Only Produce differs: 0–2 are advertised because librdkafka before
    /// 2.11 stops compressing otherwise (KAFKA-18659), and refused, as Kafka does.
    pub first_served_version: i16,
    /// Serves it.
    pub handler: Handler,
    /// What a user should know of its limits; shown in `docs/api-support.md`.
    pub notes: &'static str,
}

const fn api(key: ApiKey, versions: (i16, i16), handler: Handler, notes: &'static str) -> Api {
    let (min_version, max_version) = versions;
    Api { key, min_version, max_version, first_served_version: min_version, handler, notes }
}

/// Every API we advertise, hot ones first (looked up in order), then by key.
pub static APIS: &[Api] = &[
    Api {
        key: ApiKey::Produce,
        min_version: 0,
        max_version: 13,
        first_served_version: 3,
        handler: handlers::produce::handle,
        notes: "0–2 are advertised for old librdkafka and refused, as Kafka does. A transactional id is answered with 53 until transactions exist.",
    },
    api(ApiKey::Fetch, (4, 18), handlers::fetch::handle, ""),
    api(ApiKey::ListOffsets, (1, 10), handlers::list_offsets::handle, ""),
    api(
        ApiKey::Metadata,
        (0, 13),
        handlers::metadata::handle,
        "An auto-created topic is answered with its partitions, after commit and apply.",
    ),
    api(
        ApiKey::FindCoordinator,
        (0, 6),
        handlers::find_coordinator::handle,
        "Until groups and transactions exist: 30 for groups, 53 for transactional ids. Advertised because librdkafka switches LZ4 on by it.",
    ),
    api(ApiKey::ListGroups, (0, 5), handlers::list_groups::handle, "Empty until groups exist."),
    api(ApiKey::ApiVersions, (0, 4), handlers::api_versions::handle, ""),
    api(ApiKey::CreateTopics, (2, 7), handlers::create_topics::handle, ""),
    api(ApiKey::DeleteTopics, (1, 6), handlers::delete_topics::handle, ""),
    api(ApiKey::DeleteRecords, (0, 2), handlers::delete_records::handle, ""),
    api(
        ApiKey::InitProducerId,
        (0, 5),
        handlers::init_producer_id::handle,
        "A transactional id is answered with 53 until transactions exist.",
    ),
    api(ApiKey::OffsetForLeaderEpoch, (2, 4), handlers::offset_for_leader_epoch::handle, ""),
    api(
        ApiKey::DescribeAcls,
        (1, 3),
        handlers::acls::describe,
        "No authorizer: SECURITY_DISABLED.",
    ),
    api(ApiKey::CreateAcls, (1, 3), handlers::acls::create, "No authorizer: SECURITY_DISABLED."),
    api(ApiKey::DeleteAcls, (1, 3), handlers::acls::delete, "No authorizer: SECURITY_DISABLED."),
    api(
        ApiKey::DescribeConfigs,
        (1, 4),
        handlers::describe_configs::handle,
        "Topics and brokers; loggers, groups and client metrics have nothing to configure.",
    ),
    api(
        ApiKey::AlterConfigs,
        (0, 2),
        handlers::alter_configs::handle,
        "A broker's setting that is not followed is refused; Kafka accepts any name.",
    ),
    api(ApiKey::DescribeLogDirs, (1, 4), handlers::describe_log_dirs::handle, ""),
    api(ApiKey::CreatePartitions, (0, 3), handlers::create_partitions::handle, ""),
    api(
        ApiKey::ListPartitionReassignments,
        (0, 0),
        handlers::list_partition_reassignments::handle,
        "One broker: there are none.",
    ),
    api(
        ApiKey::IncrementalAlterConfigs,
        (0, 1),
        handlers::incremental_alter_configs::handle,
        "As AlterConfigs.",
    ),
    api(
        ApiKey::DescribeClientQuotas,
        (0, 1),
        handlers::describe_client_quotas::handle,
        "There are no quotas: empty.",
    ),
    api(
        ApiKey::DescribeUserScramCredentials,
        (0, 0),
        handlers::describe_user_scram_credentials::handle,
        "There are no users.",
    ),
    api(ApiKey::DescribeCluster, (0, 2), handlers::describe_cluster::handle, ""),
    api(ApiKey::DescribeProducers, (0, 0), handlers::describe_producers::handle, ""),
    api(
        ApiKey::ListTransactions,
        (0, 2),
        handlers::list_transactions::handle,
        "Empty until transactions exist.",
    ),
    api(ApiKey::ListConfigResources, (0, 1), handlers::list_config_resources::handle, ""),
    api(ApiKey::DescribeTopicPartitions, (0, 0), handlers::describe_topic_partitions::handle, ""),
];

/// The entry of an API key as it stands on the wire.
pub fn find(api_key: i16) -> Option<&'static Api> {
    APIS.iter().find(|api| api.key as i16 == api_key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_api_is_listed_twice_and_every_range_is_decodable() {
        for (index, api) in APIS.iter().enumerate() {
            assert!(APIS[..index].iter().all(|other| other.key != api.key), "{:?} twice", api.key);
            let decodable = api.key.valid_versions();
            assert!(decodable.min <= api.first_served_version, "{:?}", api.key);
            assert!(api.max_version <= decodable.max, "{:?}", api.key);
            assert!(api.min_version <= api.first_served_version);
        }
    }

    #[test]
    fn no_minimum_is_above_what_the_crate_decodes_so_that_old_clients_stay() {
        for api in APIS {
            assert!(api.min_version <= api.key.valid_versions().min, "{:?}", api.key);
        }
    }
}
