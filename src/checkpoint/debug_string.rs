//! A checkpoint's tensors in the words of TensorFlow's `CheckpointReader::DebugString`
//! (`tensorflow/core/util/tensor_bundle/tensor_bundle.cc`, `tensorflow/core/util/tensor_slice_reader.cc`).

use super::manage::Format;
use super::reader::{Reader, TensorInfo};
use crate::error::Result;

impl Reader {
    /// A line for each tensor, such as `w (DT_FLOAT) [2,2]`, as `debug_string` of TensorFlow's
    /// `NewCheckpointReader` has them. They are in key order, as TensorFlow's are in format V2; those of
    /// format V1 it leaves in any order. A partitioned tensor of format V2, for which TensorFlow
    /// shows the keys of its slices instead, has a line with its slices.
    ///
    /// Keys are not changed, whatever bytes they have.
    ///
    /// # Errors
    ///
    /// DATA_LOSS when an entry, or a part of the index, is damaged.
    pub fn debug_string(&self) -> Result<Vec<u8>> {
        let mut text = Vec::new();
        let mut entries = self.entries();
        while let Some((key, info)) = entries.next()? {
            let info = info.map_err(|error| error.with_key(key))?;
            text.extend_from_slice(key);
            text.push(b' ');
            text.extend_from_slice(info.debug_text(self.format()).as_bytes());
            text.push(b'\n');
        }
        Ok(text)
    }
}

impl TensorInfo {
    /// What [`Reader::debug_string`] says of the tensor behind its key, for a checkpoint of `format`.
    pub fn debug_text(&self, format: Format) -> String {
        let mut text = format!("({}) {}", self.dtype.proto_name(), self.shape);
        let num_slices = self.slices.len();
        match (format, num_slices) {
            // What TensorFlow says; of a tensor in one slice it does not say which.
            (Format::V1, 0 | 1) | (Format::V2, 0) => {}
            (Format::V1, _) => text += &format!(", {num_slices} slices"),
            (Format::V2, 1) => text += &format!(", 1 slice: {}", self.slices.join(" ")),
            (Format::V2, _) => text += &format!(", {num_slices} slices: {}", self.slices.join(" ")),
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dtype::DType;
    use crate::shape::Shape;

    fn info(dims: &[i64], slices: &[&str]) -> TensorInfo {
        TensorInfo {
            key: b"t".to_vec(),
            dtype: DType::Float,
            shape: Shape::new(dims).unwrap(),
            size: 0,
            shard_id: 0,
            offset: 0,
            crc32c: 0,
            slices: slices.iter().map(|&slice| slice.to_owned()).collect(),
        }
    }

    #[test]
    fn each_format_has_its_words_for_slices() {
        for (slices, v1, v2) in [
            (&[][..], "", ""),
            (&["0,2:-"][..], "", ", 1 slice: 0,2:-"),
            (
                &["0,2:-", "2,2:-"][..],
                ", 2 slices",
                ", 2 slices: 0,2:- 2,2:-",
            ),
        ] {
            let info = info(&[4, 6], slices);
            assert_eq!(info.debug_text(Format::V1), format!("(DT_FLOAT) [4,6]{v1}"));
            assert_eq!(info.debug_text(Format::V2), format!("(DT_FLOAT) [4,6]{v2}"));
        }
        assert_eq!(info(&[], &[]).debug_text(Format::V2), "(DT_FLOAT) []");
    }
}
