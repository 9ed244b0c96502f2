//! Plans for clusters of many shapes.

use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use synod_paxos::NodeId;
use synod_placement::{
    Domain, Locality, MAX_SHARDS, NodeView, PlanError, PlanRequest, ShardPlan, TIERS, Tiers, plan,
    survives,
};

fn nodes(places: &[&str]) -> Vec<NodeView> {
    let view = |(n, place): (usize, &&str)| NodeView {
        id: NodeId(n as u64 + 1),
        locality: place.parse().expect("a locality"),
    };
    places.iter().enumerate().map(view).collect()
}

fn planned(places: &[&str], replicas: usize, shards: usize) -> Vec<ShardPlan> {
    let nodes = nodes(places);
    let request = PlanRequest {
        nodes,
        replicas,
        shards,
    };
    plan(request).expect("a plan")
}

/// How often each node stands in `of` each shard.
fn loads(nodes: &[NodeView], plans: &[ShardPlan], of: fn(&ShardPlan) -> Vec<NodeId>) -> Vec<usize> {
    let mut load: BTreeMap<NodeId, usize> = nodes.iter().map(|node| (node.id, 0)).collect();
    for node in plans.iter().flat_map(of) {
        *load.get_mut(&node).expect("a known node") += 1;
    }
    load.into_values().collect()
}

fn even(loads: &[usize]) -> bool {
    loads.iter().max().unwrap_or(&0) - loads.iter().min().unwrap_or(&0) <= 1
}

/// The most voters of a shard in one domain of a tier.
fn densest(nodes: &[NodeView], shard: &ShardPlan, tier: &str) -> usize {
    let mut counts = BTreeMap::<Locality, usize>::new();
    for node in nodes.iter().filter(|node| shard.voters.contains(&node.id)) {
        *counts.entry(place(nodes, node, tier)).or_default() += 1;
    }
    counts.into_values().max().unwrap_or(0)
}

fn domains(nodes: &[NodeView], tier: &str) -> usize {
    let places: BTreeSet<Locality> = nodes.iter().map(|n| place(nodes, n, tier)).collect();
    places.len()
}

/// Where `node` is, as far as the tiers down to `tier` tell it.
fn place(nodes: &[NodeView], node: &NodeView, tier: &str) -> Locality {
    let tiers = Tiers::of(nodes.iter().map(|n| (n.id, &n.locality))).expect("one order");
    let position = tiers.position(tier).expect("a known tier");
    tiers.through(&node.locality, position)
}

#[test]
fn one_replica_in_each_data_centre() {
    let places = ["dc=a", "dc=a", "dc=b", "dc=b", "dc=c", "dc=c"];
    let plans = planned(&places, 3, 12);
    let nodes = nodes(&places);
    for shard in &plans {
        assert_eq!(densest(&nodes, shard, "dc"), 1);
        assert_eq!(shard.reasons[0], "each replica in a dc of its own");
        assert_eq!(shard.reasons.len(), 4, "one more for each voter");
    }
    assert_eq!(loads(&nodes, &plans, |s| s.voters.clone()), [6; 6]);
    assert_eq!(loads(&nodes, &plans, |s| vec![s.leader]), [2; 6]);
}

#[test]
fn data_centres_serve_where_regions_are_too_few() {
    let places = [
        "region=eu,dc=1",
        "region=eu,dc=2",
        "region=eu,dc=3",
        "region=eu,dc=4",
        "region=us,dc=1",
        "region=us,dc=1",
    ];
    for shard in planned(&places, 5, 4) {
        assert_eq!(densest(&nodes(&places), &shard, "dc"), 1);
        assert!(
            shard
                .reasons
                .iter()
                .any(|r| r.contains("up to 4 of 5 replicas in one region"))
        );
    }
}

