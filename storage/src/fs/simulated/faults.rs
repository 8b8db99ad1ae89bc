//! What is to go wrong on the simulated disk, and when.

use std::io;
use std::path::Path;

/// A kind of operation that can fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Opening, listing or looking at what exists.
    Open,
    /// Creating a file, or emptying it by opening.
    Create,
    /// Creating a directory.
    CreateDir,
    /// Reading a file.
    Read,
    /// Writing a file.
    Write,
    /// Cutting or extending a file.
    SetSize,
    /// Syncing a file.
    Sync,
    /// Syncing a directory.
    SyncDir,
    /// Renaming.
    Rename,
    /// Removing a file or directory.
    Remove,
}

impl Operation {
    /// Whether it changes the disk, or what of it survives.
    pub(super) fn is_change(self) -> bool {
        !matches!(self, Operation::Open | Operation::Read)
    }
}

/// One failure to come: the operations of a kind, on paths that contain a text, from the `skip`th on,
/// `times` times.
#[derive(Clone, Debug)]
pub struct Fault {
    /// Which operations.
    pub operation: Operation,
    /// Only on paths that contain this; the empty text is in all of them.
    pub path_contains: String,
    /// How many such operations still succeed.
    pub skip: u64,
    /// How many fail then.
    pub times: u64,
    /// What they answer. A write that answers `StorageFull` or `QuotaExceeded` still writes its first half.
    pub error: io::ErrorKind,
}

#[derive(Debug, Default)]
pub(super) struct Faults {
    faults: Vec<Fault>,
    pub(super) stop_after_bytes: Option<u64>,
    pub(super) stop_after_changes: Option<u64>,
}

/// The error of everything after the disk was stopped.
pub(super) fn stopped() -> io::Error {
    io::Error::other("the simulated machine has stopped")
}

impl Faults {
    pub(super) fn add(&mut self, fault: Fault) {
        self.faults.push(fault);
    }

    pub(super) fn check(&mut self, operation: Operation, path: &Path) -> io::Result<()> {
        if self.stop_after_bytes == Some(0) {
            return Err(stopped());
        }
        match &mut self.stop_after_changes {
            Some(0) => return Err(stopped()),
            Some(left) if operation.is_change() => *left -= 1,
            _ => {}
        }
        let path = path.to_string_lossy();
        for fault in &mut self.faults {
            if fault.operation != operation || !path.contains(&fault.path_contains) {
                continue;
            }
            if fault.skip > 0 {
                fault.skip -= 1;
            } else if fault.times > 0 {
                fault.times -= 1;
                return Err(fault.error.into());
            }
        }
        Ok(())
    }

    /// How many of `wanted` bytes may still be written.
    pub(super) fn take_bytes(&mut self, wanted: usize) -> usize {
        let Some(left) = &mut self.stop_after_bytes else { return wanted };
        let allowed = wanted.min(usize::try_from(*left).unwrap_or(usize::MAX));
        *left -= allowed as u64;
        allowed
    }
}
