//! The way to a node.

use std::net::SocketAddr;
use std::time::Instant;
use synod_rpc::{CallError, Pool, RequestBody, ServerBody};
use synod_shard::ShardRequest;
use synod_txn::{AttemptId, ClientId};

/// How nodes are reached.
#[derive(Clone)]
pub(crate) enum Transport {
    /// Over QUIC.
    Pool(Pool),
    /// A function in place of a cluster.
    #[cfg(test)]
    Fake(crate::tests::Fake),
    /// The transaction machines of a cluster, without the rest.
    #[cfg(test)]
    Groups(crate::tests::Groups),
}

impl Transport {
    pub(crate) async fn call(
        &self,
        to: SocketAddr,
        body: RequestBody,
        deadline: Instant,
    ) -> Result<ServerBody, CallError> {
        match self {
            Transport::Pool(pool) => pool.call(to, body, deadline).await,
            #[cfg(test)]
            Transport::Fake(fake) => fake.call(to, body, deadline).await,
            #[cfg(test)]
            Transport::Groups(groups) => groups.call(to, body, deadline).await,
        }
    }

    /// The same for a request to a shard, which the caller keeps.
    pub(crate) async fn call_shard(
        &self,
        to: SocketAddr,
        request: &ShardRequest,
        deadline: Instant,
    ) -> Result<ServerBody, CallError> {
        match self {
            Transport::Pool(pool) => pool.call_shard(to, request, deadline).await,
            #[cfg(test)]
            _ => {
                let body = RequestBody::Shard(request.clone());
                self.call(to, body, deadline).await
            }
        }
    }

    pub(crate) fn keepalive(&self, client: ClientId, live: &[AttemptId]) {
        match self {
            Transport::Pool(pool) => pool.keepalive(client, live),
            #[cfg(test)]
            Transport::Fake(_) | Transport::Groups(_) => {
                let _ = (client, live);
            }
        }
    }
}
