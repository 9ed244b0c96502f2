//! Faults: what they do, and how they end.

use super::{Event, Sim};
use crate::sim::client::Pace;
use crate::sim::config::SECOND;
use crate::sim::fault::{Down, Fault};
use crate::sim::net::LinkFault;
use synod_paxos::ClusterVersion;
use synod_shard::Input;

/// Where clients pause longer than this they come and go in crowds: an hour
/// of single transactions would be mostly waiting.
const CROWD: u64 = 2 * SECOND;

impl Sim {
    pub(super) fn fault(&mut self, index: usize) {
        if !self.faulty {
            return;
        }
        let fault = self.plan[index].fault.clone();
        self.trace.line(self.t, || format!("FAULT {fault:?}"));
        *self.report.faults.entry(fault.kind()).or_default() += 1;
        match fault.lasts() {
            0 => self.strike(&fault),
            lasts => {
                self.begin(index, &fault);
                self.at(self.t + lasts, Event::Mended(index));
            }
        }
    }

    /// Faults that are over at once, or end with a restart.
    fn strike(&mut self, fault: &Fault) {
        match fault {
            Fault::Crash { node, how, down } => self.crash(*node, *how, *down),
            Fault::CrashAtEffect {
                node,
                how,
                effects,
                down,
            } => {
                self.nodes[*node].burns_with_power = *how == Down::Power;
                if let Some(process) = &mut self.nodes[*node].process {
                    process.lanes.fuse = Some(*effects);
                    self.at(self.t + down, Event::Restart(*node));
                }
            }
            Fault::CrashLeader { shard, how, down } => {
                if let Some(node) = self.leader_of(*shard) {
                    self.crash(node, *how, *down);
                }
            }
            Fault::CrashMany { nodes, how, down } => {
                for node in nodes {
                    self.crash(*node, *how, *down);
                }
            }
            Fault::LoseEngine { node, down } => {
                self.crash(*node, Down::Power, *down);
                self.nodes[*node].lose_engine();
                self.rules.engine_lost(*node);
            }
            Fault::EngineDies {
                node,
                calls,
                how,
                down,
            } => {
                self.nodes[*node].burns_with_power = *how == Down::Power;
                if let Some(process) = &mut self.nodes[*node].process {
                    process.lanes.set_engine_fuse(*calls);
                    self.at(self.t + down, Event::Restart(*node));
                }
            }
            Fault::FlipBits { node, bits, down } => {
                self.crash(*node, Down::Power, *down);
                let mut random = self.random.fork();
                self.nodes[*node].flip_bits(*bits, &mut random);
            }
            Fault::Wipe { node } => {
                self.crash(*node, Down::Power, 1_000_000_000);
                self.nodes[*node].wipe();
                self.rules.engine_lost(*node);
            }
            Fault::DiskFails { node, calls } => {
                self.nodes[*node].storage_faults = true;
                self.nodes[*node].disk.fail_after(*calls);
            }
            Fault::Reset { node } => self.net.reset(*node),
            Fault::ClockJump { node, by } => self.nodes[*node].clock.jump(*by),
            Fault::ClockJumpAll { by } => {
                for node in &mut self.nodes {
                    node.clock.jump(*by);
                }
            }
            Fault::ClockRate { node, ppm } => self.nodes[*node].clock.set_rate(self.t, *ppm),
            Fault::Vanish { client, back } => {
                self.clients[*client].vanish(self.t);
                if *back > 0 {
                    self.at(self.t + back, Event::Revive(*client));
                }
            }
            Fault::Transfer { shard, to } => self.transfer(*shard, *to),
            Fault::Members { shard, pick } => self.change_members(*shard, *pick),
            Fault::Split { shard, pick } => self.split(*shard, *pick),
            Fault::Merge { shard } => self.merge(*shard),
            Fault::Hash { shard, pick } => self.hash(*shard, *pick),
            Fault::Raise => self.raised = ClusterVersion::NEWEST,
            Fault::StepDown { node } => self.input(*node, Input::StepDown),
            Fault::Stop { node, down } => {
                self.input(*node, Input::StepDown);
                // Its farewell has a moment to leave; then the process ends.
                let (node, down) = (*node, *down);
                self.nodes[node].burns_with_power = false;
                if let Some(process) = &mut self.nodes[node].process {
                    process.lanes.fuse = Some(40);
                    self.at(self.t + down, Event::Restart(node));
                }
            }
            _ => {}
        }
    }

