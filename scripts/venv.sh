#!/usr/bin/env bash
# Makes a Python environment from a requirements file, once for each content of that file.
#
#   scripts/venv.sh VENV_DIR REQUIREMENTS
set -euo pipefail

venv=$1
requirements=$2
hash=$(sha256sum "$requirements" | cut -c 1-16)
stamp=$venv/stamp-$hash
if [[ -e $stamp ]]; then
    exit 0
fi
echo "making $venv from $requirements (TensorFlow is a large download)"
rm -rf "$venv"
python3 -m venv "$venv"
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check -r "$requirements"
touch "$stamp"
