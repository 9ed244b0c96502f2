//! The cluster's records: the node that leads the meta shard reads them once a second,
//! and changes them as administrators ask it to.
//!
//! Nobody else writes them, so what is read and what is written upon it in the same term
//! belong together. What the rows say about nodes goes on to everybody by gossip;
//! policies and settings are the keeper's.

use super::admin::refused;
use super::driver::Driver;
use super::lanes::OWN_RECORDS;
use super::own;
use std::collections::VecDeque;
use std::time::{Duration, Instant};
use synod_paxos::{ClusterVersion, GroupId, NodeId, Term, Timestamp};
use synod_placement::{Locality, Policy, Sharding, Tiers, check_setting};
use synod_rpc::placement::RecordChange;
use synod_rpc::wire::NodeResponse;
use synod_shard::records::{self, NodeRow};
use synod_shard::wire::show_key;
use synod_shard::{Claim, META_SHARD, NodeDescriptor, Records, Shard, ShardReply, Standing};
use synod_txn::request::ScanRange;
use synod_txn::{ClientId, Command, Hashing, Key, Request, Response, Row, Write};

/// Between two readings.
const INTERVAL: Duration = Duration::from_secs(1);
/// A request without an answer is given up after this long.
const PATIENCE: Duration = Duration::from_secs(5);
/// Pages of one reading, at most: more rows than any cluster has.
const PAGES: u32 = 1_000;
/// Changes that wait to be written, at most.
const CHANGES: usize = 64;

/// What is under way.
#[derive(Debug)]
enum Step {
    Idle,
    /// Rows of the pages read so far, and how many pages these were.
    Reading(Records, u32),
    Writing,
}

/// What was read, what is being read, and what is to be written.
#[derive(Debug)]
pub(super) struct Reading {
    /// Not before; once a request is under way, until then it is waited for.
    next: Instant,
    /// The number of the last request.
    number: u64,
    step: Step,
    /// As of the last whole reading; none if this node does not lead the meta shard.
    latest: Option<Records>,
    changes: VecDeque<RecordChange>,
    client: ClientId,
}

impl Reading {
    pub(super) fn new(now: Instant) -> Reading {
        Reading {
            next: now,
            number: 0,
            step: Step::Idle,
            latest: None,
            changes: VecDeque::new(),
            client: own::client(),
        }
    }

    /// The records, if this node leads the meta shard and has read them.
    pub(super) fn latest(&self) -> Option<&Records> {
        self.latest.as_ref()
    }
}

/// What a change writes; nothing if the records say so already. No shard has a higher id
/// than `highest`. The error is in words.
fn write_of(
    change: &RecordChange,
    records: &Records,
    highest: GroupId,
) -> Result<Option<Write>, String> {
    let write = |row: NodeRow| Write {
        key: row.key(),
        value: row.value(),
    };
    let known = |id: NodeId| records.nodes.iter().find(|row| row.node.id == id);
    match change {
        RecordChange::Node(node) => {
            check_place(node, records)?;
            match known(node.id) {
                Some(row) if row.standing == Standing::Retired => {
                    if check_twins(&row.node, records).is_err() {
                        return Err(format!(
                            "this is the {} that was taken out, and another one has taken its place: \
                             give this one an empty directory, and a name and address of its own",
                            node.name
                        ));
                    }
                    return Err(format!(
                        "node {} was taken out of the cluster: `synod node rejoin {}`",
                        node.name, node.name
                    ));
                }
                Some(row) if row.node == *node => return Ok(None),
                _ => {}
            }
            check_twins(node, records)?;
            let mut row = NodeRow::first(node.clone());
            row.standing = known(node.id).map_or(Standing::Active, |known| known.standing);
            Ok(Some(write(row)))
        }
        RecordChange::Standing { node, standing } => {
            let row = known(*node).ok_or_else(|| format!("there is no node {node}"))?;
            if row.standing == Standing::Retired && *standing != Standing::Retired {
                check_twins(&row.node, records)?;
            }
            let mut changed = row.clone();
            changed.standing = *standing;
            Ok((changed != *row).then(|| write(changed)))
        }
        RecordChange::Policy { prefix, text } => {
            if let Some(text) = text {
                let policy = text.parse::<Policy>().map_err(|error| error.to_string())?;
                check_sharding(prefix, &policy, records)?;
            }
            let same = records.policies.get(prefix) == text.as_ref();
            Ok((!same).then(|| Write {
                key: records::policy_key(prefix),
                value: text.clone().map(Into::into),
            }))
        }
        RecordChange::Placement { manual } => Ok((records.manual != *manual).then(|| Write {
            key: records::placement_key(),
            value: Some(records::placement_value(!manual)),
        })),
        RecordChange::Version(version) => {
            let current = records.version.unwrap_or(ClusterVersion::OLDEST);
            if *version < current {
                return Err(format!(
                    "the cluster is at version {}, and a cluster's version is never lowered",
                    current.0
                ));
            }
            Ok((*version > current).then(|| Write {
                key: records::version_key(),
                value: records::version_value(*version),
            }))
        }
        RecordChange::Setting { name, value } => {
            let name = check_setting(name, *value).map_err(|error| error.to_string())?;
            let same = records.settings.get(name).copied() == *value;
            Ok((!same).then(|| Write {
                key: records::setting_key(name),
                value: value.map(records::setting_value),
            }))
        }
        RecordChange::ClaimShard(claim) => {
            let new = claim.follows(records.claim, highest);
            let new = new.map_err(|error| error.to_string())?;
            Ok(new.then(|| Write {
                key: Claim::key(),
                value: claim.value(),
            }))
        }
    }
}

