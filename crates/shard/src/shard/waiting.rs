//! What waits until a leader-elect takes office, or until a leader goes on that pauses.

use crate::wire::ShardRequest;
use serde::Serialize;
use std::collections::{BTreeSet, VecDeque};
use synod_txn::peer::PeerBody;
use synod_txn::{Caller, Hashing, PeerMessage, Request};

/// Requests that wait, at most.
const MAX_REQUESTS: usize = 4096;
/// Bytes that those weigh, at most, beside one ([`Request::weight`]).
const MAX_REQUEST_BYTES: usize = 64 << 20;
/// Messages of other shards' leaders that wait, at most: their owners repeat them.
const MAX_PEERS: usize = 4096;
/// Bytes that those name, at most.
const MAX_PEER_BYTES: usize = 8 << 20;

/// What waits.
#[derive(Clone, Serialize)]
pub(super) enum Waiting {
    /// A client's request.
    Request(Caller, Option<Box<Hashing>>, Request),
    /// A message of another shard's leader.
    Peer(PeerMessage),
}

/// In the order in which it came.
#[derive(Clone, Default, Serialize)]
pub(super) struct Queue {
    all: VecDeque<Waiting>,
    /// How many of them are messages of other shards.
    peers: usize,
    /// See [`weight`].
    peer_bytes: usize,
    /// See [`Request::weight`].
    request_bytes: usize,
}

impl Queue {
    /// Whether one more request may wait.
    pub(super) fn has_room(&self) -> bool {
        self.all.len() - self.peers < MAX_REQUESTS && self.request_bytes < MAX_REQUEST_BYTES
    }

    pub(super) fn push_request(&mut self, caller: Caller, request: ShardRequest) {
        let ShardRequest {
            request, hashing, ..
        } = request;
        self.request_bytes += request.weight();
        let waiting = Waiting::Request(caller, hashing, request);
        self.all.push_back(waiting);
    }

    /// Puts a message behind what waits; says whether there was room.
    pub(super) fn push_peer(&mut self, message: PeerMessage) -> bool {
        let bytes = self.peer_bytes + weight(&message);
        let fits = self.peers < MAX_PEERS && bytes <= MAX_PEER_BYTES;
        if fits {
            self.peers += 1;
            self.peer_bytes = bytes;
            self.all.push_back(Waiting::Peer(message));
        }
        fits
    }

    pub(super) fn pop(&mut self) -> Option<Waiting> {
        let first = self.all.pop_front()?;
        match &first {
            Waiting::Peer(message) => {
                self.peers -= 1;
                self.peer_bytes -= weight(message);
            }
            Waiting::Request(_, _, request) => self.request_bytes -= request.weight(),
        }
        Some(first)
    }

    /// Their callers wait no more.
    pub(super) fn cancel(&mut self, callers: &BTreeSet<Caller>) {
        let bytes = &mut self.request_bytes;
        self.all.retain(|waiting| match waiting {
            Waiting::Request(waits, _, request) if callers.contains(waits) => {
                *bytes -= request.weight();
                false
            }
            _ => true,
        });
    }

    /// Who waits for an answer.
    pub(super) fn into_callers(self) -> impl Iterator<Item = Caller> {
        self.all.into_iter().filter_map(|waiting| match waiting {
            Waiting::Request(caller, ..) => Some(caller),
            Waiting::Peer(_) => None,
        })
    }
}

/// Bytes that a message counts for: of its keys, and of those it names.
fn weight(message: &PeerMessage) -> usize {
    const PARTICIPANT: usize = 64;
    let named = match &message.body {
        PeerBody::AskOrAbort { participants } => participants
            .iter()
            .map(|p| PARTICIPANT + p.anchor.len())
            .sum(),
        _ => 0,
    };
    message.anchor.len() + message.from.len() + named
}

#[cfg(test)]
mod tests {
    use super::*;
    use synod_paxos::{GroupId, Term};
    use synod_txn::request::LockMode;
    use synod_txn::{AttemptId, ClientId, Key, Participant, Priority};

    fn caller(request: u64) -> Caller {
        Caller {
            connection: 1,
            request,
        }
    }

    fn request() -> ShardRequest {
        ShardRequest {
            shard: GroupId(2),
            generation: 1,
            request: Request::Locate,
            hashing: None,
        }
    }

    fn message(body: PeerBody) -> PeerMessage {
        PeerMessage {
            attempt: AttemptId(1),
            anchor: Key::from_static(b"a"),
            from: Key::from_static(b"m"),
            body,
        }
    }

    #[test]
    fn neither_kind_takes_the_other_s_room() {
        let mut queue = Queue::default();
        while queue.push_peer(message(PeerBody::Ask)) {}
        assert_eq!(queue.peers, MAX_PEERS);
        let mut requests = 0;
        while queue.has_room() {
            requests += 1;
            queue.push_request(caller(requests), request());
        }
        assert_eq!(requests, MAX_REQUESTS as u64);
        queue.cancel(&BTreeSet::from([caller(7)]));
        assert!(queue.has_room());
        assert!(matches!(queue.pop(), Some(Waiting::Peer(_))));
        assert!(queue.push_peer(message(PeerBody::Ack)));
        assert!(!queue.push_peer(message(PeerBody::Ack)));
        let callers: Vec<u64> = queue.clone().into_callers().map(|c| c.request).collect();
        assert_eq!(callers.len(), MAX_REQUESTS - 1);
        assert!(callers.is_sorted() && !callers.contains(&7));
        while queue.pop().is_some() {}
        assert_eq!((queue.peers, queue.peer_bytes), (0, 0));
    }

    #[test]
    fn large_messages_have_a_bound_of_their_own() {
        let participant = Participant {
            anchor: Key::from(vec![1; 8 << 10]),
            shard: GroupId(2),
            term: Term::default(),
        };
        let participants = vec![participant; 100];
        let large = message(PeerBody::AskOrAbort { participants });
        let mut queue = Queue::default();
        while queue.push_peer(large.clone()) {}
        assert!((5..20).contains(&queue.peers), "{}", queue.peers);
        assert!(queue.push_peer(message(PeerBody::Ask)), "a small one fits");
    }

    #[test]
    fn large_requests_leave_no_room_behind_them() {
        let large = |number| ShardRequest {
            request: Request::LockedRead {
                attempt: AttemptId(number),
                priority: Priority::default(),
                client: ClientId(1),
                session: None,
                keys: vec![Key::from(vec![1; 8 << 20])],
                scan: None,
                mode: LockMode::Shared,
            },
            ..request()
        };
        let mut queue = Queue::default();
        let mut count = 0;
        while queue.has_room() {
            count += 1;
            queue.push_request(caller(count), large(count.into()));
        }
        assert_eq!(count, 8);
        queue.cancel(&BTreeSet::from([caller(3)]));
        assert!(queue.has_room());
        queue.push_request(caller(9), request());
        while queue.pop().is_some() {}
        assert_eq!(queue.request_bytes, 0);
    }
}
