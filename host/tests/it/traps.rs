//! Goal: a trap costs the call that met it, and nothing that was committed.
//! Method: exhaust the guest's memory with live scans, and its time with a huge
//! batch; then look at what is left.

use std::io::ErrorKind;
use std::ops::Bound;
use std::time::{Duration, Instant};

use duramen::{Database, Durability, Error, KeyspaceId, Scan, ScanRange, WriteBatch};
use duramen_host::{Sandbox, SandboxOptions};

use crate::{options, small};

/// The kind and text of an `Io` error.
fn io<T>(result: duramen::Result<T>) -> (ErrorKind, String) {
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
    assert_eq!(io(scans[0].next_page(1024)).0, ErrorKind::ConnectionReset);
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