/// What a policy says of how keys are stored must be possible, and readable to all nodes; and
/// neither may a hashed directory have others within, whose prefixes stored keys could have by chance.
fn check_sharding(prefix: &[u8], policy: &Policy, records: &Records) -> Result<(), String> {
    let hashes = |policy: &Policy| matches!(policy.sharding, Some(Sharding::Hash(_)));
    let others = records
        .policies
        .iter()
        .filter(|(other, _)| !other.is_empty());
    for (other, text) in others.filter(|(other, _)| *other != prefix) {
        let other_hashes = text.parse::<Policy>().is_ok_and(|other| hashes(&other));
        let within = prefix.starts_with(other) && other_hashes;
        if within || (other.starts_with(prefix) && hashes(policy)) {
            return Err(format!(
                "a hashed directory has no other directories within, and there is the policy of {}",
                show_key(&other.clone().into())
            ));
        }
    }
    let Some(sharding) = policy.sharding else {
        return Ok(());
    };
    let (version, since) = (records.version.unwrap_or_default(), Command::HASH_SINCE);
    if version < since {
        return Err(format!(
            "`sharding` is known from cluster version {} on: run `synod cluster upgrade`",
            since.0
        ));
    }
    if let Sharding::Hash(slots) = sharding {
        let hashing = Hashing::new(prefix.to_vec().into(), slots.into());
        hashing.map_err(|error| error.to_string())?;
    }
    Ok(())
}

/// Nobody else may have a node's name or address.
fn check_twins(node: &NodeDescriptor, records: &Records) -> Result<(), String> {
    let rows = records.nodes.iter();
    let mut others = rows.filter(|row| row.node.id != node.id && row.standing != Standing::Retired);
    let twin = others.find(|r| r.node.name == node.name || r.node.address == node.address);
    let Some(NodeRow { node: twin, .. }) = twin else {
        return Ok(());
    };
    Err(if twin.name == node.name {
        format!(
            "there is a node {} at {} already, with another id: if that one has lost its directory \
             and this is its successor, run `synod node decommission {}` first",
            twin.name, twin.address, twin.name
        )
    } else {
        format!(
            "the address {} is that of {}: if that one has moved, run `synod node join` for it at \
             its new address first; if it is gone, `synod node decommission {}`",
            twin.address, twin.name, twin.name
        )
    })
}

/// Its locality must be one, and its tiers in the same order as everybody's.
fn check_place(node: &NodeDescriptor, records: &Records) -> Result<(), String> {
    let bad = |error: String| format!("its locality is `{}`: {error}", node.locality);
    let own: Locality = node.locality.parse().map_err(|e| bad(format!("{e}")))?;
    let rows = records.nodes.iter();
    let others = rows.filter(|row| row.standing != Standing::Retired && row.node.id != node.id);
    let others = others.filter_map(|row| Some((row.node.id, row.node.locality.parse().ok()?)));
    let places: Vec<(NodeId, Locality)> = others.chain([(node.id, own)]).collect();
    let tiers = Tiers::of(places.iter().map(|(id, place)| (*id, place)));
    tiers.map(|_| ()).map_err(|error| bad(error.to_string()))
}

