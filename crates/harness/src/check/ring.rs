//! The key ring (FoundationDB's *Cycle* workload): each key's value names the
//! next key, all keys form one ring, and swapping two neighbours keeps it one.
//! Whoever sees half a swap, or two at once, sees no ring.

use super::{Anomaly, Findings};
use crate::history::{History, Nanos, Outcome, RingOp, Transaction};
use std::collections::BTreeSet;

/// Checks that every committed read of all links saw one ring of `keys` keys, that
/// every committed swap followed a path of it, and, if every swap that may have
/// taken effect has a timestamp, that in their order each met the path it
/// followed. The ring begins as `0 → 1 → … → 0`; it has three keys at least.
#[must_use]
pub fn check(history: &History<RingOp>, keys: u64) -> Findings {
    let history = &history.transactions;
    let mut findings = Findings {
        checked: history.len(),
        ..Findings::default()
    };
    for (index, transaction) in history.iter().enumerate() {
        if !matches!(transaction.outcome, Outcome::Committed(_)) {
            continue;
        }
        for op in &transaction.ops {
            let broken = match op {
                RingOp::Swap { path } => broken_path(path, keys),
                RingOp::ReadAll { next } => broken_ring(next, keys),
            };
            if let Some(why) = broken {
                findings.add(Anomaly::Ring, || {
                    format!("T{index} of client {}: {why}", transaction.process)
                });
            }
        }
    }
    if findings.is_clean() {
        replay(history, keys, &mut findings);
    }
    findings
}

fn broken_path(path: &[u64; 4], keys: u64) -> Option<String> {
    let different: BTreeSet<u64> = path.iter().copied().collect();
    let expected = keys.min(4);
    let outside = path.iter().find(|key| **key >= keys);
    if let Some(key) = outside {
        return Some(format!("the links {path:?} lead to {key}, which is no key"));
    }
    let is_ring = different.len() as u64 == expected;
    (!is_ring).then(|| format!("the links {path:?} close a ring of less than {keys} keys"))
}

/// Why these links are no ring of so many keys.
fn broken_ring(next: &[Option<u64>], keys: u64) -> Option<String> {
    if next.len() as u64 != keys {
        return Some(format!("read {} keys of {keys}", next.len()));
    }
    let mut at = 0u64;
    for step in 1..=keys {
        let link = usize::try_from(at).ok().and_then(|i| next.get(i).copied());
        at = match link {
            Some(Some(to)) if to < keys => to,
            Some(Some(to)) => return Some(format!("key {at} leads to {to}, which is no key")),
            _ => return Some(format!("key {at} leads nowhere")),
        };
        if at == 0 {
            return (step < keys).then(|| {
                format!("the links from key 0 return to it after {step} steps, not {keys}")
            });
        }
    }
    Some(format!(
        "the links from key 0 do not return to it in {keys} steps"
    ))
}

/// Repeats all swaps in the order of their timestamps.
fn replay(history: &[Transaction<RingOp>], keys: u64, findings: &mut Findings) {
    let mut swaps: Vec<(Nanos, usize, &[u64; 4])> = Vec::new();
    for (index, transaction) in history.iter().enumerate() {
        for op in &transaction.ops {
            match (op, transaction.outcome) {
                (RingOp::Swap { path }, Outcome::Committed(Some(at))) => {
                    swaps.push((at, index, path));
                }
                (RingOp::ReadAll { .. }, _) | (_, Outcome::Aborted) => {}
                // Where it belongs is not known.
                _ => return,
            }
        }
    }
    swaps.sort_unstable();
    let mut next: Vec<u64> = (0..keys).map(|key| (key + 1) % keys).collect();
    for (at, index, path) in swaps {
        // Checked before: all keys of a path are below `keys`.
        let [a, b, c, d] = path.map(|key| usize::try_from(key).unwrap_or(usize::MAX));
        let follow = |from: usize| next.get(from).map(|to| *to as usize);
        if (follow(a), follow(b), follow(c)) != (Some(b), Some(c), Some(d)) {
            findings.add(Anomaly::TimestampOrder, || {
                format!(
                    "T{index} of client {} swapped along {path:?} at {at}, but lower timestamps \
                     leave other links",
                    history[index].process
                )
            });
            return;
        }
        next[a] = path[2];
        next[c] = path[1];
        next[b] = path[3];
    }
}
