//! What a node answers about itself.

use super::clients::{is_admin, node_name};
use super::driver::Driver;
use super::time;
use synod_paxos::replica::Role as PaxosRole;
use synod_paxos::{GroupId, NodeId};
use synod_rpc::wire::{
    ClockStatus, Counters, FollowerLag, Health, Heard, HeardNode, HearsStatus, NodeRequest,
    NodeResponse, NodeStatus, RecordChange, ReplicaRole as Role, ShardStatus,
};
use synod_shard::{Input, Shard, Worker};

/// No, with what is wrong and what to do.
pub(super) fn refused(reason: impl Into<String>) -> NodeResponse {
    NodeResponse::Refused {
        reason: reason.into(),
    }
}

impl Driver {
    /// Answers a request about this node.
    pub(super) fn administer(&mut self, user: &str, request: NodeRequest) -> NodeResponse {
        if !self.may(user, &request) {
            return refused(format!(
                "user `{user}` may not do this: use the certificate of `admin`"
            ));
        }
        match request {
            NodeRequest::Info => {
                let identity = self.directory.identity();
                NodeResponse::Info {
                    id: identity.node,
                    name: identity.name.clone(),
                    address: self.advertised(),
                    locality: self.config.locality.to_string(),
                    cluster: self.directory.cluster(),
                    initialized: self.bootstrap.is_some(),
                    version: env!("CARGO_PKG_VERSION").to_owned(),
                }
            }
            NodeRequest::Map => match self.machine.worker() {
                Some(worker) => NodeResponse::Map(Box::new(worker.map().clone())),
                None => refused(
                    "this node belongs to no cluster yet: run `synod init` for a new one, `synod node \
                     join` for one that runs",
                ),
            },
            NodeRequest::Status => NodeResponse::Status(Box::new(self.status())),
            NodeRequest::Counters => NodeResponse::Counters(Box::new(self.counters())),
            NodeRequest::Init(bootstrap) => self.init(*bootstrap),
            NodeRequest::Join(request) => self.join(*request),
            NodeRequest::ChangeRecords(change) => self.change_records(*change),
            NodeRequest::Placement => NodeResponse::Placement(Box::new(self.placement_status())),
            NodeRequest::TransferLeader { shard, to } => self.transfer(shard, to),
            NodeRequest::ChangeMembers(request) => {
                NodeResponse::Change(self.change_members(*request))
            }
            NodeRequest::SplitShard(request) => self.split_shard(*request),
            NodeRequest::MergeShards(request) => self.merge_shards(request),
            NodeRequest::HashShard(request) => self.hash_shard(*request),
            NodeRequest::Hashed => NodeResponse::Hashed(self.hashed()),
            NodeRequest::Versions => NodeResponse::Versions(Box::new(self.versions())),
            NodeRequest::Hears => NodeResponse::Hears(self.hears()),
            NodeRequest::Merges => NodeResponse::Merges(self.merges_status().map(Box::new)),
            NodeRequest::Loads { above } => {
                let is_splitter = self.is_member(user);
                NodeResponse::Loads(Box::new(self.loads(above, is_splitter)))
            }
            NodeRequest::Copies { rate } => {
                let is_member = self.is_member(user);
                NodeResponse::Copies(Box::new(self.copies(rate, is_member)))
            }
            NodeRequest::Members { of } => NodeResponse::Members(self.members(of)),
            NodeRequest::Remains => NodeResponse::Remains(self.remains()),
            NodeRequest::Recover(request) => NodeResponse::Recover(self.recover_shard(*request)),
        }
    }

    /// Whether a user, or another node's keeper, splitter or merger, may ask this. Anybody may look.
    fn may(&self, user: &str, request: &NodeRequest) -> bool {
        match request {
            NodeRequest::Init(_) | NodeRequest::Join(_) | NodeRequest::Recover(_) => is_admin(user),
            NodeRequest::ChangeRecords(change) => {
                // The splitter needs ids for new shards, and nothing else of the records.
                let is_claim = matches!(**change, RecordChange::ClaimShard(_));
                is_admin(user) || (is_claim && self.is_member(user))
            }
            NodeRequest::TransferLeader { .. }
            | NodeRequest::ChangeMembers(_)
            | NodeRequest::SplitShard(_)
            | NodeRequest::MergeShards(_) => is_admin(user) || self.is_member(user),
            NodeRequest::HashShard(_) => is_admin(user),
            NodeRequest::Info
            | NodeRequest::Map
            | NodeRequest::Status
            | NodeRequest::Counters
            | NodeRequest::Members { .. }
            | NodeRequest::Placement
            | NodeRequest::Versions
            | NodeRequest::Hears
            | NodeRequest::Remains
            | NodeRequest::Hashed
            | NodeRequest::Merges
            | NodeRequest::Loads { .. }
            | NodeRequest::Copies { .. } => true,
        }
    }

    /// Whether this is a node of the cluster that asks, for its keeper.
    fn is_member(&self, user: &str) -> bool {
        let nodes = self.machine.worker().map(|w| &w.map().nodes);
        let mut nodes = nodes.into_iter().flatten();
        node_name(user).is_some_and(|name| nodes.any(|node| node.name == name))
    }

    fn advertised(&self) -> std::net::SocketAddr {
        self.config.advertise.unwrap_or(self.address)
    }

