//! P5 where a step takes one leader's word and then a younger one's log.

use super::retired::{Trio, leads};
use super::*;
use crate::rules::p5::P5;
use synod_paxos::{Entry, TermStart};

/// The second leader's.
fn younger() -> Ballot {
    ballot(2, 2)
}

/// The TermStart of this node's term, which is all that its log has in that slot.
fn start(trio: &Trio, node: usize, slot: Slot) -> TermStart {
    let shard = trio.workers[node].shard(A);
    match shard.and_then(|shard| shard.replica().entry(slot)) {
        Some(Entry::TermStart(start)) => **start,
        other => panic!("{other:?} in slot {slot}"),
    }
}

/// What brings a log that is known to be decided before the first of these to where the term of
/// the last one begins.
fn sync(starts: &[TermStart], decided: u64) -> NodeMessage {
    let last = starts.last().expect("one at least").ballot;
    let end = if last == leads() { Slot(1) } else { Slot(2) };
    let first = Slot(end.0 + 1 - starts.len() as u64);
    group(Message::Accept {
        ballot: last,
        first,
        entries: starts
            .iter()
            .map(|s| Entry::TermStart(Box::new(*s)))
            .collect(),
        decided: Slot(decided),
        sync: Some((first, end)),
        round: Round(0),
    })
}

fn decided(ballot: Ballot, slot: u64) -> NodeMessage {
    let slot = Slot(slot);
    group(Message::Decided { ballot, slot })
}

/// Slot 1 was accepted by all under node 1's ballot, and decided, as only node 1 knows. Node 2 has won
/// slot 2 with the vote of node 3, and neither knows of anything decided.
fn two_leaders() -> Trio {
    let maps = [map(), map(), map()];
    let mut trio = Trio::of(Box::new(P5::default()), &maps, None);
    trio.elects(0, leads(), 2, promise(leads()));
    let first = start(&trio, 0, Slot(1));
    for node in [1, 2] {
        trio.hears_peer(node, 1, sync(std::slice::from_ref(&first), 0));
    }
    trio.hears_peer(0, 2, accepted(leads()));
    assert_eq!(known(&trio, 0), (leads(), Slot(1)));
    let promise = group(Message::Promise {
        ballot: younger(),
        accepted: leads(),
        last: Slot(1),
        decided: Slot(0),
        limit: Timestamp(0),
        first: Slot(2),
        entries: Vec::new(),
        more: false,
    });
    // Node 2 is more patient since it has heard from node 1.
    trio.pass(SECOND);
    trio.elects(1, younger(), 3, promise);
    assert_eq!(known(&trio, 1), (younger(), Slot(0)));
    assert_eq!(known(&trio, 2), (leads(), Slot(0)));
    assert_eq!(trio.found(), [""; 0]);
    trio
}

/// The ballot that the node's log was accepted under, and up to where it knows it decided.
fn known(trio: &Trio, node: usize) -> (Ballot, Slot) {
    let shard = trio.workers[node].shard(A).expect("its replica");
    (shard.replica().accepted(), shard.replica().decided())
}

#[test]
fn p5_belief_under_the_ballot_that_the_log_had_when_it_came() {
    let mut trio = two_leaders();
    let second = start(&trio, 1, Slot(2));
    let heard = vec![(1, decided(leads(), 1)), (2, sync(&[second], 0))];
    trio.hears_at_once(2, heard);
    assert_eq!(known(&trio, 2), (younger(), Slot(1)));
    assert_eq!(trio.found(), [""; 0]);
}

#[test]
fn p5_belief_in_what_neither_leader_knew() {
    let mut trio = two_leaders();
    let second = start(&trio, 1, Slot(2));
    let heard = vec![(1, decided(leads(), 1)), (2, sync(&[second], 2))];
    trio.hears_at_once(2, heard);
    assert_eq!(known(&trio, 2), (younger(), Slot(2)));
    assert_eq!(trio.found(), ["P5"]);
}

#[test]
fn p5_belief_in_what_only_an_older_leader_knew() {
    let mut trio = two_leaders();
    let whole = [start(&trio, 1, Slot(1)), start(&trio, 1, Slot(2))];
    trio.hears_peer(2, 2, sync(&whole, 0));
    assert_eq!(known(&trio, 2), (younger(), Slot(0)));
    assert_eq!(trio.found(), [""; 0]);
    trio.hears_peer(2, 2, decided(younger(), 1));
    assert_eq!(known(&trio, 2), (younger(), Slot(1)));
    assert_eq!(trio.found(), ["P5"]);
}
