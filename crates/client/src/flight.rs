//! Several requests under way in one task.

use futures_util::stream::{FuturesUnordered, StreamExt};
use std::future::Future;
use std::pin::Pin;
use synod_txn::client::Reply;

type Delivery<'a> = Pin<Box<dyn Future<Output = (u64, Reply)> + Send + 'a>>;

/// Requests under way, at most one per shard of a transaction and so up to a
/// thousand. Only those that may have moved are polled; no task is spawned.
#[derive(Default)]
pub(crate) struct Flight<'a> {
    deliveries: FuturesUnordered<Delivery<'a>>,
}

impl<'a> Flight<'a> {
    pub(crate) fn push(&mut self, token: u64, delivery: impl Future<Output = Reply> + Send + 'a) {
        self.deliveries
            .push(Box::pin(async move { (token, delivery.await) }));
    }

    /// The next one that is done; none if none is under way.
    pub(crate) async fn next(&mut self) -> Option<(u64, Reply)> {
        self.deliveries.next().await
    }
}
