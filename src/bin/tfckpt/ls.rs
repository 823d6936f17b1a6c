//! `tfckpt ls`: what the index says of each tensor.

use std::io::Write;
use std::path::PathBuf;

use clap::Args;
use serde_json::{Value, json};
use tfckpt::{Reader, TensorInfo};

use crate::output::{Failure, Outcome, complain, json_of_key, printable};

/// The `--json` format, which is a promise.
const JSON_HELP: &str = "\
--json prints one JSON object per line and tensor, in key order, with these members:

  key      the name; bytes that are not UTF-8 become U+FFFD
  key_hex  the name's bytes in hexadecimal; only if it is not UTF-8
  dtype    the data type's name in Python, such as float32
  shape    array of sizes, outermost first; of the full tensor if it is partitioned
  shard    number of the data file
  offset   first byte there
  size     bytes there
  crc32c   CRC-32C of these bytes, unmasked, as a number
  slices   array of strings such as \"0,2:-\" (start,length or - per dimension, joined by colons);
           only if the tensor is partitioned. Then shard, offset and crc32c are 0 and size is that
           of all slices together (0 for strings)
  error    only if the entry is damaged, in place of all members after key and key_hex:
           {\"code\": \"DATA_LOSS\", \"message\": \"…\"}

A damaged part of the index itself is reported on standard error only; the other parts are listed.
Members may be added in later versions; none of these will change or go away.";

/// Lists the tensors of a checkpoint: key, dtype, shape, shard, bytes
///
/// The slices of a partitioned tensor stand below it, indented. A damaged entry is shown with its
/// error, and the exit status is 1. No data file is read.
#[derive(Debug, Args)]
#[command(after_long_help = JSON_HELP)]
pub struct Arguments {
    /// The checkpoint, without .index or .data-…
    prefix: PathBuf,
    /// Print one JSON object per line (see --help)
    #[arg(long)]
    json: bool,
}

/// Keys wider than this do not widen the column for all others.
const MAX_KEY_WIDTH: usize = 64;

/// Likewise for shapes.
const MAX_SHAPE_WIDTH: usize = 32;

/// Runs the command.
pub fn run(arguments: &Arguments, out: &mut dyn Write) -> Result<Outcome, Failure> {
    let reader = Reader::open(&arguments.prefix)?;
    let widths = if arguments.json {
        Widths::default()
    } else {
        let widths = Widths::measure(&reader);
        widths.write_header(out)?;
        widths
    };
    let mut outcome = Outcome::Sound;
    let mut entries = reader.entries();
    loop {
        match entries.next() {
            Ok(None) => return Ok(outcome),
            Ok(Some((key, entry))) => {
                if entry.is_err() {
                    outcome = Outcome::Broken;
                }
                if arguments.json {
                    writeln!(out, "{}", json_line(key, &entry))?;
                } else {
                    widths.write(out, key, &entry)?;
                }
            }
            Err(error) => {
                // The two streams often end in the same place: keep their order.
                out.flush()?;
                complain(error);
                return Ok(Outcome::Broken);
            }
        }
    }
}

fn json_line(key: &[u8], entry: &tfckpt::Result<TensorInfo>) -> Value {
    let mut object = json_of_key(key);
    match entry {
        Ok(info) => {
            object.insert("dtype".into(), info.dtype.python_name().into());
            object.insert("shape".into(), info.shape.dims().into());
            object.insert("shard".into(), info.shard_id.into());
            object.insert("offset".into(), info.offset.into());
            object.insert("size".into(), info.size.into());
            object.insert("crc32c".into(), info.crc32c.into());
            if !info.slices.is_empty() {
                object.insert("slices".into(), info.slices.as_slice().into());
            }
        }
        Err(error) => {
            let error = json!({"code": error.code().name(), "message": error.to_string()});
            object.insert("error".into(), error);
        }
    }
    Value::from(object)
}

/// Widths of the columns in characters.
#[derive(Clone, Copy, Debug, Default)]
struct Widths {
    key: usize,
    dtype: usize,
    shape: usize,
    shard: usize,
    bytes: usize,
}

impl Widths {
    /// Goes through the index once before the lines are written, rather than to hold all lines.
    fn measure(reader: &Reader) -> Self {
        let mut widths = Self::default();
        widths.widen(HEADER);
        let mut entries = reader.entries();
        while let Ok(Some((key, entry))) = entries.next() {
            match entry {
                Ok(info) => {
                    let [key, dtype, shape, shard, bytes] = columns(key, &info);
                    widths.widen([&key, &dtype, &shape, &shard, &bytes]);
                }
                Err(_) => widths.widen([&printable(key), "", "", "", ""]),
            }
        }
        widths
    }

    fn widen(&mut self, [key, dtype, shape, shard, bytes]: [&str; 5]) {
        let width = |text: &str| text.chars().count();
        self.key = self.key.max(width(key).min(MAX_KEY_WIDTH));
        self.dtype = self.dtype.max(width(dtype));
        self.shape = self.shape.max(width(shape).min(MAX_SHAPE_WIDTH));
        self.shard = self.shard.max(width(shard));
        self.bytes = self.bytes.max(width(bytes));
    }

    fn write_header(self, out: &mut dyn Write) -> Result<(), Failure> {
        self.write_line(out, HEADER)
    }

    fn write(
        self,
        out: &mut dyn Write,
        key: &[u8],
        entry: &tfckpt::Result<TensorInfo>,
    ) -> Result<(), Failure> {
        match entry {
            Ok(info) => {
                let [key, dtype, shape, shard, bytes] = columns(key, info);
                self.write_line(out, [&key, &dtype, &shape, &shard, &bytes])?;
                for slice in &info.slices {
                    writeln!(out, "    {slice}")?;
                }
            }
            Err(error) => {
                let (key, error) = (printable(key), printable(error.to_string().as_bytes()));
                writeln!(out, "{key:<0$}  error: {error}", self.key)?;
            }
        }
        Ok(())
    }

    fn write_line(self, out: &mut dyn Write, columns: [&str; 5]) -> Result<(), Failure> {
        let [key, dtype, shape, shard, bytes] = columns;
        writeln!(
            out,
            "{key:<0$}  {dtype:<1$}  {shape:<2$}  {shard:>3$}  {bytes:>4$}",
            self.key, self.dtype, self.shape, self.shard, self.bytes
        )?;
        Ok(())
    }
}

const HEADER: [&str; 5] = ["KEY", "DTYPE", "SHAPE", "SHARD", "BYTES"];

fn columns(key: &[u8], info: &TensorInfo) -> [String; 5] {
    // The slices of a partitioned tensor lie wherever they lie.
    let shard = if info.slices.is_empty() {
        info.shard_id.to_string()
    } else {
        "-".to_owned()
    };
    [
        printable(key),
        info.dtype.python_name().to_owned(),
        info.shape.to_string(),
        shard,
        info.size.to_string(),
    ]
}
