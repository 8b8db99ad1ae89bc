use super::*;

/// Twelve records in four batches, the first three acknowledged.
fn ledger() -> Ledger {
    let mut ledger = Ledger::new("t", 0, 7);
    ledger.begin(1);
    for _ in 0..4 {
        ledger.send(3, Bytes::new());
    }
    for base_offset in [0, 3, 6] {
        ledger.acknowledge(base_offset).unwrap();
    }
    ledger
}

fn found(ledger: &Ledger, log_start: i64, end: i64) -> Found {
    let records = (log_start..end).map(|offset| (offset, Some(ledger.value(offset)))).collect();
    Found { log_start, end, records }
}

#[test]
fn what_was_acknowledged_is_enough_and_what_was_not_may_be_there_too() {
    for end in 9..=12 {
        let mut ledger = ledger();
        let found = found(&ledger, 0, end);
        assert_eq!(ledger.check(&found, Promise::Everything), Ok(0), "{end}");
    }
}

#[test]
fn a_missing_acknowledged_record_is_lost_or_only_counted_by_promise() {
    let found = found(&ledger(), 0, 8);
    assert_eq!(
        ledger().check(&found, Promise::Everything),
        Err(Anomaly::Lost { end: 8, acknowledged: 9 })
    );
    assert_eq!(ledger().check(&found, Promise::Prefix), Ok(1));
}

#[test]
fn what_was_read_once_stays_even_if_nobody_acknowledged_it() {
    let mut ledger = ledger();
    let all = found(&ledger, 0, 12);
    ledger.check(&all, Promise::Everything).unwrap();
    let fewer = found(&ledger, 0, 11);
    assert_eq!(
        ledger.check(&fewer, Promise::Everything),
        Err(Anomaly::Unread { end: 11, seen: 12 })
    );
}

#[test]
fn nothing_appears_that_was_not_sent() {
    let mut ledger = ledger();
    let found = found(&ledger, 0, 13);
    assert_eq!(
        ledger.check(&found, Promise::Everything),
        Err(Anomaly::Phantom { end: 13, sent: 12 })
    );
}

#[test]
fn a_hole_a_repetition_and_a_stranger_are_found_whatever_the_promise() {
    for promise in [Promise::Everything, Promise::Prefix] {
        let mut hole = found(&ledger(), 0, 9);
        hole.records.remove(4);
        assert_eq!(ledger().check(&hole, promise), Err(Anomaly::Hole { expected: 4, found: 5 }));
        let mut tail = found(&ledger(), 0, 9);
        tail.records.pop();
        assert_eq!(ledger().check(&tail, promise), Err(Anomaly::Hole { expected: 8, found: 9 }));
        for stranger in [Some(ledger().value(3)), None] {
            let mut wrong = found(&ledger(), 0, 9);
            wrong.records[4].1 = stranger;
            assert!(matches!(
                ledger().check(&wrong, promise),
                Err(Anomaly::Wrong { offset: 4, found, .. }) if found == stranger
            ));
        }
    }
}

#[test]
fn only_retention_takes_from_the_front() {
    let front = found(&ledger(), 3, 12);
    assert_eq!(ledger().check(&front, Promise::Everything), Err(Anomaly::Gone { log_start: 3 }));
    let mut retained = ledger();
    retained.is_retained = true;
    assert_eq!(retained.check(&front, Promise::Everything), Ok(0));
}

#[test]
fn offsets_that_a_cut_set_free_belong_to_the_next_incarnation() {
    let mut ledger = ledger();
    let short = found(&ledger, 0, 5);
    ledger.check(&short, Promise::Prefix).unwrap();
    ledger.begin(2);
    assert_eq!(ledger.next().0, 5);
    assert_eq!((ledger.value(4).incarnation, ledger.value(5).incarnation), (1, 2));
}

#[test]
fn an_acknowledgement_at_another_offset_is_misplaced() {
    assert_eq!(ledger().acknowledge(12), Err(Anomaly::Misplaced { expected: 9, found: 12 }));
}

#[test]
fn a_value_comes_back_from_its_bytes_and_not_from_damaged_ones() {
    let value = Value { partition: 3, incarnation: 4, offset: 1 << 40 };
    for size in [0, 20, 21, 500] {
        let mut bytes = value.to_bytes(size);
        assert_eq!(Value::from_bytes(&bytes), Some(value));
        if let Some(last) = bytes.get_mut(20..).and_then(<[u8]>::last_mut) {
            *last ^= 1;
            assert_eq!(Value::from_bytes(&bytes), None);
        }
    }
    assert_eq!(Value::from_bytes(&[0; 19]), None);
}
