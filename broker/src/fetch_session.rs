//! Fetch sessions (KIP-227): the broker remembers what a client fetches, so that a request names only what changed
//! and an answer only what moved. Pure; the shell hands in time and fresh ids (`FetchSession.scala`, kafka-facts §6.1).
//!
//! Invariant: a session's `order` and `partitions` name the same partitions.

use kafka_protocol::messages::TopicName;
use kafka_protocol::protocol::StrBytes;
use std::collections::BTreeMap;
use std::time::Duration;
use storage::instant::Instant;
use uuid::Uuid;

/// Sessions idle for longer may be evicted by anyone; younger ones only by bigger or privileged ones.
const EVICTABLE_AFTER: Duration = Duration::from_secs(120);
/// The epoch of a request that opens a session.
const INITIAL_EPOCH: i32 = 0;
/// The epoch of a request outside sessions, or of one that closes its session.
const FINAL_EPOCH: i32 = -1;

/// How a request names a topic: by name to v12, by id from v13.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum TopicKey {
    /// To v12.
    Name(TopicName),
    /// From v13.
    Id(Uuid),
}

impl TopicKey {
    /// The same, without a share in the frame that it came in, which may be large.
    fn detached(self) -> TopicKey {
        match self {
            TopicKey::Name(name) => {
                TopicKey::Name(TopicName(StrBytes::from_string(name.to_string())))
            }
            TopicKey::Id(id) => TopicKey::Id(id),
        }
    }
}

/// A partition as a fetch names it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct PartitionKey {
    /// Its topic.
    pub topic: TopicKey,
    /// Its index.
    pub partition: i32,
}

/// Where a client wants to read on, as on the wire (−1 where it does not say).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FetchPosition {
    /// First offset wanted.
    pub fetch_offset: i64,
    /// Epoch of the leader it believes in.
    pub current_leader_epoch: i32,
    /// Epoch of the last batch it holds (KIP-595).
    pub last_fetched_epoch: i32,
    /// Followers: their log start offset.
    pub log_start_offset: i64,
    /// Most bytes wanted of this partition.
    pub max_bytes: i32,
}

/// What became of one partition in an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartitionOutcome {
    /// −1 on error.
    pub high_watermark: i64,
    /// −1 on error.
    pub log_start_offset: i64,
    /// Record bytes are present.
    pub has_records: bool,
    /// An error code is present.
    pub is_error: bool,
    /// A diverging epoch or a preferred read replica is present.
    pub redirects: bool,
}

/// Answered at the top level, without partitions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FetchSessionError {
    /// The id is not (or no longer) known.
    #[error("fetch session not found")]
    IdNotFound,
    /// A request was lost or repeated.
    #[error("fetch session epoch is not the expected one")]
    InvalidEpoch,
    /// The session was opened with names and now uses ids, or the other way round.
    #[error("fetch session mixes topic names and topic ids")]
    TopicIdMismatch,
}

#[derive(Debug)]
enum Kind {
    Sessionless,
    Full,
    Incremental { session_id: i32 },
}

/// One fetch under way: its partitions in order, and how its answer is told to the session.
#[derive(Debug)]
pub struct FetchContext {
    kind: Kind,
    uses_topic_ids: bool,
    /// What to read, in the order to read it.
    pub partitions: Vec<(PartitionKey, FetchPosition)>,
}

/// What the answer must say.
#[derive(Debug, PartialEq, Eq)]
pub struct SessionAnswer {
    /// 0 when the client is in no session.
    pub session_id: i32,
    /// For each partition of the context, whether the answer names it.
    pub is_included: Vec<bool>,
}

#[derive(Debug)]
struct CachedPartition {
    order: u64,
    position: FetchPosition,
    high_watermark: i64,
    log_start_offset: i64,
}

#[derive(Debug)]
struct Session {
    next_epoch: i32,
    uses_topic_ids: bool,
    created: Instant,
    last_used: Instant,
    next_order: u64,
    order: BTreeMap<u64, PartitionKey>,
    partitions: BTreeMap<PartitionKey, CachedPartition>,
}

/// All sessions of a broker.
#[derive(Debug)]
pub struct FetchSessions {
    max_sessions: usize,
    sessions: BTreeMap<i32, Session>,
}

impl FetchSessions {
    /// Holds at most `max_sessions` (`max.incremental.fetch.session.cache.slots`).
    pub fn new(max_sessions: usize) -> FetchSessions {
        FetchSessions { max_sessions, sessions: BTreeMap::new() }
    }

