"""A thin ctypes binding to libtfckpt for the interop tests.

It exists to drive the C header from Python, call by call, and to be read beside it; it is not the
Python binding that users get. The structures are in `tfckpt_abi.py`. A call that fails raises
`CheckpointError`.

A tensor to save is an ndarray, or a `Part` when it also has a slice spec or a device; a tensor to
restore is a `Request`. Arrays of strings have dtype `object` and elements of type `bytes`.
Quantized types are structured dtypes of one field, as TensorFlow's own `as_numpy_dtype` has them.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from ctypes import (
    POINTER,
    byref,
    c_char_p,
    c_double,
    c_int32,
    c_int64,
    c_size_t,
    c_uint64,
    c_void_p,
    sizeof,
)
from dataclasses import dataclass
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

from tfckpt_abi import (
    SIGNATURES,
    CLatestOptions,
    CMergeOptions,
    CProgress,
    CRemoveOptions,
    CRestoreOptions,
    CSaveable,
    CSaveOptions,
    CSaverOptions,
    CSaverSaveOptions,
    CStats,
    CString,
    CTensor,
    CUpdateOptions,
    CVerifyOptions,
    DamageFn,
    FinishFn,
    ProgressFn,
    SaveableFn,
)

CODES = {
    0: "OK", 1: "CANCELLED", 2: "UNKNOWN", 3: "INVALID_ARGUMENT", 5: "NOT_FOUND",
    6: "ALREADY_EXISTS", 7: "PERMISSION_DENIED", 8: "RESOURCE_EXHAUSTED",
    9: "FAILED_PRECONDITION", 10: "ABORTED", 11: "OUT_OF_RANGE", 12: "UNIMPLEMENTED",
    13: "INTERNAL", 14: "UNAVAILABLE", 15: "DATA_LOSS",
}  # fmt: skip

STRING, RESOURCE, VARIANT = 7, 20, 21


def _quantized(name: str, kind: type) -> np.dtype:
    return np.dtype([(name, kind)])


DTYPES: dict[int, np.dtype] = {
    1: np.dtype(np.float32),
    2: np.dtype(np.float64),
    3: np.dtype(np.int32),
    4: np.dtype(np.uint8),
    5: np.dtype(np.int16),
    6: np.dtype(np.int8),
    STRING: np.dtype(object),
    8: np.dtype(np.complex64),
    9: np.dtype(np.int64),
    10: np.dtype(np.bool_),
    11: _quantized("qint8", np.int8),
    12: _quantized("quint8", np.uint8),
    13: _quantized("qint32", np.int32),
    14: np.dtype(ml_dtypes.bfloat16),
    15: _quantized("qint16", np.int16),
    16: _quantized("quint16", np.uint16),
    17: np.dtype(np.uint16),
    18: np.dtype(np.complex128),
    19: np.dtype(np.float16),
    22: np.dtype(np.uint32),
    23: np.dtype(np.uint64),
    24: np.dtype(ml_dtypes.float8_e5m2),
    25: np.dtype(ml_dtypes.float8_e4m3fn),
    26: np.dtype(ml_dtypes.float8_e4m3fnuz),
    27: np.dtype(ml_dtypes.float8_e4m3b11fnuz),
    28: np.dtype(ml_dtypes.float8_e5m2fnuz),
    29: np.dtype(ml_dtypes.int4),
    30: np.dtype(ml_dtypes.uint4),
    31: np.dtype(ml_dtypes.int2),
    32: np.dtype(ml_dtypes.uint2),
    33: np.dtype(ml_dtypes.float4_e2m1fn),
}
_NUMBERS = {dtype: number for number, dtype in DTYPES.items()}


def dtype_number(dtype: np.dtype) -> int:
    """TensorFlow's number of a NumPy dtype."""
    return _NUMBERS[np.dtype(dtype)]


# ---- what callers hand in and get back ----


@dataclass(frozen=True)
class Part:
    """A tensor to save with more than its values: a slice spec, a device, its variable's name."""

    data: np.ndarray
    slice_spec: str = ""
    device_name: str | None = None
    variable_name: str | None = None


@dataclass(frozen=True)
class Request:
    """A tensor, or with a slice spec a part of one, to restore."""

    key: bytes | str
    dtype: np.dtype
    shape: tuple[int, ...]
    slice_spec: str = ""
    device_name: str | None = None


@dataclass(frozen=True)
class Entry:
    """What the index says about one tensor."""

    key: bytes
    code: int
    message: str | None
    dtype: int
    shape: tuple[int, ...]
    size: int
    shard_id: int
    offset: int
    crc32c: int
    slices: tuple[str, ...]

    def request(self) -> Request:
        """The request for the whole tensor."""
        return Request(self.key, DTYPES[self.dtype], self.shape)


