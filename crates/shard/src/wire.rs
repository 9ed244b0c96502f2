//! What nodes, and clients and nodes, say to each other about shards. The
//! transport carries these and does not look inside.

use crate::records::NodeRow;
use crate::shard::MergeError;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use synod_paxos::lease::LeaseMessage;
use synod_paxos::{ClusterVersion, Configuration, GroupId, Message, NodeId, Slot};
use synod_txn::{Call, Ended, Hashing, Key, Passed, PeerMessage, Request, Response, Span};

/// First byte pair of the keys that belong to the cluster itself. User keys may
/// not begin with it.
pub const RESERVED_PREFIX: &[u8] = &[0xff, 0xff];

/// The meta shard.
pub const META_SHARD: GroupId = GroupId(1);

/// A node, as the meta shard knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeDescriptor {
    /// Its id; made at first start.
    pub id: NodeId,
    /// Its name (the one in its certificate).
    pub name: String,
    /// Where it is reached.
    pub address: std::net::SocketAddr,
    /// Its place: ordered tiers, `region=…,dc=…,rack=…,host=…`.
    pub locality: String,
}

/// A shard: its range and who holds it. The higher generation wins.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShardDescriptor {
    /// The shard and its group.
    pub id: GroupId,
    /// Its keys.
    pub span: Span,
    /// Rises with every change of the descriptor.
    pub generation: u64,
    /// Its members.
    pub configuration: Configuration,
    /// Who should lead it, other things being equal.
    pub preferred_leader: NodeId,
    /// The split that it comes from; none if it was there from the beginning.
    pub born: Option<Origin>,
}

/// Which entry of which log split a shard off: that the shard exists proves it decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// The shard that it was part of.
    pub parent: GroupId,
    /// The entry.
    pub split: Passed,
}

/// The whole map: nodes, and shards ascending by range.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShardMap {
    /// All nodes, ascending by id.
    pub nodes: Vec<NodeDescriptor>,
    /// All shards, ascending by start of range, no two of which begin alike. Ranges may overlap
    /// while only one half of a split is known: a key belongs to the last shard that begins at or
    /// before it. Where a shard begins never changes.
    pub shards: Vec<ShardDescriptor>,
}

impl ShardMap {
    /// The shard that owns `key`.
    #[must_use]
    pub fn shard_of(&self, key: &[u8]) -> Option<&ShardDescriptor> {
        let after = self.shards.partition_point(|s| s.span.start[..] <= *key);
        let shard = self.shards.get(after.checked_sub(1)?)?;
        shard.span.contains(key).then_some(shard)
    }

    /// The shard that owns `key` or, where that one is not known, one whose nodes have
    /// heard of it: the last that begins at or before the key, if need be one that had the
    /// key before.
    #[must_use]
    pub fn nearest(&self, key: &[u8]) -> Option<&ShardDescriptor> {
        let after = self.shards.partition_point(|s| s.span.start[..] <= *key);
        let before = self.shards.get(..after)?;
        let had = before.iter().rev().find(|s| s.span.contains(key));
        had.or(before.last())
    }

    /// The shard with this id.
    #[must_use]
    pub fn shard(&self, id: GroupId) -> Option<&ShardDescriptor> {
        self.shards.iter().find(|s| s.id == id)
    }

    /// Takes over a shard's range and members, if they are news. A shard that is not known was
    /// split off another one; one whose range has grown has absorbed others, which go.
    /// Of shards that claim a key the one with the highest generation has it: along a key's
    /// owners generations rise, through splits and merges. What is older, of a shard whose
    /// range begins elsewhere, or no configuration that a group can live by, changes nothing.
    /// Returns whether it was news.
    pub fn learn(&mut self, descriptor: &ShardDescriptor) -> bool {
        let span = &descriptor.span;
        let sound = span.end.is_empty() || span.start < span.end;
        if !sound || descriptor.configuration.check().is_err() {
            return false;
        }
        let same = |s: &ShardDescriptor| s.id == descriptor.id;
        match self.shards.iter().position(same) {
            Some(at) => {
                let known = &mut self.shards[at];
                if known.generation >= descriptor.generation || known.span.start != span.start {
                    return false;
                }
                known.clone_from(descriptor);
            }
            None => {
                let after = self.shards.partition_point(|s| s.span.start <= span.start);
                let mut before = self.shards[..after].iter();
                let absorbed = before
                    .any(|s| s.span.contains(&span.start) && s.generation >= descriptor.generation);
                if after == 0 || absorbed {
                    return false;
                }
                self.shards.insert(after, descriptor.clone());
            }
        }
        let absorbed = |s: &ShardDescriptor| {
            s.id != descriptor.id
                && s.generation < descriptor.generation
                && span.start <= s.span.start
                && span.contains(&s.span.start)
        };
        self.shards.retain(|s| !absorbed(s));
        true
    }

