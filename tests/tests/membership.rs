//! Shards change their members while they serve: by hand, node by node, and whatever
//! is killed meanwhile. Nothing that was acknowledged is lost, and everybody finds
//! the members of the day.

use bytes::Bytes;
use std::collections::BTreeMap;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};
use synod_client::Client;
use synod_harness::check::register;
use synod_harness::cluster::{Cluster, ask};
use synod_harness::workload::Run;
use synod_harness::workload::probe::{Probe, Written};
use synod_paxos::GroupId;
use synod_rpc::{Pool, RequestBody, ServerBody};
use synod_shard::{ShardDescriptor, ShardReply, ShardRequest};
use synod_tests::{connect, eventually, program, spread, start, survive, synod, text};
use synod_txn::{Request, Response};
use tokio::task::JoinHandle;

const META: u64 = 1;
const LIMIT: Duration = Duration::from_secs(1);
const PATIENCE: Duration = Duration::from_secs(60);

/// Logs are soon trimmed: whoever comes needs more than the rest of them.
fn nodes(count: usize) -> Cluster {
    let extra = "[log]\nsegment_bytes = 1048576\ntrim_bytes = 4194304\n";
    by_hand(spread(count, extra))
}

/// Nothing moves but what the test moves.
fn by_hand(cluster: Cluster) -> Cluster {
    let out = synod(&cluster, &["placement", "auto", "off"], "");
    assert_eq!(out.status.code(), Some(0), "{}", text(&out));
    cluster
}

/// A drained node is used again.
fn rejoin(cluster: &Cluster, name: &str) {
    let out = synod(cluster, &["node", "rejoin", name], "");
    assert_eq!(out.status.code(), Some(0), "{}", text(&out));
}

/// Keys in all shards with so much in them that the logs are trimmed.
async fn fill(client: &Client, keys: usize) {
    let value = vec![b'v'; 8 << 10];
    for key in 0..keys {
        for shard in ["a", "h", "q"] {
            let put = client.put(format!("{shard}/bulk/{key}"), value.clone());
            put.await.expect("the cluster serves");
        }
    }
}

/// Whether all of that is there.
async fn check_filled(client: &Client, keys: usize) {
    for key in 0..keys {
        for shard in ["a", "h", "q"] {
            let value = client.get(format!("{shard}/bulk/{key}")).await;
            let value = value.expect("the cluster serves");
            assert_eq!(value.map(|v| v.len()), Some(8 << 10), "{shard}/bulk/{key}");
        }
    }
}

/// A key in each of the user shards; other ones in each round.
fn probes(round: u32) -> Vec<Probe> {
    let key = |shard: &str| Probe {
        key: format!("{shard}/probe-{round}"),
    };
    ["a", "h", "q"].map(key).into()
}

/// Writers of all probes, until stopped.
struct Writers {
    round: u32,
    client: Client,
    run: Run,
    writers: Vec<JoinHandle<Written>>,
}

impl Writers {
    async fn start(cluster: &Cluster, round: u32) -> Writers {
        let client = connect(cluster).await;
        let run = Run::default();
        let writer = |probe: Probe| {
            let (client, run) = (client.clone(), run.clone());
            tokio::spawn(async move { probe.write(client, run).await })
        };
        let writers = probes(round).into_iter().map(writer).collect();
        Writers {
            round,
            client,
            run,
            writers,
        }
    }

    /// Stops them; what each of them was told is in the cluster, as `reader` sees it.
    async fn stop(self, reader: &Client) {
        self.run.stop();
        let until = self.run.now();
        for (writer, probe) in self.writers.into_iter().zip(probes(self.round)) {
            let mut written = writer.await.expect("a writer ends in order");
            assert!(written.acks.len() > 20, "{} was hardly written", probe.key);
            for client in [&self.client, reader] {
                probe
                    .read_into(client, &self.run, &mut written.history)
                    .await
                    .expect("the cluster serves");
            }
            let gap = written.longest_gap(0, until);
            eprintln!("longest gap at {}: {:?}", probe.key, gap.length);
            let findings = register::check(&written.history);
            assert!(findings.is_clean(), "{findings}");
        }
    }
}

