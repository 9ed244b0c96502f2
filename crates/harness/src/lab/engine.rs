//! One run: start, load, break, heal, look, judge.

use super::LabError;
use super::action::Action;
use super::cluster::{Begun, Cluster};
use super::load::{self, Checked, Clients, Load, SiteClients};
use super::record::{Record, Seen};
use super::report::{FaultMark, LinkInfo, Report, Site};
use super::scenario::{Planned, Scenario};
use super::verdict::{self, After, Judged};
use crate::sim::Wrong;
use crate::workload::Run;
use rand::SeedableRng;
use rand::rngs::StdRng;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use synod_client::Client;

/// Between two looks at the plan and at the nodes.
const TICK: Duration = Duration::from_millis(20);
/// Between two lines of progress.
const SECOND: Duration = Duration::from_secs(1);
/// How long a cluster may take to come to rest before the load.
const BEFORE: Duration = Duration::from_secs(60);
/// How long it may take after the load, if the scenario expects nothing of it.
const AFTER: Duration = Duration::from_secs(60);
/// How long drains may go on after the load.
const DRAINS: Duration = Duration::from_secs(120);
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
    let judged = judge(scenario, &after, &seen, &timeline.marks);
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
        sites: told_sites(scenario, &seen),
        links: told_links(scenario),
        faults: timeline.marks,
        verdicts: judged.into_iter().map(|judged| judged.verdict).collect(),
        history: after
            .history
            .and_then(Result::ok)
            .map(|checked| checked.result),
        notes: notes(scenario, &seen),
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
        sites.push(SiteClients {
            client: Client::connect(config)
                .await
                .map_err(client("connecting a site's clients"))?,
            count: dc.clients,
            record: Arc::new(Record::new(scenario.length, scenario.bucket)),
        });
    }
    Ok(sites)
}

/// What happens when.
struct Timeline<'a> {
    /// By time, and then by number.
    events: BTreeMap<(Duration, usize), Event<'a>>,
    next: usize,
    marks: Vec<FaultMark>,
    seed: u64,
}

enum Event<'a> {
    Begin(&'a Planned),
    End {
        /// The fault.
        id: u64,
        /// Its mark.
        mark: usize,
    },
}

