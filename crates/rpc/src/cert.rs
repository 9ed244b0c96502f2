//! A cluster's certificates: its CA, whose subject carries the cluster's id,
//! and one certificate per node and per user, whose subjects carry role and name.
//!
//! | certificate | common name | used as | names |
//! |---|---|---|---|
//! | CA | `synod-ca <uuid>` | issuer | |
//! | node | `node:<name>` | TLS server and client | DNS `node.synod` |
//! | user | `user:<name>` | TLS client | |
//!
//! Addresses are not part of a certificate: whoever holds a node certificate of
//! this CA is a node of this cluster, wherever it is reached. Keys are ECDSA P-256.

use crate::error::{CertError, IdentityError};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use std::fmt;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};
use uuid::Uuid;
use x509_parser::prelude::{FromDer, X509Certificate};

/// The DNS name every node's certificate carries and every client verifies.
pub const SERVER_NAME: &str = "node.synod";

const CA_PREFIX: &str = "synod-ca ";
const DAY: Duration = Duration::from_secs(24 * 3600);
const MAX_NAME_BYTES: usize = 48;

/// What the holder of a certificate may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum CertRole {
    /// A node: serves, and speaks to its peers.
    Node,
    /// A user: asks.
    User,
}

impl fmt::Display for CertRole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            CertRole::Node => "node",
            CertRole::User => "user",
        })
    }
}

/// Whom a certificate was issued to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Subject {
    /// Node or user.
    pub role: CertRole,
    /// Its name.
    pub name: String,
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.role, self.name)
    }
}

impl Subject {
    /// Reads the subject of a node's or user's certificate.
    ///
    /// # Errors
    /// [`IdentityError`] if it is no certificate, or not one of Synod's.
    pub fn of_der(der: &[u8]) -> Result<Subject, IdentityError> {
        let found = common_name(der, "the certificate")?;
        let (role, name) = match found.split_once(':') {
            Some(("node", name)) if check_name(name).is_ok() => (CertRole::Node, name),
            Some(("user", name)) if check_name(name).is_ok() => (CertRole::User, name),
            _ => {
                return Err(IdentityError::Subject {
                    what: "the certificate",
                    found,
                });
            }
        };
        Ok(Subject {
            role,
            name: name.to_owned(),
        })
    }
}

/// How long a certificate is good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    /// From then on.
    pub not_before: SystemTime,
    /// Until then.
    pub not_after: SystemTime,
}

impl Validity {
    /// From an hour ago (clocks differ) for this many days.
    #[must_use]
    pub fn days(days: u32) -> Validity {
        let now = SystemTime::now();
        Validity {
            not_before: now - Duration::from_secs(3600),
            not_after: now + DAY * days,
        }
    }
}

impl Default for Validity {
    /// Two years.
    fn default() -> Validity {
        Validity::days(730)
    }
}

/// The files of one certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertFiles {
    /// The certificate, PEM.
    pub certificate: PathBuf,
    /// Its private key, PEM; readable by its owner only.
    pub key: PathBuf,
}

impl CertFiles {
    /// Where the CA of `dir` lies: `ca.crt`, `ca.key`.
    #[must_use]
    pub fn ca(dir: &Path) -> CertFiles {
        CertFiles {
            certificate: dir.join("ca.crt"),
            key: dir.join("ca.key"),
        }
    }

    /// Where a node's or user's lie: `node-<name>.crt`, `user-<name>.key` and so on.
    #[must_use]
    pub fn of(dir: &Path, subject: &Subject) -> CertFiles {
        let stem = format!("{}-{}", subject.role, subject.name);
        CertFiles {
            certificate: dir.join(format!("{stem}.crt")),
            key: dir.join(format!("{stem}.key")),
        }
    }

    fn refuse_existing(&self) -> Result<(), CertError> {
        match [&self.key, &self.certificate]
            .into_iter()
            .find(|p| p.exists())
        {
            Some(path) => Err(CertError::Exists { path: path.clone() }),
            None => Ok(()),
        }
    }

    fn write(&self, certificate: &str, key: &str) -> Result<(), CertError> {
        write_new(&self.key, key, 0o600)?;
        write_new(&self.certificate, certificate, 0o644)
    }
}

/// A new cluster: makes `dir` if needed, and in it `ca.crt` and `ca.key` (good
/// for ten years). Returns the cluster's id.
///
/// # Errors
/// [`CertError::Exists`] if there is a CA already; nothing is overwritten.
pub fn create_ca(dir: &Path, cluster_name: &str) -> Result<Uuid, CertError> {
    check_name(cluster_name)?;
    fs::create_dir_all(dir).map_err(|source| CertError::File {
        action: "make the directory",
        path: dir.to_owned(),
        source,
    })?;
    let files = CertFiles::ca(dir);
    files.refuse_existing()?;
    let cluster = new_cluster_id()?;
    let key = KeyPair::generate().map_err(generate)?;
    let certificate = ca_params(&ca_common_name(cluster), cluster_name, Validity::days(3650))
        .self_signed(&key)
        .map_err(generate)?;
    files.write(&certificate.pem(), &key.serialize_pem())?;
    Ok(cluster)
}

/// Issues a node's certificate from the CA in `dir`, into `dir`.
///
/// # Errors
/// [`CertError`]; nothing is overwritten.
pub fn issue_node(dir: &Path, name: &str, validity: &Validity) -> Result<CertFiles, CertError> {
    issue(dir, CertRole::Node, name, validity)
}

