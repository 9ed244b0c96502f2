//! Clients: their requests, the answers, their signs of life.

use super::{Event, Sim};
use crate::sim::client::Want;
use crate::sim::config::MS;
use crate::sim::node::Inbound;
use std::collections::{BTreeMap, BTreeSet};
use synod_shard::{Input, ShardDescriptor, ShardReply, ShardRequest};
use synod_txn::request::{Refusal, Response};
use synod_txn::{AttemptId, Caller, ClientId};

/// A client that lives, and its transactions under way.
pub(super) type Alive = (ClientId, Vec<AttemptId>);

/// How late a request is at most; nanoseconds.
const TARDY: u64 = 1_500 * MS;

/// Whether an answer says that nothing was proposed for the request, and no more than that: those that
/// are final hold for copies, too, and `NotLeader` may be about something proposed.
const fn turns_away(reply: &ShardReply) -> bool {
    let ShardReply::Response(Response::Refused(refusal)) = reply else {
        return matches!(reply, ShardReply::WrongNode(_));
    };
    matches!(
        refusal,
        Refusal::Overloaded { .. } | Refusal::OtherSharding { .. } | Refusal::Clock
    )
}

/// Whom a node answers.
fn caller(client: usize, number: u64) -> Caller {
    Caller {
        connection: client as u64,
        request: number,
    }
}

impl Sim {
    /// A node that no other reaches is reached by the clients of its own site only:
    /// they are the ones whom a deposed leader could tell what is no longer true.
    fn is_out_of_reach(&self, client: usize, node: usize) -> bool {
        self.config.site_of_client(client) != self.config.site_of(node) && self.net.is_dark(node)
    }

    pub(super) fn asked(&mut self, to: usize, client: usize, number: u64, request: ShardRequest) {
        if !self.copies.arrives(client, number) || self.is_out_of_reach(client, to) {
            return;
        }
        let caller = caller(client, number);
        self.input(to, Input::Client { caller, request });
    }

    /// Nobody waits for an answer any more.
    pub(super) fn cancelled(&mut self, to: usize, client: usize, number: u64) {
        if self.is_out_of_reach(client, to) {
            return;
        }
        let caller = caller(client, number);
        let callers = BTreeSet::from([caller]);
        self.input(to, Input::Cancel { callers });
    }

    /// Tells a node so. It may come before what it is about, and not at all if the connection is gone.
    fn withdraw(&mut self, client: usize, to: usize, number: u64) {
        let sites = (self.config.site_of_client(client), self.config.site_of(to));
        let random = &mut self.withdrawals;
        let at = self.net.client_travel(self.t, sites.0, sites.1, random);
        self.at(at, Event::Cancel { to, client, number });
    }

    pub(super) fn reply(&mut self, node: usize, caller: Caller, reply: ShardReply) {
        let client = caller.connection as usize;
        if turns_away(&reply) {
            self.copies.turned_away(client, caller.request);
        }
        if self.is_lost() || self.is_out_of_reach(client, node) {
            return;
        }
        let sites = (
            self.config.site_of_client(client),
            self.config.site_of(node),
        );
        let at = self
            .net
            .client_travel(self.t, sites.0, sites.1, &mut self.random);
        // The SDK asks for the map in a call of its own.
        let moved = matches!(reply, ShardReply::WrongNode(_));
        let worker = self.nodes[node].worker().filter(|_| moved);
        let map = worker.map_or_else(Vec::new, |w| w.map().changed().cloned().collect());
        self.at(
            at,
            Event::Answer {
                client,
                number: caller.request,
                reply: Box::new(reply),
                map,
            },
        );
    }

    pub(super) fn answer(
        &mut self,
        client: usize,
        number: u64,
        reply: ShardReply,
        map: &[ShardDescriptor],
    ) {
        self.trace.line(self.t, || {
            format!("client {client} <-  #{number} {reply:?}")
        });
        self.clients[client].learn_map(map);
        let mut wants = std::mem::take(&mut self.wants);
        self.clients[client].answered(self.t, number, reply, &mut wants);
        self.wanted(client, wants);
    }

