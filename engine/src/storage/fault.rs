//! A storage for tests of crash safety: it knows what was synced, makes what a
//! crash would leave, and fails on demand.
//!
//! [`FaultStorage`] keeps files in memory as a file system does: bytes are
//! durable once their file was synced, a name once its directory was, and the
//! name of a directory once the one above was. Every change is also put into a
//! journal, so that after one run of a program [`FaultStorage::replay`] walks
//! through all its moments and [`Replay::crash`] makes from each of them what
//! may be found after a crash there, as a storage of its own:
//!
//! ```
//! use std::sync::Arc;
//! use duramen::storage::fault::{Crash, FaultStorage};
//! use duramen::{Background, Db, Options};
//!
//! # fn main() -> duramen::Result<()> {
//! let options = Options { background: Background::Inline, ..Options::default() };
//! let storage = FaultStorage::new(1);
//! let db = Db::open_with(Arc::new(storage.clone()), options.clone())?;
//! db.keyspace("k")?.put(b"key", b"value")?;
//! let mut replay = storage.replay();
//! loop {
//!     let found = replay.crash(Crash::LoseSome(7));
//!     Db::open_with(Arc::new(found), options.clone())?;
//!     if !replay.advance() {
//!         break;
//!     }
//! }
//! # Ok(())
//! # }
//! ```
//!
//! All chance comes from seeds: the same calls have the same effects.
//!
//! Sources of the models: "All File Systems Are Not Created Equal" (Pillai et
//! al., OSDI 2014) for what crashes leave; "Can Applications Recover from fsync
//! Failures?" (Rebello et al., ATC 2020) for failed syncs, after which the dirty
//! bytes can be read and never reach the disk.

use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::sync::Arc;

use bytes::Bytes;

use crate::error::{Error, Result};
use crate::filename;
use crate::storage::{AppendFile, DirSync, Lock, ReadFile, Storage, SyncFile};
use crate::sync::{Mutex, lock};

mod disk;
mod mutant;

use disk::{Disk, Event, Inode, Node, parent};
pub use mutant::{Mutant, SyncPoint, Until};

/// When names are durable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Names {
    /// Once their directory was synced: all that POSIX promises.
    #[default]
    ByDirectory,
    /// In the order they changed, and with every sync of a file all before it,
    /// as journalling file systems have it. Directories cannot be synced: the
    /// answer is [`DirSync::Unsupported`].
    InOrder,
}

/// What a crash leaves. All but [`Crash::Kill`] are losses of power: what is
/// found then is durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Crash {
    /// The process is gone: everything is found, and what was not synced still
    /// is not.
    Kill,
    /// Nothing that was not synced is found.
    LoseAll,
    /// Of what was not synced some is found, chosen by the seed: of each file
    /// everything, nothing or any blocks of 4 KiB, and any names. A file may have
    /// its length before its bytes; it then holds zeros.
    LoseSome(u64),
    /// Everything is found, save an end, chosen by the seed, of the last write.
    TearLast(u64),
}

/// A kind of call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[expect(missing_docs, reason = "named as the methods of the traits")]
pub enum Operation {
    Open,
    Create,
    Overwrite,
    Sync,
    CreateDir,
    Remove,
    List,
    SyncDir,
    Lock,
    ReadAt,
    Size,
    Append,
    Preallocate,
    SyncData,
    Truncate,
}

/// How a call fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultKind {
    /// The device fails. A call that writes has written nothing; of a failed
    /// sync nothing reaches the disk.
    Io,
    /// No space is left: a write has written some of its bytes.
    NoSpace,
    /// A write has written some of its bytes, and the next one failed.
    ShortWrite,
    /// A write has written nothing and says so.
    ZeroWrite,
}

impl FaultKind {
    /// Every kind.
    pub const ALL: [FaultKind; 4] =
        [FaultKind::Io, FaultKind::NoSpace, FaultKind::ShortWrite, FaultKind::ZeroWrite];

