//! Where a range is cut so that both parts weigh about the same.

use serde::{Deserialize, Serialize};

/// Of a shard that is split the lighter part has at least one of so many parts. What cannot
/// be cut like that hangs on one key, and stays whole.
const LIGHTEST: u64 = 8;

/// Where a shard is cut.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Cut {
    /// The new one begins with this key.
    At(Vec<u8>),
    /// Nearly everything is about one key.
    Nowhere,
}

/// Cuts weights by key, ascending, in two parts that differ as little as may be. Only a key
/// behind `start` can begin the second part.
pub fn halve<K: AsRef<[u8]>>(start: &[u8], weights: impl Iterator<Item = (K, u64)> + Clone) -> Cut {
    let total: u64 = weights.clone().map(|(_, weight)| weight).sum();
    let mut before = 0;
    let mut best: Option<(u64, K)> = None;
    for (key, weight) in weights {
        let lighter = before.min(total - before);
        if key.as_ref() > start && best.as_ref().is_none_or(|(least, _)| lighter > *least) {
            best = Some((lighter, key));
        }
        before += weight;
    }
    match best {
        Some((lighter, key)) if lighter > 0 && lighter >= total / LIGHTEST => {
            Cut::At(key.as_ref().to_vec())
        }
        _ => Cut::Nowhere,
    }
}