@dataclass(frozen=True)
class State:
    """The parsed `checkpoint` file."""

    model_checkpoint_path: str
    all_model_checkpoint_paths: list[str]
    all_model_checkpoint_timestamps: list[float]
    last_preserved_timestamp: float


class CheckpointError(Exception):
    """A call into the library that did not return OK."""

    def __init__(
        self, code: int, message: str, tensor_index: int, key: bytes | None, file: str | None, offset: int
    ) -> None:
        super().__init__(f"{CODES.get(code, code)}: {message}")
        self.code = code
        self.message = message
        self.tensor_index = tensor_index
        self.key = key
        self.file = file
        self.offset = offset

    @property
    def code_name(self) -> str:
        """The code as TensorFlow spells it, such as `DATA_LOSS`."""
        return CODES[self.code]


Tensors = Mapping[Any, "np.ndarray | Part"] | Sequence[tuple[Any, "np.ndarray | Part"]]

# ---- loading ----

_functions: dict[str, Any] = {}


def load(path: str) -> str:
    """Loads the library and returns its version."""
    library = ctypes.CDLL(path)
    for name, (result, arguments) in SIGNATURES.items():
        function = getattr(library, f"tfckpt_{name}")
        function.restype, function.argtypes = result, arguments
        _functions[name] = function
    return _functions["version_string"]().decode()


def _call(name: str, *arguments: Any) -> None:
    """Calls a function whose last argument is `tfckpt_error **error_out`; raises what it sets."""
    error = c_void_p()
    code = _functions[name](*arguments, byref(error))
    if code == 0:
        assert not error.value, f"{name} returned OK and an error"
        return
    assert error.value, f"{name} returned {code} without an error"
    try:
        failure = _error(error)
        assert failure.code == code, f"{name} returned {code}, its error says {failure.code}"
    finally:
        _functions["error_free"](error)
    raise failure


def _error(error: c_void_p) -> CheckpointError:
    """A copy of a `tfckpt_error`."""
    file = _functions["error_file"](error)
    return CheckpointError(
        _functions["error_code"](error),
        _text(_functions["error_message"](error)),
        _functions["error_tensor_index"](error),
        _sized(_functions["error_key"], error),
        None if file is None else _text(file),
        _functions["error_offset"](error),
    )


def _text(data: bytes) -> str:
    """Text from the library, which promises UTF-8."""
    return data.decode("utf-8")


def _sized(getter: Callable[..., int | None], *arguments: Any) -> bytes | None:
    """The bytes behind a getter of the form `f(…, size_t *size_out)`."""
    size = c_size_t()
    data = getter(*arguments, byref(size))
    return None if data is None else ctypes.string_at(data, size.value)


def _bytes(text: bytes | str) -> bytes:
    return text if isinstance(text, bytes) else text.encode()


def dtype_name(number: int) -> str | None:
    """The library's name of a dtype number, such as `float32`."""
    name = _functions["dtype_name"](number)
    return None if name is None else _text(name)


def dtype_size(number: int) -> int:
    """The library's bytes per element of a dtype number."""
    return _functions["dtype_size"](number)


def new_stats() -> CStats:
    """An empty `tfckpt_stats` to pass as the option `stats`."""
    return CStats(struct_size=sizeof(CStats))


# ---- descriptions of tensors ----


def _describe(
    tensor: CTensor, key: bytes, dtype: int, shape: tuple[int, ...], spec: str, device: str | None
) -> list[Any]:
    """Fills all but data and size; returns what must live as long as the struct."""
    dims = (c_int64 * max(len(shape), 1))(*shape)
    tensor.struct_size = sizeof(CTensor)
    tensor.key, tensor.key_size = key, len(key)
    tensor.dtype, tensor.rank = dtype, len(shape)
    tensor.shape = ctypes.cast(dims, POINTER(c_int64)) if shape else None
    tensor.slice_spec = spec.encode() if spec else None
    tensor.device_name = None if device is None else device.encode()
    return [dims, key]


def _saved_strings(data: np.ndarray) -> ctypes.Array:
    """The elements of an object array as an array of `tfckpt_string`."""
    strings = (CString * max(data.size, 1))()
    for string, element in zip(strings, data.reshape(-1)):
        string.data, string.size = element, len(element)
    return strings


