#!/usr/bin/env bash
# Compiles every program of this folder as C99 and as C++17, with gcc and with clang where there is one, and runs it.
#
#   tests/c/run.sh INCLUDE_DIR LIB_DIR BUILD_DIR
#
# INCLUDE_DIR has tfckpt.h, LIB_DIR has libtfckpt.so; programs, their output and their scratch files go to BUILD_DIR.
# CFLAGS from the environment is added to every compilation (-fsanitize=address, say). One line per program; the exit
# status is 1 if one of them failed.
set -euo pipefail

if [[ $# -ne 3 ]]; then
    echo "usage: $0 INCLUDE_DIR LIB_DIR BUILD_DIR" >&2
    exit 2
fi
source_dir=$(cd "$(dirname "$0")" && pwd)
include_dir=$(cd "$1" && pwd)
lib_dir=$(cd "$2" && pwd)
rm -rf "$3/scratch" # what failed programs left behind
mkdir -p "$3/scratch" "$3/lib"
build_dir=$(cd "$3" && pwd)
# Programs look for the library by its SONAME, which `make install` gives it and the build folder does not.
soname=$(readelf -d "$lib_dir/libtfckpt.so" | sed -n 's/.*(SONAME).*\[\(.*\)\].*/\1/p')
ln -sf "$lib_dir/libtfckpt.so" "$build_dir/lib/${soname:-libtfckpt.so}"
read -r -a extra_flags <<<"${CFLAGS:-}"
warnings=(-Wall -Wextra -Wpedantic -Werror)
libraries=("-L$lib_dir" "-Wl,-rpath,$build_dir/lib" -ltfckpt -lpthread)
passed=0
failed=0

# report NAME COMMAND...: runs the command and counts; shows what it printed only if it failed.
report() {
    local name=$1 log
    shift
    log="$build_dir/${name//[ +]/_}.log"
    if "$@" >"$log" 2>&1; then
        printf 'ok      %s\n' "$name"
        passed=$((passed + 1))
    else
        printf 'FAILED  %s\n' "$name"
        sed 's/^/        /' "$log"
        failed=$((failed + 1))
    fi
}

# compile LANGUAGE COMPILER ARGUMENTS...: the language is c99 or c++17.
compile() {
    local language=$1 compiler=$2
    shift 2
    local flags=(-std="$language")
    if [[ $language == c++* ]]; then
        flags=(-x c++ -std="$language")
    fi
    "$compiler" "${flags[@]}" -O1 -g "${warnings[@]}" ${extra_flags[@]+"${extra_flags[@]}"} "-I$include_dir" "$@"
}

# build_and_run LANGUAGE COMPILER PROGRAM SOURCES...
build_and_run() {
    local language=$1 compiler=$2 program=$3
    shift 3
    # -x none: what follows the sources is for the linker.
    compile "$language" "$compiler" -o "$program" "$@" -x none "${libraries[@]}" && "$program" "$build_dir/scratch"
}

for compiler in gcc clang; do
    command -v "$compiler" >/dev/null || continue
    for language in c99 c++17; do
        driver=$compiler
        if [[ $language == c++17 ]]; then
            driver=${compiler/gcc/g++}
            driver=${driver/clang/clang++}
        fi
        out_dir="$build_dir/$compiler-$language"
        mkdir -p "$out_dir"
        for source in "$source_dir"/*.c; do
            name=$(basename "$source" .c)
            case $name in
            header_second_unit) continue ;;
            header_alone) report "$name ($compiler $language)" \
                compile "$language" "$driver" -c -o "$out_dir/$name.o" "$source" ;;
            header_twice) report "$name ($compiler $language)" \
                build_and_run "$language" "$driver" "$out_dir/$name" "$source" "$source_dir/header_second_unit.c" ;;
            *) report "$name ($compiler $language)" build_and_run "$language" "$driver" "$out_dir/$name" "$source" ;;
            esac
        done
    done
done

echo "$passed passed, $failed failed"
[[ $failed -eq 0 && $passed -gt 0 ]]
