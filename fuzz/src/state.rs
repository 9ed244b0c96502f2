//! A shard's transactions: commands in its log, and its replicated state.

use crate::codec;
use synod_paxos::{GroupId, Slot};
use synod_txn::command::{self, Command};
use synod_txn::state::State;
use synod_txn::{Group, GroupSettings, PeerMessage, Request, Response};

const SHARD: GroupId = GroupId(3);

/// Bytes as a command in a log entry.
pub fn command(bytes: &[u8]) {
    codec::any_bytes::<Command>(bytes);
    if let Ok(command) = codec::bounded(bytes, |bytes| command::decode(&bytes.into())) {
        let again = command::encode(&command).expect("plain data encodes");
        assert_eq!(command::decode(&again), Ok(command));
    }
}

/// Bytes as a request, an answer, or a message of two-phase commit.
pub fn message(bytes: &[u8]) {
    codec::any_bytes::<Request>(bytes);
    codec::any_bytes::<Response>(bytes);
    codec::any_bytes::<PeerMessage>(bytes);
}

/// Bytes as a checkpoint: refused in words, or a state that has one encoding
/// and that a group can go on from.
pub fn checkpoint(bytes: &[u8]) {
    let state = match codec::bounded(bytes, |bytes| State::decode(SHARD, bytes)) {
        Ok(state) => state,
        Err(error) => {
            assert!(error.to_string().contains("fetch a snapshot"));
            return;
        }
    };
    let again = state.encode();
    assert!(again.len() <= bytes.len());
    let back = State::decode(SHARD, &again).expect("what was encoded decodes");
    assert_eq!(back.encode(), again);
    let group = Group::restore(SHARD, GroupSettings::default(), &again);
    let group = group.expect("what decodes is restored");
    assert_eq!(group.checkpoint(), again);
    go_on(state);
}

/// Outcomes come for everything that is open: what a state names, it holds.
fn go_on(mut state: State) {
    use synod_txn::{AbortReason, Outcome};
    let attempts: Vec<_> = state.intents.keys().copied().collect();
    for attempt in attempts {
        let Some(slot) = state.applied.0.checked_add(1) else {
            return;
        };
        let outcome = Outcome::Aborted(AbortReason::Deadline);
        let command = Command::Resolve {
            attempt,
            outcome,
            recorded: false,
        };
        state.apply(SHARD, Slot(slot), command);
    }
}

/// Values of every type, one of which the first choice names.
pub fn value(choices: &[u8]) {
    match choices.split_first() {
        Some((0..=69, rest)) => codec::any_value::<Command>(rest),
        Some((70..=129, rest)) => codec::any_value::<Request>(rest),
        Some((130..=169, rest)) => codec::any_value::<Response>(rest),
        Some((170..=209, rest)) => codec::any_value::<PeerMessage>(rest),
        Some((210..=255, rest)) => {
            if let Some(mut state) = codec::values::value::<State>(rest) {
                state.intents.retain(|_, intent| intent.is_sound());
                let encoded = state.encode();
                let back = State::decode(SHARD, &encoded).expect("a sound state decodes");
                assert_eq!(back.encode(), encoded);
                checkpoint(&encoded);
            }
        }
        None => {}
    }
}
