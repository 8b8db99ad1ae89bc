//! Tests of fetch sessions, one of them beside a session that reads everything.

use super::*;
use crate::replica_manager::ready_set::{Moved, Watchers};
use proptest::prelude::*;

const VIEW: FetchView =
    FetchView { metadata: LogPosition { index: 0, term: 0 }, isolation_level: 0, replica_id: -1 };

fn key(partition: i32) -> PartitionKey {
    named("t", partition)
}

fn named(topic: &str, partition: i32) -> PartitionKey {
    let topic = TopicKey::Name(TopicName(StrBytes::from_string(topic.to_owned())));
    PartitionKey { topic, partition }
}

fn forgetting(keys: &[PartitionKey]) -> Forgotten {
    Forgotten::new(keys.iter().map(|key| (key.topic.clone(), vec![key.partition])))
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
    let context =
        sessions.begin((0, 0), false, vec![(key, at(0))], &forgetting(&[]), VIEW, now).unwrap();
    let outcome = PartitionOutcome { has_records: true, ..quiet(5) };
    sessions.finish(&context, &[outcome], now, || 7);
    drop(context);
    assert_eq!(sessions.len(), 1);
    assert!(frame.is_unique());
}

#[test]
fn a_session_keeps_a_topics_name_once_for_all_its_partitions() {
    let mut sessions = FetchSessions::new(1);
    let two = (0..50).flat_map(|partition| [named("a", partition), named("b", partition)]);
    let both: Vec<_> = two.map(|key| (key, at(0))).collect();
    let context = sessions.begin((0, 0), false, both, &forgetting(&[]), VIEW, now()).unwrap();
    sessions.finish(&context, &[quiet(5); 100], now(), || 7);
    assert_eq!(sessions.sessions[&7].name_addresses().len(), 2);
    let added = vec![(named("a", 50), at(0)), (named("c", 0), at(0))];
    sessions.begin((7, 1), false, added, &forgetting(&[]), VIEW, now()).unwrap();
    assert_eq!(sessions.sessions[&7].len(), 102);
    assert_eq!(sessions.sessions[&7].name_addresses().len(), 3);
    let forgotten: Vec<_> = (0..51).map(|partition| named("a", partition)).collect();
    sessions.begin((7, 2), false, vec![], &forgetting(&forgotten), VIEW, now()).unwrap();
    assert_eq!(sessions.sessions[&7].name_addresses().len(), 2);
}

#[test]
fn a_name_that_no_topic_can_have_is_kept_in_no_session() {
    let longest = "x".repeat(MAX_TOPIC_NAME_BYTES);
    let too_long = format!("{longest}x");
    let mut sessions = FetchSessions::new(1);
    let mut open = |name: &str, id| {
        let both = vec![(key(0), at(0)), (named(name, 0), at(0))];
        let context = sessions.begin((0, 0), false, both, &forgetting(&[]), VIEW, now()).unwrap();
        sessions.finish(&context, &[quiet(5), quiet(5)], now(), || id)
    };
    assert_eq!(open(&too_long, 6), SessionAnswer { session_id: 0, is_included: vec![true, true] });
    assert_eq!(open(&longest, 7).session_id, 7);
    let added = vec![(named(&too_long, 0), at(0))];
    let added = sessions.begin((7, 1), false, added, &forgetting(&[]), VIEW, now()).map(drop);
    assert_eq!(added, Err(FetchSessionError::IdNotFound));
    assert!(sessions.is_empty(), "the client opens another");
}

fn quiet(high_watermark: i64) -> PartitionOutcome {
    PartitionOutcome {
        high_watermark,
        log_start_offset: 0,
        has_records: false,
        is_error: false,
        redirects: false,
        is_at_end: false,
    }
}

fn now() -> Instant {
    Instant::from_nanos(0)
}

/// Two partitions at high watermark 5, session 7.
fn opened() -> FetchSessions {
    let mut sessions = FetchSessions::new(2);
    let both = vec![(key(0), at(0)), (key(1), at(0))];
    let context = sessions.begin((0, 0), false, both, &forgetting(&[]), VIEW, now()).unwrap();
    let answer = sessions.finish(&context, &[quiet(5), quiet(5)], now(), || 7);
    assert_eq!(answer, SessionAnswer { session_id: 7, is_included: vec![true, true] });
    sessions
}

#[test]
fn an_incremental_answer_names_only_what_moved() {
    let mut sessions = opened();
    let context = sessions.begin((7, 1), false, vec![], &forgetting(&[]), VIEW, now()).unwrap();
    let answer = sessions.finish(&context, &[quiet(5), quiet(6)], now(), || 8);
    assert_eq!(answer, SessionAnswer { session_id: 7, is_included: vec![false, true] });
}

