//! Exactly once: each increment of a counter leaves a marker that names the
//! counter; both or neither are there, and never twice.

use super::{Call, Cx, End, Histories, Memory, Script, encode, number, put, unique};
use crate::sim::client::histories::Increment;
use synod_txn::Value;
use synod_txn::client::Transaction;
use synod_txn::request::LockMode;

struct Count {
    counter: usize,
    /// The marker's count, this client's only.
    count: u64,
    /// Whether the marker is looked for first.
    look: bool,
    /// The counter's value, once read.
    value: Option<u64>,
    /// The marker was there before this attempt wrote it.
    twice: bool,
}

pub(super) fn begin(cx: &mut Cx<'_>) -> Box<dyn Script> {
    let counters = cx.workload.keys.counters.len() as u64;
    cx.memory.markers += 1;
    Box::new(Count {
        counter: cx.random.range(0, counters) as usize,
        count: cx.memory.markers,
        look: cx.random.chance(100),
        value: None,
        twice: false,
    })
}

impl Script for Count {
    fn read_only(&self) -> bool {
        false
    }

    fn restart(&mut self) {
        self.value = None;
    }

    fn next(&mut self, machine: &mut Transaction, cx: &mut Cx<'_>) -> Call {
        let keys = &cx.workload.keys;
        let marker = keys.marker(b'm', cx.memory.client, self.count);
        let counter = &keys.counters[self.counter];
        let Some(value) = self.value else {
            let mut asked = vec![counter.clone()];
            if self.look {
                asked.push(marker);
            }
            return Call::Get(asked, LockMode::Exclusive);
        };
        put(machine, counter.clone(), encode(value + 1));
        put(machine, marker, encode(self.counter as u64));
        Call::Commit
    }

    fn values(&mut self, values: Vec<Option<Value>>, _cx: &mut Cx<'_>) {
        let mut values = values.iter();
        self.value = Some(values.next().map_or(0, |v| number(v.as_ref())));
        self.twice |= values.any(Option::is_some);
    }

    fn end(self: Box<Self>, end: End, memory: &mut Memory, histories: &mut Histories) {
        histories.increments.push(Increment {
            id: unique(memory.client, self.count),
            counter: self.counter as u32,
            completed: end.completed,
            outcome: end.outcome,
            twice: self.twice,
        });
    }
}
