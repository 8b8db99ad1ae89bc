//! The rules of idempotence one by one, and the fold against a twin that reads the whole log each time.

use proptest::prelude::*;

use super::*;
use crate::log_validator::AppendOrigin;
use crate::record_batch::{BatchSequences, RecordBatchBuilder};

const NEVER_MS: i64 = i64::MAX;

fn now() -> Timestamp {
    Timestamp::new(1_000_000).unwrap()
}

fn offset(value: i64) -> Offset {
    Offset::new(value).unwrap()
}

/// A batch of `count` records of producer `id`.
fn batch(base: i64, id: i64, epoch: i16, sequence: i32, count: usize) -> RecordBatchBuilder {
    let (id, epoch) = (ProducerId::new(id).unwrap(), ProducerEpoch::new(epoch).unwrap());
    let mut builder =
        RecordBatchBuilder::new().base_offset(offset(base)).producer(id, epoch, Some(sequence));
    for _ in 0..count {
        // A time of its own for each batch, so that a state with a wrong one is not equal.
        builder.push(Timestamp::new(base + 1000), None, Some(b"v"), &[]);
    }
    builder
}

fn header(builder: RecordBatchBuilder) -> BatchHeader {
    BatchHeader::parse(&builder.build().unwrap()).unwrap()
}

fn marker_batch(base: i64, id: i64, epoch: i16, marker: EndTransactionMarker) -> BatchHeader {
    let (id, epoch) = (ProducerId::new(id).unwrap(), ProducerEpoch::new(epoch).unwrap());
    let time = Timestamp::new(base + 1000).unwrap();
    let builder = RecordBatchBuilder::end_transaction_marker(id, epoch, marker, time);
    header(builder.base_offset(offset(base)))
}

fn abort(coordinator_epoch: i32) -> EndTransactionMarker {
    EndTransactionMarker { is_commit: false, coordinator_epoch }
}

fn commit(coordinator_epoch: i32) -> EndTransactionMarker {
    EndTransactionMarker { is_commit: true, coordinator_epoch }
}

fn check(state: &ProducerStateManager, header: &BatchHeader) -> Result<SequenceCheck, i32> {
    // The Kafka code is enough to tell the errors apart here.
    state.check(header, None, AppendOrigin::Client).map_err(|error| match error {
        ProducerStateError::InvalidProducerEpoch { .. } => 47,
        ProducerStateError::OutOfOrderSequence { .. } => 45,
        ProducerStateError::InvalidTransactionState { .. } => 48,
        ProducerStateError::CoordinatorFenced { .. } => 52,
    })
}

fn state_of(headers: impl IntoIterator<Item = BatchHeader>) -> ProducerStateManager {
    let mut state = ProducerStateManager::new();
    for header in headers {
        state.update(&header, None);
    }
    state
}

const NEW: Result<SequenceCheck, i32> = Ok(SequenceCheck::New);

#[test]
fn five_batches_are_recognised_and_the_sixth_oldest_is_out_of_order() {
    let batches = (0..7).map(|n| header(batch(i64::from(n) * 2, 1, 0, n * 2, 2)));
    let state = state_of(batches.clone());
    let answers: Vec<_> = batches.map(|header| check(&state, &header)).collect();
    assert_eq!(answers[..2], [Err(45), Err(45)]);
    for (answer, base) in answers[2..].iter().zip([4, 6, 8, 10, 12]) {
        let duplicate = SequenceCheck::Duplicate {
            base_offset: offset(base),
            last_offset: offset(base + 1),
            timestamp: Timestamp::new(base + 1000),
        };
        assert_eq!(*answer, Ok(duplicate));
    }
}

#[test]
fn a_retry_with_other_bounds_is_no_duplicate() {
    let state = state_of([header(batch(0, 1, 0, 0, 4))]);
    assert_eq!(check(&state, &header(batch(0, 1, 0, 0, 3))), Err(45));
    assert_eq!(check(&state, &header(batch(0, 1, 0, 1, 3))), Err(45));
    assert_eq!(check(&state, &header(batch(0, 1, 1, 0, 4))), NEW, "another epoch");
}

