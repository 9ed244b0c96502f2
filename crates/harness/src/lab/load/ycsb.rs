//! Mixes of operations on single records, as YCSB has them.

use crate::load::{Keys, Zipf};
use rand::RngExt;
use rand::rngs::StdRng;
use std::sync::atomic::{AtomicU64, Ordering};
use synod_client::{Client, Error, Range};

/// How often the frequent records come; YCSB's.
const THETA: f64 = 0.99;
/// Records written in one transaction while they are filled in.
const FILL_BATCH: u64 = 200;

/// Records, and what is done to them.
#[derive(Clone, Debug, PartialEq)]
pub struct Ycsb {
    /// Shares of operations.
    pub mix: YcsbMix,
    /// Records at the beginning.
    pub records: u64,
    /// Bytes of a value.
    pub value_bytes: usize,
    /// Rows of a scan, at most; each has a number drawn by chance.
    pub scan_rows: u64,
}

/// Shares of operations, 0 to 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct YcsbMix {
    /// Reads of one record.
    pub read: f64,
    /// Blind writes of one record.
    pub update: f64,
    /// Writes of a record that was not there.
    pub insert: f64,
    /// Reads of several records in a row.
    pub scan: f64,
    /// Transactions that read a record and write it.
    pub rmw: f64,
    /// Reads prefer the records inserted last.
    pub latest: bool,
}

impl YcsbMix {
    /// The mix that YCSB calls by this letter, A to F.
    #[must_use]
    pub fn letter(letter: &str) -> Option<YcsbMix> {
        let of = |read, update, insert, scan, rmw| YcsbMix {
            read,
            update,
            insert,
            scan,
            rmw,
            latest: letter.eq_ignore_ascii_case("d"),
        };
        match letter.to_ascii_uppercase().as_str() {
            "A" => Some(of(0.5, 0.5, 0.0, 0.0, 0.0)),
            "B" => Some(of(0.95, 0.05, 0.0, 0.0, 0.0)),
            "C" => Some(of(1.0, 0.0, 0.0, 0.0, 0.0)),
            "D" => Some(of(0.95, 0.0, 0.05, 0.0, 0.0)),
            "E" => Some(of(0.0, 0.0, 0.05, 0.95, 0.0)),
            "F" => Some(of(0.5, 0.0, 0.0, 0.0, 0.5)),
            _ => None,
        }
    }
}

impl Ycsb {
    pub(super) fn words(&self) -> String {
        let mix = &self.mix;
        let shares = [
            (mix.read, "read"),
            (mix.update, "update"),
            (mix.insert, "insert"),
            (mix.scan, "scan"),
            (mix.rmw, "read-modify-write"),
        ];
        let shares = shares.iter().filter(|(share, _)| *share > 0.0);
        let shares: Vec<String> = shares
            .map(|(share, word)| format!("{:.0} % {word}", share * 100.0))
            .collect();
        format!("{} records, {}", self.records, shares.join(", "))
    }
}

/// The same at work.
pub(in crate::lab) struct YcsbLoad {
    ycsb: Ycsb,
    keys: Keys,
    zipf: Zipf,
    /// Records there are, or soon will be.
    count: AtomicU64,
}

impl YcsbLoad {
    pub(super) fn new(ycsb: Ycsb, keys: Keys) -> YcsbLoad {
        YcsbLoad {
            zipf: Zipf::new(ycsb.records, THETA),
            count: AtomicU64::new(ycsb.records),
            ycsb,
            keys,
        }
    }

    fn value(&self, random: &mut StdRng) -> Vec<u8> {
        let letter = b'a' + random.random_range(0..26_u8);
        vec![letter; self.ycsb.value_bytes]
    }

    pub(super) async fn fill(&self, client: &Client) -> Result<(), Error> {
        let value = vec![b'-'; self.ycsb.value_bytes];
        let mut from = 0;
        while from < self.ycsb.records {
            let to = (from + FILL_BATCH).min(self.ycsb.records);
            let batch = client.transact(async |txn| {
                for number in from..to {
                    txn.put(self.keys.key(number), &value).await?;
                }
                Ok(())
            });
            batch.await?;
            from = to;
        }
        Ok(())
    }

    /// A record that is there.
    fn record(&self, random: &mut StdRng) -> String {
        let number = if self.ycsb.mix.latest {
            let last = self.count.load(Ordering::Relaxed).saturating_sub(1);
            last.saturating_sub(self.zipf.rank(random))
        } else {
            self.zipf.scattered(random)
        };
        self.keys.key(number)
    }

    pub(super) async fn request(&self, client: &Client, random: &mut StdRng) -> Result<(), Error> {
        let mix = &self.ycsb.mix;
        let mut draw: f64 = random.random();
        let mut is = |share: f64| {
            let hit = draw < share;
            draw -= share;
            hit
        };
        if is(mix.update) {
            let (key, value) = (self.record(random), self.value(random));
            client.put(key, value).await.map(|_| ())
        } else if is(mix.insert) {
            let number = self.count.fetch_add(1, Ordering::Relaxed);
            let value = self.value(random);
            client.put(self.keys.key(number), value).await.map(|_| ())
        } else if is(mix.scan) {
            let rows = random.random_range(1..=self.ycsb.scan_rows);
            let range = Range::new(self.record(random), "").limit(rows);
            let mut rest = Some(range);
            while let Some(range) = rest {
                rest = client.scan_page(range).await?.rest;
            }
            Ok(())
        } else if is(mix.rmw) {
            let (key, value) = (self.record(random), self.value(random));
            let change = client.transact(async |txn| {
                txn.get_for_update(&key).await?;
                txn.put(&key, &value).await
            });
            change.await
        } else {
            client.get(self.record(random)).await.map(|_| ())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_are_whole_mixes() {
        for letter in ["A", "b", "C", "D", "E", "f"] {
            let mix = YcsbMix::letter(letter).expect("a letter of YCSB's");
            let sum = mix.read + mix.update + mix.insert + mix.scan + mix.rmw;
            assert!((sum - 1.0).abs() < 1e-9, "{letter}");
            assert_eq!(mix.latest, letter == "D");
        }
        assert_eq!(YcsbMix::letter("G"), None);
    }
}
