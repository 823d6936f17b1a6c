//! What a call did, in numbers.

/// Figures of one save or restore.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
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
    /// Of which waiting for data to become durable.
    pub sync_ns: u64,
    /// Most bytes of the budget that the call had set aside for buffers at once.
    pub peak_host_bytes: u64,
    /// Threads that moved bytes, the calling one included.
    pub num_threads: u32,
    /// Of `bytes_io`, those that went past the page cache, straight between the disk and a buffer.
    pub bytes_direct: u64,
    /// Of the bytes read, those that came from the disk: they were not in the page cache, or were read
    /// ahead into it meanwhile.
    pub bytes_cold: u64,
    /// Of `bytes_verified`, those checked by the chunk checksums of a sidecar.
    pub bytes_verified_by_chunks: u64,
    /// Bytes restored whose checksum was not checked.
    pub bytes_unverified: u64,
    /// Bytes copied from or to GPUs.
    pub bytes_device: u64,
    /// Nanoseconds that threads have waited for copies from and to GPUs, the last ones included, or for a
    /// page-locked buffer while others had all of them; all threads together.
    pub device_wait_ns: u64,
    /// Page-locked buffers that were in use for GPUs.
    pub num_slots: u64,
    /// Most bytes of page-locked buffers that the call had at once.
    pub peak_pinned_bytes: u64,
    /// Times that the call made do with less than it had asked for: page-locked buffers that could not be
    /// had.
    pub num_retries: u64,
    /// Stored pieces of which a part was read unverified although there is a sidecar, because that is
    /// damaged, of another save, or does not list the piece.
    pub num_sidecar_ignored: u64,
}
