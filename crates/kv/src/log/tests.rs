//! The log over a disk that loses, tears, fails and lies.

mod numbers;

use super::*;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;
use synod_paxos::{Ballot, Configuration, Entry, NodeId, Slot, Timestamp};

const CLUSTER: u128 = 0x0123_4567_89ab_cdef;
const SEGMENT: &str = "segment-00000000000000000001";

fn options() -> LogOptions {
    LogOptions {
        segment_bytes: 4096,
        spares: 2,
        salt: 42,
    }
}

/// A record that names itself, with `bytes` bytes of command.
fn record(name: u64, bytes: usize) -> LogRecord {
    LogRecord::Group {
        group: GroupId(1 + name % 3),
        record: Record::Accept {
            ballot: Ballot::default(),
            first: Slot(name),
            entries: vec![Entry::Command(vec![name as u8; bytes][..].into())],
            decided: Slot(0),
            sync: None,
        },
    }
}

fn name(record: &LogRecord) -> u64 {
    match record {
        LogRecord::Group {
            record: Record::Accept { first, .. },
            ..
        } => first.0,
        _ => 0,
    }
}

fn open<D: Disk>(disk: D) -> Result<(Log<D>, Vec<LogRecord>, Recovery), LogError> {
    let mut seen = Vec::new();
    let (log, recovery) = Log::open(disk, options(), CLUSTER, |_, record| seen.push(record))?;
    Ok((log, seen, recovery))
}

fn names(records: &[LogRecord]) -> Vec<u64> {
    records.iter().map(name).collect()
}

#[test]
fn what_was_synced_is_replayed_from_real_files() {
    let directory = tempfile::tempdir().unwrap();
    let disk = RealDisk::open(&directory.path().join("log")).unwrap();
    let written = vec![
        LogRecord::Base {
            group: GroupId(7),
            durable: Box::new(Durable::new(Configuration::of_voters(vec![NodeId(1)]))),
        },
        LogRecord::Lease(LeaseRecord {
            holder: NodeId(2),
            limit: Timestamp(99),
            longest_lease_nanos: 5,
        }),
        record(3, 20_000),
    ];
    let (mut log, seen, _) = open(disk.clone()).unwrap();
    assert!(seen.is_empty());
    log.append(&written).unwrap();
    assert!(log.sync().unwrap());
    assert!(!log.sync().unwrap(), "nothing new, nothing to sync");
    drop(log);
    let (log, seen, recovery) = open(disk).unwrap();
    assert_eq!(seen, written);
    assert_eq!(recovery.records, 3);
    assert_eq!(recovery.cut, None);
    assert!(log.bytes() > 20_000);
}

/// One run of a fixed script that a failure may end anywhere.
#[derive(Default)]
struct Script {
    /// Names in the order of their appends, by append.
    appends: Vec<Vec<u64>>,
    /// Appends known synced.
    synced: usize,
    /// The append that the last trim named.
    trimmed: usize,
}

impl Script {
    fn run(&mut self, log: &mut Log<MemoryDisk>, rounds: u64, base: u64) -> Result<(), LogError> {
        let mut starts = Vec::new();
        for round in 0..rounds {
            for part in 0..=round % 3 {
                let id = base + round * 10 + part;
                // Most fit a segment, some span several.
                let bytes = if id % 7 == 3 {
                    9_000
                } else {
                    150 + (id as usize * 37) % 700
                };
                let records = [record(id, bytes), record(id + 5, 3)];
                self.appends.push(names(&records));
                starts.push((self.appends.len() - 1, log.append(&records)?));
            }
            log.sync()?;
            self.synced = self.appends.len();
            if round % 4 == 3 {
                let (append, start) = starts[starts.len() - 2];
                self.trimmed = append;
                log.trim(start);
            }
        }
        Ok(())
    }

