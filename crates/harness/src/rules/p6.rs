//! P6: a leader serves nothing before it is in office: its own entry decided,
//! and everything up to it applied. So whatever an office does, and whatever
//! only an office may say, needs a TermStart that is decided and applied.

use super::{Context, Rule, Seen, Verdict};
use synod_paxos::{Ballot, GroupId};
use synod_shard::{NodeMessage, ShardReply};
use synod_txn::Response;
use synod_txn::peer::PeerBody;
use synod_txn::request::Refusal;

pub(super) struct P6;

/// Whether this ballot's first entry is decided and was applied here.
fn may_serve(cx: &Context<'_>, group: GroupId, ballot: Ballot, seen: &Seen) -> bool {
    let start = cx.book.group(group).and_then(|g| g.start_of(ballot));
    // A leader that was elected and gone before it was seen says nothing.
    start.is_some_and(|slot| seen.decided >= slot && seen.applied >= slot)
}

/// Whether the shard was in office at some time during this step.
fn served(cx: &Context<'_>, group: GroupId) -> bool {
    let Some(now) = cx.book.seen(cx.look.node, group) else {
        return false;
    };
    let change = cx.news.changes.iter().find(|c| c.group == group);
    let before = change.map_or(*now, |c| c.before);
    let ballots = [before.leads, before.office, now.leads, now.office];
    let mut ballots = ballots.into_iter().flatten();
    ballots.any(|ballot| may_serve(cx, group, ballot, now))
}

fn is_service(response: &Response) -> bool {
    !matches!(
        response,
        Response::Refused(
            Refusal::NotLeader { .. }
                | Refusal::WrongShard
                | Refusal::Overloaded { .. }
                | Refusal::Clock
        )
    )
}

/// What only an office says, and at once.
fn is_said_in_office(body: &PeerBody) -> bool {
    matches!(
        body,
        PeerBody::Vote { .. }
            | PeerBody::Resolve {
                recorded: false,
                ..
            }
            | PeerBody::AskOrAbort { .. }
            | PeerBody::Poll { .. }
            | PeerBody::Pending
            | PeerBody::Wound { .. }
            | PeerBody::Forgotten
    )
}

impl Rule for P6 {
    fn number(&self) -> &'static str {
        "P6"
    }

    fn step(&mut self, cx: &Context<'_>) -> Verdict {
        let id = cx.look.id;
        for change in &cx.news.changes {
            let after = change.after;
            let Some(office) = after.office else { continue };
            // A term between two configurations is in office and says nothing new; in
            // the next one it may serve under its new ballot.
            let goes_on = after.changing
                || after.term == Some(office)
                    && after
                        .leads
                        .is_some_and(|b| may_serve(cx, change.group, b, &after));
            let begun = after.leads == Some(office) && may_serve(cx, change.group, office, &after);
            if !begun && !goes_on {
                return Err(format!(
                    "{id} is in office for {} under {office}, with {:?} led, decided through \
                     slot {} and applied through {}",
                    change.group, after.leads, after.decided, after.applied
                ));
            }
        }
        for (caller, reply) in cx.look.step.replies {
            let ShardReply::Response(response) = reply else {
                continue;
            };
            if !is_service(response) {
                continue;
            }
            let Some(question) = cx.book.question(cx.look.node, *caller) else {
                continue;
            };
            if !served(cx, question.group) {
                return Err(format!(
                    "{id} answered \"{response}\" for {} without being in office",
                    question.group
                ));
            }
        }
        for (_, message) in cx.look.step.messages() {
            let NodeMessage::Transaction { hops, message, .. } = message else {
                continue;
            };
            // More than one hop: passed on for somebody else.
            if *hops > 1 || !is_said_in_office(&message.body) {
                continue;
            }
            let sender = cx.setting.map.shard_of(&message.from);
            // What the step said before it cut a shard, that one said.
            let mut shards = cx.look.worker.shards().map(|s| s.descriptor().id);
            let served = |id| shards.any(|of| cx.ledger.is_of(id, of) && served(cx, of));
            if let Some(shard) = sender.filter(|s| !{ served }(s.id)) {
                return Err(format!(
                    "{id} sent \"{message}\" for {} without being in office",
                    shard.id
                ));
            }
        }
        Ok(())
    }
}
