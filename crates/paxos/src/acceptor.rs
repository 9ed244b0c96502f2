//! The elector and acceptor: what a replica promises, accepts and refuses
//! (P1, P4, P5, L2, L3, L5).

use crate::entry::Entry;
use crate::ids::{Ballot, NodeId, Round, Slot, SupportEpoch, Timestamp};
use crate::log::Taken;
use crate::message::{Message, NackReason};
use crate::record::Record;
use crate::replica::{Cx, Ignored, Replica, State};
use synod_probe::{Mark, Mutation, mark, mutated};

/// Slots and rounds from outside lie below this, so that adding to them never overflows.
pub(crate) const ABSURD: u64 = 1 << 62;

/// The body of an Accept.
pub(crate) struct Part {
    pub(crate) first: Slot,
    pub(crate) entries: Vec<Entry>,
    pub(crate) decided: Slot,
    pub(crate) sync: Option<(Slot, Slot)>,
    pub(crate) round: Round,
}

impl Part {
    pub(crate) fn is_absurd(&self) -> bool {
        let after = self.first.0.saturating_add(self.entries.len() as u64);
        let sync = self.sync.is_some_and(|(first, end)| {
            let within = self.first > end || after <= end.0.saturating_add(1);
            end.0 > ABSURD || self.first < first || !within
        });
        self.first.0 == 0 || after > ABSURD || self.decided.0 > ABSURD || sync
    }
}

/// A candidate's question, the same in PreVote and Prepare.
#[derive(Clone, Copy)]
struct Question {
    pre: bool,
    ballot: Ballot,
    accepted: Ballot,
    last: Slot,
    decided: Slot,
}

impl Replica {
    pub(crate) fn is_relinquished(&self, ballot: Ballot) -> bool {
        self.given_up(ballot).is_some()
    }

    /// Whether `ballot` is known to be given up, and with what used under it.
    fn given_up(&self, ballot: Ballot) -> Option<Option<Timestamp>> {
        [self.relinquished_accepted, self.relinquished]
            .into_iter()
            .flatten()
            .find_map(|(known, used)| (known == ballot).then_some(used))
    }

    /// The highest timestamp used under `ballot`, if it was given up with that.
    pub(crate) fn used_under(&self, ballot: Ballot) -> Option<Timestamp> {
        self.given_up(ballot).flatten()
    }

    /// Keeps the highest ballot given up, and `accepted` if it is, for whose sake
    /// this replica would refuse others; and what was used under them.
    pub(crate) fn note_relinquished(&mut self, ballot: Ballot, used: Option<Timestamp>) {
        if let State::Leader(leader) = &self.state
            && leader.ballot == ballot
        {
            return;
        }
        let used = used.or(self.used_under(ballot));
        let accepted = self.accepted();
        if let Some(highest) = self.relinquished
            && highest.0 == accepted
        {
            self.relinquished_accepted = Some(highest);
        }
        if ballot == accepted {
            self.relinquished_accepted = Some((ballot, used));
        }
        if self.relinquished.is_none_or(|(known, _)| known <= ballot) {
            self.relinquished = Some((ballot, used));
        }
    }

    /// L3: the ballot for whose sake this elector refuses candidates other than
    /// its node: accepted, not given up, of this configuration, and its node
    /// still supported, in the incarnation that led if that is known.
    #[must_use]
    pub fn supported_ballot(&self, cx: &Cx<'_>) -> Option<Ballot> {
        let accepted = self.accepted();
        if accepted.epoch != self.configuration().epoch || self.is_relinquished(accepted) {
            return None;
        }
        if accepted.node == self.me && self.term_ballot() != Some(accepted) {
            return None;
        }
        let support = cx.leases.supports(accepted.node, cx.now)?;
        let same = self.heard == SupportEpoch::NONE || self.heard.holder == support.holder;
        same.then_some(accepted)
    }

    /// Why this elector would not promise `ballot` to `candidate`, if so.
    pub(crate) fn refusal(
        &self,
        cx: &Cx<'_>,
        candidate: NodeId,
        ballot: Ballot,
    ) -> Option<NackReason> {
        if ballot < self.ballot() {
            return Some(NackReason::Promised(self.ballot()));
        }
        if cx.leases.abstains(cx.now) {
            mark(Mark::NackAbstains);
            return Some(NackReason::Abstains);
        }
        let supported = self.supported_ballot(cx)?;
        (supported.node != candidate).then_some(NackReason::Supports(supported))
    }

