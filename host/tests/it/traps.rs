//! Goal: a trap costs the call that met it, and nothing that was committed.
//! Method: exhaust the guest's memory with live scans, and its time with a huge
//! batch, or with deadlines so short that they end a workload anywhere; then look
//! at what is left.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::ops::Bound;
use std::path::Path;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use duramen::api::pairs;
use duramen::{
    Budget, Database, DatabaseTransaction, Durability, Error, KeyspaceId, KeyspaceOptions, Result, Scan,
    ScanRange, WriteBatch,
};
use duramen_host::{Sandbox, SandboxOptions};
use wasm_tests::random::Random;

use crate::{existing, options, small};

/// The kind and text of an `Io` error.
pub fn io<T>(result: Result<T>) -> (ErrorKind, String) {
    match result.err().expect("an error") {
        ref error @ Error::Io { ref source, .. } => (source.kind(), error.to_string()),
        error => panic!("not an io error: {error}"),
    }
}

/// Opens scans with long bounds over a long key until the guest has no memory
/// for another.
fn exhaust_memory(db: &Sandbox, keyspace: KeyspaceId) -> (Vec<Box<dyn Scan>>, Error) {
    let key = vec![5; 60_000];
    db.put(keyspace, &key, b"", Durability::Buffered).unwrap();
    let range = ScanRange { start: Bound::Included(key.clone()), end: Bound::Included(key), reverse: false };
    let mut scans = Vec::new();
    loop {
        match db.scan(keyspace, &range, None) {
            Ok(scan) => scans.push(scan),
            Err(error) => return (scans, error),
        }
        assert!(scans.len() < 2000, "scans use no memory");
    }
}

#[test]
fn the_memory_cap_ends_the_instance_and_the_next_call_recovers() {
    let directory = tempfile::tempdir().unwrap();
    let db = Sandbox::open(directory.path(), small()).unwrap();
    let keyspace = db.create_keyspace("k").unwrap();
    db.put(keyspace, b"survivor", b"1", Durability::Buffered).unwrap();
    let snapshot = db.snapshot().unwrap();

    let (mut scans, error) = exhaust_memory(&db, keyspace);
    let (kind, text) = io::<()>(Err(error));
    assert_eq!(kind, ErrorKind::OutOfMemory, "{text}");
    assert!(text.contains("memory cap of 16777216 bytes"), "{text}");
    assert_eq!(db.guest_memory_bytes(), 0);

    // What the instance had is gone, and says so.
    assert_eq!(io(scans[0].next_page(1024, usize::MAX)).0, ErrorKind::ConnectionReset);
    assert_eq!(io(db.get(keyspace, b"survivor", Some(snapshot))).0, ErrorKind::ConnectionReset);
    drop(scans);

    // What was committed is not, and neither is the keyspace's id.
    assert_eq!(db.find_keyspace("k").unwrap(), Some(keyspace));
    assert_eq!(db.get(keyspace, b"survivor", None).unwrap().unwrap(), "1");
    db.put(keyspace, b"later", b"2", Durability::Buffered).unwrap();
    assert_eq!(db.get(keyspace, b"later", None).unwrap().unwrap(), "2");
    assert_eq!(db.restarts(), 1);

    // Snapshots of the dead instance may be released, once.
    db.release(snapshot).unwrap();
    assert!(matches!(db.release(snapshot), Err(Error::InvalidArgument(_))));
    let snapshot = db.snapshot().unwrap();
    db.release(snapshot).unwrap();
}

#[test]
fn traps_may_repeat_and_the_directory_stays_locked() {
    let directory = tempfile::tempdir().unwrap();
    let db = Sandbox::open(directory.path(), small()).unwrap();
    for round in 1..=3 {
        let keyspace = db.create_keyspace("k").unwrap();
        let (scans, _) = exhaust_memory(&db, keyspace);
        assert!(matches!(Sandbox::open(directory.path(), small()), Err(Error::Locked(_))));
        // Dropped while no instance lives.
        drop(scans);
        db.keyspaces().unwrap();
        assert_eq!(db.restarts(), round);
    }
}

