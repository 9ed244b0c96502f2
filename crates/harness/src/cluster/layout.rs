//! Where the nodes of a test cluster are, and what their files say.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The name of a node, and where it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Its name, unique in the cluster.
    pub name: String,
    /// Its locality, `region=…,dc=…,rack=…,host=…`.
    pub locality: String,
}

/// What kind of cluster is wanted.
#[derive(Clone, Debug)]
pub struct Options {
    /// The `synod` program.
    pub program: PathBuf,
    /// Data centres.
    pub dcs: usize,
    /// Nodes in each of them.
    pub nodes_per_dc: usize,
    /// The nodes one by one; if there are any, they go before `dcs` and `nodes_per_dc`.
    pub places: Vec<Place>,
    /// Round-trip time between data centres, added inside the nodes' transport.
    pub rtt: Duration,
    /// Lets all packets pass a [`crate::relay::Relay`] with this seed.
    pub relay: Option<u64>,
    /// Puts a shim under every node through which its disk and clock can be made
    /// to fail ([`super::Node::faults`]); needs the C compiler `cc`.
    pub faults: bool,
    /// Gives every node's data directory a file system of its own with so many bytes, in memory
    /// and gone with the process ([`super::Node::disk`]); see [`super::may_mount`].
    pub disk_bytes: Option<u64>,
    /// Keys at which the user's key space is cut; shards = splits + 1.
    pub splits: Vec<String>,
    /// Replicas per shard.
    pub replicas: usize,
    /// The cluster version to begin with; none = the newest that the program knows.
    pub version: Option<u32>,
    /// The storage engine, as the configuration names it.
    pub engine: String,
    /// Where to put everything; none = a fresh temporary directory.
    pub dir: Option<PathBuf>,
    /// Leave processes and files when the cluster is dropped.
    pub keep: bool,
    /// More lines for every node's configuration, in TOML, with their sections.
    pub extra_config: String,
    /// More lines for the section `[node]` of every node's configuration.
    pub extra_node_lines: String,
    /// The nodes' log filter (`SYNOD_LOG`).
    pub log_filter: String,
    /// How long the cluster may take until every shard has a leader.
    pub ready_timeout: Duration,
}

impl Options {
    /// Three data centres with one node each, run by `program`.
    #[must_use]
    pub fn new(program: impl Into<PathBuf>) -> Options {
        Options {
            program: program.into(),
            dcs: 3,
            nodes_per_dc: 1,
            places: Vec::new(),
            rtt: Duration::ZERO,
            relay: None,
            faults: false,
            disk_bytes: None,
            splits: Vec::new(),
            replicas: 3,
            version: None,
            engine: "fjall".to_owned(),
            dir: None,
            keep: false,
            extra_config: String::new(),
            extra_node_lines: String::new(),
            log_filter: "info".to_owned(),
            ready_timeout: Duration::from_secs(30),
        }
    }
}

/// The names and places of all nodes, by data centre.
pub(super) fn places(options: &Options) -> Vec<Place> {
    if !options.places.is_empty() {
        return options.places.clone();
    }
    let mut places = Vec::new();
    for dc in 1..=options.dcs {
        for node in 1..=options.nodes_per_dc {
            let name = format!("n{}", places.len() + 1);
            let locality = format!("region=local,dc=dc-{dc},rack=r{node},host={name}");
            places.push(Place { name, locality });
        }
    }
    places
}

/// A string as TOML writes it.
fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => {
                out.push('\\');
                out.push(c);
            }
            c if c.is_control() => {
                let _ = write!(out, "\\u{:04x}", c as u32);
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// The configuration of one node.
pub(super) fn node_config(
    options: &Options,
    name: &str,
    locality: &str,
    listen: SocketAddr,
    advertise: SocketAddr,
    certs: &Path,
    data_dir: &Path,
) -> String {
    let path = |p: PathBuf| quoted(&p.to_string_lossy());
    let mut text = String::from("[node]\n");
    let lines = [
        ("name", quoted(name)),
        ("listen", quoted(&listen.to_string())),
        ("advertise", quoted(&advertise.to_string())),
        ("locality", quoted(locality)),
        ("data_dir", path(data_dir.to_path_buf())),
        ("ca", path(certs.join("ca.crt"))),
        ("cert", path(certs.join(format!("node-{name}.crt")))),
        ("key", path(certs.join(format!("node-{name}.key")))),
        ("engine", quoted(&options.engine)),
    ];
    for (key, value) in lines {
        let _ = writeln!(text, "{key} = {value}");
    }
    text.push_str(&options.extra_node_lines);
    if !options.rtt.is_zero() {
        let _ = writeln!(
            text,
            "\n[testing]\nrtt_millis = {}",
            options.rtt.as_millis()
        );
    }
    text.push('\n');
    text.push_str(&options.extra_config);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_of_a_data_centre_share_it_and_nothing_below() {
        let mut options = Options::new("synod");
        options.dcs = 2;
        options.nodes_per_dc = 2;
        let places = places(&options);
        assert_eq!(places.len(), 4);
        assert_eq!(places[2].name, "n3");
        assert_eq!(places[2].locality, "region=local,dc=dc-2,rack=r1,host=n3");
    }

    #[test]
    fn paths_survive_quoting() {
        assert_eq!(quoted("a\"b\\c\n"), "\"a\\\"b\\\\c\\u000a\"");
    }
}