impl<'a> Timeline<'a> {
    fn new(scenario: &'a Scenario, seed: u64) -> Timeline<'a> {
        let events = scenario.faults.iter().enumerate();
        Timeline {
            events: events
                .map(|(n, fault)| ((fault.at, n), Event::Begin(fault)))
                .collect(),
            next: scenario.faults.len(),
            marks: Vec::new(),
            seed,
        }
    }

    /// Goes through all of it until the load is to end.
    async fn go(
        &mut self,
        scenario: &Scenario,
        cluster: &mut Cluster,
        run: &Run,
        sites: &[SiteClients],
        tell: &mut (dyn FnMut(Progress<'_>) + Send),
    ) -> Result<(), LabError> {
        /// Number of a fault that holds, and of its mark.
        type Holding = BTreeMap<u64, usize>;
        let mut holding = Holding::new();
        let mut told = Duration::ZERO;
        loop {
            let now = Duration::from_nanos(run.now());
            while let Some(first) = self.events.first_entry()
                && first.key().0 <= now
            {
                let (number, event) = (first.key().1, first.remove());
                match event {
                    Event::Begin(fault) => {
                        self.begin(fault, number, cluster, run, &mut holding, tell)
                            .await?;
                    }
                    Event::End { id, mark } => {
                        if holding.remove(&id).is_some() {
                            cluster.end(id).await?;
                            self.ended(mark, run, tell);
                        }
                    }
                }
            }
            cluster.poll()?;
            if now >= scenario.length {
                return Ok(());
            }
            if now >= told + SECOND {
                told = now;
                let dcs = scenario.topology.dcs.iter().zip(sites);
                let counts = dcs.map(|(dc, site)| (dc.name.as_str(), site.record.counts()));
                tell(Progress::Running(now, counts.collect()));
            }
            let next = self
                .events
                .keys()
                .next()
                .map_or(scenario.length, |(at, _)| *at);
            let wake = next.min(scenario.length).saturating_sub(now).min(TICK);
            tokio::time::sleep(wake.max(Duration::from_millis(1))).await;
        }
    }

    async fn begin(
        &mut self,
        fault: &Planned,
        number: usize,
        cluster: &mut Cluster,
        run: &Run,
        holding: &mut BTreeMap<u64, usize>,
        tell: &mut (dyn FnMut(Progress<'_>) + Send),
    ) -> Result<(), LabError> {
        // Each draws for itself, so that one more fault changes no other.
        let seed = self.seed ^ (number as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mut random = StdRng::seed_from_u64(seed);
        let at = Duration::from_nanos(run.now());
        let Begun {
            id,
            holds,
            what,
            on,
            ended,
        } = cluster
            .begin_named(&fault.action, fault.name.clone(), &mut random)
            .await?;
        let mark = self.marks.len();
        self.marks.push(FaultMark {
            at_millis: millis(at),
            until_millis: None,
            what,
            on,
        });
        tell(Progress::Begun(&self.marks[mark]));
        for other in ended {
            if let Some(mark) = holding.remove(&other) {
                self.ended(mark, run, tell);
            }
        }
        if holds {
            holding.insert(id, mark);
        }
        if let (true, Some(lasts)) = (holds, fault.lasts) {
            self.next += 1;
            self.events
                .insert((at + lasts, self.next), Event::End { id, mark });
        }
        Ok(())
    }

    fn ended(&mut self, mark: usize, run: &Run, tell: &mut (dyn FnMut(Progress<'_>) + Send)) {
        let mark = &mut self.marks[mark];
        mark.until_millis = Some(millis(Duration::from_nanos(run.now())));
        tell(Progress::Ended(mark));
    }
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
    let stopped = Instant::now();
    let patience = scenario.workload.timeout + CLIENTS;
    let joined = tokio::time::timeout(patience, clients.join()).await;
    let limit = scenario
        .expect
        .replicated_within
        .unwrap_or_default()
        .max(AFTER);
    // From the end of the load, whatever the clients took.
    let replicated = match cluster.settled(limit).await {
        Ok(_) => Ok(stopped.elapsed()),
        Err(LabError::NotReady(missing)) => Err(missing),
        Err(error) => return Err(error),
    };
    let draining = Instant::now();
    let mut drains = cluster.drains();
    let waits = |drains: &[(String, Option<String>)]| {
        let words = drains.iter().filter_map(|(_, problem)| problem.as_deref());
        words
            .into_iter()
            .any(|words| words.starts_with("not done yet"))
    };
    while waits(&drains) && draining.elapsed() < DRAINS {
        tokio::time::sleep(TICK).await;
        drains = cluster.drains();
    }
    let condition = cluster.condition().await;
    let checked: Option<Result<Checked, _>> = load.check(outside, run).await;
    let _ = cluster.poll();
    Ok(After {
        history: checked.map(|checked| {
            checked.map_err(|error| format!("the end cannot be read back: {error}"))
        }),
        replicated,
        unhealthy: condition.unhealthy,
        crashed: cluster.crashed().to_vec(),
        clients_lost: !joined.unwrap_or(false),
        drains,
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
    marks: &[FaultMark],
) -> Vec<Judged> {
    let mut judged = verdict::of_cluster(&scenario.expect, after);
    let nanos = |millis: u64| millis * 1_000_000;
    // One of one moment begins and ends there; one that holds to the end, there.
    let moment = |mark: &FaultMark| ["power on", "drain", "links healed"].contains(&&*mark.what);
    let times = marks.iter().map(|mark| {
        let end = if moment(mark) {
            mark.at_millis
        } else {
            millis(scenario.length)
        };
        (
            nanos(mark.at_millis),
            nanos(mark.until_millis.unwrap_or(end)),
        )
    });
    let times: Vec<(u64, u64)> = times.collect();
    for expect in &scenario.expect.sites {
        for site in &expect.sites {
            if let Some(seen) = &seen[*site] {
                let name = &scenario.topology.dcs[*site].name;
                judged.extend(verdict::of_site(expect, name, seen, &times));
            }
        }
    }
    judged
}

fn told_sites(scenario: &Scenario, seen: &[Option<Seen>]) -> Vec<Site> {
    let nodes = scenario.topology.nodes();
    let sites = scenario.topology.dcs.iter().enumerate().zip(seen);
    let told = sites.map(|((number, dc), seen)| {
        let own = nodes.iter().filter(|node| node.site == number);
        let gap = seen.as_ref().map_or((0, 0), |seen| seen.longest_gap(&[]));
        Site {
            name: dc.name.clone(),
            region: dc.region.clone(),
            nodes: own.map(|node| node.name.clone()).collect(),
            clients: dc.clients,
            bucket_millis: millis(scenario.bucket),
            buckets: seen.as_ref().map(Seen::buckets).unwrap_or_default(),
            total: seen.as_ref().map(Seen::totals).unwrap_or_default(),
            longest_gap_began_millis: gap.0 / 1_000_000,
            longest_gap_millis: gap.1 / 1_000_000,
        }
    });
    told.collect()
}

fn told_links(scenario: &Scenario) -> Vec<LinkInfo> {
    let dcs = &scenario.topology.dcs;
    let mut links = Vec::new();
    for a in 0..dcs.len() {
        for b in a + 1..dcs.len() {
            let path = scenario.topology.path(a, b);
            links.push(LinkInfo {
                a: dcs[a].name.clone(),
                b: dcs[b].name.clone(),
                rtt_micros: u64::try_from(path.rtt.as_micros()).unwrap_or(u64::MAX),
                loss: path.loss,
            });
        }
    }
    links
}

fn notes(scenario: &Scenario, seen: &[Option<Seen>]) -> Vec<String> {
    let mut notes = Vec::new();
    for (dc, seen) in scenario.topology.dcs.iter().zip(seen) {
        let never = seen.as_ref().map_or(0, |seen| seen.never);
        if never > 0 {
            notes.push(format!(
                "{}: {never} requests never began before the end of the load, because all \
                 clients were busy; they count as failed",
                dc.name
            ));
        }
    }
    let off = scenario
        .faults
        .iter()
        .any(|fault| matches!(fault.action, Action::Harm(_, super::action::Harm::PowerOff)));
    if off {
        notes.push(
            "power is cut by kill -9 of all nodes in one moment: what the machine's page cache \
             held survives; the simulator (synod lab sim) loses it"
                .to_owned(),
        );
    }
    notes
}
