//! The shell around the cores, and Kafka's face: sockets, tasks, request handlers, configuration.
#![forbid(unsafe_code)]

pub mod api;
pub mod authorized_operations;
pub mod auto_topic_creation;
pub mod broker;
pub mod broker_lifecycle;
pub mod clock;
pub mod commands;
pub mod config;
mod disk_readers;
pub mod fetch_session;
pub mod handlers;
pub mod logging;
pub mod network;
pub mod producer_ids;
pub mod purgatory;
pub mod quorum;
pub mod replica_manager;
pub mod server;
