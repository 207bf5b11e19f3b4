//! Files of the operating system, natively and on WASI.
//!
//! Every path is walked from an open handle of the database directory without
//! following symbolic links, and an opened file must be a regular one; so a
//! prepared directory cannot lead the engine to read, overwrite or remove files
//! elsewhere. The database directory itself may be reached through a link.
//!
//! Nothing is created before [`Storage::create_dir`], [`Storage::create`] or,
//! natively, [`Storage::lock`].
//!
//! What the hosts differ in:
//!
//! | | native | core wasip1 | component |
//! |---|---|---|---|
//! | lock | `flock` on `LOCK`, and this process | this process; the host locks | same |
//! | directory sync | yes | `Unsupported` | yes, through `wasi:filesystem` |

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use rustix::buffer::spare_capacity;
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags};
use rustix::io::{Errno, retry_on_intr};

use crate::error::{Error, Result};
use crate::storage::{AppendFile, DirSync, Lock, ReadFile, Storage, SyncFile};

/// Flags of every open: a link is refused, and a FIFO or a terminal cannot hang
/// or capture the process before its type is known.
#[cfg(not(target_os = "wasi"))]
const GUARD: OFlags = OFlags::NOFOLLOW.union(OFlags::NONBLOCK).union(OFlags::NOCTTY).union(OFlags::CLOEXEC);
/// Flags of every open. WASI opens no FIFO from a sandbox that holds only our
/// files, and a non-blocking descriptor would change how hosts serve writes.
#[cfg(target_os = "wasi")]
const GUARD: OFlags = OFlags::NOFOLLOW;

/// Reads longer than this check the size of the file before they allocate, so
/// that a wrong length is an error and not an allocation.
const UNCHECKED_READ_BYTES_MAX: usize = 1 << 20;

/// Bytes that [`Storage::sync`] reads and writes at once: few calls in a
/// sandbox, little memory.
const REWRITE_BYTES: usize = 256 << 10;

/// A directory of the file system.
#[derive(Debug)]
pub struct FsStorage {
    dir: PathBuf,
    root: Mutex<Option<Arc<File>>>,
}

