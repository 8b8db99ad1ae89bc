//! Monotonic time, handed in by the shell (DESIGN D8).

use std::time::Duration;

/// Nanoseconds since an arbitrary start, never going back. The cores get it as an argument and read no
/// clock; in simulation it is the simulator's. Not wall-clock time: that is [`crate::timestamp::Timestamp`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instant(u64);

impl Instant {
    /// The arbitrary start.
    pub const ZERO: Instant = Instant(0);

    /// The instant `nanos` nanoseconds after the start.
    pub const fn from_nanos(nanos: u64) -> Instant {
        Instant(nanos)
    }

    /// Nanoseconds since the start.
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// `duration` later; the end of time (584 years) is not passed.
    #[must_use]
    pub fn plus(self, duration: Duration) -> Instant {
        let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        Instant(self.0.saturating_add(nanos))
    }

    /// How long ago `earlier` was; zero if it is later.
    pub const fn saturating_since(self, earlier: Instant) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_difference_to_a_later_instant_is_zero() {
        let later = Instant::ZERO.plus(Duration::from_millis(3));
        assert_eq!(later.saturating_since(Instant::ZERO), Duration::from_millis(3));
        assert_eq!(Instant::ZERO.saturating_since(later), Duration::ZERO);
    }

    #[test]
    fn adding_without_end_stays_at_the_end_of_time() {
        assert_eq!(Instant::from_nanos(1).plus(Duration::MAX), Instant::from_nanos(u64::MAX));
    }
}
