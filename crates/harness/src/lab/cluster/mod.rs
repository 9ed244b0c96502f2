//! A cluster of real processes in several data centres, with everything that can be
//! done to it.
//!
//! ```no_run
//! use std::time::Duration;
//! use synod_client::Client;
//! use synod_harness::lab::{Action, Cluster, Links, Select, Worse};
//!
//! # async fn doc() -> Result<(), Box<dyn std::error::Error>> {
//! let mut cluster = Cluster::builder("target/release/synod")
//!     .dc("eu-1", 1)
//!     .dc("eu-2", 1)
//!     .dc("us-1", 1)
//!     .rtt("eu-1", "eu-2", Duration::from_millis(20))
//!     .rtt("eu-1", "us-1", Duration::from_millis(80))
//!     .rtt("eu-2", "us-1", Duration::from_millis(80))
//!     .shards(4)
//!     .start()
//!     .await?;
//! let client = Client::connect(cluster.client_config("eu-1")?).await?;
//! client.put("greeting", "hello").await?;
//!
//! // The site is gone with its clients; the others go on.
//! let cut = Action::Links(Links::Around(Select::dc("eu-1")), Worse::cut());
//! let cut = cluster.begin(&cut).await?;
//! let other = Client::connect(cluster.client_config("us-1")?).await?;
//! assert_eq!(other.get("greeting").await?.as_deref(), Some(&b"hello"[..]));
//! cluster.end(cut.id).await?;
//! cluster.settled(Duration::from_secs(30)).await?;
//! # Ok(())
//! # }
//! ```
//!
//! Dropping it ends its processes, by their ids and nothing else, and removes its
//! directory.

mod builder;
mod network;
mod nodes;
mod program;
mod settle;

pub use builder::Builder;
pub(super) use program::CommandState;
pub use settle::Condition;

use super::LabError;
use super::action::{Action, Deed, Harm};
use super::select::Select;
use super::topology::{NodePlan, Topology, clients_address};
use crate::cluster::Cluster as Processes;
use crate::relay::End;
use network::Network;
use nodes::Nodes;
use program::RunningCommand;
use rand::SeedableRng;
use rand::rngs::StdRng;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use synod_rpc::Pool;

/// How long a node may take to say what it leads.
const LEADERS: Duration = Duration::from_millis(500);
/// Between two looks at what is waited for.
const POLL: Duration = Duration::from_millis(50);

/// A cluster that runs.
pub struct Cluster {
    // Before the processes: their directory goes last.
    commands: Vec<RunningCommand>,
    processes: Processes,
    program: PathBuf,
    topology: Topology,
    plans: Vec<NodePlan>,
    shards: usize,
    shim: bool,
    /// Asks and administers; on perfect links, outside of all sites.
    pool: Pool,
    random: StdRng,
    network: Network,
    nodes: Nodes,
    /// What holds now.
    holding: BTreeMap<u64, Holding>,
    next: u64,
    crashed: Vec<String>,
}

/// What is to be undone when a fault ends.
enum Holding {
    Links,
    Nodes(Vec<usize>, Harm),
}

/// A fault that has begun.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Begun {
    /// Its number, for [`Cluster::end`].
    pub id: u64,
    /// Whether it holds until it is ended; else it was of one moment.
    pub holds: bool,
    /// What was done, in words.
    pub what: String,
    /// Names of the nodes and data centres it is about.
    pub on: Vec<String>,
    /// Faults that it ended.
    pub ended: Vec<u64>,
    /// The command that was begun, by its number from 0.
    pub command: Option<usize>,
}

impl Cluster {
    /// Declares one, run by this `synod` program.
    pub fn builder(program: impl Into<PathBuf>) -> Builder {
        Builder::new(program.into())
    }

