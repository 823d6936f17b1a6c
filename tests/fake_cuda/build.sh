#!/usr/bin/env bash
# Builds the fake CUDA driver: OUT_DIR/<variant>/libcuda.so, and libcuda.so.1 beside it, for each variant.
#
#   tests/fake_cuda/build.sh OUT_DIR
#
# CC (gcc) compiles; CFLAGS is added to every command (-fsanitize=thread, say). If CUDA_INCLUDE names a folder with
# NVIDIA's cuda.h, the functions are compared with its declarations first. fake_cuda.h says what the variants are.
set -euo pipefail

if [[ $# -ne 1 ]]; then
    echo "usage: $0 OUT_DIR" >&2
    exit 2
fi
source_dir=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$1"
out_dir=$(cd "$1" && pwd)
read -r -a extra_flags <<<"${CFLAGS:-}"
compiler=("${CC:-gcc}" -std=c11 -D_GNU_SOURCE -O1 -g -fPIC -fvisibility=hidden -pthread -Wall -Wextra -Wpedantic -Werror
    ${extra_flags[@]+"${extra_flags[@]}"})

sources=("$source_dir"/*.c)

if [[ -n ${CUDA_INCLUDE:-} ]]; then
    # NVIDIA's header names all the symbols that a driver exports only for NVIDIA's own build.
    "${compiler[@]}" -fsyntax-only -DFAKECUDA_CHECK_CUDA_H -D__CUDA_API_VERSION_INTERNAL -isystem "$CUDA_INCLUDE" \
        "${sources[@]}"
    echo "declarations as in $CUDA_INCLUDE/cuda.h"
fi

# link VARIANT SYMBOLS...: all objects, without the symbols.
link() {
    local variant=$1 symbol hidden=""
    shift
    for symbol in "$@"; do
        hidden+="$symbol; "
    done
    mkdir -p "$out_dir/$variant"
    echo "{ global: *; ${hidden:+local: $hidden} };" >"$out_dir/objects/$variant.map"
    # nodelete: a program that looks whether the library is there closes it again, which must not end it.
    "${compiler[@]}" -shared -Wl,-soname,libcuda.so -Wl,-z,nodelete -Wl,--version-script="$out_dir/objects/$variant.map" \
        -o "$out_dir/$variant/libcuda.so" "$out_dir"/objects/*.o
    ln -sf libcuda.so "$out_dir/$variant/libcuda.so.1"
}

rm -rf "$out_dir/objects"
mkdir -p "$out_dir/objects"
(cd "$out_dir/objects" && "${compiler[@]}" -c "${sources[@]}")
link full
link batch-12.8 cuMemcpyBatchAsync_v2
link no-batch cuMemcpyBatchAsync cuMemcpyBatchAsync_v2
link missing-required cuMemcpyHtoDAsync_v2
