//! What is said to clients and to the other shard: nobody hears two different
//! ends, and nothing is said before it is true.

use super::rules::{Check, Past, ensure, name};
use super::setup::{self, Older, shards_of, txn_of};
use synod_paxos::Timestamp;
use synod_txn::peer::{PeerBody, Vote};
use synod_txn::request::Refusal;
use synod_txn::{Caller, Outcome, PeerMessage, Response};

impl Past {
    fn say_committed(&mut self, older: Older, txn: usize, s: Timestamp) -> Check {
        self.check_yes(older, txn, s)?;
        let (_, coordinator) = shards_of(txn, older);
        let outcome = self.twins[coordinator].stays[txn].outcome;
        ensure(!matches!(outcome, Some(Outcome::Aborted(_))), || {
            format!(
                "T2: {} is told committed after its abort was decided",
                name(txn)
            )
        })?;
        ensure(!self.told[txn].aborted, || {
            format!(
                "T2: {} is told committed after somebody was told it is aborted",
                name(txn)
            )
        })?;
        let before = self.told[txn].committed.replace(s);
        ensure(before.is_none_or(|b| b == s), || {
            format!(
                "T2: {} is told committed at {before:?} and at {s}",
                name(txn)
            )
        })
    }

    fn say_aborted(&mut self, txn: usize) -> Check {
        let committed = self.told[txn].committed.is_some()
            || self
                .twins
                .iter()
                .any(|t| matches!(t.stays[txn].outcome, Some(Outcome::Committed(_))));
        ensure(!committed, || {
            format!("T3: {} is told aborted after it was committed", name(txn))
        })?;
        self.told[txn].aborted = true;
        Ok(())
    }

    pub(super) fn check_peer(&mut self, older: Older, at: usize, message: &PeerMessage) -> Check {
        let txn = txn_of(message.attempt);
        match message.body {
            PeerBody::Resolve {
                outcome, recorded, ..
            } => {
                match outcome {
                    Outcome::Committed(s) => self.say_committed(older, txn, s)?,
                    Outcome::Aborted(_) => self.say_aborted(txn)?,
                }
                ensure(
                    !recorded || self.is_recorded(older, txn, Some(outcome)),
                    || {
                        format!(
                            "T6: {}'s outcome is called recorded before it is decided",
                            name(txn)
                        )
                    },
                )
            }
            PeerBody::Vote {
                vote: Vote::Yes(ts),
                ..
            } => {
                let stay = &self.twins[at].stays[txn];
                let resolved = stay.outcome == Some(Outcome::Committed(ts));
                ensure(stay.intent == Some(ts) || resolved, || {
                    format!(
                        "U3: shard {} votes yes at {ts}; decided is {:?}",
                        at + 1,
                        stay.intent
                    )
                })
            }
            PeerBody::Vote {
                vote: Vote::No(_), ..
            } => {
                self.say_aborted(txn)?;
                let stay = &mut self.twins[at].stays[txn];
                ensure(stay.open.is_none(), || {
                    format!(
                        "T4: shard {} says no about {}, whose intent is open",
                        at + 1,
                        name(txn)
                    )
                })?;
                stay.no = true;
                Ok(())
            }
            // It says that nothing will come, and nothing of what was (T7).
            PeerBody::Vote {
                vote: Vote::Forgotten,
                ..
            } => {
                let floor = self.twins[at].floor;
                let stay = &mut self.twins[at].stays[txn];
                ensure(floor && stay.open.is_none(), || {
                    format!(
                        "T4: shard {} has forgotten {}, whose intent is open or above the floor",
                        at + 1,
                        name(txn)
                    )
                })?;
                stay.no |= stay.outcome.is_none();
                Ok(())
            }
            PeerBody::Ack => {
                let recorded = self.is_recorded(older, txn, None);
                let stay = &mut self.twins[at].stays[txn];
                ensure(recorded && stay.open.is_none(), || {
                    format!(
                        "T6: shard {} acks {} before its resolution is decided",
                        at + 1,
                        name(txn)
                    )
                })?;
                // Nothing of it was here, and nothing may come.
                stay.no |= stay.outcome.is_none();
                Ok(())
            }
            _ => Ok(()),
        }
    }

    pub(super) fn check_response(
        &mut self,
        older: Older,
        at: usize,
        to: Caller,
        response: &Response,
    ) -> Check {
        let txn = (to.connection as usize).min(setup::OLD);
        match response {
            Response::Outcome {
                outcome: Outcome::Committed(s),
                ..
            } => self.say_committed(older, txn, *s),
            Response::Outcome {
                outcome: Outcome::Aborted(_),
                ..
            } => self.say_aborted(txn),
            Response::Refused(
                Refusal::Aborted(_)
                | Refusal::WrongTerm {
                    last_word: true, ..
                },
            ) => {
                self.say_aborted(txn)?;
                let stay = &mut self.twins[at].stays[txn];
                stay.no |= stay.outcome.is_none();
                Ok(())
            }
            _ => Ok(()),
        }
    }
}
