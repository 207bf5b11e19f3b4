//! Records what is asked of a storage, one line of text for each call.
//!
//! The order of calls is the engine's durability: a test that compares the
//! lines with a golden text makes "synced before named" something to review.
//!
//! ```text
//! create wal/000003.log
//! append wal/000003.log 60 bytes at 0
//! sync wal/000003.log
//! sync_dir wal
//! ```
//!
//! A call that failed ends in `: failed`. Calls are recorded when they return.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

use crate::error::Result;
use crate::storage::{AppendFile, DirSync, Lock, ReadFile, Storage, SyncFile};

/// Wraps a storage; clones share the record.
#[derive(Clone, Debug)]
pub struct TraceStorage {
    inner: Arc<dyn Storage>,
    trace: Trace,
}

#[derive(Clone, Debug, Default)]
struct Trace(Arc<Mutex<Vec<Line>>>);

#[derive(Debug)]
struct Line {
    text: String,
    changes: bool,
}

impl Trace {
    fn record<T>(&self, changes: bool, mut text: String, result: Result<T>) -> Result<T> {
        if result.is_err() {
            text.push_str(": failed");
        }
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(Line { text, changes });
        result
    }

    fn change<T>(&self, text: String, result: Result<T>) -> Result<T> {
        self.record(true, text, result)
    }

    fn look<T>(&self, text: String, result: Result<T>) -> Result<T> {
        self.record(false, text, result)
    }

    fn take(&self, keep: impl Fn(&Line) -> bool) -> String {
        let lines = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        lines.into_iter().filter(keep).map(|line| line.text + "\n").collect()
    }
}

impl TraceStorage {
    /// Records the calls to `inner`.
    pub fn new(inner: Arc<dyn Storage>) -> Self {
        TraceStorage { inner, trace: Trace::default() }
    }

    /// All lines since the last take, each ended by a newline.
    pub fn take(&self) -> String {
        self.trace.take(|_| true)
    }

    /// Like [`TraceStorage::take`], without the calls that only look: open,
    /// read, size, list.
    pub fn take_changes(&self) -> String {
        self.trace.take(|line| line.changes)
    }
}

/// The database directory has an empty path.
fn dir(path: &str) -> &str {
    if path.is_empty() { "." } else { path }
}

impl Storage for TraceStorage {
    fn open(&self, path: &str) -> Result<Arc<dyn ReadFile>> {
        let inner = self.trace.look(format!("open {path}"), self.inner.open(path))?;
        Ok(Arc::new(TraceRead { path: path.to_owned(), inner, trace: self.trace.clone() }))
    }

    fn space_left(&self) -> Result<Option<u64>> {
        self.inner.space_left()
    }

    fn create(&self, path: &str) -> Result<Box<dyn AppendFile>> {
        let inner = self.trace.change(format!("create {path}"), self.inner.create(path))?;
        Ok(Box::new(TraceAppend { path: path.to_owned(), inner, trace: self.trace.clone() }))
    }

    fn open_to_sync(&self, path: &str) -> Result<Box<dyn SyncFile>> {
        let inner = self.trace.look(format!("open {path}"), self.inner.open_to_sync(path))?;
        Ok(Box::new(TraceSync { path: path.to_owned(), inner, trace: self.trace.clone() }))
    }

    fn overwrite(&self, path: &str, offset: u64, bytes: &[u8]) -> Result<()> {
        let text = format!("overwrite {path} {} bytes at {offset}", bytes.len());
        self.trace.change(text, self.inner.overwrite(path, offset, bytes))
    }

    fn sync(&self, path: &str) -> Result<()> {
        self.trace.change(format!("sync {path}"), self.inner.sync(path))
    }

    fn create_dir(&self, path: &str) -> Result<()> {
        self.trace.change(format!("create_dir {}", dir(path)), self.inner.create_dir(path))
    }

    fn remove(&self, path: &str) -> Result<()> {
        self.trace.change(format!("remove {path}"), self.inner.remove(path))
    }

    fn list(&self, path: &str) -> Result<Vec<String>> {
        self.trace.look(format!("list {}", dir(path)), self.inner.list(path))
    }

    fn sync_dir(&self, path: &str) -> Result<DirSync> {
        let result = self.inner.sync_dir(path);
        let answer = if matches!(result, Ok(DirSync::Unsupported)) { ": unsupported" } else { "" };
        self.trace.change(format!("sync_dir {}{answer}", dir(path)), result)
    }

    fn lock(&self) -> Result<Box<dyn Lock>> {
        let inner = self.trace.change("lock".into(), self.inner.lock())?;
        Ok(Box::new(TraceLock { _inner: inner, exclusive: true, trace: self.trace.clone() }))
    }

    fn lock_shared(&self) -> Result<Box<dyn Lock>> {
        let inner = self.trace.look("lock_shared".into(), self.inner.lock_shared())?;
        Ok(Box::new(TraceLock { _inner: inner, exclusive: false, trace: self.trace.clone() }))
    }

    fn describe(&self) -> String {
        self.inner.describe()
    }
}

#[derive(Debug)]
struct TraceRead {
    path: String,
    inner: Arc<dyn ReadFile>,
    trace: Trace,
}

impl ReadFile for TraceRead {
    fn read_at(&self, offset: u64, len: usize) -> Result<Bytes> {
        let text = format!("read {} {len} bytes at {offset}", self.path);
        self.trace.look(text, self.inner.read_at(offset, len))
    }

    fn size(&self) -> Result<u64> {
        self.trace.look(format!("size {}", self.path), self.inner.size())
    }
}

#[derive(Debug)]
struct TraceAppend {
    path: String,
    inner: Box<dyn AppendFile>,
    trace: Trace,
}

impl AppendFile for TraceAppend {
    fn append(&mut self, bytes: &[u8]) -> Result<()> {
        let text = format!("append {} {} bytes at {}", self.path, bytes.len(), self.inner.len());
        self.trace.change(text, self.inner.append(bytes))
    }

    fn preallocate(&mut self, len: u64) -> Result<()> {
        self.trace.change(format!("preallocate {} to {len} bytes", self.path), self.inner.preallocate(len))
    }

    fn reserve(&mut self, len: u64) {
        self.inner.reserve(len);
    }

    fn sync_data(&mut self) -> Result<()> {
        self.trace.change(format!("sync {}", self.path), self.inner.sync_data())
    }

    fn truncate(&mut self, len: u64) -> Result<()> {
        self.trace.change(format!("truncate {} to {len} bytes", self.path), self.inner.truncate(len))
    }

    fn len(&self) -> u64 {
        self.inner.len()
    }
}

#[derive(Debug)]
struct TraceSync {
    path: String,
    inner: Box<dyn SyncFile>,
    trace: Trace,
}

impl SyncFile for TraceSync {
    fn sync_data(&self) -> Result<()> {
        self.trace.change(format!("sync {}", self.path), self.inner.sync_data())
    }
}

#[derive(Debug)]
struct TraceLock {
    _inner: Box<dyn Lock>,
    exclusive: bool,
    trace: Trace,
}

impl Lock for TraceLock {}

impl Drop for TraceLock {
    fn drop(&mut self) {
        let _ = self.trace.record(self.exclusive, "unlock".into(), Ok(()));
    }
}
