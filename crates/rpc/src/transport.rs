//! The numbers QUIC runs by, and the UDP socket under it.

use crate::error::RpcError;
use crate::tls::{TlsIdentity, provider};
use quinn::congestion::CubicConfig;
use quinn::crypto::{CryptoError, HmacKey};
use quinn::{
    AckFrequencyConfig, ConnectionId, ConnectionIdGenerator, EndpointConfig, IdleTimeout,
    MtuDiscoveryConfig, TransportConfig, VarInt,
};
use rustls::SupportedCipherSuite;
use rustls::crypto::tls13::Hkdf;
use socket2::{Domain, Protocol, Socket, Type};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// QUIC settings shared by nodes and clients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TransportOptions {
    /// A connection is lost when nothing came for this long; the smaller of
    /// both sides' counts.
    pub idle: Duration,
    /// An idle connection is pinged this often by the side that made it.
    pub keep_alive: Duration,
    /// A connection attempt fails after this long.
    pub connect: Duration,
    /// Bytes of the largest UDP payload to start with. None: begin at 1,200,
    /// discover up to 6,500. A larger number is for paths known to carry it on
    /// every hop (loopback, jumbo frames), at both ends.
    pub mtu: Option<u16>,
    /// Bytes asked for each of the socket's two buffers; the system may give less.
    pub socket_buffer_bytes: usize,
}

impl Default for TransportOptions {
    fn default() -> TransportOptions {
        TransportOptions {
            idle: Duration::from_secs(3),
            keep_alive: Duration::from_millis(500),
            connect: Duration::from_secs(2),
            mtu: None,
            socket_buffer_bytes: 4 << 20,
        }
    }
}

/// The first and the longest pause between two attempts to connect.
pub(crate) const BACKOFF: (Duration, Duration) =
    (Duration::from_millis(50), Duration::from_secs(1));
/// Chunks taken from a stream at once.
pub(crate) const READ_CHUNKS: usize = 32;
/// Bytes in flight on one stream: 4 MiB at 30 ms round trip are 130 MB/s.
const STREAM_WINDOW: u32 = 4 << 20;
/// Bytes in flight on one connection.
const CONNECTION_WINDOW: u32 = 16 << 20;
/// A receiver acknowledges every so many packets, or after the delay both sides agreed on.
const ACK_EVERY: u32 = 10;
/// Bytes in flight before anything is known of the path: as many of the largest packets as are
/// acknowledged at once, or the first ones of an idle connection wait for the delayed acknowledgement.
const INITIAL_WINDOW: u64 = ACK_EVERY as u64 * LARGEST_MTU as u64;
/// The round trip assumed before one is measured. A first packet that was lost
/// is sent again after three times this; QUIC's default of 333 ms suits other networks.
const INITIAL_RTT: Duration = Duration::from_millis(100);
/// QUIC's smallest datagram, and the default here.
const SAFE_MTU: u16 = 1200;
/// The largest datagram that is looked for. Loopback carries it, and so do jumbo frames; with values
/// of many kilobytes a datagram of 1,452 bytes costs four times as many packets, each sealed and
/// opened on its own. Ten of them, which quinn gives the system at once, stay below the 64 KiB that
/// the system takes.
const LARGEST_MTU: u16 = 6_500;
/// Streams one peer may have open at once, each way.
const MAX_STREAMS: u32 = 8;

/// What quinn's tasks and sockets run on.
pub(crate) fn runtime() -> Arc<dyn quinn::Runtime> {
    #[cfg(unix)]
    return Arc::new(crate::socket::QuietRuntime);
    #[cfg(not(unix))]
    return Arc::new(quinn::TokioRuntime);
}

impl TransportOptions {
    fn largest_mtu(&self) -> u16 {
        self.mtu.unwrap_or(SAFE_MTU).max(LARGEST_MTU)
    }

