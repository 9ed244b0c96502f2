//! Configuration files: TOML with a part for a node and one for clients.

mod keys;

use crate::exit::Failure;
use keys::KEYS;
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use synod_kv::config::NodeConfig;
use toml::{Table, Value};

pub use keys::help;

/// The part of the file for clients.
const CLIENT: &str = "client";
/// Its settings, with what they mean.
const CLIENT_KEYS: [(&str, &str, &str); 4] = [
    (
        "endpoints",
        "[\"127.0.0.1:7001\"]",
        "Addresses of some nodes, ip:port; the others are learned from them.",
    ),
    ("ca", "\"ca.crt\"", "Certificate of the cluster's CA, PEM."),
    ("cert", "\"user-admin.crt\"", "The user's certificate, PEM."),
    (
        "key",
        "\"user-admin.key\"",
        "The key of the user's certificate, PEM.",
    ),
];

/// What a file says for clients.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientSection {
    /// Addresses of some nodes.
    pub endpoints: Vec<String>,
    /// The CA's certificate.
    pub ca: Option<PathBuf>,
    /// The user's certificate.
    pub cert: Option<PathBuf>,
    /// Its key.
    pub key: Option<PathBuf>,
}

/// A setting of a node that an option gives; it goes before the file's.
pub struct Given {
    /// The option, for messages.
    pub option: &'static str,
    /// Its key in `[node]`.
    pub key: &'static str,
    /// What it says; relative paths are meant from the working directory.
    pub value: String,
}

/// A file that was read and whose keys are all known.
#[derive(Default)]
pub struct File {
    path: PathBuf,
    table: Table,
}

impl File {
    /// Reads and checks the file's shape; values are checked when they are used.
    pub fn read(path: &Path) -> Result<File, Failure> {
        let text = std::fs::read_to_string(path).map_err(|e| {
            Failure::input(format!(
                "cannot read the configuration {}: {e}; `synod config sample` prints one",
                path.display()
            ))
        })?;
        File::parse(path, &text)
    }

    /// As [`File::read`], of a text; `path` is for messages and relative paths.
    pub fn parse(path: &Path, text: &str) -> Result<File, Failure> {
        let refuse =
            |problem: String| Err(Failure::input(format!("{}: {problem}", path.display())));
        let table: Table = match text.parse() {
            Ok(table) => table,
            Err(error) => return refuse(format!("not TOML: {error}")),
        };
        let mut sections: BTreeSet<&str> = KEYS.iter().map(|k| k.section).collect();
        sections.insert(CLIENT);
        for (section, value) in &table {
            if !sections.contains(section.as_str()) {
                return refuse(unknown("section", section, &sections));
            }
            let Value::Table(entries) = value else {
                return refuse(format!("`{section}` must be a section: write [{section}]"));
            };
            let names: BTreeSet<&str> = KEYS
                .iter()
                .filter(|k| k.section == section)
                .map(|k| k.name)
                .chain(
                    CLIENT_KEYS
                        .iter()
                        .filter(|_| section == CLIENT)
                        .map(|(name, ..)| *name),
                )
                .collect();
            for name in entries.keys() {
                if !names.contains(name.as_str()) {
                    return refuse(unknown(&format!("key in [{section}]"), name, &names));
                }
            }
        }
        Ok(File {
            path: path.to_path_buf(),
            table,
        })
    }

    fn base(&self) -> &Path {
        self.path.parent().unwrap_or(Path::new(""))
    }

    fn value(&self, section: &str, name: &str) -> Option<&Value> {
        self.table.get(section)?.get(name)
    }

    fn refuse(&self, problem: impl std::fmt::Display) -> Failure {
        Failure::input(format!("{}: {problem}", self.path.display()))
    }

    /// The node's settings: those of the file, after those that options give.
    pub fn node(&self, given: &[Given]) -> Result<NodeConfig, Failure> {
        let mut config = keys::defaults();
        for key in KEYS {
            let option = given
                .iter()
                .find(|g| key.section == "node" && key.name == g.key);
            if let Some(Given { option, value, .. }) = option {
                key.apply(&mut config, &Value::String(value.clone()), Path::new(""))
                    .map_err(|problem| Failure::input(format!("{option} {problem}")))?;
                continue;
            }
            match self.value(key.section, key.name) {
                Some(value) => key
                    .apply(&mut config, value, self.base())
                    .map_err(|problem| self.refuse(format!("{} {problem}", key.path())))?,
                None if key.required => {
                    return Err(self.refuse(format!(
                        "{} is missing; add, for instance, `{} = {}` under [{}]",
                        key.path(),
                        key.name,
                        key.default_text().unwrap_or_default(),
                        key.section
                    )));
                }
                None => {}
            }
        }
        Ok(config)
    }

