//! The slowest commits, over minutes in which engines flush and logs are trimmed.

use crate::error::Error;
use crate::measure::{self, KEY_BYTES};
use crate::plan::{Cell, Group, Scale};
use crate::record::{Record, Subject};
use crate::system::{Layout, System, Target};
use crate::workload::{Load, SHARDS, Workload};
use std::rc::Rc;
use std::time::Duration;
use synod_harness::load::Keys;

/// Clients that show the peak.
const PEAK_CLIENTS: u32 = 256;
/// How long the peak is looked for.
const PEAK: Duration = Duration::from_secs(5);

/// Looks for the peak, then offers half of it for long.
///
/// # Errors
/// When the cluster does not come up.
pub async fn run(
    system: System,
    layout: &Layout,
    scale: &Scale,
    tell: &mut impl FnMut(Record) -> Result<(), Error>,
) -> Result<(), Error> {
    let keys = Keys {
        count: scale.keys,
        key_bytes: KEY_BYTES,
    };
    let mut layout = layout.clone();
    layout.splits = keys.splits(SHARDS);
    let target = Target::start(system, &layout).await?;
    let value_bytes = Group::Tails.value_bytes();
    measure::fill(&target.db, &keys, value_bytes).await?;
    let load = Rc::new(Load::new(target.db.clone(), keys, value_bytes));
    let mut cell = Cell {
        workload: Workload::Put,
        clients: PEAK_CLIENTS,
        offered: None,
    };
    let mut scale = scale.clone();
    scale.measured = PEAK.min(scale.tails);
    let peak = measure::loop_on(&target, &load, &cell, &scale)
        .await?
        .rate();
    cell.clients = 1024;
    let offered = (peak / 2.0).max(1.0);
    cell.offered = Some(offered as u32);
    scale.measured = scale.tails;
    let measured = measure::loop_on(&target, &load, &cell, &scale).await?;
    tell(Record {
        subject: Subject {
            group: Group::Tails,
            workload: "put at half the peak".to_owned(),
            clients: cell.clients,
            value_bytes,
            // The peak is another one each time.
            offered: None,
            participants: None,
        },
        system,
        figures: measure::figures(&measured)
            .set("offered", offered)
            .set("seconds", measured.elapsed.as_secs_f64())
            .done(),
    })
}
