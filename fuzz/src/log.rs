//! The node's log over a disk in memory: crashes, damage, and made-up segments.

use crate::codec;
use std::collections::BTreeSet;
use synod_kv::log::{Disk, DiskFile, Log, LogError, LogOptions, LogRecord, MemoryDisk, Sequence};
use synod_paxos::lease::LeaseRecord;
use synod_paxos::{Ballot, Entry, GroupId, NodeId, Record, Slot, Timestamp};

const CLUSTER: u128 = 7;
/// Small segments, so that a few records fill several.
const SEGMENT_BYTES: u64 = 4096;
/// Steps of one run, at most.
const MAX_STEPS: usize = 60;

/// Bytes as a record of the log.
pub fn record(bytes: &[u8]) {
    codec::any_bytes::<LogRecord>(bytes);
}

/// A log and what was written to it.
struct Model {
    disk: MemoryDisk,
    log: Option<Log<MemoryDisk>>,
    /// All records that may be in the log, with the sequence of their append.
    written: Vec<(Sequence, LogRecord)>,
    /// How many of them are synced.
    synced: usize,
    /// How many of them are not needed any more.
    trimmed: usize,
    /// Numbers the records.
    next: u64,
}

fn options(choices: u64) -> LogOptions {
    LogOptions {
        segment_bytes: SEGMENT_BYTES,
        spares: 2,
        salt: choices,
    }
}

type Visited = Vec<LogRecord>;

fn open(disk: &MemoryDisk) -> Result<(Log<MemoryDisk>, Visited), LogError> {
    let mut visited = Vec::new();
    let (log, recovery) = Log::open(disk.clone(), options(3), CLUSTER, |_, record| {
        visited.push(record);
    })?;
    assert_eq!(recovery.records, visited.len() as u64);
    Ok((log, visited))
}

/// Record `number`: no two are equal.
fn numbered(number: u64, bytes: usize) -> LogRecord {
    if bytes == 0 {
        return LogRecord::Lease(LeaseRecord {
            holder: NodeId(number),
            limit: Timestamp(number),
            longest_lease_nanos: 0,
        });
    }
    LogRecord::Group {
        group: GroupId(1),
        record: Record::Accept {
            ballot: Ballot::default(),
            first: Slot(number),
            entries: vec![Entry::Command(vec![number as u8; bytes][..].into())],
            decided: Slot(0),
            sync: None,
        },
    }
}

impl Model {
    fn new() -> Model {
        let disk = MemoryDisk::new();
        let (log, visited) = open(&disk).expect("an empty log");
        assert!(visited.is_empty());
        Model {
            disk,
            log: Some(log),
            written: Vec::new(),
            synced: 0,
            trimmed: 0,
            next: 0,
        }
    }

    fn append(&mut self, count: u8, size: u8) {
        let bytes = match size {
            large @ 240.. => usize::from(large - 239) * 700,
            small => usize::from(small),
        };
        let numbers = self.next..self.next + u64::from(count % 4) + 1;
        self.next = numbers.end;
        let records: Vec<LogRecord> = numbers.map(|n| numbered(n, bytes)).collect();
        let log = self.log.as_mut().expect("open");
        let sequence = log.append(&records).expect("appends");
        self.written
            .extend(records.into_iter().map(|record| (sequence, record)));
    }

    fn sync(&mut self) {
        self.log.as_mut().expect("open").sync().expect("syncs");
        self.synced = self.written.len();
    }

    /// Forgets synced records; `part` of 256 of them.
    fn trim(&mut self, part: u8) {
        let at = self.synced * usize::from(part) / 256;
        let Some((sequence, _)) = self.written.get(at) else {
            return;
        };
        let (below, written) = (*sequence, &self.written);
        self.log.as_mut().expect("open").trim(below);
        let first = written.iter().position(|(s, _)| *s == below);
        self.trimmed = self.trimmed.max(first.unwrap_or(0));
    }

    /// What was found must be a run of what was written, in order, that holds
    /// everything from the trim to the last sync.
    fn check(&self, visited: &Visited, complete: bool) -> usize {
        let first = visited.first();
        let start = match first {
            Some(first) => self.written.iter().position(|(_, r)| r == first),
            None => Some(self.trimmed.min(self.written.len())),
        };
        let start = start.expect("nothing is invented");
        let end = start + visited.len();
        assert!(end <= self.written.len(), "nothing comes twice");
        let same = self.written[start..end].iter().map(|(_, r)| r).eq(visited);
        assert!(same, "records are found in order, each as it was");
        if complete {
            assert!(start <= self.trimmed, "what is needed is there");
            assert!(end >= self.synced, "what was synced is there");
        }
        end
    }

