//! What one client of a workload does, on either system.

use crate::error::Error;
use crate::system::Db;
use rand::RngExt;
use rand::rngs::StdRng;
use std::cell::Cell;
use synod_harness::load::{Keys, Zipf};

/// The exponent of skewed choices; YCSB's.
const THETA: f64 = 0.99;
/// Random bytes that values are cut from: many times what a compressor looks back.
const POOL_BYTES: usize = 8 << 20;
/// Rows of one scan.
const SCAN_ROWS: u32 = 100;
/// The key of the hot counter.
const COUNTER: &str = "bench/counter";
/// Shards of Synod's cluster, unless a workload says otherwise.
pub const SHARDS: u64 = 3;

/// A workload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Workload {
    /// Write one key, uniform.
    Put,
    /// Read one key, uniform; linearizable.
    Get,
    /// Read two keys and write both, in one shard of Synod.
    TxnOneShard,
    /// The same in two shards.
    TxnTwoShards,
    /// etcd's cheapest of that kind: two compares and two puts in one round trip, nothing read.
    /// On Synod: two shards, two writes, nothing read.
    CompareAndPut,
    /// Read one key and write it, as a transaction.
    Update,
    /// The same, of skewed keys.
    UpdateSkewed,
    /// Half reads, half writes.
    YcsbA,
    /// Reads, one write in twenty.
    YcsbB,
    /// Only reads.
    YcsbC,
    /// Reads of what was inserted lately; one insert in twenty.
    YcsbD,
    /// Scans of up to 100 rows; one insert in twenty.
    YcsbE,
    /// Half reads, half read-modify-writes.
    YcsbF,
    /// Everybody adds one to the same key.
    Counter,
    /// Read 100 rows in a row.
    Scan,
}

impl Workload {
    /// Its name in results.
    pub const fn name(self) -> &'static str {
        match self {
            Workload::Put => "put",
            Workload::Get => "get",
            Workload::TxnOneShard => "txn2-1shard",
            Workload::TxnTwoShards => "txn2",
            Workload::CompareAndPut => "cas2",
            Workload::Update => "rmw",
            Workload::UpdateSkewed => "rmw-zipf",
            Workload::YcsbA => "ycsb-a",
            Workload::YcsbB => "ycsb-b",
            Workload::YcsbC => "ycsb-c",
            Workload::YcsbD => "ycsb-d",
            Workload::YcsbE => "ycsb-e",
            Workload::YcsbF => "ycsb-f",
            Workload::Counter => "counter",
            Workload::Scan => "scan",
        }
    }
}

/// Random values of one length, which no compression makes smaller.
#[derive(Clone, Debug)]
pub struct Values {
    pool: Vec<u8>,
    bytes: usize,
}

impl Values {
    /// Values of that many bytes.
    pub fn new(bytes: usize) -> Values {
        let mut random = <StdRng as rand::SeedableRng>::seed_from_u64(1);
        let mut pool = vec![0; POOL_BYTES.max(2 * bytes)];
        random.fill(&mut pool[..]);
        Values { pool, bytes }
    }

    /// One of them.
    pub fn pick(&self, random: &mut StdRng) -> &[u8] {
        let from = random.random_range(0..self.pool.len() - self.bytes);
        &self.pool[from..from + self.bytes]
    }
}

/// Everything that operations need.
pub struct Load {
    db: Db,
    keys: Keys,
    values: Values,
    zipf: Zipf,
    /// Keys that there are by now.
    inserted: Cell<u64>,
    /// Additions to the counter that were acknowledged.
    added: Cell<u64>,
}

impl Load {
    /// Operations on these keys, which are filled in.
    pub fn new(db: Db, keys: Keys, value_bytes: usize) -> Load {
        Load {
            db,
            zipf: Zipf::new(keys.count, THETA),
            inserted: Cell::new(keys.count),
            added: Cell::new(0),
            values: Values::new(value_bytes),
            keys,
        }
    }

    /// One operation; how many attempts it took.
    ///
    /// # Errors
    /// The client's.
    pub async fn once(&self, workload: Workload, random: &mut StdRng) -> Result<u32, Error> {
        match workload {
            Workload::Put => self.put(self.uniform(random), random).await,
            Workload::Get => self.get(self.uniform(random)).await,
            Workload::TxnOneShard => {
                let first = random.random_range(0..self.keys.count);
                self.update(&[first, self.neighbour(first)], random).await
            }
            Workload::TxnTwoShards => {
                let first = random.random_range(0..self.keys.count);
                self.update(&[first, self.far(first)], random).await
            }
            Workload::CompareAndPut => self.compare_and_put(random).await,
            Workload::Update => self.update(&[self.uniform(random)], random).await,
            Workload::UpdateSkewed => self.update(&[self.skewed(random)], random).await,
            Workload::YcsbA => self.reads_and(0.5, Workload::Put, random).await,
            Workload::YcsbB => self.reads_and(0.95, Workload::Put, random).await,
            Workload::YcsbC => self.get(self.skewed(random)).await,
            Workload::YcsbD if random.random_bool(0.05) => self.insert(random).await,
            Workload::YcsbD => {
                let newest = self.inserted.get() - 1;
                let back = self.zipf.rank(random).min(newest);
                self.get(newest - back).await
            }
            Workload::YcsbE if random.random_bool(0.05) => self.insert(random).await,
            Workload::YcsbE => {
                let rows = random.random_range(1..=SCAN_ROWS);
                self.scan(self.skewed(random), rows).await
            }
            Workload::YcsbF => self.reads_and(0.5, Workload::Update, random).await,
            Workload::Counter => self.add_one().await,
            Workload::Scan => {
                let last = self.keys.count.saturating_sub(SCAN_ROWS.into());
                self.scan(random.random_range(0..=last), SCAN_ROWS).await
            }
        }
    }

