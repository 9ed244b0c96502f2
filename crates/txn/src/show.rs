//! One short text form of commands, messages and answers, for logs, golden
//! scripts and the simulator alike.

use crate::command::Command;
use crate::peer::{PeerBody, PeerMessage, Vote};
use crate::request::{Refusal, Response};
use crate::types::{Key, Outcome, Participant, Span, Write};
use std::fmt::{self, Display, Formatter};
use synod_paxos::Timestamp;

/// A key or value as text; bytes that are no printable ASCII as `\xNN`.
#[must_use]
pub fn bytes(bytes: &[u8]) -> String {
    bytes.escape_ascii().to_string()
}

fn list<T>(items: &[T], show: impl Fn(&T) -> String) -> String {
    let shown: Vec<String> = items.iter().map(show).collect();
    shown.join(" ")
}

fn write(write: &Write) -> String {
    match &write.value {
        Some(value) => format!("{}={}", bytes(&write.key), bytes(value)),
        None => format!("-{}", bytes(&write.key)),
    }
}

fn span(span: &Span) -> String {
    match span.as_key() {
        Some(key) => bytes(key),
        None => format!("[{}..{})", bytes(&span.start), bytes(&span.end)),
    }
}

fn key(key: &Key) -> String {
    bytes(key)
}

fn anchor(participant: &Participant) -> String {
    bytes(&participant.anchor)
}

impl Display for Outcome {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Outcome::Committed(at) => write!(f, "committed {at}"),
            Outcome::Aborted(reason) => write!(f, "aborted ({reason:?})"),
        }
    }
}

impl Display for Command {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Command::OneShard {
                attempt,
                timestamp,
                writes,
                ..
            } => write!(f, "OneShard {attempt} {timestamp} {}", list(writes, write)),
            Command::Intent(intent) => {
                let staged = if intent.here == intent.coordinator {
                    "+Staged"
                } else {
                    ""
                };
                write!(f, "Intent{staged} {} {}", intent.attempt, intent.timestamp)?;
                write!(f, " writes [{}]", list(&intent.writes, write))?;
                write!(f, " reads [{}]", list(&intent.reads, span))?;
                if intent.parts > 0 {
                    write!(f, " after {} parts", intent.parts)?;
                }
                Ok(())
            }
            Command::IntentPart {
                attempt,
                part,
                writes,
            } => write!(f, "IntentPart {attempt} {part} [{}]", list(writes, write)),
            Command::Outcome {
                attempt, outcome, ..
            } => write!(f, "Outcome {attempt} {outcome}"),
            Command::Resolve {
                attempt,
                outcome,
                recorded,
            } => {
                let recorded = if *recorded { " recorded" } else { "" };
                write!(f, "Resolve {attempt} {outcome}{recorded}")
            }
            Command::Acked {
                attempt,
                participants,
            } => write!(f, "Acked {attempt} by {}", list(participants, key)),
            Command::Forget { floor_millis } => write!(f, "Forget below {floor_millis} ms"),
            Command::Horizon { horizon } => write!(f, "Horizon {horizon}"),
            Command::Version(version) => write!(f, "Version {version}"),
            Command::Descriptor { generation, .. } => write!(f, "Descriptor {generation}"),
            Command::Close { timestamp } => write!(f, "Close {timestamp}"),
            Command::Split(split) => {
                write!(f, "Split at {} into {}", key(&split.at), split.child)
            }
            Command::End(end) => write!(f, "End for {}", end.call.left),
            Command::Resume { slot } => write!(f, "Resume after {slot}"),
            Command::Absorb(absorb) => write!(f, "Absorb {} at {}", absorb.right, absorb.slot),
            Command::Reopen { right, slot } => write!(f, "Reopen {right} at {slot}"),
            Command::Retire { right } => write!(f, "Retire {right}"),
            Command::Hash(hash) => match &hash.hashing {
                Some(h) => write!(f, "Hash {} over {} slots", key(&h.prefix), h.slots),
                None => write!(f, "Hash no more"),
            },
        }
    }
}

