//! From a frame to its handler: header, version, frame check, handler.

use crate::api::versions;
use crate::broker::Broker;
use crate::network::connection::ConnectionContext;
use crate::network::frame_check::{self, FrameError, RequestHeaderView};
use crate::network::response::{EncodeError, Response};
use bytes::Bytes;
use kafka_protocol::messages::ApiKey;
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion};
use std::pin::Pin;
use std::sync::Arc;

/// A handler: decodes its request, decides, and says how the answer comes.
pub type Handler = fn(&Arc<Broker>, Request) -> Result<Reply, Refused>;

/// An answer that comes later. `None` closes the connection, which only acks=0 Produce asks for.
pub type LaterResponse = Pin<Box<dyn Future<Output = Option<Response>> + Send>>;

/// How a request is answered.
pub enum Reply {
    /// Here it is.
    Now(Response),
    /// Never: acks=0.
    Nothing,
    /// When it is acknowledged; later requests of the connection are handled meanwhile.
    Waiting(LaterResponse),
    /// When it is done; the connection's next request is not read before.
    Serial(LaterResponse),
}

/// Why a connection must be closed: the protocol has no error answer for it.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// The bytes are no request.
    #[error("malformed request: {0}")]
    Frame(#[from] FrameError),
    /// An API we do not advertise.
    #[error("API key {api_key} v{api_version} is not supported")]
    Unsupported {
        /// As on the wire.
        api_key: i16,
        /// As on the wire.
        api_version: i16,
    },
    /// The frame check passed it but the decoder did not.
    #[error("malformed {api_key:?} v{api_version}: {reason}")]
    Undecodable {
        /// Of the request.
        api_key: ApiKey,
        /// Of the request.
        api_version: i16,
        /// In the decoder's words.
        reason: String,
    },
    /// A failed acks=0 Produce: closing makes the client refresh its metadata (kafka-facts §1.4).
    #[error("acks=0 produce failed: {0}")]
    UnacknowledgedProduce(String),
    /// A bug of ours.
    #[error(transparent)]
    Encode(#[from] EncodeError),
}

/// One request, checked but not decoded.
#[derive(Debug, Clone)]
pub struct Request {
    /// Where it came in.
    pub connection: ConnectionContext,
    /// Its API.
    pub api_key: ApiKey,
    /// Its version, within what we advertise.
    pub api_version: i16,
    /// To be echoed.
    pub correlation_id: i32,
    /// What the client calls itself.
    pub client_id: Option<Arc<str>>,
    body: Bytes,
}

impl Request {
    /// Decodes the body. The frame check has bounded every count in it.
    ///
    /// # Errors
    /// [`Refused::Undecodable`]; the connection is closed.
    pub fn decode<R: Decodable>(&mut self) -> Result<R, Refused> {
        let mut body = std::mem::take(&mut self.body);
        R::decode(&mut body, self.api_version).map_err(|error| Refused::Undecodable {
            api_key: self.api_key,
            api_version: self.api_version,
            reason: error.to_string(),
        })
    }

    /// The body's undecoded bytes.
    pub fn body(&self) -> &Bytes {
        &self.body
    }

    /// Encodes the answer to this request.
    ///
    /// # Errors
    /// When the answer sets a field that this version lacks: a bug.
    pub fn answer<R: Encodable + HeaderVersion>(
        &self,
        response: &R,
    ) -> Result<Response, EncodeError> {
        Response::encode(self.api_key, self.api_version, self.correlation_id, response)
    }

    /// An answer that is ready.
    ///
    /// # Errors
    /// As [`Self::answer`].
    pub fn reply<R: Encodable + HeaderVersion>(&self, response: &R) -> Result<Reply, Refused> {
        Ok(Reply::Now(self.answer(response)?))
    }

    /// An answer that needs waiting; the connection handles nothing else meanwhile.
    pub fn serial<R, F>(self, work: F) -> Result<Reply, Refused>
    where
        R: Encodable + HeaderVersion + Send,
        F: Future<Output = R> + Send + 'static,
    {
        Ok(Reply::Serial(Box::pin(async move {
            let response = work.await;
            self.answer_or_close(&response)
        })))
    }

    /// Encodes an answer where no error can be returned any more: an answer that cannot be encoded closes the
    /// connection, and is said loudly, because it is a bug.
    pub fn answer_or_close<R: Encodable + HeaderVersion>(&self, response: &R) -> Option<Response> {
        self.answer(response)
            .inspect_err(|error| tracing::error!(%error, "closing the connection"))
            .ok()
    }
}

/// Takes frames from connections.
#[derive(Debug)]
pub struct Dispatcher {
    broker: Arc<Broker>,
}

impl Dispatcher {
    /// Dispatches to `broker`.
    pub fn new(broker: Arc<Broker>) -> Dispatcher {
        Dispatcher { broker }
    }

    /// Handles one frame (without its size prefix). Does not block but for short appends to the page cache.
    ///
    /// # Errors
    /// [`Refused`]: the connection must be closed.
    pub fn dispatch(&self, connection: &ConnectionContext, frame: Bytes) -> Result<Reply, Refused> {
        let header = RequestHeaderView::parse(&frame)?;
        let (api_key, api_version) = (header.api_key, header.api_version);
        let unsupported = Refused::Unsupported { api_key, api_version };
        let Some(api) = versions::find(api_key) else { return Err(unsupported) };
        let request = Request {
            connection: connection.clone(),
            api_key: api.key,
            api_version,
            correlation_id: header.correlation_id,
            client_id: header.client_id.map(Arc::from),
            body: frame.slice(header.body_offset..),
        };
        if api_version < api.first_served_version || api_version > api.max_version {
            // The one version error that Kafka's protocol can express (KIP-511).
            return match api.key {
                ApiKey::ApiVersions => crate::handlers::api_versions::unsupported_version(request),
                _ => Err(unsupported),
            };
        }
        frame_check::check_request(api_key, api_version, request.body())?;
        tracing::trace!(
            peer = %connection.peer, api_key, api_version, correlation_id = request.correlation_id, "request"
        );
        (api.handler)(&self.broker, request)
    }
}
