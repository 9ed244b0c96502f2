//! The first bytes of every stream: who speaks, to whom, and about what.
//!
//! ```text
//! magic "SYNO" (4) ∥ format version u16 LE ∥ a frame with the StreamHello
//! ```

use crate::close::CloseCode;
use crate::frame::{self, FrameError};
use bytes::BytesMut;
use serde::{Deserialize, Serialize};
use synod_paxos::{Incarnation, NodeId};

/// The first four bytes of every stream.
pub const MAGIC: [u8; 4] = *b"SYNO";
/// The format of what follows; another one is refused.
pub const FORMAT: u16 = 1;
/// Bytes before the hello's frame.
pub const PREFIX_BYTES: usize = MAGIC.len() + 2;
/// Bytes a hello's frame may have.
const MAX_HELLO_BYTES: usize = 1 << 10;

/// What a stream is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum StreamKind {
    /// One-way, node to node: consensus, leases, two-phase commit.
    Consensus(Speaker),
    /// One-way, node to node: snapshots.
    Bulk(Speaker),
    /// Both ways: requests and answers.
    Requests,
}

/// The nodes at both ends of a one-way stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Speaker {
    /// Who sends.
    pub from: NodeId,
    /// Which start of it.
    pub incarnation: Incarnation,
    /// Who is meant. An address may have passed to another node meanwhile.
    pub to: NodeId,
}

/// The first frame of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamHello {
    /// The cluster, as the sender's CA names it.
    pub cluster: u128,
    /// What the stream is for.
    pub kind: StreamKind,
}

impl StreamHello {
    /// Appends magic, format version and hello.
    pub fn encode(&self, out: &mut BytesMut) {
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&FORMAT.to_le_bytes());
        // A hello is some 60 bytes; it always fits.
        let _ = frame::encode(self, out);
    }

    /// Reads what stands before the hello's frame and gives the length of that
    /// frame's body, which is bounded.
    ///
    /// # Errors
    /// If it is none of Synod's streams, of another format, or too long; the
    /// code and the reason are what the stream is closed with.
    pub fn check_prefix(
        prefix: &[u8; PREFIX_BYTES + frame::HEADER_BYTES],
    ) -> Result<usize, (CloseCode, String)> {
        let [m0, m1, m2, m3, f0, f1, l0, l1, l2, l3] = *prefix;
        if [m0, m1, m2, m3] != MAGIC {
            return Err((
                CloseCode::BadHello,
                "the stream does not begin as Synod's do".to_owned(),
            ));
        }
        let format = u16::from_le_bytes([f0, f1]);
        if format != FORMAT {
            return Err((
                CloseCode::BadHello,
                format!(
                    "stream format {format} is not known here (this is {FORMAT}): upgrade the older side"
                ),
            ));
        }
        let length = u32::from_le_bytes([l0, l1, l2, l3]) as usize;
        if length > MAX_HELLO_BYTES {
            return Err((CloseCode::BadHello, format!("a hello of {length} bytes")));
        }
        Ok(length)
    }

    /// Reads the body of the hello's frame.
    ///
    /// # Errors
    /// If it is no hello; the code and the reason are what the stream is closed with.
    pub fn decode(body: &[u8]) -> Result<StreamHello, (CloseCode, String)> {
        frame::decode(body).map_err(|e: FrameError| (CloseCode::BadHello, e.to_string()))
    }
}
