//! The caller's array of structs, read where it is.

use std::marker::PhantomData;

use super::handle::{Sized, check_out, read_struct, struct_size};
use crate::{Error, Result};

/// An array of structs whose elements may be longer than this library knows. There may be very many,
/// so they are not copied.
#[derive(Clone, Copy)]
pub(super) struct StructArray<'a, T> {
    first: *const T,
    stride: usize,
    num: usize,
    lifetime: PhantomData<&'a T>,
}

impl<T: Sized> StructArray<'_, T> {
    /// Checks the array, which errors call `name`.
    ///
    /// # Errors
    ///
    /// INVALID_ARGUMENT for NULL, a size that is not set, or sizes that differ; UNIMPLEMENTED for
    /// fields that this version does not know.
    ///
    /// # Safety
    ///
    /// `first` must be NULL or an array of `num` elements of the first one's size, valid and unchanged
    /// during the lifetime.
    pub(super) unsafe fn new(first: *const T, num: usize, name: &str) -> Result<Self> {
        let mut array = Self {
            first,
            stride: 0,
            num,
            lifetime: PhantomData,
        };
        if num == 0 {
            return Ok(array);
        }
        check_out(first.cast_mut(), name)?;
        // SAFETY: at least one element is there, and it has a size.
        array.stride = unsafe { struct_size(first) }?;
        let size = array.stride.checked_mul(num);
        if size.is_none_or(|size| isize::try_from(size).is_err()) {
            return Err(Error::invalid_argument(format!(
                "too many {name}; num_{name}={num}"
            )));
        }
        for index in 0..num {
            let place = |error: Error| error.with_tensor_index(index);
            // SAFETY: inside the array, by the caller's promise; the size is compared before anything
            // behind the first one's size is looked at.
            unsafe {
                let element = first.byte_add(index * array.stride);
                let (size, first) = (struct_size(element).map_err(place)?, array.stride);
                if size != first {
                    return Err(place(Error::invalid_argument(format!(
                        "{name} of one array differ in struct_size; struct_size={size} first={first}"
                    ))));
                }
                read_struct(element).map_err(place)?;
            }
        }
        Ok(array)
    }

    /// Number of elements.
    pub(super) fn len(&self) -> usize {
        self.num
    }

    /// An element, if there are so many.
    pub(super) fn get(&self, index: usize) -> Option<T> {
        // SAFETY: inside the array, which stays valid (the promise of `new`); each element's size was
        // found to be the stride, which is at least that of the type.
        (index < self.num)
            .then(|| unsafe { self.first.byte_add(index * self.stride).read_unaligned() })
    }

    /// The elements, in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = T> {
        (0..self.num).filter_map(|index| self.get(index))
    }
}
