//! The one table of node settings: it feeds reading, `--help` and the sample file.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;
use synod_kv::config::{EngineKind, NodeConfig};
use toml::Value;

/// One setting of a node.
pub struct Key {
    /// Its table in the file.
    pub section: &'static str,
    /// Its name there; it carries its unit.
    pub name: &'static str,
    /// What it means; may have several lines.
    pub help: &'static str,
    /// Whether the file must have it.
    pub required: bool,
    /// Its value in TOML; none if it is not set.
    show: fn(&NodeConfig) -> Option<String>,
    /// Takes a value over; says what is wrong with it.
    set: fn(&mut NodeConfig, &Value, &Path) -> Result<(), String>,
}

impl Key {
    /// `section.name`, as messages name it.
    pub fn path(&self) -> String {
        format!("{}.{}", self.section, self.name)
    }

    /// The default in TOML; none if there is none.
    pub fn default_text(&self) -> Option<String> {
        (self.show)(&defaults())
    }

    /// Takes `value` over; relative paths are meant from `base`.
    pub fn apply(&self, config: &mut NodeConfig, value: &Value, base: &Path) -> Result<(), String> {
        (self.set)(config, value, base)
    }
}

/// The settings of a node called n1, as if its file said only what it must.
pub fn defaults() -> NodeConfig {
    NodeConfig::new(
        "n1",
        SocketAddr::from(([127, 0, 0, 1], 7001)),
        PathBuf::from("data"),
    )
}

fn text(value: &Value) -> Result<&str, String> {
    value
        .as_str()
        .filter(|s| !s.is_empty())
        .ok_or_else(|| "must be a text in quotes that is not empty".to_owned())
}

fn address(value: &Value) -> Result<SocketAddr, String> {
    let text = text(value)?;
    text.parse().map_err(|_| {
        format!("`{text}` is no address: write ip:port, for instance \"127.0.0.1:7001\"")
    })
}

fn path(value: &Value, base: &Path) -> Result<PathBuf, String> {
    // `join` leaves absolute paths as they are.
    Ok(base.join(text(value)?))
}

fn number(value: &Value, low: u64, high: u64) -> Result<u64, String> {
    value
        .as_integer()
        .and_then(|n| u64::try_from(n).ok())
        .filter(|n| (low..=high).contains(n))
        .ok_or_else(|| format!("must be a whole number from {low} to {high}"))
}

fn millis(value: &Value, low: u64, high: u64) -> Result<Duration, String> {
    number(value, low, high).map(Duration::from_millis)
}

fn seconds(value: &Value, low: u64, high: u64) -> Result<Duration, String> {
    number(value, low, high).map(Duration::from_secs)
}

fn quoted(text: impl std::fmt::Display) -> Option<String> {
    Some(Value::String(text.to_string()).to_string())
}

fn shown(path: &Path) -> Option<String> {
    quoted(path.display())
}

/// The engines by name.
const ENGINES: [(&str, EngineKind); 3] = [
    ("fjall", EngineKind::Fjall),
    ("redb", EngineKind::Redb),
    ("memory", EngineKind::Memory),
];

fn engine(value: &Value) -> Result<EngineKind, String> {
    let text = text(value)?;
    ENGINES
        .iter()
        .find(|(name, _)| *name == text)
        .map(|(_, kind)| *kind)
        .ok_or_else(|| format!("`{text}` is no engine: use \"fjall\", \"redb\" or \"memory\""))
}