    /// What was replayed must be whole appends, without a hole, from at or
    /// before the last trim to at or after the last sync. Returns how many
    /// appends there are now.
    fn check(&self, seen: &[u64], context: &str) -> usize {
        for from in 0..=self.trimmed {
            let mut rest = seen;
            let mut at = from;
            while let Some(append) = self.appends.get(at)
                && let Some(after) = rest.strip_prefix(&append[..])
            {
                rest = after;
                at += 1;
            }
            if rest.is_empty() && at >= self.synced && !(seen.is_empty() && self.synced > 0) {
                return at;
            }
        }
        panic!(
            "{context}: {} appends, {} synced, trimmed at {}; replayed {seen:?}",
            self.appends.len(),
            self.synced,
            self.trimmed
        );
    }
}

/// A failure at every step of the script, then a power cut or only the process's end, then
/// more of the script, a power cut, and a third start.
#[test]
fn a_crash_anywhere_loses_nothing_synced_and_revives_nothing_cut() {
    for seed in 0..8u64 {
        let mut calls = 0;
        loop {
            let context = format!("seed {seed}, failure after {calls} calls");
            let disk = MemoryDisk::new();
            let mut script = Script::default();
            disk.fail_after(calls);
            let finished = match open(disk.clone()) {
                Ok((mut log, _, _)) => {
                    let result = script.run(&mut log, 14, 1_000);
                    if result.is_err() {
                        assert!(
                            matches!(log.append(&[record(1, 1)]), Err(LogError::Poisoned { .. })),
                            "{context}: a failed log takes nothing more"
                        );
                    }
                    result.is_ok()
                }
                Err(_) => false,
            };
            if seed % 2 == 0 {
                disk.crash(seed * 7_919 + calls + 1);
            } else {
                disk.kill();
            }
            let (mut log, seen, _) =
                open(disk.clone()).unwrap_or_else(|e| panic!("{context}: {e}"));
            let kept = script.check(&names(&seen), &context);
            script.appends.truncate(kept);
            script.synced = kept;

            // Life goes on, and ends again without a sync.
            let rounds = if seed % 2 == 0 { 6 } else { 1 };
            let more = script.run(&mut log, rounds, 100_000 + seed);
            more.unwrap_or_else(|e| panic!("{context}: {e}"));
            if seed % 2 == 0 {
                log.append(&[record(5, 3_000)]).unwrap();
                script.appends.push(vec![5]);
            }
            disk.crash(seed * 104_729 + calls + 1);
            let (_, seen, _) = open(disk).unwrap_or_else(|e| panic!("{context}, again: {e}"));
            script.check(&names(&seen), &format!("{context}, second crash"));
            if finished {
                break;
            }
            calls += 1;
        }
        assert!(calls > 40, "the script has many steps");
    }
}

#[test]
fn what_a_start_replayed_is_durable_even_if_it_was_never_synced() {
    for seed in 1..20 {
        let disk = MemoryDisk::new();
        let (mut log, _, _) = open(disk.clone()).unwrap();
        log.append(&[record(1, 10)]).unwrap();
        log.sync().unwrap();
        log.append(&[record(2, 600)]).unwrap();
        log.flush().unwrap();
        disk.kill();
        let (_, seen, _) = open(disk.clone()).unwrap();
        assert_eq!(names(&seen), [1, 2]);
        disk.crash(seed);
        assert_eq!(names(&open(disk).unwrap().1), [1, 2], "seed {seed}");
    }
}

#[test]
fn a_batch_behind_the_cut_does_not_come_back_when_the_hole_is_filled() {
    let disk = MemoryDisk::new();
    let (mut log, _, _) = open(disk.clone()).unwrap();
    // Written together, so neither proves the other synced.
    log.append(&[record(1, 100)]).unwrap();
    log.append(&[record(2, 100)]).unwrap();
    log.sync().unwrap();
    disk.damage(SEGMENT, 512 + 60, 1);
    let (mut log, seen, recovery) = open(disk.clone()).unwrap();
    assert_eq!(names(&seen), [0; 0]);
    assert_eq!(recovery.cut.unwrap().offset, 512);
    log.append(&[record(3, 100)]).unwrap();
    log.sync().unwrap();
    assert_eq!(names(&open(disk).unwrap().1), [3]);
}

