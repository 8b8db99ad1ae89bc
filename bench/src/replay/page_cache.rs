//! Files taken out of the page cache, so that the next reader waits for the disk.

use std::fs::{self, File};
use std::path::Path;

use rustix::fs::{Advice, fadvise};

use crate::failure::{Failure, io_failure};

/// Writes back every file below `directory` that belongs to a partition of `topic` (its own name, or its directory's, is
/// `topic-N`), and drops its pages. Returns the bytes that the files hold.
///
/// # Errors
/// When a file cannot be read or synced; one that vanishes meanwhile is no error.
pub fn drop_topic(directory: &Path, topic: &str) -> Result<u64, Failure> {
    let mut dropped = 0;
    let entries =
        fs::read_dir(directory).map_err(io_failure(format!("{}", directory.display())))?;
    for entry in entries {
        let entry = entry.map_err(io_failure(format!("{}", directory.display())))?;
        let path = entry.path();
        if is_partition_of(topic, &entry.file_name().to_string_lossy()) {
            dropped += drop_all(&path)?;
        } else if path.is_dir() {
            dropped += drop_topic(&path, topic)?;
        }
    }
    Ok(dropped)
}

fn is_partition_of(topic: &str, name: &str) -> bool {
    let index = name.strip_prefix(topic).and_then(|rest| rest.strip_prefix('-'));
    index.is_some_and(|index| index.parse::<u32>().is_ok())
}

/// A file, or all files of a directory.
fn drop_all(path: &Path) -> Result<u64, Failure> {
    if !path.is_dir() {
        return drop_file(path).map_err(io_failure(format!("dropping {}", path.display())));
    }
    let mut dropped = 0;
    for entry in fs::read_dir(path).map_err(io_failure(format!("{}", path.display())))?.flatten() {
        dropped += drop_all(&entry.path())?;
    }
    Ok(dropped)
}

/// One file: only clean pages can be dropped, so it is synced first. Returns its size in bytes.
pub(crate) fn drop_file(path: &Path) -> std::io::Result<u64> {
    let file = match File::open(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(0),
        file => file?,
    };
    file.sync_data()?;
    fadvise(&file, 0, None, Advice::DontNeed)?;
    Ok(file.metadata()?.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partition_is_its_topic_and_a_number() {
        assert!(is_partition_of("a-b", "a-b-0"));
        assert!(!is_partition_of("a", "a-b-0"));
        assert!(!is_partition_of("a", "ab-0"));
        assert!(!is_partition_of("a", "a"));
    }

    #[test]
    fn files_and_directories_of_the_topic_are_found_and_nothing_else() {
        let directory = std::env::temp_dir().join(format!("page-cache-{}", std::process::id()));
        let inside = directory.join("log/t-1");
        fs::create_dir_all(&inside).expect("a directory");
        fs::write(inside.join("0.log"), [1; 1000]).expect("written");
        fs::write(directory.join("t-0"), [1; 100]).expect("written");
        fs::write(directory.join("other-0"), [1; 10]).expect("written");
        assert_eq!(drop_topic(&directory, "t").expect("dropped"), 1100);
        fs::remove_dir_all(&directory).expect("removed");
    }
}