#[test]
fn a_partition_in_error_is_named_until_it_has_recovered_and_then_once_more() {
    let mut sessions = opened();
    let error = PartitionOutcome { is_error: true, high_watermark: -1, ..quiet(-1) };
    for epoch in 1..3 {
        let context =
            sessions.begin((7, epoch), false, vec![], &forgetting(&[]), VIEW, now()).unwrap();
        assert!(sessions.finish(&context, &[error, quiet(5)], now(), || 8).is_included[0]);
    }
    let context = sessions.begin((7, 3), false, vec![], &forgetting(&[]), VIEW, now()).unwrap();
    assert!(sessions.finish(&context, &[quiet(5), quiet(5)], now(), || 8).is_included[0]);
    let context = sessions.begin((7, 4), false, vec![], &forgetting(&[]), VIEW, now()).unwrap();
    assert!(!sessions.finish(&context, &[quiet(5), quiet(5)], now(), || 8).is_included[0]);
}

#[test]
fn a_partition_that_was_served_goes_to_the_end() {
    let mut sessions = opened();
    let context = sessions.begin((7, 1), false, vec![], &forgetting(&[]), VIEW, now()).unwrap();
    let served = PartitionOutcome { has_records: true, ..quiet(5) };
    sessions.finish(&context, &[served, quiet(5)], now(), || 8);
    let context = sessions.begin((7, 2), false, vec![], &forgetting(&[]), VIEW, now()).unwrap();
    let order: Vec<i32> = context.partitions.iter().map(|one| one.key.partition).collect();
    assert_eq!(order, [1, 0]);
}

#[test]
fn what_is_not_there_may_be_forgotten_and_what_is_as_often_as_one_likes() {
    let mut sessions = opened();
    let many = (-1..100).chain(-1..100).filter(|partition| *partition != 0).collect();
    let forgotten = Forgotten::new([(key(0).topic, many), (named("u", 0).topic, vec![0])]);
    let context = sessions.begin((7, 1), false, vec![], &forgotten, VIEW, now()).unwrap();
    assert_eq!(context.partitions.iter().map(|one| one.key.partition).collect::<Vec<_>>(), [0]);
    assert_eq!(sessions.sessions[&7].len(), 1);
}

#[test]
fn wrong_ids_epochs_and_topic_forms_are_told_apart() {
    let mut sessions = opened();
    let begin = |sessions: &mut FetchSessions, id, epoch, ids| {
        sessions
            .begin((id, epoch), ids, vec![], &forgetting(&[]), VIEW, now())
            .map(|_| ())
            .unwrap_err()
    };
    assert_eq!(begin(&mut sessions, 8, 1, false), FetchSessionError::IdNotFound);
    assert_eq!(begin(&mut sessions, 7, 2, false), FetchSessionError::InvalidEpoch);
    assert_eq!(begin(&mut sessions, 7, 1, true), FetchSessionError::TopicIdMismatch);
}

#[test]
fn a_session_that_forgets_everything_is_closed() {
    let mut sessions = opened();
    let context =
        sessions.begin((7, 1), false, vec![], &forgetting(&[key(0), key(1)]), VIEW, now()).unwrap();
    assert_eq!(sessions.finish(&context, &[], now(), || 8).session_id, 0);
    assert!(sessions.is_empty());
}

#[test]
fn a_full_cache_answers_without_a_session_until_one_is_idle() {
    let mut sessions = opened();
    for id in [9, 10] {
        let context = sessions
            .begin((0, 0), false, vec![(key(0), at(0))], &forgetting(&[]), VIEW, now())
            .unwrap();
        let answer = sessions.finish(&context, &[quiet(0)], now(), || id);
        assert_eq!(answer.session_id, if id == 9 { 9 } else { 0 });
    }
    let later = Instant::from_nanos(EVICTABLE_AFTER.as_nanos() as u64 + 1);
    let context = sessions
        .begin((0, 0), false, vec![(key(0), at(0))], &forgetting(&[]), VIEW, later)
        .unwrap();
    assert_eq!(sessions.finish(&context, &[quiet(0)], later, || 11).session_id, 11);
    assert_eq!(sessions.len(), 2);
}

fn is_accounted_for(sessions: &FetchSessions) -> bool {
    let kept: usize = sessions.sessions.values().map(Session::size_bytes).sum();
    kept == sessions.cached_bytes && kept <= sessions.max_bytes
}

/// What a full fetch of so many partitions of one topic is answered.
fn open(sessions: &mut FetchSessions, count: i32, id: i32, now: Instant) -> i32 {
    let all = (0..count).map(|partition| (key(partition), at(0))).collect();
    let context = sessions.begin((0, 0), false, all, &forgetting(&[]), VIEW, now).unwrap();
    let answer = sessions.finish(&context, &vec![quiet(0); count as usize], now, || id);
    assert!(answer.is_included.iter().all(|is_included| *is_included));
    assert!(is_accounted_for(sessions));
    answer.session_id
}

