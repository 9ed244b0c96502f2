//! `synod demo`: a cluster of real processes on this machine, money moving
//! through it, a node killed half-way, and the proof that nothing was lost.

mod progress;
mod report;

use crate::exit::{Failure, Status};
use crate::signals::Signals;
use progress::Progress;
use report::Report;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::{Duration, Instant};
use synod_client::Client;
use synod_harness::check::{self, Findings};
use synod_harness::cluster::{Cluster, Options, ask};
use synod_harness::history::{BankOp, History, ListOp, Nanos, Outcome, RegisterOp};
use synod_harness::workload::bank::Bank;
use synod_harness::workload::list_append::Lists;
use synod_harness::workload::probe::{Probe, Written};
use synod_harness::workload::{Gap, Meter, Run};
use tokio::task::JoinHandle;

/// Accounts per shard.
const ACCOUNTS_PER_SHARD: u32 = 32;
/// What each account begins with.
const INITIAL: i64 = 1000;
/// Clients of the list-append workload.
const LIST_CLIENTS: u32 = 3;
/// Between two audits of all balances.
const AUDIT_PAUSE: Duration = Duration::from_millis(500);
/// Between two lines of progress.
const REPORT_EVERY: Duration = Duration::from_secs(1);
/// How long one node may take to say what it leads.
const STATUS_LIMIT: Duration = Duration::from_secs(2);

/// `synod demo …`
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  synod demo
  synod demo --dcs 3 --nodes-per-dc 2 --shards 12 --rtt 30ms --duration 30s --json

Everything runs on loopback, in a temporary directory that is removed at the end (see --keep), and when SIGINT or SIGTERM ends it early:
certificates, nodes, bank transfers across shards, list-append transactions, and probes that
write to every shard. Half-way the node that leads most shards is killed with kill -9, and started
again at three quarters. At the end it is checked that no money was made or lost, that every
acknowledged transfer is there exactly once, and that the histories are strictly serializable.
The exit status is not 0 if anything is wrong.

--rtt is a delay inside the nodes' transport between nodes of different data centres; clients are
not delayed.")]
pub struct Args {
    /// Data centres
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=9))]
    dcs: u16,
    /// Nodes in each data centre
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=9))]
    nodes_per_dc: u16,
    /// Shards for the bank
    #[arg(long, default_value_t = 6, value_parser = clap::value_parser!(u32).range(1..=200))]
    shards: u32,
    /// How long to transfer, for instance 20s or 2m
    #[arg(long, default_value = "20s", value_parser = crate::duration::parse)]
    duration: Duration,
    /// In-process delay between data centres, round trip, for instance 30ms
    #[arg(long, default_value = "0ms", value_parser = crate::duration::parse)]
    rtt: Duration,
    /// Clients that transfer
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=1000))]
    clients: u32,
    /// Leave the cluster running at the end, and say how to connect
    #[arg(long)]
    keep: bool,
    /// Directory for the cluster instead of a temporary one
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Print only one JSON object, at the end
    #[arg(long)]
    json: bool,
    /// Do not kill a node
    #[arg(long)]
    no_kill: bool,
}

/// Runs the demo.
pub fn run(args: Args) -> Result<Status, Failure> {
    let began = Instant::now();
    let progress = Progress::new(args.json);
    let nodes = usize::from(args.dcs) * usize::from(args.nodes_per_dc);
    progress.say(&format!(
        "starting {nodes} nodes in {} data centres, {} shards",
        args.dcs, args.shards
    ));
    let program = std::env::current_exe()
        .map_err(|e| Failure::cluster(format!("cannot find this program: {e}")))?;
    let mut options = Options::new(program);
    options.dcs = usize::from(args.dcs);
    options.nodes_per_dc = usize::from(args.nodes_per_dc);
    options.rtt = args.rtt;
    options.dir.clone_from(&args.dir);
    options.replicas = if nodes >= 3 { 3 } else { 1 };
    options.splits = Bank::splits(args.shards * ACCOUNTS_PER_SHARD, args.shards);
    let (cluster, report) = crate::block_on(async {
        let mut signals = Signals::listen()?;
        let mut cluster = signals.start(options).await?;
        progress.say(&format!(
            "ready after {:.1} s; every shard has a leader",
            began.elapsed().as_secs_f64()
        ));
        let driven = drive(&args, &mut cluster, &progress, began);
        let report = signals.unless(driven).await?;
        Ok((cluster, report))
    })?;
    progress.finish();
    if args.json {
        println!("{}", report.json());
    } else {
        print!("{}", report.text());
    }
    let good = report.is_good();
    if args.keep {
        let endpoints: Vec<String> = cluster
            .endpoints()
            .iter()
            .map(ToString::to_string)
            .collect();
        let certs = cluster.certs();
        let dir = cluster.leave();
        progress.say(&format!(
            "the cluster still runs in {}; for instance\n  synod status --endpoint {} --certs {}",
            dir.display(),
            endpoints.join(" --endpoint "),
            certs.display()
        ));
    }
    if good {
        Ok(Status::Done)
    } else {
        Err(Failure::failed("the demo found something wrong; see above"))
    }
}

