//! The first data: opens the accounts and closes the ring, once. Every client
//! tries, one of them does; the others read that it is done.

use super::{Call, Cx, End, Histories, Memory, Script, encode, mode, put};
use crate::sim::client::histories::BALANCE;
use synod_txn::Value;
use synod_txn::client::Transaction;

/// The transaction that loads, if nobody has.
#[derive(Default)]
pub(in crate::sim::client) struct Load {
    asked: bool,
    there: bool,
    written: bool,
}

impl Script for Load {
    fn read_only(&self) -> bool {
        false
    }

    fn restart(&mut self) {
        *self = Load::default();
    }

    fn next(&mut self, machine: &mut Transaction, cx: &mut Cx<'_>) -> Call {
        let keys = &cx.workload.keys;
        if !self.asked {
            self.asked = true;
            return Call::Get(vec![keys.loaded.clone()], mode(cx.random));
        }
        if !self.there && !self.written {
            self.written = true;
            put(machine, keys.loaded.clone(), encode(1));
            for account in &keys.accounts {
                put(machine, account.clone(), encode(BALANCE as u64));
            }
            for (index, link) in keys.links.iter().enumerate() {
                let next = (index + 1) % keys.links.len();
                put(machine, link.clone(), encode(next as u64));
            }
        }
        Call::Commit
    }

    fn values(&mut self, values: Vec<Option<Value>>, _cx: &mut Cx<'_>) {
        self.there = values.iter().all(Option::is_some);
    }

    fn end(self: Box<Self>, end: End, memory: &mut Memory, _histories: &mut Histories) {
        memory.loaded |= end.committed();
    }
}
