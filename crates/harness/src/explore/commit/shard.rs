//! One shard: a log that stands for its consensus group, the leader, and a
//! deposed one that does not know it.

use super::super::hash::{Digest, encoded, encoded_without, hash_of};
use super::setup::{AHEAD, WALL, settings, shard_of, term};
use serde::Serialize;
use std::fmt::{Display, Formatter};
use std::rc::Rc;
use synod_paxos::{GroupId, Mono, Slot, TermStart, Timestamp};
use synod_txn::effect::EngineRows;
use synod_txn::{
    Caller, Command, Cx, Effect, Group, Interval, PeerMessage, ReadToken, Request, Response,
    WriteBatch,
};

/// One log entry.
#[derive(Clone, Debug, Serialize)]
pub(super) enum Entry {
    Command(Command),
    Term(TermStart),
}

/// An entry in a log.
#[derive(Debug)]
pub(super) struct Logged {
    pub(super) entry: Entry,
    hash: u128,
}

impl Logged {
    pub(super) fn new(entry: Entry) -> Rc<Logged> {
        let hash = hash_of(&entry);
        Rc::new(Logged { entry, hash })
    }
}

/// What travels to a leader.
#[derive(Clone, Debug, Serialize)]
pub(super) enum Mail {
    Request(usize, Caller, Request),
    Peer(PeerMessage),
}

/// A message on its way.
#[derive(Clone, Debug)]
pub(super) struct Letter {
    pub(super) mail: Mail,
    pub(super) hash: u128,
}

impl Letter {
    fn new(mail: Mail) -> Letter {
        let hash = hash_of(&mail);
        Letter { mail, hash }
    }

    pub(super) fn request(shard: usize, from: Caller, request: Request) -> Letter {
        Letter::new(Mail::Request(shard, from, request))
    }

    pub(super) fn peer(message: PeerMessage) -> Letter {
        Letter::new(Mail::Peer(message))
    }

    /// The shard it is for.
    pub(super) fn shard(&self) -> usize {
        match &self.mail {
            Mail::Request(shard, ..) => *shard,
            Mail::Peer(message) => shard_of(&message.anchor),
        }
    }
}

impl Display for Letter {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        match &self.mail {
            Mail::Request(shard, from, request) => {
                let name = match request {
                    Request::Commit(_) => "Commit",
                    Request::Status { .. } => "Status",
                    _ => "Request",
                };
                let txn = ["young", "old"][(from.connection as usize).min(1)];
                write!(f, "client of {txn} → {}: {name}", shard + 1)
            }
            Mail::Peer(message) => write!(f, "{message}"),
        }
    }
}

/// A leader: the one of the newest term, or a deposed one.
#[derive(Clone, Debug)]
pub(super) struct Leader {
    pub(super) group: Group,
    /// Entries it knows to be decided, all applied.
    pub(super) decided: usize,
    /// Its own clock; nanoseconds.
    pub(super) now: Mono,
    pub(super) round: u64,
    /// Whether its wall clock is ahead.
    ahead: bool,
    hash: u128,
}

/// Which of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    /// The leader of the newest term.
    Leader,
    /// Its predecessor, which runs on. Nothing it proposes is decided any more,
    /// but it may still learn what was decided while it led.
    Deposed,
}

/// What a step sent out.
#[derive(Default)]
pub(super) struct Out {
    pub(super) responses: Vec<(Caller, Response)>,
    pub(super) peers: Vec<PeerMessage>,
    pub(super) writes: Vec<WriteBatch>,
    pub(super) reads: Vec<(ReadToken, Vec<bytes::Bytes>, Timestamp)>,
}

/// See the module.
#[derive(Clone, Debug)]
pub(super) struct Shard {
    pub(super) index: usize,
    /// What the newest leader has decided or proposed.
    pub(super) log: Vec<Rc<Logged>>,
    pub(super) leader: Rc<Leader>,
    /// The deposed leader, and how far the log is common with its own.
    pub(super) deposed: Option<(Rc<Leader>, usize)>,
    pub(super) hash: u128,
}

impl Leader {
    fn cx(&self, lease: bool) -> Cx {
        let wall = Timestamp(WALL + u64::from(self.ahead) * AHEAD);
        Cx {
            now: self.now,
            clock: Interval {
                earliest: wall,
                latest: wall,
            },
            limit: wall.plus(1_000_000),
            lease,
        }
    }

    fn apply(&mut self, entry: Entry) {
        self.decided += 1;
        let (slot, cx) = (Slot(self.decided as u64), self.cx(true));
        match entry {
            Entry::Command(command) => self.group.apply(&cx, slot, command),
            Entry::Term(start) => self.group.apply_term_start(&cx, slot, start),
        }
    }

    /// Everything but counters, on which nothing depends.
    fn rehash(&mut self) {
        let mut digest = Digest::default();
        digest.add_bytes(&encoded_without(
            &self.group,
            &["counters", "settings"],
            false,
        ));
        digest.add_bytes(&encoded(&(self.decided as u64, self.now, self.round)));
        self.hash = digest.end();
    }
}

impl Shard {
    /// An empty shard whose first leader is in office.
    pub(super) fn new(index: usize, ahead: bool) -> Shard {
        let group = GroupId(index as u64 + 1);
        let leader = Leader {
            group: Group::new(group, settings()),
            decided: 0,
            now: Mono(0),
            round: 0,
            ahead,
            hash: 0,
        };
        let mut shard = Shard {
            index,
            log: Vec::new(),
            leader: Rc::new(leader),
            deposed: None,
            hash: 0,
        };
        shard.change(0);
        shard.deposed = None;
        shard.rehash();
        shard
    }