def _describe_saved(tensor: CTensor, key: bytes, value: np.ndarray | Part) -> list[Any]:
    part = value if isinstance(value, Part) else Part(value)
    data = np.asarray(part.data, order="C")
    number = dtype_number(data.dtype)
    kept = _describe(tensor, key, number, data.shape, part.slice_spec, part.device_name)
    tensor.variable_name = None if part.variable_name is None else part.variable_name.encode()
    if number == STRING:
        strings = _saved_strings(data)
        tensor.data = ctypes.cast(strings, c_void_p)
        tensor.size = data.size * sizeof(CString)
        return [*kept, data, strings]
    tensor.data, tensor.size = data.ctypes.data, data.nbytes
    return [*kept, data]


def _describe_request(tensor: CTensor, request: Request) -> list[Any]:
    number, key = dtype_number(request.dtype), _bytes(request.key)
    return _describe(tensor, key, number, request.shape, request.slice_spec, request.device_name)


class _Destination:
    """Memory for one request: an array, or the cell that receives a `tfckpt_strings *`."""

    def __init__(self, tensor: CTensor, request: Request) -> None:
        number = dtype_number(request.dtype)
        self.request = request
        self.kept = _describe_request(tensor, request)
        self.cell = c_void_p() if number == STRING else None
        if self.cell is not None:
            tensor.data, tensor.size = ctypes.addressof(self.cell), sizeof(c_void_p)
            return
        self.array = np.empty(request.shape, request.dtype)
        # A byte that the library leaves alone must not look right by chance.
        ctypes.memset(self.array.ctypes.data, 0xA5, self.array.nbytes)
        tensor.data, tensor.size = self.array.ctypes.data, self.array.nbytes

    def value(self) -> np.ndarray:
        """The restored tensor."""
        if self.cell is None:
            return self.array
        assert self.cell.value, "a string tensor was restored without its strings"
        num = _functions["strings_num"](self.cell)
        assert num == int(np.prod(self.request.shape, dtype=object)), "wrong number of strings"
        flat = np.empty(num, object)
        for i in range(num):
            flat[i] = _sized(_functions["strings_get"], self.cell, i)
        return flat.reshape(self.request.shape)

    def free(self) -> None:
        """Frees the strings, if any."""
        if self.cell is not None:
            _functions["strings_free"](self.cell)


def _pairs(tensors: Tensors) -> list[tuple[bytes, np.ndarray | Part]]:
    items = tensors.items() if isinstance(tensors, Mapping) else tensors
    return [(_bytes(key), value) for key, value in items]


# ---- simple calls ----


def save(
    prefix: str,
    tensors: Tensors,
    *,
    global_step: int | None = None,
    no_sync: bool = True,
    progress: Callable[[CProgress], int] | None = None,
    stats: CStats | None = None,
    **options: int,
) -> str:
    """`tfckpt_save`: the tensors in their order; returns the prefix that was written.

    The other options are fields of `tfckpt_save_options`. Nothing is synced unless asked for:
    these tests do not survive a power cut anyway.
    """
    pairs = _pairs(tensors)
    array = (CTensor * max(len(pairs), 1))()
    kept = [_describe_saved(tensor, key, value) for tensor, (key, value) in zip(array, pairs)]
    c_options = CSaveOptions(struct_size=sizeof(CSaveOptions), no_sync=no_sync, **options)
    if global_step is not None:
        c_options.global_step = ctypes.pointer(c_int64(global_step))
    if progress is not None:
        c_options.progress = ProgressFn(lambda report, _: progress(report.contents))
    if stats is not None:
        c_options.stats = ctypes.pointer(stats)
    saved = c_void_p()
    _call("save", prefix.encode(), array, len(pairs), byref(c_options), byref(saved))
    del kept
    return _taken_string(saved)


class Job:
    """`tfckpt_job`: a save in the background."""

    def __init__(self, call: str, *arguments: Any) -> None:
        self._job = c_void_p()
        _call(call, *arguments, byref(self._job))

    def __del__(self) -> None:
        if self._job.value:
            _functions["job_free"](self._job)

    def wait(self) -> str | None:
        """`tfckpt_job_wait` without a limit; returns the prefix that was written."""
        _call("job_wait", self._job, -1)
        prefix = _functions["job_prefix"](self._job)
        return None if prefix is None else _text(prefix)


def save_async(prefix: str, tensors: Tensors, **options: int) -> Job:
    """`tfckpt_save_async`, of tensors that may change when it returns."""
    pairs = _pairs(tensors)
    array = (CTensor * max(len(pairs), 1))()
    kept = [_describe_saved(tensor, key, value) for tensor, (key, value) in zip(array, pairs)]
    c_options = CSaveOptions(struct_size=sizeof(CSaveOptions), **{"no_sync": 1, **options})
    job = Job("save_async", prefix.encode(), array, len(pairs), byref(c_options))
    del kept
    return job