impl FsStorage {
    /// Storage in `dir`, which need not exist yet. Touches nothing. A relative
    /// path is resolved now, so that a later change of the working directory
    /// does not matter.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        let dir = dir.into();
        // WASI has no working directory to speak of.
        #[cfg(not(target_os = "wasi"))]
        let dir = std::path::absolute(&dir).unwrap_or(dir);
        FsStorage { dir, root: Mutex::new(None) }
    }

    /// The database directory.
    pub fn path(&self) -> &Path {
        &self.dir
    }

    fn root(&self, operation: &'static str, path: &str) -> Result<Arc<File>> {
        let mut root = hold(&self.root);
        if let Some(root) = &*root {
            return Ok(root.clone());
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | (GUARD - OFlags::NOFOLLOW);
        let fd = retry_on_intr(|| rustix::fs::open(&self.dir, flags, Mode::empty()))
            .map_err(|errno| Error::io(operation, path, errno.into()))?;
        Ok(root.insert(Arc::new(File::from(fd))).clone())
    }

    /// Opens the directory `path` component by component.
    fn dir(&self, operation: &'static str, path: &str) -> Result<Arc<File>> {
        let mut dir = self.root(operation, path)?;
        for name in path.split('/').filter(|_| !path.is_empty()) {
            check_name(name, path)?;
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | GUARD;
            let fd = retry_on_intr(|| rustix::fs::openat(&dir, name, flags, Mode::empty()))
                .map_err(|errno| Error::io(operation, path, errno.into()))?;
            dir = Arc::new(File::from(fd));
        }
        Ok(dir)
    }

    /// The directory that holds `path`, and the name in it.
    fn parent<'a>(&self, operation: &'static str, path: &'a str) -> Result<(Arc<File>, &'a str)> {
        let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
        check_name(name, path)?;
        Ok((self.dir(operation, parent).map_err(|error| rename(error, path))?, name))
    }

    /// Opens a file and makes sure that it is a regular one.
    fn open_file(&self, operation: &'static str, path: &str, flags: OFlags) -> Result<File> {
        let mode = Mode::from_raw_mode(0o666);
        let fd = self.open_fd(operation, path, flags | GUARD, mode)?.map_err(|errno| {
            let source = match errno {
                Errno::LOOP => refused("is a symbolic link"),
                errno => errno.into(),
            };
            Error::io(operation, path, source)
        })?;
        let file = File::from(fd);
        let stat = rustix::fs::fstat(&file).map_err(|errno| Error::io(operation, path, errno.into()))?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(Error::io(operation, path, refused("is not a regular file")));
        }
        Ok(file)
    }

    #[cfg(not(target_os = "wasi"))]
    fn open_fd(
        &self,
        operation: &'static str,
        path: &str,
        flags: OFlags,
        mode: Mode,
    ) -> Result<rustix::io::Result<OwnedFd>> {
        let (dir, name) = self.parent(operation, path)?;
        Ok(retry_on_intr(|| rustix::fs::openat(&dir, name, flags, mode)))
    }

    /// By its whole path, below the preopened directory: some hosts of preview 1
    /// give files the rights of the directory that they are opened from, and a
    /// directory opened by the guest has none to write. Links lead nowhere but to
    /// what the guest may reach anyway.
    #[cfg(target_os = "wasi")]
    fn open_fd(
        &self,
        _operation: &'static str,
        path: &str,
        flags: OFlags,
        mode: Mode,
    ) -> Result<rustix::io::Result<OwnedFd>> {
        Ok(retry_on_intr(|| rustix::fs::open(self.full_path(path), flags, mode)))
    }

    /// Makes `to` another name of the file `from` of `source`; false where that
    /// cannot be done, and then nothing was.
    #[cfg(not(target_os = "wasi"))]
    pub(crate) fn link(&self, to: &str, source: &FsStorage, from: &str) -> Result<bool> {
        let operation = "link";
        let identity = |file: &File, path: &str| {
            let stat = rustix::fs::fstat(file).map_err(|errno| Error::io(operation, path, errno.into()))?;
            Ok((stat.st_dev, stat.st_ino))
        };
        let file = source.open_file(operation, from, OFlags::RDONLY)?;
        let (from_dir, from_name) = source.parent(operation, from)?;
        let (to_dir, to_name) = self.parent(operation, to)?;
        let linked =
            retry_on_intr(|| rustix::fs::linkat(&from_dir, from_name, &to_dir, to_name, AtFlags::empty()));
        match linked {
            Ok(()) => {}
            // Another file system, or one or a policy without links.
            Err(Errno::XDEV | Errno::PERM | Errno::MLINK | Errno::NOTSUP | Errno::NOSYS) => return Ok(false),
            #[expect(unreachable_patterns, reason = "the same number as NOTSUP on some systems")]
            Err(Errno::OPNOTSUPP) => return Ok(false),
            Err(errno) => return Err(Error::io(operation, to, errno.into())),
        }
        let now = self.open_file(operation, to, OFlags::RDONLY)?;
        if identity(&file, from)? != identity(&now, to)? {
            return Err(Error::io(operation, to, refused("was replaced meanwhile")));
        }
        Ok(true)
    }

    /// By whole paths, as with [`FsStorage::open_fd`]. Whatever keeps a host from it,
    /// the copy that comes instead will tell if it matters.
    #[cfg(target_os = "wasi")]
    pub(crate) fn link(&self, to: &str, source: &FsStorage, from: &str) -> Result<bool> {
        Ok(std::fs::hard_link(source.full_path(from), self.full_path(to)).is_ok())
    }

    /// Removes an empty directory.
    pub(crate) fn remove_dir(&self, path: &str) -> Result<()> {
        let (parent, name) = self.parent("remove", path)?;
        retry_on_intr(|| rustix::fs::unlinkat(&parent, name, AtFlags::REMOVEDIR))
            .map_err(|errno| Error::io("remove", path, errno.into()))
    }

    fn full_path(&self, path: &str) -> PathBuf {
        if path.is_empty() { self.dir.clone() } else { self.dir.join(path) }
    }

    /// Creates the database directory and the missing ones above it, and makes
    /// their names durable: a synced file in a directory whose own name is lost
    /// is lost too.
    fn create_root(&self) -> Result<()> {
        let fail = |source| Error::io("create directory", self.describe(), source);
        // A directory that was removed and made again is another directory.
        *hold(&self.root) = None;
        let mut missing = Vec::new();
        for dir in self.dir.ancestors().filter(|dir| !dir.as_os_str().is_empty()) {
            match std::fs::metadata(dir) {
                Ok(metadata) if metadata.is_dir() => break,
                Ok(_) => return Err(fail(io::ErrorKind::NotADirectory.into())),
                Err(error) if error.kind() == io::ErrorKind::NotFound => missing.push(dir),
                Err(error) => return Err(fail(error)),
            }
        }
        for dir in missing.into_iter().rev() {
            match std::fs::create_dir(dir) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(fail(error)),
                _ => {}
            }
            let parent = match dir.parent() {
                Some(parent) if !parent.as_os_str().is_empty() => parent,
                _ => Path::new("."),
            };
            File::open(parent).and_then(|handle| sync_directory(&handle, parent)).map_err(fail)?;
        }
        Ok(())
    }
}

