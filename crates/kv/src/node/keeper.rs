//! The keeper brings the cluster where its records want it, and replaces what is lost.
//!
//! Every node has one; that of the node which leads the meta shard acts. It looks at the
//! whole cluster, plans, and goes the plan's steps, several shards at a time, as an operator's
//! command would: by requests to the shards' leaders, each of which names the configuration
//! that it follows. Nothing is kept between two looks, and two keepers, or a keeper and a
//! person, at most make each other plan again. It has a thread and connections of its own,
//! so that the node's loop never waits for it.

use super::chores::{self, instruct};
use super::connections::Connections;
use super::copies::RatesAtWork;
use super::driver::Driver;
use super::merger::MergerAtWork;
use super::splitter::SplitterAtWork;
use crate::config::NodeConfig;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use synod_operate::{Changer, Intent, Memory, Pace, Seen, Survey, Tell, Walked, plan, walk};
use synod_paxos::{GroupId, NodeId};
use synod_placement::{Change, Step};
use synod_rpc::placement::PlacementStatus;
use synod_shard::Records;
use tokio::sync::watch;

/// How long a node may take to answer.
const ANSWER: Duration = Duration::from_secs(1);
/// How long one step may take: a snapshot of a large shard is one.
const STEP: Duration = Duration::from_secs(600);
/// Several shards at a time; what is left over is deleted by whoever has it.
const PACE: Pace = Pace {
    parallel: 8,
    into: 2,
    sweep: false,
};
/// Between two looks while nothing happens, so many times as long as otherwise: for each
/// thousand shards again.
const RESTS: u32 = 12;

/// What an acting keeper goes by.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Orders {
    records: Records,
    down: Vec<NodeId>,
    /// What else makes another look worth while.
    signs: Signs,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Signs {
    heard: BTreeSet<NodeId>,
    map_changes: u64,
    endpoints: Vec<SocketAddr>,
}

/// What a keeper tells of itself.
#[derive(Debug, Default)]
struct Report {
    /// What was said last about each shard in hand.
    doing: BTreeMap<String, String>,
    problems: Vec<String>,
    looks: u64,
    steps: u64,
}

/// Nobody panics while holding it.
fn lock(report: &Mutex<Report>) -> MutexGuard<'_, Report> {
    report.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The handle that the node's loop has of it.
#[derive(Debug)]
pub(super) struct Keeper {
    orders: watch::Sender<Option<Orders>>,
    report: Arc<Mutex<Report>>,
    /// When each other node was heard last; before that, when it came to be known.
    heard: BTreeMap<NodeId, Instant>,
    next: Instant,
}

/// How often the loop looks who is heard.
const HEARD_INTERVAL: Duration = Duration::from_secs(1);

impl Keeper {
    /// Starts the thread, which the splitter, the merger and who tells the rates of copies have a share
    /// of; the keeper's ends when this value is dropped.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub(super) fn start(
        config: &NodeConfig,
        now: Instant,
        connections: Connections,
        (splitter, merger): (SplitterAtWork, MergerAtWork),
        rates: RatesAtWork,
    ) -> std::io::Result<Keeper> {
        let (orders, ordered) = watch::channel(None);
        let report = Arc::new(Mutex::new(Report::default()));
        let at_work = AtWork {
            connections,
            look: config.keeper_look,
            report: report.clone(),
            memory: Memory::default(),
            last_transfers: BTreeMap::new(),
        };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        std::thread::Builder::new()
            .name("synod-keeper".to_owned())
            .spawn(move || {
                let keeper = at_work.run(ordered);
                let chores = (chores::run(splitter), chores::run(merger), rates.run());
                let all = async { tokio::join!(keeper, chores.0, chores.1, chores.2) };
                tokio::task::LocalSet::new().block_on(&runtime, all);
            })?;
        Ok(Keeper {
            orders,
            report,
            heard: BTreeMap::new(),
            next: now,
        })
    }

    /// Those of `nodes` not heard for longer than `limit`, and not `there` by what
    /// their links usually do.
    fn down(
        &self,
        nodes: &[NodeId],
        there: &BTreeSet<NodeId>,
        limit: Duration,
        now: Instant,
    ) -> Vec<NodeId> {
        let silent = |id: &&NodeId| {
            let heard = self.heard.get(id);
            heard.is_some_and(|heard| now.duration_since(*heard) > limit) && !there.contains(*id)
        };
        nodes.iter().filter(silent).copied().collect()
    }
}

