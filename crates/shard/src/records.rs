//! The cluster's own records: rows of the meta shard, written by the node that leads it
//! and by nobody else: those about shards as changes are decided in the shards themselves,
//! the others as administrators ask for it.
//!
//! | key, behind the reserved prefix | value |
//! |---|---|
//! | `/nodes/` and the id, big-endian | [`NodeDescriptor`], then its [`Standing`] |
//! | `/policies/` and a key prefix | the policy of the keys that begin with it, as text; of the empty prefix: the cluster's default |
//! | `/settings/placement` | `manual`, or anything else for automatic |
//! | `/settings/version` | the [`ClusterVersion`]; without the row it is the oldest |
//! | `/settings/shard-id` | [`Claim`]: the last shard id that was given away |
//! | `/settings/` and another name | a number, in decimal digits: what a cluster may be told about itself while it runs |
//! | `/shards/` and the first key | [`crate::ShardDescriptor`] |

use crate::wire::{NodeDescriptor, RESERVED_PREFIX, spread};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use synod_paxos::{ClusterVersion, GroupId, NodeId, Timestamp};
use synod_txn::{Key, Row, Span, Value};

const NODES: &str = "/nodes/";
const POLICIES: &str = "/policies/";
const SETTINGS: &str = "/settings/";
const SHARDS: &str = "/shards/";
/// The setting that says who moves replicas.
const PLACEMENT: &str = "placement";
const MANUAL: &[u8] = b"manual";
/// The setting that keeps the last shard id that was given away.
const SHARD_ID: &str = "shard-id";

/// The setting that holds the cluster's version.
const VERSION: &str = "version";

/// What a node is meant to be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Standing {
    /// It holds replicas, and takes more.
    #[default]
    Active,
    /// All it holds is to go elsewhere.
    Draining,
    /// It held nothing any more and was taken out of the cluster: nobody speaks with it.
    Retired,
}

/// A node and what it is meant to be, as of one commit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeRow {
    /// The node.
    pub node: NodeDescriptor,
    /// What it is meant to be.
    pub standing: Standing,
    /// When the row was written: the higher one wins. 1 for the cluster's first nodes.
    pub version: Timestamp,
}

/// When the rows of a cluster's birth were written.
pub const FIRST_VERSION: Timestamp = Timestamp(1);

impl NodeRow {
    /// One of the cluster's first nodes.
    #[must_use]
    pub fn first(node: NodeDescriptor) -> NodeRow {
        NodeRow {
            node,
            standing: Standing::Active,
            version: FIRST_VERSION,
        }
    }

    /// Its key.
    #[must_use]
    pub fn key(&self) -> Key {
        node_key(self.node.id)
    }

    /// Its value; none if it cannot be encoded (it always can).
    #[must_use]
    pub fn value(&self) -> Option<Value> {
        let value = postcard::to_stdvec(&(&self.node, self.standing)).ok()?;
        Some(Bytes::from(value))
    }

    /// From a value; rows of the first format end behind the descriptor.
    #[must_use]
    pub fn decode(value: &[u8], version: Timestamp) -> Option<NodeRow> {
        let (node, rest) = postcard::take_from_bytes(value).ok()?;
        let standing = match rest {
            [] => Standing::Active,
            rest => postcard::from_bytes(rest).ok()?,
        };
        Some(NodeRow {
            node,
            standing,
            version,
        })
    }
}

/// A shard id that was given to somebody who wants to split a shard, and to nobody else
/// ever. Ids are given away in ascending order, so the last one tells of all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// The id.
    pub id: GroupId,
    /// Tells him from others who asked for the same id: he drew it.
    pub nonce: u128,
}

/// Ids that one claim may skip, at most: a wrong one must not use them all up.
const SKIPPED_IDS: u64 = 1_000;

/// Why an id is not given to somebody. Nothing changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClaimError {
    /// Somebody else has it, or had a later one.
    #[error(
        "shard id {id} is taken: ids up to {last} were given away. Take the next one", id = .id.0,
        last = .last.0
    )]
    Taken {
        /// What was asked for.
        id: GroupId,
        /// The last one that is gone.
        last: GroupId,
    },
    /// It is far beyond all that were given away.
    #[error(
        "shard id {id} is too far beyond the last one given away, {last}. Take the next one",
        id = .id.0, last = .last.0
    )]
    TooFar {
        /// What was asked for.
        id: GroupId,
        /// The last one that is gone.
        last: GroupId,
    },
}

