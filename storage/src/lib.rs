//! One machine's disk: record batches in Kafka's own files. Synchronous; knows no request, no socket.
#![deny(unsafe_code)]

pub mod checkpoint;
pub mod compression;
pub mod crc32c;
pub mod flush;
pub mod fs;
pub mod index_file;
pub mod instant;
pub mod leader_epoch;
pub mod log;
pub mod log_dir;
pub mod log_manager;
pub mod log_validator;
pub mod offset;
pub mod offset_index;
pub mod producer_state;
pub mod record;
pub mod record_batch;
pub mod recovery;
pub mod retention;
pub mod segment;
pub mod segments;
pub(crate) mod tail_cache;
pub mod time_index;
pub mod timestamp;
pub mod topic_partition;
pub mod transaction_index;
