//! Files in memory: for tests, for databases that need not outlive the process,
//! and for hosts without a file system.
//!
//! A [`MemoryStorage`] is a handle; its clones see the same files, so opening a
//! database again over a clone finds what was written. Like a file system it
//! keeps the bytes of a removed file while somebody has it open.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use crate::error::{Error, Result};
use crate::storage::{AppendFile, DirSync, Lock, ReadFile, Storage, SyncFile};

/// A directory in memory.
#[derive(Clone, Debug, Default)]
pub struct MemoryStorage {
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    files: BTreeMap<String, Content>,
    dirs: BTreeSet<String>,
    locked: bool,
    /// Holders of the shared lock.
    readers: usize,
}

type Content = Arc<Mutex<Vec<u8>>>;

/// A panic elsewhere leaves plain bytes as they are: no invariant to lose.
fn hold<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn fail<T>(operation: &'static str, path: &str, kind: io::ErrorKind) -> Result<T> {
    Err(Error::io(operation, path, kind.into()))
}

fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(parent, _)| parent)
}

impl State {
    fn has_dir(&self, path: &str) -> bool {
        path.is_empty() || self.dirs.contains(path)
    }

    fn file(&self, operation: &'static str, path: &str) -> Result<Content> {
        match self.files.get(path) {
            Some(content) => Ok(content.clone()),
            None if self.has_dir(path) => fail(operation, path, io::ErrorKind::IsADirectory),
            None => fail(operation, path, io::ErrorKind::NotFound),
        }
    }
}

impl MemoryStorage {
    /// An empty directory.
    pub fn new() -> Self {
        Self::default()
    }

    /// All bytes of a file, or `None` if it does not exist.
    pub fn read(&self, path: &str) -> Option<Vec<u8>> {
        let content = hold(&self.state).files.get(path).cloned()?;
        let bytes = hold(&content).clone();
        Some(bytes)
    }

    /// Makes a file hold exactly `bytes`, with its directories. Whoever has the
    /// former file open keeps seeing that.
    pub fn write(&self, path: &str, bytes: impl Into<Vec<u8>>) {
        let mut state = hold(&self.state);
        let mut dir = parent(path);
        while !dir.is_empty() {
            state.dirs.insert(dir.to_owned());
            dir = parent(dir);
        }
        state.files.insert(path.to_owned(), Arc::new(Mutex::new(bytes.into())));
    }

    /// Paths of all files, ascending.
    pub fn files(&self) -> Vec<String> {
        hold(&self.state).files.keys().cloned().collect()
    }

    /// A copy that shares nothing with this one and is not locked.
    pub fn deep_clone(&self) -> MemoryStorage {
        let state = hold(&self.state);
        let copy = |(path, content): (&String, &Content)| {
            (path.clone(), Arc::new(Mutex::new(hold(content).clone())))
        };
        let files = state.files.iter().map(copy).collect();
        let copied = State { files, dirs: state.dirs.clone(), ..State::default() };
        MemoryStorage { state: Arc::new(Mutex::new(copied)) }
    }
}

impl Storage for MemoryStorage {
    fn open(&self, path: &str) -> Result<Arc<dyn ReadFile>> {
        let content = hold(&self.state).file("open", path)?;
        Ok(Arc::new(MemoryFile { path: path.to_owned(), content }))
    }

    fn create(&self, path: &str) -> Result<Box<dyn AppendFile>> {
        let mut state = hold(&self.state);
        if state.files.contains_key(path) || state.has_dir(path) {
            return fail("create", path, io::ErrorKind::AlreadyExists);
        }
        if !state.has_dir(parent(path)) {
            return fail("create", path, io::ErrorKind::NotFound);
        }
        let content = Content::default();
        state.files.insert(path.to_owned(), content.clone());
        Ok(Box::new(MemoryAppend { path: path.to_owned(), content, len: 0 }))
    }

    fn open_to_sync(&self, path: &str) -> Result<Box<dyn SyncFile>> {
        hold(&self.state).file("open", path)?;
        Ok(Box::new(Synced))
    }

    fn overwrite(&self, path: &str, offset: u64, bytes: &[u8]) -> Result<()> {
        let content = hold(&self.state).file("overwrite", path)?;
        let mut content = hold(&content);
        match range(&content, offset, bytes.len()) {
            Some(range) => content[range].copy_from_slice(bytes),
            None => return fail("overwrite", path, io::ErrorKind::InvalidInput),
        }
        Ok(())
    }

    fn sync(&self, path: &str) -> Result<()> {
        hold(&self.state).file("sync", path).map(drop)
    }

