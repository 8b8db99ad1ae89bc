//! Recovery at every byte and every operation where a crash may cut.

use std::sync::Arc;

use proptest::prelude::*;

use crate::flush::FlushScope;
use crate::fs::Fs;
use crate::fs::simulated::{Crash, SimulatedFs};
use crate::log::tests::{
    EPOCH, NOW, append, batch, idempotent, new_log, offset, open_dir, partition, read_all, recover,
    small_segments,
};
use crate::log::{Log, LogConfig, LogError};
use crate::log_dir::LogDir;
use crate::log_validator::AppendOrigin;
use crate::offset::Offset;

/// Appends until all are in or the disk stops. Returns how many were acknowledged.
fn append_all(log: &mut Log, sizes: &[usize], flush: bool) -> usize {
    for (tag, size) in sizes.iter().enumerate() {
        let batch = batch(tag as u64, *size, tag as i64 % 7);
        if log.append_as_leader(batch, AppendOrigin::Client, EPOCH, NOW).is_err() {
            return tag;
        }
        if flush {
            let Ok(ticket) = log.flush_ticket(FlushScope::Records) else { return tag };
            let ticket = ticket.expect("something was appended");
            if log.flush_completed(ticket.run()).is_err() {
                return tag;
            }
        }
    }
    sizes.len()
}

fn written(sizes: &[usize]) -> Vec<(Offset, Vec<u8>)> {
    let fs = SimulatedFs::new();
    let mut log = new_log(&open_dir(&fs), small_segments());
    assert_eq!(append_all(&mut log, sizes, false), sizes.len());
    read_all(&mut log, offset(0))
}

/// Opens the log after a crash; a partition without a directory is an empty log.
fn reopen(dir: &Arc<LogDir>, config: LogConfig) -> Log {
    let path = dir.path().join(partition().to_string());
    if dir.fs().metadata(&path).is_err() {
        return new_log(dir, config);
    }
    recover(dir, config).expect("a torn tail is no damage").0
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(8))]

    /// Whatever byte a kill lands on, recovery keeps exactly the whole batches before it, and the log goes
    /// on from there.
    #[test]
    fn recovery_keeps_every_whole_batch(sizes in prop::collection::vec(10usize..300, 1..14)) {
        let all = written(&sizes);
        let total = {
            let fs = SimulatedFs::new();
            let dir = open_dir(&fs);
            let before = fs.written_bytes();
            append_all(&mut new_log(&dir, small_segments()), &sizes, false);
            fs.written_bytes() - before
        };
        for cut in 0..=total {
            let fs = SimulatedFs::new();
            let dir = open_dir(&fs);
            fs.stop_after_bytes(cut);
            let mut log = new_log(&dir, small_segments());
            let acknowledged = append_all(&mut log, &sizes, false);
            drop((log, dir));
            fs.crash(Crash::Process);
            let whole: u64 = fs.files().iter()
                .filter(|(path, _)| path.to_string_lossy().ends_with(".log"))
                .map(|(_, bytes)| bytes.len() as u64).sum();
            let mut expected = 0;
            let mut end = 0;
            while expected < all.len() && end + all[expected].1.len() as u64 <= whole {
                end += all[expected].1.len() as u64;
                expected += 1;
            }
            prop_assert!(expected >= acknowledged);
            let dir = open_dir(&fs);
            let mut log = reopen(&dir, small_segments());
            prop_assert_eq!(read_all(&mut log, offset(0)), &all[..expected], "cut at byte {}", cut);
            // And once more: recovery leaves nothing behind that another one would cut.
            drop((log, dir));
            fs.crash(Crash::Process);
            let dir = open_dir(&fs);
            let mut log = reopen(&dir, small_segments());
            append(&mut log, batch(99, 50, 0));
            prop_assert_eq!(log.offsets().log_end, offset(expected as u64 + 1));
        }
    }

    /// The power goes at every operation, with flush.messages=1: what was acknowledged is there, what
    /// follows it is a prefix of what was sent, and a seeded part of the page cache changes nothing.
    #[test]
    fn what_was_flushed_survives_a_power_cut_at_any_operation(
        sizes in prop::collection::vec(10usize..300, 1..14),
        seed in any::<u64>(),
    ) {
        let config = || LogConfig { flush_messages: 1, ..small_segments() };
        let all = written(&sizes);
        let changes = {
            let fs = SimulatedFs::new();
            let dir = open_dir(&fs);
            let before = fs.changes();
            append_all(&mut new_log(&dir, config()), &sizes, true);
            fs.changes() - before
        };
        for stop in 0..=changes {
            for crash in [Crash::PowerLosingUnsynced, Crash::PowerKeepingSome { seed: seed ^ stop }] {
                let fs = SimulatedFs::new();
                let dir = open_dir(&fs);
                fs.stop_after_changes(stop);
                let mut log = new_log(&dir, config());
                let acknowledged = append_all(&mut log, &sizes, true);
                drop((log, dir));
                fs.crash(crash);
                if fs.metadata(std::path::Path::new("/data/orders-3/partition.metadata")).is_err() {
                    prop_assert_eq!(acknowledged, 0);
                    continue;
                }
                let dir = open_dir(&fs);
                let mut log = reopen(&dir, config());
                let kept = read_all(&mut log, offset(0));
                prop_assert!(kept.len() >= acknowledged, "{crash:?} at {stop}: {} of {acknowledged}", kept.len());
                prop_assert_eq!(&kept[..], &all[..kept.len()]);
                prop_assert_eq!(log.offsets().flushed_end, log.offsets().log_end);
                // What recovery kept is synced before it counts: it survives the next cut.
                drop((log, dir));
                fs.crash(Crash::PowerLosingUnsynced);
                let dir = open_dir(&fs);
                prop_assert_eq!(read_all(&mut reopen(&dir, config()), offset(0)), kept);
            }
        }
    }
}

