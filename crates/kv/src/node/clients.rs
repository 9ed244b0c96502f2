//! Clients' connections: who waits for which answer, which client lives on
//! which connection, and what a user may touch.

use std::collections::{BTreeMap, BTreeSet};
use synod_shard::ShardRequest;
use synod_shard::wire::RESERVED_PREFIX;
use synod_txn::request::Refusal;
use synod_txn::{Caller, ClientId, Request, Response};

/// The user that may have the cluster's own records changed. Grants per user come
/// with the meta shard's `users` records; until then there is this one.
const ADMIN: &str = "admin";

#[derive(Debug, Default)]
struct Connection {
    waiting: BTreeSet<u64>,
    client: Option<ClientId>,
}

/// All connections that asked something.
#[derive(Debug, Default)]
pub(super) struct Clients {
    connections: BTreeMap<u64, Connection>,
}

impl Clients {
    /// A request came. If it tells its client that one lives on this connection from now on: on a
    /// new one the first sign of life may be long in coming.
    pub(super) fn asked(&mut self, caller: Caller, client: Option<ClientId>) {
        let connection = self.connections.entry(caller.connection).or_default();
        connection.waiting.insert(caller.request);
        connection.client = client.or(connection.client);
    }

    /// Whether somebody still waits for this answer; he does no more.
    pub(super) fn answered(&mut self, caller: Caller) -> bool {
        self.connections
            .get_mut(&caller.connection)
            .is_some_and(|c| c.waiting.remove(&caller.request))
    }

    /// Requests that wait for their answers.
    pub(super) fn waiting(&self) -> usize {
        self.connections.values().map(|c| c.waiting.len()).sum()
    }

    pub(super) fn seen(&mut self, connection: u64, client: ClientId) {
        self.connections.entry(connection).or_default().client = Some(client);
    }

    /// Everything that waited on a closed connection, and its client if it has
    /// no other connection here.
    pub(super) fn gone(&mut self, connection: u64) -> (BTreeSet<Caller>, Option<ClientId>) {
        let Some(gone) = self.connections.remove(&connection) else {
            return (BTreeSet::new(), None);
        };
        let callers = gone
            .waiting
            .into_iter()
            .map(|request| Caller {
                connection,
                request,
            })
            .collect();
        let client = gone
            .client
            .filter(|c| self.connections.values().all(|o| o.client != Some(*c)));
        (callers, client)
    }
}

/// Whether `user` may administer the cluster.
pub(super) fn is_admin(user: &str) -> bool {
    user == ADMIN
}

/// What a node's name begins with where users' names are expected, which have no colon.
const NODE: &str = "node:";

/// The name of the node that asks, if it is one and no user.
pub(super) fn node_name(user: &str) -> Option<&str> {
    user.strip_prefix(NODE)
}

/// Refuses what `user` may not do.
pub(super) fn authorize(user: &str, request: &ShardRequest) -> Result<(), Box<Response>> {
    if node_name(user).is_some() {
        return Err(Box::new(Response::Refused(Refusal::Invalid(format!(
            "{user} is no user and may not ask as one; issue a certificate with `synod cert user`"
        )))));
    }
    let Request::Commit(commit) = &request.request else {
        return Ok(());
    };
    let reserved = commit
        .writes
        .iter()
        .find(|w| w.key.starts_with(RESERVED_PREFIX));
    match reserved {
        Some(write) => Err(Box::new(Response::Refused(Refusal::Invalid(format!(
            "key {} begins with x'ffff', which is reserved for the cluster's own records; the \
             node that leads the meta shard writes them, as `synod node` and `synod placement` \
             ask it to",
            synod_shard::wire::show_key(&write.key)
        ))))),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caller(connection: u64) -> Caller {
        let request = 1;
        Caller {
            connection,
            request,
        }
    }

    #[test]
    fn a_client_is_gone_with_the_last_connection_that_it_was_heard_on() {
        let client = ClientId(7);
        let mut clients = Clients::default();
        clients.asked(caller(1), None);
        clients.seen(1, client);
        // It has connected again, and asked before it told that it lives.
        clients.asked(caller(2), Some(client));
        clients.asked(caller(2), None);
        assert_eq!(clients.gone(1), (BTreeSet::from([caller(1)]), None));
        let waited = BTreeSet::from([caller(2)]);
        assert_eq!(clients.gone(2), (waited, Some(client)));
        assert_eq!(clients.gone(2), (BTreeSet::new(), None));
    }
}