    fn create_dir(&self, path: &str) -> Result<()> {
        let mut state = hold(&self.state);
        if state.has_dir(path) {
            return Ok(());
        }
        if state.files.contains_key(path) {
            return fail("create directory", path, io::ErrorKind::AlreadyExists);
        }
        if !state.has_dir(parent(path)) {
            return fail("create directory", path, io::ErrorKind::NotFound);
        }
        state.dirs.insert(path.to_owned());
        Ok(())
    }

    fn remove(&self, path: &str) -> Result<()> {
        let mut state = hold(&self.state);
        state.file("remove", path)?;
        state.files.remove(path);
        Ok(())
    }

    fn list(&self, path: &str) -> Result<Vec<String>> {
        let state = hold(&self.state);
        if state.files.contains_key(path) {
            return fail("list", path, io::ErrorKind::NotADirectory);
        }
        let inside = |name: &String| parent(name) == path;
        let name = |name: &String| name.rsplit('/').next().unwrap_or_default().to_owned();
        let dirs = state.dirs.iter().filter(|dir| inside(dir)).map(name);
        Ok(dirs.chain(state.files.keys().filter(|file| inside(file)).map(name)).collect())
    }

    fn sync_dir(&self, path: &str) -> Result<DirSync> {
        if hold(&self.state).has_dir(path) {
            return Ok(DirSync::Done);
        }
        fail("sync directory", path, io::ErrorKind::NotFound)
    }

    fn lock(&self) -> Result<Box<dyn Lock>> {
        let mut state = hold(&self.state);
        if state.locked || state.readers > 0 {
            return Err(super::locked_in_memory());
        }
        state.locked = true;
        Ok(Box::new(MemoryLock { state: self.state.clone(), exclusive: true }))
    }

    fn lock_shared(&self) -> Result<Box<dyn Lock>> {
        let mut state = hold(&self.state);
        if state.locked {
            return Err(super::locked_in_memory());
        }
        state.readers += 1;
        Ok(Box::new(MemoryLock { state: self.state.clone(), exclusive: false }))
    }

    fn space_left(&self) -> Result<Option<u64>> {
        Ok(Some(u64::MAX))
    }

    fn describe(&self) -> String {
        "memory".into()
    }
}

/// `offset..offset + len` if that lies within `content`.
fn range(content: &[u8], offset: u64, len: usize) -> Option<std::ops::Range<usize>> {
    let start = usize::try_from(offset).ok()?;
    let end = start.checked_add(len)?;
    (end <= content.len()).then_some(start..end)
}

#[derive(Debug)]
struct MemoryFile {
    path: String,
    content: Content,
}

impl ReadFile for MemoryFile {
    fn read_at(&self, offset: u64, len: usize) -> Result<Bytes> {
        let content = hold(&self.content);
        match range(&content, offset, len) {
            Some(range) => Ok(Bytes::copy_from_slice(&content[range])),
            None => Err(super::past_end(&self.path, offset, len, content.len() as u64)),
        }
    }

    fn size(&self) -> Result<u64> {
        Ok(hold(&self.content).len() as u64)
    }
}

/// Memory survives nothing, whatever is done for it.
#[derive(Debug)]
struct Synced;

impl SyncFile for Synced {
    fn sync_data(&self) -> Result<()> {
        Ok(())
    }
}

#[derive(Debug)]
struct MemoryAppend {
    path: String,
    content: Content,
    len: u64,
}

impl AppendFile for MemoryAppend {
    fn append(&mut self, bytes: &[u8]) -> Result<()> {
        let mut content = hold(&self.content);
        if content.try_reserve(bytes.len()).is_err() {
            return fail("append to", &self.path, io::ErrorKind::OutOfMemory);
        }
        content.extend_from_slice(bytes);
        self.len = content.len() as u64;
        Ok(())
    }

    fn sync_data(&mut self) -> Result<()> {
        Ok(())
    }

    fn truncate(&mut self, len: u64) -> Result<()> {
        let mut content = hold(&self.content);
        match usize::try_from(len) {
            Ok(len) if len <= content.len() => content.truncate(len),
            _ => return fail("truncate", &self.path, io::ErrorKind::InvalidInput),
        }
        self.len = len;
        Ok(())
    }

    fn len(&self) -> u64 {
        self.len
    }
}

#[derive(Debug)]
struct MemoryLock {
    state: Arc<Mutex<State>>,
    exclusive: bool,
}

impl Lock for MemoryLock {}

impl Drop for MemoryLock {
    fn drop(&mut self) {
        let mut state = hold(&self.state);
        match self.exclusive {
            true => state.locked = false,
            false => state.readers -= 1,
        }
    }
}
