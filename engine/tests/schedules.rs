//! Goal: whatever the schedule, commits, installs of flushes, snapshots and
//! iterators agree. Method: the engine with locks, atomics and threads of
//! shuttle, which switches between threads at each of their uses as a seed says.
//!
//! `cargo test -p duramen --features shuttle --test schedules`; in a build with
//! this feature no other test can run. A failure prints its seed and schedule.

use std::sync::Arc;

use duramen::storage::memory::MemoryStorage;
use duramen::{
    Background, Compression, Database, Db, Durability, Error, Keyspace, KeyspaceOptions, MemtableKind,
    Options, ScanRange, WriteBatch,
};
use shuttle::sync::atomic::AtomicU8;
use shuttle::sync::atomic::Ordering::SeqCst;
use shuttle::thread;

/// Schedules of each test.
const SCHEDULES: usize = 4000;

fn options(background: Background) -> Options {
    Options {
        memtable_bytes: 300,
        target_file_bytes: 1 << 10,
        cache_bytes: 1 << 12,
        compression: Compression::None,
        background,
        ..Options::default()
    }
}

fn open(storage: &MemoryStorage, background: Background) -> (Db, Keyspace) {
    let db = Db::open_with(Arc::new(storage.clone()), options(background)).unwrap();
    let append = KeyspaceOptions { merge_operator: Some("append".into()), ..KeyspaceOptions::default() };
    let keyspace = db.keyspace_with("k", append).unwrap();
    (db, keyspace)
}

