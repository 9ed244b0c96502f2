//! What clients did and were told, and what the checkers say to it.

use super::config::Workload;
use super::{SimClient, work};
use crate::check::timestamp_order::Untimed;
use crate::check::{Findings, bank, list_append, once, registers, ring, sessions, timestamp_order};
use crate::history::{BankOp, History, ListOp, Nanos, Outcome, RingOp, RwOp, Transaction};
use std::collections::BTreeMap;
use std::fmt;

/// What every account holds at first.
pub(super) const BALANCE: i64 = 100;

/// An increment of a counter.
#[derive(Clone, Copy, Debug)]
pub(in crate::sim) struct Increment {
    /// Its marker.
    pub(in crate::sim) id: u64,
    /// The counter.
    pub(in crate::sim) counter: u32,
    /// When its outcome was known.
    pub(in crate::sim) completed: Nanos,
    /// How it ended.
    pub(in crate::sim) outcome: Outcome,
    /// An attempt found the marker already there.
    pub(in crate::sim) twice: bool,
}

/// A client's own markers, as it read them at the end.
#[derive(Clone, Debug)]
pub(in crate::sim) struct Own {
    pub(super) client: u32,
    pub(super) invoked: Nanos,
    pub(super) increments: Vec<u64>,
    pub(super) transfers: Vec<u64>,
}

/// Everything, as of one moment at the end.
#[derive(Clone, Debug)]
pub(in crate::sim) struct Everything {
    pub(super) invoked: Nanos,
    /// Whether the accounts had been opened.
    pub(super) loaded: bool,
    pub(super) counters: Vec<u64>,
    pub(super) balances: Vec<i64>,
    pub(super) transfers: Vec<u64>,
    /// Ids and counters.
    pub(super) increments: Vec<(u64, u64)>,
}

/// Counts of one client, or of all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::sim) struct Tally {
    /// Transactions and lock-free reads that ended well.
    pub(in crate::sim) commits: u64,
    /// Those that ended without effect.
    pub(in crate::sim) aborted: u64,
    /// Those whose outcome was never told.
    pub(in crate::sim) unknown: u64,
    /// Attempts, of all of them.
    pub(in crate::sim) attempts: u64,
    /// Attempts of one transaction, at most.
    pub(in crate::sim) most_attempts: u32,
    /// How often one transaction was wounded, at most.
    pub(in crate::sim) most_wounds: u32,
    /// Final reads that never succeeded.
    pub(in crate::sim) unread: u64,
    /// Those that a node refused as against a rule.
    pub(in crate::sim) refused: u64,
}

impl Tally {
    pub(super) fn ended(&mut self, outcome: Outcome, attempts: u32, wounds: u32) {
        match outcome {
            Outcome::Committed(_) => self.commits += 1,
            Outcome::Aborted => self.aborted += 1,
            Outcome::Unknown => self.unknown += 1,
        }
        self.attempts += u64::from(attempts);
        self.most_attempts = self.most_attempts.max(attempts);
        self.most_wounds = self.most_wounds.max(wounds);
    }

    fn add(&mut self, other: &Tally) {
        self.commits += other.commits;
        self.aborted += other.aborted;
        self.unknown += other.unknown;
        self.attempts += other.attempts;
        self.most_attempts = self.most_attempts.max(other.most_attempts);
        self.most_wounds = self.most_wounds.max(other.most_wounds);
        self.unread += other.unread;
        self.refused += other.refused;
    }
}

/// The histories of one client, or of all.
#[derive(Clone, Debug, Default)]
pub(in crate::sim) struct Histories {
    /// Lists.
    pub(in crate::sim) lists: Vec<Transaction<ListOp>>,
    /// Registers; number 0 is the hot one.
    pub(in crate::sim) registers: Vec<Transaction<RwOp>>,
    /// Accounts.
    pub(in crate::sim) bank: Vec<Transaction<BankOp>>,
    /// The ring.
    pub(in crate::sim) ring: Vec<Transaction<RingOp>>,
    /// Counters.
    pub(in crate::sim) increments: Vec<Increment>,
    /// Own markers at the end.
    pub(in crate::sim) own: Vec<Own>,
    /// Everything at the end.
    pub(in crate::sim) everything: Vec<Everything>,
    /// Links that led nowhere.
    pub(in crate::sim) broken_links: u64,
    /// Counts.
    pub(in crate::sim) tally: Tally,
}

impl Histories {
    /// Takes over everything of another.
    fn append(&mut self, other: &mut Histories) {
        self.lists.append(&mut other.lists);
        self.registers.append(&mut other.registers);
        self.bank.append(&mut other.bank);
        self.ring.append(&mut other.ring);
        self.increments.append(&mut other.increments);
        self.own.append(&mut other.own);
        self.everything.append(&mut other.everything);
        self.broken_links += other.broken_links;
        self.tally.add(&other.tally);
    }
}