fn hold<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing that can panic runs under these mutexes.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn refused(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, format!("refused: it {what}"))
}

/// Names are made from ids; this holds if that ever breaks.
fn check_name(name: &str, path: &str) -> Result<()> {
    if matches!(name, "" | "." | "..") || name.contains('\0') {
        return Err(Error::invalid(format!("{path:?} is not a path within a database")));
    }
    Ok(())
}

/// The error of a walk, told of the file it was for.
fn rename(error: Error, path: &str) -> Error {
    match error {
        Error::Io { operation, source, .. } => Error::io(operation, path, source),
        other => other,
    }
}

/// Writes all of `bytes`: hosts write less than asked as a matter of course.
fn write_all_at(
    file: &File,
    operation: &'static str,
    path: &str,
    mut offset: u64,
    mut bytes: &[u8],
) -> Result<()> {
    while !bytes.is_empty() {
        let written = retry_on_intr(|| rustix::io::pwrite(file, bytes, offset))
            .map_err(|errno| Error::io(operation, path, errno.into()))?;
        if written == 0 {
            return Err(Error::io(operation, path, io::ErrorKind::WriteZero.into()));
        }
        offset += written as u64;
        bytes = bytes.get(written..).unwrap_or_default();
    }
    Ok(())
}

/// Writes a file's bytes in their place, so that the next sync writes them to
/// the disk even if the system takes them for written: after a failed sync it
/// may, though it answers them only from memory. Where a sector is written
/// whole, as it is here assumed, a power loss meanwhile changes nothing. Zeros behind
/// a log are zeros whatever became of them, and stay as they are.
fn rewrite(file: &File, operation: &'static str, path: &str) -> Result<()> {
    let mut buffer = vec![0; REWRITE_BYTES];
    let mut offset = 0;
    loop {
        let read = retry_on_intr(|| rustix::io::pread(file, &mut buffer[..], offset))
            .map_err(|errno| Error::io(operation, path, errno.into()))?;
        let Some(bytes) = buffer.get(..read).filter(|bytes| !bytes.is_empty()) else { return Ok(()) };
        if bytes.iter().any(|byte| *byte != 0) {
            write_all_at(file, operation, path, offset, bytes)?;
        }
        offset += read as u64;
    }
}

#[cfg(not(target_vendor = "apple"))]
fn sync_file(file: &File) -> io::Result<()> {
    // EINTR says that nothing is known to have failed yet.
    Ok(retry_on_intr(|| rustix::fs::fdatasync(file))?)
}

/// Finds room on the disk, so that writes need not: they would wait for a sync by
/// another thread that looks for some.
#[cfg(any(target_os = "linux", target_os = "android"))]
fn reserve(file: &File, len: u64) {
    let _ = rustix::fs::fallocate(file, rustix::fs::FallocateFlags::KEEP_SIZE, 0, len);
}

/// There is no such call, or it writes zeros.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn reserve(_file: &File, _len: u64) {}

/// The standard library knows that `fsync` alone does not reach the disk here.
#[cfg(target_vendor = "apple")]
fn sync_file(file: &File) -> io::Result<()> {
    file.sync_data()
}

/// Answers of hosts and file systems that cannot sync a directory, as against
/// those that tried and failed.
#[cfg(not(all(target_os = "wasi", feature = "component")))]
fn sync_directory(dir: &File, _path: &Path) -> io::Result<DirSync> {
    match retry_on_intr(|| rustix::fs::fsync(dir)) {
        Ok(()) => Ok(DirSync::Done),
        Err(Errno::INVAL | Errno::NOTSUP | Errno::NOSYS) => Ok(DirSync::Unsupported),
        #[cfg(target_os = "wasi")]
        Err(Errno::BADF | Errno::ISDIR | Errno::NOTCAPABLE) => Ok(DirSync::Unsupported),
        Err(errno) => Err(errno.into()),
    }
}

