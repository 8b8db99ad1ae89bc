//! Producer ids, given out to brokers in blocks (Kafka's `ProducerIdControlManager`, KIP-730).

use storage::producer_state::ProducerId;

use super::{Controller, ControllerResult, StaleBrokerEpoch};
use crate::identity::{BrokerEpoch, BrokerId};
use crate::metadata::MetadataRecord;

/// Producer ids in one block.
pub const PRODUCER_ID_BLOCK_SIZE: i64 = 1000;

/// Ids that one broker may give to producers: `first` and the [`PRODUCER_ID_BLOCK_SIZE`] - 1 after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProducerIdBlock {
    /// First id.
    pub first: ProducerId,
    /// How many.
    pub size: i64,
}

/// Why a broker gets no block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AllocateProducerIdsError {
    /// The sender must register again.
    #[error(transparent)]
    StaleBrokerEpoch(#[from] StaleBrokerEpoch),
    /// All 2^63 were given out.
    #[error("producer ids are used up")]
    Exhausted,
}

impl Controller {
    /// The next block. A block is never given twice, whether it is used or not.
    ///
    /// # Errors
    /// See [`AllocateProducerIdsError`].
    pub fn allocate_producer_ids(
        &self,
        broker_id: BrokerId,
        broker_epoch: BrokerEpoch,
    ) -> Result<ControllerResult<ProducerIdBlock>, AllocateProducerIdsError> {
        self.check_broker_epoch(broker_id, broker_epoch)?;
        let first = self.image.next_producer_id();
        let next = first.value().checked_add(PRODUCER_ID_BLOCK_SIZE).and_then(ProducerId::new);
        let next_producer_id = next.ok_or(AllocateProducerIdsError::Exhausted)?;
        let record = MetadataRecord::ProducerIds { broker_id, broker_epoch, next_producer_id };
        let response = ProducerIdBlock { first, size: PRODUCER_ID_BLOCK_SIZE };
        Ok(ControllerResult { records: vec![record], response })
    }
}
