//! How a shard's keys are stored changes (decision 22), as the shard lives through it.
//!
//! It goes as a split does: the leader stops to assign timestamps and waits until nothing
//! is undecided. Then it looks for a key; if there is none it proposes the change, and until that
//! is applied nothing else. So what it saw is what stands in every log before the entry. Then its
//! term ends, and with it all locks and sessions that rest on what was before.

use super::split::PATIENCE_NANOS;
use super::{Now, Shard, Splitting};
use crate::outbox::Outbox;
use crate::wire::{META_SHARD, show_key};
use serde::{Deserialize, Serialize};
use synod_paxos::lease::NodeLease;
use synod_paxos::replica::Urgency;
use synod_paxos::{ClusterVersion, Mono, NodeId, Slot};
use synod_probe::{Mark, Mutation, mark, mutated};
use synod_txn::command::Hash;
use synod_txn::request::{Refusal, ScanRange};
use synod_txn::{Caller, Command, Hashing, Key, Request, Response, Write};

/// Who asks the transaction machine for one row: no connection has this number.
pub(super) const LOOKING: Caller = Caller {
    connection: u64::MAX,
    request: u64::MAX,
};

/// Why the keys of a shard are stored as before. Nothing changed, and asking again is safe.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum HashError {
    /// Another replica leads, or none.
    #[error("this node does not lead the shard; ask the one that does")]
    NotLeader {
        /// The best guess at who does.
        leader: Option<NodeId>,
    },
    /// The shard's leader has just been elected, or its members or range are changing.
    #[error("the shard is between two leaders, or is being changed; ask again in a moment")]
    NotReady,
    /// The meta shard holds the cluster's own records, which all nodes look up.
    #[error("the meta shard's keys are not hashed")]
    Meta,
    /// The shard has other keys than the directory.
    #[error(
        "a directory is hashed, or no more, while it is one shard of its own, and shard {shard} \
         is not exactly that; where the directory is several shards by now they would first have \
         to be merged"
    )]
    OtherRange {
        /// The shard.
        shard: u64,
    },
    /// The directory has keys.
    #[error(
        "the directory is not empty: there is {}; only an empty one changes",
        show_key(key)
    )]
    NotEmpty {
        /// One of them.
        key: Key,
    },
    /// Transactions that are not decided stood in the way until patience ended.
    #[error("{open} transactions were not decided in time, so nothing was changed; ask again")]
    Busy {
        /// How many.
        open: u64,
    },
    /// Nodes of older programs may belong to the cluster: they know no hashed directories.
    #[error(
        "the cluster is at version {at}, and directories are hashed from version {since} on: run \
         `synod cluster upgrade` once all its nodes run a program that knows that", at = .at.0,
        since = .since.0
    )]
    Version {
        /// The shard's version.
        at: ClusterVersion,
        /// What it needs.
        since: ClusterVersion,
    },
}

/// A change on its way.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Rehash {
    wanted: Option<Hashing>,
    until: Mono,
    step: Step,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
enum Step {
    /// It waits until nothing is undecided.
    Draining,
    /// It looks for a key.
    Looking,
    /// There is none.
    Empty,
    /// It has its slot.
    Proposed(Slot),
}

impl Shard {
    /// How its keys are stored, as far as this replica has applied; none is as they are.
    #[must_use]
    pub fn hashing(&self) -> Option<&Hashing> {
        self.group.state().hashing()
    }

    /// Begins to change how the keys are stored, or says how far that has come.
    pub(crate) fn hash(
        &mut self,
        now: Now,
        wanted: Option<&Hashing>,
    ) -> Result<Splitting, HashError> {
        if let Some(rehash) = &self.rehash {
            return match rehash.wanted.as_ref() == wanted {
                true => Ok(Splitting::Underway),
                false => Err(HashError::NotReady),
            };
        }
        let refused = self.unhashed.take_if(|(of, _)| of.as_ref() == wanted);
        if let Some((_, why)) = refused {
            return Err(why);
        }
        if self.office.is_none() && !self.leads() {
            let leader = self.replica.leader().filter(|n| *n != self.replica.me());
            return Err(HashError::NotLeader { leader });
        }
        let changes = self.cut.is_some() || self.merges_now();
        let busy = self.suspended || self.handing_over || changes;
        if self.office.is_none() || self.changes_members() || busy {
            return Err(HashError::NotReady);
        }
        if self.hashing() == wanted {
            return Ok(Splitting::Done);
        }
        self.check_hash(wanted)?;
        self.group.suspend();
        self.rehash = Some(Rehash {
            wanted: wanted.cloned(),
            until: now.mono.plus(PATIENCE_NANOS),
            step: Step::Draining,
        });
        Ok(Splitting::Underway)
    }

    fn check_hash(&self, wanted: Option<&Hashing>) -> Result<(), HashError> {
        if self.descriptor.id == META_SHARD {
            return Err(HashError::Meta);
        }
        let (at, since) = (self.version(), Command::HASH_SINCE);
        if at < since && !mutated(Mutation::ProposeEarly) {
            return Err(HashError::Version { at, since });
        }
        let other = |h: &Hashing| !h.is_sound() || h.span() != self.descriptor.span;
        if { [wanted, self.hashing()].into_iter().flatten() }.any(other) {
            let shard = self.descriptor.id.0;
            return Err(HashError::OtherRange { shard });
        }
        Ok(())
    }

