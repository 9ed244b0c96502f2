//! Nodes: what reaches them, their turns, and what leaves them.

use super::{Event, Sim, Wrong};
use crate::sim::config::MS;
use crate::sim::node::{Absence, Inbound, NotStarted};
use synod_kv::log::LogError;
use synod_kv::machine::Lanes as _;
use synod_paxos::{GroupId, NodeId, ReconfigureError, Slot};
use synod_shard::{Input, Members, NodeMessage};

/// The loop does not spin: from one turn by the clock to the next at least this long.
const LEAST_WAIT: u64 = 50_000;
/// A process that ended by itself is started again after this long, about.
const RESTART: u64 = 300 * MS;

impl Sim {
    pub(super) fn start(&mut self, node: usize) {
        if self.nodes[node].process.is_some()
            || matches!(self.nodes[node].absence, Absence::Lost(_))
        {
            return;
        }
        let mut random = self.random.fork();
        let started = self.nodes[node].start(self.t, &self.bootstrap, &self.config, &mut random);
        self.trace.mix(node as u64 ^ 0x57a7);
        let id = self.nodes[node].id;
        match started {
            Ok(()) => {}
            Err(NotStarted::Disk(error)) => {
                self.trace
                    .line(self.t, || format!("{id} does not start: {error}"));
                self.at(self.t + RESTART, Event::Restart(node));
                return;
            }
            Err(NotStarted::Wrong(error)) => {
                return self.violation(Wrong::Safety, "recovery", error);
            }
        }
        if let Absence::Lost(why) = &self.nodes[node].absence {
            self.report.lost_nodes += 1;
            if !self.nodes[node].damaged {
                let text = format!("{id} refuses to start, and nothing damaged its disk: {why}");
                return self.violation(Wrong::Safety, "recovery", text);
            }
            self.trace
                .line(self.t, || format!("{id} refuses to start: {why}"));
            return;
        }
        self.trace.line(self.t, || format!("{id} starts"));
        self.check_start(node);
        self.plan_turn(node, self.t);
    }

    /// The process ends, with or without the machine's power.
    pub(super) fn take_down(&mut self, node: usize, power: bool) {
        if self.nodes[node].process.is_none() {
            return;
        }
        let id = self.nodes[node].id;
        self.trace.line(self.t, || {
            format!("{id} {}", if power { "loses power" } else { "is killed" })
        });
        self.rules.crashed(node);
        let mut random = self.random.fork();
        self.queue.cancel_turn(node);
        self.nodes[node].stop(power, &mut random);
    }

    /// Plans the next turn, unless an earlier one is planned already.
    pub(super) fn plan_turn(&mut self, node: usize, at: u64) {
        let n = &self.nodes[node];
        if n.process.is_some() {
            let at = at.max(self.t).max(n.busy_until).max(n.paused_until);
            self.queue.plan_turn(node, at);
        }
    }

    pub(super) fn arrive(&mut self, node: usize, inbound: impl IntoIterator<Item = Inbound>) {
        if let Some(process) = &mut self.nodes[node].process {
            process.inbox.extend(inbound);
            self.plan_turn(node, self.t);
        }
    }

    pub(super) fn deliver(
        &mut self,
        to: usize,
        from: usize,
        connection: u64,
        messages: Vec<NodeMessage>,
    ) {
        if !self.net.arrives(from, to, connection) {
            return;
        }
        let from = NodeId(from as u64 + 1);
        let inbound = messages
            .into_iter()
            .map(|message| Inbound::Input(Input::Peer { from, message }));
        self.arrive(to, inbound);
    }

    pub(super) fn input(&mut self, node: usize, input: Input) {
        self.arrive(node, [Inbound::Input(input)]);
    }

    /// Asks a node for other members of a shard; none if it cannot be asked now.
    pub(super) fn reconfigure(
        &mut self,
        node: usize,
        group: GroupId,
        members: Members,
    ) -> Option<Result<Slot, ReconfigureError>> {
        let n = &mut self.nodes[node];
        let process = n.process.as_mut().filter(|_| n.paused_until <= self.t)?;
        process.lanes.set_now(&n.clock, self.t);
        let answer = process
            .machine
            .reconfigure(&mut process.lanes, group, members);
        self.plan_turn(node, self.t);
        Some(answer)
    }

