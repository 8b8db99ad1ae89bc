//! Small text files that are replaced whole (`CheckpointFile.java`): offsets per partition, leader epochs,
//! `partition.metadata`.
//!
//! A checkpoint is written to `NAME.tmp`, synced, renamed over `NAME`, and the directory synced: after a
//! power cut there is the old content or the new one. Formats, one item a line:
//! - offsets (`recovery-point-offset-checkpoint`, `log-start-offset-checkpoint`,
//!   `replication-offset-checkpoint`): `0`, count, then `topic partition offset`;
//! - `leader-epoch-checkpoint`: `0`, count, then `epoch startOffset`;
//! - `partition.metadata`: `version: 0`, `topic_id: BASE64`.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{self, IoSlice};
use std::path::Path;

use crate::fs::{Fs, OpenMode, read_file};
use crate::leader_epoch::{EpochEntry, LeaderEpoch};
use crate::offset::Offset;
use crate::topic_partition::{TopicId, TopicPartition};

/// File with the recovery points of a log directory.
pub const RECOVERY_POINT_FILE: &str = "recovery-point-offset-checkpoint";
/// File with the log start offsets that lie past their first segment's base.
pub const LOG_START_FILE: &str = "log-start-offset-checkpoint";
/// File with the high watermarks.
pub const HIGH_WATERMARK_FILE: &str = "replication-offset-checkpoint";
/// File with a partition's leader epochs.
pub const LEADER_EPOCH_FILE: &str = "leader-epoch-checkpoint";
/// File with a partition's topic id.
pub const PARTITION_METADATA_FILE: &str = "partition.metadata";

/// No checkpoint of ours is larger: 64 MiB are more than 100,000 partitions with the longest names.
const MAX_SIZE_BYTES: u64 = 64 << 20;

/// A checkpoint that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// The disk's answer.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The content is none.
    #[error("line {line} is {found:?}, not {expected}")]
    Malformed {
        /// Number of the line, from 1.
        line: usize,
        /// What it should have been.
        expected: &'static str,
        /// What it is, cut to some characters.
        found: String,
    },
}

/// Replaces the file at `path`, in a directory that exists. Until that is synced a power cut may bring the old content back.
///
/// # Errors
/// What the disk says. The old content is then still there, or the new one is whole.
pub(crate) fn write_renamed(fs: &dyn Fs, path: &Path, content: &[u8]) -> io::Result<()> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".tmp");
    let temporary = Path::new(&temporary);
    let file = fs.open(temporary, OpenMode::Truncate)?;
    file.write_at(&mut [IoSlice::new(content)], 0)?;
    file.sync_data()?;
    fs.rename(temporary, path)
}

/// Offsets by partition, as text.
pub fn encode_offsets<'a>(
    offsets: impl ExactSizeIterator<Item = (&'a TopicPartition, Offset)>,
) -> String {
    let mut text = format!("0\n{}\n", offsets.len());
    for (partition, offset) in offsets {
        let _ = writeln!(text, "{} {} {offset}", partition.topic, partition.partition);
    }
    text
}

/// Leader epochs, oldest first, as text.
pub fn encode_epochs(entries: &[EpochEntry]) -> String {
    let mut text = format!("0\n{}\n", entries.len());
    for entry in entries {
        let _ = writeln!(text, "{} {}", entry.epoch, entry.start_offset);
    }
    text
}

/// The content of a `partition.metadata`.
pub fn encode_partition_metadata(topic_id: TopicId) -> String {
    format!("version: 0\ntopic_id: {topic_id}\n")
}

fn malformed(line: usize, expected: &'static str, found: &str) -> CheckpointError {
    CheckpointError::Malformed { line, expected, found: found.chars().take(64).collect() }
}

