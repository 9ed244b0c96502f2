//! What other shards say to a leader that was elected and is not in office yet.

mod common;

use common::{Node, SHARD, at};
use std::collections::BTreeSet;
use synod_paxos::{Began, Message, NodeId, Slot, Term};
use synod_shard::{Input, NodeMessage};
use synod_txn::peer::PeerBody;
use synod_txn::{AttemptId, Key, Outcome, Participant, PeerMessage};

/// Of the time that it is for the node.
fn attempt(node: &Node) -> AttemptId {
    let millis = at(node.now).clock.latest.0 / 1_000_000;
    AttemptId(u128::from(millis) << 80)
}

/// A participant asks the shard to end an attempt that is coordinated there.
fn asks_for_an_end(node: &mut Node, attempt: AttemptId) -> BTreeSet<NodeId> {
    let key = |name: &'static str| Key::from_static(name.as_bytes());
    let participant = |anchor| Participant {
        anchor,
        shard: SHARD,
        term: Term::default(),
    };
    let message = NodeMessage::Transaction {
        shard: SHARD,
        hops: 0,
        message: PeerMessage {
            attempt,
            anchor: key("a"),
            from: key("m"),
            body: PeerBody::AskOrAbort {
                participants: vec![participant(key("a")), participant(key("m"))],
            },
        },
    };
    let from = NodeId(2);
    node.worker
        .handle(at(node.now), Input::Peer { from, message });
    let sends = node.worker.finish(at(node.now)).sends;
    sends.into_keys().collect()
}

fn outcome(node: &Node, attempt: AttemptId) -> Option<Outcome> {
    let shard = node.worker.shard(SHARD).expect("it is here");
    shard.group().state().records.get(&attempt)?.outcome
}

#[test]
fn it_waits_for_the_office() {
    let mut node = Node::elected();
    let attempt = attempt(&node);
    assert_eq!(asks_for_an_end(&mut node, attempt), BTreeSet::new());
    assert_eq!(outcome(&node, attempt), None);
    node.stalls = false;
    node.settle();
    assert!(node.leads());
    assert!(matches!(outcome(&node, attempt), Some(Outcome::Aborted(_))));
}

/// The office may never come.
#[test]
fn it_goes_to_the_next_members_where_there_are_some() {
    let mut node = Node::elected();
    let attempt = attempt(&node);
    let replica = node.worker.shard(SHARD).expect("it is here").replica();
    let members = vec![NodeId(3), NodeId(4), NodeId(5)];
    let next = replica.configuration();
    let next = next.successor(members.clone(), Vec::new(), Vec::new());
    let message = NodeMessage::Group {
        group: SHARD,
        message: Message::Held {
            began: Box::new(Began {
                configuration: next,
                after: Slot(2),
                left: vec![NodeId(1)],
            }),
            holds: true,
        },
    };
    let from = members[0];
    node.worker
        .handle(at(node.now), Input::Peer { from, message });
    node.settle();
    let asked = asks_for_an_end(&mut node, attempt);
    let asked: Vec<&NodeId> = asked.iter().filter(|n| members.contains(n)).collect();
    assert_eq!(asked.len(), 1, "{asked:?}");
}
