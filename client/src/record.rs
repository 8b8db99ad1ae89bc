//! record
/// x
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {}
