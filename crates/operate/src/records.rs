//! The cluster's records, asked of the node that leads the meta shard and changed by it.

use crate::Trouble;
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use synod_rpc::ask::{self, AskError};
use synod_rpc::placement::{PlacementStatus, RecordChange};
use synod_rpc::{NodeRequest, Pool};

/// How long a node may take to answer.
const ANSWER: Duration = Duration::from_secs(2);
/// How long a change may take to show in the records.
const SHOWN: Duration = Duration::from_secs(30);
/// A cluster without a leader of its meta shard is waited for so long, where nobody says how long.
pub const FAILOVER: Duration = Duration::from_secs(10);
/// A change that does not show after so long is asked for again.
const AGAIN: Duration = Duration::from_secs(3);
/// Between two looks.
const POLL: Duration = Duration::from_millis(50);

/// The node whose keeper acts, and what it knows.
pub struct Acting {
    /// Where it is reached.
    pub address: SocketAddr,
    /// The records, and what it does about them.
    pub status: PlacementStatus,
}

/// Finds it, with patience for a failover until then.
///
/// # Errors
/// When there is none until then, or no node answers.
pub async fn acting(
    pool: &Pool,
    endpoints: &[SocketAddr],
    until: Instant,
) -> Result<Acting, Trouble> {
    let mut last = nobody_acts();
    loop {
        match tokio::time::timeout_at(until.into(), find(pool, endpoints)).await {
            Ok(Ok(acting)) => return Ok(acting),
            Ok(Err(trouble)) => last = trouble,
            Err(_) => return Err(last),
        }
        if Instant::now() >= until {
            return Err(last);
        }
        tokio::time::sleep(POLL).await;
    }
}

/// Looks for it once; among all nodes that the endpoints know.
///
/// # Errors
/// When no node that answers leads the meta shard.
pub async fn find(pool: &Pool, endpoints: &[SocketAddr]) -> Result<Acting, Trouble> {
    let map = crate::map(pool, endpoints, ANSWER).await?;
    let mut asked = tokio::task::JoinSet::new();
    for node in &map.nodes {
        let (pool, address) = (pool.clone(), node.address);
        asked.spawn(async move { (address, ask::placement(&pool, address, ANSWER).await) });
    }
    while let Some(answer) = asked.join_next().await {
        if let Ok((address, Ok(status))) = answer
            && status.acting
        {
            return Ok(Acting { address, status });
        }
    }
    Err(nobody_acts())
}

fn nobody_acts() -> Trouble {
    Trouble::Unreachable(
        "no node leads the meta shard now, so nothing was changed; see `synod status`, and run the \
         command again"
            .to_owned(),
    )
}

/// Has a change made, and waits until it shows.
///
/// # Errors
/// When it is refused, does not show for long, or no node answers.
pub async fn change(
    pool: &Pool,
    endpoints: &[SocketAddr],
    change: RecordChange,
    shows: impl AsyncFn(&Acting) -> bool,
) -> Result<Acting, Trouble> {
    let begun = Instant::now();
    let mut asked: Option<Instant> = None;
    loop {
        let late = begun.elapsed() > SHOWN;
        match find(pool, endpoints).await {
            Ok(acting) if shows(&acting).await => return Ok(acting),
            Ok(acting) if asked.is_none_or(|at| at.elapsed() > AGAIN) && !late => {
                let request = NodeRequest::ChangeRecords(Box::new(change.clone()));
                match ask::try_ask(pool, acting.address, request, ANSWER).await {
                    Err(AskError::Refused(reason)) if !reason.contains("Ask again") => {
                        return Err(Trouble::Input(reason));
                    }
                    // It may have been taken on all the same; the records tell.
                    Ok(_) | Err(_) => {}
                }
                asked = Some(Instant::now());
            }
            Ok(_) => {}
            Err(trouble) if late => return Err(trouble),
            Err(_) => {}
        }
        if late {
            return Err(Trouble::Failed(format!(
                "the change does not show in the cluster's records after {} s; it may still be \
                 made. Run the command again: that is harmless",
                SHOWN.as_secs()
            )));
        }
        tokio::time::sleep(POLL).await;
    }
}
