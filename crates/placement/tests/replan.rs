//! Plans for clusters that run: small ones by hand, and many shapes and states
//! against an oracle that counts everything anew after every step.

mod oracle;

use oracle::{Oracle, cluster, shard};
use proptest::prelude::*;
use std::collections::BTreeMap;
use synod_paxos::{GroupId, NodeId};
use synod_placement::{
    Change, Node, NodeState, Policies, Policy, Problem, Replan, Role, Shard, View, replan,
};

fn with_policy(mut view: View, policy: &str) -> View {
    view.policies.default = policy.parse().unwrap_or_else(|e| panic!("{policy}: {e}"));
    view
}

/// Plans, lets the oracle look at every step, and returns the plan as text and
/// the view after it.
fn planned(view: &View) -> (Replan, Vec<String>, View) {
    let plan = replan(view).expect("a view that makes sense");
    let after = Oracle::new(view).follow(&plan.steps);
    let again = replan(&after).expect("a view that makes sense");
    assert_eq!(again.steps, [], "planning again gives nothing");
    let lines = plan.steps.iter().map(ToString::to_string).collect();
    (plan, lines, after)
}

fn problems(plan: &Replan) -> Vec<String> {
    plan.problems.iter().map(ToString::to_string).collect()
}

fn set(view: &mut View, node: u64, state: NodeState) {
    let node = view.nodes.iter_mut().find(|n| n.id == NodeId(node));
    node.expect("a known node").state = state;
}

const THREE: [&str; 4] = ["dc=a", "dc=b", "dc=c", "dc=c"];

#[test]
fn a_cluster_as_it_should_be_is_left_alone() {
    let view = cluster(
        &THREE,
        vec![shard(1, &[1, 2, 3], 1), shard(2, &[1, 2, 4], 2)],
    );
    assert_eq!(planned(&view).1, [""; 0]);
}

#[test]
fn new_shards_are_created_evenly() {
    let shards = (1..=6).map(|id| shard(id, &[], 0)).collect();
    let view = cluster(&["dc=a", "dc=b", "dc=c", "dc=a", "dc=b", "dc=c"], shards);
    let (plan, _, after) = planned(&view);
    assert!(
        plan.steps
            .iter()
            .all(|s| matches!(s.change, Change::Create { .. }))
    );
    for node in 1..=6 {
        let on = |s: &&Shard| s.replicas.contains_key(&NodeId(node));
        assert_eq!(after.shards.iter().filter(on).count(), 3);
        let led = after
            .shards
            .iter()
            .filter(|s| s.leader == Some(NodeId(node)));
        assert_eq!(led.count(), 1);
    }
}

#[test]
fn a_node_that_is_down_is_replaced_and_one_that_is_silent_is_not() {
    let mut view = cluster(&THREE, vec![shard(1, &[1, 2, 3], 3)]);
    set(&mut view, 3, NodeState::Silent);
    assert_eq!(planned(&view).1, ["shard 1: let n1 campaign"]);
    set(&mut view, 3, NodeState::Down);
    assert_eq!(
        planned(&view).1,
        [
            "shard 1: let n1 campaign",
            "shard 1: add n4, to be a voter",
            "shard 1: replace n3 by n4 as voter",
        ]
    );
}

#[test]
fn a_leader_that_goes_hands_over_first() {
    let mut view = cluster(&THREE, vec![shard(1, &[1, 2, 3], 3)]);
    set(&mut view, 3, NodeState::Draining);
    assert_eq!(
        planned(&view).1,
        ["shard 1: hand the leadership from n3 to n1"]
    );
    set(&mut view, 3, NodeState::Leaving);
    assert_eq!(
        planned(&view).1,
        [
            "shard 1: add n4, to be a voter",
            "shard 1: hand the leadership from n3 to n1",
            "shard 1: replace n3 by n4 as voter",
        ]
    );
}

#[test]
fn the_only_replica_takes_the_leadership_along() {
    let mut view = cluster(&["dc=a", "dc=b"], vec![shard(1, &[1], 1)]);
    set(&mut view, 1, NodeState::Leaving);
    let view = with_policy(view, "voters = 1");
    let (_, lines, after) = planned(&view);
    assert_eq!(
        lines,
        [
            "shard 1: add n2, to be a voter",
            "shard 1: replace n1 by n2 as voter"
        ]
    );
    assert_eq!(after.shards[0].leader, Some(NodeId(2)));
}

