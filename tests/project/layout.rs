//! The layout of the C structs as Rust sees it.
//! Generated from src/capi by `cargo run -p codegen`. Do not edit.

use std::fmt::Write;
use std::mem::{offset_of, size_of};

use tfckpt::capi;

macro_rules! constant {
    ($out:ident, $module:ident::$name:ident) => {
        let value = i128::from(capi::$module::$name);
        writeln!($out, "{} {value}", stringify!($name)).unwrap();
    };
}

macro_rules! layout {
    ($out:ident, $module:ident::$name:ident, $($field:ident),*) => {{
        type Struct = capi::$module::$name;
        writeln!($out, "{} {}", stringify!($name), size_of::<Struct>()).unwrap();
        $(
            let size = size_of_field(|it: &Struct| &it.$field);
            let offset = offset_of!(Struct, $field);
            writeln!($out, "{}.{} {offset} {size}", stringify!($name), stringify!($field)).unwrap();
        )*
    }};
}

fn size_of_field<S, F>(_field: fn(&S) -> &F) -> usize {
    size_of::<F>()
}

#[test]
#[rustfmt::skip]
fn structs_and_constants_are_what_layout_txt_says() {
    let mut out = String::new();
    constant!(out, version::TFCKPT_VERSION_MAJOR);
    constant!(out, version::TFCKPT_VERSION_MINOR);
    constant!(out, version::TFCKPT_VERSION_PATCH);
    constant!(out, version::TFCKPT_VERSION_NUMBER);
    constant!(out, error::TFCKPT_OK);
    constant!(out, error::TFCKPT_CANCELLED);
    constant!(out, error::TFCKPT_UNKNOWN);
    constant!(out, error::TFCKPT_INVALID_ARGUMENT);
    constant!(out, error::TFCKPT_DEADLINE_EXCEEDED);
    constant!(out, error::TFCKPT_NOT_FOUND);
    constant!(out, error::TFCKPT_ALREADY_EXISTS);
    constant!(out, error::TFCKPT_PERMISSION_DENIED);
    constant!(out, error::TFCKPT_RESOURCE_EXHAUSTED);
    constant!(out, error::TFCKPT_FAILED_PRECONDITION);
    constant!(out, error::TFCKPT_ABORTED);
    constant!(out, error::TFCKPT_OUT_OF_RANGE);
    constant!(out, error::TFCKPT_UNIMPLEMENTED);
    constant!(out, error::TFCKPT_INTERNAL);
    constant!(out, error::TFCKPT_UNAVAILABLE);
    constant!(out, error::TFCKPT_DATA_LOSS);
    constant!(out, dtype::TFCKPT_DTYPE_FLOAT);
    constant!(out, dtype::TFCKPT_DTYPE_DOUBLE);
    constant!(out, dtype::TFCKPT_DTYPE_INT32);
    constant!(out, dtype::TFCKPT_DTYPE_UINT8);
    constant!(out, dtype::TFCKPT_DTYPE_INT16);
    constant!(out, dtype::TFCKPT_DTYPE_INT8);
    constant!(out, dtype::TFCKPT_DTYPE_STRING);
    constant!(out, dtype::TFCKPT_DTYPE_COMPLEX64);
    constant!(out, dtype::TFCKPT_DTYPE_INT64);
    constant!(out, dtype::TFCKPT_DTYPE_BOOL);
    constant!(out, dtype::TFCKPT_DTYPE_QINT8);
    constant!(out, dtype::TFCKPT_DTYPE_QUINT8);
    constant!(out, dtype::TFCKPT_DTYPE_QINT32);
    constant!(out, dtype::TFCKPT_DTYPE_BFLOAT16);
    constant!(out, dtype::TFCKPT_DTYPE_QINT16);
    constant!(out, dtype::TFCKPT_DTYPE_QUINT16);
    constant!(out, dtype::TFCKPT_DTYPE_UINT16);
    constant!(out, dtype::TFCKPT_DTYPE_COMPLEX128);
    constant!(out, dtype::TFCKPT_DTYPE_HALF);
    constant!(out, dtype::TFCKPT_DTYPE_RESOURCE);
    constant!(out, dtype::TFCKPT_DTYPE_VARIANT);
    constant!(out, dtype::TFCKPT_DTYPE_UINT32);
    constant!(out, dtype::TFCKPT_DTYPE_UINT64);
    constant!(out, dtype::TFCKPT_DTYPE_FLOAT8_E5M2);
    constant!(out, dtype::TFCKPT_DTYPE_FLOAT8_E4M3FN);
    constant!(out, dtype::TFCKPT_DTYPE_FLOAT8_E4M3FNUZ);
    constant!(out, dtype::TFCKPT_DTYPE_FLOAT8_E4M3B11FNUZ);
    constant!(out, dtype::TFCKPT_DTYPE_FLOAT8_E5M2FNUZ);
    constant!(out, dtype::TFCKPT_DTYPE_INT4);
    constant!(out, dtype::TFCKPT_DTYPE_UINT4);
    constant!(out, dtype::TFCKPT_DTYPE_INT2);
    constant!(out, dtype::TFCKPT_DTYPE_UINT2);
    constant!(out, dtype::TFCKPT_DTYPE_FLOAT4_E2M1FN);
    constant!(out, tensor::TFCKPT_DEVICE_HOST);
    constant!(out, tensor::TFCKPT_DEVICE_CUDA);
    constant!(out, tensor::TFCKPT_TENSOR_UNORDERED);
    layout!(out, tensor::tfckpt_string, data, size);
    layout!(out, tensor::tfckpt_tensor, struct_size, key, key_size, dtype, rank, shape, data, size, device_type, device_id, device_name, slice_spec, stream, flags, variable_name);
    layout!(out, progress::tfckpt_progress, struct_size, bytes_done, bytes_total, tensors_done, tensors_total);
    layout!(out, stats::tfckpt_stats, struct_size, num_tensors, bytes, bytes_io, bytes_verified, num_io, elapsed_ns, sync_ns, peak_host_bytes, num_threads, bytes_direct, bytes_cold, bytes_verified_by_chunks, bytes_unverified, num_sidecar_ignored, bytes_device, device_wait_ns, num_slots, num_retries, peak_pinned_bytes);
    layout!(out, save::tfckpt_save_options, struct_size, context, global_step, pad_step_number, update_state, save_relative_paths, no_sync, shard_by_device, format, max_shard_size, alignment, max_host_bytes, progress, user_data, stats, chunk_checksums, borrow, device_snapshot);
    constant!(out, restore::TFCKPT_VERIFY_FULL);
    constant!(out, restore::TFCKPT_VERIFY_FETCHED);
    constant!(out, restore::TFCKPT_VERIFY_NONE);
    layout!(out, restore::tfckpt_restore_options, struct_size, context, verify, max_host_bytes, progress, user_data, stats, reshape, restore_sequentially, in_request_order, keep_going, strict, stream_ordered);
    layout!(out, latest::tfckpt_latest_options, struct_size, latest_filename, fall_back, rebase, fell_back, reason);
    layout!(out, merge::tfckpt_merge_options, struct_size, context, allow_missing_files, keep_parts, update_state, save_relative_paths, no_sync, progress, user_data, stats);
    layout!(out, context::tfckpt_context_options, struct_size, max_host_bytes, num_threads, cuda_contexts, num_cuda_contexts);
    layout!(out, cuda::tfckpt_cuda_driver, struct_size, version, num_devices, has_batch_copies);
    layout!(out, cuda::tfckpt_cuda_device, struct_size, name, total_memory, compute_major, compute_minor, num_copy_engines, numa_node, reads_pageable_memory, registers_host_memory, registers_read_only_memory, has_memory_pools, has_direct_access);
    layout!(out, reader::tfckpt_reader_options, struct_size, context);
    constant!(out, view::TFCKPT_VIEW_ALLOW_UNALIGNED);
    constant!(out, view::TFCKPT_VIEW_NO_VERIFY);
    layout!(out, verify::tfckpt_verify_options, struct_size, context, progress, damage, user_data, stats);
    layout!(out, state::tfckpt_update_options, struct_size, all_model_checkpoint_paths, num_paths, all_model_checkpoint_timestamps, num_timestamps, last_preserved_timestamp, latest_filename, save_relative_paths, no_sync);
    constant!(out, state::TFCKPT_FORMAT_V2);
    constant!(out, state::TFCKPT_FORMAT_V1);
    layout!(out, state::tfckpt_remove_options, struct_size, format, meta_graph_suffix, no_sync);
    layout!(out, saveable::tfckpt_saveable, struct_size, name, tensors, num_tensors, save, restore, finish, user_data);
    constant!(out, saver::TFCKPT_KEEP_ALL);
    layout!(out, saver::tfckpt_saver_options, struct_size, context, reshape, sharded, max_to_keep, keep_checkpoint_every_n_hours, name, restore_sequentially, saver_def, saver_def_size, defer_build, allow_empty, write_version, pad_step_number, save_relative_paths, filename, shrink_to_max_to_keep, max_shard_size, now_ns, chunk_checksums);
    layout!(out, saver_calls::tfckpt_saver_save_options, struct_size, global_step, latest_filename, meta_graph_suffix, write_meta_graph, no_state, no_sync, now_ns, max_host_bytes, progress, user_data, stats, borrow, device_snapshot);
    layout!(out, dlpack::tfckpt_dlpack_request, struct_size, key, key_size, slice_spec, device_type, device_id, stream);
    layout!(out, dlpack::tfckpt_dlpack_options, struct_size, restore, max_slab_size, alloc, free, user_data);
    assert_eq!(out, include_str!("../abi/layout.txt"));
}