/// The content, or `None` without the file.
fn read_text(fs: &dyn Fs, path: &Path) -> Result<Option<String>, CheckpointError> {
    match read_file(fs, path, MAX_SIZE_BYTES) {
        Ok(bytes) => match String::from_utf8(bytes) {
            Ok(text) => Ok(Some(text)),
            Err(_) => Err(malformed(1, "text", "bytes that are not UTF-8")),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// The items of a file of version 0, each parsed by `parse`.
fn items<T>(
    text: &str,
    expected: &'static str,
    parse: impl Fn(&str) -> Option<T>,
) -> Result<Vec<T>, CheckpointError> {
    let mut lines = text.lines();
    let version = lines.next().unwrap_or("");
    if version.trim() != "0" {
        return Err(malformed(1, "version 0", version));
    }
    let count_line = lines.next().unwrap_or("");
    let count: usize =
        count_line.trim().parse().map_err(|_| malformed(2, "a count", count_line))?;
    let mut found = Vec::new();
    for (at, line) in lines.enumerate() {
        found.push(parse(line).ok_or_else(|| malformed(at + 3, expected, line))?);
    }
    if found.len() != count {
        return Err(malformed(2, "the number of lines that follow", count_line));
    }
    Ok(found)
}

/// Reads offsets by partition; without the file there are none.
///
/// # Errors
/// A malformed file, or what the disk says.
pub fn read_offsets(
    fs: &dyn Fs,
    path: &Path,
) -> Result<BTreeMap<TopicPartition, Offset>, CheckpointError> {
    let Some(text) = read_text(fs, path)? else { return Ok(BTreeMap::new()) };
    let parsed = items(&text, "`topic partition offset`", |line| {
        let mut words = line.split_whitespace();
        let topic = words.next()?;
        let partition: i32 = words.next()?.parse().ok().filter(|partition| *partition >= 0)?;
        let offset = Offset::new(words.next()?.parse().ok()?)?;
        words.next().is_none().then(|| (TopicPartition::new(topic, partition), offset))
    })?;
    Ok(parsed.into_iter().collect())
}

/// Reads leader epochs; without the file there are none.
///
/// # Errors
/// A malformed file, or what the disk says.
pub fn read_epochs(fs: &dyn Fs, path: &Path) -> Result<Vec<EpochEntry>, CheckpointError> {
    let Some(text) = read_text(fs, path)? else { return Ok(Vec::new()) };
    items(&text, "`epoch startOffset`", |line| {
        let mut words = line.split_whitespace();
        let epoch = LeaderEpoch::new(words.next()?.parse().ok()?)?;
        let start_offset = Offset::new(words.next()?.parse().ok()?)?;
        words.next().is_none().then_some(EpochEntry { epoch, start_offset })
    })
}

/// Reads a `partition.metadata`; `None` without the file.
///
/// # Errors
/// A malformed file, or what the disk says.
pub fn read_partition_metadata(
    fs: &dyn Fs,
    path: &Path,
) -> Result<Option<TopicId>, CheckpointError> {
    let Some(text) = read_text(fs, path)? else { return Ok(None) };
    let mut lines = text.lines();
    let version = lines.next().unwrap_or("");
    if version.trim() != "version: 0" {
        return Err(malformed(1, "`version: 0`", version));
    }
    let id_line = lines.next().unwrap_or("");
    let id = id_line.strip_prefix("topic_id:").and_then(|id| id.trim().parse().ok());
    match id {
        Some(id) => Ok(Some(id)),
        None => Err(malformed(2, "`topic_id: ID`", id_line)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs::simulated::{Crash, SimulatedFs};
    use proptest::prelude::*;

    fn write_atomically(fs: &SimulatedFs, path: &Path, content: &[u8]) -> io::Result<()> {
        write_renamed(fs, path, content)?;
        fs.sync_dir(Path::new("/"))
    }

    fn write(fs: &SimulatedFs, text: &str) {
        write_atomically(fs, Path::new("/c"), text.as_bytes()).unwrap();
    }

    #[test]
    fn offsets_come_back_as_written() {
        let fs = SimulatedFs::new();
        let offsets = BTreeMap::from([
            (TopicPartition::new("a", 0), Offset::ZERO),
            (TopicPartition::new("a-b.c_d", 12), Offset::MAX),
        ]);
        write(&fs, &encode_offsets(offsets.iter().map(|(partition, offset)| (partition, *offset))));
        assert_eq!(read_offsets(&fs, Path::new("/c")).unwrap(), offsets);
        assert!(read_offsets(&fs, Path::new("/absent")).unwrap().is_empty());
    }

    #[test]
    fn epochs_and_topic_ids_come_back_as_written() {
        let fs = SimulatedFs::new();
        let entries = [EpochEntry {
            epoch: LeaderEpoch::new(3).unwrap(),
            start_offset: Offset::new(17).unwrap(),
        }];
        write(&fs, &encode_epochs(&entries));
        assert_eq!(read_epochs(&fs, Path::new("/c")).unwrap(), entries);
        let id = TopicId::from_bytes(*b"0123456789abcdef");
        write(&fs, &encode_partition_metadata(id));
        assert_eq!(read_partition_metadata(&fs, Path::new("/c")).unwrap(), Some(id));
        assert_eq!(read_partition_metadata(&fs, Path::new("/absent")).unwrap(), None);
    }

    #[test]
    fn a_malformed_file_is_an_error_that_names_the_line() {
        let fs = SimulatedFs::new();
        for (text, line) in [
            ("", 1),
            ("1\n0\n", 1),
            ("0\nx\n", 2),
            ("0\n2\na 0 1\n", 2),
            ("0\n1\na 0 -1\n", 3),
            ("0\n1\na 0 1 2\n", 3),
            ("0\n18446744073709551615\n", 2),
        ] {
            write(&fs, text);
            match read_offsets(&fs, Path::new("/c")) {
                Err(CheckpointError::Malformed { line: found, .. }) => {
                    assert_eq!(found, line, "{text:?}");
                }
                other => panic!("{text:?} gave {other:?}"),
            }
        }
    }

    #[test]
    fn a_crash_at_any_step_leaves_the_old_content_or_the_new() {
        for crash in [Crash::Process, Crash::PowerLosingUnsynced] {
            for stop in 0..8 {
                let fs = SimulatedFs::new();
                write(&fs, "old");
                fs.stop_after_changes(stop);
                let done = write_atomically(&fs, Path::new("/c"), b"new").is_ok();
                fs.crash(crash);
                let text = read_text(&fs, Path::new("/c")).unwrap().unwrap();
                assert!(text == "new" || text == "old" && !done, "{crash:?} at {stop}: {text}");
            }
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_harm(text in "[0-9a-z \n:-]{0,80}") {
            let fs = SimulatedFs::new();
            write(&fs, &text);
            let _ = read_offsets(&fs, Path::new("/c"));
            let _ = read_epochs(&fs, Path::new("/c"));
            let _ = read_partition_metadata(&fs, Path::new("/c"));
        }
    }
}
