//! Faults that were found once, each by the shortest way to it; what the golden
//! scripts cannot say, because it needs a log no correct peer left behind, or a
//! driver slower than the scripts' own.

use bytes::Bytes;
use synod_paxos::lease::{LeaseEffect, LeaseMessage, LeaseSettings, NodeLease};
use synod_paxos::{
    Ballot, Configuration, Cx, Durable, Effect, Entry, Epoch, GroupId, Incarnation, Message, Mono,
    NackReason, NodeId, ProposeError, Record, Replica, Role, Round, Settings, Slot, SnapshotId,
    SupportEpoch, Timestamp, Urgency,
};

const ME: NodeId = NodeId(1);
const PEER: NodeId = NodeId(2);
const OTHER: NodeId = NodeId(3);
const MS: u64 = 1_000_000;

fn ballot(round: u64, node: NodeId) -> Ballot {
    Ballot {
        epoch: Epoch(1),
        round,
        priority: 0,
        node,
    }
}

fn entry(slot: u64) -> Entry {
    Entry::Command(format!("v{slot}").as_bytes().into())
}

fn entries(slots: std::ops::RangeInclusive<u64>) -> Vec<Entry> {
    slots.map(entry).collect()
}

fn id(slot: u64, nonce: u64) -> SnapshotId {
    SnapshotId {
        slot: Slot(slot),
        nonce,
    }
}

/// A log `1..=last` under `under`, decided as far as `decided`.
fn log(under: Ballot, last: u64, decided: u64) -> Durable {
    let configuration = Configuration::of_voters(vec![ME, PEER, OTHER]);
    let mut durable = Durable::new(configuration);
    durable.replay(Record::Accept {
        ballot: under,
        first: Slot(1),
        entries: entries(1..=last),
        decided: Slot(decided),
        sync: Some((Slot(1), Slot(last))),
    });
    durable
}

fn promise(ballot: Ballot, accepted: Ballot, decided: u64, slots: (u64, u64)) -> Message {
    Message::Promise {
        ballot,
        accepted,
        last: Slot(slots.1),
        decided: Slot(decided),
        limit: Timestamp(0),
        first: Slot(slots.0),
        entries: entries(slots.0..=slots.1),
        more: false,
    }
}

fn chunk(ballot: Ballot, id: SnapshotId, chunk: u64, done: bool) -> Message {
    Message::SnapshotChunk {
        ballot,
        id,
        chunk,
        checksum: 0,
        data: Bytes::new(),
        done,
        began: None,
    }
}

/// One node, its disk, and everything it said.
struct Bench {
    replica: Replica,
    leases: NodeLease,
    disk: Durable,
    now: u64,
    said: Vec<(NodeId, Message)>,
    effects: Vec<Effect>,
}

impl Bench {
    fn new(durable: Durable, applied: u64, settings: Settings) -> Bench {
        let peers = vec![PEER, OTHER];
        let lease_settings = LeaseSettings::default();
        let leases = NodeLease::new(lease_settings, ME, Incarnation(1), peers, vec![], Mono(0));
        let disk = durable.clone();
        let (group, applied) = (GroupId(7), Slot(applied));
        let mut bench = Bench {
            replica: Replica::new(
                group,
                ME,
                settings,
                durable,
                applied,
                None,
                true,
                7,
                Mono(0),
            ),
            leases,
            disk,
            now: 0,
            said: Vec::new(),
            effects: Vec::new(),
        };
        bench.settle();
        bench
    }

