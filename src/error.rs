//! The one error type of the crate: TensorFlow's canonical code, a message, and where it happened.
//!
//! Codes are TensorFlow's canonical codes with their numbers (`tsl/protobuf/error_codes.proto`), so
//! that engines which already speak them need no translation. Where TensorFlow has a text for a
//! case, the message begins with it word for word, because client code matches on it; what we know
//! beyond that (tensor, file, offset) follows in brackets.

#![forbid(unsafe_code)]

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// A result with this crate's [`Error`].
pub type Result<T> = std::result::Result<T, Error>;

/// What kind of thing went wrong. The numbers are TensorFlow's and can never change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(i32)]
#[non_exhaustive]
pub enum Code {
    /// The caller, or a progress callback, asked to stop.
    Cancelled = 1,
    /// An error that fits no other code.
    Unknown = 2,
    /// The caller passed something that can never work.
    InvalidArgument = 3,
    /// The time that the caller gave is over.
    DeadlineExceeded = 4,
    /// A file, a checkpoint or a tensor is not there.
    NotFound = 5,
    /// Something that had to be new exists already.
    AlreadyExists = 6,
    /// The operating system refused access.
    PermissionDenied = 7,
    /// Out of disk space, memory or descriptors.
    ResourceExhausted = 8,
    /// The system is not in the state that the call needs.
    FailedPrecondition = 9,
    /// Given up because of something that happened at the same time; trying again may help.
    Aborted = 10,
    /// A read or a slice reaches past the end.
    OutOfRange = 11,
    /// Valid, but not supported.
    Unimplemented = 12,
    /// A promise inside the library or the file was broken.
    Internal = 13,
    /// A resource, such as a device driver, cannot be reached.
    Unavailable = 14,
    /// Bytes on disk are damaged or missing for good.
    DataLoss = 15,
}

