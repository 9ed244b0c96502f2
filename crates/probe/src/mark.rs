//! Marks on rare paths.

macro_rules! marks {
    ($($(#[doc = $what:literal])+ $name:ident,)+) => {
        /// A rare path.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        #[repr(usize)]
        pub enum Mark { $($(#[doc = $what])+ $name,)+ }

        impl Mark {
            /// Every mark there is.
            pub const ALL: &'static [Mark] = &[$(Mark::$name,)+];

            /// Its name in reports.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Mark::$name => stringify!($name),)+ }
            }

            /// What passing it means.
            #[must_use]
            pub fn what(self) -> &'static str {
                match self { $(Mark::$name => concat!($($what,)+).trim_start(),)+ }
            }
        }
    };
}

marks! {
    // Elections.
    /// A candidate met another one's higher ballot.
    Duel,
    /// So many electors refused a candidate that it gave up.
    CampaignRefused,
    /// Nobody answered a candidate in time, and it gave up.
    CampaignSilent,
    /// A Prepare was sent again.
    PrepareRepeated,
    /// An elector refused a candidate because it supports another node.
    NackSupports,
    /// An elector refused a candidate because it had restarted lately.
    NackAbstains,
    /// A Promise would have needed entries that are trimmed.
    PromiseTrimmed,
    /// A Promise went in parts.
    PromiseInParts,
    /// A Promise came after the campaign was won.
    LatePromise,
    /// A new leader adopted another replica's suffix.
    AdoptedForeignSuffix,
    /// A follower wanted to campaign, but had restarted lately.
    CampaignAbstained,
    /// A follower that would refuse others asked the leader it misses.
    ContestedByFollower,
    /// A leader that was contested showed that it leads.
    ContestedShown,
    /// A node that was contested gave the ballot up.
    ContestedRelinquished,
    /// A follower heard that its leader is gone, and campaigns soon.
    RelinquishHeard,
    /// A follower took over because the leader asked it to.
    TransferTaken,
    /// A transfer's target held everything, and the leader stepped down.
    TransferReady,
    /// A transfer's target was not ready in time, and the leader stepped down.
    TransferTimedOut,
    /// A leader learned of a higher ballot from a refusal.
    DeposedByNack,
    /// A leader without support for long gave up.
    LostSupport,
    /// A leader gave up because its node is not well.
    SteppedDownUnhealthy,

    // Accepting.
    /// An Accept of a deposed leader was refused.
    StaleLeaderRefused,
    /// Entries did not join on to a follower's log.
    AcceptGap,
    /// Entries came again that were held already.
    EntriesAgain,
    /// A part of a sync came that did not complete it.
    SyncInParts,
    /// A sync came again that was complete already.
    SyncAgain,
    /// A sync replaced entries that were accepted before.
    SuffixReplaced,
    /// A sync left the log shorter than it was.
    SuffixShortened,
    /// Followers held an entry before the leader's own disk did.
    DecidedBeforeOwnDisk,
    /// A follower whose support had had a gap was asked for a fresh stamp.
    FreshStampAsked,
    /// A leader without a lease was confirmed by a round.
    RoundConfirmed,
    /// At start the engine held more than the log knew to be decided.
    EngineAheadOfLog,

    // Snapshots.
    /// A follower needed entries that are trimmed: a snapshot was begun.
    SnapshotBegun,
    /// A follower without data asked for a snapshot.
    SnapshotAsked,
    /// An unanswered chunk was sent again.
    SnapshotChunkAgain,
    /// A follower without data took no entries: its node held enough of such logs.
    FullWithoutData,
    /// The log was cut off behind a snapshot before its first chunk was read.
    SnapshotOutrun,
    /// A transfer that nobody answered was given up.
    SnapshotGivenUp,
    /// The answer to an earlier wish for a snapshot was taken for that to a later one.
    SnapshotReopened,
    /// A transfer went on, or started over, at another chunk than the next.
    SnapshotResumed,
    /// A snapshot came that is not newer than the state.
    SnapshotOld,
    /// A snapshot arrived while the receiver campaigned.
    SnapshotWhileCampaigning,
    /// A snapshot was installed below entries that stay in the log.
    SnapshotBelowLog,
    /// A snapshot on its way held up trimming.
    TrimPinned,

    // Leases.
    /// Support that had lapsed began anew, under another epoch.
    EpochLapsed,
    /// A holder came back in a new incarnation.
    HolderRestarted,
    /// A Renew was overtaken by a younger one.
    RenewOvertaken,
    /// A Support waited for a record that was already on its way to the disk.
    SupportRode,
    /// A limit was capped because the holder's clock is far ahead.
    LimitCapped,
    /// A Support came that names an epoch older than one heard of.
    SupportOlder,
    /// A holder's own count ran out, and went on under the same epoch.
    HeldAgain,

    // The shard and its node.
    /// A node quarantined itself because its clock jumped.
    QuarantinedByJump,
    /// A node quarantined itself because most clocks agree on another time.
    QuarantinedByPeers,
    /// Most clocks are far from a node's own, but no majority of them agrees.
    ClocksAllDisagree,
    /// A quarantine ended because the clocks agree.
    QuarantineAgreed,
    /// A quarantine ended because its time was over.
    QuarantineExpired,
    /// After a quarantine's time was over, a clock was used against most others.
    QuarantineOutlasted,
    /// A request waited for a leader-elect to take office.
    WaitedForOffice,
    /// A message between shards waited for a leader-elect to take office.
    PeerWaitedForOffice,
    /// A proposal was refused after its slot was counted on, and the term ended.
    ProposalRefused,
    /// A message between shards was passed on to another node.
    MessagePassedOn,
    /// A message between shards was dropped after too many hops.
    HopsExhausted,
    /// An effect without records waited for a sync that was under way.
    BarrierWaited,
    /// Callers lost their leader while they waited.
    OrphansLeft,

    // Timestamps.
    /// A commit waited because the limit was reached.
    LimitReached,
    /// The clock was above the limit, and a commit took less.
    ClockAboveLimit,
    /// `last` was above the clock, and a commit took more.
    LastAboveClock,

    // Locks and sessions.
    /// A Commit waited for its write locks.
    CommitQueued,
    /// A Commit would have had to wait for its locks, and too much waited already.
    CommitNotQueued,
    /// An older transaction wounded one that was reading.
    WoundedRunning,
    /// An older transaction wounded one whose Commit waited for locks.
    WoundedQueued,
    /// An older transaction wounded one whose Commit held its locks and waited for the limit.
    WoundedParked,
    /// A wound aborted what was staged.
    WoundedStaged,
    /// A wound was sent to another shard's coordinator.
    WoundSent,
    /// A wound was repeated.
    WoundRepeated,
    /// A wound came for what was inherited staged, and was let be.
    WoundInherited,
    /// A wound met nothing, or something not proposed yet.
    WoundUnstaged,
    /// A queued Commit's deadline passed.
    DeadlineQueued,
    /// A staged transaction's deadline passed.
    DeadlineStaged,
    /// A session ended for its client's silence, with locks.
    SessionSilent,
    /// A session ended that its client no longer named.
    SessionIdle,
    /// A read or Commit named a session that has ended.
    SessionEnded,
    /// A Commit came while reads of its attempt were still on their way.
    ReadsOvertaken,

    // Commits that come again.
    /// A one-shard Commit came again after it was applied.
    AgainOneShard,
    /// A Commit came again to its coordinator.
    AgainCoordinated,
    /// A Commit came again after its coordinator's record was made.
    AgainRecorded,
    /// A Commit came again while it was queued or proposed.
    AgainActive,
    /// A Commit came again to a participant with its intent.
    AgainIntent,
    /// A Commit came again after its resolution.
    AgainResolved,
    /// A Commit came that was told no before.
    AgainAfterNo,
    /// A Commit named an earlier term.
    EarlierTerm,
    /// A Commit came that may have been forgotten.
    BelowFloor,
    /// A participant's vote came before the Commit.
    EarlyVote,
    /// A participant's no came before the Commit, or while it was queued.
    EarlyNo,

    // Outcomes.
    /// A new leader locked again what open intents hold.
    IntentAdopted,
    /// A new leader inherited a staged transaction.
    StagedInherited,
    /// A new leader inherited an outcome that not everybody has acknowledged.
    OutcomeInherited,
    /// What was inherited staged was committed.
    InheritedCommitted,
    /// What was inherited staged was aborted.
    InheritedAborted,
    /// An abort was decided for what was never staged.
    AbortedUnstaged,
    /// A participant lost patience and demanded an end.
    AskedOrAborted,
    /// It did so at once, as the coordinator's anchor had become another shard's.
    CoordinatorMoved,
    /// A demand for an end met nothing.
    AskMetNothing,
    /// Whom an abort of what was never staged does not name was told of it when it
    /// voted or asked.
    UnnamedToldAborted,
    /// A demand for an end lay below the forget floor.
    AskBelowFloor,
    /// An intent was aborted because its coordinator never had a record.
    ForgottenAborted,
    /// A demand for an end met a Commit that waited for locks.
    AskMetQueued,
    /// A demand for an end met a Commit that is proposed and not decided.
    AskMetProposed,
    /// A demand for an end met a record.
    AskMetRecord,
    /// A poll was answered yes from an intent.
    PollYes,
    /// A poll was answered yes from a resolution.
    PollYesResolved,
    /// A poll was answered no.
    PollNo,
    /// A poll met an attempt below the forget floor, of which nothing is known.
    PollBelowFloor,
    /// A poll waited for an entry that is proposed.
    PollWaited,
    /// A poll waited for a Commit that is queued.
    PollQueued,
    /// An outcome came again for a resolution that was decided.
    ResolveAgain,
    /// An outcome was recorded after its resolution had been decided.
    RecordedLater,
    /// An abort came for an attempt with nothing here.
    ResolveUnknown,
    /// An abort overtook the participant's own intent.
    AbortOvertook,
    /// An outcome was forgotten.
    Forgotten,
    /// There was too much to remember for a whole window of it.
    ForgottenEarly,

    // Status and reads.
    /// A status query found that the attempt was told no.
    StatusNo,
    /// A status query met a transaction without an outcome.
    StatusPending,
    /// A status query met nothing, and its no is final.
    StatusFinalNo,
    // Changes of members.
    /// A leader proposed a stop-sign.
    StopSignProposed,
    /// A new leader adopted a stop-sign, and took no office in that configuration.
    StopSignAdopted,
    /// A leader's term went on in the next configuration.
    TermWentOn,
    /// A leader's term was to go on in the next configuration, and did not.
    TermLost,
    /// A replica that missed the beginning of a configuration was helped to it.
    EpochHelped,
    /// A member that may not lead told the electors that a configuration began.
    BeganTold,
    /// A replica that missed the beginning of a configuration without leader was sent a snapshot.
    SnapshotHelped,
    /// A replica that is not part of its group any more was emptied.
    ReplicaDestroyed,
    /// A node made a replica because a leader sent it entries.
    ReplicaMade,

    // Splits.
    /// A leader proposed a split.
    SplitProposed,
    /// A split took effect.
    SplitApplied,
    /// A split met something undecided, or another range, and changed nothing.
    SplitVoid,
    /// A split was given up because something stayed undecided.
    SplitBusy,
    /// A leader proposed that keys are stored in another way.
    HashProposed,
    /// Keys are stored in another way.
    HashApplied,
    /// An entry about that met another range, or something undecided.
    HashVoid,
    /// A request was turned away that was mapped in another way.
    OtherSharding,
    /// A replica whose log holds a split goes through it before a snapshot replaces that.
    SplitBeforeSnapshot,
    /// A message came whose anchor had gone to another shard while it waited.
    AnchorMoved,
    /// A shard that was split off began on a node with its data.
    ChildBorn,
    /// A replica got past a split by a snapshot, and its node took the new shard in without data.
    ChildBornWithoutData,
    /// A crash cut a birth short, and the restart made up for it.
    ChildAfterRestart,

    // Merges.
    /// A right shard's leader proposed its end.
    EndProposed,
    /// A shard ended.
    EndApplied,
    /// An end met something undecided, or another range, and changed nothing.
    EndVoid,
    /// A replica took an end for decided because it was absorbed.
    EndBelieved,
    /// A left shard's leader proposed to absorb its neighbour.
    AbsorbProposed,
    /// A shard absorbed its neighbour.
    AbsorbApplied,
    /// An `Absorb` came too late, and changed nothing.
    AbsorbVoid,
    /// A replica had none of the other shard beside it, and waited for a snapshot.
    AbsorbWithoutData,
    /// A left shard's leader proposed to refuse its neighbour's end.
    ReopenProposed,
    /// An end was refused.
    ReopenApplied,
    /// A shard that had ended was to go on.
    ResumeProposed,
    /// A shard that had ended went on.
    ResumeApplied,
    /// A merge was given up because something stayed undecided.
    MergeBusy,
    /// A merge was given up because the right shard's leader did not answer.
    MergeSilent,
    /// A Commit of several shards was turned down since its shard was about to be merged.
    JointRefused,
    /// A read under locks, or its end, met a merge that had its slot, and was turned down.
    ReadMetMerge,
    /// A leader could not take the other shard in, and gave way.
    StoodStill,
    /// A leader ended its term because its shard had absorbed another, or went on after its end.
    TermRenewed,
    /// A leader proposed to let the replicas of what was absorbed go.
    RetireProposed,
    /// A replica of an absorbed shard was let go.
    ReplicaRetired,

    // Versions.
    /// A leader raised its shard's version.
    VersionProposed,

    /// A status query looked for the attempt at its anchor key.
    StatusLookedUp,
    /// A status query found the outcome forgotten.
    StatusExpired,
    /// A lock-free read waited for a decided intent.
    ReadWaitedForIntent,
    /// A lock-free read without a lease asked for a confirming round.
    ReadByRound,
    /// A validation without a lease asked for a confirming round.
    ValidatedByRound,
    /// A read was answered from the overlay.
    ReadFromOverlay,
    /// A scan met a deletion that the engine had not applied.
    ScanHidRow,
    /// A scan locked only what it visited.
    ScanNarrowed,
    /// A request was taken back while it waited.
    WaitingCancelled,
}

impl Mark {
    /// Whether only sweeps of thousands of seeds pass it: a short one may miss it.
    #[must_use]
    pub const fn is_rarest(self) -> bool {
        matches!(
            self,
            Mark::EngineAheadOfLog
                | Mark::ProposalRefused
                | Mark::ReadsOvertaken
                | Mark::SnapshotGivenUp
                | Mark::SnapshotOutrun
                | Mark::SnapshotReopened
                | Mark::SnapshotWhileCampaigning
                | Mark::WoundInherited
                | Mark::SnapshotHelped
                | Mark::StopSignAdopted
                | Mark::BeganTold
                | Mark::SplitVoid
                | Mark::HashVoid
                | Mark::EndVoid
                | Mark::AbsorbVoid
                | Mark::AbsorbWithoutData
                | Mark::MergeSilent
                | Mark::StoodStill
                | Mark::SplitBeforeSnapshot
                | Mark::ChildAfterRestart
        )
    }
}

#[cfg(feature = "marks")]
mod counting {
    use super::Mark;
    use std::cell::RefCell;

    thread_local! {
        static HITS: RefCell<[u64; Mark::ALL.len()]> = const { RefCell::new([0; Mark::ALL.len()]) };
    }

    /// Notes that the path was taken.
    pub fn mark(mark: Mark) {
        HITS.with_borrow_mut(|hits| hits[mark as usize] += 1);
    }

    /// How often each mark was passed on this thread since the last reset.
    #[must_use]
    pub fn hits() -> Vec<(Mark, u64)> {
        HITS.with_borrow(|hits| Mark::ALL.iter().map(|m| (*m, hits[*m as usize])).collect())
    }

    /// Forgets what this thread counted.
    pub fn reset_marks() {
        HITS.with_borrow_mut(|hits| hits.fill(0));
    }
}

#[cfg(not(feature = "marks"))]
mod counting {
    use super::Mark;

    /// Notes that the path was taken.
    #[inline(always)]
    pub fn mark(_: Mark) {}

    /// How often each mark was passed: nothing is counted in this build.
    #[must_use]
    pub fn hits() -> Vec<(Mark, u64)> {
        Vec::new()
    }

    /// Forgets what this thread counted.
    pub fn reset_marks() {}
}

pub use counting::{hits, mark, reset_marks};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_mark_says_what_it_means() {
        for (at, mark) in Mark::ALL.iter().enumerate() {
            assert_eq!(*mark as usize, at);
            assert_eq!(mark.name(), format!("{mark:?}"));
            assert!(mark.what().ends_with('.'), "{}", mark.name());
        }
    }

    #[test]
    #[cfg(feature = "marks")]
    fn marks_are_counted_per_thread() {
        reset_marks();
        mark(Mark::Duel);
        mark(Mark::Duel);
        std::thread::spawn(|| mark(Mark::AcceptGap)).join().unwrap();
        let passed: Vec<(Mark, u64)> = hits().into_iter().filter(|(_, n)| *n > 0).collect();
        assert_eq!(passed, [(Mark::Duel, 2)]);
        reset_marks();
        assert!(hits().iter().all(|(_, n)| *n == 0));
    }

    #[test]
    #[cfg(not(feature = "marks"))]
    fn without_the_feature_nothing_is_counted() {
        mark(Mark::Duel);
        assert!(hits().is_empty());
    }
}
