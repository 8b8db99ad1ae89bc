//! The high watermark: the first offset that is *not* yet visible (kafka-facts 5.3, KIP-966).

use storage::offset::Offset;

/// Where a leader's high watermark moves to; `None` if it stays.
///
/// `counted_ends` are the ends of all who must hold a record before it is visible: the leader, the maximal
/// ISR, and whoever is about to join it. A committed ISR below the effective min ISR holds it where it is.
pub fn leader_high_watermark(
    current: Offset,
    committed_isr_size: usize,
    effective_min_isr: usize,
    counted_ends: impl Iterator<Item = Offset>,
) -> Option<Offset> {
    if committed_isr_size < effective_min_isr {
        return None;
    }
    counted_ends.min().filter(|&candidate| candidate > current)
}

/// A follower's high watermark after a fetch: the leader's, as far as its own log goes. It does not go back:
/// what was visible once was committed, and a new leader may only not have heard so yet.
pub fn follower_high_watermark(current: Offset, leader: Offset, own_end: Offset) -> Offset {
    current.max(leader.min(own_end))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offset(value: i64) -> Offset {
        Offset::new(value).unwrap()
    }

    #[test]
    fn a_leader_shows_what_all_hold_and_never_less_than_before() {
        let ends = || [7, 5, 9].into_iter().map(offset);
        assert_eq!(leader_high_watermark(offset(3), 3, 2, ends()), Some(offset(5)));
        assert_eq!(leader_high_watermark(offset(5), 3, 2, ends()), None);
        assert_eq!(leader_high_watermark(offset(6), 3, 2, ends()), None);
    }

    #[test]
    fn below_min_isr_nothing_new_is_shown() {
        let ends = || [7, 9].into_iter().map(offset);
        assert_eq!(leader_high_watermark(offset(3), 1, 2, ends()), None);
        assert_eq!(leader_high_watermark(offset(3), 2, 2, ends()), Some(offset(7)));
    }

    #[test]
    fn a_follower_stays_within_its_log_and_does_not_go_back() {
        assert_eq!(follower_high_watermark(offset(2), offset(9), offset(5)), offset(5));
        assert_eq!(follower_high_watermark(offset(2), offset(3), offset(5)), offset(3));
        assert_eq!(follower_high_watermark(offset(4), offset(3), offset(5)), offset(4));
    }
}
