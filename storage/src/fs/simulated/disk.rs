//! Inodes and names of the simulated disk, each in two states: what the page cache shows, and what of it
//! has reached the platter.

use std::collections::BTreeMap;
use std::io;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use super::super::{DirEntry, Metadata, OpenMode};
use crate::timestamp::Timestamp;

/// Identity of a file or directory; handles hold it, so that a removed file stays readable.
#[derive(Debug)]
pub(super) struct Inode {
    id: u64,
}

#[derive(Clone, Debug)]
struct FileNode {
    content: Vec<u8>,
    synced: Vec<u8>,
    unsynced: Vec<Change>,
    /// Written to in this life, and not synced since.
    is_dirty: bool,
    /// A write-back failed while it was open: the next sync says so.
    has_error: bool,
    modified: Timestamp,
}

#[derive(Clone, Debug)]
enum Change {
    Write { position: usize, bytes: Vec<u8> },
    SetSize(usize),
}

#[derive(Clone, Debug)]
struct DirNode {
    names: BTreeMap<String, u64>,
    synced: BTreeMap<String, u64>,
    /// Changes of names since the last sync, in order; each applies whole or not at all.
    unsynced: Vec<Vec<(String, Option<u64>)>>,
    modified: Timestamp,
}

impl DirNode {
    fn new(modified: Timestamp) -> DirNode {
        DirNode { names: BTreeMap::new(), synced: BTreeMap::new(), unsynced: Vec::new(), modified }
    }
}

#[derive(Clone, Debug)]
enum Node {
    File(FileNode),
    Dir(DirNode),
}

const ROOT: u64 = 0;

#[derive(Debug)]
pub(super) struct Disk {
    nodes: BTreeMap<u64, Node>,
    handles: Vec<Arc<Inode>>,
    next_id: u64,
    pub(super) changes: u64,
    pub(super) syncs: u64,
    pub(super) written_bytes: u64,
}

impl Disk {
    pub(super) fn new() -> Disk {
        Disk {
            nodes: BTreeMap::from([(ROOT, Node::Dir(DirNode::new(Timestamp::ZERO)))]),
            handles: Vec::new(),
            next_id: ROOT + 1,
            changes: 0,
            syncs: 0,
            written_bytes: 0,
        }
    }

    pub(super) fn fork(&self) -> Disk {
        Disk {
            nodes: self.nodes.clone(),
            handles: Vec::new(),
            next_id: self.next_id,
            changes: self.changes,
            syncs: self.syncs,
            written_bytes: self.written_bytes,
        }
    }

    fn dir(&self, id: u64) -> io::Result<&DirNode> {
        match self.nodes.get(&id) {
            Some(Node::Dir(dir)) => Ok(dir),
            _ => Err(io::ErrorKind::NotADirectory.into()),
        }
    }

    fn dir_mut(&mut self, id: u64) -> io::Result<&mut DirNode> {
        match self.nodes.get_mut(&id) {
            Some(Node::Dir(dir)) => Ok(dir),
            _ => Err(io::ErrorKind::NotADirectory.into()),
        }
    }

    fn file(&self, inode: &Inode) -> &FileNode {
        match &self.nodes[&inode.id] {
            Node::File(file) => file,
            Node::Dir(_) => unreachable!("only files are opened"),
        }
    }

    fn file_mut(&mut self, inode: &Inode) -> &mut FileNode {
        match self.nodes.get_mut(&inode.id) {
            Some(Node::File(file)) => file,
            _ => unreachable!("only files are opened, and kept while a handle lives"),
        }
    }

    pub(super) fn lookup(&self, path: &Path) -> io::Result<u64> {
        let mut id = ROOT;
        for name in path.components() {
            match name {
                Component::RootDir => {}
                Component::Normal(name) => {
                    let name = name.to_string_lossy();
                    id = *self.dir(id)?.names.get(&*name).ok_or(io::ErrorKind::NotFound)?;
                }
                _ => return Err(io::ErrorKind::InvalidInput.into()),
            }
        }
        Ok(id)
    }

    /// The directory a path is in, and the path's last name.
    fn parent(&self, path: &Path) -> io::Result<(u64, String)> {
        let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
        let parent = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
        let id = self.lookup(parent)?;
        self.dir(id)?;
        Ok((id, name.to_string_lossy().into_owned()))
    }

