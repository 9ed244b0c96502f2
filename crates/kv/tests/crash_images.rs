//! What the default engine makes of the files that a crash leaves.
//!
//! An engine is driven with numbered batches. Its files are copied while it
//! runs: at a sync, and after further batches that were not synced. Every copy
//! is what `kill -9` leaves; a copy in which bytes written after the sync are
//! cut off, lost or garbled is what a power cut may leave. Each is opened, and
//! what is found must be the state after exactly the first *m* batches, with *m*
//! at least the number that was synced: the applied mark, all versions and the
//! checkpoint agree, so no batch is there in part and none is missing between.

#![cfg(feature = "server")]

mod crash;

use crash::{Driver, Image, Numbers, Opened, Values, number};

/// The engine's note of what it synced.
const NOTE: &str = "SYNCED";

/// The newest journal, where everything that is not synced goes first.
fn journal(image: &Image) -> String {
    let journals = image.names().filter(|name| number(name).is_some());
    let newest = journals.max_by_key(|name| number(name));
    newest.expect("a journal").to_owned()
}

/// A driver after `synced` synced and `more` further batches, and both copies.
fn two_images(seed: u64, values: Values, synced: u64, more: u64) -> (Driver, Image, Image) {
    let mut driver = Driver::new(seed, values);
    driver.apply(synced);
    driver.sync();
    let before = driver.image();
    driver.apply(more);
    let after = driver.image();
    (driver, before, after)
}

#[test]
fn what_was_synced_is_there_wherever_the_journal_is_cut() {
    let (driver, before, after) = two_images(1, Values::Small, 20, 12);
    let name = journal(&after);
    let (from, to) = (before.used(&name), after.used(&name));
    assert!(to > from + 4096, "the tail has some pages");
    let mut last = 20;
    for cut in (from..to).step_by((to - from) / 25 + 1).chain([to]) {
        for keep_length in [false, true] {
            let mut image = after.clone();
            image.cut(&name, cut, keep_length);
            let found = driver.expect_whole(&image, &format!("cut at {cut}"));
            assert!(found >= last, "cut at {cut}: {found} after {last}");
            last = found;
        }
    }
    assert!(last > 20, "the whole tail holds some batches");
}

#[test]
fn what_is_written_after_a_cut_is_there_after_the_next_crash() {
    let (driver, before, after) = two_images(2, Values::Small, 15, 12);
    let name = journal(&after);
    let (from, to) = (before.used(&name), after.used(&name));
    for part in [5, 3, 2, 1] {
        let mut image = after.clone();
        image.cut(&name, from + (to - from) / part, true);
        let mut driver = driver.restart(&image);
        driver.apply(8);
        driver.sync();
        driver.apply(5);
        let image = driver.image();
        let found = driver.expect_whole(&image, "after the cut");
        assert!(found >= driver.synced());
        let mut again = driver.restart(&image);
        again.apply(3);
        again.sync();
        assert_eq!(again.expect_whole(&again.image(), "twice"), again.applied());
    }
}

/// A power cut may lose one page of the tail and keep the next. What was synced
/// is there, and whole batches behind it up to the first hole.
#[test]
fn a_tail_with_lost_pages_is_cut() {
    for (values, synced, more) in [
        (Values::Small, 10, 20),
        (Values::Paged, 10, 20),
        (Values::Large, 4, 6),
    ] {
        for seed in 3..6 {
            let (driver, before, after) = two_images(seed, values, synced, more);
            let name = journal(&after);
            let mut choice = Numbers(seed);
            for round in 0..20 {
                let mut image = after.clone();
                image.lose_pages(&name, &before, &mut choice);
                driver.expect_whole(&image, &format!("{values:?}, seed {seed}, loss {round}"));
            }
        }
    }
}

#[test]
fn a_tail_with_a_wrong_byte_is_cut() {
    let (driver, before, after) = two_images(7, Values::Small, 10, 12);
    let name = journal(&after);
    let (from, to) = (before.used(&name), after.used(&name));
    let mut choice = Numbers(7);
    for _ in 0..60 {
        let mut image = after.clone();
        let at = from + choice.below((to - from) as u64) as usize;
        image.garble(&name, at, choice.next() as u8);
        driver.expect_whole(&image, &format!("a wrong byte at {at}"));
    }
}

