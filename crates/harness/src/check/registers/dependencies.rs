//! The dependencies between transactions on registers.

use super::Checker;
use super::versions::{Chain, Version, Versions};
use crate::check::graph::{Graph, Ranges, Why};
use crate::history::Outcome;
use std::collections::BTreeMap;

impl Checker<'_> {
    /// All dependencies that are known, and real time.
    pub(super) fn graph(&self, keys: &BTreeMap<u64, Versions>) -> Graph {
        let mut graph = Graph::new(self.history.len());
        for (key, versions) in keys {
            for version in &versions.all {
                add_version(&mut graph, *key, version, versions);
            }
            let chains = self.chains(versions);
            add_beginning(&mut graph, *key, versions, &chains);
            add_real_time_order(&mut graph, *key, versions, &chains);
        }
        let spans: Vec<(u64, Option<u64>)> = self
            .history
            .iter()
            .map(|t| {
                let ended = matches!(t.outcome, Outcome::Committed(_));
                (t.invoked, ended.then_some(t.completed))
            })
            .collect();
        graph.add_real_time(&spans);
        graph
    }
}

/// The writer comes before the readers, and all of them before the writers of
/// versions that are known to be newer.
fn add_version(graph: &mut Graph, key: u64, version: &Version, versions: &Versions) {
    if let Some(writer) = version.writer {
        for reader in &version.readers {
            graph.add(writer, *reader, Why::WriteRead, key);
        }
    }
    let newer = version.overwritten_by.iter().chain(&version.older_than);
    if newer.clone().next().is_none() {
        return;
    }
    let end = graph.inner();
    meet(graph, key, version, end);
    for next in newer {
        if let Some(writer) = versions.all[*next].writer {
            graph.add_inner(end, writer);
        }
    }
}

/// Puts all that met the version before `to`, as dependencies on an overwrite.
fn meet(graph: &mut Graph, key: u64, version: &Version, to: usize) {
    if let Some(writer) = version.writer {
        graph.add(writer, to, Why::WriteWrite, key);
    }
    for reader in &version.readers {
        graph.add(*reader, to, Why::ReadWrite, key);
    }
}

/// The writer of a chain's oldest version.
fn first_writer(versions: &Versions, chain: &Chain) -> Option<usize> {
    chain.versions.first().and_then(|n| versions.all[*n].writer)
}

/// The chain that begins with nothing comes before all others.
fn add_beginning(graph: &mut Graph, key: u64, versions: &Versions, chains: &[Chain]) {
    let Some((beginning, others)) = chains.split_first() else {
        return;
    };
    let end = graph.inner();
    for number in &beginning.versions {
        meet(graph, key, &versions.all[*number], end);
    }
    for writer in others.iter().filter_map(|c| first_writer(versions, c)) {
        graph.add_inner(end, writer);
    }
}

/// A chain one of whose transactions had ended before one of another chain's
/// began is the older one.
fn add_real_time_order(graph: &mut Graph, key: u64, versions: &Versions, chains: &[Chain]) {
    let Some((_, chains)) = chains.split_first() else {
        return;
    };
    let mut ended: Vec<(u64, usize)> = chains
        .iter()
        .enumerate()
        .filter_map(|(number, chain)| chain.first_end.map(|end| (end, number)))
        .collect();
    ended.sort_unstable();
    if ended.is_empty() {
        return;
    }
    let ranges = Ranges::new(graph, ended.len());
    for (position, (_, number)) in ended.iter().enumerate() {
        for version in &chains[*number].versions {
            for toucher in versions.all[*version].met_by() {
                graph.add(toucher, ranges.leaf(position), Why::Superseded, key);
            }
        }
    }
    for (number, chain) in chains.iter().enumerate() {
        let Some(writer) = first_writer(versions, chain) else {
            continue;
        };
        let older = ended.partition_point(|(end, _)| *end < chain.last_begin);
        // It is not older than itself.
        let own = chain.first_end.map_or(older, |end| {
            let at = ended.partition_point(|entry| *entry < (end, number));
            at.min(older)
        });
        ranges.precede(graph, 0..own, writer);
        ranges.precede(graph, own.saturating_add(1).min(older)..older, writer);
    }
}
