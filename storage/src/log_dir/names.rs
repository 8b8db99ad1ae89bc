//! Names of partition directories and of the files in them (`LocalLog.scala`, `LogFileUtils.java`).

use crate::offset::Offset;
use crate::topic_partition::TopicPartition;

/// Longest name a file system takes.
const MAX_NAME_BYTES: usize = 255;

/// Suffix of a directory whose topic was deleted.
pub(crate) const DELETE_SUFFIX: &str = "-delete";
/// Suffix of a directory that the metadata does not know.
pub(crate) const STRAY_SUFFIX: &str = "-stray";
/// Suffix of a file that is about to be removed.
pub(crate) const DELETED_FILE_SUFFIX: &str = ".deleted";

/// What the name of a directory says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DirName {
    /// A partition's.
    Partition(TopicPartition),
    /// Of a deleted topic: to be removed.
    Deleted,
    /// Set aside, because the metadata did not know it. Never touched again.
    Stray,
    /// Anything else.
    Other,
}

/// The metadata quorum's own log: no partition of ours, and never a stray one.
pub(super) const METADATA_LOG_DIR: &str = "__cluster_metadata-0";

/// Reads the name of a directory.
pub fn parse_dir_name(name: &str) -> DirName {
    if name == METADATA_LOG_DIR {
        return DirName::Other;
    }
    let unique_suffix = |rest: &str| {
        rest.rsplit_once('.').is_some_and(|(_, unique)| {
            unique.len() == 32 && unique.bytes().all(|b| b.is_ascii_hexdigit())
        })
    };
    if let Some(rest) = name.strip_suffix(DELETE_SUFFIX)
        && unique_suffix(rest)
    {
        return DirName::Deleted;
    }
    if let Some(rest) = name.strip_suffix(STRAY_SUFFIX)
        && unique_suffix(rest)
    {
        return DirName::Stray;
    }
    let Some((topic, partition)) = name.rsplit_once('-') else { return DirName::Other };
    let digits = !partition.is_empty() && partition.bytes().all(|byte| byte.is_ascii_digit());
    match partition.parse::<i32>() {
        // As we write it: without leading zeroes, so that one partition has one name.
        Ok(partition_id)
            if digits && !topic.is_empty() && partition_id.to_string() == partition =>
        {
            DirName::Partition(TopicPartition::new(topic, partition_id))
        }
        _ => DirName::Other,
    }
}

/// The name under which a partition's directory is set aside: `topic-partition.UNIQUE-SUFFIX`, the topic's
/// part cut so that it fits. `unique` tells two of the same partition apart.
pub(crate) fn set_aside_name(partition: &TopicPartition, unique: u128, suffix: &str) -> String {
    let tail = format!("-{}.{unique:032x}{suffix}", partition.partition);
    let mut topic = partition.topic.to_string();
    let mut keep = topic.len().min(MAX_NAME_BYTES - tail.len());
    while !topic.is_char_boundary(keep) {
        keep -= 1;
    }
    topic.truncate(keep);
    topic + &tail
}

/// Name of a segment's file: 20 digits and the extension (`log`, `index`, …).
pub(crate) fn segment_file_name(base_offset: Offset, extension: &str) -> String {
    format!("{:020}.{extension}", base_offset.value())
}

/// The base offset and extension in a segment file's name. `None` for other files.
pub(crate) fn parse_segment_file_name(name: &str) -> Option<(Offset, &str)> {
    let (digits, extension) = name.split_once('.')?;
    if digits.len() != 20 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    Some((Offset::new(digits.parse().ok()?)?, extension))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_name_is_split_at_its_last_dash() {
        let partition = TopicPartition::new("a-1.b", 7);
        assert_eq!(parse_dir_name("a-1.b-7"), DirName::Partition(partition));
        let others = ["a", "a-", "-3", "a-07", "a-x", "a-+7", "a-99999999999", "lost+found"];
        for other in others.into_iter().chain([METADATA_LOG_DIR]) {
            assert_eq!(parse_dir_name(other), DirName::Other, "{other}");
        }
    }

    #[test]
    fn a_name_set_aside_is_known_again_and_fits_a_file_system() {
        for topic in ["t", &"x".repeat(249)] {
            let partition = TopicPartition::new(topic, i32::MAX);
            let deleted = set_aside_name(&partition, u128::MAX, DELETE_SUFFIX);
            assert!(deleted.len() <= 255);
            assert_eq!(parse_dir_name(&deleted), DirName::Deleted);
            let stray = set_aside_name(&partition, 1, STRAY_SUFFIX);
            assert_eq!(parse_dir_name(&stray), DirName::Stray);
        }
        // A topic may be called so.
        let partition = TopicPartition::new("x-delete", 0);
        assert_eq!(parse_dir_name("x-delete-0"), DirName::Partition(partition));
    }

    #[test]
    fn segment_files_carry_twenty_digits() {
        let base = Offset::new(42).unwrap();
        let name = segment_file_name(base, "log");
        assert_eq!(name, "00000000000000000042.log");
        assert_eq!(parse_segment_file_name(&name), Some((base, "log")));
        assert_eq!(
            parse_segment_file_name("00000000000000000042.log.deleted"),
            Some((base, "log.deleted"))
        );
        for other in ["42.log", "leader-epoch-checkpoint", "99999999999999999999.log"] {
            assert_eq!(parse_segment_file_name(other), None, "{other}");
        }
    }
}
