//! Numbers that no log has, in files that are whole.

use super::*;
use crate::log::format::{BatchHeader, FIRST, FIRST_BATCH, LAST, SegmentHeader};
use crate::log::segments::segment_name;

/// A disk with one segment of that number, with that header, and one batch.
fn forged(number: u64, first: u64, oldest: u64, batch: BatchHeader) -> MemoryDisk {
    let disk = MemoryDisk::new();
    let header = SegmentHeader {
        cluster: CLUSTER,
        number,
        first,
        oldest,
        salt: 9,
        bytes: 4096,
    };
    let file = disk.create(&segment_name(number), 4096).unwrap();
    file.write_at(&header.encode(), 0).unwrap();
    let mut bytes = Vec::new();
    header.seal().encode(batch, &[], &mut bytes);
    file.write_at(&bytes, FIRST_BATCH).unwrap();
    disk.sync_names().unwrap();
    disk
}

/// A batch without records.
fn empty_batch(sequence: u64, synced: u64, oldest: u64) -> BatchHeader {
    BatchHeader {
        flags: FIRST | LAST,
        sequence,
        synced,
        oldest,
    }
}

#[test]
fn numbers_that_no_log_has_are_refused_under_a_right_checksum() {
    let fine = empty_batch(5, 4, 5);
    assert!(open(forged(1, 5, 5, fine)).is_ok());
    let most = u64::MAX;
    for (number, first, oldest, batch) in [
        (1, 0, 0, empty_batch(0, 0, 0)),
        (1, most, 5, empty_batch(most, 0, 0)),
        (0, 5, 5, fine),
        (most, 5, 5, fine),
        (1, 5, 6, fine),
        (1, 5, most, fine),
        (1, 5, 5, empty_batch(5, 4, 6)),
        (1, 5, 5, empty_batch(5, 4, most)),
        (1, 5, 5, empty_batch(5, 5, 5)),
        (1, 5, 5, empty_batch(5, most, 5)),
    ] {
        let what = format!("segment {number} from {first}, log from {oldest}, {batch:?}");
        let error = open(forged(number, first, oldest, batch)).map(|_| ());
        let error = error.expect_err(&what);
        assert!(matches!(error, LogError::Damaged { .. }), "{what}: {error}");
    }
}

#[test]
fn a_spare_with_the_highest_number_does_no_harm() {
    let disk = MemoryDisk::new();
    three_batches(&disk);
    for number in [u64::MAX, u64::MAX - 1, 7] {
        disk.create(&format!("spare-{number:020}"), 4096).unwrap();
    }
    let (mut log, seen, _) = open(disk.clone()).unwrap();
    assert_eq!(names(&seen), [1, 2, 3]);
    for id in 4..30 {
        log.append(&[record(id, 900)]).unwrap();
        let next = log.append(&[record(id, 1)]).unwrap();
        log.sync().unwrap();
        log.trim(next);
    }
    drop(log);
    assert!(names(&open(disk.clone()).unwrap().1).ends_with(&[29, 29]));
    let spares = disk.list().unwrap();
    assert!(!spares.contains(&format!("spare-{:020}", u64::MAX)));
}
