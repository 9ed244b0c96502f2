//! A campaign: votes before it, phase 1 as its candidate, and what the winner
//! takes over (P3).

use crate::acceptor::ABSURD;
use crate::entry::{Entry, TermStart};
use crate::ids::{Ballot, Mono, NodeId, Slot, SupportEpoch, Timestamp};
use crate::leader::{FirstContact, Leader};
use crate::log::Taken;
use crate::message::{Message, NackReason};
use crate::replica::{Cx, Ignored, Replica, State};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use synod_probe::{Mark, Mutation, mark, mutated};

/// How often an unanswered Prepare is sent before the campaign is given up.
const MAX_TRIES: u32 = 4;

/// A campaign that runs.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Campaign {
    ballot: Ballot,
    /// Still asking for votes; nothing durable has changed.
    pub(crate) pre: bool,
    /// Its own `accepted`, `last` and decided slot, as sent in Prepare.
    base: (Ballot, Slot, Slot),
    relinquished: Option<Ballot>,
    votes: BTreeSet<NodeId>,
    refusals: BTreeSet<NodeId>,
    promises: BTreeMap<NodeId, Collected>,
    pub(crate) retry: Mono,
    tries: u32,
}

/// One elector's Promise, as far as its parts have arrived.
#[derive(Clone, Debug, Serialize)]
struct Collected {
    accepted: Ballot,
    last: Slot,
    decided: Slot,
    limit: Timestamp,
    /// Slot of `entries[0]`.
    first: Slot,
    entries: Vec<Entry>,
}

impl Collected {
    fn next(&self) -> Slot {
        Slot(self.first.0 + self.entries.len() as u64)
    }

    fn complete(&self) -> bool {
        self.next() > self.last
    }
}

impl Replica {
    /// Starts a campaign; with `pre`, by asking for votes first.
    pub(crate) fn start_campaign(&mut self, cx: &Cx<'_>, pre: bool) {
        let ballot = Ballot {
            epoch: self.configuration().epoch,
            round: self.ballot().round.max(self.election.round) + 1,
            priority: self.settings.priority,
            node: self.me,
        };
        let accepted = self.accepted();
        let campaign = Campaign {
            ballot,
            pre: true,
            base: (accepted, self.last(), self.decided()),
            relinquished: self.is_relinquished(accepted).then_some(accepted),
            votes: BTreeSet::from([self.me]),
            refusals: BTreeSet::new(),
            promises: BTreeMap::new(),
            retry: cx.now.plus(self.settings.retry_nanos),
            tries: 1,
        };
        self.state = State::Campaign(campaign);
        if !pre || self.configuration().majority() == 1 {
            self.start_phase_one(cx);
        } else {
            self.send_question();
        }
    }

    /// The campaign's PreVote or Prepare.
    fn question(&self) -> Option<Message> {
        let State::Campaign(campaign) = &self.state else {
            return None;
        };
        let (ballot, (accepted, last, decided)) = (campaign.ballot, campaign.base);
        let relinquished = campaign.relinquished;
        Some(if campaign.pre {
            Message::PreVote {
                ballot,
                accepted,
                last,
                decided,
                relinquished,
            }
        } else {
            Message::Prepare {
                ballot,
                accepted,
                last,
                decided,
                relinquished,
            }
        })
    }

    /// Asks all who have not answered.
    fn send_question(&mut self) {
        let Some(question) = self.question() else {
            return;
        };
        let State::Campaign(campaign) = &self.state else {
            return;
        };
        for to in self.log.durable.configuration.electors() {
            let answered = campaign.votes.contains(&to)
                || campaign.promises.get(&to).is_some_and(Collected::complete);
            if to == self.me || answered {
                continue;
            }
            if campaign.pre {
                self.out.send(to, question.clone());
            } else {
                // Once this replica's own promise is durable: a ballot that was
                // forgotten could be used twice.
                self.out.release(to, question.clone());
            }
        }
    }

    /// One elector could not answer before, and may now.
    pub(crate) fn ask_again(&mut self, to: NodeId) {
        if let Some(question) = self.question() {
            // Behind what helps it, and never before the own promise is durable.
            self.out.release(to, question);
        }
    }

    pub(crate) fn handle_prevote_reply(&mut self, cx: &Cx<'_>, from: NodeId, ballot: Ballot) {
        let State::Campaign(campaign) = &mut self.state else {
            return self.ignore(Ignored::Stale);
        };
        if !campaign.pre || campaign.ballot != ballot {
            return self.ignore(Ignored::Stale);
        }
        if !self.log.durable.configuration.is_elector(from) {
            return self.ignore(Ignored::NotElector);
        }
        campaign.votes.insert(from);
        if campaign.votes.len() >= self.log.durable.configuration.majority() {
            self.start_phase_one(cx);
        }
    }

