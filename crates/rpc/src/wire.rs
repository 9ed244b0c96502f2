//! What travels on request streams: a client's frames, a node's frames, and
//! the requests that are about a node rather than about one shard.
//!
//! Enums only grow, at their end. Frames on a consensus or bulk stream hold
//! [`NodeMessage`](synod_shard::NodeMessage)s back to back and need no type here.

use crate::frame::{self, FrameError};
use serde::ser::SerializeStructVariant;
use serde::{Deserialize, Serialize, Serializer};
use synod_paxos::{GroupId, NodeId};
use synod_placement::SplitLimits;
use synod_shard::{Bootstrap, ShardMap, ShardReply, ShardRequest};
use synod_txn::bounded::list;
use synod_txn::{AttemptId, ClientId, Hashing};

pub use crate::copies::{CopiesStatus, RefusedCopy};
pub use crate::hash::{HashAnswer, HashRequest, HashedShard};
pub use crate::load::{LoadStatus, MergesStatus, SplitsStatus};
pub use crate::members::{MemberStatus, MembersAnswer, MembersRequest, MembersStatus};
pub use crate::merge::{MergeAnswer, MergeRequest};
pub use crate::placement::{JoinRequest, PlacementStatus, RecordChange};
pub use crate::recover::{RecoverAnswer, RecoverRequest, Remains};
pub use crate::split::{SplitAnswer, SplitRequest};
pub use crate::status::{
    ClockStatus, Counters, FollowerLag, Health, Heard, HeardNode, HearsStatus, NodeStatus,
    ReplicaRole, ShardStatus, TransportCounters,
};
pub use crate::versions::{ShardVersion, VersionsStatus};

/// Transactions named in one [`ClientFrame::KeepAlive`], at most.
pub const LIVE_PER_FRAME: usize = 4096;

/// Client → node, one per frame.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ClientFrame {
    /// Ask a shard. Answered by exactly one [`ServerFrame::Response`], unless cancelled.
    Request {
        /// The asker's number; unique on its stream while unanswered.
        id: u64,
        /// The request.
        request: ShardRequest,
    },
    /// This client lives, and so do these of its transactions: their sessions
    /// stay. One that is in no list for long was given up, whatever message
    /// about that was lost. Not answered.
    KeepAlive {
        /// The client.
        client: ClientId,
        /// Its transactions under way (long lists go in several frames).
        #[serde(deserialize_with = "list::<_, _, LIVE_PER_FRAME>")]
        live: Vec<AttemptId>,
    },
    /// Ask the node itself. Answered by exactly one [`ServerFrame::Node`], unless cancelled.
    Node {
        /// The asker's number; unique on its stream while unanswered.
        id: u64,
        /// The request.
        request: NodeRequest,
    },
    /// Nobody waits for this answer any more. Says nothing about the request's
    /// effects; an answer may still come and is then ignored.
    Cancel {
        /// The number of the request.
        id: u64,
    },
    /// [`ClientFrame::Request`] about keys of a hashed directory.
    Hashed {
        /// The asker's number; unique on its stream while unanswered.
        id: u64,
        /// The mapping that the request's keys went through.
        hashing: Hashing,
        /// The request.
        request: ShardRequest,
    },
}

/// Node → client, one per frame.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ServerFrame {
    /// To [`ClientFrame::Request`].
    Response {
        /// The number of the request.
        id: u64,
        /// The answer.
        reply: ShardReply,
    },
    /// To [`ClientFrame::Node`].
    Node {
        /// The number of the request.
        id: u64,
        /// The answer.
        response: NodeResponse,
    },
}

impl ClientFrame {
    /// Reads a frame's body. Only what asks a shard may take more than other frames do.
    ///
    /// # Errors
    /// [`FrameError`] if it is no such frame, or larger than one of its kind may be.
    pub fn decode(body: &[u8]) -> Result<ClientFrame, FrameError> {
        const REQUEST: u8 = 0;
        const HASHED: u8 = 4;
        let asks_shard = body
            .first()
            .is_some_and(|kind| [REQUEST, HASHED].contains(kind));
        if body.len() > frame::MAX_FRAME_BYTES && !asks_shard {
            return Err(FrameError::TooLarge);
        }
        frame::decode(body)
    }
}

