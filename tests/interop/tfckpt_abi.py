"""The C header in ctypes: its structures, field by field in its order, and its functions' types."""

from __future__ import annotations

import ctypes
from ctypes import (
    POINTER,
    Structure,
    c_char_p,
    c_double,
    c_int32,
    c_int64,
    c_size_t,
    c_uint32,
    c_uint64,
    c_void_p,
)
from typing import Any

# ---- the header's structures ----


class CString(Structure):
    """tfckpt_string"""

    _fields_ = [("data", c_char_p), ("size", c_size_t)]


class CTensor(Structure):
    """tfckpt_tensor"""

    _fields_ = [
        ("struct_size", c_size_t),
        ("key", c_char_p),
        ("key_size", c_size_t),
        ("dtype", c_int32),
        ("rank", c_int32),
        ("shape", POINTER(c_int64)),
        ("data", c_void_p),
        ("size", c_size_t),
        ("device_type", c_int32),
        ("device_id", c_int32),
        ("device_name", c_char_p),
        ("slice_spec", c_char_p),
        ("stream", c_void_p),
        ("flags", c_uint32),
        ("variable_name", c_char_p),
    ]


class CProgress(Structure):
    """tfckpt_progress"""

    _fields_ = [
        ("struct_size", c_size_t),
        ("bytes_done", c_uint64),
        ("bytes_total", c_uint64),
        ("tensors_done", c_uint64),
        ("tensors_total", c_uint64),
    ]


class CStats(Structure):
    """tfckpt_stats"""

    _fields_ = [
        ("struct_size", c_size_t),
        ("num_tensors", c_uint64),
        ("bytes", c_uint64),
        ("bytes_io", c_uint64),
        ("bytes_verified", c_uint64),
        ("num_io", c_uint64),
        ("elapsed_ns", c_uint64),
        ("sync_ns", c_uint64),
        ("peak_host_bytes", c_uint64),
        ("num_threads", c_uint32),
        ("bytes_direct", c_uint64),
        ("bytes_cold", c_uint64),
        ("bytes_verified_by_chunks", c_uint64),
        ("bytes_unverified", c_uint64),
        ("num_sidecar_ignored", c_uint64),
        ("bytes_device", c_uint64),
        ("device_wait_ns", c_uint64),
        ("num_slots", c_uint64),
        ("num_retries", c_uint64),
        ("peak_pinned_bytes", c_uint64),
    ]


class CContextOptions(Structure):
    """tfckpt_context_options"""

    _fields_ = [
        ("struct_size", c_size_t),
        ("max_host_bytes", c_uint64),
        ("num_threads", c_uint32),
        ("cuda_contexts", POINTER(c_void_p)),
        ("num_cuda_contexts", c_size_t),
    ]


class CCudaDriver(Structure):
    """tfckpt_cuda_driver"""

    _fields_ = [
        ("struct_size", c_size_t),
        ("version", c_int32),
        ("num_devices", c_int32),
        ("has_batch_copies", c_int32),
    ]


class CCudaDevice(Structure):
    """tfckpt_cuda_device"""

    _fields_ = [
        ("struct_size", c_size_t),
        ("name", c_char_p),
        ("total_memory", c_uint64),
        ("compute_major", c_int32),
        ("compute_minor", c_int32),
        ("num_copy_engines", c_int32),
        ("numa_node", c_int32),
        ("reads_pageable_memory", c_int32),
        ("registers_host_memory", c_int32),
        ("registers_read_only_memory", c_int32),
        ("has_memory_pools", c_int32),
        ("has_direct_access", c_int32),
    ]


ProgressFn = ctypes.CFUNCTYPE(c_int32, POINTER(CProgress), c_void_p)
DamageFn = ctypes.CFUNCTYPE(None, c_void_p, c_void_p)


