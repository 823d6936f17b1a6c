//! DLPack's structs, and what they mean here.
//!
//! Layout and numbers are those of `include/dlpack/dlpack.h` of DLPack 1.3 (Apache-2.0), of which the
//! header of this library names the outermost struct alone.

use std::ffi::c_void;

use smallvec::SmallVec;

use super::handle::array;
use super::tensor::{TFCKPT_DEVICE_CUDA, TFCKPT_DEVICE_HOST, tfckpt_tensor};
use crate::{DType, Error, Result, Shape};

/// The version of the structs that are made here. Who knows the major version can use them.
pub const VERSION: DLPackVersion = DLPackVersion { major: 1, minor: 2 };

/// The consumer must not write to the tensor.
const READ_ONLY: u64 = 1;
/// Elements of fewer than 8 bits take a byte each, as they do in checkpoints.
const SUBBYTE_TYPE_PADDED: u64 = 1 << 2;

const CPU: i32 = 1;
const CUDA: i32 = 2;
const CUDA_HOST: i32 = 3;
const CUDA_MANAGED: i32 = 13;

/// `DLPackVersion`
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct DLPackVersion {
    /// Another one is another layout.
    pub major: u32,
    /// A higher one has new codes.
    pub minor: u32,
}

/// `DLDevice`
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct DLDevice {
    /// Its kind.
    pub device_type: i32,
    /// Its number among those of its kind; 0 for memory of the host and managed memory.
    pub device_id: i32,
}

/// `DLDataType`
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DLDataType {
    /// Its kind.
    pub code: u8,
    /// Bits of an element.
    pub bits: u8,
    /// Elements that make one; 1 for all that are no vectors.
    pub lanes: u16,
}

/// `DLTensor`
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct DLTensor {
    /// The memory; NULL if there are no elements.
    pub data: *mut c_void,
    /// Where that is.
    pub device: DLDevice,
    /// Number of dimensions.
    pub ndim: i32,
    /// What the elements are.
    pub dtype: DLDataType,
    /// Sizes of the dimensions; may be NULL if there are none.
    pub shape: *mut i64,
    /// Steps along the dimensions, in elements. Before version 1.2 it could be NULL, for contiguous tensors.
    pub strides: *mut i64,
    /// Where the first element is in the memory.
    pub byte_offset: u64,
}

/// `DLManagedTensorVersioned`
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct DLManagedTensorVersioned {
    /// The version of this struct.
    pub version: DLPackVersion,
    /// For who made it.
    pub manager_ctx: *mut c_void,
    /// Gives it back, the struct included; called once.
    pub deleter: Option<unsafe extern "C" fn(managed: *mut DLManagedTensorVersioned)>,
    /// [`READ_ONLY`] and others.
    pub flags: u64,
    /// The tensor.
    pub dl_tensor: DLTensor,
}

/// Code, bits and data type. DLPack has no quantized types, TensorFlow not all of its 8-bit floats.
const DTYPES: [(u8, u8, DType); 25] = [
    (0, 8, DType::Int8),
    (0, 16, DType::Int16),
    (0, 32, DType::Int32),
    (0, 64, DType::Int64),
    (1, 8, DType::Uint8),
    (1, 16, DType::Uint16),
    (1, 32, DType::Uint32),
    (1, 64, DType::Uint64),
    (2, 16, DType::Half),
    (2, 32, DType::Float),
    (2, 64, DType::Double),
    (4, 16, DType::Bfloat16),
    (5, 64, DType::Complex64),
    (5, 128, DType::Complex128),
    (6, 8, DType::Bool),
    (9, 8, DType::Float8E4m3b11fnuz),
    (10, 8, DType::Float8E4m3fn),
    (11, 8, DType::Float8E4m3fnuz),
    (12, 8, DType::Float8E5m2),
    (13, 8, DType::Float8E5m2fnuz),
    (0, 4, DType::Int4),
    (1, 4, DType::Uint4),
    (0, 2, DType::Int2),
    (1, 2, DType::Uint2),
    (17, 4, DType::Float4E2m1fn),
];

