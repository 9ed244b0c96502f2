//! A transaction under way: attempt after attempt, call after call.

use super::delivery::Owner;
use super::work::{self, Call, Cx, End, Latest, Load, Script};
use super::{Mode, PROCESSES, Pace, SimClient};
use crate::history::Outcome;
use synod_txn::client::{
    Begin, Done, Outgoing, Reply, Retry, RetrySettings, Transaction, TransactionError,
};
use synod_txn::request::LockMode;
use synod_txn::{AbortReason, Request, Response, Span};

const MS: u64 = 1_000_000;
/// Of the time for a commit this part, but no more than two seconds, is kept
/// for asking how it ended.
const STATUS_SHARE: u64 = 4;
const LONGEST_STATUS_SHARE: u64 = 2_000 * MS;

/// The longest a client waits that only reads.
const HASTE: u64 = 250 * MS;

/// Of a crowd's clients, in 1/1000: those that come back some other time.
const STRAGGLERS: u64 = 100;
/// A crowd arrives within this time.
const CROWDED: u64 = 5 * MS;

/// How long the cluster's clock is waited for.
const CLOCK_TIMEOUT: u64 = 300 * MS;

/// A scan of several pages.
struct Scan {
    reverse: bool,
    limit: u32,
}

/// A transaction, or one lock-free read.
pub(super) struct Running {
    pub(super) machine: Transaction,
    script: Box<dyn Script>,
    retry: Retry,
    invoked: u64,
    deadline: u64,
    /// When the next attempt begins; set between two attempts.
    pub(super) restart_at: Option<u64>,
    /// Set once commit was called: until when anything but the outcome is asked for.
    commit_until: Option<u64>,
    latest: bool,
    /// One of the final reads.
    last: bool,
    scan: Scan,
    wounds: u32,
}

impl SimClient {
    /// Goes on as far as it can: answers, the next calls, the next transaction.
    pub(super) fn pump(&mut self, t: u64) {
        // Twice: where one ends and the next begins in the same moment.
        for _ in 0..2 {
            self.take_answers(t);
            if self.running.is_none() && self.idle_until <= t {
                self.begin(t);
            }
            if let Some(running) = &self.running
                && running.restart_at.is_some_and(|at| at <= t)
            {
                self.attempt(t);
            }
            self.step(t);
            // Requests that were given up at once are answered already.
            self.take_answers(t);
            if self.running.is_some() || self.idle_until > t {
                break;
            }
        }
    }

    fn take_answers(&mut self, t: u64) {
        while !self.delivery.done.is_empty() {
            for (owner, reply) in std::mem::take(&mut self.delivery.done) {
                match (owner, &mut self.running) {
                    (Owner::Call(token), Some(running)) => {
                        let routes = &self.delivery.table.routes;
                        running.machine.handle_reply(routes, token, reply);
                    }
                    (Owner::Latest, Some(_)) => self.read_latest(t, reply),
                    _ => {}
                }
            }
            self.step(t);
        }
    }

    /// Begins the next transaction, if there is one.
    fn begin(&mut self, t: u64) {
        if self.random.chance(5) {
            self.delivery.forget_a_leader(&mut self.random);
        }
        let at_work = !matches!(self.mode, Mode::Done | Mode::Gone);
        if at_work && self.delivery.renew_clock(t, &mut self.random) {
            self.idle_until = t + CLOCK_TIMEOUT;
            return;
        }
        let config = &self.workload.config;
        let cx = &mut Cx {
            workload: &self.workload,
            random: &mut self.random,
            memory: &mut self.memory,
        };
        let (script, deadline) = match self.mode {
            Mode::Working => {
                let needs_data = config.weights.bank + config.weights.ring > 0;
                let script: Box<dyn Script> = if needs_data && !cx.memory.loaded {
                    Box::<Load>::default()
                } else {
                    work::random(cx)
                };
                let deadline = if cx.memory.reads_only {
                    // It gives up soon, and asks the same leader again.
                    cx.random.range(HASTE / 4, HASTE)
                } else if cx.random.chance(config.hurried) {
                    cx.random.range(config.deadline / 100, config.deadline / 10)
                } else {
                    config.deadline
                };
                (script, t + deadline)
            }
            Mode::Last(last, until) => {
                let Some(script) = last.script(cx) else {
                    return self.after_last(t, true);
                };
                (script, until)
            }
            Mode::Done | Mode::Gone => return,
        };
        let latest = script.latest(cx);
        let retry = Retry::new(RetrySettings::default(), self.random.next());
        self.running = Some(Running {
            machine: Transaction::new(Begin {
                attempt: synod_txn::AttemptId::default(),
                priority: synod_txn::Priority::default(),
                client: self.client_id(),
                read_only: true,
            }),
            script,
            retry,
            invoked: t,
            deadline,
            restart_at: None,
            commit_until: None,
            latest: latest.is_some(),
            last: matches!(self.mode, Mode::Last(..)),
            scan: Scan {
                reverse: false,
                limit: 0,
            },
            wounds: 0,
        });
        self.attempt(t);
        if let Some(latest) = latest {
            self.ask_latest(t, latest, deadline);
        }
    }

