//! How a replica that is not part of the group any more comes to its end: only once
//! a majority's number of the group's data-holding voters hold the state (G3).

use crate::config::{Began, Configuration};
use crate::effect::Effect;
use crate::ids::{Ballot, Epoch, Mono, NodeId, Slot, SupportEpoch};
use crate::message::Message;
use crate::reconfigure::ABSURD_EPOCH;
use crate::record::Record;
use crate::replica::{Cx, Ignored, Replica, State};
use serde::Serialize;
use std::collections::BTreeSet;
use synod_probe::{Mutation, mutated};

/// Unanswered questions double the wait up to this power of two.
const MAX_BACKOFF: u32 = 6;

/// The same for those left out that do not answer; about half a minute.
const MAX_TELLING_BACKOFF: u32 = 8;

/// What a replica outside the configuration knows.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Leaving {
    /// The youngest configuration it knows to be in force; it is not part of it.
    began: Began,
    /// Voters of it that said that they hold the state it begins with.
    held: BTreeSet<NodeId>,
    pub(crate) retry: Mono,
    tries: u32,
    /// The driver deletes the data.
    pub(crate) destroying: bool,
}

impl Leaving {
    pub(crate) fn new(began: Began, retry: Mono) -> Leaving {
        Leaving {
            began,
            held: BTreeSet::new(),
            retry,
            tries: 0,
            destroying: false,
        }
    }

    /// That configuration.
    pub(crate) fn configuration(&self) -> &Configuration {
        &self.began.configuration
    }

    /// Its number.
    pub(crate) fn epoch(&self) -> Epoch {
        self.configuration().epoch
    }
}

impl Replica {
    /// Begins to leave, or stays after all; ends every input.
    pub(crate) fn review_leaving(&mut self, now: Mono) {
        let configuration = self.configuration();
        let outside = !configuration.is_member(self.me) && configuration.epoch > Epoch(0);
        match &self.leaving {
            // Emptied ones have nothing to give up.
            None if outside && self.last() > Slot(0) => {
                // Others have hardly begun yet.
                let soon = now.plus(self.settings.retry_nanos);
                self.leaving = Some(Leaving::new(self.in_force(), soon));
            }
            Some(leaving)
                if !outside
                    && !leaving.destroying
                    && configuration.epoch >= leaving.began.configuration.epoch =>
            {
                self.leaving = None;
            }
            _ => {}
        }
    }

    /// Asks the successor's voters once more.
    pub(crate) fn leaving_timeout(&mut self, cx: &Cx<'_>) {
        let Some(leaving) = &mut self.leaving else {
            return;
        };
        if leaving.retry > cx.now {
            return;
        }
        leaving.retry = cx
            .now
            .plus(self.settings.retry_nanos << leaving.tries.min(MAX_BACKOFF));
        leaving.tries += 1;
        if leaving.destroying {
            return;
        }
        let (epoch, after) = (leaving.began.configuration.epoch, leaving.began.after);
        for node in leaving.began.configuration.electors() {
            if node != self.me && !leaving.held.contains(&node) {
                self.out.send(node, Message::Began { epoch, after });
            }
        }
    }

    /// A leader tells those left out, in case they still wait to hear from another.
    pub(crate) fn tell_parting(&mut self, cx: &Cx<'_>) {
        let State::Leader(leader) = &mut self.state else {
            return;
        };
        let mut due = Vec::new();
        for (node, (at, tries)) in &mut leader.parting {
            if *at > cx.now {
                continue;
            }
            // Who does not support this node misses its leader, and asks by itself.
            if *tries == 0 || cx.leases.held_from(*node, cx.now).is_some() {
                due.push(*node);
            }
            let wait = self.settings.retry_nanos << (*tries).min(MAX_TELLING_BACKOFF);
            *at = cx.now.plus(wait);
            *tries += 1;
        }
        for node in due {
            self.tell_held(node);
        }
    }

    pub(crate) fn handle_gone(&mut self, from: NodeId, epoch: Epoch) {
        if epoch != self.configuration().epoch {
            // It may have been taken in again since.
            return self.ignore(Ignored::WrongEpoch);
        }
        if let State::Leader(leader) = &mut self.state
            && leader.parting.remove(&from).is_some()
        {
            leader.gone.insert(from);
        }
    }