    /// True if calls of this kind can fail so.
    pub fn applies_to(self, operation: Operation) -> bool {
        use Operation::{Append, Create, CreateDir, Overwrite, Preallocate};
        match self {
            FaultKind::Io => true,
            FaultKind::NoSpace => matches!(operation, Append | Create | CreateDir | Preallocate),
            FaultKind::ShortWrite | FaultKind::ZeroWrite => matches!(operation, Append | Overwrite),
        }
    }

    fn error(self) -> io::Error {
        match self {
            FaultKind::Io => io::Error::other("injected: the device failed"),
            FaultKind::NoSpace => io::Error::new(io::ErrorKind::StorageFull, "injected: no space left"),
            FaultKind::ShortWrite => io::Error::other("injected: the device failed in a write"),
            FaultKind::ZeroWrite => io::ErrorKind::WriteZero.into(),
        }
    }
}

/// A failure to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// How the call fails.
    pub kind: FaultKind,
    /// Which call: 0 is the next one that can fail so.
    pub skip: u64,
    /// Later calls fail too.
    pub forever: bool,
    /// Only calls of this kind count and fail.
    pub only: Option<Operation>,
}

/// What the program under test is doing, where the calls do not tell; see
/// [`FaultStorage::set_phase`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Phase {
    /// Anything else.
    #[default]
    Other,
    /// A call that promises to have synced when it returns.
    Acknowledge,
    /// A flush, and no compaction.
    Flush,
    /// A compaction, and no flush.
    Compact,
}

/// SplitMix64. Source: Steele, Lea and Flood, "Fast Splittable Pseudorandom
/// Number Generators" (OOPSLA 2014).
#[derive(Clone, Debug)]
struct Random(u64);

impl Random {
    fn new(seed: u64) -> Random {
        Random(seed)
    }

    /// A number below `end`, which is not 0.
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % end
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
}

/// Files in memory, with faults. Clones share them.
#[derive(Clone, Debug)]
pub struct FaultStorage {
    shared: Arc<Mutex<Shared>>,
}

#[derive(Debug)]
struct Shared {
    disk: Disk,
    /// The disk when the journal began.
    start: Disk,
    journal: Vec<Event>,
    calls: u64,
    names: Names,
    random: Random,
    phase: Phase,
    mutant: Option<Mutant>,
    /// Files whose sync was asked for.
    synced: BTreeSet<Inode>,
    /// Syncs that the mutant has put off.
    delayed: Vec<Event>,
    faults: Vec<Fault>,
    fired: Vec<(Operation, String)>,
    /// Bits that reads flip: path, offset, mask.
    rot: Vec<(String, u64, u8)>,
    /// `CURRENT` was created here.
    created_current: bool,
    locked: bool,
    /// Holders of the shared lock.
    readers: usize,
}

impl FaultStorage {
    /// An empty directory; `seed` decides how much a short write writes.
    pub fn new(seed: u64) -> FaultStorage {
        FaultStorage::with_names(seed, Names::ByDirectory)
    }

    /// An empty directory on a file system of another kind.
    pub fn with_names(seed: u64, names: Names) -> FaultStorage {
        FaultStorage::over(Disk::new(names), names, Random::new(seed), None)
    }

    fn over(disk: Disk, names: Names, random: Random, mutant: Option<Mutant>) -> FaultStorage {
        let shared = Shared {
            start: disk.clone(),
            disk,
            journal: Vec::new(),
            calls: 0,
            names,
            random,
            phase: Phase::default(),
            mutant,
            synced: BTreeSet::new(),
            delayed: Vec::new(),
            faults: Vec::new(),
            fired: Vec::new(),
            rot: Vec::new(),
            created_current: false,
            locked: false,
            readers: 0,
        };
        FaultStorage { shared: Arc::new(Mutex::new(shared)) }
    }

