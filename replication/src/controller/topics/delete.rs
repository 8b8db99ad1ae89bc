//! DeleteTopics, by name or by id.

use std::collections::BTreeMap;
use std::sync::Arc;

use storage::topic_partition::TopicId;

use crate::controller::{Controller, ControllerResult};
use crate::metadata::{MetadataRecord, TopicImage};

/// One topic to delete.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TopicRef {
    /// By name.
    Name(Arc<str>),
    /// By id.
    Id(TopicId),
}

/// A deleted topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeletedTopic {
    /// Its id.
    pub topic_id: TopicId,
    /// Its name.
    pub name: Arc<str>,
}

/// Why one topic is not deleted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DeleteTopicError {
    /// The request names it twice in the same way (INVALID_REQUEST).
    #[error("the request names the topic more than once")]
    DuplicateInRequest,
    /// The request names it by its name and by its id (INVALID_REQUEST).
    #[error("the request names the topic by its name and by its id")]
    ByNameAndId {
        /// Its id; the answer goes with the name.
        topic_id: TopicId,
    },
    /// No such name (UNKNOWN_TOPIC_OR_PARTITION).
    #[error("there is no such topic")]
    UnknownTopic,
    /// No such id (UNKNOWN_TOPIC_ID).
    #[error("there is no topic with this id")]
    UnknownTopicId,
}

type Deleted = Vec<(TopicRef, Result<DeletedTopic, DeleteTopicError>)>;

impl Controller {
    /// Decides each topic by itself; all that are deleted go in one entry, with their configurations. The
    /// response has one answer a reference, in the order in which they first occur, and one for a topic that is
    /// named in both ways.
    pub fn delete_topics(&self, topics: &[TopicRef]) -> ControllerResult<Deleted> {
        let mut mentions: BTreeMap<&TopicRef, u32> = BTreeMap::new();
        let mut topic_mentions: BTreeMap<TopicId, u32> = BTreeMap::new();
        let mut order = Vec::new();
        for topic in topics {
            let count = mentions.entry(topic).or_default();
            *count += 1;
            if *count == 1 {
                order.push(topic);
            }
            if let Some(found) = self.find(topic) {
                *topic_mentions.entry(found.topic_id).or_default() += 1;
            }
        }
        let mut records = Vec::new();
        let mut response = Vec::new();
        for topic in order {
            let result = match self.find(topic) {
                _ if mentions[topic] > 1 => Err(DeleteTopicError::DuplicateInRequest),
                Some(found) if topic_mentions[&found.topic_id] > 1 => match topic {
                    TopicRef::Id(_) => continue, // answered with the name
                    TopicRef::Name(_) => {
                        Err(DeleteTopicError::ByNameAndId { topic_id: found.topic_id })
                    }
                },
                Some(found) => {
                    let topic_id = found.topic_id;
                    records.push(MetadataRecord::RemoveTopic { topic_id });
                    Ok(DeletedTopic { topic_id, name: Arc::clone(&found.name) })
                }
                None => Err(match topic {
                    TopicRef::Name(_) => DeleteTopicError::UnknownTopic,
                    TopicRef::Id(_) => DeleteTopicError::UnknownTopicId,
                }),
            };
            response.push((topic.clone(), result));
        }
        ControllerResult { records, response }
    }

    fn find(&self, topic: &TopicRef) -> Option<&Arc<TopicImage>> {
        match topic {
            TopicRef::Name(name) => self.image.topic_by_name(name),
            TopicRef::Id(topic_id) => self.image.topic(*topic_id),
        }
    }
}
