//! `tfckpt state`: what a folder's state file says.

use std::io::Write;
use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use crate::output::{Failure, Outcome, printable};

/// The `--json` format.
const JSON_HELP: &str = "\
--json prints one JSON object in one line:

  model_checkpoint_path            the latest checkpoint
  all_model_checkpoint_paths       array, oldest first
  all_model_checkpoint_timestamps  array of seconds since 1970, one per path, or empty
  last_preserved_timestamp         seconds since 1970, or null";

/// Prints the state file of a folder, parsed
///
/// Relative paths are shown with DIR before them, as TensorFlow uses them. Whether the checkpoints
/// exist is not looked at.
#[derive(Debug, Args)]
#[command(after_long_help = JSON_HELP)]
pub struct Arguments {
    /// The folder with the state file
    dir: PathBuf,
    /// Print one JSON object (see --help)
    #[arg(long)]
    json: bool,
    /// Name of the state file [default: checkpoint]
    #[arg(long, value_name = "NAME", alias = "latest_filename")]
    latest_filename: Option<String>,
}

/// Runs the command.
pub fn run(arguments: &Arguments, out: &mut dyn Write) -> Result<Outcome, Failure> {
    let name = arguments.latest_filename.as_deref();
    let state = tfckpt::get_checkpoint_state(&arguments.dir, name)?.ok_or_else(|| {
        let path = arguments.dir.join(name.unwrap_or("checkpoint"));
        Failure::Message(format!("no state file; file={}", path.display()))
    })?;
    if arguments.json {
        let json = json!({
            "model_checkpoint_path": state.model_checkpoint_path,
            "all_model_checkpoint_paths": state.all_model_checkpoint_paths,
            "all_model_checkpoint_timestamps": state.all_model_checkpoint_timestamps,
            "last_preserved_timestamp": state.last_preserved_timestamp,
        });
        writeln!(out, "{json}")?;
        return Ok(Outcome::Sound);
    }
    let show = |path: &str| printable(path.as_bytes());
    writeln!(
        out,
        "model_checkpoint_path: {}",
        show(&state.model_checkpoint_path)
    )?;
    writeln!(out, "all_model_checkpoint_paths:")?;
    let mut timestamps = state.all_model_checkpoint_timestamps.iter();
    for path in &state.all_model_checkpoint_paths {
        match timestamps.next() {
            Some(timestamp) => writeln!(out, "    {}  timestamp={timestamp:?}", show(path))?,
            None => writeln!(out, "    {}", show(path))?,
        }
    }
    if let Some(timestamp) = state.last_preserved_timestamp {
        writeln!(out, "last_preserved_timestamp: {timestamp:?}")?;
    }
    Ok(Outcome::Sound)
}