fn filled(fs: &SimulatedFs, count: u64) -> Vec<(Offset, Vec<u8>)> {
    let dir = open_dir(fs);
    let mut log = new_log(&dir, small_segments());
    for tag in 0..count {
        append(&mut log, batch(tag, 60, tag as i64));
    }
    let all = read_all(&mut log, offset(0));
    log.flush().unwrap();
    let generation = dir.checkpoint_generation();
    let points = [(partition(), log.offsets().recovery_point)].into();
    dir.checkpoint(crate::log_dir::CheckpointKind::RecoveryPoint, points, generation).unwrap();
    all
}

fn overwrite(fs: &SimulatedFs, path: &str, change: impl FnOnce(&mut Vec<u8>)) {
    let path = std::path::Path::new(path);
    let mut bytes = crate::fs::read_file(fs, path, 1 << 20).unwrap();
    change(&mut bytes);
    let file = fs.open(path, crate::fs::OpenMode::Truncate).unwrap();
    file.write_at(&mut [std::io::IoSlice::new(&bytes)], 0).unwrap();
    file.sync_data().unwrap();
}

const FIRST: &str = "/data/orders-3/00000000000000000000";

#[test]
fn only_what_lies_past_the_recovery_point_is_read() {
    let fs = SimulatedFs::new();
    let all = filled(&fs, 40);
    fs.crash(Crash::Process);
    let (mut log, report) = recover(&open_dir(&fs), small_segments()).unwrap();
    assert!(report.bytes_read < 1000, "at most an index interval: {report}");
    assert_eq!(report.rebuilt_indexes, []);
    assert_eq!(read_all(&mut log, offset(0)), all);
}

#[test]
fn a_flipped_bit_past_the_recovery_point_is_cut_and_reported() {
    let fs = SimulatedFs::new();
    let dir = open_dir(&fs);
    let mut log = new_log(&dir, small_segments());
    for tag in 0..40 {
        append(&mut log, batch(tag, 60, tag as i64));
    }
    let all = read_all(&mut log, offset(0));
    drop((log, dir));
    fs.crash(Crash::Process);
    let one = all[0].1.len();
    overwrite(&fs, &format!("{FIRST}.log"), |bytes| bytes[2 * one + 70] ^= 1);
    let (mut log, report) = recover(&open_dir(&fs), small_segments()).unwrap();
    assert_eq!(read_all(&mut log, offset(0)), all[..2]);
    assert_eq!(report.bytes_cut(), 38 * one as u64);
    assert_eq!(report.cuts[0].position, 2 * one as u64);
    assert!(report.cuts[0].reason.contains("CRC"), "{report}");
    let names = fs.read_dir_names("/data/orders-3");
    assert_eq!(names.iter().filter(|name| name.ends_with(".log")).count(), 1, "{names:?}");
}

