//! What every engine has to do, run against each of them.

mod endings;
mod model;

use super::*;
use model::{agrees_with_the_model, step};
use proptest::prelude::*;
use std::path::Path;

/// Opens the engine under test, again and again over the same contents.
type Open<'a> = &'a dyn Fn() -> Box<dyn Engine>;

const LATEST: Timestamp = Timestamp(u64::MAX);

fn key(bytes: &[u8]) -> Key {
    Key::copy_from_slice(bytes)
}

fn put(bytes: &[u8], at: u64, value: &str) -> StoredVersion {
    let value = Value::copy_from_slice(value.as_bytes());
    (
        key(bytes),
        Timestamp(at),
        AttemptId(u128::from(at) << 70),
        Some(value),
    )
}

fn tombstone(bytes: &[u8], at: u64) -> StoredVersion {
    (key(bytes), Timestamp(at), AttemptId(u128::from(at)), None)
}

fn batch(versions: Vec<StoredVersion>) -> EngineBatch {
    EngineBatch {
        versions,
        ..EngineBatch::default()
    }
}

fn all() -> Span {
    Span {
        start: key(b""),
        end: key(b""),
    }
}

fn span(start: &[u8], end: &[u8]) -> Span {
    Span {
        start: key(start),
        end: key(end),
    }
}

fn range(span: Span, limit: u32, reverse: bool) -> ScanRange {
    ScanRange {
        span,
        limit,
        reverse,
    }
}

fn value(engine: &dyn Engine, key: &[u8], at: u64) -> Option<String> {
    let version = engine.get(key, Timestamp(at)).unwrap()?;
    Some(String::from_utf8(version.value?.to_vec()).unwrap())
}

fn rows(engine: &dyn Engine, scan: &ScanRange, at: u64) -> (Vec<Vec<u8>>, bool) {
    let (rows, more) = engine.scan(scan, Timestamp(at)).unwrap();
    (rows.into_iter().map(|row| row.key.to_vec()).collect(), more)
}

fn versions_are_read_as_of_a_timestamp(open: Open) {
    let engine = open();
    let versions = vec![
        put(b"a", 10, "ten"),
        put(b"a", 20, "twenty"),
        tombstone(b"a", 30),
    ];
    engine.apply(batch(versions)).unwrap();
    assert_eq!(value(&*engine, b"a", 9), None);
    assert_eq!(value(&*engine, b"a", 10).as_deref(), Some("ten"));
    assert_eq!(value(&*engine, b"a", 29).as_deref(), Some("twenty"));
    let deleted = engine.get(b"a", LATEST).unwrap().unwrap();
    assert_eq!((deleted.value, deleted.timestamp), (None, Timestamp(30)));
    assert_eq!(deleted.attempt, AttemptId(30));
    let exact = engine.get(b"a", Timestamp(20)).unwrap().unwrap();
    assert_eq!(exact.attempt, AttemptId(20 << 70));
    assert!(engine.get(b"b", LATEST).unwrap().is_none());
    engine
        .apply(batch(vec![
            put(b"e", 0, "first"),
            put(b"e", u64::MAX, "last"),
        ]))
        .unwrap();
    assert_eq!(value(&*engine, b"e", 0).as_deref(), Some("first"));
    assert_eq!(value(&*engine, b"e", u64::MAX).as_deref(), Some("last"));
}

/// Prefixes of one another, zeros, the largest bytes, and the empty key.
const AWKWARD: [&[u8]; 12] = [
    b"",
    b"\0",
    b"\0\0",
    b"\0\x01",
    b"\0\xff",
    b"a",
    b"a\0",
    b"a\0\0",
    b"a\0\xff",
    b"a\x01",
    b"a\xff",
    b"\xff\xff",
];

fn awkward_keys_keep_their_order_and_never_interleave(open: Open) {
    let engine = open();
    let mut versions = Vec::new();
    for (at, bytes) in AWKWARD.iter().enumerate() {
        for round in 0..3 {
            let at = 1 + at as u64 * 7 + round * 1_000;
            versions.push(put(bytes, at, &format!("{at}")));
        }
    }
    versions.reverse();
    engine.apply(batch(versions)).unwrap();
    let expected: Vec<Vec<u8>> = AWKWARD.iter().map(|k| k.to_vec()).collect();
    assert_eq!(
        rows(&*engine, &range(all(), 100, false), u64::MAX),
        (expected.clone(), false)
    );
    let reversed: Vec<Vec<u8>> = expected.iter().rev().cloned().collect();
    assert_eq!(
        rows(&*engine, &range(all(), 100, true), u64::MAX),
        (reversed, false)
    );
    for (index, bytes) in AWKWARD.iter().enumerate() {
        let at = 1 + index as u64 * 7;
        assert_eq!(value(&*engine, bytes, at), Some(format!("{at}")));
        assert_eq!(value(&*engine, bytes, at - 1), None);
        for end in &AWKWARD[index..] {
            let scan = range(span(bytes, end), 100, false);
            let (found, _) = rows(&*engine, &scan, u64::MAX);
            let wanted: Vec<Vec<u8>> = expected
                .iter()
                .filter(|k| &k[..] >= *bytes && (end.is_empty() || &k[..] < *end))
                .cloned()
                .collect();
            assert_eq!(found, wanted, "{bytes:?} to {end:?}");
        }
    }
    assert_eq!(
        rows(&*engine, &range(span(b"b", b"a"), 9, false), u64::MAX)
            .0
            .len(),
        0
    );
}

