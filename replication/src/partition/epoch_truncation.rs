//! Where two logs part, told by leader epochs (KIP-101, KIP-279, KIP-320, KIP-595; kafka-facts 5.5). Never by the
//! high watermark, which lags and may cut what is committed.

use storage::leader_epoch::{EpochEndOffset, LeaderEpoch, LeaderEpochCache};
use storage::offset::Offset;

/// The asker and this broker do not speak of the same leadership.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LeaderEpochError {
    /// The asker is behind (FENCED_LEADER_EPOCH).
    #[error("leader epoch {requested} is over, the current one is {current}")]
    Fenced {
        /// What the request names.
        requested: LeaderEpoch,
        /// What this broker knows.
        current: LeaderEpoch,
    },
    /// This broker is behind (UNKNOWN_LEADER_EPOCH, retriable).
    #[error("leader epoch {requested} is not known yet, the current one is {current}")]
    Unknown {
        /// What the request names.
        requested: LeaderEpoch,
        /// What this broker knows.
        current: LeaderEpoch,
    },
}

/// Holds the epoch that a request believes in against ours; `None` (-1) is not checked.
///
/// # Errors
/// See [`LeaderEpochError`].
pub fn check_current_leader_epoch(
    current: LeaderEpoch,
    requested: Option<LeaderEpoch>,
) -> Result<(), LeaderEpochError> {
    match requested {
        Some(requested) if requested < current => {
            Err(LeaderEpochError::Fenced { requested, current })
        }
        Some(requested) if requested > current => {
            Err(LeaderEpochError::Unknown { requested, current })
        }
        _ => Ok(()),
    }
}

/// What a leader does with a fetch that says how the asker's log ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FetchCheck {
    /// The logs agree below the fetch offset: serve it.
    Agrees,
    /// They part: answer with this, without records and without a high watermark; and what the asker says of
    /// its end does not count.
    Diverges(EpochEndOffset),
}

/// The epoch is one that this log cannot place (OFFSET_OUT_OF_RANGE).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the log does not know leader epoch {last_fetched_epoch}, the asker's last")]
pub struct UndefinedEpoch {
    /// What the asker says of its log's last epoch.
    pub last_fetched_epoch: LeaderEpoch,
}

/// Holds the end of the asker's log against ours: `last_fetched_epoch` is the epoch of its last record before
/// `fetch_offset`, `None` (-1) if it does not say.
///
/// # Errors
/// See [`UndefinedEpoch`].
pub fn check_last_fetched_epoch(
    epochs: &LeaderEpochCache,
    log_end: Offset,
    fetch_offset: Offset,
    last_fetched_epoch: Option<LeaderEpoch>,
) -> Result<FetchCheck, UndefinedEpoch> {
    let Some(last_fetched_epoch) = last_fetched_epoch else { return Ok(FetchCheck::Agrees) };
    let end = epochs.end_offset_for(last_fetched_epoch, log_end);
    let end = end.ok_or(UndefinedEpoch { last_fetched_epoch })?;
    if end.epoch < last_fetched_epoch || end.end_offset < fetch_offset {
        return Ok(FetchCheck::Diverges(end));
    }
    Ok(FetchCheck::Agrees)
}

/// Where a follower cuts its log, told that the leader's log parts from its own: `diverging` is the leader's
/// greatest epoch not above the follower's last, and where it ends there. The next fetch tells whether that was
/// enough.
pub fn truncation_offset(
    epochs: &LeaderEpochCache,
    log_end: Offset,
    diverging: EpochEndOffset,
) -> Offset {
    match epochs.end_offset_for(diverging.epoch, log_end) {
        // The epoch is in both logs: they agree up to where the shorter one leaves it.
        Some(own) if own.epoch == diverging.epoch => {
            own.end_offset.min(diverging.end_offset).min(log_end)
        }
        // It is not in ours: back to the end of our greatest smaller one, and ask again.
        Some(own) => own.end_offset.min(log_end),
        None => diverging.end_offset.min(log_end),
    }
}

/// What a follower does when its leader answers OFFSET_OUT_OF_RANGE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutOfRangeStep {
    /// The leader's log ends before ours: cut back to there.
    TruncateTo(Offset),
    /// The leader's log starts after ours ends: drop everything and start there.
    RestartAt(Offset),
    /// The leader has meanwhile what we want: fetch on.
    Continue,
}

