//! Changes of shards' members on a running cluster, one condition after another.
//!
//! Nothing of a change is kept here: every step is asked of the shard's leader, names
//! the configuration it follows, and is complete when the cluster says so. So it may
//! end between any two lines, and whoever runs it again goes on from what is there.

use crate::{Tell, Trouble};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use synod_paxos::{Configuration, Epoch, GroupId, NodeId, ReconfigureError};
use synod_placement::{Change, Role};
use synod_rpc::ask;
use synod_rpc::members::{MemberStatus, MembersAnswer, MembersRequest, MembersStatus};
use synod_rpc::{NodeRequest, NodeResponse, Pool};
use synod_shard::wire::NodeDescriptor;
use tokio::task::JoinSet;

/// Between two looks at what is waited for.
const POLL: Duration = Duration::from_millis(50);
/// How long a node that did not answer lately may take.
const SILENT: Duration = Duration::from_millis(200);
/// Between two looks at whether a node refuses its copy.
const REFUSALS: Duration = Duration::from_secs(1);
/// How long a voter gets to take the leadership over before it is asked again.
const HANDOVER: Duration = Duration::from_secs(3);
/// How often a voter is asked.
const HANDOVERS: u32 = 3;
/// After so long a reason for waiting is told.
const TOLD_AFTER: Duration = Duration::from_secs(2);

/// Who has which part in a shard.
pub type Roles = BTreeMap<NodeId, Role>;

/// Why a change was not made.
pub enum Stopped {
    /// Somebody else changed the shard meanwhile, or it has happened before: look again.
    Overtaken(String),
    /// It cannot be made, or takes too long.
    Failed(Trouble),
}

impl From<Trouble> for Stopped {
    fn from(failure: Trouble) -> Stopped {
        Stopped::Failed(failure)
    }
}

/// Asks for changes and waits for them.
pub struct Changer {
    pool: Pool,
    nodes: Vec<NodeDescriptor>,
    /// How long a node may take to answer.
    limit: Duration,
    /// How long one step may take.
    patience: Duration,
    tell: Tell,
    /// Nodes that did not answer last time: they get less time.
    silent: Mutex<BTreeSet<NodeId>>,
}

/// A shard at one moment: what every node that answers knows of it.
struct Look {
    all: BTreeMap<NodeId, Option<MembersStatus>>,
}

impl Look {
    /// The leader in office, and what it knows.
    fn leader(&self) -> Option<(NodeId, &MembersStatus)> {
        let told = self.all.iter().filter_map(|(n, m)| Some((*n, m.as_ref()?)));
        told.filter(|(_, m)| m.in_office)
            .max_by_key(|(_, m)| m.configuration.epoch)
    }
}

/// The parts of all members.
#[must_use]
pub fn roles(configuration: &Configuration) -> Roles {
    let voters = configuration.voters.iter().map(|id| (*id, Role::Voter));
    let witnesses = configuration.witnesses.iter();
    let witnesses = witnesses.map(|id| (*id, Role::Witness));
    let learners = configuration.learners.iter().map(|id| (*id, Role::Learner));
    voters.chain(witnesses).chain(learners).collect()
}

/// Those with this part.
#[must_use]
pub fn with_role(roles: &Roles, role: Role) -> Vec<NodeId> {
    let of = roles.iter().filter(|(_, is)| **is == role);
    of.map(|(node, _)| *node).collect()
}

/// What a step waits for: told once, when it takes long.
struct Waiting {
    begun: Instant,
    told: String,
}

impl Changer {
    /// For a cluster of these nodes, each of which may take `limit` to answer; one step
    /// may take `patience`.
    #[must_use]
    pub fn new(
        pool: Pool,
        nodes: Vec<NodeDescriptor>,
        limit: Duration,
        patience: Duration,
        tell: Tell,
    ) -> Changer {
        Changer {
            pool,
            nodes,
            limit,
            patience,
            tell,
            silent: Mutex::default(),
        }
    }