/// The preview 1 adapter refuses to sync a directory; `wasi:filesystem`, which
/// the component imports anyway, does it.
#[cfg(all(target_os = "wasi", feature = "component"))]
fn sync_directory(_dir: &File, path: &Path) -> io::Result<DirSync> {
    use wasip2::filesystem::preopens::get_directories;
    use wasip2::filesystem::types::{DescriptorFlags, ErrorCode, OpenFlags, PathFlags};

    let path = path.to_string_lossy();
    let inside = |(descriptor, name): (_, String)| {
        let rest = relative(&path, &name)?.to_owned();
        Some((descriptor, rest))
    };
    // The shortest rest belongs to the innermost directory, as in wasi-libc.
    let found = get_directories().into_iter().filter_map(inside).min_by_key(|(_, rest)| rest.len());
    let Some((descriptor, rest)) = found else {
        return Err(io::Error::new(io::ErrorKind::NotFound, "not within a directory that the host opened"));
    };
    let synced = if rest.is_empty() {
        descriptor.sync()
    } else {
        descriptor
            .open_at(PathFlags::SYMLINK_FOLLOW, &rest, OpenFlags::DIRECTORY, DescriptorFlags::READ)
            .and_then(|dir| dir.sync())
    };
    match synced {
        Ok(()) => Ok(DirSync::Done),
        Err(ErrorCode::Unsupported | ErrorCode::BadDescriptor | ErrorCode::Invalid) => {
            Ok(DirSync::Unsupported)
        }
        Err(code) => {
            let kind = match code {
                ErrorCode::NoEntry => io::ErrorKind::NotFound,
                ErrorCode::InsufficientSpace => io::ErrorKind::StorageFull,
                ErrorCode::Access | ErrorCode::NotPermitted => io::ErrorKind::PermissionDenied,
                _ => io::ErrorKind::Other,
            };
            Err(io::Error::new(kind, code.name()))
        }
    }
}

/// `path` as seen from the directory `base`, or `None` if it lies elsewhere.
/// The working directory of a guest is `/`.
#[cfg(any(test, all(target_os = "wasi", feature = "component")))]
fn relative<'a>(path: &'a str, base: &str) -> Option<&'a str> {
    fn trim(mut path: &str) -> &str {
        path = path.trim_end_matches('/');
        while let Some(rest) = path.strip_prefix('/').or_else(|| path.strip_prefix("./")) {
            path = rest;
        }
        if path == "." { "" } else { path }
    }
    let (path, base) = (trim(path), trim(base));
    if base.is_empty() {
        return Some(path);
    }
    let rest = path.strip_prefix(base)?;
    if rest.is_empty() { Some(rest) } else { rest.strip_prefix('/') }
}

impl Storage for FsStorage {
    fn open(&self, path: &str) -> Result<Arc<dyn ReadFile>> {
        let file = self.open_file("open", path, OFlags::RDONLY)?;
        Ok(Arc::new(FsReadFile { path: path.to_owned(), file }))
    }

    fn create(&self, path: &str) -> Result<Box<dyn AppendFile>> {
        let file = self.open_file("create", path, OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL)?;
        Ok(Box::new(FsAppendFile { path: path.to_owned(), file, len: 0 }))
    }

    /// Opened anew: the system tells each opening of a file once that a write has
    /// failed, so that neither of two learns it instead of the other.
    fn open_to_sync(&self, path: &str) -> Result<Box<dyn SyncFile>> {
        let file = self.open_file("open", path, OFlags::WRONLY)?;
        Ok(Box::new(FsSyncFile { path: path.to_owned(), file }))
    }

    fn overwrite(&self, path: &str, offset: u64, bytes: &[u8]) -> Result<()> {
        let operation = "overwrite";
        let file = self.open_file(operation, path, OFlags::WRONLY)?;
        let end = offset.checked_add(bytes.len() as u64);
        let size = size(&file, path)?;
        if end.is_none_or(|end| end > size) {
            return Err(Error::io(operation, path, io::ErrorKind::InvalidInput.into()));
        }
        write_all_at(&file, operation, path, offset, bytes)?;
        sync_file(&file).map_err(|source| Error::io("sync", path, source))
    }

