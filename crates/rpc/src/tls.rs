//! TLS 1.3 both ways: who we are, and what we demand of the other side.
//!
//! Only the cluster's own CA is trusted. A client verifies that the other side
//! holds a *node's* certificate (the DNS name [`SERVER_NAME`], and the role in
//! the subject); a node verifies any certificate of the CA and looks at its role.

use crate::cert::{self, CertFiles, CertRole, SERVER_NAME, Subject};
use crate::error::{IdentityError, RpcError};
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use rustls::client::WebPkiServerVerifier;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, version};
use std::path::Path;
use std::sync::Arc;
use uuid::Uuid;

/// The protocol's name and version; two sides without a common one refuse each other.
pub const ALPN: &[u8] = b"synod/1";

/// One side of mutual TLS: a CA to trust, a certificate and its key. Checked
/// when it is loaded, so a bad one is refused before anything is sent.
#[derive(Debug)]
pub struct TlsIdentity {
    ca: CertificateDer<'static>,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    subject: Subject,
    pub(crate) cluster: Uuid,
}

impl Clone for TlsIdentity {
    fn clone(&self) -> TlsIdentity {
        TlsIdentity {
            ca: self.ca.clone(),
            chain: self.chain.clone(),
            key: self.key.clone_key(),
            subject: self.subject.clone(),
            cluster: self.cluster,
        }
    }
}

impl TlsIdentity {
    /// Loads PEM files.
    ///
    /// # Errors
    /// [`IdentityError`] names the file or certificate and what is wrong with it.
    pub fn from_files(
        ca: &Path,
        certificate: &Path,
        key: &Path,
    ) -> Result<TlsIdentity, IdentityError> {
        let read = |what, path: &Path| {
            std::fs::read(path).map_err(|source| IdentityError::Read {
                what,
                path: path.to_owned(),
                source,
            })
        };
        TlsIdentity::from_pem(
            &read("the CA", ca)?,
            &read("the certificate", certificate)?,
            &read("the private key", key)?,
        )
    }

    /// Loads what [`cert`] wrote into `dir` for this subject.
    ///
    /// # Errors
    /// [`IdentityError`] names the file or certificate and what is wrong with it.
    pub fn from_dir(dir: &Path, role: CertRole, name: &str) -> Result<TlsIdentity, IdentityError> {
        let name = name.to_owned();
        let files = CertFiles::of(dir, &Subject { role, name });
        TlsIdentity::from_files(
            &CertFiles::ca(dir).certificate,
            &files.certificate,
            &files.key,
        )
    }

