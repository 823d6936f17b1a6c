#!/usr/bin/env bash
# Runs the library's Rust tests and the C tests under AddressSanitizer with its leak check, and the C code under
# UndefinedBehaviorSanitizer too. The run-times come with stable Rust; RUSTC_BOOTSTRAP only unlocks the flag.
#
#   scripts/sanitize.sh BUILD_DIR [cuda]
#
# With `cuda`, only the CUDA programs run, on the fake driver's first variant.
set -euo pipefail

if [[ $# -lt 1 || $# -gt 2 || ${2:-cuda} != cuda ]]; then
    echo "usage: $0 BUILD_DIR [cuda]" >&2
    exit 2
fi
what=${2:-all}
mkdir -p "$1"
build_dir=$(cd "$1" && pwd)
host=$(rustc -vV | sed -n 's/^host: //p')
lib_dir=$build_dir/target/$host/debug
flags="-fsanitize=address,undefined -fno-sanitize-recover=all"
# Finds memory that is used after the function that owned it returned.
export ASAN_OPTIONS=detect_stack_use_after_return=1

# With --target, build scripts and macros are left as they are.
run_cargo() {
    RUSTC_BOOTSTRAP=1 RUSTFLAGS=-Zsanitizer=address CARGO_TARGET_DIR=$build_dir/target cargo "$@" --target "$host"
}

if [[ $what == all ]]; then
    echo "== Rust tests"
    run_cargo test --locked --lib --test cuda_device
fi

echo "== library"
run_cargo build --locked --lib
soname=$(readelf -d "$lib_dir/libtfckpt.so" | sed -n 's/.*(SONAME).*\[\(.*\)\]/\1/p')
ln -sf libtfckpt.so "$lib_dir/$soname"
# Proof that the library is instrumented.
nm -D "$lib_dir/libtfckpt.so" | grep __asan_init

echo "== C tests"
programs=("$build_dir"/cuda/c99/save)
if [[ $what == all ]]; then
    CFLAGS=$flags tests/c/run.sh include "$lib_dir" "$build_dir/c"
    CFLAGS=$flags tests/cuda/run.sh include "$lib_dir" "$build_dir/cuda"
    programs+=("$build_dir"/c/*/structs "$build_dir"/cuda/c++17/save)
else
    CFLAGS=$flags tests/cuda/run.sh include "$lib_dir" "$build_dir/cuda" first
fi
for program in "${programs[@]}"; do
    nm "$program" | grep __asan_init >/dev/null || { echo "$program is not instrumented" >&2; exit 1; }
done
