//! What clients and other shards' leaders ask: answered, refused, or kept until the office.

use super::{Now, Shard};
use crate::outbox::Outbox;
use crate::wire::ShardRequest;
use synod_paxos::lease::NodeLease;
use synod_probe::{Mark, mark};
use synod_txn::request::Refusal;
use synod_txn::{AttemptId, Caller, Key, Request, Response};

/// Bytes of versions that the engine has not applied yet, at most; past it
/// commits are refused as overloaded.
const MAX_UNAPPLIED_BYTES: usize = 64 << 20;
/// A commit is refused as overloaded while one proposed this long ago is not
/// decided: what is admitted is then served in about that time. Well above a
/// round trip around the world and the sync of any disk that works; nanoseconds.
const MAX_BACKLOG_NANOS: u64 = 500_000_000;
/// Retry hint of an overload answer; milliseconds.
const OVERLOAD_RETRY_MILLIS: u32 = 20;

impl Shard {
    /// A client's request. Answered at once, later, or (when the term ends) as
    /// not leader.
    pub(crate) fn handle_request(
        &mut self,
        now: Now,
        leases: &NodeLease,
        caller: Caller,
        request: ShardRequest,
        out: &mut Outbox,
    ) {
        if !self.owns(&request.request) {
            out.reply_wrong_node(caller, Shard::wrong_node(Some(&self.descriptor)));
            return;
        }
        // Only who is in office knows what was proposed: before, this may be a copy of an entry that
        // was, in an earlier term.
        if self.office.is_some()
            && let Some(refusal) = self.refuse(now, &request.request)
        {
            out.reply(caller, refusal);
            return;
        }
        if let Some(response) = self.answer_before_end(&request.request) {
            return out.reply(caller, response);
        }
        if self.office.is_some() && !self.pauses() {
            let hashing = request.hashing.as_deref();
            if let Some(refusal) = self.check_mapping(hashing, &request.request) {
                return out.reply(caller, Response::Refused(refusal));
            }
            let cx = self.txn_cx(now, leases);
            self.group.handle_request(&cx, caller, request.request);
        } else if self.leads() && self.waiting.has_room() {
            mark(Mark::WaitedForOffice);
            self.waiting.push_request(caller, request);
        } else {
            out.reply(caller, self.not_leader());
        }
    }

    /// Whether messages of other shards' leaders are for this replica: it is in office or about to be,
    /// as far as it knows.
    pub(crate) fn takes_peers(&self) -> bool {
        let is_about_to = || {
            let goes_on = !self.handing_over && !self.has_ended();
            self.leads() && goes_on && self.replica.left_behind_by().is_none()
        };
        self.office.is_some() || is_about_to()
    }

    /// A message of another shard's leader; one that comes before the office waits for it.
    pub(crate) fn handle_peer(
        &mut self,
        now: Now,
        leases: &NodeLease,
        message: synod_txn::PeerMessage,
    ) {
        if self.office.is_none() || self.pauses() {
            // Where there is no room its owner's next one will do.
            if self.waiting.push_peer(message) && self.office.is_none() {
                mark(Mark::PeerWaitedForOffice);
            }
            return;
        }
        if !self.is_anchor_here(&message) {
            return;
        }
        let cx = self.txn_cx(now, leases);
        self.group.handle_peer(&cx, message);
    }

    /// The anchor of an attempt's coordinator is another shard's than its intent here names.
    pub(crate) fn coordinator_moved(
        &mut self,
        now: Now,
        leases: &NodeLease,
        attempt: AttemptId,
        anchor: &Key,
    ) {
        // Else the next vote tells.
        if self.office.is_some() && !self.pauses() {
            let cx = self.txn_cx(now, leases);
            self.group.handle_coordinator_moved(&cx, attempt, anchor);
        }
    }

    pub(super) fn not_leader(&self) -> Response {
        let hint = self.replica.leader().filter(|n| *n != self.replica.me());
        Response::Refused(Refusal::NotLeader { hint })
    }

    /// What is refused before the transaction machine sees it.
    fn refuse(&mut self, now: Now, request: &Request) -> Option<Response> {
        let Request::Commit(commit) = request else {
            return None;
        };
        let late = self.backlog.age(self.replica.decided(), now.mono) > MAX_BACKLOG_NANOS;
        let full = self.replica.undecided_full();
        let overloaded = late || full || self.group.overlay_bytes() > MAX_UNAPPLIED_BYTES;
        // It says that nothing was proposed: of a copy that is not true.
        if overloaded && !self.group.has_met(commit.attempt) {
            let refusal = Refusal::overloaded(OVERLOAD_RETRY_MILLIS, request.weight());
            return Some(Response::Refused(refusal));
        }
        None
    }
}