impl Code {
    /// The canonical name, such as `DATA_LOSS`.
    pub fn name(self) -> &'static str {
        match self {
            Code::Cancelled => "CANCELLED",
            Code::Unknown => "UNKNOWN",
            Code::InvalidArgument => "INVALID_ARGUMENT",
            Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
            Code::NotFound => "NOT_FOUND",
            Code::AlreadyExists => "ALREADY_EXISTS",
            Code::PermissionDenied => "PERMISSION_DENIED",
            Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
            Code::FailedPrecondition => "FAILED_PRECONDITION",
            Code::Aborted => "ABORTED",
            Code::OutOfRange => "OUT_OF_RANGE",
            Code::Unimplemented => "UNIMPLEMENTED",
            Code::Internal => "INTERNAL",
            Code::Unavailable => "UNAVAILABLE",
            Code::DataLoss => "DATA_LOSS",
        }
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// An error: code, message, and the tensor, file and offset it concerns, as far as they are known.
///
/// [`Display`](fmt::Display) prints the message followed by what is known of the place:
/// `message [tensor=K file=F offset=N]`.
#[derive(Debug, Clone)]
pub struct Error(Box<Inner>);

#[derive(Debug, Clone)]
struct Inner {
    code: Code,
    message: String,
    tensor_index: Option<usize>,
    key: Option<Vec<u8>>,
    file: Option<PathBuf>,
    offset: Option<u64>,
}

macro_rules! constructors {
    ($($name:ident => $code:ident),* $(,)?) => {$(
        #[doc = concat!("An error with [`Code::", stringify!($code), "`].")]
        pub fn $name(message: impl Into<String>) -> Self {
            Self::new(Code::$code, message)
        }
    )*};
}

impl Error {
    /// An error without a place; add one with the `with_` methods.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self(Box::new(Inner {
            code,
            message: message.into(),
            tensor_index: None,
            key: None,
            file: None,
            offset: None,
        }))
    }

    constructors! {
        cancelled => Cancelled,
        invalid_argument => InvalidArgument,
        deadline_exceeded => DeadlineExceeded,
        not_found => NotFound,
        failed_precondition => FailedPrecondition,
        aborted => Aborted,
        out_of_range => OutOfRange,
        unimplemented => Unimplemented,
        internal => Internal,
        unavailable => Unavailable,
        resource_exhausted => ResourceExhausted,
        data_loss => DataLoss,
    }

    /// The error of a failed system call on `file`, with TensorFlow's mapping from `errno` to codes
    /// (`tsl/platform/errors.cc`) and its text, `<file>; <reason>`.
    pub fn io(error: &io::Error, file: &Path) -> Self {
        let reason = match error.raw_os_error() {
            // The text of strerror(3), without the number that Rust adds.
            Some(_) => {
                let text = error.to_string();
                text.split(" (os error")
                    .next()
                    .unwrap_or_default()
                    .to_owned()
            }
            None => error.to_string(),
        };
        Self::new(io_code(error), format!("{}; {reason}", file.display())).with_file(file)
    }

    /// Names the file, unless an inner layer already did.
    pub fn with_file(mut self, file: &Path) -> Self {
        self.0.file.get_or_insert_with(|| file.to_owned());
        self
    }

    /// Names the byte offset inside the file, unless an inner layer already did.
    pub fn with_offset(mut self, offset: u64) -> Self {
        self.0.offset.get_or_insert(offset);
        self
    }

    /// Names the tensor by its key, unless an inner layer already did.
    pub fn with_key(mut self, key: &[u8]) -> Self {
        self.0.key.get_or_insert_with(|| key.to_owned());
        self
    }

    /// Gives the tensor's index in the call's list of tensors.
    pub fn with_tensor_index(mut self, index: usize) -> Self {
        self.0.tensor_index.get_or_insert(index);
        self
    }

    /// Leads a tensor's index in part of a list back to the whole list: `indices` holds, for each of the
    /// part, its index in the whole.
    pub(crate) fn reindexed(mut self, indices: &[usize]) -> Self {
        let index = self.0.tensor_index;
        self.0.tensor_index = index.and_then(|index| indices.get(index).copied());
        self
    }

    /// Puts `prefix` before the message; code and place stay.
    pub fn with_prefix(mut self, prefix: impl fmt::Display) -> Self {
        self.0.message = format!("{prefix}{}", self.0.message);
        self
    }

    /// The same error with another message.
    pub(crate) fn with_message(mut self, message: String) -> Self {
        self.0.message = message;
        self
    }

    /// The same error under another code.
    pub fn with_code(mut self, code: Code) -> Self {
        self.0.code = code;
        self
    }

    /// The same error under another code, unless it is RESOURCE_EXHAUSTED, which blames nobody.
    pub fn with_verdict(self, code: Code) -> Self {
        match self.code() {
            Code::ResourceExhausted => self,
            _ => self.with_code(code),
        }
    }

    /// The canonical code.
    pub fn code(&self) -> Code {
        self.0.code
    }

    /// The message alone, without the place.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// Index in the call's list of tensors.
    pub fn tensor_index(&self) -> Option<usize> {
        self.0.tensor_index
    }

    /// Key of the tensor concerned.
    pub fn key(&self) -> Option<&[u8]> {
        self.0.key.as_deref()
    }

    /// File concerned.
    pub fn file(&self) -> Option<&Path> {
        self.0.file.as_deref()
    }

    /// Byte offset in [`file`](Self::file).
    pub fn offset(&self) -> Option<u64> {
        self.0.offset
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)?;
        let place = [
            self.key()
                .map(|key| format!("tensor={}", key.escape_ascii())),
            self.file().map(|file| format!("file={}", file.display())),
            self.offset().map(|offset| format!("offset={offset}")),
        ];
        let place: Vec<String> = place.into_iter().flatten().collect();
        if !place.is_empty() {
            write!(f, " [{}]", place.join(" "))?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {}

fn io_code(error: &io::Error) -> Code {
    let Some(errno) = error.raw_os_error() else {
        return match error.kind() {
            io::ErrorKind::UnexpectedEof => Code::OutOfRange,
            io::ErrorKind::InvalidInput => Code::InvalidArgument,
            _ => Code::Unknown,
        };
    };
    match errno {
        libc::EINVAL | libc::ENAMETOOLONG | libc::E2BIG | libc::EFAULT | libc::ELOOP => {
            Code::InvalidArgument
        }
        libc::ENOENT | libc::ENXIO | libc::ENODEV => Code::NotFound,
        libc::EEXIST => Code::AlreadyExists,
        libc::EPERM | libc::EACCES | libc::EROFS => Code::PermissionDenied,
        libc::ENOTEMPTY
        | libc::EISDIR
        | libc::ENOTDIR
        | libc::EBADF
        | libc::EBUSY
        | libc::ETXTBSY => Code::FailedPrecondition,
        libc::ENOSPC
        | libc::EDQUOT
        | libc::EMFILE
        | libc::ENFILE
        | libc::ENOMEM
        | libc::ENOBUFS
        | libc::EMLINK
        | libc::ENOLCK => Code::ResourceExhausted,
        libc::EFBIG | libc::EOVERFLOW | libc::ERANGE => Code::OutOfRange,
        libc::ENOSYS | libc::ENOTSUP | libc::EXDEV => Code::Unimplemented,
        libc::EAGAIN
        | libc::ECONNREFUSED
        | libc::ECONNRESET
        | libc::ENETDOWN
        | libc::ENETUNREACH
        | libc::ENOTCONN
        | libc::ESTALE => Code::Unavailable,
        libc::EDEADLK => Code::Aborted,
        libc::ECANCELED => Code::Cancelled,
        libc::EIO => Code::DataLoss,
        _ => Code::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn display_appends_the_place_in_brackets() {
        let error = Error::data_loss("bad")
            .with_key(b"w\x00")
            .with_file(Path::new("/d/m.index"))
            .with_offset(7);
        assert_eq!(
            error.to_string(),
            "bad [tensor=w\\x00 file=/d/m.index offset=7]"
        );
        assert_eq!(Error::not_found("gone").to_string(), "gone");
    }

    #[test]
    fn the_innermost_place_wins() {
        let error = Error::internal("x").with_offset(1).with_offset(2);
        assert_eq!(error.offset(), Some(1));
    }

    #[test]
    fn io_errors_read_as_tensorflow_writes_them() {
        let missing = io::Error::from_raw_os_error(libc::ENOENT);
        let error = Error::io(&missing, Path::new("/d/m.data-00000-of-00001"));
        assert_eq!(error.code(), Code::NotFound);
        assert_eq!(
            error.message(),
            "/d/m.data-00000-of-00001; No such file or directory"
        );
    }
}
