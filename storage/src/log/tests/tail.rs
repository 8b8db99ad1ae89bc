//! What the tail cache serves, beside what the files hold.

use proptest::prelude::*;

use super::*;

/// The bytes of the files from the batch that holds `from` to below `bound`, read plan by plan.
fn in_files(log: &mut Log, from: Offset, bound: Offset) -> Vec<u8> {
    let is_followed = std::mem::take(&mut log.is_followed);
    let mut all = Vec::new();
    let mut next = from;
    while next < bound {
        let plan = log.read_plan(next, bound, NOW).unwrap();
        log.is_followed = false; // reading near the end makes it followed
        let bytes = plan.execute(usize::MAX, true).unwrap().read().unwrap();
        let Some(last) = batches(&bytes).last() else { break };
        next = last.unwrap().next_offset();
        all.extend(bytes);
    }
    log.is_followed = is_followed;
    all
}

#[derive(Clone, Debug)]
enum Step {
    Append { size: usize },
    AppendToFullDisk { size: usize },
    Follow,
    Truncate { back: u64 },
    TruncateAll { to: u64 },
    DeleteRecords { back: u64 },
    Roll,
    Retain,
    Read { back: u64, bound_back: u64, max_bytes: usize, min_one_batch: bool },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0usize..400).prop_map(|size| Step::Append { size }),
        1 => (65_000usize..67_000).prop_map(|size| Step::Append { size }),
        1 => (0usize..400).prop_map(|size| Step::AppendToFullDisk { size }),
        2 => Just(Step::Follow),
        1 => (0u64..5).prop_map(|back| Step::Truncate { back }),
        1 => (0u64..50).prop_map(|to| Step::TruncateAll { to }),
        1 => (0u64..5).prop_map(|back| Step::DeleteRecords { back }),
        1 => Just(Step::Roll),
        1 => Just(Step::Retain),
        6 => (0u64..8, 0u64..4, 0usize..1500, any::<bool>()).prop_map(
            |(back, bound_back, max_bytes, min_one_batch)| Step::Read {
                back,
                bound_back,
                max_bytes,
                min_one_batch,
            }
        ),
    ]
}

fn back_from(end: Offset, back: u64) -> Offset {
    offset(u64::try_from(end.value()).unwrap().saturating_sub(back))
}

proptest! {
    /// Whatever is appended, cut, deleted or refused in between: what is read from memory is what the files hold at
    /// those offsets, up to the same bound.
    #[test]
    fn what_is_served_from_memory_is_what_the_files_hold(
        steps in prop::collection::vec(step(), 0..80),
        takes_large in any::<bool>(),
    ) {
        let fs = SimulatedFs::new();
        let dir = open_dir(&fs);
        let config = match takes_large {
            true => LogConfig {
                segment_bytes: 200_000,
                retention_bytes: Some(400_000),
                ..small_segments()
            },
            false => LogConfig { retention_bytes: Some(2000), ..small_segments() },
        };
        let mut log = new_log(&dir, config);
        let mut tag = 0;
        for step in steps {
            let ends = log.offsets();
            match step {
                Step::Append { size } => {
                    tag += 1;
                    let size = if takes_large { size } else { size % 400 };
                    append(&mut log, batch(tag, size, 0));
                    log.update_high_watermark(log.log_end);
                }
                Step::AppendToFullDisk { size } => {
                    tag += 1;
                    fs.inject(Fault {
                        operation: Operation::Write,
                        path_contains: ".log".into(),
                        skip: 0,
                        times: 1,
                        error: std::io::ErrorKind::StorageFull,
                    });
                    let refused = batch(tag, size, 0);
                    log.append_as_leader(refused, AppendOrigin::Client, EPOCH, NOW).unwrap_err();
                }
                Step::Follow => log.note_follower(),
                Step::Truncate { back } => {
                    log.truncate_to(back_from(ends.log_end, back), NOW).unwrap();
                }
                Step::TruncateAll { to } => {
                    log.truncate_fully_and_start_at(offset(to), NOW).unwrap();
                }
                Step::DeleteRecords { back } => {
                    log.delete_records(back_from(ends.log_end, back), NOW).unwrap();
                }
                Step::Roll => {
                    let last = log.loaded().and_then(|loaded| loaded.segments.last());
                    if last.is_some_and(|last| last.size_bytes() > 0) {
                        log.roll_at(ends.log_end, NOW).unwrap();
                    }
                }
                Step::Retain => _ = log.delete_old_segments(NOW).unwrap(),
                Step::Read { back, bound_back, max_bytes, min_one_batch } => {
                    let from = back_from(ends.log_end, back).max(ends.log_start);
                    let bound = back_from(ends.log_end, bound_back);
                    let held = in_files(&mut log, from, bound);
                    let plan = log.read_plan(from, bound, NOW).unwrap();
                    let is_from_memory = matches!(plan.source, read::Source::Memory(_));
                    let read = plan.execute(max_bytes, min_one_batch).unwrap().read().unwrap();
                    prop_assert!(held.starts_with(&read));
                    if is_from_memory {
                        let mut wanted = 0;
                        for batch in batches(&held) {
                            let size = batch.unwrap().bytes().len();
                            if wanted + size > max_bytes && !(min_one_batch && wanted == 0) {
                                break;
                            }
                            wanted += size;
                        }
                        prop_assert_eq!(read.len(), wanted);
                    }
                }
            }
        }
    }
}