#[test]
fn an_append_that_was_interrupted_is_superseded_by_the_next() {
    for later in [20, 9_000] {
        let disk = MemoryDisk::new();
        let (mut log, _, _) = open(disk.clone()).unwrap();
        log.append(&[record(1, 20)]).unwrap();
        // Ends in the third segment, which is never synced.
        log.append(&[record(2, 9_000)]).unwrap();
        disk.kill();
        let (mut log, seen, _) = open(disk.clone()).unwrap();
        assert_eq!(names(&seen), [1]);
        assert!(log.next() > Sequence(3), "its first batches are there");
        log.append(&[record(3, later)]).unwrap();
        log.sync().unwrap();
        assert_eq!(names(&open(disk).unwrap().1), [1, 3]);
    }
}

/// Three synced batches; returns their offsets.
fn three_batches(disk: &MemoryDisk) -> Vec<usize> {
    let (mut log, _, _) = open(disk.clone()).unwrap();
    let mut offsets = Vec::new();
    for id in 1..=3 {
        offsets.push(usize::try_from(log.offset).unwrap());
        log.append(&[record(id, 100)]).unwrap();
        log.sync().unwrap();
    }
    offsets
}

#[test]
fn damage_to_a_batch_that_was_provably_synced_is_refused() {
    for byte in [0, 4, 8, 12, 17, 30, 47, 60] {
        let disk = MemoryDisk::new();
        let offsets = three_batches(&disk);
        disk.damage(SEGMENT, offsets[1] + byte, 0x10);
        match open(disk).map(|_| ()) {
            Err(error @ LogError::Damaged { .. }) => {
                let text = error.to_string();
                assert!(text.contains(SEGMENT), "{text}");
                assert!(text.contains(&format!("byte {}", offsets[1])), "{text}");
                assert!(text.contains("synod repair --help"), "{text}");
            }
            other => panic!("byte {byte}: {other:?}"),
        }
    }
}

#[test]
fn an_end_that_nothing_proves_synced_is_cut_and_written_over() {
    let disk = MemoryDisk::new();
    let offsets = three_batches(&disk);
    disk.damage(SEGMENT, offsets[2] + 60, 0x10);
    let (mut log, seen, recovery) = open(disk.clone()).unwrap();
    assert_eq!(names(&seen), [1, 2]);
    assert_eq!(recovery.cut.unwrap().offset, offsets[2] as u64);
    log.append(&[record(4, 1)]).unwrap();
    log.sync().unwrap();
    disk.crash(1);
    let (_, seen, recovery) = open(disk).unwrap();
    assert_eq!(names(&seen), [1, 2, 4]);
    assert_eq!(recovery.cut, None);
}

#[test]
fn damage_to_older_segments_headers_and_missing_files_is_refused() {
    let disk = MemoryDisk::new();
    let (mut log, _, _) = open(disk.clone()).unwrap();
    for id in 1..30 {
        log.append(&[record(id, 900)]).unwrap();
        log.sync().unwrap();
    }
    assert!(log.segment() >= 4);
    drop(log);
    let refused = |change: &dyn Fn(&MemoryDisk)| {
        change(&disk);
        let error = open(disk.clone()).map(|_| ()).unwrap_err();
        change(&disk);
        assert!(open(disk.clone()).is_ok());
        error
    };
    let second = "segment-00000000000000000002";
    let error = refused(&|disk| disk.damage(second, 600, 1));
    assert!(matches!(error, LogError::Damaged { .. }), "{error}");
    let error = refused(&|disk| disk.damage(second, 41, 1));
    assert!(matches!(error, LogError::Damaged { .. }), "{error}");

    let old = second.to_owned();
    let rename = |from: &str, to: &str| disk.rename(from, to).unwrap();
    rename(&old, "elsewhere");
    let error = open(disk.clone()).map(|_| ()).unwrap_err();
    assert!(matches!(error, LogError::Lost { .. }), "{error}");
    rename("elsewhere", &old);
    rename(SEGMENT, "elsewhere");
    let error = open(disk.clone()).map(|_| ()).unwrap_err();
    assert!(matches!(error, LogError::Lost { .. }), "{error}");
}

