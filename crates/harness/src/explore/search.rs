//! Breadth-first search with state hashing.

use std::cell::{Cell, RefCell};
use std::collections::{HashSet, VecDeque};
use std::hash::{BuildHasherDefault, Hasher};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;
use std::time::{Duration, Instant};

/// Something small enough to be explored completely.
pub trait Model {
    /// One global state: machines, networks, disks, budgets, and what the checks
    /// must remember of the past. Clones are cheap.
    type State: Clone;
    /// One possible next step.
    type Step: Clone + std::fmt::Debug;

    /// Where everything begins.
    fn start(&self) -> Self::State;

    /// What may happen next, in a fixed order.
    fn steps(&self, state: &Self::State) -> Vec<Self::Step>;

    /// Takes one step.
    ///
    /// # Errors
    /// The rule that broke, in words.
    fn take(&self, state: &mut Self::State, step: &Self::Step) -> Result<(), String>;

    /// Checks a state reached for the first time.
    ///
    /// # Errors
    /// The rule that broke, in words.
    fn inspect(&self, state: &Self::State) -> Result<(), String>;

    /// Tells states apart: everything that later steps or checks depend on.
    fn fingerprint(&self, state: &Self::State) -> u128;

    /// One line for a step that was taken from `before`.
    fn describe(&self, before: &Self::State, step: &Self::Step) -> String;

    /// A few lines about a state, for the end of a trace.
    fn show(&self, state: &Self::State) -> String;
}

/// Where a search gives up.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// States visited at most.
    pub states: usize,
    /// Wall time at most.
    pub time: Duration,
    /// Print a line about so many states; 0 prints none.
    pub progress: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            states: 200_000_000,
            time: Duration::from_secs(24 * 3600),
            progress: 0,
        }
    }
}

/// A broken rule and the shortest way there.
#[derive(Clone, Debug)]
pub struct Found {
    /// The rule, in words.
    pub rule: String,
    /// One line per step.
    pub path: Vec<String>,
    /// The last good state.
    pub state: String,
}

/// What a search has seen.
#[derive(Clone, Debug)]
pub struct Report {
    /// Different states.
    pub states: usize,
    /// Steps taken; many lead to a state seen before.
    pub transitions: u64,
    /// The longest shortest path.
    pub depth: usize,
    /// States with no next step.
    pub ends: u64,
    /// Whether the frontier emptied: every state within the budget was seen.
    pub complete: bool,
    /// Wall time.
    pub took: Duration,
    /// The first violation, if any.
    pub found: Option<Found>,
}

/// Fingerprints are hashes already.
#[derive(Default)]
struct Identity(u64);

impl Hasher for Identity {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.0 ^= u64::from_le_bytes(word);
        }
    }
}

type Seen = HashSet<u128, BuildHasherDefault<Identity>>;

thread_local! {
    static EXPLORING: Cell<bool> = const { Cell::new(false) };
    static PANIC: RefCell<String> = const { RefCell::new(String::new()) };
}

/// An assertion of a machine that fails is a violation like any other: its
/// words are kept instead of printed.
fn catch_quietly() {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if EXPLORING.get() {
                let payload = info.payload();
                let words = payload
                    .downcast_ref::<&str>()
                    .copied()
                    .or_else(|| payload.downcast_ref::<String>().map(String::as_str))
                    .unwrap_or("a panic without words");
                let place = info.location().map(ToString::to_string);
                let text = format!("{words} ({})", place.unwrap_or_default());
                PANIC.with_borrow_mut(|p| *p = text);
            } else {
                before(info);
            }
        }));
    });
}

fn guarded<T>(run: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    EXPLORING.set(true);
    let outcome = catch_unwind(AssertUnwindSafe(run));
    EXPLORING.set(false);
    outcome.unwrap_or_else(|_| Err(PANIC.with_borrow(|p| format!("an assertion failed: {p}"))))
}

/// How each state was reached first.
struct Paths {
    parents: Vec<u32>,
    steps: Vec<u16>,
}

impl Paths {
    fn add(&mut self, parent: u32, step: usize) -> u32 {
        let index = u32::try_from(self.parents.len()).unwrap_or(u32::MAX);
        self.parents.push(parent);
        self.steps.push(u16::try_from(step).unwrap_or(u16::MAX));
        index
    }

