//! Reading the log back: the latest snapshot, then every batch in order.
//!
//! Only the last segment can be torn, and only behind what was fsynced. Each batch says up to where the log was durable when
//! it was written; so if a whole batch that vouches for a damaged one lies behind it, the damage is not a tear and the start
//! is refused rather than a vote or an entry forgotten.

use std::io;
use std::path::Path;
use std::sync::Arc;

use storage::fs::{Fs, FsFile, OpenMode};

use super::batch_file::{BatchReader, ReadBatch, ReadBatchError, parse_segment_name, segment_name};
use super::snapshot_file;
use super::{EmptyLog, LogStore, LogStoreConfig, LogStoreError, OpenedLog, Segment, io_error};
use crate::quorum::QuorumState;
use crate::quorum::codec::{HardState, LogBody, LogEntry, LogPayload, QuorumSnapshot};

pub(super) fn open(
    fs: Arc<dyn Fs>,
    dir: &Path,
    config: LogStoreConfig,
) -> Result<OpenedLog, LogStoreError> {
    let entries = match fs.read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let dir = dir.to_owned();
            return Ok(OpenedLog::Empty(EmptyLog { fs, dir, config, dir_exists: false }));
        }
        Err(error) => return Err(io_error("list", dir)(error)),
    };
    let mut snapshots = Vec::new();
    let mut base_offsets = Vec::new();
    for entry in &entries {
        if snapshot_file::is_unfinished(&entry.name) {
            snapshot_file::remove_if_there(&*fs, &dir.join(&entry.name))?;
        }
        snapshots.extend(snapshot_file::parse_name(&entry.name));
        base_offsets.extend(parse_segment_name(&entry.name));
    }
    base_offsets.sort_unstable();
    let Some(&(index, term)) = snapshots.iter().max() else {
        remove_unfinished_bootstrap(&*fs, dir, &base_offsets)?;
        let dir = dir.to_owned();
        return Ok(OpenedLog::Empty(EmptyLog { fs, dir, config, dir_exists: true }));
    };
    let snapshot = snapshot_file::read(&*fs, dir, index, term)?;

    let mut replay = Replay::new(dir, &snapshot, base_offsets.first().copied().unwrap_or(0));
    let mut segments = Vec::new();
    let mut cut_bytes = 0;
    for (number, base_offset) in base_offsets.iter().enumerate() {
        let is_last = number + 1 == base_offsets.len();
        let (segment, cut) = replay.read_segment(&*fs, *base_offset, is_last)?;
        segments.push(segment);
        cut_bytes += cut;
    }
    let next_offset = replay.next_offset;
    let (state, needs_restart) = replay.finish(snapshot)?;
    let store = LogStore {
        fs,
        dir: dir.to_owned(),
        config,
        active: None,
        next_offset,
        // Not next_offset: the tail may be in the page cache only.
        durable_end: segments.last().map_or(0, |segment: &Segment| segment.base_offset),
        hard_state: state.hard_state,
        snapshot: (index, term),
        needs_restart,
        // Whether the last names were synced is not known.
        unsynced_names: true,
        unsynced_parent: true,
        unsynced_tail: segments
            .last()
            .is_some_and(|segment| segment.size_bytes > 0 || cut_bytes > 0),
        holds_back: false,
        segments,
        failed: false,
    };
    Ok(OpenedLog::Found { store: Box::new(store), state, cut_bytes })
}

/// No snapshot: a bootstrap that a crash cut off before its first write was durable, and so promised nothing. A log that
/// says that it was durable beyond its first write has lost its snapshot.
fn remove_unfinished_bootstrap(
    fs: &dyn Fs,
    dir: &Path,
    base_offsets: &[u64],
) -> Result<(), LogStoreError> {
    for &base_offset in base_offsets {
        let path = dir.join(segment_name(base_offset));
        let file = fs.open(&path, OpenMode::Read).map_err(io_error("open", &path))?;
        let vouches = base_offset > 0
            || find_batch(&file, 0, |_, payload| payload.durable_end > 0)
                .map_err(io_error("read", &path))?;
        if vouches {
            return Err(LogStoreError::SnapshotMissing { dir: dir.to_owned() });
        }
        snapshot_file::remove_if_there(fs, &path)?;
    }
    Ok(())
}

