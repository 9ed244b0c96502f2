//! What this node's replicas hold when others are lost for good, and the order to go on
//! with one of them alone (decision 16).

use super::driver::Driver;
use super::time;
use std::collections::BTreeMap;
use synod_paxos::{Entry, Slot};
use synod_rpc::recover::{OpenTransaction, RecoverAnswer, RecoverRequest, Remains};
use synod_shard::{Shard, Worker};
use synod_txn::command::Intent;
use synod_txn::{AttemptId, Command, Key};

/// Open transactions named in one answer, at most; of more only the number is told.
const MAX_NAMED: usize = 4096;
/// The same for the bytes of their keys.
const MAX_NAMED_BYTES: usize = 4 << 20;

impl Driver {
    /// What every replica here holds.
    pub(super) fn remains(&self) -> Vec<Remains> {
        let Some(worker) = self.machine.worker() else {
            return Vec::new();
        };
        let mut room = Room {
            named: MAX_NAMED,
            bytes: MAX_NAMED_BYTES,
        };
        let shards = worker.shards();
        shards
            .map(|shard| remains_of(worker, shard, &mut room))
            .collect()
    }

    /// A replica here goes on alone.
    pub(super) fn recover_shard(&mut self, request: RecoverRequest) -> RecoverAnswer {
        let RecoverRequest {
            shard,
            holds,
            epoch,
        } = request;
        let done = self.machine.recover(&mut self.lanes, shard, holds, epoch);
        let (accepted, last) = (holds.accepted, holds.last);
        match done {
            Ok(slot) => {
                tracing::warn!(
                    shard = shard.0, %accepted, %last, %epoch,
                    "an administrator has this replica go on alone: what only the others held is lost"
                );
                RecoverAnswer::Begun { slot }
            }
            Err(error) => {
                tracing::info!(shard = shard.0, %accepted, %last, %error, "no replica goes on alone");
                RecoverAnswer::Refused(error)
            }
        }
    }
}

/// How much may still be named.
struct Room {
    named: usize,
    bytes: usize,
}

impl Room {
    /// Takes room for one; false if there is none.
    fn take(&mut self, transaction: &OpenTransaction) -> bool {
        let keys = transaction.participants.iter().map(|key| key.len());
        let bytes = transaction.coordinator.len() + keys.sum::<usize>();
        if self.named == 0 || bytes > self.bytes {
            self.named = 0;
            return false;
        }
        self.named -= 1;
        self.bytes -= bytes;
        true
    }
}

fn remains_of(worker: &Worker, shard: &Shard, room: &mut Room) -> Remains {
    let replica = shard.replica();
    let configuration = replica.configuration().clone();
    let led_by = shard.led_by(time::now(), worker.leases());
    let open = open(shard);
    let count = open.len() as u64;
    let named: Vec<OpenTransaction> = open.into_values().take_while(|t| room.take(t)).collect();
    Remains {
        shard: replica.group(),
        span: shard.descriptor().span.clone(),
        left_out: !configuration.is_member(replica.me())
            || replica.is_overruled()
            || replica.is_being_destroyed(),
        configuration,
        promised: replica.ballot(),
        accepted: replica.accepted(),
        decided: replica.decided(),
        last: replica.last(),
        holds_data: replica.holds_data() && replica.installing().is_none(),
        led_by,
        in_office: shard.in_office() && replica.in_office(),
        more: count - named.len() as u64,
        open: named,
    }
}

/// What has no outcome by the whole log: the applied state, and the entries after it.
fn open(shard: &Shard) -> BTreeMap<AttemptId, OpenTransaction> {
    let state = shard.group().state();
    let mut open: BTreeMap<AttemptId, OpenTransaction> = BTreeMap::new();
    for intent in state.intents.values() {
        open.extend(of_intent(intent, false));
    }
    for (attempt, record) in state.in_doubt() {
        let participants = record.participants.iter().map(|p| p.anchor.clone());
        let transaction = OpenTransaction {
            attempt,
            coordinator: record.anchor.clone(),
            here: true,
            undecided: false,
            participants: participants.collect(),
        };
        open.insert(attempt, transaction);
    }
    let decided = shard.replica().decided();
    for (slot, entry) in shard.replica().entries_from(shard.applied().next()) {
        if let Entry::Command(bytes) = entry
            && let Ok(command) = synod_txn::command::decode(bytes)
        {
            follow(&mut open, &command, slot, decided);
        }
    }
    open
}

