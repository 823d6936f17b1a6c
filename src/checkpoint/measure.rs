//! What memory tensors take, for one who has to allocate it before they are restored.
//!
//! All that can be known without that memory is checked here, the extents in the data files above all, so
//! that nothing is allocated on an index's word.

use super::open::Opened;
use super::restore_plan::{self, shape_differs};
use super::restore_v1;
use super::tensor::{check_dtype, parse_spec};
use crate::bundle::{BundleReader, Lookup, Stored};
use crate::coding;
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::shape::Shape;
use crate::slices::TensorSlice;
use crate::v1::{V1Reader, is_supported};

/// Hands the data type and shape of each of `num` tensors to `each`, by its index and in any order.
/// `wanted` gives the key and the slice spec of a tensor.
pub fn measure<'k>(
    opened: &Opened,
    num: usize,
    wanted: impl Fn(usize) -> (&'k [u8], &'k str),
    mut each: impl FnMut(usize, Result<(DType, Shape)>),
) {
    let place = |error: Error, index| error.with_tensor_index(index).with_key(wanted(index).0);
    match opened {
        Opened::V1(reader) => {
            for index in 0..num {
                let (key, spec) = wanted(index);
                each(
                    index,
                    measure_v1(reader, key, spec).map_err(|error| place(error, index)),
                );
            }
        }
        Opened::V2(reader) => {
            let mut lookup = reader.lookup();
            // In key order the look-ups go through the index once.
            for index in coding::key_order(num, |index| wanted(index).0).order {
                let index = index as usize;
                let (key, spec) = wanted(index);
                let measured = measure_v2(reader, &mut lookup, key, spec);
                each(index, measured.map_err(|error| place(error, index)));
            }
        }
    }
}

fn measure_v2(
    reader: &BundleReader,
    lookup: &mut Lookup<'_>,
    key: &[u8],
    spec: &str,
) -> Result<(DType, Shape)> {
    let entry = lookup.entry(key)?;
    let of_index = |error: Error| error.with_file(reader.index_file());
    check_dtype(entry.dtype).map_err(of_index)?;
    let spec = parse_spec(spec).map_err(of_index)?;
    if let Some(spec) = spec.as_ref().filter(|spec| spec.full_shape != entry.shape) {
        return Err(of_index(shape_differs(key, &spec.full_shape, &entry.shape)));
    }
    match &entry.stored {
        Stored::Whole(extent) => {
            reader.locate(extent)?;
        }
        Stored::Slices { .. } => {
            restore_plan::locate(reader, key, &entry, spec.as_ref(), lookup)?;
        }
    }
    Ok((
        entry.dtype,
        spec.map_or(entry.shape, |spec| spec.slice_shape),
    ))
}

fn measure_v1(reader: &V1Reader, key: &[u8], spec: &str) -> Result<(DType, Shape)> {
    let stored = reader.tensor(key)?;
    let of_files = |error: Error| error.with_file(reader.prefix());
    let dtype = stored.dtype()?;
    if !is_supported(dtype) {
        return Err(of_files(restore_v1::not_supported(dtype)));
    }
    let spec = parse_spec(spec).map_err(of_files)?;
    if let Some(spec) = spec.as_ref().filter(|spec| spec.full_shape != stored.shape) {
        return Err(of_files(restore_v1::shape_differs(
            &spec.full_shape,
            &stored.shape,
        )));
    }
    let full = TensorSlice::full(stored.shape.rank());
    let wanted = spec.as_ref().map_or(&full, |spec| &spec.slice);
    restore_v1::locate(stored, wanted).map_err(of_files)?;
    Ok((
        dtype,
        spec.map_or_else(|| stored.shape.clone(), |spec| spec.slice_shape),
    ))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::{Reader, SaveData, SaveOptions, SaveTensor, save};
    use super::*;
    use crate::error::Code;
    use crate::transfer::{Call, Context, ContextOptions};

    /// `w` whole, `p` in two slices of which only the first is stored.
    fn save_some(prefix: &Path) -> Reader {
        let bytes = [7u8; 24];
        let tensor = |key, shape: &[i64], slice_spec, len: usize| SaveTensor {
            key,
            dtype: DType::Uint8,
            shape: Shape::new(shape).unwrap(),
            slice_spec,
            device_name: "",
            data: SaveData::Bytes(bytes.get(..len).unwrap().into()),
        };
        let tensors = [
            tensor(b"w", &[4, 6], "", 24),
            tensor(b"p", &[2, 6], "4 6 0,2:-", 12),
        ];
        let context = Context::new(ContextOptions::default()).unwrap();
        let options = SaveOptions::default();
        save(prefix, &tensors, &options, &mut Call::new(&context)).unwrap();
        Reader::open(prefix).unwrap()
    }

    fn measure_one(reader: &Reader, key: &[u8], spec: &str) -> Result<(DType, Shape)> {
        let mut found = None;
        reader.measure(1, |_| (key, spec), |_, measured| found = Some(measured));
        found.unwrap()
    }

    #[test]
    fn a_slice_is_measured_only_if_its_elements_are_stored() {
        let dir = tempfile::tempdir().unwrap();
        let reader = save_some(&dir.path().join("c"));
        let shape = |dims: &[i64]| (DType::Uint8, Shape::new(dims).unwrap());
        assert_eq!(measure_one(&reader, b"w", "").unwrap(), shape(&[4, 6]));
        assert_eq!(
            measure_one(&reader, b"w", "4 6 1,2:-").unwrap(),
            shape(&[2, 6])
        );
        assert_eq!(
            measure_one(&reader, b"p", "4 6 0,1:-").unwrap(),
            shape(&[1, 6])
        );
        for (key, spec, code, text) in [
            (&b"x"[..], "", Code::NotFound, "Key x not found"),
            (
                b"w",
                "4 7 -:-",
                Code::InvalidArgument,
                "does not match the shape",
            ),
            (b"w", "4 6", Code::InvalidArgument, ""),
            (b"p", "", Code::InvalidArgument, "sufficient slices"),
        ] {
            let error = measure_one(&reader, key, spec).unwrap_err();
            assert_eq!(error.code(), code, "{error}");
            assert!(error.message().contains(text), "{error}");
            assert_eq!(error.tensor_index(), Some(0));
        }
    }

    #[test]
    fn an_entry_that_leaves_its_data_file_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let reader = save_some(&dir.path().join("c"));
        drop(reader);
        let data = dir.path().join("c.data-00000-of-00001");
        let file = std::fs::OpenOptions::new().write(true).open(data).unwrap();
        file.set_len(20).unwrap();
        let reader = Reader::open(&dir.path().join("c")).unwrap();
        let error = measure_one(&reader, b"w", "").unwrap_err();
        assert_eq!(error.code(), Code::OutOfRange, "{error}");
    }
}