    /// Goes on with a change that waits, at the end of a step.
    pub(crate) fn go_on_hashing(&mut self, now: Now, leases: &NodeLease) {
        let Some(rehash) = &mut self.rehash else {
            return;
        };
        let open = self.group.undecided();
        match rehash.step {
            Step::Draining if open == 0 => {
                rehash.step = Step::Looking;
                self.look_for_a_key(now, leases);
            }
            Step::Empty => self.propose_hash(now, leases),
            Step::Draining | Step::Looking if rehash.until <= now.mono => {
                let open = open as u64;
                self.stay_as_stored(now, leases, HashError::Busy { open });
            }
            _ => {}
        }
    }

    /// Asks for one row, as a client would: what is decided by now counts, whether the
    /// engine has it or not.
    fn look_for_a_key(&mut self, now: Now, leases: &NodeLease) {
        let scan = ScanRange {
            span: self.descriptor.span.clone(),
            limit: 1,
            reverse: false,
        };
        let request = Request::Latest {
            keys: Vec::new(),
            scan: Some(scan),
        };
        let cx = self.txn_cx(now, leases);
        self.group.handle_request(&cx, LOOKING, request);
    }

    /// Answers a caller; the shard itself may be one.
    pub(super) fn answer(
        &mut self,
        now: Now,
        leases: &NodeLease,
        to: Caller,
        response: Response,
        out: &mut Outbox,
    ) {
        if to != LOOKING {
            return out.reply(to, response);
        }
        let looks = |rehash: &Rehash| rehash.step == Step::Looking;
        if !self.rehash.as_ref().is_some_and(looks) {
            return;
        }
        match response {
            Response::Read { rows, .. } => match rows.into_iter().next() {
                Some(row) if !mutated(Mutation::HashOverKeys) => {
                    let plain = self.hashing().and_then(|own| own.load(&row.key));
                    let key = plain.unwrap_or(row.key);
                    self.stay_as_stored(now, leases, HashError::NotEmpty { key });
                }
                _ => {
                    if let Some(rehash) = &mut self.rehash {
                        rehash.step = Step::Empty;
                    }
                }
            },
            _ => self.stay_as_stored(now, leases, HashError::NotReady),
        }
    }

    /// Nothing changes: whoever asks is told why.
    fn stay_as_stored(&mut self, now: Now, leases: &NodeLease, why: HashError) {
        if let Some(rehash) = self.rehash.take() {
            self.unhashed = Some((rehash.wanted, why));
        }
        let cx = self.txn_cx(now, leases);
        self.group.resume(&cx);
    }

    fn propose_hash(&mut self, now: Now, leases: &NodeLease) {
        let Some(rehash) = &self.rehash else {
            return;
        };
        let hash = Hash {
            span: self.descriptor.span.clone(),
            hashing: rehash.wanted.clone(),
        };
        let command = Command::Hash(Box::new(hash));
        match self.try_propose(now, leases, &command, Urgency::Now) {
            Some(slot) => {
                mark(Mark::HashProposed);
                if let Some(rehash) = &mut self.rehash {
                    rehash.step = Step::Proposed(slot);
                }
            }
            None => self.stay_as_stored(now, leases, HashError::NotReady),
        }
    }

    /// When a change that waits is given up.
    pub(super) fn hash_timeout(&self) -> Option<Mono> {
        let rehash = self.rehash.as_ref()?;
        (!matches!(rehash.step, Step::Proposed(_))).then_some(rehash.until)
    }

    /// Whether a change is proposed and not applied.
    pub(super) fn is_being_hashed(&self) -> bool {
        let step = self.rehash.as_ref().map(|rehash| &rehash.step);
        matches!(step, Some(Step::Proposed(_)))
    }

    /// The change is applied, if there was one under way. The term ends: its locks and sessions
    /// are of keys that are stored elsewhere now.
    pub(super) fn end_hash(&mut self, now: Now, leases: &NodeLease) {
        let step = self.rehash.as_ref().map(|rehash| &rehash.step);
        if !matches!(step, Some(Step::Proposed(slot)) if *slot <= self.applied) {
            return;
        }
        self.rehash = None;
        if mutated(Mutation::HashKeepsTerm) {
            let cx = self.txn_cx(now, leases);
            self.group.resume(&cx);
            return self.hand_in_waiting(now, leases);
        }
        self.step_down(now, leases);
    }

    /// What to say to a request whose keys were mapped in another way than the shard's are
    /// stored; none if they fit. Only in office.
    pub(super) fn check_mapping(
        &self,
        named: Option<&Hashing>,
        request: &Request,
    ) -> Option<Refusal> {
        let commits = matches!(request, Request::Commit(_) | Request::Locate);
        if commits && mutated(Mutation::CommitUnmapped) {
            return None;
        }
        let (keys, writes): (&[Key], &[Write]) = match request {
            Request::Latest { keys, .. } | Request::LockedRead { keys, .. } => (keys, &[]),
            Request::Commit(commit) => (&[], &commit.writes),
            Request::Locate => (&[], &[]),
            // About attempts: whatever was let in of those was mapped as it should be.
            Request::Validate { .. } | Request::Release { .. } | Request::Status { .. } => {
                return None;
            }
        };
        let own = self.hashing();
        if own != named {
            mark(Mark::OtherSharding);
            let hashing = own.cloned();
            return Some(Refusal::OtherSharding { hashing });
        }
        let own = own?;
        let keys = keys.iter().chain(writes.iter().map(|write| &write.key));
        let mut strange = keys.filter(|key| own.load(key).is_none());
        strange.next().map(|key| {
            Refusal::Invalid(format!(
                "{} does not lie in the slot of its hash, as keys of a hashed directory do; this is \
                 an error of the client library",
                show_key(key)
            ))
        })
    }
}
