"""The `checkpoint` file and what hangs on it: read, resolved, listed and removed as TensorFlow does."""

from __future__ import annotations

import os
import pathlib

import numpy as np
import pytest
import tensorflow as tf

import tensorflow_side
import tfckpt
from tensorflow_side import v1
from tfckpt import CheckpointError, State
from values import tensor

VALUE = {"x": tensor(1, (2,))}

ACCEPTED = {
    "plain": 'model_checkpoint_path: "m-9"\nall_model_checkpoint_paths: "m-8"\n'
    'all_model_checkpoint_paths: "m-9"\n',
    "single-quotes": "model_checkpoint_path: 'm-9'",
    "concatenated": 'model_checkpoint_path: "m-" "9"\nall_model_checkpoint_paths: \'a\' "b"\n  "c"',
    "comments": '# first\nmodel_checkpoint_path: "m-9" # last "x"\n#',
    "semicolons": 'model_checkpoint_path: "m-9"; all_model_checkpoint_paths: "a";',
    "commas": 'model_checkpoint_path: "m-9", all_model_checkpoint_paths: "a",',
    "crlf": 'model_checkpoint_path: "m-9"\r\nall_model_checkpoint_paths: "m-9"\r\n',
    "no-final-newline": 'model_checkpoint_path: "m-9"',
    "no-space": 'model_checkpoint_path:"m-9"all_model_checkpoint_paths:"a"',
    "space-before-colon": 'model_checkpoint_path : "m-9"',
    "tabs": '\tmodel_checkpoint_path\t:\t"m-9"\t',
    "list": 'model_checkpoint_path: "m-9"\nall_model_checkpoint_paths: ["a", "b"]',
    "empty-list": 'model_checkpoint_path: "m-9"\nall_model_checkpoint_paths: []',
    "escapes": r'model_checkpoint_path: "a\n\t\"\'\\\101\x41\u00e9\r"',
    "octal-utf-8": r'model_checkpoint_path: "\303\251"',
    "short-octal": r'model_checkpoint_path: "\1\12z"',
    "hex": r'model_checkpoint_path: "\x4\x41g"',
    "bell": r'model_checkpoint_path: "\a\b\f\v\?"',
    "long-unicode": r'model_checkpoint_path: "\U0001f600"',
    "unknown-escape": r'model_checkpoint_path: "\q"',
    "twice": 'model_checkpoint_path: "m-8"\nmodel_checkpoint_path: "m-9"',
    "raw-utf-8": 'model_checkpoint_path: "zwölf/日本"',
    "times": 'model_checkpoint_path: "m"\nall_model_checkpoint_timestamps: 1.5\n'
    "all_model_checkpoint_timestamps: 1e3\nall_model_checkpoint_timestamps: .5\n"
    "all_model_checkpoint_timestamps: 5.\nall_model_checkpoint_timestamps: -2\n"
    "all_model_checkpoint_timestamps: 1.5f\nall_model_checkpoint_timestamps: 1E-3\n"
    "last_preserved_timestamp: 3",
    "infinities": 'model_checkpoint_path: "m"\nall_model_checkpoint_timestamps: inf\n'
    "all_model_checkpoint_timestamps: -inf\nall_model_checkpoint_timestamps: infinity\n"
    "all_model_checkpoint_timestamps: 1e400\nlast_preserved_timestamp: inf",
    "odd-numbers": 'model_checkpoint_path: "m"\nall_model_checkpoint_timestamps: [+1, 1_0, 0]',
    "absolute": 'model_checkpoint_path: "/a/b/m-1"\nall_model_checkpoint_paths: "/a/m"',
    "parents": 'model_checkpoint_path: "../o/./m"\nall_model_checkpoint_paths: "d//m"',
}

REJECTED = {
    "unknown-field": 'model_checkpoint_path: "m"\nmodel: "x"',
    "number": '1: "m"',
    "extension": 'model_checkpoint_path: "m"\n[a.b]: "x"',
    "no-colon": 'model_checkpoint_path "m"',
    "unquoted": "model_checkpoint_path: m-9",
    "raw-newline": 'model_checkpoint_path: "m\n9"',
    "byte-order-mark": '\ufeffmodel_checkpoint_path: "m"',
    "bad-utf-8-escape": r'model_checkpoint_path: "\377"',
    "open-string": 'model_checkpoint_path: "m',
    "mixed-quotes": "model_checkpoint_path: \"m'",
    "two-semicolons": 'model_checkpoint_path: "m";;',
    "singular-list": 'model_checkpoint_path: ["m"]',
    "trailing-comma-in-list": 'model_checkpoint_path: "m"\nall_model_checkpoint_paths: ["a",]',
    "octal-too-large": r'model_checkpoint_path: "\777"',
    "surrogate": r'model_checkpoint_path: "\ud800"',
    "octal-number": 'model_checkpoint_path: "m"\nlast_preserved_timestamp: 010',
    "hex-number": 'model_checkpoint_path: "m"\nlast_preserved_timestamp: 0x10',
    "string-for-number": 'model_checkpoint_path: "m"\nlast_preserved_timestamp: "1"',
    "number-for-string": "model_checkpoint_path: 5",
    "garbage": "\x01\x02\x03",
    "index": "\x00\x00\x06\x08\x01\x1a\x02\x08\x01",
    "brace": 'model_checkpoint_path { "m" }',
}


