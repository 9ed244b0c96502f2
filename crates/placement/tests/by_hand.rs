//! What is moved by hand, and what is said against it.

mod oracle;

use oracle::{Oracle, cluster, shard};
use synod_paxos::{GroupId, NodeId};
use synod_placement::{
    Aim, Change, Move, MoveError, NodeState, Role, Step, View, propose_leader, propose_move,
};

const SHARD: GroupId = GroupId(1);

fn view() -> View {
    let places = ["dc=a", "dc=b", "dc=c", "dc=c", "dc=a"];
    cluster(
        &places,
        vec![shard(1, &[1, 2, 3], 1), shard(2, &[1, 2, 4], 2)],
    )
}

fn moved(view: &View, from: Option<u64>, to: u64) -> Result<Move, MoveError> {
    propose_move(view, SHARD, from.map(NodeId), NodeId(to))
}

#[test]
fn the_replica_goes_that_can_best_be_done_without() {
    let good = moved(&view(), None, 4).expect("it may");
    assert_eq!((good.out, good.role), (NodeId(3), Role::Voter));
    assert_eq!(good.objections, [""; 0]);
    let (out, into, role) = (good.out, NodeId(4), good.role);
    let add = Change::AddLearner {
        node: into,
        later: role,
    };
    let steps = [add, Change::Swap { out, into, role }].map(|change| Step {
        shard: SHARD,
        change,
        aim: Aim::Policy,
    });
    let after = Oracle::new(&view()).follow(&steps);
    let refused = moved(&after, None, 4).expect_err("it is there");
    let (shard, node) = (SHARD, into);
    assert_eq!(refused, MoveError::Already { shard, node });
    // Another one would leave two in one data centre.
    let bad = moved(&view(), Some(2), 4).expect("it can");
    assert_eq!(
        bad.objections,
        [
            "2 of its voters would be in dc=c, where at most 1 may be",
            "the loss of one more dc would then stop the shard",
        ]
    );
}

#[test]
fn what_a_policy_or_a_node_has_against_it_is_said() {
    let mut view = view();
    view.policies.default = "forbid = dc=c, leaders = [dc=b]".parse().expect("a policy");
    let against = moved(&view, Some(3), 4).expect("it can").objections;
    assert_eq!(
        against,
        ["the policy of the cluster allows no such replica on n4"]
    );
    let against = moved(&view, Some(2), 5).expect("it can").objections;
    assert!(
        against.concat().contains("no voter would be left where"),
        "{against:?}"
    );
    view.nodes[4].state = NodeState::Draining;
    view.nodes[4].room = Some(0);
    view.shards[0].bytes = Some(1);
    let against = moved(&view, Some(1), 5).expect("it can").objections;
    let said = [
        "n5 is draining, and takes no replicas",
        "n5 has no room for it",
    ];
    assert_eq!(against, said);
}

#[test]
fn what_cannot_be_is_refused() {
    let mut view = view();
    for (from, to, said) in [
        (None, 9, "there is no node n9"),
        (Some(4), 5, "shard 1 has no replica on n4"),
        (
            None,
            2,
            "shard 1 has a replica on n2 already; name another node",
        ),
    ] {
        let refused = moved(&view, from, to).expect_err(said);
        assert_eq!(refused.to_string(), said);
    }
    let refused = propose_move(&view, GroupId(7), None, NodeId(4));
    assert_eq!(refused, Err(MoveError::NoShard { shard: GroupId(7) }));
    // One that is on its way may go on.
    view.shards[0].replicas.insert(NodeId(4), Role::Learner);
    assert!(moved(&view, None, 4).is_ok());
    view.nodes[0].state = NodeState::Down;
    view.nodes[1].state = NodeState::Down;
    assert_eq!(
        moved(&view, None, 4),
        Err(MoveError::NoQuorum { shard: SHARD })
    );
}

#[test]
fn who_is_to_lead_is_chosen_or_judged() {
    let mut view = view();
    view.shards[1].requests = 500;
    let leader = |view: &View, to: Option<u64>| propose_leader(view, SHARD, to.map(NodeId));
    // n2 is asked more than n3.
    assert_eq!(leader(&view, None), Ok((NodeId(3), vec![])));
    assert_eq!(leader(&view, Some(2)), Ok((NodeId(2), vec![])));
    assert!(leader(&view, Some(4)).is_err(), "it has no voter");
    view.policies.default = "leaders = [dc=b]".parse().expect("a policy");
    assert_eq!(leader(&view, None), Ok((NodeId(2), vec![])));
    let (_, against) = leader(&view, Some(3)).expect("it can");
    assert_eq!(
        against,
        ["the policy of the cluster prefers other leaders than n3"]
    );
    view.nodes[2].state = NodeState::Down;
    assert!(leader(&view, Some(3)).is_err());
}
