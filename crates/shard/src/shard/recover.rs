//! A survivor goes on alone (decision 16), as the shard lives through it.

use super::{Now, Shard, paxos_cx};
use synod_paxos::lease::NodeLease;
use synod_paxos::{Configuration, Epoch, Holds, NodeId, RecoverError, Seal, Slot};
use synod_txn::settings::TERM_INCREMENT;

impl Shard {
    /// Goes on alone; see [`synod_paxos::Replica::recover`].
    pub(crate) fn recover(
        &mut self,
        now: Now,
        leases: &NodeLease,
        holds: Holds,
        epoch: Epoch,
    ) -> Result<Slot, RecoverError> {
        if self.is_being_merged() {
            return Err(RecoverError::Merging);
        }
        let last = self.group.last();
        let seal = Seal {
            // What those who are lost used is not known, but it was not far ahead of the
            // clocks: no timestamp is used twice unless those were wrong.
            limit: last.plus(TERM_INCREMENT).max(now.clock.latest),
            last,
            horizon: self.group.horizon(),
        };
        self.replica
            .recover(&paxos_cx(now, leases), holds, epoch, seal)
    }

    /// Somebody says that the shard is in this configuration.
    pub(crate) fn overrule(&mut self, now: Now, leases: &NodeLease, configuration: &Configuration) {
        self.replica.overrule(&paxos_cx(now, leases), configuration);
    }

    /// Who leads the shard, if this node has supported it up to now; perhaps itself.
    #[must_use]
    pub fn led_by(&self, now: Now, leases: &NodeLease) -> Option<NodeId> {
        let supported = self.replica.supported_ballot(&paxos_cx(now, leases));
        let ballot = self.replica.term_ballot().or(supported)?;
        Some(ballot.node)
    }
}
