//! What stands in the way of a policy, and what is missing.

use crate::view::{Directory, NodeState};
use std::fmt;
use synod_paxos::{GroupId, NodeId};

/// Something that a person should know: a policy that cannot be kept, or a
/// replica that cannot go where it should.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Problem {
    /// Fewer nodes may take voters than the policy wants.
    TooFewNodes {
        /// Whose policy.
        directory: Directory,
        /// Voters wanted, and with data.
        wanted: (usize, usize),
        /// Nodes that may take voters now, and such with data.
        nodes: (usize, usize),
    },
    /// What the policy claims to survive, it does not.
    CannotSurvive {
        /// Whose policy.
        directory: Directory,
        /// Why, and what is missing.
        claim: Claim,
    },
    /// A tier, or a tier or label in an expression, that no node tells.
    UnknownName {
        /// Whose policy.
        directory: Directory,
        /// In which setting.
        setting: &'static str,
        /// The name.
        name: String,
        /// What was probably meant.
        nearest: Option<String>,
    },
    /// `spread` names a narrower tier before a wider one.
    SpreadOrder {
        /// Whose policy.
        directory: Directory,
        /// The narrower tier, named first.
        narrower: String,
        /// The wider tier, named later.
        wider: String,
    },
    /// Fewer nodes of a kind than learners are wanted there.
    TooFewLearners {
        /// Whose policy.
        directory: Directory,
        /// The kind of nodes.
        kind: String,
        /// Learners wanted.
        wanted: usize,
        /// Nodes that may take them now.
        nodes: usize,
    },
    /// No node that may lead is of a preferred kind.
    NoPreferredLeader {
        /// Whose policy.
        directory: Directory,
        /// The kind of nodes.
        kind: String,
    },
    /// A shard lies in several directories with policies; that of its first key holds.
    Straddles {
        /// The shard.
        shard: GroupId,
        /// The directory that begins, or ends, within it.
        directory: Directory,
    },
    /// A shard without a quorum: nothing of it can change until nodes return.
    NoQuorum {
        /// The shard.
        shard: GroupId,
        /// Voters that answer.
        answer: usize,
        /// Voters that must.
        majority: usize,
        /// Those that do not.
        silent: Vec<NodeId>,
    },
    /// A replica stays where it should not be.
    Held {
        /// The shard.
        shard: GroupId,
        /// Where its replica is.
        node: NodeId,
        /// The state of that node.
        state: NodeState,
        /// Whether the policy allows replicas there.
        allowed: bool,
        /// What stands in the way.
        because: String,
    },
}

/// Why a policy does not survive what it claims.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// The tier of which it claims to survive the loss of any place.
    pub tier: String,
    /// Places of this tier with nodes for voters.
    pub places: usize,
    /// Voters wanted.
    pub voters: usize,
    /// The most voters that one place may have without having a majority.
    pub most: usize,
    /// Voters that find no place.
    pub missing: usize,
    /// Nodes without the tier in their locality; they count as one place.
    pub untold: usize,
    /// Nodes left out because they are down or leaving.
    pub away: usize,
}

impl fmt::Display for Claim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Claim {
            places,
            voters,
            most,
            missing,
            ..
        } = self;
        let tier = &self.tier;
        match (*voters, *places) {
            (1, _) => write!(
                f,
                "one voter cannot survive the loss of its {}: ask for voters = 3 or more",
                spelled(tier, 1)
            )?,
            (_, 0) => write!(f, "no {} has a node for its voters", spelled(tier, 1))?,
            (_, 1) => write!(
                f,
                "one {} cannot survive its own loss: add nodes in at least two more",
                spelled(tier, 1)
            )?,
            (_, 2) => {
                write!(
                    f,
                    "two {} cannot survive the loss of either: add a witness in a third",
                    spelled(tier, 2)
                )?;
                if *missing > 1 {
                    write!(f, ", and {} in the two", counted(missing - 1, "node"))?;
                }
            }
            _ => write!(
                f,
                "{} {} have room for {} of {voters} voters if none holds more than {most}, \
                 so that the loss of any one leaves a majority: add {}",
                number(*places),
                spelled(tier, *places),
                voters - missing,
                counted(*missing, "node"),
            )?,
        }
        if self.untold > 0 {
            let nodes = counted(self.untold, "node");
            write!(
                f,
                " ({nodes} without `{tier}` in the locality count as one place)"
            )?;
        }
        if self.away > 0 {
            let nodes = counted(self.away, "node");
            write!(f, " ({nodes} down or leaving not counted)")?;
        }
        Ok(())
    }
}

/// The name of a tier in a sentence.
fn spelled(tier: &str, count: usize) -> String {
    let name = match tier {
        "dc" => "data centre",
        other => other,
    };
    if count == 1 {
        name.to_owned()
    } else {
        format!("{name}s")
    }
}

fn counted(count: usize, what: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {what}{plural}")
}

fn number(count: usize) -> String {
    const WORDS: [&str; 10] = [
        "no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine",
    ];
    let word = WORDS.get(count);
    word.map_or_else(|| count.to_string(), |word| (*word).to_owned())
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Problem::TooFewNodes {
                directory,
                wanted: (voters, data),
                nodes: (all, storing),
            } => write!(
                f,
                "{directory}: {voters} voters are wanted, {data} of them with data, and only {} \
                 can take voters, {storing} of them data; add nodes",
                counted(*all, "node")
            ),
            Problem::CannotSurvive { directory, claim } => {
                write!(
                    f,
                    "{directory}: survive = {} does not hold: {claim}",
                    claim.tier
                )
            }
            Problem::UnknownName {
                directory,
                setting,
                name,
                nearest,
            } => {
                write!(
                    f,
                    "{directory}: no node has the tier or label `{name}` of `{setting}`"
                )?;
                match nearest {
                    Some(nearest) => write!(f, "; did you mean `{nearest}`?"),
                    None => Ok(()),
                }
            }
            Problem::SpreadOrder {
                directory,
                narrower,
                wider,
            } => write!(
                f,
                "{directory}: spread names `{narrower}` before `{wider}`, which is the wider tier; \
                 they are taken widest first"
            ),
            Problem::TooFewLearners {
                directory,
                kind,
                wanted,
                nodes,
            } => write!(
                f,
                "{directory}: learners are wanted on {wanted} nodes of {kind}, and only {} can \
                 take them",
                counted(*nodes, "node")
            ),
            Problem::NoPreferredLeader { directory, kind } => write!(
                f,
                "{directory}: no node of {kind} can lead now; the next preference counts"
            ),
            Problem::Straddles { shard, directory } => write!(
                f,
                "shard {} lies only partly in {directory}; the policy of its first key holds for \
                 all of it until it is split there",
                shard.0
            ),
            Problem::NoQuorum {
                shard,
                answer,
                majority,
                silent,
            } => {
                let silent: Vec<String> = silent.iter().map(NodeId::to_string).collect();
                write!(
                    f,
                    "shard {}: {answer} of its voters answer and {majority} must; it waits for {}",
                    shard.0,
                    silent.join(", ")
                )
            }
            Problem::Held {
                shard,
                node,
                state,
                allowed,
                because,
            } => {
                write!(f, "shard {} stays on {node}, which ", shard.0)?;
                match allowed {
                    true => write!(f, "is {state}")?,
                    false => f.write_str("its policy does not allow")?,
                }
                write!(f, ": {because}")
            }
        }
    }
}
