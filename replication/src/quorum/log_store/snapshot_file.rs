//! Snapshot files: `<index>-<term>.checkpoint`, written whole or not at all.

use std::io::{self, IoSlice};
use std::path::Path;

use storage::fs::{Fs, OpenMode, SyncTarget};
use storage::timestamp::Timestamp;

use super::batch_file::{BatchReader, ReadBatchError, push_batch};
use super::{LogStoreError, io_error};
use crate::quorum::codec::{QuorumDecodeError, QuorumSnapshot};

const SUFFIX: &str = ".checkpoint";
const UNFINISHED: &str = ".checkpoint.tmp";

/// Kafka's shape of the name, whose dump tool reads index ("offset") and term ("epoch") from it.
fn name(index: u64, term: u64) -> String {
    format!("{index:020}-{term:010}{SUFFIX}")
}

/// Index and term of a snapshot's file name; `None` for any other file.
pub(super) fn parse_name(name: &str) -> Option<(u64, u64)> {
    let (index, term) = name.strip_suffix(SUFFIX)?.split_once('-')?;
    let is_number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    (index.len() == 20 && term.len() >= 10 && is_number(index) && is_number(term))
        .then(|| Some((index.parse().ok()?, term.parse().ok()?)))?
}

pub(super) fn is_unfinished(name: &str) -> bool {
    name.ends_with(UNFINISHED)
}

/// Writes, fsyncs and renames into place; `names`, of other directories, are synced before the rename too. The snapshot's own
/// name is durable after the caller has synced the directory.
pub(super) fn write(
    fs: &dyn Fs,
    dir: &Path,
    snapshot: &QuorumSnapshot,
    now: Timestamp,
    names: &[&Path],
) -> Result<(), LogStoreError> {
    let path = dir.join(name(snapshot.index, snapshot.term));
    let unfinished = path.with_extension("checkpoint.tmp");
    let written = write_content(fs, &unfinished, snapshot, now, names)
        .and_then(|()| fs.rename(&unfinished, &path).map_err(io_error("rename into place", &path)));
    if written.is_err() {
        // On a full disk this gives the space back; if it fails too, the next open removes the file.
        let _ = fs.remove_file(&unfinished);
    }
    written
}

fn write_content(
    fs: &dyn Fs,
    path: &Path,
    snapshot: &QuorumSnapshot,
    now: Timestamp,
    names: &[&Path],
) -> Result<(), LogStoreError> {
    let file = fs.open(path, OpenMode::Truncate).map_err(io_error("create", path))?;
    let mut position = 0;
    for (offset, part) in snapshot.encode().into_iter().enumerate() {
        let mut bytes = Vec::new();
        push_batch(&mut bytes, offset as u64, snapshot.term, &part, now);
        file.write_at(&mut [IoSlice::new(&bytes)], position).map_err(io_error("write", path))?;
        position += bytes.len() as u64;
    }
    let synced = [path].into_iter().chain(names.iter().copied());
    let names = names.iter().map(|name| SyncTarget::Names(name));
    let targets: Vec<_> = [SyncTarget::Data(&*file)].into_iter().chain(names).collect();
    for (outcome, path) in fs.sync_together(&targets).into_iter().zip(synced) {
        outcome.map_err(io_error("fsync", path))?;
    }
    Ok(())
}

/// Reads the snapshot with this index and term.
pub(super) fn read(
    fs: &dyn Fs,
    dir: &Path,
    index: u64,
    term: u64,
) -> Result<QuorumSnapshot, LogStoreError> {
    let path = dir.join(name(index, term));
    let corrupt =
        |position, reason| LogStoreError::Corrupt { path: path.clone(), position, reason };
    let file = fs.open(&path, OpenMode::Read).map_err(io_error("open", &path))?;
    let mut reader = BatchReader::new(file, 0).map_err(io_error("read", &path))?;
    let mut parts = Vec::new();
    loop {
        match reader.next_batch() {
            Ok(Some(batch)) if batch.offset == parts.len() as u64 => parts.push(batch.value),
            Ok(Some(batch)) => return Err(corrupt(batch.position, "a part is missing".to_owned())),
            Ok(None) => break,
            Err(ReadBatchError::Io(source)) => return Err(io_error("read", &path)(source)),
            Err(ReadBatchError::Invalid { position, reason }) => {
                return Err(corrupt(position, reason));
            }
        }
    }
    let snapshot = QuorumSnapshot::decode(parts.iter().map(Vec::as_slice))
        .map_err(|source| LogStoreError::Payload { path: path.clone(), position: 0, source })?;
    if (snapshot.index, snapshot.term) != (index, term) {
        let source = QuorumDecodeError::Value {
            what: "snapshot index in a file of another name",
            value: snapshot.index,
        };
        return Err(LogStoreError::Payload { path, position: 0, source });
    }
    Ok(snapshot)
}

/// Removes every snapshot but the one with this index and term.
pub(super) fn remove_others(
    fs: &dyn Fs,
    dir: &Path,
    keep: (u64, u64),
) -> Result<(), LogStoreError> {
    for entry in fs.read_dir(dir).map_err(io_error("list", dir))? {
        if parse_name(&entry.name).is_some_and(|found| found != keep) {
            remove_if_there(fs, &dir.join(&entry.name))?;
        }
    }
    Ok(())
}

pub(super) fn remove_if_there(fs: &dyn Fs, path: &Path) -> Result<(), LogStoreError> {
    match fs.remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(io_error("remove", path)(error))
        }
        _ => Ok(()),
    }
}
