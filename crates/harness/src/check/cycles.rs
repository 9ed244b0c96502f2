//! Finds cycles in the dependency graph and names them, weakest isolation first
//! (Adya, *Weak Consistency*, 1999; the search follows Kingsbury and Alvaro's
//! *Elle*, VLDB 2020).

use super::graph::{Edge, Graph, Why};
use super::{Anomaly, Findings, MAX_REPORTED};

const WW: u8 = Why::WriteWrite.bit();
const WR: u8 = Why::WriteRead.bit();
const RW: u8 = Why::ReadWrite.bit();
const RT: u8 = Why::RealTime.bit();

/// Adds every kind of cycle found at the weakest level at which there is one.
/// `describe` puts a transaction in words.
pub(super) fn report(graph: &Graph, findings: &mut Findings, describe: &dyn Fn(usize) -> String) {
    let levels = [
        (WW, Anomaly::WriteCycle),
        (WW | WR, Anomaly::CircularInformation),
        (WW | WR | RW, Anomaly::AntiDependency),
        (WW | WR | RW | RT, Anomaly::RealTime),
    ];
    for (mask, anomaly) in levels {
        let components = graph.components(mask);
        if components.is_empty() {
            continue;
        }
        for (index, component) in components.iter().enumerate() {
            if index >= MAX_REPORTED {
                findings.total += 1;
                continue;
            }
            let mut inside = vec![false; graph.edges.len()];
            for &node in component {
                inside[node] = true;
            }
            let (anomaly, cycle) = shortest(graph, component, &inside, mask, anomaly);
            findings.add(anomaly, || words(graph, &cycle, describe));
        }
        return;
    }
}

/// A short cycle within a component, and its proper name.
fn shortest(
    graph: &Graph,
    component: &[usize],
    inside: &[bool],
    mask: u8,
    anomaly: Anomaly,
) -> (Anomaly, Vec<(usize, Edge)>) {
    let members = component.iter().filter(|&&n| n < graph.transactions);
    if anomaly == Anomaly::AntiDependency {
        for &from in members.clone() {
            for &edge in &graph.edges[from] {
                let to = edge.to as usize;
                if edge.why != Why::ReadWrite || !inside[to] {
                    continue;
                }
                if let Some(rest) = graph.path(to, from, WW | WR, inside) {
                    let mut cycle = vec![(from, edge)];
                    cycle.extend(rest);
                    return (Anomaly::SingleAntiDependency, cycle);
                }
            }
        }
    }
    // A search from every member would be quadratic; a few starts give a cycle
    // that is short enough to read.
    let cycle = members
        .take(200)
        .filter_map(|&node| graph.path(node, node, mask, inside))
        .min_by_key(Vec::len)
        .unwrap_or_default();
    (anomaly, cycle)
}

/// The cycle as a story: each step with its reason.
fn words(graph: &Graph, cycle: &[(usize, Edge)], describe: &dyn Fn(usize) -> String) -> String {
    let start = cycle
        .iter()
        .position(|(from, _)| *from < graph.transactions)
        .unwrap_or(0);
    let mut text = String::new();
    let mut steps = cycle[start..].iter().chain(&cycle[..start]).peekable();
    let mut in_real_time = false;
    while let Some((from, edge)) = steps.next() {
        if *from < graph.transactions {
            in_real_time = false;
            if !text.is_empty() {
                text.push_str("; ");
            }
            text.push_str(&describe(*from));
        }
        let key = edge.key;
        match edge.why {
            Why::WriteWrite => text.push_str(&format!(" wrote key {key} before")),
            Why::WriteRead => text.push_str(&format!(" wrote to key {key} what was read by")),
            Why::ReadWrite => text.push_str(&format!(" read key {key} before the write of")),
            Why::RealTime if !in_real_time => {
                in_real_time = true;
                text.push_str(" had ended before the begin of");
            }
            Why::RealTime => {}
        }
        if steps.peek().is_none() {
            text.push_str("; the first again: a cycle");
        }
    }
    text
}