impl Claim {
    /// Its key.
    #[must_use]
    pub fn key() -> Key {
        key(SETTINGS, SHARD_ID.as_bytes())
    }

    /// Its value; none if it cannot be encoded (it always can).
    #[must_use]
    pub fn value(&self) -> Option<Value> {
        postcard::to_stdvec(self).ok().map(Bytes::from)
    }

    /// Whether this one may be written in place of `last`, where no shard's id is higher than
    /// `highest`. False if it stands there already.
    ///
    /// # Errors
    /// When the id is not his to have.
    pub fn follows(&self, last: Option<Claim>, highest: GroupId) -> Result<bool, ClaimError> {
        if last == Some(*self) {
            return Ok(false);
        }
        let id = self.id;
        let last = last.map_or(highest, |claim| claim.id.max(highest));
        if id <= last {
            return Err(ClaimError::Taken { id, last });
        }
        if id.0 - last.0 > SKIPPED_IDS {
            return Err(ClaimError::TooFar { id, last });
        }
        Ok(true)
    }
}

fn key(kind: &str, rest: &[u8]) -> Key {
    [RESERVED_PREFIX, kind.as_bytes(), rest].concat().into()
}

/// The key of a node's row.
#[must_use]
pub fn node_key(id: NodeId) -> Key {
    key(NODES, &id.0.to_be_bytes())
}

/// The key of the policy of all keys with this prefix.
#[must_use]
pub fn policy_key(prefix: &[u8]) -> Key {
    key(POLICIES, prefix)
}

/// The key of the row about the shard that begins there.
#[must_use]
pub fn shard_key(start: &[u8]) -> Key {
    key(SHARDS, start)
}

/// Where all rows about shards from this one on lie.
#[must_use]
pub fn shard_span(from: Key) -> Span {
    Span {
        start: from,
        end: key("/shards0", b""),
    }
}

/// The key of the setting that says who moves replicas.
#[must_use]
pub fn placement_key() -> Key {
    key(SETTINGS, PLACEMENT.as_bytes())
}

/// Its value.
#[must_use]
pub fn placement_value(automatic: bool) -> Value {
    Bytes::from_static(if automatic { b"automatic" } else { MANUAL })
}

/// The key of the cluster's version.
#[must_use]
pub fn version_key() -> Key {
    key(SETTINGS, VERSION.as_bytes())
}

/// Its value; none if it cannot be encoded (it always can).
#[must_use]
pub fn version_value(version: ClusterVersion) -> Option<Value> {
    postcard::to_stdvec(&version).ok().map(Bytes::from)
}

/// The key of a setting that is a number.
#[must_use]
pub fn setting_key(name: &str) -> Key {
    key(SETTINGS, name.as_bytes())
}

/// Its value.
#[must_use]
pub fn setting_value(number: u64) -> Value {
    Bytes::from(number.to_string())
}

/// Everything but the shards.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Records {
    /// All nodes that ever were, ascending by id.
    pub nodes: Vec<NodeRow>,
    /// Policies as text by prefix; that of the empty prefix is the cluster's default.
    pub policies: BTreeMap<Vec<u8>, String>,
    /// Only people move replicas.
    pub manual: bool,
    /// The last shard id that was given away; none before the first split.
    pub claim: Option<Claim>,
    /// The cluster's version; none is the oldest. Nodes that know nothing of versions are told
    /// the records, too, so this is not among what is told.
    #[serde(skip)]
    pub version: Option<ClusterVersion>,
    /// Settings that are numbers, by name. Not sent as part of the records: nodes that know
    /// no settings could not read those.
    #[serde(skip)]
    pub settings: BTreeMap<String, u64>,
}

impl Records {
    /// Where the rows lie, from this key on: one page of a scan after another.
    #[must_use]
    pub fn span(from: Option<Key>) -> Span {
        Span {
            start: from.unwrap_or_else(|| key(NODES, b"")),
            end: key("/settings0", b""),
        }
    }

    /// Takes one row in, in place of what was there of the same key.
    pub fn replace(&mut self, row: &Row) {
        self.nodes.retain(|known| known.key() != row.key);
        self.read(row);
        self.nodes.sort_by_key(|row| row.node.id);
    }

