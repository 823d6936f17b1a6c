//! `tfckpt latest`: the checkpoint to resume from.

use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use clap::Args;
use tfckpt::LatestOptions;

use crate::output::{Failure, Outcome, complain};

/// Prints the prefix of the latest checkpoint of a folder
///
/// It is the one that the folder's state file names, and it is complete: its index opens, and its
/// data files reach as far as the index says.
#[derive(Debug, Args)]
pub struct Arguments {
    /// The folder with the state file
    dir: PathBuf,
    /// If the latest checkpoint is incomplete, take the newest complete one that the state file lists
    #[arg(long)]
    fall_back: bool,
    /// If a recorded path is gone, look for its last part in DIR, for a folder that was moved
    #[arg(long)]
    rebase: bool,
    /// Name of the state file [default: checkpoint]
    #[arg(long, value_name = "NAME", alias = "latest_filename")]
    latest_filename: Option<String>,
}

/// Runs the command.
pub fn run(arguments: &Arguments, out: &mut dyn Write) -> Result<Outcome, Failure> {
    let options = LatestOptions {
        latest_filename: arguments.latest_filename.as_deref(),
        fall_back: arguments.fall_back,
        rebase: arguments.rebase,
    };
    let latest = tfckpt::latest_checkpoint(&arguments.dir, options)?;
    if let Some(error) = latest.fell_back {
        complain(format_args!("fell back to an older checkpoint: {error}"));
    }
    // Unescaped, because scripts use it.
    out.write_all(latest.prefix.as_os_str().as_bytes())?;
    out.write_all(b"\n")?;
    Ok(Outcome::Sound)
}
