//! One TCP connection to one broker: requests leave in the order in which they were started, answers come back in that
//! order, many may be under way.
//!
//! A request that times out closes the connection: its answer would still be in front of all later ones, and its effect
//! is unknown either way. The first error is kept and given to every request that waits, now and later.
//!
//! Dropping the last [`Connection`] sends what was queued, waits for answers that somebody still holds an [`Answer`] for,
//! and closes.

mod driver;
mod frame;

use std::marker::PhantomData;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use kafka_protocol::ResponseError;
use kafka_protocol::messages::{ApiKey, ApiVersionsRequest, ApiVersionsResponse, RequestHeader};
use kafka_protocol::protocol::{Decodable, Encodable, Request, StrBytes, VersionRange};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout, timeout_at};

use crate::error::ConnectionError;
use crate::frame_check::{check_response, response_header_size};
use crate::versions::{BrokerVersions, client_versions};
use driver::{Outgoing, State};

/// Requests that may wait to be written before [`Connection::start`] waits itself.
const QUEUED_REQUESTS: usize = 64;

/// How to connect, and what to put up with.
#[derive(Clone, Debug)]
pub struct ConnectionConfig {
    /// What we call ourselves in every request.
    pub client_id: String,
    /// For the name lookup, the TCP handshake and the exchange of versions together.
    pub connect_timeout: Duration,
    /// From the start of a request to its answer; long polls add their own wait.
    pub request_timeout: Duration,
    /// The longest answer that is read.
    pub max_answer_size_bytes: usize,
}

impl Default for ConnectionConfig {
    fn default() -> Self {
        ConnectionConfig {
            client_id: "highwater".to_owned(),
            connect_timeout: Duration::from_secs(10),
            request_timeout: Duration::from_secs(30),
            max_answer_size_bytes: 256 << 20,
        }
    }
}

/// A connection whose versions are known. Clones are the same connection.
#[derive(Clone, Debug)]
pub struct Connection {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    config: ConnectionConfig,
    outgoing: mpsc::Sender<Outgoing>,
    state: Arc<State>,
    versions: BrokerVersions,
    next_correlation_id: AtomicI32,
}

/// The answer to a request that has been queued. Await it with [`Answer::get`]; dropping it leaves the request on its way.
#[derive(Debug)]
#[must_use = "without an answer nobody knows whether the request was served"]
pub struct Answer<R> {
    receiver: oneshot::Receiver<Bytes>,
    state: Arc<State>,
    version: i16,
    started: Instant,
    timeout: Duration,
    request: PhantomData<fn() -> R>,
}

impl Connection {
    /// Connects to `address` (`host:port`) and asks for its versions.
    ///
    /// # Errors
    /// Every [`ConnectionError`] but those of a later request.
    pub async fn open(
        address: &str,
        config: &ConnectionConfig,
    ) -> Result<Connection, ConnectionError> {
        let too_late = || ConnectionError::ConnectTimedOut {
            address: address.to_owned(),
            after: config.connect_timeout,
        };
        check_address(address)?;
        let deadline = Instant::now() + config.connect_timeout;
        let stream = timeout_at(deadline, TcpStream::connect(address))
            .await
            .map_err(|_| too_late())?
            .and_then(|stream| stream.set_nodelay(true).map(|()| stream))
            .map_err(|e| ConnectionError::Connect {
                address: address.to_owned(),
                source: Arc::new(e),
            })?;
        let mut connection = Connection::over(stream, address, config);
        let versions =
            timeout_at(deadline, connection.ask_versions()).await.map_err(|_| too_late())??;
        Arc::get_mut(&mut connection.shared).expect("nobody else has seen it yet").versions =
            versions;
        Ok(connection)
    }

    fn over(stream: TcpStream, address: &str, config: &ConnectionConfig) -> Connection {
        let (outgoing, queue) = mpsc::channel(QUEUED_REQUESTS);
        let state = Arc::new(State::new(address));
        tokio::spawn(driver::drive(stream, queue, state.clone(), config.max_answer_size_bytes));
        Connection {
            shared: Arc::new(Shared {
                config: config.clone(),
                outgoing,
                state,
                versions: BrokerVersions::default(),
                next_correlation_id: AtomicI32::new(0),
            }),
        }
    }

