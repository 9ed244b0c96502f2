//! The outbox of a replica: what may leave at once, and what leaves with the
//! next Persist, once everything recorded before it is durable.

use crate::effect::{Effect, PersistSeq};
use crate::ids::{Ballot, NodeId, Slot};
use crate::message::Message;
use crate::record::{Durable, Record};
use serde::Serialize;
use std::collections::VecDeque;

/// What a completed persist effect proves about this replica itself.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Mark {
    pub(crate) number: u64,
    pub(crate) promised: Option<Ballot>,
    pub(crate) accepted: Option<(Ballot, Slot)>,
}

/// What waits for the flush, and what the driver has not drained yet.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Outgoing {
    pub(crate) effects: Vec<Effect>,
    pub(crate) records: Vec<Record>,
    pub(crate) release: Vec<(NodeId, Message)>,
    pub(crate) promised: Option<Ballot>,
    pub(crate) accepted: Option<(Ballot, Slot)>,
    pub(crate) number: u64,
    pub(crate) marks: VecDeque<Mark>,
    pub(crate) written_decided: Slot,
}

impl Outgoing {
    pub(crate) fn send(&mut self, to: NodeId, message: Message) {
        self.effects.push(Effect::Send { to, message });
    }

    /// Sends once everything recorded so far is durable. Of several Accepted to
    /// one leader in one step only the youngest, which says it all, leaves.
    pub(crate) fn release(&mut self, to: NodeId, message: Message) {
        if let Message::Accepted { ballot, .. } = message {
            let older = self.release.iter_mut().find(|(node, old)| {
                *node == to && matches!(old, Message::Accepted { ballot: b, .. } if *b == ballot)
            });
            if let Some((_, old)) = older {
                *old = message;
                return;
            }
        }
        self.release.push((to, message));
    }

    pub(crate) fn decided(&mut self, slot: Slot) {
        if let Some(Effect::Decided { through }) = self.effects.last_mut() {
            *through = slot;
        } else {
            self.effects.push(Effect::Decided { through: slot });
        }
    }

    /// One Persist for everything that gathered, if anything did.
    pub(crate) fn persist(&mut self, durable: &Durable) {
        if self.records.is_empty()
            && self.release.is_empty()
            && self.promised.is_none()
            && self.accepted.is_none()
        {
            return;
        }
        let carried = self
            .records
            .iter()
            .any(|r| matches!(r, Record::Accept { .. }));
        if !self.records.is_empty() {
            if !carried && durable.decided > self.written_decided {
                self.records.push(Record::Decided {
                    ballot: durable.accepted,
                    slot: durable.decided,
                });
            }
            self.written_decided = durable.decided;
        }
        self.number += 1;
        let promised = self.promised.take();
        let accepted = self.accepted.take();
        if promised.is_some() || accepted.is_some() {
            self.marks.push_back(Mark {
                number: self.number,
                promised,
                accepted,
            });
        }
        self.effects.push(Effect::Persist {
            records: std::mem::take(&mut self.records),
            release: std::mem::take(&mut self.release),
            seq: PersistSeq {
                ballot: durable.promised,
                number: self.number,
            },
        });
    }
}
