//! The answers owed and queued on one request stream.

use crate::close::CloseCode;
use crate::endpoint::{Shared, count, lock};
use crate::frame;
use crate::server::Refused;
use crate::wire::{ClientFrame, NodeResponse, ServerFrame};
use bytes::BytesMut;
use quinn::SendStream;
use std::collections::HashSet;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use synod_shard::ShardReply;
use synod_txn::Response;
use synod_txn::request::Refusal;
use tokio::sync::Notify;

/// What an overloaded client is told to wait.
const RETRY_AFTER_MILLIS: u32 = 20;
/// How long an answer that nobody waits for may take to leave.
const LATER: Duration = Duration::from_millis(5);

#[derive(Default)]
struct ReplyState {
    out: BytesMut,
    /// Bytes of it, and of what is being written.
    waiting: usize,
    /// Requests that are owed an answer.
    owed: HashSet<u64>,
    /// Whether the loop has heard of this stream.
    seen: bool,
    /// Whether the stream is woken before long for what is not urgent.
    later: bool,
    closed: bool,
}

/// The answers that wait to be written to one request stream.
pub(crate) struct ReplyQueue {
    state: Mutex<ReplyState>,
    wake: Notify,
    connection: quinn::Connection,
}

impl ReplyQueue {
    pub(crate) fn new(connection: quinn::Connection) -> ReplyQueue {
        ReplyQueue {
            state: Mutex::default(),
            wake: Notify::new(),
            connection,
        }
    }

    /// Keeps the books on what is owed; gives the frame back if the loop is to see it.
    pub(crate) fn admit(
        self: &Arc<Self>,
        shared: &Shared,
        frame: ClientFrame,
    ) -> Result<Option<ClientFrame>, Refused> {
        let mut state = lock(&self.state);
        state.seen = true;
        let (id, overloaded) = match &frame {
            ClientFrame::KeepAlive { .. } => return Ok(Some(frame)),
            ClientFrame::Cancel { id } => {
                return Ok(state.owed.remove(id).then_some(frame));
            }
            ClientFrame::Request { id, .. } | ClientFrame::Hashed { id, .. } => {
                (*id, overloaded_shard(*id))
            }
            ClientFrame::Node { id, .. } => (*id, overloaded_node(*id)),
        };
        let room = state.owed.len() < shared.options.max_outstanding;
        if !state.owed.insert(id) {
            return Err((
                CloseCode::BadFrame,
                format!("request {id} is asked again while it is unanswered"),
            ));
        }
        drop(state);
        if room {
            return Ok(Some(frame));
        }
        count(&shared.counts.overloaded, 1);
        self.reply(shared, &overloaded);
        Ok(None)
    }

    /// Queues an answer, if it is still owed.
    pub(crate) fn reply(self: &Arc<Self>, shared: &Shared, frame: &ServerFrame) {
        let mut state = lock(&self.state);
        if state.closed || !state.owed.remove(&frame.id()) {
            return;
        }
        let before = state.out.len();
        if frame::encode(frame, &mut state.out).is_err() {
            tracing::warn!(id = frame.id(), "an answer is larger than a frame");
            // A refusal is small and always fits.
            let _ = frame::encode(&too_large(frame), &mut state.out);
        }
        count(&shared.counts.frames_out, 1);
        let added = state.out.len() - before;
        state.waiting += added;
        let all = shared.reply_bytes.fetch_add(added, Ordering::Relaxed) + added;
        let slow = state.out.len() > shared.options.reply_bytes;
        if slow {
            state.close(shared);
        }
        let later = is_unhurried(frame) && !slow;
        let alone = later && !std::mem::replace(&mut state.later, true);
        drop(state);
        if all > shared.options.all_reply_bytes && !slow {
            close_slowest(shared);
        }
        if alone {
            let queue = self.clone();
            tokio::spawn(async move {
                tokio::time::sleep(LATER).await;
                let mut state = lock(&queue.state);
                state.later = false;
                if !state.out.is_empty() {
                    queue.wake.notify_one();
                }
            });
        }
        if later {
            return;
        }
        if slow {
            self.close_as_slow(shared);
        }
        self.wake.notify_one();
    }