class CSaveOptions(Structure):
    """tfckpt_save_options"""

    _fields_ = [
        ("struct_size", c_size_t),
        ("context", c_void_p),
        ("global_step", POINTER(c_int64)),
        ("pad_step_number", c_int32),
        ("update_state", c_int32),
        ("save_relative_paths", c_int32),
        ("no_sync", c_int32),
        ("shard_by_device", c_int32),
        ("format", c_int32),
        ("max_shard_size", c_uint64),
        ("alignment", c_uint64),
        ("max_host_bytes", c_uint64),
        ("progress", ProgressFn),
        ("user_data", c_void_p),
        ("stats", POINTER(CStats)),
        ("chunk_checksums", c_int32),
        ("borrow", c_int32),
        ("device_snapshot", c_int32),
    ]


class CRestoreOptions(Structure):
    """tfckpt_restore_options"""

    _fields_ = [
        ("struct_size", c_size_t),
        ("context", c_void_p),
        ("verify", c_int32),
        ("max_host_bytes", c_uint64),
        ("progress", ProgressFn),
        ("user_data", c_void_p),
        ("stats", POINTER(CStats)),
        ("reshape", c_int32),
        ("restore_sequentially", c_int32),
        ("in_request_order", c_int32),
        ("keep_going", c_int32),
        ("strict", c_int32),
        ("stream_ordered", c_int32),
    ]


class CLatestOptions(Structure):
    """tfckpt_latest_options"""

    _fields_ = [
        ("struct_size", c_size_t),
        ("latest_filename", c_char_p),
        ("fall_back", c_int32),
        ("rebase", c_int32),
        ("fell_back", c_int32),
        ("reason", c_void_p),
    ]


class CMergeOptions(Structure):
    """tfckpt_merge_options"""

    _fields_ = [
        ("struct_size", c_size_t),
        ("context", c_void_p),
        ("allow_missing_files", c_int32),
        ("keep_parts", c_int32),
        ("update_state", c_int32),
        ("save_relative_paths", c_int32),
        ("no_sync", c_int32),
        ("progress", ProgressFn),
        ("user_data", c_void_p),
        ("stats", POINTER(CStats)),
    ]


class CVerifyOptions(Structure):
    """tfckpt_verify_options"""

    _fields_ = [
        ("struct_size", c_size_t),
        ("context", c_void_p),
        ("progress", ProgressFn),
        ("damage", DamageFn),
        ("user_data", c_void_p),
        ("stats", POINTER(CStats)),
    ]


class CUpdateOptions(Structure):
    """tfckpt_update_options"""

    _fields_ = [
        ("struct_size", c_size_t),
        ("all_model_checkpoint_paths", POINTER(c_char_p)),
        ("num_paths", c_size_t),
        ("all_model_checkpoint_timestamps", POINTER(c_double)),
        ("num_timestamps", c_size_t),
        ("last_preserved_timestamp", POINTER(c_double)),
        ("latest_filename", c_char_p),
        ("save_relative_paths", c_int32),
        ("no_sync", c_int32),
    ]


class CRemoveOptions(Structure):
    """tfckpt_remove_options"""

    _fields_ = [
        ("struct_size", c_size_t),
        ("format", c_int32),
        ("meta_graph_suffix", c_char_p),
        ("no_sync", c_int32),
    ]


SaveableFn = ctypes.CFUNCTYPE(c_int32, POINTER(CTensor), c_size_t, c_void_p)
FinishFn = ctypes.CFUNCTYPE(None, c_int32, c_void_p)


class CSaveable(Structure):
    """tfckpt_saveable"""

    _fields_ = [
        ("struct_size", c_size_t),
        ("name", c_char_p),
        ("tensors", POINTER(CTensor)),
        ("num_tensors", c_size_t),
        ("save", SaveableFn),
        ("restore", SaveableFn),
        ("finish", FinishFn),
        ("user_data", c_void_p),
    ]