#[test]
fn the_next_sequence_follows_without_gap_and_wraps_to_zero() {
    let state = state_of([header(batch(0, 1, 0, i32::MAX - 1, 1))]);
    assert_eq!(check(&state, &header(batch(1, 1, 0, i32::MAX, 1))), NEW);
    assert_eq!(check(&state, &header(batch(1, 1, 0, 0, 1))), Err(45));
    let state = state_of([header(batch(0, 1, 0, i32::MAX - 1, 2))]);
    assert_eq!(check(&state, &header(batch(2, 1, 0, 0, 1))), NEW);
    assert_eq!(check(&state, &header(batch(2, 1, 0, 1, 1))), Err(45));
    let wrapped = state_of([header(batch(0, 1, 0, i32::MAX, 3))]);
    assert!(matches!(
        check(&wrapped, &header(batch(0, 1, 0, i32::MAX, 3))),
        Ok(SequenceCheck::Duplicate { .. })
    ));
    assert_eq!(check(&wrapped, &header(batch(3, 1, 0, 2, 1))), NEW);
}

#[test]
fn a_new_epoch_starts_at_zero_and_fences_the_old() {
    let state = state_of([header(batch(0, 1, 3, 0, 4))]);
    assert_eq!(check(&state, &header(batch(4, 1, 4, 4, 1))), Err(45));
    assert_eq!(check(&state, &header(batch(4, 1, 4, 0, 1))), NEW);
    assert_eq!(check(&state, &header(batch(4, 1, 2, 4, 1))), Err(47));
    let coordinator = AppendOrigin::Coordinator;
    let sequence = header(batch(4, 1, 3, 0, 1));
    assert_eq!(state.check(&sequence, None, coordinator), Ok(SequenceCheck::New), "epoch only");
    let old = header(batch(4, 1, 2, 4, 1));
    assert!(state.check(&old, None, coordinator).is_err());
    assert_eq!(state.check(&old, None, AppendOrigin::Replication), Ok(SequenceCheck::New));
}

#[test]
fn an_unknown_producer_may_start_anywhere() {
    let state = state_of([header(batch(0, 1, 0, 0, 4))]);
    assert_eq!(check(&state, &header(batch(4, 2, 7, 12345, 1))), NEW);
}

#[test]
fn after_a_marker_of_a_new_epoch_zero_is_expected() {
    let mut state = state_of([header(batch(0, 1, 0, 0, 4).transactional())]);
    state.update(&marker_batch(4, 1, 1, commit(0)), Some(commit(0)));
    assert_eq!(check(&state, &header(batch(5, 1, 1, 4, 1))), Err(45));
    assert_eq!(check(&state, &header(batch(5, 1, 1, 0, 1))), NEW);
    // One of the same epoch keeps the sequence going.
    let mut state = state_of([header(batch(0, 1, 0, 0, 4).transactional())]);
    state.update(&marker_batch(4, 1, 0, commit(0)), Some(commit(0)));
    assert_eq!(check(&state, &header(batch(5, 1, 0, 4, 1))), NEW);
}

#[test]
fn data_outside_the_open_transaction_is_refused() {
    let state = state_of([header(batch(0, 1, 0, 0, 1).transactional())]);
    assert_eq!(check(&state, &header(batch(1, 1, 0, 1, 1))), Err(48));
    assert_eq!(check(&state, &header(batch(1, 1, 0, 1, 1).transactional())), NEW);
}

#[test]
fn an_older_coordinator_is_fenced() {
    let mut state = state_of([header(batch(0, 1, 0, 0, 1).transactional())]);
    state.update(&marker_batch(1, 1, 0, commit(5)), Some(commit(5)));
    let check = |epoch| {
        let marker = abort(epoch);
        let header = marker_batch(2, 1, 0, marker);
        state.check(&header, Some(marker), AppendOrigin::Coordinator)
    };
    assert!(matches!(check(4), Err(ProducerStateError::CoordinatorFenced { found: 4, .. })));
    assert_eq!(check(5), Ok(SequenceCheck::New));
}

