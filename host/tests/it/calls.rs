//! Goal: the sandbox answers as the trait promises, and as the native engine
//! does. Method: each test runs on both.

use std::ops::Bound;
use std::thread;

use duramen::api::pairs;
use duramen::stats::{StallCause, StallKind, StallState};
use duramen::{Budget, Database, Durability, Error, KeyspaceId, Progress, ScanRange, WriteBatch};

use crate::options;

/// Runs `test` on a fresh database of either kind.
fn on_both(test: impl Fn(&dyn Database)) {
    for native in [false, true] {
        let directory = tempfile::tempdir().unwrap();
        let database = duramen_host::open(directory.path(), native, options()).unwrap();
        test(database.as_ref());
        database.close().unwrap();
    }
}

fn put(db: &dyn Database, keyspace: KeyspaceId, key: &str, value: &str) {
    db.put(keyspace, key.as_bytes(), value.as_bytes(), Durability::Buffered).unwrap();
}

fn keys(db: &dyn Database, keyspace: KeyspaceId, range: &ScanRange) -> Vec<String> {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    pairs(db.scan(keyspace, range, None).unwrap()).map(|pair| text(&pair.unwrap().0)).collect()
}

#[test]
fn put_get_delete() {
    on_both(|db| {
        let users = db.create_keyspace("users").unwrap();
        assert_eq!(db.get(users, b"k", None).unwrap(), None);
        put(db, users, "k", "v");
        put(db, users, "empty", "");
        assert_eq!(db.get(users, b"k", None).unwrap().unwrap(), "v");
        assert_eq!(db.get(users, b"empty", None).unwrap().unwrap(), "");
        db.delete(users, b"k", Durability::Sync).unwrap();
        assert_eq!(db.get(users, b"k", None).unwrap(), None);
    });
}

#[test]
fn keyspaces_have_names_and_ids() {
    on_both(|db| {
        let a = db.create_keyspace("a").unwrap();
        let b = db.create_keyspace("b").unwrap();
        assert_eq!(db.create_keyspace("a").unwrap(), a);
        assert_eq!(db.find_keyspace("b").unwrap(), Some(b));
        assert_eq!(db.find_keyspace("c").unwrap(), None);
        assert_eq!(db.keyspaces().unwrap(), [("a".to_owned(), a), ("b".to_owned(), b)]);
        put(db, a, "k", "in a");
        assert_eq!(db.get(b, b"k", None).unwrap(), None);
    });
}

#[test]
fn unknown_keyspaces_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let db = crate::open(directory.path());
    assert!(matches!(db.get(KeyspaceId(99), b"k", None), Err(Error::InvalidArgument(_))));
}

#[test]
fn batches_cross_keyspaces() {
    on_both(|db| {
        let a = db.create_keyspace("a").unwrap();
        let b = db.create_keyspace("b").unwrap();
        put(db, a, "old", "1");
        let mut batch = WriteBatch::new();
        batch.put(a, b"new", b"2").delete(a, b"old").put(b, b"k", b"first").put(b, b"k", b"last");
        db.write(batch, Durability::Sync).unwrap();
        assert_eq!(db.get(a, b"old", None).unwrap(), None);
        assert_eq!(db.get(a, b"new", None).unwrap().unwrap(), "2");
        assert_eq!(db.get(b, b"k", None).unwrap().unwrap(), "last");
    });
}

#[test]
fn multi_get_keeps_the_order_of_its_keys() {
    on_both(|db| {
        let keyspace = db.create_keyspace("k").unwrap();
        put(db, keyspace, "a", "1");
        put(db, keyspace, "b", "");
        let values = db.multi_get(keyspace, &[b"b", b"missing", b"a", b"b"], None).unwrap();
        let values: Vec<_> = values.iter().map(Option::as_deref).collect();
        assert_eq!(values, [Some(&b""[..]), None, Some(b"1"), Some(b"")]);
        assert!(db.multi_get(keyspace, &[], None).unwrap().is_empty());
    });
}