/// See [`OutOfRangeStep`]; the leader was asked for both of its ends after it refused the fetch.
pub fn resolve_out_of_range(
    own_end: Offset,
    leader_start: Offset,
    leader_end: Offset,
) -> OutOfRangeStep {
    if leader_end < own_end {
        OutOfRangeStep::TruncateTo(leader_end)
    } else if leader_start > own_end {
        OutOfRangeStep::RestartAt(leader_start)
    } else {
        OutOfRangeStep::Continue
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use storage::leader_epoch::EpochEntry;

    fn epoch(value: i32) -> LeaderEpoch {
        LeaderEpoch::new(value).unwrap()
    }

    fn offset(value: i64) -> Offset {
        Offset::new(value).unwrap()
    }

    #[test]
    fn older_and_newer_leaderships_are_told_apart() {
        let current = epoch(4);
        assert_eq!(check_current_leader_epoch(current, None), Ok(()));
        assert_eq!(check_current_leader_epoch(current, Some(epoch(4))), Ok(()));
        let fenced = LeaderEpochError::Fenced { requested: epoch(3), current };
        assert_eq!(check_current_leader_epoch(current, Some(epoch(3))), Err(fenced));
        let unknown = LeaderEpochError::Unknown { requested: epoch(5), current };
        assert_eq!(check_current_leader_epoch(current, Some(epoch(5))), Err(unknown));
    }

    #[test]
    fn out_of_range_is_resolved_by_the_leaders_ends() {
        let resolve =
            |own, start, end| resolve_out_of_range(offset(own), offset(start), offset(end));
        assert_eq!(resolve(10, 0, 7), OutOfRangeStep::TruncateTo(offset(7)));
        assert_eq!(resolve(10, 12, 20), OutOfRangeStep::RestartAt(offset(12)));
        assert_eq!(resolve(10, 10, 20), OutOfRangeStep::Continue);
    }

    /// A log as the epoch of each of its records.
    fn cache(log: &[i32]) -> LeaderEpochCache {
        let starts = log.iter().enumerate().filter(|&(at, epoch)| at == 0 || log[at - 1] != *epoch);
        LeaderEpochCache::from_entries(starts.map(|(at, &value)| EpochEntry {
            epoch: epoch(value),
            start_offset: offset(at as i64),
        }))
    }

    fn sorted(epochs: std::ops::Range<i32>, most: usize) -> impl Strategy<Value = Vec<i32>> {
        proptest::collection::vec(epochs, 0..most).prop_map(|mut log| {
            log.sort_unstable();
            log
        })
    }

    /// Two logs as leaders leave them: a common part, then each its own. An epoch has one leader, so after the
    /// logs part each epoch is in one of them only, the last common one included.
    fn arb_logs() -> impl Strategy<Value = (Vec<i32>, Vec<i32>, usize)> {
        let side = any::<[bool; 6]>();
        (sorted(0..4, 12), sorted(0..6, 10), sorted(0..6, 10), side, any::<bool>(), 0usize..3)
            .prop_map(|(common, first, second, side, first_goes_on, more)| {
                let tail = |records: Vec<i32>, own: bool| {
                    records.into_iter().filter(move |&e| side[e as usize] == own).map(|e| e + 4)
                };
                let last = common.last().copied();
                let go_on = |goes_on: bool| {
                    std::iter::repeat_n(last, more).flatten().filter(move |_| goes_on)
                };
                let log = |own: bool, records: Vec<i32>| -> Vec<i32> {
                    let goes_on = first_goes_on == own;
                    common.iter().copied().chain(go_on(goes_on)).chain(tail(records, own)).collect()
                };
                (log(true, first), log(false, second), common.len())
            })
    }

    proptest! {
        /// Told to truncate again and again, the follower ends where the logs part, and never below.
        #[test]
        fn two_logs_part_where_a_record_by_record_comparison_says(
            (leader, follower, common) in arb_logs()
        ) {
            let leader_end = offset(leader.len() as i64);
            let mut leader_cache = cache(&leader);
            leader_cache.assign(epoch(20), leader_end); // its present leadership
            let mut own = follower;
            let mut own_cache = cache(&own);
            loop {
                let end = offset(own.len() as i64);
                match check_last_fetched_epoch(&leader_cache, leader_end, end, own_cache.latest()).unwrap() {
                    FetchCheck::Agrees => break,
                    FetchCheck::Diverges(diverging) => {
                        let to = truncation_offset(&own_cache, end, diverging);
                        prop_assert!(to < end, "no progress at {} with {:?}", end, diverging);
                        prop_assert!(to.value() as usize >= common, "cut into the common part");
                        own.truncate(to.value() as usize);
                        own_cache.truncate_from_end(to);
                    }
                }
            }
            prop_assert_eq!(&own, &leader[..own.len()], "the follower's log is a part of the leader's");
        }
    }
}