    /// Sessions open now.
    pub fn len(&self) -> usize {
        self.sessions.len()
    }

    /// Whether no session is open.
    pub fn is_empty(&self) -> bool {
        self.sessions.is_empty()
    }

    /// Takes a request in: which partitions to read.
    ///
    /// # Errors
    /// [`FetchSessionError`], to be answered at the top level.
    pub fn begin(
        &mut self,
        (session_id, epoch): (i32, i32),
        uses_topic_ids: bool,
        partitions: Vec<(PartitionKey, FetchPosition)>,
        forgotten: &[PartitionKey],
        now: Instant,
    ) -> Result<FetchContext, FetchSessionError> {
        if epoch == INITIAL_EPOCH || epoch == FINAL_EPOCH {
            if session_id != 0 {
                self.sessions.remove(&session_id);
            }
            let kind = match epoch {
                FINAL_EPOCH => Kind::Sessionless,
                _ => Kind::Full,
            };
            return Ok(FetchContext { kind, uses_topic_ids, partitions: last_of_each(partitions) });
        }
        let session = self.sessions.get_mut(&session_id).ok_or(FetchSessionError::IdNotFound)?;
        if session.next_epoch != epoch {
            return Err(FetchSessionError::InvalidEpoch);
        }
        if session.uses_topic_ids != uses_topic_ids {
            return Err(FetchSessionError::TopicIdMismatch);
        }
        session.next_epoch = next_epoch(epoch);
        session.last_used = now;
        for (key, position) in partitions {
            session.upsert(key, position);
        }
        for key in forgotten {
            session.forget(key);
        }
        let partitions = session.positions();
        if partitions.is_empty() {
            self.sessions.remove(&session_id);
            return Ok(FetchContext { kind: Kind::Sessionless, uses_topic_ids, partitions });
        }
        Ok(FetchContext { kind: Kind::Incremental { session_id }, uses_topic_ids, partitions })
    }

    /// Tells the session what is about to be answered. `outcomes` stand in the context's order; `fresh_id` draws a
    /// positive id for a new session.
    pub fn finish(
        &mut self,
        context: &FetchContext,
        outcomes: &[PartitionOutcome],
        now: Instant,
        mut fresh_id: impl FnMut() -> i32,
    ) -> SessionAnswer {
        assert_eq!(context.partitions.len(), outcomes.len(), "one outcome for each partition");
        let everything = vec![true; outcomes.len()];
        match context.kind {
            Kind::Sessionless => SessionAnswer { session_id: 0, is_included: everything },
            Kind::Full => {
                if !self.make_room(context.partitions.len(), now) {
                    return SessionAnswer { session_id: 0, is_included: everything };
                }
                let session_id = loop {
                    let id = fresh_id();
                    if id > 0 && !self.sessions.contains_key(&id) {
                        break id;
                    }
                };
                let mut session = Session {
                    next_epoch: next_epoch(INITIAL_EPOCH),
                    uses_topic_ids: context.uses_topic_ids,
                    created: now,
                    last_used: now,
                    next_order: 0,
                    order: BTreeMap::new(),
                    partitions: BTreeMap::new(),
                };
                for ((key, position), outcome) in context.partitions.iter().zip(outcomes) {
                    session.upsert(key.clone(), *position);
                    session.note(key, outcome);
                }
                self.sessions.insert(session_id, session);
                SessionAnswer { session_id, is_included: everything }
            }
            Kind::Incremental { session_id } => {
                let Some(session) = self.sessions.get_mut(&session_id) else {
                    // Evicted while this fetch waited: say everything; the next request learns it.
                    return SessionAnswer { session_id, is_included: everything };
                };
                let is_included = context
                    .partitions
                    .iter()
                    .zip(outcomes)
                    .map(|((key, _), outcome)| session.note(key, outcome))
                    .collect();
                SessionAnswer { session_id, is_included }
            }
        }
    }

