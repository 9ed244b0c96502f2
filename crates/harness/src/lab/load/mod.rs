//! What the clients of each site do: their workload, at their pace, recorded.

mod bank;
mod lists;
mod pace;
mod script;
mod ycsb;

pub use ycsb::{Ycsb, YcsbMix};

use super::record::{Ended, Record};
use super::report::HistoryResult;
use crate::check::{Anomaly, Findings};
use crate::history::Outcome;
use crate::load::Keys;
use crate::workload::bank::Bank;
use crate::workload::{Run, failed, random};
use bank::BankLoad;
use lists::ListLoad;
use pace::{Pace, Turn};
use rand::rngs::StdRng;
use script::ScriptLoad;
use std::sync::Arc;
use std::time::Duration;
use synod_client::Client;
use tokio::task::JoinSet;
use ycsb::YcsbLoad;

/// Requests a second and site, at most.
pub const MAX_RATE: u32 = 10_000;
/// Bytes of a key of YCSB's.
const KEY_BYTES: usize = 24;

/// What clients do, and how fast.
#[derive(Clone, Debug)]
pub struct Workload {
    /// What they do.
    pub kind: Kind,
    /// Requests that begin each second in each site, whether the cluster keeps up or
    /// not; none = each client begins one when the last has ended.
    pub rate: Option<u32>,
    /// How long a client waits for one.
    pub timeout: Duration,
}

/// What clients do.
#[derive(Clone, Debug)]
pub enum Kind {
    /// Transfers between accounts, and audits; the history is checked.
    Bank {
        /// How many accounts.
        accounts: u32,
        /// Between two audits.
        audit_every: Duration,
    },
    /// Transactions that read lists and append to them; the history is checked.
    ListAppend {
        /// Over how many places lists are spread.
        accounts: u32,
    },
    /// Reads, updates, inserts, scans and read-modify-writes of single records.
    Ycsb(Ycsb),
    /// A script, over and over.
    Script(Script),
}

/// A script that was read.
#[derive(Clone, Debug)]
pub struct Script {
    /// Its file's name.
    pub name: String,
    /// What it says.
    pub script: Arc<synod_client::script::Script>,
}

impl Kind {
    /// Whether it records a history that is checked.
    #[must_use]
    pub fn records(&self) -> bool {
        matches!(self, Kind::Bank { .. } | Kind::ListAppend { .. })
    }

    /// Keys that cut its data into so many shards, or into fewer if it has too few keys.
    #[must_use]
    pub fn splits(&self, shards: usize) -> Vec<String> {
        match self {
            Kind::Bank { accounts, .. } | Kind::ListAppend { accounts } => {
                let shards = u32::try_from(shards).unwrap_or(u32::MAX);
                let mut splits = Bank::splits(*accounts, shards);
                splits.retain(|split| split != "bank/00000");
                splits
            }
            Kind::Ycsb(ycsb) => {
                let mut splits = ycsb_keys(ycsb).splits(shards as u64);
                splits.dedup();
                splits
            }
            Kind::Script(_) => Vec::new(),
        }
    }
}

fn ycsb_keys(ycsb: &Ycsb) -> Keys {
    Keys {
        count: ycsb.records,
        key_bytes: KEY_BYTES,
    }
}

impl Workload {
    /// What it is, in words.
    pub(super) fn words(&self) -> String {
        let kind = match &self.kind {
            Kind::Bank {
                accounts,
                audit_every,
            } => format!("bank of {accounts} accounts, audited every {audit_every:?}"),
            Kind::ListAppend { accounts } => format!("list-append over {accounts} places"),
            Kind::Ycsb(ycsb) => ycsb.words(),
            Kind::Script(script) => format!("script {}", script.name),
        };
        match self.rate {
            Some(rate) => format!("{kind}, {rate} requests a second and site"),
            None => format!("{kind}, as fast as answers come"),
        }
    }
}

/// A workload at work, shared by all clients.
pub(super) enum Load {
    Bank(BankLoad),
    Lists(ListLoad),
    Ycsb(YcsbLoad),
    Script(ScriptLoad),
}

impl Load {
    pub(super) fn new(kind: &Kind, seed: u64) -> Load {
        match kind {
            Kind::Bank {
                accounts,
                audit_every,
            } => Load::Bank(BankLoad::new(*accounts, *audit_every, seed)),
            Kind::ListAppend { accounts } => Load::Lists(ListLoad::new(*accounts, seed)),
            Kind::Ycsb(ycsb) => Load::Ycsb(YcsbLoad::new(ycsb.clone(), ycsb_keys(ycsb))),
            Kind::Script(script) => Load::Script(ScriptLoad::new(script.clone())),
        }
    }

