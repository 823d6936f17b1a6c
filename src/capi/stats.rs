//! Figures
//!
//! Options have a field for a tfckpt_stats, which the call fills, also when it fails.

use super::error::tfckpt_code;
use super::handle::{Sized, init_struct, write_struct};
use super::wall::guard;
use crate::{Result, Stats};

/// What a call did, in numbers.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct tfckpt_stats {
    /// sizeof(tfckpt_stats); set by the caller.
    pub struct_size: usize,
    /// Tensors that the call was asked to move.
    pub num_tensors: u64,
    /// Bytes of tensors saved or restored.
    pub bytes: u64,
    /// Bytes read from or written to data files, gaps between tensors included.
    pub bytes_io: u64,
    /// Bytes read whose checksum was checked.
    pub bytes_verified: u64,
    /// System calls that read or wrote tensor data.
    pub num_io: u64,
    /// Wall clock of the call in nanoseconds.
    pub elapsed_ns: u64,
    /// Of which waiting until a save was durable and published.
    pub sync_ns: u64,
    /// Most bytes of the budget that the call had set aside for buffers at once.
    pub peak_host_bytes: u64,
    /// Threads that moved bytes, the calling one included.
    pub num_threads: u32,
    /// Of bytes_io, those that went past the page cache, straight between the disk and a buffer, because
    /// the context has found that to be faster on the mount, or has yet to find out. Of a durable save
    /// they are all but the ends of files, or none.
    pub bytes_direct: u64,
    /// Of the bytes that a restore read, those that it took from the disk: they were not in the page
    /// cache, or were read ahead into it meanwhile.
    pub bytes_cold: u64,
    /// Of bytes_verified, those checked by the chunk checksums of the sidecar "PREFIX.crc32c".
    pub bytes_verified_by_chunks: u64,
    /// Bytes restored whose checksum was not checked.
    pub bytes_unverified: u64,
    /// With TFCKPT_VERIFY_FETCHED: stored pieces of which a part was read unverified although there is a
    /// sidecar. It is damaged, or of another save, or does not list the piece; tfckpt_reader_verify
    /// tells which.
    pub num_sidecar_ignored: u64,
    /// Bytes copied from or to devices.
    pub bytes_device: u64,
    /// Nanoseconds that the threads have waited for copies from and to devices, all together, the wait for
    /// the last ones included, or for a page-locked buffer while other threads had all of them. What is left
    /// of elapsed_ns times num_threads they were reading, writing, checking and page-locking.
    pub device_wait_ns: u64,
    /// Page-locked buffers that the call had for copies from and to devices.
    pub num_slots: u64,
    /// Page-locked buffers that it could not have, and did without.
    pub num_retries: u64,
    /// Bytes of those that it had; of peak_host_bytes, which counts those that it did not need, too.
    pub peak_pinned_bytes: u64,
}

// SAFETY: `repr(C)`, begins with its size, integers only.
unsafe impl Sized for tfckpt_stats {
    const NAME: &'static str = "tfckpt_stats";
}

/// Sets *stats to zeros; struct_size is sizeof(tfckpt_stats).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tfckpt_stats_init(
    stats: *mut tfckpt_stats,
    struct_size: usize,
) -> tfckpt_code {
    // SAFETY: `stats` is NULL or has that size, by the header's rules.
    unsafe { guard(std::ptr::null_mut(), || init_struct(stats, struct_size)) }
}

/// Clears the caller's struct, if there is one, before anything else is done.
///
/// # Errors
///
/// INVALID_ARGUMENT if its size is not set.
///
/// # Safety
///
/// As [`put_stats`].
pub(super) unsafe fn clear_stats(out: *mut tfckpt_stats) -> Result<()> {
    // SAFETY: the caller's promise.
    unsafe { put_stats(out, &Stats::default()) }
}

/// Fills the caller's struct, if there is one.
///
/// # Errors
///
/// INVALID_ARGUMENT if its size is not set.
///
/// # Safety
///
/// `out` must be NULL or valid for reads and writes of its own size.
pub(super) unsafe fn put_stats(out: *mut tfckpt_stats, stats: &Stats) -> Result<()> {
    if out.is_null() {
        return Ok(());
    }
    let value = tfckpt_stats {
        struct_size: 0,
        num_tensors: stats.num_tensors,
        bytes: stats.bytes,
        bytes_io: stats.bytes_io,
        bytes_verified: stats.bytes_verified,
        num_io: stats.num_io,
        elapsed_ns: stats.elapsed_ns,
        sync_ns: stats.sync_ns,
        peak_host_bytes: stats.peak_host_bytes,
        num_threads: stats.num_threads,
        bytes_direct: stats.bytes_direct,
        bytes_cold: stats.bytes_cold,
        bytes_verified_by_chunks: stats.bytes_verified_by_chunks,
        bytes_unverified: stats.bytes_unverified,
        num_sidecar_ignored: stats.num_sidecar_ignored,
        bytes_device: stats.bytes_device,
        device_wait_ns: stats.device_wait_ns,
        num_slots: stats.num_slots,
        num_retries: stats.num_retries,
        peak_pinned_bytes: stats.peak_pinned_bytes,
    };
    // SAFETY: the caller's promise.
    unsafe { write_struct(out, &value) }
}
