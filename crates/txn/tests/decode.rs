//! Whatever bytes come as commands, messages or checkpoints, decoding ends in a
//! value or an error; and values come back as they were.

#[allow(dead_code)]
#[path = "../../../fuzz/src/codec/mod.rs"]
mod codec;
#[allow(dead_code)]
#[path = "../../../fuzz/src/state.rs"]
mod state;

use proptest::collection::vec;
use proptest::prelude::*;

use synod_paxos::{GroupId, Timestamp};
use synod_txn::command::Intent;
use synod_txn::state::State;
use synod_txn::{AttemptId, Command, PeerMessage, Priority, Request, Response, RestoreError};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn any_bytes_are_a_command_or_an_error(choices in vec(any::<u8>(), 0..400)) {
        state::command(&choices);
        state::command(&codec::damaged::<Command>(&choices));
    }

    #[test]
    fn any_bytes_are_a_message_or_an_error(choices in vec(any::<u8>(), 0..400)) {
        state::message(&choices);
        state::message(&codec::damaged::<Request>(&choices));
        state::message(&codec::damaged::<Response>(&choices));
        state::message(&codec::damaged::<PeerMessage>(&choices));
    }

    #[test]
    fn any_bytes_are_a_checkpoint_or_an_error(choices in vec(any::<u8>(), 0..600)) {
        state::checkpoint(&choices);
        let mut framed = vec![1];
        framed.extend_from_slice(&choices);
        state::checkpoint(&framed);
        framed.truncate(1);
        framed.extend(codec::damaged::<State>(&choices));
        state::checkpoint(&framed);
    }

    #[test]
    fn any_value_comes_back(choices in vec(any::<u8>(), 0..600)) {
        state::value(&choices);
    }
}

/// What a replica would trip over later is refused when it is read.
#[test]
fn an_intent_that_names_no_participant_is_refused() {
    let mut state = State::default();
    let intent = Box::new(Intent {
        attempt: AttemptId(1),
        priority: Priority::default(),
        timestamp: Timestamp(1),
        writes: Vec::new(),
        parts: 0,
        reads: Vec::new(),
        participants: Vec::new(),
        here: 0,
        coordinator: 0,
    });
    let command = synod_txn::command::encode(&Command::Intent(intent.clone()));
    assert!(synod_txn::command::decode(&command.expect("encodes")).is_err());
    let sound = state.encode();
    state.intents.insert(AttemptId(1), intent);
    let refused = State::decode(GroupId(1), &state.encode());
    assert!(matches!(refused, Err(RestoreError::Damaged { .. })));
    let longer = [&sound[..], &[0]].concat();
    let refused = State::decode(GroupId(1), &longer);
    assert!(matches!(refused, Err(RestoreError::Damaged { .. })));
}

#[test]
fn the_corpus_holds() {
    for (_, input) in codec::corpus::of("command") {
        state::command(&input);
    }
    for (_, input) in codec::corpus::of("checkpoint") {
        state::checkpoint(&input);
    }
}
