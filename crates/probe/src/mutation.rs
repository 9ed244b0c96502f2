//! Named breaches of rules.
//!
//! Each is a mistake that a programmer could make at the very spot where the
//! code keeps the rule. None shows in a calm run: it takes faults, or
//! contention, and a check that looks.

macro_rules! mutations {
    ($($(#[doc = $what:literal])+ $name:ident($rule:literal),)+) => {
        /// A breach of one rule.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Mutation { $($(#[doc = $what])+ $name,)+ }

        impl Mutation {
            /// Every breach there is.
            pub const ALL: &'static [Mutation] = &[$(Mutation::$name,)+];

            /// Its name on the command line.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Mutation::$name => stringify!($name),)+ }
            }

            /// The rule it breaks (`docs/rules.md`; `U` is a promise to users).
            #[must_use]
            pub const fn rule(self) -> &'static str {
                match self { $(Mutation::$name => $rule,)+ }
            }

            /// What it does wrong.
            #[must_use]
            pub fn what(self) -> &'static str {
                match self { $(Mutation::$name => concat!($($what,)+).trim_start(),)+ }
            }
        }
    };
}

mutations! {
    // Consensus.
    /// An elector does not write down what it promised a candidate.
    ForgetPromise("P1"),
    /// A candidate does not write down its own promise, so that after a crash it uses the ballot again.
    ForgetOwnPromise("P1"),
    /// An acceptor takes entries under a ballot below the one it promised, as long as it accepted nothing higher.
    AcceptBelowPromise("P1"),
    /// A leader counts an Accepted that was given under another of its ballots.
    CountStaleAccepted("P2"),
    /// A leader counts entries on its own disk before they are synced there.
    CountUnsyncedSelf("P2"),
    /// A new leader keeps its own suffix, whatever the promises hold.
    SkipAdoption("P3"),
    /// The first part of a sync already moves `accepted` and `last`.
    HalfSync("P4"),
    /// A sync that comes again cuts off the entries accepted after it.
    RepeatedSyncTruncates("P4"),
    /// An acceptor believes a decided slot though its log was accepted under another ballot.
    BelieveForeignDecided("P5"),
    /// A leader takes office before its own entry is decided.
    ServeBeforeOffice("P6"),
    /// A deposed leader's transactions stay in office, into its next term.
    KeepOffice("P6"),
    /// A checkpoint names the slot before its own, whose entry is applied again after a restart.
    ApplyTwiceAfterRestart("P7"),
    /// After a restart the first entry after the checkpoint is left out.
    SkipAfterRestart("P7"),
    /// Promises, Accepteds and granted limits leave before their records are synced.
    ReleaseBeforeSync("P1"),

    // Leases.
    /// A follower that is being sent the sync counts for the lease before it accepted any of it.
    LeaseFromPromise("L1"),
    /// A leader serves lock-free reads although its lease has run out.
    ServeAfterLease("L1"),
    /// A leader without a lease validates reads without a confirming round.
    ValidateUnconfirmed("L1"),
    /// A confirming round that is under way already serves reads that came after it began.
    JoinOldRound("L1"),
    /// A holder counts support from when the answer came instead of when it asked.
    CountFromReceipt("L2"),
    /// Support that lapsed goes on under the same epoch.
    ReviveSupport("L2"),
    /// A restarted supporter numbers its epochs as its earlier incarnation did.
    ReuseEpoch("L2"),
    /// A leader says Relinquish and goes on leading.
    ClaimAfterRelinquish("L3"),
    /// A new leader's floor leaves out the limits that its promises report.
    FloorBelowLimits("L4"),
    /// A supporter tells a limit before it is durable.
    LimitBeforeDurable("L4"),
    /// A restarted node promises at once.
    SkipAbstention("L5"),
    /// A leader without support stays.
    StayWithoutSupport("L6"),
    /// A node whose disk stalls goes on asking for support.
    RenewOnStalledDisk("L6"),

    // Reconfiguration.
    /// A replica promises in a configuration before it holds the state that this begins with.
    VoteWithoutState("G1"),
    /// A leader that decided a stop-sign tells the others, and keeps its lease.
    LeaseBeyondStop("G2"),
    /// A replica outside the configuration goes as soon as one voter holds the state.
    DestroyEarly("G3"),
    /// Witnesses count where only voters that hold data should.
    WitnessAsData("G3"),
    /// A replica that went and is taken in again has forgotten in which configurations it voted.
    ForgottenEpoch("P1"),

    // Splits.
    /// The shard that was split serves the keys on that went to the new one.
    SplitKeepsRange("S1"),
    /// A shard takes commits however their keys were mapped.
    CommitUnmapped("U1"),
    /// The leader of a shard whose keys are stored in another way goes on in its term, locks and all.
    HashKeepsTerm("T4"),
    /// A directory is hashed although it has keys.
    HashOverKeys("U1"),
    /// The new shard begins without the records and outcomes that it should have.
    SplitForgetsRecords("T4"),
    /// A split does not wait for open intents, and takes effect although there are some.
    SplitOverIntents("T1"),
    /// A shard answers for an anchor that it does not own any more.
    NonOwnerSaysNo("T10"),
    /// The new shard begins before the engine holds its data for good.
    ChildBeforeSync("U3"),
    /// The new shard's `last` begins at 0.
    SplitLosesLast("K3"),
    /// To the new shard, a term of the shard it was part of is none that it knows.
    ChildIgnoresAncestors("T4"),

    // Merges.
    /// A shard ends, or absorbs another, although something is undecided.
    MergeOverIntents("S3"),
    /// A replica takes the other shard's state before that one has come to its end here.
    AbsorbEarly("S3"),
    /// A replica takes the other shard in before the engine holds what that one wrote.
    AbsorbBeforeWritten("P7"),
    /// What was absorbed leaves `last` as it was.
    AbsorbLosesLast("K3"),
    /// Records and outcomes of what was absorbed are not taken over.
    AbsorbForgetsRecords("T4"),
    /// The end of a shard is refused although it was absorbed.
    ReopenAbsorbed("S4"),
    /// A shard that has ended goes on serving.
    ServeAfterEnd("S3"),
    /// The term that absorbed a shard goes on.
    TermAfterAbsorb("T4"),
    /// Replicas of what was absorbed go before all members have it.
    RetireEarly("S4"),

    // Versions.
    /// A leader proposes a split although the cluster may have nodes that know none.
    ProposeEarly("P8"),

    // Clocks.
    /// Timestamps are assigned above the limit.
    IgnoreLimit("K1"),
    /// A supporter grants whatever limit is asked for.
    GrantAnyLimit("K1"),
    /// A node whose clock jumped goes on as before.
    IgnoreQuarantine("K2"),
    /// A commit takes the clock's time though it is not above `last`.
    TimestampNotAboveLast("K3"),
    /// A read is served at the wall clock's time, and `last` is left alone.
    ReadsLeaveLast("R1"),

    // Transactions.
    /// A new leader does not lock what open intents write.
    DropWriteLocks("T1"),
    /// A new leader does not lock what open intents have read.
    DropReadLocks("T1"),
    /// A leader that inherits Staged commits without the votes that are missing.
    CommitWithoutVote("T2"),
    /// A coordinator answers once the others voted, before its own Staged is decided.
    AnswerBeforeStaged("T2"),
    /// A deposed leader answers one-shard commits that are only proposed as committed.
    AnswerUndecided("U3"),
    /// A participant votes yes before its intent is decided.
    VoteBeforeDecided("T2"),
    /// A coordinator records an outcome some time after it answered, and until then a wound aborts.
    AbortAfterAnswer("T3"),
    /// A wound aborts what was inherited staged.
    WoundInherited("T3"),
    /// A leader that inherits Staged aborts it instead of asking for the votes.
    AbortInherited("T3"),
    /// A Commit that names an earlier term is let in.
    AcceptOtherTerm("T4"),
    /// A poll is answered no although an intent is proposed.
    NoWhileProposed("T4"),
    /// A Commit is let in though its session has ended for its client's silence.
    IgnoreEndedSession("T4"),
    /// A question for the outcome aborts what is still staged.
    AskAborts("T5"),
    /// A participant forgets a resolution before the outcome is recorded.
    ForgetUnrecorded("T6"),
    /// A coordinator forgets a record before everybody has acknowledged it.
    ForgetUnacked("T6"),
    /// A participant acknowledges an outcome before its resolution is decided.
    AckBeforeDecided("T6"),
    /// A one-shard Commit that comes again is applied again.
    NoCommitDedup("T7"),
    /// Attempts dropped from a leader's memory leave no floor.
    ForgetIdFloor("T7"),
    /// Commits below the forget floor are let in.
    IgnoreForgetFloor("T7"),
    /// The locks pass on before `last` has risen to the commit's timestamp.
    FreeLocksBeforeLast("T8"),
    /// A transaction's age is its arrival in the shard: waiters queue first come, first served.
    QueueFirstCome("T9"),
    /// A lock-free read does not wait for decided intents on its keys.
    ReadSkipsIntent("U1"),
    /// A scan that came to its end locks nothing behind its last row.
    PhantomAfterScan("U1"),
    /// A new leader forgets the versions that its engine has not applied yet.
    ForgetOverlay("U1"),

    // Storage.
    /// The log says that it is synced without having been.
    SyncNothing("U3"),
    /// A damaged batch is taken for a torn end, though a later one proves that it was synced.
    DamageIsTorn("G3"),
    /// Segments are freed before the log's new beginning is durable.
    FreeSegmentsEarly("G3"),
    /// What lies behind a torn end is left there, to be taken for written later.
    LeaveTornRest("U3"),
    /// The log is trimmed though the engine has not synced what it applied.
    TrimPastEngineSync("G3"),
    /// A checkpoint overtakes the versions that its state implies.
    StateBeforeVersions("G3"),
    /// A snapshot is installed without noting that the range is neither old nor new meanwhile.
    HalfInstalled("G3"),
    /// Keys are not escaped in the engine, so that versions of two keys interleave.
    InterleaveVersions("U1"),
}

