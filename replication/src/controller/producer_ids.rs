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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controller::testing::{TestCluster, broker};

    #[test]
    fn blocks_follow_each_other_without_overlap() {
        let mut cluster = TestCluster::new();
        let epoch = cluster.register(1, false);
        for expected in [0, 1000, 2000] {
            let decided = cluster.controller.allocate_producer_ids(broker(1), epoch).unwrap();
            let block = cluster.commit(decided);
            assert_eq!((block.first.value(), block.size), (expected, 1000));
        }
        assert_eq!(cluster.image().next_producer_id().value(), 3000);
    }

    #[test]
    fn a_stale_broker_gets_none() {
        let mut cluster = TestCluster::new();
        let epoch = cluster.register(1, false);
        cluster.register(1, false);
        let error = cluster.controller.allocate_producer_ids(broker(1), epoch).unwrap_err();
        assert!(matches!(error, AllocateProducerIdsError::StaleBrokerEpoch(_)));
    }

    #[test]
    fn after_the_last_block_there_is_an_error() {
        let mut cluster = TestCluster::new();
        let epoch = cluster.register(1, false);
        let last = ProducerId::new(i64::MAX - 5).unwrap();
        let records = vec![MetadataRecord::ProducerIds {
            broker_id: broker(1),
            broker_epoch: epoch,
            next_producer_id: last,
        }];
        cluster.commit(ControllerResult { records, response: () });
        let error = cluster.controller.allocate_producer_ids(broker(1), epoch).unwrap_err();
        assert_eq!(error, AllocateProducerIdsError::Exhausted);
    }
}
