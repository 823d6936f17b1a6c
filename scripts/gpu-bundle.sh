#!/usr/bin/env bash
# Builds what tests/gpu/run.sh needs on a machine with a GPU but without Rust: the release library, the CUDA tests as
# programs, their sources with the header, the fake driver, the benches. No path of this machine is needed there.
#
#   scripts/gpu-bundle.sh RELEASE_DIR TARGET_DIR BUNDLE_DIR
#
# RELEASE_DIR has the library, TARGET_DIR is cargo's. Fails if the bundle takes more than 40 MiB.
set -euo pipefail

if [[ $# -ne 3 ]]; then
    echo "usage: $0 RELEASE_DIR TARGET_DIR BUNDLE_DIR" >&2
    exit 2
fi
release_dir=$1
target_dir=$2
bundle=$3
cargo=${CARGO:-cargo}
compiler=${CC:-gcc}
most=$((40 << 20))

rm -rf "$bundle"
mkdir -p "$bundle"/{lib,bin/c,include,tests,benches}

soname=$(readelf -d "$release_dir/libtfckpt.so" | sed -n 's/.*(SONAME).*\[\(.*\)\].*/\1/p')
install -m 755 "$release_dir/libtfckpt.so" "$bundle/lib/libtfckpt.so"
strip --strip-unneeded "$bundle/lib/libtfckpt.so"
ln -s libtfckpt.so "$bundle/lib/$soname"
install -m 644 include/tfckpt.h "$bundle/include/tfckpt.h"

echo "== fake driver"
tests/fake_cuda/build.sh "$bundle/fake"
rm -rf "$bundle/fake/objects"
strip --strip-unneeded "$bundle"/fake/*/libcuda.so

echo "== Rust programs"
tests=()
for source in tests/cuda*.rs tests/cuda*/main.rs; do
    [[ -e $source ]] || continue
    name=${source#tests/}
    name=${name%/main.rs}
    tests+=(--test "${name%.rs}")
done
if ((${#tests[@]})); then
    "$cargo" test --locked --profile gputest --no-run --target-dir "$target_dir" "${tests[@]}" \
        --message-format=json | python3 -c '
import json, os, re, shutil, sys
for line in sys.stdin:
    message = json.loads(line) if line.startswith("{") else {}
    if message.get("executable") and message.get("profile", {}).get("test"):
        name = re.sub("-[0-9a-f]{16}$", "", os.path.basename(message["executable"]))
        shutil.copy2(message["executable"], os.path.join(sys.argv[1], name))
        print(name)
' "$bundle/bin"
fi

echo "== C programs"
for folder in cuda c fake_cuda gpu interop; do
    [[ -d tests/$folder ]] || continue
    mkdir -p "$bundle/tests/$folder"
    find "tests/$folder" -maxdepth 1 -type f \( -name '*.[ch]' -o -name '*.sh' -o -name '*.py' -o -name '*.md' \) \
        -exec cp -p -t "$bundle/tests/$folder" {} +
done
find "$bundle/tests/interop" -type f ! -name tfckpt_abi.py ! -name tfckpt_library.py ! -name dlpack_objects.py -delete
for source in tests/cuda/*.c; do
    grep -q '\bmain(' "$source" 2>/dev/null || continue
    name=$(basename "$source" .c)
    # shellcheck disable=SC2016 # $ORIGIN is the loader's
    "$compiler" -std=c99 -O1 -s -Iinclude -o "$bundle/bin/c/$name" "$source" -L"$bundle/lib" \
        -Wl,-rpath,'$ORIGIN/../../lib' -ltfckpt -lpthread -ldl
    echo "$name"
done

cp -pr benches "$bundle/"
rm -rf "$bundle"/benches/charts "$bundle"/benches/RESULTS.md
find "$bundle" -name __pycache__ -prune -exec rm -rf {} +

size=$(du -s --apparent-size --block-size=1 "$bundle" | cut -f 1)
echo "$bundle: $((size >> 10)) KiB"
if ((size > most)); then
    echo "the bundle is larger than $((most >> 20)) MiB:" >&2
    du -a --apparent-size -k "$bundle" | sort -rn | head -n 20 >&2
    exit 1
fi
