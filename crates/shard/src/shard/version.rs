//! What the cluster version lets a shard's log hold (P8, decision 17).
//!
//! The log itself says so: an entry raises the version, and kinds that came with it are
//! proposed only by those who have applied that. A replica that meets what its program does not
//! know stops there. It goes on with its votes and keeps the log, as that needs no understanding.

use super::{Now, Shard};
use crate::outbox::Outbox;
use serde::Serialize;
use synod_paxos::lease::NodeLease;
use synod_paxos::replica::Urgency;
use synod_paxos::{ClusterVersion, Payload, Slot, VersionRange};
use synod_probe::{Mark, mark};
use synod_txn::Command;

/// Why a replica applies nothing any more, and leads no more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, thiserror::Error)]
pub enum Halt {
    /// The log goes on in a version that the program does not know.
    #[error(
        "entry {slot} needs cluster version {version}, and this program knows {supports}: start a \
         program that knows it", version = .version.0
    )]
    Version {
        /// Where.
        slot: Slot,
        /// Which one.
        version: ClusterVersion,
        /// What the program knows.
        supports: VersionRange,
    },
    /// An entry is of no kind that the program knows.
    #[error(
        "entry {slot} cannot be read ({why}): the log was written by a newer program or is damaged; \
         start the program that wrote it"
    )]
    Unreadable {
        /// Which.
        slot: Slot,
        /// What the decoder said.
        why: String,
    },
}

/// The command of a decided entry, if the program knows it.
pub(super) fn read(slot: Slot, payload: &Payload, supports: VersionRange) -> Result<Command, Halt> {
    let command = synod_txn::command::decode(payload).map_err(|error| Halt::Unreadable {
        slot,
        why: error.to_string(),
    })?;
    let version = match &command {
        Command::Version(version) => *version,
        other => other.since(),
    };
    if version > supports.newest {
        return Err(Halt::Version {
            slot,
            version,
            supports,
        });
    }
    Ok(command)
}

impl Shard {
    /// The cluster version that the shard has come to.
    #[must_use]
    pub fn version(&self) -> ClusterVersion {
        self.group.version()
    }

    /// Why nothing is applied any more, if so.
    #[must_use]
    pub fn halted(&self) -> Option<&Halt> {
        self.halted.as_ref()
    }

    /// The highest version that the shard tells of, one that its program does not know too.
    pub(crate) fn version_seen(&self) -> ClusterVersion {
        match &self.halted {
            Some(Halt::Version { version, .. }) => self.version().max(*version),
            _ => self.version(),
        }
    }

    /// Whether it leaves leading to others.
    pub(super) fn stands_back(&self) -> bool {
        self.overtaken || self.halted.is_some()
    }

    /// The log cannot be followed beyond this.
    pub(super) fn halt(&mut self, now: Now, leases: &NodeLease, why: Halt) {
        self.halted = Some(why);
        self.replica.halt(true);
        self.replica.stand_back(true);
        if self.leads() {
            self.step_down(now, leases);
        }
    }

    /// The state came from elsewhere: perhaps it is beyond the program, perhaps it
    /// leaves behind what was.
    pub(super) fn review_halt(&mut self) {
        let (version, supports) = (self.version(), self.supports);
        self.halted = (version > supports.newest).then_some(Halt::Version {
            slot: self.applied,
            version,
            supports,
        });
        self.replica.halt(self.halted.is_some());
        self.replica.stand_back(self.stands_back());
    }

    /// The cluster has gone beyond this program: others lead from now on.
    pub(crate) fn be_overtaken(&mut self, now: Now, leases: &NodeLease, out: &mut Outbox) {
        self.hand_over(now, leases, out);
        self.overtaken = true;
        self.replica.stand_back(true);
    }

    /// Raises the shard's version to the cluster's, at the end of a step: once in a term,
    /// and only to one that this program knows.
    pub(crate) fn go_on_raising(&mut self, now: Now, leases: &NodeLease, cluster: ClusterVersion) {
        let is_new = cluster > self.version().max(self.raising);
        let changes = self.cut.is_some() || self.rehash.is_some() || self.merges_now();
        let busy = self.pauses() || self.suspended || self.handing_over || changes;
        if !is_new || busy || self.office.is_none() || cluster > self.supports.newest {
            return;
        }
        let command = Command::Version(cluster);
        if let Some(slot) = self.try_propose(now, leases, &command, Urgency::Now) {
            mark(Mark::VersionProposed);
            self.backlog.add(slot, now.mono);
            self.raising = cluster;
        }
    }
}
