//! Writers and the background work that they depend on: a storage that fails or is
//! full keeps flushes or compactions from going on, and what writers, statistics and
//! other callers are told is looked at, before and after it is mended.

use std::io::ErrorKind;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::SeqCst;

use bytes::Bytes;
use duramen::api::Database;
use duramen::stats::{Lane, StallCause, StallKind, StallState, StallStats};
use duramen::storage::memory::MemoryStorage;
use duramen::storage::{AppendFile, DirSync, Lock, ReadFile, Storage, SyncFile};
use duramen::{Background, Budget, Db, Error, Keyspace, Options, Result};

use crate::support::{settle, small};

/// What a memtable adds to an entry, at the least.
const ENTRY_BYTES: u64 = 100;

/// Files in memory, of limited size, some of which fail.
#[derive(Clone, Debug, Default)]
struct Disk {
    files: MemoryStorage,
    faults: Arc<Faults>,
}

#[derive(Debug, Default)]
struct Faults {
    /// SSTables have no space.
    no_space: AtomicBool,
    /// SSTables cannot be read.
    unreadable: AtomicBool,
    /// Most bytes of all files; 0 for no limit.
    bytes_max: AtomicU64,
}

impl Disk {
    fn bytes(&self) -> u64 {
        let bytes = |path: &String| self.files.read(path).map_or(0, |bytes| bytes.len() as u64);
        self.files.files().iter().map(bytes).sum()
    }
}

fn full(path: &str) -> Error {
    Error::io("append to", path, std::io::Error::new(ErrorKind::StorageFull, "no space is left"))
}

#[derive(Debug)]
struct File {
    disk: Disk,
    path: String,
    file: Box<dyn AppendFile>,
}

impl AppendFile for File {
    fn append(&mut self, bytes: &[u8]) -> Result<()> {
        let Faults { no_space, bytes_max, .. } = &*self.disk.faults;
        let max = bytes_max.load(SeqCst);
        let over = max > 0 && self.disk.bytes() + bytes.len() as u64 > max;
        if over || (self.path.starts_with("sst/") && no_space.load(SeqCst)) {
            return Err(full(&self.path));
        }
        self.file.append(bytes)
    }

    fn sync_data(&mut self) -> Result<()> {
        self.file.sync_data()
    }

    fn truncate(&mut self, len: u64) -> Result<()> {
        self.file.truncate(len)
    }

    fn len(&self) -> u64 {
        self.file.len()
    }
}

impl Storage for Disk {
    fn open(&self, path: &str) -> Result<Arc<dyn ReadFile>> {
        if path.starts_with("sst/") && self.faults.unreadable.load(SeqCst) {
            return Err(Error::io("open", path, std::io::Error::other("the device does not answer")));
        }
        self.files.open(path)
    }

    fn create(&self, path: &str) -> Result<Box<dyn AppendFile>> {
        let file = self.files.create(path)?;
        Ok(Box::new(File { disk: self.clone(), path: path.to_owned(), file }))
    }

    fn open_to_sync(&self, path: &str) -> Result<Box<dyn SyncFile>> {
        self.files.open_to_sync(path)
    }

    fn overwrite(&self, path: &str, offset: u64, bytes: &[u8]) -> Result<()> {
        self.files.overwrite(path, offset, bytes)
    }

    fn sync(&self, path: &str) -> Result<()> {
        self.files.sync(path)
    }

    fn create_dir(&self, path: &str) -> Result<()> {
        self.files.create_dir(path)
    }

    fn remove(&self, path: &str) -> Result<()> {
        self.files.remove(path)
    }

    fn list(&self, path: &str) -> Result<Vec<String>> {
        self.files.list(path)
    }

    fn sync_dir(&self, path: &str) -> Result<DirSync> {
        self.files.sync_dir(path)
    }

    fn lock(&self) -> Result<Box<dyn Lock>> {
        self.files.lock()
    }

    fn lock_shared(&self) -> Result<Box<dyn Lock>> {
        self.files.lock_shared()
    }

    fn space_left(&self) -> Result<Option<u64>> {
        let max = self.faults.bytes_max.load(SeqCst);
        Ok(Some(if max > 0 { max.saturating_sub(self.bytes()) } else { u64::MAX }))
    }

