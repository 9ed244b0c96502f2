//! What all clones of a client share: the table, the clock, and the chores.

use crate::config::Config;
use crate::error::Error;
use crate::table::Table;
use crate::transport::Transport;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use synod_paxos::{GroupId, NodeId, Term, Timestamp};
use synod_rpc::{CallError, NodeRequest, NodeResponse, RequestBody, ServerBody};
use synod_shard::{ShardDescriptor, ShardMap, ShardRequest};
use synod_txn::{AttemptId, ClientId, Hashing, Request};
use tokio::task::{AbortHandle, JoinSet};

/// Requests that free locks and wait for their answers, at most; over it they
/// are dropped, and the locks go with their sessions.
const MAX_CHORES: usize = 10_000;
/// How long a freed lock's shard is looked for.
const CHORE_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a new client waits for the cluster's clock.
const CLOCK_TIMEOUT: Duration = Duration::from_millis(300);
/// What was heard of the cluster's clock is asked for again after this long.
const CLOCK_AGE: Duration = Duration::from_secs(10);
/// Our wall clock may move this far against our monotonic one before the
/// cluster is asked for its time: it jumped, or we slept.
const CLOCK_TOLERANCE: Duration = Duration::from_secs(1);
/// Between two tries to fetch the map.
const MAP_PAUSE: Duration = Duration::from_millis(100);
/// How long one node may take to hand out the map.
const MAP_TIMEOUT: Duration = Duration::from_secs(1);

/// Shared by all clones of a client.
pub(crate) struct Core {
    pub(crate) config: Config,
    pub(crate) transport: Transport,
    pub(crate) id: ClientId,
    endpoints: Vec<SocketAddr>,
    table: Mutex<Arc<Table>>,
    clock: Mutex<Clock>,
    chores: AtomicUsize,
    /// Transactions under way.
    live: Mutex<BTreeSet<AttemptId>>,
    /// When a silent shard's replicas were last asked who leads.
    probed: Mutex<BTreeMap<GroupId, Instant>>,
    /// When a caller last began to search for the leader of a shard without one.
    searched: Mutex<BTreeMap<GroupId, Instant>>,
    /// Told when a new term is heard of.
    pub(crate) news: tokio::sync::Notify,
    /// Held while the map is fetched, so that one fetch serves everybody.
    fetching: tokio::sync::Mutex<()>,
    /// How often that was begun.
    fetches: AtomicU64,
    /// When all nodes were last asked for their maps.
    surveyed: Mutex<Option<Instant>>,
    runtime: tokio::runtime::Handle,
    heartbeat: Mutex<Option<AbortHandle>>,
    me: Weak<Core>,
}

impl Drop for Core {
    fn drop(&mut self) {
        if let Some(heartbeat) = lock(&self.heartbeat).take() {
            heartbeat.abort();
        }
    }
}

/// No code panics while it holds one of these locks, so a poisoned one is whole.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The cluster's clock: what was last heard of it, and the time since by our
/// monotonic clock. Our wall clock may jump as it likes.
#[derive(Clone, Copy)]
struct Clock {
    told: Timestamp,
    at: Instant,
    /// Our wall clock then, nanoseconds.
    wall: u64,
}

impl Clock {
    /// Our own clock, until the cluster's is heard of.
    fn start() -> Clock {
        let wall = wall_nanos();
        Clock {
            told: Timestamp(wall),
            at: Instant::now(),
            wall,
        }
    }

    fn now(&self) -> Timestamp {
        self.told.plus(nanos(self.at.elapsed()))
    }

