//! A client's link to one node: the calls that wait and the bytes to send. The
//! task that connects, writes and reads is in [`crate::connect`].

use crate::close::CloseCode;
use crate::endpoint::lock;
use crate::error::CallError;
use crate::frame;
use crate::pool::Shared;
use crate::wire::{ClientFrame, ServerBody, ServerFrame};
use bytes::{Bytes, BytesMut};
use serde::Serialize;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::sync::{Notify, oneshot};

type Answer = Result<ServerBody, CallError>;

/// A call that waits for its answer.
struct Pending {
    answer: oneshot::Sender<Answer>,
    deadline: Instant,
    /// Where its frame begins, counted in bytes ever queued.
    at: u64,
}

#[derive(Default)]
struct State {
    out: BytesMut,
    pending: HashMap<u64, Pending>,
    next_id: u64,
    /// Bytes ever queued.
    queued: u64,
    /// Bytes ever taken for writing; what was queued before may have reached the node.
    taken: u64,
    connection: Option<quinn::Connection>,
    /// Datagrams received when last looked, and since when there are no more.
    heard: Option<(u64, Instant)>,
    /// The node has shut down in order and was not reached since: calls fail at
    /// once, so that whoever makes them turns to another node.
    left: bool,
    closed: bool,
}

/// A link.
pub(crate) struct Link {
    pub(crate) address: SocketAddr,
    state: Mutex<State>,
    pub(crate) wake: Notify,
}

/// A call under way. Dropped before its answer, it is forgotten.
pub(crate) struct Call {
    link: Arc<Link>,
    id: u64,
    answer: oneshot::Receiver<Answer>,
    answered: bool,
    /// Whether the node is told if nobody waits any more.
    cancels: bool,
}

impl Call {
    /// Given up, it goes on all the same: the node need not hear of that.
    pub(crate) fn that_goes_on(mut self) -> Call {
        self.cancels = false;
        self
    }

    /// Waits for the answer.
    pub(crate) async fn answer(mut self) -> Answer {
        let answer = (&mut self.answer).await;
        self.answered = true;
        // The link answers every call before it lets go of it.
        answer.unwrap_or(Err(CallError::Closed))
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        if !self.answered {
            self.link.forget(self.id, self.cancels);
        }
    }
}

impl Link {
    pub(crate) fn new(address: SocketAddr) -> Link {
        Link {
            address,
            state: Mutex::default(),
            wake: Notify::new(),
        }
    }

    /// Queues a request: the frame that carries it under the number given.
    pub(crate) fn submit<T: Serialize>(
        self: &Arc<Link>,
        shared: &Shared,
        numbered: impl FnOnce(u64) -> T,
        deadline: Instant,
    ) -> Result<Call, CallError> {
        let address = self.address;
        let mut state = lock(&self.state);
        if state.closed {
            return Err(CallError::Closed);
        }
        if state.left {
            return Err(CallError::Connect {
                address,
                reason: "the node has shut down".to_owned(),
            });
        }
        if state.pending.len() >= shared.options.max_outstanding
            || state.out.len() >= shared.options.queue_bytes
        {
            return Err(CallError::Overloaded { address });
        }
        let id = state.next_id;
        state.next_id += 1;
        let at = state.queued;
        state.queue(&numbered(id))?;
        let (answer, receiver) = oneshot::channel();
        let pending = Pending {
            answer,
            deadline,
            at,
        };
        state.pending.insert(id, pending);
        drop(state);
        self.wake.notify_one();
        shared.watch();
        Ok(Call {
            link: self.clone(),
            id,
            answer: receiver,
            answered: false,
            cancels: true,
        })
    }

    /// Queues a frame that has no answer, if the link is up.
    pub(crate) fn tell(&self, frame: &ClientFrame) {
        let mut state = lock(&self.state);
        if state.connection.is_some() && state.queue(frame).is_ok() {
            drop(state);
            self.wake.notify_one();
        }
    }

    /// Nobody waits for this call any more.
    fn forget(&self, id: u64, cancels: bool) {
        let mut state = lock(&self.state);
        if let Some(pending) = state.pending.remove(&id)
            && cancels
        {
            state.cancel(id, &pending);
            drop(state);
            self.wake.notify_one();
        }
    }

    /// The round trip of the connection, if there is one.
    pub(crate) fn rtt(&self) -> Option<Duration> {
        lock(&self.state)
            .connection
            .as_ref()
            .map(quinn::Connection::rtt)
    }

    pub(crate) fn is_waiting(&self) -> bool {
        !lock(&self.state).pending.is_empty()
    }

    /// Whether it is worth keeping; if not, it is closed.
    pub(crate) fn in_use(&self) -> bool {
        let mut state = lock(&self.state);
        let used = !state.pending.is_empty() || state.connection.is_some();
        state.closed |= !used;
        drop(state);
        if !used {
            self.wake.notify_one();
        }
        used
    }

    /// Ends all calls and the task.
    pub(crate) fn close(&self) {
        let mut state = lock(&self.state);
        state.closed = true;
        for (_, pending) in state.pending.drain() {
            let _ = pending.answer.send(Err(CallError::Closed));
        }
        if let Some(connection) = state.connection.take() {
            connection.close(CloseCode::Shutdown.var(), b"the client is done");
        }
        drop(state);
        self.wake.notify_one();
    }

