//! Goal: arguments that would not fit in the guest are refused, and the instance
//! lives on. Method: a sandbox with the least memory, and arguments at and past
//! each limit.

use duramen::{Database, Durability, Error, WriteBatch};
use duramen_host::Sandbox;

use crate::{SMALL, small};

const VALUE_BYTES_MAX: usize = SMALL as usize / 8;
const BATCH_BYTES_MAX: usize = SMALL as usize / 4;

fn is_invalid<T>(result: duramen::Result<T>) -> bool {
    matches!(result, Err(Error::InvalidArgument(_)))
}

#[test]
fn oversize_arguments_are_refused_without_a_trap() {
    let directory = tempfile::tempdir().unwrap();
    let db = Sandbox::open(directory.path(), small()).unwrap();
    let keyspace = db.create_keyspace("k").unwrap();

    let value = vec![1; VALUE_BYTES_MAX];
    db.put(keyspace, b"longest", &value, Durability::Buffered).unwrap();
    let longer = vec![1; VALUE_BYTES_MAX + 1];
    assert!(is_invalid(db.put(keyspace, b"longer", &longer, Durability::Buffered)));

    let key = vec![1; duramen::key::KEY_BYTES_MAX];
    db.put(keyspace, &key, b"", Durability::Buffered).unwrap();
    let key = vec![1; duramen::key::KEY_BYTES_MAX + 1];
    assert!(is_invalid(db.put(keyspace, &key, b"", Durability::Buffered)));

    let mut batch = WriteBatch::new();
    while batch.encoded_bytes() <= BATCH_BYTES_MAX {
        batch.put(keyspace, b"k", &[2; 100_000]);
    }
    assert!(is_invalid(db.write(batch, Durability::Buffered)));

    let huge = vec![1; BATCH_BYTES_MAX + 1];
    assert!(is_invalid(db.get(keyspace, &huge, None)));
    assert!(is_invalid(db.multi_get(keyspace, &[&huge], None)));

    assert_eq!(db.get(keyspace, b"longest", None).unwrap().unwrap(), value);
    assert_eq!(db.get(keyspace, b"longer", None).unwrap(), None);
    assert_eq!(db.get(keyspace, b"k", None).unwrap(), None);
    assert_eq!(db.restarts(), 0);
}

#[test]
fn the_guest_stays_under_its_cap_and_says_what_it_uses() {
    let directory = tempfile::tempdir().unwrap();
    let db = Sandbox::open(directory.path(), small()).unwrap();
    let keyspace = db.create_keyspace("k").unwrap();
    let before = db.guest_memory_bytes();
    assert!(before > 0);
    db.put(keyspace, b"k", &vec![1; VALUE_BYTES_MAX], Durability::Buffered).unwrap();
    assert!(db.guest_memory_bytes() > before);
    assert!(db.guest_memory_bytes_peak() <= SMALL);
    db.close().unwrap();
    assert_eq!(db.guest_memory_bytes(), 0);
    assert!(db.guest_memory_bytes_peak() > before);
}

#[test]
fn a_memory_cap_out_of_range_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let mut options = small();
    options.memory_bytes_max -= 1;
    assert!(is_invalid(Sandbox::open(directory.path(), options)));
}

/// Flushes and compactions of a guest with the least memory must fit beside all
/// else; were they to trap, they would do so again after every restart.
#[test]
fn a_small_sandbox_holds_a_large_database() {
    let directory = tempfile::tempdir().unwrap();
    let db = Sandbox::open(directory.path(), small()).unwrap();
    let keyspace = db.create_keyspace("k").unwrap();
    let mut random = 1u64;
    let mut value = || {
        let words = std::iter::repeat_with(|| {
            random = random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (random ^ (random >> 29)).to_le_bytes()
        });
        words.take(128).flatten().collect::<Vec<u8>>()
    };
    const ROWS: u64 = 40 << 10;
    for row in 0..ROWS {
        let key = (row * 7919 % ROWS).to_be_bytes();
        db.put(keyspace, &key, &value(), Durability::Buffered).unwrap();
    }
    db.compact().unwrap();
    let report = db.verify().unwrap();
    assert_eq!((report.problems, report.entries), (vec![], ROWS));
    assert_eq!(db.restarts(), 0);
    assert!(db.guest_memory_bytes_peak() <= SMALL);
}
