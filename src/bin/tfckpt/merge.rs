//! `tfckpt merge`: makes one checkpoint of the parts that several processes have saved.

use std::io::Write;
use std::path::PathBuf;

use clap::Args;
use tfckpt::{Call, Context, ContextOptions, MergeOptions};

use crate::output::{Failure, Outcome};

/// Merges checkpoints into one and removes them
///
/// The parts are merged in the order given, as TensorFlow merges the parts of a sharded save. No two of
/// them may have the same tensor, but they may have different slices of one. If the merge fails or is
/// interrupted, the parts are whole; the same command then does it again, or finishes it.
#[derive(Debug, Args)]
pub struct Arguments {
    /// The checkpoint to make
    prefix: PathBuf,
    /// The checkpoints to merge, without .index or .data-…
    #[arg(required = true)]
    parts: Vec<PathBuf>,
    /// Leave out parts that are not there
    #[arg(long, alias = "allow_missing_files")]
    allow_missing_files: bool,
    /// Keep the parts; their data files may then be the checkpoint's as well (hard links)
    #[arg(long)]
    keep_parts: bool,
    /// Make it the latest checkpoint in the state file beside it
    #[arg(long)]
    update_state: bool,
}

/// Runs the command.
pub fn run(arguments: &Arguments, _out: &mut dyn Write) -> Result<Outcome, Failure> {
    let options = MergeOptions {
        allow_missing_files: arguments.allow_missing_files,
        keep_parts: arguments.keep_parts,
        update_state: arguments.update_state,
        ..MergeOptions::default()
    };
    let context = Context::new(ContextOptions::default())?;
    let mut call = Call::new(&context);
    tfckpt::merge(&arguments.parts, &arguments.prefix, &options, &mut call)?;
    Ok(Outcome::Sound)
}