    fn transfer(&mut self, shard: GroupId, to: NodeId) -> NodeResponse {
        let leads = self
            .machine
            .worker()
            .and_then(|w| w.shard(shard))
            .is_some_and(Shard::in_office);
        if !leads {
            return refused(format!("this node does not lead shard {}", shard.0));
        }
        self.input(Input::Transfer { group: shard, to });
        NodeResponse::Done
    }

    fn status(&self) -> NodeStatus {
        let identity = self.directory.identity();
        let now = time::now();
        let doubted = self
            .machine
            .worker()
            .and_then(|w| w.clock().doubt().map(str::to_owned));
        let health = match self.machine.worker() {
            None => Health::Uninitialized,
            Some(_) if !self.machine.is_healthy() => {
                Health::Degraded("the log's disk stalls".to_owned())
            }
            Some(worker) => {
                let clock = doubted.as_ref();
                let clock = clock.map(|why| format!("the clock is not trusted: {why}"));
                let lately = worker.leases().abstains(now.mono).then(|| {
                    "it was started lately and votes for nobody until the leases it may have \
                     granted before are over"
                        .to_owned()
                });
                let retired = self.is_retired().then(|| {
                    "it was taken out of the cluster: `synod node rejoin` takes it in again"
                        .to_owned()
                });
                let trouble = retired
                    .or_else(|| self.overtaken())
                    .or_else(|| self.halted())
                    .or(clock)
                    .or_else(|| self.space.trouble())
                    .or(lately);
                trouble.map_or(Health::Ok, Health::Degraded)
            }
        };
        let shards = self.machine.worker().map_or_else(Vec::new, |worker| {
            let shards = worker.shards().filter(|shard| !shard.is_gone());
            shards.map(|s| shard_status(worker, s)).collect()
        });
        NodeStatus {
            id: identity.node,
            name: identity.name.clone(),
            address: self.advertised(),
            locality: self.config.locality.to_string(),
            incarnation: identity.incarnation,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            health,
            clock: ClockStatus {
                now: now.clock.latest,
                bound_nanos: None,
                limit: self.machine.worker().map_or_else(Default::default, |w| {
                    let me = identity.node;
                    w.leases()
                        .held_from(me, now.mono)
                        .map_or_else(Default::default, |h| h.limit)
                }),
                quarantined: doubted,
            },
            shards,
        }
    }

    fn hears(&self) -> HearsStatus {
        let now = time::now().mono;
        let me = self.directory.identity().node;
        // Who asks for no support, hears of nobody.
        let worker = self.machine.worker().filter(|w| w.leases().healthy());
        let others = worker.into_iter().flat_map(|worker| {
            let nodes = worker.map().nodes.iter().filter(|n| n.id != me);
            nodes.map(move |node| HeardNode {
                node: node.id,
                heard: worker.hearing().last(node.id).map(|last| Heard {
                    silent_millis: now.since(last) / 1_000_000,
                    suspicion: worker.hearing().suspicion(node.id, now).unwrap_or_default(),
                }),
            })
        });
        HearsStatus {
            node: me,
            others: others.collect(),
        }
    }

    fn counters(&self) -> Counters {
        let log = self.lanes.log.counters();
        let ignored = self.machine.worker().map_or_else(Vec::new, Worker::ignored);
        Counters {
            cpu_micros: cpu_micros(),
            syncs: log.syncs,
            log_bytes: log.bytes,
            batches: log.batches,
            requests: self.lanes.counts.requests,
            commits: self.lanes.counts.commits,
            aborts: self.lanes.counts.aborts,
            transport: self.lanes.endpoint.counters(),
            ignored,
        }
    }
}

fn shard_status(worker: &Worker, shard: &Shard) -> ShardStatus {
    let now = time::now().mono;
    let cx = synod_paxos::replica::Cx {
        now,
        leases: worker.leases(),
    };
    let replica = shard.replica();
    let group = shard.group();
    let configuration = replica.configuration();
    let me = replica.me();
    let role = match replica.role() {
        PaxosRole::Leader => Role::Leader,
        PaxosRole::Candidate | PaxosRole::PreCandidate => Role::Candidate,
        PaxosRole::Follower if configuration.learners.contains(&me) => Role::Learner,
        PaxosRole::Follower if configuration.witnesses.contains(&me) => Role::Witness,
        PaxosRole::Follower => Role::Follower,
    };
    ShardStatus {
        id: replica.group(),
        span: shard.descriptor().span.clone(),
        role,
        leader: replica.leader(),
        term: replica
            .term_ballot()
            .map_or_else(String::new, |b| b.to_string()),
        in_office: shard.in_office(),
        lease_millis: replica.lease(&cx).map(|until| until.since(now) / 1_000_000),
        decided: replica.decided(),
        applied: shard.applied(),
        last: replica.last(),
        trimmed: replica.trimmed(),
        log_bytes: replica.log_bytes() as u64,
        followers: replica
            .progress()
            .into_iter()
            .map(|f| FollowerLag {
                node: f.node,
                matched: f.matched,
            })
            .collect(),
        open_intents: group.open_intents().count() as u64,
        in_doubt: group.in_doubt().count() as u64,
        sessions: group.sessions() as u64,
        locks: group.locks() as u64,
        last_timestamp: group.last(),
    }
}

/// Processor time of this process.
fn cpu_micros() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    u64::try_from(time.tv_sec).unwrap_or(0) * 1_000_000
        + u64::try_from(time.tv_nsec).unwrap_or(0) / 1_000
}
