//! Sessions: an attempt's stay in this shard during one term. Losing any of
//! its locks ends it, and what names an ended session is refused.

use super::memory::No;
use super::office::{Active, Phase, Progress, Timer};
use super::times::of_nanos;
use super::waiting::Waiting;
use super::{Cx, Group};
use crate::effect::Effect;
use crate::locks::{Age, Stage};
use crate::peer::PeerBody;
use crate::request::{Refusal, Response};
use crate::types::{AbortReason, AttemptId, Caller, ClientId, Priority, SessionId};
use std::collections::BTreeSet;
use synod_paxos::{Mono, Term};
use synod_probe::{Mark, Mutation, mark, mutated};

impl Group {
    /// Finds or opens the session of a locked read.
    pub(super) fn enter_session(
        &mut self,
        cx: &Cx,
        attempt: AttemptId,
        priority: Priority,
        client: ClientId,
        named: Option<(Term, SessionId)>,
    ) -> Result<SessionId, Refusal> {
        // A read that comes after its attempt has ended and was forgotten may open
        // a session once more: no Commit names that one, and it ends for silence.
        let floor = self.session_floor();
        let untimely = (attempt.millis() < floor || self.is_ahead(cx, attempt, false))
            .then(|| self.refuse_time(cx, false));
        let settings = &self.settings;
        let state = &self.state;
        let Some(office) = self.office.as_deref_mut() else {
            return Err(Refusal::NotLeader { hint: None });
        };
        if named.is_some_and(|(term, _)| term != office.term) {
            return Err(Refusal::Aborted(AbortReason::TermEnded));
        }
        let ended = Refusal::Aborted(AbortReason::SessionEnded);
        if let Some(active) = office.active.get_mut(&attempt) {
            // A read that comes after its own Commit is late: refused.
            let running = matches!(active.progress, Progress::Running);
            let Some(session) = active.session.filter(|_| running) else {
                mark(Mark::SessionEnded);
                return Err(ended);
            };
            if named.is_some_and(|(_, id)| id != session) {
                mark(Mark::SessionEnded);
                return Err(ended);
            }
            active.touched = cx.now;
            if let Some(seen) = office.clients.get_mut(&client) {
                seen.at = seen.at.max(cx.now);
            }
            return Ok(session);
        }
        if let Some(no) = office.noes.get(attempt) {
            return Err(Refusal::Aborted(no.reason));
        }
        if named.is_some()
            || office.validated.contains(attempt)
            || office.coordinations.contains_key(&attempt)
            || state.knows(attempt)
        {
            return Err(ended);
        }
        if let Some(refusal) = untimely {
            return Err(refusal);
        }
        if office.active.len() >= settings.sessions {
            let retry_after_millis = settings.overload_millis;
            return Err(Refusal::Overloaded { retry_after_millis });
        }
        office.sessions += 1;
        let session = SessionId(office.sessions);
        let priority = super::commit::arrival_or(priority, cx, attempt);
        office.active.insert(
            attempt,
            Active {
                priority,
                client: Some(client),
                session: Some(session),
                progress: Progress::Running,
                touched: cx.now,
                requests: BTreeSet::new(),
            },
        );
        let seen = office.clients.entry(client).or_default();
        // A client that was gone may have left commits, which need no timer.
        if !office.timers.is_armed(Timer::Client(client)) {
            let at = cx.now.plus(settings.session_nanos);
            office.timers.arm(at, Timer::Client(client));
        }
        seen.at = seen.at.max(cx.now);
        seen.attempts.insert(attempt);
        Ok(session)
    }

    /// A client is alive, and so are these of its transactions: their sessions
    /// go on. A session in no list ends when it has asked for nothing for
    /// `idle_nanos`: its transaction was given up and the Release was lost.
    pub fn handle_client_seen(&mut self, now: Mono, client: ClientId, live: &[AttemptId]) {
        let Some(office) = self.office.as_deref_mut() else {
            return;
        };
        let Some(seen) = office.clients.get_mut(&client) else {
            return;
        };
        seen.at = seen.at.max(now);
        for attempt in live {
            if let Some(active) = office.active.get_mut(attempt)
                && active.client == Some(client)
            {
                active.touched = active.touched.max(now);
            }
        }
    }

