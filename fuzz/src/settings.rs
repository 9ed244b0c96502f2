//! Configuration files, and what people write on the command line.

use crate::config::File;
use crate::{bytes, duration};
use std::path::Path;

/// A text as a configuration file: settings within their bounds, or one message
/// that names the file.
pub fn configuration(text: &str) {
    let path = Path::new("/somewhere/n1.toml");
    let file = match File::parse(path, text) {
        Ok(file) => file,
        Err(failure) => return assert!(failure.to_string().starts_with("/somewhere/n1.toml: ")),
    };
    match file.node(&[]) {
        Ok(node) => {
            assert!((1 << 20..=1 << 30).contains(&node.log_segment_bytes));
            assert!((100..=60_000).contains(&node.lease.as_millis()));
            let text = node.locality.to_string();
            assert_eq!(text.parse(), Ok(node.locality));
        }
        Err(failure) => assert!(failure.to_string().starts_with("/somewhere/n1.toml: ")),
    }
    if let Ok(client) = file.client() {
        assert!(
            client
                .endpoints
                .iter()
                .all(|endpoint| text.len() >= endpoint.len())
        );
    }
}

/// A text as a duration and as bytes on the command line; bytes as they are
/// shown can be given back.
pub fn argument(text: &str) {
    if let Ok(duration) = duration::parse(text) {
        assert!(text.starts_with(|c: char| c.is_ascii_digit() || "+-.".contains(c)));
        assert!(duration.as_nanos() < u128::from(u64::MAX) * 1_000_000_000);
    }
    for given in [text.as_bytes().to_vec(), text.bytes().rev().collect()] {
        let shown = bytes::show(&given);
        assert_eq!(
            bytes::parse(&shown),
            Ok(bytes::Given(given)),
            "shown as {shown}"
        );
    }
    if let Ok(bytes::Given(bytes)) = bytes::parse(text) {
        let again = bytes::parse(&bytes::show(&bytes));
        assert_eq!(again, Ok(bytes::Given(bytes)));
    }
}
