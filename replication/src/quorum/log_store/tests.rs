//! The log store against a model, on a disk that crashes at any of its operations.

use std::path::PathBuf;

use bytes::Bytes;
use proptest::prelude::*;
use storage::fs::simulated::{Crash, Fault, Operation, SimulatedFs};
use storage::fs::{OpenMode, read_file};

use super::*;
use crate::identity::{BrokerId, ClusterId, DirectoryId};
use crate::quorum::{Members, RaftId};

const NOW: Timestamp = Timestamp::ZERO;
const SMALL: LogStoreConfig = LogStoreConfig { segment_bytes: 400 };

fn dir() -> PathBuf {
    PathBuf::from("/data").join(METADATA_LOG_DIR)
}

fn disk() -> SimulatedFs {
    let fs = SimulatedFs::new();
    fs.create_dir(Path::new("/data")).unwrap();
    fs.sync_everything();
    fs
}

fn me() -> RaftId {
    RaftId::new(BrokerId::new(1).unwrap(), &DirectoryId::from_bytes([7; 16]))
}

fn snapshot(index: u64, term: u64, data: &[u8]) -> QuorumSnapshot {
    QuorumSnapshot {
        index,
        term,
        members: Members { voters: [me()].into(), learners: [].into() },
        cluster_id: ClusterId::new("a-cluster").unwrap(),
        data: Bytes::copy_from_slice(data),
    }
}

fn entry(index: u64, term: u64) -> LogEntry {
    LogEntry { index, term, data: Bytes::from(format!("entry {index} of term {term}")) }
}

fn persist(hard_state: HardState, entries: Vec<LogEntry>) -> Persist {
    Persist { number: 1, snapshot: None, hard_state, entries, must_sync: true, messages: vec![] }
}

fn open(fs: &SimulatedFs, config: LogStoreConfig) -> Result<OpenedLog, LogStoreError> {
    LogStore::open(Arc::new(fs.clone()), &dir(), config)
}

fn start(fs: &SimulatedFs, config: LogStoreConfig) -> LogStore {
    match open(fs, config).unwrap() {
        OpenedLog::Empty(empty) => empty.start(&snapshot(1, 1, b""), NOW).unwrap(),
        OpenedLog::Found { .. } => panic!("the disk is new"),
    }
}

fn reopen(fs: &SimulatedFs, config: LogStoreConfig) -> (LogStore, QuorumState, u64) {
    match open(fs, config).unwrap() {
        OpenedLog::Found { store, state, cut_bytes } => (*store, state, cut_bytes),
        OpenedLog::Empty(_) => panic!("the log is gone"),
    }
}

fn hard_state(term: u64, vote: u64, commit: u64) -> HardState {
    HardState { term, vote, commit }
}

fn segment_files(fs: &SimulatedFs) -> Vec<String> {
    let names = fs.read_dir(&dir()).unwrap().into_iter().map(|entry| entry.name);
    names.filter(|name| name.ends_with(".log")).collect()
}

fn log_bytes(fs: &SimulatedFs) -> usize {
    let is_log = |path: &Path| path.extension().is_some_and(|extension| extension == "log");
    fs.files().iter().filter(|(path, _)| is_log(path)).map(|(_, bytes)| bytes.len()).sum()
}

#[test]
fn what_was_persisted_is_there_after_a_power_cut() {
    let fs = disk();
    let mut store = start(&fs, SMALL);
    store.persist(&persist(hard_state(2, 9, 1), vec![entry(2, 2), entry(3, 2)]), NOW).unwrap();
    store.persist(&persist(hard_state(3, 8, 2), vec![]), NOW).unwrap();
    fs.crash(Crash::PowerLosingUnsynced);

    let (_, state, cut_bytes) = reopen(&fs, SMALL);
    assert_eq!(state.hard_state, hard_state(3, 8, 2));
    assert_eq!(state.entries, [entry(2, 2), entry(3, 2)]);
    assert_eq!((state.snapshot, cut_bytes), (snapshot(1, 1, b""), 0));
}

