//! Progress: whatever has happened, once messages arrive and leaders stay, no
//! intent and no lock is left behind (T5, T9).

use super::setup::READER;
use super::{Commit, LONG, SHORT, Who, World};
use std::rc::Rc;

/// Rounds after which a shard that is not quiet counts as stuck. Three would do
/// for an abort of an abandoned intent: vote and demand, outcome, ack.
const ROUNDS: usize = 12;
/// After so many rounds deadlines pass as well.
const PATIENCE: usize = 4;

impl Commit {
    /// Everything on the way is lost, deposed leaders are gone, and nothing fails
    /// any more.
    pub(super) fn heal(&self, mut world: World) -> Result<(), String> {
        world.net.clear();
        for shard in &mut world.shards {
            if shard.deposed.is_some() {
                Rc::make_mut(shard).deposed = None;
            }
        }
        for at in 0..2 {
            // Whoever has only read loses its session in the end.
            self.with(&mut world, at, Who::Leader, |shard| {
                shard.input(Who::Leader, |group, cx| {
                    group.handle_client_gone(cx, READER);
                })
            })?;
        }
        for round in 0..ROUNDS {
            if world.is_quiet() && world.net.is_empty() {
                return Ok(());
            }
            let nanos = if round < PATIENCE { SHORT } else { LONG };
            for at in 0..2 {
                self.pass(&mut world, at, Who::Leader, nanos)?;
            }
            self.drain(&mut world)?;
        }
        let states = world.shards.iter().map(|s| format!("\n  {s}"));
        Err(format!(
            "T9: left to itself, it never becomes quiet:{}",
            states.collect::<String>()
        ))
    }

    /// Decides and delivers until nothing is on the way.
    fn drain(&self, world: &mut World) -> Result<(), String> {
        loop {
            let undecided = (0..2).find(|at| world.shards[*at].undecided(Who::Leader) > 0);
            if let Some(at) = undecided {
                self.with(world, at, Who::Leader, |shard| shard.decide(Who::Leader))?;
            } else if let Some(letter) = world.net.pop() {
                self.deliver(world, &letter, Who::Leader)?;
            } else {
                return Ok(());
            }
        }
    }
}
