//! U1, as far as one read shows it: a lock-free read shows every version that
//! was decided anywhere before the node was asked. A leader whose lease is over,
//! or that joins a round which began before, would show older ones.

use super::{Context, Ledger, Rule, Verdict, What};
use synod_paxos::Timestamp;
use synod_shard::ShardReply;
use synod_shard::wire::show_key;
use synod_txn::{Key, Response};

pub(super) struct U1;

fn fresh(ledger: &Ledger, key: &Key, shown: Timestamp, stamp: u64) -> Verdict {
    let known = ledger.versions(key).into_iter().flatten();
    let before = known.filter(|v| v.stamp <= stamp && v.timestamp > shown);
    match before.max_by_key(|v| v.timestamp) {
        Some(missed) => Err(format!(
            "a read of {} showed the version at {shown}; one at {} by {} had been decided before \
             it was asked",
            show_key(key),
            missed.timestamp,
            missed.attempt
        )),
        None => Ok(()),
    }
}

impl Rule for U1 {
    fn number(&self) -> &'static str {
        "U1"
    }

    fn step(&mut self, cx: &Context<'_>) -> Verdict {
        for (caller, reply) in cx.look.step.replies {
            let ShardReply::Response(Response::Read { versions, rows, .. }) = reply else {
                continue;
            };
            let Some(question) = cx.book.question(cx.look.node, *caller) else {
                continue;
            };
            let What::Latest(keys) = &question.what else {
                continue;
            };
            for (key, shown) in keys.iter().zip(versions) {
                let shown = shown.as_ref().map_or(Timestamp(0), |v| v.timestamp);
                fresh(cx.ledger, key, shown, question.stamp)?;
            }
            for row in rows {
                fresh(cx.ledger, &row.key, row.timestamp, question.stamp)?;
            }
        }
        Ok(())
    }
}
