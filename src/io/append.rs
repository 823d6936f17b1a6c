//! Writing a file from its beginning to its end.

#![forbid(unsafe_code)]

use std::io;

use super::write::TempFile;

/// Bytes that an [`Appender`] collects before it writes them.
const BUFFER: usize = 1 << 16;

/// Writes one after the other what [`TempFile::appender`] is given.
pub type Appender<'a> = io::BufWriter<Sequential<'a>>;

/// The unbuffered side of an [`Appender`].
#[derive(Debug)]
pub struct Sequential<'a> {
    temp: &'a TempFile,
    offset: u64,
}

impl io::Write for Sequential<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.temp.write_all_at(self.offset, bytes)?;
        self.offset += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A writer that begins at offset 0 of `temp`.
pub(super) fn appender(temp: &TempFile) -> Appender<'_> {
    io::BufWriter::with_capacity(BUFFER, Sequential { temp, offset: 0 })
}
