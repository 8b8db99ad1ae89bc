//! Opening a log directory's logs.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use super::background::Schedule;
use super::{KnownPartition, LogId, LogManager, LogManagerConfig, SharedLog, State};
use crate::checkpoint::{CheckpointError, PARTITION_METADATA_FILE, read_partition_metadata};
use crate::flush::in_parallel;
use crate::instant::Instant;
use crate::log::{Log, LogError};
use crate::log_dir::names::{DELETE_SUFFIX, STRAY_SUFFIX, set_aside_name};
use crate::log_dir::{DirName, DiskError, LogDir, StoppedLog, parse_dir_name};
use crate::recovery::RecoveryReport;
use crate::timestamp::Timestamp;
use crate::topic_partition::{TopicId, TopicPartition};

/// The metadata log's directory is the quorum's.
const METADATA_TOPIC: &str = "__cluster_metadata";

/// A log that is damaged.
#[derive(Clone, Debug)]
pub struct OfflineLog {
    /// Its topic's id.
    pub topic_id: TopicId,
    /// Its name.
    pub topic_partition: TopicPartition,
    /// What is wrong with it.
    pub reason: Arc<str>,
}

/// What a start found and did.
#[derive(Clone, Debug, Default)]
pub struct StartReport {
    /// Whether the last stop was a clean one.
    pub clean: bool,
    /// The broker epoch in which the broker stopped cleanly.
    pub broker_epoch: Option<i64>,
    /// Logs that were taken as a clean stop left them.
    pub cold: usize,
    /// What was done to each log that was read.
    pub recovered: Vec<RecoveryReport>,
    /// Logs that are damaged and stay offline.
    pub offline: Vec<OfflineLog>,
    /// Directories that the metadata does not know, under the names they have now.
    pub strays: Vec<String>,
}

/// A log to be read.
struct ToRecover {
    topic_id: TopicId,
    known: KnownPartition,
}

type Known<'a> = dyn Fn(TopicId, i32) -> Option<KnownPartition> + Sync + 'a;

impl LogManager {
    /// Opens all logs in a log directory. `known` says which partitions the metadata has here; directories
    /// of others are set aside as strays. After a clean stop no log is read.
    ///
    /// # Errors
    /// If the disk fails, or a checkpoint is malformed: the directory is offline then. Damage to one log is
    /// no error but in the report.
    pub fn open(
        dir: Arc<LogDir>,
        config: LogManagerConfig,
        known: &Known<'_>,
        now: Timestamp,
        at: Instant,
    ) -> Result<(LogManager, StartReport), DiskError> {
        let clean_stop = dir.take_clean_stop()?;
        dir.load_checkpoints()?;
        let mut report = StartReport {
            clean: clean_stop.is_some(),
            broker_epoch: clean_stop.as_ref().and_then(|stop| stop.broker_epoch),
            ..StartReport::default()
        };
        let stopped: BTreeMap<TopicPartition, StoppedLog> = clean_stop
            .and_then(|stop| stop.logs)
            .unwrap_or_default()
            .into_iter()
            .map(|log| (log.topic_partition.clone(), log))
            .collect();

        let mut logs: BTreeMap<LogId, SharedLog> = BTreeMap::new();
        let mut to_recover = Vec::new();
        let entries = dir.judge("read", dir.path(), dir.fs().read_dir(dir.path()))?;
        for entry in entries.into_iter().filter(|entry| entry.is_dir) {
            let path = dir.path().join(&entry.name);
            let partition = match parse_dir_name(&entry.name) {
                DirName::Partition(partition) if &*partition.topic != METADATA_TOPIC => partition,
                DirName::Deleted => {
                    dir.doom([path], 0);
                    continue;
                }
                DirName::Partition(_) | DirName::Stray | DirName::Other => continue,
            };
            let cold = stopped.get(&partition);
            let topic_id = match cold {
                Some(cold) => Some(cold.topic_id),
                None => read_topic_id(&dir, &path)?,
            };
            let Some(topic_id) = topic_id else {
                set_aside_half_created(&dir, &path, &partition, &mut report)?;
                continue;
            };
            let found = known(topic_id, partition.partition)
                .filter(|known| known.topic_partition == partition);
            match (found, cold) {
                (Some(known), Some(cold)) => {
                    report.cold += 1;
                    let log = Log::cold(dir.clone(), cold, known.config);
                    logs.insert((topic_id, partition.partition), Arc::new(Mutex::new(log)));
                }
                (Some(known), None) => to_recover.push(ToRecover { topic_id, known }),
                (None, _) => {
                    let unique = u128::from_be_bytes(*topic_id.as_bytes());
                    set_aside_stray(&dir, &path, &partition, unique, &mut report)?;
                }
            }
        }
        let mut schedule = Schedule::new(&config, at);
        for (id, log) in recover_all(&dir, &config, &to_recover, now, &mut report)? {
            if log.unflushed_bytes() > 0 {
                schedule.flush_soon(id, at);
            }
            logs.insert(id, Arc::new(Mutex::new(log)));
        }
        let manager = LogManager { dir, config, state: Mutex::new(State { logs, schedule }) };
        Ok((manager, report))
    }
}