#[test]
fn what_would_make_a_shard_weaker_is_refused_with_the_reason() {
    // Without n3 there are two data centres left, and one would hold a majority.
    let places = ["dc=a", "dc=a", "dc=c", "dc=b"];
    let mut view = cluster(&places, vec![shard(1, &[1, 3, 4], 1)]);
    set(&mut view, 3, NodeState::Leaving);
    let view = with_policy(view, "survive = dc");
    let (plan, lines, _) = planned(&view);
    assert_eq!(lines, [""; 0]);
    assert_eq!(
        problems(&plan),
        [
            "the cluster: survive = dc does not hold: two data centres cannot survive the loss of \
             either: add a witness in a third (1 node down or leaving not counted)",
            "shard 1 stays on n3, which is leaving: the loss of one more dc would then stop the \
             shard",
        ]
    );
}

#[test]
fn where_nodes_are_missing_the_replica_stays() {
    let mut view = cluster(&["dc=a", "dc=b", "dc=c"], vec![shard(1, &[1, 2, 3], 1)]);
    set(&mut view, 3, NodeState::Leaving);
    let (plan, lines, _) = planned(&view);
    assert_eq!(lines, [""; 0]);
    assert_eq!(
        problems(&plan),
        [
            "the cluster: 3 voters are wanted, 3 of them with data, and only 2 nodes can take \
             voters, 2 of them data; add nodes",
            "shard 1 stays on n3, which is leaving: no other node may take its place; add one",
        ]
    );
}

#[test]
fn a_shard_without_a_quorum_is_left_alone() {
    let mut view = cluster(&THREE, vec![shard(1, &[1, 2, 3], 1)]);
    set(&mut view, 2, NodeState::Down);
    set(&mut view, 3, NodeState::Silent);
    let (plan, lines, _) = planned(&view);
    assert_eq!(lines, [""; 0]);
    let last = problems(&plan).pop();
    let expected = "shard 1: 1 of its voters answer and 2 must; it waits for n2, n3";
    assert_eq!(last.as_deref(), Some(expected));
}

#[test]
fn more_voters_come_two_at_a_time_and_go_the_same_way() {
    let places = [
        "dc=a,rack=1",
        "dc=b,rack=1",
        "dc=c,rack=1",
        "dc=a,rack=2",
        "dc=b,rack=2",
    ];
    let view = cluster(&places, vec![shard(1, &[1, 2, 3], 1)]);
    let (_, lines, after) = planned(&with_policy(view, "voters = 5, survive = dc"));
    assert_eq!(
        lines,
        [
            "shard 1: add n4, to be a voter",
            "shard 1: add n5, to be a voter",
            "shard 1: let vote: n4, n5",
        ]
    );
    let (_, lines, _) = planned(&with_policy(after, "voters = 3, survive = dc"));
    assert_eq!(lines.len(), 1);
    assert!(lines[0].starts_with("shard 1: remove n"));
}

#[test]
fn a_witness_goes_where_only_a_witness_can() {
    let mut view = cluster(&["dc=a", "dc=b", "dc=c", "dc=c"], vec![shard(1, &[], 0)]);
    view.nodes[2].capacity = Some(0);
    view.nodes[3].capacity = Some(0);
    let (_, lines, _) = planned(&with_policy(
        view,
        "voters = 3, witnesses = 1, survive = dc",
    ));
    assert_eq!(
        lines,
        ["shard 1: create on n1, n2, n3 as witness; n1 leads"]
    );
}

#[test]
fn roles_change_in_place() {
    let view = cluster(&["dc=a", "dc=b", "dc=c"], vec![shard(1, &[1, 2, 3], 3)]);
    let (_, lines, after) = planned(&with_policy(view, "witnesses = 1"));
    assert_eq!(lines, ["shard 1: make n2 a witness"]);
    let (_, lines, _) = planned(&with_policy(after, "witnesses = 0"));
    assert_eq!(lines, ["shard 1: make n2 a voter"]);
}

#[test]
fn learners_are_placed_by_kind() {
    let view = cluster(
        &["dc=a", "dc=b", "dc=c", "dc=w", "dc=w"],
        vec![shard(1, &[1, 2, 3], 1)],
    );
    let policy = "forbid = none, learners = {dc=w: 1}";
    let (_, lines, after) = planned(&with_policy(view, policy));
    assert_eq!(lines, ["shard 1: add n4 as learner"]);
    let (_, lines, _) = planned(&with_policy(after.clone(), "learners = {}"));
    assert_eq!(lines, ["shard 1: remove learner n4"]);
    let (plan, _, _) = planned(&with_policy(after, "learners = {dc=w: 3}"));
    assert_eq!(
        problems(&plan),
        ["the cluster: learners are wanted on 3 nodes of dc=w, and only 2 nodes can take them"]
    );
}