/// A batch that takes the guest seconds.
fn long_batch(keyspace: KeyspaceId) -> WriteBatch {
    let mut batch = WriteBatch::new();
    for i in 0..2_000_000u64 {
        let key = i.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        batch.put(keyspace, &key.to_be_bytes(), b"");
    }
    batch
}

#[test]
fn the_deadline_ends_the_instance_and_the_next_call_recovers() {
    let directory = tempfile::tempdir().unwrap();
    let deadline = Duration::from_millis(300);
    let options = SandboxOptions { memory_bytes_max: 1 << 30, call_deadline: deadline, ..options() };
    let db = Sandbox::open(directory.path(), options).unwrap();
    let keyspace = db.create_keyspace("k").unwrap();
    db.put(keyspace, b"survivor", b"1", Durability::Buffered).unwrap();

    let batch = long_batch(keyspace);
    let start = Instant::now();
    let (kind, text) = io(db.write(batch, Durability::Buffered));
    assert_eq!(kind, ErrorKind::TimedOut, "{text}");
    assert!(text.contains("deadline of 300ms"), "{text}");
    assert!(start.elapsed() >= deadline);

    assert_eq!(db.get(keyspace, b"survivor", None).unwrap().unwrap(), "1");
    assert_eq!(db.restarts(), 1);
}

#[test]
fn values_that_do_not_fit_together_are_refused_and_the_database_goes_on() {
    let directory = tempfile::tempdir().unwrap();
    let db = Sandbox::open(directory.path(), small()).unwrap();
    let keyspace = db.create_keyspace("k").unwrap();
    let value = vec![1; 2 << 20];
    db.put(keyspace, b"k", &value, Durability::Buffered).unwrap();
    // 40 MiB in a guest of 16 MiB: a clean refusal where only the answer does
    // not fit, a trap where the values themselves do not.
    assert!(db.multi_get(keyspace, &[&b"k"[..]; 20], None).is_err());
    assert_eq!(db.get(keyspace, b"k", None).unwrap().unwrap(), value);
}

/// True if a call was ended with its instance, or found what it needs gone with
/// one.
pub fn was_ended(error: &Error) -> bool {
    let kinds = [ErrorKind::TimedOut, ErrorKind::OutOfMemory, ErrorKind::ConnectionReset];
    matches!(error, Error::Io { source, .. } if kinds.contains(&source.kind()))
}

/// Makes a call until it is not ended.
pub fn insist<T>(mut call: impl FnMut() -> Result<T>) -> T {
    let mut attempts = 0;
    loop {
        match call() {
            Ok(answer) => return answer,
            Err(error) if was_ended(&error) || matches!(error, Error::Stalled(_)) => attempts += 1,
            Err(error) => panic!("{error}"),
        }
        assert!(attempts < 1000, "ended every time");
    }
}

pub type Contents = BTreeMap<Vec<u8>, Vec<u8>>;

/// A workload whose every commit writes its number to two keyspaces and counts
/// itself in a third.
pub struct Numbered<'a> {
    pub db: &'a Sandbox,
    pub twins: [KeyspaceId; 2],
    counter: KeyspaceId,
    /// The last commit that is known to be there, and what it made of the twins.
    pub last: u64,
    pub contents: Contents,
    /// Bytes of the longest value.
    value_bytes_max: usize,
    /// Calls that were ended, by name.
    ended: BTreeMap<String, u64>,
}

impl<'a> Numbered<'a> {
    pub fn new(db: &'a Sandbox, value_bytes_max: usize) -> Self {
        let counting = KeyspaceOptions { merge_operator: Some("i64.add".to_owned()), ..Default::default() };
        Numbered {
            twins: ["left", "right"].map(|name| insist(|| db.create_keyspace(name))),
            counter: insist(|| db.create_keyspace_with("counter", &counting)),
            db,
            last: 0,
            contents: Contents::new(),
            value_bytes_max,
            ended: BTreeMap::new(),
        }
    }

    /// True of the commits that delete a range.
    pub fn deletes_range(number: u64) -> bool {
        number.is_multiple_of(15)
    }