impl ServerFrame {
    /// The number of the request it answers.
    #[must_use]
    pub const fn id(&self) -> u64 {
        match self {
            ServerFrame::Response { id, .. } | ServerFrame::Node { id, .. } => *id,
        }
    }
}

/// A request about a node: routing and administration. Repeating any of them is safe.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum NodeRequest {
    /// Who are you? Answered also before the cluster is initialized.
    Info,
    /// The shard map this node knows.
    Map,
    /// The first map of a new cluster. The same one again is harmless, another is refused.
    Init(Box<Bootstrap>),
    /// Everything `synod status` shows.
    Status,
    /// Running totals since the node started.
    Counters,
    /// Hand one shard's leadership over, in order.
    TransferLeader {
        /// The shard; this node leads it.
        shard: GroupId,
        /// Who takes over.
        to: NodeId,
    },
    /// What this node's replicas know of their shards' members.
    Members {
        /// Only of this shard.
        of: Option<GroupId>,
    },
    /// Other members for a shard that this node leads.
    ChangeMembers(Box<MembersRequest>),
    /// Become part of a running cluster, with nothing in it yet.
    Join(Box<JoinRequest>),
    /// The cluster's records, and what this node's keeper does about them.
    Placement,
    /// Change the cluster's records: asked of the node that leads the meta shard.
    ChangeRecords(Box<RecordChange>),
    /// Cut a shard that this node leads in two.
    SplitShard(Box<SplitRequest>),
    /// What this node's replicas hold, should they have to go on without the others.
    Remains,
    /// A replica here goes on alone: the majority of the shard's voters is lost for good.
    Recover(Box<RecoverRequest>),
    /// Which cluster versions this node's program knows, and where its shards are.
    Versions,
    /// The size and load of the shards that this node leads.
    Loads {
        /// Only of a few of those beyond one of these, with where they can be cut.
        above: Option<SplitLimits>,
    },
    /// Make a shard that this node leads and its right neighbour one.
    MergeShards(MergeRequest),
    /// How fast this node sends copies of shards, and what it takes in.
    Copies {
        /// What the cluster's setting says (bytes in a second), from the node that leads the
        /// meta shard: it holds from now on. From anybody else it is not heard.
        rate: Option<u64>,
    },
    /// How well this node hears the others.
    Hears,
    /// Store the keys of a shard that this node leads in another way.
    HashShard(Box<HashRequest>),
    /// Which of the shards that this node leads are of hashed directories.
    Hashed,
    /// What the cluster merges by itself.
    Merges,
}

/// A node's answer to a [`NodeRequest`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum NodeResponse {
    /// To [`NodeRequest::Info`].
    Info {
        /// Its id.
        id: NodeId,
        /// Its name, as in its certificate.
        name: String,
        /// Where it is reached.
        address: std::net::SocketAddr,
        /// Its place: ordered tiers, `region=…,dc=…,rack=…,host=…`.
        locality: String,
        /// The cluster's id, from the CA.
        cluster: u128,
        /// Whether it has been given a map.
        initialized: bool,
        /// The version of its program.
        version: String,
    },
    /// To [`NodeRequest::Map`].
    Map(Box<ShardMap>),
    /// To [`NodeRequest::Status`].
    Status(Box<NodeStatus>),
    /// To [`NodeRequest::Counters`].
    Counters(Box<Counters>),
    /// To [`NodeRequest::Init`], [`NodeRequest::Join`], [`NodeRequest::TransferLeader`] and
    /// [`NodeRequest::ChangeRecords`]: accepted.
    Done,
    /// Refused; nothing was changed.
    Refused {
        /// What is wrong and what to do.
        reason: String,
    },
    /// Too much to do; nothing was changed.
    Overloaded {
        /// Come back after; milliseconds.
        retry_after_millis: u32,
    },
    /// To [`NodeRequest::Members`], ascending by shard.
    Members(Vec<MembersStatus>),
    /// To [`NodeRequest::ChangeMembers`].
    Change(MembersAnswer),
    /// To [`NodeRequest::Placement`].
    Placement(Box<PlacementStatus>),
    /// To [`NodeRequest::SplitShard`].
    Split(SplitAnswer),
    /// To [`NodeRequest::Remains`], ascending by shard.
    Remains(Vec<Remains>),
    /// To [`NodeRequest::Recover`].
    Recover(RecoverAnswer),
    /// To [`NodeRequest::Versions`].
    Versions(Box<VersionsStatus>),
    /// To [`NodeRequest::Loads`].
    Loads(Box<LoadStatus>),
    /// To [`NodeRequest::MergeShards`].
    Merge(MergeAnswer),
    /// To [`NodeRequest::Copies`].
    Copies(Box<CopiesStatus>),
    /// To [`NodeRequest::Hears`].
    Hears(HearsStatus),
    /// To [`NodeRequest::HashShard`].
    Hash(HashAnswer),
    /// To [`NodeRequest::Hashed`], ascending by shard.
    Hashed(Vec<HashedShard>),
    /// To [`NodeRequest::Merges`]; none from a node that does not lead the meta shard.
    Merges(Option<Box<MergesStatus>>),
}

