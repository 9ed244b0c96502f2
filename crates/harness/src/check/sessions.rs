//! Sessions: what one client sees of a key never goes back, and it sees its own
//! writes (monotonic reads and read-your-writes of Terry et al., 1994).
//!
//! A session is the sequence of one client's committed transactions, each begun
//! when the one before had ended. These promises follow from strict
//! serializability; alone they name the client that was served badly, and they
//! hold where clocks are too coarse to order its transactions.

use super::list_append::views;
use super::registers::{reads, writes};
use super::words::{self, list_words};
use super::{Anomaly, Findings};
use crate::history::{History, ListOp, Outcome, RwOp, Seen, Transaction};
use std::collections::{BTreeMap, HashMap, HashSet};

/// The committed transactions of each client, in order; one that began before
/// the last had ended belongs to no session.
fn sessions<Op>(history: &[Transaction<Op>]) -> BTreeMap<u32, Vec<usize>> {
    let mut clients: BTreeMap<u32, Vec<usize>> = BTreeMap::new();
    let mut order: Vec<usize> = (0..history.len()).collect();
    order.sort_by_key(|index| (history[*index].invoked, history[*index].completed));
    for index in order {
        let transaction = &history[index];
        if !matches!(transaction.outcome, Outcome::Committed(_)) {
            continue;
        }
        let session = clients.entry(transaction.process).or_default();
        let last = session.last().map(|last| history[*last].completed);
        if last.is_none_or(|completed| completed <= transaction.invoked) {
            session.push(index);
        }
    }
    clients
}

/// What a client knows of one list.
#[derive(Default)]
struct KnownList<'a> {
    /// The last list it read.
    list: &'a [u64],
    /// In which transaction.
    read_by: usize,
    /// What it appended since: element, transaction.
    own: Vec<(u64, usize)>,
}

/// Checks sessions on append-only lists: each read extends the client's last
/// one of the key and holds all that it appended.
#[must_use]
pub fn check_lists(history: &History<ListOp>) -> Findings {
    let history = &history.transactions;
    let mut findings = Findings {
        checked: history.len(),
        ..Findings::default()
    };
    for session in sessions(history).into_values() {
        let mut keys: HashMap<u64, KnownList<'_>> = HashMap::new();
        for index in session {
            let transaction = &history[index];
            for view in views(transaction).into_iter().filter(|v| v.outside) {
                let known = keys.entry(view.key).or_default();
                check_list(history, index, view.key, view.list, known, &mut findings);
                known.list = view.list;
                known.read_by = index;
                known.own.clear();
            }
            for op in &transaction.ops {
                if let ListOp::Append { key, value } = op {
                    keys.entry(*key).or_default().own.push((*value, index));
                }
            }
        }
    }
    findings
}

fn check_list(
    history: &[Transaction<ListOp>],
    index: usize,
    key: u64,
    list: &[u64],
    known: &KnownList<'_>,
    findings: &mut Findings,
) {
    if !list.starts_with(known.list) {
        findings.add(Anomaly::Stale, || {
            format!(
                "{} read key {key} = {}, though the same client had read {} in T{}",
                words::transaction(history, index),
                list_words(list),
                list_words(known.list),
                known.read_by
            )
        });
        return;
    }
    if known.own.is_empty() {
        return;
    }
    let news: HashSet<u64> = list[known.list.len()..].iter().copied().collect();
    if let Some((value, writer)) = known.own.iter().find(|(value, _)| !news.contains(value)) {
        findings.add(Anomaly::Stale, || {
            format!(
                "{} does not see {value} in key {key}, which the same client had appended in \
                 T{writer}",
                words::transaction(history, index)
            )
        });
    }
}

/// Checks sessions on registers, as far as timestamps order the versions: each
/// read sees a version at least as new as the client's last read or write of it.
#[must_use]
pub fn check_registers(history: &History<RwOp>) -> Findings {
    let history = &history.transactions;
    let mut findings = Findings {
        checked: history.len(),
        ..Findings::default()
    };
    let mut versions: HashMap<(u64, u64), u64> = HashMap::new();
    for transaction in history {
        if let Outcome::Committed(Some(at)) = transaction.outcome {
            let written = writes(transaction).into_iter();
            versions.extend(written.map(|entry| (entry, at)));
        }
    }
    for session in sessions(history).into_values() {
        // Per key, the newest version that the client met, and where.
        let mut keys: HashMap<u64, (u64, usize)> = HashMap::new();
        for index in session {
            let transaction = &history[index];
            for (key, seen) in reads(transaction).0 {
                let at = match seen {
                    Seen::Value(value) => versions.get(&(key, value)).copied(),
                    // Older than all versions.
                    _ => Some(0),
                };
                let Some(at) = at else {
                    continue;
                };
                if let Some((newest, met)) = keys.get(&key).filter(|(newest, _)| at < *newest) {
                    findings.add(Anomaly::Stale, || {
                        format!(
                            "{} read key {key} in its version at {at}, though the same client had \
                             met the one at {newest} in T{met}",
                            words::transaction(history, index)
                        )
                    });
                }
                raise(&mut keys, key, at, index);
            }
            if let Outcome::Committed(Some(at)) = transaction.outcome {
                for key in writes(transaction).into_keys() {
                    raise(&mut keys, key, at, index);
                }
            }
        }
    }
    findings
}

fn raise(keys: &mut HashMap<u64, (u64, usize)>, key: u64, at: u64, index: usize) {
    let known = keys.entry(key).or_insert((at, index));
    if at > known.0 {
        *known = (at, index);
    }
}
