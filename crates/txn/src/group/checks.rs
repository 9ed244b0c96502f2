//! Bounds on what a client may ask. Breaking one changes nothing.

use crate::request::{CommitRequest, ScanRange};
use crate::settings::{MAX_PARTICIPANTS_BYTES, MAX_READ_KEYS};
use crate::types::{
    Key, MAX_KEY_BYTES, MAX_PARTICIPANTS, MAX_TRANSACTION_BYTES, MAX_VALUE_BYTES, Participant,
    Span, Write,
};
use std::collections::BTreeSet;
use synod_paxos::GroupId;

type Check = Result<(), String>;

fn key(key: &Key) -> Check {
    if key.len() > MAX_KEY_BYTES {
        let found = key.len();
        return Err(format!(
            "a key of {found} bytes is longer than {MAX_KEY_BYTES}; use a shorter key"
        ));
    }
    Ok(())
}

fn span(span: &Span) -> Check {
    key(&span.start)?;
    // One byte more: the end of a span of one key.
    if span.end.len() > MAX_KEY_BYTES + 1 {
        return Err(format!(
            "the end of a span is longer than {MAX_KEY_BYTES} bytes; use a shorter key"
        ));
    }
    Ok(())
}

/// Of a read.
pub(super) fn read(keys: &[Key], scan: Option<&ScanRange>) -> Check {
    if keys.len() > MAX_READ_KEYS {
        let found = keys.len();
        return Err(format!(
            "{found} keys in one read are more than {MAX_READ_KEYS}; read them in several requests"
        ));
    }
    keys.iter().try_for_each(key)?;
    let Some(scan) = scan else { return Ok(()) };
    if scan.limit == 0 {
        return Err("a scan with limit 0 reads nothing; ask for at least one row".into());
    }
    span(&scan.span)
}

fn write(write: &Write) -> Check {
    key(&write.key)?;
    let found = write.value.as_ref().map_or(0, |v| v.len());
    if found > MAX_VALUE_BYTES {
        return Err(format!(
            "a value of {found} bytes is longer than {MAX_VALUE_BYTES}; split it over several keys"
        ));
    }
    Ok(())
}

fn participants(shard: GroupId, request: &CommitRequest) -> Check {
    let list = &request.participants;
    if list.is_empty() || list.len() > MAX_PARTICIPANTS {
        let found = list.len();
        return Err(format!(
            "a commit names {found} shards; it must name 1 to {MAX_PARTICIPANTS}"
        ));
    }
    list.iter().try_for_each(|p| key(&p.anchor))?;
    if !list.is_sorted_by(|a, b| a.anchor < b.anchor) {
        return Err("the participants must ascend by anchor, each once".into());
    }
    let count = list.len() as u64;
    if u64::from(request.here) >= count || u64::from(request.coordinator) >= count {
        return Err("`here` or `coordinator` names no participant".into());
    }
    // An attempt has one intent and one vote per shard.
    let groups: BTreeSet<GroupId> = list.iter().map(|p| p.term.group).collect();
    let here = request.here as usize;
    let again = list
        .iter()
        .enumerate()
        .any(|(at, p)| at != here && (p.shard == shard || p.term.group == shard));
    if again || groups.len() < list.len() {
        return Err("the participants name a shard twice; name each shard once".into());
    }
    let bytes: usize = list.iter().map(Participant::weight).sum();
    if bytes > MAX_PARTICIPANTS_BYTES {
        return Err(format!(
            "the participants take {bytes} bytes, more than {MAX_PARTICIPANTS_BYTES}; \
             use shorter keys or fewer shards"
        ));
    }
    Ok(())
}

/// Of a Commit.
pub(super) fn commit(shard: GroupId, request: &CommitRequest) -> Check {
    participants(shard, request)?;
    request.writes.iter().try_for_each(write)?;
    request.reads.iter().try_for_each(span)?;
    if !request.writes.is_sorted_by(|a, b| a.key < b.key) {
        return Err("the writes must ascend by key, each key once".into());
    }
    let bytes: usize = request.writes.iter().map(Write::weight).sum();
    if bytes > MAX_TRANSACTION_BYTES {
        return Err(format!(
            "the writes take {bytes} bytes, more than {MAX_TRANSACTION_BYTES}; split the transaction"
        ));
    }
    if request.snapshot.is_some() {
        return Err(
            "optimistic commits are not in this version; begin a pessimistic transaction".into(),
        );
    }
    Ok(())
}
