//! S1: at most one shard's leader serves a key. Where the ranges of two shards with leaders in
//! office overlap, as one of them does not know yet that it was split, at most one of
//! them holds the lease.

use super::{Book, Context, Everyone, Ledger, Peer, Rule, Verdict};
use synod_shard::{Shard, Worker};

pub(super) struct S1;

/// Whether this replica may serve reads without asking anybody.
fn serves(peer: &Peer<'_>, worker: &Worker, shard: &Shard) -> bool {
    let cx = synod_paxos::Cx {
        now: peer.now.mono,
        leases: worker.leases(),
    };
    shard.in_office() && shard.replica().lease(&cx).is_some()
}

fn check(everyone: &Everyone<'_>) -> Verdict {
    let mut serving: Vec<(&Peer<'_>, &Shard)> = Vec::new();
    for peer in everyone.nodes {
        let Some(worker) = peer.worker else { continue };
        let shards = worker.shards().filter(|shard| serves(peer, worker, shard));
        serving.extend(shards.map(|shard| (peer, shard)));
    }
    serving.sort_by(|a, b| {
        a.1.descriptor()
            .span
            .start
            .cmp(&b.1.descriptor().span.start)
    });
    for pair in serving.windows(2) {
        let [(left, first), (right, second)] = pair else {
            continue;
        };
        let (first, second) = (first.descriptor(), second.descriptor());
        if first.id != second.id && first.span.contains(&second.span.start) {
            return Err(format!(
                "{} serves {} for {}, and {} serves part of that for {}",
                left.id,
                synod_shard::wire::show_key(&second.span.start),
                first.id,
                right.id,
                second.id
            ));
        }
    }
    Ok(())
}

impl Rule for S1 {
    fn number(&self) -> &'static str {
        "S1"
    }

    fn step(&mut self, cx: &Context<'_>) -> Verdict {
        // Only who takes office can be one too many.
        let took =
            |c: &super::Change| c.after.office.is_some() && c.after.office != c.before.office;
        let splits = || cx.setting.map.shards.iter().any(|s| s.generation > 1);
        if cx.news.changes.iter().any(took) && splits() {
            return check(cx.everyone);
        }
        Ok(())
    }

    fn full(&mut self, everyone: &Everyone<'_>, _book: &Book, _ledger: &Ledger) -> Verdict {
        check(everyone)
    }
}
