//! The program `tfckpt`: looks into checkpoints, finds the latest one, checks and merges them.
//!
//! One file per command. They share [`output`], which knows how a key is shown and what ends the
//! program, and `inspect` has [`numpy`], which prints arrays as NumPy does. The program uses nothing
//! of the library but its public API.

#![forbid(unsafe_code)]

mod inspect;
mod latest;
mod ls;
mod merge;
mod numpy;
mod output;
mod state;
mod verify;

use std::io::{self, BufWriter, Write};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use self::output::{Failure, Outcome};

/// Looks into TensorFlow checkpoints without TensorFlow.
///
/// PREFIX is what `tf.train.Saver.save` returns, such as `train/model.ckpt-1000`, without `.index`
/// or `.data-…`. The exit status is 0 if all went well, 1 if something is missing or damaged, 2 for
/// wrong arguments.
#[derive(Debug, Parser)]
#[command(name = "tfckpt", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
enum Command {
    Ls(ls::Arguments),
    Inspect(inspect::Arguments),
    Latest(latest::Arguments),
    State(state::Arguments),
    Verify(verify::Arguments),
    Merge(merge::Arguments),
}

impl Command {
    fn run(&self, out: &mut dyn Write) -> Result<Outcome, Failure> {
        match self {
            Command::Ls(arguments) => ls::run(arguments, out),
            Command::Inspect(arguments) => inspect::run(arguments, out),
            Command::Latest(arguments) => latest::run(arguments, out),
            Command::State(arguments) => state::run(arguments, out),
            Command::Verify(arguments) => verify::run(arguments, out),
            Command::Merge(arguments) => merge::run(arguments, out),
        }
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse_from(inspect::join_truth_values(std::env::args_os()));
    let mut out = BufWriter::with_capacity(64 << 10, io::stdout().lock());
    let result = arguments.command.run(&mut out);
    // Also after a failure: what was found before it is worth having.
    let flushed = out.flush().map_err(Failure::Output);
    match result.and_then(|outcome| flushed.map(|()| outcome)) {
        Ok(Outcome::Sound) => ExitCode::SUCCESS,
        Ok(Outcome::Broken) => ExitCode::FAILURE,
        Err(failure) => failure.report(),
    }
}
