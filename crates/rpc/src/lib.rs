//! How nodes and clients reach each other: QUIC (RFC 9000) with TLS 1.3 both
//! ways, always; framing; and the types on the wire.
//!
//! | part | for |
//! |---|---|
//! | [`Endpoint`] | a node: one UDP socket that serves clients and links to its peers |
//! | [`Pool`] | a client (the SDK, the `synod` program); with a user's certificate |
//! | [`wire`] | requests, answers, status |
//! | [`ask`] | questions to single nodes |
//! | [`cert`] | a cluster's CA and certificates |
//!
//! Traffic of one kind never waits behind another: per pair of nodes there is
//! one long stream for consensus and one for bulk transfers, each way on the
//! sender's own connection; per client one long stream multiplexes requests.
//!
//! Not here: prefix grants (the node checks them by the user's name that comes
//! with each frame), retries and routing (the SDK's), 0-RTT and session
//! resumption (a certificate is checked at every connection).

pub mod ask;
pub mod cert;
pub mod close;
mod connect;
pub mod copies;
pub mod endpoint;
pub mod error;
pub mod events;
pub mod frame;
pub mod hash;
pub mod hello;
mod link;
pub mod load;
pub mod members;
pub mod merge;
mod peer;
pub mod placement;
pub mod pool;
mod reader;
pub mod recover;
mod replies;
mod server;
#[cfg(unix)]
mod socket;
pub mod split;
pub mod status;
pub mod tls;
pub mod transport;
pub mod versions;
pub mod wire;

pub use cert::{CertRole, Subject};
pub use endpoint::{Endpoint, EndpointOptions, Lane};
pub use error::{CallError, RpcError};
pub use events::{Event, EventQueue};
pub use pool::{Pool, PoolOptions};
pub use tls::TlsIdentity;
pub use transport::TransportOptions;
pub use wire::{ClientFrame, NodeRequest, NodeResponse, RequestBody, ServerBody, ServerFrame};
