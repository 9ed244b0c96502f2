//! G3: what only a log holds is dropped only once the engine has it, synced. So
//! a node that comes back holds its data (unless its engine's files are gone, or
//! an installation was under way), and its engine holds every version made by
//! the slots that it does not replay.

use super::book::GroupBook;
use super::hash::Map;
use super::look::Stored;
use super::{Context, Event, Ledger, Rule, Setting, Verdict};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use synod_paxos::{GroupId, NodeId, Slot, Timestamp};
use synod_shard::wire::show_key;
use synod_txn::Key;

/// Versions remembered per group: the youngest are those that can be lost.
const VERSIONS: usize = 1024;

#[derive(Default)]
pub(super) struct G3 {
    /// What slots made, in slot order.
    made: Map<GroupId, VecDeque<(Slot, Key, Timestamp)>>,
    /// Replicas that were without data when last seen.
    without: BTreeSet<(usize, GroupId)>,
    /// Where snapshots took each replica from and to.
    jumps: BTreeMap<(usize, GroupId), Vec<(Slot, Slot)>>,
}

/// Whether a version that is not there may have been collected (R5): at or below the
/// horizon it is shadowed, or what shadowed it was a deletion, which goes too.
fn is_garbage(engine: &dyn Stored, key: &Key, timestamp: Timestamp, horizon: Timestamp) -> bool {
    timestamp <= horizon
        && engine
            .newest(key, horizon)
            .is_none_or(|left| left > timestamp)
}

/// A replica's data is deleted: of some configuration that its node is no part of,
/// a majority's number of data-holding voters hold the state.
fn may_go(cx: &Context<'_>, group: GroupId) -> Verdict {
    let Some(book) = cx.book.group(group) else {
        return Ok(());
    };
    let holds = |voter: &NodeId, after: Slot| {
        let index = cx.everyone.nodes.iter().position(|peer| peer.id == *voter);
        let seen = index.and_then(|node| {
            let running = cx.book.seen(node, group);
            running.or_else(|| cx.book.before_crash(node, group))
        });
        seen.is_some_and(|seen| seen.holds_data && seen.decided >= after)
    };
    let enough = book.electorates().any(|known| {
        let holders = known.voters.iter().filter(|v| holds(v, known.after));
        !known.electors.contains(&cx.look.id) && holders.count() >= known.majority
    });
    if enough {
        return Ok(());
    }
    Err(format!(
        "{} deleted its data of {group} although too few voters hold the state",
        cx.look.id
    ))
}

/// Whether a node that comes back without the data of a shard that was split off has it not
/// to lose: its replica of the parent had not come as far, and has got past the split by
/// a snapshot.
fn never_had(
    cx: &Context<'_>,
    group: GroupId,
    jumps: &BTreeMap<(usize, GroupId), Vec<(Slot, Slot)>>,
) -> bool {
    let node = cx.look.node;
    let Some((parent, slot)) = cx.book.group(group).and_then(GroupBook::born_of) else {
        return false;
    };
    let had = cx.book.before_crash(node, group);
    let applied = cx.book.before_crash(node, parent).map(|seen| seen.applied);
    let mut jumps = jumps.get(&(node, parent)).into_iter().flatten();
    let jumped = jumps.any(|(from, to)| *from < slot && slot <= *to);
    had.is_none() && (jumped || applied.is_none_or(|applied| applied < slot))
}

impl Rule for G3 {
    fn number(&self) -> &'static str {
        "G3"
    }

    fn event(&mut self, event: &Event<'_>, ledger: &Ledger, _setting: &Setting) -> Verdict {
        let Event::Decided(fresh) = event else {
            return Ok(());
        };
        let Some((_, timestamp, keys)) = ledger.makes(fresh) else {
            return Ok(());
        };
        let made = self.made.entry(fresh.group).or_default();
        made.extend(keys.into_iter().map(|k| (fresh.slot, k.clone(), timestamp)));
        let over = made.len().saturating_sub(VERSIONS);
        made.drain(..over);
        Ok(())
    }

    fn step(&mut self, cx: &Context<'_>) -> Verdict {
        for change in &cx.news.changes {
            let retired = cx.setting.map.shard(change.group).is_none();
            let emptied = change.after.emptied && !change.before.emptied;
            // Of what was absorbed S4 tells.
            if emptied && !retired && change.before.last > Slot(0) {
                may_go(cx, change.group)?;
            }
            if change.after.trimmed > change.before.last && change.after.holds_data {
                let jump = (change.before.applied, change.after.applied);
                let jumps = self.jumps.entry((cx.look.node, change.group));
                jumps.or_default().push(jump);
            }
            if change.before.decided == Slot(0) && !change.after.holds_data {
                // Made a moment ago.
                self.without.insert((cx.look.node, change.group));
            }
            if change.before.holds_data != change.after.holds_data {
                let replica = (cx.look.node, change.group);
                if change.after.holds_data {
                    self.without.remove(&replica);
                } else {
                    self.without.insert(replica);
                }
            }
        }
        Ok(())
    }

    fn engine_lost(&mut self, node: usize, groups: &[GroupId]) {
        self.without.extend(groups.iter().map(|g| (node, *g)));
    }

    fn restarted(&mut self, cx: &Context<'_>) -> Verdict {
        let look = cx.look;
        let Some(engine) = look.engine else {
            return Ok(());
        };
        for shard in look.worker.shards() {
            let group = shard.descriptor().id;
            let replica = (look.node, group);
            if shard.is_superseded() || cx.setting.map.shard(group).is_none() {
                // Another one, which absorbed it, may have written there since.
                continue;
            }
            if !shard.replica().holds_data() {
                let fresh = self.without.insert(replica);
                let excused = engine.is_installing(group) || never_had(cx, group, &self.jumps);
                if fresh && !excused {
                    return Err(format!(
                        "{} comes back without the data of {group}: its engine is at slot {}, its \
                         log begins after slot {}",
                        look.id,
                        shard.applied(),
                        shard.replica().trimmed()
                    ));
                }
                continue;
            }
            self.without.remove(&replica);
            let made_by = |of: GroupId| {
                let made = self.made.get(&of).into_iter().flatten();
                made.map(move |(slot, key, timestamp)| (of, slot, key, timestamp))
            };
            let made = made_by(group).take_while(|(_, slot, ..)| **slot <= shard.applied());
            // What it was split off, or has absorbed, had made before that.
            let ancestors = shard.group().state().lineage.ancestors.iter();
            let older = ancestors.flat_map(|ancestor| made_by(*ancestor));
            let span = shard.data_span();
            let own = made.chain(older);
            let own = own.filter(|(_, _, key, _)| span.contains(key));
            let horizon = shard.group().horizon();
            for (of, slot, key, timestamp) in own {
                if engine.newest(key, *timestamp) != Some(*timestamp)
                    && !is_garbage(engine, key, *timestamp, horizon)
                {
                    return Err(format!(
                        "{} comes back with {group} as of slot {}, and without the version of {} \
                         at {timestamp} that slot {slot} of {of} made",
                        look.id,
                        shard.applied(),
                        show_key(key)
                    ));
                }
            }
        }
        Ok(())
    }
}
