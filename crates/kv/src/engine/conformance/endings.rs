//! What the engines on disk leave when they end without a word.

use super::*;
use std::path::PathBuf;
use std::time::SystemTime;

/// Opens an engine in a directory.
type OpenAt = fn(&Path) -> Box<dyn Engine>;

#[test]
fn a_directory_of_another_engine_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    drop(FjallEngine::open(directory.path()).unwrap());
    let error = RedbEngine::open(directory.path()).map(|_| ()).unwrap_err();
    assert!(matches!(error, EngineError::OtherKind { .. }), "{error}");
    assert!(FjallEngine::open(directory.path()).is_ok());
}

/// The process dies without a sync: what is left must be whole batches, from
/// the first on, and the mark must not run ahead of the data.
#[test]
fn what_an_unclean_end_leaves_is_a_prefix_of_the_batches() {
    let openers: [(&str, OpenAt); 3] = [
        ("fjall", |path| Box::new(FjallEngine::open(path).unwrap())),
        ("fjall, small tables", |path| {
            Box::new(FjallEngine::open_small(path).unwrap())
        }),
        ("redb", |path| Box::new(RedbEngine::open(path).unwrap())),
    ];
    for (kind, open) in openers {
        let directory = tempfile::tempdir().unwrap();
        let (live, copy) = (directory.path().join("live"), directory.path().join("copy"));
        let engine = open(&live);
        for slot in 1..=400u64 {
            let versions = (0..20u8)
                .map(|id| put(&[id], slot, &"x".repeat(500)))
                .collect();
            engine
                .apply(EngineBatch {
                    versions,
                    marks: vec![(GroupId(1), Slot(slot))],
                    ..EngineBatch::default()
                })
                .unwrap();
            if slot == 100 {
                engine.sync().unwrap();
            }
        }
        // The files as a kill would leave them: the process's buffers are missing.
        copy_directory(&live, &copy);
        drop(engine);
        let left = open(&copy);
        let mark = left.applied(GroupId(1)).unwrap().unwrap();
        assert!(mark >= Slot(100), "{kind}: the sync is kept");
        for id in 0..20u8 {
            let newest = left.get(&[id], LATEST).unwrap().unwrap();
            assert_eq!(newest.timestamp, Timestamp(mark.0), "{kind}: key {id}");
        }
    }
}

/// A table cannot be made. What was written after it must not outlive what was in it.
#[test]
fn after_a_failed_table_nothing_newer_is_kept() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("engine");
    let (tables, aside) = (path.join("fjall/keyspaces/1/tables"), path.join("aside"));
    let apply = |engine: &FjallEngine, slot: u64| {
        let versions = (0..20u8).map(|id| put(&[id], slot, &"x".repeat(100)));
        engine.apply(EngineBatch {
            versions: versions.collect(),
            marks: vec![(GroupId(1), Slot(slot))],
            ..EngineBatch::default()
        })
    };
    let engine = FjallEngine::open_small(&path).unwrap();
    (1..=3).for_each(|slot| apply(&engine, slot).unwrap());
    Engine::sync(&engine).unwrap();
    std::fs::rename(&tables, &aside).unwrap();
    let failed = (4..2_000).find(|slot| apply(&engine, *slot).is_err());
    assert!(failed.is_some(), "no table was made");
    assert!(apply(&engine, 2_000).is_err());
    assert!(Engine::begin_sync(&engine).is_err());
    assert!(Engine::is_synced(&engine).is_err());
    assert!(Engine::sync(&engine).is_err());
    drop(engine);
    std::fs::rename(&aside, &tables).unwrap();
    let engine = FjallEngine::open_small(&path).unwrap();
    let mark = engine.applied(GroupId(1)).unwrap().unwrap();
    assert!(Slot(3) <= mark && Some(mark.0) < failed, "{mark:?}");
    for id in 0..20u8 {
        let newest = engine.get(&[id], LATEST).unwrap().unwrap();
        assert_eq!(newest.timestamp, Timestamp(mark.0));
    }
}

/// Copies a directory as it is at one moment: again, if anything changed meanwhile.
fn copy_directory(from: &Path, to: &Path) {
    loop {
        let before = listing(from);
        let copied = copy_files(from, to);
        if listing(from) == before {
            return copied.unwrap();
        }
        std::fs::remove_dir_all(to).unwrap();
    }
}

/// All files below `path` that do not go while they are looked at, with length and time of change.
fn listing(path: &Path) -> Vec<(PathBuf, u64, Option<SystemTime>)> {
    let mut found = Vec::new();
    let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
    for (entry, metadata) in entries.filter_map(|e| e.metadata().ok().map(|m| (e, m))) {
        if metadata.is_dir() {
            found.extend(listing(&entry.path()));
        }
        found.push((entry.path(), metadata.len(), metadata.modified().ok()));
    }
    found.sort();
    found
}

fn copy_files(from: &Path, to: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_files(&entry.path(), &target)?;
        } else {
            std::fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}