    /// Nobody panics while holding it.
    fn silent(&self) -> MutexGuard<'_, BTreeSet<NodeId>> {
        self.silent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A node's name; its id if it is not known.
    #[must_use]
    pub fn name(&self, id: NodeId) -> String {
        let node = self.nodes.iter().find(|node| node.id == id);
        node.map_or_else(|| id.to_string(), |node| node.name.clone())
    }

    /// Several, with commas.
    #[must_use]
    pub fn names(&self, ids: &[NodeId]) -> String {
        let names: Vec<String> = ids.iter().map(|id| self.name(*id)).collect();
        names.join(", ")
    }

    async fn look(&self, shard: GroupId) -> Look {
        let silent = std::mem::take(&mut *self.silent());
        let mut asked = JoinSet::new();
        for node in &self.nodes {
            let (pool, id, address) = (self.pool.clone(), node.id, node.address);
            let limit = if silent.contains(&id) {
                self.limit.min(SILENT)
            } else {
                self.limit
            };
            asked.spawn(async move {
                let told = ask::members(&pool, address, Some(shard), limit).await;
                (id, told.ok().map(|told| told.into_iter().next()))
            });
        }
        let mut all = BTreeMap::new();
        for (id, told) in asked.join_all().await {
            match told {
                Some(told) => {
                    all.insert(id, told);
                }
                None => {
                    self.silent().insert(id);
                }
            }
        }
        Look { all }
    }

    /// Says why it takes long, or that it takes too long.
    async fn wait(
        &self,
        waiting: &mut Waiting,
        shard: GroupId,
        reason: &str,
    ) -> Result<(), Trouble> {
        if waiting.begun.elapsed() > self.patience {
            return Err(Trouble::Failed(format!(
                "shard {}: {reason}, for {} s now. What was asked for goes on; run the command \
                 again to go on waiting, or look at `synod status`",
                shard.0,
                waiting.begun.elapsed().as_secs()
            )));
        }
        if waiting.begun.elapsed() > TOLD_AFTER && waiting.told != reason {
            (self.tell)(&format!("shard {}: waiting: {reason}", shard.0));
            reason.clone_into(&mut waiting.told);
        }
        tokio::time::sleep(POLL).await;
        Ok(())
    }

    fn begin(&self) -> Waiting {
        Waiting {
            begun: Instant::now(),
            told: String::new(),
        }
    }

    /// The leader's node, its knowledge, and what all others tell; waits for a leader.
    async fn led(&self, waiting: &mut Waiting, shard: GroupId) -> Result<(NodeId, Look), Trouble> {
        loop {
            let look = self.look(shard).await;
            if let Some((leader, _)) = look.leader() {
                return Ok((leader, look));
            }
            let reason = format!(
                "it has no leader ({} of {} nodes answer)",
                look.all.len(),
                self.nodes.len()
            );
            self.wait(waiting, shard, &reason).await?;
        }
    }

    /// The members of a shard now.
    ///
    /// # Errors
    /// When it cannot be had, or takes longer than one step may.
    pub async fn now(&self, shard: GroupId) -> Result<Configuration, Trouble> {
        let mut waiting = self.begin();
        let (_, look) = self.led(&mut waiting, shard).await?;
        let leader = look.leader().map(|(_, m)| m.configuration.clone());
        leader.ok_or_else(|| Trouble::Failed(format!("shard {} has no leader", shard.0)))
    }

    /// Makes one change of members, or hands the leadership on, and waits for it. The
    /// change was planned for the members `planned`: with others it may be wrong.
    ///
    /// # Errors
    /// When it cannot be had, or takes longer than one step may.
    pub async fn make(
        &self,
        shard: GroupId,
        planned: &Roles,
        change: &Change,
    ) -> Result<(), Stopped> {
        match change {
            Change::TransferLeader { from: Some(_), to } => self.transfer(shard, *to).await?,
            // Somebody campaigns as soon as anybody can.
            Change::TransferLeader { from: None, .. } => {
                self.now(shard).await?;
            }
            change => {
                let now = self.now(shard).await?;
                let fits = roles(&now) == *planned;
                let target = change.roles_after(planned).filter(|_| fits);
                let Some(target) = target else {
                    return Err(Stopped::Overtaken(format!(
                        "its members are others by now: {change}"
                    )));
                };
                let leader = match change {
                    Change::Reconfigure { leader, .. } => *leader,
                    _ => None,
                };
                self.change(shard, now.epoch, &target, leader).await?;
            }
        }
        if let Change::AddLearner { node, later } = change {
            self.caught_up(shard, *node, *later).await?;
        }
        Ok(())
    }

