//! L4: support grants a limit on timestamps, within reach of the supporter's
//! own clock (K1) and durable before it is told; promises report it, and a new
//! leader's floor lies above what they report.

use super::{Context, Rule, Verdict};
use std::collections::{BTreeMap, BTreeSet};
use synod_paxos::lease::LeaseMessage;
use synod_paxos::{Ballot, Entry, GroupId, Message, NodeId, Slot, Timestamp};
use synod_shard::NodeMessage;

/// Campaigns, and ballots given up, remembered.
const CAMPAIGNS: usize = 1024;

#[derive(Default)]
pub(super) struct L4 {
    /// The highest limit each supporter told each holder, in all its lives.
    told: BTreeMap<(NodeId, NodeId), Timestamp>,
    /// The furthest each node could grant so far.
    reach: BTreeMap<NodeId, Timestamp>,
    /// Limits reported to each campaign, by elector.
    reported: BTreeMap<(Ballot, GroupId), BTreeMap<NodeId, Timestamp>>,
    /// Ballots given up with the highest timestamp used: that one counts, not the limit.
    used: BTreeSet<(Ballot, GroupId)>,
}

impl L4 {
    fn granted(&mut self, cx: &Context<'_>, to: NodeId, limit: Timestamp) -> Verdict {
        let me = cx.look.id;
        let reach = self.reach.get(&me).copied().unwrap_or_default();
        let told = self.told.entry((me, to)).or_default();
        if limit > reach.max(*told) {
            return Err(format!(
                "{me} granted {to} timestamps up to {limit}; with its clock it may grant up to \
                 {reach}"
            ));
        }
        *told = limit.max(*told);
        Ok(())
    }

    fn promised(&mut self, cx: &Context<'_>, group: GroupId, message: &Message) -> Verdict {
        let Message::Promise {
            ballot,
            accepted,
            limit,
            ..
        } = message
        else {
            return Ok(());
        };
        let me = cx.look.id;
        let given_up = self.used.contains(&(*accepted, group));
        let told = self.told.get(&(me, accepted.node)).copied();
        if !given_up && told.is_some_and(|told| told > *limit) {
            return Err(format!(
                "{me} promises {ballot} in {group} and reports {limit} for {accepted}, whose node \
                 it told {told:?}"
            ));
        }
        let reports = self.reported.entry((*ballot, group)).or_default();
        let limit = if given_up { Timestamp(0) } else { *limit };
        // A repeated promise may report more: what was granted after the first one
        // counts for nobody that the first one deposed. Either may be the one heard.
        let reported = reports.entry(me).or_insert(limit);
        *reported = limit.min(*reported);
        while self.reported.len() > CAMPAIGNS {
            self.reported.pop_first();
        }
        Ok(())
    }

    /// A leader was elected by some majority of those that promised it. Whichever
    /// it was, its floor is not below the lowest maximum of any of them.
    fn elected(&self, cx: &Context<'_>, group: GroupId, ballot: Ballot) -> Verdict {
        let Some(book) = cx.book.group(group) else {
            return Ok(());
        };
        let Some(reports) = self.reported.get(&(ballot, group)) else {
            return Ok(());
        };
        let mut limits: Vec<Timestamp> = reports.values().copied().collect();
        limits.sort_unstable();
        let Some(known) = book.electorate(ballot.epoch) else {
            return Ok(());
        };
        let others = known.majority.saturating_sub(1);
        let Some(lowest) = others.checked_sub(1).and_then(|i| limits.get(i)) else {
            return Ok(());
        };
        let start = book.start_of(ballot).unwrap_or(Slot(0));
        let shard = cx.look.worker.shard(group);
        match shard.and_then(|s| s.replica().entry(start)) {
            Some(Entry::TermStart(term)) if term.floor < *lowest => Err(format!(
                "{} leads {group} under {ballot} from a floor of {}; its promises reported \
                 {limits:?}",
                cx.look.id, term.floor
            )),
            _ => Ok(()),
        }
    }
}

impl Rule for L4 {
    fn number(&self) -> &'static str {
        "L4"
    }

    fn step(&mut self, cx: &Context<'_>) -> Verdict {
        let (me, lease) = (cx.look.id, &cx.setting.lease);
        // The clock may have been set back between granting and telling.
        let reach = self.reach.entry(me).or_default();
        *reach = (*reach).max(cx.look.now.clock.latest.plus(lease.max_offset_nanos));
        for change in &cx.news.changes {
            let replicated = change.after.replicated;
            *reach = (*reach).max(replicated.plus(lease.logical_increment_nanos));
        }
        let mut verdict = Ok(());
        // Promises first: one that leaves together with a Support was given before it.
        for (_, message) in cx.look.step.messages() {
            let NodeMessage::Group { group, message } = message else {
                continue;
            };
            if let Message::Relinquish {
                ballot,
                used: Some(_),
            }
            | Message::TransferLeader { ballot, .. } = message
            {
                self.used.insert((*ballot, *group));
                if self.used.len() > CAMPAIGNS {
                    self.used.pop_first();
                }
            }
            verdict = verdict.and(self.promised(cx, *group, message));
        }
        for (to, message) in cx.look.step.messages() {
            if let NodeMessage::Lease(LeaseMessage::Support { limit, .. }) = message {
                verdict = verdict.and(self.granted(cx, to, *limit));
            }
        }
        for change in &cx.news.changes {
            if let Some(ballot) = change.elected() {
                verdict = verdict.and(self.elected(cx, change.group, ballot));
            }
        }
        verdict
    }

    fn restarted(&mut self, cx: &Context<'_>) -> Verdict {
        let me = cx.look.id;
        let leases = cx.look.worker.leases();
        let from = (me, NodeId(0));
        for ((_, holder), told) in self.told.range(from..).take_while(|((s, _), _)| *s == me) {
            let kept = leases.granted_limit(*holder);
            if kept < *told {
                return Err(format!(
                    "{me} came back with {kept} granted to {holder}; it had told {told}"
                ));
            }
        }
        Ok(())
    }
}
