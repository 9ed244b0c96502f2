//! Delivering a request to the leader of a shard, wherever it is by now.
//!
//! | what comes back | what is done |
//! |---|---|
//! | an answer | learn leader, term and clock from it; done |
//! | `NotLeader`, or another term than expected | the hinted node, else the next replica; a pause after each round, see below |
//! | `Overloaded`, `Clock` | the same node, after a pause |
//! | `WrongNode`, `WrongShard` | the members and range it tells are taken over, or the map is fetched; if what is asked for is not all the shard's any more, the caller must know |
//! | `OtherSharding` | how the shard's keys are stored is taken over, and the caller must map its keys anew |
//! | no connection | the next replica |
//! | a lost connection, or silence | as no connection; but a Commit that may have arrived is the machine's business |
//!
//! While a leader is silent the other replicas are asked who leads (`Locate`),
//! by one caller for all that wait: a leader killed or cut off is left as soon
//! as there is a new one, and one that only waits for locks is left alone. Where
//! a round over all replicas finds no leader, one caller goes round again for all:
//! the others wait until it has found one, so that an election is not held under
//! a storm of their questions.

use crate::core::Core;
use crate::table::{Table, Tour};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use synod_paxos::{GroupId, NodeId, Term};
use synod_rpc::{CallError, ServerBody};
use synod_shard::{ShardDescriptor, ShardReply, ShardRequest};
use synod_txn::client::{Outgoing, Reply};
use synod_txn::request::Refusal;
use synod_txn::{Hashing, Outcome, Request, Response};

/// The longest pause between two rounds over all replicas.
const LONGEST_PAUSE: Duration = Duration::from_millis(50);
/// The longest pause that an overloaded node is given.
const LONGEST_OVERLOAD: Duration = Duration::from_secs(10);
/// A request on its way is given a second for so many bytes.
const PACE: f64 = (1 << 20) as f64;
/// How long a question who leads may take.
const PROBE_TIMEOUT: Duration = Duration::from_millis(200);
/// After the first silence the questions come this much more often.
const PROBES: u32 = 3;

/// What became of one call to one node.
enum Called {
    /// The node answered.
    Answer(ShardReply),
    /// It did not.
    Failed(CallError),
    /// Another node was found to lead while waiting.
    Superseded(NodeId),
}

/// A request of a transaction on its way. A Commit goes on if nobody waits for it any more, whatever
/// the first answer may be.
pub(crate) struct Delivery<'a> {
    core: &'a Core,
    asked: ShardRequest,
    answered: bool,
    /// Whether the call that it belongs to has its result.
    over: &'a AtomicBool,
}

impl Delivery<'_> {
    pub(crate) fn new<'a>(
        core: &'a Core,
        outgoing: Outgoing,
        over: &'a AtomicBool,
    ) -> Delivery<'a> {
        Delivery {
            core,
            asked: asked_by(outgoing),
            answered: false,
            over,
        }
    }

    /// Until the deadline.
    pub(crate) async fn deliver(mut self, deadline: Instant) -> Reply {
        let reply = self.core.deliver_asked(&mut self.asked, deadline).await;
        self.answered = true;
        reply
    }
}

impl Drop for Delivery<'_> {
    fn drop(&mut self) {
        let commits = matches!(self.asked.request, Request::Commit(_));
        if commits && !self.answered && !self.over.load(Ordering::Relaxed) {
            self.core.chore(self.asked.clone());
        }
    }
}

/// What a transaction asks.
pub(crate) fn asked_by(outgoing: Outgoing) -> ShardRequest {
    asked(outgoing.shard, outgoing.hashing, outgoing.request)
}

/// The request as shards take it, but for the generation.
fn asked(shard: GroupId, hashing: Option<Hashing>, request: Request) -> ShardRequest {
    ShardRequest {
        shard,
        generation: 0,
        request,
        hashing: hashing.map(Box::new),
    }
}

impl Core {
    /// Deliver a request about no keys, or plain ones, until the deadline.
    pub(crate) async fn deliver(
        &self,
        shard: GroupId,
        request: &Request,
        deadline: Instant,
    ) -> Reply {
        self.deliver_mapped(shard, None, request.clone(), deadline)
            .await
    }