fn scans_stop_at_their_bounds_and_say_so(open: Open) {
    let engine = open();
    let mut versions = Vec::new();
    for id in 0..40u8 {
        for at in 1..=u64::from(id) + 1 {
            versions.push(put(&[b'k', id], at * 10, "v"));
        }
        if id % 4 == 3 {
            versions.push(tombstone(&[b'k', id], 900));
        }
    }
    engine.apply(batch(versions)).unwrap();
    let live: Vec<Vec<u8>> = (0..40u8)
        .filter(|i| i % 4 != 3)
        .map(|i| vec![b'k', i])
        .collect();
    for reverse in [false, true] {
        let mut wanted = live.clone();
        if reverse {
            wanted.reverse();
        }
        for limit in [0, 1, 2, 7, 29, 30, 31] {
            let (found, more) = rows(&*engine, &range(all(), limit, reverse), 1_000);
            let count = (limit as usize).min(30);
            assert_eq!(found, wanted[..count], "limit {limit}, reverse {reverse}");
            assert_eq!(more, count < 30, "limit {limit}, reverse {reverse}");
        }
        // Only the first version of each is old enough, behind many newer ones.
        let (found, more) = rows(&*engine, &range(all(), 100, reverse), 10);
        assert_eq!((found.len(), more), (40, false));
        let (found, _) = rows(&*engine, &range(all(), 100, reverse), 300);
        assert_eq!(found.len(), 40);
    }
    let big = "x".repeat(1 << 20);
    let versions = (0..8u8).map(|id| put(&[b'z', id], 5, &big)).collect();
    engine.apply(batch(versions)).unwrap();
    let (found, more) = rows(&*engine, &range(span(b"z", b""), 100, false), 1_000);
    assert_eq!((found.len(), more), (3, true), "about 4 MiB");
    let huge = "x".repeat(5 << 20);
    engine
        .apply(batch(vec![put(b"zz", 5, &huge), put(b"zzz", 5, "")]))
        .unwrap();
    let (found, more) = rows(&*engine, &range(span(b"zz", b""), 100, false), 1_000);
    assert_eq!((found.len(), more), (1, true), "a first row always fits");
}

fn marks_checkpoints_and_installing_are_kept_per_group(open: Open) {
    {
        let engine = open();
        assert_eq!(engine.applied(GroupId(1)).unwrap(), None);
        assert_eq!(engine.checkpoint(GroupId(1)).unwrap(), None);
        assert_eq!(engine.installing(GroupId(1)).unwrap(), None);
        engine
            .apply(EngineBatch {
                versions: vec![put(b"a", 1, "x")],
                marks: vec![(GroupId(1), Slot(5)), (GroupId(2), Slot(7))],
                checkpoints: vec![(GroupId(1), Slot(4), Bytes::from_static(b"state"))],
            })
            .unwrap();
        engine.set_installing(GroupId(2), Some(Slot(9))).unwrap();
        engine.sync().unwrap();
    }
    {
        let engine = open();
        assert_eq!(engine.applied(GroupId(1)).unwrap(), Some(Slot(5)));
        assert_eq!(engine.applied(GroupId(2)).unwrap(), Some(Slot(7)));
        let state = (Slot(4), Bytes::from_static(b"state"));
        assert_eq!(engine.checkpoint(GroupId(1)).unwrap(), Some(state));
        assert_eq!(engine.installing(GroupId(2)).unwrap(), Some(Slot(9)));
        engine.set_installing(GroupId(2), None).unwrap();
        engine.sync().unwrap();
    }
    let engine = open();
    assert_eq!(engine.installing(GroupId(2)).unwrap(), None);
    assert_eq!(value(&*engine, b"a", 1).as_deref(), Some("x"));
    assert_eq!(
        rows(&*engine, &range(all(), 9, false), 9).0.len(),
        1,
        "groups are no rows"
    );
}

