//! Inputs that go straight to one of the two machines.

use super::{Now, Shard, paxos_cx};
use bytes::Bytes;
use std::collections::BTreeSet;
use synod_paxos::lease::NodeLease;
use synod_paxos::{NodeId, Slot, SnapshotId};
use synod_txn::Caller;

impl Shard {
    pub(crate) fn handle_message(
        &mut self,
        now: Now,
        leases: &NodeLease,
        from: NodeId,
        message: synod_paxos::Message,
    ) {
        let cx = paxos_cx(now, leases);
        self.replica.handle_message(&cx, from, message);
    }

    pub(crate) fn handle_persisted(
        &mut self,
        now: Now,
        leases: &NodeLease,
        seq: synod_paxos::PersistSeq,
    ) {
        let cx = paxos_cx(now, leases);
        self.replica.handle_persisted(&cx, seq);
    }

    pub(crate) fn read_done(
        &mut self,
        now: Now,
        leases: &NodeLease,
        token: synod_txn::ReadToken,
        rows: synod_txn::effect::EngineRows,
    ) {
        let cx = self.txn_cx(now, leases);
        self.group.handle_read(&cx, token, rows);
    }

    /// Whether anything of the group's changed.
    pub(crate) fn cancel(
        &mut self,
        now: Now,
        leases: &NodeLease,
        callers: &BTreeSet<Caller>,
    ) -> bool {
        let cx = self.txn_cx(now, leases);
        self.waiting.cancel(callers);
        self.group.cancel(&cx, callers)
    }

    pub(crate) fn client_gone(
        &mut self,
        now: Now,
        leases: &NodeLease,
        client: synod_txn::ClientId,
    ) {
        let cx = self.txn_cx(now, leases);
        self.group.handle_client_gone(&cx, client);
    }

    pub(crate) fn trim(&mut self, now: Now, leases: &NodeLease, through: Slot) {
        let cx = paxos_cx(now, leases);
        self.replica.trim(&cx, through);
    }

    #[allow(clippy::too_many_arguments)]
    pub(crate) fn snapshot_read(
        &mut self,
        now: Now,
        leases: &NodeLease,
        to: NodeId,
        id: SnapshotId,
        chunk: u64,
        data: Bytes,
        done: bool,
    ) {
        let cx = paxos_cx(now, leases);
        self.replica
            .handle_snapshot_read(&cx, to, id, chunk, data, done);
    }
}