    /// A new attempt of the transaction under way, with its age kept.
    fn attempt(&mut self, t: u64) {
        let (now, client) = (self.delivery.now(t), self.client_id());
        let Some(running) = &mut self.running else {
            return;
        };
        let (attempt, priority) = running.retry.next_attempt(now, self.random.wide());
        running.machine = Transaction::new(Begin {
            attempt,
            priority,
            client,
            read_only: running.script.read_only(),
        });
        running.restart_at = None;
        running.commit_until = None;
        running.script.restart();
    }

    fn ask_latest(&mut self, t: u64, latest: Latest, deadline: u64) {
        let (mut shard, mut keys) = latest;
        let routes = &self.delivery.table.routes;
        let places: Option<Vec<_>> = keys.iter().map(|key| routes.place(key)).collect();
        let places = places.unwrap_or_default();
        let mut hashing = None;
        // One request goes to one shard, which the plain keys named.
        if let Some(first) = places.first()
            && places
                .iter()
                .all(|place| place.route.shard == first.route.shard)
        {
            shard = first.route.shard;
            hashing = places.iter().find_map(|place| place.hashing.cloned());
            keys = places.into_iter().map(|place| place.stored).collect();
        }
        let outgoing = Outgoing {
            token: 0,
            shard,
            after_nanos: 0,
            answered: true,
            hashing,
            request: Request::Latest { keys, scan: None },
        };
        let random = &mut self.random;
        self.delivery
            .deliver(t, Owner::Latest, outgoing, deadline, random);
    }

    /// The answer to a lock-free read.
    fn read_latest(&mut self, t: u64, reply: Reply) {
        let Some(running) = &mut self.running else {
            return;
        };
        let outcome = match reply {
            Reply::Answer(Response::Read { versions, .. }) => {
                let values = versions.into_iter().map(|v| v.and_then(|v| v.value));
                let cx = &mut Cx {
                    workload: &self.workload,
                    random: &mut self.random,
                    memory: &mut self.memory,
                };
                running.script.values(values.collect(), cx);
                Outcome::Committed(None)
            }
            _ => Outcome::Aborted,
        };
        self.end(t, outcome);
    }

    /// Goes on with the transaction as far as it can.
    fn step(&mut self, t: u64) {
        loop {
            self.send(t);
            let Some(running) = &mut self.running else {
                return;
            };
            if running.latest || running.restart_at.is_some() {
                return;
            }
            match running.machine.take_done() {
                Some(Ok(done)) => self.done(t, done),
                Some(Err(error)) => self.failed(t, &error),
                None if self.delivery.is_busy() => return,
                // Nothing that could bring an answer is under way.
                None if running.commit_until.is_some() => running.machine.give_up(),
                None => self.call(t),
            }
        }
    }

    /// Delivers what the machine wants.
    fn send(&mut self, t: u64) {
        let Some(running) = &mut self.running else {
            return;
        };
        for outgoing in running.machine.take_outgoing() {
            let owner = if outgoing.answered {
                Owner::Call(outgoing.token)
            } else {
                Owner::Chore
            };
            let asks = matches!(outgoing.request, Request::Status { .. });
            let until = match running.commit_until {
                Some(until) if !asks => until,
                _ => running.deadline,
            };
            self.delivery
                .deliver(t, owner, outgoing, until, &mut self.random);
        }
    }

    /// Makes the next call of the transaction.
    fn call(&mut self, t: u64) {
        let Some(running) = &mut self.running else {
            return;
        };
        let cx = &mut Cx {
            workload: &self.workload,
            random: &mut self.random,
            memory: &mut self.memory,
        };
        let routes = &self.delivery.table.routes;
        let called = match running.script.next(&mut running.machine, cx) {
            Call::Get(keys, mode) => running.machine.get(routes, keys, mode),
            Call::Scan {
                span,
                reverse,
                limit,
            } => {
                running.scan = Scan { reverse, limit };
                let mode = LockMode::Shared;
                running.machine.scan(routes, span, limit, reverse, mode)
            }
            Call::Commit => {
                let left = running.deadline.saturating_sub(t);
                let for_status = (left / STATUS_SHARE).min(LONGEST_STATUS_SHARE);
                running.commit_until = Some(running.deadline - for_status);
                let timeout = ((left - for_status) / MS).max(1) as u32;
                running.machine.commit(routes, &[], timeout)
            }
            Call::Rollback => {
                running.machine.rollback();
                self.send(t);
                return self.end(t, Outcome::Aborted);
            }
        };
        if let Err(error) = called {
            self.send(t);
            self.failed(t, &error);
        }
    }