    fn sync(&self, path: &str) -> Result<()> {
        let file = self.open_file("sync", path, OFlags::RDWR)?;
        rewrite(&file, "sync", path)?;
        sync_file(&file).map_err(|source| Error::io("sync", path, source))
    }

    fn create_dir(&self, path: &str) -> Result<()> {
        let operation = "create directory";
        if path.is_empty() {
            return self.create_root();
        }
        let (parent, name) = self.parent(operation, path)?;
        match retry_on_intr(|| rustix::fs::mkdirat(&parent, name, Mode::from_raw_mode(0o777))) {
            Ok(()) => Ok(()),
            // Whatever is there must be a directory, and not a link to one.
            Err(Errno::EXIST) => self.dir(operation, path).map(drop),
            Err(errno) => Err(Error::io(operation, path, errno.into())),
        }
    }

    fn remove(&self, path: &str) -> Result<()> {
        let (parent, name) = self.parent("remove", path)?;
        retry_on_intr(|| rustix::fs::unlinkat(&parent, name, AtFlags::empty()))
            .map_err(|errno| Error::io("remove", path, errno.into()))
    }

    fn list(&self, path: &str) -> Result<Vec<String>> {
        let fail = |errno: Errno| Error::io("list", path, errno.into());
        let dir = match self.dir("list", path) {
            Err(error) if error.is_not_found() => return Ok(Vec::new()),
            other => other?,
        };
        let mut names = Vec::new();
        for entry in Dir::read_from(&dir).map_err(fail)? {
            let entry = entry.map_err(fail)?;
            // A name that is not UTF-8 is none of ours, and stays unknown.
            let name = entry.file_name().to_string_lossy();
            if !matches!(&*name, "." | "..") {
                names.push(name.into_owned());
            }
        }
        Ok(names)
    }

    fn sync_dir(&self, path: &str) -> Result<DirSync> {
        let dir = self.dir("sync directory", path)?;
        sync_directory(&dir, &self.full_path(path))
            .map_err(|source| Error::io("sync directory", path, source))
    }

    fn lock(&self) -> Result<Box<dyn Lock>> {
        let mut lock = self.enter(true)?;
        lock.file = self.lock_file()?;
        Ok(Box::new(lock))
    }

    fn lock_shared(&self) -> Result<Box<dyn Lock>> {
        let mut lock = self.enter(false)?;
        lock.file = self.lock_file_shared()?;
        Ok(Box::new(lock))
    }

    #[cfg(not(target_os = "wasi"))]
    fn space_left(&self) -> Result<Option<u64>> {
        let dir = self.dir("look at the space of", "")?;
        let told = retry_on_intr(|| rustix::fs::fstatvfs(&dir));
        let told = told.map_err(|errno| Error::io("look at the space of", "", errno.into()))?;
        Ok(Some(told.f_bavail.saturating_mul(told.f_frsize)))
    }

    fn describe(&self) -> String {
        self.dir.display().to_string()
    }

    fn locate(&self, path: &str) -> Option<(&FsStorage, String)> {
        Some((self, path.to_owned()))
    }
}

/// Directories open in this process: natively by device and inode, so that two
/// spellings of a path are one directory.
static OPEN: Mutex<BTreeMap<LockKey, Holders>> = Mutex::new(BTreeMap::new());

/// Who in this process holds a directory.
#[derive(Debug)]
enum Holders {
    Writer,
    Readers(usize),
}

impl FsStorage {
    /// Puts the directory on the list; dropping the value takes it off.
    fn enter(&self, exclusive: bool) -> Result<FsLock> {
        use std::collections::btree_map::Entry;

        let key = self.lock_key()?;
        match (hold(&OPEN).entry(key.to_owned()), exclusive) {
            (Entry::Vacant(entry), true) => drop(entry.insert(Holders::Writer)),
            (Entry::Vacant(entry), false) => drop(entry.insert(Holders::Readers(1))),
            (Entry::Occupied(mut entry), false) if matches!(entry.get(), Holders::Readers(_)) => {
                if let Holders::Readers(readers) = entry.get_mut() {
                    *readers += 1;
                }
            }
            (Entry::Occupied(_), _) => {
                let text = format!(
                    "{} is open in this process already; share that handle or close it first",
                    self.describe()
                );
                return Err(Error::Locked(text));
            }
        }
        Ok(FsLock { key, file: None })
    }
}

