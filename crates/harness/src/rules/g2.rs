//! G2: a leader's lease ends before it tells anybody that a stop-sign is decided. So
//! whoever knows a configuration to be in force, nobody holds a lease in an older one.
//! That its timestamps end too is seen by K1, K3 and R1.

use super::{Context, Rule, Verdict};
use synod_paxos::GroupId;

pub(super) struct G2;

fn holds_older(cx: &Context<'_>, group: GroupId) -> Verdict {
    if cx.setting.map.shard(group).is_none() {
        // Absorbed: its replicas go one by one, as if each had been left out.
        return Ok(());
    }
    let youngest = cx.everyone.nodes.iter().filter_map(|peer| {
        let replica = peer.worker?.shard(group)?.replica();
        Some((replica.configuration().epoch, peer.id))
    });
    let Some((epoch, knows)) = youngest.max() else {
        return Ok(());
    };
    for (node, ballot) in cx.book.leaders(group) {
        let Some(peer) = cx.everyone.nodes.get(node) else {
            continue;
        };
        let (Some(worker), true) = (peer.worker, ballot.epoch < epoch) else {
            continue;
        };
        let at = synod_paxos::Cx {
            now: peer.now.mono,
            leases: worker.leases(),
        };
        let lease = worker.shard(group).and_then(|s| s.replica().lease(&at));
        if lease.is_some() && peer.id != knows {
            return Err(format!(
                "{} holds the lease of {group} under {ballot} although {knows} knows {epoch} to \
                 be in force",
                peer.id
            ));
        }
    }
    Ok(())
}

impl Rule for G2 {
    fn number(&self) -> &'static str {
        "G2"
    }

    fn step(&mut self, cx: &Context<'_>) -> Verdict {
        for change in &cx.news.changes {
            let moved = change.after.epoch > change.before.epoch;
            let gained = change
                .after
                .leads
                .is_some_and(|b| b.epoch < change.after.epoch);
            if moved || gained {
                holds_older(cx, change.group)?;
            }
        }
        Ok(())
    }
}
