//! Asking the controller: a decision goes to the driver's thread, its answer comes back when it is committed and applied
//! on this node.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;

use replication::controller::{
    BrokerHeartbeat, BrokerHeartbeatResponse, Controller, ControllerResult, DecisionContext,
    RegisterBroker, RegisterBrokerError, StaleBrokerEpoch,
};
use replication::identity::{BrokerEpoch, BrokerId};
use replication::metadata::MetadataRecord;
use replication::quorum::ProposeError;
use tokio::sync::oneshot;

/// Decisions that may wait for the driver; more are refused, so that a flood of requests costs no memory without bound.
const MAX_QUEUED_DECISIONS: usize = 4096;

/// Why a submitted decision has no result.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SubmitError<E> {
    /// The controller said no; nothing has changed.
    #[error("{0}")]
    Refused(E),
    /// The controller did not answer.
    #[error(transparent)]
    Unavailable(#[from] ControllerUnavailable),
}

/// Why the controller did not answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ControllerUnavailable {
    /// This node is not the active controller. Nothing has changed.
    #[error("this node is not the active controller")]
    NotActive {
        /// Who may be.
        leader: Option<BrokerId>,
    },
    /// Too much waits already. Nothing has changed; try again.
    #[error("the controller has too much to do")]
    Overloaded,
    /// The change is larger than one entry of the metadata log may be. Nothing has changed.
    #[error("the change takes {bytes} bytes, more than one entry of the metadata log may have")]
    TooLarge {
        /// Its size.
        bytes: usize,
    },
    /// This node lost the lead before the commit: the change may happen yet, or never.
    #[error("the controller lost its leadership; whether the change will happen is not known")]
    LostLeadership,
    /// The broker is stopping, or its metadata log has failed: the change may have happened.
    #[error("the controller has stopped")]
    Stopped,
}

impl ControllerUnavailable {
    pub(super) fn of(error: ProposeError) -> ControllerUnavailable {
        match error {
            ProposeError::NotActive { leader } => {
                ControllerUnavailable::NotActive { leader: leader.map(|leader| leader.node_id()) }
            }
            ProposeError::TooLarge { bytes } => ControllerUnavailable::TooLarge { bytes },
            ProposeError::TooManyUncommitted => ControllerUnavailable::Overloaded,
        }
    }
}

/// What reaches the driver's thread.
pub(super) enum Event {
    Submitted(Box<dyn Submission>),
    Stop,
}

/// A sign of life of a broker, for the controller's sessions.
#[derive(Clone, Copy, Debug)]
pub(super) struct Contact {
    pub(super) broker_id: BrokerId,
    pub(super) metadata_index: u64,
}

/// How a decision's asker hears of its fate: the index of the entry that carries it (of the latest one, if it needed none), once
/// that is applied.
pub(super) type Answer = Box<dyn FnOnce(Result<u64, ControllerUnavailable>) + Send>;

/// A decision, its types forgotten.
pub(super) trait Submission: Send {
    fn contact(&self) -> Option<Contact>;
    /// Decides. The records, and whom to tell.
    fn decide(
        self: Box<Self>,
        controller: &Controller,
        context: &DecisionContext,
    ) -> (Vec<MetadataRecord>, Answer);
    fn refuse(self: Box<Self>, reason: ControllerUnavailable);
}

struct Decision<T, E, F> {
    contact: Option<Contact>,
    decide: F,
    reply: oneshot::Sender<Result<(T, u64), SubmitError<E>>>,
}

impl<T, E, F> Submission for Decision<T, E, F>
where
    T: Send + 'static,
    E: Send + 'static,
    F: FnOnce(&Controller, &DecisionContext) -> Result<ControllerResult<T>, E> + Send,
{
    fn contact(&self) -> Option<Contact> {
        self.contact
    }

    fn decide(
        self: Box<Self>,
        controller: &Controller,
        context: &DecisionContext,
    ) -> (Vec<MetadataRecord>, Answer) {
        let Decision { decide, reply, .. } = *self;
        let (records, outcome) = match decide(controller, context) {
            Ok(ControllerResult { records, response }) => (records, Ok(response)),
            Err(error) => (Vec::new(), Err(error)),
        };
        let answer: Answer = Box::new(move |committed| {
            // Who asked may have gone away: a closed connection, a timeout.
            let _ = reply.send(match (committed, outcome) {
                (Ok(index), Ok(response)) => Ok((response, index)),
                (Ok(_), Err(error)) => Err(SubmitError::Refused(error)),
                (Err(unavailable), _) => Err(SubmitError::Unavailable(unavailable)),
            });
        });
        (records, answer)
    }

    fn refuse(self: Box<Self>, reason: ControllerUnavailable) {
        let _ = self.reply.send(Err(SubmitError::Unavailable(reason)));
    }
}