    /// Makes these the members that follow the configuration `follows`. The leader goes
    /// on leading if it can; otherwise one that stays takes over before, where there
    /// is one.
    ///
    /// # Errors
    /// When it cannot be had, or takes longer than one step may.
    pub async fn change(
        &self,
        shard: GroupId,
        follows: Epoch,
        target: &Roles,
        next: Option<NodeId>,
    ) -> Result<(), Stopped> {
        let mut waiting = self.begin();
        let mut asked: BTreeMap<NodeId, Instant> = BTreeMap::new();
        let request = MembersRequest {
            shard,
            follows,
            voters: with_role(target, Role::Voter),
            witnesses: with_role(target, Role::Witness),
            learners: with_role(target, Role::Learner),
        };
        loop {
            let (leader, look) = self.led(&mut waiting, shard).await?;
            let Some((_, told)) = look.leader() else {
                continue;
            };
            let now = &told.configuration;
            if now.epoch > follows {
                if roles(now) == *target {
                    return Ok(());
                }
                let text = "somebody else changed its members meanwhile".to_owned();
                return Err(Stopped::Overtaken(text));
            }
            let reason = if told.changing {
                "its members are changing".to_owned()
            } else if let Some(behind) = self.behind(told, target) {
                behind
            } else if let Some(heirs) = self.heirs(leader, told, target, next) {
                // Whichever of them leads in the end: one may be unable to.
                let waits = |n: &NodeId| asked.get(n).is_some_and(|at| at.elapsed() < HANDOVER);
                if !heirs.iter().any(waits) {
                    let longest_ago = heirs.iter().min_by_key(|n| asked.get(n));
                    if let Some(heir) = longest_ago.copied() {
                        self.hand_over(leader, shard, heir).await?;
                        asked.insert(heir, Instant::now());
                    }
                }
                format!("{} leads, and is to hand over", self.name(leader))
            } else {
                match self.ask(leader, &request).await {
                    Ok(()) => "its change of members is not decided yet".to_owned(),
                    Err(Refused::Passing(reason)) => reason,
                    Err(Refused::Overtaken) => "its members have just changed".to_owned(),
                    Err(Refused::Bad(reason)) => {
                        let text = format!("shard {}: {reason}", shard.0);
                        return Err(Trouble::Input(text).into());
                    }
                }
            };
            self.wait(&mut waiting, shard, &reason).await?;
        }
    }

    /// A new elector that has not caught up yet, in words.
    fn behind(&self, told: &MembersStatus, target: &Roles) -> Option<String> {
        let now = &told.configuration;
        let new = target
            .iter()
            .filter(|(node, role)| role.votes() && !now.is_elector(**node));
        let behind = |(node, role): (&NodeId, &Role)| {
            let member = told.others.iter().find(|m| m.node == *node);
            // A node that is no member at all is refused by the leader.
            member.and_then(|member| self.lacks(member, *role))
        };
        { new }.find_map(behind)
    }

    /// What a member lacks for a role, in words.
    fn lacks(&self, member: &MemberStatus, role: Role) -> Option<String> {
        let name = self.name(member.node);
        if member.snapshot {
            return Some(format!("{name} takes in a snapshot"));
        }
        if role.stores() && !member.holds_data {
            return Some(format!("{name} does not hold the data yet"));
        }
        (!member.caught_up).then(|| format!("{name} has not caught up yet"))
    }

