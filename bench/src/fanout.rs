//! How a commit's time grows with the shards that take part: one client, one
//! write in each of them, nothing else to do. That goes for the commit before, too:
//! its resolutions and what the engine takes of it are done when the next begins.

use crate::error::Error;
use crate::measure::{self, KEY_BYTES};
use crate::plan::{Group, Scale};
use crate::record::{Figures, Record, Subject};
use crate::system::{Layout, System, Target};
use crate::workload::Values;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::time::{Duration, Instant};
use synod_harness::load::{Keys, Tally};

/// Numbers of participants take turns, so that all meet the same machine.
const TURNS: u32 = 10;

/// From one commit to the next: what is left of one is lazy for some 5 ms, and gathers for the engine
/// for another 10.
const PAUSE: Duration = Duration::from_millis(20);

/// Measures it.
///
/// # Errors
/// When the cluster does not come up or a commit fails.
pub async fn run(
    layout: &Layout,
    scale: &Scale,
    tell: &mut impl FnMut(Record) -> Result<(), Error>,
) -> Result<(), Error> {
    let shards = scale.participants.iter().copied().max().unwrap_or(1);
    let keys = Keys {
        count: u64::from(shards) * 100,
        key_bytes: KEY_BYTES,
    };
    let mut layout = layout.clone();
    layout.splits = keys.splits(shards.into());
    let target = Target::start(System::Synod, &layout).await?;
    measure::fill(&target.db, &keys, Group::Fanout.value_bytes()).await?;
    let values = Values::new(Group::Fanout.value_bytes());
    let mut random = StdRng::seed_from_u64(0);
    let mut tallies = vec![Tally::default(); scale.participants.len()];
    for turn in 0..=TURNS {
        for (participants, tally) in scale.participants.iter().zip(&mut tallies) {
            for _ in 0..scale.fanout_commits.div_ceil(TURNS) {
                let first = random.random_range(0..shards);
                let mut row = |i: u32| {
                    let shard = u64::from((first + i) % shards);
                    let key = shard * 100 + random.random_range(0..100);
                    (keys.key(key), values.pick(&mut random).to_vec())
                };
                let rows: Vec<(String, Vec<u8>)> = (0..*participants).map(&mut row).collect();
                tokio::time::sleep(PAUSE).await;
                let begun = Instant::now();
                let done = target.db.put_all(&rows).await;
                // The first turn is a warm-up.
                if turn > 0 {
                    tally.count(begun.elapsed(), done);
                } else {
                    done?;
                }
            }
        }
    }
    for (participants, tally) in scale.participants.iter().zip(&tallies) {
        let mut figures = Figures::default();
        measure::latencies(&mut figures, tally);
        tell(Record {
            subject: Subject {
                group: Group::Fanout,
                workload: "fanout".to_owned(),
                clients: 1,
                value_bytes: Group::Fanout.value_bytes(),
                offered: None,
                participants: Some(*participants),
            },
            system: System::Synod,
            figures: figures.done(),
        })?;
    }
    Ok(())
}
