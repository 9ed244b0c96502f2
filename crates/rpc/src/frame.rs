//! Frames: a length, four bytes little-endian, and that many bytes of postcard.
//!
//! A frame carries no checksum of its own: every QUIC packet is sealed by
//! AES-GCM, and a stream delivers exactly the bytes that were sealed. Magic,
//! format version and cluster id are in the hello that every stream begins
//! with ([`crate::hello`]).

use bytes::{Buf, Bytes, BytesMut};
use postcard::ser_flavors::Flavor;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Bytes in front of every frame's body.
pub const HEADER_BYTES: usize = 4;

/// Bytes of one frame's body, at most: a value of 8 MiB, a scan's 4 MiB or an
/// entry with its keys fits with room to spare.
pub const MAX_FRAME_BYTES: usize = (12 << 20) + (64 << 10);

/// Bytes of the body of a frame from a client, at most: all writes of the largest
/// transaction (64 MiB) may concern one shard, with the names of its participants.
pub const MAX_REQUEST_BYTES: usize = (64 << 20) + (4 << 20);

/// A reader's buffer that held a frame larger than this is given back.
const KEPT_BYTES: usize = 64 << 10;

/// A node frame is closed and the next one begun once it has grown to this.
const FULL_FRAME_BYTES: usize = 1 << 20;

/// What can be wrong with a frame. Neither is cured by sending it again.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Its body would be, or claims to be, too long.
    #[error("a frame is larger than one may be there: send less in one message")]
    TooLarge,
    /// Its body is not what was expected there.
    #[error("a frame of {bytes} bytes cannot be decoded: {reason}")]
    Undecodable {
        /// The length of its body.
        bytes: usize,
        /// What the decoder says.
        reason: String,
    },
}

/// Appends to a buffer and refuses to outgrow a frame.
struct Bounded<'a> {
    out: &'a mut BytesMut,
    end: usize,
}

impl Flavor for Bounded<'_> {
    type Output = ();

    fn try_extend(&mut self, data: &[u8]) -> postcard::Result<()> {
        if data.len() > self.end - self.out.len() {
            return Err(postcard::Error::SerializeBufferFull);
        }
        self.out.extend_from_slice(data);
        Ok(())
    }

    fn try_push(&mut self, data: u8) -> postcard::Result<()> {
        self.try_extend(&[data])
    }

    fn finalize(self) -> postcard::Result<()> {
        Ok(())
    }
}

/// Appends `value` to `out`, whose frame's body began at `body`. On an error
/// `out` is as it was.
fn append<T: Serialize>(
    value: &T,
    out: &mut BytesMut,
    body: usize,
    limit: usize,
) -> Result<(), FrameError> {
    let before = out.len();
    let end = body + limit;
    postcard::serialize_with_flavor(value, Bounded { out, end }).map_err(|error| {
        out.truncate(before);
        match error {
            postcard::Error::SerializeBufferFull => FrameError::TooLarge,
            other => FrameError::Undecodable {
                bytes: 0,
                reason: other.to_string(),
            },
        }
    })
}

/// Writes the length of the frame that began at `start` and ends with `out`.
fn seal(out: &mut BytesMut, start: usize) {
    let body = out.len() - start - HEADER_BYTES;
    debug_assert!(body <= MAX_REQUEST_BYTES);
    out[start..start + HEADER_BYTES].copy_from_slice(&(body as u32).to_le_bytes());
}

/// Appends `value` to `out` as one frame. On an error `out` is as it was.
///
/// # Errors
/// [`FrameError::TooLarge`] if the frame would be too long.
pub fn encode<T: Serialize>(value: &T, out: &mut BytesMut) -> Result<(), FrameError> {
    encode_within(value, out, MAX_FRAME_BYTES)
}

/// As [`encode`], for what a client sends.
///
/// # Errors
/// As [`encode`].
pub fn encode_request<T: Serialize>(value: &T, out: &mut BytesMut) -> Result<(), FrameError> {
    encode_within(value, out, MAX_REQUEST_BYTES)
}

