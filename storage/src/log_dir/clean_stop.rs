//! What a clean stop leaves behind: `.kafka_cleanshutdown`, as Kafka has it (`CleanShutdownFileHandler.java`,
//! KIP-966), and beside it `clean-shutdown-logs`: where each log started and ended, so that a start after a
//! clean stop reads no partition's directory.
//!
//! The list counts only together with `.kafka_cleanshutdown`, which is written last and removed, durably,
//! before anything is changed. Its lines, after `1` and a count:
//! `topicId topic partition logStartOffset highWatermark logEndOffset sizeBytes segments` and of the oldest segment
//! `nextOffset sizeBytes largestTimestamp`, zeroes if there is none. Version `0` ended with the log's size.

use std::fmt::Write as _;
use std::io;
use std::path::Path;

use super::{DiskError, LogDir, judge_checkpoint};
use crate::checkpoint::{CheckpointError, write_renamed};
use crate::fs::read_file;
use crate::offset::Offset;
use crate::retention::{OldestSegment, SegmentFacts};
use crate::timestamp::Timestamp;
use crate::topic_partition::{TopicId, TopicPartition};

const CLEAN_SHUTDOWN_FILE: &str = ".kafka_cleanshutdown";
const LOGS_FILE: &str = "clean-shutdown-logs";
/// Of either file; that is a list of more than half a million logs.
const MAX_SIZE_BYTES: u64 = 64 << 20;

/// One log as it was at a clean stop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoppedLog {
    /// Its topic's id.
    pub topic_id: TopicId,
    /// Its name, and that of its directory.
    pub topic_partition: TopicPartition,
    /// First offset.
    pub log_start: Offset,
    /// High watermark.
    pub high_watermark: Offset,
    /// Log end offset; all below it is synced.
    pub log_end: Offset,
    /// Bytes in its `.log` files.
    pub size_bytes: u64,
    /// For retention; `None` if there is no segment, or an earlier version stopped here.
    pub oldest: Option<OldestSegment>,
}

/// The traces of a clean stop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CleanStop {
    /// The broker epoch in which the broker stopped (KIP-966); `None` if the file does not say.
    pub broker_epoch: Option<i64>,
    /// Every log with a directory; `None` if the list is missing.
    pub logs: Option<Vec<StoppedLog>>,
}

impl LogDir {
    /// Reads the traces of a clean stop and removes them durably, so that a crash from now on counts as one.
    /// `None` after an unclean stop, and in a new directory.
    ///
    /// # Errors
    /// If the disk fails. A list that cannot be read, or is larger than 64 MiB, is as none.
    pub fn take_clean_stop(&self) -> Result<Option<CleanStop>, DiskError> {
        let path = self.path().join(CLEAN_SHUTDOWN_FILE);
        let Some(text) = self.read_trace(&path)? else { return Ok(None) };
        let logs_path = self.path().join(LOGS_FILE);
        let list = self.read_trace(&logs_path)?;
        let logs = list.as_deref().and_then(parse_logs);
        if list.is_some() && logs.is_none() {
            tracing::warn!(path = %logs_path.display(), "list cannot be read: every log is recovered");
        }
        self.judge("remove", &path, self.fs().remove_file(&path))?;
        self.sync_names()?;
        Ok(Some(CleanStop { broker_epoch: parse_broker_epoch(&text), logs }))
    }

