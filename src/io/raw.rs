//! The system calls that the standard library has no safe form for: reads into raw memory,
//! whether a read would wait, fallocate, sync_file_range.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

use crate::memory::{DestSpan, Filled};

/// Fills `dest` from `offset`. Returns `None` if the file ends before it is full.
pub fn read_exact_at<'a>(
    file: &File,
    offset: u64,
    dest: DestSpan<'a>,
) -> io::Result<Option<Filled<'a>>> {
    let filled = read_at_least(file, offset, dest, dest.len())?;
    Ok(filled.filter(|filled| filled.len() == dest.len()))
}

/// Fills `dest` from `offset`, at least its first `least` bytes. Returns those that were filled; `None` if
/// the file ends before that.
pub fn read_at_least<'a>(
    file: &File,
    offset: u64,
    dest: DestSpan<'a>,
    least: usize,
) -> io::Result<Option<Filled<'a>>> {
    let mut done = 0;
    while let Some(rest) = dest.get(done, dest.len() - done).filter(|_| done < least) {
        let position = offset
            .checked_add(done as u64)
            .and_then(|position| libc::off_t::try_from(position).ok())
            .ok_or_else(|| io::Error::from_raw_os_error(libc::EOVERFLOW))?;
        // SAFETY: `rest` is valid for writes of its length; the descriptor is open as long as
        // `file` lives.
        let n = unsafe {
            libc::pread(
                file.as_raw_fd(),
                rest.as_mut_ptr().cast(),
                rest.len(),
                position,
            )
        };
        match usize::try_from(n) {
            Ok(0) => return Ok(None),
            Ok(n) => done += n,
            Err(_) => {
                let error = io::Error::last_os_error();
                if error.kind() != io::ErrorKind::Interrupted {
                    return Err(error);
                }
            }
        }
    }
    // SAFETY: pread has written the first `done` bytes.
    Ok(dest
        .get(0, done)
        .map(|span| unsafe { span.assume_filled() }))
}

/// Whether the `len` bytes from `offset`, at least one, are in the page cache; also where the system does not
/// say. Nothing is read, neither now nor ahead: a read that must not wait would start that, and the next
/// reads would suffer (1 GiB in 0.9 instead of 0.55 s; Linux 6.18, ext4 on virtio).
pub fn is_cached(file: &File, offset: u64, len: u64) -> bool {
    // SAFETY: no memory is passed.
    let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    let Some(page) = u64::try_from(page).ok().filter(|&page| page > 0) else {
        return true;
    };
    let start = offset - offset % page;
    let len = len.saturating_add(offset - start);
    let num_pages = usize::try_from(len.div_ceil(page));
    let (Ok(mapping), Ok(num_pages)) = (Mapping::new(file, start, len), num_pages) else {
        return true;
    };
    let bytes = mapping.bytes();
    let mut resident = vec![0u8; num_pages];
    // SAFETY: `bytes` is mapped and begins at a page; its memory is not touched. `resident` has room for a
    // byte for each of its pages.
    let looked = unsafe {
        libc::mincore(
            bytes.as_ptr().cast_mut().cast(),
            bytes.len(),
            resident.as_mut_ptr().cast(),
        )
    };
    looked != 0 || resident.iter().all(|byte| byte & 1 == 1)
}

/// Most ranges of memory that the system fills with one call.
const MAX_RANGES: usize = 1024;

/// Fills `dests`, one after the other, from `offset`. Returns `None` if the file ends before they are
/// full.
pub fn read_all_at<'a>(
    file: &File,
    offset: u64,
    dests: &[DestSpan<'a>],
) -> io::Result<Option<Vec<Filled<'a>>>> {
    let mut filled = Vec::with_capacity(dests.len());
    let mut at = offset;
    for dests in dests.chunks(MAX_RANGES) {
        let mut read = read_some_at(file, at, dests)?;
        for dest in dests {
            let len = dest.len();
            // What one call did not fill, which is rare, is read range by range.
            let done = len.min(read);
            read -= done;
            if let Some(rest) = dest.get(done, len - done)
                && read_exact_at(file, at.saturating_add(done as u64), rest)?.is_none()
            {
                return Ok(None);
            }
            // SAFETY: its beginning was filled by the one call, its rest just now.
            filled.push(unsafe { dest.assume_filled() });
            at = at.saturating_add(len as u64);
        }
    }
    Ok(Some(filled))
}

