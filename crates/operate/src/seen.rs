//! The cluster as its nodes tell it, and as the planner takes it.

use crate::change::roles;
use crate::{Survey, Trouble};
use std::collections::{BTreeMap, BTreeSet};
use synod_paxos::NodeId;
use synod_placement::{Change, Locality, Node, NodeState, Policies, Policy, Shard, Step, View};
use synod_shard::wire::show_key;
use synod_shard::{Records, Standing};

/// What is wanted of the cluster.
#[derive(Clone, Debug, Default)]
pub struct Intent {
    /// How replicas are to lie.
    pub policies: Policies,
    /// Nodes that are to hold nothing, whether they answer or not.
    pub leaving: BTreeSet<NodeId>,
    /// Nodes that are not waited for any more if they do not answer.
    pub down: BTreeSet<NodeId>,
}

impl Intent {
    /// What the cluster's records say.
    ///
    /// # Errors
    /// When a policy there cannot be read.
    pub fn of_records(records: &Records, down: &[NodeId]) -> Result<Intent, Trouble> {
        let policies = policies(&records.policies)?;
        let rows = records.nodes.iter();
        let leaving = rows.filter(|row| row.standing != Standing::Active);
        Ok(Intent {
            policies,
            leaving: leaving.map(|row| row.node.id).collect(),
            down: down.iter().copied().collect(),
        })
    }
}

/// The policies that the cluster's records keep as text.
///
/// # Errors
/// When one cannot be read.
pub fn policies(texts: &BTreeMap<Vec<u8>, String>) -> Result<Policies, Trouble> {
    let mut policies = Policies::default();
    for (prefix, text) in texts {
        let policy: Policy = text.parse().map_err(|error| {
            let of = match prefix.as_slice() {
                [] => "the cluster".to_owned(),
                prefix => format!("the keys {}…", show_key(&prefix.to_vec().into())),
            };
            Trouble::Input(format!(
                "the stored policy of {of} cannot be read: {error}; replace it with `synod \
                 placement policy`"
            ))
        })?;
        if prefix.is_empty() {
            policies.default = policy;
        } else {
            policies.directories.insert(prefix.clone(), policy);
        }
    }
    Ok(policies)
}

/// A survey, and the planner's view of it.
pub struct Seen {
    /// What the nodes said.
    pub survey: Survey,
    /// The same for the planner.
    pub view: View,
    /// Why shards may not be given other members by these policies, if so.
    pub unsaid: Option<String>,
}

impl Seen {
    /// With what is wanted.
    ///
    /// # Errors
    /// When a node's locality cannot be read.
    pub fn of(survey: Survey, intent: Intent) -> Result<Seen, Trouble> {
        let Intent {
            mut policies,
            leaving,
            down,
        } = intent;
        let unsaid = unsaid(&survey, &policies);
        if policies.default.voters.is_none() {
            policies.default.voters = usual_voters(&survey);
        }
        let mut nodes = Vec::new();
        for node in &survey.map.nodes {
            let locality: Locality = node.locality.parse().map_err(|error| {
                Trouble::Failed(format!(
                    "node {} says it is in `{}`: {error}",
                    node.name, node.locality
                ))
            })?;
            let mut seen = Node::new(node.id, locality);
            seen.state = match (survey.answers(node.id), leaving.contains(&node.id)) {
                (true, false) if survey.is_unfit(node.id) => NodeState::Draining,
                (true, false) => NodeState::Up,
                (true, true) => NodeState::Leaving,
                (false, false) if !down.contains(&node.id) => NodeState::Silent,
                (false, _) => NodeState::Down,
            };
            if let Some(copies) = survey.copies.get(&node.id) {
                seen.room = copies.room;
                seen.refuses = copies.refused.iter().map(|copy| copy.shard).collect();
            }
            nodes.push(seen);
        }
        nodes.extend(strangers(&survey));
        let shards = survey.map.shards.iter().map(|descriptor| {
            let start = descriptor.span.start.to_vec();
            let end = descriptor.span.end.to_vec();
            let configuration = &descriptor.configuration;
            let mut shard = Shard::new(descriptor.id, start, end);
            shard.replicas = roles(configuration);
            let leader = survey.leader(descriptor.id).map(|(node, _)| node);
            shard.leader = leader.filter(|node| configuration.is_voter(*node));
            let weight = survey.weights.get(&descriptor.id);
            shard.bytes = weight.and_then(|weight| weight.bytes);
            shard.requests = weight.map_or(0, |weight| weight.requests);
            shard
        });
        let shards = shards.collect();
        let view = View {
            nodes,
            policies,
            shards,
        };
        Ok(Seen {
            survey,
            view,
            unsaid,
        })
    }