    /// PreVote and Prepare.
    pub(crate) fn handle_candidate(&mut self, cx: &Cx<'_>, from: NodeId, message: Message) {
        let pre = matches!(message, Message::PreVote { .. });
        let (Message::PreVote {
            ballot,
            accepted,
            last,
            decided,
            relinquished,
        }
        | Message::Prepare {
            ballot,
            accepted,
            last,
            decided,
            relinquished,
        }) = message
        else {
            return;
        };
        if ballot.node != from {
            return self.ignore(Ignored::WrongNode);
        }
        if last.0 > ABSURD || decided > last || ballot.round > ABSURD {
            return self.ignore(Ignored::Absurd);
        }
        if !self.configuration().is_elector(self.me) || !self.configuration().is_voter(from) {
            return self.ignore(Ignored::NotElector);
        }
        if let Some(given_up) = relinquished {
            self.note_relinquished(given_up, None);
        }
        let followed = self.accepted();
        if followed.node == from && followed < ballot {
            // Who campaigns does not lead any more. A message from before its restart may have
            // been taken for one of its present incarnation; and the log it asks with may be too old for
            // anybody to promise, so that somebody else has to campaign (L3).
            self.heard = SupportEpoch::NONE;
        }
        let question = Question {
            pre,
            ballot,
            accepted,
            last,
            decided,
        };
        self.answer_candidate(cx, from, question);
    }

    fn answer_candidate(&mut self, cx: &Cx<'_>, from: NodeId, q: Question) {
        if let Some(reason) = self.refusal(cx, from, q.ballot) {
            if let NackReason::Supports(supported) = reason
                && supported.node != self.me
            {
                mark(Mark::NackSupports);
                let contested = Message::Contested { ballot: supported };
                self.out.send(supported.node, contested);
            }
            return self.nack(from, q.ballot, reason);
        }
        if q.ballot == self.ballot() && (q.pre || self.accepted() == q.ballot) {
            // The candidate has these promises already, or leads under them.
            return self.ignore(Ignored::Repeated);
        }
        let Some(first) = self.promise_from(q) else {
            mark(Mark::PromiseTrimmed);
            if !self.may_campaign(cx) {
                // Who could send the state as a leader will not become one here.
                self.help_by_snapshot(cx, from);
            }
            return self.nack(from, q.ballot, NackReason::Trimmed(self.trimmed()));
        };
        if q.pre {
            let reply = Message::PreVoteReply { ballot: q.ballot };
            return self.out.send(from, reply);
        }
        self.raise_promised(cx, q.ballot);
        self.release_promise(cx, from, q.ballot, first);
    }

    /// The first slot a Promise has to carry (after `last` if it needs none), or
    /// none if that is trimmed here.
    fn promise_from(&self, q: Question) -> Option<Slot> {
        let mine = (self.accepted(), self.last());
        if mine <= (q.accepted, q.last) {
            return Some(self.last().next());
        }
        let first = if mine.0 == q.accepted {
            q.last.next()
        } else {
            q.decided.next()
        };
        (first > self.trimmed()).then_some(first)
    }

    /// Promises `ballot` (P1); whatever this replica led or campaigned for ends.
    pub(crate) fn raise_promised(&mut self, cx: &Cx<'_>, ballot: Ballot) {
        if ballot <= self.ballot() {
            return;
        }
        self.yield_to_higher(cx);
        self.log.durable.promised = ballot;
        if !mutated(Mutation::ForgetPromise) {
            self.out.records.push(Record::Promised(ballot));
        }
        // The new candidate gets its time before anybody else tries.
        self.election.deadline = None;
    }

    fn release_promise(&mut self, cx: &Cx<'_>, to: NodeId, ballot: Ballot, mut first: Slot) {
        let accepted = self.accepted();
        let limit = self.limit_to_report(cx, accepted);
        let last = self.last();
        loop {
            let (entries, _) = self.log.batch(first, last, self.settings.message_bytes);
            let after = Slot(first.0 + entries.len() as u64);
            let more = after <= last;
            if more {
                mark(Mark::PromiseInParts);
            }
            self.out.release(
                to,
                Message::Promise {
                    ballot,
                    accepted,
                    last,
                    decided: self.decided(),
                    limit,
                    first,
                    entries,
                    more,
                },
            );
            if !more {
                return;
            }
            first = after;
        }
    }

    /// L4: the highest limit granted to the node of `accepted`, or what was used
    /// under it if that is known.
    pub(crate) fn limit_to_report(&self, cx: &Cx<'_>, accepted: Ballot) -> Timestamp {
        self.used_under(accepted)
            .unwrap_or_else(|| cx.leases.granted_limit(accepted.node))
    }