/// A request without its number, as callers of the [`Pool`](crate::Pool) give it.
// Nearly all are to shards: a box would cost each of them.
#[allow(clippy::large_enum_variant)]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RequestBody {
    /// To a shard.
    Shard(ShardRequest),
    /// To the node.
    Node(NodeRequest),
}

impl RequestBody {
    /// The frame that carries it under this number.
    #[must_use]
    pub fn numbered(self, id: u64) -> ClientFrame {
        match self {
            RequestBody::Shard(mut request) => match request.hashing.take() {
                Some(hashing) => ClientFrame::Hashed {
                    id,
                    hashing: *hashing,
                    request,
                },
                None => ClientFrame::Request { id, request },
            },
            RequestBody::Node(request) => ClientFrame::Node { id, request },
        }
    }
}

/// The frame that carries a request to a shard, which stays the caller's: encoded as
/// [`ClientFrame::Request`], or [`ClientFrame::Hashed`] if its keys were mapped.
pub(crate) struct ShardFrame<'a> {
    /// The asker's number.
    pub(crate) id: u64,
    /// The request.
    pub(crate) request: &'a ShardRequest,
}

impl Serialize for ShardFrame<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let name = "ClientFrame";
        let mut variant = if let Some(hashing) = &self.request.hashing {
            let mut variant = serializer.serialize_struct_variant(name, 4, "Hashed", 3)?;
            variant.serialize_field("id", &self.id)?;
            variant.serialize_field("hashing", hashing)?;
            variant
        } else {
            let mut variant = serializer.serialize_struct_variant(name, 0, "Request", 2)?;
            variant.serialize_field("id", &self.id)?;
            variant
        };
        variant.serialize_field("request", self.request)?;
        variant.end()
    }
}

/// An answer without its number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServerBody {
    /// From a shard.
    Shard(ShardReply),
    /// From the node.
    Node(NodeResponse),
}

impl From<ServerFrame> for ServerBody {
    fn from(frame: ServerFrame) -> ServerBody {
        match frame {
            ServerFrame::Response { reply, .. } => ServerBody::Shard(reply),
            ServerFrame::Node { response, .. } => ServerBody::Node(response),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use synod_txn::Request;

    #[test]
    fn a_request_that_stays_with_its_caller_is_encoded_as_one_given_away() {
        let hashing = Hashing {
            prefix: "users/".into(),
            slots: 16,
        };
        for hashing in [None, Some(Box::new(hashing))] {
            let request = ShardRequest {
                shard: GroupId(3),
                generation: 7,
                request: Request::Locate,
                hashing,
            };
            let kept = postcard::to_allocvec(&ShardFrame {
                id: 300,
                request: &request,
            });
            let given = postcard::to_allocvec(&RequestBody::Shard(request).numbered(300));
            assert_eq!(kept, given);
        }
    }
}
