//! Versions
//!
//! The major version changes when a program that was compiled against an older header could stop
//! working, the minor one when something is added. Structs grow at their end only; a program tells
//! the size it knows in `struct_size`, so an old program works with a newer library.

use std::ffi::c_char;

/// Major version of the header.
pub const TFCKPT_VERSION_MAJOR: u32 = 0;
/// Minor version of the header.
pub const TFCKPT_VERSION_MINOR: u32 = 1;
/// Patch version of the header.
pub const TFCKPT_VERSION_PATCH: u32 = 0;
/// Version of the header as one number: major * 10000 + minor * 100 + patch.
pub const TFCKPT_VERSION_NUMBER: u32 = 100;

// header:
// /** Version of the header as text. */
// #define TFCKPT_VERSION_STRING "@VERSION@"

/// Version of the library that is running, as TFCKPT_VERSION_NUMBER.
#[unsafe(no_mangle)]
pub extern "C" fn tfckpt_version() -> u32 {
    TFCKPT_VERSION_NUMBER
}

/// Version of the library that is running, such as "0.1.0". Static.
#[unsafe(no_mangle)]
pub extern "C" fn tfckpt_version_string() -> *const c_char {
    concat!(env!("CARGO_PKG_VERSION"), "\0").as_ptr().cast()
}

const _: () = assert!(
    TFCKPT_VERSION_NUMBER
        == TFCKPT_VERSION_MAJOR * 10_000 + TFCKPT_VERSION_MINOR * 100 + TFCKPT_VERSION_PATCH
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_has_the_version_of_the_crate() {
        let version =
            format!("{TFCKPT_VERSION_MAJOR}.{TFCKPT_VERSION_MINOR}.{TFCKPT_VERSION_PATCH}");
        assert_eq!(version, env!("CARGO_PKG_VERSION"));
    }
}
