#!/usr/bin/env bash
# Tests and measures the library on a machine with a GPU, gcc and Python 3 with NumPy, in one command of less than 8
# minutes. No Rust and no network are needed: `make gpu-bundle` has built everything.
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
#
# Each step has its share of the time, and is told when it ends: GPU_DEADLINE, in seconds since 1970. What the steps before
# leave goes to the bench, the last.
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
# Seconds for all, and for each step, with 5 more to end one that does not end by itself.
limit=475
declare -A most=([machine]=15 [suite:C]=90 [suite:Rust]=30 [interop]=90 [sanitizer]=70 [bench]=150)
end_grace=5
started=$SECONDS
summary=()
status=0

export TFCKPT_TEST_GPU=$mode TFCKPT_FAKE_CUDA=$fake_dir
export PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 RUST_BACKTRACE=1
preload=()
if [[ $mode == fake ]]; then
    most[suite:C]=1200 # with every failure of every call
    most[interop]=300 most[bench]=300
    fake_dir=$(cd "$fake_dir" && pwd) || exit 2
    preload=(env "LD_PRELOAD=$fake_dir/full/libcuda.so")
fi

say() { printf '%s\n' "$@" | tee -a "$log"; }
wants() { [[ " $steps " == *" $1 "* ]]; }

# step NAME SECONDS COMMAND...: runs it, for at most so long, and notes what came of it. A command that exits with 77 was
# skipped. The last line of its that counts what passed goes to the summary.
step() {
    local name=$1 seconds=$2 code word counts begun=$SECONDS
    shift 2
    say "" "== $name"
    : >"$scratch/step.log"
    GPU_DEADLINE=$(($(date +%s) + seconds)) timeout -k $end_grace "$seconds" "$@" 2>&1 </dev/null |
        tee -a "$log" "$scratch/step.log"
    code=${PIPESTATUS[0]}
    case $code in
    0) word="passed  " ;;
    77) word="skipped " ;;
    124 | 137) word="FAILED  " name+=" (not done after $seconds s)" status=1 ;;
    *) word="FAILED  " name+=" (exit status $code)" status=1 ;;
    esac
    counts=$(grep '^[0-9]* passed, ' "$scratch/step.log" | tail -n 1)
    summary+=("$word $name, $((SECONDS - begun)) s${counts:+: $counts}")
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
    "$root/tests/cuda/run.sh" "$root/include" "$lib_dir" "$scratch/cuda" ${real[@]+"${real[@]}"}
}

# The Rust programs, one after the other; their tests take turns anyhow. They say which driver they found.
run_rust_programs() {
    local program code=0 output=$scratch/rust.log
    : >"$output"
    for program in "$root"/bin/cuda_*; do
        [[ -x $program ]] || continue
        echo "-- ${program##*/}"
        (cd "$root" && "$program" --test-threads=1 --nocapture 2>&1) | tee -a "$output"
        ((PIPESTATUS[0] == 0)) || code=1
    done
    [[ -s $output ]] || { echo "this bundle has no Rust programs"; return 77; }
    echo "$(grep -c '^test .*ok$\|^ok$' "$output") passed, $(grep -c 'skipped: ' "$output") of them skipped"
    return $code
}

# C programs of the bundle under compute-sanitizer's memcheck, as many as there is time for. What only the driver can be
# blamed for is in the log.
run_sanitizer() {
    local name program passed=0 failed=0 left_out=() seen=" " tool seconds code
    tool=$(command -v compute-sanitizer || ls -d /usr/local/cuda*/bin/compute-sanitizer 2>/dev/null | tail -n 1)
    [[ -n $tool && $mode == real ]] || { echo "there is no compute-sanitizer, or no GPU"; return 77; }
    [[ -d $root/bin/c ]] || { echo "this bundle has no C programs"; return 77; }
    # Those first that copy in all ways; those that need the fake driver not at all.
    for name in restore save device_snapshot dlpack restore_slices restore_async save_async streams $(ls "$root/bin/c"); do
        program=$root/bin/c/$name
        case $seen$name in *" $name "*$name | *_faults | *destroyed_streams | *cuda_unavailable) continue ;; esac
        [[ -x $program ]] || continue
        seen+="$name "
        seconds=$((GPU_DEADLINE - $(date +%s) - 3))
        code=124
        if ((seconds >= 5)); then
            mkdir -p "$scratch/sanitizer/$name"
            # Programs give errors to the driver on purpose; only those of memory count.
            timeout --foreground -k 2 "$((seconds < 30 ? seconds : 30))" "$tool" --tool memcheck --report-api-errors no \
                --error-exitcode 99 --target-processes all "$program" "$scratch/sanitizer/$name" \
                >"$scratch/sanitizer/$name.log" 2>&1
            code=$?
        fi
        if ((code == 0)); then
            echo "ok      $name"
            passed=$((passed + 1))
        elif ((code == 124 && seconds < 30)); then
            left_out+=("$name")
        else
            echo "FAILED  $name (exit status $code)"
            sed 's/^/        /' "$scratch/sanitizer/$name.log"
            failed=$((failed + 1))
        fi
    done
    ((${#left_out[@]} == 0)) || echo "left out for want of time: ${left_out[*]}"
    echo "$passed passed, $failed failed, ${#left_out[@]} left out"
    ((failed == 0 && passed > 0))
}

run_interop() {
    # The fake driver's copies take a while, so that what comes too early or too late is seen.
    FAKECUDA_DELAY_US=200 "${preload[@]}" "$python" "$root/tests/gpu/interop.py" --lib "$lib_dir/libtfckpt.so"
}

run_bench() {
    local size=()
    [[ $mode == fake ]] && size=(--tiny)
    "${preload[@]}" "$python" "$root/benches/gpu/bench.py" --lib "$lib_dir/libtfckpt.so" ${size[@]+"${size[@]}"} \
        --dir "$scratch/bench" --build-dir "$scratch/bench" --out "$out_dir/bench.json"
}

: >"$log"
export -f describe_machine run_c_programs run_rust_programs run_sanitizer run_interop run_bench
export root lib_dir mode python scratch out_dir
say "driver: $mode"
for entry in "machine describe_machine" "suite:C run_c_programs" "suite:Rust run_rust_programs" "interop run_interop" \
    "sanitizer run_sanitizer" "bench run_bench"; do
    read -r name function <<<"$entry"
    seconds=${most[$name]}
    # What the others have left of their time.
    [[ $name == bench ]] && ((limit - end_grace - (SECONDS - started) > seconds)) && seconds=$((limit - end_grace - (SECONDS - started)))
    wants "${name%%:*}" && step "$name" "$seconds" bash -c "$(declare -p preload); $function"
done

say "" "== Summary ($((SECONDS - started)) s)" "${summary[@]}"
exit $status
