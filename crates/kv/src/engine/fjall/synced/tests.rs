//! The note and the cut, on journals made by hand. What fjall itself makes of
//! cut journals is tested in `tests/crash_images.rs`.

use super::*;
use std::hash::Hasher;
use tempfile::TempDir;
use xxhash_rust::xxh3::Xxh3;

/// A batch of one item and one clear, as fjall writes it.
fn batch(sequence: u64, value: &[u8]) -> Vec<u8> {
    let mut body = vec![2, 0, 0];
    body.extend_from_slice(&1u64.to_le_bytes());
    body.extend_from_slice(&3u16.to_le_bytes());
    let length = u32::try_from(value.len()).unwrap();
    body.extend_from_slice(&length.to_le_bytes());
    body.extend_from_slice(&length.to_le_bytes());
    body.extend_from_slice(b"key");
    body.extend_from_slice(value);
    body.push(4);
    body.extend_from_slice(&7u64.to_le_bytes());
    let mut hash = Xxh3::new();
    hash.write(&body);

    let mut out = vec![1];
    out.extend_from_slice(&2u32.to_le_bytes());
    out.extend_from_slice(&sequence.to_le_bytes());
    out.extend_from_slice(&body);
    out.push(3);
    out.extend_from_slice(&hash.finish().to_le_bytes());
    out.extend_from_slice(b"FJL\x03");
    out
}

/// Batches with these sequence numbers, all of one length.
fn batches(sequences: &[u64]) -> Vec<u8> {
    let each = sequences.iter().map(|s| batch(*s, &[0x55; 300]));
    each.collect::<Vec<_>>().concat()
}

/// The length of one of them.
fn one() -> usize {
    batches(&[1]).len()
}

struct Home(TempDir);

impl Home {
    /// A database of journals `(number, bytes)`, each with zeros behind, and a
    /// note.
    fn new(journals: &[(u64, &[u8])], noted: Option<(u64, u64)>) -> Home {
        let home = Home(tempfile::tempdir().unwrap());
        fs::create_dir(home.database()).unwrap();
        File::create(home.database().join("lock")).unwrap();
        for (number, bytes) in journals {
            let mut bytes = bytes.to_vec();
            bytes.resize(bytes.len() + 10_000, 0);
            fs::write(home.journal(*number), bytes).unwrap();
        }
        if let Some((journal, bytes)) = noted {
            let synced = Synced { journal, bytes };
            files::store(&home.note(), MAGIC, NO_CLUSTER, &synced).unwrap();
        }
        home
    }

    fn database(&self) -> PathBuf {
        self.0.path().join("fjall")
    }

    fn note(&self) -> PathBuf {
        self.0.path().join(NOTE)
    }

    fn journal(&self, number: u64) -> PathBuf {
        self.database().join(format!("{number}.jnl"))
    }

    fn bytes(&self, number: u64) -> u64 {
        fs::metadata(self.journal(number)).unwrap().len()
    }

    fn prepare(&self) -> Result<Journals, JournalError> {
        Journals::prepare(self.0.path(), &self.database())
    }
}

/// `bytes` with the middle of batch `index` lost.
fn with_hole(mut bytes: Vec<u8>, index: usize) -> Vec<u8> {
    let at = index * one() + 100;
    bytes[at..at + 50].fill(0);
    bytes
}

#[test]
fn a_whole_journal_stays_as_it_is() {
    let whole = batches(&[3, 4, 9]);
    let home = Home::new(&[(0, &whole)], Some((0, one() as u64)));
    let mut journals = home.prepare().unwrap();
    assert_eq!(home.bytes(0), whole.len() as u64 + 10_000);
    let bytes = whole.len() as u64;
    assert_eq!(journals.measure().unwrap(), Synced { journal: 0, bytes });
}

#[test]
fn a_hole_above_the_note_is_cut_and_one_below_is_refused() {
    for hole in 0..4 {
        for noted in 0..=4 {
            let bytes = with_hole(batches(&[1, 2, 3, 4]), hole);
            let home = Home::new(&[(5, &bytes)], Some((5, (noted * one()) as u64)));
            match home.prepare() {
                Ok(_) => {
                    assert!(noted <= hole, "hole {hole}, noted {noted}");
                    assert_eq!(home.bytes(5), (hole * one()) as u64);
                }
                Err(JournalError::Damaged { offset, .. }) => {
                    assert!(noted > hole, "hole {hole}, noted {noted}");
                    assert_eq!(offset, (hole * one()) as u64);
                    assert_eq!(home.bytes(5), (4 * one()) as u64 + 10_000);
                }
                Err(other) => panic!("hole {hole}, noted {noted}: {other}"),
            }
        }
    }
}

