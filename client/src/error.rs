//! What can go wrong between us and a broker. Messages are for people: they name the address, the topic, and the next step.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::ApiKey;
use kafka_protocol::protocol::VersionRange;

use crate::record::RecordError;

/// A connection failed, or one request on it did. Cheap to clone: every request that waits gets the same one.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ConnectionError {
    /// Not `host:port`.
    #[error("{address:?} is not an address: write HOST:PORT, for example 127.0.0.1:9092")]
    AddressInvalid {
        /// As given.
        address: String,
    },
    /// The name did not resolve, nobody listens, or no route leads there.
    #[error("cannot connect to {address}: {source}")]
    Connect {
        /// `host:port`.
        address: String,
        /// What the system said.
        source: Arc<io::Error>,
    },
    /// The connection, or the first request on it, took too long.
    #[error("{address} did not answer within {} ms", after.as_millis())]
    ConnectTimedOut {
        /// `host:port`.
        address: String,
        /// The limit.
        after: Duration,
    },
    /// The broker closed the connection, or we did.
    #[error("{address} closed the connection")]
    Closed {
        /// `host:port`.
        address: String,
    },
    /// Reading or writing failed.
    #[error("connection to {address} broke: {source}")]
    Broke {
        /// `host:port`.
        address: String,
        /// What the system said.
        source: Arc<io::Error>,
    },
    /// No answer in time. The connection is closed, because answers come in order.
    #[error("{address} did not answer {api:?} within {} ms", after.as_millis())]
    RequestTimedOut {
        /// `host:port`.
        address: String,
        /// The request.
        api: ApiKey,
        /// The limit.
        after: Duration,
    },
    /// What came back cannot be a Kafka broker's answer.
    #[error(
        "{address} sent something that is no Kafka answer ({reason}); is that port a Kafka listener without TLS?"
    )]
    AnswerInvalid {
        /// `host:port`.
        address: String,
        /// What is wrong with it.
        reason: String,
    },
    /// No version of this request is known to both sides.
    #[error("{address} does not speak {api:?} {ours}{}", theirs.map(|t| format!(": it knows {t}")).unwrap_or_default())]
    UnsupportedVersion {
        /// `host:port`.
        address: String,
        /// The request.
        api: ApiKey,
        /// What we speak.
        ours: VersionRange,
        /// What the broker speaks, if it knows the request at all.
        theirs: Option<VersionRange>,
    },
    /// A request of ours that its version cannot carry: a bug of the caller.
    #[error("{api:?} version {version} cannot carry this request: {reason}")]
    Unencodable {
        /// The request.
        api: ApiKey,
        /// The version.
        version: i16,
        /// What does not fit.
        reason: String,
    },
}

impl ConnectionError {
    /// Whether another connection, now or later, may fare better.
    pub fn is_retriable(&self) -> bool {
        match self {
            ConnectionError::Connect { .. }
            | ConnectionError::ConnectTimedOut { .. }
            | ConnectionError::Closed { .. }
            | ConnectionError::Broke { .. }
            | ConnectionError::RequestTimedOut { .. } => true,
            ConnectionError::AddressInvalid { .. }
            | ConnectionError::AnswerInvalid { .. }
            | ConnectionError::UnsupportedVersion { .. }
            | ConnectionError::Unencodable { .. } => false,
        }
    }

    /// Nobody listens there: the usual case of a broker that was not started.
    pub fn is_refused(&self) -> bool {
        matches!(self, ConnectionError::Connect { source, .. } if source.kind() == io::ErrorKind::ConnectionRefused)
    }
}

/// An error code from a broker, with the message that came beside it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KafkaError {
    /// The code.
    pub error: ResponseError,
    /// The broker's own words, if it had any.
    pub message: Option<String>,
}

impl KafkaError {
    /// `None` for code 0.
    pub fn from_code(code: i16, message: Option<&str>) -> Option<KafkaError> {
        let error = ResponseError::try_from_code(code)?;
        let message = message.map(str::trim).filter(|m| !m.is_empty()).map(str::to_owned);
        Some(KafkaError { error, message })
    }

    /// `Ok` for code 0.
    ///
    /// # Errors
    /// Any other code.
    pub fn check(code: i16, message: Option<&str>) -> Result<(), KafkaError> {
        KafkaError::from_code(code, message).map_or(Ok(()), Err)
    }