    /// Takes over everything that another map knows better. Returns whether there was
    /// any such thing.
    pub fn learn_all(&mut self, descriptors: &[ShardDescriptor]) -> bool {
        let known: BTreeMap<GroupId, u64> = { self.shards.iter() }
            .map(|s| (s.id, s.generation))
            .collect();
        let newer = |d: &&ShardDescriptor| known.get(&d.id).is_none_or(|g| *g < d.generation);
        let mut news = false;
        for descriptor in descriptors.iter().filter(newer) {
            news |= self.learn(descriptor);
        }
        news
    }

    /// Whether every key has an owner. Who has heard of one half of a split only
    /// does not know the owner of the other.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        let first = self.shards.first().is_some_and(|s| s.span.start.is_empty());
        let joined = self.shards.windows(2).all(|pair| {
            let end = &pair[0].span.end;
            end.is_empty() || *end >= pair[1].span.start
        });
        let last = self.shards.last().is_some_and(|s| s.span.end.is_empty());
        first && joined && last
    }

    /// The shards that have changed since the cluster began.
    pub fn changed(&self) -> impl Iterator<Item = &ShardDescriptor> {
        self.shards.iter().filter(|s| s.generation > 1)
    }

    /// A number that two maps share if they know the same generations of all shards,
    /// and hardly otherwise.
    #[must_use]
    pub fn digest(&self) -> u64 {
        let parts = self.changed().map(|s| spread(s.id.0, s.generation));
        parts.fold(0, u64::wrapping_add)
    }

    /// The node with this id.
    #[must_use]
    pub fn node(&self, id: NodeId) -> Option<&NodeDescriptor> {
        self.nodes.iter().find(|n| n.id == id)
    }
}

/// A number of a thing and its version, spread over all bits: sums of such numbers tell
/// sets apart, in any order.
pub(crate) fn spread(id: u64, version: u64) -> u64 {
    let mut part = id.rotate_left(32) ^ version;
    for factor in [0xbf58_476d_1ce4_e5b9, 0x94d0_49bb_1331_11eb] {
        part = (part ^ (part >> 29)).wrapping_mul(factor);
    }
    part ^ (part >> 32)
}

/// What `synod init` hands to every node. Handing it over again is harmless;
/// another one is refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bootstrap {
    /// The cluster's id, from its CA.
    pub cluster: u128,
    /// Formats in use from the start.
    pub version: ClusterVersion,
    /// Nodes and shards, the meta shard included.
    pub map: ShardMap,
}

/// Between two nodes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum NodeMessage {
    /// Within a group.
    Group {
        /// The group.
        group: GroupId,
        /// The message.
        message: Message,
    },
    /// Support, limits and clocks of the pair.
    Lease(LeaseMessage),
    /// Two-phase commit between shards; whoever is not the leader passes it on.
    Transaction {
        /// The shard that owned the receiver's anchor when last known.
        shard: GroupId,
        /// How often it was passed on.
        hops: u8,
        /// The message.
        message: PeerMessage,
    },
    /// The [`crate::Worker::map_digest`] of the sender: whoever has another one answers
    /// with `Shards` and `Nodes`.
    MapDigest(u64),
    /// Shards whose members have changed, as the sender knows them.
    Shards(Vec<ShardDescriptor>),
    /// Nodes that have joined or are meant to be something else, as the sender knows them.
    Nodes(Vec<NodeRow>),
    /// The cluster's version, as the sender knows it. Only told once it is
    /// [`NodeMessage::VERSION_SINCE`]: nodes that know nothing of it cannot read this.
    Version(ClusterVersion),
    /// Between the leaders of two shards that are merged, and their members; whoever is not the
    /// leader passes it on. Only sent from `Command::MERGE_SINCE` on.
    Merge {
        /// The shard.
        shard: GroupId,
        /// How often it was passed on.
        hops: u8,
        /// The message.
        message: Box<MergeMessage>,
    },
    /// No replica of this shard is needed any more: it was absorbed, and all members of the shard that
    /// did so have its data.
    Retired(GroupId),
}