    /// KIP-511: the highest version first; who does not know it answers in version 0 with error 35 and its own range.
    pub(crate) async fn ask_versions(&self) -> Result<BrokerVersions, ConnectionError> {
        let request = ApiVersionsRequest::default()
            .with_client_software_name(StrBytes::from_static_str("highwater"))
            .with_client_software_version(StrBytes::from_static_str(env!("CARGO_PKG_VERSION")));
        let ours = client_versions(ApiKey::ApiVersions).expect("the table has it");
        let mut version = ours.max;
        loop {
            let response: ApiVersionsResponse = self.call_version(version, &request).await?;
            let versions = BrokerVersions::from_response(&response);
            match ResponseError::try_from_code(response.error_code) {
                None => return Ok(versions),
                Some(ResponseError::UnsupportedVersion) if version > 0 => {
                    let below = VersionRange { min: 0, max: version - 1 };
                    version = versions.choose(ApiKey::ApiVersions, below).unwrap_or(0);
                }
                Some(error) => {
                    return Err(ConnectionError::AnswerInvalid {
                        address: self.address().to_owned(),
                        reason: format!("ApiVersions answered {error}"),
                    });
                }
            }
        }
    }

    /// `host:port` as it was dialled.
    pub fn address(&self) -> &str {
        self.shared.state.address()
    }

    /// What the broker speaks.
    pub fn versions(&self) -> &BrokerVersions {
        &self.shared.versions
    }

    /// Why the connection is closed; `None` while it is open.
    pub fn closed(&self) -> Option<ConnectionError> {
        self.shared.state.closed()
    }

    /// The highest version of `R` that both sides speak.
    ///
    /// # Errors
    /// [`ConnectionError::UnsupportedVersion`] if there is none.
    pub fn version_of<R: Request>(&self) -> Result<i16, ConnectionError> {
        let api = api_key::<R>();
        let ours = client_versions(api).unwrap_or(R::VERSIONS);
        self.versions().choose(api, ours).ok_or_else(|| ConnectionError::UnsupportedVersion {
            address: self.address().to_owned(),
            api,
            ours,
            theirs: self.versions().range(api),
        })
    }

    /// Sends a request in the highest version that both sides speak, and waits for the answer.
    ///
    /// # Errors
    /// See [`ConnectionError`]; error codes inside the answer are the caller's.
    pub async fn call<R: Request>(&self, request: &R) -> Result<R::Response, ConnectionError> {
        self.call_version(self.version_of::<R>()?, request).await
    }

    /// Like [`Connection::call`] in a version of the caller's choice.
    ///
    /// # Errors
    /// As there.
    pub async fn call_version<R: Request>(
        &self,
        version: i16,
        request: &R,
    ) -> Result<R::Response, ConnectionError> {
        self.start(version, request, Duration::ZERO).await?.get().await
    }

    /// Queues a request and returns at once, or as soon as the queue has room; requests leave in the order of the calls.
    /// `wait` is how long the broker was asked to wait before it answers, and is added to the timeout.
    ///
    /// # Errors
    /// The connection is closed, or the version cannot carry the request.
    pub async fn start<R: Request>(
        &self,
        version: i16,
        request: &R,
        wait: Duration,
    ) -> Result<Answer<R>, ConnectionError> {
        let (sender, receiver) = oneshot::channel();
        self.queue(version, request, Some(sender)).await?;
        Ok(Answer {
            receiver,
            state: self.shared.state.clone(),
            version,
            started: Instant::now(),
            timeout: self.shared.config.request_timeout.saturating_add(wait),
            request: PhantomData,
        })
    }

    /// Queues a request that has no answer: Produce with acks=0.
    ///
    /// # Errors
    /// As [`Connection::start`].
    pub async fn send_unanswered<R: Request>(
        &self,
        version: i16,
        request: &R,
    ) -> Result<(), ConnectionError> {
        self.queue(version, request, None).await
    }

    async fn queue<R: Request>(
        &self,
        version: i16,
        request: &R,
        answer: Option<oneshot::Sender<Bytes>>,
    ) -> Result<(), ConnectionError> {
        if let Some(error) = self.closed() {
            return Err(error);
        }
        // The slot first, then the number: so the numbers rise in the order in which requests leave.
        let after = self.shared.config.request_timeout;
        let slot = match timeout(after, self.shared.outgoing.reserve()).await {
            Ok(Ok(slot)) => slot,
            Ok(Err(_)) => return Err(self.shared.state.closed_or_default()),
            Err(_) => {
                let address = self.address().to_owned();
                let error =
                    ConnectionError::RequestTimedOut { address, api: api_key::<R>(), after };
                self.shared.state.close(error.clone());
                return Err(error);
            }
        };
        let correlation_id = self.shared.next_correlation_id.fetch_add(1, Ordering::Relaxed);
        let frame = self.encode(version, request, correlation_id)?;
        slot.send(Outgoing { frame, correlation_id, answer });
        Ok(())
    }

