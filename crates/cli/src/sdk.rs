//! The SDK's errors and receipts, as this program reports them.

use crate::bytes;
use crate::exit::{Failure, Status};
use serde_json::json;
use synod_client::script::{Event, ExitStatus, What};
use synod_client::{Error, Receipt};

impl From<ExitStatus> for Status {
    fn from(status: ExitStatus) -> Status {
        match status {
            ExitStatus::Committed => Status::Done,
            ExitStatus::Aborted => Status::Aborted,
            ExitStatus::BadScript => Status::BadInput,
            ExitStatus::Unknown => Status::Unknown,
            ExitStatus::NoCluster => Status::NoCluster,
        }
    }
}

/// A failed call, with the exit status that fits it.
pub fn failure(error: Error) -> Failure {
    let status = match &error {
        Error::Config(_) | Error::Invalid(_) => Status::BadInput,
        _ => ExitStatus::of_error(&error).into(),
    };
    Failure::new(status, error)
}

/// Whether an event of a script tells of something that went wrong.
pub fn is_trouble(event: &Event) -> bool {
    matches!(
        event.what,
        What::Ended { .. } | What::Error { .. } | What::Require { holds: false, .. }
    )
}

/// What a write came to.
pub fn show_receipt(op: &str, key: &[u8], receipt: &Receipt, as_json: bool) {
    if as_json {
        println!(
            "{}",
            json!({
                "op": op,
                "key": bytes::json(key),
                "outcome": "committed",
                "txn": receipt.attempt.to_string(),
                "timestamp": receipt.timestamp.map(|t| t.0),
                "attempts": receipt.attempts,
                "shards": receipt.shards,
                "elapsed_us": u64::try_from(receipt.elapsed.as_micros()).unwrap_or(u64::MAX),
            })
        );
    }
}
