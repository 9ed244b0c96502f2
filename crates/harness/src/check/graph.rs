//! A directed graph of transactions with labelled edges, its strongly
//! connected components (Tarjan 1972, without recursion) and shortest cycles.
//!
//! Real time is compressed: instead of an edge for every pair of transactions
//! where one ended before the other began (quadratic), a chain of *moments*
//! runs through the history; a transaction points to the moment of its end, and
//! the last moment before its begin points to it.

use std::collections::VecDeque;

/// Why one transaction comes before another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Why {
    /// Both wrote a key, one after the other.
    WriteWrite,
    /// The second read what the first wrote.
    WriteRead,
    /// The second overwrote what the first read.
    ReadWrite,
    /// The first ended before the second began.
    RealTime,
}

impl Why {
    /// This label as a bit of a mask.
    pub(super) const fn bit(self) -> u8 {
        1 << self as u8
    }
}

/// One edge.
#[derive(Clone, Copy, Debug)]
pub(super) struct Edge {
    /// Where it leads.
    pub(super) to: u32,
    /// Its label.
    pub(super) why: Why,
    /// The key that proves it; meaningless for real time.
    pub(super) key: u64,
}

/// Nodes `0..transactions` are transactions, the others moments.
#[derive(Debug, Default)]
pub(super) struct Graph {
    /// How many nodes are transactions.
    pub(super) transactions: usize,
    /// Edges, per node.
    pub(super) edges: Vec<Vec<Edge>>,
}

impl Graph {
    /// A graph of that many transactions, without edges.
    pub(super) fn new(transactions: usize) -> Graph {
        Graph {
            transactions,
            edges: vec![Vec::new(); transactions],
        }
    }

    /// Adds an edge; loops are left out.
    pub(super) fn add(&mut self, from: usize, to: usize, why: Why, key: u64) {
        if from != to {
            self.edges[from].push(Edge {
                to: u32::try_from(to).expect("fewer than 2^32 transactions"),
                why,
                key,
            });
        }
    }

    /// Adds real-time order from `(invoked, completed)` of each transaction;
    /// a transaction without an end comes before nothing.
    pub(super) fn add_real_time(&mut self, spans: &[(u64, Option<u64>)]) {
        // Ends sort before begins at the same instant: equal times are concurrent,
        // so begins must come first.
        let mut events: Vec<(u64, bool, usize)> = Vec::with_capacity(spans.len() * 2);
        for (index, (invoked, completed)) in spans.iter().enumerate() {
            events.push((*invoked, false, index));
            if let Some(completed) = completed {
                events.push((*completed, true, index));
            }
        }
        events.sort_unstable();
        let mut moment: Option<usize> = None;
        for (_, is_end, index) in events {
            if is_end {
                let next = self.edges.len();
                self.edges.push(Vec::new());
                self.add(index, next, Why::RealTime, 0);
                if let Some(previous) = moment {
                    self.add(previous, next, Why::RealTime, 0);
                }
                moment = Some(next);
            } else if let Some(moment) = moment {
                self.add(moment, index, Why::RealTime, 0);
            }
        }
    }

    /// Components of more than one node along edges in `mask`.
    pub(super) fn components(&self, mask: u8) -> Vec<Vec<usize>> {
        const NEW: u32 = u32::MAX;
        let n = self.edges.len();
        let (mut number, mut low) = (vec![NEW; n], vec![0u32; n]);
        let (mut on_stack, mut stack) = (vec![false; n], Vec::new());
        let (mut next, mut found) = (0u32, Vec::new());
        let mut work: Vec<(usize, usize)> = Vec::new();
        for root in 0..n {
            if number[root] != NEW {
                continue;
            }
            work.push((root, 0));
            while let Some(&mut (node, ref mut cursor)) = work.last_mut() {
                if *cursor == 0 && number[node] == NEW {
                    number[node] = next;
                    low[node] = next;
                    next += 1;
                    stack.push(node);
                    on_stack[node] = true;
                }
                let edge = self.edges[node].get(*cursor).copied();
                *cursor += 1;
                match edge {
                    Some(edge) if edge.why.bit() & mask == 0 => {}
                    Some(edge) => {
                        let to = edge.to as usize;
                        if number[to] == NEW {
                            work.push((to, 0));
                        } else if on_stack[to] {
                            low[node] = low[node].min(number[to]);
                        }
                    }
                    None => {
                        work.pop();
                        if let Some(&(parent, _)) = work.last() {
                            low[parent] = low[parent].min(low[node]);
                        }
                        if low[node] == number[node] {
                            let at = stack.iter().rposition(|&s| s == node).unwrap_or(0);
                            let component = stack.split_off(at);
                            for &member in &component {
                                on_stack[member] = false;
                            }
                            if component.len() > 1 {
                                found.push(component);
                            }
                        }
                    }
                }
            }
        }
        found
    }

    /// The shortest path `from → … → to` along edges in `mask` between members
    /// of `inside`, as edges with their sources.
    pub(super) fn path(
        &self,
        from: usize,
        to: usize,
        mask: u8,
        inside: &[bool],
    ) -> Option<Vec<(usize, Edge)>> {
        let mut came: Vec<Option<(usize, Edge)>> = vec![None; self.edges.len()];
        let mut queue = VecDeque::from([from]);
        while let Some(node) = queue.pop_front() {
            for &edge in &self.edges[node] {
                let next = edge.to as usize;
                if edge.why.bit() & mask == 0 || !inside[next] || came[next].is_some() {
                    continue;
                }
                came[next] = Some((node, edge));
                if next == to {
                    let mut path = Vec::new();
                    let mut at = to;
                    loop {
                        let (previous, edge) = came[at].expect("visited");
                        path.push((previous, edge));
                        at = previous;
                        if at == from {
                            path.reverse();
                            return Some(path);
                        }
                    }
                }
                queue.push_back(next);
            }
        }
        None
    }
}
