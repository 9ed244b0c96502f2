//! Shards as `Group`s with a trivial log each: what is proposed takes a slot
//! at once and is decided when the test says so.
#![allow(dead_code)]

use std::collections::{BTreeMap, VecDeque};
use synod_paxos::{Ballot, GroupId, Mono, NodeId, Slot, Term, TermStart, Timestamp};
use synod_txn::effect::EngineRows;
use synod_txn::request::ScanRange;
use synod_txn::*;

/// Where the wall clock starts; nanoseconds.
pub const EPOCH: u64 = 1_000_000_000_000;

#[derive(Clone, Debug)]
pub enum Entry {
    Command(Command),
    Term(TermStart),
}

/// Versions of every key, oldest first.
#[derive(Clone, Debug, Default)]
pub struct Engine {
    pub versions: BTreeMap<Key, BTreeMap<Timestamp, (AttemptId, Option<Value>)>>,
}

impl Engine {
    pub fn apply(&mut self, batch: &WriteBatch) {
        for (key, timestamp, attempt, value) in &batch.versions {
            let old = self
                .versions
                .entry(key.clone())
                .or_default()
                .insert(*timestamp, (*attempt, value.clone()));
            assert!(
                old.is_none_or(|o| o.0 == *attempt),
                "two versions at one timestamp"
            );
        }
    }

    fn get(&self, key: &[u8], at: Timestamp) -> Option<Version> {
        let (timestamp, (attempt, value)) = self.versions.get(key)?.range(..=at).next_back()?;
        Some(Version {
            value: value.clone(),
            timestamp: *timestamp,
            attempt: *attempt,
        })
    }

    pub fn read(&self, keys: &[Key], scan: Option<&ScanRange>, at: Timestamp) -> EngineRows {
        let versions = keys.iter().map(|key| self.get(key, at)).collect();
        let mut rows = Vec::new();
        let mut more = false;
        if let Some(scan) = scan.filter(|s| !s.span.is_empty()) {
            let mut found: Vec<Row> = self
                .versions
                .keys()
                .filter(|key| scan.span.contains(key))
                .filter_map(|key| {
                    let version = self.get(key, at)?;
                    Some(Row {
                        key: key.clone(),
                        value: version.value?,
                        timestamp: version.timestamp,
                    })
                })
                .collect();
            if scan.reverse {
                found.reverse();
            }
            more = found.len() > scan.limit as usize;
            found.truncate(scan.limit as usize);
            rows = found;
        }
        EngineRows {
            versions,
            rows,
            more,
        }
    }
}

/// One shard: its log, its leader, a follower, and the leader's engine.
#[derive(Clone, Debug)]
pub struct Shard {
    pub id: GroupId,
    pub settings: GroupSettings,
    pub log: Vec<Entry>,
    /// Entries decided.
    pub decided: usize,
    pub leader: Group,
    pub follower: Group,
    pub engine: Engine,
    pub unwritten: VecDeque<WriteBatch>,
    /// Reads the engine has not begun: it may be ahead of the question by then.
    pub reads: VecDeque<EngineRead>,
    pub confirms: VecDeque<u64>,
    pub round: u64,
    pub lease: bool,
    pub limit: Option<Timestamp>,
    /// Where the leader's wall clock stands against the others'; nanoseconds.
    pub skew: i64,
}

/// A read at the engine.
#[derive(Clone, Debug)]
pub struct EngineRead {
    token: ReadToken,
    keys: Vec<Key>,
    scan: Option<ScanRange>,
    at: Timestamp,
}

/// What a step sent out.
#[derive(Clone, Debug, Default)]
pub struct Out {
    pub proposed: Vec<(Slot, Command, bool)>,
    pub responses: Vec<(Caller, Response)>,
    pub peers: Vec<(GroupId, PeerMessage)>,
    pub asked: Vec<(ReadToken, Vec<Key>, Option<ScanRange>)>,
    pub rounds: Vec<u64>,
}

impl Shard {
    pub fn new(id: u64, settings: GroupSettings) -> Shard {
        let id = GroupId(id);
        Shard {
            id,
            leader: Group::new(id, settings.clone()),
            follower: Group::new(id, settings.clone()),
            settings,
            log: Vec::new(),
            decided: 0,
            engine: Engine::default(),
            unwritten: VecDeque::new(),
            reads: VecDeque::new(),
            confirms: VecDeque::new(),
            round: 0,
            lease: true,
            limit: None,
            skew: 0,
        }
    }

    pub fn cx(&self, now: Mono) -> Cx {
        let wall = (EPOCH + now.0).saturating_add_signed(self.skew);
        let wall = Timestamp(wall);
        Cx {
            now,
            clock: Interval {
                earliest: wall,
                latest: wall,
            },
            limit: self.limit.unwrap_or(wall.plus(1_000_000_000)),
            lease: self.lease,
        }
    }

    pub fn term_of(&self, round: u64) -> Term {
        Term {
            group: self.id,
            ballot: Ballot {
                round,
                node: NodeId(round % 3 + 1),
                ..Ballot::default()
            },
        }
    }

    pub fn term(&self) -> Term {
        self.term_of(self.round)
    }

