//! The definition of a saver, as a meta graph carries it.
//!
//! Three names stand for a graph's nodes, which nothing here runs: they are kept for whoever does. The
//! other fields say how checkpoints are named, kept and written. Source:
//! `tensorflow/core/protobuf/saver.proto`.

use std::fmt::Write;

use prost::Message;

use crate::error::{Error, Result};
use crate::proto;
use crate::proto::saver_def::CheckpointFormatVersion;

/// A definition, checked.
#[derive(Clone, Debug, PartialEq)]
pub struct SaverDef {
    /// Tensor that is fed with the checkpoint's path, such as `save/Const:0`.
    pub filename_tensor_name: String,
    /// Tensor that is fetched to save, such as `save/control_dependency:0`.
    pub save_tensor_name: String,
    /// Operation that restores, such as `save/restore_all`.
    pub restore_op_name: String,
    /// Checkpoints to keep, 0 for all.
    pub max_to_keep: i32,
    /// Whether each device gets a data file of its own.
    pub sharded: bool,
    /// Hours between checkpoints that are kept for good.
    pub keep_checkpoint_every_n_hours: f32,
    /// Whether checkpoints are of format V1; LEGACY means that, too.
    pub is_v1: bool,
    /// Whether the definition was read and says LEGACY: it is handed out as it came.
    pub is_legacy: bool,
}

/// Scope of the names unless the caller chooses another.
const DEFAULT_SCOPE: &str = "save";

impl SaverDef {
    /// The definition that TensorFlow makes of these arguments in a graph where `scope` is not taken.
    ///
    /// # Errors
    ///
    /// INVALID_ARGUMENT with TensorFlow's text for a scope that is no name.
    pub fn new(
        scope: Option<&str>,
        max_to_keep: i32,
        sharded: bool,
        keep_checkpoint_every_n_hours: f32,
        is_v1: bool,
    ) -> Result<Self> {
        let scope = scope
            .filter(|scope| !scope.is_empty())
            .unwrap_or(DEFAULT_SCOPE);
        check_scope(scope)?;
        let scope = scope.strip_suffix('/').unwrap_or(scope);
        let save = match (sharded, is_v1) {
            (false, _) => "control_dependency",
            (true, false) => "Identity",
            (true, true) => "ShardedFilespec",
        };
        Ok(Self {
            filename_tensor_name: format!("{scope}/Const:0"),
            save_tensor_name: format!("{scope}/{save}:0"),
            restore_op_name: format!("{scope}/restore_all"),
            max_to_keep,
            sharded,
            keep_checkpoint_every_n_hours,
            is_v1,
            is_legacy: false,
        })
    }

    /// Reads a serialised definition.
    ///
    /// # Errors
    ///
    /// INVALID_ARGUMENT for bytes that are none, a limit below zero, and a format not known.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let invalid = |what: String| Error::invalid_argument(format!("saver_def {what}"));
        let def = proto::SaverDef::decode(bytes)
            .map_err(|error| invalid(format!("cannot be parsed: {error}")))?;
        if def.max_to_keep < 0 {
            return Err(invalid(format!(
                "has a negative limit; max_to_keep={}",
                def.max_to_keep
            )));
        }
        let version = CheckpointFormatVersion::try_from(def.version)
            .map_err(|_| invalid(format!("has an unknown format; version={}", def.version)))?;
        Ok(Self {
            filename_tensor_name: def.filename_tensor_name,
            save_tensor_name: def.save_tensor_name,
            restore_op_name: def.restore_op_name,
            max_to_keep: def.max_to_keep,
            sharded: def.sharded,
            keep_checkpoint_every_n_hours: def.keep_checkpoint_every_n_hours,
            is_v1: version != CheckpointFormatVersion::V2,
            is_legacy: version == CheckpointFormatVersion::Legacy,
        })
    }

    /// The definition as bytes, equal to TensorFlow's.
    pub fn encode(&self) -> Vec<u8> {
        self.to_proto().encode_to_vec()
    }

    /// Puts `scope` before the three names, as an import into a graph does.
    pub fn prepend_scope(&mut self, scope: &str) {
        let scope = scope.strip_suffix('/').unwrap_or(scope);
        for name in [
            &mut self.filename_tensor_name,
            &mut self.save_tensor_name,
            &mut self.restore_op_name,
        ] {
            *name = format!("{scope}/{name}");
        }
    }

    /// Checks that the names are there that saving and restoring a graph take.
    ///
    /// # Errors
    ///
    /// INVALID_ARGUMENT with TensorFlow's text.
    pub fn check(&self) -> Result<()> {
        for (field, name) in [
            ("save_tensor_name", &self.save_tensor_name),
            ("restore_op_name", &self.restore_op_name),
        ] {
            if name.is_empty() {
                return Err(Error::invalid_argument(format!(
                    "saver_def must specify the {field}: {}",
                    self.text()
                )));
            }
        }
        Ok(())
    }

    fn to_proto(&self) -> proto::SaverDef {
        let version = match (self.is_legacy, self.is_v1) {
            (true, _) => CheckpointFormatVersion::Legacy,
            (false, true) => CheckpointFormatVersion::V1,
            (false, false) => CheckpointFormatVersion::V2,
        };
        proto::SaverDef {
            filename_tensor_name: self.filename_tensor_name.clone(),
            save_tensor_name: self.save_tensor_name.clone(),
            restore_op_name: self.restore_op_name.clone(),
            max_to_keep: self.max_to_keep,
            sharded: self.sharded,
            keep_checkpoint_every_n_hours: self.keep_checkpoint_every_n_hours,
            version: version.into(),
        }
    }

    /// The fields that are set, in protobuf's text format.
    fn text(&self) -> String {
        let mut text = String::new();
        for (field, name) in [
            ("filename_tensor_name", &self.filename_tensor_name),
            ("save_tensor_name", &self.save_tensor_name),
            ("restore_op_name", &self.restore_op_name),
        ] {
            if !name.is_empty() {
                let _ = writeln!(text, "{field}: {name:?}");
            }
        }
        if self.max_to_keep != 0 {
            let _ = writeln!(text, "max_to_keep: {}", self.max_to_keep);
        }
        if self.sharded {
            text.push_str("sharded: true\n");
        }
        if self.keep_checkpoint_every_n_hours != 0.0 {
            let hours = self.keep_checkpoint_every_n_hours;
            let _ = writeln!(text, "keep_checkpoint_every_n_hours: {hours:?}");
        }
        if !self.is_legacy {
            let version = if self.is_v1 { "V1" } else { "V2" };
            let _ = writeln!(text, "version: {version}");
        }
        text
    }
}

