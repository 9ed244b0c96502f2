//! How much shards are asked, and where, from a sample of their requests.
//!
//! Of [`ONE_IN`] requests one is looked at, at distances that vary so that no pattern of
//! requests falls in step with them. Counts of some seconds make a window, some windows the load.
//! Of each window a bounded number of keys is kept, each request's with the same chance
//! (reservoir sampling, Vitter 1985). Everything follows from the requests, the times, and a fixed
//! first number.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};
use synod_paxos::GroupId;
use synod_placement::{Cut, halve};
use synod_txn::{Key, Request};

/// One request of so many is looked at, on average.
const ONE_IN: u64 = 8;
/// How long is counted for one figure.
const WINDOW: Duration = Duration::from_secs(5);
/// The load is the mean of so many.
const WINDOWS: usize = 4;
/// Keys kept of each shard, at most.
const KEYS: usize = 128;
/// Fewer say nothing about where the middle is.
const FEW_KEYS: usize = 16;
/// Bytes of keys kept of all shards in one window, at most; of further ones requests are only
/// counted.
const KEY_BYTES: usize = 4 << 20;

/// What is known of one shard.
#[derive(Debug, Default)]
struct Tally {
    /// Of its descriptor: with another range everything begins anew.
    generation: u64,
    /// Requests looked at in this window.
    count: u64,
    /// Those of them that had a key.
    keyed: u64,
    keys: Vec<Key>,
    /// Requests each second, in the last windows.
    rates: VecDeque<u64>,
    /// Keys of the last window.
    last: Vec<Key>,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Load {
    /// Requests until the next one is looked at.
    left: u64,
    random: u64,
    began: Instant,
    shards: BTreeMap<GroupId, Tally>,
    key_bytes: usize,
}

impl Load {
    pub(super) fn new(now: Instant) -> Load {
        Load {
            left: ONE_IN,
            random: 0x9e37_79b9_7f4a_7c15,
            began: now,
            shards: BTreeMap::new(),
            key_bytes: 0,
        }
    }

    /// The next number of a sequence (xorshift) below `bound`, which is not 0.
    fn draw(&mut self, bound: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random % bound
    }

    /// Counts a request; whether it is one to be looked at.
    pub(super) fn is_due(&mut self) -> bool {
        self.left -= 1;
        if self.left > 0 {
            return false;
        }
        self.left = 1 + self.draw(2 * ONE_IN - 1);
        true
    }

    /// Looks at a request to a shard whose descriptor has this generation.
    pub(super) fn take(&mut self, shard: GroupId, generation: u64, request: &Request) {
        let pick = self.draw(u64::MAX);
        let place = self.draw(u64::MAX);
        let tally = self.shards.entry(shard).or_default();
        if tally.generation != generation {
            *tally = Tally {
                generation,
                ..Tally::default()
            };
        }
        tally.count += 1;
        let Some(key) = one_key(request, pick) else {
            return;
        };
        tally.keyed += 1;
        let room = self.key_bytes + key.len() <= KEY_BYTES;
        if tally.keys.len() < KEYS {
            if room {
                self.key_bytes += key.len();
                tally.keys.push(Key::copy_from_slice(key));
            }
        } else if let Some(kept) = usize::try_from(place % tally.keyed)
            .ok()
            .and_then(|place| tally.keys.get_mut(place))
            .filter(|_| room)
        {
            self.key_bytes = self.key_bytes - kept.len() + key.len();
            *kept = Key::copy_from_slice(key);
        }
    }

    /// Begins another window if it is time to.
    pub(super) fn look(&mut self, now: Instant) {
        let elapsed = now.duration_since(self.began);
        if elapsed < WINDOW {
            return;
        }
        self.began = now;
        self.key_bytes = 0;
        let millis = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX);
        self.shards.retain(|_, tally| {
            let rate = tally.count.saturating_mul(ONE_IN * 1_000) / millis.max(1);
            tally.rates.push_back(rate);
            if tally.rates.len() > WINDOWS {
                tally.rates.pop_front();
            }
            tally.last = std::mem::take(&mut tally.keys);
            (tally.count, tally.keyed) = (0, 0);
            tally.rates.iter().any(|rate| *rate > 0)
        });
    }

    /// Requests each second to a shard.
    pub(super) fn rate(&self, shard: GroupId) -> u64 {
        let tally = self.shards.get(&shard);
        tally.map_or(0, |tally| {
            tally.rates.iter().sum::<u64>() / (tally.rates.len() as u64).max(1)
        })
    }

    /// Where the requests to a shard, of this generation and with this first key, are halved:
    /// if for all windows there were more than `limit`, about; 0 is never.
    pub(super) fn cut(
        &self,
        shard: GroupId,
        generation: u64,
        start: &[u8],
        limit: u64,
    ) -> Option<Cut> {
        let tally = self.shards.get(&shard);
        let tally = tally.filter(|tally| tally.generation == generation)?;
        let lasts = tally.rates.len() == WINDOWS && tally.rates.iter().all(|r| *r > limit / 2);
        if limit == 0 || !lasts || self.rate(shard) <= limit || tally.last.len() < FEW_KEYS {
            return None;
        }
        let mut weights: BTreeMap<&Key, u64> = BTreeMap::new();
        for key in &tally.last {
            *weights.entry(key).or_default() += 1;
        }
        Some(halve(start, weights.iter().map(|(key, n)| (*key, *n))))
    }
}

