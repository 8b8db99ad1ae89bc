//! Configuration: one table of Kafka's names, types, defaults and ranges, from which come the broker's start
//! (flags over `KAFKA_*` environment variables over `server.properties` over defaults), the checks of
//! CreateTopics and the Alter requests, DescribeConfigs, and `docs/configuration.md`.
//!
//! A name that is not followed is refused or warned about, never silently accepted.

mod absent;
pub mod broker_config;
mod broker_table;
mod definition;
mod describe;
mod documentation;
mod environment;
mod error;
mod flags;
pub mod listener;
mod listeners;
mod load;
mod properties;
mod quorum;
mod resolve;
mod table;
pub mod topic_config;
mod topic_table;
mod validator;
mod value;

pub use broker_config::{BrokerConfig, TopicToCreate};
pub use definition::{Allowed, Change, ConfigDefinition, ConfigSource, ConfigType, Support, Unit};
pub use describe::{
    ConfigFilter, DescribedConfig, describe_broker, describe_cluster_default, describe_topic,
};
pub use documentation::markdown as documentation;
pub use error::{ConfigError, Origin};
pub use flags::ServeFlags;
pub use listener::{Endpoint, Listener, NamedEndpoint};
pub use load::{ConfigWarning, LoadedConfig, load};
pub use replication::metadata::ConfigMap;
pub use resolve::{ConfigLayers, ConfigSynonym, StaticConfigMap};
pub use table::ConfigTable;
pub use topic_config::{TopicConfig, TopicConfigError, validate_topic_config};
pub use validator::TableValidator;
pub use value::{ConfigValue, InvalidValue, split_list};