    /// Takes one row in. What is not understood, a later version's, is left alone.
    pub fn read(&mut self, row: &Row) {
        let Some(name) = row.key.strip_prefix(RESERVED_PREFIX) else {
            return;
        };
        if name.starts_with(NODES.as_bytes()) {
            self.nodes
                .extend(NodeRow::decode(&row.value, row.timestamp));
        } else if let Some(prefix) = name.strip_prefix(POLICIES.as_bytes()) {
            let text = String::from_utf8_lossy(&row.value).into_owned();
            self.policies.insert(prefix.to_vec(), text);
        } else if row.key == placement_key() {
            self.manual = row.value[..] == *MANUAL;
        } else if row.key == version_key() {
            self.version = postcard::from_bytes(&row.value).ok().or(self.version);
        } else if row.key == Claim::key() {
            self.claim = postcard::from_bytes(&row.value).ok().or(self.claim);
        } else if let Some(name) = name.strip_prefix(SETTINGS.as_bytes()) {
            let name = String::from_utf8_lossy(name).into_owned();
            match std::str::from_utf8(&row.value).map(str::parse) {
                Ok(Ok(number)) => self.settings.insert(name, number),
                _ => self.settings.remove(&name),
            };
        }
    }
}

/// The nodes as this node knows them: it begins with the cluster's first ones, the rows
/// correct it where the meta shard is led, and gossip everywhere else.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Roster {
    rows: BTreeMap<NodeId, NodeRow>,
}

/// Nodes in one cluster, at most; those that were retired count.
const MAX_NODES: usize = 10_000;

impl Roster {
    /// Of these; younger rows win.
    pub fn new(rows: impl IntoIterator<Item = NodeRow>) -> Roster {
        let mut roster = Roster::default();
        for row in rows {
            roster.learn(&row);
        }
        roster
    }

    /// Takes a row over if it is news. Returns whether it was.
    pub fn learn(&mut self, row: &NodeRow) -> bool {
        match self.rows.get(&row.node.id) {
            Some(known) if known.version >= row.version => return false,
            None if self.rows.len() >= MAX_NODES => return false,
            _ => {}
        }
        self.rows.insert(row.node.id, row.clone());
        true
    }

    /// All rows, ascending by id.
    pub fn rows(&self) -> impl Iterator<Item = &NodeRow> {
        self.rows.values()
    }

    /// Rows written since the cluster began.
    pub fn changed(&self) -> impl Iterator<Item = &NodeRow> {
        self.rows().filter(|row| row.version > FIRST_VERSION)
    }

    /// A number that two rosters share if they know the same versions of all rows, and
    /// hardly otherwise.
    #[must_use]
    pub fn digest(&self) -> u64 {
        // Apart from what shards of the same number give.
        let parts = self.changed().map(|r| spread(!r.node.id.0, r.version.0));
        parts.fold(0, u64::wrapping_add)
    }

    /// The nodes that belong to the cluster, ascending by id.
    pub fn nodes(&self) -> impl Iterator<Item = &NodeDescriptor> {
        let belongs = self.rows().filter(|r| r.standing != Standing::Retired);
        belongs.map(|row| &row.node)
    }

