//! Log directories as a bad disk, or a hand, may leave them: files of a legal one changed, cut, emptied, removed, copied and
//! renamed. Opening and reading them must neither panic nor hang nor take memory that no file justifies; what other
//! partitions hold must be there as it was.

use std::collections::{BTreeMap, BTreeSet};
use std::io::IoSlice;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use replication::identity::{BrokerId, ClusterId, DirectoryId};
use replication::quorum::codec::{HardState, LogEntry, QuorumSnapshot};
use replication::quorum::log_store::{LogStore, LogStoreConfig, METADATA_LOG_DIR, OpenedLog};
use replication::quorum::{Members, Persist, RaftId};
use storage::compression::Compression;
use storage::fs::simulated::{Crash, SimulatedFs};
use storage::fs::{Fs, OpenMode};
use storage::instant::Instant;
use storage::leader_epoch::LeaderEpoch;
use storage::log::{Log, LogConfig};
use storage::log_dir::{LogDir, MetaProperties};
use storage::log_manager::{KnownPartition, LogManager, LogManagerConfig};
use storage::log_validator::{AppendOrigin, ValidationConfig, validate};
use storage::offset::Offset;
use storage::producer_state::{ProducerEpoch, ProducerId};
use storage::record_batch::{RecordBatchBuilder, batches};
use storage::timestamp::Timestamp;
use storage::topic_partition::{TopicId, TopicPartition};

const DIR: &str = "/data";
const PARTITIONS: i32 = 3;
const RAFT_LOG: LogStoreConfig = LogStoreConfig { segment_bytes: 500 };
/// Cases made from one legal directory.
const CASES_PER_TEMPLATE: u64 = 64;

/// What is wrong with the code under test.
pub type Finding = String;

/// Batches of one partition: base offset and bytes.
type Content = Vec<(Offset, Vec<u8>)>;

/// A legal directory and what is in it.
struct Template {
    fs: SimulatedFs,
    partitions: BTreeMap<i32, Content>,
    entries: Vec<LogEntry>,
}

/// What came of the cases so far.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    /// Cases.
    pub cases: u64,
    /// The directory as a whole was refused.
    pub refused: u64,
    /// Partitions that stayed offline.
    pub offline: u64,
    /// Partitions that were opened, damaged files or not.
    pub opened: u64,
    /// Metadata logs that were refused.
    pub metadata_refused: u64,
}

/// Runs case after case.
pub struct Cases {
    random: StdRng,
    template: Template,
    /// So far.
    pub counts: Counts,
}

impl Cases {
    /// One seed is one run.
    pub fn new(seed: u64) -> Cases {
        let mut random = StdRng::seed_from_u64(seed);
        let template = make_template(&mut random);
        Cases { random, template, counts: Counts::default() }
    }

    /// One more.
    ///
    /// # Errors
    /// What is wrong, and what was done to the directory.
    pub fn step(&mut self) -> Result<(), Finding> {
        self.counts.cases += 1;
        if self.counts.cases.is_multiple_of(CASES_PER_TEMPLATE) {
            self.template = make_template(&mut self.random);
        }
        let fs = self.template.fs.fork();
        let damage = damage(&fs, &mut self.random);
        let touched: BTreeSet<&Path> =
            damage.iter().flat_map(|done| &done.touched).map(|p| &**p).collect();
        let checked = check_partitions(&self.template, &fs, &touched, &mut self.counts)
            .and_then(|()| check_metadata_log(&self.template, &fs, &touched, &mut self.counts));
        checked.map_err(|reason| {
            let damage: Vec<String> = damage.into_iter().map(|done| done.what).collect();
            format!("{reason}, after {}", damage.join("; "))
        })
    }
}

fn time(millis: i64) -> Timestamp {
    Timestamp::new(millis).expect("not negative")
}

fn partition_name(partition: i32) -> TopicPartition {
    TopicPartition::new("orders", partition)
}

fn topic_id() -> TopicId {
    TopicId::from_bytes([3; 16])
}

fn log_config() -> Arc<LogConfig> {
    Arc::new(LogConfig {
        segment_bytes: 1500,
        index_interval_bytes: 150,
        retention_ms: None,
        ..LogConfig::default()
    })
}

fn open_dir(fs: &SimulatedFs) -> Result<Arc<LogDir>, String> {
    let new =
        MetaProperties { node_id: 1, cluster_id: None, directory_id: TopicId::from_bytes([7; 16]) };
    LogDir::open(Arc::new(fs.clone()), Path::new(DIR), &new).map_err(|error| error.to_string())
}