    fn describe(&self) -> String {
        self.files.describe()
    }
}

fn open(disk: &Disk, options: &Options) -> Db {
    Db::open_with(Arc::new(disk.clone()), options.clone()).unwrap()
}

/// Keys in no order, so that every table overlaps every other one.
fn key(n: u64) -> [u8; 8] {
    n.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes()
}

fn value(n: u64) -> Vec<u8> {
    (0..200u64).map(|byte| (n.wrapping_mul(0x9e37_79b9) >> (byte % 24)) as u8).collect()
}

/// Puts numbered keys from `next` on until one is refused; how far it came and why
/// not further.
fn put_until_refused(keyspace: &Keyspace, next: &mut u64) -> Error {
    loop {
        match keyspace.put(&key(*next), &value(*next)) {
            Ok(()) => *next += 1,
            Err(error) => return error,
        }
        assert!(*next < 10_000, "nothing is ever refused");
    }
}

fn check_contents(keyspace: &Keyspace, count: u64) {
    for n in 0..count {
        assert_eq!(keyspace.get(&key(n)).unwrap(), Some(Bytes::from(value(n))), "{n}");
    }
    assert_eq!(keyspace.get(&key(count)).unwrap(), None);
}

fn tally(db: &Db, cause: StallCause, kind: StallKind) -> u64 {
    let stalls = db.stats().unwrap().stalls;
    stalls.iter().filter(|stall| (stall.cause, stall.kind) == (cause, kind)).map(|stall| stall.count).sum()
}

#[test]
fn flushes_without_space_are_told_until_there_is_some() {
    let disk = Disk::default();
    // Writers try to flush several times before there is no room.
    let options = Options { write_buffer_bytes: Some(256 << 10), wal_bytes_max: Some(1 << 20), ..small() };
    let db = open(&disk, &options);
    let keyspace = db.keyspace("k").unwrap();
    disk.faults.no_space.store(true, SeqCst);
    let mut next = 0;
    let mut first_failure = None;
    let refused = loop {
        match keyspace.put(&key(next), &value(next)) {
            Ok(()) => next += 1,
            Err(error) => break error,
        }
        if first_failure.is_none() && db.stats().unwrap().flush_failures > 0 {
            first_failure = Some(next);
        }
    };
    // While there is room in memory, commits go on.
    assert!(first_failure.unwrap() < next, "{first_failure:?}, {next}");
    assert!(matches!(refused, Error::Stalled(_)), "{refused}");
    let text = refused.to_string();
    assert!(text.contains("write buffer is full") && text.contains("no space is left"), "{text}");
    check_contents(&keyspace, next);

    let stats = db.stats().unwrap();
    let [error] = &stats.background_errors[..] else { panic!("{:?}", stats.background_errors) };
    assert_eq!((error.lane, error.count), (Lane::Flush, stats.flush_failures));
    assert!(error.message.contains("no space is left"), "{}", error.message);
    assert_eq!(stats.compaction_failures, 0);
    let (cause, kind) = (StallCause::WriteBuffer, StallKind::Waited);
    assert_eq!(stats.stall, Some(StallState { cause, kind }));
    assert_eq!(tally(&db, cause, StallKind::Refused), 1);
    for outcome in [db.flush(), db.maintain(Budget::bytes(1 << 20)).map(drop), db.compact()] {
        let is_full =
            matches!(&outcome, Err(Error::Io { source, .. }) if source.kind() == ErrorKind::StorageFull);
        assert!(is_full, "{outcome:?}");
    }

    disk.faults.no_space.store(false, SeqCst);
    keyspace.put(&key(next), &value(next)).unwrap();
    settle(&db);
    let stats = db.stats().unwrap();
    assert_eq!((&stats.background_errors[..], stats.stall), (&[][..], None));
    assert!(stats.flush_failures >= 4 && stats.flushes > 0, "{stats:?}");
    assert_eq!(tally(&db, cause, StallKind::Waited), 1);
    check_contents(&keyspace, next + 1);
    drop((keyspace, db));
    let db = open(&disk, &options);
    check_contents(&db.keyspace("k").unwrap(), next + 1);
}