#[test]
fn damage_below_the_recovery_point_takes_the_partition_offline_and_changes_nothing() {
    for damage in ["flip", "cut", "zero"] {
        let fs = SimulatedFs::new();
        filled(&fs, 6);
        fs.crash(Crash::Process);
        overwrite(&fs, &format!("{FIRST}.log"), |bytes| match damage {
            "flip" => bytes[300] ^= 1,
            "cut" => bytes.truncate(300),
            _ => bytes[280..].fill(0),
        });
        // Without indexes all of it is read.
        fs.remove_file(std::path::Path::new(&format!("{FIRST}.index"))).unwrap();
        let before = fs.files();
        let error = recover(&open_dir(&fs), small_segments()).unwrap_err();
        let LogError::Damaged { reason, .. } = &error else { panic!("{error}") };
        assert!(reason.contains("recovery point") || reason.contains("synced"), "{reason}");
        assert_eq!(fs.files(), before, "{damage}");
    }
}

#[test]
fn wrong_and_missing_indexes_are_rebuilt_as_they_were() {
    let fs = SimulatedFs::new();
    let all = filled(&fs, 40);
    fs.crash(Crash::Process);
    let healthy = fs.files();
    for extension in ["index", "timeindex"] {
        for damage in ["missing", "partial", "backwards"] {
            let fs = fs.fork();
            let path = format!("{FIRST}.{extension}");
            match damage {
                "missing" => fs.remove_file(std::path::Path::new(&path)).unwrap(),
                "partial" => overwrite(&fs, &path, |bytes| bytes.truncate(bytes.len() - 1)),
                _ => overwrite(&fs, &path, |bytes| bytes.fill(0xff)),
            }
            let (mut log, report) = recover(&open_dir(&fs), small_segments()).unwrap();
            assert_eq!(report.rebuilt_indexes, [offset(0)], "{damage} {extension}");
            assert_eq!(read_all(&mut log, offset(0)), all);
            let find = |files: &[(std::path::PathBuf, Vec<u8>)]| {
                files.iter().find(|(name, _)| name.to_string_lossy() == path).unwrap().1.clone()
            };
            assert_eq!(find(&fs.files()), find(&healthy));
        }
    }
}

#[test]
fn a_batch_of_an_older_epoch_behind_a_newer_one_is_cut() {
    let fs = SimulatedFs::new();
    let dir = open_dir(&fs);
    let mut log = new_log(&dir, small_segments());
    append(&mut log, batch(0, 60, 0));
    log.append_as_leader(batch(1, 60, 0), AppendOrigin::Client, EPOCH.next(), NOW).unwrap();
    // As a lost truncation leaves it.
    log.append_as_leader(batch(2, 60, 0), AppendOrigin::Client, EPOCH, NOW).unwrap();
    drop((log, dir));
    fs.crash(Crash::Process);
    let (log, report) = recover(&open_dir(&fs), small_segments()).unwrap();
    assert_eq!(log.offsets().log_end, offset(2), "{report}");
}

#[test]
fn an_old_message_format_is_refused_not_cut() {
    // One message of format 1 as Kafka 0.10 wrote it: key "k", value "v".
    let mut message = vec![1, 0];
    message.extend(5i64.to_be_bytes());
    message.extend([0, 0, 0, 1, b'k', 0, 0, 0, 1, b'v']);
    let crc = crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32IsoHdlc, &message) as u32;
    let mut bytes = 0i64.to_be_bytes().to_vec();
    bytes.extend((message.len() as u32 + 4).to_be_bytes());
    bytes.extend(crc.to_be_bytes());
    bytes.extend(&message);
    bytes.extend(vec![0; 40]);
    let fs = SimulatedFs::new();
    filled(&fs, 1);
    fs.crash(Crash::Process);
    overwrite(&fs, &format!("{FIRST}.log"), |content| *content = bytes);
    fs.remove_file(std::path::Path::new("/data/recovery-point-offset-checkpoint")).unwrap();
    let error = recover(&open_dir(&fs), small_segments()).unwrap_err();
    assert!(error.to_string().contains("format 1"), "{error}");
}