    /// What a node is meant to be; none if it is not known.
    #[must_use]
    pub fn standing(&self, id: NodeId) -> Option<Standing> {
        self.rows.get(&id).map(|row| row.standing)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(id: u64) -> NodeDescriptor {
        NodeDescriptor {
            id: NodeId(id),
            name: format!("n{id}"),
            address: std::net::SocketAddr::from(([127, 0, 0, 1], 7000)),
            locality: "dc=a".to_owned(),
        }
    }

    fn row(id: u64, standing: Standing, version: u64) -> NodeRow {
        NodeRow {
            node: node(id),
            standing,
            version: Timestamp(version),
        }
    }

    #[test]
    fn rows_come_back_those_of_the_first_format_too() {
        let draining = row(7, Standing::Draining, 9);
        let value = draining.value().expect("it can be encoded");
        assert_eq!(NodeRow::decode(&value, Timestamp(9)), Some(draining));
        let old = postcard::to_stdvec(&node(7)).expect("it can be encoded");
        assert_eq!(
            NodeRow::decode(&old, FIRST_VERSION),
            Some(NodeRow::first(node(7)))
        );
        assert_eq!(NodeRow::decode(&old[..5], FIRST_VERSION), None);
    }

    #[test]
    fn records_are_read_in_any_order_and_strangers_left_alone() {
        let mut records = Records::default();
        let stored = |key: Key, value: &[u8]| Row {
            key,
            value: Bytes::copy_from_slice(value),
            timestamp: Timestamp(5),
        };
        let node = row(3, Standing::Active, 5);
        records.read(&stored(placement_key(), b"manual"));
        records.read(&stored(policy_key(b"a/"), b"voters = 5"));
        records.read(&stored(node.key(), &node.value().expect("a value")));
        records.read(&stored(key("/settings/", b"later"), b"?"));
        records.read(&stored(node_key(NodeId(4)), b"?"));
        records.read(&stored(setting_key("a"), &setting_value(u64::MAX)));
        records.read(&stored(setting_key("b"), &setting_value(7)));
        assert_eq!(records.nodes, [node]);
        assert_eq!(records.policies[&b"a/"[..]], "voters = 5");
        assert!(records.manual);
        let settings = [("a", u64::MAX), ("b", 7)].map(|(n, v)| (n.to_owned(), v));
        assert_eq!(records.settings, BTreeMap::from(settings));
        records.replace(&stored(setting_key("b"), b""));
        assert_eq!(records.settings.len(), 1);
        records.read(&stored(placement_key(), &placement_value(true)));
        assert!(!records.manual);
        let claim = claim(9, 1);
        records.read(&stored(Claim::key(), &claim.value().expect("a value")));
        assert_eq!(records.claim, Some(claim));
        assert_eq!(records.version, None);
        let version = version_value(ClusterVersion(7)).expect("a value");
        records.read(&stored(version_key(), &version));
        assert_eq!(records.version, Some(ClusterVersion(7)));
        let span = Records::span(None);
        for key in [
            placement_key(),
            version_key(),
            Claim::key(),
            setting_key("shard.split_size"),
            policy_key(b"\xff"),
            node_key(NodeId(u64::MAX)),
        ] {
            assert!(span.contains(&key));
        }
        assert!(
            !span.contains(&shard_key(b""))
                && shard_span(shard_key(b"")).contains(&shard_key(b"\xff"))
        );
    }

    fn claim(id: u64, nonce: u128) -> Claim {
        let id = GroupId(id);
        Claim { id, nonce }
    }

    #[test]
    fn an_id_is_given_to_one_only() {
        let highest = GroupId(4);
        let first = claim(5, 1);
        assert_eq!(first.follows(None, highest), Ok(true));
        // Once more, and even if the shard exists by now.
        assert_eq!(first.follows(Some(first), highest), Ok(false));
        assert_eq!(first.follows(Some(first), GroupId(5)), Ok(false));
        let taken = |id, last| {
            let (id, last) = (GroupId(id), GroupId(last));
            Err(ClaimError::Taken { id, last })
        };
        // Somebody else's, one before it, and one that a shard has without a claim.
        assert_eq!(claim(5, 2).follows(Some(first), highest), taken(5, 5));
        assert_eq!(claim(4, 2).follows(None, highest), taken(4, 4));
        assert_eq!(claim(6, 2).follows(Some(first), GroupId(7)), taken(6, 7));
        assert_eq!(claim(6, 2).follows(Some(first), highest), Ok(true));
        // Who had an earlier one does not get it back: it need not be his.
        assert_eq!(first.follows(Some(claim(6, 2)), highest), taken(5, 6));
        let all = claim(u64::MAX, 3).follows(Some(first), highest);
        assert!(matches!(all, Err(ClaimError::TooFar { .. })));
        assert_eq!(
            claim(u64::MAX, 1).follows(Some(claim(u64::MAX, 2)), highest),
            taken(u64::MAX, u64::MAX)
        );
    }

    #[test]
    fn a_roster_keeps_the_younger_word() {
        let mut roster = Roster::new([1, 2].map(|id| NodeRow::first(node(id))));
        assert_eq!((roster.changed().count(), roster.digest()), (0, 0));
        assert!(roster.learn(&row(2, Standing::Retired, 7)));
        assert!(!roster.learn(&row(2, Standing::Active, 7)));
        assert!(roster.learn(&row(3, Standing::Active, 8)));
        let ids: Vec<u64> = roster.nodes().map(|n| n.id.0).collect();
        assert_eq!(ids, [1, 3]);
        assert_eq!(roster.changed().count(), 2);
        assert_eq!(roster.standing(NodeId(2)), Some(Standing::Retired));
        assert_eq!(roster.standing(NodeId(9)), None);
    }
}
