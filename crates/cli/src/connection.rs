//! The flags by which every command reaches a cluster.

use crate::config::File;
use crate::exit::Failure;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::time::Duration;
use synod_client::{Client, Identity};
use synod_rpc::cert::CertFiles;
use synod_rpc::{CertRole, Pool, PoolOptions, Subject, TlsIdentity};

/// Where the cluster is, and who asks.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(next_help_heading = "Connection")]
pub struct ConnectionArgs {
    /// Address of a node, host:port; repeat for more. The others are learned
    #[arg(
        short,
        long = "endpoint",
        value_name = "HOST:PORT",
        env = "SYNOD_ENDPOINTS",
        value_delimiter = ','
    )]
    pub endpoints: Vec<String>,
    /// Directory with ca.crt and user-NAME.crt/.key, as `synod cert` wrote them
    #[arg(long, value_name = "DIR", env = "SYNOD_CERTS")]
    pub certs: Option<PathBuf>,
    /// Name of the user whose certificate is taken from --certs
    #[arg(long, value_name = "NAME", env = "SYNOD_USER", default_value = "admin")]
    pub user: String,
    /// Certificate of the cluster's CA, PEM
    #[arg(long, value_name = "FILE", env = "SYNOD_CA")]
    pub ca: Option<PathBuf>,
    /// The user's certificate, PEM
    #[arg(long, value_name = "FILE", env = "SYNOD_CERT")]
    pub cert: Option<PathBuf>,
    /// The key of the user's certificate, PEM
    #[arg(long, value_name = "FILE", env = "SYNOD_KEY")]
    pub key: Option<PathBuf>,
    /// Configuration file whose `[client]` section says all of this
    #[arg(long, value_name = "FILE", env = "SYNOD_CONFIG")]
    pub config: Option<PathBuf>,
}

/// Where the cluster is, and who asks, with everything resolved.
#[derive(Clone, Debug)]
pub struct Connection {
    /// Addresses of nodes.
    pub endpoints: Vec<SocketAddr>,
    /// The user's identity, loaded and checked.
    pub identity: TlsIdentity,
    /// The same, as the SDK takes it.
    sdk_identity: Identity,
}

impl ConnectionArgs {
    /// Whether they may name endpoints: here, in the environment or in a file.
    pub fn names_endpoints(&self) -> bool {
        !self.endpoints.is_empty() || self.config.is_some()
    }

    /// Puts flags, environment and file together and loads the certificates.
    pub fn resolve(&self) -> Result<Connection, Failure> {
        let file = match &self.config {
            Some(path) => File::read(path)?.client()?,
            None => crate::config::ClientSection::default(),
        };
        let names = if self.endpoints.is_empty() {
            &file.endpoints
        } else {
            &self.endpoints
        };
        if names.is_empty() {
            return Err(Failure::input(
                "no endpoint given: say where a node listens with --endpoint HOST:PORT, \
                 SYNOD_ENDPOINTS, or [client] endpoints in --config FILE",
            ));
        }
        let mut endpoints = Vec::new();
        for name in names {
            endpoints.push(address(name)?);
        }
        let files = self.certs.as_ref().map(|dir| {
            let subject = Subject {
                role: CertRole::User,
                name: self.user.clone(),
            };
            let ca = CertFiles::ca(dir).certificate;
            let own = CertFiles::of(dir, &subject);
            (ca, own.certificate, own.key)
        });
        let (dir_ca, dir_cert, dir_key) = match files {
            Some((ca, cert, key)) => (Some(ca), Some(cert), Some(key)),
            None => (None, None, None),
        };
        let pick = |flag: &Option<PathBuf>, dir: Option<PathBuf>, file: Option<PathBuf>, what| {
            flag.clone().or(dir).or(file).ok_or_else(|| {
                Failure::input(format!(
                    "no {what} given: use --certs DIR [--user NAME], --{what} FILE, or [client] \
                     {what} in --config FILE; `synod cert` makes certificates"
                ))
            })
        };
        let ca = pick(&self.ca, dir_ca, file.ca, "ca")?;
        let cert = pick(&self.cert, dir_cert, file.cert, "cert")?;
        let key = pick(&self.key, dir_key, file.key, "key")?;
        let identity = TlsIdentity::from_files(&ca, &cert, &key).map_err(Failure::input)?;
        Ok(Connection {
            endpoints,
            identity,
            sdk_identity: Identity::Files { ca, cert, key },
        })
    }
}

fn address(name: &str) -> Result<SocketAddr, Failure> {
    let refuse = |why: String| Failure::input(format!("endpoint `{name}`: {why}"));
    name.to_socket_addrs()
        .map_err(|e| refuse(format!("{e}; write HOST:PORT, for instance 127.0.0.1:7001")))?
        .next()
        .ok_or_else(|| refuse("the name has no address".to_owned()))
}

impl Connection {
    /// A pool of connections for requests to single nodes.
    pub fn pool(&self) -> Result<Pool, Failure> {
        Pool::new(&self.identity, PoolOptions::default()).map_err(Failure::cluster)
    }

    /// A client of the SDK; `timeout` bounds each of its calls.
    pub async fn client(&self, timeout: Duration) -> Result<Client, Failure> {
        let endpoints = self.endpoints.iter().map(ToString::to_string);
        let mut config = synod_client::Config::new(endpoints, self.sdk_identity.clone());
        config.timeout = timeout;
        Client::connect(config).await.map_err(crate::sdk::failure)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_parts_are_named() {
        let refused = ConnectionArgs::default().resolve();
        let text = refused.err().map(|f| f.to_string()).unwrap_or_default();
        assert!(text.contains("--endpoint"), "{text}");
        let args = ConnectionArgs {
            endpoints: vec!["127.0.0.1:1".to_owned()],
            ..ConnectionArgs::default()
        };
        let text = args
            .resolve()
            .err()
            .map(|f| f.to_string())
            .unwrap_or_default();
        assert!(text.contains("--certs"), "{text}");
    }

    #[test]
    fn a_bad_endpoint_is_named() {
        let text = address("nowhere").expect_err("no port").to_string();
        assert!(
            text.contains("`nowhere`") && text.contains("HOST:PORT"),
            "{text}"
        );
    }
}