    fn row(number: u64) -> Vec<u8> {
        format!("row:{:02}", number % 40).into_bytes()
    }

    fn value(&self, number: u64) -> Vec<u8> {
        let bytes = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) as usize % self.value_bytes_max;
        number.to_le_bytes().into_iter().cycle().take(8 + bytes).collect()
    }

    /// What a commit does to each of the twins: rows that go, then rows that come.
    pub fn apply(&mut self, number: u64) {
        if Self::deletes_range(number) {
            self.contents.retain(|key, _| !(Self::row(10)..Self::row(30)).contains(key));
        }
        let value = self.value(number);
        self.contents.insert(Self::row(number), value);
        self.contents.insert(b"last".to_vec(), number.to_le_bytes().to_vec());
    }

    pub fn batch(&self, number: u64) -> WriteBatch {
        let mut batch = WriteBatch::new();
        for twin in self.twins {
            if Self::deletes_range(number) {
                batch.delete_range(twin, &Self::row(10), &Self::row(30));
            }
            batch.put(twin, &Self::row(number), &self.value(number));
            batch.put(twin, b"last", &number.to_le_bytes());
        }
        batch.merge(self.counter, b"commits", &1i64.to_le_bytes());
        batch
    }

    /// The next step of the workload.
    fn step(&mut self) -> Result<()> {
        let number = self.last + 1;
        if number.is_multiple_of(9) {
            self.db.maintain(Budget::bytes(64 << 10))?;
        }
        if number.is_multiple_of(45) {
            self.db.flush()?;
        }
        if number.is_multiple_of(160) {
            self.db.compact()?;
        }
        loop {
            match self.db.write(self.batch(number), Durability::Buffered) {
                // It has done a slice of its work; the next call does another one.
                Err(Error::Stalled(_)) => {}
                written => break written?,
            }
        }
        self.last = number;
        self.apply(number);
        Ok(())
    }

    /// After a call was ended: whatever was begun before is gone, whatever was
    /// acknowledged is there, and the commit that was under way is there whole or
    /// not at all.
    pub fn check(&mut self, error: Error, mut transaction: Box<dyn DatabaseTransaction>) {
        let Error::Io { file, .. } = error else { panic!("{error}") };
        *self.ended.entry(file).or_default() += 1;

        let reset = |outcome| assert_eq!(io::<()>(outcome).0, ErrorKind::ConnectionReset);
        reset(transaction.get(self.twins[0], b"last").map(drop));
        reset(transaction.write(self.batch(u64::MAX)));
        reset(transaction.commit(Durability::Buffered));

        let found = insist(|| self.db.get(self.twins[0], b"last", None));
        let found = found.map_or(0, |value| u64::from_le_bytes(value[..].try_into().unwrap()));
        assert!([self.last, self.last + 1].contains(&found), "{found} found, {} acknowledged", self.last);
        if found > self.last {
            self.last = found;
            self.apply(found);
        }
        for twin in self.twins {
            assert_eq!(self.scanned(twin), self.contents, "after commit {found}");
        }
        let commits = insist(|| self.db.get(self.counter, b"commits", None));
        let commits = commits.map_or(0, |value| i64::from_le_bytes(value[..].try_into().unwrap()));
        assert_eq!(commits as u64, found);
        assert_eq!(insist(|| self.db.verify()).problems, []);
    }

    pub fn scanned(&self, keyspace: KeyspaceId) -> Contents {
        insist(|| {
            let rows = pairs(self.db.scan(keyspace, &ScanRange::all(), None)?);
            rows.map(|row| row.map(|(key, value)| (key.to_vec(), value.to_vec()))).collect()
        })
    }

    /// A transaction that has read and written.
    pub fn begin(&self) -> Box<dyn DatabaseTransaction> {
        insist(|| {
            let mut transaction = self.db.transaction()?;
            transaction.get(self.twins[0], b"last")?;
            transaction.write(self.batch(u64::MAX))?;
            Ok(transaction)
        })
    }

    pub fn ended(&self) -> u64 {
        self.ended.values().sum()
    }
}

