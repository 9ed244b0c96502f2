//! What the shards that this node leads weigh, as far as it is known, and which of them are to
//! be gone through.
//!
//! Of each shard: what it weighed when it was gone through last, and what was written since.
//! That is too much where keys are written again and old versions are collected, and never too
//! little; so a shard is gone through anew once it may be too large, and enough was
//! written since for that to be worth while. Where old versions were collected, the collector has just
//! gone through all of it; so much is worth knowing what is left, or a shard whose rows were
//! deleted would count as large for ever, and not be merged.

use std::collections::{BTreeMap, VecDeque};
use synod_paxos::GroupId;
use synod_placement::{Cut, SplitLimit};
use synod_txn::Span;

/// Before a shard is gone through again, this part of the limit was written to it.
const WORTH_WHILE: u64 = 8;
/// One that is too large is gone through again once it has grown by this part: its middle
/// may be elsewhere.
const GROWN: u64 = 4;

#[derive(Debug)]
struct Measured {
    bytes: u64,
    cut: Cut,
    /// What had been written when that began.
    written: u64,
}

#[derive(Debug)]
struct Weight {
    span: Span,
    /// Bytes written since it is led here.
    written: u64,
    measured: Option<Measured>,
    /// What had been written when it was taken from the queue to be gone through.
    begun: Option<u64>,
    /// Something of it was collected since then.
    collected: bool,
    queued: bool,
}

impl Weight {
    fn new(span: Span) -> Weight {
        Weight {
            span,
            written: 0,
            measured: None,
            begun: None,
            collected: false,
            queued: false,
        }
    }

    fn bytes(&self) -> Option<u64> {
        let measured = self.measured.as_ref()?;
        Some(measured.bytes + (self.written - measured.written))
    }

    fn is_due(&self, limit: u64) -> bool {
        let Some(measured) = &self.measured else {
            return true;
        };
        if self.collected {
            return true;
        }
        let since = self.written - measured.written;
        if measured.bytes > limit {
            return since > measured.bytes / GROWN;
        }
        measured.bytes + since > limit && since >= limit / WORTH_WHILE
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Weights {
    limit: u64,
    shards: BTreeMap<GroupId, Weight>,
    queue: VecDeque<GroupId>,
}

impl Default for Weights {
    fn default() -> Weights {
        Weights {
            limit: SplitLimit::Size.default_value(),
            shards: BTreeMap::new(),
            queue: VecDeque::new(),
        }
    }
}

impl Weights {
    /// Beyond this many bytes a shard is to be split; 0 is never.
    pub(super) fn set_limit(&mut self, limit: u64) {
        self.limit = match limit {
            // People still want to see how large shards are, at the usual cost.
            0 => SplitLimit::Size.default_value(),
            limit => limit,
        };
    }

    /// These shards are led here, with these ranges, and no others. One that has come, or has
    /// another range, is known nothing of.
    pub(super) fn leads<'a>(&mut self, led: impl Iterator<Item = (GroupId, &'a Span)>) {
        let mut before = std::mem::take(&mut self.shards);
        for (id, span) in led {
            let same = before.remove(&id).filter(|weight| weight.span == *span);
            let mut weight = same.unwrap_or_else(|| Weight::new(span.clone()));
            if !weight.queued && weight.begun.is_none() && weight.is_due(self.limit) {
                weight.queued = true;
                self.queue.push_back(id);
            }
            self.shards.insert(id, weight);
        }
        let shards = &self.shards;
        let is_queued = |id: &GroupId| shards.get(id).is_some_and(|weight| weight.queued);
        self.queue.retain(is_queued);
        // One that was gone for a moment may stand in it twice; the second time it is not queued.
    }

    /// So much was written to a shard.
    pub(super) fn wrote(&mut self, group: GroupId, bytes: u64) {
        if let Some(weight) = self.shards.get_mut(&group) {
            weight.written += bytes;
        }
    }