    /// The clients' settings, as far as there are any.
    pub fn client(&self) -> Result<ClientSection, Failure> {
        let path = |name: &str| match self.value(CLIENT, name) {
            Some(Value::String(text)) => Ok(Some(self.base().join(text))),
            Some(_) => Err(self.refuse(format!("client.{name} must be a text in quotes"))),
            None => Ok(None),
        };
        let mut endpoints = Vec::new();
        if let Some(value) = self.value(CLIENT, "endpoints") {
            let list = value.as_array().map(Vec::as_slice).unwrap_or_default();
            for entry in list {
                endpoints.extend(entry.as_str().map(str::to_owned));
            }
            if endpoints.is_empty() || endpoints.len() != list.len() {
                return Err(self.refuse("client.endpoints must be a list of texts, ip:port"));
            }
        }
        Ok(ClientSection {
            endpoints,
            ca: path("ca")?,
            cert: path("cert")?,
            key: path("key")?,
        })
    }
}

fn unknown(kind: &str, name: &str, known: &BTreeSet<&str>) -> String {
    match synod_placement::nearest(name, known.iter().copied()) {
        Some(right) => format!("unknown {kind}: `{name}`; did you mean `{right}`?"),
        None => {
            let list: Vec<&str> = known.iter().copied().collect();
            format!("unknown {kind}: `{name}`; there are {}", list.join(", "))
        }
    }
}

/// A sample file that explains every key.
pub fn sample() -> String {
    let mut out = String::from(
        "# A node's configuration, and what clients need to reach it.\n\
         # Made by `synod config sample`. Lines that begin with `#` and a key show its default.\n",
    );
    let mut section = "";
    for key in KEYS {
        if key.section != section {
            section = key.section;
            let _ = writeln!(out, "\n[{section}]");
        }
        out.push('\n');
        for line in key.help.lines() {
            let _ = writeln!(out, "# {line}");
        }
        let value = match (key.name, key.default_text()) {
            ("locality", _) => "\"region=eu,dc=eu-1,rack=r1\"".to_owned(),
            ("advertise", _) => "\"192.0.2.1:7001\"".to_owned(),
            (_, value) => value.unwrap_or_default(),
        };
        let mark = if key.required { "" } else { "# " };
        let _ = writeln!(out, "{mark}{} = {value}", key.name);
    }
    let _ = writeln!(out, "\n[{CLIENT}]");
    for (name, value, help) in CLIENT_KEYS {
        let _ = writeln!(out, "\n# {help}\n# {name} = {value}");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "[node]\nname = \"n1\"\nlisten = \"127.0.0.1:7001\"\ndata_dir = \"d\"\n\
                        ca = \"ca.crt\"\ncert = \"/x/n.crt\"\nkey = \"n.key\"\n";

    fn parse(text: &str) -> Result<File, Failure> {
        File::parse(Path::new("/etc/synod/n1.toml"), text)
    }

    fn problem<T>(result: Result<T, Failure>) -> String {
        match result {
            Ok(_) => panic!("accepted"),
            Err(failure) => failure.to_string(),
        }
    }

    #[test]
    fn paths_are_meant_from_the_file() {
        let node = parse(GOOD).and_then(|f| f.node(&[])).expect("good");
        assert_eq!(node.data_dir, Path::new("/etc/synod/d"));
        assert_eq!(node.cert, Path::new("/x/n.crt"));
    }

    #[test]
    fn an_unknown_key_names_the_right_one() {
        let text = problem(parse("[timing]\nlease_milis = 3\n"));
        assert!(text.contains("`lease_millis`"), "{text}");
        let text = problem(parse("[nod]\n"));
        assert!(text.contains("`node`"), "{text}");
        let text = problem(parse("[client]\nendpoint = 1\n"));
        assert!(text.contains("`endpoints`"), "{text}");
    }

    #[test]
    fn a_missing_key_is_named() {
        let file = parse("[node]\nname = \"n1\"\n").expect("known keys");
        let text = problem(file.node(&[]));
        assert!(text.contains("node.listen is missing"), "{text}");
    }

    #[test]
    fn the_sample_is_a_good_file() {
        let file = parse(&sample()).expect("sample");
        file.node(&[]).expect("a node");
        file.client().expect("a client");
        // And so it is with every line in force.
        let is_setting = |line: &str| {
            let name = line.split_once(" = ").map_or("", |(name, _)| name);
            !name.is_empty() && !name.contains(' ')
        };
        let all: String = sample()
            .lines()
            .map(|line| match line.strip_prefix("# ") {
                Some(rest) if is_setting(rest) => format!("{rest}\n"),
                _ => format!("{line}\n"),
            })
            .collect();
        let file = parse(&all).expect("all keys");
        file.node(&[]).expect("a node");
        let client = file.client().expect("a client");
        assert_eq!(client.endpoints, ["127.0.0.1:7001"]);
    }

    #[test]
    fn the_sample_in_the_repository_is_the_one_printed() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../synod.sample.toml");
        let there = std::fs::read_to_string(path).expect("synod.sample.toml");
        assert_eq!(
            there,
            sample(),
            "run `synod config sample > synod.sample.toml`"
        );
    }
}