class CSaverOptions(Structure):
    """tfckpt_saver_options"""

    _fields_ = [
        ("struct_size", c_size_t),
        ("context", c_void_p),
        ("reshape", c_int32),
        ("sharded", c_int32),
        ("max_to_keep", c_int32),
        ("keep_checkpoint_every_n_hours", c_double),
        ("name", c_char_p),
        ("restore_sequentially", c_int32),
        ("saver_def", c_char_p),
        ("saver_def_size", c_size_t),
        ("defer_build", c_int32),
        ("allow_empty", c_int32),
        ("write_version", c_int32),
        ("pad_step_number", c_int32),
        ("save_relative_paths", c_int32),
        ("filename", c_char_p),
        ("shrink_to_max_to_keep", c_int32),
        ("max_shard_size", c_uint64),
        ("now_ns", c_int64),
        ("chunk_checksums", c_int32),
    ]


class CSaverSaveOptions(Structure):
    """tfckpt_saver_save_options"""

    _fields_ = [
        ("struct_size", c_size_t),
        ("global_step", POINTER(c_int64)),
        ("latest_filename", c_char_p),
        ("meta_graph_suffix", c_char_p),
        ("write_meta_graph", c_int32),
        ("no_state", c_int32),
        ("no_sync", c_int32),
        ("now_ns", c_int64),
        ("max_host_bytes", c_uint64),
        ("progress", ProgressFn),
        ("user_data", c_void_p),
        ("stats", POINTER(CStats)),
        ("borrow", c_int32),
        ("device_snapshot", c_int32),
    ]


# As `tfckpt_dlpack_alloc_fn` and `tfckpt_dlpack_free_fn`.
AllocFn = ctypes.CFUNCTYPE(c_void_p, c_size_t, c_size_t, c_int32, c_int32, c_void_p, c_void_p)
FreeFn = ctypes.CFUNCTYPE(None, c_void_p, c_size_t, c_int32, c_int32, c_void_p, c_void_p)


class CDlpackRequest(Structure):
    """tfckpt_dlpack_request"""

    _fields_ = [
        ("struct_size", c_size_t),
        ("key", c_char_p),
        ("key_size", c_size_t),
        ("slice_spec", c_char_p),
        ("device_type", c_int32),
        ("device_id", c_int32),
        ("stream", c_void_p),
    ]


class CDlpackOptions(Structure):
    """tfckpt_dlpack_options"""

    _fields_ = [
        ("struct_size", c_size_t),
        ("restore", POINTER(CRestoreOptions)),
        ("max_slab_size", c_uint64),
        ("alloc", AllocFn),
        ("free", FreeFn),
        ("user_data", c_void_p),
    ]


# ---- functions ----

_OUT = POINTER(c_void_p)
_SIZE_OUT = POINTER(c_size_t)

_TENSORS_IN = [POINTER(CTensor), c_size_t, POINTER(CSaveable), c_size_t]

