//! Who is meant: brokers, their epochs, their processes, their directories, the cluster.
//!
//! Wire and disk numbers enter through the checked constructors here; -1 becomes `None` in the caller.

use std::fmt;
use std::sync::Arc;

use storage::topic_partition::TopicId;

/// A node's id (`node.id`), also as a broker. Never negative.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BrokerId(i32);

impl BrokerId {
    /// An id from a number off the wire, the disk or a config file; `None` if it is negative.
    pub const fn new(value: i32) -> Option<BrokerId> {
        if value < 0 { None } else { Some(BrokerId(value)) }
    }

    /// The number, never negative.
    pub const fn value(self) -> i32 {
        self.0
    }

    /// What stands on the wire and the disk: -1 for `None`.
    pub const fn to_wire(id: Option<BrokerId>) -> i32 {
        match id {
            Some(id) => id.0,
            None => -1,
        }
    }
}

impl fmt::Display for BrokerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Which registration of a broker: the index of its entry in the metadata log, so later ones are greater.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BrokerEpoch(i64);

impl BrokerEpoch {
    /// An epoch from a number off the wire or the disk; `None` if it is negative.
    pub const fn new(value: i64) -> Option<BrokerEpoch> {
        if value < 0 { None } else { Some(BrokerEpoch(value)) }
    }

    /// The epoch of a registration whose entry has this index in the metadata log.
    ///
    /// # Panics
    /// Past 2^63 - 1, which no log reaches.
    pub fn from_index(index: u64) -> BrokerEpoch {
        BrokerEpoch(i64::try_from(index).expect("the metadata log does not outgrow 63 bits"))
    }

    /// The number, never negative.
    pub const fn value(self) -> i64 {
        self.0
    }

    /// The index of the registration's entry in the metadata log.
    pub const fn index(self) -> u64 {
        self.0.cast_unsigned() // never negative
    }

    /// What stands on the wire and the disk: -1 for `None`.
    pub const fn to_wire(epoch: Option<BrokerEpoch>) -> i64 {
        match epoch {
            Some(epoch) => epoch.0,
            None => -1,
        }
    }
}

impl fmt::Display for BrokerEpoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Counts the changes of one partition's metadata: +1 with every record. Never negative.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PartitionEpoch(i32);

impl PartitionEpoch {
    /// The epoch of a new partition.
    pub const ZERO: PartitionEpoch = PartitionEpoch(0);

    /// An epoch from a number off the wire or the disk; `None` if it is negative.
    pub const fn new(value: i32) -> Option<PartitionEpoch> {
        if value < 0 { None } else { Some(PartitionEpoch(value)) }
    }

    /// The number, never negative.
    pub const fn value(self) -> i32 {
        self.0
    }

    /// The epoch after one more change; `None` after 2^31 - 1 of them.
    pub const fn checked_next(self) -> Option<PartitionEpoch> {
        match self.0.checked_add(1) {
            Some(next) => Some(PartitionEpoch(next)),
            None => None,
        }
    }
}

impl fmt::Display for PartitionEpoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

macro_rules! uuid {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; 16]);

        impl $name {
            /// The id with these bytes, in network order.
            pub const fn from_bytes(bytes: [u8; 16]) -> $name {
                $name(bytes)
            }

            /// The bytes, in network order.
            pub const fn as_bytes(&self) -> &[u8; 16] {
                &self.0
            }
        }

        /// Kafka's form: 22 characters of URL-safe base64.
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                TopicId::from_bytes(self.0).fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }
    };
}

uuid! {
    /// A log directory, for as long as its files exist (`directory.id` in `meta.properties`, KIP-858).
    DirectoryId
}

uuid! {
    /// One run of a broker process, drawn at its start.
    IncarnationId
}

/// The cluster's id. Kafka's are 22 characters of base64, but any text of 1 to [`ClusterId::MAX_BYTES`]
/// bytes without control characters is one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClusterId(Arc<str>);

impl ClusterId {
    /// The longest id, in bytes.
    pub const MAX_BYTES: usize = 255;

    /// The id with this text; `None` if it is empty, too long or has control characters.
    pub fn new(text: &str) -> Option<ClusterId> {
        let fits = !text.is_empty() && text.len() <= ClusterId::MAX_BYTES;
        (fits && !text.contains(char::is_control)).then(|| ClusterId(text.into()))
    }

    /// The id in Kafka's form made of 16 random bytes.
    pub fn from_uuid(bytes: [u8; 16]) -> ClusterId {
        ClusterId(TopicId::from_bytes(bytes).to_string().into())
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn negative_numbers_are_no_ids_and_no_epochs() {
        assert_eq!(BrokerId::new(-1), None);
        assert_eq!(BrokerEpoch::new(-1), None);
        assert_eq!(PartitionEpoch::new(i32::MIN), None);
        assert_eq!(BrokerId::to_wire(None), -1);
        assert_eq!(BrokerEpoch::to_wire(BrokerEpoch::new(7)), 7);
    }

    #[test]
    fn a_cluster_id_is_short_printable_text() {
        assert_eq!(ClusterId::new(""), None);
        assert_eq!(ClusterId::new("a\nb"), None);
        assert_eq!(ClusterId::new(&"x".repeat(256)), None);
        assert_eq!(ClusterId::from_uuid([0; 16]).as_str(), "AAAAAAAAAAAAAAAAAAAAAA");
        assert!(ClusterId::new("my-cluster").is_some());
    }
}
