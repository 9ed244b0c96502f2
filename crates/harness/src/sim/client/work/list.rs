//! Lists: append to some, read others, scan those on both sides of a border.

use super::{Call, Cx, End, Histories, Latest, Memory, Script, mode, put};
use crate::history::{ListOp, Outcome};
use crate::sim::client::keys::SLOTS;
use synod_txn::client::{Page, Transaction};
use synod_txn::request::LockMode;
use synod_txn::{Key, Value};

/// How keys are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Style {
    /// One after the other.
    OneByOne,
    /// All at once.
    AllAtOnce,
    /// Without locks, in one shard.
    Latest,
    /// By scans of all borders from this one on.
    Scan,
}

/// A list a transaction touches.
#[derive(Clone, Copy, Debug)]
struct Touch {
    slot: usize,
    generation: u64,
    /// The element to append; none = only read.
    append: Option<u64>,
}

impl Touch {
    fn number(&self) -> u64 {
        self.generation * SLOTS + self.slot as u64
    }
}

struct Lists {
    style: Style,
    touches: Vec<Touch>,
    read_only: bool,
    /// Whether reads on the way to an append are recorded, too.
    record_all: bool,
    roll_back: bool,
    /// Touches done in this attempt.
    done: usize,
    /// Borders scanned in this attempt.
    scanned: usize,
    /// The borders to scan: from, to.
    borders: (usize, usize),
    /// Keys whose values are awaited, of `touches`.
    asked: (usize, usize),
    /// The slots of the border being scanned that no row was seen of yet.
    expected: Vec<usize>,
    /// What was done in this attempt.
    ops: Vec<ListOp>,
    /// Values of the touches asked for last, where they are appended to.
    pending: Vec<(Touch, Value)>,
}

fn pick(cx: &mut Cx<'_>) -> usize {
    let lists = cx.workload.keys.lists();
    match cx.memory.own_list {
        Some(own) if cx.random.chance(200) => own,
        _ => cx.random.range(0, lists as u64) as usize,
    }
}

fn touch(cx: &mut Cx<'_>, slot: usize, append: bool) -> Touch {
    Touch {
        slot,
        generation: cx.memory.generations[slot],
        append: append.then(|| cx.memory.value()),
    }
}

fn empty(cx: &mut Cx<'_>, style: Style) -> Lists {
    Lists {
        style,
        touches: Vec::new(),
        read_only: style == Style::Latest || style == Style::Scan && cx.random.chance(700),
        record_all: cx.random.chance(300),
        roll_back: cx.random.chance(20),
        done: 0,
        scanned: 0,
        borders: (0, cx.workload.keys.borders()),
        asked: (0, 0),
        expected: Vec::new(),
        ops: Vec::new(),
        pending: Vec::new(),
    }
}

pub(super) fn begin(cx: &mut Cx<'_>) -> Box<dyn Script> {
    let kind = cx.random.range(0, 1_000);
    let borders = cx.workload.keys.borders();
    let style = match kind {
        0..=349 => Style::OneByOne,
        350..=699 => Style::AllAtOnce,
        700..=969 => Style::Latest,
        _ => Style::Scan,
    };
    let mut lists = empty(cx, style);
    match style {
        Style::Latest => latest(&mut lists, cx),
        Style::Scan => {
            if cx.random.chance(600) {
                let border = cx.random.range(0, borders as u64) as usize;
                lists.borders = (border, border + 1);
            }
            if !lists.read_only {
                let slot = pick(cx);
                lists.touches.push(touch(cx, slot, true));
            }
        }
        Style::OneByOne | Style::AllAtOnce => points(&mut lists, cx),
    }
    Box::new(lists)
}

/// Reads some beside each other, without locks.
pub(super) fn begin_latest(cx: &mut Cx<'_>) -> Box<dyn Script> {
    let mut lists = empty(cx, Style::Latest);
    latest(&mut lists, cx);
    Box::new(lists)
}

fn latest(lists: &mut Lists, cx: &mut Cx<'_>) {
    let one = pick(cx);
    let (_, beside) = cx.workload.keys.lists_beside(one);
    let beside: Vec<usize> = beside.collect();
    let from = cx.random.range(0, beside.len() as u64) as usize;
    let beside = beside.iter().cycle().skip(from).take(beside.len().min(4));
    lists.touches = beside.map(|&slot| touch(cx, slot, false)).collect();
}

/// A scan of all of them.
pub(super) fn all(cx: &mut Cx<'_>) -> Box<dyn Script> {
    let mut lists = empty(cx, Style::Scan);
    lists.read_only = true;
    lists.roll_back = false;
    Box::new(lists)
}

/// Reads and appends of single lists. Many touch one list only: the SDK's fast path.
fn points(lists: &mut Lists, cx: &mut Cx<'_>) {
    let count = if cx.random.chance(450) {
        1
    } else {
        cx.random.range(2, 5)
    };
    let read_only = cx.random.chance(300);
    for _ in 0..count {
        let slot = pick(cx);
        // Several reads at once would all see the list before the first append.
        let twice = lists.touches.iter().any(|t| t.slot == slot);
        if !(twice && lists.style == Style::AllAtOnce) {
            let append = !read_only && cx.random.chance(650);
            lists.touches.push(touch(cx, slot, append));
        }
    }
    lists.read_only = lists.touches.iter().all(|t| t.append.is_none());
}