/// fjall takes a batch whose end is there, and whose middle is not, for damage,
/// and does not open. Without the note of what was synced it sees the journal as
/// it is; should it learn to cut such a tail itself, this test says so.
#[test]
fn a_hole_inside_a_batch_that_was_not_synced_is_cut() {
    let (driver, before, after) = two_images(9, Values::Paged, 1, 8);
    let name = journal(&after);
    let (from, to) = (before.used(&name), after.used(&name));
    let mut refused = Vec::new();
    for page in from / 4096 + 1..to / 4096 {
        let mut image = after.clone();
        image.lose_page(&name, page);
        driver.expect_whole(&image, &format!("page {page} lost"));
        image.remove(NOTE);
        if let Opened::Refused(error) = driver.open(&image, &format!("no note, page {page}")) {
            refused.push(error);
        }
    }
    let checksum = |error: &&String| error.contains("ChecksumMismatch");
    assert!(refused.iter().find(checksum).is_some(), "{refused:?}");
}

/// The machine may lose power after the journal was synced and before the note
/// of it is durable: the note is then one sync older.
#[test]
fn a_note_that_is_one_sync_old_cuts_nothing_that_it_knows_to_be_synced() {
    let (mut driver, before, _) = two_images(11, Values::Paged, 6, 6);
    driver.sync();
    let synced = driver.image();
    let name = journal(&synced);
    let mut whole = synced.clone();
    whole.take(NOTE, &before);
    assert_eq!(driver.expect_whole(&whole, "nothing lost"), 12);
    driver.forget_sync(6);
    let mut choice = Numbers(11);
    for round in 0..20 {
        let mut image = synced.clone();
        image.take(NOTE, &before);
        image.lose_pages(&name, &before, &mut choice);
        driver.expect_whole(&image, &format!("loss {round}"));
    }
}

/// What was synced and is damaged is never cut, not even where fjall would: the
/// engine is refused, and its journal stays as it is.
#[test]
fn damage_to_what_was_synced_is_refused_and_changes_nothing() {
    let (driver, before, after) = two_images(12, Values::Paged, 8, 4);
    let name = journal(&after);
    let synced = before.used(&name);
    let expect_refused = |image: &Image, what: &str| {
        let error = driver.expect_refused(image, what);
        assert!(error.contains("was synced"), "{what}: {error}");
    };
    for page in 0..synced / 4096 {
        let mut image = after.clone();
        image.lose_page(&name, page);
        expect_refused(&image, &format!("page {page} lost"));
    }
    let mut choice = Numbers(12);
    for round in 0..20 {
        let mut image = after.clone();
        let at = choice.below(synced as u64) as usize;
        image.cut(&name, at, round % 2 == 0);
        expect_refused(&image, &format!("cut at {at}"));
    }
    for _ in 0..40 {
        let mut image = after.clone();
        let at = choice.below(synced as u64) as usize;
        image.flip(&name, at, 1 << choice.below(8));
        // A bit of a sequence number may pass: no batch changes its place by it.
        driver.open(&image, &format!("a bit flipped at {at}"));
    }
    let mut image = after.clone();
    image.remove(&name);
    let error = driver.expect_refused(&image, "no journal");
    assert!(error.contains("is missing"), "{error}");
}

/// Many batches later another journal is the newest one. The note may speak of
/// the one before it.
#[test]
fn a_journal_that_was_begun_after_the_last_sync_is_cut_anywhere() {
    let mut driver = Driver::new(13, Values::Large);
    driver.apply(2);
    driver.sync();
    let first = journal(&driver.image());
    while journal(&driver.image()) == first {
        driver.apply(40);
        assert!(driver.applied() < 2_000, "the journal rotates");
    }
    let mut choice = Numbers(13);
    let nothing = Image::default();
    let mut lose_some_of_it = |driver: &mut Driver| {
        driver.apply(10);
        let after = driver.image();
        let name = journal(&after);
        let mut fewest = driver.applied();
        for round in 0..8 {
            let mut image = after.clone();
            image.lose_pages(&name, &nothing, &mut choice);
            fewest = fewest.min(driver.expect_whole(&image, &format!("loss {round}")));
        }
        let lost = fewest < driver.applied();
        (after.used(&name) > 4096 && lost).then_some(name)
    };
    // All of it may just have become a table, and then nothing is lost.
    let name = (0..20).find_map(|_| lose_some_of_it(&mut driver));
    let name = name.expect("something was in the new journal, and lost");

    // Another sync covers the new journal.
    driver.sync();
    let mut image = driver.image();
    image.lose_page(&name, 0);
    driver.expect_refused(&image, "synced, then lost");
}

/// Large enough that memtables are written out and files replaced meanwhile.
#[test]
fn a_kill_while_memtables_are_written_out_loses_no_synced_batch() {
    killed_again_and_again(Driver::new(8, Values::Large));
}