/// All clients of the demo, running.
struct Clients {
    transfers: Vec<JoinHandle<History<BankOp>>>,
    lists: Vec<JoinHandle<History<ListOp>>>,
    writers: Vec<JoinHandle<Written>>,
    readers: Vec<JoinHandle<History<RegisterOp>>>,
}

/// The workloads and what they share.
struct Load {
    run: Run,
    bank: Bank,
    lists: Lists,
    probes: Vec<Probe>,
    transfers: Meter,
    list_meter: Meter,
}

impl Load {
    fn new(args: &Args) -> Load {
        let accounts = args.shards * ACCOUNTS_PER_SHARD;
        let seed = u64::from(std::process::id());
        let probe = |shard: u32| Probe {
            key: format!("bank/{:05}/probe", shard * ACCOUNTS_PER_SHARD),
        };
        Load {
            run: Run::default(),
            bank: Bank {
                accounts,
                initial: INITIAL,
                seed,
            },
            lists: Lists::new(accounts, seed),
            probes: (0..args.shards).map(probe).collect(),
            transfers: Meter::default(),
            list_meter: Meter::default(),
        }
    }

    /// Lets all clients loose on the current `LocalSet`.
    fn start(self: &Rc<Load>, client: &Client, transfer_clients: u32) -> Clients {
        let mut clients = Clients {
            transfers: Vec::new(),
            lists: Vec::new(),
            writers: Vec::new(),
            readers: Vec::new(),
        };
        for number in 0..transfer_clients {
            let (load, client) = (Rc::clone(self), client.clone());
            clients.transfers.push(tokio::task::spawn_local(async move {
                let run = load.run.clone();
                load.bank
                    .transfer(client, run, &load.transfers, number)
                    .await
            }));
        }
        let (load, own) = (Rc::clone(self), client.clone());
        clients.transfers.push(tokio::task::spawn_local(async move {
            let run = load.run.clone();
            load.bank
                .audit(own, run, AUDIT_PAUSE, transfer_clients)
                .await
        }));
        for number in 0..LIST_CLIENTS {
            let (load, client) = (Rc::clone(self), client.clone());
            clients.lists.push(tokio::task::spawn_local(async move {
                let run = load.run.clone();
                load.lists
                    .client(client, run, &load.list_meter, number)
                    .await
            }));
        }
        for index in 0..self.probes.len() {
            let (load, own) = (Rc::clone(self), client.clone());
            clients.writers.push(tokio::task::spawn_local(async move {
                load.probes[index].write(own, load.run.clone()).await
            }));
            let (load, own) = (Rc::clone(self), client.clone());
            clients.readers.push(tokio::task::spawn_local(async move {
                load.probes[index].read(own, load.run.clone()).await
            }));
        }
        clients
    }
}

/// What happened to the node that was killed.
struct Kill {
    node: String,
    at: Nanos,
}

async fn drive(
    args: &Args,
    cluster: &mut Cluster,
    progress: &Progress,
    began: Instant,
) -> Result<Report, Failure> {
    let client = Client::connect(cluster.client_config())
        .await
        .map_err(Failure::cluster)?;
    let load = Rc::new(Load::new(args));
    load.bank
        .open(&client)
        .await
        .map_err(|e| Failure::cluster(format!("cannot open the accounts: {e}")))?;
    let start_offset = began.elapsed();
    let started = Instant::now();
    let start_now = load.run.now();
    let clients = load.start(&client, args.clients);
    let kill = steer(args, cluster, progress, &load).await?;
    let transferring = started.elapsed();
    load.run.stop();
    let stopped = load.run.now();
    progress.say("stopping the clients and reading everything back");
    let mut outcome = Report::new(args, &load, transferring);
    let first = load.transfers.snapshot().first_commit;
    outcome.first_transfer =
        first.map(|at| start_offset + Duration::from_nanos(at.saturating_sub(start_now)));
    let since = kill.as_ref().map_or(0, |kill| kill.at);
    outcome.killed = kill.map(|kill| kill.node);
    collect(&client, &load, clients, since, stopped, &mut outcome).await?;
    Ok(outcome)
}

