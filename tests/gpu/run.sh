#!/usr/bin/env bash
# Tests and measures the library on a machine with a GPU, gcc and Python 3, in one command of less than 8 minutes. No
# Rust and no network are needed: `make gpu-bundle` has built everything.
#
#   build/gpu-bundle/tests/gpu/run.sh [OUT_DIR]
#
# OUT_DIR (default gpu-out) gets two files: gpu.log, everything that was said, with a summary at its end, and bench.json,
# what was measured. The exit status is 0 if everything passed. From the environment:
#
#   TFCKPT_TEST_GPU=fake   on the fake driver of the tests instead, with a bench of a few MiB that measures nothing
#   GPU_STEPS="..."        only these steps: machine suite interop sanitizer bench
#   PYTHON, CC             python3, gcc
#   LIB_DIR, FAKE_DIR      where the library and the fake driver are (default: lib and fake of the bundle)
set -uo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
lib_dir=${LIB_DIR:-$root/lib}
fake_dir=${FAKE_DIR:-$root/fake}
if [[ ! -e $lib_dir/libtfckpt.so ]]; then
    [[ -x $root/build/gpu-bundle/tests/gpu/run.sh ]] && exec "$root/build/gpu-bundle/tests/gpu/run.sh" "$@"
    echo "there is no bundle: run \`make gpu-bundle\` where there is Rust" >&2
    exit 2
fi
lib_dir=$(cd "$lib_dir" && pwd)
mode=${TFCKPT_TEST_GPU:-real}
steps=${GPU_STEPS:-machine suite interop sanitizer bench}
python=${PYTHON:-python3}
mkdir -p "${1:-gpu-out}"
out_dir=$(cd "${1:-gpu-out}" && pwd)
log=$out_dir/gpu.log
scratch=$(mktemp -d "${TMPDIR:-/tmp}/tfckpt-gpu.XXXXXX")
trap 'rm -rf "$scratch"' EXIT
limit=470 # seconds for everything on a GPU, where the programs run once
suite=120
started=$SECONDS
summary=()
status=0

export TFCKPT_TEST_GPU=$mode TFCKPT_TEST_ROOT=$root TFCKPT_FAKE_CUDA=$fake_dir
export PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 RUST_BACKTRACE=1
preload=()
if [[ $mode == fake ]]; then
    limit=1800 suite=1200 # with every failure of every call
    fake_dir=$(cd "$fake_dir" && pwd) || exit 2
    preload=(env "LD_PRELOAD=$fake_dir/full/libcuda.so")
fi

say() { printf '%s\n' "$@" | tee -a "$log"; }
wants() { [[ " $steps " == *" $1 "* ]]; }

# step NAME SECONDS COMMAND...: runs it, for at most so long and no longer than there is time for all, and notes what
# came of it. A command that exits with 77 was skipped.
step() {
    local name=$1 most=$2 left code word begun=$SECONDS
    shift 2
    left=$((limit - (SECONDS - started)))
    if ((left < 5)); then
        summary+=("FAILED   $name: no time was left")
        status=1
        return
    fi
    ((most > left)) && most=$left
    say "" "== $name"
    timeout -k 5 "$most" "$@" 2>&1 </dev/null | tee -a "$log"
    code=${PIPESTATUS[0]}
    case $code in
    0) word="passed  " ;;
    77) word="skipped " ;;
    124 | 137) word="FAILED  " name+=" (not done after $most s)" status=1 ;;
    *) word="FAILED  " name+=" (exit status $code)" status=1 ;;
    esac
    summary+=("$word $name, $((SECONDS - begun)) s")
}

