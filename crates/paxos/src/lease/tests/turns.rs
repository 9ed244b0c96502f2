//! How often a pair asks, and how many packets that takes.

use super::*;
use std::collections::{BTreeMap, BTreeSet};

/// Milliseconds that a record takes to the disk.
const SYNC: u64 = 2;

/// What travels or is written, by when it is there.
#[derive(Clone, Copy, Debug)]
enum Coming {
    Message {
        from: usize,
        to: usize,
        message: LeaseMessage,
    },
    Durable {
        at: usize,
        seq: u64,
    },
}

/// Two nodes whose clocks tick in milliseconds.
struct Pair {
    nodes: [NodeLease; 2],
    delay: u64,
    now: u64,
    coming: BTreeMap<u64, Vec<Coming>>,
    released: BTreeMap<(usize, u64), Vec<(NodeId, LeaseMessage)>>,
    /// When who sent something to the other one: one packet each.
    packets: BTreeSet<(u64, usize)>,
    /// When who asked the other one.
    asked: [Vec<u64>; 2],
    /// Whether messages to this node are lost.
    deaf: [bool; 2],
}

impl Pair {
    /// B starts so many milliseconds after A.
    fn new(delay: u64, later: u64) -> Pair {
        let second = machine(B, 1, Vec::new(), mono(later));
        let mut pair = Pair {
            nodes: [fresh(A), second],
            delay,
            now: 0,
            coming: BTreeMap::new(),
            released: BTreeMap::new(),
            packets: BTreeSet::new(),
            asked: [Vec::new(), Vec::new()],
            deaf: [false; 2],
        };
        pair.run(later, &[0]);
        pair
    }

    /// Both run on for so long; the machines look at the clock only when they asked to.
    fn run(&mut self, millis: u64, who: &[usize]) {
        for _ in 0..millis {
            for coming in self.coming.remove(&self.now).unwrap_or_default() {
                self.arrives(coming);
            }
            for at in who {
                self.step(*at);
            }
            self.now += 1;
        }
    }

    fn go_on(&mut self, millis: u64) {
        self.run(millis, &[0, 1]);
    }

    fn arrives(&mut self, coming: Coming) {
        let now = mono(self.now);
        match coming {
            Coming::Message { to, .. } if self.deaf[to] => {}
            Coming::Message { from, to, message } => {
                let from = NodeId(from as u64 + 1);
                self.nodes[to].handle_message(now, wall(now), from, message);
            }
            Coming::Durable { at, seq } => {
                for (to, message) in self.released.remove(&(at, seq)).unwrap_or_default() {
                    self.send(at, to, message);
                }
                self.nodes[at].handle_persisted(now, seq);
            }
        }
    }

    fn step(&mut self, at: usize) {
        let now = mono(self.now);
        loop {
            if self.nodes[at].next_timeout().is_some_and(|t| t <= now) {
                self.nodes[at].handle_timeout(now, wall(now));
            }
            let effects = self.nodes[at].drain_effects();
            if effects.is_empty() {
                return;
            }
            for effect in effects {
                match effect {
                    LeaseEffect::Send { to, message } => self.send(at, to, message),
                    LeaseEffect::Persist { release, seq, .. } => {
                        self.released.insert((at, seq), release);
                        let durable = Coming::Durable { at, seq };
                        let then = self.coming.entry(self.now + SYNC).or_default();
                        then.push(durable);
                    }
                }
            }
        }
    }

    fn send(&mut self, from: usize, to: NodeId, message: LeaseMessage) {
        let to = to.0 as usize - 1;
        if to == from {
            let now = mono(self.now);
            let me = NodeId(from as u64 + 1);
            return self.nodes[from].handle_message(now, wall(now), me, message);
        }
        self.packets.insert((self.now, from));
        if matches!(message, LeaseMessage::Renew { .. }) {
            self.asked[from].push(self.now);
        }
        let message = Coming::Message { from, to, message };
        let then = self.coming.entry(self.now + self.delay).or_default();
        then.push(message);
    }

