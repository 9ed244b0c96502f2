//! The planner on clusters of many nodes and shards.
//!
//! The big one takes seconds in a release build:
//! `cargo test --release -p synod-placement --test scale -- --ignored --nocapture`

use std::collections::{BTreeMap, BTreeSet};
use synod_paxos::{GroupId, NodeId};
use synod_placement::{Change, Node, NodeState, Replan, Shard, View, replan};

/// Data centres in every cluster here.
const CENTRES: usize = 5;

/// Nodes spread over data centres of ten racks each, and shards without replicas.
fn cluster(nodes: usize, shards: usize) -> View {
    let node = |n: usize| {
        let (dc, rack) = (n % CENTRES, n / CENTRES % 10);
        let region = dc / 2;
        let place = format!("region=r{region},dc=dc{dc},rack={rack},host=h{n}");
        Node::new(NodeId(n as u64 + 1), place.parse().expect("a locality"))
    };
    let shard = |n: usize| {
        let key = |n: usize| format!("{n:08}").into_bytes();
        let mut shard = Shard::new(GroupId(n as u64 + 1), key(n), key(n + 1));
        (shard.bytes, shard.requests) = (Some(1 << 28), 100);
        shard
    };
    let mut view = View {
        nodes: (0..nodes).map(node).collect(),
        shards: (0..shards).map(shard).collect(),
        ..View::default()
    };
    view.policies.default = "spread = [dc, rack], survive = dc"
        .parse()
        .expect("a policy");
    view
}

/// Does all steps; nothing may be undone.
fn done(view: &View, plan: &Replan) -> View {
    let mut after = view.clone();
    // A view of one shard finds it at once.
    let mut one = View {
        nodes: view.nodes.clone(),
        ..View::default()
    };
    let mut moved = BTreeSet::new();
    let mut handed = BTreeSet::new();
    for step in &plan.steps {
        let at = step.shard.0 as usize - 1;
        one.shards = vec![after.shards[at].clone()];
        one.apply(step).expect("the step fits");
        after.shards[at] = one.shards.remove(0);
        let touched = match &step.change {
            Change::AddLearner { node, .. } | Change::RemoveLearner { node } => vec![*node],
            Change::Swap { out, .. } => vec![*out],
            Change::Remove { nodes } => nodes.clone(),
            Change::TransferLeader { .. } => {
                assert!(handed.insert(step.shard), "{step}: handed over twice");
                Vec::new()
            }
            _ => Vec::new(),
        };
        for node in touched {
            assert!(moved.insert((step.shard, node)), "{step}: undone");
        }
    }
    after
}

/// How far the most and the least loaded of the nodes that are up are from the mean; percent.
fn unevenness(view: &View, of: impl Fn(&Shard) -> Vec<NodeId>) -> f64 {
    let up = view.nodes.iter().filter(|n| n.state == NodeState::Up);
    let mut counts: BTreeMap<NodeId, usize> = up.map(|n| (n.id, 0)).collect();
    for node in view.shards.iter().flat_map(of) {
        *counts.get_mut(&node).expect("only on nodes that are up") += 1;
    }
    let mean = counts.values().sum::<usize>() as f64 / counts.len() as f64;
    let most = counts
        .values()
        .map(|n| (*n as f64 - mean).abs())
        .fold(0.0, f64::max);
    100.0 * most / mean
}

struct Times(Vec<(&'static str, std::time::Duration)>);

#[allow(clippy::disallowed_methods, clippy::disallowed_types)] // a test measures
fn timed(times: &mut Times, what: &'static str, view: &View) -> Replan {
    let begin = std::time::Instant::now();
    let plan = replan(view).expect("a plan");
    times.0.push((what, begin.elapsed()));
    plan
}

fn even(view: &View, percent: f64) -> (f64, f64) {
    let replicas = unevenness(view, |s| s.replicas.keys().copied().collect());
    let leaders = unevenness(view, |s| s.leader.into_iter().collect());
    assert!(replicas <= percent, "replicas are {replicas} % from even");
    (replicas, leaders)
}

/// A cluster is filled, loses a data centre, and gets it back empty.
fn loses_a_centre(nodes: usize, shards: usize, percent: f64) {
    let mut times = Times(Vec::new());
    let empty = cluster(nodes, shards);
    let filled = done(&empty, &timed(&mut times, "fill", &empty));
    let before = even(&filled, percent);
    assert_eq!(timed(&mut times, "nothing", &filled).steps, []);

    let mut lost = filled;
    let gone = |node: &Node| node.locality.get("dc") == Some("dc0");
    for node in lost.nodes.iter_mut().filter(|n| gone(n)) {
        node.state = NodeState::Down;
    }
    let plan = timed(&mut times, "loss", &lost);
    assert_eq!(plan.problems, []);
    let moves = plan
        .steps
        .iter()
        .filter(|s| matches!(s.change, Change::Swap { .. }));
    let moves = moves.count();
    let repaired = done(&lost, &plan);
    let after = even(&repaired, percent);
    let down: BTreeSet<NodeId> = lost
        .nodes
        .iter()
        .filter(|n| gone(n))
        .map(|n| n.id)
        .collect();
    for shard in &repaired.shards {
        assert!(shard.replicas.keys().all(|node| !down.contains(node)));
        let dcs = shard.replicas.keys().map(|node| {
            let node = &repaired.nodes[node.0 as usize - 1];
            node.locality.get("dc")
        });
        assert_eq!(dcs.collect::<BTreeSet<_>>().len(), 3, "three data centres");
    }
    assert_eq!(replan(&repaired).expect("a plan").steps, []);

    let mut back = repaired;
    for node in &mut back.nodes {
        node.state = NodeState::Up;
    }
    let plan = timed(&mut times, "return", &back);
    let refilled = done(&back, &plan);
    let again = even(&refilled, percent);
    assert_eq!(replan(&refilled).expect("a plan").steps, []);
    println!("{nodes} nodes, {shards} shards: {:?}", times.0);
    println!(
        "{moves} replicas replaced; % from even (replicas, leaders): {before:?} {after:?} {again:?}"
    );
}

#[test]
fn a_lost_data_centre_is_replaced_evenly() {
    loses_a_centre(50, 1_000, 5.0);
}

#[test]
#[ignore = "takes long in a debug build; see the head of this file"]
fn a_lost_data_centre_of_a_thousand_nodes_is_replaced_in_seconds() {
    loses_a_centre(1_000, 100_000, 5.0);
}
