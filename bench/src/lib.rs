//! The measuring side: each broker in turn on loopback with a fresh directory, the same clients, ratios from one run.
//!
//! - `machine` what this machine is, and two figures of it that no broker can better
//! - `process` what the system accounts to a process: CPU, memory, its start and its end
//! - `broker` how each broker is started, made ready and stopped
//! - `wire` a blocking client of one connection, for topics and the first acknowledged record
//! - `load` librdkafka under load, driven from here
//! - `replay` requests encoded once, sent and read raw
//! - `rows` what is measured, a function each · `schedule` in which order
//! - `results` JSON lines, from which a run resumes · `table` medians, ranges, ratios, targets
//! - `report` and `charts` make the page and the pictures that are kept

#![forbid(unsafe_code)]

pub mod broker;
pub mod charts;
pub mod failure;
pub mod load;
pub mod machine;
pub mod process;
pub mod replay;
pub mod report;
pub mod results;
pub mod rows;
pub mod schedule;
pub mod table;
pub mod target;
pub mod wire;
