//! `synod shard`: shards are split.

use super::cluster;
use super::records::{ANSWER, acting, change};
use super::status::first_key;
use crate::bytes;
use crate::connection::{Connection, ConnectionArgs};
use crate::exit::{Failure, Status};
use std::time::{Duration, Instant};
use synod_operate::Survey;
use synod_paxos::{GroupId, NodeId};
use synod_rpc::ask::{self, AskError};
use synod_rpc::placement::RecordChange;
use synod_rpc::split::{SplitAnswer, SplitRequest};
use synod_rpc::{NodeRequest, NodeResponse, Pool};
use synod_shard::wire::{ShardDescriptor, ShardMap, show_key};
use synod_shard::{Claim, META_SHARD, RESERVED_PREFIX, Records, SplitError};
use synod_txn::{Key, MAX_KEY_BYTES, Span};

/// Between two questions.
const POLL: Duration = Duration::from_millis(50);
/// After so long without an end the map is looked at again.
const LOOK: Duration = Duration::from_secs(1);
/// How long a node may take to say whether it leads the new shard.
const GLANCE: Duration = Duration::from_millis(500);

/// `synod shard …`
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  synod shard split --at accounts/5 --endpoint 127.0.0.1:7101 --certs certs
  synod shard split 3 --at \"x'00ff'\" --endpoint 127.0.0.1:7101 --certs certs

The keys from KEY on become a new shard, on the same nodes; nothing is copied, and both halves
serve on. Commits to the shard wait for a moment. It returns once the new shard has a leader; running
it again is harmless.")]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Cut a shard in two
    Split(SplitArgs),
}

/// `synod shard split …`
#[derive(Debug, clap::Args)]
pub struct SplitArgs {
    /// The shard's number, as `synod status` shows it; without it, the one that KEY lies in
    #[arg(value_name = "SHARD")]
    shard: Option<u64>,
    /// The first key of the new shard: text, or x'hex'
    #[arg(long, value_name = "KEY", value_parser = bytes::parse)]
    at: bytes::Given,
    /// How long it may take
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = crate::duration::parse)]
    timeout: Duration,
    #[command(flatten)]
    connection: ConnectionArgs,
}

/// Runs one of them.
pub async fn run(args: Args) -> Result<Status, Failure> {
    match args.command {
        Command::Split(args) => split(args).await,
    }
}

/// What is at the key.
#[derive(Debug, PartialEq, Eq)]
enum Found {
    /// A shard that can be cut there.
    Inside(ShardDescriptor),
    /// The beginning of one.
    Begins(ShardDescriptor),
}

/// Looks for the shard that is to be cut.
fn find(map: &ShardMap, wanted: Option<GroupId>, at: &Key) -> Result<Found, Failure> {
    if at.is_empty() || at.len() > MAX_KEY_BYTES {
        return Err(Failure::input(format!(
            "--at: a key has 1 to {MAX_KEY_BYTES} bytes, this one has {}",
            at.len()
        )));
    }
    if let Some(id) = wanted.filter(|id| map.shard(*id).is_none()) {
        let ids = map.shards.iter().map(|s| s.id.0.to_string());
        return Err(Failure::input(format!(
            "there is no shard {}; there are {}",
            id.0,
            ids.collect::<Vec<_>>().join(", ")
        )));
    }
    if wanted == Some(META_SHARD) || at.starts_with(RESERVED_PREFIX) {
        return Err(Failure::input(
            "the meta shard, from the bytes ff ff on, holds the cluster's own records and stays whole",
        ));
    }
    let owner = map.shard_of(at).ok_or_else(|| {
        Failure::cluster(
            "no node that answers knows whose the key is; see `synod status`, and run the command \
             again",
        )
    })?;
    if owner.span.start == *at {
        return Ok(Found::Begins(owner.clone()));
    }
    match wanted {
        Some(id) if id != owner.id => Err(Failure::input(format!(
            "{} lies in shard {}, not in shard {}: leave SHARD out, or name another key",
            show_key(at),
            owner.id.0,
            id.0
        ))),
        _ => Ok(Found::Inside(owner.clone())),
    }
}

