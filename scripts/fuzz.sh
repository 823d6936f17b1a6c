#!/bin/sh
# Fuzzes one of the targets of tests/fuzz with libFuzzer and AddressSanitizer.
#
#   scripts/fuzz.sh TARGET SECONDS [OUT_DIR]
#
# New inputs go to OUT_DIR/corpus/TARGET (default build/fuzz); what crashes, to OUT_DIR/TARGET-crash-*.
# To keep an input, copy it to tests/fuzz/corpus/TARGET: cargo test runs it from then on.
set -eu
cd "$(dirname "$0")/.."
if [ $# -lt 2 ]; then
    echo "usage: scripts/fuzz.sh index|v1|sidecar|checkpoint_state|slice_spec|object_graph SECONDS [OUT_DIR]" >&2
    exit 2
fi
target=$1 seconds=$2 out=${3:-build/fuzz}
triple=$(rustc -vV | sed -n 's/^host: //p')
mkdir -p "$out/corpus/$target"

# What cargo-fuzz passes. Only -Zsanitizer needs the bootstrap switch; the product is never built with it.
RUSTC_BOOTSTRAP=1 \
RUSTFLAGS="-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
-Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
-Cllvm-args=-sanitizer-coverage-trace-compares -Ccodegen-units=1 -Zsanitizer=address --cfg fuzzing" \
CARGO_TARGET_DIR="$out/target" \
    cargo build --release --locked --manifest-path tests/fuzz/Cargo.toml --target "$triple" --bin "$target"

exec "$out/target/$triple/release/$target" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=1024 \
    -artifact_prefix="$out/$target-" "$out/corpus/$target" "tests/fuzz/corpus/$target"
