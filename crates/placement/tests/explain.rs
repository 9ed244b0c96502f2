//! Reasons for replicas, and what a failure would do.

use synod_paxos::{GroupId, NodeId};
use synod_placement::{Node, NodeState, Role, Shard, View, explain, explain_all, what_if};

fn view() -> View {
    let places = [
        "region=eu,dc=1",
        "region=eu,dc=2",
        "region=us,dc=3",
        "region=us,dc=3",
        "region=ap,dc=4",
    ];
    let node = |(n, place): (usize, &&str)| {
        Node::new(NodeId(n as u64 + 1), place.parse().expect("a locality"))
    };
    let mut view = View {
        nodes: places.iter().enumerate().map(node).collect(),
        ..View::default()
    };
    let mut shard = Shard::new(GroupId(7), b"a".to_vec(), Vec::new());
    let roles = [Role::Voter, Role::Witness, Role::Voter];
    shard.replicas = (1..).map(NodeId).zip(roles).collect();
    shard.replicas.insert(NodeId(5), Role::Learner);
    shard.leader = Some(NodeId(3));
    view.shards.push(shard);
    let policy = "witnesses = 1, leaders = [region=us], learners = {region=ap: 1}, survive = dc";
    view.policies.default = policy.parse().expect("a policy");
    view
}

#[test]
fn all_shards_are_explained_as_each_alone() {
    let mut view = view();
    // Listed behind the other one, though its id is lower.
    let mut second = view.shards[0].clone();
    (second.id, second.leader) = (GroupId(3), None);
    view.shards.push(second);
    let all = explain_all(&view).expect("the view makes sense");
    assert_eq!(all.len(), view.shards.len());
    for explained in all {
        let shard = explained.shard;
        assert_eq!(explain(&view, shard), Ok(Some(explained)));
    }
}

#[test]
fn each_replica_has_its_reasons() {
    let explained = explain(&view(), GroupId(7))
        .expect("explained")
        .expect("the shard");
    assert_eq!(
        explained.to_string(),
        "shard 7, by the policy of the cluster\n  \
           n1 (region=eu,dc=1) voter: the only voter in region=eu,dc=1\n  \
           n2 (region=eu,dc=2) witness: the only voter in region=eu,dc=2\n  \
           n3 (region=us,dc=3) voter: the only voter in region=us; \
             leaders are preferred on region=us (preference 1); leads: the policy prefers it\n  \
           n5 (region=ap,dc=4) learner: the policy wants a learner on region=ap\n  \
           size: 0 bytes each; asked 0 times a second\n  \
           without region=eu: 2 lost, stops\n  \
           without region=us: 1 lost, goes on\n  \
           without region=eu,dc=1: 1 lost, goes on\n  \
           without region=eu,dc=2: 1 lost, goes on\n  \
           without region=us,dc=3: 1 lost, goes on\n  \
           without node n1: 1 lost, goes on\n  \
           without node n2: 1 lost, goes on\n  \
           without node n3: 1 lost, goes on\n"
    );
    assert_eq!(explain(&view(), GroupId(8)), Ok(None));
}

#[test]
fn a_shards_only_voter_leads_for_no_other_reason() {
    let mut view = view();
    view.shards[0].replicas = [(NodeId(3), Role::Voter)].into();
    let explained = explain(&view, GroupId(7)).expect("explained");
    let text = explained.expect("the shard").to_string();
    assert!(text.contains("leads: it is the only voter"), "{text}");
}

#[test]
fn reasons_against_a_replica_are_told_too() {
    let mut view = view();
    view.nodes[0].state = NodeState::Leaving;
    view.policies.default = "forbid = region=us".parse().expect("a policy");
    let text = explain(&view, GroupId(7))
        .expect("explained")
        .expect("the shard")
        .to_string();
    assert!(
        text.contains(
            "n1 (region=eu,dc=1) voter: the only voter in region=eu,dc=1; the node is leaving"
        ),
        "{text}"
    );
    assert!(
        text.contains(
            "leads: this evens out what leaders are asked; the policy allows no such replica here"
        ),
        "{text}"
    );
    assert!(text.contains("problem: shard 7 stays on n3, which its policy does not allow: no other node may take its place; add one") && !text.contains("stays on n1"), "{text}");
}

#[test]
fn what_would_lose_quorum_is_counted() {
    let mut view = view();
    let lose = |view: &View, what: &str| {
        let lose = what.parse().expect("an expression");
        what_if(view, &lose).expect("an answer").to_string()
    };
    assert_eq!(
        lose(&view, "region=eu"),
        "without region=eu (2 nodes): 1 of 1 shards lose their quorum, 0 elect another leader\n  \
           shard 7: 1 of 3 voters survive, 2 must, 1 of them with data: loses its quorum\n"
    );
    assert_eq!(
        lose(&view, "dc=3"),
        "without dc=3 (2 nodes): 0 of 1 shards lose their quorum, 1 elect another leader\n  \
           shard 7: 2 of 3 voters survive, 2 must, 1 of them with data: goes on after an election\n"
    );
    assert!(lose(&view, "dc=1").starts_with("without dc=1 (1 node): "));
    assert_eq!(
        lose(&view, "dc=9"),
        "without dc=9 (0 nodes): 0 of 1 shards lose their quorum, 0 elect another leader\n"
    );
    view.nodes[0].state = NodeState::Silent;
    assert!(lose(&view, "dc=3").contains("0 of them with data: loses its quorum"));
    view.nodes[1].state = NodeState::Silent;
    assert!(lose(&view, "dc=3").contains("has no quorum now either"));
}
