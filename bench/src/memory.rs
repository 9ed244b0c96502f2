//! How much memory a node needs for its keys.

use crate::error::Error;
use crate::measure::{self, KEY_BYTES};
use crate::plan::{Group, Scale};
use crate::record::{Figures, Record, Subject};
use crate::system::{Layout, System, Target};
use crate::usage;
use crate::workload::SHARDS;
use std::time::Instant;
use synod_harness::load::Keys;

/// Fills in many keys; the memory of the largest node then.
///
/// # Errors
/// When the cluster does not come up or take them.
pub async fn run(
    system: System,
    layout: &Layout,
    scale: &Scale,
    tell: &mut impl FnMut(Record) -> Result<(), Error>,
) -> Result<(), Error> {
    let keys = Keys {
        count: scale.many_keys,
        key_bytes: KEY_BYTES,
    };
    let mut layout = layout.clone();
    layout.splits = keys.splits(SHARDS);
    let target = Target::start(system, &layout).await?;
    let begun = Instant::now();
    let value_bytes = Group::Memory.value_bytes();
    measure::fill(&target.db, &keys, value_bytes).await?;
    let seconds = begun.elapsed().as_secs_f64();
    tell(Record {
        subject: Subject {
            group: Group::Memory,
            workload: format!("{} keys", keys.count),
            clients: measure::FILL_CLIENTS,
            value_bytes,
            offered: None,
            participants: None,
        },
        system,
        figures: Figures::default()
            .set("resident_mib", usage::resident_mib(&target.pids()))
            .set("fill_s", seconds)
            .done(),
    })
}