#[test]
fn a_conflict_truncates_nothing_and_loses_no_vote() {
    let fs = disk();
    let mut store = start(&fs, SMALL);
    let first = vec![entry(2, 2), entry(3, 2), entry(4, 2)];
    store.persist(&persist(hard_state(2, 9, 2), first), NOW).unwrap();
    let size = log_bytes(&fs);
    store.persist(&persist(hard_state(5, 8, 2), vec![entry(3, 4)]), NOW).unwrap();
    assert!(log_bytes(&fs) > size, "appended behind, nothing cut");

    let (_, state, _) = reopen(&fs, SMALL);
    assert_eq!(state.entries, [entry(2, 2), entry(3, 4)]);
    assert_eq!(state.hard_state, hard_state(5, 8, 2));
}

#[test]
fn a_tear_is_cut_and_the_commit_index_never_points_behind_it() {
    let fs = disk();
    let mut store = start(&fs, SMALL);
    store.persist(&persist(hard_state(2, 9, 1), vec![entry(2, 2)]), NOW).unwrap();
    let path = dir().join("00000000000000000000.log");
    let whole = read_file(&fs, &path, 10_000).unwrap().len() as u64;
    let more = (3..=5).map(|index| entry(index, 2)).collect();
    store.persist(&persist(hard_state(2, 9, 5), more), NOW).unwrap();
    let all = read_file(&fs, &path, 10_000).unwrap().len() as u64;
    for cut in whole..all {
        let torn = fs.fork();
        torn.open(&path, OpenMode::Write).unwrap().set_size(cut).unwrap();
        let (mut store, state, cut_bytes) = reopen(&torn, SMALL);
        let last = state.entries.last().unwrap().index;
        assert_eq!(state.entries, (2..=last).map(|index| entry(index, 2)).collect::<Vec<_>>());
        assert!(state.hard_state.commit <= last && state.hard_state.vote == 9);
        let kept = read_file(&torn, &path, 10_000).unwrap().len() as u64;
        assert_eq!(kept + cut_bytes, cut);
        // What comes next continues where the cut was made.
        store.persist(&persist(hard_state(3, 9, 2), vec![entry(last + 1, 3)]), NOW).unwrap();
        assert_eq!(reopen(&torn, SMALL).1.entries.last(), Some(&entry(last + 1, 3)));
    }
}

#[test]
fn damage_to_what_was_fsynced_refuses_the_start() {
    let fs = disk();
    let mut store = start(&fs, LogStoreConfig::default());
    for index in 2..=4 {
        store.persist(&persist(hard_state(2, 9, 1), vec![entry(index, 2)]), NOW).unwrap();
    }
    let path = dir().join("00000000000000000000.log");
    let size = read_file(&fs, &path, 10_000).unwrap().len() as u64;
    for position in 0..size * 2 / 3 {
        let damaged = fs.fork();
        let file = damaged.open(&path, OpenMode::Write).unwrap();
        let mut byte = [0];
        file.read_exact_at(&mut byte, position).unwrap();
        file.write_at(&mut [IoSlice::new(&[byte[0] ^ 0x10])], position).unwrap();
        // Only the leader epoch, for the dump tool, is covered by nothing.
        let in_batch = position % (size / 3);
        match open(&damaged, LogStoreConfig::default()) {
            Ok(_) => assert!((12..16).contains(&in_batch), "damage at byte {position} unseen"),
            Err(error) => {
                assert!(matches!(error, LogStoreError::Corrupt { .. }), "{error:?}");
                assert_eq!(read_file(&damaged, &path, 10_000).unwrap().len() as u64, size);
            }
        }
    }
}

