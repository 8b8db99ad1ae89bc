//! producer state.
mod producer_id;
pub use producer_id::{ProducerEpoch, ProducerId, increment_sequence};
