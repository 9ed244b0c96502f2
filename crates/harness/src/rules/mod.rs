//! The rules of `docs/rules.md`, checked by number on a running cluster.
//!
//! Whoever steps the cluster tells [`Rules`] what goes into a node
//! ([`Rules::taken`]), what it looks like after each of its steps
//! ([`Rules::step`]), and when it crashes and comes back. Each rule has a file
//! of its own, named by its number, and looks only at what the step changed;
//! dearer comparisons are made every so many steps ([`Setting::full_every`])
//! and once all is quiet ([`Rules::quiet`]).
//!
//! | file | what it keeps for the rules |
//! |---|---|
//! | `look` | what is shown: a node after its step, and all nodes |
//! | `book` | every replica's numbers, every group's decided values |
//! | `ledger` | every attempt: intents, votes, outcomes, versions |
//! | `events` | from a step to the events of the ledger |
//!
//! Nothing here trusts the machine it watches more than it must: what is
//! durable is taken from what was disclosed and what a restart finds, what is
//! decided from the first replica that knows it, what is granted from the
//! messages that grant it.

mod book;
mod events;
mod g1;
mod g2;
mod g3;
mod hash;
mod k1;
mod k2;
mod k3;
mod l1;
mod l2;
mod l3;
mod l4;
mod l5;
mod l6;
mod ledger;
mod look;
mod merges;
mod p1;
mod p2;
mod p3;
mod p4;
mod p5;
mod p6;
mod p7;
mod p8;
pub(crate) mod quiet;
mod r1;
mod r5;
mod s1;
mod s2;
mod s3;
mod s4;
mod splits;
mod t1;
mod t10;
mod t2;
mod t3;
mod t4;
mod t5;
mod t6;
mod t7;
mod t8;
mod t9;
#[cfg(test)]
mod tests;
mod u1;

pub use book::{Book, Change, Electorate, GroupBook, News, Question, Seen, What};
pub use ledger::{Attempt, Denied, Event, Fresh, How, Ledger};
pub use look::{Everyone, Look, Peer, Step, Stored};

use synod_paxos::lease::LeaseSettings;
use synod_paxos::{GroupId, NodeId};
use synod_shard::{Input, Now, ShardMap};
use synod_txn::{Command, GroupSettings};

/// Violations kept per rule.
const PER_RULE: u32 = 5;

/// What the rules must know of the cluster.
#[derive(Clone, Debug)]
pub struct Setting {
    /// Its shards; splits add to them.
    pub map: ShardMap,
    /// How many nodes, by index.
    pub nodes: usize,
    /// All nodes' lease settings.
    pub lease: LeaseSettings,
    /// All nodes' transaction settings.
    pub txn: GroupSettings,
    /// How long a replica waits before it campaigns; nanoseconds
    /// ([`synod_paxos::Settings::election_nanos`]).
    pub election_nanos: u64,
    /// Monotonic clocks may run faster than true time by this many thousandths.
    pub fast: u64,
    /// The version that the cluster begins with (P8).
    pub version: synod_paxos::ClusterVersion,
    /// Everything is compared every so many steps; 0 = only when asked.
    pub full_every: u64,
}

/// A rule that does not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Its number.
    pub rule: &'static str,
    /// True time; nanoseconds.
    pub t: u64,
    /// The node whose step showed it; none if a comparison of all did.
    pub node: Option<NodeId>,
    /// What is wrong.
    pub text: String,
}

impl std::fmt::Display for Violation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Violation { rule, text, .. } = self;
        write!(f, "{rule}: {text}")?;
        match self.node {
            Some(node) => write!(f, " (seen at {node}, {} ns)", self.t),
            None => write!(f, " (seen at {} ns)", self.t),
        }
    }
}

/// What a rule says: nothing, or what is wrong.
pub(crate) type Verdict = Result<(), String>;

/// What a rule sees of a step.
pub struct Context<'a> {
    /// The node.
    pub look: &'a Look<'a>,
    /// All nodes.
    pub everyone: &'a Everyone<'a>,
    /// What the step changed. A restart changes nothing.
    pub news: &'a News,
    /// Replicas and groups.
    pub book: &'a Book,
    /// Attempts.
    pub ledger: &'a Ledger,
    /// The cluster.
    pub setting: &'a Setting,
}

