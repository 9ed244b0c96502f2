//! `synod repair`: what can be done about a stopped node's damaged files.

use crate::exit::{Failure, Status};
use std::path::PathBuf;

/// `synod repair …`
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  synod repair engine --data data/n1

The engine holds a copy of the data, and can be had again: set it aside, start the node, and it
takes what it lacks from its log and its peers. Set aside is not deleted; delete it once the node
serves again.

The log cannot be repaired. It holds what this node has promised to others, and a node that has
forgotten a promise can make acknowledged data vanish. A node whose log is damaged or lost stays
off: the cluster serves as long as most replicas of every shard are left, and if it has a node to
spare, that one takes the place of one silent for placement.down_seconds. Or a node with an empty
directory takes it: `synod start` it, `synod node join` it, and `synod node decommission` the lost one
(docs/operations.md tells the order). Never start such a node from an old copy of its directory.")]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// Set a stopped node's engine aside; at its start it fetches the data again
    #[command(after_help = "Example:
  synod repair engine --data data/n1")]
    Engine {
        /// The node's directory
        #[arg(long, value_name = "DIR")]
        data: PathBuf,
    },
}

/// Repairs.
pub fn run(args: &Args) -> Result<Status, Failure> {
    match &args.what {
        What::Engine { data } => {
            let aside = synod_kv::repair::set_engine_aside(data).map_err(Failure::input)?;
            println!(
                "the engine's files are in {} now; start the node, and delete them once it serves",
                aside.display()
            );
            Ok(Status::Done)
        }
    }
}