    /// A client is gone for good: its running sessions end. Commits go on.
    pub fn handle_client_gone(&mut self, cx: &Cx, client: ClientId) {
        self.end_client(client);
        self.settle(cx);
    }

    /// A client's timer fired: was it seen since?
    pub(super) fn check_client(&mut self, cx: &Cx, client: ClientId) {
        let Some(office) = self.office.as_deref_mut() else {
            return;
        };
        let Some(seen) = office.clients.get(&client) else {
            return;
        };
        let end = seen.at.plus(self.settings.session_nanos);
        if end <= cx.now {
            return self.end_client(client);
        }
        office.timers.arm(end, Timer::Client(client));
        let bound = self.settings.idle_nanos;
        let idle = |active: &Active| {
            matches!(active.progress, Progress::Running)
                && active.requests.is_empty()
                && cx.now.since(active.touched) >= bound
        };
        let of_client = seen.attempts.iter().copied();
        let idle: Vec<AttemptId> = of_client
            .filter(|a| office.active.get(a).is_some_and(idle))
            .collect();
        for attempt in idle {
            mark(Mark::SessionIdle);
            self.drop_active(attempt, AbortReason::SessionEnded);
        }
    }

    fn end_client(&mut self, client: ClientId) {
        let Some(office) = self.office.as_deref_mut() else {
            return;
        };
        let Some(seen) = office.clients.get(&client) else {
            return;
        };
        let running: Vec<AttemptId> = seen
            .attempts
            .iter()
            .copied()
            .filter(|a| {
                office
                    .active
                    .get(a)
                    .is_some_and(|active| matches!(active.progress, Progress::Running))
            })
            .collect();
        office.timers.disarm(Timer::Client(client));
        for attempt in running {
            mark(Mark::SessionSilent);
            self.drop_active(attempt, AbortReason::SessionEnded);
        }
    }

    /// Ends an attempt that has proposed nothing: its locks go, its requests
    /// are refused, and the no is remembered (T4). A queued Commit of several
    /// shards is voted down, or aborted where this shard coordinates (T5).
    pub(super) fn drop_active(&mut self, attempt: AttemptId, reason: AbortReason) {
        let Some(office) = self.office.as_deref_mut() else {
            return;
        };
        let proposed = |active: &Active| {
            matches!(active.progress, Progress::OneShard(_) | Progress::Intent(_))
        };
        if office.active.get(&attempt).is_none_or(proposed) {
            return;
        }
        let Some(active) = office.end(attempt) else {
            return;
        };
        office.forget_client(active.client, attempt);
        office.timers.disarm(Timer::Deadline(attempt));
        let no = No {
            reason,
            session: active.session,
        };
        // Who commits is told so, and a copy of a Commit that names no session
        // could be let in once more.
        let told = matches!(&active.progress, Progress::Queued(q) if q.request.session.is_none());
        let bound = self.settings.ended;
        if told {
            let now_millis = of_nanos(office.last);
            office.noes.tell(attempt, no, bound, now_millis);
        } else {
            office.noes.note(attempt, no, bound);
        }
        for id in &active.requests {
            office.locks.cancel(*id);
            if let Some(caller) = self.waiting.remove(id).and_then(|w| w.caller()) {
                let response = Response::Refused(Refusal::Aborted(reason));
                self.effects.push(Effect::Respond {
                    to: caller,
                    response,
                });
            }
        }
        if let Progress::Queued(queued) = &active.progress
            && let Some(waiter) = queued.waiter
        {
            office.locks.cancel(waiter);
            self.waiting.remove(&waiter);
        }
        office.locks.release(attempt);
        office.wounds.remove(&attempt);
        if let Progress::Queued(queued) = active.progress {
            office.parked.retain(|a| *a != attempt);
            for caller in queued.callers {
                self.refuse(caller, Refusal::Aborted(reason));
            }
            self.vote_down(&queued.request, reason);
        }
    }