#[test]
fn what_is_deleted_or_dropped_makes_room_on_a_full_disk() {
    let disk = Disk::default();
    let options = Options { target_file_bytes: 64 << 10, ..small() };
    let db = open(&disk, &options);
    let (keyspace, kept) = (db.keyspace("k").unwrap(), db.keyspace("kept").unwrap());
    kept.put(b"key", b"value").unwrap();
    let max = disk.bytes() + (256 << 10);
    disk.faults.bytes_max.store(max, SeqCst);
    let mut next = 0;
    let refused = put_until_refused(&keyspace, &mut next);
    assert!(matches!(refused, Error::Io { .. } | Error::Stalled(_)), "{refused}");
    check_contents(&keyspace, next);

    // A compaction needs room for its outcome.
    disk.faults.bytes_max.store(2 * max, SeqCst);
    keyspace.clear().unwrap();
    db.compact().unwrap();
    settle(&db);
    assert_eq!(db.stats().unwrap().background_errors, []);
    assert!(disk.bytes() < max / 2, "{} of {max} bytes are left", disk.bytes());
    disk.faults.bytes_max.store(max, SeqCst);
    for n in 0..next / 4 {
        keyspace.put(&key(n), &value(n)).unwrap();
    }
    check_contents(&keyspace, next / 4);

    next /= 4;
    put_until_refused(&keyspace, &mut next);
    // One edit of the manifest.
    disk.faults.bytes_max.store(disk.bytes() + 100, SeqCst);
    assert!(db.drop_keyspace("k").unwrap());
    drop(keyspace);
    settle(&db);
    assert_eq!((&db.stats().unwrap().background_errors[..], db.stats().unwrap().stall), (&[][..], None));
    disk.faults.bytes_max.store(max, SeqCst);
    kept.put(b"another key", b"value").unwrap();
    assert_eq!(kept.get(b"key").unwrap(), Some(Bytes::from_static(b"value")));
    assert_eq!(db.verify().unwrap().problems, []);
}

#[test]
fn a_disk_that_fills_up_at_any_byte_poisons_nothing() {
    for extra in 0..60 {
        let disk = Disk::default();
        let db = open(&disk, &small());
        let keyspace = db.keyspace("k").unwrap();
        // Edits of the manifest are some 60 to 300 bytes.
        let max = disk.bytes() + (40 << 10) + 29 * extra;
        disk.faults.bytes_max.store(max, SeqCst);
        let mut next = 0;
        let refused = put_until_refused(&keyspace, &mut next);
        assert!(matches!(refused, Error::Io { .. } | Error::Stalled(_)), "{max} bytes: {refused}");
        check_contents(&keyspace, next);
        disk.faults.bytes_max.store(0, SeqCst);
        keyspace.put(&key(next), &value(next)).unwrap();
        settle(&db);
        check_contents(&keyspace, next + 1);
        assert_eq!(db.verify().unwrap().problems, []);
    }
}

/// Compactions cannot read their inputs, and flushes go on.
fn runs_pile_up(background: Background) {
    let disk = Disk::default();
    let options = Options { memtable_bytes: 8 << 10, background, ..small() };
    let db = open(&disk, &options);
    let keyspace = db.keyspace("k").unwrap();
    disk.faults.unreadable.store(true, SeqCst);
    let mut next = 0;
    let refused = put_until_refused(&keyspace, &mut next);
    assert!(matches!(refused, Error::Stalled(_)), "{refused}");
    let text = refused.to_string();
    assert!(text.contains("too many sorted runs") && text.contains("does not answer"), "{text}");
    let stats = db.stats().unwrap();
    let [error] = &stats.background_errors[..] else { panic!("{:?}", stats.background_errors) };
    assert_eq!(error.lane, Lane::Compaction);
    assert!(error.message.contains("does not answer"), "{}", error.message);
    assert!(stats.compaction_failures >= error.count && error.count > 0, "{stats:?}");
    assert_eq!(stats.flush_failures, 0);
    assert!(stats.keyspaces[0].runs.len() >= 64, "{:?}", stats.keyspaces[0].runs);
    let (cause, kind) = (StallCause::Runs, StallKind::Waited);
    assert_eq!(stats.stall, Some(StallState { cause, kind }));
    assert_eq!(tally(&db, cause, StallKind::Refused), 1);
    if background == Background::Threads {
        let slowed = |stall: &&StallStats| (stall.cause, stall.kind) == (cause, StallKind::Slowed);
        let slowed = stats.stalls.iter().find(slowed);
        let StallStats { count, total_ms, max_ms, .. } = *slowed.unwrap();
        assert!(count > 10 && total_ms > 0 && max_ms <= 1, "{slowed:?}");
    }

    disk.faults.unreadable.store(false, SeqCst);
    loop {
        match keyspace.put(&key(next), &value(next)) {
            // An attempt that began before has ended just now.
            Err(Error::Stalled(_)) => {}
            outcome => break outcome.unwrap(),
        }
    }
    assert!(tally(&db, cause, StallKind::Waited) >= 1);
    settle(&db);
    let stats = db.stats().unwrap();
    assert_eq!((&stats.background_errors[..], stats.stall), (&[][..], None));
    check_contents(&keyspace, next + 1);
}