/// An input, on its way into a node.
pub struct Taken<'a> {
    /// The node's index.
    pub node: usize,
    /// Its id.
    pub id: NodeId,
    /// Its clocks.
    pub now: Now,
    /// What.
    pub input: &'a Input,
    /// Its worker before it.
    pub book: &'a Book,
    /// The cluster.
    pub setting: &'a Setting,
}

/// One rule. Whatever it does not care for, it leaves as it is.
pub trait Rule {
    /// Its number.
    fn number(&self) -> &'static str;

    /// Whether it wants [`Rule::taken`].
    fn follows_inputs(&self) -> bool {
        false
    }

    /// An input goes into a node.
    fn taken(&mut self, _taken: &Taken<'_>) {}

    /// Something happened to an attempt; `ledger` does not know it yet.
    ///
    /// # Errors
    /// What is wrong.
    fn event(&mut self, _event: &Event<'_>, _ledger: &Ledger, _setting: &Setting) -> Verdict {
        Ok(())
    }

    /// A node has stepped.
    ///
    /// # Errors
    /// What is wrong.
    fn step(&mut self, _cx: &Context<'_>) -> Verdict {
        Ok(())
    }

    /// Compares everything.
    ///
    /// # Errors
    /// What is wrong.
    fn full(&mut self, _everyone: &Everyone<'_>, _book: &Book, _ledger: &Ledger) -> Verdict {
        Ok(())
    }

    /// A node is gone, its memory with it.
    fn crashed(&mut self, _node: usize) {}

    /// A node that is down has lost its engine's files.
    fn engine_lost(&mut self, _node: usize, _groups: &[GroupId]) {}

    /// A node came back; its worker is as recovery made it.
    ///
    /// # Errors
    /// What is wrong.
    fn restarted(&mut self, _cx: &Context<'_>) -> Verdict {
        Ok(())
    }
}

/// To compare everything may cost a step a look at so many attempts, on average.
const ATTEMPTS_PER_STEP: u64 = 4;

struct Watched {
    rule: Box<dyn Rule>,
    suspended: bool,
    found: u32,
}

/// All rules, and what they found.
pub struct Rules {
    setting: Setting,
    book: Book,
    ledger: Ledger,
    watched: Vec<Watched>,
    /// Rules that want inputs, by index.
    listeners: Vec<usize>,
    news: News,
    /// Room for what one step discloses.
    told: Vec<Event<'static>>,
    steps: u64,
    /// When everything is compared again.
    full_at: u64,
    violations: Vec<Violation>,
    /// Shards that were split off since last asked.
    born: Vec<GroupId>,
    /// Shards that were absorbed since last asked.
    absorbed: Vec<GroupId>,
    /// All that ever were.
    gone: Vec<GroupId>,
}

impl Rules {
    /// All rules, for this cluster before its first start.
    #[must_use]
    pub fn new(setting: Setting) -> Rules {
        let rules: Vec<Box<dyn Rule>> = vec![
            Box::new(k1::K1::default()),
            Box::new(k2::K2::default()),
            Box::new(k3::K3),
            Box::new(p1::P1::default()),
            Box::new(p2::P2::default()),
            Box::new(p3::P3),
            Box::new(p4::P4),
            Box::new(p5::P5::default()),
            Box::new(p6::P6),
            Box::new(p7::P7::default()),
            Box::new(p8::P8::default()),
            Box::new(l1::L1::default()),
            Box::new(l2::L2::new(&setting)),
            Box::new(l3::L3::default()),
            Box::new(l4::L4::default()),
            Box::new(l5::L5::default()),
            Box::new(l6::L6::new(&setting)),
            Box::new(t1::T1),
            Box::new(t2::T2),
            Box::new(t3::T3),
            Box::new(t4::T4::default()),
            Box::new(t5::T5::default()),
            Box::new(t6::T6::default()),
            Box::new(t7::T7),
            Box::new(t8::T8),
            Box::new(t9::T9::default()),
            Box::new(t10::T10),
            Box::new(r1::R1::default()),
            Box::new(r5::R5),
            Box::new(u1::U1),
            Box::new(g1::G1::default()),
            Box::new(g2::G2),
            Box::new(g3::G3::default()),
            Box::new(s1::S1),
            Box::new(s2::S2::default()),
            Box::new(s3::S3::default()),
            Box::new(s4::S4::default()),
        ];
        Rules::of(setting, rules)
    }