#[cfg(not(target_os = "wasi"))]
type LockKey = (u64, u64);
#[cfg(target_os = "wasi")]
type LockKey = PathBuf;

#[cfg(not(target_os = "wasi"))]
impl FsStorage {
    fn lock_key(&self) -> Result<LockKey> {
        let file = crate::filename::LOCK;
        let root = self.root("lock", file)?;
        let stat = rustix::fs::fstat(&root).map_err(|errno| Error::io("lock", file, errno.into()))?;
        Ok((stat.st_dev as u64, stat.st_ino as u64))
    }

    /// `flock` ends with the process however that ends, so the file may stay.
    /// Removing it would let two processes lock two files of one name.
    fn lock_file(&self) -> Result<Option<File>> {
        use std::fs::TryLockError;
        use std::io::Write;

        let path = crate::filename::LOCK;
        let mut file = self.open_file("lock", path, OFlags::RDWR | OFlags::CREATE)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                // Readers leave no name: what is in the file is an older owner's.
                let readers = file.try_lock_shared().is_ok();
                return Err(self.locked(if readers { None } else { Some(&file) }));
            }
            Err(TryLockError::Error(source)) => return Err(Error::io("lock", path, source)),
        }
        // Only for the message above; a full disk must not keep anybody out.
        let _ = file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id()));
        Ok(Some(file))
    }

    /// As [`FsStorage::lock_file`], for a reader, who changes nothing.
    fn lock_file_shared(&self) -> Result<Option<File>> {
        use std::fs::TryLockError;

        let path = crate::filename::LOCK;
        let file = match self.open_file("lock", path, OFlags::RDONLY) {
            Err(error) if error.is_not_found() => return Ok(None),
            other => other?,
        };
        match file.try_lock_shared() {
            Ok(()) => Ok(Some(file)),
            Err(TryLockError::WouldBlock) => Err(self.locked(Some(&file))),
            Err(TryLockError::Error(source)) => Err(Error::io("lock", path, source)),
        }
    }

    /// The refusal where another process has the lock; a writer has put its id
    /// into the file.
    fn locked(&self, owner: Option<&File>) -> Error {
        use std::io::Read;

        let dir = self.describe();
        let Some(file) = owner else {
            return Error::Locked(format!("{dir} is open for reading elsewhere; close it there first"));
        };
        let mut owner = String::new();
        let read = file.take(20).read_to_string(&mut owner);
        let owner = match (read, owner.trim().parse::<u32>()) {
            (Ok(_), Ok(id)) => format!("process {id}"),
            _ => "another process".to_owned(),
        };
        Error::Locked(format!("{dir} is open in {owner}; close it there first"))
    }
}

#[cfg(target_os = "wasi")]
impl FsStorage {
    fn lock_key(&self) -> Result<LockKey> {
        let normal = |part: &std::path::Component<'_>| !matches!(part, std::path::Component::RootDir);
        Ok(self.dir.components().filter(normal).collect())
    }

    /// WASI has no file locks; whoever opened the directory for the guest locks.
    fn lock_file(&self) -> Result<Option<File>> {
        Ok(None)
    }

    fn lock_file_shared(&self) -> Result<Option<File>> {
        Ok(None)
    }
}

#[derive(Debug)]
struct FsLock {
    key: LockKey,
    file: Option<File>,
}

impl Lock for FsLock {}

impl Drop for FsLock {
    fn drop(&mut self) {
        // Unlock before leaving the list, or the next opener in this process
        // would be told of another process.
        self.file = None;
        let mut open = hold(&OPEN);
        match open.get_mut(&self.key) {
            Some(Holders::Readers(readers)) if *readers > 1 => *readers -= 1,
            _ => drop(open.remove(&self.key)),
        }
    }
}

fn size(file: &File, path: &str) -> Result<u64> {
    let stat = rustix::fs::fstat(file).map_err(|errno| Error::io("stat", path, errno.into()))?;
    u64::try_from(stat.st_size).map_err(|_| Error::io("stat", path, io::ErrorKind::InvalidData.into()))
}

#[derive(Debug)]
struct FsReadFile {
    path: String,
    file: File,
}