    fn crash(&mut self, node: usize, how: Down, down: u64) {
        self.take_down(node, how == Down::Power);
        self.at(self.t + down, Event::Restart(node));
    }

    fn transfer(&mut self, shard: usize, to: usize) {
        let group = self.group_at(shard);
        if let Some(node) = self.leader_of(shard) {
            let to = self.nodes[to].id;
            self.input(node, Input::Transfer { group, to });
        }
    }

    /// As many electors as before, so that what disks may lose stays within the promises.
    fn change_members(&mut self, shard: usize, pick: u64) {
        let group = self.group_at(shard);
        let Some(node) = self.leader_of(shard) else {
            return;
        };
        let Some(shard) = self.nodes[node].worker().and_then(|w| w.shard(group)) else {
            return;
        };
        let now = shard.replica().configuration().clone();
        let outside = self
            .nodes
            .iter()
            .map(|n| n.id)
            .filter(|n| !now.is_member(*n));
        let outside: Vec<_> = outside.collect();
        let (mut voters, mut learners) = (now.voters.clone(), now.learners.clone());
        let mut witnesses = now.witnesses.clone();
        let nth = |of: usize, salt: u64| (pick / salt % of.max(1) as u64) as usize;
        if pick % 8 == 3 && voters.len() > now.majority() {
            witnesses.push(voters.remove(nth(now.voters.len(), 8)));
        } else if pick % 8 == 4 && !witnesses.is_empty() {
            voters.push(witnesses.remove(nth(now.witnesses.len(), 8)));
        } else if pick % 8 == 5 && !witnesses.is_empty() && !learners.is_empty() {
            witnesses[0] = learners.remove(nth(now.learners.len(), 8));
        } else if learners.is_empty() || pick.is_multiple_of(8) && !outside.is_empty() {
            let Some(new) = outside.get(nth(outside.len(), 8)) else {
                return;
            };
            learners.push(*new);
        } else if pick % 8 == 1 {
            learners.remove(nth(learners.len(), 8));
        } else {
            let new = learners.remove(nth(learners.len(), 8));
            let old = std::mem::replace(&mut voters[nth(now.voters.len(), 64)], new);
            if pick % 8 == 2 {
                // The two change places.
                learners.push(old);
            }
        }
        let members = synod_shard::Members {
            follows: now.epoch,
            voters,
            witnesses,
            learners,
        };
        let id = self.nodes[node].id;
        let asked = format!("{members:?}");
        let answer = self.reconfigure(node, group, members);
        self.trace.line(self.t, || {
            format!("{id} asked for {asked} of {group}: {answer:?}")
        });
    }

    /// The node that is in office for a shard; the first, if several think so.
    pub(super) fn leader_of(&self, shard: usize) -> Option<usize> {
        let group = self.group_at(shard);
        self.nodes.iter().position(|n| {
            let shard = n.worker().and_then(|w| w.shard(group));
            shard.is_some_and(synod_shard::Shard::in_office)
        })
    }

    /// Faults that last.
    fn begin(&mut self, index: usize, fault: &Fault) {
        let until = self.t + fault.lasts();
        match fault {
            Fault::DiskFull { node, .. } => {
                self.nodes[*node].storage_faults = true;
                self.nodes[*node].disk.set_full(true);
            }
            Fault::DiskStall { node, .. } => {
                let stalled = &mut self.nodes[*node].stalled_until;
                *stalled = until.max(*stalled);
            }
            Fault::PauseClient { client, .. } => self.clients[*client].pause(until),
            Fault::Slow { node, factor, .. } => self.nodes[*node].slow = *factor,
            Fault::Pause { node, .. } => {
                let paused = &mut self.nodes[*node].paused_until;
                *paused = until.max(*paused);
            }
            _ => {
                let links = self.links(fault);
                self.net.begin(&links);
                self.in_force.insert(index, links);
            }
        }
    }

    pub(super) fn mended(&mut self, index: usize) {
        let fault = self.plan[index].fault.clone();
        self.trace.line(self.t, || format!("mended {fault:?}"));
        match fault {
            Fault::DiskFull { node, .. } => self.nodes[node].disk.set_full(false),
            Fault::Slow { node, .. } => self.nodes[node].slow = 1,
            _ => {
                if let Some(links) = self.in_force.remove(&index) {
                    self.net.end(&links);
                }
            }
        }
    }

