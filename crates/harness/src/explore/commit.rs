//! The commit protocol alone: two shards, the first coordinates a transaction
//! over both, on real [`synod_txn::Group`] machines.
//!
//! # What is explored
//!
//! A shard's consensus is a log: what its leader proposed may be decided at any
//! moment, in order. At a leader change another replica replays the log with any
//! prefix of the undecided entries; the leader deposed runs on with what it knew,
//! gets messages and fires timers, proposes in vain, and may still learn that
//! entries of that prefix were decided while it led. Messages arrive in any order, to
//! either leader, or never; as many as the budget allows twice. An older transaction
//! may want the same locks; clients may ask for the outcome; the second shard may
//! ask the first. Timers fire as often as the budget allows.
//!
//! # What is checked
//!
//! After every step a dumb twin of the replicated state takes in the same decided
//! entries: T1 to T8, P7, atomicity, and that nobody is ever told two different
//! ends. From every state, or every so-and-so-many-th, everything then heals with all
//! messages lost: both shards must become quiet without help from clients (T9).
//!
//! # What is left out
//!
//! Clocks stand still (timestamps then follow from `last`, as K3 wants); the engine
//! answers at once; clients do not repeat by themselves, and make no second attempt.

mod heal;
mod rules;
mod setup;
mod shard;
mod told;

use super::hash::Digest;
use super::search::Model;
use rules::Past;
pub use setup::Older;
use setup::{OLD, YOUNG};
pub use shard::Who;
use shard::{Letter, Mail, Out, Shard};
use std::rc::Rc;
use synod_txn::effect::EngineRows;
use synod_txn::{Command, Response};

/// A short step of time: every repetition is due. Nanoseconds.
const SHORT: u64 = 1_000_000;
/// A long one: deadlines too. Nanoseconds.
const LONG: u64 = 10_000_000_000;

/// How much of everything may still happen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Budget {
    /// Leader changes, over both shards.
    pub changes: u8,
    /// Messages delivered and kept, so that they can be delivered again.
    pub repeats: u8,
    /// Times at which a leader's repetitions fire.
    pub timers: u8,
    /// Times at which a leader's deadlines fire as well.
    pub deadlines: u8,
    /// Status questions of the younger one's client.
    pub questions: u8,
    /// Asks of the second shard.
    pub asks: u8,
    /// Times a leader raises the floor below which outcomes are forgotten.
    pub forgets: u8,
}

/// See the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Commit {
    /// What may happen.
    pub budget: Budget,
    /// The transaction in the way.
    pub older: Older,
    /// Whose wall clock is ahead: 0 or 1.
    pub ahead: usize,
    /// Healing is tried from one state in so many; 0: from none.
    pub heal_every: u8,
}

/// One step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// The older transaction learns the present terms and sends its Commits.
    Begin,
    /// The message at this place arrives; `true`: and stays, to arrive again.
    Deliver(usize, Who, bool),
    /// A shard's next entry is decided, as that leader learns.
    Decide(usize, Who),
    /// Another replica takes over, with so many undecided entries.
    Change(usize, usize),
    /// A leader's repetitions are due.
    Timers(usize, Who),
    /// A leader's deadlines are due.
    Deadlines(usize, Who),
    /// A shard forgets what it may.
    Forget(usize),
}

/// A global state.
#[derive(Clone)]
pub struct World {
    shards: [Rc<Shard>; 2],
    /// Sorted by hash.
    net: Vec<Rc<Letter>>,
    past: Rc<Past>,
    left: Budget,
    /// The older one has sent its Commits.
    begun: bool,
}

impl Commit {
    /// Takes what a shard sent; answers its reads.
    fn take_out(&self, world: &mut World, at: usize, who: Who, out: Out) -> Result<(), String> {
        let mut next = Some(out);
        while let Some(mut out) = next.take() {
            let shard = Rc::clone(&world.shards[at]);
            let past = Rc::make_mut(&mut world.past);
            past.check(self.older, &shard, &out, who == Who::Deposed)?;
            for message in out.peers.drain(..) {
                world.send(Letter::peer(message));
            }
            for (token, keys, bound) in out.reads.drain(..) {
                let versions = keys
                    .iter()
                    .map(|k| world.past.version(at, k, bound))
                    .collect();
                let rows = EngineRows {
                    versions,
                    ..EngineRows::default()
                };
                next = Some(Rc::make_mut(&mut world.shards[at]).answer(who, token, rows));
            }
        }
        Rc::make_mut(&mut world.shards[at]).rehash();
        Ok(())
    }