#[test]
fn a_log_of_another_cluster_or_format_is_refused() {
    let disk = MemoryDisk::new();
    three_batches(&disk);
    let error = Log::open(disk.clone(), options(), 9, |_, _| ())
        .map(|_| ())
        .unwrap_err();
    assert!(matches!(error, LogError::OtherCluster { .. }), "{error}");
    disk.damage(SEGMENT, 8, 0xff);
    let error = open(disk).map(|_| ()).unwrap_err();
    assert!(matches!(error, LogError::Version { .. }), "{error}");
    let sizes = LogOptions {
        segment_bytes: 5000,
        ..options()
    };
    let error = Log::open(MemoryDisk::new(), sizes, 9, |_, _| ())
        .map(|_| ())
        .unwrap_err();
    assert!(matches!(error, LogError::SegmentSize { .. }), "{error}");
}

#[test]
fn a_trim_frees_files_once_a_later_append_says_so() {
    let disk = MemoryDisk::new();
    let (mut log, _, _) = open(disk.clone()).unwrap();
    for id in 1..30 {
        log.append(&[record(id, 900)]).unwrap();
    }
    log.sync().unwrap();
    let full = log.bytes();
    let files = disk.list().unwrap().len();
    let base = log.append(&[record(100, 1)]).unwrap();
    let later = log.append(&[record(101, 1)]).unwrap();
    log.trim(later);
    assert!(log.oldest() < later, "only synced batches may be trimmed");
    log.sync().unwrap();
    log.trim(base);
    assert_eq!(log.oldest(), base);
    assert!(log.bytes() < full / 4);
    assert_eq!(
        disk.list().unwrap().len(),
        files,
        "only the next sync frees"
    );
    log.append(&[record(102, 1)]).unwrap();
    log.sync().unwrap();
    let names_left = disk.list().unwrap();
    assert_eq!(
        names_left.len(),
        3,
        "one segment, two spares: {names_left:?}"
    );
    drop(log);
    let (_, seen, _) = open(disk).unwrap();
    assert_eq!(names(&seen), [100, 101, 102]);
}

#[test]
fn the_bytes_are_those_of_the_format_page() {
    let disk = MemoryDisk::new();
    let (mut log, _, _) = open(disk.clone()).unwrap();
    let lease = LogRecord::Lease(LeaseRecord {
        holder: NodeId(2),
        limit: Timestamp(300),
        longest_lease_nanos: 1,
    });
    log.append(&[lease]).unwrap();
    log.sync().unwrap();
    let mut bytes = vec![0; 600];
    disk.open(SEGMENT).unwrap().read_at(&mut bytes, 0).unwrap();
    assert_eq!(&bytes[..16], b"SYNODLOG\x02\0\0\0\0\0\0\0");
    assert_eq!(bytes[16..32], CLUSTER.to_le_bytes());
    assert_eq!(bytes[32..40], 1u64.to_le_bytes(), "segment");
    assert_eq!(bytes[40..48], 1u64.to_le_bytes(), "first batch");
    assert_eq!(bytes[48..56], 1u64.to_le_bytes(), "the log's beginning");
    assert_eq!(bytes[64..72], 4096u64.to_le_bytes(), "size");
    assert_eq!(bytes[72..76], crc32fast::hash(&bytes[..72]).to_le_bytes());
    assert!(bytes[76..512].iter().all(|b| *b == 0));
    let batch = &bytes[512..];
    assert_eq!(batch[8..12], 5u32.to_le_bytes(), "payload");
    assert_eq!(batch[12..16], 3u32.to_le_bytes(), "first and last");
    assert_eq!(batch[16..24], 1u64.to_le_bytes(), "segment");
    assert_eq!(batch[24..32], 1u64.to_le_bytes(), "sequence");
    assert_eq!(batch[32..40], 0u64.to_le_bytes(), "synced");
    assert_eq!(batch[40..48], 1u64.to_le_bytes(), "the log's beginning");
    assert_eq!(
        batch[48..53],
        [1, 2, 0xac, 2, 1],
        "Lease, holder, limit, lease"
    );
    let mut sealed = CLUSTER.to_le_bytes().to_vec();
    sealed.extend_from_slice(&bytes[56..64]);
    sealed.extend_from_slice(&batch[8..53]);
    assert_eq!(batch[4..8], crc32fast::hash(&sealed).to_le_bytes());
}

