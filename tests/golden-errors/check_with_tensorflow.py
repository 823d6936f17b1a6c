"""Records what TensorFlow does with each malformed checkpoint.

    python check_with_tensorflow.py

writes tensorflow.json: case → what `load_checkpoint` says when it lists (`list`) and when it gets the
case's key (`get`), and what RestoreV2 says of that key (`restore`). Each runs in a child process,
since some cases kill it. Also compares the values of the accepted cases with those in cases.json.
"""

from __future__ import annotations

import json
import os
import re
import resource
import select
import signal
import time
from pathlib import Path
from typing import Any, Callable

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")

import numpy as np  # noqa: E402
import tensorflow as tf  # noqa: E402

HERE = Path(__file__).resolve().parent
TIMEOUT_S = 60
# Enough for TensorFlow, too little for what the bad files ask for.
ADDRESS_SPACE = 40 << 30


def error_text(error: BaseException) -> str:
    """Canonical code, or Python's class where TensorFlow's reader hides it, and the first line."""
    text = (str(error).splitlines() or [""])[0]
    # A random word that keeps programs from parsing the text of messages.
    text = re.sub(r"goo\.gle/debug\w+\s+", "", text)
    text = text.split("device:CPU:0}} ", 1)[-1].replace(" [Op:RestoreV2]", "").strip()
    if isinstance(error, tf.errors.OpError):
        codes = {getattr(tf.errors, name): name for name in dir(tf.errors) if name.isupper()}
        name = codes.get(error.error_code, str(error.error_code))
    else:
        name = type(error).__name__
    return f"{name}: {text[:160]}"


def listing(case: dict[str, Any]) -> str:
    reader = tf.train.load_checkpoint("m")
    shapes = reader.get_variable_to_shape_map()
    return "ok: " + " ".join(sorted(shapes)).encode("unicode_escape").decode()


def getting(case: dict[str, Any]) -> str:
    value = np.ravel(tf.train.load_checkpoint("m").get_tensor(case.get("key", "t")))
    return compared([text.hex() for text in value.tolist()] if value.dtype == object else value.tobytes().hex(), case)


def restoring(case: dict[str, Any]) -> str:
    (tensor,) = tf.raw_ops.RestoreV2(prefix="m", tensor_names=[case.get("key", "t")], shape_and_slices=[""],
                                     dtypes=[tf.as_dtype(case.get("dtype", 1))])
    if tensor.dtype == tf.string:
        found: Any = [value.hex() for value in np.ravel(tensor.numpy()).tolist()]
    else:
        found = tf.reshape(tensor, [-1]).numpy().tobytes().hex()
    return compared(found, case)


def compared(found: Any, case: dict[str, Any]) -> str:
    """`accepts`, with the value where it is not the expected one."""
    wanted = case.get("hex", case.get("strings_hex"))
    return "accepts" if found == wanted else f"accepts, value {found}"


def in_child(work: Callable[[dict[str, Any]], str], case: dict[str, Any]) -> str:
    """What `work` returns or raises, or how the child died."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(read)
        quiet = os.open(os.devnull, os.O_WRONLY)
        os.dup2(quiet, 1)
        os.dup2(quiet, 2)
        resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        os.chdir(HERE / case["case"])
        try:
            answer = work(case)
        except BaseException as error:  # noqa: BLE001 - whatever TensorFlow says is what we record
            answer = error_text(error)
        os.write(write, answer.encode()[:4000])
        os._exit(0)
    os.close(write)
    return outcome(child, read)


def outcome(child: int, pipe: int) -> str:
    ready, _, _ = select.select([pipe], [], [], TIMEOUT_S)
    answer = os.read(pipe, 4096).decode(errors="replace") if ready else ""
    os.close(pipe)
    if not ready:
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    if not ready:
        return f"hangs for more than {TIMEOUT_S} s"
    if os.WIFSIGNALED(status):
        return {signal.SIGABRT: "aborts", signal.SIGSEGV: "crashes (SIGSEGV)"}.get(
            os.WTERMSIG(status), f"dies of signal {os.WTERMSIG(status)}")
    return answer


def main() -> None:
    cases = json.loads((HERE / "cases.json").read_text())
    started = time.monotonic()
    record = {}
    for case in cases:
        record[case["case"]] = {
            "list": in_child(listing, case),
            "get": in_child(getting, case),
            "restore": in_child(restoring, case),
        }
    rows = [f"{json.dumps(name)}: {json.dumps(found)}" for name, found in record.items()]
    (HERE / "tensorflow.json").write_text("{\n" + ",\n".join(rows) + "\n}\n")
    print(f"{len(cases)} cases with TensorFlow {tf.__version__} in {time.monotonic() - started:.0f} s")
    wrong = [case["case"] for case in cases
             if case["where"] == "accepted" and record[case["case"]]["restore"] != "accepts"]
    print("accepted here, not by TensorFlow:", wrong)


if __name__ == "__main__":
    main()