/// The records as they are once this is written.
fn with(records: &mut Records, write: &Write) {
    let row = Row {
        key: write.key.clone(),
        value: write.value.clone().unwrap_or_default(),
        timestamp: Timestamp(u64::MAX),
    };
    records.replace(&row);
}

impl Driver {
    /// Takes a change on; it shows in the records once it is made.
    pub(super) fn change_records(&mut self, change: RecordChange) -> NodeResponse {
        let Some(records) = &self.reading.latest else {
            return refused(
                "this node does not lead the meta shard; nothing was changed. Ask again",
            );
        };
        if self.reading.changes.len() >= CHANGES {
            return NodeResponse::Overloaded {
                retry_after_millis: 1_000,
            };
        }
        if let Err(reason) = write_of(&change, records, self.highest_shard()) {
            return refused(format!("{reason}. Nothing was changed"));
        }
        if let Err(reason) = self.allows(&change) {
            return refused(format!("{reason}. Nothing was changed"));
        }
        self.reading.changes.push_back(change);
        if !matches!(self.reading.step, Step::Writing) {
            self.reading.next = Instant::now();
        }
        NodeResponse::Done
    }

    /// The highest id that a shard has, as far as this node knows.
    fn highest_shard(&self) -> GroupId {
        let shards = self.machine.worker().map(|worker| &worker.map().shards);
        let ids = shards.into_iter().flatten().map(|shard| shard.id);
        ids.max().unwrap_or(META_SHARD)
    }

    /// A node that a shard counts on, as far as this one knows, is not taken out, and no
    /// version begins that this one does not know.
    fn allows(&self, change: &RecordChange) -> Result<(), String> {
        let supports = self.config.supports;
        if let RecordChange::Version(version) = change
            && *version > supports.newest
        {
            return Err(format!(
                "node {} leads the meta shard and knows cluster versions {supports}, not {}",
                self.config.name, version.0
            ));
        }
        let RecordChange::Standing {
            node,
            standing: Standing::Retired,
        } = change
        else {
            return Ok(());
        };
        let shards = self.machine.worker().map(|worker| &worker.map().shards);
        let mut shards = shards.into_iter().flatten();
        match shards.find(|s| s.configuration.is_member(*node)) {
            Some(shard) => Err(format!(
                "shard {} still counts on that node: drain it first",
                shard.id.0
            )),
            None => Ok(()),
        }
    }

    /// Goes on with reading and writing, if this node leads the meta shard.
    pub(super) fn read_records(&mut self, now: Instant) {
        let answers = self.lanes.own_answers(OWN_RECORDS);
        let meta = self.machine.worker().and_then(|w| w.shard(META_SHARD));
        if !meta.is_some_and(Shard::in_office) {
            if self.reading.latest.is_some() || !matches!(self.reading.step, Step::Idle) {
                // Whoever asked for a change sees that it was not made, and asks again.
                self.reading = Reading {
                    number: self.reading.number,
                    ..Reading::new(now)
                };
            }
            return;
        }
        for (number, reply) in answers {
            if number == self.reading.number {
                self.records_answer(now, reply);
            }
        }
        if now >= self.reading.next {
            self.read_page(now, Records::default(), 0, None);
        }
    }

    fn ask_for_records(&mut self, now: Instant, request: Request) {
        self.reading.number += 1;
        self.reading.next = now + PATIENCE;
        self.ask_meta(OWN_RECORDS, self.reading.number, request);
    }

    fn read_page(&mut self, now: Instant, so_far: Records, pages: u32, from: Option<Key>) {
        self.reading.step = Step::Reading(so_far, pages);
        let scan = ScanRange {
            span: Records::span(from),
            limit: u32::MAX,
            reverse: false,
        };
        let request = Request::Latest {
            keys: Vec::new(),
            scan: Some(scan),
        };
        self.ask_for_records(now, request);
    }

