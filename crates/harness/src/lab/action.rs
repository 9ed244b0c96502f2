//! What can be done to a cluster.

use super::select::Select;
use std::fmt;
use std::time::Duration;

/// Which links.
#[derive(Clone, Debug, PartialEq)]
pub enum Links {
    /// All between these ends and all others, both ways.
    Around(Select),
    /// All between one part and the other, both ways.
    Between(Select, Select),
    /// All from one part to the other (none = everything else), this way only.
    OneWay(Option<Select>, Option<Select>),
}

impl Links {
    /// The parts that are named.
    pub(super) fn parts(&self) -> Vec<&Select> {
        match self {
            Links::Around(on) => vec![on],
            Links::Between(a, b) => vec![a, b],
            Links::OneWay(from, to) => from.iter().chain(to).collect(),
        }
    }
}

/// How much worse a link is than without the fault.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Worse {
    /// Nothing passes.
    pub cut: bool,
    /// Each packet takes this much longer, each way.
    pub delay: Duration,
    /// And up to this much more, by chance.
    pub jitter: Duration,
    /// Share of packets lost besides.
    pub loss: f64,
    /// Share of packets delivered twice besides.
    pub duplicate: f64,
    /// Share of packets that others overtake, besides.
    pub reorder: f64,
    /// Bytes a second; the smaller of several counts.
    pub bandwidth: Option<u64>,
}

impl Worse {
    /// Nothing passes.
    #[must_use]
    pub fn cut() -> Worse {
        Worse {
            cut: true,
            ..Worse::default()
        }
    }
}

/// What is done to nodes, as long as the fault holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Harm {
    /// `kill -9`; started again when the fault ends.
    Kill,
    /// The same of all in one moment, as when power is gone. What was not synced
    /// survives: the machine that runs all this stays up.
    PowerOff,
    /// Asked to end in an orderly way; started again when the fault ends.
    Stop,
    /// Stopped where it is (SIGSTOP), and goes on when the fault ends.
    Pause,
    /// `kill -9`, and the files of its engine are gone; started again when the fault ends.
    WipeEngine,
    /// Writes fail as on a full disk, upon which the node ends.
    FillDisk,
    /// The file system says that so many bytes are free.
    NearlyFull(u64),
    /// Every sync takes this much longer.
    StallSyncs(Duration),
    /// Every sync fails, upon which the node ends.
    FailSyncs,
    /// The wall clock is off by so many nanoseconds.
    SkewClock(i64),
}

/// What is done to nodes, once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deed {
    /// Those that are down are started, whatever took them down.
    PowerOn,
    /// `kill -9`, and all files are gone. The cluster does not take what starts with
    /// an empty disk for the old node, so it is not started again.
    WipeDisk,
    /// `synod node drain`: the cluster does without the node.
    Drain,
}

/// What a fault does.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// To links, as long as it holds.
    Links(Links, Worse),
    /// To nodes, as long as it holds.
    Harm(Select, Harm),
    /// To nodes, once.
    Once(Select, Deed),
    /// What an operator asks for, once: `synod` with these arguments. How it reaches the
    /// cluster is added. It must succeed.
    Command(Vec<String>),
    /// Ends the faults of links with this name, or all.
    Heal(Option<String>),
}

impl Action {
    /// The parts of the cluster that it names.
    pub(super) fn parts(&self) -> Vec<&Select> {
        match self {
            Action::Links(links, _) => links.parts(),
            Action::Harm(on, _) | Action::Once(on, _) => vec![on],
            Action::Command(_) | Action::Heal(_) => Vec::new(),
        }
    }

    /// Whether it needs the shim under the nodes' disks and clocks.
    #[must_use]
    pub fn needs_shim(&self) -> bool {
        matches!(
            self,
            Action::Harm(
                _,
                Harm::FillDisk
                    | Harm::NearlyFull(_)
                    | Harm::StallSyncs(_)
                    | Harm::FailSyncs
                    | Harm::SkewClock(_)
            )
        )
    }
}

impl fmt::Display for Worse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.cut {
            return f.write_str("cut");
        }
        let mut parts = Vec::new();
        for (time, word) in [(self.delay, "delay"), (self.jitter, "jitter")] {
            if !time.is_zero() {
                parts.push(format!("{word} {time:?}"));
            }
        }
        let shares = [
            (self.loss, "loss"),
            (self.duplicate, "duplicates"),
            (self.reorder, "reordering"),
        ];
        for (share, word) in shares {
            if share > 0.0 {
                parts.push(format!("{word} {} %", share * 100.0));
            }
        }
        if let Some(rate) = self.bandwidth {
            parts.push(format!("{rate} bytes/s"));
        }
        write!(f, "slow: {}", parts.join(", "))
    }
}

impl fmt::Display for Harm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Harm::Kill => f.write_str("kill -9"),
            Harm::PowerOff => f.write_str("power off"),
            Harm::Stop => f.write_str("orderly restart"),
            Harm::Pause => f.write_str("pause"),
            Harm::WipeEngine => f.write_str("engine's disk lost"),
            Harm::FillDisk => f.write_str("disk full"),
            Harm::NearlyFull(bytes) => write!(f, "only {bytes} bytes of disk free"),
            Harm::StallSyncs(by) => write!(f, "syncs stall for {by:?}"),
            Harm::FailSyncs => f.write_str("syncs fail"),
            Harm::SkewClock(nanos) => {
                let sign = if *nanos < 0 { '-' } else { '+' };
                write!(
                    f,
                    "clock {sign}{:?}",
                    Duration::from_nanos(nanos.unsigned_abs())
                )
            }
        }
    }
}

impl fmt::Display for Action {
    /// What is done, without to what.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Action::Links(Links::OneWay(..), worse) => write!(f, "{worse} (one way)"),
            Action::Links(_, worse) => worse.fmt(f),
            Action::Harm(_, harm) => harm.fmt(f),
            Action::Once(_, deed) => deed.fmt(f),
            Action::Command(arguments) => write!(f, "synod {}", arguments.join(" ")),
            Action::Heal(_) => f.write_str("links healed"),
        }
    }
}

impl fmt::Display for Deed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Deed::PowerOn => "power on",
            Deed::WipeDisk => "machine lost with all its files",
            Deed::Drain => "drain",
        })
    }
}