#[test]
fn the_first_unstable_offset_waits_for_the_marker_to_be_replicated() {
    let mut state = ProducerStateManager::new();
    state.update(&header(batch(0, 1, 0, 0, 2).transactional()), None);
    state.update(&header(batch(2, 2, 0, 0, 2).transactional()), None);
    state.update(&header(batch(4, 3, 0, 0, 2)), None);
    assert_eq!(state.first_unstable_offset(), Some(offset(0)));
    let aborted = state.update(&marker_batch(6, 1, 0, abort(0)), Some(abort(0))).unwrap();
    assert_eq!((aborted.first_offset, aborted.last_offset), (offset(0), offset(6)));
    assert_eq!(aborted.last_stable_offset, offset(2), "producer 2 is still open");
    assert_eq!(state.first_unstable_offset(), Some(offset(0)), "the marker may still vanish");
    state.handle_high_watermark(offset(6));
    assert_eq!(state.first_unstable_offset(), Some(offset(0)), "exclusive");
    state.handle_high_watermark(offset(7));
    assert_eq!(state.first_unstable_offset(), Some(offset(2)));
    assert_eq!(state.update(&marker_batch(7, 2, 0, commit(0)), Some(commit(0))), None);
    state.handle_high_watermark(offset(8));
    assert_eq!(state.first_unstable_offset(), None);
}

#[test]
fn the_last_abort_is_stable_behind_its_marker_and_an_empty_one_leaves_no_entry() {
    let mut state = state_of([header(batch(0, 1, 0, 0, 2).transactional())]);
    let aborted = state.update(&marker_batch(2, 1, 0, abort(0)), Some(abort(0))).unwrap();
    assert_eq!(aborted.last_stable_offset, offset(3));
    assert_eq!(state.update(&marker_batch(3, 1, 0, abort(0)), Some(abort(0))), None);
}

#[test]
fn silent_producers_expire_and_open_transactions_do_not() {
    let mut state = state_of([
        header(batch(0, 1, 0, 0, 1)),
        header(batch(50, 2, 0, 0, 1)),
        header(batch(1, 3, 0, 0, 1).transactional()),
    ]);
    let ids = |state: &ProducerStateManager| {
        state.producers().map(|entry| entry.producer_id().value()).collect::<Vec<_>>()
    };
    state.expire(Timestamp::new(1999).unwrap(), 1000);
    assert_eq!(ids(&state), [1, 2, 3]);
    state.expire(Timestamp::new(2000).unwrap(), 1000);
    assert_eq!(ids(&state), [2, 3]);
    let snapshot = state.to_snapshot();
    let later = Timestamp::new(1_000_000).unwrap();
    let loaded = ProducerStateManager::from_snapshot(&snapshot, offset(60), later, 1000).unwrap();
    assert_eq!(ids(&loaded), [3], "not loaded either");
}

#[test]
fn a_snapshot_has_kafkas_bytes() {
    let mut state = state_of([header(batch(10, 7, 2, 30, 3).transactional())]);
    let mut expected = Vec::new();
    expected.extend(1i32.to_be_bytes());
    expected.extend(7i64.to_be_bytes());
    expected.extend(2i16.to_be_bytes());
    expected.extend(32i32.to_be_bytes());
    expected.extend(12i64.to_be_bytes());
    expected.extend(2i32.to_be_bytes());
    expected.extend(1010i64.to_be_bytes());
    expected.extend((-1i32).to_be_bytes());
    expected.extend(10i64.to_be_bytes());
    let crc = crate::crc32c::crc32c(&expected);
    let expected = [&1i16.to_be_bytes()[..], &crc.to_be_bytes(), &expected].concat();
    assert_eq!(state.to_snapshot(), expected);
    assert_eq!(state.snapshot_at_roll(), expected);
}

