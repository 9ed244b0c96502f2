//! The ring (FoundationDB's *Cycle* workload): keys link to each other in one
//! ring; a transaction follows three links and swaps the two keys in the middle.

use super::{Call, Cx, End, Histories, Memory, Script, decode, encode, mode, put};
use crate::history::RingOp;
use synod_txn::Value;
use synod_txn::client::Transaction;
use synod_txn::request::LockMode;

struct Swap {
    mode: LockMode,
    /// The keys met so far.
    path: Vec<u64>,
    /// A link was missing or led nowhere; the checker is shown where.
    broken: bool,
    start: u64,
}

/// Reads all links.
#[derive(Default)]
pub(super) struct ReadAll {
    asked: bool,
    next: Vec<Option<u64>>,
}

pub(super) fn begin(cx: &mut Cx<'_>) -> Box<dyn Script> {
    if cx.random.chance(200) {
        return Box::new(ReadAll::default());
    }
    let start = cx.random.range(0, cx.workload.keys.links.len() as u64);
    Box::new(Swap {
        mode: mode(cx.random),
        path: vec![start],
        broken: false,
        start,
    })
}

impl Script for Swap {
    fn read_only(&self) -> bool {
        false
    }

    fn restart(&mut self) {
        self.path.clear();
        self.path.push(self.start);
        self.broken = false;
    }

    fn next(&mut self, machine: &mut Transaction, cx: &mut Cx<'_>) -> Call {
        let links = &cx.workload.keys.links;
        let link = |key: u64| links.get(key as usize).cloned();
        if self.path.len() < 4 && !self.broken {
            let last = self.path.last().copied().and_then(link);
            if let Some(key) = last {
                return Call::Get(vec![key], self.mode);
            }
            self.broken = true;
        }
        if let [a, b, c, d] = self.path[..]
            && !self.broken
        {
            for (from, to) in [(a, c), (c, b), (b, d)] {
                if let Some(key) = link(from) {
                    put(machine, key, encode(to));
                }
            }
            return Call::Commit;
        }
        Call::Rollback
    }

    fn values(&mut self, values: Vec<Option<Value>>, _cx: &mut Cx<'_>) {
        match values
            .into_iter()
            .next()
            .flatten()
            .as_ref()
            .and_then(decode)
        {
            Some(next) => self.path.push(next),
            None => self.broken = true,
        }
    }

    fn end(self: Box<Self>, end: End, _memory: &mut Memory, histories: &mut Histories) {
        if self.broken {
            histories.broken_links += 1;
        }
        if let [a, b, c, d] = self.path[..] {
            histories
                .ring
                .push(end.of(vec![RingOp::Swap { path: [a, b, c, d] }]));
        }
    }
}

impl Script for ReadAll {
    fn read_only(&self) -> bool {
        true
    }

    fn restart(&mut self) {
        *self = ReadAll::default();
    }

    fn next(&mut self, _machine: &mut Transaction, cx: &mut Cx<'_>) -> Call {
        if self.asked {
            return Call::Commit;
        }
        self.asked = true;
        Call::Get(cx.workload.keys.links.clone(), LockMode::Shared)
    }

    fn values(&mut self, values: Vec<Option<Value>>, _cx: &mut Cx<'_>) {
        // A value that is no number is shown as a link to nowhere.
        let links = values.iter();
        let links = links.map(|v| v.as_ref().map(|v| decode(v).unwrap_or(u64::MAX)));
        self.next = links.collect();
    }

    fn end(self: Box<Self>, end: End, _memory: &mut Memory, histories: &mut Histories) {
        if end.committed() {
            let next = self.next;
            histories.ring.push(end.of(vec![RingOp::ReadAll { next }]));
        }
    }
}
