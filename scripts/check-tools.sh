#!/usr/bin/env bash
# Checks that this machine can build and test the library. As root on Debian it installs the packages that are missing;
# otherwise it prints the one line to run, and fails.
#
#   scripts/check-tools.sh [--no-python]
set -euo pipefail

packages=()
need() {
    local package=$1
    shift
    "$@" >/dev/null 2>&1 || packages+=("$package")
}
find_missing() {
    packages=()
    need gcc command -v cc
    # The C library's headers are a package of their own.
    need libc6-dev bash -c 'echo "#include <stdio.h>" | cc -E -'
    need g++ command -v c++
    need binutils bash -c 'command -v nm && command -v readelf'
    if [[ ${1:-} != --no-python ]]; then
        need python3 command -v python3
        need python3-venv python3 -c 'import venv, ensurepip'
    fi
}

find_missing "$@"
if ((${#packages[@]})); then
    if ! command -v apt-get >/dev/null; then
        echo "This machine lacks what the Debian packages hold: ${packages[*]}" >&2
        exit 1
    fi
    if [[ $(id -u) -ne 0 ]]; then
        printf 'Some packages are missing. Run this line, then try again:\n\n' >&2
        printf '    sudo apt-get install -y %s\n\n' "${packages[*]}" >&2
        exit 1
    fi
    echo "installing ${packages[*]}"
    apt-get update -q
    DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends "${packages[@]}"
    find_missing "$@"
    if ((${#packages[@]})); then
        echo "still missing: ${packages[*]}" >&2
        exit 1
    fi
fi

# Debian's own cargo is too old; rustup's is not a package.
wanted=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
found=$(cargo --version 2>/dev/null | awk '{ print $2 }') || true
if [[ -z $found || $(printf '%s\n' "$wanted" "$found" | sort -V | head -n 1) != "$wanted" ]]; then
    echo "Rust $wanted or newer is needed, found ${found:-none}. With rustup (https://rustup.rs): rustup update stable" >&2
    exit 1
fi
if [[ ${1:-} != --no-python ]] && ! { cargo fmt --version && cargo clippy --version; } >/dev/null 2>&1; then
    echo "cargo fmt or cargo clippy is missing. Run: rustup component add rustfmt clippy" >&2
    exit 1
fi
