//! The floor the engine stands on: every byte of I/O goes through [`Storage`].
//!
//! Paths are relative to the database directory, `/`-separated, and always made
//! by [`crate::filename`] from integer ids; no string read from a file becomes a
//! path. Implementations: [`fs`] (native and WASI), [`memory`], [`trace`],
//! and [`fault`] for tests of crash safety.
//!
//! Rules for implementations: `append` loops over short writes, treats a write
//! of zero bytes as an error and retries only `EINTR`; sizes and offsets are
//! `u64`; an error names the file.

use std::fmt::Debug;
use std::sync::Arc;

use bytes::Bytes;

use crate::error::{Error, Result};

mod copy;
pub mod fault;
#[cfg(not(all(target_family = "wasm", target_os = "unknown")))]
pub mod fs;
pub mod memory;
pub mod trace;
mod within;

pub(crate) use copy::{copy, link};
pub(crate) use within::Within;

/// Whether a directory's names are durable after [`Storage::sync_dir`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DirSync {
    /// Names created or removed before the call survive power loss.
    Done,
    /// This host cannot sync directories (a core wasip1 module); the engine
    /// keeps what an older generation needs instead.
    Unsupported,
}

/// A directory that holds one database.
pub trait Storage: Send + Sync + Debug {
    /// Opens an existing regular file for positional reads.
    ///
    /// # Errors
    /// `Io` with kind `NotFound` if absent; `Io` for anything that is not a
    /// regular file (a symbolic link, a FIFO, a directory).
    fn open(&self, path: &str) -> Result<Arc<dyn ReadFile>>;

    /// Creates a file that must not exist, for appending.
    fn create(&self, path: &str) -> Result<Box<dyn AppendFile>>;

    /// Opens an existing file to make durable what somebody else appends to it, while
    /// that goes on. Of failures to write before it was opened it need not know.
    fn open_to_sync(&self, path: &str) -> Result<Box<dyn SyncFile>>;

    /// Overwrites bytes of an existing file in place and syncs it. For the
    /// slots of `CURRENT` only; `offset + bytes.len()` must lie within the file.
    fn overwrite(&self, path: &str, offset: u64, bytes: &[u8]) -> Result<()>;

    /// Makes every byte of an existing file survive power loss, whoever wrote
    /// it: what a killed process left is not synced yet.
    ///
    /// That includes bytes whose sync has failed before: many systems drop them
    /// and go on to answer them from memory, so that a further sync alone
    /// succeeds and saves nothing. Source: "Can Applications Recover from fsync
    /// Failures?" (Rebello et al., ATC 2020).
    fn sync(&self, path: &str) -> Result<()>;

    /// Creates a directory if it is not there.
    fn create_dir(&self, path: &str) -> Result<()>;

    /// Removes a file. Absent files are an `Io` error of kind `NotFound`.
    fn remove(&self, path: &str) -> Result<()>;

    /// Names in a directory (`""` is the database directory itself), in any
    /// order; empty if the directory does not exist.
    fn list(&self, path: &str) -> Result<Vec<String>>;

    /// Makes the names in a directory durable, where the host can.
    fn sync_dir(&self, path: &str) -> Result<DirSync>;

    /// Takes the exclusive lock of the database, held until the value drops.
    ///
    /// # Errors
    /// `Locked` if anyone, this process included, holds it.
    fn lock(&self) -> Result<Box<dyn Lock>>;

    /// Takes a lock that keeps out whoever wants [`Storage::lock`], and nobody
    /// else, held until the value drops. Changes nothing: where there is no lock
    /// file none is made, and then only openers in this process are kept out.
    ///
    /// # Errors
    /// `Locked` if anyone holds the exclusive lock.
    fn lock_shared(&self) -> Result<Box<dyn Lock>>;

    /// Bytes that can still be written, where the host tells.
    fn space_left(&self) -> Result<Option<u64>> {
        Ok(None)
    }

    /// A name for messages: the directory, or `memory`.
    fn describe(&self) -> String;

    /// Where `path` is among the files of the operating system, if it is there:
    /// what two storages have there may be one file with two names.
    #[cfg(not(all(target_family = "wasm", target_os = "unknown")))]
    fn locate(&self, path: &str) -> Option<(&fs::FsStorage, String)> {
        let _ = path;
        None
    }
}

/// A file open for positional reads.
pub trait ReadFile: Send + Sync + Debug {
    /// Reads exactly `len` bytes at `offset`.
    ///
    /// # Errors
    /// `Corruption` if the file ends before; `Io` otherwise.
    fn read_at(&self, offset: u64, len: usize) -> Result<Bytes>;

    /// Reads the bytes at `offset` into all of `bytes`: for what is looked at once.
    ///
    /// # Errors
    /// As [`ReadFile::read_at`]; `bytes` may have anything then.
    fn read_into(&self, offset: u64, bytes: &mut [u8]) -> Result<()> {
        bytes.copy_from_slice(&self.read_at(offset, bytes.len())?);
        Ok(())
    }

    /// Length in bytes.
    fn size(&self) -> Result<u64>;
}

/// A file being written at its end.
pub trait AppendFile: Send + Debug {
    /// Writes all of `bytes` at the end.
    ///
    /// # Errors
    /// After an error any prefix of `bytes` may be there; cut back with
    /// [`AppendFile::truncate`] or give the file up.
    fn append(&mut self, bytes: &[u8]) -> Result<()>;

    /// Writes zeros behind what was appended, up to `len` bytes of the file; what is
    /// appended later takes their place. A sync of that needs no change of where the
    /// file lies and how long it is, which file systems write apart. A hint: storages
    /// may do nothing.
    ///
    /// # Errors
    /// After an error some of the zeros may be there, and nothing else has changed.
    fn preallocate(&mut self, len: u64) -> Result<()> {
        let _ = len;
        Ok(())
    }

    /// Finds room for a file of `len` bytes, where that costs little; what was not
    /// appended yet may read as zeros. A hint: storages may do nothing.
    fn reserve(&mut self, len: u64) {
        let _ = len;
    }

    /// Makes every appended byte survive power loss.
    ///
    /// # Errors
    /// Never retry after an error: what reached the disk is unknown.
    fn sync_data(&mut self) -> Result<()>;

    /// Cuts the file back to `len` bytes, zeros of [`AppendFile::preallocate`] and what
    /// was reserved too.
    fn truncate(&mut self, len: u64) -> Result<()>;

    /// Bytes appended so far.
    fn len(&self) -> u64;

    /// True if nothing has been appended.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A file that somebody else appends to.
pub trait SyncFile: Send + Sync + Debug {
    /// Makes every byte that was appended before the call survive power loss.
    ///
    /// # Errors
    /// Never retry after an error: what reached the disk is unknown.
    fn sync_data(&self) -> Result<()>;
}

/// A lock of a database; released on drop.
pub trait Lock: Send + Sync + Debug {}

/// The refusal of a lock by storages without processes.
fn locked_in_memory() -> Error {
    Error::Locked("this database in memory is open already; close it first".into())
}

/// The error of a read past the end of a file: something that is recorded in
/// one place is missing in another.
fn past_end(file: &str, offset: u64, len: usize, size: u64) -> Error {
    let what = format!("{len} bytes are wanted here, and the file ends at byte {size}");
    Error::corruption(file, offset, what)
}

#[cfg(test)]
mod tests;
