//! G1: a replica promises and accepts in a configuration only once it holds the
//! state through the stop-sign before it; durably, since it may not forget.

use super::book::is_emptied;
use super::{Context, Rule, Verdict};
use std::collections::BTreeMap;
use synod_paxos::{Epoch, GroupId, Message, NodeId};
use synod_shard::NodeMessage;

#[derive(Default)]
pub(super) struct G1 {
    /// The youngest configuration each replica took part in.
    took_part: BTreeMap<(GroupId, NodeId), Epoch>,
}

impl Rule for G1 {
    fn number(&self) -> &'static str {
        "G1"
    }

    fn step(&mut self, cx: &Context<'_>) -> Verdict {
        for (_, message) in cx.look.step.messages() {
            let NodeMessage::Group { group, message } = message else {
                continue;
            };
            let (Message::Promise { ballot, .. } | Message::Accepted { ballot, .. }) = message
            else {
                continue;
            };
            let known = cx.book.seen(cx.look.node, *group).map(|seen| seen.epoch);
            if known.is_none_or(|known| known < ballot.epoch) {
                return Err(format!(
                    "{} says \"{message}\" for {group} and holds the state before {known:?} only",
                    cx.look.id
                ));
            }
            let took_part = self.took_part.entry((*group, cx.look.id)).or_default();
            *took_part = (*took_part).max(ballot.epoch);
        }
        Ok(())
    }

    fn restarted(&mut self, cx: &Context<'_>) -> Verdict {
        for shard in cx.look.worker.shards() {
            let (replica, group) = (shard.replica(), shard.descriptor().id);
            let took_part = self.took_part.get(&(group, cx.look.id)).copied();
            let knows = replica.configuration().epoch;
            if took_part.is_some_and(|epoch| epoch > knows) && !is_emptied(replica) {
                return Err(format!(
                    "{} took part in {took_part:?} of {group} and came back with {knows}",
                    cx.look.id
                ));
            }
        }
        Ok(())
    }
}