fn open_logs(fs: &SimulatedFs) -> Result<(LogManager, Vec<String>, BTreeSet<i32>), String> {
    let dir = open_dir(fs)?;
    let known = |id: TopicId, partition: i32| {
        let is_known = id == topic_id() && (0..PARTITIONS).contains(&partition);
        is_known.then(|| KnownPartition {
            topic_partition: partition_name(partition),
            config: log_config(),
        })
    };
    // One thread: the same seed, the same run.
    let config = LogManagerConfig { recovery_threads: 1, ..LogManagerConfig::default() };
    let (logs, report) = LogManager::open(dir, config, &known, time(10_000), Instant::ZERO)
        .map_err(|error| error.to_string())?;
    let offline = report.offline.iter().map(|log| log.topic_partition.partition).collect();
    Ok((logs, report.strays, offline))
}

fn make_template(random: &mut StdRng) -> Template {
    let fs = SimulatedFs::new();
    fs.create_dir(Path::new(DIR)).expect("the disk is empty");
    let (logs, ..) = open_logs(&fs).expect("an empty directory opens");
    let entries = make_metadata_log(&fs, random);
    let mut partitions = BTreeMap::new();
    for partition in 0..PARTITIONS {
        let log = logs
            .get_or_create(topic_id(), &partition_name(partition), log_config())
            .expect("nothing is wrong with the disk");
        let mut log = log.lock().expect("nobody panicked");
        fill(&mut log, random);
        partitions.insert(partition, read_all(&mut log).expect("it was just written"));
    }
    logs.write_checkpoints().expect("nothing is wrong with the disk");
    if random.random_bool(0.3) {
        logs.close(None, time(10_000)).expect("nothing is wrong with the disk");
    }
    drop(logs);
    fs.crash(Crash::Process);
    Template { fs, partitions, entries }
}

fn fill(log: &mut Log, random: &mut StdRng) {
    let flush_at = random.random_range(0..40);
    let mut sequences = [0_i32; 2];
    for number in 0..random.random_range(5..40) {
        let mut builder = RecordBatchBuilder::new()
            .compression(Compression::ALL[random.random_range(0..Compression::ALL.len())], None);
        let count = random.random_range(1..5);
        if random.random_bool(0.6) {
            let producer = random.random_range(0..2_usize);
            let id = ProducerId::new(producer as i64).expect("not negative");
            let epoch = ProducerEpoch::new(0).expect("not negative");
            builder = builder.producer(id, epoch, Some(sequences[producer]));
            sequences[producer] += count;
        }
        for _ in 0..count {
            let value: Vec<u8> =
                (0..random.random_range(0..120)).map(|_| random.random()).collect();
            builder = builder.record(Some(time(1000 + number)), Some(b"key"), Some(&value), &[]);
        }
        let batch = Bytes::from(builder.build().expect("small records"));
        let batch =
            validate(&batch, &ValidationConfig::default(), time(2000)).expect("a legal batch");
        let epoch = LeaderEpoch::new(number as i32 / 10).expect("not negative");
        log.append_as_leader(batch, AppendOrigin::Client, epoch, time(2000))
            .expect("a healthy disk");
        if number == flush_at {
            log.flush().expect("a healthy disk");
        }
    }
    let end = log.offsets().log_end;
    log.update_high_watermark(end);
}

/// All batches that can be read; how far, if not all.
fn read_all(log: &mut Log) -> Result<Content, String> {
    let mut content = Vec::new();
    let offsets = log.offsets();
    let mut next = offsets.log_start;
    while next < offsets.log_end {
        let plan =
            log.read_plan(next, offsets.log_end, time(0)).map_err(|error| error.to_string())?;
        let fetched = plan.execute(700, true).map_err(|error| error.to_string())?;
        let bytes = fetched.read().map_err(|error| error.to_string())?;
        let before = next;
        for batch in batches(&bytes) {
            let Ok(batch) = batch else { break };
            batch.verify_crc().map_err(|error| format!("{}: {error}", batch.base_offset()))?;
            next = next.max(batch.next_offset());
            content.push((batch.base_offset(), batch.bytes().to_vec()));
        }
        if next == before {
            return Err(format!("nothing at {next}, before the log end {}", offsets.log_end));
        }
    }
    Ok(content)
}