#[test]
fn damaged_snapshots_are_refused() {
    let state = state_of([header(batch(10, 7, 2, 30, 3)), header(batch(13, 8, 0, 0, 1))]);
    let good = state.to_snapshot();
    let load = |bytes: &[u8]| {
        ProducerStateManager::from_snapshot(bytes, offset(14), now(), NEVER_MS).unwrap_err()
    };
    for cut in 0..good.len() {
        load(&good[..cut]);
    }
    for at in 0..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 0x40;
        load(&bad);
    }
    let with_crc = |mut bytes: Vec<u8>| {
        let crc = crate::crc32c::crc32c(&bytes[6..]);
        bytes[2..6].copy_from_slice(&crc.to_be_bytes());
        bytes
    };
    let mut count = good.clone();
    count[6..10].copy_from_slice(&i32::MAX.to_be_bytes());
    assert!(matches!(load(&with_crc(count)), SnapshotError::WrongSize { .. }));
    let mut twice = good.clone();
    twice.copy_within(10..18, 56);
    assert_eq!(load(&with_crc(twice)), SnapshotError::OutOfRange { entry: 1 });
    let mut delta = good.clone();
    delta[32..36].copy_from_slice(&13i32.to_be_bytes());
    assert_eq!(load(&with_crc(delta)), SnapshotError::OutOfRange { entry: 0 });
    let early = ProducerStateManager::from_snapshot(&good, offset(13), now(), NEVER_MS);
    assert_eq!(early, Err(SnapshotError::OutOfRange { entry: 1 }), "past its own name");
}

/// One batch of a made-up log.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// Next data of this producer, in its transaction or not.
    Data { id: i64, count: usize, transactional: bool },
    /// A new epoch of this producer, with data.
    Bump { id: i64 },
    /// Ends this producer's transaction, in its epoch or (as transactions v2) in the next one.
    End { id: i64, is_commit: bool, bumps: bool },
    /// A batch without producer.
    Plain,
}

fn arb_steps() -> impl Strategy<Value = Vec<Step>> {
    let id = || 0i64..3;
    let step = prop_oneof![
        6 => (id(), 1usize..4, prop::bool::weighted(0.3))
            .prop_map(|(id, count, transactional)| Step::Data { id, count, transactional }),
        1 => id().prop_map(|id| Step::Bump { id }),
        2 => (id(), any::<bool>(), any::<bool>())
            .prop_map(|(id, is_commit, bumps)| Step::End { id, is_commit, bumps }),
        1 => Just(Step::Plain),
    ];
    prop::collection::vec(step, 0..60)
}

/// Turns steps into the batches that a correct leader would have written.
fn log_of(steps: &[Step]) -> Vec<(BatchHeader, Option<EndTransactionMarker>)> {
    let mut log = Vec::new();
    let mut next = 0i64;
    let mut epochs = [0i16; 3];
    // Near the wrap, so that it happens.
    let mut sequences = [i32::MAX - 6, 0, 0];
    let mut open = [false; 3];
    for step in steps {
        match *step {
            Step::Data { id, count, transactional } => {
                let at = id as usize;
                let mut builder = batch(next, id, epochs[at], sequences[at], count);
                if transactional || open[at] {
                    open[at] = true;
                    builder = builder.transactional();
                }
                log.push((header(builder), None));
                sequences[at] = increment_sequence(sequences[at], count as i32);
            }
            Step::Bump { id } => {
                let at = id as usize;
                if open[at] {
                    continue; // the coordinator would have ended it first
                }
                epochs[at] += 1;
                log.push((header(batch(next, id, epochs[at], 0, 1)), None));
                sequences[at] = 1;
            }
            Step::End { id, is_commit, bumps } => {
                let at = id as usize;
                if bumps {
                    epochs[at] += 1;
                    sequences[at] = 0;
                }
                let marker =
                    EndTransactionMarker { is_commit, coordinator_epoch: log.len() as i32 };
                log.push((marker_batch(next, id, epochs[at], marker), Some(marker)));
                open[at] = false;
            }
            Step::Plain => {
                let builder = RecordBatchBuilder::new().base_offset(offset(next));
                log.push((header(builder.record(None, None, None, &[])), None));
            }
        }
        next = log.last().map_or(0, |(header, _)| header.next_offset().value());
    }
    log
}