/// All settings, in the order of the sample file.
pub const KEYS: &[Key] = &[
    Key {
        section: "node",
        name: "name",
        help: "The node's name, the one in its certificate (`synod cert node NAME`).",
        required: true,
        show: |c| quoted(&c.name),
        set: |c, v, _| text(v).map(|v| c.name = v.to_owned()),
    },
    Key {
        section: "node",
        name: "listen",
        help: "UDP address to listen on, ip:port.",
        required: true,
        show: |c| quoted(c.listen),
        set: |c, v, _| address(v).map(|v| c.listen = v),
    },
    Key {
        section: "node",
        name: "advertise",
        help: "Address at which nodes and clients reach it; without it, the one it listens on.\n\
               Needed when it listens on 0.0.0.0.",
        required: false,
        show: |c| c.advertise.and_then(quoted),
        set: |c, v, _| address(v).map(|v| c.advertise = Some(v)),
    },
    Key {
        section: "node",
        name: "locality",
        help: "Where the node is, widest tier first: region=…,dc=…,rack=…,host=….\n\
               Replicas of a shard are spread over the widest tier that has several values.",
        required: false,
        show: |c| quoted(&c.locality),
        set: |c, v, _| {
            let text = text(v)?;
            let parsed = text.parse();
            parsed
                .map(|v| c.locality = v)
                .map_err(|e| format!("`{text}`: {e}"))
        },
    },
    Key {
        section: "node",
        name: "data_dir",
        help: "Directory of the node's identity, log and data; made if it is not there.\n\
               Relative paths in this file are meant from the file's directory.",
        required: true,
        show: |c| shown(&c.data_dir),
        set: |c, v, base| path(v, base).map(|v| c.data_dir = v),
    },
    Key {
        section: "node",
        name: "ca",
        help: "Certificate of the cluster's CA, PEM.",
        required: true,
        show: |c| shown(&c.ca),
        set: |c, v, base| path(v, base).map(|v| c.ca = v),
    },
    Key {
        section: "node",
        name: "cert",
        help: "The node's certificate, PEM.",
        required: true,
        show: |c| shown(&c.cert),
        set: |c, v, base| path(v, base).map(|v| c.cert = v),
    },
    Key {
        section: "node",
        name: "key",
        help: "The key of its certificate, PEM.",
        required: true,
        show: |c| shown(&c.key),
        set: |c, v, base| path(v, base).map(|v| c.key = v),
    },
    Key {
        section: "node",
        name: "engine",
        help: "What keeps the data: \"fjall\" (log-structured merge tree), \"redb\" (B+tree), or\n\
               \"memory\" (nothing on disk; after a restart the data comes from the log or peers).",
        required: false,
        show: |c| {
            let name = ENGINES.iter().find(|(_, kind)| *kind == c.engine);
            name.and_then(|(name, _)| quoted(name))
        },
        set: |c, v, _| engine(v).map(|v| c.engine = v),
    },
    Key {
        section: "node",
        name: "disk_reserve_bytes",
        help: "While less than this is free on the disk of data_dir, shards led here refuse to\n\
               write anything but deletes. The log needs room even then: leave it several times\n\
               log.segment_bytes. 0 = no such limit.",
        required: false,
        show: |c| Some(c.disk_reserve_bytes.to_string()),
        set: |c, v, _| number(v, 0, 1 << 50).map(|v| c.disk_reserve_bytes = v),
    },
    Key {
        section: "log",
        name: "segment_bytes",
        help: "Bytes of one file of the log; each is written with zeros before its first use.",
        required: false,
        show: |c| Some(c.log_segment_bytes.to_string()),
        set: |c, v, _| number(v, 1 << 20, 1 << 30).map(|v| c.log_segment_bytes = v),
    },
    Key {
        section: "log",
        name: "trim_bytes",
        help: "The log is trimmed once it holds this many bytes, or up to a quarter more.",
        required: false,
        show: |c| Some(c.log_trim_bytes.to_string()),
        set: |c, v, _| number(v, 4 << 20, 1 << 40).map(|v| c.log_trim_bytes = v),
    },
    Key {
        section: "timing",
        name: "lease_millis",
        help: "How long nodes support each other without renewal, milliseconds. Shorter means\n\
               faster failover; at least 4 × the longest round trip. The same on all nodes.",
        required: false,
        show: |c| Some(c.lease.as_millis().to_string()),
        set: |c, v, _| millis(v, 100, 60_000).map(|v| c.lease = v),
    },
    Key {
        section: "timing",
        name: "staged_timeout_millis",
        help: "A transaction left open by its client is ended by a participant after this long,\n\
               milliseconds; at least 10 × the longest round trip.",
        required: false,
        show: |c| Some(c.staged_timeout.as_millis().to_string()),
        set: |c, v, _| millis(v, 100, 600_000).map(|v| c.staged_timeout = v),
    },
    Key {
        section: "timing",
        name: "session_millis",
        help: "Locks of a client that gives no sign of life are dropped after this long,\n\
               milliseconds.",
        required: false,
        show: |c| Some(c.session.as_millis().to_string()),
        set: |c, v, _| millis(v, 1_000, 600_000).map(|v| c.session = v),
    },
    Key {
        section: "timing",
        name: "stall_millis",
        help: "A log sync that takes longer than this, and a second longer for each 8 MiB in it,\n\
               makes the node hand its leaderships over, milliseconds.",
        required: false,
        show: |c| Some(c.stall.as_millis().to_string()),
        set: |c, v, _| millis(v, 50, 600_000).map(|v| c.stall = v),
    },
    Key {
        section: "placement",
        name: "down_seconds",
        help: "A node that is not heard for longer than this is not waited for any more: its\n\
               replicas are made anew on others, if there are such. The same on all nodes.",
        required: false,
        show: |c| Some(c.keeper_down.as_secs().to_string()),
        set: |c, v, _| seconds(v, 1, 1_000_000).map(|v| c.keeper_down = v),
    },
    Key {
        section: "placement",
        name: "look_seconds",
        help: "While something changes, the node that leads the meta shard looks this often at\n\
               where replicas are and where they should be; a minute while nothing does.",
        required: false,
        show: |c| Some(c.keeper_look.as_secs().to_string()),
        set: |c, v, _| seconds(v, 1, 3_600).map(|v| c.keeper_look = v),
    },
    Key {
        section: "testing",
        name: "rtt_millis",
        help: "For tests and demos only: round-trip time added between nodes in different data\n\
               centres, inside the nodes' transport, milliseconds. 0 = none.",
        required: false,
        show: |c| Some(c.testing_rtt.as_millis().to_string()),
        set: |c, v, _| millis(v, 0, 10_000).map(|v| c.testing_rtt = v),
    },
];