/// Whether a whole batch that begins anywhere from `position` on satisfies `wanted`. Only for damaged files: it tries every
/// byte.
fn find_batch(
    file: &Arc<dyn FsFile>,
    position: u64,
    wanted: impl Fn(&ReadBatch, &LogPayload) -> bool,
) -> io::Result<bool> {
    let size = file.size_bytes()?;
    let mut position = position;
    while position < size {
        let mut reader = BatchReader::new(Arc::clone(file), position)?;
        loop {
            match reader.next_batch() {
                Ok(Some(batch)) => {
                    let payload = LogPayload::decode(&batch.value);
                    if payload.is_ok_and(|payload| wanted(&batch, &payload)) {
                        return Ok(true);
                    }
                }
                Ok(None) => return Ok(false),
                Err(ReadBatchError::Io(error)) => return Err(error),
                Err(ReadBatchError::Invalid { position: bad, .. }) => {
                    match next_magic(file, bad + 1, size)? {
                        Some(next) => position = next,
                        None => return Ok(false),
                    }
                    break;
                }
            }
        }
    }
    Ok(false)
}

/// The next position from which a batch could begin: byte 16 of it is the magic 2.
fn next_magic(file: &Arc<dyn FsFile>, from: u64, size: u64) -> io::Result<Option<u64>> {
    const MAGIC_AT: u64 = 16;
    let mut window = vec![0; 64 * 1024];
    let mut at = from + MAGIC_AT;
    while at < size {
        let read = file.read_at(&mut window, at)?;
        if read == 0 {
            return Ok(None);
        }
        if let Some(distance) = window[..read].iter().position(|byte| *byte == 2) {
            return Ok(Some(at + distance as u64 - MAGIC_AT));
        }
        at += read as u64;
    }
    Ok(None)
}

/// The fold of the log.
struct Replay<'a> {
    dir: &'a Path,
    snapshot_index: u64,
    snapshot_term: u64,
    next_offset: u64,
    hard_state: HardState,
    /// Contiguous.
    entries: Vec<LogEntry>,
    /// The log has entries, or had until a restart, that the snapshot does not continue.
    is_empty: bool,
}

