//! Entries and disclosures, one after another, against one rule.

use super::*;

/// Entries and disclosures, against one rule.
struct Story<R> {
    rule: R,
    ledger: Ledger,
    setting: Setting,
    slot: u64,
}

impl<R: Rule> Story<R> {
    fn of(rule: R) -> Story<R> {
        Story {
            rule,
            ledger: Ledger::default(),
            setting: setting(),
            slot: 0,
        }
    }

    fn event(&mut self, event: &Event<'_>) -> bool {
        let verdict = self.rule.event(event, &self.ledger, &self.setting);
        self.ledger.take(event);
        verdict.is_ok()
    }

    /// A command is decided in this group, in the term of this round, as the
    /// first above `above`; whether the rule has nothing against it.
    fn decides(&mut self, group: GroupId, round: u64, above: u64, command: Command) -> bool {
        self.slot += 1;
        let fresh = Fresh {
            group,
            slot: Slot(self.slot),
            term: ballot(round, 1),
            above: Timestamp(above),
            t: self.slot,
            command: Some(command),
        };
        self.event(&Event::Decided(&fresh))
    }

    fn tells(&mut self, outcome: Outcome) -> bool {
        self.event(&Event::Told {
            attempt: X,
            outcome,
            node: NodeId(1),
            how: How::Answer,
        })
    }

    fn denies(&mut self, group: GroupId) -> bool {
        let here = participants().into_iter().find(|p| p.shard == group);
        self.event(&Event::No {
            attempt: X,
            group,
            anchor: here.expect("a participant").anchor,
            node: NodeId(1),
        })
    }
}

const COMMITTED: Outcome = Outcome::Committed(Timestamp(20));
const ABORTED: Outcome = Outcome::Aborted(AbortReason::Wounded);

fn participants() -> Vec<Participant> {
    let of = |anchor: &'static [u8], shard| Participant {
        anchor: Bytes::from_static(anchor),
        shard,
        term: Term {
            group: shard,
            ballot: ballot(1, 1),
        },
    };
    vec![of(b"a", A), of(b"z", B)]
}

fn write(key: &'static [u8]) -> Vec<Write> {
    vec![Write {
        key: Bytes::from_static(key),
        value: None,
    }]
}

/// The intent in A, the coordinator (0), or in B (1).
fn intent(here: u32, timestamp: u64) -> Command {
    Command::Intent(Box::new(Intent {
        attempt: X,
        priority: Priority::default(),
        timestamp: Timestamp(timestamp),
        writes: write(if here == 0 { b"a" } else { b"z" }),
        parts: 0,
        reads: Vec::new(),
        participants: participants(),
        here,
        coordinator: 0,
    }))
}

fn one_shard(attempt: AttemptId, timestamp: u64) -> Command {
    Command::OneShard {
        attempt,
        timestamp: Timestamp(timestamp),
        term: participants()[0].term,
        writes: write(b"a"),
    }
}

fn outcome(outcome: Outcome) -> Command {
    Command::Outcome {
        attempt: X,
        outcome,
        participants: participants(),
        anchor: Bytes::from_static(b"a"),
    }
}

#[test]
fn k3_a_timestamp_that_does_not_rise() {
    let mut story = Story::of(crate::rules::k3::K3);
    assert!(story.decides(A, 1, 9, one_shard(X, 10)));
    assert!(!story.decides(A, 1, 10, intent(0, 10)));
}

#[test]
fn p8_a_split_before_its_version() {
    let split = |child| {
        Command::Split(Box::new(Split {
            span: Span {
                start: Bytes::new(),
                end: Bytes::new(),
            },
            at: Bytes::from_static(b"m"),
            child,
            configuration: Configuration::of_voters(vec![NodeId(1)]),
            leader: NodeId(1),
            last: Timestamp(0),
            under: synod_paxos::Ballot::default(),
        }))
    };
    let raise = || Command::Version(Command::SPLIT_SINCE);
    let mut story = Story::of(crate::rules::p8::P8::default());
    story.setting.version = ClusterVersion::OLDEST;
    assert!(!story.decides(A, 1, 0, split(GroupId(7))));
    assert!(story.decides(B, 1, 0, raise()));
    // Of B's log and of what is split off it, not of A's.
    assert!(story.decides(B, 1, 0, split(GroupId(8))));
    assert!(story.decides(GroupId(8), 1, 0, split(GroupId(9))));
    assert!(!story.decides(A, 1, 0, split(GroupId(10))));
}

