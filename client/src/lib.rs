//! A small Kafka client for any broker that speaks Kafka's protocol.
//!
//! It depends on no server crate and is tested against Apache Kafka as well as against `highwater`. The broker's
//! commands stand on it, and the broker uses [`connection::Connection`] towards its peers.
//!
//! | module | what |
//! |---|---|
//! | [`connection`] | one TCP connection: pipelined requests, answers by correlation id, versions by ApiVersions |
//! | [`versions`] | what we speak of each API, and the choice between that and what a broker speaks |
//! | [`cluster`] | bootstrap, metadata, leaders, connections by broker id |
//! | [`record`] | record batches as a client sees them: own encoder and decoder |
//! | [`producer`] | batches, partitions, acks, idempotence |
//! | [`fetcher`] | reading partitions from their leaders |
//! | [`admin`] | topics, configs, offsets, the cluster |
//! | [`frame_check`] | what a decoder may be given: every count and length checked, of requests and responses |
//! | [`retry`] | which errors pass, and how long to wait |
//!
//! What a broker answers is as hostile as what a client sends: frames are bounded, and no answer reaches a decoder
//! before its counts were checked against its length.
#![forbid(unsafe_code)]

pub mod admin;
pub mod cluster;
pub mod connection;
pub mod error;
pub mod fetcher;
pub mod frame_check;
pub mod producer;
pub mod record;
pub mod retry;
pub mod versions;

pub use cluster::{Cluster, ClusterConfig};
pub use connection::{Connection, ConnectionConfig};
pub use error::{ClientError, ConnectionError, KafkaError};
pub use kafka_protocol::ResponseError;
