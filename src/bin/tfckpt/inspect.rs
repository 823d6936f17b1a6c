//! `tfckpt inspect`: what TensorFlow's `inspect_checkpoint` tool prints.

use std::ffi::OsString;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use clap::{ArgAction, Args};
use regex::Regex;
use tfckpt::{
    Call, Code, Context, ContextOptions, DType, Reader, RestoreData, RestoreOptions, RestoreTensor,
    StringTensor, TensorInfo,
};

use crate::numpy::{PrintOptions, Values, array_text};
use crate::output::{Failure, Outcome, complain, printable};

/// Prints tensors as TensorFlow's inspect_checkpoint does
///
/// Without options: a line for each tensor, such as `w (DT_FLOAT) [2,2]`, an empty line, and the number
/// of parameters. With --all: names, dtypes, shapes and values, as NumPy prints them. The tool's own
/// names of the options are accepted too: --file_name, --tensor_name, --all_tensors,
/// --all_tensor_names, --count_exclude_pattern, --printoptions.
///
/// Unlike the tool, a partitioned tensor is listed with its name and slices instead of the keys of its
/// slices, characters that would disturb a terminal are escaped, and errors go to standard error; the
/// exit status is 1 then.
#[derive(Debug, Args)]
pub struct Arguments {
    /// The checkpoint, without .index or .data-…
    #[arg(required_unless_present = "file_name")]
    prefix: Option<PathBuf>,
    /// The same, as TensorFlow's tool takes it
    #[arg(long = "file_name", hide = true, conflicts_with = "prefix")]
    file_name: Option<PathBuf>,
    /// Print this tensor
    #[arg(long = "tensor", alias = "tensor_name", value_name = "KEY")]
    tensor: Option<OsString>,
    /// Print all tensors with their values
    #[arg(
        long = "all", alias = "all_tensors", value_name = "BOOL", action = ArgAction::Set,
        num_args = 0..=1, require_equals = true, default_value = "false",
        default_missing_value = "true", hide_default_value = true, value_parser = parse_bool,
    )]
    all: bool,
    /// Print the names, dtypes and shapes of all tensors
    #[arg(
        long = "all-names", alias = "all_tensor_names", value_name = "BOOL",
        action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_value = "false",
        default_missing_value = "true", hide_default_value = true, value_parser = parse_bool,
    )]
    all_names: bool,
    /// Do not count the parameters of tensors whose name has a match of this regular expression
    #[arg(
        long = "count-exclude-pattern",
        alias = "count_exclude_pattern",
        value_name = "REGEX"
    )]
    count_exclude_pattern: Option<Regex>,
    /// NumPy's options precision, threshold, edgeitems, linewidth, suppress
    #[arg(long = "printoptions", value_name = "NAME=VALUE", num_args = 0..)]
    print_options: Vec<PrintOption>,
}

/// The program's arguments with a truth value joined to its option, as in `--all_tensors True`, which
/// TensorFlow's tool takes. Only behind `--file_name`: without it the next argument may be the prefix.
pub fn join_truth_values(arguments: impl Iterator<Item = OsString>) -> Vec<OsString> {
    let mut joined: Vec<OsString> = Vec::new();
    let arguments: Vec<OsString> = arguments.collect();
    let is_file_name = |argument: &OsString| {
        argument == "--file_name" || argument.as_bytes().starts_with(b"--file_name=")
    };
    let as_the_tool = arguments.iter().any(is_file_name);
    for argument in arguments {
        match joined.last_mut() {
            Some(option)
                if as_the_tool
                    && (option == "--all_tensors" || option == "--all_tensor_names")
                    && !argument.as_bytes().starts_with(b"-") =>
            {
                option.push("=");
                option.push(argument);
            }
            _ => joined.push(argument),
        }
    }
    joined
}

/// As TensorFlow's tool reads a truth value.
fn parse_bool(text: &str) -> Result<bool, String> {
    Ok(text.eq_ignore_ascii_case("true"))
}

/// One of NumPy's print options.
#[derive(Clone, Copy, Debug)]
enum PrintOption {
    Precision(u16),
    Threshold(u64),
    EdgeItems(u16),
    LineWidth(u32),
    Suppress(bool),
}