def save_shard(
    prefix: str, shard: int, num_shards: int, tensors: Tensors, save_id: str | None = None, **options: int
) -> str:
    """`tfckpt_save_shard`: returns the prefix of the part."""
    pairs = _pairs(tensors)
    array = (CTensor * max(len(pairs), 1))()
    kept = [_describe_saved(tensor, key, value) for tensor, (key, value) in zip(array, pairs)]
    c_options = CSaveOptions(struct_size=sizeof(CSaveOptions), **{"no_sync": 1, **options})
    saved = c_void_p()
    arguments = (prefix.encode(), shard, num_shards, None if save_id is None else save_id.encode())
    _call("save_shard", *arguments, array, len(pairs), byref(c_options), byref(saved))
    del kept
    return _taken_string(saved)


def merge(parts: Sequence[str], prefix: str, **options: int) -> None:
    """`tfckpt_merge`; the options are fields of `tfckpt_merge_options`."""
    array = (c_char_p * max(len(parts), 1))(*[part.encode() for part in parts])
    c_options = CMergeOptions(struct_size=sizeof(CMergeOptions), **{"no_sync": 1, **options})
    _call("merge", array, len(parts), prefix.encode(), byref(c_options))


def _taken_string(string: c_void_p) -> str:
    """Copies and frees a string that the caller owns."""
    try:
        return _text(ctypes.string_at(string.value))
    finally:
        _functions["string_free"](string)


def restore(prefix: str, requests: Iterable[Request], **options: Any) -> list[np.ndarray]:
    """`tfckpt_restore`: all requests or an error."""
    return _restore("restore", prefix.encode(), list(requests), **options)


def restore_each(
    prefix: str, requests: Iterable[Request], **options: Any
) -> list[tuple[int, np.ndarray | None]]:
    """`tfckpt_restore` with `codes_out`: a code per request, and the tensor where it is OK."""
    return _restore_each("restore", prefix.encode(), list(requests), **options)


def restore_all(prefix: str) -> dict[bytes, np.ndarray]:
    """Every tensor that the index lists."""
    with Reader(prefix) as reader:
        requests = [entry.request() for entry in reader.entries()]
        return dict(zip([_bytes(r.key) for r in requests], reader.restore(requests)))


def _destinations(requests: list[Request]) -> tuple[ctypes.Array, list[_Destination]]:
    array = (CTensor * max(len(requests), 1))()
    return array, [_Destination(tensor, request) for tensor, request in zip(array, requests)]


def _restore_options(verify: int = 0, stats: CStats | None = None, **options: int) -> CRestoreOptions:
    c_options = CRestoreOptions(struct_size=sizeof(CRestoreOptions), verify=verify, **options)
    if stats is not None:
        c_options.stats = ctypes.pointer(stats)
    return c_options


def _restore(name: str, source: Any, requests: list[Request], **options: Any) -> list[np.ndarray]:
    array, destinations = _destinations(requests)
    c_options = _restore_options(**options)
    try:
        _call(name, source, array, len(requests), byref(c_options), None)
        return [destination.value() for destination in destinations]
    finally:
        for destination in destinations:
            destination.free()


def _restore_each(
    name: str, source: Any, requests: list[Request], **options: Any
) -> list[tuple[int, np.ndarray | None]]:
    array, destinations = _destinations(requests)
    codes = (c_int32 * max(len(requests), 1))(*([-1] * len(requests)))
    c_options = _restore_options(**options)
    try:
        try:
            _call(name, source, array, len(requests), byref(c_options), codes)
        except CheckpointError as error:
            if all(code in (-1, 0) for code in codes):
                raise  # the call failed as a whole, before any tensor
            assert error.code in list(codes)
        return [
            (code, destination.value() if code == 0 else None)
            for code, destination in zip(codes, destinations)
        ]
    finally:
        for destination in destinations:
            destination.free()


# ---- reader ----