/// Reports once a second, kills half-way, restarts at three quarters.
async fn steer(
    args: &Args,
    cluster: &mut Cluster,
    progress: &Progress,
    load: &Load,
) -> Result<Option<Kill>, Failure> {
    let begin = Instant::now();
    let kill_at = args.duration / 2;
    let restart_at = args.duration * 3 / 4;
    let mut kill: Option<Kill> = None;
    let mut restarted = false;
    let mut last = load.transfers.snapshot();
    let mut tick = tokio::time::interval(REPORT_EVERY.min(args.duration / 4));
    tick.tick().await;
    let mut last_at = Instant::now();
    while begin.elapsed() < args.duration {
        tick.tick().await;
        let now = load.transfers.snapshot();
        let rate = (now.committed - last.committed) as f64 / last_at.elapsed().as_secs_f64();
        last_at = Instant::now();
        last = now;
        progress.report(
            begin.elapsed(),
            &now,
            rate,
            load.transfers.latency_micros(0.99),
        );
        if !args.no_kill && kill.is_none() && begin.elapsed() >= kill_at {
            kill = kill_busiest(cluster, progress, load).await?;
        }
        if let Some(kill) = &kill
            && !restarted
            && begin.elapsed() >= restart_at
        {
            restarted = true;
            if let Some(index) = cluster.index_of(&kill.node) {
                cluster.start_node(index).map_err(Failure::cluster)?;
                progress.say(&format!("started {} again", kill.node));
            }
        }
    }
    Ok(kill)
}

async fn kill_busiest(
    cluster: &mut Cluster,
    progress: &Progress,
    load: &Load,
) -> Result<Option<Kill>, Failure> {
    let pool = cluster.pool().map_err(Failure::cluster)?;
    let busiest = ask::busiest_leader(&pool, &cluster.endpoints(), STATUS_LIMIT).await;
    let Some((_, node, led)) = busiest else {
        return Err(Failure::cluster("no node says what it leads"));
    };
    let index = cluster.index_of(&node).ok_or_else(|| {
        Failure::cluster(format!("a node calls itself {node}; nobody started it"))
    })?;
    cluster.node_mut(index).kill();
    progress.say(&format!("kill -9 of {node}, which leads {led} shards"));
    Ok(Some(Kill {
        node,
        at: load.run.now(),
    }))
}

/// The longest time for which no transfer at all was acknowledged.
fn transfer_gap(bank: &History<BankOp>, since: Nanos, stopped: Nanos) -> Duration {
    let transfers = bank.transactions.iter().filter(|t| {
        let is_transfer = matches!(t.ops.first(), Some(BankOp::Transfer { .. }));
        is_transfer && matches!(t.outcome, Outcome::Committed(_)) && t.completed <= stopped
    });
    let mut acks: Vec<Nanos> = transfers.map(|t| t.completed).collect();
    acks.sort_unstable();
    Gap::longest(&acks, since, stopped).length
}

/// Waits for all clients and checks everything they saw.
async fn collect(
    client: &Client,
    load: &Load,
    clients: Clients,
    since: Nanos,
    stopped: Nanos,
    report: &mut Report,
) -> Result<(), Failure> {
    let lost = |e: tokio::task::JoinError| Failure::failed(format!("a client ended badly: {e}"));
    let unreadable =
        |e: synod_client::Error| Failure::failed(format!("cannot read the result back: {e}"));
    let mut bank = History::default();
    for task in clients.transfers {
        bank.transactions
            .extend(task.await.map_err(lost)?.transactions);
    }
    report.transfer_gap = transfer_gap(&bank, since, stopped);
    let mut lists = History::default();
    for task in clients.lists {
        lists
            .transactions
            .extend(task.await.map_err(lost)?.transactions);
    }
    let mut findings = Findings::default();
    let pairs = clients.writers.into_iter().zip(clients.readers);
    for (probe, (writer, reader)) in load.probes.iter().zip(pairs) {
        let written = writer.await.map_err(lost)?;
        let gap = written.longest_gap(since, stopped);
        report.write_gap = report.write_gap.max(gap.length);
        let mut history = written.history;
        history
            .transactions
            .extend(reader.await.map_err(lost)?.transactions);
        let read = probe.read_into(client, &load.run, &mut history).await;
        read.map_err(unreadable)?;
        findings.merge(check::register::check(&history));
    }
    report.probe_operations = findings.checked;
    let rest = load.lists.read_all(client, &load.run, LIST_CLIENTS).await;
    lists
        .transactions
        .extend(rest.map_err(unreadable)?.transactions);
    report.list_transactions = lists.transactions.len();
    findings.merge(check::list_append::check(&lists));
    let last = load.bank.final_state(client).await.map_err(unreadable)?;
    let initial = load.bank.initial_balances();
    report.total = (initial.iter().sum(), last.balances.iter().sum());
    report.bank_transactions = bank.transactions.len();
    findings.merge(check::bank::check(&bank, &initial, &last));
    report.findings = findings;
    Ok(())
}