#[test]
fn a_wrong_byte_behind_the_note_is_cut() {
    let whole = batches(&[1, 2, 3]);
    // Every byte of the batch's frame, some of its value.
    let value = one() + 60..2 * one() - 30;
    for at in (one()..2 * one()).filter(|at| !value.contains(at) || at % 20 == 0) {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x80;
        let home = Home::new(&[(0, &bytes)], Some((0, one() as u64)));
        home.prepare().unwrap();
        // A sequence number out of its order shows at the batch after it, at the latest.
        let left = home.bytes(0);
        let in_sequence = (at - one() >= 5) && (at - one() < 13);
        let most = if in_sequence { 2 * one() } else { one() };
        assert!(left >= one() as u64 && left <= most as u64, "byte {at}");
    }
}

#[test]
fn a_journal_younger_than_the_note_is_cut_anywhere() {
    let older = batches(&[1, 2]);
    let noted = Some((3, older.len() as u64));
    let newest = with_hole(batches(&[3, 4]), 0);
    let home = Home::new(&[(3, &older), (4, &newest)], noted);
    home.prepare().unwrap();
    assert_eq!(home.bytes(4), 0);
    assert_eq!(home.bytes(3), older.len() as u64 + 10_000);

    // The noted one was written out and is gone.
    let home = Home::new(&[(4, &newest)], noted);
    let mut journals = home.prepare().unwrap();
    let empty = Synced {
        journal: 4,
        bytes: 0,
    };
    assert_eq!(journals.measure().unwrap(), empty);
}

#[test]
fn an_older_journal_is_never_cut() {
    let newest = batches(&[4, 5]);
    let none: &[u8] = &[];
    for newest in [&newest[..], none] {
        for noted in [2, 3, 4] {
            let older = with_hole(batches(&[1, 2, 3]), 2);
            let home = Home::new(&[(3, &older), (4, newest)], Some((noted, 0)));
            let refused = home.prepare().map(|_| ());
            assert!(
                matches!(refused, Err(JournalError::Damaged { .. })),
                "{refused:?}"
            );
            assert_eq!(home.bytes(3), older.len() as u64 + 10_000);
        }
    }
}

#[test]
fn what_the_note_knows_of_must_be_there() {
    let bytes = batches(&[1, 2]);
    let home = Home::new(&[(3, &bytes)], Some((4, 1)));
    let refused = home.prepare().map(|_| ());
    assert!(
        matches!(refused, Err(JournalError::Missing { .. })),
        "{refused:?}"
    );
    // Zeros where something was synced are damage too.
    let home = Home::new(&[(3, &bytes)], Some((3, 1 + bytes.len() as u64)));
    let refused = home.prepare().map(|_| ());
    assert!(
        matches!(refused, Err(JournalError::Damaged { .. })),
        "{refused:?}"
    );
}

#[test]
fn without_a_readable_note_nothing_is_cut() {
    let bytes = with_hole(batches(&[1, 2]), 1);
    let home = Home::new(&[(0, &bytes)], None);
    assert!(!home.prepare().unwrap().is_noted());
    for note in [
        &b""[..],
        b"SYNODFJS with something else behind it, at length",
    ] {
        fs::write(home.note(), note).unwrap();
        assert!(!home.prepare().unwrap().is_noted());
        assert_eq!(home.bytes(0), bytes.len() as u64 + 10_000);
    }
}

#[test]
fn a_journal_in_use_is_left_alone() {
    let bytes = with_hole(batches(&[1, 2]), 1);
    let home = Home::new(&[(0, &bytes)], Some((0, 0)));
    let held = File::open(home.database().join("lock")).unwrap();
    held.lock().unwrap();
    let refused = home.prepare().map(|_| ());
    assert!(
        matches!(refused, Err(JournalError::Locked { .. })),
        "{refused:?}"
    );
    assert_eq!(home.bytes(0), bytes.len() as u64 + 10_000);
    drop(held);
    home.prepare().unwrap();
    assert_eq!(home.bytes(0), one() as u64);
}

#[test]
fn a_measure_goes_on_where_the_last_one_ended_and_follows_the_newest_journal() {
    let home = Home::new(&[(0, &batches(&[1, 2]))], None);
    let mut journals = home.prepare().unwrap();
    let measured = |journals: &mut Journals| {
        let synced = journals.measure().unwrap();
        (synced.journal, synced.bytes)
    };
    assert_eq!(measured(&mut journals), (0, 2 * one() as u64));
    // Half a batch more, then the whole.
    let three = batches(&[1, 2, 3]);
    fs::write(home.journal(0), &three[..three.len() - 9]).unwrap();
    assert_eq!(measured(&mut journals), (0, 2 * one() as u64));
    fs::write(home.journal(0), &three).unwrap();
    assert_eq!(measured(&mut journals), (0, 3 * one() as u64));
    fs::write(home.journal(1), batches(&[4])).unwrap();
    assert_eq!(measured(&mut journals), (1, one() as u64));

    let synced = journals.measure().unwrap();
    journals.note(synced).unwrap();
    let again = home.prepare().unwrap();
    assert_eq!(again.noted, Some(synced));
}