    fn change_names(&mut self, dir: u64, change: Vec<(String, Option<u64>)>) -> io::Result<()> {
        let dir = self.dir_mut(dir)?;
        apply(&mut dir.names, &change);
        dir.unsynced.push(change);
        Ok(())
    }

    fn add(&mut self, node: Node) -> u64 {
        let id = self.next_id;
        self.next_id += 1;
        self.nodes.insert(id, node);
        id
    }

    pub(super) fn open(
        &mut self,
        path: &Path,
        mode: OpenMode,
        now: Timestamp,
    ) -> io::Result<Arc<Inode>> {
        self.drop_closed();
        let id = match self.lookup(path) {
            Ok(id) => id,
            Err(error)
                if error.kind() == io::ErrorKind::NotFound
                    && matches!(mode, OpenMode::Create | OpenMode::Truncate) =>
            {
                let (dir, name) = self.parent(path)?;
                let id = self.add(Node::File(FileNode {
                    content: Vec::new(),
                    synced: Vec::new(),
                    unsynced: Vec::new(),
                    is_dirty: false,
                    has_error: false,
                    modified: now,
                }));
                self.change_names(dir, vec![(name, Some(id))])?;
                id
            }
            Err(error) => return Err(error),
        };
        if matches!(self.nodes[&id], Node::Dir(_)) {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        let inode = Arc::new(Inode { id });
        self.handles.push(inode.clone());
        if mode == OpenMode::Truncate && !self.content(&inode).is_empty() {
            self.set_size(&inode, 0, now);
        }
        Ok(inode)
    }

    /// Forgets files without a name, now or on the platter, that nobody has open.
    fn drop_closed(&mut self) {
        self.handles.retain(|inode| Arc::strong_count(inode) > 1);
    }

    pub(super) fn open_handles(&mut self) -> usize {
        self.drop_closed();
        self.handles.len()
    }

    pub(super) fn create_dir(&mut self, path: &Path, now: Timestamp) -> io::Result<()> {
        if self.lookup(path).is_ok() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let (dir, name) = self.parent(path)?;
        let id = self.add(Node::Dir(DirNode::new(now)));
        self.change_names(dir, vec![(name, Some(id))])
    }

    pub(super) fn read_dir(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        let dir = self.dir(self.lookup(path)?)?;
        let entry = |(name, id): (&String, &u64)| DirEntry {
            name: name.clone(),
            is_dir: matches!(self.nodes[id], Node::Dir(_)),
        };
        Ok(dir.names.iter().map(entry).collect())
    }

    pub(super) fn metadata(&self, path: &Path) -> io::Result<Metadata> {
        Ok(match &self.nodes[&self.lookup(path)?] {
            Node::File(file) => Metadata {
                size_bytes: file.content.len() as u64,
                modified: file.modified,
                is_dir: false,
            },
            Node::Dir(dir) => Metadata { size_bytes: 0, modified: dir.modified, is_dir: true },
        })
    }

    pub(super) fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        let id = self.lookup(from)?;
        let (from_dir, from_name) = self.parent(from)?;
        let (to_dir, to_name) = self.parent(to)?;
        if let Ok(target) = self.lookup(to)
            && let Node::Dir(dir) = &self.nodes[&target]
            && target != id
            && !dir.names.is_empty()
        {
            return Err(io::ErrorKind::DirectoryNotEmpty.into());
        }
        if from == to {
            return Ok(());
        }
        if from_dir == to_dir {
            return self.change_names(from_dir, vec![(to_name, Some(id)), (from_name, None)]);
        }
        // Across directories the two halves can part; nothing of ours moves that way.
        self.change_names(to_dir, vec![(to_name, Some(id))])?;
        self.change_names(from_dir, vec![(from_name, None)])
    }

    pub(super) fn remove(&mut self, path: &Path, wants_dir: bool) -> io::Result<()> {
        let id = self.lookup(path)?;
        match (&self.nodes[&id], wants_dir) {
            (Node::Dir(dir), true) if !dir.names.is_empty() => {
                return Err(io::ErrorKind::DirectoryNotEmpty.into());
            }
            (Node::Dir(_), true) | (Node::File(_), false) => {}
            (Node::Dir(_), false) => return Err(io::ErrorKind::IsADirectory.into()),
            (Node::File(_), true) => return Err(io::ErrorKind::NotADirectory.into()),
        }
        let (dir, name) = self.parent(path)?;
        self.change_names(dir, vec![(name, None)])
    }