impl DLManagedTensorVersioned {
    /// Describes a tensor of another library's by the fields of `tensor` that say what and where it is.
    ///
    /// # Errors
    ///
    /// INVALID_ARGUMENT for a tensor that is not what DLPack says it is, not contiguous, or not to be
    /// written to if that is what it is wanted for; UNIMPLEMENTED for a version, device or data type that
    /// is unknown here.
    ///
    /// # Safety
    ///
    /// `managed` must be valid for reads as far as its version goes, and its shape and strides for reads
    /// of one number per dimension.
    pub unsafe fn describe(
        managed: *const Self,
        for_restore: bool,
        tensor: &mut tfckpt_tensor,
    ) -> Result<()> {
        // SAFETY: the caller's promise: the version comes first in all of them.
        let DLPackVersion { major, minor } = unsafe { (&raw const (*managed).version).read() };
        if major != VERSION.major {
            return Err(Error::unimplemented(format!(
                "the DLPack tensor is of a version that is unknown here; version={major}.{minor}"
            )));
        }
        // SAFETY: the caller's promise, as the version is this one.
        let Self {
            flags, dl_tensor, ..
        } = unsafe { *managed };
        if for_restore && flags & READ_ONLY != 0 {
            return Err(Error::invalid_argument("the DLPack tensor is read-only"));
        }
        let (device_type, device_id) = dl_tensor.device.to_tensor()?;
        let dtype = dl_tensor.dtype.to_dtype(flags)?;
        // SAFETY: the caller's promise.
        let shape = unsafe { dl_tensor.contiguous_shape() }?;
        let size = dtype.size().and_then(|size| shape.byte_size(size));
        let size = size.and_then(|size| usize::try_from(size).ok());
        let size = size.ok_or_else(|| Error::invalid_argument("the DLPack tensor is too large"))?;
        let start = usize::try_from(dl_tensor.byte_offset).ok();
        let start = start.filter(|start| {
            let begin = dl_tensor.data.addr().checked_add(*start);
            begin.and_then(|begin| begin.checked_add(size)).is_some()
        });
        let start = start.ok_or_else(|| {
            Error::invalid_argument(format!(
                "the DLPack tensor does not end in memory; byte_offset={}",
                dl_tensor.byte_offset
            ))
        })?;
        if size > 0 && dl_tensor.data.is_null() {
            return Err(Error::invalid_argument("the DLPack tensor's data is NULL"));
        }
        tensor.dtype = dtype as i32;
        tensor.rank = dl_tensor.ndim;
        tensor.shape = dl_tensor.shape;
        // Without elements there may be no memory to be inside of.
        tensor.data = dl_tensor.data.wrapping_byte_add(start);
        tensor.size = size;
        tensor.device_type = device_type;
        tensor.device_id = device_id;
        Ok(())
    }
}

impl DLDevice {
    /// The device of a tensor that is made here; `None` is the host.
    pub fn of(device: Option<i32>) -> Self {
        Self {
            device_type: device.map_or(CPU, |_| CUDA),
            device_id: device.unwrap_or(0),
        }
    }

    /// Type and number as a `tfckpt_tensor` has them.
    fn to_tensor(self) -> Result<(i32, i32)> {
        match self.device_type {
            CPU | CUDA_HOST => Ok((TFCKPT_DEVICE_HOST, 0)),
            CUDA | CUDA_MANAGED => Ok((TFCKPT_DEVICE_CUDA, self.device_id)),
            other => Err(Error::unimplemented(format!(
                "DLPack tensors on this kind of device are unknown here; device_type={other}"
            ))),
        }
    }
}

