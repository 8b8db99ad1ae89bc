//! `raft` writes to `slog`; we read `tracing`.
//!
//! It says much at its info level that only helps who debugs an election, so everything below a warning becomes debug.

use slog::{Drain, Level, Never, OwnedKVList, Record};

/// A logger for one Raft node whose lines go to `tracing` under this module's target.
pub(super) fn raft_logger() -> slog::Logger {
    slog::Logger::root(TracingDrain, slog::o!())
}

struct TracingDrain;

impl Drain for TracingDrain {
    type Ok = ();
    type Err = Never;

    fn log(&self, record: &Record<'_>, _values: &OwnedKVList) -> Result<(), Never> {
        match record.level() {
            Level::Critical | Level::Error => tracing::error!("raft: {}", record.msg()),
            Level::Warning => tracing::warn!("raft: {}", record.msg()),
            Level::Info | Level::Debug => tracing::debug!("raft: {}", record.msg()),
            Level::Trace => tracing::trace!("raft: {}", record.msg()),
        }
        Ok(())
    }
}
