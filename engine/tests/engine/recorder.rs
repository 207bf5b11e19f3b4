//! A storage that keeps what a crash would leave after each of its calls.
//!
//! A killed process leaves every byte it has written, and of the write that it
//! died in any part. A power loss leaves what was synced, bytes by `sync` and
//! names by `sync_dir`, and of the rest anything.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};

use duramen::storage::memory::MemoryStorage;
use duramen::storage::{AppendFile, DirSync, Lock, ReadFile, Storage};
use duramen::{Error, Result};

use crate::random::Random;

/// Files as a crash would leave them.
pub struct Image {
    /// The call after which, or within which, it was taken.
    pub call: String,
    pub crash: Crash,
    pub files: MemoryStorage,
    /// What of them a power loss would leave.
    durable: Durable,
    /// What the workload had told by then.
    pub progress: Progress,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Crash {
    /// Everything written is there.
    Kill,
    /// Only what was synced is there.
    PowerLoss,
}

/// Numbers of commits.
#[derive(Clone, Copy, Debug, Default)]
pub struct Progress {
    /// The last one that was begun.
    pub begun: u64,
    /// The last one that a kill must leave.
    pub buffered: u64,
    /// The last one that a power loss must leave.
    pub synced: u64,
}

/// The storage; clones share what is recorded.
#[derive(Clone, Debug)]
pub struct Recorder {
    files: MemoryStorage,
    names_durable: bool,
    /// A sync that does nothing: `sync_dir` and a directory, or `sync` and one
    /// file, or any file of a directory.
    ignored: &'static str,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    images: Vec<Image>,
    progress: Progress,
    durable: Durable,
    dirs: BTreeSet<String>,
}

/// What survives a power loss.
#[derive(Clone, Default)]
struct Durable {
    /// Bytes of each file that was ever created.
    bytes: BTreeMap<String, Vec<u8>>,
    /// Names of files and of directories.
    names: BTreeSet<String>,
}

impl Durable {
    /// All of `files`.
    fn all(files: &MemoryStorage) -> Durable {
        let paths = files.files();
        let bytes = paths.iter().map(|path| (path.clone(), files.read(path).unwrap())).collect();
        let names = paths.into_iter().chain(dirs(files)).collect();
        Durable { bytes, names }
    }

    /// Nothing but this.
    fn files(&self) -> MemoryStorage {
        let files = MemoryStorage::new();
        for name in &self.names {
            match self.bytes.get(name) {
                _ if !parent(name).is_empty() && !self.names.contains(parent(name)) => {}
                Some(bytes) => files.write(name, bytes.clone()),
                None => files.create_dir(name).unwrap(),
            }
        }
        files
    }
}

/// Directories of a database.
fn dirs(files: &MemoryStorage) -> BTreeSet<String> {
    let top =
        files.list("").unwrap().into_iter().filter(|name| ["manifest", "wal", "sst"].contains(&&**name));
    let keyspaces = files.list("sst").unwrap().into_iter().map(|id| format!("sst/{id}"));
    top.chain(keyspaces).collect()
}

impl Image {
    /// Another outcome of a power loss: of what was not synced each part is
    /// there or not.
    pub fn mixed(&self, random: &mut Random) -> Image {
        let durable = &self.durable;
        let files = durable.files();
        for path in self.files.files() {
            let named = durable.names.contains(&path);
            if !named && random.one_in(2) {
                continue;
            }
            let written = self.files.read(&path).unwrap();
            let mut bytes = durable.bytes.get(&path).cloned().unwrap_or_default();
            let unsynced = if bytes.len() == written.len() { 0 } else { bytes.len() };
            // At a place to which all was written, or to some place in between.
            let end = match random.below(4) {
                0 => written.len(),
                1 => unsynced,
                _ => unsynced + random.below((written.len() - unsynced) as u64 + 1) as usize,
            };
            bytes.resize(bytes.len().max(end), 0);
            bytes[unsynced..end].copy_from_slice(&written[unsynced..end]);
            files.write(&path, bytes);
        }
        // Names that were removed may have gone.
        for path in files.files() {
            if self.files.read(&path).is_none() && random.one_in(2) {
                files.remove(&path).unwrap();
            }
        }
        let durable = Durable::all(&files);
        Image { call: self.call.clone(), crash: Crash::PowerLoss, files, durable, progress: self.progress }
    }

    /// A storage that goes on from here.
    pub fn recorder(&self, names_durable: bool) -> Recorder {
        let state = State {
            images: Vec::new(),
            progress: self.progress,
            durable: self.durable.clone(),
            dirs: dirs(&self.files),
        };
        let (files, state) = (self.files.deep_clone(), Arc::new(Mutex::new(state)));
        Recorder { files, names_durable, ignored: "", state }
    }
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State").finish_non_exhaustive()
    }
}

fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(parent, _)| parent)
}

