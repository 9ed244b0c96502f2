//! One node: replica, leases, disk, and what is on its way.

use super::super::hash::{Digest, encoded, encoded_without, hash_of};
use super::{GIVE_UP, TICK, wall};
use serde::Serialize;
use std::collections::VecDeque;
use std::fmt::{Display, Formatter};
use std::rc::Rc;
use synod_paxos::lease::{LeaseEffect, LeaseMessage, LeaseRecord, LeaseSettings, NodeLease};
use synod_paxos::{
    Ballot, Configuration, Cx, Durable, Effect, GroupId, Incarnation, Message, Mono, NodeId,
    PersistSeq, Record, Replica, Role, Settings, Slot, SupportEpoch, Timestamp,
};

/// Counters, and the clock check's view of the peers' walls.
const UNUSED_OF_LEASES: &[&str] = &["ignored", "settings", "walls", "round_trips"];

/// What a message carries.
#[derive(Clone, Debug, Serialize)]
pub(super) enum Body {
    Paxos(Message),
    Lease(LeaseMessage),
}

/// One message on the way.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Packet {
    pub(super) from: NodeId,
    pub(super) to: NodeId,
    pub(super) body: Body,
    #[serde(skip)]
    pub(super) hash: u128,
}

impl Packet {
    fn new(from: NodeId, to: NodeId, body: Body) -> Packet {
        let mut packet = Packet {
            from,
            to,
            body,
            hash: 0,
        };
        packet.hash = hash_of(&packet);
        packet
    }

    /// Whether it asks for support.
    pub(super) fn is_renew(&self) -> bool {
        matches!(self.body, Body::Lease(LeaseMessage::Renew { .. }))
    }

    /// Whether only leases and elections under leases depend on it.
    pub(super) fn is_for_leases(&self) -> bool {
        match &self.body {
            Body::Lease(_) => true,
            Body::Paxos(message) => matches!(
                message,
                Message::PreVote { .. }
                    | Message::PreVoteReply { .. }
                    | Message::Contested { .. }
                    | Message::Relinquish { .. }
            ),
        }
    }
}

impl Display for Packet {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        match &self.body {
            Body::Paxos(message) => write!(f, "{}→{} {message}", self.from, self.to),
            Body::Lease(message) => write!(f, "{}→{} {message:?}", self.from, self.to),
        }
    }
}

/// Puts messages on the way, in order of their hashes.
pub(super) fn note_packets(net: &mut Vec<Rc<Packet>>, sent: Vec<Packet>) {
    for packet in sent {
        // A vote before a campaign is forged when it is needed.
        if let Body::Paxos(Message::PreVote { .. } | Message::PreVoteReply { .. }) = packet.body {
            continue;
        }
        let place = net.partition_point(|p| p.hash < packet.hash);
        net.insert(place, Rc::new(packet));
    }
}

/// A persist effect that has not completed.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Pending {
    records: Vec<Record>,
    release: Vec<(NodeId, Message)>,
    seq: PersistSeq,
}

impl Display for Pending {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        for record in &self.records {
            write!(f, " [{record}]")?;
        }
        if self.records.is_empty() {
            write!(f, " all before")?;
        }
        Ok(())
    }
}

/// What survives a crash.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Disk {
    pub(super) durable: Durable,
    leases: Vec<LeaseRecord>,
    incarnation: u64,
}

/// See the module.
#[derive(Clone)]
pub(super) struct Node {
    pub(super) id: NodeId,
    pub(super) replica: Replica,
    pub(super) leases: NodeLease,
    pub(super) disk: Disk,
    pub(super) pending: VecDeque<Pending>,
    /// What left in the step that runs.
    pub(super) sent: Vec<Packet>,
    pub(super) hash: u128,
}

fn members() -> Vec<NodeId> {
    (1..=3).map(NodeId).collect()
}

/// Every wait is over at once: with time standing still, a timer is due
/// whenever it is armed, and no jitter is drawn.
fn settings(parts: bool) -> Settings {
    let whole = Settings::default().message_bytes;
    Settings {
        message_bytes: if parts { 1 } else { whole },
        election_nanos: 0,
        retry_nanos: 0,
        lazy_nanos: 0,
        ..Settings::default()
    }
}

