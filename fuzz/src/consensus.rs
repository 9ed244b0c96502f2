//! One group's consensus: messages, entries, durable records.

use crate::codec;
use synod_paxos::lease::{LeaseMessage, LeaseRecord};
use synod_paxos::{Configuration, Durable, Entry, Message, Record};

/// Bytes as a message of a group.
pub fn message(bytes: &[u8]) {
    codec::any_bytes::<Message>(bytes);
    codec::any_bytes::<LeaseMessage>(bytes);
}

/// Bytes as what a replica keeps.
pub fn record(bytes: &[u8]) {
    codec::any_bytes::<Record>(bytes);
    codec::any_bytes::<Durable>(bytes);
    codec::any_bytes::<LeaseRecord>(bytes);
}

/// Values of every type, one of which the first choice names.
pub fn value(choices: &[u8]) {
    match choices.split_first() {
        Some((0..=99, rest)) => codec::any_value::<Message>(rest),
        Some((100..=129, rest)) => codec::any_value::<LeaseMessage>(rest),
        Some((130..=169, rest)) => codec::any_value::<Record>(rest),
        Some((170..=209, rest)) => codec::any_value::<Durable>(rest),
        Some((210..=229, rest)) => codec::any_value::<Entry>(rest),
        Some((230..=239, rest)) => codec::any_value::<Configuration>(rest),
        Some((240..=255, rest)) => codec::any_value::<LeaseRecord>(rest),
        None => {}
    }
}