fn thread(disk: &MemoryDisk) -> (LogThread, Receiver<LogEvent>, Vec<u64>) {
    let (log, seen, _) = open(disk.clone()).unwrap();
    let (sender, events) = channel();
    let thread = LogThread::start(log, move |event| {
        let _ = sender.send(event);
    });
    (thread.unwrap(), events, names(&seen))
}

#[test]
fn the_thread_syncs_in_groups_and_names_the_highest_ticket() {
    let disk = MemoryDisk::new();
    let (mut thread, events, _) = thread(&disk);
    for ticket in 1..=500 {
        thread.submit(vec![record(ticket, 50)], ticket);
    }
    thread.wait_synced().unwrap();
    thread.submit(Vec::new(), 501);
    thread.wait_synced().unwrap();
    let counters = thread.counters();
    assert_eq!(counters.batches, 500);
    assert!(
        counters.syncs <= 500 && counters.bytes > 500 * 100,
        "{counters:?}"
    );
    thread.stop();
    let tickets: Vec<u64> = events
        .iter()
        .map(|event| match event {
            LogEvent::Synced { ticket } => ticket,
            LogEvent::Fatal(error) => panic!("{error}"),
        })
        .collect();
    assert!(tickets.is_sorted());
    assert_eq!(tickets.last(), Some(&501));
    disk.crash(3);
    assert_eq!(open(disk).unwrap().1.len(), 500);
}

#[test]
fn the_thread_trims_by_ticket() {
    let disk = MemoryDisk::new();
    let (mut log, _events, _) = thread(&disk);
    for ticket in 1..=100 {
        log.submit(vec![record(ticket, 900)], ticket);
    }
    log.wait_synced().unwrap();
    let full = log.bytes();
    log.submit(vec![record(101, 1)], 101);
    log.wait_synced().unwrap();
    log.trim_before(101);
    log.submit(vec![record(102, 1)], 102);
    log.wait_synced().unwrap();
    assert!(log.bytes() < full / 10);
    assert_eq!(log.waiting_since(), None);
    log.stop();
    assert!(matches!(log.wait_synced(), Err(LogError::Stopped)));
    let (_, _, seen) = thread(&disk);
    assert!(seen.ends_with(&[101, 102]));
    assert!(
        seen.len() < 8,
        "what lies in the same segment stays: {seen:?}"
    );
}

#[test]
fn a_failed_disk_ends_the_thread_and_acknowledges_nothing() {
    let disk = MemoryDisk::new();
    let (log, events, _) = thread(&disk);
    log.submit(vec![record(1, 1)], 1);
    log.wait_synced().unwrap();
    assert!(matches!(events.recv(), Ok(LogEvent::Synced { ticket: 1 })));
    disk.fail_after(1);
    log.submit(vec![record(2, 1)], 2);
    let event = events.recv_timeout(Duration::from_secs(20)).unwrap();
    assert!(
        matches!(event, LogEvent::Fatal(LogError::Io { .. })),
        "{event:?}"
    );
    log.submit(vec![record(3, 1)], 3);
    assert!(matches!(log.wait_synced(), Err(LogError::Stopped)));
    assert!(events.recv().is_err(), "nothing more is reported");
}