/// The way to the controller, for handlers and the broker's lifecycle. Cheap to clone.
#[derive(Clone, Debug)]
pub struct ControllerHandle {
    events: mpsc::Sender<Event>,
    queued: Arc<AtomicUsize>,
    node_id: BrokerId,
}

impl ControllerHandle {
    pub(super) fn new(events: mpsc::Sender<Event>, node_id: BrokerId) -> ControllerHandle {
        ControllerHandle { events, queued: Arc::default(), node_id }
    }

    /// The node whose controller this is.
    pub fn node_id(&self) -> BrokerId {
        self.node_id
    }

    /// Has the active controller decide, and answers when the decision is committed **and** applied here: its listener has
    /// taken it and readers see it. A refusal, too, waits until all that it may rest on is committed and applied.
    ///
    /// `decide` runs on the quorum's thread, alone; it must not block.
    ///
    /// # Errors
    /// See [`SubmitError`].
    pub async fn submit<T, E>(
        &self,
        decide: impl FnOnce(&Controller, &DecisionContext) -> Result<ControllerResult<T>, E>
        + Send
        + 'static,
    ) -> Result<T, SubmitError<E>>
    where
        T: Send + 'static,
        E: Send + 'static,
    {
        self.enqueue(None, decide).await.map(|(response, _)| response)
    }

    /// Registers a broker's process; answers with its epoch and whether it is fenced yet.
    ///
    /// # Errors
    /// See [`RegisterBrokerError`].
    pub async fn register_broker(
        &self,
        request: RegisterBroker,
    ) -> Result<(BrokerEpoch, bool), SubmitError<RegisterBrokerError>> {
        let contact = Contact { broker_id: request.broker_id, metadata_index: 0 };
        let decide = move |controller: &Controller, context: &DecisionContext| {
            controller.register_broker(context, &request)
        };
        let (registered, index) = self.enqueue(Some(contact), decide).await?;
        Ok((registered.broker_epoch_at(index), registered.is_fenced))
    }

    /// Takes a broker's sign of life.
    ///
    /// # Errors
    /// See [`StaleBrokerEpoch`].
    pub async fn broker_heartbeat(
        &self,
        request: BrokerHeartbeat,
    ) -> Result<BrokerHeartbeatResponse, SubmitError<StaleBrokerEpoch>> {
        let BrokerHeartbeat { broker_id, metadata_index, .. } = request;
        let contact = Contact { broker_id, metadata_index };
        let decide = move |controller: &Controller, _: &DecisionContext| {
            controller.broker_heartbeat(&request)
        };
        self.enqueue(Some(contact), decide).await.map(|(response, _)| response)
    }

    async fn enqueue<T, E>(
        &self,
        contact: Option<Contact>,
        decide: impl FnOnce(&Controller, &DecisionContext) -> Result<ControllerResult<T>, E>
        + Send
        + 'static,
    ) -> Result<(T, u64), SubmitError<E>>
    where
        T: Send + 'static,
        E: Send + 'static,
    {
        let _place = Place::take(&self.queued).ok_or(ControllerUnavailable::Overloaded)?;
        let (reply, answer) = oneshot::channel();
        self.events
            .send(Event::Submitted(Box::new(Decision { contact, decide, reply })))
            .map_err(|_| ControllerUnavailable::Stopped)?;
        answer.await.unwrap_or(Err(SubmitError::Unavailable(ControllerUnavailable::Stopped)))
    }

    pub(super) fn stop(&self) {
        // It may have stopped already.
        let _ = self.events.send(Event::Stop);
    }
}

/// One of [`MAX_QUEUED_DECISIONS`] places, held until the answer, or until the asker gives up.
struct Place<'a>(&'a AtomicUsize);

impl<'a> Place<'a> {
    fn take(queued: &'a AtomicUsize) -> Option<Place<'a>> {
        let place = Place(queued);
        (queued.fetch_add(1, Ordering::Relaxed) < MAX_QUEUED_DECISIONS).then_some(place)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