fn parse(value: &[u8]) -> Vec<u64> {
    let number = |c: &[u8]| u64::from_le_bytes([c[0], c[1], c[2], c[3], c[4], c[5], c[6], c[7]]);
    value.chunks_exact(8).map(number).collect()
}

impl Lists {
    /// Takes in what a list held.
    fn saw(&mut self, touch: Touch, value: Option<Value>, cx: &mut Cx<'_>) {
        let value = value.unwrap_or_default();
        if value.len() / 8 >= cx.workload.config.longest_list {
            let newest = &mut cx.memory.generations[touch.slot];
            *newest = (*newest).max(touch.generation + 1);
        }
        if touch.append.is_none() || self.record_all {
            self.ops.push(ListOp::Read {
                key: touch.number(),
                list: Some(parse(&value)),
            });
        }
        if touch.append.is_some() {
            self.pending.push((touch, value));
        }
    }

    /// Buffers the appends whose lists are known.
    fn append(&mut self, machine: &mut Transaction, cx: &Cx<'_>) {
        for (touch, old) in std::mem::take(&mut self.pending) {
            let Some(value) = touch.append else { continue };
            let mut list = Vec::with_capacity(old.len() + 8);
            list.extend_from_slice(&old);
            list.extend_from_slice(&value.to_le_bytes());
            let key = cx.workload.keys.list(touch.slot, touch.generation);
            put(machine, key, list.into());
            self.ops.push(ListOp::Append {
                key: touch.number(),
                value,
            });
        }
    }

    fn keys(&self, cx: &Cx<'_>, from: usize, to: usize) -> Vec<Key> {
        let key = |t: &Touch| cx.workload.keys.list(t.slot, t.generation);
        self.touches[from..to].iter().map(key).collect()
    }
}

impl Script for Lists {
    fn read_only(&self) -> bool {
        self.read_only
    }

    fn latest(&self, cx: &Cx<'_>) -> Option<Latest> {
        if self.style != Style::Latest {
            return None;
        }
        let (shard, _) = cx.workload.keys.lists_beside(self.touches.first()?.slot);
        Some((shard, self.keys(cx, 0, self.touches.len())))
    }

    fn restart(&mut self) {
        self.done = 0;
        self.scanned = 0;
        self.ops.clear();
        self.pending.clear();
        self.expected.clear();
    }

    fn next(&mut self, machine: &mut Transaction, cx: &mut Cx<'_>) -> Call {
        self.append(machine, cx);
        if self.style == Style::Scan {
            while self.borders.0 + self.scanned < self.borders.1 {
                let border = self.borders.0 + self.scanned;
                self.scanned += 1;
                let found = cx.workload.keys.border(border, &cx.memory.generations);
                if let Some((slots, span)) = found {
                    self.expected = slots;
                    return Call::Scan {
                        span,
                        reverse: cx.random.chance(400),
                        // Small pages: the next one begins where the last ended.
                        limit: if cx.random.chance(200) { 3 } else { 1_000 },
                    };
                }
            }
        }
        let from = self.done;
        if from < self.touches.len() {
            let count = if self.style == Style::OneByOne {
                1
            } else {
                self.touches.len() - from
            };
            self.asked = (from, from + count);
            self.done += count;
            let keys = self.keys(cx, from, from + count);
            let mut asked = self.touches[from..from + count].iter();
            let mode = if asked.any(|t| t.append.is_some()) {
                mode(cx.random)
            } else {
                LockMode::Shared
            };
            return Call::Get(keys, mode);
        }
        if self.roll_back {
            return Call::Rollback;
        }
        Call::Commit
    }

    fn values(&mut self, values: Vec<Option<Value>>, cx: &mut Cx<'_>) {
        if self.style == Style::Latest {
            self.asked = (0, self.touches.len());
        }
        for (index, value) in (self.asked.0..self.asked.1).zip(values) {
            self.saw(self.touches[index], value, cx);
        }
    }

    fn page(&mut self, page: Page, cx: &mut Cx<'_>) {
        let record = |slot: usize, generation: u64, value: &[u8]| ListOp::Read {
            key: generation * SLOTS + slot as u64,
            list: Some(parse(value)),
        };
        for (key, value) in &page.rows {
            let Some((slot, generation)) = cx.workload.keys.list_of(key) else {
                continue;
            };
            let Some(newest) = cx.memory.generations.get_mut(slot) else {
                continue;
            };
            if generation == *newest {
                self.expected.retain(|&s| s != slot);
            }
            self.ops.push(record(slot, generation, value));
        }
        if page.rest.is_none() {
            // What has no row is empty.
            for slot in std::mem::take(&mut self.expected) {
                self.ops
                    .push(record(slot, cx.memory.generations[slot], &[]));
            }
            // What was heard of later generations counts from now on.
            for (key, _) in &page.rows {
                if let Some((slot, generation)) = cx.workload.keys.list_of(key)
                    && let Some(newest) = cx.memory.generations.get_mut(slot)
                {
                    *newest = (*newest).max(generation);
                }
            }
        }
    }

    fn end(self: Box<Self>, end: End, memory: &mut Memory, histories: &mut Histories) {
        if matches!(end.outcome, Outcome::Committed(_))
            && let Some(touch) = self.touches.iter().rfind(|t| t.append.is_some())
        {
            memory.own_list = Some(touch.slot);
        }
        histories.lists.push(end.of(self.ops));
    }
}