    /// Makes the first data.
    pub(super) async fn fill(&self, client: &Client) -> Result<(), synod_client::Error> {
        match self {
            Load::Bank(bank) => bank.fill(client).await,
            Load::Ycsb(ycsb) => ycsb.fill(client).await,
            Load::Lists(_) | Load::Script(_) => Ok(()),
        }
    }

    /// One request; how it ended.
    async fn request(&self, client: &Client, worker: &mut Worker) -> Outcome {
        match self {
            Load::Bank(bank) => bank.request(client, worker).await,
            Load::Lists(lists) => lists.request(client, worker).await,
            Load::Ycsb(ycsb) => match ycsb.request(client, &mut worker.random).await {
                Ok(()) => Outcome::Committed(None),
                Err(error) => failed(&error),
            },
            Load::Script(script) => script.request(client).await,
        }
    }

    /// Reads everything back and checks the histories; none if it records none.
    pub(super) async fn check(
        &self,
        client: &Client,
        run: &Run,
    ) -> Option<Result<Checked, synod_client::Error>> {
        match self {
            Load::Bank(bank) => Some(bank.check(client).await),
            Load::Lists(lists) => Some(lists.check(client, run).await),
            Load::Ycsb(_) | Load::Script(_) => None,
        }
    }
}

/// What the checkers say.
#[derive(Clone, Debug)]
pub(super) struct Checked {
    pub(super) result: HistoryResult,
    /// Whether something acknowledged is missing.
    pub(super) lost: bool,
}

impl Checked {
    fn of(kind: &str, findings: &Findings, good: &str) -> Checked {
        let words = if findings.is_clean() {
            good.to_owned()
        } else {
            findings.to_string()
        };
        Checked {
            result: HistoryResult {
                kind: kind.to_owned(),
                operations: findings.checked as u64,
                ok: findings.is_clean(),
                words,
            },
            lost: findings.has(Anomaly::Lost),
        }
    }
}

/// One client.
struct Worker {
    /// Its number, unique in the run.
    number: u32,
    random: StdRng,
    run: Run,
    /// Requests it has begun.
    sequence: u64,
}

/// The clients of one site.
pub(super) struct SiteClients {
    pub(super) client: Client,
    pub(super) count: usize,
    pub(super) record: Arc<Record>,
}

/// All clients, running.
pub(super) struct Clients {
    tasks: JoinSet<()>,
}

/// Lets all clients loose until the run stops. Must be called inside a tokio runtime.
pub(super) fn start(
    load: &Arc<Load>,
    run: &Run,
    workload: &Workload,
    sites: &[SiteClients],
    seed: u64,
) -> Clients {
    let mut tasks = JoinSet::new();
    let mut number = 0;
    for site in sites {
        let pace = Arc::new(Pace::new(workload.rate, workload.timeout, run.clone()));
        for _ in 0..site.count {
            number += 1;
            let worker = Worker {
                number,
                random: random(seed, number),
                run: run.clone(),
                sequence: 0,
            };
            let client = site.client.with_timeout(workload.timeout);
            let (load, pace, record) = (load.clone(), pace.clone(), site.record.clone());
            tasks.spawn(work(load, pace, record, client, worker));
        }
    }
    // Whoever audits the bank is nobody's client, and asks from the first site.
    if let (Load::Bank(_), Some(site)) = (&**load, sites.iter().find(|site| site.count > 0)) {
        let (load, run) = (load.clone(), run.clone());
        let client = site.client.with_timeout(workload.timeout);
        tasks.spawn(async move {
            if let Load::Bank(bank) = &*load {
                bank.audit(client, run, 0).await;
            }
        });
    }
    Clients { tasks }
}

async fn work(
    load: Arc<Load>,
    pace: Arc<Pace>,
    record: Arc<Record>,
    client: Client,
    mut worker: Worker,
) {
    while let Some(turn) = pace.next().await {
        let (Turn::Begin(from) | Turn::Late(from)) = turn;
        record.begins(from);
        let outcome = match turn {
            Turn::Begin(_) => {
                worker.sequence += 1;
                load.request(&client, &mut worker).await
            }
            Turn::Late(_) => Outcome::Aborted,
        };
        record.ends(Ended {
            from,
            until: worker.run.now(),
            outcome,
        });
        if matches!(turn, Turn::Begin(_)) && !matches!(outcome, Outcome::Committed(_)) {
            crate::workload::back_off(&mut worker.random).await;
        }
    }
}

impl Clients {
    /// Waits for what is under way; false if a client ended badly.
    pub(super) async fn join(mut self) -> bool {
        let mut good = true;
        while let Some(ended) = self.tasks.join_next().await {
            good &= ended.is_ok();
        }
        good
    }
}

/// Requests that were due in each site until the end of the load.
pub(super) fn due(rate: Option<u32>, length: Duration) -> Option<u64> {
    rate.map(|rate| Pace::due(rate, length))
}