    /// Calls so far, failed ones included.
    pub fn calls(&self) -> u64 {
        lock(&self.shared).calls
    }

    /// Changes so far: the present moment. Between two there is nothing that a
    /// crash could tell apart.
    pub fn moment(&self) -> usize {
        lock(&self.shared).journal.len()
    }

    /// All moments from the start to now, to crash at.
    pub fn replay(&self) -> Replay {
        let shared = lock(&self.shared);
        Replay {
            disk: shared.start.clone(),
            journal: shared.journal.clone(),
            moment: 0,
            names: shared.names,
            random: shared.random.clone(),
            mutant: shared.mutant,
        }
    }

    /// What a crash now would leave.
    pub fn crash(&self, crash: Crash) -> FaultStorage {
        let shared = lock(&self.shared);
        FaultStorage::over(shared.disk.crash(crash), shared.names, shared.random.clone(), shared.mutant)
    }

    /// Adds a failure.
    pub fn inject(&self, fault: Fault) {
        lock(&self.shared).faults.push(fault);
    }

    /// Ends all failures and all bit rot.
    pub fn clear_faults(&self) {
        let mut shared = lock(&self.shared);
        shared.faults.clear();
        shared.rot.clear();
    }

    /// The calls that were made to fail, since the last take.
    pub fn take_fired(&self) -> Vec<(Operation, String)> {
        std::mem::take(&mut lock(&self.shared).fired)
    }

    /// Reads of the byte at `offset` of `path` find bit `bit` (0 to 7) flipped.
    pub fn rot(&self, path: &str, offset: u64, bit: u8) {
        lock(&self.shared).rot.push((path.to_owned(), offset, 1 << (bit % 8)));
    }

    /// Makes the storage wrong in one way, and those that crashes leave.
    pub fn set_mutant(&self, mutant: Option<Mutant>) {
        lock(&self.shared).mutant = mutant;
    }

    /// Says what the program is doing, for the [`SyncPoint`]s that need it.
    pub fn set_phase(&self, phase: Phase) {
        lock(&self.shared).phase = phase;
    }

    /// Paths of all files, ascending.
    pub fn files(&self) -> Vec<String> {
        lock(&self.shared).disk.paths()
    }

    /// All bytes of a file, or `None` if it does not exist.
    pub fn read(&self, path: &str) -> Option<Vec<u8>> {
        let shared = lock(&self.shared);
        match shared.disk.node(path)? {
            Node::Dir => None,
            Node::File(inode) => shared.disk.read(inode, 0, shared.disk.len(inode)),
        }
    }

    /// A number that differs, but for coincidence, where the files do, or what
    /// of them is durable.
    pub fn fingerprint(&self) -> u64 {
        lock(&self.shared).disk.fingerprint()
    }
}

/// A walk through the moments of a [`FaultStorage`].
#[derive(Debug)]
pub struct Replay {
    disk: Disk,
    journal: Vec<Event>,
    moment: usize,
    names: Names,
    random: Random,
    mutant: Option<Mutant>,
}

impl Replay {
    /// Changes before this moment.
    pub fn moment(&self) -> usize {
        self.moment
    }

    /// Goes on by one change; false at the end.
    pub fn advance(&mut self) -> bool {
        let Some(event) = self.journal.get(self.moment) else { return false };
        self.disk.apply(event);
        self.moment += 1;
        true
    }

    /// Goes on to `moment`, or to the end.
    pub fn advance_to(&mut self, moment: usize) {
        while self.moment < moment && self.advance() {}
    }

    /// The last change, for messages.
    pub fn last_change(&self) -> String {
        let last = self.moment.checked_sub(1).and_then(|index| self.journal.get(index));
        last.map_or_else(|| "the start".into(), |event| DisplayEvent(event, &self.disk).to_string())
    }

    /// What a crash at this moment leaves.
    pub fn crash(&self, crash: Crash) -> FaultStorage {
        FaultStorage::over(self.disk.crash(crash), self.names, self.random.clone(), self.mutant)
    }
}