    /// Whether a session of `size` partitions may be added, evicting another if need be.
    fn make_room(&mut self, size: usize, now: Instant) -> bool {
        if self.sessions.len() < self.max_sessions {
            return true;
        }
        let idlest = self.sessions.iter().min_by_key(|(_, session)| session.last_used);
        let victim = match idlest {
            Some((&id, session)) if now.saturating_since(session.last_used) > EVICTABLE_AFTER => {
                Some(id)
            }
            _ => self
                .sessions
                .iter()
                .filter(|(_, session)| now.saturating_since(session.created) > EVICTABLE_AFTER)
                .min_by_key(|(_, session)| session.partitions.len())
                .filter(|(_, session)| session.partitions.len() < size)
                .map(|(&id, _)| id),
        };
        victim.is_some_and(|id| self.sessions.remove(&id).is_some())
    }
}

impl Session {
    fn upsert(&mut self, key: PartitionKey, position: FetchPosition) {
        if let Some(known) = self.partitions.get_mut(&key) {
            known.position = position;
            return;
        }
        let key = PartitionKey { topic: key.topic.detached(), partition: key.partition };
        let order = self.next_order;
        self.next_order += 1;
        self.order.insert(order, key.clone());
        let cached = CachedPartition { order, position, high_watermark: -1, log_start_offset: -1 };
        self.partitions.insert(key, cached);
    }

    fn forget(&mut self, key: &PartitionKey) {
        if let Some(cached) = self.partitions.remove(key) {
            self.order.remove(&cached.order);
        }
    }

    fn positions(&self) -> Vec<(PartitionKey, FetchPosition)> {
        self.order.values().map(|key| (key.clone(), self.partitions[key].position)).collect()
    }

    /// Remembers what is answered for a partition; whether an incremental answer must name it.
    fn note(&mut self, key: &PartitionKey, outcome: &PartitionOutcome) -> bool {
        let Some(cached) = self.partitions.get_mut(key) else { return true };
        let moved = cached.high_watermark != outcome.high_watermark
            || cached.log_start_offset != outcome.log_start_offset;
        let is_included = outcome.has_records || outcome.is_error || outcome.redirects || moved;
        cached.log_start_offset = outcome.log_start_offset;
        // A partition in error is named again, and once more when it has recovered.
        cached.high_watermark = if outcome.is_error { -1 } else { outcome.high_watermark };
        if outcome.has_records
            && let Some(key) = self.order.remove(&cached.order)
        {
            // Fairness: who was served goes to the end.
            cached.order = self.next_order;
            self.order.insert(cached.order, key);
            self.next_order += 1;
        }
        is_included
    }
}

/// 1, 2, … 2³¹−1, then 1 again.
fn next_epoch(epoch: i32) -> i32 {
    epoch.checked_add(1).unwrap_or(1)
}