    /// Only these rules.
    fn of(setting: Setting, rules: Vec<Box<dyn Rule>>) -> Rules {
        let watched: Vec<Watched> = rules
            .into_iter()
            .map(|rule| Watched {
                rule,
                suspended: false,
                found: 0,
            })
            .collect();
        Rules {
            book: Book::new(&setting.map, setting.nodes),
            ledger: Ledger::default(),
            listeners: (0..watched.len())
                .filter(|i| watched[*i].rule.follows_inputs())
                .collect(),
            watched,
            news: News::default(),
            told: Vec::new(),
            steps: 0,
            full_at: setting.full_every,
            violations: Vec::new(),
            born: Vec::new(),
            absorbed: Vec::new(),
            gone: Vec::new(),
            setting,
        }
    }

    /// The numbers of all rules.
    pub fn numbers(&self) -> impl Iterator<Item = &'static str> {
        self.watched.iter().map(|w| w.rule.number())
    }

    /// From now on breaches of this rule are not reported: the run has faults
    /// beyond the model of which it says so. False if there is no such rule.
    pub fn suspend(&mut self, number: &str) -> bool {
        let mut found = false;
        for watched in &mut self.watched {
            if watched.rule.number() == number {
                watched.suspended = true;
                found = true;
            }
        }
        found
    }

    /// An input is about to go into a node.
    pub fn taken(&mut self, node: usize, id: NodeId, now: Now, input: &Input) {
        if let Input::Client { caller, request } = input {
            let stamp = self.ledger.stamp();
            self.book.ask(node, *caller, request, stamp);
            if let Some(attempt) = events::asked(request) {
                self.event(0, None, &Event::Asked { attempt });
            }
        }
        let taken = Taken {
            node,
            id,
            now,
            input,
            book: &self.book,
            setting: &self.setting,
        };
        for index in &self.listeners {
            self.watched[*index].rule.taken(&taken);
        }
    }

    /// A node has stepped.
    pub fn step(&mut self, look: &Look<'_>, everyone: &Everyone<'_>) {
        let mut news = std::mem::take(&mut self.news);
        self.book.observe(look, &mut news);
        self.follow(look, &news);
        let cx = Context {
            look,
            everyone,
            news: &news,
            book: &self.book,
            ledger: &self.ledger,
            setting: &self.setting,
        };
        for watched in &mut self.watched {
            if let Err(text) = watched.rule.step(&cx) {
                note(&mut self.violations, watched, look.t, Some(look.id), text);
            }
        }
        self.news = news;
        self.steps += 1;
        if self.setting.full_every > 0 && self.steps >= self.full_at {
            self.full(everyone);
            // It looks at every attempt there ever was: seldom where there are many.
            let attempts = self.ledger.attempts() as u64;
            self.full_at = self.steps + self.setting.full_every.max(attempts / ATTEMPTS_PER_STEP);
        }
    }

    /// From what was decided and disclosed to the ledger.
    fn follow(&mut self, look: &Look<'_>, news: &News) {
        let node = Some(look.id);
        for fresh in &news.fresh {
            self.event(look.t, node, &Event::Decided(fresh));
            if let Some(event) = events::of_entry(fresh, look.id) {
                self.event(look.t, node, &event);
            }
            if let Some(Command::Split(split)) = &fresh.command {
                let last = fresh.above.max(split.last);
                self.follow_split(look, (fresh.group, fresh.slot), split.child, last);
            }
            if let Some(Command::Absorb(absorb)) = &fresh.command {
                self.follow_merge(look, (fresh.group, fresh.slot), absorb);
            }
        }
        let mut told = std::mem::take(&mut self.told);
        for (caller, reply) in look.step.replies {
            if let Some(question) = self.book.question(look.node, *caller) {
                events::of_reply(look.id, question, reply, &mut told);
            }
        }
        for (_, message) in look.step.messages() {
            told.extend(events::of_message(look.id, &self.setting.map, message));
        }
        for event in told.drain(..) {
            self.event(look.t, node, &event);
        }
        self.told = told;
    }