struct DisplayEvent<'a>(&'a Event, &'a Disk);

impl fmt::Display for DisplayEvent<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = |inode: &Inode| self.1.path(*inode);
        match self.0 {
            Event::Name { path, node: Some(Node::Dir) } => write!(f, "create_dir {path}"),
            Event::Name { path, node: Some(_) } => write!(f, "create {path}"),
            Event::Name { path, node: None } => write!(f, "remove {path}"),
            Event::Write { inode, offset, bytes } => {
                write!(f, "write {} {} bytes at {offset}", name(inode), bytes.len())
            }
            Event::Truncate { inode, len } => write!(f, "truncate {} to {len} bytes", name(inode)),
            Event::Sync { inode } | Event::SyncAll { inode } => write!(f, "sync {}", name(inode)),
            Event::Forget { inode } => write!(f, "sync {}: failed", name(inode)),
            Event::SyncDir { path } if path.is_empty() => f.write_str("sync_dir ."),
            Event::SyncDir { path } => write!(f, "sync_dir {path}"),
        }
    }
}

fn fail<T>(operation: &'static str, path: &str, kind: io::ErrorKind) -> Result<T> {
    Err(Error::io(operation, path, kind.into()))
}

/// Operations as errors name them.
fn verb(operation: Operation) -> &'static str {
    match operation {
        Operation::Open => "open",
        Operation::Create => "create",
        Operation::Overwrite => "overwrite",
        Operation::Sync | Operation::SyncData => "sync",
        Operation::CreateDir => "create directory",
        Operation::Remove => "remove",
        Operation::List => "list",
        Operation::SyncDir => "sync directory",
        Operation::Lock => "lock",
        Operation::ReadAt | Operation::Size => "read",
        Operation::Append => "append to",
        Operation::Preallocate => "write zeros to",
        Operation::Truncate => "truncate",
    }
}

impl Shared {
    /// Counts a call and answers how it must fail.
    fn fault(&mut self, operation: Operation, path: &str) -> Option<FaultKind> {
        self.calls += 1;
        let mut fired = None;
        self.faults.retain_mut(|fault| {
            if fired.is_some()
                || !fault.kind.applies_to(operation)
                || fault.only.is_some_and(|only| only != operation)
            {
                return true;
            }
            if fault.skip > 0 {
                fault.skip -= 1;
                return true;
            }
            fired = Some(fault.kind);
            fault.forever
        });
        if fired.is_some() {
            self.fired.push((operation, path.to_owned()));
        }
        fired
    }

    /// Counts a call that fails, if it must, without any effect.
    fn call(&mut self, operation: Operation, path: &str) -> Result<()> {
        match self.fault(operation, path) {
            Some(kind) => Err(Error::io(verb(operation), path, kind.error())),
            None => Ok(()),
        }
    }

    fn record(&mut self, event: Event) {
        self.disk.apply(&event);
        self.journal.push(event);
    }

    /// Does a sync, or what the mutant makes of it.
    fn sync(&mut self, point: Option<SyncPoint>, event: Event) {
        match self.mutant {
            Some(Mutant::Skip(skipped)) if point == Some(skipped) => {}
            Some(Mutant::Delay(delayed, _)) if point == Some(delayed) => self.delayed.push(event),
            _ => self.record(event),
        }
        if let Some(Mutant::Delay(_, Until::Synced(until))) = self.mutant
            && point == Some(until)
        {
            self.make_up();
        }
    }

    /// Does what was put off.
    fn make_up(&mut self) {
        std::mem::take(&mut self.delayed).into_iter().for_each(|event| self.record(event));
    }

    fn inode(&self, operation: Operation, path: &str) -> Result<Inode> {
        match self.disk.node(path) {
            Some(Node::File(inode)) => Ok(inode),
            Some(Node::Dir) => fail(verb(operation), path, io::ErrorKind::IsADirectory),
            None => fail(verb(operation), path, io::ErrorKind::NotFound),
        }
    }

