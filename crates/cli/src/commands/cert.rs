//! `synod cert`: a cluster's certificates.

use crate::exit::{Failure, Status};
use std::path::PathBuf;
use synod_rpc::cert::{self, CertFiles, Validity};

/// `synod cert …`
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  synod cert ca   --certs certs --cluster bank
  synod cert node --certs certs n1 n2 n3
  synod cert user --certs certs admin

Whoever has certs/ca.key can make certificates: keep it off the nodes.")]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// Make a new cluster's CA: ca.crt, which everyone gets, and ca.key, which signs
    #[command(after_help = "Example:
  synod cert ca --cluster bank --certs certs")]
    Ca {
        #[command(flatten)]
        dir: Dir,
        /// The cluster's name, for people; its id is made here and is in ca.crt
        #[arg(long, default_value = "synod")]
        cluster: String,
    },
    /// Issue certificates of nodes: node-NAME.crt and node-NAME.key
    #[command(after_help = "Example:
  synod cert node n1 n2 n3 --certs certs")]
    Node(Names),
    /// Issue certificates of users: user-NAME.crt and user-NAME.key
    #[command(after_help = "Example:
  synod cert user admin --certs certs")]
    User(Names),
}

#[derive(Debug, clap::Args)]
struct Dir {
    /// Directory of the certificates
    #[arg(long, value_name = "DIR", default_value = "certs", env = "SYNOD_CERTS")]
    certs: PathBuf,
}

#[derive(Debug, clap::Args)]
struct Names {
    #[command(flatten)]
    dir: Dir,
    /// Names of the nodes or users
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
    /// How long the certificates are good
    #[arg(long, value_name = "DAYS", default_value_t = 730)]
    days: u32,
}

/// Makes what was asked for; overwrites nothing.
pub fn run(args: Args) -> Result<Status, Failure> {
    match args.what {
        What::Ca { dir, cluster } => {
            let id = cert::create_ca(&dir.certs, &cluster).map_err(Failure::input)?;
            println!("cluster {id}");
            show(&CertFiles::ca(&dir.certs));
        }
        What::Node(names) => issue(&names, cert::issue_node)?,
        What::User(names) => issue(&names, cert::issue_user)?,
    }
    Ok(Status::Done)
}

type Issue =
    fn(&std::path::Path, &str, &Validity) -> Result<CertFiles, synod_rpc::error::CertError>;

fn issue(names: &Names, issue: Issue) -> Result<(), Failure> {
    let validity = Validity::days(names.days);
    for name in &names.names {
        show(&issue(&names.dir.certs, name, &validity).map_err(Failure::input)?);
    }
    Ok(())
}

fn show(files: &CertFiles) {
    println!("{}\n{}", files.certificate.display(), files.key.display());
}