# name: (result, arguments). Calls with a trailing tfckpt_error ** go through `_call`.
SIGNATURES: dict[str, tuple[Any, list[Any]]] = {
    "version_string": (c_char_p, []),
    "code_name": (c_char_p, [c_int32]),
    "error_code": (c_int32, [c_void_p]),
    "error_message": (c_char_p, [c_void_p]),
    "error_tensor_index": (c_int64, [c_void_p]),
    "error_key": (c_void_p, [c_void_p, _SIZE_OUT]),
    "error_file": (c_char_p, [c_void_p]),
    "error_offset": (c_int64, [c_void_p]),
    "error_free": (None, [c_void_p]),
    "string_free": (None, [c_void_p]),
    "dtype_name": (c_char_p, [c_int32]),
    "dtype_size": (c_size_t, [c_int32]),
    "strings_num": (c_size_t, [c_void_p]),
    "strings_get": (c_void_p, [c_void_p, c_size_t, _SIZE_OUT]),
    "strings_free": (None, [c_void_p]),
    "save": (c_int32, [c_char_p, POINTER(CTensor), c_size_t, POINTER(CSaveOptions), _OUT, _OUT]),
    "restore": (
        c_int32,
        [c_char_p, POINTER(CTensor), c_size_t, POINTER(CRestoreOptions), POINTER(c_int32), _OUT],
    ),
    "save_async": (c_int32, [c_char_p, POINTER(CTensor), c_size_t, POINTER(CSaveOptions), _OUT, _OUT]),
    "saver_save_async": (c_int32, [c_void_p, c_char_p, POINTER(CSaverSaveOptions), _OUT, _OUT]),
    "restore_async": (c_int32, [c_char_p, POINTER(CTensor), c_size_t, POINTER(CRestoreOptions), _OUT, _OUT]),
    "job_wait": (c_int32, [c_void_p, c_int64, _OUT]),
    "job_wait_snapshot": (c_int32, [c_void_p, c_int64, _OUT]),
    "job_wait_tensor": (c_int32, [c_void_p, c_size_t, c_int64, _OUT]),
    "job_stream_wait": (c_int32, [c_void_p, c_size_t, c_void_p, _OUT]),
    "job_prefix": (c_char_p, [c_void_p]),
    "job_free": (None, [c_void_p]),
    "cuda_available": (c_int32, [_OUT]),
    "cuda_describe": (c_int32, [POINTER(CCudaDriver), _OUT]),
    "cuda_describe_device": (c_int32, [c_int32, POINTER(CCudaDevice), _OUT]),
    "save_shard": (
        c_int32,
        [
            *[c_char_p, c_uint32, c_uint32, c_char_p],
            *[POINTER(CTensor), c_size_t, POINTER(CSaveOptions), _OUT, _OUT],
        ],
    ),
    "merge": (c_int32, [POINTER(c_char_p), c_size_t, c_char_p, POINTER(CMergeOptions), _OUT]),
    "latest_checkpoint": (c_int32, [c_char_p, POINTER(CLatestOptions), _OUT, _OUT]),
    "reader_open": (c_int32, [c_char_p, c_void_p, _OUT, _OUT]),
    "reader_free": (None, [c_void_p]),
    "reader_prefix": (c_char_p, [c_void_p]),
    "reader_num_shards": (c_uint32, [c_void_p]),
    "reader_num_tensors": (c_int32, [c_void_p, _SIZE_OUT, _OUT]),
    "reader_debug_string": (c_int32, [c_void_p, _OUT, _OUT]),
    "reader_object_graph": (c_int32, [c_void_p, _OUT, _OUT]),
    "reader_find": (c_int32, [c_void_p, c_char_p, c_size_t, _OUT, _OUT]),
    "reader_entries": (c_int32, [c_void_p, _OUT, _OUT]),
    "reader_restore": (
        c_int32,
        [c_void_p, POINTER(CTensor), c_size_t, POINTER(CRestoreOptions), POINTER(c_int32), _OUT],
    ),
    "reader_restore_dlpack": (
        c_int32,
        [c_void_p, POINTER(CDlpackRequest), c_size_t, POINTER(CDlpackOptions), _OUT, POINTER(c_int32), _OUT],
    ),
    "tensor_from_dlpack": (c_int32, [c_void_p, c_int32, POINTER(CTensor), _OUT]),
    "reader_view": (c_int32, [c_void_p, c_char_p, c_size_t, c_uint32, _OUT, _OUT]),
    "reader_verify": (c_int32, [c_void_p, POINTER(CVerifyOptions), POINTER(c_uint64), _OUT]),
    "entries_next": (c_int32, [c_void_p, _OUT, _OUT]),
    "entries_free": (None, [c_void_p]),
    "entry_free": (None, [c_void_p]),
    "entry_key": (c_void_p, [c_void_p, _SIZE_OUT]),
    "entry_code": (c_int32, [c_void_p]),
    "entry_message": (c_char_p, [c_void_p]),
    "entry_dtype": (c_int32, [c_void_p]),
    "entry_rank": (c_int32, [c_void_p]),
    "entry_shape": (POINTER(c_int64), [c_void_p]),
    "entry_size": (c_uint64, [c_void_p]),
    "entry_shard_id": (c_uint32, [c_void_p]),
    "entry_offset": (c_uint64, [c_void_p]),
    "entry_crc32c": (c_uint32, [c_void_p]),
    "entry_num_slices": (c_size_t, [c_void_p]),
    "entry_slice": (c_char_p, [c_void_p, c_size_t]),
    "object_graph_num_tensors": (c_size_t, [c_void_p]),
    "object_graph_key": (c_void_p, [c_void_p, c_size_t, _SIZE_OUT]),
    "object_graph_full_name": (c_void_p, [c_void_p, c_size_t, _SIZE_OUT]),
    "object_graph_attribute": (c_void_p, [c_void_p, c_size_t, _SIZE_OUT]),
    "object_graph_path": (c_int32, [c_void_p, c_size_t, _OUT, _OUT]),
    "object_graph_key_of_name": (c_void_p, [c_void_p, c_char_p, c_size_t, _SIZE_OUT]),
    "object_graph_key_of_path": (c_void_p, [c_void_p, c_char_p, c_size_t, _SIZE_OUT]),
    "object_graph_free": (None, [c_void_p]),
    "view_data": (c_void_p, [c_void_p]),
    "view_size": (c_size_t, [c_void_p]),
    "view_free": (None, [c_void_p]),
    "get_checkpoint_state": (c_int32, [c_char_p, c_char_p, _OUT, _OUT]),
    "checkpoint_state_model_checkpoint_path": (c_char_p, [c_void_p]),
    "checkpoint_state_num_paths": (c_size_t, [c_void_p]),
    "checkpoint_state_path": (c_char_p, [c_void_p, c_size_t]),
    "checkpoint_state_num_timestamps": (c_size_t, [c_void_p]),
    "checkpoint_state_timestamp": (c_double, [c_void_p, c_size_t]),
    "checkpoint_state_last_preserved_timestamp": (c_double, [c_void_p]),
    "checkpoint_state_free": (None, [c_void_p]),
    "update_checkpoint_state": (c_int32, [c_char_p, c_char_p, POINTER(CUpdateOptions), _OUT]),
    "checkpoint_exists": (c_int32, [c_char_p, POINTER(c_int32), _OUT]),
    "get_checkpoint_mtimes": (
        c_int32,
        [POINTER(c_char_p), c_size_t, POINTER(c_double), _SIZE_OUT, _OUT],
    ),
    "remove_checkpoint": (c_int32, [c_char_p, POINTER(CRemoveOptions), _OUT]),
    "saver_create": (c_int32, [*_TENSORS_IN, POINTER(CSaverOptions), _OUT, _OUT]),
    "saver_build": (c_int32, [c_void_p, *_TENSORS_IN, _OUT]),
    "saver_bind": (c_int32, [c_void_p, POINTER(CTensor), c_size_t, _OUT]),
    "saver_free": (None, [c_void_p]),
    "saver_save": (c_int32, [c_void_p, c_char_p, POINTER(CSaverSaveOptions), _OUT, _OUT]),
    "saver_restore": (c_int32, [c_void_p, c_char_p, POINTER(CRestoreOptions), _OUT]),
    "saver_num_last_checkpoints": (c_size_t, [c_void_p]),
    "saver_last_checkpoint": (c_char_p, [c_void_p, c_size_t]),
    "saver_last_checkpoint_time": (c_double, [c_void_p, c_size_t]),
    "saver_set_last_checkpoints": (c_int32, [c_void_p, POINTER(c_char_p), c_size_t, _OUT]),
    "saver_set_last_checkpoints_with_time": (
        c_int32,
        [c_void_p, POINTER(c_char_p), POINTER(c_double), c_size_t, _OUT],
    ),
    "saver_recover_last_checkpoints": (c_int32, [c_void_p, POINTER(c_char_p), c_size_t, _OUT]),
    "saver_as_saver_def": (c_int32, [c_void_p, _OUT, _OUT]),
}