    fn sync_file(&mut self, operation: Operation, path: &str, inode: Inode, event: Event) {
        // Not whether anything is durable: a mutant says that it is.
        let first = self.synced.insert(inode);
        let point = SyncPoint::of_file(operation, path, (inode, first), &self.disk, self.phase);
        self.sync(point, event);
    }

    /// Writes `bytes`, or as much of them as `fault` lets through; answers how much.
    fn write(&mut self, inode: Inode, offset: usize, bytes: &[u8], fault: Option<FaultKind>) -> usize {
        let len = match fault {
            None => bytes.len(),
            Some(FaultKind::Io | FaultKind::ZeroWrite) => 0,
            Some(FaultKind::NoSpace | FaultKind::ShortWrite) => {
                self.random.below(bytes.len().max(1) as u64) as usize
            }
        };
        if len > 0 {
            let bytes = Bytes::copy_from_slice(&bytes[..len]);
            self.record(Event::Write { inode, offset, bytes });
        }
        len
    }
}

impl Storage for FaultStorage {
    fn open(&self, path: &str) -> Result<Arc<dyn ReadFile>> {
        let mut shared = lock(&self.shared);
        shared.call(Operation::Open, path)?;
        let inode = shared.inode(Operation::Open, path)?;
        Ok(Arc::new(FaultFile { path: path.to_owned(), inode, shared: Arc::clone(&self.shared) }))
    }

    fn create(&self, path: &str) -> Result<Box<dyn AppendFile>> {
        let mut shared = lock(&self.shared);
        shared.call(Operation::Create, path)?;
        if shared.disk.node(path).is_some() {
            return fail("create", path, io::ErrorKind::AlreadyExists);
        }
        if shared.disk.node(parent(path)) != Some(Node::Dir) {
            return fail("create", path, io::ErrorKind::NotFound);
        }
        let inode = shared.disk.next_inode();
        shared.record(Event::Name { path: path.into(), node: Some(Node::File(inode)) });
        shared.created_current |= path == filename::CURRENT;
        let file = FaultFile { path: path.to_owned(), inode, shared: Arc::clone(&self.shared) };
        Ok(Box::new(FaultAppend { file, len: 0 }))
    }

    fn open_to_sync(&self, path: &str) -> Result<Box<dyn SyncFile>> {
        let mut shared = lock(&self.shared);
        shared.call(Operation::Open, path)?;
        let inode = shared.inode(Operation::Open, path)?;
        Ok(Box::new(FaultFile { path: path.to_owned(), inode, shared: Arc::clone(&self.shared) }))
    }

    fn overwrite(&self, path: &str, offset: u64, bytes: &[u8]) -> Result<()> {
        let operation = Operation::Overwrite;
        let mut shared = lock(&self.shared);
        let fault = shared.fault(operation, path);
        let inode = shared.inode(operation, path)?;
        let size = shared.disk.len(inode) as u64;
        if offset.checked_add(bytes.len() as u64).is_none_or(|end| end > size) {
            return fail("overwrite", path, io::ErrorKind::InvalidInput);
        }
        // A device that fails does so in the sync.
        let failed_write = fault.filter(|kind| *kind != FaultKind::Io);
        shared.write(inode, offset as usize, bytes, failed_write);
        match fault {
            None => shared.sync_file(operation, path, inode, Event::Sync { inode }),
            Some(FaultKind::Io) => shared.record(Event::Forget { inode }),
            Some(_) => {}
        }
        fault.map_or(Ok(()), |kind| Err(Error::io("overwrite", path, kind.error())))
    }

