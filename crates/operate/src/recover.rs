//! Shards that have lost the majority of their voters for good, and with whom they can go on
//! (decision 16). Nothing is changed here: a plan says who would go on alone and what is lost
//! with the others, and a person decides.

use crate::{Survey, Trouble};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;
use synod_paxos::{Configuration, Epoch, GroupId, Holds, NodeId, Slot};
use synod_rpc::recover::{OpenTransaction, RecoverRequest, Remains};
use synod_rpc::{Pool, ask};
use synod_shard::META_SHARD;
use synod_shard::wire::{ShardMap, show_key};
use synod_txn::{AttemptId, Span};

/// The cluster as its survivors tell of it.
#[derive(Clone)]
pub struct Wreck {
    /// What all nodes say.
    pub survey: Survey,
    /// What the replicas of those that answer hold.
    pub remains: BTreeMap<NodeId, Vec<Remains>>,
}

/// A shard without a majority.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LostShard {
    /// Which.
    pub shard: GroupId,
    /// Its range.
    pub span: Span,
    /// The youngest configuration that anybody knows of.
    pub configuration: Configuration,
    /// Those who vote in it and answer.
    pub answering: Vec<NodeId>,
    /// Those who vote in it and do not.
    pub lost: Vec<NodeId>,
    /// Who has a copy with data, the best one first, and what it holds.
    pub holders: Vec<(NodeId, Holds)>,
    /// Who goes on, or why nobody can.
    pub choice: Result<Choice, String>,
}

/// Who goes on alone, and what that means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// The survivor.
    pub node: NodeId,
    /// What it goes on from.
    pub holds: Holds,
    /// It knows everything up to here to be decided; what comes after, through
    /// `holds.last`, counts as decided from then on.
    pub decided: Slot,
    /// The epoch of the new configuration.
    pub epoch: Epoch,
    /// A configuration that it has not seen begin: acknowledged commits are lost for certain if
    /// there were any since.
    pub unseen: Option<Epoch>,
    /// Whom it supports as the shard's leader now, or did a moment ago: as long as it does, it
    /// goes on with nothing.
    pub led_by: Option<NodeId>,
    /// Transactions that have no outcome in its log.
    pub in_doubt: Vec<InDoubt>,
    /// How many more there are that it did not name.
    pub more: u64,
}

impl Choice {
    /// How many entries count as decided that are not known to be.
    #[must_use]
    pub fn undecided(&self) -> u64 {
        self.holds.last.0.saturating_sub(self.decided.0)
    }

    /// The order to its node.
    #[must_use]
    pub fn request(&self, shard: GroupId) -> RecoverRequest {
        RecoverRequest {
            shard,
            holds: self.holds,
            epoch: self.epoch,
        }
    }
}

/// A transaction without an outcome.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InDoubt {
    /// Its attempt.
    pub attempt: AttemptId,
    /// The coordinator's key.
    pub coordinator: synod_txn::Key,
    /// Whether it rests on entries that are not known to be decided.
    pub undecided: bool,
    /// What will become of it, in words.
    pub fate: String,
}

impl Wreck {
    /// Asks every node; each may take this long.
    ///
    /// # Errors
    /// When no node has a map, or one answers but does not say what it holds: without that
    /// nobody knows whether another survivor holds more.
    pub async fn take(
        pool: &Pool,
        endpoints: &[SocketAddr],
        limit: Duration,
    ) -> Result<Wreck, Trouble> {
        let survey = Survey::take(pool, endpoints, limit).await?;
        let mut remains = BTreeMap::new();
        for node in survey.map.nodes.iter().filter(|n| survey.answers(n.id)) {
            let held = ask::remains(pool, node.address, limit).await;
            let held = held.map_err(|reason| {
                Trouble::Failed(format!(
                    "{} answers, but does not say what its replicas hold ({reason}), so no plan \
                     can be made: it may be the one that holds most. All nodes that answer have to \
                     run this version",
                    node.name
                ))
            })?;
            remains.insert(node.id, held);
        }
        Ok(Wreck { survey, remains })
    }

    /// The shards that have lost their majority, the meta shard first.
    #[must_use]
    pub fn plan(&self) -> Vec<LostShard> {
        plan(&self.survey.map, &self.remains)
    }

    /// Nodes whose loss the plan rests on: they vote in a shard that is lost, and do not answer.
    #[must_use]
    pub fn missing(plan: &[LostShard]) -> BTreeSet<NodeId> {
        plan.iter().flat_map(|lost| lost.lost.clone()).collect()
    }
}

/// The same from what the nodes in `remains` hold; the others do not answer.
fn plan(map: &ShardMap, remains: &BTreeMap<NodeId, Vec<Remains>>) -> Vec<LostShard> {
    let told = remains.values().flatten().map(|r| r.shard);
    let ids: BTreeSet<GroupId> = map.shards.iter().map(|s| s.id).chain(told).collect();
    let lost = ids.iter().filter_map(|id| examine(map, remains, *id));
    let mut lost: Vec<LostShard> = lost.collect();
    lost.sort_by_key(|l| (l.shard != META_SHARD, l.shard));
    let fates: Vec<Option<Vec<InDoubt>>> = lost
        .iter()
        .map(|one| {
            let choice = one.choice.as_ref().ok()?;
            let of = remains_of(remains, one.shard);
            let (_, held) = of.into_iter().find(|(node, _)| *node == choice.node)?;
            let open = held.open.iter();
            Some(open.map(|t| fate(map, remains, &lost, t)).collect())
        })
        .collect();
    for (one, fates) in lost.iter_mut().zip(fates) {
        if let (Ok(choice), Some(fates)) = (&mut one.choice, fates) {
            choice.in_doubt = fates;
        }
    }
    lost
}