    /// Garbage of a shard was collected.
    pub(super) fn collected(&mut self, group: GroupId) {
        if let Some(weight) = self.shards.get_mut(&group) {
            weight.collected = true;
        }
    }

    /// The next shard to be gone through.
    pub(super) fn next(&mut self) -> Option<(GroupId, Span)> {
        while let Some(id) = self.queue.pop_front() {
            if let Some(weight) = self.shards.get_mut(&id).filter(|weight| weight.queued) {
                weight.queued = false;
                weight.begun = Some(weight.written);
                weight.collected = false;
                return Some((id, weight.span.clone()));
            }
        }
        None
    }

    /// Whether somebody still wants to know what this range weighs.
    pub(super) fn waits_for(&self, group: GroupId, span: &Span) -> bool {
        let weight = self.shards.get(&group);
        weight.is_some_and(|weight| weight.begun.is_some() && weight.span == *span)
    }

    /// A shard was gone through.
    pub(super) fn measured(&mut self, group: GroupId, span: &Span, bytes: u64, cut: Cut) {
        let weight = self.shards.get_mut(&group);
        if let Some(weight) = weight.filter(|weight| weight.span == *span)
            && let Some(written) = weight.begun.take()
        {
            weight.measured = Some(Measured {
                bytes,
                cut,
                written,
            });
        }
    }

    /// What a shard weighs with this range.
    pub(super) fn bytes(&self, group: GroupId, span: &Span) -> Option<u64> {
        let weight = self.shards.get(&group).filter(|w| w.span == *span);
        weight.and_then(Weight::bytes)
    }