fn fold(
    state: &mut ProducerStateManager,
    log: &[(BatchHeader, Option<EndTransactionMarker>)],
) -> Vec<AbortedTransaction> {
    log.iter().filter_map(|(header, marker)| state.update(header, *marker)).collect()
}

/// Shows `refill` what it wants of `log`, in parts of `part` batches, as the log does from its files.
fn refill_from(
    refill: &mut WindowRefill,
    log: &[(BatchHeader, Option<EndTransactionMarker>)],
    part: usize,
) {
    while let Some(below) = refill.wanted_below() {
        let end = log.partition_point(|(header, _)| header.base_offset() < below);
        assert!(end > 0, "nothing lies below {below}");
        let start = (end - 1) / part * part;
        let headers: Vec<_> =
            log[start..(start + part).min(log.len())].iter().map(|(header, _)| *header).collect();
        refill.add_part(headers[0].base_offset(), &headers);
    }
}

/// The last batches of a producer in its last epoch, by reading everything.
fn window_by_scan(
    log: &[(BatchHeader, Option<EndTransactionMarker>)],
    id: i64,
) -> Vec<(i32, Offset)> {
    let of_producer: Vec<_> = log
        .iter()
        .filter_map(|(header, _)| Some((header, header.producer()?)))
        .filter(|(_, producer)| producer.id.value() == id)
        .collect();
    let last_epoch = of_producer.last().map(|(_, producer)| producer.epoch);
    let mut window: Vec<_> = of_producer
        .iter()
        .filter(|(_, producer)| Some(producer.epoch) == last_epoch)
        .filter_map(|(header, producer)| Some((producer.sequences?.first, header.base_offset())))
        .collect();
    window.drain(..window.len().saturating_sub(MAX_CACHED_BATCHES));
    window
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// The state is the fold of the whole log, whatever snapshot was loaded on the way and whatever parts
    /// the window was refilled in.
    #[test]
    fn a_snapshot_anywhere_changes_nothing(
        steps in arb_steps(), cut in any::<prop::sample::Index>(), part in 1usize..7,
    ) {
        let log = log_of(&steps);
        let cut = cut.index(log.len() + 1);
        let (before, after) = log.split_at(cut);
        let snapshot_offset = before.last().map_or(Offset::ZERO, |(header, _)| header.next_offset());

        let mut whole = ProducerStateManager::new();
        let mut aborted = fold(&mut whole, before);
        let snapshot = whole.to_snapshot();
        let mut loaded =
            ProducerStateManager::from_snapshot(&snapshot, snapshot_offset, now(), NEVER_MS).unwrap();
        let mut refill = loaded.start_window_refill(Offset::ZERO);
        refill_from(&mut refill, before, part);
        loaded.finish_window_refill(refill);
        // What lies below the snapshot is replicated by now, or its markers are not: both are legal, and
        // Kafka's file does not say. The rest is equal.
        whole.handle_high_watermark(snapshot_offset);
        prop_assert_eq!(&loaded, &whole);

        let rest = fold(&mut loaded, after);
        prop_assert_eq!(&rest, &fold(&mut whole, after));
        prop_assert_eq!(&loaded, &whole);

        let mut once = ProducerStateManager::new();
        aborted.extend(rest);
        prop_assert_eq!(fold(&mut once, &log), aborted);
        let high_watermark = snapshot_offset;
        once.handle_high_watermark(high_watermark);
        prop_assert_eq!(&once, &whole);
    }

    /// The refill shows no offset twice and ends, also where the log begins late or is read in pieces.
    #[test]
    fn a_refill_of_a_cut_log_finds_what_is_left(
        steps in arb_steps(), start in any::<prop::sample::Index>(), part in 1usize..7,
    ) {
        let log = log_of(&steps);
        let start = start.index(log.len() + 1);
        let end = log.last().map_or(Offset::ZERO, |(header, _)| header.next_offset());
        let log_start = log.get(start).map_or(end, |(header, _)| header.base_offset());
        let mut whole = ProducerStateManager::new();
        fold(&mut whole, &log);
        let mut loaded =
            ProducerStateManager::from_snapshot(&whole.to_snapshot(), end, now(), NEVER_MS).unwrap();
        let mut refill = loaded.start_window_refill(log_start);
        refill_from(&mut refill, &log[start..], part);
        loaded.finish_window_refill(refill);
        for id in 0..3 {
            let Some(entry) = loaded.producer(ProducerId::new(id).unwrap()) else { continue };
            let found: Vec<_> =
                entry.batches().iter().map(|b| (b.first_sequence(), b.base_offset())).collect();
            let all = window_by_scan(&log, id);
            let left: Vec<_> = all.iter().copied().filter(|(_, base)| *base >= log_start).collect();
            // If not even the last batch is left, the snapshot's word for it stands.
            let last = all.last().copied().into_iter().collect();
            prop_assert_eq!(found, if left.is_empty() { last } else { left });
        }
    }

    /// The fold against a scan of the whole log: window, open transactions, duplicates.
    #[test]
    fn the_state_is_what_a_scan_of_the_log_says(steps in arb_steps()) {
        let log = log_of(&steps);
        let mut state = ProducerStateManager::new();
        fold(&mut state, &log);
        let mut first_open = None;
        for id in 0..3 {
            let of_producer: Vec<_> = log.iter()
                .filter(|(header, _)| header.producer().is_some_and(|p| p.id.value() == id))
                .collect();
            let entry = state.producer(ProducerId::new(id).unwrap());
            prop_assert_eq!(entry.is_some(), !of_producer.is_empty());
            let Some(entry) = entry else { continue };
            let found: Vec<_> =
                entry.batches().iter().map(|b| (b.first_sequence(), b.base_offset())).collect();
            prop_assert_eq!(found, window_by_scan(&log, id));
            let ended = of_producer.iter().rposition(|(_, marker)| marker.is_some()).map_or(0, |at| at + 1);
            let open = of_producer[ended..].iter().find(|(header, _)| header.is_transactional());
            let open = open.map(|(header, _)| header.base_offset());
            prop_assert_eq!(entry.current_txn_first_offset(), open);
            first_open = [first_open, open].into_iter().flatten().min();
        }
        state.handle_high_watermark(Offset::MAX);
        prop_assert_eq!(state.first_unstable_offset(), first_open);
        // Every batch in the log is known as a duplicate exactly while it is in the window.
        for (header, _) in log.iter().filter(|(header, marker)| marker.is_none() && header.producer().is_some()) {
            let producer = header.producer().unwrap();
            let BatchSequences { first, .. } = producer.sequences.unwrap();
            let in_window = window_by_scan(&log, producer.id.value()).contains(&(first, header.base_offset()));
            let is_duplicate = matches!(check(&state, header), Ok(SequenceCheck::Duplicate { .. }));
            prop_assert_eq!(is_duplicate, in_window);
        }
    }

    #[test]
    fn any_bytes_are_a_snapshot_or_refused(
        mut bytes in prop::collection::vec(any::<u8>(), 0..220), right_head: bool,
    ) {
        if right_head && bytes.len() >= 10 {
            let count = ((bytes.len() - 10) / 46) as i32;
            bytes.truncate(10 + count as usize * 46);
            bytes[..2].copy_from_slice(&1i16.to_be_bytes());
            bytes[6..10].copy_from_slice(&count.to_be_bytes());
            let crc = crate::crc32c::crc32c(&bytes[6..]);
            bytes[2..6].copy_from_slice(&crc.to_be_bytes());
        }
        if let Ok(state) = ProducerStateManager::from_snapshot(&bytes, Offset::MAX, now(), NEVER_MS) {
            for entry in state.producers() {
                for batch in entry.batches() { let _ = (batch.base_offset(), batch.first_sequence()); }
            }
            let again = ProducerStateManager::from_snapshot(&state.to_snapshot(), Offset::MAX, now(), NEVER_MS);
            prop_assert_eq!(again, Ok(state));
        }
    }
}
