//! Scenes between a few machines, each with one claim; by the side they look at.

mod holder;
mod node;
mod supporter;
mod suspicion;
mod turns;

use super::*;
use crate::ids::{Incarnation, Mono, NodeId, SupportEpoch, Timestamp};

const MS: u64 = 1_000_000;
const LEASE: u64 = 600 * MS;
const A: NodeId = NodeId(1);
const B: NodeId = NodeId(2);
/// A wall clock far from zero.
const WALL: u64 = 1_000_000_000_000 * MS;

fn mono(ms: u64) -> Mono {
    Mono(ms * MS)
}

/// Both ends of the wall clock's interval; it runs with the monotonic clock.
fn wall(now: Mono) -> (Timestamp, Timestamp) {
    let reading = Timestamp(WALL + now.0);
    (reading, reading)
}

fn machine(me: NodeId, incarnation: u64, records: Vec<LeaseRecord>, now: Mono) -> NodeLease {
    let settings = LeaseSettings::default();
    NodeLease::new(
        settings,
        me,
        Incarnation(incarnation),
        vec![A, B],
        records,
        now,
    )
}

fn fresh(me: NodeId) -> NodeLease {
    machine(me, 1, Vec::new(), mono(0))
}

fn renew(holder: u64, sent: Mono, want: u64) -> LeaseMessage {
    LeaseMessage::Renew {
        holder: Incarnation(holder),
        supporter: Incarnation(0),
        sent,
        lease_nanos: LEASE,
        want: Timestamp(want),
        earliest: Timestamp(WALL),
        latest: Timestamp(WALL),
    }
}

fn epoch(supporter: u64, holder: u64, counter: u64) -> SupportEpoch {
    SupportEpoch {
        supporter: Incarnation(supporter),
        holder: Incarnation(holder),
        counter,
    }
}

fn support(sent: Mono, epoch: SupportEpoch, limit: u64) -> LeaseMessage {
    LeaseMessage::Support {
        holder: epoch.holder,
        sent,
        epoch,
        lease_nanos: LEASE,
        limit: Timestamp(limit),
        earliest: Timestamp(WALL),
        latest: Timestamp(WALL),
    }
}

fn deliver(to: &mut NodeLease, now: Mono, from: NodeId, message: LeaseMessage) {
    to.handle_message(now, wall(now), from, message);
}

/// Sends, and records with the number of messages they release.
fn outbound(machine: &mut NodeLease) -> (Vec<LeaseMessage>, Vec<(u64, LeaseRecord)>) {
    let (mut sends, mut records) = (Vec::new(), Vec::new());
    for effect in machine.drain_effects() {
        match effect {
            LeaseEffect::Send { message, .. } => sends.push(message),
            LeaseEffect::Persist { record, seq, .. } => records.push((seq, record)),
        }
    }
    (sends, records)
}

/// Carries out one effect list with an instant disk; returns the messages.
fn settle(machine: &mut NodeLease, now: Mono) -> Vec<(NodeId, LeaseMessage)> {
    let mut messages = Vec::new();
    loop {
        let effects = machine.drain_effects();
        if effects.is_empty() {
            return messages;
        }
        for effect in effects {
            match effect {
                LeaseEffect::Send { to, message } => messages.push((to, message)),
                LeaseEffect::Persist { release, seq, .. } => {
                    messages.extend(release);
                    machine.handle_persisted(now, seq);
                }
            }
        }
    }
}

/// A renews with B at once and without loss, at `now`.
fn exchange(a: &mut NodeLease, b: &mut NodeLease, now: Mono) {
    a.handle_timeout(now, wall(now));
    for (to, message) in settle(a, now) {
        if to == B {
            deliver(b, now, A, message);
        }
    }
    for (to, message) in settle(b, now) {
        if to == A {
            deliver(a, now, B, message);
        }
    }
}

fn granted_lease(message: &LeaseMessage) -> u64 {
    match message {
        LeaseMessage::Support { lease_nanos, .. } | LeaseMessage::Renew { lease_nanos, .. } => {
            *lease_nanos
        }
    }
}