#[test]
fn a_producer_snapshot_from_before_the_first_segment_is_not_believed() {
    let fs = SimulatedFs::new();
    let dir = open_dir(&fs);
    let mut log = new_log(&dir, small_segments());
    for batch in
        [idempotent(1, 0, 0, 2), idempotent(1, 0, 2, 2), idempotent(1, 0, 4, 2), batch(9, 60, 0)]
    {
        append(&mut log, batch);
        log.roll(NOW).unwrap();
    }
    drop((log, dir));
    fs.crash(Crash::Process);
    // Retention took what lies below 6; of that and of what came after it a power cut kept only some.
    let directory = std::path::Path::new("/data").join(partition().to_string());
    for (base, extensions) in [(0, &["log"][..]), (2, &["log", "snapshot"]), (4, &["log"])] {
        for extension in extensions {
            fs.remove_file(&directory.join(format!("{base:020}.{extension}"))).unwrap();
        }
    }
    for base in [6, 7] {
        fs.remove_file(&directory.join(format!("{base:020}.snapshot"))).unwrap();
    }
    let dir = open_dir(&fs);
    let points = [(partition(), offset(6))].into();
    let generation = dir.checkpoint_generation();
    dir.checkpoint(crate::log_dir::CheckpointKind::RecoveryPoint, points, generation).unwrap();
    let (mut log, _) = recover(&dir, small_segments()).unwrap();
    assert_eq!(log.offsets().log_start, offset(6));
    // The snapshot at 4 says that 4 comes next, and the batch with 4 and 5 is gone.
    assert_eq!(append(&mut log, idempotent(1, 0, 6, 2)).base_offset, offset(7));
}

#[test]
fn malformed_leader_epochs_take_the_partition_offline_and_nothing_else() {
    let fs = SimulatedFs::new();
    filled(&fs, 30);
    fs.crash(Crash::Process);
    overwrite(&fs, "/data/orders-3/leader-epoch-checkpoint", |bytes| *bytes = b"0\nx\n".to_vec());
    let dir = open_dir(&fs);
    let error = recover(&dir, small_segments()).unwrap_err();
    assert!(matches!(error, LogError::Damaged { .. }), "{error}");
    assert!(dir.offline_error().is_none());
}

#[test]
fn a_log_that_ends_before_its_log_start_begins_there() {
    let fs = SimulatedFs::new();
    let dir = open_dir(&fs);
    let mut log = new_log(&dir, small_segments());
    append(&mut log, batch(0, 60, 0));
    drop((log, dir));
    fs.crash(Crash::Process);
    let dir = open_dir(&fs);
    let generation = dir.checkpoint_generation();
    let starts = [(partition(), offset(50))].into();
    dir.checkpoint(crate::log_dir::CheckpointKind::LogStart, starts, generation).unwrap();
    let (mut log, report) = recover(&dir, small_segments()).unwrap();
    assert_eq!((log.offsets().log_start, log.offsets().log_end), (offset(50), offset(50)));
    assert!(report.bytes_cut() > 0);
    assert_eq!(append(&mut log, batch(1, 60, 0)).base_offset, offset(50));
}

#[test]
fn a_log_start_that_only_an_unsynced_segment_says_is_checkpointed() {
    let fs = SimulatedFs::new();
    let dir = open_dir(&fs);
    let mut log = new_log(&dir, small_segments());
    append(&mut log, batch(0, 60, 0));
    log.flush().unwrap();
    log.truncate_fully_and_start_at(offset(50), NOW).unwrap();
    append(&mut log, batch(1, 60, 0));
    assert_eq!(log.log_start_to_checkpoint(), Some(offset(50)));
    log.flush().unwrap();
    assert_eq!(log.log_start_to_checkpoint(), None);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// A directory with any of its files changed anywhere: it opens, or says why not, and what it then
    /// shows has right CRCs.
    #[test]
    fn a_mutated_directory_opens_or_says_why_not(
        file in any::<prop::sample::Index>(),
        at in any::<prop::sample::Index>(),
        value in any::<u8>(),
        cut in any::<bool>(),
    ) {
        let fs = SimulatedFs::new();
        filled(&fs, 30);
        fs.crash(Crash::Process);
        let files: Vec<_> = fs.files().into_iter()
            .filter(|(path, bytes)| path.starts_with("/data/orders-3") && !bytes.is_empty())
            .collect();
        let (path, bytes) = file.get(&files);
        let at = at.index(bytes.len());
        overwrite(&fs, &path.to_string_lossy(), |bytes| {
            if cut { bytes.truncate(at) } else { bytes[at] = value }
        });
        let dir = open_dir(&fs);
        if let Ok((mut log, _)) = recover(&dir, small_segments()) {
            let (start, end) = (log.offsets().log_start, log.offsets().log_end);
            let mut next = start;
            while next < end {
                let Ok(fetched) = log.read_plan(next, end, NOW).unwrap().execute(1, true) else { break };
                let bytes = fetched.read().unwrap();
                let Some(Ok(batch)) = crate::record_batch::batches(&bytes).next() else { break };
                if batch.next_offset() <= next { break }
                next = batch.next_offset();
            }
        }
    }
}
