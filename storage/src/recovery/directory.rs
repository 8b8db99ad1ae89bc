//! What files a log's directory holds.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use crate::log_dir::DiskError;
use crate::log_dir::names::{DELETED_FILE_SUFFIX, parse_segment_file_name};
use crate::offset::Offset;
use crate::segment::{INDEX_EXTENSIONS, Place, SegmentTimes};
use crate::timestamp::Timestamp;

/// One `.log` file.
#[derive(Clone, Copy, Debug)]
pub(super) struct LogFile {
    pub(super) size_bytes: u64,
    pub(super) modified: Timestamp,
}

impl LogFile {
    pub(super) fn times(&self) -> SegmentTimes {
        SegmentTimes { first: None, largest: None, created: self.modified, modified: self.modified }
    }
}

/// The files of a log's directory.
#[derive(Debug, Default)]
pub(super) struct Files {
    pub(super) logs: BTreeMap<Offset, LogFile>,
    pub(super) snapshots: BTreeSet<Offset>,
    indexes: BTreeSet<(Offset, &'static str)>,
}

impl Files {
    pub(super) fn has(&self, base_offset: Offset, extension: &'static str) -> bool {
        self.indexes.contains(&(base_offset, extension))
    }
}

/// Lists the directory and removes what is left over: files being deleted or replaced, and indexes without
/// a log.
pub(super) fn read(place: Place<'_>) -> Result<Files, DiskError> {
    let fs = place.dir.fs();
    let entries = place.dir.judge("read", place.path, fs.read_dir(place.path))?;
    let mut files = Files::default();
    for entry in entries.iter().filter(|entry| !entry.is_dir) {
        let path = place.path.join(&entry.name);
        let left_over = [DELETED_FILE_SUFFIX, ".tmp", ".cleaned"]
            .iter()
            .any(|suffix| entry.name.ends_with(suffix));
        if left_over {
            remove(place, &path)?;
            continue;
        }
        match parse_segment_file_name(&entry.name) {
            Some((base_offset, "log")) => {
                let metadata = place.dir.judge("read", &path, fs.metadata(&path))?;
                let file = LogFile { size_bytes: metadata.size_bytes, modified: metadata.modified };
                files.logs.insert(base_offset, file);
            }
            Some((base_offset, "snapshot")) => _ = files.snapshots.insert(base_offset),
            Some((base_offset, extension)) => {
                let index = INDEX_EXTENSIONS.into_iter().find(|index| *index == extension);
                if let Some(index) = index {
                    files.indexes.insert((base_offset, index));
                }
            }
            None => {}
        }
    }
    let orphans: Vec<_> = files
        .indexes
        .iter()
        .copied()
        .filter(|(base_offset, _)| !files.logs.contains_key(base_offset))
        .collect();
    for (base_offset, extension) in orphans {
        remove(place, &place.file(base_offset, extension))?;
        files.indexes.remove(&(base_offset, extension));
    }
    Ok(files)
}

pub(super) fn remove(place: Place<'_>, path: &std::path::Path) -> Result<(), DiskError> {
    match place.dir.fs().remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            place.dir.judge("remove", path, Err(error))
        }
        _ => Ok(()),
    }
}