    fn records_answer(&mut self, now: Instant, reply: ShardReply) {
        let step = std::mem::replace(&mut self.reading.step, Step::Idle);
        let ShardReply::Response(response) = reply else {
            self.reading.next = now + INTERVAL;
            return;
        };
        match (step, response) {
            (
                Step::Reading(mut records, pages),
                Response::Read {
                    term,
                    rows,
                    more,
                    now: told,
                    ..
                },
            ) => {
                rows.iter().for_each(|row| records.read(row));
                match rows.last() {
                    Some(last) if more && pages < PAGES => {
                        let next = [&last.key[..], &[0]].concat().into();
                        self.read_page(now, records, pages + 1, Some(next));
                    }
                    _ => self.have_read(now, records, term, told),
                }
            }
            // What was written shows at once.
            (Step::Writing, Response::Outcome { .. }) => self.reading.next = now,
            (_, response) => {
                tracing::debug!(?response, "the cluster's records are read later");
                self.reading.next = now + INTERVAL;
            }
        }
    }

    fn have_read(&mut self, now: Instant, mut records: Records, term: Term, told: Timestamp) {
        self.machine.learn_nodes(&mut self.lanes, &records.nodes);
        if let Some(version) = records.version {
            self.machine.learn_version(&mut self.lanes, version);
        }
        let mut writes: Vec<Write> = Vec::new();
        let highest = self.highest_shard();
        while let Some(change) = self.reading.changes.front() {
            let allowed = self.allows(change);
            match allowed.and_then(|()| write_of(change, &records, highest)) {
                // One after the other where two are about the same.
                Ok(Some(write)) if writes.iter().any(|w| w.key == write.key) => break,
                Ok(Some(write)) => {
                    tracing::info!(?change, "the cluster's records change");
                    with(&mut records, &write);
                    writes.push(write);
                }
                Ok(None) => {}
                Err(reason) => tracing::warn!(%reason, ?change, "a change is not made"),
            }
            self.reading.changes.pop_front();
        }
        if writes.is_empty() {
            self.reading.latest = Some(records);
            self.reading.next = now + INTERVAL;
            return;
        }
        writes.sort_by(|a, b| a.key.cmp(&b.key));
        self.reading.step = Step::Writing;
        let commit = own::commit(self.reading.client, writes, term, told);
        self.ask_for_records(now, commit);
    }

