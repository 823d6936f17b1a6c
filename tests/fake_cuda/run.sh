#!/usr/bin/env bash
# Builds the fake CUDA driver and runs its own tests: as it is, and under AddressSanitizer and ThreadSanitizer.
#
#   tests/fake_cuda/run.sh OUT_DIR
#
# OUT_DIR/<variant>/libcuda.so is left for other tests to load; build.sh and fake_cuda.h say more. The sanitized builds are
# in OUT_DIR/address and OUT_DIR/thread. One line per run; the exit status is 1 if one of them failed.
set -euo pipefail

if [[ $# -ne 1 ]]; then
    echo "usage: $0 OUT_DIR" >&2
    exit 2
fi
source_dir=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$1"
out_dir=$(cd "$1" && pwd)
failed=0

# build_and_run DIR SANITIZER_FLAGS
build_and_run() {
    local dir=$1 extra_flags
    read -r -a extra_flags <<<"$2"
    CFLAGS="$2" "$source_dir/build.sh" "$dir" &&
        "${CC:-gcc}" -std=c11 -D_GNU_SOURCE -O1 -g -pthread -Wall -Wextra -Wpedantic -Werror \
            ${extra_flags[@]+"${extra_flags[@]}"} -o "$dir/self_test" "$source_dir"/self_test/*.c \
            "$dir/full/libcuda.so" "-Wl,-rpath,$dir/full" -ldl &&
        timeout 120 "$dir/self_test" "$dir"
}

# report NAME COMMAND...: shows what the command printed only if it failed.
report() {
    local name=$1
    shift
    if "$@" >"$out_dir/$name.log" 2>&1; then
        printf 'ok      fake CUDA driver, %s: %d tests\n' "$name" "$(grep -c '^ok ' "$out_dir/$name.log")"
    else
        printf 'FAILED  fake CUDA driver, %s\n' "$name"
        sed 's/^/        /' "$out_dir/$name.log"
        failed=1
    fi
}

report plain build_and_run "$out_dir" ""
report address build_and_run "$out_dir/address" "-fsanitize=address,undefined -fno-sanitize-recover=all"
report thread build_and_run "$out_dir/thread" "-fsanitize=thread"
exit $failed