    /// What a fault does to links, for as long as it lasts.
    fn links(&self, fault: &Fault) -> Vec<LinkFault> {
        let all = 0..self.nodes.len();
        let pairs = || all.clone().flat_map(|a| all.clone().map(move |b| (a, b)));
        let cuts = |cut: &dyn Fn(usize, usize) -> bool| {
            pairs()
                .filter(|(a, b)| a != b && cut(*a, *b))
                .map(|(a, b)| LinkFault::cut(a, b))
                .collect()
        };
        match fault {
            Fault::Cut { from, to, both, .. } => cuts(&|a, b| {
                let one = from.contains(&a) && to.contains(&b);
                one || (*both && from.contains(&b) && to.contains(&a))
            }),
            Fault::CutLeader {
                shard,
                hears,
                heard,
                with,
                ..
            } => {
                let Some(leader) = self.leader_of(*shard) else {
                    return Vec::new();
                };
                let kept: Vec<usize> = all.clone().filter(|n| *n != leader).take(*with).collect();
                cuts(&|a, b| {
                    let out = a == leader && !kept.contains(&b) && !heard;
                    let into = b == leader && !kept.contains(&a) && !hears;
                    out || into
                })
            }
            Fault::SlowLeader { shard, extra, .. } => {
                let leader = self.leader_of(*shard);
                let into = |from| {
                    leader.filter(|to| *to != from).map(|to| LinkFault {
                        from,
                        to,
                        cut: false,
                        loss: 0,
                        extra: *extra,
                    })
                };
                all.filter_map(into).collect()
            }
            Fault::Chain { .. } => cuts(&|a, b| a.abs_diff(b) > 1),
            Fault::Bridge { node, .. } => {
                let half = self.nodes.len() / 2;
                cuts(&|a, b| a != *node && b != *node && (a < half) != (b < half))
            }
            Fault::BadLinks {
                nodes, loss, extra, ..
            } => pairs()
                .filter(|(a, b)| a != b && (nodes.contains(a) || nodes.contains(b)))
                .map(|(from, to)| LinkFault {
                    from,
                    to,
                    cut: false,
                    loss: *loss,
                    extra: *extra,
                })
                .collect(),
            _ => Vec::new(),
        }
    }

    /// The faults stop: links heal, nodes come back. Clocks stay as wrong as they are.
    pub(super) fn heal(&mut self) {
        self.faulty = false;
        self.trace.line(self.t, || "the faults stop".to_owned());
        for (_, links) in std::mem::take(&mut self.in_force) {
            self.net.end(&links);
        }
        for node in 0..self.nodes.len() {
            let n = &mut self.nodes[node];
            n.disk.set_full(false);
            n.disk.mend();
            n.slow = 1;
            n.stalled_until = 0;
            n.paused_until = 0;
            if let Some(process) = &mut n.process {
                process.lanes.fuse = None;
                process.lanes.mend_engine();
            }
            self.start(node);
            self.plan_turn(node, self.t);
        }
        self.reader = self.clients.iter().position(|c| !c.is_gone());
        let reader = self.reader;
        for client in (0..self.clients.len()).filter(|c| Some(*c) != reader) {
            self.clients[client].stop(self.t, false);
            self.arm(client);
        }
        if let Some(reader) = reader {
            // It does nothing until the others are through.
            self.clients[reader].set_pace(self.t, Some(Pace::Alone(self.config.quiet)));
        }
        self.at(self.t + super::REST_EVERY, Event::Rest);
    }

    /// A client that vanished is back, as another process.
    pub(super) fn revive(&mut self, client: usize) {
        if self.faulty {
            self.clients[client].revive(self.t);
            self.arm(client);
        }
    }

    pub(super) fn pace(&mut self, phase: usize) {
        let pace = self.config.phases[phase].think.map(|pause| {
            if pause < CROWD {
                Pace::Alone(pause)
            } else {
                Pace::Crowd(pause)
            }
        });
        for client in 0..self.clients.len() {
            self.clients[client].set_pace(self.t, pace);
            self.arm(client);
        }
    }
}
