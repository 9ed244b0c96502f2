//! The policies of a cluster, and what they come to for one directory.

use super::{Expr, Policy};
use crate::plan::DEFAULT_REPLICAS;
use std::collections::BTreeMap;

/// All policies: the cluster's default, and those of directories.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policies {
    /// What holds where no directory says otherwise.
    pub default: Policy,
    /// Policies by directory, that is by prefix of keys.
    pub directories: BTreeMap<Vec<u8>, Policy>,
}

impl Policies {
    /// The longest directory with a policy that holds `key`.
    #[must_use]
    pub fn directory_of(&self, key: &[u8]) -> Option<&[u8]> {
        let up_to = self.directories.range(..=key.to_vec()).rev();
        // Nearest first: of two prefixes of the key, the longer one sorts behind.
        let mut prefixes = up_to.map(|(prefix, _)| prefix.as_slice());
        prefixes.find(|prefix| key.starts_with(prefix))
    }

    /// What holds for a directory of [`Policies::directories`]; for the rest of
    /// the keys if there is none.
    ///
    /// # Errors
    ///
    /// The settings contradict each other.
    pub fn rules(&self, directory: Option<&[u8]>) -> Result<Rules, RulesError> {
        let mut all = self.default.clone();
        let prefixes = directory
            .into_iter()
            .flat_map(|d| (0..=d.len()).map(|n| &d[..n]));
        for policy in prefixes.filter_map(|prefix| self.directories.get(prefix)) {
            let policy = policy.clone();
            all = Policy {
                voters: policy.voters.or(all.voters),
                witnesses: policy.witnesses.or(all.witnesses),
                learners: policy.learners.or(all.learners),
                spread: policy.spread.or(all.spread),
                require: policy.require.or(all.require),
                forbid: policy.forbid.or(all.forbid),
                leaders: policy.leaders.or(all.leaders),
                survive: policy.survive.or(all.survive),
                sharding: None,
            };
        }
        Rules::of(all)
    }
}

/// A policy with nothing left open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rules {
    /// Replicas that vote, witnesses included; odd.
    pub voters: usize,
    /// Those of them that store only the log; less than half.
    pub witnesses: usize,
    /// How many replicas that never vote, on nodes of which kind.
    pub learners: Vec<(Expr, usize)>,
    /// Tiers over which replicas are spread; none for all of the cluster's.
    pub spread: Option<Vec<String>>,
    /// Replicas lie only on nodes of this kind.
    pub require: Expr,
    /// Replicas lie on no node of this kind.
    pub forbid: Expr,
    /// Kinds of nodes that should lead, best first.
    pub leaders: Vec<Expr>,
    /// The tier of which the loss of any one place must leave a quorum.
    pub survive: Option<String>,
}

/// Why settings do not go together. Nothing was changed; correct the policy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RulesError {
    /// The number of voters is not odd.
    #[error(
        "voters = {voters} is even and survives no more failures than {}; ask for an odd number \
         (a witness is one of the voters)",
        voters - 1
    )]
    EvenVoters {
        /// The number asked for.
        voters: usize,
    },
    /// Fewer voters than a majority store data (G3).
    #[error(
        "witnesses = {witnesses} leaves {} of {voters} voters with data, and a majority of \
         {majority} must have it; at most {} can be witnesses",
        voters.saturating_sub(*witnesses), voters - majority
    )]
    TooManyWitnesses {
        /// Voters, witnesses included.
        voters: usize,
        /// Witnesses asked for.
        witnesses: usize,
        /// How many voters make a majority.
        majority: usize,
    },
}

impl Rules {
    fn of(policy: Policy) -> Result<Rules, RulesError> {
        let voters = policy.voters.unwrap_or(DEFAULT_REPLICAS);
        let witnesses = policy.witnesses.unwrap_or(0);
        if voters.is_multiple_of(2) {
            return Err(RulesError::EvenVoters { voters });
        }
        let majority = voters / 2 + 1;
        if witnesses > voters - majority {
            return Err(RulesError::TooManyWitnesses {
                voters,
                witnesses,
                majority,
            });
        }
        Ok(Rules {
            voters,
            witnesses,
            learners: policy.learners.unwrap_or_default(),
            spread: policy.spread,
            require: policy.require.unwrap_or(Expr::Any),
            forbid: policy.forbid.unwrap_or(Expr::None),
            leaders: policy.leaders.unwrap_or_default(),
            survive: policy.survive.filter(|tier| tier != "none"),
        })
    }
}

impl Default for Rules {
    /// What holds where nothing is set.
    fn default() -> Rules {
        Rules::of(Policy::default()).expect("the defaults go together")
    }
}