    fn with(
        &self,
        world: &mut World,
        at: usize,
        who: Who,
        run: impl FnOnce(&mut Shard) -> Out,
    ) -> Result<(), String> {
        let out = run(Rc::make_mut(&mut world.shards[at]));
        self.take_out(world, at, who, out)
    }

    fn deliver(&self, world: &mut World, letter: &Letter, who: Who) -> Result<(), String> {
        let mail = letter.mail.clone();
        self.with(world, letter.shard(), who, |shard| {
            shard.input(who, |group, cx| match mail {
                Mail::Request(_, from, request) => group.handle_request(cx, from, request),
                Mail::Peer(message) => group.handle_peer(cx, message),
            })
        })
    }

    fn pass(&self, world: &mut World, at: usize, who: Who, nanos: u64) -> Result<(), String> {
        self.with(world, at, who, |shard| {
            if let Some(leader) = shard.of(who) {
                leader.now = leader.now.plus(nanos);
            }
            shard.input(who, synod_txn::Group::handle_timeout)
        })
    }

    fn forget(&self, world: &mut World, at: usize) -> Result<(), String> {
        let floor_millis = setup::attempt(OLD).millis() + 1;
        let entry = shard::Entry::Command(Command::Forget { floor_millis });
        self.with(world, at, Who::Leader, |shard| {
            shard.log.push(shard::Logged::new(entry));
            Out::default()
        })
    }
}

impl World {
    fn send(&mut self, letter: Letter) {
        let place = self.net.partition_point(|l| l.hash < letter.hash);
        self.net.insert(place, Rc::new(letter));
    }

    fn is_quiet(&self) -> bool {
        self.shards.iter().all(|shard| {
            let group = &shard.leader.group;
            shard.undecided(Who::Leader) == 0
                && group.is_quiet()
                && group.state().records.unsettled().next().is_none()
        })
    }
}

impl Model for Commit {
    type State = World;
    type Step = Step;

    fn start(&self) -> World {
        let mut world = World {
            shards: [0, 1].map(|at| Rc::new(Shard::new(at, at == self.ahead))),
            net: Vec::new(),
            past: Rc::new(Past::default()),
            left: self.budget,
            begun: self.older == Older::None,
        };
        let mut session = None;
        if self.older == Older::OverRead {
            let shard = Rc::make_mut(&mut world.shards[1]);
            let asked = shard.input(Who::Leader, |group, cx| {
                group.handle_request(cx, setup::caller(YOUNG, 9), setup::locked_read());
            });
            for (token, ..) in asked.reads {
                let rows = EngineRows {
                    versions: vec![None],
                    ..EngineRows::default()
                };
                let out = shard.answer(Who::Leader, token, rows);
                session = out.responses.iter().find_map(|(_, r)| match r {
                    Response::Read { session, .. } => *session,
                    _ => None,
                });
            }
            shard.rehash();
        }
        for letter in setup::young(session) {
            world.send(letter);
        }
        for number in 0..self.budget.questions {
            world.send(setup::status(u64::from(number)));
        }
        for _ in 0..self.budget.asks {
            world.send(setup::ask());
        }
        world
    }

    fn steps(&self, world: &World) -> Vec<Step> {
        let mut steps = Vec::new();
        let left = &world.left;
        if !world.begun {
            steps.push(Step::Begin);
        }
        for place in 0..world.net.len() {
            let letter = &world.net[place];
            if place > 0 && letter.hash == world.net[place - 1].hash {
                continue;
            }
            let deposed = world.shards[letter.shard()].deposed.is_some();
            let receivers = [Who::Leader, Who::Deposed];
            for who in receivers.into_iter().take(1 + usize::from(deposed)) {
                steps.push(Step::Deliver(place, who, false));
                if left.repeats > 0 {
                    steps.push(Step::Deliver(place, who, true));
                }
            }
        }
        for (at, shard) in world.shards.iter().enumerate() {
            let undecided = shard.undecided(Who::Leader);
            for who in [Who::Leader, Who::Deposed] {
                if who == Who::Deposed && shard.deposed.is_none() {
                    continue;
                }
                if shard.undecided(who) > 0 {
                    steps.push(Step::Decide(at, who));
                }
                if left.timers > 0 && shard.is_due(who, SHORT) {
                    steps.push(Step::Timers(at, who));
                }
                if left.deadlines > 0 && shard.is_due(who, LONG) {
                    steps.push(Step::Deadlines(at, who));
                }
            }
            if left.changes > 0 {
                steps.extend((0..=undecided).map(|keep| Step::Change(at, keep)));
            }
            if left.forgets > 0 {
                steps.push(Step::Forget(at));
            }
        }
        steps
    }