    fn start_phase_one(&mut self, cx: &Cx<'_>) {
        let State::Campaign(campaign) = &self.state else {
            return;
        };
        let ballot = campaign.ballot;
        if ballot <= self.ballot() || self.refusal(cx, self.me, ballot).is_some() {
            return self.end_campaign();
        }
        self.log.durable.promised = ballot;
        if !mutated(Mutation::ForgetOwnPromise) {
            let record = crate::record::Record::Promised(ballot);
            self.out.records.push(record);
        }
        self.out.promised = Some(ballot);
        let (accepted, last, decided) = (self.accepted(), self.last(), self.decided());
        let State::Campaign(campaign) = &mut self.state else {
            return;
        };
        campaign.pre = false;
        campaign.votes.clear();
        campaign.refusals.clear();
        campaign.base = (accepted, last, decided);
        campaign.retry = cx.now.plus(self.settings.retry_nanos);
        campaign.tries = 1;
        self.send_question();
    }

    /// This replica's own promise counts once it is durable, like any other.
    pub(crate) fn promise_is_durable(&mut self, cx: &Cx<'_>, ballot: Ballot) {
        let limit = self.limit_to_report(cx, self.accepted());
        let State::Campaign(campaign) = &mut self.state else {
            return;
        };
        if campaign.pre || campaign.ballot != ballot {
            return;
        }
        let (accepted, last, decided) = campaign.base;
        let own = Collected {
            accepted,
            last,
            decided,
            limit,
            first: last.next(),
            entries: Vec::new(),
        };
        campaign.promises.insert(self.me, own);
        self.count_promises(cx);
    }

    pub(crate) fn handle_promise(&mut self, cx: &Cx<'_>, from: NodeId, message: Message) {
        let Message::Promise {
            ballot,
            accepted,
            last,
            decided,
            limit,
            first,
            entries,
            ..
        } = message
        else {
            return;
        };
        let absurd = last.0 > ABSURD
            || decided > last
            || first.0.saturating_add(entries.len() as u64) > last.0 + 1
            || accepted >= ballot;
        let elector = self.configuration().is_elector(from);
        if let State::Leader(leader) = &self.state
            && leader.ballot == ballot
            && leader.probes(from)
            && !absurd
        {
            // Too late to count, but it tells where this follower's sync begins.
            mark(Mark::LatePromise);
            return self.fill_gap(cx, from, decided);
        }
        let State::Campaign(campaign) = &mut self.state else {
            return self.ignore(Ignored::Stale);
        };
        if campaign.pre || campaign.ballot != ballot {
            return self.ignore(Ignored::Stale);
        }
        if absurd || !elector {
            return self.ignore(Ignored::Absurd);
        }
        let (my_accepted, my_last, my_decided) = campaign.base;
        let expected = if (accepted, last) <= (my_accepted, my_last) {
            last.next()
        } else if accepted == my_accepted {
            my_last.next()
        } else {
            my_decided.next()
        };
        let collected = campaign.promises.entry(from).or_insert_with(|| Collected {
            accepted,
            last,
            decided,
            limit,
            first: expected,
            entries: Vec::new(),
        });
        let next = collected.next();
        if (collected.accepted, collected.last) != (accepted, last) || first > next {
            return self.ignore(Ignored::OutOfOrder);
        }
        collected.limit = collected.limit.max(limit);
        let held = usize::try_from(next.0 - first.0).unwrap_or(usize::MAX);
        collected.entries.extend(entries.into_iter().skip(held));
        self.count_promises(cx);
    }

    fn count_promises(&mut self, cx: &Cx<'_>) {
        let State::Campaign(campaign) = &self.state else {
            return;
        };
        let complete = campaign.promises.values().filter(|p| p.complete()).count();
        // Without its own durable promise it would lead under a ballot it may forget.
        if complete >= self.configuration().majority() && campaign.promises.contains_key(&self.me) {
            self.win(cx);
        }
    }