    /// Deliver a request whose keys went through the mapping of a hashed directory, until the
    /// deadline.
    pub(crate) async fn deliver_mapped(
        &self,
        shard: GroupId,
        hashing: Option<Hashing>,
        request: Request,
        deadline: Instant,
    ) -> Reply {
        let mut asked = asked(shard, hashing, request);
        self.deliver_asked(&mut asked, deadline).await
    }

    /// Deliver a request until the deadline; the generation asked for is filled in.
    pub(crate) async fn deliver_asked(&self, asked: &mut ShardRequest, deadline: Instant) -> Reply {
        let shard = asked.shard;
        let commits = matches!(asked.request, Request::Commit(_));
        let mut table = self.table();
        let mut looks = 0;
        let Some(known) = table.shards.get(&shard) else {
            return Reply::Moved;
        };
        let mut tour = Tour::new(known);
        // Whether a copy may have been handled without us hearing of it.
        let mut maybe = false;
        loop {
            if self.members_changed(shard, &asked.request, &mut table, &mut tour) == Members::Moved
            {
                return moved(commits, maybe);
            }
            let (target, failed_round) = tour.target();
            if failed_round {
                self.survey_maps();
                match self.look(&table, shard, &mut looks, deadline).await {
                    Looked::TurnToSearch => {}
                    Looked::Found(leader) => {
                        let latest = self.table();
                        if latest.generation(shard) == table.generation(shard) {
                            table = latest;
                        }
                        tour.stay(leader);
                        continue;
                    }
                    Looked::Late => return given_up(maybe),
                }
            }
            asked.generation = table.generation(shard);
            match self.call(&table, target, asked, deadline).await {
                // It waited there while its keys became another shard's, and was not handled.
                Called::Answer(ShardReply::Response(Response::Refused(Refusal::WrongShard))) => {
                    let from = table.nodes.get(&target).copied();
                    self.refresh(from).await;
                }
                Called::Answer(ShardReply::Response(Response::Refused(
                    Refusal::OtherSharding { hashing },
                ))) => {
                    self.learn_hashing(shard, hashing.clone());
                    if commits && !maybe {
                        let refusal = Refusal::OtherSharding { hashing };
                        return Reply::Answer(Response::Refused(refusal));
                    }
                    return Reply::Moved;
                }
                Called::Answer(ShardReply::Response(response)) => {
                    match self.judge(&table, shard, target, &response) {
                        Verdict::Answer => return Reply::Answer(response),
                        Verdict::Elsewhere(hint) => {
                            // A leader that was deposed answers so too, and what it
                            // had proposed may still be decided by its successor.
                            maybe |= commits;
                            tour.hint(hint);
                        }
                        Verdict::Later(pause) => {
                            if !self.pause(pause, deadline).await {
                                return given_up(maybe);
                            }
                            tour.stay(target);
                        }
                    }
                }
                Called::Answer(ShardReply::WrongNode(descriptor)) => {
                    self.learn_from(&table, target, descriptor.as_deref()).await;
                }
                Called::Superseded(leader) => {
                    if commits {
                        return Reply::Lost;
                    }
                    maybe = true;
                    tour.stay(leader);
                }
                Called::Failed(error) => {
                    tracing::trace!(%shard, %target, %error, "no answer");
                    maybe |= error.maybe_sent();
                    if matches!(error, CallError::TooLarge) {
                        let refusal = Refusal::Invalid(error.to_string());
                        return Reply::Answer(Response::Refused(refusal));
                    }
                    if commits && error.maybe_sent() {
                        return Reply::Lost;
                    }
                    if matches!(error, CallError::Closed) || Instant::now() >= deadline {
                        return given_up(maybe);
                    }
                }
            }
        }
    }

    /// A node is none of the shard's members, or what was asked for is not all the shard's;
    /// it tells what it knows.
    async fn learn_from(&self, table: &Table, node: NodeId, told: Option<&ShardDescriptor>) {
        match told {
            Some(told) if told.generation <= table.generation(told.id) => {}
            Some(told) => {
                // Of a split it has told one half; it knows the other, too.
                if !self.learn_shard(told) {
                    self.refresh(table.nodes.get(&node).copied()).await;
                }
            }
            None => self.refresh(None).await,
        }
    }