    pub(super) fn sync_dir(&mut self, path: &Path) -> io::Result<()> {
        let id = self.lookup(path)?;
        let dir = self.dir_mut(id)?;
        dir.synced = dir.names.clone();
        dir.unsynced.clear();
        Ok(())
    }

    pub(super) fn content(&self, inode: &Inode) -> &[u8] {
        &self.file(inode).content
    }

    pub(super) fn write(&mut self, inode: &Inode, position: u64, bytes: &[u8], now: Timestamp) {
        if bytes.is_empty() {
            return;
        }
        self.written_bytes += bytes.len() as u64;
        let file = self.file_mut(inode);
        let position = usize::try_from(position).expect("a file in memory is small");
        let change = Change::Write { position, bytes: bytes.to_vec() };
        change.apply(&mut file.content);
        file.unsynced.push(change);
        file.is_dirty = true;
        file.modified = now;
    }

    pub(super) fn set_size(&mut self, inode: &Inode, size: u64, now: Timestamp) {
        let file = self.file_mut(inode);
        let change = Change::SetSize(usize::try_from(size).expect("a file in memory is small"));
        change.apply(&mut file.content);
        file.unsynced.push(change);
        file.is_dirty = true;
        file.modified = now;
    }

    /// Whether a write-back had failed while the file was open; that is told once.
    pub(super) fn sync(&mut self, inode: &Inode) -> bool {
        let file = self.file_mut(inode);
        for change in file.unsynced.drain(..) {
            change.apply(&mut file.synced);
        }
        file.is_dirty = false;
        std::mem::take(&mut file.has_error)
    }

    fn is_open(&self, id: u64) -> bool {
        self.handles.iter().any(|inode| inode.id == id)
    }

    /// Writing back fails, and what was to be written is gone. Who has such a file open is told by the next sync; of the
    /// others the system remembers nothing.
    pub(super) fn fail_write_back(&mut self, path_contains: &str) {
        self.drop_closed();
        for (path, _) in self.files() {
            let Ok(id) = self.lookup(&path) else { continue };
            let is_open = self.is_open(id);
            if let Some(Node::File(file)) = self.nodes.get_mut(&id)
                && path.to_string_lossy().contains(path_contains)
                && !file.unsynced.is_empty()
            {
                file.unsynced.clear();
                file.content.clone_from(&file.synced);
                file.is_dirty = false;
                file.has_error = is_open;
            }
        }
    }

    /// A crash ended the process that wrote.
    pub(super) fn forget_writers(&mut self) {
        for node in self.nodes.values_mut() {
            if let Node::File(file) = node {
                file.is_dirty = false;
                file.has_error = false;
            }
        }
    }

    pub(super) fn dirty_and_closed(&mut self) -> Vec<PathBuf> {
        self.drop_closed();
        let mut paths: Vec<PathBuf> = self.files().into_iter().map(|(path, _)| path).collect();
        paths.retain(|path| {
            self.lookup(path).is_ok_and(|id| {
                let is_dirty = matches!(&self.nodes[&id], Node::File(file) if file.is_dirty);
                is_dirty && !self.is_open(id)
            })
        });
        paths
    }

    pub(super) fn sync_everything(&mut self) {
        for node in self.nodes.values_mut() {
            match node {
                Node::File(file) => {
                    file.synced.clone_from(&file.content);
                    file.unsynced.clear();
                    file.is_dirty = false;
                }
                Node::Dir(dir) => {
                    dir.synced.clone_from(&dir.names);
                    dir.unsynced.clear();
                }
            }
        }
    }