fn remains_of(remains: &BTreeMap<NodeId, Vec<Remains>>, shard: GroupId) -> Vec<(NodeId, &Remains)> {
    let nodes = remains.iter();
    nodes
        .filter_map(|(node, all)| Some((*node, all.iter().find(|r| r.shard == shard)?)))
        .collect()
}

/// Whether a shard is lost, and who would go on; none if it is not.
fn examine(
    map: &ShardMap,
    remains: &BTreeMap<NodeId, Vec<Remains>>,
    shard: GroupId,
) -> Option<LostShard> {
    let copies = remains_of(remains, shard);
    let known = map.shard(shard);
    let told = copies.iter().map(|(_, r)| &r.configuration);
    let configurations = told.chain(known.map(|d| &d.configuration));
    let configuration = configurations.max_by_key(|c| c.epoch)?.clone();
    let (answering, lost): (Vec<NodeId>, Vec<NodeId>) =
        { configuration.electors() }.partition(|n| remains.contains_key(n));
    let led = copies
        .iter()
        .any(|(_, r)| r.in_office && r.configuration.epoch == configuration.epoch);
    if led || answering.len() >= configuration.majority() || lost.is_empty() {
        return None;
    }
    let mut fit: Vec<(NodeId, &Remains)> = copies
        .iter()
        .copied()
        .filter(|(node, r)| r.holds_data && !r.left_out && r.configuration.is_member(*node))
        .collect();
    // As a candidate would choose (P3); of equals one that votes, and knows more to be decided.
    fit.sort_by_key(|(node, r)| {
        let votes = r.configuration.is_elector(*node);
        std::cmp::Reverse((r.accepted, r.last, votes, r.decided))
    });
    let epochs = copies.iter().map(|(_, r)| r.promised.epoch);
    let highest = epochs.chain([configuration.epoch]).max()?;
    let choice = match fit.first() {
        None => Err("no node that answers holds its data: it cannot be recovered".to_owned()),
        Some((node, r)) => choose(map, *node, r, &configuration, highest.next_era()),
    };
    let span = known.map(|d| &d.span);
    let span = span.or(copies.first().map(|(_, r)| &r.span))?.clone();
    let holders = fit.iter().map(|(node, r)| (*node, r.holds()));
    Some(LostShard {
        shard,
        span,
        configuration,
        answering,
        lost,
        holders: holders.collect(),
        choice,
    })
}

fn choose(
    map: &ShardMap,
    node: NodeId,
    held: &Remains,
    youngest: &Configuration,
    epoch: Epoch,
) -> Result<Choice, String> {
    let known = map.shard(held.shard).map(|d| &d.span.end);
    if let Some(end) = known.filter(|end| **end != held.span.end) {
        return Err(format!(
            "no copy that is left has seen that the shard was split at {}: to go on with one would \
             bring two shards about for the keys from there on. Bring one of the lost nodes back",
            show_key(end)
        ));
    }
    let own = held.configuration.epoch;
    Ok(Choice {
        node,
        holds: held.holds(),
        decided: held.decided,
        epoch,
        unseen: (own < youngest.epoch).then_some(youngest.epoch),
        led_by: held.led_by,
        in_doubt: Vec::new(),
        more: held.more,
    })
}

/// What becomes of a transaction that has no outcome where a shard goes on.
fn fate(
    map: &ShardMap,
    remains: &BTreeMap<NodeId, Vec<Remains>>,
    lost: &[LostShard],
    transaction: &OpenTransaction,
) -> InDoubt {
    let of_key = |key: &[u8]| {
        let id = map.shard_of(key)?.id;
        Some((id, lost.iter().find(|l| l.shard == id)))
    };
    let hopeless = |l: Option<&LostShard>| l.is_some_and(|l| l.choice.is_err());
    let fate = if transaction.here {
        let parts = transaction.participants.iter();
        let blocked = parts.filter_map(|key| of_key(key));
        match { blocked }.find(|(_, l)| hopeless(*l)) {
            Some((id, _)) => format!(
                "stays open, with its keys locked, for as long as shard {} cannot say whether it \
                 holds its part",
                id.0
            ),
            None => "is decided here: committed if every participant still holds its part, else \
                     aborted"
                .to_owned(),
        }
    } else {
        match of_key(&transaction.coordinator) {
            None => "stays open until the shard of its coordinator is known".to_owned(),
            Some((id, None)) => {
                format!("ends as shard {} says, which has its majority", id.0)
            }
            Some((id, Some(l))) => match &l.choice {
                Err(_) => format!(
                    "stays open, with its keys locked: shard {}, which decides it, cannot be recovered",
                    id.0
                ),
                Ok(choice) if is_open(remains, id, choice.node, transaction.attempt) => format!(
                    "is decided by shard {} once that is recovered: committed if every participant \
                     still holds its part, else aborted",
                    id.0
                ),
                Ok(_) => format!(
                    "ends as shard {} says once that is recovered: committed if its survivor holds \
                     that outcome, else aborted, even if somebody was told that it committed",
                    id.0
                ),
            },
        }
    };
    InDoubt {
        attempt: transaction.attempt,
        coordinator: transaction.coordinator.clone(),
        undecided: transaction.undecided,
        fate,
    }
}

fn is_open(
    remains: &BTreeMap<NodeId, Vec<Remains>>,
    shard: GroupId,
    node: NodeId,
    attempt: AttemptId,
) -> bool {
    let of = remains_of(remains, shard).into_iter();
    let mut open = of
        .filter(|(n, _)| *n == node)
        .flat_map(|(_, r)| r.open.iter());
    open.any(|t| t.attempt == attempt)
}

#[cfg(test)]
mod tests;