/// Options under which little data makes many files.
pub fn busy() -> SandboxOptions {
    let mut options = small();
    options.engine.memtable_bytes = 64 << 10;
    options.engine.target_file_bytes = 64 << 10;
    options
}

/// Whatever is under way when an epoch ends is ended with it.
#[test]
fn deadlines_anywhere_in_a_workload_tear_nothing() {
    const POINTS: u64 = 60;
    let directory = tempfile::tempdir().unwrap();
    let options = SandboxOptions { call_deadline: Duration::ZERO, ..busy() };
    let db = Sandbox::open(directory.path(), options).unwrap();
    let mut numbered = Numbered::new(&db, 4 << 10);
    let start = Instant::now();
    while numbered.ended() < POINTS {
        let transaction = numbered.begin();
        let error = loop {
            if let Err(error) = numbered.step() {
                break error;
            }
            assert!(start.elapsed() < Duration::from_secs(300), "ended at {:?} only", numbered.ended);
        };
        assert!(was_ended(&error), "{error}");
        numbered.check(error, transaction);
    }
    println!("{} commits, {} restarts, ended {:?}", numbered.last, db.restarts(), numbered.ended);
    assert!(db.restarts() >= POINTS && numbered.ended.contains_key("write"), "{:?}", numbered.ended);
    let contents = numbered.contents;
    drop(db);
    // What the last instance left is whole for others as well.
    assert_eq!(found_natively(directory.path()), contents);
}

/// What the engine in this process finds in one of the twins.
pub fn found_natively(directory: &Path) -> Contents {
    let native = duramen_host::open(directory, true, existing()).unwrap();
    assert_eq!(native.verify().unwrap().problems, []);
    let left = native.find_keyspace("left").unwrap().unwrap();
    let rows = pairs(native.scan(left, &ScanRange::all(), None).unwrap());
    rows.map(|row| row.map(|(k, v)| (k.to_vec(), v.to_vec())).unwrap()).collect()
}

/// Scans are held, one more now and then, until something finds no memory.
#[test]
fn the_memory_cap_anywhere_in_a_workload_tears_nothing() {
    const POINTS: u64 = 40;
    let directory = tempfile::tempdir().unwrap();
    let mut options = busy();
    options.engine.memtable_bytes = 512 << 10;
    let db = Sandbox::open(directory.path(), options).unwrap();
    let random = &mut Random::new(1);
    let bound = Bound::Included(vec![5; 60_000]);
    let range = ScanRange { start: bound.clone(), end: bound, reverse: false };
    let mut numbered = Numbered::new(&db, 60 << 10);
    let mut capacity = usize::MAX;
    while numbered.ended() < POINTS {
        let transaction = numbered.begin();
        let mut scans = Vec::new();
        let most = capacity.saturating_sub(1 + random.below(30));
        let every = 1 + random.below(4) as u64;
        let error = loop {
            let fill = scans.len() < most || numbered.last.is_multiple_of(every);
            let scan = fill.then(|| db.scan(numbered.twins[0], &range, None)).transpose();
            match scan {
                Ok(scan) => scans.extend(scan),
                Err(error) => break error,
            }
            if (scans.len() >= most || capacity == usize::MAX)
                && let Err(error) = numbered.step()
            {
                break error;
            }
            assert!(scans.len() < 2000, "scans use no memory");
        };
        if !was_ended(&error) {
            // The engine found no memory before it changed anything, and lives on.
            assert!(error.to_string().contains("memory"), "{error}");
            drop(scans);
            assert_eq!(numbered.scanned(numbered.twins[0]), numbered.contents);
            continue;
        }
        assert!(
            matches!(&error, Error::Io { source, .. } if source.kind() == ErrorKind::OutOfMemory),
            "{error}"
        );
        capacity = scans.len();
        drop(scans);
        numbered.check(error, transaction);
    }
    println!("{} commits, {} restarts, ended {:?}", numbered.last, db.restarts(), numbered.ended);
    assert!(db.restarts() >= POINTS);
    assert!(numbered.ended.get("write").is_some_and(|writes| *writes > 3), "{:?}", numbered.ended);
    assert!(db.guest_memory_bytes_peak() <= crate::SMALL);
    assert!(db.verify().unwrap().problems.is_empty());
}