class Reader:
    """`tfckpt_reader`, to be used in a `with` statement."""

    def __init__(self, prefix: str) -> None:
        self._reader = c_void_p()
        _call("reader_open", prefix.encode(), None, byref(self._reader))

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, *_: Any) -> None:
        _functions["reader_free"](self._reader)
        self._reader = c_void_p()

    @property
    def prefix(self) -> str:
        """The prefix that was opened."""
        return _text(_functions["reader_prefix"](self._reader))

    @property
    def num_shards(self) -> int:
        """What the header entry says."""
        return _functions["reader_num_shards"](self._reader)

    def num_tensors(self) -> int:
        """How many tensors the index lists."""
        num = c_size_t()
        _call("reader_num_tensors", self._reader, byref(num))
        return num.value

    def entries(self) -> Iterator[Entry]:
        """The entries in key order; a damaged index raises at the end."""
        iteration, entry = c_void_p(), c_void_p()
        _call("reader_entries", self._reader, byref(iteration))
        try:
            while True:
                _call("entries_next", iteration, byref(entry))
                if not entry.value:
                    return
                yield _entry(entry)
        finally:
            _functions["entries_free"](iteration)

    def debug_string(self) -> bytes:
        """`tfckpt_reader_debug_string`."""
        string = c_void_p()
        _call("reader_debug_string", self._reader, byref(string))
        try:
            return ctypes.string_at(string.value)
        finally:
            _functions["string_free"](string)

    def object_graph(self) -> ObjectGraph:
        """`tfckpt_reader_object_graph`; outlives the reader."""
        graph = c_void_p()
        _call("reader_object_graph", self._reader, byref(graph))
        return ObjectGraph(graph)

    def find(self, key: bytes | str) -> Entry:
        """The entry of one tensor."""
        key, entry = _bytes(key), c_void_p()
        _call("reader_find", self._reader, key, len(key), byref(entry))
        try:
            return _entry(entry)
        finally:
            _functions["entry_free"](entry)

    def restore(self, requests: Iterable[Request], **options: Any) -> list[np.ndarray]:
        """All requests or an error."""
        return _restore("reader_restore", self._reader, list(requests), **options)

    def restore_each(
        self, requests: Iterable[Request], **options: Any
    ) -> list[tuple[int, np.ndarray | None]]:
        """A code per request, and the tensor where it is OK."""
        return _restore_each("reader_restore", self._reader, list(requests), **options)

    def view(self, key: bytes | str, flags: int = 0) -> bytes:
        """A copy of the bytes that a view shows."""
        key, view = _bytes(key), c_void_p()
        _call("reader_view", self._reader, key, len(key), flags, byref(view))
        try:
            size = _functions["view_size"](view)
            return ctypes.string_at(_functions["view_data"](view), size) if size else b""
        finally:
            _functions["view_free"](view)

    def verify(self) -> list[CheckpointError]:
        """Every damage that `tfckpt_reader_verify` reports; empty when the checkpoint is sound."""
        damages: list[CheckpointError] = []
        damage = DamageFn(lambda error, _: damages.append(_error(c_void_p(error))))
        options = CVerifyOptions(struct_size=sizeof(CVerifyOptions), damage=damage)
        num = c_uint64()
        try:
            _call("reader_verify", self._reader, byref(options), byref(num))
            assert not damages, "verify returned OK and damages"
        except CheckpointError as error:
            assert num.value == len(damages), (num.value, damages, error)
            assert damages and damages[0].code == error.code, (damages, error)
        return damages


def _entry(entry: c_void_p) -> Entry:
    get = lambda name, *rest: _functions[f"entry_{name}"](entry, *rest)  # noqa: E731
    message, shape = get("message"), get("shape")
    key = _sized(_functions["entry_key"], entry)
    assert key is not None
    return Entry(
        key=key,
        code=get("code"),
        message=None if message is None else _text(message),
        dtype=get("dtype"),
        shape=tuple(shape[i] for i in range(get("rank"))),
        size=get("size"),
        shard_id=get("shard_id"),
        offset=get("offset"),
        crc32c=get("crc32c"),
        slices=tuple(_text(get("slice", i)) for i in range(get("num_slices"))),
    )


class ObjectTensor(NamedTuple):
    """What an object graph says of a tensor; `path` is None if nothing leads there."""

    path: str | None
    attribute: str
    full_name: str
    key: str


class ObjectGraph:
    """`tfckpt_object_graph`."""

    def __init__(self, graph: c_void_p) -> None:
        self._graph = graph

    def __del__(self) -> None:
        _functions["object_graph_free"](self._graph)

    def tensors(self) -> list[ObjectTensor]:
        """All tensors in order."""
        num = _functions["object_graph_num_tensors"](self._graph)
        for name in ("key", "full_name", "attribute"):
            assert _sized(_functions[f"object_graph_{name}"], self._graph, num) is None
        return [self._tensor(i) for i in range(num)]

    def _tensor(self, i: int) -> ObjectTensor:
        get = lambda name: _sized(_functions[f"object_graph_{name}"], self._graph, i).decode()  # noqa: E731
        path = c_void_p()
        try:
            _call("object_graph_path", self._graph, i, byref(path))
        except CheckpointError as error:
            assert error.code_name == "NOT_FOUND", error
        text = _taken_string(path) if path.value else None
        return ObjectTensor(text, get("attribute"), get("full_name"), get("key"))

    def key_of_name(self, name: bytes | str) -> str | None:
        """The key of the variable of this full name."""
        return self._key("object_graph_key_of_name", _bytes(name))

    def key_of_path(self, path: bytes | str) -> str | None:
        """The key of the variable at this path."""
        return self._key("object_graph_key_of_path", _bytes(path))

    def _key(self, function: str, wanted: bytes) -> str | None:
        key = _sized(_functions[function], self._graph, wanted, len(wanted))
        return None if key is None else key.decode()