impl Histories {
    /// Leaves out what only reads.
    fn drop_reads(&mut self) {
        let writes = |op: &ListOp| matches!(op, ListOp::Append { .. });
        self.lists
            .retain(|t| t.ops.is_empty() || t.ops.iter().any(writes));
        let writes = |op: &RwOp| matches!(op, RwOp::Write { .. });
        self.registers
            .retain(|t| t.ops.is_empty() || t.ops.iter().any(writes));
        let writes = |op: &BankOp| !matches!(op, BankOp::ReadAll { .. });
        self.bank
            .retain(|t| t.ops.is_empty() || t.ops.iter().any(writes));
        let writes = |op: &RingOp| !matches!(op, RingOp::ReadAll { .. });
        self.ring
            .retain(|t| t.ops.is_empty() || t.ops.iter().any(writes));
    }
}

/// Something that must not be.
#[derive(Clone, Debug)]
pub(in crate::sim) struct Finding {
    /// The workload or check.
    pub(in crate::sim) check: &'static str,
    /// A promise to every user is broken; otherwise nothing is wrong but too slow.
    pub(in crate::sim) safety: bool,
    /// What it is.
    pub(in crate::sim) text: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.check, self.text)
    }
}

/// Ends what still runs without an answer, and collects all histories.
pub(in crate::sim) fn collect(t: Nanos, clients: &mut [SimClient]) -> Histories {
    let mut all = Histories::default();
    for client in clients {
        client.close(t);
        all.append(&mut client.histories);
    }
    all
}

/// Checks everything the clients did. They end here, at true time `t`. Without
/// `lease_reads`, what only reads is not looked at.
pub(in crate::sim) fn finish(
    t: Nanos,
    clients: &mut [SimClient],
    lease_reads: bool,
) -> (Vec<Finding>, Histories) {
    let Some(workload) = clients.first().map(|c| c.workload.clone()) else {
        return (Vec::new(), Histories::default());
    };
    let mut all = collect(t, clients);
    if !lease_reads {
        all.drop_reads();
    }
    let mut findings = Vec::new();
    check_lists(&mut all, &mut findings);
    check_registers(&mut all, &mut findings);
    check_ring(&mut all, &workload, &mut findings);
    check_bank(&all, &workload, &mut findings);
    check_once(&all, &mut findings);
    check_liveness(&all.tally, &workload, &mut findings);
    (findings, all)
}

fn found(check: &'static str, found: &Findings, findings: &mut Vec<Finding>) {
    for violation in &found.violations {
        findings.push(Finding {
            check,
            safety: true,
            text: violation.to_string(),
        });
    }
}

/// Hands the transactions to a checker as a history, and takes them back.
fn with_history<Op>(transactions: &mut Vec<Transaction<Op>>, check: impl FnOnce(&History<Op>)) {
    let history = History {
        transactions: std::mem::take(transactions),
    };
    check(&history);
    *transactions = history.transactions;
}

fn check_lists(all: &mut Histories, findings: &mut Vec<Finding>) {
    with_history(&mut all.lists, |history| {
        found("lists", &list_append::check(history), findings);
        let sessions = sessions::check_lists(history);
        found("sessions of lists", &sessions, findings);
        // Reads under locks of several shards are of one moment in real time, not in timestamps.
        let order = timestamp_order::check_lists(history, Untimed::AnyMoment);
        found("timestamps of lists", &order, findings);
    });
}

fn check_registers(all: &mut Histories, findings: &mut Vec<Finding>) {
    with_history(&mut all.registers, |history| {
        found("registers", &registers::check(history), findings);
        let sessions = sessions::check_registers(history);
        found("sessions of registers", &sessions, findings);
        let order = timestamp_order::check_registers(history, Untimed::AnyMoment);
        found("timestamps of registers", &order, findings);
    });
}

fn check_ring(all: &mut Histories, workload: &Workload, findings: &mut Vec<Finding>) {
    let links = workload.keys.links.len() as u64;
    with_history(&mut all.ring, |history| {
        found("ring", &ring::check(history, links), findings);
    });
    if all.broken_links > 0 {
        findings.push(Finding {
            check: "ring",
            safety: true,
            text: format!("{} links led to no key", all.broken_links),
        });
    }
}

/// What a read that began at `invoked` may count on: who committed later may
/// or may not be seen.
fn as_of(outcome: Outcome, completed: Nanos, invoked: Nanos) -> Outcome {
    match outcome {
        Outcome::Committed(_) if completed > invoked => Outcome::Unknown,
        other => other,
    }
}