fn is_from_memory(log: &mut Log, from: u64) -> bool {
    let bound = log.log_end;
    let plan = log.read_plan(offset(from), bound, NOW).unwrap();
    matches!(plan.source, read::Source::Memory(_))
}

#[test]
fn only_what_is_appended_while_somebody_reads_the_end_is_kept_in_memory() {
    let dir = open_dir(&SimulatedFs::new());
    let mut log = new_log(&dir, LogConfig::default());
    append(&mut log, batch(0, 10, 0));
    log.is_followed = false;
    append(&mut log, batch(1, 10, 0));
    assert!(!is_from_memory(&mut log, 0), "nobody followed when they were appended");
    append(&mut log, batch(2, 10, 0));
    assert!(is_from_memory(&mut log, 2) && !is_from_memory(&mut log, 1));
    // So much without a read that nobody can be following.
    let mut unread = 0;
    while log.is_followed {
        append(&mut log, batch(3, 50_000, 0));
        unread += 1;
    }
    assert!((80..90).contains(&unread), "half of the cache, not {unread} batches of 50 kB");
    assert!(!is_from_memory(&mut log, 2));
}

#[test]
fn a_read_planned_from_memory_before_a_truncation_is_superseded() {
    let dir = open_dir(&SimulatedFs::new());
    let mut log = new_log(&dir, LogConfig::default());
    log.note_follower();
    append(&mut log, batch(0, 10, 0));
    append(&mut log, batch(1, 10, 0));
    let plan = log.read_plan(offset(0), offset(2), NOW).unwrap();
    assert!(matches!(plan.source, read::Source::Memory(_)));
    log.truncate_to(offset(1), NOW).unwrap();
    assert!(matches!(plan.execute(1000, true), Err(ReadError::Superseded)));
}

#[test]
fn an_answer_of_large_batches_ends_with_a_whole_one() {
    let dir = open_dir(&SimulatedFs::new());
    let mut log = new_log(&dir, LogConfig::default());
    for tag in 0..20 {
        append(&mut log, batch(tag, 100_000, 0));
    }
    let size = log.size_bytes as usize / 20;
    let read = |log: &mut Log, max_bytes| {
        let plan = log.read_plan(offset(0), offset(20), NOW).unwrap();
        let read = plan.execute(max_bytes, true).unwrap();
        assert_eq!(
            read.is_cut,
            read.size_bytes < 20 * size,
            "a fetch need not wait for what is there"
        );
        read.size_bytes
    };
    assert_eq!(read(&mut log, 1), size);
    assert_eq!(read(&mut log, 2 * size - 1), size);
    assert_eq!(read(&mut log, 2 * size), 2 * size);
    assert_eq!(read(&mut log, 10 * size + 50), 10 * size);
    assert_eq!(read(&mut log, 19 * size + 500), 19 * size + 500, "too many to be looked at");
    assert_eq!(read(&mut log, 21 * size), 20 * size);
}

#[test]
fn a_batch_that_does_not_fit_yields_nothing_and_is_told_as_cut() {
    let dir = open_dir(&SimulatedFs::new());
    let mut log = new_log(&dir, LogConfig::default());
    log.note_follower();
    append(&mut log, batch(0, 1000, 0));
    let read = |log: &mut Log| {
        let plan = log.read_plan(offset(0), offset(1), NOW).unwrap();
        let is_from_memory = matches!(plan.source, read::Source::Memory(_));
        let read = plan.execute(100, false).unwrap();
        assert_eq!((read.size_bytes, read.slices.len(), read.is_cut), (0, 0, true));
        is_from_memory
    };
    assert!(read(&mut log), "just appended");
    log.is_followed = false;
    assert!(!read(&mut log));
}
