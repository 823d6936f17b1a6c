#!/usr/bin/env bash
# The CUDA suite: builds the fake driver and every program of this folder, as C99 and as C++17, and runs them on each
# variant of the fake, with several seeds and delays.
#
#   tests/cuda/run.sh INCLUDE_DIR LIB_DIR BUILD_DIR [first | real]
#
# With `first` they are compiled as C99 and run on the first variant alone, with a share of the failures. With `real` they are
# compiled as C99 and run once, on the machine's own driver and devices.
#
# INCLUDE_DIR has tfckpt.h, LIB_DIR has libtfckpt.so; programs, their output and their scratch files go to BUILD_DIR. From
# the environment: CC (gcc) and CXX (g++), CFLAGS, added to every compilation (-fsanitize=address, say), and RUN_SECONDS,
# the most that a run may take (300; 30 on a real driver). One line per run as it ends; the exit status is 1 if one of them
# failed. When it is told to stop, it ends the runs that go on and prints what they have said.
set -euo pipefail

if [[ $# -lt 3 || $# -gt 4 || ! ${4:-fake} =~ ^(fake|first|real)$ ]]; then
    echo "usage: $0 INCLUDE_DIR LIB_DIR BUILD_DIR [first | real]" >&2
    exit 2
fi
mode=${4:-fake}
case $mode in
real) run_seconds=${RUN_SECONDS:-30} warnings=() ;; # whatever compiler that machine has
*) run_seconds=${RUN_SECONDS:-300} warnings=(-Werror) ;;
esac
source_dir=$(cd "$(dirname "$0")" && pwd)
include_dir=$(cd "$1" && pwd)
lib_dir=$(cd "$2" && pwd)
rm -rf "$3/scratch" "$3/logs" # what an earlier run left behind
mkdir -p "$3/scratch" "$3/logs" "$3/lib"
build_dir=$(cd "$3" && pwd)
# Programs look for the library by its SONAME, which `make install` gives it and the build folder does not.
soname=$(readelf -d "$lib_dir/libtfckpt.so" | sed -n 's/.*(SONAME).*\[\(.*\)\].*/\1/p')
ln -sf "$lib_dir/libtfckpt.so" "$build_dir/lib/${soname:-libtfckpt.so}"
read -r -a extra_flags <<<"${CFLAGS:-}"
fake_dir="$build_dir/fake"
unset "${!FAKECUDA_@}" # each run has its own

# ---- Programs ----

# compile LANGUAGE SOURCE
compile() {
    local language=$1 source=$2 compiler=("${CC:-gcc}" -std=c99) program
    [[ $language == c99 ]] || compiler=("${CXX:-g++}" -x c++ -std=c++17)
    program="$build_dir/$language/$(basename "$source" .c)"
    mkdir -p "$build_dir/$language"
    "${compiler[@]}" -O1 -g -Wall -Wextra -Wpedantic ${warnings[@]+"${warnings[@]}"} \
        ${extra_flags[@]+"${extra_flags[@]}"} "-I$include_dir" -o "$program" "$source" -x none "-L$lib_dir" "-Wl,-rpath,$build_dir/lib" -ltfckpt -lpthread -ldl
}

languages=(c99)
if [[ $mode == fake ]]; then
    languages+=(c++17)
fi
if [[ $mode != real ]]; then
    "$source_dir/../fake_cuda/build.sh" "$fake_dir"