fn check_bank(all: &Histories, workload: &Workload, findings: &mut Vec<Finding>) {
    let initial = vec![BALANCE; workload.keys.accounts.len()];
    let reads = |t: &&Transaction<BankOp>| matches!(t.ops[..], [BankOp::ReadAll { .. }]);
    let read_all = History {
        transactions: all.bank.iter().filter(reads).cloned().collect(),
    };
    let untouched = bank::FinalState {
        balances: initial.clone(),
        markers: Vec::new(),
    };
    found(
        "bank",
        &bank::check(&read_all, &initial, &untouched),
        findings,
    );
    for last in all.everything.iter().filter(|last| last.loaded) {
        let transfers = all.bank.iter().filter(|t| !reads(t)).cloned();
        let transactions = transfers.map(|mut transfer| {
            transfer.outcome = as_of(transfer.outcome, transfer.completed, last.invoked);
            transfer
        });
        let history = History {
            transactions: transactions.collect(),
        };
        let state = bank::FinalState {
            balances: last.balances.clone(),
            markers: last.transfers.clone(),
        };
        found("bank", &bank::check(&history, &initial, &state), findings);
    }
    check_own_transfers(all, findings);
}

fn check_own_transfers(all: &Histories, findings: &mut Vec<Finding>) {
    for own in &all.own {
        let mut outcomes = BTreeMap::new();
        for transaction in &all.bank {
            for op in &transaction.ops {
                if let BankOp::Transfer { id, .. } = op
                    && work::owner(*id) == own.client
                {
                    let at = (transaction.outcome, transaction.completed);
                    outcomes.insert(*id, as_of(at.0, at.1, own.invoked));
                }
            }
        }
        let check = once::check("transfer", &outcomes, &own.transfers);
        found("own transfers", &check, findings);
    }
}

fn check_once(all: &Histories, findings: &mut Vec<Finding>) {
    for twice in all.increments.iter().filter(|i| i.twice) {
        findings.push(Finding {
            check: "exactly once",
            safety: true,
            text: format!(
                "a new attempt of increment {} found the marker of an earlier one that was \
                 reported as aborted",
                twice.id
            ),
        });
    }
    let outcomes = |invoked: Nanos, client: Option<u32>| -> BTreeMap<u64, Outcome> {
        let counts = |i: &&Increment| client.is_none_or(|c| work::owner(i.id) == c);
        let counted = all.increments.iter().filter(counts);
        counted
            .map(|i| (i.id, as_of(i.outcome, i.completed, invoked)))
            .collect()
    };
    for own in &all.own {
        let expected = outcomes(own.invoked, Some(own.client));
        let check = once::check("increment", &expected, &own.increments);
        found("own increments", &check, findings);
    }
    for last in &all.everything {
        let ids: Vec<u64> = last.increments.iter().map(|(id, _)| *id).collect();
        let expected = outcomes(last.invoked, None);
        let check = once::check("increment", &expected, &ids);
        found("exactly once", &check, findings);
        check_counters(all, last, findings);
    }
}

/// Each counter holds as much as there are markers that name it, and markers
/// name the counter they stand for.
fn check_counters(all: &Histories, last: &Everything, findings: &mut Vec<Finding>) {
    let meant: BTreeMap<u64, u32> = all.increments.iter().map(|i| (i.id, i.counter)).collect();
    for (id, counter) in &last.increments {
        if let Some(meant) = meant.get(id).filter(|meant| u64::from(**meant) != *counter) {
            findings.push(Finding {
                check: "exactly once",
                safety: true,
                text: format!("the marker of increment {id} names counter {counter}, not {meant}"),
            });
        }
    }
    for (counter, value) in last.counters.iter().enumerate() {
        let named = last.increments.iter();
        let markers = named.filter(|(_, c)| *c == counter as u64).count() as u64;
        if markers != *value {
            findings.push(Finding {
                check: "exactly once",
                safety: true,
                text: format!("counter {counter} holds {value}, but {markers} markers name it"),
            });
        }
    }
}

fn check_liveness(tally: &Tally, workload: &Workload, findings: &mut Vec<Finding>) {
    let most = workload.config.most_wounds;
    if tally.most_wounds > most {
        findings.push(Finding {
            check: "wound-wait",
            safety: false,
            text: format!(
                "a transaction was wounded {} times, more than {most}: it does not grow old enough \
                 to win",
                tally.most_wounds
            ),
        });
    }
    if tally.unread > 0 {
        findings.push(Finding {
            check: "final reads",
            safety: false,
            text: format!(
                "{} clients could not read what is there after the faults had stopped",
                tally.unread
            ),
        });
    }
}