#[test]
fn t1_a_vote_at_another_timestamp() {
    let mut story = Story::of(crate::rules::t1::T1);
    assert!(story.decides(B, 1, 0, intent(1, 10)));
    let yes = |timestamp| Event::Yes {
        attempt: X,
        group: B,
        anchor: Bytes::from_static(b"z"),
        timestamp: Timestamp(timestamp),
        node: NodeId(1),
    };
    assert!(story.event(&yes(10)));
    assert!(!story.event(&yes(11)));
}

#[test]
fn t2_committed_without_a_vote_or_elsewhere_than_at_the_maximum() {
    let mut story = Story::of(crate::rules::t2::T2);
    assert!(story.decides(A, 1, 0, intent(0, 10)));
    assert!(!story.tells(COMMITTED));
    assert!(story.decides(B, 1, 0, intent(1, 20)));
    assert!(story.tells(COMMITTED));
    assert!(!story.tells(Outcome::Committed(Timestamp(10))));
    let mut story = Story::of(crate::rules::t2::T2);
    assert!(!story.event(&Event::Yes {
        attempt: X,
        group: B,
        anchor: Bytes::from_static(b"z"),
        timestamp: Timestamp(20),
        node: NodeId(1),
    }));
}

/// Two participants that are one shard by now: the intent of one is not that of the other.
#[test]
fn t2_an_intent_that_counts_for_two() {
    let mut story = Story::of(crate::rules::t2::T2);
    let three = |here: u32, timestamp| {
        let Command::Intent(mut intent) = intent(here, timestamp) else {
            unreachable!("an intent");
        };
        if here == 0 {
            let mut third = intent.participants[1].clone();
            third.anchor = Bytes::from_static(b"zz");
            intent.participants.push(third);
        }
        Command::Intent(intent)
    };
    assert!(story.decides(A, 1, 0, three(0, 10)));
    assert!(story.decides(B, 1, 0, three(1, 20)));
    let yes = |anchor| Event::Yes {
        attempt: X,
        group: B,
        anchor: Bytes::from_static(anchor),
        timestamp: Timestamp(20),
        node: NodeId(1),
    };
    assert!(story.event(&yes(b"z")));
    assert!(!story.event(&yes(b"zz")));
    assert!(!story.tells(COMMITTED));
}

#[test]
fn t3_two_outcomes_and_aborts_of_what_was_inherited() {
    let mut story = Story::of(crate::rules::t3::T3);
    assert!(story.tells(COMMITTED));
    assert!(story.tells(COMMITTED));
    assert!(!story.tells(ABORTED));

    let mut story = Story::of(crate::rules::t3::T3);
    assert!(story.decides(A, 1, 0, intent(0, 10)));
    assert!(story.decides(B, 1, 0, intent(1, 20)));
    assert!(!story.decides(A, 2, 0, outcome(ABORTED)));

    // Aborted by who inherited it, and then the missing yes comes all the same.
    let mut story = Story::of(crate::rules::t3::T3);
    assert!(story.decides(A, 1, 0, intent(0, 10)));
    assert!(story.decides(A, 2, 0, outcome(ABORTED)));
    assert!(!story.decides(B, 1, 0, intent(1, 20)));

    // Whoever staged it may.
    let mut story = Story::of(crate::rules::t3::T3);
    assert!(story.decides(A, 1, 0, intent(0, 10)));
    assert!(story.decides(B, 1, 0, intent(1, 20)));
    assert!(story.decides(A, 1, 0, outcome(ABORTED)));
}

#[test]
fn t4_another_term_and_a_no_that_is_not_final() {
    let mut story = Story::of(crate::rules::t4::T4::default());
    assert!(!story.decides(A, 2, 0, one_shard(X, 10)));

    let mut story = Story::of(crate::rules::t4::T4::default());
    assert!(story.denies(B));
    assert!(!story.decides(B, 1, 0, intent(1, 20)));
    assert!(!story.tells(COMMITTED));

    let mut story = Story::of(crate::rules::t4::T4::default());
    assert!(story.decides(A, 1, 0, one_shard(X, 20)));
    assert!(!story.denies(A));
}

