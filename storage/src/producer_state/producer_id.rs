//! Identity of an idempotent producer.

use std::fmt;

/// A producer's id, given by the controller in blocks. Never negative: -1 on the wire is `None`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProducerId(i64);

impl ProducerId {
    /// An id off the wire or the disk; `None` if it is negative.
    pub const fn new(value: i64) -> Option<ProducerId> {
        if value < 0 { None } else { Some(ProducerId(value)) }
    }

    /// The number, never negative.
    pub const fn value(self) -> i64 {
        self.0
    }
}

impl fmt::Display for ProducerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Counts the incarnations of a producer id; a higher one fences the lower. Never negative.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProducerEpoch(i16);

impl ProducerEpoch {
    /// The epoch of a new producer id.
    pub const ZERO: ProducerEpoch = ProducerEpoch(0);

    /// An epoch off the wire or the disk; `None` if it is negative.
    pub const fn new(value: i16) -> Option<ProducerEpoch> {
        if value < 0 { None } else { Some(ProducerEpoch(value)) }
    }

    /// The number, never negative.
    pub const fn value(self) -> i16 {
        self.0
    }
}

impl fmt::Display for ProducerEpoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The sequence number `count` after `sequence`. After 2^31 - 1 comes 0; never negative.
pub fn increment_sequence(sequence: i32, count: i32) -> i32 {
    debug_assert!(sequence >= 0 && count >= 0, "{sequence} + {count}");
    sequence.wrapping_add(count) & i32::MAX
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sequences_wrap_from_the_greatest_to_zero() {
        assert_eq!(increment_sequence(5, 3), 8);
        assert_eq!(increment_sequence(i32::MAX, 0), i32::MAX);
        assert_eq!(increment_sequence(i32::MAX, 1), 0);
        assert_eq!(increment_sequence(i32::MAX - 1, 4), 2);
        assert_eq!(increment_sequence(i32::MAX, i32::MAX), i32::MAX - 1);
    }
}