/// Refuses what TensorFlow refuses as the name of a scope at the root of a graph.
fn check_scope(scope: &str) -> Result<()> {
    let sound = |first: bool, byte: u8| {
        byte.is_ascii_alphanumeric() || byte == b'.' || (!first && b"_\\/>-".contains(&byte))
    };
    let bytes = scope.as_bytes().iter().enumerate();
    if bytes
        .into_iter()
        .all(|(index, &byte)| sound(index == 0, byte))
    {
        return Ok(());
    }
    Err(Error::invalid_argument(format!(
        "'{scope}' is not a valid root scope name. A root scope name has to match the following \
         pattern: ^[A-Za-z0-9.][A-Za-z0-9_.\\\\/>-]*$"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_end_as_in_tensorflow() {
        let def = SaverDef::new(None, 5, false, 10_000.0, false).unwrap();
        let bytes = def.encode();
        // max_to_keep 5, 10,000 hours, V2.
        assert!(bytes.ends_with(b"\x20\x05\x35\x00\x40\x1c\x46\x38\x02"));
        assert_eq!(SaverDef::decode(&bytes).unwrap(), def);
        let sharded = SaverDef::new(Some("a/"), 0, true, 0.0, true).unwrap();
        assert_eq!(sharded.save_tensor_name, "a/ShardedFilespec:0");
        assert_eq!(SaverDef::decode(&sharded.encode()).unwrap(), sharded);
        let legacy = bytes.strip_suffix(b"\x38\x02").unwrap();
        assert!(SaverDef::decode(legacy).unwrap().is_v1);
        assert_eq!(SaverDef::decode(legacy).unwrap().encode(), legacy);
    }

    #[test]
    fn definitions_that_cannot_be_used_are_refused() {
        let good = SaverDef::new(None, 5, false, 10_000.0, false).unwrap();
        for (field, change) in [
            (
                "save_tensor_name",
                (|def| def.save_tensor_name.clear()) as fn(&mut SaverDef),
            ),
            ("restore_op_name", |def| def.restore_op_name.clear()),
        ] {
            let mut def = good.clone();
            change(&mut def);
            let error = SaverDef::decode(&def.encode())
                .unwrap()
                .check()
                .unwrap_err();
            let text = format!(
                "saver_def must specify the {field}: filename_tensor_name: \"save/Const:0\"\n"
            );
            assert!(error.message().starts_with(&text), "{}", error.message());
        }
        for bytes in [
            // A length that is not there, a negative limit, a format of the future, text that is none.
            &b"\x0a\x05a"[..],
            b"\x20\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
            b"\x38\x07",
            b"\x0a\x01\xff",
        ] {
            SaverDef::decode(bytes).unwrap_err();
        }
        let error = SaverDef::new(Some("a b"), 5, false, 1.0, false).unwrap_err();
        assert!(
            error
                .message()
                .starts_with("'a b' is not a valid root scope name.")
        );
    }

    #[test]
    fn damaged_definitions_are_refused_or_sound() {
        let bytes = SaverDef::new(None, 5, true, 10_000.0, false)
            .unwrap()
            .encode();
        let mut damaged: Vec<Vec<u8>> = (0..bytes.len()).map(|len| bytes[..len].to_vec()).collect();
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            damaged.push(flipped);
        }
        let (mut sound, mut refused) = (0, 0);
        for bytes in damaged {
            match SaverDef::decode(&bytes) {
                Ok(def) => {
                    sound += 1;
                    assert!(def.max_to_keep >= 0);
                    // What was read is what is handed out, and it can be read again.
                    assert_eq!(
                        SaverDef::decode(&def.encode()).unwrap().encode(),
                        def.encode()
                    );
                }
                Err(error) => {
                    refused += 1;
                    assert_eq!(error.code(), crate::error::Code::InvalidArgument);
                }
            }
        }
        assert!(sound > 0 && refused > 0);
    }

    #[test]
    fn a_scope_goes_before_every_name() {
        let mut def = SaverDef::new(None, 5, false, 10_000.0, false).unwrap();
        def.prepend_scope("B");
        assert_eq!(def.filename_tensor_name, "B/save/Const:0");
        assert_eq!(def.restore_op_name, "B/save/restore_all");
    }
}
