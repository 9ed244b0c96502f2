//! From what a step decided, answered and sent to the events of the ledger.

use super::book::{Question, What};
use super::ledger::{Event, Fresh, How};
use synod_paxos::NodeId;
use synod_shard::{NodeMessage, ShardMap, ShardReply, ShardRequest};
use synod_txn::peer::{PeerBody, Vote};
use synod_txn::request::Refusal;
use synod_txn::{AbortReason, AttemptId, Command, Outcome, Request, Response};

/// The attempt whose Commit reaches its coordinator with this request.
pub(super) fn asked(request: &ShardRequest) -> Option<AttemptId> {
    match &request.request {
        Request::Commit(commit) if commit.here == commit.coordinator => Some(commit.attempt),
        _ => None,
    }
}

/// The outcome that a decided entry discloses.
pub(super) fn of_entry(fresh: &Fresh, node: NodeId) -> Option<Event<'static>> {
    let how = How::Entry;
    let (attempt, outcome) = match fresh.command.as_ref()? {
        Command::OneShard {
            attempt, timestamp, ..
        } => (*attempt, Outcome::Committed(*timestamp)),
        Command::Outcome {
            attempt, outcome, ..
        }
        | Command::Resolve {
            attempt, outcome, ..
        } => (*attempt, *outcome),
        _ => return None,
    };
    Some(Event::Told {
        attempt,
        outcome,
        node,
        how,
    })
}

/// What an answer discloses.
pub(super) fn of_reply(
    node: NodeId,
    question: &Question,
    reply: &ShardReply,
    told: &mut Vec<Event<'static>>,
) {
    let ShardReply::Response(response) = reply else {
        return;
    };
    let group = question.group;
    match (&question.what, response) {
        (
            What::Commit(attempt, anchor) | What::Status(attempt, anchor),
            Response::Outcome { outcome, .. },
        ) => {
            let attempt = *attempt;
            if let Outcome::Aborted(_) = outcome {
                // Said by a shard that may not be its coordinator: a no, not an outcome.
                return told.push(Event::No {
                    attempt,
                    group,
                    anchor: anchor.clone(),
                    node,
                });
            }
            told.push(Event::Told {
                attempt,
                outcome: *outcome,
                node,
                how: How::Answer,
            });
        }
        (
            What::Commit(attempt, anchor),
            Response::Refused(
                Refusal::Aborted(_)
                | Refusal::WrongTerm {
                    last_word: true, ..
                },
            ),
        ) => told.push(Event::No {
            attempt: *attempt,
            group,
            anchor: anchor.clone(),
            node,
        }),
        (_, Response::Read { versions, .. }) => {
            // What a cluster is born with has no attempt.
            let made = versions.iter().flatten();
            for version in made.filter(|v| v.attempt != AttemptId(0)) {
                told.push(Event::Told {
                    attempt: version.attempt,
                    outcome: Outcome::Committed(version.timestamp),
                    node,
                    how: How::Read,
                });
            }
        }
        _ => {}
    }
}

/// What a message between shards discloses. It is the sender's own word when it
/// is sent for the first time; who passes it on repeats it.
pub(super) fn of_message(
    node: NodeId,
    map: &ShardMap,
    message: &NodeMessage,
) -> Option<Event<'static>> {
    let NodeMessage::Transaction { hops, message, .. } = message else {
        return None;
    };
    if *hops > 1 {
        return None;
    }
    let attempt = message.attempt;
    let sender = || map.shard_of(&message.from).map(|s| s.id);
    let anchor = message.from.clone();
    match &message.body {
        PeerBody::Vote { vote, .. } => {
            let group = sender()?;
            Some(match vote {
                Vote::Yes(timestamp) => Event::Yes {
                    attempt,
                    group,
                    anchor,
                    timestamp: *timestamp,
                    node,
                },
                Vote::No(_) => Event::No {
                    attempt,
                    group,
                    anchor,
                    node,
                },
                Vote::Forgotten => Event::Forgotten {
                    attempt,
                    group,
                    anchor,
                    node,
                },
            })
        }
        // What is said to a stranger is no outcome.
        PeerBody::Resolve { outcome, .. }
            if *outcome != Outcome::Aborted(AbortReason::Malformed) =>
        {
            Some(Event::Told {
                attempt,
                outcome: *outcome,
                node,
                how: How::Resolve,
            })
        }
        PeerBody::Ack => Some(Event::Ack {
            attempt,
            group: sender()?,
            anchor,
            node,
        }),
        _ => None,
    }
}