impl DLDataType {
    /// The data type, and the flags that go with it, of a tensor that is made here.
    ///
    /// # Errors
    ///
    /// UNIMPLEMENTED for what DLPack does not have.
    pub fn of(dtype: DType) -> Result<(Self, u64)> {
        let found = DTYPES.iter().find(|(_, _, known)| *known == dtype);
        let &(code, bits, _) = found.ok_or_else(|| {
            Error::unimplemented(format!("DLPack has no such data type; dtype={dtype}"))
        })?;
        let flags = if bits < 8 { SUBBYTE_TYPE_PADDED } else { 0 };
        let lanes = 1;
        Ok((Self { code, bits, lanes }, flags))
    }

    fn to_dtype(self, flags: u64) -> Result<DType> {
        let Self { code, bits, lanes } = self;
        let unknown = |why: &str| {
            Error::unimplemented(format!(
                "DLPack tensors of this data type {why}; code={code} bits={bits} lanes={lanes}"
            ))
        };
        let found = DTYPES
            .iter()
            .find(|known| lanes == 1 && (known.0, known.1) == (code, bits));
        let &(_, _, dtype) = found.ok_or_else(|| unknown("are unknown here"))?;
        if bits < 8 && flags & SUBBYTE_TYPE_PADDED == 0 {
            return Err(unknown("must have a byte for each element"));
        }
        Ok(dtype)
    }
}

impl DLTensor {
    /// The shape, if the elements lie row-major without gaps.
    ///
    /// # Safety
    ///
    /// Shape and strides must be valid for reads of one number per dimension.
    unsafe fn contiguous_shape(&self) -> Result<Shape> {
        let rank = usize::try_from(self.ndim).ok();
        let rank = rank
            .filter(|&rank| rank <= Shape::MAX_RANK)
            .ok_or_else(|| {
                Error::invalid_argument(format!("rank is out of range; rank={}", self.ndim))
            })?;
        // SAFETY: the caller's promise.
        let shape = Shape::new(unsafe { array(self.shape, rank, "the DLPack tensor's shape") }?)?;
        if self.strides.is_null() || shape.num_elements() == 0 {
            return Ok(shape);
        }
        // SAFETY: as above.
        let strides = unsafe { array(self.strides, rank, "the DLPack tensor's strides") }?;
        let dims = shape.dims().iter().zip(strides).rev();
        let mut expected = 1i64;
        for (&dim, &stride) in dims {
            // Along a dimension of 1 there is nothing to step over.
            if dim != 1 && stride != expected {
                return Err(Error::invalid_argument(format!(
                    "the DLPack tensor is not contiguous; shape={shape} strides={strides:?}"
                )));
            }
            // As there are elements, this is at most their number.
            expected = expected.saturating_mul(dim);
        }
        Ok(shape)
    }
}

