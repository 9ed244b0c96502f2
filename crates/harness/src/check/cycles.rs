//! Finds cycles in the dependency graph and names them, weakest isolation first
//! (Adya, *Weak Consistency*, 1999; the search follows Kingsbury and Alvaro's
//! *Elle*, VLDB 2020).

use super::graph::{Components, Edge, Graph, Why};
use super::{Anomaly, Findings, MAX_REPORTED};
use std::collections::VecDeque;

const WW: u8 = Why::WriteWrite.bit();
const WR: u8 = Why::WriteRead.bit();
const RW: u8 = Why::ReadWrite.bit();
const RT: u8 = Why::RealTime.bit() | Why::Superseded.bit();
const INNER: u8 = Why::Inner.bit();

/// Edges that the search for one readable cycle may follow, so that a history
/// that is broken all over is told in bounded time.
const EFFORT: usize = 20_000_000;

/// A step from one transaction to another, and why.
type Step = (usize, Why, u64);

/// Adds the cycles found: one per strongly connected component, at the weakest
/// level at which its transactions form one. `describe` puts a transaction in words.
pub(super) fn report(graph: &Graph, findings: &mut Findings, describe: &dyn Fn(usize) -> String) {
    let mut told = vec![false; graph.transactions];
    let mut search = Search::new(graph);
    for mask in [WW, WW | WR, WW | WR | RW, WW | WR | RW | RT] {
        let components = graph.components(mask);
        let mut reported = 0;
        for members in &components.cyclic {
            // What a weaker level explained is not told again.
            if members.iter().any(|&m| told[m]) {
                continue;
            }
            for &member in members {
                told[member] = true;
            }
            reported += 1;
            if reported > MAX_REPORTED {
                findings.total += 1;
                continue;
            }
            let cycle = search.shortest(members, &components, mask);
            findings.add(name(&cycle, mask), || words(&cycle, describe));
        }
    }
}

/// What the cycle is called; by its level when the search gave up.
fn name(cycle: &[Step], mask: u8) -> Anomaly {
    let has = |bits: u8| cycle.iter().any(|(_, why, _)| why.bit() & bits != 0);
    let anti = cycle.iter().filter(|(_, why, _)| *why == Why::ReadWrite);
    match anti.count() {
        _ if has(RT) || (cycle.is_empty() && mask & RT != 0) => Anomaly::RealTime,
        0 if cycle.is_empty() && mask & RW != 0 => Anomaly::AntiDependency,
        0 if has(WR) || (cycle.is_empty() && mask & WR != 0) => Anomaly::CircularInformation,
        0 => Anomaly::WriteCycle,
        1 => Anomaly::SingleAntiDependency,
        _ => Anomaly::AntiDependency,
    }
}

/// The cycle as a story: each step with its reason.
fn words(cycle: &[Step], describe: &dyn Fn(usize) -> String) -> String {
    if cycle.is_empty() {
        return "transactions depend on each other in a circle too long to be told".to_owned();
    }
    let mut text = String::new();
    let next = cycle.iter().cycle().skip(1);
    for ((from, why, key), (to, ..)) in cycle.iter().zip(next) {
        text.push_str(&describe(*from));
        let reason = match why {
            Why::WriteWrite => format!("wrote key {key} before"),
            Why::WriteRead => format!("wrote to key {key} what was read by"),
            Why::ReadWrite => format!("read key {key} before the write of"),
            Why::RealTime => "had ended before the begin of".to_owned(),
            Why::Superseded => {
                format!("met key {key} in a state that, by real time, is older than the write of")
            }
            Why::Inner => "comes before".to_owned(),
        };
        text.push_str(&format!(" {reason} T{to}; "));
    }
    text.push_str("so each of them comes before itself");
    text
}

/// Breadth-first searches that share their tables.
struct Search<'a> {
    graph: &'a Graph,
    /// Per node and layer, the run that visited it last.
    seen: Vec<u32>,
    /// Where that run came from: the state before, and the edge taken.
    came: Vec<(u32, Why, u64)>,
    run: u32,
    effort: usize,
}

impl<'a> Search<'a> {
    fn new(graph: &'a Graph) -> Search<'a> {
        Search {
            graph,
            seen: vec![0; graph.edges.len() * 2],
            came: vec![(0, Why::Inner, 0); graph.edges.len() * 2],
            run: 0,
            effort: 0,
        }
    }

    /// A short cycle within a component: one anti-dependency if that suffices.
    /// Empty if none was found within the effort.
    fn shortest(&mut self, members: &[usize], components: &Components, mask: u8) -> Vec<Step> {
        self.effort = EFFORT;
        let mut best = Vec::new();
        // Not all starts: a few give a cycle that is short enough to read.
        let starts = |single: bool| if single { members.len() } else { 500 };
        for (first, rest) in [(RW, WW | WR), (mask, mask)] {
            if first == RW && (mask & RW == 0 || mask & RT != 0) {
                continue;
            }
            for &from in members.iter().take(starts(first == RW)) {
                let found = self.cycle(from, first, rest, components);
                if let Some(found) = found
                    && (best.is_empty() || found.len() < best.len())
                {
                    best = found;
                }
                if best.len() == 2 || self.effort == 0 {
                    return best;
                }
            }
            if !best.is_empty() {
                break;
            }
        }
        best
    }

    /// The shortest cycle `from → … → from` over at least one other transaction,
    /// its first step along `first`, the others along `rest`. A state is a node
    /// and whether another transaction was passed.
    fn cycle(
        &mut self,
        from: usize,
        first: u8,
        rest: u8,
        components: &Components,
    ) -> Option<Vec<Step>> {
        self.run += 1;
        let (home, goal) = (components.of[from], from * 2 + 1);
        let mut queue = VecDeque::from([from * 2]);
        while let Some(state) = queue.pop_front() {
            let (node, layer) = (state / 2, state % 2);
            let mask = if layer == 0 { first } else { rest } | INNER;
            for edge in &self.graph.edges[node] {
                self.effort = self.effort.saturating_sub(1);
                let next = self.step(edge, layer, from);
                let Some(next) = next.filter(|_| edge.why.bit() & mask != 0) else {
                    continue;
                };
                if components.of[next / 2] != home || self.seen[next] == self.run {
                    continue;
                }
                self.seen[next] = self.run;
                self.came[next] = (u32::try_from(state).ok()?, edge.why, edge.key);
                if next == goal {
                    return Some(self.trace(goal, from));
                }
                queue.push_back(next);
            }
            if self.effort == 0 {
                return None;
            }
        }
        None
    }

    /// The state that an edge leads to; none if it returns before it met another
    /// transaction.
    fn step(&self, edge: &Edge, layer: usize, from: usize) -> Option<usize> {
        let to = edge.to as usize;
        if to == from {
            return (layer == 1).then_some(to * 2 + 1);
        }
        let layer = if to < self.graph.transactions {
            1
        } else {
            layer
        };
        Some(to * 2 + layer)
    }

    /// Back from the goal; inner nodes are left out.
    fn trace(&self, goal: usize, from: usize) -> Vec<Step> {
        let (mut at, mut steps) = (goal, Vec::new());
        loop {
            let (before, why, key) = self.came[at];
            at = before as usize;
            if at / 2 < self.graph.transactions {
                steps.push((at / 2, why, key));
            }
            if at == from * 2 {
                steps.reverse();
                return steps;
            }
        }
    }
}
