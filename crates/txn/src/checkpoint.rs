//! The encoded form of a shard's replicated state, which the engine keeps and snapshots carry.

use crate::digest;
use crate::hashing::Hashing;
use crate::state::{State, Tail};
use bytes::Bytes;
use serde::{Serialize, Serializer};
use std::sync::Arc;
use synod_paxos::GroupId;

/// The format a checkpoint is written in, and the only one that is read.
const FORMAT: u8 = 5;

/// A checkpoint that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// Nothing in it.
    #[error("the checkpoint of shard {0} is empty; fetch a snapshot from another replica")]
    Empty(GroupId),
    /// Written by another version of this program.
    #[error(
        "the checkpoint of shard {shard} has format {found}, this program reads format {FORMAT}; \
         run the program that wrote it or fetch a snapshot from another replica"
    )]
    Format {
        /// The shard.
        shard: GroupId,
        /// The format found.
        found: u8,
    },
    /// Damaged.
    #[error(
        "the checkpoint of shard {shard} is damaged ({source}); fetch a snapshot from another replica"
    )]
    Damaged {
        /// The shard.
        shard: GroupId,
        /// What the decoder said.
        source: postcard::Error,
    },
}

/// A copy of a shard's replicated state. Encoding takes many times as long as the copy, and a
/// shard that waits for it serves nobody; so it is done elsewhere. Its own copies are the same one.
#[derive(Clone, Debug)]
pub struct Unencoded(Arc<State>);

impl PartialEq for Unencoded {
    fn eq(&self, other: &Unencoded) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || self.encode() == other.encode()
    }
}

impl Eq for Unencoded {}

impl Serialize for Unencoded {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        (&*self.0, &self.0.tail).serialize(serializer)
    }
}

impl Unencoded {
    pub(crate) fn of(state: State) -> Unencoded {
        Unencoded(Arc::new(state))
    }

    /// What [`State::encode`] of the original would have been.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        self.0.encode()
    }

    /// The state of a shard that begins with it.
    #[must_use]
    pub fn into_state(self) -> State {
        Arc::unwrap_or_clone(self.0)
    }

    /// How many attempts were copied: that is what it cost. Those of one shard, and those that are
    /// settled, are shared with the original.
    #[must_use]
    pub fn attempts(&self) -> usize {
        let state = &self.0;
        let open = state.intents.len() + state.parts.len();
        open + state.records.copied() + state.resolutions.copied()
    }
}

impl State {
    /// A copy to be encoded elsewhere.
    #[must_use]
    pub(crate) fn to_encode(&self) -> Unencoded {
        let State {
            applied,
            term,
            last,
            intents,
            parts,
            records,
            resolutions,
            one_shard,
            forget_floor,
            horizon,
            version,
            descriptor,
            began,
            lineage,
            tail,
        } = self;
        Unencoded(Arc::new(State {
            applied: *applied,
            term: *term,
            last: *last,
            intents: intents.clone(),
            parts: parts.clone(),
            records: records.clone(),
            resolutions: resolutions.clone(),
            one_shard: one_shard.to_encode(),
            forget_floor: *forget_floor,
            horizon: *horizon,
            version: *version,
            descriptor: descriptor.clone(),
            began: began.clone(),
            lineage: lineage.clone(),
            tail: tail.clone(),
        }))
    }

    /// The state, encoded.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        // Encoding plain data into memory cannot fail; an empty checkpoint
        // would be refused by `decode` rather than believed.
        let mut encoded = postcard::to_extend(self, vec![FORMAT]).unwrap_or_default();
        if self.tail != Tail::default() {
            encoded = postcard::to_extend(&self.tail, encoded).unwrap_or_default();
        }
        Bytes::from(encoded)
    }

    /// A hash of the encoded state.
    #[must_use]
    pub fn digest(&self) -> u64 {
        digest::of(FORMAT, &(self, &self.tail))
    }

    /// The inverse of [`State::encode`].
    ///
    /// # Errors
    /// If the bytes are empty, of a newer format, or damaged.
    pub fn decode(shard: GroupId, encoded: &[u8]) -> Result<State, RestoreError> {
        match encoded.split_first() {
            None => Err(RestoreError::Empty(shard)),
            Some((&FORMAT, rest)) => {
                let damaged = |source| RestoreError::Damaged { shard, source };
                let (mut state, rest): (State, _) =
                    postcard::take_from_bytes(rest).map_err(damaged)?;
                if !rest.is_empty() {
                    state.tail = decode_tail(rest).map_err(damaged)?;
                }
                // Indices that name nobody would be found out only when they are used.
                if !state.intents.values().all(|intent| intent.is_sound()) {
                    return Err(damaged(postcard::Error::DeserializeBadEncoding));
                }
                state.one_shard.rebuild();
                Ok(state)
            }
            Some((&found, _)) => Err(RestoreError::Format { shard, found }),
        }
    }
}

fn decode_tail(bytes: &[u8]) -> Result<Tail, postcard::Error> {
    let (tail, rest): (Tail, _) = postcard::take_from_bytes(bytes)?;
    let sound = tail.hashing.as_ref().is_none_or(Hashing::is_sound);
    // One that says nothing would not have been written.
    if !rest.is_empty() || !sound || tail == Tail::default() {
        return Err(postcard::Error::DeserializeBadEncoding);
    }
    Ok(tail)
}
