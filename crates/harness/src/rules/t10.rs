//! T10: participants and coordinators are named by anchor key. What a shard
//! stages names itself by an anchor it owns, and messages go to who owns theirs.

use super::{Context, Event, Ledger, Rule, Setting, Verdict};
use synod_shard::NodeMessage;
use synod_shard::wire::show_key;
use synod_txn::Command;

pub(super) struct T10;

impl Rule for T10 {
    fn number(&self) -> &'static str {
        "T10"
    }

    fn follows_attempts(&self) -> bool {
        true
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
            let NodeMessage::Transaction { shard, message, .. } = message else {
                continue;
            };
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