#[test]
fn a_newer_program_s_batch_is_refused_by_name_and_kept() {
    let fs = disk();
    let mut store = start(&fs, SMALL);
    store.persist(&persist(hard_state(2, 9, 1), vec![entry(2, 2)]), NOW).unwrap();
    let path = dir().join("00000000000000000000.log");
    let mut payload = LogPayload {
        hard_state: hard_state(2, 9, 1),
        durable_end: 1,
        body: LogBody::HardStateOnly,
    }
    .encode()
    .to_vec();
    payload[0] = 2;
    let mut bytes = Vec::new();
    batch_file::push_batch(&mut bytes, 1, 2, &payload, NOW);
    let file = fs.open(&path, OpenMode::Write).unwrap();
    file.write_at(&mut [IoSlice::new(&bytes)], file.size_bytes().unwrap()).unwrap();

    let error = open(&fs, SMALL).unwrap_err();
    assert!(error.is_newer(), "{error:?}");
    let LogStoreError::Payload { source, .. } = error else { panic!("{error:?}") };
    assert_eq!(
        source.to_string(),
        "metadata log batch has version 2; this program reads up to version 1, a newer highwater wrote it"
    );
}

#[test]
fn segments_wholly_below_the_snapshot_go() {
    let fs = disk();
    let mut store = start(&fs, SMALL);
    for index in 2..=20 {
        store.persist(&persist(hard_state(2, 9, index - 1), vec![entry(index, 2)]), NOW).unwrap();
    }
    let before = segment_files(&fs).len();
    assert!(before > 4, "{before} segments");
    store.write_snapshot(&snapshot(15, 2, b"image at 15"), NOW).unwrap();
    assert!(segment_files(&fs).len() < before);
    fs.crash(Crash::PowerLosingUnsynced);

    let (mut store, state, _) = reopen(&fs, SMALL);
    assert_eq!(state.snapshot, snapshot(15, 2, b"image at 15"));
    assert_eq!(state.entries, (16..=20).map(|index| entry(index, 2)).collect::<Vec<_>>());
    assert_eq!(state.hard_state, hard_state(2, 9, 19));
    store.write_snapshot(&snapshot(20, 2, b"image at 20"), NOW).unwrap();
    assert_eq!(segment_files(&fs).len(), 1, "only the one that carries the hard state on");
    assert_eq!(reopen(&fs, SMALL).1.hard_state, hard_state(2, 9, 20));
}

#[test]
fn a_full_disk_costs_a_snapshot_nothing_and_the_log_everything() {
    let fs = disk();
    let mut store = start(&fs, SMALL);
    store.persist(&persist(hard_state(2, 9, 2), vec![entry(2, 2)]), NOW).unwrap();
    let full = |path_contains: &str| Fault {
        operation: Operation::Write,
        path_contains: path_contains.to_owned(),
        skip: 0,
        times: 1,
        error: io::ErrorKind::StorageFull,
    };
    fs.inject(full(".checkpoint"));
    let error = store.write_snapshot(&snapshot(2, 2, b"image"), NOW).unwrap_err();
    assert!(error.is_disk_full() && !store.is_failed());
    store.persist(&persist(hard_state(2, 9, 2), vec![entry(3, 2)]), NOW).unwrap();
    store.write_snapshot(&snapshot(2, 2, b"image"), NOW).unwrap();

    fs.inject(full(".log"));
    store.persist(&persist(hard_state(2, 9, 3), vec![entry(4, 2)]), NOW).unwrap_err();
    let again = store.persist(&persist(hard_state(2, 9, 3), vec![entry(4, 2)]), NOW).unwrap_err();
    assert!(matches!(again, LogStoreError::Failed));
    assert_eq!(reopen(&fs, SMALL).1.entries, [entry(3, 2)]);
}

#[test]
fn a_failed_fsync_is_never_retried() {
    let fs = disk();
    let mut store = start(&fs, SMALL);
    let sync = |path_contains: &str| Fault {
        operation: Operation::Sync,
        path_contains: path_contains.to_owned(),
        skip: 0,
        times: 1,
        error: io::ErrorKind::Other,
    };
    fs.inject(sync(".checkpoint"));
    store.persist(&persist(hard_state(2, 9, 2), vec![entry(2, 2)]), NOW).unwrap();
    store.write_snapshot(&snapshot(2, 2, b"image"), NOW).unwrap_err();
    assert!(store.is_failed());
    store.persist(&persist(hard_state(2, 9, 3), vec![entry(3, 2)]), NOW).unwrap_err();
}