    fn sync(&self, path: &str) -> Result<()> {
        let mut shared = lock(&self.shared);
        let fault = shared.fault(Operation::Sync, path);
        let inode = shared.inode(Operation::Sync, path)?;
        match fault {
            None => shared.sync_file(Operation::Sync, path, inode, Event::SyncAll { inode }),
            Some(kind) => {
                shared.record(Event::Forget { inode });
                return Err(Error::io("sync", path, kind.error()));
            }
        }
        Ok(())
    }

    fn create_dir(&self, path: &str) -> Result<()> {
        let mut shared = lock(&self.shared);
        shared.call(Operation::CreateDir, path)?;
        match shared.disk.node(path) {
            Some(Node::Dir) => return Ok(()),
            Some(Node::File(_)) => return fail("create directory", path, io::ErrorKind::AlreadyExists),
            None => {}
        }
        if shared.disk.node(parent(path)) != Some(Node::Dir) {
            return fail("create directory", path, io::ErrorKind::NotFound);
        }
        shared.record(Event::Name { path: path.into(), node: Some(Node::Dir) });
        Ok(())
    }

    fn remove(&self, path: &str) -> Result<()> {
        let mut shared = lock(&self.shared);
        shared.call(Operation::Remove, path)?;
        shared.inode(Operation::Remove, path)?;
        shared.record(Event::Name { path: path.into(), node: None });
        if let Some(Mutant::Delay(_, Until::Removed)) = shared.mutant {
            shared.make_up();
        }
        Ok(())
    }

    fn list(&self, path: &str) -> Result<Vec<String>> {
        let mut shared = lock(&self.shared);
        shared.call(Operation::List, path)?;
        match shared.disk.node(path) {
            Some(Node::File(_)) => fail("list", path, io::ErrorKind::NotADirectory),
            Some(Node::Dir) => Ok(shared.disk.list(path)),
            None => Ok(Vec::new()),
        }
    }

    fn sync_dir(&self, path: &str) -> Result<DirSync> {
        let mut shared = lock(&self.shared);
        shared.call(Operation::SyncDir, path)?;
        match shared.disk.node(path) {
            Some(Node::Dir) if shared.names == Names::InOrder => Ok(DirSync::Unsupported),
            Some(Node::Dir) => {
                let point = SyncPoint::of_dir(path, &shared.disk, shared.created_current, shared.phase);
                shared.sync(point, Event::SyncDir { path: path.into() });
                Ok(DirSync::Done)
            }
            Some(Node::File(_)) => fail("sync directory", path, io::ErrorKind::NotADirectory),
            None => fail("sync directory", path, io::ErrorKind::NotFound),
        }
    }

    fn lock(&self) -> Result<Box<dyn Lock>> {
        let mut shared = lock(&self.shared);
        shared.call(Operation::Lock, filename::LOCK)?;
        if shared.locked || shared.readers > 0 {
            return Err(super::locked_in_memory());
        }
        shared.locked = true;
        // Whoever opens now is another process, as far as creation goes.
        shared.created_current = false;
        Ok(Box::new(FaultLock { shared: Arc::clone(&self.shared), exclusive: true }))
    }

    fn lock_shared(&self) -> Result<Box<dyn Lock>> {
        let mut shared = lock(&self.shared);
        shared.call(Operation::Lock, filename::LOCK)?;
        if shared.locked {
            return Err(super::locked_in_memory());
        }
        shared.readers += 1;
        Ok(Box::new(FaultLock { shared: Arc::clone(&self.shared), exclusive: false }))
    }

    fn space_left(&self) -> Result<Option<u64>> {
        Ok(Some(u64::MAX))
    }

    fn describe(&self) -> String {
        "memory with faults".into()
    }
}

struct FaultFile {
    path: String,
    inode: Inode,
    shared: Arc<Mutex<Shared>>,
}

impl fmt::Debug for FaultFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FaultFile").field("path", &self.path).finish_non_exhaustive()
    }
}

