//! Percentiles of everything that was measured; no buckets, for there are at most some millions.

use std::time::Duration;

/// Times, in the order in which they came.
#[derive(Clone, Debug, Default)]
pub struct Latencies {
    nanoseconds: Vec<u64>,
}

impl Latencies {
    /// None yet, with room for so many.
    pub fn with_capacity(count: usize) -> Latencies {
        Latencies { nanoseconds: Vec::with_capacity(count) }
    }

    /// Adds one; what does not fit 64 bits of nanoseconds (584 years) counts as that.
    pub fn push(&mut self, time: Duration) {
        self.nanoseconds.push(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.nanoseconds.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.nanoseconds.is_empty()
    }

    /// The least time that so many per thousand do not exceed, for each of `per_mille` (0 to 1000); zero of none.
    pub fn percentiles<const N: usize>(&self, per_mille: [usize; N]) -> [Duration; N] {
        let mut sorted = self.nanoseconds.clone();
        sorted.sort_unstable();
        per_mille.map(|share| {
            let rank = (sorted.len() * share.min(1000)).div_ceil(1000).max(1);
            Duration::from_nanos(sorted.get(rank - 1).copied().unwrap_or(0))
        })
    }

    /// Adds all of another's.
    pub fn append(&mut self, mut other: Latencies) {
        self.nanoseconds.append(&mut other.nanoseconds);
    }
}

impl Extend<Duration> for Latencies {
    fn extend<T: IntoIterator<Item = Duration>>(&mut self, times: T) {
        for time in times {
            self.push(time);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_is_the_least_time_that_the_share_does_not_exceed() {
        let mut latencies = Latencies::default();
        latencies.extend((1..=200).rev().map(Duration::from_nanos));
        let [least, half, high, greatest] = latencies.percentiles([0, 500, 990, 1000]);
        let nanoseconds = [least, half, high, greatest].map(|time| time.as_nanos());
        assert_eq!(nanoseconds, [1, 100, 198, 200]);
    }

    #[test]
    fn of_none_every_percentile_is_zero() {
        assert_eq!(Latencies::default().percentiles([500]), [Duration::ZERO]);
    }
}