fn encode_within<T: Serialize>(
    value: &T,
    out: &mut BytesMut,
    limit: usize,
) -> Result<(), FrameError> {
    let start = out.len();
    out.extend_from_slice(&[0; HEADER_BYTES]);
    match append(value, out, start + HEADER_BYTES, limit) {
        Ok(()) => {
            seal(out, start);
            Ok(())
        }
        Err(error) => {
            out.truncate(start);
            Err(error)
        }
    }
}

/// Appends `values` to `out` in frames that hold several, back to back. Values
/// that fit no frame are left out; returns how many frames were written and
/// how many values left out.
pub fn encode_all<T: Serialize>(values: &[T], out: &mut BytesMut) -> (u64, u64) {
    let (mut frames, mut left_out) = (0, 0);
    let mut start = None;
    for value in values {
        let frame = *start.get_or_insert_with(|| {
            let at = out.len();
            out.extend_from_slice(&[0; HEADER_BYTES]);
            at
        });
        let before = out.len();
        let mut result = append(value, out, frame + HEADER_BYTES, MAX_FRAME_BYTES);
        if result.is_err() && before > frame + HEADER_BYTES {
            // It did not fit beside its neighbours: a frame of its own.
            seal(out, frame);
            frames += 1;
            let at = out.len();
            out.extend_from_slice(&[0; HEADER_BYTES]);
            start = Some(at);
            result = append(value, out, at + HEADER_BYTES, MAX_FRAME_BYTES);
        }
        left_out += u64::from(result.is_err());
        if let Some(at) = start
            && out.len() - at >= FULL_FRAME_BYTES
        {
            seal(out, at);
            frames += 1;
            start = None;
        }
    }
    if let Some(at) = start {
        if out.len() == at + HEADER_BYTES {
            out.truncate(at);
        } else {
            seal(out, at);
            frames += 1;
        }
    }
    (frames, left_out)
}

/// Reads the one value a frame's body holds.
///
/// # Errors
/// [`FrameError::Undecodable`] if the body is not exactly one `T`.
pub fn decode<T: DeserializeOwned>(body: &[u8]) -> Result<T, FrameError> {
    let (value, rest) = postcard::take_from_bytes(body).map_err(|e| undecodable(body, &e))?;
    if rest.is_empty() {
        Ok(value)
    } else {
        Err(FrameError::Undecodable {
            bytes: body.len(),
            reason: format!("{} bytes too many", rest.len()),
        })
    }
}

/// Reads the values a frame's body holds, back to back, and appends them to `into`.
///
/// # Errors
/// [`FrameError::Undecodable`] if the body is not a whole number of `T`s.
pub fn decode_all<T: DeserializeOwned>(body: &[u8], into: &mut Vec<T>) -> Result<(), FrameError> {
    let mut rest = body;
    while !rest.is_empty() {
        let (value, after) = postcard::take_from_bytes(rest).map_err(|e| undecodable(body, &e))?;
        // A value of no bytes would never end.
        if after.len() == rest.len() {
            return Err(FrameError::Undecodable {
                bytes: body.len(),
                reason: "a message without content".to_owned(),
            });
        }
        into.push(value);
        rest = after;
    }
    Ok(())
}

fn undecodable(body: &[u8], error: &postcard::Error) -> FrameError {
    FrameError::Undecodable {
        bytes: body.len(),
        reason: error.to_string(),
    }
}

/// Cuts a stream's bytes into frames, however they arrive.
#[derive(Debug)]
pub struct FrameReader {
    buffer: BytesMut,
    limit: usize,
}

impl Default for FrameReader {
    fn default() -> FrameReader {
        FrameReader {
            buffer: BytesMut::new(),
            limit: MAX_FRAME_BYTES,
        }
    }
}

impl FrameReader {
    /// One for what a client sends.
    #[must_use]
    pub fn of_requests() -> FrameReader {
        FrameReader {
            limit: MAX_REQUEST_BYTES,
            ..FrameReader::default()
        }
    }

    /// Takes bytes in stream order.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The length of the body that the next frame will have, if so much of it has come.
    #[must_use]
    pub fn begun(&self) -> Option<usize> {
        let header = self.buffer.first_chunk::<HEADER_BYTES>()?;
        Some(u32::from_le_bytes(*header) as usize)
    }