    /// Packets from now on, and questions of each, for so many milliseconds.
    fn count(&mut self, millis: u64) -> (usize, [usize; 2]) {
        let (packets, asked) = (self.packets.len(), self.asked.clone());
        self.go_on(millis);
        let more = |at: usize| self.asked[at].len() - asked[at].len();
        (self.packets.len() - packets, [more(0), more(1)])
    }

    fn both_hold(&self) -> bool {
        let now = mono(self.now);
        let [a, b] = &self.nodes;
        a.held_from(B, now).is_some() && b.held_from(A, now).is_some()
    }
}

#[test]
fn an_idle_pair_needs_three_packets_for_a_renewal_each_way() {
    for (delay, later) in [(1, 0), (1, 40), (5, 77), (5, 150), (20, 299)] {
        let mut pair = Pair::new(delay, later);
        pair.go_on(2_000);
        let (packets, asked) = pair.count(6_000);
        // 300 ms less the round trip with its sync.
        let times = 6_000 / (300 - 2 * delay - SYNC) as usize;
        for asked in asked {
            assert!(
                asked.abs_diff(times) <= 1,
                "{delay} {later}: {asked} of {times}"
            );
        }
        assert!(
            packets <= 3 * (times + 1),
            "{delay} {later}: {packets} packets for {times} renewals each way"
        );
    }
}

#[test]
fn an_idle_pair_holds_leases_and_limits_without_a_gap() {
    for (delay, later) in [(1, 0), (30, 100), (70, 20), (140, 299)] {
        let mut pair = Pair::new(delay, later);
        pair.go_on(1_000);
        for _ in 0..3_000 {
            pair.go_on(1);
            assert!(pair.both_hold(), "{delay} {later} at {}", pair.now);
            if delay < 30 {
                let held = pair.nodes[0].held_from(B, mono(pair.now)).expect("held");
                assert!(held.limit >= Timestamp(WALL + mono(pair.now).0));
            }
        }
    }
}

#[test]
fn whoever_uses_timestamps_asks_each_quarter_of_a_lease_until_a_lease_later() {
    let mut pair = Pair::new(1, 0);
    pair.go_on(2_000);
    for _ in 0..20 {
        let now = mono(pair.now);
        pair.nodes[1].note_use(now);
        pair.go_on(100);
    }
    let (_, asked) = pair.count(300);
    assert_eq!(asked, [2, 2], "the other one asks along with its answer");
    pair.go_on(1_000);
    let (_, asked) = pair.count(3_000);
    assert!(asked[1] <= 11, "idle again: {asked:?}");
}

#[test]
fn a_limit_is_asked_for_at_once_where_one_may_be_missed() {
    let mut pair = Pair::new(1, 0);
    pair.go_on(2_000);
    while pair.count(1).1[0] == 0 {}
    pair.go_on(200);
    pair.nodes[0].note_use(mono(pair.now));
    let (_, asked) = pair.count(1);
    assert_eq!(asked[0], 1, "half a lease would be too long");
}

#[test]
fn a_question_without_an_answer_is_asked_again_after_a_quarter_of_a_lease() {
    let mut pair = Pair::new(1, 0);
    pair.go_on(2_000);
    pair.deaf = [true, true];
    pair.go_on(300);
    let (_, asked) = pair.count(1_500);
    assert!(asked[0].max(asked[1]) >= 10, "{asked:?}");
    assert!(asked[0].min(asked[1]) >= 8, "{asked:?}");
    pair.deaf = [false, false];
    pair.go_on(200);
    assert!(pair.both_hold());
}

#[test]
fn of_two_who_ask_at_the_same_moment_one_waits_the_next_time() {
    let mut pair = Pair::new(20, 0);
    pair.go_on(1);
    assert_eq!(pair.asked, [[0], [0]], "they crossed");
    pair.go_on(1_000);
    let (packets, asked) = pair.count(2_600);
    assert!(
        packets <= 3 * asked[0].max(asked[1]) + 1,
        "{packets} {asked:?}"
    );
}