/// The strides of a contiguous tensor, in elements.
pub fn strides(dims: &[i64]) -> SmallVec<[i64; 4]> {
    let mut elements = 1i64;
    let mut strides: SmallVec<[i64; 4]> = dims
        .iter()
        .rev()
        .map(|&dim| {
            let stride = elements;
            // An empty dimension has strides before it all the same, which need not be of any use.
            elements = elements.saturating_mul(dim.max(1));
            stride
        })
        .collect();
    strides.reverse();
    strides
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Code;

    const FLOAT: DLDataType = DLDataType {
        code: 2,
        bits: 32,
        lanes: 1,
    };

    /// A tensor that lends its shape and strides.
    fn managed(
        dtype: DLDataType,
        shape: &mut [i64],
        strides: Option<&mut [i64]>,
        data: &mut [u8],
    ) -> DLManagedTensorVersioned {
        DLManagedTensorVersioned {
            version: VERSION,
            manager_ctx: std::ptr::null_mut(),
            deleter: None,
            flags: 0,
            dl_tensor: DLTensor {
                data: data.as_mut_ptr().cast(),
                device: DLDevice::of(None),
                ndim: i32::try_from(shape.len()).unwrap(),
                dtype,
                shape: shape.as_mut_ptr(),
                strides: strides.map_or(std::ptr::null_mut(), |strides| strides.as_mut_ptr()),
                byte_offset: 0,
            },
        }
    }

    fn describe(managed: &DLManagedTensorVersioned, for_restore: bool) -> Result<tfckpt_tensor> {
        // SAFETY: all zeros is valid.
        let mut tensor: tfckpt_tensor = unsafe { std::mem::zeroed() };
        // SAFETY: a whole struct, with arrays of its rank.
        unsafe { DLManagedTensorVersioned::describe(managed, for_restore, &mut tensor) }?;
        Ok(tensor)
    }

    #[test]
    fn the_structs_have_dlpacks_layout() {
        use std::mem::offset_of;
        type Managed = DLManagedTensorVersioned;
        assert_eq!(size_of::<DLTensor>(), 48);
        assert_eq!(size_of::<Managed>(), 80);
        assert_eq!(
            [
                offset_of!(Managed, version),
                offset_of!(Managed, manager_ctx),
                offset_of!(Managed, deleter),
                offset_of!(Managed, flags),
                offset_of!(Managed, dl_tensor),
            ],
            [0, 8, 16, 24, 32]
        );
        assert_eq!(
            [
                offset_of!(DLTensor, data),
                offset_of!(DLTensor, device),
                offset_of!(DLTensor, ndim),
                offset_of!(DLTensor, dtype),
                offset_of!(DLTensor, shape),
                offset_of!(DLTensor, strides),
                offset_of!(DLTensor, byte_offset),
            ],
            [0, 8, 16, 20, 24, 32, 40]
        );
    }

    #[test]
    fn data_types_map_both_ways_or_not_at_all() {
        for &dtype in DType::ALL {
            match DLDataType::of(dtype) {
                Ok((dl, flags)) => {
                    assert_eq!(dl.to_dtype(flags).unwrap(), dtype);
                    let bytes = usize::from(dl.bits).div_ceil(8);
                    assert_eq!(dtype.size(), Some(bytes), "{dtype}");
                }
                Err(error) => {
                    assert_eq!(error.code(), Code::Unimplemented);
                    use DType::*;
                    let absent = [
                        String, Resource, Variant, Qint8, Quint8, Qint16, Quint16, Qint32,
                    ];
                    assert!(absent.contains(&dtype), "{dtype}");
                }
            }
        }
        for (code, bits, lanes) in [(2, 32, 4), (3, 64, 1), (8, 8, 1), (2, 8, 1), (0, 4, 1)] {
            let dtype = DLDataType { code, bits, lanes };
            let error = dtype.to_dtype(0).unwrap_err();
            assert_eq!(error.code(), Code::Unimplemented, "{error}");
        }
    }

    #[test]
    fn strides_may_be_anything_where_nobody_steps() {
        let mut data = [0u8; 96];
        for (shape, strides, contiguous) in [
            (vec![2, 3, 4], None, true),
            (vec![2, 3, 4], Some(vec![12, 4, 1]), true),
            (vec![2, 3, 4], Some(vec![12, 1, 3]), false),
            (vec![2, 3, 4], Some(vec![24, 4, 1]), false),
            (vec![1, 24, 1], Some(vec![-7, 1, 99]), true),
            (vec![2, 3, 4], Some(vec![-12, 4, 1]), false),
            (vec![3, 8], Some(vec![0, 1]), false),
            (vec![5, 0, 4], Some(vec![9, 9, 9]), true),
            (vec![], Some(vec![]), true),
        ] {
            let (mut shape, mut strides) = (shape, strides);
            let managed = managed(FLOAT, &mut shape, strides.as_deref_mut(), &mut data);
            match describe(&managed, true) {
                Ok(tensor) => {
                    assert!(contiguous, "{strides:?}");
                    let num: i64 = shape.iter().product();
                    assert_eq!(tensor.size as i64, 4 * num);
                    assert_eq!(tensor.data, managed.dl_tensor.data);
                }
                Err(error) => {
                    assert!(!contiguous, "{strides:?}: {error}");
                    assert_eq!(error.code(), Code::InvalidArgument);
                }
            }
        }
    }

    #[test]
    fn the_offset_is_part_of_the_address_and_bounds_are_checked() {
        let (mut data, mut shape) = ([0u8; 16], [2, 1]);
        let whole = managed(FLOAT, &mut shape, None, &mut data);
        let mut tensor = whole;
        tensor.dl_tensor.byte_offset = 8;
        let found = describe(&tensor, true).unwrap();
        assert_eq!(found.data.addr(), whole.dl_tensor.data.addr() + 8);
        assert_eq!((found.dtype, found.rank, found.size), (1, 2, 8));

        tensor.dl_tensor.byte_offset = u64::MAX - 4;
        let error = describe(&tensor, true).err().unwrap();
        assert!(error.message().contains("byte_offset"), "{error}");
        tensor.dl_tensor.byte_offset = 0;
        tensor.dl_tensor.data = std::ptr::null_mut();
        let refused = |tensor: &DLManagedTensorVersioned| {
            let error = describe(tensor, true).err().unwrap();
            assert_eq!(error.code(), Code::InvalidArgument);
            error.message().to_owned()
        };
        assert!(refused(&tensor).contains("NULL"));
        let mut shapes = [[0, 1], [i64::MAX / 2, 1], [-1, 1]];
        let [empty, large, negative] = &mut shapes;
        tensor.dl_tensor.shape = empty.as_mut_ptr();
        assert_eq!(describe(&tensor, true).unwrap().size, 0);
        tensor.dl_tensor.shape = large.as_mut_ptr();
        assert!(refused(&tensor).contains("too large"));
        tensor.dl_tensor.shape = negative.as_mut_ptr();
        assert!(refused(&tensor).contains("negative"));
        tensor.dl_tensor.ndim = -1;
        assert!(refused(&tensor).contains("rank"));
    }

    #[test]
    fn flags_devices_and_versions_are_respected() {
        let (mut data, mut shape) = ([0u8; 8], [2]);
        let whole = managed(FLOAT, &mut shape, None, &mut data);
        let mut tensor = whole;
        tensor.flags = READ_ONLY;
        assert!(describe(&tensor, false).is_ok());
        let error = describe(&tensor, true).err().unwrap();
        assert_eq!(error.code(), Code::InvalidArgument);

        for (device_type, device_id, want) in [
            (1, 0, Some((0, 0))),
            (2, 3, Some((2, 3))),
            (3, 5, Some((0, 0))),
            (13, 1, Some((2, 1))),
            (4, 0, None),
            (10, 0, None),
            (0, 0, None),
        ] {
            let mut tensor = whole;
            tensor.dl_tensor.device = DLDevice {
                device_type,
                device_id,
            };
            let found = describe(&tensor, true).ok();
            assert_eq!(found.map(|t| (t.device_type, t.device_id)), want);
        }

        let mut tensor = whole;
        tensor.version = DLPackVersion {
            major: 1,
            minor: 99,
        };
        assert!(describe(&tensor, true).is_ok());
        // Of another major version nothing else may be looked at.
        tensor = managed(FLOAT, &mut [], None, &mut []);
        tensor.version = DLPackVersion { major: 2, minor: 0 };
        tensor.dl_tensor.ndim = 7;
        tensor.dl_tensor.shape = std::ptr::without_provenance_mut(8);
        let error = describe(&tensor, false).err().unwrap();
        assert_eq!(error.code(), Code::Unimplemented, "{error}");
    }

    #[test]
    fn strides_of_empty_tensors_do_not_overflow() {
        assert_eq!(strides(&[2, 3, 4])[..], [12, 4, 1]);
        assert_eq!(strides(&[3, 0, 2])[..], [2, 2, 1]);
        assert_eq!(strides(&[0, 1 << 40, 1 << 40])[..], [i64::MAX, 1 << 40, 1]);
        assert!(strides(&[]).is_empty());
    }
}
