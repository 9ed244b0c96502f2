//! What a client reads when the faults are over: everything its histories can be
//! compared with, one transaction after the other.

use super::{Call, Cx, End, Histories, Memory, Script, bank, list, number, register, ring, unique};
use crate::sim::client::config::Workload;
use crate::sim::client::histories::{Everything, Own};
use crate::sim::client::keys::Keyspace;
use synod_txn::client::{Page, Transaction};
use synod_txn::request::LockMode;
use synod_txn::{Key, Span, Value};

/// Rows of one page.
const ROWS: u32 = 4_000;

/// The final reads, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::sim::client) enum Last {
    /// The client's own markers.
    Own,
    /// All lists of the newest generations.
    Lists,
    /// All registers.
    Registers,
    /// All balances.
    Bank,
    /// All links.
    Ring,
    /// All counters, accounts and markers, as of one moment.
    Everything,
}

impl Last {
    /// What comes after; none at the end. Some clients are thorough, and only one
    /// reads everything.
    pub(in crate::sim::client) const fn next(self, thorough: bool, reader: bool) -> Option<Last> {
        match self {
            Last::Own if !thorough && !reader => None,
            Last::Own => Some(Last::Lists),
            Last::Lists => Some(Last::Registers),
            Last::Registers => Some(Last::Bank),
            Last::Bank => Some(Last::Ring),
            Last::Ring if reader => Some(Last::Everything),
            Last::Ring | Last::Everything => None,
        }
    }

    /// Its script; none where there is nothing to read.
    pub(in crate::sim::client) fn script(self, cx: &mut Cx<'_>) -> Option<Box<dyn Script>> {
        let loaded = cx.memory.loaded;
        match self {
            Last::Own => Some(Box::new(Markers::own(cx.workload, cx.memory.client))),
            Last::Lists => Some(list::all(cx)),
            Last::Registers => Some(register::all(cx)),
            Last::Bank => loaded.then(|| Box::<bank::ReadAll>::default() as Box<dyn Script>),
            Last::Ring => loaded.then(|| Box::<ring::ReadAll>::default() as Box<dyn Script>),
            Last::Everything => Some(Box::new(Markers::everything(cx.workload))),
        }
    }
}

/// Scans of markers, after a read of what they count.
struct Markers {
    everything: bool,
    keys: Vec<Key>,
    /// Where the accounts begin in `keys`.
    accounts: usize,
    /// Spans of increments' markers, then as many of transfers'.
    spans: Vec<Span>,
    asked: usize,
    values: Vec<u64>,
    /// Id and value of what was found.
    increments: Vec<(u64, u64)>,
    transfers: Vec<(u64, u64)>,
}

impl Markers {
    fn new(workload: &Workload, client: Option<u32>) -> Markers {
        let mut spans = workload.keys.markers(b'm', client);
        spans.extend(workload.keys.markers(b'n', client));
        Markers {
            everything: false,
            keys: Vec::new(),
            accounts: 0,
            spans,
            asked: 0,
            values: Vec::new(),
            increments: Vec::new(),
            transfers: Vec::new(),
        }
    }

    fn own(workload: &Workload, client: u32) -> Markers {
        Markers::new(workload, Some(client))
    }

    fn everything(workload: &Workload) -> Markers {
        let mut markers = Markers::new(workload, None);
        markers.everything = true;
        markers.accounts = workload.keys.counters.len();
        markers.keys.clone_from(&workload.keys.counters);
        markers.keys.extend_from_slice(&workload.keys.accounts);
        markers
    }
}

impl Script for Markers {
    fn read_only(&self) -> bool {
        true
    }

    fn restart(&mut self) {
        self.asked = 0;
        self.values.clear();
        self.increments.clear();
        self.transfers.clear();
    }

    fn next(&mut self, _machine: &mut Transaction, _cx: &mut Cx<'_>) -> Call {
        if self.values.len() < self.keys.len() {
            return Call::Get(self.keys.clone(), LockMode::Shared);
        }
        let Some(span) = self.spans.get(self.asked) else {
            return Call::Commit;
        };
        self.asked += 1;
        Call::Scan {
            span: span.clone(),
            reverse: false,
            limit: ROWS,
        }
    }

    fn values(&mut self, values: Vec<Option<Value>>, _cx: &mut Cx<'_>) {
        self.values = values.iter().map(|v| number(v.as_ref())).collect();
    }

    fn page(&mut self, page: Page, _cx: &mut Cx<'_>) {
        let found = if self.asked * 2 <= self.spans.len() {
            &mut self.increments
        } else {
            &mut self.transfers
        };
        for (key, value) in &page.rows {
            // A key that is no marker's cannot lie here; 0 is nobody's id.
            let id = Keyspace::marker_of(key).map_or(0, |(client, count)| unique(client, count));
            found.push((id, number(Some(value))));
        }
    }

    fn end(self: Box<Self>, end: End, memory: &mut Memory, histories: &mut Histories) {
        if !end.committed() {
            return;
        }
        let ids = |found: &[(u64, u64)]| found.iter().map(|(id, _)| *id).collect();
        if self.everything {
            let (counters, balances) = self.values.split_at(self.accounts);
            histories.everything.push(Everything {
                invoked: end.invoked,
                loaded: memory.loaded,
                counters: counters.to_vec(),
                balances: balances.iter().map(|b| *b as i64).collect(),
                transfers: ids(&self.transfers),
                increments: self.increments,
            });
        } else {
            histories.own.push(Own {
                client: memory.client,
                invoked: end.invoked,
                increments: ids(&self.increments),
                transfers: ids(&self.transfers),
            });
        }
    }
}
