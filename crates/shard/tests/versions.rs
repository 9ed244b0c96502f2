//! P8, on one node alone: a shard's version is raised by its log, and a program that does not
//! know it stands still before that entry.

mod common;

use common::{Node, SHARD, at};
use synod_paxos::{ClusterVersion, GroupId};
use synod_shard::{Halt, SplitError, Splitting};
use synod_txn::Key;

fn version_of(node: &Node) -> u32 {
    let shard = node.worker.shard(SHARD).expect("it is here");
    shard.version().0
}

fn split(node: &mut Node) -> Result<Splitting, SplitError> {
    let key = Key::from_static(b"m");
    node.worker.split(at(node.now), SHARD, &key, GroupId(7))
}

#[test]
fn a_shard_is_split_only_once_its_log_says_so() {
    let mut node = Node::first(2);
    assert_eq!(version_of(&node), 1);
    let (old, since) = (ClusterVersion(1), ClusterVersion(2));
    let refused = SplitError::Version { at: old, since };
    assert_eq!(split(&mut node), Err(refused));
    // Again, and with an older word after it.
    for version in [2, 2, 1] {
        node.learn(version);
        assert_eq!(version_of(&node), 2);
    }
    assert_eq!(node.worker.version(), ClusterVersion(2));
    assert_eq!(split(&mut node), Ok(Splitting::Underway));
    node.pass();
    assert_eq!(split(&mut node), Ok(Splitting::Done));
    // By its log alone it comes there again.
    let mut again = Node::new(2, 2, node.log());
    assert_eq!((version_of(&again), again.leads()), (2, true));
    assert_eq!(again.worker.version(), ClusterVersion(2));
    again.learn(2);
    assert_eq!(version_of(&again), 2);
}

#[test]
fn a_program_stands_still_before_what_it_does_not_know() {
    let mut node = Node::first(3);
    node.learn(3);
    assert_eq!(version_of(&node), 3);
    let older = Node::new(2, 2, node.log());
    let shard = older.worker.shard(SHARD).expect("it is here");
    let Some(Halt::Version { slot, version, .. }) = shard.halted() else {
        panic!("{:?}", shard.halted());
    };
    assert_eq!(*version, ClusterVersion(3));
    assert_eq!(shard.applied(), slot.prev());
    assert!(shard.applied() < shard.replica().decided());
    assert_eq!(shard.version(), ClusterVersion(1));
    assert!(!older.leads() && older.worker.is_overtaken());
    // Nothing is lost by that.
    let newer = Node::new(3, 3, older.log());
    assert_eq!((version_of(&newer), newer.leads()), (3, true));
}

#[test]
fn an_overtaken_node_leads_nothing_and_raises_nothing() {
    let mut node = Node::first(2);
    node.learn(3);
    assert!(node.worker.is_overtaken() && !node.leads());
    assert_eq!(version_of(&node), 1);
    assert_eq!(
        split(&mut node),
        Err(SplitError::NotLeader { leader: None }),
        "nobody leads"
    );
}