#[test]
fn replicas_leave_where_the_policy_forbids_them() {
    let mut view = cluster(
        &["dc=a", "dc=b", "dc=c", "dc=a"],
        vec![shard(1, &[1, 2, 3], 1)],
    );
    for node in [1, 2, 3] {
        view.nodes[node]
            .labels
            .insert("disk".to_owned(), "ssd".to_owned());
    }
    let (_, lines, _) = planned(&with_policy(view, "require = disk=ssd"));
    assert_eq!(
        lines,
        [
            "shard 1: add n4, to be a voter",
            "shard 1: hand the leadership from n1 to n2",
            "shard 1: replace n1 by n4 as voter",
        ]
    );
}

#[test]
fn leaders_follow_preference_then_origin_then_balance() {
    let places = ["region=eu,dc=1", "region=eu,dc=2", "region=us,dc=3"];
    let mut view = cluster(
        &places,
        (1..=6).map(|id| shard(id, &[1, 2, 3], 3)).collect(),
    );
    let leaders = |view: &View| -> BTreeMap<u64, usize> {
        let mut led = BTreeMap::new();
        for shard in &view.shards {
            *led.entry(shard.leader.expect("a leader").0).or_default() += 1;
        }
        led
    };
    let balanced = planned(&view).2;
    assert_eq!(leaders(&balanced), BTreeMap::from([(1, 2), (2, 2), (3, 2)]));
    for shard in &mut view.shards {
        let place = |text: &str| text.parse().expect("a locality");
        shard.origins = vec![(place("region=us"), 10), (place("region=eu,dc=9"), 30)];
    }
    let near = planned(&view).2;
    assert_eq!(leaders(&near), BTreeMap::from([(1, 3), (2, 3)]));
    let preferred = with_policy(view, "leaders = [dc=4, region=us]");
    let (plan, _, after) = planned(&preferred);
    assert_eq!(leaders(&after), BTreeMap::from([(3, 6)]));
    let expected = "the cluster: no node of dc=4 can lead now; the next preference counts";
    assert_eq!(problems(&plan), [expected]);
}

#[test]
fn a_replica_goes_where_leaders_are_preferred() {
    let view = cluster(
        &["dc=a", "dc=b", "dc=c", "dc=d"],
        vec![shard(1, &[1, 2, 3], 2)],
    );
    let (_, lines, after) = planned(&with_policy(view, "leaders = [dc=d]"));
    assert_eq!(lines.len(), 3, "{lines:?}");
    assert_eq!(after.shards[0].leader, Some(NodeId(4)));
}

#[test]
fn a_returning_node_fills_up() {
    let places = ["dc=a", "dc=b", "dc=c", "dc=c"];
    let view = cluster(
        &places,
        (1..=40).map(|id| shard(id, &[1, 2, 3], 1)).collect(),
    );
    let after = planned(&view).2;
    let on = |s: &&Shard| s.replicas.contains_key(&NodeId(4));
    let there = after.shards.iter().filter(on).count();
    assert!((19..=21).contains(&there), "{there}");
}

#[test]
fn replicas_follow_capacity_and_never_overflow() {
    let mut view = cluster(&["dc=a", "dc=b", "dc=c", "dc=c"], Vec::new());
    for (node, capacity) in view.nodes.iter_mut().zip([4_000, 4_000, 3_000, 1_000]) {
        node.capacity = Some(capacity);
    }
    view.shards = (1..=32)
        .map(|id| Shard {
            bytes: Some(100),
            ..shard(id, &[], 0)
        })
        .collect();
    let after = planned(&view).2;
    let on = |node: u64| {
        let on = |s: &&Shard| s.replicas.contains_key(&NodeId(node));
        after.shards.iter().filter(on).count()
    };
    assert_eq!((on(1), on(2)), (32, 32));
    assert!((7..=9).contains(&on(4)), "{}", on(4));
    let mut full = view;
    full.shards = (1..=40)
        .map(|id| Shard {
            bytes: Some(100),
            ..shard(id, &[], 0)
        })
        .collect();
    let after = planned(&full).2;
    let placed = after
        .shards
        .iter()
        .filter(|s| s.replicas.len() == 3)
        .count();
    assert_eq!(placed, 36, "90 % of what fits");
}

#[test]
fn shards_that_straddle_a_directory_are_named() {
    let mut view = cluster(&["dc=a", "dc=b", "dc=c"], vec![shard(1, &[1, 2, 3], 1)]);
    view.shards[0].start = b"bank/5".to_vec();
    view.shards[0].end = b"c".to_vec();
    let directories = BTreeMap::from([(b"bank/".to_vec(), Policy::default())]);
    view.policies = Policies {
        directories,
        ..Policies::default()
    };
    let (plan, _, _) = planned(&view);
    assert!(matches!(
        &plan.problems[..],
        [Problem::Straddles {
            shard: GroupId(1),
            ..
        }]
    ));
    view.shards[0].end = b"bank0".to_vec();
    assert_eq!(planned(&view).0.problems, []);
}