fn lease_settings() -> LeaseSettings {
    LeaseSettings {
        rate_error_per_million: 0,
        ..LeaseSettings::of_lease(2 * TICK)
    }
}

/// A node that starts for the first time.
pub(super) fn fresh_node(id: NodeId, leases: bool, parts: bool) -> Node {
    let disk = Disk {
        durable: Durable::new(Configuration::of_voters(members())),
        leases: Vec::new(),
        incarnation: 0,
    };
    let mut node = Node {
        id,
        replica: replica(id, disk.durable.clone(), parts),
        leases: support(id, 1, Vec::new(), Mono(0)),
        disk,
        pending: VecDeque::new(),
        sent: Vec::new(),
        hash: 0,
    };
    node.restart(Mono(0), leases, parts);
    node.rehash();
    node
}

fn replica(id: NodeId, durable: Durable, parts: bool) -> Replica {
    // The engine has synced nothing: everything is applied again.
    Replica::new(
        GroupId(1),
        id,
        settings(parts),
        durable,
        Slot(0),
        None,
        true,
        id.0,
        Mono(0),
    )
}

fn support(id: NodeId, incarnation: u64, records: Vec<LeaseRecord>, now: Mono) -> NodeLease {
    let incarnation = Incarnation(incarnation);
    NodeLease::new(lease_settings(), id, incarnation, members(), records, now)
}

/// Support that is held and never given: a leader goes on leading when its timers
/// fire, and nobody refuses anybody for its sake.
fn held(id: NodeId) -> NodeLease {
    let mut leases = support(id, 1, Vec::new(), Mono(0));
    let one = Incarnation(1);
    for from in members() {
        let message = LeaseMessage::Support {
            holder: one,
            sent: Mono(0),
            epoch: SupportEpoch {
                supporter: one,
                holder: one,
                counter: 1,
            },
            lease_nanos: TICK,
            limit: Timestamp(0),
            earliest: Timestamp(0),
            latest: Timestamp(0),
        };
        leases.handle_message(Mono(0), wall(Mono(0)), from, message);
    }
    leases.take_changed();
    leases
}

impl Node {
    /// Starts from the disk; what had not completed is gone.
    pub(super) fn restart(&mut self, now: Mono, leases: bool, parts: bool) {
        self.pending.clear();
        self.disk.incarnation += 1;
        self.replica = replica(self.id, self.disk.durable.clone(), parts);
        self.leases = if leases {
            let records = self.disk.leases.clone();
            support(self.id, self.disk.incarnation, records, now)
        } else {
            support(self.id, 1, Vec::new(), now)
        };
        self.leases.take_changed();
    }

    /// Everything armed is due. Without leases a leader is taken for supported at
    /// this moment: else it would step down instead of sending anything again.
    pub(super) fn fire(&mut self, now: Mono, leases: bool) {
        if leases {
            return self.input(now, Replica::handle_timeout);
        }
        let held = held(self.id);
        self.replica.handle_timeout(&Cx { now, leases: &held });
    }