#[test]
fn a_wider_tier_without_majority_goes_before_a_narrower_one_of_singles() {
    // One for each of five data centres would give a majority to eu.
    let places = [
        "region=eu,dc=1",
        "region=eu,dc=2",
        "region=eu,dc=3",
        "region=us,dc=1",
        "region=us,dc=1",
        "region=ap,dc=1",
        "region=ap,dc=1",
    ];
    for shard in planned(&places, 5, 4) {
        assert_eq!(densest(&nodes(&places), &shard, "region"), 2);
    }
}

#[test]
fn racks_of_the_same_name_in_two_places_are_two() {
    let places = ["dc=a,rack=1", "dc=a,rack=2", "dc=b,rack=1", "dc=a,rack=2"];
    for shard in planned(&places, 3, 5) {
        assert_eq!(densest(&nodes(&places), &shard, "rack"), 1);
    }
}

#[test]
fn tiers_may_have_any_name_and_number() {
    let places: Vec<String> = (0..27)
        .map(|n| format!("zone=z,hall={},row={},shelf={}", n % 3, n / 3 % 3, n / 9))
        .collect();
    let places: Vec<&str> = places.iter().map(String::as_str).collect();
    let plans = planned(&places, 3, 27);
    for shard in &plans {
        assert_eq!(densest(&nodes(&places), shard, "hall"), 1);
        assert_eq!(shard.reasons[0], "each replica in a hall of its own");
    }
    assert!(even(&loads(&nodes(&places), &plans, |s| s.voters.clone())));
}

#[test]
fn fewer_nodes_than_replicas_are_used_and_said() {
    for (places, voters) in [(vec![""], 1), (vec!["", ""], 1), (vec!["dc=a"; 4], 3)] {
        let plans = planned(&places, 5, 8);
        assert!(plans.iter().all(|shard| shard.voters.len() == voters));
        assert!(plans[0].reasons[0].starts_with(&format!("{voters} replicas instead of 5")));
        assert!(even(&loads(&nodes(&places), &plans, |s| s.voters.clone())));
        assert!(even(&loads(&nodes(&places), &plans, |s| vec![s.leader])));
    }
}

#[test]
fn wrong_requests_are_refused() {
    let request = |places: &[&str], replicas, shards| {
        let nodes = nodes(places);
        plan(PlanRequest {
            nodes,
            replicas,
            shards,
        })
        .expect_err("refused")
    };
    assert_eq!(request(&[], 3, 1), PlanError::NoNodes);
    for replicas in [0, 2, 4] {
        assert_eq!(
            request(&[""], replicas, 1),
            PlanError::EvenReplicas { replicas }
        );
    }
    let shards = MAX_SHARDS + 1;
    assert_eq!(
        request(&[""], 3, shards),
        PlanError::TooManyShards { shards }
    );
    let contradiction = request(&["dc=a,rack=1", "rack=1,dc=a"], 3, 1);
    assert!(
        contradiction
            .to_string()
            .contains("n2 (rack=1,dc=a) puts `rack` before `dc`")
    );
    let mut twice = nodes(&["", ""]);
    twice[1].id = NodeId(1);
    let refused = plan(PlanRequest {
        nodes: twice,
        replicas: 3,
        shards: 1,
    });
    assert_eq!(refused, Err(PlanError::RepeatedNode { node: NodeId(1) }));
    assert_eq!(planned(&[""], 3, 0), []);
}

#[test]
fn what_loses_the_quorum_is_named() {
    let nodes = nodes(&[
        "region=eu,dc=1",
        "region=eu,dc=2",
        "region=us,dc=1",
        "region=ap",
    ]);
    let outcomes = survives(&nodes, &[NodeId(1), NodeId(2), NodeId(3)]).expect("one order");
    let lines: Vec<String> = outcomes
        .iter()
        .map(|s| format!("{} {:?} {}", s.domain, s.lost, s.quorum))
        .collect();
    assert_eq!(
        lines,
        [
            "region=eu [n1, n2] false",
            "region=us [n3] true",
            "region=eu,dc=1 [n1] true",
            "region=eu,dc=2 [n2] true",
            "region=us,dc=1 [n3] true",
            "node n1 [n1] true",
            "node n2 [n2] true",
            "node n3 [n3] true",
        ]
    );
    let unknown = survives(&[], &[NodeId(9)]).expect("one order");
    assert_eq!(
        (unknown[0].domain.clone(), unknown[0].quorum),
        (Domain::Node(NodeId(9)), false)
    );
}

