//! Several requests under way in one task.

use futures_util::stream::{FuturesUnordered, StreamExt};
use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;
use synod_txn::client::Reply;

type Delivery<'a> = Pin<Box<dyn Future<Output = (u64, Reply)> + Send + 'a>>;

/// Requests under way, at most one per shard of a transaction and so up to a
/// thousand. Only those that may have moved are polled; no task is spawned.
#[derive(Default)]
pub(crate) struct Flight<'a> {
    deliveries: FuturesUnordered<Delivery<'a>>,
    /// Done, and not asked for yet.
    done: VecDeque<(u64, Reply)>,
}

impl<'a> Flight<'a> {
    pub(crate) fn push(&mut self, token: u64, delivery: impl Future<Output = Reply> + Send + 'a) {
        self.deliveries
            .push(Box::pin(async move { (token, delivery.await) }));
    }

    /// Lets all that was pushed leave, before more is made.
    pub(crate) async fn depart(&mut self) {
        poll_fn(|cx| {
            while let Poll::Ready(Some(done)) = self.deliveries.poll_next_unpin(cx) {
                self.done.push_back(done);
            }
            Poll::Ready(())
        })
        .await;
        // The tasks that write may be this thread's: the link's first, then the connection's.
        tokio::task::yield_now().await;
        tokio::task::yield_now().await;
    }

    /// Lets those under way learn what their answers tell, for so long at most.
    pub(crate) async fn listen(&mut self, grace: Duration) {
        let all = async { while self.deliveries.next().await.is_some() {} };
        // What comes later is not missed.
        let _ = tokio::time::timeout(grace, all).await;
    }

    /// The next one that is done; none if none is under way.
    pub(crate) async fn next(&mut self) -> Option<(u64, Reply)> {
        match self.done.pop_front() {
            Some(done) => Some(done),
            None => self.deliveries.next().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::{pending, ready};
    use std::sync::atomic::{AtomicU32, Ordering};

    #[tokio::test]
    async fn who_departs_has_been_begun_and_what_is_done_is_kept() {
        let begun = AtomicU32::new(0);
        let leave = async |reply: Option<Reply>| {
            begun.fetch_add(1, Ordering::Relaxed);
            match reply {
                Some(reply) => ready(reply).await,
                None => pending().await,
            }
        };
        let mut flight = Flight::default();
        flight.push(1, leave(None));
        flight.push(2, leave(Some(Reply::Lost)));
        flight.depart().await;
        assert_eq!(begun.load(Ordering::Relaxed), 2);
        flight.push(3, leave(Some(Reply::Moved)));
        assert_eq!(flight.next().await, Some((2, Reply::Lost)));
        assert_eq!(flight.next().await, Some((3, Reply::Moved)));
        // The one that never ends is not waited for.
        flight.listen(Duration::from_millis(1)).await;
    }
}
