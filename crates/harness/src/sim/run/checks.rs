//! What must hold: the rules after every step, the histories at the end.

use super::{Sim, Violation, Wrong};
use crate::history::History;
use crate::rules::{Everyone, Look, Peer, Rules, Setting, Step};
use crate::sim::client;
use crate::sim::config::SimConfig;
use crate::sim::fault::Kind;
use crate::sim::lanes::Out;
use crate::sim::model::{Beyond, LEASE_READS, RATE_BEYOND};
use crate::sim::node::{self, SimNode};
use synod_shard::Bootstrap;

/// Steps after which everything is compared, not only what a step changed.
const FULL_EVERY: u64 = 1024;

/// The rules, less those that a fault beyond the promises suspends.
pub(super) fn rules(config: &SimConfig, bootstrap: &Bootstrap) -> Rules {
    let mut rules = Rules::new(Setting {
        map: bootstrap.map.clone(),
        nodes: config.nodes(),
        lease: node::lease(config),
        txn: node::txn(config),
        election_nanos: config.election,
        fast: if config.beyond.contains(&Beyond::Rate) {
            RATE_BEYOND / 1_000 + 50
        } else {
            50
        },
        version: bootstrap.version,
        full_every: FULL_EVERY,
    });
    for rule in config.beyond.iter().flat_map(|b| b.suspends()) {
        rules.suspend(rule);
    }
    rules
}

fn peers(nodes: &[SimNode], t: u64) -> Vec<Peer<'_>> {
    let peers = nodes.iter().map(|n| Peer {
        id: n.id,
        worker: n.worker(),
        now: n.clock.now(t),
        life: n.life,
    });
    peers.collect()
}

impl Sim {
    /// A node's worker as recovery made it.
    pub(super) fn check_start(&mut self, node: usize) {
        self.show(node, Step::default(), true);
    }

    /// A node after a turn, with what left it.
    pub(super) fn check_step(&mut self, node: usize, out: &Out) {
        let step = Step {
            sent: &out.sent,
            replies: &out.replies,
        };
        self.show(node, step, false);
    }

    fn show(&mut self, node: usize, step: Step<'_>, started: bool) {
        let peers = peers(&self.nodes, self.t);
        let Some(worker) = peers[node].worker else {
            return;
        };
        let everyone = Everyone {
            t: self.t,
            nodes: &peers,
        };
        let look = Look {
            t: self.t,
            node,
            id: peers[node].id,
            life: peers[node].life,
            now: peers[node].now,
            worker,
            step,
            died: self.nodes[node].is_dying(),
            engine: Some(&self.nodes[node]),
        };
        if started {
            self.rules.restarted(&look, &everyone);
        } else {
            self.rules.step(&look, &everyone);
        }
        self.born.extend(self.rules.take_born());
        self.absorbed.extend(self.rules.take_absorbed());
        self.broken_rules();
    }

    fn broken_rules(&mut self) {
        if !self.rules.is_violated() {
            return;
        }
        for violation in self.rules.take_violations() {
            let text = match violation.node {
                Some(node) => format!("{} (seen at {node})", violation.text),
                None => violation.text,
            };
            self.violation(Wrong::Safety, violation.rule, text);
        }
    }

    /// The last look, once everything has come to rest.
    pub(super) fn check_rest(&mut self) {
        let peers = peers(&self.nodes, self.t);
        let everyone = Everyone {
            t: self.t,
            nodes: &peers,
        };
        self.rules.quiet(&everyone);
        self.broken_rules();
    }

    /// What the clients were told, held against what was promised.
    pub(super) fn histories(&mut self) {
        let suspended = |b: &Beyond| b.suspends().contains(&LEASE_READS);
        let lease_reads = !self.config.beyond.iter().any(suspended);
        let (findings, all) = client::finish(self.t, &mut self.clients, lease_reads);
        if self.options.histories {
            self.report.commit_times = client::commit_times(&all, &self.clients);
        }
        self.report.commits = all.tally.commits;
        self.report.unknown = all.tally.unknown;
        self.report.aborted = all.tally.aborted;
        let wrong_clocks = self
            .report
            .faults
            .keys()
            .any(|kind| matches!(kind, Kind::ClockJump | Kind::ClockJumpAll | Kind::ClockRate));
        if all.tally.refused > 0 && !wrong_clocks {
            let text = format!(
                "nodes refused {} requests as against a rule",
                all.tally.refused
            );
            self.violation(Wrong::Harness, "refused", text);
        }
        if self.options.histories {
            let transactions = all.lists;
            self.report.lists = Some(History { transactions });
        }
        for finding in findings {
            self.report.violations.push(Violation {
                wrong: if finding.safety {
                    Wrong::Safety
                } else {
                    Wrong::Liveness
                },
                rule: finding.check.to_owned(),
                at: None,
                text: finding.text,
            });
        }
    }
}