fn any_state() -> impl Strategy<Value = NodeState> {
    prop_oneof![
        6 => Just(NodeState::Up),
        1 => Just(NodeState::Silent),
        1 => Just(NodeState::Down),
        1 => Just(NodeState::Draining),
        1 => Just(NodeState::Leaving),
    ]
}

fn any_node() -> impl Strategy<Value = Node> {
    let tier = || prop::option::weighted(0.9, 0..4_u8);
    let capacity = prop_oneof![
        6 => Just(None),
        1 => Just(Some(0)),
        2 => (1..2_000_u64).prop_map(Some),
    ];
    (tier(), tier(), tier(), any_state(), capacity, any::<bool>()).prop_map(
        |(region, dc, rack, state, capacity, ssd)| {
            let parts = [("region", region), ("dc", dc), ("rack", rack)];
            let parts = parts
                .iter()
                .filter_map(|(t, v)| v.map(|v| format!("{t}={v}")));
            let place = parts.collect::<Vec<_>>().join(",");
            let mut node = Node::new(NodeId(0), place.parse().expect("a locality"));
            (node.state, node.capacity) = (state, capacity);
            if ssd {
                node.labels.insert("disk".to_owned(), "ssd".to_owned());
            }
            node
        },
    )
}

const POLICIES: [&str; 10] = [
    "",
    "voters = 1",
    "voters = 5, survive = dc",
    "voters = 5, witnesses = 2, survive = region",
    "witnesses = 1, leaders = [dc=1, region=2]",
    "spread = [dc], require = disk=ssd",
    "forbid = region=1 | rack=2, learners = {any: 1}",
    "learners = {dc=1: 2, region=2: 1}, leaders = [disk=ssd]",
    "voters = 7, spread = []",
    "voters = 3, spread = [rack, region], survive = node",
];

fn any_view() -> impl Strategy<Value = View> {
    let replicas = || prop::collection::btree_map(0..16_usize, 0..6_u8, 0..7);
    let shard = (
        replicas(),
        any::<prop::sample::Index>(),
        prop_oneof![0..300_u64, 0..1_u64 << 31],
        any::<bool>(),
        0..3_u8,
    );
    let policy = || prop::sample::select(&POLICIES[..]);
    (
        prop::collection::vec(any_node(), 1..12),
        prop::collection::vec(shard, 0..12),
        policy(),
        policy(),
    )
        .prop_map(|(mut nodes, shards, default, directory)| {
            for (n, node) in nodes.iter_mut().enumerate() {
                node.id = NodeId(n as u64 + 1);
            }
            let shards = shards.into_iter().enumerate();
            let shards = shards.map(|(n, (replicas, leader, bytes, led, directory))| {
                let start = if directory == 0 {
                    format!("d/{n}")
                } else {
                    format!("k{n}")
                };
                let mut shard = Shard::new(GroupId(n as u64 + 1), start.into_bytes(), Vec::new());
                shard.bytes = Some(bytes);
                for (node, role) in replicas {
                    let role = [Role::Voter, Role::Witness, Role::Learner]
                        [role.saturating_sub(3) as usize];
                    shard.replicas.insert(nodes[node % nodes.len()].id, role);
                }
                let voters: Vec<NodeId> = shard
                    .replicas
                    .iter()
                    .filter(|(_, role)| **role == Role::Voter)
                    .map(|(node, _)| *node)
                    .collect();
                if led && !voters.is_empty() {
                    shard.leader = Some(voters[leader.index(voters.len())]);
                }
                shard
            });
            let parse = |text: &str| text.parse::<Policy>().expect("a policy");
            let mut policies = Policies {
                default: parse(default),
                directories: BTreeMap::from([(b"d/".to_vec(), parse(directory))]),
            };
            // Together they may contradict each other.
            if policies.rules(Some(b"d/")).is_err() {
                policies.directories.clear();
            }
            View {
                shards: shards.collect(),
                nodes,
                policies,
            }
        })
}

proptest! {
    #[test]
    fn every_plan_is_sound(view in any_view()) {
        planned(&view);
    }

    #[test]
    fn the_order_of_nodes_and_shards_does_not_matter(view in any_view()) {
        let plan = replan(&view).expect("a plan");
        let mut other = view;
        other.nodes.reverse();
        other.shards.reverse();
        prop_assert_eq!(replan(&other).expect("a plan").steps, plan.steps);
    }
}
