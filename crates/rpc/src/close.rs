//! The codes streams and connections are closed with, and what a lost
//! connection means in words.

use quinn::{ConnectionError, TransportErrorCode, VarInt};

/// Why this side closes a stream or a connection. The number is on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum CloseCode {
    /// The program ends, or nobody needs the stream any more.
    Shutdown = 0,
    /// A frame could not be decoded; closes its stream only.
    BadFrame = 1,
    /// The stream does not begin with a hello this version understands.
    BadHello = 2,
    /// The hello names another cluster.
    WrongCluster = 3,
    /// The hello is meant for another node.
    WrongNode = 4,
    /// The certificate's role does not allow this stream.
    WrongRole = 5,
    /// The answers are not read.
    SlowReader = 6,
    /// A later incarnation of the sender is known.
    Stale = 7,
    /// The sender's node id belongs to another certificate.
    WrongName = 8,
    /// The link is made anew, because the other side restarted.
    Redial = 9,
    /// A large request comes too slowly.
    SlowWriter = 10,
}

impl CloseCode {
    /// The code as QUIC carries it.
    #[must_use]
    pub fn var(self) -> VarInt {
        VarInt::from_u32(self as u32)
    }

    /// Whether the other side read a hello and wants none of what follows it:
    /// no request on that connection was looked at.
    fn refuses(code: VarInt) -> bool {
        [
            CloseCode::BadHello,
            CloseCode::WrongCluster,
            CloseCode::WrongNode,
            CloseCode::WrongRole,
            CloseCode::WrongName,
        ]
        .iter()
        .any(|c| c.var() == code)
    }
}

/// A lost connection, in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Closed {
    /// What happened.
    pub reason: String,
    /// The other side refused us (certificate, role, cluster …): it has looked
    /// at nothing we sent, and trying again changes nothing.
    pub refused: bool,
    /// The other side said that it shuts down.
    pub left: bool,
}

impl Closed {
    /// Reads a QUIC error.
    #[must_use]
    pub fn of(error: &ConnectionError) -> Closed {
        let (reason, refused) = match error {
            ConnectionError::VersionMismatch => {
                ("it speaks no common version of QUIC".to_owned(), true)
            }
            ConnectionError::TransportError(e) => {
                (alert_text(e.code, &e.reason, false), is_tls(e.code))
            }
            ConnectionError::ConnectionClosed(frame) => {
                let reason = String::from_utf8_lossy(&frame.reason);
                let refused = is_tls(frame.error_code);
                (alert_text(frame.error_code, &reason, true), refused)
            }
            ConnectionError::ApplicationClosed(frame) => {
                let text = String::from_utf8_lossy(&frame.reason);
                let text = if text.is_empty() {
                    format!("closed by the other side (code {})", frame.error_code)
                } else {
                    format!("closed by the other side: {text}")
                };
                (text, CloseCode::refuses(frame.error_code))
            }
            ConnectionError::Reset => ("the other side restarted".to_owned(), false),
            ConnectionError::TimedOut => ("no sign of life from the other side".to_owned(), false),
            ConnectionError::LocallyClosed => ("closed on this side".to_owned(), false),
            ConnectionError::CidsExhausted => ("out of connection ids".to_owned(), false),
        };
        let left = matches!(error, ConnectionError::ApplicationClosed(frame)
            if frame.error_code == CloseCode::Shutdown.var());
        Closed {
            reason,
            refused,
            left,
        }
    }
}

/// Whether a transport error code stands for a TLS alert.
fn is_tls(code: TransportErrorCode) -> bool {
    (0x100..0x200).contains(&u64::from(code))
}

/// A transport error in words. `theirs`: the other side found fault with us.
fn alert_text(code: TransportErrorCode, detail: &str, theirs: bool) -> String {
    let (whose, from) = if theirs {
        ("our", "the other side")
    } else {
        ("the other side's", "we")
    };
    if code == TransportErrorCode::CONNECTION_REFUSED {
        return "refused: it has too many connections, or is about to stop; try again later"
            .to_owned();
    }
    if !is_tls(code) {
        return format!("transport error {code}: {detail}");
    }
    match u64::from(code) - 0x100 {
        42 | 46 => format!("{whose} certificate was refused as bad by {from}: {detail}"),
        43 => {
            format!("{whose} certificate is not meant for this use ({from} refused it): {detail}")
        }
        45 => format!(
            "{whose} certificate has expired or is not valid yet ({from} refused it): issue a new one with `synod cert`, or correct the clock"
        ),
        48 => format!(
            "{whose} certificate was not issued by the cluster's CA ({from} refused it): use the CA and certificates of this cluster"
        ),
        116 => format!("{whose} certificate is missing; mutual TLS is required"),
        120 => "the other side speaks another version of the protocol: upgrade one of the two"
            .to_owned(),
        _ => format!("TLS failed ({from} refused): {detail} ({code})"),
    }
}