    /// Settings for connections. `accepted`: made by the other side, who pings.
    pub(crate) fn transport(&self, accepted: bool) -> Arc<TransportConfig> {
        let mut config = TransportConfig::default();
        let mut acks = AckFrequencyConfig::default();
        acks.ack_eliciting_threshold(VarInt::from_u32(ACK_EVERY));
        let idle = u32::try_from(self.idle.as_millis()).unwrap_or(u32::MAX);
        config
            .max_concurrent_bidi_streams(VarInt::from_u32(if accepted { MAX_STREAMS } else { 0 }))
            .max_concurrent_uni_streams(VarInt::from_u32(if accepted { MAX_STREAMS } else { 0 }))
            .max_idle_timeout(Some(IdleTimeout::from(VarInt::from_u32(idle))))
            .stream_receive_window(VarInt::from_u32(STREAM_WINDOW))
            .receive_window(VarInt::from_u32(CONNECTION_WINDOW))
            .send_window(u64::from(CONNECTION_WINDOW))
            .datagram_receive_buffer_size(None)
            .initial_rtt(INITIAL_RTT)
            .ack_frequency_config(Some(acks))
            .keep_alive_interval((!accepted).then_some(self.keep_alive));
        let mut discovery = MtuDiscoveryConfig::default();
        discovery.upper_bound(self.largest_mtu());
        config.mtu_discovery_config(Some(discovery));
        let mut congestion = CubicConfig::default();
        congestion.initial_window(INITIAL_WINDOW);
        config.congestion_controller_factory(Arc::new(congestion));
        if let Some(mtu) = self.mtu {
            config.initial_mtu(mtu.max(SAFE_MTU));
        }
        Arc::new(config)
    }

    /// Settings of the socket's endpoint. `server`: the identity of one that
    /// others connect to, and that they should notice restarting.
    pub(crate) fn endpoint(
        &self,
        server: Option<&TlsIdentity>,
    ) -> Result<EndpointConfig, RpcError> {
        let mut config = match server {
            Some(tls) => EndpointConfig::new(Arc::new(ResetKey::of(tls)?)),
            None => EndpointConfig::default(),
        };
        config.cid_generator(|| Box::new(RandomIds));
        config
            .max_udp_payload_size(self.largest_mtu())
            .map_err(|e| RpcError::Tls(e.to_string()))?;
        Ok(config)
    }

    /// A UDP socket bound to `address`, with large buffers.
    pub(crate) fn socket(&self, address: SocketAddr) -> Result<std::net::UdpSocket, RpcError> {
        let bind = || {
            let socket = Socket::new(
                Domain::for_address(address),
                Type::DGRAM,
                Some(Protocol::UDP),
            )?;
            if address.is_ipv6() {
                // The unspecified IPv6 address reaches IPv4 peers too, where the system allows it.
                let _ = socket.set_only_v6(false);
            }
            // Smaller buffers cost speed, not correctness.
            let _ = socket.set_recv_buffer_size(self.socket_buffer_bytes);
            let _ = socket.set_send_buffer_size(self.socket_buffer_bytes);
            socket.bind(&address.into())?;
            Ok(socket.into())
        };
        bind().map_err(|source| RpcError::Bind { address, source })
    }
}

/// Derives the tokens of stateless resets (RFC 9000, 10.3) from the node's own
/// private key. A restarted node thus makes the same tokens, so peers and
/// clients that still talk to its predecessor learn at once that it is gone,
/// not after the idle timeout.
struct ResetKey {
    hkdf: &'static dyn Hkdf,
    secret: Vec<u8>,
}

impl ResetKey {
    fn of(tls: &TlsIdentity) -> Result<ResetKey, RpcError> {
        let hkdf = provider()
            .cipher_suites
            .iter()
            .find_map(SupportedCipherSuite::tls13)
            .map(|suite| suite.hkdf_provider)
            .ok_or_else(|| RpcError::Tls("no TLS 1.3 cipher suite".to_owned()))?;
        Ok(ResetKey {
            hkdf,
            secret: tls.stable_secret(),
        })
    }
}

impl HmacKey for ResetKey {
    fn sign(&self, data: &[u8], signature_out: &mut [u8]) {
        self.hkdf
            .extract_from_secret(Some(data), &self.secret)
            .expand_slice(&[b"synod stateless reset"], signature_out)
            .expect("a signature is shorter than 255 hashes");
    }

    fn signature_len(&self) -> usize {
        32
    }

    fn verify(&self, data: &[u8], signature: &[u8]) -> Result<(), CryptoError> {
        let mut own = vec![0; signature.len()];
        self.sign(data, &mut own);
        // No early exit: the time taken tells nothing.
        let differs = own
            .iter()
            .zip(signature)
            .fold(0, |acc, (a, b)| acc | (a ^ b));
        if differs == 0 {
            Ok(())
        } else {
            Err(CryptoError)
        }
    }
}

/// Random connection ids. quinn's default ids are keyed per process, and a
/// restarted node would take its predecessor's for noise instead of resetting them.
struct RandomIds;

/// Bytes of a connection id.
const ID_BYTES: usize = 8;

impl ConnectionIdGenerator for RandomIds {
    fn generate_cid(&mut self) -> ConnectionId {
        let mut bytes = [0; ID_BYTES];
        // Without randomness no TLS handshake comes about either.
        let _ = provider().secure_random.fill(&mut bytes);
        ConnectionId::new(&bytes)
    }

    fn cid_len(&self) -> usize {
        ID_BYTES
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}