    fn with<T>(&mut self, f: impl FnOnce(&mut Replica, &Cx<'_>) -> T) -> T {
        let cx = Cx {
            now: Mono(self.now),
            leases: &self.leases,
        };
        f(&mut self.replica, &cx)
    }

    fn hear(&mut self, from: NodeId, message: Message) {
        self.with(|r, cx| r.handle_message(cx, from, message));
    }

    /// Flushes, syncs at once, and checks that the disk holds what memory holds.
    fn settle(&mut self) {
        loop {
            self.with(Replica::flush);
            let effects = self.replica.drain_effects();
            if effects.is_empty() {
                break;
            }
            for effect in effects {
                match effect {
                    Effect::Persist {
                        records,
                        release,
                        seq,
                    } => {
                        records.into_iter().for_each(|r| self.disk.replay(r));
                        self.said.extend(release);
                        self.with(|r, cx| r.handle_persisted(cx, seq));
                    }
                    Effect::Send { to, message } => self.said.push((to, message)),
                    other => self.effects.push(other),
                }
            }
        }
        let memory = self.replica.durable();
        assert_eq!(self.disk.accepted, memory.accepted);
        assert_eq!(self.disk.trimmed, memory.trimmed);
        assert_eq!(self.disk.entries, memory.entries, "slot for slot");
    }

    /// Lets time pass until `found` finds something in what is said meanwhile.
    fn until<T>(
        &mut self,
        millis: u64,
        found: impl Fn(&(NodeId, Message)) -> Option<T>,
    ) -> Option<T> {
        for _ in 0..millis {
            self.now += MS;
            self.fire();
            if let Some(hit) = self.said.iter().find_map(&found) {
                return Some(hit);
            }
        }
        None
    }

    fn fire(&mut self) {
        if self.replica.next_timeout().is_some_and(|t| t.0 <= self.now) {
            self.with(Replica::handle_timeout);
        }
        self.settle();
    }

    /// Runs until Prepare is sent, with the votes of the others.
    fn campaign(&mut self) -> Option<Ballot> {
        self.said.clear();
        let asked = self.until(2_000, |(_, m)| match m {
            Message::PreVote { ballot, .. } => Some(*ballot),
            _ => None,
        })?;
        self.hear(PEER, Message::PreVoteReply { ballot: asked });
        self.settle();
        assert_eq!(self.replica.role(), Role::Candidate);
        Some(asked)
    }

    /// Leads under the ballot returned, promised by `OTHER`, whose log is empty.
    fn lead(&mut self) -> Ballot {
        let own = self.campaign().expect("it campaigns");
        let empty = promise(own, Ballot::default(), 0, (1, 0));
        self.hear(OTHER, empty);
        self.settle();
        assert_eq!(self.replica.role(), Role::Leader);
        own
    }

    /// `node` asks for this one's support, in that incarnation.
    fn support(&mut self, node: NodeId, holder: Incarnation) {
        let (now, at) = (Mono(self.now), Timestamp(self.now));
        let renew = LeaseMessage::Renew {
            holder,
            supporter: Incarnation(1),
            sent: now,
            lease_nanos: 600 * MS,
            want: at,
            earliest: at,
            latest: at,
        };
        self.leases.handle_message(now, (at, at), node, renew);
    }

    /// The other node, and this one, renew their support.
    fn renew(&mut self) {
        self.support(ME, Incarnation(1));
        let (now, at) = (Mono(self.now), Timestamp(self.now));
        let wall = (at, at);
        for node in [ME, OTHER] {
            let support = LeaseMessage::Support {
                holder: Incarnation(1),
                sent: now,
                epoch: SupportEpoch {
                    supporter: Incarnation(1),
                    holder: Incarnation(1),
                    counter: 1,
                },
                lease_nanos: 600 * MS,
                limit: Timestamp(self.now + 300 * MS),
                earliest: at,
                latest: at,
            };
            self.leases.handle_message(now, wall, node, support);
        }
        for effect in self.leases.drain_effects() {
            if let LeaseEffect::Persist { seq, .. } = effect {
                self.leases.handle_persisted(now, seq);
            }
        }
        if self.leases.take_changed() {
            self.with(Replica::handle_lease_change);
        }
    }

    fn opened(&self) -> usize {
        let opens = |e: &&Effect| matches!(e, Effect::ReadSnapshot { id: None, .. });
        self.effects.iter().filter(opens).count()
    }

    fn acks(&mut self) -> Vec<(SnapshotId, u64, bool)> {
        let said = std::mem::take(&mut self.said);
        said.into_iter()
            .filter_map(|(_, m)| match m {
                Message::SnapshotAck {
                    id,
                    next,
                    installed,
                    ..
                } => Some((id, next, installed)),
                _ => None,
            })
            .collect()
    }
}

/// P5: an engine ahead of its log proves nothing about the log's own entries.
#[test]
fn a_restart_with_an_engine_ahead_does_not_believe_undecided_entries() {
    let under = ballot(1, ME);
    let bench = Bench::new(log(under, 120, 90), 115, Settings::default());
    let r = &bench.replica;
    assert_eq!((r.decided(), r.trimmed()), (Slot(115), Slot(115)));
    assert_eq!((r.accepted(), r.last()), (under, Slot(120)), "P4");
    assert_eq!(r.entry(Slot(100)), None, "it was not decided");
    assert_eq!(r.entry(Slot(116)), Some(&entry(116)), "P4");
    assert_eq!(bench.disk.decided, Slot(115));
}

/// P3: the log stands still while phase 1 counts with it.
#[test]
fn a_campaign_is_not_trimmed_under_its_feet() {
    let old = ballot(1, PEER);
    let mut bench = Bench::new(log(old, 100, 90), 90, Settings::default());
    let own = bench.campaign().expect("it campaigns");
    let decided = Message::Decided {
        ballot: old,
        slot: Slot(100),
    };
    bench.hear(PEER, decided);
    bench.with(|r, cx| r.handle_applied(cx, Slot(100)));
    assert_eq!(bench.with(|r, cx| r.trim(cx, Slot(100))), Slot(0));
    let between = ballot(own.round - 1, OTHER);
    bench.hear(OTHER, promise(own, between, 100, (91, 120)));
    assert_eq!(bench.replica.role(), Role::Leader);
    // Before the sync is flushed no further than it joins on, then as usual.
    assert_eq!(bench.with(|r, cx| r.trim(cx, Slot(100))), Slot(90));
    bench.settle();
    assert_eq!(bench.with(|r, cx| r.trim(cx, Slot(100))), Slot(100));
    bench.settle();
    assert_eq!(bench.replica.entry(Slot(101)), Some(&entry(101)));
}

#[test]
fn nobody_campaigns_while_a_snapshot_is_being_installed() {
    let old = ballot(1, PEER);
    let mut bench = Bench::new(log(old, 90, 90), 90, Settings::default());
    bench.hear(PEER, chunk(old, id(100, 1), 0, true));
    assert_eq!(bench.replica.installing(), Some(Slot(100)));
    assert_eq!(bench.campaign(), None);
    bench.with(|r, cx| r.handle_snapshot_installed(cx, id(100, 1)));
    bench.settle();
    assert_eq!(bench.replica.trimmed(), Slot(100));
    assert!(bench.campaign().is_some());
}

#[test]
fn a_snapshot_that_begins_to_install_ends_a_campaign() {
    let old = ballot(1, PEER);
    let mut bench = Bench::new(log(old, 90, 90), 90, Settings::default());
    let own = bench.campaign().expect("it campaigns");
    let higher = ballot(own.round + 1, OTHER);
    bench.hear(OTHER, chunk(higher, id(100, 1), 0, true));
    assert_eq!(bench.replica.role(), Role::Follower);
    assert_eq!(bench.replica.ballot(), higher);
    bench.hear(PEER, promise(own, old, 90, (91, 90)));
    bench.settle();
    assert_eq!(bench.replica.role(), Role::Follower);
    bench.with(|r, cx| r.handle_snapshot_installed(cx, id(100, 1)));
    bench.settle();
}

/// L3: what was given up stays given up, whatever is given up after it.
#[test]
fn a_higher_relinquish_does_not_make_a_supporter_forget_the_one_it_follows() {
    let followed = ballot(1, PEER);
    let mut bench = Bench::new(log(followed, 1, 0), 0, Settings::default());
    let at = Timestamp(5);
    let renew = LeaseMessage::Renew {
        holder: Incarnation(1),
        supporter: Incarnation(1),
        sent: Mono(1),
        lease_nanos: 600 * MS,
        want: Timestamp(9),
        earliest: at,
        latest: at,
    };
    bench.leases.handle_message(Mono(1), (at, at), PEER, renew);
    bench.now = 2;
    let ask = |bench: &mut Bench, round| {
        bench.said.clear();
        let question = Message::PreVote {
            ballot: ballot(round, OTHER),
            accepted: ballot(1, OTHER),
            last: Slot(5),
            decided: Slot(0),
            relinquished: None,
        };
        bench.hear(OTHER, question);
        bench.settle();
        let yes = |(_, m): &(NodeId, Message)| matches!(m, Message::PreVoteReply { .. });
        bench.said.iter().any(yes)
    };
    assert!(!ask(&mut bench, 2), "it supports the leader it follows");
    let relinquish = |node, round, used| Message::Relinquish {
        ballot: ballot(round, node),
        used,
    };
    bench.hear(PEER, relinquish(PEER, 1, Some(Timestamp(3))));
    assert!(ask(&mut bench, 3));
    bench.hear(OTHER, relinquish(OTHER, 3, None));
    assert!(ask(&mut bench, 4), "also after a higher one");
    // What was used under it is not forgotten either.
    bench.said.clear();
    let prepare = Message::Prepare {
        ballot: ballot(5, OTHER),
        accepted: ballot(1, OTHER),
        last: Slot(5),
        decided: Slot(0),
        relinquished: None,
    };
    bench.hear(OTHER, prepare);
    bench.settle();
    let limit = bench.said.iter().find_map(|(_, m)| match m {
        Message::Promise { limit, .. } => Some(*limit),
        _ => None,
    });
    assert_eq!(limit, Some(Timestamp(3)));
}

/// L3: an Accept from before its restart may be heard when the node is supported in its present
/// incarnation. That it campaigns says that it does not lead; if nobody can promise it, others must try.
#[test]
fn who_follows_a_node_that_campaigns_in_vain_does_not_wait_for_it() {
    let followed = ballot(1, PEER);
    let mut durable = log(followed, 100, 100);
    durable.replay(Record::Trimmed { slot: Slot(100) });
    let mut bench = Bench::new(durable, 100, Settings::default());
    let until = |bench: &mut Bench, found: fn(&Message) -> bool| {
        bench.said.clear();
        (0..5_000).any(|turn| {
            bench.now += MS;
            if turn % 100 == 0 {
                bench.support(PEER, Incarnation(2));
            }
            bench.fire();
            bench.said.iter().any(|(_, m)| found(m))
        })
    };
    let is_contested = |m: &Message| matches!(m, Message::Contested { .. });
    bench.support(PEER, Incarnation(2));
    let late = Message::Accept {
        ballot: followed,
        first: Slot(101),
        entries: Vec::new(),
        decided: Slot(100),
        sync: None,
        round: Round(0),
    };
    bench.hear(PEER, late);
    assert!(!until(&mut bench, is_contested), "it seems to lead");
    let behind = Message::PreVote {
        ballot: ballot(2, PEER),
        accepted: followed,
        last: Slot(50),
        decided: Slot(40),
        relinquished: None,
    };
    bench.hear(PEER, behind);
    assert!(until(&mut bench, is_contested), "does it lead?");
    let no = Message::Relinquish {
        ballot: followed,
        used: None,
    };
    bench.hear(PEER, no);
    let campaigns = |m: &Message| matches!(m, Message::PreVote { .. });
    assert!(until(&mut bench, campaigns));
}

#[test]
fn a_relinquish_that_comes_late_is_learned_below_a_higher_one() {
    let followed = ballot(1, PEER);
    let mut bench = Bench::new(log(followed, 1, 0), 0, Settings::default());
    for (node, round) in [(OTHER, 3), (PEER, 1)] {
        let given_up = Message::Relinquish {
            ballot: ballot(round, node),
            used: None,
        };
        bench.hear(node, given_up);
    }
    let asked = bench.until(500, |(_, m)| match m {
        Message::PreVote { relinquished, .. } => Some(*relinquished),
        _ => None,
    });
    assert_eq!(asked, Some(Some(followed)));
}

fn trimmed_log() -> Durable {
    let mut durable = log(ballot(1, ME), 100, 100);
    durable.replay(Record::Trimmed { slot: Slot(100) });
    durable
}

/// L6 is about support: a leader whose only live follower needs a long snapshot
/// has no lease meanwhile, but stays.
#[test]
fn a_supported_leader_stays_while_its_followers_catch_up() {
    let mut bench = Bench::new(trimmed_log(), 100, Settings::default());
    for _ in 0..3 {
        bench.renew();
        bench.now += MS;
    }
    let own = bench.lead();
    let mut chunks = 0;
    for _ in 0..5_000 {
        bench.now += MS;
        if bench.now.is_multiple_of(100 * MS) {
            bench.renew();
        }
        bench.fire();
        for effect in std::mem::take(&mut bench.effects) {
            match effect {
                Effect::ReadSnapshot { to, chunk, .. } => bench.with(|r, cx| {
                    r.handle_snapshot_read(cx, to, id(100, 1), chunk, Bytes::new(), false);
                }),
                Effect::Deposed { .. } => panic!("it stepped down at {} ms", bench.now / MS),
                _ => {}
            }
        }
        bench.settle();
        for (to, message) in std::mem::take(&mut bench.said) {
            if let Message::SnapshotChunk {
                ballot, id, chunk, ..
            } = message
            {
                chunks = chunk + 1;
                let ack = Message::SnapshotAck {
                    ballot,
                    id,
                    next: chunk + 1,
                    installed: false,
                };
                bench.hear(to, ack);
            }
        }
    }
    assert_eq!(bench.replica.term_ballot(), Some(own));
    assert!(chunks > 1_000, "only {chunks} chunks");
    // Without support it gives up, as ever.
    let gone = bench.until(2_000, |(_, m)| {
        matches!(m, Message::Relinquish { .. }).then_some(())
    });
    assert!(gone.is_some());
}

#[test]
fn a_snapshot_that_opens_slowly_is_opened_once() {
    let mut bench = Bench::new(trimmed_log(), 100, Settings::default());
    for _ in 0..3 {
        bench.renew();
        bench.now += MS;
    }
    bench.lead();
    for _ in 0..4_000 {
        bench.now += MS;
        if bench.now.is_multiple_of(100 * MS) {
            bench.renew();
        }
        bench.fire();
    }
    assert_eq!(bench.opened(), 1);
    bench.said.clear();
    bench.with(|r, cx| r.handle_snapshot_read(cx, OTHER, id(100, 1), 0, Bytes::new(), false));
    bench.settle();
    let sent = |(_, m): &(NodeId, Message)| matches!(m, Message::SnapshotChunk { .. });
    assert!(bench.said.iter().any(sent));
}

/// A transfer is given up while its snapshot opens, and another begun: the answers to both
/// wishes come, and only what was opened last can be read on.
#[test]
fn of_two_snapshots_opened_for_a_follower_the_later_is_sent() {
    let mut bench = Bench::new(trimmed_log(), 100, Settings::default());
    for _ in 0..3 {
        bench.renew();
        bench.now += MS;
    }
    let own = bench.lead();
    let (given_up, open) = (id(100, 1), id(100, 2));
    bench.with(|r, cx| r.handle_snapshot_read(cx, OTHER, given_up, 0, Bytes::new(), false));
    bench.settle();
    let ack = |id| Message::SnapshotAck {
        ballot: own,
        id,
        next: 1,
        installed: false,
    };
    bench.hear(OTHER, ack(given_up));
    bench.said.clear();
    bench.with(|r, cx| r.handle_snapshot_read(cx, OTHER, open, 0, Bytes::new(), false));
    bench.settle();
    let begins = |(_, m): &(NodeId, Message)| matches!(m, Message::SnapshotChunk { id, chunk: 0, .. } if *id == open);
    assert!(bench.said.iter().any(begins));
    bench.effects.clear();
    bench.hear(OTHER, ack(open));
    bench.settle();
    let reads_on =
        |e: &Effect| matches!(e, Effect::ReadSnapshot { id, chunk: 1, .. } if *id == Some(open));
    assert!(bench.effects.iter().any(reads_on));
}

#[test]
fn while_it_installs_a_follower_answers_repeated_chunks() {
    let old = ballot(1, PEER);
    let mut bench = Bench::new(log(old, 90, 90), 90, Settings::default());
    bench.hear(PEER, chunk(old, id(100, 1), 0, false));
    bench.hear(PEER, chunk(old, id(100, 1), 1, true));
    bench.settle();
    assert_eq!(bench.acks(), [(id(100, 1), 1, false)]);
    // The last chunk again, and an old one that comes late: still at the last.
    for late in [1, 0] {
        bench.hear(PEER, chunk(old, id(100, 1), late, late == 1));
        bench.settle();
        assert_eq!(bench.acks(), [(id(100, 1), 1, false)]);
    }
    // Another sender is kept where it is as well.
    bench.hear(OTHER, chunk(ballot(2, OTHER), id(110, 9), 0, false));
    bench.settle();
    assert_eq!(bench.acks(), [(id(110, 9), 0, false)]);
    bench.with(|r, cx| r.handle_snapshot_installed(cx, id(100, 1)));
    bench.settle();
    assert_eq!(bench.acks(), [(id(100, 1), 2, true)]);
}

/// A leader in office whose follower `OTHER` needs a snapshot from slot 100 on.
fn leader_with_a_snapshot_on_its_way(settings: Settings) -> (Bench, Ballot) {
    let mut bench = Bench::new(trimmed_log(), 100, settings);
    let own = bench.lead();
    let accepted = |last| Message::Accepted {
        ballot: own,
        last: Slot(last),
        support: SupportEpoch::NONE,
        round: Round(0),
        data: true,
    };
    bench.hear(PEER, accepted(101));
    bench.with(|r, cx| r.handle_applied(cx, Slot(101)));
    bench.settle();
    assert!(bench.replica.in_office());
    assert_eq!(bench.opened(), 1);
    bench.with(|r, cx| r.handle_snapshot_read(cx, OTHER, id(100, 1), 0, Bytes::new(), false));
    bench.settle();
    (bench, own)
}

#[test]
fn a_running_snapshot_pins_the_log_only_up_to_a_bound() {
    let settings = Settings {
        undecided_bytes: 1_000,
        ..Settings::default()
    };
    let (mut bench, own) = leader_with_a_snapshot_on_its_way(settings);
    let mut trimmed = Slot(0);
    let mut most = 0;
    for last in 102..300 {
        let text = vec![b'x'; 100][..].into();
        let slot = bench
            .with(|r, cx| r.propose(cx, text, Urgency::Now))
            .unwrap();
        assert_eq!(slot, Slot(last));
        bench.settle();
        let accepted = Message::Accepted {
            ballot: own,
            last: slot,
            support: SupportEpoch::NONE,
            round: Round(0),
            data: true,
        };
        bench.hear(PEER, accepted);
        bench.with(|r, cx| r.handle_applied(cx, slot));
        trimmed = bench.with(|r, cx| r.trim(cx, slot));
        bench.settle();
        most = most.max(bench.replica.log_bytes());
        if trimmed > Slot(100) {
            break;
        }
    }
    assert!(trimmed > Slot(110), "the log is trimmed in the end");
    assert!((3_000..5_000).contains(&most), "at {most} bytes");
    let closed = |e: &Effect| matches!(e, Effect::CloseSnapshot { to } if *to == OTHER);
    assert!(bench.effects.iter().any(closed), "the snapshot starts over");
    let gap = Message::Nack {
        ballot: own,
        reason: NackReason::Gap(Slot(0)),
    };
    bench.hear(OTHER, gap);
    bench.settle();
    assert_eq!(bench.opened(), 2);
}

/// T9: what has its slot promised is refused only far beyond the bound at which
/// the layer above stops admitting.
#[test]
fn proposals_beyond_the_soft_bound_are_taken() {
    let settings = Settings {
        undecided_bytes: 1_000,
        ..Settings::default()
    };
    let (mut bench, _) = leader_with_a_snapshot_on_its_way(settings);
    let mut taken = 0;
    let error = loop {
        let text = vec![b'x'; 100][..].into();
        match bench.with(|r, cx| r.propose(cx, text, Urgency::Now)) {
            Ok(_) => taken += 1,
            Err(error) => break error,
        }
        assert_eq!(
            bench.replica.undecided_full(),
            bench.replica.undecided_bytes() >= 1_000
        );
    };
    assert!(taken > 20, "only {taken}");
    assert!(matches!(
        error,
        ProposeError::Overloaded { bound: 4_000, .. }
    ));
}

/// L1, P1: a leader may go on counting those who accepted under its ballot and were retired since, as none
/// of them ever takes part in a configuration of the group again, after a restart neither.
#[test]
fn who_was_retired_neither_promises_nor_accepts_in_its_group_again() {
    let followed = ballot(1, PEER);
    let mut bench = Bench::new(log(followed, 3, 3), 3, Settings::default());
    bench.with(Replica::retire);
    bench.settle();
    assert!(bench.effects.contains(&Effect::Destroy));
    bench.with(Replica::handle_destroyed);
    bench.settle();
    let restarted = Bench::new(bench.disk.clone(), 0, Settings::default());
    for mut bench in [bench, restarted] {
        let before = bench.replica.durable();
        assert_eq!((before.promised.epoch, before.entries.len()), (Epoch(2), 0));
        bench.said.clear();
        let higher = ballot(9, OTHER);
        let (accepted, last, decided) = (followed, Slot(3), Slot(3));
        let relinquished = None;
        let asks = [
            Message::PreVote {
                ballot: higher,
                accepted,
                last,
                decided,
                relinquished,
            },
            Message::Prepare {
                ballot: higher,
                accepted,
                last,
                decided,
                relinquished,
            },
            Message::Accept {
                ballot: higher,
                first: Slot(1),
                entries: entries(1..=3),
                decided,
                sync: Some((Slot(1), Slot(3))),
                round: Round(0),
            },
            Message::Settled {
                epoch: Epoch(1),
                first: Slot(1),
                entries: entries(1..=3),
                end: Slot(3),
            },
            chunk(higher, id(3, 1), 0, true),
            chunk(Ballot::founding(Epoch(1)), id(3, 2), 0, true),
        ];
        for message in asks {
            bench.hear(OTHER, message);
            bench.settle();
        }
        assert_eq!(bench.replica.durable(), before);
        assert_eq!(bench.replica.installing(), None);
        // Who asks from further behind is told that the group went on; no answer is another.
        let tells = |(_, m): &(NodeId, Message)| matches!(m, Message::Held { holds: false, .. });
        assert!(bench.said.iter().all(tells), "{:?}", bench.said);
    }
}
