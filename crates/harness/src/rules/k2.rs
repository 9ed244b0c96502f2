//! K2: a node whose wall clock jumped, or misses the one that a majority agrees
//! on, quarantines itself: it leads nothing and asks nobody for support.

use super::{Context, Rule, Verdict};
use std::collections::BTreeMap;
use synod_paxos::Mono;
use synod_paxos::lease::LeaseMessage;
use synod_shard::NodeMessage;

/// A jump this wide must not go unnoticed, slewing and rate errors set aside;
/// nanoseconds.
const JUMP: u128 = 500_000_000;
/// What a node says later than this must show that it noticed; nanoseconds of its own time.
const NOTICE: u64 = 2_000_000_000;

#[derive(Clone, Copy, Debug, Default)]
struct Clock {
    /// Wall minus monotonic time at the last look.
    offset: Option<i128>,
    /// A jump that was not noticed yet: the offset before it, and when.
    jumped: Option<(i128, Mono)>,
    quarantined: bool,
    /// Times it was quarantined, as of the last look.
    quarantines: u64,
}

#[derive(Default)]
pub(super) struct K2 {
    clocks: BTreeMap<usize, Clock>,
}

impl Rule for K2 {
    fn number(&self) -> &'static str {
        "K2"
    }

    fn step(&mut self, cx: &Context<'_>) -> Verdict {
        let look = cx.look;
        let clock = self.clocks.entry(look.node).or_default();
        let was = clock.quarantined;
        clock.quarantined = look.worker.clock().quarantine().is_some();
        let offset = i128::from(look.now.clock.latest.0) - i128::from(look.now.mono.0);
        let before = clock.offset.replace(offset).unwrap_or(offset);
        if offset.abs_diff(before) > JUMP && clock.jumped.is_none() {
            clock.jumped = Some((before, look.now.mono));
        }
        let known = std::mem::replace(&mut clock.quarantines, look.worker.clock().quarantines());
        if clock.quarantined || clock.quarantines > known {
            clock.jumped = None;
        }
        // A turn without an input rests on no clock: a node that says nothing may be
        // as wrong as it likes.
        let spoke = look.step.messages().next().is_some() || !look.step.replies.is_empty();
        if let Some((before, at)) = clock.jumped
            && spoke
            && look.now.mono.since(at) > NOTICE
        {
            clock.jumped = None;
            if offset.abs_diff(before) > JUMP {
                return Err(format!(
                    "the wall clock of {} moved by {} ms, and it went on as before",
                    look.id,
                    (offset - before) / 1_000_000
                ));
            }
        }
        if !clock.quarantined {
            return Ok(());
        }
        // All of them: one that led before and leads on shows in no change.
        let led = look
            .worker
            .shards()
            .find(|s| s.replica().term_ballot().is_some());
        if let Some(shard) = led {
            return Err(format!(
                "{} leads {} although its clock is in quarantine",
                look.id,
                shard.descriptor().id
            ));
        }
        let renews = |message: &NodeMessage| {
            matches!(message, NodeMessage::Lease(LeaseMessage::Renew { .. }))
        };
        if was && look.step.messages().any(|(_, m)| renews(m)) {
            return Err(format!(
                "{} asks for support although its clock is in quarantine",
                look.id
            ));
        }
        Ok(())
    }

    fn crashed(&mut self, node: usize) {
        self.clocks.remove(&node);
    }
}