    /// Kafka's own name of the code, for example `UNKNOWN_TOPIC_OR_PARTITION`.
    pub fn name(&self) -> String {
        let mut name = String::new();
        let camel = match self.error {
            ResponseError::Unknown(code) => return format!("error code {code}"),
            known => known.to_string(),
        };
        for (index, letter) in camel.char_indices() {
            if letter.is_ascii_uppercase() && index > 0 {
                name.push('_');
            }
            name.push(letter.to_ascii_uppercase());
        }
        name
    }
}

impl std::error::Error for KafkaError {}

impl fmt::Display for KafkaError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.message {
            Some(message) => write!(f, "{message} ({})", self.name()),
            None => f.write_str(&self.name()),
        }
    }
}

/// An operation of this crate failed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ClientError {
    /// One connection failed.
    #[error(transparent)]
    Connection(#[from] ConnectionError),
    /// None of the addresses answered.
    #[error("no broker answers: {}", tried.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    NoBroker {
        /// The error of each address, in order.
        tried: Vec<ConnectionError>,
    },
    /// The list of bootstrap addresses is empty.
    #[error("no bootstrap address was given")]
    NoBootstrap,
    /// A broker refused.
    #[error("{subject}: {error}")]
    Kafka {
        /// What it was about: a topic, a partition, a request.
        subject: String,
        /// The broker's answer.
        error: KafkaError,
    },
    /// A broker left out what it was asked for.
    #[error("{address} did not answer for {subject}")]
    AnswerIncomplete {
        /// `host:port`.
        address: String,
        /// What is missing.
        subject: String,
    },
    /// It did not come to pass in time.
    #[error("{subject}: not within {} ms{}", after.as_millis(), last.as_ref().map(|l| format!("; last: {l}")).unwrap_or_default())]
    TimedOut {
        /// What was waited for.
        subject: String,
        /// The limit.
        after: Duration,
        /// What stood in the way last.
        last: Option<String>,
    },
    /// Records that cannot be read or written.
    #[error("{subject}: {error}")]
    Record {
        /// The partition, with the offset where that is known.
        subject: String,
        /// What is wrong.
        error: RecordError,
    },
    /// An earlier error ended this producer; nothing more is sent.
    #[error("the producer has failed: {reason}")]
    ProducerFailed {
        /// The first error.
        reason: String,
    },
}

impl ClientError {
    pub(crate) fn kafka(subject: impl Into<String>, error: KafkaError) -> ClientError {
        ClientError::Kafka { subject: subject.into(), error }
    }

    /// The broker's error code, if a broker refused.
    pub fn kafka_error(&self) -> Option<ResponseError> {
        match self {
            ClientError::Kafka { error, .. } => Some(error.error),
            _ => None,
        }
    }

    /// Whether the same thing may succeed later or elsewhere.
    pub fn is_retriable(&self) -> bool {
        match self {
            ClientError::Connection(error) => error.is_retriable(),
            ClientError::NoBroker { tried } => tried.iter().any(ConnectionError::is_retriable),
            ClientError::Kafka { error, .. } => crate::retry::is_retriable(error.error),
            ClientError::AnswerIncomplete { .. } => true,
            ClientError::NoBootstrap
            | ClientError::TimedOut { .. }
            | ClientError::Record { .. }
            | ClientError::ProducerFailed { .. } => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn error_codes_bear_kafkas_names() {
        let name = |code| KafkaError::from_code(code, None).expect("not zero").name();
        assert_eq!(name(3), "UNKNOWN_TOPIC_OR_PARTITION");
        assert_eq!(name(17), "INVALID_TOPIC_EXCEPTION");
        assert_eq!(name(9999), "error code 9999");
        assert_eq!(KafkaError::from_code(0, Some("fine")), None);
    }

    #[test]
    fn the_brokers_message_comes_before_the_name() {
        let error = KafkaError::from_code(37, Some("too few")).expect("not zero");
        assert_eq!(error.to_string(), "too few (INVALID_PARTITIONS)");
        let blank = KafkaError::from_code(37, Some("  ")).expect("not zero");
        assert_eq!(blank.to_string(), "INVALID_PARTITIONS");
    }
}