#[test]
fn sessions_keep_only_so_much_together_and_whoever_is_idle_makes_room() {
    let later = Instant::from_nanos(EVICTABLE_AFTER.as_nanos() as u64 + 1);
    let mut sessions = FetchSessions::new(10);
    assert_eq!(open(&mut sessions, 10, 1, now()), 1);
    let of_ten = sessions.cached_bytes;
    sessions.max_bytes = 3 * of_ten;
    assert_eq!(open(&mut sessions, 10, 2, now()), 2);
    assert_eq!(open(&mut sessions, 11, 3, now()), 0, "no room, so no session");
    assert_eq!(open(&mut sessions, 10, 3, now()), 3);
    assert_eq!(open(&mut sessions, 1, 4, now()), 0);
    sessions.begin((2, 1), false, vec![], &forgetting(&[]), VIEW, later).unwrap();
    assert_eq!(open(&mut sessions, 35, 4, later), 0, "more than all of them may keep");
    assert_eq!(sessions.len(), 3, "which sends nobody away");
    assert_eq!(open(&mut sessions, 20, 4, later), 4);
    assert_eq!(sessions.sessions.keys().collect::<Vec<_>>(), [&2, &4]);
}

#[test]
fn a_session_that_grows_past_what_all_may_keep_is_closed() {
    let mut sessions = opened();
    sessions.max_bytes = 2 * sessions.cached_bytes;
    let add = |sessions: &mut FetchSessions, epoch, range: std::ops::Range<i32>| {
        let added = range.map(|partition| (key(partition), at(0))).collect();
        let began = sessions.begin((7, epoch), false, added, &forgetting(&[]), VIEW, now());
        assert!(is_accounted_for(sessions));
        began.map(|context| context.partitions.len())
    };
    assert_eq!(add(&mut sessions, 1, 0..3), Ok(3));
    assert_eq!(add(&mut sessions, 2, 0..1_000_000), Err(FetchSessionError::IdNotFound));
    assert!(sessions.is_empty());
    assert_eq!(sessions.cached_bytes, 0);
    assert_eq!(open(&mut sessions, 3, 8, now()), 8);
}

#[derive(Debug, Clone)]
enum Step {
    Append(i32),
    DeleteRecords(i32),
    Fail(i32),
    Recover(i32),
    Forget(i32),
    Name { partition: i32, lag: i64 },
    OtherMetadata,
    Fetch,
    FetchInVain,
}

fn step() -> impl Strategy<Value = Step> {
    let any = 0..6i32;
    prop_oneof![
        4 => any.clone().prop_map(Step::Append),
        1 => any.clone().prop_map(Step::DeleteRecords),
        1 => any.clone().prop_map(Step::Fail),
        1 => any.clone().prop_map(Step::Recover),
        1 => any.clone().prop_map(Step::Forget),
        3 => (any, 0..2i64).prop_map(|(partition, lag)| Step::Name { partition, lag }),
        1 => Just(Step::OtherMetadata),
        6 => Just(Step::Fetch),
        1 => Just(Step::FetchInVain),
    ]
}

#[derive(Debug, Default)]
struct Hosted {
    high_watermark: i64,
    log_start: i64,
    is_failed: bool,
    watchers: Watchers,
}

impl Hosted {
    fn read(&self, position: &FetchPosition) -> PartitionOutcome {
        let at_end = position.fetch_offset >= self.high_watermark;
        PartitionOutcome {
            high_watermark: if self.is_failed { -1 } else { self.high_watermark },
            log_start_offset: if self.is_failed { -1 } else { self.log_start },
            has_records: !self.is_failed && !at_end,
            is_error: self.is_failed,
            redirects: false,
            is_at_end: !self.is_failed && at_end,
        }
    }
}