impl Display for Vote {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Vote::Yes(at) => write!(f, "yes {at}"),
            Vote::No(reason) => write!(f, "no ({reason:?})"),
            Vote::Forgotten => write!(f, "forgotten"),
        }
    }
}

impl Display for PeerMessage {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let (from, to) = (bytes(&self.from), bytes(&self.anchor));
        write!(f, "{from} → {to} {} ", self.attempt)?;
        match &self.body {
            PeerBody::Vote { vote, term } => write!(f, "Vote {vote} for term {}", term.ballot),
            PeerBody::Resolve { outcome, recorded } => {
                let recorded = if *recorded { " recorded" } else { "" };
                write!(f, "Resolve {outcome}{recorded}")
            }
            PeerBody::Ack => write!(f, "Ack"),
            PeerBody::Ask => write!(f, "Ask"),
            PeerBody::AskOrAbort { participants } => {
                write!(f, "AskOrAbort of {}", list(participants, anchor))
            }
            PeerBody::Pending => write!(f, "Pending"),
            PeerBody::Poll { term } => write!(f, "Poll for term {}", term.ballot),
            PeerBody::Wound { .. } => write!(f, "Wound"),
            PeerBody::Moved => write!(f, "Moved"),
            PeerBody::Forgotten => write!(f, "Forgotten"),
        }
    }
}

impl Display for Refusal {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::NotLeader { hint: Some(node) } => write!(f, "not leader, try {node}"),
            Refusal::NotLeader { hint: None } => write!(f, "not leader"),
            Refusal::WrongTerm {
                current,
                last_word: true,
            } => write!(f, "wrong term, it is {}; final", current.ballot),
            Refusal::WrongTerm { current, .. } => {
                write!(f, "wrong term, it is {}", current.ballot)
            }
            Refusal::Aborted(reason) => write!(f, "aborted ({reason:?})"),
            Refusal::Overloaded { retry_after_millis } => {
                write!(f, "overloaded, come back after {retry_after_millis} ms")
            }
            Refusal::WrongShard => write!(f, "wrong shard"),
            Refusal::OtherSharding { .. } => write!(f, "mapped in another way"),
            Refusal::Invalid(why) => write!(f, "invalid: {why}"),
            Refusal::Clock => write!(f, "no usable clock"),
            Refusal::AttemptTime {
                now,
                least_millis,
                most_millis,
            } => {
                let least = Timestamp(least_millis.saturating_mul(1_000_000));
                let most = Timestamp(most_millis.saturating_mul(1_000_000));
                write!(f, "id's time is not within {least} and {most}, take {now}")
            }
        }
    }
}

impl Display for Response {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Response::Read {
                session,
                versions,
                rows,
                more,
                ..
            } => {
                write!(f, "read")?;
                if let Some(session) = session {
                    write!(f, " session {}", session.0)?;
                }
                for version in versions {
                    match version {
                        None => write!(f, " none")?,
                        Some(v) => match &v.value {
                            Some(value) => write!(f, " {}{}", bytes(value), v.timestamp)?,
                            None => write!(f, " deleted{}", v.timestamp)?,
                        },
                    }
                }
                for row in rows {
                    let (key, value) = (bytes(&row.key), bytes(&row.value));
                    write!(f, " {key}={value}{}", row.timestamp)?;
                }
                write!(f, "{}", if *more { " …" } else { "" })
            }
            Response::Outcome { outcome, .. } => write!(f, "{outcome}"),
            Response::Voting => write!(f, "voting"),
            Response::Valid => write!(f, "valid"),
            Response::Released => write!(f, "released"),
            Response::Pending => write!(f, "pending"),
            Response::Expired => write!(f, "expired: outcome no longer known"),
            Response::Located { term, now } => write!(f, "term {} at {now}", term.ballot),
            Response::Refused(refusal) => write!(f, "refused: {refusal}"),
        }
    }
}
