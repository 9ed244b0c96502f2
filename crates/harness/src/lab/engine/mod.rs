//! One run: start, load, break, heal, look, judge.

mod timeline;
mod told;

use super::LabError;
use super::cluster::{Cluster, CommandState};
use super::load::{self, Checked, Clients, Load, SiteClients};
use super::record::{Record, Seen};
use super::report::{FaultMark, Report};
use super::scenario::Scenario;
use super::verdict::{self, After, Judged};
use crate::history::Nanos;
use crate::sim::Wrong;
use crate::workload::Run;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use synod_client::Client;
use timeline::Timeline;

/// Between two looks at the plan and at the nodes.
const TICK: Duration = Duration::from_millis(20);
/// Between two lines of progress.
const SECOND: Duration = Duration::from_secs(1);
/// How long a cluster may take to come to rest before the load.
const BEFORE: Duration = Duration::from_secs(60);
/// How long it may take after the load, if the scenario expects nothing of it.
const AFTER: Duration = Duration::from_secs(60);
/// How long commands may go on after the load.
const COMMANDS: Duration = Duration::from_secs(120);
/// How much longer than one request clients may take to end.
const CLIENTS: Duration = Duration::from_secs(10);

/// How a scenario is run.
#[derive(Clone, Debug)]
pub struct Options {
    /// The `synod` program.
    pub program: PathBuf,
    /// The program's version, for the report.
    pub version: String,
    /// A seed instead of the scenario's.
    pub seed: Option<u64>,
    /// Leave the files of the cluster.
    pub keep: bool,
}

