//! Which errors pass by themselves, and how long to wait before asking again. Pure: randomness is an argument.

use std::time::Duration;

use kafka_protocol::ResponseError;

/// Whether the same request may succeed later, or with fresh metadata.
///
/// The protocol's own list, and FENCED_LEADER_EPOCH and UNKNOWN_LEADER_EPOCH: for a client both only mean that
/// somebody's metadata is stale.
pub fn is_retriable(error: ResponseError) -> bool {
    error.is_retriable() || needs_fresh_metadata(error)
}

/// Whether the answer says that what we know of leaders, epochs or topic ids is stale.
pub fn needs_fresh_metadata(error: ResponseError) -> bool {
    matches!(
        error,
        ResponseError::UnknownTopicOrPartition
            | ResponseError::LeaderNotAvailable
            | ResponseError::NotLeaderOrFollower
            | ResponseError::ReplicaNotAvailable
            | ResponseError::KafkaStorageError
            | ResponseError::FencedLeaderEpoch
            | ResponseError::UnknownLeaderEpoch
            | ResponseError::UnknownTopicId
            | ResponseError::InconsistentTopicId
            | ResponseError::NetworkException
    )
}

/// Waits that double from `initial` to `max`, each spread by up to `jitter` of itself to both sides (KIP-580).
#[derive(Clone, Copy, Debug)]
pub struct Backoff {
    initial: Duration,
    max: Duration,
    jitter: f64,
    attempts: u32,
}

impl Backoff {
    /// Starts at `initial`; `jitter` is 0.2, as in Kafka's clients.
    pub fn new(initial: Duration, max: Duration) -> Backoff {
        Backoff { initial, max: max.max(initial), jitter: 0.2, attempts: 0 }
    }

    /// The next wait; `random` lies in `[0, 1)`.
    pub fn next(&mut self, random: f64) -> Duration {
        let doubled =
            self.initial.saturating_mul(1u32.checked_shl(self.attempts).unwrap_or(u32::MAX));
        self.attempts = (self.attempts + 1).min(31);
        let spread = 1.0 + self.jitter * (2.0 * random.clamp(0.0, 1.0) - 1.0);
        doubled.min(self.max).mul_f64(spread)
    }

    /// After a success.
    pub fn reset(&mut self) {
        self.attempts = 0;
    }
}

/// 100 ms to 1 s, Kafka's `retry.backoff.ms` and `retry.backoff.max.ms`.
impl Default for Backoff {
    fn default() -> Self {
        Backoff::new(Duration::from_millis(100), Duration::from_secs(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn waits_double_up_to_the_maximum_and_start_over_after_a_success() {
        let mut backoff = Backoff::new(Duration::from_millis(10), Duration::from_millis(65));
        let middle = |b: &mut Backoff| b.next(0.5).as_millis();
        let waits: Vec<_> = (0..6).map(|_| middle(&mut backoff)).collect();
        assert_eq!(waits, [10, 20, 40, 65, 65, 65]);
        backoff.reset();
        assert_eq!(middle(&mut backoff), 10);
    }

    proptest! {
        #[test]
        fn every_wait_stays_within_a_fifth_of_its_target(random in 0.0f64..1.0, attempts in 1usize..80) {
            let mut backoff = Backoff::default();
            let wait = (0..attempts).map(|_| backoff.next(random)).last().expect("at least one");
            let target = Duration::from_millis(100 << (attempts - 1).min(10)).min(Duration::from_secs(1));
            prop_assert!(wait >= target.mul_f64(0.799) && wait <= target.mul_f64(1.201));
        }
    }

    #[test]
    fn stale_metadata_is_retriable_and_a_bad_request_is_not() {
        assert!(is_retriable(ResponseError::FencedLeaderEpoch));
        assert!(is_retriable(ResponseError::NotEnoughReplicas));
        assert!(!needs_fresh_metadata(ResponseError::NotEnoughReplicas));
        assert!(!is_retriable(ResponseError::InvalidRequest));
    }
}
