//! Whatever bytes arrive, decoding them ends in a value or an error.

mod common;

use bytes::BytesMut;
use common::{ask, echo_of, message};
use synod_rpc::frame::{self, FrameReader};
use synod_rpc::{ClientFrame, ServerFrame};
use synod_shard::NodeMessage;

/// A small generator (xorshift64*, Vigna 2014); the same numbers every time.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }
}

fn decode_every_way(body: &[u8]) {
    let _ = frame::decode::<ClientFrame>(body);
    let _ = frame::decode::<ServerFrame>(body);
    let mut messages = Vec::new();
    let _ = frame::decode_all::<NodeMessage>(body, &mut messages);
    let mut reader = FrameReader::default();
    reader.push(body);
    while let Ok(Some(_)) = reader.next_frame() {}
}

#[test]
fn random_and_damaged_frames_never_panic() {
    let mut numbers = Numbers(0x9e37_79b9_7f4a_7c15);
    let mut samples = Vec::new();
    let request = ask("a key").numbered(7);
    let mut out = BytesMut::new();
    frame::encode(&request, &mut out).expect("fits");
    samples.push(out.split().to_vec());
    frame::encode(&echo_of(&request).expect("an echo"), &mut out).expect("fits");
    samples.push(out.split().to_vec());
    frame::encode_all(&[message(1), message(1 << 40)], &mut out);
    samples.push(out.split().to_vec());
    for round in 0..30_000 {
        let mut bytes = samples[round % samples.len()].clone();
        match numbers.next() % 3 {
            0 => {
                let at = numbers.next() as usize % bytes.len();
                bytes[at] = numbers.next() as u8;
            }
            1 => bytes.truncate(numbers.next() as usize % bytes.len()),
            _ => bytes.iter_mut().for_each(|b| *b = numbers.next() as u8),
        }
        decode_every_way(&bytes);
        decode_every_way(bytes.get(frame::HEADER_BYTES..).unwrap_or_default());
    }
}
