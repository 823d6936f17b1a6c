//! Gives the shared library its SONAME, `libtfckpt.so.<major>`.
//!
//! What it exports needs no help: rustc hides everything but `#[no_mangle]` items with a linker
//! script of its own, next to which linkers take no second one. That these are the library's alone
//! is checked by `tests/abi/run.sh`.

use std::env;

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    let major = env::var("CARGO_PKG_VERSION_MAJOR").unwrap_or_default();
    println!("cargo:rustc-cdylib-link-arg=-Wl,-soname,libtfckpt.so.{major}");
}
