//! What the cluster knows of one broker.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::identity::{BrokerEpoch, BrokerId, DirectoryId, IncarnationId};

/// Kafka's security protocols, with Kafka's numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum SecurityProtocol {
    /// 0: neither encryption nor authentication.
    Plaintext,
    /// 1: TLS.
    Ssl,
    /// 2: SASL without encryption.
    SaslPlaintext,
    /// 3: SASL over TLS.
    SaslSsl,
}

impl SecurityProtocol {
    /// Kafka's number.
    pub const fn id(self) -> u8 {
        match self {
            SecurityProtocol::Plaintext => 0,
            SecurityProtocol::Ssl => 1,
            SecurityProtocol::SaslPlaintext => 2,
            SecurityProtocol::SaslSsl => 3,
        }
    }

    /// The protocol with Kafka's number `id`.
    pub const fn from_id(id: u8) -> Option<SecurityProtocol> {
        match id {
            0 => Some(SecurityProtocol::Plaintext),
            1 => Some(SecurityProtocol::Ssl),
            2 => Some(SecurityProtocol::SaslPlaintext),
            3 => Some(SecurityProtocol::SaslSsl),
            _ => None,
        }
    }
}

/// One advertised address of a broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BrokerListener {
    /// The listener's name, as in `listeners`; unique in its broker.
    pub name: Arc<str>,
    /// Advertised host. Empty: the address that the asking client dialled.
    pub host: Arc<str>,
    /// Advertised port.
    pub port: u16,
    /// Security protocol.
    pub protocol: SecurityProtocol,
}

/// Levels of one feature that a broker can run, both inclusive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FeatureRange {
    /// Lowest level.
    pub min: i16,
    /// Highest level.
    pub max: i16,
}

/// A registered broker: one process on one directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BrokerRegistration {
    /// Its `node.id`.
    pub broker_id: BrokerId,
    /// Index of the entry that registered it.
    pub broker_epoch: BrokerEpoch,
    /// Its process.
    pub incarnation_id: IncarnationId,
    /// Its log directory.
    pub directory_id: DirectoryId,
    /// A fenced broker leads nothing, is in no ISR and is hidden from clients.
    pub is_fenced: bool,
    /// A broker in controlled shutdown leads nothing and is in no ISR, but still serves.
    pub is_in_controlled_shutdown: bool,
    /// `broker.rack`.
    pub rack: Option<Arc<str>>,
    /// Advertised addresses, in the broker's order.
    pub listeners: Vec<BrokerListener>,
    /// Features that it can run, by name.
    pub features: BTreeMap<Arc<str>, FeatureRange>,
}

impl BrokerRegistration {
    /// Whether it may lead and stand in ISRs.
    pub fn is_active(&self) -> bool {
        !self.is_fenced && !self.is_in_controlled_shutdown
    }

    /// Its address on the listener called `name`.
    pub fn listener(&self, name: &str) -> Option<&BrokerListener> {
        self.listeners.iter().find(|listener| &*listener.name == name)
    }
}