/// A partition named twice in one request counts once, in its last form.
fn last_of_each(
    partitions: Vec<(PartitionKey, FetchPosition)>,
) -> Vec<(PartitionKey, FetchPosition)> {
    let mut index_of: BTreeMap<PartitionKey, usize> = BTreeMap::new();
    let mut unique: Vec<(PartitionKey, FetchPosition)> = Vec::with_capacity(partitions.len());
    for (key, position) in partitions {
        match index_of.get(&key) {
            Some(&index) => unique[index].1 = position,
            None => {
                index_of.insert(key.clone(), unique.len());
                unique.push((key, position));
            }
        }
    }
    unique
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(partition: i32) -> PartitionKey {
        let topic = TopicKey::Name(TopicName(StrBytes::from_static_str("t")));
        PartitionKey { topic, partition }
    }

    fn at(fetch_offset: i64) -> FetchPosition {
        FetchPosition {
            fetch_offset,
            current_leader_epoch: -1,
            last_fetched_epoch: -1,
            log_start_offset: -1,
            max_bytes: 1,
        }
    }

    #[test]
    fn a_session_keeps_nothing_of_the_frame_that_opened_it() {
        let frame = bytes::Bytes::from(vec![b't'; 1000]);
        let name = TopicName(StrBytes::try_from(frame.slice(..10)).unwrap());
        let key = PartitionKey { topic: TopicKey::Name(name), partition: 0 };
        let mut sessions = FetchSessions::new(1);
        let now = Instant::ZERO;
        let context = sessions.begin((0, 0), false, vec![(key, at(0))], &[], now).unwrap();
        let outcome = PartitionOutcome { has_records: true, ..quiet(5) };
        sessions.finish(&context, &[outcome], now, || 7);
        drop(context);
        assert_eq!(sessions.len(), 1);
        assert!(frame.is_unique());
    }

    fn quiet(high_watermark: i64) -> PartitionOutcome {
        PartitionOutcome {
            high_watermark,
            log_start_offset: 0,
            has_records: false,
            is_error: false,
            redirects: false,
        }
    }

    fn now() -> Instant {
        Instant::from_nanos(0)
    }

    /// Two partitions at high watermark 5, session 7.
    fn opened() -> FetchSessions {
        let mut sessions = FetchSessions::new(2);
        let both = vec![(key(0), at(0)), (key(1), at(0))];
        let context = sessions.begin((0, 0), false, both, &[], now()).unwrap();
        let answer = sessions.finish(&context, &[quiet(5), quiet(5)], now(), || 7);
        assert_eq!(answer, SessionAnswer { session_id: 7, is_included: vec![true, true] });
        sessions
    }

    #[test]
    fn an_incremental_answer_names_only_what_moved() {
        let mut sessions = opened();
        let context = sessions.begin((7, 1), false, vec![], &[], now()).unwrap();
        let answer = sessions.finish(&context, &[quiet(5), quiet(6)], now(), || 8);
        assert_eq!(answer, SessionAnswer { session_id: 7, is_included: vec![false, true] });
    }

    #[test]
    fn a_partition_in_error_is_named_until_it_has_recovered_and_then_once_more() {
        let mut sessions = opened();
        let error = PartitionOutcome { is_error: true, high_watermark: -1, ..quiet(-1) };
        for epoch in 1..3 {
            let context = sessions.begin((7, epoch), false, vec![], &[], now()).unwrap();
            assert!(sessions.finish(&context, &[error, quiet(5)], now(), || 8).is_included[0]);
        }
        let context = sessions.begin((7, 3), false, vec![], &[], now()).unwrap();
        assert!(sessions.finish(&context, &[quiet(5), quiet(5)], now(), || 8).is_included[0]);
        let context = sessions.begin((7, 4), false, vec![], &[], now()).unwrap();
        assert!(!sessions.finish(&context, &[quiet(5), quiet(5)], now(), || 8).is_included[0]);
    }

    #[test]
    fn a_partition_that_was_served_goes_to_the_end() {
        let mut sessions = opened();
        let context = sessions.begin((7, 1), false, vec![], &[], now()).unwrap();
        let served = PartitionOutcome { has_records: true, ..quiet(5) };
        sessions.finish(&context, &[served, quiet(5)], now(), || 8);
        let context = sessions.begin((7, 2), false, vec![], &[], now()).unwrap();
        let order: Vec<i32> = context.partitions.iter().map(|(key, _)| key.partition).collect();
        assert_eq!(order, [1, 0]);
    }

    #[test]
    fn wrong_ids_epochs_and_topic_forms_are_told_apart() {
        let mut sessions = opened();
        let begin = |sessions: &mut FetchSessions, id, epoch, ids| {
            sessions.begin((id, epoch), ids, vec![], &[], now()).map(|_| ()).unwrap_err()
        };
        assert_eq!(begin(&mut sessions, 8, 1, false), FetchSessionError::IdNotFound);
        assert_eq!(begin(&mut sessions, 7, 2, false), FetchSessionError::InvalidEpoch);
        assert_eq!(begin(&mut sessions, 7, 1, true), FetchSessionError::TopicIdMismatch);
    }

    #[test]
    fn a_session_that_forgets_everything_is_closed() {
        let mut sessions = opened();
        let context = sessions.begin((7, 1), false, vec![], &[key(0), key(1)], now()).unwrap();
        assert_eq!(sessions.finish(&context, &[], now(), || 8).session_id, 0);
        assert!(sessions.is_empty());
    }

    #[test]
    fn a_full_cache_answers_without_a_session_until_one_is_idle() {
        let mut sessions = opened();
        for id in [9, 10] {
            let context = sessions.begin((0, 0), false, vec![(key(0), at(0))], &[], now()).unwrap();
            let answer = sessions.finish(&context, &[quiet(0)], now(), || id);
            assert_eq!(answer.session_id, if id == 9 { 9 } else { 0 });
        }
        let later = Instant::from_nanos(EVICTABLE_AFTER.as_nanos() as u64 + 1);
        let context = sessions.begin((0, 0), false, vec![(key(0), at(0))], &[], later).unwrap();
        assert_eq!(sessions.finish(&context, &[quiet(0)], later, || 11).session_id, 11);
        assert_eq!(sessions.len(), 2);
    }
}