#[test]
fn scans_follow_bounds_and_direction() {
    on_both(|db| {
        let keyspace = db.create_keyspace("k").unwrap();
        for key in ["a", "b", "ba", "bb", "c"] {
            put(db, keyspace, key, key);
        }
        assert_eq!(keys(db, keyspace, &ScanRange::all()), ["a", "b", "ba", "bb", "c"]);
        assert_eq!(keys(db, keyspace, &ScanRange::prefix(b"b")), ["b", "ba", "bb"]);
        assert_eq!(keys(db, keyspace, &ScanRange::prefix(b"b").reversed()), ["bb", "ba", "b"]);
        let range = ScanRange {
            start: Bound::Excluded(b"a".to_vec()),
            end: Bound::Included(b"ba".to_vec()),
            reverse: false,
        };
        assert_eq!(keys(db, keyspace, &range), ["b", "ba"]);
    });
}

#[test]
fn a_page_has_no_more_pairs_than_asked_for() {
    on_both(|db| {
        let keyspace = db.create_keyspace("k").unwrap();
        let mut batch = WriteBatch::new();
        for i in 0..100u32 {
            batch.put(keyspace, &i.to_be_bytes(), &[7; 50]);
        }
        db.write(batch, Durability::Buffered).unwrap();
        let mut scan = db.scan(keyspace, &ScanRange::all(), None).unwrap();
        let mut next = |bytes_max, pairs_max| scan.next_page(bytes_max, pairs_max).unwrap().pairs().count();
        let counts = [(1 << 20, 30), (100, 30), (1 << 20, 0), (1 << 20, usize::MAX), (1 << 20, 30)];
        assert_eq!(counts.map(|(bytes_max, pairs_max)| next(bytes_max, pairs_max)), [30, 2, 1, 67, 0]);
    });
}

#[test]
fn scans_span_many_pages_and_end_with_an_empty_one() {
    on_both(|db| {
        let keyspace = db.create_keyspace("k").unwrap();
        let mut batch = WriteBatch::new();
        for i in 0..5000u32 {
            batch.put(keyspace, &i.to_be_bytes(), &[7; 50]);
        }
        db.write(batch, Durability::Buffered).unwrap();
        let mut scan = db.scan(keyspace, &ScanRange::all(), None).unwrap();
        let (mut rows, mut pages) = (0u32, 0);
        loop {
            let page = scan.next_page(4096, usize::MAX).unwrap();
            if page.is_empty() {
                break;
            }
            pages += 1;
            for pair in page.pairs() {
                assert_eq!(pair.unwrap().0, rows.to_be_bytes()[..]);
                rows += 1;
            }
        }
        assert_eq!(rows, 5000);
        assert!(pages > 10, "{pages} pages");
        assert!(scan.next_page(4096, usize::MAX).unwrap().is_empty());
    });
}

#[test]
fn snapshots_freeze_what_is_visible() {
    on_both(|db| {
        let keyspace = db.create_keyspace("k").unwrap();
        put(db, keyspace, "k", "old");
        let snapshot = db.snapshot().unwrap();
        put(db, keyspace, "k", "new");
        put(db, keyspace, "later", "x");
        assert_eq!(db.get(keyspace, b"k", Some(snapshot)).unwrap().unwrap(), "old");
        let values = db.multi_get(keyspace, &[b"k", b"later"], Some(snapshot)).unwrap();
        assert_eq!(values[0].as_deref(), Some(&b"old"[..]));
        assert_eq!(values[1], None);
        let scan = db.scan(keyspace, &ScanRange::all(), Some(snapshot)).unwrap();
        assert_eq!(pairs(scan).count(), 1);
        assert_eq!(db.get(keyspace, b"k", None).unwrap().unwrap(), "new");
        db.release(snapshot).unwrap();
        assert!(matches!(db.release(snapshot), Err(Error::InvalidArgument(_))));
        assert!(matches!(db.get(keyspace, b"k", Some(snapshot)), Err(Error::InvalidArgument(_))));
    });
}

#[test]
fn a_scan_sees_the_database_as_it_was_when_it_began() {
    on_both(|db| {
        let keyspace = db.create_keyspace("k").unwrap();
        put(db, keyspace, "a", "1");
        let scan = db.scan(keyspace, &ScanRange::all(), None).unwrap();
        put(db, keyspace, "b", "2");
        assert_eq!(pairs(scan).count(), 1);
    });
}

#[test]
fn upkeep_answers() {
    on_both(|db| {
        let keyspace = db.create_keyspace("k").unwrap();
        put(db, keyspace, "a", "1");
        db.flush().unwrap();
        db.compact().unwrap();
        db.sync().unwrap();
        while db.maintain(Budget::bytes(1 << 20)).unwrap() == Progress::More {}
        assert!(db.verify().unwrap().problems.is_empty());
        let stats = db.stats().unwrap();
        assert_eq!(stats.keyspaces.len(), 1);
        assert_eq!((stats.keyspaces[0].id, stats.keyspaces[0].name.as_str()), (keyspace, "k"));
        assert_eq!(db.get(keyspace, b"a", None).unwrap().unwrap(), "1");
    });
}