/// What gathers in memory becomes a table once it is large enough, and at a sync; only
/// little of it goes to the journal.
#[test]
fn a_kill_while_tables_are_made_loses_no_synced_batch() {
    killed_again_and_again(Driver::in_memory(14, Values::Large));
}

#[test]
fn what_a_sync_leaves_in_the_journal_and_in_tables_is_one_prefix() {
    let mut driver = Driver::in_memory(15, Values::Small);
    let mut choice = Numbers(15);
    for round in 0..12 {
        // Some syncs find more than goes to the journal.
        driver.apply(choice.below(400));
        driver.sync();
        let synced = driver.image();
        driver.apply(choice.below(400));
        let image = driver.image();
        assert_eq!(
            driver.expect_whole(&synced, &format!("synced in {round}")),
            driver.synced()
        );
        driver.expect_whole(&image, &format!("killed in {round}"));
    }
    driver = driver.restart(&driver.image());
    driver.apply(3);
    driver.sync();
    assert_eq!(
        driver.expect_whole(&driver.image(), "at last"),
        driver.applied()
    );
}

fn killed_again_and_again(mut driver: Driver) {
    let mut choice = Numbers(8);
    let mut synced: Option<Image> = None;
    for round in 0..8 {
        driver.apply(12 + choice.below(24));
        let image = driver.image();
        driver.expect_whole(&image, &format!("killed in round {round}"));
        if let Some(mut older) = synced.take() {
            // What was written out but not yet named in any table of contents.
            older.add_new_files(&image, &mut choice);
            driver.expect_whole(&older, &format!("new files in round {round}"));
        }
        if choice.below(3) > 0 {
            driver.sync();
            synced = Some(driver.image());
        }
    }
    let last = driver.image();
    let tables = last.names().filter(|name| name.contains("/1/tables/"));
    assert!(tables.count() > 0, "memtables were written out");
}

/// Damage at rest is beyond what a crash does. It is an error, when opening or when
/// reading, or nothing is missed; a wrong answer it never is.
#[test]
fn damage_at_rest_is_never_a_wrong_answer() {
    let mut driver = Driver::new(10, Values::Large);
    driver.apply(100);
    driver.sync();
    let image = driver.image();
    let mut choice = Numbers(10);
    let mut panics = Vec::new();
    for name in image.names() {
        for kind in [choice.below(3), 3, 4] {
            let mut damaged = image.clone();
            let used = image.used(name);
            let at = choice.below(used as u64) as usize;
            match kind {
                0 => damaged.remove(name),
                1 => damaged.cut(name, 0, false),
                2 => damaged.cut(name, at, false),
                3 => damaged.cut(name, at, true),
                _ => damaged.garble(name, at, choice.next() as u8),
            }
            if let Err(panic) = driver.read_damaged(&damaged) {
                panics.push(format!("{name}, damage {kind} at {at} of {used}: {panic}"));
            }
        }
    }
    assert!(panics.is_empty(), "{panics:#?}");
}

/// fjall does not look at the checksum of its list of tables: a bit of a count that has flipped
/// names fewer tables than there are.
#[test]
fn a_list_of_tables_with_a_flipped_bit_is_never_believed() {
    let mut driver = Driver::new(21, Values::Large);
    driver.apply(100);
    driver.sync();
    let image = driver.image();
    let is_list = |name: &&str| {
        let file = name.rsplit('/').next().unwrap_or_default();
        file == "current"
            || file
                .strip_prefix('v')
                .is_some_and(|n| n.parse::<u64>().is_ok())
    };
    let lists: Vec<&str> = image.names().filter(is_list).collect();
    assert!(lists.len() >= 2, "{lists:?}");
    let mut missed = Vec::new();
    for name in lists {
        let used = image.used(name);
        for at in (0..used).step_by(used / 12 + 1) {
            let bit = 1 << (at % 8);
            let mut damaged = image.clone();
            damaged.flip(name, at, bit);
            if let Err(what) = driver.read_damaged(&damaged) {
                missed.push(format!("{name}, bit {bit} of byte {at} of {used}: {what}"));
            }
        }
    }
    assert!(missed.is_empty(), "{missed:#?}");
}

/// fjall takes what it had begun to make for something that is in its way.
#[test]
fn an_engine_that_was_never_finished_is_its_files_fault() {
    let home = tempfile::tempdir().expect("a directory");
    std::fs::create_dir(home.path().join("fjall")).expect("it is made");
    std::fs::write(home.path().join("fjall/0.jnl"), b"").expect("it is made");
    let error = synod_kv::engine::FjallEngine::open(home.path()).expect_err("it is in the way");
    assert!(error.blames_files(), "{error}");
}
