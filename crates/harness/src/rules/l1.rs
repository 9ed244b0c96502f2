//! L1: at most one replica of a group believes it holds the lease, at any true
//! instant; and who does is right to: a majority has accepted under its ballot
//! and supports its node.
//!
//! A lease is only gained in a step of its holder, so holders are compared when
//! one of them steps, and only while more than one replica leads.

use super::{Book, Context, Everyone, Ledger, Peer, Rule, Verdict};
use std::collections::BTreeMap;
use synod_paxos::{Ballot, GroupId, Mono};
use synod_shard::Worker;

#[derive(Default)]
pub(super) struct L1 {
    /// Whether each leader held the lease when last looked at.
    held: BTreeMap<(usize, GroupId), Ballot>,
}

fn lease(peer: &Peer<'_>, worker: &Worker, group: GroupId) -> Option<Mono> {
    let cx = synod_paxos::Cx {
        now: peer.now.mono,
        leases: worker.leases(),
    };
    worker.shard(group)?.replica().lease(&cx)
}

/// Whether a majority stands behind this holder. An elector that is down, or
/// abstains since it came back, lets nobody else in either.
fn is_backed(everyone: &Everyone<'_>, book: &Book, group: GroupId, holder: &Peer<'_>) -> bool {
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
        let accepted = worker.shard(group).map(|s| s.replica().accepted());
        accepted == ballot && leases.supports(holder.id, peer.now.mono).is_some()
    });
    behind.count() >= known.majority
}

impl L1 {
    fn check(&mut self, everyone: &Everyone<'_>, book: &Book, group: GroupId) -> Verdict {
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
            && !is_backed(everyone, book, group, holder)
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