def written(folder: pathlib.Path, text: str | bytes) -> str:
    """Writes a state file; returns the folder."""
    data = text if isinstance(text, bytes) else text.encode()
    (folder / "checkpoint").write_bytes(data)
    return str(folder)


def their_state(folder: str) -> State | None:
    """TensorFlow's reading, or None where it refuses the file."""
    state = tf.train.get_checkpoint_state(folder)
    if state is None:
        return None
    return State(
        state.model_checkpoint_path,
        list(state.all_model_checkpoint_paths),
        list(state.all_model_checkpoint_timestamps),
        state.last_preserved_timestamp,
    )


@pytest.mark.parametrize("text", ACCEPTED.values(), ids=ACCEPTED.keys())
def test_what_tensorflow_accepts_is_read_the_same(text: str, tmp_path: pathlib.Path) -> None:
    folder = written(tmp_path, text)
    theirs = their_state(folder)
    assert theirs is not None
    assert tfckpt.get_checkpoint_state(folder) == theirs


@pytest.mark.parametrize("text", REJECTED.values(), ids=REJECTED.keys())
def test_what_tensorflow_rejects_is_data_loss(text: str, tmp_path: pathlib.Path) -> None:
    folder = written(tmp_path, text)
    assert their_state(folder) is None
    for call in (tfckpt.get_checkpoint_state, tfckpt.latest_checkpoint):
        with pytest.raises(CheckpointError) as failure:
            call(folder)
        assert failure.value.code_name == "DATA_LOSS"
        assert failure.value.file == f"{folder}/checkpoint"


def test_raw_bytes_that_are_no_utf_8_are_data_loss(tmp_path: pathlib.Path) -> None:
    folder = written(tmp_path, b'model_checkpoint_path: "\xff"')
    with pytest.raises(UnicodeDecodeError):
        tf.train.get_checkpoint_state(folder)
    with pytest.raises(CheckpointError) as failure:
        tfckpt.get_checkpoint_state(folder)
    assert failure.value.code_name == "DATA_LOSS"


@pytest.mark.parametrize(
    "text", ["", "\n", "# nothing", 'all_model_checkpoint_paths: "m"', 'model_checkpoint_path: ""']
)
def test_a_state_without_a_path_gets_tensorflows_text(text: str, tmp_path: pathlib.Path) -> None:
    folder = written(tmp_path, text)
    with pytest.raises(ValueError) as theirs:
        tf.train.get_checkpoint_state(folder)
    with pytest.raises(CheckpointError) as ours:
        tfckpt.get_checkpoint_state(folder)
    assert ours.value.code_name == "INVALID_ARGUMENT"
    assert ours.value.message.startswith(str(theirs.value))


@pytest.mark.parametrize("name", ["", "no/such/folder"])
def test_no_state_file_is_not_found(name: str, tmp_path: pathlib.Path) -> None:
    folder = str(tmp_path / name)
    assert tf.train.get_checkpoint_state(folder) is None
    for call in (tfckpt.get_checkpoint_state, tfckpt.latest_checkpoint):
        with pytest.raises(CheckpointError) as failure:
            call(folder)
        assert failure.value.code_name == "NOT_FOUND"


