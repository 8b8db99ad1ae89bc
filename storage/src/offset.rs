//! Position in one partition's log.

use std::fmt;

/// Position in one partition's log. Never reused once committed; gaps are normal after compaction.
///
/// Never negative: the wire's -1 ("none") becomes `Option` where it enters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Offset(i64);

impl Offset {
    /// The first offset of a new log.
    pub const ZERO: Offset = Offset(0);
    /// The greatest offset there can be.
    pub const MAX: Offset = Offset(i64::MAX);

    /// An offset from a number off the wire or the disk; `None` if it is negative.
    pub const fn new(value: i64) -> Option<Offset> {
        if value < 0 { None } else { Some(Offset(value)) }
    }

    /// The number, never negative.
    pub const fn value(self) -> i64 {
        self.0
    }

    /// The offset after this one.
    ///
    /// # Panics
    /// At `i64::MAX`. Batches are refused by [`crate::record_batch`] before they could reach it.
    #[must_use]
    pub fn next(self) -> Offset {
        self.plus(1)
    }

    /// The offset `count` records further.
    ///
    /// # Panics
    /// Past `i64::MAX`; see [`Offset::checked_plus`] where the numbers come from outside.
    #[must_use]
    pub fn plus(self, count: u64) -> Offset {
        self.checked_plus(count).expect("a log does not outgrow 63 bits")
    }

    /// The offset `count` records further, or `None` past `i64::MAX`.
    pub fn checked_plus(self, count: u64) -> Option<Offset> {
        self.0.checked_add_unsigned(count).map(Offset)
    }

    /// How many offsets lie in `[base, self)`, or `None` if `self` is before `base`.
    pub fn delta_from(self, base: Offset) -> Option<u64> {
        u64::try_from(self.0.checked_sub(base.0)?).ok()
    }
}

impl fmt::Display for Offset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn negative_numbers_are_no_offsets() {
        assert_eq!(Offset::new(-1), None);
        assert_eq!(Offset::new(i64::MIN), None);
        assert_eq!(Offset::new(0), Some(Offset::ZERO));
    }

    #[test]
    fn a_delta_exists_only_forwards() {
        let (five, nine) = (Offset::ZERO.plus(5), Offset::ZERO.plus(9));
        assert_eq!(nine.delta_from(five), Some(4));
        assert_eq!(five.delta_from(five), Some(0));
        assert_eq!(five.delta_from(nine), None);
    }

    #[test]
    fn the_last_offset_has_no_successor() {
        assert_eq!(Offset::MAX.checked_plus(1), None);
        assert_eq!(Offset::ZERO.checked_plus(u64::MAX), None);
        assert_eq!(Offset::MAX.checked_plus(0), Some(Offset::MAX));
    }
}