/// One entry that is not applied yet.
fn follow(
    open: &mut BTreeMap<AttemptId, OpenTransaction>,
    command: &Command,
    slot: Slot,
    decided: Slot,
) {
    match command {
        Command::Intent(intent) => open.extend(of_intent(intent, slot > decided)),
        Command::Outcome { attempt, .. } | Command::Resolve { attempt, .. } => {
            open.remove(attempt);
        }
        _ => {}
    }
}

fn of_intent(intent: &Intent, undecided: bool) -> Option<(AttemptId, OpenTransaction)> {
    let anchor = |at: u32| {
        let participant = intent.participants.get(usize::try_from(at).ok()?)?;
        Some(participant.anchor.clone())
    };
    let here = intent.here == intent.coordinator;
    let all = intent.participants.iter().filter(|_| here);
    let participants: Vec<Key> = all.map(|p| p.anchor.clone()).collect();
    let transaction = OpenTransaction {
        attempt: intent.attempt,
        coordinator: anchor(intent.coordinator)?,
        here,
        undecided,
        participants,
    };
    Some((intent.attempt, transaction))
}

#[cfg(test)]
mod tests {
    use super::*;
    use synod_paxos::{GroupId, Timestamp};
    use synod_txn::{Outcome, Participant, Priority};

    fn intent(attempt: u128, here: u32, coordinator: u32) -> Command {
        let participant = |anchor: &'static [u8]| Participant {
            anchor: Key::from_static(anchor),
            shard: GroupId(2),
            term: synod_paxos::Term::default(),
        };
        Command::Intent(Box::new(Intent {
            attempt: AttemptId(attempt),
            priority: Priority::default(),
            timestamp: Timestamp(5),
            writes: Vec::new(),
            parts: 0,
            reads: Vec::new(),
            participants: vec![participant(b"a"), participant(b"z")],
            here,
            coordinator,
        }))
    }

    fn followed(commands: &[Command]) -> Vec<OpenTransaction> {
        let mut open = BTreeMap::new();
        for (at, command) in commands.iter().enumerate() {
            follow(&mut open, command, Slot(at as u64 + 1), Slot(1));
        }
        open.into_values().collect()
    }

    #[test]
    fn what_is_open_by_the_whole_log_is_named() {
        let outcome = Outcome::Committed(Timestamp(9));
        let resolve = Command::Resolve {
            attempt: AttemptId(1),
            outcome,
            recorded: true,
        };
        let open = followed(&[intent(1, 1, 0), intent(2, 1, 0), resolve, intent(3, 0, 0)]);
        let ids: Vec<u128> = open.iter().map(|t| t.attempt.0).collect();
        assert_eq!(ids, [2, 3]);
        let (elsewhere, here) = (&open[0], &open[1]);
        assert!(!elsewhere.here && elsewhere.undecided && elsewhere.participants.is_empty());
        assert_eq!(elsewhere.coordinator, "a");
        assert!(here.here && here.undecided);
        assert_eq!(here.participants, ["a", "z"]);

        // The first entry is known to be decided.
        assert!(!followed(&[intent(1, 1, 0)])[0].undecided);
        let recorded = Command::Outcome {
            attempt: AttemptId(3),
            outcome,
            participants: Vec::new(),
            anchor: Key::from_static(b"a"),
        };
        assert_eq!(followed(&[intent(3, 0, 0), recorded]), []);
    }

    #[test]
    fn an_answer_names_no_more_than_fits() {
        let named = followed(&[intent(3, 0, 0)]).remove(0);
        let mut room = Room {
            named: 2,
            bytes: MAX_NAMED_BYTES,
        };
        assert!(room.take(&named) && room.take(&named) && !room.take(&named));
        let mut room = Room { named: 9, bytes: 5 };
        // Three keys of one byte each, and then not three more; what is left out stays so.
        assert!(room.take(&named) && !room.take(&named));
    }
}