/// Fills as much of at most [`MAX_RANGES`] ranges as one call does, and returns how much that is.
fn read_some_at(file: &File, offset: u64, dests: &[DestSpan<'_>]) -> io::Result<usize> {
    let range = |dest: &DestSpan<'_>| libc::iovec {
        iov_base: dest.as_mut_ptr().cast(),
        iov_len: dest.len(),
    };
    let ranges: Vec<libc::iovec> = dests.iter().map(range).collect();
    let count = libc::c_int::try_from(ranges.len()).unwrap_or(0);
    let position =
        libc::off_t::try_from(offset).map_err(|_| io::Error::from_raw_os_error(libc::EOVERFLOW))?;
    loop {
        // SAFETY: each range is valid for writes of its length; the descriptor is open as long as
        // `file` lives.
        let n = unsafe { libc::preadv(file.as_raw_fd(), ranges.as_ptr(), count, position) };
        if let Ok(n) = usize::try_from(n) {
            return Ok(n);
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}

/// Appends `len` bytes from `offset` to `bytes`. Returns `None` if the file ends before that.
///
/// The caller has compared `len` with the size of the file.
pub fn append_from(
    file: &File,
    offset: u64,
    len: usize,
    bytes: &mut Vec<u8>,
) -> io::Result<Option<()>> {
    bytes
        .try_reserve_exact(len)
        .map_err(|_| io::Error::from_raw_os_error(libc::ENOMEM))?;
    let Some(spare) = bytes.spare_capacity_mut().get_mut(..len) else {
        return Err(io::Error::from_raw_os_error(libc::ENOMEM));
    };
    if read_exact_at(file, offset, DestSpan::from(spare))?.is_none() {
        return Ok(None);
    }
    // SAFETY: `read_exact_at` has filled the first `len` bytes of the spare capacity.
    unsafe { bytes.set_len(bytes.len() + len) };
    Ok(Some(()))
}

/// Allocates the first `size` bytes of `file`, which then has at least that size.
///
/// # Errors
///
/// The system's error; EOPNOTSUPP where the file system cannot.
pub fn fallocate(file: &File, size: u64) -> io::Result<()> {
    let size =
        libc::off_t::try_from(size).map_err(|_| io::Error::from_raw_os_error(libc::EFBIG))?;
    loop {
        // SAFETY: no memory is passed; the descriptor is open as long as `file` lives.
        if unsafe { libc::fallocate(file.as_raw_fd(), 0, 0, size) } == 0 {
            return Ok(());
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}

/// Lets the system begin to write a range of `file` to the disk, and does not wait for it. A hint: what
/// goes wrong shows when the file is synced.
pub fn start_writeback(file: &File, offset: u64, len: u64) {
    let (Ok(offset), Ok(len)) = (
        libc::off64_t::try_from(offset),
        libc::off64_t::try_from(len),
    ) else {
        return;
    };
    let flags = libc::SYNC_FILE_RANGE_WRITE;
    // SAFETY: no memory is passed; the descriptor is open as long as `file` lives.
    unsafe { libc::sync_file_range(file.as_raw_fd(), offset, len, flags) };
}

/// Part of a file, mapped for reading.
#[derive(Debug)]
pub struct Mapping(memmap2::Mmap);

impl Mapping {
    /// Maps `len` bytes, at least one, from `offset`. The caller has compared them with the size of the
    /// file.
    pub fn new(file: &File, offset: u64, len: u64) -> io::Result<Self> {
        let len = usize::try_from(len).map_err(|_| io::Error::from_raw_os_error(libc::ENOMEM))?;
        // SAFETY: the bytes may change if another process writes to the file, which no writer of
        // checkpoints does: files are replaced, not rewritten. The header and the type that users
        // see say so, and what happens if the file is shortened.
        unsafe {
            memmap2::MmapOptions::new()
                .offset(offset)
                .len(len)
                .map(file)
        }
        .map(Self)
    }

    /// The mapped bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}

/// Runs `spawn` with all signals blocked on this thread, so that the threads it starts inherit that:
/// a signal of the host program must never be delivered to a thread it does not know.
pub fn with_signals_blocked<T>(spawn: impl FnOnce() -> T) -> T {
    let mut all = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
    let mut before = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: sigfillset initialises `all`; pthread_sigmask reads it and, when it succeeds,
    // initialises `before`.
    let blocked = unsafe {
        libc::sigfillset(all.as_mut_ptr());
        libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), before.as_mut_ptr()) == 0
    };
    let result = spawn();
    if blocked {
        // SAFETY: `before` was initialised by the successful call above.
        unsafe {
            libc::pthread_sigmask(libc::SIG_SETMASK, before.as_ptr(), std::ptr::null_mut());
        }
    }
    result
}