#[test]
fn t5_an_abort_that_nobody_may_have_wanted() {
    let mut story = Story::of(crate::rules::t5::T5::default());
    assert!(!story.decides(A, 1, 0, outcome(ABORTED)));
    let mut story = Story::of(crate::rules::t5::T5::default());
    assert!(story.event(&Event::Asked { attempt: X }));
    assert!(story.decides(A, 1, 0, outcome(ABORTED)));
}

#[test]
fn t6_an_ack_before_the_resolution() {
    let mut story = Story::of(crate::rules::t6::T6::default());
    assert!(story.decides(B, 1, 0, intent(1, 20)));
    let ack = Event::Ack {
        attempt: X,
        group: B,
        anchor: Bytes::from_static(b"z"),
        node: NodeId(1),
    };
    assert!(!story.event(&ack));
    let acked = Command::Acked {
        attempt: X,
        participants: vec![Bytes::from_static(b"z")],
    };
    assert!(!story.decides(A, 1, 0, acked));
    let resolved = Command::Resolve {
        attempt: X,
        outcome: COMMITTED,
        recorded: true,
    };
    assert!(story.decides(B, 1, 0, resolved));
    assert!(story.event(&ack));
}

#[test]
fn t7_the_same_commit_twice() {
    let mut story = Story::of(crate::rules::t7::T7);
    assert!(story.decides(A, 1, 0, one_shard(X, 10)));
    assert!(!story.decides(A, 1, 10, one_shard(X, 11)));
}

#[test]
fn t8_versions_that_do_not_rise() {
    let mut story = Story::of(crate::rules::t8::T8);
    assert!(story.decides(A, 1, 0, one_shard(AttemptId(1), 10)));
    assert!(!story.decides(A, 1, 0, one_shard(AttemptId(2), 10)));
}

#[test]
fn s3_a_shard_that_goes_on_after_an_end_nobody_refused() {
    // Through all rules: each of them is told what is decided.
    let mut lab = Lab::new(1);
    let resume = Fresh {
        group: A,
        slot: Slot(5),
        term: ballot(1, 1),
        above: Timestamp(1),
        t: 0,
        command: Some(Command::Resume { slot: Slot(4) }),
    };
    lab.rules.event(0, None, &Event::Decided(&resume));
    assert_eq!(lab.found(), ["S3"]);
}

#[test]
fn t10_a_participant_of_another_shard() {
    let mut story = Story::of(crate::rules::t10::T10);
    assert!(story.decides(A, 1, 0, intent(0, 10)));
    assert!(!story.decides(A, 1, 0, intent(1, 10)));
}

#[test]
fn r5_a_horizon_too_close() {
    let hour = setting().txn.horizon_millis * 1_000_000;
    let horizon = |at| Command::Horizon {
        horizon: Timestamp(at),
    };
    let mut story = Story::of(crate::rules::r5::R5);
    assert!(story.decides(A, 1, hour + 5, horizon(5)));
    assert!(!story.decides(A, 1, hour + 5, horizon(6)));
}

#[test]
fn u1_a_read_of_the_past() {
    let mut lab = Lab::new(1);
    let mut decide = |attempt, timestamp, slot| {
        let fresh = Fresh {
            group: A,
            slot: Slot(slot),
            term: ballot(1, 1),
            above: Timestamp(timestamp - 1),
            t: 0,
            command: Some(one_shard(AttemptId(attempt), timestamp)),
        };
        lab.rules.event(0, None, &Event::Decided(&fresh));
    };
    decide(1, 10, 1);
    decide(2, 20, 2);
    assert_eq!(lab.found(), [""; 0]);
    let latest = Request::Latest {
        keys: vec![Bytes::from_static(b"a")],
        scan: None,
    };
    let old = Version {
        value: None,
        timestamp: Timestamp(10),
        attempt: AttemptId(1),
    };
    let answer = Response::Read {
        term: Term::default(),
        session: None,
        versions: vec![Some(old)],
        rows: Vec::new(),
        more: false,
        now: Timestamp(0),
    };
    assert_eq!(lab.answers(latest, answer), ["P6", "U1"]);
}
