//! L2: the holder counts from when it sent, the supporter from when it
//! received; a lapsed support is never renewed under the same epoch. So at
//! every instant at which a holder counts on an epoch, its supporter supports
//! it under that very epoch, for at least as long.

use super::{Book, Context, Everyone, Ledger, Peer, Rule, Setting, Taken, Verdict};
use std::collections::BTreeMap;
use synod_paxos::lease::{LeaseMessage, LeaseSettings};
use synod_paxos::{Incarnation, Mono, NodeId, SupportEpoch};
use synod_shard::{Input, NodeMessage};

/// What a supporter gives one holder.
#[derive(Clone, Copy, Debug)]
struct Given {
    /// No promise of it lasts longer than this, by the supporter's clock.
    until: Mono,
    /// The epoch last seen.
    epoch: SupportEpoch,
    /// A Renew came after `until`: another epoch must follow.
    lapsed: bool,
}

pub(super) struct L2 {
    lease: LeaseSettings,
    given: BTreeMap<(usize, NodeId), Given>,
    incarnations: BTreeMap<usize, Incarnation>,
    turn: usize,
}

impl L2 {
    pub(super) fn new(setting: &Setting) -> L2 {
        L2 {
            lease: setting.lease,
            given: BTreeMap::new(),
            incarnations: BTreeMap::new(),
            turn: 0,
        }
    }

    /// A supporter's epochs for one holder rise, and carry both incarnations.
    fn review(&mut self, node: usize, id: NodeId, cx: &Context<'_>, holder: NodeId) -> Verdict {
        let leases = cx.look.worker.leases();
        let Some(epoch) = leases.supports(holder, cx.look.now.mono) else {
            return Ok(());
        };
        let Some(given) = self.given.get_mut(&(node, holder)) else {
            return Ok(());
        };
        let revived = given.lapsed && epoch == given.epoch;
        let reused = epoch < given.epoch;
        if revived || reused || epoch.supporter != leases.incarnation() {
            return Err(format!(
                "{id}, in incarnation {}, supports {holder} under epoch {epoch} after {}{}",
                leases.incarnation().0,
                given.epoch,
                if given.lapsed {
                    ", which had lapsed"
                } else {
                    ""
                }
            ));
        }
        given.epoch = epoch;
        given.lapsed = false;
        Ok(())
    }

    /// What one node counts on from another against what that one gives.
    fn compare(holder: &Peer<'_>, supporter: &Peer<'_>) -> Verdict {
        let (Some(counts), Some(gives)) = (holder.worker, supporter.worker) else {
            return Ok(());
        };
        let (counts, gives) = (counts.leases(), gives.leases());
        let Some(held) = counts.held_from(supporter.id, holder.now.mono) else {
            return Ok(());
        };
        // A supporter that came back has forgotten, and abstains (L5).
        if gives.incarnation() != held.epoch.supporter {
            return Ok(());
        }
        let given = gives.supports(holder.id, supporter.now.mono);
        let left = held.until.since(holder.now.mono);
        let until = gives.supported_until(holder.id).unwrap_or(Mono(0));
        let stands = until.since(supporter.now.mono);
        if given != Some(held.epoch) || left > stands {
            return Err(format!(
                "{} counts on epoch {} of {} for {left} ns more; that one gives {given:?} for \
                 {stands} ns",
                holder.id, held.epoch, supporter.id
            ));
        }
        Ok(())
    }
}

impl Rule for L2 {
    fn number(&self) -> &'static str {
        "L2"
    }

    fn follows_inputs(&self) -> bool {
        true
    }

    fn taken(&mut self, taken: &Taken<'_>) {
        let Input::Peer { from, message } = taken.input else {
            return;
        };
        let NodeMessage::Lease(LeaseMessage::Renew { .. }) = message else {
            return;
        };
        let now = taken.now.mono;
        let until = now.plus(self.lease.stretched(self.lease.longest()));
        let given = self.given.entry((taken.node, *from)).or_insert(Given {
            until,
            epoch: SupportEpoch::NONE,
            lapsed: false,
        });
        given.lapsed |= now >= given.until;
        given.until = given.until.max(until);
    }

    fn step(&mut self, cx: &Context<'_>) -> Verdict {
        let (node, id) = (cx.look.node, cx.look.id);
        let peers = cx.everyone.nodes;
        // One pair a step; all of them when everything is compared.
        self.turn = (self.turn + 1) % peers.len().max(1);
        let other = &peers[self.turn];
        if other.id != id {
            self.review(node, id, cx, other.id)?;
            Self::compare(&peers[node], other)?;
        }
        let given = cx.look.step.messages().filter_map(|(to, message)| {
            let support = matches!(message, NodeMessage::Lease(LeaseMessage::Support { .. }));
            support.then_some(to)
        });
        for holder in given {
            self.review(node, id, cx, holder)?;
        }
        Ok(())
    }

    fn full(&mut self, everyone: &Everyone<'_>, _book: &Book, _ledger: &Ledger) -> Verdict {
        for holder in everyone.nodes {
            for supporter in everyone.nodes.iter().filter(|s| s.id != holder.id) {
                Self::compare(holder, supporter)?;
            }
        }
        Ok(())
    }

    fn crashed(&mut self, node: usize) {
        for ((supporter, _), given) in &mut self.given {
            if *supporter == node {
                // Forgotten; the epochs stay, for none of them may come again.
                given.until = Mono(0);
                given.lapsed = false;
            }
        }
    }

    fn restarted(&mut self, cx: &Context<'_>) -> Verdict {
        let now = cx.look.worker.leases().incarnation();
        match self.incarnations.insert(cx.look.node, now) {
            Some(before) if now <= before => Err(format!(
                "{} came back as incarnation {}; it was {} before",
                cx.look.id, now.0, before.0
            )),
            _ => Ok(()),
        }
    }
}