    /// Whether it was not heard of for long, or time went by unseen.
    fn is_doubtful(&self) -> bool {
        let passed = self.at.elapsed();
        let moved = wall_nanos().abs_diff(self.wall.saturating_add(nanos(passed)));
        passed >= CLOCK_AGE || moved > nanos(CLOCK_TOLERANCE)
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

fn wall_nanos() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    u64::try_from(now.unwrap_or_default().as_nanos()).unwrap_or(u64::MAX)
}

impl Core {
    /// Fetch the map and start the chores, in the caller's runtime.
    pub(crate) async fn start(
        config: Config,
        transport: Transport,
        endpoints: Vec<SocketAddr>,
    ) -> Result<Arc<Core>, Error> {
        let deadline = Instant::now() + config.timeout;
        let core = Arc::new_cyclic(|me| Core {
            config,
            transport,
            id: ClientId(rand::random()),
            endpoints,
            table: Mutex::default(),
            clock: Mutex::new(Clock::start()),
            chores: AtomicUsize::new(0),
            live: Mutex::default(),
            probed: Mutex::default(),
            searched: Mutex::default(),
            news: tokio::sync::Notify::new(),
            fetching: tokio::sync::Mutex::new(()),
            fetches: AtomicU64::new(0),
            surveyed: Mutex::default(),
            runtime: tokio::runtime::Handle::current(),
            heartbeat: Mutex::new(None),
            me: me.clone(),
        });
        loop {
            match core.fetch_map(deadline, Wanted::Any).await {
                Ok(()) => break,
                // Nodes may still come up, but certificates do not mend themselves.
                Err(error @ Error::Config(_)) => return Err(error),
                Err(error) if Instant::now() + MAP_PAUSE >= deadline => return Err(error),
                Err(_) => tokio::time::sleep(MAP_PAUSE).await,
            }
        }
        core.set_clock(deadline).await;
        let task = tokio::spawn(heartbeat(Arc::downgrade(&core)));
        *lock(&core.heartbeat) = Some(task.abort_handle());
        Ok(core)
    }

    /// Take the time from the cluster before the first attempt is named by it.
    /// Where nobody answers in time our own clock has to do.
    async fn set_clock(&self, deadline: Instant) {
        let first = self.table().shards.keys().next().copied();
        if let Some(shard) = first {
            let until = deadline.min(Instant::now() + CLOCK_TIMEOUT);
            self.deliver(shard, &Request::Locate, until).await;
        }
    }

    /// Ask for the cluster's time again where ours is in doubt: a Commit that
    /// nothing was read for is named by it, and could come too late for its
    /// outcome to be known. One caller asks for all.
    pub(crate) async fn renew_clock(&self, deadline: Instant) {
        {
            let mut clock = lock(&self.clock);
            if !clock.is_doubtful() {
                return;
            }
            // Not asked again for a while, should nobody answer.
            *clock = Clock {
                told: clock.now(),
                ..Clock::start()
            };
        }
        self.set_clock(deadline).await;
    }

    pub(crate) fn table(&self) -> Arc<Table> {
        lock(&self.table).clone()
    }

    /// Remember who leads, if that is new to `seen`, the caller's table.
    pub(crate) fn learn(&self, seen: &Table, shard: GroupId, leader: NodeId, term: Option<Term>) {
        if !seen.knows(shard, leader, term) {
            Arc::make_mut(&mut lock(&self.table)).learn(shard, leader, term);
            self.news.notify_waiters();
        }
    }

    /// Whether it is this caller's turn to ask who leads a silent shard:
    /// however many wait for it, one asks for all.
    pub(crate) fn may_probe(&self, shard: GroupId, interval: Duration) -> bool {
        is_turn(&self.probed, shard, interval)
    }

    /// Whether it is this caller's turn to search for a leader: the same for a
    /// shard whose replicas all say that they do not lead.
    pub(crate) fn may_search(&self, shard: GroupId, interval: Duration) -> bool {
        is_turn(&self.searched, shard, interval)
    }

    /// The cluster's time for ids, about.
    pub(crate) fn now(&self) -> Timestamp {
        lock(&self.clock).now()
    }

    /// A leader told its clock. What is off by the length of a round trip does no harm.
    pub(crate) fn learn_clock(&self, theirs: Timestamp) {
        *lock(&self.clock) = Clock {
            told: theirs,
            ..Clock::start()
        };
    }

