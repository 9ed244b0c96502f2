//! What a split makes of a shard's replicated state.

use synod_paxos::{Ballot, Configuration, GroupId, NodeId, Slot, Term, Timestamp};
use synod_txn::command::Intent;
use synod_txn::lineage::BIRTH;
use synod_txn::state::{Applied, State};
use synod_txn::{
    AbortReason, AttemptId, Birth, Command, Key, Outcome, Participant, Priority, Span, Split, Write,
};

const SHARD: GroupId = GroupId(3);
const OTHER: GroupId = GroupId(4);
const CHILD: GroupId = GroupId(9);

/// A state and the slot of its last entry.
#[derive(Default)]
struct Log {
    state: State,
    slot: u64,
}

fn attempt(number: u128) -> AttemptId {
    AttemptId((1_000 << 80) | number)
}

fn participant(shard: GroupId, anchor: &'static str) -> Participant {
    Participant {
        anchor: Key::from_static(anchor.as_bytes()),
        shard,
        term: Term {
            group: shard,
            ballot: Ballot::default(),
        },
    }
}

fn span() -> Span {
    Span {
        start: Key::from_static(b"a"),
        end: Key::from_static(b"z"),
    }
}

impl Log {
    fn apply(&mut self, command: Command) -> Applied {
        self.slot += 1;
        let (applied, _) = self.state.apply(SHARD, Slot(self.slot), command);
        applied
    }

    /// An intent here at `anchor`, of a transaction with another shard; `coordinates` says which
    /// of the two does.
    fn intent(&mut self, number: u128, anchor: &'static str, coordinates: bool) {
        let here = participant(SHARD, anchor);
        let intent = Intent {
            attempt: attempt(number),
            priority: Priority::default(),
            timestamp: Timestamp(self.slot + 100),
            writes: vec![Write {
                key: here.anchor.clone(),
                value: None,
            }],
            parts: 0,
            reads: Vec::new(),
            participants: vec![here, participant(OTHER, "zz")],
            here: 0,
            coordinator: u32::from(!coordinates),
        };
        self.apply(Command::Intent(Box::new(intent)));
    }

    fn commit(&mut self, number: u128, anchor: &'static str, coordinates: bool) {
        self.intent(number, anchor, coordinates);
        let (attempt, outcome) = (attempt(number), Outcome::Committed(Timestamp(500)));
        self.apply(if coordinates {
            Command::Outcome {
                attempt,
                outcome,
                participants: Vec::new(),
                anchor: Key::from_static(anchor.as_bytes()),
            }
        } else {
            Command::Resolve {
                attempt,
                outcome,
                recorded: false,
            }
        });
    }

    fn split(&mut self, at: &'static str, child: GroupId) -> Option<Birth> {
        let span = self.state.lineage.span.clone().unwrap_or_else(span);
        let split = Split {
            span,
            at: Key::from_static(at.as_bytes()),
            child,
            configuration: Configuration::of_voters(vec![NodeId(1)]),
            leader: NodeId(1),
            last: Timestamp(600),
            under: Ballot::default(),
        };
        match self.apply(Command::Split(Box::new(split))) {
            Applied::Split(birth) => birth.map(|birth| *birth),
            other => panic!("{other:?}"),
        }
    }
}

fn child(birth: &Birth) -> State {
    State::decode(birth.child.id, &birth.state.encode()).expect("a child's state is whole")
}

#[test]
fn everything_decided_goes_where_its_anchor_is() {
    let mut log = Log::default();
    log.commit(1, "b", true);
    log.commit(2, "p", true);
    log.commit(3, "c", false);
    log.commit(4, "q", false);
    log.apply(Command::OneShard {
        attempt: attempt(5),
        timestamp: Timestamp(550),
        term: Term::default(),
        writes: Vec::new(),
    });
    let birth = log.split("m", CHILD).expect("nothing is open");
    let (left, right) = (&log.state, child(&birth));
    let records = |s: &State| s.records.keys().collect::<Vec<_>>();
    assert_eq!(
        (records(left), records(&right)),
        (vec![attempt(1)], vec![attempt(2)])
    );
    let resolutions = |s: &State| s.resolutions.keys().collect::<Vec<_>>();
    assert_eq!(resolutions(left), [attempt(3)]);
    assert_eq!(resolutions(&right), [attempt(4)]);
    for half in [left, &right] {
        assert_eq!(half.one_shard.get(attempt(5)), Some(Timestamp(550)));
        assert_eq!(
            half.last,
            Timestamp(600),
            "nothing used before is used again"
        );
    }
    assert_eq!(right.applied, BIRTH);
    assert!(right.lineage.ancestors.contains(&SHARD));
    assert_eq!(
        left.lineage.span.as_ref().map(|s| &s.end[..]),
        Some(&b"m"[..])
    );
    assert_eq!(
        birth.child.span,
        Span {
            start: Key::from_static(b"m"),
            end: span().end
        }
    );
}

#[test]
fn a_split_that_meets_something_undecided_changes_nothing() {
    for (anchor, coordinates) in [("b", true), ("b", false), ("p", false)] {
        let mut log = Log::default();
        log.intent(1, anchor, coordinates);
        assert!(log.split("m", CHILD).is_none());
        assert!(log.state.lineage.span.is_none() && log.state.intents.len() == 1);
        log.apply(Command::Resolve {
            attempt: attempt(1),
            outcome: Outcome::Aborted(AbortReason::Deadline),
            recorded: true,
        });
        assert_eq!(
            log.split("m", CHILD).is_some(),
            !coordinates,
            "decided only by an outcome"
        );
    }
}

#[test]
fn one_that_is_about_another_range_changes_nothing() {
    let mut log = Log::default();
    assert!(log.split("a", CHILD).is_none(), "the first key");
    assert!(log.split("z", CHILD).is_none(), "behind the last");
    assert!(log.split("m", CHILD).is_some());
    let stale = Split {
        span: span(),
        at: Key::from_static(b"p"),
        child: GroupId(10),
        configuration: Configuration::of_voters(vec![NodeId(1)]),
        leader: NodeId(1),
        last: Timestamp(0),
        under: Ballot::default(),
    };
    assert_eq!(
        log.apply(Command::Split(Box::new(stale))),
        Applied::Split(None)
    );
    let second = log.split("f", GroupId(11)).expect("of what is left");
    assert_eq!(second.child.span.end, Key::from_static(b"m"));
    assert_eq!((second.child.splits, log.state.lineage.splits), (2, 2));
}

#[test]
fn an_abort_whose_anchor_went_away_is_not_recorded_here() {
    let mut log = Log::default();
    log.split("m", CHILD).expect("nothing is open");
    for (number, anchor) in [(1, "b"), (2, "p")] {
        log.apply(Command::Outcome {
            attempt: attempt(number),
            outcome: Outcome::Aborted(AbortReason::NeverStaged),
            participants: vec![participant(SHARD, anchor), participant(OTHER, "zz")],
            anchor: Key::from_static(anchor.as_bytes()),
        });
    }
    assert!(log.state.records.contains_key(&attempt(1)));
    assert!(!log.state.records.contains_key(&attempt(2)));
}
