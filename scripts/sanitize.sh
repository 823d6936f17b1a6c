#!/usr/bin/env bash
# Runs the library's Rust tests and the C tests under AddressSanitizer with its leak check, and the C code under
# UndefinedBehaviorSanitizer too. The run-times come with stable Rust; RUSTC_BOOTSTRAP only unlocks the flag.
#
#   scripts/sanitize.sh BUILD_DIR
set -euo pipefail

mkdir -p "$1"
build_dir=$(cd "$1" && pwd)
host=$(rustc -vV | sed -n 's/^host: //p')
export RUSTC_BOOTSTRAP=1 RUSTFLAGS=-Zsanitizer=address CARGO_TARGET_DIR=$build_dir/target
# Finds memory that is used after the function that owned it returned.
export ASAN_OPTIONS=detect_stack_use_after_return=1

# With --target, build scripts and macros are left as they are.
echo "== Rust tests"
cargo test --locked --lib --test cuda_device --target "$host"

echo "== C tests"
cargo build --locked --lib --target "$host"
lib_dir=$build_dir/target/$host/debug
soname=$(readelf -d "$lib_dir/libtfckpt.so" | sed -n 's/.*(SONAME).*\[\(.*\)\]/\1/p')
ln -sf libtfckpt.so "$lib_dir/$soname"
# Proof that the library is instrumented.
nm -D "$lib_dir/libtfckpt.so" | grep __asan_init
unset RUSTFLAGS
CFLAGS="-fsanitize=address,undefined -fno-sanitize-recover=all" tests/c/run.sh include "$lib_dir" "$build_dir/c"
CFLAGS="-fsanitize=address,undefined -fno-sanitize-recover=all" tests/cuda/run.sh include "$lib_dir" "$build_dir/cuda"
for program in "$build_dir"/c/*/structs "$build_dir"/cuda/*/save; do
    nm "$program" | grep __asan_init >/dev/null || { echo "$program is not instrumented" >&2; exit 1; }
done