    /// Ends calls that are over their deadline, and the connection if the node
    /// has been silent; returns how many calls wait still.
    pub(crate) fn sweep(&self, now: Instant, silence: Duration) -> usize {
        let mut state = lock(&self.state);
        if state.pending.is_empty() {
            state.heard = None;
            return 0;
        }
        let late: Vec<u64> = state
            .pending
            .iter()
            .filter(|(_, p)| p.deadline <= now)
            .map(|(id, _)| *id)
            .collect();
        for id in &late {
            if let Some(pending) = state.pending.remove(id) {
                let sent = state.cancel(*id, &pending);
                let error = CallError::Deadline {
                    address: self.address,
                    sent,
                };
                let _ = pending.answer.send(Err(error));
            }
        }
        if state.is_silent(now, silence)
            && let Some(connection) = state.connection.take()
        {
            connection.close(CloseCode::Shutdown.var(), b"no sign of life");
        }
        let waiting = state.pending.len();
        drop(state);
        if !late.is_empty() {
            self.wake.notify_one();
        }
        waiting
    }

    /// Ends calls after a connection attempt failed or the connection was
    /// refused: all of them, since none was looked at.
    pub(crate) fn fail_all(&self, error: &CallError) {
        let mut state = lock(&self.state);
        state.connection = None;
        state.out.clear();
        state.taken = state.queued;
        for (_, pending) in state.pending.drain() {
            let _ = pending.answer.send(Err(error.clone()));
        }
    }

    /// Ends the calls that a lost stream may have carried; the others wait for
    /// the next one.
    pub(crate) fn fail_sent(&self, reason: &str) {
        let mut state = lock(&self.state);
        let taken = state.taken;
        for (_, pending) in state.pending.extract_if(|_, p| p.at < taken) {
            let error = CallError::Lost {
                address: self.address,
                reason: reason.to_owned(),
                sent: true,
            };
            let _ = pending.answer.send(Err(error));
        }
    }

    /// Hands out answers.
    pub(crate) fn deliver(&self, answers: &mut Vec<ServerFrame>) {
        let mut ready = Vec::with_capacity(answers.len());
        {
            let mut state = lock(&self.state);
            for frame in answers.drain(..) {
                // An answer to a call that was given up: nobody misses it.
                if let Some(pending) = state.pending.remove(&frame.id()) {
                    ready.push((pending.answer, frame));
                }
            }
        }
        for (answer, frame) in ready {
            let _ = answer.send(Ok(frame.into()));
        }
    }

    /// Waits until a call waits; false once the link is closed.
    pub(crate) async fn work(&self) -> bool {
        loop {
            {
                let state = lock(&self.state);
                if state.closed {
                    return false;
                }
                if !state.pending.is_empty() || state.left {
                    return true;
                }
            }
            self.wake.notified().await;
        }
    }

    /// Takes everything that is to be written; empty if there is nothing.
    pub(crate) fn take(&self) -> Bytes {
        let mut state = lock(&self.state);
        state.taken = state.queued;
        state.out.split().freeze()
    }

    /// The connection is no more; what it may have carried is lost.
    pub(crate) fn disconnected(&self, reason: &str) {
        lock(&self.state).connection = None;
        self.fail_sent(reason);
    }

    /// The node has shut down: what the connection may have carried is lost, the
    /// other calls were never sent.
    pub(crate) fn leave(&self, reason: &str) {
        self.disconnected(reason);
        let error = CallError::Connect {
            address: self.address,
            reason: reason.to_owned(),
        };
        self.fail_all(&error);
        lock(&self.state).left = true;
    }

    /// The node has been gone for long: it is tried again when it is asked for.
    pub(crate) fn give_up(&self) {
        lock(&self.state).left = false;
    }

    /// Takes over a new connection; false if the link was closed meanwhile.
    pub(crate) fn connected(&self, connection: &quinn::Connection) -> bool {
        let mut state = lock(&self.state);
        if !state.closed {
            state.connection = Some(connection.clone());
            state.heard = None;
            state.left = false;
        }
        !state.closed
    }
}

impl State {
    /// Appends a frame.
    fn queue(&mut self, frame: &impl Serialize) -> Result<(), CallError> {
        let before = self.out.len();
        frame::encode_request(frame, &mut self.out).map_err(|_| CallError::TooLarge)?;
        self.queued += (self.out.len() - before) as u64;
        Ok(())
    }

    /// Takes a call back; whether the node may have got it.
    fn cancel(&mut self, id: u64, pending: &Pending) -> bool {
        let sent = pending.at < self.taken;
        // Even if it was not sent yet, it will be: it lies in `out`.
        let _ = self.queue(&ClientFrame::Cancel { id });
        sent
    }

    /// Whether nothing at all has come for too long while calls waited.
    fn is_silent(&mut self, now: Instant, silence: Duration) -> bool {
        let Some(connection) = &self.connection else {
            return false;
        };
        match self.heard {
            // Statistics are a copy of some size; a look every tenth of the limit is enough.
            Some((_, since)) if now.saturating_duration_since(since) < silence / 10 => false,
            Some((before, since)) => {
                let received = connection.stats().udp_rx.datagrams;
                if received != before {
                    self.heard = Some((received, now));
                    return false;
                }
                now.saturating_duration_since(since) >= silence
            }
            None => {
                self.heard = Some((connection.stats().udp_rx.datagrams, now));
                false
            }
        }
    }
}
