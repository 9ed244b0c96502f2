//! Reads a stream in big pieces and cuts them into frames.
//!
//! Of a large request nothing can be told before all of it is there. So that many who send such
//! ones at once, or who begin and do not go on, do not fill the node's memory, each is read only once
//! there is room for all of it, and must come at some pace then. What is not read stays with its
//! sender, by QUIC's flow control.

use crate::close::CloseCode;
use crate::endpoint::{Shared, count};
use crate::events::Kind;
use crate::frame::{FrameError, FrameReader, HEADER_BYTES};
use crate::server::Refused;
use crate::transport::READ_CHUNKS;
use bytes::Bytes;
use quinn::RecvStream;
use std::time::{Duration, Instant};
use tokio::sync::SemaphorePermit;
use tokio::time::timeout;

/// A request of more bytes is large.
const LARGE: usize = 1 << 20;
/// A large request that there is room for may take so long, and as long as it takes at the pace.
const PATIENCE: Duration = Duration::from_secs(5);
/// Bytes per second.
const PACE: usize = 1 << 20;

pub(crate) fn bad_frame(error: FrameError) -> Refused {
    (CloseCode::BadFrame, error.to_string())
}

/// A large request that is being read.
struct Large<'a> {
    /// Its room.
    _permit: SemaphorePermit<'a>,
    /// The time it may take still.
    left: Duration,
}

/// See the module.
pub(crate) struct StreamReader<'a> {
    shared: &'a Shared,
    frames: FrameReader,
    chunks: [Bytes; READ_CHUNKS],
    large: Option<Large<'a>>,
    taken: usize,
}

impl<'a> StreamReader<'a> {
    pub(crate) fn new(shared: &'a Shared, frames: FrameReader) -> StreamReader<'a> {
        StreamReader {
            shared,
            frames,
            chunks: Default::default(),
            large: None,
            taken: 0,
        }
    }

    /// Waits for room, then for bytes; false once the stream ended.
    pub(crate) async fn fill(
        &mut self,
        kind: Kind,
        recv: &mut RecvStream,
    ) -> Result<bool, Refused> {
        self.shared.events.room(kind).await;
        if kind == Kind::Clients {
            self.room_for_large().await;
        }
        self.frames.make_room();
        let reading = recv.read_chunks(&mut self.chunks);
        let read = if let Some(large) = &mut self.large {
            let begun = Instant::now();
            let Ok(read) = timeout(large.left, reading).await else {
                let reason = format!("a request of more than {LARGE} bytes comes too slowly");
                return Err((CloseCode::SlowWriter, reason));
            };
            large.left = large.left.saturating_sub(begun.elapsed());
            read
        } else {
            reading.await
        };
        let Ok(Some(read)) = read else {
            return Ok(false);
        };
        let mut bytes = 0;
        for chunk in &mut self.chunks[..read] {
            let chunk = std::mem::take(chunk);
            bytes += chunk.len();
            self.frames.push(&chunk);
        }
        count(&self.shared.counts.bytes_in, bytes as u64);
        Ok(true)
    }

    /// Waits for room for the frame that has begun, if it is a large one.
    async fn room_for_large(&mut self) {
        let Some(length) = self.frames.begun() else {
            return;
        };
        if length <= LARGE || self.large.is_some() {
            return;
        }
        // The reader has refused what is longer than there ever is room for.
        let bytes = u32::try_from(length).unwrap_or(u32::MAX);
        if let Ok(permit) = self.shared.large.acquire_many(bytes).await {
            let pace = Duration::from_secs_f64(length as f64 / PACE as f64);
            self.large = Some(Large {
                _permit: permit,
                left: PATIENCE + pace,
            });
        }
    }

    /// The body of the next complete frame.
    pub(crate) fn next(&mut self) -> Result<Option<Bytes>, Refused> {
        let frame = self.frames.next_frame().map_err(bad_frame)?;
        if let Some(body) = &frame {
            self.large = None;
            self.taken += HEADER_BYTES + body.len();
            count(&self.shared.counts.frames_in, 1);
        }
        Ok(frame)
    }

    /// Bytes of the frames taken since the last call.
    pub(crate) fn taken(&mut self) -> usize {
        std::mem::take(&mut self.taken)
    }
}