impl NodeMessage {
    /// The cluster version from which on nodes tell each other of it.
    pub const VERSION_SINCE: ClusterVersion = ClusterVersion(2);
}

/// Between the shards of a merge (decision 19). All but the answers are repeated until answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum MergeMessage {
    /// Left to right: end, so that I can absorb you.
    Call {
        /// Names this asking.
        call: Call,
        /// Where the left shard's range ends.
        border: Key,
        /// The left shard's members.
        configuration: Configuration,
        /// How its keys are stored.
        hashing: Option<Hashing>,
    },
    /// Right to left: I go on.
    Declined {
        /// The asking.
        call: Call,
        /// Why.
        why: MergeError,
    },
    /// Right to left: I have ended; what now?
    Ended {
        /// The right shard.
        right: GroupId,
        /// Its end.
        ended: Ended,
    },
    /// Left to right: this became of your end.
    Answer {
        /// The slot of the end.
        slot: Slot,
        /// Whether the right shard is part of the left one by now; else it goes on.
        absorbed: bool,
    },
    /// Any node to left: I do not need your right shard's replicas any more.
    Followed {
        /// The right shard.
        right: GroupId,
        /// The node.
        node: NodeId,
    },
}

/// A client's request to one shard.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShardRequest {
    /// The shard.
    pub shard: GroupId,
    /// The generation of the descriptor the client routed by.
    pub generation: u64,
    /// The request.
    pub request: Request,
    /// The hashed directory whose mapping the request's keys went through; none if they are
    /// plain. Where it is encoded it goes beside the rest: older programs know only that.
    #[serde(skip)]
    pub hashing: Option<Box<Hashing>>,
}

/// The answer to a [`ShardRequest`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ShardReply {
    /// From the shard's leader.
    Response(Response),
    /// This node has no replica of the shard, or the shard's range has changed:
    /// here is what the node knows (none = nothing; ask for the map).
    WrongNode(Option<Box<ShardDescriptor>>),
}

/// Bytes that name a key in messages for people: UTF-8 where it is, hex otherwise.
#[must_use]
pub fn show_key(key: &Key) -> String {
    match std::str::from_utf8(key) {
        Ok(text) if !text.chars().any(char::is_control) => text.to_owned(),
        _ => {
            use std::fmt::Write;
            key.iter().fold(String::from("x'"), |mut out, byte| {
                let _ = write!(out, "{byte:02x}");
                out
            }) + "'"
        }
    }
}

/// A shard's replicated state in a snapshot, or a part of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotState {
    /// The range that it is the state of.
    pub span: Span,
    /// The last splits that it has behind it. In the first part only.
    pub passed: Vec<Passed>,
    /// Its encoding.
    pub state: Bytes,
}

/// The first part of the state in a snapshot's first chunk, and the shards that it descends from or
/// has absorbed; none if that is not one.
#[must_use]
pub fn snapshot_head(chunk: &[u8]) -> Option<(SnapshotState, BTreeSet<GroupId>)> {
    match postcard::from_bytes(chunk) {
        Ok(SnapshotPiece::State(state)) => Some((state, BTreeSet::new())),
        Ok(SnapshotPiece::Merged { state, ancestors }) => Some((state, ancestors)),
        _ => None,
    }
}

