//! T10: participants and coordinators are named by anchor key. What a shard
//! stages names itself by an anchor it owns, messages go to who owns theirs, and whoever
//! says something of an attempt owns the anchor in whose name it speaks. (T2 and T4 see to
//! it that a vote is that of its anchor.)

use super::{Context, Event, Ledger, Rule, Setting, Verdict};
use synod_shard::NodeMessage;
use synod_shard::wire::show_key;
use synod_txn::peer::{PeerBody, Vote};
use synod_txn::{AbortReason, Command, Outcome, PeerMessage};

pub(super) struct T10;

/// Whether a node that sends a message for the first time has a replica in whose name it
/// may. What is not urgent leaves a while after it was said, perhaps after a split; it is
/// true whoever owns the anchor by then. And who gave an anchor away says that.
fn is_own_word(cx: &Context<'_>, message: &PeerMessage) -> bool {
    let anybody = matches!(
        message.body,
        PeerBody::Ack
            | PeerBody::Moved
            | PeerBody::Vote {
                vote: Vote::No(AbortReason::Moved),
                ..
            }
            | PeerBody::Resolve {
                outcome: Outcome::Committed(_),
                recorded: true,
            }
    );
    let mut shards = cx.look.worker.shards();
    anybody || shards.any(|shard| shard.descriptor().span.contains(&message.from))
}

impl Rule for T10 {
    fn number(&self) -> &'static str {
        "T10"
    }

    fn event(&mut self, event: &Event<'_>, _ledger: &Ledger, setting: &Setting) -> Verdict {
        let Event::Decided(fresh) = event else {
            return Ok(());
        };
        let Some(Command::Intent(intent)) = &fresh.command else {
            return Ok(());
        };
        let here = intent.participants.get(intent.here as usize);
        let owner = here.and_then(|p| setting.map.shard_of(&p.anchor));
        let sorted = intent.participants.is_sorted_by(|a, b| a.anchor < b.anchor);
        if owner.is_none_or(|s| s.id != fresh.group) || !sorted {
            return Err(format!(
                "slot {} of {} stages {} as participant {} of {:?}",
                fresh.slot, fresh.group, intent.attempt, intent.here, intent.participants
            ));
        }
        Ok(())
    }

    fn step(&mut self, cx: &Context<'_>) -> Verdict {
        for (to, message) in cx.look.step.messages() {
            let NodeMessage::Transaction {
                shard,
                hops,
                message,
            } = message
            else {
                continue;
            };
            if *hops == 1 && !is_own_word(cx, message) {
                return Err(format!(
                    "{} said \"{message}\" in the name of {}, which no replica there owns",
                    cx.look.id,
                    show_key(&message.from)
                ));
            }
            // Who has not heard of a split sends to the shard that was split, or to
            // another that came of it: their nodes know.
            let owner = cx.setting.map.shard_of(&message.anchor);
            let owner = owner.filter(|owner| cx.ledger.are_kin(owner.id, *shard));
            // Of now, or of once: who was one passes it on.
            let books = [owner.map(|owner| owner.id), Some(*shard)];
            let books = books
                .into_iter()
                .flatten()
                .filter_map(|id| cx.book.group(id));
            let mut known = books.flat_map(|b| b.electorates());
            let member = known.any(|e| e.electors.contains(&to));
            if owner.is_none() || !member {
                return Err(format!(
                    "{} sent \"{message}\" to {to} for {shard}, which does not own {}",
                    cx.look.id,
                    show_key(&message.anchor)
                ));
            }
        }
        Ok(())
    }
}