@pytest.mark.parametrize("directory", ["d", "./d", "d/", "{}/d", "{}/d/", "{}/./d"])
@pytest.mark.parametrize("path", ["m-1", "../d/m-1", "./m-1", "{}/d/m-1"])
def test_paths_are_resolved_as_tensorflow_resolves_them(
    directory: str, path: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    directory, path = directory.format(tmp_path), path.format(tmp_path)
    (tmp_path / "d").mkdir()
    tensorflow_side.save("d/m-1", VALUE)
    written(tmp_path / "d", f'model_checkpoint_path: "{path}"\nall_model_checkpoint_paths: "{path}"\n')
    assert tfckpt.get_checkpoint_state(directory) == their_state(directory)
    latest = tfckpt.latest_checkpoint(directory)
    assert latest == tf.train.latest_checkpoint(directory)
    assert len(tfckpt.restore_all(latest)) == 1


def test_an_incomplete_latest_checkpoint_is_data_loss_and_an_older_one_the_fall_back(
    tmp_path: pathlib.Path,
) -> None:
    folder = str(tmp_path)
    for step in (1, 2, 3):
        tfckpt.save(f"{folder}/m", VALUE, global_step=step, update_state=1)
    (tmp_path / "m-3.index").unlink()
    assert tf.train.latest_checkpoint(folder) is None
    with pytest.raises(CheckpointError) as failure:
        tfckpt.latest_checkpoint(folder)
    assert failure.value.code_name == "DATA_LOSS"
    assert f"{folder}/m-3" in failure.value.message
    (tmp_path / "m-2.data-00000-of-00001").write_bytes(b"")
    prefix, reason = tfckpt.latest_checkpoint_and_reason(folder, fall_back=True)
    assert prefix == f"{folder}/m-1"
    assert reason


def test_a_state_file_of_another_name(tmp_path: pathlib.Path) -> None:
    folder = str(tmp_path)
    tensorflow_side.save(f"{folder}/m-1", VALUE)
    tensorflow_side.update_checkpoint_state(folder, f"{folder}/m-1", latest_filename="best")
    assert tfckpt.latest_checkpoint(folder, "best") == tf.train.latest_checkpoint(folder, "best")
    assert tfckpt.get_checkpoint_state(folder, "best").model_checkpoint_path == f"{folder}/m-1"


@pytest.mark.parametrize(
    "name", ["m", "m-1", "m-2", "none", "m-1.index", "no/such", "sub/m", "m-1.data-00000-of-00001"]
)
def test_checkpoint_exists_says_what_tensorflow_says(name: str, tmp_path: pathlib.Path) -> None:
    for prefix in ("m-1", "m-2", "sub/m"):
        tensorflow_side.save(str(tmp_path / prefix), VALUE)
    prefix = str(tmp_path / name)
    assert tfckpt.checkpoint_exists(prefix) == v1.train.checkpoint_exists(prefix)


def test_mtimes_are_whole_seconds_of_those_that_exist(tmp_path: pathlib.Path) -> None:
    prefixes = [str(tmp_path / name) for name in ("m-1", "none", "m-2", "no/such", "m-3")]
    for i, prefix in enumerate(prefixes[::2]):
        tensorflow_side.save(prefix, VALUE)
        os.utime(prefix + ".index", (1.7e9 + i + 0.75, 1.7e9 + 100 * i + 0.75))
    theirs = v1.train.get_checkpoint_mtimes(prefixes)
    assert tfckpt.get_checkpoint_mtimes(prefixes) == theirs == [1.7e9, 1.7e9 + 100, 1.7e9 + 200]


REMOVED = ["m-1", "m-1-00000-of-00002", "run-1-of-3", "none"]
SUFFIXES = [
    ".index", ".data-00000-of-00001", ".data-00001-of-00002", ".data-0-of-1", ".index.bak", ".meta", ".graph",
    "", ".data-00000-of-00001.tempstate12", "0.index",
]  # fmt: skip


@pytest.mark.parametrize("suffix", [None, "graph"])
@pytest.mark.parametrize("name", REMOVED)
def test_removing_a_checkpoint_leaves_what_tensorflow_leaves(
    name: str, suffix: str | None, tmp_path: pathlib.Path
) -> None:
    left = []
    for side in ("ours", "theirs"):
        (tmp_path / side).mkdir()
        for stem in ("m-1", "m-1-00000-of-00002", "run-1-of-3", "m", "run"):
            for end in SUFFIXES:
                (tmp_path / side / (stem + end)).write_bytes(b"")
        prefix = str(tmp_path / side / name)
        if side == "ours":
            tfckpt.remove_checkpoint(prefix, suffix)
        else:
            v1.train.remove_checkpoint(prefix, meta_graph_suffix=suffix or "meta")
        left.append(sorted(file.name for file in (tmp_path / side).iterdir()))
    assert left[0] == left[1]


def test_a_removed_checkpoint_is_gone(prefix: str) -> None:
    tfckpt.save(prefix, {"a": np.float32([1]), "b": np.float32([2])}, max_shard_size=4)
    tfckpt.remove_checkpoint(prefix)
    assert list(pathlib.Path(prefix).parent.iterdir()) == []
    assert not tfckpt.checkpoint_exists(prefix)
