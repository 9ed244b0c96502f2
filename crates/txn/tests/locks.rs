//! The lock table against a deliberately dumb twin: a list of holds and
//! wishes, each compared with every other.

use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use synod_paxos::Timestamp;
use synod_txn::locks::{Age, Locks, Verdict, Wants, conflicts};
use synod_txn::request::LockMode;
use synod_txn::*;

const ATTEMPTS: u64 = 5;

#[derive(Clone, Debug)]
enum Op {
    Lock(u64, Span, LockMode),
    Release(u64),
    Cancel(usize),
    Shrink(u64),
}

fn key(number: u8) -> Key {
    Key::copy_from_slice(&[b'a' + number])
}

fn span(from: u8, to: u8) -> Span {
    Span {
        start: key(from),
        end: key(to),
    }
}

fn age(txn: u64) -> Age {
    let attempt = AttemptId(u128::from(txn));
    let start = Timestamp(txn);
    let first = attempt;
    Age::new(Priority { start, first }, attempt)
}

fn op() -> impl Strategy<Value = Op> {
    let mode = prop_oneof![Just(LockMode::Shared), Just(LockMode::Exclusive)];
    let place = prop_oneof![
        (0u8..6).prop_map(|k| Span::of_key(&key(k))),
        (0u8..6, 1u8..4).prop_map(|(k, n)| span(k, k + n)),
    ];
    prop_oneof![
        6 => (0..ATTEMPTS, place, mode).prop_map(|(t, s, m)| Op::Lock(t, s, m)),
        2 => (0..ATTEMPTS).prop_map(Op::Release),
        1 => (0usize..4).prop_map(Op::Cancel),
        1 => (0..ATTEMPTS).prop_map(Op::Shrink),
    ]
}

fn wants(span: &Span, mode: LockMode) -> Wants {
    let mut wants = Wants::default();
    match span.as_key() {
        Some(key) => wants.points.push((key.clone(), mode)),
        None => wants.spans.push((span.clone(), mode)),
    }
    wants
}

type Wish = (u64, Span, LockMode);

#[derive(Default)]
struct Twin {
    held: Vec<Wish>,
    waiting: BTreeMap<u64, Wish>,
}

fn collide(a: &Wish, b: &Wish) -> bool {
    a.0 != b.0 && conflicts(a.2, b.2) && a.1.overlaps(&b.1)
}

impl Twin {
    fn free(&self, wish: &Wish) -> bool {
        let held = self.held.iter().any(|h| collide(h, wish));
        let older = |w: &Wish| age(w.0) < age(wish.0) && collide(w, wish);
        !held && !self.waiting.values().any(older)
    }

    fn younger_holders(&self, wish: &Wish) -> BTreeSet<AttemptId> {
        let younger = self
            .held
            .iter()
            .filter(|h| collide(h, wish) && age(h.0) > age(wish.0));
        younger.map(|h| age(h.0).attempt()).collect()
    }
}

/// After every step: nobody waits who could go on, and nobody holds who may not.
fn settle(locks: &mut Locks, twin: &mut Twin) {
    while let Some(waiter) = locks.pop_ready() {
        let Some(wish) = twin.waiting.remove(&waiter) else {
            panic!("{waiter} is woken but does not wait");
        };
        let free = twin.free(&wish);
        match locks.retry(waiter) {
            Verdict::Granted => {
                assert!(free, "{wish:?} was granted");
                twin.held.push(wish);
            }
            Verdict::Blocked(wounds) => {
                assert!(!free, "{wish:?} was kept waiting");
                let wounds: BTreeSet<AttemptId> = wounds.into_iter().collect();
                assert_eq!(wounds, twin.younger_holders(&wish));
                twin.waiting.insert(waiter, wish);
            }
        }
    }
    for (waiter, wish) in &twin.waiting {
        assert!(!twin.free(wish), "{waiter} {wish:?} was not woken");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn the_table_agrees_with_its_twin(ops in prop::collection::vec(op(), 1..40)) {
        let mut locks = Locks::default();
        let mut twin = Twin::default();
        for (number, op) in ops.into_iter().enumerate() {
            let waiter = number as u64;
            match op {
                Op::Lock(txn, span, mode) => {
                    let wish = (txn, span.clone(), mode);
                    let free = twin.free(&wish);
                    match locks.lock(waiter, age(txn), wants(&span, mode)) {
                        Verdict::Granted => {
                            prop_assert!(free, "{wish:?} was granted");
                            twin.held.push(wish);
                        }
                        Verdict::Blocked(wounds) => {
                            prop_assert!(!free, "{wish:?} was kept waiting");
                            let wounds: BTreeSet<AttemptId> = wounds.into_iter().collect();
                            prop_assert_eq!(wounds, twin.younger_holders(&wish));
                            twin.waiting.insert(waiter, wish);
                        }
                    }
                }
                Op::Release(txn) => {
                    locks.release(age(txn).attempt());
                    twin.held.retain(|h| h.0 != txn);
                }
                Op::Cancel(nth) => {
                    if let Some(waiter) = twin.waiting.keys().nth(nth).copied() {
                        locks.cancel(waiter);
                        twin.waiting.remove(&waiter);
                    }
                }
                Op::Shrink(txn) => {
                    let wide = |h: &&mut Wish| h.0 == txn && h.1.as_key().is_none();
                    if let Some(held) = twin.held.iter_mut().find(wide) {
                        let from = (held.1.clone(), held.2);
                        held.1.end = Span::of_key(&held.1.start).end;
                        locks.shrink(age(txn).attempt(), &from, held.1.clone());
                    }
                }
            }
            settle(&mut locks, &mut twin);
        }
        for txn in 0..ATTEMPTS {
            locks.release(age(txn).attempt());
            twin.held.retain(|h| h.0 != txn);
            settle(&mut locks, &mut twin);
        }
        for waiter in twin.waiting.keys() {
            locks.cancel(*waiter);
        }
        for txn in 0..ATTEMPTS {
            locks.release(age(txn).attempt());
        }
        prop_assert!(locks.is_idle(), "something is left: {locks:?}");
    }
}
