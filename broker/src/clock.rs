//! The shell's clock. Cores never see it: they are handed the values (DESIGN D8).

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use storage::instant::Instant;
use storage::timestamp::Timestamp;

/// Reads monotonic and wall time.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    start: std::time::Instant,
    /// In place of both clocks, in simulation.
    simulated: Option<&'static SimulatedTime>,
}

/// A time that only its owner moves.
#[derive(Debug, Default)]
pub struct SimulatedTime {
    nanos: AtomicU64,
}

impl SimulatedTime {
    /// Lets time pass.
    pub fn advance(&self, by: Duration) {
        self.nanos.fetch_add(by.as_nanos() as u64, Ordering::Relaxed);
    }

    fn elapsed(&self) -> Duration {
        Duration::from_nanos(self.nanos.load(Ordering::Relaxed))
    }
}

impl Clock {
    /// A clock whose monotonic time starts now.
    pub fn start() -> Clock {
        Clock { start: std::time::Instant::now(), simulated: None }
    }

    /// A clock that shows `time`, as wall time since 1970 too. Its timers ([`Clock::to_tokio`]) are of no use.
    pub fn simulated(time: &'static SimulatedTime) -> Clock {
        Clock { start: std::time::Instant::now(), simulated: Some(time) }
    }

    /// Monotonic time since [`Clock::start`].
    pub fn now(&self) -> Instant {
        let elapsed = self.simulated.map_or_else(|| self.start.elapsed(), SimulatedTime::elapsed);
        Instant::from_nanos(elapsed.as_nanos() as u64)
    }

    /// Wall time. A clock set before 1970 counts as 1970.
    pub fn wall(&self) -> Timestamp {
        if let Some(time) = self.simulated {
            return Timestamp::new(time.elapsed().as_millis() as i64).expect("not before 1970");
        }
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        Timestamp::new(since_epoch.as_millis() as i64).expect("not before 1970")
    }

    /// The tokio instant of a monotonic time, for timers.
    pub fn to_tokio(&self, at: Instant) -> tokio::time::Instant {
        tokio::time::Instant::from_std(self.start + Duration::from_nanos(at.as_nanos()))
    }
}
