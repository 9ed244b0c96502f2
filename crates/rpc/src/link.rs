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
use std::ops::Range;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::sync::{Notify, oneshot};

type Answer = Result<ServerBody, CallError>;

/// How often a node is asked for a sign of life before it is given up.
const SIGNS: u32 = 4;
/// A number that no call has.
const NO_CALL: u64 = u64::MAX;

/// A call that waits for its answer.
struct Pending {
    answer: oneshot::Sender<Answer>,
    deadline: Instant,
    /// Where its frame lies, counted in bytes ever queued.
    frame: Range<u64>,
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
    /// When it was last asked for a sign of life.
    asked: Option<Instant>,
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
            frame: at..state.queued,
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
        if state.pending.remove(&id).is_some() && cancels {
            // Even if it was not sent yet, it will be: it lies in `out`.
            state.cancel(id);
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
            state.asked = None;
            return 0;
        }
        let late = state.end_late(now, self.address);
        let quiet = state.quiet(now, silence);
        let asks = state.asks(now, quiet, silence / SIGNS);
        if quiet >= silence
            && let Some(connection) = state.connection.take()
        {
            connection.close(CloseCode::Shutdown.var(), b"no sign of life");
        }
        let waiting = state.pending.len();
        drop(state);
        if asks || late {
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
        for (_, pending) in state.pending.extract_if(|_, p| p.frame.start < taken) {
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

    /// Tells the node that nobody waits for this call any more.
    fn cancel(&mut self, id: u64) {
        // A frame of a few bytes always fits.
        let _ = self.queue(&ClientFrame::Cancel { id });
    }

    /// Ends the calls that are over their deadline; whether there were any. Who hears that a
    /// call was not sent may make it again, so it is not sent from then on.
    fn end_late(&mut self, now: Instant, address: SocketAddr) -> bool {
        let taken = self.taken;
        let late = self.pending.extract_if(|_, p| p.deadline <= now);
        let (mut sent, mut unsent) = (Vec::new(), Vec::new());
        for (id, pending) in late {
            let was_sent = pending.frame.start < taken;
            if was_sent {
                sent.push(id);
            } else {
                unsent.push(pending.frame);
            }
            let error = CallError::Deadline {
                address,
                sent: was_sent,
            };
            let _ = pending.answer.send(Err(error));
        }
        for id in &sent {
            self.cancel(*id);
        }
        let any = !sent.is_empty() || !unsent.is_empty();
        self.cut(unsent);
        any
    }

    /// Takes these frames out of what is to be sent.
    fn cut(&mut self, mut frames: Vec<Range<u64>>) {
        if frames.is_empty() {
            return;
        }
        frames.sort_unstable_by_key(|frame| frame.start);
        let mut kept = BytesMut::with_capacity(self.out.len());
        let mut from = self.taken;
        // Where each begins, and how much is gone once it is.
        let mut gone = Vec::with_capacity(frames.len());
        let mut bytes = 0;
        let part = |from: u64, to: u64| (from - self.taken) as usize..(to - self.taken) as usize;
        for frame in frames {
            kept.extend_from_slice(&self.out[part(from, frame.start)]);
            from = frame.end;
            bytes += frame.end - frame.start;
            gone.push((frame.start, bytes));
        }
        kept.extend_from_slice(&self.out[part(from, self.queued)]);
        self.out = kept;
        self.queued -= bytes;
        for pending in self.pending.values_mut() {
            let before = gone.partition_point(|(start, _)| *start < pending.frame.start);
            if before > 0 {
                let (_, bytes) = gone[before - 1];
                pending.frame = pending.frame.start - bytes..pending.frame.end - bytes;
            }
        }
    }

    /// For how long nothing at all has come while calls waited; zero if that is not known.
    fn quiet(&mut self, now: Instant, silence: Duration) -> Duration {
        let Some(connection) = &self.connection else {
            return Duration::ZERO;
        };
        if let Some((before, since)) = self.heard {
            let quiet = now.saturating_duration_since(since);
            // Statistics are a copy of some size; a look every tenth of the limit is enough.
            if quiet < silence / 10 || connection.stats().udp_rx.datagrams == before {
                return quiet;
            }
        }
        self.heard = Some((connection.stats().udp_rx.datagrams, now));
        Duration::ZERO
    }

    /// Asks for a sign of life if nothing has come for so long, nor was asked for; whether it did. An
    /// idle connection is hardly ever pinged: a node has thousands of them.
    fn asks(&mut self, now: Instant, quiet: Duration, pause: Duration) -> bool {
        let asked = self.asked.map(|at| now.saturating_duration_since(at));
        if quiet < pause || asked.is_some_and(|ago| ago < pause) {
            return false;
        }
        self.asked = Some(now);
        // Of no call, so that it only has to be acknowledged.
        self.queue(&ClientFrame::Cancel { id: NO_CALL }).is_ok()
    }
}