    /// Makes room for all of the frame that has begun, if it is not too large.
    pub fn make_room(&mut self) {
        let whole = (self.begun()).filter(|length| *length <= self.limit);
        let missing = whole.map(|length| (HEADER_BYTES + length).saturating_sub(self.buffer.len()));
        self.buffer.reserve(missing.unwrap_or_default());
    }

    /// The body of the next complete frame; none until more bytes come.
    ///
    /// # Errors
    /// [`FrameError::TooLarge`]; the stream is then of no further use.
    pub fn next_frame(&mut self) -> Result<Option<Bytes>, FrameError> {
        let Some(length) = self.begun() else {
            return Ok(None);
        };
        if length > self.limit {
            return Err(FrameError::TooLarge);
        }
        if self.buffer.len() < HEADER_BYTES + length {
            return Ok(None);
        }
        self.buffer.advance(HEADER_BYTES);
        let body = self.buffer.split_to(length).freeze();
        if length > KEPT_BYTES {
            self.buffer = BytesMut::from(&self.buffer[..]);
        }
        Ok(Some(body))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frames(bytes: &[u8], step: usize) -> Vec<Bytes> {
        let mut reader = FrameReader::default();
        let mut found = Vec::new();
        for piece in bytes.chunks(step) {
            reader.push(piece);
            while let Some(frame) = reader.next_frame().expect("good frames") {
                found.push(frame);
            }
        }
        found
    }

    #[test]
    fn frames_survive_any_cut() {
        let mut out = BytesMut::new();
        let values = [String::new(), "a".repeat(5), "b".repeat(70_000)];
        for value in &values {
            encode(value, &mut out).expect("fits");
        }
        for step in [1, 3, 1000, 1 << 20] {
            let back: Vec<String> = frames(&out, step)
                .iter()
                .map(|f| decode(f).expect("decodes"))
                .collect();
            assert_eq!(back, values);
        }
    }

    #[test]
    fn a_frame_too_large_leaves_the_buffer_alone() {
        let mut out = BytesMut::from(&b"before"[..]);
        let big = vec![7u8; MAX_FRAME_BYTES + 1];
        assert_eq!(
            encode(&Bytes::from(big), &mut out),
            Err(FrameError::TooLarge)
        );
        assert_eq!(&out[..], b"before");
    }

    #[test]
    fn many_values_share_frames_and_the_oversized_is_left_out() {
        let large = Bytes::from(vec![1u8; FULL_FRAME_BYTES]);
        let giant = Bytes::from(vec![1u8; MAX_FRAME_BYTES + 1]);
        let small = Bytes::from_static(b"x");
        let nearly = Bytes::from(vec![2u8; MAX_FRAME_BYTES - 8]);
        let values = vec![
            small.clone(),
            giant,
            small.clone(),
            large.clone(),
            small.clone(),
            nearly.clone(),
        ];
        let mut out = BytesMut::new();
        let (count, left_out) = encode_all(&values, &mut out);
        let mut back: Vec<Bytes> = Vec::new();
        let found = frames(&out, 1 << 20);
        for frame in &found {
            decode_all(frame, &mut back).expect("decodes");
        }
        assert_eq!((count as usize, left_out), (found.len(), 1));
        assert_eq!(back, [small.clone(), small.clone(), large, small, nearly]);
        assert_eq!(encode_all::<Bytes>(&[], &mut BytesMut::new()), (0, 0));
    }

    #[test]
    fn garbage_is_refused() {
        assert!(decode::<u64>(&[0xff; 12]).is_err());
        assert!(decode::<u8>(&[1, 2]).is_err(), "trailing bytes");
        assert!(decode::<String>(&[200, 1]).is_err(), "cut short");
        assert!(
            decode_all::<()>(&[1], &mut Vec::new()).is_err(),
            "no progress"
        );
        let mut reader = FrameReader::default();
        reader.push(&u32::MAX.to_le_bytes());
        assert_eq!(reader.next_frame(), Err(FrameError::TooLarge));
    }
}
