//! A script of transactions, over and over.

use super::Script;
use crate::history::Outcome;
use synod_client::Client;
use synod_client::script::{ExitStatus, run};

/// The script.
pub(in crate::lab) struct ScriptLoad {
    script: Script,
}

impl ScriptLoad {
    pub(super) fn new(script: Script) -> ScriptLoad {
        ScriptLoad { script }
    }

    /// Runs it once, from its first line to its last.
    pub(super) async fn request(&self, client: &Client) -> Outcome {
        match run(client, &self.script.script, |_| {}).await {
            ExitStatus::Committed => Outcome::Committed(None),
            ExitStatus::Unknown => Outcome::Unknown,
            ExitStatus::Aborted | ExitStatus::BadScript | ExitStatus::NoCluster => Outcome::Aborted,
        }
    }
}