proptest! {
    /// Beside a session that reads everything each time: the answers name the same partitions in the same order.
    #[test]
    fn reading_what_is_ready_answers_as_reading_everything(
        steps in prop::collection::vec(step(), 0..100),
    ) {
        let mut hosted: Vec<Hosted> = (0..6).map(|_| Hosted::default()).collect();
        let (mut quick, mut slow) = (FetchSessions::new(1), FetchSessions::new(1));
        let mut named: BTreeMap<i32, FetchPosition> = (0..6).map(|one| (one, at(0))).collect();
        let (mut forgotten, mut view, mut session_id, mut epoch) = (Vec::new(), VIEW, 0, 0);
        let mut fetches_anything = true;
        for step in steps {
            let moved = match step {
                Step::Append(one) => {
                    hosted[one as usize].high_watermark += 1;
                    Some(one)
                }
                Step::DeleteRecords(one) => {
                    let hosted = &mut hosted[one as usize];
                    hosted.log_start = hosted.high_watermark;
                    Some(one)
                }
                Step::Fail(one) => {
                    hosted[one as usize].is_failed = true;
                    Some(one)
                }
                Step::Recover(one) => {
                    hosted[one as usize].is_failed = false;
                    Some(one)
                }
                Step::Forget(one) => {
                    named.remove(&one);
                    if epoch > 0 {
                        forgotten.push(key(one));
                    }
                    None
                }
                Step::Name { partition, lag } => {
                    let end = hosted[partition as usize].high_watermark;
                    named.insert(partition, at((end - lag).max(0)));
                    forgotten.retain(|other| other.partition != partition);
                    None
                }
                Step::OtherMetadata => {
                    view.metadata.index += 1;
                    None
                }
                Step::FetchInVain => {
                    // Taken from the session by a fetch that is given up.
                    if let Some(session) = quick.sessions.get(&session_id) {
                        for one in session.take_ready() {
                            session.ready.queue(one.slot);
                        }
                    }
                    None
                }
                Step::Fetch if !fetches_anything => None,
                Step::Fetch => {
                    let asked: Vec<_> =
                        named.iter().map(|(one, position)| (key(*one), *position)).collect();
                    let mut answers = Vec::new();
                    for (sessions, reads_all) in [(&mut quick, false), (&mut slow, true)] {
                        let context = sessions
                            .begin((session_id, epoch), false, asked.clone(), &forgetting(&forgotten), view, now())
                            .unwrap();
                        let outcomes: Vec<_> = context
                            .partitions
                            .iter()
                            .map(|one| {
                                let hosted = &hosted[one.key.partition as usize];
                                if let Some(ready) = context.ready() {
                                    hosted.watchers.watch(ready, one.slot, 0);
                                }
                                let outcome = hosted.read(&one.position);
                                PartitionOutcome { is_at_end: outcome.is_at_end && !reads_all, ..outcome }
                            })
                            .collect();
                        let answer = sessions.finish(&context, &outcomes, now(), || 7);
                        prop_assert!(is_accounted_for(sessions));
                        let included: Vec<_> = context
                            .partitions
                            .iter()
                            .zip(answer.is_included)
                            .filter(|(_, is_included)| *is_included)
                            .map(|(one, _)| one.key.clone())
                            .collect();
                        answers.push((answer.session_id, included));
                    }
                    prop_assert_eq!(&answers[0], &answers[1]);
                    fetches_anything = answers[0].0 != 0;
                    session_id = answers[0].0;
                    epoch = next_epoch(epoch);
                    named.clear();
                    forgotten.clear();
                    None
                }
            };
            if let Some(one) = moved {
                hosted[one as usize].watchers.mark(Moved::Forward, 0);
            }
        }
    }
}

#[test]
fn what_is_at_its_end_is_read_again_only_when_it_has_moved() {
    let mut sessions = opened();
    let at_end = PartitionOutcome { is_at_end: true, ..quiet(5) };
    let begin = |sessions: &mut FetchSessions, epoch| {
        let context =
            sessions.begin((7, epoch), false, vec![], &forgetting(&[]), VIEW, now()).unwrap();
        let read: Vec<_> = context.partitions.iter().map(|one| one.key.partition).collect();
        (context, read)
    };
    let (context, read) = begin(&mut sessions, 1);
    assert_eq!(read, [0, 1], "nobody watched them before");
    let watchers = Watchers::default();
    watchers.watch(context.ready().unwrap(), context.partitions[1].slot, 0);
    sessions.finish(&context, &[at_end, at_end], now(), || 8);
    let (context, read) = begin(&mut sessions, 2);
    assert_eq!(read, [0; 0]);
    watchers.mark(Moved::Forward, 1);
    let ready = sessions.take_ready(&context).unwrap();
    assert_eq!(ready.iter().map(|one| one.key.partition).collect::<Vec<_>>(), [1]);
    sessions.finish(&context, &[], now(), || 8);
}

#[test]
fn a_session_that_forgets_and_names_again_keeps_its_slots_few() {
    let mut sessions = opened();
    for epoch in 1..50 {
        let (name, forget) =
            if epoch % 2 == 0 { (vec![(key(1), at(0))], vec![]) } else { (vec![], vec![key(1)]) };
        let context =
            sessions.begin((7, epoch), false, name, &forgetting(&forget), VIEW, now()).unwrap();
        let outcomes = vec![quiet(5); context.partitions.len()];
        sessions.finish(&context, &outcomes, now(), || 8);
    }
    assert_eq!(sessions.sessions[&7].count_slots(), 2);
}