    /// An older request stands before these younger holders.
    pub(super) fn wound_all(&mut self, cx: &Cx, by: Age, victims: &[AttemptId]) {
        for victim in victims {
            let stage = self
                .office
                .as_deref()
                .and_then(|office| office.locks.stage(*victim));
            match stage {
                Some(Stage::Open) => {
                    self.counters.wounds += 1;
                    self.mark_wound(*victim);
                    self.drop_active(*victim, AbortReason::Wounded);
                }
                Some(Stage::Proposed | Stage::Decided) => self.wound_remote(cx, *victim, by.0),
                None => {}
            }
        }
    }

    fn mark_wound(&self, victim: AttemptId) {
        let active = self.office.as_deref().and_then(|o| o.active.get(&victim));
        match active.map(|a| &a.progress) {
            Some(Progress::Running) => mark(Mark::WoundedRunning),
            Some(Progress::Queued(queued)) if queued.waiter.is_none() => mark(Mark::WoundedParked),
            Some(Progress::Queued(_)) => mark(Mark::WoundedQueued),
            _ => {}
        }
    }

    /// A holder that is proposed can only be wounded by its coordinator. The
    /// waiter repeats it until the holder is gone (T9).
    fn wound_remote(&mut self, cx: &Cx, victim: AttemptId, by: Priority) {
        let Some(office) = self.office.as_deref_mut() else {
            return;
        };
        let known = office.wounds.get(&victim).copied();
        if known.is_some_and(|(oldest, _)| oldest <= by) {
            return;
        }
        office.wounds.insert(victim, (by, 0));
        let at = cx.now.plus(self.settings.backoff(0));
        office.timers.arm(at, Timer::Wound(victim));
        self.send_wound(victim, by);
    }

    fn send_wound(&mut self, victim: AttemptId, by: Priority) {
        let Some(office) = self.office.as_deref() else {
            return;
        };
        if let Some(coordination) = office.coordinations.get(&victim) {
            let may = coordination.own || mutated(Mutation::WoundInherited);
            if coordination.phase == Phase::Voting && may {
                mark(Mark::WoundedStaged);
                self.start_abort(victim, AbortReason::Wounded);
            }
            return;
        }
        let to = match office.active.get(&victim).map(|a| &a.progress) {
            Some(Progress::Intent(proposed)) => {
                Some((proposed.coordinator.clone(), proposed.anchor.clone()))
            }
            _ => self.state.intents.get(&victim).map(|intent| {
                let coordinator = intent.participants[intent.coordinator as usize].clone();
                let anchor = intent.anchor().clone();
                (coordinator, anchor)
            }),
        };
        if let Some((coordinator, anchor)) = to {
            mark(Mark::WoundSent);
            self.tell(&coordinator, &anchor, victim, PeerBody::Wound { by });
        }
    }

    /// A wound's timer fired: is somebody older still waiting?
    pub(super) fn repeat_wound(&mut self, cx: &Cx, victim: AttemptId) {
        let Some(office) = self.office.as_deref_mut() else {
            return;
        };
        let Some((by, tries)) = office.wounds.remove(&victim) else {
            return;
        };
        if office.locks.oldest_waiting_on(victim).is_none() {
            return;
        }
        mark(Mark::WoundRepeated);
        let tries = tries.saturating_add(1);
        office.wounds.insert(victim, (by, tries));
        let at = cx.now.plus(self.settings.backoff(tries));
        office.timers.arm(at, Timer::Wound(victim));
        self.send_wound(victim, by);
    }

    pub(super) fn handle_validate(
        &mut self,
        cx: &Cx,
        from: Caller,
        attempt: AttemptId,
        session: (Term, SessionId),
        keep: bool,
    ) {
        if let Err(refusal) = self.check_session(attempt, session) {
            return match refusal {
                None => self.respond(from, Response::Valid),
                Some(reason) => self.refuse(from, Refusal::Aborted(reason)),
            };
        }
        if cx.lease || mutated(Mutation::ValidateUnconfirmed) {
            return self.validated(from, attempt, keep);
        }
        mark(Mark::ValidatedByRound);
        if self.waiting.is_full(&self.settings) {
            return self.overloaded(from, 0);
        }
        let token = self.new_request();
        let waiting = Waiting::Validate {
            from,
            attempt,
            keep,
        };
        self.waiting.insert(token, waiting);
        // Filed with the attempt, so that a wound meanwhile refuses it.
        if let Some(office) = self.office.as_deref_mut()
            && let Some(active) = office.active.get_mut(&attempt)
        {
            active.requests.insert(token);
        }
        self.effects.push(Effect::Confirm { token });
    }