/// Runs `synod placement …` aside from the runtime, and wants it to succeed.
async fn placement(cluster: &Cluster, arguments: &[&str]) -> String {
    ends_well(spawn(cluster, "placement", arguments), arguments).await
}

/// Runs `synod node drain …` likewise.
async fn drain(cluster: &Cluster, arguments: &[&str]) -> String {
    let arguments = [&["drain"], arguments].concat();
    ends_well(spawn(cluster, "node", &arguments), &arguments).await
}

async fn ends_well(child: std::process::Child, arguments: &[&str]) -> String {
    let out = tokio::task::spawn_blocking(move || child.wait_with_output());
    let out: Output = out.await.expect("it ends").expect("its output is read");
    assert_eq!(out.status.code(), Some(0), "{arguments:?}: {}", text(&out));
    text(&out)
}

fn spawn(cluster: &Cluster, what: &str, arguments: &[&str]) -> std::process::Child {
    let mut command = Command::new(program());
    command.arg(what).args(arguments);
    command.arg("--certs").arg(cluster.certs());
    for endpoint in cluster.endpoints() {
        command.arg("--endpoint").arg(endpoint.to_string());
    }
    command.args(["--timeout-millis", "1000", "--step-seconds", "60"]);
    command.stdin(Stdio::null());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().expect("the program starts")
}

/// As Ctrl-C does.
fn interrupt(command: &std::process::Child) {
    let pid = command.id().to_string();
    let sent = Command::new("kill").args(["-INT", &pid]).status();
    assert!(sent.is_ok_and(|status| status.success()));
}

/// The shards as one node knows them, by id.
async fn shards(pool: &Pool, cluster: &Cluster, node: usize) -> BTreeMap<u64, ShardDescriptor> {
    let address = cluster.nodes()[node].address;
    let map = ask::map(pool, address, LIMIT).await;
    let map = map.unwrap_or_default();
    map.shards.into_iter().map(|s| (s.id.0, s)).collect()
}

/// The nodes that vote in a shard, and the others, as a node knows it.
async fn sides(pool: &Pool, cluster: &Cluster, node: usize, id: u64) -> (Vec<usize>, Vec<usize>) {
    let address = cluster.nodes()[node].address;
    let begun = Instant::now();
    let map = loop {
        match ask::map(pool, address, LIMIT).await {
            Ok(map) => break map,
            Err(error) => assert!(begun.elapsed() < PATIENCE, "{error}"),
        }
    };
    let shard = map.shard(GroupId(id)).expect("the shard is in the map");
    let mut sides = (Vec::new(), Vec::new());
    for (index, node) in cluster.nodes().iter().enumerate() {
        let known = map.nodes.iter().find(|n| n.name == node.name);
        let known = known.expect("the node is in the map");
        if shard.configuration.is_voter(known.id) {
            sides.0.push(index);
        } else {
            sides.1.push(index);
        }
    }
    sides
}

fn names(cluster: &Cluster, nodes: &[usize]) -> String {
    let names = nodes.iter().map(|n| cluster.nodes()[*n].name.as_str());
    names.collect::<Vec<_>>().join(",")
}

/// Which node leads a shard.
async fn leader(pool: &Pool, cluster: &Cluster, id: u64) -> Option<usize> {
    for (index, node) in cluster.nodes().iter().enumerate() {
        let members = ask::members(pool, node.address, Some(GroupId(id)), LIMIT).await;
        if members.is_ok_and(|m| m.iter().any(|m| m.in_office)) {
            return Some(index);
        }
    }
    None
}

/// The descriptors in the meta shard's rows, from its leader.
async fn rows(pool: &Pool, cluster: &Cluster) -> BTreeMap<u64, ShardDescriptor> {
    let starts = [&b""[..], b"g", b"p", b"\xff\xff"];
    let key = |start: &[u8]| [b"\xff\xff/shards/", start].concat().into();
    let request = ShardRequest {
        shard: GroupId(META),
        generation: 0,
        hashing: None,
        request: Request::Latest {
            keys: starts.map(key).into(),
            scan: None,
        },
    };
    for node in cluster.nodes() {
        let body = RequestBody::Shard(request.clone());
        let answer = pool.call(node.address, body, Instant::now() + LIMIT).await;
        if let Ok(ServerBody::Shard(ShardReply::Response(Response::Read { versions, .. }))) = answer
        {
            let values = versions.into_iter().filter_map(|version| version?.value);
            let shard = |value: Bytes| -> ShardDescriptor {
                postcard::from_bytes(&value).expect("a row holds a descriptor")
            };
            return values.map(shard).map(|s| (s.id.0, s)).collect();
        }
    }
    BTreeMap::new()
}