fn make_metadata_log(fs: &SimulatedFs, random: &mut StdRng) -> Vec<LogEntry> {
    let dir = Path::new(DIR).join(METADATA_LOG_DIR);
    let me =
        RaftId::new(BrokerId::new(1).expect("not negative"), &DirectoryId::from_bytes([7; 16]));
    let snapshot = QuorumSnapshot {
        index: 1,
        term: 1,
        members: Members { voters: [me].into(), learners: [].into() },
        cluster_id: ClusterId::new("a-cluster").expect("a legal name"),
        data: Bytes::new(),
    };
    let opened = LogStore::open(Arc::new(fs.clone()), &dir, RAFT_LOG).expect("it is empty");
    let OpenedLog::Empty(empty) = opened else { unreachable!("the disk is new") };
    let mut store = empty.start(&snapshot, time(0)).expect("a healthy disk");
    let mut all = Vec::new();
    for index in 2..random.random_range(4..30) {
        let data = (0..random.random_range(0..100)).map(|_| random.random()).collect::<Vec<u8>>();
        let entry = LogEntry { index, term: 2, data: data.into() };
        all.push(entry.clone());
        let persist = Persist {
            number: index,
            snapshot: None,
            hard_state: HardState { term: 2, vote: 9, commit: index - 1 },
            entries: vec![entry],
            must_sync: true,
            messages: Vec::new(),
        };
        store.persist(&persist, time(0)).expect("a healthy disk");
    }
    all
}

/// One change, and the files it concerns.
struct Damage {
    what: String,
    touched: Vec<PathBuf>,
}

fn damage(fs: &SimulatedFs, random: &mut StdRng) -> Vec<Damage> {
    // Half of the time only in one directory: then the others are checked against what they held.
    let files = fs.files();
    let only = files[random.random_range(0..files.len())].0.parent().map(Path::to_path_buf);
    let only = only.filter(|_| random.random_bool(0.5));
    (0..random.random_range(1..5)).map(|_| damage_one(fs, only.as_deref(), random)).collect()
}

fn damage_one(fs: &SimulatedFs, only: Option<&Path>, random: &mut StdRng) -> Damage {
    let all = fs.files();
    let files: Vec<_> = all
        .iter()
        .filter(|(path, _)| only.is_none_or(|only| path.parent() == Some(only)))
        .collect();
    let Some((path, bytes)) =
        (!files.is_empty()).then(|| files[random.random_range(0..files.len())])
    else {
        return Damage { what: "nothing".to_owned(), touched: Vec::new() };
    };
    let mut bytes = bytes.clone();
    let mut touched = vec![path.clone()];
    let at = random.random_range(0..=bytes.len());
    let other = &files[random.random_range(0..files.len())].0;
    let what = match random.random_range(0..9) {
        0 | 1 if at < bytes.len() => {
            bytes[at] ^= 1 << random.random_range(0..8);
            format!("a bit of byte {at} turned")
        }
        2 => {
            let end = (at + [1, 4, 8, 64][random.random_range(0..4)]).min(bytes.len());
            let value = [0, 0xff, 0x7f, 0x80][random.random_range(0..4)];
            bytes[at..end].fill(value);
            format!("bytes {at}..{end} all {value}")
        }
        3 => {
            bytes.truncate(at);
            format!("cut at {at}")
        }
        4 => {
            let more = random.random_range(1..300);
            bytes.extend((0..more).map(|_| 0));
            format!("{more} zeroes more")
        }
        5 => {
            let tail = bytes[at..].to_vec();
            bytes.extend(tail);
            format!("bytes from {at} on repeated")
        }
        6 => {
            fs.remove_file(path).expect("it is there");
            return Damage { what: format!("{} removed", path.display()), touched };
        }
        7 => {
            touched.push(other.clone());
            fs.rename(path, other).expect("both directories are there");
            return Damage {
                what: format!("{} renamed to {}", path.display(), other.display()),
                touched,
            };
        }
        _ => {
            touched = vec![other.clone()];
            write(fs, other, &bytes);
            return Damage {
                what: format!("{} copied to {}", path.display(), other.display()),
                touched,
            };
        }
    };
    write(fs, path, &bytes);
    Damage { what: format!("{}: {what}", path.display()), touched }
}

fn write(fs: &SimulatedFs, path: &Path, bytes: &[u8]) {
    let file = fs.open(path, OpenMode::Truncate).expect("its directory is there");
    file.write_at(&mut [IoSlice::new(bytes)], 0).expect("a healthy disk");
}