impl Driver {
    /// Tells the keeper what to go by; nothing if this node does not lead the meta shard.
    pub(super) fn instruct_keeper(&mut self, now: Instant) {
        if now < self.keeper.next {
            return;
        }
        self.keeper.next = now + HEARD_INTERVAL;
        self.instruct_splitter();
        self.instruct_merger();
        self.instruct_rates();
        let orders = self.orders(now);
        instruct(&self.keeper.orders, orders);
    }

    fn orders(&mut self, now: Instant) -> Option<Orders> {
        let worker = self.machine.worker()?;
        let me = self.directory.identity().node;
        let mono = super::time::now().mono;
        let others = worker.map().nodes.iter().filter(|n| n.id != me);
        let others: Vec<NodeId> = others.map(|n| n.id).collect();
        // By what each link usually does: one that jitters makes nobody look again and again.
        let hearing = worker.hearing();
        let is_there = |id: &&NodeId| hearing.is_there(**id, mono);
        let heard: BTreeSet<NodeId> = others.iter().filter(is_there).copied().collect();
        let endpoints = self.endpoints();
        let map_changes = worker.map_changes();
        self.keeper.heard.retain(|id, _| others.contains(id));
        for id in &others {
            self.keeper.heard.entry(*id).or_insert(now);
        }
        for id in &others {
            let silent = hearing.last(*id).map(|last| mono.since(last));
            let last = silent.and_then(|nanos| now.checked_sub(Duration::from_nanos(nanos)));
            if let (Some(last), Some(heard)) = (last, self.keeper.heard.get_mut(id)) {
                *heard = last.max(*heard);
            }
        }
        let records = self.reading.latest()?.clone();
        Some(Orders {
            records,
            down: self
                .keeper
                .down(&others, &heard, self.config.keeper_down, now),
            signs: Signs {
                heard,
                map_changes,
                endpoints,
            },
        })
    }

    /// The records and the keeper's doings, for people.
    pub(super) fn placement_status(&self) -> PlacementStatus {
        let report = lock(&self.keeper.report);
        let current = self.keeper.orders.borrow();
        let Some(records) = self.reading.latest() else {
            return PlacementStatus::default();
        };
        let splits = self.splits_status().unwrap_or_default();
        let merges = self.merges_status().unwrap_or_default();
        PlacementStatus {
            acting: true,
            records: records.clone(),
            down: current.as_ref().map_or_else(Vec::new, |o| o.down.clone()),
            doing: { report.doing.values().cloned() }
                .chain(splits.doing)
                .chain(merges.doing)
                .collect(),
            problems: { report.problems.iter().cloned() }
                .chain(splits.problems)
                .chain(merges.problems)
                .collect(),
            looks: report.looks,
            steps: report.steps,
        }
    }
}

/// The keeper's thread.
struct AtWork {
    connections: Connections,
    /// Between two looks while something happens.
    look: Duration,
    report: Arc<Mutex<Report>>,
    /// Sizes and loads of shards, as far as they were told.
    memory: Memory,
    /// The handing over that the last look wanted.
    last_transfers: BTreeMap<GroupId, Change>,
}

/// What a look came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Found {
    /// Steps were gone, or wait for the next look.
    Work,
    /// Nothing to do, or nothing that can be done now, in a cluster of so many shards.
    Nothing { shards: usize },
}

impl AtWork {
    async fn run(mut self, mut ordered: watch::Receiver<Option<Orders>>) {
        let mut quiet: Option<(Orders, Duration)> = None;
        let mut looked = Instant::now();
        loop {
            let orders = ordered.borrow_and_update().clone();
            let Some(orders) = orders.filter(|orders| !orders.records.manual) else {
                *lock(&self.report) = Report::default();
                self.memory = Memory::default();
                quiet = None;
                self.connections.close();
                if ordered.changed().await.is_err() {
                    return;
                }
                continue;
            };
            let pause = match &quiet {
                Some((then, rest)) if *then == orders => *rest,
                _ => self.look,
            };
            tokio::select! {
                biased;
                changed = ordered.changed() => match changed {
                    Ok(()) => continue,
                    Err(_) => return,
                },
                () = tokio::time::sleep_until((looked + pause).into()) => {}
            }
            let found = tokio::select! {
                biased;
                changed = superseded(&mut ordered, &orders) => match changed {
                    Some(()) => continue,
                    None => return,
                },
                found = self.look(&orders) => found,
            };
            looked = Instant::now();
            quiet = match found {
                Found::Work => None,
                Found::Nothing { shards } => {
                    let thousands = u32::try_from(shards / 1000).unwrap_or(u32::MAX);
                    let rest = self.look * RESTS * thousands.saturating_add(1).min(100);
                    Some((orders, rest))
                }
            };
            lock(&self.report).doing.clear();
        }
    }

