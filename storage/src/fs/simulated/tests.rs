use super::*;
use crate::fs::read_file;

fn write(fs: &SimulatedFs, path: &str, position: u64, bytes: &[u8]) -> Arc<dyn FsFile> {
    let file = fs.open(Path::new(path), OpenMode::Create).unwrap();
    file.write_at(&mut [IoSlice::new(bytes)], position).unwrap();
    file
}

fn read(fs: &SimulatedFs, path: &str) -> io::Result<Vec<u8>> {
    read_file(fs, Path::new(path), 1 << 20)
}

#[test]
fn a_killed_process_loses_nothing_it_wrote() {
    let fs = SimulatedFs::new();
    let file = write(&fs, "/a", 0, b"one");
    fs.crash(Crash::Process);
    assert_eq!(read(&fs, "/a").unwrap(), b"one");
    assert!(file.sync_data().is_err(), "the handle's process is dead");
}

#[test]
fn a_power_cut_loses_names_and_bytes_that_were_not_synced() {
    let fs = SimulatedFs::new();
    write(&fs, "/a", 0, b"one").sync_data().unwrap();
    fs.crash(Crash::PowerLosingUnsynced);
    assert!(read(&fs, "/a").is_err(), "the name was not synced");

    let file = write(&fs, "/b", 0, b"one");
    file.sync_data().unwrap();
    fs.sync_dir(Path::new("/")).unwrap();
    file.write_at(&mut [IoSlice::new(b"two")], 3).unwrap();
    fs.rename(Path::new("/b"), Path::new("/c")).unwrap();
    assert_eq!(read(&fs, "/c").unwrap(), b"onetwo");
    fs.crash(Crash::PowerLosingUnsynced);
    assert_eq!(read(&fs, "/b").unwrap(), b"one");
    assert!(read(&fs, "/c").is_err());
}

#[test]
fn a_seeded_power_cut_keeps_what_was_synced_and_replays_exactly() {
    let mut outcomes = std::collections::BTreeSet::new();
    for seed in 0..200 {
        let fs = SimulatedFs::new();
        let file = write(&fs, "/a", 0, &[1; 600]);
        file.sync_data().unwrap();
        fs.sync_dir(Path::new("/")).unwrap();
        file.write_at(&mut [IoSlice::new(&[2; 1500])], 600).unwrap();
        file.write_at(&mut [IoSlice::new(&[3; 10])], 2100).unwrap();
        let twin = fs.fork();
        fs.crash(Crash::PowerKeepingSome { seed });
        twin.crash(Crash::PowerKeepingSome { seed });
        assert_eq!(fs.files(), twin.files(), "seed {seed}");
        let content = read(&fs, "/a").unwrap();
        assert_eq!(content[..600], [1; 600], "seed {seed}");
        outcomes.insert(content);
    }
    assert!(outcomes.len() > 10, "torn, holed, cut and whole ones: {}", outcomes.len());
    assert!(outcomes.iter().any(|content| content[600..].contains(&0)), "a hole of zeroes");
}

#[test]
fn a_removed_file_stays_readable_through_its_handle() {
    let fs = SimulatedFs::new();
    let file = write(&fs, "/a", 0, b"one");
    fs.remove_file(Path::new("/a")).unwrap();
    let mut buffer = [0; 3];
    file.read_exact_at(&mut buffer, 0).unwrap();
    assert_eq!(&buffer, b"one");
    assert_eq!(fs.open_files(), 1);
    drop(file);
    assert_eq!(fs.open_files(), 0);
}

#[test]
fn faults_come_when_and_where_they_were_asked_for() {
    let fs = SimulatedFs::new();
    let a = write(&fs, "/a", 0, b"1");
    let b = write(&fs, "/b", 0, b"1");
    fs.inject(Fault {
        operation: Operation::Sync,
        path_contains: "b".into(),
        skip: 1,
        times: 1,
        error: io::ErrorKind::Other,
    });
    a.sync_data().unwrap();
    b.sync_data().unwrap();
    assert!(b.sync_data().is_err());
    b.sync_data().unwrap();
}

#[test]
fn a_full_disk_takes_a_part_and_says_so() {
    let fs = SimulatedFs::new();
    let file = write(&fs, "/a", 0, b"");
    fs.inject(Fault {
        operation: Operation::Write,
        path_contains: String::new(),
        skip: 0,
        times: 1,
        error: io::ErrorKind::StorageFull,
    });
    let error = file.write_at(&mut [IoSlice::new(b"1234")], 0).unwrap_err();
    assert!(crate::fs::is_disk_full(&error));
    assert_eq!(read(&fs, "/a").unwrap(), b"12");
}

#[test]
fn a_stopped_disk_keeps_what_came_before_until_the_crash() {
    let fs = SimulatedFs::new();
    fs.stop_after_bytes(4);
    let file = write(&fs, "/a", 0, b"123");
    assert!(file.write_at(&mut [IoSlice::new(b"456")], 3).is_err());
    assert!(file.sync_data().is_err());
    fs.crash(Crash::Process);
    assert_eq!(read(&fs, "/a").unwrap(), b"1234");

    fs.stop_after_changes(1);
    fs.create_dir(Path::new("/d")).unwrap();
    assert!(fs.create_dir(Path::new("/e")).is_err());
    fs.crash(Crash::Process);
    assert!(fs.metadata(Path::new("/d")).unwrap().is_dir);
    assert!(fs.metadata(Path::new("/e")).is_err());
}

#[test]
fn a_lock_is_held_until_dropped_or_crashed() {
    let fs = SimulatedFs::new();
    let path = Path::new("/.lock");
    let lock = fs.lock(path).unwrap();
    assert!(fs.lock(path).is_err());
    fs.crash(Crash::Process);
    let second = fs.lock(path).unwrap();
    drop(lock);
    assert!(fs.lock(path).is_err(), "dropping a dead process's lock frees nothing");
    drop(second);
    fs.lock(path).unwrap();
}

#[test]
fn a_failed_write_back_is_told_once_and_only_where_the_file_was_open() {
    let fs = SimulatedFs::new();
    let open = write(&fs, "/open", 0, b"1");
    drop(write(&fs, "/closed", 0, b"1"));
    assert_eq!(fs.dirty_and_closed(), [Path::new("/closed")]);
    fs.fail_write_back("/");
    assert!(open.sync_data().is_err());
    open.sync_data().unwrap();
    fs.open(Path::new("/closed"), OpenMode::Write).unwrap().sync_data().unwrap();
    assert_eq!((read(&fs, "/open").unwrap(), read(&fs, "/closed").unwrap()), (vec![], vec![]));
    assert!(fs.dirty_and_closed().is_empty());
}
