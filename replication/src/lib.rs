//! Every decision about who has what: partitions, controller, metadata quorum. No socket, clock or entropy.
#![forbid(unsafe_code)]

pub mod controller;
pub mod identity;
pub mod metadata;
pub mod partition;
pub mod quorum;