    /// Looks at the cluster, and goes what steps there are.
    async fn look(&mut self, orders: &Orders) -> Found {
        let (seen, steps, waits) = match self.plan(orders).await {
            Ok(planned) => planned,
            Err(reason) => {
                tracing::debug!(%reason, "the keeper cannot plan");
                let mut report = lock(&self.report);
                report.problems = vec![reason];
                report.looks += 1;
                return Found::Nothing { shards: 0 };
            }
        };
        let steps = self.due(steps);
        lock(&self.report).looks += 1;
        let Ok(pool) = self.connections.pool() else {
            return Found::Work;
        };
        if steps.is_empty() {
            let shards = seen.view.shards.len();
            return if self.last_transfers.is_empty() && !waits {
                Found::Nothing { shards }
            } else {
                Found::Work
            };
        }
        let tell = self.tell();
        let nodes = seen.survey.map.nodes.clone();
        let changer = Changer::new(pool, nodes, ANSWER, STEP, tell.clone());
        let Walked { gone, trouble, .. } =
            walk(&Arc::new(changer), &seen, &steps, PACE, &tell).await;
        let mut report = lock(&self.report);
        report.steps += gone as u64;
        let Some(trouble) = trouble else {
            return Found::Work;
        };
        tracing::warn!(%trouble, "a step of the plan was not gone");
        report.problems.push(trouble.to_string());
        // What failed is not tried again in a tight loop.
        Found::Nothing { shards: 0 }
    }

    /// What is to be done, and whether there may be more soon without anything happening.
    async fn plan(&mut self, orders: &Orders) -> Result<(Seen, Vec<Step>, bool), String> {
        let pool = self.connections.pool()?;
        let survey = Survey::take(&pool, &orders.signs.endpoints, ANSWER).await;
        let mut survey = survey.map_err(|e| e.to_string())?;
        self.memory.complete(&mut survey, Instant::now());
        let intent = Intent::of_records(&orders.records, &orders.down);
        let intent = intent.map_err(|e| e.to_string())?;
        let seen = Seen::of(survey, intent).map_err(|e| e.to_string())?;
        if let Some(reason) = &seen.unsaid {
            return Err(reason.clone());
        }
        // Of many shards it takes long, and others wait for this thread's connections.
        let planned = tokio::task::spawn_blocking(move || {
            let planned = plan(&seen, None);
            (seen, planned)
        });
        let (seen, planned) = planned.await.map_err(|e| e.to_string())?;
        let (steps, whole) = planned.map_err(|e| e.to_string())?;
        let problems = whole.problems.iter().map(|p| seen.named(&p.to_string()));
        let refused = seen.refused_copies();
        lock(&self.report).problems = problems.chain(refused).collect();
        let all = steps.len();
        let steps: Vec<Step> = { steps.into_iter() }
            .filter(|step| !seen.is_coming(step))
            .collect();
        let waits = steps.len() < all || whole.unweighed.is_some();
        Ok((seen, steps, waits))
    }

    /// Leaders are moved for balance only once two looks in a row want the same: one who
    /// was started lately, or is about to stop, is left in peace.
    fn due(&mut self, steps: Vec<Step>) -> Vec<Step> {
        let (transfers, others): (Vec<Step>, Vec<Step>) = steps
            .into_iter()
            .partition(|step| matches!(step.change, Change::TransferLeader { .. }));
        let before = std::mem::take(&mut self.last_transfers);
        let is_again = |step: &&Step| before.get(&step.shard) == Some(&step.change);
        let again: Vec<Step> = transfers.iter().filter(is_again).cloned().collect();
        if others.is_empty() && !again.is_empty() {
            return again;
        }
        let wanted = transfers.into_iter();
        self.last_transfers = wanted.map(|step| (step.shard, step.change)).collect();
        others
    }

    /// Lines begin with what they are about: `shard 7: …`.
    fn tell(&self) -> Tell {
        let report = self.report.clone();
        Arc::new(move |line| {
            tracing::info!("placement: {line}");
            let about = line.split(':').next().unwrap_or_default().to_owned();
            lock(&report).doing.insert(about, line.to_owned());
        })
    }
}

/// Returns once what people or silences ask for differs from `orders`; none if the node ends.
/// What the keeper's own steps change does not count.
async fn superseded(ordered: &mut watch::Receiver<Option<Orders>>, orders: &Orders) -> Option<()> {
    let same = |now: &Option<Orders>| {
        let now = now.as_ref();
        now.is_some_and(|now| now.records == orders.records && now.down == orders.down)
    };
    let changed = ordered.wait_for(|now| !same(now)).await;
    changed.ok().map(|_| ())
}
