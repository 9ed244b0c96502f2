//! Declaring a cluster.

use super::Cluster;
use crate::cluster::{Cluster as Processes, Options};
use crate::lab::LabError;
use crate::lab::topology::{Dc, Path as Wire, Topology};
use std::path::PathBuf;
use std::time::Duration;

/// The first and the last character of keys that [`Builder::shards`] cuts.
const PRINTABLE: (u8, u8) = (b'!', b'~');

/// A cluster that is declared, and not started yet.
#[derive(Clone, Debug)]
pub struct Builder {
    pub(super) topology: Topology,
    pub(super) options: Options,
    pub(super) seed: u64,
    mistakes: Vec<String>,
}

impl Builder {
    pub(super) fn new(program: PathBuf) -> Builder {
        let mut options = Options::new(program);
        options.ready_timeout = Duration::from_secs(60);
        Builder {
            topology: Topology::default(),
            options,
            seed: 1,
            mistakes: Vec::new(),
        }
    }

    /// Another data centre, with so many nodes in racks of their own.
    #[must_use]
    pub fn dc(self, name: &str, nodes: usize) -> Builder {
        self.dc_of_racks(name, nodes, 1)
    }

    /// Another data centre, with so many nodes in each of its racks.
    #[must_use]
    pub fn dc_of_racks(mut self, name: &str, racks: usize, nodes_per_rack: usize) -> Builder {
        self.topology.dcs.push(Dc {
            name: name.to_owned(),
            region: "lab".to_owned(),
            racks,
            nodes_per_rack,
            clients: 0,
        });
        self
    }

    /// Says which region a data centre is in.
    #[must_use]
    pub fn region(mut self, dc: &str, region: &str) -> Builder {
        match self.topology.dc(dc) {
            Some(number) => region.clone_into(&mut self.topology.dcs[number].region),
            None => self
                .mistakes
                .push(format!("there is no data centre `{dc}`")),
        }
        self
    }

    /// The round trip between two data centres.
    #[must_use]
    pub fn rtt(self, a: &str, b: &str, rtt: Duration) -> Builder {
        let path = Wire {
            rtt,
            ..self.topology.between.clone()
        };
        self.path(a, b, path)
    }

    /// The path between two data centres.
    #[must_use]
    pub fn path(mut self, a: &str, b: &str, path: Wire) -> Builder {
        match (self.topology.dc(a), self.topology.dc(b)) {
            (Some(a), Some(b)) if a != b => {
                self.topology.paths.insert((a.min(b), a.max(b)), path);
            }
            _ => self
                .mistakes
                .push(format!("`{a}` and `{b}` are not two data centres")),
        }
        self
    }

    /// The path between any two data centres that have none of their own.
    #[must_use]
    pub fn path_between(mut self, path: Wire) -> Builder {
        self.topology.between = path;
        self
    }

    /// The path within a data centre.
    #[must_use]
    pub fn path_within(mut self, path: Wire) -> Builder {
        self.topology.within = path;
        self
    }

    /// So many shards, cut evenly over printable keys.
    #[must_use]
    pub fn shards(self, shards: usize) -> Builder {
        let splits = even_splits(shards);
        self.splits(splits)
    }

    /// The keys at which the key space is cut.
    #[must_use]
    pub fn splits(mut self, splits: impl IntoIterator<Item = impl Into<String>>) -> Builder {
        self.options.splits = splits.into_iter().map(Into::into).collect();
        self
    }

    /// Replicas of each shard; 3 if nothing is said.
    #[must_use]
    pub fn replicas(mut self, replicas: usize) -> Builder {
        self.options.replicas = replicas;
        self
    }

    /// Sections of every node's configuration, in TOML.
    #[must_use]
    pub fn settings(mut self, sections: &str) -> Builder {
        sections.clone_into(&mut self.options.extra_config);
        self
    }

    /// Lines for the section `[node]` of every node's configuration.
    #[must_use]
    pub fn node_lines(mut self, lines: &str) -> Builder {
        lines.clone_into(&mut self.options.extra_node_lines);
        self
    }

    /// Puts the shim under every node that faults of disks and clocks need; it is
    /// compiled with `cc`.
    #[must_use]
    pub fn faults_of_disks_and_clocks(mut self, yes: bool) -> Builder {
        self.options.faults = yes;
        self
    }

    /// What chance is drawn from; 1 if nothing is said.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Builder {
        self.seed = seed;
        self
    }

    /// A directory for everything, which is not removed, instead of a temporary one.
    #[must_use]
    pub fn directory(mut self, directory: Option<PathBuf>) -> Builder {
        self.options.dir = directory;
        self
    }

    pub(in crate::lab) fn topology(mut self, topology: Topology) -> Builder {
        self.topology = topology;
        self
    }

    /// Starts it; returns once every shard has a leader, with the links as declared.
    /// Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// [`LabError`]; then nothing is left running.
    pub async fn start(mut self) -> Result<Cluster, LabError> {
        if let Some(mistake) = self.mistakes.first() {
            return Err(LabError::Declared(mistake.clone()));
        }
        let places = self.topology.places();
        if places.is_empty() {
            return Err(LabError::Declared("no node is declared".to_owned()));
        }
        self.options.places = places;
        self.options.relay = Some(self.seed);
        let options = self.options.clone();
        let started = tokio::task::spawn_blocking(move || Processes::start(options));
        let processes = started.await.map_err(|error| LabError::Io {
            what: "starting the cluster".to_owned(),
            source: std::io::Error::other(error),
        })??;
        Cluster::of(processes, self)
    }
}

/// Keys that cut printable keys into so many parts of one size.
fn even_splits(shards: usize) -> Vec<String> {
    let (first, last) = PRINTABLE;
    let letters = usize::from(last - first) + 1;
    let all = letters * letters;
    let mut splits: Vec<String> = (1..shards.min(all))
        .map(|part| {
            let number = all * part / shards;
            let letter = |n: usize| char::from(first + u8::try_from(n).unwrap_or(0));
            let both = [letter(number / letters), letter(number % letters)];
            both.iter().collect()
        })
        .collect();
    splits.dedup();
    splits
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splits_are_even_and_ascend() {
        assert!(even_splits(1).is_empty());
        for shards in [2, 4, 200] {
            let splits = even_splits(shards);
            assert_eq!(splits.len(), shards - 1);
            assert!(splits.is_sorted());
        }
    }

    #[tokio::test]
    async fn what_makes_no_sense_is_refused_before_anything_starts() {
        let cluster = || Cluster::builder("no such program").dc("a", 1);
        let rtt = cluster().rtt("a", "b", Duration::ZERO).start().await;
        let error = rtt.expect_err("there is no b").to_string();
        assert!(error.contains("not two data centres"), "{error}");
        let none = Cluster::builder("no such program").start().await;
        assert!(none.is_err_and(|e| e.to_string().contains("no node")));
    }
}
