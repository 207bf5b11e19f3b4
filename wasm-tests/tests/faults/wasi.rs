//! A [`Disk`] as a directory of WASI preview 1.
//!
//! A core module's host cannot sync a directory unless it wants to:
//! wasi-common's own `fd_sync` refuses those. So [`Names::ByDirectory`] comes
//! with an `fd_sync` of ours, which knows from the order in which descriptors
//! were given what each of them is.

use std::any::Any;
use std::io::{IoSlice, IoSliceMut};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use wasi_common::dir::{OpenResult, ReaddirCursor, ReaddirEntity};
use wasi_common::file::{FdFlags, FileType, Filestat, OFlags};
use wasi_common::pipe::WritePipe;
use wasi_common::random::Deterministic;
use wasi_common::snapshots::preview_1::types::Errno;
use wasi_common::sync::{clocks_ctx, sched_ctx};
use wasi_common::{Error, ErrorExt, Table, WasiCtx, WasiDir, WasiFile};
use wasmtime46::{Caller, Linker, Result};

use crate::disk::{Disk, Inode, Names, Node, Refusal};

/// A disk that is in use, or was.
pub type SharedDisk = Arc<Mutex<Disk>>;

pub fn hold<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Descriptor of the preopened directory, and thus before those of all others.
const ROOT_DESCRIPTOR: usize = 3;

/// What one instance has of a disk.
struct Opened {
    disk: SharedDisk,
    /// What descriptors lead to, from [`ROOT_DESCRIPTOR`] on.
    descriptors: Mutex<Vec<Descriptor>>,
}

#[derive(Clone)]
enum Descriptor {
    Dir(String),
    File(Inode),
}

/// The host of one instance.
pub struct Host {
    wasi: WasiCtx,
    opened: Arc<Opened>,
    stderr: Arc<RwLock<Vec<u8>>>,
}

impl Host {
    /// A host with `disk` as `/`. Its randomness is the same every time.
    pub fn new(disk: SharedDisk) -> Self {
        let random = Box::new(Deterministic::new(vec![3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5]));
        let wasi = WasiCtx::new(random, clocks_ctx(), sched_ctx(), Table::new());
        let stderr = Arc::new(RwLock::new(Vec::new()));
        wasi.set_stderr(Box::new(WritePipe::from_shared(Arc::clone(&stderr))));
        let root = Descriptor::Dir(String::new());
        let opened = Arc::new(Opened { disk, descriptors: Mutex::new(vec![root]) });
        let dir = Dir { opened: Arc::clone(&opened), path: String::new() };
        wasi.push_preopened_dir(Box::new(dir), "/").expect("a table with room");
        Host { wasi, opened, stderr }
    }

    /// What the guest printed so far.
    pub fn stderr(&self) -> String {
        let stderr = self.stderr.read().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&stderr).into_owned()
    }

    fn sync(&self, descriptor: u32) -> Errno {
        let descriptors = hold(&self.opened.descriptors);
        let next = (ROOT_DESCRIPTOR + descriptors.len()) as u32;
        assert!(!self.wasi.table().contains_key(next), "descriptors are out of step");
        let index = (descriptor as usize).checked_sub(ROOT_DESCRIPTOR);
        let known = index.and_then(|index| descriptors.get(index));
        let Some(known) = known.filter(|_| self.wasi.table().contains_key(descriptor)) else {
            return Errno::Badf;
        };
        let mut disk = hold(&self.opened.disk);
        let synced = match known {
            Descriptor::Dir(path) => disk.sync_dir(path),
            Descriptor::File(inode) => disk.sync_file(*inode),
        };
        synced.map_or_else(errno, |()| Errno::Success)
    }
}