/// Recovery is ended, again and again, and then not.
#[test]
fn recovery_may_be_ended_and_begins_again() {
    const POINTS: usize = 15;
    let directory = tempfile::tempdir().unwrap();
    let db = Sandbox::open(directory.path(), options()).unwrap();
    let keyspace = db.create_keyspace("k").unwrap();
    // Replaying as many takes several epochs.
    const BATCHES: u64 = 60;
    for number in 0..BATCHES {
        let mut batch = WriteBatch::new();
        for row in 0..5000u64 {
            let key = (number * 5000 + row).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            batch.put(keyspace, &key.to_be_bytes(), b"");
        }
        batch.put(keyspace, b"last", &number.to_le_bytes());
        db.write(batch, Durability::Buffered).unwrap();
    }
    drop(db);
    let mut ended = 0;
    let mut deadline = Duration::ZERO;
    let db = loop {
        // From nothing to what is enough.
        let hurried = SandboxOptions { long_call_deadline: deadline, ..options() };
        match Sandbox::open(directory.path(), hurried) {
            Ok(db) if ended >= POINTS => break db,
            Ok(db) => drop(db),
            Err(error) => {
                assert_eq!(io::<()>(Err(error)).0, ErrorKind::TimedOut);
                ended += 1;
            }
        }
        if ended >= POINTS {
            deadline = deadline * 2 + Duration::from_millis(50);
        }
    };
    assert_eq!(db.get(keyspace, b"last", None).unwrap().unwrap()[..], (BATCHES - 1).to_le_bytes());
    let rows = pairs(db.scan(keyspace, &ScanRange::all(), None).unwrap());
    assert_eq!(rows.map(Result::unwrap).count() as u64, BATCHES * 5000 + 1);
}

const ACCOUNTS: u8 = 8;
const BALANCE: i64 = 1000;

/// A bank in a sandbox.
struct Bank<'a> {
    db: &'a Sandbox,
    accounts: KeyspaceId,
    transfers: KeyspaceId,
    conflicts: AtomicU64,
    ended: AtomicU64,
}

impl<'a> Bank<'a> {
    fn new(db: &'a Sandbox) -> Self {
        let counting = KeyspaceOptions { merge_operator: Some("i64.add".to_owned()), ..Default::default() };
        let bank = Bank {
            accounts: insist(|| db.create_keyspace("accounts")),
            transfers: insist(|| db.create_keyspace_with("transfers", &counting)),
            db,
            conflicts: AtomicU64::new(0),
            ended: AtomicU64::new(0),
        };
        let mut batch = WriteBatch::new();
        for account in 0..ACCOUNTS {
            batch.put(bank.accounts, &[account], &BALANCE.to_le_bytes());
        }
        insist(|| db.write(batch.clone(), Durability::Buffered));
        bank
    }

    fn balance(&self, transaction: &mut dyn DatabaseTransaction, account: u8) -> Result<i64> {
        let balance = transaction.get(self.accounts, &[account])?.expect("an account");
        Ok(i64::from_le_bytes(balance[..].try_into().unwrap()))
    }

    fn transfer(&self, from: u8, to: u8, amount: i64) -> Result<()> {
        let mut transaction = self.db.transaction()?;
        let amount = amount.min(self.balance(transaction.as_mut(), from)?);
        let balance = self.balance(transaction.as_mut(), from)? - amount;
        let mut batch = WriteBatch::new();
        batch.put(self.accounts, &[from], &balance.to_le_bytes());
        transaction.write(batch)?;
        // Its own write, where it is one account.
        let balance = self.balance(transaction.as_mut(), to)? + amount;
        let mut batch = WriteBatch::new();
        batch.put(self.accounts, &[to], &balance.to_le_bytes());
        batch.merge(self.transfers, b"count", &1i64.to_le_bytes());
        transaction.write(batch)?;
        transaction.commit(Durability::Buffered)
    }

