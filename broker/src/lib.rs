//! The shell around the cores, and Kafka's face: sockets, tasks, request handlers, configuration.
#![forbid(unsafe_code)]

pub mod api;
pub mod broker_lifecycle;
pub mod commands;
pub mod config;
pub mod fetch_session;
pub mod handlers;
pub mod logging;
pub mod metadata_cache;
pub mod network;
pub mod purgatory;
pub mod quorum;
pub mod replica_manager;
pub mod server;
