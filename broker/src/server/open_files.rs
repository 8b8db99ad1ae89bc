//! The process's open files: connections must leave some for the logs. Where a log file cannot be opened, the append, read or
//! flush that needs it fails, so without this a client could stop all others by connecting often enough.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Kept for logs at least: their cache of open files, twice over: half of it for answers that nobody takes, the rest for what
/// is being read, flushed and recovered beside.
const MIN_FILES_FOR_LOGS: u64 = 1024;
/// The most files that logs keep open: each costs the kernel about 1 KiB.
const MAX_CACHED_FILES: u64 = 16 * 1024;

/// Who may have how many open files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct OpenFiles {
    pub(super) connections: usize,
    /// Kept open between uses: an active partition has one.
    pub(super) cached_by_logs: usize,
}

/// Raises the process's limit of open files as far as it may (many systems start with 1024), and shares it out.
pub(super) fn share_out() -> OpenFiles {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let current = match setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        Ok(()) => maximum,
        // Not on every system the hard limit is one.
        Err(_) => current,
    };
    OpenFiles::of(current.unwrap_or(u64::MAX))
}

impl OpenFiles {
    fn of(limit: u64) -> OpenFiles {
        let cached = (limit / 8).clamp(64, MAX_CACHED_FILES);
        let for_logs = (2 * cached).max(MIN_FILES_FOR_LOGS);
        // Of a small limit, connections have a half.
        let connections = limit.saturating_sub(for_logs).max(limit / 2);
        let count = |count: u64| usize::try_from(count).unwrap_or(usize::MAX);
        OpenFiles { connections: count(connections), cached_by_logs: count(cached) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_leave_files_for_the_logs() {
        let shared = [256, 1024, 4096, 20_000, 1 << 20].map(OpenFiles::of);
        assert_eq!(
            shared.map(|files| (files.connections, files.cached_by_logs)),
            [(128, 64), (512, 128), (3072, 512), (15_000, 2500), ((1 << 20) - 32_768, 16_384)]
        );
        assert!(share_out().connections > 0);
    }
}
