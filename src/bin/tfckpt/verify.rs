//! `tfckpt verify`: checks every checksum of a checkpoint.

use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};
use tfckpt::{Call, Context, ContextOptions, Error, Progress, Reader, Update};

use crate::output::{Failure, Outcome, json_of_key, printable};

/// The `--json` format.
const JSON_HELP: &str = "\
--json prints one JSON object per line. Each thing that is broken has

  key, key_hex  the tensor, as in `tfckpt ls --json`; absent if no tensor can be named
  file, offset  where; null if unknown
  code          such as DATA_LOSS
  message       what is wrong

and the last line has tensors, bytes, seconds and broken (the number of lines before it).";

/// Checks every checksum of a checkpoint and lists what is broken
///
/// Reads the whole index and all bytes of the data files that belong to a tensor, and compares a sidecar
/// of chunk checksums with the index. The exit status is 1 if anything is broken.
#[derive(Debug, Args)]
#[command(after_long_help = JSON_HELP)]
pub struct Arguments {
    /// The checkpoint, without .index or .data-…
    prefix: PathBuf,
    /// Print one JSON object per line (see --help)
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub fn run(arguments: &Arguments, out: &mut dyn Write) -> Result<Outcome, Failure> {
    let reader = Reader::open(&arguments.prefix)?;
    let context = Context::new(ContextOptions::default())?;
    let mut call = Call::new(&context);
    let bar = progress_bar();
    call.progress = Progress::new(bar.clone().map(|bar| {
        let callback = move |update: &Update| {
            bar.set_length(update.bytes_total);
            bar.set_position(update.bytes_done);
            true
        };
        Box::new(callback) as Box<dyn FnMut(&Update) -> bool>
    }));

    let started = Instant::now();
    let mut num_broken = 0u64;
    let mut written = Ok(());
    let mut report = |error: Error| {
        num_broken += 1;
        let line = if arguments.json {
            json_line(&error).to_string()
        } else {
            human_line(&error)
        };
        // Not behind the buffer: a long run tells what it finds when it finds it.
        let mut write = || writeln!(out, "{line}").and_then(|()| out.flush());
        if written.is_ok() {
            written = match &bar {
                Some(bar) => bar.suspend(write),
                None => write(),
            };
        }
    };
    let verified = reader.verify(&mut report, &mut call);
    if let Some(bar) = bar {
        bar.finish_and_clear();
    }
    written?;
    verified?;

    let seconds = started.elapsed().as_secs_f64();
    let (tensors, bytes) = (call.stats.num_tensors, call.stats.bytes_verified);
    if arguments.json {
        let summary = json!({
            "tensors": tensors, "bytes": bytes, "seconds": seconds, "broken": num_broken,
        });
        writeln!(out, "{summary}")?;
    } else {
        #[expect(clippy::cast_precision_loss, reason = "a rate needs no 53 bits")]
        let rate = bytes as f64 / seconds.max(1e-9) / 1e9;
        let verdict = match num_broken {
            0 => "all sound".to_owned(),
            num => format!("{num} broken"),
        };
        writeln!(
            out,
            "{tensors} tensors, {bytes} bytes, {rate:.2} GB/s: {verdict}"
        )?;
    }
    Ok(if num_broken == 0 {
        Outcome::Sound
    } else {
        Outcome::Broken
    })
}

/// A bar on standard error, if somebody watches it.
fn progress_bar() -> Option<ProgressBar> {
    if !io::stderr().is_terminal() {
        return None;
    }
    let bar = ProgressBar::new(0);
    let template = "{wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {eta}";
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    Some(bar)
}

/// Which tensor, where, what; the place as far as it is known.
fn human_line(error: &Error) -> String {
    let key = error.key().map(printable);
    let is_sidecar = |file: &Path| file.extension().is_some_and(|suffix| suffix == "crc32c");
    let subject = match key.as_deref() {
        Some(key) => key,
        None if error.file().is_some_and(is_sidecar) => "(sidecar)",
        None => "(index)",
    };
    let mut place = String::new();
    if let Some(file) = error.file() {
        place.push_str(&format!(" file={}", file.display()));
    }
    if let Some(offset) = error.offset() {
        place.push_str(&format!(" offset={offset}"));
    }
    let line = format!("{subject}:{place} {}: {}", error.code(), error.message());
    printable(line.as_bytes())
}

fn json_line(error: &Error) -> Value {
    let mut object = error.key().map(json_of_key).unwrap_or_default();
    let file = error.file().map(|file| file.to_string_lossy());
    object.insert("file".into(), file.into());
    object.insert("offset".into(), error.offset().into());
    object.insert("code".into(), error.code().name().into());
    object.insert("message".into(), error.message().into());
    Value::from(object)
}