impl std::str::FromStr for PrintOption {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, value) = text
            .split_once('=')
            .ok_or_else(|| "not of the form NAME=VALUE".to_owned())?;
        let number = |_| format!("not a number in range: {value}");
        match name {
            "precision" => value.parse().map(Self::Precision).map_err(number),
            "threshold" => value.parse().map(Self::Threshold).map_err(number),
            "edgeitems" => value.parse().map(Self::EdgeItems).map_err(number),
            "linewidth" => value.parse().map(Self::LineWidth).map_err(number),
            "suppress" => match value.to_ascii_lowercase().as_str() {
                "true" | "t" | "1" => Ok(Self::Suppress(true)),
                "false" | "f" | "0" => Ok(Self::Suppress(false)),
                _ => Err(format!("not a truth value: {value}")),
            },
            "sign" | "floatmode" | "nanstr" | "infstr" | "legacy" => {
                Err(format!("NumPy's option {name} is not supported"))
            }
            _ => Err(format!("no such option: {name}")),
        }
    }
}

impl Arguments {
    fn print_options(&self) -> PrintOptions {
        let mut options = PrintOptions::default();
        for option in &self.print_options {
            match *option {
                PrintOption::Precision(value) => options.precision = value,
                PrintOption::Threshold(value) => options.threshold = value,
                PrintOption::EdgeItems(value) => options.edge_items = value.into(),
                PrintOption::LineWidth(value) => options.line_width = value.into(),
                PrintOption::Suppress(value) => options.suppress = value,
            }
        }
        options
    }
}

/// Runs the command.
pub fn run(arguments: &Arguments, out: &mut dyn Write) -> Result<Outcome, Failure> {
    let prefix = arguments.prefix.as_ref().or(arguments.file_name.as_ref());
    // Clap sees to it that there is one.
    let reader = Reader::open(prefix.unwrap_or(&PathBuf::new()))?;
    let context = Context::new(ContextOptions::default())?;
    let printer = Printer {
        reader: &reader,
        context: &context,
        options: arguments.print_options(),
    };
    let key = arguments.tensor.as_ref().map(|key| key.as_bytes());
    let outcome = if arguments.all || arguments.all_names {
        printer.all(out, arguments.all)?
    } else if let Some(key) = key.filter(|key| !key.is_empty()) {
        printer.one(out, key)?;
        Outcome::Sound
    } else {
        printer.list(out)?
    };
    let exclude = arguments.count_exclude_pattern.as_ref();
    // The empty pattern is the tool's default.
    printer.count(out, exclude.filter(|pattern| !pattern.as_str().is_empty()))?;
    Ok(outcome)
}

/// Prints tensors of one checkpoint.
struct Printer<'a> {
    reader: &'a Reader,
    context: &'a Context,
    options: PrintOptions,
}

