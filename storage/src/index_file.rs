//! Reading a sealed index without copying it. Half of the project's `unsafe` is in this file, the other in `fs/page_cache`.
//!
//! The rule that makes a mapping sound: **a file that may be mapped is never cut and never written**.
//! Indexes are mapped only when their segment is sealed. Whoever must shorten or rebuild a sealed index
//! (truncation, recovery) writes another file and renames it over the old name ([`replace`]), which
//! leaves the mapped file as it was; and the log directory's lock keeps other brokers off.
#![allow(unsafe_code)]

use std::fs::File;
use std::io::{self, IoSlice};
use std::ops::Deref;
use std::path::Path;

use crate::fs::{Fs, OpenMode};

/// The bytes of a file, mapped where the disk can, else owned. Never changes.
#[derive(Debug)]
pub struct MappedBytes(Content);

#[derive(Debug)]
enum Content {
    Mapped(memmap2::Mmap),
    Owned(Box<[u8]>),
}

impl MappedBytes {
    /// Bytes in memory.
    pub fn owned(bytes: Vec<u8>) -> MappedBytes {
        MappedBytes(Content::Owned(bytes.into_boxed_slice()))
    }
}

impl Deref for MappedBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.0 {
            Content::Mapped(map) => map,
            Content::Owned(bytes) => bytes,
        }
    }
}

/// Maps a whole file of the real disk, to read.
///
/// # Errors
/// What the kernel says.
pub(crate) fn map(file: &File) -> io::Result<MappedBytes> {
    if file.metadata()?.len() == 0 {
        return Ok(MappedBytes::owned(Vec::new())); // an empty mapping is an error to mmap
    }
    // SAFETY: the file is a sealed index in a log directory that is ours alone (`log_dir` holds its
    // lock). Sealed indexes are neither written nor cut: `replace` below writes a new file in place of
    // one that has to change, and deleting only removes the name. So the mapped bytes stay as they are,
    // and there, for as long as the mapping lives.
    let map = unsafe { memmap2::Mmap::map(file)? };
    Ok(MappedBytes(Content::Mapped(map)))
}

/// Puts `bytes` in place of the index file at `path`, without touching the file that was there.
/// The content is synced before the name moves, so a power cut leaves the old or the new index, never
/// an empty one that would pass for an index without entries.
///
/// # Errors
/// What the disk says; the old file is then still in place, whole.
pub(crate) fn replace(fs: &dyn Fs, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".tmp");
    let temporary = Path::new(&temporary);
    let file = fs.open(temporary, OpenMode::Truncate)?;
    file.write_at(&mut [IoSlice::new(bytes)], 0)?;
    file.sync_data()?;
    fs.rename(temporary, path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs::real::RealFs;

    #[test]
    fn a_mapping_outlives_the_replacement_of_its_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("0.index");
        let fs = RealFs::new();
        replace(&fs, &path, b"before").unwrap();
        let map = fs.open(&path, OpenMode::Read).unwrap().map().unwrap();
        replace(&fs, &path, b"x").unwrap();
        assert_eq!(&*map, b"before");
        assert_eq!(&*fs.open(&path, OpenMode::Read).unwrap().map().unwrap(), b"x");
    }

    #[test]
    fn an_empty_file_maps_to_no_bytes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("0.index");
        replace(&RealFs::new(), &path, b"").unwrap();
        let file = RealFs::new().open(&path, OpenMode::Read).unwrap();
        assert!(file.map().unwrap().is_empty());
    }
}
