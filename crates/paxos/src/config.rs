//! Who takes part in a group, and the numbers its protocol runs by.

use crate::ids::{Epoch, NodeId, Slot};
use serde::{Deserialize, Serialize};

/// Members of one configuration, at most.
pub const MAX_MEMBERS: usize = 64;

/// The members of a group in one configuration epoch. Lists are sorted and
/// disjoint. Voters and witnesses vote; only voters that hold data lead;
/// learners store and never vote.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Configuration {
    /// Its number.
    pub epoch: Epoch,
    /// Vote and store data.
    pub voters: Vec<NodeId>,
    /// Vote and store only the log; never campaign.
    pub witnesses: Vec<NodeId>,
    /// Store data, never vote.
    pub learners: Vec<NodeId>,
}

impl Configuration {
    /// A first configuration (epoch 1) of plain voters; the list is sorted here.
    #[must_use]
    pub fn of_voters(mut voters: Vec<NodeId>) -> Configuration {
        voters.sort_unstable();
        voters.dedup();
        Configuration {
            epoch: Epoch(1),
            voters,
            witnesses: Vec::new(),
            learners: Vec::new(),
        }
    }

    /// No configuration: of a replica that is not part of the group yet. It takes
    /// what leaders send until it holds the state a configuration begins with (G1).
    #[must_use]
    pub fn outside() -> Configuration {
        Configuration {
            epoch: Epoch(0),
            ..Configuration::of_voters(Vec::new())
        }
    }

    /// The one after this with these members; the lists are sorted here.
    #[must_use]
    pub fn successor(
        &self,
        mut voters: Vec<NodeId>,
        mut witnesses: Vec<NodeId>,
        mut learners: Vec<NodeId>,
    ) -> Configuration {
        voters.sort_unstable();
        witnesses.sort_unstable();
        learners.sort_unstable();
        Configuration {
            epoch: self.epoch.next(),
            voters,
            witnesses,
            learners,
        }
    }

    /// Whether a group can live by it.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn check(&self) -> Result<(), ConfigurationError> {
        for list in [&self.voters, &self.witnesses, &self.learners] {
            if let Some(pair) = list.windows(2).find(|pair| pair[0] >= pair[1]) {
                return Err(ConfigurationError::NotAscending { node: pair[1] });
            }
        }
        let mut all: Vec<NodeId> = self.members().collect();
        all.sort_unstable();
        if let Some(pair) = all.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(ConfigurationError::NotAscending { node: pair[1] });
        }
        if all.len() > MAX_MEMBERS {
            return Err(ConfigurationError::TooMany { members: all.len() });
        }
        let (voters, majority) = (self.voters.len(), self.majority());
        if voters == 0 {
            return Err(ConfigurationError::NoVoter);
        }
        if voters < majority {
            return Err(ConfigurationError::TooFewData { voters, majority });
        }
        Ok(())
    }

    /// Everybody whose Promise and Accepted count, voters first.
    pub fn electors(&self) -> impl Iterator<Item = NodeId> + Clone + '_ {
        self.voters.iter().chain(&self.witnesses).copied()
    }

    /// Everybody the log goes to.
    pub fn members(&self) -> impl Iterator<Item = NodeId> + Clone + '_ {
        self.electors().chain(self.learners.iter().copied())
    }

    /// Whether `node` votes.
    #[must_use]
    pub fn is_elector(&self, node: NodeId) -> bool {
        self.electors().any(|n| n == node)
    }

    /// Whether the log goes to `node`.
    #[must_use]
    pub fn is_member(&self, node: NodeId) -> bool {
        self.members().any(|n| n == node)
    }

    /// Whether `node` may campaign.
    #[must_use]
    pub fn is_voter(&self, node: NodeId) -> bool {
        self.voters.contains(&node)
    }

    /// How many electors make a majority: ⌊n/2⌋ + 1.
    #[must_use]
    pub fn majority(&self) -> usize {
        (self.voters.len() + self.witnesses.len()) / 2 + 1
    }
}

/// A configuration and where it begins.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Began {
    /// The configuration.
    pub configuration: Configuration,
    /// The slot of the stop-sign before it: it decides the slots after this one.
    /// 0 for a group's first.
    pub after: Slot,
    /// Nodes left out by now, whose replicas are not known to be gone; ascending.
    pub left: Vec<NodeId>,
}

/// What is wrong with a configuration that somebody wants. Nothing changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum ConfigurationError {
    /// A group needs somebody to lead it.
    #[error("it has no voter; name at least one")]
    NoVoter,
    /// A node is listed twice, in one role or in two, or a list is not ascending.
    #[error("{node} is listed twice or out of order; list every node once, ascending")]
    NotAscending {
        /// The node.
        node: NodeId,
    },
    /// There are too many members.
    #[error("it has {members} members, the bound is {MAX_MEMBERS}")]
    TooMany {
        /// How many.
        members: usize,
    },
    /// A majority could be made of replicas without data (G3).
    #[error(
        "it has {voters} voters that hold data and needs {majority}, a majority of all that vote; \
         take fewer witnesses"
    )]
    TooFewData {
        /// Voters that hold data.
        voters: usize,
        /// A majority of voters and witnesses.
        majority: usize,
    },
}

/// Numbers of one replica's protocol; none of them is needed for safety
/// except `lease_nanos`, `longest_lease_nanos` and `rate_error_per_million`,
/// which live in [`crate::lease::LeaseSettings`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// Ballot priority of this replica; the preferred leader has the highest.
    pub priority: u16,
    /// An election starts this long after the leader was missed, plus up to the
    /// same again by chance; nanoseconds.
    pub election_nanos: u64,
    /// How long a campaign or a round may stay unanswered before it is tried again; nanoseconds.
    pub retry_nanos: u64,
    /// Lazy entries wait at most this long for company; nanoseconds (default 5 ms).
    pub lazy_nanos: u64,
    /// Bytes of entries on the way to one follower, at most.
    pub window_bytes: usize,
    /// Bytes of entries in one Accept, at most (one entry always fits).
    pub message_bytes: usize,
    /// Bytes of one entry, at most (8 MiB and overhead).
    pub entry_bytes: usize,
    /// Bytes of undecided entries beyond which a leader admits nothing new; at four
    /// times as many it refuses proposals, and snapshots no longer hold up trimming.
    pub undecided_bytes: usize,
    /// Bytes of entries that all replicas of a node hold which can trim nothing, as they wait for
    /// their data or for a newer program: beyond it they take no more ([`Replica::set_full`](crate::Replica::set_full)). Far less than one append to a log may have.
    pub unfilled_bytes: usize,
    /// Bytes of one snapshot chunk, about.
    pub chunk_bytes: usize,
}

impl Default for Settings {
    fn default() -> Settings {
        const MS: u64 = 1_000_000;
        Settings {
            priority: 0,
            election_nanos: 60 * MS,
            retry_nanos: 100 * MS,
            lazy_nanos: 5 * MS,
            window_bytes: 16 << 20,
            message_bytes: 1 << 20,
            entry_bytes: (8 << 20) + (64 << 10),
            undecided_bytes: 64 << 20,
            unfilled_bytes: 128 << 20,
            chunk_bytes: 512 << 10,
        }
    }
}