describe_machine() {
    uname -srm
    nproc
    free -g 2>/dev/null
    df -h "$scratch" | tail -n 1
    if command -v nvidia-smi >/dev/null; then
        nvidia-smi
        nvidia-smi --query-gpu=index,name,driver_version,pcie.link.gen.current,pcie.link.gen.max,pcie.link.width.current,clocks.sm,clocks.mem \
            --format=csv
        nvidia-smi topo -m
    fi
    ls -l /dev/nvidia* 2>/dev/null
    ldconfig -p 2>/dev/null | grep -i 'libcuda\.' || echo "libcuda is not in the linker's cache"
    "${CC:-gcc}" --version | head -n 1
    "$python" - <<'END'
import importlib.metadata, sys
print("Python", sys.version.split()[0])
for name in ("numpy", "ml_dtypes", "torch", "cupy-cuda13x", "jax", "safetensors", "fastsafetensors", "runai-model-streamer"):
    try:
        print(" ", name, importlib.metadata.version(name))
    except importlib.metadata.PackageNotFoundError:
        print(" ", name, "is missing")
END
}

# The programs of tests/cuda, compiled here.
run_c_programs() {
    local real=()
    [[ -x $root/tests/cuda/run.sh ]] || { echo "this bundle has no C programs"; return 77; }
    [[ $mode == real ]] && real=(real)
    "$root/tests/cuda/run.sh" "$root/include" "$lib_dir" "$scratch/cuda" "${real[@]}"
}

# The Rust programs, one after the other; their tests take turns anyhow.
run_rust_programs() {
    local program code=0 found=0
    for program in "$root"/bin/cuda_*; do
        [[ -x $program ]] || continue
        found=1
        echo "-- ${program##*/}"
        (cd "$root" && "$program" --test-threads=1) || code=1
    done
    ((found)) || { echo "this bundle has no Rust programs"; return 77; }
    return $code
}

# Each C program of the bundle under compute-sanitizer's memcheck. What only the driver can be blamed for is in the log.
run_sanitizer() {
    local program name code=0 found=0 tool
    tool=$(command -v compute-sanitizer || ls -d /usr/local/cuda*/bin/compute-sanitizer 2>/dev/null | tail -n 1)
    [[ -n $tool && $mode == real ]] || { echo "there is no compute-sanitizer, or no GPU"; return 77; }
    for program in "$root"/bin/c/*; do
        name=${program##*/}
        [[ -x $program && $name != cuda_unavailable ]] || continue
        found=1
        mkdir -p "$scratch/sanitizer/$name"
        # Programs give errors to the driver on purpose; only those of memory count.
        if timeout -k 5 45 "$tool" --tool memcheck --report-api-errors no --error-exitcode 99 --target-processes all \
            "$program" "$scratch/sanitizer/$name" >"$scratch/sanitizer/$name.log" 2>&1; then
            echo "ok      $name"
        else
            echo "FAILED  $name (exit status $?)"
            sed 's/^/        /' "$scratch/sanitizer/$name.log"
            code=1
        fi
    done
    ((found)) || { echo "this bundle has no C programs"; return 77; }
    return $code
}

run_interop() {
    # The fake driver's copies take a while, so that what comes too early or too late is seen.
    FAKECUDA_DELAY_US=200 "${preload[@]}" "$python" "$root/tests/gpu/interop.py" --lib "$lib_dir/libtfckpt.so"
}

run_bench() {
    local size=(--minutes 3)
    [[ $mode == fake ]] && size=(--tiny)
    "${preload[@]}" "$python" "$root/benches/gpu/bench.py" --lib "$lib_dir/libtfckpt.so" "${size[@]}" \
        --dir "$scratch/bench" --build-dir "$scratch/bench" --out "$out_dir/bench.json"
}

: >"$log"
export -f describe_machine run_c_programs run_rust_programs run_sanitizer run_interop run_bench
export root lib_dir mode python scratch out_dir
say "driver: $mode"
for entry in "machine 30 describe_machine" "suite:C $suite run_c_programs" "suite:Rust 90 run_rust_programs" \
    "interop 150 run_interop" "bench 240 run_bench" "sanitizer 90 run_sanitizer"; do
    read -r name most function <<<"$entry"
    wants "${name%%:*}" && step "$name" "$most" bash -c "$(declare -p preload); $function"
done

say "" "== Summary ($((SECONDS - started)) s)" "${summary[@]}"
exit $status
