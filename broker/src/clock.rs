//! The shell's clock. Cores never see it: they are handed the values (DESIGN D8).

use std::time::{Duration, SystemTime, UNIX_EPOCH};
use storage::instant::Instant;
use storage::timestamp::Timestamp;

/// Reads monotonic and wall time.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    start: std::time::Instant,
}

impl Clock {
    /// A clock whose monotonic time starts now.
    pub fn start() -> Clock {
        Clock { start: std::time::Instant::now() }
    }

    /// Monotonic time since [`Clock::start`].
    pub fn now(&self) -> Instant {
        Instant::from_nanos(self.start.elapsed().as_nanos() as u64)
    }

    /// Wall time. A clock set before 1970 counts as 1970.
    pub fn wall(&self) -> Timestamp {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        Timestamp::new(since_epoch.as_millis() as i64).expect("not before 1970")
    }

    /// The tokio instant of a monotonic time, for timers.
    pub fn to_tokio(&self, at: Instant) -> tokio::time::Instant {
        tokio::time::Instant::from_std(self.start + Duration::from_nanos(at.as_nanos()))
    }
}
