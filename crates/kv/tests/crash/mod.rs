//! Numbered batches, copies of an engine's files, and what must be found in them.

mod image;

pub use image::{Image, number};

use bytes::Bytes;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use synod_kv::engine::{Engine, EngineBatch, EngineError, FjallEngine, StoredVersion};
use synod_paxos::{GroupId, Slot, Timestamp};
use synod_txn::{AttemptId, Span};
use tempfile::TempDir;

/// The only group there is.
const GROUP: GroupId = GroupId(1);
/// Keys that versions are made of.
const KEYS: u64 = 40;
/// Every so many batches carry a checkpoint.
const CHECKPOINT_EVERY: u64 = 7;

/// A small generator (`SplitMix64`, Steele et al. 2014).
pub struct Numbers(pub u64);

impl Numbers {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound.max(1)
    }
}

/// How large the values are.
#[derive(Clone, Copy, Debug)]
pub enum Values {
    /// Less than a page: everything stays in one journal.
    Small,
    /// Several pages: a whole page may lie inside one value.
    Paged,
    /// So large that memtables are written out and journals rotate.
    Large,
}

/// What a copy opened to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Opened {
    /// The state after so many batches, whole.
    Whole(u64),
    /// An error, which the node answers by setting the engine aside.
    Refused(String),
}

/// An engine, and the batches that were applied to it.
pub struct Driver {
    seed: u64,
    values: Values,
    /// Batches are in the journal, whose end most tests are about; else in memory, until a sync or
    /// a table is made of them.
    is_journaled: bool,
    home: TempDir,
    engine: Option<FjallEngine>,
    applied: u64,
    synced: u64,
}

fn directory(home: &TempDir) -> PathBuf {
    home.path().join("engine")
}

impl Driver {
    pub fn new(seed: u64, values: Values) -> Driver {
        Driver::open_new(seed, values, true)
    }

    /// A driver that leaves it to the engine where batches go.
    pub fn in_memory(seed: u64, values: Values) -> Driver {
        Driver::open_new(seed, values, false)
    }

    fn open_new(seed: u64, values: Values, is_journaled: bool) -> Driver {
        let home = tempfile::tempdir().expect("a directory");
        let engine = FjallEngine::open(&directory(&home)).expect("a new engine");
        Driver {
            seed,
            values,
            is_journaled,
            home,
            engine: Some(engine),
            applied: 0,
            synced: 0,
        }
    }

    fn engine(&self) -> &FjallEngine {
        self.engine.as_ref().expect("open")
    }

    pub const fn applied(&self) -> u64 {
        self.applied
    }

    pub const fn synced(&self) -> u64 {
        self.synced
    }

    /// Batch `number`: always the same one.
    fn batch(&self, number: u64) -> EngineBatch {
        let mut random = Numbers(self.seed << 32 | number);
        let mut keys: Vec<u64> = (0..=random.below(4)).map(|_| random.below(KEYS)).collect();
        keys.sort_unstable();
        keys.dedup();
        let most = match self.values {
            Values::Small => 3_000,
            Values::Paged => 40_000,
            Values::Large => 300_000,
        };
        let versions = keys.into_iter().map(|key| {
            let value = (random.below(6) > 0).then(|| self.value(&mut random, most));
            let key = Bytes::from(format!("key-{key:02}"));
            (key, Timestamp(number), AttemptId(number.into()), value)
        });
        let versions = versions.collect();
        let checkpoints = if number.is_multiple_of(CHECKPOINT_EVERY) {
            vec![(GROUP, Slot(number), checkpoint(number))]
        } else {
            Vec::new()
        };
        EngineBatch {
            versions,
            marks: vec![(GROUP, Slot(number))],
            checkpoints,
        }
    }

    /// Half of a value compresses, half does not.
    fn value(&self, random: &mut Numbers, most: u64) -> Bytes {
        let length = usize::try_from(random.below(most)).expect("small");
        let fill = random.next() as u8 | 1;
        let mut value = vec![fill; length];
        for byte in &mut value[length / 2..] {
            *byte = random.next() as u8;
        }
        value.into()
    }

    pub fn apply(&mut self, count: u64) {
        for _ in 0..count {
            self.applied += 1;
            let batch = self.batch(self.applied);
            self.engine().apply(batch).expect("applies");
            if self.is_journaled {
                self.engine().journal().expect("goes to the journal");
            }
        }
    }

    pub fn sync(&mut self) {
        self.engine().sync().expect("syncs");
        self.synced = self.applied;
    }

    /// The machine lost power before the last sync returned: only so many batches
    /// must be there.
    pub fn forget_sync(&mut self, synced: u64) {
        self.synced = synced;
    }

    /// The engine's files as `kill -9` would leave them now.
    pub fn image(&self) -> Image {
        Image::copy(&directory(&self.home))
    }

    /// A driver that goes on where `image` ends. It must open.
    pub fn restart(&self, image: &Image) -> Driver {
        let home = tempfile::tempdir().expect("a directory");
        image.write(&directory(&home));
        let engine = FjallEngine::open(&directory(&home)).expect("opens");
        let found = self.check(&engine, "restart");
        Driver {
            seed: self.seed,
            values: self.values,
            is_journaled: self.is_journaled,
            home,
            engine: Some(engine),
            applied: found,
            synced: self.synced.min(found),
        }
    }

