//! The message in the state file, and its text.
//!
//! Source: `tensorflow/python/training/checkpoint_state.proto` (proto3).

#![forbid(unsafe_code)]

use super::text_format::{Tokenizer, put_double, put_string};
use crate::error::Result;

// The names of the fields on disk, which can never change.
const MODEL_CHECKPOINT_PATH: &str = "model_checkpoint_path";
const ALL_MODEL_CHECKPOINT_PATHS: &str = "all_model_checkpoint_paths";
const ALL_MODEL_CHECKPOINT_TIMESTAMPS: &str = "all_model_checkpoint_timestamps";
const LAST_PRESERVED_TIMESTAMP: &str = "last_preserved_timestamp";

/// What a `checkpoint` file says: the checkpoints of a directory, oldest first.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CheckpointState {
    /// Prefix of the latest checkpoint. Empty only in a file that is of no use.
    pub model_checkpoint_path: String,
    /// Prefixes of all checkpoints that are kept, from the oldest to the newest.
    pub all_model_checkpoint_paths: Vec<String>,
    /// When each of them was made, in seconds since 1970; none, or one for each path.
    pub all_model_checkpoint_timestamps: Vec<f64>,
    /// When the newest checkpoint was made that is kept for good, in seconds since 1970.
    ///
    /// `Some(0.0)` cannot be stored: the file leaves the field out, and it reads back as `None`.
    pub last_preserved_timestamp: Option<f64>,
}

#[derive(Clone, Copy)]
enum Field {
    Path,
    AllPaths,
    Timestamps,
    LastPreserved,
}

const FIELDS: [(&str, Field); 4] = [
    (MODEL_CHECKPOINT_PATH, Field::Path),
    (ALL_MODEL_CHECKPOINT_PATHS, Field::AllPaths),
    (ALL_MODEL_CHECKPOINT_TIMESTAMPS, Field::Timestamps),
    (LAST_PRESERVED_TIMESTAMP, Field::LastPreserved),
];

impl CheckpointState {
    /// Reads the text of a state file, accepting what TensorFlow accepts. Of a field that is given
    /// twice the last value counts, or, if it is repeated, all do.
    ///
    /// # Errors
    ///
    /// DATA_LOSS naming line and column, both counted from 1.
    pub fn parse(text: &[u8]) -> Result<Self> {
        let mut tokens = Tokenizer::new(text)?;
        let mut state = Self::default();
        while !tokens.at_end() {
            let field = tokens.name(&FIELDS)?;
            tokens.expect(":")?;
            match field {
                Field::Path => state.model_checkpoint_path = tokens.string()?,
                Field::AllPaths => repeated(
                    &mut tokens,
                    &mut state.all_model_checkpoint_paths,
                    Tokenizer::string,
                )?,
                Field::Timestamps => repeated(
                    &mut tokens,
                    &mut state.all_model_checkpoint_timestamps,
                    Tokenizer::double,
                )?,
                Field::LastPreserved => {
                    state.last_preserved_timestamp = Some(tokens.double()?).filter(is_present);
                }
            }
            if !tokens.take(",") {
                tokens.take(";");
            }
        }
        Ok(state)
    }

    /// The text of the state file, byte for byte as TensorFlow 2.21 writes it.
    pub fn to_text(&self) -> String {
        let mut text = String::new();
        if !self.model_checkpoint_path.is_empty() {
            put_string(
                &mut text,
                MODEL_CHECKPOINT_PATH,
                &self.model_checkpoint_path,
            );
        }
        for path in &self.all_model_checkpoint_paths {
            put_string(&mut text, ALL_MODEL_CHECKPOINT_PATHS, path);
        }
        for &timestamp in &self.all_model_checkpoint_timestamps {
            put_double(&mut text, ALL_MODEL_CHECKPOINT_TIMESTAMPS, timestamp);
        }
        if let Some(timestamp) = self.last_preserved_timestamp.filter(is_present) {
            put_double(&mut text, LAST_PRESERVED_TIMESTAMP, timestamp);
        }
        text
    }
}

/// proto3 takes a singular field whose bits are all zero for absent; `-0.0` is not such a value.
fn is_present(value: &f64) -> bool {
    value.to_bits() != 0
}