impl<'a> Replay<'a> {
    fn new(dir: &'a Path, snapshot: &QuorumSnapshot, first_offset: u64) -> Replay<'a> {
        Replay {
            dir,
            snapshot_index: snapshot.index,
            snapshot_term: snapshot.term,
            next_offset: first_offset,
            hard_state: QuorumState::bootstrapped(snapshot.clone()).hard_state,
            entries: Vec::new(),
            is_empty: true,
        }
    }

    /// Reads one segment, and cuts what is torn if it is the last. Answers with the bytes cut.
    fn read_segment(
        &mut self,
        fs: &dyn Fs,
        base_offset: u64,
        is_last: bool,
    ) -> Result<(Segment, u64), LogStoreError> {
        let path = self.dir.join(segment_name(base_offset));
        let corrupt =
            |position, reason| LogStoreError::Corrupt { path: path.clone(), position, reason };
        if base_offset != self.next_offset {
            return Err(corrupt(0, format!("the segment before it ends at {}", self.next_offset)));
        }
        let mode = if is_last { OpenMode::Write } else { OpenMode::Read };
        let file = fs.open(&path, mode).map_err(io_error("open", &path))?;
        let mut reader = BatchReader::new(Arc::clone(&file), 0).map_err(io_error("read", &path))?;
        let mut segment = Segment { base_offset, size_bytes: reader.size_bytes(), max_index: 0 };
        loop {
            let (position, reason) = match reader.next_batch() {
                Ok(None) => return Ok((segment, 0)),
                Ok(Some(batch)) if batch.offset == self.next_offset => {
                    let payload = LogPayload::decode(&batch.value).map_err(|source| {
                        LogStoreError::Payload {
                            path: path.clone(),
                            position: batch.position,
                            source,
                        }
                    })?;
                    if let LogBody::Entry(entry) = &payload.body {
                        segment.max_index = segment.max_index.max(entry.index);
                    }
                    self.apply(payload)?;
                    continue;
                }
                Ok(Some(batch)) => (
                    batch.position,
                    format!("batch {} where {} belongs", batch.offset, self.next_offset),
                ),
                Err(ReadBatchError::Invalid { position, reason }) => (position, reason),
                Err(ReadBatchError::Io(source)) => return Err(io_error("read", &path)(source)),
            };
            let next_offset = self.next_offset;
            let is_vouched_for = !is_last
                || find_batch(&file, position + 1, |batch, payload| {
                    batch.offset > next_offset && payload.durable_end > next_offset
                })
                .map_err(io_error("read", &path))?;
            if is_vouched_for {
                return Err(corrupt(position, reason));
            }
            let cut_bytes = segment.size_bytes - position;
            tracing::warn!(path = %path.display(), position, cut_bytes, reason, "cutting a torn tail of the metadata log");
            file.set_size(position).map_err(io_error("cut", &path))?;
            segment.size_bytes = position;
            return Ok((segment, cut_bytes));
        }
    }

    fn apply(&mut self, payload: LogPayload) -> Result<(), LogStoreError> {
        self.next_offset += 1;
        self.hard_state = payload.hard_state;
        match payload.body {
            LogBody::HardStateOnly => {}
            LogBody::Restart => {
                self.entries.clear();
                self.is_empty = true;
            }
            LogBody::Entry(entry) => {
                match (self.entries.first(), self.entries.last()) {
                    (Some(first), _) if entry.index <= first.index => self.entries.clear(),
                    (Some(first), Some(last)) if entry.index <= last.index + 1 => {
                        self.entries.truncate((entry.index - first.index) as usize);
                    }
                    (Some(_), Some(last)) => {
                        return Err(LogStoreError::EntriesMissing {
                            dir: self.dir.to_owned(),
                            after: last.index,
                            first: entry.index,
                        });
                    }
                    _ => {}
                }
                self.is_empty = false;
                self.entries.push(entry);
            }
        }
        Ok(())
    }

    /// What Raft starts from, and whether the log must say that it starts over.
    fn finish(self, snapshot: QuorumSnapshot) -> Result<(QuorumState, bool), LogStoreError> {
        let (index, term) = (self.snapshot_index, self.snapshot_term);
        let mut entries = self.entries;
        let mut needs_restart = false;
        if let (Some(first), Some(last)) = (entries.first(), entries.last()) {
            let at_snapshot = entries.iter().find(|entry| entry.index == index);
            if last.index < index || at_snapshot.is_some_and(|entry| entry.term != term) {
                // A snapshot from the leader, whose restart a crash kept from the log.
                entries.clear();
                needs_restart = true;
            } else if first.index > index + 1 {
                let (dir, first) = (self.dir.to_owned(), first.index);
                return Err(LogStoreError::EntriesMissing { dir, after: index, first });
            }
        }
        entries.retain(|entry| entry.index > index);
        let last_index = entries.last().map_or(index, |entry| entry.index);
        let mut hard_state = self.hard_state;
        hard_state.term = hard_state.term.max(term);
        if hard_state.commit > last_index {
            let (dir, first) = (self.dir.to_owned(), hard_state.commit);
            return Err(LogStoreError::EntriesMissing { dir, after: last_index, first });
        }
        hard_state.commit = hard_state.commit.max(index);
        Ok((QuorumState { snapshot, hard_state, entries }, needs_restart))
    }
}