    /// Opens `image` and checks that it holds the state after some number of
    /// batches, at least those synced; or that it is refused with an error.
    pub fn open(&self, image: &Image, what: &str) -> Opened {
        let home = tempfile::tempdir().expect("a directory");
        image.write(&directory(&home));
        let opened = catch_unwind(AssertUnwindSafe(|| FjallEngine::open(&directory(&home))));
        match opened.unwrap_or_else(|_| panic!("{what}: opening panicked")) {
            Ok(engine) => Opened::Whole(self.check(&engine, what)),
            Err(error) => Opened::Refused(error.to_string()),
        }
    }

    /// Opens `image`, whose files were damaged at rest, and reads everything.
    /// What is read without an error must be what was written, all of it up to the mark. An error
    /// is good; what is missing, and the text of a panic, come back for the caller to judge.
    pub fn read_damaged(&self, image: &Image) -> Result<(), String> {
        let home = tempfile::tempdir().expect("a directory");
        image.write(&directory(&home));
        let read = catch_unwind(AssertUnwindSafe(|| {
            let engine = FjallEngine::open(&directory(&home)).ok()?;
            let found = export(&engine).ok()?;
            let mark = engine.applied(GROUP).ok()?;
            Some((mark.map_or(0, |slot| slot.0), found))
        }));
        let read = read.map_err(|panic| {
            let text = panic.downcast_ref::<String>().cloned();
            text.unwrap_or_else(|| format!("{:?}", panic.downcast_ref::<&str>()))
        })?;
        let Some((mark, found)) = read else {
            return Ok(());
        };
        // The node begins where the mark says: what it says is there and is not would be missing for good.
        let written = |number| self.batch(number).versions;
        let expected: usize = (1..=mark).map(|number| written(number).len()).sum();
        for version in &found {
            assert!(
                written(version.1.0).contains(version),
                "{version:?} was never written"
            );
        }
        let there = found.iter().filter(|version| version.1.0 <= mark).count();
        if there != expected {
            return Err(format!(
                "opens at {mark} with {there} versions of {expected}, and says nothing"
            ));
        }
        Ok(())
    }

    /// As [`Driver::open`]; it must not be refused.
    pub fn expect_whole(&self, image: &Image, what: &str) -> u64 {
        match self.open(image, what) {
            Opened::Whole(found) => found,
            Opened::Refused(error) => panic!("{what}: {error}"),
        }
    }

    /// As [`Driver::open`]; it must be refused, and leave the files as they are.
    /// Returns the error.
    pub fn expect_refused(&self, image: &Image, what: &str) -> String {
        let home = tempfile::tempdir().expect("a directory");
        image.write(&directory(&home));
        let before = Image::copy(&directory(&home));
        let Err(error) = FjallEngine::open(&directory(&home)) else {
            panic!("{what}: opened");
        };
        assert_eq!(before, Image::copy(&directory(&home)), "{what}");
        error.to_string()
    }

    /// Compares an engine with the state after as many batches as its mark says.
    fn check(&self, engine: &FjallEngine, what: &str) -> u64 {
        let mark = engine.applied(GROUP).expect("a readable mark");
        let found = mark.map_or(0, |slot| slot.0);
        let bounds = self.synced..=self.applied;
        assert!(
            bounds.contains(&found),
            "{what}: the mark is {found}, not in {bounds:?}"
        );
        let mut expected = BTreeMap::new();
        for number in 1..=found {
            for (key, timestamp, attempt, value) in self.batch(number).versions {
                expected.insert((key, u64::MAX - timestamp.0), (attempt, value));
            }
        }
        let expected = expected.into_iter();
        let expected: Vec<StoredVersion> = expected
            .map(|((key, late), (attempt, value))| {
                (key, Timestamp(u64::MAX - late), attempt, value)
            })
            .collect();
        let there = export(engine).expect("readable versions");
        if there != expected {
            let names = |versions: &[StoredVersion]| -> Vec<String> {
                let name = |v: &StoredVersion| format!("{}@{}", v.0.escape_ascii(), v.1.0);
                versions.iter().map(name).collect()
            };
            let (there, expected) = (names(&there), names(&expected));
            panic!("{what}: after {found} batches there is {there:?}, not {expected:?}");
        }
        let last = found - found % CHECKPOINT_EVERY;
        let wanted = (last > 0).then(|| (Slot(last), checkpoint(last)));
        let stored = engine.checkpoint(GROUP).expect("a readable checkpoint");
        assert_eq!(stored, wanted, "{what}");
        found
    }
}

fn checkpoint(number: u64) -> Bytes {
    Bytes::from(format!("state after {number}").repeat(40))
}

fn export(engine: &FjallEngine) -> Result<Vec<StoredVersion>, EngineError> {
    let snapshot = engine.snapshot()?;
    let all = Span {
        start: Bytes::new(),
        end: Bytes::new(),
    };
    let mut found = Vec::new();
    let mut cursor = None;
    loop {
        let (versions, next) = snapshot.export(&all, cursor.as_ref(), 8 << 20)?;
        found.extend(versions);
        match next {
            Some(next) => cursor = Some(next),
            None => return Ok(found),
        }
    }
}