    /// Back to what is on the platter; with a seed, some of the rest had got there too.
    pub(super) fn power_cut(&mut self, seed: Option<u64>) {
        let mut chooser = seed.map(Chooser::new);
        for node in self.nodes.values_mut() {
            match node {
                Node::File(file) => {
                    let changes = std::mem::take(&mut file.unsynced);
                    if let Some(chooser) = &mut chooser {
                        chooser.write_back(&mut file.synced, &changes);
                    }
                    file.content.clone_from(&file.synced);
                }
                Node::Dir(dir) => {
                    let changes = std::mem::take(&mut dir.unsynced);
                    if let Some(chooser) = &mut chooser {
                        let kept = chooser.below(changes.len() as u64 + 1);
                        for change in changes.iter().take(kept as usize) {
                            apply(&mut dir.synced, change);
                        }
                    }
                    dir.names.clone_from(&dir.synced);
                }
            }
        }
        self.handles.clear();
        self.drop_unnamed();
    }

    /// A file whose name was lost is lost.
    fn drop_unnamed(&mut self) {
        let mut reachable = vec![ROOT];
        let mut next = 0;
        while let Some(&id) = reachable.get(next) {
            if let Node::Dir(dir) = &self.nodes[&id] {
                reachable.extend(dir.names.values());
            }
            next += 1;
        }
        self.nodes.retain(|id, _| reachable.contains(id));
    }

    pub(super) fn files(&self) -> Vec<(PathBuf, Vec<u8>)> {
        let mut found = Vec::new();
        self.collect(ROOT, Path::new("/"), &mut found);
        found
    }

    fn collect(&self, id: u64, path: &Path, found: &mut Vec<(PathBuf, Vec<u8>)>) {
        match &self.nodes[&id] {
            Node::File(file) => found.push((path.to_path_buf(), file.content.clone())),
            Node::Dir(dir) => {
                for (name, id) in &dir.names {
                    self.collect(*id, &path.join(name), found);
                }
            }
        }
    }
}

fn apply(names: &mut BTreeMap<String, u64>, change: &[(String, Option<u64>)]) {
    for (name, id) in change {
        match id {
            Some(id) => _ = names.insert(name.clone(), *id),
            None => _ = names.remove(name),
        }
    }
}

impl Change {
    fn apply(&self, content: &mut Vec<u8>) {
        match self {
            Change::Write { position, bytes } => {
                let end = position + bytes.len();
                if content.len() < end {
                    content.resize(end, 0);
                }
                content[*position..end].copy_from_slice(bytes);
            }
            Change::SetSize(size) => content.resize(*size, 0),
        }
    }
}

/// Chooses what of the unsynced changes had reached the platter.
struct Chooser(u64);

/// The unit in which a disk writes: pieces of this size are kept or lost.
const SECTOR_BYTES: usize = 512;

impl Chooser {
    fn new(seed: u64) -> Chooser {
        Chooser(seed)
    }

    /// SplitMix64: small, and the same everywhere.
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn write_back(&mut self, content: &mut Vec<u8>, changes: &[Change]) {
        // Per file: nothing, a first part of the changes, or any of their sectors.
        let style = self.below(4);
        let kept = match style {
            0 => 0,
            1 => self.below(changes.len() as u64 + 1) as usize,
            _ => changes.len(),
        };
        for change in &changes[..kept] {
            match change {
                Change::SetSize(_) => {
                    if style < 3 || self.below(2) == 0 {
                        change.apply(content);
                    }
                }
                Change::Write { position, bytes } if style == 3 => {
                    self.write_back_sectors(content, *position, bytes);
                }
                Change::Write { .. } => change.apply(content),
            }
        }
        // The last write may be torn anywhere.
        if let Some(Change::Write { position, bytes }) = changes.get(kept) {
            let bytes = &bytes[..self.below(bytes.len() as u64) as usize];
            if !bytes.is_empty() {
                Change::Write { position: *position, bytes: bytes.to_vec() }.apply(content);
            }
        }
    }

    fn write_back_sectors(&mut self, content: &mut Vec<u8>, position: usize, bytes: &[u8]) {
        let end = position + bytes.len();
        // The new size can get there without the data: zeroes.
        if content.len() < end && self.below(2) == 0 {
            content.resize(end, 0);
        }
        let mut start = position;
        while start < end {
            let stop = end.min((start / SECTOR_BYTES + 1) * SECTOR_BYTES);
            if self.below(4) != 0 {
                let piece = bytes[start - position..stop - position].to_vec();
                Change::Write { position: start, bytes: piece }.apply(content);
            }
            start = stop;
        }
    }
}