/// How far a run is.
#[derive(Debug)]
pub enum Progress<'a> {
    /// Nodes are being started.
    Starting,
    /// The cluster serves; the load begins.
    Ready(Duration),
    /// A fault has begun.
    Begun(&'a FaultMark),
    /// A fault has ended.
    Ended(&'a FaultMark),
    /// So far into the load, counts of each site: ok, failed, unknown.
    Running(Duration, Vec<(&'a str, [u64; 3])>),
    /// The load is over; the cluster comes to rest, and is read back.
    Checking,
}

/// What came of it.
#[derive(Debug)]
pub struct Outcome {
    /// Everything that is told of it.
    pub report: Report,
    /// What is wrong; of several, what weighs most.
    pub wrong: Option<Wrong>,
    /// Where the files are, if they were to be left.
    pub kept: Option<PathBuf>,
}

/// Runs a scenario. Must be called inside a tokio runtime.
///
/// # Errors
/// [`LabError`]: the lab itself failed. Nothing is left running.
pub async fn run(
    scenario: &Scenario,
    options: &Options,
    tell: &mut (dyn FnMut(Progress<'_>) + Send),
) -> Result<Outcome, LabError> {
    let begun = Instant::now();
    tell(Progress::Starting);
    let seed = options.seed.unwrap_or(scenario.seed);
    let mut cluster = start(scenario, options, seed).await?;
    let outside = cluster.outside_config();
    let outside = Client::connect(outside)
        .await
        .map_err(client("connecting"))?;
    let load = Arc::new(Load::new(&scenario.workload.kind, seed));
    load.fill(&outside)
        .await
        .map_err(client("writing the clients' first data"))?;
    let sites = connect(scenario, &cluster).await?;
    tell(Progress::Ready(begun.elapsed()));

    let began = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let run = Run::default();
    let clients = load::start(&load, &run, &scenario.workload, &sites, seed);
    let mut timeline = Timeline::new(scenario, seed);
    timeline
        .go(scenario, &mut cluster, &run, &sites, tell)
        .await?;
    run.stop();
    let ran = scenario.length;

    tell(Progress::Checking);
    cluster.heal().await?;
    let after = finish(scenario, &mut cluster, clients, &load, &run, &outside).await?;
    let seen = seen(scenario, &sites);
    let mut judged = judge(scenario, &after, &seen, &timeline.times(scenario.length));
    judged.extend(verdict::of_plan(&timeline.in_vain));
    let weight = |wrong: Wrong| wrong.exit_code();
    let wrong = judged.iter().filter(|j| !j.verdict.held).map(|j| j.wrong);
    let wrong = wrong.min_by_key(|wrong| weight(*wrong));
    let mut report = Report {
        scenario: scenario.name.clone(),
        about: scenario.about.clone(),
        seed,
        began_unix_millis: millis(began),
        run_millis: millis(ran),
        version: options.version.clone(),
        shards: scenario.shards,
        replicas: scenario.replicas,
        workload: scenario.workload.words(),
        sites: told::sites(scenario, &seen),
        links: told::links(scenario),
        faults: timeline.marks,
        verdicts: judged.into_iter().map(|judged| judged.verdict).collect(),
        history: after
            .history
            .and_then(Result::ok)
            .map(|checked| checked.result),
        notes: told::notes(scenario, &seen),
    };
    let kept = options.keep.then(|| cluster.keep_files());
    if let Some(directory) = &kept {
        report
            .notes
            .push(format!("logs and data are in {}", directory.display()));
    }
    Ok(Outcome {
        report,
        wrong,
        kept,
    })
}

fn client(what: &'static str) -> impl Fn(synod_client::Error) -> LabError {
    move |source| LabError::Client { what, source }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

async fn start(scenario: &Scenario, options: &Options, seed: u64) -> Result<Cluster, LabError> {
    let shim = scenario
        .faults
        .iter()
        .any(|fault| fault.action.needs_shim());
    let builder = Cluster::builder(&options.program)
        .topology(scenario.topology.clone())
        .splits(scenario.splits.clone())
        .replicas(scenario.replicas)
        .settings(&scenario.settings.sections)
        .node_lines(&scenario.settings.node)
        .faults_of_disks_and_clocks(shim)
        .seed(seed);
    let mut cluster = builder.start().await?;
    cluster.settled(BEFORE).await?;
    Ok(cluster)
}

/// The clients of each site, connected.
async fn connect(scenario: &Scenario, cluster: &Cluster) -> Result<Vec<SiteClients>, LabError> {
    let mut sites = Vec::new();
    for dc in &scenario.topology.dcs {
        let config = cluster.client_config(&dc.name)?;
        let connected = Client::connect(config)
            .await
            .map_err(client("connecting a site's clients"))?;
        // A key of each shard: clients that have been there for a while know who leads it.
        connected
            .read_only(async |txn| txn.get_many(&scenario.splits).await)
            .await
            .map_err(client("reading as a site's clients"))?;
        sites.push(SiteClients {
            client: connected,
            count: dc.clients,
            record: Arc::new(Record::new(scenario.length, scenario.bucket)),
        });
    }
    Ok(sites)
}

/// Waits for the clients and for the cluster to come to rest, and reads it back.
async fn finish(
    scenario: &Scenario,
    cluster: &mut Cluster,
    clients: Clients,
    load: &Load,
    run: &Run,
    outside: &Client,
) -> Result<After, LabError> {
    let patience = scenario.workload.timeout + CLIENTS;
    let joined = tokio::time::timeout(patience, clients.join()).await;
    let waiting = Instant::now();
    let mut commands = cluster.commands();
    let go_on = |commands: &[(String, CommandState)]| {
        commands
            .iter()
            .any(|(_, state)| matches!(state, CommandState::Runs(_)))
    };
    while go_on(&commands) && waiting.elapsed() < COMMANDS {
        tokio::time::sleep(TICK).await;
        commands = cluster.commands();
    }
    // They move replicas: what counts is how the cluster is after the last of them.
    let limit = scenario
        .expect
        .replicated_within
        .unwrap_or_default()
        .max(AFTER);
    let replicated = match cluster.settled(limit).await {
        Ok(took) => Ok(took),
        Err(LabError::NotReady(missing)) => Err(missing),
        Err(error) => return Err(error),
    };
    // At rest all were well at the same moment; one slow answer later is no news.
    let unhealthy = match &replicated {
        Ok(_) => Vec::new(),
        Err(_) => cluster.condition().await.unhealthy,
    };
    let checked: Option<Result<Checked, _>> = load.check(outside, run).await;
    cluster.poll()?;
    Ok(After {
        history: checked.map(|checked| {
            checked.map_err(|error| format!("the end cannot be read back: {error}"))
        }),
        replicated,
        unhealthy,
        crashed: cluster.crashed().to_vec(),
        clients_lost: !joined.unwrap_or(false),
        commands: commands
            .into_iter()
            .map(|(what, state)| (what, state.problem()))
            .collect(),
    })
}

/// What the clients of each site saw; none where there are none.
fn seen(scenario: &Scenario, sites: &[SiteClients]) -> Vec<Option<Seen>> {
    let end = u64::try_from(scenario.length.as_nanos()).unwrap_or(u64::MAX);
    let due = load::due(scenario.workload.rate, scenario.length);
    let site = |site: &SiteClients| (site.count > 0).then(|| site.record.finish(end, due));
    sites.iter().map(site).collect()
}

fn judge(
    scenario: &Scenario,
    after: &After,
    seen: &[Option<Seen>],
    faults: &[(Nanos, Nanos)],
) -> Vec<Judged> {
    let mut judged = verdict::of_cluster(&scenario.expect, after);
    for expect in &scenario.expect.sites {
        for site in &expect.sites {
            if let Some(seen) = &seen[*site] {
                let name = &scenario.topology.dcs[*site].name;
                judged.extend(verdict::of_site(expect, name, seen, faults));
            }
        }
    }
    judged
}