impl ReadFile for FaultFile {
    fn read_at(&self, offset: u64, len: usize) -> Result<Bytes> {
        let mut shared = lock(&self.shared);
        shared.call(Operation::ReadAt, &self.path)?;
        let Some(mut bytes) = shared.disk.read(self.inode, offset, len) else {
            let size = shared.disk.len(self.inode) as u64;
            return Err(super::past_end(&self.path, offset, len, size));
        };
        for (path, at, mask) in &shared.rot {
            let inside = at.checked_sub(offset).and_then(|at| usize::try_from(at).ok());
            if let Some(byte) = inside.filter(|_| *path == self.path).and_then(|at| bytes.get_mut(at)) {
                *byte ^= mask;
            }
        }
        Ok(bytes.into())
    }

    fn size(&self) -> Result<u64> {
        let mut shared = lock(&self.shared);
        shared.call(Operation::Size, &self.path)?;
        Ok(shared.disk.len(self.inode) as u64)
    }
}

impl SyncFile for FaultFile {
    fn sync_data(&self) -> Result<()> {
        let FaultFile { path, inode, shared } = self;
        let mut shared = lock(shared);
        match shared.fault(Operation::SyncData, path) {
            None => shared.sync_file(Operation::SyncData, path, *inode, Event::Sync { inode: *inode }),
            Some(kind) => {
                shared.record(Event::Forget { inode: *inode });
                return Err(Error::io("sync", path, kind.error()));
            }
        }
        Ok(())
    }
}

#[derive(Debug)]
struct FaultAppend {
    file: FaultFile,
    len: u64,
}

impl AppendFile for FaultAppend {
    fn append(&mut self, bytes: &[u8]) -> Result<()> {
        let FaultFile { path, inode, shared } = &self.file;
        let mut shared = lock(shared);
        let fault = shared.fault(Operation::Append, path);
        let written = shared.write(*inode, self.len as usize, bytes, fault);
        self.len += written as u64;
        fault.map_or(Ok(()), |kind| Err(Error::io("append to", path, kind.error())))
    }

    fn preallocate(&mut self, len: u64) -> Result<()> {
        let FaultFile { path, inode, shared } = &self.file;
        let mut shared = lock(shared);
        let fault = shared.fault(Operation::Preallocate, path);
        let zeros = vec![0; len.saturating_sub(self.len) as usize];
        shared.write(*inode, self.len as usize, &zeros, fault);
        fault.map_or(Ok(()), |kind| Err(Error::io(verb(Operation::Preallocate), path, kind.error())))
    }

    /// As a file system may: the file has its length at once, and no bytes.
    fn reserve(&mut self, len: u64) {
        let FaultFile { inode, shared, .. } = &self.file;
        let mut shared = lock(shared);
        let len = shared.disk.len(*inode).max(len as usize);
        shared.record(Event::Truncate { inode: *inode, len });
    }

    fn sync_data(&mut self) -> Result<()> {
        SyncFile::sync_data(&self.file)
    }

    fn truncate(&mut self, len: u64) -> Result<()> {
        let FaultFile { path, inode, shared } = &self.file;
        let mut shared = lock(shared);
        shared.call(Operation::Truncate, path)?;
        match usize::try_from(len) {
            Ok(len) if len <= shared.disk.len(*inode) => {
                shared.record(Event::Truncate { inode: *inode, len });
            }
            _ => return fail("truncate", path, io::ErrorKind::InvalidInput),
        }
        self.len = len;
        Ok(())
    }

    fn len(&self) -> u64 {
        self.len
    }
}

struct FaultLock {
    shared: Arc<Mutex<Shared>>,
    exclusive: bool,
}

impl fmt::Debug for FaultLock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FaultLock")
    }
}

impl Lock for FaultLock {}

impl Drop for FaultLock {
    fn drop(&mut self) {
        let mut shared = lock(&self.shared);
        match self.exclusive {
            true => shared.locked = false,
            false => shared.readers -= 1,
        }
    }
}

#[cfg(test)]
mod tests;