/// By a random choice at every switch, and by few switches at telling places.
fn explore(test: impl Fn() + Send + Sync + Clone + 'static) {
    let seed = std::env::var("DURAMEN_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(0);
    println!("seed {seed}, {SCHEDULES} schedules");
    let mut config = shuttle::Config::new();
    // The engine's calls are deeper than the default is for.
    config.stack_size = 1 << 20;
    config.silence_warnings = true;
    config.max_steps = shuttle::MaxSteps::FailAfter(10_000_000);
    let random = shuttle::scheduler::RandomScheduler::new_from_seed(seed, SCHEDULES / 2);
    shuttle::Runner::new(random, config.clone()).run(test.clone());
    let few = shuttle::scheduler::PctScheduler::new_from_seed(seed, 3, SCHEDULES / 2);
    shuttle::Runner::new(few, config).run(test);
}

/// Both keys are only ever written together.
fn put_both(keyspace: &Keyspace, db: &Db, number: u8) {
    let mut batch = WriteBatch::new();
    batch.put(keyspace, b"a", &[number; 60]).put(keyspace, b"b", &[number; 60]);
    db.write(batch, Durability::Buffered).unwrap();
}

#[test]
fn snapshots_and_iterators_stay_while_flushes_install() {
    explore(|| {
        let storage = MemoryStorage::new();
        let (db, keyspace) = open(&storage, Background::Inline);
        put_both(&keyspace, &db, 1);
        let writer = {
            let (keyspace, db) = (keyspace.clone(), db.clone());
            thread::spawn(move || (2..6).for_each(|number| put_both(&keyspace, &db, number)))
        };
        let flusher = {
            let db = db.clone();
            thread::spawn(move || {
                db.flush().unwrap();
                db.compact().unwrap();
            })
        };
        let mut before = 1;
        for _ in 0..3 {
            let snapshot = db.snapshot();
            let mut rows = snapshot.range::<&[u8]>(&keyspace, ..);
            let a = snapshot.get(&keyspace, b"a").unwrap().unwrap();
            let first = rows.next().unwrap().unwrap();
            let b = snapshot.get(&keyspace, b"b").unwrap().unwrap();
            let second = rows.next().unwrap().unwrap();
            assert_eq!((&a, &a, &a), (&b, &first.1, &second.1), "a torn snapshot");
            assert!(a[0] >= before, "{} after {before}", a[0]);
            before = a[0];
            // The iterator needs no snapshot any more.
            drop(snapshot);
            assert!(rows.next().is_none());
            let now = keyspace.multi_get([b"a", b"b"]).unwrap();
            assert_eq!(now[0], now[1], "a torn read");
        }
        writer.join().unwrap();
        flusher.join().unwrap();
        assert_eq!(keyspace.get(b"a").unwrap().as_deref(), Some(&[5; 60][..]));
        assert_eq!(db.stats().unwrap().snapshots, 0);
        assert_eq!(db.verify().unwrap().problems, []);
        drop((db, keyspace));
        let (_db, keyspace) = open(&storage, Background::Inline);
        assert_eq!(keyspace.get(b"b").unwrap().as_deref(), Some(&[5; 60][..]));
    });
}

#[test]
fn transactions_and_merges_of_three_threads_lose_nothing() {
    explore(|| {
        let (db, keyspace) = open(&MemoryStorage::new(), Background::Inline);
        let threads: Vec<_> = (1..=3u8)
            .map(|number| {
                let (db, keyspace) = (db.clone(), keyspace.clone());
                thread::spawn(move || {
                    keyspace.merge(b"list", &[number]).unwrap();
                    let outcome = db.transact(20, Durability::Sync, |transaction| {
                        let count = transaction.get(&keyspace, b"count")?.map_or(0, |value| value[0]);
                        transaction.put(&keyspace, b"count", &[count + 1])
                    });
                    assert!(!matches!(outcome, Err(Error::Conflict { .. })), "somebody always goes on");
                    outcome.unwrap();
                    db.flush().unwrap();
                })
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        assert_eq!(keyspace.get(b"count").unwrap().as_deref(), Some(&[3][..]));
        let mut list = keyspace.get(b"list").unwrap().unwrap().to_vec();
        list.sort_unstable();
        assert_eq!(list, [1, 2, 3]);
        assert_eq!(db.stats().unwrap().last_sequence, 6);
    });
}

#[test]
fn another_kind_of_memtable_among_writers_loses_nothing() {
    explore(|| {
        let storage = MemoryStorage::new();
        let (db, keyspace) = open(&storage, Background::Inline);
        let writer = {
            let keyspace = keyspace.clone();
            thread::spawn(move || {
                for number in 1..=3u8 {
                    // Full after two.
                    keyspace.put(&[number], &[number; 120]).unwrap();
                    assert_eq!(keyspace.get(&[number]).unwrap().as_deref(), Some(&[number; 120][..]));
                }
            })
        };
        for memtable in MemtableKind::ALL.into_iter().rev() {
            let options = KeyspaceOptions { memtable: Some(memtable), ..KeyspaceOptions::default() };
            db.keyspace_with("k", options).unwrap();
        }
        writer.join().unwrap();
        drop((db, keyspace));
        let (_db, keyspace) = open(&storage, Background::Inline);
        for number in 1..=3u8 {
            assert_eq!(keyspace.get(&[number]).unwrap().as_deref(), Some(&[number; 120][..]));
        }
    });
}

#[test]
fn a_drop_among_writers_and_readers_is_clean() {
    explore(|| {
        let storage = MemoryStorage::new();
        let (db, keyspace) = open(&storage, Background::Inline);
        let writer = {
            let keyspace = keyspace.clone();
            thread::spawn(move || {
                for _ in 0..4 {
                    match keyspace.put(b"key", &[7; 120]) {
                        Ok(()) => {}
                        Err(Error::InvalidArgument(_)) => return,
                        Err(error) => panic!("{error}"),
                    }
                }
            })
        };
        let flusher = {
            let db = db.clone();
            thread::spawn(move || db.flush().unwrap())
        };
        assert!(db.drop_keyspace("k").unwrap());
        writer.join().unwrap();
        flusher.join().unwrap();
        db.close().unwrap();
        drop((db, keyspace));
        let db = Db::open_with(Arc::new(storage), options(Background::Inline)).unwrap();
        assert_eq!(db.keyspaces().unwrap(), []);
    });
}

/// A read had taken the emptied view of a keyspace that was dropped after the read
/// had looked whether it was there, and answered that there is no value.
#[test]
fn a_read_beside_a_drop_answers_from_before_it_or_refuses() {
    explore(|| {
        let storage = MemoryStorage::new();
        let (db, keyspace) = open(&storage, Background::Inline);
        keyspace.put(b"key", b"value").unwrap();
        let reader = {
            let (db, keyspace) = (db.clone(), keyspace.clone());
            thread::spawn(move || {
                let all = ScanRange::all();
                let answers = [
                    keyspace.get(b"key").map(|value| value.is_some()),
                    keyspace.multi_get([b"key"]).map(|values| values[0].is_some()),
                    keyspace.range::<&[u8]>(..).next().map_or(Ok(false), |row| row.map(|_| true)),
                    db.scan(keyspace.id(), &all, None)
                        .and_then(|mut scan| Ok(!scan.next_page(1, usize::MAX)?.is_empty())),
                    db.transaction().get(&keyspace, b"key").map(|value| value.is_some()),
                    db.transaction().prefix(&keyspace, b"").map(|mut rows| rows.next().is_some()),
                ];
                for (index, answer) in answers.into_iter().enumerate() {
                    match answer {
                        Ok(true) | Err(Error::InvalidArgument(_)) => {}
                        other => panic!("read {index}: {other:?}"),
                    }
                }
            })
        };
        assert!(db.drop_keyspace("k").unwrap());
        reader.join().unwrap();
    });
}

/// Worker threads hear of work, and that they must end.
#[test]
fn workers_flush_what_waits_and_end() {
    explore(|| {
        let (db, keyspace) = open(&MemoryStorage::new(), Background::Threads);
        (0..4).for_each(|number| put_both(&keyspace, &db, number));
        let rows = keyspace.range::<&[u8]>(..).map(|row| row.unwrap().1).collect::<Vec<_>>();
        assert!(rows.len() == 2 && rows.iter().all(|value| value == &[3; 60][..]));
        drop((db, keyspace));
    });
}

/// Scans that learn what is empty, beside a writer who puts into it and empties it again:
/// each sees all of a commit or nothing, and none that was acknowledged is missed. Each
/// commit fills a memtable, or none does.
#[test]
fn scans_that_learn_gaps_miss_no_put() {
    const STATES: u8 = 5;
    fn rows_of(state: u8) -> Vec<Vec<u8>> {
        let put = (state % 2 == 1).then(|| vec![b'd', STATES - state]);
        put.into_iter().chain([b"z".to_vec()]).collect()
    }
    fn scan(keyspace: &Keyspace, acknowledged: &AtomicU8) {
        let least = acknowledged.load(SeqCst);
        let rows: Vec<_> = keyspace.range::<&[u8]>(..).map(Result::unwrap).collect();
        let (_, value) = rows.last().unwrap();
        let state = value[0];
        let keys: Vec<_> = rows.iter().map(|(key, _)| key.to_vec()).collect();
        assert!(state >= least, "state {least} was acknowledged, {state} was found");
        assert_eq!(keys, rows_of(state), "in state {state}");
    }
    fn commit(db: &Db, keyspace: &Keyspace, state: u8) {
        let mut batch = WriteBatch::new();
        batch.put(keyspace, b"z", &[state; 60]);
        match state {
            0 => (0..=STATES).for_each(|number| drop(batch.delete(keyspace, &[b'd', number]).len())),
            _ if state % 2 == 1 => drop(batch.put(keyspace, &[b'd', STATES - state], &[state; 60]).len()),
            _ => drop(batch.delete(keyspace, &[b'd', STATES - state + 1]).len()),
        }
        db.write(batch, Durability::Buffered).unwrap();
    }
    let test = |memtable_bytes: usize| {
        let options = Options { memtable_bytes, ..options(Background::Inline) };
        let db = Db::open_with(Arc::new(MemoryStorage::new()), options).unwrap();
        let keyspace = db.keyspace("k").unwrap();
        commit(&db, &keyspace, 0);
        let acknowledged = Arc::new(AtomicU8::new(0));
        let writer = {
            let (db, keyspace, acknowledged) = (db.clone(), keyspace.clone(), Arc::clone(&acknowledged));
            thread::spawn(move || {
                for state in 1..=STATES {
                    commit(&db, &keyspace, state);
                    acknowledged.store(state, SeqCst);
                    scan(&keyspace, &acknowledged);
                }
            })
        };
        let scans = move || (0..3).for_each(|_| scan(&keyspace, &acknowledged));
        let reader = thread::spawn(scans.clone());
        scans();
        writer.join().unwrap();
        reader.join().unwrap();
    };
    explore(move || test(300));
    explore(move || test(1 << 20));
}
