//! L3: after Relinquish(b) nobody claims b again; an elector refuses rivals
//! only for a ballot it accepted and whose node it supports; whoever refuses
//! tells that node.

use super::{Context, Rule, Verdict};
use std::collections::BTreeSet;
use synod_paxos::{Ballot, GroupId, Message, NackReason};
use synod_shard::NodeMessage;

/// Ballots remembered as given up.
const BALLOTS: usize = 4096;

#[derive(Default)]
pub(super) struct L3 {
    given_up: BTreeSet<(GroupId, Ballot)>,
}

impl L3 {
    fn refusal(cx: &Context<'_>, group: GroupId, ballot: Ballot) -> Verdict {
        let look = cx.look;
        let change = cx.news.changes.iter().find(|c| c.group == group);
        let now = cx.book.seen(look.node, group).map(|s| s.accepted);
        let before = change.map(|c| c.before.accepted);
        let accepted = now == Some(ballot) || before == Some(ballot);
        // Support may have lapsed, but never comes to an end, within a step.
        let supports = look.worker.leases().supports(ballot.node, look.now.mono);
        if !accepted || supports.is_none() {
            return Err(format!(
                "{} of {group} refuses a rival for the sake of {ballot}; accepted: {accepted}, \
                 supports its node: {}",
                look.id,
                supports.is_some()
            ));
        }
        if ballot.node == look.id || look.died {
            return Ok(());
        }
        let told = look.step.messages().any(|(to, message)| {
            matches!(message, NodeMessage::Group { group: g, message: Message::Contested { ballot: b } }
                if to == ballot.node && *g == group && *b == ballot)
        });
        if told {
            return Ok(());
        }
        Err(format!(
            "{} of {group} refuses a rival for the sake of {ballot} and does not tell its node",
            look.id
        ))
    }
}

impl Rule for L3 {
    fn number(&self) -> &'static str {
        "L3"
    }

    fn step(&mut self, cx: &Context<'_>) -> Verdict {
        let id = cx.look.id;
        for change in &cx.news.changes {
            let Some(ballot) = change.after.leads else {
                continue;
            };
            if self.given_up.contains(&(change.group, ballot)) {
                return Err(format!(
                    "{id} leads {} under {ballot}, which it had given up",
                    change.group
                ));
            }
        }
        let mut verdict = Ok(());
        let mut given_up = Vec::new();
        for (_, message) in cx.look.step.messages() {
            let NodeMessage::Group { group, message } = message else {
                continue;
            };
            match message {
                Message::Accept { ballot, .. } | Message::Decided { ballot, .. }
                    if self.given_up.contains(&(*group, *ballot)) =>
                {
                    verdict = verdict.and(Err(format!(
                        "{id} sends on in {group} under {ballot}, which it had given up"
                    )));
                }
                Message::Relinquish { ballot, .. } | Message::TransferLeader { ballot, .. }
                    if ballot.node == id =>
                {
                    given_up.push((*group, *ballot));
                }
                Message::Nack {
                    reason: NackReason::Supports(ballot),
                    ..
                } => verdict = verdict.and(Self::refusal(cx, *group, *ballot)),
                _ => {}
            }
        }
        for (group, ballot) in given_up {
            self.given_up.insert((group, ballot));
            let leads = cx.book.seen(cx.look.node, group).and_then(|s| s.leads);
            if leads == Some(ballot) {
                verdict = verdict.and(Err(format!(
                    "{id} gives {ballot} of {group} up and goes on leading"
                )));
            }
        }
        while self.given_up.len() > BALLOTS {
            self.given_up.pop_first();
        }
        verdict
    }
}
