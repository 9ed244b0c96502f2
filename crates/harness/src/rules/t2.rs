//! T2: *committed* is told only once every participant's yes and the
//! coordinator's own Staged are decided, at the maximum of all ts_i. A yes is
//! told only once its intent is decided; a one-shard commit once its entry is (U3).

use super::{Event, How, Ledger, Rule, Setting, Verdict};
use synod_shard::wire::show_key;
use synod_txn::Outcome;

pub(super) struct T2;

impl Rule for T2 {
    fn number(&self) -> &'static str {
        "T2"
    }

    fn event(&mut self, event: &Event<'_>, ledger: &Ledger, _setting: &Setting) -> Verdict {
        match event {
            Event::Told {
                attempt,
                outcome: Outcome::Committed(at),
                node,
                how,
            } => {
                let Some(known) = ledger.get(*attempt) else {
                    if ledger.forgot() {
                        return Ok(());
                    }
                    return Err(format!(
                        "{node} disclosed ({how:?}) that {attempt} committed at {at}; nothing of \
                         it is decided anywhere"
                    ));
                };
                if let Some((group, decided)) = known.one_shard {
                    if decided == *at {
                        return Ok(());
                    }
                    return Err(format!(
                        "{node} disclosed ({how:?}) that {attempt} committed at {at}; its entry \
                         in {group} says {decided}"
                    ));
                }
                if !known.is_whole() {
                    let missing = known.participants.iter();
                    let missing = missing.filter(|p| known.held_by(&p.anchor).is_none());
                    let missing: Vec<_> = missing.map(|p| p.shard).collect();
                    return Err(format!(
                        "{node} disclosed ({how:?}) that {attempt} committed at {at}; staged: \
                         {:?}, without decided intents: {missing:?}",
                        known.staged
                    ));
                }
                if known.maximum() != *at {
                    return Err(format!(
                        "{node} disclosed ({how:?}) that {attempt} committed at {at}; its \
                         intents' maximum is {}",
                        known.maximum()
                    ));
                }
                // T2's last part: an abort that is decided was proposed before.
                match known.outcome {
                    Some((Outcome::Aborted(why), group, slot)) if *how != How::Entry => {
                        Err(format!(
                            "{node} disclosed ({how:?}) that {attempt} committed; slot {slot} of \
                             {group} aborts it ({why:?})"
                        ))
                    }
                    _ => Ok(()),
                }
            }
            Event::Yes {
                attempt,
                group,
                anchor,
                node,
                ..
            } => {
                let known = ledger.get(*attempt);
                if known.is_some_and(|k| k.held_by(anchor).is_some()) || ledger.forgot() {
                    return Ok(());
                }
                Err(format!(
                    "{node} votes yes for {attempt} in {group} at {}, whose intent is not decided",
                    show_key(anchor)
                ))
            }
            _ => Ok(()),
        }
    }
}
