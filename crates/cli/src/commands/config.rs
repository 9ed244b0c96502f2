//! `synod config`: about configuration files.

use crate::config::{File, sample};
use crate::exit::{Failure, Status};
use std::path::PathBuf;

/// `synod config …`
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  synod config sample > n1.toml
  synod config check n1.toml")]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// Print a sample file that explains every key and shows its default
    #[command(after_help = "Example:
  synod config sample > n1.toml")]
    Sample,
    /// Check a file's keys and values, not the certificates it names; starts nothing
    #[command(after_help = "Example:
  synod config check n1.toml")]
    Check {
        /// The file
        file: PathBuf,
    },
}

/// Prints or checks.
pub fn run(args: &Args) -> Result<Status, Failure> {
    match &args.what {
        What::Sample => print!("{}", sample()),
        What::Check { file } => {
            let read = File::read(file)?;
            let node = read.node(&[])?;
            read.client()?;
            println!(
                "{} is good: node {} on {}",
                file.display(),
                node.name,
                node.listen
            );
        }
    }
    Ok(Status::Done)
}