/// Every node's map and the meta shard's rows name these voters.
async fn everybody_knows(cluster: &Cluster, pool: &Pool, id: u64, epoch: u32) {
    for node in 0..cluster.nodes().len() {
        eventually("every node knows the members", async || {
            let shard = shards(pool, cluster, node).await.remove(&id);
            shard.is_some_and(|s| s.configuration.epoch.0 >= epoch)
        })
        .await;
    }
    eventually("the meta shard knows the members", async || {
        let shard = rows(pool, cluster).await.remove(&id);
        shard.is_some_and(|s| s.configuration.epoch.0 >= epoch)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn members_are_replaced_by_hand_the_meta_shards_too() {
    let mut cluster = nodes(4);
    let pool = cluster.pool().expect("a pool");
    let writers = Writers::start(&cluster, 1).await;
    for id in [2, META] {
        // The leader goes, the node that had nothing of it comes.
        let (mut voters, others) = sides(&pool, &cluster, 0, id).await;
        let led = leader(&pool, &cluster, id).await.expect("a leader");
        voters.retain(|node| *node != led);
        voters.extend(&others);
        let named = names(&cluster, &voters);
        let args = ["members", &id.to_string(), "--voters", &named];
        let told = placement(&cluster, &args).await;
        assert!(told.contains("in configuration 3"), "{told}");
        // Once more changes nothing.
        let told = placement(&cluster, &args).await;
        assert!(told.contains("in configuration 3"), "{told}");
        everybody_knows(&cluster, &pool, id, 3).await;
        let left = cluster.nodes()[led].address;
        let of = ask::members(&pool, left, Some(GroupId(id)), LIMIT).await;
        let of = of.expect("the node answers");
        assert!(of.iter().all(|m| m.emptied), "{of:?}");
    }
    let reader = connect(&cluster).await;
    writers.stop(&reader).await;

    // Nobody has forgotten it after a restart of everything, and it can be undone.
    let before: Vec<u64> = value_of_all(&reader).await;
    for node in 0..4 {
        cluster.node_mut(node).kill();
    }
    for node in 0..4 {
        cluster.start_node(node).expect("the node starts again");
    }
    let reader = connect(&cluster).await;
    everybody_knows(&cluster, &pool, 2, 3).await;
    assert_eq!(value_of_all(&reader).await, before);
    for id in [2, META] {
        let (mut voters, others) = sides(&pool, &cluster, 0, id).await;
        voters.remove(0);
        voters.extend(&others);
        let named = names(&cluster, &voters);
        placement(&cluster, &["members", &id.to_string(), "--voters", &named]).await;
        everybody_knows(&cluster, &pool, id, 5).await;
    }
    assert_eq!(value_of_all(&reader).await, before);
}

async fn value_of_all(client: &Client) -> Vec<u64> {
    let mut values = Vec::new();
    for probe in probes(1) {
        let value = probe.read_once(client).await;
        values.push(value.expect("the cluster serves"));
    }
    values
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_is_drained_and_killed_for_good() {
    let mut cluster = nodes(5);
    let pool = cluster.pool().expect("a pool");
    let client = connect(&cluster).await;
    fill(&client, 400).await;
    let writers = Writers::start(&cluster, 1).await;
    let drained = leader(&pool, &cluster, 3).await.expect("a leader");
    let name = cluster.nodes()[drained].name.clone();
    let dry = drain(&cluster, &[&name, "--dry-run"]).await;
    assert!(dry.contains("nothing was done"), "{dry}");
    let told = drain(&cluster, &[&name]).await;
    assert!(told.contains("may be stopped for good"), "{told}");
    cluster.node_mut(drained).kill();
    let other = (drained + 1) % 5;
    let shards_now = shards(&pool, &cluster, other).await;
    assert_eq!(shards_now.len(), 4);
    let reader = connect(&cluster).await;
    writers.stop(&reader).await;

    // Everything goes off and on again, but for that node.
    let before = value_of_all(&reader).await;
    for node in 0..5 {
        cluster.node_mut(node).kill();
    }
    for node in (0..5).filter(|n| *n != drained) {
        cluster.start_node(node).expect("the node starts again");
    }
    let writers = Writers::start(&cluster, 2).await;
    let reader = connect(&cluster).await;
    assert_eq!(value_of_all(&reader).await, before);

    // It comes back, and is filled up again; another one is lost without a word.
    cluster.start_node(drained).expect("the node starts again");
    let name = cluster.nodes()[drained].name.clone();
    rejoin(&cluster, &name);
    placement(&cluster, &["apply"]).await;
    eventually("the node that is back has replicas", async || {
        let address = cluster.nodes()[drained].address;
        let members = ask::members(&pool, address, None, LIMIT).await;
        members.is_ok_and(|m| m.iter().any(|m| !m.emptied && m.holds_data))
    })
    .await;
    let lost = leader(&pool, &cluster, 2).await.expect("a leader");
    cluster.node_mut(lost).kill();
    let name = cluster.nodes()[lost].name.clone();
    let told = drain(&cluster, &[&name]).await;
    assert!(told.contains("no shard counts on it"), "{told}");
    let reader = connect(&cluster).await;
    writers.stop(&reader).await;
    assert_eq!(value_of_all(&reader).await, before);
    check_filled(&reader, 400).await;
    // It was left out while it was away; it finds out, and has nothing in the end.
    cluster.start_node(lost).expect("the node starts again");
    eventually("the node that was left out has nothing", async || {
        let address = cluster.nodes()[lost].address;
        let members = ask::members(&pool, address, None, LIMIT).await;
        members.is_ok_and(|m| !m.is_empty() && m.iter().all(|m| m.emptied))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_survives_the_leaders_and_its_own_command() {
    let mut cluster = nodes(4);
    let pool = cluster.pool().expect("a pool");
    let writers = Writers::start(&cluster, 1).await;
    let id = 3;
    for round in 0..6 {
        let (mut voters, others) = sides(&pool, &cluster, 0, id).await;
        let Some(coming) = others.first().copied() else {
            panic!("round {round}: {voters:?} {others:?}");
        };
        voters.remove(round % 3);
        voters.push(coming);
        let named = names(&cluster, &voters);
        let args = ["members", &id.to_string(), "--voters", &named];
        let mut command = spawn(&cluster, "placement", &args);
        // Somewhere between two of its steps, the leader goes, or who comes, or the command.
        let step = Duration::from_millis(70 * (round % 3) as u64);
        tokio::time::sleep(Duration::from_millis(40) + step).await;
        let led = leader(&pool, &cluster, id).await;
        let killed = led.filter(|_| round < 3).or(Some(coming));
        if let Some(node) = killed {
            cluster.node_mut(node).kill();
        }
        match round {
            0 | 4 => command.kill().expect("the command can be killed"),
            2 => interrupt(&command),
            _ => {}
        }
        let first = tokio::task::spawn_blocking(move || command.wait_with_output());
        if let Some(node) = killed {
            tokio::time::sleep(Duration::from_millis(300)).await;
            cluster.start_node(node).expect("the node starts again");
        }
        let out = first.await.expect("it ends").expect("its output is read");
        assert_ne!(out.status.code(), Some(2), "{}", text(&out));
        if round == 2 && out.status.code() == Some(1) {
            assert!(
                text(&out).contains("Run the command again"),
                "{}",
                text(&out)
            );
        }
        placement(&cluster, &args).await;
        let mut wanted = voters.clone();
        wanted.sort_unstable();
        eventually("the members are those asked for", async || {
            sides(&pool, &cluster, 0, id).await.0 == wanted
        })
        .await;
    }
    let reader = connect(&cluster).await;
    writers.stop(&reader).await;
}

/// Transfers between shards go on while both of them change their members, over and
/// over, with a leader killed in between.
#[tokio::test(flavor = "multi_thread")]
async fn money_moves_between_shards_that_move() {
    let mut options = survive::options();
    options.dcs = 5;
    let mut cluster = by_hand(start(options));
    survive::survive(&mut cluster, async |cluster, meter| {
        let pool = cluster.pool().expect("a pool");
        for node in ["n1", "n2"] {
            let told = drain(cluster, &[node]).await;
            assert!(told.contains("may be stopped for good"), "{told}");
            survive::progress(meter, 50).await;
        }
        cluster.node_mut(0).kill();
        // Nothing goes back to the first, but something to the second.
        rejoin(cluster, "n2");
        let led = leader(&pool, cluster, 3).await.expect("a leader");
        let drain = spawn(cluster, "placement", &["apply"]);
        cluster.node_mut(led).kill();
        survive::progress(meter, 50).await;
        cluster.start_node(led).expect("the node starts again");
        let out = tokio::task::spawn_blocking(move || drain.wait_with_output());
        let out = out.await.expect("it ends").expect("its output is read");
        assert_eq!(out.status.code(), Some(0), "{}", text(&out));
        cluster.start_node(0).expect("the node starts again");
        rejoin(cluster, "n1");
        placement(cluster, &["apply"]).await;
        survive::progress(meter, 50).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_find_a_shard_all_of_whose_first_members_are_gone() {
    let mut cluster = nodes(6);
    let pool = cluster.pool().expect("a pool");
    let client = connect(&cluster).await;
    client.put("a/key", "1").await.expect("the cluster serves");
    let (old, new) = sides(&pool, &cluster, 0, 2).await;
    let named = names(&cluster, &new);
    for id in [2, META] {
        placement(&cluster, &["members", &id.to_string(), "--voters", &named]).await;
    }
    everybody_knows(&cluster, &pool, 2, 3).await;
    // One that knows only how it was before: its map is as old as it is.
    for node in &old {
        cluster.node_mut(*node).kill();
    }
    let value = client.get("a/key").await.expect("the old client finds it");
    assert_eq!(value.as_deref(), Some(&b"1"[..]));
    client.put("a/key", "2").await.expect("it is served");
    let mut config = cluster.client_config();
    config.endpoints = vec![cluster.nodes()[new[0]].address.to_string()];
    let fresh = Client::connect(config).await.expect("a node answers");
    let value = fresh.get("a/key").await.expect("the new client finds it");
    assert_eq!(value.as_deref(), Some(&b"2"[..]));
    let shard = rows(&pool, &cluster).await.remove(&2).expect("a row");
    assert_eq!(shard.configuration.voters.len(), 3);
    assert_eq!(shard.configuration.epoch.0, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_is_refused_with_reasons() {
    let mut cluster = nodes(3);
    for (args, code, said) in [
        (
            &["members", "77", "--voters", "n1"][..],
            2,
            "there is no shard 77",
        ),
        (
            &["members", "2", "--voters", "n9"],
            2,
            "there are n1, n2, n3",
        ),
        (&["members", "2", "--voters", "n1,n2,n1"], 2, "named twice"),
        (
            &["members", "2", "--voters", "n1", "--witnesses", "n2,n3"],
            2,
            "take fewer witnesses",
        ),
    ] {
        let all = [&["placement"][..], args].concat();
        let out = synod(&cluster, &all, "");
        assert_eq!(out.status.code(), Some(code), "{args:?}: {}", text(&out));
        assert!(text(&out).contains(said), "{args:?}: {}", text(&out));
    }
    // There is nowhere to go.
    let out = synod(&cluster, &["node", "drain", "n1"], "");
    assert_eq!(out.status.code(), Some(1), "{}", text(&out));
    assert!(text(&out).contains("still needed"), "{}", text(&out));
    rejoin(&cluster, "n1");
    // Fewer can be asked for, and more again.
    placement(&cluster, &["members", "2", "--voters", "n1"]).await;
    placement(
        &cluster,
        &["members", "2", "--voters", "n2", "--learners", "n1"],
    )
    .await;
    placement(&cluster, &["apply", "--policy", "voters = 3"]).await;
    let pool = cluster.pool().expect("a pool");
    eventually("three voters are back", async || {
        sides(&pool, &cluster, 0, 2).await.0.len() == 3
    })
    .await;
    let client = connect(&cluster).await;
    client.put("a/key", "1").await.expect("the cluster serves");
    cluster.node_mut(0).kill();
    client.put("a/key", "2").await.expect("one of three may go");
}