#[test]
fn runs_pile_up_while_writers_compact() {
    runs_pile_up(Background::Inline);
}

#[test]
fn runs_pile_up_while_workers_compact() {
    runs_pile_up(Background::Threads);
}

#[test]
fn a_commit_that_may_not_wait_does_a_step_of_the_work_or_is_refused() {
    let disk = Disk::default();
    let options = Options { stall_ms_max: 0, ..small() };
    let db = open(&disk, &options);
    let keyspace = db.keyspace("k").unwrap();
    disk.faults.no_space.store(true, SeqCst);
    let text = put_until_refused(&keyspace, &mut 0).to_string();
    assert!(text.contains("write buffer is full"), "{text}");
    disk.faults.no_space.store(false, SeqCst);
    // Nobody flushes but commits.
    let tries = (1..100).find(|_| keyspace.put(b"key", b"value").is_ok());
    assert!(tries.is_some_and(|tries| tries < 10), "{tries:?}");
    let mut refused = 0;
    for n in 0..2000 {
        while keyspace.put(&key(n), &value(n)).is_err() {
            refused += 1;
            assert!(refused < 2000, "commits do not bring on what they wait for");
        }
    }
}

#[test]
fn one_busy_keyspace_and_fifty_quiet_ones_share_the_write_buffer() {
    let disk = Disk::default();
    let buffer: u64 = 64 << 10;
    let options = Options {
        memtable_bytes: 16 << 10,
        write_buffer_bytes: Some(buffer as usize),
        wal_bytes_max: Some(1 << 20),
        ..small()
    };
    let db = open(&disk, &options);
    let busy = db.keyspace("busy").unwrap();
    let quiet: Vec<Keyspace> = (0..50).map(|n| db.keyspace(&format!("quiet {n}")).unwrap()).collect();
    let mut written = 0;
    for round in 0..40u64 {
        for n in 0..50u64 {
            for (keyspace, number) in [(&busy, round * 50 + n), (&quiet[n as usize], round)] {
                keyspace.put(&key(number), &value(number)).unwrap();
                written += 208 + ENTRY_BYTES;
            }
            let stats = db.stats().unwrap();
            let held: u64 = stats.keyspaces.iter().map(|keyspace| keyspace.memtable_bytes).sum();
            assert!(held < buffer + 1000, "{held} bytes of memtables");
        }
    }
    check_contents(&busy, 2000);
    quiet.iter().for_each(|keyspace| check_contents(keyspace, 40));
    let stats = db.stats().unwrap();
    assert!(stats.keyspaces.iter().all(|keyspace| !keyspace.runs.is_empty()), "some never flushed");
    // Each time that memtables are set aside they are worth it: a sync of the WAL and
    // another WAL. What takes writes has a half of the buffer, and a half of that goes.
    let most = 2 * written / (buffer / 4);
    assert!((1..most).contains(&stats.wal_syncs), "{} syncs, {most} at most", stats.wal_syncs);
    assert_eq!(tally(&db, StallCause::WriteBuffer, StallKind::Refused), 0);
    drop((busy, quiet, db));
    let db = open(&disk, &options);
    check_contents(&db.keyspace("busy").unwrap(), 2000);
}
