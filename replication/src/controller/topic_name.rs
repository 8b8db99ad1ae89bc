//! Names that topics may have (Kafka's `Topic`).

/// Kafka's own metadata topic, which is no topic here either.
pub(super) const CLUSTER_METADATA_TOPIC: &str = "__cluster_metadata";

/// Most bytes of a name.
pub const MAX_TOPIC_NAME_BYTES: usize = 249;

/// Why a name is none for a topic (INVALID_TOPIC_EXCEPTION).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidTopicName {
    /// It is empty.
    #[error("a topic's name cannot be empty")]
    Empty,
    /// It is `.` or `..`, which are directories.
    #[error("a topic's name cannot be \".\" or \"..\"")]
    Dots,
    /// It would not fit a file name.
    #[error("a topic's name has at most {MAX_TOPIC_NAME_BYTES} characters, this one has {length}")]
    TooLong {
        /// Its characters.
        length: usize,
    },
    /// It has other characters than letters, digits, `.`, `_` and `-`.
    #[error(
        "a topic's name has only ASCII letters, digits, '.', '_' and '-', this one has {found:?}"
    )]
    BadCharacter {
        /// The first of them.
        found: char,
    },
    /// It differs from another topic's only in `.` and `_`, which are one in the names of metrics.
    #[error("the name collides with topic {existing}: '.' and '_' are one in the names of metrics")]
    Collision {
        /// The other topic.
        existing: String,
    },
}

/// Whether `name` may name a topic, other topics aside.
///
/// # Errors
/// See [`InvalidTopicName`].
pub fn check_topic_name(name: &str) -> Result<(), InvalidTopicName> {
    if name.is_empty() {
        return Err(InvalidTopicName::Empty);
    }
    if name == "." || name == ".." {
        return Err(InvalidTopicName::Dots);
    }
    if name.len() > MAX_TOPIC_NAME_BYTES {
        return Err(InvalidTopicName::TooLong { length: name.chars().count() });
    }
    let is_legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    match name.chars().find(|&c| !is_legal(c)) {
        Some(found) => Err(InvalidTopicName::BadCharacter { found }),
        None => Ok(()),
    }
}

/// The name with `.` as `_`, if it has either: two topics must not share it.
pub(super) fn collision_key(name: &str) -> Option<String> {
    name.contains(['.', '_']).then(|| name.replace('.', "_"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_kafkas() {
        for name in ["a", "A.b_c-9", "...", "-", &"x".repeat(249)] {
            assert_eq!(check_topic_name(name), Ok(()), "{name}");
        }
        assert_eq!(check_topic_name(""), Err(InvalidTopicName::Empty));
        assert_eq!(check_topic_name("."), Err(InvalidTopicName::Dots));
        assert_eq!(check_topic_name(".."), Err(InvalidTopicName::Dots));
        let long = check_topic_name(&"x".repeat(250));
        assert_eq!(long, Err(InvalidTopicName::TooLong { length: 250 }));
        for (name, found) in [("a/b", '/'), ("ü", 'ü'), ("a b", ' '), ("a\0", '\0')] {
            assert_eq!(check_topic_name(name), Err(InvalidTopicName::BadCharacter { found }));
        }
    }

    #[test]
    fn dots_and_underscores_collide_and_nothing_else_does() {
        assert_eq!(collision_key("a.b"), collision_key("a_b"));
        assert_eq!(collision_key("ab"), None);
        assert_ne!(collision_key("a.b"), collision_key("a.c"));
    }
}