    /// The wall clock of a client's machine: that of a node near it.
    fn client_wall(&self, client: usize) -> synod_paxos::Timestamp {
        self.now(client % self.nodes.len()).clock.latest
    }

    pub(super) fn client(&mut self, client: usize) {
        let wall = self.client_wall(client);
        let mut wants = std::mem::take(&mut self.wants);
        self.clients[client].wake(self.t, wall, &mut wants);
        self.wanted(client, wants);
    }

    /// Sends what a client wants sent, and plans its next timer.
    fn wanted(&mut self, client: usize, mut wants: Vec<Want>) {
        for want in wants.drain(..) {
            let (to, number, request, after) = match want {
                Want::Send {
                    to,
                    number,
                    request,
                    after,
                } => (to, number, request, after),
                Want::Cancel { to, number } => {
                    if let Some(to) = self.index(to) {
                        self.withdraw(client, to, number);
                    }
                    continue;
                }
            };
            let Some(to) = self.index(to) else {
                continue;
            };
            if self.is_lost() {
                continue;
            }
            let sites = (self.config.site_of_client(client), self.config.site_of(to));
            let twice = self.faulty && self.random.chance(self.config.duplication);
            let is_tardy =
                self.faulty && self.config.tardy > 0 && self.random.chance(self.config.tardy);
            let tardy = if is_tardy {
                self.random.range(0, TARDY)
            } else {
                0
            };
            if twice {
                self.copies.sent(client, number);
            }
            let mut request = Some(request);
            for copy in [false, true] {
                let request = match (copy, twice) {
                    (false, true) => request.clone(),
                    (false, false) | (true, true) => request.take(),
                    (true, false) => None,
                };
                let Some(request) = request else {
                    continue;
                };
                // A late duplicate may come long after.
                let late = if copy {
                    self.random.range(0, 2_000) * MS
                } else {
                    0
                };
                let at = self.net.client_travel(
                    self.t + after + tardy + late,
                    sites.0,
                    sites.1,
                    &mut self.random,
                );
                self.at(
                    at,
                    Event::Ask {
                        to,
                        client,
                        number,
                        request,
                    },
                );
            }
        }
        self.wants = wants;
        self.arm(client);
    }

    /// Plans a client's next timer, unless an earlier one is planned already.
    pub(super) fn arm(&mut self, client: usize) {
        if let Some(at) = self.clients[client].arm() {
            self.at(at, Event::Client { client });
        }
    }

    /// Clients that run something say so to every node: those of one site together.
    pub(super) fn keep_alive(&mut self) {
        let mut told: BTreeMap<(usize, usize), Vec<Alive>> = BTreeMap::new();
        for client in 0..self.clients.len() {
            let Some((id, live)) = self.clients[client].keep_alive(self.t) else {
                continue;
            };
            if live.is_empty() {
                continue;
            }
            let site = self.config.site_of_client(client);
            for to in 0..self.nodes.len() {
                if !self.is_lost() {
                    let all = told.entry((site, to)).or_default();
                    all.push((id, live.clone()));
                }
            }
        }
        for ((site, to), clients) in told {
            let random = &mut self.random;
            let sites = (site, self.config.site_of(to));
            let at = self.net.client_travel(self.t, sites.0, sites.1, random);
            self.at(at, Event::Seen { to, clients });
        }
        self.gossip();
        self.at(self.t + self.config.session / 4, Event::KeepAlive);
    }

    pub(super) fn seen(&mut self, to: usize, clients: Vec<Alive>) {
        if !self.net.is_dark(to) {
            let seen = |(client, live)| Inbound::Input(Input::ClientSeen { client, live });
            self.arrive(to, clients.into_iter().map(seen));
        }
    }
}
