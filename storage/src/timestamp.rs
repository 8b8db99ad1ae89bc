//! Wall-clock time of records.

use std::fmt;

/// Wall clock in milliseconds since the Unix epoch, as records carry it. Not monotonic: it comes from
/// clients or from the wall clock of a broker. For our own intervals there is [`crate::instant::Instant`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

impl Timestamp {
    /// The Unix epoch.
    pub const ZERO: Timestamp = Timestamp(0);

    /// A timestamp off the wire or the disk; `None` for -1 ("no timestamp") and, because Kafka's
    /// maximum over records starts at -1 too, for every other negative number.
    pub const fn new(milliseconds: i64) -> Option<Timestamp> {
        if milliseconds < 0 { None } else { Some(Timestamp(milliseconds)) }
    }

    /// Milliseconds since the Unix epoch, never negative.
    pub const fn value(self) -> i64 {
        self.0
    }

    /// What stands on the wire and the disk: -1 for `None`.
    pub const fn to_wire(timestamp: Option<Timestamp>) -> i64 {
        match timestamp {
            Some(timestamp) => timestamp.0,
            None => -1,
        }
    }

    /// Milliseconds from `earlier` to `self`; negative if `earlier` is later.
    pub const fn millis_since(self, earlier: Timestamp) -> i64 {
        self.0 - earlier.0 // both are >= 0, so the difference fits
    }

    /// `milliseconds` later (earlier if negative), kept within [0, `i64::MAX`].
    #[must_use]
    pub fn saturating_add_millis(self, milliseconds: i64) -> Timestamp {
        Timestamp(self.0.saturating_add(milliseconds).max(0))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn minus_one_is_no_timestamp_and_goes_back_to_the_wire_as_such() {
        assert_eq!(Timestamp::new(-1), None);
        assert_eq!(Timestamp::to_wire(None), -1);
        assert_eq!(Timestamp::to_wire(Timestamp::new(7)), 7);
    }

    #[test]
    fn differences_and_sums_stay_in_range() {
        let last = Timestamp::new(i64::MAX).unwrap();
        assert_eq!(Timestamp::ZERO.millis_since(last), -i64::MAX);
        assert_eq!(last.saturating_add_millis(1), last);
        assert_eq!(Timestamp::ZERO.saturating_add_millis(-5), Timestamp::ZERO);
    }
}
