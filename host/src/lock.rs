//! The exclusive lock on a database directory. WASI has no file locks, so the
//! host takes it, on the file that a native engine locks too.
//!
//! A directory that holds something else is left as it was: it is looked at
//! before anything is created in it.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use duramen::{Error, Result};

const LOCK: &str = "LOCK";
const CURRENT: &str = "CURRENT";

/// What a database directory may hold before `CURRENT` is there.
const NAMES: &[&str] = &[LOCK, CURRENT, "manifest", "wal", "sst"];

/// Directories open in this process, for systems whose file locks do not tell
/// openers of one process apart.
static OPEN: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());

/// The lock, held until it is dropped. The file stays.
#[derive(Debug)]
pub struct DirectoryLock {
    directory: PathBuf,
    file: File,
}

impl DirectoryLock {
    /// Locks `directory`, which `create_if_missing` creates.
    ///
    /// # Errors
    /// `Locked` if anyone has it; `InvalidArgument` if it is not a database and
    /// must not or cannot become one.
    pub fn take(directory: &Path, create_if_missing: bool) -> Result<Self> {
        if create_if_missing {
            create(directory).map_err(|error| io("create", directory, error))?;
        }
        let directory = fs::canonicalize(directory).map_err(|error| match error.kind() {
            ErrorKind::NotFound => Error::invalid(format!("there is no database in {}", directory.display())),
            _ => io("open", directory, error),
        })?;
        check_directory(&directory, create_if_missing)?;

        let mut open = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
        if open.contains(&directory) {
            return Err(locked(&directory, "this process"));
        }
        let path = directory.join(LOCK);
        match fs::symlink_metadata(&path) {
            Ok(metadata) if !metadata.is_file() => {
                return Err(Error::invalid(format!("{} is not a regular file", path.display())));
            }
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(io("lock", &path, error)),
            _ => {}
        }
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(|error| io("lock", &path, error))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(locked(&directory, "another opener")),
            Err(TryLockError::Error(error)) => return Err(io("lock", &path, error)),
        }
        open.insert(directory.clone());
        Ok(DirectoryLock { directory, file })
    }

    /// The directory, with symbolic links resolved.
    pub fn directory(&self) -> &Path {
        &self.directory
    }
}

/// Creates a directory with all above it, and makes their names durable: the guest
/// syncs names within the directory and cannot reach its own.
fn create(directory: &Path) -> std::io::Result<()> {
    let mut missing = Vec::new();
    for above in directory.ancestors().filter(|above| !above.as_os_str().is_empty()) {
        if above.exists() {
            break;
        }
        missing.push(above);
    }
    fs::create_dir_all(directory)?;
    for made in missing.into_iter().rev() {
        let parent = made.parent().filter(|parent| !parent.as_os_str().is_empty());
        sync_directory(parent.unwrap_or(Path::new(".")))?;
    }
    Ok(())
}

#[cfg(unix)]
fn sync_directory(directory: &Path) -> std::io::Result<()> {
    File::open(directory)?.sync_all()
}

/// Only Unix lets a program sync a directory.
#[cfg(not(unix))]
fn sync_directory(_: &Path) -> std::io::Result<()> {
    Ok(())
}

impl Drop for DirectoryLock {
    fn drop(&mut self) {
        let mut open = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
        // Closing the file unlocks it too; doing it here means that whoever
        // finds the directory free in this process finds the file free.
        let _ = self.file.unlock();
        open.remove(&self.directory);
    }
}

/// Refuses what is not, or will not become, a database.
fn check_directory(directory: &Path, create_if_missing: bool) -> Result<()> {
    let mut foreign = None;
    for entry in fs::read_dir(directory).map_err(|error| io("list", directory, error))? {
        let name = entry.map_err(|error| io("list", directory, error))?.file_name();
        if name == CURRENT {
            return Ok(());
        }
        if !NAMES.iter().any(|known| name == *known) {
            foreign = Some(name);
        }
    }
    let directory = directory.display();
    match foreign {
        Some(name) => Err(Error::invalid(format!(
            "{directory} is not a database: it holds {}; choose an empty directory",
            name.display()
        ))),
        None if !create_if_missing => Err(Error::invalid(format!("there is no database in {directory}"))),
        None => Ok(()),
    }
}

fn locked(directory: &Path, who: &str) -> Error {
    Error::Locked(format!("{who} has {} open", directory.display()))
}

fn io(operation: &'static str, path: &Path, error: std::io::Error) -> Error {
    Error::io(operation, path.display().to_string(), error)
}