fi
num_jobs=$(nproc)
for language in "${languages[@]}"; do
    for source in "$source_dir"/*.c; do
        while (($(jobs -rp | wc -l) >= num_jobs)); do wait -n || true; done
        compile "$language" "$source" || touch "$build_dir/logs/does-not-compile" &
    done
done
wait
[[ ! -e $build_dir/logs/does-not-compile ]]

# ---- Runs ----

runs=() # each: a label, a tab, a command

# add LABEL LANGUAGE PROGRAM [VARIANT] [NAME=VALUE...] [-- ARGUMENTS...]: VARIANT is a folder of the fake, or none.
add() {
    local label=$1 program="$build_dir/$2/$3" variant=$4 command=(env)
    shift 4
    [[ $variant == none ]] || command+=("LD_LIBRARY_PATH=$fake_dir/$variant${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}")
    while [[ $# -gt 0 && $1 != -- ]]; do
        command+=("$1")
        shift
    done
    [[ $# -eq 0 ]] || shift
    runs+=("$label"$'\t'"$(printf '%q ' "${command[@]}" timeout --foreground -k 5 "$run_seconds" "$program" "$build_dir/scratch" "$@")")
}

# add_all WHAT LANGUAGE VARIANT NAME=VALUE...: every program but that which wants no driver; the longest first.
add_all() {
    local what=$1 language=$2 variant=$3 source name
    shift 3
    for source in "$source_dir"/*_faults.c "$source_dir"/budget.c "$source_dir"/*.c; do
        name=$(basename "$source" .c)
        [[ $name != cuda_unavailable && " ${seen:-} " != *" $what/$name "* ]] || continue
        seen+=" $what/$name"
        case $name in
        *_faults)
            local step=7 # a share of the failure points, and all of them once
            [[ $mode$what != fake*"seed 1"* ]] || step=1
            add "$name ($what)" "$language" "$name" "$variant" "$@" -- $step
            ;;
        *) add "$name ($what)" "$language" "$name" "$variant" "$@" ;;
        esac
    done
}

if [[ $mode == real ]]; then
    add_all "real driver" c99 none
    add "cuda_unavailable (no visible device)" c99 cuda_unavailable none CUDA_VISIBLE_DEVICES= -- "there is no device"
    num_jobs=1 # the device is one
else
    add_all "full, seed 1" c99 full FAKECUDA_DEVICES=2 FAKECUDA_SEED=1
fi
if [[ $mode == fake ]]; then
    add_all "full, seed 2, slow, C++17" c++17 full FAKECUDA_DEVICES=2 FAKECUDA_SEED=2 FAKECUDA_DELAY_US=50
    add_all "batch-12.8, seed 3" c99 batch-12.8 FAKECUDA_DEVICES=2 FAKECUDA_SEED=3 FAKECUDA_DELAY_US=5
    add_all "no-batch, seed 4, one device" c99 no-batch FAKECUDA_SEED=4 FAKECUDA_FREE_WAITS=1
    unavailable() { add "cuda_unavailable ($1)" c99 cuda_unavailable "$2" "${@:4}" -- "$3"; }
    if ! PATH="$PATH:/usr/sbin:/sbin" ldconfig -p | grep -q 'libcuda\.so'; then
        unavailable "no driver" none "there is no libcuda.so.1"
    fi
    unavailable "a toolkit's stub" full "the libcuda.so found first is the toolkit's stub" FAKECUDA_INIT_CODE=34
    unavailable "no device" full "there is no device" FAKECUDA_INIT_CODE=100
    unavailable "devices hidden" full "there is no device" FAKECUDA_DEVICES=0
    unavailable "mismatch" full "CUDA error 803" FAKECUDA_INIT_CODE=803
    unavailable "a code nobody knows" full "CUDA error 918" FAKECUDA_INIT_CODE=918
    unavailable "old driver" full "it is of CUDA 11.3 and 11.4 is the least" FAKECUDA_DRIVER_VERSION=11030
    unavailable "missing symbol" missing-required "it has no cuMemcpyHtoDAsync_v2"
fi

started=$SECONDS
passed=0
failed=0
skipped=0
next=0 # the first run that was not reported yet

# Run number i writes logs/i.log, and at its end its exit status to logs/i.status. Children that a program has left in its
# process group end with it.
run_one() {
    local status=0
    bash -c "$2" >"$build_dir/logs/$1.log" 2>&1 || status=$?
    trap '' TERM
    kill -s TERM 0
    echo "$status" >"$build_dir/logs/$1.ending"
    mv "$build_dir/logs/$1.ending" "$build_dir/logs/$1.status"
}

# report WORD RUN: its line, and what it has said if it did not pass.
report() {
    local word=$1 label=${runs[$2]%%$'\t'*} log="$build_dir/logs/$2.log" skips
    skips=$(grep -c '^skipped: ' "$log" || true)
    skipped=$((skipped + skips))
    printf '%-8s%s%s\n' "$word" "$label" "$([[ $skips == 0 ]] || echo "; $skips part(s) skipped")"
    [[ $word == ok ]] || sed 's/^/        /' "$log"
}

report_ended() {
    while [[ $next -lt ${#runs[@]} && -e $build_dir/logs/$next.status ]]; do
        local status
        status=$(cat "$build_dir/logs/$next.status")
        case $status in
        0) report ok $next && passed=$((passed + 1)) ;;
        124 | 137) report FAILED $next && failed=$((failed + 1)) && echo "        not done after $run_seconds s" ;;
        *) report FAILED $next && failed=$((failed + 1)) ;;
        esac
        next=$((next + 1))
    done
}

# Ends the runs that go on, each a process group, and says how far they came.
stop() {
    local group
    trap '' TERM INT
    for signal in TERM KILL; do
        for group in $(jobs -rp); do kill -s "$signal" -- "-$group" 2>/dev/null || true; done
        sleep 1
    done
    report_ended
    for ((i = next; i < ${#runs[@]}; i++)); do
        [[ ! -e $build_dir/logs/$i.log ]] || report STOPPED "$i"
    done
    echo "stopped after $((SECONDS - started)) s, $passed passed, $failed failed"
    exit 143
}
trap stop TERM INT

set -m # each run in a process group of its own
for i in "${!runs[@]}"; do
    while (($(jobs -rp | wc -l) >= num_jobs)); do
        wait -n || true
        report_ended
    done
    run_one "$i" "${runs[i]#*$'\t'}" &
done
while (($(jobs -rp | wc -l) > 0)); do
    wait -n || true
    report_ended
done
report_ended
set +m
grep -h '^on ' "$build_dir"/logs/*.log | sort | uniq -c | sed 's/^ *\([0-9]*\) /\1 runs /'
echo "$passed passed, $failed failed, $skipped parts skipped, in $((SECONDS - started)) s"
[[ $failed -eq 0 && $passed -gt 0 ]]