impl Printer<'_> {
    /// Names, dtypes and shapes in TensorFlow's terms.
    fn list(&self, out: &mut dyn Write) -> Result<Outcome, Failure> {
        let outcome = self.for_each(out, |out, info| {
            let text = info.debug_text(self.reader.format());
            writeln!(out, "{} {text}", printable(&info.key))?;
            Ok(())
        })?;
        writeln!(out)?;
        Ok(outcome)
    }

    /// Names, dtypes and shapes in Python's terms, and values if `with_values`.
    fn all(&self, out: &mut dyn Write, with_values: bool) -> Result<Outcome, Failure> {
        let mut all_read = true;
        let outcome = self.for_each(out, |out, info| {
            write_heading(out, info)?;
            if !with_values {
                return Ok(());
            }
            match self.value(info) {
                Ok(text) => writeln!(out, "{text}")?,
                Err(error) if error.code() == Code::Unimplemented => {
                    writeln!(out, "<not convertible to a numpy dtype>")?;
                }
                Err(error) => {
                    out.flush()?;
                    complain(error);
                    all_read = false;
                }
            }
            Ok(())
        })?;
        Ok(if all_read { outcome } else { Outcome::Broken })
    }

    /// One tensor with its values.
    fn one(&self, out: &mut dyn Write, key: &[u8]) -> Result<(), Failure> {
        let info = self.reader.find(key).map_err(|error| {
            if error.code() == Code::NotFound {
                let key = printable(key);
                Failure::Message(format!("Tensor {key} not found in checkpoint"))
            } else {
                Failure::Library(error)
            }
        })?;
        write_heading(out, &info)?;
        writeln!(out, "{}", self.value(&info)?)?;
        Ok(())
    }

    /// The number of parameters, without tensors whose name matches `exclude`.
    fn count(&self, out: &mut dyn Write, exclude: Option<&Regex>) -> Result<(), Failure> {
        let (mut num_params, mut num_excluded, mut params_excluded) = (0u128, 0u64, 0u128);
        let mut entries = self.reader.entries();
        // What is damaged has been reported when the tensors were listed.
        while let Ok(Some((key, entry))) = entries.next() {
            let Ok(info) = entry else {
                continue;
            };
            let num = u128::from(info.shape.num_elements());
            if exclude.is_some_and(|pattern| pattern.is_match(&String::from_utf8_lossy(key))) {
                num_excluded += 1;
                params_excluded += num;
            } else {
                num_params += num;
            }
        }
        if let Some(pattern) = exclude {
            writeln!(
                out,
                "# Excluding {num_excluded} tensors ({params_excluded} params) that match \
                 {pattern} when counting."
            )?;
        }
        writeln!(out, "# Total number of params: {num_params}")?;
        Ok(())
    }

    /// Hands each sound tensor to `write` and complains of the others.
    fn for_each(
        &self,
        out: &mut dyn Write,
        mut write: impl FnMut(&mut dyn Write, &TensorInfo) -> Result<(), Failure>,
    ) -> Result<Outcome, Failure> {
        let mut outcome = Outcome::Sound;
        let mut entries = self.reader.entries();
        loop {
            let error = match entries.next() {
                Ok(None) => return Ok(outcome),
                Ok(Some((_, Ok(info)))) => {
                    write(out, &info)?;
                    continue;
                }
                Ok(Some((key, Err(error)))) => error.with_key(key),
                Err(error) => {
                    out.flush()?;
                    complain(error);
                    return Ok(Outcome::Broken);
                }
            };
            out.flush()?;
            complain(error);
            outcome = Outcome::Broken;
        }
    }

    /// The values of a tensor, which is held whole in memory meanwhile.
    fn value(&self, info: &TensorInfo) -> tfckpt::Result<String> {
        let mut strings = StringTensor::default();
        let mut bytes = Vec::new();
        let data = if info.dtype == DType::String {
            RestoreData::Strings(&mut strings)
        } else {
            bytes = zeros(info)?;
            RestoreData::Bytes(bytes.as_mut_slice().into())
        };
        let mut tensors = [RestoreTensor {
            key: &info.key,
            dtype: info.dtype,
            shape: info.shape.clone(),
            slice_spec: "",
            device_name: "",
            data,
        }];
        let mut call = Call::new(self.context);
        let outcome = self
            .reader
            .restore(&mut tensors, &RestoreOptions::default(), &mut call)?;
        outcome.into_result()?;
        let values = if info.dtype == DType::String {
            Values::Strings(&strings)
        } else {
            Values::Bytes(info.dtype, &bytes)
        };
        Ok(array_text(values, info.shape.dims(), &self.options))
    }
}

/// Memory for a tensor. A damaged index may name any size: the memory is asked for, so that it can
/// be refused, and not touched before the restore has compared the size with the data files'.
fn zeros(info: &TensorInfo) -> tfckpt::Result<Vec<u8>> {
    let size = info
        .dtype
        .size()
        .and_then(|element| info.shape.byte_size(element));
    let size = usize::try_from(size.unwrap_or(0)).unwrap_or(usize::MAX);
    let mut probe: Vec<u8> = Vec::new();
    if probe.try_reserve_exact(size).is_err() {
        let error = tfckpt::Error::resource_exhausted(format!("no memory; size={size}"));
        return Err(error.with_key(&info.key));
    }
    drop(probe);
    Ok(vec![0; size])
}

fn write_heading(out: &mut dyn Write, info: &TensorInfo) -> Result<(), Failure> {
    let (key, dtype) = (printable(&info.key), info.dtype.python_name());
    writeln!(out, "tensor: {key} ({dtype}) {:?}", info.shape.dims())?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn truth_values_are_joined_in_command_lines_of_the_tool() {
        let joined = |line: &str| {
            let arguments = line.split(' ').map(OsString::from);
            join_truth_values(arguments)
                .join(OsString::from(" ").as_os_str())
                .into_string()
                .unwrap()
        };
        for (line, expected) in [
            (
                "--file_name p --all_tensors True",
                "--file_name p --all_tensors=True",
            ),
            (
                "--all_tensor_names no --file_name=p",
                "--all_tensor_names=no --file_name=p",
            ),
            (
                "--file_name p --all_tensors --tensor_name w",
                "--file_name p --all_tensors --tensor_name w",
            ),
            ("--all_tensors p", "--all_tensors p"),
            (
                "--file_name p --all_tensors=False q",
                "--file_name p --all_tensors=False q",
            ),
        ] {
            assert_eq!(joined(line), expected);
        }
    }
}
