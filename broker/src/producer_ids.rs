//! Producer ids for idempotent producers, out of blocks that the controller hands out (KIP-730).
//!
//! Invariant: an id is handed out once. A block is committed by the controller before an id of it leaves; what is left
//! of a block at the end of the process is lost, never reused.

use crate::quorum::{ControllerHandle, SubmitError};
use replication::controller::{AllocateProducerIdsError, ProducerIdBlock};
use replication::identity::{BrokerEpoch, BrokerId};
use std::sync::Mutex;
use storage::producer_state::ProducerId;

/// What is left of a block.
#[derive(Debug)]
struct Remaining {
    next: i64,
    end: i64,
}

/// Hands out ids.
#[derive(Debug)]
pub struct ProducerIds {
    broker_id: BrokerId,
    block: Mutex<Option<Remaining>>,
}

impl ProducerIds {
    /// No block yet.
    pub fn new(broker_id: BrokerId) -> ProducerIds {
        ProducerIds { broker_id, block: Mutex::new(None) }
    }

    /// The next id of the current block, if it has one left.
    pub fn next_in_block(&self) -> Option<ProducerId> {
        let mut block = self.block.lock().expect("no panic is survived");
        let remaining = block.as_mut().filter(|remaining| remaining.next < remaining.end)?;
        let id = ProducerId::new(remaining.next)?;
        remaining.next += 1;
        Some(id)
    }

    /// The next id, out of a new block if need be. `broker_epoch` is this broker's.
    ///
    /// # Errors
    /// No controller answers, or it knows a newer registration of this broker.
    pub async fn next(
        &self,
        controller: &ControllerHandle,
        broker_epoch: BrokerEpoch,
    ) -> Result<ProducerId, SubmitError<AllocateProducerIdsError>> {
        loop {
            if let Some(id) = self.next_in_block() {
                return Ok(id);
            }
            let broker_id = self.broker_id;
            let ProducerIdBlock { first, size } = controller
                .submit(move |controller, _| {
                    controller.allocate_producer_ids(broker_id, broker_epoch)
                })
                .await?;
            // Two requests may both bring a block; the ids of the one that is overwritten are lost, not reused.
            *self.block.lock().expect("no panic is survived") =
                Some(Remaining { next: first.value(), end: first.value() + size });
        }
    }
}
