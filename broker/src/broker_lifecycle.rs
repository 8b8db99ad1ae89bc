//! This broker's seat in the cluster: registered, unfenced, leaving (DESIGN D1; kafka-facts 5.9).
//!
//! ```text
//!   register ──▶ fenced ── heartbeat: own registration applied ──▶ serving ── SIGTERM: controlled shutdown ──▶ may stop
//!          └──── alone in its quorum, in one entry ────────────────▶
//! ```
//!
//! The controller is in this process for now, and so needs no sign of life between these steps: there is no heartbeat while
//! the broker serves. With a cluster, heartbeats get their own thread.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use replication::controller::{
    BrokerHeartbeat, BrokerHeartbeatResponse, RegisterBroker, RegisterBrokerError, StaleBrokerEpoch,
};
use replication::identity::{BrokerEpoch, BrokerId, IncarnationId};
use replication::metadata::MetadataImage;

use crate::quorum::{ControllerHandle, ControllerUnavailable, SubmitError};

/// How long a stopping broker waits for the controller (DESIGN §5).
pub const CONTROLLED_SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(2);

/// Pause between heartbeats while the controller has something to wait for.
const HEARTBEAT_RETRY: Duration = Duration::from_millis(50);

/// Draws the id of this run of the process.
pub fn new_incarnation_id() -> IncarnationId {
    IncarnationId::from_bytes(rand::random())
}

/// Why the broker has no seat, or has lost it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LifecycleError {
    /// The controller refuses the registration.
    #[error(transparent)]
    Refused(#[from] RegisterBrokerError),
    /// Another process has registered as this broker.
    #[error("this broker has been replaced: {0}")]
    Replaced(#[from] StaleBrokerEpoch),
    /// The controller does not answer.
    #[error(transparent)]
    Unavailable(#[from] ControllerUnavailable),
}

impl LifecycleError {
    /// The process's exit code (DESIGN §5): 2 for a setting, 3 for fenced or an id conflict, 4 where the metadata log failed.
    pub fn exit_code(&self) -> u8 {
        match self {
            LifecycleError::Refused(
                RegisterBrokerError::InvalidListeners
                | RegisterBrokerError::UnsupportedFeature { .. },
            ) => 2,
            LifecycleError::Refused(
                RegisterBrokerError::InconsistentClusterId { .. }
                | RegisterBrokerError::DuplicateRegistration { .. },
            )
            | LifecycleError::Replaced(_) => 3,
            LifecycleError::Unavailable(_) => 4,
        }
    }
}

impl<E: Into<LifecycleError>> From<SubmitError<E>> for LifecycleError {
    fn from(error: SubmitError<E>) -> LifecycleError {
        match error {
            SubmitError::Refused(refusal) => refusal.into(),
            SubmitError::Unavailable(unavailable) => unavailable.into(),
        }
    }
}

/// How a controlled shutdown ended. The broker stops in any case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ControlledShutdown {
    /// It leads nothing any more, and everybody knows.
    Done,
    /// The controller did not answer in time, or does not know this broker any more.
    GaveUp,
}

/// A broker that is registered and unfenced.
#[derive(Debug)]
pub struct BrokerLifecycle {
    controller: ControllerHandle,
    image: Arc<ArcSwap<MetadataImage>>,
    broker_id: BrokerId,
    broker_epoch: BrokerEpoch,
}

impl BrokerLifecycle {
    /// Registers this process and waits until it may serve: its registration is committed and applied here, and it is not
    /// fenced. With [`RegisterBroker::unfence_at_once`] that is one entry of the metadata log.
    ///
    /// # Errors
    /// See [`LifecycleError`]; the broker must not start.
    pub async fn start(
        controller: ControllerHandle,
        image: Arc<ArcSwap<MetadataImage>>,
        request: RegisterBroker,
    ) -> Result<BrokerLifecycle, LifecycleError> {
        let broker_id = request.broker_id;
        let (broker_epoch, is_fenced) = controller.register_broker(request).await?;
        let lifecycle = BrokerLifecycle { controller, image, broker_id, broker_epoch };
        let mut is_fenced = is_fenced;
        while is_fenced {
            is_fenced = lifecycle.heartbeat(false).await?.is_fenced;
            if is_fenced {
                tokio::time::sleep(HEARTBEAT_RETRY).await;
            }
        }
        tracing::info!(%broker_id, %broker_epoch, "registered");
        Ok(lifecycle)
    }

    /// The epoch of this registration; it belongs into the clean-shutdown file.
    pub fn broker_epoch(&self) -> BrokerEpoch {
        self.broker_epoch
    }

    /// Asks the controller to move what this broker leads to others, and waits until it may stop, for at most `timeout`
    /// ([`CONTROLLED_SHUTDOWN_TIMEOUT`]).
    pub async fn controlled_shutdown(&self, timeout: Duration) -> ControlledShutdown {
        let leave = async {
            while !self.heartbeat(true).await?.should_shut_down {
                tokio::time::sleep(HEARTBEAT_RETRY).await;
            }
            Ok::<(), LifecycleError>(())
        };
        match tokio::time::timeout(timeout, leave).await {
            Ok(Ok(())) => ControlledShutdown::Done,
            Ok(Err(error)) => {
                tracing::warn!(%error, "no controlled shutdown");
                ControlledShutdown::GaveUp
            }
            Err(_) => {
                tracing::warn!(?timeout, "the controller did not let this broker go in time");
                ControlledShutdown::GaveUp
            }
        }
    }

    async fn heartbeat(
        &self,
        wants_shut_down: bool,
    ) -> Result<BrokerHeartbeatResponse, LifecycleError> {
        let request = BrokerHeartbeat {
            broker_id: self.broker_id,
            broker_epoch: self.broker_epoch,
            metadata_index: self.image.load().position().index,
            wants_fence: false,
            wants_shut_down,
        };
        Ok(self.controller.broker_heartbeat(request).await?)
    }
}