    /// One turn of a node's loop.
    pub(super) fn turn(&mut self, node: usize) {
        let n = &mut self.nodes[node];
        if n.paused_until > self.t {
            let at = n.paused_until;
            return self.plan_turn(node, at);
        }
        let t = self.t;
        let Some(process) = &mut n.process else {
            return;
        };
        process.lanes.set_now(&n.clock, t);
        let machine = &mut process.machine;
        let lanes = &mut process.lanes;
        if self.trace.is_kept() {
            for inbound in &process.inbox {
                self.trace.line(t, || inbound_line(n.id, inbound));
            }
        }
        let now = n.clock.now(t);
        for inbound in process.inbox.drain(..) {
            match inbound {
                Inbound::Input(input) => {
                    self.rules.taken(node, n.id, now, &input);
                    machine.input(lanes, input);
                }
                Inbound::Synced(ticket) => machine.log_synced(lanes, ticket),
                Inbound::Engine(event) => machine.engine_event(lanes, event),
            }
        }
        let stalls = lanes
            .log_waits()
            .is_some_and(|waits| waits.as_nanos() as u64 > self.config.stall);
        if stalls != n.stalls {
            n.stalls = stalls;
            let healthy = !stalls;
            self.rules
                .taken(node, n.id, now, &Input::DiskHealth { healthy });
        }
        machine.turn(lanes);
        let wait = machine.wait(lanes).as_nanos() as u64;
        process
            .inbox
            .extend(lanes.engine_events.drain(..).map(Inbound::Engine));
        let fatal = machine.take_fatal();
        let again = !process.inbox.is_empty();
        let cost = self.random.range(5_000, self.config.turn) * n.slow;
        n.busy_until = t + cost;
        self.carry_out(node);
        if let Some(reason) = fatal {
            return self.fatal(node, &reason);
        }
        if self.is_burnt(node) {
            return;
        }
        self.drive_lanes(node);
        // The node's clock may be slow: one wake-up after the time, not several before.
        let wait = (wait + wait / 500 + 1_000).max(LEAST_WAIT);
        let next = if again { 0 } else { wait };
        self.plan_turn(node, t + next);
    }

    /// Begins syncs and engine work, where there is any and none under way.
    fn drive_lanes(&mut self, node: usize) {
        let n = &mut self.nodes[node];
        let life = n.life;
        let Some(process) = &mut n.process else {
            return;
        };
        let engine = !n.engine_busy && process.lanes.has_engine_work();
        n.engine_busy |= engine;
        match process.lanes.begin_sync() {
            Ok(true) => {
                let at = self.t + self.random.range(MS / 4, self.config.sync);
                let at = at.max(n.stalled_until);
                self.at(at, Event::Synced { node, life });
            }
            Ok(false) => {}
            Err(error) => return self.log_failed(node, &error),
        }
        if engine {
            let at = self.t + self.random.range(MS / 2, self.config.engine);
            self.at(at, Event::Engine { node, life });
        }
    }

    pub(super) fn synced(&mut self, node: usize, life: u64) {
        let n = &mut self.nodes[node];
        if n.life != life {
            return;
        }
        if n.stalled_until > self.t {
            let at = n.stalled_until;
            return self.at(at, Event::Synced { node, life });
        }
        let Some(process) = &mut n.process else {
            return;
        };
        match process.lanes.end_sync() {
            Ok(ticket) => {
                self.arrive(node, ticket.map(Inbound::Synced));
                self.drive_lanes(node);
            }
            Err(error) => self.log_failed(node, &error),
        }
    }

    fn log_failed(&mut self, node: usize, error: &LogError) {
        let reason = format!("the log failed: {error}; nothing more is acknowledged");
        if let Some(process) = &mut self.nodes[node].process {
            process.machine.fail(reason.clone());
        }
        self.fatal(node, &reason);
    }

