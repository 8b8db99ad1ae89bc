//! Fetch sessions (KIP-227): the broker remembers what a client fetches, so that a request names only what changed
//! and an answer only what moved. Pure; the shell hands in time and fresh ids (`FetchSession.scala`, kafka-facts §6.1).
//!
//! A session reads only its *ready* partitions: those that a request names, those that have moved since they were read, and
//! those whose last answer was more than "nothing beyond what you have". The others would be answered as before, that is,
//! not at all.
//!
//! What a session cannot hold is not refused: a fetch that would open one is answered whole, with session id 0, and one that
//! would make its session so loses it: a name longer than topics have, or more than all sessions may keep together. Clients go on with full fetches then, as after any eviction.

mod named;
mod session;

pub use named::{Forgotten, last_of_each};

use crate::replica_manager::ready_set::ReadySet;
use kafka_protocol::messages::TopicName;
use kafka_protocol::protocol::StrBytes;
use replication::controller::MAX_TOPIC_NAME_BYTES;
use replication::metadata::LogPosition;
use session::Session;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use storage::instant::Instant;
use uuid::Uuid;

/// Sessions idle for longer may be evicted by anyone; younger ones only by bigger or privileged ones.
const EVICTABLE_AFTER: Duration = Duration::from_secs(120);
/// Most bytes that all sessions keep together, by [`Session::size_bytes`]: about 400,000 partitions. Kafka bounds only the
/// number of sessions, and a single request may name two million partitions.
const MAX_CACHED_BYTES: usize = 128 << 20;
/// The epoch of a request that opens a session.
const INITIAL_EPOCH: i32 = 0;
/// The epoch of a request outside sessions, or of one that closes its session.
const FINAL_EPOCH: i32 = -1;

/// How a request names a topic: by name to v12, by id from v13.
#[derive(Debug, Clone, Eq, PartialOrd, Ord)]
pub enum TopicKey {
    /// To v12.
    Name(TopicName),
    /// From v13.
    Id(Uuid),
}

impl PartialEq for TopicKey {
    /// Copies of one name are known to be the same without a look at the text.
    fn eq(&self, other: &TopicKey) -> bool {
        match (self, other) {
            (TopicKey::Name(one), TopicKey::Name(other)) => {
                std::ptr::eq(one.as_str(), other.as_str()) || one == other
            }
            (TopicKey::Id(one), TopicKey::Id(other)) => one == other,
            _ => false,
        }
    }
}

impl TopicKey {
    /// The same, without a share in the frame that it came in, which may be large.
    fn detached(&self) -> TopicKey {
        match self {
            TopicKey::Name(name) => {
                TopicKey::Name(TopicName(StrBytes::from_string(name.to_string())))
            }
            TopicKey::Id(id) => TopicKey::Id(*id),
        }
    }

    /// No topic can have such a name; on the wire one may be 130 times as long.
    fn is_too_long(&self) -> bool {
        matches!(self, TopicKey::Name(name) if name.len() > MAX_TOPIC_NAME_BYTES)
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
    /// There is nothing for the reader until the partition moves.
    pub is_at_end: bool,
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
    Incremental { session_id: i32, ready: Arc<ReadySet> },
}

/// One fetch under way: its partitions in order, and how its answer is told to the session.
#[derive(Debug)]
pub struct FetchContext {
    kind: Kind,
    uses_topic_ids: bool,
    /// What to read, in the order to read it.
    pub partitions: Vec<FetchedPartition>,
}

/// A partition to read.
#[derive(Debug, Clone)]
pub struct FetchedPartition {
    /// Which.
    pub key: PartitionKey,
    /// From where.
    pub position: FetchPosition,
    /// Its slot in the session's [`ReadySet`]; outside sessions, its place in the request.
    pub slot: u32,
    order: u64,
}

impl FetchedPartition {
    /// Its place in the session: smaller ones are read and answered first.
    pub fn order(&self) -> u64 {
        self.order
    }
}

impl FetchContext {
    /// The session's ready set; `None` outside of incremental fetches.
    pub fn ready(&self) -> Option<&Arc<ReadySet>> {
        match &self.kind {
            Kind::Incremental { ready, .. } => Some(ready),
            Kind::Sessionless | Kind::Full => None,
        }
    }
}

/// What a partition's answer depends on besides the partition: when it changes, all of a session is read again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FetchView {
    /// Of the metadata.
    pub metadata: LogPosition,
    /// As on the wire.
    pub isolation_level: i8,
    /// As on the wire.
    pub replica_id: i32,
}

/// What the answer must say.
#[derive(Debug, PartialEq, Eq)]
pub struct SessionAnswer {
    /// 0 when the client is in no session.
    pub session_id: i32,
    /// For each partition of the context, whether the answer names it.
    pub is_included: Vec<bool>,
}

/// All sessions of a broker.
#[derive(Debug)]
pub struct FetchSessions {
    max_sessions: usize,
    max_bytes: usize,
    /// Changed by [`Self::remove`] and wherever one is put in or grows.
    sessions: BTreeMap<i32, Session>,
    /// What `sessions` keep together.
    cached_bytes: usize,
}

impl FetchSessions {
    /// Holds at most `max_sessions` (`max.incremental.fetch.session.cache.slots`), which keep at most 128 MiB together.
    pub fn new(max_sessions: usize) -> FetchSessions {
        FetchSessions {
            max_sessions,
            max_bytes: MAX_CACHED_BYTES,
            sessions: BTreeMap::new(),
            cached_bytes: 0,
        }
    }

    /// Sessions open now.
    pub fn len(&self) -> usize {
        self.sessions.len()
    }

    /// Whether no session is open.
    pub fn is_empty(&self) -> bool {
        self.sessions.is_empty()
    }