    /// Transfers until `wanted` of them were acknowledged.
    fn work(&self, seed: u64, wanted: u64) {
        let random = &mut Random::new(seed);
        let mut account = || random.below(usize::from(ACCOUNTS)) as u8;
        let mut done = 0;
        while done < wanted {
            match self.transfer(account(), account(), 1 + done as i64 % 300) {
                Ok(()) => done += 1,
                Err(Error::Conflict { .. }) => drop(self.conflicts.fetch_add(1, Relaxed)),
                Err(error) if was_ended(&error) => drop(self.ended.fetch_add(1, Relaxed)),
                // A guest that has so little time may not get to its flushes.
                Err(Error::Stalled(_)) => thread::yield_now(),
                Err(error) => panic!("{error}"),
            }
        }
    }

    fn total(&self) -> i64 {
        insist(|| {
            let mut transaction = self.db.transaction()?;
            let rows = pairs(transaction.scan(self.accounts, &ScanRange::all())?);
            let balances =
                rows.map(|row| row.map(|(_, value)| i64::from_le_bytes(value[..].try_into().unwrap())));
            balances.sum()
        })
    }

    /// Four threads transfer while a fifth looks.
    fn run(&self, wanted: u64) {
        let total = i64::from(ACCOUNTS) * BALANCE;
        let over = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                while !over.load(Relaxed) {
                    assert_eq!(self.total(), total, "seen in the midst of it");
                }
            });
            let workers: Vec<_> = (1..=4).map(|seed| scope.spawn(move || self.work(seed, wanted))).collect();
            let outcomes: Vec<_> = workers.into_iter().map(|worker| worker.join()).collect();
            over.store(true, Relaxed);
            outcomes.into_iter().for_each(|outcome| outcome.unwrap());
        });
        assert_eq!(self.total(), total);
    }

    fn count(&self) -> u64 {
        let count = insist(|| self.db.get(self.transfers, b"count", None)).unwrap();
        i64::from_le_bytes(count[..].try_into().unwrap()) as u64
    }
}

#[test]
fn transfers_of_many_threads_keep_the_total() {
    let directory = tempfile::tempdir().unwrap();
    let db = Sandbox::open(directory.path(), busy()).unwrap();
    let bank = Bank::new(&db);

    // All read one account before any of them writes it: one may commit.
    let barrier = Barrier::new(4);
    let committed = AtomicU64::new(0);
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let mut transaction = db.transaction().unwrap();
                let balance = bank.balance(transaction.as_mut(), 0).unwrap();
                let mut batch = WriteBatch::new();
                batch.put(bank.accounts, &[0], &balance.to_le_bytes());
                transaction.write(batch).unwrap();
                barrier.wait();
                match transaction.commit(Durability::Buffered) {
                    Ok(()) => drop(committed.fetch_add(1, Relaxed)),
                    Err(Error::Conflict { key }) => assert_eq!(key, [0]),
                    Err(error) => panic!("{error}"),
                }
            });
        }
    });
    assert_eq!(committed.load(Relaxed), 1);

    bank.run(400);
    println!("{} conflicts", bank.conflicts.load(Relaxed));
    assert_eq!(bank.count(), 4 * 400, "each acknowledged transfer counts once");
    assert_eq!((bank.ended.load(Relaxed), db.restarts()), (0, 0));
    assert_eq!(db.stats().unwrap().snapshots, 0, "a transaction is still alive");
}

#[test]
fn transfers_keep_the_total_while_instances_end() {
    let directory = tempfile::tempdir().unwrap();
    let options = SandboxOptions { call_deadline: Duration::ZERO, ..busy() };
    let db = Sandbox::open(directory.path(), options).unwrap();
    let bank = Bank::new(&db);
    let mut rounds = 0;
    while db.restarts() < 20 {
        bank.run(100);
        rounds += 1;
        assert!(rounds < 1000, "{} restarts", db.restarts());
    }
    println!("{} conflicts, {} ended", bank.conflicts.load(Relaxed), bank.ended.load(Relaxed));
    // Some that were ended may have been committed nevertheless.
    let (acknowledged, ended) = (rounds * 400, bank.ended.load(Relaxed));
    assert!((acknowledged..=acknowledged + ended).contains(&bank.count()));
}
