//! What must hold after every step, and what rest means.

use super::{DIGEST_EVERY, Sim};

impl Sim {
    /// What must hold of a node after each of its steps.
    pub(super) fn check_node(&mut self, index: usize) {
        let Some(worker) = &self.nodes[index].worker else {
            return;
        };
        let id = self.nodes[index].id;
        let now = self.nodes[index].now(self.t);
        let cx = synod_paxos::replica::Cx {
            now: now.mono,
            leases: worker.leases(),
        };
        let mut wrong = Vec::new();
        let mut leases = Vec::new();
        for shard in worker.shards() {
            let group = shard.descriptor().id;
            // Encoding a whole state is dear: only where one has just changed, and
            // only at slots that all replicas sample.
            let sampled = shard.applied().0.is_multiple_of(DIGEST_EVERY);
            if sampled
                && self
                    .digested
                    .insert((id, self.nodes[index].life, group), shard.applied())
                    != Some(shard.applied())
            {
                let digest = shard.group().digest();
                let seen = *self
                    .digests
                    .entry((group, shard.applied()))
                    .or_insert((id, digest));
                if seen.1 != digest {
                    wrong.push(format!(
                        "P7: state of {group} after slot {} differs between {} and {id}",
                        shard.applied(),
                        seen.0
                    ));
                }
            }
            if shard.replica().lease(&cx).is_some() {
                leases.push(group);
            }
        }
        for group in leases {
            for (other, node) in self.nodes.iter().enumerate() {
                let Some(worker) = node.worker.as_ref().filter(|_| other != index) else {
                    continue;
                };
                let cx = synod_paxos::replica::Cx {
                    now: node.now(self.t).mono,
                    leases: worker.leases(),
                };
                let holds = worker
                    .shard(group)
                    .is_some_and(|s| s.replica().lease(&cx).is_some());
                if holds {
                    wrong.push(format!(
                        "L1: {id} and {} both hold the lease of {group}",
                        node.id
                    ));
                }
            }
        }
        for text in wrong {
            self.violation(text);
        }
    }

    pub(super) fn at_rest(&self) -> bool {
        self.unrest().is_empty()
    }

    /// What has not come to rest, in words.
    pub(super) fn unrest(&self) -> String {
        if let Some(client) = self.clients.iter().position(|c| !c.is_idle()) {
            return format!("client {client} still runs a transaction");
        }
        for shard in &self.map.shards {
            let replicas: Vec<_> = self
                .nodes
                .iter()
                .filter_map(|n| n.worker.as_ref()?.shard(shard.id))
                .collect();
            let Some(leader) = replicas.iter().find(|s| s.in_office()) else {
                return format!("{} has no leader in office", shard.id);
            };
            let group = leader.group();
            let intents = group.open_intents().count();
            if intents + group.locks() + group.sessions() > 0 {
                return format!(
                    "{} has {intents} open intents, {} locks, {} sessions",
                    shard.id,
                    group.locks(),
                    group.sessions()
                );
            }
            // The news that the very last entries are decided is sent once while a
            // shard is idle, so only the log itself must be level.
            let last = leader.replica().last();
            if let Some(behind) = replicas.iter().find(|s| s.replica().last() != last) {
                let at = behind.replica().last();
                return format!("{} has a replica at slot {at} of {last}", shard.id);
            }
        }
        String::new()
    }
}