    /// A commit took this timestamp: the cluster's time is no less.
    pub(crate) fn learn_commit(&self, timestamp: Timestamp) {
        let mut clock = lock(&self.clock);
        let now = clock.now();
        // One told from memory may be old, and says nothing.
        if timestamp.plus(nanos(CLOCK_TOLERANCE)) >= now {
            *clock = Clock {
                told: timestamp.max(now),
                ..Clock::start()
            };
        }
    }

    /// Send what nobody waits for, now and without a caller.
    pub(crate) fn chore(&self, mut asked: ShardRequest) {
        let Some(core) = self.me.upgrade() else {
            return;
        };
        if self.chores.fetch_add(1, Ordering::Relaxed) >= MAX_CHORES {
            self.chores.fetch_sub(1, Ordering::Relaxed);
            return;
        }
        self.runtime.spawn(async move {
            let deadline = Instant::now() + CHORE_TIMEOUT;
            core.deliver_asked(&mut asked, deadline).await;
            core.chores.fetch_sub(1, Ordering::Relaxed);
        });
    }

    /// Fetch the map unless somebody else has begun to since this was called: from this node, which said that
    /// it has changed, or else from whoever has heard of that; without one, from anybody.
    pub(crate) async fn refresh(&self, from: Option<SocketAddr>) {
        let begun = self.fetches.load(Ordering::Relaxed);
        let _one = self.fetching.lock().await;
        if self.fetches.load(Ordering::Relaxed) != begun {
            return;
        }
        self.fetches.fetch_add(1, Ordering::Relaxed);
        let until = Instant::now() + MAP_TIMEOUT;
        if let Some(address) = from {
            let body = RequestBody::Node(NodeRequest::Map);
            let answer = self.transport.call(address, body, until).await;
            if let Ok(ServerBody::Node(NodeResponse::Map(map))) = answer
                && self.take_map(&map) == Taken::News
            {
                return;
            }
        }
        let wanted = from.map_or(Wanted::Any, |_| Wanted::News);
        if let Err(error) = self.fetch_map(until, wanted).await {
            tracing::debug!(%error, "the shard map could not be fetched");
        }
    }

    /// Nobody leads a shard, as far as its known members tell; perhaps it has others
    /// by now. Meanwhile all nodes are asked for their maps, once a second at most.
    pub(crate) fn survey_maps(&self) {
        let Some(core) = self.me.upgrade() else {
            return;
        };
        {
            let mut surveyed = lock(&self.surveyed);
            if surveyed.is_some_and(|at| at.elapsed() < MAP_TIMEOUT) {
                return;
            }
            *surveyed = Some(Instant::now());
        }
        self.runtime.spawn(async move {
            let until = Instant::now() + MAP_TIMEOUT;
            if let Err(error) = core.fetch_map(until, Wanted::All).await {
                tracing::debug!(%error, "no node has a shard map");
            }
        });
    }

    /// Ask everybody for the map.
    async fn fetch_map(&self, until: Instant, wanted: Wanted) -> Result<(), Error> {
        let known = self.table();
        let mut addresses = self.endpoints.clone();
        addresses.extend(known.nodes.values().filter(|a| !self.endpoints.contains(a)));
        let mut asked = JoinSet::new();
        for address in addresses {
            let transport = self.transport.clone();
            asked.spawn(async move {
                let deadline = until.min(Instant::now() + MAP_TIMEOUT);
                let body = RequestBody::Node(NodeRequest::Map);
                (address, transport.call(address, body, deadline).await)
            });
        }
        let mut silence = Silence::default();
        let mut found = false;
        while let Some(answer) = asked.join_next().await {
            let Ok((address, answer)) = answer else {
                continue;
            };
            match answer {
                Ok(ServerBody::Node(NodeResponse::Map(map))) if !map.shards.is_empty() => {
                    match (self.take_map(&map), wanted) {
                        (Taken::No, _) => {
                            silence.other(format!("{address} has an old map"));
                        }
                        (_, Wanted::Any) | (Taken::News, Wanted::News) => return Ok(()),
                        _ => found = true,
                    }
                }
                Ok(ServerBody::Node(NodeResponse::Map(_) | NodeResponse::Refused { .. })) => {
                    silence.uninitialized = true;
                }
                Ok(_) => silence.other(format!("{address} has no map to give")),
                Err(error @ CallError::Refused { .. }) => silence.refused.push(error.to_string()),
                Err(error) => silence.other(error.to_string()),
            }
        }
        if found { Ok(()) } else { Err(silence.into()) }
    }