    pub(crate) fn handle_began(&mut self, cx: &Cx<'_>, from: NodeId, epoch: Epoch, after: Slot) {
        let mine = self.configuration().epoch;
        if epoch.0 >= ABSURD_EPOCH {
            return self.ignore(Ignored::Absurd);
        }
        if mine < epoch {
            // It is not for this replica to say (G1). If the sender was its leader it
            // would wait for it for as long as it supports the sender's node.
            return self.lacks_configuration(from, Ballot::founding(epoch));
        }
        if mine == Epoch(0) {
            return self.ignore(Ignored::WrongEpoch);
        }
        if mine > epoch && self.configuration().is_member(from) {
            self.help(cx, from, after);
            return;
        }
        if mine == epoch && self.configuration().is_elector(from) {
            // It is there by now, and may not have been when it was asked.
            self.ask_again(from);
        }
        // A leader goes on telling it: a restart forgets that it was told.
        self.tell_held(from);
    }

    /// Tells the configuration in force, and whether this replica counts for it;
    /// released once what it says is durable.
    pub(crate) fn tell_held(&mut self, to: NodeId) {
        let configuration = self.configuration();
        let counts = if mutated(Mutation::WitnessAsData) {
            configuration.is_elector(self.me)
        } else {
            configuration.is_voter(self.me) && !self.lacks_data()
        };
        let began = Box::new(self.in_force());
        let holds = counts && self.installing().is_none();
        self.out.release(to, Message::Held { began, holds });
    }

    pub(crate) fn handle_held(&mut self, cx: &Cx<'_>, from: NodeId, began: Began, holds: bool) {
        let epoch = began.configuration.epoch;
        let known = self.configuration().epoch;
        if epoch.0 >= ABSURD_EPOCH {
            return self.ignore(Ignored::Absurd);
        }
        // Taken in again before it was emptied, by who has to do with another log.
        let overruled = epoch.era() > self.log_era() && !began.configuration.is_elector(self.me);
        if epoch < known || began.configuration.is_member(self.me) && !overruled {
            return self.ignore(Ignored::Stale);
        }
        if self.last() == Slot(0) {
            return self.out.release(from, Message::Gone { epoch });
        }
        match &mut self.leaving {
            Some(leaving) if leaving.destroying => return self.ignore(Ignored::Repeated),
            Some(leaving) if leaving.began.configuration.epoch > epoch => {
                return self.ignore(Ignored::Stale);
            }
            Some(leaving) if leaving.began.configuration.epoch == epoch => {
                leaving.began = began;
            }
            // A younger one: whoever held the state of an older may be gone.
            _ => {
                let soon = cx.now.plus(self.settings.retry_nanos);
                self.leaving = Some(Leaving::new(began, soon));
            }
        }
        if self.is_overruled() {
            self.yield_to_higher(cx);
        }
        let Some(leaving) = &mut self.leaving else {
            return;
        };
        let configuration = &leaving.began.configuration;
        if holds && (configuration.is_voter(from) || mutated(Mutation::WitnessAsData)) {
            leaving.held.insert(from);
        }
        let enough = if mutated(Mutation::DestroyEarly) {
            1
        } else {
            configuration.majority()
        };
        if leaving.held.len() >= enough {
            leaving.destroying = true;
            self.yield_to_higher(cx);
            self.out.effects.push(Effect::Destroy);
        }
    }

    /// Nobody needs this replica any more, nor any other of its group: what the group held is
    /// another one's by now. It ends as if it were no part of the group.
    pub fn retire(&mut self, cx: &Cx<'_>) {
        if self.is_being_destroyed() {
            return;
        }
        let configuration = self
            .configuration()
            .successor(Vec::new(), Vec::new(), Vec::new());
        let began = Began {
            configuration,
            after: self.last(),
            left: Vec::new(),
        };
        let mut leaving = Leaving::new(began, cx.now.plus(self.settings.retry_nanos));
        leaving.destroying = true;
        self.leaving = Some(leaving);
        self.yield_to_higher(cx);
        self.out.effects.push(Effect::Destroy);
    }

    /// The state machine's data is gone, durably: this replica is empty. A later
    /// configuration may take it in again, by a snapshot.
    pub fn handle_destroyed(&mut self, _cx: &Cx<'_>) {
        let Some(leaving) = self.leaving.take_if(|l| l.destroying) else {
            return self.ignore(Ignored::Stale);
        };
        self.log.empty(leaving.began.clone());
        self.out
            .records
            .push(Record::Emptied(Box::new(leaving.began)));
        self.out.written_decided = Slot(0);
        self.applied = Slot(0);
        self.holds_data = false;
        self.incoming = None;
        self.heard = SupportEpoch::NONE;
        self.election.deadline = None;
        self.leaving = None;
    }

    /// Whether the driver deletes this replica's data: until that is done it hears
    /// nothing.
    #[must_use]
    pub fn is_being_destroyed(&self) -> bool {
        self.leaving.as_ref().is_some_and(|l| l.destroying)
    }
}