    fn encode<R: Request>(
        &self,
        version: i16,
        request: &R,
        correlation_id: i32,
    ) -> Result<Bytes, ConnectionError> {
        let unencodable =
            |reason: String| ConnectionError::Unencodable { api: api_key::<R>(), version, reason };
        let header = RequestHeader::default()
            .with_request_api_key(R::KEY)
            .with_request_api_version(version)
            .with_correlation_id(correlation_id)
            .with_client_id(Some(StrBytes::from_string(self.shared.config.client_id.clone())));
        let header_version = R::header_version(version);
        let size = header
            .compute_size(header_version)
            .and_then(|h| Ok(h + request.compute_size(version)?))
            .map_err(|e| unencodable(e.to_string()))?;
        let size_on_wire =
            i32::try_from(size).map_err(|_| unencodable(format!("{size} bytes are too many")))?;
        let mut frame = BytesMut::with_capacity(4 + size);
        frame.put_i32(size_on_wire);
        header.encode(&mut frame, header_version).map_err(|e| unencodable(e.to_string()))?;
        request.encode(&mut frame, version).map_err(|e| unencodable(e.to_string()))?;
        assert_eq!(
            frame.len(),
            4 + size,
            "{:?} v{version} takes the size it computed",
            api_key::<R>()
        );
        Ok(frame.freeze())
    }
}

impl<R: Request> Answer<R> {
    /// Waits for the answer.
    ///
    /// # Errors
    /// What closed the connection; a timeout closes it too.
    pub async fn get(mut self) -> Result<R::Response, ConnectionError> {
        self.wait().await
    }

    /// Like [`Answer::get`], and may be dropped and called again while no answer has come.
    ///
    /// # Panics
    /// After it has given the answer.
    pub(crate) async fn wait(&mut self) -> Result<R::Response, ConnectionError> {
        let frame = match timeout_at(self.started + self.timeout, &mut self.receiver).await {
            Ok(Ok(frame)) => frame,
            Ok(Err(_)) => return Err(self.state.closed_or_default()),
            Err(_) => {
                let error = ConnectionError::RequestTimedOut {
                    address: self.state.address().to_owned(),
                    api: api_key::<R>(),
                    after: self.timeout,
                };
                self.state.close(error.clone());
                return Err(error);
            }
        };
        decode::<R>(frame, self.version).map_err(|reason| {
            let error = ConnectionError::AnswerInvalid {
                address: self.state.address().to_owned(),
                reason: format!("{:?} v{}: {reason}", api_key::<R>(), self.version),
            };
            self.state.close(error.clone());
            error
        })
    }
}

/// Reads the answer's header and body; `frame` starts with the header.
fn decode<R: Request>(mut frame: Bytes, version: i16) -> Result<R::Response, String> {
    let header_size = response_header_size(R::KEY, version, &frame).map_err(|e| e.to_string())?;
    frame.advance(header_size);
    // A broker that does not know our ApiVersions answers in version 0 (KIP-511).
    let is_version_0 = R::KEY == ApiKey::ApiVersions as i16
        && frame.starts_with(&ResponseError::UnsupportedVersion.code().to_be_bytes());
    let version = if is_version_0 { 0 } else { version };
    check_response(R::KEY, version, &frame).map_err(|e| e.to_string())?;
    R::Response::decode(&mut frame, version).map_err(|e| e.to_string())
}

fn api_key<R: Request>() -> ApiKey {
    ApiKey::try_from(R::KEY).expect("every request of the codec has a key of the codec")
}

fn check_address(address: &str) -> Result<(), ConnectionError> {
    let valid = address.rsplit_once(':').is_some_and(|(host, port)| {
        !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port > 0)
    });
    if valid {
        Ok(())
    } else {
        Err(ConnectionError::AddressInvalid { address: address.to_owned() })
    }
}
