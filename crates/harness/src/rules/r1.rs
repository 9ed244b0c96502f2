//! R1: no write commits at or below a timestamp at which its key was read. A
//! read shows the newest version through `last`; so between the version shown
//! and the `last` that was replicated when it was asked, none may ever appear.

use super::hash::Map;
use super::{Context, Event, Ledger, Rule, Setting, Verdict, What};
use std::collections::VecDeque;
use synod_paxos::Timestamp;
use synod_shard::ShardReply;
use synod_shard::wire::show_key;
use synod_txn::{Key, Response, Version};

/// Reads remembered per key.
const READS: usize = 16;
/// Keys with remembered reads; past it all are forgotten.
const KEYS: usize = 1 << 16;

#[derive(Default)]
pub(super) struct R1 {
    /// Per key: the version shown, and through when it was the newest.
    reads: Map<Key, VecDeque<(Timestamp, Timestamp)>>,
}

impl R1 {
    fn read(
        &mut self,
        ledger: &Ledger,
        key: &Key,
        shown: Option<&Version>,
        through: Timestamp,
    ) -> Verdict {
        let shown = shown.map_or(Timestamp(0), |v| v.timestamp);
        if through <= shown {
            return Ok(());
        }
        let known = ledger.versions(key).into_iter().flatten();
        let mut skipped = known.filter(|v| v.timestamp > shown && v.timestamp <= through);
        if let Some(version) = skipped.next() {
            return Err(format!(
                "a read of {} through {through} showed the version at {shown}, not that at {} \
                 by {}",
                show_key(key),
                version.timestamp,
                version.attempt
            ));
        }
        if self.reads.len() >= KEYS {
            self.reads.clear();
        }
        let reads = self.reads.entry(key.clone()).or_default();
        if let Some(last) = reads.back_mut()
            && last.0 == shown
        {
            last.1 = last.1.max(through);
            return Ok(());
        }
        reads.push_back((shown, through));
        if reads.len() > READS {
            reads.pop_front();
        }
        Ok(())
    }
}

impl Rule for R1 {
    fn number(&self) -> &'static str {
        "R1"
    }

    fn event(&mut self, event: &Event<'_>, ledger: &Ledger, _setting: &Setting) -> Verdict {
        let Event::Decided(fresh) = event else {
            return Ok(());
        };
        let Some((attempt, timestamp, keys)) = ledger.makes(fresh) else {
            return Ok(());
        };
        for key in keys {
            let reads = self.reads.get(key).into_iter().flatten();
            let mut below =
                reads.filter(|(shown, through)| *shown < timestamp && timestamp <= *through);
            if let Some((shown, through)) = below.next() {
                return Err(format!(
                    "slot {} of {} writes {} at {timestamp} by {attempt}; it was read through \
                     {through}, as of {shown}",
                    fresh.slot,
                    fresh.group,
                    show_key(key)
                ));
            }
        }
        Ok(())
    }

    fn step(&mut self, cx: &Context<'_>) -> Verdict {
        for (caller, reply) in cx.look.step.replies {
            let ShardReply::Response(Response::Read { versions, .. }) = reply else {
                continue;
            };
            let Some(question) = cx.book.question(cx.look.node, *caller) else {
                continue;
            };
            // What is locked may be read by a leader that is none any more; what
            // it read counts only once its session is found alive.
            if let What::Latest(keys) = &question.what {
                for (key, shown) in keys.iter().zip(versions) {
                    self.read(cx.ledger, key, shown.as_ref(), question.replicated)?;
                }
            }
        }
        Ok(())
    }
}