/// The topic id of a partition's directory; `None` if it has none yet.
fn read_topic_id(dir: &LogDir, path: &std::path::Path) -> Result<Option<TopicId>, DiskError> {
    let path = path.join(PARTITION_METADATA_FILE);
    match read_partition_metadata(&**dir.fs(), &path) {
        Ok(id) => Ok(id),
        // Cut off by a power cut before anything was synced.
        Err(CheckpointError::Malformed { .. }) => Ok(None),
        Err(CheckpointError::Io(error)) => dir.judge("read", &path, Err(error)),
    }
}

/// A directory without a topic id: its first append was cut off before anything of it was synced. Removed if
/// it holds no record; set aside if it does, because nobody can say whose they are.
fn set_aside_half_created(
    dir: &LogDir,
    path: &std::path::Path,
    partition: &TopicPartition,
    report: &mut StartReport,
) -> Result<(), DiskError> {
    let entries = dir.judge("read", path, dir.fs().read_dir(path))?;
    let mut holds_records = false;
    for entry in entries.iter().filter(|entry| entry.name.ends_with(".log")) {
        let file = path.join(&entry.name);
        holds_records |= dir.judge("read", &file, dir.fs().metadata(&file))?.size_bytes > 0;
    }
    if holds_records {
        return set_aside_stray(dir, path, partition, 0, report);
    }
    let to = free_name(dir, partition, 0, DELETE_SUFFIX);
    dir.judge("rename", path, dir.fs().rename(path, &to))?;
    dir.doom([to], 0);
    Ok(())
}

fn set_aside_stray(
    dir: &LogDir,
    path: &std::path::Path,
    partition: &TopicPartition,
    unique: u128,
    report: &mut StartReport,
) -> Result<(), DiskError> {
    let to = free_name(dir, partition, unique, STRAY_SUFFIX);
    dir.judge("rename", path, dir.fs().rename(path, &to))?;
    let name = to.file_name().unwrap_or_default().to_string_lossy().into_owned();
    tracing::warn!(%partition, set_aside_as = name, "directory is unknown to the metadata");
    report.strays.push(name);
    Ok(())
}

fn free_name(dir: &LogDir, partition: &TopicPartition, mut unique: u128, suffix: &str) -> PathBuf {
    loop {
        let path = dir.path().join(set_aside_name(partition, unique, suffix));
        if dir.fs().metadata(&path).is_err() {
            return path;
        }
        unique = unique.wrapping_add(1);
    }
}

/// Recovers logs, several at a time. The report has them in their order, whatever the threads do.
fn recover_all(
    dir: &Arc<LogDir>,
    config: &LogManagerConfig,
    to_recover: &[ToRecover],
    now: Timestamp,
    report: &mut StartReport,
) -> Result<Vec<(LogId, Log)>, DiskError> {
    let recover = |item: &ToRecover| {
        let partition = item.known.topic_partition.clone();
        let checkpoints = dir.checkpointed(&partition);
        let config = item.known.config.clone();
        Log::recover(dir.clone(), item.topic_id, partition, config, checkpoints, now)
    };
    let results = in_parallel(config.recovery_threads, to_recover, recover);
    let mut logs = Vec::new();
    for (result, item) in results.into_iter().zip(to_recover) {
        let partition = item.known.topic_partition.clone();
        let id = (item.topic_id, partition.partition);
        match result {
            Ok((log, recovery)) => {
                if recovery.bytes_cut() > 0 || !recovery.rebuilt_indexes.is_empty() {
                    tracing::warn!(%recovery, "log was repaired");
                }
                report.recovered.push(recovery);
                logs.push((id, log));
            }
            Err(LogError::Disk(error)) => return Err(error),
            Err(error @ LogError::Deleted { .. }) => {
                unreachable!("a log that was just opened is not deleted: {error}")
            }
            Err(LogError::Damaged { reason, .. }) => {
                tracing::error!(topic_partition = %partition, %reason, "log is damaged: partition offline");
                let config = item.known.config.clone();
                let log = Log::damaged(
                    dir.clone(),
                    item.topic_id,
                    partition.clone(),
                    config,
                    reason.clone(),
                );
                logs.push((id, log));
                report.offline.push(OfflineLog {
                    topic_id: item.topic_id,
                    topic_partition: partition,
                    reason,
                });
            }
        }
    }
    Ok(logs)
}