#[test]
fn a_log_that_lost_its_snapshot_is_not_taken_for_an_empty_one() {
    let fs = disk();
    let mut store = start(&fs, SMALL);
    for index in 2..=3 {
        store.persist(&persist(hard_state(2, 9, 1), vec![entry(index, 2)]), NOW).unwrap();
    }
    fs.remove_file(&dir().join("00000000000000000001-0000000001.checkpoint")).unwrap();
    assert!(matches!(open(&fs, SMALL), Err(LogStoreError::SnapshotMissing { .. })));
}

#[test]
fn a_bootstrap_is_one_fsync_of_each_file_and_directory() {
    let fs = disk();
    let before = fs.changes();
    let mut store = start(&fs, LogStoreConfig::default());
    store.persist(&persist(hard_state(2, 9, 1), vec![entry(2, 2)]), NOW).unwrap();
    // Directory, snapshot (create, header, footer, fsync, rename), segment (create, write, fsync), two directory fsyncs.
    assert_eq!(fs.changes() - before, 1 + 5 + 3 + 2);
    store.persist(&persist(hard_state(2, 9, 2), vec![entry(3, 2)]), NOW).unwrap();
    assert_eq!(fs.changes() - before, 11 + 2, "from then on a write and an fsync");
}

#[test]
fn what_a_new_group_holds_back_is_synced_with_what_follows_it() {
    let fs = disk();
    let mut store = start(&fs, LogStoreConfig::default());
    store.hold_back_first();
    let before = fs.changes();
    store.persist(&persist(hard_state(2, 9, 1), vec![entry(2, 2)]), NOW).unwrap();
    assert_eq!(fs.changes() - before, 2, "the segment is created and written, nothing is synced");
    let powerless = fs.fork();
    powerless.crash(Crash::PowerLosingUnsynced);
    assert!(matches!(open(&powerless, SMALL), Ok(OpenedLog::Empty(_))), "nobody was told of it");
    store.persist(&persist(hard_state(2, 9, 2), vec![entry(3, 2)]), NOW).unwrap();
    assert_eq!(fs.changes() - before, 2 + 3, "a write, the segment, the names beside it");
    fs.crash(Crash::PowerLosingUnsynced);
    assert_eq!(reopen(&fs, SMALL).1.entries, [entry(2, 2), entry(3, 2)]);
}

#[test]
fn a_bootstrap_that_is_cut_at_any_step_can_be_repeated_and_keeps_what_it_promised() {
    // The index of the entry that it promised.
    let bootstrap = |fs: &SimulatedFs| -> Result<u64, LogStoreError> {
        let (mut store, next) = match open(fs, SMALL)? {
            OpenedLog::Found { store, state, .. } => (*store, 2 + state.entries.len() as u64),
            OpenedLog::Empty(empty) => {
                let mut store = empty.start(&snapshot(1, 1, b""), NOW)?;
                store.hold_back_first();
                store.persist(&persist(hard_state(2, 9, 1), vec![entry(2, 2)]), NOW)?;
                (store, 3)
            }
        };
        store.persist(&persist(hard_state(2, 9, next - 1), vec![entry(next, 2)]), NOW)?;
        Ok(next)
    };
    let seeds = (0..40).map(|seed| Crash::PowerKeepingSome { seed });
    let crashes: Vec<Crash> = seeds.chain([Crash::Process, Crash::PowerLosingUnsynced]).collect();
    for (first, second, crash) in (0..16)
        .flat_map(|first| (0..16).map(move |second| (first, second)))
        .flat_map(|(first, second)| crashes.iter().map(move |crash| (first, second, *crash)))
    {
        let fs = disk();
        for stop in [first, second] {
            fs.stop_after_changes(stop);
            let promised = bootstrap(&fs).ok();
            fs.crash(crash);
            let told = format!("stopped after {first} and {second}, {crash:?}");
            match open(&fs, SMALL) {
                Ok(OpenedLog::Empty(_)) => assert!(promised.is_none(), "{told}"),
                Ok(OpenedLog::Found { state, .. }) => {
                    let is_there = |index| state.entries.contains(&entry(index, 2));
                    assert!(promised.is_none_or(is_there), "{told}");
                }
                Err(error) => panic!("{told}: {error}"),
            }
        }
        bootstrap(&fs).unwrap();
    }
}