    /// Opens what is on the disk now, and goes on from it.
    fn reopen(&mut self) {
        self.log = None;
        let (log, visited) = open(&self.disk).expect("a crash leaves a good log");
        let end = self.check(&visited, true);
        self.log = Some(log);
        self.written.truncate(end);
        self.synced = end;
    }

    fn run(&mut self, choices: &[u8], crashes: bool) {
        for step in choices.chunks_exact(3).take(MAX_STEPS) {
            match step[0] {
                0..=129 => self.append(step[1], step[2]),
                130..=189 => self.sync(),
                190..=209 => self.trim(step[1]),
                _ if !crashes => self.sync(),
                210..=229 => {
                    self.disk.kill();
                    self.reopen();
                }
                _ => {
                    self.disk
                        .crash(u64::from(step[1]) << 8 | u64::from(step[2]));
                    self.reopen();
                }
            }
        }
    }
}

/// Appends, syncs and trims among crashes: what was synced is always there.
pub fn crashes(choices: &[u8]) {
    let mut model = Model::new();
    model.run(choices, true);
    model.disk.crash(choices.len() as u64);
    model.reopen();
}

/// A batch, as `docs/log-format.md` describes it.
#[derive(Debug)]
struct Batch {
    segment: String,
    start: usize,
    end: usize,
    sequence: u64,
    synced: u64,
}

fn number(bytes: &[u8], at: usize) -> u64 {
    let bytes = bytes.get(at..at + 8).and_then(|b| b.first_chunk());
    bytes.map_or(0, |b| u64::from_le_bytes(*b))
}

fn contents(disk: &MemoryDisk, name: &str) -> Vec<u8> {
    let file = disk.open(name).expect("a file");
    let mut bytes = vec![0; file.bytes().expect("its length") as usize];
    file.read_at(&mut bytes, 0).expect("its bytes");
    bytes
}

fn segments(disk: &MemoryDisk) -> Vec<String> {
    let mut names = disk.list().expect("names");
    names.retain(|name| name.starts_with("segment-"));
    names.sort();
    names
}

/// All whole batches.
fn batches(disk: &MemoryDisk) -> Vec<Batch> {
    let mut found = Vec::new();
    for segment in segments(disk) {
        let bytes = contents(disk, &segment);
        let (mut next, mut start) = (number(&bytes, 40), 512);
        let salt = number(&bytes, 56);
        let mark = u32::from_le_bytes(*b"SYNB") ^ salt as u32 ^ (salt >> 32) as u32;
        while number(&bytes, start) as u32 == mark && number(&bytes, start + 24) == next {
            let length = number(&bytes, start + 8) as u32 as usize;
            let end = start + 48 + length;
            found.push(Batch {
                segment: segment.clone(),
                start,
                end,
                sequence: next,
                synced: number(&bytes, start + 32),
            });
            next += 1;
            start = end.next_multiple_of(8);
        }
    }
    found
}

/// Damage to a good log: whatever it is, the log opens to a run of what was
/// written, or is refused with an error; and if what is left still proves that
/// something damaged was synced, it is refused.
pub fn damage(choices: &[u8]) {
    let (history, harm) = choices.split_at(choices.len() * 3 / 4);
    let mut model = Model::new();
    model.run(history, false);
    model.log.as_mut().expect("open").sync().expect("syncs");
    model.synced = model.written.len();
    model.disk.kill();
    let whole = batches(&model.disk);
    let names = segments(&model.disk);
    let oldest = model.log.as_ref().expect("open").oldest().0;
    let newest = names.last().expect("a segment");

    // Where bytes change: (segment, offset).
    let mut changed = BTreeSet::new();
    for step in harm.chunks_exact(4).take(3) {
        let name = &names[usize::from(step[0]) % names.len()];
        let offset = (usize::from(step[1]) << 8 | usize::from(step[2])) % SEGMENT_BYTES as usize;
        let there = contents(&model.disk, name);
        let length = 1 + usize::from(step[3] % 64);
        for (at, byte) in there.iter().enumerate().skip(offset).take(length) {
            // Every other time, bytes are zeroed, as a lost sector is.
            let mask = if step[3] < 128 { *byte } else { step[3] };
            model.disk.damage(name, at, mask);
            if mask != 0 && !changed.insert((name.clone(), at)) {
                // Twice the same byte: whether it changed is not followed up.
                return;
            }
        }
    }

    let hit = |name: &str, from: usize, to: usize| {
        let (from, to) = ((name.to_owned(), from), (name.to_owned(), to));
        changed.range(from..to).next().is_some()
    };
    let holds_needed = |name: &String| {
        name == newest
            || whole
                .iter()
                .any(|b| b.segment == *name && b.sequence >= oldest)
    };
    let header = names
        .iter()
        .any(|name| holds_needed(name) && hit(name, 0, 76));
    let (lost, left): (Vec<&Batch>, Vec<&Batch>) = whole
        .iter()
        .partition(|batch| hit(&batch.segment, batch.start, batch.end));
    let proven = |batch: &&&Batch| {
        batch.sequence >= oldest
            && (batch.segment != *newest
                || left.iter().any(|later| {
                    later.segment == *newest
                        && later.sequence > batch.sequence
                        && later.synced >= batch.sequence
                }))
    };
    let must_refuse = header || lost.iter().find(proven).is_some();
    match open(&model.disk) {
        Ok((_, visited)) => {
            assert!(!must_refuse, "damage was not noticed: {lost:?}");
            model.check(&visited, lost.is_empty());
        }
        Err(error) => {
            let needed = !lost.is_empty() || header || changed.iter().any(|(_, at)| *at < 76);
            assert!(needed, "refused without damage: {error}");
            assert!(matches!(
                error,
                LogError::Damaged { .. } | LogError::Lost { .. } | LogError::Version { .. }
            ));
        }
    }
}

