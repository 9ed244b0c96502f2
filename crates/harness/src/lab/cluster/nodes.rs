//! The nodes: what is done to them, and what becomes of it.

use crate::cluster::{Cluster as Processes, DiskError};
use crate::lab::LabError;
use crate::lab::action::Harm;
use std::collections::{BTreeSet, HashMap};
use std::time::{Duration, Instant};

/// A node whose disk has just been mended may still be ending because of what was wrong.
const DYING: Duration = Duration::from_secs(10);

/// What holds at which node.
#[derive(Debug, Default)]
pub(super) struct Nodes {
    /// How many faults of a kind hold at a node.
    held: HashMap<(usize, Harm), u32>,
    /// Nodes that are to be up, and may still be going down, with why that is no wonder.
    mending: HashMap<usize, Mending>,
    /// Gone for good.
    pub(super) lost: BTreeSet<usize>,
    /// Those that ended without a fault.
    crashed: BTreeSet<usize>,
}

#[derive(Clone, Copy, Debug)]
enum Mending {
    /// It was asked to end.
    Ends,
    /// It may end until then.
    MayEnd(Instant),
}

impl Harm {
    /// Whether a node with it does not run.
    pub(super) fn is_down(self) -> bool {
        matches!(
            self,
            Harm::Kill | Harm::PowerOff | Harm::Stop | Harm::WipeEngine
        )
    }

    /// Whether a node with it ends by itself.
    fn kills(self) -> bool {
        matches!(self, Harm::FillDisk | Harm::FailSyncs)
    }
}

impl Nodes {
    fn holds(&self, node: usize, is: impl Fn(Harm) -> bool) -> bool {
        self.held
            .iter()
            .any(|((n, harm), count)| *n == node && *count > 0 && is(*harm))
    }

    /// A fault begins at these nodes.
    pub(super) fn begin(
        &mut self,
        processes: &mut Processes,
        nodes: &[usize],
        harm: Harm,
    ) -> Result<(), LabError> {
        for node in nodes.iter().filter(|node| !self.lost.contains(node)) {
            *self.held.entry((*node, harm)).or_default() += 1;
            match harm {
                Harm::Kill | Harm::PowerOff => processes.node_mut(*node).kill(),
                Harm::Stop => processes.node_mut(*node).terminate(),
                Harm::Pause => processes.node_mut(*node).pause(),
                Harm::WipeEngine => {
                    processes.node_mut(*node).kill();
                    let engine = processes.nodes()[*node].data_dir.join("engine");
                    remove(&engine)?;
                }
                _ => set(processes, *node, harm, true),
            }
        }
        Ok(())
    }

    /// It ends.
    pub(super) fn end(
        &mut self,
        processes: &mut Processes,
        nodes: &[usize],
        harm: Harm,
    ) -> Result<(), LabError> {
        for node in nodes {
            let Some(count) = self.held.get_mut(&(*node, harm)) else {
                continue;
            };
            *count = count.saturating_sub(1);
            if *count > 0 || self.lost.contains(node) {
                continue;
            }
            self.held.remove(&(*node, harm));
            match harm {
                Harm::Pause => processes.node_mut(*node).resume(),
                Harm::Stop if self.holds(*node, Harm::is_down) => {}
                Harm::Stop => {
                    self.mending.insert(*node, Mending::Ends);
                }
                harm if harm.is_down() => self.up(processes, *node)?,
                _ => set(processes, *node, harm, false),
            }
            if harm.kills() {
                self.mending
                    .insert(*node, Mending::MayEnd(Instant::now() + DYING));
            }
        }
        Ok(())
    }

    /// Starts a node unless something keeps it down.
    fn up(&mut self, processes: &mut Processes, node: usize) -> Result<(), LabError> {
        if self.lost.contains(&node) || self.holds(node, Harm::is_down) {
            return Ok(());
        }
        processes.start_node(node)?;
        self.mending.remove(&node);
        if self.holds(node, |harm| harm == Harm::Pause) {
            processes.node_mut(node).pause();
        }
        Ok(())
    }

