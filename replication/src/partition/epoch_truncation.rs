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