    /// Takes over what is known by now of the shard's members and range. (Who leads among
    /// other members is known along with them.)
    fn members_changed(
        &self,
        shard: GroupId,
        request: &Request,
        table: &mut Arc<Table>,
        tour: &mut Tour,
    ) -> Members {
        let latest = self.table();
        if !latest.owns(shard, request) {
            return Members::Moved;
        }
        if latest.generation(shard) == table.generation(shard) {
            return Members::Same;
        }
        *table = latest;
        match table.shards.get(&shard) {
            Some(other) => {
                tour.renew(other);
                Members::Other
            }
            None => Members::Moved,
        }
    }

    /// No replica leads: wait until somebody else finds the leader, or it is this
    /// caller's turn to go round the replicas.
    async fn look(
        &self,
        table: &Table,
        shard: GroupId,
        looks: &mut u32,
        deadline: Instant,
    ) -> Looked {
        loop {
            let news = self.news.notified();
            *looks += 1;
            let pause = round_pause(*looks);
            let until = Instant::now() + pause;
            if until >= deadline {
                return Looked::Late;
            }
            let paused = tokio::select! {
                () = news => false,
                () = tokio::time::sleep_until(until.into()) => true,
            };
            if let Some(leader) = self.table().newer_leader(table, shard) {
                return Looked::Found(leader);
            }
            if paused && self.may_search(shard, pause / 2) {
                return Looked::TurnToSearch;
            }
        }
    }

    /// Sleep; false if the deadline comes first.
    async fn pause(&self, pause: Duration, deadline: Instant) -> bool {
        let until = Instant::now() + pause;
        if until >= deadline {
            return false;
        }
        tokio::time::sleep_until(until.into()).await;
        true
    }

    /// One call to one node; while it is silent the others are asked who leads.
    async fn call(
        &self,
        table: &Arc<Table>,
        target: NodeId,
        asked: &ShardRequest,
        deadline: Instant,
    ) -> Called {
        let shard = asked.shard;
        let Some(&address) = table.nodes.get(&target) else {
            return Called::Answer(ShardReply::WrongNode(None));
        };
        let travel = Duration::from_secs_f64(asked.request.weight() as f64 / PACE);
        let until = deadline.min(Instant::now() + self.config.attempt_timeout + travel);
        let mut call = pin!(self.transport.call_shard(address, asked, until));
        let replicas = table.shards.get(&shard).map_or(&[][..], |s| &s.replicas);
        let mut others = replicas.iter().copied().filter(|&id| id != target).cycle();
        let interval = self.config.probe_after / PROBES;
        let mut silence = self.config.probe_after;
        loop {
            tokio::select! {
                biased;
                answer = &mut call => return called(answer),
                () = tokio::time::sleep(silence) => {}
            }
            silence = interval;
            let latest = self.table();
            if latest.generation(shard) != table.generation(shard)
                && let Some(other) = latest.shards.get(&shard)
                && other.leader != target
            {
                return Called::Superseded(other.leader);
            }
            // Somebody else may have found the new leader meanwhile.
            if let Some(leader) = self.table().newer_leader(table, shard)
                && leader != target
            {
                return Called::Superseded(leader);
            }
            if !self.may_probe(shard, interval) {
                continue;
            }
            let Some(other) = others.next() else {
                continue;
            };
            tokio::select! {
                biased;
                answer = &mut call => return called(answer),
                leads = self.leads(table, shard, other) => {
                    if leads {
                        return Called::Superseded(other);
                    }
                }
            }
        }
    }