    fn close_as_slow(&self, shared: &Shared) {
        count(&shared.counts.slow_readers, 1);
        tracing::warn!(address = %self.connection.remote_address(), "closing: the client does not read its answers");
        self.connection.close(
            CloseCode::SlowReader.var(),
            b"answers were not read; ask for less at once",
        );
    }

    /// Writes answers, everything queued at once, until the stream fails.
    pub(crate) async fn write(&self, shared: &Shared, send: &mut SendStream) {
        loop {
            let batch = lock(&self.state).out.split().freeze();
            if batch.is_empty() {
                tokio::select! {
                    () = self.wake.notified() => {}
                    _ = send.stopped() => return,
                }
                continue;
            }
            let bytes = batch.len();
            count(&shared.counts.bytes_out, bytes as u64);
            if send.write_chunk(batch).await.is_err() {
                return;
            }
            let mut state = lock(&self.state);
            let written = bytes.min(state.waiting);
            state.waiting -= written;
            shared.reply_bytes.fetch_sub(written, Ordering::Relaxed);
        }
    }

    /// Takes no more answers; whether the loop has heard of the stream.
    pub(crate) fn close(&self, shared: &Shared) -> bool {
        let mut state = lock(&self.state);
        state.close(shared);
        state.seen
    }
}

impl ReplyState {
    /// Takes no more answers, and forgets those that wait: at once, or whoever counts them next would
    /// close another connection for the same bytes.
    fn close(&mut self, shared: &Shared) {
        self.closed = true;
        self.out = BytesMut::new();
        let left = std::mem::take(&mut self.waiting);
        shared.reply_bytes.fetch_sub(left, Ordering::Relaxed);
    }
}

/// Closes the connection for whose client most answers wait.
fn close_slowest(shared: &Shared) {
    let queues: Vec<Arc<ReplyQueue>> = lock(&shared.replies).values().cloned().collect();
    let waiting = |queue: &Arc<ReplyQueue>| {
        let state = lock(&queue.state);
        (!state.closed && state.waiting > 0).then_some(state.waiting)
    };
    let open = queues.iter().filter_map(|q| Some((waiting(q)?, q)));
    if let Some((_, slowest)) = open.max_by_key(|(bytes, _)| *bytes) {
        lock(&slowest.state).close(shared);
        slowest.close_as_slow(shared);
    }
}

/// Whether nobody waits for this answer: that a participant's vote is on its way changes nothing for
/// the client, whom the coordinator tells the outcome. So such answers leave with the next one, or
/// after a while. (The coordinator itself says so only to a copy of its Commit: the client asks then
/// how it ended, a little later.)
const fn is_unhurried(frame: &ServerFrame) -> bool {
    let ServerFrame::Response { reply, .. } = frame else {
        return false;
    };
    matches!(reply, ShardReply::Response(Response::Voting))
}

fn overloaded_shard(id: u64) -> ServerFrame {
    let refusal = Refusal::Overloaded {
        retry_after_millis: RETRY_AFTER_MILLIS,
    };
    ServerFrame::Response {
        id,
        reply: ShardReply::Response(Response::Refused(refusal)),
    }
}

fn overloaded_node(id: u64) -> ServerFrame {
    ServerFrame::Node {
        id,
        response: NodeResponse::Overloaded {
            retry_after_millis: RETRY_AFTER_MILLIS,
        },
    }
}

/// What is said instead of an answer that fits no frame.
fn too_large(frame: &ServerFrame) -> ServerFrame {
    let reason = format!(
        "the answer is larger than {} bytes: ask for less at once",
        frame::MAX_FRAME_BYTES
    );
    match frame {
        ServerFrame::Response { id, .. } => ServerFrame::Response {
            id: *id,
            reply: ShardReply::Response(Response::Refused(Refusal::Invalid(reason))),
        },
        ServerFrame::Node { id, .. } => ServerFrame::Node {
            id: *id,
            response: NodeResponse::Refused { reason },
        },
    }
}