fn put(bytes: &mut [u8], at: usize, number: u64) {
    bytes[at..at + 8].copy_from_slice(&number.to_le_bytes());
}

/// Sets marks and checksums right, so that made-up flags, sequences and payloads
/// come through. A segment begins at 1 or later, and no batch says that more
/// was synced or is forgotten than was written: under a checksum, these are believed.
fn seal(bytes: &mut [u8]) {
    let first = 1 + number(bytes, 40) % (1 << 32);
    put(bytes, 40, first);
    let oldest = number(bytes, 48) % (first + 1);
    put(bytes, 48, oldest);
    let salt = number(bytes, 56);
    let checksum = crc32fast::hash(&bytes[..72]);
    bytes[72..76].copy_from_slice(&checksum.to_le_bytes());
    let mark = u32::from_le_bytes(*b"SYNB") ^ salt as u32 ^ (salt >> 32) as u32;
    let mut start = 512;
    let mut next = first;
    while start + 48 <= bytes.len() {
        let room = bytes.len() - start - 48;
        let length = number(bytes, start + 8) as u32 as usize % 256 % (room + 1);
        let end = start + 48 + length;
        bytes[start..start + 4].copy_from_slice(&mark.to_le_bytes());
        bytes[start + 8..start + 12].copy_from_slice(&(length as u32).to_le_bytes());
        put(bytes, start + 16, 1);
        // Sometimes a batch of another place.
        let sequence = match number(bytes, start + 24) % 16 {
            15 => first + number(bytes, start + 24) % 64,
            _ => next,
        };
        put(bytes, start + 24, sequence);
        put(bytes, start + 32, number(bytes, start + 32) % sequence);
        put(
            bytes,
            start + 40,
            number(bytes, start + 40) % (sequence + 1),
        );
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(&CLUSTER.to_le_bytes());
        hasher.update(&salt.to_le_bytes());
        hasher.update(&bytes[start + 8..end]);
        bytes[start + 4..start + 8].copy_from_slice(&hasher.finalize().to_le_bytes());
        start = end.next_multiple_of(8);
        next = sequence + 1;
    }
}

/// Bytes as a whole segment. With `sealed`, marks and checksums are set right,
/// as nobody but this program's author could.
pub fn segment(bytes: &[u8], sealed: bool) {
    let mut segment = vec![0; SEGMENT_BYTES as usize];
    for (to, from) in segment.iter_mut().zip(bytes) {
        *to = *from;
    }
    if sealed {
        segment[..12].copy_from_slice(b"SYNODLOG\x02\0\0\0");
        segment[16..32].copy_from_slice(&CLUSTER.to_le_bytes());
        segment[32..40].copy_from_slice(&1u64.to_le_bytes());
        segment[64..72].copy_from_slice(&SEGMENT_BYTES.to_le_bytes());
        seal(&mut segment);
    }
    let disk = MemoryDisk::new();
    let name = format!("segment-{:020}", 1);
    let file = disk.create(&name, SEGMENT_BYTES).expect("a file");
    file.write_at(&segment, 0).expect("its bytes");
    file.sync().expect("synced");
    if let Ok((mut log, visited)) = open(&disk) {
        // What opens once opens again, and takes more.
        let more = numbered(9, 0);
        log.append(std::slice::from_ref(&more)).expect("appends");
        log.sync().expect("syncs");
        disk.kill();
        let (_, again) = open(&disk).expect("opens again");
        assert_eq!(again[..again.len() - 1], visited);
        assert_eq!(again.last(), Some(&more));
    }
}
