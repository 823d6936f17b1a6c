//! A tensor's bytes where they lie in the data file, mapped rather than copied.

use std::sync::Arc;

use crate::bundle::{BundleReader, Stored};
use crate::checksum;
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::io::Mapping;
use crate::shape::Shape;

/// How a view is made.
#[derive(Clone, Copy, Debug, Default)]
pub struct ViewOptions {
    /// Accept data whose address is not a multiple of the element's alignment. TensorFlow packs
    /// tensors, so this is the rule rather than the exception for files it wrote.
    pub allow_unaligned: bool,
    /// Do not check the checksum, which reads all of the data once.
    pub no_verify: bool,
}

/// A mapped tensor. It keeps its mapping, and with it the file's contents, alive by itself, also when
/// the checkpoint is deleted; but if somebody shortens the file, touching the lost part raises SIGBUS.
#[derive(Clone, Debug)]
pub struct View {
    mapping: Option<Arc<Mapping>>,
    dtype: DType,
    shape: Shape,
}

impl View {
    /// Data type of the elements.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// Shape, row-major.
    pub fn shape(&self) -> &Shape {
        &self.shape
    }

    /// The tensor's bytes, little-endian.
    pub fn bytes(&self) -> &[u8] {
        self.mapping.as_ref().map_or(&[], |mapping| mapping.bytes())
    }
}

/// Maps the tensor `key`.
///
/// # Errors
///
/// FAILED_PRECONDITION for data that cannot be used in place: big-endian, strings, partitioned,
/// misaligned; NOT_FOUND; DATA_LOSS when the checksum differs.
pub fn view(reader: &BundleReader, key: &[u8], options: ViewOptions) -> Result<View> {
    let entry = reader.lookup().entry(key)?;
    let refuse = |why: &str| {
        Err(Error::failed_precondition(format!("no view of this tensor: {why}")).with_key(key))
    };
    let Some(element_size) = entry.dtype.size() else {
        return refuse("its elements have no fixed size");
    };
    let Stored::Whole(extent) = &entry.stored else {
        return refuse("it is partitioned");
    };
    let alignment = entry.dtype.swap_unit().unwrap_or(element_size);
    if reader.is_big_endian() && alignment > 1 {
        return refuse("it is big-endian");
    }
    let file = reader.locate(extent)?;
    let place = |error: Error| {
        error
            .with_key(key)
            .with_file(file.path())
            .with_offset(extent.offset)
    };
    let mapping = if extent.size == 0 {
        None
    } else {
        let mapping = Mapping::new(file.file(), extent.offset, extent.size);
        Some(Arc::new(
            mapping.map_err(|error| place(Error::io(&error, file.path())))?,
        ))
    };
    let view = View {
        mapping,
        dtype: entry.dtype,
        shape: entry.shape,
    };
    let empty = view.bytes().is_empty();
    if !empty && !options.allow_unaligned && !view.bytes().as_ptr().addr().is_multiple_of(alignment)
    {
        return refuse("it is not aligned").map_err(place);
    }
    if !options.no_verify {
        let bundle = reader.prefix().display().to_string();
        extent
            .check(&bundle, checksum::crc32c(view.bytes()))
            .map_err(place)?;
    }
    Ok(view)
}
