"""Writes malformed checkpoints and the manifest that says what a reader must make of each.

    python make_golden_errors.py [OUT_DIR]

makes OUT_DIR/<case>/m.index and its data file for every case, and OUT_DIR/cases.json; OUT_DIR is this
folder if it is left out. Needs no TensorFlow. What TensorFlow does with each case is taken from
`tensorflow.json`, which check_with_tensorflow.py records.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import cases_bundle
import cases_data
import cases_table
from base import Case

HERE = Path(__file__).resolve().parent


def all_cases() -> list[Case]:
    cases = [*cases_table.cases(), *cases_bundle.cases(), *cases_data.cases()]
    names = [case.case for case in cases]
    assert len(set(names)) == len(names), sorted(name for name in names if names.count(name) > 1)
    return cases


def write_case(folder: Path, case: Case) -> None:
    """The files of one case, replacing those of an earlier run."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    files = dict(case.files)
    if case.index is not None:
        files["m.index"] = case.index
    if case.data is not None:
        files["m.data-00000-of-00001"] = case.data
    for name, content in files.items():
        if name.endswith("/"):
            (folder / name).mkdir()
            # Version control keeps no empty folders.
            (folder / name / "keep").write_text("This folder stands where a file should be.\n")
        else:
            (folder / name).write_bytes(content)


def manifest(cases: list[Case]) -> str:
    """cases.json: one case per line."""
    record = HERE / "tensorflow.json"
    tensorflow = json.loads(record.read_text()) if record.exists() else {}
    rows = []
    for case in cases:
        row = case.manifest()
        if case.case in tensorflow:
            row["tensorflow"] = tensorflow[case.case]
        rows.append(json.dumps(row))
    return "[\n" + ",\n".join(rows) + "\n]\n"


def main() -> None:
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else HERE
    cases = all_cases()
    for case in cases:
        write_case(folder / case.case, case)
    (folder / "cases.json").write_text(manifest(cases))
    print(f"{len(cases)} cases")


if __name__ == "__main__":
    main()