    /// Who may lead before the leader is left out, `next` first if it is ready; none if
    /// the leader stays, or nobody else can.
    fn heirs(
        &self,
        leader: NodeId,
        told: &MembersStatus,
        target: &Roles,
        next: Option<NodeId>,
    ) -> Option<Vec<NodeId>> {
        if target.get(&leader) == Some(&Role::Voter) {
            return None;
        }
        let ready = |m: &&MemberStatus| {
            told.configuration.is_voter(m.node)
                && target.get(&m.node) == Some(&Role::Voter)
                && m.caught_up
                && m.holds_data
        };
        let mut ready: Vec<NodeId> = told.others.iter().filter(ready).map(|m| m.node).collect();
        ready.sort_by_key(|node| Some(*node) != next);
        (!ready.is_empty()).then_some(ready)
    }

    /// Asks a leader to hand over.
    async fn hand_over(&self, leader: NodeId, shard: GroupId, to: NodeId) -> Result<(), Trouble> {
        let Some(node) = self.nodes.iter().find(|n| n.id == leader) else {
            return Ok(());
        };
        let request = NodeRequest::TransferLeader { shard, to };
        match ask::ask(&self.pool, node.address, request, self.limit).await {
            Err(reason) if reason.contains("may not do this") => Err(Trouble::Input(reason)),
            // Another leads by now, or is about to; the next look tells who.
            _ => Ok(()),
        }
    }

    /// Hands the leadership to a voter, and waits until it leads.
    async fn transfer(&self, shard: GroupId, to: NodeId) -> Result<(), Stopped> {
        let mut waiting = self.begin();
        let mut asked = 0;
        let mut last: Option<Instant> = None;
        loop {
            let (leader, look) = self.led(&mut waiting, shard).await?;
            if leader == to {
                return Ok(());
            }
            let votes = look
                .leader()
                .is_some_and(|(_, m)| m.configuration.is_voter(to));
            if !votes {
                let text = format!("{} is no voter of it any more", self.name(to));
                return Err(Stopped::Overtaken(text));
            }
            if last.is_none_or(|at| at.elapsed() > HANDOVER) {
                if asked == HANDOVERS {
                    // Each time somebody stopped leading for it.
                    let text = format!(
                        "shard {}: {} does not take the leadership over; see its health in \
                         `synod status`. Nothing else was changed by this step",
                        shard.0,
                        self.name(to)
                    );
                    return Err(Trouble::Failed(text).into());
                }
                self.hand_over(leader, shard, to).await?;
                (asked, last) = (asked + 1, Some(Instant::now()));
            }
            let (leader, to) = (self.name(leader), self.name(to));
            let reason = format!("{leader} leads, and is to hand over to {to}");
            self.wait(&mut waiting, shard, &reason).await?;
        }
    }

    /// Waits until a learner could do what it is there for.
    async fn caught_up(&self, shard: GroupId, node: NodeId, later: Role) -> Result<(), Stopped> {
        let mut waiting = self.begin();
        let mut asked = Instant::now();
        loop {
            let (_, look) = self.led(&mut waiting, shard).await?;
            let told = look.leader().map(|(_, m)| m);
            let member = told.and_then(|m| m.others.iter().find(|m| m.node == node));
            let reason = match member {
                Some(member) => self.lacks(member, later),
                None if told.is_some_and(|m| m.configuration.is_member(node)) => {
                    Some(format!("{} has not answered yet", self.name(node)))
                }
                None => {
                    let text = format!("{} is no member of it any more", self.name(node));
                    return Err(Stopped::Overtaken(text));
                }
            };
            let Some(reason) = reason else {
                return Ok(());
            };
            if asked.elapsed() > REFUSALS {
                self.check_taken(shard, node).await?;
                asked = Instant::now();
            }
            self.wait(&mut waiting, shard, &reason).await?;
        }
    }

    /// Whether a node still takes in its copy of the shard: if not, waiting is in vain.
    async fn check_taken(&self, shard: GroupId, node: NodeId) -> Result<(), Trouble> {
        let Some(descriptor) = self.nodes.iter().find(|n| n.id == node) else {
            return Ok(());
        };
        let told = ask::copies(&self.pool, descriptor.address, None, self.limit).await;
        let refused = told.ok().map(|told| told.refused).unwrap_or_default();
        match refused.into_iter().find(|copy| copy.shard == shard) {
            Some(copy) => Err(Trouble::Failed(format!(
                "{} does not take it in: {}",
                descriptor.name, copy.reason
            ))),
            None => Ok(()),
        }
    }