    /// Whether this node was taken out of the cluster.
    pub(super) fn is_retired(&self) -> bool {
        let me = self.directory.identity().node;
        let worker = self.machine.worker();
        worker.is_some_and(|w| w.roster().standing(me) == Some(Standing::Retired))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(change: &RecordChange, records: &Records) -> Result<Option<Write>, String> {
        write_of(change, records, GroupId(4))
    }

    fn node(id: u64, name: &str, port: u16) -> NodeDescriptor {
        NodeDescriptor {
            id: NodeId(id),
            name: name.to_owned(),
            address: std::net::SocketAddr::from(([127, 0, 0, 1], port)),
            locality: "dc=a".to_owned(),
        }
    }

    fn records() -> Records {
        Records {
            nodes: vec![NodeRow::first(node(1, "n1", 7001))],
            ..Records::default()
        }
    }

    #[test]
    fn a_node_joins_once_and_under_a_name_and_address_of_its_own() {
        let mut known = records();
        let join = |node: NodeDescriptor, known: &Records| {
            written(&RecordChange::Node(node), known).map(|write| write.is_some())
        };
        assert_eq!(join(node(2, "n2", 7002), &known), Ok(true));
        assert_eq!(join(node(1, "n1", 7001), &known), Ok(false));
        for twin in [node(2, "n1", 7002), node(2, "n2", 7001)] {
            let refused = join(twin, &known).expect_err("a twin");
            assert!(refused.contains("decommission n1"), "{refused}");
        }
        let mut crossed = node(2, "n2", 7002);
        known.nodes[0].node.locality = "dc=a,rack=r".to_owned();
        crossed.locality = "rack=r,dc=a".to_owned();
        assert!(join(crossed, &known).is_err());
        let mut odd = node(2, "n2", 7002);
        odd.locality = "nowhere".to_owned();
        assert!(join(odd, &known).is_err());
        // Its successor may take the name of one that was taken out.
        known.nodes[0].standing = Standing::Retired;
        assert_eq!(join(node(2, "n1", 7001), &known), Ok(true));
        let refused = join(node(1, "n1", 7001), &known).expect_err("it is out");
        assert!(refused.contains("rejoin n1"), "{refused}");
        // And then the old one does not come back in.
        known.nodes.push(NodeRow::first(node(2, "n1", 7001)));
        let back = RecordChange::Standing {
            node: NodeId(1),
            standing: Standing::Active,
        };
        assert!(written(&back, &known).is_err());
    }

    #[test]
    fn of_two_joins_at_once_the_second_sees_the_first() {
        let mut known = records();
        let first = written(&RecordChange::Node(node(2, "n2", 7002)), &known);
        with(&mut known, &first.expect("it may").expect("it is new"));
        assert!(written(&RecordChange::Node(node(3, "n2", 7003)), &known).is_err());
    }

    #[test]
    fn only_what_is_new_is_written() {
        let known = records();
        let drain = |standing| RecordChange::Standing {
            node: NodeId(1),
            standing,
        };
        assert_eq!(written(&drain(Standing::Active), &known), Ok(None));
        let write = written(&drain(Standing::Draining), &known).expect("it is known");
        let value = write.and_then(|w| w.value).expect("a row");
        let row = NodeRow::decode(&value, Timestamp(9)).expect("a row");
        assert_eq!(row.standing, Standing::Draining);
        let policy = |text: Option<&str>| RecordChange::Policy {
            prefix: b"a/".to_vec(),
            text: text.map(str::to_owned),
        };
        assert!(written(&policy(Some("voters = many")), &known).is_err());
        assert!(matches!(
            written(&policy(Some("voters = 5")), &known),
            Ok(Some(_))
        ));
        assert_eq!(written(&policy(None), &known), Ok(None));
        let manual = RecordChange::Placement { manual: false };
        assert_eq!(written(&manual, &known), Ok(None));
    }

    #[test]
    fn a_version_is_raised_and_never_lowered() {
        let mut known = records();
        let raise = |version| RecordChange::Version(ClusterVersion(version));
        assert_eq!(written(&raise(1), &known), Ok(None), "it is the oldest");
        let write = written(&raise(3), &known).expect("it may");
        with(&mut known, &write.expect("it is new"));
        assert_eq!(known.version, Some(ClusterVersion(3)));
        assert_eq!(written(&raise(3), &known), Ok(None));
        let refused = written(&raise(2), &known).expect_err("it is lower");
        assert!(refused.contains("at version 3"), "{refused}");
    }

    #[test]
    fn settings_are_known_ones_within_their_bounds() {
        let mut known = records();
        let setting = |name: &str, value| RecordChange::Setting {
            name: name.to_owned(),
            value,
        };
        let size = |value| setting("shard.split_size", value);
        let first = written(&size(Some(1 << 20)), &known).expect("it may");
        with(&mut known, &first.expect("it is new"));
        assert_eq!(known.settings["shard.split_size"], 1 << 20);
        assert_eq!(written(&size(Some(1 << 20)), &known), Ok(None));
        assert!(written(&size(Some(1)), &known).is_err());
        // Strangers' rows under `/settings/` are no numbers to be set.
        for name in ["placement", "shard-id", "x"] {
            assert!(written(&setting(name, Some(7)), &known).is_err(), "{name}");
        }
        let back = written(&size(None), &known).expect("it may");
        with(&mut known, &back.expect("it is a change"));
        assert!(known.settings.is_empty());
    }

    #[test]
    fn of_two_who_claim_an_id_one_has_it() {
        let mut known = records();
        let claim = |id: u64, nonce: u128| {
            let id = GroupId(id);
            RecordChange::ClaimShard(Claim { id, nonce })
        };
        assert!(written(&claim(4, 1), &known).is_err(), "a shard has it");
        let first = written(&claim(5, 1), &known).expect("it is free");
        with(&mut known, &first.expect("it is new"));
        assert_eq!(written(&claim(5, 1), &known), Ok(None));
        let refused = written(&claim(5, 2), &known).expect_err("it is gone");
        assert!(refused.contains("up to 5"), "{refused}");
        assert!(matches!(written(&claim(6, 2), &known), Ok(Some(_))));
    }
}