    /// Loads PEM texts.
    ///
    /// # Errors
    /// [`IdentityError`] names the certificate and what is wrong with it.
    pub fn from_pem(
        ca: &[u8],
        certificate: &[u8],
        key: &[u8],
    ) -> Result<TlsIdentity, IdentityError> {
        let ca = certificates("the CA", ca)?.remove(0);
        let cluster = cert::cluster_of_ca(&ca)?;
        let chain = certificates("the certificate", certificate)?;
        let subject = Subject::of_der(&chain[0])?;
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|e| IdentityError::Pem {
            what: "the private key",
            reason: e.to_string(),
        })?;
        let identity = TlsIdentity {
            ca,
            chain,
            key,
            subject,
            cluster,
        };
        identity.check()?;
        Ok(identity)
    }

    /// The cluster's id.
    #[must_use]
    pub fn cluster(&self) -> u128 {
        self.cluster.as_u128()
    }

    /// Whom the certificate was issued to.
    #[must_use]
    pub fn subject(&self) -> &Subject {
        &self.subject
    }

    /// Our own certificate must be one the other side will take.
    fn check(&self) -> Result<(), IdentityError> {
        let invalid = |reason: String| IdentityError::Invalid {
            subject: self.subject.to_string(),
            reason,
        };
        let verifier = WebPkiClientVerifier::builder_with_provider(self.roots()?, provider())
            .build()
            .map_err(|e| invalid(e.to_string()))?;
        verifier
            .verify_client_cert(&self.chain[0], &self.chain[1..], UnixTime::now())
            .map_err(|e| invalid(advice(&e)))?;
        if self.subject.role == CertRole::Node {
            let parsed = rustls::server::ParsedCertificate::try_from(&self.chain[0])
                .map_err(|e| invalid(e.to_string()))?;
            rustls::client::verify_server_name(&parsed, &server_name())
                .map_err(|e| invalid(advice(&e)))?;
        }
        let key = provider()
            .key_provider
            .load_private_key(self.key.clone_key())
            .map_err(|e| invalid(e.to_string()))?;
        rustls::sign::CertifiedKey::new(self.chain.clone(), key)
            .keys_match()
            .map_err(|_| IdentityError::KeyMismatch {
                subject: self.subject.to_string(),
            })
    }

    fn roots(&self) -> Result<Arc<RootCertStore>, IdentityError> {
        let mut roots = RootCertStore::empty();
        roots.add(self.ca.clone()).map_err(|e| IdentityError::Pem {
            what: "the CA",
            reason: e.to_string(),
        })?;
        Ok(Arc::new(roots))
    }

    /// What a node accepts connections with.
    pub(crate) fn server(&self) -> Result<Arc<QuicServerConfig>, RpcError> {
        let verifier = WebPkiClientVerifier::builder_with_provider(self.roots()?, provider())
            .build()
            .map_err(|e| RpcError::Tls(e.to_string()))?;
        let mut config = rustls::ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&version::TLS13])
            .map_err(|e| RpcError::Tls(e.to_string()))?
            .with_client_cert_verifier(verifier)
            .with_single_cert(self.chain.clone(), self.key.clone_key())
            .map_err(|e| RpcError::Tls(e.to_string()))?;
        config.alpn_protocols = vec![ALPN.to_vec()];
        // Every connection shows its certificate anew: no resumption.
        config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        QuicServerConfig::try_from(config)
            .map(Arc::new)
            .map_err(|e| RpcError::Tls(e.to_string()))
    }

    /// What a node or client connects with.
    pub(crate) fn client(&self) -> Result<Arc<QuicClientConfig>, RpcError> {
        let verifier = WebPkiServerVerifier::builder_with_provider(self.roots()?, provider())
            .build()
            .map_err(|e| RpcError::Tls(e.to_string()))?;
        let mut config = rustls::ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&version::TLS13])
            .map_err(|e| RpcError::Tls(e.to_string()))?
            .with_webpki_verifier(verifier)
            .with_client_auth_cert(self.chain.clone(), self.key.clone_key())
            .map_err(|e| RpcError::Tls(e.to_string()))?;
        config.alpn_protocols = vec![ALPN.to_vec()];
        config.resumption = rustls::client::Resumption::disabled();
        QuicClientConfig::try_from(config)
            .map(Arc::new)
            .map_err(|e| RpcError::Tls(e.to_string()))
    }

    /// A secret that outlives a restart and that only this node has.
    pub(crate) fn stable_secret(&self) -> Vec<u8> {
        self.key.secret_der().to_vec()
    }
}

/// Whom the other side of a connection is, by its certificate.
pub(crate) fn peer_subject(connection: &quinn::Connection) -> Result<Subject, IdentityError> {
    let chain = connection
        .peer_identity()
        .and_then(|any| any.downcast::<Vec<CertificateDer<'static>>>().ok())
        .unwrap_or_default();
    Subject::of_der(chain.first().map_or(&[], |c| &c[..]))
}

/// The one crypto provider (aws-lc).
pub(crate) fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: std::sync::OnceLock<Arc<CryptoProvider>> = std::sync::OnceLock::new();
    PROVIDER
        .get_or_init(|| Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .clone()
}

/// The certificates in a PEM text, at least one.
pub(crate) fn certificates(
    what: &'static str,
    pem: &[u8],
) -> Result<Vec<CertificateDer<'static>>, IdentityError> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match found {
        Ok(list) if !list.is_empty() => Ok(list),
        Ok(_) => Err(IdentityError::Pem {
            what,
            reason: "there is no certificate in it".to_owned(),
        }),
        Err(e) => Err(IdentityError::Pem {
            what,
            reason: e.to_string(),
        }),
    }
}

fn server_name() -> ServerName<'static> {
    ServerName::try_from(SERVER_NAME).expect("a constant DNS name")
}

/// What a verifier's error means to the holder of the certificate.
fn advice(error: &rustls::Error) -> String {
    use rustls::CertificateError as C;
    match error {
        rustls::Error::InvalidCertificate(C::Expired | C::ExpiredContext { .. }) => {
            "it has expired; issue a new one with `synod cert`".to_owned()
        }
        rustls::Error::InvalidCertificate(C::NotValidYet | C::NotValidYetContext { .. }) => {
            "it is not valid yet; is the clock right?".to_owned()
        }
        rustls::Error::InvalidCertificate(C::UnknownIssuer | C::BadSignature) => {
            "it was not issued by the CA given; use the CA and certificates of one cluster"
                .to_owned()
        }
        other => other.to_string(),
    }
}
