#!/usr/bin/env bash
# The demo: a training run that is killed resumes from its latest checkpoint and ends with the same bits as a run that
# never was; then a checkpoint that TensorFlow wrote is listed and restored.
#
#   demo/run.sh BUILD_DIR FIXTURE_PREFIX
#
# Run it from the top of the source tree, after `cargo build --release`. From the environment: CC (default cc),
# CFLAGS, INCLUDE_DIR (default include) and LIB_DIR (default target/release).
set -euo pipefail

if [[ $# -ne 2 ]]; then
    echo "usage: $0 BUILD_DIR FIXTURE_PREFIX" >&2
    exit 2
fi
build_dir=$1
fixture=$2
source_dir=$(dirname "$0")
include_dir=${INCLUDE_DIR:-include}
lib_dir=${LIB_DIR:-target/release}
steps=(--steps 600 --save-every 100)

say() { printf '\n== %s\n' "$*"; }
show() { printf '$ %s\n' "$*"; "$@"; }
fail() { printf 'demo: %s\n' "$*" >&2; exit 1; }

mkdir -p "$build_dir/lib"
rm -rf "$build_dir/uninterrupted" "$build_dir/killed"

say "Compile two C programs against libtfckpt"
# Programs look for the library by its SONAME, which `make install` gives it and the build folder does not.
rpath=$(cd "$build_dir/lib" && pwd)
library=$(cd "$lib_dir" && pwd)/libtfckpt.so
soname=$(readelf -d "$library" | sed -n 's/.*(SONAME).*\[\(.*\)\].*/\1/p')
ln -sf "$library" "$rpath/${soname:-libtfckpt.so}"
for program in train_iris read_checkpoint; do
    echo "\$ ${CC:-cc} -std=c99 -O2 -I$include_dir $source_dir/$program.c -L$lib_dir -ltfckpt -lm"
    # shellcheck disable=SC2086 # CFLAGS is a list of words
    ${CC:-cc} -std=c99 -O2 -Wall -Wextra -Wpedantic -Werror ${CFLAGS:-} "-I$include_dir" \
        -o "$build_dir/$program" "$source_dir/$program.c" "-L$lib_dir" "-Wl,-rpath,$rpath" -ltfckpt -lm
done

say "Train 600 steps without interruption, saving every 100"
show "$build_dir/train_iris" "$build_dir/uninterrupted" "${steps[@]}" | tee "$build_dir/uninterrupted.log"

say "Train again elsewhere, and be killed (SIGKILL) at step 250, between two saves"
# A shell of its own, so that bash's remark about the killed program can be kept off the screen.
status=0
bash -c '"$@"; exit $?' run "$build_dir/train_iris" "$build_dir/killed" "${steps[@]}" --die-at 250 \
    2>"$build_dir/killed.stderr" || status=$?
[[ $status -eq 137 ]] || { cat "$build_dir/killed.stderr" >&2; fail "expected death by SIGKILL, got status $status"; }
echo "the process is dead (status $status)"

say "Start it again: it finds its latest checkpoint and goes on"
show "$build_dir/train_iris" "$build_dir/killed" "${steps[@]}" | tee "$build_dir/killed.log"
grep -q "restored .*model.ckpt-200$" "$build_dir/killed.log" || fail "the second start did not resume at step 200"

say "Compare the two runs"
digest_of() { sed -n 's/^digest //p' "$1"; }
first=$(digest_of "$build_dir/uninterrupted.log")
second=$(digest_of "$build_dir/killed.log")
[[ -n $first && $first == "$second" ]] || fail "the final weights differ: $first and $second"
echo "digest of all tensors: $first, $second"
for file in model.ckpt-600.data-00000-of-00001 model.ckpt-600.index; do
    show cmp "$build_dir/uninterrupted/$file" "$build_dir/killed/$file" || fail "the last checkpoints differ in $file"
done
echo "identical"

say "List and restore a checkpoint that TensorFlow wrote"
show "$build_dir/read_checkpoint" "$fixture"