/// Opens the partitions, reads and appends, stops cleanly, and looks again.
fn check_partitions(
    template: &Template,
    fs: &SimulatedFs,
    touched: &BTreeSet<&Path>,
    counts: &mut Counts,
) -> Result<(), Finding> {
    let root_touched = touched.iter().any(|path| path.parent() == Some(Path::new(DIR)));
    let (logs, strays, offline) = match open_logs(fs) {
        Ok(opened) => opened,
        // A checkpoint or the identity may stop all of it, a partition may not.
        Err(_) if root_touched => {
            counts.refused += 1;
            return Ok(());
        }
        Err(error) => return Err(format!("the directory does not open: {error}")),
    };
    counts.offline += offline.len() as u64;
    let mut after = BTreeMap::new();
    for (partition, before) in &template.partitions {
        let dir = Path::new(DIR).join(partition_name(*partition).to_string());
        let is_whole = !root_touched && !touched.iter().any(|path| path.starts_with(&dir));
        if is_whole && (offline.contains(partition) || strays.iter().any(|s| dir.ends_with(s))) {
            return Err(format!("partition {partition} is offline, and nothing is wrong with it"));
        }
        let Some(log) = logs.get(topic_id(), *partition) else {
            if is_whole {
                return Err(format!("partition {partition} is gone"));
            }
            continue;
        };
        let mut log = log.lock().expect("nobody panicked");
        counts.opened += u64::from(log.damage().is_none());
        let content = read_all(&mut log);
        if is_whole && content.as_ref() != Ok(before) {
            return Err(format!("partition {partition} is not what it was: {:?}", content.err()));
        }
        let builder = RecordBatchBuilder::new().record(Some(time(3000)), None, Some(b"more"), &[]);
        let batch = Bytes::from(builder.build().expect("a small record"));
        let batch =
            validate(&batch, &ValidationConfig::default(), time(3000)).expect("a legal batch");
        let epoch = LeaderEpoch::new(1000).expect("not negative");
        // Offsets may be exhausted, the partition may be offline: any error but a panic.
        let appended = log.append_as_leader(batch, AppendOrigin::Client, epoch, time(3000)).is_ok();
        if is_whole && !appended {
            return Err(format!("partition {partition} takes no append"));
        }
        // Only a clean stop's list makes up for a topic id that is gone, and it is good for one start.
        let has_id = !touched.contains(&*dir.join("partition.metadata"));
        if content.is_ok() && appended && has_id {
            let now = read_all(&mut log).map_err(|e| format!("partition {partition}: {e}"))?;
            after.insert(*partition, now);
        }
    }
    // Not all of it stops cleanly if a partition is damaged: then the next start reads it again.
    let _ = logs.close(None, time(4000));
    drop(logs);
    fs.crash(Crash::Process);
    let (logs, ..) =
        open_logs(fs).map_err(|error| format!("it opened once, not twice: {error}"))?;
    for (partition, before) in after {
        let log = logs.get(topic_id(), partition);
        let log = log.ok_or(format!("partition {partition} is gone at the second start"))?;
        let mut log = log.lock().expect("nobody panicked");
        let dir = Path::new(DIR).join(partition_name(partition).to_string());
        let content = read_all(&mut log);
        let is_said = log.damage().is_some() || content.is_err();
        if is_said && touched.iter().any(|path| path.starts_with(&dir)) {
            // A clean stop's list had vouched for what somebody changed since. That may be found later than at the first look;
            // what it may not do is to change without a word.
            continue;
        }
        if content.as_ref() != Ok(&before) {
            return Err(format!(
                "partition {partition} changed over a clean restart: {:?}",
                content.err()
            ));
        }
    }
    Ok(())
}

/// Opens the metadata log. Every entry it has is one that was written, without a gap before it.
fn check_metadata_log(
    template: &Template,
    fs: &SimulatedFs,
    touched: &BTreeSet<&Path>,
    counts: &mut Counts,
) -> Result<(), Finding> {
    let dir = Path::new(DIR).join(METADATA_LOG_DIR);
    let is_whole = !touched.iter().any(|path| path.starts_with(&dir));
    match LogStore::open(Arc::new(fs.clone()), &dir, RAFT_LOG) {
        Ok(OpenedLog::Found { state, .. }) => {
            let count = state.entries.len();
            if is_whole && count != template.entries.len() {
                return Err(format!("{count} metadata entries of {}", template.entries.len()));
            }
            match template.entries.starts_with(&state.entries) {
                true => Ok(()),
                false => Err("the metadata log has entries that nobody wrote".to_owned()),
            }
        }
        Ok(OpenedLog::Empty(_)) if is_whole => Err("the metadata log is gone".to_owned()),
        Ok(OpenedLog::Empty(_)) => Ok(()),
        Err(error) if is_whole => Err(format!("the metadata log does not open: {error}")),
        Err(_) => {
            counts.metadata_refused += 1;
            Ok(())
        }
    }
}