    pub(crate) fn handle_accept(&mut self, cx: &Cx<'_>, from: NodeId, ballot: Ballot, part: Part) {
        if ballot.node != from {
            return self.ignore(Ignored::WrongNode);
        }
        if part.is_absurd() || ballot.round > ABSURD {
            return self.ignore(Ignored::Absurd);
        }
        let acceptable = mutated(Mutation::AcceptBelowPromise) && ballot >= self.accepted();
        if ballot < self.ballot() && !acceptable {
            mark(Mark::StaleLeaderRefused);
            return self.nack(from, ballot, NackReason::Promised(self.ballot()));
        }
        // A leader was promised this ballot by a majority, so nobody whose lease
        // could still count leads under a lower one: following is always safe.
        self.raise_promised(cx, ballot);
        self.end_campaign();
        if self.is_full && self.trims_nothing() {
            if self.lacks_data() {
                mark(Mark::FullWithoutData);
            }
            self.ignore(Ignored::Full);
            // Longer than the leader leaves alone who does not answer: who is asked for data is it,
            // not everybody.
            self.wait_for_campaign(
                cx,
                crate::progress::longest_silence(self.settings.retry_nanos),
            );
            return self.ask_for_snapshot(cx, from, ballot);
        }
        let support = cx
            .leases
            .supports(from, cx.now)
            .unwrap_or(SupportEpoch::NONE);
        let (decided, round) = (part.decided, part.round);
        let syncs = part.sync.is_some() && self.accepted() != ballot;
        if mutated(Mutation::BelieveForeignDecided) {
            self.believe(cx, ballot, decided);
        }
        let taken = (syncs || !part.entries.is_empty()).then(|| self.store(ballot, part));
        if let Some(Taken::Contradicts) = taken {
            // No answer: no log that this node can send would be taken.
            return self.ignore(Ignored::Contradicts);
        }
        if let Some(Taken::Gap(_)) = taken {
            mark(Mark::AcceptGap);
            let gap = NackReason::Gap(self.log.durable.wanted_after(ballot));
            self.nack(from, ballot, gap);
        } else if self.accepted() == ballot {
            let last = self.last();
            self.believe(cx, ballot, decided);
            if self.accepted() == ballot {
                self.heard = self.heard.max(support);
            }
            let accepted = Message::Accepted {
                ballot,
                last,
                support,
                round,
                data: !self.lacks_data(),
            };
            self.out.release(from, accepted);
        } else {
            // Says how far the sync has come; only a hint, but it must not
            // outrun the disk, or a restart would look like a loss.
            let reason = NackReason::Gap(self.log.durable.wanted_after(ballot));
            self.out.release(from, Message::Nack { ballot, reason });
        }
        self.be_patient(cx);
        self.ask_for_snapshot(cx, from, ballot);
    }

    /// Puts entries into the log or the staged sync.
    pub(crate) fn store(&mut self, ballot: Ballot, part: Part) -> Taken {
        let Part {
            first,
            entries,
            decided,
            sync,
            ..
        } = part;
        let unproven = self.accepted() != ballot && first > self.decided().next();
        let begun = matches!(&self.log.durable.staging, Some(s) if s.ballot == ballot);
        if unproven && !begun {
            // Only the decided prefix is known to agree with the new leader's log.
            return Taken::Gap(self.decided());
        }
        let copy = entries.clone();
        let taken = self.log.accept(ballot, first, entries, sync);
        let (Taken::Appended(fresh) | Taken::Staged(fresh) | Taken::Completed(fresh)) = taken
        else {
            return taken;
        };
        if let Taken::Completed(_) = taken {
            self.heard = SupportEpoch::NONE;
        }
        let held = usize::try_from(fresh.0 - first.0).unwrap_or(usize::MAX);
        if held > 0 && !copy.is_empty() {
            mark(Mark::EntriesAgain);
        }
        if let Taken::Staged(_) = taken {
            mark(Mark::SyncInParts);
        }
        let entries: Vec<Entry> = copy.into_iter().skip(held).collect();
        if !entries.is_empty() || matches!(taken, Taken::Completed(_)) {
            self.out.records.push(Record::Accept {
                ballot,
                first: fresh,
                entries,
                decided,
                sync,
            });
        }
        taken
    }

    pub(crate) fn handle_decided(&mut self, cx: &Cx<'_>, from: NodeId, ballot: Ballot, slot: Slot) {
        if ballot.node != from {
            return self.ignore(Ignored::WrongNode);
        }
        if ballot != self.accepted() && !mutated(Mutation::BelieveForeignDecided) {
            return self.ignore(Ignored::Stale);
        }
        self.believe(cx, ballot, slot);
    }

    /// L3: somebody else wants to lead, and `from` refuses for this node's sake.
    pub(crate) fn handle_contested(&mut self, cx: &Cx<'_>, from: NodeId, ballot: Ballot) {
        if ballot.node != self.me {
            return self.ignore(Ignored::WrongNode);
        }
        if self.term_ballot() == Some(ballot) {
            mark(Mark::ContestedShown);
            return self.show_leadership(cx, from);
        }
        mark(Mark::ContestedRelinquished);
        if self.ballot() == ballot {
            // Never claim it again, not even by a campaign that still runs.
            self.end_campaign();
        }
        self.note_relinquished(ballot, None);
        let used = self.used_under(ballot);
        self.tell_electors(&Message::Relinquish { ballot, used });
    }

    pub(crate) fn tell_electors(&mut self, message: &Message) {
        let electors: Vec<NodeId> = self.configuration().electors().collect();
        for node in electors {
            if node != self.me {
                self.out.send(node, message.clone());
            }
        }
    }

    pub(crate) fn handle_relinquish(
        &mut self,
        cx: &Cx<'_>,
        from: NodeId,
        ballot: Ballot,
        used: Option<Timestamp>,
    ) {
        if ballot.node != from {
            return self.ignore(Ignored::WrongNode);
        }
        let news = !self.is_relinquished(ballot);
        self.note_relinquished(ballot, used);
        if news && ballot == self.accepted() {
            mark(Mark::RelinquishHeard);
            self.campaign_soon(cx);
        }
    }
}
