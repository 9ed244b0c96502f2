//! Becoming part of a cluster: of a new one by its first map, or of one that runs.

use super::admin::refused;
use super::driver::Driver;
use super::recovery;
use crate::machine;
use synod_paxos::{GroupId, NodeId};
use synod_rpc::placement::JoinRequest;
use synod_rpc::wire::NodeResponse;
use synod_shard::{Bootstrap, Input, ShardMap};

/// Why a log with a past must not begin anew.
const LOST_ITS_CLUSTER: &str = "this node's log holds shards of a cluster that it knows no more of: wipe its directory (that \
     makes it a new node) and let that one join";

impl Driver {
    /// The first map. The same one again is harmless.
    pub(super) fn init(&mut self, bootstrap: Bootstrap) -> NodeResponse {
        if let Some(known) = &self.bootstrap {
            return if *known == bootstrap {
                NodeResponse::Done
            } else {
                refused("this node belongs to an initialized cluster already; nothing was changed")
            };
        }
        let me = self.directory.identity().node;
        if let Err(reason) = self.check(&bootstrap) {
            return refused(reason);
        }
        if self.has_promised {
            return refused(LOST_ITS_CLUSTER);
        }
        if let Some(shard) = bootstrap.map.shards.iter().find(|s| s.generation > 1) {
            return refused(format!(
                "shard {} has changed since its cluster began: use `synod node join`",
                shard.id.0
            ));
        }
        let records = machine::first_records(&bootstrap, me);
        self.machine.submit(&mut self.lanes, records, None);
        if let Err(error) = self.lanes.log.wait_synced() {
            return refused(format!("the log failed: {error}"));
        }
        let seeded = machine::seed_meta(&*self.lanes.engine, &bootstrap);
        let seeded = seeded.map_err(|error| error.to_string());
        // What an earlier attempt to join elsewhere may have left.
        let emptied = self.directory.store_nodes(&[]).map_err(|e| e.to_string());
        match seeded.and(emptied) {
            Ok(()) => self.begin(bootstrap),
            Err(error) => refused(format!("the first state cannot be kept: {error}")),
        }
    }

    /// A place in a cluster that runs, with nothing in it. A node that held something
    /// and forgot it must not come back this way under its old id: it might have promised
    /// something (§8).
    pub(super) fn join(&mut self, request: JoinRequest) -> NodeResponse {
        let JoinRequest { bootstrap, nodes } = request;
        if self.bootstrap.is_some() {
            let same = bootstrap.cluster == self.directory.cluster();
            return if same {
                NodeResponse::Done
            } else {
                refused("this node belongs to another cluster; nothing was changed")
            };
        }
        let me = self.directory.identity().node;
        if let Err(reason) = self.check(&bootstrap) {
            return refused(reason);
        }
        // A learner has promised nothing.
        let holds = |map: &ShardMap| {
            let mut shards = map.shards.iter();
            shards.find_map(|s| s.configuration.is_elector(me).then_some(s.id))
        };
        if self.has_past {
            return refused(LOST_ITS_CLUSTER);
        }
        if let Some(shard) = holds(&bootstrap.map) {
            return refused(format!(
                "this node was a member of shard {} and has lost what it held: wipe its directory \
                 (that makes it a new node) and let that one join",
                shard.0
            ));
        }
        if let Err(error) = self.directory.store_nodes(&nodes) {
            return refused(format!("what nodes there are cannot be stored: {error}"));
        }
        self.begin(bootstrap)
    }

    /// From now on it is part of the cluster.
    fn begin(&mut self, bootstrap: Bootstrap) -> NodeResponse {
        let stored = self.directory.store_bootstrap(&bootstrap);
        let worker = stored.map_err(|e| e.to_string()).and_then(|()| {
            recovery::worker(
                &self.config,
                &self.directory,
                &bootstrap,
                machine::Replayed::default(),
                &*self.lanes.engine,
            )
            .map_err(|e| e.to_string())
        });
        match worker {
            Ok(worker) => {
                tracing::info!(
                    shards = bootstrap.map.shards.len(),
                    nodes = bootstrap.map.nodes.len(),
                    "this node is part of a cluster now"
                );
                self.bootstrap = Some(bootstrap);
                self.machine.begin(worker);
                let full = self.space.trouble().is_some();
                self.input(Input::DiskSpace { full });
                self.know_peers();
                NodeResponse::Done
            }
            Err(error) => refused(format!("the first state cannot be kept: {error}")),
        }
    }

    /// What must hold of a map that a node begins with.
    fn check(&self, bootstrap: &Bootstrap) -> Result<(), String> {
        let me = self.directory.identity().node;
        if bootstrap.cluster != self.directory.cluster() {
            return Err("the map is for another cluster than this node's certificates".into());
        }
        if !self.config.supports.includes(bootstrap.version) {
            return Err(format!(
                "the map asks for cluster version {}, this program knows {}: start the node with \
                 a program that knows that version",
                bootstrap.version.0, self.config.supports
            ));
        }
        let map = &bootstrap.map;
        let mine = map.node(me).ok_or_else(|| {
            format!("the map does not name this node (id {}): a wiped directory makes a new node, run `synod init` again", me.0)
        })?;
        if mine.name != self.directory.identity().name {
            return Err(format!("the map calls this node `{}`", mine.name));
        }
        check_map(map)
    }
}

/// Whether a map can be one: its nodes ascend, its shards cover all keys, and each has voters.
fn check_map(map: &ShardMap) -> Result<(), String> {
    if map.nodes.windows(2).any(|w| w[0].id >= w[1].id) {
        return Err("the map's nodes are not ascending, or two have the same id".into());
    }
    let first = map.shards.first().is_some_and(|s| s.span.start.is_empty());
    let last = map.shards.last().is_some_and(|s| s.span.end.is_empty());
    let joined = map.shards.windows(2).all(|w| {
        !w[0].span.end.is_empty() && w[0].span.end == w[1].span.start && !w[0].span.is_empty()
    });
    if !(first && last && joined) {
        return Err("the map's shards leave holes or overlap".into());
    }
    for shard in &map.shards {
        if shard.id == GroupId(0) || shard.configuration.voters.is_empty() {
            return Err(format!("shard {} has no voters", shard.id.0));
        }
        let unknown = |n: &NodeId| map.node(*n).is_none();
        if shard.generation == 1 && shard.configuration.members().any(|n| unknown(&n)) {
            return Err(format!("shard {} names an unknown node", shard.id.0));
        }
    }
    Ok(())
}
