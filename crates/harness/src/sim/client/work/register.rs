//! Registers: unique values, written blindly or after a read.

use super::{Call, Cx, End, Histories, Latest, Memory, Script, decode, encode, mode, put};
use crate::history::{Outcome, RwOp, Seen};
use synod_txn::Value;
use synod_txn::client::Transaction;
use synod_txn::request::LockMode;

/// The register everybody wants.
const HOT: usize = 0;

struct Registers {
    reads: Vec<usize>,
    /// Registers to write, and with what.
    writes: Vec<(usize, u64)>,
    /// One written register is read again before the commit.
    read_back: bool,
    one_by_one: bool,
    latest: bool,
    roll_back: bool,
    mode: LockMode,
    /// Reads asked for in this attempt.
    asked: usize,
    written: bool,
    awaited: Vec<usize>,
    ops: Vec<RwOp>,
}

fn pick(cx: &mut Cx<'_>) -> usize {
    let count = cx.workload.keys.registers.len() as u64;
    match cx.memory.own_register {
        Some(own) if cx.random.chance(200) => own,
        _ => cx.random.range(HOT as u64 + 1, count) as usize,
    }
}

fn new(cx: &mut Cx<'_>, mut reads: Vec<usize>, mut writes: Vec<usize>) -> Registers {
    reads.sort_unstable();
    reads.dedup();
    writes.sort_unstable();
    writes.dedup();
    let writes = writes.into_iter().map(|w| (w, cx.memory.value())).collect();
    Registers {
        reads,
        writes,
        read_back: cx.random.chance(50),
        one_by_one: cx.random.chance(300),
        latest: false,
        roll_back: cx.random.chance(15),
        mode: mode(cx.random),
        asked: 0,
        written: false,
        awaited: Vec::new(),
        ops: Vec::new(),
    }
}

pub(super) fn begin(cx: &mut Cx<'_>) -> Box<dyn Script> {
    let kind = cx.random.range(0, 1_000);
    let some = |cx: &mut Cx<'_>| -> Vec<usize> {
        let count = cx.random.range(1, 4);
        (0..count).map(|_| pick(cx)).collect()
    };
    let registers = match kind {
        // One write, one shard, nothing read.
        0..=249 => {
            let one = pick(cx);
            new(cx, Vec::new(), vec![one])
        }
        // One read-modify-write.
        250..=499 => {
            let one = pick(cx);
            new(cx, vec![one], vec![one])
        }
        500..=649 => {
            let writes = some(cx);
            new(cx, Vec::new(), writes)
        }
        650..=799 => {
            let (mut reads, writes) = (some(cx), some(cx));
            if cx.random.chance(700) {
                reads.extend(&writes);
            }
            new(cx, reads, writes)
        }
        800..=899 => {
            let reads = some(cx);
            new(cx, reads, Vec::new())
        }
        _ => latest(cx),
    };
    Box::new(registers)
}

/// Reads some beside each other, without locks.
pub(super) fn begin_latest(cx: &mut Cx<'_>) -> Box<dyn Script> {
    Box::new(latest(cx))
}

fn latest(cx: &mut Cx<'_>) -> Registers {
    let one = pick(cx);
    let (_, beside) = cx.workload.keys.registers_beside(one);
    let mut beside: Vec<usize> = beside.collect();
    let from = cx.random.range(0, beside.len() as u64) as usize;
    beside.rotate_left(from);
    beside.truncate(4);
    let mut latest = new(cx, beside, Vec::new());
    latest.latest = true;
    latest
}

/// A read of all of them.
pub(super) fn all(cx: &mut Cx<'_>) -> Box<dyn Script> {
    let all = (0..cx.workload.keys.registers.len()).collect();
    let mut registers = new(cx, all, Vec::new());
    registers.roll_back = false;
    Box::new(registers)
}

/// Everybody's register: read and written, often with another one beside.
pub(super) fn begin_hot(cx: &mut Cx<'_>) -> Box<dyn Script> {
    let mut reads = vec![HOT];
    let mut writes = vec![HOT];
    if cx.random.chance(400) {
        let beside = pick(cx);
        writes.push(beside);
        if cx.random.chance(500) {
            reads.push(beside);
        }
    }
    let mut hot = new(cx, reads, writes);
    // Two that share a lock and both want more: one is wounded.
    if cx.random.chance(700) {
        hot.mode = LockMode::Exclusive;
    }
    Box::new(hot)
}

impl Script for Registers {
    fn read_only(&self) -> bool {
        self.writes.is_empty()
    }

    fn latest(&self, cx: &Cx<'_>) -> Option<Latest> {
        if !self.latest {
            return None;
        }
        let (shard, _) = cx.workload.keys.registers_beside(*self.reads.first()?);
        let keys = self.reads.iter();
        let keys = keys.map(|&r| cx.workload.keys.registers[r].clone());
        Some((shard, keys.collect()))
    }

    fn restart(&mut self) {
        self.asked = 0;
        self.written = false;
        self.awaited.clear();
        self.ops.clear();
    }

    fn next(&mut self, machine: &mut Transaction, cx: &mut Cx<'_>) -> Call {
        let keys = &cx.workload.keys.registers;
        if self.asked < self.reads.len() {
            let count = if self.one_by_one {
                1
            } else {
                self.reads.len() - self.asked
            };
            let asked = &self.reads[self.asked..self.asked + count];
            self.awaited.clear();
            self.awaited.extend_from_slice(asked);
            self.asked += count;
            let mode = if self.writes.is_empty() {
                LockMode::Shared
            } else {
                self.mode
            };
            let asked = self.awaited.iter().map(|&r| keys[r].clone());
            return Call::Get(asked.collect(), mode);
        }
        if !self.written {
            self.written = true;
            for &(register, value) in &self.writes {
                put(machine, keys[register].clone(), encode(value));
                self.ops.push(RwOp::Write {
                    key: register as u64,
                    value,
                });
            }
            if let Some(&(register, _)) = self.writes.last()
                && self.read_back
            {
                self.awaited.clear();
                self.awaited.push(register);
                return Call::Get(vec![keys[register].clone()], LockMode::Shared);
            }
        }
        if self.roll_back {
            Call::Rollback
        } else {
            Call::Commit
        }
    }

    fn values(&mut self, values: Vec<Option<Value>>, _cx: &mut Cx<'_>) {
        let asked = if self.latest {
            &self.reads
        } else {
            &self.awaited
        };
        for (&register, value) in asked.iter().zip(values) {
            let seen = match &value {
                None => Seen::Nothing,
                // What is no number was written by nobody: the checker finds it.
                Some(value) => Seen::Value(decode(value).unwrap_or(u64::MAX)),
            };
            self.ops.push(RwOp::Read {
                key: register as u64,
                seen,
            });
        }
    }

    fn end(self: Box<Self>, end: End, memory: &mut Memory, histories: &mut Histories) {
        if matches!(end.outcome, Outcome::Committed(_))
            && let Some(&(register, _)) = self.writes.last()
        {
            memory.own_register = Some(register);
        }
        histories.registers.push(end.of(self.ops));
    }
}