/// A range, for people.
fn range(span: &Span) -> String {
    let end = match show_key(&span.end) {
        end if end.is_empty() => "(end)".to_owned(),
        end => end,
    };
    format!("{} to {end}", first_key(&show_key(&span.start)))
}

async fn split(args: SplitArgs) -> Result<Status, Failure> {
    let begun = Instant::now();
    let connection = args.connection.resolve()?;
    let pool = connection.pool()?;
    let mut splitter = Splitter {
        pool: &pool,
        connection: &connection,
        at: args.at.0.into(),
        deadline: begun + args.timeout,
        target: None,
        why: "nothing was tried".to_owned(),
    };
    let mut claimed = None;
    loop {
        let map = splitter.map().await?;
        let parent = match find(&map, args.shard.map(GroupId), &splitter.at)? {
            Found::Begins(child) if claimed == Some(child.id) => child,
            Found::Begins(shard) => {
                println!(
                    "shard {} begins there already: {}",
                    shard.id.0,
                    range(&shard.span)
                );
                return Ok(Status::Done);
            }
            Found::Inside(parent) => parent,
        };
        let id = match claimed {
            Some(id) => id,
            None => {
                splitter.check_version().await?;
                *claimed.insert(splitter.claim(&map).await?)
            }
        };
        let done = parent.id == id || splitter.press(&map, &parent, id).await?;
        if done {
            let (survey, leader) = splitter.led(id).await?;
            tell(&survey, &splitter.at, id, leader, begun.elapsed());
            return Ok(Status::Done);
        }
        if Instant::now() >= splitter.deadline {
            return Err(Failure::failed(format!(
                "shard {} was not split in time: {}. It may still be; run the command again: that \
                 is harmless",
                parent.id.0, splitter.why
            )));
        }
    }
}

/// Says what was done.
fn tell(survey: &Survey, at: &Key, id: GroupId, leader: NodeId, took: Duration) {
    let shards = &survey.map.shards;
    let child = shards.iter().position(|s| s.id == id);
    let before = child.and_then(|child| shards.get(child.checked_sub(1)?));
    if let (Some(parent), Some(child)) = (before, child.map(|child| &shards[child])) {
        // A node may have told of one half only.
        let kept = Span {
            start: parent.span.start.clone(),
            end: at.clone(),
        };
        println!("shard {}: {}", parent.id.0, range(&kept));
        println!("shard {}: {}", id.0, range(&child.span));
    }
    println!(
        "shard {} is led by {}, {} ms after the command began",
        id.0,
        survey.name(leader),
        took.as_millis()
    );
}

/// A split on its way.
struct Splitter<'a> {
    pool: &'a Pool,
    connection: &'a Connection,
    at: Key,
    deadline: Instant,
    /// Who seems to lead the shard.
    target: Option<NodeId>,
    /// What stood in the way last.
    why: String,
}

/// What became of one question.
enum Asked {
    Done,
    /// In a moment.
    Later,
    /// The map may have changed.
    Look,
}

