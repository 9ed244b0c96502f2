//! A directed graph of transactions with labelled edges, and its strongly
//! connected components (Tarjan 1972, without recursion).
//!
//! Orders between many and many are compressed by *inner* nodes, which are no
//! transactions: all of the first point to the inner node, it points to all of
//! the second. A path from one transaction over inner nodes to another means
//! that the first comes before the second, for the reason on its first edge; a
//! path back to the same transaction means nothing, so a component is a cycle
//! only if it holds two transactions.
//!
//! Real time is compressed likewise: instead of an edge for every pair of
//! transactions where one ended before the other began (quadratic), a chain of
//! *moments* runs through the history; a transaction points to the moment of its
//! end, and the last moment before its begin points to it.

use std::ops::Range;

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
    /// The first saw or wrote a version that real time puts before the one that
    /// the second wrote.
    Superseded,
    /// From an inner node; the reason is on the edge that led there.
    Inner,
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
    /// The key that proves it; meaningless for real time and inner edges.
    pub(super) key: u64,
}

/// Nodes `0..transactions` are transactions, the others inner ones.
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

    /// A new inner node.
    pub(super) fn inner(&mut self) -> usize {
        self.edges.push(Vec::new());
        self.edges.len() - 1
    }

    /// Adds an edge out of an inner node.
    pub(super) fn add_inner(&mut self, from: usize, to: usize) {
        self.add(from, to, Why::Inner, 0);
    }

    /// Adds real-time order from `(invoked, completed)` of each transaction;
    /// a transaction without an end comes before nothing.
    pub(super) fn add_real_time(&mut self, spans: &[(u64, Option<u64>)]) {
        // Equal times are concurrent, so begins come before ends at one instant.
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
                let next = self.inner();
                self.add(index, next, Why::RealTime, 0);
                if let Some(previous) = moment {
                    self.add_inner(previous, next);
                }
                moment = Some(next);
            } else if let Some(moment) = moment {
                self.add_inner(moment, index);
            }
        }
    }

    /// The component of every node along edges in `mask` (inner edges always
    /// belong), and how many transactions each component holds.
    pub(super) fn components(&self, mask: u8) -> Components {
        Tarjan::new(self, mask | Why::Inner.bit()).run()
    }
}

/// Strongly connected components.
pub(super) struct Components {
    /// The component of each node.
    pub(super) of: Vec<u32>,
    /// Members that are transactions, ascending, of components that hold at
    /// least two; ordered by component.
    pub(super) cyclic: Vec<Vec<usize>>,
}

/// One run of Tarjan's algorithm.
struct Tarjan<'a> {
    graph: &'a Graph,
    mask: u8,
    number: Vec<u32>,
    low: Vec<u32>,
    stack: Vec<usize>,
    on_stack: Vec<bool>,
    next: u32,
    of: Vec<u32>,
    components: u32,
    cyclic: Vec<Vec<usize>>,
}

const NEW: u32 = u32::MAX;

impl<'a> Tarjan<'a> {
    fn new(graph: &'a Graph, mask: u8) -> Tarjan<'a> {
        let n = graph.edges.len();
        Tarjan {
            graph,
            mask,
            number: vec![NEW; n],
            low: vec![0; n],
            stack: Vec::new(),
            on_stack: vec![false; n],
            next: 0,
            of: vec![0; n],
            components: 0,
            cyclic: Vec::new(),
        }
    }

    fn run(mut self) -> Components {
        let mut work: Vec<(usize, usize)> = Vec::new();
        for root in 0..self.graph.edges.len() {
            if self.number[root] == NEW {
                self.enter(root);
                work.push((root, 0));
            }
            while let Some((node, cursor)) = work.last_mut() {
                let node = *node;
                let edge = self.graph.edges[node].get(*cursor).copied();
                *cursor += 1;
                match edge {
                    Some(edge) if edge.why.bit() & self.mask == 0 => {}
                    Some(edge) => {
                        let to = edge.to as usize;
                        if self.number[to] == NEW {
                            self.enter(to);
                            work.push((to, 0));
                        } else if self.on_stack[to] {
                            self.low[node] = self.low[node].min(self.number[to]);
                        }
                    }
                    None => {
                        work.pop();
                        if let Some(&(parent, _)) = work.last() {
                            self.low[parent] = self.low[parent].min(self.low[node]);
                        }
                        if self.low[node] == self.number[node] {
                            self.close(node);
                        }
                    }
                }
            }
        }
        Components {
            of: self.of,
            cyclic: self.cyclic,
        }
    }

    fn enter(&mut self, node: usize) {
        self.number[node] = self.next;
        self.low[node] = self.next;
        self.next += 1;
        self.stack.push(node);
        self.on_stack[node] = true;
    }

    /// Takes a finished component off the stack.
    fn close(&mut self, root: usize) {
        let mut members = Vec::new();
        while let Some(node) = self.stack.pop() {
            self.on_stack[node] = false;
            self.of[node] = self.components;
            if node < self.graph.transactions {
                members.push(node);
            }
            if node == root {
                break;
            }
        }
        self.components += 1;
        if members.len() > 1 {
            members.sort_unstable();
            self.cyclic.push(members);
        }
    }
}

/// Inner nodes over a row of leaves, so that any range of leaves can be put
/// before a transaction with logarithmically many edges (a segment tree whose
/// nodes point to their parents).
pub(super) struct Ranges {
    leaves: usize,
    /// The graph's node for each node of the tree; `[leaves..]` are leaves.
    nodes: Vec<usize>,
}

impl Ranges {
    /// A tree of so many leaves.
    pub(super) fn new(graph: &mut Graph, leaves: usize) -> Ranges {
        let nodes: Vec<usize> = (0..leaves * 2).map(|_| graph.inner()).collect();
        for at in 2..nodes.len() {
            graph.add_inner(nodes[at], nodes[at / 2]);
        }
        Ranges { leaves, nodes }
    }

    /// The inner node of a leaf.
    pub(super) fn leaf(&self, index: usize) -> usize {
        self.nodes[self.leaves + index]
    }

    /// Puts all leaves of the range before `to`.
    pub(super) fn precede(&self, graph: &mut Graph, range: Range<usize>, to: usize) {
        let (mut low, mut high) = (range.start + self.leaves, range.end + self.leaves);
        while low < high {
            if low % 2 == 1 {
                graph.add_inner(self.nodes[low], to);
                low += 1;
            }
            if high % 2 == 1 {
                high -= 1;
                graph.add_inner(self.nodes[high], to);
            }
            low /= 2;
            high /= 2;
        }
    }
}