    /// A node ends by itself. Storage errors are why it may; anything else, and
    /// any storage error that no fault explains, is wrong.
    fn fatal(&mut self, node: usize, reason: &str) {
        if !self.nodes[node].storage_faults {
            let text = format!("{} stopped by itself: {reason}", self.nodes[node].id);
            return self.violation(Wrong::Safety, "fatal", text);
        }
        let id = self.nodes[node].id;
        self.trace.line(self.t, || format!("{id} stops: {reason}"));
        self.take_down(node, false);
        self.at(self.t + RESTART, Event::Restart(node));
    }

    pub(super) fn engine_done(&mut self, node: usize, life: u64) {
        let n = &mut self.nodes[node];
        if n.life != life {
            return;
        }
        if n.paused_until > self.t {
            let at = n.paused_until;
            return self.at(at, Event::Engine { node, life });
        }
        n.engine_busy = false;
        let Some(process) = &mut n.process else {
            return;
        };
        process.lanes.engine_work();
        if self.is_burnt(node) {
            return;
        }
        let Some(process) = &mut self.nodes[node].process else {
            return;
        };
        let events = std::mem::take(&mut process.lanes.engine_events);
        self.arrive(node, events.into_iter().map(Inbound::Engine));
        self.drive_lanes(node);
    }

    /// What left the node goes on its way.
    fn carry_out(&mut self, node: usize) {
        let Some(process) = &mut self.nodes[node].process else {
            return;
        };
        let mut out = std::mem::take(&mut process.lanes.out);
        self.trace
            .mix((out.sent.len() ^ out.replies.len() << 8) as u64);
        self.check_step(node, &out);
        for (to, messages) in out.sent.drain(..) {
            self.send(node, to, messages);
        }
        for (to, reply) in out.replies.drain(..) {
            self.reply(node, to, reply);
        }
        if let Some(process) = &mut self.nodes[node].process {
            process.lanes.out = out;
        }
    }

    pub(super) fn send(&mut self, from: usize, to: NodeId, messages: Vec<NodeMessage>) {
        let Some(to) = self.index(to) else {
            return;
        };
        if self.is_lost() {
            return;
        }
        let twice = self.faulty && self.random.chance(self.config.duplication);
        let sites = (self.config.site_of(from), self.config.site_of(to));
        let copy = twice.then(|| messages.clone());
        let late = if twice && self.config.late > 0 {
            self.random.range(0, self.config.late)
        } else {
            0
        };
        for (messages, late) in copy
            .map(|copy| (copy, late))
            .into_iter()
            .chain([(messages, 0)])
        {
            let sent = self.net.send(self.t, (from, to), sites, &mut self.random);
            if let Some((at, connection)) = sent {
                let at = at + late;
                self.at(
                    at,
                    Event::Deliver {
                        to,
                        from,
                        connection,
                        messages,
                    },
                );
            }
        }
    }

    /// Whether chance loses this frame.
    pub(super) fn is_lost(&mut self) -> bool {
        let loss = if self.faulty {
            self.config.loss
        } else {
            self.config.quiet_loss
        };
        loss > 0 && self.random.chance(loss)
    }

    /// A node that died in mid-turn is taken down now.
    fn is_burnt(&mut self, node: usize) -> bool {
        let burnt = self.nodes[node]
            .process
            .as_ref()
            .is_some_and(|p| p.lanes.is_burnt());
        if burnt {
            let engine = self.nodes[node].process.as_ref();
            if engine.is_some_and(|p| p.lanes.is_engine_dead()) {
                // It may have taken longer than the fault's own restart.
                self.at(self.t + RESTART, Event::Restart(node));
            }
            let power = self.nodes[node].burns_with_power;
            self.take_down(node, power);
        }
        burnt
    }

    /// That node's clocks now.
    pub(super) fn now(&self, node: usize) -> synod_shard::Now {
        self.nodes[node].clock.now(self.t)
    }
}

fn inbound_line(id: NodeId, inbound: &Inbound) -> String {
    match inbound {
        Inbound::Input(Input::Peer { from, message }) => format!("{from} -> {id}  {message:?}"),
        Inbound::Input(Input::Client { caller, request }) => {
            format!("client {} -> {id}  {request:?}", caller.connection)
        }
        Inbound::Input(input) => format!("{id}  {input:?}"),
        Inbound::Synced(ticket) => format!("{id}  log synced through {ticket}"),
        Inbound::Engine(event) => format!("{id}  engine: {event:?}"),
    }
}
