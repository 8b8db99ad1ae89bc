//! Keeps peers from filling the log: lines about single connections are limited in their rate. Pure.

use std::time::{Duration, Instant};

/// Lines that may come at once.
const BURST_LINES: u32 = 10;
/// One more line may come after each.
const REFILL: Duration = Duration::from_secs(1);

/// A bucket of lines.
#[derive(Debug)]
pub struct LogLimit {
    lines: u32,
    refilled: Instant,
    left_out: u64,
}

impl LogLimit {
    /// A full bucket.
    pub fn new(now: Instant) -> LogLimit {
        LogLimit { lines: BURST_LINES, refilled: now, left_out: 0 }
    }

    /// Whether a line may be written now, and how many were left out since the last one.
    pub fn admit(&mut self, now: Instant) -> Option<u64> {
        let periods = now.saturating_duration_since(self.refilled).as_nanos() / REFILL.as_nanos();
        if periods >= u128::from(BURST_LINES) {
            (self.lines, self.refilled) = (BURST_LINES, now);
        } else {
            let periods = periods as u32;
            self.lines = BURST_LINES.min(self.lines + periods);
            self.refilled += REFILL * periods;
        }
        if self.lines == 0 {
            self.left_out += 1;
            return None;
        }
        self.lines -= 1;
        Some(std::mem::take(&mut self.left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_a_burst_one_line_a_second_says_how_many_were_left_out() {
        let start = Instant::now();
        let mut limit = LogLimit::new(start);
        let mut admitted = |millis| limit.admit(start + Duration::from_millis(millis));
        for _ in 0..10 {
            assert_eq!(admitted(0), Some(0));
        }
        assert_eq!([admitted(1), admitted(999), admitted(1000)], [None, None, Some(2)]);
        assert_eq!([admitted(1500), admitted(2000), admitted(2001)], [None, Some(1), None]);
        for number in 0..10 {
            assert_eq!(admitted(600_000), Some(u64::from(number == 0)));
        }
        assert_eq!(admitted(600_000), None);
    }
}