    pub(super) fn of(&mut self, who: Who) -> Option<&mut Leader> {
        match (who, &mut self.deposed) {
            (Who::Leader, _) => Some(Rc::make_mut(&mut self.leader)),
            (Who::Deposed, Some((deposed, _))) => Some(Rc::make_mut(deposed)),
            (Who::Deposed, None) => None,
        }
    }

    /// Hands a leader one input and carries out what it wants.
    pub(super) fn input(&mut self, who: Who, run: impl FnOnce(&mut Group, &Cx)) -> Out {
        if let Some(leader) = self.of(who) {
            let cx = leader.cx(who == Who::Leader);
            run(&mut leader.group, &cx);
        }
        self.drain(who)
    }

    /// Proposals of the newest leader take their slots; a deposed one's are lost.
    fn drain(&mut self, who: Who) -> Out {
        let mut out = Out::default();
        let Some(leader) = self.of(who) else {
            return out;
        };
        let mut proposed = Vec::new();
        for effect in leader.group.drain_effects() {
            match effect {
                Effect::Propose { command, .. } => {
                    proposed.push(Logged::new(Entry::Command(command)))
                }
                Effect::Respond { to, response } => out.responses.push((to, response)),
                Effect::Peer { message, .. } => out.peers.push(message),
                Effect::Write(batch) => out.writes.push(batch),
                Effect::Read {
                    token, keys, at, ..
                } => out.reads.push((token, keys, at)),
                // Nobody validates here.
                Effect::Confirm { .. } => {}
            }
        }
        leader.rehash();
        if who == Who::Leader {
            self.log.append(&mut proposed);
        }
        out
    }

    /// Whether some timer of a leader fires within `nanos`.
    pub(super) fn is_due(&self, who: Who, nanos: u64) -> bool {
        let leader = match (who, &self.deposed) {
            (Who::Leader, _) => &self.leader,
            (Who::Deposed, Some((deposed, _))) => deposed,
            (Who::Deposed, None) => return false,
        };
        let next = leader.group.next_timeout();
        next.is_some_and(|at| at <= leader.now.plus(nanos))
    }

    /// How many entries a leader may still learn to be decided.
    pub(super) fn undecided(&self, who: Who) -> usize {
        match (who, &self.deposed) {
            (Who::Leader, _) => self.log.len() - self.leader.decided,
            (Who::Deposed, Some((deposed, end))) => end.saturating_sub(deposed.decided),
            (Who::Deposed, None) => 0,
        }
    }

    /// The next entry is decided and applied.
    pub(super) fn decide(&mut self, who: Who) -> Out {
        let log = std::mem::take(&mut self.log);
        if let Some(leader) = self.of(who)
            && let Some(logged) = log.get(leader.decided)
        {
            leader.apply(logged.entry.clone());
        }
        self.log = log;
        self.drain(who)
    }

    /// Another replica takes over, with the first `keep` undecided entries; it
    /// replays the log. The leader deposed runs on.
    pub(super) fn change(&mut self, keep: usize) -> Out {
        let end = (self.leader.decided + keep).min(self.log.len());
        self.log.truncate(end);
        let round = self.leader.round + 1;
        let ballot = term(self.index, round).ballot;
        let floor = self.leader.cx(true).limit;
        let start = Entry::Term(TermStart {
            ballot,
            term: ballot,
            floor,
        });
        self.log.push(Logged::new(start));
        let group = GroupId(self.index as u64 + 1);
        let mut fresh = Leader {
            group: Group::new(group, settings()),
            decided: 0,
            now: self.leader.now,
            round,
            ahead: self.leader.ahead,
            hash: 0,
        };
        for logged in &self.log {
            fresh.apply(logged.entry.clone());
        }
        let old = std::mem::replace(&mut self.leader, Rc::new(fresh));
        self.deposed = Some((old, end));
        let term = term(self.index, round);
        self.input(Who::Leader, |group, cx| group.take_office(cx, term))
    }

    /// The engine's answer to a read.
    pub(super) fn answer(&mut self, who: Who, token: ReadToken, rows: EngineRows) -> Out {
        self.input(who, |group, cx| group.handle_read(cx, token, rows))
    }

    pub(super) fn rehash(&mut self) {
        let mut digest = Digest::default();
        for logged in &self.log {
            digest.add(logged.hash);
        }
        digest.add(self.leader.hash);
        if let Some((deposed, end)) = &self.deposed {
            digest.add(deposed.hash);
            digest.add(*end as u128);
        }
        self.hash = digest.end();
    }
}

impl Display for Shard {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        write!(f, "shard {} term {}:", self.index + 1, self.leader.round)?;
        for (at, logged) in self.log.iter().enumerate() {
            let open = if at == self.leader.decided { " |" } else { "" };
            match &logged.entry {
                Entry::Command(command) => write!(f, "{open} [{command}]")?,
                Entry::Term(start) => write!(f, "{open} [term {}]", start.ballot)?,
            }
        }
        let open: Vec<_> = self.leader.group.open_intents().collect();
        write!(
            f,
            "; open intents {open:?}, locks {}",
            self.leader.group.locks()
        )?;
        if let Some((deposed, end)) = &self.deposed {
            let (term, decided) = (deposed.round, deposed.decided);
            write!(f, "; term {term} runs on, knows {decided} of {end} decided")?;
        }
        Ok(())
    }
}
