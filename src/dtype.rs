//! TensorFlow's data types: numbers, names and element sizes.
//!
//! Numbers are those of `tensorflow/core/framework/types.proto`; they stand in files and can never
//! change. Reference types (number + 100) never appear in a checkpoint and are no `DType`.

#![forbid(unsafe_code)]

use std::fmt;

macro_rules! dtypes {
    ($($(#[$doc:meta])* $name:ident = $number:literal, $proto:literal, $text:literal, $python:literal, $size:literal, $swap:literal;)*) => {
        /// A data type of a tensor in a checkpoint.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(i32)]
        #[non_exhaustive]
        pub enum DType {
            $(
                #[doc = concat!("`", $proto, "`.")]
                $(#[$doc])*
                $name = $number,
            )*
        }

        impl DType {
            /// Every data type, by number.
            pub const ALL: &'static [DType] = &[$(DType::$name),*];

            /// The data type with TensorFlow's number, unless there is none.
            pub fn from_number(number: i32) -> Option<Self> {
                match number {
                    $($number => Some(DType::$name),)*
                    _ => None,
                }
            }

            /// The enumerator in TensorFlow's protos, such as `DT_FLOAT`.
            pub fn proto_name(self) -> &'static str {
                match self { $(DType::$name => $proto,)* }
            }

            /// The name in TensorFlow's error messages, such as `float`.
            pub fn name(self) -> &'static str {
                match self { $(DType::$name => $text,)* }
            }

            /// The name in Python and NumPy, such as `float32`.
            pub fn python_name(self) -> &'static str {
                match self { $(DType::$name => $python,)* }
            }

            /// Bytes per element in a data file; `None` for strings, variants and resources.
            pub fn size(self) -> Option<usize> {
                let size = match self { $(DType::$name => $size,)* };
                (size != 0).then_some(size)
            }

            /// Bytes of each unit that is reversed in a checkpoint of the other byte order: 1 means
            /// nothing to do, `None` that TensorFlow defines no swapping.
            pub fn swap_unit(self) -> Option<usize> {
                let unit = match self { $(DType::$name => $swap,)* };
                (unit != 0).then_some(unit)
            }
        }
    };
}

dtypes! {
    Float = 1, "DT_FLOAT", "float", "float32", 4, 4;
    Double = 2, "DT_DOUBLE", "double", "float64", 8, 8;
    Int32 = 3, "DT_INT32", "int32", "int32", 4, 4;
    Uint8 = 4, "DT_UINT8", "uint8", "uint8", 1, 1;
    Int16 = 5, "DT_INT16", "int16", "int16", 2, 2;
    Int8 = 6, "DT_INT8", "int8", "int8", 1, 1;
    /// Elements are byte strings of any length.
    String = 7, "DT_STRING", "string", "string", 0, 1;
    Complex64 = 8, "DT_COMPLEX64", "complex64", "complex64", 8, 4;
    Int64 = 9, "DT_INT64", "int64", "int64", 8, 8;
    /// One byte, 0 or 1; other values are delivered as stored.
    Bool = 10, "DT_BOOL", "bool", "bool", 1, 1;
    Qint8 = 11, "DT_QINT8", "qint8", "qint8", 1, 1;
    Quint8 = 12, "DT_QUINT8", "quint8", "quint8", 1, 1;
    Qint32 = 13, "DT_QINT32", "qint32", "qint32", 4, 4;
    Bfloat16 = 14, "DT_BFLOAT16", "bfloat16", "bfloat16", 2, 2;
    Qint16 = 15, "DT_QINT16", "qint16", "qint16", 2, 2;
    Quint16 = 16, "DT_QUINT16", "quint16", "quint16", 2, 2;
    Uint16 = 17, "DT_UINT16", "uint16", "uint16", 2, 2;
    Complex128 = 18, "DT_COMPLEX128", "complex128", "complex128", 16, 8;
    Half = 19, "DT_HALF", "half", "float16", 2, 2;
    /// A handle; can be neither saved nor restored.
    Resource = 20, "DT_RESOURCE", "resource", "resource", 0, 0;
    /// Opaque: its bytes are verified, its values are not decoded.
    Variant = 21, "DT_VARIANT", "variant", "variant", 0, 0;
    Uint32 = 22, "DT_UINT32", "uint32", "uint32", 4, 4;
    Uint64 = 23, "DT_UINT64", "uint64", "uint64", 8, 8;
    Float8E5m2 = 24, "DT_FLOAT8_E5M2", "float8_e5m2", "float8_e5m2", 1, 0;
    Float8E4m3fn = 25, "DT_FLOAT8_E4M3FN", "float8_e4m3fn", "float8_e4m3fn", 1, 0;
    Float8E4m3fnuz = 26, "DT_FLOAT8_E4M3FNUZ", "float8_e4m3fnuz", "float8_e4m3fnuz", 1, 0;
    Float8E4m3b11fnuz = 27, "DT_FLOAT8_E4M3B11FNUZ", "float8_e4m3b11fnuz", "float8_e4m3b11fnuz", 1, 0;
    Float8E5m2fnuz = 28, "DT_FLOAT8_E5M2FNUZ", "float8_e5m2fnuz", "float8_e5m2fnuz", 1, 0;
    /// One byte per element, not packed; so are the other 2- and 4-bit types.
    Int4 = 29, "DT_INT4", "int4", "int4", 1, 0;
    Uint4 = 30, "DT_UINT4", "uint4", "uint4", 1, 0;
    Int2 = 31, "DT_INT2", "int2", "int2", 1, 0;
    Uint2 = 32, "DT_UINT2", "uint2", "uint2", 1, 0;
    Float4E2m1fn = 33, "DT_FLOAT4_E2M1FN", "float4_e2m1fn", "float4_e2m1fn", 1, 0;
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_run_from_1_to_33_and_map_back() {
        assert_eq!(DType::ALL.len(), 33);
        for (number, &dtype) in (1..).zip(DType::ALL) {
            assert_eq!(dtype as i32, number);
            assert_eq!(DType::from_number(number), Some(dtype));
        }
        for number in [-1, 0, 34, 100, 101, 127, i32::MAX] {
            assert_eq!(DType::from_number(number), None);
        }
    }

    #[test]
    fn a_swap_unit_divides_the_element() {
        for dtype in DType::ALL {
            if let (Some(size), Some(unit)) = (dtype.size(), dtype.swap_unit()) {
                assert_eq!(size % unit, 0, "{dtype}");
            }
        }
    }
}