#[test]
fn stalls_and_range_tombstones_cross_the_boundary() {
    let directory = tempfile::tempdir().unwrap();
    let mut options = options();
    // Each commit waits until the one before is flushed.
    options.engine.memtable_bytes = 1;
    options.engine.write_buffer_bytes = Some(1);
    let db = duramen_host::open(directory.path(), false, options).unwrap();
    let keyspace = db.create_keyspace("k").unwrap();
    put(&*db, keyspace, "a", "1");
    assert_eq!(db.stats().unwrap().stalls, []);
    put(&*db, keyspace, "b", "2");
    db.delete_range(keyspace, b"a", b"b", Durability::Buffered).unwrap();
    let stats = db.stats().unwrap();
    let (cause, kind) = (StallCause::WriteBuffer, StallKind::Waited);
    assert_eq!(stats.stall, Some(StallState { cause, kind }));
    let [stall] = &stats.stalls[..] else { panic!("{:?}", stats.stalls) };
    assert_eq!((stall.cause, stall.kind, stall.count), (cause, kind, 2));
    assert_eq!(stats.stall_ms, stall.total_ms);

    db.flush().unwrap();
    let stats = db.stats().unwrap();
    assert_eq!((stats.stall, &stats.background_errors[..]), (None, &[][..]));
    let runs = stats.keyspaces[0].runs.iter().map(|run| (run.tombstones, run.range_tombstones));
    assert_eq!(runs.collect::<Vec<_>>(), [(0, 1), (0, 0), (0, 0)]);
    db.close().unwrap();
}

#[test]
fn what_was_committed_is_there_after_close_and_after_drop() {
    let directory = tempfile::tempdir().unwrap();
    let db = crate::open(directory.path());
    let keyspace = db.create_keyspace("k").unwrap();
    put(&db, keyspace, "closed", "1");
    db.close().unwrap();
    assert!(matches!(db.get(keyspace, b"closed", None), Err(Error::InvalidArgument(_))));
    assert!(matches!(db.close(), Err(Error::InvalidArgument(_))));

    // Beside the closed one: close gave the directory back.
    let second = crate::open(directory.path());
    assert_eq!(second.find_keyspace("k").unwrap(), Some(keyspace));
    assert_eq!(second.get(keyspace, b"closed", None).unwrap().unwrap(), "1");
    put(&second, keyspace, "dropped", "2");
    drop(second);

    let third = crate::open(directory.path());
    assert_eq!(third.get(keyspace, b"dropped", None).unwrap().unwrap(), "2");
    assert!(third.stats().unwrap().names_durable, "wasmtime syncs directories");
}

#[test]
fn native_and_sandbox_read_each_other() {
    let directory = tempfile::tempdir().unwrap();
    for round in 0..4 {
        let db = duramen_host::open(directory.path(), round % 2 == 0, options()).unwrap();
        let keyspace = db.create_keyspace("k").unwrap();
        for earlier in 0..round {
            assert_eq!(db.get(keyspace, &[earlier], None).unwrap().unwrap()[..], [earlier]);
        }
        db.put(keyspace, &[round], &[round], Durability::Buffered).unwrap();
        if round > 1 {
            db.flush().unwrap();
        }
        db.close().unwrap();
    }
}

#[test]
fn many_threads_take_turns() {
    on_both(|db| {
        let keyspace = db.create_keyspace("k").unwrap();
        thread::scope(|scope| {
            for worker in 0..8u8 {
                scope.spawn(move || {
                    for i in 0..100u8 {
                        db.put(keyspace, &[worker, i], &[i], Durability::Buffered).unwrap();
                        assert_eq!(db.get(keyspace, &[worker, i], None).unwrap().unwrap()[..], [i]);
                    }
                    let mine = db.scan(keyspace, &ScanRange::prefix(&[worker]), None).unwrap();
                    assert_eq!(pairs(mine).count(), 100);
                });
            }
        });
        assert_eq!(pairs(db.scan(keyspace, &ScanRange::all(), None).unwrap()).count(), 800);
    });
}