    /// Whether the session lives; else why not, or none if it was validated before.
    fn check_session(
        &self,
        attempt: AttemptId,
        (term, id): (Term, SessionId),
    ) -> Result<(), Option<AbortReason>> {
        let Some(office) = self.office.as_deref() else {
            return Err(Some(AbortReason::TermEnded));
        };
        if term != office.term {
            return Err(Some(AbortReason::TermEnded));
        }
        match office.active.get(&attempt) {
            Some(active) if active.session == Some(id) => Ok(()),
            _ if office.validated.contains(attempt) => Err(None),
            _ => Err(Some(
                office
                    .noes
                    .get(attempt)
                    .map_or(AbortReason::SessionEnded, |no| no.reason),
            )),
        }
    }

    fn validated(&mut self, from: Caller, attempt: AttemptId, keep: bool) {
        self.respond(from, Response::Valid);
        if keep {
            return;
        }
        self.end_running(attempt);
        let bound = self.settings.ended;
        if let Some(office) = self.office.as_deref_mut() {
            office.validated.insert(attempt, (), bound);
        }
    }

    /// Ends a valid attempt without saying no about it.
    fn end_running(&mut self, attempt: AttemptId) {
        let Some(office) = self.office.as_deref_mut() else {
            return;
        };
        let running = |a: &Active| matches!(a.progress, Progress::Running) && a.requests.is_empty();
        if !office.active.get(&attempt).is_some_and(running) {
            return self.drop_active(attempt, AbortReason::RolledBack);
        }
        if let Some(active) = office.end(attempt) {
            office.forget_client(active.client, attempt);
            office.locks.release(attempt);
        }
    }

    pub(super) fn handle_release(&mut self, from: Caller, attempt: AttemptId) {
        self.drop_active(attempt, AbortReason::RolledBack);
        let knows = self.state.knows(attempt);
        let beyond = self.office.as_deref().is_some_and(|office| {
            // What is proposed, decided or answered is beyond taking back.
            knows
                || office.active.contains_key(&attempt)
                || office.coordinations.contains_key(&attempt)
                || office.validated.contains(attempt)
        });
        if !beyond {
            self.note_no(attempt, AbortReason::RolledBack);
        }
        self.respond(from, Response::Released);
    }

    pub(super) fn confirmed(&mut self, cx: &Cx, token: u64) {
        match self.waiting.remove(&token) {
            Some(Waiting::Round(capture)) => self.fetch(cx, token, *capture),
            Some(Waiting::Validate {
                from,
                attempt,
                keep,
            }) => {
                if let Some(office) = self.office.as_deref_mut()
                    && let Some(active) = office.active.get_mut(&attempt)
                {
                    active.requests.remove(&token);
                }
                self.validated(from, attempt, keep);
            }
            Some(other) => {
                self.waiting.insert(token, other);
            }
            None => {}
        }
    }

    /// Nobody waits for these any more: reads that wait end, Commits go on. All that belong together come
    /// at once, as everything that waits is looked through. Whether there was any.
    pub fn cancel(&mut self, cx: &Cx, from: &BTreeSet<Caller>) -> bool {
        let Some(office) = self.office.as_deref_mut() else {
            return false;
        };
        let mine: Vec<u64> = self
            .waiting
            .iter()
            .filter(|(_, w)| w.caller().is_some_and(|caller| from.contains(&caller)))
            .map(|(id, _)| *id)
            .collect();
        if mine.is_empty() {
            return false;
        }
        for id in mine {
            mark(Mark::WaitingCancelled);
            office.locks.cancel(id);
            let waiting = self.waiting.remove(&id);
            let attempt = waiting.and_then(|waiting| waiting.counted_for());
            if let Some(active) = attempt.and_then(|a| office.active.get_mut(&a)) {
                active.requests.remove(&id);
            }
        }
        self.settle(cx);
        true
    }
}
