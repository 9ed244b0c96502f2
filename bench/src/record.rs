//! One line of a file of results: what was measured, and the figures.

use crate::error::Error;
use crate::plan::Group;
use crate::system::System;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;

/// What was measured; equal in all repetitions.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Subject {
    /// Measured together with what.
    pub group: Group,
    /// The workload's name.
    pub workload: String,
    /// Clients.
    pub clients: u32,
    /// Bytes of a value.
    pub value_bytes: usize,
    /// Offered per second; none in a closed loop.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offered: Option<u32>,
    /// Shards that take part in each commit, where that is what varies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub participants: Option<u32>,
}

/// One measurement.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Of what.
    #[serde(flatten)]
    pub subject: Subject,
    /// Of whom.
    pub system: System,
    /// Figures by name, the unit in the name.
    pub figures: BTreeMap<String, f64>,
}

/// Figures that a line for people has, with their units.
const SHOWN: [(&str, &str); 16] = [
    ("rate", "/s"),
    ("mean_us", " µs"),
    ("p50_us", " µs"),
    ("p99_us", " µs"),
    ("p999_us", " µs"),
    ("server_cpu_us", " µs"),
    ("client_cpu_us", " µs"),
    ("syncs", ""),
    ("retries", ""),
    ("failed", ""),
    ("offered", "/s"),
    ("gap_ms", " ms"),
    ("seconds", " s"),
    ("fill_s", " s"),
    ("resident_mib", " MiB"),
    ("packets", ""),
];

/// Figures under construction.
#[derive(Debug, Default)]
pub struct Figures(BTreeMap<String, f64>);

impl Figures {
    /// Adds one, rounded to what can be told apart.
    pub fn set(&mut self, name: &str, value: f64) -> &mut Figures {
        let scale = if value.abs() < 100.0 { 1000.0 } else { 10.0 };
        self.0
            .insert(name.to_owned(), (value * scale).round() / scale);
        self
    }

    /// All of them.
    pub fn done(&mut self) -> BTreeMap<String, f64> {
        std::mem::take(&mut self.0)
    }
}

impl Record {
    /// A figure, if it was measured.
    pub fn figure(&self, name: &str) -> Option<f64> {
        self.figures.get(name).copied()
    }

    /// One line for people.
    pub fn line(&self) -> String {
        let subject = &self.subject;
        let mut line = format!("{:<6}{:<12}", self.system.name(), subject.workload);
        line += &format!("{:>5} clients", subject.clients);
        if let Some(offered) = subject.offered {
            line += &format!(", {offered}/s offered");
        }
        if let Some(participants) = subject.participants {
            line += &format!(", {participants} participants");
        }
        // Those that tell most; all of them are in the file of results.
        for (name, unit) in SHOWN {
            if let Some(value) = self.figure(name) {
                let name = name.trim_end_matches("_us").trim_end_matches("_ms");
                line += &format!("  {name} {value}{unit}");
            }
        }
        line
    }
}

/// Adds a record to a file of results.
///
/// # Errors
/// When it cannot be written.
pub fn append(path: &Path, record: &Record) -> Result<(), Error> {
    let io = || Error::io(format!("writing {}", path.display()));
    let line = serde_json::to_string(record).map_err(|e| io()(e.into()))?;
    let file = std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(path);
    writeln!(file.map_err(io())?, "{line}").map_err(io())
}

/// Reads a file of results.
///
/// # Errors
/// When it cannot be read, or a line is no record.
pub fn read(path: &Path) -> Result<Vec<Record>, Error> {
    let text = std::fs::read_to_string(path);
    let text = text.map_err(Error::io(format!("reading {}", path.display())))?;
    let parse = |(index, line): (usize, &str)| {
        serde_json::from_str(line).map_err(|error| Error::Results {
            path: path.to_owned(),
            line: index + 1,
            reason: error.to_string(),
        })
    };
    text.lines().enumerate().map(parse).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_come_back_as_they_were_written() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("r.jsonl");
        let mut figures = Figures::default();
        figures.set("rate", 12_345.678).set("p50_us", 1.23456);
        let record = Record {
            subject: Subject {
                group: Group::Put,
                workload: "put".to_owned(),
                clients: 16,
                value_bytes: 128,
                offered: None,
                participants: Some(2),
            },
            system: System::Etcd,
            figures: figures.done(),
        };
        append(&path, &record).expect("written");
        append(&path, &record).expect("written");
        let back = read(&path).expect("readable");
        assert_eq!(back, [record.clone(), record.clone()]);
        assert_eq!(record.figure("rate"), Some(12_345.7));
        assert_eq!(record.figure("p50_us"), Some(1.235));
        std::fs::write(&path, "{}\n").expect("written");
        let error = read(&path).expect_err("no record").to_string();
        assert!(error.contains("line 1"), "{error}");
    }
}