    fn uniform(&self, random: &mut StdRng) -> u64 {
        random.random_range(0..self.keys.count)
    }

    fn skewed(&self, random: &mut StdRng) -> u64 {
        self.zipf.scattered(random)
    }

    /// Another key of the same shard.
    fn neighbour(&self, key: u64) -> u64 {
        let shard_of = |key: u64| key * SHARDS / self.keys.count;
        let next = key + 1;
        let same = next < self.keys.count && shard_of(next) == shard_of(key);
        if same { next } else { key - 1 }
    }

    /// A key half of all keys away: another shard, of three.
    fn far(&self, key: u64) -> u64 {
        (key + self.keys.count / 2) % self.keys.count
    }

    async fn put(&self, key: u64, random: &mut StdRng) -> Result<u32, Error> {
        let key = self.keys.key(key);
        self.db.put(&key, self.values.pick(random)).await
    }

    async fn get(&self, key: u64) -> Result<u32, Error> {
        let found = self.db.get(&self.keys.key(key)).await?;
        // Those that are being inserted may not be there yet.
        if found.is_none() && key < self.keys.count {
            let key = self.keys.key(key);
            return Err(Error::Wrong(format!("{key} was filled in, and is missing")));
        }
        Ok(1)
    }

    async fn insert(&self, random: &mut StdRng) -> Result<u32, Error> {
        let key = self.inserted.get();
        self.inserted.set(key + 1);
        self.put(key, random).await
    }

    async fn update(&self, keys: &[u64], random: &mut StdRng) -> Result<u32, Error> {
        let keys: Vec<String> = keys.iter().map(|key| self.keys.key(*key)).collect();
        let values: Vec<&[u8]> = keys.iter().map(|_| self.values.pick(random)).collect();
        let change = |_: &[Option<&[u8]>]| values.iter().map(|v| v.to_vec()).collect();
        self.db.update(&keys, &change).await
    }

    async fn compare_and_put(&self, random: &mut StdRng) -> Result<u32, Error> {
        let first = random.random_range(0..self.keys.count);
        let mut row = |key| (self.keys.key(key), self.values.pick(random).to_vec());
        let rows = [row(first), row(self.far(first))];
        match &self.db {
            Db::Synod(_) => self.db.put_all(&rows).await,
            Db::Etcd(session) => session.put_if_all_exist(&rows).await,
        }
    }

    /// Reads with that probability, else writes; of skewed keys.
    async fn reads_and(
        &self,
        reads: f64,
        write: Workload,
        random: &mut StdRng,
    ) -> Result<u32, Error> {
        let key = self.skewed(random);
        if random.random_bool(reads) {
            self.get(key).await
        } else if write == Workload::Put {
            self.put(key, random).await
        } else {
            self.update(&[key], random).await
        }
    }

    async fn scan(&self, from: u64, rows: u32) -> Result<u32, Error> {
        let (from, end) = (self.keys.key(from), "bench/~");
        let found = self.db.scan(&from, end, rows).await?;
        if found == 0 || found > rows as usize {
            let reason = format!("a scan of {rows} rows from {from} found {found}");
            return Err(Error::Wrong(reason));
        }
        Ok(1)
    }

    async fn add_one(&self) -> Result<u32, Error> {
        let change = |held: &[Option<&[u8]>]| vec![(count(held[0]) + 1).to_string().into_bytes()];
        let attempts = self.db.update(&[COUNTER.to_owned()], &change).await?;
        self.added.set(self.added.get() + 1);
        Ok(attempts)
    }

    /// Whether the counter holds what was added to it.
    ///
    /// # Errors
    /// `Wrong` if not; or the client's.
    pub async fn verify(&self) -> Result<(), Error> {
        let held = self.db.get(COUNTER).await?;
        let (held, added) = (count(held.as_deref()), self.added.get());
        if held == added {
            return Ok(());
        }
        Err(Error::Wrong(format!(
            "{added} additions were acknowledged, and the counter holds {held}"
        )))
    }
}

/// A counter, as text. What is no number is one that nobody wrote.
fn count(held: Option<&[u8]>) -> u64 {
    let text = std::str::from_utf8(held.unwrap_or(b"0"));
    text.ok().and_then(|t| t.parse().ok()).unwrap_or(u64::MAX)
}