# ---- checkpoint state ----


def latest_checkpoint(
    directory: str, latest_filename: str | None = None, *, fall_back: bool = False, rebase: bool = False
) -> str:
    """`tfckpt_latest_checkpoint`."""
    return latest_checkpoint_and_reason(directory, latest_filename, fall_back=fall_back, rebase=rebase)[0]


def latest_checkpoint_and_reason(
    directory: str, latest_filename: str | None = None, *, fall_back: bool = False, rebase: bool = False
) -> tuple[str, str | None]:
    """`tfckpt_latest_checkpoint`, and why an older one was taken if it was."""
    options = CLatestOptions(struct_size=sizeof(CLatestOptions), fall_back=fall_back, rebase=rebase)
    options.latest_filename = None if latest_filename is None else latest_filename.encode()
    prefix = c_void_p()
    _call("latest_checkpoint", directory.encode(), byref(options), byref(prefix))
    reason = _taken_string(c_void_p(options.reason)) if options.reason else None
    assert bool(options.fell_back) == (reason is not None)
    return _taken_string(prefix), reason


def get_checkpoint_state(directory: str, latest_filename: str | None = None) -> State:
    """`tfckpt_get_checkpoint_state`."""
    state = c_void_p()
    name = None if latest_filename is None else latest_filename.encode()
    _call("get_checkpoint_state", directory.encode(), name, byref(state))
    get = lambda what, *rest: _functions[f"checkpoint_state_{what}"](state, *rest)  # noqa: E731
    try:
        return State(
            _text(get("model_checkpoint_path")),
            [_text(get("path", i)) for i in range(get("num_paths"))],
            [get("timestamp", i) for i in range(get("num_timestamps"))],
            get("last_preserved_timestamp"),
        )
    finally:
        _functions["checkpoint_state_free"](state)


def update_checkpoint_state(
    save_dir: str,
    model_checkpoint_path: str,
    all_model_checkpoint_paths: Sequence[str] | None = None,
    latest_filename: str | None = None,
    all_model_checkpoint_timestamps: Sequence[float] | None = None,
    last_preserved_timestamp: float | None = None,
    *,
    save_relative_paths: bool = False,
) -> None:
    """`tfckpt_update_checkpoint_state`."""
    options = CUpdateOptions(struct_size=sizeof(CUpdateOptions), no_sync=1)
    options.save_relative_paths = save_relative_paths
    if all_model_checkpoint_paths is not None:
        paths = [path.encode() for path in all_model_checkpoint_paths]
        options.all_model_checkpoint_paths = (c_char_p * max(len(paths), 1))(*paths)
        options.num_paths = len(paths)
    if all_model_checkpoint_timestamps is not None:
        times = list(all_model_checkpoint_timestamps)
        options.all_model_checkpoint_timestamps = (c_double * max(len(times), 1))(*times)
        options.num_timestamps = len(times)
    if last_preserved_timestamp is not None:
        options.last_preserved_timestamp = ctypes.pointer(c_double(last_preserved_timestamp))
    options.latest_filename = None if latest_filename is None else latest_filename.encode()
    _call("update_checkpoint_state", save_dir.encode(), model_checkpoint_path.encode(), byref(options))


def checkpoint_exists(prefix: str) -> bool:
    """`tfckpt_checkpoint_exists`."""
    exists = c_int32()
    _call("checkpoint_exists", prefix.encode(), byref(exists))
    return bool(exists.value)


def get_checkpoint_mtimes(prefixes: Sequence[str]) -> list[float]:
    """`tfckpt_get_checkpoint_mtimes`."""
    names = (c_char_p * max(len(prefixes), 1))(*[prefix.encode() for prefix in prefixes])
    mtimes, num = (c_double * max(len(prefixes), 1))(), c_size_t()
    _call("get_checkpoint_mtimes", names, len(prefixes), mtimes, byref(num))
    return list(mtimes[: num.value])


def remove_checkpoint(prefix: str, meta_graph_suffix: str | None = None) -> None:
    """`tfckpt_remove_checkpoint` of a V2 checkpoint."""
    options = CRemoveOptions(struct_size=sizeof(CRemoveOptions), no_sync=1)
    options.meta_graph_suffix = None if meta_graph_suffix is None else meta_graph_suffix.encode()
    _call("remove_checkpoint", prefix.encode(), byref(options))