/// Issues a user's certificate from the CA in `dir`, into `dir`.
///
/// # Errors
/// [`CertError`]; nothing is overwritten.
pub fn issue_user(dir: &Path, name: &str, validity: &Validity) -> Result<CertFiles, CertError> {
    issue(dir, CertRole::User, name, validity)
}

/// The cluster's id from its CA's certificate (DER).
///
/// # Errors
/// [`IdentityError`] if it is no certificate, or not one of `synod cert`.
pub fn cluster_of_ca(der: &[u8]) -> Result<Uuid, IdentityError> {
    let found = common_name(der, "the CA")?;
    found
        .strip_prefix(CA_PREFIX)
        .and_then(|id| Uuid::parse_str(id).ok())
        .ok_or(IdentityError::Subject {
            what: "the CA",
            found,
        })
}

fn issue(
    dir: &Path,
    role: CertRole,
    name: &str,
    validity: &Validity,
) -> Result<CertFiles, CertError> {
    check_name(name)?;
    let subject = Subject {
        role,
        name: name.to_owned(),
    };
    let issuer = load_issuer(dir)?;
    let files = CertFiles::of(dir, &subject);
    files.refuse_existing()?;
    let sans = match role {
        CertRole::Node => vec![SERVER_NAME.to_owned()],
        CertRole::User => Vec::new(),
    };
    let mut params = CertificateParams::new(sans).map_err(generate)?;
    params.distinguished_name = distinguished_name(&subject.to_string(), None);
    params.use_authority_key_identifier_extension = true;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    if role == CertRole::Node {
        params
            .extended_key_usages
            .push(ExtendedKeyUsagePurpose::ServerAuth);
    }
    params.not_before = validity.not_before.into();
    params.not_after = validity.not_after.into();
    let key = KeyPair::generate().map_err(generate)?;
    let certificate = params.signed_by(&key, &issuer).map_err(generate)?;
    files.write(&certificate.pem(), &key.serialize_pem())?;
    Ok(files)
}

/// The CA of a directory, ready to sign. Its parameters are rebuilt from its
/// certificate: a signature needs only its name, usages and key.
fn load_issuer(dir: &Path) -> Result<Issuer<'static, KeyPair>, CertError> {
    let files = CertFiles::ca(dir);
    if !files.certificate.exists() || !files.key.exists() {
        return Err(CertError::NoCa {
            path: dir.to_owned(),
        });
    }
    let read = |path: &PathBuf| {
        fs::read_to_string(path).map_err(|source| CertError::File {
            action: "read",
            path: path.clone(),
            source,
        })
    };
    let der = crate::tls::certificates("the CA", read(&files.certificate)?.as_bytes())?.remove(0);
    cluster_of_ca(&der)?;
    let (_, parsed) = parse(&der, "the CA")?;
    let text = |entries: Option<&x509_parser::x509::AttributeTypeAndValue<'_>>| {
        entries
            .and_then(|e| e.as_str().ok())
            .unwrap_or_default()
            .to_owned()
    };
    let common = text(parsed.subject().iter_common_name().next());
    let organization = text(parsed.subject().iter_organization().next());
    let key = KeyPair::from_pem(&read(&files.key)?).map_err(generate)?;
    // A key that is not the CA's would sign certificates nobody accepts.
    if parsed.public_key().subject_public_key.data[..] != *key.public_key_raw() {
        return Err(CertError::Ca(IdentityError::KeyMismatch {
            subject: common,
        }));
    }
    let params = ca_params(&common, &organization, Validity::default());
    Ok(Issuer::new(params, key))
}

fn ca_params(common: &str, organization: &str, validity: Validity) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = distinguished_name(common, Some(organization));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.not_before = validity.not_before.into();
    params.not_after = validity.not_after.into();
    params
}

fn distinguished_name(common: &str, organization: Option<&str>) -> rcgen::DistinguishedName {
    let mut name = rcgen::DistinguishedName::new();
    name.push(DnType::CommonName, common);
    if let Some(organization) = organization {
        name.push(DnType::OrganizationName, organization);
    }
    name
}

fn ca_common_name(cluster: Uuid) -> String {
    format!("{CA_PREFIX}{cluster}")
}

fn new_cluster_id() -> Result<Uuid, CertError> {
    let mut bytes = [0; 16];
    crate::tls::provider()
        .secure_random
        .fill(&mut bytes)
        .map_err(|_| CertError::Generate("the system gives no random numbers".to_owned()))?;
    Ok(uuid::Builder::from_random_bytes(bytes).into_uuid())
}

fn check_name(name: &str) -> Result<(), CertError> {
    let good = name.len() <= MAX_NAME_BYTES
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'));
    if good {
        Ok(())
    } else {
        Err(CertError::Name {
            name: name.to_owned(),
        })
    }
}

fn parse<'a>(
    der: &'a [u8],
    what: &'static str,
) -> Result<(&'a [u8], X509Certificate<'a>), IdentityError> {
    X509Certificate::from_der(der).map_err(|e| IdentityError::Pem {
        what,
        reason: e.to_string(),
    })
}

fn common_name(der: &[u8], what: &'static str) -> Result<String, IdentityError> {
    let (_, parsed) = parse(der, what)?;
    let name = parsed.subject().iter_common_name().next();
    Ok(name
        .and_then(|n| n.as_str().ok())
        .unwrap_or_default()
        .to_owned())
}

fn write_new(path: &Path, text: &str, mode: u32) -> Result<(), CertError> {
    let file = |source| CertError::File {
        action: "write",
        path: path.to_owned(),
        source,
    };
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path)
        .and_then(|mut f| f.write_all(text.as_bytes()))
        .map_err(file)
}

fn generate(error: rcgen::Error) -> CertError {
    CertError::Generate(error.to_string())
}
