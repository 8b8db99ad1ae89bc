//! Names of topics and partitions: the id that never changes (KIP-516) and the name people use.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::{NO_PAD, URL_SAFE_NO_PAD};
use base64::engine::{DecodePaddingMode, GeneralPurpose};

/// A topic's UUID. A topic that is deleted and created again gets another one.
///
/// `Display` and `FromStr` use Kafka's form: 22 characters of URL-safe base64 without padding.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicId([u8; 16]);

impl TopicId {
    /// All zeroes: Kafka's "no topic id". Never given to a topic.
    pub const ZERO: TopicId = TopicId([0; 16]);

    /// The id with these bytes, in network order.
    pub const fn from_bytes(bytes: [u8; 16]) -> TopicId {
        TopicId(bytes)
    }

    /// The bytes, in network order.
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl fmt::Display for TopicId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&URL_SAFE_NO_PAD.encode(self.0))
    }
}

impl fmt::Debug for TopicId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TopicId({self})")
    }
}

/// The text is not 16 bytes in URL-safe base64.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a topic id: 22 characters of URL-safe base64 are wanted")]
pub struct ParseTopicIdError(String);

impl FromStr for TopicId {
    type Err = ParseTopicIdError;

    fn from_str(text: &str) -> Result<TopicId, ParseTopicIdError> {
        // Java's decoder takes padding or none; so do we.
        const ENGINE: GeneralPurpose = GeneralPurpose::new(
            &base64::alphabet::URL_SAFE,
            NO_PAD.with_decode_padding_mode(DecodePaddingMode::Indifferent),
        );
        let error = || ParseTopicIdError(text.chars().take(64).collect());
        if text.len() > 24 {
            return Err(error());
        }
        let bytes = ENGINE.decode(text).map_err(|_| error())?;
        Ok(TopicId(bytes.try_into().map_err(|_| error())?))
    }
}

/// One partition of a topic, by name. Cheap to clone. `Display` is `topic-partition`, as in the name of
/// its directory.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicPartition {
    /// The topic's name.
    pub topic: Arc<str>,
    /// The partition's number in the topic, from 0.
    pub partition: i32,
}

impl TopicPartition {
    /// Partition `partition` of `topic`.
    pub fn new(topic: impl Into<Arc<str>>, partition: i32) -> TopicPartition {
        TopicPartition { topic: topic.into(), partition }
    }
}

impl fmt::Display for TopicPartition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.topic, self.partition)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::engine::general_purpose::URL_SAFE;

    #[test]
    fn a_topic_id_is_22_url_safe_characters_and_reads_back() {
        let mut bytes = [0xfb; 16];
        bytes[15] = 0xff;
        let id = TopicId::from_bytes(bytes);
        let text = id.to_string();
        assert_eq!(text.len(), 22);
        assert!(!text.contains(['+', '/', '=']), "{text}");
        assert_eq!(text.parse(), Ok(id));
        assert_eq!(URL_SAFE.encode(bytes).parse(), Ok(id), "padding is accepted");
    }

    #[test]
    fn text_that_is_not_16_bytes_of_base64_is_refused() {
        for text in ["", "AAAA", "AAAAAAAAAAAAAAAAAAAAA*", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAA"] {
            assert!(text.parse::<TopicId>().is_err(), "{text}");
        }
        assert_eq!("AAAAAAAAAAAAAAAAAAAAAA".parse(), Ok(TopicId::ZERO));
    }

    #[test]
    fn a_partition_is_shown_as_its_directory_is_named() {
        assert_eq!(TopicPartition::new("orders-eu", 3).to_string(), "orders-eu-3");
    }
}