/// An opaque piece of a snapshot, as shards exchange them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SnapshotPiece {
    /// The replicated transaction state after the snapshot's slot (first pieces).
    State(SnapshotState),
    /// Versions `(key, timestamp, attempt, value)` in engine order.
    Versions(
        Vec<(
            Key,
            synod_paxos::Timestamp,
            synod_txn::AttemptId,
            Option<Bytes>,
        )>,
    ),
    /// As `State`, the first piece of a shard that can be merged.
    Merged {
        /// The state.
        state: SnapshotState,
        /// Shards that it descends from or has absorbed.
        ancestors: BTreeSet<GroupId>,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shard(id: u64, generation: u64, end: &'static [u8]) -> ShardDescriptor {
        ShardDescriptor {
            id: GroupId(id),
            span: Span {
                start: vec![id as u8].into(),
                end: Key::from_static(end),
            },
            generation,
            configuration: Configuration::of_voters(vec![NodeId(generation)]),
            preferred_leader: NodeId(1),
            born: None,
        }
    }

    fn map(generations: [u64; 2]) -> ShardMap {
        let [first, second] = generations;
        ShardMap {
            nodes: Vec::new(),
            shards: vec![shard(1, first, b"\x02"), shard(2, second, b"")],
        }
    }

    #[test]
    fn a_map_learns_what_is_younger_and_nothing_else() {
        let mut known = map([3, 1]);
        assert!(known.learn_all(&map([2, 4]).shards));
        assert_eq!(known, map([3, 4]));
        assert!(!known.learn_all(&map([3, 4]).shards));
        // A range that begins elsewhere, nobody to hold it.
        let mut nobody = shard(1, 9, b"\x02");
        nobody.configuration = Configuration::outside();
        assert!(!known.learn(&nobody));
        let mut elsewhere = shard(1, 9, b"\x02");
        elsewhere.span.start = Key::new();
        assert!(!known.learn(&elsewhere));
        let mut twin = shard(3, 4, b"");
        twin.span.start = Key::from_static(b"\x02");
        assert!(!known.learn(&twin), "two shards that begin alike");
        assert_eq!(known, map([3, 4]));
    }

    #[test]
    fn a_map_learns_the_halves_of_a_split_in_any_order() {
        let mut whole = map([1, 1]);
        whole.shards[0].span.start = Key::new();
        let (mut left, mut right) = (whole.shards[0].clone(), shard(9, 2, b"\x02"));
        left.generation = 2;
        left.span.end = Key::from_static(b"\x01m");
        right.span.start = left.span.end.clone();
        let owner = |map: &ShardMap, key: &[u8]| map.shard_of(key).map(|s| s.id.0);

        let mut known = whole.clone();
        assert!(known.is_whole() && known.learn(&right) && known.is_whole());
        assert_eq!(owner(&known, b"\x01z"), Some(9), "the later start counts");
        assert_eq!(owner(&known, b"\x01a"), Some(1));
        assert!(known.learn(&left) && known.is_whole());

        let mut other = whole;
        assert!(other.learn(&left) && !other.is_whole());
        assert_eq!(owner(&other, b"\x01z"), None);
        assert_eq!(other.nearest(b"\x01z").map(|s| s.id.0), Some(1));
        assert!(other.learn(&right));
        assert_eq!(other, known);
    }

    #[test]
    fn a_map_learns_merges_and_forgets_what_was_absorbed_in_any_order() {
        let mut first = map([1, 1]);
        first.shards[0].span.start = Key::new();
        let at = |id: u64, generation: u64, start: &'static [u8], end: &'static [u8]| {
            let mut made = shard(id, generation, end);
            made.span.start = Key::from_static(start);
            made
        };
        // 2 loses its end to 3, 1 absorbs what is left of 2, then is cut in the middle of that.
        let all = [
            at(2, 2, b"\x02", b"\x04"),
            at(3, 2, b"\x04", b""),
            at(1, 3, b"", b"\x04"),
            at(1, 4, b"", b"\x03"),
            at(4, 4, b"\x03", b"\x04"),
        ];
        let mut orders: Vec<Vec<usize>> = vec![vec![]];
        for next in 0..all.len() {
            let longer = |order: &Vec<usize>| {
                let order = order.clone();
                (0..=order.len()).map(move |at| {
                    let mut order = order.clone();
                    order.insert(at, next);
                    order
                })
            };
            orders = orders.iter().flat_map(longer).collect();
        }
        assert_eq!(orders.len(), 120);
        for order in orders {
            let mut known = first.clone();
            for at in &order {
                known.learn(&all[*at]);
            }
            let ids: Vec<u64> = known.shards.iter().map(|s| s.id.0).collect();
            assert_eq!(ids, [1, 4, 3], "{order:?}");
            assert!(known.is_whole(), "{order:?}");
            assert!(!known.learn_all(&all), "{order:?}");
        }
    }

    #[test]
    fn maps_that_know_different_things_have_different_numbers() {
        let mut seen = std::collections::BTreeSet::new();
        for first in 1..40 {
            for second in 1..40 {
                assert!(seen.insert(map([first, second]).digest()));
            }
        }
        assert_eq!(map([1, 1]).digest(), 0);
    }
}