/// One of the keys that a request is about, if it names any.
fn one_key(request: &Request, pick: u64) -> Option<&Key> {
    let at = |count: usize| usize::try_from(pick % (count as u64).max(1)).unwrap_or(0);
    match request {
        Request::Latest { keys, scan } | Request::LockedRead { keys, scan, .. } => {
            let scanned = scan.as_ref().map(|scan| &scan.span.start);
            keys.get(at(keys.len())).or(scanned)
        }
        Request::Commit(commit) => {
            let written = commit.writes.get(at(commit.writes.len()));
            let here = commit.participants.get(commit.here as usize);
            written.map(|write| &write.key).or(here.map(|p| &p.anchor))
        }
        Request::Status { anchor, .. } => Some(anchor),
        Request::Validate { .. } | Request::Release { .. } | Request::Locate => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHARD: GroupId = GroupId(2);

    fn get(key: String) -> Request {
        Request::Latest {
            keys: vec![key.into()],
            scan: None,
        }
    }

    /// So many requests each second, for so many seconds.
    fn ask(
        load: &mut Load,
        now: &mut Instant,
        (seconds, rate): (u64, u64),
        key: impl Fn(u64) -> String,
    ) {
        for second in 0..seconds {
            for n in 0..rate {
                if load.is_due() {
                    load.take(SHARD, 1, &get(key(second * rate + n)));
                }
            }
            *now += Duration::from_secs(1);
            load.look(*now);
        }
    }

    #[test]
    fn the_load_is_what_was_asked_and_lasts() {
        let mut now = Instant::now();
        let mut load = Load::new(now);
        // Evenly over a hundred keys, in an order that repeats.
        let key = |n: u64| format!("{:02}", n % 100);
        ask(&mut load, &mut now, (15, 1_000), key);
        let rate = load.rate(SHARD);
        assert!((900..1_100).contains(&rate), "{rate}");
        assert_eq!(load.cut(SHARD, 1, b"", 500), None, "it has not lasted");
        ask(&mut load, &mut now, (5, 1_000), key);
        let Some(Cut::At(at)) = load.cut(SHARD, 1, b"", 500) else {
            panic!("it can be cut");
        };
        let at: u64 = String::from_utf8(at).unwrap().parse().unwrap();
        assert!((35..65).contains(&at), "{at}");
        assert_eq!(load.cut(SHARD, 1, b"", 1_200), None);
        assert_eq!(load.cut(SHARD, 1, b"", 0), None);
        assert_eq!(load.cut(SHARD, 2, b"", 500), None, "the range is another");
        // A quiet window is no reason any more, and quiet shards are forgotten.
        ask(&mut load, &mut now, (5, 10), key);
        assert_eq!(load.cut(SHARD, 1, b"", 500), None);
        ask(&mut load, &mut now, (25, 0), key);
        assert_eq!((load.rate(SHARD), load.shards.len()), (0, 0));
        // With another range it begins anew.
        ask(&mut load, &mut now, (20, 1_000), key);
        load.take(SHARD, 2, &get("a".to_owned()));
        assert_eq!(load.rate(SHARD), 0);
    }

    #[test]
    fn a_single_hot_key_is_no_place_to_cut() {
        let mut now = Instant::now();
        let mut load = Load::new(now);
        let hot = |n: u64| {
            if n.is_multiple_of(40) {
                format!("{n}")
            } else {
                "hot".to_owned()
            }
        };
        ask(&mut load, &mut now, (20, 2_000), hot);
        assert_eq!(load.cut(SHARD, 1, b"", 500), Some(Cut::Nowhere));
        // Scans of all of it begin at its first key.
        let mut load = Load::new(now);
        ask(&mut load, &mut now, (20, 2_000), |_| "a".to_owned());
        assert_eq!(load.cut(SHARD, 1, b"a", 500), Some(Cut::Nowhere));
    }

    #[test]
    fn memory_is_bounded() {
        let now = Instant::now();
        let mut load = Load::new(now);
        let long = "k".repeat(8_000);
        for n in 0..20_000_u64 {
            let request = get(format!("{long}{n}"));
            load.take(GroupId(n % 200), 1, &request);
        }
        let kept: usize = load
            .shards
            .values()
            .flat_map(|t| &t.keys)
            .map(Key::len)
            .sum();
        assert_eq!(kept, load.key_bytes);
        assert!(kept <= KEY_BYTES && kept > KEY_BYTES / 2, "{kept}");
        for n in 0..100_000_u64 {
            load.take(SHARD, 1, &get(format!("{n:07}")));
        }
        assert!(load.shards[&SHARD].keys.len() <= KEYS);
        load.look(now + WINDOW);
        assert_eq!(load.key_bytes, 0);
    }

    #[test]
    fn every_kind_of_request_is_about_one_of_its_keys() {
        let keys = ["a", "b"].map(|k| Key::from_static(k.as_bytes()));
        let request = Request::Latest {
            keys: keys.to_vec(),
            scan: None,
        };
        assert_eq!(one_key(&request, 6), Some(&keys[0]));
        assert_eq!(one_key(&request, 7), Some(&keys[1]));
        assert_eq!(one_key(&Request::Locate, 7), None);
    }
}
