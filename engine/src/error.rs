//! The engine's one error type.
//!
//! A variant exists when a caller would act differently; fields carry the
//! facts. An error about stored bytes names the file and the offset, so that a
//! person can look. Absence is `Option`, not an error.

use std::fmt;

/// Result of every engine operation.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong, and by its variant what the caller can do about it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The storage below refused an operation. The database stays usable unless
    /// a later call answers [`Error::Poisoned`].
    #[error("{operation} {file}: {source}")]
    Io {
        /// What was attempted, as a verb: `append to`, `sync`, `read`.
        operation: &'static str,
        /// The file, relative to the database directory.
        file: String,
        /// What the storage said.
        #[source]
        source: std::io::Error,
    },
    /// Stored bytes are not what was written. Undamaged keys stay readable;
    /// `verify` lists all damage.
    #[error("corruption in {file} at offset {offset}: {what}")]
    Corruption {
        /// The file, relative to the database directory.
        file: String,
        /// Bytes from the start of the file.
        offset: u64,
        /// What was found, and where it helps what was expected.
        what: String,
    },
    /// The call itself is wrong: a key too long, an unknown keyspace, a
    /// directory that is not a database. Nothing was changed.
    #[error("{0}")]
    InvalidArgument(String),
    /// Another opener holds the database, or a newer writer took it over.
    #[error("{0}")]
    Locked(String),
    /// A transaction read something that has changed since; retry it.
    #[error("transaction conflict on key {}", DisplayBytes(.key))]
    Conflict {
        /// The key whose newer version was found.
        key: Vec<u8>,
    },
    /// A sync failed, so what is durable is no longer known. Reads go on,
    /// writes are refused until the database is opened again. Source: "Can
    /// Applications Recover from fsync Failures?" (Rebello et al., ATC 2020).
    #[error("the database is read-only until it is opened again: {0}")]
    Poisoned(String),
    /// A newer format, or a feature this build does not have.
    #[error("{0}")]
    Unsupported(String),
    /// Background work is too far behind and the wait has ended; retry later.
    #[error("write stalled: {0}")]
    Stalled(String),
}

impl Error {
    /// A [`Error::Corruption`] at `offset` of `file`.
    pub fn corruption(file: impl Into<String>, offset: u64, what: impl Into<String>) -> Self {
        Error::Corruption { file: file.into(), offset, what: what.into() }
    }

    /// An [`Error::Io`] of `operation` on `file`.
    pub fn io(operation: &'static str, file: impl Into<String>, source: std::io::Error) -> Self {
        Error::Io { operation, file: file.into(), source }
    }

    /// An [`Error::InvalidArgument`].
    pub fn invalid(what: impl Into<String>) -> Self {
        Error::InvalidArgument(what.into())
    }

    /// The same error once more, for another caller that shares its fate.
    pub(crate) fn duplicate(&self) -> Error {
        match self {
            Error::Io { operation, file, source } => {
                let source = std::io::Error::new(source.kind(), source.to_string());
                Error::Io { operation, file: file.clone(), source }
            }
            Error::Corruption { file, offset, what } => {
                Error::Corruption { file: file.clone(), offset: *offset, what: what.clone() }
            }
            Error::InvalidArgument(what) => Error::InvalidArgument(what.clone()),
            Error::Locked(what) => Error::Locked(what.clone()),
            Error::Conflict { key } => Error::Conflict { key: key.clone() },
            Error::Poisoned(what) => Error::Poisoned(what.clone()),
            Error::Unsupported(what) => Error::Unsupported(what.clone()),
            Error::Stalled(what) => Error::Stalled(what.clone()),
        }
    }

    /// True if the storage said that the file does not exist.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Error::Io { source, .. } if source.kind() == std::io::ErrorKind::NotFound)
    }
}

/// Bytes for people: as text where they are printable UTF-8, as hex otherwise.
pub struct DisplayBytes<'a>(pub &'a [u8]);

impl fmt::Display for DisplayBytes<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match std::str::from_utf8(self.0) {
            Ok(text) if !text.chars().any(char::is_control) => write!(f, "{text:?}"),
            _ => {
                f.write_str("0x")?;
                self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }
    }
}