    /// One input to the replica; nothing is carried out yet.
    pub(super) fn input<T>(&mut self, now: Mono, f: impl FnOnce(&mut Replica, &Cx<'_>) -> T) -> T {
        let cx = Cx {
            now,
            leases: &self.leases,
        };
        f(&mut self.replica, &cx)
    }

    /// The ballot of the campaign about to begin, from its question, which is lost.
    pub(super) fn take_question(&mut self) -> Option<Ballot> {
        let effects = self.replica.drain_effects();
        effects.into_iter().find_map(|effect| match effect {
            Effect::Send {
                message: Message::PreVote { ballot, .. },
                ..
            } => Some(ballot),
            _ => None,
        })
    }

    /// Ends a campaign that runs, as its timer would after the last try.
    pub(super) fn give_up(&mut self, now: Mono) {
        for _ in 0..GIVE_UP {
            if !matches!(self.replica.role(), Role::Candidate) {
                return;
            }
            self.input(now, Replica::handle_timeout);
            self.input(now, Replica::flush);
            // The repeated questions are lost; nothing else is in there.
            let _questions = self.replica.drain_effects();
        }
    }

    /// Flushes and carries out effects until the node is quiet.
    pub(super) fn settle(&mut self, now: Mono) -> Result<(), String> {
        loop {
            if self.leases.take_changed() {
                self.input(now, Replica::handle_lease_change);
            }
            self.input(now, Replica::flush);
            let effects = self.replica.drain_effects();
            let lease_effects = self.leases.drain_effects();
            if effects.is_empty() && lease_effects.is_empty() {
                return Ok(());
            }
            for effect in effects {
                self.carry_out(now, effect)?;
            }
            for effect in lease_effects {
                self.carry_out_lease(now, effect);
            }
        }
    }

    fn carry_out(&mut self, now: Mono, effect: Effect) -> Result<(), String> {
        match effect {
            Effect::Send { to, message } => {
                self.sent
                    .push(Packet::new(self.id, to, Body::Paxos(message)));
            }
            Effect::Persist {
                records,
                release,
                seq,
            } => self.pending.push_back(Pending {
                records,
                release,
                seq,
            }),
            Effect::Decided { .. } => {
                let decided = self.replica.decided();
                self.input(now, |r, cx| r.handle_applied(cx, decided));
            }
            Effect::Deposed { .. } | Effect::Confirmed { .. } => {}
            other => return Err(format!("{} wants {other}: not part of this", self.id)),
        }
        Ok(())
    }

    fn carry_out_lease(&mut self, now: Mono, effect: LeaseEffect) {
        match effect {
            LeaseEffect::Send { to, message } => self.send_lease(now, to, message),
            LeaseEffect::Persist {
                record,
                release,
                seq,
            } => {
                self.disk.leases.retain(|r| r.holder != record.holder);
                self.disk.leases.push(record);
                self.leases.handle_persisted(now, seq);
                for (to, message) in release {
                    self.send_lease(now, to, message);
                }
            }
        }
    }

    fn send_lease(&mut self, now: Mono, to: NodeId, message: LeaseMessage) {
        if to == self.id {
            self.leases.handle_message(now, wall(now), to, message);
        } else {
            self.sent
                .push(Packet::new(self.id, to, Body::Lease(message)));
        }
    }

    /// The oldest persist effect completes.
    pub(super) fn complete(&mut self, now: Mono) {
        let Some(done) = self.pending.pop_front() else {
            return;
        };
        for record in done.records {
            self.disk.durable.replay(record);
        }
        for (to, message) in done.release {
            self.sent
                .push(Packet::new(self.id, to, Body::Paxos(message)));
        }
        self.input(now, |r, cx| r.handle_persisted(cx, done.seq));
    }

    /// Whether this node neither leads nor campaigns under `ballot`, its own, and
    /// never will again.
    pub(super) fn has_left(&self, ballot: Ballot) -> bool {
        let now = self.replica.role() != Role::Follower && self.replica.ballot() == ballot;
        !now && self.disk.durable.promised >= ballot
    }

    /// Whether its next Renew is due.
    pub(super) fn may_renew(&self, now: Mono) -> bool {
        let mut trial = self.leases.clone();
        trial.handle_timeout(now, wall(now));
        !trial.drain_effects().is_empty()
    }

    /// Hashes everything that later steps depend on: not what was ignored, nor since
    /// when a timer of the replica is due, nor clocks that nobody here looks at.
    pub(super) fn rehash(&mut self) {
        let mut digest = Digest::default();
        digest.add_bytes(&encoded_without(
            &self.replica,
            &["ignored", "settings"],
            true,
        ));
        digest.add_bytes(&encoded_without(&self.leases, UNUSED_OF_LEASES, false));
        digest.add_bytes(&encoded(&self.disk));
        digest.add_bytes(&encoded(&self.pending));
        self.hash = digest.end();
    }
}

impl Display for Node {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        let (r, d) = (&self.replica, &self.disk.durable);
        write!(
            f,
            "{} {:?} promised {} accepted {} last {} decided {}; on disk {} {} {} {}, {} pending; log",
            self.id,
            r.role(),
            r.ballot(),
            r.accepted(),
            r.last(),
            r.decided(),
            d.promised,
            d.accepted,
            d.last(),
            d.decided,
            self.pending.len(),
        )?;
        r.entries_from(Slot(1))
            .try_for_each(|(_, e)| write!(f, " {e}"))
    }
}
