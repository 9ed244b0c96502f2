//! What is done to the cluster while the load runs, by time.

use super::{Progress, SECOND, TICK, millis};
use crate::history::Nanos;
use crate::lab::LabError;
use crate::lab::action::Action;
use crate::lab::cluster::{Begun, Cluster, CommandState};
use crate::lab::load::SiteClients;
use crate::lab::report::FaultMark;
use crate::lab::scenario::{Planned, Scenario};
use crate::workload::Run;
use rand::SeedableRng;
use rand::rngs::StdRng;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// What happens when.
pub(super) struct Timeline<'a> {
    /// By time, and then by number.
    events: BTreeMap<(Duration, usize), Event<'a>>,
    next: usize,
    /// When the load ends.
    length: Duration,
    pub(super) marks: Vec<FaultMark>,
    /// Marks of what was of one moment.
    moments: BTreeSet<usize>,
    /// Commands that go on, and their marks.
    under_way: Vec<(usize, usize)>,
    /// Faults that were done to nothing.
    pub(super) in_vain: Vec<String>,
    seed: u64,
}

enum Event<'a> {
    Begin(&'a Planned),
    End {
        /// The fault.
        id: u64,
        /// Its mark.
        mark: usize,
    },
}

impl<'a> Timeline<'a> {
    pub(super) fn new(scenario: &'a Scenario, seed: u64) -> Timeline<'a> {
        let events = scenario.faults.iter().enumerate();
        Timeline {
            events: events
                .map(|(n, fault)| ((fault.at, n), Event::Begin(fault)))
                .collect(),
            next: scenario.faults.len(),
            length: scenario.length,
            marks: Vec::new(),
            moments: BTreeSet::new(),
            under_way: Vec::new(),
            in_vain: Vec::new(),
            seed,
        }
    }

    /// Goes through all of it until the load is to end.
    pub(super) async fn go(
        &mut self,
        scenario: &Scenario,
        cluster: &mut Cluster,
        run: &Run,
        sites: &[SiteClients],
        tell: &mut (dyn FnMut(Progress<'_>) + Send),
    ) -> Result<(), LabError> {
        /// Number of a fault that holds, and of its mark.
        type Holding = BTreeMap<u64, usize>;
        let mut holding = Holding::new();
        let mut told = Duration::ZERO;
        loop {
            let now = Duration::from_nanos(run.now());
            while let Some(first) = self.events.first_entry()
                && first.key().0 <= now
            {
                let (planned, number) = *first.key();
                let event = first.remove();
                match event {
                    Event::Begin(fault) => {
                        self.repeat(fault, planned);
                        self.begin(fault, number, cluster, run, &mut holding, tell)
                            .await?;
                    }
                    Event::End { id, mark } => {
                        if holding.remove(&id).is_some() {
                            cluster.end(id).await?;
                            self.ended(mark, run, tell);
                        }
                    }
                }
            }
            cluster.poll()?;
            if !self.under_way.is_empty() {
                self.look_at_commands(&cluster.commands(), run, tell);
            }
            if now >= scenario.length {
                return Ok(());
            }
            if now >= told + SECOND {
                told = now;
                let dcs = scenario.topology.dcs.iter().zip(sites);
                let counts = dcs.map(|(dc, site)| (dc.name.as_str(), site.record.counts()));
                tell(Progress::Running(now, counts.collect()));
            }
            let next = self
                .events
                .keys()
                .next()
                .map_or(scenario.length, |(at, _)| *at);
            let wake = next.min(scenario.length).saturating_sub(now).min(TICK);
            tokio::time::sleep(wake.max(Duration::from_millis(1))).await;
        }
    }

    /// Plans the next time, if it is done again and again and there is time for it.
    fn repeat(&mut self, fault: &'a Planned, at: Duration) {
        let next = fault.every.map(|every| at + every);
        let fits = |at: &Duration| *at + fault.lasts.unwrap_or_default() <= self.length;
        if let Some(next) = next.filter(fits) {
            self.next += 1;
            self.events.insert((next, self.next), Event::Begin(fault));
        }
    }

    async fn begin(
        &mut self,
        fault: &Planned,
        number: usize,
        cluster: &mut Cluster,
        run: &Run,
        holding: &mut BTreeMap<u64, usize>,
        tell: &mut (dyn FnMut(Progress<'_>) + Send),
    ) -> Result<(), LabError> {
        // Each draws for itself, so that one more fault changes no other.
        let seed = self.seed ^ (number as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mut random = StdRng::seed_from_u64(seed);
        let Begun {
            id,
            holds,
            what,
            on,
            ended,
            command,
        } = cluster
            .begin_named(&fault.action, fault.name.clone(), &mut random)
            .await?;
        // From now on: who leads may have had to be asked for.
        let at = Duration::from_nanos(run.now());
        let mark = self.marks.len();
        self.marks.push(FaultMark {
            at_millis: millis(at),
            until_millis: None,
            what,
            on,
        });
        let mark_made = &self.marks[mark];
        if mark_made.on.is_empty() && !matches!(fault.action, Action::Heal(_) | Action::Command(_))
        {
            self.in_vain.push(format!(
                "{} at {:.1} s was done to nothing",
                mark_made.what,
                at.as_secs_f64()
            ));
        }
        tell(Progress::Begun(mark_made));
        for other in ended {
            if let Some(mark) = holding.remove(&other) {
                self.ended(mark, run, tell);
            }
        }
        if holds {
            holding.insert(id, mark);
        } else {
            self.moments.insert(mark);
        }
        self.under_way
            .extend(command.map(|command| (command, mark)));
        if let (true, Some(lasts)) = (holds, fault.lasts) {
            self.next += 1;
            self.events
                .insert((at + lasts, self.next), Event::End { id, mark });
        }
        Ok(())
    }

    /// Notes which commands have ended.
    fn look_at_commands(
        &mut self,
        all: &[(String, CommandState)],
        run: &Run,
        tell: &mut (dyn FnMut(Progress<'_>) + Send),
    ) {
        for (command, mark) in std::mem::take(&mut self.under_way) {
            let state = all.get(command).map(|(_, state)| state);
            if matches!(state, Some(CommandState::Runs(_))) {
                self.under_way.push((command, mark));
            } else {
                self.ended(mark, run, tell);
            }
        }
    }

    fn ended(&mut self, mark: usize, run: &Run, tell: &mut (dyn FnMut(Progress<'_>) + Send)) {
        let mark = &mut self.marks[mark];
        mark.until_millis = Some(millis(Duration::from_nanos(run.now())));
        tell(Progress::Ended(mark));
    }

    /// When faults held, nanoseconds: what is of one moment ends as it begins, what
    /// was not ended held to the end of the load.
    pub(super) fn times(&self, length: Duration) -> Vec<(Nanos, Nanos)> {
        let nanos = |millis: u64| millis * 1_000_000;
        let marks = self.marks.iter().enumerate();
        let times = marks.map(|(number, mark)| {
            let end = if self.moments.contains(&number) {
                mark.at_millis
            } else {
                mark.until_millis.unwrap_or(millis(length))
            };
            (nanos(mark.at_millis), nanos(end))
        });
        times.collect()
    }
}