impl Recorder {
    pub fn new(names_durable: bool) -> Recorder {
        Recorder { files: MemoryStorage::new(), names_durable, ignored: "", state: Arc::default() }
    }

    /// One whose syncs of one kind do nothing.
    pub fn that_ignores(sync: &'static str) -> Recorder {
        Recorder { ignored: sync, ..Recorder::new(true) }
    }

    pub fn take(&self) -> Vec<Image> {
        std::mem::take(&mut self.state().images)
    }

    pub fn progress(&self, change: impl FnOnce(&mut Progress)) {
        change(&mut self.state().progress);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Keeps what a kill after `call` leaves.
    fn written(&self, call: String) {
        let files = self.files.deep_clone();
        let mut state = self.state();
        let (progress, durable) = (state.progress, state.durable.clone());
        state.images.push(Image { call, crash: Crash::Kill, files, durable, progress });
    }

    /// Keeps what a power loss after `call` may leave.
    fn synced(&self, call: String, change: impl FnOnce(&mut State)) {
        let mut state = self.state();
        let is_ignored = match self.ignored.ends_with('/') {
            true => call.starts_with(self.ignored),
            false => call == self.ignored,
        };
        if !is_ignored {
            change(&mut state);
        }
        if self.names_durable {
            let files = state.durable.files();
            let (progress, durable) = (state.progress, Durable::all(&files));
            state.images.push(Image { call, crash: Crash::PowerLoss, files, durable, progress });
        }
    }

    fn sync_bytes(&self, path: &str) {
        let bytes = self.files.read(path);
        self.synced(format!("sync {path}"), |state| {
            if let Some(bytes) = bytes {
                state.durable.bytes.insert(path.to_owned(), bytes);
            }
        });
    }
}

impl Storage for Recorder {
    fn open(&self, path: &str) -> Result<Arc<dyn ReadFile>> {
        self.files.open(path)
    }

    fn create(&self, path: &str) -> Result<Box<dyn AppendFile>> {
        let inner = self.files.create(path)?;
        self.state().durable.bytes.insert(path.to_owned(), Vec::new());
        self.written(format!("create {path}"));
        Ok(Box::new(RecordedFile { path: path.to_owned(), inner, recorder: self.clone() }))
    }

    fn overwrite(&self, path: &str, offset: u64, bytes: &[u8]) -> Result<()> {
        self.files.overwrite(path, offset, bytes)?;
        self.written(format!("overwrite {path}"));
        self.sync_bytes(path);
        Ok(())
    }

    fn sync(&self, path: &str) -> Result<()> {
        self.files.sync(path)?;
        self.sync_bytes(path);
        Ok(())
    }

    fn create_dir(&self, path: &str) -> Result<()> {
        self.files.create_dir(path)?;
        self.state().dirs.insert(path.to_owned());
        self.written(format!("create_dir {path}"));
        Ok(())
    }

    fn remove(&self, path: &str) -> Result<()> {
        self.files.remove(path)?;
        self.written(format!("remove {path}"));
        Ok(())
    }

    fn list(&self, path: &str) -> Result<Vec<String>> {
        self.files.list(path)
    }

    fn sync_dir(&self, path: &str) -> Result<DirSync> {
        self.files.sync_dir(path)?;
        if !self.names_durable {
            return Ok(DirSync::Unsupported);
        }
        let existing = self.files.files();
        self.synced(format!("sync_dir {path}"), |state| {
            let State { durable, dirs, .. } = state;
            durable.names.retain(|name| parent(name) != path || dirs.contains(name));
            let here = existing.iter().chain(dirs.iter()).filter(|name| parent(name) == path);
            durable.names.extend(here.filter(|name| !name.is_empty()).cloned());
        });
        Ok(DirSync::Done)
    }

    fn lock(&self) -> Result<Box<dyn Lock>> {
        self.files.lock()
    }

    fn lock_shared(&self) -> Result<Box<dyn Lock>> {
        self.files.lock_shared()
    }

    fn describe(&self) -> String {
        self.files.describe()
    }
}

#[derive(Debug)]
struct RecordedFile {
    path: String,
    inner: Box<dyn AppendFile>,
    recorder: Recorder,
}

impl AppendFile for RecordedFile {
    fn append(&mut self, bytes: &[u8]) -> Result<()> {
        // A kill within the write leaves a part of it.
        let (first, second) = bytes.split_at(bytes.len() / 2);
        self.inner.append(first)?;
        self.recorder.written(format!("half of append {}", self.path));
        self.inner.append(second)?;
        self.recorder.written(format!("append {}", self.path));
        Ok(())
    }

    fn sync_data(&mut self) -> Result<()> {
        self.inner.sync_data()?;
        self.recorder.sync_bytes(&self.path);
        Ok(())
    }

    fn truncate(&mut self, _: u64) -> Result<()> {
        Err(Error::InvalidArgument("nothing fails here, so nothing is cut back".into()))
    }

    fn len(&self) -> u64 {
        self.inner.len()
    }
}