    fn of(processes: Processes, builder: Builder) -> Result<Cluster, LabError> {
        let topology = builder.topology;
        let plans = topology.nodes();
        if let Some(relay) = processes.relay() {
            for site in 0..topology.dcs.len() {
                relay.site(clients_address(site));
            }
            Network::declare(relay, &topology, &plans);
        }
        Ok(Cluster {
            pool: processes.pool()?,
            program: builder.options.program,
            shards: builder.options.splits.len() + 1,
            shim: builder.options.faults,
            random: StdRng::seed_from_u64(builder.seed),
            processes,
            topology,
            plans,
            network: Network::default(),
            nodes: Nodes::default(),
            holding: BTreeMap::new(),
            next: 1,
            commands: Vec::new(),
            crashed: Vec::new(),
        })
    }

    /// Addresses of all nodes.
    #[must_use]
    pub fn endpoints(&self) -> Vec<SocketAddr> {
        self.processes.endpoints()
    }

    /// The directory with the certificates.
    #[must_use]
    pub fn certs(&self) -> PathBuf {
        self.processes.certs()
    }

    /// The directory with everything.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.processes.dir()
    }

    /// What was declared.
    #[must_use]
    pub fn topology(&self) -> &Topology {
        &self.topology
    }

    /// The nodes, in the order of their numbers.
    #[must_use]
    pub fn nodes(&self) -> &[NodePlan] {
        &self.plans
    }

    /// How clients in a data centre reach the cluster: over that site's links.
    ///
    /// # Errors
    /// When there is no such data centre.
    pub fn client_config(&self, dc: &str) -> Result<synod_client::Config, LabError> {
        let site = self.topology.dc(dc);
        let site =
            site.ok_or_else(|| LabError::Declared(format!("there is no data centre `{dc}`")))?;
        let mut config = self.processes.client_config();
        config.pool.local = Some(clients_address(site));
        config.locality = self.topology.clients_locality(site);
        Ok(config)
    }

    /// How someone outside of all data centres reaches it, whatever is cut.
    #[must_use]
    pub fn outside_config(&self) -> synod_client::Config {
        self.processes.client_config()
    }

    /// The end of a node's log.
    #[must_use]
    pub fn log_tail(&self, node: &str, lines: usize) -> Option<String> {
        let index = self.processes.index_of(node)?;
        Some(self.processes.nodes()[index].log_tail(lines))
    }

    /// The node that leads each shard now, as far as nodes answer; 1 is the meta shard.
    pub async fn leaders(&self) -> BTreeMap<u64, usize> {
        let statuses = settle::statuses(&self.pool, &self.up(), LEADERS).await;
        let mut leaders = BTreeMap::new();
        for (node, status) in statuses {
            let shards = status.map(|status| status.shards).unwrap_or_default();
            leaders.extend(
                shards
                    .iter()
                    .filter(|s| s.in_office)
                    .map(|s| (s.id.0, node)),
            );
        }
        leaders
    }

    /// The same, with a moment's patience for shards that are just being handed over.
    async fn all_leaders(&self) -> BTreeMap<u64, usize> {
        let begun = Instant::now();
        let mut leaders = self.leaders().await;
        while leaders.len() < self.shards + 1 && begun.elapsed() < LEADERS {
            tokio::time::sleep(POLL).await;
            leaders.extend(self.leaders().await);
        }
        leaders
    }

    /// The nodes that are not lost, and where they are reached.
    fn up(&self) -> Vec<(usize, SocketAddr)> {
        let endpoints = self.endpoints().into_iter().enumerate();
        endpoints
            .filter(|(node, _)| !self.nodes.lost.contains(node))
            .collect()
    }

    /// Does something to the cluster. Chance is drawn from the cluster's seed.
    ///
    /// # Errors
    /// When there is no such part of the cluster, or the system refuses.
    pub async fn begin(&mut self, action: &Action) -> Result<Begun, LabError> {
        let seed = rand::RngExt::random(&mut self.random);
        self.begin_named(action, None, &mut StdRng::seed_from_u64(seed))
            .await
    }

    /// Whether it can be done to this cluster.
    fn check(&self, action: &Action) -> Result<(), LabError> {
        for part in action.parts() {
            part.check(&self.topology, self.shards)
                .map_err(LabError::Declared)?;
        }
        if action.needs_shim() && !self.shim {
            let text = "faults of disks and clocks need a shim under the nodes: declare the \
                        cluster with `faults_of_disks_and_clocks(true)`";
            return Err(LabError::Declared(text.to_owned()));
        }
        Ok(())
    }

    /// The same with a name for links to be healed by, and with chance from elsewhere.
    pub(super) async fn begin_named(
        &mut self,
        action: &Action,
        name: Option<String>,
        random: &mut StdRng,
    ) -> Result<Begun, LabError> {
        self.check(action)?;
        let leaders = if action.parts().iter().any(|part| part.needs_leaders()) {
            self.all_leaders().await
        } else {
            BTreeMap::new()
        };
        let id = self.next;
        self.next += 1;
        let mut begun = Begun {
            id,
            holds: false,
            what: action.to_string(),
            on: Vec::new(),
            ended: Vec::new(),
            command: None,
        };
        let (topology, plans) = (&self.topology, &self.plans);
        let mut resolved = Vec::new();
        let mut ends = |select: &Select| {
            let ends = select.resolve(topology, plans, &leaders, random);
            resolved.extend(ends.iter().copied());
            ends
        };
        match action {
            Action::Links(links, worse) => {
                let pairs = network::pairs(links, &topology.ends(), &mut ends);
                begun.holds = true;
                self.holding.insert(id, Holding::Links);
                let changed = self.network.begin(id, name, pairs, *worse);
                self.apply(&changed);
            }
            Action::Harm(on, harm) => {
                let nodes = nodes_of(&ends(on));
                // A restart at once holds for no time.
                begun.holds = true;
                self.nodes.begin(&mut self.processes, &nodes, *harm)?;
                self.holding.insert(id, Holding::Nodes(nodes, *harm));
                resolved.retain(|end| matches!(end, End::Node(_)));
            }
            Action::Once(on, deed) => {
                let nodes = nodes_of(&ends(on));
                resolved.retain(|end| matches!(end, End::Node(_)));
                self.once(&nodes, *deed)?;
                if *deed == Deed::PowerOn {
                    begun.ended = self.ended_by_power(&nodes);
                }
            }
            Action::Command(arguments) => {
                begun.command = Some(self.commands.len());
                self.command(arguments)?;
            }
            Action::Heal(named) => {
                begun.ended = self.network.named(named.as_deref());
                for id in begun.ended.clone() {
                    self.end(id).await?;
                }
            }
        }
        begun.on = self.names(&resolved);
        Ok(begun)
    }

    /// Something of one moment happens to nodes.
    fn once(&mut self, nodes: &[usize], deed: Deed) -> Result<(), LabError> {
        match deed {
            Deed::PowerOn => self.nodes.power_on(&mut self.processes, nodes),
            Deed::WipeDisk => self.nodes.lose(&mut self.processes, nodes),
            Deed::Drain => {
                for node in nodes {
                    let name = self.plans[*node].name.clone();
                    self.command(&["node".to_owned(), "drain".to_owned(), name])?;
                }
                Ok(())
            }
        }
    }

    /// Runs `synod` with these arguments, and with how it reaches the cluster.
    fn command(&mut self, arguments: &[String]) -> Result<(), LabError> {
        let number = self.commands.len();
        let program = &self.program;
        let started = RunningCommand::start(&self.processes, program, arguments, number)?;
        self.commands.push(started);
        Ok(())
    }

    /// Faults that kept only these nodes down, and hold no longer now that they are up.
    fn ended_by_power(&mut self, nodes: &[usize]) -> Vec<u64> {
        let over = self.holding.iter().filter(|(_, holding)| match holding {
            Holding::Nodes(held, harm) => {
                harm.is_down() && held.iter().all(|node| nodes.contains(node))
            }
            Holding::Links => false,
        });
        let over: Vec<u64> = over.map(|(id, _)| *id).collect();
        self.holding.retain(|id, _| !over.contains(id));
        over
    }

    /// Ends a fault that holds; harmless if it has ended.
    ///
    /// # Errors
    /// When a node cannot be started again.
    pub async fn end(&mut self, id: u64) -> Result<(), LabError> {
        match self.holding.remove(&id) {
            Some(Holding::Links) => {
                let changed = self.network.end(id);
                self.apply(&changed);
                Ok(())
            }
            Some(Holding::Nodes(nodes, harm)) => self.nodes.end(&mut self.processes, &nodes, harm),
            None => Ok(()),
        }
    }

    /// Ends all faults that hold: links are as declared, disks and clocks well, nodes
    /// up that are not lost.
    ///
    /// # Errors
    /// When a node cannot be started again.
    pub async fn heal(&mut self) -> Result<(), LabError> {
        let all: Vec<u64> = self.holding.keys().copied().collect();
        for id in all {
            self.end(id).await?;
        }
        self.poll()
    }

    /// Starts nodes again that have ended in order, and looks whether any ended
    /// without a fault. To be called now and then.
    ///
    /// # Errors
    /// When a node cannot be started again.
    pub fn poll(&mut self) -> Result<(), LabError> {
        let crashed = self.nodes.poll(&mut self.processes)?;
        self.crashed.extend(crashed);
        for command in &mut self.commands {
            command.poll();
        }
        Ok(())
    }

    /// Nodes that ended without a fault, with their last words.
    #[must_use]
    pub fn crashed(&self) -> &[String] {
        &self.crashed
    }

    /// Commands that were given, and how far they are.
    pub(super) fn commands(&mut self) -> Vec<(String, CommandState)> {
        let commands = self.commands.iter_mut();
        commands
            .map(|command| (command.what.clone(), command.poll()))
            .collect()
    }

    /// What is missing now.
    pub async fn condition(&self) -> Condition {
        let names: Vec<String> = self.plans.iter().map(|plan| plan.name.clone()).collect();
        settle::look(&self.pool, &self.up(), &names, self.shards).await
    }

    /// Waits until every shard has a leader, every follower has all, and every node
    /// that is not lost is well; tells how long that took.
    ///
    /// # Errors
    /// When it takes longer than `limit`; says what is missing.
    pub async fn settled(&mut self, limit: Duration) -> Result<Duration, LabError> {
        let begun = Instant::now();
        loop {
            self.poll()?;
            let condition = self.condition().await;
            if condition.is_good() && self.nodes.is_mended() {
                return Ok(begun.elapsed());
            }
            if begun.elapsed() > limit {
                return Err(LabError::NotReady(condition.words()));
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Ends all processes and lets the files live on.
    pub fn keep_files(self) -> PathBuf {
        drop(self.commands);
        self.processes.keep_files()
    }

    /// Sets these links to what they are now.
    fn apply(&self, pairs: &BTreeSet<network::Pair>) {
        if let Some(relay) = self.processes.relay() {
            for &(from, to) in pairs {
                let declared = self.topology.link(&self.plans, from, to);
                relay.set(from, to, self.network.link(declared, (from, to)));
            }
        }
    }

    /// Names of ends; a data centre that is there as a whole goes by its own.
    fn names(&self, ends: &[End]) -> Vec<String> {
        let ends: BTreeSet<End> = ends.iter().copied().collect();
        let whole = |site: usize| {
            let mut nodes = self
                .plans
                .iter()
                .enumerate()
                .filter(|(_, plan)| plan.site == site);
            ends.contains(&End::Site(site))
                && nodes.all(|(node, _)| ends.contains(&End::Node(node)))
        };
        let told = ends.iter().filter(|end| match end {
            End::Node(node) => !whole(self.plans[*node].site),
            _ => true,
        });
        told.map(|end| match end {
            End::Site(site) if !whole(*site) => {
                format!("clients of {}", self.topology.name(&self.plans, *end))
            }
            end => self.topology.name(&self.plans, *end),
        })
        .collect()
    }
}

fn nodes_of(ends: &[End]) -> Vec<usize> {
    let nodes = ends.iter().filter_map(|end| match end {
        End::Node(node) => Some(*node),
        _ => None,
    });
    nodes.collect()
}

impl std::fmt::Debug for Cluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cluster")
            .field("dir", &self.dir())
            .finish_non_exhaustive()
    }
}