# ---- saver ----

KEEP_ALL = -1
FORMAT_V2, FORMAT_V1 = 0, 1


@dataclass(frozen=True)
class Saveable:
    """TensorFlow's SaveableObject: tensors that are made at a save and taken at a restore.

    `save` returns the tensors' values; `restore` is called with them. Either may raise.
    """

    name: str
    tensors: Sequence[Request]
    save: Callable[[], list[np.ndarray]]
    restore: Callable[[list[np.ndarray]], None]


class Saver:
    """`tfckpt_saver`. Arrays are saved from and restored into, so they must be contiguous and writable."""

    def __init__(
        self,
        tensors: Tensors = (),
        saveables: Sequence[Saveable] = (),
        *,
        saver_def: bytes | None = None,
        name: str | None = None,
        filename: str | None = None,
        **options: Any,
    ) -> None:
        self._saver = c_void_p()
        c_options = CSaverOptions(struct_size=sizeof(CSaverOptions), **options)
        if saver_def is not None:
            c_options.saver_def, c_options.saver_def_size = saver_def, len(saver_def)
        c_options.name = None if name is None else name.encode()
        c_options.filename = None if filename is None else filename.encode()
        self._describe(tensors, saveables)
        _call("saver_create", *self._described, byref(c_options), byref(self._saver))

    def _describe(self, tensors: Tensors, saveables: Sequence[Saveable]) -> None:
        self._pairs = _pairs(tensors)
        self._strings = any(_data(value).dtype == object for _, value in self._pairs)
        self._tensors = (CTensor * max(len(self._pairs), 1))()
        self._kept = [
            _describe_saved(tensor, key, value) for tensor, (key, value) in zip(self._tensors, self._pairs)
        ]
        self._saveables = [_CallableSaveable(saveable) for saveable in saveables]
        array = (CSaveable * max(len(saveables), 1))(*[saveable.c for saveable in self._saveables])
        self._described = (self._tensors, len(self._pairs), array, len(saveables))

    def __del__(self) -> None:
        if self._saver.value:
            _functions["saver_free"](self._saver)

    def build(self, tensors: Tensors = (), saveables: Sequence[Saveable] = ()) -> None:
        """`tfckpt_saver_build`."""
        self._describe(tensors, saveables)
        _call("saver_build", self._saver, *self._described)

    def bind(self, tensors: Tensors) -> None:
        """`tfckpt_saver_bind`: other arrays for the same tensors."""
        self._describe(tensors, [saveable.saveable for saveable in self._saveables])
        _call("saver_bind", self._saver, *self._described[:2])

    def save(
        self,
        path: str | None,
        *,
        global_step: int | None = None,
        latest_filename: str | None = None,
        meta_graph_suffix: str | None = None,
        no_sync: bool = True,
        **options: Any,
    ) -> str | None:
        """`tfckpt_saver_save`: the path that was written, None of an empty saver."""
        given, c_options = self._save_arguments(
            path, global_step, latest_filename, meta_graph_suffix, no_sync=no_sync, **options
        )
        saved = c_void_p()
        _call("saver_save", self._saver, given, byref(c_options), byref(saved))
        return _taken_string(saved) if saved.value else None

    def save_async(self, path: str, *, global_step: int | None = None, **options: Any) -> Job:
        """`tfckpt_saver_save_async`."""
        given, c_options = self._save_arguments(path, global_step, None, None, **{"no_sync": 1, **options})
        return Job("saver_save_async", self._saver, given, byref(c_options))

    def _save_arguments(
        self,
        path: str | None,
        global_step: int | None,
        latest_filename: str | None,
        meta_graph_suffix: str | None,
        **options: Any,
    ) -> tuple[bytes | None, CSaverSaveOptions]:
        c_options = CSaverSaveOptions(struct_size=sizeof(CSaverSaveOptions), **options)
        if global_step is not None:
            c_options.global_step = ctypes.pointer(c_int64(global_step))
        c_options.latest_filename = None if latest_filename is None else latest_filename.encode()
        c_options.meta_graph_suffix = None if meta_graph_suffix is None else meta_graph_suffix.encode()
        if self._strings:
            self.bind(self._pairs)  # the strings may be others now
        return None if path is None else path.encode(), c_options

    def restore(self, path: str | None, **options: Any) -> None:
        """`tfckpt_saver_restore`: into the arrays, those of strings included."""
        cells = []
        if self._strings:
            cells = self._bind_cells()
        try:
            given = None if path is None else path.encode()
            _call("saver_restore", self._saver, given, byref(_restore_options(**options)))
            for array, cell in cells:
                array.reshape(-1)[:] = _strings(cell)
        finally:
            for _, cell in cells:
                _functions["strings_free"](cell)

    def _bind_cells(self) -> list[tuple[np.ndarray, c_void_p]]:
        """Binds cells that receive `tfckpt_strings *` in the place of string tensors."""
        cells = []
        for tensor, (_, value) in zip(self._tensors, self._pairs):
            if _data(value).dtype == object:
                cell = c_void_p()
                tensor.data, tensor.size = ctypes.addressof(cell), sizeof(c_void_p)
                cells.append((_data(value), cell))
        _call("saver_bind", self._saver, *self._described[:2])
        return cells

    def last_checkpoints_with_time(self) -> list[tuple[str, float]]:
        """`tfckpt_saver_last_checkpoint` of each."""
        get = lambda what, i: _functions[f"saver_last_checkpoint{what}"](self._saver, i)  # noqa: E731
        num = _functions["saver_num_last_checkpoints"](self._saver)
        return [(_text(get("", i)), get("_time", i)) for i in range(num)]

    @property
    def last_checkpoints(self) -> list[str]:
        """As in TensorFlow."""
        return [path for path, _ in self.last_checkpoints_with_time()]

    def set_last_checkpoints(self, paths: Sequence[str]) -> None:
        """`tfckpt_saver_set_last_checkpoints`."""
        _call("saver_set_last_checkpoints", self._saver, *_paths(paths))

    def set_last_checkpoints_with_time(self, paths: Sequence[str], times: Sequence[float]) -> None:
        """`tfckpt_saver_set_last_checkpoints_with_time`."""
        names, num = _paths(paths)
        c_times = (c_double * max(num, 1))(*times)
        _call("saver_set_last_checkpoints_with_time", self._saver, names, c_times, num)

    def recover_last_checkpoints(self, paths: Sequence[str]) -> None:
        """`tfckpt_saver_recover_last_checkpoints`."""
        _call("saver_recover_last_checkpoints", self._saver, *_paths(paths))

    def as_saver_def(self) -> bytes:
        """`tfckpt_saver_as_saver_def`."""
        strings = c_void_p()
        _call("saver_as_saver_def", self._saver, byref(strings))
        try:
            (saver_def,) = _strings(strings)
            return saver_def
        finally:
            _functions["strings_free"](strings)


