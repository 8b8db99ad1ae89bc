//! The planted bugs of this crate do what their names say; the simulator must catch them.
#![cfg(feature = "failpoints")]
// A test in a file of its own is not under cfg(test), which clippy.toml goes by.
#![allow(clippy::unwrap_used)]

use fail::FailScenario;
use storage::offset::Offset;
use storage::producer_state::{ProducerEpoch, ProducerId, ProducerStateManager};
use storage::record_batch::{BatchHeader, RecordBatchBuilder};
use storage::timestamp::Timestamp;

fn state_of_one_batch() -> ProducerStateManager {
    let producer = (ProducerId::new(1).unwrap(), ProducerEpoch::ZERO);
    let builder = RecordBatchBuilder::new().producer(producer.0, producer.1, Some(0)).record(
        Some(Timestamp::ZERO),
        None,
        Some(b"v"),
        &[],
    );
    let mut state = ProducerStateManager::new();
    state.update(&BatchHeader::parse(&builder.build().unwrap()).unwrap(), None);
    state
}

fn reload(snapshot: &[u8]) -> ProducerStateManager {
    let end = Offset::ZERO.next();
    ProducerStateManager::from_snapshot(snapshot, end, Timestamp::ZERO, i64::MAX).unwrap()
}

#[test]
fn bug_7_loses_the_window_on_restart() {
    let scenario = FailScenario::setup();
    let mut state = state_of_one_batch();
    fail::cfg("bug-7-duplicate-window-lost-on-restart", "return").unwrap();
    assert!(reload(&state.snapshot_at_roll()).is_empty());
    fail::remove("bug-7-duplicate-window-lost-on-restart");
    assert_eq!(reload(&state.snapshot_at_roll()), state);
    scenario.teardown();
}

#[test]
fn bug_8_loses_the_window_on_roll() {
    let scenario = FailScenario::setup();
    let mut state = state_of_one_batch();
    assert_eq!(reload(&state.snapshot_at_roll()), state);
    fail::cfg("bug-8-duplicate-window-lost-on-roll", "return").unwrap();
    assert!(reload(&state.snapshot_at_roll()).is_empty());
    assert!(state.is_empty());
    scenario.teardown();
}