fn a_snapshot_sees_one_moment_and_exports_in_chunks(open: Open) {
    let engine = open();
    let mut versions: Vec<StoredVersion> = Vec::new();
    for id in 0..50u8 {
        versions.push(put(&[id, 0], 9, "old"));
        versions.push(tombstone(&[id, 0], 4));
    }
    let first = EngineBatch {
        versions: versions.clone(),
        marks: vec![(GroupId(3), Slot(1))],
        checkpoints: vec![(GroupId(3), Slot(1), Bytes::from_static(b"s"))],
    };
    engine.apply(first).unwrap();
    let snapshot = engine.snapshot().unwrap();
    let later = EngineBatch {
        versions: vec![put(&[7, 0], 20, "new"), put(b"new", 20, "new")],
        marks: vec![(GroupId(3), Slot(2))],
        checkpoints: vec![(GroupId(3), Slot(2), Bytes::from_static(b"t"))],
    };
    engine.apply(later).unwrap();
    engine.clear_range(&span(&[0], &[20])).unwrap();

    assert_eq!(snapshot.applied(GroupId(3)).unwrap(), Some(Slot(1)));
    assert_eq!(snapshot.checkpoint(GroupId(3)).unwrap().unwrap().0, Slot(1));
    assert_eq!(
        snapshot.get(&[7, 0], LATEST).unwrap().unwrap().timestamp,
        Timestamp(9)
    );
    let (rows, _) = snapshot.scan(&range(all(), 100, false), LATEST).unwrap();
    assert_eq!(rows.len(), 50);
    let wanted = &versions[2 * 5..2 * 45];
    for max_bytes in [0, 1, 100, 1_000, 1 << 20] {
        let mut found = Vec::new();
        let mut cursor: Option<Cursor> = None;
        loop {
            let part = span(&[5], &[45]);
            let (versions, next) = snapshot.export(&part, cursor.as_ref(), max_bytes).unwrap();
            assert!(!versions.is_empty());
            found.extend(versions);
            cursor = next;
            if cursor.is_none() {
                break;
            }
        }
        assert_eq!(found, wanted, "{max_bytes} bytes a chunk");
    }
    drop(snapshot);
    assert_eq!(value(&*engine, &[7, 0], 50), None);
    assert_eq!(value(&*engine, &[25, 0], 50).as_deref(), Some("old"));
}

fn a_cleared_range_is_empty_and_its_neighbours_are_not(open: Open) {
    let engine = open();
    let ids = 0..25_000u32;
    let versions = ids.map(|id| put(&id.to_be_bytes(), 1, "v")).collect();
    engine.apply(batch(versions)).unwrap();
    let (start, end) = (100u32.to_be_bytes(), 24_900u32.to_be_bytes());
    engine.clear_range(&span(&start, &end)).unwrap();
    assert_eq!(rows(&*engine, &range(all(), 20_000, false), 9).0.len(), 200);
    assert_eq!(
        value(&*engine, &99u32.to_be_bytes(), 9).as_deref(),
        Some("v")
    );
    assert_eq!(value(&*engine, &100u32.to_be_bytes(), 9), None);
    assert_eq!(value(&*engine, &end, 9).as_deref(), Some("v"));
    engine.apply(batch(vec![put(&start, 2, "again")])).unwrap();
    assert_eq!(value(&*engine, &start, 9).as_deref(), Some("again"));
}

fn a_reader_of_whole_batches_never_sees_half_of_one(open: Open) {
    let engine = open();
    let write = |round: u64| {
        let values = (0..60u8)
            .map(|id| put(&[id], round, &round.to_string()))
            .collect();
        engine.apply(batch(values)).unwrap();
    };
    write(1);
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| (2..150).for_each(write));
        let mut looks = 0;
        while looks < 5 || !writer.is_finished() {
            let (rows, _) = engine
                .scan(&range(all(), 100, looks % 2 == 0), LATEST)
                .unwrap();
            assert_eq!(rows.len(), 60);
            let first = rows[0].timestamp;
            assert!(
                rows.iter().all(|row| row.timestamp == first),
                "half a batch"
            );
            looks += 1;
        }
    });
}

fn a_sync_in_the_background_ends_and_covers_what_came_before(open: Open) {
    let engine = open();
    for slot in 1..=30u64 {
        let versions = (0..20u8).map(|id| put(&[id], slot, &"x".repeat(200)));
        let marks = vec![(GroupId(1), Slot(slot))];
        let versions = versions.collect();
        engine
            .apply(EngineBatch {
                versions,
                marks,
                ..EngineBatch::default()
            })
            .unwrap();
        if slot % 10 == 0 {
            engine.begin_sync().unwrap();
        }
        if slot % 10 == 5 {
            while !engine.is_synced().unwrap() {
                std::thread::yield_now();
            }
        }
    }
    while !engine.is_synced().unwrap() {
        std::thread::yield_now();
    }
    drop(engine);
    let engine = open();
    assert_eq!(engine.applied(GroupId(1)).unwrap(), Some(Slot(30)));
    for id in 0..20u8 {
        let newest = engine.get(&[id], LATEST).unwrap().unwrap();
        assert_eq!(newest.timestamp, Timestamp(30));
    }
}

