//! What is told of a run.

use super::millis;
use crate::lab::action::{Action, Harm};
use crate::lab::record::Seen;
use crate::lab::report::{LinkInfo, Site};
use crate::lab::scenario::Scenario;

pub(super) fn sites(scenario: &Scenario, seen: &[Option<Seen>]) -> Vec<Site> {
    let nodes = scenario.topology.nodes();
    let sites = scenario.topology.dcs.iter().enumerate().zip(seen);
    let told = sites.map(|((number, dc), seen)| {
        let own = nodes.iter().filter(|node| node.site == number);
        let gap = seen.as_ref().map_or((0, 0), |seen| seen.longest_gap(&[]));
        Site {
            name: dc.name.clone(),
            region: dc.region.clone(),
            nodes: own.map(|node| node.name.clone()).collect(),
            clients: dc.clients,
            bucket_millis: millis(scenario.bucket),
            buckets: seen.as_ref().map(Seen::buckets).unwrap_or_default(),
            total: seen.as_ref().map(Seen::totals).unwrap_or_default(),
            longest_gap_began_millis: gap.0 / 1_000_000,
            longest_gap_millis: gap.1 / 1_000_000,
        }
    });
    told.collect()
}

pub(super) fn links(scenario: &Scenario) -> Vec<LinkInfo> {
    let dcs = &scenario.topology.dcs;
    let mut links = Vec::new();
    for a in 0..dcs.len() {
        for b in a + 1..dcs.len() {
            let path = scenario.topology.path(a, b);
            links.push(LinkInfo {
                a: dcs[a].name.clone(),
                b: dcs[b].name.clone(),
                rtt_micros: u64::try_from(path.rtt.as_micros()).unwrap_or(u64::MAX),
                loss: path.loss,
            });
        }
    }
    links
}

pub(super) fn notes(scenario: &Scenario, seen: &[Option<Seen>]) -> Vec<String> {
    let mut notes = Vec::new();
    for (dc, seen) in scenario.topology.dcs.iter().zip(seen) {
        let never = seen.as_ref().map_or(0, |seen| seen.never);
        if never > 0 {
            notes.push(format!(
                "{}: requests that never began before the end of the load, because all clients \
                 were busy: {never}; they count as failed",
                dc.name
            ));
        }
    }
    let off = scenario
        .faults
        .iter()
        .any(|fault| matches!(fault.action, Action::Harm(_, Harm::PowerOff)));
    if off {
        notes.push(
            "power is cut by kill -9 of all nodes in one moment: what the machine's page cache \
             held survives; the simulator (synod lab sim) loses it"
                .to_owned(),
        );
    }
    notes
}