#[test]
fn file_names_are_kafka_s() {
    assert_eq!(batch_file::parse_segment_name("00000000000000000042.log"), Some(42));
    for name in ["42.log", "00000000000000000042.index", "0000000000000000004x.log"] {
        assert_eq!(batch_file::parse_segment_name(name), None, "{name}");
    }
    let name = "00000000000000000007-0000000003.checkpoint";
    assert_eq!(snapshot_file::parse_name(name), Some((7, 3)));
    for name in ["7-3.checkpoint", "00000000000000000007-0000000003.checkpoint.tmp"] {
        assert_eq!(snapshot_file::parse_name(name), None, "{name}");
    }
}

/// One thing that Raft may ask of the store.
#[derive(Clone, Debug)]
enum Step {
    /// Entries from `back` before the end of the log, but never over committed ones; more may be committed after.
    Append {
        back: u64,
        count: u64,
        commits: u64,
    },
    Vote,
    Snapshot,
    /// From a leader, `ahead` of our end.
    ReceiveSnapshot {
        ahead: u64,
    },
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0u64..4, 1u64..4, 0u64..5).prop_map(|(back, count, commits)| Step::Append { back, count, commits }),
        2 => Just(Step::Vote),
        2 => Just(Step::Snapshot),
        1 => (0u64..4).prop_map(|ahead| Step::ReceiveSnapshot { ahead }),
        1 => Just(Step::Reopen),
    ]
}

/// What the disk must give back.
#[derive(Clone, Debug)]
struct Model {
    snapshot: QuorumSnapshot,
    hard_state: HardState,
    entries: Vec<LogEntry>,
}

impl Model {
    fn new() -> Model {
        Model { snapshot: snapshot(1, 1, b""), hard_state: hard_state(1, 0, 1), entries: vec![] }
    }

    fn last_index(&self) -> u64 {
        self.snapshot.index + self.entries.len() as u64
    }

    fn term_at(&self, index: u64) -> u64 {
        match index - self.snapshot.index {
            0 => self.snapshot.term,
            distance => self.entries[distance as usize - 1].term,
        }
    }

    /// What Raft would ask the store for, and the state after it.
    fn next(&self, step: &Step) -> (Model, Option<Persist>) {
        let mut next = self.clone();
        let mut asked = None;
        match step {
            Step::Append { back, count, commits } => {
                next.hard_state.term += u64::from(*back > 0);
                let first =
                    (self.last_index() + 1).saturating_sub(*back).max(self.hard_state.commit + 1);
                let new: Vec<_> = (first..first + count)
                    .map(|index| entry(index, next.hard_state.term))
                    .collect();
                next.entries.truncate((first - self.snapshot.index - 1) as usize);
                next.entries.extend(new.iter().cloned());
                next.hard_state.commit = (self.hard_state.commit + commits).min(next.last_index());
                asked = Some(persist(next.hard_state, new));
            }
            Step::Vote => {
                next.hard_state.term += 1;
                next.hard_state.vote = next.hard_state.term * 10;
                asked = Some(persist(next.hard_state, vec![]));
            }
            Step::Snapshot => {
                let index = self.hard_state.commit;
                next.snapshot =
                    snapshot(index, self.term_at(index), format!("image {index}").as_bytes());
                next.entries.drain(..(index - self.snapshot.index) as usize);
            }
            Step::ReceiveSnapshot { ahead } => {
                next.hard_state.term += 1;
                let index =
                    (self.hard_state.commit + 1).max((self.last_index() + ahead).saturating_sub(2));
                next.snapshot = snapshot(index, next.hard_state.term, b"the leader's");
                next.entries.clear();
                next.hard_state.commit = index;
                let mut received = persist(next.hard_state, vec![]);
                received.snapshot = Some(next.snapshot.clone());
                asked = Some(received);
            }
            Step::Reopen => {}
        }
        (next, asked)
    }
}