    /// Waits until every node that answers and is not part of the shard has nothing of it.
    ///
    /// # Errors
    /// When it cannot be had, or takes longer than one step may.
    pub async fn gone(&self, shard: GroupId) -> Result<(), Trouble> {
        let mut waiting = self.begin();
        loop {
            let look = self.look(shard).await;
            let Some((_, led)) = look.leader() else {
                self.wait(&mut waiting, shard, "it has no leader").await?;
                continue;
            };
            let is_left = |(node, told): (&NodeId, &Option<MembersStatus>)| {
                let has = told.as_ref().is_some_and(|m| !m.emptied);
                (has && !led.configuration.is_member(*node)).then_some(*node)
            };
            let left: Vec<NodeId> = look.all.iter().filter_map(is_left).collect();
            if left.is_empty() {
                return Ok(());
            }
            let reason = format!("the copy on {} is not deleted yet", self.names(&left));
            self.wait(&mut waiting, shard, &reason).await?;
        }
    }

    async fn ask(&self, leader: NodeId, request: &MembersRequest) -> Result<(), Refused> {
        let Some(node) = self.nodes.iter().find(|n| n.id == leader) else {
            return Err(Refused::Passing("its leader is not in the map".to_owned()));
        };
        let request = NodeRequest::ChangeMembers(Box::new(request.clone()));
        match ask::ask(&self.pool, node.address, request, self.limit).await {
            Ok(NodeResponse::Change(MembersAnswer::Proposed { .. })) => Ok(()),
            Ok(NodeResponse::Change(MembersAnswer::Refused(error))) => Err(self.refused(&error)),
            Ok(other) => Err(Refused::Bad(format!("{} answered {other:?}", node.name))),
            // It may have been proposed all the same; the next look tells.
            Err(reason) if reason.contains("may not do this") => Err(Refused::Bad(reason)),
            Err(reason) => Err(Refused::Passing(reason)),
        }
    }

    fn refused(&self, error: &ReconfigureError) -> Refused {
        let mut text = error.to_string();
        for node in &self.nodes {
            text = text.replace(&node.id.to_string(), &node.name);
        }
        match error {
            ReconfigureError::OtherEpoch { .. } => Refused::Overtaken,
            error if error.is_passing() => Refused::Passing(text),
            _ => Refused::Bad(text),
        }
    }
}

/// Why a leader did not propose a change.
enum Refused {
    /// It may, a little later.
    Passing(String),
    /// Its shard has another configuration than the one named.
    Overtaken,
    /// It never will.
    Bad(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(voters: &[u64], learners: &[u64]) -> Roles {
        let voters = voters.iter().map(|id| (NodeId(*id), Role::Voter));
        let learners = learners.iter().map(|id| (NodeId(*id), Role::Learner));
        voters.chain(learners).collect()
    }

    #[test]
    fn changes_that_do_not_fit_are_none() {
        let node = NodeId;
        let add = |id| Change::AddLearner {
            node: node(id),
            later: Role::Voter,
        };
        assert_eq!(
            add(3).roles_after(&of(&[1, 2], &[])),
            Some(of(&[1, 2], &[3]))
        );
        assert_eq!(add(3).roles_after(&of(&[1, 2], &[3])), None);
        let swap = Change::Swap {
            out: node(1),
            into: node(3),
            role: Role::Voter,
        };
        assert_eq!(swap.roles_after(&of(&[1, 2], &[3])), Some(of(&[2, 3], &[])));
        assert_eq!(swap.roles_after(&of(&[2, 3], &[])), None);
        assert_eq!(swap.roles_after(&of(&[1, 2], &[])), None);
        let give_up = Change::RemoveLearner { node: node(3) };
        assert_eq!(give_up.roles_after(&of(&[1, 3], &[])), None);
        let all = Change::Reconfigure {
            replicas: of(&[2, 4], &[]),
            leader: None,
        };
        assert_eq!(all.roles_after(&of(&[1, 2], &[])), None);
        assert_eq!(all.roles_after(&of(&[1, 2], &[4])), Some(of(&[2, 4], &[])));
    }
}