    /// Takes a request in: which partitions to read. Each of `partitions` is named once ([`last_of_each`]).
    ///
    /// # Errors
    /// [`FetchSessionError`], to be answered at the top level.
    pub fn begin(
        &mut self,
        (session_id, epoch): (i32, i32),
        uses_topic_ids: bool,
        partitions: Vec<(PartitionKey, FetchPosition)>,
        forgotten: &Forgotten,
        view: FetchView,
        now: Instant,
    ) -> Result<FetchContext, FetchSessionError> {
        if epoch == INITIAL_EPOCH || epoch == FINAL_EPOCH {
            if session_id != 0 {
                self.remove(session_id);
            }
            let kind = match epoch {
                FINAL_EPOCH => Kind::Sessionless,
                _ => Kind::Full,
            };
            let fetched = |(slot, (key, position))| FetchedPartition {
                key,
                position,
                slot,
                order: u64::from(slot),
            };
            let partitions = (0..).zip(partitions).map(fetched).collect();
            return Ok(FetchContext { kind, uses_topic_ids, partitions });
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
        let of_others = self.cached_bytes - session.size_bytes();
        let is_kept = partitions.into_iter().all(|(key, position)| {
            let is_kept = !key.topic.is_too_long();
            if is_kept {
                session.upsert(&key, position);
            }
            is_kept && of_others + session.size_bytes() <= self.max_bytes
        });
        for (topic, partitions) in forgotten.topics() {
            session.forget(topic, partitions);
        }
        self.cached_bytes = of_others + session.size_bytes();
        if !is_kept {
            self.remove(session_id);
            return Err(FetchSessionError::IdNotFound);
        }
        if session.view != Some(view) {
            session.view = Some(view);
            session.queue_all();
        }
        if session.is_empty() {
            self.remove(session_id);
            let partitions = Vec::new();
            return Ok(FetchContext { kind: Kind::Sessionless, uses_topic_ids, partitions });
        }
        let partitions = session.take_ready();
        let kind = Kind::Incremental { session_id, ready: Arc::clone(&session.ready) };
        Ok(FetchContext { kind, uses_topic_ids, partitions })
    }

    /// The partitions that have become ready since the context was made; `None` when its session is gone.
    pub fn take_ready(&self, context: &FetchContext) -> Option<Vec<FetchedPartition>> {
        match &context.kind {
            Kind::Incremental { session_id, ready } => {
                let session = self.sessions.get(session_id)?;
                Arc::ptr_eq(&session.ready, ready).then(|| session.take_ready())
            }
            Kind::Sessionless | Kind::Full => None,
        }
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
        match &context.kind {
            Kind::Sessionless => SessionAnswer { session_id: 0, is_included: everything },
            Kind::Full => {
                let is_too_long = |one: &FetchedPartition| one.key.topic.is_too_long();
                if context.partitions.iter().any(is_too_long)
                    || !self.make_room(&context.partitions, now)
                {
                    return SessionAnswer { session_id: 0, is_included: everything };
                }
                let session_id = loop {
                    let id = fresh_id();
                    if id > 0 && !self.sessions.contains_key(&id) {
                        break id;
                    }
                };
                let mut session = Session::new(context.uses_topic_ids, now);
                // Nobody watches them yet: the next fetch reads all of them once more.
                for (fetched, outcome) in context.partitions.iter().zip(outcomes) {
                    let slot = session.upsert(&fetched.key, fetched.position);
                    session.note(&fetched.key, slot, outcome);
                }
                self.cached_bytes += session.size_bytes();
                self.sessions.insert(session_id, session);
                SessionAnswer { session_id, is_included: everything }
            }
            Kind::Incremental { session_id, ready } => {
                let session_id = *session_id;
                let session = self.sessions.get_mut(&session_id);
                let Some(session) = session.filter(|one| Arc::ptr_eq(&one.ready, ready)) else {
                    // Evicted while this fetch waited: say everything; the next request learns it.
                    return SessionAnswer { session_id, is_included: everything };
                };
                let is_included = context
                    .partitions
                    .iter()
                    .zip(outcomes)
                    .map(|(fetched, outcome)| {
                        if !outcome.is_at_end {
                            session.ready.queue(fetched.slot);
                        }
                        session.note(&fetched.key, fetched.slot, outcome)
                    })
                    .collect();
                SessionAnswer { session_id, is_included }
            }
        }
    }

    fn remove(&mut self, session_id: i32) -> bool {
        let session = self.sessions.remove(&session_id);
        self.cached_bytes -= session.as_ref().map_or(0, Session::size_bytes);
        session.is_some()
    }

    /// Whether a session of these partitions may be added, evicting others if need be: for its bytes only idle ones.
    fn make_room(&mut self, partitions: &[FetchedPartition], now: Instant) -> bool {
        let size = partitions.len();
        let size_bytes = session::size_bytes_at_most(partitions);
        if size_bytes > self.max_bytes {
            return false;
        }
        while self.cached_bytes + size_bytes > self.max_bytes {
            let idlest = self.sessions.iter().min_by_key(|(_, session)| session.last_used);
            match idlest.map(|(&id, session)| (id, now.saturating_since(session.last_used))) {
                Some((id, idle)) if idle > EVICTABLE_AFTER => self.remove(id),
                _ => return false,
            };
        }
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
                .min_by_key(|(_, session)| session.len())
                .filter(|(_, session)| session.len() < size)
                .map(|(&id, _)| id),
        };
        victim.is_some_and(|id| self.remove(id))
    }
}

/// 1, 2, … 2³¹−1, then 1 again.
fn next_epoch(epoch: i32) -> i32 {
    epoch.checked_add(1).unwrap_or(1)
}

#[cfg(test)]
mod tests;