    fn event(&mut self, t: u64, node: Option<NodeId>, event: &Event<'_>) {
        for watched in &mut self.watched {
            if let Err(text) = watched.rule.event(event, &self.ledger, &self.setting) {
                note(&mut self.violations, watched, t, node, text);
            }
        }
        self.ledger.take(event);
    }

    /// Compares everything; also done every [`Setting::full_every`] steps, and less
    /// often once there were very many attempts.
    pub fn full(&mut self, everyone: &Everyone<'_>) {
        for watched in &mut self.watched {
            if let Err(text) = watched.rule.full(everyone, &self.book, &self.ledger) {
                note(&mut self.violations, watched, everyone.t, None, text);
            }
        }
    }

    /// A node crashed; what its last step let out must have been shown before.
    pub fn crashed(&mut self, node: usize) {
        self.book.crashed(node);
        for watched in &mut self.watched {
            watched.rule.crashed(node);
        }
    }

    /// A node that is down has lost its engine's files: a fault, within the promises.
    pub fn engine_lost(&mut self, node: usize) {
        let known = self.setting.map.shards.iter().map(|s| s.id);
        let groups: Vec<GroupId> = known.chain(self.gone.iter().copied()).collect();
        for watched in &mut self.watched {
            watched.rule.engine_lost(node, &groups);
        }
    }

    /// A node has started, for the first time or again: its worker is as
    /// recovery made it, before its first step. `look.step` is empty.
    pub fn restarted(&mut self, look: &Look<'_>, everyone: &Everyone<'_>) {
        self.book.restarted(look.node, look.worker);
        let news = News::default();
        let cx = Context {
            look,
            everyone,
            news: &news,
            book: &self.book,
            ledger: &self.ledger,
            setting: &self.setting,
        };
        for watched in &mut self.watched {
            if let Err(text) = watched.rule.restarted(&cx) {
                note(&mut self.violations, watched, look.t, Some(look.id), text);
            }
        }
    }

    /// Once faults and clients have stopped and everything had its time: nothing
    /// may be left. Returns what is, in words, without counting it as a violation
    /// yet; empty if all is quiet.
    #[must_use]
    pub fn unrest(&self, everyone: &Everyone<'_>) -> String {
        quiet::unrest(everyone, &self.setting.map)
    }

    /// The last look: everything compared, all replicas level with equal states,
    /// nothing left behind, every attempt at its end.
    pub fn quiet(&mut self, everyone: &Everyone<'_>) {
        self.full(everyone);
        for (rule, text) in quiet::check(everyone, &self.setting.map, &self.ledger) {
            let suspended = |w: &Watched| w.rule.number() == rule && w.suspended;
            if !self.watched.iter().any(suspended) {
                self.violations.push(Violation {
                    rule,
                    t: everyone.t,
                    node: None,
                    text,
                });
            }
        }
    }

    /// What was found since last asked.
    pub fn take_violations(&mut self) -> Vec<Violation> {
        std::mem::take(&mut self.violations)
    }

    /// Whether anything was found that was not taken yet.
    #[must_use]
    pub fn is_violated(&self) -> bool {
        !self.violations.is_empty()
    }
}

fn note(
    violations: &mut Vec<Violation>,
    watched: &mut Watched,
    t: u64,
    node: Option<NodeId>,
    text: String,
) {
    if watched.suspended || watched.found >= PER_RULE {
        return;
    }
    watched.found += 1;
    violations.push(Violation {
        rule: watched.rule.number(),
        t,
        node,
        text,
    });
}