impl FsReadFile {
    /// Where a read ends, if a file can be so long.
    fn end_of(&self, offset: u64, len: usize) -> Result<u64> {
        let end = offset.checked_add(len as u64).filter(|&end| i64::try_from(end).is_ok());
        end.ok_or_else(|| self.past_end(offset, len))
    }

    fn past_end(&self, offset: u64, len: usize) -> Error {
        match self.size() {
            Ok(size) => super::past_end(&self.path, offset, len, size),
            Err(error) => error,
        }
    }
}

impl ReadFile for FsReadFile {
    fn read_at(&self, offset: u64, len: usize) -> Result<Bytes> {
        let end = self.end_of(offset, len)?;
        if len > UNCHECKED_READ_BYTES_MAX && self.size()? < end {
            return Err(self.past_end(offset, len));
        }
        let mut bytes = Vec::new();
        if bytes.try_reserve_exact(len).is_err() {
            return Err(Error::io("read", &*self.path, io::ErrorKind::OutOfMemory.into()));
        }
        while bytes.len() < len {
            let at = offset + bytes.len() as u64;
            let read = retry_on_intr(|| rustix::io::pread(&self.file, spare_capacity(&mut bytes), at))
                .map_err(|errno| Error::io("read", &*self.path, errno.into()))?;
            if read == 0 {
                return Err(self.past_end(offset, len));
            }
        }
        // The allocator may have given more room than asked for.
        bytes.truncate(len);
        Ok(Bytes::from(bytes))
    }

    fn read_into(&self, offset: u64, bytes: &mut [u8]) -> Result<()> {
        self.end_of(offset, bytes.len())?;
        let mut done = 0;
        while done < bytes.len() {
            let read =
                retry_on_intr(|| rustix::io::pread(&self.file, &mut bytes[done..], offset + done as u64))
                    .map_err(|errno| Error::io("read", &*self.path, errno.into()))?;
            if read == 0 {
                return Err(self.past_end(offset, bytes.len()));
            }
            done += read;
        }
        Ok(())
    }

    fn size(&self) -> Result<u64> {
        size(&self.file, &self.path)
    }
}

#[derive(Debug)]
struct FsAppendFile {
    path: String,
    file: File,
    /// Bytes of completed appends. Positional writes put the next append here,
    /// whatever a failed one left behind.
    len: u64,
}

impl AppendFile for FsAppendFile {
    fn append(&mut self, bytes: &[u8]) -> Result<()> {
        write_all_at(&self.file, "append to", &self.path, self.len, bytes)?;
        self.len += bytes.len() as u64;
        Ok(())
    }

    fn preallocate(&mut self, len: u64) -> Result<()> {
        let zeros = [0; 16 << 10];
        let mut at = self.len;
        while at < len {
            let chunk = &zeros[..zeros.len().min((len - at) as usize)];
            write_all_at(&self.file, "write zeros to", &self.path, at, chunk)?;
            at += chunk.len() as u64;
        }
        Ok(())
    }

    fn reserve(&mut self, len: u64) {
        reserve(&self.file, len);
    }

    fn sync_data(&mut self) -> Result<()> {
        sync_file(&self.file).map_err(|source| Error::io("sync", &*self.path, source))
    }

    fn truncate(&mut self, len: u64) -> Result<()> {
        if len > self.len {
            return Err(Error::io("truncate", &*self.path, io::ErrorKind::InvalidInput.into()));
        }
        retry_on_intr(|| rustix::fs::ftruncate(&self.file, len))
            .map_err(|errno| Error::io("truncate", &*self.path, errno.into()))?;
        self.len = len;
        Ok(())
    }

    fn len(&self) -> u64 {
        self.len
    }
}

#[derive(Debug)]
struct FsSyncFile {
    path: String,
    file: File,
}

impl SyncFile for FsSyncFile {
    fn sync_data(&self) -> Result<()> {
        sync_file(&self.file).map_err(|source| Error::io("sync", &*self.path, source))
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn paths_are_seen_from_the_preopened_directory() {
        for (path, base, expected) in [
            ("/data/wal", "/data", Some("wal")),
            ("/data", "/data", Some("")),
            ("data/", "./data", Some("")),
            ("/wal", "/", Some("wal")),
            ("/database", "/data", None),
            ("/other/wal", "/data", None),
        ] {
            assert_eq!(super::relative(path, base), expected, "{path} from {base}");
        }
    }
}