class _CallableSaveable:
    """A `tfckpt_saveable` whose callbacks are Python's."""

    def __init__(self, saveable: Saveable) -> None:
        self.saveable = saveable
        self.tensors = (CTensor * max(len(saveable.tensors), 1))()
        self.kept: list[Any] = []
        for tensor, request in zip(self.tensors, saveable.tensors):
            self.kept.append(_describe_request(tensor, request))
        self.arrays: list[np.ndarray] = []
        self.name = saveable.name.encode()
        self.c = CSaveable(
            struct_size=sizeof(CSaveable),
            name=self.name,
            tensors=self.tensors,
            num_tensors=len(saveable.tensors),
            save=SaveableFn(self.save),
            restore=SaveableFn(self.restore),
            finish=FinishFn(self.finish),
        )
        self.restoring = False

    def save(self, tensors: Any, num: int, _: Any) -> int:
        self.restoring = False
        try:
            self.arrays = self.saveable.save()
        except Exception:  # noqa: BLE001 - the library is told, whatever it was
            return 1
        assert num == len(self.arrays)
        self.kept = [
            _describe_saved(tensors[i], _bytes(request.key), array)
            for i, (request, array) in enumerate(zip(self.saveable.tensors, self.arrays))
        ]
        return 0

    def restore(self, tensors: Any, num: int, _: Any) -> int:
        self.restoring = True
        self.arrays = [np.zeros(request.shape, request.dtype) for request in self.saveable.tensors]
        assert num == len(self.arrays)
        for i, array in enumerate(self.arrays):
            tensors[i].data, tensors[i].size = array.ctypes.data, array.nbytes
        return 0

    def finish(self, code: int, _: Any) -> None:
        if code == 0 and self.restoring:
            self.saveable.restore(self.arrays)


def _data(value: np.ndarray | Part) -> np.ndarray:
    return value.data if isinstance(value, Part) else value


def _strings(strings: c_void_p) -> list[bytes | None]:
    return [_sized(_functions["strings_get"], strings, i) for i in range(_functions["strings_num"](strings))]


def _paths(paths: Sequence[str]) -> tuple[Any, int]:
    return (c_char_p * max(len(paths), 1))(*[path.encode() for path in paths]), len(paths)