    /// Whether a step would give up a learner that is still being filled: somebody is about
    /// to put it in another's place. One that was given up comes to an end, or is refused.
    #[must_use]
    pub fn is_coming(&self, step: &Step) -> bool {
        let Change::RemoveLearner { node: learner } = step.change else {
            return false;
        };
        let node = self.view.nodes.iter().find(|node| node.id == learner);
        let takes_in = node
            .is_some_and(|node| node.state == NodeState::Up && !node.refuses.contains(&step.shard));
        let others = self.survey.leading(step.shard).map(|leader| &leader.others);
        let mut others = others.into_iter().flatten();
        let member = others.find(|member| member.node == learner);
        takes_in && member.is_some_and(|member| member.snapshot || !member.caught_up)
    }

    /// The copies that nodes refuse, in words.
    #[must_use]
    pub fn refused_copies(&self) -> Vec<String> {
        let copies = self.survey.copies.iter();
        let refused = copies.flat_map(|(node, copies)| {
            let name = self.survey.name(*node);
            { copies.refused.iter() }.map(move |copy| format!("{name}: {}", copy.reason))
        });
        refused.collect()
    }

    /// The same text with names in place of the ids of nodes.
    #[must_use]
    pub fn named(&self, text: &str) -> String {
        let is_word = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | '.' | '=');
        let mut named = String::with_capacity(text.len());
        let mut rest = text;
        while !rest.is_empty() {
            let word = rest.find(|c| !is_word(c)).unwrap_or(rest.len());
            let (word, behind) = rest.split_at(word);
            let node = self.survey.map.nodes.iter();
            let node = { node }.find(|node| node.id.to_string() == word);
            named.push_str(node.map_or(word, |node| &node.name));
            let gap = behind.find(is_word).unwrap_or(behind.len());
            let (gap, behind) = behind.split_at(gap);
            named.push_str(gap);
            rest = behind;
        }
        named
    }
}

/// Members of shards that are none of the cluster's nodes any more: taken out while a change
/// that counts on them was under way. What they hold is to go elsewhere.
fn strangers(survey: &Survey) -> Vec<Node> {
    let shards = survey.map.shards.iter();
    let members: BTreeSet<NodeId> = shards.flat_map(|s| s.configuration.members()).collect();
    let strangers = members.iter().filter(|id| survey.map.node(**id).is_none());
    let node = |id: &NodeId| {
        let locality = survey.row(*id).map(|row| row.node.locality.parse());
        let locality = locality.and_then(Result::ok);
        let mut node = Node::new(*id, locality.unwrap_or(Locality(Vec::new())));
        node.state = NodeState::Down;
        node
    };
    strangers.map(node).collect()
}

/// Why one number of voters for all shards would take some from them: they differ, and
/// no policy says that they should not.
fn unsaid(survey: &Survey, policies: &Policies) -> Option<String> {
    let says = |key: &[u8], what: fn(&Policy) -> bool| {
        let of = policies.directories.iter();
        what(&policies.default) || { of }.any(|(dir, p)| key.starts_with(dir) && what(p))
    };
    let shards = survey.map.shards.iter();
    let open = shards.filter(|s| !says(&s.span.start, |p| p.voters.is_some()));
    let counts = open.map(|s| (s.configuration.electors().count(), s.id.0));
    let counts: BTreeMap<usize, u64> = counts.collect();
    if let (Some((few, one)), Some((many, other))) =
        (counts.first_key_value(), counts.last_key_value())
        && few < many
    {
        return Some(format!(
            "shards have different numbers of voters (shard {one} has {few}, shard {other} has \
             {many}): say how many they are to have, with --policy 'voters = …' or --policy-of"
        ));
    }
    if let Some((even, one)) = counts.first_key_value()
        && even.is_multiple_of(2)
    {
        return Some(format!(
            "shards have an even number of voters (shard {one} has {even}): say how many they are to \
             have, with a policy 'voters = …'"
        ));
    }
    let mut shards = survey.map.shards.iter();
    let with = shards.find(|s| {
        !s.configuration.witnesses.is_empty() && !says(&s.span.start, |p| p.witnesses.is_some())
    })?;
    Some(format!(
        "shard {} has witnesses: say how many there are to be, with --policy 'witnesses = …' or \
         --policy-of",
        with.id.0
    ))
}

/// How many voters most shards have; policies ask for odd numbers.
fn usual_voters(survey: &Survey) -> Option<usize> {
    let shards = survey.map.shards.iter();
    let mut counts: Vec<usize> = shards.map(|s| s.configuration.electors().count()).collect();
    counts.sort_unstable();
    let middle = *counts.get(counts.len() / 2)?;
    Some(
        middle
            .saturating_sub(usize::from(middle.is_multiple_of(2)))
            .max(1),
    )
}