    /// A majority promised: adopt the highest log, and lead (P3).
    fn win(&mut self, cx: &Cx<'_>) {
        let State::Campaign(campaign) = std::mem::replace(&mut self.state, State::Follower) else {
            return;
        };
        let mut promises = campaign.promises;
        promises.retain(|_, p| p.complete());
        let contacts: Vec<FirstContact> = self
            .configuration()
            .members()
            .filter(|n| *n != self.me)
            .map(|node| FirstContact {
                node,
                decided: promises.get(&node).map(|p| p.decided),
            })
            .collect();
        let floor = promises
            .values()
            .map(|p| self.used_under(p.accepted).unwrap_or(p.limit))
            .filter(|_| !mutated(Mutation::FloorBelowLimits))
            .max()
            .unwrap_or_default();
        // A slot that any of them knows to be decided is decided in the adopted log.
        let decided = promises.values().map(|p| p.decided).max();
        let founding = Ballot::founding(self.configuration().epoch);
        let foreign = promises.values().any(|p| p.accepted != founding);
        if foreign {
            // Somebody else has led in this configuration.
            self.lose_term();
        }
        if self.keeps.is_some() {
            mark(Mark::TermWentOn);
        }
        let term = self.keeps.unwrap_or(campaign.ballot);
        let own = promises.remove(&self.me);
        let best = promises
            .into_values()
            .max_by_key(|p| (p.accepted, p.last))
            .filter(|p| {
                own.as_ref()
                    .is_none_or(|o| (p.accepted, p.last) > (o.accepted, o.last))
            })
            .filter(|_| !mutated(Mutation::SkipAdoption));
        let (first, mut entries) = match best {
            Some(best) => {
                mark(Mark::AdoptedForeignSuffix);
                (best.first, best.entries)
            }
            None => (self.last().next(), Vec::new()),
        };
        let stop = self.adopted_stop(first, &entries);
        if stop.is_some() {
            mark(Mark::StopSignAdopted);
        }
        let (first, end) = match &stop {
            // Nothing is proposed after it: it is the sync's end, and carries what
            // a TermStart would.
            Some(sign) if entries.is_empty() => {
                entries.push(sign.clone());
                (self.last(), self.last())
            }
            Some(_) => (first, Slot(first.0 + entries.len() as u64 - 1)),
            None => {
                let end = Slot(first.0 + entries.len() as u64);
                entries.push(Entry::TermStart(Box::new(TermStart {
                    ballot: campaign.ballot,
                    term,
                    floor,
                })));
                (first, end)
            }
        };
        let sync = Some((first, end));
        if let Taken::Contradicts = self.log.accept(campaign.ballot, first, entries, sync) {
            self.lose_term();
            return self.ignore(Ignored::Contradicts);
        }
        self.keeps = None;
        assert_eq!(self.accepted(), campaign.ballot, "P3: the sync is complete");
        self.heard = SupportEpoch::NONE;
        let mut leader = Leader::new(
            campaign.ballot,
            first,
            end,
            contacts,
            cx.now.plus(self.lost_support_nanos()),
        );
        leader.term = term;
        let left = self.log.durable.left.iter();
        let soon = cx.now.plus(self.settings.retry_nanos);
        leader.parting = left.map(|node| (*node, (soon, 0))).collect();
        leader.stop = match stop {
            Some(Entry::StopSign(sign)) => Some(sign.limit),
            _ => None,
        };
        self.stop_helping();
        self.state = State::Leader(Box::new(leader));
        self.believe(cx, campaign.ballot, decided.unwrap_or_default());
        self.review_lease(cx);
    }

    /// The stop-sign at the end of the log that a new leader adopts, if there is
    /// one that nobody knows to be decided.
    fn adopted_stop(&self, first: Slot, entries: &[Entry]) -> Option<Entry> {
        let last = match entries.last() {
            Some(entry) => Some(entry),
            None if first == self.last().next() && self.last() > self.decided() => {
                self.entry(self.last())
            }
            None => None,
        };
        last.filter(|entry| matches!(entry, Entry::StopSign(_)))
            .cloned()
    }

    /// Back to following; the next campaign waits longer.
    pub(crate) fn end_campaign(&mut self) {
        if let State::Campaign(_) = self.state {
            self.state = State::Follower;
            self.election.deadline = None;
            self.lose_term();
        }
    }

    pub(crate) fn campaign_timeout(&mut self, cx: &Cx<'_>) {
        let retry = cx.now.plus(self.settings.retry_nanos);
        let may = self.may_campaign(cx);
        let State::Campaign(campaign) = &mut self.state else {
            return;
        };
        if campaign.retry > cx.now {
            return;
        }
        campaign.retry = retry;
        campaign.tries += 1;
        if campaign.pre || campaign.tries > MAX_TRIES || !may {
            mark(Mark::CampaignSilent);
            self.end_campaign();
        } else {
            mark(Mark::PrepareRepeated);
            self.send_question();
        }
    }

    /// A no to a PreVote or a Prepare.
    pub(crate) fn handle_campaign_nack(&mut self, from: NodeId, reason: NackReason) {
        let majority = self.configuration().majority();
        let electors = self.configuration().electors().count();
        let State::Campaign(campaign) = &mut self.state else {
            return;
        };
        let lost = match reason {
            NackReason::Promised(higher) if higher > campaign.ballot => {
                mark(Mark::Duel);
                self.election.round = self.election.round.max(higher.round.min(ABSURD));
                true
            }
            _ => {
                campaign.refusals.insert(from);
                campaign.refusals.len() > electors - majority
            }
        };
        if lost {
            mark(Mark::CampaignRefused);
            self.end_campaign();
        }
    }

    pub(crate) fn campaign_ballot(&self) -> Option<Ballot> {
        match &self.state {
            State::Campaign(campaign) => Some(campaign.ballot),
            _ => None,
        }
    }
}