/// What a module may import.
pub fn add_to_linker(linker: &mut Linker<Host>, names: Names) -> Result<()> {
    wasi_common::sync::add_to_linker(linker, |host: &mut Host| &mut host.wasi)?;
    if names == Names::ByDirectory {
        linker.allow_shadowing(true);
        for name in ["fd_sync", "fd_datasync"] {
            linker.func_wrap(
                "wasi_snapshot_preview1",
                name,
                |caller: Caller<'_, Host>, descriptor: u32| {
                    u32::from(u16::from(caller.data().sync(descriptor)))
                },
            )?;
        }
    }
    Ok(())
}

fn errno(refusal: Refusal) -> Errno {
    match refusal {
        Refusal::NoSpace => Errno::Nospc,
        Refusal::Io => Errno::Io,
    }
}

fn refused(refusal: Refusal) -> Error {
    errno(refusal).into()
}

fn stat(filetype: FileType, size: usize) -> Filestat {
    Filestat {
        device_id: 1,
        inode: 1,
        filetype,
        nlink: 1,
        size: size as u64,
        atim: None,
        mtim: None,
        ctim: None,
    }
}

fn at(offset: u64) -> Result<usize, Error> {
    // Far more than a test writes, far less than memory.
    const FILE_BYTES_MAX: u64 = 1 << 28;
    if offset > FILE_BYTES_MAX {
        return Err(Errno::Fbig.into());
    }
    Ok(offset as usize)
}

/// A file; the engine reads and writes at positions only.
struct File {
    opened: Arc<Opened>,
    inode: Inode,
    flags: FdFlags,
}

impl File {
    fn disk(&self) -> MutexGuard<'_, Disk> {
        hold(&self.opened.disk)
    }
}

#[async_trait::async_trait]
impl WasiFile for File {
    fn as_any(&self) -> &dyn Any {
        self
    }

    async fn get_filetype(&self) -> Result<FileType, Error> {
        Ok(FileType::RegularFile)
    }

    async fn get_fdflags(&self) -> Result<FdFlags, Error> {
        Ok(self.flags)
    }

    async fn get_filestat(&self) -> Result<Filestat, Error> {
        Ok(stat(FileType::RegularFile, self.disk().content(self.inode).len()))
    }

    async fn set_filestat_size(&self, size: u64) -> Result<(), Error> {
        self.disk().truncate(self.inode, at(size)?);
        Ok(())
    }

    async fn datasync(&self) -> Result<(), Error> {
        self.sync().await
    }

    async fn sync(&self) -> Result<(), Error> {
        self.disk().sync_file(self.inode).map_err(refused)
    }

    async fn read_vectored_at<'a>(&self, bufs: &mut [IoSliceMut<'a>], offset: u64) -> Result<u64, Error> {
        let Some(buf) = bufs.iter_mut().find(|buf| !buf.is_empty()) else { return Ok(0) };
        let mut disk = self.disk();
        let len = disk.transfer(buf.len());
        let rest = disk.content(self.inode).get(at(offset)?..).unwrap_or_default();
        let len = len.min(rest.len());
        buf[..len].copy_from_slice(&rest[..len]);
        Ok(len as u64)
    }

    async fn write_vectored_at<'a>(&self, bufs: &[IoSlice<'a>], offset: u64) -> Result<u64, Error> {
        let Some(buf) = bufs.iter().find(|buf| !buf.is_empty()) else { return Ok(0) };
        let written = self.disk().write(self.inode, at(offset)?, buf).map_err(refused)?;
        Ok(written as u64)
    }
}

/// A directory.
struct Dir {
    opened: Arc<Opened>,
    path: String,
}

impl Dir {
    fn disk(&self) -> MutexGuard<'_, Disk> {
        hold(&self.opened.disk)
    }

    /// Path from the root of the disk.
    fn path(&self, path: &str) -> Result<String, Error> {
        let mut full = self.path.clone();
        for name in path.split('/').filter(|name| !matches!(*name, "" | ".")) {
            if name == ".." {
                return Err(Error::perm());
            }
            if !full.is_empty() {
                full.push('/');
            }
            full.push_str(name);
        }
        Ok(full)
    }

    /// A name that something new may get.
    fn new_name(&self, disk: &Disk, path: &str) -> Result<(), Error> {
        match (disk.node(path), disk.node(crate::disk::parent(path))) {
            (Some(_), _) => Err(Error::exist()),
            (None, Some(Node::Dir)) => Ok(()),
            (None, Some(Node::File(_))) => Err(Error::not_dir()),
            (None, None) => Err(Error::not_found()),
        }
    }
}

