//! What rest means: every client has ended, nothing is held, replicas are level.

use super::{Event, REST_EVERY, Sim};
use crate::rules::quiet::{left, uneven};
use crate::sim::node::Absence;
use synod_paxos::GroupId;
use synod_shard::Shard;

impl Sim {
    pub(super) fn look_for_rest(&mut self) {
        let through = |(index, client): (usize, &super::SimClient)| {
            Some(index) == self.reader || client.is_idle()
        };
        if let Some(reader) = self.reader
            && self.clients.iter().enumerate().all(through)
        {
            self.clients[reader].stop(self.t, true);
            self.arm(reader);
            self.reader = None;
        }
        if self.unrest().is_empty() {
            self.check_rest();
            self.ended = true;
        } else {
            self.at(self.t + REST_EVERY, Event::Rest);
        }
    }

    /// Who plays which part in a shard, in words.
    fn parts(&self, group: GroupId) -> String {
        let parts = self.nodes.iter().filter_map(|n| {
            let Some(shard) = n.worker().and_then(|w| w.shard(group)) else {
                let first = self.bootstrap.map.shard(group);
                let known = first.is_some_and(|s| s.configuration.is_member(n.id));
                return known.then(|| format!("{} {:?}", n.id, n.absence));
            };
            let replica = shard.replica();
            Some(format!(
                "{} {:?}{} in {} accepted {} promised {} decided {} applied {} last {}{}",
                n.id,
                replica.role(),
                if shard.in_office() { " in office" } else { "" },
                replica.configuration(),
                replica.accepted(),
                replica.ballot(),
                replica.decided(),
                shard.applied(),
                replica.last(),
                if replica.holds_data() {
                    ""
                } else {
                    " without data"
                },
            ))
        });
        parts.collect::<Vec<_>>().join("; ")
    }

    /// What has not come to rest, in words; empty if everything has.
    pub(super) fn unrest(&self) -> String {
        if let Some(client) = self.clients.iter().position(|c| !c.is_idle()) {
            return format!("client {client} still runs a transaction");
        }
        let down = |n: &&super::SimNode| n.process.is_none() && n.absence == Absence::Down;
        if let Some(node) = self.nodes.iter().find(down) {
            return format!("{} is down", node.id);
        }
        let shards = self.groups();
        shards
            .map(|shard| self.unrest_of(shard))
            .find(|why| !why.is_empty())
            .unwrap_or_default()
    }

    /// Everything that is not at rest, with who plays which part.
    pub(super) fn unrest_at_length(&self) -> String {
        let mut words = self.unrest();
        for shard in self.groups() {
            let why = self.unrest_of(shard);
            if !why.is_empty() {
                words += &format!("\n    {why} [{}]", self.parts(shard));
            }
        }
        words
    }

    fn unrest_of(&self, shard: GroupId) -> String {
        let replicas: Vec<&Shard> = self
            .nodes
            .iter()
            .filter_map(|n| n.worker()?.shard(shard))
            .collect();
        let Some(leader) = replicas.iter().find(|s| s.in_office()) else {
            return format!("{} has no leader in office", shard);
        };
        if leader.version() < self.raised {
            return format!("{shard} is still at version {}", leader.version().0);
        }
        let group = leader.group();
        let left = left(group);
        if !left.is_empty() {
            let open = group.state().intents.values().take(2).map(|intent| {
                let anchor = |p: &synod_txn::Participant| synod_shard::wire::show_key(&p.anchor);
                let others: Vec<String> = intent.participants.iter().map(anchor).collect();
                format!(
                    "{} as {} of {}, coordinated by {}",
                    intent.attempt,
                    intent.here,
                    others.join(" "),
                    intent.coordinator
                )
            });
            let open: Vec<String> = open.collect();
            return format!("{shard} has {left} ({})", open.join("; "));
        }
        // The news that the very last entries are decided is sent once while a
        // shard is idle, so only the log itself must be level.
        uneven(leader, &replicas)
    }
}
