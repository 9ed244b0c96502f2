//! The gauge over real engines.

use super::*;
use crate::engine::{EngineBatch, FjallEngine, MemoryEngine, RedbEngine};
use synod_paxos::{Slot, Timestamp};
use synod_placement::Cut;
use synod_txn::{AttemptId, Key, Value};

const ROWS: u32 = 3_000;

fn key(n: u32) -> Key {
    Key::from(format!("row/{n:06}"))
}

/// Rows of a kilobyte; those in the second half twice.
fn fill(engine: &dyn Engine, weights: &SharedWeights, group: GroupId) {
    for n in 0..ROWS {
        let versions = if n < ROWS / 2 { 1..=1 } else { 1..=2 };
        let versions = versions.map(|at| {
            let value = Value::from(vec![b'v'; 1_000]);
            (key(n), Timestamp(at), AttemptId(1), Some(value))
        });
        let batch = WriteBatch {
            slot: Slot(1),
            versions: versions.collect(),
        };
        weights.wrote(&[(group, batch.clone())]);
        let batch = EngineBatch {
            versions: batch.versions,
            ..EngineBatch::default()
        };
        engine.apply(batch).expect("the engine works");
    }
}

fn span(start: &str, end: &str) -> Span {
    Span {
        start: Key::copy_from_slice(start.as_bytes()),
        end: Key::copy_from_slice(end.as_bytes()),
    }
}

/// What is written is what is found, to the byte.
fn is_gauged(engine: Arc<dyn Engine>) {
    let weights = SharedWeights::default();
    let (group, span) = (GroupId(2), span("row/", "row0"));
    weights.change(|state| state.weights.leads([(group, &span)].into_iter()));
    fill(&*engine, &weights, group);
    let outside = EngineBatch {
        versions: vec![(Key::from("z"), Timestamp(1), AttemptId(1), None)],
        ..EngineBatch::default()
    };
    engine.apply(outside).expect("the engine works");
    let gauge = Gauge::start(engine, weights.clone(), Instant::now(), |error| {
        panic!("the engine cannot be read: {error}")
    });
    let gauge = gauge.expect("there is a thread");
    let begun = Instant::now();
    let found = loop {
        if let Some(bytes) = weights.lock().weights.bytes(group, &span) {
            break bytes;
        }
        assert!(begun.elapsed() < Duration::from_secs(60), "in vain");
        std::thread::sleep(Duration::from_millis(5));
    };
    let row = 10 + 1_000 + VERSION_OVERHEAD;
    assert_eq!(found, u64::from(ROWS / 2 * 3) * row);
    let cut = weights.lock().weights.cut(group, &span, found - 1);
    let Some(Cut::At(at)) = cut else {
        panic!("it can be cut");
    };
    // Half of 4,500 versions lie before this row, give or take what a part weighs.
    let middle = ROWS / 2 + ROWS / 8;
    let (least, most) = (key(middle - 150), key(middle + 150));
    assert!(at[..] > least[..] && at[..] < most[..], "{at:?}");
    assert_eq!(weights.lock().weights.cut(group, &span, found), None);
    drop(gauge);
    assert_eq!(weights.next(), None, "it has ended");
}

#[test]
fn ranges_are_gauged_in_memory() {
    is_gauged(Arc::new(MemoryEngine::new()));
}

#[test]
fn ranges_are_gauged_in_fjall() {
    let directory = tempfile::tempdir().expect("a directory");
    is_gauged(Arc::new(
        FjallEngine::open(directory.path()).expect("it opens"),
    ));
}

#[test]
fn ranges_are_gauged_in_redb() {
    let directory = tempfile::tempdir().expect("a directory");
    is_gauged(Arc::new(
        RedbEngine::open(directory.path()).expect("it opens"),
    ));
}

#[test]
fn what_nobody_waits_for_is_not_gone_through_to_its_end() {
    let engine = MemoryEngine::new();
    fill(&engine, &SharedWeights::default(), GroupId(2));
    let mut pieces = 0;
    let left = go_through(&engine, &span("", ""), |read| {
        assert!(read <= PIECE + 2_000);
        pieces += 1;
        pieces < 3
    });
    assert!(left.expect("the engine works").is_none());
    assert_eq!(pieces, 3);
}