fn filetype(node: Node) -> FileType {
    match node {
        Node::Dir => FileType::Directory,
        Node::File(_) => FileType::RegularFile,
    }
}

#[async_trait::async_trait]
impl WasiDir for Dir {
    fn as_any(&self) -> &dyn Any {
        self
    }

    async fn open_file(
        &self,
        _symlink_follow: bool,
        path: &str,
        oflags: OFlags,
        _read: bool,
        write: bool,
        flags: FdFlags,
    ) -> Result<OpenResult, Error> {
        let path = self.path(path)?;
        let mut disk = self.disk();
        let inode = match disk.node(&path) {
            Some(_) if oflags.contains(OFlags::EXCLUSIVE) => return Err(Error::exist()),
            Some(Node::Dir) if write => return Err(Errno::Isdir.into()),
            Some(Node::Dir) => {
                drop(disk);
                hold(&self.opened.descriptors).push(Descriptor::Dir(path.clone()));
                return Ok(OpenResult::Dir(Box::new(Dir { opened: Arc::clone(&self.opened), path })));
            }
            _ if oflags.contains(OFlags::DIRECTORY) => {
                return Err(if disk.node(&path).is_some() { Error::not_dir() } else { Error::not_found() });
            }
            Some(Node::File(inode)) => inode,
            None if oflags.contains(OFlags::CREATE) => {
                self.new_name(&disk, &path)?;
                disk.create_file(&path)
            }
            None => return Err(Error::not_found()),
        };
        if oflags.contains(OFlags::TRUNCATE) {
            disk.truncate(inode, 0);
        }
        drop(disk);
        hold(&self.opened.descriptors).push(Descriptor::File(inode));
        Ok(OpenResult::File(Box::new(File { opened: Arc::clone(&self.opened), inode, flags })))
    }

    async fn create_dir(&self, path: &str) -> Result<(), Error> {
        let path = self.path(path)?;
        let mut disk = self.disk();
        self.new_name(&disk, &path)?;
        disk.set_name(&path, Some(Node::Dir));
        Ok(())
    }

    async fn readdir(
        &self,
        cursor: ReaddirCursor,
    ) -> Result<Box<dyn Iterator<Item = Result<ReaddirEntity, Error>> + Send>, Error> {
        let entries = self.disk().list(&self.path).into_iter().enumerate().skip(u64::from(cursor) as usize);
        Ok(Box::new(entries.map(|(index, (name, node))| {
            let next = ReaddirCursor::from(index as u64 + 1);
            Ok(ReaddirEntity { next, inode: 1, name, filetype: filetype(node) })
        })))
    }

    async fn unlink_file(&self, path: &str) -> Result<(), Error> {
        let path = self.path(path)?;
        let mut disk = self.disk();
        match disk.node(&path) {
            Some(Node::File(_)) => disk.set_name(&path, None),
            Some(Node::Dir) => return Err(Errno::Isdir.into()),
            None => return Err(Error::not_found()),
        }
        Ok(())
    }

    async fn get_filestat(&self) -> Result<Filestat, Error> {
        Ok(stat(FileType::Directory, 0))
    }

    async fn get_path_filestat(&self, path: &str, _follow_symlinks: bool) -> Result<Filestat, Error> {
        let path = self.path(path)?;
        let disk = self.disk();
        match disk.node(&path) {
            Some(node @ Node::File(inode)) => Ok(stat(filetype(node), disk.content(inode).len())),
            Some(node @ Node::Dir) => Ok(stat(filetype(node), 0)),
            None => Err(Error::not_found()),
        }
    }
}