/// The table as `synod start --help` shows it.
pub fn help() -> String {
    let mut out = String::from("Settings of the configuration file (see `synod config sample`):\n");
    for key in KEYS {
        let state = match (key.required, key.default_text()) {
            (true, _) => "required".to_owned(),
            (false, Some(default)) if default != "\"\"" => format!("default {default}"),
            (false, _) => "optional".to_owned(),
        };
        let _ = writeln!(out, "  {} ({state})", key.path());
        for line in key.help.lines() {
            let _ = writeln!(out, "      {line}");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_default_is_accepted_as_a_value() {
        for key in KEYS {
            let Some(text) = key.default_text().filter(|t| t != "\"\"") else {
                continue;
            };
            let table: toml::Table = format!("x = {text}").parse().expect("TOML");
            let mut config = defaults();
            let applied = key.apply(&mut config, &table["x"], Path::new(""));
            assert_eq!(applied, Ok(()), "{}", key.path());
            assert_eq!((key.show)(&config), Some(text), "{}", key.path());
        }
    }

    #[test]
    fn wrong_kinds_and_ranges_are_refused_in_words() {
        let key = |name: &str| KEYS.iter().find(|k| k.name == name).expect("key");
        let mut config = defaults();
        let mut refuse = |name: &str, value: Value| {
            key(name)
                .apply(&mut config, &value, Path::new(""))
                .expect_err("refused")
        };
        assert!(refuse("lease_millis", Value::Integer(5)).contains("from 100 to"));
        assert!(refuse("engine", Value::String("rocks".into())).contains("fjall"));
        assert!(refuse("listen", Value::String("here".into())).contains("ip:port"));
        assert!(refuse("name", Value::Integer(1)).contains("quotes"));
    }
}
