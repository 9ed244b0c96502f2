//! What can go wrong, in words for people: what happened to what, what to do,
//! and whether a retry is safe.

use std::net::SocketAddr;
use std::path::PathBuf;

/// A node's endpoint or a pool could not be set up. Nothing was sent.
#[derive(Debug, thiserror::Error)]
pub enum RpcError {
    /// The address cannot be listened on.
    #[error("cannot listen on UDP {address}: {source}; is another process using the port?")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// What the system says.
        source: std::io::Error,
    },
    /// A certificate or key is of no use.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// TLS refuses the certificates as a whole.
    #[error("cannot set up TLS: {0}")]
    Tls(String),
    /// The thread or runtime for network IO cannot be made.
    #[error("cannot start the network thread: {0}")]
    Thread(std::io::Error),
}

/// A CA, certificate or key cannot be used as it is.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// A file cannot be read.
    #[error("cannot read {what} {}: {source}", path.display())]
    Read {
        /// What it should hold.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// The text is not PEM of the right kind.
    #[error("{what} is not usable PEM: {reason}")]
    Pem {
        /// What it should hold.
        what: &'static str,
        /// What the parser says.
        reason: String,
    },
    /// The subject does not follow Synod's form.
    #[error("{what} was not made by `synod cert`: its common name is {found:?}")]
    Subject {
        /// Which certificate.
        what: &'static str,
        /// Its common name.
        found: String,
    },
    /// The certificate is not one of this CA, has expired, or is otherwise invalid.
    #[error("the certificate of {subject} is refused: {reason}")]
    Invalid {
        /// Whose it is.
        subject: String,
        /// Why, and what to do.
        reason: String,
    },
    /// The key belongs to another certificate.
    #[error(
        "the private key does not belong to the certificate of {subject}; use the pair that `synod cert` wrote together"
    )]
    KeyMismatch {
        /// Whose certificate it is.
        subject: String,
    },
}

/// Certificates could not be issued. Existing files are as they were.
#[derive(Debug, thiserror::Error)]
pub enum CertError {
    /// There is one already.
    #[error("{} exists already and is not overwritten; choose another directory or name", path.display())]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// There is no CA to issue from.
    #[error("no CA in {}: make one first with `synod cert ca` (needs ca.crt and ca.key)", path.display())]
    NoCa {
        /// The directory.
        path: PathBuf,
    },
    /// The name does not fit in a certificate or file name.
    #[error(
        "the name {name:?} is not allowed: use 1 to 48 of a-z, A-Z, 0-9, '.', '_' and '-', beginning with a letter or digit"
    )]
    Name {
        /// The name.
        name: String,
    },
    /// A file cannot be written or read.
    #[error("cannot {action} {}: {source}", path.display())]
    File {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// The CA found is damaged or not Synod's.
    #[error(transparent)]
    Ca(#[from] IdentityError),
    /// Making or signing failed.
    #[error("cannot make the certificate: {0}")]
    Generate(String),
}

/// A call through the [`Pool`](crate::Pool) got no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// No connection came about. Nothing was sent: safe to retry, here or elsewhere.
    #[error("cannot reach the node at {address}: {reason}")]
    Connect {
        /// Where to.
        address: SocketAddr,
        /// Why.
        reason: String,
    },
    /// The connection ended before the answer came.
    #[error("lost the connection to the node at {address}: {reason}{}", sent_text(*sent))]
    Lost {
        /// Where to.
        address: SocketAddr,
        /// Why.
        reason: String,
        /// Whether the request may have reached the node. If not, a retry is safe;
        /// if so, it is for requests that may be repeated, which all of Synod's may.
        sent: bool,
    },
    /// The deadline passed first.
    #[error("the node at {address} did not answer in time{}", sent_text(*sent))]
    Deadline {
        /// Where to.
        address: SocketAddr,
        /// Whether the request may have reached the node.
        sent: bool,
    },
    /// The request fits no frame. Nothing was sent; the same one cannot succeed.
    #[error(
        "the request is larger than {} bytes; send less at once",
        crate::frame::MAX_REQUEST_BYTES
    )]
    TooLarge,
    /// The node does not want to talk to us (certificate, cluster, role): it has
    /// looked at nothing we sent, and retrying helps only after a change.
    #[error("the node at {address} refuses us: {reason}")]
    Refused {
        /// Where to.
        address: SocketAddr,
        /// Why.
        reason: String,
    },
    /// Too much is waiting for this node already. Nothing was sent: retry later.
    #[error("too many requests are waiting for the node at {address}; retry later")]
    Overloaded {
        /// Where to.
        address: SocketAddr,
    },
    /// The pool was closed. Nothing was sent.
    #[error("the client is closed")]
    Closed,
}

impl CallError {
    /// Whether the node may have got the request.
    #[must_use]
    pub const fn maybe_sent(&self) -> bool {
        matches!(
            self,
            CallError::Lost { sent: true, .. } | CallError::Deadline { sent: true, .. }
        )
    }
}

const fn sent_text(sent: bool) -> &'static str {
    if sent {
        "; the request may have reached it"
    } else {
        "; the request was not sent"
    }
}
