//! Kafka's API: which requests we know, how one is dispatched, and the only file that speaks error codes.

pub mod dispatch;
pub mod documentation;
pub mod error_code;
pub mod versions;