    /// Starts nodes whatever took them down.
    pub(super) fn power_on(
        &mut self,
        processes: &mut Processes,
        nodes: &[usize],
    ) -> Result<(), LabError> {
        self.held
            .retain(|(node, harm), _| !(nodes.contains(node) && harm.is_down()));
        let lost = self.lost.clone();
        for node in nodes.iter().filter(|node| !lost.contains(node)) {
            self.up(processes, *node)?;
            // One that was asked to end may not have ended yet.
            self.mending
                .insert(*node, Mending::MayEnd(Instant::now() + DYING));
        }
        Ok(())
    }

    /// Nodes are gone for good, with their files.
    pub(super) fn lose(
        &mut self,
        processes: &mut Processes,
        nodes: &[usize],
    ) -> Result<(), LabError> {
        for node in nodes {
            processes.node_mut(*node).kill();
            self.lost.insert(*node);
            remove(&processes.nodes()[*node].data_dir)?;
        }
        Ok(())
    }

    /// Starts those again that have ended as they were to, and finds those that have
    /// ended without being asked to: their names and last words.
    pub(super) fn poll(&mut self, processes: &mut Processes) -> Result<Vec<String>, LabError> {
        let mut crashed = Vec::new();
        for node in 0..processes.nodes().len() {
            let down = self.lost.contains(&node) || self.holds(node, Harm::is_down);
            if down || self.crashed.contains(&node) {
                continue;
            }
            let runs = processes.node_mut(node).is_running();
            match (self.mending.get(&node).copied(), runs) {
                (Some(mending), false) => {
                    let status = processes.node_mut(node).exit_status();
                    let badly = status.filter(|status| !status.success());
                    if let (Mending::Ends, Some(status)) = (mending, badly) {
                        // It was to end in order.
                        let node = &processes.nodes()[node];
                        crashed.push(format!("{} ({status}): {}", node.name, node.log_tail(1)));
                    }
                    self.mending.remove(&node);
                    self.up(processes, node)?;
                }
                (Some(Mending::MayEnd(until)), true) if Instant::now() > until => {
                    self.mending.remove(&node);
                }
                (None, false) if !self.holds(node, Harm::kills) => {
                    self.crashed.insert(node);
                    let node = processes.node_mut(node);
                    let status = node.exit_status().map(|status| status.to_string());
                    let status = status.unwrap_or_else(|| "ended".to_owned());
                    crashed.push(format!("{} ({status}): {}", node.name, node.log_tail(1)));
                }
                _ => {}
            }
        }
        Ok(crashed)
    }

    /// Whether all are up that are to be up.
    pub(super) fn is_mended(&self) -> bool {
        self.mending
            .values()
            .all(|mending| matches!(mending, Mending::MayEnd(_)))
    }
}

fn remove(directory: &std::path::Path) -> Result<(), LabError> {
    match std::fs::remove_dir_all(directory) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(LabError::Io {
            what: format!("removing {}", directory.display()),
            source: error,
        }),
        _ => Ok(()),
    }
}

/// Lets a node's disk or clock go wrong, or mends it.
fn set(processes: &Processes, node: usize, harm: Harm, wrong: bool) {
    let faults = processes.nodes()[node].faults();
    match harm {
        Harm::FillDisk => faults.fail_writes(wrong.then_some(DiskError::Full)),
        Harm::NearlyFull(bytes) => faults.pretend_free(wrong.then_some(bytes)),
        Harm::StallSyncs(by) => faults.slow_syncs(if wrong { by } else { Duration::ZERO }),
        Harm::FailSyncs => faults.fail_syncs(wrong.then_some(DiskError::Broken)),
        Harm::SkewClock(nanos) => faults.shift_clock(if wrong { nanos } else { 0 }),
        Harm::Kill | Harm::PowerOff | Harm::Stop | Harm::Pause | Harm::WipeEngine => {}
    }
}