    /// One of the two files as text; none that is too large to be ours.
    fn read_trace(&self, path: &Path) -> Result<Option<String>, DiskError> {
        match read_file(&**self.fs(), path, MAX_SIZE_BYTES) {
            Ok(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            // Retrying would not make it smaller: no broker may be kept from starting by it for ever.
            Err(error) if error.kind() == io::ErrorKind::FileTooLarge => {
                tracing::warn!(%error, "trace of a clean stop is ignored");
                Ok(Some(String::new()))
            }
            Err(error) => self.judge("read", path, Err(error)),
        }
    }

    /// Leaves the traces of a clean stop: the last thing a broker writes here.
    ///
    /// # Errors
    /// If the disk fails or is full; the stop then counts as unclean.
    pub fn leave_clean_stop(
        &self,
        broker_epoch: Option<i64>,
        logs: &[StoppedLog],
    ) -> Result<(), DiskError> {
        self.check_online()?;
        self.write_checkpoint(&self.path().join(LOGS_FILE), &encode_logs(logs))?;
        let epoch = broker_epoch.unwrap_or(-1);
        let text = format!("{{\"version\":0,\"brokerEpoch\":{epoch}}}");
        self.write_checkpoint(&self.path().join(CLEAN_SHUTDOWN_FILE), &text)
    }

    /// Writes a checkpoint of this directory durably. A full disk leaves the old one.
    ///
    /// # Errors
    /// If the disk fails or is full.
    pub(crate) fn write_checkpoint(&self, path: &Path, text: &str) -> Result<(), DiskError> {
        self.check_online()?;
        self.judge("write", path, write_renamed(&**self.fs(), path, text.as_bytes()))?;
        self.sync_names()
    }

    /// Reads a checkpoint; a malformed one takes the directory offline.
    pub(crate) fn read_checkpoint<T>(
        &self,
        path: &Path,
        read: impl FnOnce(&dyn crate::fs::Fs, &Path) -> Result<T, CheckpointError>,
    ) -> Result<T, DiskError> {
        judge_checkpoint(self, path, read(&**self.fs(), path))
    }
}

fn encode_logs(logs: &[StoppedLog]) -> String {
    let mut text = format!("1\n{}\n", logs.len());
    for log in logs {
        let (segments, next_offset, size_bytes, largest) = match &log.oldest {
            None => (0, Offset::ZERO, 0, Timestamp::ZERO),
            Some(OldestSegment { facts, is_last }) => {
                let segments = if *is_last { 1 } else { 2 };
                (segments, facts.next_offset, facts.size_bytes, facts.largest_timestamp)
            }
        };
        let _ = writeln!(
            text,
            "{} {} {} {} {} {} {} {segments} {next_offset} {size_bytes} {}",
            log.topic_id,
            log.topic_partition.topic,
            log.topic_partition.partition,
            log.log_start,
            log.high_watermark,
            log.log_end,
            log.size_bytes,
            largest.value()
        );
    }
    text
}

/// The list, whole or not at all.
fn parse_logs(text: &str) -> Option<Vec<StoppedLog>> {
    let mut lines = text.lines();
    let knows_segments = match lines.next()? {
        "0" => false,
        "1" => true,
        _ => return None,
    };
    let count: usize = lines.next()?.parse().ok()?;
    let logs: Vec<StoppedLog> =
        lines.map(|line| parse_log(line, knows_segments)).collect::<Option<_>>()?;
    (logs.len() == count).then_some(logs)
}

fn parse_log(line: &str, knows_segments: bool) -> Option<StoppedLog> {
    let mut words = line.split(' ');
    let topic_id = words.next()?.parse().ok()?;
    let topic = words.next()?;
    let partition = words.next()?.parse().ok().filter(|partition| *partition >= 0)?;
    let mut offset = || Offset::new(words.next()?.parse().ok()?);
    let (log_start, high_watermark, log_end) = (offset()?, offset()?, offset()?);
    let size_bytes = words.next()?.parse().ok()?;
    let mut oldest = None;
    if knows_segments {
        let segments: u32 = words.next()?.parse().ok()?;
        let facts = SegmentFacts {
            next_offset: Offset::new(words.next()?.parse().ok()?)?,
            size_bytes: words.next()?.parse().ok()?,
            largest_timestamp: Timestamp::new(words.next()?.parse().ok()?)?,
        };
        oldest = (segments > 0).then_some(OldestSegment { facts, is_last: segments == 1 });
    }
    let ordered = log_start <= high_watermark && high_watermark <= log_end;
    (words.next().is_none() && ordered).then(|| StoppedLog {
        topic_id,
        topic_partition: TopicPartition::new(topic, partition),
        log_start,
        high_watermark,
        log_end,
        size_bytes,
        oldest,
    })
}

/// The number after `"brokerEpoch":`; the file holds nothing else worth a JSON parser.
fn parse_broker_epoch(text: &str) -> Option<i64> {
    let (_, rest) = text.split_once("\"brokerEpoch\"")?;
    let rest = rest.trim_start().strip_prefix(':')?.trim_start();
    let end = rest.find(|c: char| !(c.is_ascii_digit() || c == '-')).unwrap_or(rest.len());
    rest[..end].parse().ok().filter(|epoch| *epoch >= 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs::simulated::{Crash, SimulatedFs};
    use crate::fs::{Fs, OpenMode};
    use crate::log_dir::MetaProperties;
    use std::sync::Arc;

    fn open(fs: &SimulatedFs) -> Arc<LogDir> {
        let meta = MetaProperties {
            node_id: 1,
            cluster_id: None,
            directory_id: TopicId::from_bytes([7; 16]),
        };
        LogDir::open(Arc::new(fs.clone()), Path::new("/data"), &meta).unwrap()
    }

    fn log(partition: i32) -> StoppedLog {
        StoppedLog {
            topic_id: TopicId::from_bytes([1; 16]),
            topic_partition: TopicPartition::new("t", partition),
            log_start: Offset::ZERO,
            high_watermark: Offset::ZERO.plus(1),
            log_end: Offset::ZERO.plus(2),
            size_bytes: 99,
            oldest: (partition > 0).then(|| OldestSegment {
                facts: SegmentFacts {
                    next_offset: Offset::ZERO.plus(1),
                    size_bytes: 40,
                    largest_timestamp: Timestamp::new(5).unwrap(),
                },
                is_last: partition == 1,
            }),
        }
    }

    #[test]
    fn a_clean_stop_is_seen_once_whatever_happens_then() {
        for crash in [Crash::Process, Crash::PowerLosingUnsynced] {
            let fs = SimulatedFs::new();
            let dir = open(&fs);
            assert_eq!(dir.take_clean_stop().unwrap(), None);
            dir.leave_clean_stop(Some(5), &[log(0), log(1)]).unwrap();
            fs.crash(crash);
            let dir = open(&fs);
            let expected = CleanStop { broker_epoch: Some(5), logs: Some(vec![log(0), log(1)]) };
            assert_eq!(dir.take_clean_stop().unwrap(), Some(expected));
            fs.crash(crash);
            assert_eq!(open(&fs).take_clean_stop().unwrap(), None, "{crash:?}");
        }
    }

    #[test]
    fn a_list_that_cannot_be_read_is_as_none() {
        for partition in 0..3 {
            let log = log(partition);
            let text = encode_logs(std::slice::from_ref(&log));
            assert_eq!(parse_logs(&text), Some(vec![log.clone()]));
            for cut in 0..text.len() - 1 {
                assert_ne!(parse_logs(&text[..cut]), Some(vec![log.clone()]), "cut at {cut}");
            }
        }
        let before = "0\n1\nAQEBAQEBAQEBAQEBAQEBAQ t 0 0 1 2 99\n";
        assert_eq!(parse_logs(before), Some(vec![log(0)]), "an earlier version's");
        assert_eq!(parse_broker_epoch("{\"version\":0,\"brokerEpoch\":-1}"), None);
        assert_eq!(parse_broker_epoch("{\"brokerEpoch\" : 12 }"), Some(12));
        assert_eq!(parse_broker_epoch(""), None);
    }

    #[test]
    fn a_trace_that_is_too_large_does_not_keep_a_broker_from_starting() {
        for name in [LOGS_FILE, CLEAN_SHUTDOWN_FILE] {
            let fs = SimulatedFs::new();
            let dir = open(&fs);
            dir.leave_clean_stop(Some(5), &[log(0)]).unwrap();
            let file = fs.open(&Path::new("/data").join(name), OpenMode::Write).unwrap();
            file.set_size(MAX_SIZE_BYTES + 1).unwrap();
            let stop = dir.take_clean_stop().unwrap().unwrap();
            assert_eq!(stop.logs.is_none(), name == LOGS_FILE);
            assert_eq!(stop.broker_epoch.is_none(), name == CLEAN_SHUTDOWN_FILE);
            assert_eq!(dir.take_clean_stop().unwrap(), None, "it is removed");
        }
    }
}
