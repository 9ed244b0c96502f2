//! Streams: hellos, frames, and what is in the frames.

use crate::codec;
use bytes::BytesMut;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fmt::Debug;
use synod_rpc::frame::{self, FrameError, FrameReader, HEADER_BYTES, MAX_FRAME_BYTES};
use synod_rpc::hello::{PREFIX_BYTES, StreamHello};
use synod_rpc::{ClientFrame, ServerFrame};
use synod_shard::NodeMessage;

/// The bodies of the frames in a stream that arrives in pieces, and how it ends.
fn bodies(stream: &[u8], piece: usize) -> (Vec<Vec<u8>>, Option<FrameError>) {
    let mut reader = FrameReader::default();
    let mut found = Vec::new();
    for bytes in stream.chunks(piece.max(1)) {
        reader.push(bytes);
        loop {
            match reader.next_frame() {
                Ok(Some(body)) => found.push(body.to_vec()),
                Ok(None) => break,
                Err(error) => return (found, Some(error)),
            }
        }
    }
    (found, None)
}

/// A stream's bytes: its frames are the same however it is cut, no byte is
/// invented, and a claimed length takes no memory.
pub fn frames(bytes: &[u8]) {
    let whole = codec::bounded(bytes, |bytes| bodies(bytes, bytes.len()));
    for piece in [1, 3, 7, 1 + bytes.len() / 2] {
        assert_eq!(bodies(bytes, piece), whole, "in pieces of {piece}");
    }
    let (bodies, end) = whole;
    let mut again = Vec::new();
    for body in &bodies {
        assert!(body.len() <= MAX_FRAME_BYTES);
        again.extend_from_slice(&(body.len() as u32).to_le_bytes());
        again.extend_from_slice(body);
    }
    assert!(bytes.starts_with(&again));
    match end {
        Some(_) => assert!(bytes.len() >= again.len() + HEADER_BYTES),
        None => assert!(bytes.len() - again.len() < HEADER_BYTES + MAX_FRAME_BYTES),
    }
    for body in bodies {
        let mut messages: Vec<NodeMessage> = Vec::new();
        let _ = frame::decode_all(&body, &mut messages);
    }
}

/// A frame's body as one `T`: nothing may be left over, and what decodes goes
/// back into a frame.
fn body<T: Serialize + DeserializeOwned + Debug + PartialEq>(bytes: &[u8]) {
    codec::any_bytes::<T>(bytes);
    let Ok(value) = codec::bounded(bytes, frame::decode::<T>) else {
        return;
    };
    let mut out = BytesMut::from(&b"before"[..]);
    frame::encode(&value, &mut out).expect("no larger than it came");
    let sent = &out[6..];
    assert!(sent.len() <= HEADER_BYTES + bytes.len());
    let (found, end) = bodies(sent, 2);
    assert_eq!((found.len(), end), (1, None));
    assert_eq!(frame::decode::<T>(&found[0]), Ok(value));
}

/// A body as what a client sends.
pub fn client_frame(bytes: &[u8]) {
    body::<ClientFrame>(bytes);
}

/// A body as what a node answers.
pub fn server_frame(bytes: &[u8]) {
    body::<ServerFrame>(bytes);
}

/// A body as what a node sends to a node: several messages, all or an error.
pub fn node_frame(bytes: &[u8]) {
    codec::any_bytes::<NodeMessage>(bytes);
    let mut messages: Vec<NodeMessage> = Vec::new();
    if codec::bounded(bytes, |bytes| frame::decode_all(bytes, &mut messages)).is_err() {
        return;
    }
    let mut out = BytesMut::new();
    let (count, left_out) = frame::encode_all(&messages, &mut out);
    assert_eq!(left_out, 0);
    let (found, end) = bodies(&out, out.len());
    assert_eq!((found.len() as u64, end), (count, None));
    let mut back: Vec<NodeMessage> = Vec::new();
    for body in found {
        frame::decode_all(&body, &mut back).expect("what was encoded decodes");
    }
    assert_eq!(back, messages);
}

/// The first bytes of a stream.
pub fn hello(bytes: &[u8]) {
    let Some((prefix, rest)) = bytes.split_first_chunk::<{ PREFIX_BYTES + HEADER_BYTES }>() else {
        return;
    };
    let Ok(length) = StreamHello::check_prefix(prefix) else {
        return;
    };
    assert!(length <= 1 << 10, "a hello is small");
    let Some(body) = rest.get(..length) else {
        return;
    };
    if let Ok(hello) = StreamHello::decode(body) {
        let mut out = BytesMut::new();
        hello.encode(&mut out);
        assert!(out.len() <= bytes.len());
        let (prefix, body) = out.split_at(PREFIX_BYTES + HEADER_BYTES);
        let prefix = prefix.first_chunk().expect("a prefix");
        assert_eq!(StreamHello::check_prefix(prefix), Ok(body.len()));
        assert_eq!(StreamHello::decode(body), Ok(hello));
    }
}

/// Values of every type, one of which the first choice names.
pub fn value(choices: &[u8]) {
    match choices.split_first() {
        Some((0..=129, rest)) => codec::any_value::<ClientFrame>(rest),
        Some((130..=229, rest)) => codec::any_value::<ServerFrame>(rest),
        Some((230..=255, rest)) => codec::any_value::<StreamHello>(rest),
        None => {}
    }
}
