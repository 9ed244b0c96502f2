//! Several requests under way in one task.

use std::future::Future;
use std::pin::Pin;
use std::task::Poll;
use synod_txn::client::Reply;

type Delivery<'a> = Pin<Box<dyn Future<Output = Reply> + Send + 'a>>;

/// Requests under way. They are few (one per shard of a transaction), so all
/// are polled whenever one may have moved; no task is spawned.
#[derive(Default)]
pub(crate) struct Flight<'a> {
    deliveries: Vec<(u64, Delivery<'a>)>,
}

impl<'a> Flight<'a> {
    pub(crate) fn push(&mut self, token: u64, delivery: impl Future<Output = Reply> + Send + 'a) {
        self.deliveries.push((token, Box::pin(delivery)));
    }

    /// The next one that is done; none if none is under way.
    pub(crate) async fn next(&mut self) -> Option<(u64, Reply)> {
        std::future::poll_fn(|context| {
            if self.deliveries.is_empty() {
                return Poll::Ready(None);
            }
            for index in 0..self.deliveries.len() {
                let (token, delivery) = &mut self.deliveries[index];
                if let Poll::Ready(reply) = delivery.as_mut().poll(context) {
                    let token = *token;
                    drop(self.deliveries.swap_remove(index));
                    return Poll::Ready(Some((token, reply)));
                }
            }
            Poll::Pending
        })
        .await
    }
}