    /// A transaction begins: its sessions are kept alive.
    pub(crate) fn began(&self, attempt: AttemptId) {
        lock(&self.live).insert(attempt);
    }

    /// It has ended.
    pub(crate) fn ended(&self, attempt: AttemptId) {
        lock(&self.live).remove(&attempt);
    }

    /// Takes over what a map knows better.
    fn take_map(&self, map: &ShardMap) -> Taken {
        let mut table = lock(&self.table);
        let Some(both) = table.with_map(map, &self.config.locality) else {
            return Taken::No;
        };
        let news = both.differs(&table);
        *table = Arc::new(both);
        if news { Taken::News } else { Taken::Same }
    }

    /// A shard's leader told how its keys are stored.
    pub(crate) fn learn_hashing(&self, shard: GroupId, hashing: Option<Hashing>) {
        let mut table = lock(&self.table);
        Arc::make_mut(&mut table)
            .routes
            .learn_hashing(shard, hashing);
    }

    /// A node told who holds a shard. Returns whether that is news that could be taken
    /// over as it is.
    pub(crate) fn learn_shard(&self, descriptor: &ShardDescriptor) -> bool {
        let mut table = lock(&self.table);
        let taught = table.with_shard(descriptor, &self.config.locality);
        let taken = taught.map(|taught| *table = Arc::new(taught));
        taken.is_some()
    }
}

/// How many answers count when all nodes are asked for their maps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wanted {
    /// The first good one.
    Any,
    /// The first that knows something new of the shards.
    News,
    /// All that come.
    All,
}

/// What became of a map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Taken {
    /// It is of another time, or knows one half of a split only.
    No,
    /// It says nothing new.
    Same,
    /// It does.
    News,
}

/// Whether nobody had a turn for this shard within the interval; then the caller has it.
fn is_turn(turns: &Mutex<BTreeMap<GroupId, Instant>>, shard: GroupId, interval: Duration) -> bool {
    let now = Instant::now();
    let mut turns = lock(turns);
    let last = turns.get(&shard);
    let may = last.is_none_or(|last| now.duration_since(*last) >= interval);
    if may {
        turns.insert(shard, now);
    }
    may
}

/// Why nobody gave a map.
#[derive(Default)]
struct Silence {
    uninitialized: bool,
    /// Nodes that do not want to talk to us.
    refused: Vec<String>,
    others: Vec<String>,
}

impl Silence {
    fn other(&mut self, reason: String) {
        self.others.push(reason);
    }
}

impl From<Silence> for Error {
    fn from(silence: Silence) -> Error {
        if silence.uninitialized {
            return Error::NotInitialized;
        }
        if silence.others.is_empty() && !silence.refused.is_empty() {
            return Error::Config(silence.refused.join("; "));
        }
        let reasons = [silence.others, silence.refused].concat();
        Error::NoCluster {
            reason: reasons.join("; "),
        }
    }
}

/// Keep the sessions of all transactions under way alive.
async fn heartbeat(core: Weak<Core>) {
    while let Some(core) = core.upgrade() {
        let pause = core.config.keep_alive;
        let live: Vec<AttemptId> = lock(&core.live).iter().copied().collect();
        core.transport.keepalive(core.id, &live);
        drop(core);
        tokio::time::sleep(pause).await;
    }
}