/// Whether the disk may hold this while it goes from `before` to `after`: every promise of `before` is kept.
fn is_between(found: &QuorumState, before: &Model, after: &Model) -> bool {
    let of = |model: &Model| {
        found.snapshot == model.snapshot
            && found.entries.iter().eq(model.entries.iter().take(found.entries.len()))
    };
    let committed = |model: &Model| {
        found.snapshot.index + found.entries.len() as u64 >= model.hard_state.commit
    };
    let whole_before = of(before) && found.entries.len() == before.entries.len();
    // A torn append keeps a first part of the new entries; what they replace was never committed.
    let part_of_after = of(after) && committed(before);
    // The new snapshot with what of the old log goes on behind it.
    let new_snapshot = found.snapshot == after.snapshot
        && found
            .entries
            .iter()
            .all(|entry| before.entries.contains(entry) || after.entries.contains(entry));
    let votes = [before.hard_state, after.hard_state];
    (whole_before || part_of_after || (new_snapshot && committed(before)))
        && votes
            .iter()
            .any(|state| (state.term, state.vote) == (found.hard_state.term, found.hard_state.vote))
        && found.hard_state.commit <= found.snapshot.index + found.entries.len() as u64
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    /// Whatever Raft asks for and wherever the machine stops, a restart finds every entry and vote that was promised.
    #[test]
    fn a_crash_anywhere_keeps_every_promise(
        steps in prop::collection::vec(step(), 1..14),
        stop_after in 0u64..120,
        crash in prop_oneof![
            Just(Crash::Process),
            Just(Crash::PowerLosingUnsynced),
            any::<u64>().prop_map(|seed| Crash::PowerKeepingSome { seed }),
        ],
    ) {
        let fs = disk();
        fs.stop_after_changes(stop_after);
        let mut model = Model::new();
        let mut after = Model::new();
        let mut promised = false;
        let mut store = None;
        if let Ok(OpenedLog::Empty(empty)) = open(&fs, SMALL)
            && let Ok(mut started) = empty.start(&model.snapshot, NOW)
            && started.sync().is_ok()
        {
            promised = true;
            store = Some(started);
        }
        for step in &steps {
            let Some(mut open_store) = store.take() else { break };
            let (next, asked) = model.next(step);
            after = next;
            let done = match (step, &asked) {
                (Step::Reopen, _) => {
                    drop(open_store);
                    let Ok(OpenedLog::Found { store: reopened, state, .. }) = open(&fs, SMALL) else { break };
                    prop_assert!(is_between(&state, &model, &model), "{state:?} is not {model:?}");
                    store = Some(*reopened);
                    continue;
                }
                (Step::Snapshot, _) => open_store.write_snapshot(&after.snapshot, NOW),
                (_, Some(asked)) => open_store.persist(asked, NOW),
                _ => Ok(()),
            };
            if done.is_err() {
                break;
            }
            model = after.clone();
            store = Some(open_store);
        }
        fs.crash(crash);
        match open(&fs, SMALL) {
            Ok(OpenedLog::Empty(_)) => prop_assert!(!promised, "the log is gone"),
            Ok(OpenedLog::Found { mut store, state, .. }) => {
                prop_assert!(is_between(&state, &model, &after), "{state:?} is neither {model:?} nor {after:?}");
                // It goes on, and the next restart finds that too.
                let next = state.snapshot.index + state.entries.len() as u64 + 1;
                let term = state.hard_state.term + 1;
                let more = persist(hard_state(term, 5, state.hard_state.commit), vec![entry(next, term)]);
                store.persist(&more, NOW).unwrap();
                drop(store);
                fs.crash(Crash::PowerLosingUnsynced);
                let (_, again, cut) = reopen(&fs, SMALL);
                prop_assert_eq!(again.entries.last(), Some(&entry(next, term)));
                prop_assert_eq!(again.entries.len(), state.entries.len() + 1);
                prop_assert_eq!((again.hard_state, cut), (hard_state(term, 5, state.hard_state.commit), 0));
            }
            Err(error) => prop_assert!(false, "the start was refused: {error:?}"),
        }
    }
}
