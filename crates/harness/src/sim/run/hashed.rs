//! A directory is hashed while clients run, as an operator has it done (decision 22): made a shard
//! of its own first, then hashed if it has no key by then.

use super::{Event, Sim};
use synod_paxos::GroupId;
use synod_shard::{HashError, Splitting};
use synod_txn::{Hashing, Key, Span};

/// Directories hashed in one run, at most.
const MOST: usize = 3;

/// Between two questions; nanoseconds.
const POLL: u64 = 20_000_000;
/// How long an operator goes on asking.
const PATIENCE: u64 = 500 * POLL;

/// Keys at the start of a shard that clients come to write sooner or later: what one
/// of them marks next, or the lists of a later generation.
fn directory(span: &Span, pick: u64) -> Option<Hashing> {
    let stem = span.start.iter().position(|b| *b == b'!');
    let mut prefix = span.start[..stem.unwrap_or(span.start.len())].to_vec();
    let which = pick / 512;
    let keys = match pick / 8 % 4 {
        0 => format!("!a{:05}", 99_998 - which % 4),
        1 => format!("!n{:04}{:07}", which % 4, 1 + which / 4 % 6),
        _ => format!("!m{:04}{:07}", which % 4, 1 + which / 4 % 6),
    };
    prefix.extend(keys.bytes());
    let slots = 2 << (pick / 32 % 5);
    let hashing = Hashing::new(prefix.into(), slots).ok()?;
    span.contains(&hashing.prefix).then_some(hashing)
}

impl Sim {
    /// An operator wants a directory of a shard hashed.
    pub(super) fn hash(&mut self, shard: usize, pick: u64) {
        if self.directory.is_some() || self.directories >= MOST {
            return;
        }
        let group = self.group_at(shard);
        let leader = self.leader_of(shard).map(|node| &self.nodes[node]);
        let shard = leader.and_then(|n| n.worker()?.shard(group));
        let directory = shard.and_then(|s| directory(&s.descriptor().span, pick));
        self.directory = directory.map(|hashing| (hashing, self.t + PATIENCE));
        if self.directory.is_some() {
            self.directories += 1;
            self.at(self.t, Event::Hash);
        }
    }

    /// The node that leads the shard with a key, and its range.
    fn owner(&self, key: &Key) -> Option<(usize, GroupId, Span)> {
        self.nodes.iter().enumerate().find_map(|(index, node)| {
            let mut shards = node.worker()?.shards().filter(|s| s.in_office());
            let shard = shards.find(|s| s.descriptor().span.contains(key))?;
            let descriptor = shard.descriptor();
            Some((index, descriptor.id, descriptor.span.clone()))
        })
    }

    /// Goes the next step to the directory that is wanted.
    pub(super) fn go_on_hashing(&mut self) {
        let t = self.t;
        self.directory.take_if(|(_, until)| *until <= t);
        let Some((hashing, _)) = self.directory.clone() else {
            return;
        };
        self.at(self.t + POLL, Event::Hash);
        let wanted = hashing.span();
        for border in [&wanted.start, &wanted.end] {
            match self.owner(border) {
                Some((_, _, span)) if span.start == *border => {}
                Some((node, group, _)) => return self.split_at(node, group, border),
                None => return,
            }
        }
        let Some((node, group, _)) = self.owner(&wanted.start) else {
            return;
        };
        let n = &mut self.nodes[node];
        let Some(process) = n.process.as_mut().filter(|_| n.paused_until <= self.t) else {
            return;
        };
        process.lanes.set_now(&n.clock, self.t);
        let lanes = &mut process.lanes;
        let answer = process.machine.hash(lanes, group, Some(&hashing));
        let id = self.nodes[node].id;
        self.trace.line(self.t, || {
            format!("{id} is to hash {group} by {hashing:?}: {answer:?}")
        });
        if let Ok(Splitting::Done)
        | Err(HashError::NotEmpty { .. } | HashError::OtherRange { .. }) = answer
        {
            self.directory = None;
        }
        self.plan_turn(node, self.t);
    }
}