    /// A call came to its end.
    fn done(&mut self, t: u64, done: Done) {
        let Some(running) = &mut self.running else {
            return;
        };
        let cx = &mut Cx {
            workload: &self.workload,
            random: &mut self.random,
            memory: &mut self.memory,
        };
        match done {
            Done::Values(values) => running.script.values(values, cx),
            Done::Page(page) => {
                let rest: Option<Span> = page.rest.clone();
                running.script.page(page, cx);
                if let Some(rest) = rest {
                    let Scan { reverse, limit } = running.scan;
                    let routes = &self.delivery.table.routes;
                    let mode = LockMode::Shared;
                    let called = running.machine.scan(routes, rest, limit, reverse, mode);
                    if let Err(error) = called {
                        self.failed(t, &error);
                    }
                }
            }
            Done::Committed(committed) => {
                self.end(t, Outcome::Committed(committed.timestamp.map(|t| t.0)));
            }
        }
    }

    /// The attempt failed.
    ///
    /// # Panics
    /// When the machine says that the client broke a rule, or a node did.
    fn failed(&mut self, t: u64, error: &TransactionError) {
        use TransactionError as E;
        let Some(running) = &mut self.running else {
            return;
        };
        match error {
            E::Aborted { reason, .. } => {
                running.wounds += u32::from(*reason == AbortReason::Wounded);
                if let Some(window) = running.machine.window() {
                    running.retry.within(window);
                }
                let pause = running.retry.pause(*reason);
                let restart = pause.map(|p| t + p).filter(|at| *at < running.deadline);
                if restart.is_some() {
                    running.restart_at = restart;
                    self.delivery.drop_calls();
                } else {
                    self.end(t, Outcome::Aborted);
                }
            }
            E::Unreachable { .. } => self.end(t, Outcome::Aborted),
            E::Unknown { .. } => self.end(t, Outcome::Unknown),
            E::Invalid(_) => {
                self.histories.tally.refused += 1;
                self.end(t, Outcome::Aborted);
            }
            other => panic!("client {}: {other}", self.id),
        }
    }

    /// It is over, as its client was told.
    fn end(&mut self, t: u64, outcome: Outcome) {
        self.delivery.drop_calls();
        let last = self.running.as_ref().is_some_and(|r| r.last);
        self.record(t, outcome);
        if last {
            self.after_last(t, matches!(outcome, Outcome::Committed(_)));
        } else {
            let committed = matches!(outcome, Outcome::Committed(_));
            self.idle_until = self.next_begin(t, committed);
        }
    }

    /// When the next transaction begins. In a crowd most clients come at the same
    /// moments, a few transactions each until one comes to nothing, and now and then one
    /// comes alone.
    fn next_begin(&mut self, t: u64, committed: bool) -> u64 {
        let config = &self.workload.config;
        let random = &mut self.random;
        let (least, most) = (config.think_least, config.think_most);
        match self.pace {
            None => t + random.range(least, most + 1),
            Some(Pace::Alone(most)) => t + random.range(least, most + 1),
            Some(Pace::Crowd(_)) if committed && random.chance(config.series) => {
                t + random.range(least, most + 1)
            }
            Some(Pace::Crowd(pause)) if random.chance(STRAGGLERS) => t + random.range(0, pause),
            Some(Pace::Crowd(pause)) => {
                let beat = (pause / 2).max(1);
                (t / beat + 1) * beat + random.range(0, CROWDED)
            }
        }
    }

    fn record(&mut self, t: u64, outcome: Outcome) {
        let Some(running) = self.running.take() else {
            return;
        };
        let tally = &mut self.histories.tally;
        tally.ended(outcome, running.retry.attempts(), running.wounds);
        let end = End {
            process: self.processes * PROCESSES + self.id,
            invoked: running.invoked,
            completed: t,
            outcome,
        };
        running
            .script
            .end(end, &mut self.memory, &mut self.histories);
        self.processes += u32::from(outcome == Outcome::Unknown);
    }

    /// Ends what is under way without an answer.
    pub(super) fn close(&mut self, t: u64) {
        if let Some(running) = &self.running {
            // What wrote nothing cannot take effect.
            let reads = running.latest || running.script.read_only();
            let outcome = if reads {
                Outcome::Aborted
            } else {
                Outcome::Unknown
            };
            self.record(t, outcome);
        }
    }

    /// The next final read, or the same again.
    fn after_last(&mut self, t: u64, committed: bool) {
        let Mode::Last(last, until) = self.mode else {
            return;
        };
        self.idle_until = t;
        if committed {
            let every = self.workload.config.thorough_every;
            let thorough = self.id.is_multiple_of(every);
            self.mode = match last.next(thorough, self.reader) {
                Some(next) => Mode::Last(next, until),
                None => Mode::Done,
            };
        } else if t >= until {
            self.histories.tally.unread += 1;
            self.mode = Mode::Done;
        } else {
            self.idle_until = t + 20 * MS;
        }
    }
}