impl Splitter<'_> {
    /// The map as all nodes know it together; of a split they may know one half for a moment.
    async fn map(&self) -> Result<ShardMap, Failure> {
        loop {
            let survey = Survey::take(self.pool, &self.connection.endpoints, ANSWER).await;
            let late = Instant::now() >= self.deadline;
            match survey {
                Ok(survey) if late || survey.map.is_whole() => return Ok(survey.map),
                Err(trouble) if late => return Err(trouble.into()),
                _ => tokio::time::sleep(POLL).await,
            }
        }
    }

    /// No id is spent on a split that the cluster's version does not allow.
    async fn check_version(&self) -> Result<(), Failure> {
        let since = synod_txn::Command::SPLIT_SINCE;
        match cluster::version(self.pool, self.connection).await? {
            Some(at) if at < since => Err(Failure::input(SplitError::Version { at, since })),
            _ => Ok(()),
        }
    }

    /// An id that is this command's alone.
    async fn claim(&self, map: &ShardMap) -> Result<GroupId, Failure> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        let claimed = tokio::time::timeout(left, self.try_claim(map)).await;
        claimed.unwrap_or_else(|_| {
            Err(Failure::failed(
                "no id for the new shard could be had in time, so nothing was changed; see `synod \
                 status`, and run the command again",
            ))
        })
    }

    async fn try_claim(&self, map: &ShardMap) -> Result<GroupId, Failure> {
        let nonce = uuid::Uuid::new_v4().as_u128();
        let highest = map.shards.iter().map(|s| s.id).max().unwrap_or(META_SHARD);
        loop {
            let last = self.last_claim().await?;
            let last = last.map_or(highest, |claim| claim.id.max(highest));
            let id = GroupId(last.0.saturating_add(1));
            let wanted = Claim { id, nonce };
            // Or it is somebody else's by now.
            let is_gone =
                |records: &Records| { records.claim }.is_some_and(|claim| claim.id >= wanted.id);
            let asked = RecordChange::ClaimShard(wanted);
            match change(self.pool, self.connection, asked, is_gone).await {
                Ok(acting) if acting.status.records.claim == Some(wanted) => return Ok(id),
                Ok(_) => {}
                Err(failure) => match self.last_claim().await? {
                    Some(claim) if claim == wanted => return Ok(id),
                    Some(claim) if claim.id >= wanted.id => {}
                    _ => return Err(failure),
                },
            }
        }
    }

    async fn last_claim(&self) -> Result<Option<Claim>, Failure> {
        let acting = acting(self.pool, self.connection).await?;
        Ok(acting.status.records.claim)
    }

    /// Asks the shard's leader again and again; false if the map is to be looked at again.
    async fn press(
        &mut self,
        map: &ShardMap,
        parent: &ShardDescriptor,
        child: GroupId,
    ) -> Result<bool, Failure> {
        let until = self.deadline.min(Instant::now() + LOOK);
        while Instant::now() < until {
            let members = &parent.configuration.voters;
            let target = self.target.filter(|node| members.contains(node));
            let target = target.unwrap_or(parent.preferred_leader);
            let asked = match map.node(target) {
                Some(node) => self.ask(node.address, parent, child).await?,
                None => Asked::Later,
            };
            match asked {
                Asked::Done => return Ok(true),
                Asked::Look => break,
                Asked::Later => {}
            }
            if self.target.is_none() {
                // The next one, round and round.
                let at = members.iter().position(|node| *node == target);
                let next = at.map_or(0, |at| (at + 1) % members.len().max(1));
                self.target = members.get(next).copied();
            }
            tokio::time::sleep(POLL).await;
        }
        Ok(false)
    }

    /// Asks one node, once. Forgets who leads if that one does not.
    async fn ask(
        &mut self,
        node: std::net::SocketAddr,
        parent: &ShardDescriptor,
        child: GroupId,
    ) -> Result<Asked, Failure> {
        let request = SplitRequest {
            shard: parent.id,
            at: self.at.clone(),
            child,
        };
        let request = NodeRequest::SplitShard(Box::new(request));
        let error = match ask::try_ask(self.pool, node, request, ANSWER).await {
            Ok(NodeResponse::Split(SplitAnswer::Done)) => return Ok(Asked::Done),
            Ok(NodeResponse::Split(SplitAnswer::Underway)) => {
                "it waits for transactions under way".clone_into(&mut self.why);
                return Ok(Asked::Later);
            }
            Ok(NodeResponse::Split(SplitAnswer::Refused(error))) => error,
            Ok(other) => {
                return Err(Failure::cluster(format!(
                    "the node at {node} answered {other:?} to SplitShard"
                )));
            }
            Err(AskError::Refused(reason)) => return Err(Failure::input(reason)),
            // It may be split all the same; asking again tells.
            Err(AskError::Lost(reason)) => {
                self.target = None;
                self.why = reason;
                return Ok(Asked::Later);
            }
        };
        self.why = error.to_string();
        match error {
            SplitError::NotLeader { leader } => {
                self.target = leader;
                Ok(Asked::Later)
            }
            SplitError::NotReady | SplitError::Underway { .. } | SplitError::Busy { .. } => {
                Ok(Asked::Later)
            }
            // Somebody else has split it, or this command's own question was answered late.
            SplitError::NotInside | SplitError::Taken { .. } => Ok(Asked::Look),
            SplitError::Meta | SplitError::Version { .. } => Err(Failure::input(error)),
        }
    }

    /// Waits until the new shard has a leader in office.
    async fn led(&self, id: GroupId) -> Result<(Survey, NodeId), Failure> {
        loop {
            let survey = Survey::take(self.pool, &self.connection.endpoints, GLANCE).await;
            if let Ok(survey) = survey
                && survey.map.shard(id).is_some()
                && let Some((leader, _)) = survey.leader(id)
            {
                return Ok((survey, leader));
            }
            if Instant::now() >= self.deadline {
                return Err(Failure::failed(format!(
                    "the shard is split, but the new one, {}, has no leader yet; look at `synod \
                     status`",
                    id.0
                )));
            }
            tokio::time::sleep(POLL).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use synod_paxos::Configuration;

    fn shard(id: u64, start: &'static [u8], end: &'static [u8]) -> ShardDescriptor {
        ShardDescriptor {
            id: GroupId(id),
            span: Span {
                start: Key::from_static(start),
                end: Key::from_static(end),
            },
            generation: 1,
            configuration: Configuration::of_voters(vec![NodeId(1)]),
            preferred_leader: NodeId(1),
            born: None,
        }
    }

    fn map() -> ShardMap {
        ShardMap {
            nodes: Vec::new(),
            shards: vec![
                shard(2, b"", b"g"),
                shard(3, b"g", b"\xff\xff"),
                shard(1, b"\xff\xff", b""),
            ],
        }
    }

    fn found(wanted: Option<u64>, at: &[u8]) -> Result<(bool, u64), String> {
        let found = find(&map(), wanted.map(GroupId), &Key::copy_from_slice(at));
        match found.map_err(|failure| failure.to_string())? {
            Found::Inside(shard) => Ok((true, shard.id.0)),
            Found::Begins(shard) => Ok((false, shard.id.0)),
        }
    }

    #[test]
    fn the_shard_is_found_by_the_key() {
        assert_eq!(found(None, b"c"), Ok((true, 2)));
        assert_eq!(found(Some(3), b"gg"), Ok((true, 3)));
        // What is there already, whichever of both sides is named.
        for wanted in [None, Some(2), Some(3)] {
            assert_eq!(found(wanted, b"g"), Ok((false, 3)));
        }
    }

    #[test]
    fn what_cannot_be_cut_is_refused_with_reasons() {
        for (wanted, at, said) in [
            (None, &b""[..], "1 to 8192 bytes"),
            (None, &[7; MAX_KEY_BYTES + 1], "this one has 8193"),
            (Some(9), b"c", "there are 2, 3, 1"),
            (Some(1), b"c", "stays whole"),
            (None, b"\xff\xff/nodes", "stays whole"),
            (Some(3), b"c", "lies in shard 2, not in shard 3"),
        ] {
            let refused = found(wanted, at).expect_err(said);
            assert!(refused.contains(said), "{refused}");
        }
    }

    #[test]
    fn ranges_are_shown_with_their_ends() {
        let shown = |shard: ShardDescriptor| range(&shard.span);
        assert_eq!(shown(shard(2, b"", b"g")), "(start) to g");
        assert_eq!(shown(shard(2, b"g", b"")), "g to (end)");
    }
}
