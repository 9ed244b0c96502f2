//! Clients in a closed loop over [`Nodes`], on the machine that the SDK drives.

use crate::nodes::Nodes;
use bytes::Bytes;
use synod_shard::{ShardReply, ShardRequest};
use synod_txn::client::{Begin, Done, Reply, Route, Routes, Transaction, attempt_id};
use synod_txn::{Caller, ClientId, Priority};

/// What each transaction writes.
#[derive(Clone, Copy)]
pub enum Workload {
    /// One key.
    Put,
    /// One key in each of so many shards.
    Across(u64),
}

struct Client {
    number: u64,
    transaction: Option<Transaction>,
    begun: u64,
}

/// The clients.
pub struct Clients {
    clients: Vec<Client>,
    routes: Routes,
    workload: Workload,
    transactions: u64,
    pub committed: u64,
    /// Turns that the committed ones took, together.
    pub turns: u64,
    turn: u64,
}

impl Clients {
    pub fn new(nodes: &Nodes, count: u64, workload: Workload) -> Clients {
        let route = |s: &synod_shard::ShardDescriptor| Route {
            shard: s.id,
            span: s.span.clone(),
            term: None,
        };
        Clients {
            clients: (0..count)
                .map(|number| Client {
                    number,
                    transaction: None,
                    begun: 0,
                })
                .collect(),
            routes: Routes::new(nodes.map.shards.iter().map(route).collect()),
            workload,
            transactions: 0,
            committed: 0,
            turns: 0,
            turn: 0,
        }
    }

    /// Goes on until so many have committed.
    pub fn run(&mut self, nodes: &mut Nodes, commits: u64) {
        let until = self.committed + commits;
        while self.committed < until {
            for at in 0..self.clients.len() {
                if self.clients[at].transaction.is_none() {
                    self.begin(nodes, at);
                }
                self.send(nodes, at);
            }
            self.turn += 1;
            for (caller, reply) in nodes.turn() {
                self.hear(caller, reply);
            }
        }
    }

    fn begin(&mut self, nodes: &Nodes, at: usize) {
        self.transactions += 1;
        let number = self.transactions;
        let attempt = attempt_id(nodes.wall(), u128::from(number) | 1 << 64);
        let mut transaction = Transaction::new(Begin {
            attempt,
            priority: Priority::default(),
            client: ClientId(1),
            read_only: false,
        });
        let value = Bytes::from(vec![b'v'; 128]);
        // Keys that nobody else writes at the time, as long as the benchmark's.
        let key = |prefix: u64| {
            let key = format!(
                "{prefix:02}/{:08}/{:020}",
                self.clients[at].number,
                number % 50
            );
            Bytes::from(key)
        };
        match self.workload {
            Workload::Put => transaction.put(key(number * 37 % 100), value),
            Workload::Across(shards) => {
                (0..shards).try_for_each(|i| transaction.put(key(i * 100 / shards), value.clone()))
            }
        }
        .expect("a write");
        transaction
            .commit(&self.routes, &[], 10_000)
            .expect("a commit");
        self.clients[at].transaction = Some(transaction);
        self.clients[at].begun = self.turn;
    }

    fn send(&mut self, nodes: &mut Nodes, at: usize) {
        let Some(transaction) = &mut self.clients[at].transaction else {
            return;
        };
        for outgoing in transaction.take_outgoing() {
            let caller = Caller {
                connection: at as u64,
                request: outgoing.token,
            };
            let request = ShardRequest {
                shard: outgoing.shard,
                generation: 1,
                request: outgoing.request,
                hashing: outgoing.hashing.map(Box::new),
            };
            nodes.ask(caller, request);
        }
    }

    fn hear(&mut self, caller: Caller, reply: ShardReply) {
        let ShardReply::Response(response) = reply else {
            panic!("a wrong node was asked: {reply:?}");
        };
        if let synod_txn::Response::Located { term, .. } = &response {
            self.routes.learn_term(term.group, *term);
        }
        let client = &mut self.clients[caller.connection as usize];
        let Some(transaction) = &mut client.transaction else {
            return;
        };
        transaction.handle_reply(&self.routes, caller.request, Reply::Answer(response));
        match transaction.take_done() {
            None => {}
            Some(Ok(Done::Committed(_))) => {
                self.committed += 1;
                self.turns += self.turn - client.begun;
                client.transaction = None;
            }
            Some(other) => panic!("a commit ended as {other:?}"),
        }
    }
}