    /// The numbers of the steps from the start to state `at`.
    fn to(&self, mut at: u32) -> Vec<u16> {
        let mut path = Vec::new();
        while at != 0 {
            path.push(self.steps[at as usize]);
            at = self.parents[at as usize];
        }
        path.reverse();
        path
    }
}

/// Visits everything `model` can reach, until a rule breaks or a limit is met.
pub fn explore<M: Model>(model: &M, limits: &Limits) -> Report {
    catch_quietly();
    let begun = Instant::now();
    let mut report = Report {
        states: 0,
        transitions: 0,
        depth: 0,
        ends: 0,
        complete: false,
        took: Duration::ZERO,
        found: None,
    };
    let mut seen = Seen::default();
    let mut paths = Paths {
        parents: Vec::new(),
        steps: Vec::new(),
    };
    let start = model.start();
    seen.insert(model.fingerprint(&start));
    let first = paths.add(0, 0);
    let mut frontier = VecDeque::from([(first, 0_usize, start)]);
    while let Some((index, depth, state)) = frontier.pop_front() {
        report.depth = report.depth.max(depth);
        if let Err(rule) = guarded(|| model.inspect(&state)) {
            report.found = Some(retrace(model, &paths.to(index), None, rule));
            break;
        }
        let steps = model.steps(&state);
        report.ends += u64::from(steps.is_empty());
        for (number, step) in steps.iter().enumerate() {
            report.transitions += 1;
            let mut next = state.clone();
            if let Err(rule) = guarded(|| model.take(&mut next, step)) {
                report.found = Some(retrace(model, &paths.to(index), Some(step), rule));
                break;
            }
            if seen.insert(model.fingerprint(&next)) {
                let child = paths.add(index, number);
                frontier.push_back((child, depth + 1, next));
            }
        }
        let due = limits.progress > 0 && (index as usize + 1).is_multiple_of(limits.progress);
        if due {
            tell(&report, seen.len(), frontier.len(), depth, begun);
        }
        let over = index % 1024 == 0 && begun.elapsed() > limits.time;
        if report.found.is_some() || over || seen.len() > limits.states {
            break;
        }
    }
    report.complete = frontier.is_empty() && report.found.is_none();
    report.states = seen.len();
    report.took = begun.elapsed();
    report
}

fn tell(report: &Report, seen: usize, waiting: usize, depth: usize, begun: Instant) {
    eprintln!(
        "{:>8.1} s  {seen:>10} states  {:>11} steps  depth {depth:>3}  {waiting:>9} waiting",
        begun.elapsed().as_secs_f64(),
        report.transitions,
    );
}

/// Walks a path again, in words.
fn retrace<M: Model>(model: &M, path: &[u16], last: Option<&M::Step>, rule: String) -> Found {
    let mut state = model.start();
    let mut lines = Vec::new();
    for number in path {
        let steps = model.steps(&state);
        let Some(step) = steps.get(usize::from(*number)) else {
            break;
        };
        lines.push(model.describe(&state, step));
        if guarded(|| model.take(&mut state, step)).is_err() {
            break;
        }
    }
    let shown = model.show(&state);
    if let Some(step) = last {
        lines.push(model.describe(&state, step));
    }
    Found {
        rule,
        path: lines,
        state: shown,
    }
}

impl std::fmt::Display for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(
            f,
            "{} states, {} steps, depth {}, {} ends, {:.1} s, {}",
            self.states,
            self.transitions,
            self.depth,
            self.ends,
            self.took.as_secs_f64(),
            match (&self.found, self.complete) {
                (Some(_), _) => "VIOLATED",
                (None, true) => "complete",
                (None, false) => "NOT COMPLETE (a limit was met)",
            }
        )?;
        if let Some(found) = &self.found {
            writeln!(f, "\n{}\n", found.rule)?;
            for (number, line) in found.path.iter().enumerate() {
                writeln!(f, "{:>3}. {line}", number + 1)?;
            }
            writeln!(f, "\nbefore the last step:\n{}", found.state)?;
        }
        Ok(())
    }
}
