//! What a log does when the process has no descriptor left: what was asked for fails, and nothing else.

use super::*;

fn is_without_descriptor(error: &AppendError) -> bool {
    matches!(error, AppendError::Log(LogError::Disk(DiskError::TooManyOpenFiles { .. })))
}

#[test]
fn without_descriptors_appends_and_reads_fail_and_go_on_when_there_are_some() {
    let fs = SimulatedFs::new();
    let dir = open_dir(&fs);
    let mut log = new_log(&dir, small_segments());
    let mut failed = (0, 0);
    for tag in 0..40 {
        if tag % 5 == 0 {
            log.flush().unwrap();
            (0..2).for_each(|_| dir.close_idle_files());
        }
        fs.limit_open_files(0);
        log.forget_tail();
        let plan = log.read_plan(offset(0), offset(tag), NOW).unwrap();
        if let Err(error) = plan.execute(1000, true) {
            assert!(matches!(
                error,
                ReadError::Log(LogError::Disk(DiskError::TooManyOpenFiles { .. }))
            ));
            failed.0 += 1;
        }
        // Segments are begun along the way.
        let appended = log.append_as_leader(batch(tag, 60, 0), AppendOrigin::Client, EPOCH, NOW);
        fs.limit_open_files(usize::MAX);
        if let Err(error) = appended {
            assert!(is_without_descriptor(&error), "{error}");
            failed.1 += 1;
            append(&mut log, batch(tag, 60, 0));
        }
        dir.check_online().unwrap();
    }
    assert!(failed.0 > 5 && failed.1 > 5, "{failed:?}");
    assert_eq!(tags(&mut log), (0..40).collect::<Vec<_>>());
    drop((log, dir));
    fs.crash(Crash::Process);
    let (mut log, report) = recover(&open_dir(&fs), small_segments()).unwrap();
    assert_eq!(report.bytes_cut(), 0, "{report}");
    assert_eq!(tags(&mut log), (0..40).collect::<Vec<_>>());
}

/// The log's files that have to be on the disk, but for the active segment's.
fn sealed_files(fs: &SimulatedFs) -> Vec<(std::path::PathBuf, Vec<u8>)> {
    let is_kept = |path: &Path| {
        let extension = path.extension().and_then(|extension| extension.to_str());
        path.starts_with("/data/orders-3")
            && extension.is_some_and(|it| it.ends_with("index") || it == "log")
    };
    fs.files().into_iter().filter(|(path, _)| is_kept(path)).collect()
}

#[test]
fn a_flush_that_found_no_descriptor_leaves_all_of_it_to_the_next_one() {
    for (scope, limit) in (0..16)
        .flat_map(|limit| [FlushScope::Records, FlushScope::Everything].map(|scope| (scope, limit)))
    {
        let fs = SimulatedFs::new();
        let dir = open_dir(&fs);
        let mut log = new_log(&dir, small_segments());
        (0..40).for_each(|tag| _ = append(&mut log, batch(tag, 60, 0)));
        fs.limit_open_files(limit);
        let ticket = log.flush_ticket(scope);
        let flushed = match ticket {
            Ok(ticket) => log.flush_completed(ticket.unwrap().run()).map(|_| ()),
            Err(error) => Err(error),
        };
        if let Err(error) = flushed {
            assert!(matches!(error, DiskError::TooManyOpenFiles { .. }), "{error}");
            let is_log = |path: &Path| path.extension().is_some_and(|extension| extension == "log");
            let closed = fs.dirty_and_closed();
            assert!(!closed.iter().any(|path| is_log(path)), "{limit}: {closed:?}");
        }
        dir.check_online().unwrap();
        fs.limit_open_files(usize::MAX);
        assert_eq!(log.flush().unwrap().recovery_point, offset(40));
        let written = sealed_files(&fs);
        fs.crash(Crash::PowerLosingUnsynced);
        assert!(
            sealed_files(&fs) == written,
            "{scope:?} with {limit}: the next flush left some out"
        );
        drop((log, dir));
        let (mut log, _) = recover(&open_dir(&fs), small_segments()).unwrap();
        assert_eq!(tags(&mut log), (0..40).collect::<Vec<_>>());
    }
}

#[test]
fn a_truncation_that_cannot_come_to_its_end_takes_the_directory_offline() {
    let fs = SimulatedFs::new();
    let dir = open_dir(&fs);
    let mut log = new_log(&dir, small_segments());
    (0..40).for_each(|tag| _ = append(&mut log, batch(tag, 60, 0)));
    fs.limit_open_files(0);
    assert!(log.truncate_to(offset(20), NOW).is_err());
    assert!(dir.check_online().is_err(), "some of its segments have gone");
}

#[test]
fn who_must_not_wait_opens_no_file_and_maps_no_index() {
    let fs = SimulatedFs::new();
    let dir = open_dir(&fs);
    let mut log = new_log(&dir, small_segments());
    (0..40).for_each(|tag| _ = append(&mut log, batch(tag, 60, 0)));
    log.flush().unwrap();
    let mut read = |is_in_memory: bool| {
        log.forget_tail();
        let plan = log.read_plan(offset(3), offset(5), NOW).unwrap();
        let plan = if is_in_memory { plan.in_memory() } else { plan };
        plan.execute(1000, true).map(|found| found.size_bytes)
    };
    (0..2).for_each(|_| dir.close_idle_files());
    assert!(matches!(read(true), Err(ReadError::NotInMemory)));
    assert_eq!(fs.open_files(), 0);
    let size = read(false).unwrap();
    assert!(size > 0);
    assert_eq!(read(true).unwrap(), size, "the one that waited has opened them");
}