impl Mutation {
    /// The breach of that name, if there is one.
    #[must_use]
    pub fn named(name: &str) -> Option<Mutation> {
        Mutation::ALL.iter().copied().find(|m| m.name() == name)
    }
}

#[cfg(feature = "mutations")]
mod active {
    use super::Mutation;
    use std::cell::Cell;

    thread_local! {
        static ACTIVE: Cell<Option<Mutation>> = const { Cell::new(None) };
    }

    /// Whether this thread runs with that breach.
    #[must_use]
    pub fn mutated(mutation: Mutation) -> bool {
        ACTIVE.get() == Some(mutation)
    }

    /// From now on this thread runs with that breach, or with none.
    pub fn mutate(mutation: Option<Mutation>) {
        ACTIVE.set(mutation);
    }
}

#[cfg(not(feature = "mutations"))]
mod active {
    use super::Mutation;

    /// Whether this thread runs with that breach: never, in this build.
    #[inline(always)]
    #[must_use]
    pub const fn mutated(_: Mutation) -> bool {
        false
    }

    /// Without the feature `mutations` there are no breaches: changes nothing.
    pub fn mutate(_: Option<Mutation>) {}
}

pub use active::{mutate, mutated};

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_breach_has_a_name_of_its_own_and_is_found_by_it() {
        let names: BTreeSet<&str> = Mutation::ALL.iter().map(|m| m.name()).collect();
        assert_eq!(names.len(), Mutation::ALL.len());
        for mutation in Mutation::ALL {
            assert_eq!(Mutation::named(mutation.name()), Some(*mutation));
            assert!(mutation.what().ends_with('.'), "{}", mutation.name());
        }
        assert_eq!(Mutation::named("NoSuchBreach"), None);
    }

    #[test]
    fn every_breach_names_a_rule_that_is_written_down() {
        let rules = include_str!("../../../docs/rules.md");
        for mutation in Mutation::ALL {
            let rule = mutation.rule();
            let promise = rule.starts_with('U');
            assert!(
                promise || rules.contains(&format!("| {rule} |")),
                "{} breaks {rule}, which docs/rules.md does not have",
                mutation.name()
            );
        }
    }

    #[test]
    #[cfg(feature = "mutations")]
    fn a_breach_is_of_one_thread_and_one_at_a_time() {
        mutate(Some(Mutation::ForgetPromise));
        assert!(mutated(Mutation::ForgetPromise));
        assert!(!mutated(Mutation::HalfSync));
        let elsewhere = std::thread::spawn(|| mutated(Mutation::ForgetPromise));
        assert!(!elsewhere.join().unwrap());
        mutate(None);
        assert!(Mutation::ALL.iter().all(|m| !mutated(*m)));
    }

    #[test]
    #[cfg(not(feature = "mutations"))]
    fn without_the_feature_nothing_is_broken() {
        mutate(Some(Mutation::ForgetPromise));
        assert!(Mutation::ALL.iter().all(|m| !mutated(*m)));
    }
}