    /// Carries out the leader's effects.
    pub fn drain(&mut self) -> Out {
        let mut out = Out::default();
        for effect in self.leader.drain_effects() {
            match effect {
                Effect::Propose { command, lazy } => {
                    self.log.push(Entry::Command(command.clone()));
                    let slot = Slot(self.log.len() as u64);
                    out.proposed.push((slot, command, lazy));
                }
                Effect::Respond { to, response } => out.responses.push((to, response)),
                Effect::Peer { shard, message } => out.peers.push((shard, message)),
                Effect::Read {
                    token,
                    keys,
                    scan,
                    at,
                } => {
                    out.asked.push((token, keys.clone(), scan.clone()));
                    self.reads.push_back(EngineRead {
                        token,
                        keys,
                        scan,
                        at,
                    });
                }
                Effect::Write(batch) => self.unwritten.push_back(batch),
                Effect::Confirm { token } => {
                    self.confirms.push_back(token);
                    out.rounds.push(token);
                }
            }
        }
        out
    }

    /// The engine answers the oldest read, as it stands now.
    pub fn read_one(&mut self) -> Option<(ReadToken, EngineRows)> {
        let read = self.reads.pop_front()?;
        let rows = self.engine.read(&read.keys, read.scan.as_ref(), read.at);
        Some((read.token, rows))
    }

    /// Decides and applies the next `count` entries, on leader and follower.
    pub fn decide(&mut self, now: Mono, count: usize) -> Out {
        let mut all = Out::default();
        for _ in 0..count {
            if self.decided == self.log.len() {
                break;
            }
            let entry = self.log[self.decided].clone();
            self.decided += 1;
            let slot = Slot(self.decided as u64);
            let cx = self.cx(now);
            for group in [&mut self.leader, &mut self.follower] {
                match entry.clone() {
                    Entry::Command(command) => group.apply(&cx, slot, command),
                    Entry::Term(start) => group.apply_term_start(&cx, slot, start),
                }
            }
            self.follower.drain_effects();
            self.follower.handle_engine_applied(slot);
            let out = self.drain();
            all.proposed.extend(out.proposed);
            all.responses.extend(out.responses);
            all.peers.extend(out.peers);
            all.asked.extend(out.asked);
            all.rounds.extend(out.rounds);
        }
        all
    }

    /// The engine takes in the oldest batch it lacks.
    pub fn write_one(&mut self) -> bool {
        let Some(batch) = self.unwritten.pop_front() else {
            return false;
        };
        self.engine.apply(&batch);
        self.leader.handle_engine_applied(batch.slot);
        true
    }

    /// The leader loses its office and takes it again in a new term, as the
    /// same replica, with the first `keep` undecided entries. Answers of the
    /// engine to its earlier reads may still come.
    pub fn retake(&mut self, now: Mono, keep: usize) -> (Vec<Caller>, Out) {
        self.leader.leave_office();
        let orphans = self.leader.take_orphans();
        let end = (self.decided + keep).min(self.log.len());
        self.log.truncate(end);
        self.round += 1;
        let floor = Timestamp(self.cx(now).limit.0);
        let ballot = self.term().ballot;
        self.log.push(Entry::Term(TermStart {
            ballot,
            term: ballot,
            floor,
        }));
        let mut out = self.decide(now, usize::MAX);
        assert_eq!(
            self.leader.digest(),
            self.follower.digest(),
            "P7: replicas differ"
        );
        let cx = self.cx(now);
        self.leader.take_office(&cx, self.term());
        let taken = self.drain();
        out.responses.extend(taken.responses);
        out.peers.extend(taken.peers);
        (orphans, out)
    }

    /// The leader is gone; another replica takes over with the first `keep`
    /// undecided entries. It is rebuilt by replaying the log, through a
    /// checkpoint after `restart` entries. Returns the callers left alone.
    pub fn take_over(&mut self, now: Mono, keep: usize, restart: usize) -> (Vec<Caller>, Out) {
        self.leader.leave_office();
        let orphans = self.leader.take_orphans();
        let end = (self.decided + keep).min(self.log.len());
        self.log.truncate(end);
        self.round += 1;
        let floor = Timestamp(self.cx(now).limit.0);
        let ballot = self.term().ballot;
        self.log.push(Entry::Term(TermStart {
            ballot,
            term: ballot,
            floor,
        }));
        let cx = self.cx(now);
        let mut fresh = Group::new(self.id, self.settings.clone());
        self.engine = Engine::default();
        self.unwritten.clear();
        self.reads.clear();
        self.confirms.clear();
        for (index, entry) in self.log.iter().enumerate() {
            let slot = Slot(index as u64 + 1);
            if index == restart {
                let checkpoint = fresh.checkpoint();
                while let Some(batch) = self.unwritten.pop_front() {
                    self.engine.apply(&batch);
                }
                fresh = Group::restore(self.id, self.settings.clone(), &checkpoint)
                    .expect("a checkpoint just taken");
                assert_eq!(fresh.checkpoint(), checkpoint);
            }
            match entry.clone() {
                Entry::Command(command) => fresh.apply(&cx, slot, command),
                Entry::Term(start) => fresh.apply_term_start(&cx, slot, start),
            }
            for effect in fresh.drain_effects() {
                match effect {
                    Effect::Write(batch) => self.unwritten.push_back(batch),
                    other => panic!("a replica out of office wants {other:?}"),
                }
            }
            if index >= self.decided {
                match entry.clone() {
                    Entry::Command(command) => self.follower.apply(&cx, slot, command),
                    Entry::Term(start) => self.follower.apply_term_start(&cx, slot, start),
                }
                self.follower.drain_effects();
                self.follower.handle_engine_applied(slot);
            }
        }
        self.decided = self.log.len();
        assert_eq!(
            fresh.digest(),
            self.follower.digest(),
            "P7: replicas differ"
        );
        self.leader = fresh;
        self.leader.take_office(&cx, self.term());
        let out = self.drain();
        (orphans, out)
    }
}