/// Adds one value, or a list of them in brackets, to `values`.
fn repeated<'a, T>(
    tokens: &mut Tokenizer<'a>,
    values: &mut Vec<T>,
    value: impl Fn(&mut Tokenizer<'a>) -> Result<T>,
) -> Result<()> {
    if !tokens.take("[") {
        values.push(value(tokens)?);
        return Ok(());
    }
    if tokens.take("]") {
        return Ok(());
    }
    loop {
        values.push(value(tokens)?);
        if tokens.take("]") {
            return Ok(());
        }
        tokens.expect(",")?;
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::error::Code;

    fn state(path: &str, all: &[&str], times: &[f64], last: Option<f64>) -> CheckpointState {
        CheckpointState {
            model_checkpoint_path: path.to_owned(),
            all_model_checkpoint_paths: all.iter().map(|&path| path.to_owned()).collect(),
            all_model_checkpoint_timestamps: times.to_vec(),
            last_preserved_timestamp: last,
        }
    }

    #[test]
    fn texts_are_read_as_tensorflow_reads_them() {
        for (text, expected) in [
            ("", state("", &[], &[], None)),
            ("  \n# only a comment", state("", &[], &[], None)),
            ("model_checkpoint_path: \"m\"", state("m", &[], &[], None)),
            ("model_checkpoint_path: 'm'\n", state("m", &[], &[], None)),
            ("model_checkpoint_path: \"m'\"", state("m'", &[], &[], None)),
            (
                "model_checkpoint_path:\"m-\" \"9\"'x'",
                state("m-9x", &[], &[], None),
            ),
            ("model_checkpoint_path : \"m\"", state("m", &[], &[], None)),
            (
                "model_checkpoint_path\n:\n\"m\"\n\"-1\"",
                state("m-1", &[], &[], None),
            ),
            (
                "model_checkpoint_path: \"m\" # \"n\"\r\nlast_preserved_timestamp: 1\r\n",
                state("m", &[], &[], Some(1.0)),
            ),
            ("model_checkpoint_path: \"m\";", state("m", &[], &[], None)),
            ("model_checkpoint_path: \"m\",", state("m", &[], &[], None)),
            (
                "model_checkpoint_path: \"a\" model_checkpoint_path: \"b\"",
                state("b", &[], &[], None),
            ),
            (
                "model_checkpoint_path:\"a\"model_checkpoint_path:\"b\"",
                state("b", &[], &[], None),
            ),
            (
                "all_model_checkpoint_paths: [\"a\", \"b\"] all_model_checkpoint_paths: \"c\"",
                state("", &["a", "b", "c"], &[], None),
            ),
            ("all_model_checkpoint_paths: []", state("", &[], &[], None)),
            (
                "all_model_checkpoint_paths: [\"a\" \"b\",\n'c']",
                state("", &["ab", "c"], &[], None),
            ),
            (
                "all_model_checkpoint_timestamps: [1, 2.5]; last_preserved_timestamp: 0",
                state("", &[], &[1.0, 2.5], None),
            ),
            (
                "last_preserved_timestamp: 5 last_preserved_timestamp: -0.0",
                state("", &[], &[], Some(-0.0)),
            ),
            (
                "last_preserved_timestamp: 5 last_preserved_timestamp: 0",
                state("", &[], &[], None),
            ),
            (
                "model_checkpoint_path:\u{a0}\"m\"\u{2028}\x1c\x0b\u{85}",
                state("m", &[], &[], None),
            ),
            (
                "model_checkpoint_path: \"é\x00\x7f\r\"",
                state("é\x00\x7f\r", &[], &[], None),
            ),
            (
                "model_checkpoint_path: \"\" all_model_checkpoint_paths: \"\"",
                state("", &[""], &[], None),
            ),
        ] {
            let got = CheckpointState::parse(text.as_bytes()).unwrap();
            assert_eq!(got, expected, "{text}");
        }
    }

    #[test]
    fn what_tensorflow_refuses_is_data_loss() {
        let refused: &[&[u8]] = &[
            b"model: \"m\"",
            b"1: \"m\"",
            b"[a.b]: \"m\"",
            b"Model_Checkpoint_Path: \"m\"",
            b"model_checkpoint_path \"m\"",
            b"model_checkpoint_path: m",
            b"model_checkpoint_path: 1",
            b"model_checkpoint_path: \"a\nb\"",
            b"model_checkpoint_path: \"m",
            b"model_checkpoint_path: \"m'",
            b"model_checkpoint_path: \"",
            b"model_checkpoint_path: \"m\\",
            b"model_checkpoint_path: \"m\\\"",
            "\u{feff}model_checkpoint_path: \"m\"".as_bytes(),
            b"model_checkpoint_path: \"\xff\"",
            b"# \xff",
            b"model_checkpoint_path: \"\\377\"",
            b"model_checkpoint_path: \"m\";;",
            b"model_checkpoint_path: \"m\",;",
            b";",
            b"model_checkpoint_path: [\"m\"]",
            b"all_model_checkpoint_paths: [\"a\",]",
            b"all_model_checkpoint_paths: [,]",
            b"all_model_checkpoint_paths: [\"a\";\"b\"]",
            b"all_model_checkpoint_paths: [[\"a\"]]",
            b"all_model_checkpoint_paths: [\"a\"",
            b"all_model_checkpoint_paths: {\"a\"}",
            b"all_model_checkpoint_paths <",
            b"model_checkpoint_path",
            b"model_checkpoint_path:",
            b"last_preserved_timestamp: \"1\"",
            b"last_preserved_timestamp: 1 2",
            b"last_preserved_timestamp: - 1",
            b"last_preserved_timestamp: [1]",
            b"model_checkpoint_path-: \"m\"",
            b"last_preserved_timestamp: 1model_checkpoint_path: \"m\"",
            b"/* c */",
            b"// c",
            b"tensorflow.CheckpointState { }",
            b"model_checkpoint_path: r\"m\"",
            b"last_preserved_timestamp: true",
            b"\x00",
        ];
        for text in refused {
            let error = CheckpointState::parse(text).unwrap_err();
            assert_eq!(error.code(), Code::DataLoss, "{}", text.escape_ascii());
            assert!(error.message().contains(" line="), "{error}");
        }
    }

    #[test]
    fn the_error_stands_where_the_text_goes_wrong() {
        let place = |text: &str| {
            let message = CheckpointState::parse(text.as_bytes())
                .unwrap_err()
                .to_string();
            message.split_once(" line=").unwrap().1.to_owned()
        };
        assert_eq!(place("model"), "1 column=1");
        assert_eq!(place("# é\n model_checkpoint_path 1"), "2 column=24");
        assert_eq!(place("model_checkpoint_path:\r\n\r\n  \"m"), "3 column=3");
        assert_eq!(place("model_checkpoint_path: \"\\x\""), "1 column=24");
        assert_eq!(place("model_checkpoint_path:\n"), "2 column=1");
    }

    #[test]
    fn the_text_is_that_of_tensorflow() {
        let full = state(
            "m-1",
            &["m-0", "", "é\"'"],
            &[1.0, 0.0, 1e16],
            Some(1_700_000_000.5),
        );
        let expected = "model_checkpoint_path: \"m-1\"\n\
                        all_model_checkpoint_paths: \"m-0\"\n\
                        all_model_checkpoint_paths: \"\"\n\
                        all_model_checkpoint_paths: \"é\\\"\\'\"\n\
                        all_model_checkpoint_timestamps: 1.0\n\
                        all_model_checkpoint_timestamps: 0.0\n\
                        all_model_checkpoint_timestamps: 1e+16\n\
                        last_preserved_timestamp: 1700000000.5\n";
        assert_eq!(full.to_text(), expected);
        assert_eq!(CheckpointState::parse(expected.as_bytes()).unwrap(), full);
    }

    #[test]
    fn zero_and_empty_are_left_out_where_proto3_leaves_them_out() {
        assert_eq!(state("", &[], &[], Some(0.0)).to_text(), "");
        assert_eq!(
            state("", &[], &[], Some(-0.0)).to_text(),
            "last_preserved_timestamp: -0.0\n"
        );
    }

    fn any_state() -> impl Strategy<Value = CheckpointState> {
        let double = || {
            any::<u64>()
                .prop_map(f64::from_bits)
                .prop_filter("NaN", |x| !x.is_nan())
        };
        let path = || {
            vec(
                prop_oneof![any::<char>(), proptest::char::range('\0', '~')],
                0..12,
            )
            .prop_map(String::from_iter)
        };
        let last = proptest::option::of(double().prop_filter("zero", is_present));
        (path(), vec(path(), 0..5), vec(double(), 0..5), last).prop_map(
            |(model_checkpoint_path, paths, timestamps, last_preserved_timestamp)| {
                CheckpointState {
                    model_checkpoint_path,
                    all_model_checkpoint_paths: paths,
                    all_model_checkpoint_timestamps: timestamps,
                    last_preserved_timestamp,
                }
            },
        )
    }

    proptest! {
        #[test]
        fn every_state_reads_back(state in any_state()) {
            let read = CheckpointState::parse(state.to_text().as_bytes()).unwrap();
            prop_assert_eq!(read, state);
        }

        #[test]
        fn a_damaged_text_is_read_or_refused_and_what_is_read_prints_stably(
            state in any_state(),
            changes in vec((any::<prop::sample::Index>(), any::<u8>(), any::<bool>()), 1..6),
        ) {
            let mut text = state.to_text().into_bytes();
            text.push(b'\n');
            for (place, byte, insert) in changes {
                let place = place.index(text.len());
                if insert {
                    text.insert(place, byte);
                } else {
                    text[place] = byte;
                }
            }
            match CheckpointState::parse(&text) {
                Ok(state) => {
                    let again = CheckpointState::parse(state.to_text().as_bytes()).unwrap();
                    prop_assert_eq!(again.to_text(), state.to_text());
                }
                Err(error) => prop_assert_eq!(error.code(), Code::DataLoss),
            }
        }
    }
}
