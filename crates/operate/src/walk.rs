//! Going the steps of a plan.

use crate::{Changer, Roles, Seen, Stopped, Tell, Trouble};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use synod_paxos::{GroupId, NodeId};
use synod_placement::{Change, Replan, Step, replan};
use tokio::task::JoinSet;

/// The plan, and of its steps those of the shards that are meant: all, or those with a
/// replica on one node.
///
/// # Errors
/// When the policies make no sense.
pub fn plan(seen: &Seen, only: Option<NodeId>) -> Result<(Vec<Step>, Replan), Trouble> {
    let plan = replan(&seen.view).map_err(|error| Trouble::Input(error.to_string()))?;
    let shards = seen.view.shards.iter();
    let meant = shards.filter(|s| only.is_none_or(|node| s.replicas.contains_key(&node)));
    let meant: BTreeSet<GroupId> = meant.map(|s| s.id).collect();
    let steps = plan.steps.iter().filter(|step| meant.contains(&step.shard));
    Ok((steps.cloned().collect(), plan))
}

/// How far a walk came.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Walked {
    /// Steps gone.
    pub gone: usize,
    /// Somebody changed a shard meanwhile: look and plan again.
    pub overtaken: bool,
    /// Why the steps of some shards were not all gone.
    pub trouble: Option<Trouble>,
}

/// How to go.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Shards whose members change at the same time.
    pub parallel: usize,
    /// Those of them at most of which one node takes in copies.
    pub into: usize,
    /// Wait until copies that are left over are deleted, too.
    pub sweep: bool,
}

/// Goes these steps: those of one shard in order, those of several shards at a time. What thwarts one shard does not stop the others. Dropping the future ends it
/// between two questions; the cluster is then left as it may stay.
pub async fn walk(
    changer: &Arc<Changer>,
    seen: &Seen,
    steps: &[Step],
    pace: Pace,
    tell: &Tell,
) -> Walked {
    let mut of_shards: VecDeque<(GroupId, Vec<(Step, String)>)> = VecDeque::new();
    for step in steps {
        let said = (step.clone(), seen.named(&step.to_string()));
        // Those of one shard come one after the other.
        match of_shards
            .back_mut()
            .filter(|(shard, _)| *shard == step.shard)
        {
            Some((_, steps)) => steps.push(said),
            None => of_shards.push_back((step.shard, vec![said])),
        }
    }
    let shards = seen.view.shards.iter();
    let before: BTreeMap<GroupId, Roles> = shards.map(|s| (s.id, s.replicas.clone())).collect();
    let gone = Arc::new(AtomicUsize::new(0));
    let mut walked = Walked::default();
    let mut under_way = JoinSet::new();
    // Which nodes take in copies of the shards under way.
    let mut taking: BTreeMap<GroupId, Vec<NodeId>> = BTreeMap::new();
    loop {
        while under_way.len() < pace.parallel.max(1)
            && let Some(next) = of_shards
                .iter()
                .position(|(_, s)| is_free(s, &taking, pace.into))
            && let Some((shard, steps)) = of_shards.remove(next)
        {
            taking.insert(shard, takers(&steps).collect());
            let (changer, tell, gone) = (changer.clone(), tell.clone(), gone.clone());
            let before = before.get(&shard).cloned().unwrap_or_default();
            under_way.spawn(async move {
                let stopped = one_shard(&changer, shard, before, steps, &gone, &tell).await;
                let stopped = match stopped {
                    Ok(()) if pace.sweep => changer.gone(shard).await.map_err(Stopped::from),
                    stopped => stopped,
                };
                (shard, stopped)
            });
        }
        let ended = under_way.join_next().await;
        if let Some(Ok((shard, _))) = &ended {
            taking.remove(shard);
        }
        match ended {
            None => break,
            Some(Ok((_, Ok(())))) => {}
            Some(Ok((shard, Err(Stopped::Overtaken(reason))))) => {
                tell(&format!("shard {}: {reason}; planning again", shard.0));
                walked.overtaken = true;
            }
            Some(Ok((_, Err(Stopped::Failed(trouble))))) => {
                walked.trouble.get_or_insert(trouble);
            }
            Some(Err(error)) => {
                let text = format!("a step ended unexpectedly: {error}");
                walked.trouble.get_or_insert(Trouble::Failed(text));
            }
        }
    }
    walked.gone = gone.load(Ordering::Relaxed);
    walked
}

/// The nodes that get a copy by these steps.
fn takers(steps: &[(Step, String)]) -> impl Iterator<Item = NodeId> + '_ {
    steps.iter().filter_map(|(step, _)| match step.change {
        Change::AddLearner { node, .. } => Some(node),
        _ => None,
    })
}

/// Whether each of them takes in fewer than `most` now; what takes none in is always free.
fn is_free(steps: &[(Step, String)], taking: &BTreeMap<GroupId, Vec<NodeId>>, most: usize) -> bool {
    takers(steps).all(|node| {
        let busy = taking.values().flatten().filter(|taker| **taker == node);
        busy.count() < most.max(1)
    })
}

async fn one_shard(
    changer: &Changer,
    shard: GroupId,
    mut planned: Roles,
    steps: Vec<(Step, String)>,
    gone: &AtomicUsize,
    tell: &Tell,
) -> Result<(), Stopped> {
    for (step, said) in steps {
        tell(&said);
        changer.make(shard, &planned, &step.change).await?;
        gone.fetch_add(1, Ordering::Relaxed);
        if let Some(now) = step.change.roles_after(&planned) {
            planned = now;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use synod_placement::{Aim, Role};

    #[test]
    fn a_node_takes_in_few_copies_at_a_time() {
        let step = |change| {
            let shard = GroupId(9);
            let aim = Aim::Policy;
            (Step { shard, change, aim }, String::new())
        };
        let node = NodeId(4);
        let later = Role::Voter;
        let copy = [step(Change::AddLearner { node, later })];
        let other = [step(Change::RemoveLearner { node })];
        let mut taking = BTreeMap::from([(GroupId(1), vec![node]), (GroupId(2), vec![])]);
        assert!(is_free(&copy, &taking, 2));
        taking.insert(GroupId(3), vec![NodeId(5), node]);
        assert!(!is_free(&copy, &taking, 2));
        assert!(is_free(&other, &taking, 2), "it takes nothing in");
        assert!(is_free(&copy, &BTreeMap::new(), 0), "one at least");
    }
}