    fn take(&self, world: &mut World, step: &Step) -> Result<(), String> {
        match *step {
            Step::Begin => {
                world.begun = true;
                let rounds = [0, 1].map(|at: usize| world.shards[at].leader.round);
                for letter in setup::old(self.older, rounds) {
                    world.send(letter);
                }
                Ok(())
            }
            Step::Deliver(place, who, keep) => {
                let letter = Rc::clone(&world.net[place]);
                if keep {
                    world.left.repeats -= 1;
                } else {
                    world.net.remove(place);
                }
                self.deliver(world, &letter, who)
            }
            Step::Decide(at, who) => self.with(world, at, who, |shard| shard.decide(who)),
            Step::Change(at, keep) => {
                world.left.changes -= 1;
                self.with(world, at, Who::Leader, |shard| shard.change(keep))
            }
            Step::Timers(at, who) => {
                world.left.timers -= 1;
                self.pass(world, at, who, SHORT)
            }
            Step::Deadlines(at, who) => {
                world.left.deadlines -= 1;
                self.pass(world, at, who, LONG)
            }
            Step::Forget(at) => {
                world.left.forgets -= 1;
                self.forget(world, at)
            }
        }
    }

    fn inspect(&self, world: &World) -> Result<(), String> {
        let every = u128::from(self.heal_every);
        if every == 0 || !self.fingerprint(world).is_multiple_of(every) {
            return Ok(());
        }
        self.heal(world.clone())
    }

    fn fingerprint(&self, world: &World) -> u128 {
        let mut digest = Digest::default();
        for shard in &world.shards {
            digest.add(shard.hash);
        }
        for letter in &world.net {
            digest.add(letter.hash);
        }
        digest.add(world.past.hash);
        let left = &world.left;
        digest.add_bytes(&[
            left.changes,
            left.repeats,
            left.timers,
            left.deadlines,
            left.forgets,
            u8::from(world.begun),
        ]);
        digest.end()
    }

    fn describe(&self, before: &World, step: &Step) -> String {
        let whom = |who: Who| match who {
            Who::Leader => "",
            Who::Deposed => " (the deposed leader)",
        };
        match *step {
            Step::Begin => "the older one sends its Commits".to_owned(),
            Step::Deliver(place, who, keep) => {
                let letter = &before.net[place];
                let again = if keep { ", and may arrive again" } else { "" };
                format!(
                    "at shard {}{}: {letter}{again}",
                    letter.shard() + 1,
                    whom(who)
                )
            }
            Step::Decide(at, who) => {
                let shard = &before.shards[at];
                let next = match (who, &shard.deposed) {
                    (Who::Deposed, Some((deposed, _))) => deposed.decided,
                    _ => shard.leader.decided,
                };
                match shard.log.get(next).map(|l| &l.entry) {
                    Some(shard::Entry::Command(c)) => {
                        format!("shard {}{} decides [{c}]", at + 1, whom(who))
                    }
                    _ => format!("shard {}{} decides a term", at + 1, whom(who)),
                }
            }
            Step::Change(at, keep) => {
                let of = before.shards[at].undecided(Who::Leader);
                format!(
                    "shard {}: another leader, with {keep} of {of} undecided entries",
                    at + 1
                )
            }
            Step::Timers(at, who) => format!("shard {}{}: repetitions are due", at + 1, whom(who)),
            Step::Deadlines(at, who) => format!("shard {}{}: deadlines are due", at + 1, whom(who)),
            Step::Forget(at) => format!("shard {} forgets what it may", at + 1),
        }
    }

    fn show(&self, world: &World) -> String {
        let shards = world.shards.iter().map(|s| format!("  {s}\n"));
        let net = world.net.iter().map(|l| format!("  on the way: {l}\n"));
        shards.chain(net).collect()
    }
}