    /// Where it is cut, if it was found to weigh more than `limit`; 0 is never.
    pub(super) fn cut(&self, group: GroupId, span: &Span, limit: u64) -> Option<Cut> {
        let weight = self.shards.get(&group).filter(|w| w.span == *span);
        let measured = weight.and_then(|weight| weight.measured.as_ref())?;
        (limit > 0 && measured.bytes > limit).then(|| measured.cut.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use synod_txn::Key;

    const LIMIT: u64 = 1_000;

    fn span(start: &'static str, end: &'static str) -> Span {
        Span {
            start: Key::from_static(start.as_bytes()),
            end: Key::from_static(end.as_bytes()),
        }
    }

    fn weights() -> Weights {
        let mut weights = Weights::default();
        weights.set_limit(LIMIT);
        weights
    }

    fn leads(weights: &mut Weights, led: &[(u64, Span)]) {
        weights.leads(led.iter().map(|(id, span)| (GroupId(*id), span)));
    }

    /// Goes through everything that is due; each weighs this much.
    fn go_through(weights: &mut Weights, bytes: u64) -> Vec<u64> {
        let mut gone = Vec::new();
        while let Some((id, span)) = weights.next() {
            assert!(weights.waits_for(id, &span));
            weights.measured(id, &span, bytes, Cut::At(b"m".to_vec()));
            gone.push(id.0);
        }
        gone
    }

    #[test]
    fn a_shard_is_gone_through_at_first_and_once_it_may_be_too_large() {
        let mut weights = weights();
        let led = [(2, span("", "g")), (3, span("g", ""))];
        let (two, span) = (GroupId(2), &led[0].1);
        leads(&mut weights, &led);
        leads(&mut weights, &led);
        assert_eq!(weights.bytes(two, span), None);
        assert_eq!(go_through(&mut weights, 600), [2, 3]);
        assert_eq!(weights.bytes(two, span), Some(600));
        weights.wrote(two, 400);
        weights.wrote(GroupId(9), 400);
        leads(&mut weights, &led);
        assert_eq!(go_through(&mut weights, 0), [0; 0], "it may just fit");
        weights.wrote(two, 1);
        leads(&mut weights, &led);
        // Keys were written again: it has hardly grown.
        assert_eq!(weights.bytes(two, span), Some(1_001));
        assert_eq!(go_through(&mut weights, 990), [2]);
        assert_eq!(weights.cut(two, span, LIMIT), None);
        weights.wrote(two, 124);
        leads(&mut weights, &led);
        assert_eq!(go_through(&mut weights, 0), [0; 0], "not worth while yet");
        weights.wrote(two, 1);
        leads(&mut weights, &led);
        assert_eq!(go_through(&mut weights, 1_100), [2]);
        assert_eq!(weights.cut(two, span, LIMIT), Some(Cut::At(b"m".to_vec())));
        assert_eq!(weights.cut(two, span, 0), None, "0 is never");
        // Its middle is looked for again once it has grown.
        weights.wrote(two, 275);
        leads(&mut weights, &led);
        assert_eq!(go_through(&mut weights, 0), [0; 0]);
        weights.wrote(two, 1);
        leads(&mut weights, &led);
        assert_eq!(go_through(&mut weights, 1_376), [2]);
    }

    #[test]
    fn a_shard_is_gone_through_again_when_garbage_was_collected() {
        let mut weights = weights();
        let led = [(2, span("", "g")), (3, span("g", ""))];
        leads(&mut weights, &led);
        go_through(&mut weights, 2_000);
        let (two, span) = (GroupId(2), &led[0].1);
        // Its rows are deleted: that writes little.
        weights.wrote(two, 20);
        leads(&mut weights, &led);
        assert_eq!(go_through(&mut weights, 0), [0; 0]);
        assert_eq!(weights.bytes(two, span), Some(2_020));
        weights.collected(two);
        weights.collected(GroupId(9));
        leads(&mut weights, &led);
        // What is collected while it is gone through, may have been counted.
        assert_eq!(weights.next(), Some((two, span.clone())));
        weights.collected(two);
        weights.measured(two, span, 900, Cut::Nowhere);
        leads(&mut weights, &led);
        assert_eq!(go_through(&mut weights, 30), [2]);
        assert_eq!(weights.bytes(two, span), Some(30));
        leads(&mut weights, &led);
        assert_eq!(go_through(&mut weights, 0), [0; 0], "once is enough");
    }

    #[test]
    fn another_range_or_term_is_known_nothing_of() {
        let mut weights = weights();
        let whole = span("", "g");
        leads(&mut weights, &[(2, whole.clone())]);
        go_through(&mut weights, 2_000);
        let id = GroupId(2);
        assert!(weights.cut(id, &whole, LIMIT).is_some());
        let half = span("", "c");
        // Before the next look, too.
        assert_eq!(weights.bytes(id, &half), None);
        assert_eq!(weights.cut(id, &half, LIMIT), None);
        leads(&mut weights, &[(2, half.clone())]);
        assert_eq!(weights.bytes(id, &half), None);
        assert_eq!(weights.next(), Some((id, half.clone())));
        // Led by another one meanwhile: what was found is not taken for the new term's.
        leads(&mut weights, &[]);
        assert!(!weights.waits_for(id, &half));
        leads(&mut weights, &[(2, half.clone())]);
        weights.measured(id, &half, 5, Cut::Nowhere);
        assert_eq!(weights.bytes(id, &half), None);
        assert_eq!(go_through(&mut weights, 7), [2]);
        assert_eq!(weights.bytes(id, &half), Some(7));
        assert!(weights.shards.len() == 1 && weights.queue.is_empty());
    }

    #[test]
    fn what_is_written_while_it_is_gone_through_counts() {
        let mut weights = weights();
        let led = [(2, span("", ""))];
        leads(&mut weights, &led);
        weights.wrote(GroupId(2), 50);
        let (id, span) = weights.next().expect("it is due");
        weights.wrote(id, 30);
        leads(&mut weights, &led);
        assert_eq!(weights.next(), None, "it is under way");
        weights.measured(id, &span, 100, Cut::Nowhere);
        assert_eq!(weights.bytes(id, &span), Some(130));
    }
}
