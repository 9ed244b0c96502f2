//! L1: at most one replica of a group believes it holds the lease, at any true
//! instant; and who does is right to: a majority has accepted under its ballot
//! and supports its node.
//!
//! A lease is only gained in a step of its holder, so holders are compared when
//! one of them steps, and only while more than one replica leads.
//!
//! The leader of an absorbed group may lead on while its followers' replicas are retired one by
//! one (decision 19). They have accepted under its ballot, their nodes support its node, and an
//! emptied replica never votes in the group again, so such a follower goes on keeping
//! everybody else out: it counts by what it had accepted when it was emptied.

use super::book::is_emptied;
use super::{Book, Context, Everyone, Ledger, Peer, Rule, Verdict};
use std::collections::BTreeMap;
use synod_paxos::{Ballot, Epoch, GroupId, Mono, NodeId, Replica};
use synod_shard::Worker;

#[derive(Default)]
pub(super) struct L1 {
    /// Whether each leader held the lease when last looked at.
    held: BTreeMap<(usize, GroupId), Ballot>,
    /// What replicas had accepted under when they were retired.
    retired: BTreeMap<(NodeId, GroupId), Ballot>,
}

fn lease(peer: &Peer<'_>, worker: &Worker, group: GroupId) -> Option<Mono> {
    let cx = synod_paxos::Cx {
        now: peer.now.mono,
        leases: worker.leases(),
    };
    worker.shard(group)?.replica().lease(&cx)
}

/// Whether this replica was emptied because nobody needs its group any more. What it knows to be
/// in force has no members and comes after all that the group ever was in, so it promises and accepts
/// nothing there. One that a change of members left out is another matter: others vote
/// in its place (G2).
fn is_retired(replica: &Replica) -> bool {
    let configuration = replica.configuration();
    let nobody = configuration.members().next().is_none();
    nobody && configuration.epoch > Epoch(0) && is_emptied(replica)
}

impl L1 {
    /// Whether a majority stands behind this holder. An elector that is down, or
    /// abstains since it came back, lets nobody else in either.
    fn is_backed(
        &self,
        everyone: &Everyone<'_>,
        book: &Book,
        group: GroupId,
        holder: &Peer<'_>,
    ) -> bool {
        let ballot = holder
            .worker
            .and_then(|w| w.shard(group)?.replica().term_ballot());
        let epoch = ballot.map(|ballot| ballot.epoch).unwrap_or_default();
        let Some(known) = book.group(group).and_then(|g| g.electorate(epoch)) else {
            return true;
        };
        let behind = known.electors.iter().filter(|elector| {
            let Some(peer) = everyone.peer(**elector) else {
                return false;
            };
            let Some(worker) = peer.worker else {
                return true;
            };
            let leases = worker.leases();
            if leases.abstains(peer.now.mono) {
                return true;
            }
            let accepted = self.accepted(peer.id, worker, group);
            accepted == ballot && leases.supports(holder.id, peer.now.mono).is_some()
        });
        behind.count() >= known.majority
    }

    /// The ballot that an elector's replica accepted under last.
    fn accepted(&self, elector: NodeId, worker: &Worker, group: GroupId) -> Option<Ballot> {
        let replica = worker.shard(group)?.replica();
        if is_retired(replica) {
            return self.retired.get(&(elector, group)).copied();
        }
        Some(replica.accepted())
    }

    /// Replicas that this step let go.
    fn note_retired(&mut self, cx: &Context<'_>) {
        for change in &cx.news.changes {
            if !change.after.emptied || change.before.emptied {
                continue;
            }
            let shard = cx.look.worker.shard(change.group);
            if shard.is_some_and(|shard| is_retired(shard.replica())) {
                let replica = (cx.look.id, change.group);
                self.retired.insert(replica, change.before.accepted);
            }
        }
    }

    fn check(&self, everyone: &Everyone<'_>, book: &Book, group: GroupId) -> Verdict {
        let mut holders = Vec::new();
        for (node, _) in book.leaders(group) {
            if let Some(peer) = everyone.nodes.get(node)
                && let Some(worker) = peer.worker
                && lease(peer, worker, group).is_some()
            {
                holders.push(peer);
            }
        }
        if let [first, second, ..] = &holders[..] {
            return Err(format!(
                "{} and {} both hold the lease of {group}",
                first.id, second.id
            ));
        }
        if let Some(holder) = holders.first()
            && !self.is_backed(everyone, book, group, holder)
        {
            return Err(format!(
                "{} believes it holds the lease of {group}; no majority that accepted under its \
                 ballot supports it",
                holder.id
            ));
        }
        Ok(())
    }
}

impl Rule for L1 {
    fn number(&self) -> &'static str {
        "L1"
    }

    fn step(&mut self, cx: &Context<'_>) -> Verdict {
        self.note_retired(cx);
        let node = cx.look.node;
        for shard in cx.look.worker.shards() {
            let group = shard.descriptor().id;
            let Some(ballot) = shard.replica().term_ballot() else {
                continue;
            };
            // One leader needs a look only until it has the lease.
            let known = self.held.get(&(node, group)) == Some(&ballot);
            if known && cx.book.leaders(group).count() < 2 {
                continue;
            }
            let peer = &cx.everyone.nodes[node];
            if lease(peer, cx.look.worker, group).is_some() {
                self.held.insert((node, group), ballot);
                self.check(cx.everyone, cx.book, group)?;
            }
        }
        Ok(())
    }

    fn full(&mut self, everyone: &Everyone<'_>, book: &Book, _ledger: &Ledger) -> Verdict {
        let running = everyone.running().next();
        let Some((_, _, worker)) = running else {
            return Ok(());
        };
        for shard in &worker.map().shards {
            self.check(everyone, book, shard.id)?;
        }
        Ok(())
    }
}
