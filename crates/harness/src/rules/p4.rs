//! P4: `accepted` and `last` change together, only once everything through the
//! sync's end is there; neither a repeated sync nor a snapshot removes what was
//! accepted. A restart finds no more than the life before it had.

use super::{Context, Rule, Verdict};
use synod_paxos::{Ballot, GroupId, Slot};
use synod_shard::Shard;

pub(super) struct P4;

fn whole(cx: &Context<'_>, group: GroupId, accepted: Ballot, last: Slot) -> Verdict {
    let start = cx.book.group(group).and_then(|g| g.start_of(accepted));
    match start {
        Some(end) if last < end => Err(format!(
            "{} of {group} has accepted under {accepted} with its log ending at slot {last}; the \
             sync ends at slot {end}",
            cx.look.id
        )),
        _ => Ok(()),
    }
}

impl Rule for P4 {
    fn number(&self) -> &'static str {
        "P4"
    }

    fn step(&mut self, cx: &Context<'_>) -> Verdict {
        for change in &cx.news.changes {
            let (before, after) = (change.before, change.after);
            if after.emptied {
                continue;
            }
            if after.accepted != before.accepted {
                whole(cx, change.group, after.accepted, after.last)?;
            } else if after.last < before.last {
                return Err(format!(
                    "the log of {} in {} ended at slot {} and now ends at {}, both accepted \
                     under {}",
                    cx.look.id, change.group, before.last, after.last, after.accepted
                ));
            }
            if after.decided > after.last || after.decided < before.decided {
                return Err(format!(
                    "{} of {} had decided through slot {}, and now through {} of {}",
                    cx.look.id, change.group, before.decided, after.decided, after.last
                ));
            }
        }
        Ok(())
    }

    fn restarted(&mut self, cx: &Context<'_>) -> Verdict {
        for shard in cx.look.worker.shards() {
            let (replica, group) = (shard.replica(), shard.descriptor().id);
            whole(cx, group, replica.accepted(), replica.last())?;
            invented(cx, shard)?;
        }
        Ok(())
    }
}

/// Memory runs ahead of the disk, never behind it: what a restart finds, the life
/// before it had, but for a snapshot that the engine had installed by then, and for
/// what a replica held that had just been emptied.
fn invented(cx: &Context<'_>, shard: &Shard) -> Verdict {
    let (replica, group) = (shard.replica(), shard.descriptor().id);
    let Some(before) = cx.book.before_crash(cx.look.node, group) else {
        return Ok(());
    };
    let had = (before.accepted, before.last);
    let has = (replica.accepted(), replica.last());
    let installed = replica.last() <= shard.applied();
    // The engine may name a configuration that the log did not know yet.
    let begins = has.0.is_founding() && has.0.epoch > had.0.epoch;
    let snapshot = installed && (has.0 == had.0 || begins);
    let promised =
        replica.ballot() <= before.promised || snapshot && begins && replica.ballot() == has.0;
    // Its end may not have been on the disk yet: then it is to come once more.
    let unended = before.emptied;
    if (has <= had || snapshot || unended) && promised {
        return Ok(());
    }
    Err(format!(
        "{} comes back with {group} promised to {} and accepted through {has:?}; before it went \
         down that was {} and {had:?}",
        cx.look.id,
        replica.ballot(),
        before.promised
    ))
}