fn a_key_that_is_too_long_is_refused_whole(open: Open) {
    let engine = open();
    let long = vec![0; 40_000];
    let error = engine
        .apply(batch(vec![put(b"a", 1, "x"), put(&long, 1, "y")]))
        .unwrap_err();
    assert!(matches!(error, EngineError::KeyTooLong { .. }));
    assert_eq!(value(&*engine, b"a", 1), None);
    let longest = vec![0; synod_txn::MAX_KEY_BYTES];
    engine.apply(batch(vec![put(&longest, 1, "y")])).unwrap();
    assert_eq!(value(&*engine, &longest, 1).as_deref(), Some("y"));
}

/// `fresh` gives an engine in a place of its own, as often as it is asked.
fn conforms(cases: u32, fresh: &dyn Fn() -> Box<dyn Fn() -> Box<dyn Engine>>) {
    let suite: [fn(Open); 9] = [
        versions_are_read_as_of_a_timestamp,
        awkward_keys_keep_their_order_and_never_interleave,
        scans_stop_at_their_bounds_and_say_so,
        marks_checkpoints_and_installing_are_kept_per_group,
        a_snapshot_sees_one_moment_and_exports_in_chunks,
        a_cleared_range_is_empty_and_its_neighbours_are_not,
        a_reader_of_whole_batches_never_sees_half_of_one,
        a_sync_in_the_background_ends_and_covers_what_came_before,
        a_key_that_is_too_long_is_refused_whole,
    ];
    for test in suite {
        test(&*fresh());
    }
    let config = ProptestConfig {
        cases,
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    proptest!(config, |(steps in prop::collection::vec(step(), 1..25))| {
        agrees_with_the_model(&*fresh(), steps)?;
    });
}

/// An engine in a temporary directory that lives as long as the opener.
fn in_directory<E: Engine>(
    open: fn(&Path) -> Result<E, EngineError>,
) -> Box<dyn Fn() -> Box<dyn Engine>> {
    let directory = tempfile::tempdir().unwrap();
    Box::new(move || Box::new(open(&directory.path().join("engine")).unwrap()))
}

#[test]
fn the_memory_engine_conforms() {
    conforms(256, &|| {
        let engine = MemoryEngine::new();
        Box::new(move || Box::new(engine.clone()))
    });
}

#[test]
fn an_engine_with_recent_versions_in_front_conforms() {
    conforms(256, &|| {
        let engine = MemoryEngine::new();
        // Few enough that some must go, enough that some are found.
        Box::new(move || Box::new(Recent::new(engine.clone(), 16 * 500, 7)))
    });
}

#[test]
fn the_fjall_engine_conforms() {
    conforms(16, &|| in_directory(FjallEngine::open));
}

#[test]
fn the_fjall_engine_conforms_with_many_tables() {
    conforms(48, &|| in_directory(FjallEngine::open_small));
}

#[test]
fn the_redb_engine_conforms() {
    conforms(16, &|| in_directory(RedbEngine::open));
}

#[test]
fn the_memory_engine_loses_exactly_what_was_not_synced() {
    let engine = MemoryEngine::new();
    engine.apply(batch(vec![put(b"a", 1, "kept")])).unwrap();
    Engine::sync(&engine).unwrap();
    let snapshot = Engine::snapshot(&engine).unwrap();
    engine
        .apply(batch(vec![put(b"a", 2, "lost"), put(b"b", 2, "lost")]))
        .unwrap();
    engine.clear_range(&all()).unwrap();
    engine.lose_unsynced(0);
    assert_eq!(value(&engine, b"a", 9).as_deref(), Some("kept"));
    assert_eq!(value(&engine, b"b", 9), None);
    assert!(snapshot.get(b"b", LATEST).unwrap().is_none());
}

#[test]
fn a_damaged_item_is_an_error_that_names_its_key() {
    let engine = MemoryEngine::new();
    let versions = EngineBatch {
        versions: vec![put(b"accounts/alice", 5, "100")],
        marks: vec![(GroupId(1), Slot(1))],
        ..EngineBatch::default()
    };
    engine.apply(versions).unwrap();
    engine.damage();
    let text = engine
        .get(b"accounts/alice", LATEST)
        .unwrap_err()
        .to_string();
    assert!(
        text.contains("accounts/alice @5 is damaged (wrong checksum)"),
        "{text}"
    );
    assert!(engine.scan(&range(all(), 9, false), LATEST).is_err());
    assert!(
        Engine::snapshot(&engine)
            .unwrap()
            .export(&all(), None, 9)
            .is_err()
    );
    assert!(engine.applied(GroupId(1)).is_err());
}