/// A cluster of any shape.
fn any_nodes() -> impl Strategy<Value = Vec<NodeView>> {
    let tier = || prop::option::weighted(0.9, 0..4_u8);
    let place = (tier(), tier(), tier(), tier());
    prop::collection::vec(place, 1..14).prop_map(|places| {
        let text = |(region, dc, rack, host): &(Option<u8>, Option<u8>, Option<u8>, Option<u8>)| {
            let values = TIERS.iter().zip([region, dc, rack, host]);
            let parts = values.filter_map(|(tier, v)| v.map(|v| format!("{tier}={v}")));
            parts.collect::<Vec<_>>().join(",")
        };
        let places: Vec<String> = places.iter().map(text).collect();
        nodes(&places.iter().map(String::as_str).collect::<Vec<_>>())
    })
}

/// A cluster with as many nodes in every domain of a tier.
fn regular_nodes() -> impl Strategy<Value = Vec<NodeView>> {
    (1..4_usize, 1..4_usize, 1..3_usize, 1..3_usize).prop_map(|(regions, dcs, racks, hosts)| {
        let mut places = Vec::new();
        for region in 0..regions {
            for dc in 0..dcs {
                for rack in 0..racks {
                    for host in 0..hosts {
                        places.push(format!("region={region},dc={dc},rack={rack},host={host}"));
                    }
                }
            }
        }
        nodes(&places.iter().map(String::as_str).collect::<Vec<_>>())
    })
}

proptest! {
    #[test]
    fn every_plan_is_sound(nodes in any_nodes(), half in 0..4_usize, shards in 0..40_usize) {
        let replicas = 2 * half + 1;
        let request = PlanRequest { nodes: nodes.clone(), replicas, shards };
        let plans = plan(request.clone()).expect("a plan");
        prop_assert_eq!(plans.len(), shards);
        let odd = (1..=nodes.len()).rev().find(|n| n % 2 == 1).expect("at least one");
        for shard in &plans {
            prop_assert_eq!(shard.voters.len(), replicas.min(odd));
            prop_assert!(shard.voters.is_sorted_by(|a, b| a < b));
            prop_assert!(shard.voters.contains(&shard.leader));
        }
        let mut shuffled = request;
        shuffled.nodes.reverse();
        prop_assert_eq!(plan(shuffled), Ok(plans));
    }

    #[test]
    fn leaders_are_as_even_as_voters_allow(nodes in any_nodes(), shards in 0..40_usize) {
        let plans = plan(PlanRequest { nodes: nodes.clone(), replicas: 3, shards }).expect("a plan");
        let lead = loads(&nodes, &plans, |s| vec![s.leader]);
        let of = |id: NodeId| lead[nodes.iter().position(|n| n.id == id).expect("known")];
        for shard in &plans {
            let least = shard.voters.iter().map(|v| of(*v)).min().expect("voters");
            prop_assert!(of(shard.leader) <= least + 1, "one hand-over would even it out");
        }
    }

    #[test]
    fn regular_clusters_are_spread_and_even(
        nodes in regular_nodes(), half in 0..3_usize, shards in 0..50_usize,
    ) {
        let request = PlanRequest { nodes: nodes.clone(), replicas: 2 * half + 1, shards };
        let plans = plan(request).expect("a plan");
        prop_assert!(even(&loads(&nodes, &plans, |s| s.voters.clone())));
        prop_assert!(even(&loads(&nodes, &plans, |s| vec![s.leader])));
        for shard in &plans {
            let voters = shard.voters.len();
            for tier in TIERS {
                // Regular: the fair share of the widest tier is always possible.
                let fair = voters.div_ceil(domains(&nodes, tier));
                prop_assert!(densest(&nodes, shard, tier) <= fair);
            }
        }
    }
}
