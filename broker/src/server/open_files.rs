//! The process's open files: connections must leave some for the logs. A log file that cannot be opened takes the log
//! directory offline, so without this a client could end the broker by connecting often enough.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Kept for logs: their cache of open files, twice over, for what is being read, flushed and recovered beside it.
const FILES_FOR_LOGS: u64 = 1024;

/// Raises the process's limit of open files as far as it may (many systems start with 1024), and returns how many of
/// them connections may have.
pub(super) fn for_connections() -> usize {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let current = match setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        Ok(()) => maximum,
        // Not on every system the hard limit is one.
        Err(_) => current,
    };
    current.map_or(usize::MAX, |limit| usize::try_from(share(limit)).unwrap_or(usize::MAX))
}

/// Of a small limit, connections have a half.
fn share(limit: u64) -> u64 {
    limit.saturating_sub(FILES_FOR_LOGS).max(limit / 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_leave_files_for_the_logs() {
        assert_eq!([256, 1024, 4096, 1 << 20].map(share), [128, 512, 3072, (1 << 20) - 1024]);
        assert!(for_connections() > 0);
    }
}
