//! P1: a replica accepts only under its promised ballot; `promised` never
//! falls, across crashes too.
//!
//! What a node said is what it must still hold after a restart: the ballot of
//! every Promise, Prepare, Accept and Accepted that left it, and the log up to
//! the last slot of every Accepted.

use super::book::is_emptied;
use super::{Context, Rule, Verdict};
use std::collections::BTreeMap;
use synod_paxos::{Ballot, GroupId, Message, Slot};
use synod_shard::NodeMessage;

/// What one replica has disclosed, in all its lives.
#[derive(Clone, Copy, Debug, Default)]
struct Said {
    /// The highest ballot of any message that implies a durable promise.
    promised: Ballot,
    /// The highest Accepted.
    accepted: (Ballot, Slot),
}

#[derive(Default)]
pub(super) struct P1 {
    said: BTreeMap<(usize, GroupId), Said>,
    /// What this step says, kept apart: within a step the order of messages to
    /// different nodes is not known.
    now: Vec<(GroupId, Said)>,
}

impl P1 {
    fn listen(&mut self, cx: &Context<'_>) -> Verdict {
        let node = cx.look.node;
        self.now.clear();
        for (_, message) in cx.look.step.messages() {
            let NodeMessage::Group { group, message } = message else {
                continue;
            };
            let said = match message {
                Message::Promise { ballot, .. }
                | Message::Prepare { ballot, .. }
                | Message::Accept { ballot, .. } => Said {
                    promised: *ballot,
                    ..Said::default()
                },
                Message::Accepted { ballot, last, .. } => Said {
                    promised: *ballot,
                    accepted: (*ballot, *last),
                },
                _ => continue,
            };
            let before = self.said.entry((node, *group)).or_default();
            let accepts = said.accepted.0 != Ballot::default();
            if accepts && said.accepted.0 < before.promised {
                return Err(format!(
                    "{} of {group} sent Accepted {} after it had promised {}",
                    cx.look.id, said.accepted.0, before.promised
                ));
            }
            self.now.push((*group, said));
        }
        for (group, said) in self.now.drain(..) {
            let before = self.said.entry((node, group)).or_default();
            before.promised = before.promised.max(said.promised);
            before.accepted = before.accepted.max(said.accepted);
        }
        Ok(())
    }
}

impl Rule for P1 {
    fn number(&self) -> &'static str {
        "P1"
    }

    fn step(&mut self, cx: &Context<'_>) -> Verdict {
        for change in &cx.news.changes {
            let (before, after) = (change.before, change.after);
            let (group, node) = (change.group, cx.look.id);
            if after.promised < before.promised {
                return Err(format!(
                    "{node} of {group} had promised {} and now {}",
                    before.promised, after.promised
                ));
            }
            if after.emptied && !before.emptied {
                // G3 lets it go; what it promised stays.
                let said = self.said.entry((cx.look.node, group)).or_default();
                said.accepted = <_>::default();
                continue;
            }
            if after.accepted < before.accepted || after.accepted > after.promised {
                return Err(format!(
                    "{node} of {group} accepted under {} after {}, with {} promised",
                    after.accepted, before.accepted, after.promised
                ));
            }
            if after
                .leads
                .is_some_and(|b| b != after.promised || b.node != node)
            {
                return Err(format!(
                    "{node} leads {group} under {:?} with {} promised",
                    after.leads, after.promised
                ));
            }
        }
        self.listen(cx)
    }

    fn restarted(&mut self, cx: &Context<'_>) -> Verdict {
        for shard in cx.look.worker.shards() {
            let (replica, group) = (shard.replica(), shard.descriptor().id);
            let Some(said) = self.said.get(&(cx.look.node, group)) else {
                continue;
            };
            if cx.setting.map.shard(group).is_none() && is_emptied(replica) {
                // Its group is absorbed: nobody asks for its word any more.
                continue;
            }
            if replica.ballot() < said.promised {
                return Err(format!(
                    "{} of {group} came back with {} promised; it had said {} before",
                    cx.look.id,
                    replica.ballot(),
                    said.promised
                ));
            }
            let holds = (replica.accepted(), replica.last());
            if holds < said.accepted && !is_emptied(replica) {
                return Err(format!(
                    "{} of {group} came back with its log accepted under {} up to slot {}; it \
                     had sent Accepted {} up to slot {}",
                    cx.look.id, holds.0, holds.1, said.accepted.0, said.accepted.1
                ));
            }
        }
        Ok(())
    }
}
