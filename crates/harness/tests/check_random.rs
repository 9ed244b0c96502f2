//! Random histories: what a serial executor made is clean, whatever its spans and
//! unknown outcomes; what is broken afterwards is judged against an oracle that
//! tries all orders.

use std::collections::HashMap;
use synod_harness::check::timestamp_order::{self, Untimed};
use synod_harness::check::{Findings, list_append, registers, sessions};
use synod_harness::history::{History, ListOp, Outcome, RwOp, Seen, Transaction};

struct Random(u64);

impl Random {
    fn new(seed: u64) -> Random {
        Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % limit
    }

    fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

struct Shape {
    transactions: u64,
    keys: u64,
    ops: u64,
    clients: u32,
    /// How far a span may reach beyond the moment of effect.
    spread: u64,
    /// Percent of transactions with an unknown outcome, and of aborted ones.
    unsure: u64,
}

/// Histories per test. Many more: `SYNOD_CHECK_SEEDS=1000000`.
fn seeds() -> u64 {
    let told = std::env::var("SYNOD_CHECK_SEEDS").ok();
    let usual = if cfg!(debug_assertions) {
        3_000
    } else {
        30_000
    };
    told.and_then(|seeds| seeds.parse().ok()).unwrap_or(usual)
}

/// Small enough to try all orders.
fn small(random: &mut Random) -> Shape {
    Shape {
        transactions: 3 + random.below(4),
        keys: 1 + random.below(3),
        ops: 1 + random.below(4),
        clients: 3,
        spread: 1 + random.below(50),
        unsure: random.below(25),
    }
}

/// Begin, end and outcome around the moment `at`; and whether it takes effect.
fn frame(random: &mut Random, shape: &Shape, at: u64, writes: bool) -> (u64, u64, Outcome, bool) {
    let begin = at.saturating_sub(random.below(shape.spread));
    let end = at + 1 + random.below(shape.spread);
    if random.chance(shape.unsure) {
        return (begin, end, Outcome::Unknown, random.chance(50));
    }
    if random.chance(shape.unsure) {
        return (begin, end, Outcome::Aborted, false);
    }
    (begin, end, Outcome::Committed(writes.then_some(at)), true)
}

/// Lists, executed one transaction after the other.
fn lists(random: &mut Random, shape: &Shape) -> History<ListOp> {
    let mut state: HashMap<u64, Vec<u64>> = HashMap::new();
    let mut history = History::default();
    // A client is busy until its last transaction has ended.
    for number in 0..shape.transactions {
        let plan: Vec<(u64, bool)> = (0..=random.below(shape.ops))
            .map(|_| (random.below(shape.keys), random.chance(50)))
            .collect();
        let writes = plan.iter().any(|(_, append)| *append);
        let at = (number + 1) * 10;
        let (invoked, completed, outcome, effect) = frame(random, shape, at, writes);
        let mut after = state.clone();
        let mut ops = Vec::new();
        for (step, (key, append)) in plan.into_iter().enumerate() {
            let list = after.entry(key).or_default();
            if append {
                let value = number * 100 + step as u64;
                list.push(value);
                ops.push(ListOp::Append { key, value });
            } else {
                let known = matches!(outcome, Outcome::Committed(_));
                let list = known.then(|| list.clone());
                ops.push(ListOp::Read { key, list });
            }
        }
        if effect {
            state = after;
        }
        history.transactions.push(Transaction {
            process: u32::try_from(number).unwrap() % shape.clients,
            invoked,
            completed,
            outcome,
            ops,
        });
    }
    history
}

/// The same on registers.
fn values(random: &mut Random, shape: &Shape) -> History<RwOp> {
    let history = lists(random, shape);
    let as_register = |op: ListOp| match op {
        ListOp::Append { key, value } => RwOp::Write { key, value },
        ListOp::Read { key, list } => RwOp::Read {
            key,
            seen: match list.as_deref() {
                None => Seen::Unanswered,
                Some([]) => Seen::Nothing,
                Some([.., last]) => Seen::Value(*last),
            },
        },
    };
    History {
        transactions: history
            .transactions
            .into_iter()
            .map(|t| Transaction {
                process: t.process,
                invoked: t.invoked,
                completed: t.completed,
                outcome: t.outcome,
                ops: t.ops.into_iter().map(as_register).collect(),
            })
            .collect(),
    }
}

/// Reads all keys at the very end, so that nothing stays unseen.
fn read_all(history: &mut History<ListOp>, keys: u64) {
    let mut longest: HashMap<u64, Vec<u64>> = HashMap::new();
    for transaction in &history.transactions {
        if !matches!(transaction.outcome, Outcome::Committed(_)) {
            continue;
        }
        for op in &transaction.ops {
            let (key, list) = match op {
                ListOp::Append { key, value } => {
                    let mut list = longest.get(key).cloned().unwrap_or_default();
                    if !list.contains(value) {
                        list.push(*value);
                    }
                    (key, list)
                }
                ListOp::Read {
                    key,
                    list: Some(list),
                } => (key, list.clone()),
                ListOp::Read { .. } => continue,
            };
            let known = longest.entry(*key).or_default();
            if list.len() > known.len() {
                *known = list;
            }
        }
    }
    history.transactions.push(Transaction {
        process: 99,
        invoked: 1_000_000,
        completed: 1_000_001,
        outcome: Outcome::Committed(None),
        ops: (0..keys)
            .map(|key| ListOp::Read {
                key,
                list: Some(longest.get(&key).cloned().unwrap_or_default()),
            })
            .collect(),
    });
}

/// Without timestamps: the oracle knows only of real time.
fn strip<Op>(history: &mut History<Op>) {
    for transaction in &mut history.transactions {
        if matches!(transaction.outcome, Outcome::Committed(_)) {
            transaction.outcome = Outcome::Committed(None);
        }
    }
}

/// A state of a model, and what an operation makes of it; none if it could not
/// have answered so.
trait Model: Clone + Default {
    type Op;
    fn apply(&mut self, op: &Self::Op) -> bool;
}

#[derive(Clone, Default)]
struct ListModel(HashMap<u64, Vec<u64>>);

impl Model for ListModel {
    type Op = ListOp;
    fn apply(&mut self, op: &ListOp) -> bool {
        match op {
            ListOp::Append { key, value } => self.0.entry(*key).or_default().push(*value),
            ListOp::Read {
                key,
                list: Some(list),
            } => return self.0.get(key).map_or(&[][..], Vec::as_slice) == list,
            ListOp::Read { .. } => {}
        }
        true
    }
}

#[derive(Clone, Default)]
struct RegisterModel(HashMap<u64, u64>);

impl Model for RegisterModel {
    type Op = RwOp;
    fn apply(&mut self, op: &RwOp) -> bool {
        match *op {
            RwOp::Write { key, value } => {
                self.0.insert(key, value);
                true
            }
            RwOp::Read { key, seen } => match seen {
                Seen::Unanswered => true,
                Seen::Nothing => !self.0.contains_key(&key),
                Seen::Value(value) => self.0.get(&key) == Some(&value),
            },
        }
    }
}

/// Whether some order of the committed transactions and any unknown ones explains
/// all answers and agrees with real time.
fn explainable<M: Model>(history: &[Transaction<M::Op>], done: u32, state: &M) -> bool {
    let is_committed = |t: &Transaction<M::Op>| matches!(t.outcome, Outcome::Committed(_));
    let open = |i: usize| done & (1 << i) == 0;
    let mut all_done = true;
    for (index, transaction) in history.iter().enumerate() {
        if !open(index) || transaction.outcome == Outcome::Aborted {
            continue;
        }
        all_done &= !is_committed(transaction);
        let waits = history
            .iter()
            .enumerate()
            .any(|(other, t)| open(other) && is_committed(t) && t.completed < transaction.invoked);
        if waits {
            continue;
        }
        let mut next = state.clone();
        if transaction.ops.iter().all(|op| next.apply(op))
            && explainable(history, done | 1 << index, &next)
        {
            return true;
        }
    }
    all_done
}

fn oracle<M: Model>(history: &History<M::Op>) -> bool {
    explainable(&history.transactions, 0, &M::default())
}

#[track_caller]
fn clean(found: &Findings, seed: u64) {
    assert!(found.is_clean(), "seed {seed}: {found}");
}

#[test]
fn serial_executions_are_clean() {
    for seed in 1..300 {
        let random = &mut Random::new(seed);
        let shape = Shape {
            transactions: 200,
            keys: 1 + random.below(8),
            ops: 4,
            clients: 5,
            spread: 1 + random.below(200),
            unsure: random.below(20),
        };
        let history = lists(random, &shape);
        clean(&list_append::check(&history), seed);
        clean(
            &timestamp_order::check_lists(&history, Untimed::OneMoment),
            seed,
        );
        let history = values(random, &shape);
        clean(&registers::check(&history), seed);
        clean(
            &timestamp_order::check_registers(&history, Untimed::OneMoment),
            seed,
        );
    }
}

#[test]
fn sessions_of_serial_executions_are_clean() {
    for seed in 1..100 {
        let random = &mut Random::new(seed);
        let shape = Shape {
            transactions: 200,
            keys: 3,
            ops: 4,
            clients: 4,
            spread: 10,
            unsure: 5,
        };
        clean(&sessions::check_lists(&lists(random, &shape)), seed);
        clean(&sessions::check_registers(&values(random, &shape)), seed);
    }
}

/// Gives some reads what another read of the key saw, or loses an element.
fn corrupt_lists(history: &mut History<ListOp>, random: &mut Random) {
    let seen: Vec<(u64, Vec<u64>)> = history
        .transactions
        .iter()
        .flat_map(|t| &t.ops)
        .filter_map(|op| match op {
            ListOp::Read {
                key,
                list: Some(list),
            } => Some((*key, list.clone())),
            _ => None,
        })
        .collect();
    for op in history.transactions.iter_mut().flat_map(|t| &mut t.ops) {
        if let ListOp::Read {
            key,
            list: Some(list),
        } = op
            && random.chance(30)
        {
            let others: Vec<_> = seen.iter().filter(|(k, _)| k == key).collect();
            if random.chance(50) {
                list.pop();
            } else if !others.is_empty() {
                list.clone_from(&others[random.below(others.len() as u64) as usize].1);
            }
        }
    }
}

#[test]
fn on_lists_the_checker_agrees_with_the_oracle() {
    let (mut legal, mut broken) = (0u64, 0u64);
    for seed in 1..seeds() {
        let random = &mut Random::new(seed);
        let shape = small(random);
        let mut history = lists(random, &shape);
        corrupt_lists(&mut history, random);
        read_all(&mut history, shape.keys);
        strip(&mut history);
        let expected = oracle::<ListModel>(&history);
        let found = list_append::check(&history);
        assert_eq!(
            found.is_clean(),
            expected,
            "seed {seed}: {found}{history:?}"
        );
        *(if expected { &mut legal } else { &mut broken }) += 1;
    }
    assert!(
        legal > seeds() / 20 && broken > seeds() / 20,
        "{legal} legal, {broken} broken"
    );
}

/// Without the last read, elements may stay unseen: then the checker may miss
/// something, but accuses nobody.
#[test]
fn on_lists_not_read_to_the_end_the_checker_accuses_nobody() {
    let mut missed = 0u64;
    for seed in 1..seeds() {
        let random = &mut Random::new(seed);
        let shape = small(random);
        let mut history = lists(random, &shape);
        corrupt_lists(&mut history, random);
        strip(&mut history);
        let expected = oracle::<ListModel>(&history);
        let found = list_append::check(&history);
        assert!(
            found.is_clean() || !expected,
            "seed {seed}: {found}{history:?}"
        );
        missed += u64::from(found.is_clean() && !expected);
    }
    assert!(missed < seeds() / 100, "{missed} missed");
}

fn corrupt_values(history: &mut History<RwOp>, random: &mut Random) {
    let written: Vec<(u64, u64)> = history
        .transactions
        .iter()
        .flat_map(|t| &t.ops)
        .filter_map(|op| match op {
            RwOp::Write { key, value } => Some((*key, *value)),
            RwOp::Read { .. } => None,
        })
        .collect();
    for transaction in &mut history.transactions {
        if !matches!(transaction.outcome, Outcome::Committed(_)) {
            continue;
        }
        for op in &mut transaction.ops {
            if let RwOp::Read { key, seen } = op
                && random.chance(30)
            {
                let others: Vec<_> = written.iter().filter(|(k, _)| k == key).collect();
                let choice = random.below(others.len() as u64 + 1) as usize;
                *seen = others
                    .get(choice)
                    .map_or(Seen::Nothing, |(_, v)| Seen::Value(*v));
            }
        }
    }
}

#[test]
fn on_registers_the_checker_accuses_nobody() {
    let (mut legal, mut broken, mut missed) = (0u64, 0u64, 0u64);
    for seed in 1..seeds() {
        let random = &mut Random::new(seed);
        let shape = small(random);
        let mut history = values(random, &shape);
        corrupt_values(&mut history, random);
        strip(&mut history);
        let expected = oracle::<RegisterModel>(&history);
        let found = registers::check(&history);
        assert!(
            found.is_clean() || !expected,
            "seed {seed}: {found}{history:?}"
        );
        *(if expected { &mut legal } else { &mut broken }) += 1;
        missed += u64::from(found.is_clean() && !expected);
    }
    assert!(
        legal > seeds() / 20 && broken > seeds() / 20,
        "{legal} legal, {broken} broken"
    );
    assert!(missed * 20 < broken, "{missed} of {broken} missed");
}

#[test]
fn on_one_register_the_checker_agrees_with_the_oracle() {
    let (mut legal, mut broken) = (0u64, 0u64);
    for seed in 1..seeds() {
        let random = &mut Random::new(seed);
        let shape = Shape {
            transactions: 7,
            keys: 1,
            ops: 1,
            ..small(random)
        };
        let mut history = values(random, &shape);
        corrupt_values(&mut history, random);
        strip(&mut history);
        let expected = oracle::<RegisterModel>(&history);
        let found = registers::check(&history);
        assert_eq!(
            found.is_clean(),
            expected,
            "seed {seed}: {found}{history:?}"
        );
        *(if expected { &mut legal } else { &mut broken }) += 1;
    }
    assert!(
        legal > seeds() / 20 && broken > seeds() / 20,
        "{legal} legal, {broken} broken"
    );
}

/// Whether the answers follow from executing in the order of timestamps, reads
/// without timestamp apart, unknown ones nowhere or anywhere.
fn replays<M: Model>(history: &History<M::Op>) -> bool {
    let mut timed: Vec<&Transaction<M::Op>> = Vec::new();
    let mut unknown: Vec<&Transaction<M::Op>> = Vec::new();
    for transaction in &history.transactions {
        match transaction.outcome {
            Outcome::Committed(Some(_)) => timed.push(transaction),
            Outcome::Unknown => unknown.push(transaction),
            _ => {}
        }
    }
    timed.sort_by_key(|t| t.outcome.timestamp());
    insert_anywhere::<M>(&timed, &unknown)
}

trait Timestamp {
    fn timestamp(&self) -> Option<u64>;
}

impl Timestamp for Outcome {
    fn timestamp(&self) -> Option<u64> {
        match self {
            Outcome::Committed(timestamp) => *timestamp,
            _ => None,
        }
    }
}

fn insert_anywhere<M: Model>(
    order: &[&Transaction<M::Op>],
    unknown: &[&Transaction<M::Op>],
) -> bool {
    let Some((first, rest)) = unknown.split_first() else {
        let mut state = M::default();
        return order.iter().all(|t| t.ops.iter().all(|op| state.apply(op)));
    };
    insert_anywhere::<M>(order, rest)
        || (0..=order.len()).any(|at| {
            let mut longer = order.to_vec();
            longer.insert(at, first);
            insert_anywhere::<M>(&longer, rest)
        })
}

#[test]
fn timestamp_order_agrees_with_a_replay() {
    let (mut legal, mut broken, mut missed) = (0u64, 0u64, 0u64);
    for seed in 1..seeds() {
        let random = &mut Random::new(seed);
        let shape = small(random);
        let mut history = lists(random, &shape);
        corrupt_lists(&mut history, random);
        history
            .transactions
            .retain(|t| t.outcome != Outcome::Committed(None));
        let expected = replays::<ListModel>(&history);
        let found = timestamp_order::check_lists(&history, Untimed::AnyMoment);
        assert!(
            found.is_clean() || !expected,
            "seed {seed}: {found}{history:?}"
        );
        *(if expected { &mut legal } else { &mut broken }) += 1;
        missed += u64::from(found.is_clean() && !expected);

        let shape = small(random);
        let mut history = values(random, &shape);
        corrupt_values(&mut history, random);
        history
            .transactions
            .retain(|t| t.outcome != Outcome::Committed(None));
        let expected = replays::<RegisterModel>(&history);
        let found = timestamp_order::check_registers(&history, Untimed::AnyMoment);
        assert!(
            found.is_clean() || !expected,
            "seed {seed}: {found}{history:?}"
        );
        *(if expected { &mut legal } else { &mut broken }) += 1;
        missed += u64::from(found.is_clean() && !expected);
    }
    assert!(
        legal > seeds() / 20 && broken > seeds() / 20,
        "{legal} legal, {broken} broken"
    );
    assert!(missed * 20 < broken, "{missed} of {broken} missed");
}