    /// Whether this node leads the shard.
    async fn leads(&self, table: &Arc<Table>, shard: GroupId, node: NodeId) -> bool {
        let Some(&address) = table.nodes.get(&node) else {
            return false;
        };
        let asked = ShardRequest {
            shard,
            generation: table.generation(shard),
            request: Request::Locate,
            hashing: table.hashing(shard).cloned().map(Box::new),
        };
        let until = Instant::now() + PROBE_TIMEOUT;
        let answer = self.transport.call_shard(address, &asked, until).await;
        match called(answer) {
            Called::Answer(ShardReply::Response(response @ Response::Located { term, .. })) => {
                self.judge(table, shard, node, &response);
                !self.table().is_over(shard, term)
            }
            // Only who leads says how keys are stored.
            Called::Answer(ShardReply::Response(
                response @ Response::Refused(Refusal::OtherSharding { .. }),
            )) => {
                self.judge(table, shard, node, &response);
                true
            }
            // It was a member once, and knows who is one now.
            Called::Answer(ShardReply::WrongNode(Some(descriptor))) => {
                self.learn_shard(&descriptor);
                false
            }
            _ => false,
        }
    }

    /// What a leader's, or not-leader's, answer means for the search of the leader.
    fn judge(&self, table: &Table, shard: GroupId, from: NodeId, response: &Response) -> Verdict {
        let learn = |term: Option<Term>| self.learn(table, shard, from, term);
        match response {
            Response::Refused(refusal) => match refusal {
                Refusal::NotLeader { hint } => return Verdict::Elsewhere(*hint),
                Refusal::WrongTerm {
                    last_word: false, ..
                } => return Verdict::Elsewhere(None),
                Refusal::Overloaded { retry_after_millis } => {
                    let pause = Duration::from_millis(u64::from(*retry_after_millis).max(1));
                    let pause = pause.min(LONGEST_OVERLOAD);
                    // Between half and all of the hint, so that not all come back at once.
                    return Verdict::Later(pause.mul_f32(0.5 + rand::random::<f32>() / 2.0));
                }
                Refusal::Clock => return Verdict::Later(LONGEST_PAUSE),
                Refusal::WrongTerm { current, .. } => learn(Some(*current)),
                Refusal::AttemptTime { now, .. } => {
                    learn(None);
                    self.learn_clock(*now);
                }
                Refusal::Aborted(_)
                | Refusal::WrongShard
                | Refusal::OtherSharding { .. }
                | Refusal::Invalid(_) => learn(None),
            },
            Response::Outcome {
                outcome: Outcome::Committed(timestamp),
                ..
            } => {
                learn(None);
                self.learn_commit(*timestamp);
            }
            Response::Read { term, now, .. } | Response::Located { term, now } => {
                learn(Some(*term));
                self.learn_clock(*now);
            }
            _ => learn(None),
        }
        Verdict::Answer
    }
}

/// Whether a shard has other members than when last looked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Members {
    Same,
    Other,
    /// Its range is another one, too, and what is asked for is not all within.
    Moved,
}

/// What became of the wait for a leader.
enum Looked {
    /// Nobody has found one; this caller searches.
    TurnToSearch,
    /// Somebody found it.
    Found(NodeId),
    /// The deadline comes first.
    Late,
}

enum Verdict {
    /// It answers the request.
    Answer,
    /// Another node leads.
    Elsewhere(Option<NodeId>),
    /// The same node, after a pause.
    Later(Duration),
}

fn called(answer: Result<ServerBody, CallError>) -> Called {
    match answer {
        Ok(ServerBody::Shard(reply)) => Called::Answer(reply),
        // Of the wrong kind: as if the node did not know the shard.
        Ok(ServerBody::Node(_)) => Called::Answer(ShardReply::WrongNode(None)),
        Err(error) => Called::Failed(error),
    }
}

const fn given_up(maybe: bool) -> Reply {
    if maybe { Reply::Lost } else { Reply::Unsent }
}

/// A Commit that nobody can have let in is over: it need not wait for the others' word.
const fn moved(commits: bool, maybe: bool) -> Reply {
    if commits && !maybe {
        Reply::Unsent
    } else {
        Reply::Moved
    }
}

fn round_pause(rounds: u32) -> Duration {
    let pause = Duration::from_millis(2) * 2u32.pow(rounds.min(6));
    pause
        .min(LONGEST_PAUSE)
        .mul_f32(0.5 + rand::random::<f32>() / 2.0)
}
